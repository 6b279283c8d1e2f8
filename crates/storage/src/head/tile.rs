//! The open tile of a source: the samples that are not sealed yet.
//!
//! *Dense*: rows of all slots, ascending in time, with a presence bit a cell; made for sources whose series come
//! together. *Sparse*: single samples chained by slot, for sources whose series keep timestamps of their own. A tile
//! turns sparse when its rows stay nearly empty. In both, the samples of a slot ascend in time. When a tile is full is
//! decided by its content alone, so that all replicas seal at the same entry.

use std::ops::RangeInclusive;

use super::day_of;

/// Rows after which a dense tile is sealed, if its slots have half as many samples on average.
const ROWS: usize = 32;
/// Rows after which a dense tile is sealed in any case.
const MAX_ROWS: usize = 128;
/// Samples after which a sparse tile is sealed in any case.
const MAX_SPARSE: usize = 1 << 18;

/// One sample of a row: slot and bits.
pub(crate) type Cell = (u32, u64);

/// The open tile of a source.
#[derive(Clone, Debug)]
pub(crate) enum Tile {
    Dense(Dense),
    Sparse(Sparse),
}

/// Rows of cells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dense {
    stamps: Vec<i64>,
    stride: usize,
    words: usize,
    values: Vec<u64>,
    present: Vec<u64>,
    samples: usize,
}

/// Chains of samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse {
    samples: Vec<SparseSample>,
    /// By slot: 1 + position of its newest sample, 0 = none.
    newest: Vec<u32>,
    active: usize,
}

#[derive(Clone, Copy, Debug)]
struct SparseSample {
    timestamp: i64,
    bits: u64,
    slot: u32,
    /// 1 + position of the slot's sample before this one, 0 = none.
    before: u32,
}

impl Tile {
    /// An empty tile for a source of `slots` slots.
    pub(crate) fn new(sparse: bool, slots: usize) -> Self {
        if sparse {
            Self::Sparse(Sparse { newest: vec![0; slots], ..Sparse::default() })
        } else {
            Self::Dense(Dense { stride: slots, words: slots.div_ceil(64), ..Dense::default() })
        }
    }

    /// Adds samples of one timestamp; each is newer than what its slot has, `cells` ascend, `slots` is how many slots
    /// the source has.
    pub(crate) fn put(&mut self, timestamp: i64, slots: usize, cells: &[Cell]) {
        if let Self::Dense(dense) = self {
            match dense.row(timestamp) {
                Err(_) if dense.is_thin() => *self = Self::Sparse(dense.to_sparse()),
                found => return dense.put(found, timestamp, slots, cells),
            }
        }
        if let Self::Sparse(sparse) = self {
            for (slot, bits) in cells {
                sparse.push(*slot, timestamp, *bits);
            }
        }
    }

    /// `RetryAppendsTwice`: adds a sample that is no newer than what its slot has.
    #[cfg(feature = "seeded_bugs")]
    pub(crate) fn append(&mut self, timestamp: i64, (slot, bits): Cell) {
        if let Self::Dense(dense) = self {
            *self = Self::Sparse(dense.to_sparse());
        }
        if let Self::Sparse(sparse) = self {
            sparse.push(slot, timestamp, bits);
        }
    }

    /// The bits at (`slot`, `timestamp`).
    pub(crate) fn get(&self, slot: u32, timestamp: i64) -> Option<u64> {
        match self {
            Self::Dense(dense) => {
                let row = dense.row(timestamp).ok()?;
                dense.cell(row, slot as usize)
            }
            Self::Sparse(sparse) => sparse
                .chain(slot)
                .find(|s| s.timestamp <= timestamp)
                .filter(|s| s.timestamp == timestamp)
                .map(|s| s.bits),
        }
    }

