//! One shard's state machine: plan (leader), apply (every replica), flush, read, background work.
//!
//! | file | story |
//! |---|---|
//! | `planner.rs` | batches → one log entry |
//! | `plan_kinds.rs` | what of a batch is more than floats: start timestamps, histograms, exemplars |
//! | `decide.rs` | deletions, retention, eviction, range → an entry |
//! | `apply.rs` | an entry → the head and verdicts |
//! | `persist.rs` | head ⇄ records of the database |
//! | `keys.rs` | the database's keys |
//! | `read.rs` | select and label calls |
//! | `days.rs` | partitions and their sealed indexes |
//! | `merge.rs` | background work: merge pages, seal indexes, drop what expired |
//! | `clean.rs` | background work: deleted samples leave the disk |
//! | `transfer.rs` | the state given to another node, or taken over from one |

mod apply;
mod clean;
mod days;
mod decide;
mod keys;
mod merge;
mod persist;
mod plan_kinds;
mod planner;
mod read;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::VecDeque;
use std::sync::Arc;

use model::seam::{RejectReason, SeriesSource, ShardBatch, ShardReport, StorageStatus};
use model::{Epoch, Failure, LogIndex, ReplicaId, ShardId, TenantId};
use parking_lot::{Mutex, RwLock};

use crate::kv::{Family, Kv};
use crate::metrics::Metrics;
use crate::{StorageError, StoreConfig};
use apply::{ApplyError, ApplyWork};
use days::Days;
use persist::{FlushImage, Mark};
use planner::Planner;

pub(crate) use keys::{PageKey, RecordName, describe_state};
pub(crate) use persist::{STATE_VERSION, source_of_series};
pub(crate) use transfer::replace;

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
    Refused(model::seam::ShardWriteError),
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

/// What a cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Pages written anew.
    pub pages: u64,
    /// Bytes of pages saved by that, before compaction.
    pub freed_bytes: u64,
    /// Deletions that are forgotten, since nothing of what they deleted is left.
    pub deletions: u64,
    /// Pages that may still hold deleted samples: damaged ones, say.
    pub left: u64,
}

/// One shard on this node.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    kv: Arc<dyn Kv>,
    config: StoreConfig,
    metrics: Metrics,
    state: RwLock<State>,
    planner: Mutex<Planner>,
    days: Days,
    /// Held while a flush is under way.
    flushing: Mutex<()>,
    /// Held while background work is under way; where the next step begins.
    merging: Mutex<merge::Position>,
    /// Pages that flushes wrote since the last step of background work.
    fresh_pages: Mutex<Vec<PageKey>>,
    durable: Mutex<(u64, Vec<u8>)>,
}

/// What apply changes.
#[derive(Debug)]
struct State {
    head: crate::head::Head,
    mark: Mark,
    /// Entries and their bytes since the last flush was taken.
    entries: u64,
    entry_bytes: u64,
    work: ApplyWork,
    /// Set by the first failure of apply: nothing is applied any more.
    broken: Option<String>,
    /// Why nothing may be read.
    withheld: Option<String>,
    /// Indexes and state hashes of the last entries applied.
    recent: VecDeque<(u64, u64)>,
}

/// When to ask again for what is withheld: another replica has it.
const WITHHELD_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Entries whose state hashes are kept for comparing replicas.
const RECENT: usize = 1024;

/// A flush between its phases.
pub(crate) struct PendingFlush<'a> {
    _guard: parking_lot::MutexGuard<'a, ()>,
    shard: &'a Shard,
    image: FlushImage,
    entries: (u64, u64),
}

impl Shard {
    pub(crate) fn open(
        id: ShardId,
        replica: ReplicaId,
        kv: Arc<dyn Kv>,
        config: StoreConfig,
        metrics: Metrics,
    ) -> Result<Self, StorageError> {
        let (head, mark) = persist::load(&*kv, id, replica).inspect_err(|e| {
            if matches!(e, StorageError::Corrupt { .. }) {
                metrics.corruptions.inc();
            }
        })?;
        let days = Days::load(&*kv, id)?;
        days.revive(&head.sources.iter().flat_map(|s| s.tile.iter().flat_map(|t| t.days())).collect());
        metrics.series.inc_by(head.n_active() as i64);
        let durable = (mark.index, mark.bytes.clone());
        let state = State::new(head, mark);
        Ok(Self {
            id,
            kv,
            config,
            metrics,
            state: RwLock::new(state),
            planner: Mutex::default(),
            days,
            flushing: Mutex::new(()),
            merging: Mutex::default(),
            fresh_pages: Mutex::default(),
            durable: Mutex::new(durable),
        })
    }

