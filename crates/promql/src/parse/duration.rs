//! Duration expressions: in brackets and after `offset`.
//!
//! After `offset` the grammar is upstream's: a literal, `step()`, `range()`, `min_of(…)`, each with at most one
//! sign, and `-(…)` end the offset, so that `a offset 5m + b` is a sum; but `(…)`, or two signs, begin a duration
//! expression that goes on over arithmetic operators.

use super::expr::precedence;
use super::{Context, Parsed, Parser};
use crate::ast::{BinaryOp, DurationExpr, DurationKind, DurationOp, Span};
use crate::token::{Kind, Word};

/// The level of `^`, which binds tighter than signs.
const POWER: u8 = 6;

impl Parser<'_> {
    /// The duration after `offset`.
    pub(super) fn offset_duration(&mut self, context: Context) -> Parsed<DurationExpr> {
        let Some(minus) = self.sign() else {
            if self.token.kind != Kind::LeftParen {
                return self.duration_primary(context);
            }
            let duration = self.duration(0, context)?;
            return self.after_operators(duration);
        };
        let sign = self.advance()?;
        match self.token.kind {
            Kind::LeftParen => {
                self.advance()?;
                let inner = self.nested(|p| p.duration(0, context))?;
                self.expect(Kind::RightParen, Some(context))?;
                let start = inner.span.start;
                Ok(self.apply_sign(minus, sign.span, wrap(inner, start)))
            }
            Kind::Operator(BinaryOp::Add | BinaryOp::Sub) => {
                self.count_operator(sign.span)?;
                let operand = self.nested(|p| p.duration(POWER, context))?;
                let signed = self.apply_sign(minus, sign.span, operand);
                let duration = self.duration_operators(signed, 0, context)?;
                self.after_operators(duration)
            }
            _ => {
                if let Kind::Number | Kind::Duration = self.token.kind {
                    let literal = self.duration_literal()?;
                    return Ok(self.apply_sign(minus, sign.span, literal));
                }
                // Here, and only here, upstream's tree keeps a plus.
                let operand = self.duration_primary(context)?;
                let span = Span { start: sign.span.start, end: operand.span.end };
                Ok(DurationExpr { kind: DurationKind::Unary(minus, Box::new(operand)), span })
            }
        }
    }

    /// Where an operator could have followed: the text that is none of PromQL's is reported before what is wrong
    /// with the offset.
    fn after_operators(&mut self, duration: DurationExpr) -> Parsed<DurationExpr> {
        if self.token.kind == Kind::Error { self.unexpected(None) } else { Ok(duration) }
    }

    /// A number or duration of any size.
    fn duration_literal(&mut self) -> Parsed<DurationExpr> {
        let token = self.token;
        let (seconds, is_duration) = self.number_value(token);
        self.advance()?;
        Ok(DurationExpr { kind: DurationKind::Number(seconds, is_duration), span: token.span })
    }

    /// A duration expression whose operators outside of parentheses bind at least as tightly as `min`.
    pub(super) fn duration(&mut self, min: u8, context: Context) -> Parsed<DurationExpr> {
        let first = match self.sign() {
            None => self.duration_primary(context)?,
            Some(minus) => {
                self.count_operator(self.token.span)?;
                let sign = self.advance()?;
                let operand = self.nested(|p| p.duration(POWER, context))?;
                self.apply_sign(minus, sign.span, operand)
            }
        };
        self.duration_operators(first, min, context)
    }

    fn duration_operators(
        &mut self,
        mut lhs: DurationExpr,
        min: u8,
        context: Context,
    ) -> Parsed<DurationExpr> {
        while let Kind::Operator(op) = self.token.kind {
            let duration_op = match op {
                BinaryOp::Add => DurationOp::Add,
                BinaryOp::Sub => DurationOp::Sub,
                BinaryOp::Mul => DurationOp::Mul,
                BinaryOp::Div => DurationOp::Div,
                BinaryOp::Mod => DurationOp::Mod,
                BinaryOp::Pow => DurationOp::Pow,
                _ => break,
            };
            let level = precedence(op);
            if level < min {
                break;
            }
            let operator = self.token.span;
            self.count_operator(operator)?;
            self.advance()?;
            let rhs = if op == BinaryOp::Pow {
                self.nested(|p| p.duration(POWER, context))?
            } else {
                self.duration(level + 1, context)?
            };
            if self.token.kind == Kind::Error {
                return self.unexpected(None);
            }
            let by_zero = matches!(rhs.kind, DurationKind::Number(0.0, _));
            let failed = match duration_op {
                DurationOp::Div if by_zero => Some("division by zero"),
                DurationOp::Mod if by_zero => Some("modulo by zero"),
                _ => None,
            };
            if let Some(message) = failed {
                self.findings.push(operator, message);
                lhs = DurationExpr { kind: DurationKind::Number(0.0, false), span: Span::default() };
                continue;
            }
            let span = Span { start: lhs.span.start, end: rhs.span.end };
            lhs =
                DurationExpr { kind: DurationKind::Binary(duration_op, Box::new(lhs), Box::new(rhs)), span };
        }
        Ok(lhs)
    }

    fn duration_primary(&mut self, context: Context) -> Parsed<DurationExpr> {
        let first = self.token;
        match first.kind {
            Kind::Number | Kind::Duration => {
                let (seconds, is_duration) = self.number_value(first);
                self.advance()?;
                let literal =
                    DurationExpr { kind: DurationKind::Number(seconds, is_duration), span: first.span };
                Ok(self.check_range(literal, first.span))
            }
            Kind::LeftParen => {
                self.advance()?;
                let inner = self.nested(|p| p.duration(0, context))?;
                self.expect(Kind::RightParen, Some(context))?;
                Ok(wrap(inner, first.span.start))
            }
            Kind::Word(word @ (Word::Step | Word::Range)) => {
                self.advance()?;
                self.empty_parens(context)?;
                let kind = if word == Word::Step { DurationKind::Step } else { DurationKind::Range };
                Ok(DurationExpr { kind, span: Span { start: first.span.start, end: self.last_end } })
            }
            Kind::Word(word @ (Word::MinOf | Word::MaxOf)) => {
                self.advance()?;
                self.count_operator(first.span)?;
                self.expect(Kind::LeftParen, Some(context))?;
                let lhs = self.nested(|p| p.duration(0, context))?;
                self.expect(Kind::Comma, Some(context))?;
                let rhs = self.nested(|p| p.duration(0, context))?;
                self.expect(Kind::RightParen, Some(context))?;
                let op = if word == Word::MinOf { DurationOp::MinOf } else { DurationOp::MaxOf };
                let span = Span { start: first.span.start, end: self.last_end };
                Ok(DurationExpr { kind: DurationKind::Binary(op, Box::new(lhs), Box::new(rhs)), span })
            }
            _ => self.unexpected(Some(context)),
        }
    }

    /// Whether the next token is a sign, and a minus.
    fn sign(&self) -> Option<bool> {
        match self.token.kind {
            Kind::Operator(BinaryOp::Sub) => Some(true),
            Kind::Operator(BinaryOp::Add) => Some(false),
            _ => None,
        }
    }

    /// `operand` with a sign before it: literals take the minus into them, a plus is not kept.
    fn apply_sign(&mut self, minus: bool, sign: Span, operand: DurationExpr) -> DurationExpr {
        let span = Span { start: sign.start, end: operand.span.end };
        match operand.kind {
            DurationKind::Number(seconds, is_duration) => {
                let seconds = if minus { -seconds } else { seconds };
                self.check_range(
                    DurationExpr { kind: DurationKind::Number(seconds, is_duration), span },
                    sign,
                )
            }
            _ if minus => DurationExpr { kind: DurationKind::Unary(true, Box::new(operand)), span },
            _ => operand,
        }
    }

    /// `literal`, or 0 and a finding at `place` when it is more than 2^63 ns.
    fn check_range(&mut self, literal: DurationExpr, place: Span) -> DurationExpr {
        match literal.kind {
            DurationKind::Number(seconds, _)
                if seconds.is_nan() || seconds.abs() > crate::duration::MAX_SECONDS =>
            {
                self.findings.push(place, "duration out of range");
                DurationExpr { kind: DurationKind::Number(0.0, false), span: Span::default() }
            }
            _ => literal,
        }
    }
}

/// `inner` in parentheses that begin at `start`; a second pair adds nothing. The span is the one that upstream
/// reports.
fn wrap(inner: DurationExpr, start: u32) -> DurationExpr {
    let span = match inner.kind {
        DurationKind::Paren(_) => return inner,
        DurationKind::Number(..) => Span { start, end: inner.span.end },
        _ => inner.span,
    };
    DurationExpr { kind: DurationKind::Paren(Box::new(inner)), span }
}
