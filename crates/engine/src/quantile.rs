//! Quantiles: of plain values, of classic histograms (with monotonicity fixing), of native histograms; and the
//! inverse, the fraction of observations between two values.

use model::Histogram;

use crate::histogram::{Bucket, all_buckets, fraction_below};

/// Relative differences below this between neighbouring classic buckets are rounding errors.
const SMALL_DELTA: f64 = 1e-12;

/// The `q` quantile of `values`, which get reordered; NaN counts as smallest. NaN when there is none or `q` is NaN.
pub(crate) fn of_values(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    let (_, at_lower, above) = values.select_nth_unstable_by(lower as usize, |a, b| nan_first(*a, *b));
    if weight == 0.0 {
        // An infinite neighbour that does not count must not make a NaN.
        return *at_lower;
    }
    // What stands above is at least as large, so its smallest is the next in order.
    let next = above.iter().copied().min_by(|a, b| nan_first(*a, *b)).filter(|_| upper > lower);
    *at_lower * (1.0 - weight) + next.unwrap_or(*at_lower) * weight
}

fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        // Zeros are told apart, so that the order in which values come does not matter.
        (false, false) => a.total_cmp(&b),
    }
}

/// A bucket of a classic histogram: everything at most `upper`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassicBucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Where and how much the counts of a classic histogram had to be raised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Forced {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) largest_difference: f64,
}

/// The `q` quantile of a classic histogram; sorts, merges and fixes `buckets`, which must not be empty.
pub(crate) fn of_classic(q: f64, buckets: &mut Vec<ClassicBucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    sort(buckets);
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = force_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let at = buckets[..last].partition_point(|b| b.count < rank || b.count.is_nan() || rank.is_nan());
    if at == last {
        return (buckets[last - 1].upper, forced);
    }
    let ClassicBucket { upper: end, mut count } = buckets[at];
    if at == 0 && end <= 0.0 {
        return (end, forced);
    }
    let mut start = 0.0;
    if at > 0 {
        let before = buckets[at - 1];
        start = before.upper;
        count -= before.count;
        rank -= before.count;
    }
    (start + (end - start) * (rank / count), forced)
}

fn sort(buckets: &mut [ClassicBucket]) {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(std::cmp::Ordering::Equal));
}

/// Merges buckets with the same bound.
fn coalesce(buckets: &mut Vec<ClassicBucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
}

fn force_monotonic(buckets: &mut [ClassicBucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets.first()?.count;
    for bucket in buckets.iter_mut().skip(1) {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, SMALL_DELTA) {
            bucket.count = previous;
            continue;
        }
        if count < previous {
            bucket.count = previous;
            let difference = previous - count;
            forced = Some(match forced {
                None => Forced {
                    lowest: bucket.upper,
                    highest: bucket.upper,
                    largest_difference: difference.max(0.0),
                },
                Some(f) => Forced {
                    lowest: f.lowest.min(bucket.upper),
                    highest: f.highest.max(bucket.upper),
                    largest_difference: f.largest_difference.max(difference),
                },
            });
            continue;
        }
        previous = count;
    }
    forced
}

/// Whether two floats are equal up to a relative difference of `tolerance`; NaNs are equal.
pub(crate) fn almost_equal(a: f64, b: f64, tolerance: f64) -> bool {
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < tolerance * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < tolerance
}

/// What is to be said about NaN observations in a native histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanNote {
    /// There are none.
    None,
    /// The quantile falls above all buckets: the result is NaN.
    Result,
    /// The result is skewed higher (quantile), or they are in no fraction.
    Skew,
}

