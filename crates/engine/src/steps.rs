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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::seam::QueryBudget;
    use model::seam::fake::MemorySource;
    use model::{Labels, TenantId};
    use promql::{ParseOptions, parse};

    use super::*;
    use crate::{EvalContext, evaluate};

    /// Counts as upstream's `IncrementSamplesAtStep` and `IncrementSamplesReadAtStep` do (3.16, `promql/engine.go`).
    #[test]
    fn samples_are_counted_by_step() {
        let mut source = MemorySource::new();
        let labels = |name: &str, more: &[(&str, &str)]| {
            let base = [("__name__", name), ("job", "j"), ("instance", "i")];
            Labels::from_pairs(base.iter().chain(more).copied()).unwrap()
        };
        for minute in 0..4 {
            source.push(&labels("m", &[]), minute * 60_000, 1.0);
            source.push(&labels("target_info", &[("version", "1")]), minute * 60_000, 1.0);
        }
        let check = |query: &str, expected: &[(u64, u64)]| {
            let expr = parse(query, &ParseOptions::ALL).unwrap();
            let grid = StepGrid::range(60_000, 180_000, 60_000);
            let mut ctx = EvalContext::range(TenantId::anonymous(), grid.end(), QueryBudget::unlimited());
            let counts = Arc::new(StepCounts::new(grid));
            ctx.steps = Some(Arc::clone(&counts));
            evaluate(&expr, grid, &source, &ctx).unwrap();
            assert_eq!(counts.counts(), expected, "{query}");
        };
        check("m", &[(1, 1), (1, 1), (1, 1)]);
        check("count_over_time(m[2m])", &[(2, 2), (2, 1), (2, 1)]);
        check("absent_over_time(m[2m])", &[(2, 2), (2, 1), (2, 1)]);
        check("absent_over_time(nothing[2m])", &[(0, 0), (0, 0), (0, 0)]);
        check("info(m)", &[(2, 2), (2, 2), (2, 2)]);
    }
}
