//! The days (partitions) of which a shard has pages, and the sealed label indexes of those that ended.
//!
//! A day is *live* until its index is sealed; then queries of that day ask the sealed index alone, and series that have
//! nothing elsewhere may leave memory. A row or page that comes later makes the day live again until it is sealed anew;
//! meanwhile both its old index and the head are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use model::{ShardId, TimeRange};
use parking_lot::{Mutex, RwLock};

use super::{Shard, keys};
use crate::StorageError;
use crate::codec::{DecodeError, Reader, open_record, put_varint, seal_record};
use crate::head::{DAY_MS, day_of};
use crate::index::SealedIndex;
use crate::kv::{Family, Kv};

/// Sealed indexes kept in memory.
const CACHED: usize = 32;
const PLACES_VERSION: u8 = 1;

/// Part of a sealed index's key: the index itself.
pub(super) const PART_INDEX: u32 = 0;
/// Part of a sealed index's key: source, slot and ref by ordinal.
pub(super) const PART_PLACES: u32 = 1;
/// The tenant number under which a day's seal is noted.
pub(super) const SEAL_TENANT: u32 = u32::MAX;
/// Part of the seal's key: the day was sealed.
pub(super) const PART_SEALED: u32 = 0;
/// Part of the seal's key: pages came after it was sealed.
pub(super) const PART_REVIVED: u32 = 1;

/// A sealed index of a day and tenant.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) index: SealedIndex<Vec<u8>>,
    places: Vec<(u32, u32, u64)>,
}

impl Sealed {
    /// Source, slot and ref by ordinal.
    pub(crate) fn places(&self) -> &[(u32, u32, u64)] {
        &self.places
    }

    /// Source, slot and ref of the series with that ordinal.
    pub(crate) fn place(&self, ordinal: u32) -> Option<(u32, u32, u64)> {
        self.places.get(ordinal as usize).copied()
    }
}

/// What is known of a day that has pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Day {
    /// Its sealed index names all its series.
    pub(super) sealed: bool,
    /// It has a sealed index, maybe one that lacks series.
    pub(super) indexed: bool,
}

/// Which days have pages.
#[derive(Debug, Default)]
pub(crate) struct Days {
    pub(super) known: RwLock<BTreeMap<i64, Day>>,
    cache: Mutex<HashMap<(i64, u32), Arc<Sealed>>>,
}

impl Days {
    /// Looks which days are in the database.
    pub(super) fn load(kv: &dyn Kv, shard: ShardId) -> Result<Self, StorageError> {
        let mut known: BTreeMap<i64, Day> = BTreeMap::new();
        for family in [Family::Pages, Family::Index] {
            let mut cursor = kv.cursor(family);
            cursor.seek(&[keys::CLASS]);
            while let Some(day) = cursor.entry().and_then(|(key, _)| keys::day_of_key(key)) {
                let prefix = keys::day(day, shard);
                cursor.seek(&prefix);
                if cursor.entry().is_some_and(|(key, _)| key.starts_with(&prefix)) {
                    let of_day = known.entry(day).or_default();
                    if family == Family::Index {
                        let noted = |part| -> Result<bool, StorageError> {
                            Ok(kv.get(Family::Index, &keys::index(day, shard, SEAL_TENANT, part))?.is_some())
                        };
                        of_day.indexed = noted(PART_SEALED)?;
                        of_day.sealed = of_day.indexed && !noted(PART_REVIVED)?;
                    }
                }
                cursor.seek(&keys::day(day + 1, ShardId(0)));
            }
            cursor.check()?;
        }
        Ok(Self { known: RwLock::new(known), cache: Mutex::default() })
    }

    /// Takes note that pages are added to these days, and gives those that were sealed once.
    pub(super) fn add(&self, days: &BTreeSet<i64>) -> Vec<i64> {
        let mut known = self.known.write();
        let mut indexed = Vec::new();
        for day in days {
            let known = known.entry(*day).or_default();
            known.sealed = false;
            if known.indexed {
                indexed.push(*day);
            }
        }
        indexed
    }

    /// Takes note that rows of these days are in memory: those that are sealed are live again.
    pub(super) fn revive(&self, days: &BTreeSet<i64>) {
        let is_sealed = days.iter().any(|day| self.known.read().get(day).is_some_and(|d| d.sealed));
        if is_sealed {
            let mut known = self.known.write();
            for day in days {
                known.entry(*day).and_modify(|d| d.sealed = false);
            }
        }
    }

