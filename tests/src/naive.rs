//! A slow evaluator of a part of the language, for floats: every step by itself, every series looked up by reading all,
//! label sets as maps. Written from the description of the language, not from the engine, to be compared with it.
//!
//! It knows selectors with `offset` and `@`, the functions `rate`, `increase`, `delta` and the simple `…_over_time`,
//! aggregations by values, arithmetic, comparison, set operators and matching. Names are dropped at once.

use std::collections::{BTreeMap, BTreeSet};

use model::seam::fake::MemorySource;
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesSource};
use model::{TenantId, TimeRange, is_stale};
use promql::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Cardinality, Expr, ExprKind, Modifiers, Selector,
    VectorMatching,
};

/// Labels by name.
pub type LabelMap = BTreeMap<String, String>;

/// The value of an expression at one time.
#[derive(Clone, Debug)]
enum Value {
    Scalar(f64),
    Vector(Vec<(LabelMap, f64)>),
}

/// All series, as they are.
#[derive(Debug)]
pub struct Naive {
    series: Vec<(LabelMap, Vec<(i64, f64)>)>,
    lookback_ms: i64,
}

impl Naive {
    /// The float series of `source`.
    pub fn of(source: &MemorySource, lookback_ms: i64) -> Self {
        let request = SelectRequest {
            tenant: TenantId::anonymous(),
            matchers: Vec::new(),
            range: TimeRange::ALL,
            budget: QueryBudget::unlimited(),
        };
        let mut iter = source.select(&request).expect("memory can be read");
        let (mut series, mut data) = (Vec::new(), SeriesData::default());
        while iter.next_series(&mut data).expect("memory can be read") {
            let labels = data.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            series.push((labels, data.stamps.iter().copied().zip(data.values.iter().copied()).collect()));
        }
        Self { series, lookback_ms }
    }

    /// The series of `expr` at `times`, with their points. An error says only that there is one.
    ///
    /// # Errors
    /// In few words, why there is no value.
    pub fn evaluate(
        &self,
        expr: &Expr,
        times: impl Iterator<Item = i64>,
    ) -> Result<BTreeMap<LabelMap, Vec<(i64, f64)>>, String> {
        let mut all: BTreeMap<LabelMap, Vec<(i64, f64)>> = BTreeMap::new();
        for time in times {
            let vector = match self.at(expr, time)? {
                Value::Scalar(value) => vec![(LabelMap::new(), value)],
                Value::Vector(vector) => vector,
            };
            for (labels, value) in unique(vector)? {
                all.entry(labels).or_default().push((time, value));
            }
        }
        Ok(all)
    }

    fn at(&self, expr: &Expr, time: i64) -> Result<Value, String> {
        Ok(match &expr.kind {
            ExprKind::Number { value, .. } => Value::Scalar(*value),
            ExprKind::Paren(inner) | ExprKind::Unary(false, inner) => self.at(inner, time)?,
            ExprKind::Unary(true, inner) => match self.at(inner, time)? {
                Value::Scalar(value) => Value::Scalar(-value),
                Value::Vector(vector) => {
                    let negated = vector.into_iter().map(|(labels, v)| (nameless(&labels), -v)).collect();
                    Value::Vector(unique(negated)?)
                }
            },
            ExprKind::Selector(selector) => {
                let at = moved(&selector.modifiers, time);
                let mut vector = Vec::new();
                for (labels, samples) in self.matching(selector) {
                    let last = samples.iter().rfind(|(t, _)| *t <= at);
                    match last {
                        Some((t, v)) if *t > at - self.lookback_ms && !is_stale(*v) => {
                            vector.push((labels.clone(), *v));
                        }
                        _ => {}
                    }
                }
                Value::Vector(vector)
            }
            ExprKind::Call(call) => {
                let ExprKind::Matrix(matrix) = &call.args[0].kind else {
                    return Err("not known here".into());
                };
                let end = moved(&matrix.selector.modifiers, time);
                let start = end - matrix.range_ms;
                let mut vector = Vec::new();
                for (labels, samples) in self.matching(&matrix.selector) {
                    let window: Vec<(i64, f64)> = samples
                        .iter()
                        .copied()
                        .filter(|(t, v)| *t > start && *t <= end && !is_stale(*v))
                        .collect();
                    if let Some(value) = of_window(call.function.name, &window, start, end)? {
                        let keeps = call.function.name == "last_over_time";
                        vector.push((if keeps { labels.clone() } else { nameless(labels) }, value));
                    }
                }
                Value::Vector(unique(vector)?)
            }
            ExprKind::Aggregate(aggregate) => {
                let Value::Vector(vector) = self.at(&aggregate.expr, time)? else {
                    return Err("no vector".into());
                };
                Value::Vector(aggregated(aggregate, vector))
            }
            ExprKind::Binary(binary) => {
                let (lhs, rhs) = (self.at(&binary.lhs, time)?, self.at(&binary.rhs, time)?);
                combined(binary, lhs, rhs)?
            }
            _ => return Err("not known here".into()),
        })
    }

