//! openraft's state machine over a shard or the meta table: hands committed entries to the apply threads.
//!
//! A snapshot is virtual: it names the durable mark and carries no data. It is what lets openraft purge the log up
//! to it, and what tells a member that is behind the log to fetch state (`catch_up`); one that was fetched names the
//! folder where it waits.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use model::LogIndex;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use storage::log::NodeLog;
use storage::{Shard, StorageError, Store};
use tokio::sync::watch;

use crate::ReplicationError;
use crate::apply::{ApplyPool, Job, Unapplied};
use crate::catch_up::Fetched;
use crate::coding::{Mark, term_of};
use crate::log_store::flushed;
use crate::meta;
use crate::types::{Applied, RaftLogId, SnapshotMeta, StoredMembership, Types};

/// Entries handed over in one go, at most.
const CHUNK: usize = 64;
/// Between two tries to apply on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What entries are applied to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A shard.
    Shard(Arc<Shard>),
    /// The meta group's table.
    Meta(Arc<Store>),
}

impl Target {
    pub(crate) fn apply(&self, index: u64, entry: &[u8], mark: &[u8]) -> Result<Applied, StorageError> {
        match self {
            Self::Shard(shard) => shard.apply(LogIndex(index), entry, mark).map(Applied::Reports),
            Self::Meta(store) => meta::apply(store.meta(), LogIndex(index), entry, mark).map(Applied::Meta),
        }
    }

    /// Moves the mark past an entry that is no business of the state machine.
    pub(crate) fn skip(&self, index: u64, mark: &[u8]) -> Result<(), StorageError> {
        match self {
            Self::Shard(shard) => {
                shard.set_mark(LogIndex(index), mark);
                Ok(())
            }
            Self::Meta(store) => store.meta().apply(LogIndex(index), &[], mark),
        }
    }

    /// The mark that survives a crash.
    pub(crate) fn durable(&self) -> Result<Mark, StorageError> {
        let (index, bytes) = match self {
            Self::Shard(shard) => shard.durable(),
            Self::Meta(store) => store.meta().durable(),
        };
        decode(index, &bytes)
    }

    /// The mark of what is applied.
    pub(crate) fn applied(&self) -> Result<Mark, StorageError> {
        let (index, bytes) = match self {
            Self::Shard(shard) => shard.applied(),
            Self::Meta(store) => store.meta().mark(),
        };
        decode(index, &bytes)
    }
}

fn decode(index: LogIndex, bytes: &[u8]) -> Result<Mark, StorageError> {
    Mark::decode(bytes).ok_or_else(|| {
        StorageError::corrupt("replication's mark", format!("does not decode at log index {index}"))
    })
}

/// One group's state machine.
pub(crate) struct Machine {
    key: u64,
    target: Target,
    mark: Mark,
    pool: Arc<ApplyPool>,
    log: Arc<NodeLog>,
    applied: watch::Sender<Option<RaftLogId>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machine({}, {:?})", self.key, self.mark.last)
    }
}

impl Machine {
    /// The machine of group `key` over `target`, and where to see how far it has applied.
    pub(crate) fn new(
        key: u64,
        target: Target,
        pool: Arc<ApplyPool>,
        log: Arc<NodeLog>,
    ) -> Result<(Self, watch::Receiver<Option<RaftLogId>>), StorageError> {
        let mark = target.applied()?;
        let (applied, watch) = watch::channel(mark.last);
        Ok((Self { key, target, mark, pool, log, applied }, watch))
    }
}

/// Gives the disk of the replica `key` time: what was committed, or fetched, is applied once there is space, and the group
/// goes on.
pub(crate) async fn wait_for_space(key: u64, error: &(dyn std::error::Error + Sync)) {
    tracing::error!(group = key, %error, "the disk is full: nothing is applied until there is space");
    tokio::time::sleep(FULL_PAUSE).await;
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = VirtualSnapshot;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        Ok((self.mark.last, self.mark.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut open = true;
        while open {
            let mut chunk = VecDeque::new();
            while chunk.len() < CHUNK {
                match entries.next().await {
                    Some(entry) => chunk.push_back(entry?),
                    None => {
                        open = false;
                        break;
                    }
                }
            }
            if matches!(self.target, Target::Meta(_)) {
                // Its table may be stored at any moment, by a flush of any shard: the entries come first. Shards wait
                // when they are flushed.
                let (call, logged) = flushed();
                self.log.barrier(call).map_err(io::Error::other)?;
                logged.await?;
            }
            while !chunk.is_empty() {
                let (done, wait) = tokio::sync::oneshot::channel();
                let entries = std::mem::take(&mut chunk);
                let job = Job { target: self.target.clone(), mark: self.mark.clone(), entries, done };
                self.pool.submit(self.key, job);
                match wait.await.map_err(|_| io::Error::other("the apply threads have stopped"))? {
                    Ok(mark) => self.mark = mark,
                    Err(Unapplied { error, rest: Some((mark, rest)) }) => {
                        (self.mark, chunk) = (mark, rest);
                        wait_for_space(self.key, &error).await;
                    }
                    Err(Unapplied { error, rest: None }) => return Err(error),
                }
                self.applied.send_replace(self.mark.last);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder(self.target.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: VirtualSnapshot,
    ) -> Result<(), io::Error> {
        if meta.last_log_id <= self.mark.last {
            return Ok(());
        }
        let Some(mut fetched) = data.0 else {
            let what = format!("group {}: a snapshot without state was to be installed", self.key);
            return Err(io::Error::other(what));
        };
        // Reading and writing of files and database, on a thread for that.
        loop {
            let install = move || {
                let installed = fetched.install();
                (fetched, installed)
            };
            let (again, installed) = self.pool.aside(install).await.map_err(io::Error::other)?;
            match installed {
                Ok(()) => break,
                Err(ReplicationError::Storage(error)) if error.is_disk_full() => {
                    fetched = again;
                    wait_for_space(self.key, &error).await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.mark = self.target.applied().map_err(io::Error::other)?;
        self.applied.send_replace(self.mark.last);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, VirtualSnapshot>>, io::Error> {
        let mark = self.target.durable().map_err(io::Error::other)?;
        Ok(mark.last.is_some().then(|| virtual_snapshot(mark)))
    }
}

/// A snapshot without data: whoever needs it fetches the state itself. With what was fetched once it was.
#[derive(Debug)]
pub(crate) struct VirtualSnapshot(pub(crate) Option<Fetched>);

/// Builds virtual snapshots.
pub(crate) struct Builder(Target);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = VirtualSnapshot;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, VirtualSnapshot>, io::Error> {
        let mark = self.0.durable().map_err(io::Error::other)?;
        Ok(virtual_snapshot(mark))
    }
}

fn virtual_snapshot(mark: Mark) -> openraft::type_config::alias::SnapshotOf<Types, VirtualSnapshot> {
    let meta = SnapshotMeta { last_log_id: mark.last, last_membership: mark.membership };
    Snapshot { meta, snapshot: VirtualSnapshot(None) }
}

/// The term of the last applied entry, 0 for none.
pub(crate) fn applied_term(applied: Option<&RaftLogId>) -> u64 {
    applied.map_or(0, term_of)
}
