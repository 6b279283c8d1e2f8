//! Aggregations that give one series a group: columns are added to their group's columns as they come.

use hashbrown::HashMap;
use model::histogram::ResetHint;
use model::{Histogram, Labels};
use promql::ast::{AggregateOp, Span};

use super::merge::is_name;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::annotations::Operation;
use crate::column::{ABSENT, Charge, Column, is_absent};
use crate::histogram::{HistogramMean, HistogramSum, compact};
use crate::label_set::raw_pairs;
use crate::plan::Group;
use crate::quantile::of_values;
use crate::sum::{ExactSums, two_product};

/// Which labels make a group.
pub(super) struct Grouping<'g> {
    pub(super) labels: &'g [String],
    pub(super) without: bool,
}

impl<'g> Grouping<'g> {
    pub(super) fn of(group: &'g Group) -> Self {
        Self { labels: &group.labels, without: group.without }
    }

    fn keeps(&self, name: &[u8], named: bool) -> bool {
        let listed = self.labels.iter().any(|l| l.as_bytes() == name);
        if self.without { !listed && !is_name(name) } else { listed && (named || !is_name(name)) }
    }

    /// The key of a series' group: the canonical bytes of its labels. `named`: the series still has its name.
    pub(super) fn key(&self, labels: &Labels, named: bool, bytes: &mut Vec<u8>) {
        bytes.clear();
        if !self.without && self.labels.is_empty() {
            return;
        }
        for (name, _, pair) in raw_pairs(labels) {
            if self.keeps(name, named) {
                bytes.extend_from_slice(pair);
            }
        }
    }
}

/// What is known of a group so far, one entry a step.
enum State {
    /// `sum`, `avg`, with the number of floats.
    Sum { sums: ExactSums, count: Vec<u32> },
    /// `min`, `max`.
    Extreme(Vec<f64>),
    /// `count`, `group`: floats and histograms.
    Count(Vec<u32>),
    /// `stddev`, `stdvar`: sums of values and of squares.
    Moments { sums: ExactSums, squares: ExactSums, count: Vec<u32> },
    /// `quantile`.
    Values(Vec<Vec<f64>>),
}

/// Histograms of a group at one step, for `sum` and `avg`.
enum Blend {
    Sum(HistogramSum),
    Mean(HistogramMean),
}

struct HistogramState {
    blend: Blend,
    /// Exponential and custom buckets were mixed: no result.
    incompatible: bool,
    reset: bool,
    no_reset: bool,
}

struct Accumulator {
    labels: Labels,
    drop_name: bool,
    state: State,
    /// By step; empty as long as there is no histogram.
    histograms: Vec<Option<HistogramState>>,
}

impl State {
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum | AggregateOp::Avg => {
                Self::Sum { sums: ExactSums::new(steps), count: vec![0; steps] }
            }
            AggregateOp::Min | AggregateOp::Max => Self::Extreme(vec![ABSENT; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => Self::Moments {
                sums: ExactSums::new(steps),
                squares: ExactSums::new(steps),
                count: vec![0; steps],
            },
            AggregateOp::Quantile => Self::Values(vec![Vec::new(); steps]),
            _ => Self::Count(vec![0; steps]),
        }
    }

    fn bytes(&self, steps: usize) -> u64 {
        let one = ExactSums::bytes(steps);
        match self {
            Self::Sum { .. } => one + 4 * steps as u64,
            Self::Extreme(_) => 8 * steps as u64,
            Self::Count(_) => 4 * steps as u64,
            Self::Moments { .. } => 2 * one + 4 * steps as u64,
            Self::Values(_) => 24 * steps as u64,
        }
    }

