//! Counter resets between native histograms, and equality of their data.

use model::Histogram;
use model::histogram::{ResetHint, Span, exponential_bound};

use super::add::same_bounds;
use super::bounds;
use super::buckets::{bound, entries, target_index};
use super::zero::zero_count_at;

/// Whether a counter reset lies between `previous` and `h`: by the hint where it says so, else because a count went
/// down, a populated bucket vanished, or the resolution grew.
pub(crate) fn is_reset(h: &Histogram, previous: &Histogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    if h.count < previous.count {
        return true;
    }
    if h.has_custom_buckets() {
        if !previous.has_custom_buckets() {
            return true;
        }
        if !same_bounds(bounds(h), bounds(previous)) {
            return custom_reset(h, previous);
        }
    }
    if h.schema > previous.schema || h.zero_threshold < previous.zero_threshold {
        return true;
    }
    let (zero, threshold) = zero_count_at(previous, h.zero_threshold);
    if threshold != h.zero_threshold || h.zero_count < zero {
        return true;
    }
    side_reset(
        h,
        &h.positive_spans,
        &h.positive_buckets,
        previous,
        &previous.positive_spans,
        &previous.positive_buckets,
    ) || side_reset(
        h,
        &h.negative_spans,
        &h.negative_buckets,
        previous,
        &previous.negative_spans,
        &previous.negative_buckets,
    )
}

fn side_reset(
    h: &Histogram,
    spans: &[Span],
    buckets: &[f64],
    previous: &Histogram,
    previous_spans: &[Span],
    previous_buckets: &[f64],
) -> bool {
    if h.schema == previous.schema && spans == previous_spans && h.zero_threshold == previous.zero_threshold {
        return buckets.iter().zip(previous_buckets).any(|(now, before)| now < before);
    }
    let custom = h.has_custom_buckets();
    let visible = |index: i32| {
        custom || h.zero_threshold == 0.0 || exponential_bound(index, h.schema) > h.zero_threshold
    };
    let mut now = entries(spans, buckets).peekable();
    let mut before = entries(previous_spans, previous_buckets)
        .map(|(index, count)| {
            (if custom { index } else { target_index(index, previous.schema, h.schema) }, count)
        })
        .peekable();
    while let Some((index, mut count)) = before.next() {
        while let Some((_, more)) = before.next_if(|(next, _)| *next == index) {
            count += more;
        }
        if count == 0.0 || !visible(index) {
            continue;
        }
        while now.next_if(|(at, _)| *at < index).is_some() {}
        match now.peek() {
            Some((at, current)) if *at == index => {
                if *current < count {
                    return true;
                }
            }
            _ => return true,
        }
    }
    false
}

/// Whether a bucket count went down on the bounds that both have.
fn custom_reset(h: &Histogram, previous: &Histogram) -> bool {
    let (ours, theirs) = (bounds(h), bounds(previous));
    let upper = |own: &[f64], h: &Histogram, index: i32| bound(index, h.schema, own);
    let mut now = entries(&h.positive_spans, &h.positive_buckets).peekable();
    let mut before = entries(&previous.positive_spans, &previous.positive_buckets).peekable();
    let common = ours.iter().filter(|b| theirs.contains(b)).copied().chain([f64::INFINITY]);
    for limit in common {
        let (mut sum_now, mut sum_before) = (0.0, 0.0);
        while let Some((_, count)) = now.next_if(|(index, _)| upper(ours, h, *index) <= limit) {
            sum_now += count;
        }
        while let Some((_, count)) = before.next_if(|(index, _)| upper(theirs, previous, *index) <= limit) {
            sum_before += count;
        }
        if sum_now < sum_before {
            return true;
        }
    }
    false
}

/// Whether both hold the same data: bit for bit, in the same bucket layout. Hints are not compared.
pub(crate) fn equals(a: &Histogram, b: &Histogram) -> bool {
    let bits = |x: f64, y: f64| x.to_bits() == y.to_bits();
    a.schema == b.schema
        && bits(a.count, b.count)
        && bits(a.sum, b.sum)
        && (!a.has_custom_buckets() || same_bounds(bounds(a), bounds(b)))
        && a.zero_threshold == b.zero_threshold
        && bits(a.zero_count, b.zero_count)
        && same_side(&a.positive_spans, &a.positive_buckets, &b.positive_spans, &b.positive_buckets)
        && same_side(&a.negative_spans, &a.negative_buckets, &b.negative_spans, &b.negative_buckets)
}

fn same_side(spans: &[Span], buckets: &[f64], other_spans: &[Span], other_buckets: &[f64]) -> bool {
    buckets.len() == other_buckets.len()
        && entries(spans, buckets)
            .zip(entries(other_spans, other_buckets))
            .all(|((i, x), (j, y))| i == j && x.to_bits() == y.to_bits())
}
