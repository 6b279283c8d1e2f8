//! A page → the samples of one series.

use model::TimeRange;
use model::seam::SeriesData;

use super::format::{HISTOGRAMS, MORE, PRESENCE, Reader, SAME_AS, STARTS, SeriesEntry, Table};
use super::{PageError, PageMeta, presence};

/// What the table of a page says of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSeries {
    /// The series' slot in its source.
    pub slot: u32,
    /// Its samples in the page.
    pub rows: usize,
    /// Whether some of them are histograms.
    pub has_histograms: bool,
    /// Its bytes in the page, without the shared column of stamps.
    pub bytes: usize,
}

/// A page whose checksum and tables were verified.
#[derive(Clone, Debug)]
pub struct PageReader<B> {
    bytes: B,
    table: Table,
}

/// Decoded columns of stamps of one page, and scratch memory. Reusable for another page after [`Self::reset`].
#[derive(Debug, Default)]
pub struct PageScratch {
    columns: Vec<Vec<i64>>,
    /// Bit k: column k is decoded.
    decoded: u64,
    stamps: Vec<i64>,
    values: Vec<f64>,
    positions: Vec<i64>,
    starts: Vec<i64>,
}

impl PageScratch {
    /// Empty scratch memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the columns of the page it was used for.
    pub fn reset(&mut self) {
        self.decoded = 0;
    }
}

impl<B: AsRef<[u8]>> PageReader<B> {
    /// Verifies version, checksum and tables of `bytes`.
    pub fn open(bytes: B) -> Result<Self, PageError> {
        let table = Table::read(bytes.as_ref())?;
        Ok(Self { bytes, table })
    }

    /// Sequence and lateness.
    pub fn meta(&self) -> PageMeta {
        self.table.meta
    }

    /// The oldest stamp of any of its series, ms.
    pub fn min_time(&self) -> i64 {
        self.table.min_time
    }

    /// The newest stamp of any of its series, ms.
    pub fn max_time(&self) -> i64 {
        self.table.max_time
    }

    /// Whether it may have samples in `range`.
    pub fn overlaps(&self, range: TimeRange) -> bool {
        self.table.max_time > range.after && self.table.min_time <= range.until
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.table.series.len()
    }

    /// Always false: a page has a series.
    pub fn is_empty(&self) -> bool {
        self.table.series.is_empty()
    }

