//! Infos and warnings of an evaluation: what kind, where in the query, in upstream's words.

use std::collections::BTreeSet;

use promql::ast::Span;

/// How serious an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnnotationKind {
    /// Something may be wrong with the query.
    Info,
    /// The result is probably not what was meant.
    Warning,
}

/// One info or warning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Annotation {
    /// How serious.
    pub kind: AnnotationKind,
    /// Upstream's text without position, for example `PromQL info: metric might not be a counter, …`.
    pub text: String,
    /// The bytes of the query text that it is about: (first, one past the last).
    pub span: (u32, u32),
}

impl Annotation {
    /// The text with its position in `query`, as the HTTP API shows it: `text (line:column)`.
    pub fn render(&self, query: &str) -> String {
        let at = (self.span.0 as usize).min(query.len());
        let before = &query.as_bytes()[..at];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rposition(|b| *b == b'\n').map_or(at, |newline| at - newline - 1) + 1;
        format!("{} ({line}:{column})", self.text)
    }
}

/// The annotations of an evaluation, each once, in order of kind, text, place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    set: BTreeSet<Annotation>,
}

impl Annotations {
    /// Adds one, unless it is there already.
    pub fn add(&mut self, kind: AnnotationKind, text: impl Into<String>, span: Span) {
        self.set.insert(Annotation { kind, text: text.into(), span: (span.start, span.end) });
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        self.set.extend(other.set);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Annotation> {
        self.set.iter()
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Annotation> {
        self.iter().filter(|a| a.kind == AnnotationKind::Warning)
    }

    /// The infos.
    pub fn infos(&self) -> impl Iterator<Item = &Annotation> {
        self.iter().filter(|a| a.kind == AnnotationKind::Info)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}
