//! What there is to see of a cluster: members, shards, leaders, replicas, lag, settings and who differs from them.
//!
//! Each node tells what it sees of its own groups; whoever is asked puts the answers of all nodes together. A node that
//! does not answer is shown as that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use model::seam::{
    BoxFuture, ClusterStatus, ClusterView, MemberStatus, ReplicaStatus, ReplicaView, ShardStatus,
};
use model::{Failure, NodeId, ShardId};

use crate::coding::{In, Out};
use crate::group::RETRY;
use crate::meta::{self, Cluster};
use crate::metrics::ShardLabel;
use crate::node::{Inner, Local, Replication};
use crate::settings::SettingError;
use crate::talk::{Ask, Reply};
use crate::tend::ask_leader;

/// How long a node may take to tell what it sees.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a change is tried again that others got ahead of.
const TRIES: usize = 5;
const VERSION: u8 = 1;

/// What a node sees of its own replicas, the meta group's included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnStatus {
    pub(crate) replicas: BTreeMap<u64, ReplicaView>,
}

impl OwnStatus {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        for (replica, view) in &self.replicas {
            for number in [*replica, view.applied, view.committed] {
                out.number(number);
            }
            let flags = [view.leads, view.ready, view.failed, view.votes, view.full, view.quarantined];
            out.byte(flags.iter().enumerate().map(|(at, flag)| u8::from(*flag) << at).sum());
        }
        out.0
    }

    /// Whether the node says that its disk has no space for writes.
    pub(crate) fn is_full(&self) -> bool {
        self.replicas.values().any(|view| view.full)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = In(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let mut replicas = BTreeMap::new();
        while input.end().is_none() {
            let (replica, applied, committed) = (input.number()?, input.number()?, input.number()?);
            let flags = input.byte()?;
            let [leads, ready, failed, votes, full, quarantined] =
                [0, 1, 2, 3, 4, 5].map(|at| flags >> at & 1 == 1);
            let view = ReplicaView { applied, committed, leads, ready, failed, quarantined, votes, full };
            replicas.insert(replica, view);
        }
        Some(Self { replicas })
    }
}

/// What this node sees of its own replicas.
pub(crate) fn own(inner: &Inner) -> OwnStatus {
    let full = inner.guard.is_full();
    let groups = inner.groups.read();
    let mut replicas: BTreeMap<u64, ReplicaView> = groups
        .values()
        .map(|group| {
            let (applied, committed) = group.progress();
            let (leads, ready) = (group.leading().is_some(), inner.is_caught_up(group));
            let votes = group.membership().voter_ids().any(|id| id == group.id.0);
            // One that differs from its leader's is nothing to rely on.
            let quarantined = inner.quarantine.contains(group.id.0);
            let failed = quarantined || inner.differing.contains(group.id.0) || group.broken().is_some();
            let ready = ready && !failed;
            (group.id.0, ReplicaView { applied, committed, leads, ready, failed, quarantined, votes, full })
        })
        .collect();
    drop(groups);
    let cluster = inner.cluster.load();
    for (shard, replica, _) in cluster.iter().flat_map(|cluster| cluster.replicas_on(inner.node)) {
        if matches!(inner.shards.read().get(&shard), Some(Local::Failed(_))) {
            let view = replicas.entry(replica.0).or_default();
            (view.failed, view.quarantined) = (true, inner.quarantine.contains(replica.0));
        }
    }
    OwnStatus { replicas }
}

