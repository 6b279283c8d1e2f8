//! Exposition text: Prometheus's format 0.0.4 and OpenMetrics 1.0, as pull parsers over one buffer that copy
//! nothing, and a writer.
//!
//! What is accepted and refused follows upstream's `model/textparse` (3.16), lexer and all: for instance, labels
//! without a comma between them pass in Prometheus's format and not in OpenMetrics. Two differences: a NUL byte
//! where a line begins is an error instead of a quiet end, and label names that are not UTF-8 are errors at once.
//!
//! The grammars live in [`prometheus`] and [`openmetrics`] over `scan`; series text becomes labels in [`labels`];
//! [`custom`] turns classic histograms into ones with custom buckets; [`mod@write`] goes the other way.

pub mod custom;
pub mod labels;
mod openmetrics;
mod prometheus;
mod scan;
pub mod write;

use std::borrow::Cow;

use model::{Exemplar, Labels, LabelsBuilder, MetricKind};

use crate::DecodeError;
use scan::Cursor;

pub use labels::series_labels;

/// Which of the two grammars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextFormat {
    /// Prometheus text 0.0.4 and 1.0.0.
    Prometheus,
    /// OpenMetrics text 0.0.1 and 1.0.0.
    OpenMetrics,
}

/// A piece of text in which `\\`, `\n` and (not in a help text of Prometheus's format) `\"` stand for other
/// characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a> {
    raw: &'a str,
    quotes: bool,
}

impl<'a> Escaped<'a> {
    /// The text as it stands in the exposition.
    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The text that is meant; copies only when there is an escape.
    pub fn text(self) -> Cow<'a, str> {
        labels::unescape(self.raw, self.quotes)
    }
}

/// One entry of an exposition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A sample.
    Series(SeriesEntry<'a>),
    /// The type of a family.
    Type {
        /// The family's name.
        family: Escaped<'a>,
        /// Its type.
        kind: MetricKind,
    },
    /// The help text of a family.
    Help {
        /// The family's name.
        family: Escaped<'a>,
        /// What it says.
        help: Escaped<'a>,
    },
    /// The unit of a family (OpenMetrics only).
    Unit {
        /// The family's name.
        family: Escaped<'a>,
        /// Its unit, may be empty.
        unit: &'a str,
    },
}

/// A sample as it stands in the exposition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesEntry<'a> {
    /// Name and labels as written: the same text under the same `kind` always means the same series, so it serves as
    /// a cache key. [`series_labels`] decodes it.
    pub series: &'a str,
    /// The type that the last type line before it stated, of whatever family it was (upstream's habit); decides how
    /// `le` and `quantile` are normalised.
    pub kind: MetricKind,
    /// The value; a NaN is [`crate::NORMAL_NAN`].
    pub value: f64,
    /// Its timestamp in ms, when it has one.
    pub timestamp: Option<i64>,
    /// Its exemplar (OpenMetrics only).
    pub exemplar: Option<ExemplarEntry<'a>>,
}

/// An exemplar as it stands in the exposition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExemplarEntry<'a> {
    /// Its labels with their braces.
    labels: &'a str,
    /// The observed value; a NaN is [`crate::NORMAL_NAN`].
    pub value: f64,
    /// Its timestamp in ms, when it has one.
    pub timestamp: Option<i64>,
}

impl ExemplarEntry<'_> {
    /// The exemplar, with `now` (ms) when it has no timestamp of its own. Fails when it repeats a label.
    pub fn decode(&self, now: i64) -> Result<Exemplar, model::LabelError> {
        let mut builder = LabelsBuilder::new();
        labels::exemplar_labels(self.labels, &mut builder);
        let labels: Labels = builder.build()?;
        Ok(Exemplar { labels, value: self.value, timestamp: self.timestamp.unwrap_or(now) })
    }
}

/// Pulls entries out of an exposition. After an error there is nothing more to pull.
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    cursor: Cursor<'a>,
    format: TextFormat,
    kind: MetricKind,
    ended: bool,
}

impl<'a> Parser<'a> {
    /// A parser at the beginning of `body`.
    pub fn new(body: &'a [u8], format: TextFormat) -> Self {
        Self { cursor: Cursor::new(body), format, kind: MetricKind::Unknown, ended: false }
    }

    /// The next entry, or `None` at the end. Comments are passed over. Fails where the text leaves its grammar; an
    /// OpenMetrics text must end with `# EOF`.
    #[allow(clippy::should_implement_trait, reason = "a fallible pull, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, DecodeError> {
        if self.ended {
            return Ok(None);
        }
        let entry = match self.format {
            TextFormat::Prometheus => prometheus::next(&mut self.cursor, &mut self.kind),
            TextFormat::OpenMetrics => openmetrics::next(&mut self.cursor, &mut self.kind),
        };
        self.ended = !matches!(entry, Ok(Some(_)));
        entry
    }
}

#[cfg(test)]
mod tests;
