//! Arithmetic on native histograms, as PromQL needs it: bucket bounds and iteration, addition and subtraction with
//! reconciled layouts, counter resets, trimming, text.
//!
//! The values are `model::Histogram`s with absolute float counts. Nothing here trusts that spans and buckets fit
//! together: missing buckets end an iteration, surplus ones are ignored. Quantiles are in `quantile.rs` above.

mod add;
mod buckets;
mod exact;
mod reset;
mod sum;
mod text;
mod trim;
mod zero;

pub(crate) use add::{Incompatible, Outcome, add, sub};
pub(crate) use buckets::{Bucket, all_buckets, compact, copy_to_schema, fraction_below};
pub(crate) use exact::ExactHistogram;
pub(crate) use reset::{equals, is_reset};
pub(crate) use sum::{HistogramMean, HistogramSum};
pub(crate) use text::to_text;
pub(crate) use trim::trim;

use model::Histogram;
use model::histogram::ResetHint;

/// Multiplies everything by `factor`. A negative factor makes it a gauge.
pub(crate) fn mul(h: &mut Histogram, factor: f64) {
    h.integer = false;
    h.zero_count *= factor;
    h.count *= factor;
    h.sum *= factor;
    h.positive_buckets.iter_mut().chain(&mut h.negative_buckets).for_each(|b| *b *= factor);
    if factor < 0.0 {
        h.reset_hint = ResetHint::Gauge;
    }
}

/// Divides everything by `divisor`. Division by zero removes all buckets; a negative divisor makes it a gauge.
pub(crate) fn div(h: &mut Histogram, divisor: f64) {
    h.integer = false;
    h.zero_count /= divisor;
    h.count /= divisor;
    h.sum /= divisor;
    if divisor == 0.0 {
        h.positive_buckets.clear();
        h.negative_buckets.clear();
        h.positive_spans.clear();
        h.negative_spans.clear();
        return;
    }
    h.positive_buckets.iter_mut().chain(&mut h.negative_buckets).for_each(|b| *b /= divisor);
    if divisor < 0.0 {
        h.reset_hint = ResetHint::Gauge;
    }
}

/// The boundaries of custom buckets, empty for exponential ones.
pub(crate) fn bounds(h: &Histogram) -> &[f64] {
    h.custom_values.as_deref().unwrap_or(&[])
}
