//! The arithmetic on native histograms that callers outside an evaluation need (scripts that describe series, tests).

use model::Histogram;

use crate::EvalError;
use crate::histogram;

/// `a + b`, or `a − b` with `subtract`, compacted; layouts are reconciled as PromQL's operators do. Fails when one has
/// exponential and the other custom buckets.
pub fn combine(a: &Histogram, b: &Histogram, subtract: bool) -> Result<Histogram, EvalError> {
    let mut sum = a.clone();
    let outcome = if subtract { histogram::sub(&mut sum, b) } else { histogram::add(&mut sum, b) };
    match outcome {
        Ok(_) => Ok(compacted(&sum)),
        Err(_) => Err(EvalError::Execution(
            "cannot apply this operation on histograms with a mix of exponential and custom bucket schemas"
                .into(),
        )),
    }
}

/// Whether a counter reset lies between `previous` and `h`, by their counts and layouts alone (the hint of `h` is not
/// looked at).
pub fn is_reset(h: &Histogram, previous: &Histogram) -> bool {
    let mut h = h.clone();
    h.reset_hint = model::histogram::ResetHint::Unknown;
    histogram::is_reset(&h, previous)
}

/// `h` without empty buckets, neighbouring spans joined.
pub fn compacted(h: &Histogram) -> Histogram {
    let mut h = h.clone();
    histogram::compact(&mut h);
    h
}
