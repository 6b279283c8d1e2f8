//! Closes an expression: `@` and `offset` become times, duration expressions become numbers, functions of the query's
//! own times become numbers, superfluous parentheses go, and parts that are the same at every step are marked.
//!
//! Not here: evaluation (`eval`), parsing and type checks (`promql`).

use model::StepGrid;
use promql::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, DurationExpr, Expr, ExprKind, Modifiers, Selector, Subquery,
};
use promql::duration::QueryTimes;

use crate::plan::{Call, Group, Kind, Node, Pair, Reference, Select, Shift, Sub};
use crate::{EvalContext, EvalError};

/// Deeper expressions are refused, since evaluation recurses once a level. The parser's own limits are lower.
const MAX_DEPTH: usize = 1250;

/// Functions whose result depends on the step's time even when their arguments do not.
fn depends_on_step(name: &str) -> bool {
    matches!(
        name,
        "days_in_month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "hour"
            | "minute"
            | "month"
            | "year"
            | "predict_linear"
            | "time"
            | "timestamp"
    )
}

/// Closes `expr` for a query over `grid`.
pub(crate) fn close(expr: &Expr, grid: StepGrid, ctx: &EvalContext) -> Result<Node, EvalError> {
    let times = Times {
        start: grid.start,
        end: ctx.end_ms,
        step: if ctx.is_instant { 0 } else { grid.step },
        subquery_step: ctx.subquery_step_ms.max(1),
    };
    let (mut node, fate) = times.build(expr, Place::default())?;
    node.once = fate.wrap;
    Ok(node)
}

/// Closes an expression that was closed before, when it was a part of a larger one; `counts_only`: it stood below a
/// function of counts and sums of histograms.
pub(crate) fn close_part(expr: &Expr, counts_only: bool) -> Result<Node, EvalError> {
    let times = Times { start: 0, end: 0, step: 0, subquery_step: 1 };
    let place = Place { stats: counts_only, ..Place::default() };
    Ok(times.build(expr, place)?.0)
}

/// The query's own times, ms.
struct Times {
    start: i64,
    end: i64,
    /// 0 in an instant query.
    step: i64,
    subquery_step: i64,
}

/// Whether a node is the same at every step, and whether marking it so is of use.
#[derive(Clone, Copy)]
struct Fate {
    same: bool,
    wrap: bool,
}

/// Where in the expression a node stands.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    /// Below a function of counts and sums of histograms.
    stats: bool,
    /// Below something that needs histograms as they are.
    whole: bool,
}

impl Place {
    /// The place of what is directly inside a node of `kind` that stands here.
    fn inside(self, kind: &ExprKind) -> Self {
        let mut place = Self { depth: self.depth + 1, ..self };
        match kind {
            ExprKind::Subquery(_) => place.whole = true,
            ExprKind::Call(call) => match call.function.name {
                "histogram_count" | "histogram_sum" | "histogram_avg" => place.stats = true,
                "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" | "changes" => {
                    place.whole = true
                }
                _ => {}
            },
            ExprKind::Aggregate(a) => place.whole |= a.op == AggregateOp::CountValues,
            ExprKind::Binary(b) => {
                use BinaryOp::{Eq, Ne, TrimLower, TrimUpper};
                place.whole |= matches!(b.op, Eq | Ne | TrimLower | TrimUpper);
            }
            _ => {}
        }
        place
    }
}

impl Fate {
    const CHANGES: Self = Self { same: false, wrap: false };
}

impl Times {
    fn build(&self, expr: &Expr, outer: Place) -> Result<(Node, Fate), EvalError> {
        if outer.depth > MAX_DEPTH {
            return Err(EvalError::Invalid(format!(
                "expression is nested more than {MAX_DEPTH} levels deep"
            )));
        }
        let place = outer.inside(&expr.kind);
        let (kind, fate) = match &expr.kind {
            ExprKind::Number { value, .. } => (Kind::Number(*value), Fate { same: true, wrap: false }),
            ExprKind::String(text) => (Kind::Text(text.clone()), Fate { same: true, wrap: false }),
            ExprKind::Bytes(bytes) => (Kind::Bytes(bytes.clone()), Fate { same: true, wrap: false }),
            ExprKind::Selector(s) => {
                let select = self.select(s, place)?;
                let fixed = select.time.at.is_some();
                (Kind::Select(select), Fate { same: fixed, wrap: fixed })
            }
            ExprKind::Matrix(m) => {
                let select = self.select(&m.selector, place)?;
                let range = self.duration(m.range_ms, m.range_expr.as_ref(), false)?;
                let fixed = select.time.at.is_some();
                (Kind::Matrix(select, range), Fate { same: fixed, wrap: false })
            }
            ExprKind::Subquery(s) => self.subquery(s, place)?,
            ExprKind::Call(call) => {
                if let Some(value) = self.own_time(call.function.name) {
                    (Kind::Number(value), Fate { same: true, wrap: false })
                } else {
                    self.call(call.function.name, &call.args, place)?
                }
            }
            ExprKind::Aggregate(a) => self.aggregate(a, place)?,
            ExprKind::Binary(b) => self.binary(b, place)?,
            ExprKind::Unary(minus, inner) => {
                let (inner, fate) = self.build(inner, place)?;
                (if *minus { Kind::Negate(Box::new(inner)) } else { Kind::Plus(Box::new(inner)) }, fate)
            }
            ExprKind::Paren(inner) => return self.build(inner, place),
        };
        Ok((Node { kind, span: expr.span, once: false, remote: None }, fate))
    }

