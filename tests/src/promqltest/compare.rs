//! Whether an answer is what an `eval` expects.

use model::{Histogram, Labels};
use promql::series::SeriesValue;

use super::answer::{self, Found, Number, Row, Value};
use super::script::{Eval, Expected, Text};

/// Relative difference allowed.
const EPSILON: f64 = 0.000_001;

/// Equal up to the allowed difference; NaNs are equal, staleness markers only to each other.
pub(super) fn almost(a: f64, b: f64) -> bool {
    if model::is_stale(a) || model::is_stale(b) {
        return model::is_stale(a) && model::is_stale(b);
    }
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}

fn same_histogram(expected: &Histogram, actual: &Found, with_hint: bool) -> bool {
    let actual = match actual {
        Found::Whole(actual) => actual,
        Found::Shown(actual) => {
            let expected = answer::shown(&engine::histograms::compacted(expected));
            let same = |e: &(u8, f64, f64, f64), a: &(u8, f64, f64, f64)| {
                e.0 == a.0 && almost(e.1, a.1) && almost(e.2, a.2) && almost(e.3, a.3)
            };
            return almost(expected.count, actual.count)
                && almost(expected.sum, actual.sum)
                && expected.buckets.len() == actual.buckets.len()
                && expected.buckets.iter().zip(&actual.buckets).all(|(e, a)| same(e, a));
        }
    };
    let (e, a) = (engine::histograms::compacted(expected), engine::histograms::compacted(actual));
    let all = |x: &[f64], y: &[f64]| x.len() == y.len() && x.iter().zip(y).all(|(x, y)| almost(*x, *y));
    let bounds = |h: &Histogram| h.custom_values.as_deref().unwrap_or(&[]).to_vec();
    e.schema == a.schema
        && almost(e.count, a.count)
        && almost(e.sum, a.sum)
        && (!e.has_custom_buckets() || bounds(&e) == bounds(&a))
        && e.zero_threshold == a.zero_threshold
        && almost(e.zero_count, a.zero_count)
        && e.negative_spans == a.negative_spans
        && e.positive_spans == a.positive_spans
        && all(&e.negative_buckets, &a.negative_buckets)
        && all(&e.positive_buckets, &a.positive_buckets)
        && (!with_hint || e.reset_hint == a.reset_hint)
}

fn show_found(found: &Found) -> String {
    match found {
        Found::Whole(h) => show(h),
        Found::Shown(shown) => format!("{shown:?}"),
    }
}

/// A histogram in few words, for messages.
fn show(h: &Histogram) -> String {
    format!(
        "schema:{} count:{} sum:{} zero:{}/{} +{:?}{:?} -{:?}{:?} custom:{:?} {:?}",
        h.schema,
        h.count,
        h.sum,
        h.zero_count,
        h.zero_threshold,
        h.positive_spans,
        h.positive_buckets,
        h.negative_spans,
        h.negative_buckets,
        h.custom_values.as_deref().unwrap_or(&[]),
        h.reset_hint
    )
}

fn find<'e>(eval: &'e Eval, labels: &Labels) -> Result<&'e Expected, String> {
    eval.series
        .iter()
        .rfind(|e| e.labels == *labels)
        .ok_or_else(|| format!("unexpected metric {labels:?} in result"))
}

fn missing(eval: &Eval, found: &[&Labels]) -> Result<(), String> {
    match eval.series.iter().find(|e| !found.contains(&&e.labels)) {
        None => Ok(()),
        Some(e) => Err(format!("expected metric {:?} not found", e.labels)),
    }
}

/// Compares the answer of a query.
pub(super) fn value(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::Matrix(series) => matrix(eval, series),
        Value::Vector(samples) => vector(eval, samples),
        Value::Scalar(value) => match eval.scalar {
            None => Err(format!("expected vector or matrix result, but got scalar {value}")),
            Some(expected) if almost(expected, *value) => Ok(()),
            Some(expected) => Err(format!("expected scalar {expected} but got {value}")),
        },
        Value::String(text) => {
            let expected = eval.string.as_deref().unwrap_or("");
            if expected == text {
                Ok(())
            } else {
                Err(format!("expected string {expected:?} but got {text:?}"))
            }
        }
    }
}

