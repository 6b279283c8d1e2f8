//! Calls of functions of instant vectors and scalars: dispatch, and those that work value by value.

use model::Labels;
use model::time::Civil;
use promql::ast::Span;

use super::select::Property;
use super::{Evaluator, Sink, times};
use crate::EvalError;
use crate::column::{ABSENT, Column, is_absent};
use crate::histogram::all_buckets;
use crate::kahan::inc;
use crate::math;
use crate::plan::{Call, Kind, Node};
use crate::window::RangeFn;

/// Functions of one float.
fn of_float(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |v| v * (std::f64::consts::PI / 180.0),
        "deg" => |v| v * (180.0 / std::f64::consts::PI),
        "sgn" => math::sign,
        _ => return None,
    })
}

/// Functions of a date.
fn of_date(name: &str) -> Option<fn(Civil) -> i64> {
    Some(match name {
        "days_in_month" => |c| c.days_in_month().into(),
        "day_of_month" => |c| c.day.into(),
        "day_of_week" => |c| c.weekday.into(),
        "day_of_year" => |c| c.day_of_year.into(),
        "hour" => |c| c.hour.into(),
        "minute" => |c| c.minute.into(),
        "month" => |c| c.month.into(),
        "year" => |c| c.year,
        _ => return None,
    })
}

/// Floats of a native histogram.
fn of_histogram(name: &str) -> Option<fn(&model::Histogram) -> f64> {
    Some(match name {
        "histogram_count" => |h| h.count,
        "histogram_sum" => |h| h.sum,
        "histogram_avg" => |h| h.sum / h.count,
        "histogram_stdvar" => histogram_variance,
        "histogram_stddev" => |h| histogram_variance(h).sqrt(),
        _ => return None,
    })
}

fn histogram_variance(h: &model::Histogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut variance, mut c) = (0.0, 0.0);
    for bucket in all_buckets(h).iter().filter(|b| b.count != 0.0) {
        let middle = if h.has_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            let root = (bucket.upper * bucket.lower).sqrt();
            if bucket.upper < 0.0 { -root } else { root }
        };
        let delta = middle - mean;
        (variance, c) = inc(bucket.count * delta * delta, variance, c);
    }
    (variance + c) / h.count
}

