//! Bytes of the node log: segment header, record header, body framing, and the table of groups.
//!
//! Only coding and checking lives here; which record means what to a group is told in `scan.rs`. Every
//! number is little-endian. `FORMAT.md` ("Node log") draws the same bytes; its examples are decoded by
//! a test of this module.

use super::{GroupId, LogId, Vote};

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 72;
/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"ISOBLOG\n";
/// The version of everything in a segment.
pub(crate) const VERSION: u8 = 1;
/// First bytes of a record header.
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"iREC");
/// Last bytes of a record header: never zero, so that a torn header shows.
const HEADER_END: u32 = u32::from_le_bytes(*b"rEND");
/// Last byte of a record with a body: never zero, so that a torn body shows.
pub(crate) const BODY_END: u8 = 0xb5;
/// The longest body: what a length may claim before anything is read by it.
pub(crate) const MAX_BODY: u32 = 32 << 20;
/// `prev_group` of the first record of a log.
pub(crate) const NO_GROUP: GroupId = GroupId(u64::MAX);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// One log entry of a group; the body is the caller's.
    Entry = 1,
    /// A group's vote: `term`, `index` = who it is for, `tag` 1 = committed.
    Vote = 2,
    /// Entries at and after `index` are dropped; `term` is that of the last one left, `tag` 1 = none is left.
    Truncate = 3,
    /// Entries up to and including (`term`, `index`) are no longer needed.
    Purge = 4,
    /// Entries up to and including (`term`, `index`) are known to be committed.
    Committed = 5,
    /// The group left this node for good.
    Forget = 6,
    /// The states of all groups (the body), as of this place in the log.
    Table = 7,
    /// The log goes on in segment number `index`.
    Roll = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::Forget,
            7 => Self::Table,
            8 => Self::Roll,
            _ => return None,
        })
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Entry: the caller's tag. Vote: 1 = committed.
    pub(crate) tag: u8,
    /// Bytes of the body.
    pub(crate) body_len: u32,
    /// crc32c of the body.
    pub(crate) body_crc: u32,
    /// Number of this record in the whole log, from 1, without gaps.
    pub(crate) lsn: u64,
    /// Number of the first record that was written and fsynced together with this one. A record with a
    /// higher one proves that everything below it was fsynced before.
    pub(crate) batch: u64,
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// The group of the record before this one: names the victim when that record's header is damaged.
    pub(crate) prev_group: GroupId,
}

/// Bytes of a record with a body of `body_len` bytes: padded to a multiple of 8, the last byte an end mark.
pub(crate) fn record_len(body_len: u32) -> u64 {
    if body_len == 0 {
        RECORD_HEADER as u64
    } else {
        RECORD_HEADER as u64 + (u64::from(body_len) + 8) / 8 * 8
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl Header {
    /// Appends the record made of this header and `body` to `out`. Length and checksum are taken from `body`.
    pub(crate) fn encode(&self, body: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let body_crc = if body.is_empty() { 0 } else { crc32c::crc32c(body) };
        out.extend_from_slice(&body_crc.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, self.tag, 0, 0]);
        for number in [self.lsn, self.batch, self.group.0, self.index, self.term, self.prev_group.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&HEADER_END.to_le_bytes());
        debug_assert_eq!(out.len() - start, RECORD_HEADER, "layout of the header");
        let crc = crc32c::crc32c(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        if !body.is_empty() {
            out.extend_from_slice(body);
            let end = start + record_len(body.len() as u32) as usize;
            out.resize(end - 1, 0);
            out.push(BODY_END);
        }
    }

    /// The header at the start of `bytes`, when it is whole and its checksum is right.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if u32_at(bytes, 0) != RECORD_MAGIC || u32_at(bytes, 68) != HEADER_END {
            return None;
        }
        if crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        let header = Self {
            kind: Kind::from_byte(bytes[16])?,
            tag: bytes[17],
            body_len: u32_at(bytes, 8),
            body_crc: u32_at(bytes, 12),
            lsn: u64_at(bytes, 20),
            batch: u64_at(bytes, 28),
            group: GroupId(u64_at(bytes, 36)),
            index: u64_at(bytes, 44),
            term: u64_at(bytes, 52),
            prev_group: GroupId(u64_at(bytes, 60)),
        };
        (header.body_len <= MAX_BODY).then_some(header)
    }

    /// The header at the start of `bytes` after turning back the one flipped bit that makes its checksum
    /// right; `None` when no single bit does.
    pub(crate) fn repair(bytes: &[u8]) -> Option<Self> {
        let mut copy: [u8; RECORD_HEADER] = bytes.get(..RECORD_HEADER)?.try_into().ok()?;
        for bit in 0..RECORD_HEADER * 8 {
            copy[bit / 8] ^= 1 << (bit % 8);
            if let Some(header) = Self::decode(&copy) {
                return Some(header);
            }
            copy[bit / 8] ^= 1 << (bit % 8);
        }
        None
    }

    /// Whether `record`, which starts with this header, holds the whole body with the right checksum.
    pub(crate) fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        if self.body_len == 0 {
            return Some(&[]);
        }
        let end = record_len(self.body_len) as usize;
        let body = record.get(RECORD_HEADER..RECORD_HEADER + self.body_len as usize)?;
        (*record.get(end - 1)? == BODY_END && crc32c::crc32c(body) == self.body_crc).then_some(body)
    }
}