/// Brings the metrics of the cluster up to date.
pub(crate) fn measure(inner: &Inner) {
    let Some(cluster) = inner.cluster.load_full() else { return };
    let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let metrics = &inner.metrics;
    metrics.members.set(gauge(cluster.members.len()));
    metrics.settings_drift.set(gauge(cluster.settings.drift(&inner.own.lock()).len()));
    let (mut leads, mut leaderless, mut short) = (0, 0, 0);
    for (shard, group) in inner.running_shards() {
        let (applied, committed) = group.progress();
        let label = ShardLabel { shard: shard.0 };
        metrics.lag.get_or_create(&label).set(i64::try_from(committed - applied).unwrap_or(i64::MAX));
        leaderless += usize::from(group.leader().is_none());
        if group.leading().is_some() {
            leads += 1;
            let membership = group.membership();
            let good = membership
                .voter_ids()
                .filter(|id| *id == group.id.0 || group.is_current(*id) && group.answers(*id))
                .count();
            short += usize::from(good < cluster.settings.replication_factor());
        }
    }
    metrics.leads.set(gauge(leads));
    metrics.leaderless.set(gauge(leaderless));
    metrics.short.set(gauge(short));
}

impl ClusterView for Replication {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(gather(&self.inner))
    }

    fn change_settings(&self, changes: Vec<(String, String)>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let inner = &self.inner;
            for _ in 0..TRIES {
                let cluster = inner.cluster()?;
                let bad = |error: SettingError| Failure::invalid(error.to_string());
                let new = cluster.settings.changed(&changes).map_err(bad)?;
                if new.values == cluster.settings.values {
                    return Ok(());
                }
                if inner.command(&meta::set_settings(&cluster.settings, &new)).await? {
                    return Ok(());
                }
                inner.meta_changed(&cluster).await;
            }
            Err(Failure::unavailable("the settings are being changed by others; try again", RETRY))
        })
    }

    fn transfer_leader(&self, shard: ShardId, node: String) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let inner = &self.inner;
            let cluster = inner.cluster()?;
            let to = named(&cluster, &node)?;
            ask_leader(inner, shard, &Ask::Transfer { shard, to }).await
        })
    }

    fn remove_node(&self, node: String) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let inner = &self.inner;
            for _ in 0..TRIES {
                let cluster = inner.cluster()?;
                let node = named(&cluster, &node)?;
                let replicas = cluster.replicas_on(node).len();
                if replicas > 0 {
                    let name = &cluster.members[&node].name;
                    let reason =
                        format!("node {name} has {replicas} replicas; moving them away is not there yet");
                    return Err(Failure::invalid(reason));
                }
                if inner.command(&meta::remove_member(node, &cluster.members[&node])).await? {
                    return Ok(());
                }
                inner.meta_changed(&cluster).await;
            }
            Err(Failure::unavailable("the node's record is being changed by others; try again", RETRY))
        })
    }
}

/// The member of that name or id.
fn named(cluster: &Cluster, node: &str) -> Result<NodeId, Failure> {
    let by_name = cluster.members.iter().find(|(_, member)| member.name == node).map(|(id, _)| *id);
    let by_id =
        || u64::from_str_radix(node, 16).ok().map(NodeId).filter(|id| cluster.members.contains_key(id));
    by_name
        .or_else(by_id)
        .ok_or_else(|| Failure::invalid(format!("there is no node {node:?} in the cluster")))
}

impl Inner {
    /// The cluster's state, or that there is none yet.
    pub(crate) fn cluster(&self) -> Result<std::sync::Arc<Cluster>, Failure> {
        let none = || {
            let waits = self.waits_for.lock();
            Failure::unavailable(format!("this node does not belong to a cluster yet: {waits}"), RETRY)
        };
        self.cluster.load_full().ok_or_else(none)
    }

    /// What a node sees of its replicas; `None` when it does not answer.
    pub(crate) async fn status_of(&self, node: NodeId) -> Option<OwnStatus> {
        if node == self.node {
            return Some(own(self));
        }
        match self.ask(node, &Ask::Status, ANSWER).await {
            Ok(Reply::Status(bytes)) => OwnStatus::decode(&bytes),
            Ok(_) => None,
            Err(failure) => {
                tracing::debug!(node = format!("{:016x}", node.0), %failure, "a node does not tell its status");
                None
            }
        }
    }

