//! RE2 expressions as Prometheus uses them: fully anchored, `.` matches newlines, Go's syntax and classes.
//!
//! Patterns are read by our own parser of Go's syntax (`syntax.rs`), since Go and the `regex` crate each accept
//! texts that the other rejects and give some another meaning. The tree is written out for the `regex` crate
//! (`translate.rs`) and looked through for patterns that need no engine at all (`plan.rs`): literals, sets of
//! literals, prefixes, suffixes, parts. Both engines take linear time, so no pattern is a trap.
//!
//! Not here: replacement templates (`relabel`, `engine`).

mod fold;
mod plan;
mod syntax;
mod translate;
mod unicode;

#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use plan::Plan;

/// Bytes that a compiled expression may take.
const SIZE_LIMIT: usize = 10 << 20;
/// Bytes that the cache of a lazy DFA may take.
const DFA_SIZE_LIMIT: usize = 4 << 20;
/// Levels that our own limit lets pass: a group, its alternatives, a repetition and the group around its operand.
const NEST_LIMIT: u32 = 4 * syntax::MAX_DEPTH as u32;

/// Why a pattern is not accepted; the text is what Go's `regexp` would say where it would say something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexError(pub String);

impl RegexError {
    fn new(reason: &str, part: &str) -> Self {
        Self(format!("error parsing regexp: {reason}: `{part}`"))
    }
}

/// A fully anchored expression. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Regex {
    plan: Arc<Plan>,
    engine: Engine,
}

#[derive(Clone, Debug)]
enum Engine {
    /// The plan needs no engine, and no captures were asked for.
    None,
    /// For matching alone: cheaper to compile, since `.*` is a repetition of bytes there.
    Bytes(regex::bytes::Regex),
    /// With captures.
    Text(regex::Regex),
}

impl Regex {
    /// Compiles `pattern` anchored at both ends, for matching and captures.
    pub fn anchored(pattern: &str) -> Result<Self, RegexError> {
        let tree = syntax::parse(pattern)?;
        let engine = regex::RegexBuilder::new(&translate::anchored(&tree, false))
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(DFA_SIZE_LIMIT)
            .nest_limit(NEST_LIMIT)
            .build()
            .map_err(|error| engine_error(&error, pattern))?;
        Ok(Self { plan: Arc::new(plan::of(&tree)), engine: Engine::Text(engine) })
    }

    /// As [`Regex::anchored`], but only for matching: patterns that need no engine are not compiled, which saves
    /// most of the time and lets sets of literals be large. [`Regex::captures`] always gives `None`.
    pub fn matching(pattern: &str) -> Result<Self, RegexError> {
        let tree = syntax::parse(pattern)?;
        let plan = plan::of(&tree);
        if !plan.needs_engine() {
            return Ok(Self { plan: Arc::new(plan), engine: Engine::None });
        }
        let engine = regex::bytes::RegexBuilder::new(&translate::anchored(&tree, true))
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(DFA_SIZE_LIMIT)
            .nest_limit(NEST_LIMIT)
            .build()
            .map_err(|error| engine_error(&error, pattern))?;
        Ok(Self { plan: Arc::new(plan), engine: Engine::Bytes(engine) })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        match (self.plan.decide(text), &self.engine) {
            (Some(answer), _) => answer,
            (None, Engine::Bytes(engine)) => engine.is_match(text.as_bytes()),
            (None, Engine::Text(engine)) => engine.is_match(text),
            (None, Engine::None) => false,
        }
    }

    /// The groups of a match of the whole of `text`, or `None` when it does not match.
    pub fn captures<'t>(&self, text: &'t str) -> Option<regex::Captures<'t>> {
        match &self.engine {
            Engine::Text(engine) if self.plan.decide(text) != Some(false) => engine.captures(text),
            _ => None,
        }
    }

    /// All texts that match, sorted and each once, when they are finitely many and not too many to list.
    pub fn set_matches(&self) -> Option<&[String]> {
        self.plan.set()
    }

    /// What every text that matches begins with; empty when that is not known.
    pub fn literal_prefix(&self) -> &str {
        self.plan.prefix()
    }

    /// Whether every text matches, as with `.*`.
    pub fn matches_all(&self) -> bool {
        self.plan.is_all()
    }
}

fn engine_error(error: &regex::Error, pattern: &str) -> RegexError {
    match error {
        regex::Error::CompiledTooBig(_) => RegexError::new("expression too large", pattern),
        other => RegexError(format!("error parsing regexp: {other}")),
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
