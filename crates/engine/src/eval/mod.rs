//! Evaluation of a closed expression over a step grid.
//!
//! Vectors are produced as a stream of columns, series by series, so that `sum by (…) (rate(…))` never holds a
//! matrix; whoever needs all series at once collects them and is charged for it. One file per family.

mod aggregate;
mod binary;
mod cells;
mod classic;
mod count_values;
mod found;
mod frames;
mod functions;
mod info;
mod labels;
mod matching;
mod matrix;
mod merge;
mod pick;
mod ranges;
mod select;
mod sorting;
mod split;

pub(crate) use found::{Found, FoundParts};
pub(crate) use info::{info_matchers, info_shift};
pub(crate) use ranges::subquery_grid;

use std::cell::{Cell, RefCell};

use model::StepGrid;
use model::seam::SeriesSource;
use promql::ast::ValueType;

use crate::annotations::Annotations;
use crate::column::{Column, Columns};
use crate::label_set::compare;
use crate::plan::{Kind, Node};
use crate::value::{HistogramPoint, Point, Sample, SampleValue, Series, Value};
use crate::{EvalContext, EvalError};

/// The most steps of one grid: a subquery may ask for more than any memory holds.
const MAX_STEPS: usize = 20_000_000;

/// Takes one column after the other. It may take the column's contents away.
pub(crate) type Sink<'s> = dyn FnMut(&mut Column) -> Result<(), EvalError> + 's;

/// Whether series carry labels that are dropped with the metric's name beside the name itself. They rarely do, and only then
/// can series of one name become the same; so an evaluation begins as if none did, and begins again when one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Types {
    /// None did so far; the evaluation stops at the first that does.
    Unseen,
    /// One did, and the evaluation stopped.
    Seen,
    /// They may.
    Heeded,
}

/// Runs `evaluate`, and again when it stopped at a series with a type; its annotations go to `notes`.
pub(crate) fn heeding_types<T>(
    notes: &RefCell<Annotations>,
    evaluate: impl Fn(&Cell<Types>) -> Result<T, EvalError>,
) -> Result<T, EvalError> {
    let types = Cell::new(Types::Unseen);
    let first = evaluate(&types);
    if types.get() != Types::Seen {
        return first;
    }
    notes.take();
    types.set(Types::Heeded);
    evaluate(&types)
}

/// Evaluates over one grid; subqueries and parts that never change get evaluators of their own.
#[derive(Clone, Copy)]
pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) ctx: &'a EvalContext,
    pub(crate) notes: &'a RefCell<Annotations>,
    pub(crate) grid: StepGrid,
    /// What was evaluated elsewhere.
    pub(crate) found: &'a FoundParts,
    /// Only some of the series are seen: what the others could make an error is one.
    pub(crate) is_part: bool,
    /// Whether series carry types.
    pub(crate) types: &'a Cell<Types>,
}

/// The steps of `grid`, first to last.
fn times(grid: StepGrid) -> impl Iterator<Item = i64> {
    (0..grid.count).map(move |step| grid.at(step))
}

impl<'a> Evaluator<'a> {
    fn over(&self, grid: StepGrid) -> Self {
        Self { grid, ..*self }
    }

    fn steps(&self) -> usize {
        self.grid.count
    }

    /// Fails when the query is to stop, or a column of this grid does not fit.
    pub(crate) fn admit(&self) -> Result<(), EvalError> {
        self.ctx.budget.check()?;
        self.fits()
    }

    /// Fails when a column of this grid does not fit into what is left of the budget.
    fn fits(&self) -> Result<(), EvalError> {
        if self.grid.count > MAX_STEPS {
            let count = self.grid.count;
            return Err(EvalError::Execution(format!(
                "evaluation at {count} steps, the limit is {MAX_STEPS}"
            )));
        }
        let bytes = (2 * size_of::<f64>() * self.grid.count) as u64;
        self.ctx.budget.charge(bytes)?;
        self.ctx.budget.release(bytes);
        Ok(())
    }

