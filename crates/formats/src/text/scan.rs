//! What both grammars share: a place in the buffer, the classes of characters, names, quoted texts, label lists,
//! and errors that show where.

use model::MetricKind;

use super::Escaped;
use crate::{DecodeError, parse_float};

/// Bit flags of [`CLASS`].
const LABEL_START: u8 = 1;
const LABEL: u8 = 2;
const NAME_START: u8 = 4;
const NAME: u8 = 8;

/// Which names a byte may stand in.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => LABEL_START | LABEL | NAME_START | NAME,
            b'0'..=b'9' => LABEL | NAME,
            b':' => NAME_START | NAME,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// A place in a buffer.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) buf: &'a [u8],
    pub(super) at: usize,
}

/// What a label list is part of, which decides what is accepted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    /// A series of Prometheus's format: blanks anywhere, commas optional, raw newlines in values.
    Prometheus,
    /// A series of OpenMetrics.
    OpenMetrics,
    /// An exemplar of OpenMetrics: no metric name inside.
    Exemplar,
    /// A series as a parser hands it on: as Prometheus's, and NULs in names, which protobuf may have.
    Parsed,
}

/// A part of a label list. Texts are raw: escapes stand as written.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListPart<'a> {
    MetricName(&'a [u8]),
    Pair(&'a [u8], &'a [u8]),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(buf: &'a [u8]) -> Self {
        Self { buf, at: 0 }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.buf.get(self.at).copied()
    }

    /// Passes `byte` if it comes next.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Passes `text` if it comes next.
    pub(super) fn eat_text(&mut self, text: &[u8]) -> bool {
        let is_next = self.buf[self.at..].starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    #[inline]
    pub(super) fn skip_blanks(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self.at > start
    }

    #[inline]
    fn run(&mut self, first: u8, rest: u8) -> Option<&'a [u8]> {
        let start = self.at;
        if CLASS[usize::from(self.peek()?)] & first == 0 {
            return None;
        }
        let tail = &self.buf[start + 1..];
        let length = tail.iter().position(|b| CLASS[usize::from(*b)] & rest == 0).unwrap_or(tail.len());
        self.at = start + 1 + length;
        Some(&self.buf[start..self.at])
    }

    /// A metric name without quotes.
    #[inline]
    pub(super) fn metric_name(&mut self) -> Option<&'a [u8]> {
        self.run(NAME_START, NAME)
    }

    /// The bytes up to the end of the line or of the buffer; does not pass the newline.
    pub(super) fn rest_of_line(&mut self) -> &'a [u8] {
        let rest = &self.buf[self.at..];
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// The bytes up to the next of `stops`, or to the end of the buffer.
    #[inline]
    pub(super) fn until(&mut self, stops: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.buf[self.at..];
        let length = rest.iter().position(|b| stops(*b)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// A text in double quotes, without them and with its escapes. `None` (and no step) when there is none, when it
    /// does not end, when `newlines` is false and there is one, or when `nuls` is false and there is one.
    #[inline]
    pub(super) fn quoted(&mut self, newlines: bool, nuls: bool) -> Option<&'a [u8]> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let text = &self.buf[self.at + 1..];
        let mut at = 0;
        loop {
            at += memchr::memchr2(b'"', b'\\', &text[at..])?;
            if text[at] == b'"' {
                break;
            }
            // A backslash takes the next character with it, whatever it is but a newline.
            if matches!(text.get(at + 1), None | Some(b'\n')) {
                return None;
            }
            at += 2;
        }
        let text = &text[..at];
        if (!newlines && memchr::memchr(b'\n', text).is_some())
            || (!nuls && memchr::memchr(0, text).is_some())
        {
            return None;
        }
        self.at += at + 2;
        Some(text)
    }

    /// A label list after its opening brace, to after its closing one; `each` gets its parts in order. A quoted text
    /// that is no label's name is the metric's, which may come once and only when `named` is false. Gives whether
    /// the metric has a name now.
    pub(super) fn label_list(
        &mut self,
        kind: ListKind,
        mut named: bool,
        mut each: impl FnMut(ListPart<'a>),
    ) -> Result<bool, DecodeError> {
        let start = self.at;
        let blanks = matches!(kind, ListKind::Prometheus | ListKind::Parsed);
        let skip = |cursor: &mut Self| {
            if blanks {
                cursor.skip_blanks();
            }
        };
        loop {
            skip(self);
            if self.eat(b'}') {
                return Ok(named);
            }
            let in_quotes = self.peek() == Some(b'"');
            let name = if in_quotes {
                self.quoted(kind != ListKind::Exemplar, kind == ListKind::Parsed)
            } else {
                self.run(LABEL_START, LABEL)
            };
            let name = name.ok_or_else(|| self.error("expected label name"))?;
            skip(self);
            if in_quotes && kind != ListKind::Exemplar && matches!(self.peek(), Some(b',' | b'}')) {
                if named {
                    return Err(self.error_from(start, "metric name already set"));
                }
                named = true;
                each(ListPart::MetricName(name));
                self.eat(b',');
                continue;
            }
            if !self.eat(b'=') {
                return Err(self.error("expected equal"));
            }
            skip(self);
            let value_at = self.at;
            let value = self.quoted(blanks, kind != ListKind::Exemplar);
            let value = value.ok_or_else(|| self.error("expected label value"))?;
            if std::str::from_utf8(value).is_err() {
                return Err(self.error_from(value_at, "invalid UTF-8 label value"));
            }
            each(ListPart::Pair(name, value));
            skip(self);
            if !self.eat(b',') && !blanks && self.peek() != Some(b'}') {
                return Err(self.error("expected comma or brace close"));
            }
        }
    }

    /// A family's name on a metadata line: plain, or in quotes.
    pub(super) fn family(&mut self, word: &str) -> Result<Escaped<'a>, DecodeError> {
        let start = self.at;
        let name = self.metric_name().or_else(|| self.quoted(true, false));
        let name = name.ok_or_else(|| self.error(&format!("expected metric name after {word}")))?;
        let raw = self.utf8(start, name)?;
        Ok(Escaped { raw, quotes: true })
    }

    pub(super) fn utf8(&self, start: usize, text: &'a [u8]) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(text).map_err(|_| self.error_from(start, "text is not a valid utf8 string"))
    }

    /// The float that `text`, which begins at `start`, means.
    #[inline]
    pub(super) fn float(&self, start: usize, text: &[u8]) -> Result<f64, DecodeError> {
        parse_float(text).ok_or_else(|| self.error_from(start, "invalid number"))
    }

    /// An error at the cursor.
    #[cold]
    pub(super) fn error(&self, problem: &str) -> DecodeError {
        self.error_from(self.at, problem)
    }

    /// An error about what stands at `start`.
    #[cold]
    pub(super) fn error_from(&self, start: usize, problem: &str) -> DecodeError {
        let start = start.min(self.buf.len());
        let line = 1 + memchr::memchr_iter(b'\n', &self.buf[..start]).count();
        let shown = &self.buf[start..self.buf.len().min(start + 40)];
        let shown = &shown[..memchr::memchr(b'\n', shown).unwrap_or(shown.len())];
        let shown = String::from_utf8_lossy(shown);
        let got = if start == self.buf.len() {
            "the end".to_owned()
        } else if shown.is_empty() {
            "the end of the line".to_owned()
        } else {
            format!("{shown:?}")
        };
        DecodeError::Text { line, problem: format!("{problem}, got {got}") }
    }
}

/// The type of that name, where `unknown` is the word for no type.
pub(super) fn metric_kind(name: &[u8], unknown: &[u8], openmetrics: bool) -> Option<MetricKind> {
    let kind = match name {
        b"counter" => MetricKind::Counter,
        b"gauge" => MetricKind::Gauge,
        b"histogram" => MetricKind::Histogram,
        b"summary" => MetricKind::Summary,
        b"gaugehistogram" if openmetrics => MetricKind::GaugeHistogram,
        b"info" if openmetrics => MetricKind::Info,
        b"stateset" if openmetrics => MetricKind::StateSet,
        name if name == unknown => MetricKind::Unknown,
        _ => return None,
    };
    Some(kind)
}
