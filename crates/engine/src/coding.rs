//! The bytes of fragments and partials: integers, floats, runs of floats, labels, histograms.
//!
//! Integers are varints of 7 bits, low first; signed ones are folded so that small ones stay short. A list begins with
//! its length, which is checked against the bytes that are left (or the memory that it needs against the budget)
//! before anything is allocated. Not here: what the values mean (`fragment.rs`, `partial.rs`).

use std::sync::Arc;

use model::histogram::{ResetHint, Span};
use model::{Code, Failure, Histogram, Labels};

use crate::column::{ABSENT, is_absent};

/// Bytes that are no fragment or partial.
pub(crate) fn damaged(what: &str, at: usize) -> Failure {
    Failure::new(Code::Invalid, format!("query bytes are damaged at offset {at}: {what}"))
}

/// Writes bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn float(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    /// The labels as what they share with `previous` and the rest.
    pub(crate) fn labels(&mut self, labels: &Labels, previous: &Labels) {
        let (new, old) = (labels.as_bytes(), previous.as_bytes());
        let shared = new.iter().zip(old).take_while(|(a, b)| a == b).count();
        self.varint(shared as u64);
        self.blob(&new[shared..]);
    }

    /// Floats as runs: absent ones, equal ones, whole numbers by their differences, others by their bits.
    pub(crate) fn floats(&mut self, values: &[f64]) {
        let mut at = 0;
        let mut last_whole = 0i64;
        while at < values.len() {
            let (kind, len) = run(&values[at..]);
            self.varint((len as u64) << 2 | kind as u64);
            let part = &values[at..at + len];
            match kind {
                RunKind::Absent => {}
                RunKind::Equal => self.float(part[0]),
                RunKind::Whole => {
                    for value in part {
                        let whole = *value as i64;
                        self.signed(whole.wrapping_sub(last_whole));
                        last_whole = whole;
                    }
                }
                RunKind::Bits => part.iter().for_each(|v| self.float(*v)),
            }
            at += len;
        }
    }

    pub(crate) fn histogram(&mut self, h: &Histogram) {
        let hint = match h.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3,
        };
        self.u8(hint | u8::from(h.integer) << 2 | u8::from(h.custom_values.is_some()) << 3);
        self.u8(h.schema as u8);
        self.floats(&[h.zero_threshold, h.zero_count, h.count, h.sum]);
        for (spans, buckets) in
            [(&h.positive_spans, &h.positive_buckets), (&h.negative_spans, &h.negative_buckets)]
        {
            self.varint(spans.len() as u64);
            for span in spans {
                self.signed(span.offset.into());
                self.varint(span.length.into());
            }
            self.varint(buckets.len() as u64);
            self.floats(buckets);
        }
        if let Some(bounds) = &h.custom_values {
            self.varint(bounds.len() as u64);
            self.floats(bounds);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunKind {
    Absent = 0,
    Equal = 1,
    Whole = 2,
    Bits = 3,
}

/// Whether a whole number, and so small that differences of two cannot overflow.
fn is_whole(value: f64) -> bool {
    value.abs() < 9e15 && (value as i64 as f64).to_bits() == value.to_bits()
}

/// The kind and the length of the run that `values` (not empty) begins with.
fn run(values: &[f64]) -> (RunKind, usize) {
    let first = values[0];
    let same = values.iter().take_while(|v| v.to_bits() == first.to_bits()).count();
    if is_absent(first) {
        return (RunKind::Absent, same);
    }
    if same >= 3 || same == values.len() && !is_whole(first) {
        return (RunKind::Equal, same);
    }
    let begins_equal = |at: usize| {
        values.len() - at >= 3 && values[at..at + 3].iter().all(|v| v.to_bits() == values[at].to_bits())
    };
    let whole = is_whole(first);
    let mut len = 1;
    while len < values.len()
        && !is_absent(values[len])
        && is_whole(values[len]) == whole
        && !begins_equal(len)
    {
        len += 1;
    }
    (if whole { RunKind::Whole } else { RunKind::Bits }, len)
}

/// Reads bytes.
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    all: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(all: &'b [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub(crate) fn damaged(&self, what: &str) -> Failure {
        damaged(what, self.at)
    }

    pub(crate) fn left(&self) -> usize {
        self.all.len() - self.at
    }

    /// Fails when bytes are left.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        if self.left() == 0 { Ok(()) } else { Err(self.damaged("bytes follow the end")) }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Failure> {
        let byte = *self.all.get(self.at).ok_or_else(|| self.damaged("cut short"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Failure> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("a flag that is neither 0 nor 1")),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if shift == 63 && byte > 1 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(self.damaged("an integer of more than 64 bits"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Failure> {
        let folded = self.varint()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    pub(crate) fn float(&mut self) -> Result<f64, Failure> {
        let bytes = self.take(8)?;
        let mut bits = [0; 8];
        bits.copy_from_slice(bytes);
        Ok(f64::from_bits(u64::from_le_bytes(bits)))
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Failure> {
        let bytes = self.all[self.at..].get(..len).ok_or_else(|| self.damaged("cut short"))?;
        self.at += len;
        Ok(bytes)
    }

    /// A length of things that take at least `least` bytes each (at least 1).
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Failure> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least.max(1) => Ok(count),
            _ => Err(self.damaged("a length beyond the end")),
        }
    }

    pub(crate) fn blob(&mut self) -> Result<&'b [u8], Failure> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<String, Failure> {
        let bytes = self.blob()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.damaged("text that is not UTF-8"))
    }

    pub(crate) fn labels(&mut self, previous: &Labels) -> Result<Labels, Failure> {
        let shared = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let head = previous
            .as_bytes()
            .get(..shared)
            .ok_or_else(|| self.damaged("labels share more than there is"))?;
        let rest = self.blob()?;
        let bytes = [head, rest].concat();
        Labels::from_canonical(&bytes).map_err(|e| self.damaged(&e.to_string()))
    }

    /// `count` floats; the caller has made sure that so many fit into memory.
    pub(crate) fn floats(&mut self, count: usize) -> Result<Vec<f64>, Failure> {
        let mut values = Vec::with_capacity(count);
        let mut last_whole = 0i64;
        while values.len() < count {
            let head = self.varint()?;
            let len = usize::try_from(head >> 2).unwrap_or(usize::MAX);
            if len == 0 || len > count - values.len() {
                return Err(self.damaged("a run of floats with an impossible length"));
            }
            match head & 3 {
                0 => values.resize(values.len() + len, ABSENT),
                1 => {
                    let value = self.float()?;
                    values.resize(values.len() + len, value);
                }
                2 => {
                    for _ in 0..len {
                        last_whole = last_whole.wrapping_add(self.signed()?);
                        values.push(last_whole as f64);
                    }
                }
                _ => {
                    for _ in 0..len {
                        values.push(self.float()?);
                    }
                }
            }
        }
        Ok(values)
    }

    /// Floats of which the writer wrote the number first; bounded by `most`.
    pub(crate) fn counted_floats(&mut self, most: usize) -> Result<Vec<f64>, Failure> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > most {
            return Err(self.damaged("too many floats"));
        }
        self.floats(count)
    }

    pub(crate) fn histogram(&mut self) -> Result<Histogram, Failure> {
        let flags = self.u8()?;
        let schema = self.u8()? as i8;
        let head = self.floats(4)?;
        let mut sides = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
        for (spans, buckets) in &mut sides {
            let count = self.count(2)?;
            spans.reserve_exact(count);
            for _ in 0..count {
                let offset = i32::try_from(self.signed()?);
                let length = u32::try_from(self.varint()?);
                let (Ok(offset), Ok(length)) = (offset, length) else {
                    return Err(self.damaged("a span beyond 32 bits"));
                };
                spans.push(Span { offset, length });
            }
            *buckets = self.counted_floats(MAX_BUCKETS)?;
        }
        let custom_values: Option<Arc<[f64]>> =
            if flags & 8 == 0 { None } else { Some(self.counted_floats(MAX_BUCKETS)?.into()) };
        let [(positive_spans, positive_buckets), (negative_spans, negative_buckets)] = sides;
        Ok(Histogram {
            integer: flags & 4 != 0,
            reset_hint: match flags & 3 {
                0 => ResetHint::Unknown,
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                _ => ResetHint::Gauge,
            },
            schema,
            zero_threshold: head[0],
            zero_count: head[1],
            count: head[2],
            sum: head[3],
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values,
        })
    }
}

