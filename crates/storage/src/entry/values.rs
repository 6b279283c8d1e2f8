//! Values of a row against base values: one bit "changed" a slot, a code of four bits a changed value, and the bytes
//! that the code asks for. Exact for every bit pattern.
//!
//! | code | meaning | bytes |
//! |---|---|---|
//! | 0-4 | difference of two integers | 1, 2, 3, 4, 7 |
//! | 5-7 | difference in thousandths | 1, 2, 4 |
//! | 8-9 | difference in millionths | 3, 5 |
//! | 10-12 | low bytes of the exclusive or | 6, 7, 8 |
//! | 13-15 | high bytes of the exclusive or, the rest 0 | 2, 4, 6 |

use crate::codec::{DecodeError, Reader, unzigzag, zigzag};

const LENGTHS: [u8; 16] = [1, 2, 3, 4, 7, 1, 2, 4, 3, 5, 6, 7, 8, 2, 4, 6];
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Scratch memory of [`encode`].
#[derive(Debug, Default)]
pub(crate) struct ValueScratch {
    codes: Vec<u8>,
    payload: Vec<u8>,
}

/// Appends the coding of `values` (bits) against `bases`, which are as many.
pub(crate) fn encode(bases: &[u64], values: &[u64], scratch: &mut ValueScratch, out: &mut Vec<u8>) {
    scratch.codes.clear();
    scratch.payload.clear();
    let bitmap_at = out.len();
    out.resize(bitmap_at + values.len().div_ceil(8), 0);
    for (i, (&base, &value)) in bases.iter().zip(values).enumerate() {
        if base != value {
            out[bitmap_at + i / 8] |= 1 << (i % 8);
            let (code, bytes) = choose(base, value);
            scratch.codes.push(code);
            scratch
                .payload
                .extend_from_slice(&bytes.to_le_bytes()[..usize::from(LENGTHS[usize::from(code)])]);
        }
    }
    for pair in scratch.codes.chunks(2) {
        out.push(pair[0] | pair.get(1).map_or(0, |c| c << 4));
    }
    out.extend_from_slice(&scratch.payload);
}

/// Reads back `bases.len()` values coded against `bases`, appending their bits to `out`.
pub(crate) fn decode(reader: &mut Reader<'_>, bases: &[u64], out: &mut Vec<u64>) -> Result<(), DecodeError> {
    let bitmap = reader.take(bases.len().div_ceil(8))?;
    let changed: usize = bitmap.iter().map(|b| b.count_ones() as usize).sum();
    let codes = reader.take(changed.div_ceil(2))?;
    let mut k = 0;
    for (i, &base) in bases.iter().enumerate() {
        if bitmap[i / 8] >> (i % 8) & 1 == 0 {
            out.push(base);
            continue;
        }
        let Some(pair) = codes.get(k / 2) else { return Err(reader.invalid("changed bit")) };
        let code = pair >> (4 * (k % 2)) & 15;
        k += 1;
        let part = reader.take(usize::from(LENGTHS[usize::from(code)]))?;
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        out.push(undo(base, code, u64::from_le_bytes(word)));
    }
    if k != changed {
        return Err(reader.invalid("changed bit"));
    }
    Ok(())
}

fn choose(base: u64, value: u64) -> (u8, u64) {
    let (b, v) = (f64::from_bits(base), f64::from_bits(value));
    if let (Some(from), Some(to)) = (whole(b), whole(v)) {
        let delta = zigzag(to - from);
        match significant_bytes(delta) {
            0..=1 => return (0, delta),
            2 => return (1, delta),
            3 => return (2, delta),
            4 => return (3, delta),
            5..=7 => return (4, delta),
            _ => {}
        }
    } else {
        if let (Some(from), Some(to)) = (scaled(b, 1e3), scaled(v, 1e3)) {
            let delta = zigzag(to - from);
            match significant_bytes(delta) {
                0..=1 => return (5, delta),
                2 => return (6, delta),
                3..=4 => return (7, delta),
                _ => {}
            }
        }
        if let (Some(from), Some(to)) = (scaled(b, 1e6), scaled(v, 1e6)) {
            let delta = zigzag(to - from);
            match significant_bytes(delta) {
                0..=3 => return (8, delta),
                4..=5 => return (9, delta),
                _ => {}
            }
        }
    }
    let xor = base ^ value;
    match (xor.trailing_zeros() / 8, xor.leading_zeros() / 8) {
        (6.., _) => (13, xor >> 48),
        (4.., _) => (14, xor >> 32),
        (_, 2..) => (10, xor),
        (2.., _) => (15, xor >> 16),
        (_, 1) => (11, xor),
        _ => (12, xor),
    }
}

fn undo(base: u64, code: u8, word: u64) -> u64 {
    let b = f64::from_bits(base);
    let plus = |from: Option<i64>, scale: f64| {
        // Entries whose base does not fit the code are found by the entry's check hash.
        (from.unwrap_or(0).wrapping_add(unzigzag(word)) as f64 / scale).to_bits()
    };
    match code {
        0..=4 => plus(whole(b), 1.0),
        5..=7 => plus(scaled(b, 1e3), 1e3),
        8..=9 => plus(scaled(b, 1e6), 1e6),
        13 => base ^ word << 48,
        14 => base ^ word << 32,
        15 => base ^ word << 16,
        _ => base ^ word,
    }
}

fn significant_bytes(value: u64) -> u32 {
    8 - value.leading_zeros() / 8
}

fn whole(value: f64) -> Option<i64> {
    let int = value as i64;
    (value.abs() < EXACT && (int as f64).to_bits() == value.to_bits()).then_some(int)
}

fn scaled(value: f64, scale: f64) -> Option<i64> {
    let int = (value * scale).round();
    (int.abs() < EXACT && ((int as i64) as f64 / scale).to_bits() == value.to_bits()).then_some(int as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bases: &[u64], values: &[u64]) -> usize {
        let mut out = Vec::new();
        encode(bases, values, &mut ValueScratch::default(), &mut out);
        let mut back = Vec::new();
        let mut reader = Reader::new(&out);
        decode(&mut reader, bases, &mut back).unwrap();
        assert!(reader.is_empty());
        assert_eq!(back, values);
        out.len()
    }

    #[test]
    fn odd_values_come_back() {
        let odd = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.1,
            1e300,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            9.007e15,
            -9.3e18,
            123.456,
            0.000_001,
            model::stale_nan(),
        ];
        for a in odd {
            for b in odd {
                check(&[a.to_bits(), 0], &[b.to_bits(), a.to_bits()]);
            }
        }
    }

    #[test]
    fn small_steps_are_short() {
        let bits = |v: f64| v.to_bits();
        assert_eq!(check(&[bits(10.0); 8], &[bits(10.0); 8]), 1);
        assert_eq!(check(&[bits(10.0), bits(7.5)], &[bits(12.0), bits(7.625)]), 1 + 1 + 1 + 1);
    }

    proptest! {
        #[test]
        fn any_bits_come_back(pairs in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..40)) {
            let (bases, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            check(&bases, &values);
        }

        #[test]
        fn decimals_come_back(pairs in proptest::collection::vec((-5_000_000i64..5_000_000, -9_000i64..9_000), 0..40)) {
            let bases: Vec<u64> = pairs.iter().map(|p| (p.0 as f64 / 1000.0).to_bits()).collect();
            let values: Vec<u64> = pairs.iter().map(|p| ((p.0 + p.1) as f64 / 1000.0).to_bits()).collect();
            check(&bases, &values);
        }
    }
}
