//! What samples of a source have besides a float: native histograms and start timestamps.
//!
//! A histogram has a cell in the tile like a float, which says that there is a sample and whose bits mean nothing; the
//! histogram itself stands here. Start timestamps rarely change from sample to sample, so that only their changes are
//! kept. Most sources have neither, and then none of this.

use std::ops::RangeInclusive;
use std::sync::Arc;

use model::Histogram;
use model::seam::SeriesData;

/// Bytes of open histograms at which a source's tile is sealed, however few its rows.
const MAX_OPEN_BYTES: usize = 4 << 20;

/// Histograms and start timestamps of a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds {
    /// By slot.
    slots: Vec<Option<Box<SlotKinds>>>,
    /// Of the histograms of the open tile.
    open_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct SlotKinds {
    /// Start timestamp of the newest sample, 0 = unknown.
    start: i64,
    /// The newest sample, if it is a histogram.
    newest: Option<Arc<Histogram>>,
    /// Of the open tile: from which sample on which start holds; 0 before the first.
    starts: Vec<(i64, i64)>,
    /// Of the open tile, ascending.
    histograms: Vec<(i64, Arc<Histogram>)>,
}

impl SlotKinds {
    fn note_start(&mut self, timestamp: i64, start: i64) {
        self.start = start;
        if self.starts.last().map_or(0, |(_, start)| *start) != start {
            self.starts.push((timestamp, start));
        }
    }
}

impl Kinds {
    fn slot(&self, slot: u32) -> Option<&SlotKinds> {
        self.slots.get(slot as usize)?.as_deref()
    }

    fn slot_mut(&mut self, slot: u32) -> &mut SlotKinds {
        let at = slot as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        self.slots[at].get_or_insert_default()
    }

    /// Takes note that the slot's newest sample is a float, put into the tile.
    pub(crate) fn float(&mut self, slot: u32, timestamp: i64, start: i64) {
        if start == 0 && self.slot(slot).is_none() {
            return;
        }
        let state = self.slot_mut(slot);
        state.newest = None;
        state.note_start(timestamp, start);
    }

    /// Adds the slot's newest sample, which is a histogram.
    pub(crate) fn histogram(&mut self, slot: u32, timestamp: i64, histogram: Arc<Histogram>, start: i64) {
        self.open_bytes += histogram.memory();
        let state = self.slot_mut(slot);
        state.note_start(timestamp, start);
        state.newest = Some(Arc::clone(&histogram));
        state.histograms.push((timestamp, histogram));
    }

    /// The slot's newest sample, if it is a histogram.
    pub(crate) fn newest(&self, slot: u32) -> Option<&Arc<Histogram>> {
        self.slot(slot)?.newest.as_ref()
    }

    /// The start timestamp of the slot's newest sample, 0 = unknown.
    pub(crate) fn newest_start(&self, slot: u32) -> i64 {
        self.slot(slot).map_or(0, |state| state.start)
    }

    /// The histogram of the open tile at (`slot`, `timestamp`).
    pub(crate) fn at(&self, slot: u32, timestamp: i64) -> Option<&Arc<Histogram>> {
        let all = &self.slot(slot)?.histograms;
        let at = all.binary_search_by_key(&timestamp, |(t, _)| *t).ok()?;
        Some(&all[at].1)
    }

    /// Completes the samples of `slot` that the open tile gave, from position `from` of `out` on.
    pub(crate) fn fill(&self, slot: u32, from: usize, out: &mut SeriesData) {
        let Some(state) = self.slot(slot) else { return };
        let (Some(first), Some(last)) = (out.stamps.get(from).copied(), out.stamps.last().copied()) else {
            return;
        };
        let skipped = state.histograms.partition_point(|(t, _)| *t < first);
        let mut row = from;
        for (timestamp, histogram) in state.histograms[skipped..].iter().take_while(|(t, _)| *t <= last) {
            while out.stamps.get(row).is_some_and(|stamp| stamp < timestamp) {
                row += 1;
            }
            if out.stamps.get(row) == Some(timestamp) {
                out.histograms.push((row as u32, Arc::clone(histogram)));
            }
        }
        if !state.starts.is_empty() {
            out.starts.resize(from, 0);
            let mut next = 0;
            let mut start = 0;
            for stamp in &out.stamps[from..] {
                while let Some((_, changed)) = state.starts.get(next).filter(|(t, _)| t <= stamp) {
                    start = *changed;
                    next += 1;
                }
                out.starts.push(start);
            }
        }
    }

    /// Removes the histograms of `slot` in `range`.
    pub(crate) fn remove(&mut self, slot: u32, range: &RangeInclusive<i64>) {
        let Some(Some(state)) = self.slots.get_mut(slot as usize) else { return };
        state.histograms.retain(|(t, _)| !range.contains(t));
        self.count_bytes();
    }

    /// Forgets what belongs to the open tile, which was sealed.
    pub(crate) fn seal(&mut self) {
        for state in self.slots.iter_mut().flatten() {
            state.starts = Vec::new();
            state.histograms = Vec::new();
        }
        self.open_bytes = 0;
    }

