//! `rate`, `increase`, `delta` (extrapolated to the ends of the range), `irate`, `idelta` (the last two samples).

use std::sync::Arc;

use model::Histogram;
use model::histogram::ResetHint;
use promql::ast::Extended;

use super::{FloatFrame, HistogramAt, Site, Window, extended, starts};
use crate::annotations::Operation;
use crate::column::{ABSENT, Cell};
use crate::histogram::{add, compact, copy_to_schema, div, is_reset, mul, sub};

/// The difference between the ends of the range, with counter resets undone (`counter`), per second (`per_second`).
#[inline]
pub(super) fn extrapolated(
    w: &Window<'_>,
    counter: bool,
    per_second: bool,
    site: &mut Site<'_>,
) -> Option<Cell> {
    if w.is_mixed() {
        site.note_mixed();
        return None;
    }
    if w.extended != Extended::None {
        return if w.histograms.is_empty() {
            extended::rate(w, counter, per_second)
        } else {
            extended::histogram_rate(w, counter, per_second, site)
        };
    }
    if w.histograms.is_empty() {
        let first = *w.stamps.first()?;
        let last = *w.stamps.last()?;
        let intervals = w.stamps.len() - 1;
        let difference = w.values[intervals] - w.values[0];
        let difference = if counter { undo_resets(w, difference, site) } else { difference };
        let start = if counter { w.starts.first().copied().unwrap_or(0) } else { 0 };
        let (factor, from_zero) = factor(w, first, last, intervals, start, counter, w.values[0], difference)?;
        let difference = if from_zero { difference + w.values[0] } else { difference };
        let factor = if per_second { factor / w.seconds() } else { factor };
        return Some(Cell::Float(difference * factor));
    }
    extrapolated_histogram(w, counter, per_second, site)
}

