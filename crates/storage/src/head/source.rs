//! A source: its append-only slots, its open tile, its sealed pages that are not flushed yet, its late rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::seam::SeriesData;
use model::{Histogram, LogIndex, TimeRange};

use super::DAY_MS;
use super::kinds::Kinds;
use super::tile::Tile;
use crate::page::{MAX_ROWS, MAX_SERIES, PageBuilder, PageMeta, SeriesInput};

/// `Slot::last` of a slot that never had a sample.
pub(crate) const NEVER: i64 = i64::MIN;
/// `Slot::series` of a slot that was never defined.
pub(crate) const NO_SERIES: u32 = u32::MAX;
/// The most slots of a source; a key with more gets another source.
pub(crate) const MAX_SLOTS: usize = 1 << 14;

/// One series' place in a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Timestamp of its newest sample, or [`NEVER`].
    pub(crate) last: i64,
    /// Bits of its newest sample; 0 before the first, and of a histogram (the staleness marker's of a stale one).
    pub(crate) bits: u64,
    /// Position in the series table, or [`NO_SERIES`].
    pub(crate) series: u32,
    /// Number of the scrape target that feeds it, 0 = none.
    pub(crate) target: u32,
}

impl Slot {
    pub(crate) const EMPTY: Self = Self { last: NEVER, bits: 0, series: NO_SERIES, target: 0 };
}

/// A page in memory.
#[derive(Clone, Debug)]
pub(crate) struct SealedPage {
    /// Slots `64 * group` to `64 * group + 63`.
    pub(crate) group: u32,
    pub(crate) day: i64,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// Counts the source's pages.
    pub(crate) number: u64,
    pub(crate) bytes: Arc<[u8]>,
}

/// A sample that came when its slot already had a newer one.
#[derive(Clone, Debug)]
pub(crate) struct LateSample {
    pub(crate) slot: u32,
    pub(crate) timestamp: i64,
    /// Without meaning where it is a histogram.
    pub(crate) bits: u64,
    /// Log index of its entry.
    pub(crate) sequence: u64,
    /// What it has besides a float, if anything.
    pub(crate) more: Option<Arc<LateKind>>,
}

/// What a late sample has besides a float.
#[derive(Debug)]
pub(crate) struct LateKind {
    pub(crate) histogram: Option<Arc<Histogram>>,
    /// Start timestamp, 0 = unknown.
    pub(crate) start: i64,
}

impl LateSample {
    /// Appends it to the samples of its series.
    pub(crate) fn append_to(&self, out: &mut SeriesData) {
        let row = out.stamps.len();
        out.stamps.push(self.timestamp);
        out.values.push(f64::from_bits(self.bits));
        let start = self.more.as_ref().map_or(0, |more| more.start);
        if start != 0 || !out.starts.is_empty() {
            out.starts.resize(row, 0);
            out.starts.push(start);
        }
        if let Some(histogram) = self.more.as_ref().and_then(|more| more.histogram.as_ref()) {
            out.histograms.push((row as u32, Arc::clone(histogram)));
        }
    }
}

/// A sample that is stored.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// The bits of a float.
    Float(u64),
    Histogram(Arc<Histogram>),
}

impl Stored {
    /// Whether it is the float of these bits.
    pub(crate) fn is_float(&self, bits: u64) -> bool {
        matches!(self, Self::Float(old) if *old == bits)
    }

    /// Whether it is that histogram.
    pub(crate) fn is_histogram(&self, histogram: &Histogram) -> bool {
        matches!(self, Self::Histogram(old) if old.same_sample(histogram))
    }
}

/// A source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) tenant: u32,
    pub(crate) key: u128,
    /// Rows applied so far.
    pub(crate) revision: u64,
    pub(crate) slots: Vec<Slot>,
    /// Slots of the last row applied, one bit each.
    pub(crate) last_set: Vec<u64>,
    pub(crate) tile: Option<Arc<Tile>>,
    /// Histograms and start timestamps; most sources have none.
    pub(crate) kinds: Option<Arc<Kinds>>,
    /// The shard's clock when the tile was opened.
    pub(crate) opened: i64,
    /// Whether the next tile is to be sparse.
    pub(crate) sparse: bool,
    /// Pages sealed so far.
    pub(crate) pages: u64,
    /// Slots whose series was evicted.
    pub(crate) evicted: u32,
    /// Slots whose newest sample was deleted: one at its timestamp is no repetition.
    pub(crate) gone: BTreeSet<u32>,
    /// Whether it changed since the last flush.
    pub(crate) changed: bool,
    /// Oldest first.
    pub(crate) sealed: Vec<SealedPage>,
    /// In order of sequence.
    pub(crate) late: Option<Arc<Vec<LateSample>>>,
}

