//! Types, argument counts and the other rules that a grammar cannot say, in upstream's order and words
//! (`promql/parser/parse.go`, `checkAST`). Also settles what depends on types: set operators match many to
//! many, and only two vectors are matched at all.

use model::METRIC_NAME;

use crate::ast::{
    AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Selector, Span, ValueType,
    VectorMatching,
};
use crate::error::Findings;
use crate::quote::quote;

/// Checks the tree of `text`, which had no syntax errors.
pub(crate) fn check(text: &str, expr: &mut Expr, findings: &mut Findings) {
    Checker { text, findings }.expr(expr);
}

struct Checker<'a> {
    text: &'a str,
    findings: &'a mut Findings,
}

/// A binary operation apart from its left side, of which the place is left.
struct Operation<'e> {
    op: BinaryOp,
    left: Span,
    rhs: &'e mut Expr,
    matching: &'e mut Option<VectorMatching>,
    return_bool: bool,
    span: Span,
}

impl Checker<'_> {
    fn expr(&mut self, expr: &mut Expr) -> ValueType {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::Number { .. } => ValueType::Scalar,
            ExprKind::String(_) | ExprKind::Bytes(_) => ValueType::String,
            ExprKind::Selector(selector) => {
                self.selector(selector, span, false);
                ValueType::Vector
            }
            ExprKind::Matrix(matrix) => {
                self.selector(&matrix.selector, matrix.selector_span, false);
                ValueType::Matrix
            }
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Unary(_, inner) => {
                let got = self.expr(inner);
                if !matches!(got, ValueType::Scalar | ValueType::Vector) {
                    let got = quote(got.documented());
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {got}"
                    );
                    self.findings.push(span, message);
                }
                got
            }
            ExprKind::Subquery(subquery) => {
                let got = self.expr(&mut subquery.expr);
                if got != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", got.as_str());
                    self.findings.push(span, message);
                }
                ValueType::Matrix
            }
            ExprKind::Aggregate(aggregate) => {
                self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression");
                if let Some(param) = &mut aggregate.param {
                    let wanted = match aggregate.op {
                        AggregateOp::CountValues => ValueType::String,
                        _ => ValueType::Scalar,
                    };
                    self.expect(param, wanted, "aggregation parameter");
                }
                ValueType::Vector
            }
            ExprKind::Binary(_) => self.chain(expr),
            ExprKind::Call(call) => {
                self.call(call, span);
                call.function.returns
            }
        }
    }

    fn expect(&mut self, expr: &mut Expr, wanted: ValueType, place: &str) {
        let got = self.expr(expr);
        if got != wanted {
            let message =
                format!("expected type {} in {place}, got {}", wanted.documented(), got.documented());
            self.findings.push(expr.span, message);
        }
    }

    fn selector(&mut self, selector: &Selector, span: Span, may_be_empty: bool) {
        if !selector.name.is_empty() {
            let others = selector.matchers.len().saturating_sub(1);
            for matcher in selector.matchers[..others].iter().filter(|m| m.name() == METRIC_NAME) {
                let (first, second) = (quote(&selector.name), quote(matcher.value()));
                self.findings.push(span, format!("metric name must not be set twice: {first} or {second}"));
            }
        } else if !may_be_empty && selector.matchers.iter().all(|m| m.matches_empty()) {
            self.findings.push(span, "vector selector must contain at least one non-empty matcher");
        }
    }

    /// A binary operation. What leans to the left, as long chains do, is walked without recursion, innermost first.
    fn chain(&mut self, mut expr: &mut Expr) -> ValueType {
        let mut operations = Vec::new();
        while let Expr { kind: ExprKind::Binary(binary), span } = expr {
            let Binary { op, lhs, rhs, matching, return_bool } = &mut **binary;
            let left = lhs.span;
            operations.push(Operation {
                op: *op,
                left,
                rhs,
                matching,
                return_bool: *return_bool,
                span: *span,
            });
            expr = lhs;
        }
        let mut got = self.expr(expr);
        while let Some(operation) = operations.pop() {
            got = self.operation(operation, got);
        }
        got
    }

    /// One operation whose left side is checked and of type `left`.
    fn operation(&mut self, operation: Operation<'_>, left: ValueType) -> ValueType {
        let Operation { op, left: left_span, rhs, matching, return_bool, span } = operation;
        let right = self.expr(rhs);
        let operator = self.operator_span(left_span, rhs.span);
        if return_bool && !op.is_comparison() {
            self.findings.push(operator, "bool modifier can only be used on comparison operators");
        }
        let scalars = [left, right].iter().filter(|t| **t == ValueType::Scalar).count();
        if op.is_comparison() && !return_bool && scalars == 2 {
            self.findings.push(operator, "comparisons between scalars must use BOOL modifier");
        }
        if let Some(matching) = matching {
            if op.is_set() && matching.cardinality == Cardinality::OneToOne {
                matching.cardinality = Cardinality::ManyToMany;
            }
            for label in matching.labels.iter().filter(|_| matching.on) {
                for _ in matching.include.iter().filter(|included| *included == label) {
                    let message =
                        format!("label {} must not occur in ON and GROUP clause at once", quote(label));
                    self.findings.push(operator, message);
                }
            }
        }
        for (side, got) in [(left_span, left), (rhs.span, right)] {
            if !matches!(got, ValueType::Scalar | ValueType::Vector) {
                self.findings
                    .push(side, "binary expression must contain only scalar and instant vector types");
            }
        }
        if left != ValueType::Vector || right != ValueType::Vector {
            if let Some(matching) = matching.take() {
                if !matching.labels.is_empty() {
                    self.findings.push(span, "vector matching only allowed between instant vectors");
                }
                if matching.fills() {
                    self.findings
                        .push(span, "filling in missing series only allowed between instant vectors");
                }
            }
        } else if let (true, Some(matching)) = (op.is_set(), &*matching) {
            if matches!(matching.cardinality, Cardinality::OneToMany | Cardinality::ManyToOne) {
                self.findings.push(span, format!("no grouping allowed for {} operation", quote(op.as_str())));
                self.findings.push(span, "set operations must always be many-to-many");
            }
            if matching.fills() {
                self.findings.push(span, "filling in missing series not allowed for set operators");
            }
        }
        if scalars > 0 && op.is_set() {
            let message =
                format!("set operator {} not allowed in binary scalar expression", quote(op.as_str()));
            self.findings.push(span, message);
        }
        if scalars == 2 { ValueType::Scalar } else { ValueType::Vector }
    }

    /// From the operator to the right side.
    fn operator_span(&self, left: Span, right: Span) -> Span {
        let is_space =
            |at: &u32| matches!(self.text.as_bytes().get(*at as usize), Some(b' ' | b'\t' | b'\n' | b'\r'));
        let mut start = left.end;
        while is_space(&start) {
            start += 1;
        }
        Span { start, end: right.start.max(start) }
    }

    fn call(&mut self, call: &mut Call, span: Span) {
        let function = call.function;
        let (name, wanted, count) = (quote(function.name), function.args.len(), call.args.len());
        if function.variadic == 0 {
            if wanted != count {
                self.findings
                    .push(span, format!("expected {wanted} argument(s) in call to {name}, got {count}"));
            }
        } else {
            let least = wanted - 1;
            let most = usize::try_from(function.variadic).ok().map(|extra| least + extra);
            if least > count {
                let message = format!("expected at least {least} argument(s) in call to {name}, got {count}");
                self.findings.push(span, message);
            } else if let Some(most) = most.filter(|most| *most < count) {
                let message = format!("expected at most {most} argument(s) in call to {name}, got {count}");
                self.findings.push(span, message);
            }
        }
        let is_info = function.name == "info";
        if let (true, Some(labels)) = (is_info, call.args.get(1)) {
            self.info_labels(labels, span);
        }
        for (index, arg) in call.args.iter_mut().enumerate() {
            if index >= wanted && function.variadic == 0 {
                break;
            }
            // All functions that take more arguments than they list list at least one.
            let Some(type_) = function.args.get(index).or(function.args.last()) else { break };
            let arg_span = arg.span;
            let got = match &arg.kind {
                ExprKind::Selector(selector) if is_info && index == 1 => {
                    self.selector(selector, arg_span, true);
                    ValueType::Vector
                }
                _ => self.expr(arg),
            };
            if got != *type_ {
                let message = format!(
                    "expected type {} in call to function {name}, got {}",
                    type_.documented(),
                    got.documented()
                );
                self.findings.push(arg_span, message);
            }
        }
    }

    /// The second argument of `info` is a selector without a name, read as label matchers.
    fn info_labels(&mut self, labels: &Expr, call_span: Span) {
        let got = labels.value_type();
        if got != ValueType::Vector {
            let message = format!(
                "expected type instant vector in call to function \"info\", got {}",
                got.documented()
            );
            self.findings.push(call_span, message);
        }
        match &labels.kind {
            ExprKind::Selector(selector) if selector.name.is_empty() => {}
            ExprKind::Selector(_) => {
                let message = "expected label selectors only, got vector selector instead";
                self.findings.push(labels.span, message);
            }
            _ => self.findings.push(labels.span, "expected label selectors only"),
        }
    }
}
