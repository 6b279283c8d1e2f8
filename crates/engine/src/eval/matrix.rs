//! A range selector as the whole of an instant query: the samples themselves.

use std::sync::Arc;

use model::{TimeRange, is_stale};
use promql::ast::Extended;

use super::Evaluator;
use super::select::weight;
use crate::EvalError;
use crate::label_set::compare;
use crate::plan::Select;
use crate::value::{HistogramPoint, Point, Series, Value};
use crate::window::interpolate;

impl Evaluator<'_> {
    pub(super) fn range_of_samples(&self, select: &Select, range: i64) -> Result<Value, EvalError> {
        let end = select.time.apply(self.grid.start);
        let start = end.saturating_sub(range);
        let lookback = self.ctx.lookback_ms;
        let extended = select.extended != Extended::None;
        let after = if extended { start.saturating_sub(lookback) } else { start };
        let until = if select.extended == Extended::Smoothed { end.saturating_add(lookback) } else { end };
        let mut all = Vec::new();
        self.read(&select.matchers, TimeRange { after, until }, &mut |data| {
            let mut series = Series { labels: data.labels.clone(), ..Series::default() };
            let mut coming = data.histograms.iter().peekable();
            for (at, (time, value)) in data.stamps.iter().zip(&data.values).enumerate() {
                if let Some((_, h)) = coming.next_if(|(position, _)| *position as usize == at) {
                    if !h.is_stale() {
                        let histogram = Arc::clone(h);
                        series.histograms.push(HistogramPoint { timestamp: *time, histogram });
                    }
                } else if !is_stale(*value) {
                    series.floats.push(Point { timestamp: *time, value: *value });
                }
            }
            if extended {
                if !series.histograms.is_empty() {
                    let mode = if select.extended == Extended::Anchored { "anchored" } else { "smoothed" };
                    let text = format!("{mode} modifier is not supported with histograms");
                    return Err(EvalError::Execution(text));
                }
                series.floats = extend(&series.floats, start, end, select.extended == Extended::Smoothed);
            }
            if let Some(counts) = self.step_counts() {
                let histograms: u64 = series.histograms.iter().map(|p| weight(&p.histogram)).sum();
                let all = series.floats.len() as u64 + histograms;
                counts.add(0, all, all);
            }
            if !series.floats.is_empty() || !series.histograms.is_empty() {
                self.ctx.budget.charge(bytes(&series))?;
                all.push(series);
            }
            Ok(())
        })?;
        all.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        Ok(Value::Matrix(all))
    }
}

/// What a series of the answer takes.
fn bytes(series: &Series) -> u64 {
    let histograms: usize =
        series.histograms.iter().map(|p| size_of::<HistogramPoint>() + p.histogram.memory()).sum();
    let floats = series.floats.len() * size_of::<Point>();
    (size_of::<Series>() + series.labels.as_bytes().len() + floats + histograms) as u64
}

/// The samples of a range with one at each end, taken from outside or interpolated.
fn extend(floats: &[Point], start: i64, end: i64, smoothed: bool) -> Vec<Point> {
    let Some(mut last) = floats.len().checked_sub(1) else { return Vec::new() };
    let first = floats[..last].partition_point(|p| p.timestamp <= start).saturating_sub(1);
    if smoothed {
        last = floats[..last].partition_point(|p| p.timestamp < end);
    }
    if floats[last].timestamp <= start {
        return Vec::new();
    }
    let pair = |p: &Point| (p.timestamp, p.value);
    let between = |a: &Point, b: &Point, time: i64| interpolate(pair(a), pair(b), time, false);
    let left = match floats.get(first + 1) {
        Some(next) if smoothed && floats[first].timestamp < start => between(&floats[first], next, start),
        _ => floats[first].value,
    };
    let right = if smoothed && last > 0 && floats[last].timestamp > end {
        between(&floats[last - 1], &floats[last], end)
    } else {
        floats[last].value
    };
    let inside = floats[first..=last].iter().filter(|p| start < p.timestamp && p.timestamp < end);
    let mut out = vec![Point { timestamp: start, value: left }];
    out.extend(inside);
    out.push(Point { timestamp: end, value: right });
    out
}
