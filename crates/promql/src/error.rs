//! What is wrong with a text: where, and in upstream's words.
//!
//! Not here: errors of evaluation (`engine`).

use std::fmt;

use crate::ast::Span;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: parse error: {message}", .place)]
pub struct ParseError {
    /// The part of the text that is meant.
    pub span: Span,
    /// What is wrong, without the place.
    pub message: String,
    /// Line and column of the start.
    pub place: Place,
}

/// A line and a column, both from 1; the column counts bytes. Prints as `line:column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line; 0 when the text is empty.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Place {
    /// The place of byte `offset` in `text`.
    pub fn of(text: &str, offset: u32) -> Self {
        if text.is_empty() {
            return Self { line: 0, column: 0 };
        }
        let before = &text.as_bytes()[..(offset as usize).min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Self { line, column: (before.len() - line_start) as u32 + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str("unknown position")
        } else {
            write!(f, "{}:{}", self.line, self.column)
        }
    }
}

/// All findings about one text, at least one, in the order in which upstream reports them. Printed as the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors(pub Vec<ParseError>);

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.first() {
            Some(first) => first.fmt(f),
            None => f.write_str("error contains no error message"),
        }
    }
}

impl std::error::Error for ParseErrors {}

/// How many findings are kept: a long text could make as many as it has bytes.
const MAX_FINDINGS: usize = 64;

/// Collects findings while a text is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<(Span, String)>,
}

impl Findings {
    pub(crate) fn push(&mut self, span: Span, message: impl Into<String>) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push((span, message.into()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn into_errors(self, text: &str) -> ParseErrors {
        let located = |(span, message): (Span, String)| ParseError {
            span,
            message,
            place: Place::of(text, span.start),
        };
        ParseErrors(self.list.into_iter().map(located).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_bytes() {
        let text = "sum(\n  é +\n)";
        let check = |offset, expected: &str| assert_eq!(Place::of(text, offset).to_string(), expected);
        check(0, "1:1");
        check(4, "1:5");
        check(5, "2:1");
        check(10, "2:6");
        check(12, "3:1");
        check(99, "3:2");
        assert_eq!(Place::of("", 0).to_string(), "unknown position");
    }
}
