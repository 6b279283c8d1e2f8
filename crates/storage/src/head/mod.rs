//! What of a shard is in memory: series, slots, open tiles, and sealed pages that are not flushed yet.
//!
//! | file | story |
//! |---|---|
//! | `series.rs` | series by hash, by ref, by slot |
//! | `tile.rs` | open tiles |
//! | `kinds.rs` | what samples have besides floats: native histograms and start timestamps |
//! | `exemplars.rs` | the newest exemplars of each tenant |
//! | `source.rs` | a source: slots, tile, sealed pages, late rows; how a tile is sealed |
//! | `rows.rs` | what a row does to a source: accept, repeat, reject, late |
//! | `targets.rs` | which slots a scrape target feeds, and staleness markers |
//!
//! Everything here is a function of the log: nothing reads a clock, and no result depends on the order of a hash map.
//! How it is stored and loaded is in `shard/persist.rs`.

pub(crate) mod exemplars;
pub(crate) mod kinds;
pub(crate) mod rows;
pub(crate) mod series;
pub(crate) mod source;
pub(crate) mod targets;
pub(crate) mod tile;

use std::collections::BTreeMap;

use hashbrown::HashMap;
use model::{Exemplar, Labels, MetricMetadata, TenantId, TimeRange};

use crate::codec::DecodeError;
use crate::index::{MemIndex, SeriesIndex};
use exemplars::{Exemplars, Judgement};
use series::SeriesTable;
use source::Source;
use targets::Targets;

/// Milliseconds of a partition: a day (UTC).
pub const DAY_MS: i64 = 86_400_000;

/// The partition that `timestamp` belongs to.
pub(crate) fn day_of(timestamp: i64) -> i64 {
    timestamp.div_euclid(DAY_MS)
}

/// How old a tile may become on the shard's clock before it is sealed in any case, ms.
const TILE_AGE_MS: i64 = 3_600_000;
/// How often (on the shard's clock) tiles are looked through for their age, ms.
const AGE_CHECK_MS: i64 = 60_000;
/// The most metadata entries a shard keeps; further families are left out.
const MAX_METADATA: usize = 1 << 20;

/// Samples of series in a range that a deletion hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// Log index of the deletion: only what was applied before is hidden.
    pub(crate) index: u64,
    pub(crate) range: TimeRange,
    /// Ascending.
    pub(crate) refs: Vec<u64>,
}

/// The state of a shard in memory.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) tenants: Vec<TenantId>,
    pub(crate) indexes: Vec<MemIndex>,
    pub(crate) sources: Vec<Source>,
    /// Newest source of a key.
    pub(crate) by_key: HashMap<(u32, u128), u32>,
    pub(crate) series: SeriesTable,
    pub(crate) targets: Targets,
    pub(crate) metadata: BTreeMap<(u32, String), MetricMetadata>,
    pub(crate) exemplars: Exemplars,
    /// By index of the deletion.
    pub(crate) tombstones: Vec<Tombstone>,
    pub(crate) next_ref: u64,
    /// The shard's clock: the newest of the leaders' clocks in the entries, ms.
    pub(crate) clock: i64,
    /// Samples before this are gone, ms.
    pub(crate) floor: i64,
    pub(crate) epoch: u64,
    /// First and last placement key; `None` before the first range entry.
    pub(crate) range: Option<(u64, u64)>,
    /// Rolling hash over entries and verdicts.
    pub(crate) hash: u64,
    /// Changes since the last flush.
    pub(crate) changes: Changes,
    pub(crate) tiles: source::TileWork,
}

/// What a flush must write besides marks.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Sources whose `changed` flag is set.
    pub(crate) sources: Vec<u32>,
    /// Series (positions in the table) that were made or evicted.
    pub(crate) series: Vec<u32>,
    pub(crate) targets: bool,
    pub(crate) metadata: Vec<(u32, String)>,
    /// New ones: tenant and number.
    pub(crate) exemplars: Vec<(u32, u64)>,
    pub(crate) tombstones: bool,
    /// Days that got pages since they were last looked at.
    pub(crate) sealed_bytes: u64,
    pub(crate) late_samples: usize,
}

impl Head {
    pub(crate) fn new() -> Self {
        Self { next_ref: 1, floor: i64::MIN, clock: i64::MIN, ..Self::default() }
    }

    /// Whether `reference` lies so far beyond all that were given that it can only be damage: the table of refs is as long
    /// as the largest. Refs that are skipped are those of plans that came to nothing.
    pub(crate) fn is_far_ref(&self, reference: u64) -> bool {
        reference > self.next_ref.saturating_add(1 << 26)
    }

    /// The number of tenant `name`, made if it is new.
    pub(crate) fn tenant(&mut self, name: &str) -> Result<u32, DecodeError> {
        if let Some(at) = self.find_tenant(name) {
            return Ok(at);
        }
        let tenant = TenantId::new(name).map_err(|_| DecodeError::Invalid { what: "tenant", at: 0 })?;
        self.tenants.push(tenant);
        self.indexes.push(MemIndex::default());
        Ok(self.tenants.len() as u32 - 1)
    }

