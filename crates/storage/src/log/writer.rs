//! The flusher: the one thread that writes. Also opens the log, since that decides where writing goes on.
//!
//! A batch is everything that waits, up to a bound: one write, one `fdatasync`, then the callbacks. When a batch
//! does not fit, the log rolls: a roll record ends the old segment, and the next one (made ahead of time, its
//! name already fsynced) gets its header and table before anything else.

use std::collections::HashMap;
use std::sync::Arc;

use model::seam::Clock;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use super::metrics::LogMetrics;
use super::record::{self, Header, Kind, NO_GROUP, RECORD_HEADER, SEGMENT_HEADER, TableRow, record_len};
use super::scan::{self, Found};
use super::shared::{Op, Shared, State};
use super::state::Place;
use super::{GroupId, LogConfig, LogError, LogFile, LogFiles, LogId, Vote, segment_name};

/// What only the flusher knows.
pub(crate) struct Writer {
    seq: u64,
    file: Arc<dyn LogFile>,
    offset: u64,
    next_lsn: u64,
    last_group: GroupId,
    spare: Option<(u64, Arc<dyn LogFile>)>,
    /// What the disk says of each group: memory may be ahead by what is queued.
    rows: HashMap<GroupId, TableRow>,
    buffer: Vec<u8>,
}

/// Opens the log: reads it back, makes its end durable, and gets ready to write.
pub(crate) fn open(
    files: Arc<dyn LogFiles>,
    config: LogConfig,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<(Arc<Shared>, Writer), LogError> {
    let found = scan::scan(&*files, false)?;
    open_found(files, config, clock, registry, found, 1)
}

/// Goes on behind what was `found`; where it has no tail, in segment `first_seq`.
pub(crate) fn open_found(
    files: Arc<dyn LogFiles>,
    mut config: LogConfig,
    clock: Arc<dyn Clock>,
    registry: &mut Registry,
    mut found: Found,
    first_seq: u64,
) -> Result<(Arc<Shared>, Writer), LogError> {
    config.segment_bytes = config.segment_bytes.max(64 << 10);
    let metrics = LogMetrics::new(registry);
    metrics.damaged_records.inc_by(found.damaged_records);
    #[cfg(feature = "seeded_bugs")]
    if config.seeded_bug == Some(super::SeededBug::CutAtDamage) {
        found.groups.values_mut().for_each(|group| {
            group.salvage();
        });
    }
    let place = files.place();
    if found.torn_bytes > 0 {
        tracing::info!(bytes = found.torn_bytes, "cut the unfinished end of the node log");
    }
    for &seq in &found.leftovers {
        files.remove(&segment_name(seq)).map_err(LogError::io(&place, "remove an unused segment of"))?;
    }
    let rows = found.groups.iter().map(|(id, group)| (*id, group.row())).collect();
    let state = State {
        groups: std::mem::take(&mut found.groups),
        segments: std::mem::take(&mut found.segments),
        ..State::default()
    };
    let shared =
        Shared { files, config, clock, metrics, state: Mutex::new(state), work: parking_lot::Condvar::new() };
    let mut writer = match found.tail {
        Some(tail) => {
            let segments = shared.state.lock();
            let file = segments.segments.get(&tail.segment).map(Arc::clone);
            drop(segments);
            let Some(file) = file else {
                let name = segment_name(tail.segment);
                return Err(LogError::SegmentMissing { place, name });
            };
            let at_tail =
                || LogError::io(format!("{place}/{}", segment_name(tail.segment)), "settle the end of");
            settle(&*file, &tail).map_err(at_tail())?;
            Writer {
                seq: tail.segment,
                file,
                offset: tail.offset,
                next_lsn: found.next_lsn,
                last_group: found.last_group.unwrap_or(NO_GROUP),
                spare: found.spare,
                rows,
                buffer: Vec::new(),
            }
        }
        None => {
            let file = match found.spare {
                Some((seq, file)) if seq == first_seq => file,
                _ => create(&shared, first_seq)?,
            };
            let mut writer = Writer {
                seq: first_seq,
                file,
                offset: 0,
                next_lsn: found.next_lsn,
                last_group: NO_GROUP,
                spare: None,
                rows,
                buffer: Vec::new(),
            };
            writer.start_segment(&shared)?;
            writer
        }
    };
    writer.settle_table(&shared)?;
    writer.make_spare(&shared);
    writer.account(&shared);
    writer.remove_old(&shared);
    Ok((Arc::new(shared), writer))
}

/// Writes the last batch again (its fsync may have failed, and then the page cache lies), zeroes what follows it,
/// and fsyncs both.
fn settle(file: &dyn LogFile, tail: &scan::Tail) -> std::io::Result<()> {
    let len = file.len()?;
    let end = tail.offset.min(len);
    let mut last =
        vec![0; usize::try_from(end.saturating_sub(tail.rewrite_from)).map_err(std::io::Error::other)?];
    file.read_at(tail.rewrite_from, &mut last)?;
    file.write_at(tail.rewrite_from, &last)?;
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; CHUNK.min(tail.dirty_to.saturating_sub(end)) as usize];
    let mut at = end;
    while at < tail.dirty_to {
        let step = CHUNK.min(tail.dirty_to - at);
        file.write_at(at, &zeros[..step as usize])?;
        at += step;
    }
    file.sync()
}

