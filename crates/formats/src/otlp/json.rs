//! OTLP's JSON coding, rewritten as protobuf while it is read: nothing is built in between, unknown names are passed
//! over, and nesting is bounded by the JSON reader (128 levels).
//!
//! The result may be longer than the text, since a one-digit number becomes 8 bytes and a tag; it is held to twice the
//! text's length (or 1 MiB), which requests with names and labels in them never reach.

use std::fmt;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::schema::{Field, Kind, REQUEST};
use crate::DecodeError;
use crate::wire::put_varint as varint;

/// Bytes kept free for the length of a message, which is known only at its end: a varint of this many bytes.
const LENGTH_BYTES: usize = 5;

/// The request in `body` in its protobuf coding.
pub(super) fn to_protobuf(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let limit = (body.len() * 2).max(1 << 20);
    let mut out = Out { bytes: Vec::with_capacity(body.len() / 2), limit };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = Message { fields: &REQUEST, out: &mut out }.deserialize(&mut reader);
    let read = read.and_then(|()| reader.end());
    crate::check_limit("bytes of numbers in JSON", out.bytes.len(), limit)?;
    read.map_err(|error| {
        // The library's text quotes what the sender wrote.
        DecodeError::Json(error.to_string().chars().take(200).collect())
    })?;
    Ok(out.bytes)
}

/// The message as far as it is written.
struct Out {
    bytes: Vec<u8>,
    limit: usize,
}

fn check<E: Error>(out: &Out) -> Result<(), E> {
    if out.bytes.len() > out.limit { Err(E::custom("too many numbers")) } else { Ok(()) }
}

fn tag(out: &mut Vec<u8>, number: u32, wire_type: u64) {
    varint(out, u64::from(number) << 3 | wire_type);
}

