//! Aggregations that give one series a group: columns are added to their group's accumulators (`groups.rs`) as they
//! come.

use model::Labels;
use promql::ast::{AggregateOp, Span};

use super::merge::is_name;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::groups::{Groups, Site};
use crate::label_set::raw_pairs;
use crate::plan::Group;

/// Which labels make a group.
pub(super) struct Grouping<'g> {
    pub(super) labels: &'g [String],
    pub(super) without: bool,
}

impl<'g> Grouping<'g> {
    pub(super) fn of(group: &'g Group) -> Self {
        Self { labels: &group.labels, without: group.without }
    }

    fn keeps(&self, name: &[u8], named: bool) -> bool {
        let listed = self.labels.iter().any(|l| l.as_bytes() == name);
        if self.without { !listed && !is_name(name) } else { listed && (named || !is_name(name)) }
    }

    /// The key of a series' group: the canonical bytes of its labels. `named`: the series still has its name.
    pub(super) fn key(&self, labels: &Labels, named: bool, bytes: &mut Vec<u8>) {
        bytes.clear();
        if !self.without && self.labels.is_empty() {
            return;
        }
        for (name, _, pair) in raw_pairs(labels) {
            if self.keeps(name, named) {
                bytes.extend_from_slice(pair);
            }
        }
    }
}

impl Evaluator<'_> {
    /// The columns of an aggregation.
    pub(super) fn aggregate(&self, group: &Group, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        match group.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                self.pick(group, span, sink)
            }
            AggregateOp::CountValues => {
                let groups = self.count_values(group)?;
                self.finish(group, groups, sink)
            }
            _ => {
                let groups = self.blend(group)?;
                self.finish(group, groups, sink)
            }
        }
    }

    /// The accumulators of an aggregation that has any: what a part of the data gives of it.
    pub(crate) fn groups(&self, group: &Group) -> Result<Groups, EvalError> {
        if group.op == AggregateOp::CountValues { self.count_values(group) } else { self.blend(group) }
    }

    fn blend(&self, group: &Group) -> Result<Groups, EvalError> {
        let grouping = Grouping::of(group);
        let mut groups = Groups::new(group.op, self.steps(), &self.ctx.budget);
        let site = Site { span: group.inner.span };
        let mut key = Vec::new();
        self.stream(&group.inner, &mut |column| {
            let named = self.delayed() || !column.drop_name;
            grouping.key(&column.labels, named, &mut key);
            let name = if named { column.labels.metric_name() } else { "" };
            groups.add(&key, column, name, site, &mut self.notes.borrow_mut())
        })?;
        Ok(groups)
    }

    /// The columns of an aggregation whose accumulators are complete.
    pub(crate) fn finish(&self, group: &Group, groups: Groups, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let quantiles = match (&group.param, group.op) {
            (Some(param), AggregateOp::Quantile) => {
                let values = self.scalar(param)?;
                self.note_quantiles(&values, param.span);
                values
            }
            _ => Vec::new(),
        };
        let site = Site { span: group.inner.span };
        let columns = groups.finish(&quantiles, site, &mut self.notes.borrow_mut());
        for mut column in columns {
            if !column.is_empty() {
                sink(&mut column)?;
            }
        }
        Ok(())
    }

    fn note_quantiles(&self, values: &[f64], span: Span) {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        self.note(|notes| {
            if values.iter().any(|v| v.is_nan()) {
                notes.invalid_quantile(f64::NAN, span);
            }
            if high > 1.0 {
                notes.invalid_quantile(high, span);
            }
            if low < 0.0 {
                notes.invalid_quantile(low, span);
            }
        });
    }
}
