//! One shard's state machine: plan (leader), apply (every replica), flush, read, background work.

use std::sync::Arc;

use model::seam::{SeriesSource, ShardBatch, ShardReport, ShardWriteError};
use model::{Epoch, LogIndex, Matcher, TenantId, TimeRange};

use crate::StorageError;

/// What the leader proposes for some batches.
#[derive(Debug, Default)]
pub struct Plan {
    /// The log entry; empty when nothing needs to be proposed.
    pub entry: Vec<u8>,
    /// What becomes of each batch, in order.
    pub verdicts: Vec<Planned>,
}

/// What becomes of one batch of a [`Plan`].
#[derive(Debug)]
pub enum Planned {
    /// It is in the entry: its report is the one at this position of what [`Shard::apply`] gives for the entry.
    InEntry(usize),
    /// Nothing needs to be committed: everything is already applied (or rejected).
    Nothing(ShardReport),
    /// It cannot be planned.
    Refused(ShardWriteError),
}

/// What waits for a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlushFigures {
    /// Bytes of sealed pages and late samples in memory that are not durable in the database yet.
    pub sealed_bytes: u64,
    /// Entries applied since the durable index.
    pub entries: u64,
    /// Bytes of entries applied since the durable index.
    pub entry_bytes: u64,
}

/// What a step of background work did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeProgress {
    /// Bytes of pages read.
    pub read_bytes: u64,
    /// Bytes of pages written.
    pub written_bytes: u64,
    /// Whether more work is waiting: call again soon.
    pub more: bool,
}

/// One shard on this node.
#[derive(Debug)]
pub struct Shard {}

fn not_built<T>() -> Result<T, StorageError> {
    Err(StorageError::corrupt("shard", "not built yet"))
}

impl Shard {
    /// Leader: forgets what was planned and not applied, and gives refs under `incarnation` (non-zero, never used before
    /// for this shard: the term will do) from now on. To be called after the own term's first entry was applied.
    pub fn begin_term(&self, _incarnation: u64) {}

    /// Leader: one log entry for all `batches`. Plans may follow each other without waiting for apply, in the order in
    /// which they are proposed. When a planned entry will surely not be committed though the term goes on,
    /// [`Shard::begin_term`] must be called again. `now_ms` is written into the entry and becomes the shard's clock.
    pub fn plan(&self, _batches: &[Arc<ShardBatch>], _now_ms: i64) -> Plan {
        Plan::default()
    }

    /// Leader: an entry that deletes samples in `range` of the series of `tenant` that match one of `selectors` (each a
    /// list of matchers), as they are now. Empty when nothing matches.
    pub fn plan_delete(
        &self,
        _tenant: &TenantId,
        _selectors: &[Vec<Matcher>],
        _range: TimeRange,
        _now_ms: i64,
    ) -> Result<Vec<u8>, StorageError> {
        not_built()
    }

    /// Leader: an entry that moves the retention floor to `floor_ms`: older samples are no longer read or accepted.
    /// Empty when the floor is there already.
    pub fn plan_retention(&self, _floor_ms: i64, _now_ms: i64) -> Vec<u8> {
        Vec::new()
    }

    /// Leader: an entry that takes series out of the head that had no sample since `idle_before_ms` (at most `limit`).
    /// Empty when there is none.
    pub fn plan_evict(&self, _idle_before_ms: i64, _limit: usize, _now_ms: i64) -> Vec<u8> {
        Vec::new()
    }

    /// Leader: an entry that sets the shard's epoch and its range of placement keys (first and last, both included).
    /// Until the first such entry the shard takes batches of any epoch.
    pub fn plan_range(&self, _epoch: Epoch, _first_key: u64, _last_key: u64, _now_ms: i64) -> Vec<u8> {
        Vec::new()
    }

    /// The shard's epoch and range of placement keys, as its own log says; `None` before it was set.
    pub fn range(&self) -> Option<(Epoch, u64, u64)> {
        None
    }

    /// Applies the entry at `index`: a pure function of state and entry. `mark` are opaque bytes of replication (last
    /// log id, membership), kept with the state. Gives a report for each batch in the entry; refs are in it only where
    /// this replica planned the entry. An index that is already applied is skipped (no reports). An error is final:
    /// the replica must not go on.
    pub fn apply(&self, _index: LogIndex, _entry: &[u8], _mark: &[u8]) -> Result<Vec<ShardReport>, StorageError> {
        not_built()
    }

    /// Moves the mark past an entry that is no business of the state machine (blank, membership).
    pub fn set_mark(&self, _index: LogIndex, _mark: &[u8]) {}

    /// Index and mark up to which everything survives a crash without the log: the log may be purged up to it.
    pub fn durable(&self) -> (LogIndex, Vec<u8>) {
        (LogIndex(0), Vec::new())
    }

    /// Index and mark of the last entry applied.
    pub fn applied(&self) -> (LogIndex, Vec<u8>) {
        (LogIndex(0), Vec::new())
    }

    /// What waits for a flush.
    pub fn flush_due(&self) -> FlushFigures {
        FlushFigures::default()
    }

    /// Makes everything applied so far durable in the database, in one atomic batch, and gives the durable index. One
    /// at a time (others wait); apply and reads go on meanwhile. After a failure nothing is lost; call again.
    pub fn flush(&self) -> Result<LogIndex, StorageError> {
        not_built()
    }

    /// A view that sees everything applied before this call.
    pub fn reader(&self) -> Arc<dyn SeriesSource> {
        Arc::new(model::seam::fake::MemorySource::default())
    }

    /// Index and rolling hash over (entry, verdicts) of everything applied: equal on all replicas at the same index.
    pub fn state_hash(&self) -> (LogIndex, u64) {
        (LogIndex(0), 0)
    }

    /// Does a piece of background work of about `max_bytes`: merges small pages, seals the index of ended days, drops
    /// what lies before the retention floor. One at a time.
    pub fn merge_step(&self, _max_bytes: u64) -> Result<MergeProgress, StorageError> {
        not_built()
    }
}
