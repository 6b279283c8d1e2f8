//! Floats in exposition formats: Go's `strconv` forms of before Go 1.13 when reading (no underscores, no
//! hexadecimal), Go's shortest `%g` when writing. A fast path reads plain decimals exactly.

/// The NaN that every NaN of an exposition becomes, so that none looks like the staleness marker.
pub const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

const POWERS: [f64; 17] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16];

/// The float that `text` means, or `None`. NaNs are [`NORMAL_NAN`]; numbers too large for a float are refused, as Go
/// refuses them.
pub fn parse_float(text: &[u8]) -> Option<f64> {
    plain_decimal(text).or_else(|| any_float(text))
}

/// Sign, up to 16 digits and a dot: one division of two exact floats, so rounded once.
fn plain_decimal(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut dot = None;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if dot.is_none() => dot = Some(at),
            _ => return None,
        }
    }
    let decimals = dot.map_or(0, |at| digits.len() - 1 - at);
    if mantissa > 1 << 53 || (dot.is_some() && digits.len() == 1) {
        return None;
    }
    let value = mantissa as f64 / POWERS[decimals];
    Some(if negative { -value } else { value })
}

fn any_float(text: &[u8]) -> Option<f64> {
    if text.iter().any(|b| matches!(b, b'p' | b'P' | b'_')) {
        return None;
    }
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let (signed, first) = match text {
        [b'+' | b'-', first, ..] => (true, *first),
        [first, ..] => (false, *first),
        [] => return None,
    };
    if value.is_nan() {
        return (!signed).then_some(NORMAL_NAN);
    }
    // "1e999" is out of range, "inf" is not.
    if value.is_infinite() && !matches!(first, b'i' | b'I') {
        return None;
    }
    Some(value)
}

/// `value` as Go's `strconv.FormatFloat(value, 'g', -1, 64)` writes it, which is how expositions write floats.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go decides by precision 6 when it prints the shortest digits.
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

/// `value` as OpenMetrics writes bucket boundaries and quantiles: [`format_float`], and `.0` after whole numbers.
pub(crate) fn format_boundary(value: f64) -> String {
    let mut text = format_float(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        text.push_str(".0");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let check = |text: &str, expected: Option<f64>| {
            let got = parse_float(text.as_bytes());
            assert_eq!(got.map(f64::to_bits), expected.map(f64::to_bits), "{text}: {got:?}");
        };
        check("1", Some(1.0));
        check("-0", Some(-0.0));
        check("+3.5", Some(3.5));
        check("1.", Some(1.0));
        check(".5", Some(0.5));
        check("0.1", Some(0.1));
        check("9007199254740993", Some(9007199254740992.0));
        check("1234567890123.4567", Some(1234567890123.4567));
        check("4.9351e-05", Some(4.9351e-05));
        check("1E6", Some(1e6));
        check("5e-324", Some(5e-324));
        check("1e-400", Some(0.0));
        check("Inf", Some(f64::INFINITY));
        check("-inf", Some(f64::NEG_INFINITY));
        check("+Infinity", Some(f64::INFINITY));
        check("nan", Some(NORMAL_NAN));
        for bad in [
            "", "-", "+", ".", "-.", "1e", "e5", "1e999", "-1e999", "+nan", "-NaN", "1_2", "0x1p-3", "0x10",
            "1 ", "true", "１",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn writes_what_go_writes() {
        let check = |value: f64, text: &str| assert_eq!(format_float(value), text);
        check(0.0, "0");
        check(-0.0, "-0");
        check(1.0, "1");
        check(123456.0, "123456");
        check(1234567.0, "1.234567e+06");
        check(1e6, "1e+06");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(-2.5e-7, "-2.5e-07");
        check(1e300, "1e+300");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(f64::NAN, "NaN");
        assert_eq!(format_boundary(1.0), "1.0");
        assert_eq!(format_boundary(0.25), "0.25");
        assert_eq!(format_boundary(1e7), "1e+07");
        assert_eq!(format_boundary(f64::INFINITY), "+Inf");
    }

    proptest! {
        #[test]
        fn floats_come_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(parse_float(format_float(value).as_bytes()).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn the_fast_path_agrees_with_the_slow_one(text in "-?[0-9]{0,9}\\.?[0-9]{0,9}") {
            if let Some(fast) = plain_decimal(text.as_bytes()) {
                prop_assert_eq!(fast.to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }
    }
}