    /// The shard's id.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Leader: forgets what was planned and not applied, and gives refs under `incarnation` (non-zero, never used before
    /// for this shard: the term will do) from now on. To be called once a term, after the own term's first entry was
    /// applied and before the first plan.
    pub fn begin_term(&self, incarnation: u64) {
        self.planner.lock().begin_term(incarnation);
    }

    /// Leader: one log entry for all `batches`. Plans may follow each other without waiting for apply, in the order in
    /// which they are proposed; one that is never proposed does no harm. `now_ms` is written into the entry and becomes
    /// the shard's clock.
    pub fn plan(&self, batches: &[Arc<ShardBatch>], now_ms: i64) -> Plan {
        let mut planner = self.planner.lock();
        #[cfg(feature = "seeded_bugs")]
        {
            planner.forgets = self.appends_twice();
        }
        let state = self.state.read();
        let head = &state.head;
        let mut look_up = |place, timestamp| self.look_up(head, place, timestamp);
        planner.plan(head, batches, now_ms, self.config.max_late_samples, &mut look_up)
    }

    /// Whether `RetryAppendsTwice` is on.
    #[cfg(feature = "seeded_bugs")]
    fn appends_twice(&self) -> bool {
        let bug = self.config.log.as_ref().and_then(|log| log.seeded_bug());
        bug == Some(crate::log::SeededBug::RetryAppendsTwice)
    }

    /// The shard's epoch and range of placement keys, as its own log says; `None` before it was set.
    pub fn range(&self) -> Option<(Epoch, u64, u64)> {
        let state = self.state.read();
        state.head.range.map(|(first, last)| (Epoch(state.head.epoch), first, last))
    }

    /// Applies the entry at `index`: a pure function of state and entry. `mark` are opaque bytes of replication (last
    /// log id, membership), kept with the state. Gives a report for each batch in the entry; refs are in it only where
    /// this replica planned the entry. An index that is already applied is skipped (no reports). An error is final:
    /// the replica must not go on.
    pub fn apply(
        &self,
        index: LogIndex,
        entry: &[u8],
        mark: &[u8],
    ) -> Result<Vec<ShardReport>, StorageError> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        if state.mark.any && index.0 <= state.mark.index {
            return Ok(Vec::new());
        }
        let diverged = |message: String| StorageError::Diverged { shard: self.id.0, index: index.0, message };
        if let Some(message) = &state.broken {
            return Err(diverged(format!("an entry before it failed: {message}")));
        }
        #[cfg(feature = "seeded_bugs")]
        if let (Some(log), Ok((head, _))) = (&self.config.log, crate::entry::decode(entry))
            && log.takes_for_early(head.now_ms)
        {
            state.set_mark(index, mark);
            return Ok(Vec::new());
        }
        #[cfg(feature = "seeded_bugs")]
        {
            state.work.rows.appends_twice = self.appends_twice();
        }
        let before = state.head.n_active();
        let applied = match apply::apply(&mut state.head, index.0, entry, &mut state.work) {
            Ok(applied) => applied,
            Err(error) => {
                state.broken = Some(error.to_string());
                return Err(match error {
                    ApplyError::Decode(crate::entry::DecodeError::Version(found)) => StorageError::Version {
                        place: format!("log entry {index} of shard {}", self.id),
                        found: u32::from(found),
                        known: u32::from(crate::entry::ENTRY_VERSION),
                    },
                    ApplyError::Decode(e) => StorageError::corrupt(
                        format!("log entry {index} of shard {}", self.id),
                        e.to_string(),
                    ),
                    ApplyError::Misfit(message) => diverged(message),
                });
            }
        };
        state.set_mark(index, mark);
        state.entries += 1;
        state.entry_bytes += entry.len() as u64;
        let after = state.head.n_active();
        self.days.revive(&applied.days);
        drop(guard);