    fn add_floats(&mut self, op: AggregateOp, floats: &[f64]) {
        match self {
            Self::Sum { sums, count } => {
                sums.add_column(floats);
                count_present(count, floats);
            }
            Self::Extreme(best) => {
                let better = |v: f64, b: f64| if op == AggregateOp::Min { b > v } else { b < v };
                for (best, value) in best.iter_mut().zip(floats) {
                    // The absence marker is a NaN too, so it gives way like any other.
                    if !is_absent(*value) && (best.is_nan() || better(*value, *best)) {
                        *best = *value;
                    }
                }
            }
            Self::Count(count) => count_present(count, floats),
            Self::Moments { sums, squares, count } => {
                count_present(count, floats);
                sums.add_column(floats);
                for (step, value) in floats.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    let (square, error) = two_product(*value, *value);
                    squares.add(step, square);
                    if square.is_finite() {
                        squares.add(step, error);
                    }
                }
            }
            Self::Values(values) => {
                for (values, value) in values.iter_mut().zip(floats).filter(|(_, v)| !is_absent(**v)) {
                    values.push(*value);
                }
            }
        }
    }
}

fn count_present(count: &mut [u32], floats: &[f64]) {
    for (count, value) in count.iter_mut().zip(floats) {
        *count += u32::from(!is_absent(*value));
    }
}

/// `n·Σx² − (Σx)²`, exactly, over n²: the variance. Equal values give exactly 0.
fn variance(count: u32, sum: (f64, f64), squares: (f64, f64)) -> f64 {
    let n = f64::from(count);
    if !sum.0.is_finite() || !squares.0.is_finite() {
        return f64::NAN;
    }
    let mut total = ExactSums::new(1);
    let mut add = |a: f64, b: f64, sign: f64| {
        let (product, error) = two_product(a, b);
        total.add(0, sign * product);
        if product.is_finite() {
            total.add(0, sign * error);
        }
    };
    add(n, squares.0, 1.0);
    add(n, squares.1, 1.0);
    add(sum.0, sum.0, -1.0);
    add(sum.0, 2.0 * sum.1, -1.0);
    add(sum.1, sum.1, -1.0);
    (total.sum(0) / n / n).max(0.0)
}

