//! Ranges whose ends are samples of their own: `anchored` (the last sample before the range stands at its start) and
//! `smoothed` (values at both ends are interpolated).

use std::sync::Arc;

use model::Histogram;
use model::histogram::ResetHint;
use promql::ast::{Extended, Span};

use super::rate::{add_noted, sub_noted};
use super::{HistogramAt, Site, Window, starts};
use crate::annotations::{Annotations, Operation};
use crate::column::Cell;
use crate::histogram::{Incompatible, add, compact, div, is_reset, mul, sub};

/// The value at `time` on the line between two samples; a counter that went down began anew at zero.
pub(crate) fn interpolate(before: (i64, f64), after: (i64, f64), time: i64, reset: bool) -> f64 {
    let start = if reset { 0.0 } else { before.1 };
    start + (after.1 - start) * (time - before.0) as f64 / (after.0 - before.0) as f64
}

/// As [`interpolate`] for histograms.
pub(crate) fn interpolate_histograms(
    before: &HistogramAt,
    after: &HistogramAt,
    time: i64,
    reset: bool,
    notes: &mut Annotations,
    span: Span,
) -> Result<Histogram, Incompatible> {
    if time == before.time {
        return Ok((*before.value).clone());
    }
    if time == after.time {
        return Ok((*after.value).clone());
    }
    let fraction = (time - before.time) as f64 / (after.time - before.time) as f64;
    let mut h = (*after.value).clone();
    if reset {
        mul(&mut h, fraction);
        return Ok(h);
    }
    if sub(&mut h, &before.value)?.reconciled {
        notes.mismatched_custom_buckets(Operation::Subtraction, span);
    }
    mul(&mut h, fraction);
    if add(&mut h, &before.value)?.reconciled {
        notes.mismatched_custom_buckets(Operation::Addition, span);
    }
    Ok(h)
}

