//! What a query answered, as far as a script can compare it: from an evaluation in this process, where a histogram is
//! whole, or from JSON, where it is its count, its sum and its populated buckets.

use std::sync::Arc;

use model::{Histogram, Labels};
use serde_json::Value as Json;

/// A histogram of an answer.
#[derive(Clone, Debug)]
pub(super) enum Found {
    Whole(Arc<Histogram>),
    Shown(Shown),
}

/// A histogram as JSON shows it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) count: f64,
    pub(super) sum: f64,
    /// Which bounds belong to it (0 upper, 1 lower, 2 none, 3 both), lower and upper bound, count; ascending.
    pub(super) buckets: Vec<(u8, f64, f64, f64)>,
}

/// A float or a histogram.
#[derive(Clone, Debug)]
pub(super) enum Number {
    Float(f64),
    Histogram(Found),
}

/// A series of a range.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) labels: Labels,
    /// Time, ms, and value.
    pub(super) floats: Vec<(i64, f64)>,
    pub(super) histograms: Vec<(i64, Found)>,
}

/// The value of a query.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Matrix(Vec<Row>),
    Vector(Vec<(Labels, Number)>),
    Scalar(f64),
    String(String),
}

/// A value and its annotations as text: warnings, infos.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

impl From<engine::Value> for Value {
    fn from(value: engine::Value) -> Self {
        let whole = |h: &Arc<Histogram>| Found::Whole(Arc::clone(h));
        match value {
            engine::Value::Matrix(series) => {
                let row = |s: engine::Series| Row {
                    floats: s.floats.iter().map(|p| (p.timestamp, p.value)).collect(),
                    histograms: s.histograms.iter().map(|p| (p.timestamp, whole(&p.histogram))).collect(),
                    labels: s.labels,
                };
                Self::Matrix(series.into_iter().map(row).collect())
            }
            engine::Value::Vector(samples) => {
                let one = |s: engine::Sample| match s.value {
                    engine::SampleValue::Float(value) => (s.labels, Number::Float(value)),
                    engine::SampleValue::Histogram(h) => (s.labels, Number::Histogram(whole(&h))),
                };
                Self::Vector(samples.into_iter().map(one).collect())
            }
            engine::Value::Scalar(point) => Self::Scalar(point.value),
            engine::Value::String(text, _) => Self::String(text),
        }
    }
}