    /// Appends the samples of `slot` with timestamps in `range`, ascending.
    pub(crate) fn series(
        &self,
        slot: u32,
        range: &RangeInclusive<i64>,
        stamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) {
        match self {
            Self::Dense(dense) => {
                let slot = slot as usize;
                if slot >= dense.stride {
                    return;
                }
                let first = dense.stamps.partition_point(|t| t < range.start());
                for row in first..dense.stamps.len() {
                    if dense.stamps[row] > *range.end() {
                        break;
                    }
                    if dense.present[row * dense.words + slot / 64] >> (slot % 64) & 1 == 1 {
                        stamps.push(dense.stamps[row]);
                        values.push(f64::from_bits(dense.values[row * dense.stride + slot]));
                    }
                }
            }
            Self::Sparse(sparse) => {
                let from = stamps.len();
                for sample in sparse.chain(slot).take_while(|s| s.timestamp >= *range.start()) {
                    if range.contains(&sample.timestamp) {
                        stamps.push(sample.timestamp);
                        values.push(f64::from_bits(sample.bits));
                    }
                }
                stamps[from..].reverse();
                values[from..].reverse();
            }
        }
    }

    /// Removes the samples of `slot` in `range`.
    pub(crate) fn remove(&mut self, slot: u32, range: &RangeInclusive<i64>) {
        match self {
            Self::Dense(dense) => {
                for row in 0..dense.stamps.len() {
                    if range.contains(&dense.stamps[row]) && dense.cell(row, slot as usize).is_some() {
                        let slot = slot as usize;
                        dense.present[row * dense.words + slot / 64] &= !(1 << (slot % 64));
                        dense.samples -= 1;
                    }
                }
            }
            Self::Sparse(sparse) => {
                let kept: Vec<SparseSample> = sparse
                    .samples
                    .iter()
                    .filter(|s| s.slot != slot || !range.contains(&s.timestamp))
                    .copied()
                    .collect();
                let mut rebuilt = Sparse { newest: vec![0; sparse.newest.len()], ..Sparse::default() };
                for s in kept {
                    rebuilt.push(s.slot, s.timestamp, s.bits);
                }
                *sparse = rebuilt;
            }
        }
    }

    /// Whether it is time to seal.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Dense(dense) => {
                let rows = dense.stamps.len();
                rows >= MAX_ROWS || rows >= ROWS && dense.samples >= ROWS / 2 * dense.stride
            }
            Self::Sparse(sparse) => {
                sparse.samples.len() >= MAX_SPARSE
                    || sparse.samples.len() >= (ROWS * sparse.active).max(ROWS * 16)
            }
        }
    }

    /// Whether the source's next tile should be sparse.
    pub(crate) fn next_is_sparse(&self) -> bool {
        match self {
            Self::Dense(_) => false,
            Self::Sparse(sparse) => {
                let mut stamps: Vec<i64> = sparse.samples.iter().map(|s| s.timestamp).collect();
                stamps.sort_unstable();
                stamps.dedup();
                sparse.samples.len() * 4 < stamps.len() * sparse.active
            }
        }
    }

    /// Whether it is sparse.
    pub(crate) fn is_sparse(&self) -> bool {
        matches!(self, Self::Sparse(_))
    }

    /// Oldest and newest timestamp; `None` when it is empty.
    pub(crate) fn time_range(&self) -> Option<(i64, i64)> {
        match self {
            Self::Dense(dense) => Some((*dense.stamps.first()?, *dense.stamps.last()?)),
            Self::Sparse(sparse) => {
                let stamps = sparse.samples.iter().map(|s| s.timestamp);
                Some((stamps.clone().min()?, stamps.max()?))
            }
        }
    }

    /// The days (UTC) of its samples, ascending.
    pub(crate) fn days(&self) -> Vec<i64> {
        let mut days: Vec<i64> = match self {
            Self::Dense(dense) => dense.stamps.iter().map(|t| day_of(*t)).collect(),
            Self::Sparse(sparse) => sparse.samples.iter().map(|s| day_of(s.timestamp)).collect(),
        };
        days.sort_unstable();
        days.dedup();
        days
    }

    /// How many slots it has room for.
    pub(crate) fn slots(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.stride,
            Self::Sparse(sparse) => sparse.newest.len(),
        }
    }

    /// Timestamps of the rows of a dense tile, also of those that a deletion emptied.
    pub(crate) fn row_stamps(&self) -> &[i64] {
        match self {
            Self::Dense(dense) => &dense.stamps,
            Self::Sparse(_) => &[],
        }
    }

    /// Makes empty rows at `stamps` (ascending) in an empty dense tile: for loading.
    pub(crate) fn make_rows(&mut self, stamps: &[i64]) {
        if let Self::Dense(dense) = self {
            for stamp in stamps {
                let found = dense.row(*stamp);
                dense.put(found, *stamp, dense.stride, &[]);
            }
        }
    }

    /// Sets one cell of a row that [`Tile::make_rows`] made, or chains a sample: for loading.
    pub(crate) fn load(&mut self, slot: u32, timestamp: i64, bits: u64) {
        match self {
            Self::Dense(dense) => {
                let found = dense.row(timestamp);
                dense.put(found, timestamp, dense.stride.max(slot as usize + 1), &[(slot, bits)]);
            }
            Self::Sparse(sparse) => sparse.push(slot, timestamp, bits),
        }
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Dense(dense) => {
                (dense.stamps.capacity() + dense.values.capacity() + dense.present.capacity()) * 8
            }
            Self::Sparse(sparse) => sparse.samples.capacity() * 24 + sparse.newest.capacity() * 4,
        }
    }
}