/// First and last sample that count, by their times; nothing when no sample lies in the range.
fn bounds(times: impl Fn(usize) -> i64, len: usize, w: &Window<'_>) -> Option<(usize, usize)> {
    let mut last = len.checked_sub(1)?;
    let search = |limit: usize, test: &dyn Fn(i64) -> bool| {
        let (mut low, mut high) = (0, limit);
        while low < high {
            let middle = low.midpoint(high);
            if test(times(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    };
    let first = search(last, &|t| t > w.start).saturating_sub(1);
    let smoothed = w.extended == Extended::Smoothed;
    if smoothed {
        last = search(last, &|t| t >= w.end);
    }
    let empty = times(last) <= w.start || (smoothed && times(first) > w.end);
    (!empty).then_some((first, last))
}

/// Whether the float at `at` comes after a counter reset.
fn float_reset(w: &Window<'_>, at: usize, before: f64) -> bool {
    w.values[at] < before || start_reset(w.starts, |i| w.stamps[i], at)
}

fn start_reset(sts: &[i64], times: impl Fn(usize) -> i64, at: usize) -> bool {
    at > 0 && !sts.is_empty() && starts::is_reset(sts[at - 1], times(at - 1), sts[at], times(at))
}

/// `rate`, `increase`, `delta` of floats.
pub(super) fn rate(w: &Window<'_>, counter: bool, per_second: bool) -> Option<Cell> {
    let (first, last) = bounds(|at| w.stamps[at], w.stamps.len(), w)?;
    let smoothed = w.extended == Extended::Smoothed;
    let point = |at: usize| (w.stamps[at], w.values[at]);
    let reset = |at: usize| counter && float_reset(w, at, w.values[at - 1]);
    let left_between = smoothed && w.stamps[first] < w.start && first + 1 < w.stamps.len();
    let right_between = smoothed && last > 0 && w.stamps[last] > w.end;
    let left = if left_between {
        interpolate(point(first), point(first + 1), w.start, reset(first + 1))
    } else {
        w.values[first]
    };
    let right = if right_between {
        interpolate(point(last - 1), point(last), w.end, reset(last))
    } else {
        w.values[last]
    };
    let mut result = right - left;
    if counter {
        let from = if w.stamps[first] <= w.start { first + 1 } else { first };
        let until = if w.stamps[last] >= w.end { last } else { last + 1 };
        let mut previous = left;
        for at in from..until {
            // A reset before the first sample inside is part of the interpolated left end.
            let by_start = !(left_between && at == first + 1) && at > first && start_reset(w.starts, |i| w.stamps[i], at);
            if w.values[at] < previous || by_start {
                result += previous;
            }
            previous = w.values[at];
        }
        let by_start = until == last
            && last > first
            && !(left_between && last == first + 1)
            && start_reset(w.starts, |i| w.stamps[i], last);
        if right < previous || by_start {
            result += previous;
        }
    }
    Some(Cell::Float(if per_second { result / w.seconds() } else { result }))
}

/// `rate`, `increase`, `delta` of histograms.
pub(super) fn histogram_rate(w: &Window<'_>, counter: bool, per_second: bool, site: &mut Site<'_>) -> Option<Cell> {
    let points = w.histograms;
    let (first, last) = bounds(|at| points[at].time, points.len(), w)?;
    let smoothed = w.extended == Extended::Smoothed;
    let custom = points[first].value.has_custom_buckets();
    for point in &points[first..=last] {
        if point.value.has_custom_buckets() != custom {
            site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
            return None;
        }
        if counter && point.value.reset_hint == ResetHint::Gauge {
            site.notes.histogram_not_counter(site.labels.metric_name(), site.span);
        }
    }
    let by_start = |at: usize| start_reset(w.histogram_starts, |i| points[i].time, at);
    let reset = |at: usize| counter && (by_start(at) || is_reset(&points[at].value, &points[at - 1].value));
    let left_between = smoothed && points[first].time < w.start && first + 1 < points.len();
    let right_between = smoothed && last > 0 && points[last].time > w.end;
    let mut between = |at: usize, time: i64, reset: bool| {
        let made = interpolate_histograms(&points[at], &points[at + 1], time, reset, site.notes, site.span);
        if made.is_err() {
            site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
        }
        made.ok()
    };
    let left =
        if left_between { between(first, w.start, reset(first + 1))? } else { (*points[first].value).clone() };
    let right =
        if right_between { between(last - 1, w.end, reset(last))? } else { (*points[last].value).clone() };
    if !counter && [&left, &right].iter().any(|h| h.reset_hint != ResetHint::Gauge) {
        site.notes.histogram_not_gauge(site.labels.metric_name(), site.span);
    }
    let mut result = right.clone();
    if !sub_noted(&mut result, &left, site) {
        return None;
    }
    if counter {
        let mut correction: Option<Histogram> = None;
        let mut from = first + 1;
        let mut previous = &left;
        if left_between && reset(first + 1) {
            // That reset is part of the interpolated left end already.
            previous = &points[first + 1].value;
            from += 1;
        }
        // With `from` past the last sample both ends lie between the same two samples.
        if from <= last {
            for at in from..last {
                let current = &points[at].value;
                if (by_start(at) || is_reset(current, previous)) && !add_to(&mut correction, previous, site) {
                    return None;
                }
                previous = current;
            }
            if (by_start(last) || is_reset(&right, previous)) && !add_to(&mut correction, previous, site) {
                return None;
            }
        }
        if correction.is_some_and(|c| !add_noted(&mut result, &c, site)) {
            return None;
        }
    }
    if per_second {
        div(&mut result, w.seconds());
    }
    result.reset_hint = ResetHint::Gauge;
    compact(&mut result);
    Some(Cell::Histogram(Arc::new(result)))
}

fn add_to(sum: &mut Option<Histogram>, h: &Histogram, site: &mut Site<'_>) -> bool {
    match sum {
        None => {
            *sum = Some(h.clone());
            true
        }
        Some(sum) => add_noted(sum, h, site),
    }
}