/// The most buckets of one side of a histogram.
pub(crate) const MAX_BUCKETS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            Just(ABSENT),
            Just(-0.0),
            Just(f64::NAN),
            (0i32..3).prop_map(f64::from),
            any::<i64>().prop_map(|v| v as f64),
            any::<f64>(),
        ]
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn floats_come_back_bit_by_bit(values in prop::collection::vec(any_float(), 0..80)) {
            let mut writer = Writer::default();
            writer.floats(&values);
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!(bits(&reader.floats(values.len()).unwrap()), bits(&values));
            reader.end().unwrap();
        }

        #[test]
        fn integers_come_back(a in any::<u64>(), b in any::<i64>()) {
            let mut writer = Writer::default();
            writer.varint(a);
            writer.signed(b);
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!((reader.varint().unwrap(), reader.signed().unwrap()), (a, b));
        }

        #[test]
        fn histograms_come_back_and_garbage_is_an_error(
            counts in prop::collection::vec(0u32..9, 0..6), sum in any::<f64>(), schema in -4i8..9,
            noise in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let h = Histogram {
                schema,
                sum,
                integer: true,
                positive_spans: vec![Span { offset: -3, length: counts.len() as u32 }],
                positive_buckets: counts.iter().map(|c| f64::from(*c)).collect(),
                custom_values: (schema == 0).then(|| Arc::from(&[1.0, 2.5][..])),
                ..Histogram::default()
            };
            let mut writer = Writer::default();
            writer.histogram(&h);
            prop_assert!(Reader::new(&writer.bytes).histogram().unwrap().same_bits(&h));
            for len in 0..writer.bytes.len() {
                prop_assert!(Reader::new(&writer.bytes[..len]).histogram().is_err());
            }
            // Whatever it gives, it gives it without a panic.
            let _ = Reader::new(&noise).histogram();
        }
    }

    #[test]
    fn whole_numbers_and_equal_ones_are_short() {
        let mut writer = Writer::default();
        writer.floats(&[5.0; 1000]);
        assert_eq!(writer.bytes.len(), 10);
        let mut writer = Writer::default();
        writer.floats(&(0..1000).map(|v| f64::from(v * 3)).collect::<Vec<_>>());
        assert_eq!(writer.bytes.len(), 1002);
    }
}
