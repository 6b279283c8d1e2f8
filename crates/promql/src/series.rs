//! Series descriptions, the small language of test scripts and rule unit tests: `up{job="a"} 1+2x10 _x3 stale`,
//! with native histograms in `{{…}}`; and the start-timestamp lines of upstream's scripts (`metric@st -1m-1mx5`).
//!
//! The metric is read by the PromQL parser, the values by hand, since they have tokens of their own
//! (`promql/parser/generated_parser.y`, `series_description`). Not here: adding histograms up (`engine`), so a
//! sequence of histograms is given as first value and change.

mod histogram;
mod start_timestamp;
mod values;

use model::{Histogram, Labels};

use crate::ast::Span;
use crate::error::ParseErrors;
use crate::parse::{ParseOptions, Parser};
pub use start_timestamp::{StartTimestamps, parse_start_timestamps};
use values::Values;

/// How many values one description may stand for.
pub const MAX_VALUES: u64 = 4 << 20;

/// A series and its values at equal distances.
#[derive(Clone, Debug)]
pub struct SeriesDescription {
    /// The labels, the name among them.
    pub labels: Labels,
    /// The values, in order.
    pub items: Vec<SeriesItem>,
}

/// One value.
#[derive(Clone, Debug)]
pub enum SeriesValue {
    /// `_`: no sample.
    Omitted,
    /// A float; `stale` is the staleness marker.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// The histogram.
        histogram: Box<Histogram>,
        /// Whether the counter-reset hint was written (so that an expectation means it).
        hint_set: bool,
    },
}

/// A value, or several that a repetition stands for.
#[derive(Clone, Debug)]
pub struct SeriesItem {
    /// The first value.
    pub first: SeriesValue,
    /// What each further value has more than the one before; `None` when all are equal.
    pub change: Option<SeriesChange>,
    /// How many values, at least 1 except for `_x0`.
    pub count: u64,
}

/// The change from value to value.
#[derive(Clone, Debug)]
pub enum SeriesChange {
    /// Added to a float.
    Float(f64),
    /// Added to, or subtracted from, a histogram.
    Histogram {
        /// Subtracted.
        subtract: bool,
        /// How much.
        by: Box<Histogram>,
    },
}

impl SeriesDescription {
    /// All values one by one. `combine` adds (`false`) or subtracts (`true`) histograms.
    pub fn expand(
        &self,
        combine: &mut dyn FnMut(&Histogram, &Histogram, bool) -> Result<Histogram, String>,
    ) -> Result<Vec<SeriesValue>, String> {
        let mut all = Vec::new();
        for item in &self.items {
            let mut current = item.first.clone();
            for index in 0..item.count {
                if index > 0 {
                    match (&item.change, &mut current) {
                        (Some(SeriesChange::Float(change)), SeriesValue::Float(value)) => *value += change,
                        (
                            Some(SeriesChange::Histogram { subtract, by }),
                            SeriesValue::Histogram { histogram, .. },
                        ) => {
                            if histogram.schema > by.schema {
                                let (from, to) = (by.schema, histogram.schema);
                                return Err(format!(
                                    "error combining histograms: cannot merge from schema {from} to {to}"
                                ));
                            }
                            **histogram = combine(histogram, by, *subtract)?;
                        }
                        _ => {}
                    }
                }
                all.push(current.clone());
            }
        }
        Ok(all)
    }
}

/// Reads a series description. At most [`MAX_VALUES`] values.
pub fn parse_series(text: &str, options: &ParseOptions) -> Result<SeriesDescription, ParseErrors> {
    let text = text.trim_end();
    let metric_end = metric_length(text);
    let mut parser = Parser::new(&text[..metric_end], options);
    let labels = match parser.start().and_then(|()| parser.metric()) {
        Ok(labels) if parser.findings.is_empty() => labels,
        _ => return Err(parser.findings.into_errors(text)),
    };
    let mut values = Values::new(text, metric_end);
    match values.read() {
        Ok(items) => Ok(SeriesDescription { labels, items }),
        Err((at, message)) => {
            let mut findings = parser.findings;
            findings.push(Span { start: at as u32, end: text.len() as u32 }, message);
            Err(findings.into_errors(text))
        }
    }
}

/// Where the metric ends: at the closing brace, or at the first space when there are no braces.
fn metric_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let name_end =
        bytes[start..].iter().position(|b| blank(b) || *b == b'{').map_or(bytes.len(), |at| start + at);
    let brace = bytes[name_end..].iter().position(|b| !blank(b)).map_or(bytes.len(), |at| name_end + at);
    // `name {…}` is a metric with labels, `name {{…}}` one without and a histogram.
    let spaced = brace > name_end;
    if bytes.get(brace) != Some(&b'{') || spaced && bytes.get(brace + 1) == Some(&b'{') {
        return name_end;
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in bytes.iter().copied().enumerate().skip(brace + 1) {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(open), _) if open == byte => quote = None,
            (Some(b'"' | b'\''), b'\\') => escaped = true,
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') => quote = Some(byte),
            (None, b'}') => return at + 1,
            (None, _) => {}
        }
    }
    bytes.len()
}