    /// Whether names stay until the end.
    fn delayed(&self) -> bool {
        self.ctx.features.delayed_name_removal
    }

    /// An evaluator for the first step only, when `node` is the same at every step and there are several.
    fn once(&self, node: &Node) -> Option<Self> {
        (node.once && self.grid.count > 1)
            .then(|| self.over(StepGrid { start: self.grid.start, step: self.grid.step, count: 1 }))
    }

    fn note<R>(&self, add: impl FnOnce(&mut Annotations) -> R) -> R {
        add(&mut self.notes.borrow_mut())
    }

    /// The value of the whole expression.
    pub(crate) fn answer(&self, node: &Node) -> Result<Value, EvalError> {
        let kind = node.value_type();
        if !self.ctx.is_instant {
            return match kind {
                ValueType::Vector => self.range_vector(node),
                ValueType::Scalar => Ok(self.range_scalar(&self.scalar(node)?)),
                ValueType::String | ValueType::Matrix => Err(EvalError::Invalid(format!(
                    "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                    if kind == ValueType::String { "string" } else { "range vector" }
                ))),
            };
        }
        let time = self.grid.start;
        match (kind, &node.kind) {
            (ValueType::Scalar, _) => {
                Ok(Value::Scalar(Point { timestamp: time, value: self.scalar(node)?[0] }))
            }
            (ValueType::String, Kind::Text(text)) => Ok(Value::String(text.clone(), time)),
            (ValueType::String, Kind::Bytes(bytes)) => {
                Ok(Value::String(String::from_utf8_lossy(bytes).into_owned(), time))
            }
            (ValueType::Vector, _) => self.instant_vector(node),
            (ValueType::Matrix, Kind::Matrix(select, range)) => self.range_of_samples(select, *range),
            (ValueType::Matrix, Kind::Subquery(sub)) => {
                let Some(grid) = self.subquery_grid(sub) else { return Ok(Value::Matrix(Vec::new())) };
                self.over(grid).range_vector(&sub.inner)
            }
            _ => Err(EvalError::Invalid("the expression has no value".into())),
        }
    }

    fn range_scalar(&self, values: &[f64]) -> Value {
        let floats =
            times(self.grid).zip(values).map(|(timestamp, v)| Point { timestamp, value: *v }).collect();
        Value::Matrix(vec![Series { floats, ..Series::default() }])
    }

    fn range_vector(&self, node: &Node) -> Result<Value, EvalError> {
        if node.value_type() == ValueType::Scalar {
            return Ok(self.range_scalar(&self.scalar(node)?));
        }
        let columns = self.finished(node)?;
        let mut all = Vec::with_capacity(columns.list.len());
        for column in &columns.list {
            let mut series = Series { labels: column.labels.clone(), ..Series::default() };
            if column.histograms.is_empty() {
                series.floats.reserve_exact(column.floats.len());
                let present =
                    times(self.grid).zip(&column.floats).filter(|(_, v)| !crate::column::is_absent(**v));
                series.floats.extend(present.map(|(timestamp, value)| Point { timestamp, value: *value }));
            }
            for (step, timestamp) in times(self.grid).enumerate().take(column.histograms.len()) {
                if let Some(histogram) = column.histogram(step) {
                    series.histograms.push(HistogramPoint { timestamp, histogram: histogram.clone() });
                } else if !crate::column::is_absent(column.floats[step]) {
                    series.floats.push(Point { timestamp, value: column.floats[step] });
                }
            }
            if !series.floats.is_empty() || !series.histograms.is_empty() {
                self.ctx.budget.charge(column.bytes())?;
                all.push(series);
            }
        }
        Ok(Value::Matrix(all))
    }

