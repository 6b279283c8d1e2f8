//! The zero bucket of native histograms: widening it until two histograms have the same one.

use model::Histogram;
use model::histogram::Span;

use super::buckets::{Layout, compact, entries, negative_buckets, positive_buckets};
use super::sum::Terms;
use crate::kahan::inc;

/// The zero count that `h` would have with the zero threshold `larger`; the threshold grows to the end of a
/// populated bucket that it falls into. Returns (count, threshold, compensation).
fn zero_count_for(h: &Histogram, larger: f64, terms: Option<&Terms>) -> (f64, f64, f64) {
    let start = terms.map_or(0.0, |t| t.zero);
    if larger <= h.zero_threshold {
        return (h.zero_count, h.zero_threshold, start);
    }
    let mut threshold = larger;
    'again: loop {
        let (mut count, mut c) = (h.zero_count, start);
        let take = |at: usize, value: f64, side: Option<&Vec<f64>>, count: &mut f64, c: &mut f64| {
            (*count, *c) = inc(value, *count, *c);
            if let Some(term) = side.and_then(|s| s.get(at)) {
                (*count, *c) = inc(*term, *count, *c);
            }
        };
        for (at, bucket) in positive_buckets(h).enumerate() {
            if bucket.lower >= threshold {
                break;
            }
            take(at, bucket.count, terms.map(|t| &t.positive), &mut count, &mut c);
            if bucket.upper > threshold {
                if bucket.count != 0.0 {
                    threshold = bucket.upper;
                }
                break;
            }
        }
        for (at, bucket) in negative_buckets(h).enumerate() {
            if bucket.upper <= -threshold {
                break;
            }
            take(at, bucket.count, terms.map(|t| &t.negative), &mut count, &mut c);
            if bucket.lower < -threshold {
                if bucket.count != 0.0 {
                    // The positive side was counted with a smaller threshold.
                    threshold = -bucket.lower;
                    continue 'again;
                }
                break;
            }
        }
        return (count, threshold, c);
    }
}

/// Used by the detection of resets: see [`zero_count_for`].
pub(super) fn zero_count_at(h: &Histogram, threshold: f64) -> (f64, f64) {
    let (count, threshold, _) = zero_count_for(h, threshold, None);
    (count, threshold)
}

/// Widens the zero bucket of `h` until it covers that of `other` and ends at a bucket boundary of both. Returns the
/// zero count that `other` has with that threshold, and its compensation.
pub(super) fn reconcile_zero(h: &mut Histogram, other: &Histogram, terms: &mut Option<Terms>) -> (f64, f64) {
    let (mut zero, mut threshold, mut c) = (other.zero_count, other.zero_threshold, 0.0);
    // NaN thresholds never become equal; each round otherwise widens one of the two.
    while threshold != h.zero_threshold && !threshold.is_nan() && !h.zero_threshold.is_nan() {
        if h.zero_threshold > threshold {
            (zero, threshold, c) = zero_count_for(other, h.zero_threshold, None);
        }
        if threshold > h.zero_threshold {
            let (count, widened, term) = zero_count_for(h, threshold, terms.as_ref());
            (h.zero_count, h.zero_threshold) = (count, widened);
            if let Some(terms) = terms {
                terms.zero = term;
            }
            clear_zero_area(h, terms);
        }
    }
    (zero, c)
}

/// Removes the buckets that lie within the zero bucket.
fn clear_zero_area(h: &mut Histogram, terms: &mut Option<Terms>) {
    let positive = positive_buckets(h).take_while(|b| b.lower < h.zero_threshold).count();
    let negative = negative_buckets(h).take_while(|b| b.upper > -h.zero_threshold).count();
    h.positive_buckets.iter_mut().take(positive).for_each(|b| *b = 0.0);
    h.negative_buckets.iter_mut().take(negative).for_each(|b| *b = 0.0);
    match terms {
        None => compact(h),
        Some(terms) => {
            terms.positive.iter_mut().take(positive).for_each(|b| *b = 0.0);
            terms.negative.iter_mut().take(negative).for_each(|b| *b = 0.0);
            compact_with(&mut h.positive_spans, &mut h.positive_buckets, &mut terms.positive);
            compact_with(&mut h.negative_spans, &mut h.negative_buckets, &mut terms.negative);
        }
    }
}

fn compact_with(spans: &mut Vec<Span>, buckets: &mut Vec<f64>, terms: &mut Vec<f64>) {
    let mut layout = Layout::default();
    let mut kept = Vec::with_capacity(terms.len());
    for ((index, count), term) in entries(spans, buckets).zip(terms.iter()) {
        if count != 0.0 || *term != 0.0 {
            layout.push(index, count);
            kept.push(*term);
        }
    }
    (*spans, *buckets, *terms) = (layout.spans, layout.counts, kept);
}
