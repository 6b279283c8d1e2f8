//! Writing expositions: Prometheus's text format, label by label, and OpenMetrics rewritten as Prometheus's format
//! for those who accept only that.

use std::collections::HashSet;

use model::MetricKind;

use super::{Entry, Parser, TextFormat};
use crate::{DecodeError, format_float};

/// Writes Prometheus's text format 0.0.4. Names that are not of the classic alphabet are written in quotes.
#[derive(Clone, Debug, Default)]
pub struct TextWriter {
    out: String,
}

impl TextWriter {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The type line of a family, with its help text before it unless that is empty.
    pub fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        if !help.is_empty() {
            self.out.push_str("# HELP ");
            self.name(name);
            self.out.push(' ');
            self.escaped(help, false);
            self.out.push('\n');
        }
        self.out.push_str("# TYPE ");
        self.name(name);
        self.out.push(' ');
        self.out.push_str(classic_kind(kind));
        self.out.push('\n');
    }

    /// A sample with its labels (without the metric's name) and its timestamp in ms, if any.
    pub fn sample<'l>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        value: f64,
        timestamp: Option<i64>,
    ) {
        self.series(name, labels);
        self.value(value, timestamp);
    }

    /// The type line of a family as OpenMetrics has it.
    pub(crate) fn open_family(&mut self, name: &str, kind: MetricKind) {
        self.out.push_str("# TYPE ");
        self.name(name);
        self.out.push(' ');
        self.out.push_str(kind.as_str());
        self.out.push('\n');
    }

    /// A sample as OpenMetrics has it: the timestamp, given in ms, in seconds.
    pub(crate) fn open_sample<'l>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        value: f64,
        timestamp: i64,
    ) {
        self.series(name, labels);
        self.out.push(' ');
        self.out.push_str(&format_float(value));
        self.out.push(' ');
        if timestamp < 0 {
            self.out.push('-');
        }
        let ms = timestamp.unsigned_abs();
        self.out.push_str(&(ms / 1_000).to_string());
        if !ms.is_multiple_of(1_000) {
            let fraction = format!(".{:03}", ms % 1_000);
            self.out.push_str(fraction.trim_end_matches('0'));
        }
        self.out.push('\n');
    }

    fn series<'l>(&mut self, name: &str, labels: impl IntoIterator<Item = (&'l str, &'l str)>) {
        let classic = is_classic_name(name);
        if classic {
            self.out.push_str(name);
        } else {
            self.out.push('{');
            self.name(name);
        }
        let mut first = classic;
        for (label, text) in labels {
            self.out.push(if first { '{' } else { ',' });
            first = false;
            if is_classic_name(label) && !label.contains(':') {
                self.out.push_str(label);
            } else {
                self.quoted(label);
            }
            self.out.push('=');
            self.quoted(text);
        }
        if !first {
            self.out.push('}');
        }
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.out
    }

    fn value(&mut self, value: f64, timestamp: Option<i64>) {
        self.out.push(' ');
        self.out.push_str(&format_float(value));
        if let Some(timestamp) = timestamp {
            self.out.push(' ');
            self.out.push_str(&timestamp.to_string());
        }
        self.out.push('\n');
    }

    fn name(&mut self, name: &str) {
        if is_classic_name(name) {
            self.out.push_str(name);
        } else {
            self.quoted(name);
        }
    }

    fn quoted(&mut self, text: &str) {
        self.out.push('"');
        self.escaped(text, true);
        self.out.push('"');
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '"' if quotes => self.out.push_str("\\\""),
                c => self.out.push(c),
            }
        }
    }
}

/// The OpenMetrics text `body` in Prometheus's text format: counters get their `_total` in the type line, units and
/// exemplars go, types that the older format does not know become the nearest that it does. Fails as the parser does.
pub fn openmetrics_to_text(body: &[u8]) -> Result<String, DecodeError> {
    let mut writer = TextWriter { out: String::with_capacity(body.len()) };
    let mut parser = Parser::new(body, TextFormat::OpenMetrics);
    // Help comes before or after the type; the family's name depends on the type, so help waits for it.
    let mut pending: Option<(String, String)> = None;
    let mut typed = HashSet::new();
    while let Some(entry) = parser.next()? {
        match entry {
            Entry::Help { family, help } => {
                if let Some((family, help)) =
                    pending.replace((family.text().into_owned(), help.text().into_owned()))
                    && !typed.contains(&family)
                {
                    writer.family(&family, MetricKind::Unknown, &help);
                }
            }
            Entry::Type { family, kind } => {
                let family = family.text().into_owned();
                let help =
                    pending.take_if(|(name, _)| *name == family).map(|(_, help)| help).unwrap_or_default();
                let suffix = match kind {
                    MetricKind::Counter => "_total",
                    MetricKind::Info => "_info",
                    _ => "",
                };
                writer.family(&format!("{family}{suffix}"), kind, &help);
                typed.insert(family);
            }
            Entry::Unit { .. } => {}
            Entry::Series(entry) => {
                writer.out.push_str(entry.series);
                writer.value(entry.value, entry.timestamp);
            }
        }
    }
    Ok(writer.finish())
}

fn classic_kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge | MetricKind::Info | MetricKind::StateSet => "gauge",
        MetricKind::Histogram => "histogram",
        MetricKind::Summary => "summary",
        MetricKind::GaugeHistogram | MetricKind::Unknown => "untyped",
    }
}

fn is_classic_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}