/// The answer of `/api/v1/query` or `query_range`: a value, or the error's text.
pub(super) fn of_json(body: &Json) -> Result<Result<Answer, String>, String> {
    if body["status"] == "error" {
        let text = body["error"].as_str().ok_or("an error without text")?;
        // What does not parse is reported as a parameter that does not.
        let text = text.strip_prefix("invalid parameter \"query\": ").unwrap_or(text);
        return Ok(Err(text.to_owned()));
    }
    let texts = |name: &str| -> Vec<String> {
        let list = body[name].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let data = &body["data"];
    let result = &data["result"];
    let list = || result.as_array().map(Vec::as_slice).ok_or_else(|| format!("no list of results: {result}"));
    let value = match data["resultType"].as_str() {
        Some("matrix") => Value::Matrix(list()?.iter().map(row).collect::<Result<_, _>>()?),
        Some("vector") => Value::Vector(list()?.iter().map(sample).collect::<Result<_, _>>()?),
        Some("scalar") => Value::Scalar(number(&result[1])?),
        Some("string") => Value::String(result[1].as_str().ok_or("a string without text")?.to_owned()),
        other => return Err(format!("unknown type of result {other:?}")),
    };
    Ok(Ok(Answer { value, warnings: texts("warnings"), infos: texts("infos") }))
}

fn row(series: &Json) -> Result<Row, String> {
    let points = |name: &str| series[name].as_array().map_or(&[][..], Vec::as_slice);
    Ok(Row {
        labels: labels(&series["metric"])?,
        floats: points("values")
            .iter()
            .map(|p| Ok((time(p)?, number(&p[1])?)))
            .collect::<Result<_, String>>()?,
        histograms: points("histograms")
            .iter()
            .map(|p| Ok((time(p)?, Found::Shown(histogram(&p[1])?))))
            .collect::<Result<_, String>>()?,
    })
}

fn sample(sample: &Json) -> Result<(Labels, Number), String> {
    let labels = labels(&sample["metric"])?;
    let number = match (&sample["value"], &sample["histogram"]) {
        (Json::Array(point), _) => Number::Float(number(&point[1])?),
        (_, Json::Array(point)) => Number::Histogram(Found::Shown(histogram(&point[1])?)),
        _ => return Err(format!("a sample without a value: {sample}")),
    };
    Ok((labels, number))
}

fn labels(metric: &Json) -> Result<Labels, String> {
    let pairs = metric.as_object().ok_or_else(|| format!("labels that are no object: {metric}"))?;
    let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")));
    Labels::from_pairs(pairs).map_err(|e| e.to_string())
}

fn time(point: &Json) -> Result<i64, String> {
    let seconds = point[0].as_f64().ok_or_else(|| format!("a point without a time: {point}"))?;
    Ok((seconds * 1000.0).round() as i64)
}

fn number(text: &Json) -> Result<f64, String> {
    let text = text.as_str().ok_or_else(|| format!("a number that is no string: {text}"))?;
    model::number::parse_float(text).map_err(|e| format!("{text}: {e}"))
}

fn histogram(json: &Json) -> Result<Shown, String> {
    let buckets = json["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    let bucket = |b: &Json| -> Result<(u8, f64, f64, f64), String> {
        let bounds = b[0].as_u64().ok_or_else(|| format!("a bucket without bounds: {b}"))?;
        Ok((bounds as u8, number(&b[1])?, number(&b[2])?, number(&b[3])?))
    };
    Ok(Shown {
        count: number(&json["count"])?,
        sum: number(&json["sum"])?,
        buckets: buckets.iter().map(bucket).collect::<Result<_, _>>()?,
    })
}

/// The populated buckets of a whole histogram, as JSON shows them.
pub(super) fn shown(h: &Histogram) -> Shown {
    let mut buckets = Vec::new();
    let mut add = |rule: u8, lower: f64, upper: f64, count: f64| {
        if count != 0.0 {
            buckets.push((rule, lower, upper, count));
        }
    };
    let indexed = |spans: &[model::histogram::Span], counts: &[f64]| -> Vec<(i64, f64)> {
        let mut indexes = Vec::new();
        let mut next = 0i64;
        for span in spans {
            next += i64::from(span.offset);
            indexes.extend(next..next + i64::from(span.length));
            next += i64::from(span.length);
        }
        indexes.into_iter().zip(counts.iter().copied()).collect()
    };
    let positive = indexed(&h.positive_spans, &h.positive_buckets);
    if h.has_custom_buckets() {
        let bounds = h.custom_values.as_deref().unwrap_or(&[]);
        let bound = |at: i64| usize::try_from(at).ok().and_then(|at| bounds.get(at)).copied();
        for (at, count) in positive {
            let lower = if at == 0 { f64::NEG_INFINITY } else { bound(at - 1).unwrap_or(f64::INFINITY) };
            let rule = if at == 0 { 3 } else { 0 };
            add(rule, lower, bound(at).unwrap_or(f64::INFINITY), count);
        }
    } else {
        let bound = |at: i64| f64::exp2(at as f64 * f64::exp2(-f64::from(h.schema)));
        let outside = |at: i64| bound(at).max(h.zero_threshold);
        for (at, count) in indexed(&h.negative_spans, &h.negative_buckets).into_iter().rev() {
            add(1, -bound(at), -outside(at - 1), count);
        }
        if h.zero_count > 0.0 {
            add(3, -h.zero_threshold, h.zero_threshold, h.zero_count);
        }
        for (at, count) in positive {
            add(0, outside(at - 1), bound(at), count);
        }
    }
    Shown { count: h.count, sum: h.sum, buckets }
}
