//! Slopes and areas: `deriv`, `predict_linear`, `double_exponential_smoothing`, `integral`.

use super::{Site, Window};
use crate::column::Cell;
use crate::kahan::inc;

/// Whether there are enough floats; says so when histograms were ignored.
fn enough(w: &Window<'_>, site: &mut Site<'_>) -> bool {
    if !w.values.is_empty() && !w.histograms.is_empty() {
        site.note_ignored();
    }
    w.values.len() >= 2
}

/// Slope and value at `origin` of the least-squares line.
fn regression(w: &Window<'_>, origin: i64) -> (f64, f64) {
    let first = w.values[0];
    let mut constant = true;
    let (mut x, mut y, mut xy, mut xx) = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0));
    for (time, value) in w.stamps.iter().zip(w.values) {
        constant &= *value == first;
        let at = (time - origin) as f64 / 1e3;
        x = inc(at, x.0, x.1);
        y = inc(*value, y.0, y.1);
        xy = inc(at * value, xy.0, xy.1);
        xx = inc(at * at, xx.0, xx.1);
    }
    // A single NaN differs from itself, but upstream compares from the second value on.
    if constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = w.values.len() as f64;
    let (x, y, xy, xx) = (x.0 + x.1, y.0 + y.1, xy.0 + xy.1, xx.0 + xx.1);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

pub(super) fn deriv(w: &Window<'_>, site: &mut Site<'_>) -> Option<Cell> {
    enough(w, site).then(|| Cell::Float(regression(w, w.stamps[0]).0))
}

pub(super) fn predict_linear(w: &Window<'_>, seconds: f64, site: &mut Site<'_>) -> Option<Cell> {
    if !enough(w, site) {
        return None;
    }
    let (slope, intercept) = regression(w, w.step);
    Some(Cell::Float(slope * seconds + intercept))
}

/// Factors are checked by the caller.
pub(super) fn smoothing(w: &Window<'_>, smoothing: f64, trend: f64, site: &mut Site<'_>) -> Option<Cell> {
    if !enough(w, site) {
        return None;
    }
    let (mut before, mut now) = (0.0, w.values[0]);
    let mut slope = w.values[1] - w.values[0];
    for (at, value) in w.values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (now - before) + (1.0 - trend) * slope;
        }
        (before, now) = (now, smoothing * value + (1.0 - smoothing) * (now + slope));
    }
    Some(Cell::Float(now))
}

/// The area under the samples: each interval weighed with its left value (method 0), right value (1), or their mean
/// (2, also when no method or another is given). NaN counts as zero.
pub(super) fn integral(w: &Window<'_>, method: Option<f64>, site: &mut Site<'_>) -> Option<Cell> {
    if w.values.is_empty() {
        return None;
    }
    if !w.histograms.is_empty() {
        site.note_ignored();
    }
    let method = method.unwrap_or(2.0);
    if method != 0.0 && method != 1.0 && method != 2.0 {
        site.notes.invalid_integral_method(method, site.span);
    }
    let number = |v: f64| if v.is_nan() { 0.0 } else { v };
    let (mut sum, mut c) = (0.0, 0.0);
    for at in 1..w.values.len() {
        let (left, right) = (number(w.values[at - 1]), number(w.values[at]));
        let seconds = (w.stamps[at] - w.stamps[at - 1]) as f64 / 1000.0;
        if method == 0.0 {
            (sum, c) = inc(left * seconds, sum, c);
        } else if method == 1.0 {
            (sum, c) = inc(right * seconds, sum, c);
        } else {
            // Halves added apart lose nothing when one is much larger, and do not overflow.
            (sum, c) = inc(left / 2.0 * seconds, sum, c);
            (sum, c) = inc(right / 2.0 * seconds, sum, c);
        }
    }
    Some(Cell::Float(if sum.is_infinite() { sum } else { sum + c }))
}
