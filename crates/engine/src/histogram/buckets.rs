//! Buckets of a native histogram: their bounds, iteration over them, layouts as spans, change of resolution.

use model::Histogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span, exponential_bound};

use super::bounds;

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) lower_inclusive: bool,
    pub(crate) upper_inclusive: bool,
    pub(crate) count: f64,
}

/// The bound with `index` of `schema`; −Inf before the first and +Inf after the last custom one.
pub(super) fn bound(index: i32, schema: i8, custom: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(at) => custom.get(at).copied().unwrap_or(f64::INFINITY),
    }
}

/// The (index, count) pairs of one side of a histogram, in ascending order of the index.
pub(super) fn entries<'a>(spans: &'a [Span], buckets: &'a [f64]) -> impl Iterator<Item = (i32, f64)> + 'a {
    let mut next = 0i32;
    spans
        .iter()
        .flat_map(move |span| {
            let first = next.wrapping_add(span.offset);
            next = first.wrapping_add_unsigned(span.length);
            (0..span.length).map(move |at| first.wrapping_add_unsigned(at))
        })
        .zip(buckets.iter().copied())
}

/// The index that bucket `index` of schema `from` has in the coarser schema `to`.
pub(super) fn target_index(index: i32, from: i8, to: i8) -> i32 {
    ((index.wrapping_sub(1)) >> (i32::from(from) - i32::from(to)).clamp(0, 31)).wrapping_add(1)
}

/// Builds spans and parallel columns of counts from entries in ascending order of the index.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) spans: Vec<Span>,
    pub(super) counts: Vec<f64>,
    next: i32,
}

impl Layout {
    /// Appends a bucket; its index is greater than all before.
    pub(super) fn push(&mut self, index: i32, count: f64) {
        match self.spans.last_mut() {
            Some(last) if index == self.next => last.length += 1,
            None => self.spans.push(Span { offset: index, length: 1 }),
            Some(_) => self.spans.push(Span { offset: index.wrapping_sub(self.next), length: 1 }),
        }
        self.counts.push(count);
        self.next = index.wrapping_add(1);
    }
}

/// Spans and buckets in the coarser schema `to`.
pub(super) fn reduce(spans: &[Span], buckets: &[f64], from: i8, to: i8) -> (Vec<Span>, Vec<f64>) {
    let mut layout = Layout::default();
    let mut last = None;
    for (index, count) in entries(spans, buckets) {
        let index = target_index(index, from, to);
        match (last, layout.counts.last_mut()) {
            (Some(previous), Some(sum)) if previous == index => *sum += count,
            _ => layout.push(index, count),
        }
        last = Some(index);
    }
    (layout.spans, layout.counts)
}

/// A copy in the exponential schema `to`, which must not be finer than its own. Custom buckets stay as they are.
pub(crate) fn copy_to_schema(h: &Histogram, to: i8) -> Histogram {
    if to >= h.schema || h.has_custom_buckets() {
        return h.clone();
    }
    let (positive_spans, positive_buckets) = reduce(&h.positive_spans, &h.positive_buckets, h.schema, to);
    let (negative_spans, negative_buckets) = reduce(&h.negative_spans, &h.negative_buckets, h.schema, to);
    Histogram {
        reset_hint: model::histogram::ResetHint::Unknown,
        schema: to,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram { positive_spans: Vec::new(), positive_buckets: Vec::new(), ..h.clone() }
    }
}

/// Removes empty buckets and joins neighbouring spans.
pub(crate) fn compact(h: &mut Histogram) {
    compact_side(&mut h.positive_spans, &mut h.positive_buckets);
    compact_side(&mut h.negative_spans, &mut h.negative_buckets);
}

fn compact_side(spans: &mut Vec<Span>, buckets: &mut Vec<f64>) {
    let tidy = buckets.iter().all(|b| *b != 0.0)
        && spans.iter().all(|s| s.length > 0)
        && spans.iter().skip(1).all(|s| s.offset > 0);
    if tidy {
        return;
    }
    let mut layout = Layout::default();
    for (index, count) in entries(spans, buckets) {
        if count != 0.0 {
            layout.push(index, count);
        }
    }
    *spans = layout.spans;
    *buckets = layout.counts;
}

/// The positive buckets in ascending order, empty ones included.
pub(super) fn positive_buckets(h: &Histogram) -> impl Iterator<Item = Bucket> + '_ {
    let custom = h.has_custom_buckets();
    entries(&h.positive_spans, &h.positive_buckets).map(move |(index, count)| {
        let upper = bound(index, h.schema, bounds(h));
        let lower = bound(index.wrapping_sub(1), h.schema, bounds(h));
        if custom {
            Bucket { lower, upper, lower_inclusive: index == 0, upper_inclusive: true, count }
        } else {
            Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
        }
    })
}

/// The negative buckets, from the zero bucket downwards, empty ones included.
pub(super) fn negative_buckets(h: &Histogram) -> impl Iterator<Item = Bucket> + '_ {
    entries(&h.negative_spans, &h.negative_buckets).map(move |(index, count)| {
        let lower = -bound(index, h.schema, bounds(h));
        let upper = -bound(index.wrapping_sub(1), h.schema, bounds(h));
        Bucket { lower, upper, lower_inclusive: lower < 0.0, upper_inclusive: upper > 0.0, count }
    })
}

/// The zero bucket.
pub(super) fn zero_bucket(h: &Histogram) -> Bucket {
    Bucket {
        lower: -h.zero_threshold,
        upper: h.zero_threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count: h.zero_count,
    }
}

/// All buckets in ascending order. Bounds of buckets that overlap the zero bucket are cut at the zero threshold.
pub(crate) fn all_buckets(h: &Histogram) -> Vec<Bucket> {
    let threshold = h.zero_threshold;
    let mut all = Vec::with_capacity(h.positive_buckets.len() + h.negative_buckets.len() + 1);
    all.extend(negative_buckets(h));
    all.reverse();
    if !h.has_custom_buckets() && h.zero_count > 0.0 {
        all.push(zero_bucket(h));
    }
    let zero_at = all.len();
    all.extend(positive_buckets(h));
    for (at, bucket) in all.iter_mut().enumerate() {
        if bucket.lower == -threshold && bucket.upper == threshold && at + 1 == zero_at {
            continue;
        }
        if bucket.upper < 0.0 && bucket.upper > -threshold {
            bucket.upper = -threshold;
        } else if bucket.lower > 0.0 && bucket.lower < threshold {
            bucket.lower = threshold;
        }
    }
    all
}

/// The part of a bucket's width that lies at or below `value`, which is strictly inside its finite bounds.
pub(crate) fn fraction_below(bucket: &Bucket, value: f64, linear: bool) -> f64 {
    if linear {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (lower, upper, at) = (bucket.lower.abs().log2(), bucket.upper.abs().log2(), value.abs().log2());
    if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
}
