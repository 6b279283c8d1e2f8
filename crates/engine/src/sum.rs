//! Sums across series that do not depend on their order: exact accumulators, one a step, rounded once at the end.
//!
//! An accumulator is two floats whose exact sum is the sum so far. What does not fit into the two (bits more than
//! about a hundred places apart, overflow, infinities, NaN) goes to a wide fixed-point number beside them, which
//! holds any sum of floats exactly. Not here: sums along time (`kahan.rs`).

use model::Failure;

use crate::coding::{Reader, Writer};
use crate::column::is_absent;

/// 2^(−1074) is the weight of bit 0 of the first limb. 2098 bits hold every float; 64 more take the carries of
/// 2^63 additions, and the number is kept in two's complement.
const LIMBS: usize = 34;

/// The wide part of an accumulator.
#[derive(Clone, Debug)]
struct Wide {
    limbs: [u64; LIMBS],
    plus_inf: bool,
    minus_inf: bool,
    nan: bool,
}

impl Wide {
    fn new() -> Self {
        Self { limbs: [0; LIMBS], plus_inf: false, minus_inf: false, nan: false }
    }

    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.nan |= value.is_nan();
            self.plus_inf |= value == f64::INFINITY;
            self.minus_inf |= value == f64::NEG_INFINITY;
            return;
        }
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as usize;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let (limb, bit) = (shift / 64, shift % 64);
        let wide = u128::from(mantissa) << bit;
        let parts = [wide as u64, (wide >> 64) as u64];
        if bits >> 63 == 0 { self.add_at(limb, parts) } else { self.sub_at(limb, parts) }
    }

    fn absorb(&mut self, other: &Self) {
        self.nan |= other.nan;
        self.plus_inf |= other.plus_inf;
        self.minus_inf |= other.minus_inf;
        let mut carry = false;
        for (limb, more) in self.limbs.iter_mut().zip(&other.limbs) {
            let (sum, c1) = limb.overflowing_add(*more);
            let (sum, c2) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, c1 | c2);
        }
    }

    fn add_at(&mut self, at: usize, parts: [u64; 2]) {
        let mut carry = false;
        for (i, limb) in self.limbs.iter_mut().enumerate().skip(at) {
            let part = parts.get(i - at).copied().unwrap_or(0);
            if i - at >= 2 && !carry {
                return;
            }
            let (sum, c1) = limb.overflowing_add(part);
            let (sum, c2) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, c1 | c2);
        }
    }

    fn sub_at(&mut self, at: usize, parts: [u64; 2]) {
        let mut borrow = false;
        for (i, limb) in self.limbs.iter_mut().enumerate().skip(at) {
            let part = parts.get(i - at).copied().unwrap_or(0);
            if i - at >= 2 && !borrow {
                return;
            }
            let (difference, b1) = limb.overflowing_sub(part);
            let (difference, b2) = difference.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (difference, b1 | b2);
        }
    }

    /// The value as `m · 2^e` with `m` rounded to nearest even, `e` = `down`; so that a sum beyond the largest float
    /// can still be divided.
    fn round_scaled(&self, down: i32) -> f64 {
        if self.nan || (self.plus_inf && self.minus_inf) {
            return f64::NAN;
        }
        if self.plus_inf {
            return f64::INFINITY;
        }
        if self.minus_inf {
            return f64::NEG_INFINITY;
        }
        let negative = self.limbs[LIMBS - 1] >> 63 == 1;
        let mut limbs = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                let (value, c) = (!*limb).overflowing_add(u64::from(carry));
                (*limb, carry) = (value, c);
            }
        }
        let Some(top) = limbs.iter().rposition(|l| *l != 0) else { return 0.0 };
        let high = top * 64 + 63 - limbs[top].leading_zeros() as usize;
        let magnitude = if high < 53 {
            scale(limbs[0] as f64, -1074 - down)
        } else {
            let low = high - 52;
            let mut mantissa = bits_at(&limbs, low) & ((1 << 53) - 1);
            let half = bits_at(&limbs, low - 1) & 1 == 1;
            let rest = below(&limbs, low - 1);
            if half && (rest || mantissa & 1 == 1) {
                mantissa += 1;
            }
            scale(mantissa as f64, low as i32 - 1074 - down)
        };
        if negative { -magnitude } else { magnitude }
    }
}

