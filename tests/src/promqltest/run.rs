//! Carries out a script: every `eval`, and the re-runs that must give the same.

use std::sync::Arc;

use engine::histograms::is_reset;
use engine::{EvalContext, Features};
use model::histogram::ResetHint;
use model::seam::QueryBudget;
use model::seam::fake::MemorySource;
use model::{Histogram, StepGrid, TenantId};
use promql::ast::{At, Expr, ExprKind};
use promql::series::SeriesValue;
use promql::{ParseOptions, parse};
use regex::Regex;

use super::answer::{Answer, Number, Value};
use super::compare;
use super::script::{self, Command, Eval, Load};
use crate::spread::{Spread, local, same};

/// An `eval` that did not give what it should.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Line of the script.
    pub line: usize,
    /// The query, as it was run.
    pub query: String,
    /// What was wrong.
    pub message: String,
}

/// What became of the evals of a script.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many gave what they should, in every re-run.
    pub passed: usize,
    /// Those that did not.
    pub failures: Vec<Failure>,
    /// Those that the store cannot be asked: line and reason.
    pub skipped: Vec<(usize, String)>,
}

/// Where the series of a script are, and who answers its queries.
pub(super) trait Store {
    /// Forgets everything.
    fn clear(&mut self);
    /// Adds samples. The error is a failure of the store, not of the script.
    fn load(&mut self, load: &Load) -> Result<(), String>;
    /// The answer to an instant query (at `start`), or to a range query if there is a step. The outer error is that there
    /// is no answer.
    fn query(
        &mut self,
        text: &str,
        start: i64,
        end: i64,
        step: Option<i64>,
    ) -> Result<Result<Answer, String>, String>;
    /// Why a query that ends at the latest at `end` cannot be asked, if it cannot.
    fn refuses(&self, eval: &Eval) -> Option<String>;
}

/// How the queries of a script over series in memory are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Over all series at once.
    Local,
    /// Over all series at once, and by parts over this many shards in so many places: both must give the same bits.
    Spread {
        /// Shards.
        shards: usize,
        /// Places that the shards are in.
        places: usize,
    },
}

/// Runs the script `text` over series in memory. An error means that the script itself cannot be read.
pub fn run(text: &str, mode: Mode) -> Result<Outcome, String> {
    run_in(&mut Memory { source: MemorySource::new(), mode, spread: None }, text)
}

pub(super) fn run_in(store: &mut impl Store, text: &str) -> Result<Outcome, String> {
    store.clear();
    let mut outcome = Outcome::default();
    for command in script::parse(text)? {
        match command {
            Command::Clear => store.clear(),
            Command::Load(load) => store.load(&load)?,
            Command::Eval(eval) => {
                if let Some(reason) = store.refuses(&eval) {
                    outcome.skipped.push((eval.line, reason));
                    continue;
                }
                match run_eval(&eval, store) {
                    Ok(()) => outcome.passed += 1,
                    Err((query, message)) => {
                        outcome.failures.push(Failure { line: eval.line, query, message });
                    }
                }
            }
        }
    }
    Ok(outcome)
}

/// Series in memory, evaluated in this process.
struct Memory {
    source: MemorySource,
    mode: Mode,
    /// The same series spread, made when first asked for after a change.
    spread: Option<Spread>,
}

impl Store for Memory {
    fn clear(&mut self) {
        self.source = MemorySource::new();
        self.spread = None;
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        self.spread = None;
        for (labels, samples) in load.all()? {
            let mut stored = Stored::default();
            for (time, value, start) in samples {
                match value {
                    SeriesValue::Omitted => {}
                    SeriesValue::Float(value) => {
                        stored = Stored::default();
                        self.source.push_any(&labels, time, value, None, start);
                    }
                    SeriesValue::Histogram { histogram, .. } => {
                        let histogram = stored.next(&histogram);
                        self.source.push_any(&labels, time, 0.0, Some(histogram), start);
                    }
                }
            }
        }
        Ok(())
    }

    fn query(
        &mut self,
        text: &str,
        start: i64,
        end: i64,
        step: Option<i64>,
    ) -> Result<Result<Answer, String>, String> {
        let mut evaluated = || -> Result<Answer, String> {
            let expr = parse(text, &ParseOptions::ALL).map_err(|e| e.to_string())?;
            let grid =
                step.map_or_else(|| StepGrid::instant(start), |step| StepGrid::range(start, end, step));
            let ctx = EvalContext {
                end_ms: end,
                is_instant: step.is_none(),
                features: Features {
                    delayed_name_removal: true,
                    use_start_timestamps: true,
                    type_and_unit_labels: false,
                },
                ..EvalContext::instant(TenantId::anonymous(), start, QueryBudget::unlimited())
            };
            let answer = local(&expr, grid, &self.source, &ctx);
            if let Mode::Spread { shards, places } = self.mode {
                let spread = self.spread.get_or_insert_with(|| Spread::of(&self.source, shards, places));
                same(&answer, &spread.evaluate(&expr, grid, &ctx), text)
                    .map_err(|e| format!("by parts: {e}"))?;
            }
            let answer = answer?;
            let warnings = answer.annotations.warnings().map(|a| a.render(text)).collect();
            let infos = answer.annotations.infos().map(|a| a.render(text)).collect();
            Ok(Answer { value: answer.value.into(), warnings, infos })
        };
        Ok(evaluated())
    }

    fn refuses(&self, _: &Eval) -> Option<String> {
        None
    }
}

