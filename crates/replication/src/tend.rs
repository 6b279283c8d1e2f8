//! Bringing groups to what the meta state says, as their leader: members, voters, leaders.
//!
//! Level-triggered: every half second the leader of a group compares and makes one change. The meta group's leader also
//! places the replicas that the settings ask for and no node has yet. A shard's voters change once, when all its new
//! replicas are there and have caught up. Leaderships are spread evenly: who leads more than another could hands one
//! over, one at a time and not often. A node whose log has failed, or that stops, hands over all of them; one whose disk is
//! full those for which another node has space, and gets none until it has space again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use model::{Failure, NodeId, ShardId};
use topology::replicas::{meta_voters, next_transfer};

use crate::group::{Group, LeadError, RETRY};
use crate::meta::{self, Cluster};
use crate::node::Inner;
use crate::status::OwnStatus;
use crate::talk::{Ask, Deletion, Reply};
use crate::types::Peer;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two leaderships that this node hands over for balance.
const BALANCE: Duration = Duration::from_secs(5);
/// How long the leader of a shard may take for what it is asked to do.
const LED_ANSWER: Duration = Duration::from_secs(5);
/// How long a leadership may take to change hands.
const TRANSFER: Duration = Duration::from_secs(3);

/// Tends the groups that this node leads until the node stops.
pub(crate) fn start(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    inner.ground.data.clone().spawn(async move {
        let mut balanced = inner.clock.monotonic();
        while !inner.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            if inner.log.failure().is_some() {
                // Nothing can be stored here any more, but a leader that appends nothing would not notice: others lead.
                hand_over_all(&inner).await;
                continue;
            }
            if inner.guard.is_full() && inner.leads() {
                let able = inner.able(true).await;
                hand_over(&inner, |replica| able.contains(&replica)).await;
            }
            let Some(cluster) = inner.cluster.load_full() else { continue };
            if let Err(failure) = look(&inner, &cluster).await {
                tracing::info!(%failure, "a group is not as the cluster's state says yet");
            }
            let now = inner.clock.monotonic();
            if now.saturating_sub(balanced) >= BALANCE {
                balanced = now;
                if !inner.guard.is_full()
                    && let Err(failure) = balance(&inner).await
                {
                    tracing::info!(%failure, "a leadership was not handed over");
                }
            }
        }
    });
}

async fn look(inner: &Inner, cluster: &Cluster) -> Result<(), Failure> {
    let meta = inner.meta_group()?;
    if meta.leading().is_some() {
        let members = cluster
            .members
            .iter()
            .map(|(node, member)| (member.meta_replica, Peer { node: node.0 }))
            .collect();
        let now: BTreeSet<NodeId> =
            meta.membership().voter_ids().filter_map(|id| cluster.node_of(model::ReplicaId(id))).collect();
        let voters = meta_voters(&cluster.sites(), &now);
        let voters = voters.iter().map(|node| cluster.members[node].meta_replica).collect();
        tend(&meta, &members, &voters).await?;
        if let Some(command) = meta::place_missing(cluster) {
            inner.command(&command).await?;
        }
    }
    let tended = inner.running_shards().into_iter().filter_map(|(shard, group)| {
        group.leading()?;
        let replicas: BTreeMap<u64, Peer> = cluster
            .replicas
            .get(&shard)?
            .iter()
            .map(|(id, placed)| (id.0, Peer { node: placed.node.0 }))
            .collect();
        Some(async move {
            let voters = replicas.keys().copied().collect();
            tend(&group, &replicas, &voters).await
        })
    });
    join_all(tended.collect::<Vec<_>>()).await.into_iter().collect()
}

/// Makes one change towards `members`, of which `voters` vote.
async fn tend(group: &Group, members: &BTreeMap<u64, Peer>, voters: &BTreeSet<u64>) -> Result<(), Failure> {
    let membership = group.membership();
    let known: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    let missing = members.iter().filter(|(id, _)| !known.contains(id));
    for (replica, peer) in missing {
        tracing::info!(group = %group.name, replica, node = peer.node, "a replica is added");
        group.add_learner(*replica, *peer).await?;
    }
    if members.keys().any(|id| !known.contains(id)) {
        return Ok(());
    }
    let now: BTreeSet<u64> = membership.voter_ids().collect();
    let is_joint = membership.get_joint_config().len() > 1;
    if is_joint || now != *voters {
        if voters.iter().filter(|id| !now.contains(id)).all(|id| group.is_current(*id)) {
            tracing::info!(group = %group.name, ?voters, "the voters change");
            group.change_voters(voters.clone()).await?;
        }
        return Ok(());
    }
    let gone: BTreeSet<u64> = known.into_iter().filter(|id| !members.contains_key(id)).collect();
    if !gone.is_empty() {
        tracing::info!(group = %group.name, ?gone, "replicas are taken out");
        group.remove_learners(gone).await?;
    }
    Ok(())
}

