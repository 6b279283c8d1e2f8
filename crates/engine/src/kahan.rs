//! Compensated summation along time, in upstream's order and with upstream's rule for infinities.
//!
//! Not here: sums across series, which do not depend on order (`sum.rs`).

use crate::sum::two_sum;

/// Adds `inc` to the sum `(sum, c)`: Neumaier's variant of Kahan's summation. The lost part is found without asking
/// which of the two is larger; being exact, it is the same.
#[inline(always)]
pub(crate) fn inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let (t, lost) = two_sum(sum, inc);
    (t, if t.is_infinite() { 0.0 } else { c + lost })
}

/// The sum of `values`, as `sum_over_time` gives it.
#[inline]
pub(crate) fn sum(values: &[f64]) -> f64 {
    let (mut total, mut c) = (0.0, 0.0);
    for value in values {
        (total, c) = inc(*value, total, c);
    }
    if total.is_infinite() { total } else { total + c }
}

/// The mean of `values`, which must not be empty, as `avg_over_time` gives it: the direct mean as long as the sum
/// does not overflow, the incremental one from there on.
#[inline]
pub(crate) fn mean(values: &[f64]) -> f64 {
    let (mut sum, mut c) = (values[0], 0.0);
    for (at, value) in values.iter().enumerate().skip(1) {
        let (next, next_c) = inc(*value, sum, c);
        if next.is_infinite() {
            return incremental_mean(values, at, sum / at as f64, c / at as f64);
        }
        (sum, c) = (next, next_c);
    }
    let count = values.len() as f64;
    sum / count + c / count
}

#[cold]
fn incremental_mean(values: &[f64], from: usize, mut mean: f64, mut c: f64) -> f64 {
    for (at, value) in values.iter().enumerate().skip(from) {
        let count = (at + 1) as f64;
        let q = (count - 1.0) / count;
        (mean, c) = inc(value / count, q * mean, q * c);
    }
    mean + c
}
