//! Native histograms: one type for integer and float ones, exponential and custom buckets.
//!
//! Bucket counts are absolute (not deltas) and floats; `integer` remembers that they were whole numbers
//! when written (exact up to 2^53). Arithmetic on histograms, as PromQL needs it, lives in `engine`.

use std::sync::Arc;

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
