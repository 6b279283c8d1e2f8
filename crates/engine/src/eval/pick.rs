//! Aggregations that pick series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use hashbrown::HashMap;
use model::Labels;
use promql::ast::{AggregateOp, Span};
use xxhash_rust::xxh64::xxh64;

use super::aggregate::Grouping;
use super::merge::without_name;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{ABSENT, Column, Columns, is_absent};
use crate::label_set::compare;
use crate::plan::Group;
use model::number::format_float_g as general;

/// Where a series stands between 0 and 1: upstream's hash of its labels.
fn ratio_of(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(labels.as_bytes().len() + 8);
    for (name, value) in labels {
        for part in [name, value] {
            match u8::try_from(part.len()) {
                Ok(len) if len < 255 => bytes.push(len),
                _ => {
                    bytes.push(255);
                    bytes.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
                }
            }
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    xxh64(&bytes, 0) as f64 / u64::MAX as f64
}

/// Orders values for `topk` (largest first) or `bottomk`; NaN comes last in both.
fn by_value(op: AggregateOp, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => {
            let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
            if op == AggregateOp::Topk { order.reverse() } else { order }
        }
    }
}

impl Evaluator<'_> {
    pub(super) fn pick(&self, group: &Group, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        self.pick_among(group, span, sink, || self.vector(&group.inner))
    }

    /// Picks among the columns that `candidates` gives. They are evaluated even when nothing is to be picked, since their
    /// errors and annotations are told then, too.
    pub(super) fn pick_among(
        &self,
        group: &Group,
        span: Span,
        sink: &mut Sink<'_>,
        candidates: impl FnOnce() -> Result<Columns, EvalError>,
    ) -> Result<(), EvalError> {
        let Some(param) = &group.param else {
            return Err(EvalError::Invalid("expected a parameter in aggregation".into()));
        };
        let params = self.scalar(param)?;
        let (low, high) = params.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let nan = params.iter().any(|v| v.is_nan());
        let mut columns = candidates()?;
        if group.op == AggregateOp::LimitRatio {
            if !nan && low == 0.0 && high == 0.0 {
                return Ok(());
            }
            if nan {
                return Err(EvalError::Execution("Ratio value is NaN".into()));
            }
            self.note(|notes| {
                if high > 1.0 {
                    notes.invalid_ratio(high, 1.0, param.span);
                }
                if low < -1.0 {
                    notes.invalid_ratio(low, -1.0, param.span);
                }
            });
        } else {
            if nan {
                return Err(EvalError::Execution("Parameter value is NaN".into()));
            }
            if high < 1.0 {
                return Ok(());
            }
            if low <= i64::MIN as f64 {
                return Err(EvalError::Execution(format!("Scalar value {} underflows int64", general(low))));
            }
            if high >= i64::MAX as f64 {
                return Err(EvalError::Execution(format!("Scalar value {} overflows int64", general(high))));
            }
        }
        // What is picked depends on labels; these are the ones without a name that was dropped, merged or not.
        if !self.delayed() {
            for column in columns.list.iter_mut().filter(|column| column.drop_name) {
                column.labels = without_name(&column.labels);
            }
        }
        columns.list.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        let groups = self.members(group, &columns.list);
        let mut kept: Vec<Option<Column>> = columns.list.iter().map(|_| None).collect();
        let mut order: Vec<usize> = Vec::new();
        for members in &groups {
            self.ctx.budget.check()?;
            match group.op {
                AggregateOp::LimitRatio => ratio(members, &params, &columns.list, &mut kept),
                AggregateOp::Limitk => limit(members, &params, &columns.list, &mut kept),
                _ => self.extremes(group.op, members, &params, &columns.list, &mut kept, &mut order, span),
            }
        }
        if order.is_empty() {
            order = (0..kept.len()).collect();
        }
        for at in order {
            if let Some(mut column) = kept[at].take() {
                sink(&mut column)?;
            }
        }
        Ok(())
    }

    /// The positions of the columns of each group, groups in the order of their labels.
    fn members(&self, group: &Group, columns: &[Column]) -> Vec<Vec<usize>> {
        let grouping = Grouping::of(group);
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut groups: Vec<(Labels, Vec<usize>)> = Vec::new();
        let mut key = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            grouping.key(&column.labels, self.delayed() || !column.drop_name, &mut key);
            let place = *places.entry_ref(key.as_slice()).or_insert_with(|| {
                // The key is made of pairs of canonical labels.
                groups.push((Labels::from_canonical(&key).unwrap_or_else(|_| Labels::empty()), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(at);
        }
        groups.sort_unstable_by(|a, b| compare(&a.0, &b.0));
        groups.into_iter().map(|(_, members)| members).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "one loop's state, named")]
    fn extremes(
        &self,
        op: AggregateOp,
        members: &[usize],
        params: &[f64],
        columns: &[Column],
        kept: &mut [Option<Column>],
        order: &mut Vec<usize>,
        span: Span,
    ) {
        if members.iter().any(|at| columns[*at].histograms.iter().any(Option::is_some)) {
            let name = if op == AggregateOp::Topk { "topk" } else { "bottomk" };
            self.note(|n| n.ignored_in_aggregation(name, span));
        }
        let mut here: Vec<usize> = Vec::with_capacity(members.len());
        for (step, k) in params.iter().enumerate() {
            // Checked to be within the range of an i64.
            let k = (*k as i64).clamp(0, members.len() as i64) as usize;
            here.clear();
            here.extend(members.iter().filter(|at| !is_absent(columns[**at].floats[step])));
            if k == 0 {
                continue;
            }
            // Equal values are told apart by their labels, which is the order of positions.
            let compare = |a: &usize, b: &usize| {
                by_value(op, columns[*a].floats[step], columns[*b].floats[step]).then(a.cmp(b))
            };
            if k < here.len() {
                here.select_nth_unstable_by(k - 1, compare);
                here.truncate(k);
            }
            if params.len() == 1 {
                here.sort_unstable_by(compare);
                order.extend_from_slice(&here);
            }
            for at in &here {
                keep(&mut kept[*at], &columns[*at], step);
            }
        }
    }
}

/// Copies what `from` has at `step`.
fn keep(kept: &mut Option<Column>, from: &Column, step: usize) {
    let column = kept.get_or_insert_with(|| Column {
        drop_name: from.drop_name,
        ..Column::absent(from.labels.clone(), from.floats.len())
    });
    if let Some(cell) = from.cell(step) {
        column.put(step, cell);
    }
}

fn limit(members: &[usize], params: &[f64], columns: &[Column], kept: &mut [Option<Column>]) {
    for (step, k) in params.iter().enumerate() {
        let k = (*k as i64).clamp(0, members.len() as i64) as usize;
        for at in members.iter().filter(|at| columns[**at].has(step)).take(k) {
            keep(&mut kept[*at], &columns[*at], step);
        }
    }
}

fn ratio(members: &[usize], params: &[f64], columns: &[Column], kept: &mut [Option<Column>]) {
    for at in members {
        let place = ratio_of(&columns[*at].labels);
        for (step, limit) in params.iter().enumerate().filter(|(step, _)| columns[*at].has(*step)) {
            let limit = limit.clamp(-1.0, 1.0);
            if (limit > 0.0 && place < limit) || (limit < 0.0 && place >= 1.0 + limit) {
                keep(&mut kept[*at], &columns[*at], step);
            }
        }
    }
    debug_assert!(is_absent(ABSENT), "columns made here begin absent");
}
