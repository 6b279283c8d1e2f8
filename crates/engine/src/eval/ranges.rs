//! Functions of ranges: windows that slide over each series once, and subqueries as the samples they slide over.

use model::{Labels, StepGrid, TimeRange};
use promql::ast::{Extended, Span};

use super::frames::{Frames, Slide};
use super::select::weight;
use super::split::Split;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{ABSENT, Column};
use crate::plan::{Call, Kind, Node, Sub};
use crate::steps::StepCounts;
use crate::window::{RangeFn, Site, Window};

/// A range function ready to run on series.
struct Run<'r> {
    func: RangeFn,
    /// The other arguments, one value a step each.
    params: Vec<Vec<f64>>,
    slide: Slide,
    span: Span,
    all_args: Span,
    split: Split,
    scratch: Vec<f64>,
    now: Vec<f64>,
    column: Column,
    /// The last metric that was said to look like no counter.
    last_noted: String,
    sink: &'r mut Sink<'r>,
}

impl Evaluator<'_> {
    /// The columns of a range function's call.
    pub(super) fn range_call(
        &self,
        call: &Call,
        func: RangeFn,
        sink: &mut Sink<'_>,
    ) -> Result<(), EvalError> {
        let Some(at) = call.args.iter().position(|a| matches!(a.kind, Kind::Matrix(..) | Kind::Subquery(_)))
        else {
            return Err(EvalError::Invalid(format!(
                "expected a range vector in call to function {:?}",
                call.name
            )));
        };
        if call.name == "absent_over_time" {
            return self.absent_over_time(&call.args[at], sink);
        }
        self.merging(&call.args[at], sink, |sink| self.run_range(call, at, func, sink))
    }

    fn run_range(&self, call: &Call, at: usize, func: RangeFn, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let mut params = Vec::with_capacity(call.args.len() - 1);
        for (_, arg) in call.args.iter().enumerate().filter(|(other, _)| *other != at) {
            params.push(self.scalar(arg)?);
        }
        let spans = || call.args.iter().map(|a| a.span);
        let all_args = Span {
            start: spans().map(|s| s.start).min().unwrap_or(0),
            end: spans().map(|s| s.end).max().unwrap_or(0),
        };
        let mut through = |column: &mut Column| sink(column);
        let mut run = Run {
            func,
            params,
            slide: self.slide(&call.args[at], call.name, func)?,
            span: call.args[0].span,
            all_args,
            split: Split::default(),
            scratch: Vec::new(),
            now: Vec::new(),
            column: Column::default(),
            last_noted: String::new(),
            sink: &mut through,
        };
        match &call.args[at].kind {
            Kind::Matrix(select, _) => {
                let with_starts = self.ctx.features.use_start_timestamps && func.uses_starts();
                self.read_selected(select, self.window_range(run.slide), &mut |data| {
                    run.split.take(data, with_starts);
                    self.slide_over(&mut run, &data.labels, false)
                })
            }
            Kind::Subquery(sub) => {
                let Some(grid) = self.subquery_grid(sub) else { return Ok(()) };
                self.over(grid).stream(&sub.inner, &mut |column| {
                    run.split.take_column(column, grid);
                    // Annotations do not name what was dropped.
                    self.slide_over(&mut run, &self.labels_of(column), column.drop_name)
                })
            }
            _ => Ok(()),
        }
    }

    fn slide(&self, arg: &Node, name: &str, func: RangeFn) -> Result<Slide, EvalError> {
        let lookback = self.ctx.lookback_ms;
        let (time, range, extended) = match &arg.kind {
            Kind::Matrix(select, range) => (select.time, *range, select.extended),
            Kind::Subquery(sub) => (sub.time, sub.range, Extended::None),
            _ => return Err(EvalError::Invalid("expected a range vector".into())),
        };
        if !func.allows(extended) {
            let (mode, allowed) = if extended == Extended::Anchored {
                ("anchored", "changes, delta, increase, rate, resets")
            } else {
                ("smoothed", "delta, increase, rate")
            };
            let text = format!("{mode} modifier can only be used with: {allowed} - not with {name}");
            return Err(EvalError::Execution(text));
        }
        let before = if extended == Extended::None { 0 } else { lookback };
        let after = if extended == Extended::Smoothed { lookback } else { 0 };
        Ok(Slide { time, range, extended, before, after })
    }

    /// All timestamps that any window holds.
    fn window_range(&self, slide: Slide) -> TimeRange {
        let first = slide.time.apply(self.grid.start);
        let last = slide.time.apply(self.grid.end());
        TimeRange {
            after: first.saturating_sub(slide.range).saturating_sub(slide.before),
            until: last.saturating_add(slide.after),
        }
    }

    /// Counts what the window of each step holds.
    fn count_windows(&self, counts: &StepCounts, slide: Slide, split: &Split) {
        let stamps = split.stamps.iter().map(|time| (*time, 1));
        let points = split.histograms.iter().map(|point| (point.time, weight(&point.value)));
        // How many samples there are up to each: of floats and histograms apart, since only each for itself ascends.
        for samples in [stamps.collect::<Vec<(i64, u64)>>(), points.collect()] {
            let sums: Vec<u64> = std::iter::once(0)
                .chain(samples.iter().scan(0, |sum, (_, weight)| {
                    *sum += weight;
                    Some(*sum)
                }))
                .collect();
            let mut before = 0;
            for step in 0..self.steps() {
                let end = slide.time.apply(self.grid.at(step));
                let from = samples.partition_point(|(time, _)| *time <= end.saturating_sub(slide.range));
                let to = samples.partition_point(|(time, _)| *time <= end).max(from);
                if to > from {
                    counts.add(step, sums[to] - sums[from], sums[to] - sums[before.clamp(from, to)]);
                }
                before = to;
            }
        }
    }

    /// Evaluates the function for all steps over the samples in `run.split`.
    fn slide_over(&self, run: &mut Run<'_>, labels: &Labels, dropped: bool) -> Result<(), EvalError> {
        let Run { func, params, slide, span, all_args, split, scratch, now, column, last_noted, sink } = run;
        let steps = self.steps();
        if let Some(counts) = self.step_counts() {
            self.count_windows(counts, *slide, split);
        }
        column.reset(labels.clone(), steps);
        column.drop_name = dropped || !func.keeps_name();
        let drops = || split.values.windows(2).any(|pair| pair[1] < pair[0]);
        let counter = matches!(func, RangeFn::Rate | RangeFn::Increase | RangeFn::Resets);
        let never_drops = counter && split.starts.is_empty() && !drops();
        let plain =
            split.histograms.is_empty() && split.starts.is_empty() && slide.extended == Extended::None;
        if plain && params.is_empty() {
            let frames =
                Frames { grid: self.grid, slide: *slide, stamps: &split.stamps, values: &split.values };
            if let Some(any) = frames.fill(*func, never_drops, &mut column.floats) {
                if any && matches!(func, RangeFn::Rate | RangeFn::Increase) {
                    self.note_non_counter(labels, last_noted, *span, &mut self.notes.borrow_mut());
                }
                return if any { sink(column) } else { Ok(()) };
            }
        }
        let mut notes = self.notes.borrow_mut();
        let mut site = Site { labels, span: *span, all_args: *all_args, notes: &mut notes, scratch };
        let (stamps, points) = (split.stamps.as_slice(), split.histograms.as_slice());
        let (mut from, mut to, mut first_point, mut end_point) = (0, 0, 0, 0);
        let mut any_float = false;
        let mut any = false;
        for step in 0..steps {
            let end = slide.time.apply(self.grid.at(step));
            let start = end.saturating_sub(slide.range);
            let (after, until) = (start.saturating_sub(slide.before), end.saturating_add(slide.after));
            while to < stamps.len() && stamps[to] <= until {
                to += 1;
            }
            while from < to && stamps[from] <= after {
                from += 1;
            }
            if !points.is_empty() {
                while end_point < points.len() && points[end_point].time <= until {
                    end_point += 1;
                }
                while first_point < end_point && points[first_point].time <= after {
                    first_point += 1;
                }
            }
            if from == to && first_point == end_point {
                continue;
            }
            let window = Window {
                step: self.grid.at(step),
                start,
                end,
                stamps: &stamps[from..to],
                values: &split.values[from..to],
                starts: split.starts.get(from..to).unwrap_or(&[]),
                histograms: &points[first_point..end_point],
                histogram_starts: split.histogram_starts.get(first_point..end_point).unwrap_or(&[]),
                never_drops,
                extended: slide.extended,
                looks_after: after,
            };
            if !params.is_empty() {
                now.clear();
                now.extend(params.iter().map(|p| p[step]));
                check_params(*func, now)?;
            }
            match func.apply(&window, now, &mut site) {
                None => {}
                Some(crate::column::Cell::Float(value)) => {
                    column.floats[step] = value;
                    (any, any_float) = (true, true);
                }
                Some(crate::column::Cell::Histogram(h)) => {
                    column.put_histogram(step, h);
                    any = true;
                }
            }
            site.span = *span;
        }
        if any_float && matches!(func, RangeFn::Rate | RangeFn::Increase) {
            self.note_non_counter(labels, last_noted, *span, &mut notes);
        }
        drop(notes);
        if any { sink(column) } else { Ok(()) }
    }

    fn note_non_counter(
        &self,
        labels: &Labels,
        last: &mut String,
        span: Span,
        notes: &mut crate::annotations::Annotations,
    ) {
        let name = labels.metric_name();
        if name.is_empty() {
            return;
        }
        if self.ctx.features.type_and_unit_labels {
            let kind = labels.get("__type__").unwrap_or("");
            if kind != "counter" && kind != "histogram" {
                notes.possible_non_counter_type(name, kind, span);
            }
        } else if last != name && !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
            notes.possible_non_counter(name, span);
            name.clone_into(last);
        }
    }

    /// The steps at which a subquery's expression is evaluated; none when the range holds no multiple of its step.
    pub(super) fn subquery_grid(&self, sub: &Sub) -> Option<StepGrid> {
        subquery_grid(sub, self.grid)
    }

    fn absent_over_time(&self, arg: &Node, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let mut missing = vec![1.0; self.steps()];
        let slide = self.slide(arg, "absent_over_time", RangeFn::PresentOverTime)?;
        let mut mark = |split: &Split| {
            if let Some(counts) = self.step_counts() {
                self.count_windows(counts, slide, split);
            }
            let (mut from, mut to) = (0, 0);
            let mut all: Vec<i64> = split.stamps.clone();
            all.extend(split.histograms.iter().map(|h| h.time));
            all.sort_unstable();
            for (step, missing) in missing.iter_mut().enumerate() {
                let end = slide.time.apply(self.grid.at(step));
                while to < all.len() && all[to] <= end {
                    to += 1;
                }
                while from < to && all[from] <= end.saturating_sub(slide.range) {
                    from += 1;
                }
                if from < to {
                    *missing = ABSENT;
                }
            }
        };
        let mut split = Split::default();
        let labels = match &arg.kind {
            Kind::Matrix(select, _) => {
                self.read(&select.matchers, self.window_range(slide), &mut |data| {
                    split.take(data, false);
                    mark(&split);
                    Ok(())
                })?;
                super::labels::of_absent(&select.matchers)?
            }
            Kind::Subquery(sub) => {
                if let Some(grid) = self.subquery_grid(sub) {
                    self.over(grid).stream(&sub.inner, &mut |column| {
                        split.take_column(column, grid);
                        mark(&split);
                        Ok(())
                    })?;
                }
                Labels::empty()
            }
            _ => Labels::empty(),
        };
        let mut column = Column { labels, drop_name: true, floats: missing, histograms: Vec::new() };
        if column.is_empty() { Ok(()) } else { sink(&mut column) }
    }
}

/// The steps at which the expression of a subquery over `grid` is evaluated; none when the range holds no multiple of
/// its step.
pub(crate) fn subquery_grid(sub: &Sub, grid: StepGrid) -> Option<StepGrid> {
    let first = sub.time.apply(grid.start);
    let end = sub.time.apply(grid.end());
    let after = first.saturating_sub(sub.range);
    let mut start = sub.step * (after / sub.step);
    if start <= after {
        start = start.saturating_add(sub.step);
    }
    (start <= end).then(|| StepGrid::range(start, end, sub.step))
}

/// Fails where an argument makes a function meaningless.
fn check_params(func: RangeFn, params: &[f64]) -> Result<(), EvalError> {
    if func == RangeFn::DoubleExponentialSmoothing {
        for (what, short, value) in [("smoothing", "sf", params[0]), ("trend", "tf", params[1])] {
            if value <= 0.0 || value >= 1.0 {
                let text = format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {value:.6}");
                return Err(EvalError::Execution(text));
            }
        }
    }
    Ok(())
}
