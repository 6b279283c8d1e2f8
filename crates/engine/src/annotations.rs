//! Infos and warnings of an evaluation: what kind, where in the query, in upstream's words.

use std::collections::BTreeMap;

use model::Failure;
use promql::ast::Span;
use promql::quote::quote;

use crate::coding::{Reader, Writer};
use model::number::format_float_g as general;
use model::time::format_rfc3339;

/// How serious an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnnotationKind {
    /// Something may be wrong with the query.
    Info,
    /// The result is probably not what was meant.
    Warning,
}

/// One info or warning.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// How serious.
    pub kind: AnnotationKind,
    /// Upstream's text without position and details, for example `PromQL info: metric might not be a counter, …`.
    pub text: String,
    /// The bytes of the query text that it is about: (first, one past the last).
    pub span: (u32, u32),
    detail: Detail,
}

/// What is added to the text when it is shown, gathered over all places and steps with the same text.
#[derive(Clone, Debug, PartialEq)]
enum Detail {
    None,
    Forced { samples: u64, first_ms: i64, last_ms: i64, lowest: f64, highest: f64, largest_difference: f64 },
    Occurrences(u64),
}

impl Annotation {
    /// The text with its details and its position in `query`, as the HTTP API shows it: `text (line:column)`.
    pub fn render(&self, query: &str) -> String {
        let at = (self.span.0 as usize).min(query.len());
        let before = &query.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rposition(|b| *b == b'\n').map_or(at, |newline| at - newline - 1) + 1;
        let detail = match &self.detail {
            Detail::None | Detail::Occurrences(0 | 1) => String::new(),
            Detail::Occurrences(count) => format!(" ({count} occurrences)"),
            Detail::Forced { samples, first_ms, last_ms, lowest, highest, largest_difference } => format!(
                ", from buckets {} to {}, with a max diff of {}, over {samples} samples from {} to {}",
                general(*lowest),
                general(*highest),
                two_digits(*largest_difference),
                format_rfc3339(first_ms - first_ms.rem_euclid(1000)),
                format_rfc3339(last_ms - last_ms.rem_euclid(1000)),
            ),
        };
        format!("{}{detail} ({line}:{column})", self.text)
    }

    /// Whether it gathers details of all its places.
    fn is_gathered(&self) -> bool {
        self.detail != Detail::None
    }

    /// Takes what an earlier annotation with the same text gathered.
    fn absorb(&mut self, earlier: Self) {
        match (&mut self.detail, earlier.detail) {
            (Detail::Occurrences(count), Detail::Occurrences(more)) => *count = count.saturating_add(more),
            (
                Detail::Forced { samples, first_ms, last_ms, lowest, highest, largest_difference },
                Detail::Forced {
                    samples: more,
                    first_ms: first,
                    last_ms: last,
                    lowest: low,
                    highest: high,
                    largest_difference: difference,
                },
            ) => {
                *samples = samples.saturating_add(more);
                *first_ms = first.min(*first_ms);
                *last_ms = last.max(*last_ms);
                *lowest = low.min(*lowest);
                *highest = high.max(*highest);
                *largest_difference = difference.max(*largest_difference);
            }
            _ => {}
        }
    }
}

/// The annotations of an evaluation, each text once, in order of kind and text. Of several places with the same text
/// the one is kept that is evaluated last, as upstream has it: what is around another, else what is to the right. Of those
/// that gather details it is the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    all: BTreeMap<(AnnotationKind, String), Annotation>,
}

impl Annotations {
    /// Adds one, unless it is there already.
    pub fn add(&mut self, kind: AnnotationKind, text: impl Into<String>, span: Span) {
        self.insert(Annotation {
            kind,
            text: text.into(),
            span: (span.start, span.end),
            detail: Detail::None,
        });
    }

    /// Adds all of `other`. The order in which things are added does not matter.
    pub fn merge(&mut self, other: Self) {
        for (_, annotation) in other.all {
            self.insert(annotation);
        }
    }

