//! Operators on single values and on columns: arithmetic, comparison, trimming, on floats and histograms.

use std::sync::Arc;

use model::histogram::ResetHint;
use promql::ast::{BinaryOp, Span};

use super::Evaluator;
use crate::EvalError;
use crate::annotations::Operation;
use crate::column::{ABSENT, Cell, Column, is_absent};
use crate::histogram::{add, compact, div, equals, mul, sub, trim};
use crate::math::pow;

/// The operator as PromQL writes it.
pub(super) fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Mod => "%",
        BinaryOp::Pow => "^",
        BinaryOp::Atan2 => "atan2",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Gt => ">",
        BinaryOp::Lt => "<",
        BinaryOp::Ge => ">=",
        BinaryOp::Le => "<=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
        BinaryOp::Unless => "unless",
        BinaryOp::TrimUpper => "</",
        BinaryOp::TrimLower => ">/",
    }
}

/// Whether the result is another metric than the operand.
pub(super) fn changes_metric(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

/// Whether it keeps or drops its left operand.
pub(super) fn is_comparison(op: BinaryOp) -> bool {
    use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
    matches!(op, Eq | Ne | Gt | Lt | Ge | Le)
}

fn compares(op: BinaryOp, l: f64, r: f64) -> bool {
    match op {
        BinaryOp::Eq => l == r,
        BinaryOp::Ne => l != r,
        BinaryOp::Gt => l > r,
        BinaryOp::Lt => l < r,
        BinaryOp::Ge => l >= r,
        BinaryOp::Le => l <= r,
        _ => false,
    }
}

/// Calls `$run!` with the float function of an arithmetic operator, so that loops are compiled for each.
macro_rules! arithmetic {
    ($op:expr, $run:ident, $other:expr) => {
        match $op {
            BinaryOp::Add => $run!(|l: f64, r: f64| l + r),
            BinaryOp::Sub => $run!(|l: f64, r: f64| l - r),
            BinaryOp::Mul => $run!(|l: f64, r: f64| l * r),
            BinaryOp::Div => $run!(|l: f64, r: f64| l / r),
            BinaryOp::Mod => $run!(|l: f64, r: f64| l % r),
            BinaryOp::Pow => $run!(|l: f64, r: f64| pow(l, r)),
            BinaryOp::Atan2 => $run!(|l: f64, r: f64| l.atan2(r)),
            _ => $other,
        }
    };
}

/// `lhs op rhs` for scalars, step by step, into `lhs`. Comparisons give 1 or 0.
pub(super) fn scalars(op: BinaryOp, lhs: &mut [f64], rhs: &[f64]) -> Result<(), EvalError> {
    macro_rules! run {
        ($f:expr) => {{
            let f = $f;
            lhs.iter_mut().zip(rhs).for_each(|(l, r)| *l = f(*l, *r));
        }};
    }
    arithmetic!(op, run, {
        if !is_comparison(op) {
            let text = format!("operator {:?} not allowed for Scalar operations", symbol(op));
            return Err(EvalError::Invalid(text));
        }
        lhs.iter_mut().zip(rhs).for_each(|(l, r)| *l = f64::from(u8::from(compares(op, *l, *r))));
    });
    Ok(())
}

/// What a comparison or arithmetic operation leaves of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The values that satisfy a comparison.
    Matching,
    /// 1 or 0 (`bool`).
    Truth,
}

/// `lhs op rhs` for columns of floats only, into `lhs`: absent where either is. With `right`, a comparison leaves the
/// right value instead of the left.
pub(super) fn floats(op: BinaryOp, lhs: &mut [f64], rhs: &[f64], keep: Keep, right: bool) {
    macro_rules! run {
        ($f:expr) => {{
            let f = $f;
            for (l, r) in lhs.iter_mut().zip(rhs) {
                let value = f(*l, *r);
                *l = if is_absent(*l) || is_absent(*r) { ABSENT } else { value };
            }
        }};
    }
    arithmetic!(op, run, {
        for (l, r) in lhs.iter_mut().zip(rhs) {
            if is_absent(*l) || is_absent(*r) {
                *l = ABSENT;
                continue;
            }
            let holds = compares(op, *l, *r);
            *l = match keep {
                Keep::Truth => f64::from(u8::from(holds)),
                Keep::Matching if !holds => ABSENT,
                Keep::Matching if right => *r,
                Keep::Matching => *l,
            };
        }
    });
}

