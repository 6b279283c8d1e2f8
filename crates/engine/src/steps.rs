//! How many samples each step of a query sees: a figure that costs something, and is counted where somebody asks for it.

use std::sync::atomic::{AtomicU64, Ordering};

use model::StepGrid;

/// How many samples each step of a query sees, for its statistics. Shared by all places that evaluate a part of it.
#[derive(Debug)]
pub struct StepCounts {
    grid: StepGrid,
    seen: Vec<(AtomicU64, AtomicU64)>,
}

impl StepCounts {
    /// No samples for the steps of `grid`.
    pub fn new(grid: StepGrid) -> Self {
        Self { grid, seen: (0..grid.count).map(|_| Default::default()).collect() }
    }

    /// The query's steps.
    pub fn grid(&self) -> StepGrid {
        self.grid
    }

    /// Counts `all` samples that `step` sees, `new` of which the step before did not see. A step beyond the grid is none.
    pub fn add(&self, step: usize, all: u64, new: u64) {
        if let Some((of_all, of_new)) = self.seen.get(step) {
            of_all.fetch_add(all, Ordering::Relaxed);
            of_new.fetch_add(new, Ordering::Relaxed);
        }
    }

    /// All and new samples of each step so far.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let read =
            |(all, new): &(AtomicU64, AtomicU64)| (all.load(Ordering::Relaxed), new.load(Ordering::Relaxed));
        self.seen.iter().map(read).collect()
    }
}
