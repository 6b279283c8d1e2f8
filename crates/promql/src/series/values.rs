//! The values of a series description.

use model::number;

use super::{MAX_VALUES, SeriesChange, SeriesItem, SeriesValue, histogram};
use crate::parse::parse_number;
use crate::quote::quote;

/// Where something is wrong, and what.
pub(super) type Failed = (usize, String);

/// Reads values from one text.
pub(super) struct Values<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    total: u64,
}

impl<'a> Values<'a> {
    /// The values begin at byte `at` of `text`.
    pub(super) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at, total: 0 }
    }

    /// All values up to the end.
    pub(super) fn read(&mut self) -> Result<Vec<SeriesItem>, Failed> {
        let mut items = Vec::new();
        loop {
            let spaced = self.skip_spaces();
            if self.at == self.text.len() {
                return Ok(items);
            }
            if !spaced {
                return Err(self.unexpected("series values", None));
            }
            items.push(self.item()?);
        }
    }

    fn item(&mut self) -> Result<SeriesItem, Failed> {
        let (first, change, implied) = match self.peek() {
            Some(b'_') => {
                self.at += 1;
                (SeriesValue::Omitted, None, 0)
            }
            Some(b'{') => {
                let (histogram, hint_set) = histogram::read(self)?;
                let change = match self.peek() {
                    Some(sign @ (b'+' | b'-')) => {
                        self.at += 1;
                        let (by, hint_set) = histogram::read(self)?;
                        let by = Box::new(by);
                        Some((SeriesChange::Histogram { subtract: sign == b'-', by }, hint_set))
                    }
                    _ => None,
                };
                // Upstream remembers the hint of the histogram read last for the whole sequence.
                let hint_set = change.as_ref().map_or(hint_set, |(_, set)| *set);
                let first = SeriesValue::Histogram { histogram: Box::new(histogram), hint_set };
                (first, change.map(|(change, _)| change), 1)
            }
            _ => {
                let value = self.value()?;
                let change = match self.peek() {
                    Some(b'+' | b'-') => Some(SeriesChange::Float(self.signed_number()?)),
                    _ => None,
                };
                (SeriesValue::Float(value), change, 1)
            }
        };
        let count = if self.accept(b'x') {
            // A repetition comes on top of the value itself, but `_x3` are three.
            self.repetition()?.saturating_add(implied)
        } else if change.is_some() {
            return Err(self.unexpected("series values", None));
        } else {
            1
        };
        self.total = self.total.saturating_add(count);
        if self.total > MAX_VALUES {
            return Err((self.at, format!("the series has more values than the limit of {MAX_VALUES}")));
        }
        Ok(SeriesItem { first, change, count })
    }

    /// A number, `stale`, `inf` or `nan`.
    fn value(&mut self) -> Result<f64, Failed> {
        let start = self.at;
        let word = self.word();
        if word.is_empty() {
            return self.signed_number();
        }
        match word {
            "stale" => Ok(model::stale_nan()),
            _ if word.eq_ignore_ascii_case("inf") => Ok(f64::INFINITY),
            _ if word.eq_ignore_ascii_case("nan") => Ok(f64::NAN),
            _ => {
                let found = quote(word);
                Err((
                    start,
                    format!("unexpected identifier {found} in series values, expected number or \"stale\""),
                ))
            }
        }
    }

    pub(super) fn signed_number(&mut self) -> Result<f64, Failed> {
        let minus = self.peek() == Some(b'-');
        if minus || self.peek() == Some(b'+') {
            self.at += 1;
        }
        let value = self.unsigned_number()?;
        Ok(if minus { -value } else { value })
    }

    pub(super) fn unsigned_number(&mut self) -> Result<f64, Failed> {
        let start = self.at;
        let word = self.word();
        match word {
            "" => {}
            _ if word.eq_ignore_ascii_case("inf") => return Ok(f64::INFINITY),
            _ if word.eq_ignore_ascii_case("nan") => return Ok(f64::NAN),
            _ => {
                self.at = start;
                return Err(self.unexpected("series values", None));
            }
        }
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            let after_exponent =
                matches!(bytes.get(self.at.wrapping_sub(1)), Some(b'e' | b'E')) && self.at > start;
            match byte {
                b'0'..=b'9' | b'.' | b'_' | b'e' | b'E' => self.at += 1,
                b'+' | b'-' if after_exponent => self.at += 1,
                _ => break,
            }
        }
        let text = &self.text[start..self.at];
        if text.is_empty() {
            return Err(self.unexpected("series values", None));
        }
        parse_number(text).map_err(|error| match error {
            number::NumberError::Syntax => (start, format!("bad number syntax: {}", quote(text))),
            number::NumberError::Range(_) => {
                (start, format!("error parsing number: strconv.ParseFloat: parsing {}: {error}", quote(text)))
            }
        })
    }

    fn repetition(&mut self) -> Result<u64, Failed> {
        let start = self.at;
        let digits = self.text[start..].bytes().take_while(u8::is_ascii_digit).count();
        self.at += digits;
        let text = &self.text[start..self.at];
        text.parse().map_err(|_| {
            let found = quote(text);
            (
                start,
                format!(
                    "invalid repetition in series values: strconv.ParseUint: parsing {found}: invalid syntax"
                ),
            )
        })
    }

    /// Letters and underscores, digits after them.
    pub(super) fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_start = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let length = match rest.bytes().next() {
            Some(first) if is_start(first) => {
                rest.bytes().take_while(|b| is_start(*b) || b.is_ascii_digit()).count()
            }
            _ => 0,
        };
        self.at += length;
        &rest[..length]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_spaces(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at > start
    }

    pub(super) fn unexpected(&self, place: &str, expected: Option<&str>) -> Failed {
        let found = match self.text[self.at..].chars().next() {
            Some(c) => quote(c.encode_utf8(&mut [0; 4])),
            None => "end of input".to_owned(),
        };
        let expected = expected.map(|e| format!(", expected {e}")).unwrap_or_default();
        (self.at, format!("unexpected {found} in {place}{expected}"))
    }
}
