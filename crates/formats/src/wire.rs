//! A protobuf reader over one buffer: pulls tags and values by offset, builds nothing, and treats every length as
//! hostile. Groups are refused; unknown fields are skipped.

use std::ops::Range;

use crate::{DecodeError, check_limit};

/// How a field's value is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// A message, or a run of packed values, inside a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) buf: &'a [u8],
    pub(crate) at: usize,
    pub(crate) end: usize,
    place: &'static str,
}

impl<'a> Wire<'a> {
    /// All of `buf`; `place` names it in errors.
    pub(crate) fn new(buf: &'a [u8], place: &'static str) -> Self {
        Self { buf, at: 0, end: buf.len(), place }
    }

    /// The part `range` of `buf`, which lies inside it.
    pub(crate) fn part(buf: &'a [u8], range: Range<usize>, place: &'static str) -> Self {
        debug_assert!(range.start <= range.end && range.end <= buf.len(), "a part lies inside its buffer");
        Self { buf, at: range.start, end: range.end, place }
    }

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    #[cold]
    pub(crate) fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError::Wire { place: self.place, offset: self.at, problem }
    }

    /// The next field's number and coding.
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<(u32, Kind), DecodeError> {
        let tag = self.varint()?;
        let kind = match tag & 7 {
            0 => Kind::Varint,
            1 => Kind::Fixed64,
            2 => Kind::Bytes,
            5 => Kind::Fixed32,
            _ => return Err(self.error("unknown wire type")),
        };
        let field = u32::try_from(tag >> 3).map_err(|_| self.error("field number out of range"))?;
        if field == 0 {
            return Err(self.error("field number 0"));
        }
        Ok((field, kind))
    }

    /// The next tag, which must be `field` with `kind` when the number is known to the caller.
    #[inline]
    pub(crate) fn expect(&self, found: Kind, wanted: Kind) -> Result<(), DecodeError> {
        if found != wanted {
            return Err(self.error("wrong wire type for the field"));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        if let Some(&byte) = self.buf[..self.end].get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let bytes = &self.buf[self.at..self.end];
        let mut value = 0u64;
        for (at, byte) in bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.at += at + 1;
                return Ok(value);
            }
        }
        Err(self.error(if bytes.len() < 10 { "value cut short" } else { "varint of more than 10 bytes" }))
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        let bytes = self.buf[..self.end].get(self.at..self.at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
        let bytes = bytes.ok_or_else(|| self.error("value cut short"))?;
        self.at += 8;
        Ok(u64::from_le_bytes(bytes))
    }

    #[inline]
    pub(crate) fn double(&mut self) -> Result<f64, DecodeError> {
        self.fixed64().map(f64::from_bits)
    }

    /// Where the bytes of a length-prefixed value stand.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<Range<usize>, DecodeError> {
        let length = self.varint()?;
        if length > (self.end - self.at) as u64 {
            return Err(self.error("length beyond the end"));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    /// A length-prefixed message.
    #[inline]
    pub(crate) fn message(&mut self, place: &'static str) -> Result<Self, DecodeError> {
        let range = self.bytes()?;
        Ok(Self::part(self.buf, range, place))
    }

    /// A length-prefixed string.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let range = self.bytes()?;
        std::str::from_utf8(&self.buf[range]).map_err(|_| self.error("text that is not UTF-8"))
    }

    /// Passes over the value of an unknown field.
    pub(crate) fn skip(&mut self, kind: Kind) -> Result<(), DecodeError> {
        match kind {
            Kind::Varint => {
                self.varint()?;
            }
            Kind::Fixed64 => {
                self.fixed64()?;
            }
            Kind::Bytes => {
                self.bytes()?;
            }
            Kind::Fixed32 => {
                if self.end - self.at < 4 {
                    return Err(self.error("value cut short"));
                }
                self.at += 4;
            }
        }
        Ok(())
    }

    /// One value of a repeated field of varints, or all of them when they are packed.
    pub(crate) fn varints(&mut self, kind: Kind, mut each: impl FnMut(u64)) -> Result<(), DecodeError> {
        self.try_varints(kind, |value| {
            each(value);
            Ok(())
        })
    }

    /// The same, until `each` fails.
    pub(crate) fn try_varints(
        &mut self,
        kind: Kind,
        mut each: impl FnMut(u64) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        match kind {
            Kind::Varint => each(self.varint()?)?,
            Kind::Bytes => {
                let mut packed = self.message(self.place)?;
                while !packed.is_done() {
                    each(packed.varint()?)?;
                }
            }
            _ => return Err(self.error("wrong wire type for the field")),
        }
        Ok(())
    }

    /// One value of a repeated field of doubles, or all of them when they are packed; fails before there would be more
    /// than `limit` in `out`, which the error calls `what`.
    pub(crate) fn doubles(
        &mut self,
        kind: Kind,
        out: &mut Vec<f64>,
        what: &'static str,
        limit: usize,
    ) -> Result<(), DecodeError> {
        match kind {
            Kind::Fixed64 => {
                check_limit(what, out.len() + 1, limit)?;
                out.push(self.double()?);
            }
            Kind::Bytes => {
                let range = self.bytes()?;
                if range.len() % 8 != 0 {
                    return Err(self.error("packed doubles cut short"));
                }
                check_limit(what, out.len() + range.len() / 8, limit)?;
                let values = self.buf[range].chunks_exact(8);
                out.extend(values.filter_map(|b| b.try_into().ok()).map(f64::from_le_bytes));
            }
            _ => return Err(self.error("wrong wire type for the field")),
        }
        Ok(())
    }

    /// One value of a repeated field of 8-byte values, or all of them when they are packed.
    pub(crate) fn fixed64s(&mut self, kind: Kind, mut each: impl FnMut(u64)) -> Result<(), DecodeError> {
        match kind {
            Kind::Fixed64 => each(self.fixed64()?),
            Kind::Bytes => {
                let mut packed = self.message(self.place)?;
                while !packed.is_done() {
                    each(packed.fixed64()?);
                }
            }
            _ => return Err(self.error("wrong wire type for the field")),
        }
        Ok(())
    }
}

