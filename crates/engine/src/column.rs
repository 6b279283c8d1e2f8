//! Columns: one series evaluated at every step of a grid.
//!
//! Absence is written as the staleness marker, which no function can give: it is a signalling NaN, which every
//! arithmetic operation makes quiet, and selectors leave it out.

use std::sync::Arc;

use model::seam::QueryBudget;
use model::{Failure, Histogram, Labels, STALE_NAN_BITS};

/// "No float at this step".
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether `value` means "no float at this step".
#[inline(always)]
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One series over all steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    /// Its labels, the metric name among them until the very end.
    pub(crate) labels: Labels,
    /// The name (and `__type__`, `__unit__`) no longer belongs to it.
    pub(crate) drop_name: bool,
    /// One a step; [`ABSENT`] where there is none.
    pub(crate) floats: Vec<f64>,
    /// Empty, or one a step. A step has a float, or a histogram, or neither.
    pub(crate) histograms: Vec<Option<Arc<Histogram>>>,
}

/// A float or a histogram.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Float(f64),
    Histogram(Arc<Histogram>),
}

impl Column {
    /// A column of nothing.
    pub(crate) fn absent(labels: Labels, steps: usize) -> Self {
        Self { labels, drop_name: false, floats: vec![ABSENT; steps], histograms: Vec::new() }
    }

    /// Makes it a column of nothing with `steps` steps, keeping its allocations.
    pub(crate) fn reset(&mut self, labels: Labels, steps: usize) {
        self.labels = labels;
        self.drop_name = false;
        self.floats.clear();
        self.floats.resize(steps, ABSENT);
        self.histograms.clear();
    }

    /// The histogram at `step`.
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(step).and_then(Option::as_ref)
    }

    /// What is at `step`.
    pub(crate) fn cell(&self, step: usize) -> Option<Cell> {
        if let Some(histogram) = self.histogram(step) {
            return Some(Cell::Histogram(Arc::clone(histogram)));
        }
        let value = self.floats[step];
        (!is_absent(value)).then_some(Cell::Float(value))
    }

    /// Whether there is something at `step`.
    pub(crate) fn has(&self, step: usize) -> bool {
        !is_absent(self.floats[step]) || self.histogram(step).is_some()
    }

    /// Writes `cell` at `step`.
    pub(crate) fn put(&mut self, step: usize, cell: Cell) {
        match cell {
            Cell::Float(value) => self.floats[step] = value,
            Cell::Histogram(histogram) => self.put_histogram(step, histogram),
        }
    }

    /// Writes `histogram` at `step`.
    pub(crate) fn put_histogram(&mut self, step: usize, histogram: Arc<Histogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.floats.len(), None);
        }
        self.histograms[step] = Some(histogram);
        self.floats[step] = ABSENT;
    }

    /// Removes what is at `step`.
    pub(crate) fn remove(&mut self, step: usize) {
        self.floats[step] = ABSENT;
        if let Some(histogram) = self.histograms.get_mut(step) {
            *histogram = None;
        }
    }

    /// Whether no step has anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.floats.iter().all(|v| is_absent(*v)) && self.histograms.iter().all(Option::is_none)
    }

    /// The first step that has something.
    pub(crate) fn first_step(&self) -> Option<usize> {
        (0..self.floats.len()).find(|step| self.has(*step))
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        let histograms: usize = self.histograms.iter().flatten().map(|h| histogram_bytes(h)).sum();
        (size_of::<Self>()
            + self.floats.len() * size_of::<f64>()
            + self.histograms.len() * size_of::<usize>()
            + self.labels.as_bytes().len()
            + histograms) as u64
    }
}

/// Bytes that a histogram holds.
pub(crate) fn histogram_bytes(h: &Histogram) -> usize {
    size_of::<Histogram>()
        + (h.positive_buckets.len() + h.negative_buckets.len()) * 8
        + (h.positive_spans.len() + h.negative_spans.len()) * 8
}

/// Memory taken from a query's budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<QueryBudget>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<QueryBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes `bytes` more, or fails when the budget is used up.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        self.budget.charge(bytes)
    }

    /// Takes over what `other` took.
    pub(crate) fn join(&mut self, mut other: Self) {
        if Arc::ptr_eq(&self.budget, &other.budget) {
            self.bytes += std::mem::take(&mut other.bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Columns and the memory they were charged for.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) list: Vec<Column>,
    charge: Charge,
}

impl Columns {
    /// None.
    pub(crate) fn new(budget: &Arc<QueryBudget>) -> Self {
        Self { list: Vec::new(), charge: Charge::new(budget) }
    }

    /// Adds all of `other`.
    pub(crate) fn append(&mut self, other: Self) {
        let Self { mut list, charge } = other;
        self.list.append(&mut list);
        self.charge.join(charge);
    }

    /// Adds one, or fails when the budget is used up.
    pub(crate) fn push(&mut self, column: Column) -> Result<(), Failure> {
        self.charge.take(column.bytes())?;
        self.list.push(column);
        Ok(())
    }
}