    fn matching<'s>(
        &'s self,
        selector: &'s Selector,
    ) -> impl Iterator<Item = &'s (LabelMap, Vec<(i64, f64)>)> {
        self.series.iter().filter(|(labels, _)| {
            selector.matchers.iter().all(|m| m.matches(labels.get(m.name()).map_or("", String::as_str)))
        })
    }
}

fn moved(modifiers: &Modifiers, time: i64) -> i64 {
    let base = match modifiers.at {
        Some(At::Time(at)) => at,
        _ => time,
    };
    base - modifiers.offset_ms
}

fn nameless(labels: &LabelMap) -> LabelMap {
    let mut labels = labels.clone();
    ["__name__", "__type__", "__unit__"].into_iter().for_each(|name| drop(labels.remove(name)));
    labels
}

fn unique(vector: Vec<(LabelMap, f64)>) -> Result<Vec<(LabelMap, f64)>, String> {
    let mut seen = BTreeSet::new();
    if vector.iter().all(|(labels, _)| seen.insert(labels.clone())) {
        return Ok(vector);
    }
    Err("two series with the same labels".into())
}

fn of_window(name: &str, window: &[(i64, f64)], start: i64, end: i64) -> Result<Option<f64>, String> {
    let (Some(first), Some(last)) = (window.first(), window.last()) else { return Ok(None) };
    let values = || window.iter().map(|(_, v)| *v);
    Ok(Some(match name {
        "rate" | "increase" | "delta" => return Ok(extrapolated(name, window, start, end)),
        "sum_over_time" => sum(values()),
        "avg_over_time" => sum(values()) / window.len() as f64,
        "min_over_time" => extreme(values(), |v, best| v < best),
        "max_over_time" => extreme(values(), |v, best| v > best),
        "count_over_time" => window.len() as f64,
        "last_over_time" => last.1,
        _ => return Err(format!("{name} of {first:?} is not known here")),
    }))
}

/// `rate`, `increase`, `delta`: the difference between the first and the last sample, corrected for resets, and
/// extrapolated to the ends of the window where samples are as near as they are to each other.
fn extrapolated(name: &str, window: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
    let (first, last) = (window.first()?, window.last()?);
    if window.len() < 2 {
        return None;
    }
    let is_counter = name != "delta";
    let mut difference = last.1 - first.1;
    if is_counter {
        for pair in window.windows(2).filter(|pair| pair[1].1 < pair[0].1) {
            difference += pair[0].1;
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.0 - first.0);
    let between = sampled / (window.len() - 1) as f64;
    let near = |gap: f64| if gap >= between * 1.1 { between / 2.0 } else { gap };
    let mut before = near(seconds(first.0 - start));
    let after = near(seconds(end - last.0));
    if is_counter && difference > 0.0 && first.1 >= 0.0 {
        before = before.min(sampled * (first.1 / difference));
    }
    let mut value = difference * ((sampled + before + after) / sampled);
    if name == "rate" {
        value /= seconds(end - start);
    }
    Some(value)
}

/// A sum in twice the precision.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut high, mut low) = (0.0f64, 0.0f64);
    for value in values {
        let sum = high + value;
        let rest = sum - high;
        let lost = (high - (sum - rest)) + (value - rest);
        high = sum;
        if lost.is_finite() {
            low += lost;
        }
    }
    if high.is_finite() { high + low } else { high }
}

fn extreme(values: impl Iterator<Item = f64>, better: impl Fn(f64, f64) -> bool) -> f64 {
    values.fold(f64::NAN, |best, v| if best.is_nan() || better(v, best) { v } else { best })
}

fn aggregated(aggregate: &Aggregate, vector: Vec<(LabelMap, f64)>) -> Vec<(LabelMap, f64)> {
    let mut groups: BTreeMap<LabelMap, Vec<f64>> = BTreeMap::new();
    for (labels, value) in vector {
        let listed = |name: &String| aggregate.grouping.contains(name);
        let key = if aggregate.without {
            nameless(&labels).into_iter().filter(|(name, _)| !listed(name)).collect()
        } else {
            labels.into_iter().filter(|(name, _)| listed(name)).collect()
        };
        groups.entry(key).or_default().push(value);
    }
    let of = |values: Vec<f64>| {
        let count = values.len() as f64;
        let mean = sum(values.iter().copied()) / count;
        let variance = || {
            // Where squares are beyond the largest float, so is their sum.
            if values.len() > 1
                && values.iter().all(|v| v.is_finite())
                && values.iter().any(|v| v.abs() > 1e154)
            {
                return f64::INFINITY;
            }
            sum(values.iter().map(|v| (v - mean) * (v - mean))) / count
        };
        match aggregate.op {
            AggregateOp::Sum => sum(values.iter().copied()),
            AggregateOp::Avg => mean,
            AggregateOp::Min => extreme(values.iter().copied(), |v, best| v < best),
            AggregateOp::Max => extreme(values.iter().copied(), |v, best| v > best),
            AggregateOp::Count => count,
            AggregateOp::Stddev => variance().sqrt(),
            AggregateOp::Stdvar => variance(),
            _ => 1.0,
        }
    };
    groups.into_iter().map(|(labels, values)| (labels, of(values))).collect()
}