/// Hands one leadership over when this node leads more than another could.
async fn balance(inner: &Inner) -> Result<(), Failure> {
    let (mut led, mut load) = (BTreeMap::new(), BTreeMap::new());
    for (shard, group) in inner.running_shards() {
        let Some((_, leader)) = group.leader() else { return Ok(()) };
        *load.entry(leader).or_insert(0) += 1;
        if group.leading().is_some() {
            // Who does not keep up with the group gets no more of them.
            let membership = group.membership();
            let others = membership.voter_ids().filter(|id| *id != group.id.0 && group.answers(*id));
            let others = others.filter_map(|id| membership.get_node(&id).map(|peer| NodeId(peer.node)));
            led.insert(shard, others.collect::<Vec<_>>());
        }
    }
    // What others lead of the shards that are not here counts too. Without it they look freer than they are, so that nobody
    // is asked while there is nothing to do.
    if next_transfer(inner.node, &led, &load).is_none() {
        return Ok(());
    }
    let (mut load, mut able) = (BTreeMap::new(), BTreeSet::new());
    let cluster = inner.cluster.load_full();
    for (node, own) in inner.told().await {
        for (shard, id, _) in cluster.iter().flat_map(|cluster| cluster.replicas_on(node)) {
            let Some(view) = own.replicas.get(&id.0) else { continue };
            *load.entry(node).or_insert(0) += usize::from(view.leads);
            if !view.failed && !own.is_full() {
                able.insert((shard, node));
            }
        }
    }
    for (shard, nodes) in &mut led {
        nodes.retain(|node| able.contains(&(*shard, *node)));
    }
    let Some((shard, to)) = next_transfer(inner.node, &led, &load) else { return Ok(()) };
    tracing::info!(shard = shard.0, to = format!("{:016x}", to.0), "handing a leadership over for balance");
    transfer_led(inner, shard, to).await.map_err(Failure::from)
}

/// Hands the leadership of a shard that this node leads to the node `to`.
async fn transfer_led(inner: &Inner, shard: ShardId, to: NodeId) -> Result<(), LeadError> {
    let running = inner.running_shards().into_iter().find(|(id, _)| *id == shard);
    let Some((_, group)) = running else { return Err(LeadError::NotLeader(None)) };
    if group.leading().is_none() {
        return Err(LeadError::NotLeader(group.leader().map(|(_, node)| node)));
    }
    if to == inner.node {
        return Ok(());
    }
    let membership = group.membership();
    let target =
        membership.voter_ids().find(|id| membership.get_node(id).is_some_and(|peer| peer.node == to.0));
    let Some(target) = target else {
        let reason = format!("shard {shard} has no voting replica on node {:016x}", to.0);
        return Err(LeadError::Failed(Failure::invalid(reason)));
    };
    if !group.is_current(target) || !group.answers(target) {
        let reason =
            format!("the replica of shard {shard} on node {:016x} is behind or does not answer", to.0);
        return Err(LeadError::Failed(Failure::unavailable(reason, RETRY)));
    }
    if let Some(status) = inner.status_of(to).await {
        let reason = match status.replicas.get(&target) {
            _ if status.is_full() => format!("the disk of node {:016x} is full", to.0),
            Some(view) if view.failed => {
                format!("the replica of shard {shard} on node {:016x} cannot be relied on", to.0)
            }
            _ => String::new(),
        };
        if !reason.is_empty() {
            return Err(LeadError::Failed(Failure::unavailable(reason, RETRY)));
        }
    }
    group.transfer(target, TRANSFER).await.map_err(LeadError::Failed)
}

/// Deletes samples of a shard that this node leads.
async fn delete_led(inner: &Inner, shard: ShardId, what: &Deletion) -> Result<(), LeadError> {
    let ready = inner.ready_shards().into_iter().find(|(id, _)| *id == shard);
    let Some((_, handle)) = ready else { return Err(LeadError::NotLeader(None)) };
    let term = handle.group.wait_leading(inner.config.leader_wait).await?;
    let Deletion { tenant, selectors, range } = what;
    let planned = handle.shard.plan_delete(tenant, selectors, *range, inner.clock.now_ms());
    let entry = planned.map_err(|error| LeadError::Failed(error.into()))?;
    if !entry.is_empty() {
        handle.group.propose(entry.into(), term).await?;
    }
    Ok(())
}

/// Answers what only the leader of a shard can do.
pub(crate) async fn carry_out_led(inner: &Inner, ask: &Ask) -> Result<Reply, Failure> {
    let done = match ask {
        Ask::Transfer { shard, to } => transfer_led(inner, *shard, *to).await,
        Ask::Delete { shard, what } => delete_led(inner, *shard, what).await,
        _ => return Err(Failure::internal("a question that is not for a shard's leader")),
    };
    match done {
        Ok(()) => Ok(Reply::Done),
        Err(LeadError::NotLeader(node)) => Ok(Reply::NotLeader(node)),
        Err(LeadError::Failed(failure)) => Err(failure),
    }
}

