//! Numbers, floats and byte strings: LEB128 varints, zigzag for signed ones, floats as what differs from another.

/// Bytes that are not what they should be, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes from a peer: {0}")]
pub struct Malformed(pub &'static str);

type Result<T> = std::result::Result<T, Malformed>;

/// Appends values.
#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[inline]
    pub(crate) fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    #[inline]
    pub(crate) fn zigzag(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    pub(crate) fn fixed(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A float's bits as what differs from `before`: a byte that tells leading zero bytes and length, and the bytes
    /// between the zero bytes. Small whole numbers take 2 to 4 bytes beside 0, unchanged values take 1.
    #[inline]
    pub(crate) fn float(&mut self, before: u64, bits: u64) {
        let differs = before ^ bits;
        if differs == 0 {
            self.0.push(0);
            return;
        }
        let lead = differs.leading_zeros() / 8;
        let trail = differs.trailing_zeros() / 8;
        let len = 8 - lead - trail;
        self.0.push((lead << 4 | len) as u8);
        let bytes = (differs << (lead * 8)).to_be_bytes();
        self.0.extend_from_slice(&bytes[..len as usize]);
    }
}

/// Takes values off the front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed("cut off"))?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                return Err(Malformed("a number has more than 64 bits"));
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed("a number is cut off or too long"))
    }

    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn small(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number has more than 32 bits"))
    }

    pub(crate) fn fixed(&mut self) -> Result<u64> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed("cut off"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed("cut off"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// How many things follow, each of at least `least` bytes: as many bytes are there.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.varint()?;
        if count > (self.0.len() / least.max(1)) as u64 {
            return Err(Malformed("a count is larger than what follows"));
        }
        Ok(count as usize)
    }

    #[inline]
    pub(crate) fn float(&mut self, before: u64) -> Result<u64> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(before);
        }
        let (lead, len) = (usize::from(head >> 4), usize::from(head & 15));
        if len == 0 || lead + len > 8 {
            return Err(Malformed("a float has an impossible length"));
        }
        let mut bytes = [0; 8];
        bytes[lead..lead + len].copy_from_slice(self.take(len)?);
        Ok(before ^ u64::from_be_bytes(bytes))
    }

    /// Fails when bytes are left over.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }

    pub(crate) fn version(&mut self, expected: u8) -> Result<()> {
        if self.byte()? == expected { Ok(()) } else { Err(Malformed("an unknown version of a coding")) }
    }
}

/// A run of refs, some of them absent: mostly one more than the one before.
pub(crate) const ABSENT: u8 = 0;
pub(crate) const NEXT: u8 = 1;
pub(crate) const STEP: u8 = 2;

impl Out {
    pub(crate) fn reference(&mut self, before: &mut u64, reference: u64) {
        let step = reference.wrapping_sub(*before);
        *before = reference;
        if step == 1 {
            self.byte(NEXT);
        } else {
            self.byte(STEP);
            self.zigzag(step as i64);
        }
    }
}

impl In<'_> {
    /// `None` where [`ABSENT`] stands.
    pub(crate) fn reference(&mut self, before: &mut u64) -> Result<Option<u64>> {
        let step = match self.byte()? {
            ABSENT => return Ok(None),
            NEXT => 1,
            STEP => self.zigzag()? as u64,
            _ => return Err(Malformed("an unknown kind of series reference")),
        };
        *before = before.wrapping_add(step);
        Ok(Some(*before))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(a: u64, b: i64, c: u64, before: u64, text in ".{0,20}", r in prop::collection::vec(any::<u64>(), 0..20)) {
            let mut out = Out::default();
            out.varint(a);
            out.zigzag(b);
            out.float(before, c);
            out.float(c, c);
            out.fixed(c);
            out.bytes(text.as_bytes());
            let mut at = before;
            for reference in &r {
                out.reference(&mut at, *reference);
            }
            let mut bytes = In(&out.0);
            prop_assert_eq!(bytes.varint().unwrap(), a);
            prop_assert_eq!(bytes.zigzag().unwrap(), b);
            prop_assert_eq!(bytes.float(before).unwrap(), c);
            prop_assert_eq!(bytes.float(c).unwrap(), c);
            prop_assert_eq!(bytes.fixed().unwrap(), c);
            prop_assert_eq!(bytes.text().unwrap(), text);
            let mut at = before;
            for reference in &r {
                prop_assert_eq!(bytes.reference(&mut at).unwrap(), Some(*reference));
            }
            prop_assert!(bytes.end().is_ok());
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(In(&[0xff; 11]).varint().is_err());
        assert!(In(&[0xff, 0xff]).varint().is_err());
        assert!(In(&[5, 1, 2]).count(1).is_err(), "five bytes are not there");
        assert!(In(&[0x17, 1, 2, 3, 4, 5, 6]).float(0).is_err(), "one byte is missing");
        assert!(In(&[0x28; 20]).float(0).is_err(), "2 zero bytes and 8 others do not fit");
    }
}
