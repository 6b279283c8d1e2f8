//! Figures of storage, all under `isobar_storage_`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Handles of the storage metrics of one node; clones share the same figures.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Entries applied.
    pub entries: Counter,
    /// Samples stored or found to be there already, staleness markers not included.
    pub samples: Counter,
    /// Histograms stored or found to be there already.
    pub histograms: Counter,
    /// Exemplars stored or found to be there already.
    pub exemplars: Counter,
    /// Samples rejected by apply because another value is there.
    pub duplicates: Counter,
    /// Samples that came when their slot already had a newer one.
    pub late_samples: Counter,
    /// Staleness markers made for series missing from a scrape.
    pub staleness_markers: Counter,
    /// Series created.
    pub series_created: Counter,
    /// Series that take samples, over all shards.
    pub series: Gauge,
    /// Flushes that succeeded.
    pub flushes: Counter,
    /// Flushes that failed.
    pub flush_failures: Counter,
    /// Bytes of pages written by flushes.
    pub flushed_bytes: Counter,
    /// Bytes of pages written by background merges.
    pub merged_bytes: Counter,
    /// Damaged records met; each fails the read that met it.
    pub corruptions: Counter,
}

impl Metrics {
    /// Registers the figures.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let sub = registry.sub_registry_with_prefix("isobar_storage");
        for (name, help, counter) in [
            ("entries_applied", "Log entries applied by shards of this node", &metrics.entries),
            (
                "samples",
                "Samples stored, or found to be stored already with the same value",
                &metrics.samples,
            ),
            (
                "histograms",
                "Native histograms stored, or found to be stored already with the same value",
                &metrics.histograms,
            ),
            ("exemplars", "Exemplars stored, or found to be stored already", &metrics.exemplars),
            ("duplicate_samples", "Samples rejected because another value is stored", &metrics.duplicates),
            ("late_samples", "Samples older than the newest one of their series", &metrics.late_samples),
            (
                "staleness_markers",
                "Staleness markers made for series missing from a scrape",
                &metrics.staleness_markers,
            ),
            ("series_created", "Series created", &metrics.series_created),
            ("flushes", "Flushes to the database", &metrics.flushes),
            ("flush_failures", "Flushes to the database that failed", &metrics.flush_failures),
            ("flushed_bytes", "Bytes of pages written by flushes", &metrics.flushed_bytes),
            ("merged_bytes", "Bytes of pages written by merges", &metrics.merged_bytes),
            ("corruptions", "Damaged records met when reading", &metrics.corruptions),
        ] {
            sub.register(name, help, counter.clone());
        }
        sub.register("series", "Series that take samples", metrics.series.clone());
        metrics
    }
}
