//! Numbers as Go prints and parses them, which the HTTP API, PromQL and the exposition formats promise.
//!
//! Printing gives the shortest digits that parse back to the same bits, in Go's `'f'`, `'e'` and `'g'`
//! layouts. Parsing accepts what `strconv.ParseFloat` and `strconv.ParseInt(…, 0, 64)` accept: digit
//! separators, hexadecimal floats, `Inf`, `NaN`.
//!
//! Not here: which layout a format wants (`api`, `formats`, `promql` choose).

use std::fmt::Write;

/// Why a text is not a number; the texts are those of Go's `strconv.ErrSyntax` and `ErrRange`.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NumberError {
    /// Not a number at all.
    #[error("invalid syntax")]
    Syntax,
    /// Too large for a float; holds the infinity of its sign.
    #[error("value out of range")]
    Range(f64),
}

/// `value` with the shortest exact digits and no exponent (Go: `FormatFloat(v, 'f', -1, 64)`): `1`, `0.1`,
/// `+Inf`, `-Inf`, `NaN`, `-0`.
pub fn format_float(value: f64) -> String {
    let mut out = String::new();
    push_float(&mut out, value);
    out
}

/// Appends what [`format_float`] gives.
pub fn push_float(out: &mut String, value: f64) {
    if push_special(out, value) {
        return;
    }
    // Whole numbers that a float holds exactly are most of what is printed; integers print much faster.
    if value.abs() < 1e15 && value.trunc() == value && (value != 0.0 || value.is_sign_positive()) {
        push_integer(out, value as i64);
        return;
    }
    if value == 0.0 {
        out.push_str("-0");
        return;
    }
    let (digits, point) = shortest(out, value);
    let digits = digits.as_slice();
    let text = |part: &[u8]| std::str::from_utf8(part).unwrap_or_default().to_owned();
    match usize::try_from(point) {
        Err(_) | Ok(0) => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
            out.push_str(&text(digits));
        }
        Ok(point) if point >= digits.len() => {
            out.push_str(&text(digits));
            out.extend(std::iter::repeat_n('0', point - digits.len()));
        }
        Ok(point) => {
            out.push_str(&text(&digits[..point]));
            out.push('.');
            out.push_str(&text(&digits[point..]));
        }
    }
}

/// The shortest digits that read back as `value` (finite), the nearest to it among them, half to even as Go prints; and
/// where the decimal point stands among them. Appends the sign to `out`.
fn shortest(out: &mut String, value: f64) -> (Vec<u8>, i32) {
    if value.is_sign_negative() {
        out.push('-');
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let whole = mantissa.find('.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let leading = digits.iter().take_while(|digit| **digit == b'0').count().min(digits.len() - 1);
    digits.drain(..leading);
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    (digits, whole as i32 - leading as i32 + exponent)
}

/// Appends `value` as upstream's HTTP API prints sample values: as [`format_float`], but with an exponent
/// below 1e-6 and from 1e21 (Go's `'e'`: at least two digits in the exponent).
pub fn push_api_float(out: &mut String, value: f64) {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(1e-6..1e21).contains(&size) {
        push_exponent(out, value);
    } else {
        push_float(out, value);
    }
}

/// `value` in Go's `'g'` layout with the shortest exact digits (`FormatFloat(v, 'g', -1, 64)`, also `%v`): an
/// exponent below 1e-4 and from 1e6 on. This is what the exposition formats print.
pub fn format_float_g(value: f64) -> String {
    let mut out = String::new();
    push_float_g(&mut out, value);
    out
}

/// Appends what [`format_float_g`] gives.
pub fn push_float_g(out: &mut String, value: f64) {
    let size = value.abs();
    if size != 0.0 && size.is_finite() && !(1e-4..1e6).contains(&size) {
        push_exponent(out, value);
    } else {
        push_float(out, value);
    }
}

/// `value` with `decimals` digits after the point (Go: `%.3f`): exact decimal expansion, half to even.
pub fn format_fixed(value: f64, decimals: usize) -> String {
    let mut out = String::new();
    if !push_special(&mut out, value) {
        let _ = write!(out, "{value:.decimals$}");
    }
    out
}

fn push_special(out: &mut String, value: f64) -> bool {
    if value.is_finite() {
        return false;
    }
    out.push_str(match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "+Inf",
        _ => "-Inf",
    });
    true
}

/// Go's `'e'` layout of a finite number: `1.5e+21`, `1e-07`.
fn push_exponent(out: &mut String, value: f64) {
    let (digits, point) = shortest(out, value);
    for (at, digit) in digits.into_iter().enumerate() {
        if at == 1 {
            out.push('.');
        }
        out.push(char::from(digit));
    }
    let exponent = point - 1;
    out.push_str(if exponent < 0 { "e-" } else { "e+" });
    if exponent.unsigned_abs() < 10 {
        out.push('0');
    }
    push_integer(out, i64::from(exponent.unsigned_abs()));
}

fn push_integer(out: &mut String, value: i64) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push('-');
    }
    out.extend(buffer[at..].iter().map(|b| char::from(*b)));
}

