//! Addition and subtraction of native histograms of different layouts, with and without compensation.

use model::Histogram;
use model::histogram::{ResetHint, Span};

use super::bounds;
use super::buckets::{
    Layout, compact, entries, exponential_bound, negative_buckets, positive_buckets, reduce,
};
use super::{div, mul};
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

/// Compensation terms of a histogram with the same layout.
#[derive(Clone, Debug, Default)]
struct Terms {
    zero: f64,
    count: f64,
    sum: f64,
    positive: Vec<f64>,
    negative: Vec<f64>,
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
fn adjust_hint(h: &mut Histogram, other: &Histogram) -> bool {
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
fn reconcile_zero(h: &mut Histogram, other: &Histogram, terms: &mut Option<Terms>) -> (f64, f64) {
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

/// Adds `sign` times `other`, whose custom bounds differ, on the bounds that both have.
fn reconcile_custom(h: &mut Histogram, other: &Histogram, sign: f64, terms: &mut Option<Terms>) {
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

fn intersect(a: &[f64], b: &[f64]) -> Vec<f64> {
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

/// A compensated sum of histograms.
#[derive(Clone, Debug)]
pub(crate) struct HistogramSum {
    sum: Histogram,
    terms: Option<Terms>,
}

impl HistogramSum {
    /// The sum of one.
    pub(crate) fn new(first: &Histogram) -> Self {
        Self { sum: first.clone(), terms: None }
    }

    /// Adds `other`; after an error the sum has no meaning.
    pub(crate) fn add(&mut self, other: &Histogram) -> Result<Outcome, Incompatible> {
        if self.sum.has_custom_buckets() != other.has_custom_buckets() {
            return Err(Incompatible);
        }
        let h = &mut self.sum;
        h.integer = false;
        let mut outcome = Outcome { resets_collide: adjust_hint(h, other), reconciled: false };
        if self.terms.is_none() {
            self.terms = Some(Terms {
                positive: vec![0.0; h.positive_buckets.len()],
                negative: vec![0.0; h.negative_buckets.len()],
                ..Terms::default()
            });
        }
        let custom = h.has_custom_buckets();
        let zero = if custom { None } else { Some(reconcile_zero(h, other, &mut self.terms)) };
        if custom && !same_bounds(bounds(h), bounds(other)) {
            outcome.reconciled = true;
            reconcile_custom(h, other, 1.0, &mut self.terms);
        }
        let Some(terms) = &mut self.terms else { return Ok(outcome) };
        if let Some((zero, c)) = zero {
            (h.zero_count, terms.zero) = inc(zero, h.zero_count, terms.zero);
            (h.zero_count, terms.zero) = inc(c, h.zero_count, terms.zero);
        }
        (h.count, terms.count) = inc(other.count, h.count, terms.count);
        (h.sum, terms.sum) = inc(other.sum, h.sum, terms.sum);
        if outcome.reconciled {
            return Ok(outcome);
        }
        if custom {
            let side = (&mut h.positive_spans, &mut h.positive_buckets, &mut terms.positive);
            merge_with(side, &other.positive_spans, &other.positive_buckets, |_| false);
            return Ok(outcome);
        }
        let to = h.schema.min(other.schema);
        if to < h.schema {
            reduce_with(&mut h.positive_spans, &mut h.positive_buckets, &mut terms.positive, h.schema, to);
            reduce_with(&mut h.negative_spans, &mut h.negative_buckets, &mut terms.negative, h.schema, to);
            h.schema = to;
        }
        let coarse;
        let other = if other.schema > to {
            coarse = super::copy_to_schema(other, to);
            &coarse
        } else {
            other
        };
        let threshold = h.zero_threshold;
        let in_zero = |index: i32| exponential_bound(index, to) <= threshold;
        let side = (&mut h.positive_spans, &mut h.positive_buckets, &mut terms.positive);
        merge_with(side, &other.positive_spans, &other.positive_buckets, in_zero);
        let side = (&mut h.negative_spans, &mut h.negative_buckets, &mut terms.negative);
        merge_with(side, &other.negative_spans, &other.negative_buckets, in_zero);
        Ok(outcome)
    }

    fn mul(&mut self, factor: f64) {
        mul(&mut self.sum, factor);
        if let Some(t) = &mut self.terms {
            t.zero *= factor;
            t.count *= factor;
            t.sum *= factor;
            t.positive.iter_mut().chain(&mut t.negative).for_each(|v| *v *= factor);
        }
    }

    fn div(&mut self, divisor: f64) {
        div(&mut self.sum, divisor);
        if let Some(t) = &mut self.terms {
            t.zero /= divisor;
            t.count /= divisor;
            t.sum /= divisor;
            t.positive.iter_mut().chain(&mut t.negative).for_each(|v| *v /= divisor);
        }
    }

    /// The sum, not compacted.
    pub(crate) fn finish(self) -> Histogram {
        let mut h = self.sum;
        if let Some(t) = self.terms {
            h.zero_count += t.zero;
            h.count += t.count;
            h.sum += t.sum;
            h.positive_buckets.iter_mut().zip(&t.positive).for_each(|(b, c)| *b += c);
            h.negative_buckets.iter_mut().zip(&t.negative).for_each(|(b, c)| *b += c);
        }
        h
    }
}

type Side<'a> = (&'a mut Vec<Span>, &'a mut Vec<f64>, &'a mut Vec<f64>);

fn merge_with(side: Side<'_>, other_spans: &[Span], other_buckets: &[f64], skip: impl Fn(i32) -> bool) {
    let (spans, buckets, terms) = side;
    let Some((first, _)) = entries(other_spans, other_buckets).next() else { return };
    if spans == other_spans && buckets.len() == other_buckets.len() && !skip(first) {
        for ((bucket, term), other) in buckets.iter_mut().zip(terms.iter_mut()).zip(other_buckets) {
            (*bucket, *term) = inc(*other, *bucket, *term);
        }
        return;
    }
    let mut layout = Layout::default();
    let mut merged = Vec::with_capacity(terms.len() + other_buckets.len());
    let mut left = entries(spans, buckets).zip(terms.iter().copied()).peekable();
    for (index, count) in entries(other_spans, other_buckets).skip_while(|(index, _)| skip(*index)) {
        while let Some(((before, value), term)) = left.next_if(|((at, _), _)| *at < index) {
            layout.push(before, value);
            merged.push(term);
        }
        let (value, term) = match left.next_if(|((at, _), _)| *at == index) {
            Some(((_, value), term)) => inc(count, value, term),
            None => (count, 0.0),
        };
        layout.push(index, value);
        merged.push(term);
    }
    for ((index, value), term) in left {
        layout.push(index, value);
        merged.push(term);
    }
    (*spans, *buckets, *terms) = (layout.spans, layout.counts, merged);
}

fn reduce_with(spans: &mut Vec<Span>, buckets: &mut Vec<f64>, terms: &mut Vec<f64>, from: i8, to: i8) {
    let mut layout = Layout::default();
    let mut merged: Vec<f64> = Vec::new();
    let mut last = None;
    for ((index, count), term) in entries(spans, buckets).zip(terms.iter()) {
        let index = super::buckets::target_index(index, from, to);
        match (last, layout.counts.last_mut(), merged.last_mut()) {
            (Some(previous), Some(sum), Some(c)) if previous == index => {
                (*sum, *c) = inc(count, *sum, *c);
                (*sum, *c) = inc(*term, *sum, *c);
            }
            _ => {
                layout.push(index, count);
                merged.push(*term);
            }
        }
        last = Some(index);
    }
    (*spans, *buckets, *terms) = (layout.spans, layout.counts, merged);
}

/// The mean of histograms: a compensated sum as long as it does not overflow, an incremental mean from there on.
#[derive(Debug)]
pub(crate) struct HistogramMean {
    state: HistogramSum,
    count: f64,
    incremental: bool,
}

impl HistogramMean {
    /// The mean of one.
    pub(crate) fn new(first: &Histogram) -> Self {
        Self { state: HistogramSum::new(first), count: 1.0, incremental: false }
    }

    /// Takes `other` into the mean; after an error it has no meaning.
    pub(crate) fn add(&mut self, other: &Histogram) -> Result<Outcome, Incompatible> {
        self.count += 1.0;
        if !self.incremental {
            if !(near_overflow(&self.state.sum) || near_overflow(other)) {
                return self.state.add(other);
            }
            let mut sum = self.state.clone();
            let outcome = sum.add(other)?;
            if !overflows(&sum.sum) {
                self.state = sum;
                return Ok(outcome);
            }
            self.incremental = true;
            self.state.div(self.count - 1.0);
        }
        self.state.mul((self.count - 1.0) / self.count);
        let mut part = other.clone();
        div(&mut part, self.count);
        self.state.add(&part)
    }

    /// The mean, not compacted.
    pub(crate) fn finish(mut self) -> Histogram {
        if !self.incremental {
            self.state.div(self.count);
        }
        self.state.finish()
    }
}

fn any_value(h: &Histogram, test: impl Fn(f64) -> bool) -> bool {
    [h.zero_count, h.count, h.sum].into_iter().any(&test)
        || h.positive_buckets.iter().chain(&h.negative_buckets).any(|b| test(*b))
}

fn near_overflow(h: &Histogram) -> bool {
    any_value(h, |v| v.abs() > 1e300)
}

fn overflows(h: &Histogram) -> bool {
    any_value(h, f64::is_infinite) || bounds(h).iter().any(|v| v.is_infinite())
}
