//! The way to a shard wherever it is: writes to its leader, reads from a replica that is as fresh as asked, parts of
//! queries to a node that has one.
//!
//! Who leads is told by this node's replica where there is one, else remembered from the last answer, else asked: every
//! node says whom it takes for the leader. A write or read index that hits the wrong node goes on to the one named, for
//! as long as a request may wait, or until it is known that no majority can be reached (`reach`); then it fails as
//! unavailable, naming the shard. A leader on this node is a function call.
//!
//! A linearizable read asks the leader for its read index, in one call for all shards and queries that wait for the same
//! node, and then reads this node's replica once it has applied that much; or a replica elsewhere, and a second one when
//! the first is slow. With a staleness bound a replica that heard its leader recently answers alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::seam::{ReadLevel, SeriesSource, ShardBatch, ShardReport, ShardWriteError};
use model::{Code, Epoch, Failure, LogIndex, NodeId, ShardId};
use parking_lot::Mutex;
use rpc::{Need, ReadRefusal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group::{Group, LeadError, RETRY};
use crate::node::{Inner, Local};
use crate::shard::ShardHandle;

/// How long one node may take to answer where nothing else says whether it still leads.
const ONE_TRY: Duration = Duration::from_secs(2);
/// Between two tries while no leader is known.
const PAUSE: Duration = Duration::from_millis(50);
/// How long this node's replica may need to catch up with a read index before one elsewhere serves the read.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a peer may say nothing in the middle of a read.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a node that failed to answer a fragment is passed over where another has the shard too.
const PASSED_OVER: Duration = Duration::from_secs(2);
/// An upper bound of the time of a fragment; it carries its own deadline, a connection that died is noticed in seconds,
/// and whoever asks gives up earlier.
const FRAGMENT_LIMIT: Duration = Duration::from_secs(3600);

/// Where a read waits for the index of its shard.
type WaitingRead = (ShardId, oneshot::Sender<Result<LogIndex, LeadError>>);

/// What is remembered of where shards are.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// Leaders of shards without a replica here, as last heard.
    leaders: Mutex<HashMap<ShardId, NodeId>>,
    /// Reads that wait for the next call to a node, for nodes to which one is under way.
    reads: Mutex<HashMap<NodeId, Vec<WaitingRead>>>,
    /// When nodes last failed to answer a fragment of a query.
    failed: Mutex<HashMap<NodeId, Instant>>,
}

impl Router {
    /// Takes `leader` for the leader, as an answer would have said.
    #[cfg(test)]
    pub(crate) fn remember(&self, shard: ShardId, leader: NodeId) {
        self.heard(shard, Some(leader));
    }

    fn heard(&self, shard: ShardId, leader: Option<NodeId>) {
        let mut leaders = self.leaders.lock();
        match leader {
            Some(leader) => {
                leaders.insert(shard, leader);
            }
            None => {
                leaders.remove(&shard);
            }
        }
    }
}

/// What became of one try.
enum Tried<T> {
    Done(T),
    /// Go on at that node, or wherever the leader is next; and why this try failed.
    Elsewhere(Option<NodeId>, Failure),
}

impl Inner {
    /// Commits a batch wherever the shard's leader is.
    pub(crate) async fn route_write(
        self: &Arc<Self>,
        shard: ShardId,
        batch: Arc<ShardBatch>,
    ) -> Result<ShardReport, ShardWriteError> {
        let limit = self.config.leader_wait;
        let at_leader = self.at_leader(shard, limit, |node, left| {
            let (this, batch) = (Arc::clone(self), Arc::clone(&batch));
            async move {
                let answer = if node == this.node {
                    this.write_here(shard, batch).await
                } else {
                    match this.peers.write(node, shard, batch, left).await {
                        Ok(answer) => answer,
                        Err(error) => return Tried::Elsewhere(None, error.into()),
                    }
                };
                match answer {
                    Err(ShardWriteError::NotLeader { leader }) => Tried::Elsewhere(leader, no_leader(shard)),
                    answer => Tried::Done(answer),
                }
            }
        });
        at_leader.await.unwrap_or_else(|failure| Err(ShardWriteError::Failed(failure)))
    }

