//! State for a member that the log cannot bring up any more: new, or away for too long.
//!
//! openraft offers the member a snapshot, which holds nothing but its place. The member fetches the state from the node
//! that offered it, as pieces that are kept in a folder until all are there, and hands that folder to openraft as the
//! snapshot. Installing first gives up the log up to the state's place, then replaces the state; a crash in between is
//! made good at the next start, before the group runs ([`finish`]).

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use model::{Failure, NodeId, ReplicaId, ShardId};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use storage::log::{GroupId, LogId, NodeLog};
use storage::{Incoming, StorageError, Store, Subject};

use crate::ReplicationError;
use crate::coding::{In, Mark, Out};
use crate::group::{Group, RETRY};
use crate::log_store::place;
use crate::machine::{Target, VirtualSnapshot};
use crate::node::Inner;
use crate::types::{RaftVote, SnapshotMeta, Types};

const VERSION: u8 = 1;
/// How long the next piece may take.
const PIECE: Duration = Duration::from_secs(30);

/// State that was fetched and waits to be installed.
pub(crate) struct Fetched {
    store: Arc<Store>,
    log: Arc<NodeLog>,
    subject: Subject,
    replica: ReplicaId,
    incoming: Incoming,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetched({:?} for replica {})", self.subject, self.replica)
    }
}

fn mark_of(incoming: &Incoming) -> Result<Option<Mark>, StorageError> {
    let Some((index, bytes)) = incoming.mark() else { return Ok(None) };
    let mark = Mark::decode(bytes);
    mark.map(Some)
        .ok_or_else(|| StorageError::corrupt("the mark of fetched state", format!("of log index {index}")))
}

impl Fetched {
    /// Replaces log and state; durable when it returns. Blocks. After a failure for lack of space it can be done again.
    pub(crate) fn install(&self) -> Result<(), ReplicationError> {
        let group = GroupId(self.replica.0);
        if let Some(at) = place_of(&self.incoming)? {
            give_up_below(&self.log, group, at)?;
        }
        self.store.install(self.subject, self.replica, &self.incoming)?;
        self.incoming.remove()?;
        Ok(())
    }
}

/// Where in the log fetched state stands.
pub(crate) fn place_of(incoming: &Incoming) -> Result<Option<LogId>, StorageError> {
    Ok(mark_of(incoming)?.and_then(|mark| mark.last).map(|last| place(&last)))
}

/// Gives up a group's log up to `at`, where state stands that is to replace what the log made. Blocks.
pub(crate) fn give_up_below(log: &NodeLog, group: GroupId, at: LogId) -> Result<(), ReplicationError> {
    if log.id_at(group, at.index).is_some_and(|known| known != at) {
        // Entries from there on were never committed: the cluster went another way.
        log.truncate_wait(group, at.index)?;
    }
    log.purge_wait(group, at)?;
    Ok(())
}

/// Before a group starts: ends an installation that the last stop cut short. Blocks.
pub(crate) fn finish(inner: &Inner, subject: Subject, replica: ReplicaId) -> Result<(), ReplicationError> {
    let dir = inner.folder.incoming_dir(replica.0);
    if !dir.try_exists().map_err(ReplicationError::io(dir.display().to_string(), "look for"))? {
        return Ok(());
    }
    let incoming = Incoming::open(&dir, subject)?;
    let new = place_of(&incoming)?;
    // The log is given up first: as long as it is not, the old state is whole, and the pieces wait for another offer.
    let begun = incoming.is_complete() && inner.log.state(GroupId(replica.0))?.purged == new;
    if !begun || new.is_none() {
        return Ok(());
    }
    tracing::info!(replica = replica.0, "the installation of fetched state is ended");
    let (store, log) = (Arc::clone(&inner.store), Arc::clone(&inner.log));
    Fetched { store, log, subject, replica, incoming }.install()
}

/// The group's state as peers ask for it; with the pieces that the asker has.
fn ask_for(subject: Subject, known: &[u128]) -> Bytes {
    let mut out = Out(vec![VERSION]);
    out.number(match subject {
        Subject::Meta => 0,
        Subject::Shard(shard) => u64::from(shard.0) + 1,
    });
    for hash in known {
        out.0.extend_from_slice(&hash.to_le_bytes());
    }
    out.0.into()
}

fn asked_for(bytes: &[u8]) -> Option<(Subject, HashSet<u128>)> {
    let mut input = In(bytes);
    if input.byte()? != VERSION {
        return None;
    }
    let subject = match input.number()? {
        0 => Subject::Meta,
        shard => Subject::Shard(ShardId(u32::try_from(shard - 1).ok()?)),
    };
    let (hashes, rest) = input.0.as_chunks::<16>();
    rest.is_empty().then(|| (subject, hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect()))
}

