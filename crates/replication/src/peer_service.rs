//! Answering peers: Raft messages to their groups, writes to this node's leaders, reads from its replicas.
//!
//! What peers ask about the cluster goes to `membership`, fragments to whoever `Replication::answer_fragments` named.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use model::seam::{BoxFuture, FragmentRunner, SeriesSource, ShardBatch, ShardReport, ShardWriteError};
use model::{Failure, LogIndex, NodeId, ShardId};
use openraft::raft::AppendEntriesResponse;
use parking_lot::{Mutex, RwLock};
use rpc::{Identity, Need, PeerService, ReadRefusal, SnapshotParts};
use tokio::time::Instant;

use crate::group::{Group, LeadError, RETRY};
use crate::node::Inner;
use crate::types::RaftLogId;
use crate::wire::{Answer, Message};
use crate::{catch_up, membership};

/// Who evaluates plan fragments of other nodes' queries, once that is known.
pub(crate) type Fragments = RwLock<Option<Arc<dyn FragmentRunner>>>;

/// When leaders were last heard of, by replica here: what says how stale a replica is.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<HashMap<u64, (Instant, LogIndex)>>);

impl Heard {
    /// The leader said that entries up to `committed` are committed.
    pub(crate) fn note(&self, replica: u64, committed: LogIndex) {
        self.0.lock().insert(replica, (Instant::now(), committed));
    }

    /// When, and up to which entry, the leader was last heard.
    pub(crate) fn last(&self, replica: u64) -> Option<(Instant, LogIndex)> {
        self.0.lock().get(&replica).copied()
    }
}

/// Answers peers for this node.
pub(crate) struct Answerer {
    inner: Weak<Inner>,
    fragments: Arc<Fragments>,
}

impl Answerer {
    pub(crate) fn new(inner: &Arc<Inner>, fragments: Arc<Fragments>) -> Self {
        // Weak: connections that are being served must not keep the node's files open.
        Self { inner: Arc::downgrade(inner), fragments }
    }

    fn inner(&self) -> Result<Arc<Inner>, Failure> {
        self.inner.upgrade().ok_or_else(|| Failure::unavailable("the node is stopping", RETRY))
    }
}

impl Inner {
    fn group(&self, replica: u64) -> Result<Arc<Group>, Failure> {
        let group = self.groups.read().get(&replica).cloned();
        group.ok_or_else(|| Failure::unavailable(format!("replica {replica} is not on this node"), RETRY))
    }

    async fn answer_raft(
        self: &Arc<Self>,
        from: NodeId,
        replica: u64,
        message: Bytes,
    ) -> Result<Answer, Failure> {
        let message = Message::decode(message).map_err(|error| Failure::invalid(error.to_string()))?;
        let group = self.group(replica)?;
        let raft = group.raft();
        let failed =
            |error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", group.name), RETRY);
        match message {
            Message::Append(request) => {
                let committed = request.leader_commit.as_ref().map_or(0, RaftLogId::index);
                if !request.entries.is_empty() {
                    group.wake();
                    if self.guard.refuses_entries(|| self.log.room()) {
                        return Ok(Answer::NoSpace);
                    }
                }
                let answer = raft.append_entries(request).await.map_err(|error| failed(&error))?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.heard.note(replica, LogIndex(committed));
                }
                Ok(Answer::Append(answer))
            }
            Message::Vote(request) => {
                group.wake();
                raft.vote(request).await.map(Answer::Vote).map_err(|error| failed(&error))
            }
            Message::PreVote(request) => {
                group.wake();
                raft.pre_vote(request).await.map(Answer::Vote).map_err(|error| failed(&error))
            }
            Message::Transfer(request) => {
                group.wake();
                if let Some(reason) = self.quarantine.reason(replica) {
                    return Err(failed(&reason));
                }
                let answer = raft.handle_transfer_leader(request).await;
                answer.map(Answer::Transfer).map_err(|error| failed(&error))
            }
            // Up to where the sender's state goes is told by the state itself: it may go further by then.
            Message::Snapshot { vote, meta: _ } => {
                group.wake();
                catch_up::receive(self, &group, from, vote).await.map(Answer::Snapshot)
            }
        }
    }
}

/// A leader's refusal as peers hear it.
fn refusal(error: LeadError) -> ReadRefusal {
    match error {
        LeadError::NotLeader(leader) => ReadRefusal::NotLeader(leader),
        LeadError::Failed(failure) => ReadRefusal::Failed(failure),
    }
}

impl PeerService for Answerer {
    fn raft(&self, from: NodeId, group: u64, message: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        Box::pin(async move { Ok(self.inner()?.answer_raft(from, group, message).await?.encode()) })
    }

    fn write(
        &self,
        _from: NodeId,
        shard: ShardId,
        batch: ShardBatch,
        _limit: Duration,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>> {
        Box::pin(async move {
            let inner = self.inner().map_err(ShardWriteError::Failed)?;
            inner.write_here(shard, Arc::new(batch)).await
        })
    }

    fn read_index(&self, shards: Vec<ShardId>) -> BoxFuture<'_, Vec<Result<LogIndex, ReadRefusal>>> {
        Box::pin(async move {
            let inner = match self.inner() {
                Ok(inner) => inner,
                Err(failure) => {
                    return shards.iter().map(|_| Err(ReadRefusal::Failed(failure.clone()))).collect();
                }
            };
            let indexes = shards.into_iter().map(|shard| {
                let inner = Arc::clone(&inner);
                async move { inner.read_index_here(shard).await.map_err(refusal) }
            });
            futures::future::join_all(indexes).await
        })
    }

    fn replica(&self, shard: ShardId, need: Need) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
        Box::pin(async move {
            let inner = self.inner()?;
            let handle = inner.ready(shard).await?;
            match need {
                Need::Applied(index) => handle.group.wait_applied(index, inner.config.leader_wait).await?,
                Need::MaxStaleness(age) => inner.fresh_within(shard, &handle, age).await?,
            }
            Ok(handle.shard.reader())
        })
    }

    fn fragment(&self, _from: NodeId, fragment: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let runner = self.fragments.read().clone();
        Box::pin(async move {
            // A node that has just started, or is stopping: another replica may answer.
            let waits = || Failure::unavailable("this node evaluates no parts of queries just now", RETRY);
            runner.ok_or_else(waits)?.run(fragment.into()).await
        })
    }

    fn meta(&self, from: &Identity, body: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let from = from.clone();
        Box::pin(async move { membership::answer(&self.inner()?, &from, &body).await })
    }

    fn snapshot(&self, _from: NodeId, what: Bytes) -> BoxFuture<'_, Result<SnapshotParts, Failure>> {
        Box::pin(async move { catch_up::pieces(&*self.inner()?, &what) })
    }
}
