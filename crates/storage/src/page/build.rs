//! Series → a page.

use std::sync::Arc;

use chunk::Encoder;
use model::Histogram;

use super::format::{
    ColumnEntry, HISTOGRAMS, MORE, PRESENCE, SAME_AS, STARTS, SeriesEntry, Table, push_varint,
};
use super::{MAX_ROWS, MAX_SERIES, PageError, PageMeta, presence};

/// The samples of one series for a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeriesInput<'a> {
    /// The series' slot in its source.
    pub slot: u32,
    /// Stamps, ms, strictly ascending, at least one.
    pub stamps: &'a [i64],
    /// Floats, one a stamp; at the position of a histogram any.
    pub values: &'a [f64],
    /// Histograms by position, ascending.
    pub histograms: &'a [(u32, Arc<Histogram>)],
    /// Start timestamps, one a stamp, 0 = not known; or empty.
    pub starts: &'a [i64],
}

/// What a finished page holds: what its key and the bookkeeping need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSummary {
    /// The oldest stamp in it, ms.
    pub min_time: i64,
    /// The newest stamp in it, ms.
    pub max_time: i64,
    /// The lowest slot.
    pub first_slot: u32,
    /// The highest slot.
    pub last_slot: u32,
    /// Number of series.
    pub series: usize,
    /// Number of samples, floats and histograms.
    pub samples: u64,
}

/// Builds pages one after the other; keeps its scratch memory between them.
#[derive(Debug)]
pub struct PageBuilder {
    encoder: Encoder,
    meta: PageMeta,
    /// Distinct columns of stamps; the vectors beyond `n_stamps` are spare.
    stamps: Vec<Vec<i64>>,
    n_stamps: usize,
    series: Vec<SeriesEntry>,
    body: Vec<u8>,
    part: Vec<u8>,
    floats: Vec<f64>,
    min_time: i64,
    max_time: i64,
    samples: u64,
}

impl Default for PageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl PageBuilder {
    /// A builder; call [`Self::begin`] before each page.
    pub fn new() -> Self {
        Self {
            encoder: Encoder::new(),
            meta: PageMeta::in_order(model::LogIndex(0)),
            stamps: Vec::new(),
            n_stamps: 0,
            series: Vec::new(),
            body: Vec::new(),
            part: Vec::new(),
            floats: Vec::new(),
            min_time: i64::MAX,
            max_time: i64::MIN,
            samples: 0,
        }
    }

    /// Begins a page and forgets an unfinished one.
    pub fn begin(&mut self, meta: PageMeta) {
        self.meta = meta;
        self.n_stamps = 0;
        self.series.clear();
        self.body.clear();
        (self.min_time, self.max_time, self.samples) = (i64::MAX, i64::MIN, 0);
    }

    /// Series added since [`Self::begin`].
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether no series was added since [`Self::begin`].
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds a series. Slots must come in ascending order, at most [`MAX_SERIES`] of them, with at most
    /// [`MAX_ROWS`] rows each. After an error the page is as before.
    pub fn add(&mut self, input: &SeriesInput<'_>) -> Result<(), PageError> {
        if let Some(what) = self.broken_rule(input) {
            return Err(PageError::Input { slot: input.slot, what });
        }
        let start = self.body.len();
        let has_starts = input.starts.iter().any(|s| *s != 0);
        let flags =
            if input.histograms.is_empty() { 0 } else { HISTOGRAMS } | if has_starts { STARTS } else { 0 };
        let rows = input.stamps.len();
        if flags & MORE == 0 {
            self.encoder.values(input.values, &mut self.body);
            self.refer_to_equal(rows, start);
        } else {
            self.add_parts(input, flags);
        }
        let column = self.column(input.stamps);
        let len = self.body.len() - start;
        self.series.push(SeriesEntry { slot: input.slot, flags, column, rows, start, len });
        if let (Some(first), Some(last)) = (input.stamps.first(), input.stamps.last()) {
            self.min_time = self.min_time.min(*first);
            self.max_time = self.max_time.max(*last);
        }
        self.samples += rows as u64;
        Ok(())
    }

