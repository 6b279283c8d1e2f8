//! Integers ⇄ a packed column: differences of the kind that costs least, divided by their greatest common
//! divisor, in mini-blocks of 32 with patches for outliers.
//!
//! ```text
//! tag:4 | differences:2 | has divisor:1 | has exceptions:1     the first byte, tag in the low bits
//! exponent:4 | bytes of the base:4
//! base (zigzag, little endian, without leading zero bytes)
//! [divisor varint] [parameter zigzag varint] [exceptions, see float.rs]
//! [bitmap of the mini-blocks that are not zero]                 only if there are at least two
//! mini-blocks that are not zero: width byte | packed
//!                            or: 0x80 | width | patch byte | packed | positions | patches packed
//! ```
//! All arithmetic wraps, so any `i64` is coded exactly.
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of bits, and of values in a mini-block, are below 2^8"
)]

use crate::ChunkError;
use crate::bits::{self, BLOCK, Block};
use crate::bytes::{Reader, push_varint, push_zigzag, unzigzag, zigzag};

/// What the packed integers are, relative to the column's values divided by the divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Differences {
    /// To the smallest value, which is the base.
    ToMinimum = 0,
    /// To the previous value, zigzag. The base is the first value, here and below.
    Steps = 1,
    /// To the previous value, less the smallest such step, which is the parameter.
    StepsAboveMinimum = 2,
    /// Step less the step before, zigzag. The parameter is the first step.
    StepsOfSteps = 3,
}

const KINDS: [Differences; 4] =
    [Differences::ToMinimum, Differences::Steps, Differences::StepsAboveMinimum, Differences::StepsOfSteps];

impl Differences {
    /// How many values are given by base and parameter alone.
    fn given(self) -> usize {
        match self {
            Self::ToMinimum => 0,
            Self::Steps | Self::StepsAboveMinimum => 1,
            Self::StepsOfSteps => 2,
        }
    }
}

/// Widths that patches may have, by their 5-bit code.
const PATCH_WIDTHS: [u8; 32] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 28, 32, 36, 40,
    45, 50, 57, 64,
];
/// The most patches in a mini-block.
const MAX_PATCHES: u32 = 16;
/// From this many patches on, their positions are a 32-bit mask instead of 5 bits each.
const MASK_FROM: u32 = 7;

/// Code of the smallest patch width that holds `width` bits.
const PATCH_CODE: [u8; 65] = {
    let mut table = [0u8; 65];
    let mut width = 1;
    let mut code = 0u8;
    while width <= 64 {
        while (PATCH_WIDTHS[code as usize] as usize) < width {
            code += 1;
        }
        table[width] = code;
        width += 1;
    }
    table
};

/// How one mini-block is coded. All zero: nothing but its bit in the bitmap.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    bytes: u16,
    width: u8,
    patches: u8,
    patch_code: u8,
}

fn positions_len(patches: u32) -> usize {
    if patches >= MASK_FROM { 4 } else { (patches as usize * 5).div_ceil(8) }
}

/// The cheapest way to code `values` (at most 32).
fn plan(values: &[u64]) -> Plan {
    if values.iter().fold(0, |bits, v| bits | *v) == 0 {
        return Plan::default();
    }
    let mut counts = [0u8; 65];
    // Bit l - 1: some value is l bits long.
    let mut lengths = 0u64;
    for &value in values {
        let top = 63 - (value | 1).leading_zeros();
        let some = u64::from(value != 0);
        counts[top as usize + some as usize] += 1;
        lengths |= some << top;
    }
    let longest = 64 - lengths.leading_zeros();
    let bytes_at = |width: u32| bits::packed_len(values.len(), width) + 1;
    let mut best = Plan { bytes: bytes_at(longest) as u16, width: longest as u8, patches: 0, patch_code: 0 };
    let (mut width, mut patches) = (longest, 0u32);
    while width > 0 {
        patches += u32::from(counts[width as usize]);
        if patches > MAX_PATCHES {
            break;
        }
        // The next shorter length that occurs, or 0.
        let shorter = lengths & ((1u64 << (width - 1)) - 1);
        width = 64 - shorter.leading_zeros();
        let patch_code = PATCH_CODE[(longest - width) as usize];
        let patch_width = u32::from(PATCH_WIDTHS[usize::from(patch_code)]);
        let bytes =
            bytes_at(width) + 1 + positions_len(patches) + bits::packed_len(patches as usize, patch_width);
        if bytes < usize::from(best.bytes) {
            best = Plan { bytes: bytes as u16, width: width as u8, patches: patches as u8, patch_code };
        }
    }
    best
}