/// The `q` quantile of a native histogram.
pub(crate) fn of_native(q: f64, h: &Histogram) -> (f64, NanNote) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanNote::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanNote::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanNote::None);
    }
    let custom = h.has_custom_buckets();
    let mut buckets = all_buckets(h);
    let forward = h.sum.is_nan() || q < 0.5;
    let rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    if !forward {
        buckets.reverse();
    }
    let mut bucket =
        Bucket { lower: 0.0, upper: 0.0, lower_inclusive: false, upper_inclusive: false, count: 0.0 };
    let mut count = 0.0;
    let mut rest = buckets.iter();
    for next in rest.by_ref() {
        bucket = *next;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if !custom && bucket.lower < 0.0 && bucket.upper > 0.0 {
        one_sided(h, &mut bucket);
    } else if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, NanNote::None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, NanNote::None);
        }
    }
    let found = if count > h.count { h.count } else { count };
    if found < rank {
        return if h.sum.is_nan() { (f64::NAN, NanNote::Result) } else { (bucket.upper, NanNote::None) };
    }
    let mut note = NanNote::None;
    let within = if forward { rank - (found - bucket.count) } else { found - rank };
    if h.sum.is_nan() {
        let all: f64 = found + rest.map(|b| b.count).sum::<f64>();
        if all < h.count {
            note = NanNote::Skew;
        }
    }
    let fraction = within / bucket.count;
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, note);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value = if bucket.lower > 0.0 {
        f64::exp2(lower + (upper - lower) * fraction)
    } else {
        -f64::exp2(upper + (lower - upper) * (1.0 - fraction))
    };
    (value, note)
}

/// Cuts the zero bucket at zero when the histogram has buckets on one side only.
fn one_sided(h: &Histogram, bucket: &mut Bucket) {
    match (h.negative_buckets.is_empty(), h.positive_buckets.is_empty()) {
        (true, false) => bucket.lower = 0.0,
        (false, true) => bucket.upper = 0.0,
        _ => {}
    }
}

/// The fraction of a native histogram's observations between `lower` and `upper`.
pub(crate) fn fraction_of_native(lower: f64, upper: f64, h: &Histogram) -> (f64, NanNote) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, NanNote::None);
    }
    if lower >= upper {
        return (0.0, NanNote::None);
    }
    let custom = h.has_custom_buckets();
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
    let buckets = all_buckets(h);
    let mut rest = buckets.iter();
    for bucket in rest.by_ref() {
        let mut b = *bucket;
        count += b.count;
        let zero = !custom && b.lower <= 0.0 && b.upper >= 0.0;
        if zero {
            one_sided(h, &mut b);
        } else if custom && b.lower == f64::NEG_INFINITY && b.upper > 0.0 {
            b.lower = 0.0;
        }
        let rank_at = |value: f64| {
            if custom || zero {
                if b.lower == f64::NEG_INFINITY {
                    b.count
                } else {
                    rank + b.count * fraction_below(&b, value, true)
                }
            } else {
                rank + b.count * fraction_below(&b, value, false)
            }
        };
        for (slot, value) in [(&mut low, lower), (&mut high, upper)] {
            if slot.is_none() && b.lower >= value {
                *slot = Some(rank);
            } else if slot.is_none() && b.lower < value && b.upper > value {
                *slot = Some(rank_at(value));
            }
        }
        if low.is_some() && high.is_some() {
            break;
        }
        rank += b.count;
    }
    let mut note = NanNote::None;
    if h.sum.is_nan() {
        count += rest.map(|b| b.count).sum::<f64>();
        if count < h.count {
            note = NanNote::Skew;
        }
    } else {
        count = h.count;
    }
    let cap = |rank: Option<f64>| rank.filter(|r| r.is_nan() || *r <= count).unwrap_or(count);
    ((cap(high) - cap(low)) / h.count, note)
}

/// The fraction of a classic histogram's observations between `lower` and `upper`; sorts and merges `buckets`.
pub(crate) fn fraction_of_classic(lower: f64, upper: f64, buckets: &mut Vec<ClassicBucket>) -> f64 {
    sort(buckets);
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut rank = 0.0;
    let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
    let mut start = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for b in buckets.iter() {
        let rank_at = |value: f64| {
            if start == f64::NEG_INFINITY {
                b.count
            } else {
                rank + (b.count - rank) * (value - start) / (b.upper - start)
            }
        };
        for (slot, value) in [(&mut low, lower), (&mut high, upper)] {
            if slot.is_none() && start >= value {
                *slot = Some(rank);
            } else if slot.is_none() && start < value && b.upper > value {
                *slot = Some(rank_at(value));
            }
        }
        if low.is_some() && high.is_some() {
            break;
        }
        rank = b.count;
        start = b.upper;
    }
    let cap = |rank: Option<f64>| rank.filter(|r| r.is_nan() || *r <= count).unwrap_or(count);
    (cap(high) - cap(low)) / count
}