/// As [`extrapolated`] for a window of plain floats; the absence marker when there are too few.
#[inline(always)]
pub(crate) fn of_floats(f: &FloatFrame<'_>, counter: bool, per_second: bool, never_drops: bool) -> f64 {
    let (stamps, values) = (f.stamps, f.values);
    let intervals = stamps.len() - 1;
    if intervals == 0 {
        return ABSENT;
    }
    let (first, last) = (stamps[0], stamps[intervals]);
    let mut difference = values[intervals] - values[0];
    if counter && !never_drops {
        for pair in values.windows(2) {
            if pair[1] < pair[0] {
                difference += pair[0];
            }
        }
    }
    let sampled = (last - first) as f64 / 1000.0;
    let average = sampled / intervals as f64;
    let threshold = average * 1.1;
    let mut to_start = (first - f.start) as f64 / 1000.0;
    let mut to_end = (f.end - last) as f64 / 1000.0;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    // Where the counter was zero can only matter when that is nearer than the start of the range.
    if counter && difference > 0.0 && values[0] >= 0.0 && sampled * values[0] <= to_start * difference * 1.001
    {
        let to_zero = sampled * (values[0] / difference);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    difference * if per_second { factor / f.seconds } else { factor }
}

/// Adds the value before each reset to `difference`.
#[inline]
fn undo_resets(w: &Window<'_>, mut difference: f64, site: &mut Site<'_>) -> f64 {
    if w.starts.is_empty() {
        if !w.never_drops {
            for pair in w.values.windows(2) {
                if pair[1] < pair[0] {
                    difference += pair[0];
                }
            }
        }
        return difference;
    }
    let mut overlap = false;
    for at in 1..w.values.len() {
        let (before, now) = (w.values[at - 1], w.values[at]);
        let (before_start, start) = (w.starts[at - 1], w.starts[at]);
        if !overlap && starts::overlaps(before_start, w.stamps[at - 1], start) {
            site.notes.start_time_overlap(site.labels.metric_name(), site.span);
            overlap = true;
        }
        if now < before || starts::is_reset(before_start, w.stamps[at - 1], start, w.stamps[at]) {
            difference += before;
        }
    }
    difference
}

/// How much larger the range is than what the samples cover, as far as it may be extrapolated; and whether the
/// counter began at zero inside the range (by its start timestamp). Nothing when there are too few samples.
#[inline]
#[allow(
    clippy::too_many_arguments,
    reason = "shared by floats and histograms, which differ in what is first"
)]
fn factor(
    w: &Window<'_>,
    first: i64,
    last: i64,
    intervals: usize,
    start: i64,
    counter: bool,
    first_value: f64,
    difference: f64,
) -> Option<(f64, bool)> {
    let mut to_start = (first - w.start) as f64 / 1000.0;
    let mut to_end = (w.end - last) as f64 / 1000.0;
    let mut sampled = (last - first) as f64 / 1000.0;
    let average = if intervals > 0 { sampled / intervals as f64 } else { 0.0 };
    let threshold = average * 1.1;
    let from_zero = counter && start != 0 && start > w.start && start < first;
    if from_zero {
        to_start = 0.0;
        sampled = (last - start) as f64 / 1000.0;
    } else if intervals == 0 {
        return None;
    } else {
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if counter && difference > 0.0 && first_value >= 0.0 {
            let to_zero = sampled * (first_value / difference);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    Some((factor, from_zero))
}

fn extrapolated_histogram(
    w: &Window<'_>,
    counter: bool,
    per_second: bool,
    site: &mut Site<'_>,
) -> Option<Cell> {
    let first = w.histograms.first()?;
    let last = w.histograms.last()?;
    let intervals = w.histograms.len() - 1;
    let mut result = if intervals > 0 { Some(histogram_difference(w, counter, site)?) } else { None };
    let start = if counter { w.histogram_starts.first().copied().unwrap_or(0) } else { 0 };
    let gained = result.as_ref().map_or(0.0, |h| h.count);
    let (factor, from_zero) =
        factor(w, first.time, last.time, intervals, start, counter, first.value.count, gained)?;
    let mut h = match result.take() {
        None => (*first.value).clone(),
        Some(mut h) => {
            if from_zero && !add_noted(&mut h, &first.value, site) {
                return None;
            }
            h
        }
    };
    mul(&mut h, if per_second { factor / w.seconds() } else { factor });
    Some(Cell::Histogram(Arc::new(h)))
}

/// The last histogram less the first, with resets undone. Nothing (and a warning) when their kinds do not fit.
fn histogram_difference(w: &Window<'_>, counter: bool, site: &mut Site<'_>) -> Option<Histogram> {
    let points = w.histograms;
    let (mut previous, last) = (&points[0].value, &points[points.len() - 1].value);
    let sts = w.histogram_starts;
    let reset_at = |at: usize| {
        !sts.is_empty() && starts::is_reset(sts[at - 1], points[at - 1].time, sts[at], points[at].time)
    };
    let is_gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    let mut not_counter = counter && (is_gauge(previous) || is_gauge(last));
    // A reset right after the first sample makes its layout irrelevant.
    let nothing;
    if counter && (reset_at(1) || is_reset(&points[1].value, previous)) {
        let second = &points[1].value;
        nothing = Arc::new(Histogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            ..Histogram::default()
        });
        previous = &nothing;
    }
    let custom = previous.has_custom_buckets();
    let mut smallest = last.schema.min(previous.schema);
    let mut fits = last.has_custom_buckets() == custom;
    if counter && fits {
        for HistogramAt { value, .. } in &points[1..points.len() - 1] {
            not_counter |= is_gauge(value);
            smallest = smallest.min(value.schema);
            fits &= value.has_custom_buckets() == custom;
        }
        // Of what does not fit in between, upstream says nothing else.
        not_counter &= fits;
    }
    if not_counter {
        site.notes.histogram_not_counter(site.labels.metric_name(), site.span);
    }
    if !fits {
        site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
        return None;
    }
    let mut h = copy_to_schema(last, smallest);
    if !sub_noted(&mut h, previous, site) {
        return None;
    }
    if counter {
        let mut overlap = false;
        for at in 1..points.len() {
            let current = &points[at].value;
            if !overlap && !sts.is_empty() && starts::overlaps(sts[at - 1], points[at - 1].time, sts[at]) {
                site.notes.start_time_overlap(site.labels.metric_name(), site.span);
                overlap = true;
            }
            if (reset_at(at) || is_reset(current, previous)) && !add_noted(&mut h, previous, site) {
                return None;
            }
            previous = current;
        }
    } else if !is_gauge(&points[0].value) || !is_gauge(last) {
        site.notes.histogram_not_gauge(site.labels.metric_name(), site.span);
    }
    h.reset_hint = ResetHint::Gauge;
    compact(&mut h);
    Some(h)
}

/// Adds `other` to `h`; false, with a warning, when their kinds do not fit.
pub(super) fn add_noted(h: &mut Histogram, other: &Histogram, site: &mut Site<'_>) -> bool {
    let outcome = add(h, other);
    noted(outcome, Operation::Addition, site)
}

/// Subtracts `other` from `h`; as [`add_noted`].
pub(super) fn sub_noted(h: &mut Histogram, other: &Histogram, site: &mut Site<'_>) -> bool {
    let outcome = sub(h, other);
    noted(outcome, Operation::Subtraction, site)
}

fn noted(
    outcome: Result<crate::histogram::Outcome, crate::histogram::Incompatible>,
    operation: Operation,
    site: &mut Site<'_>,
) -> bool {
    match outcome {
        Ok(outcome) => {
            if outcome.reconciled {
                site.notes.mismatched_custom_buckets(operation, site.span);
            }
            true
        }
        Err(_) => {
            site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
            false
        }
    }
}

/// One of the last two samples.
#[derive(Clone)]
struct Recent<'a> {
    time: i64,
    start: i64,
    value: f64,
    histogram: Option<&'a Arc<Histogram>>,
}