/// Flips the sign of everything.
pub(super) fn negate(column: &mut Column) {
    for value in column.floats.iter_mut().filter(|v| !is_absent(**v)) {
        *value = -*value;
    }
    for histogram in column.histograms.iter_mut().flatten() {
        let mut h = (**histogram).clone();
        mul(&mut h, -1.0);
        *histogram = Arc::new(h);
    }
}

/// The outcome for two operands.
pub(super) struct Pairing {
    /// The value, also when a comparison does not hold.
    pub(super) value: Cell,
    /// The comparison holds (always, for other operators).
    pub(super) keep: bool,
}

impl Evaluator<'_> {
    /// `lhs op rhs` for any kinds of operand. Nothing, and an annotation, where the operator is not defined for them.
    pub(super) fn pair(&self, op: BinaryOp, lhs: &Cell, rhs: &Cell, span: Span) -> Option<Pairing> {
        let some = |value: Cell| Some(Pairing { value, keep: true });
        let made = |h: model::Histogram| {
            let mut h = h;
            compact(&mut h);
            some(Cell::Histogram(Arc::new(h)))
        };
        let (left, right) = match (lhs, rhs) {
            (Cell::Float(l), Cell::Float(r)) => {
                if is_comparison(op) {
                    return Some(Pairing { value: lhs.clone(), keep: compares(op, *l, *r) });
                }
                let mut value = [*l];
                if changes_metric(op) {
                    floats(op, &mut value, &[*r], Keep::Matching, false);
                    return some(Cell::Float(value[0]));
                }
                ("float", "float")
            }
            (Cell::Float(l), Cell::Histogram(r)) => {
                if op == BinaryOp::Mul {
                    let mut h = (**r).clone();
                    mul(&mut h, *l);
                    return made(h);
                }
                ("float", "histogram")
            }
            (Cell::Histogram(l), Cell::Float(r)) => {
                let mut h = (**l).clone();
                match op {
                    BinaryOp::Mul => mul(&mut h, *r),
                    BinaryOp::Div => div(&mut h, *r),
                    BinaryOp::TrimUpper | BinaryOp::TrimLower => {
                        trim(&mut h, *r, op == BinaryOp::TrimUpper);
                        return some(Cell::Histogram(Arc::new(h)));
                    }
                    _ => {
                        self.note(|n| n.incompatible_types("histogram", symbol(op), "float", span));
                        return None;
                    }
                }
                return made(h);
            }
            (Cell::Histogram(l), Cell::Histogram(r)) => match op {
                BinaryOp::Eq => return Some(Pairing { value: lhs.clone(), keep: equals(l, r) }),
                BinaryOp::Ne => return Some(Pairing { value: lhs.clone(), keep: !equals(l, r) }),
                BinaryOp::Add | BinaryOp::Sub => {
                    let mut h = (**l).clone();
                    let adding = op == BinaryOp::Add;
                    let outcome = if adding { add(&mut h, r) } else { sub(&mut h, r) };
                    let Ok(outcome) = outcome else {
                        self.note(|n| n.incompatible_buckets(symbol(op), span));
                        return None;
                    };
                    let operation = if adding { Operation::Addition } else { Operation::Subtraction };
                    if outcome.reconciled {
                        self.note(|n| n.mismatched_custom_buckets(operation, span));
                    }
                    if outcome.resets_collide {
                        self.note(|n| n.reset_collision(operation, span));
                    }
                    if !adding {
                        h.reset_hint = ResetHint::Gauge;
                    }
                    return made(h);
                }
                _ => ("histogram", "histogram"),
            },
        };
        self.note(|n| n.incompatible_types(left, symbol(op), right, span));
        None
    }
}