/// The float that `text` stands for, as Go's `strconv.ParseFloat(text, 64)`: decimal and hexadecimal floats,
/// `_` between digits, and (in any case) `Inf`, `Infinity` with a sign or none, `NaN` without.
pub fn parse_float(text: &str) -> Result<f64, NumberError> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(value) if value.is_nan() => {
            if text.starts_with(['+', '-']) {
                Err(NumberError::Syntax)
            } else {
                Ok(f64::NAN)
            }
        }
        Ok(value) => {
            if text.bytes().any(|b| b.is_ascii_digit()) {
                Err(NumberError::Range(value))
            } else {
                Ok(value)
            }
        }
        Err(_) => parse_rare(text),
    }
}

/// As [`parse_float`], without what Prometheus's exposition formats forbid: hexadecimal floats and `_`.
pub fn parse_exposition_float(text: &str) -> Result<f64, NumberError> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => parse_float(text),
        Err(_) => Err(NumberError::Syntax),
    }
}

/// The whole number that `text` stands for, as Go's `strconv.ParseInt(text, 0, 64)`: `0x`, `0o`, `0b` and a
/// leading `0` (octal) choose the base, `_` may stand between digits. `None` also when out of range.
pub fn parse_int_auto(text: &str) -> Option<i64> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let bytes = unsigned.as_bytes();
    let (base, digits) = match bytes {
        [b'0', b'x' | b'X', ..] if bytes.len() > 2 => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] if bytes.len() > 2 => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] if bytes.len() > 2 => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    let mut size: u64 = 0;
    let mut seen = false;
    for c in digits.chars() {
        if c == '_' {
            continue;
        }
        let digit = c.to_digit(base)?;
        size = size.checked_mul(u64::from(base))?.checked_add(u64::from(digit))?;
        seen = true;
    }
    if !seen || (digits.len() < text.len() || text.contains('_')) && !separators_well_placed(unsigned) {
        return None;
    }
    if negative { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() }
}

/// What `parse::<f64>` does not know: separators and hexadecimal floats.
fn parse_rare(text: &str) -> Result<f64, NumberError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let stripped;
    let plain = if unsigned.contains('_') {
        if !separators_well_placed(unsigned) {
            return Err(NumberError::Syntax);
        }
        stripped = unsigned.replace('_', "");
        &stripped
    } else {
        unsigned
    };
    let size = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => parse_hex(&plain[2..])?,
        _ if plain.len() == unsigned.len() => return Err(NumberError::Syntax),
        [b'0'..=b'9' | b'.', ..] => match parse_float(plain) {
            Err(NumberError::Range(size)) => size,
            other => other?,
        },
        _ => return Err(NumberError::Syntax),
    };
    let value = if negative { -size } else { size };
    if size.is_infinite() { Err(NumberError::Range(value)) } else { Ok(value) }
}

