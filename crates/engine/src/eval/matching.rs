//! Vector matching: `on`, `ignoring`, `group_left`, `group_right`, `fill`, and the set operators.

use hashbrown::HashMap;
use model::{Labels, LabelsBuilder};
use promql::ast::{BinaryOp, Cardinality, Span, VectorMatching};

use super::cells::{Keep, changes_metric, floats, is_comparison};
use super::merge::{is_name, without_name};
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{ABSENT, Cell, Column, Columns};
use crate::label_set::{compare, labels_text, raw_pairs};
use crate::plan::Pair;

/// The columns of both sides that share a signature, by their positions.
#[derive(Debug, Default)]
struct Group {
    left: Vec<usize>,
    right: Vec<usize>,
}

/// What the labels say about which series match: the bytes of those that count.
fn signature(labels: &Labels, matching: &VectorMatching, bytes: &mut Vec<u8>) {
    bytes.clear();
    for (name, _, pair) in raw_pairs(labels) {
        if counts(name, matching) {
            bytes.extend_from_slice(pair);
        }
    }
}

/// Whether label `name` takes part in the match.
fn counts(name: &[u8], matching: &VectorMatching) -> bool {
    let listed = matching.labels.iter().any(|l| l.as_bytes() == name);
    if matching.on { listed } else { !listed && !is_name(name) }
}

fn matched_labels(labels: &Labels, matching: &VectorMatching) -> Labels {
    labels.filtered(|name| counts(name.as_bytes(), matching))
}

impl Evaluator<'_> {
    fn matches(&self, lhs: &Columns, rhs: &Columns, matching: &VectorMatching) -> Vec<Group> {
        let mut by_signature: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let mut bytes = Vec::new();
        let mut place = |column: &Column, groups: &mut Vec<Group>| {
            signature(&self.labels_of(column), matching, &mut bytes);
            if let Some(at) = by_signature.get(&bytes) {
                return *at;
            }
            by_signature.insert(bytes.clone(), groups.len());
            groups.push(Group::default());
            groups.len() - 1
        };
        for (at, column) in lhs.list.iter().enumerate() {
            let group = place(column, &mut groups);
            groups[group].left.push(at);
        }
        for (at, column) in rhs.list.iter().enumerate() {
            let group = place(column, &mut groups);
            groups[group].right.push(at);
        }
        groups
    }

    /// `and`, `or`, `unless`.
    pub(super) fn set_operation(
        &self,
        pair: &Pair,
        matching: &VectorMatching,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        let mut lhs = self.vector(&pair.lhs)?;
        let mut rhs = self.vector(&pair.rhs)?;
        let groups = self.matches(&lhs, &rhs, matching);
        let present = |columns: &Columns, at: &[usize]| {
            let mut any = vec![false; self.steps()];
            for column in at.iter().map(|at| &columns.list[*at]) {
                any.iter_mut().enumerate().for_each(|(step, any)| *any |= column.has(step));
            }
            any
        };
        let cut = |column: &mut Column, keep: &dyn Fn(usize) -> bool| {
            (0..column.floats.len()).filter(|step| !keep(*step)).for_each(|step| column.remove(step));
        };
        for group in &groups {
            if pair.op == BinaryOp::Or {
                let left = present(&lhs, &group.left);
                group.right.iter().for_each(|at| cut(&mut rhs.list[*at], &|step| !left[step]));
            } else {
                let right = present(&rhs, &group.right);
                let wanted = pair.op == BinaryOp::And;
                group.left.iter().for_each(|at| cut(&mut lhs.list[*at], &|step| right[step] == wanted));
            }
        }
        let mut all = lhs;
        all.list.retain(|column| !column.is_empty());
        if pair.op == BinaryOp::Or {
            for mut column in rhs.list.drain(..).filter(|column| !column.is_empty()) {
                if !self.delayed() {
                    column.labels = self.labels_of(&column).into_owned();
                }
                all.push(column)?;
            }
            if !self.delayed() {
                for column in &mut all.list {
                    column.labels = self.labels_of(column).into_owned();
                }
            }
            all = self.merge(all)?;
        }
        all.list.iter_mut().try_for_each(sink)
    }

    /// Arithmetic, comparison and trimming between two vectors.
    pub(super) fn vector_operation(
        &self,
        pair: &Pair,
        matching: &VectorMatching,
        span: Span,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        let mut lhs = self.vector(&pair.lhs)?;
        let mut rhs = self.vector(&pair.rhs)?;
        let mut joined = self.join(pair, matching, span, (&lhs, &rhs), false);
        if matches!(joined, Err(EvalError::Execution(_))) {
            // Which error is found first depends on the order of the series; the least of all of them does not.
            for side in [&mut lhs, &mut rhs] {
                side.list.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
            }
            joined = self.join(pair, matching, span, (&lhs, &rhs), true);
        }
        let mut out = self.merge(joined?)?;
        out.list.iter_mut().try_for_each(sink)
    }

    /// The results of all pairs that match. With `all_errors`, of several errors the one with the least text.
    fn join(
        &self,
        pair: &Pair,
        matching: &VectorMatching,
        span: Span,
        (lhs, rhs): (&Columns, &Columns),
        all_errors: bool,
    ) -> Result<Columns, EvalError> {
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let (fill_one, fill_many) = if swapped {
            (matching.fill_left, matching.fill_right)
        } else {
            (matching.fill_right, matching.fill_left)
        };
        let mut join = Join {
            eval: self,
            pair,
            matching,
            span,
            swapped,
            fill_one,
            fill_many,
            many,
            one,
            any_many: None,
            out: Columns::new(&self.ctx.budget),
        };
        let mut least: Option<String> = None;
        for group in self.matches(many, one, matching) {
            self.ctx.budget.check()?;
            match join.group(&group) {
                Err(EvalError::Execution(text)) if all_errors => {
                    least = Some(least.map_or(text.clone(), |least| least.min(text)));
                }
                other => other?,
            }
        }
        match least {
            Some(text) => Err(EvalError::Execution(text)),
            None => Ok(join.out),
        }
    }
}