/// Has `ask` carried out by whoever leads the shard, here or elsewhere. After a failure it may still be carried out.
pub(crate) async fn ask_leader(inner: &Inner, shard: ShardId, ask: &Ask) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + inner.config.leader_wait * 2;
    let mut last = Failure::unavailable(format!("shard {shard} has no leader just now"), RETRY);
    let (mut named, mut round) = (None, 0);
    while tokio::time::Instant::now() < deadline {
        let here = inner.running_shards().into_iter().find(|(id, _)| *id == shard);
        let known = here.and_then(|(_, group)| group.leader()).map(|(_, node)| node);
        let cluster = inner.cluster.load_full();
        let placed = cluster.as_ref().and_then(|cluster| cluster.replicas.get(&shard));
        let Some(placed) = placed else { return Err(Failure::invalid(format!("there is no shard {shard}"))) };
        let any = placed.values().nth(round % placed.len().max(1)).map(|placed| placed.node);
        round += 1;
        let Some(node) = named.take().or(known.filter(|_| round % 3 != 0)).or(any) else { break };
        let told = if node == inner.node {
            carry_out_led(inner, ask).await
        } else {
            inner.ask(node, ask, LED_ANSWER).await
        };
        match told {
            Ok(Reply::Done) => return Ok(()),
            Ok(Reply::NotLeader(other)) => named = other.filter(|other| *other != node),
            Ok(Reply::Refused(reason)) => return Err(Failure::unavailable(reason, RETRY)),
            Ok(_) => return Err(Failure::internal(format!("node {:016x} answered something else", node.0))),
            Err(failure) if failure.code == model::Code::Invalid => return Err(failure),
            Err(failure) => last = failure,
        }
        if named.is_none() {
            tokio::time::sleep(LOOK / 5).await;
        }
    }
    Err(last)
}

/// Hands over everything that this node leads, to whoever can take it, on full disks too: before it stops, or when it
/// cannot store anything.
pub(crate) async fn hand_over_all(inner: &Inner) {
    // A node whose log has failed comes here again and again: it asks the others only while there is something to hand over.
    if !inner.leads() {
        return;
    }
    let able = inner.able(false).await;
    hand_over(inner, |replica| able.contains(&replica)).await;
}

/// Hands over everything that this node leads and a replica that `may` lead can take.
async fn hand_over(inner: &Inner, may: impl Fn(u64) -> bool) {
    let groups: Vec<Arc<Group>> = inner.groups.read().values().cloned().collect();
    let led = groups.iter().filter_map(|group| Some((group, group.successor(&may)?)));
    let handed = led.map(|(group, to)| async move {
        if let Err(failure) = group.transfer(to, TRANSFER).await {
            tracing::warn!(%failure, "a leadership was not handed over");
        }
    });
    let count = join_all(handed.collect::<Vec<_>>()).await.len();
    if count > 0 {
        tracing::info!(groups = count, "leaderships handed over");
    }
}

impl Inner {
    /// Whether this node leads any group.
    fn leads(&self) -> bool {
        self.groups.read().values().any(|group| group.leading().is_some())
    }

    /// What the nodes that answer see of their replicas.
    async fn told(&self) -> BTreeMap<NodeId, OwnStatus> {
        let cluster = self.cluster.load_full();
        let nodes = cluster.iter().flat_map(|cluster| cluster.members.keys().copied());
        let asked = nodes.map(|node| async move { (node, self.status_of(node).await) });
        let told = join_all(asked.collect::<Vec<_>>()).await;
        told.into_iter().filter_map(|(node, status)| Some((node, status?))).collect()
    }

    /// The replicas, of shards and of the meta group, that can lead: their nodes answer and say nothing bad of them, and
    /// that they have disk space where that matters (`with_space`).
    async fn able(&self, with_space: bool) -> BTreeSet<u64> {
        let told = self.told().await.into_values().filter(|own| !(with_space && own.is_full()));
        told.flat_map(|own| own.replicas)
            .filter(|(_, view)| !view.failed)
            .map(|(replica, _)| replica)
            .collect()
    }

    /// The shards whose replica here runs, ready or not.
    pub(crate) fn running_shards(&self) -> Vec<(ShardId, Arc<Group>)> {
        let cluster = self.cluster.load();
        let here = cluster.as_ref().map(|cluster| cluster.replicas_on(self.node)).unwrap_or_default();
        let groups = self.groups.read();
        here.into_iter()
            .filter_map(|(shard, replica, _)| Some((shard, Arc::clone(groups.get(&replica.0)?))))
            .collect()
    }
}
