//! Queries over a few series: text in, text out; and range queries against the same queries step by step.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;
use std::sync::Arc;

use engine::{EvalContext, EvalError, Features, SampleValue, Value, evaluate};
use model::seam::QueryBudget;
use model::seam::fake::MemorySource;
use model::{Histogram, StepGrid, TenantId};
use promql::series::SeriesValue;
use promql::{ParseOptions, parse, parse_series};
use proptest::prelude::*;

/// Series as scripts write them, a sample a minute.
fn load(lines: &[&str]) -> MemorySource {
    let mut source = MemorySource::new();
    for line in lines {
        let series = parse_series(line, &ParseOptions::ALL).unwrap();
        let values = series.expand(&mut |a, b, s| Ok(engine::histograms::combine(a, b, s).unwrap())).unwrap();
        for (at, value) in values.into_iter().enumerate() {
            let time = at as i64 * 60_000;
            match value {
                SeriesValue::Omitted => {}
                SeriesValue::Float(value) => source.push(&series.labels, time, value),
                SeriesValue::Histogram { histogram, .. } => {
                    source.push_histogram(&series.labels, time, Arc::new(*histogram));
                }
            }
        }
    }
    source
}

fn context(grid: StepGrid, instant: bool) -> EvalContext {
    EvalContext {
        end_ms: grid.end(),
        is_instant: instant,
        ..EvalContext::instant(TenantId::anonymous(), grid.start, QueryBudget::unlimited())
    }
}

fn show_histogram(h: &Histogram) -> String {
    format!("{{count:{} sum:{}}}", h.count, h.sum)
}

/// A value as text: a line a series, labels then `time:value`.
fn show(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Scalar(p) => writeln!(out, "{}", p.value).unwrap(),
        Value::String(text, _) => writeln!(out, "{text:?}").unwrap(),
        Value::Vector(samples) => {
            for s in samples {
                match &s.value {
                    SampleValue::Float(v) => writeln!(out, "{:?} {v}", s.labels).unwrap(),
                    SampleValue::Histogram(h) => {
                        writeln!(out, "{:?} {}", s.labels, show_histogram(h)).unwrap()
                    }
                }
            }
        }
        Value::Matrix(series) => {
            for s in series {
                write!(out, "{:?}", s.labels).unwrap();
                for p in &s.floats {
                    write!(out, " {}:{}", p.timestamp / 1000, p.value).unwrap();
                }
                for p in &s.histograms {
                    write!(out, " {}:{}", p.timestamp / 1000, show_histogram(&p.histogram)).unwrap();
                }
                out.push('\n');
            }
        }
    }
    out
}

fn ask(source: &MemorySource, query: &str, grid: StepGrid, ctx: &EvalContext) -> Result<Value, EvalError> {
    let expr = parse(query, &ParseOptions::ALL).unwrap_or_else(|e| panic!("{query}: {e}"));
    evaluate(&expr, grid, source, ctx).map(|answer| answer.value)
}

/// The instant answer at `minutes` (names dropped at once, as upstream does by default), or the error.
fn check(lines: &[&str], minutes: i64, query: &str, expected: &str) {
    let grid = StepGrid::instant(minutes * 60_000);
    let got = match ask(&load(lines), query, grid, &context(grid, true)) {
        Ok(value) => show(&value),
        Err(error) => format!("error: {error}\n"),
    };
    let expected: String = expected.lines().map(|l| format!("{}\n", l.trim())).collect();
    assert_eq!(got, expected, "{query}");
}

const TWO_NAMES: &[&str] = &["a{x=\"1\"} 0+1x10", "b{x=\"1\"} 0+2x10", "b{x=\"2\"} _ 5"];

#[test]
fn names_dropped_at_once_collide_where_samples_meet() {
    check(TWO_NAMES, 5, "abs({x=\"1\"})", "error: vector cannot contain metrics with the same labelset");
    check(TWO_NAMES, 5, "rate({x=\"1\"}[5m])", "error: vector cannot contain metrics with the same labelset");
    check(TWO_NAMES, 5, "-{x=\"1\"}", "error: vector cannot contain metrics with the same labelset");
    check(TWO_NAMES, 5, "rate(a[5m])", "{\"x\": \"1\"} 0.016666666666666666");
    check(TWO_NAMES, 5, "sum by (__name__) (abs(a))", "{} 5");
    check(TWO_NAMES, 5, "sum by (__name__) (a)", "{\"__name__\": \"a\"} 5");
    check(TWO_NAMES, 5, "a > 3", "{\"__name__\": \"a\", \"x\": \"1\"} 5");
    check(TWO_NAMES, 5, "a > bool 3", "{\"x\": \"1\"} 1");
    check(
        TWO_NAMES,
        5,
        "label_replace(abs(a), \"__name__\", \"c\", \"x\", \".*\")",
        "{\"__name__\": \"c\", \"x\": \"1\"} 5",
    );
}

