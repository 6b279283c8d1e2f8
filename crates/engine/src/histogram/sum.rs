//! Compensated sums and means of native histograms along time, in the order in which they come. Across series they do
//! not depend on an order (`exact.rs`).

use model::Histogram;
use model::histogram::{Span, exponential_bound};

use super::add::{Incompatible, Outcome, adjust_hint, reconcile_custom, same_bounds};
use super::buckets::{Layout, entries, target_index};
use super::zero::reconcile_zero;
use super::{bounds, div, mul};
use crate::kahan::inc;

/// Compensation terms of a histogram with the same layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    pub(super) zero: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) positive: Vec<f64>,
    pub(super) negative: Vec<f64>,
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
        let index = target_index(index, from, to);
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
