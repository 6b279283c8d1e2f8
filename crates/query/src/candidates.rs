//! Which shards a query may need: the matchers and sample times of each of its selectors.
//!
//! The times are an upper bound of what the evaluation reads; they only matter where the shard map has several
//! versions.

use model::seam::ShardReader;
use model::{Matcher, ShardId, StepGrid, TenantId, TimeRange};
use promql::ast::{At, Expr, ExprKind, Extended, Modifiers, Selector};

/// The evaluation times of (a part of) an expression, ms, both included.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: i64,
    end: i64,
}

/// What one selector reads.
#[derive(Debug)]
pub(crate) struct Need<'a> {
    pub(crate) matchers: &'a [Matcher],
    pub(crate) range: TimeRange,
}

struct Walk<'a> {
    grid: StepGrid,
    end_ms: i64,
    lookback_ms: i64,
    subquery_step_ms: i64,
    needs: Vec<Need<'a>>,
}

/// What the selectors of `expr` read.
pub(crate) fn needs(
    expr: &Expr,
    grid: StepGrid,
    end_ms: i64,
    lookback_ms: i64,
    subquery_step_ms: i64,
) -> Vec<Need<'_>> {
    let mut walk = Walk { grid, end_ms, lookback_ms, subquery_step_ms, needs: Vec::new() };
    walk.expr(expr, Some(Window { start: grid.start, end: end_ms.max(grid.end()) }));
    walk.needs
}

/// The shards that hold any of `needs`, ascending, each once.
pub(crate) fn shards(reader: &dyn ShardReader, tenant: &TenantId, needs: &[Need<'_>]) -> Vec<ShardId> {
    let mut all: Vec<ShardId> =
        needs.iter().flat_map(|need| reader.shards(tenant, need.matchers, need.range)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The smallest range that holds the ranges of all `needs`.
pub(crate) fn hull(needs: &[Need<'_>]) -> TimeRange {
    let after = needs.iter().map(|n| n.range.after).min().unwrap_or(0);
    let until = needs.iter().map(|n| n.range.until).max().unwrap_or(0);
    TimeRange { after, until }
}

impl<'a> Walk<'a> {
    /// `None` as window means: not known, everything.
    fn expr(&mut self, expr: &'a Expr, window: Option<Window>) {
        match &expr.kind {
            ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::Bytes(_) => {}
            ExprKind::Selector(selector) => self.selector(selector, window, Some(0)),
            ExprKind::Matrix(matrix) => {
                let range = matrix.range_expr.is_none().then_some(matrix.range_ms);
                self.selector(&matrix.selector, window, range);
            }
            ExprKind::Subquery(subquery) => {
                let step = if subquery.step_ms == 0 { self.subquery_step_ms } else { subquery.step_ms };
                let known = subquery.range_expr.is_none() && subquery.step_expr.is_none();
                let inner = self.moved(window, &subquery.modifiers).filter(|_| known).map(|at| Window {
                    start: at.start.saturating_sub(subquery.range_ms).saturating_sub(step),
                    end: at.end,
                });
                self.expr(&subquery.expr, inner);
            }
            ExprKind::Call(call) => {
                for arg in &call.args {
                    self.expr(arg, window);
                }
                if call.function.name == "info" {
                    // Reads series that no selector of the text names.
                    self.needs.push(Need { matchers: &[], range: TimeRange::ALL });
                }
            }
            ExprKind::Aggregate(aggregate) => {
                self.expr(&aggregate.expr, window);
                if let Some(param) = &aggregate.param {
                    self.expr(param, window);
                }
            }
            ExprKind::Binary(binary) => {
                self.expr(&binary.lhs, window);
                self.expr(&binary.rhs, window);
            }
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => self.expr(inner, window),
        }
    }

    fn selector(&mut self, selector: &'a Selector, window: Option<Window>, range_ms: Option<i64>) {
        let range = match (self.moved(window, &selector.modifiers), range_ms) {
            (Some(at), Some(range_ms)) => {
                let back = range_ms.saturating_add(self.lookback_ms);
                let ahead = if selector.extended == Extended::None { 0 } else { self.lookback_ms };
                TimeRange {
                    after: at.start.saturating_sub(back).saturating_sub(1),
                    until: at.end.saturating_add(ahead),
                }
            }
            _ => TimeRange::ALL,
        };
        self.needs.push(Need { matchers: &selector.matchers, range });
    }

    fn moved(&self, window: Option<Window>, modifiers: &Modifiers) -> Option<Window> {
        if modifiers.offset_expr.is_some() {
            return None;
        }
        let base = match modifiers.at {
            None => window?,
            Some(At::Time(time)) => Window { start: time, end: time },
            Some(At::Start) => Window { start: self.grid.start, end: self.grid.start },
            Some(At::End) => Window { start: self.end_ms, end: self.end_ms },
        };
        let offset = modifiers.offset_ms;
        Some(Window { start: base.start.saturating_sub(offset), end: base.end.saturating_sub(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(i64, i64)]) {
        let expr = promql::parse(text, &promql::ParseOptions::default()).unwrap();
        let grid = StepGrid::range(1_000_000, 2_000_000, 10_000);
        let needs = needs(&expr, grid, 2_000_000, 300_000, 60_000);
        let found: Vec<(i64, i64)> = needs.iter().map(|n| (n.range.after + 1, n.range.until)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn the_ranges_hold_all_that_an_evaluation_reads() {
        check("up", &[(700_000, 2_000_000)]);
        check("rate(x[1m]) + up offset 1m", &[(640_000, 2_000_000), (640_000, 1_940_000)]);
        check("x @ 500", &[(200_000, 500_000)]);
        check("x @ end() offset -1m", &[(1_760_000, 2_060_000)]);
        check("max_over_time(x[10m:1m] offset 1m)", &[(-20_000, 1_940_000)]);
        check("1 + 2", &[]);
    }
}