    fn insert(&mut self, mut annotation: Annotation) {
        let key = (annotation.kind, annotation.text.clone());
        if let Some(earlier) = self.all.remove(&key) {
            let evaluated = |(start, end): (u32, u32)| (end, u32::MAX - start);
            let is_later = evaluated(earlier.span) > evaluated(annotation.span);
            if is_later != annotation.is_gathered() {
                annotation.span = earlier.span;
            }
            annotation.absorb(earlier);
        }
        self.all.insert(key, annotation);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Annotation> {
        self.all.values()
    }

    /// Writes them.
    pub(crate) fn write(&self, to: &mut Writer) {
        to.varint(self.all.len() as u64);
        for annotation in self.all.values() {
            to.u8(u8::from(annotation.kind == AnnotationKind::Warning));
            to.text(&annotation.text);
            to.varint(annotation.span.0.into());
            to.varint(annotation.span.1.into());
            match &annotation.detail {
                Detail::None => to.u8(0),
                Detail::Occurrences(count) => {
                    to.u8(1);
                    to.varint(*count);
                }
                Detail::Forced { samples, first_ms, last_ms, lowest, highest, largest_difference } => {
                    to.u8(2);
                    to.varint(*samples);
                    to.signed(*first_ms);
                    to.signed(*last_ms);
                    [lowest, highest, largest_difference].into_iter().for_each(|v| to.float(*v));
                }
            }
        }
    }

    /// What [`Annotations::write`] wrote.
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Failure> {
        let mut all = Self::default();
        for _ in 0..from.count(5)? {
            let kind = if from.flag()? { AnnotationKind::Warning } else { AnnotationKind::Info };
            let text = from.text()?;
            let mut place = || {
                let at = from.varint()?;
                u32::try_from(at).map_err(|_| from.damaged("an annotation's place beyond 32 bits"))
            };
            let span = (place()?, place()?);
            let detail = match from.u8()? {
                0 => Detail::None,
                1 => Detail::Occurrences(from.varint()?),
                2 => Detail::Forced {
                    samples: from.varint()?,
                    first_ms: from.signed()?,
                    last_ms: from.signed()?,
                    lowest: from.float()?,
                    highest: from.float()?,
                    largest_difference: from.float()?,
                },
                _ => return Err(from.damaged("an annotation of an unknown kind")),
            };
            all.insert(Annotation { kind, text, span, detail });
        }
        Ok(all)
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Annotation> {
        self.iter().filter(|a| a.kind == AnnotationKind::Warning)
    }

    /// The infos.
    pub fn infos(&self) -> impl Iterator<Item = &Annotation> {
        self.iter().filter(|a| a.kind == AnnotationKind::Info)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// `value` with two significant digits (Go: `%.2g`).
fn two_digits(value: f64) -> String {
    let size = value.abs();
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    if size.is_finite() && (10.0..1e6).contains(&rounded.abs()) && rounded.abs() >= 100.0 {
        let exponent = rounded.abs().log10().floor();
        let mantissa = rounded / 10f64.powf(exponent);
        return format!("{}e+{exponent:02}", general((mantissa * 10.0).round() / 10.0));
    }
    general(rounded)
}

/// What an operation on histograms was, in texts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Addition,
    Subtraction,
    Aggregation,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

fn with_name(text: &str, name: &str) -> String {
    if name.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", quote(name)) }
}

/// Upstream's annotations by name.
impl Annotations {
    fn warn(&mut self, text: &str, span: Span) {
        self.add(AnnotationKind::Warning, format!("PromQL warning: {text}"), span);
    }

    fn info(&mut self, text: &str, span: Span) {
        self.add(AnnotationKind::Info, format!("PromQL info: {text}"), span);
    }

    pub(crate) fn invalid_quantile(&mut self, q: f64, span: Span) {
        self.warn(&format!("quantile value should be between 0 and 1, got {}", general(q)), span);
    }

    pub(crate) fn invalid_ratio(&mut self, got: f64, to: f64, span: Span) {
        let (got, to) = (general(got), general(to));
        self.warn(&format!("ratio value should be between -1 and 1, got {got}, capping to {to}"), span);
    }

    pub(crate) fn invalid_integral_method(&mut self, got: f64, span: Span) {
        self.warn(&format!("integral method should be 0, 1 or 2, got {}, using 2", general(got)), span);
    }

    pub(crate) fn bad_bucket_label(&mut self, name: &str, label: &str, span: Span) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quote(label));
        self.warn(&with_name(&text, name), span);
    }

    pub(crate) fn mixed_floats_histograms(&mut self, name: &str, span: Span) {
        self.warn(
            &format!("encountered a mix of histograms and floats for metric name {}", quote(name)),
            span,
        );
    }

    pub(crate) fn mixed_in_aggregation(&mut self, span: Span) {
        self.warn("encountered a mix of histograms and floats for aggregation", span);
    }

    pub(crate) fn mixed_classic_native(&mut self, name: &str, span: Span) {
        self.warn(&with_name("vector contains a mix of classic and native histograms", name), span);
    }

    pub(crate) fn histogram_not_counter(&mut self, name: &str, span: Span) {
        self.warn(&format!("this native histogram metric is not a counter: {}", quote(name)), span);
    }

    pub(crate) fn histogram_not_gauge(&mut self, name: &str, span: Span) {
        self.warn(&format!("this native histogram metric is not a gauge: {}", quote(name)), span);
    }

    pub(crate) fn mixed_exponential_custom(&mut self, name: &str, span: Span) {
        let text =
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
        self.warn(&format!("{text} {}", quote(name)), span);
    }

    pub(crate) fn incompatible_buckets(&mut self, operator: &str, span: Span) {
        self.warn(&format!("incompatible bucket layout encountered for binary operator {operator}"), span);
    }

    pub(crate) fn sort_in_range_query(&mut self, span: Span) {
        self.warn("sort is ineffective for range queries since results are always ordered by labels", span);
    }

    pub(crate) fn reset_collision(&mut self, operation: Operation, span: Span) {
        self.warn(&format!("conflicting counter resets during histogram {}", operation.as_str()), span);
    }

    pub(crate) fn start_time_overlap(&mut self, name: &str, span: Span) {
        let text = "PromQL warning: sample has start time that overlaps with previous sample timestamp";
        self.insert(Annotation {
            kind: AnnotationKind::Warning,
            text: format!("{text} for metric {}", quote(name)),
            span: (span.start, span.end),
            detail: Detail::Occurrences(1),
        });
    }

    pub(crate) fn possible_non_counter(&mut self, name: &str, span: Span) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
        self.info(&format!("{text} {}", quote(name)), span);
    }

    pub(crate) fn possible_non_counter_type(&mut self, name: &str, kind: &str, span: Span) {
        let text = "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\"";
        self.info(&format!("{text}, got {}: {}", quote(kind), quote(name)), span);
    }

    pub(crate) fn forced_monotonicity(
        &mut self,
        name: &str,
        time_ms: i64,
        forced: crate::quantile::Forced,
        span: Span,
    ) {
        let text = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity \
                    (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        self.insert(Annotation {
            kind: AnnotationKind::Info,
            text: with_name(text, name),
            span: (span.start, span.end),
            detail: Detail::Forced {
                samples: 1,
                first_ms: time_ms,
                last_ms: time_ms,
                lowest: forced.lowest,
                highest: forced.highest,
                largest_difference: forced.largest_difference,
            },
        });
    }

    pub(crate) fn incompatible_types(&mut self, lhs: &str, operator: &str, rhs: &str, span: Span) {
        let text = "incompatible sample types encountered for binary operator";
        self.info(&format!("{text} \"{operator}\": {lhs} {operator} {rhs}"), span);
    }

    pub(crate) fn ignored_in_aggregation(&mut self, aggregation: &str, span: Span) {
        self.info(&format!("ignored histogram in {aggregation} aggregation"), span);
    }

    pub(crate) fn ignored_in_mixed_range(&mut self, name: &str, span: Span) {
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(&format!("{text} {}", quote(name)), span);
    }

    pub(crate) fn quantile_nan_result(&mut self, name: &str, span: Span) {
        self.info(&with_name("input to histogram_quantile has NaN observations, result is NaN", name), span);
    }

    pub(crate) fn quantile_nan_skew(&mut self, name: &str, span: Span) {
        self.info(
            &with_name("input to histogram_quantile has NaN observations, result is skewed higher", name),
            span,
        );
    }

    pub(crate) fn fraction_nans(&mut self, name: &str, span: Span) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(&with_name(text, name), span);
    }

    pub(crate) fn mismatched_custom_buckets(&mut self, operation: Operation, span: Span) {
        self.info(&format!("mismatched custom buckets were reconciled during {}", operation.as_str()), span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_places_the_one_evaluated_last_is_told_or_the_first_of_what_gathers() {
        let span = |start, end| Span { start, end };
        // Around another, and to its right.
        for (a, b, kept) in [((10, 30), (15, 25), 10), ((10, 30), (40, 50), 40), ((10, 50), (40, 50), 10)] {
            for (first, second) in [(a, b), (b, a)] {
                let mut all = Annotations::default();
                all.add(AnnotationKind::Info, "text", span(first.0, first.1));
                all.add(AnnotationKind::Info, "text", span(second.0, second.1));
                assert_eq!(all.iter().map(|a| a.span.0).collect::<Vec<_>>(), [kept], "{first:?} {second:?}");
            }
        }
        for spans in [[span(10, 30), span(40, 50)], [span(40, 50), span(10, 30)]] {
            let mut all = Annotations::default();
            spans.into_iter().for_each(|span| all.start_time_overlap("m", span));
            assert_eq!(all.iter().map(|a| a.span.0).collect::<Vec<_>>(), [10]);
        }
    }
}
