//! Metrics of the peer transport.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use model::NodeId;

use crate::identity::Lane;

/// A peer and a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerLane {
    pub(crate) peer: String,
    pub(crate) lane: &'static str,
}

impl PeerLane {
    pub(crate) fn new(node: NodeId, lane: Lane) -> Self {
        Self { peer: format!("{:016x}", node.0), lane: lane.as_str() }
    }
}

/// Why a handshake gave no connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    pub(crate) reason: &'static str,
}

/// Handles of this crate's metrics. Shared by both directions; made once a process.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) connections: Family<PeerLane, Gauge>,
    pub(crate) connects: Family<PeerLane, Counter>,
    pub(crate) connect_failures: Family<PeerLane, Counter>,
    pub(crate) frames: Family<PeerLane, Counter>,
    pub(crate) calls: Family<PeerLane, Counter>,
    pub(crate) timeouts: Family<PeerLane, Counter>,
    pub(crate) sent: Family<PeerLane, Counter>,
    pub(crate) received: Family<PeerLane, Counter>,
    pub(crate) accepted: Gauge,
    pub(crate) refused: Family<Reason, Counter>,
    pub(crate) certificate_reloads: Counter,
    pub(crate) certificate_errors: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let r = registry.sub_registry_with_prefix("isobar_peer");
        r.register("connections", "Open connections made to a peer", metrics.connections.clone());
        r.register("connects", "Connections made to a peer", metrics.connects.clone());
        r.register(
            "connect_failures",
            "Attempts to connect to a peer that failed",
            metrics.connect_failures.clone(),
        );
        r.register("frames", "Frames of calls sent to a peer", metrics.frames.clone());
        r.register(
            "calls",
            "Calls sent to a peer in frames; by frames = calls a frame",
            metrics.calls.clone(),
        );
        r.register("timeouts", "Calls to a peer that were not answered in time", metrics.timeouts.clone());
        r.register_with_unit("sent", "Bytes sent to a peer, before TLS", Unit::Bytes, metrics.sent.clone());
        r.register_with_unit(
            "received",
            "Bytes received from a peer, after TLS",
            Unit::Bytes,
            metrics.received.clone(),
        );
        r.register("accepted_connections", "Open connections from peers", metrics.accepted.clone());
        r.register(
            "handshakes_refused",
            "Connections to the peer port that were refused",
            metrics.refused.clone(),
        );
        r.register(
            "certificate_reloads",
            "Times the certificate files were read again after a change",
            metrics.certificate_reloads.clone(),
        );
        r.register(
            "certificate_reload_failures",
            "Times changed certificate files could not be used; the old ones stay",
            metrics.certificate_errors.clone(),
        );
        metrics
    }

    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }
}
