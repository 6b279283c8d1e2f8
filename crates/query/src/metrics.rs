//! The frontend's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Kind of call: `instant`, `range`, `labels` …
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    pub(crate) kind: &'static str,
}

/// Why a call failed: upstream's error types.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ErrorLabel {
    pub(crate) error: &'static str,
}

/// Handles of the frontend's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) duration: Family<KindLabel, Histogram, fn() -> Histogram>,
    pub(crate) queue: Histogram,
    pub(crate) failures: Family<ErrorLabel, Counter>,
    pub(crate) samples: Counter,
    pub(crate) running: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) panics: Counter,
    pub(crate) snapshot_retries: Counter,
    pub(crate) log_failures: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.5, 13))
}

impl Metrics {
    /// Registers the metrics; `max_concurrency` is shown as upstream shows it.
    pub(crate) fn register(registry: &mut Registry, max_concurrency: usize) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(seconds),
            queue: seconds(),
            failures: Family::default(),
            samples: Counter::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            panics: Counter::default(),
            snapshot_retries: Counter::default(),
            log_failures: Counter::default(),
        };
        let concurrent_max: Gauge = Gauge::default();
        concurrent_max.set(i64::try_from(max_concurrency).unwrap_or(i64::MAX));
        registry.register(
            "isobar_query_duration_seconds",
            "Time of queries and label calls, waiting included",
            metrics.duration.clone(),
        );
        registry.register(
            "isobar_query_queue_seconds",
            "Time that queries waited for a place",
            metrics.queue.clone(),
        );
        registry.register(
            "isobar_query_failures",
            "Failed queries and label calls",
            metrics.failures.clone(),
        );
        registry.register("isobar_query_waiting", "Queries that wait for a place", metrics.waiting.clone());
        registry.register(
            "isobar_query_panics",
            "Queries that ended in a defect of ours",
            metrics.panics.clone(),
        );
        registry.register(
            "isobar_query_snapshot_retries",
            "Snapshots of shards that were asked for again",
            metrics.snapshot_retries.clone(),
        );
        registry.register(
            "prometheus_engine_query_log_failures",
            "Lines of the query log that could not be written",
            metrics.log_failures.clone(),
        );
        registry.register(
            "prometheus_engine_query_samples",
            "Samples loaded by queries",
            metrics.samples.clone(),
        );
        registry.register(
            "prometheus_engine_queries",
            "Queries that are evaluated or wait",
            metrics.running.clone(),
        );
        registry.register(
            "prometheus_engine_queries_concurrent_max",
            "Most queries that are evaluated at a time",
            concurrent_max,
        );
        metrics
    }
}
