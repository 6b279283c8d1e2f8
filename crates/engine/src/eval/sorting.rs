//! `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`: only the order of an instant vector.

use std::cmp::Ordering;

use promql::ast::{AggregateOp, Span};

use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::is_absent;
use crate::label_set::compare;
use crate::plan::{Call, Kind, Node};

/// Whether the order in which `node` gives its series has a meaning.
pub(super) fn keeps_order(node: &Node) -> bool {
    match &node.kind {
        Kind::Call(call) => is_sort(call.name),
        Kind::Aggregate(group) => matches!(group.op, AggregateOp::Topk | AggregateOp::Bottomk),
        Kind::Plus(inner) | Kind::Negate(inner) => keeps_order(inner),
        _ => false,
    }
}

pub(super) fn is_sort(name: &str) -> bool {
    matches!(name, "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc")
}

/// Orders texts by their runs of digits as numbers and the rest as text.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (chunks(a), chunks(b));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => {
                let order = match (x.parse::<i64>(), y.parse::<i64>()) {
                    (Ok(x), Ok(y)) => x.cmp(&y),
                    _ => x.cmp(y),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

/// Maximal runs of digits and of other characters.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != first).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some(chunk)
    })
}

impl Evaluator<'_> {
    pub(super) fn sort(&self, call: &Call, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        if !self.ctx.is_instant || self.steps() > 1 {
            self.note(|n| n.sort_in_range_query(span));
        }
        let mut columns = self.vector(&call.args[0])?;
        columns.list.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        let by_value = !call.name.starts_with("sort_by");
        if by_value {
            columns.list.iter_mut().for_each(|c| c.histograms.clear());
            columns.list.retain(|c| !c.is_empty());
        }
        if self.steps() == 1 && by_value {
            let descending = call.name == "sort_desc";
            columns.list.sort_by(|a, b| {
                let (a, b) = (a.floats[0], b.floats[0]);
                let order = match (a.is_nan(), b.is_nan()) {
                    (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
                    (x, y) => return x.cmp(&y),
                };
                if descending { order.reverse() } else { order }
            });
        } else if self.steps() == 1 {
            let names: Vec<&str> = call.args[1..].iter().filter_map(text).collect();
            let descending = call.name == "sort_by_label_desc";
            columns.list.sort_by(|a, b| {
                let (a, b) = (self.labels_of(a), self.labels_of(b));
                let value = |l: &model::Labels, name: &str| l.get(name).unwrap_or("").to_owned();
                let order = names
                    .iter()
                    .map(|name| natural(&value(&a, name), &value(&b, name)))
                    .find(|order| *order != Ordering::Equal)
                    .unwrap_or_else(|| compare(&a, &b));
                if descending { order.reverse() } else { order }
            });
        }
        debug_assert!(columns.list.iter().all(|c| !by_value || c.floats.iter().any(|v| !is_absent(*v))));
        columns.list.iter_mut().try_for_each(sink)
    }
}

/// The text of a string argument.
pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natural_order() {
        let mut all = ["a10", "a2", "b", "a", "10", "9", "a2b"];
        all.sort_by(|a, b| natural(a, b));
        assert_eq!(all, ["9", "10", "a", "a2", "a2b", "a10", "b"]);
    }
}