    fn broken_rule(&self, input: &SeriesInput<'_>) -> Option<&'static str> {
        let rows = input.stamps.len();
        let ascending = input.histograms.is_sorted_by(|a, b| a.0 < b.0);
        let inside = input.histograms.last().is_none_or(|(at, _)| (*at as usize) < rows);
        if self.series.len() >= MAX_SERIES {
            Some("the page is full")
        } else if self.series.last().is_some_and(|last| last.slot >= input.slot) {
            Some("slots are not ascending")
        } else if rows == 0 {
            Some("it has no samples")
        } else if rows > MAX_ROWS {
            Some("it has too many rows")
        } else if input.values.len() != rows || !(input.starts.is_empty() || input.starts.len() == rows) {
            Some("its columns differ in length")
        } else if !input.stamps.is_sorted_by(|a, b| a < b) {
            Some("its stamps are not ascending")
        } else if !ascending || !inside {
            Some("its histograms are not ascending rows")
        } else {
            None
        }
    }

    /// Replaces the values from `start` on by a reference if an earlier series has the same (as the count of a
    /// histogram and its bucket +Inf have).
    fn refer_to_equal(&mut self, rows: usize, start: usize) {
        let (before, values) = self.body.split_at(start);
        if values.len() <= 2 {
            return;
        }
        let equal = self.series.iter().position(|other| {
            (other.len, other.rows, other.flags & MORE) == (values.len(), rows, 0)
                && before[other.start..other.start + other.len] == *values
        });
        if let Some(position) = equal.and_then(|at| u8::try_from(at).ok()) {
            self.body.truncate(start);
            self.body.extend_from_slice(&[SAME_AS, position]);
        }
    }

    /// Appends values, histograms and starts, each with its length.
    fn add_parts(&mut self, input: &SeriesInput<'_>, flags: u8) {
        self.floats.clear();
        self.floats.extend_from_slice(input.values);
        for (at, _) in input.histograms {
            // Values there mean nothing; repeating a neighbour costs least.
            let at = *at as usize;
            self.floats[at] = if at > 0 { self.floats[at - 1] } else { 0.0 };
        }
        let floats = std::mem::take(&mut self.floats);
        self.part(|encoder, part| {
            encoder.values(&floats, part);
        });
        self.floats = floats;
        if flags & HISTOGRAMS != 0 {
            let positions: Vec<i64> = input.histograms.iter().map(|(at, _)| i64::from(*at)).collect();
            let histograms: Vec<&Histogram> = input.histograms.iter().map(|(_, h)| &**h).collect();
            push_varint(&mut self.body, histograms.len() as u64);
            self.part(|encoder, part| encoder.stamps(&positions, part));
            self.part(|encoder, part| encoder.histograms(&histograms, part));
        }
        if flags & STARTS != 0 {
            self.part(|encoder, part| encoder.stamps(input.starts, part));
        }
    }

    fn part(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        self.part.clear();
        write(&mut self.encoder, &mut self.part);
        push_varint(&mut self.body, self.part.len() as u64);
        self.body.extend_from_slice(&self.part);
    }

    /// Number of the distinct column of these stamps.
    fn column(&mut self, stamps: &[i64]) -> usize {
        // The newest first: neighbours mostly share.
        let known = self.stamps[..self.n_stamps].iter().rposition(|column| column[..] == *stamps);
        known.unwrap_or_else(|| {
            if self.n_stamps == self.stamps.len() {
                self.stamps.push(Vec::new());
            }
            self.stamps[self.n_stamps].clear();
            self.stamps[self.n_stamps].extend_from_slice(stamps);
            self.n_stamps += 1;
            self.n_stamps - 1
        })
    }

    /// Appends the page to `out`. Fails only when no series was added.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<PageSummary, PageError> {
        let (Some(first), Some(last)) = (self.series.first(), self.series.last()) else {
            return Err(PageError::Format("number of series"));
        };
        let summary = PageSummary {
            min_time: self.min_time,
            max_time: self.max_time,
            first_slot: first.slot,
            last_slot: last.slot,
            series: self.series.len(),
            samples: self.samples,
        };

        // Columns that are parts of longer ones are not stored.
        let mut order: Vec<usize> = (0..self.n_stamps).collect();
        order.sort_by_key(|i| std::cmp::Reverse(self.stamps[*i].len()));
        let mut kept: Vec<usize> = Vec::new();
        let mut place: Vec<(usize, Vec<u8>)> = vec![(0, Vec::new()); self.n_stamps];
        for i in order {
            let mut bytes = Vec::new();
            let within =
                kept.iter().position(|k| presence::write(&self.stamps[*k], &self.stamps[i], &mut bytes));
            let column = within.unwrap_or_else(|| {
                kept.push(i);
                kept.len() - 1
            });
            place[i] = (column, bytes);
        }

        let mut table = Table {
            meta: self.meta,
            min_time: self.min_time,
            max_time: self.max_time,
            columns: Vec::with_capacity(kept.len()),
            series: self.series.clone(),
        };
        self.part.clear();
        for column in kept {
            let start = self.part.len();
            self.encoder.stamps(&self.stamps[column], &mut self.part);
            table.columns.push(ColumnEntry {
                rows: self.stamps[column].len(),
                start,
                len: self.part.len() - start,
            });
        }
        for series in &mut table.series {
            let (column, presence) = &place[series.column];
            series.column = *column;
            if !presence.is_empty() {
                series.flags |= PRESENCE;
                series.len += presence.len();
            }
        }
        let page = out.len();
        table.write(out);
        out.extend_from_slice(&self.part);
        for series in &self.series {
            out.extend_from_slice(&place[series.column].1);
            out.extend_from_slice(&self.body[series.start..series.start + series.len]);
        }
        let checksum = crc32c::crc32c(&out[page..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        Ok(summary)
    }
}