    /// Waits a moment for the state to be another one than `known`.
    async fn meta_changed(&self, known: &Cluster) {
        for _ in 0..20 {
            if self.cluster.load().as_deref() != Some(known) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn gather(inner: &Inner) -> ClusterStatus {
    let Some(cluster) = inner.cluster.load_full() else {
        return ClusterStatus {
            name: inner.folder.identity().cluster_name,
            id: 0,
            node: inner.node,
            waits_for: inner.waits_for.lock().clone(),
            members: Vec::new(),
            shards: Vec::new(),
            settings_version: 0,
            settings: BTreeMap::new(),
        };
    };
    let asked = cluster.members.keys().map(|node| async move { (*node, inner.status_of(*node).await) });
    let told: BTreeMap<NodeId, Option<OwnStatus>> = join_all(asked).await.into_iter().collect();
    let view = |node: NodeId, replica: u64| {
        told.get(&node).and_then(Option::as_ref).and_then(|own| own.replicas.get(&replica)).copied()
    };
    let factor = cluster.settings.replication_factor();
    let shards: Vec<ShardStatus> = cluster
        .map
        .all_shards()
        .into_iter()
        .map(|shard| {
            let placed = cluster.replicas.get(&shard).into_iter().flatten();
            let seen: Vec<_> =
                placed.map(|(id, placed)| (*id, placed.node, view(placed.node, id.0))).collect();
            let committed =
                seen.iter().filter_map(|(_, _, view)| view.map(|v| v.committed)).max().unwrap_or(0);
            let good = seen.iter().filter(|(_, _, view)| view.is_some_and(|v| v.ready && v.votes)).count();
            ShardStatus {
                shard,
                leader: seen
                    .iter()
                    .find(|(_, _, view)| view.is_some_and(|v| v.leads))
                    .map(|(_, node, _)| *node),
                missing: factor.max(seen.len()).saturating_sub(good),
                replicas: seen
                    .into_iter()
                    .map(|(replica, node, view)| {
                        let lag = view.map_or(committed, |v| committed.saturating_sub(v.applied));
                        ReplicaStatus { replica, node, view, lag }
                    })
                    .collect(),
            }
        })
        .collect();
    let meta = inner.meta.load_full();
    let voters: BTreeSet<u64> =
        meta.iter().flat_map(|meta| meta.membership().voter_ids().collect::<Vec<_>>()).collect();
    let meta_leader = meta.and_then(|meta| meta.leader()).map(|(_, node)| node);
    let members = cluster
        .members
        .iter()
        .map(|(node, member)| MemberStatus {
            node: *node,
            name: member.name.clone(),
            zone: member.zone.clone(),
            address: member.address.clone(),
            answers: told.get(node).is_some_and(Option::is_some),
            meta_voter: voters.contains(&member.meta_replica),
            meta_leader: meta_leader == Some(*node),
            replicas: cluster.replicas_on(*node).len(),
            leads: shards.iter().filter(|shard| shard.leader == Some(*node)).count(),
            disk_full: told.get(node).and_then(Option::as_ref).is_some_and(OwnStatus::is_full),
            drift: cluster.settings.drift(&member.own),
        })
        .collect();
    ClusterStatus {
        name: cluster.name.clone(),
        id: cluster.id,
        node: inner.node,
        waits_for: String::new(),
        members,
        shards,
        settings_version: cluster.settings.version,
        settings: cluster.settings.values.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_sees_comes_back() {
        let view = |n: u64| ReplicaView {
            applied: n,
            committed: n + 1,
            leads: n.is_multiple_of(2),
            ready: n.is_multiple_of(3),
            failed: n == 4,
            quarantined: n == 5,
            votes: n > 2,
            full: n > 5,
        };
        let status = OwnStatus { replicas: (1..9).map(|n| (n, view(n))).collect() };
        let bytes = status.encode();
        assert_eq!(OwnStatus::decode(&bytes), Some(status));
        assert_eq!(OwnStatus::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(OwnStatus::decode(&[]), None);
    }
}