fn write_block(values: &[u64], plan: Plan, scratch: &mut Block, out: &mut Vec<u8>) {
    let (width, patches) = (u32::from(plan.width), u32::from(plan.patches));
    if patches == 0 {
        out.push(plan.width);
        bits::pack(values, width, out);
        return;
    }
    out.push(0x80 | plan.width | ((plan.patches - 1) >> 3) << 6);
    out.push(plan.patch_code | ((plan.patches - 1) & 7) << 5);
    let low = (1u64 << width) - 1;
    let mut mask = 0u32;
    for (i, &value) in values.iter().enumerate() {
        scratch[i] = value & low;
        mask |= u32::from(value > low) << i;
    }
    if width > 0 {
        bits::pack(&scratch[..values.len()], width, out);
    }
    if patches >= MASK_FROM {
        out.extend_from_slice(&mask.to_le_bytes());
    } else {
        for (position, i) in scratch.iter_mut().zip(ones(mask)) {
            *position = u64::from(i);
        }
        bits::pack(&scratch[..patches as usize], 5, out);
    }
    for (high, i) in scratch.iter_mut().zip(ones(mask)) {
        *high = values[i as usize] >> width;
    }
    bits::pack(&scratch[..patches as usize], u32::from(PATCH_WIDTHS[usize::from(plan.patch_code)]), out);
}

/// Positions of the bits that are set, ascending.
fn ones(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let position = (mask != 0).then(|| mask.trailing_zeros());
        mask &= mask.wrapping_sub(1);
        position
    })
}

/// The coding of one kind of differences of a column: the residuals and their plans.
#[derive(Debug, Default)]
struct Candidate {
    residuals: Vec<u64>,
    plans: Vec<Plan>,
    parameter: i64,
}

impl Candidate {
    /// About how many bits the residuals take: eights of equal length.
    fn bits(&self) -> u32 {
        let length = |eight: &[u64]| 64 - eight.iter().fold(0, |bits, r| bits | *r).leading_zeros();
        let (eights, rest) = self.residuals.as_chunks::<8>();
        eights.iter().map(|eight| 8 * length(eight)).sum::<u32>() + length(rest) * rest.len() as u32
    }

    /// Plans every mini-block and gives the size in bytes of all, with the bitmap.
    fn size(&mut self) -> usize {
        self.plans.clear();
        let mut bytes = 0;
        for block in self.residuals.chunks(BLOCK) {
            let plan = plan(block);
            bytes += usize::from(plan.bytes);
            self.plans.push(plan);
        }
        bytes + bitmap_len(self.plans.len())
    }
}

fn bitmap_len(blocks: usize) -> usize {
    if blocks < 2 { 0 } else { blocks.div_ceil(8) }
}

/// Packs columns of integers; keeps its scratch memory.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    scaled: Vec<i64>,
    candidates: [Candidate; 4],
}

impl Packer {
    /// Appends the packed column of `values` (not empty) with the given tag, exponent and exception bytes.
    pub(crate) fn encode(
        &mut self,
        values: &[i64],
        tag: u8,
        exponent: u8,
        exceptions: &[u8],
        out: &mut Vec<u8>,
    ) {
        debug_assert!(tag < 16 && exponent < 16, "they have four bits each");
        let (first, min, divisor) = self.scale(values);
        self.differences();
        // Only the two that promise most are planned in full.
        let mut promises = [(u32::MAX, 0); 4];
        for (at, candidate) in self.candidates.iter().enumerate() {
            if values.len() >= KINDS[at].given() {
                promises[at] = (candidate.bits(), at);
            }
        }
        promises.sort_unstable();
        let mut best = (0, usize::MAX);
        for (promise, at) in promises.into_iter().take(2) {
            if promise == u32::MAX {
                continue;
            }
            let candidate = &mut self.candidates[at];
            let size = candidate.size() + usize::from(at >= 2);
            if size < best.1 {
                best = (at, size);
            }
        }
        let kind = KINDS[best.0];
        let chosen = &self.candidates[best.0];
        let base = zigzag(if kind == Differences::ToMinimum { min } else { first });
        let base_len = (64 - base.leading_zeros()).div_ceil(8) as u8;

        let flags = u8::from(divisor > 1) << 6 | u8::from(!exceptions.is_empty()) << 7;
        out.push(tag | (kind as u8) << 4 | flags);
        out.push(exponent | base_len << 4);
        out.extend_from_slice(&base.to_le_bytes()[..usize::from(base_len)]);
        if divisor > 1 {
            push_varint(out, divisor);
        }
        if matches!(kind, Differences::StepsAboveMinimum | Differences::StepsOfSteps) {
            push_zigzag(out, chosen.parameter);
        }
        out.extend_from_slice(exceptions);

        if chosen.plans.len() >= 2 {
            let bitmap = out.len();
            out.resize(bitmap + bitmap_len(chosen.plans.len()), 0);
            for (i, plan) in chosen.plans.iter().enumerate() {
                out[bitmap + i / 8] |= u8::from(plan.bytes > 0) << (i % 8);
            }
        }
        let mut scratch = [0; BLOCK];
        for (block, plan) in chosen.residuals.chunks(BLOCK).zip(&chosen.plans) {
            if plan.bytes > 0 {
                write_block(block, *plan, &mut scratch, out);
            } else if chosen.plans.len() == 1 {
                out.push(0);
            }
        }
    }

