//! Evaluation spread over the places where series are.
//!
//! [`plan()`] closes an expression and, by one table ([`TABLE`]), cuts out the parts that are evaluated where the series
//! are. Each place runs its [`Part`]s over its own series ([`run()`]) and gives a [`Partial`]; partials join in any order
//! ([`Partial::absorb`]); [`Plan::finish`] evaluates the rest over them. What cannot be split exactly moves its series:
//! the answer has the same bits as that of [`crate::evaluate`] over all series at once, wherever they are.
//!
//! Where a place finds an error of evaluation (duplicate series …), its partial says so, and the expression is to be
//! planned again with [`Push::Nothing`]: over raw series the error is that of a local evaluation, word for word.
//!
//! Not here: who has which series, and the way there and back (`query`).

mod fragment;
mod partial;
mod run;
mod source;
mod table;
mod text;
mod walk;

pub use fragment::{Fragment, LANGUAGE_VERSION};
pub use partial::Partial;
pub use run::run;
pub use table::{Row, Rule, TABLE, rule_of};

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use model::seam::{QueryBudget, SeriesSource};
use model::{Failure, StepGrid, TimeRange};
use promql::ast::{AggregateOp, Expr};

use crate::annotations::Annotations;
use crate::close::close;
use crate::eval::{Evaluator, FoundParts, Types};
use crate::plan::{Kind, Node};
use crate::{Answer, EvalContext, EvalError};
use text::PartText;

/// How much is pushed to where the series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// All that the table allows. Each series must be in one place as a whole.
    Everything,
    /// Only selectors: raw series move. A series may have samples in several places.
    Nothing,
}

/// What is asked for by a [`Part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// The raw series of a selector.
    Series,
    /// The columns of an expression.
    Columns,
    /// The accumulators of an aggregation's groups.
    Groups,
}

impl PartKind {
    /// The word by which it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Columns => "columns",
            Self::Groups => "groups",
        }
    }
}

/// A part of a query, evaluated where series are.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    kind: PartKind,
    text: PartText,
    /// The steps (of a subquery, when the part stands in one).
    grid: StepGrid,
    /// Of raw series: their times.
    range: TimeRange,
}

impl Part {
    /// What is asked for.
    pub fn kind(&self) -> PartKind {
        self.kind
    }

    /// Its canonical text.
    pub fn text(&self) -> &str {
        &self.text.text
    }

    /// The steps at which it is evaluated.
    pub fn grid(&self) -> StepGrid {
        self.grid
    }

    /// The times of the samples, of a part of kind [`PartKind::Series`].
    pub fn range(&self) -> TimeRange {
        self.range
    }
}

/// A query ready to be spread: its parts, and what stays at the root.
#[derive(Debug)]
pub struct Plan {
    node: Node,
    grid: StepGrid,
    parts: Vec<Part>,
}

/// Closes `expr` and cuts it into parts.
///
/// # Errors
/// As [`crate::evaluate`], for what is wrong whatever the data.
pub fn plan(expr: &Expr, grid: StepGrid, ctx: &EvalContext, push: Push) -> Result<Plan, EvalError> {
    let mut node = close(expr, grid, ctx)?;
    let parts = walk::parts(&mut node, grid, ctx, push)?;
    Ok(Plan { node, grid, parts })
}

impl Plan {
    /// The parts; a partial answers all of them, in this order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text of what the root evaluates, with the parts as `part_0`, `part_1` …; raw series stay as selectors.
    pub fn root(&self) -> String {
        text::outline(&self.node)
    }

    /// A partial of no series, to join others to.
    pub fn nothing(&self, budget: &Arc<QueryBudget>) -> Partial {
        Partial::nothing(&self.parts, budget)
    }

    /// The answer, over the joined partials of all places. Counts the samples that they read.
    ///
    /// # Errors
    /// As [`crate::evaluate`]. A partial that failed must not come here: see [`Partial::error`].
    pub fn finish(self, all: Partial, ctx: &EvalContext) -> Result<Answer, EvalError> {
        let (found, moved) = all.open(&self.parts)?;
        let notes = RefCell::new(Annotations::default());
        let types = Cell::new(Types::Heeded);
        let evaluator = Evaluator {
            source: &moved as &dyn SeriesSource,
            ctx,
            notes: &notes,
            grid: self.grid,
            found: &found,
            is_part: false,
            types: &types,
        };
        let value = evaluator.answer(&self.node)?;
        Ok(Answer { value, annotations: notes.into_inner() })
    }
}

/// What a part of kind [`PartKind::Groups`] aggregates by.
fn operator(node: &Node) -> Result<AggregateOp, Failure> {
    match &node.kind {
        Kind::Aggregate(group) => Ok(group.op),
        _ => Err(Failure::new(model::Code::Invalid, "a part of kind groups is no aggregation")),
    }
}

/// Nothing was cut out.
pub(crate) fn nothing_found() -> FoundParts {
    RefCell::new(Vec::new())
}
