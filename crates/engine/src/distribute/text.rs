//! A closed expression as canonical text, and back: the form in which a part of a query travels.
//!
//! The text has other offsets than the query that the user wrote, so the spans of the original travel beside it, in
//! the order in which a walk from the top meets the expressions. What does not come back as exactly the same plan is
//! not sent: then its series move instead.

use model::{METRIC_NAME, MatchOp, Matcher};
use promql::ast::{
    Aggregate, At, Binary, Call as CallExpr, Expr, ExprKind, MatrixSelector, Modifiers, Selector, Span,
    Subquery,
};
use promql::{ParseOptions, functions, parse};

use crate::close::close_part;
use crate::plan::{Kind, Node, Select, Shift};

/// A part of a query as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartText {
    /// Canonical text.
    pub(crate) text: String,
    /// Where its expressions stood in the query, from the top.
    pub(crate) spans: Vec<Span>,
    /// The part stands below something that asks only for counts and sums of histograms.
    pub(crate) counts_only: bool,
}

impl PartText {
    /// The text of `node`; nothing when it would not come back as the same.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let expr = expr_of(node, None)?;
        let mut spans = Vec::new();
        collect_spans(&expr, &mut spans);
        let text = expr.to_string();
        [false, true].into_iter().find_map(|counts_only| {
            let part = Self { text: text.clone(), spans: spans.clone(), counts_only };
            part.open().ok().filter(|back| same(back, node)).map(|_| part)
        })
    }

    /// The closed expression again.
    pub(crate) fn open(&self) -> Result<Node, String> {
        let mut expr = parse(&self.text, &ParseOptions::ALL).map_err(|e| e.to_string())?;
        let mut spans = self.spans.iter();
        if !set_spans(&mut expr, &mut spans) || spans.next().is_some() {
            return Err("the spans do not fit the expression".into());
        }
        close_part(&expr, self.counts_only).map_err(|e| e.to_string())
    }
}

/// The text of `node` with what was pushed as `part_0`, `part_1` …: for people.
pub(crate) fn outline(node: &Node) -> String {
    expr_of(node, Some(())).map_or_else(|| "?".to_owned(), |expr| expr.to_string())
}

/// The text of a selector alone.
pub(crate) fn selector_text(matchers: &[Matcher]) -> String {
    let selector = Selector {
        name: name_of(matchers),
        matchers: matchers.to_vec(),
        modifiers: Modifiers::default(),
        extended: promql::ast::Extended::None,
    };
    selector.to_string()
}

fn name_of(matchers: &[Matcher]) -> String {
    match matchers.last() {
        Some(last) if last.name() == METRIC_NAME && last.op() == MatchOp::Equal => last.value().to_owned(),
        _ => String::new(),
    }
}

fn selector_of(select: &Select) -> Selector {
    Selector {
        name: name_of(&select.matchers),
        matchers: select.matchers.clone(),
        modifiers: modifiers_of(select.time),
        extended: select.extended,
    }
}

fn modifiers_of(time: Shift) -> Modifiers {
    Modifiers { offset_ms: time.offset, offset_expr: None, at: time.at.map(At::Time) }
}

fn expr_of(node: &Node, outline: Option<()>) -> Option<Expr> {
    let inside = |node: &Node| expr_of(node, outline);
    // Parentheses wherever the printer would have to think about precedence.
    let guarded = |node: &Node| {
        let expr = inside(node)?;
        Some(match &expr.kind {
            ExprKind::Call(_) | ExprKind::Aggregate(_) => expr,
            ExprKind::Number { value, .. } if value.is_sign_positive() => expr,
            ExprKind::Selector(s) if s.modifiers == Modifiers::default() => expr,
            _ => Expr { span: expr.span, kind: ExprKind::Paren(Box::new(expr)) },
        })
    };
    if let (Some(()), Some(at)) = (outline, node.remote) {
        let name = format!("part_{at}");
        let matchers = vec![Matcher::equal(METRIC_NAME, name.as_str())];
        let selector = Selector {
            name,
            matchers,
            modifiers: Modifiers::default(),
            extended: promql::ast::Extended::None,
        };
        return Some(Expr { kind: ExprKind::Selector(Box::new(selector)), span: node.span });
    }
    let kind = match &node.kind {
        Kind::Number(value) => ExprKind::Number { value: *value, is_duration: false },
        Kind::Text(text) => ExprKind::String(text.clone()),
        Kind::Bytes(bytes) => ExprKind::Bytes(bytes.clone()),
        Kind::Select(select) => ExprKind::Selector(Box::new(selector_of(select))),
        Kind::Matrix(select, range) => ExprKind::Matrix(Box::new(MatrixSelector {
            selector: selector_of(select),
            selector_span: node.span,
            range_ms: *range,
            range_expr: None,
        })),
        Kind::Subquery(sub) => ExprKind::Subquery(Box::new(Subquery {
            expr: guarded(&sub.inner)?,
            range_ms: sub.range,
            range_expr: None,
            step_ms: sub.step,
            step_expr: None,
            modifiers: modifiers_of(sub.time),
        })),
        Kind::Call(call) => ExprKind::Call(Box::new(CallExpr {
            function: functions::lookup(call.name)?,
            args: call.args.iter().map(inside).collect::<Option<_>>()?,
        })),
        Kind::Aggregate(group) => ExprKind::Aggregate(Box::new(Aggregate {
            op: group.op,
            expr: inside(&group.inner)?,
            param: match &group.param {
                None => None,
                Some(param) => Some(inside(param)?),
            },
            grouping: group.labels.clone(),
            without: group.without,
        })),
        Kind::Binary(pair) => ExprKind::Binary(Box::new(Binary {
            op: pair.op,
            lhs: guarded(&pair.lhs)?,
            rhs: guarded(&pair.rhs)?,
            matching: pair.matching.clone(),
            return_bool: pair.return_bool,
        })),
        Kind::Negate(inner) => ExprKind::Unary(true, Box::new(guarded(inner)?)),
        Kind::Plus(inner) => ExprKind::Unary(false, Box::new(guarded(inner)?)),
    };
    Some(Expr { kind, span: node.span })
}