/// The 64 bits from bit `at` on.
fn bits_at(limbs: &[u64; LIMBS], at: usize) -> u64 {
    let (limb, bit) = (at / 64, at % 64);
    let low = limbs[limb] >> bit;
    if bit == 0 || limb + 1 == LIMBS { low } else { low | limbs[limb + 1] << (64 - bit) }
}

/// Whether any bit below bit `at` is set.
fn below(limbs: &[u64; LIMBS], at: usize) -> bool {
    limbs[..at / 64].iter().any(|l| *l != 0) || limbs[at / 64] & ((1u64 << (at % 64)) - 1) != 0
}

/// `value · 2^exponent`, exact for integers below 2^53 unless the result overflows.
fn scale(value: f64, exponent: i32) -> f64 {
    let mut exponent = exponent;
    let mut value = value;
    while exponent > 1000 {
        value *= f64::from_bits((1000 + 1023u64) << 52);
        exponent -= 1000;
    }
    while exponent < -1000 {
        value *= f64::from_bits((1023 - 1000u64) << 52);
        exponent += 1000;
    }
    value * f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Exact sums, one a step.
#[derive(Debug)]
pub(crate) struct ExactSums {
    high: Vec<f64>,
    low: Vec<f64>,
    wide: Vec<Option<Box<Wide>>>,
}

impl ExactSums {
    /// Zeros for `steps` steps.
    pub(crate) fn new(steps: usize) -> Self {
        Self { high: vec![0.0; steps], low: vec![0.0; steps], wide: Vec::new() }
    }

    /// Bytes in use.
    pub(crate) fn bytes(steps: usize) -> u64 {
        (steps * 2 * size_of::<f64>() + size_of::<Self>()) as u64
    }

    /// Adds all values of `column` (one a step) that are present.
    pub(crate) fn add_column(&mut self, column: &[f64]) {
        const BLOCK: usize = 32;
        for (block, values) in column.chunks(BLOCK).enumerate() {
            let from = block * BLOCK;
            let high = &mut self.high[from..from + values.len()];
            let low = &mut self.low[from..from + values.len()];
            let (mut sums, mut rests) = ([0.0; BLOCK], [0.0; BLOCK]);
            let mut fits = true;
            for at in 0..values.len() {
                let (sum, error) = two_sum(high[at], values[at]);
                let (rest, spill) = two_sum(low[at], error);
                (sums[at], rests[at]) = (sum, rest);
                // An absent or infinite value makes the error a NaN, which does not equal zero either.
                fits &= spill == 0.0;
            }
            if fits {
                high.copy_from_slice(&sums[..values.len()]);
                low.copy_from_slice(&rests[..values.len()]);
            } else {
                for (at, value) in values.iter().enumerate() {
                    if !is_absent(*value) {
                        self.add(from + at, *value);
                    }
                }
            }
        }
    }

    /// Adds `value` at `step`; `value` may be any float but the absence marker.
    #[inline]
    pub(crate) fn add(&mut self, step: usize, value: f64) {
        let (sum, error) = two_sum(self.high[step], value);
        let (rest, spill) = two_sum(self.low[step], error);
        if spill == 0.0 && sum.is_finite() {
            (self.high[step], self.low[step]) = (sum, rest);
        } else {
            self.add_wide(step, value);
        }
    }

    #[cold]
    fn add_wide(&mut self, step: usize, value: f64) {
        if self.wide.is_empty() {
            self.wide.resize_with(self.high.len(), || None);
        }
        let wide = self.wide[step].get_or_insert_with(|| Box::new(Wide::new()));
        wide.add(self.high[step]);
        wide.add(self.low[step]);
        wide.add(value);
        (self.high[step], self.low[step]) = (0.0, 0.0);
    }

    /// The sum at `step`, rounded once.
    pub(crate) fn sum(&self, step: usize) -> f64 {
        self.scaled(step, 0)
    }

    /// The sum at `step` divided by `count`: the sum is rounded once, beyond the largest float too.
    pub(crate) fn mean(&self, step: usize, count: f64) -> f64 {
        let sum = self.scaled(step, 0);
        if sum.is_finite() {
            return sum / count;
        }
        scale(self.scaled(step, 64) / count, 64)
    }

    fn scaled(&self, step: usize, down: i32) -> f64 {
        match self.wide.get(step).and_then(Option::as_ref) {
            None => scale(self.high[step] + self.low[step], -down),
            Some(wide) => {
                let mut all = wide.clone();
                all.add(self.high[step]);
                all.add(self.low[step]);
                all.round_scaled(down)
            }
        }
    }

    /// The sum at `step`, apart.
    pub(crate) fn at(&self, step: usize) -> Exact {
        let wide = self.wide.get(step).cloned().flatten();
        Exact { high: self.high[step], low: self.low[step], wide }
    }

    /// Adds `other` at `step`.
    pub(crate) fn absorb(&mut self, step: usize, other: &Exact) {
        self.add(step, other.high);
        self.add(step, other.low);
        if let Some(more) = &other.wide {
            if self.wide.is_empty() {
                self.wide.resize_with(self.high.len(), || None);
            }
            self.wide[step].get_or_insert_with(|| Box::new(Wide::new())).absorb(more);
        }
    }

    /// The sum at `step` as an unevaluated sum of floats, the largest first, correct to about 212 bits.
    pub(crate) fn parts(&self, step: usize) -> [f64; 4] {
        let (high, low) = (self.high[step], self.low[step]);
        let Some(wide) = self.wide.get(step).and_then(Option::as_ref) else {
            let (first, second) = two_sum(high, low);
            return [first, second, 0.0, 0.0];
        };
        let mut rest = wide.clone();
        rest.add(high);
        rest.add(low);
        let mut parts = [0.0; 4];
        for part in &mut parts {
            *part = rest.round_scaled(0);
            if !part.is_finite() {
                break;
            }
            rest.add(-*part);
        }
        parts
    }
}

/// One exact sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exact {
    high: f64,
    low: f64,
    wide: Option<Box<Wide>>,
}

