//! The canonical text of a tree, as upstream prints it (`promql/parser/printer.go`): parsing it gives the same
//! tree, printing that gives the same text. It is the form in which queries travel and are compared.
//!
//! Names that are not plain (`[a-zA-Z_][a-zA-Z0-9_]*`) are printed quoted, so that the text means the same with
//! and without the feature for unquoted ones. Not here: line breaks (`pretty.rs`).

use std::fmt::{self, Write};

use model::regex::is_letter;
use model::time::format_duration;
use model::{METRIC_NAME, MatchOp, Matcher, number};

use crate::ast::{
    Aggregate, At, Binary, Cardinality, DurationExpr, DurationKind, DurationOp, Expr, ExprKind, Extended,
    MatrixSelector, Modifiers, Selector, Subquery, VectorMatching,
};
use crate::quote::{quote, quote_bytes};

/// How trees are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Names of Unicode letters and dots stay unquoted, as upstream prints them with the feature
    /// `promql-unquoted-utf8-names`; the text can then only be parsed with it.
    pub unquoted_utf8_names: bool,
}

/// The text of `expr` on one line. With the default style, the canonical text that [`Expr`] displays as.
pub fn print_with(expr: &Expr, style: Style) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = Printer { out: &mut out, style }.expr(expr);
    out
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer { out: f, style: Style::default() }.expr(self)
    }
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer { out: f, style: Style::default() }.duration(self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer { out: f, style: Style::default() }.selector(self)
    }
}

/// Whether a label may be called so without quotes.
fn is_plain_name(name: &str, style: Style) -> bool {
    let is_start = |c: char| {
        c.is_ascii_alphabetic() || c == '_' || style.unquoted_utf8_names && !c.is_ascii() && is_letter(c)
    };
    let is_part = |c: char| is_start(c) || c.is_ascii_digit() || style.unquoted_utf8_names && c == '.';
    name.starts_with(is_start) && name.chars().all(is_part)
}

/// Writes trees to `out`.
pub(crate) struct Printer<'w> {
    pub(crate) out: &'w mut dyn Write,
    pub(crate) style: Style,
}

