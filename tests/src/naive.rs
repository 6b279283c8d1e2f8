//! A slow evaluator of a part of the language, for floats: every step by itself, every series looked up by reading all,
//! label sets as maps. Written from the description of the language, not from the engine, to be compared with it.
//!
//! It knows selectors with `offset` and `@`, subqueries, functions of a window of floats (`naive/window.rs`) and some of single
//! floats, aggregations, arithmetic, comparison, set operators and matching. Names are dropped at once. It does not know
//! histograms, labels made by functions, nor what looks at several steps.

mod window;

use std::collections::{BTreeMap, BTreeSet};

use model::seam::fake::MemorySource;
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesSource};
use model::{TenantId, TimeRange, is_stale};
use promql::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Modifiers, Selector,
    VectorMatching,
};

use window::{of_window, quantile};

/// Labels by name.
pub type LabelMap = BTreeMap<String, String>;

/// The value of an expression at one time.
#[derive(Clone, Debug)]
enum Value {
    Scalar(f64),
    Vector(Vec<(LabelMap, f64)>),
}

/// A series and its samples.
type Samples = (LabelMap, Vec<(i64, f64)>);

/// The step of subqueries that name none, ms.
const SUBQUERY_STEP: i64 = 60_000;

/// All series, as they are.
#[derive(Debug)]
pub struct Naive {
    series: Vec<Samples>,
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
            ExprKind::Call(call) => Value::Vector(unique(self.call(call, time)?)?),
            ExprKind::Aggregate(aggregate) => {
                let Value::Vector(vector) = self.at(&aggregate.expr, time)? else {
                    return Err("no vector".into());
                };
                let param = match &aggregate.param {
                    Some(param) => self.scalar(param, time)?,
                    None => 0.0,
                };
                Value::Vector(aggregated(aggregate, param, vector))
            }
            ExprKind::Binary(binary) => {
                let (lhs, rhs) = (self.at(&binary.lhs, time)?, self.at(&binary.rhs, time)?);
                combined(binary, lhs, rhs)?
            }
            _ => return Err("not known here".into()),
        })
    }

    fn scalar(&self, expr: &Expr, time: i64) -> Result<f64, String> {
        match self.at(expr, time)? {
            Value::Scalar(value) => Ok(value),
            Value::Vector(_) => Err("no scalar".into()),
        }
    }

    fn call(&self, call: &Call, time: i64) -> Result<Vec<(LabelMap, f64)>, String> {
        let name = call.function.name;
        let is_range = |arg: &&Expr| matches!(arg.kind, ExprKind::Matrix(_) | ExprKind::Subquery(_));
        let mut params = Vec::new();
        for arg in call.args.iter().filter(|arg| matches!(arg.kind, ExprKind::Number { .. })) {
            params.push(self.scalar(arg, time)?);
        }
        let mut vector = Vec::new();
        if let Some(arg) = call.args.iter().find(is_range) {
            let (start, end, windows) = self.windows(arg, time)?;
            let keeps = matches!(name, "last_over_time" | "first_over_time");
            for (labels, window) in windows {
                if let Some(value) = of_window(name, &params, &window, start, end)? {
                    vector.push((if keeps { labels } else { nameless(&labels) }, value));
                }
            }
            return Ok(vector);
        }
        let Value::Vector(inner) = self.at(&call.args[0], time)? else { return Err("no vector".into()) };
        for (labels, value) in inner {
            let value = match name {
                "abs" => value.abs(),
                "sqrt" => value.sqrt(),
                "clamp_max" if value.is_nan() => value,
                "clamp_max" => value.min(params[0]),
                "round" => (value * 2.0 + 0.5).floor() / 2.0,
                "sgn" if value != 0.0 && !value.is_nan() => value.signum(),
                "sgn" => value,
                _ => return Err(format!("{name} is not known here")),
            };
            vector.push((nameless(&labels), value));
        }
        Ok(vector)
    }

    /// The samples of each series in the window of a range selector or subquery, and the window's ends.
    fn windows(&self, arg: &Expr, time: i64) -> Result<(i64, i64, Vec<Samples>), String> {
        match &arg.kind {
            ExprKind::Matrix(matrix) => {
                let end = moved(&matrix.selector.modifiers, time);
                let start = end - matrix.range_ms;
                let inside = |samples: &[(i64, f64)]| -> Vec<(i64, f64)> {
                    let window = samples.iter().filter(|(t, v)| *t > start && *t <= end && !is_stale(*v));
                    window.copied().collect()
                };
                let all = self.matching(&matrix.selector);
                Ok((start, end, all.map(|(labels, samples)| (labels.clone(), inside(samples))).collect()))
            }
            ExprKind::Subquery(subquery) => {
                let end = moved(&subquery.modifiers, time);
                let start = end - subquery.range_ms;
                let step = if subquery.step_ms == 0 { SUBQUERY_STEP } else { subquery.step_ms };
                let first = (start.div_euclid(step) + 1) * step;
                let times = (0..).map(|n| first + n * step).take_while(|t| *t <= end);
                let mut all: BTreeMap<LabelMap, Vec<(i64, f64)>> = BTreeMap::new();
                for at in times {
                    let Value::Vector(vector) = self.at(&subquery.expr, at)? else {
                        return Err("no vector".into());
                    };
                    for (labels, value) in unique(vector)? {
                        all.entry(labels).or_default().push((at, value));
                    }
                }
                Ok((start, end, all.into_iter().collect()))
            }
            _ => Err("no range".into()),
        }
    }

    fn matching<'s>(&'s self, selector: &'s Selector) -> impl Iterator<Item = &'s Samples> {
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

fn aggregated(aggregate: &Aggregate, param: f64, vector: Vec<(LabelMap, f64)>) -> Vec<(LabelMap, f64)> {
    let mut groups: BTreeMap<LabelMap, Vec<(LabelMap, f64)>> = BTreeMap::new();
    for (labels, value) in vector {
        let listed = |name: &String| aggregate.grouping.contains(name);
        let key = if aggregate.without {
            nameless(&labels).into_iter().filter(|(name, _)| !listed(name)).collect()
        } else {
            labels.clone().into_iter().filter(|(name, _)| listed(name)).collect()
        };
        groups.entry(key).or_default().push((labels, value));
    }
    if let AggregateOp::Topk | AggregateOp::Bottomk = aggregate.op {
        let mut picked = Vec::new();
        for mut group in groups.into_values() {
            // NaN comes last in both; equal values are told apart by labels.
            group.sort_by(|(a_labels, a), (b_labels, b)| {
                let order =
                    if aggregate.op == AggregateOp::Topk { b.partial_cmp(a) } else { a.partial_cmp(b) };
                let order = order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
                order.then_with(|| a_labels.cmp(b_labels))
            });
            group.truncate(param as usize);
            picked.extend(group);
        }
        return picked;
    }
    let of = |group: Vec<(LabelMap, f64)>| {
        let values: Vec<f64> = group.into_iter().map(|(_, value)| value).collect();
        let count = values.len() as f64;
        let mean = window::sum(values.iter().copied()) / count;
        match aggregate.op {
            AggregateOp::Sum => window::sum(values.iter().copied()),
            AggregateOp::Avg => mean,
            AggregateOp::Min => window::extreme(values.iter().copied(), |v, best| v < best),
            AggregateOp::Max => window::extreme(values.iter().copied(), |v, best| v > best),
            AggregateOp::Count => count,
            AggregateOp::Stddev => window::variance(&values).sqrt(),
            AggregateOp::Stdvar => window::variance(&values),
            AggregateOp::Quantile => quantile(param, values),
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