    /// Fills `scaled` with (value − minimum) / divisor and gives (first value, minimum, divisor).
    fn scale(&mut self, values: &[i64]) -> (i64, i64, u64) {
        let first = values[0];
        let (mut min, mut max) = (first, first);
        for &value in values {
            min = min.min(value);
            max = max.max(value);
        }
        self.scaled.clear();
        self.scaled.extend(values.iter().map(|v| v.wrapping_sub(min)));
        // Wider ranges could wrap in steps of steps, which is exact only without a divisor.
        let narrow = max.wrapping_sub(min).cast_unsigned() < 1 << 61;
        let any = self.scaled.iter().fold(0, |bits, v| bits | *v);
        if !narrow || any == 0 {
            return (first, min, 1);
        }
        let shift = any.trailing_zeros();
        let odd = self.odd_divisor(shift);
        if shift == 0 && odd == 1 {
            return (first, min, 1);
        }
        // Exact division by an odd number is multiplication with its inverse modulo 2^64 (Newton's iteration).
        let mut inverse = odd;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        for value in &mut self.scaled {
            *value = (*value >> shift).wrapping_mul(inverse.cast_signed());
        }
        (first, min, odd << shift)
    }

    /// The greatest odd number that divides every scaled value shifted right by `shift`.
    fn odd_divisor(&self, shift: u32) -> u64 {
        let mut divisor = 0u64;
        for &value in &self.scaled {
            let value = (value >> shift).cast_unsigned();
            if value == 0 || divisor != 0 && value.is_multiple_of(divisor) {
                continue;
            }
            divisor = odd_gcd(value >> value.trailing_zeros(), divisor);
            if divisor == 1 {
                break;
            }
        }
        divisor.max(1)
    }

    /// Fills the candidates from `scaled`.
    fn differences(&mut self) {
        let scaled = &self.scaled[..];
        let [to_minimum, steps, above, of_steps] = &mut self.candidates;
        for candidate in [&mut *to_minimum, &mut *steps, &mut *above, &mut *of_steps] {
            candidate.residuals.clear();
            candidate.parameter = 0;
        }
        to_minimum.residuals.extend(scaled.iter().map(|v| v.cast_unsigned()));
        let step = |pair: &[i64]| pair[1].wrapping_sub(pair[0]);
        steps.residuals.extend(scaled.windows(2).map(|pair| zigzag(step(pair))));
        let smallest = scaled.windows(2).map(step).min().unwrap_or(0);
        above.parameter = smallest;
        above
            .residuals
            .extend(scaled.windows(2).map(|pair| step(pair).wrapping_sub(smallest).cast_unsigned()));
        if let [first, second, ..] = scaled {
            of_steps.parameter = second.wrapping_sub(*first);
            of_steps.residuals.extend(
                scaled.windows(3).map(|three| zigzag(step(&three[1..]).wrapping_sub(step(&three[..2])))),
            );
        }
    }
}

/// Greatest common divisor of an odd number and `b` (odd, or 0 for "none yet").
fn odd_gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
        b >>= b.trailing_zeros().min(63);
    }
    a
}

