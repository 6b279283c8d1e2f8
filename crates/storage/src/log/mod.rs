//! The node log: one append-only, segmented log for all Raft groups of a node. It is the only write-ahead log.
//!
//! One flusher thread takes everything that waits, of all groups, writes it with one write and one `fdatasync`,
//! and then calls each waiter back; so a callback with `Ok` means: on the disk. A failed write or fsync is final
//! for the store: it is latched, and everything after it fails. Votes, truncations, purges and commit marks are
//! records too. Each segment begins with a table of every group's vote, purged, committed and last index, so
//! removing an old segment never removes the only copy; a segment goes when no group needs an entry in it.
//!
//! How reading back tells a torn tail from damage stands in `scan.rs`; the bytes in `record.rs` and `FORMAT.md`.
//! Nothing here knows Raft's rules: entries are opaque, and appending index i drops everything at and after i.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use model::seam::Clock;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

pub use error::LogError;
pub use files::{DiskFiles, Fault, FaultyFiles, LogFile, LogFiles};
pub use salvage::SalvagedGroup;

use record::Kind;
use shared::{Op, Shared};
use state::{Slot, Stage};
use writer::Writer;

mod error;
pub mod files;
#[cfg(test)]
mod log_test;
mod metrics;
#[cfg(test)]
mod power_test;
mod record;
mod salvage;
mod scan;
mod shared;
mod state;
mod writer;

/// A group in the log: the id of this node's replica of a shard (or of the meta group). Never used again, so
/// nothing of a former replica can come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

impl std::fmt::Display for GroupId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an entry in its group's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its position.
    pub index: u64,
}

/// A vote of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// In which term.
    pub term: u64,
    /// For which replica.
    pub voted_for: u64,
    /// Whether a majority gave theirs too.
    pub committed: bool,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub id: LogId,
    /// What the bytes are, for the caller.
    pub tag: u8,
    /// The content: at most [`NodeLog::MAX_ENTRY`] bytes.
    pub bytes: Bytes,
}

/// What the log holds of a group besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last vote saved.
    pub vote: Option<Vote>,
    /// Entries up to this one are gone.
    pub purged: Option<LogId>,
    /// Entries up to this one are known to be committed; may lag behind.
    pub committed: Option<LogId>,
    /// The last entry, or `purged` when there is none.
    pub last: Option<LogId>,
    /// The first index that is there, or will be.
    pub first: u64,
}

/// How a group holds on to old segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Which group.
    pub group: GroupId,
    /// Its first entry that is not purged.
    pub first: u64,
    /// Its last entry.
    pub last: u64,
    /// Bytes of log from the segment of its first entry to the end: what purging the group may free at most.
    pub behind_bytes: u64,
}

/// Called when the records of one call are on the disk, or will never be. Runs on the flusher's thread: it must
/// be quick and must not call back into the log.
pub type Flushed = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Bugs that a test switches on to prove that the harness finds them: of the log itself, and of those who use it.
#[cfg(feature = "seeded_bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// Entries are acknowledged without fsync.
    UnsyncedAppend,
    /// Votes are acknowledged without fsync.
    UnsyncedVote,
    /// Entries are acknowledged before they are written at all.
    EarlyFlushed,
    /// A damaged record ends the log, as if it were the torn tail.
    CutAtDamage,
    /// A log is purged up to what is applied, which a flush may not have stored yet.
    EarlyPurge,
    /// Who takes itself for the leader answers linearizable reads without asking the others.
    UnprovenReads,
    /// What of a query's data cannot be read counts as empty.
    PartialAnswers,
    /// A replica leaves entries out that its own clock takes for ten minutes early.
    ClockInApply,
    /// A batch that finds the store full is written in part.
    HalfWrittenBatch,
    /// A sample that is sent again, being the newest of its series, is not recognised and appended a second time.
    RetryAppendsTwice,
}

#[cfg(feature = "seeded_bugs")]
impl SeededBug {
    /// All of them, with the names that choose them.
    pub const ALL: [(&'static str, Self); 10] = [
        ("unsynced-append", Self::UnsyncedAppend),
        ("unsynced-vote", Self::UnsyncedVote),
        ("early-flushed", Self::EarlyFlushed),
        ("cut-at-damage", Self::CutAtDamage),
        ("early-purge", Self::EarlyPurge),
        ("unproven-reads", Self::UnprovenReads),
        ("partial-answers", Self::PartialAnswers),
        ("clock-in-apply", Self::ClockInApply),
        ("half-written-batch", Self::HalfWrittenBatch),
        ("retry-appends-twice", Self::RetryAppendsTwice),
    ];

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Bytes of a segment, reserved when it is made. Default 64 MiB; at least 64 KiB. Not changeable while open.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory for reading, beside those not flushed yet. Default 32 MiB.
    pub cache_bytes: usize,
    /// Most bytes written with one fsync. Default 8 MiB.
    pub batch_bytes: usize,
    /// A bug to have, for proving that tests find it.
    #[cfg(feature = "seeded_bugs")]
    pub seeded_bug: Option<SeededBug>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 32 << 20,
            batch_bytes: 8 << 20,
            #[cfg(feature = "seeded_bugs")]
            seeded_bug: None,
        }
    }
}