impl Dense {
    fn row(&self, timestamp: i64) -> Result<usize, usize> {
        match self.stamps.last() {
            Some(last) if *last == timestamp => Ok(self.stamps.len() - 1),
            Some(last) if *last > timestamp => self.stamps.binary_search(&timestamp),
            _ => Err(self.stamps.len()),
        }
    }

    fn cell(&self, row: usize, slot: usize) -> Option<u64> {
        let present =
            slot < self.stride && self.present[row * self.words + slot / 64] >> (slot % 64) & 1 == 1;
        present.then(|| self.values[row * self.stride + slot])
    }

    fn is_thin(&self) -> bool {
        self.stamps.len() >= 8 && self.samples * 8 < self.stamps.len() * self.stride
    }

    fn put(&mut self, found: Result<usize, usize>, timestamp: i64, slots: usize, cells: &[Cell]) {
        if slots > self.stride {
            self.widen(slots);
        }
        let row = found.unwrap_or_else(|at| {
            self.reserve_row();
            self.stamps.insert(at, timestamp);
            open_gap(&mut self.values, at * self.stride, self.stride);
            open_gap(&mut self.present, at * self.words, self.words);
            at
        });
        let values = &mut self.values[row * self.stride..(row + 1) * self.stride];
        let present = &mut self.present[row * self.words..(row + 1) * self.words];
        for (slot, bits) in cells {
            let slot = *slot as usize;
            values[slot] = *bits;
            present[slot / 64] |= 1 << (slot % 64);
        }
        self.samples += cells.len();
    }

    /// Grows by quarters of a tile rather than by doubling, since most memory of a shard is here.
    fn reserve_row(&mut self) {
        if self.values.capacity() < self.values.len() + self.stride {
            let rows = ROWS / 4;
            self.stamps.reserve_exact(rows);
            self.values.reserve_exact(rows * self.stride);
            self.present.reserve_exact(rows * self.words);
        }
    }

    fn widen(&mut self, slots: usize) {
        let (stride, words) = (slots, slots.div_ceil(64));
        let rows = self.stamps.len();
        let mut values = Vec::with_capacity(rows.next_multiple_of(ROWS / 4) * stride);
        let mut present = Vec::with_capacity(rows.next_multiple_of(ROWS / 4) * words);
        for row in 0..rows {
            values.extend_from_slice(&self.values[row * self.stride..(row + 1) * self.stride]);
            values.resize((row + 1) * stride, 0);
            present.extend_from_slice(&self.present[row * self.words..(row + 1) * self.words]);
            present.resize((row + 1) * words, 0);
        }
        (self.stride, self.words, self.values, self.present) = (stride, words, values, present);
    }

