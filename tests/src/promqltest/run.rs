//! Carries out a script: every `eval`, and the re-runs that must give the same.

use engine::{EvalContext, Features, Sample, SampleValue, Value};
use model::seam::QueryBudget;
use model::seam::fake::MemorySource;
use model::{StepGrid, TenantId};
use promql::ast::{At, Expr, ExprKind};
use promql::{ParseOptions, parse};
use regex::Regex;

use super::compare;
use super::script::{self, Command, Eval};
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
}

/// How the queries of a script are evaluated.
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

/// The series of a script, and the same spread.
struct Data {
    source: MemorySource,
    mode: Mode,
    spread: Option<Spread>,
}

impl Data {
    /// The spread series, made anew after a change.
    fn prepare(&mut self) {
        if let (Mode::Spread { shards, places }, None) = (self.mode, &self.spread) {
            self.spread = Some(Spread::of(&self.source, shards, places));
        }
    }
}

/// Runs the script `text`. An error means that the script itself cannot be read.
pub fn run(text: &str, mode: Mode) -> Result<Outcome, String> {
    let mut data = Data { source: MemorySource::new(), mode, spread: None };
    let mut outcome = Outcome::default();
    for command in script::parse(text)? {
        match command {
            Command::Clear => data = Data { source: MemorySource::new(), mode, spread: None },
            Command::Load(load) => {
                load.apply(&mut data.source)?;
                data.spread = None;
            }
            Command::Eval(eval) => {
                data.prepare();
                match run_eval(&eval, &data) {
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

/// The outcome of one query: its value, and its annotations as text (warnings, infos).
type Answered = Result<(Value, Vec<String>, Vec<String>), String>;

fn query(text: &str, data: &Data, start: i64, end: i64, step: Option<i64>) -> Answered {
    let expr = parse(text, &ParseOptions::ALL).map_err(|e| e.to_string())?;
    let grid = step.map_or_else(|| StepGrid::instant(start), |step| StepGrid::range(start, end, step));
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
    let answer = local(&expr, grid, &data.source, &ctx);
    if let Some(spread) = &data.spread {
        same(&answer, &spread.evaluate(&expr, grid, &ctx), text).map_err(|e| format!("by parts: {e}"))?;
    }
    let answer = answer?;
    let warnings = answer.annotations.warnings().map(|a| a.render(text)).collect();
    let infos = answer.annotations.infos().map(|a| a.render(text)).collect();
    Ok((answer.value, warnings, infos))
}

/// Checks an outcome against what is expected; the value when it is to be looked at further.
fn check(eval: &Eval, answered: Answered) -> Result<Option<Value>, String> {
    match (answered, &eval.fail) {
        (Err(error), Some(expected)) => compare::error(expected, &error).map(|()| None),
        (Err(error), None) => Err(format!("failed: {error}")),
        (Ok(_), Some(_)) => Err("expected an error but got none".into()),
        (Ok((value, warnings, infos)), None) => {
            compare::annotations(eval, &warnings, &infos)?;
            compare::value(eval, &value)?;
            Ok(Some(value))
        }
    }
}

fn run_eval(eval: &Eval, data: &Data) -> Result<(), (String, String)> {
    if eval.range {
        let answered = query(&eval.expr, data, eval.start, eval.end, Some(eval.step));
        return check(eval, answered).map(|_| ()).map_err(|e| (eval.expr.clone(), e));
    }
    let mut queries = vec![(eval.expr.clone(), eval.at)];
    queries.extend(with_at(&eval.expr, eval.at).map_err(|e| (eval.expr.clone(), e))?);
    for (text, time) in queries {
        instant(eval, data, &text, time).map_err(|e| (format!("{text} at {time} ms"), e))?;
    }
    Ok(())
}

/// An instant query, and the same as the middle step of a range query.
fn instant(eval: &Eval, data: &Data, text: &str, time: i64) -> Result<(), String> {
    let Some(value) = check(eval, query(text, data, time, time, None))? else { return Ok(()) };
    let own_times = Regex::new(r"(start|end|range|step)\(\)").map_err(|e| e.to_string())?;
    if eval.only_instant || own_times.is_match(text) {
        return Ok(());
    }
    let (range, _, _) = query(text, data, time - 60_000, time + 60_000, Some(60_000))
        .map_err(|e| format!("as a range query: failed: {e}"))?;
    if eval.ordered {
        return Ok(());
    }
    let Value::Matrix(series) = range else { return Err("as a range query: not a matrix".into()) };
    let mut samples = Vec::new();
    for s in series {
        let float = s.floats.iter().find(|p| p.timestamp == time).map(|p| SampleValue::Float(p.value));
        let histogram = s.histograms.iter().find(|p| p.timestamp == time);
        let histogram = histogram.map(|p| SampleValue::Histogram(p.histogram.clone()));
        if let Some(value) = float.or(histogram) {
            samples.push(Sample { labels: s.labels, timestamp: time, value });
        }
    }
    let middle = match (&value, samples.first().map(|s| &s.value)) {
        (Value::Scalar(point), Some(SampleValue::Float(value))) => {
            Value::Scalar(engine::Point { value: *value, ..*point })
        }
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
