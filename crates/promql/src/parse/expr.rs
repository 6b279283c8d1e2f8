//! Operators, literals, parentheses, calls and aggregations.

use super::{Context, Parsed, Parser};
use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Span, VectorMatching,
};
use crate::functions;
use crate::quote::quote;
use crate::token::{Keyword, Kind, Token, Word};

/// The level of `^`, which binds tighter than the unary operators.
const POWER: u8 = 6;

/// How tightly an operator binds.
pub(super) fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Gt
        | BinaryOp::Lt
        | BinaryOp::Ge
        | BinaryOp::Le
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => POWER,
    }
}

impl Parser<'_> {
    /// An expression whose operators outside of parentheses bind at least as tightly as `min`.
    pub(super) fn expr(&mut self, min: u8) -> Parsed<Expr> {
        let mut lhs = self.unary()?;
        while let Kind::Operator(op) = self.token.kind {
            let level = precedence(op);
            if level < min {
                break;
            }
            self.count_operator(self.token.span)?;
            self.advance()?;
            let (matching, return_bool) = self.matching()?;
            let rhs =
                if op == BinaryOp::Pow { self.nested(|p| p.expr(POWER))? } else { self.expr(level + 1)? };
            let span = Span { start: lhs.span.start, end: rhs.span.end };
            if !self.options.fill_modifiers && (matching.fill_left.is_some() || matching.fill_right.is_some())
            {
                self.findings.push(span, "binop fill modifiers are experimental and not enabled");
            }
            let binary = Binary { op, lhs, rhs, matching: Some(matching), return_bool };
            lhs = Expr { kind: ExprKind::Binary(Box::new(binary)), span };
        }
        Ok(lhs)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let minus = match self.token.kind {
            Kind::Operator(BinaryOp::Sub) => true,
            Kind::Operator(BinaryOp::Add) => false,
            _ => {
                let primary = self.primary()?;
                return self.modifiers(primary);
            }
        };
        let sign = self.advance()?;
        let operand = self.nested(|p| p.expr(POWER))?;
        let span = Span { start: sign.span.start, end: operand.span.end };
        let kind = match operand.kind {
            ExprKind::Number { value, is_duration } => {
                ExprKind::Number { value: if minus { -value } else { value }, is_duration }
            }
            _ => ExprKind::Unary(minus, Box::new(operand)),
        };
        Ok(Expr { kind, span })
    }

    /// What may stand between an operator and its right side.
    fn matching(&mut self) -> Parsed<(VectorMatching, bool)> {
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.accept(Kind::Keyword(Keyword::Bool))?;
        if let Kind::Keyword(keyword @ (Keyword::On | Keyword::Ignoring)) = self.token.kind {
            self.advance()?;
            matching.on = keyword == Keyword::On;
            matching.labels = self.grouping_labels()?;
            if let Kind::Keyword(keyword @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.token.kind {
                self.advance()?;
                matching.cardinality = match keyword {
                    Keyword::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                let fills = matches!(
                    self.token.kind,
                    Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)
                );
                // Without labels, the right side must follow, or a filling.
                if self.token.kind == Kind::LeftParen || !fills && !self.token.kind.starts_expression() {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        match self.token.kind {
            Kind::Keyword(Keyword::Fill) => {
                let value = Some(self.fill_value()?);
                (matching.fill_left, matching.fill_right) = (value, value);
            }
            Kind::Keyword(Keyword::FillLeft) => {
                matching.fill_left = Some(self.fill_value()?);
                if self.token.kind == Kind::Keyword(Keyword::FillRight) {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Kind::Keyword(Keyword::FillRight) => {
                matching.fill_right = Some(self.fill_value()?);
                if self.token.kind == Kind::Keyword(Keyword::FillLeft) {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok((matching, return_bool))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.advance()?;
        self.expect(Kind::LeftParen, None)?;
        let value = self.signed_number(None)?;
        self.expect(Kind::RightParen, None)?;
        Ok(value)
    }

    /// A number or duration with at most one sign.
    pub(super) fn signed_number(&mut self, context: Option<Context>) -> Parsed<f64> {
        let minus = match self.token.kind {
            Kind::Operator(BinaryOp::Sub) => true,
            Kind::Operator(BinaryOp::Add) => false,
            _ => return self.unsigned_number(context),
        };
        self.advance()?;
        let value = self.unsigned_number(context)?;
        Ok(if minus { -value } else { value })
    }

    fn unsigned_number(&mut self, context: Option<Context>) -> Parsed<f64> {
        match self.token.kind {
            Kind::Number | Kind::Duration => {
                let token = self.token;
                let value = self.number_value(token).0;
                self.advance()?;
                Ok(value)
            }
            _ => self.unexpected(context),
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let first = self.token;
        match first.kind {
            Kind::Number | Kind::Duration => {
                let (value, is_duration) = self.number_value(first);
                self.advance()?;
                Ok(Expr { kind: ExprKind::Number { value, is_duration }, span: first.span })
            }
            Kind::String => {
                let kind = match String::from_utf8(crate::quote::unquote(self.slice(first.span))) {
                    Ok(text) => ExprKind::String(text),
                    Err(error) => ExprKind::Bytes(error.into_bytes()),
                };
                self.advance()?;
                Ok(Expr { kind, span: first.span })
            }
            Kind::LeftParen => {
                self.advance()?;
                let inner = self.nested(|p| p.expr(0))?;
                let last = self.expect(Kind::RightParen, None)?;
                let span = Span { start: first.span.start, end: last.span.end };
                Ok(Expr { kind: ExprKind::Paren(Box::new(inner)), span })
            }
            Kind::LeftBrace => self.selector_after(None),
            kind if kind.is_metric_name() => {
                self.advance()?;
                let called = self.token.kind == Kind::LeftParen;
                match (kind, self.token.kind) {
                    (Kind::Identifier | Kind::Word(_), _) if called => self.call(first),
                    (
                        Kind::Aggregator(op),
                        Kind::LeftParen | Kind::Keyword(Keyword::By | Keyword::Without),
                    ) => self.aggregate(op, first),
                    _ => self.selector_after(Some(first)),
                }
            }
            _ => self.unexpected(None),
        }
    }

    /// `name` has been read, a parenthesis follows.
    fn call(&mut self, name: Token) -> Parsed<Expr> {
        let args = self.arguments()?;
        let span = Span { start: name.span.start, end: self.last_end };
        let text = self.slice(name.span);
        let Some(function) = functions::lookup(text) else {
            self.findings.push(name.span, format!("unknown function with name {}", quote(text)));
            // The tree is thrown away with the finding; what stands in it must only be well formed.
            return Ok(Expr { kind: ExprKind::Number { value: 0.0, is_duration: false }, span });
        };
        if function.experimental && !self.options.experimental_functions {
            self.findings.push(name.span, format!("function {} is not enabled", quote(text)));
        }
        Ok(Expr { kind: ExprKind::Call(Box::new(Call { function, args })), span })
    }

    /// Arguments with their parentheses.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(Kind::LeftParen, None)?;
        let mut args = Vec::new();
        if self.accept(Kind::RightParen)? {
            return Ok(args);
        }
        args.push(self.nested(|p| p.expr(0))?);
        while self.token.kind == Kind::Comma {
            let comma = self.advance()?;
            if self.token.kind == Kind::Error {
                return self.unexpected(None);
            }
            if !self.token.kind.starts_expression() {
                self.findings.push(comma.span, "trailing commas not allowed in function call args");
                break;
            }
            args.push(self.nested(|p| p.expr(0))?);
        }
        self.expect(Kind::RightParen, None)?;
        Ok(args)
    }

    /// The operator has been read; parentheses, `by` or `without` follow.
    fn aggregate(&mut self, op: AggregateOp, first: Token) -> Parsed<Expr> {
        self.open_aggregations += 1;
        let mut grouping = self.grouping()?;
        let args = self.arguments()?;
        if grouping.is_none() {
            if self.token.kind == Kind::Error {
                return self.unexpected(None);
            }
            grouping = self.grouping()?;
        }
        self.open_aggregations -= 1;
        let span = Span { start: first.span.start, end: self.last_end };
        let (grouping, without) = grouping.unwrap_or_default();
        let with_param = op.has_param();
        let wanted = if with_param { 2 } else { 1 };
        let count = args.len();
        if count == 0 {
            self.findings.push(span, "no arguments for aggregate expression provided");
        } else if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            self.findings.push(span, message);
        } else if count != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {count}"
            );
            self.findings.push(span, message);
        }
        let mut args = args.into_iter();
        let param = if with_param { args.next() } else { None };
        let Some(expr) = args.next() else {
            return Ok(Expr { kind: ExprKind::Number { value: 0.0, is_duration: false }, span });
        };
        let aggregate = Aggregate { op, expr, param, grouping, without };
        Ok(Expr { kind: ExprKind::Aggregate(Box::new(aggregate)), span })
    }

    /// `by (…)` or `without (…)`, the flag says which.
    fn grouping(&mut self) -> Parsed<Option<(Vec<String>, bool)>> {
        let Kind::Keyword(keyword @ (Keyword::By | Keyword::Without)) = self.token.kind else {
            return Ok(None);
        };
        self.advance()?;
        Ok(Some((self.grouping_labels()?, keyword == Keyword::Without)))
    }

    /// `word()` has its word read; takes the parentheses.
    pub(super) fn empty_parens(&mut self, context: Context) -> Parsed<()> {
        self.expect(Kind::LeftParen, Some(context))?;
        self.expect(Kind::RightParen, Some(context))?;
        Ok(())
    }

    /// The word that the next token is.
    pub(super) fn next_word(&self) -> Option<Word> {
        match self.token.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }
}