impl Evaluator<'_> {
    /// The columns of a function call that gives a vector.
    pub(super) fn call(&self, call: &Call, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        if let Some(func) = RangeFn::named(call.name) {
            return self.range_call(call, func, sink);
        }
        if let Some(f) = of_float(call.name) {
            return self.map_floats(&call.args[0], sink, |_, v| f(v));
        }
        if let Some(f) = of_date(call.name) {
            return self.date(call, f, sink);
        }
        if let Some(f) = of_histogram(call.name) {
            return self.map_histograms(&call.args[0], f, sink);
        }
        match call.name {
            "vector" => {
                let floats = self.scalar(&call.args[0])?;
                sink(&mut Column { floats, ..Column::default() })
            }
            "absent" => self.absent(&call.args[0], sink),
            "timestamp" | "start_timestamp" => self.timestamps(call, span, sink),
            "round" => self.round(call, sink),
            "clamp" | "clamp_min" | "clamp_max" => self.clamp(call, sink),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => self.sort(call, span, sink),
            "label_replace" => self.label_replace(call, sink),
            "label_join" => self.label_join(call, sink),
            "histogram_quantile" => self.histogram_quantile(call, sink),
            "histogram_quantiles" => self.histogram_quantiles(call, sink),
            "histogram_fraction" => self.histogram_fraction(call, sink),
            "info" => self.info(call, sink),
            other => Err(EvalError::Unimplemented(format!("function {other}"))),
        }
    }

    /// A function call that gives a scalar.
    pub(super) fn scalar_call(&self, call: &Call) -> Result<Vec<f64>, EvalError> {
        Ok(match call.name {
            "time" => times(self.grid).map(|t| t as f64 / 1000.0).collect(),
            "pi" => vec![std::f64::consts::PI; self.steps()],
            "max_of" | "min_of" => {
                let (mut a, b) = (self.scalar(&call.args[0])?, self.scalar(&call.args[1])?);
                let choose = if call.name == "max_of" { math::max } else { math::min };
                a.iter_mut().zip(b).for_each(|(a, b)| *a = choose(*a, b));
                a
            }
            "scalar" => {
                let mut found = vec![0u8; self.steps()];
                let mut values = vec![f64::NAN; self.steps()];
                self.stream(&call.args[0], &mut |column| {
                    for (step, value) in column.floats.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                        found[step] = found[step].saturating_add(1);
                        values[step] = if found[step] == 1 { *value } else { f64::NAN };
                    }
                    Ok(())
                })?;
                values
            }
            other => return Err(EvalError::Unimplemented(format!("function {other}"))),
        })
    }

    /// Applies `f` to (step, float) of all columns of `from`; histograms go.
    fn map_floats(
        &self,
        from: &Node,
        sink: &mut Sink<'_>,
        f: impl Fn(usize, f64) -> f64,
    ) -> Result<(), EvalError> {
        self.merging(from, sink, |sink| {
            self.stream(from, &mut |column| {
                column.histograms.clear();
                column.drop_name = true;
                for (step, value) in column.floats.iter_mut().enumerate() {
                    let made = f(step, *value);
                    *value = if is_absent(*value) { ABSENT } else { made };
                }
                if column.is_empty() { Ok(()) } else { sink(column) }
            })
        })
    }

    fn map_histograms(
        &self,
        from: &Node,
        f: fn(&model::Histogram) -> f64,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        self.merging(from, sink, |sink| {
            self.stream(from, &mut |column| {
                for step in 0..column.floats.len() {
                    column.floats[step] = column.histogram(step).map_or(ABSENT, |h| f(h));
                }
                column.histograms.clear();
                column.drop_name = true;
                if column.is_empty() { Ok(()) } else { sink(column) }
            })
        })
    }

    fn round(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        // The inverse causes fewer rounding errors.
        let inverse: Vec<f64> = match call.args.get(1) {
            None => vec![1.0; self.steps()],
            Some(to) => self.scalar(to)?.iter().map(|v| 1.0 / v).collect(),
        };
        self.map_floats(&call.args[0], sink, |step, v| (v * inverse[step] + 0.5).floor() / inverse[step])
    }

    fn clamp(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let steps = self.steps();
        let mut bounds = call.args[1..].iter().map(|arg| self.scalar(arg));
        let mut next = || bounds.next().unwrap_or_else(|| Ok(vec![f64::NAN; steps]));
        let (low, high) = match call.name {
            "clamp_min" => (next()?, vec![f64::INFINITY; steps]),
            "clamp_max" => (vec![f64::NEG_INFINITY; steps], next()?),
            _ => (next()?, next()?),
        };
        self.map_floats(&call.args[0], sink, |step, v| {
            let (low, high) = (low[step], high[step]);
            if high < low {
                ABSENT
            } else if low.is_nan() || high.is_nan() {
                f64::NAN
            } else {
                math::max(low, math::min(high, v))
            }
        })
    }

    fn date(&self, call: &Call, f: fn(Civil) -> i64, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let Some(from) = call.args.first() else {
            let floats = times(self.grid).map(|t| f(Civil::from_ms(t)) as f64).collect();
            return sink(&mut Column { floats, ..Column::default() });
        };
        self.map_floats(from, sink, |_, v| f(Civil::from_seconds(math::go_int64(v))) as f64)
    }

    fn absent(&self, arg: &Node, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let mut missing = vec![1.0; self.steps()];
        self.stream(arg, &mut |column| {
            for (step, missing) in missing.iter_mut().enumerate() {
                if column.has(step) {
                    *missing = ABSENT;
                }
            }
            Ok(())
        })?;
        let labels = match &arg.kind {
            Kind::Select(select) => super::labels::of_absent(&select.matchers)?,
            _ => Labels::empty(),
        };
        let mut column = Column { labels, floats: missing, ..Column::default() };
        if column.is_empty() { Ok(()) } else { sink(&mut column) }
    }

    fn timestamps(&self, call: &Call, _span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let arg = &call.args[0];
        let start = call.name == "start_timestamp";
        self.merging(arg, sink, |sink| {
            let mut out = |column: &mut Column| {
                column.drop_name = true;
                sink(column)
            };
            match &arg.kind {
                Kind::Select(_) if start && !self.ctx.features.use_start_timestamps => Ok(()),
                Kind::Select(select) if !arg.once => {
                    let property = if start { Property::Start } else { Property::Time };
                    self.instant_property(select, property, arg.span, &mut out)
                }
                _ if start => Ok(()),
                _ => self.stream(arg, &mut |column| {
                    for (step, time) in times(self.grid).enumerate() {
                        column.floats[step] = if column.has(step) { time as f64 / 1000.0 } else { ABSENT };
                    }
                    column.histograms.clear();
                    out(column)
                }),
            }
        })
    }
}
