//! Header and tables of a page ⇄ bytes. The drawing is in `FORMAT.md`, whose example a test here decodes.

use model::LogIndex;

use super::{MAX_ROWS, MAX_SERIES, PageError, PageMeta};

/// The version byte.
pub(super) const VERSION: u8 = 1;
/// Bytes of the checksum at the end.
pub(super) const CHECKSUM_LEN: usize = 4;

const LATE: u8 = 1;

/// The series has a slot that does not follow the one before.
const GAP: u8 = 1;
/// The series refers to another column than 0.
const COLUMN: u8 = 2;
/// The series misses rows of its column.
pub(super) const PRESENCE: u8 = 4;
/// The series has histograms.
pub(super) const HISTOGRAMS: u8 = 8;
/// The series has start timestamps.
pub(super) const STARTS: u8 = 16;
const ALL_FLAGS: u8 = 31;
/// Parts that follow the values; when a series has any, the length of its values is written too.
pub(super) const MORE: u8 = HISTOGRAMS | STARTS;

/// The first byte of values that are those of an earlier series, whose position is the second and last byte. No
/// coding of the chunk crate has this tag.
pub(super) const SAME_AS: u8 = 4;

/// A column of stamps in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnEntry {
    pub(super) rows: usize,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// A series in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeriesEntry {
    pub(super) slot: u32,
    /// [`PRESENCE`], [`HISTOGRAMS`], [`STARTS`].
    pub(super) flags: u8,
    pub(super) column: usize,
    pub(super) rows: usize,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// Everything before the columns' bytes. `start`s count from the page's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) meta: PageMeta,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
    pub(super) columns: Vec<ColumnEntry>,
    pub(super) series: Vec<SeriesEntry>,
}

impl Table {
    /// Appends the table; `start`s are not written, since the parts follow each other.
    #[allow(clippy::cast_possible_truncation, reason = "a page has at most 64 series and columns")]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(if self.meta.late { LATE } else { 0 });
        out.push(self.series.len() as u8);
        out.push(self.columns.len() as u8);
        push_varint(out, self.meta.sequence.0);
        push_varint(out, self.meta.last_sequence.0.wrapping_sub(self.meta.sequence.0));
        push_zigzag(out, self.min_time);
        push_varint(out, self.max_time.wrapping_sub(self.min_time).cast_unsigned());
        for column in &self.columns {
            push_varint(out, column.rows as u64);
            push_varint(out, column.len as u64);
        }
        let mut next = 0;
        for series in &self.series {
            let gap = series.slot - next;
            let flags =
                series.flags | if gap > 0 { GAP } else { 0 } | if series.column > 0 { COLUMN } else { 0 };
            out.push(flags);
            if gap > 0 {
                push_varint(out, u64::from(gap));
            }
            if series.column > 0 {
                out.push(series.column as u8);
            }
            if flags & PRESENCE != 0 {
                push_varint(out, series.rows as u64);
            }
            push_varint(out, series.len as u64);
            next = series.slot.wrapping_add(1);
        }
    }

    /// Reads version, checksum and tables of a page and checks that its parts fill it exactly.
    pub(super) fn read(page: &[u8]) -> Result<Self, PageError> {
        let version = *page.first().ok_or(PageError::Format("length"))?;
        if version != VERSION {
            return Err(PageError::Version(version));
        }
        let (bytes, checksum) = page.split_last_chunk::<CHECKSUM_LEN>().ok_or(PageError::Format("length"))?;
        let (found, expected) = (u32::from_le_bytes(*checksum), crc32c::crc32c(bytes));
        if found != expected {
            return Err(PageError::Checksum { found, expected });
        }
        let mut reader = Reader { bytes, at: 1 };
        let flags = reader.u8()?;
        if flags & !LATE != 0 {
            return Err(PageError::Format("flag"));
        }
        let n_series = usize::from(reader.u8()?);
        let n_columns = usize::from(reader.u8()?);
        if n_series == 0 || n_series > MAX_SERIES || n_columns == 0 || n_columns > n_series {
            return Err(PageError::Format("number of series or columns"));
        }
        let sequence = reader.varint()?;
        let last = sequence.checked_add(reader.varint()?).ok_or(PageError::Format("sequence"))?;
        let meta =
            PageMeta { sequence: LogIndex(sequence), last_sequence: LogIndex(last), late: flags & LATE != 0 };
        let min_time = unzigzag(reader.varint()?);
        let max_time = min_time.wrapping_add(reader.varint()?.cast_signed());
        if max_time < min_time {
            return Err(PageError::Format("time range"));
        }

        let mut columns = Vec::with_capacity(n_columns);
        for _ in 0..n_columns {
            let rows = reader.varlen(MAX_ROWS)?;
            let len = reader.varlen(bytes.len())?;
            columns.push(ColumnEntry { rows, start: 0, len });
        }
        let mut series: Vec<SeriesEntry> = Vec::with_capacity(n_series);
        let mut next = 0u64;
        for _ in 0..n_series {
            let flags = reader.u8()?;
            if flags & !ALL_FLAGS != 0 {
                return Err(PageError::Format("flag of a series"));
            }
            let gap = if flags & GAP != 0 { reader.varint()? } else { 0 };
            let slot = next.checked_add(gap).and_then(|slot| u32::try_from(slot).ok());
            let slot = slot.ok_or(PageError::Format("slot"))?;
            next = u64::from(slot) + 1;
            let column = if flags & COLUMN != 0 { usize::from(reader.u8()?) } else { 0 };
            let of_column = columns.get(column).ok_or(PageError::Format("column number"))?.rows;
            let rows = if flags & PRESENCE != 0 { reader.varlen(of_column)? } else { of_column };
            let len = reader.varlen(bytes.len())?;
            let flags = flags & !(GAP | COLUMN);
            series.push(SeriesEntry { slot, flags, column, rows, start: 0, len });
        }
        let mut at = reader.at;
        for (start, len) in columns
            .iter_mut()
            .map(|c| (&mut c.start, c.len))
            .chain(series.iter_mut().map(|s| (&mut s.start, s.len)))
        {
            *start = at;
            at = at.checked_add(len).ok_or(PageError::Format("length"))?;
        }
        if at != bytes.len() {
            return Err(PageError::Format("length"));
        }
        Ok(Self { meta, min_time, max_time, columns, series })
    }
}

/// A place in a page's bytes. Every read checks the bounds.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn u8(&mut self) -> Result<u8, PageError> {
        let byte = *self.bytes.get(self.at).ok_or(PageError::Format("length"))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, PageError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PageError::Format("varint"))
    }

    /// A varint that is a length or count: at most `limit`.
    pub(super) fn varlen(&mut self, limit: usize) -> Result<usize, PageError> {
        usize::try_from(self.varint()?)
            .ok()
            .filter(|n| *n <= limit)
            .ok_or(PageError::Format("length or count"))
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], PageError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(PageError::Format("length"))?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    /// A length and that many bytes.
    pub(super) fn part(&mut self) -> Result<&'a [u8], PageError> {
        let len = self.varlen(self.bytes.len())?;
        self.take(len)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low seven bits are what is wanted")]
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_zigzag(out: &mut Vec<u8>, value: i64) {
    push_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