    fn instant_vector(&self, node: &Node) -> Result<Value, EvalError> {
        let columns = self.finished(node)?;
        let timestamp = self.grid.start;
        let mut all = Vec::with_capacity(columns.list.len());
        for column in &columns.list {
            let value = match column.cell(0) {
                None => continue,
                Some(crate::column::Cell::Float(value)) => SampleValue::Float(value),
                Some(crate::column::Cell::Histogram(histogram)) => SampleValue::Histogram(histogram),
            };
            self.ctx.budget.charge(column.bytes())?;
            all.push(Sample { labels: column.labels.clone(), timestamp, value });
        }
        Ok(Value::Vector(all))
    }

    /// The columns of a vector, with names dropped where they are to be; sorted by labels unless their order has a
    /// meaning.
    fn finished(&self, node: &Node) -> Result<Columns, EvalError> {
        let mut columns = self.vector(node)?;
        let mut dropped = false;
        for column in columns.list.iter_mut().filter(|c| c.drop_name) {
            column.labels = merge::without_name(&column.labels);
            dropped = true;
        }
        if self.ctx.is_instant && sorting::keeps_order(node) {
            return if dropped { self.merge(columns) } else { Ok(columns) };
        }
        columns.list.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        if dropped && columns.list.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
            columns = self.merge(columns)?;
        }
        Ok(columns)
    }

    /// All columns of a vector.
    pub(crate) fn vector(&self, node: &Node) -> Result<Columns, EvalError> {
        let mut all = Columns::new(&self.ctx.budget);
        self.stream(node, &mut |column| Ok(all.push(std::mem::take(column))?))?;
        Ok(all)
    }

    /// The columns of a vector, one after the other.
    pub(crate) fn stream(&self, node: &Node, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        self.admit()?;
        if let Some(first) = self.once(node) {
            let steps = self.steps();
            return first.stream_kind(node, &mut |column| {
                let value = column.floats[0];
                column.floats.clear();
                column.floats.resize(steps, value);
                if let Some(histogram) = column.histograms.first().cloned() {
                    column.histograms.resize(steps, histogram);
                }
                sink(column)
            });
        }
        self.stream_kind(node, sink)
    }

    fn stream_kind(&self, node: &Node, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        if let Some(at) = node.remote {
            return self.found(node, at, sink);
        }
        match &node.kind {
            Kind::Select(select) => self.instant(select, node.span, sink),
            Kind::Call(call) => self.call(call, node.span, sink),
            Kind::Aggregate(group) => self.aggregate(group, node.span, sink),
            Kind::Binary(pair) => self.binary(pair, node.span, sink),
            Kind::Plus(inner) => self.stream(inner, sink),
            Kind::Negate(inner) => self.merging(inner, sink, |sink| {
                self.stream(inner, &mut |column| {
                    column.drop_name = true;
                    cells::negate(column);
                    sink(column)
                })
            }),
            Kind::Number(_) | Kind::Text(_) | Kind::Bytes(_) | Kind::Matrix(..) | Kind::Subquery(_) => {
                Err(EvalError::Invalid("expected an instant vector".into()))
            }
        }
    }

    /// A scalar, one value a step.
    pub(crate) fn scalar(&self, node: &Node) -> Result<Vec<f64>, EvalError> {
        self.fits()?;
        if let Some(first) = self.once(node) {
            return Ok(vec![first.scalar_kind(node)?[0]; self.steps()]);
        }
        self.scalar_kind(node)
    }

    fn scalar_kind(&self, node: &Node) -> Result<Vec<f64>, EvalError> {
        Ok(match &node.kind {
            Kind::Number(value) => vec![*value; self.steps()],
            Kind::Plus(inner) => self.scalar(inner)?,
            Kind::Negate(inner) => {
                let mut values = self.scalar(inner)?;
                values.iter_mut().for_each(|v| *v = -*v);
                values
            }
            Kind::Binary(pair) => {
                let (mut lhs, rhs) = (self.scalar(&pair.lhs)?, self.scalar(&pair.rhs)?);
                cells::scalars(pair.op, &mut lhs, &rhs)?;
                lhs
            }
            Kind::Call(call) => self.scalar_call(call)?,
            _ => return Err(EvalError::Invalid("expected a scalar".into())),
        })
    }
}