    /// Whether so much is open that the tile is to be sealed.
    pub(crate) fn is_full(&self) -> bool {
        self.open_bytes >= MAX_OPEN_BYTES
    }

    /// What is to be stored beside the open tile: slot, start and histogram of its newest sample.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, i64, Option<&Histogram>)> {
        (0u32..)
            .zip(&self.slots)
            .filter_map(|(slot, state)| state.as_ref().map(|s| (slot, s.start, s.newest.as_deref())))
    }

    /// For loading: what [`Kinds::iter`] gave.
    pub(crate) fn load_newest(&mut self, slot: u32, start: i64, newest: Option<Arc<Histogram>>) {
        let state = self.slot_mut(slot);
        (state.start, state.newest) = (start, newest);
    }

    /// For loading: what of the open tile's samples of `slot` is more than floats.
    pub(crate) fn load_open(&mut self, slot: u32, data: &SeriesData) {
        let is_plain = data.histograms.is_empty() && data.starts.is_empty();
        if is_plain && self.slot(slot).is_none_or(|state| state.starts.is_empty()) {
            return;
        }
        let state = self.slot_mut(slot);
        let newest_start = state.start;
        for (row, stamp) in data.stamps.iter().enumerate() {
            state.note_start(*stamp, data.starts.get(row).copied().unwrap_or(0));
        }
        state.start = newest_start;
        for (row, histogram) in &data.histograms {
            if let Some(stamp) = data.stamps.get(*row as usize) {
                state.histograms.push((*stamp, Arc::clone(histogram)));
            }
        }
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        let all = self.slots.iter().flatten().flat_map(|state| &state.histograms);
        self.open_bytes = all.map(|(_, histogram)| histogram.memory()).sum();
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        let of_slot = |state: &SlotKinds| {
            size_of::<SlotKinds>()
                + state.starts.capacity() * 16
                + state.histograms.capacity() * 16
                + state.newest.as_ref().map_or(0, |h| h.memory())
        };
        self.slots.capacity() * 8
            + self.slots.iter().flatten().map(|state| of_slot(state)).sum::<usize>()
            + self.open_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(count: f64) -> Arc<Histogram> {
        Arc::new(Histogram { count, ..Histogram::default() })
    }

    fn rows(stamps: &[i64]) -> SeriesData {
        SeriesData { stamps: stamps.to_vec(), values: vec![0.0; stamps.len()], ..SeriesData::default() }
    }

    #[test]
    fn histograms_and_starts_join_the_rows_of_the_tile() {
        let mut kinds = Kinds::default();
        kinds.float(0, 5, 0);
        assert!(kinds.slot(0).is_none(), "plain floats leave no trace");
        kinds.histogram(3, 10, histogram(1.0), 7);
        kinds.histogram(3, 20, histogram(2.0), 7);
        kinds.float(3, 30, 7);
        kinds.float(3, 40, 0);
        assert_eq!((kinds.newest(3).is_none(), kinds.newest_start(3)), (true, 0));
        let mut out = rows(&[1, 10, 20, 30, 40]);
        kinds.fill(3, 1, &mut out);
        assert_eq!(
            out.histograms.iter().map(|(at, h)| (*at, h.count)).collect::<Vec<_>>(),
            [(1, 1.0), (2, 2.0)]
        );
        assert_eq!(out.starts, [0, 7, 7, 7, 0]);
        let mut part = rows(&[20, 30]);
        kinds.fill(3, 0, &mut part);
        assert_eq!((part.histograms.len(), part.histograms[0].0), (1, 0));
        assert_eq!(part.starts, [7, 7]);

        kinds.remove(3, &(15..=25));
        assert!(kinds.at(3, 20).is_none() && kinds.at(3, 10).is_some());
        assert_eq!(kinds.open_bytes, histogram(0.0).memory());
        kinds.seal();
        assert_eq!((kinds.at(3, 10).is_none(), kinds.open_bytes), (true, 0));
        kinds.histogram(3, 50, histogram(9.0), 7);
        let mut after = rows(&[50]);
        kinds.fill(3, 0, &mut after);
        assert_eq!((after.histograms[0].1.count, after.starts[0]), (9.0, 7));
    }

    #[test]
    fn what_was_stored_comes_back() {
        let mut kinds = Kinds::default();
        kinds.histogram(1, 10, histogram(1.0), 5);
        kinds.float(1, 20, 6);
        kinds.histogram(2, 20, histogram(2.0), 0);
        let mut loaded = Kinds::default();
        for (slot, start, newest) in kinds.iter() {
            loaded.load_newest(slot, start, newest.cloned().map(Arc::new));
        }
        for (slot, stamps) in [(1, vec![10, 20]), (2, vec![20])] {
            let mut data = rows(&stamps);
            kinds.fill(slot, 0, &mut data);
            loaded.load_open(slot, &data);
        }
        assert_eq!(format!("{loaded:?}"), format!("{kinds:?}"));
    }
}