/// How an exact sum is written: the shortest form that holds it, so that equal sums are written alike.
mod form {
    pub(super) const ZERO: u8 = 0;
    pub(super) const ONE: u8 = 1;
    pub(super) const TWO: u8 = 2;
    pub(super) const WIDE: u8 = 3;
    pub(super) const PLUS_INF: u8 = 4;
    pub(super) const MINUS_INF: u8 = 5;
    pub(super) const NAN: u8 = 6;
    pub(super) const WHOLE: u8 = 7;
}

impl Exact {
    /// The sum of one value.
    pub(crate) fn of(value: f64) -> Self {
        let mut exact = Self::default();
        exact.add(value);
        exact
    }

    /// Adds `value`.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.high, value);
        let (rest, spill) = two_sum(self.low, error);
        if spill == 0.0 && sum.is_finite() {
            (self.high, self.low) = (sum, rest);
        } else {
            let mut wide = self.all();
            wide.add(value);
            *self = Self { high: 0.0, low: 0.0, wide: Some(Box::new(wide)) };
        }
    }

    /// Adds `other`.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.add(other.high);
        self.add(other.low);
        if let Some(more) = &other.wide {
            self.wide.get_or_insert_with(|| Box::new(Wide::new())).absorb(more);
        }
    }

    fn all(&self) -> Wide {
        let mut all = self.wide.as_ref().map_or_else(Wide::new, |wide| (**wide).clone());
        all.add(self.high);
        all.add(self.low);
        all
    }

    fn scaled(&self, down: i32) -> f64 {
        match self.wide {
            None => scale(self.high + self.low, -down),
            Some(_) => self.all().round_scaled(down),
        }
    }

    /// The sum, rounded once.
    pub(crate) fn sum(&self) -> f64 {
        self.scaled(0)
    }

    /// The sum, rounded once (beyond the largest float too), divided by `count`.
    pub(crate) fn mean(&self, count: f64) -> f64 {
        let sum = self.sum();
        if sum.is_finite() { sum / count } else { scale(self.scaled(64) / count, 64) }
    }

    /// Writes it; equal sums give equal bytes.
    pub(crate) fn write(&self, to: &mut Writer) {
        let (first, second) = match &self.wide {
            None => two_sum(self.high, self.low),
            Some(_) => {
                let mut rest = self.all();
                let first = rest.round_scaled(0);
                let special = if first.is_nan() {
                    Some(form::NAN)
                } else if rest.plus_inf {
                    Some(form::PLUS_INF)
                } else if rest.minus_inf {
                    Some(form::MINUS_INF)
                } else {
                    None
                };
                if let Some(special) = special {
                    return to.u8(special);
                }
                let mut second = 0.0;
                if first.is_finite() {
                    rest.add(-first);
                    second = rest.round_scaled(0);
                    rest.add(-second);
                }
                if !first.is_finite() || rest.limbs.iter().any(|l| *l != 0) {
                    return self.all().write(to);
                }
                (first, second)
            }
        };
        if first == 0.0 {
            to.u8(form::ZERO);
        } else if second != 0.0 {
            to.u8(form::TWO);
            to.float(first);
            to.float(second);
        } else if first.abs() < 1e12 && first.fract() == 0.0 {
            to.u8(form::WHOLE);
            to.signed(first as i64);
        } else {
            to.u8(form::ONE);
            to.float(first);
        }
    }

    /// What [`Exact::write`] wrote.
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Failure> {
        Ok(match from.u8()? {
            form::ZERO => Self::default(),
            form::ONE => Self::of(from.float()?),
            form::TWO => {
                let mut exact = Self::of(from.float()?);
                exact.add(from.float()?);
                exact
            }
            form::WIDE => Self { wide: Some(Box::new(Wide::read(from)?)), ..Self::default() },
            form::PLUS_INF => Self::of(f64::INFINITY),
            form::MINUS_INF => Self::of(f64::NEG_INFINITY),
            form::NAN => Self::of(f64::NAN),
            form::WHOLE => Self::of(from.signed()? as f64),
            _ => return Err(from.damaged("an exact sum of an unknown form")),
        })
    }
}

