//! A protobuf writer over one buffer, the counterpart of `wire`. Fields are written in the order of the calls; values
//! that proto3 leaves out when they are zero are left out by the callers that want so.

/// Appends protobuf fields to a buffer.
#[derive(Debug, Default)]
pub(crate) struct WireWriter {
    pub(crate) out: Vec<u8>,
}

impl WireWriter {
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    /// A varint field, left out when it is zero.
    pub(crate) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.number_always(field, value);
        }
    }

    /// A varint field, zero too (members of a `oneof`).
    pub(crate) fn number_always(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    /// A zigzag-coded field, left out when it is zero.
    pub(crate) fn signed(&mut self, field: u32, value: i64) {
        self.number(field, zigzag(value));
    }

    /// A double, left out when its bits are zero.
    pub(crate) fn double(&mut self, field: u32, value: f64) {
        if value.to_bits() != 0 {
            self.double_always(field, value);
        }
    }

    /// A double, zero too.
    pub(crate) fn double_always(&mut self, field: u32, value: f64) {
        self.tag(field, 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes or text.
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A message that `write` fills.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let start = self.out.len();
        // Most messages are shorter than 128 bytes: one byte for the length, moved if it takes more.
        self.out.push(0);
        write(self);
        let length = self.out.len() - start - 1;
        if length < 0x80 {
            self.out[start] = length as u8;
            return;
        }
        let mut header = Self::default();
        header.varint(length as u64);
        self.out.splice(start..=start, header.out);
    }

    /// A packed list of varints, left out when it is empty.
    pub(crate) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut inner = Self::default();
        for value in values {
            inner.varint(value);
        }
        if !inner.out.is_empty() {
            self.bytes(field, &inner.out);
        }
    }

    /// A packed list of doubles, left out when it is empty.
    pub(crate) fn packed_doubles(&mut self, field: u32, values: &[f64]) {
        if values.is_empty() {
            return;
        }
        self.tag(field, 2);
        self.varint(8 * values.len() as u64);
        for value in values {
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// The zigzag coding of a signed number.
pub(crate) fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind, Wire, zigzag as back};

    #[test]
    fn what_is_written_is_read() {
        let mut writer = WireWriter::default();
        writer.message(1, |inner| {
            inner.bytes(2, &[7; 200]);
            inner.signed(3, -5);
        });
        writer.packed(4, [1, 300]);
        writer.packed_doubles(5, &[0.5, -0.0]);
        writer.number(6, 0);
        writer.double(7, -0.0);
        let mut wire = Wire::new(&writer.out, "test");
        assert_eq!(wire.tag(), Ok((1, Kind::Bytes)));
        let mut inner = wire.message("inner").unwrap();
        assert_eq!(inner.tag(), Ok((2, Kind::Bytes)));
        assert_eq!(inner.bytes().unwrap().len(), 200);
        assert_eq!(inner.tag(), Ok((3, Kind::Varint)));
        assert_eq!(back(inner.varint().unwrap()), -5);
        assert!(inner.is_done());
        assert_eq!(wire.tag(), Ok((4, Kind::Bytes)));
        let mut found = Vec::new();
        wire.varints(Kind::Bytes, |v| found.push(v)).unwrap();
        assert_eq!(found, [1, 300]);
        assert_eq!(wire.tag(), Ok((5, Kind::Bytes)));
        let mut doubles = Vec::new();
        wire.doubles(Kind::Bytes, &mut doubles, "doubles", 0).unwrap();
        assert_eq!(doubles.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), [0.5f64.to_bits(), 1 << 63]);
        assert_eq!(wire.tag(), Ok((7, Kind::Fixed64)));
        assert_eq!(wire.double().unwrap().to_bits(), 1 << 63);
        assert!(wire.is_done());
    }
}