/// Makes segment `seq`, with its name on the disk.
fn create(shared: &Shared, seq: u64) -> Result<Arc<dyn LogFile>, LogError> {
    let name = segment_name(seq);
    let place = format!("{}/{name}", shared.files.place());
    let file =
        shared.files.create(&name, shared.config.segment_bytes).map_err(LogError::io(&place, "create"))?;
    file.sync().map_err(LogError::io(&place, "fsync"))?;
    shared.files.sync_dir().map_err(LogError::io(shared.files.place(), "fsync"))?;
    Ok(file)
}

impl Writer {
    /// Writes until the log is closed, abandoned, or a write fails.
    pub(crate) fn run(mut self, shared: &Shared) {
        loop {
            let mut state = shared.state.lock();
            while state.queue.is_empty() && !state.closing && !state.abandoned {
                shared.work.wait(&mut state);
            }
            drop(state);
            if !self.step(shared) {
                return;
            }
        }
    }

    /// Writes one batch of what waits; false when it was the last: the log is closed, abandoned, or a write failed.
    pub(crate) fn step(&mut self, shared: &Shared) -> bool {
        let mut batch = Vec::new();
        let closing = {
            let mut state = shared.state.lock();
            if state.abandoned {
                let (rest, barriers) = state.give_up();
                state.closed = true;
                drop(state);
                answer(rest, &Err(LogError::Closed));
                barriers.into_iter().for_each(|waiter| waiter(Err(LogError::Closed)));
                return false;
            }
            take_batch(&mut state, &mut batch, shared.config.batch_bytes);
            state.closing && state.queue.is_empty()
        };
        #[cfg(feature = "seeded_bugs")]
        answer_early(shared, &mut batch);
        if let Err(error) = self.write(shared, &mut batch) {
            self.fail(shared, batch, &error);
            return false;
        }
        let removed = batch.iter().filter(|op| is_removal(op)).count();
        // Commit marks never stood in the queue.
        let records = batch.iter().filter(|op| op.kind != Kind::Committed).count();
        answer(batch.drain(..), &Ok(()));
        let barriers = shared.state.lock().note_flushed(records);
        barriers.into_iter().for_each(|waiter| waiter(Ok(())));
        if removed > 0 {
            shared.state.lock().removals -= removed;
            self.remove_old(shared);
        }
        self.make_spare(shared);
        self.account(shared);
        if closing {
            self.finish(shared);
        }
        !closing
    }