    /// Commits a batch if this node leads the shard.
    pub(crate) async fn write_here(
        &self,
        shard: ShardId,
        batch: Arc<ShardBatch>,
    ) -> Result<ShardReport, ShardWriteError> {
        if self.stopping.load(Ordering::Relaxed) {
            let failure = Failure::unavailable("the node is stopping", RETRY);
            return Err(ShardWriteError::Failed(failure));
        }
        if let Some(error) = self.log.failure() {
            // Nothing can be stored until somebody has seen to the disk: say so at once.
            return Err(ShardWriteError::Failed(Failure::unavailable(error.to_string(), RETRY)));
        }
        if self.guard.is_full()
            && let Some((_, leader)) = self.replica_here(shard).and_then(|group| group.leader())
            && leader != self.node
        {
            return Err(ShardWriteError::NotLeader { leader: Some(leader) });
        }
        self.guard.check().map_err(ShardWriteError::Failed)?;
        self.expect_healthy(shard).map_err(ShardWriteError::from)?;
        let epoch = self.map.load().epoch();
        if batch.epoch != epoch && epoch != Epoch(0) {
            return Err(ShardWriteError::WrongOwner { epoch });
        }
        let handle = self.ready(shard).await.map_err(ShardWriteError::Failed)?;
        let refused = match self.without_space(shard, &handle.group) {
            Some(failure) => failure,
            None => tokio::select! {
                biased;
                report = handle.write(batch) => return report,
                failure = self.stays_without_space(shard, &handle.group) => failure,
            },
        };
        self.metrics.refused_disk.inc();
        Err(ShardWriteError::Failed(refused))
    }

    /// The read index of a shard that this node leads.
    pub(crate) async fn read_index_here(&self, shard: ShardId) -> Result<LogIndex, LeadError> {
        self.expect_healthy(shard)?;
        let handle = self.ready(shard).await.map_err(LeadError::Failed)?;
        // Just after an election the leader has nothing of its own term yet: that is waited for.
        handle.group.wait_leading(self.config.leader_wait).await?;
        handle.group.read_index().await
    }

    /// Something to read the shard from, as fresh as asked.
    pub(crate) async fn route_read(
        self: &Arc<Self>,
        shard: ShardId,
        level: ReadLevel,
    ) -> Result<Arc<dyn SeriesSource>, Failure> {
        let local = self.local(shard);
        let need = match level {
            ReadLevel::MaxStaleness(age) => {
                if let Some(handle) = &local
                    && self.fresh_within(shard, handle, age).await.is_ok()
                {
                    return Ok(handle.shard.reader());
                }
                Need::MaxStaleness(age)
            }
            ReadLevel::Linearizable => {
                let index = match self.read_index(shard).await {
                    Ok(index) => index,
                    Err(failure) => return self.unread(failure),
                };
                if let Some(handle) = &local
                    && handle.group.wait_applied(index, PATIENCE).await.is_ok()
                {
                    return Ok(handle.shard.reader());
                }
                Need::Applied(index)
            }
        };
        let others = self.others(shard);
        if others.is_empty() {
            // The only replica is here, and is not as far yet.
            let handle = self.ready(shard).await?;
            match need {
                Need::Applied(index) => handle.group.wait_applied(index, self.config.leader_wait).await?,
                Need::MaxStaleness(age) => self.fresh_within(shard, &handle, age).await?,
            }
            return Ok(handle.shard.reader());
        }
        Ok(Arc::clone(&self.peers).replica(&others, shard, need, SILENCE))
    }

    /// Which nodes evaluate parts of queries over `shards`: this one (`None`) where it has a replica that is ready, else
    /// the probable leader, or another when that one failed just now.
    pub(crate) fn places(&self, shards: &[ShardId]) -> Vec<(Option<NodeId>, Vec<ShardId>)> {
        let mut places: Vec<(Option<NodeId>, Vec<ShardId>)> = Vec::new();
        for shard in shards {
            let others = if self.local(*shard).is_some() { Vec::new() } else { self.others(*shard) };
            let answers = |node: &&NodeId| {
                self.router.failed.lock().get(*node).is_none_or(|at| at.elapsed() > PASSED_OVER)
            };
            let node = others.iter().find(answers).or(others.first()).copied();
            match places.iter_mut().find(|(known, _)| *known == node) {
                Some((_, of_node)) => of_node.push(*shard),
                None => places.push((node, vec![*shard])),
            }
        }
        places
    }

    /// Has `node` run a fragment of a query.
    pub(crate) async fn route_fragment(&self, node: NodeId, fragment: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match self.peers.fragment(node, fragment.into(), FRAGMENT_LIMIT).await {
            Ok(partial) => Ok(partial),
            Err(error) => {
                let failure = Failure::from(error);
                if failure.code == Code::Unavailable {
                    self.router.failed.lock().insert(node, Instant::now());
                }
                Err(failure)
            }
        }
    }

    /// What a read gives whose shard cannot be asked: the failure.
    #[allow(clippy::unused_self, reason = "with seeded bugs it asks which one")]
    fn unread(&self, failure: Failure) -> Result<Arc<dyn SeriesSource>, Failure> {
        #[cfg(feature = "seeded_bugs")]
        if let Some(nothing) = crate::seeded::nothing(&self.log) {
            return Ok(nothing);
        }
        Err(failure)
    }