fn collect_spans(expr: &Expr, spans: &mut Vec<Span>) {
    spans.push(expr.span);
    expr.children().into_iter().for_each(|child| collect_spans(child, spans));
}

fn set_spans<'s>(expr: &mut Expr, spans: &mut impl Iterator<Item = &'s Span>) -> bool {
    let Some(span) = spans.next() else { return false };
    expr.span = *span;
    expr.children_mut().into_iter().all(|child| set_spans(child, spans))
}

/// Whether two closed expressions are the same, but for the marks of what is evaluated only once at the very top.
fn same(a: &Node, b: &Node) -> bool {
    let inside = |a: &Node, b: &Node| a.once == b.once && same(a, b);
    let all = |a: &[Node], b: &[Node]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| inside(a, b));
    a.span == b.span
        && match (&a.kind, &b.kind) {
            (Kind::Number(x), Kind::Number(y)) => x.to_bits() == y.to_bits(),
            (Kind::Text(x), Kind::Text(y)) => x == y,
            (Kind::Bytes(x), Kind::Bytes(y)) => x == y,
            (Kind::Select(x), Kind::Select(y)) => same_select(x, y),
            (Kind::Matrix(x, r), Kind::Matrix(y, s)) => r == s && same_select(x, y),
            (Kind::Subquery(x), Kind::Subquery(y)) => {
                x.range == y.range && x.step == y.step && x.time == y.time && inside(&x.inner, &y.inner)
            }
            (Kind::Call(x), Kind::Call(y)) => x.name == y.name && all(&x.args, &y.args),
            (Kind::Aggregate(x), Kind::Aggregate(y)) => {
                x.op == y.op
                    && x.labels == y.labels
                    && x.without == y.without
                    && inside(&x.inner, &y.inner)
                    && match (&x.param, &y.param) {
                        (None, None) => true,
                        (Some(x), Some(y)) => inside(x, y),
                        _ => false,
                    }
            }
            (Kind::Binary(x), Kind::Binary(y)) => {
                x.op == y.op
                    && x.matching == y.matching
                    && x.return_bool == y.return_bool
                    && inside(&x.lhs, &y.lhs)
                    && inside(&x.rhs, &y.rhs)
            }
            (Kind::Negate(x), Kind::Negate(y)) | (Kind::Plus(x), Kind::Plus(y)) => inside(x, y),
            _ => false,
        }
}

fn same_select(a: &Select, b: &Select) -> bool {
    let sorted = |select: &Select| {
        let mut all: Vec<String> = select.matchers.iter().map(ToString::to_string).collect();
        all.sort_unstable();
        all
    };
    a.time == b.time && a.extended == b.extended && a.stats == b.stats && sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalContext, close};
    use model::seam::QueryBudget;
    use model::{StepGrid, TenantId};

    fn check(query: &str, expected: &str) {
        let expr = parse(query, &ParseOptions::ALL).unwrap();
        let ctx = EvalContext::range(TenantId::anonymous(), 7_200_000, QueryBudget::unlimited());
        let node = close::close(&expr, StepGrid::range(-1000, 7_200_000, 60_000), &ctx).unwrap();
        let part = PartText::of(&node).unwrap_or_else(|| panic!("{query} does not come back"));
        assert_eq!(part.text, expected);
        assert!(same(&part.open().unwrap(), &node));
    }

    #[test]
    fn parts_come_back_as_they_were() {
        check("sum by (b, a) (rate(x[5m]))", "sum by (a, b) (rate(x[5m]))");
        check("x @ end() offset -1m", "x @ 7200.000 offset -1m");
        check("x ^ start() ^ 2", "x ^ ((-1) ^ 2)");
        check("(x + -1) * 2", "(x + (-1)) * 2");
        check("-(x)", "-x");
        check("-x ^ 2", "-(x ^ 2)");
        check("max_over_time((x offset 1m)[step()*5:] @ 5)", "max_over_time((x offset 1m)[5m:1m] @ 5.000)");
        check("histogram_count(sum(rate(h[5m])))", "histogram_count(sum(rate(h[5m])))");
        check(
            r#"{"a.b", c=~"d|e", z!="", __name__!="q"}"#,
            r#"{__name__!="q",__name__="a.b",c=~"d|e",z!=""}"#,
        );
        check("topk(2, x) > bool 1", "topk(2, x) > bool 1");
        check("x / ignoring (le) y", "x / ignoring (le) y");
        check("x > Inf", "x > +Inf");
        check("x > NaN", "x > NaN");
        check("x * -0", "x * (-0)");
    }

    #[test]
    fn what_stands_below_counts_is_told() {
        let expr = parse("histogram_count(sum(h))", &ParseOptions::ALL).unwrap();
        let ctx = EvalContext::instant(TenantId::anonymous(), 0, QueryBudget::unlimited());
        let node = close::close(&expr, StepGrid::instant(0), &ctx).unwrap();
        let Kind::Call(call) = &node.kind else { panic!("a call") };
        let part = PartText::of(&call.args[0]).unwrap();
        assert!(part.counts_only);
        assert_eq!(part.spans[0], call.args[0].span);
    }
}
