//! Metrics of the HTTP interface. Those that dashboards for Prometheus know have upstream's names.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::otlp::OtlpMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) handler: Arc<str>,
    pub(crate) code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct HandlerLabel {
    pub(crate) handler: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// Handles of the HTTP interface's metrics.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) duration: Family<HandlerLabel, Histogram, fn() -> Histogram>,
    pub(crate) panics: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Family<ReasonLabel, Counter>,
    pub(crate) write_samples: Counter,
    pub(crate) write_rejected: Family<ReasonLabel, Counter>,
    pub(crate) write_failures: Family<ReasonLabel, Counter>,
    pub(crate) writes_held_bytes: Gauge,
    pub(crate) otlp: OtlpMetrics,
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0])
}

impl ApiMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
            panics: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            write_samples: Counter::default(),
            write_rejected: Family::default(),
            write_failures: Family::default(),
            writes_held_bytes: Gauge::default(),
            otlp: OtlpMetrics::register(registry),
        };
        registry.register(
            "prometheus_http_requests",
            "HTTP requests by handler and code",
            metrics.requests.clone(),
        );
        registry.register(
            "prometheus_http_request_duration_seconds",
            "Time until the head of the answer, by handler",
            metrics.duration.clone(),
        );
        registry.register(
            "isobar_http_panics",
            "Requests that ended in a defect of ours",
            metrics.panics.clone(),
        );
        registry.register("isobar_http_connections", "Open HTTP connections", metrics.connections.clone());
        registry.register(
            "isobar_http_connections_refused",
            "HTTP connections that this side closed",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "isobar_remote_write_samples",
            "Samples stored by remote write",
            metrics.write_samples.clone(),
        );
        registry.register(
            "isobar_remote_write_rejected_samples",
            "Samples of remote write that were not stored, by reason",
            metrics.write_rejected.clone(),
        );
        registry.register(
            "isobar_remote_write_failures",
            "Requests of remote write that were refused as a whole",
            metrics.write_failures.clone(),
        );
        registry.register(
            "isobar_remote_write_held_bytes",
            "Decompressed write requests in memory",
            metrics.writes_held_bytes.clone(),
        );
        metrics
    }
}