    /// Days that are not sealed, ascending.
    pub(super) fn live(&self) -> Vec<i64> {
        self.known.read().iter().filter(|(_, d)| !d.sealed).map(|(day, _)| *day).collect()
    }

    pub(super) fn set_sealed(&self, day: i64) {
        self.cache.lock().retain(|(d, _), _| *d != day);
        self.known.write().insert(day, Day { sealed: true, indexed: true });
    }

    /// Everything is as `other` has found it.
    pub(super) fn replace(&self, other: Self) {
        self.cache.lock().clear();
        *self.known.write() = other.known.into_inner();
    }

    pub(super) fn remove(&self, day: i64) {
        self.cache.lock().retain(|(d, _), _| *d != day);
        self.known.write().remove(&day);
    }
}

/// Codes the places of a sealed index.
pub(super) fn places_record(places: &[(u32, u32, u64)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(places.len() * 4);
    put_varint(&mut out, places.len() as u64);
    let mut last = (0u32, 0u32, 0u64);
    for place in places {
        put_varint(&mut out, u64::from(place.0.wrapping_sub(last.0)));
        put_varint(&mut out, u64::from(place.1.wrapping_sub(last.1)));
        put_varint(&mut out, place.2.wrapping_sub(last.2));
        last = *place;
    }
    seal_record(PLACES_VERSION, &out)
}

fn read_places(record: &[u8]) -> Result<Vec<(u32, u32, u64)>, DecodeError> {
    let mut reader = Reader::new(open_record(PLACES_VERSION, record)?);
    let mut last = (0u32, 0u32, 0u64);
    (0..reader.count(3)?)
        .map(|_| {
            last.0 = last.0.wrapping_add(reader.varint32("source")?);
            last.1 = last.1.wrapping_add(reader.varint32("slot")?);
            last.2 = last.2.wrapping_add(reader.varint()?);
            Ok(last)
        })
        .collect()
}

impl Shard {
    /// Days with pages that overlap `range`, ascending.
    pub(super) fn days_in(&self, range: TimeRange) -> Vec<i64> {
        let first = day_of(range.after.saturating_add(1));
        let last = day_of(range.until);
        if first > last {
            return Vec::new();
        }
        self.days.known.read().range(first..=last).map(|(day, _)| *day).collect()
    }

    /// Days with a sealed index that overlap `range`, ascending.
    pub(super) fn indexed_days(&self, range: TimeRange) -> Vec<i64> {
        let known = self.days.known.read();
        overlapping(&known, range).filter(|(_, d)| d.indexed).map(|(day, _)| day).collect()
    }

    /// Whether the head may have series with samples in `range` that no sealed index names.
    pub(super) fn has_live(&self, range: TimeRange) -> bool {
        let known = self.days.known.read();
        let newest_sealed = known.iter().rev().find(|(_, d)| d.sealed).map(|(day, _)| *day);
        let Some(newest) = newest_sealed else { return true };
        range.until >= (newest + 1).saturating_mul(DAY_MS)
            || overlapping(&known, range).any(|(_, d)| !d.sealed)
    }

    /// The sealed index of a day for a tenant; `None` when the tenant has no series there.
    pub(super) fn sealed_index(&self, day: i64, tenant: u32) -> Result<Option<Arc<Sealed>>, StorageError> {
        if let Some(found) = self.days.cache.lock().get(&(day, tenant)) {
            return Ok(Some(Arc::clone(found)));
        }
        let part = |part| self.kv.get(Family::Index, &keys::index(day, self.id, tenant, part));
        let Some(bytes) = part(PART_INDEX)? else { return Ok(None) };
        let name = format!("index of day {day}, tenant {tenant}");
        let places =
            part(PART_PLACES)?.ok_or_else(|| self.damaged(&name, "its places are missing".into()))?;
        let places = read_places(&places).map_err(|e| self.damaged(&name, e.to_string()))?;
        let index = SealedIndex::open(bytes).map_err(|e| self.damaged(&name, e.to_string()))?;
        let sealed = Arc::new(Sealed { index, places });
        let mut cache = self.days.cache.lock();
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert((day, tenant), Arc::clone(&sealed));
        Ok(Some(sealed))
    }
}

fn overlapping(known: &BTreeMap<i64, Day>, range: TimeRange) -> impl Iterator<Item = (i64, Day)> + '_ {
    let first = day_of(range.after.saturating_add(1));
    let last = day_of(range.until).max(first);
    known.range(first..=last).map(|(day, of_day)| (*day, *of_day))
}