    /// Up to where a replica must have applied to see everything acknowledged so far.
    pub(crate) async fn read_index(self: &Arc<Self>, shard: ShardId) -> Result<LogIndex, Failure> {
        self.at_leader(shard, self.config.leader_wait, |node, left| {
            let this = Arc::clone(self);
            async move {
                let index = if node == this.node {
                    this.read_index_here(shard).await
                } else {
                    this.read_index_of(node, shard, left).await
                };
                match index {
                    Ok(index) => Tried::Done(index),
                    Err(LeadError::NotLeader(leader)) => Tried::Elsewhere(leader, no_leader(shard)),
                    Err(LeadError::Failed(failure)) => Tried::Elsewhere(None, failure),
                }
            }
        })
        .await
    }

    /// Asks `node` for the read index of a shard, together with whoever else waits for that node.
    async fn read_index_of(
        self: &Arc<Self>,
        node: NodeId,
        shard: ShardId,
        limit: Duration,
    ) -> Result<LogIndex, LeadError> {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut reads = self.router.reads.lock();
            let first = !reads.contains_key(&node);
            reads.entry(node).or_default().push((shard, sender));
            first
        };
        if first {
            let this = Arc::clone(self);
            self.ground.data.spawn(async move { this.ask_read_indexes(node).await });
        }
        let late = || LeadError::Failed(no_leader(shard));
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    /// Calls `node` for all reads that wait, until none does.
    async fn ask_read_indexes(&self, node: NodeId) {
        loop {
            let waiting = {
                let mut reads = self.router.reads.lock();
                match reads.get_mut(&node) {
                    Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
                    _ => {
                        reads.remove(&node);
                        return;
                    }
                }
            };
            let mut shards: Vec<ShardId> = waiting.iter().map(|(shard, _)| *shard).collect();
            shards.sort_unstable();
            shards.dedup();
            let answer = self.peers.read_index(node, &shards, self.config.leader_wait).await;
            let index = |shard: ShardId| match &answer {
                Ok(indexes) => {
                    let at = shards.binary_search(&shard).unwrap_or(usize::MAX);
                    match indexes.get(at) {
                        Some(Ok(index)) => Ok(*index),
                        Some(Err(ReadRefusal::NotLeader(leader))) => Err(LeadError::NotLeader(*leader)),
                        Some(Err(ReadRefusal::Failed(failure))) => Err(LeadError::Failed(failure.clone())),
                        None => Err(LeadError::NotLeader(None)),
                    }
                }
                Err(error) => Err(LeadError::Failed(error.clone().into())),
            };
            for (shard, reader) in waiting {
                // A read that went away does not matter.
                let _ = reader.send(index(shard));
            }
        }
    }

