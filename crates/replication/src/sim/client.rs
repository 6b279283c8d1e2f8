//! What clients did, and whether what they read fits (I1 to I3, I5, I6).
//!
//! A write is acknowledged or unknown, never "failed": what was not acknowledged is sent again as it was, and may be
//! there all along. A read must show what was acknowledged, or shown to anybody, before it began; each sample once; and
//! nothing that nobody had sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::seam::{SeriesData, SeriesSource, ShardBatch};
use model::{Failure, ShardId};

use crate::node_test::{START, batch, value};

/// A sample: its series and its step.
pub(crate) type Place = (usize, i64);

/// What is read of a shard: samples in the order of series and time, with the bits of their values.
pub(crate) type Shown = Vec<(Place, u64)>;

/// A batch that clients have sent and that is not acknowledged yet.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) shard: ShardId,
    pub(crate) series: std::ops::Range<usize>,
    pub(crate) step: i64,
    /// Whether it is on its way.
    pub(crate) flying: bool,
}

impl Write {
    pub(crate) fn batch(&self) -> Arc<ShardBatch> {
        batch(self.series.clone(), self.step)
    }
}

/// Since when a sample must be shown; `None` = it may be.
type Known = BTreeMap<Place, Option<u64>>;

/// All that clients know.
#[derive(Default)]
pub(crate) struct History {
    shards: BTreeMap<ShardId, Known>,
    /// Writes that are not acknowledged.
    pub(crate) open: BTreeMap<u64, Write>,
    next: u64,
    steps: BTreeMap<(ShardId, usize), i64>,
    pub(crate) acked: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
}

impl History {
    /// A new write of client `client`: its next step.
    pub(crate) fn begin(&mut self, shard: ShardId, client: usize, width: usize) -> u64 {
        let step = self.steps.entry((shard, client)).or_default();
        let write = Write { shard, series: client * 100..client * 100 + width, step: *step, flying: true };
        *step += 1;
        let known = self.shards.entry(shard).or_default();
        known.extend(write.series.clone().map(|series| ((series, write.step), None)));
        self.next += 1;
        self.open.insert(self.next, write);
        self.next
    }

    /// The write was acknowledged at `now`.
    pub(crate) fn acknowledged(&mut self, write: u64, now: u64) {
        let Some(write) = self.open.remove(&write) else { return };
        self.acked += 1;
        let known = self.shards.entry(write.shard).or_default();
        for series in write.series {
            let since = known.entry((series, write.step)).or_default();
            *since = Some(since.map_or(now, |since| since.min(now)));
        }
    }

    /// Not known what became of it.
    pub(crate) fn unknown(&mut self, write: u64) {
        self.unknown += 1;
        if let Some(write) = self.open.get_mut(&write) {
            write.flying = false;
        }
    }

    /// What a read that began at `began` and ended at `now` shows.
    pub(crate) fn shown(
        &mut self,
        shard: ShardId,
        began: u64,
        now: u64,
        shown: &Shown,
    ) -> Result<(), String> {
        self.reads += 1;
        let known = self.shards.entry(shard).or_default();
        let mut last = None;
        for (place, bits) in shown {
            if last == Some(*place) {
                return Err(format!("I2 doubled: series {} step {}", place.0, place.1));
            }
            last = Some(*place);
            if !known.contains_key(place) || *bits != value(place.0, place.1).to_bits() {
                return Err(format!("I3 phantom: series {} step {} bits {bits:x}", place.0, place.1));
            }
        }
        let missing = known.iter().find(|(place, since)| {
            since.is_some_and(|since| since <= began)
                && shown.binary_search_by_key(*place, |(place, _)| *place).is_err()
        });
        if let Some((place, since)) = missing {
            return Err(format!(
                "I1 lost or I5 stale: series {} step {}, known since {since:?}, not in a read that began at {began}",
                place.0, place.1
            ));
        }
        for (place, _) in shown {
            if let Some(since) = known.get_mut(place) {
                *since = Some(since.map_or(now, |since| since.min(now)));
            }
        }
        Ok(())
    }

    /// Samples that were ever sent to a shard.
    pub(crate) fn sent(&self, shard: ShardId) -> usize {
        self.shards.get(&shard).map_or(0, BTreeMap::len)
    }
}

/// Everything that `source` holds, sorted.
pub(crate) fn read_all(source: &dyn SeriesSource) -> Result<Shown, Failure> {
    let mut shown = Shown::new();
    let mut iter = source.select(&crate::node_test::everything())?;
    let mut data = SeriesData::default();
    while iter.next_series(&mut data)? {
        let number = data.labels.get("n").and_then(|n| n.parse().ok());
        let series: usize = number.ok_or_else(|| Failure::internal("a series that nobody wrote"))?;
        for (stamp, value) in data.stamps.iter().zip(&data.values) {
            shown.push(((series, (stamp - START) / 1000), value.to_bits()));
        }
    }
    shown.sort_unstable();
    Ok(shown)
}
