//! Metrics of the node log.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Handles of the node log's metrics.
pub(crate) struct LogMetrics {
    pub(crate) flushes: Counter,
    pub(crate) records: Counter,
    pub(crate) bytes: Counter,
    pub(crate) flush_seconds: Histogram,
    pub(crate) segments: Gauge,
    pub(crate) disk_bytes: Gauge,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) damaged_records: Counter,
    pub(crate) failed: Gauge,
}

impl LogMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            flushes: Counter::default(),
            records: Counter::default(),
            bytes: Counter::default(),
            flush_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            segments: Gauge::default(),
            disk_bytes: Gauge::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            damaged_records: Counter::default(),
            failed: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("isobar_log");
        registry.register(
            "flushes",
            "Writes of the node log, each with one fdatasync",
            metrics.flushes.clone(),
        );
        registry.register("records", "Records written to the node log", metrics.records.clone());
        registry.register_with_unit("written", "Written to the node log", Unit::Bytes, metrics.bytes.clone());
        registry.register_with_unit(
            "flush_duration",
            "Time of one write and fdatasync of the node log",
            Unit::Seconds,
            metrics.flush_seconds.clone(),
        );
        registry.register("segments", "Segment files of the node log", metrics.segments.clone());
        registry.register_with_unit(
            "disk",
            "Size of the node log's segments, reserved space included",
            Unit::Bytes,
            metrics.disk_bytes.clone(),
        );
        registry.register(
            "cache_hits",
            "Entries of the node log read from memory",
            metrics.cache_hits.clone(),
        );
        registry.register(
            "cache_misses",
            "Entries of the node log read from disk",
            metrics.cache_misses.clone(),
        );
        registry.register(
            "damaged_records",
            "Records of the node log whose checksum was wrong",
            metrics.damaged_records.clone(),
        );
        registry.register(
            "failed",
            "1 after a failed write or fsync of the node log, which stops it for good",
            metrics.failed.clone(),
        );
        metrics
    }
}