/// The hints that upstream's store gives to the histograms of a series: those that go on from the one before say so,
/// all others (the first, those after a reset or a change of layout) say nothing.
#[derive(Default)]
struct Stored {
    previous: Option<Histogram>,
}

impl Stored {
    fn next(&mut self, histogram: &Histogram) -> Arc<Histogram> {
        let mut h = histogram.clone();
        if h.is_stale() {
            self.previous = None;
            return Arc::new(h);
        }
        let layout = |h: &Histogram| (h.schema, h.zero_threshold.to_bits(), h.custom_values.clone());
        h.reset_hint = match (h.reset_hint, &self.previous) {
            (ResetHint::Gauge, _) => ResetHint::Gauge,
            (ResetHint::Reset, _) => ResetHint::Unknown,
            (_, Some(previous)) if previous.reset_hint != ResetHint::Gauge => {
                let reset = layout(&h) != layout(previous) || is_reset(&h, previous);
                if reset { ResetHint::Unknown } else { ResetHint::NotReset }
            }
            _ => ResetHint::Unknown,
        };
        self.previous = Some(h.clone());
        Arc::new(h)
    }
}

/// Checks an outcome against what is expected; the value when it is to be looked at further.
fn check(eval: &Eval, answered: Result<Answer, String>) -> Result<Option<Value>, String> {
    match (answered, &eval.fail) {
        (Err(error), Some(expected)) => compare::error(expected, &error).map(|()| None),
        (Err(error), None) => Err(format!("failed: {error}")),
        (Ok(_), Some(_)) => Err("expected an error but got none".into()),
        (Ok(answer), None) => {
            compare::annotations(eval, &answer.warnings, &answer.infos)?;
            compare::value(eval, &answer.value)?;
            Ok(Some(answer.value))
        }
    }
}

fn run_eval(eval: &Eval, store: &mut impl Store) -> Result<(), (String, String)> {
    if eval.range {
        let answered = store.query(&eval.expr, eval.start, eval.end, Some(eval.step));
        let checked = answered.and_then(|answered| check(eval, answered));
        return checked.map(|_| ()).map_err(|e| (eval.expr.clone(), e));
    }
    let mut queries = vec![(eval.expr.clone(), eval.at)];
    queries.extend(with_at(&eval.expr, eval.at).map_err(|e| (eval.expr.clone(), e))?);
    for (text, time) in queries {
        instant(eval, store, &text, time).map_err(|e| (format!("{text} at {time} ms"), e))?;
    }
    Ok(())
}

/// An instant query, and the same as the middle step of a range query.
fn instant(eval: &Eval, store: &mut impl Store, text: &str, time: i64) -> Result<(), String> {
    let Some(value) = check(eval, store.query(text, time, time, None)?)? else { return Ok(()) };
    let own_times = Regex::new(r"(start|end|range|step)\(\)").map_err(|e| e.to_string())?;
    if eval.only_instant || own_times.is_match(text) {
        return Ok(());
    }
    let range = store
        .query(text, time - 60_000, time + 60_000, Some(60_000))?
        .map_err(|e| format!("as a range query: failed: {e}"))?
        .value;
    if eval.ordered {
        return Ok(());
    }
    let Value::Matrix(series) = range else { return Err("as a range query: not a matrix".into()) };
    let mut samples = Vec::new();
    for row in series {
        let float = row.floats.iter().find(|(at, _)| *at == time).map(|(_, value)| Number::Float(*value));
        let histogram = row.histograms.into_iter().find(|(at, _)| *at == time);
        let histogram = histogram.map(|(_, found)| Number::Histogram(found));
        if let Some(number) = float.or(histogram) {
            samples.push((row.labels, number));
        }
    }
    let middle = match (&value, samples.first()) {
        (Value::Scalar(_), Some((_, Number::Float(value)))) => Value::Scalar(*value),
        _ => Value::Vector(samples),
    };
    compare::value(eval, &middle).map_err(|e| format!("as a range query: {e}"))
}

/// The query with `@ time` on all selectors, to be run at several times; none where the time of evaluation matters.
fn with_at(text: &str, time: i64) -> Result<Vec<(String, i64)>, String> {
    let mut expr = parse(text, &ParseOptions::ALL).map_err(|e| e.to_string())?;
    if pin(&mut expr, time) {
        return Ok(Vec::new());
    }
    let text = expr.to_string();
    let times = if time == 0 { vec![-1000, 0, 1000] } else { vec![-10 * time, 0, time / 5, time, 10 * time] };
    Ok(times.into_iter().map(|t| (text.clone(), t)).collect())
}

/// Pins all selectors to `time`; true when a function's result depends on the step all the same.
fn pin(expr: &mut Expr, time: i64) -> bool {
    let set = |at: &mut Option<At>| {
        if !matches!(at, Some(At::Time(_))) {
            *at = Some(At::Time(time));
        }
    };
    match &mut expr.kind {
        ExprKind::Selector(s) => set(&mut s.modifiers.at),
        ExprKind::Matrix(m) => set(&mut m.selector.modifiers.at),
        ExprKind::Subquery(s) => {
            // What is inside is evaluated relative to the pinned subquery.
            set(&mut s.modifiers.at);
            return false;
        }
        _ => {}
    }
    let unsafe_call = matches!(&expr.kind, ExprKind::Call(call) if matches!(
        call.function.name,
        "days_in_month" | "day_of_month" | "day_of_week" | "day_of_year" | "end" | "hour" | "minute" | "month"
            | "year" | "predict_linear" | "range" | "start" | "step" | "time" | "timestamp"
    ));
    expr.children_mut().into_iter().fold(unsafe_call, |found, child| pin(child, time) || found)
}
