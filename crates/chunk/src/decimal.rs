//! Floats that are decimals with few digits ⇄ integers: `value = integer / 10^exponent`, exactly.
//!
//! The integers stay below 2^51, so that adding 1.5 × 2^52 rounds to the nearest integer and also converts
//! between integer and float, without instructions that the oldest x86-64 lacks.

/// The largest exponent tried.
pub(crate) const MAX_EXPONENT: u8 = 12;

/// 10^exponent; every one of them is exact.
pub(crate) const POWERS: [f64; MAX_EXPONENT as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12];

const ROUNDER: f64 = 1.5 * (1u64 << 52) as f64;
const LIMIT: f64 = (1u64 << 51) as f64;

/// The integer of `value` at the power of ten `power`, and whether it is exact. NaN, infinities and −0 are not.
#[inline(always)]
fn scaled(value: f64, power: f64) -> (i64, bool) {
    let shifted = value * power + ROUNDER;
    let back = (shifted - ROUNDER) / power;
    let exact = (back.to_bits() == value.to_bits()) & ((value * power).abs() < LIMIT);
    (shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed(), exact)
}

/// The float of an integer that [`scaled`] gave, before the division by the power.
#[inline(always)]
pub(crate) fn unscaled(integer: i64) -> f64 {
    f64::from_bits(ROUNDER.to_bits().wrapping_add(integer.cast_unsigned())) - ROUNDER
}

/// The integer nearest to `value` × 10^`exponent`, and its decimal as [`unscaled`] and division give it. `None` for
/// what is not finite or has too many digits.
pub(crate) fn nearest(value: f64, exponent: u8) -> Option<(i64, f64)> {
    let power = POWERS[usize::from(exponent)];
    let shifted = value * power;
    // False for NaN too.
    (shifted.abs() < LIMIT).then(|| {
        let (int, _) = scaled(value, power);
        (int, unscaled(int) / power)
    })
}

/// The smallest exponent at least `from` at which `value` is exact.
fn exponent_of(value: f64, from: u8) -> Option<u8> {
    if value == 0.0 || !value.is_finite() {
        return (value.to_bits() == 0).then_some(from);
    }
    (from..=MAX_EXPONENT).find(|e| scaled(value, POWERS[usize::from(*e)]).1)
}

/// Whether it is a value that is expected to be an exception in any column.
fn is_special(value: f64) -> bool {
    !value.is_finite() || value == 0.0
}

/// Fills `ints` with the integers of `values` at one exponent and `misses` with the positions that have none
/// (their integer repeats the one before). `None` when more than a quarter of the ordinary values have none.
pub(crate) fn detect(values: &[f64], ints: &mut Vec<i64>, misses: &mut Vec<u32>) -> Option<u8> {
    // Eight values spread over the column tell the exponent nearly always, and whether there is any.
    let mut exponent = 0;
    let mut failures = 0;
    for i in 0..values.len().min(8) {
        let value = values[i * values.len() / values.len().min(8)];
        match exponent_of(value, exponent) {
            Some(found) => exponent = found,
            None if is_special(value) => {}
            None => failures += 1,
        }
    }
    if failures > 2 {
        return None;
    }
    let allowed = values.len() / 4;
    loop {
        convert(values, exponent, ints, misses);
        let mut higher = exponent;
        let mut hopeless = 0;
        for &at in misses.iter() {
            let value = values[at as usize];
            match exponent_of(value, exponent) {
                Some(found) => higher = higher.max(found),
                None => hopeless += usize::from(!is_special(value)),
            }
            if higher > exponent || hopeless > allowed {
                break;
            }
        }
        if hopeless > allowed {
            return None;
        }
        if higher == exponent {
            break;
        }
        exponent = higher;
    }
    for &at in misses.iter() {
        let at = at as usize;
        ints[at] = if at > 0 { ints[at - 1] } else { 0 };
    }
    // Leading exceptions repeat the first integer that there is.
    let leading = misses.iter().enumerate().take_while(|(i, at)| *i == **at as usize).count();
    if let Some(&first) = ints.get(leading) {
        ints[..leading].fill(first);
    }
    Some(exponent)
}

#[allow(clippy::cast_possible_truncation, reason = "columns have at most 2^16 rows")]
fn convert(values: &[f64], exponent: u8, ints: &mut Vec<i64>, misses: &mut Vec<u32>) {
    let power = POWERS[usize::from(exponent)];
    ints.clear();
    misses.clear();
    ints.resize(values.len(), 0);
    let mut inexact = 0u64;
    if exponent == 0 {
        for (int, &value) in ints.iter_mut().zip(values) {
            let (integer, exact) = scaled(value, 1.0);
            *int = integer;
            inexact |= u64::from(!exact);
        }
    } else {
        for (int, &value) in ints.iter_mut().zip(values) {
            let (integer, exact) = scaled(value, power);
            *int = integer;
            inexact |= u64::from(!exact);
        }
    }
    if inexact != 0 {
        misses.extend((0..).zip(values).filter(|(_, v)| !scaled(**v, power).1).map(|(i, _): (u32, _)| i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], expected: Option<(u8, &[i64], &[u32])>) {
        let (mut ints, mut misses) = (Vec::new(), Vec::new());
        let found = detect(values, &mut ints, &mut misses);
        assert_eq!(found.map(|e| (e, &ints[..], &misses[..])), expected, "{values:?}");
    }

    #[test]
    fn decimals_are_found_and_specials_are_set_aside() {
        check(&[1.0, 2.0, 0.0], Some((0, &[1, 2, 0], &[])));
        check(&[0.1, 2.0, 0.25], Some((2, &[10, 200, 25], &[])));
        check(&[f64::NAN, -0.0, 7.0, f64::INFINITY, 8.5], Some((1, &[70, 70, 70, 70, 85], &[0, 1, 3])));
        check(&[1e-12, 1.0], Some((12, &[1, 1_000_000_000_000], &[])));
        check(&[std::f64::consts::PI, std::f64::consts::E, 0.1 + 0.2], None);
        check(&[1e300, 1e301, 5e-324], None);
        check(&[2_251_799_813_685_247.0], Some((0, &[2_251_799_813_685_247], &[])));
        check(&[f64::NAN, f64::NAN], Some((0, &[0, 0], &[0, 1])));
    }

    #[test]
    fn integers_below_the_limit_convert_back() {
        for integer in [0, 1, -1, 12_345, (1 << 51) - 1, -(1 << 51) + 1] {
            assert_eq!(unscaled(integer), integer as f64);
            assert_eq!(scaled(integer as f64, 1.0), (integer, true));
        }
    }
}
