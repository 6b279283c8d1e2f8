//! Reads the log back at the start: finds its end, cuts a torn tail, and pins damage to the group it hits.
//!
//! How a torn tail is told from damage. Every record carries the number of the first record of its batch,
//! the records that were written and fsynced together, and a batch is written only after the one before was
//! fsynced. So a bad place that is followed by a record of a *later batch* had been fsynced: it is damage.
//! A bad place in the last batch may be a write that never finished: it is cut, with all that follows in that
//! batch (nobody was told that it is durable), but only if it looks like an unfinished write: files are
//! reserved as zeros and disks write sectors whole, so some sector of the record is all zero, or its non-zero
//! end mark and everything after it is. A flipped bit does neither, so it is damage there too. (A record body
//! that holds a whole zero sector *and* is hit by a bit flip while it is the very last thing written would be
//! taken for torn; batches after it, and the table written at a clean stop, rule that out.)
//!
//! Damage to a record's body names its group in its own header; one flipped bit in a header is turned back by
//! the header's checksum; a header that is lost is named by the record after it. When even that fails, all
//! groups are suspect until a later table of groups (each segment begins with one) accounts for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::files::{LogFile, LogFiles};
use super::record::{self, Header, Kind, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, record_len};
use super::state::{Group, Place, Slot, Stage};
use super::{GroupId, LogError, LogId, Vote, segment_name, segment_number};

/// What a disk writes whole.
const SECTOR: usize = 512;

/// Where the log goes on.
pub(crate) struct Tail {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Start of the last batch: written again before anything else, since nobody knows whether its fsync
    /// came back.
    pub(crate) rewrite_from: u64,
    /// Bytes after `offset` up to here must be zeroed.
    pub(crate) dirty_to: u64,
}

/// What was read back.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) groups: HashMap<GroupId, Group>,
    pub(crate) segments: BTreeMap<u64, Arc<dyn LogFile>>,
    pub(crate) tail: Option<Tail>,
    /// An empty segment made ahead of its use.
    pub(crate) spare: Option<(u64, Arc<dyn LogFile>)>,
    /// Files without a valid record after the log's end.
    pub(crate) leftovers: Vec<u64>,
    /// Segments in which damage was found.
    pub(crate) damaged_segments: Vec<u64>,
    pub(crate) next_lsn: u64,
    pub(crate) last_group: Option<GroupId>,
    /// Bytes of a torn tail that were cut.
    pub(crate) torn_bytes: u64,
    /// Damaged records.
    pub(crate) damaged_records: u64,
    /// Headers in which one bit was turned back.
    pub(crate) repaired: u64,
    /// For each segment that ends with a roll record, where that leads.
    rolls: HashMap<u64, u64>,
    /// The record missing before the next one has been charged to its group.
    accounted: bool,
}

/// A stretch of a segment.
#[derive(Debug)]
enum Piece {
    Good {
        header: Header,
        at: usize,
    },
    /// The header is right, the body is not.
    BadBody {
        header: Header,
        at: usize,
    },
    /// No header can be read here.
    Bad {
        from: usize,
        to: usize,
    },
}