#[test]
fn names_dropped_late_may_be_read_before() {
    let grid = StepGrid::instant(300_000);
    let ctx = EvalContext {
        features: Features { delayed_name_removal: true, ..Features::default() },
        ..context(grid, true)
    };
    let source = load(TWO_NAMES);
    let query = "sum by (__name__) (abs({x=\"1\"}))";
    // The label is an input of the grouping, and dropped at the end like any name.
    let error = ask(&source, query, grid, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset");
    let query = "label_replace(abs({x=\"1\"}), \"y\", \"$1\", \"__name__\", \"(.*)\")";
    assert_eq!(
        show(&ask(&source, query, grid, &ctx).unwrap()),
        "{\"x\": \"1\", \"y\": \"a\"} 5\n{\"x\": \"1\", \"y\": \"b\"} 10\n"
    );
}

#[test]
fn kinds_of_answers() {
    check(TWO_NAMES, 5, "1 + 2 * 3", "7");
    check(TWO_NAMES, 5, "\"x\"", "\"x\"");
    check(TWO_NAMES, 3, "a[2m]", "{\"__name__\": \"a\", \"x\": \"1\"} 120:2 180:3");
    check(
        TWO_NAMES,
        3,
        "sort_desc(b)",
        "{\"__name__\": \"b\", \"x\": \"1\"} 6\n{\"__name__\": \"b\", \"x\": \"2\"} 5",
    );
    check(TWO_NAMES, 3, "topk(1, {x=~\".+\"})", "{\"__name__\": \"b\", \"x\": \"1\"} 6");
    check(TWO_NAMES, 3, "scalar(b)", "NaN");
    check(TWO_NAMES, 3, "absent(nothing{x=\"1\", y=~\"2\"})", "{\"x\": \"1\"} 1");
    let range = StepGrid::range(0, 60_000, 60_000);
    let error = ask(&load(TWO_NAMES), "a[5m]", range, &context(range, false)).unwrap_err();
    assert!(matches!(error, EvalError::Invalid(_)), "{error}");
}

/// Series of one name that differ in their type alone are the same without it, whether or not the feature is on: an error
/// where they meet in time, one series where they do not.
#[test]
fn series_that_differ_in_their_types_alone_become_one() {
    let meeting = ["a_total 1 2 3 4", r#"a_total{__type__="counter"} 5 6 7 8"#, r#"a_total{x="1"} 1 2 3 4"#];
    let following = ["a_total 1 2 3 4", r#"a_total{__type__="counter"} _ _ _ _ _ _ 5 6 7 8"#];
    let grid = StepGrid::instant(180_000);
    for type_and_unit_labels in [false, true] {
        let ctx = EvalContext {
            features: Features { type_and_unit_labels, ..Features::default() },
            ..context(grid, true)
        };
        for query in
            ["rate(a_total[5m])", "sum(rate(a_total[5m]))", "count(-a_total)", "sum by (x) (abs(a_total))"]
        {
            let error = ask(&load(&meeting), query, grid, &ctx).unwrap_err();
            assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset", "{query}");
        }
        let range = StepGrid::range(0, 600_000, 60_000);
        let ctx = EvalContext { features: ctx.features, ..context(range, false) };
        let joined = ask(&load(&following), "count(increase(a_total[2m]))", range, &ctx).unwrap();
        assert_eq!(show(&joined), "{} 60:1 120:1 180:1 420:1 480:1 540:1\n");
    }
}

#[test]
fn budgets_stop_queries() {
    let source = load(TWO_NAMES);
    let grid = StepGrid::range(0, 600_000, 1000);
    let small = EvalContext { budget: QueryBudget::new(1000), ..context(grid, false) };
    let error = ask(&source, "a + on (x) group_left () a", grid, &small).unwrap_err();
    assert!(matches!(&error, EvalError::Source(f) if f.code == model::Code::TooMany), "{error}");
    let endless = "count_over_time(a[100y:1ms])";
    let error =
        ask(&source, endless, StepGrid::instant(0), &context(StepGrid::instant(0), true)).unwrap_err();
    assert!(error.to_string().contains("steps, the limit is"), "{error}");
    let ctx = context(grid, false);
    ctx.budget.cancel();
    let error = ask(&source, "a", grid, &ctx).unwrap_err();
    assert!(matches!(&error, EvalError::Source(f) if f.code == model::Code::Cancelled), "{error}");
    let ctx = context(grid, false);
    ask(&source, "sum(rate(a[5m])) / count(b)", grid, &ctx).unwrap();
    assert!(ctx.budget.peak_bytes() > 0);
}

#[test]
fn depth_is_bounded() {
    let deep = "abs(".repeat(190) + "a" + &")".repeat(190);
    check(TWO_NAMES, 5, &deep, "{\"x\": \"1\"} 5");
    let long = vec!["1"; 900].join(" + ");
    check(TWO_NAMES, 5, &long, "900");
    let wide = vec!["a"; 500].join(" or ");
    check(TWO_NAMES, 5, &wide, "{\"__name__\": \"a\", \"x\": \"1\"} 5");
}

/// Queries whose range answers must be those of instant queries at every step.
const QUERIES: &[&str] = &[
    "m",
    "m offset 90s",
    "rate(m[5m])",
    "increase(m[3m30s])",
    "delta(m[4m])",
    "irate(m[5m])",
    "idelta(m[5m])",
    "sum_over_time(m[4m])",
    "avg_over_time(m[4m])",
    "min_over_time(m[4m])",
    "max_over_time(m[4m])",
    "last_over_time(m[2m])",
    "first_over_time(m[2m])",
    "count_over_time(m[4m])",
    "stddev_over_time(m[4m])",
    "quantile_over_time(0.7, m[6m])",
    "changes(m[6m])",
    "resets(m[6m])",
    "deriv(m[5m])",
    "predict_linear(m[5m], 60)",
    "rate(m[4m] anchored)",
    "increase(m[4m] smoothed)",
    "m smoothed",
    "timestamp(m)",
    "max_over_time(rate(m[3m])[5m:1m])",
    "sum(m)",
    "sum by (g) (rate(m[5m]))",
    "avg without (i) (m)",
    "stddev(m)",
    "quantile(0.3, m)",
    "count by (g) (m)",
    "min(m) or max(m)",
    "topk(2, m)",
    "bottomk by (g) (1, m)",
    "limitk(2, m)",
    "count_values(\"v\", m)",
    "m > on (i, g) m offset 1m",
    "m - ignoring (i) group_left () sum by (g) (m)",
    "m and on (g) (m > 3)",
    "m unless m > 3",
    "histogram_quantile(0.5, m)",
    "histogram_quantile(0.5, sum by (i, le) (label_replace(m, \"le\", \"$1\", \"g\", \"(.*)\")))",
    "clamp(m, 1, 3) + time()",
    "absent(m > 4)",
    "absent_over_time(m[1m])",
    "scalar(topk(1, m))",
    "m @ 300 + m",
    "label_join(m, \"j\", \"-\", \"g\", \"i\")",
];

/// Series of random samples: gaps, drops, NaN, infinities, staleness markers.
fn data() -> impl Strategy<Value = Vec<Vec<(u8, i64, f64)>>> {
    let sample = (0u8..12, 1i64..90, (0i64..8).prop_map(|v| v as f64 / 2.0));
    prop::collection::vec(prop::collection::vec(sample, 0..25), 1..5)
}

fn source_of(all: &[Vec<(u8, i64, f64)>]) -> MemorySource {
    let mut source = MemorySource::new();
    for (at, samples) in all.iter().enumerate() {
        let group = if at % 2 == 0 { "1" } else { "+Inf" };
        let labels = [("__name__", "m"), ("i", &at.to_string()), ("g", group)];
        let labels = model::Labels::from_pairs(labels).unwrap();
        let mut time = 0;
        for (kind, gap, value) in samples {
            time += gap * 1000 + 7;
            let value = match kind {
                0 => f64::NAN,
                1 => f64::INFINITY,
                2 => model::stale_nan(),
                _ => *value,
            };
            source.push(&labels, time, value);
        }
    }
    source
}

/// The samples of an answer at `time`, by labels, with their bits; errors as text.
fn at_time(answer: Result<Value, EvalError>, time: i64) -> Result<Vec<(String, u64)>, String> {
    let bits = |v: f64| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    let mut all = match answer.map_err(|e| e.to_string())? {
        Value::Scalar(p) => vec![(String::from("{}"), bits(p.value))],
        Value::String(..) => Vec::new(),
        Value::Vector(samples) => samples
            .iter()
            .filter_map(|s| match &s.value {
                SampleValue::Float(v) => Some((format!("{:?}", s.labels), bits(*v))),
                SampleValue::Histogram(_) => None,
            })
            .collect(),
        Value::Matrix(series) => series
            .iter()
            .filter_map(|s| {
                let p = s.floats.iter().find(|p| p.timestamp == time)?;
                Some((format!("{:?}", s.labels), bits(p.value)))
            })
            .collect(),
    };
    all.sort();
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_range_query_is_its_steps(
        all in data(),
        query in prop::sample::select(QUERIES),
        start in 0i64..900,
        step in 1i64..200,
        delayed in any::<bool>(),
    ) {
        let source = source_of(&all);
        let grid = StepGrid { start: start * 1000, step: step * 1000, count: 8 };
        let features = Features { delayed_name_removal: delayed, ..Features::default() };
        let ctx = EvalContext { features, ..context(grid, false) };
        let range = ask(&source, query, grid, &ctx);
        let steps: Vec<_> = (0..grid.count).map(|at| {
            let grid = StepGrid::instant(grid.at(at));
            let ctx = EvalContext { features, ..context(grid, true) };
            ask(&source, query, grid, &ctx)
        }).collect();
        match range {
            Err(error) => prop_assert!(steps.iter().any(Result::is_err), "{query}: {error}"),
            Ok(value) => {
                for (at, answer) in steps.into_iter().enumerate() {
                    let time = grid.at(at);
                    let instant = at_time(answer, time);
                    prop_assert_eq!(at_time(Ok(value.clone()), time), instant, "{} at {}", query, time);
                }
            }
        }
    }
}