    /// The last records of a clean stop: the table proves that everything before it was fsynced.
    fn finish(&mut self, shared: &Shared) {
        let end = self.settle_table(shared);
        let mut state = shared.state.lock();
        state.closed = true;
        if let Err(error) = end {
            state.failed = Some(error);
        }
    }

    /// Latches the failure and tells everybody who waits.
    fn fail(&mut self, shared: &Shared, batch: Vec<Op>, error: &LogError) {
        tracing::error!(%error, "the node log failed: nothing more is written until the process is restarted");
        let place = shared.files.place();
        let failed = LogError::Failed { place, reason: error.to_string().into() };
        let (rest, barriers) = {
            let mut state = shared.state.lock();
            state.failed = Some(failed.clone());
            state.room = 0;
            state.give_up()
        };
        shared.metrics.failed.set(1);
        answer(batch, &Err(failed.clone()));
        answer(rest, &Err(failed.clone()));
        barriers.into_iter().for_each(|waiter| waiter(Err(failed.clone())));
    }

    /// Writes a batch and fsyncs it; then the entries have their places.
    pub(crate) fn write(&mut self, shared: &Shared, batch: &mut [Op]) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        let size: u64 = batch.iter().map(|op| record_len(op.body.len() as u32)).sum();
        if self.offset + size + RECORD_HEADER as u64 > self.segment_len(shared) {
            self.roll(shared)?;
        }
        let started = shared.clock.monotonic();
        let first = self.next_lsn;
        let mut places = Vec::with_capacity(batch.len());
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(size as usize);
        for op in batch.iter() {
            places.push(Place { segment: self.seq, offset: self.offset + buffer.len() as u64 });
            self.encode(op.kind, op.tag, op.group, op.id, &op.body, first, &mut buffer);
            self.note(op);
        }
        let synced = self.sync_needed(shared, batch);
        self.put(shared, &buffer, synced)?;
        shared.metrics.records.inc_by(batch.len() as u64);
        shared
            .metrics
            .flush_seconds
            .observe((shared.clock.monotonic().saturating_sub(started)).as_secs_f64());
        buffer.clear();
        buffer.shrink_to(shared.config.batch_bytes);
        self.buffer = buffer;
        let mut state = shared.state.lock();
        for (op, place) in batch.iter().zip(places) {
            if op.kind == Kind::Entry {
                state.stored(op, place, shared.config.cache_bytes);
            }
        }
        Ok(())
    }

    #[cfg(feature = "seeded_bugs")]
    #[allow(clippy::unused_self, reason = "the twin without the feature has the same shape")]
    fn sync_needed(&self, shared: &Shared, batch: &[Op]) -> bool {
        use super::SeededBug;
        match shared.config.seeded_bug {
            None => true,
            Some(SeededBug::UnsyncedAppend) => !batch.iter().any(|op| op.kind == Kind::Entry),
            Some(SeededBug::UnsyncedVote) => batch.iter().any(|op| op.kind != Kind::Vote),
            Some(
                SeededBug::EarlyFlushed
                | SeededBug::CutAtDamage
                | SeededBug::EarlyPurge
                | SeededBug::UnprovenReads
                | SeededBug::PartialAnswers
                | SeededBug::ClockInApply
                | SeededBug::HalfWrittenBatch
                | SeededBug::RetryAppendsTwice,
            ) => true,
        }
    }

    #[cfg(not(feature = "seeded_bugs"))]
    #[allow(clippy::unused_self, reason = "the twin with the feature has the same shape")]
    fn sync_needed(&self, _shared: &Shared, _batch: &[Op]) -> bool {
        true
    }

    /// Writes `bytes` at the end of the log and fsyncs them.
    fn put(&mut self, shared: &Shared, bytes: &[u8], sync: bool) -> Result<(), LogError> {
        let place = || format!("{}/{}", shared.files.place(), segment_name(self.seq));
        self.file.write_at(self.offset, bytes).map_err(LogError::io(place(), "write"))?;
        if sync {
            self.file.sync().map_err(LogError::io(place(), "fsync"))?;
        }
        self.offset += bytes.len() as u64;
        shared.metrics.flushes.inc();
        shared.metrics.bytes.inc_by(bytes.len() as u64);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn encode(
        &mut self,
        kind: Kind,
        tag: u8,
        group: GroupId,
        id: LogId,
        body: &[u8],
        batch: u64,
        out: &mut Vec<u8>,
    ) {
        let header = Header {
            kind,
            tag,
            body_len: 0,
            body_crc: 0,
            lsn: self.next_lsn,
            batch,
            group,
            index: id.index,
            term: id.term,
            prev_group: self.last_group,
        };
        header.encode(body, out);
        self.next_lsn += 1;
        self.last_group = group;
    }

    /// Keeps the rows of the next table true.
    fn note(&mut self, op: &Op) {
        if op.kind == Kind::Forget {
            self.rows.remove(&op.group);
            return;
        }
        let row = self.rows.entry(op.group).or_default();
        match op.kind {
            Kind::Entry => row.last = Some(op.id),
            Kind::Vote => {
                row.vote = Some(Vote { term: op.id.term, voted_for: op.id.index, committed: op.tag == 1 });
            }
            Kind::Truncate if row.last.is_some_and(|last| last.index >= op.id.index) => {
                let before = op.id.index.checked_sub(1).filter(|_| op.tag == 0);
                row.last = before.map(|index| LogId { term: op.id.term, index });
            }
            Kind::Purge => {
                row.purged = row.purged.max(Some(op.id));
                row.last = if row.last.is_some_and(|last| last.index > op.id.index) {
                    row.last
                } else {
                    Some(op.id)
                };
            }
            Kind::Committed => row.committed = Some(op.id),
            Kind::Truncate | Kind::Forget | Kind::Table | Kind::Roll => {}
        }
    }

    fn segment_len(&self, shared: &Shared) -> u64 {
        shared.config.segment_bytes
    }

    /// Goes on in the next segment.
    fn roll(&mut self, shared: &Shared) -> Result<(), LogError> {
        let next = self.seq + 1;
        let file = match self.spare.take() {
            Some((seq, file)) if seq == next => file,
            _ => create(shared, next)?,
        };
        let mut record = Vec::with_capacity(RECORD_HEADER);
        let lsn = self.next_lsn;
        self.encode(Kind::Roll, 0, NO_GROUP, LogId { term: 0, index: next }, &[], lsn, &mut record);
        self.put(shared, &record, true)?;
        self.seq = next;
        self.file = file;
        self.offset = 0;
        self.start_segment(shared)
    }

    /// Writes header and table (twice, so that no single fault takes it) of a new segment.
    fn start_segment(&mut self, shared: &Shared) -> Result<(), LogError> {
        let mut bytes = record::encode_segment_header(self.seq, self.next_lsn).to_vec();
        debug_assert_eq!(bytes.len(), SEGMENT_HEADER, "layout of the segment header");
        let first = self.next_lsn;
        let table = self.table();
        for _ in 0..2 {
            self.encode(Kind::Table, 0, NO_GROUP, LogId::default(), &table, first, &mut bytes);
        }
        self.put(shared, &bytes, true)?;
        shared.state.lock().segments.insert(self.seq, Arc::clone(&self.file));
        Ok(())
    }

    fn table(&self) -> Vec<u8> {
        let mut rows: Vec<_> = self.rows.iter().map(|(group, row)| (*group, *row)).collect();
        rows.sort_by_key(|(group, _)| *group);
        record::encode_table(&rows)
    }

    /// Writes a table in the middle of a segment: it proves that everything before it was fsynced. Left out where
    /// there is no room, and while a group is damaged, since a table would declare it whole.
    fn settle_table(&mut self, shared: &Shared) -> Result<(), LogError> {
        let damaged = {
            let state = shared.state.lock();
            state.groups.iter().any(|(id, group)| group.check(*id).is_err())
        };
        let table = self.table();
        let size = record_len(table.len() as u32) + RECORD_HEADER as u64;
        if damaged || self.offset + size > self.segment_len(shared) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let first = self.next_lsn;
        self.encode(Kind::Table, 0, NO_GROUP, LogId::default(), &table, first, &mut bytes);
        self.put(shared, &bytes, true)
    }

    /// Makes the next segment once this one is half full, so that rolling needs no space from the file system.
    fn make_spare(&mut self, shared: &Shared) {
        if self.spare.is_some() || self.offset * 2 < self.segment_len(shared) {
            return;
        }
        match create(shared, self.seq + 1) {
            Ok(file) => self.spare = Some((self.seq + 1, file)),
            Err(error) => tracing::warn!(%error, "cannot make the next log segment ahead of time"),
        }
    }

    /// Says how much room there is.
    fn account(&self, shared: &Shared) {
        let spare = u64::from(self.spare.is_some());
        let rest = self.segment_len(shared).saturating_sub(self.offset);
        let mut state = shared.state.lock();
        state.disk_bytes = (state.segments.len() as u64 + spare) * shared.config.segment_bytes;
        state.room = rest + spare * shared.config.segment_bytes;
        shared.metrics.segments.set(i64::try_from(state.segments.len()).unwrap_or(i64::MAX));
        shared.metrics.disk_bytes.set(i64::try_from(state.disk_bytes).unwrap_or(i64::MAX));
    }

    /// Removes segments that no group needs.
    fn remove_old(&mut self, shared: &Shared) {
        let old: Vec<u64> = {
            let state = shared.state.lock();
            // A damaged group's old segments stay for salvage.
            let damaged = state.groups.iter().any(|(id, group)| group.check(*id).is_err());
            if state.removals > 0 || damaged {
                return;
            }
            let needed = state.oldest_needed().unwrap_or(self.seq).min(self.seq);
            state.segments.range(..needed).map(|(seq, _)| *seq).collect()
        };
        for &seq in &old {
            if let Err(error) = shared.files.remove(&segment_name(seq)) {
                tracing::warn!(%error, segment = %segment_name(seq), "cannot remove an old log segment; trying again later");
                break;
            }
            shared.state.lock().segments.remove(&seq);
        }
        if !old.is_empty()
            && let Err(error) = shared.files.sync_dir()
        {
            tracing::warn!(%error, "cannot fsync the log folder after removing segments");
        }
    }
}

