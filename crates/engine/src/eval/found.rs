//! Parts of the expression that were evaluated elsewhere: their columns and groups take the place of an evaluation.

use std::cell::RefCell;

use promql::ast::AggregateOp;

use super::{Evaluator, Sink};
use crate::EvalError;
use crate::annotations::Annotations;
use crate::column::Columns;
use crate::groups::Groups;
use crate::plan::{Kind, Node};

/// What was found elsewhere for a part of the expression.
#[derive(Debug)]
pub(crate) enum Found {
    /// The columns of an expression; of an aggregation that picks series: the candidates.
    Columns(Columns),
    /// The accumulators of an aggregation.
    Groups(Groups),
}

/// What was found for each part, until it is taken, and what is to be said about it.
pub(crate) type FoundParts = RefCell<Vec<Option<(Found, Annotations)>>>;

impl Evaluator<'_> {
    /// The columns of `node`, which is part `at`.
    pub(super) fn found(&self, node: &Node, at: usize, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let Some((found, notes)) = self.found.borrow_mut().get_mut(at).and_then(Option::take) else {
            return Err(EvalError::Invalid(format!("part {at} of the query was not evaluated")));
        };
        self.note(|all| all.merge(notes));
        match (found, &node.kind) {
            (Found::Groups(groups), Kind::Aggregate(group)) => self.finish(group, groups, sink),
            (Found::Columns(columns), Kind::Aggregate(group)) if group.op != AggregateOp::LimitRatio => {
                self.pick_among(group, node.span, sink, move || Ok(columns))
            }
            (Found::Columns(mut columns), _) => columns.list.iter_mut().try_for_each(sink),
            (Found::Groups(_), _) => {
                Err(EvalError::Invalid(format!("part {at} of the query is no aggregation")))
            }
        }
    }
}
