//! Bits into bytes, highest bit first, with the number codings that Prometheus's chunks share
//! (`tsdb/chunkenc/{bstream,varbit,xor}.go` describe the layout).

/// A growing string of bits.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits still free in the last byte.
    free: u32,
}

/// The last value of a column of floats, and the window of bits that its last difference stood in.
#[derive(Clone, Copy, Debug)]
pub(super) struct XorColumn {
    value: u64,
    /// Leading and trailing zero bits, once there was a difference.
    window: Option<(u32, u32)>,
}

impl XorColumn {
    pub(super) fn new(first: f64) -> Self {
        Self { value: first.to_bits(), window: None }
    }
}

impl BitWriter {
    /// A writer behind `header`, which stays as it is until [`BitWriter::finish`].
    pub(super) fn after(header: &[u8]) -> Self {
        Self { bytes: header.to_vec(), free: 0 }
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The lowest `count` (at most 64) bits of `value`.
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            let piece = (value >> (left - now)) & ((1 << now) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece as u8) << (self.free - now);
            }
            self.free -= now;
            left -= now;
        }
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.bits(u64::from(value), 8);
    }

    /// A protobuf-like varint, byte by byte at the current bit.
    pub(super) fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// The difference of a float to the one before in its column.
    pub(super) fn xor(&mut self, column: &mut XorColumn, value: f64) {
        let difference = value.to_bits() ^ column.value;
        column.value = value.to_bits();
        if difference == 0 {
            self.bits(0, 1);
            return;
        }
        self.bits(1, 1);
        let leading = difference.leading_zeros().min(31);
        let trailing = difference.trailing_zeros();
        if let Some((before_leading, before_trailing)) = column.window
            && leading >= before_leading
            && trailing >= before_trailing
        {
            self.bits(0, 1);
            self.bits(difference >> before_trailing, 64 - before_leading - before_trailing);
            return;
        }
        column.window = Some((leading, trailing));
        self.bits(1, 1);
        self.bits(u64::from(leading), 5);
        let significant = 64 - leading - trailing;
        // 64 does not fit into 6 bits; 0 stands for it.
        self.bits(u64::from(significant), 6);
        self.bits(difference >> trailing, significant);
    }

    /// A signed number in buckets of bits.
    pub(super) fn varbit(&mut self, value: i64) {
        if value == 0 {
            return self.bits(0, 1);
        }
        for (at, width) in WIDTHS.into_iter().enumerate() {
            if fits(value, width) {
                self.prefix(at);
                return self.bits(value as u64, width);
            }
        }
        self.bits(0xff, 8);
        self.bits(value as u64, 64);
    }

    /// An unsigned number in buckets of bits.
    pub(super) fn varbit_unsigned(&mut self, value: u64) {
        if value == 0 {
            return self.bits(0, 1);
        }
        for (at, width) in WIDTHS.into_iter().enumerate() {
            if value >> width == 0 {
                self.prefix(at);
                return self.bits(value, width);
            }
        }
        self.bits(0xff, 8);
        self.bits(value, 64);
    }

    /// `at + 1` ones and a zero.
    fn prefix(&mut self, at: usize) {
        self.bits((1 << (at + 2)) - 2, at as u32 + 2);
    }
}

/// Widths of the buckets of `varbit`; what fits none takes 64 bits.
const WIDTHS: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

/// Whether `value` lies in −(2^(width−1) − 1) ..= 2^(width−1): the range shifted by one against two's complement.
pub(super) fn fits(value: i64, width: u32) -> bool {
    let half = 1i64 << (width - 1);
    -(half - 1) <= value && value <= half
}
