//! Float samples, exemplars, and the staleness marker.

use crate::Labels;

/// The bits of the staleness marker, as Prometheus defines them (`model/value/value.go`, `StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a float: a NaN with a payload of its own.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker (and not any other NaN).
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One float sample: milliseconds since the epoch, and a value of any bit pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The value; NaN payloads and −0 are kept.
    pub value: f64,
}

/// An exemplar: labels (a trace id, say), a value and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The exemplar's own labels.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
}