    /// The series in ascending order of their slots.
    pub fn series(&self) -> impl ExactSizeIterator<Item = PageSeries> + '_ {
        self.table.series.iter().map(|entry| PageSeries {
            slot: entry.slot,
            rows: entry.rows,
            has_histograms: entry.flags & HISTOGRAMS != 0,
            bytes: entry.len,
        })
    }

    /// Position of the series with this slot.
    pub fn find(&self, slot: u32) -> Option<usize> {
        self.table.series.binary_search_by_key(&slot, |entry| entry.slot).ok()
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Appends the samples of series `index` (its position in [`Self::series`]) that lie in `range` to `out`, whose
    /// labels are left alone, and gives their number. `scratch` must be reset when another page was read with it.
    /// After an error `out` may hold a part of the samples.
    pub fn read(
        &self,
        index: usize,
        range: TimeRange,
        scratch: &mut PageScratch,
        out: &mut SeriesData,
    ) -> Result<usize, PageError> {
        let entry = self.entry(index)?;
        let bytes = self.blob(entry);
        let mut reader = Reader { bytes, at: 0 };
        self.decode_column(entry.column, scratch)?;
        let PageScratch { columns, stamps, values, positions, starts, .. } = scratch;
        let column = &columns[entry.column];
        let stamps: &[i64] = if entry.flags & PRESENCE != 0 {
            stamps.clear();
            presence::read(&mut reader, column, entry.rows, stamps)?;
            stamps
        } else {
            column
        };
        let low = stamps.partition_point(|t| *t <= range.after);
        let high = stamps.partition_point(|t| *t <= range.until);
        if low >= high {
            return Ok(0);
        }
        let damaged = |error| PageError::Series { slot: entry.slot, error };
        let before = out.stamps.len();
        let column_bytes = match reader.values(entry)? {
            [SAME_AS, position] => self.values_of(usize::from(*position), entry)?,
            bytes => bytes,
        };
        if (low, high) == (0, entry.rows) {
            out.values.truncate(before);
            chunk::decode_values(column_bytes, entry.rows, &mut out.values).map_err(damaged)?;
        } else {
            values.clear();
            chunk::decode_values(column_bytes, entry.rows, values).map_err(damaged)?;
            out.values.extend_from_slice(&values[low..high]);
        }
        out.stamps.extend_from_slice(&stamps[low..high]);

        if entry.flags & HISTOGRAMS != 0 {
            let count = reader.varlen(entry.rows)?;
            positions.clear();
            chunk::decode_stamps(reader.part()?, count, positions).map_err(damaged)?;
            let mut histograms = Vec::new();
            chunk::decode_histograms(reader.part()?, count, &mut histograms).map_err(damaged)?;
            for (position, histogram) in positions.iter().zip(histograms) {
                let row = usize::try_from(*position).ok().filter(|row| *row < entry.rows);
                let row = row.ok_or(PageError::Format("row of a histogram"))?;
                if (low..high).contains(&row) {
                    let row =
                        u32::try_from(before + row - low).map_err(|_| PageError::Format("number of rows"))?;
                    out.histograms.push((row, histogram));
                }
            }
        }
        if entry.flags & STARTS != 0 {
            starts.clear();
            chunk::decode_stamps(reader.part()?, entry.rows, starts).map_err(damaged)?;
            out.starts.resize(before, 0);
            out.starts.extend_from_slice(&starts[low..high]);
        } else if !out.starts.is_empty() {
            out.starts.resize(out.stamps.len(), 0);
        }
        Ok(high - low)
    }

    /// The bytes of the values of an earlier series that `entry` refers to.
    fn values_of(&self, index: usize, entry: &SeriesEntry) -> Result<&[u8], PageError> {
        let other = self.entry(index)?;
        let mut reader = Reader { bytes: self.blob(other), at: 0 };
        if other.flags & PRESENCE != 0 {
            presence::skip(&mut reader, self.table.columns[other.column].rows)?;
        }
        if other.rows != entry.rows || other.flags & MORE != 0 {
            return Err(PageError::Format("reference to another series"));
        }
        reader.values(other)
    }

    fn entry(&self, index: usize) -> Result<&SeriesEntry, PageError> {
        self.table.series.get(index).ok_or(PageError::Format("series number"))
    }

    fn blob(&self, entry: &SeriesEntry) -> &[u8] {
        &self.bytes.as_ref()[entry.start..entry.start + entry.len]
    }

    fn decode_column(&self, column: usize, scratch: &mut PageScratch) -> Result<(), PageError> {
        if scratch.decoded >> column & 1 != 0 {
            return Ok(());
        }
        if scratch.columns.len() <= column {
            scratch.columns.resize_with(column + 1, Vec::new);
        }
        let entry = self.table.columns[column];
        let stamps = &mut scratch.columns[column];
        stamps.clear();
        let bytes = &self.bytes.as_ref()[entry.start..entry.start + entry.len];
        chunk::decode_stamps(bytes, entry.rows, stamps)
            .map_err(|error| PageError::Stamps { column, error })?;
        if !stamps.is_sorted_by(|a, b| a < b) {
            return Err(PageError::Format("order of stamps"));
        }
        scratch.decoded |= 1 << column;
        Ok(())
    }
}

impl<'a> Reader<'a> {
    /// The bytes of a series' values, which stand here.
    fn values(&mut self, entry: &SeriesEntry) -> Result<&'a [u8], PageError> {
        if entry.flags & MORE == 0 { Ok(self.rest()) } else { self.part() }
    }
}
