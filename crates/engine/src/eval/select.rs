//! Selectors: reading series, and the sample that an instant selector sees at each step.

use std::sync::Arc;

use model::seam::{SelectRequest, SeriesData};
use model::{Matcher, TimeRange, is_stale};
use promql::ast::{Extended, Span};

use super::{Evaluator, Sink, times};
use crate::EvalError;
use crate::annotations::Annotations;
use crate::column::{Column, histogram_bytes, is_absent};
use crate::histogram::is_reset;
use crate::plan::Select;
use crate::steps::StepCounts;
use crate::window::{HistogramAt, interpolate, interpolate_histograms};

/// Which property of the sample becomes the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    /// The sample itself.
    Value,
    /// When it was taken, seconds.
    Time,
    /// When its counter started, seconds; 0 when that is not known.
    Start,
}

impl Evaluator<'_> {
    /// Calls `each` for all series that match, with their samples in `range`.
    pub(super) fn read(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        each: &mut dyn FnMut(&mut SeriesData) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let request = SelectRequest {
            tenant: self.ctx.tenant.clone(),
            matchers: matchers.to_vec(),
            range,
            budget: Arc::clone(&self.ctx.budget),
        };
        let mut series = self.source.select(&request)?;
        let mut data = SeriesData::default();
        while series.next_series(&mut data)? {
            self.ctx.budget.check()?;
            if !data.stamps.is_empty() {
                self.ctx.budget.count_samples(data.stamps.len() as u64);
                each(&mut data)?;
            }
        }
        Ok(())
    }

    /// Calls `each` for all series of a selector.
    pub(super) fn read_selected(
        &self,
        select: &Select,
        range: TimeRange,
        each: &mut dyn FnMut(&mut SeriesData) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        self.read(&select.matchers, range, &mut |data| {
            if select.stats && !data.histograms.is_empty() {
                find_resets(data);
            }
            each(data)
        })
    }

    /// The columns of an instant selector.
    pub(super) fn instant(&self, select: &Select, span: Span, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        self.instant_property(select, Property::Value, span, sink)
    }

    /// The columns of an instant selector, made of a property of the samples it sees.
    pub(super) fn instant_property(
        &self,
        select: &Select,
        property: Property,
        span: Span,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        let lookback = self.ctx.lookback_ms;
        let smoothed = select.extended == Extended::Smoothed && property == Property::Value;
        let first = select.time.apply(self.grid.start);
        let last = select.time.apply(self.grid.end());
        let until = if smoothed { last.saturating_add(lookback) } else { last };
        let range = TimeRange { after: first.saturating_sub(lookback), until };
        let mut column = Column::default();
        self.read_selected(select, range, &mut |data| {
            column.reset(data.labels.clone(), self.steps());
            if smoothed {
                self.note(|notes| self.fill_smoothed(select, data, &mut column, notes, span));
            } else {
                self.fill_instant(select, data, property, &mut column);
            }
            if let Some(counts) = self.step_counts() {
                for step in (0..self.steps()).filter(|step| column.has(*step)) {
                    let weight = column.histogram(step).map_or(1, |h| weight(h));
                    counts.add(step, weight, weight);
                }
            }
            if column.is_empty() { Ok(()) } else { sink(&mut column) }
        })
    }

    /// Where samples are counted by step, if somebody asked for that and these are the query's own steps.
    pub(super) fn step_counts(&self) -> Option<&StepCounts> {
        self.ctx.steps.as_deref().filter(|counts| counts.grid() == self.grid)
    }

    fn fill_instant(&self, select: &Select, data: &SeriesData, property: Property, column: &mut Column) {
        let lookback = self.ctx.lookback_ms;
        let stamps = data.stamps.as_slice();
        if data.histograms.is_empty() && property == Property::Value {
            // A staleness marker is what absence is written as, so it can be copied like any value.
            let mut next = 0;
            for (out, time) in column.floats.iter_mut().zip(times(self.grid)) {
                let time = select.time.apply(time);
                while next < stamps.len() && stamps[next] <= time {
                    next += 1;
                }
                if next > 0 && stamps[next - 1] > time.saturating_sub(lookback) {
                    *out = data.values[next - 1];
                }
            }
            return;
        }
        let (mut next, mut next_histogram) = (0, 0);
        for (step, time) in times(self.grid).enumerate() {
            let time = select.time.apply(time);
            while next < stamps.len() && stamps[next] <= time {
                next += 1;
            }
            if next == 0 || stamps[next - 1] <= time.saturating_sub(lookback) {
                continue;
            }
            let at = next - 1;
            while data.histograms.get(next_histogram).is_some_and(|(position, _)| (*position as usize) < at) {
                next_histogram += 1;
            }
            let histogram =
                data.histograms.get(next_histogram).filter(|(position, _)| *position as usize == at);
            let stale = histogram.map_or_else(|| is_stale(data.values[at]), |(_, h)| h.is_stale());
            if stale {
                continue;
            }
            match (property, histogram) {
                (Property::Value, None) => column.floats[step] = data.values[at],
                (Property::Value, Some((_, histogram))) => column.put_histogram(step, Arc::clone(histogram)),
                (Property::Time, _) => column.floats[step] = stamps[at] as f64 / 1000.0,
                (Property::Start, _) => {
                    column.floats[step] = data.starts.get(at).copied().unwrap_or(0) as f64 / 1000.0;
                }
            }
        }
        debug_assert!(data.values.len() == stamps.len(), "one value a stamp");
    }

    /// `smoothed`: the value on the line between the samples around each step.
    fn fill_smoothed(
        &self,
        select: &Select,
        data: &SeriesData,
        column: &mut Column,
        notes: &mut Annotations,
        span: Span,
    ) {
        let lookback = self.ctx.lookback_ms;
        let mut histograms: Vec<HistogramAt> = Vec::new();
        let mut floats: Vec<(i64, f64)> = Vec::new();
        let mut coming = data.histograms.iter().peekable();
        for (at, (time, value)) in data.stamps.iter().zip(&data.values).enumerate() {
            if let Some((_, h)) = coming.next_if(|(position, _)| *position as usize == at) {
                if !h.is_stale() {
                    histograms.push(HistogramAt { time: *time, value: Arc::clone(h) });
                }
            } else if !is_absent(*value) {
                floats.push((*time, *value));
            }
        }
        for (step, time) in times(self.grid).enumerate() {
            let time = select.time.apply(time);
            let (after, until) = (time.saturating_sub(lookback), time.saturating_add(lookback));
            let near = window(&floats, after, until, |p| p.0);
            let near_histograms = window(&histograms, after, until, |p| p.time);
            match (near.is_empty(), near_histograms.is_empty()) {
                (true, true) => {}
                (false, false) => notes.mixed_floats_histograms(data.labels.metric_name(), span),
                (false, true) => {
                    let next = near.partition_point(|p| p.0 < time);
                    match (next.checked_sub(1).map(|at| near[at]), near.get(next)) {
                        (_, Some(exact)) if exact.0 == time => column.floats[step] = exact.1,
                        (Some(before), Some(after)) => {
                            column.floats[step] = interpolate(before, *after, time, false);
                        }
                        (Some(before), None) => column.floats[step] = before.1,
                        (None, _) => {}
                    }
                }
                (true, false) => {
                    let name = data.labels.metric_name();
                    if let Some(h) = smooth_histogram(near_histograms, time, name, notes, span) {
                        column.put_histogram(step, Arc::new(h));
                    }
                }
            }
        }
    }
}

