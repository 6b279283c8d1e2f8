//! A source: its append-only slots, its open tile, its sealed pages that are not flushed yet, its late rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::seam::SeriesData;
use model::{LogIndex, TimeRange};

use super::DAY_MS;
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
    /// Bits of its newest sample; 0 before the first.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateSample {
    pub(crate) slot: u32,
    pub(crate) timestamp: i64,
    pub(crate) bits: u64,
    /// Log index of its entry.
    pub(crate) sequence: u64,
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
                &tile,
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
        bytes
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

/// The pages of the samples of a tile in `range`, a group of 64 slots after the other.
pub(crate) fn build_pages(
    tile: &Tile,
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
                if !tile.is_sparse() {
                    // Its rows are fewer.
                    break;
                }
                data.clear();
                tile.series(slot as u32, &(done..=*range.end()), &mut data.stamps, &mut data.values);
                if data.stamps.len() > MAX_ROWS {
                    cut = Some(cut.map_or(data.stamps[MAX_ROWS], |c| c.min(data.stamps[MAX_ROWS])));
                }
            }
            let end = cut.map_or(*range.end(), |c| c - 1);
            for slot in first..(first + MAX_SERIES).min(slots) {
                data.clear();
                tile.series(slot as u32, &(done..=end), &mut data.stamps, &mut data.values);
                if !data.stamps.is_empty() {
                    let input = SeriesInput {
                        slot: slot as u32,
                        stamps: &data.stamps,
                        values: &data.values,
                        ..SeriesInput::default()
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
