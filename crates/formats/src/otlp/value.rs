//! Attribute values as label texts, as the collector's `Value.AsString` writes them: scalars plainly, bytes as base64,
//! lists and maps as JSON with sorted keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::DecodeError;
use crate::wire::{Kind, Wire};

/// Lists and maps in one another, at most.
const MAX_DEPTH: usize = 64;
/// What the texts of all lists and maps of one attribute list may cost together, bytes.
const MAX_COMPOSED: usize = 4 << 20;
/// What an entry of a map costs besides its text.
const ENTRY_COST: usize = 64;

/// An attribute: its name as sent, and its value's text.
pub(super) type Attribute<'a> = (&'a str, Cow<'a, str>);

/// Reads attributes (`KeyValue`) into one list, which is bounded.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    pub(super) list: Vec<Attribute<'a>>,
    /// Bytes that may still be composed.
    left: usize,
}

/// More attributes than this in one list are a defect or an attack.
const MAX_ATTRIBUTES: usize = 4096;

impl<'a> Attributes<'a> {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), left: MAX_COMPOSED }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.left = MAX_COMPOSED;
    }

    /// The value of attribute `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_ref())
    }

    /// Reads one `KeyValue`.
    pub(super) fn read(&mut self, wire: Wire<'a>) -> Result<(), DecodeError> {
        let (key, value) = key_value(wire)?;
        let text = match value {
            None => Cow::Borrowed(""),
            Some(value) => self.text(value)?,
        };
        self.list.push((key, text));
        crate::check_limit("attributes of one list", self.list.len(), MAX_ATTRIBUTES)
    }

    fn text(&mut self, wire: Wire<'a>) -> Result<Cow<'a, str>, DecodeError> {
        let value = any_value(wire)?;
        Ok(match value {
            Any::Empty => Cow::Borrowed(""),
            Any::Text(text) => Cow::Borrowed(text),
            Any::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
            Any::Int(value) => Cow::Owned(value.to_string()),
            Any::Double(value) => Cow::Owned(double(value)),
            Any::Bytes(bytes) => Cow::Owned(STANDARD.encode(bytes)),
            Any::List(_) | Any::Map(_) => {
                let mut json = Json { out: String::new(), left: self.left };
                json.value(value, 0)?;
                self.left = json.left;
                Cow::Owned(json.out)
            }
        })
    }
}

enum Any<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(Wire<'a>),
    Map(Wire<'a>),
    Bytes(&'a [u8]),
}

fn key_value(mut wire: Wire<'_>) -> Result<(&str, Option<Wire<'_>>), DecodeError> {
    let (mut key, mut value) = ("", None);
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Bytes) => key = wire.text()?,
            (2, Kind::Bytes) => value = Some(wire.message("attribute value")?),
            (1 | 2, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok((key, value))
}

fn any_value(mut wire: Wire<'_>) -> Result<Any<'_>, DecodeError> {
    let mut value = Any::Empty;
    while !wire.is_done() {
        value = match wire.tag()? {
            (1, Kind::Bytes) => Any::Text(wire.text()?),
            (2, Kind::Varint) => Any::Bool(wire.varint()? != 0),
            (3, Kind::Varint) => Any::Int(wire.varint()? as i64),
            (4, Kind::Fixed64) => Any::Double(wire.double()?),
            (5, Kind::Bytes) => Any::List(wire.message("list value")?),
            (6, Kind::Bytes) => Any::Map(wire.message("map value")?),
            (7, Kind::Bytes) => {
                let range = wire.bytes()?;
                Any::Bytes(&wire.buf[range])
            }
            (1..=7, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => {
                wire.skip(kind)?;
                value
            }
        };
    }
    Ok(value)
}

/// Writes JSON as Go's `encoding/json` does, with `<`, `>` and `&` escaped.
struct Json {
    out: String,
    left: usize,
}

impl Json {
    fn spend(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(DecodeError::TooLarge {
                what: "bytes of list and map attributes",
                found: MAX_COMPOSED as u64 + 1,
                limit: MAX_COMPOSED as u64,
            }),
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a tag and a slice: as cheap as a reference")]
    fn value(&mut self, value: Any<'_>, depth: usize) -> Result<(), DecodeError> {
        let before = self.out.len();
        match value {
            Any::Empty => self.out.push_str("null"),
            Any::Text(text) => self.text(text)?,
            Any::Bool(value) => self.out.push_str(if value { "true" } else { "false" }),
            Any::Int(value) => self.out.push_str(&value.to_string()),
            Any::Double(value) if value.is_finite() => self.out.push_str(&double(value)),
            Any::Double(_) => self.out.push_str("null"),
            Any::Bytes(bytes) => {
                self.spend(bytes.len())?;
                self.text(&STANDARD.encode(bytes))?;
            }
            Any::List(wire) => return self.list(wire, depth),
            Any::Map(wire) => return self.map(wire, depth),
        }
        self.spend(self.out.len() - before)
    }

    fn list(&mut self, mut wire: Wire<'_>, depth: usize) -> Result<(), DecodeError> {
        if depth == MAX_DEPTH {
            return Err(wire.error("lists and maps in one another more than 64 times"));
        }
        self.out.push('[');
        let mut first = true;
        while !wire.is_done() {
            match wire.tag()? {
                (1, Kind::Bytes) => {
                    if !std::mem::take(&mut first) {
                        self.out.push(',');
                    }
                    self.spend(1)?;
                    let value = any_value(wire.message("list value")?)?;
                    self.value(value, depth + 1)?;
                }
                (1, _) => return Err(wire.error("wrong wire type for the field")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        self.out.push(']');
        self.spend(2)
    }

    fn map(&mut self, mut wire: Wire<'_>, depth: usize) -> Result<(), DecodeError> {
        if depth == MAX_DEPTH {
            return Err(wire.error("lists and maps in one another more than 64 times"));
        }
        let mut entries = BTreeMap::new();
        while !wire.is_done() {
            match wire.tag()? {
                (1, Kind::Bytes) => {
                    self.spend(ENTRY_COST)?;
                    let (key, value) = key_value(wire.message("map value")?)?;
                    entries.insert(key, value);
                }
                (1, _) => return Err(wire.error("wrong wire type for the field")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        self.out.push('{');
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            self.text(key)?;
            self.out.push(':');
            let value = value.map_or(Ok(Any::Empty), any_value)?;
            self.value(value, depth + 1)?;
        }
        self.out.push('}');
        self.spend(2)
    }

    fn text(&mut self, text: &str) -> Result<(), DecodeError> {
        // At most six bytes a character, so the check comes first.
        self.spend(text.len())?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    // Writing into a String cannot fail.
                    let _ = write!(self.out, "\\u{:04x}", u32::from(c));
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }
}

/// A double as Go's JSON writes it; what JSON cannot write, as Prometheus writes it.
fn double(value: f64) -> String {
    if !value.is_finite() {
        return crate::format_float(value);
    }
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_as_in_go() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.25, "0.25"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(double(value), text);
        }
    }
}
