//! Columns of floats: which coding suits them, and the exceptions that would spoil it (NaN, infinities, −0, the
//! staleness marker, the odd value with too many digits).
//!
//! ```text
//! constant      tag | the bits, big endian, without trailing zero bytes
//! decimal       packed integers (pack.rs); value = integer / 10^exponent
//! near decimal  the same, then packed integers: how many floats further the value is (sums of decimals drift so)
//! ordered bits  packed integers whose order is that of the floats
//! raw           tag | 8 bytes a value, little endian
//!
//! exceptions    number of runs varint, then for each run
//!               gap since the run before varint | kind:4, length - 1:4 | [length - 16 varint] [8 bytes]
//! ```

use crate::bytes::{Reader, expect_empty, push_varint};
use crate::{ChunkError, Encoder, decimal, pack};

/// The coding of a column: its first byte's low four bits. 4 is a reference
/// to another column (see the page), 5 and 7 are kept for families of histogram buckets and for pco.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// One bit pattern for all rows.
    Constant = 0,
    /// Decimals as integers.
    Decimal = 1,
    /// Decimals as integers, and the small distances of the values from them.
    NearDecimal = 2,
    /// The bits of the floats as integers of the same order.
    OrderedBits = 3,
    /// Eight bytes a row.
    Raw = 6,
    /// Integers, not floats: stamps.
    Integers = 8,
}

/// A run of rows that are not what their integers say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    at: usize,
    len: usize,
    bits: u64,
}

/// Bit patterns that have a number of their own; 0 means that the bits follow.
const KINDS: [u64; 8] = [
    0,
    model::STALE_NAN_BITS,
    0x7ff8_0000_0000_0001, // Go's NaN
    0x7ff8_0000_0000_0000, // Rust's NaN
    0xfff8_0000_0000_0000, // what x86 gives for 0/0
    0x7ff0_0000_0000_0000, // +Inf
    0xfff0_0000_0000_0000, // -Inf
    0x8000_0000_0000_0000, // -0
];

pub(crate) fn encode(encoder: &mut Encoder, values: &[f64], out: &mut Vec<u8>) -> Tag {
    let Some(first) = values.first().map(|v| v.to_bits()) else { return Tag::Constant };
    if values.iter().all(|v| v.to_bits() == first) {
        out.push(Tag::Constant as u8);
        let bytes = first.to_be_bytes();
        let trailing = first.trailing_zeros() as usize / 8;
        out.extend_from_slice(&bytes[..8 - trailing]);
        return Tag::Constant;
    }
    let start = out.len();
    let mut misses = std::mem::take(&mut encoder.misses);
    let mut tag = Tag::Raw;
    if let Some(exponent) = decimal::detect(values, &mut encoder.ints, &mut misses) {
        tag = Tag::Decimal;
        encoder.packed(values, &misses, tag, exponent, out);
    }
    if tag == Tag::Raw || out.len() - start > 5 * values.len() || misses.len() > values.len() / 8 {
        // Not decimals, or many digits or exceptions.
        let mut spare = std::mem::take(&mut encoder.spare);
        let mut keep_smaller = |candidate: Tag, spare: &mut Vec<u8>, out: &mut Vec<u8>| {
            if tag == Tag::Raw || spare.len() < out.len() - start {
                tag = candidate;
                out.truncate(start);
                out.extend_from_slice(spare);
            }
            spare.clear();
        };
        spare.clear();
        let mut distances = std::mem::take(&mut encoder.distances);
        if let Some(exponent) = near(values, &mut encoder.ints, &mut distances, &mut misses) {
            encoder.packed(values, &misses, Tag::NearDecimal, exponent, &mut spare);
            encoder.packer.encode(&distances, Tag::Integers as u8, 0, &[], &mut spare);
            keep_smaller(Tag::NearDecimal, &mut spare, out);
        }
        encoder.distances = distances;
        order(values, &mut encoder.ints, &mut misses);
        encoder.packed(values, &misses, Tag::OrderedBits, 0, &mut spare);
        keep_smaller(Tag::OrderedBits, &mut spare, out);
        encoder.spare = spare;
    }
    encoder.misses = misses;
    if out.len() - start > 8 * values.len() + 1 {
        tag = Tag::Raw;
        out.truncate(start);
        out.push(tag as u8);
        out.extend(values.iter().flat_map(|v| v.to_bits().to_le_bytes()));
    }
    tag
}

