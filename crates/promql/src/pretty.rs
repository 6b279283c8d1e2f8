//! The prettifier: what is longer than a line is broken at its operator or parentheses and indented, as
//! upstream does it (`promql/parser/prettier.go`, `prettier_rules.md`). Linear in the length of the text.

use std::fmt::{self, Write};

use crate::ast::{Expr, ExprKind};
use crate::print::{Printer, Style};

/// An expression of at most so many bytes stays on one line.
const MAX_LINE: usize = 100;

/// `expr` over as many lines as it needs.
pub fn prettify(expr: &Expr) -> String {
    prettify_with(expr, Style::default())
}

/// As [`prettify`], with names as `style` says.
pub fn prettify_with(expr: &Expr, style: Style) -> String {
    let mut pretty = Pretty { out: String::new(), style };
    // Writing into a String cannot fail.
    let _ = pretty.expr(expr, 0);
    pretty.out
}

struct Pretty {
    out: String,
    style: Style,
}

impl Pretty {
    /// Writes `expr`, which begins a line, at indentation `level`.
    fn expr(&mut self, expr: &Expr, level: usize) -> fmt::Result {
        let line = self.one_line(expr);
        // Upstream does not indent a subquery that fits. What begins with a part of its own leaves the
        // indentation to that part.
        let by_part = line.is_none() && matches!(expr.kind, ExprKind::Binary(_));
        if !by_part && !matches!(expr.kind, ExprKind::Subquery(_)) {
            self.indent(level);
        }
        if let Some(line) = line {
            return self.out.write_str(&line);
        }
        match &expr.kind {
            ExprKind::Aggregate(aggregate) => {
                self.printer().aggregate_head(aggregate)?;
                self.out.push_str("(\n");
                if let Some(param) = &aggregate.param {
                    self.expr(param, level + 1)?;
                    self.out.push_str(",\n");
                }
                self.expr(&aggregate.expr, level + 1)?;
                self.close(level)
            }
            ExprKind::Call(call) => {
                self.out.push_str(call.function.name);
                self.out.push_str("(\n");
                for (index, arg) in call.args.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(",\n");
                    }
                    self.expr(arg, level + 1)?;
                }
                self.close(level)
            }
            ExprKind::Paren(inner) => {
                self.out.push_str("(\n");
                self.expr(inner, level + 1)?;
                self.close(level)
            }
            ExprKind::Binary(binary) => {
                self.expr(&binary.lhs, level + 1)?;
                self.out.push('\n');
                self.indent(level);
                self.printer().operator(binary)?;
                self.out.push('\n');
                self.expr(&binary.rhs, level + 1)
            }
            ExprKind::Unary(minus, inner) => {
                self.out.push(if *minus { '-' } else { '+' });
                let start = self.out.len();
                self.expr(inner, level)?;
                let indentation = self.out[start..].len() - self.out[start..].trim_start().len();
                self.out.drain(start..start + indentation);
                Ok(())
            }
            ExprKind::Subquery(subquery) => {
                self.expr(&subquery.expr, level)?;
                self.printer().subquery_suffix(subquery)
            }
            ExprKind::Number { .. }
            | ExprKind::String(_)
            | ExprKind::Bytes(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => self.printer().expr(expr),
        }
    }

    fn indent(&mut self, level: usize) {
        self.out.extend(std::iter::repeat_n("  ", level));
    }

    fn close(&mut self, level: usize) -> fmt::Result {
        self.out.push('\n');
        self.indent(level);
        self.out.push(')');
        Ok(())
    }

    /// The text of `expr` when it fits on a line; stops printing once it does not.
    fn one_line(&self, expr: &Expr) -> Option<String> {
        // A long chain of operators begins deep down: every step down is a byte at least.
        let mut leftmost = expr;
        for _ in 0..=MAX_LINE {
            leftmost = match &leftmost.kind {
                ExprKind::Binary(binary) => &binary.lhs,
                ExprKind::Subquery(subquery) => &subquery.expr,
                _ => break,
            };
        }
        if matches!(leftmost.kind, ExprKind::Binary(_) | ExprKind::Subquery(_)) {
            return None;
        }
        let mut line = Line(String::new());
        Printer { out: &mut line, style: self.style }.expr(expr).ok().map(|()| line.0)
    }

    fn printer(&mut self) -> Printer<'_> {
        Printer { out: &mut self.out, style: self.style }
    }
}

/// Takes [`MAX_LINE`] bytes.
struct Line(String);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_LINE {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
