//! The scraper's own figures; names are upstream's where dashboards use them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::append::AppendError;

/// The label of figures kept per job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct JobLabel {
    /// The job.
    pub(crate) scrape_job: String,
}

/// Handles of all figures of this crate; cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Scrapes by outcome: (result).
    pub(crate) scrapes: Counter,
    pub(crate) failures: Counter,
    pub(crate) write_failures: Counter,
    pub(crate) rejected: Counter,
    pub(crate) duration: Histogram,
    pub(crate) body_limit: Counter,
    pub(crate) sample_limit: Counter,
    pub(crate) bucket_limit: Counter,
    pub(crate) label_limit: Counter,
    pub(crate) target_limit: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) out_of_order: Counter,
    pub(crate) out_of_bounds: Counter,
    pub(crate) cache_flushes: Counter,
    pub(crate) targets: Family<JobLabel, Gauge>,
    pub(crate) syncs: Family<JobLabel, Counter>,
    pub(crate) sync_failures: Family<JobLabel, Counter>,
    pub(crate) http_sd_failures: Counter,
    pub(crate) file_sd_errors: Counter,
}

impl Metrics {
    /// Makes the figures and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            scrapes: Counter::default(),
            failures: Counter::default(),
            write_failures: Counter::default(),
            rejected: Counter::default(),
            duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            body_limit: Counter::default(),
            sample_limit: Counter::default(),
            bucket_limit: Counter::default(),
            label_limit: Counter::default(),
            target_limit: Counter::default(),
            duplicates: Counter::default(),
            out_of_order: Counter::default(),
            out_of_bounds: Counter::default(),
            cache_flushes: Counter::default(),
            targets: Family::default(),
            syncs: Family::default(),
            sync_failures: Family::default(),
            http_sd_failures: Counter::default(),
            file_sd_errors: Counter::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("isobar_scrapes", "Scrapes done", &self.scrapes),
            ("isobar_scrape_failures", "Scrapes that failed (up is 0)", &self.failures),
            (
                "isobar_scrape_write_failures",
                "Scrapes whose samples could not be stored",
                &self.write_failures,
            ),
            ("isobar_scrape_samples_rejected", "Scraped samples that were not stored", &self.rejected),
            (
                "prometheus_target_scrapes_exceeded_body_size_limit",
                "Total number of scrapes that hit the body size limit",
                &self.body_limit,
            ),
            (
                "prometheus_target_scrapes_exceeded_sample_limit",
                "Total number of scrapes that hit the sample limit and were rejected",
                &self.sample_limit,
            ),
            (
                "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
                "Total number of scrapes that hit the native histogram bucket limit and were rejected",
                &self.bucket_limit,
            ),
            (
                "prometheus_target_scrape_pool_exceeded_label_limits",
                "Total number of times scrape pools hit the label limits, during sync or config reload",
                &self.label_limit,
            ),
            (
                "prometheus_target_scrape_pool_exceeded_target_limit",
                "Total number of times scrape pools hit the target limit, during sync or config reload",
                &self.target_limit,
            ),
            (
                "prometheus_target_scrapes_sample_duplicate_timestamp",
                "Total number of samples rejected due to duplicate timestamps but different values",
                &self.duplicates,
            ),
            (
                "prometheus_target_scrapes_sample_out_of_order",
                "Total number of samples rejected due to not being out of the expected order",
                &self.out_of_order,
            ),
            (
                "prometheus_target_scrapes_sample_out_of_bounds",
                "Total number of samples rejected due to timestamp falling outside of the time bounds",
                &self.out_of_bounds,
            ),
            (
                "prometheus_target_scrapes_cache_flush_forced",
                "How many times a scrape cache was flushed due to getting big while scrapes are failing",
                &self.cache_flushes,
            ),
            (
                "prometheus_sd_http_failures",
                "Number of HTTP service discovery refresh failures",
                &self.http_sd_failures,
            ),
            ("prometheus_sd_file_read_errors", "The number of File-SD read errors", &self.file_sd_errors),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "isobar_scrape_duration_seconds",
            "Time of scrapes, from the request to the batch",
            self.duration.clone(),
        );
        registry.register(
            "prometheus_target_scrape_pool_targets",
            "Current number of targets in this scrape pool",
            self.targets.clone(),
        );
        registry.register(
            "prometheus_target_scrape_pool_sync",
            "Total number of syncs that were executed on a scrape pool",
            self.syncs.clone(),
        );
        registry.register(
            "prometheus_target_sync_failed",
            "Total number of target sync failures",
            self.sync_failures.clone(),
        );
    }

    /// Counts a scrape that was not stored, where a limit was the reason.
    pub(crate) fn count_append_error(&self, error: &AppendError) {
        match error {
            AppendError::SampleLimit => self.sample_limit.inc(),
            AppendError::BucketLimit => self.bucket_limit.inc(),
            AppendError::LabelLimit(_) => self.label_limit.inc(),
            _ => 0,
        };
    }
}
