//! Functions of a range of samples of one series: what `rate(x[5m])` does at one step.
//!
//! Each takes a [`Window`] of borrowed slices and gives a float, a histogram or nothing. How windows slide over a
//! series is in `eval/ranges.rs`.

mod changes;
mod extended;
mod over_time;
mod rate;
mod starts;
mod trend;

use std::sync::Arc;

use model::{Histogram, Labels};
use promql::ast::{Extended, Span};

use crate::annotations::Annotations;
use crate::column::Cell;

pub(crate) use extended::{interpolate, interpolate_histograms};
pub(crate) use rate::of_floats as rate_of_floats;

/// A histogram at a time.
#[derive(Clone, Debug)]
pub(crate) struct HistogramAt {
    pub(crate) time: i64,
    pub(crate) value: Arc<Histogram>,
}

/// The samples of one series in one range, floats and histograms apart, both ascending in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// The step's time, ms.
    pub(crate) step: i64,
    /// Exclusive start of the range, ms. With `anchored` and `smoothed` the samples reach further to both sides.
    pub(crate) start: i64,
    /// Inclusive end, ms.
    pub(crate) end: i64,
    pub(crate) stamps: &'a [i64],
    pub(crate) values: &'a [f64],
    /// Start timestamps of the floats; empty where they are not known or not to be used.
    pub(crate) starts: &'a [i64],
    pub(crate) histograms: &'a [HistogramAt],
    /// Start timestamps of the histograms, as above.
    pub(crate) histogram_starts: &'a [i64],
    /// No float of the whole series is less than the one before it.
    pub(crate) never_drops: bool,
    pub(crate) extended: Extended,
    /// Exclusive start of the time that the samples are of, ms: before `start` with `anchored` and `smoothed`.
    pub(crate) looks_after: i64,
}

/// A window that holds plain floats only, at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatFrame<'a> {
    /// Exclusive start of the range, ms.
    pub(crate) start: i64,
    /// Inclusive end, ms.
    pub(crate) end: i64,
    /// Length of the range.
    pub(crate) seconds: f64,
    pub(crate) stamps: &'a [i64],
    pub(crate) values: &'a [f64],
}

impl Window<'_> {
    fn seconds(&self) -> f64 {
        // Nanoseconds over 1e9 in upstream; the quotient is the same.
        (self.end - self.start) as f64 / 1000.0
    }

    fn is_mixed(&self) -> bool {
        !self.histograms.is_empty() && !self.values.is_empty()
    }
}

/// Where annotations of a range function go, and what they are about.
pub(crate) struct Site<'a> {
    /// The series, with its name.
    pub(crate) labels: &'a Labels,
    /// The first argument.
    pub(crate) span: Span,
    /// All arguments.
    pub(crate) all_args: Span,
    pub(crate) notes: &'a mut Annotations,
    /// Reused by functions that sort.
    pub(crate) scratch: &'a mut Vec<f64>,
}

impl Site<'_> {
    fn note_mixed(&mut self) {
        self.notes.mixed_floats_histograms(self.labels.metric_name(), self.span);
    }

    fn note_ignored(&mut self) {
        self.notes.ignored_in_mixed_range(self.labels.metric_name(), self.span);
    }
}

/// The range functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeFn {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    SumOverTime,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    CountOverTime,
    PresentOverTime,
    FirstOverTime,
    LastOverTime,
    MadOverTime,
    QuantileOverTime,
    StddevOverTime,
    StdvarOverTime,
    TsOfFirst,
    TsOfLast,
    TsOfMax,
    TsOfMin,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Integral,
    Resets,
    Changes,
}

impl RangeFn {
    /// The function called `name`, if it is one of these.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "sum_over_time" => Self::SumOverTime,
            "avg_over_time" => Self::AvgOverTime,
            "min_over_time" => Self::MinOverTime,
            "max_over_time" => Self::MaxOverTime,
            "count_over_time" => Self::CountOverTime,
            "present_over_time" | "absent_over_time" => Self::PresentOverTime,
            "first_over_time" => Self::FirstOverTime,
            "last_over_time" => Self::LastOverTime,
            "mad_over_time" => Self::MadOverTime,
            "quantile_over_time" => Self::QuantileOverTime,
            "stddev_over_time" => Self::StddevOverTime,
            "stdvar_over_time" => Self::StdvarOverTime,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_max_over_time" => Self::TsOfMax,
            "ts_of_min_over_time" => Self::TsOfMin,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "integral" => Self::Integral,
            "resets" => Self::Resets,
            "changes" => Self::Changes,
            _ => return None,
        })
    }

    /// Whether the result is still the same metric.
    pub(crate) fn keeps_name(self) -> bool {
        matches!(self, Self::FirstOverTime | Self::LastOverTime)
    }

    /// Whether start timestamps change the result.
    pub(crate) fn uses_starts(self) -> bool {
        matches!(self, Self::Rate | Self::Irate | Self::Increase | Self::Resets)
    }

    /// Whether it may be applied to a selector with `mode`.
    pub(crate) fn allows(self, mode: Extended) -> bool {
        match mode {
            Extended::None => true,
            Extended::Anchored => {
                matches!(self, Self::Resets | Self::Changes | Self::Rate | Self::Increase | Self::Delta)
            }
            Extended::Smoothed => matches!(self, Self::Rate | Self::Increase | Self::Delta),
        }
    }

    /// Its value over `w`, which is not empty; `params` are the other arguments at this step.
    #[inline]
    pub(crate) fn apply(self, w: &Window<'_>, params: &[f64], site: &mut Site<'_>) -> Option<Cell> {
        let param = |at: usize| params.get(at).copied();
        match self {
            Self::Rate => rate::extrapolated(w, true, true, site),
            Self::Increase => rate::extrapolated(w, true, false, site),
            Self::Delta => rate::extrapolated(w, false, false, site),
            Self::Irate => rate::of_last_two(w, true, site),
            Self::Idelta => rate::of_last_two(w, false, site),
            Self::SumOverTime => over_time::sum(w, site),
            Self::AvgOverTime => over_time::avg(w, site),
            Self::MinOverTime => over_time::extreme(w, false, site, |v, best| v < best || best.is_nan()),
            Self::MaxOverTime => over_time::extreme(w, false, site, |v, best| v > best || best.is_nan()),
            Self::TsOfMin => over_time::extreme(w, true, site, |v, best| v <= best || best.is_nan()),
            Self::TsOfMax => over_time::extreme(w, true, site, |v, best| v >= best || best.is_nan()),
            Self::CountOverTime => Some(Cell::Float((w.values.len() + w.histograms.len()) as f64)),
            Self::PresentOverTime => Some(Cell::Float(1.0)),
            Self::FirstOverTime => over_time::first(w),
            Self::LastOverTime => over_time::last(w),
            Self::TsOfFirst => over_time::first_time(w),
            Self::TsOfLast => over_time::last_time(w),
            Self::MadOverTime => over_time::mad(w, site),
            Self::QuantileOverTime => over_time::quantile(w, param(0)?, site),
            Self::StddevOverTime => over_time::variance(w, site).map(|v| Cell::Float(v.sqrt())),
            Self::StdvarOverTime => over_time::variance(w, site).map(Cell::Float),
            Self::Deriv => trend::deriv(w, site),
            Self::PredictLinear => trend::predict_linear(w, param(0)?, site),
            Self::DoubleExponentialSmoothing => trend::smoothing(w, param(0)?, param(1)?, site),
            Self::Integral => trend::integral(w, param(0), site),
            Self::Resets => changes::resets(w),
            Self::Changes => changes::changes(w),
        }
    }
}