impl Printer<'_> {
    pub(crate) fn expr(&mut self, expr: &Expr) -> fmt::Result {
        match &expr.kind {
            ExprKind::Number { value, is_duration } => self.number(*value, *is_duration),
            ExprKind::String(text) => self.out.write_str(&quote(text)),
            ExprKind::Bytes(bytes) => self.out.write_str(&quote_bytes(bytes)),
            ExprKind::Selector(selector) => self.selector(selector),
            ExprKind::Matrix(matrix) => self.matrix(matrix),
            ExprKind::Subquery(subquery) => {
                self.expr(&subquery.expr)?;
                self.subquery_suffix(subquery)
            }
            ExprKind::Call(call) => {
                self.out.write_str(call.function.name)?;
                self.out.write_char('(')?;
                for (index, arg) in call.args.iter().enumerate() {
                    if index > 0 {
                        self.out.write_str(", ")?;
                    }
                    self.expr(arg)?;
                }
                self.out.write_char(')')
            }
            ExprKind::Aggregate(aggregate) => {
                self.aggregate_head(aggregate)?;
                self.out.write_char('(')?;
                if let Some(param) = &aggregate.param {
                    self.expr(param)?;
                    self.out.write_str(", ")?;
                }
                self.expr(&aggregate.expr)?;
                self.out.write_char(')')
            }
            ExprKind::Binary(binary) => {
                self.expr(&binary.lhs)?;
                self.out.write_char(' ')?;
                self.operator(binary)?;
                self.out.write_char(' ')?;
                self.expr(&binary.rhs)
            }
            ExprKind::Unary(minus, inner) => {
                self.out.write_char(if *minus { '-' } else { '+' })?;
                self.expr(inner)
            }
            ExprKind::Paren(inner) => {
                self.out.write_char('(')?;
                self.expr(inner)?;
                self.out.write_char(')')
            }
        }
    }

    fn number(&mut self, value: f64, is_duration: bool) -> fmt::Result {
        if !is_duration {
            return self.out.write_str(&number::format_float(value));
        }
        // Through nanoseconds, since seconds as floats are not exact below them.
        let ms = (value.abs() * 1e9).round() as i64 / 1_000_000;
        if value < 0.0 {
            self.out.write_char('-')?;
        }
        self.out.write_str(&format_duration(ms))
    }

    /// `sum by (a, b) `, with the space that upstream leaves before the parenthesis.
    pub(crate) fn aggregate_head(&mut self, aggregate: &Aggregate) -> fmt::Result {
        self.out.write_str(aggregate.op.as_str())?;
        if aggregate.without {
            self.out.write_str(" without (")?;
        } else if !aggregate.grouping.is_empty() {
            self.out.write_str(" by (")?;
        } else {
            return Ok(());
        }
        self.labels(&aggregate.grouping)?;
        self.out.write_str(") ")
    }

    fn labels(&mut self, labels: &[String]) -> fmt::Result {
        for (index, label) in labels.iter().enumerate() {
            if index > 0 {
                self.out.write_str(", ")?;
            }
            self.label_name(label)?;
        }
        Ok(())
    }

    fn label_name(&mut self, name: &str) -> fmt::Result {
        if is_plain_name(name, self.style) {
            self.out.write_str(name)
        } else {
            self.out.write_str(&quote(name))
        }
    }

    /// The operator with `bool` and the matching.
    pub(crate) fn operator(&mut self, binary: &Binary) -> fmt::Result {
        self.out.write_str(binary.op.as_str())?;
        if binary.return_bool {
            self.out.write_str(" bool")?;
        }
        match &binary.matching {
            Some(matching) => self.matching(matching),
            None => Ok(()),
        }
    }

    fn matching(&mut self, matching: &VectorMatching) -> fmt::Result {
        let group = match matching.cardinality {
            Cardinality::ManyToOne => Some(" group_left ("),
            Cardinality::OneToMany => Some(" group_right ("),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !matching.labels.is_empty() || matching.on || group.is_some() {
            self.out.write_str(if matching.on { " on (" } else { " ignoring (" })?;
            self.labels(&matching.labels)?;
            self.out.write_char(')')?;
        }
        if let Some(group) = group {
            self.out.write_str(group)?;
            self.labels(&matching.include)?;
            self.out.write_char(')')?;
        }
        let show = number::format_float_g;
        match (matching.fill_left, matching.fill_right) {
            (Some(left), Some(right)) if left == right => write!(self.out, " fill ({})", show(left)),
            (left, right) => {
                if let Some(left) = left {
                    write!(self.out, " fill_left ({})", show(left))?;
                }
                match right {
                    Some(right) => write!(self.out, " fill_right ({})", show(right)),
                    None => Ok(()),
                }
            }
        }
    }

    fn selector(&mut self, selector: &Selector) -> fmt::Result {
        self.matchers(selector)?;
        self.at(&selector.modifiers)?;
        self.extended(selector.extended)?;
        self.offset(&selector.modifiers)
    }

    fn matrix(&mut self, matrix: &MatrixSelector) -> fmt::Result {
        self.matchers(&matrix.selector)?;
        self.out.write_char('[')?;
        self.literal_or_expr(matrix.range_ms, matrix.range_expr.as_ref())?;
        self.out.write_char(']')?;
        self.extended(matrix.selector.extended)?;
        self.at(&matrix.selector.modifiers)?;
        self.offset(&matrix.selector.modifiers)
    }

    /// `[range:step]` and what follows.
    pub(crate) fn subquery_suffix(&mut self, subquery: &Subquery) -> fmt::Result {
        self.out.write_char('[')?;
        self.literal_or_expr(subquery.range_ms, subquery.range_expr.as_ref())?;
        self.out.write_char(':')?;
        if subquery.step_expr.is_some() || subquery.step_ms != 0 {
            self.literal_or_expr(subquery.step_ms, subquery.step_expr.as_ref())?;
        }
        self.out.write_char(']')?;
        self.at(&subquery.modifiers)?;
        self.offset(&subquery.modifiers)
    }

    fn literal_or_expr(&mut self, ms: i64, expr: Option<&DurationExpr>) -> fmt::Result {
        match expr {
            Some(expr) => self.duration(expr),
            None => self.out.write_str(&format_duration(ms)),
        }
    }

    fn matchers(&mut self, selector: &Selector) -> fmt::Result {
        // A name that needs quotes is printed as a matcher.
        let plain = self.style.unquoted_utf8_names
            || selector.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
        let is_the_name = |m: &&Matcher| {
            m.name() == METRIC_NAME
                && m.op() == MatchOp::Equal
                && m.value() == selector.name
                && !selector.name.is_empty()
                && plain
        };
        if plain {
            self.out.write_str(&selector.name)?;
        }
        let mut matchers: Vec<String> =
            selector.matchers.iter().filter(|m| !is_the_name(m)).map(|m| self.matcher_text(m)).collect();
        if matchers.is_empty() {
            // `{}` is a selector only as the second argument of `info`.
            return if selector.name.is_empty() { self.out.write_str("{}") } else { Ok(()) };
        }
        matchers.sort_unstable();
        self.out.write_char('{')?;
        for (index, matcher) in matchers.iter().enumerate() {
            if index > 0 {
                self.out.write_char(',')?;
            }
            self.out.write_str(matcher)?;
        }
        self.out.write_char('}')
    }

    fn extended(&mut self, extended: Extended) -> fmt::Result {
        match extended {
            Extended::None => Ok(()),
            Extended::Anchored => self.out.write_str(" anchored"),
            Extended::Smoothed => self.out.write_str(" smoothed"),
        }
    }

    fn at(&mut self, modifiers: &Modifiers) -> fmt::Result {
        match modifiers.at {
            None => Ok(()),
            Some(At::Start) => self.out.write_str(" @ start()"),
            Some(At::End) => self.out.write_str(" @ end()"),
            Some(At::Time(ms)) => {
                let sign = if ms < 0 { "-" } else { "" };
                let size = ms.unsigned_abs();
                write!(self.out, " @ {sign}{}.{:03}", size / 1000, size % 1000)
            }
        }
    }

    fn offset(&mut self, modifiers: &Modifiers) -> fmt::Result {
        match &modifiers.offset_expr {
            Some(offset) => {
                self.out.write_str(" offset ")?;
                self.duration(offset)
            }
            None if modifiers.offset_ms != 0 => {
                write!(self.out, " offset {}", format_duration(modifiers.offset_ms))
            }
            None => Ok(()),
        }
    }

    fn duration(&mut self, duration: &DurationExpr) -> fmt::Result {
        match &duration.kind {
            DurationKind::Number(seconds, is_duration) => self.number(*seconds, *is_duration),
            DurationKind::Step => self.out.write_str("step()"),
            DurationKind::Range => self.out.write_str("range()"),
            DurationKind::Unary(minus, inner) => {
                if *minus {
                    self.out.write_char('-')?;
                }
                self.duration(inner)
            }
            DurationKind::Paren(inner) => {
                self.out.write_char('(')?;
                self.duration(inner)?;
                self.out.write_char(')')
            }
            DurationKind::Binary(op @ (DurationOp::MinOf | DurationOp::MaxOf), lhs, rhs) => {
                write!(self.out, "{}(", op.as_str())?;
                self.duration(lhs)?;
                self.out.write_str(", ")?;
                self.duration(rhs)?;
                self.out.write_char(')')
            }
            DurationKind::Binary(op, lhs, rhs) => {
                self.duration(lhs)?;
                write!(self.out, " {} ", op.as_str())?;
                self.duration(rhs)
            }
        }
    }

    /// A matcher as PromQL writes it, with Go's quoting.
    fn matcher_text(&self, matcher: &Matcher) -> String {
        let name = matcher.name();
        let name = if is_plain_name(name, self.style) { name.to_owned() } else { quote(name) };
        format!("{name}{}{}", matcher.op().as_str(), quote(matcher.value()))
    }
}