    /// Tries at the shard's leader until something is done or `limit` has passed. `attempt` gets a node and the time
    /// left.
    async fn at_leader<T, F>(
        &self,
        shard: ShardId,
        limit: Duration,
        attempt: impl Fn(NodeId, Duration) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Tried<T>>,
    {
        let deadline = Instant::now() + limit;
        let mut named = None;
        let mut round = 0_usize;
        let mut tried: Option<NodeId> = None;
        let mut failure = no_leader(shard);
        let mut cut_off = std::pin::pin!(self.cut_off(shard));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::unavailable(
                    format!("shard {shard} has no leader that answers within {limit:?}: {failure}"),
                    RETRY,
                ));
            }
            let Some(node) = named.take().or_else(|| self.probable_leader(shard, round)) else {
                return Err(Failure::unavailable(
                    format!("shard {shard} has no replica that this node knows of"),
                    RETRY,
                ));
            };
            // Without a replica here nobody says when another node leads: then a silent one is left sooner.
            let here = self.replica_here(shard);
            let one = if here.is_some() { left } else { left.min(ONE_TRY) };
            let result = tokio::select! {
                result = attempt(node, one) => result,
                leader = self.led_by_another(here.as_deref(), node) => {
                    Tried::Elsewhere(Some(leader), no_leader(shard))
                }
                failure = &mut cut_off => return Err(failure),
            };
            match result {
                Tried::Done(done) => {
                    self.router.heard(shard, Some(node));
                    return Ok(done);
                }
                Tried::Elsewhere(leader, why) => {
                    failure = why;
                    self.router.heard(shard, leader.filter(|leader| *leader != node));
                    // The node named is tried at once, unless the two name each other.
                    named = leader.filter(|leader| *leader != node && tried != Some(*leader));
                    tried = Some(node);
                    round += 1;
                    if named.is_none() {
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE.min(left)) => {}
                            failure = &mut cut_off => return Err(failure),
                        }
                    }
                }
            }
        }
    }

    /// Returns when this node's replica knows that neither `node` nor this node leads, but another one: what was asked of
    /// `node` will not be answered.
    async fn led_by_another(&self, here: Option<&Group>, node: NodeId) -> NodeId {
        let Some(group) = here.filter(|_| node != self.node) else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PAUSE * 2).await;
            if let Some((_, leader)) = group.leader()
                && leader != node
            {
                return leader;
            }
        }
    }

    /// Who leads, as far as this node knows; in later rounds one replica's node after the other.
    fn probable_leader(&self, shard: ShardId, round: usize) -> Option<NodeId> {
        let here = self.replica_here(shard);
        if let Some((_, leader)) = here.as_ref().and_then(|group| group.leader()) {
            // One that does not answer is named until another one is elected.
            if round % 4 != 3 {
                return Some(leader);
            }
        }
        if round == 0
            && let Some(leader) = self.router.leaders.lock().get(&shard)
            && *leader != self.node
        {
            return Some(*leader);
        }
        let mut nodes = self.nodes_of(shard);
        if nodes.len() > 1 && (self.local(shard).is_none() || self.log.failure().is_some()) {
            // What is not ready here, or has lost its log, cannot lead and would only be waited for.
            nodes.retain(|node| *node != self.node);
        }
        match nodes.len() {
            0 => here.map(|_| self.node),
            count => nodes.get(round % count).copied(),
        }
    }

    /// The nodes that have a replica of the shard.
    pub(crate) fn nodes_of(&self, shard: ShardId) -> Vec<NodeId> {
        let cluster = self.cluster.load();
        let replicas = cluster.as_ref().and_then(|cluster| cluster.replicas.get(&shard));
        replicas.map(|replicas| replicas.values().map(|placed| placed.node).collect()).unwrap_or_default()
    }

    /// The other nodes that have one, the leader first.
    pub(crate) fn others(&self, shard: ShardId) -> Vec<NodeId> {
        let mut nodes = self.nodes_of(shard);
        nodes.retain(|node| *node != self.node);
        let leader = self.probable_leader(shard, 0);
        nodes.sort_by_key(|node| Some(*node) != leader);
        nodes
    }

    /// This node's replica of the shard, if it is ready.
    pub(crate) fn local(&self, shard: ShardId) -> Option<Arc<ShardHandle>> {
        match self.shards.read().get(&shard) {
            Some(Local::Ready(handle)) if !self.quarantine.contains(handle.group.id.0) => {
                Some(Arc::clone(handle))
            }
            _ => None,
        }
    }

    /// Fails where this node's replica of the shard is in quarantine: another one leads, or will soon.
    fn expect_healthy(&self, shard: ShardId) -> Result<(), LeadError> {
        if !self.quarantine.holds(shard) {
            return Ok(());
        }
        let leader = self.replica_here(shard).and_then(|group| group.leader()).map(|(_, node)| node);
        Err(LeadError::NotLeader(leader.filter(|node| *node != self.node)))
    }

    /// The group of this node's replica of the shard, ready or not; `None` once the log has failed, since then its replicas
    /// hear nothing any more and would name for ever whom they knew.
    pub(crate) fn replica_here(&self, shard: ShardId) -> Option<Arc<Group>> {
        if self.log.failure().is_some() {
            return None;
        }
        let cluster = self.cluster.load();
        let replicas = cluster.as_ref()?.replicas.get(&shard)?;
        let (replica, _) = replicas.iter().find(|(_, placed)| placed.node == self.node)?;
        self.groups.read().get(&replica.0).cloned()
    }

    /// Succeeds when this node's replica shows everything that was acknowledged `age` ago: it leads, or has applied what
    /// its leader had committed when it was last heard, not longer ago than that.
    pub(crate) async fn fresh_within(
        &self,
        shard: ShardId,
        handle: &ShardHandle,
        age: Duration,
    ) -> Result<(), Failure> {
        if handle.group.leading().is_some() {
            return Ok(());
        }
        let stale = || {
            let reason = format!("the replica of shard {shard} here has not heard its leader within {age:?}");
            Failure::unavailable(reason, RETRY)
        };
        let (heard, committed) = self.heard.last(handle.group.id.0).ok_or_else(stale)?;
        let left = age.checked_sub(heard.elapsed()).ok_or_else(stale)?;
        handle.group.wait_applied(committed, left.min(self.config.leader_wait)).await
    }
}

fn no_leader(shard: ShardId) -> Failure {
    Failure::unavailable(format!("shard {shard} has no leader just now"), RETRY)
}
