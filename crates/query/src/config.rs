//! Settings of the frontend, as plain values; `server` reads flags and files.

use std::time::Duration;

/// Settings of the frontend. None is live-reloadable but the subquery step
/// ([`crate::Frontend::set_subquery_step`]).
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest time of a query, waiting included; a request may ask for less, never for more. Default 2 m.
    pub timeout: Duration,
    /// Most evaluations at a time; more wait. At least 1. Default 20.
    pub max_concurrency: usize,
    /// Most queries that wait; one more is refused as unavailable. Default 1,000.
    pub max_queued: usize,
    /// Most points per series of a range query. Default 11,000.
    pub max_points: i64,
    /// Most memory that one query may use, bytes; 0 = no limit. Default 1 GiB.
    pub max_memory_bytes: u64,
    /// How far back an instant selector looks for a sample, ms. Default 5 m.
    pub lookback_ms: i64,
    /// Step of subqueries that name none, ms (upstream: the global evaluation interval). Default 1 m.
    pub subquery_step_ms: i64,
    /// File in which the queries under way are noted, for the start after a crash; none by default.
    pub active_file: Option<std::path::PathBuf>,
    /// What the parser accepts beyond the stable language, and its bounds on one text.
    pub parser: promql::ParseOptions,
    /// Features that change results.
    pub features: engine::Features,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            max_concurrency: 20,
            max_queued: 1_000,
            max_points: 11_000,
            max_memory_bytes: 1 << 30,
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            active_file: None,
            parser: promql::ParseOptions::default(),
            features: engine::Features::default(),
        }
    }
}
