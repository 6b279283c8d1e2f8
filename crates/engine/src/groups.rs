//! What is known of the groups of an aggregation: accumulators that take columns in any order, join with those of
//! other parts of the data, and give the result at the end.
//!
//! Everything that could depend on the order or on the parts (rounding, the layout of histograms, mixtures of floats
//! and histograms) is decided at the end, over all. Not here: which group a column belongs to (`eval/aggregate.rs`),
//! the bytes (`partial.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use model::seam::QueryBudget;
use model::{Failure, Labels};
use promql::ast::{AggregateOp, Span};

use crate::EvalError;
use crate::annotations::{Annotations, Operation};
use crate::column::{ABSENT, Charge, Column, is_absent};
use crate::histogram::{ExactHistogram, compact};
use crate::quantile::of_values;
use crate::sum::{Exact, ExactSums, two_product};

/// What is known of a group so far, one entry a step.
#[derive(Debug)]
pub(crate) enum State {
    /// `sum`, `avg`, with the number of floats.
    Sum { sums: ExactSums, count: Vec<u32> },
    /// `min`, `max`.
    Extreme(Vec<f64>),
    /// `count`, `group`: floats and histograms. `count_values`: those with the value that the group's labels name.
    Count(Vec<u32>),
    /// `stddev`, `stdvar`: sums of values and of squares.
    Moments { sums: ExactSums, squares: ExactSums, count: Vec<u32> },
    /// `quantile`.
    Values(Vec<Vec<f64>>),
}

