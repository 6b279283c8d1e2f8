//! Arithmetic where Go's rules for NaN, infinities and signed zeros differ from Rust's.

/// `x^y`, where `1^NaN` and `(−1)^±Inf` are 1 as in C and Go.
pub(crate) fn pow(x: f64, y: f64) -> f64 {
    x.powf(y)
}

/// The larger; NaN when one is NaN, unless the other is +Inf.
pub(crate) fn max(x: f64, y: f64) -> f64 {
    if x == f64::INFINITY || y == f64::INFINITY {
        return f64::INFINITY;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    if x == 0.0 && y == 0.0 {
        return if x.is_sign_negative() { y } else { x };
    }
    if x > y { x } else { y }
}

/// The smaller; NaN when one is NaN, unless the other is −Inf.
pub(crate) fn min(x: f64, y: f64) -> f64 {
    if x == f64::NEG_INFINITY || y == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    if x == 0.0 && y == 0.0 {
        return if x.is_sign_negative() { x } else { y };
    }
    if x < y { x } else { y }
}

/// −1, 0 or 1 with the sign of `x`; zeros and NaN stay as they are.
pub(crate) fn sign(x: f64) -> f64 {
    if x < 0.0 {
        -1.0
    } else if x > 0.0 {
        1.0
    } else {
        x
    }
}

/// Go's `int64(value)` on amd64: cut towards zero; the smallest integer for NaN and for what does not fit.
pub(crate) fn go_int64(value: f64) -> i64 {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    if fits { value as i64 } else { i64::MIN }
}
