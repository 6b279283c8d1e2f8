//! Varints, zigzag and length-prefixed bytes: what entries and state records are made of.

/// Why bytes do not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("bytes end too early at offset {0}")]
    Truncated(usize),
    /// A field holds what no encoder writes.
    #[error("impossible {what} at offset {at}")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum does not fit")]
    Checksum,
    /// A version that this program does not know.
    #[error("unknown version {0}")]
    Version(u8),
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_*` functions wrote; every length is checked against what is left.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    pub(crate) fn invalid(&self, what: &'static str) -> DecodeError {
        DecodeError::Invalid { what, at: self.at }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.left() {
            return Err(DecodeError::Truncated(self.at));
        }
        let part = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(part)
    }

    /// The bytes that are left, not taken.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let Some(&byte) = self.bytes.get(self.at) else { return Err(DecodeError::Truncated(self.at)) };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(self.invalid("varint"));
            }
        }
    }

    pub(crate) fn varint32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| self.invalid(what))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        Ok(unzigzag(self.varint()?))
    }

    /// A count of things that take at least `least` bytes each, so that it may be used to reserve memory.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| self.invalid("count"))?;
        if count > self.left() / least.max(1) {
            return Err(self.invalid("count"));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| self.invalid("length"))?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid("text"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.take(16)?);
        Ok(u128::from_le_bytes(bytes))
    }
}

/// Puts version and checksum before `body`: {version u8, crc32c of version and body, u32 LE, body}.
pub(crate) fn seal_record(version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(version);
    out.extend_from_slice(&record_sum(version, body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// The body of a record, after checking version and checksum.
pub(crate) fn open_record(version: u8, record: &[u8]) -> Result<&[u8], DecodeError> {
    let (Some(&found), Some(sum), Some(body)) = (record.first(), record.get(1..5), record.get(5..)) else {
        return Err(DecodeError::Truncated(record.len()));
    };
    if found != version {
        return Err(DecodeError::Version(found));
    }
    if sum != record_sum(version, body).to_le_bytes() {
        return Err(DecodeError::Checksum);
    }
    Ok(body)
}

fn record_sum(version: u8, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[version]), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        for v in [0, 1, -1, i64::MIN, i64::MAX, 300] {
            put_signed(&mut out, v);
        }
        let mut reader = Reader::new(&out);
        for v in [0, 1, -1, i64::MIN, i64::MAX, 300] {
            assert_eq!(reader.signed().unwrap(), v);
        }
        assert!(reader.is_empty());
        assert!(reader.varint().is_err());
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
    }

    #[test]
    fn records_are_checked() {
        let record = seal_record(1, b"abc");
        assert_eq!(open_record(1, &record).unwrap(), b"abc");
        assert_eq!(open_record(2, &record), Err(DecodeError::Version(1)));
        for at in 1..record.len() {
            let mut bad = record.clone();
            bad[at] ^= 4;
            assert!(open_record(1, &bad).is_err());
        }
    }
}
