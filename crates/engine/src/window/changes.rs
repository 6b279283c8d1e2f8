//! `changes` and `resets`: how often neighbouring samples differ, or a counter began anew.

use std::sync::Arc;

use model::Histogram;
use promql::ast::Extended;

use super::{Window, starts};
use crate::column::Cell;
use crate::histogram::{equals, is_reset};

/// A sample of either kind.
#[derive(Clone, Copy)]
struct Item<'a> {
    time: i64,
    start: i64,
    value: f64,
    histogram: Option<&'a Arc<Histogram>>,
}

/// The samples in order of time. With `anchored`, from the last one at or before the start of the range on, and
/// nothing at all when none lies after it.
fn items<'a>(w: &Window<'a>) -> Option<Vec<Item<'a>>> {
    let mut all: Vec<Item<'a>> = Vec::with_capacity(w.values.len() + w.histograms.len());
    for (at, (time, value)) in w.stamps.iter().zip(w.values).enumerate() {
        let start = w.starts.get(at).copied().unwrap_or(0);
        all.push(Item { time: *time, start, value: *value, histogram: None });
    }
    for (at, point) in w.histograms.iter().enumerate() {
        let start = w.histogram_starts.get(at).copied().unwrap_or(0);
        all.push(Item { time: point.time, start, value: 0.0, histogram: Some(&point.value) });
    }
    if !w.histograms.is_empty() {
        all.sort_by_key(|item| item.time);
    }
    if w.extended == Extended::Anchored {
        let after = all.partition_point(|item| item.time <= w.start);
        if after == all.len() {
            return None;
        }
        all.drain(..after.saturating_sub(1));
    }
    (!all.is_empty()).then_some(all)
}

fn count_pairs(all: &[Item<'_>], differs: impl Fn(&Item<'_>, &Item<'_>) -> bool) -> Cell {
    Cell::Float(all.windows(2).filter(|pair| differs(&pair[0], &pair[1])).count() as f64)
}

fn plain_floats(w: &Window<'_>) -> bool {
    w.histograms.is_empty() && w.starts.is_empty() && w.extended == Extended::None
}

pub(super) fn resets(w: &Window<'_>) -> Option<Cell> {
    if plain_floats(w) {
        if w.never_drops {
            return Some(Cell::Float(0.0));
        }
        return Some(Cell::Float(w.values.windows(2).filter(|p| p[1] < p[0]).count() as f64));
    }
    let all = items(w)?;
    Some(count_pairs(&all, |before, now| {
        let anew = starts::is_reset(before.start, before.time, now.start, now.time);
        match (before.histogram, now.histogram) {
            (None, None) => now.value < before.value || anew,
            (Some(earlier), Some(later)) => anew || is_reset(later, earlier),
            _ => true,
        }
    }))
}

pub(super) fn changes(w: &Window<'_>) -> Option<Cell> {
    let changed = |before: f64, now: f64| now != before && !(now.is_nan() && before.is_nan());
    if plain_floats(w) {
        return Some(Cell::Float(w.values.windows(2).filter(|p| changed(p[0], p[1])).count() as f64));
    }
    let all = items(w)?;
    Some(count_pairs(&all, |before, now| match (before.histogram, now.histogram) {
        (None, None) => changed(before.value, now.value),
        (Some(earlier), Some(later)) => !equals(later, earlier),
        _ => true,
    }))
}
