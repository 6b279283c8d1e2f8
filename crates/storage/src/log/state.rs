//! What the log knows in memory about its groups: votes, marks, and where each entry stands.
//!
//! Pure bookkeeping, the same for what is appended and for what is read back at the start: no files, no
//! threads. A slot that is `Lost` stands for an entry that is known to have been there and is damaged.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::record::TableRow;
use super::{GroupId, LogError, LogId, Vote};

/// More lost entries in a row than this are not listed one by one.
const MAX_LISTED_HOLE: u64 = 1 << 16;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// How far an entry got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the flusher's queue.
    Queued,
    /// Fsynced at this place.
    Stored(Place),
    /// Fsynced once, damaged now.
    Lost,
}

/// One entry.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// Which append wrote it: an overwritten entry's flush must not touch its successor.
    pub(crate) ticket: u64,
    pub(crate) term: u64,
    pub(crate) tag: u8,
    pub(crate) len: u32,
    pub(crate) stage: Stage,
    /// The bytes, always there while `Queued`.
    pub(crate) bytes: Option<Bytes>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    /// `committed` changed since it was last written.
    pub(crate) committed_dirty: bool,
    /// The entry before `slots`, as far as one is known.
    base: Option<LogId>,
    /// Index of `slots[0]`.
    first: u64,
    pub(crate) slots: VecDeque<Slot>,
    /// Why the group's records cannot be trusted as a whole (a record was lost and nobody knows which).
    pub(crate) suspect: Option<Arc<str>>,
    /// What was found where an entry is lost.
    pub(crate) finding: Option<Arc<str>>,
}

impl Group {
    /// The last entry, or the one that everything before was purged up to.
    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(LogId { term: slot.term, index: self.end() - 1 }),
            None => self.base,
        }
    }

    /// One past the last index in `slots`.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Index of the first slot.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index that an append may have at most: one more than the last; `None` when any will do.
    pub(crate) fn next_index(&self) -> Option<u64> {
        self.last().map(|last| last.index + 1)
    }

    pub(crate) fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Drops entries at and after `from`.
    pub(crate) fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.truncate(keep as usize);
        if self.slots.is_empty() && self.base.is_some_and(|base| base.index >= from) {
            // Entries that the table knows of and nobody has found: those before `from` stay missing.
            self.base = match self.purged {
                Some(purged) if purged.index >= from => None,
                Some(purged) if purged.index + 1 == from => Some(purged),
                None if from == 0 => None,
                _ => Some(LogId { term: 0, index: from - 1 }),
            };
            self.first = from;
        }
        if self.committed.is_some_and(|c| c.index >= from) {
            self.committed = self.last();
            self.committed_dirty = true;
        }
    }

    /// Appends an entry, dropping what stands at its index and after. The caller has ruled out a hole.
    pub(crate) fn push(&mut self, index: u64, slot: Slot) {
        if index < self.end() {
            self.truncate(index);
        }
        if self.slots.is_empty() {
            self.first = index;
        }
        self.slots.push_back(slot);
    }

    /// Appends an entry read back from disk; a gap before it becomes lost entries.
    pub(crate) fn push_found(&mut self, index: u64, slot: Slot, gap: &Arc<str>) {
        if self.purged.is_some_and(|purged| index <= purged.index) {
            return;
        }
        if let Some(next) = self.next_index()
            && index > next
        {
            self.mark_lost(next, index, gap);
        }
        self.push(index, slot);
    }

    /// Notes that the entries `from..to` were there and are lost.
    pub(crate) fn mark_lost(&mut self, from: u64, to: u64, what: &Arc<str>) {
        self.finding.get_or_insert_with(|| Arc::clone(what));
        if to - from > MAX_LISTED_HOLE {
            self.slots.clear();
            self.first = to;
            self.base = Some(LogId { term: 0, index: to - 1 });
            return;
        }
        for index in from..to {
            let lost = Slot { ticket: 0, term: 0, tag: 0, len: 0, stage: Stage::Lost, bytes: None };
            self.push(index, lost);
        }
    }

    /// Drops entries up to and including `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        while self.first <= upto.index && self.slots.pop_front().is_some() {
            self.first += 1;
        }
        if self.slots.is_empty() && self.base.is_none_or(|base| base.index <= upto.index) {
            self.first = upto.index + 1;
            self.base = Some(upto);
        } else if !self.slots.is_empty() && self.first == upto.index + 1 {
            self.base = Some(upto);
        }
        if self.finding.is_some() && self.first_lost().is_none() {
            self.finding = None;
        }
    }

    /// Takes over what a table in the log says; entries that should be there and are not become lost.
    pub(crate) fn apply_table(&mut self, row: &TableRow, gap: &Arc<str>) {
        self.vote = row.vote;
        self.committed = row.committed;
        if let Some(purged) = row.purged {
            self.purge(purged);
        }
        match row.last {
            None => self.truncate(0),
            Some(last) => {
                self.truncate(last.index + 1);
                let missing = self.last().is_none_or(|have| have.index < last.index);
                if missing && self.slots.is_empty() {
                    self.first = last.index + 1;
                    self.base = Some(last);
                    self.finding.get_or_insert_with(|| Arc::clone(gap));
                } else if missing {
                    let from = self.end();
                    self.mark_lost(from, last.index + 1, gap);
                }
            }
        }
        self.suspect = None;
        if self.first_lost().is_none() {
            self.finding = None;
        }
    }

    /// The row of a table that describes this group.
    pub(crate) fn row(&self) -> TableRow {
        TableRow { vote: self.vote, purged: self.purged, committed: self.committed, last: self.last() }
    }

    /// The first entry after the purged ones that is not whole.
    pub(crate) fn first_lost(&self) -> Option<u64> {
        // The entry before the slots should be the last one purged; a later one means that those between are missing.
        let purged = self.purged.map(|purged| purged.index);
        if self.base.is_some_and(|base| purged.is_none_or(|purged| purged < base.index)) {
            return Some(purged.map_or(0, |purged| purged + 1));
        }
        let at = self.slots.iter().position(|slot| slot.stage == Stage::Lost)?;
        Some(self.first + at as u64)
    }

    /// Cuts the group down to what is whole, so that it can be used again; returns the first index given up.
    pub(crate) fn salvage(&mut self) -> Option<u64> {
        let lost = self.first_lost();
        if let Some(lost) = lost {
            if lost < self.first {
                self.slots.clear();
                self.base = self.purged;
                self.first = lost;
            } else {
                self.truncate(lost);
            }
            if self.committed.is_some_and(|c| c.index >= lost) {
                self.committed = self.last();
            }
        }
        // Never vote again in a term that the lost records may have voted in.
        let seen = self.slots.iter().map(|slot| slot.term).max().max(self.purged.map(|p| p.term));
        if self.suspect.is_some()
            && let Some(term) = seen
            && self.vote.is_none_or(|vote| vote.term < term)
        {
            self.vote = None;
        }
        self.suspect = None;
        self.finding = None;
        lost
    }

    /// Fails when something of the group is damaged.
    pub(crate) fn check(&self, group: GroupId) -> Result<(), LogError> {
        if let Some(what) = &self.suspect {
            let at = "an unknown record".to_owned();
            return Err(LogError::Damaged { group, at, what: Arc::clone(what) });
        }
        if self.finding.is_none() {
            return Ok(());
        }
        let Some(index) = self.first_lost() else { return Ok(()) };
        let what = self.finding.clone().unwrap_or_else(|| "entries are missing".into());
        Err(LogError::Damaged { group, at: format!("entry {index}"), what })
    }
}