/// Reads all segments. `salvage` goes on over missing files.
pub(crate) fn scan(files: &dyn LogFiles, salvage: bool) -> Result<Found, LogError> {
    let place = files.place();
    let names = files.list().map_err(LogError::io(&place, "list"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut found = Found { next_lsn: 1, ..Found::default() };

    // The live segments are those up to the last one that holds a header or a record.
    let mut live = numbers.len();
    while let Some(&seq) = live.checked_sub(1).and_then(|at| numbers.get(at)) {
        if holds_something(files, &place, seq)? {
            break;
        }
        live -= 1;
    }
    for (position, &seq) in numbers[live..].iter().enumerate() {
        let file = open(files, &place, seq)?;
        let expected = live.checked_sub(1).and_then(|at| numbers.get(at)).map_or(1, |last| last + 1);
        let all_zero = used(&read_all(&*file, &place, seq)?) == 0;
        if position == 0 && seq == expected && all_zero {
            found.spare = Some((seq, file));
        } else {
            found.leftovers.push(seq);
        }
    }

    for (position, &seq) in numbers[..live].iter().enumerate() {
        if let Some(before) = position.checked_sub(1).map(|at| numbers[at])
            && seq != before + 1
            && !salvage
        {
            return Err(LogError::SegmentMissing { place, name: segment_name(before + 1) });
        }
        let file = open(files, &place, seq)?;
        let bytes = read_all(&*file, &place, seq)?;
        if let SegmentHeader::Newer(version) = record::decode_segment_header(&bytes) {
            let known = record::VERSION;
            return Err(LogError::NewerFormat { place, name: segment_name(seq), version, known });
        }
        let is_last = position + 1 == live;
        found.read_segment(seq, &bytes, is_last, position == 0);
        found.segments.insert(seq, file);
    }
    if let Some(tail) = &found.tail
        && let Some(next) = found.rolled_from(tail.segment)
        && found.spare.as_ref().is_none_or(|(seq, _)| *seq != next)
        && !found.leftovers.contains(&next)
        && !salvage
    {
        return Err(LogError::SegmentMissing { place, name: segment_name(next) });
    }
    Ok(found)
}

fn open(files: &dyn LogFiles, place: &str, seq: u64) -> Result<Arc<dyn LogFile>, LogError> {
    let name = segment_name(seq);
    files.open(&name).map_err(LogError::io(format!("{place}/{name}"), "open"))
}

fn read_all(file: &dyn LogFile, place: &str, seq: u64) -> Result<Vec<u8>, LogError> {
    let name = || format!("{place}/{}", segment_name(seq));
    let len = file.len().map_err(LogError::io(name(), "length"))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(0, &mut bytes).map_err(LogError::io(name(), "read"))?;
    Ok(bytes)
}

/// Whether a segment was ever used: its header, or any record in it, is right.
fn holds_something(files: &dyn LogFiles, place: &str, seq: u64) -> Result<bool, LogError> {
    let file = open(files, place, seq)?;
    let mut head = [0; SEGMENT_HEADER];
    let good = |head: &[u8]| {
        matches!(record::decode_segment_header(head), SegmentHeader::Good { .. } | SegmentHeader::Newer(_))
    };
    if file.read_at(0, &mut head).is_ok() && good(&head) {
        return Ok(true);
    }
    let bytes = read_all(&*file, place, seq)?;
    Ok(next_header(&bytes, SEGMENT_HEADER, 0).is_some())
}

/// Where the last byte that is not zero ends.
fn used(bytes: &[u8]) -> usize {
    const STEP: usize = 4096;
    let mut end = bytes.len();
    // Whole steps of zeros first: this loop has no exit inside a step, so that it runs at the speed of memory.
    while end >= STEP && bytes[end - STEP..end].iter().fold(0, |all, byte| all | byte) == 0 {
        end -= STEP;
    }
    bytes[..end].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// The next right header at or after `from` with a number above `lsn`.
fn next_header(bytes: &[u8], mut from: usize, lsn: u64) -> Option<(usize, Header)> {
    loop {
        let at = record::find_magic(bytes, from)?;
        match Header::decode(&bytes[at..]) {
            Some(header) if header.lsn > lsn => return Some((at, header)),
            _ => from = at + 8,
        }
    }
}

/// Whether what stands in `from..to` can be a write that did not finish.
fn looks_torn(bytes: &[u8], from: usize, to: usize) -> bool {
    if to > bytes.len() {
        return true;
    }
    let mut at = from;
    while at < to {
        let end = ((at / SECTOR + 1) * SECTOR).min(to);
        if bytes[at..end].iter().all(|&byte| byte == 0) {
            return true;
        }
        at = end;
    }
    bytes[to - 1..].iter().all(|&byte| byte == 0)
}

impl Found {
    /// The segment that the last record of `segment` sends the reader to, if it is a roll.
    fn rolled_from(&self, segment: u64) -> Option<u64> {
        self.rolls.get(&segment).copied()
    }

    fn read_segment(&mut self, seq: u64, bytes: &[u8], is_last: bool, is_first: bool) {
        let (pieces, end) = self.split(bytes, seq);
        // For each piece the highest batch number after it: what proves that it was fsynced.
        let mut proof = vec![0; pieces.len()];
        let mut highest = if is_last { 0 } else { u64::MAX };
        for (at, piece) in pieces.iter().enumerate().rev() {
            proof[at] = highest;
            if let Piece::Good { header, .. } | Piece::BadBody { header, .. } = piece {
                highest = highest.max(header.batch);
            }
        }
        let mut tail = Tail {
            segment: seq,
            offset: SEGMENT_HEADER as u64,
            rewrite_from: SEGMENT_HEADER as u64,
            dirty_to: 0,
        };
        let mut last_batch = 0;
        let mut tables = 0;
        for (at, piece) in pieces.iter().enumerate() {
            let lsn = self.next_lsn;
            match piece {
                Piece::Good { header, at: offset } => {
                    if header.kind == Kind::Table {
                        tables += 1;
                    }
                    self.apply(header, seq, *offset, bytes);
                    if header.batch != last_batch {
                        last_batch = header.batch;
                        tail.rewrite_from = *offset as u64;
                    }
                    self.next_lsn = header.lsn + 1;
                    self.last_group = Some(header.group);
                    tail.offset = *offset as u64 + record_len(header.body_len);
                }
                Piece::BadBody { header, at: offset } => {
                    let to = offset + record_len(header.body_len) as usize;
                    if header.lsn >= proof[at] && looks_torn(bytes, *offset, to) {
                        self.torn_bytes += (end - offset) as u64;
                        tail.dirty_to = end as u64;
                        break;
                    }
                    self.bad_body(header, seq, *offset);
                    self.next_lsn = header.lsn + 1;
                    self.last_group = Some(header.group);
                    tail.offset = to as u64;
                }
                Piece::Bad { from, to } => {
                    if lsn >= proof[at] && looks_torn(bytes, *from, *from + RECORD_HEADER) {
                        self.torn_bytes += (end - from) as u64;
                        tail.dirty_to = end as u64;
                        break;
                    }
                    self.bad_span(seq, *from, *to, pieces.get(at + 1));
                    tail.offset = (*to as u64).next_multiple_of(8);
                }
            }
        }
        if is_first && tables == 0 && !pieces.is_empty() {
            let what: Arc<str> = format!("{}: the table of groups is damaged", segment_name(seq)).into();
            self.suspect_all(&what);
        }
        if is_last {
            self.tail = Some(tail);
        }
    }

    /// Cuts a segment into records and bad places; also returns where its last non-zero byte ends.
    fn split(&mut self, bytes: &[u8], seq: u64) -> (Vec<Piece>, usize) {
        let end = used(bytes);
        let mut pieces = Vec::new();
        let mut lsn = self.next_lsn.saturating_sub(1);
        let mut at = SEGMENT_HEADER;
        while at < end {
            let mut header = Header::decode(&bytes[at..]).filter(|header| header.lsn > lsn);
            if header.is_none() {
                header = Header::repair(&bytes[at..]).filter(|header| header.lsn == lsn + 1);
                if header.is_some() {
                    self.repaired += 1;
                    tracing::warn!(segment = %segment_name(seq), offset = at, "turned back a flipped bit in a log record");
                }
            }
            let Some(header) = header else {
                let next = next_header(bytes, at + 8, lsn).map_or(end, |(next, _)| next);
                pieces.push(Piece::Bad { from: at, to: next });
                at = next;
                continue;
            };
            lsn = header.lsn;
            let to = at + record_len(header.body_len) as usize;
            if bytes.get(at..to).is_some_and(|record| header.body(record).is_some()) {
                pieces.push(Piece::Good { header, at });
            } else {
                pieces.push(Piece::BadBody { header, at });
            }
            at = to;
        }
        (pieces, end)
    }

    /// Does to the groups what a record says.
    fn apply(&mut self, header: &Header, seq: u64, at: usize, bytes: &[u8]) {
        if header.lsn > self.next_lsn {
            let what: Arc<str> = format!(
                "{} at {at}: records {} to {} are missing before it",
                segment_name(seq),
                self.next_lsn,
                header.lsn - 1
            )
            .into();
            // The bad place before it, if there was one, has already named its victim.
            if !self.accounted {
                self.damaged_records += 1;
                self.suspect_all(&what);
            }
        }
        self.accounted = false;
        let id = LogId { term: header.term, index: header.index };
        match header.kind {
            Kind::Entry => {
                let slot = Slot {
                    ticket: 0,
                    term: header.term,
                    tag: header.tag,
                    len: header.body_len,
                    stage: Stage::Stored(Place { segment: seq, offset: at as u64 }),
                    bytes: None,
                };
                let gap: Arc<str> =
                    format!("entries before the one in {} at {at} are missing", segment_name(seq)).into();
                self.group(header.group).push_found(header.index, slot, &gap);
            }
            Kind::Vote => {
                let vote = Vote { term: header.term, voted_for: header.index, committed: header.tag == 1 };
                self.group(header.group).vote = Some(vote);
            }
            Kind::Truncate => self.group(header.group).truncate(header.index),
            Kind::Purge => self.group(header.group).purge(id),
            Kind::Committed => self.group(header.group).committed = Some(id),
            Kind::Forget => {
                self.groups.remove(&header.group);
            }
            Kind::Table => self.apply_table(header, seq, at, bytes),
            Kind::Roll => {
                self.rolls.insert(seq, header.index);
            }
        }
    }

    fn apply_table(&mut self, header: &Header, seq: u64, at: usize, bytes: &[u8]) {
        let rows = header.body(&bytes[at..]).and_then(record::decode_table);
        let Some(rows) = rows else {
            // Its checksum was right, so a writer made it wrong.
            let what: Arc<str> =
                format!("{} at {at}: the table of groups does not decode", segment_name(seq)).into();
            self.suspect_all(&what);
            return;
        };
        let gap: Arc<str> =
            format!("the table in {} at {at} counts entries that are missing before it", segment_name(seq))
                .into();
        self.groups.retain(|group, _| rows.iter().any(|(row, _)| row == group));
        for (group, row) in &rows {
            self.group(*group).apply_table(row, &gap);
        }
    }

    fn group(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    fn note_damage(&mut self, seq: u64) {
        self.damaged_records += 1;
        if self.damaged_segments.last() != Some(&seq) {
            self.damaged_segments.push(seq);
        }
    }

    /// A record whose header is right and whose body is not: an entry is lost, or one copy of a table.
    fn bad_body(&mut self, header: &Header, seq: u64, at: usize) {
        self.note_damage(seq);
        let what: Arc<str> =
            format!("{} at {at}: the checksum of record {} is wrong", segment_name(seq), header.lsn).into();
        tracing::error!(group = header.group.0, index = header.index, %what, "damaged log record");
        if header.kind == Kind::Entry {
            let group = self.group(header.group);
            let slot = Slot {
                ticket: 0,
                term: header.term,
                tag: header.tag,
                len: 0,
                stage: Stage::Lost,
                bytes: None,
            };
            group.push_found(header.index, slot, &what);
            group.finding.get_or_insert(what);
        }
    }

    /// A place without a readable header.
    fn bad_span(&mut self, seq: u64, from: usize, to: usize, next: Option<&Piece>) {
        self.note_damage(seq);
        let what: Arc<str> =
            format!("{} at {from}: {} bytes are no record", segment_name(seq), to - from).into();
        tracing::error!(%what, "damaged log record");
        let victim = match next {
            Some(Piece::Good { header, .. } | Piece::BadBody { header, .. })
                if header.lsn == self.next_lsn + 1 =>
            {
                Some(header.prev_group)
            }
            _ => None,
        };
        self.accounted = true;
        match victim {
            // The table stands twice.
            Some(group) if group == record::NO_GROUP => {}
            Some(group) => self.group(group).suspect = Some(what),
            None => self.suspect_all(&what),
        }
    }

    fn suspect_all(&mut self, what: &Arc<str>) {
        for group in self.groups.values_mut() {
            group.suspect = Some(Arc::clone(what));
        }
    }
}