fn is_removal(op: &Op) -> bool {
    matches!(op.kind, Kind::Purge | Kind::Truncate | Kind::Forget)
}

/// Takes what waits, up to `limit` bytes, and the commit marks that changed.
fn take_batch(state: &mut State, batch: &mut Vec<Op>, limit: usize) {
    let mut bytes = 0;
    while let Some(op) = state.queue.front() {
        bytes += op.body.len() + RECORD_HEADER;
        if bytes > limit && !batch.is_empty() {
            break;
        }
        batch.extend(state.queue.pop_front());
    }
    if !state.queue.is_empty() {
        return;
    }
    for (id, group) in &mut state.groups {
        if !std::mem::take(&mut group.committed_dirty) {
            continue;
        }
        if let Some(committed) = group.committed {
            batch.push(Op::mark(Kind::Committed, 0, *id, committed, None));
        }
    }
}

/// The bug that acknowledges entries before they are written.
#[cfg(feature = "seeded_bugs")]
fn answer_early(shared: &Shared, batch: &mut [Op]) {
    if shared.config.seeded_bug == Some(super::SeededBug::EarlyFlushed) {
        for op in batch.iter_mut().filter(|op| op.kind == Kind::Entry) {
            if let Some(flushed) = op.flushed.take() {
                flushed(Ok(()));
            }
        }
    }
}

fn answer(ops: impl IntoIterator<Item = Op>, result: &Result<(), LogError>) {
    for op in ops {
        if let Some(flushed) = op.flushed {
            flushed(result.clone());
        }
    }
}
