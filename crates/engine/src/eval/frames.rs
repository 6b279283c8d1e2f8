//! Windows over plain floats: the loops that most queries spend their time in, one for each function.

use model::StepGrid;
use promql::ast::Extended;

use crate::column::is_absent;
use crate::kahan;
use crate::plan::Shift;
use crate::window::{FloatFrame, RangeFn, rate_of_floats};

/// How windows lie relative to the steps.
#[derive(Clone, Copy)]
pub(super) struct Slide {
    pub(super) time: Shift,
    pub(super) range: i64,
    pub(super) extended: Extended,
    /// Samples before and after the range that the mode of the selector looks at, ms.
    pub(super) before: i64,
    pub(super) after: i64,
}

/// The windows over plain floats: no histograms, no start timestamps, no extended ends. What most queries do most of
/// the time, so each function has a loop of its own.
pub(super) struct Frames<'f> {
    pub(super) grid: StepGrid,
    pub(super) slide: Slide,
    pub(super) stamps: &'f [i64],
    pub(super) values: &'f [f64],
}

impl Frames<'_> {
    /// Fills `out`, one value a step, and says whether there is any; nothing when `func` has no loop here.
    pub(super) fn fill(&self, func: RangeFn, never_drops: bool, out: &mut [f64]) -> Option<bool> {
        Some(match func {
            RangeFn::Rate => self.each(out, |f| rate_of_floats(f, true, true, never_drops)),
            RangeFn::Increase => self.each(out, |f| rate_of_floats(f, true, false, never_drops)),
            RangeFn::Delta => self.each(out, |f| rate_of_floats(f, false, false, never_drops)),
            RangeFn::SumOverTime => self.each(out, |f| kahan::sum(f.values)),
            RangeFn::AvgOverTime => self.each(out, |f| kahan::mean(f.values)),
            RangeFn::MinOverTime => self.each(out, |f| fold(f.values, |v, best| v < best)),
            RangeFn::MaxOverTime => self.each(out, |f| fold(f.values, |v, best| v > best)),
            RangeFn::CountOverTime => self.each(out, |f| f.values.len() as f64),
            RangeFn::PresentOverTime => self.each(out, |_| 1.0),
            RangeFn::LastOverTime => self.each(out, |f| f.values[f.values.len() - 1]),
            _ => return None,
        })
    }

    /// Calls `f` for every window that is not empty.
    #[inline(always)]
    fn each(&self, out: &mut [f64], f: impl Fn(&FloatFrame<'_>) -> f64) -> bool {
        let (stamps, values) = (self.stamps, self.values);
        let (mut from, mut to, mut any) = (0, 0, false);
        let seconds = self.slide.range as f64 / 1000.0;
        for (step, out) in out.iter_mut().enumerate() {
            let end = self.slide.time.apply(self.grid.at(step));
            let start = end.saturating_sub(self.slide.range);
            while to < stamps.len() && stamps[to] <= end {
                to += 1;
            }
            while from < to && stamps[from] <= start {
                from += 1;
            }
            if from < to {
                *out = f(&FloatFrame {
                    start,
                    end,
                    seconds,
                    stamps: &stamps[from..to],
                    values: &values[from..to],
                });
                any = true;
            }
        }
        any && !out.iter().all(|v| is_absent(*v))
    }
}

/// The value that `better` prefers; NaN gives way to anything.
#[inline(always)]
fn fold(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = values[0];
    for value in values {
        if better(*value, best) || best.is_nan() {
            best = *value;
        }
    }
    best
}
