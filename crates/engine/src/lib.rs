//! Evaluates a checked PromQL tree over a [`SeriesSource`], in columns: each series is read once for the whole
//! step grid and every function fills one column of floats (and histograms) for all steps.
//!
//! The answer does not depend on the order in which a source gives its series, nor on how they are spread over sources:
//! [`distribute`] evaluates parts of an expression where the series are, and the rest over what they give, to the same
//! bits.
//!
//! Not here: parsing (`promql`), network, disk, HTTP, clocks, threads. The entrances are [`evaluate`] and
//! [`distribute`].

mod annotations;
mod close;
mod coding;
mod column;
pub mod distribute;
mod error;
mod eval;
mod groups;
mod histogram;
pub mod histograms;
mod kahan;
mod label_set;
mod math;
mod plan;
mod quantile;
mod steps;
mod sum;
mod value;
mod window;

pub use annotations::{Annotation, AnnotationKind, Annotations};
pub use error::EvalError;
pub use steps::StepCounts;
pub use value::{HistogramPoint, Point, Sample, SampleValue, Series, Value};

use std::cell::RefCell;
use std::sync::Arc;

use model::seam::{QueryBudget, SeriesSource};
use model::{StepGrid, TenantId};
use promql::ast::Expr;

/// Language features that change results, as upstream's `--enable-feature` names them. All off by default.
/// Features that only admit more texts (experimental functions …) are the parser's matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `promql-delayed-name-removal`: drop `__name__` at the end of the evaluation instead of in each function.
    pub delayed_name_removal: bool,
    /// `type-and-unit-labels`: series may carry `__type__` and `__unit__`, and `rate` tells counters by the former.
    /// (Both labels are dropped wherever the metric name is, with and without this.)
    pub type_and_unit_labels: bool,
    /// `use-start-timestamps`: start timestamps show counter resets.
    pub use_start_timestamps: bool,
}

/// What an evaluation needs to know beside the expression and the steps.
#[derive(Clone, Debug)]
pub struct EvalContext {
    /// Whose series.
    pub tenant: TenantId,
    /// How far back an instant selector looks for a sample, ms; positive.
    pub lookback_ms: i64,
    /// The step of subqueries that name none, ms; positive (upstream: the global evaluation interval).
    pub subquery_step_ms: i64,
    /// The query's `end`, ms: it may lie after the grid's last step. `@ end()` and `range()` mean this one.
    pub end_ms: i64,
    /// An instant query: the grid has one step, and the answer is a vector, scalar, string or matrix at that time.
    /// Otherwise the answer is always a matrix.
    pub is_instant: bool,
    /// Features that change results.
    pub features: Features,
    /// Cancellation, deadline, memory.
    pub budget: Arc<QueryBudget>,
    /// Where samples are counted by the query's steps, if somebody asked for that.
    pub steps: Option<Arc<StepCounts>>,
}

impl EvalContext {
    /// The context of an instant query at `time_ms` with upstream's defaults (lookback 5 m, subquery step 1 m).
    pub fn instant(tenant: TenantId, time_ms: i64, budget: Arc<QueryBudget>) -> Self {
        Self {
            tenant,
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            end_ms: time_ms,
            is_instant: true,
            features: Features::default(),
            budget,
            steps: None,
        }
    }

    /// The context of a range query that ends at `end_ms`, with upstream's defaults.
    pub fn range(tenant: TenantId, end_ms: i64, budget: Arc<QueryBudget>) -> Self {
        Self { is_instant: false, ..Self::instant(tenant, end_ms, budget) }
    }
}

/// The outcome of an evaluation.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the expression gives. Of a range query always a [`Value::Matrix`], sorted by labels.
    pub value: Value,
    /// Warnings and infos, each once.
    pub annotations: Annotations,
}

/// Evaluates `expr` at every step of `grid` over `source`.
///
/// # Errors
/// [`EvalError`]: the expression cannot be evaluated on this data (upstream's words), is not supported yet, or the
/// source or the budget stopped it.
pub fn evaluate(
    expr: &Expr,
    grid: StepGrid,
    source: &dyn SeriesSource,
    ctx: &EvalContext,
) -> Result<Answer, EvalError> {
    let plan = close::close(expr, grid, ctx)?;
    let notes = RefCell::new(Annotations::default());
    let found = distribute::nothing_found();
    let value = eval::heeding_types(&notes, |types| {
        eval::Evaluator { source, ctx, notes: &notes, grid, found: &found, is_part: false, types }
            .answer(&plan)
    })?;
    Ok(Answer { value, annotations: notes.into_inner() })
}