/// The difference of the last two samples; per second and with a reset undone when `rate`.
pub(super) fn of_last_two(w: &Window<'_>, rate: bool, site: &mut Site<'_>) -> Option<Cell> {
    if w.values.len() + w.histograms.len() < 2 {
        return None;
    }
    let mut recent: Vec<Recent<'_>> = Vec::with_capacity(4);
    for at in w.values.len().saturating_sub(2)..w.values.len() {
        let start = w.starts.get(at).copied().unwrap_or(0);
        recent.push(Recent { time: w.stamps[at], start, value: w.values[at], histogram: None });
    }
    for at in w.histograms.len().saturating_sub(2)..w.histograms.len() {
        let start = w.histogram_starts.get(at).copied().unwrap_or(0);
        let point = &w.histograms[at];
        recent.push(Recent { time: point.time, start, value: 0.0, histogram: Some(&point.value) });
    }
    recent.sort_by_key(|r| r.time);
    let (before, now) = (&recent[recent.len() - 2], &recent[recent.len() - 1]);
    let interval = now.time - before.time;
    if interval == 0 {
        return None;
    }
    let seconds = interval as f64 / 1000.0;
    let started_anew = starts::is_reset(before.start, before.time, now.start, now.time);
    match (before.histogram, now.histogram) {
        (None, None) => {
            let reset = rate && (now.value < before.value || started_anew);
            let difference = if reset { now.value } else { now.value - before.value };
            Some(Cell::Float(if rate { difference / seconds } else { difference }))
        }
        (Some(earlier), Some(later)) => {
            let gauges = [earlier, later].map(|h| h.reset_hint == ResetHint::Gauge);
            site.span = site.all_args;
            if rate && gauges.contains(&true) {
                site.notes.histogram_not_counter(site.labels.metric_name(), site.span);
            }
            if !rate && gauges.contains(&false) {
                site.notes.histogram_not_gauge(site.labels.metric_name(), site.span);
            }
            let mut h = (**later).clone();
            let keep = rate && (started_anew || is_reset(later, earlier));
            if !keep && !sub_noted(&mut h, earlier, site) {
                return None;
            }
            h.reset_hint = ResetHint::Gauge;
            compact(&mut h);
            if rate {
                div(&mut h, seconds);
            }
            Some(Cell::Histogram(Arc::new(h)))
        }
        _ => {
            site.span = site.all_args;
            site.note_mixed();
            None
        }
    }
}
