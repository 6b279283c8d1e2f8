//! The value of duration expressions, once a query's step and range are known.
//!
//! Errors are worded as upstream words them (`promql/durations.go`), with byte offsets in front. Not here:
//! parsing (`parse/duration.rs`).

use crate::ast::{DurationExpr, DurationKind, DurationOp, Expr, ExprKind, Modifiers};

/// What fits into Go's `time.Duration` (int64 ns), in seconds.
pub(crate) const MAX_SECONDS: f64 = 9_223_372_036.854_776;

/// Why a duration expression has no usable value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{start}:{end}: {message}")]
pub struct DurationExprError {
    /// First byte of the expression.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// What is wrong.
    pub message: &'static str,
}

/// What `step()` and `range()` stand for, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryTimes {
    /// The query's step; of an instant query, the server's default evaluation interval.
    pub step_ms: i64,
    /// The query's end minus its start; 0 for an instant query.
    pub range_ms: i64,
}

impl DurationExpr {
    /// The value in seconds.
    pub fn seconds(&self, times: QueryTimes) -> Result<f64, DurationExprError> {
        Ok(match &self.kind {
            DurationKind::Number(seconds, _) => *seconds,
            DurationKind::Step => times.step_ms as f64 / 1000.0,
            DurationKind::Range => times.range_ms as f64 / 1000.0,
            DurationKind::Unary(minus, x) => {
                let x = x.seconds(times)?;
                if *minus { -x } else { x }
            }
            DurationKind::Paren(x) => x.seconds(times)?,
            DurationKind::Binary(op, x, y) => {
                let (x, y) = (x.seconds(times)?, y.seconds(times)?);
                match op {
                    DurationOp::Add => x + y,
                    DurationOp::Sub => x - y,
                    DurationOp::Mul => x * y,
                    DurationOp::Div if y == 0.0 => return Err(self.error("division by zero")),
                    DurationOp::Div => x / y,
                    DurationOp::Mod if y == 0.0 => return Err(self.error("modulo by zero")),
                    DurationOp::Mod => x % y,
                    DurationOp::Pow => x.powf(y),
                    // Go's Min and Max, unlike Rust's, give NaN when either side is NaN.
                    DurationOp::MinOf | DurationOp::MaxOf if x.is_nan() || y.is_nan() => f64::NAN,
                    DurationOp::MinOf => x.min(y),
                    DurationOp::MaxOf => x.max(y),
                }
            }
        })
    }

    /// The value in ms, cut towards zero; an offset may be negative, a range or step must be positive.
    pub fn milliseconds(&self, times: QueryTimes, is_offset: bool) -> Result<i64, DurationExprError> {
        let seconds = self.seconds(times)?;
        match seconds {
            _ if !seconds.is_finite() => Err(self.error("duration is NaN or infinite")),
            _ if seconds <= 0.0 && !is_offset => Err(self.error("duration must be greater than 0")),
            _ if seconds.abs() > MAX_SECONDS => Err(self.error("duration is out of range")),
            _ => Ok((seconds * 1000.0) as i64),
        }
    }

    fn error(&self, message: &'static str) -> DurationExprError {
        DurationExprError { start: self.span.start, end: self.span.end, message }
    }
}

/// Replaces every duration expression in the tree by its value.
pub fn resolve(expr: &mut Expr, times: QueryTimes) -> Result<(), DurationExprError> {
    let resolve_modifiers = |modifiers: &mut Modifiers| -> Result<(), DurationExprError> {
        if let Some(offset) = &modifiers.offset_expr {
            modifiers.offset_ms = offset.milliseconds(times, true)?;
            modifiers.offset_expr = None;
        }
        Ok(())
    };
    let resolve_one = |ms: &mut i64, expr: &mut Option<DurationExpr>| -> Result<(), DurationExprError> {
        if let Some(duration) = expr {
            *ms = duration.milliseconds(times, false)?;
            *expr = None;
        }
        Ok(())
    };
    match &mut expr.kind {
        ExprKind::Selector(selector) => resolve_modifiers(&mut selector.modifiers)?,
        ExprKind::Matrix(matrix) => {
            resolve_modifiers(&mut matrix.selector.modifiers)?;
            resolve_one(&mut matrix.range_ms, &mut matrix.range_expr)?;
        }
        ExprKind::Subquery(subquery) => {
            resolve_modifiers(&mut subquery.modifiers)?;
            resolve_one(&mut subquery.step_ms, &mut subquery.step_expr)?;
            resolve_one(&mut subquery.range_ms, &mut subquery.range_expr)?;
        }
        _ => {}
    }
    for child in expr.children_mut() {
        resolve(child, times)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    /// `text` with its durations replaced for a query of step 10 s over 60 s.
    fn resolved(text: &str) -> Result<String, String> {
        let mut expr = parse(text, &ParseOptions::ALL).unwrap();
        resolve(&mut expr, QueryTimes { step_ms: 10_000, range_ms: 60_000 }).map_err(|e| e.to_string())?;
        Ok(expr.to_string())
    }

    #[test]
    fn expressions_become_literals() {
        for (text, expected) in [
            ("a[step()]", "a[10s]"),
            ("a[(1 + (step() - 5) * 2)]", "a[11s]"),
            ("a offset -min_of(range(), 8)", "a offset -8s"),
            ("a[1h % 7m] offset (2 ^ 3)", "a[4m] offset 8s"),
            (
                "sum(rate(a[max_of(1m, step())])) + b offset (step() / 4)",
                "sum(rate(a[1m])) + b offset 2s500ms",
            ),
            ("max_over_time(a[range():step() * 2] offset (0 * 1))", "max_over_time(a[1m:20s])"),
        ] {
            assert_eq!(resolved(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_errors_with_offsets() {
        for (text, message) in [
            ("a[5 - step()]", "2:12: duration must be greater than 0"),
            ("a[1 / (step() - 10)]", "2:18: division by zero"),
            ("a[1 % (step() - 10)]", "2:18: modulo by zero"),
            ("a offset (-1 ^ 0.5 * 9 ^ 999)", "10:28: duration is NaN or infinite"),
            ("a offset (9 ^ 50)", "10:16: duration is out of range"),
        ] {
            assert_eq!(resolved(text).unwrap_err(), message, "{text}");
        }
    }
}
