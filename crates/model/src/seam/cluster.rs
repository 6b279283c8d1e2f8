//! What there is to see of the cluster, and to change in it: asked by `api`, answered by `replication`.

use std::collections::BTreeMap;

use super::BoxFuture;
use crate::{Failure, NodeId, ReplicaId, ShardId};

/// A replica as its own node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// The last entry that it applied.
    pub applied: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it is caught up.
    pub ready: bool,
    /// Whether it cannot be relied on: it could not start, has stopped, or differs from others.
    pub failed: bool,
    /// Whether it differed from a majority and its state is fetched again.
    pub quarantined: bool,
    /// Whether its leader counts its vote.
    pub votes: bool,
    /// Whether its node's disk is too full for it to take writes as a leader.
    pub full: bool,
}

/// A member of the cluster.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its zone, empty for none.
    pub zone: String,
    /// Where its peers reach it.
    pub address: String,
    /// Whether it answered.
    pub answers: bool,
    /// Whether it votes in the meta group.
    pub meta_voter: bool,
    /// Whether it leads the meta group.
    pub meta_leader: bool,
    /// Replicas of shards on it.
    pub replicas: usize,
    /// Shards that it leads.
    pub leads: usize,
    /// Whether its disk is too full for writes: others lead, where they have space.
    pub disk_full: bool,
    /// Settings in which its flags differ from the cluster's: key, its value, the cluster's.
    pub drift: Vec<(String, String, String)>,
}

/// A replica of a shard.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Its id.
    pub replica: ReplicaId,
    /// Where it is.
    pub node: NodeId,
    /// What its node says; `None` when that does not answer, or has not started it yet.
    pub view: Option<ReplicaView>,
    /// Entries that it is behind what is known to be committed anywhere.
    pub lag: u64,
}

/// A shard.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Replicas that should be there, have a vote and be caught up, and are not.
    pub missing: usize,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// The node that was asked.
    pub node: NodeId,
    /// What it waits for before it belongs to a cluster; then the rest is empty.
    pub waits_for: String,
    /// The members.
    pub members: Vec<MemberStatus>,
    /// The shards.
    pub shards: Vec<ShardStatus>,
    /// Version of the settings that must agree, counted from 1.
    pub settings_version: u64,
    /// Those settings by key.
    pub settings: BTreeMap<String, String>,
}

/// The cluster, for those who show and change it.
pub trait ClusterView: Send + Sync {
    /// The cluster as this node sees it, with what the other nodes tell within a second.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// Changes settings that must agree, all together. `Ok` once that is committed; bad keys and values are
    /// [`crate::Code::Invalid`].
    fn change_settings(&self, changes: Vec<(String, String)>) -> BoxFuture<'_, Result<(), Failure>>;

    /// Has the leadership of a shard handed to a node, given by its name or id. `Ok` once another node leads.
    fn transfer_leader(&self, shard: ShardId, node: String) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes a node, given by its name or id, that has no replica of a shard: it can never come back under its id.
    fn remove_node(&self, node: String) -> BoxFuture<'_, Result<(), Failure>>;
}