impl Evaluator<'_> {
    /// The columns of an aggregation.
    pub(super) fn aggregate(&self, group: &Group, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        match group.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                self.pick(group, span, sink)
            }
            AggregateOp::CountValues => self.count_values(group, sink),
            _ => self.blend(group, sink),
        }
    }

    fn blend(&self, group: &Group, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let steps = self.steps();
        let quantiles = match (&group.param, group.op) {
            (Some(param), AggregateOp::Quantile) => {
                let values = self.scalar(param)?;
                self.note_quantiles(&values, param.span);
                values
            }
            _ => Vec::new(),
        };
        let grouping = Grouping::of(group);
        let mut charge = Charge::new(&self.ctx.budget);
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut all: Vec<Accumulator> = Vec::new();
        let mut key = Vec::new();
        self.stream(&group.inner, &mut |column| {
            let named = self.delayed() || !column.drop_name;
            grouping.key(&column.labels, named, &mut key);
            let at = match places.get(key.as_slice()) {
                Some(at) => *at,
                None => {
                    places.insert(key.clone(), all.len());
                    let state = State::new(group.op, steps);
                    charge.take(state.bytes(steps) + 2 * key.len() as u64 + 64)?;
                    all.push(Accumulator {
                        labels: Labels::from_canonical(&key)
                            .map_err(|e| EvalError::Invalid(e.to_string()))?,
                        drop_name: false,
                        state,
                        histograms: Vec::new(),
                    });
                    all.len() - 1
                }
            };
            let accumulator = &mut all[at];
            accumulator.drop_name |= column.drop_name;
            if group.op == AggregateOp::Quantile {
                charge.take(8 * steps as u64)?;
            }
            accumulator.state.add_floats(group.op, &column.floats);
            if !column.histograms.is_empty() {
                self.add_histograms(group, accumulator, column);
            }
            Ok(())
        })?;
        for accumulator in all {
            let mut column = self.finish(group, accumulator, &quantiles);
            if !column.is_empty() {
                sink(&mut column)?;
            }
        }
        Ok(())
    }

    fn note_quantiles(&self, values: &[f64], span: Span) {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        self.note(|notes| {
            if values.iter().any(|v| v.is_nan()) {
                notes.invalid_quantile(f64::NAN, span);
            }
            if high > 1.0 {
                notes.invalid_quantile(high, span);
            }
            if low < 0.0 {
                notes.invalid_quantile(low, span);
            }
        });
    }

    fn add_histograms(&self, group: &Group, to: &mut Accumulator, column: &Column) {
        let span = group.inner.span;
        let ignored = match group.op {
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Quantile => "quantile",
            _ => "",
        };
        if !ignored.is_empty() {
            if column.histograms.iter().any(Option::is_some) {
                self.note(|n| n.ignored_in_aggregation(ignored, span));
            }
            return;
        }
        if let State::Count(count) = &mut to.state {
            count.iter_mut().zip(&column.histograms).for_each(|(n, h)| *n += u32::from(h.is_some()));
            return;
        }
        if to.histograms.is_empty() {
            to.histograms.resize_with(column.histograms.len(), || None);
        }
        for (slot, h) in to.histograms.iter_mut().zip(&column.histograms) {
            let Some(h) = h else { continue };
            let Some(state) = slot else {
                let blend = if group.op == AggregateOp::Sum {
                    Blend::Sum(HistogramSum::new(h))
                } else {
                    Blend::Mean(HistogramMean::new(h))
                };
                *slot = Some(HistogramState {
                    blend,
                    incompatible: false,
                    reset: h.reset_hint == ResetHint::Reset,
                    no_reset: h.reset_hint == ResetHint::NotReset,
                });
                continue;
            };
            if state.incompatible {
                continue;
            }
            state.reset |= h.reset_hint == ResetHint::Reset;
            state.no_reset |= h.reset_hint == ResetHint::NotReset;
            let outcome = match &mut state.blend {
                Blend::Sum(sum) => sum.add(h),
                Blend::Mean(mean) => mean.add(h),
            };
            match outcome {
                Ok(outcome) if outcome.reconciled => {
                    self.note(|n| n.mismatched_custom_buckets(Operation::Aggregation, span));
                }
                Ok(_) => {}
                Err(_) => {
                    self.note(|n| n.mixed_exponential_custom(self.labels_of(column).metric_name(), span));
                    state.incompatible = true;
                }
            }
        }
    }

    fn finish(&self, group: &Group, from: Accumulator, quantiles: &[f64]) -> Column {
        let Accumulator { labels, drop_name, state, histograms } = from;
        let steps = self.steps();
        let mut column = Column { labels, drop_name, ..Column::default() };
        let or_absent = |count: u32, value: f64| if count == 0 { ABSENT } else { value };
        column.floats = match state {
            State::Sum { sums, count } if group.op == AggregateOp::Avg => {
                (0..steps).map(|s| or_absent(count[s], sums.mean(s, f64::from(count[s])))).collect()
            }
            State::Sum { sums, count } => (0..steps).map(|s| or_absent(count[s], sums.sum(s))).collect(),
            State::Extreme(best) => best,
            State::Count(count) if group.op == AggregateOp::Group => {
                count.iter().map(|n| or_absent(*n, 1.0)).collect()
            }
            State::Count(count) => count.iter().map(|n| or_absent(*n, f64::from(*n))).collect(),
            State::Moments { sums, squares, count } => (0..steps)
                .map(|s| {
                    let variance = variance(count[s], sums.double(s), squares.double(s));
                    let value = if group.op == AggregateOp::Stddev { variance.sqrt() } else { variance };
                    or_absent(count[s], value)
                })
                .collect(),
            State::Values(mut values) => (0..steps)
                .map(|s| {
                    let count = u32::from(!values[s].is_empty());
                    or_absent(count, of_values(quantiles.get(s).copied().unwrap_or(f64::NAN), &mut values[s]))
                })
                .collect(),
        };
        for (step, state) in histograms.into_iter().enumerate() {
            let Some(state) = state else { continue };
            if !is_absent(column.floats[step]) {
                self.note(|n| n.mixed_in_aggregation(group.inner.span));
                column.floats[step] = ABSENT;
                continue;
            }
            if state.incompatible {
                continue;
            }
            let mut h: Histogram = match state.blend {
                Blend::Sum(sum) => sum.finish(),
                Blend::Mean(mean) => mean.finish(),
            };
            compact(&mut h);
            if state.reset && state.no_reset {
                self.note(|n| n.reset_collision(Operation::Aggregation, group.inner.span));
            }
            column.put_histogram(step, std::sync::Arc::new(h));
        }
        column
    }
}