/// Go's rule for `_`: only between digits, where a base prefix counts as a digit.
fn separators_well_placed(unsigned: &str) -> bool {
    let bytes = unsigned.as_bytes();
    let (mut at, mut hex, mut last) = (0, false, b'^');
    if let [b'0', letter @ (b'b' | b'B' | b'o' | b'O' | b'x' | b'X'), ..] = bytes {
        (at, last, hex) = (2, b'0', letter.eq_ignore_ascii_case(&b'x'));
    }
    for byte in &bytes[at..] {
        last = match byte {
            b'0'..=b'9' => b'0',
            b'a'..=b'f' | b'A'..=b'F' if hex => b'0',
            b'_' if last != b'0' => return false,
            b'_' => b'_',
            _ if last == b'_' => return false,
            _ => b'!',
        };
    }
    last != b'_'
}

/// A hexadecimal mantissa with its `p` exponent (which Go demands), rounded half to even.
fn parse_hex(text: &str) -> Result<f64, NumberError> {
    let (mantissa_text, exponent_text) = text.split_once(['p', 'P']).ok_or(NumberError::Syntax)?;
    let mut mantissa: u64 = 0;
    let mut exponent: i64 = 0;
    let (mut seen_digit, mut seen_point, mut lost) = (false, false, false);
    for byte in mantissa_text.bytes() {
        if byte == b'.' {
            if seen_point {
                return Err(NumberError::Syntax);
            }
            seen_point = true;
            continue;
        }
        let digit = char::from(byte).to_digit(16).ok_or(NumberError::Syntax)?;
        seen_digit = true;
        if mantissa >> 60 == 0 {
            mantissa = mantissa << 4 | u64::from(digit);
            exponent -= if seen_point { 4 } else { 0 };
        } else {
            lost |= digit != 0;
            exponent += if seen_point { 0 } else { 4 };
        }
    }
    let digits = exponent_text.strip_prefix(['+', '-']).unwrap_or(exponent_text);
    if !seen_digit || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NumberError::Syntax);
    }
    // Far outside the range of floats all exponents are alike.
    let size: i64 = digits.parse::<i64>().unwrap_or(i64::MAX).min(1 << 40);
    exponent += if exponent_text.starts_with('-') { -size } else { size };
    Ok(scale(mantissa, exponent, lost))
}

