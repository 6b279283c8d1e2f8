//! Names that are dropped, and columns that become one because only their names differed.

use std::borrow::Cow;

use hashbrown::HashMap;
use model::{Labels, METRIC_NAME};

use super::{Evaluator, Sink, Types};
use crate::EvalError;
use crate::column::{Column, Columns};
use crate::plan::{Kind, Node};

/// Labels that belong to the metric's name.
pub(super) fn is_name(label: impl AsRef<[u8]>) -> bool {
    matches!(label.as_ref(), b"__name__" | b"__type__" | b"__unit__")
}

/// The labels without those that belong to the name.
pub(super) fn without_name(labels: &Labels) -> Labels {
    labels.filtered(|name| !is_name(name))
}

/// Whether the labels hold one that is dropped with the name.
fn has_type(labels: &Labels) -> bool {
    labels.iter().any(|(name, _)| name != METRIC_NAME && is_name(name))
}

pub(super) fn same_labelset() -> EvalError {
    EvalError::Execution("vector cannot contain metrics with the same labelset".into())
}

impl Evaluator<'_> {
    /// The labels that functions see: without the name where it was dropped at once.
    pub(super) fn labels_of<'c>(&self, column: &'c Column) -> Cow<'c, Labels> {
        if column.drop_name && !self.delayed() {
            Cow::Owned(without_name(&column.labels))
        } else {
            Cow::Borrowed(&column.labels)
        }
    }

    /// Runs `produce`, which drops names of the columns of `from`. Where names are dropped at once and columns may
    /// become the same series, they are merged before `sink` sees them.
    pub(super) fn merging(
        &self,
        from: &Node,
        sink: &mut Sink<'_>,
        produce: impl FnOnce(&mut Sink<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        if self.delayed() {
            return produce(sink);
        }
        if !self.may_collide(from) {
            return produce(&mut |column| {
                if self.types.get() == Types::Unseen && has_type(&column.labels) {
                    self.types.set(Types::Seen);
                    return Err(EvalError::Invalid("series have types".into()));
                }
                sink(column)
            });
        }
        let mut all = Columns::new(&self.ctx.budget);
        produce(&mut |column| {
            column.labels = self.labels_of(column).into_owned();
            Ok(all.push(std::mem::take(column))?)
        })?;
        for column in &mut self.merge(all)?.list {
            sink(column)?;
        }
        Ok(())
    }

    /// Whether columns of `node` may have the same labels without their names.
    fn may_collide(&self, node: &Node) -> bool {
        let typed = self.ctx.features.type_and_unit_labels || self.types.get() == Types::Heeded;
        match &node.kind {
            Kind::Select(select) | Kind::Matrix(select, _) => {
                let named = |m: &model::Matcher| m.name() == METRIC_NAME && m.op() == model::MatchOp::Equal;
                typed || !select.matchers.iter().any(named)
            }
            Kind::Subquery(sub) => self.may_collide(&sub.inner),
            Kind::Plus(inner) => self.may_collide(inner),
            // Dropped its names, and merged.
            Kind::Negate(_) => false,
            Kind::Call(call) => !matches!(
                call.name,
                "rate"
                    | "increase"
                    | "delta"
                    | "irate"
                    | "idelta"
                    | "abs"
                    | "ceil"
                    | "floor"
                    | "round"
                    | "vector"
            ),
            Kind::Aggregate(group) => {
                use promql::ast::AggregateOp::{Bottomk, LimitRatio, Limitk, Topk};
                if matches!(group.op, Topk | Bottomk | Limitk | LimitRatio) {
                    self.may_collide(&group.inner)
                } else {
                    !group.without && group.labels.iter().any(is_name)
                }
            }
            _ => true,
        }
    }

    /// Joins columns with the same labels. Fails when two have something at the same step.
    pub(super) fn merge(&self, columns: Columns) -> Result<Columns, EvalError> {
        let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(columns.list.len());
        if columns.list.iter().enumerate().all(|(at, c)| seen.insert(c.labels.clone(), at).is_none()) {
            return Ok(columns);
        }
        seen.clear();
        let mut merged = Columns::new(&self.ctx.budget);
        let mut columns = columns;
        for column in columns.list.drain(..) {
            match seen.get(&column.labels) {
                None => {
                    seen.insert(column.labels.clone(), merged.list.len());
                    merged.push(column)?;
                }
                Some(at) => join(&mut merged.list[*at], &column)?,
            }
        }
        Ok(merged)
    }
}

/// Moves what `from` has into `into`.
fn join(into: &mut Column, from: &Column) -> Result<(), EvalError> {
    if from.first_step().is_some_and(|first| into.first_step().is_none_or(|f| first < f)) {
        into.drop_name = from.drop_name;
    }
    for step in 0..from.floats.len() {
        if let Some(cell) = from.cell(step) {
            if into.has(step) {
                return Err(same_labelset());
            }
            into.put(step, cell);
        }
    }
    Ok(())
}