        let metrics = &self.metrics;
        metrics.entries.inc();
        metrics.staleness_markers.inc_by(applied.markers);
        metrics.late_samples.inc_by(applied.late);
        metrics.series.inc_by(after as i64 - before as i64);
        metrics.series_created.inc_by(after.saturating_sub(before) as u64);
        for batch in &applied.batches {
            metrics.samples.inc_by(batch.written.samples);
            metrics.histograms.inc_by(batch.written.histograms);
            metrics.exemplars.inc_by(batch.written.exemplars);
            let duplicates =
                batch.rejected.iter().filter(|(.., reason)| *reason == RejectReason::DuplicateTimestamp);
            metrics.duplicates.inc_by(duplicates.count() as u64);
        }
        if !applied.is_write {
            return Ok(Vec::new());
        }
        let reports =
            self.planner.lock().applied(applied.head.incarnation, applied.head.plan, &applied.batches);
        Ok(reports.unwrap_or_else(|| applied.batches.iter().map(apply::BatchOutcome::report).collect()))
    }

    /// Moves the mark past an entry that is no business of the state machine (blank, membership).
    pub fn set_mark(&self, index: LogIndex, mark: &[u8]) {
        let mut state = self.state.write();
        if !state.mark.any || index.0 > state.mark.index {
            state.set_mark(index, mark);
            state.entries += 1;
        }
    }

    /// Index and mark up to which everything survives a crash without the log: the log may be purged up to it. The mark
    /// is empty when nothing was ever flushed.
    pub fn durable(&self) -> (LogIndex, Vec<u8>) {
        let durable = self.durable.lock();
        (LogIndex(durable.0), durable.1.clone())
    }

    /// Index and mark of the last entry applied. The mark is empty when nothing was ever applied.
    pub fn applied(&self) -> (LogIndex, Vec<u8>) {
        let state = self.state.read();
        (LogIndex(state.mark.index), state.mark.bytes.clone())
    }

    /// What waits for a flush.
    pub fn flush_due(&self) -> FlushFigures {
        let state = self.state.read();
        let changes = &state.head.changes;
        FlushFigures {
            sealed_bytes: changes.sealed_bytes + changes.late_samples as u64 * 32,
            entries: state.entries,
            entry_bytes: state.entry_bytes,
        }
    }

    /// Makes everything applied so far durable in the database, in one atomic batch, and gives the durable index. One
    /// at a time (others wait); apply and reads go on meanwhile. After a failure nothing is lost; call again.
    pub fn flush(&self) -> Result<LogIndex, StorageError> {
        if let Some(pending) = self.begin_flush()? {
            let flushed = self.kv.flush();
            pending.end(flushed)?;
        }
        Ok(self.durable().0)
    }

    /// Writes what changed, not yet durable; `None` when nothing changed.
    pub(crate) fn begin_flush(&self) -> Result<Option<PendingFlush<'_>>, StorageError> {
        let guard = self.flushing.lock();
        let mut state = self.state.write();
        if state.entries == 0 {
            return Ok(None);
        }
        let mark = state.mark.clone();
        let entries = (std::mem::take(&mut state.entries), std::mem::take(&mut state.entry_bytes));
        let image = FlushImage::take(&mut state.head, mark);
        drop(state);
        let mut pending = PendingFlush { _guard: guard, shard: self, image, entries };
        if let Some(log) = &self.config.log
            && let Err(error) = log.barrier_wait()
        {
            let message = error.to_string();
            let unlogged =
                || StorageError::Io { what: "flush".into(), message: message.clone(), full: false };
            pending.end(Err(unlogged())).ok();
            return Err(unlogged());
        }
        let mut batch = pending.image.batch(self.id);
        // Days are known before their pages can be read, so that no reader leaves one out.
        for day in self.days.add(&pending.image.days) {
            let key = keys::index(day, self.id, days::SEAL_TENANT, days::PART_REVIVED);
            batch.put(Family::Index, key, crate::codec::seal_record(1, b"revived"));
        }
        match self.kv.write(batch) {
            Ok(()) => Ok(Some(pending)),
            Err(error) => {
                let message = error.to_string();
                let full = error.is_disk_full();
                pending.end(Err(error))?;
                Err(StorageError::Io { what: "flush".into(), message, full })
            }
        }
    }

    /// A view that sees everything applied before this call.
    pub fn reader(self: &Arc<Self>) -> Arc<dyn SeriesSource> {
        Arc::new(read::Reader(Arc::clone(self)))
    }

    /// Index and rolling hash over (entry, verdicts) of everything applied: equal on all replicas at the same index.
    pub fn state_hash(&self) -> (LogIndex, u64) {
        let state = self.state.read();
        (LogIndex(state.mark.index), state.head.hash)
    }

    /// Has reads fail for that reason, also those under way before they end, or (`None`) succeed again. State that is taken
    /// over from another node may be read.
    pub fn withhold(&self, reason: Option<String>) {
        self.state.write().withheld = reason;
    }

    /// The state, for those who read; fails while it is withheld.
    fn readable(&self) -> Result<parking_lot::RwLockReadGuard<'_, State>, Failure> {
        let state = self.state.read();
        match &state.withheld {
            None => Ok(state),
            Some(reason) => Err(Failure::unavailable(reason.clone(), WITHHELD_RETRY)),
        }
    }

    /// The state hash at `index`, if that is where the state stood at the start or among the last thousand entries
    /// applied here since.
    pub fn hash_at(&self, index: LogIndex) -> Option<u64> {
        let state = self.state.read();
        let at = state.recent.binary_search_by_key(&index.0, |(index, _)| *index).ok()?;
        state.recent.get(at).map(|(_, hash)| *hash)
    }

    /// Figures of the head for one tenant, or for all together, each list cut to `limit`.
    pub(crate) fn status(&self, tenant: Option<&TenantId>, limit: usize) -> StorageStatus {
        let state = self.state.read();
        let head = &state.head;
        let mut status = StorageStatus { min_time: i64::MAX, max_time: i64::MIN, ..StorageStatus::default() };
        let wanted = |at: usize| tenant.is_none_or(|tenant| head.tenants.get(at) == Some(tenant));
        for (_, index) in head.indexes.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            status.series += index.len();
            status.label_pairs += index.label_pairs() as u64;
            let part = index.cardinality(limit);
            status.series_by_metric.extend(part.series_by_metric);
            status.values_by_label.extend(part.values_by_label);
            status.memory_by_label.extend(part.memory_by_label);
            status.series_by_pair.extend(part.series_by_pair);
        }
        for source in head.sources.iter().filter(|source| wanted(source.tenant as usize)) {
            let tile = source.tile.as_ref().and_then(|t| t.time_range());
            let times = source.sealed.iter().map(|p| (p.min_time, p.max_time)).chain(tile);
            for (first, last) in times {
                status.min_time = status.min_time.min(first);
                status.max_time = status.max_time.max(last);
            }
            status.chunks += source.sealed.len() as u64;
        }
        status
    }

    /// Bytes of memory of this shard's head, roughly.
    pub fn memory(&self) -> usize {
        self.state.read().head.memory()
    }
}