/// The value of an operator, and whether a comparison holds.
fn operate(op: BinaryOp, l: f64, r: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (l + r, true),
        BinaryOp::Sub => (l - r, true),
        BinaryOp::Mul => (l * r, true),
        BinaryOp::Div => (l / r, true),
        BinaryOp::Mod => (l % r, true),
        BinaryOp::Pow => (l.powf(r), true),
        BinaryOp::Atan2 => (l.atan2(r), true),
        BinaryOp::Eq => (l, l == r),
        BinaryOp::Ne => (l, l != r),
        BinaryOp::Gt => (l, l > r),
        BinaryOp::Lt => (l, l < r),
        BinaryOp::Ge => (l, l >= r),
        _ => (l, l <= r),
    }
}

fn combined(binary: &Binary, lhs: Value, rhs: Value) -> Result<Value, String> {
    let truth = |holds: bool| f64::from(u8::from(holds));
    let with_scalar = |vector: Vec<(LabelMap, f64)>, f: &dyn Fn(f64) -> (f64, bool)| {
        let mut out = Vec::new();
        for (labels, value) in vector {
            let (made, holds) = f(value);
            if binary.return_bool {
                out.push((nameless(&labels), truth(holds)));
            } else if binary.op.is_comparison() && holds {
                out.push((labels, value));
            } else if !binary.op.is_comparison() {
                out.push((nameless(&labels), made));
            }
        }
        unique(out).map(Value::Vector)
    };
    match (lhs, rhs) {
        (Value::Scalar(l), Value::Scalar(r)) => {
            let (made, holds) = operate(binary.op, l, r);
            Ok(Value::Scalar(if binary.op.is_comparison() { truth(holds) } else { made }))
        }
        (Value::Vector(vector), Value::Scalar(r)) => with_scalar(vector, &|l| operate(binary.op, l, r)),
        (Value::Scalar(l), Value::Vector(vector)) => with_scalar(vector, &|r| operate(binary.op, l, r)),
        (Value::Vector(lhs), Value::Vector(rhs)) => {
            let matching = binary.matching.as_ref().ok_or("no matching")?;
            if binary.op.is_set() {
                return Ok(Value::Vector(set_operation(binary.op, matching, lhs, rhs)));
            }
            matched(binary, matching, lhs, rhs).map(Value::Vector)
        }
    }
}

fn signature(labels: &LabelMap, matching: &VectorMatching) -> LabelMap {
    let listed = |name: &String| matching.labels.contains(name);
    if matching.on {
        labels.clone().into_iter().filter(|(name, _)| listed(name)).collect()
    } else {
        nameless(labels).into_iter().filter(|(name, _)| !listed(name)).collect()
    }
}

fn set_operation(
    op: BinaryOp,
    matching: &VectorMatching,
    lhs: Vec<(LabelMap, f64)>,
    rhs: Vec<(LabelMap, f64)>,
) -> Vec<(LabelMap, f64)> {
    let signatures = |vector: &[(LabelMap, f64)]| -> BTreeSet<LabelMap> {
        vector.iter().map(|(labels, _)| signature(labels, matching)).collect()
    };
    let (left, right) = (signatures(&lhs), signatures(&rhs));
    if op == BinaryOp::Or {
        let more = rhs.into_iter().filter(|(labels, _)| !left.contains(&signature(labels, matching)));
        return lhs.into_iter().chain(more).collect();
    }
    let wanted = op == BinaryOp::And;
    lhs.into_iter().filter(|(labels, _)| right.contains(&signature(labels, matching)) == wanted).collect()
}

fn matched(
    binary: &Binary,
    matching: &VectorMatching,
    lhs: Vec<(LabelMap, f64)>,
    rhs: Vec<(LabelMap, f64)>,
) -> Result<Vec<(LabelMap, f64)>, String> {
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(Vec::new());
    }
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let mut ones = BTreeMap::new();
    for (labels, value) in one {
        if ones.insert(signature(&labels, matching), (labels, value)).is_some() {
            return Err("duplicate series on the one side".into());
        }
    }
    let (mut used, mut made, mut out) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (labels, value) in many {
        let key = signature(&labels, matching);
        let Some((other, other_value)) = ones.get(&key) else { continue };
        let (l, r) = if swapped { (*other_value, value) } else { (value, *other_value) };
        let (result, holds) = operate(binary.op, l, r);
        let mut named = labels.clone();
        if !binary.op.is_comparison() || binary.return_bool {
            named = nameless(&named);
        }
        if matching.cardinality == Cardinality::OneToOne {
            named.retain(|name, _| matching.labels.contains(name) == matching.on);
            if !used.insert(key) {
                return Err("many to one".into());
            }
        }
        for name in &matching.include {
            match other.get(name) {
                Some(value) => drop(named.insert(name.clone(), value.clone())),
                None => drop(named.remove(name)),
            }
        }
        if matching.cardinality != Cardinality::OneToOne && !made.insert(named.clone()) {
            return Err("grouping labels are not unique".into());
        }
        if binary.return_bool {
            out.push((named, f64::from(u8::from(holds))));
        } else if holds {
            out.push((named, result));
        }
    }
    unique(out)
}