/// Where the next thing that looks like a record header starts, at or after `from` (a multiple of 8).
pub(crate) fn find_magic(bytes: &[u8], from: usize) -> Option<usize> {
    let magic = RECORD_MAGIC.to_le_bytes();
    let mut at = from;
    while at + RECORD_HEADER <= bytes.len() {
        if bytes[at..at + 4] == magic {
            return Some(at);
        }
        at += 8;
    }
    None
}

/// The header of segment number `seq`, whose first record has number `first_lsn`.
pub(crate) fn encode_segment_header(seq: u64, first_lsn: u64) -> [u8; SEGMENT_HEADER] {
    let mut out = [0; SEGMENT_HEADER];
    out[..8].copy_from_slice(&SEGMENT_MAGIC);
    out[8] = VERSION;
    out[12..20].copy_from_slice(&seq.to_le_bytes());
    out[20..28].copy_from_slice(&first_lsn.to_le_bytes());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    /// A segment that this version reads.
    Good {
        /// Its number.
        seq: u64,
        /// Number of its first record.
        first_lsn: u64,
    },
    /// Written by a newer version.
    Newer(u8),
    /// All zero: created, never written.
    Empty,
    /// Neither.
    Damaged,
}

/// Decodes a segment's header.
pub(crate) fn decode_segment_header(bytes: &[u8]) -> SegmentHeader {
    let Some(bytes) = bytes.get(..SEGMENT_HEADER) else { return SegmentHeader::Empty };
    if bytes.iter().all(|&b| b == 0) {
        return SegmentHeader::Empty;
    }
    if bytes[..8] != SEGMENT_MAGIC || crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
        return SegmentHeader::Damaged;
    }
    if bytes[8] != VERSION {
        return SegmentHeader::Newer(bytes[8]);
    }
    SegmentHeader::Good { seq: u64_at(bytes, 12), first_lsn: u64_at(bytes, 20) }
}

/// One row of a table record: all that a group needs besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableRow {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// Bytes of one row in a table's body.
const ROW: usize = 80;

/// The body of a table record.
pub(crate) fn encode_table(rows: &[(GroupId, TableRow)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + rows.len() * ROW);
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    for (group, row) in rows {
        out.extend_from_slice(&group.0.to_le_bytes());
        let vote = row.vote.unwrap_or_default();
        let present = u8::from(row.vote.is_some())
            | u8::from(row.purged.is_some()) << 1
            | u8::from(row.committed.is_some()) << 2
            | u8::from(row.last.is_some()) << 3
            | u8::from(vote.committed) << 4;
        out.extend_from_slice(&[present, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&vote.term.to_le_bytes());
        out.extend_from_slice(&vote.voted_for.to_le_bytes());
        for id in [row.purged, row.committed, row.last] {
            let id = id.unwrap_or_default();
            out.extend_from_slice(&id.term.to_le_bytes());
            out.extend_from_slice(&id.index.to_le_bytes());
        }
    }
    out
}

/// Reads a table's body back; `None` when it does not add up.
pub(crate) fn decode_table(body: &[u8]) -> Option<Vec<(GroupId, TableRow)>> {
    let rows = body.get(8..)?;
    if u64_at(body, 0) != (rows.len() / ROW) as u64 || rows.len() % ROW != 0 {
        return None;
    }
    let decode = |row: &[u8]| {
        let present = row[8];
        let id = |bit: u8, at: usize| {
            (present & bit != 0).then(|| LogId { term: u64_at(row, at), index: u64_at(row, at + 8) })
        };
        let vote = (present & 1 != 0).then(|| Vote {
            term: u64_at(row, 16),
            voted_for: u64_at(row, 24),
            committed: present & 16 != 0,
        });
        let row_of = TableRow { vote, purged: id(2, 32), committed: id(4, 48), last: id(8, 64) };
        (GroupId(u64_at(row, 0)), row_of)
    };
    Some(rows.chunks_exact(ROW).map(decode).collect())
}