/// What gives the pieces of the state that `what` names, for a peer; it blocks.
pub(crate) fn pieces(inner: &Inner, what: &[u8]) -> Result<rpc::SnapshotParts, Failure> {
    let (subject, known) =
        asked_for(what).ok_or_else(|| Failure::invalid("a request for state that does not decode"))?;
    let group = inner.group_of(subject)?;
    if let Some(reason) = inner.quarantine.reason(group.id.0) {
        return Err(Failure::unavailable(reason, RETRY));
    }
    Ok(Box::new(move |give| {
        let exported = match group.target() {
            Target::Shard(shard) => shard.export(&known, give),
            Target::Meta(store) => store.meta().export(&known, give),
        };
        exported.map_err(|error| {
            tracing::error!(group = %group.name, %error, "state cannot be given to another node");
            Failure::from(error)
        })
    }))
}

/// Fetches the state of `group` from the node `from`, which offered it as the leader of `vote`, and installs it. One at a
/// time; who offers again meanwhile waits for it.
pub(crate) async fn receive(
    inner: &Arc<Inner>,
    group: &Arc<Group>,
    from: NodeId,
    vote: RaftVote,
) -> Result<SnapshotResponse<Types>, Failure> {
    let _one = group.catching_up().lock().await;
    if !inner.groups.read().get(&group.id.0).is_some_and(|now| Arc::ptr_eq(now, group)) {
        // It was started anew meanwhile, and with it the folder has another user.
        return Err(Failure::unavailable(format!("{} is being started", group.name), RETRY));
    }
    let subject = group.target().subject();
    let replica = ReplicaId(group.id.0);
    let incoming = fetch(inner, subject, &group.name, &inner.folder.incoming_dir(replica.0), from).await?;
    let mark = mark_of(&incoming)?.unwrap_or_default();
    let meta = SnapshotMeta { last_log_id: mark.last, last_membership: mark.membership };
    let (store, log) = (Arc::clone(&inner.store), Arc::clone(&inner.log));
    let fetched = Fetched { store, log, subject, replica, incoming };
    let snapshot = Snapshot { meta, snapshot: VirtualSnapshot(Some(fetched)) };
    let installed = group.raft().install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|error| Failure::internal(format!("{}: {error}", group.name)))?;
    inner.metrics.installed_snapshots.inc();
    inner.note_change();
    Ok(response)
}

/// Fetches the state of `subject`, the group called `name`, from the node `from` into `dir`, where pieces of an earlier
/// attempt are used again; complete when it returns. Of a replica here only while `catching_up` of its group is held.
pub(crate) async fn fetch(
    inner: &Inner,
    subject: Subject,
    name: &str,
    dir: &Path,
    from: NodeId,
) -> Result<Incoming, Failure> {
    tracing::info!(group = %name, from = format!("{:016x}", from.0), "fetching state from another node");
    let started = inner.clock.monotonic();
    let dir = dir.to_path_buf();
    let pool = &inner.ground.pool;
    let opened = pool.aside(move || {
        let mut incoming = Incoming::open(&dir, subject)?;
        incoming.restart()?;
        Ok::<_, StorageError>(incoming)
    });
    let mut incoming = opened.await??;
    let (mut count, mut bytes) = (0_u64, 0_u64);
    let mut parts = inner.peers.snapshot(from, ask_for(subject, &incoming.known()), PIECE).await?;
    while !incoming.is_complete() {
        let next = tokio::time::timeout(PIECE, parts.next()).await;
        let late =
            |_| Failure::unavailable(format!("{name}: no piece of state came within {PIECE:?}"), RETRY);
        let Some(piece) = next.map_err(late)?.transpose()? else {
            let reason = format!("{name}: the state ended before its last piece");
            return Err(Failure::unavailable(reason, RETRY));
        };
        inner.guard.check()?;
        count += 1;
        bytes += piece.len() as u64;
        inner.metrics.fetched_bytes.inc_by(piece.len() as u64);
        let taken = pool.aside(move || {
            incoming.take(&piece)?;
            Ok::<_, StorageError>(incoming)
        });
        incoming = taken.await??;
    }
    let seconds = inner.clock.monotonic().saturating_sub(started).as_secs_f64();
    tracing::info!(group = %name, pieces = count, bytes, seconds, "state fetched");
    Ok(incoming)
}

impl Target {
    /// What it is, for transfers.
    pub(crate) fn subject(&self) -> Subject {
        match self {
            Self::Shard(shard) => Subject::Shard(shard.id()),
            Self::Meta(_) => Subject::Meta,
        }
    }
}

impl Inner {
    /// The group here of what is asked for.
    fn group_of(&self, subject: Subject) -> Result<Arc<Group>, Failure> {
        let groups = self.groups.read();
        let found = groups.values().find(|group| group.target().subject() == subject);
        let missing = || Failure::unavailable(format!("there is no {subject:?} here"), RETRY);
        found.map(Arc::clone).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back() {
        for subject in [Subject::Meta, Subject::Shard(ShardId(0)), Subject::Shard(ShardId(7))] {
            let bytes = ask_for(subject, &[1, u128::MAX]);
            assert_eq!(asked_for(&bytes), Some((subject, HashSet::from([1, u128::MAX]))));
            assert_eq!(asked_for(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(asked_for(&[]), None);
    }
}