/// The fields before a packed column's exceptions and mini-blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) tag: u8,
    pub(crate) exponent: u8,
    pub(crate) has_exceptions: bool,
    kind: Differences,
    base: i64,
    divisor: i64,
    parameter: i64,
}

impl Head {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ChunkError> {
        let first = reader.u8()?;
        let second = reader.u8()?;
        let kind = KINDS[usize::from(first >> 4 & 3)];
        let base_len = usize::from(second >> 4);
        if base_len > 8 {
            return Err(ChunkError::Invalid("base"));
        }
        let mut word = [0; 8];
        word[..base_len].copy_from_slice(reader.take(base_len)?);
        let base = unzigzag(u64::from_le_bytes(word));
        let divisor = if first & 0x40 != 0 { reader.varint()?.cast_signed() } else { 1 };
        let parameter = match kind {
            Differences::ToMinimum | Differences::Steps => 0,
            Differences::StepsAboveMinimum | Differences::StepsOfSteps => reader.zigzag()?,
        };
        let has_exceptions = first & 0x80 != 0;
        Ok(Self { tag: first & 15, exponent: second & 15, has_exceptions, kind, base, divisor, parameter })
    }
}

/// Reads one mini-block of `count` integers that is not left out.
fn read_block(reader: &mut Reader<'_>, count: usize, out: &mut Block) -> Result<(), ChunkError> {
    let head = reader.u8()?;
    if head & 0x80 == 0 {
        let width = u32::from(head);
        return match width {
            0 => {
                out.fill(0);
                Ok(())
            }
            1..=64 => {
                bits::unpack(reader.take(bits::packed_len(count, width))?, count, width, out);
                Ok(())
            }
            _ => Err(ChunkError::Invalid("width")),
        };
    }
    let width = u32::from(head & 0x3f);
    let second = reader.u8()?;
    let patches = usize::from((head >> 6 & 1) << 3 | second >> 5) + 1;
    let patch_width = u32::from(PATCH_WIDTHS[usize::from(second & 31)]);
    if width == 0 {
        out.fill(0);
    } else {
        bits::unpack(reader.take(bits::packed_len(count, width))?, count, width, out);
    }
    let mut positions = [0u64; BLOCK];
    let place = reader.take(positions_len(patches as u32))?;
    if let (true, Ok(mask)) = (patches as u32 >= MASK_FROM, <[u8; 4]>::try_from(place)) {
        let mask = u32::from_le_bytes(mask);
        if mask.count_ones() as usize != patches {
            return Err(ChunkError::Invalid("patch mask"));
        }
        for (position, i) in positions.iter_mut().zip(ones(mask)) {
            *position = u64::from(i);
        }
    } else {
        bits::unpack(place, patches, 5, &mut positions);
    }
    let mut highs = [0u64; BLOCK];
    bits::unpack(reader.take(bits::packed_len(patches, patch_width))?, patches, patch_width, &mut highs);
    for (&position, &high) in positions.iter().zip(&highs).take(patches) {
        out[position as usize % BLOCK] |= high << width;
    }
    Ok(())
}

