//! Ranges whose ends are samples of their own: `anchored` (the last sample before the range stands at its start) and
//! `smoothed` (values at both ends are interpolated).
//!
//! Where a start timestamp shows that a counter began anew, a sample of zero is put at that time; all else follows.

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

/// First and last sample that count; nothing when no sample lies in the range.
fn bounds<T>(points: &[T], time: impl Fn(&T) -> i64, w: &Window<'_>) -> Option<(usize, usize)> {
    let mut last = points.len().checked_sub(1)?;
    let first = points[..last].partition_point(|p| time(p) <= w.start).saturating_sub(1);
    let smoothed = w.extended == Extended::Smoothed;
    if smoothed {
        last = points[..last].partition_point(|p| time(p) < w.end);
    }
    let empty = time(&points[last]) <= w.start || (smoothed && time(&points[first]) > w.end);
    (!empty).then_some((first, last))
}

/// Puts what `zero` makes of a time and the sample after it wherever a start timestamp says that the counter began
/// there: for the first sample, inside the time that the window looks at.
fn with_zeros<T: Clone>(
    points: &[T],
    time: impl Fn(&T) -> i64,
    sts: &[i64],
    after: i64,
    zero: impl Fn(i64, &T) -> T,
) -> Vec<T> {
    let mut all = Vec::with_capacity(points.len() + 4);
    for (at, point) in points.iter().enumerate() {
        let start = sts[at];
        let began = match at.checked_sub(1) {
            Some(before) => starts::is_reset(sts[before], time(&points[before]), start, time(point)),
            None => start != 0 && start < time(point) && start > after,
        };
        if began {
            all.push(zero(start, point));
        }
        all.push(point.clone());
    }
    all
}

/// `rate`, `increase`, `delta` of floats.
pub(super) fn rate(w: &Window<'_>, counter: bool, per_second: bool) -> Option<Cell> {
    let mut points: Vec<(i64, f64)> = w.stamps.iter().copied().zip(w.values.iter().copied()).collect();
    if counter && !w.starts.is_empty() {
        points = with_zeros(&points, |p| p.0, w.starts, w.looks_after, |start, _| (start, 0.0));
    }
    let (first, last) = bounds(&points, |p| p.0, w)?;
    let smoothed = w.extended == Extended::Smoothed;
    let between = |at: usize, time: i64| {
        let reset = counter && points[at + 1].1 < points[at].1;
        interpolate(points[at], points[at + 1], time, reset)
    };
    let left = if smoothed && points[first].0 < w.start && first + 1 < points.len() {
        between(first, w.start)
    } else {
        points[first].1
    };
    let right = if smoothed && last > 0 && points[last].0 > w.end {
        between(last - 1, w.end)
    } else {
        points[last].1
    };
    let mut result = right - left;
    if counter {
        let from = if points[first].0 <= w.start { first + 1 } else { first };
        let until = if points[last].0 >= w.end { last } else { last + 1 };
        let mut previous = left;
        for value in points.get(from..until).unwrap_or(&[]).iter().map(|p| p.1).chain([right]) {
            if value < previous {
                result += previous;
            }
            previous = value;
        }
    }
    Some(Cell::Float(if per_second { result / w.seconds() } else { result }))
}

/// `rate`, `increase`, `delta` of histograms.
pub(super) fn histogram_rate(
    w: &Window<'_>,
    counter: bool,
    per_second: bool,
    site: &mut Site<'_>,
) -> Option<Cell> {
    let added;
    let mut points = w.histograms;
    if counter && !w.histogram_starts.is_empty() {
        let zero = |time: i64, next: &HistogramAt| HistogramAt {
            time,
            value: Arc::new(Histogram {
                schema: next.value.schema,
                custom_values: next.value.custom_values.clone(),
                zero_threshold: next.value.zero_threshold,
                ..Histogram::default()
            }),
        };
        added = with_zeros(points, |p| p.time, w.histogram_starts, w.looks_after, zero);
        points = &added;
    }
    let (first, last) = bounds(points, |p| p.time, w)?;
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
    let reset = |at: usize| counter && is_reset(&points[at].value, &points[at - 1].value);
    let left_between = smoothed && points[first].time < w.start && first + 1 < points.len();
    let right_between = smoothed && last > 0 && points[last].time > w.end;
    let mut between = |at: usize, time: i64, reset: bool| {
        let made = interpolate_histograms(&points[at], &points[at + 1], time, reset, site.notes, site.span);
        if made.is_err() {
            site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
        }
        made.ok()
    };
    let left = if left_between {
        between(first, w.start, reset(first + 1))?
    } else {
        (*points[first].value).clone()
    };
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
            let inside = points[from..last].iter().map(|p| &*p.value);
            for current in inside.chain([&right]) {
                if is_reset(current, previous) && !add_to(&mut correction, previous, site) {
                    return None;
                }
                previous = current;
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
