//! From a closed expression to its parts: the walk that asks the table.

use model::{Matcher, StepGrid, TimeRange};
use promql::ast::{Extended, ValueType};

use super::table::{Rule, construct, rule_of};
use super::text::{PartText, selector_text};
use super::{Part, PartKind, Push};
use crate::eval::{info_matchers, info_shift, subquery_grid};
use crate::plan::{Call, Group, Kind, Node, Pair, Select};
use crate::{EvalContext, EvalError};

struct Walk<'c> {
    ctx: &'c EvalContext,
    push: Push,
    parts: Vec<Part>,
}

/// Marks in `node` what is evaluated elsewhere, and gives those parts.
pub(super) fn parts(
    node: &mut Node,
    grid: StepGrid,
    ctx: &EvalContext,
    push: Push,
) -> Result<Vec<Part>, EvalError> {
    let mut walk = Walk { ctx, push, parts: Vec::new() };
    walk.place(node, grid)?;
    Ok(walk.parts)
}

/// Whether a scalar (or string) reads no series.
fn reads_nothing(node: &Node) -> bool {
    match &node.kind {
        Kind::Number(_) | Kind::Text(_) | Kind::Bytes(_) => true,
        Kind::Select(_) | Kind::Matrix(..) | Kind::Subquery(_) | Kind::Aggregate(_) => false,
        Kind::Call(call) => rule_of(call.name) == Rule::Anywhere && call.args.iter().all(reads_nothing),
        Kind::Binary(pair) => {
            rule_of(construct::SCALARS) == Rule::Anywhere
                && reads_nothing(&pair.lhs)
                && reads_nothing(&pair.rhs)
        }
        Kind::Negate(inner) | Kind::Plus(inner) => reads_nothing(inner),
    }
}

fn is_local(rule: Rule) -> bool {
    matches!(rule, Rule::EachSeries | Rule::Together)
}

/// Whether each column of a vector (each series of a range) is made of series with one placement key, and is in one
/// place only.
fn is_split(node: &Node) -> bool {
    match &node.kind {
        Kind::Select(_) => is_local(rule_of(construct::SELECTOR)),
        Kind::Subquery(sub) => is_local(rule_of(construct::SUBQUERY)) && is_split(&sub.inner),
        Kind::Negate(inner) | Kind::Plus(inner) => {
            node.value_type() == ValueType::Vector && is_local(rule_of(construct::UNARY)) && is_split(inner)
        }
        Kind::Call(call) => is_local(rule_of(call.name)) && splits_args(call),
        Kind::Binary(pair) => match (pair.lhs.value_type(), pair.rhs.value_type()) {
            (ValueType::Vector, ValueType::Vector) => {
                is_local(rule_of(construct::KEYED))
                    && keeps_key(pair)
                    && is_split(&pair.lhs)
                    && is_split(&pair.rhs)
            }
            (ValueType::Vector, _) => with_scalar(&pair.lhs, &pair.rhs),
            (_, ValueType::Vector) => with_scalar(&pair.rhs, &pair.lhs),
            _ => false,
        },
        Kind::Aggregate(group) => is_local(rule_of(group.op.as_str())) && splits_group(group),
        Kind::Matrix(..) | Kind::Number(_) | Kind::Text(_) | Kind::Bytes(_) => false,
    }
}

fn with_scalar(vector: &Node, scalar: &Node) -> bool {
    is_local(rule_of(construct::WITH_SCALAR)) && is_split(vector) && reads_nothing(scalar)
}

/// Whether a call has series among its arguments, all of them split, and the other arguments read none.
fn splits_args(call: &Call) -> bool {
    let mut any = false;
    let all = call.args.iter().all(|arg| match arg.value_type() {
        ValueType::Vector | ValueType::Matrix => {
            any = true;
            // A range selector is pushed with the function around it.
            matches!(arg.kind, Kind::Matrix(..)) || is_split(arg)
        }
        ValueType::Scalar | ValueType::String => reads_nothing(arg),
    });
    any && all
}

fn splits_group(group: &Group) -> bool {
    is_split(&group.inner) && group.param.as_ref().is_none_or(reads_nothing)
}