impl Wide {
    /// Writes the limbs without the zeros below and the signs above.
    fn write(&self, to: &mut Writer) {
        let sign = if self.limbs[LIMBS - 1] >> 63 == 1 { u64::MAX } else { 0 };
        let low = self.limbs.iter().position(|l| *l != 0).unwrap_or(0);
        let top = self.limbs.iter().rposition(|l| *l != sign).map_or(low, |at| at + 1).max(low);
        to.u8(form::WIDE);
        to.u8((sign & 1) as u8);
        to.u8(low as u8);
        to.u8((top - low) as u8);
        self.limbs[low..top].iter().for_each(|limb| to.bytes.extend_from_slice(&limb.to_le_bytes()));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Failure> {
        let sign = if from.flag()? { u64::MAX } else { 0 };
        let (low, len) = (usize::from(from.u8()?), usize::from(from.u8()?));
        if low + len > LIMBS {
            return Err(from.damaged("a wide sum of too many limbs"));
        }
        let mut wide = Self::new();
        for (at, limb) in wide.limbs.iter_mut().enumerate().skip(low) {
            *limb = if at < low + len { from.float()?.to_bits() } else { sign };
        }
        Ok(wide)
    }
}

/// `a + b` rounded, and what the rounding lost, exactly (unless the sum overflows).
#[inline(always)]
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let bb = sum - a;
    (sum, (a - (sum - bb)) + (b - bb))
}