impl Encoder {
    /// Appends `self.ints` as a packed column, with the values at `misses` as exceptions.
    fn packed(&mut self, values: &[f64], misses: &[u32], tag: Tag, exponent: u8, out: &mut Vec<u8>) {
        self.exceptions.clear();
        for &at in misses {
            let (at, bits) = (at as usize, values[at as usize].to_bits());
            match self.exceptions.last_mut() {
                Some(last) if last.at + last.len == at && last.bits == bits => last.len += 1,
                _ => self.exceptions.push(Exception { at, len: 1, bits }),
            }
        }
        self.exception_bytes.clear();
        write_exceptions(&self.exceptions, &mut self.exception_bytes);
        self.packer.encode(&self.ints, tag as u8, exponent, &self.exception_bytes, out);
    }
}

/// How many floats may lie between an ordinary value and its decimal.
const NEAR: u64 = 1 << 10;

/// Fills `ints` with the decimals nearest to `values` at one exponent, `distances` with what they are off, counted in
/// floats, and `misses` with the positions that have none. `None` when values are not near decimals.
#[allow(clippy::cast_possible_truncation, reason = "columns have at most 2^16 rows")]
fn near(values: &[f64], ints: &mut Vec<i64>, distances: &mut Vec<i64>, misses: &mut Vec<u32>) -> Option<u8> {
    let distance =
        |value: f64, decimal: f64| ordered(value.to_bits()).wrapping_sub(ordered(decimal.to_bits()));
    let (mut exponent, mut failures) = (0, 0);
    for i in 0..values.len().min(8) {
        let value = values[i * values.len() / values.len().min(8)];
        let fits = |e: &u8| {
            decimal::nearest(value, *e)
                .is_some_and(|(_, decimal)| distance(value, decimal).unsigned_abs() <= NEAR)
        };
        if value.is_finite() && !fits(&exponent) {
            match (exponent..=decimal::MAX_EXPONENT).find(fits) {
                Some(found) => exponent = found,
                None => failures += 1,
            }
        }
    }
    if failures > 1 {
        return None;
    }
    ints.clear();
    distances.clear();
    misses.clear();
    let mut last = values.iter().find_map(|v| decimal::nearest(*v, exponent)).map_or(0, |(int, _)| int);
    for (at, &value) in values.iter().enumerate() {
        if let Some((int, decimal)) = decimal::nearest(value, exponent) {
            last = int;
            distances.push(distance(value, decimal));
        } else {
            misses.push(at as u32);
            distances.push(0);
        }
        ints.push(last);
    }
    Some(exponent)
}

/// Fills `ints` with the ordered bits of `values`; those that are not finite are set aside as `misses`, their
/// integers repeat a neighbour's.
#[allow(clippy::cast_possible_truncation, reason = "columns have at most 2^16 rows")]
fn order(values: &[f64], ints: &mut Vec<i64>, misses: &mut Vec<u32>) {
    ints.clear();
    misses.clear();
    let mut last = values.iter().find(|v| v.is_finite()).map_or(0, |v| ordered(v.to_bits()));
    for (at, value) in values.iter().enumerate() {
        if value.is_finite() {
            last = ordered(value.to_bits());
        } else {
            misses.push(at as u32);
        }
        ints.push(last);
    }
}

/// Bits of a float as an integer with the float's order; its own inverse.
#[inline]
fn ordered(bits: u64) -> i64 {
    let sign = bits.cast_signed() >> 63;
    (bits ^ sign.cast_unsigned() >> 1).cast_signed()
}

fn write_exceptions(exceptions: &[Exception], out: &mut Vec<u8>) {
    if exceptions.is_empty() {
        return;
    }
    push_varint(out, exceptions.len() as u64);
    let mut end = 0;
    for run in exceptions {
        push_varint(out, (run.at - end) as u64);
        end = run.at + run.len;
        let kind = (1u8..).zip(&KINDS[1..]).find(|(_, bits)| **bits == run.bits).map_or(0, |(kind, _)| kind);
        match u8::try_from(run.len - 1) {
            Ok(more) if more < 15 => out.push(kind | more << 4),
            _ => {
                out.push(kind | 0xf0);
                push_varint(out, (run.len - 16) as u64);
            }
        }
        if kind == 0 {
            out.extend_from_slice(&run.bits.to_le_bytes());
        }
    }
}

