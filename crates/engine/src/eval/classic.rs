//! `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`: over classic histograms (series with `le`) and
//! native ones alike.

use std::cmp::Ordering;

use hashbrown::HashMap;
use model::number::{format_float_g, parse_float};
use model::{Labels, LabelsBuilder};
use promql::ast::Span;

use super::sorting::text;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{Column, Columns};
use crate::label_set::compare;
use crate::plan::{Call, Node};
use crate::quantile::{
    ClassicBucket, NanNote, fraction_of_classic, fraction_of_native, of_classic, of_native,
};

/// The series that make one histogram.
#[derive(Debug)]
struct Family {
    labels: Labels,
    /// (upper bound, position of the column), ascending.
    buckets: Vec<(f64, usize)>,
    /// Column with native histograms under the same labels.
    native: Option<usize>,
}

/// What is asked of each histogram.
enum Question {
    /// The quantile, by step.
    Quantile(Vec<f64>),
    /// The fraction between two values, by step.
    Fraction(Vec<f64>, Vec<f64>),
}

/// A question, and the label that its answers get.
type Asked = (Option<(String, String)>, Question);

impl Evaluator<'_> {
    pub(super) fn histogram_quantile(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [quantile, vector] = call.args.as_slice() else { return few(call) };
        let values = self.scalar(quantile)?;
        self.note_each_quantile(&values, quantile.span);
        self.of_histograms(vector, &[(None, Question::Quantile(values))], sink)
    }

    pub(super) fn histogram_quantiles(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [vector, label, quantiles @ ..] = call.args.as_slice() else { return few(call) };
        let Some(label) = text(label) else { return few(call) };
        let mut questions = Vec::new();
        for quantile in quantiles {
            let values = self.scalar(quantile)?;
            self.note_each_quantile(&values, quantile.span);
            // A quantile that changes from step to step makes a series for each of its values.
            let mut distinct: Vec<f64> = values.clone();
            distinct.sort_unstable_by(f64::total_cmp);
            distinct.dedup_by(|a, b| a.to_bits() == b.to_bits());
            for value in distinct {
                let only = |v: &f64| if v.to_bits() == value.to_bits() { *v } else { f64::from_bits(SKIP) };
                let steps = values.iter().map(only).collect();
                questions.push((Some((label.to_owned(), open_metrics(value))), Question::Quantile(steps)));
            }
        }
        self.of_histograms(vector, &questions, sink)
    }

    pub(super) fn histogram_fraction(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [lower, upper, vector] = call.args.as_slice() else { return few(call) };
        let question = Question::Fraction(self.scalar(lower)?, self.scalar(upper)?);
        self.of_histograms(vector, &[(None, question)], sink)
    }

    fn note_each_quantile(&self, values: &[f64], span: Span) {
        for value in values.iter().filter(|q| q.is_nan() || !(0.0..=1.0).contains(*q)) {
            self.note(|n| n.invalid_quantile(*value, span));
        }
    }

    fn of_histograms(
        &self,
        vector: &Node,
        questions: &[Asked],
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        self.merging(vector, sink, |sink| {
            let columns = self.vector(vector)?;
            let families = self.families(&columns, vector.span);
            let mut buckets = Vec::new();
            let conflicts: Vec<Vec<bool>> =
                families.iter().map(|family| self.conflicts(family, &columns, vector.span)).collect();
            for (label, question) in questions {
                for (family, conflicts) in families.iter().zip(&conflicts) {
                    self.ctx.budget.check()?;
                    let mut labels = family.labels.clone();
                    if let Some((name, value)) = label {
                        let mut builder = LabelsBuilder::from_labels(&labels);
                        builder.set(name, value);
                        labels = builder.build().map_err(|e| EvalError::Execution(e.to_string()))?;
                    }
                    let mut column = Column::absent(labels, self.steps());
                    column.drop_name = true;
                    for step in (0..self.steps()).filter(|step| !conflicts[*step]) {
                        self.answer_step(
                            family,
                            &columns,
                            question,
                            step,
                            &mut buckets,
                            vector.span,
                            &mut column,
                        );
                    }
                    if !column.is_empty() {
                        sink(&mut column)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn families(&self, columns: &Columns, span: Span) -> Vec<Family> {
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut families: Vec<Family> = Vec::new();
        let mut family = |labels: Labels, families: &mut Vec<Family>| {
            *places.entry(labels.clone()).or_insert_with(|| {
                families.push(Family { labels, buckets: Vec::new(), native: None });
                families.len() - 1
            })
        };
        for (at, column) in columns.list.iter().enumerate() {
            let labels = self.labels_of(column);
            if column.histograms.iter().any(Option::is_some) {
                let place = family(labels.clone().into_owned(), &mut families);
                let known = families[place].native;
                families[place].native = Some(known.map_or(at, |known| later(columns, known, at)));
            }
            if column.floats.iter().all(|v| crate::column::is_absent(*v)) {
                continue;
            }
            let le = labels.get("le").unwrap_or("");
            match parse_float(le) {
                Ok(upper) if !upper.is_nan() => {
                    let place = family(labels.without("le"), &mut families);
                    families[place].buckets.push((upper, at));
                }
                _ => {
                    let name = if self.delayed() { labels.metric_name() } else { "" };
                    self.note(|n| n.bad_bucket_label(name, le, span));
                }
            }
        }
        for family in &mut families {
            // Buckets with the same bound are told apart by their labels: the order in which they came has no meaning.
            family.buckets.sort_by(|a, b| {
                let labels = || compare(&columns.list[a.1].labels, &columns.list[b.1].labels);
                a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then_with(labels)
            });
        }
        families
    }

    /// The steps at which a family has classic buckets and a native histogram: neither counts.
    fn conflicts(&self, family: &Family, columns: &Columns, span: Span) -> Vec<bool> {
        let mut steps = vec![false; self.steps()];
        let Some(native) = family.native.filter(|_| !family.buckets.is_empty()) else { return steps };
        for (step, conflict) in steps.iter_mut().enumerate() {
            let classic = family
                .buckets
                .iter()
                .any(|(_, at)| !crate::column::is_absent(columns.list[*at].floats[step]));
            if classic && columns.list[native].histogram(step).is_some() {
                let name = if self.delayed() { family.labels.metric_name() } else { "" };
                self.note(|n| n.mixed_classic_native(name, span));
                *conflict = true;
            }
        }
        steps
    }

    #[allow(clippy::too_many_arguments, reason = "one loop's state, named")]
    fn answer_step(
        &self,
        family: &Family,
        columns: &Columns,
        question: &Question,
        step: usize,
        buckets: &mut Vec<ClassicBucket>,
        span: Span,
        out: &mut Column,
    ) {
        let name = if self.delayed() { family.labels.metric_name() } else { "" };
        if let Some(h) = family.native.and_then(|at| columns.list[at].histogram(step)) {
            let (value, note) = match question {
                Question::Quantile(q) if q[step].to_bits() == SKIP => return,
                Question::Quantile(q) => of_native(q[step], h),
                Question::Fraction(lower, upper) => fraction_of_native(lower[step], upper[step], h),
            };
            match (note, question) {
                (NanNote::None, _) => {}
                (NanNote::Result, _) => self.note(|n| n.quantile_nan_result(name, span)),
                (NanNote::Skew, Question::Quantile(_)) => self.note(|n| n.quantile_nan_skew(name, span)),
                (NanNote::Skew, Question::Fraction(..)) => self.note(|n| n.fraction_nans(name, span)),
            }
            out.floats[step] = value;
            return;
        }
        buckets.clear();
        for (upper, at) in &family.buckets {
            let count = columns.list[*at].floats[step];
            if !crate::column::is_absent(count) {
                buckets.push(ClassicBucket { upper: *upper, count });
            }
        }
        if buckets.is_empty() {
            return;
        }
        out.floats[step] = match question {
            Question::Quantile(q) if q[step].to_bits() == SKIP => return,
            Question::Quantile(q) => {
                let (value, forced) = of_classic(q[step], buckets);
                if let Some(forced) = forced {
                    self.note(|n| n.forced_monotonicity(name, self.grid.at(step), forced, span));
                }
                value
            }
            Question::Fraction(lower, upper) => fraction_of_classic(lower[step], upper[step], buckets),
        };
    }
}

/// The one of two columns that comes later in the order of labels.
fn later(columns: &Columns, a: usize, b: usize) -> usize {
    if compare(&columns.list[a].labels, &columns.list[b].labels).is_gt() { a } else { b }
}

/// In place of a quantile that is not asked for at a step.
const SKIP: u64 = model::STALE_NAN_BITS;

/// A float as OpenMetrics writes it in labels: always with a point or an exponent.
fn open_metrics(value: f64) -> String {
    let text = format_float_g(value);
    if value.is_finite() && !text.contains(['.', 'e']) { format!("{text}.0") } else { text }
}

fn few(call: &Call) -> Result<(), EvalError> {
    Err(EvalError::Invalid(format!("unexpected arguments in call to function {:?}", call.name)))
}