    fn to_sparse(&self) -> Sparse {
        let mut sparse = Sparse { newest: vec![0; self.stride], ..Sparse::default() };
        for (row, timestamp) in self.stamps.iter().enumerate() {
            for slot in 0..self.stride {
                if let Some(bits) = self.cell(row, slot) {
                    sparse.push(slot as u32, *timestamp, bits);
                }
            }
        }
        sparse
    }
}

fn open_gap(values: &mut Vec<u64>, at: usize, len: usize) {
    let old = values.len();
    values.resize(old + len, 0);
    if at < old {
        values.copy_within(at..old, at + len);
        values[at..at + len].fill(0);
    }
}

impl Sparse {
    fn push(&mut self, slot: u32, timestamp: i64, bits: u64) {
        let at = slot as usize;
        if at >= self.newest.len() {
            self.newest.resize(at + 1, 0);
        }
        let before = self.newest[at];
        self.active += usize::from(before == 0);
        self.samples.push(SparseSample { timestamp, bits, slot, before });
        self.newest[at] = self.samples.len() as u32;
    }

    fn chain(&self, slot: u32) -> impl Iterator<Item = &SparseSample> {
        let mut next = self.newest.get(slot as usize).copied().unwrap_or(0);
        std::iter::from_fn(move || {
            let sample = self.samples.get((next as usize).checked_sub(1)?)?;
            next = sample.before;
            Some(sample)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn all(tile: &Tile, slot: u32) -> Vec<(i64, u64)> {
        let (mut stamps, mut values) = (Vec::new(), Vec::new());
        tile.series(slot, &(i64::MIN..=i64::MAX), &mut stamps, &mut values);
        stamps.into_iter().zip(values.into_iter().map(f64::to_bits)).collect()
    }

    proptest! {
        #[test]
        fn a_tile_is_a_map(
            sparse in any::<bool>(),
            rows in proptest::collection::vec((0i64..40, proptest::collection::btree_map(0u32..70, any::<u64>(), 0..9)), 0..60),
        ) {
            let mut tile = Tile::new(sparse, 3);
            let mut model: BTreeMap<u32, BTreeMap<i64, u64>> = BTreeMap::new();
            let mut slots = 3;
            for (timestamp, cells) in rows {
                let cells: Vec<Cell> = cells
                    .into_iter()
                    .filter(|(slot, _)| model.get(slot).and_then(|m| m.last_key_value()).is_none_or(|(t, _)| *t < timestamp))
                    .collect();
                if cells.is_empty() {
                    continue;
                }
                for (slot, bits) in &cells {
                    slots = slots.max(*slot as usize + 1);
                    model.entry(*slot).or_default().insert(timestamp, *bits);
                }
                tile.put(timestamp, slots, &cells);
            }
            for slot in 0..70 {
                let wanted: Vec<_> = model.get(&slot).into_iter().flatten().map(|(t, b)| (*t, *b)).collect();
                prop_assert_eq!(all(&tile, slot), wanted);
                for t in 0..40 {
                    prop_assert_eq!(tile.get(slot, t), model.get(&slot).and_then(|m| m.get(&t)).copied());
                }
            }
            tile.remove(1, &(10..=20));
            let wanted: Vec<_> =
                model.get(&1).into_iter().flatten().filter(|(t, _)| !(10..=20).contains(*t)).map(|(t, b)| (*t, *b)).collect();
            prop_assert_eq!(all(&tile, 1), wanted);
        }
    }

    #[test]
    fn nearly_empty_rows_turn_a_tile_sparse() {
        let mut tile = Tile::new(false, 100);
        for i in 0..20 {
            tile.put(i, 100, &[(i as u32, 1)]);
        }
        assert!(tile.is_sparse());
        assert!(tile.next_is_sparse());
        assert_eq!(all(&tile, 7), [(7, 1)]);
    }

    #[test]
    fn full_rows_fill_a_tile() {
        let mut tile = Tile::new(false, 2);
        for i in 0..32 {
            assert!(!tile.is_full());
            tile.put(i, 2, &[(0, 1), (1, 2)]);
        }
        assert!(tile.is_full() && !tile.is_sparse());
    }
}
