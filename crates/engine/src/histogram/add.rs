//! Addition and subtraction of native histograms of different layouts.

use model::Histogram;
use model::histogram::{ResetHint, Span, exponential_bound};

use super::bounds;
use super::buckets::{Layout, entries, reduce};
use super::sum::Terms;
use super::zero::reconcile_zero;
use crate::kahan::inc;

/// One histogram has exponential buckets and the other custom ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What there is to say about an addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// One side said that it begins after a counter reset, the other that there was none.
    pub(crate) resets_collide: bool,
    /// The custom bounds differed and were reduced to the common ones.
    pub(crate) reconciled: bool,
}

/// Adds `other` to `h`.
pub(crate) fn add(h: &mut Histogram, other: &Histogram) -> Result<Outcome, Incompatible> {
    combine(h, other, 1.0)
}

/// Subtracts `other` from `h`.
pub(crate) fn sub(h: &mut Histogram, other: &Histogram) -> Result<Outcome, Incompatible> {
    combine(h, other, -1.0)
}

fn combine(h: &mut Histogram, other: &Histogram, sign: f64) -> Result<Outcome, Incompatible> {
    if h.has_custom_buckets() != other.has_custom_buckets() {
        return Err(Incompatible);
    }
    h.integer = false;
    let mut outcome = Outcome { resets_collide: adjust_hint(h, other), reconciled: false };
    if !h.has_custom_buckets() {
        let (zero, _) = reconcile_zero(h, other, &mut None);
        h.zero_count += sign * zero;
    }
    h.count += sign * other.count;
    h.sum += sign * other.sum;
    if h.has_custom_buckets() {
        if same_bounds(bounds(h), bounds(other)) {
            merge_side(
                &mut h.positive_spans,
                &mut h.positive_buckets,
                &other.positive_spans,
                &other.positive_buckets,
                sign,
                |_| false,
            );
        } else {
            outcome.reconciled = true;
            reconcile_custom(h, other, sign, &mut None);
        }
        return Ok(outcome);
    }
    let coarse;
    let other = match other.schema.cmp(&h.schema) {
        std::cmp::Ordering::Less => {
            let to = other.schema;
            (h.positive_spans, h.positive_buckets) =
                reduce(&h.positive_spans, &h.positive_buckets, h.schema, to);
            (h.negative_spans, h.negative_buckets) =
                reduce(&h.negative_spans, &h.negative_buckets, h.schema, to);
            h.schema = to;
            other
        }
        std::cmp::Ordering::Greater => {
            coarse = super::copy_to_schema(other, h.schema);
            &coarse
        }
        std::cmp::Ordering::Equal => other,
    };
    let (schema, threshold) = (h.schema, h.zero_threshold);
    let in_zero = |index: i32| exponential_bound(index, schema) <= threshold;
    merge_side(
        &mut h.positive_spans,
        &mut h.positive_buckets,
        &other.positive_spans,
        &other.positive_buckets,
        sign,
        in_zero,
    );
    merge_side(
        &mut h.negative_spans,
        &mut h.negative_buckets,
        &other.negative_spans,
        &other.negative_buckets,
        sign,
        in_zero,
    );
    Ok(outcome)
}

/// Sets the hint of `h` for the sum with `other`; true when the two contradict each other.
pub(super) fn adjust_hint(h: &mut Histogram, other: &Histogram) -> bool {
    use ResetHint::{Gauge, Unknown};
    match (h.reset_hint, other.reset_hint) {
        (a, b) if a == b => false,
        (Gauge | Unknown, b) if h.reset_hint == Gauge || b != Gauge => false,
        (_, Gauge) => {
            h.reset_hint = Gauge;
            false
        }
        (_, Unknown) => {
            h.reset_hint = Unknown;
            false
        }
        _ => {
            h.reset_hint = Unknown;
            true
        }
    }
}

pub(super) fn same_bounds(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x == y)
}

/// Adds `sign` times the second side to the first. Leading buckets of the second that `skip` names are left out.
fn merge_side(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<f64>,
    other_spans: &[Span],
    other_buckets: &[f64],
    sign: f64,
    skip: impl Fn(i32) -> bool,
) {
    let Some((first, _)) = entries(other_spans, other_buckets).next() else { return };
    if spans == other_spans && buckets.len() == other_buckets.len() && !skip(first) {
        for (bucket, other) in buckets.iter_mut().zip(other_buckets) {
            *bucket += sign * other;
        }
        return;
    }
    let mut layout = Layout::default();
    let mut left = entries(spans, buckets).peekable();
    for (index, count) in entries(other_spans, other_buckets).skip_while(|(index, _)| skip(*index)) {
        while let Some((before, value)) = left.next_if(|(at, _)| *at < index) {
            layout.push(before, value);
        }
        match left.next_if(|(at, _)| *at == index) {
            Some((_, value)) => layout.push(index, value + sign * count),
            None => layout.push(index, sign * count),
        }
    }
    for (index, value) in left {
        layout.push(index, value);
    }
    (*spans, *buckets) = (layout.spans, layout.counts);
}

/// Adds `sign` times `other`, whose custom bounds differ, on the bounds that both have.
pub(super) fn reconcile_custom(h: &mut Histogram, other: &Histogram, sign: f64, terms: &mut Option<Terms>) {
    let common: Vec<f64> = intersect(bounds(h), bounds(other));
    let mut counts = vec![(0.0, 0.0); common.len() + 1];
    let mut spread = |spans: &[Span], buckets: &[f64], own: &[f64], sign: f64, terms: &[f64]| {
        let mut target = 0;
        for (at, (index, count)) in entries(spans, buckets).enumerate() {
            let upper = usize::try_from(index).ok().and_then(|i| own.get(i));
            let slot = match upper {
                None => common.len(),
                Some(upper) => {
                    while target < common.len() && common[target] < *upper {
                        target += 1;
                    }
                    target
                }
            };
            counts[slot] = inc(sign * count, counts[slot].0, counts[slot].1);
            if let Some(term) = terms.get(at) {
                counts[slot] = inc(*term, counts[slot].0, counts[slot].1);
            }
        }
    };
    let own_terms = terms.as_ref().map_or(&[][..], |t| &t.positive);
    spread(&h.positive_spans, &h.positive_buckets, bounds(h), 1.0, own_terms);
    spread(&other.positive_spans, &other.positive_buckets, bounds(other), sign, &[]);
    let mut layout = Layout::default();
    let mut kept = Vec::new();
    for (index, (count, term)) in counts.iter().enumerate() {
        if *count != 0.0 || *term != 0.0 {
            layout.push(index as i32, *count);
            kept.push(*term);
        }
    }
    (h.positive_spans, h.positive_buckets) = (layout.spans, layout.counts);
    h.custom_values = Some(common.into());
    if let Some(terms) = terms {
        terms.positive = kept;
    }
}

pub(super) fn intersect(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut common = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            common.push(a[i]);
            (i, j) = (i + 1, j + 1);
        } else if a[i] < b[j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}