/// Scratch memory for sealing.
#[derive(Debug, Default)]
pub(crate) struct TileWork {
    builder: PageBuilder,
    data: SeriesData,
}

impl Source {
    pub(crate) fn new(tenant: u32, key: u128) -> Self {
        Self {
            tenant,
            key,
            revision: 0,
            slots: Vec::new(),
            last_set: Vec::new(),
            tile: None,
            kinds: None,
            opened: 0,
            sparse: false,
            pages: 0,
            evicted: 0,
            gone: BTreeSet::new(),
            changed: false,
            sealed: Vec::new(),
            late: None,
        }
    }

    /// Makes room for `slot`.
    pub(crate) fn reserve_slot(&mut self, slot: u32) {
        let needed = slot as usize + 1;
        if needed > self.slots.len() {
            if needed > self.slots.capacity() {
                let more = self.slots.len() / 4 + needed - self.slots.len();
                self.slots.reserve_exact(more);
            }
            self.slots.resize(needed, Slot::EMPTY);
        }
    }

    /// The tile to change, opened if there is none.
    pub(crate) fn open_tile(&mut self, clock: i64) -> &mut Tile {
        if self.tile.is_none() {
            self.opened = clock;
        }
        let (sparse, slots) = (self.sparse, self.slots.len());
        let tile = self.tile.get_or_insert_with(|| Arc::new(Tile::new(sparse, slots)));
        Arc::make_mut(tile)
    }

    /// Turns the open tile into pages and gives their bytes.
    pub(crate) fn seal(&mut self, index: u64, work: &mut TileWork) -> u64 {
        let Some(tile) = self.tile.take() else { return 0 };
        self.sparse = tile.next_is_sparse();
        let mut bytes = 0;
        for day in tile.days() {
            let range = day * DAY_MS..=day * DAY_MS + (DAY_MS - 1);
            build_pages(
                Open { tile: &tile, kinds: self.kinds.as_deref() },
                self.slots.len(),
                &range,
                PageMeta::in_order(LogIndex(index)),
                work,
                |group, page| {
                    bytes += page.bytes.len() as u64;
                    self.sealed.push(SealedPage {
                        group,
                        day,
                        min_time: page.min_time,
                        max_time: page.max_time,
                        number: self.pages,
                        bytes: page.bytes.into(),
                    });
                    self.pages += 1;
                },
            );
        }
        if let Some(kinds) = &mut self.kinds {
            Arc::make_mut(kinds).seal();
        }
        bytes
    }

    /// Whether it is time to seal the open tile.
    pub(crate) fn is_full(&self) -> bool {
        self.tile.as_ref().is_some_and(|tile| tile.is_full())
            || self.kinds.as_ref().is_some_and(|kinds| kinds.is_full())
    }

    /// The histograms and start timestamps to change.
    pub(crate) fn kinds_mut(&mut self) -> &mut Kinds {
        Arc::make_mut(self.kinds.get_or_insert_default())
    }

    /// The sample of a slot at a timestamp that is not newer than its newest one, as far as it is the newest or in the
    /// open tile.
    pub(crate) fn stored(&self, slot: u32, timestamp: i64) -> Option<Stored> {
        let state = self.slots.get(slot as usize)?;
        let kinds = self.kinds.as_deref();
        if state.last == timestamp && !self.gone.contains(&slot) {
            let histogram = kinds.and_then(|kinds| kinds.newest(slot));
            return Some(histogram.map_or(Stored::Float(state.bits), |h| Stored::Histogram(Arc::clone(h))));
        }
        let bits = self.tile.as_ref()?.get(slot, timestamp)?;
        let histogram = kinds.and_then(|kinds| kinds.at(slot, timestamp));
        Some(histogram.map_or(Stored::Float(bits), |h| Stored::Histogram(Arc::clone(h))))
    }

