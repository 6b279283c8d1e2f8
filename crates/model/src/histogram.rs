//! Native histograms: one type for integer and float ones, exponential and custom buckets.
//!
//! Bucket counts are absolute (not deltas) and floats; `integer` remembers that they were whole numbers
//! when written (exact up to 2^53). Arithmetic on histograms, as PromQL needs it, lives in `engine`.

mod bounds;

use std::sync::Arc;

pub use bounds::exponential_bound;

/// The schema number of histograms with custom bucket boundaries.
pub const CUSTOM_BUCKETS_SCHEMA: i8 = -53;

/// What is known about a counter reset between the previous histogram of the series and this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetHint {
    /// Not known: compare the counts.
    #[default]
    Unknown = 0,
    /// This is the first histogram after a reset.
    Reset = 1,
    /// There was no reset.
    NotReset = 2,
    /// A gauge histogram: resets have no meaning.
    Gauge = 3,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the end of the previous span, or the first index of the first span.
    pub offset: i32,
    /// Number of consecutive buckets.
    pub length: u32,
}

/// A native histogram.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Whether counts were integers when written.
    pub integer: bool,
    /// Counter-reset hint.
    pub reset_hint: ResetHint,
    /// Resolution: −4 to 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i8,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Count in the zero bucket.
    pub zero_count: f64,
    /// Count of all observations.
    pub count: f64,
    /// Sum of all observations; the staleness marker here makes the histogram a staleness marker.
    pub sum: f64,
    /// Layout of the positive buckets.
    pub positive_spans: Vec<Span>,
    /// Absolute counts of the positive buckets, in span order.
    pub positive_buckets: Vec<f64>,
    /// Layout of the negative buckets.
    pub negative_spans: Vec<Span>,
    /// Absolute counts of the negative buckets, in span order.
    pub negative_buckets: Vec<f64>,
    /// Upper boundaries of custom buckets, ascending, without +Inf; empty for exponential schemas.
    pub custom_values: Option<Arc<[f64]>>,
}

impl Histogram {
    /// Whether this is a staleness marker.
    pub fn is_stale(&self) -> bool {
        crate::is_stale(self.sum)
    }

    /// A staleness marker.
    pub fn stale() -> Self {
        Self { sum: crate::stale_nan(), ..Self::default() }
    }

    /// Whether the buckets have custom boundaries.
    pub fn has_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Whether this can be a later state of the counters of `previous`, both in the same layout: of the same kind,
    /// resolution, zero bucket and boundaries, with no count lower and no populated bucket gone. This is when
    /// upstream's store goes on with a chunk (`tsdb/chunkenc`, `appendable`), and so tells that there was no reset.
    pub fn continues(&self, previous: &Self) -> bool {
        let bounds = |h: &Self| h.custom_values.clone().unwrap_or_default();
        self.integer == previous.integer
            && self.schema == previous.schema
            && self.zero_threshold.to_bits() == previous.zero_threshold.to_bits()
            && (!self.has_custom_buckets() || bounds(self) == bounds(previous))
            && self.count >= previous.count
            && self.zero_count >= previous.zero_count
            && covers(
                (&self.positive_spans, &self.positive_buckets),
                (&previous.positive_spans, &previous.positive_buckets),
            )
            && covers(
                (&self.negative_spans, &self.negative_buckets),
                (&previous.negative_spans, &previous.negative_buckets),
            )
    }

    /// Whether both are the same sample: all bits agree, hints aside, which say how a sample relates to others.
    pub fn same_sample(&self, other: &Self) -> bool {
        let is_gauge = |h: &Self| h.reset_hint == ResetHint::Gauge;
        is_gauge(self) == is_gauge(other)
            && (self.reset_hint == other.reset_hint && self.same_bits(other)
                || Self { reset_hint: other.reset_hint, ..self.clone() }.same_bits(other))
    }

    /// Bytes of memory in use, roughly.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + (self.positive_spans.len() + self.negative_spans.len()) * size_of::<Span>()
            + (self.positive_buckets.len() + self.negative_buckets.len()) * 8
            + self.custom_values.as_deref().map_or(0, |bounds| bounds.len() * 8)
    }

    /// Whether every bit (including NaN payloads and −0) and every field agrees.
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
        };
        self.integer == other.integer
            && self.reset_hint == other.reset_hint
            && self.schema == other.schema
            && bits(
                &[self.zero_threshold, self.zero_count, self.count, self.sum],
                &[other.zero_threshold, other.zero_count, other.count, other.sum],
            )
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
            && bits(&self.positive_buckets, &other.positive_buckets)
            && bits(&self.negative_buckets, &other.negative_buckets)
            && bits(
                self.custom_values.as_deref().unwrap_or(&[]),
                other.custom_values.as_deref().unwrap_or(&[]),
            )
    }
}

/// Whether each populated bucket of `before` is in `now` with at least its count.
fn covers(now: (&[Span], &[f64]), before: (&[Span], &[f64])) -> bool {
    if now.0 == before.0 && now.1.len() == before.1.len() {
        return now.1.iter().zip(before.1).all(|(now, before)| now >= before);
    }
    let mut now = indexed(now).peekable();
    indexed(before).filter(|(_, count)| *count != 0.0).all(|(index, count)| {
        while now.next_if(|(at, _)| *at < index).is_some() {}
        now.next_if(|(at, _)| *at == index).is_some_and(|(_, found)| found >= count)
    })
}

/// The buckets of one side with their indexes, ascending.
fn indexed<'a>((spans, buckets): (&'a [Span], &'a [f64])) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    spans
        .iter()
        .flat_map(move |span| {
            let first = next + i64::from(span.offset);
            next = first + i64::from(span.length);
            first..next
        })
        .zip(buckets.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Histogram {
        Histogram {
            count: 6.0,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![2.0, 3.0],
            ..Histogram::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Histogram), continues: bool) {
        let mut next = base();
        change(&mut next);
        assert_eq!(next.continues(&base()), continues, "{next:?}");
    }

    #[test]
    fn a_later_state_has_no_lower_count_and_the_same_layout() {
        check(|_| {}, true);
        check(|h| h.count = 7.0, true);
        check(|h| h.count = 5.0, false);
        check(|h| h.zero_count = 0.0, false);
        check(|h| h.positive_buckets[1] = 2.0, false);
        check(|h| h.schema = 1, false);
        check(|h| h.zero_threshold = 0.5, false);
        check(|h| h.integer = true, false);
        let spans =
            |first, second| vec![Span { offset: first, length: 1 }, Span { offset: second, length: 2 }];
        check(|h| (h.positive_spans, h.positive_buckets) = (spans(-1, 1), vec![9.0, 2.0, 3.0]), true);
        check(|h| (h.positive_spans, h.positive_buckets) = (spans(0, 1), vec![9.0, 2.0, 3.0]), false);
        check(|h| (h.positive_spans, h.positive_buckets) = (vec![], vec![]), false);
    }

    #[test]
    fn the_same_sample_whatever_the_hint() {
        let with = |reset_hint| Histogram { reset_hint, ..base() };
        assert!(with(ResetHint::Unknown).same_sample(&with(ResetHint::NotReset)));
        assert!(!with(ResetHint::Unknown).same_sample(&with(ResetHint::Gauge)));
        assert!(!with(ResetHint::Unknown).same_sample(&Histogram { sum: -0.0, ..base() }));
    }
}
