//! What may follow an expression: `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`.

use super::{Context, Parsed, Parser};
use crate::ast::{
    At, DurationExpr, DurationKind, Expr, ExprKind, Extended, MatrixSelector, Modifiers, Span, Subquery,
};
use crate::token::{Keyword, Kind, Word};

const RANGE: Context = Context::new("subquery or range selector", "number, duration, step(), or range()");
const AFTER_RANGE: Context = Context::new("subquery or range", "\":\" or \"]\"");
const STEP: Context = Context::new("subquery selector", "number, duration, step(), range(), or \"]\"");
const AFTER_STEP: Context = Context::new("subquery selector", "\"]\"");
const OFFSET: Context = Context::new("offset", "number, duration, step(), or range()");
const AT: Context = Context::new("@", "timestamp");

impl Parser<'_> {
    /// `expr` with all modifiers that follow it.
    pub(super) fn modifiers(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            match self.token.kind {
                Kind::LeftBracket => expr = self.range(expr)?,
                Kind::Keyword(Keyword::Offset) => {
                    self.advance()?;
                    let offset = self.offset_duration(OFFSET)?;
                    self.set_offset(&mut expr, offset);
                }
                Kind::At => {
                    self.advance()?;
                    self.at(&mut expr)?;
                }
                Kind::Keyword(Keyword::Anchored) => {
                    self.advance()?;
                    self.set_extended(&mut expr, Extended::Anchored, "anchored");
                }
                Kind::Keyword(Keyword::Smoothed) => {
                    self.advance()?;
                    self.set_extended(&mut expr, Extended::Smoothed, "smoothed");
                }
                _ => return Ok(expr),
            }
        }
    }

    fn range(&mut self, base: Expr) -> Parsed<Expr> {
        let open = self.advance()?;
        let range = self.duration(0, RANGE)?;
        self.check_positive(&range)?;
        if self.accept(Kind::Colon)? {
            return self.subquery(base, range);
        }
        let close = self.expect(Kind::RightBracket, Some(AFTER_RANGE))?;
        let span = Span { start: base.span.start, end: close.span.end };
        let brackets = Span { start: open.span.start, end: close.span.end };
        let ExprKind::Selector(selector) = base.kind else {
            self.findings.push(brackets, "ranges only allowed for vector selectors");
            return Ok(Expr { kind: base.kind, span });
        };
        let Modifiers { offset_ms, offset_expr, at } = &selector.modifiers;
        if *offset_ms != 0 || offset_expr.is_some() {
            self.findings.push(brackets, "no offset modifiers allowed before range");
        } else if at.is_some() {
            self.findings.push(brackets, "no @ modifiers allowed before range");
        }
        let (range_ms, range_expr) = split_duration(range);
        let matrix = MatrixSelector { selector: *selector, selector_span: base.span, range_ms, range_expr };
        Ok(Expr { kind: ExprKind::Matrix(Box::new(matrix)), span })
    }

    /// The colon has been read.
    fn subquery(&mut self, expr: Expr, range: DurationExpr) -> Parsed<Expr> {
        self.count_operator(self.token.span)?;
        let step = if self.token.kind == Kind::RightBracket {
            None
        } else {
            let step = self.duration(0, STEP)?;
            self.check_positive(&step)?;
            Some(step)
        };
        let close = self.expect(Kind::RightBracket, Some(AFTER_STEP))?;
        let span = Span { start: expr.span.start, end: close.span.end };
        let (range_ms, range_expr) = split_duration(range);
        let (step_ms, step_expr) = step.map_or((0, None), split_duration);
        let modifiers = Modifiers::default();
        let subquery = Subquery { expr, range_ms, range_expr, step_ms, step_expr, modifiers };
        Ok(Expr { kind: ExprKind::Subquery(Box::new(subquery)), span })
    }

    fn check_positive(&mut self, duration: &DurationExpr) -> Parsed<()> {
        if self.token.kind == Kind::Error {
            return self.unexpected(None);
        }
        if matches!(duration.kind, DurationKind::Number(seconds, _) if seconds <= 0.0) {
            self.findings.push(duration.span, "duration must be greater than 0");
        }
        Ok(())
    }

    fn set_offset(&mut self, expr: &mut Expr, offset: DurationExpr) {
        let (span, end) = (expr.span, self.last_end);
        let Some(modifiers) = modifiers_of(expr) else {
            let message = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            self.findings.push(span, message);
            return;
        };
        if modifiers.offset_ms != 0 || modifiers.offset_expr.is_some() {
            self.findings.push(span, "offset may not be set multiple times");
        } else if let DurationKind::Number(seconds, _) = offset.kind {
            modifiers.offset_ms = ms_of_seconds(seconds);
        } else {
            modifiers.offset_expr = Some(offset);
        }
        expr.span.end = end;
    }

    /// The `@` has been read.
    fn at(&mut self, expr: &mut Expr) -> Parsed<()> {
        let at = match self.next_word() {
            Some(word @ (Word::Start | Word::End)) => {
                self.advance()?;
                self.empty_parens(AT)?;
                if word == Word::Start { At::Start } else { At::End }
            }
            _ => {
                let seconds = self.signed_number(Some(AT))?;
                if !(i64::MIN as f64..i64::MAX as f64).contains(&seconds) || seconds == i64::MIN as f64 {
                    let shown = model::number::format_fixed(seconds, 6);
                    self.findings.push(expr.span, format!("timestamp out of bounds for @ modifier: {shown}"));
                }
                At::Time((seconds * 1000.0).round() as i64)
            }
        };
        let (span, end) = (expr.span, self.last_end);
        match modifiers_of(expr) {
            None => {
                let message = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                self.findings.push(span, message);
            }
            Some(modifiers) if modifiers.at.is_some() => {
                self.findings.push(span, "@ <timestamp> may not be set multiple times");
            }
            Some(modifiers) => {
                modifiers.at = Some(at);
                expr.span.end = end;
            }
        }
        Ok(())
    }

    fn set_extended(&mut self, expr: &mut Expr, extended: Extended, name: &str) {
        let slot = match &mut expr.kind {
            ExprKind::Selector(selector) => &mut selector.extended,
            ExprKind::Matrix(matrix) => &mut matrix.selector.extended,
            ExprKind::Subquery(_) => {
                self.findings.push(expr.span, format!("{name} modifier is not supported for subqueries"));
                return;
            }
            _ => {
                self.findings.push(expr.span, format!("{name} modifier not implemented"));
                return;
            }
        };
        if *slot != Extended::None && *slot != extended {
            self.findings.push(expr.span, "anchored and smoothed modifiers cannot be used together");
        }
        *slot = extended;
    }
}

fn modifiers_of(expr: &mut Expr) -> Option<&mut Modifiers> {
    match &mut expr.kind {
        ExprKind::Selector(selector) => Some(&mut selector.modifiers),
        ExprKind::Matrix(matrix) => Some(&mut matrix.selector.modifiers),
        ExprKind::Subquery(subquery) => Some(&mut subquery.modifiers),
        _ => None,
    }
}

/// A literal as milliseconds; anything else, also a literal below one millisecond, stays an expression.
fn split_duration(duration: DurationExpr) -> (i64, Option<DurationExpr>) {
    match duration.kind {
        DurationKind::Number(seconds, _) if ms_of_seconds(seconds) != 0 => (ms_of_seconds(seconds), None),
        _ => (0, Some(duration)),
    }
}

/// Rounded to nanoseconds, then cut to milliseconds, as upstream does.
fn ms_of_seconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}