/// `mantissa × 2^exponent` rounded half to even; `lost` says that non-zero bits below were dropped.
fn scale(mantissa: u64, exponent: i64, lost: bool) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let shift = mantissa.leading_zeros();
    let normal = mantissa << shift;
    // The value is normal × 2^(exponent − shift), its leading bit worth 2^top.
    let top = exponent - i64::from(shift) + 63;
    if top > 1023 {
        return f64::INFINITY;
    }
    // How many of the 64 bits a float of this size keeps.
    let kept = if top >= -1022 { 53 } else { 53 + (top + 1022) };
    if kept < 0 {
        return 0.0;
    }
    let dropped = (64 - kept) as u32;
    let (high, low) = if dropped == 64 { (0, normal) } else { (normal >> dropped, normal << (64 - dropped)) };
    let half = 1u64 << 63;
    let up = low > half || low == half && (lost || high & 1 == 1);
    let rounded = high + u64::from(up);
    // Bits of a float: for normal ones the implicit bit adds one to the exponent field by itself.
    let bits = if top >= -1022 { (((top + 1022) as u64) << 52) + rounded } else { rounded };
    f64::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_as_go() {
        let check = |value: f64, f: &str, api: &str, g: &str| {
            let mut text = String::new();
            push_api_float(&mut text, value);
            assert_eq!(
                (format_float(value).as_str(), text.as_str(), format_float_g(value).as_str()),
                (f, api, g)
            );
        };
        check(1.0, "1", "1", "1");
        check(-12.0, "-12", "-12", "-12");
        check(0.1, "0.1", "0.1", "0.1");
        check(-0.0, "-0", "-0", "-0");
        check(f64::INFINITY, "+Inf", "+Inf", "+Inf");
        check(f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf");
        check(f64::NAN, "NaN", "NaN", "NaN");
        check(1e-7, "0.0000001", "1e-07", "1e-07");
        check(2.5e-5, "0.000025", "0.000025", "2.5e-05");
        check(1e20, "100000000000000000000", "100000000000000000000", "1e+20");
        check(2_829_424.0, "2829424", "2829424", "2.829424e+06");
        check(123_456.5, "123456.5", "123456.5", "123456.5");
        check(1.5e21, "1500000000000000000000", "1.5e+21", "1.5e+21");
        check(-1e-120, &format!("-0.{}1", "0".repeat(119)), "-1e-120", "-1e-120");
        assert_eq!(format_fixed(1603774568.0, 3), "1603774568.000");
        assert_eq!(format_fixed(f64::INFINITY, 6), "+Inf");
    }

    #[test]
    fn parses_as_go() {
        let check = |text: &str, expected: Result<f64, NumberError>| {
            assert_eq!(parse_float(text).map(f64::to_bits), expected.map(f64::to_bits), "{text}");
        };
        for (text, value) in [
            ("1", 1.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("+1e3", 1000.0),
            ("Inf", f64::INFINITY),
            ("-iNfinity", f64::NEG_INFINITY),
            ("NaN", f64::NAN),
            ("1_23.50_0_0e+1_2", 1.235e14),
            ("0x1p-2", 0.25),
            ("-0X_1FFFP-16", -0.1249847412109375),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x1p-1075", 0.0),
            ("0x.8p1", 1.0),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080001p0", 1.0 + f64::EPSILON),
        ] {
            check(text, Ok(value));
        }
        for text in [
            "",
            "+",
            "1__0",
            "_1",
            "1_",
            "1_.5",
            "0x1",
            "0xp1",
            "+nan",
            "-NaN",
            "1e",
            "e1",
            ".",
            "0x1.1.1p1",
            "1 ",
            "in",
            "_inf",
            "i_nf",
        ] {
            check(text, Err(NumberError::Syntax));
        }
        check("1e309", Err(NumberError::Range(f64::INFINITY)));
        check("-1_0e3_09", Err(NumberError::Range(f64::NEG_INFINITY)));
        check("0x1p1024", Err(NumberError::Range(f64::INFINITY)));
        assert_eq!(parse_exposition_float("1_0"), Err(NumberError::Syntax));
        assert_eq!(parse_exposition_float("0x1p1"), Err(NumberError::Syntax));
        assert_eq!(parse_exposition_float("+Inf"), Ok(f64::INFINITY));
    }

    #[test]
    fn whole_numbers_choose_their_base() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1_000_000", Some(-1_000_000)),
            ("0x_ff", Some(255)),
            ("0755", Some(493)),
            ("0_7", Some(7)),
            ("0o17", Some(15)),
            ("0b101", Some(5)),
            ("08", None),
            ("1__0", None),
            ("0x", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_int_auto(text), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn all_layouts_parse_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let mut api = String::new();
            push_api_float(&mut api, value);
            for text in [format_float(value), format_float_g(value), api] {
                prop_assert_eq!(parse_float(&text).unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn hex_floats_are_exact(bits in 1u64..(0x7ff << 52)) {
            let value = f64::from_bits(bits);
            let (fraction, field) = (bits & ((1 << 52) - 1), (bits >> 52) as i64);
            let (mantissa, exponent) = if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
            prop_assert_eq!(parse_float(&format!("0x{mantissa:x}p{exponent}")), Ok(value));
        }
    }
}