/// Appends `value` as a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field, unless it has its default.
pub(crate) fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3);
        put_varint(out, value);
    }
}

/// Appends a field of bytes or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a text field, unless it is empty.
pub(crate) fn put_text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, field, text.as_bytes());
    }
}

/// The signed number of a zigzag-coded varint.
pub(crate) fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The value and length of the varint at the start of `window`, when it has at most 8 bytes.
#[inline]
pub(crate) fn short_varint(window: [u8; 8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(window);
    let stops = !word & 0x8080_8080_8080_8080;
    if stops == 0 {
        return None;
    }
    let mut bits = word & (stops ^ (stops - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    bits = (bits & 0x007f_007f_007f_007f) | ((bits & 0x7f00_7f00_7f00_7f00) >> 1);
    bits = (bits & 0x0000_3fff_0000_3fff) | ((bits & 0x3fff_0000_3fff_0000) >> 2);
    bits = (bits & 0x0000_0000_0fff_ffff) | ((bits & 0x0fff_ffff_0000_0000) >> 4);
    Some((bits, stops.trailing_zeros() as usize / 8 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    proptest! {
        #[test]
        fn varints_come_back_both_ways(value in any::<u64>(), shift in 0u32..64, tail in any::<[u8; 8]>()) {
            let value = value >> shift;
            let bytes = varint(value);
            prop_assert_eq!(Wire::new(&bytes, "x").varint(), Ok(value));
            let mut window = bytes.clone();
            window.extend(tail);
            let short = short_varint(window[..8].try_into().unwrap());
            prop_assert_eq!(short, (bytes.len() <= 8).then_some((value, bytes.len())));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut wire = Wire::new(&bytes, "x");
            while !wire.is_done() {
                let before = wire.at;
                let Ok((_, kind)) = wire.tag() else { break };
                if wire.skip(kind).is_err() {
                    break;
                }
                prop_assert!(wire.at > before && wire.at <= bytes.len());
            }
        }
    }

    #[test]
    fn errors_name_place_and_offset() {
        let check = |bytes: &[u8], expected: &str| {
            let mut wire = Wire::new(bytes, "message");
            let result = wire.tag().and_then(|(_, kind)| wire.skip(kind));
            assert_eq!(result.unwrap_err().to_string(), format!("protobuf: {expected}"));
        };
        check(&[0x0a, 5, 1], "length beyond the end in message at offset 2");
        check(&[0x0b], "unknown wire type in message at offset 1");
        check(&[0x02, 0], "field number 0 in message at offset 1");
        check(&[0xff; 11], "varint of more than 10 bytes in message at offset 0");
        check(&[0x09, 1], "value cut short in message at offset 1");
        check(&[0x0d, 1], "value cut short in message at offset 1");
    }
}