/// A join in progress. `many` is the side of which several series may match one of the other.
struct Join<'j, 'e> {
    eval: &'j Evaluator<'e>,
    pair: &'j Pair,
    matching: &'j VectorMatching,
    span: Span,
    /// The left side is `one`.
    swapped: bool,
    fill_one: Option<f64>,
    fill_many: Option<f64>,
    many: &'j Columns,
    one: &'j Columns,
    /// Whether any series of `many` has something, by step.
    any_many: Option<Vec<bool>>,
    out: Columns,
}

impl Join<'_, '_> {
    fn group(&mut self, group: &Group) -> Result<(), EvalError> {
        if group.right.len() > 1 {
            self.check_one(&group.right)?;
        }
        let steps = self.eval.steps();
        let alone = group.left.len() == 1 && self.fill_one.is_none() && self.fill_many.is_none();
        // Steps at which something matched in this group, and by which results.
        let mut matched = vec![false; if alone { 0 } else { steps }];
        let mut results: Vec<(Labels, Vec<bool>)> = Vec::new();
        for left in &group.left {
            for right in &group.right {
                let (l, r) = (&self.many.list[*left], &self.one.list[*right]);
                let labels = self.result_labels(&self.eval.labels_of(l), &self.eval.labels_of(r));
                let (column, hits) = self.operate(l, r, labels, !alone);
                self.account(&mut matched, &mut results, &column, hits)?;
                self.keep(column)?;
            }
            if let Some(fill) = self.fill_one {
                let l = &self.many.list[*left];
                let labels = self.eval.labels_of(l);
                let mut other = Column::absent(matched_labels(&labels, self.matching), steps);
                let filled = |step: usize| !group.right.iter().any(|r| self.one.list[*r].has(step));
                (0..steps).filter(|step| filled(*step)).for_each(|step| other.floats[step] = fill);
                let result = self.result_labels(&labels, &other.labels);
                let (column, hits) = self.operate(l, &other, result, true);
                self.account(&mut matched, &mut results, &column, hits)?;
                self.keep(column)?;
            }
        }
        if let Some(fill) = self.fill_many {
            for right in &group.right {
                let r = &self.one.list[*right];
                let labels = self.eval.labels_of(r);
                let mut other = Column::absent(matched_labels(&labels, self.matching), steps);
                (0..steps).filter(|step| !matched[*step]).for_each(|step| other.floats[step] = fill);
                let result = self.result_labels(&other.labels, &labels);
                let (column, _) = self.operate(&other, r, result, false);
                self.keep(column)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, column: Column) -> Result<(), EvalError> {
        if !column.is_empty() {
            self.out.push(column)?;
        }
        Ok(())
    }

    /// Fails when two series of `one` with the same signature meet at a step at which there is anything to match.
    fn check_one(&mut self, right: &[usize]) -> Result<(), EvalError> {
        let many = self.many;
        let steps = self.eval.steps();
        let any_many = self.any_many.get_or_insert_with(|| {
            (0..steps).map(|step| many.list.iter().any(|column| column.has(step))).collect()
        });
        // Where only some of the series are seen, there may be one elsewhere.
        let fills = self.fill_one.is_some() || self.fill_many.is_some() || self.eval.is_part;
        for step in (0..steps).filter(|step| any_many[*step] || fills) {
            let mut here = right.iter().map(|at| &self.one.list[*at]).filter(|c| c.has(step));
            let (Some(first), Some(second)) = (here.next(), here.next()) else { continue };
            let group = labels_text(&matched_labels(&self.eval.labels_of(second), self.matching));
            let mut both = [first, second].map(|c| labels_text(&self.eval.labels_of(c)));
            both.sort();
            return Err(EvalError::Execution(format!(
                "found duplicate series for the match group {group} on the {} hand-side of the operation: [{}, {}]\
                 ;many-to-many matching not allowed: matching labels must be unique on one side",
                if self.swapped { "left" } else { "right" },
                both[0],
                both[1]
            )));
        }
        Ok(())
    }

    /// Notes at which steps a pair matched, and fails when that contradicts an earlier match of the group.
    fn account(
        &self,
        matched: &mut [bool],
        results: &mut Vec<(Labels, Vec<bool>)>,
        column: &Column,
        hits: Vec<bool>,
    ) -> Result<(), EvalError> {
        if hits.is_empty() {
            return Ok(());
        }
        let one_to_one = self.matching.cardinality == Cardinality::OneToOne;
        if one_to_one && matched.iter().zip(&hits).any(|(before, now)| *before && *now) {
            return Err(EvalError::Execution(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                    .into(),
            ));
        }
        matched.iter_mut().zip(&hits).for_each(|(all, now)| *all |= *now);
        if one_to_one {
            return Ok(());
        }
        match results.iter_mut().find(|(labels, _)| *labels == column.labels) {
            None => results.push((column.labels.clone(), hits)),
            Some((_, before)) => {
                if before.iter().zip(&hits).any(|(a, b)| *a && *b) {
                    return Err(EvalError::Execution(
                        "multiple matches for labels: grouping labels must ensure unique matches".into(),
                    ));
                }
                before.iter_mut().zip(&hits).for_each(|(all, now)| *all |= *now);
            }
        }
        Ok(())
    }

    /// The operation on two columns; also, when `trace`, the steps at which both sides had something and the
    /// operator was defined.
    fn operate(&self, many: &Column, one: &Column, labels: Labels, trace: bool) -> (Column, Vec<bool>) {
        let op = self.pair.op;
        let (l, r) = if self.swapped { (one, many) } else { (many, one) };
        let plain = l.histograms.is_empty() && r.histograms.is_empty();
        let mut column = Column { labels, drop_name: self.pair.return_bool, ..Column::default() };
        let mut hits = Vec::new();
        if plain && (changes_metric(op) || is_comparison(op)) {
            let keep = if self.pair.return_bool { Keep::Truth } else { Keep::Matching };
            column.floats.clone_from(&l.floats);
            floats(op, &mut column.floats, &r.floats, keep, false);
            if trace {
                hits = (0..l.floats.len()).map(|step| l.has(step) && r.has(step)).collect();
            }
            return (column, hits);
        }
        column.floats = vec![ABSENT; l.floats.len()];
        if trace {
            hits = vec![false; l.floats.len()];
        }
        for step in 0..l.floats.len() {
            let (Some(a), Some(b)) = (l.cell(step), r.cell(step)) else { continue };
            let Some(made) = self.eval.pair(op, &a, &b, self.span) else { continue };
            if let Some(hit) = hits.get_mut(step) {
                *hit = true;
            }
            if self.pair.return_bool {
                column.floats[step] = f64::from(u8::from(made.keep));
            } else if made.keep {
                match made.value {
                    Cell::Float(value) => column.floats[step] = value,
                    Cell::Histogram(h) => column.put_histogram(step, h),
                }
            }
        }
        (column, hits)
    }

    /// The labels of the result of a match.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let matching = self.matching;
        let drop_name = changes_metric(self.pair.op) || (self.pair.return_bool && !self.eval.delayed());
        let named = if drop_name { without_name(many) } else { many.clone() };
        let base = if matching.cardinality == Cardinality::OneToOne {
            named.filtered(|name| matching.labels.iter().any(|l| l == name) == matching.on)
        } else {
            named
        };
        if matching.include.is_empty() {
            return base;
        }
        let mut builder = LabelsBuilder::from_labels(&base);
        for name in &matching.include {
            builder.set(name, one.get(name).unwrap_or(""));
        }
        // Only an empty name could fail, and the parser allows none.
        builder.build().unwrap_or(base)
    }
}
