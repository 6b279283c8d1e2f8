//! The canonical text of a tree, as upstream prints it (`promql/parser/printer.go`): parsing it gives the same
//! tree, printing that gives the same text. It is the form in which queries travel and are compared.
//!
//! Names that are not plain (`[a-zA-Z_][a-zA-Z0-9_]*`) are printed quoted, so that the text means the same with
//! and without the feature for unquoted ones. Not here: line breaks (`pretty.rs`).

use std::fmt::{self, Write};

use model::time::format_duration;
use model::{METRIC_NAME, MatchOp, Matcher, number};

use crate::ast::{
    Aggregate, At, Binary, Cardinality, DurationExpr, DurationKind, DurationOp, Expr, ExprKind, Extended,
    MatrixSelector, Modifiers, Selector, Subquery, VectorMatching,
};
use crate::quote::{quote, quote_bytes};

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self)
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_duration(f, self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(f, self)
    }
}

pub(crate) fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match &expr.kind {
        ExprKind::Number { value, is_duration } => write_number(out, *value, *is_duration),
        ExprKind::String(text) => out.write_str(&quote(text)),
        ExprKind::Bytes(bytes) => out.write_str(&quote_bytes(bytes)),
        ExprKind::Selector(selector) => write_selector(out, selector),
        ExprKind::Matrix(matrix) => write_matrix(out, matrix),
        ExprKind::Subquery(subquery) => {
            write_expr(out, &subquery.expr)?;
            write_subquery_suffix(out, subquery)
        }
        ExprKind::Call(call) => {
            out.write_str(call.function.name)?;
            out.write_char('(')?;
            for (index, arg) in call.args.iter().enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                write_expr(out, arg)?;
            }
            out.write_char(')')
        }
        ExprKind::Aggregate(aggregate) => {
            write_aggregate_head(out, aggregate)?;
            out.write_char('(')?;
            if let Some(param) = &aggregate.param {
                write_expr(out, param)?;
                out.write_str(", ")?;
            }
            write_expr(out, &aggregate.expr)?;
            out.write_char(')')
        }
        ExprKind::Binary(binary) => {
            write_expr(out, &binary.lhs)?;
            out.write_char(' ')?;
            write_operator(out, binary)?;
            out.write_char(' ')?;
            write_expr(out, &binary.rhs)
        }
        ExprKind::Unary(minus, inner) => {
            out.write_char(if *minus { '-' } else { '+' })?;
            write_expr(out, inner)
        }
        ExprKind::Paren(inner) => {
            out.write_char('(')?;
            write_expr(out, inner)?;
            out.write_char(')')
        }
    }
}

fn write_number(out: &mut dyn Write, value: f64, is_duration: bool) -> fmt::Result {
    if !is_duration {
        return out.write_str(&number::format_float(value));
    }
    // Through nanoseconds, since seconds as floats are not exact below them.
    let ms = (value.abs() * 1e9).round() as i64 / 1_000_000;
    if value < 0.0 {
        out.write_char('-')?;
    }
    out.write_str(&format_duration(ms))
}

/// `sum by (a, b) `, with the space that upstream leaves before the parenthesis.
pub(crate) fn write_aggregate_head(out: &mut dyn Write, aggregate: &Aggregate) -> fmt::Result {
    out.write_str(aggregate.op.as_str())?;
    if aggregate.without {
        out.write_str(" without (")?;
    } else if !aggregate.grouping.is_empty() {
        out.write_str(" by (")?;
    } else {
        return Ok(());
    }
    write_labels(out, &aggregate.grouping)?;
    out.write_str(") ")
}

fn write_labels(out: &mut dyn Write, labels: &[String]) -> fmt::Result {
    for (index, label) in labels.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        write_label_name(out, label)?;
    }
    Ok(())
}

fn write_label_name(out: &mut dyn Write, name: &str) -> fmt::Result {
    if is_plain_name(name) { out.write_str(name) } else { out.write_str(&quote(name)) }
}

/// Whether a label may be called so without quotes, whatever features are on.
fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The operator with `bool` and the matching.
pub(crate) fn write_operator(out: &mut dyn Write, binary: &Binary) -> fmt::Result {
    out.write_str(binary.op.as_str())?;
    if binary.return_bool {
        out.write_str(" bool")?;
    }
    match &binary.matching {
        Some(matching) => write_matching(out, matching),
        None => Ok(()),
    }
}

fn write_matching(out: &mut dyn Write, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some(" group_left ("),
        Cardinality::OneToMany => Some(" group_right ("),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        out.write_str(if matching.on { " on (" } else { " ignoring (" })?;
        write_labels(out, &matching.labels)?;
        out.write_char(')')?;
    }
    if let Some(group) = group {
        out.write_str(group)?;
        write_labels(out, &matching.include)?;
        out.write_char(')')?;
    }
    let show = number::format_float_g;
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => write!(out, " fill ({})", show(left)),
        (left, right) => {
            if let Some(left) = left {
                write!(out, " fill_left ({})", show(left))?;
            }
            match right {
                Some(right) => write!(out, " fill_right ({})", show(right)),
                None => Ok(()),
            }
        }
    }
}