impl State {
    /// Nothing yet. The operators that pick series have no state.
    pub(crate) fn new(op: AggregateOp, steps: usize) -> Self {
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

    /// Bytes of a new state.
    fn bytes(op: AggregateOp, steps: usize) -> u64 {
        let one = ExactSums::bytes(steps);
        match op {
            AggregateOp::Sum | AggregateOp::Avg => one + 4 * steps as u64,
            AggregateOp::Min | AggregateOp::Max => 8 * steps as u64,
            AggregateOp::Stddev | AggregateOp::Stdvar => 2 * one + 4 * steps as u64,
            AggregateOp::Quantile => 24 * steps as u64,
            _ => 4 * steps as u64,
        }
    }

    fn add_floats(&mut self, op: AggregateOp, floats: &[f64]) {
        match self {
            Self::Sum { sums, count } => {
                sums.add_column(floats);
                count_present(count, floats);
            }
            Self::Extreme(best) => {
                for (best, value) in best.iter_mut().zip(floats) {
                    *best = extreme(op, *best, *value);
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

    /// Adds what another part of the data gave for the same group.
    fn absorb(&mut self, op: AggregateOp, other: Self) {
        let join = |into: &mut ExactSums, from: &ExactSums, count: &[u32]| {
            for step in (0..count.len()).filter(|step| count[*step] > 0) {
                into.absorb(step, &from.at(step));
            }
        };
        let add = |into: &mut [u32], from: &[u32]| {
            into.iter_mut().zip(from).for_each(|(a, b)| *a = a.saturating_add(*b));
        };
        match (self, other) {
            (Self::Sum { sums, count }, Self::Sum { sums: more, count: n }) => {
                join(sums, &more, &n);
                add(count, &n);
            }
            (Self::Extreme(best), Self::Extreme(more)) => {
                best.iter_mut().zip(more).for_each(|(best, value)| *best = extreme(op, *best, value));
            }
            (Self::Count(count), Self::Count(n)) => add(count, &n),
            (
                Self::Moments { sums, squares, count },
                Self::Moments { sums: more, squares: more_squares, count: n },
            ) => {
                join(sums, &more, &n);
                join(squares, &more_squares, &n);
                add(count, &n);
            }
            (Self::Values(values), Self::Values(more)) => {
                values.iter_mut().zip(more).for_each(|(all, mut more)| all.append(&mut more));
            }
            // States of the same operator are of the same kind.
            _ => {}
        }
    }
}

/// The better of two values for `min` or `max`, whichever comes first: NaN gives way to numbers, and absence to all;
/// −0 is less than 0.
#[inline(always)]
fn extreme(op: AggregateOp, best: f64, value: f64) -> f64 {
    let better = if op == AggregateOp::Min {
        value < best || (value == best && value.is_sign_negative())
    } else {
        value > best || (value == best && value.is_sign_positive())
    };
    if better || (best.is_nan() && !value.is_nan()) {
        value
    } else if is_absent(best) && !is_absent(value) {
        f64::NAN
    } else {
        best
    }
}

fn count_present(count: &mut [u32], floats: &[f64]) {
    for (count, value) in count.iter_mut().zip(floats) {
        *count += u32::from(!is_absent(*value));
    }
}

/// `n·Σx² − (Σx)²`, rounded once, over n²: the variance. Equal values give exactly 0, unless their squares are beyond the
/// largest float: then it is infinite as soon as there are two.
fn variance(count: u32, sum: [f64; 4], squares: [f64; 4]) -> f64 {
    /// Squares above it are scaled down, so that their products stay floats.
    const LARGE: f64 = 1e200;
    /// 2^−256.
    const DOWN: f64 = f64::from_bits((1023 - 256) << 52);
    let n = f64::from(count);
    if !sum[0].is_finite() || squares[0].is_nan() {
        return f64::NAN;
    }
    if squares[0].is_infinite() {
        return if count == 1 { 0.0 } else { f64::INFINITY };
    }
    let down = if squares[0] > LARGE { DOWN } else { 1.0 };
    let (sum, squares) = (sum.map(|part| part * down), squares.map(|part| part * down * down));
    let mut total = Exact::default();
    let mut add = |a: f64, b: f64| {
        let (product, error) = two_product(a, b);
        total.add(product);
        total.add(error);
    };
    for part in squares.into_iter().filter(|part| *part != 0.0) {
        add(n, part);
    }
    for (at, part) in sum.iter().enumerate().filter(|(_, part)| **part != 0.0) {
        add(-part, *part);
        for other in sum[at + 1..].iter().filter(|other| **other != 0.0) {
            add(-2.0 * part, *other);
        }
    }
    (total.sum() / n / n / down / down).max(0.0)
}

/// One group.
#[derive(Debug)]
pub(crate) struct Accumulator {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    pub(crate) state: State,
    /// By step, where there are histograms to be added.
    pub(crate) histograms: BTreeMap<usize, ExactHistogram>,
    /// The smallest metric names of series with exponential, and with custom buckets.
    pub(crate) names: [Option<String>; 2],
}

impl Accumulator {
    /// A group without members.
    pub(crate) fn new(op: AggregateOp, labels: Labels, steps: usize) -> Self {
        Self {
            labels,
            drop_name: false,
            state: State::new(op, steps),
            histograms: BTreeMap::new(),
            names: [None, None],
        }
    }

    fn name(&mut self, custom: bool, name: &str) {
        let slot = &mut self.names[usize::from(custom)];
        if slot.as_deref().is_none_or(|known| name < known) {
            *slot = Some(name.to_owned());
        }
    }
}

/// The groups of an aggregation.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) op: AggregateOp,
    pub(crate) steps: usize,
    places: HashMap<Vec<u8>, usize>,
    pub(crate) all: Vec<Accumulator>,
    charge: Charge,
}

/// What stands in the query, for annotations: the span of what is aggregated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) span: Span,
}

impl Groups {
    /// No groups yet.
    pub(crate) fn new(op: AggregateOp, steps: usize, budget: &Arc<QueryBudget>) -> Self {
        Self { op, steps, places: HashMap::new(), all: Vec::new(), charge: Charge::new(budget) }
    }

    /// The group with the labels whose canonical bytes are `key`.
    pub(crate) fn group(&mut self, key: &[u8]) -> Result<&mut Accumulator, EvalError> {
        let at = match self.places.get(key) {
            Some(at) => *at,
            None => {
                self.charge.take(State::bytes(self.op, self.steps) + 2 * key.len() as u64 + 64)?;
                let labels = Labels::from_canonical(key).map_err(|e| EvalError::Invalid(e.to_string()))?;
                self.places.insert(key.to_vec(), self.all.len());
                self.all.push(Accumulator::new(self.op, labels, self.steps));
                self.all.len() - 1
            }
        };
        Ok(&mut self.all[at])
    }

    /// Adds `column`, of the metric `name`, to the group of `key`. Kinds that the operator ignores are noted.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        column: &Column,
        name: &str,
        site: Site,
        notes: &mut Annotations,
    ) -> Result<(), EvalError> {
        let op = self.op;
        if op == AggregateOp::Quantile {
            self.charge.take(8 * self.steps as u64)?;
        }
        let group = self.group(key)?;
        group.drop_name |= column.drop_name;
        group.state.add_floats(op, &column.floats);
        if column.histograms.iter().all(Option::is_none) {
            return Ok(());
        }
        if let State::Count(count) = &mut group.state {
            count.iter_mut().zip(&column.histograms).for_each(|(n, h)| *n += u32::from(h.is_some()));
            return Ok(());
        }
        if !matches!(op, AggregateOp::Sum | AggregateOp::Avg) {
            notes.ignored_in_aggregation(op.as_str(), site.span);
            return Ok(());
        }
        let (mut taken, mut kinds) = (0, [false; 2]);
        for (step, h) in
            column.histograms.iter().enumerate().filter_map(|(step, h)| Some((step, h.as_ref()?)))
        {
            kinds[usize::from(h.has_custom_buckets())] = true;
            let sum = group.histograms.entry(step).or_default();
            let before = sum.bytes();
            sum.add(h);
            taken += sum.bytes().saturating_sub(before);
        }
        for custom in [false, true].into_iter().filter(|custom| kinds[usize::from(*custom)]) {
            group.name(custom, name);
        }
        Ok(self.charge.take(taken)?)
    }

    /// Takes `bytes` of memory, or fails when the budget is used up.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        self.charge.take(bytes)
    }

    /// Adds the groups of another part of the data, evaluated over the same steps by the same operator.
    pub(crate) fn absorb(&mut self, other: Self) -> Result<(), EvalError> {
        let op = self.op;
        let mut taken = 0;
        for from in other.all {
            let group = self.group(from.labels.as_bytes())?;
            group.drop_name |= from.drop_name;
            group.state.absorb(op, from.state);
            for (step, sum) in from.histograms {
                let into = group.histograms.entry(step).or_default();
                let before = into.bytes();
                into.absorb(sum);
                taken += into.bytes().saturating_sub(before);
            }
            for (custom, name) in from.names.into_iter().enumerate() {
                if let Some(name) = name {
                    group.name(custom == 1, &name);
                }
            }
            if let (AggregateOp::Quantile, State::Values(values)) = (op, &group.state) {
                taken += values.iter().map(|v| 8 * v.len() as u64).sum::<u64>();
            }
        }
        Ok(self.charge.take(taken)?)
    }

    /// The columns of the groups; `quantiles` by step, for `quantile`. Adds the annotations that only the whole can
    /// give.
    pub(crate) fn finish(self, quantiles: &[f64], site: Site, notes: &mut Annotations) -> Vec<Column> {
        let (op, steps) = (self.op, self.steps);
        self.all.into_iter().map(|group| finish(op, steps, group, quantiles, site, notes)).collect()
    }
}

fn finish(
    op: AggregateOp,
    steps: usize,
    from: Accumulator,
    quantiles: &[f64],
    site: Site,
    notes: &mut Annotations,
) -> Column {
    let Accumulator { labels, drop_name, state, histograms, names } = from;
    let mut column = Column { labels, drop_name, ..Column::default() };
    let or_absent = |count: u32, value: f64| if count == 0 { ABSENT } else { value };
    column.floats = match state {
        State::Sum { sums, count } if op == AggregateOp::Avg => {
            (0..steps).map(|s| or_absent(count[s], sums.mean(s, f64::from(count[s])))).collect()
        }
        State::Sum { sums, count } => (0..steps).map(|s| or_absent(count[s], sums.sum(s))).collect(),
        State::Extreme(best) => best,
        State::Count(count) if op == AggregateOp::Group => count.iter().map(|n| or_absent(*n, 1.0)).collect(),
        State::Count(count) => count.iter().map(|n| or_absent(*n, f64::from(*n))).collect(),
        State::Moments { sums, squares, count } => (0..steps)
            .map(|s| {
                let variance = variance(count[s], sums.parts(s), squares.parts(s));
                let value = if op == AggregateOp::Stddev { variance.sqrt() } else { variance };
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
    for (step, sum) in histograms {
        if sum.is_reconciled() {
            notes.mismatched_custom_buckets(Operation::Aggregation, site.span);
        }
        if sum.is_incompatible() {
            // In the order of names, the one that no longer fits is the later of the two.
            let name = names.iter().flatten().max().map_or("", String::as_str);
            notes.mixed_exponential_custom(name, site.span);
        }
        if !is_absent(column.floats[step]) {
            notes.mixed_in_aggregation(site.span);
            column.floats[step] = ABSENT;
            continue;
        }
        if sum.is_incompatible() {
            continue;
        }
        if sum.resets_collide() {
            notes.reset_collision(Operation::Aggregation, site.span);
        }
        let mut h = sum.finish(op == AggregateOp::Avg);
        compact(&mut h);
        column.put_histogram(step, Arc::new(h));
    }
    column
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> f64 {
        let (mut sums, mut squares) = (ExactSums::new(1), ExactSums::new(1));
        for value in values {
            sums.add(0, *value);
            let (square, error) = two_product(*value, *value);
            squares.add(0, square);
            squares.add(0, error);
        }
        variance(values.len() as u32, sums.parts(0), squares.parts(0))
    }

    proptest! {
        #[test]
        fn equal_values_have_no_variance(value in -1e140f64..1e140, small in -1.0f64..1.0, count in 1usize..60) {
            prop_assert_eq!(of(&vec![value; count]), 0.0);
            prop_assert_eq!(of(&vec![small; count]), 0.0);
        }

        #[test]
        fn the_variance_is_that_of_distances(values in prop::collection::vec(-1e3f64..1e3, 2..40), far in 0i32..12) {
            // Moved far away, where distances are a small part of the values.
            let base = 10f64.powi(far);
            let moved: Vec<f64> = values.iter().map(|v| (v * 1024.0).round() / 1024.0 + base).collect();
            let count = moved.len() as f64;
            let mean = moved.iter().map(|v| v - base).sum::<f64>() / count;
            let expected = moved.iter().map(|v| (v - base - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((of(&moved) - expected).abs() <= 1e-9 * expected.max(1e-6), "{} {expected}", of(&moved));
        }
    }

    #[test]
    fn large_values_have_a_finite_variance() {
        assert_eq!(of(&[9e153, -9e153]), 9e153 * 9e153);
        assert_eq!(of(&[9e153, 9e153]), 0.0);
    }
}