/// As how many samples a histogram counts: by its size, as upstream.
pub(super) fn weight(h: &model::Histogram) -> u64 {
    (histogram_bytes(h) as u64 / 16).max(1)
}

/// Replaces unknown hints by what the counts say, from the second histogram on.
fn find_resets(data: &mut SeriesData) {
    use model::histogram::ResetHint::{NotReset, Reset, Unknown};
    let mut previous: Option<Arc<model::Histogram>> = None;
    for (_, h) in data.histograms.iter_mut().filter(|(_, h)| !h.is_stale()) {
        let original = Arc::clone(h);
        if let Some(previous) = previous.filter(|_| h.reset_hint == Unknown) {
            let hint = if is_reset(h, &previous) { Reset } else { NotReset };
            *h = Arc::new(model::Histogram { reset_hint: hint, ..(**h).clone() });
        }
        previous = Some(original);
    }
}

/// The items with `after < time <= until`.
fn window<T>(all: &[T], after: i64, until: i64, time: impl Fn(&T) -> i64) -> &[T] {
    let from = all.partition_point(|p| time(p) <= after);
    let to = all.partition_point(|p| time(p) <= until);
    &all[from..to.max(from)]
}

fn smooth_histogram(
    near: &[HistogramAt],
    time: i64,
    name: &str,
    notes: &mut Annotations,
    span: Span,
) -> Option<model::Histogram> {
    use model::histogram::ResetHint::{Gauge, Unknown};
    let next = near.partition_point(|p| p.time < time);
    match (next.checked_sub(1).map(|at| &near[at]), near.get(next)) {
        (_, Some(exact)) if exact.time == time => Some((*exact.value).clone()),
        (Some(before), Some(after)) => {
            let counter = before.value.reset_hint != Gauge || after.value.reset_hint != Gauge;
            let mixed = before.value.has_custom_buckets() != after.value.has_custom_buckets();
            let reset = counter && !mixed && is_reset(&after.value, &before.value);
            let made = if mixed {
                Err(crate::histogram::Incompatible)
            } else {
                interpolate_histograms(before, after, time, reset, notes, span)
            };
            if made.is_err() {
                notes.mixed_exponential_custom(name, span);
            }
            made.ok()
        }
        (Some(before), None) => {
            let mut h = (*before.value).clone();
            h.reset_hint = Unknown;
            Some(h)
        }
        (None, _) => None,
    }
}
