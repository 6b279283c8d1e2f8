//! Evaluation of a fragment's parts, over the series of one place.

use std::cell::RefCell;

use model::seam::{SelectRequest, SeriesData, SeriesSource};
use model::{Code, Failure};

use super::partial::{Answered, Partial};
use super::{Part, PartKind, nothing_found};
use crate::annotations::Annotations;
use crate::column::Charge;
use crate::eval::{Evaluator, Found, heeding_types};
use crate::plan::Kind;
use crate::steps::StepCounts;
use crate::{EvalContext, EvalError};

/// Evaluates `parts` over `source`. Of `ctx` it matters whose series, the lookback, the features, and the budget.
/// `order` tells the partials of several places apart when they may hold samples of the same series: of two samples of
/// a series at the same time, that of the lowest order stays.
///
/// # Errors
/// When the source or the budget fail, or the parts are none. An error of evaluation is no error here but a partial
/// that says so.
pub fn run(
    parts: &[Part],
    source: &dyn SeriesSource,
    ctx: &EvalContext,
    order: u32,
) -> Result<Partial, Failure> {
    let before = ctx.budget.samples();
    let mut partial = Partial::empty();
    for part in parts {
        let notes = RefCell::new(Annotations::default());
        match one(part, source, ctx, order, &notes) {
            Ok(found) => partial.push(found, notes.into_inner()),
            Err(EvalError::Source(failure)) => return Err(failure),
            Err(error) => {
                partial.fail(error.to_string());
                break;
            }
        }
    }
    partial.count(ctx.budget.samples() - before, ctx.budget.peak_bytes());
    partial.count_steps(ctx.steps.as_deref().map(StepCounts::counts).unwrap_or_default());
    Ok(partial)
}

fn one(
    part: &Part,
    source: &dyn SeriesSource,
    ctx: &EvalContext,
    order: u32,
    notes: &RefCell<Annotations>,
) -> Result<Answered, EvalError> {
    let invalid = |what: String| {
        let text = format!("a part of a query cannot be read: {what}: {}", part.text.text);
        EvalError::Source(Failure::new(Code::Invalid, text))
    };
    if part.kind == PartKind::Series {
        return series(part, source, ctx, order, invalid);
    }
    let node = part.text.open().map_err(invalid)?;
    let found = nothing_found();
    heeding_types(notes, |types| {
        let evaluator =
            Evaluator { source, ctx, notes, grid: part.grid, found: &found, is_part: true, types };
        if part.kind == PartKind::Columns {
            return Ok(Answered::Found(Found::Columns(evaluator.vector(&node)?)));
        }
        match &node.kind {
            Kind::Aggregate(group) => {
                evaluator.admit()?;
                Ok(Answered::Found(Found::Groups(evaluator.groups(group)?)))
            }
            _ => Err(invalid("it is no aggregation".into())),
        }
    })
}

fn series(
    part: &Part,
    source: &dyn SeriesSource,
    ctx: &EvalContext,
    order: u32,
    invalid: impl Fn(String) -> EvalError,
) -> Result<Answered, EvalError> {
    let matchers = promql::parse_selector(&part.text.text, &promql::ParseOptions::ALL)
        .map_err(|e| invalid(e.to_string()))?;
    let request =
        SelectRequest { tenant: ctx.tenant.clone(), matchers, range: part.range, budget: ctx.budget.clone() };
    let mut charge = Charge::new(&ctx.budget);
    let mut all = Vec::new();
    let mut iter = source.select(&request)?;
    let mut data = SeriesData::default();
    while iter.next_series(&mut data)? {
        ctx.budget.check()?;
        if !data.stamps.is_empty() {
            charge.take(super::partial::series_bytes(&data))?;
            all.push((order, std::mem::take(&mut data)));
        }
    }
    Ok(Answered::Series(all, charge))
}
