//! What callers and the flusher share: the groups, the queue, the cache, and reading.
//!
//! One lock over all of it, held for bookkeeping only; files are read and written outside of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use model::seam::Clock;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::metrics::LogMetrics;
use super::record::{Header, Kind, RECORD_HEADER};
use super::state::{Group, Place, Stage};
use super::{
    Flushed, GroupId, Holding, LogConfig, LogEntry, LogError, LogFile, LogFiles, LogId, segment_name,
};

/// What a cached entry costs beside its bytes.
const CACHED_COST: usize = 64;

/// A record to be written.
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) tag: u8,
    pub(crate) group: GroupId,
    pub(crate) id: LogId,
    pub(crate) ticket: u64,
    pub(crate) body: Bytes,
    pub(crate) flushed: Option<Flushed>,
}

impl Op {
    /// A record without a body.
    pub(crate) fn mark(kind: Kind, tag: u8, group: GroupId, id: LogId, flushed: Option<Flushed>) -> Self {
        Self { kind, tag, group, id, ticket: 0, body: Bytes::new(), flushed }
    }
}

/// Everything under the lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) groups: HashMap<GroupId, Group>,
    pub(crate) queue: VecDeque<Op>,
    /// Purges, truncations and forgets in the queue or being written: while there are some, memory is ahead of
    /// the disk and no segment may go.
    pub(crate) removals: usize,
    pub(crate) tickets: u64,
    /// Records ever put into the queue, and how many of them are on the disk.
    pub(crate) queued: u64,
    pub(crate) flushed: u64,
    /// Who waits for so many records to be on the disk.
    pub(crate) barriers: Vec<(u64, Flushed)>,
    /// Entries whose bytes are cached and what each costs, oldest first.
    pub(crate) cached: VecDeque<(GroupId, u64, usize)>,
    pub(crate) cached_bytes: usize,
    pub(crate) segments: BTreeMap<u64, Arc<dyn LogFile>>,
    pub(crate) disk_bytes: u64,
    pub(crate) room: u64,
    pub(crate) failed: Option<LogError>,
    pub(crate) closing: bool,
    pub(crate) closed: bool,
    pub(crate) abandoned: bool,
}

impl State {
    pub(crate) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(crate) fn queue(&mut self, op: Op) {
        if matches!(op.kind, Kind::Purge | Kind::Truncate | Kind::Forget) {
            self.removals += 1;
        }
        self.queued += 1;
        self.queue.push_back(op);
    }

    /// Notes that `records` more are on the disk; gives those who waited for that.
    pub(crate) fn note_flushed(&mut self, records: usize) -> Vec<Flushed> {
        self.flushed += records as u64;
        let flushed = self.flushed;
        self.barriers.extract_if(.., |(upto, _)| *upto <= flushed).map(|(_, waiter)| waiter).collect()
    }

    /// Everybody who waits, when nothing more will come to the disk.
    pub(crate) fn give_up(&mut self) -> (Vec<Op>, Vec<Flushed>) {
        (self.queue.drain(..).collect(), self.barriers.drain(..).map(|(_, waiter)| waiter).collect())
    }

    /// Notes that an entry is on the disk, and lets go of old cached bytes.
    pub(crate) fn stored(&mut self, op: &Op, place: Place, cache_bytes: usize) {
        let Some(slot) = self.groups.get_mut(&op.group).and_then(|group| group.slot_mut(op.id.index)) else {
            return;
        };
        if slot.ticket != op.ticket {
            return;
        }
        slot.stage = Stage::Stored(place);
        let cost = slot.len as usize + CACHED_COST;
        self.cached.push_back((op.group, op.id.index, cost));
        self.cached_bytes += cost;
        // Entries that were purged meanwhile count until their turn comes: the bound holds all the same.
        while self.cached_bytes > cache_bytes {
            let Some((group, index, cost)) = self.cached.pop_front() else { break };
            self.cached_bytes -= cost;
            let slot = self.groups.get_mut(&group).and_then(|group| group.slot_mut(index));
            if let Some(slot) = slot
                && matches!(slot.stage, Stage::Stored(_))
            {
                slot.bytes = None;
            }
        }
    }

    /// The oldest segment that some group still needs.
    pub(crate) fn oldest_needed(&self) -> Option<u64> {
        let first = |group: &Group| {
            group.slots.iter().find_map(|slot| match slot.stage {
                Stage::Stored(place) => Some(place.segment),
                Stage::Queued | Stage::Lost => None,
            })
        };
        self.groups.values().filter_map(first).min()
    }
}