/// The log of a node. See the module.
pub struct NodeLog {
    shared: Arc<Shared>,
    flusher: Mutex<Flusher>,
}

/// Who writes what waits.
enum Flusher {
    /// A thread of its own.
    Thread(JoinHandle<()>),
    /// Whoever calls [`NodeLog::step`].
    Steps(Box<Writer>),
    /// Nobody any more.
    Ended,
}

impl std::fmt::Debug for NodeLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeLog({})", self.shared.files.place())
    }
}

impl NodeLog {
    /// The longest entry, bytes.
    pub const MAX_ENTRY: usize = record::MAX_BODY as usize;

    /// Opens the log in `files`, making one when there is none: reads everything back, cuts a torn tail, fsyncs
    /// what is left. A damaged group does not keep the log from opening; its calls fail with
    /// [`LogError::Damaged`]. Fails for missing segments, newer formats and disk errors.
    pub fn open(
        files: Arc<dyn LogFiles>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, LogError> {
        let (shared, writer) = writer::open(files, config, clock, registry)?;
        let shared_for_thread = Arc::clone(&shared);
        let flusher = std::thread::Builder::new()
            .name("log-flusher".to_owned())
            .spawn(move || writer.run(&shared_for_thread))
            .map_err(LogError::io(shared.files.place(), "start the flusher of"))?;
        Ok(Arc::new(Self { shared, flusher: Mutex::new(Flusher::Thread(flusher)) }))
    }

    /// The same without a thread: what waits is written when [`NodeLog::step`] is called, by whoever simulates a disk.
    pub fn open_stepped(
        files: Arc<dyn LogFiles>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, LogError> {
        let (shared, writer) = writer::open(files, config, clock, registry)?;
        Ok(Arc::new(Self { shared, flusher: Mutex::new(Flusher::Steps(Box::new(writer))) }))
    }

    /// Whether records wait to be written.
    pub fn waits(&self) -> bool {
        !self.shared.state.lock().queue.is_empty()
    }

    /// Of a log that was opened with [`NodeLog::open_stepped`]: writes one batch of what waits and calls its waiters back.
    pub fn step(&self) {
        let mut flusher = self.flusher.lock();
        if let Flusher::Steps(writer) = &mut *flusher
            && !writer.step(&self.shared)
        {
            *flusher = Flusher::Ended;
        }
    }

    /// Lets the flusher end, which was told to.
    fn end(&self) {
        self.shared.wake();
        match std::mem::replace(&mut *self.flusher.lock(), Flusher::Ended) {
            // A panic of the flusher has already failed every waiter through their callbacks' drop.
            Flusher::Thread(flusher) => drop(flusher.join()),
            Flusher::Steps(mut writer) => while writer.step(&self.shared) {},
            Flusher::Ended => {}
        }
    }

    /// Makes a damaged log usable: keeps of each group what is whole from its first entry on, gives up the rest,
    /// writes all that into new segments and copies the old ones to a `quarantine` folder. `durable` says up to where
    /// each group's state is stored elsewhere: nothing up to there is needed, and a group goes on from there at least.
    /// The log must not be open. Returns what was given up; groups that are whole are not listed.
    pub fn salvage(
        files: &Arc<dyn LogFiles>,
        config: LogConfig,
        durable: &[(GroupId, LogId)],
    ) -> Result<Vec<SalvagedGroup>, LogError> {
        salvage::salvage(files, config, durable)
    }

    /// The groups in the log, sorted, with what is damaged of them.
    pub fn groups(&self) -> Vec<(GroupId, GroupState, Option<LogError>)> {
        let state = self.shared.state.lock();
        let mut groups: Vec<_> = state
            .groups
            .iter()
            .map(|(id, group)| (*id, group_state(group), group.check(*id).err()))
            .collect();
        groups.sort_by_key(|(id, ..)| *id);
        groups
    }

    /// The state of `group`; all `None` when the log does not know it. Fails when it is damaged.
    pub fn state(&self, group: GroupId) -> Result<GroupState, LogError> {
        let state = self.shared.state.lock();
        let Some(found) = state.groups.get(&group) else { return Ok(GroupState::default()) };
        found.check(group)?;
        Ok(group_state(found))
    }

    /// Appends entries of one group: consecutive, the first at most one above the last there; everything at and
    /// after the first is dropped. They can be read at once; `flushed` is called when they are on the disk.
    pub fn append(&self, group: GroupId, entries: Vec<LogEntry>, flushed: Flushed) -> Result<(), LogError> {
        let Some(first) = entries.first().map(|entry| entry.id.index) else {
            flushed(Ok(()));
            return Ok(());
        };
        for (position, entry) in entries.iter().enumerate() {
            let (index, bytes) = (entry.id.index, entry.bytes.len());
            if bytes > Self::MAX_ENTRY {
                return Err(LogError::TooLong { group, index, bytes, limit: Self::MAX_ENTRY });
            }
            if index != first + position as u64 {
                return Err(LogError::Hole { group, index, last: Some(first + position as u64 - 1) });
            }
        }
        let mut state = self.shared.accept()?;
        let found = state.groups.entry(group).or_default();
        found.check(group)?;
        if let Some(next) = found.next_index()
            && first > next
        {
            return Err(LogError::Hole { group, index: first, last: next.checked_sub(1) });
        }
        let count = entries.len();
        let mut flushed = Some(flushed);
        for (position, entry) in entries.into_iter().enumerate() {
            let ticket = state.next_ticket();
            let slot = Slot {
                ticket,
                term: entry.id.term,
                tag: entry.tag,
                len: entry.bytes.len() as u32,
                stage: Stage::Queued,
                bytes: Some(entry.bytes.clone()),
            };
            if let Some(found) = state.groups.get_mut(&group) {
                found.push(entry.id.index, slot);
            }
            let flushed = if position + 1 == count { flushed.take() } else { None };
            state.queue(Op {
                kind: Kind::Entry,
                tag: entry.tag,
                group,
                id: entry.id,
                ticket,
                body: entry.bytes,
                flushed,
            });
        }
        self.shared.wake();
        Ok(())
    }

    /// Saves a vote; it counts once `flushed` was called with `Ok`.
    pub fn save_vote(&self, group: GroupId, vote: Vote, flushed: Flushed) -> Result<(), LogError> {
        let mut state = self.shared.accept()?;
        let found = state.groups.entry(group).or_default();
        found.check(group)?;
        found.vote = Some(vote);
        let id = LogId { term: vote.term, index: vote.voted_for };
        state.queue(Op::mark(Kind::Vote, u8::from(vote.committed), group, id, Some(flushed)));
        self.shared.wake();
        Ok(())
    }

    /// Notes that entries up to `id` are committed. Written along with whatever is written next, since losing it
    /// costs only time.
    pub fn save_committed(&self, group: GroupId, id: LogId) -> Result<(), LogError> {
        let mut state = self.shared.accept()?;
        let found = state.groups.entry(group).or_default();
        found.check(group)?;
        found.committed = Some(id);
        found.committed_dirty = true;
        Ok(())
    }

    /// Drops the entries at and after `from`.
    pub fn truncate(&self, group: GroupId, from: u64, flushed: Flushed) -> Result<(), LogError> {
        let mut state = self.shared.accept()?;
        let found = state.groups.entry(group).or_default();
        found.check(group)?;
        found.truncate(from);
        let last = found.last();
        let id = LogId { term: last.map_or(0, |last| last.term), index: from };
        state.queue(Op::mark(Kind::Truncate, u8::from(last.is_none()), group, id, Some(flushed)));
        self.shared.wake();
        Ok(())
    }

    /// Gives up the entries up to and including `upto`, which the state machine holds durably. This also heals a
    /// group whose damage lies below, so it is allowed on damaged groups.
    pub fn purge(&self, group: GroupId, upto: LogId, flushed: Flushed) -> Result<(), LogError> {
        let mut state = self.shared.accept()?;
        state.groups.entry(group).or_default().purge(upto);
        state.queue(Op::mark(Kind::Purge, 0, group, upto, Some(flushed)));
        self.shared.wake();
        Ok(())
    }

    /// Forgets a group that left this node for good.
    pub fn forget(&self, group: GroupId, flushed: Flushed) -> Result<(), LogError> {
        let mut state = self.shared.accept()?;
        state.groups.remove(&group);
        state.queue(Op::mark(Kind::Forget, 0, group, LogId::default(), Some(flushed)));
        self.shared.wake();
        Ok(())
    }

    /// Calls `flushed` once everything that was handed over before this call is on the disk. What was made of entries may
    /// be stored elsewhere only then: else a crash leaves a state that is ahead of its log.
    pub fn barrier(&self, flushed: Flushed) -> Result<(), LogError> {
        let mut state = self.shared.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if state.flushed == state.queued {
            drop(state);
            flushed(Ok(()));
        } else if state.closed {
            return Err(LogError::Closed);
        } else {
            let upto = state.queued;
            state.barriers.push((upto, flushed));
        }
        Ok(())
    }

    /// [`NodeLog::barrier`], waiting for it.
    pub fn barrier_wait(&self) -> Result<(), LogError> {
        self.wait(|flushed| self.barrier(flushed))
    }

    /// The entries of `group` in `from..to`, as many as fit into `max_bytes`, at least one when `from` is there.
    /// Entries past the last are left out. Fails when `from` was purged, or an entry in the range is damaged.
    pub fn read(
        &self,
        group: GroupId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.shared.read(group, from, to, max_bytes)
    }

    /// The place of entry `index`: without reading it. `None` when it is not there.
    pub fn id_at(&self, group: GroupId, index: u64) -> Option<LogId> {
        let state = self.shared.state.lock();
        let found = state.groups.get(&group)?;
        match found.slot(index) {
            Some(slot) if slot.stage != Stage::Lost => Some(LogId { term: slot.term, index }),
            _ => found.purged.filter(|purged| purged.index == index),
        }
    }

    /// Bytes of all segments on disk, reserved space of the current one included.
    pub fn size(&self) -> u64 {
        self.shared.state.lock().disk_bytes
    }

    /// Bytes that can still be appended without asking the file system for space. Near zero when the disk is full.
    pub fn room(&self) -> u64 {
        self.shared.state.lock().room
    }

    /// Who holds on to how much, the largest first: whom to flush and purge when the log grows too long.
    pub fn holdings(&self) -> Vec<Holding> {
        self.shared.holdings()
    }

    /// The bug that this log, and whoever uses it, shall have.
    #[cfg(feature = "seeded_bugs")]
    pub fn seeded_bug(&self) -> Option<SeededBug> {
        self.shared.config.seeded_bug
    }

    /// `ClockInApply`: whether that bug is on and the wall clock of this node is far behind `now_ms`.
    #[cfg(feature = "seeded_bugs")]
    pub(crate) fn takes_for_early(&self, now_ms: i64) -> bool {
        self.seeded_bug() == Some(SeededBug::ClockInApply) && self.shared.clock.now_ms() + 600_000 < now_ms
    }

    /// The failure that stopped the log for good, if there was one.
    pub fn failure(&self) -> Option<LogError> {
        self.shared.state.lock().failed.clone()
    }

    /// Writes what is left, with a table of groups behind it, and stops. Calls after this fail. Idempotent.
    pub fn close(&self) -> Result<(), LogError> {
        self.shared.state.lock().closing = true;
        self.end();
        self.failure().map_or(Ok(()), Err)
    }

    /// Stops without writing anything more, as a kill would: what was not written is lost. For tests.
    pub fn abandon(&self) {
        self.shared.state.lock().abandoned = true;
        self.end();
    }

    /// Runs `call` with a callback and waits for it.
    fn wait(&self, call: impl FnOnce(Flushed) -> Result<(), LogError>) -> Result<(), LogError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        call(Box::new(move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        }))?;
        while matches!(&*self.flusher.lock(), Flusher::Steps(_)) && self.waits() {
            self.step();
        }
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// [`NodeLog::append`], waiting until it is on the disk.
    pub fn append_wait(&self, group: GroupId, entries: Vec<LogEntry>) -> Result<(), LogError> {
        self.wait(|flushed| self.append(group, entries, flushed))
    }

    /// [`NodeLog::save_vote`], waiting until it is on the disk.
    pub fn save_vote_wait(&self, group: GroupId, vote: Vote) -> Result<(), LogError> {
        self.wait(|flushed| self.save_vote(group, vote, flushed))
    }

    /// [`NodeLog::truncate`], waiting until it is on the disk.
    pub fn truncate_wait(&self, group: GroupId, from: u64) -> Result<(), LogError> {
        self.wait(|flushed| self.truncate(group, from, flushed))
    }

    /// [`NodeLog::purge`], waiting until it is on the disk.
    pub fn purge_wait(&self, group: GroupId, upto: LogId) -> Result<(), LogError> {
        self.wait(|flushed| self.purge(group, upto, flushed))
    }
}

impl Drop for NodeLog {
    fn drop(&mut self) {
        // Dropped without `close`: write what is queued, as close does; its error has reached the waiters.
        let _ = self.close();
    }
}

fn group_state(group: &state::Group) -> GroupState {
    GroupState {
        vote: group.vote,
        purged: group.purged,
        committed: group.committed,
        last: group.last(),
        first: group.first(),
    }
}

/// The file name of segment `seq`.
fn segment_name(seq: u64) -> String {
    format!("{seq:016x}.log")
}

/// The number of the segment with file name `name`.
fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}
