//! Rows: one source, one timestamp, a set of slots, their values against a base.

use crate::codec::{DecodeError, Reader, put_signed, put_varint};

use super::values::{self, ValueScratch};

/// What a row's values are coded against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Against 0.
    Absolute,
    /// Against each slot's last applied value, in the state in which that many rows were applied to the source.
    Applied {
        /// Number of rows applied to the source before this one.
        revision: u64,
    },
    /// Against the row before this one in the entry, which is of the same source: its values where it has the slot,
    /// else 0.
    Previous,
}

/// Which slots a row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowSet {
    /// Those of the last row applied to the source (only with [`Base::Applied`]).
    Same,
    /// These, ascending.
    Slots(Vec<u32>),
}

/// Everything of a row before its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowHead {
    pub(crate) source: u32,
    pub(crate) timestamp: i64,
    pub(crate) base: Base,
    pub(crate) set: RowSet,
}

/// Adds a number to a running hash of decoded values.
#[inline]
pub(crate) fn fold(hash: u64, number: u64) -> u64 {
    (hash.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const SET_SAME: u8 = 0;
const SET_BITMAP: u8 = 1;
const SET_LIST: u8 = 2;
const SET_SPAN: u8 = 3;

/// Collects the rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct RowEncoder {
    bytes: Vec<u8>,
    count: u64,
    last_timestamp: i64,
    check: u64,
    scratch: ValueScratch,
}

impl RowEncoder {
    /// Adds a row; `slots` ascend, `bases` and `values` (bits) are as many. `same` says that the slots are those of the
    /// last row applied to the source.
    pub(crate) fn push(
        &mut self,
        (source, timestamp): (u32, i64),
        base: Base,
        slots: &[u32],
        same: bool,
        (bases, values): (&[u64], &[u64]),
    ) {
        self.count += 1;
        let out = &mut self.bytes;
        put_varint(out, u64::from(source));
        put_signed(out, timestamp.wrapping_sub(self.last_timestamp));
        self.last_timestamp = timestamp;
        let (first, last) = (slots.first().copied().unwrap_or(0), slots.last().copied().unwrap_or(0));
        let width = (last - first) as usize + 1;
        let set = match base {
            Base::Applied { .. } if same => SET_SAME,
            _ if width == slots.len() => SET_SPAN,
            _ if width.div_ceil(8) < slots.len() => SET_BITMAP,
            _ => SET_LIST,
        };
        let base_code = match base {
            Base::Absolute => 0,
            Base::Applied { .. } => 1,
            Base::Previous => 2,
        };
        out.push(base_code | set << 2);
        if let Base::Applied { revision } = base {
            put_varint(out, revision);
        }
        match set {
            SET_SAME => {}
            SET_SPAN => {
                put_varint(out, u64::from(first));
                put_varint(out, slots.len() as u64);
            }
            SET_BITMAP => {
                put_varint(out, u64::from(first));
                let bytes = width.div_ceil(8);
                put_varint(out, bytes as u64);
                let at = out.len();
                out.resize(at + bytes, 0);
                for slot in slots {
                    let bit = (slot - first) as usize;
                    out[at + bit / 8] |= 1 << (bit % 8);
                }
            }
            _ => {
                put_varint(out, slots.len() as u64);
                let mut next = 0;
                for slot in slots {
                    put_varint(out, u64::from(slot - next));
                    next = slot + 1;
                }
            }
        }
        values::encode(bases, values, &mut self.scratch, out);
        let mut check = fold(fold(self.check, u64::from(source)), timestamp as u64);
        for (slot, value) in slots.iter().zip(values) {
            check = fold(check, value.wrapping_add(u64::from(*slot)));
        }
        self.check = check;
    }

    /// Rows since the last take.
    pub(crate) fn count(&self) -> u32 {
        self.count as u32
    }

    /// Adds the start timestamps of the last row to the hash.
    pub(crate) fn fold_starts(&mut self, starts: &[i64]) {
        self.check = starts.iter().fold(self.check, |check, start| fold(check, *start as u64));
    }

    /// Appends the number of rows since the last take, and their bytes.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        put_varint(out, self.count);
        out.append(&mut self.bytes);
        self.count = 0;
    }

    /// Hash over all rows of the entry.
    pub(super) fn check(&self) -> u64 {
        self.check
    }

    /// Bytes collected since the last take.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl RowHead {
    /// Reads the head of the next row; `last_timestamp` is that of the row before it in the entry, 0 at first.
    pub(crate) fn read(reader: &mut Reader<'_>, last_timestamp: i64) -> Result<Self, DecodeError> {
        let source = reader.varint32("source")?;
        let timestamp = last_timestamp.wrapping_add(reader.signed()?);
        let flags = reader.byte()?;
        let base = match flags & 3 {
            0 => Base::Absolute,
            1 => Base::Applied { revision: reader.varint()? },
            2 => Base::Previous,
            _ => return Err(reader.invalid("base of a row")),
        };
        let set = match flags >> 2 {
            SET_SAME if matches!(base, Base::Applied { .. }) => RowSet::Same,
            SET_BITMAP => {
                let first = reader.varint32("slot")?;
                let bitmap = reader.bytes()?;
                let mut slots = Vec::with_capacity(bitmap.len() * 8);
                for (i, byte) in bitmap.iter().enumerate() {
                    let mut bits = *byte;
                    while bits != 0 {
                        let slot = u32::try_from(i * 8 + bits.trailing_zeros() as usize)
                            .ok()
                            .and_then(|bit| first.checked_add(bit))
                            .ok_or_else(|| reader.invalid("slot"))?;
                        slots.push(slot);
                        bits &= bits - 1;
                    }
                }
                RowSet::Slots(slots)
            }
            SET_LIST => {
                let count = reader.count(1)?;
                let mut slots = Vec::with_capacity(count);
                let mut next = 0u32;
                for _ in 0..count {
                    let slot =
                        next.checked_add(reader.varint32("slot")?).ok_or_else(|| reader.invalid("slot"))?;
                    slots.push(slot);
                    next = slot.checked_add(1).ok_or_else(|| reader.invalid("slot"))?;
                }
                RowSet::Slots(slots)
            }
            SET_SPAN => {
                let first = reader.varint32("slot")?;
                let count = reader.varint32("slot count")?;
                // Each slot has at least its changed bit in what follows.
                if count as usize > reader.left().saturating_mul(8) {
                    return Err(reader.invalid("slot count"));
                }
                let end = first.checked_add(count).ok_or_else(|| reader.invalid("slot"))?;
                RowSet::Slots((first..end).collect())
            }
            _ => return Err(reader.invalid("slot set of a row")),
        };
        Ok(Self { source, timestamp, base, set })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back(
            rows in proptest::collection::vec(
                (0u32..9, -1_000_000i64..1_000_000, 0u8..3, proptest::collection::btree_map(0u32..300, any::<u64>(), 0..60)),
                0..8,
            ),
        ) {
            let mut encoder = RowEncoder::default();
            let base_of = |kind: u8| match kind {
                0 => Base::Absolute,
                1 => Base::Applied { revision: 7 },
                _ => Base::Previous,
            };
            for (source, timestamp, kind, cells) in &rows {
                let slots: Vec<u32> = cells.keys().copied().collect();
                let values: Vec<u64> = cells.values().copied().collect();
                let bases = vec![5; slots.len()];
                encoder.push((*source, *timestamp), base_of(*kind), &slots, false, (&bases, &values));
            }
            let mut bytes = Vec::new();
            encoder.take(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint().unwrap(), rows.len() as u64);
            let mut last = 0;
            for (source, timestamp, kind, cells) in &rows {
                let head = RowHead::read(&mut reader, last).unwrap();
                last = head.timestamp;
                let slots: Vec<u32> = cells.keys().copied().collect();
                let bases = vec![5; slots.len()];
                let wanted = RowHead {
                    source: *source, timestamp: *timestamp, base: base_of(*kind), set: RowSet::Slots(slots),
                };
                if !cells.is_empty() {
                    prop_assert_eq!(head, wanted);
                }
                let mut values = Vec::new();
                values::decode(&mut reader, &bases, &mut values).unwrap();
                prop_assert_eq!(values, cells.values().copied().collect::<Vec<_>>());
            }
            prop_assert!(reader.is_empty());
        }
    }
}
