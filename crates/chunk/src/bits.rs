//! Up to 32 unsigned integers of equal width ⇄ bits, little endian, lowest bits first.
//!
//! A full mini-block of width `w` is exactly `4 w` bytes. Unpacking is unrolled for each width, with constant
//! offsets and without reading beyond those bytes.

/// Integers in a full mini-block.
pub(crate) const BLOCK: usize = 32;

/// A mini-block's integers.
pub(crate) type Block = [u64; BLOCK];

/// How many bytes `count` integers of `width` bits take.
pub(crate) fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends the low `width` (1 to 64) bits of each of `values`; other bits must be zero.
pub(crate) fn pack(values: &[u64], width: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let end = start + packed_len(values.len(), width);
    let (mut word, mut filled) = (0u64, 0u32);
    for &value in values {
        debug_assert!(width == 64 || value >> width == 0, "values fit their width");
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    if filled > 0 {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(end);
}

/// Unpacks `count` (at most 32) integers of `width` (1 to 64) bits; `bytes` has exactly [`packed_len`] bytes.
/// The rest of `out` is left undefined.
pub(crate) fn unpack(bytes: &[u8], count: usize, width: u32, out: &mut Block) {
    debug_assert_eq!(bytes.len(), packed_len(count, width), "the caller cut the bytes");
    if count == BLOCK {
        return unpack_full(bytes, width, out);
    }
    // The last mini-block of a column: by way of a padded copy.
    let mut padded = [0u8; 4 * 64];
    padded[..bytes.len()].copy_from_slice(bytes);
    unpack_full(&padded[..4 * width as usize], width, out);
}

macro_rules! each_of_32 {
    ($body:expr) => {
        each_of_32!(@ $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
    (@ $body:expr, $($i:literal)*) => { $( $body($i); )* };
}

/// Widths 2 to 57: each integer lies within eight bytes that lie within the mini-block.
#[inline(never)]
fn unpack_narrow<const W: usize>(bytes: &[u8], out: &mut Block) {
    let bytes = &bytes[..4 * W];
    let mask = (1u64 << W) - 1;
    let mut one = |i: usize| {
        let at = if i * W / 8 < 4 * W - 8 { i * W / 8 } else { 4 * W - 8 };
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        out[i] = (u64::from_le_bytes(word) >> (i * W - at * 8)) & mask;
    };
    each_of_32!(one);
}

/// Widths 58 to 64: an integer may touch nine bytes.
fn unpack_wide(bytes: &[u8], width: usize, out: &mut Block) {
    let mut padded = [0u8; 4 * 64 + 16];
    padded[..4 * width].copy_from_slice(&bytes[..4 * width]);
    for (i, value) in out.iter_mut().enumerate() {
        let (at, shift) = (i * width / 8, i * width % 8);
        let mut word = [0; 16];
        word.copy_from_slice(&padded[at..at + 16]);
        let bits = u128::from_le_bytes(word) >> shift;
        #[allow(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
        let low = bits as u64;
        *value = if width == 64 { low } else { low & ((1 << width) - 1) };
    }
}

fn unpack_full(bytes: &[u8], width: u32, out: &mut Block) {
    macro_rules! by_width {
        ($($w:literal)*) => {
            match width {
                1 => {
                    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    for (i, value) in out.iter_mut().enumerate() {
                        *value = u64::from((bits >> i) & 1);
                    }
                }
                $( $w => unpack_narrow::<$w>(bytes, out), )*
                _ => unpack_wide(bytes, width as usize, out),
            }
        };
    }
    by_width!(2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38
        39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_length_comes_back() {
        let mut state = 1u64;
        for width in 1..=64u32 {
            for count in 1..=BLOCK {
                let values: Vec<u64> = (0..count)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (state ^ (state >> 29)) >> (64 - width)
                    })
                    .collect();
                let mut bytes = vec![0xaa];
                pack(&values, width, &mut bytes);
                assert_eq!(bytes.len() - 1, packed_len(count, width));
                let mut out = [0; BLOCK];
                unpack(&bytes[1..], count, width, &mut out);
                assert_eq!(&out[..count], &values[..], "width {width} count {count}");
            }
        }
    }
}
