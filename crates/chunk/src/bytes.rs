//! Reading and writing of the small parts of a column: bytes, varints, zigzag. Bits are in `bits.rs`.

use crate::ChunkError;

/// A place in a column's bytes. Every read checks the bounds.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], ChunkError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(ChunkError::Truncated(self.at))?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ChunkError> {
        let byte = *self.bytes.get(self.at).ok_or(ChunkError::Truncated(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, ChunkError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, ChunkError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ChunkError::Invalid("varint"))
    }

    /// A varint that is a length or count: at most `limit`.
    pub(crate) fn varlen(&mut self, limit: usize, what: &'static str) -> Result<usize, ChunkError> {
        usize::try_from(self.varint()?).ok().filter(|n| *n <= limit).ok_or(ChunkError::Invalid(what))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, ChunkError> {
        Ok(unzigzag(self.varint()?))
    }

    pub(crate) fn finish(&self) -> Result<(), ChunkError> {
        match self.remaining() {
            0 => Ok(()),
            rest => Err(ChunkError::Trailing(rest)),
        }
    }
}

pub(crate) fn expect_empty(bytes: &[u8]) -> Result<(), ChunkError> {
    if bytes.is_empty() { Ok(()) } else { Err(ChunkError::Trailing(bytes.len())) }
}

#[allow(clippy::cast_possible_truncation, reason = "the low seven bits are what is wanted")]
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn push_zigzag(out: &mut Vec<u8>, value: i64) {
    push_varint(out, zigzag(value));
}

#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
