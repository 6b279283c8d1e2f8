//! What would be done for a query, without doing it: its closed form, its parts, and who would answer them.

use engine::EvalContext;
use engine::distribute::{PartKind, Plan, Push, plan};
use model::{Failure, StepGrid};
use promql::ast::Expr;
use serde_json::{Value, json};

use crate::error::QueryError;
use crate::fan_out::{Group, is_here};

/// The explanation as JSON, for a query over the shards of `groups`.
pub(crate) fn explain(
    expr: &Expr,
    grid: StepGrid,
    context: &EvalContext,
    groups: &[Group],
    overlapping: bool,
) -> Result<Value, QueryError> {
    let push = if overlapping { Push::Nothing } else { Push::Everything };
    let plan = plan(expr, grid, context, push).map_err(Failure::from)?;
    let place = |(node, shards): &Group| {
        json!({
            "node": node.map(|node| node.0),
            "shards": shards.iter().map(|shard| shard.0).collect::<Vec<_>>(),
        })
    };
    Ok(json!({
        "query": expr.to_string(),
        "root": plan.root(),
        "parts": parts(&plan),
        "places": groups.iter().map(place).collect::<Vec<_>>(),
        "shards": groups.iter().map(|(_, shards)| shards.len()).sum::<usize>(),
        "overlapping": overlapping,
        // Over this node alone nothing has to be split: one evaluation reads the shards as one source.
        "distributed": !is_here(groups),
    }))
}

fn parts(plan: &Plan) -> Vec<Value> {
    let part = |(at, part): (usize, &engine::distribute::Part)| {
        let grid = part.grid();
        let mut shown = json!({
            "name": format!("part_{at}"),
            "kind": part.kind().as_str(),
            "query": part.text(),
            "start": grid.start,
            "end": grid.end(),
            "step": grid.step,
            "steps": grid.count,
        });
        if part.kind() == PartKind::Series {
            let range = part.range();
            shown["samples_after"] = range.after.into();
            shown["samples_until"] = range.until.into();
        }
        shown
    };
    plan.parts().iter().enumerate().map(part).collect()
}
