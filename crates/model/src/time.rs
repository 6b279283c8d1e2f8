//! Time ranges and step grids in milliseconds, and Prometheus's duration texts.

/// A range of timestamps, open on the left and closed on the right: `after < t <= until`, as PromQL's
/// windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// Exclusive lower bound, ms.
    pub after: i64,
    /// Inclusive upper bound, ms.
    pub until: i64,
}

impl TimeRange {
    /// Everything.
    pub const ALL: Self = Self { after: i64::MIN, until: i64::MAX };

    /// The range from `start` to `end`, both included.
    pub fn closed(start: i64, end: i64) -> Self {
        Self { after: start.saturating_sub(1), until: end }
    }

    /// Whether `timestamp` lies in it.
    pub fn contains(&self, timestamp: i64) -> bool {
        self.after < timestamp && timestamp <= self.until
    }
}

/// The evaluation times of a query: `start`, `start + step`, …, `count` of them. An instant query has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepGrid {
    /// First evaluation time, ms.
    pub start: i64,
    /// Distance, ms; positive also when `count` is 1.
    pub step: i64,
    /// Number of evaluation times, at least 1.
    pub count: usize,
}

impl StepGrid {
    /// The grid of an instant query at `time`.
    pub fn instant(time: i64) -> Self {
        Self { start: time, step: 1, count: 1 }
    }

    /// The grid from `start` to at most `end` by `step` (positive); at least one step.
    pub fn range(start: i64, end: i64, step: i64) -> Self {
        let count = usize::try_from((end.saturating_sub(start)) / step).unwrap_or(0) + 1;
        Self { start, step, count }
    }

    /// The time of step `index`.
    pub fn at(&self, index: usize) -> i64 {
        self.start + index as i64 * self.step
    }

    /// The last evaluation time.
    pub fn end(&self) -> i64 {
        self.at(self.count - 1)
    }
}
