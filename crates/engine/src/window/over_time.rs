//! The `…_over_time` family.

use std::sync::Arc;

use model::Histogram;
use model::histogram::ResetHint;

use super::{HistogramAt, Site, Window};
use crate::annotations::Operation;
use crate::column::Cell;
use crate::histogram::{HistogramMean, HistogramSum, Incompatible, Outcome};
use crate::{kahan, quantile as quantiles};

#[inline]
pub(super) fn sum(w: &Window<'_>, site: &mut Site<'_>) -> Option<Cell> {
    if w.histograms.is_empty() {
        return Some(Cell::Float(kahan::sum(w.values)));
    }
    let first = histograms_only(w, site)?;
    let mut total = HistogramSum::new(first);
    fold(w.histograms, site, |h| total.add(h))?;
    Some(Cell::Histogram(Arc::new(total.finish())))
}

#[inline]
pub(super) fn avg(w: &Window<'_>, site: &mut Site<'_>) -> Option<Cell> {
    if w.histograms.is_empty() {
        return (!w.values.is_empty()).then(|| Cell::Float(kahan::mean(w.values)));
    }
    let first = histograms_only(w, site)?;
    let mut mean = HistogramMean::new(first);
    fold(w.histograms, site, |h| mean.add(h))?;
    Some(Cell::Histogram(Arc::new(mean.finish())))
}

/// The first histogram, unless there are floats too.
fn histograms_only<'a>(w: &Window<'a>, site: &mut Site<'_>) -> Option<&'a Histogram> {
    if !w.values.is_empty() {
        site.note_mixed();
        return None;
    }
    w.histograms.first().map(|h| &*h.value)
}

/// Takes all histograms but the first into a sum or mean; nothing (and a warning) when kinds are mixed.
fn fold(
    points: &[HistogramAt],
    site: &mut Site<'_>,
    mut take: impl FnMut(&Histogram) -> Result<Outcome, Incompatible>,
) -> Option<()> {
    let mut reconciled = false;
    for HistogramAt { value, .. } in &points[1..] {
        match take(value) {
            Ok(outcome) => reconciled |= outcome.reconciled,
            Err(_) => {
                site.notes.mixed_exponential_custom(site.labels.metric_name(), site.span);
                return None;
            }
        }
    }
    let seen = |hint: ResetHint| points.iter().any(|p| p.value.reset_hint == hint);
    if seen(ResetHint::Reset) && seen(ResetHint::NotReset) {
        site.notes.reset_collision(Operation::Aggregation, site.span);
    }
    if reconciled {
        site.notes.mismatched_custom_buckets(Operation::Aggregation, site.span);
    }
    Some(())
}

/// The floats; nothing when there are none, an info when histograms are ignored beside them.
fn floats<'a>(w: &Window<'a>, site: &mut Site<'_>) -> Option<&'a [f64]> {
    if w.values.is_empty() {
        return None;
    }
    if !w.histograms.is_empty() {
        site.note_ignored();
    }
    Some(w.values)
}

/// The float that `better` prefers, or its time.
#[inline]
pub(super) fn extreme(
    w: &Window<'_>,
    time: bool,
    site: &mut Site<'_>,
    better: impl Fn(f64, f64) -> bool,
) -> Option<Cell> {
    let values = floats(w, site)?;
    let (mut best, mut at) = (values[0], 0);
    for (index, value) in values.iter().enumerate() {
        if better(*value, best) {
            (best, at) = (*value, index);
        }
    }
    Some(Cell::Float(if time { w.stamps[at] as f64 / 1000.0 } else { best }))
}

pub(super) fn first(w: &Window<'_>) -> Option<Cell> {
    match (w.stamps.first(), w.histograms.first()) {
        (Some(time), Some(h)) if *time >= h.time => Some(Cell::Histogram(Arc::clone(&h.value))),
        (None, Some(h)) => Some(Cell::Histogram(Arc::clone(&h.value))),
        _ => w.values.first().map(|v| Cell::Float(*v)),
    }
}

#[inline]
pub(super) fn last(w: &Window<'_>) -> Option<Cell> {
    match (w.stamps.last(), w.histograms.last()) {
        (Some(time), Some(h)) if *time <= h.time => Some(Cell::Histogram(Arc::clone(&h.value))),
        (None, Some(h)) => Some(Cell::Histogram(Arc::clone(&h.value))),
        _ => w.values.last().map(|v| Cell::Float(*v)),
    }
}

pub(super) fn first_time(w: &Window<'_>) -> Option<Cell> {
    let times = w.stamps.first().copied().into_iter().chain(w.histograms.first().map(|h| h.time));
    times.min().map(|t| Cell::Float(t as f64 / 1000.0))
}

pub(super) fn last_time(w: &Window<'_>) -> Option<Cell> {
    let times = w.stamps.last().copied().into_iter().chain(w.histograms.last().map(|h| h.time));
    times.max().map(|t| Cell::Float(t as f64 / 1000.0))
}

pub(super) fn mad(w: &Window<'_>, site: &mut Site<'_>) -> Option<Cell> {
    let values = floats(w, site)?;
    if values.iter().any(|v| v.is_nan()) {
        return Some(Cell::Float(f64::NAN));
    }
    let scratch = &mut *site.scratch;
    scratch.clear();
    scratch.extend_from_slice(values);
    let median = quantiles::of_values(0.5, scratch);
    scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
    Some(Cell::Float(quantiles::of_values(0.5, scratch)))
}

pub(super) fn quantile(w: &Window<'_>, q: f64, site: &mut Site<'_>) -> Option<Cell> {
    if w.values.is_empty() {
        return None;
    }
    if q.is_nan() || !(0.0..=1.0).contains(&q) {
        site.notes.invalid_quantile(q, site.span);
    }
    let values = floats(w, site)?;
    site.scratch.clear();
    site.scratch.extend_from_slice(values);
    Some(Cell::Float(quantiles::of_values(q, site.scratch)))
}

pub(super) fn variance(w: &Window<'_>, site: &mut Site<'_>) -> Option<f64> {
    let values = floats(w, site)?;
    let mut count = 0.0;
    let (mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_c);
        (mean, mean_c) = kahan::inc(delta / count, mean, mean_c);
        (aux, aux_c) = kahan::inc(delta * (value - (mean + mean_c)), aux, aux_c);
    }
    Some((aux + aux_c) / count)
}