/// A JSON object as the message with `fields`; its bytes are appended without tag and length.
struct Message<'a> {
    fields: &'static [Field],
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(Name(self.fields))? {
            check(self.out)?;
            match found {
                Some(field) => {
                    map.next_value_seed(Value { field, repeated: field.repeated, out: self.out })?
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The field of that name, in `camelCase` or `snake_case`.
struct Name(&'static [Field]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|field| same_name(field.name, name)))
    }
}

/// Whether `name` is `camel`, or the same name in snake case.
fn same_name(camel: &str, name: &str) -> bool {
    let mut rest = name.bytes();
    camel.bytes().all(|wanted| match rest.next() {
        Some(byte) if byte == wanted => true,
        Some(b'_') => wanted.is_ascii_uppercase() && rest.next() == Some(wanted.to_ascii_lowercase()),
        _ => false,
    }) && rest.next().is_none()
}

/// The value of `field`, or one of its values; null stands for an absent one.
struct Value<'a> {
    field: &'static Field,
    repeated: bool,
    out: &'a mut Out,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    /// A value as the message `fields`, whose length is put in when it is known.
    fn message<'de, A: MapAccess<'de>>(self, fields: &'static [Field], map: A) -> Result<(), A::Error> {
        tag(&mut self.out.bytes, self.field.number, 2);
        let start = self.out.bytes.len();
        self.out.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
        Message { fields, out: &mut *self.out }.visit_map(map)?;
        let mut length = self.out.bytes.len() - start - LENGTH_BYTES;
        for (at, byte) in self.out.bytes[start..start + LENGTH_BYTES].iter_mut().enumerate() {
            let more = if at + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            *byte = (length & 0x7f) as u8 | more;
            length >>= 7;
        }
        Ok(())
    }

    fn bytes(self, bytes: &[u8]) {
        tag(&mut self.out.bytes, self.field.number, 2);
        varint(&mut self.out.bytes, bytes.len() as u64);
        self.out.bytes.extend_from_slice(bytes);
    }

    fn double(self, value: f64) {
        tag(&mut self.out.bytes, self.field.number, 1);
        self.out.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A whole number, given as the 64 bits that it has in two's complement.
    fn whole<E: Error>(self, bits: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                return Err(E::custom("whole number for a double"));
            }
            Kind::Fixed64 => {
                tag(&mut self.out.bytes, self.field.number, 1);
                self.out.bytes.extend_from_slice(&bits.to_le_bytes());
            }
            Kind::Varint | Kind::Enum(_) => {
                tag(&mut self.out.bytes, self.field.number, 0);
                varint(&mut self.out.bytes, bits);
            }
            Kind::Zigzag => {
                tag(&mut self.out.bytes, self.field.number, 0);
                let value = bits as i64;
                varint(&mut self.out.bytes, (value << 1 ^ value >> 63) as u64);
            }
            _ => return Err(self.unexpected("a number")),
        }
        Ok(())
    }

    fn unexpected<E: Error>(&self, found: &str) -> E {
        E::custom(format_args!("{found} as the value of {}", self.field.name))
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Bool) {
            return Err(self.unexpected("a boolean"));
        }
        tag(&mut self.out.bytes, self.field.number, 0);
        self.out.bytes.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.double(value as f64);
                Ok(())
            }
            _ => self.whole(value),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.double(value as f64);
                Ok(())
            }
            _ => self.whole(value as u64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                self.double(value);
                Ok(())
            }
            // "1.0" and "1e3" are whole numbers too.
            _ if value.fract() == 0.0 && value.abs() < 9.2e18 => self.whole(value as i64 as u64),
            _ => Err(self.unexpected("a fraction")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::Text => self.bytes(text.as_bytes()),
            Kind::Hex => match hex(text) {
                Some(bytes) => self.bytes(&bytes),
                None => return Err(self.unexpected("no hexadecimal text")),
            },
            Kind::Base64 => match base64(text) {
                Some(bytes) => self.bytes(&bytes),
                None => return Err(self.unexpected("no base64 text")),
            },
            Kind::Double => match text {
                "NaN" => self.double(f64::NAN),
                "Infinity" => self.double(f64::INFINITY),
                "-Infinity" => self.double(f64::NEG_INFINITY),
                _ => match text.parse::<f64>() {
                    Ok(value) if value.is_finite() => self.double(value),
                    _ => return Err(self.unexpected("no number")),
                },
            },
            Kind::Enum(names) => match names.iter().position(|name| *name == text) {
                Some(number) => return self.whole(number as u64),
                None => return Err(self.unexpected("an unknown name")),
            },
            Kind::Fixed64 | Kind::Varint | Kind::Zigzag => {
                let bits = text.parse::<u64>().or_else(|_| text.parse::<i64>().map(|value| value as u64));
                return match bits {
                    Ok(bits) => self.whole(bits),
                    Err(_) => Err(self.unexpected("no whole number")),
                };
            }
            Kind::Bool | Kind::Message(_) => return Err(self.unexpected("a text")),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.field.kind {
            Kind::Message(fields) if !self.repeated => self.message(fields, map),
            _ => Err(self.unexpected("an object")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !self.repeated {
            return Err(self.unexpected("a list"));
        }
        while list.next_element_seed(Value { field: self.field, repeated: false, out: self.out })?.is_some() {
            check(self.out)?;
        }
        Ok(())
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Both alphabets, with padding or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    LENIENT.decode(text.replace('-', "+").replace('_', "/")).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn names_in_both_cases() {
        assert!(same_name("resourceMetrics", "resourceMetrics"));
        assert!(same_name("resourceMetrics", "resource_metrics"));
        assert!(!same_name("resourceMetrics", "resourcemetrics"));
        assert!(!same_name("resourceMetrics", "resourceMetricsX"));
        assert!(!same_name("resourceMetrics", "resource"));
    }

    #[test]
    fn bytes_of_texts() {
        assert_eq!(hex("0aFf"), Some(vec![10, 255]));
        assert_eq!((hex("0"), hex("0g"), hex("")), (None, None, Some(vec![])));
        for text in ["", "f", "fo", "foo", "foob"] {
            let coded = STANDARD.encode(text);
            for form in [coded.as_str(), coded.trim_end_matches('=')] {
                assert_eq!(base64(form).as_deref(), Some(text.as_bytes()), "{form}");
            }
        }
        assert_eq!((base64("A"), base64("é")), (None, None));
        assert_eq!((base64("-_8="), base64("+/8")), (Some(vec![251, 255]), Some(vec![251, 255])));
    }
}