/// Decodes the rest of a packed column of `count` (at least 1) integers and gives them to `sink` in order, at most
/// 32 at a time.
#[inline]
pub(crate) fn decode(
    head: &Head,
    reader: &mut Reader<'_>,
    count: usize,
    mut sink: impl FnMut(&[i64]),
) -> Result<(), ChunkError> {
    let given = head.kind.given();
    let packed = count.checked_sub(given).ok_or(ChunkError::Invalid("number of rows"))?;
    let blocks = packed.div_ceil(BLOCK);
    let bitmap = reader.take(bitmap_len(blocks))?;
    let (mut value, mut step) = (head.base, head.parameter.wrapping_mul(head.divisor));
    match head.kind {
        Differences::ToMinimum => {}
        Differences::Steps | Differences::StepsAboveMinimum => sink(&[value]),
        Differences::StepsOfSteps => {
            sink(&[value, value.wrapping_add(step)]);
            value = value.wrapping_add(step);
        }
    }
    let divisor = head.divisor;
    let (mut words, mut ints) = ([0u64; BLOCK], [0i64; BLOCK]);
    for block in 0..blocks {
        let len = (packed - block * BLOCK).min(BLOCK);
        let zero = blocks >= 2 && bitmap[block / 8] >> (block % 8) & 1 == 0;
        if zero {
            match head.kind {
                Differences::ToMinimum | Differences::Steps => ints.fill(value),
                Differences::StepsAboveMinimum | Differences::StepsOfSteps => {
                    for (i, int) in (1..).zip(&mut ints) {
                        *int = value.wrapping_add(step.wrapping_mul(i));
                    }
                    value = ints[len - 1];
                }
            }
            sink(&ints[..len]);
            continue;
        }
        read_block(reader, len, &mut words)?;
        match head.kind {
            Differences::ToMinimum if divisor == 1 => {
                for (int, word) in ints.iter_mut().zip(&words) {
                    *int = value.wrapping_add(word.cast_signed());
                }
            }
            Differences::ToMinimum => {
                for (int, word) in ints.iter_mut().zip(&words) {
                    *int = value.wrapping_add(word.cast_signed().wrapping_mul(divisor));
                }
            }
            Differences::Steps => {
                for (int, word) in ints[..len].iter_mut().zip(&words) {
                    value = value.wrapping_add(unzigzag(*word).wrapping_mul(divisor));
                    *int = value;
                }
            }
            Differences::StepsAboveMinimum => {
                for (int, word) in ints[..len].iter_mut().zip(&words) {
                    let above = word.cast_signed().wrapping_mul(divisor);
                    value = value.wrapping_add(step.wrapping_add(above));
                    *int = value;
                }
            }
            Differences::StepsOfSteps => {
                for (int, word) in ints[..len].iter_mut().zip(&words) {
                    step = step.wrapping_add(unzigzag(*word).wrapping_mul(divisor));
                    value = value.wrapping_add(step);
                    *int = value;
                }
            }
        }
        sink(&ints[..len]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(values: &[i64]) -> usize {
        let mut bytes = Vec::new();
        Packer::default().encode(values, 3, 0, &[], &mut bytes);
        let mut reader = Reader::new(&bytes);
        let head = Head::read(&mut reader).unwrap();
        let mut out = Vec::new();
        decode(&head, &mut reader, values.len(), |block| out.extend_from_slice(block)).unwrap();
        reader.finish().unwrap();
        assert_eq!(out, values);
        bytes.len()
    }

    #[test]
    fn sizes_stay_small_where_they_should() {
        let ramp: Vec<i64> = (0..480).map(|i| 1_700_000_000_000 + 15_000 * i).collect();
        assert!(check(&ramp) <= 14, "regular stamps: {}", check(&ramp));
        let pages: Vec<i64> = (0..480).map(|i| 4096 * 77 * (i * i % 5)).collect();
        assert!(check(&pages) <= 250, "multiples of one number: {}", check(&pages));
        let mut spike = vec![5; 480];
        spike[100] = 1 << 40;
        assert!(check(&spike) <= 32, "one outlier: {}", check(&spike));
        assert_eq!(check(&[i64::MIN]), 11);
    }

    #[test]
    fn extremes_wrap_exactly() {
        check(&[i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN]);
        check(&[i64::MIN, i64::MIN + 6, i64::MAX - 1]);
        check(&[0, 1 << 60, 0, -(1 << 60), 0]);
        check(&[0, 6 << 58, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_integers_come_back(
            values in prop::collection::vec(any::<i64>(), 1..200),
            shift in 0u32..64,
            factor in 1i64..10_000,
        ) {
            let small: Vec<i64> = values.iter().map(|v| v >> shift).collect();
            check(&small);
            let multiples: Vec<i64> = small.iter().map(|v| (v >> 16).wrapping_mul(factor)).collect();
            check(&multiples);
            let sums: Vec<i64> = multiples.iter().scan(0i64, |sum, v| { *sum = sum.wrapping_add(*v); Some(*sum) }).collect();
            check(&sums);
        }

        #[test]
        fn outliers_come_back(
            mut values in prop::collection::vec(0i64..9, 1..200),
            outliers in prop::collection::vec((any::<prop::sample::Index>(), any::<i64>(), 0u32..60), 0..20),
        ) {
            for (at, value, shift) in outliers {
                let at = at.index(values.len());
                values[at] = value >> shift;
            }
            check(&values);
        }

        #[test]
        fn garbage_is_an_error_or_rows(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 1usize..500) {
            let mut reader = Reader::new(&bytes);
            let mut rows = 0;
            if let Ok(head) = Head::read(&mut reader)
                && decode(&head, &mut reader, count, |block| rows += block.len()).is_ok()
            {
                prop_assert_eq!(rows, count);
            }
        }
    }
}