impl State {
    fn new(head: crate::head::Head, mark: Mark) -> Self {
        let recent = if mark.any { VecDeque::from([(mark.index, head.hash)]) } else { VecDeque::new() };
        Self {
            head,
            mark,
            entries: 0,
            entry_bytes: 0,
            work: ApplyWork::default(),
            broken: None,
            withheld: None,
            recent,
        }
    }

    fn set_mark(&mut self, index: LogIndex, mark: &[u8]) {
        self.mark.any = true;
        self.mark.index = index.0;
        self.mark.bytes.clear();
        self.mark.bytes.extend_from_slice(mark);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((index.0, self.head.hash));
    }
}

impl PendingFlush<'_> {
    /// Ends the flush: `flushed` says whether the database made the batch durable.
    pub(crate) fn end(self, flushed: Result<(), StorageError>) -> Result<(), StorageError> {
        let Self { _guard, shard, image, entries } = self;
        let mut state = shard.state.write();
        match flushed {
            Ok(()) => {
                shard.metrics.flushes.inc();
                shard.metrics.flushed_bytes.inc_by(image.page_bytes);
                *shard.durable.lock() = (image.mark.index, image.mark.bytes.clone());
                let pages = image.settle(&mut state.head);
                drop(state);
                shard.fresh_pages.lock().extend(pages);
                Ok(())
            }
            Err(error) => {
                shard.metrics.flush_failures.inc();
                image.restore(&mut state.head);
                state.entries += entries.0;
                state.entry_bytes += entries.1;
                Err(error)
            }
        }
    }
}