fn read_exceptions(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Exception>, ChunkError> {
    let runs = reader.varlen(count.min(reader.remaining()), "number of exceptions")?;
    let mut exceptions = Vec::with_capacity(runs);
    let mut end = 0usize;
    for _ in 0..runs {
        let at = end + reader.varlen(count - end, "place of an exception")?;
        let head = reader.u8()?;
        let mut len = usize::from(head >> 4) + 1;
        if len == 16 {
            len += reader.varlen(count, "length of an exception")?;
        }
        let bits = match head & 15 {
            0 => reader.u64_le()?,
            kind => *KINDS.get(usize::from(kind)).ok_or(ChunkError::Invalid("kind of exception"))?,
        };
        end = at + len;
        if end > count {
            return Err(ChunkError::Invalid("length of an exception"));
        }
        exceptions.push(Exception { at, len, bits });
    }
    Ok(exceptions)
}

pub(crate) fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ChunkError> {
    if count == 0 {
        return expect_empty(bytes);
    }
    let tag = *bytes.first().ok_or(ChunkError::Truncated(0))?;
    let mut reader = Reader::new(bytes);
    match tag & 15 {
        tag if tag == Tag::Decimal as u8
            || tag == Tag::NearDecimal as u8
            || tag == Tag::OrderedBits as u8 => {}
        0 if tag == 0 => {
            let rest = &bytes[1..];
            let mut word = [0; 8];
            word.get_mut(..rest.len())
                .ok_or(ChunkError::Trailing(rest.len().saturating_sub(8)))?
                .copy_from_slice(rest);
            out.resize(out.len() + count, f64::from_bits(u64::from_be_bytes(word)));
            return Ok(());
        }
        6 if tag == Tag::Raw as u8 => {
            reader.u8()?;
            let values = reader.take(8 * count)?;
            out.extend(values.as_chunks().0.iter().map(|v| f64::from_bits(u64::from_le_bytes(*v))));
            return reader.finish();
        }
        _ => return Err(ChunkError::UnknownTag(tag)),
    }

    let head = pack::Head::read(&mut reader)?;
    let exceptions = if head.has_exceptions { read_exceptions(&mut reader, count)? } else { Vec::new() };
    let start = out.len();
    out.reserve(count);
    let power = *decimal::POWERS.get(usize::from(head.exponent)).ok_or(ChunkError::Invalid("exponent"))?;
    if head.tag == Tag::OrderedBits as u8 {
        if head.exponent != 0 {
            return Err(ChunkError::Invalid("exponent"));
        }
        pack::decode(&head, &mut reader, count, |block| {
            out.extend(block.iter().map(|int| f64::from_bits(ordered(int.cast_unsigned()).cast_unsigned())));
        })?;
    } else if head.exponent == 0 {
        pack::decode(&head, &mut reader, count, |block| {
            out.extend(block.iter().map(|int| decimal::unscaled(*int)));
        })?;
    } else {
        pack::decode(&head, &mut reader, count, |block| {
            out.extend(block.iter().map(|int| decimal::unscaled(*int) / power));
        })?;
    }
    if head.tag == Tag::NearDecimal as u8 {
        let head = pack::Head::read(&mut reader)?;
        if head.tag != Tag::Integers as u8 || head.has_exceptions || head.exponent != 0 {
            return Err(ChunkError::Invalid("distances"));
        }
        let mut values = out[start..].iter_mut();
        pack::decode(&head, &mut reader, count, |block| {
            for (distance, value) in block.iter().zip(values.by_ref()) {
                let bits = ordered(value.to_bits()).wrapping_add(*distance);
                *value = f64::from_bits(ordered(bits.cast_unsigned()).cast_unsigned());
            }
        })?;
    }
    for run in &exceptions {
        out[start + run.at..start + run.at + run.len].fill(f64::from_bits(run.bits));
    }
    reader.finish()
}