/// What callers and the flusher share.
pub(crate) struct Shared {
    pub(crate) files: Arc<dyn LogFiles>,
    pub(crate) config: LogConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: LogMetrics,
    pub(crate) state: Mutex<State>,
    pub(crate) work: Condvar,
}

impl Shared {
    /// The state, when the log still takes records.
    pub(crate) fn accept(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let state = self.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if state.closing || state.closed || state.abandoned {
            return Err(LogError::Closed);
        }
        Ok(state)
    }

    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    pub(crate) fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        enum Source {
            Memory(Bytes),
            File(Arc<dyn LogFile>, Place),
        }
        let mut wanted = Vec::new();
        {
            let state = self.state.lock();
            let Some(found) = state.groups.get(&group) else { return Ok(Vec::new()) };
            let to = to.min(found.end());
            if from >= to {
                return Ok(Vec::new());
            }
            if from < found.first() {
                found.check(group)?;
                return Err(LogError::NotThere { group, index: from });
            }
            let mut bytes = 0;
            for index in from..to {
                let Some(slot) = found.slot(index) else { break };
                bytes += slot.len as usize;
                if bytes > max_bytes && !wanted.is_empty() {
                    break;
                }
                let source = match (&slot.bytes, slot.stage) {
                    (Some(bytes), _) => Source::Memory(bytes.clone()),
                    (None, Stage::Stored(place)) => match state.segments.get(&place.segment) {
                        Some(file) => Source::File(Arc::clone(file), place),
                        None => return Err(LogError::NotThere { group, index }),
                    },
                    (None, Stage::Lost | Stage::Queued) => {
                        found.check(group)?;
                        return Err(LogError::NotThere { group, index });
                    }
                };
                wanted.push((LogId { term: slot.term, index }, slot.tag, slot.len, source));
            }
        }
        let mut entries = Vec::with_capacity(wanted.len());
        for (id, tag, len, source) in wanted {
            let bytes = match source {
                Source::Memory(bytes) => {
                    self.metrics.cache_hits.inc();
                    bytes
                }
                Source::File(file, place) => {
                    self.metrics.cache_misses.inc();
                    self.read_entry(group, id, len, &*file, place)?
                }
            };
            entries.push(LogEntry { id, tag, bytes });
        }
        Ok(entries)
    }

    fn read_entry(
        &self,
        group: GroupId,
        id: LogId,
        len: u32,
        file: &dyn LogFile,
        place: Place,
    ) -> Result<Bytes, LogError> {
        let name = segment_name(place.segment);
        let size = super::record::record_len(len) as usize;
        let mut record = vec![0; size];
        file.read_at(place.offset, &mut record)
            .map_err(LogError::io(format!("{}/{name}", self.files.place()), "read"))?;
        let right = Header::decode(&record).or_else(|| Header::repair(&record)).is_some_and(|header| {
            header.kind == Kind::Entry
                && header.group == group
                && header.index == id.index
                && header.term == id.term
                && header.body_len == len
                && header.body(&record).is_some()
        });
        if !right {
            self.metrics.damaged_records.inc();
            let what = format!("{name} at {}: the record is not what was written there", place.offset).into();
            return Err(LogError::Damaged { group, at: format!("entry {}", id.index), what });
        }
        Ok(Bytes::from(record).slice(RECORD_HEADER..RECORD_HEADER + len as usize))
    }

    pub(crate) fn holdings(&self) -> Vec<Holding> {
        let state = self.state.lock();
        let Some(current) = state.segments.keys().next_back().copied() else { return Vec::new() };
        let mut holdings: Vec<Holding> = state
            .groups
            .iter()
            .filter_map(|(id, group)| {
                let last = group.last()?.index;
                let place = group.slots.iter().find_map(|slot| match slot.stage {
                    Stage::Stored(place) => Some(place.segment),
                    Stage::Queued | Stage::Lost => None,
                })?;
                let behind_bytes = (current - place + 1) * self.config.segment_bytes;
                Some(Holding { group: *id, first: group.first(), last, behind_bytes })
            })
            .collect();
        holdings.sort_by_key(|h| (std::cmp::Reverse(h.behind_bytes), h.group));
        holdings
    }
}
