//! The operators `</` and `>/`: cutting off the part of a native histogram above or below a value.

use model::Histogram;

use super::buckets::{Bucket, compact, fraction_below, negative_buckets, positive_buckets, zero_bucket};

/// Keeps the observations below `at` (`upper`) or above it, estimating within a bucket that holds it. Count and sum
/// follow from the buckets that are left, unless nothing was cut.
pub(crate) fn trim(h: &mut Histogram, at: f64, upper: bool) {
    let custom = h.has_custom_buckets();
    let (mut count, mut sum, mut cut) = (0.0, 0.0, false);
    let mut side = |buckets: Vec<Bucket>, kept: &mut Vec<f64>, positive: bool| {
        let mut populated = false;
        for (slot, bucket) in kept.iter_mut().zip(buckets).filter(|(_, b)| b.count != 0.0) {
            populated = true;
            let whole = if upper { bucket.upper <= at } else { bucket.lower >= at };
            let holds = if upper { bucket.lower < at } else { bucket.upper > at };
            let (keep, middle) = if whole {
                (bucket.count, midpoint(bucket.lower, bucket.upper, positive, custom))
            } else if holds {
                trim_bucket(&bucket, at, upper, positive, custom)
            } else {
                (0.0, 0.0)
            };
            count += keep;
            sum += middle * keep;
            if whole {
                continue;
            }
            if *slot != keep || !holds {
                *slot = keep;
                cut = true;
            }
        }
        populated
    };
    let positive = positive_buckets(h).collect();
    let has_positive = side(positive, &mut h.positive_buckets, true);
    let negative = negative_buckets(h).collect();
    let has_negative = side(negative, &mut h.negative_buckets, false);
    if h.zero_count > 0.0 {
        let (keep, middle) = trim_zero(&zero_bucket(h), at, upper, has_negative, has_positive);
        if h.zero_count != keep {
            h.zero_count = keep;
            cut = true;
        }
        sum += middle * keep;
        count += keep;
    }
    if cut {
        h.integer = false;
        h.count = count;
        h.sum = sum;
        compact(h);
    }
}

/// (count that stays, middle of what stays) of a bucket that holds `at`.
fn trim_bucket(bucket: &Bucket, at: f64, upper: bool, positive: bool, custom: bool) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return trim_infinite(bucket, at, upper);
    }
    let under = if at <= bucket.lower {
        0.0
    } else if at >= bucket.upper {
        bucket.count
    } else {
        bucket.count * fraction_below(bucket, at, custom)
    };
    if upper {
        (under, midpoint(bucket.lower, at, positive, custom))
    } else {
        (bucket.count - under, midpoint(at, bucket.upper, positive, custom))
    }
}

/// As [`trim_bucket`] for a bucket that is infinitely wide: how observations are spread in it is not known.
fn trim_infinite(bucket: &Bucket, at: f64, upper: bool) -> (f64, f64) {
    let finite = |x: f64| if x.is_infinite() { 0.0 } else { x };
    let Bucket { lower, upper: end, count, .. } = *bucket;
    let end_is_finite = end != f64::INFINITY;
    if lower == f64::NEG_INFINITY {
        if upper {
            return if at >= end {
                (count, 0.0)
            } else if at > 0.0 && end > 0.0 && end_is_finite {
                (count * at / end, at / 2.0)
            } else if end <= 0.0 {
                (count, at)
            } else {
                (0.0, finite(end))
            };
        }
        return if at <= lower {
            (count, 0.0)
        } else if at >= 0.0 && end > at && end_is_finite {
            (count * (1.0 - at / end), (at + end) / 2.0)
        } else {
            (0.0, finite(end))
        };
    }
    if !upper && at >= lower { (count, at) } else { (0.0, finite(lower)) }
}

fn trim_zero(zero: &Bucket, at: f64, upper: bool, has_negative: bool, has_positive: bool) -> (f64, f64) {
    let end = if has_negative && !has_positive { 0.0 } else { zero.upper };
    let start = if has_positive && !has_negative { 0.0 } else { zero.lower };
    let all = (zero.count, (start + end) / 2.0);
    match (upper, at <= start, at >= end) {
        (true, true, _) => (0.0, 0.0),
        (true, false, true) => all,
        (true, false, false) => (zero.count * ((at - start) / (end - start)), (start + at) / 2.0),
        (false, true, _) => all,
        (false, false, true) => (0.0, 0.0),
        (false, false, false) => (zero.count * ((end - at) / (end - start)), (at + end) / 2.0),
    }
}

/// The middle of an interval: arithmetic where `linear`, else geometric.
fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) => {
            if upper > 0.0 {
                upper / 2.0
            } else {
                upper
            }
        }
        (false, true) => lower,
        (false, false) if linear => (lower + upper) / 2.0,
        (false, false) => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