    /// The number of tenant `name`, if it ever had a series.
    pub(crate) fn find_tenant(&self, name: &str) -> Option<u32> {
        self.tenants.iter().position(|t| t.as_str() == name).map(|at| at as u32)
    }

    /// Marks a source as changed since the last flush.
    pub(crate) fn touch(&mut self, source: u32) {
        let state = &mut self.sources[source as usize];
        if !state.changed {
            state.changed = true;
            self.changes.sources.push(source);
        }
    }

    /// Moves the clock; when a minute of it has passed, seals tiles that have become old. `index` is that of the entry.
    pub(crate) fn advance_clock(&mut self, now_ms: i64, index: u64) {
        let before = self.clock;
        self.clock = before.max(now_ms);
        if self.clock.div_euclid(AGE_CHECK_MS) == before.div_euclid(AGE_CHECK_MS) {
            return;
        }
        for id in 0..self.sources.len() {
            let source = &self.sources[id];
            if source.tile.is_some() && self.clock.saturating_sub(source.opened) >= TILE_AGE_MS {
                self.seal(id as u32, index);
            }
        }
    }

    /// Seals the open tile of a source.
    pub(crate) fn seal(&mut self, id: u32, index: u64) {
        self.touch(id);
        let source = &mut self.sources[id as usize];
        self.changes.sealed_bytes += source.seal(index, &mut self.tiles);
    }

    /// Adopts a family's metadata.
    pub(crate) fn set_metadata(&mut self, tenant: u32, item: MetricMetadata) {
        let key = (tenant, item.family.clone());
        if self.metadata.len() >= MAX_METADATA && !self.metadata.contains_key(&key) {
            return;
        }
        if self.metadata.get(&key) != Some(&item) {
            self.changes.metadata.push(key.clone());
            self.metadata.insert(key, item);
        }
    }

    /// Adds an exemplar of the series of a slot, unless it is there already or older than the series' newest one.
    pub(crate) fn add_exemplar(&mut self, source: u32, slot: u32, exemplar: Exemplar) -> Judgement {
        let state = &self.sources[source as usize];
        let (tenant, sid) = (state.tenant, state.slots[slot as usize].series);
        let reference = self.series.reference(sid);
        let judgement = self.exemplars.judge(tenant, reference, &exemplar);
        if judgement == Judgement::New {
            let number = self.exemplars.push(tenant, reference, exemplar);
            self.changes.exemplars.push((tenant, number));
        }
        judgement
    }

    /// Deletes: removes what is in memory and unsealed, and keeps a tombstone for the rest.
    pub(crate) fn delete(&mut self, index: u64, refs: Vec<u64>, range: TimeRange) {
        for reference in &refs {
            let Some(sid) = self.series.by_any_ref(*reference) else { continue };
            let (source, slot) = self.series.place(sid);
            self.touch(source);
            self.sources[source as usize].remove(slot, range);
        }
        self.tombstones.push(Tombstone { index, range, refs });
        self.changes.tombstones = true;
    }

    /// Whether a deletion hides the sample of series `reference` at `timestamp` on a page sealed at `sequence`.
    pub(crate) fn hides(&self, reference: u64, sequence: u64, timestamp: i64) -> bool {
        self.tombstones.iter().any(|t| {
            sequence <= t.index && t.range.contains(timestamp) && t.refs.binary_search(&reference).is_ok()
        })
    }

    /// Takes series out of the head: they get no more samples, and stay readable.
    pub(crate) fn evict(&mut self, refs: &[u64]) {
        for reference in refs {
            let Some(sid) = self.series.by_ref(*reference) else { continue };
            let (source, slot) = self.series.place(sid);
            self.touch(source);
            self.sources[source as usize].evicted += 1;
            let target = std::mem::take(&mut self.sources[source as usize].slots[slot as usize].target);
            self.targets.left(target);
            self.series.evict(sid);
            self.changes.series.push(sid);
        }
    }

    /// The active series of `tenant` with these labels, whose hash is `hash`.
    pub(crate) fn find_series(&self, tenant: u32, hash: u128, labels: &Labels) -> Option<u32> {
        self.series.find(tenant, hash, |sid| self.labels(sid) == *labels)
    }

    /// The labels of the series at that position.
    pub(crate) fn labels(&self, sid: u32) -> Labels {
        let index = &self.indexes[self.series.tenant(sid) as usize];
        index.labels(sid).ok().flatten().unwrap_or_default()
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.series.memory()
            + self.indexes.iter().map(SeriesIndex::memory).sum::<usize>()
            + self.sources.iter().map(Source::memory).sum::<usize>()
            + self.by_key.capacity() * 28
            + self.exemplars.memory()
    }

    /// Series that still take samples.
    pub(crate) fn n_active(&self) -> usize {
        self.series.n_active()
    }
}
