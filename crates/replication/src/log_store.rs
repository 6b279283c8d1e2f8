//! openraft's log storage for one group, over the node log that all groups share.
//!
//! Votes are answered after their fsync; the flushed callback of an append is called by the node log's flusher,
//! after `fdatasync`. Nothing is buffered here.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use storage::log::{Flushed, GroupId, LogEntry, LogError, LogId, NodeLog, Vote};

use crate::coding::{self, decode_membership, encode_membership, term_of};
use crate::types::{Proposal, RaftEntry, RaftLogId, RaftVote, Types};

/// Tags of entries in the node log.
const BLANK: u8 = 0;
const DATA: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of entries that are read from the log in one go.
const READ_BYTES: usize = 1 << 20;

/// The log of one group.
#[derive(Clone, Debug)]
pub(crate) struct GroupLog {
    log: Arc<NodeLog>,
    group: GroupId,
}

impl GroupLog {
    pub(crate) fn new(log: Arc<NodeLog>, group: GroupId) -> Self {
        Self { log, group }
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        // Entries may be absent at the beginning of a range: the log begins later.
        let first = self.log.state(self.group).map_err(other)?.first;
        let entries = self.log.read(self.group, from.max(first), to, max_bytes).map_err(other)?;
        entries.into_iter().map(from_stored).collect()
    }
}

pub(crate) fn place(id: &RaftLogId) -> LogId {
    LogId { term: term_of(id), index: id.index() }
}

pub(crate) fn raft_id(id: LogId) -> RaftLogId {
    coding::log_id(id.term, id.index)
}

fn other(error: LogError) -> io::Error {
    io::Error::other(error)
}

pub(crate) fn to_stored(entry: RaftEntry) -> LogEntry {
    let id = place(&entry.log_id());
    let (tag, bytes) = match entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(Proposal(bytes)) => (DATA, bytes),
        EntryPayload::Membership(membership) => (MEMBERSHIP, encode_membership(&membership).into()),
    };
    LogEntry { id, tag, bytes }
}

pub(crate) fn from_stored(entry: LogEntry) -> io::Result<RaftEntry> {
    let payload = match entry.tag {
        BLANK => EntryPayload::Blank,
        DATA => EntryPayload::Normal(Proposal(entry.bytes)),
        MEMBERSHIP => {
            let membership = decode_membership(&entry.bytes).ok_or_else(|| {
                io::Error::other(format!("the membership in log entry {} does not decode", entry.id.index))
            })?;
            EntryPayload::Membership(membership)
        }
        tag => return Err(io::Error::other(format!("log entry {} has unknown kind {tag}", entry.id.index))),
    };
    Ok(RaftEntry::new(raft_id(entry.id), payload))
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&at) => at,
        Bound::Excluded(&at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&at) => at.saturating_add(1),
        Bound::Excluded(&at) => at,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// A callback of the node log and the future that it completes.
pub(crate) fn flushed() -> (Flushed, impl Future<Output = io::Result<()>>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let call: Flushed = Box::new(move |result| {
        // Nobody waits any more when the group has stopped.
        let _ = sender.send(result);
    });
    let wait = async move { receiver.await.unwrap_or(Err(LogError::Closed)).map_err(other) };
    (call, wait)
}

impl RaftLogReader<Types> for GroupLog {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let start = (self.clone(), from, Vec::new().into_iter(), false);
        futures::stream::unfold(start, move |(log, mut at, mut ready, failed)| async move {
            if failed {
                return None;
            }
            if let Some(entry) = ready.next() {
                return Some((Ok(entry), (log, at, ready, false)));
            }
            if at >= to {
                return None;
            }
            match log.read(at, to, READ_BYTES) {
                Ok(entries) => {
                    at = entries.last()?.log_id().index() + 1;
                    ready = entries.into_iter();
                    let entry = ready.next()?;
                    Some((Ok(entry), (log, at, ready, false)))
                }
                Err(error) => Some((Err(error), (log, at, ready, true))),
            }
        })
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.log.state(self.group).map_err(other)?.vote;
        Ok(vote.map(|vote| {
            if vote.committed {
                RaftVote::new_committed(vote.term, vote.voted_for)
            } else {
                RaftVote::new(vote.term, vote.voted_for)
            }
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = self.log.state(self.group).map_err(other)?;
        Ok(LogState { last_purged_log_id: state.purged.map(raft_id), last_log_id: state.last.map(raft_id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let leader = vote.leader_id();
        let vote = Vote { term: leader.term, voted_for: leader.voted_for, committed: vote.is_committed() };
        let (call, wait) = flushed();
        self.log.save_vote(self.group, vote, call).map_err(other)?;
        wait.await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        self.log.save_committed(self.group, place(&committed)).map_err(other)
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log.state(self.group).map_err(other)?.committed.map(raft_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(to_stored).collect();
        let call: Flushed = Box::new(move |result| callback.io_completed(result.map_err(other)));
        self.log.append(self.group, entries, call).map_err(other)
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let (call, wait) = flushed();
        self.log.truncate(self.group, last.map_or(0, |last| last.index() + 1), call).map_err(other)?;
        wait.await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        // Later records of the log follow this one on the disk, so nobody needs to wait for it.
        self.log.purge(self.group, place(&upto), Box::new(|_| {})).map_err(other)
    }
}