/// `a · b` rounded, and what the rounding lost (exact unless it under- or overflows).
#[inline]
pub(crate) fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    (product, a.mul_add(b, -product))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(values: &[f64]) -> f64 {
        let mut sums = ExactSums::new(1);
        for value in values {
            sums.add(0, *value);
        }
        sums.sum(0)
    }

    #[test]
    fn bits_far_apart_and_overflow_and_infinities() {
        assert_eq!(exact(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(exact(&[1e300, 1e-300, 1.0, -1e300, -1.0]), 1e-300);
        assert_eq!(exact(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(exact(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(exact(&[f64::MIN_POSITIVE / 4.0, 5e-324]), f64::MIN_POSITIVE / 4.0 + 5e-324);
        assert_eq!(exact(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(exact(&[f64::NEG_INFINITY, 1.0]), f64::NEG_INFINITY);
        assert!(exact(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(exact(&[f64::NAN, 1.0]).is_nan());
        let mut sums = ExactSums::new(1);
        sums.add(0, f64::MAX);
        sums.add(0, f64::MAX);
        assert_eq!(sums.mean(0, 2.0), f64::MAX);
    }

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("absent", |v| v.to_bits() != model::STALE_NAN_BITS),
            (-1000i64..1000).prop_map(|v| v as f64 / 10.0),
            (any::<i32>(), -300i32..300).prop_map(|(m, e)| f64::from(m) * 10f64.powi(e)),
        ]
    }

    proptest! {
        #[test]
        fn order_does_not_matter(mut values in prop::collection::vec(any_float(), 0..40), seed in any::<u64>()) {
            let first = exact(&values);
            let mut state = seed | 1;
            for at in (1..values.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                values.swap(at, (state >> 33) as usize % (at + 1));
            }
            prop_assert!(first.to_bits() == exact(&values).to_bits() || (first.is_nan() && exact(&values).is_nan()));
        }

        #[test]
        fn columns_equal_single_values(columns in prop::collection::vec(prop::collection::vec(any_float(), 70), 1..6)) {
            let (mut a, mut b) = (ExactSums::new(70), ExactSums::new(70));
            for column in &columns {
                a.add_column(column);
                column.iter().enumerate().for_each(|(step, v)| b.add(step, *v));
            }
            for step in 0..70 {
                prop_assert!(a.sum(step).to_bits() == b.sum(step).to_bits() || a.sum(step).is_nan());
            }
        }

        #[test]
        fn sums_of_parts_are_the_sum_and_are_written_alike(
            mut values in prop::collection::vec(any_float(), 0..30), cuts in prop::collection::vec(0usize..30, 0..4),
        ) {
            let sum_of = |values: &[f64]| {
                let mut sum = Exact::default();
                values.iter().for_each(|v| sum.add(*v));
                sum
            };
            let bytes_of = |sum: &Exact| {
                let mut writer = Writer::default();
                sum.write(&mut writer);
                writer.bytes
            };
            let expected = bytes_of(&sum_of(&values));
            let whole = exact(&values);
            values.reverse();
            let mut all = Exact::default();
            let mut column = ExactSums::new(1);
            let mut from = 0;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(values.len())).chain([values.len()]).collect();
            cuts.sort_unstable();
            for cut in cuts {
                let bytes = bytes_of(&sum_of(&values[from..cut]));
                let part = Exact::read(&mut Reader::new(&bytes)).unwrap();
                all.absorb(&part);
                column.absorb(0, &part);
                from = cut;
            }
            prop_assert_eq!(bytes_of(&all), expected.clone());
            prop_assert_eq!(bytes_of(&column.at(0)), expected);
            for sum in [all.sum(), column.sum(0)] {
                prop_assert!(sum.to_bits() == whole.to_bits() || (sum.is_nan() && whole.is_nan()));
            }
        }

        #[test]
        fn small_integers_are_exact(values in prop::collection::vec(-1_000_000i64..1_000_000, 0..100)) {
            let floats: Vec<f64> = values.iter().map(|v| *v as f64 / 64.0).collect();
            prop_assert_eq!(exact(&floats), values.iter().sum::<i64>() as f64 / 64.0);
        }
    }
}