    /// The value of functions that only name the query's own times.
    fn own_time(&self, name: &str) -> Option<f64> {
        match name {
            "start" => Some(self.start as f64 / 1000.0),
            "end" => Some(self.end as f64 / 1000.0),
            "range" => Some((self.end - self.start) as f64 / 1000.0),
            "step" => Some(if self.start == self.end { 0.0 } else { self.step as f64 / 1000.0 }),
            _ => None,
        }
    }

    fn select(&self, s: &Selector, place: Place) -> Result<Select, EvalError> {
        Ok(Select {
            matchers: s.matchers.clone(),
            time: self.shift(&s.modifiers)?,
            extended: s.extended,
            stats: place.stats && !place.whole,
        })
    }

    fn shift(&self, m: &Modifiers) -> Result<Shift, EvalError> {
        let offset = self.duration(m.offset_ms, m.offset_expr.as_ref(), true)?;
        let at = m.at.map(|at| match at {
            At::Time(t) => t,
            At::Start => self.start,
            At::End => self.end,
        });
        Ok(Shift { at, offset })
    }

    fn subquery(&self, s: &Subquery, place: Place) -> Result<(Kind, Fate), EvalError> {
        let (mut inner, fate) = self.build(&s.expr, place)?;
        inner.once = fate.same;
        let range = self.duration(s.range_ms, s.range_expr.as_ref(), false)?;
        let step = match self.duration(s.step_ms, s.step_expr.as_ref(), false)? {
            0 => self.subquery_step,
            step => step,
        };
        let time = self.shift(&s.modifiers)?;
        let fixed = time.at.is_some();
        Ok((Kind::Subquery(Box::new(Sub { inner, range, step, time })), Fate { same: fixed, wrap: false }))
    }

    fn call(&self, name: &'static str, args: &[Expr], place: Place) -> Result<(Kind, Fate), EvalError> {
        let mut same = !depends_on_step(name);
        let mut timestamp_of_fixed = name == "timestamp";
        let mut nodes = Vec::with_capacity(args.len());
        let mut wraps = Vec::with_capacity(args.len());
        for arg in args {
            let (node, fate) = self.build(arg, place)?;
            same &= fate.same;
            timestamp_of_fixed &= fate.same && matches!(node.kind, Kind::Select(_));
            nodes.push(node);
            wraps.push(fate.wrap);
        }
        if name == "info" {
            // Its info series are looked up at the step's time unless its argument is pinned to one.
            same &= matches!(nodes.first().map(Node::reference), Some(Reference::Fixed(_)));
        }
        let fate = if same || timestamp_of_fixed {
            Fate { same: true, wrap: true }
        } else {
            for (node, wrap) in nodes.iter_mut().zip(wraps) {
                node.once = wrap;
            }
            Fate::CHANGES
        };
        Ok((Kind::Call(Call { name, args: nodes }), fate))
    }

    fn aggregate(&self, a: &Aggregate, place: Place) -> Result<(Kind, Fate), EvalError> {
        let (inner, mut fate) = self.build(&a.expr, place)?;
        let param = match &a.param {
            None => None,
            Some(param) => {
                let (mut node, of_param) = self.build(param, place)?;
                // A parameter that changes makes the whole change.
                fate = if of_param.same { fate } else { Fate::CHANGES };
                node.once = of_param.wrap && !fate.same;
                Some(node)
            }
        };
        let mut labels = a.grouping.clone();
        labels.sort_unstable();
        Ok((Kind::Aggregate(Box::new(Group { op: a.op, inner, param, labels, without: a.without })), fate))
    }

    fn binary(&self, b: &Binary, place: Place) -> Result<(Kind, Fate), EvalError> {
        let (mut lhs, left) = self.build(&b.lhs, place)?;
        let (mut rhs, right) = self.build(&b.rhs, place)?;
        let fate = if left.same && right.same {
            Fate { same: true, wrap: true }
        } else {
            lhs.once = left.wrap;
            rhs.once = right.wrap;
            Fate::CHANGES
        };
        let pair = Pair { op: b.op, lhs, rhs, matching: b.matching.clone(), return_bool: b.return_bool };
        Ok((Kind::Binary(Box::new(pair)), fate))
    }

    /// A duration in ms: `literal`, or the value of `expr`.
    fn duration(&self, literal: i64, expr: Option<&DurationExpr>, is_offset: bool) -> Result<i64, EvalError> {
        let Some(expr) = expr else { return Ok(literal) };
        let times = QueryTimes { step_ms: self.step, range_ms: self.end - self.start };
        expr.milliseconds(times, is_offset).map_err(|e| EvalError::Invalid(e.to_string()))
    }
}