fn write_selector(out: &mut dyn Write, selector: &Selector) -> fmt::Result {
    write_matchers(out, selector)?;
    write_at(out, &selector.modifiers)?;
    write_extended(out, selector.extended)?;
    write_offset(out, &selector.modifiers)
}

fn write_matrix(out: &mut dyn Write, matrix: &MatrixSelector) -> fmt::Result {
    write_matchers(out, &matrix.selector)?;
    out.write_char('[')?;
    write_literal_or_expr(out, matrix.range_ms, matrix.range_expr.as_ref())?;
    out.write_char(']')?;
    write_extended(out, matrix.selector.extended)?;
    write_at(out, &matrix.selector.modifiers)?;
    write_offset(out, &matrix.selector.modifiers)
}

/// `[range:step]` and what follows.
pub(crate) fn write_subquery_suffix(out: &mut dyn Write, subquery: &Subquery) -> fmt::Result {
    out.write_char('[')?;
    write_literal_or_expr(out, subquery.range_ms, subquery.range_expr.as_ref())?;
    out.write_char(':')?;
    if subquery.step_expr.is_some() || subquery.step_ms != 0 {
        write_literal_or_expr(out, subquery.step_ms, subquery.step_expr.as_ref())?;
    }
    out.write_char(']')?;
    write_at(out, &subquery.modifiers)?;
    write_offset(out, &subquery.modifiers)
}

fn write_literal_or_expr(out: &mut dyn Write, ms: i64, expr: Option<&DurationExpr>) -> fmt::Result {
    match expr {
        Some(expr) => write_duration(out, expr),
        None => out.write_str(&format_duration(ms)),
    }
}

fn write_matchers(out: &mut dyn Write, selector: &Selector) -> fmt::Result {
    // A name that needs quotes is printed as a matcher.
    let plain =
        selector.name.split(':').all(|part| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    let is_the_name = |m: &&Matcher| {
        m.name() == METRIC_NAME
            && m.op() == MatchOp::Equal
            && m.value() == selector.name
            && !selector.name.is_empty()
            && plain
    };
    if plain {
        out.write_str(&selector.name)?;
    }
    let mut matchers: Vec<String> =
        selector.matchers.iter().filter(|m| !is_the_name(m)).map(matcher_text).collect();
    if matchers.is_empty() {
        // `{}` is a selector only as the second argument of `info`.
        return if selector.name.is_empty() { out.write_str("{}") } else { Ok(()) };
    }
    matchers.sort_unstable();
    out.write_char('{')?;
    for (index, matcher) in matchers.iter().enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        out.write_str(matcher)?;
    }
    out.write_char('}')
}

/// A matcher as PromQL writes it, with Go's quoting.
fn matcher_text(matcher: &Matcher) -> String {
    let name = matcher.name();
    let name = if is_plain_name(name) { name.to_owned() } else { quote(name) };
    format!("{name}{}{}", matcher.op().as_str(), quote(matcher.value()))
}

fn write_extended(out: &mut dyn Write, extended: Extended) -> fmt::Result {
    match extended {
        Extended::None => Ok(()),
        Extended::Anchored => out.write_str(" anchored"),
        Extended::Smoothed => out.write_str(" smoothed"),
    }
}

fn write_at(out: &mut dyn Write, modifiers: &Modifiers) -> fmt::Result {
    match modifiers.at {
        None => Ok(()),
        Some(At::Start) => out.write_str(" @ start()"),
        Some(At::End) => out.write_str(" @ end()"),
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let size = ms.unsigned_abs();
            write!(out, " @ {sign}{}.{:03}", size / 1000, size % 1000)
        }
    }
}

fn write_offset(out: &mut dyn Write, modifiers: &Modifiers) -> fmt::Result {
    match &modifiers.offset_expr {
        Some(offset) => {
            out.write_str(" offset ")?;
            write_duration(out, offset)
        }
        None if modifiers.offset_ms != 0 => write!(out, " offset {}", format_duration(modifiers.offset_ms)),
        None => Ok(()),
    }
}

fn write_duration(out: &mut dyn Write, duration: &DurationExpr) -> fmt::Result {
    match &duration.kind {
        DurationKind::Number(seconds, is_duration) => write_number(out, *seconds, *is_duration),
        DurationKind::Step => out.write_str("step()"),
        DurationKind::Range => out.write_str("range()"),
        DurationKind::Unary(minus, inner) => {
            if *minus {
                out.write_char('-')?;
            }
            write_duration(out, inner)
        }
        DurationKind::Paren(inner) => {
            out.write_char('(')?;
            write_duration(out, inner)?;
            out.write_char(')')
        }
        DurationKind::Binary(op @ (DurationOp::MinOf | DurationOp::MaxOf), lhs, rhs) => {
            write!(out, "{}(", op.as_str())?;
            write_duration(out, lhs)?;
            out.write_str(", ")?;
            write_duration(out, rhs)?;
            out.write_char(')')
        }
        DurationKind::Binary(op, lhs, rhs) => {
            write_duration(out, lhs)?;
            write!(out, " {} ", op.as_str())?;
            write_duration(out, rhs)
        }
    }
}