    /// Adds a late sample.
    pub(crate) fn push_late(&mut self, sample: LateSample) {
        Arc::make_mut(self.late.get_or_insert_default()).push(sample);
    }

    /// Removes the samples of `slot` in `range` from tile and late rows.
    pub(crate) fn remove(&mut self, slot: u32, range: TimeRange) {
        let closed = range.after.saturating_add(1)..=range.until;
        if self.slots.get(slot as usize).is_some_and(|s| s.last != NEVER && range.contains(s.last)) {
            self.gone.insert(slot);
        }
        if let Some(tile) = &mut self.tile {
            Arc::make_mut(tile).remove(slot, &closed);
        }
        if let Some(kinds) = &mut self.kinds {
            Arc::make_mut(kinds).remove(slot, &closed);
        }
        if let Some(late) = &mut self.late {
            Arc::make_mut(late).retain(|s| s.slot != slot || !closed.contains(&s.timestamp));
        }
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.last_set.capacity() * 8
            + self.tile.as_ref().map_or(0, |t| t.memory())
            + self.kinds.as_ref().map_or(0, |k| k.memory())
            + self.sealed.iter().map(|p| size_of::<SealedPage>() + p.bytes.len()).sum::<usize>()
            + self.late.as_ref().map_or(0, |l| l.capacity() * size_of::<LateSample>())
    }
}

/// A page just built.
pub(crate) struct BuiltPage {
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) bytes: Vec<u8>,
}

/// The samples of a source that are not sealed yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open<'a> {
    pub(crate) tile: &'a Tile,
    pub(crate) kinds: Option<&'a Kinds>,
}

impl Open<'_> {
    /// Appends the samples of `slot` with timestamps in `range`, ascending.
    pub(crate) fn series(&self, slot: u32, range: &std::ops::RangeInclusive<i64>, out: &mut SeriesData) {
        let from = out.stamps.len();
        self.tile.series(slot, range, &mut out.stamps, &mut out.values);
        if let Some(kinds) = self.kinds {
            kinds.fill(slot, from, out);
        }
        if !out.starts.is_empty() {
            out.starts.resize(out.stamps.len(), 0);
        }
    }
}

/// The pages of the samples of a tile in `range`, a group of 64 slots after the other.
pub(crate) fn build_pages(
    open: Open<'_>,
    slots: usize,
    range: &std::ops::RangeInclusive<i64>,
    meta: PageMeta,
    work: &mut TileWork,
    mut give: impl FnMut(u32, BuiltPage),
) {
    let TileWork { builder, data } = work;
    for first in (0..slots).step_by(MAX_SERIES) {
        let group = (first / MAX_SERIES) as u32;
        let mut done = *range.start();
        // A slot with more rows than a page takes makes a further page of the group.
        loop {
            builder.begin(meta);
            let mut cut = None::<i64>;
            for slot in first..(first + MAX_SERIES).min(slots) {
                if !open.tile.is_sparse() {
                    // Its rows are fewer.
                    break;
                }
                data.clear();
                open.tile.series(slot as u32, &(done..=*range.end()), &mut data.stamps, &mut data.values);
                if data.stamps.len() > MAX_ROWS {
                    cut = Some(cut.map_or(data.stamps[MAX_ROWS], |c| c.min(data.stamps[MAX_ROWS])));
                }
            }
            let end = cut.map_or(*range.end(), |c| c - 1);
            for slot in first..(first + MAX_SERIES).min(slots) {
                data.clear();
                open.series(slot as u32, &(done..=end), data);
                if !data.stamps.is_empty() {
                    let input = SeriesInput {
                        slot: slot as u32,
                        stamps: &data.stamps,
                        values: &data.values,
                        histograms: &data.histograms,
                        starts: &data.starts,
                    };
                    let added = builder.add(&input);
                    debug_assert!(added.is_ok(), "a tile keeps the rules of a page");
                }
            }
            let mut bytes = Vec::new();
            if let Ok(summary) = builder.finish(&mut bytes) {
                give(group, BuiltPage { min_time: summary.min_time, max_time: summary.max_time, bytes });
            }
            match cut {
                None => break,
                Some(next) => done = next,
            }
        }
    }
}