fn matrix(eval: &Eval, series: &[Row]) -> Result<(), String> {
    if eval.ordered {
        return Err("expected ordered result, but query returned a matrix".into());
    }
    if eval.scalar.is_some() {
        return Err("expected scalar result, but got matrix".into());
    }
    if !series.is_sorted_by(|a, b| a.labels <= b.labels) {
        return Err("matrix is not sorted by labels".into());
    }
    for s in series {
        let expected = find(eval, &s.labels)?;
        let mut floats = s.floats.iter();
        let mut histograms = s.histograms.iter();
        for (at, value) in expected.values.iter().enumerate() {
            let time = eval.start + at as i64 * eval.step;
            match value {
                SeriesValue::Omitted => {}
                SeriesValue::Float(value) => match floats.next() {
                    Some((at, found)) if *at == time && almost(*found, *value) => {}
                    other => {
                        return Err(format!("{:?} at {time}: expected {value}, got {other:?}", s.labels));
                    }
                },
                SeriesValue::Histogram { histogram, hint_set } => match histograms.next() {
                    Some((at, found)) if *at == time && same_histogram(histogram, found, *hint_set) => {}
                    other => {
                        let got = other.map(|(at, found)| (at, show_found(found)));
                        let wanted = show(histogram);
                        return Err(format!("{:?} at {time}: expected {wanted}, got {got:?}", s.labels));
                    }
                },
            }
        }
        if let Some(extra) = floats.next() {
            return Err(format!("{:?}: unexpected {extra:?}", s.labels));
        }
        if let Some((at, extra)) = histograms.next() {
            return Err(format!("{:?}: unexpected {} at {at}", s.labels, show_found(extra)));
        }
    }
    missing(eval, &series.iter().map(|s| &s.labels).collect::<Vec<_>>())
}

fn vector(eval: &Eval, samples: &[(Labels, Number)]) -> Result<(), String> {
    if eval.scalar.is_some() {
        return Err("expected scalar result, but got vector".into());
    }
    for (at, (labels, value)) in samples.iter().enumerate() {
        let expected = find(eval, labels).map_err(|e| format!("{e}, has {}", shown(value)))?;
        let position = eval.series.iter().rposition(|e| std::ptr::eq(e, expected));
        if eval.ordered && position != Some(at) {
            return Err(format!("{labels:?} is at position {at}, expected at {position:?}"));
        }
        let ok = match (expected.values.first(), value) {
            (Some(SeriesValue::Float(e)), Number::Float(a)) => almost(*e, *a),
            (Some(SeriesValue::Histogram { histogram, hint_set }), Number::Histogram(a)) => {
                same_histogram(histogram, a, *hint_set)
            }
            (Some(SeriesValue::Omitted) | None, Number::Float(a)) => almost(0.0, *a),
            _ => false,
        };
        if !ok {
            let wanted = match expected.values.first() {
                Some(SeriesValue::Histogram { histogram, .. }) => show(histogram),
                other => format!("{other:?}"),
            };
            return Err(format!("{labels:?}: expected {wanted}, got {}", shown(value)));
        }
    }
    missing(eval, &samples.iter().map(|(labels, _)| labels).collect::<Vec<_>>())
}

fn shown(value: &Number) -> String {
    match value {
        Number::Float(v) => v.to_string(),
        Number::Histogram(h) => show_found(h),
    }
}

/// Compares annotations as they are rendered.
pub(super) fn annotations(eval: &Eval, warnings: &[String], infos: &[String]) -> Result<(), String> {
    if eval.any_warning && warnings.is_empty() {
        return Err("expected warnings but got none".into());
    }
    if eval.any_info && infos.is_empty() {
        return Err("expected info annotations but got none".into());
    }
    of_kind("warn", &eval.warnings, warnings)?;
    of_kind("info", &eval.infos, infos)?;
    if eval.no_warning && !warnings.is_empty() {
        return Err(format!("unexpected warnings {warnings:?}"));
    }
    if eval.no_info && !infos.is_empty() {
        return Err(format!("unexpected infos {infos:?}"));
    }
    Ok(())
}

fn of_kind(kind: &str, expected: &[Text], actual: &[String]) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    if let Some(e) = expected.iter().find(|e| !actual.iter().any(|a| e.matches(a))) {
        return Err(format!("expected {kind} annotation {:?}, found {actual:?}", e.show()));
    }
    match actual.iter().find(|a| !expected.iter().any(|e| e.matches(a))) {
        None => Ok(()),
        Some(extra) => Err(format!("unexpected {kind} annotation {extra:?}")),
    }
}

/// Compares the error of a query that is to fail.
pub(super) fn error(expected: &[Text], actual: &str) -> Result<(), String> {
    match expected.iter().find(|e| !e.matches(actual)) {
        None => Ok(()),
        Some(e) => Err(format!("expected error {:?}, got {actual:?}", e.show())),
    }
}
