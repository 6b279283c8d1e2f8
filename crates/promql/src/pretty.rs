//! The prettifier: what is longer than a line is broken at its operator or parentheses and indented, as
//! upstream does it (`promql/parser/prettier.go`, `prettier_rules.md`). Linear in the length of the text.

use std::fmt::{self, Write};

use crate::ast::{Expr, ExprKind};
use crate::print::{write_aggregate_head, write_expr, write_operator, write_subquery_suffix};

/// An expression of at most so many bytes stays on one line.
const MAX_LINE: usize = 100;

/// `expr` over as many lines as it needs.
pub fn prettify(expr: &Expr) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write_pretty(&mut out, expr, 0, true);
    out
}

/// Writes `expr` at indentation `level`; `indented` = on a line of its own, so that the indentation is written.
fn write_pretty(out: &mut String, expr: &Expr, level: usize, indented: bool) -> fmt::Result {
    let line = one_line(expr);
    if let (ExprKind::Subquery(_), Some(line)) = (&expr.kind, &line) {
        // Upstream does not indent a subquery that fits.
        return out.write_str(line);
    }
    // The parts of a subquery or a signed expression write the indentation themselves.
    if indented && !matches!(expr.kind, ExprKind::Subquery(_)) {
        indent(out, level);
    }
    if let Some(line) = line {
        return out.write_str(&line);
    }
    match &expr.kind {
        ExprKind::Aggregate(aggregate) => {
            write_aggregate_head(out, aggregate)?;
            out.push_str("(\n");
            if let Some(param) = &aggregate.param {
                write_pretty(out, param, level + 1, true)?;
                out.push_str(",\n");
            }
            write_pretty(out, &aggregate.expr, level + 1, true)?;
            close(out, level)
        }
        ExprKind::Call(call) => {
            out.push_str(call.function.name);
            out.push_str("(\n");
            for (index, arg) in call.args.iter().enumerate() {
                if index > 0 {
                    out.push_str(",\n");
                }
                write_pretty(out, arg, level + 1, true)?;
            }
            close(out, level)
        }
        ExprKind::Paren(inner) => {
            out.push_str("(\n");
            write_pretty(out, inner, level + 1, true)?;
            close(out, level)
        }
        ExprKind::Binary(binary) => {
            // The left side is indented from here, whatever was written before the operator.
            if indented {
                out.truncate(out.len() - 2 * level);
            }
            write_pretty(out, &binary.lhs, level + 1, true)?;
            out.push('\n');
            indent(out, level);
            write_operator(out, binary)?;
            out.push('\n');
            write_pretty(out, &binary.rhs, level + 1, true)
        }
        ExprKind::Unary(minus, inner) => {
            out.push(if *minus { '-' } else { '+' });
            write_pretty(out, inner, level, false)
        }
        ExprKind::Subquery(subquery) => {
            write_pretty(out, &subquery.expr, level, indented)?;
            write_subquery_suffix(out, subquery)
        }
        ExprKind::Number { .. }
        | ExprKind::String(_)
        | ExprKind::Bytes(_)
        | ExprKind::Selector(_)
        | ExprKind::Matrix(_) => write_expr(out, expr),
    }
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

fn close(out: &mut String, level: usize) -> fmt::Result {
    out.push('\n');
    indent(out, level);
    out.push(')');
    Ok(())
}

/// The text of `expr` when it fits on a line; stops printing once it does not.
fn one_line(expr: &Expr) -> Option<String> {
    let mut line = Line(String::new());
    write_expr(&mut line, expr).ok().map(|()| line.0)
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
