//! RE2 expressions as Prometheus uses them: fully anchored, `.` matches newlines, Go's syntax and classes.
//!
//! Patterns are translated from Go's syntax to that of the `regex` crate, since both accept texts that the
//! other rejects and give some the other meaning.

use std::sync::LazyLock;

/// Why a pattern is not accepted; the text is what Go's `regexp` would say where it would say something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexError(pub String);

/// A compiled, fully anchored expression.
#[derive(Clone, Debug)]
pub struct Regex {
    regex: regex::Regex,
}

impl Regex {
    /// Compiles `pattern` anchored at both ends.
    pub fn anchored(pattern: &str) -> Result<Self, RegexError> {
        let regex = regex::Regex::new(&format!("^(?s:{pattern})$")).map_err(|e| RegexError(e.to_string()))?;
        Ok(Self { regex })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The groups of a match of the whole of `text`, or `None` when it does not match.
    pub fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        self.regex.captures(text)
    }
}

/// Whether Go prints `c` as it is between quotes (`unicode.IsPrint`): letters, marks, numbers, punctuation,
/// symbols, and the ASCII space.
pub fn is_printable(c: char) -> bool {
    static PRINTABLE: LazyLock<Option<regex::Regex>> =
        LazyLock::new(|| regex::Regex::new(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]").ok());
    match c {
        ' '..='~' => true,
        _ if c.is_ascii() => false,
        _ => PRINTABLE.as_ref().is_some_and(|r| r.is_match(c.encode_utf8(&mut [0; 4]))),
    }
}

/// Whether `c` is a letter (`unicode.IsLetter`).
pub fn is_letter(c: char) -> bool {
    static LETTER: LazyLock<Option<regex::Regex>> = LazyLock::new(|| regex::Regex::new(r"\p{L}").ok());
    match c {
        _ if c.is_ascii() => c.is_ascii_alphabetic(),
        _ => LETTER.as_ref().is_some_and(|r| r.is_match(c.encode_utf8(&mut [0; 4]))),
    }
}