/// Whether series that match have the same placement key: all labels that are in the key must be equal.
fn keeps_key(pair: &Pair) -> bool {
    let Some(matching) = &pair.matching else { return true };
    let free =
        |label: &String| matches!(label.as_str(), "le" | "quantile" | "__name__" | "__type__" | "__unit__");
    !matching.on && matching.include.is_empty() && matching.labels.iter().all(free)
}

impl Walk<'_> {
    fn place(&mut self, node: &mut Node, grid: StepGrid) -> Result<(), EvalError> {
        let grid = if node.once && grid.count > 1 { StepGrid { count: 1, ..grid } } else { grid };
        if self.push == Push::Everything && node.value_type() == ValueType::Vector {
            let kind = match &node.kind {
                _ if is_split(node) => Some(PartKind::Columns),
                Kind::Aggregate(group) if splits_group(group) => match rule_of(group.op.as_str()) {
                    Rule::Partial => Some(PartKind::Groups),
                    Rule::Candidates => Some(PartKind::Columns),
                    _ => None,
                },
                _ => None,
            };
            if let Some((kind, text)) = kind.and_then(|kind| Some((kind, PartText::of(node)?))) {
                node.remote = Some(self.parts.len());
                let range = TimeRange { after: 0, until: 0 };
                self.parts.push(Part { kind, text, grid, range });
                return Ok(());
            }
        }
        self.inside(node, grid)
    }

    fn inside(&mut self, node: &mut Node, grid: StepGrid) -> Result<(), EvalError> {
        match &mut node.kind {
            Kind::Number(_) | Kind::Text(_) | Kind::Bytes(_) => Ok(()),
            Kind::Select(select) => {
                let range = reach(select, None, grid, self.ctx.lookback_ms);
                self.series(&select.matchers, range, grid);
                Ok(())
            }
            Kind::Matrix(select, range_ms) => {
                let range = reach(select, Some(*range_ms), grid, self.ctx.lookback_ms);
                self.series(&select.matchers, range, grid);
                Ok(())
            }
            Kind::Subquery(sub) => match subquery_grid(sub, grid) {
                None => Ok(()),
                Some(grid) => self.place(&mut sub.inner, grid),
            },
            Kind::Call(call) if call.name == "info" => {
                let matchers = info_matchers(call)?;
                let shift = info_shift(call);
                let range = TimeRange {
                    after: shift.apply(grid.start).saturating_sub(self.ctx.lookback_ms),
                    until: shift.apply(grid.end()),
                };
                self.series(&matchers, range, grid);
                call.args.first_mut().map_or(Ok(()), |base| self.place(base, grid))
            }
            Kind::Call(call) => call.args.iter_mut().try_for_each(|arg| self.place(arg, grid)),
            Kind::Aggregate(group) => {
                if let Some(param) = &mut group.param {
                    self.place(param, grid)?;
                }
                self.place(&mut group.inner, grid)
            }
            Kind::Binary(pair) => {
                self.place(&mut pair.lhs, grid)?;
                self.place(&mut pair.rhs, grid)
            }
            Kind::Negate(inner) | Kind::Plus(inner) => self.place(inner, grid),
        }
    }

    /// Has raw series move, unless the same already do.
    fn series(&mut self, matchers: &[Matcher], range: TimeRange, grid: StepGrid) {
        let text = PartText { text: selector_text(matchers), spans: Vec::new(), counts_only: false };
        let same = |part: &&mut Part| part.kind == PartKind::Series && part.text == text;
        if let Some(part) = self.parts.iter_mut().find(same) {
            part.range.after = part.range.after.min(range.after);
            part.range.until = part.range.until.max(range.until);
            return;
        }
        self.parts.push(Part { kind: PartKind::Series, text, grid, range });
    }
}

/// The times of the samples that a selector reads.
fn reach(select: &Select, range_ms: Option<i64>, grid: StepGrid, lookback: i64) -> TimeRange {
    let (first, last) = (select.time.apply(grid.start), select.time.apply(grid.end()));
    let extended = select.extended != Extended::None;
    let back = match range_ms {
        None => lookback,
        Some(range) if extended => range.saturating_add(lookback),
        Some(range) => range,
    };
    let ahead = if select.extended == Extended::Smoothed { lookback } else { 0 };
    TimeRange { after: first.saturating_sub(back), until: last.saturating_add(ahead) }
}
