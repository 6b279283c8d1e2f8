//! Metrics of replication.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A shard as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ShardLabel {
    pub(crate) shard: u32,
}

/// Handles of this crate's metrics.
pub(crate) struct Metrics {
    pub(crate) proposals: Counter,
    pub(crate) proposed_bytes: Counter,
    pub(crate) batches: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) waiting_bytes: Gauge,
    pub(crate) refused_overload: Counter,
    pub(crate) refused_disk: Counter,
    pub(crate) disk_free: Gauge,
    pub(crate) disk_full: Gauge,
    pub(crate) unready: Gauge,
    pub(crate) flushes: Counter,
    pub(crate) flush_failures: Counter,
    pub(crate) flush_seconds: Histogram,
    pub(crate) reads: Counter,
    pub(crate) read_probes: Counter,
    pub(crate) ready_groups: Gauge,
    pub(crate) replay_left: Gauge,
    pub(crate) terms: Family<ShardLabel, Gauge>,
    pub(crate) resting: Gauge,
    pub(crate) compared: Counter,
    pub(crate) differing: Gauge,
    pub(crate) quarantined: Gauge,
    pub(crate) quarantines: Counter,
    pub(crate) fetched_bytes: Counter,
    pub(crate) installed_snapshots: Counter,
    pub(crate) members: Gauge,
    pub(crate) settings_drift: Gauge,
    pub(crate) leads: Gauge,
    pub(crate) leaderless: Gauge,
    pub(crate) short: Gauge,
    pub(crate) lag: Family<ShardLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let metrics = Self {
            proposals: Counter::default(),
            proposed_bytes: Counter::default(),
            batches: Counter::default(),
            commit_seconds: seconds(),
            waiting_bytes: Gauge::default(),
            refused_overload: Counter::default(),
            refused_disk: Counter::default(),
            disk_free: Gauge::default(),
            disk_full: Gauge::default(),
            unready: Gauge::default(),
            flushes: Counter::default(),
            flush_failures: Counter::default(),
            flush_seconds: seconds(),
            reads: Counter::default(),
            read_probes: Counter::default(),
            ready_groups: Gauge::default(),
            replay_left: Gauge::default(),
            terms: Family::default(),
            resting: Gauge::default(),
            compared: Counter::default(),
            differing: Gauge::default(),
            quarantined: Gauge::default(),
            quarantines: Counter::default(),
            fetched_bytes: Counter::default(),
            installed_snapshots: Counter::default(),
            members: Gauge::default(),
            settings_drift: Gauge::default(),
            leads: Gauge::default(),
            leaderless: Gauge::default(),
            short: Gauge::default(),
            lag: Family::default(),
        };
        let r = registry.sub_registry_with_prefix("isobar_replication");
        let bytes = || Unit::Bytes;
        r.register("proposals", "Log entries proposed by this node's leaders", metrics.proposals.clone());
        r.register_with_unit("proposed", "Size of entries proposed", bytes(), metrics.proposed_bytes.clone());
        r.register("batches", "Batches of samples that were committed", metrics.batches.clone());
        r.register_with_unit(
            "commit_duration",
            "Time from proposing an entry until it is applied",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        r.register_with_unit(
            "waiting",
            "Batches that wait for commit",
            bytes(),
            metrics.waiting_bytes.clone(),
        );
        r.register(
            "refused_overload",
            "Writes refused since too much waits",
            metrics.refused_overload.clone(),
        );
        r.register(
            "refused_disk_full",
            "Writes refused since the disk is full",
            metrics.refused_disk.clone(),
        );
        r.register_with_unit(
            "disk_free",
            "Free space of the data folder's file system",
            bytes(),
            metrics.disk_free.clone(),
        );
        r.register(
            "disk_full",
            "1 while this node leads nothing (where others can) and takes no writes for lack of disk space",
            metrics.disk_full.clone(),
        );
        r.register(
            "unready",
            "1 while a node that has started is not ready: its log has failed, or a replica is far behind",
            metrics.unready.clone(),
        );
        r.register("flushes", "Flushes of shards to the database", metrics.flushes.clone());
        r.register("flush_failures", "Flushes of shards that failed", metrics.flush_failures.clone());
        r.register_with_unit(
            "flush_duration",
            "Time of one flush",
            Unit::Seconds,
            metrics.flush_seconds.clone(),
        );
        r.register(
            "linearizable_reads",
            "Reads that had to see every acknowledged write",
            metrics.reads.clone(),
        );
        r.register("read_probes", "Probes of leadership made for those reads", metrics.read_probes.clone());
        r.register(
            "ready_groups",
            "Groups of this node that have a leader and have replayed",
            metrics.ready_groups.clone(),
        );
        r.register("replay_entries_left", "Log entries still to be replayed", metrics.replay_left.clone());
        r.register("term", "Raft term of a shard in which this node leads", metrics.terms.clone());
        r.register(
            "resting_groups",
            "Groups of this node in which nothing happens, and whose timers stand still",
            metrics.resting.clone(),
        );
        r.register(
            "compared_replicas",
            "Replicas on other nodes whose state was compared with the one here, which leads",
            metrics.compared.clone(),
        );
        r.register(
            "differing_replicas",
            "Replicas of this node whose state differed from others' at the same log entry; always 0",
            metrics.differing.clone(),
        );
        r.register(
            "quarantined_replicas",
            "Replicas of this node that serve nothing since they differed from a majority, until they are made right",
            metrics.quarantined.clone(),
        );
        r.register(
            "quarantines",
            "How often a replica of this node was found to differ from a majority",
            metrics.quarantines.clone(),
        );
        r.register_with_unit(
            "fetched",
            "Size of state fetched from other nodes for replicas that the log could not bring up",
            bytes(),
            metrics.fetched_bytes.clone(),
        );
        r.register(
            "snapshots_installed",
            "States from other nodes that replaced a replica's own",
            metrics.installed_snapshots.clone(),
        );
        r.register("leaders", "Shards that this node leads", metrics.leads.clone());
        r.register(
            "shards_without_leader",
            "Shards with a replica here of which no leader is known",
            metrics.leaderless.clone(),
        );
        r.register(
            "shards_short_of_replicas",
            "Shards led here that have fewer copies than the settings ask for, or copies that are behind or silent",
            metrics.short.clone(),
        );
        r.register(
            "lag_entries",
            "Committed log entries that a replica here has not applied",
            metrics.lag.clone(),
        );
        let r = registry.sub_registry_with_prefix("isobar_cluster");
        r.register("members", "Nodes of the cluster", metrics.members.clone());
        r.register(
            "settings_drift",
            "Settings in which this node's flags differ from the cluster's",
            metrics.settings_drift.clone(),
        );
        metrics
    }
}
