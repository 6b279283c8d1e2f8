//! The samples that windows slide over: of a series that was read, or of a column that a subquery made.

use std::sync::Arc;

use model::StepGrid;
use model::histogram::ResetHint;
use model::seam::SeriesData;

use super::times;
use crate::column::{Column, is_absent};
use crate::window::HistogramAt;

/// The samples of a series, floats and histograms apart, without staleness markers.
#[derive(Default)]
pub(super) struct Split {
    pub(super) stamps: Vec<i64>,
    pub(super) values: Vec<f64>,
    pub(super) starts: Vec<i64>,
    pub(super) histograms: Vec<HistogramAt>,
    pub(super) histogram_starts: Vec<i64>,
}

impl Split {
    /// Takes over the samples of `data`, leaving its old buffers there for reuse.
    pub(super) fn take(&mut self, data: &mut SeriesData, with_starts: bool) {
        self.histograms.clear();
        self.histogram_starts.clear();
        self.starts.clear();
        if data.histograms.is_empty() && !data.values.iter().any(|v| is_absent(*v)) {
            std::mem::swap(&mut self.stamps, &mut data.stamps);
            std::mem::swap(&mut self.values, &mut data.values);
            if with_starts {
                std::mem::swap(&mut self.starts, &mut data.starts);
            }
            return;
        }
        self.stamps.clear();
        self.values.clear();
        let with_starts = with_starts && !data.starts.is_empty();
        let mut coming = data.histograms.iter().peekable();
        for (at, (time, value)) in data.stamps.iter().zip(&data.values).enumerate() {
            if let Some((_, h)) = coming.next_if(|(position, _)| *position as usize == at) {
                if !h.is_stale() {
                    self.histograms.push(HistogramAt { time: *time, value: Arc::clone(h) });
                    if with_starts {
                        self.histogram_starts.push(data.starts[at]);
                    }
                }
            } else if !is_absent(*value) {
                self.stamps.push(*time);
                self.values.push(*value);
                if with_starts {
                    self.starts.push(data.starts[at]);
                }
            }
        }
    }

    /// Takes the cells of a subquery's column as samples.
    pub(super) fn take_column(&mut self, column: &Column, grid: StepGrid) {
        *self = Self {
            stamps: std::mem::take(&mut self.stamps),
            values: std::mem::take(&mut self.values),
            ..Self::default()
        };
        self.stamps.clear();
        self.values.clear();
        for (step, time) in times(grid).enumerate() {
            if let Some(h) = column.histogram(step) {
                // Hints speak of neighbours that the subquery may have left out.
                let value = match h.reset_hint {
                    ResetHint::Reset | ResetHint::NotReset => {
                        let mut h = (**h).clone();
                        h.reset_hint = ResetHint::Unknown;
                        Arc::new(h)
                    }
                    ResetHint::Unknown | ResetHint::Gauge => Arc::clone(h),
                };
                self.histograms.push(HistogramAt { time, value });
            } else if !is_absent(column.floats[step]) {
                self.stamps.push(time);
                self.values.push(column.floats[step]);
            }
        }
    }
}
