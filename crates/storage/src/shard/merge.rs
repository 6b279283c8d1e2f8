//! Background work of a shard, in steps of bounded size: drop what expired, merge small pages, seal the label indexes of
//! ended days, forget series that left the head. Nothing of it changes what a query answers, and it is no part of the
//! replicated state: replicas do it when they like.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use model::{Labels, TimeRange};
use roaring::RoaringBitmap;

use super::days::{PART_INDEX, PART_PLACES, PART_REVIVED, PART_SEALED, SEAL_TENANT, places_record};
use super::keys::{self, PageKey};
use super::{MergeProgress, Shard};
use crate::StorageError;
use crate::codec::seal_record;
use crate::head::source::NO_SERIES;
use crate::head::{DAY_MS, Head, day_of};
use crate::index::{MemIndex, SeriesIndex};
use crate::kv::{Batch, Family, scan_prefix};
use crate::page::{Mask, MergeInput, PageReader, merge};

/// Rows of a merged page.
pub(super) const TARGET_ROWS: usize = 480;
/// A page with fewer rows in its longest series is small.
const SMALL_ROWS: usize = TARGET_ROWS / 2;
/// Small pages of a group that are worth a merge while the day goes on.
const ENOUGH: u32 = 12;
/// Set in the numbers of merged pages.
pub(super) const MERGED: u64 = 1 << 63;
/// Series forgotten in one step.
const MAX_FORGET: usize = 10_000;

/// A series, and its source, slot and ref.
type PlacedSeries = (Labels, (u32, u32, u64));

/// Pages of a group that wait for a merge.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    small: u32,
    late: u32,
}

/// What background work knows between steps.
#[derive(Debug, Default)]
pub(super) struct Position {
    /// Whether the pages of live days were looked through since the start.
    looked: bool,
    waiting: BTreeMap<(i64, u32, u32), Waiting>,
}

impl Position {
    /// Takes note of a page that a flush wrote.
    pub(super) fn add(&mut self, key: &PageKey) {
        let waiting = self.waiting.entry((key.day, key.source, key.group)).or_default();
        if key.late {
            waiting.late += 1;
        } else {
            waiting.small += 1;
        }
    }
}

impl Shard {
    /// Does a piece of background work of about `max_bytes`: merges small pages, seals the index of ended days, drops
    /// what lies before the retention floor. One at a time.
    pub fn merge_step(&self, max_bytes: u64) -> Result<MergeProgress, StorageError> {
        let mut position = self.merging.lock();
        let (clock, floor) = {
            let state = self.state.read();
            (state.head.clock, state.head.floor)
        };
        let mut progress = MergeProgress::default();
        std::mem::take(&mut *self.fresh_pages.lock()).iter().for_each(|key| position.add(key));
        self.drop_expired(floor, &mut position)?;
        if !position.looked {
            self.look_through(&mut position)?;
            position.looked = true;
        }
        let is_over =
            |day: i64| clock >= (day + 1).saturating_mul(DAY_MS).saturating_add(self.config.late_window_ms);
        let ready: Vec<(i64, u32, u32)> = position
            .waiting
            .iter()
            .filter(|((day, ..), w)| {
                w.small >= ENOUGH || w.late >= ENOUGH || is_over(*day) && (w.small >= 2 || w.late >= 1)
            })
            .map(|(group, _)| *group)
            .collect();
        for group in ready {
            if progress.read_bytes >= max_bytes {
                progress.more = true;
                return Ok(progress);
            }
            position.waiting.remove(&group);
            self.merge_group(group, is_over(group.0), &mut progress)?;
        }
        let live = self.days.live();
        for day in live {
            if is_over(day) && !is_in_memory(&self.state.read().head, day) {
                self.seal_day(day)?;
                position.waiting.retain(|(d, ..), _| *d != day);
                progress.more = true;
                return Ok(progress);
            }
        }
        progress.more = self.forget_series()? == MAX_FORGET;
        Ok(progress)
    }

    /// Drops the days that lie wholly before the floor.
    fn drop_expired(&self, floor: i64, position: &mut Position) -> Result<(), StorageError> {
        let expired: Vec<i64> = self.days.known.read().range(..day_of(floor)).map(|(day, _)| *day).collect();
        for day in expired {
            let from = keys::day(day, self.id);
            let until = crate::kv::prefix_end(&from).unwrap_or_else(|| vec![0xff; 10]);
            self.kv.drop_range(Family::Pages, &from, &until)?;
            self.kv.drop_range(Family::Index, &from, &until)?;
            self.days.remove(day);
            position.waiting.retain(|(d, ..), _| *d != day);
        }
        Ok(())
    }

    /// Counts the small pages of live days: after a start nobody else knows them.
    fn look_through(&self, position: &mut Position) -> Result<(), StorageError> {
        let live = self.days.live();
        position.waiting.clear();
        for day in live {
            scan_prefix(&*self.kv, Family::Pages, &keys::day(day, self.id), |key, value| {
                if let Some(key) = PageKey::decode(key) {
                    // Damage is left to the readers that need the page.
                    let rows = PageReader::open(value).map_or(usize::MAX, |page| longest(&page));
                    if key.late || rows < SMALL_ROWS {
                        position.add(&key);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Merges the small and the late pages of a group of a day, and the large ones that late pages overlap.
    fn merge_group(
        &self,
        (day, source, group): (i64, u32, u32),
        all_late: bool,
        progress: &mut MergeProgress,
    ) -> Result<(), StorageError> {
        let mut pages: Vec<(PageKey, PageReader<Vec<u8>>)> = Vec::new();
        let mut damaged = None;
        scan_prefix(&*self.kv, Family::Pages, &keys::group(day, self.id, source, group), |key, value| {
            let Some(key) = PageKey::decode(key) else { return Ok(()) };
            match PageReader::open(value.to_vec()) {
                Ok(page) => pages.push((key, page)),
                Err(e) => damaged = Some(self.damaged(&key.name(), e.to_string())),
            }
            Ok(())
        })?;
        if let Some(error) = damaged {
            // A group with a damaged page is left as it is: what stands where must stay told.
            tracing::error!(shard = %self.id, %error, "damaged page, its neighbours are not merged");
            return Ok(());
        }
        let late: Vec<TimeRange> = pages
            .iter()
            .filter(|(key, _)| key.late)
            .map(|(key, _)| TimeRange::closed(key.min_time, key.max_time))
            .collect();
        let with_late = !late.is_empty() && (all_late || late.len() >= ENOUGH as usize);
        pages.retain(|(key, page)| {
            if key.late {
                return with_late;
            }
            longest(page) < SMALL_ROWS || with_late && late.iter().any(|range| page.overlaps(*range))
        });
        if pages.len() < 2 && !with_late {
            return Ok(());
        }
        pages.sort_by_key(|(key, page)| (key.late, page.meta().sequence, key.min_time));
        let Some(masks) = self.masks(source, &pages) else { return Ok(()) };
        let inputs: Vec<MergeInput<'_, Vec<u8>>> =
            pages.iter().zip(&masks).map(|((_, page), masks)| MergeInput { page, masks }).collect();
        let mut batch = Batch::default();
        for (key, page) in &pages {
            progress.read_bytes += page.bytes().len() as u64;
            batch.delete(Family::Pages, key.encode());
        }
        let is_late = pages.iter().all(|(key, _)| key.late);
        // Of their own, so that a flush that is tried again, with pages that were merged meanwhile, replaces nothing.
        let number =
            pages.iter().filter(|(k, _)| k.late == is_late).map(|(k, _)| k.number).min().unwrap_or(0)
                | MERGED;
        let mut written = 0;
        let merged = merge(&inputs, TARGET_ROWS, |bytes, summary| {
            let key = PageKey {
                day,
                shard: self.id.0,
                source,
                group,
                late: is_late,
                min_time: summary.min_time,
                max_time: summary.max_time,
                number,
            };
            written += bytes.len() as u64;
            batch.put(Family::Pages, key.encode(), bytes);
        });
        merged.map_err(|e| {
            self.damaged(&format!("pages of source {source}, group {group}, day {day}"), e.to_string())
        })?;
        progress.written_bytes += written;
        self.metrics.merged_bytes.inc_by(written);
        self.kv.write(batch)
    }

    /// What deletions take out of each page; `None` when it cannot be said.
    fn masks(&self, source: u32, pages: &[(PageKey, PageReader<Vec<u8>>)]) -> Option<Vec<Vec<Mask>>> {
        let state = self.state.read();
        let head = &state.head;
        if head.tombstones.is_empty() {
            return Some(vec![Vec::new(); pages.len()]);
        }
        let slots = &head.sources.get(source as usize)?.slots;
        let mut all = Vec::with_capacity(pages.len());
        for (_, page) in pages {
            let mut masks = Vec::new();
            for series in page.series() {
                let sid =
                    slots.get(series.slot as usize).map(|s| s.series).filter(|sid| *sid != NO_SERIES)?;
                let reference = head.series.reference(sid);
                for tombstone in &head.tombstones {
                    if page.meta().last_sequence.0 <= tombstone.index
                        && tombstone.refs.binary_search(&reference).is_ok()
                    {
                        masks.push(Mask { slot: series.slot, range: tombstone.range });
                    }
                }
            }
            all.push(masks);
        }
        Some(all)
    }

    /// Seals the label index of a day: of each series that has a sample on one of its pages.
    fn seal_day(&self, day: i64) -> Result<(), StorageError> {
        let mut places: BTreeSet<(u32, u32)> = BTreeSet::new();
        scan_prefix(&*self.kv, Family::Pages, &keys::day(day, self.id), |key, value| {
            let Some(key) = PageKey::decode(key) else { return Ok(()) };
            match PageReader::open(value) {
                Ok(page) => places.extend(page.series().map(|s| (key.source, s.slot))),
                // Its series stay findable where they have other pages; readers of this one are told.
                Err(e) => {
                    let error = self.damaged(&key.name(), e.to_string());
                    tracing::error!(shard = %self.id, %error, "damaged page while an index is sealed");
                }
            }
            Ok(())
        })?;
        let mut by_tenant: BTreeMap<u32, Vec<PlacedSeries>> = BTreeMap::new();
        let mut unknown = Vec::new();
        let n_tenants = {
            let state = self.state.read();
            for (source, slot) in &places {
                match series_of(&state.head, *source, *slot) {
                    Some((tenant, labels, reference)) => {
                        by_tenant.entry(tenant).or_default().push((labels, (*source, *slot, reference)));
                    }
                    None => unknown.push((*source, *slot)),
                }
            }
            state.head.tenants.len() as u32
        };
        if !unknown.is_empty() {
            self.recall(day, n_tenants, &unknown, &mut by_tenant)?;
        }
        let mut batch = Batch::default();
        for (tenant, mut series) in by_tenant {
            series.sort_by(|(a, pa), (b, pb)| {
                (pa.0, a.metric_name(), a).cmp(&(pb.0, b.metric_name(), b)).then(pa.1.cmp(&pb.1))
            });
            let mut index = MemIndex::new();
            for (ordinal, (labels, _)) in (0u32..).zip(&series) {
                index.insert(ordinal, labels);
            }
            let mut bytes = Vec::new();
            let name = || format!("index of day {day}, tenant {tenant}");
            index.seal(&mut bytes).map_err(|e| StorageError::corrupt(name(), e.to_string()))?;
            let places: Vec<(u32, u32, u64)> = series.into_iter().map(|(_, place)| place).collect();
            batch.put(Family::Index, keys::index(day, self.id, tenant, PART_INDEX), bytes);
            batch.put(Family::Index, keys::index(day, self.id, tenant, PART_PLACES), places_record(&places));
        }
        batch.put(
            Family::Index,
            keys::index(day, self.id, SEAL_TENANT, PART_SEALED),
            seal_record(1, b"sealed"),
        );
        batch.delete(Family::Index, keys::index(day, self.id, SEAL_TENANT, PART_REVIVED));
        // A flush that adds pages to the day meanwhile makes it live again: it is held off until the day is marked.
        let _no_flush = self.flushing.lock();
        if self.day_has_other_pages(day, &places)? {
            return Ok(());
        }
        // Nor may apply bring rows of the day between the look and the mark.
        let state = self.state.read();
        if is_in_memory(&state.head, day) {
            return Ok(());
        }
        self.kv.write(batch)?;
        self.days.set_sealed(day);
        Ok(())
    }

    /// Whether a flush added a series to the day since `places` was gathered.
    fn day_has_other_pages(&self, day: i64, places: &BTreeSet<(u32, u32)>) -> Result<bool, StorageError> {
        let mut other = false;
        scan_prefix(&*self.kv, Family::Pages, &keys::day(day, self.id), |key, value| {
            if let (Some(key), Ok(page)) = (PageKey::decode(key), PageReader::open(value)) {
                other |= page.series().any(|s| !places.contains(&(key.source, s.slot)));
            }
            Ok(())
        })?;
        Ok(other)
    }

    /// Labels of series that are no longer in the head: from the index that the day had before.
    fn recall(
        &self,
        day: i64,
        n_tenants: u32,
        unknown: &[(u32, u32)],
        by_tenant: &mut BTreeMap<u32, Vec<PlacedSeries>>,
    ) -> Result<(), StorageError> {
        for tenant in 0..n_tenants {
            let Some(sealed) = self.sealed_index(day, tenant)? else { continue };
            let all = sealed.index.all().into_owned();
            let visited = sealed.index.visit_labels(&all, &mut |ordinal, labels| {
                if let Some(place) = sealed.place(ordinal)
                    && unknown.contains(&(place.0, place.1))
                {
                    by_tenant.entry(tenant).or_default().push((labels, place));
                }
                true
            });
            visited.map_err(|e| self.damaged(&format!("index of day {day}"), e.to_string()))?;
        }
        Ok(())
    }

    /// Takes evicted series out of memory whose samples all lie in sealed days, and gives their number.
    ///
    /// Only of sources that did not change since the last flush: then no entry that replay could meet names them.
    fn forget_series(&self) -> Result<usize, StorageError> {
        let oldest_live = self.days.live().first().copied().unwrap_or(i64::MAX);
        let mut forgotten: HashMap<u32, RoaringBitmap> = HashMap::new();
        let mut batch = Batch::default();
        let _no_flush = self.flushing.lock();
        let mut guard = self.state.write();
        let head = &mut guard.head;
        if head.series.n_active() == head.series.len() {
            return Ok(0);
        }
        let mut n = 0;
        for source in &mut head.sources {
            if source.changed || source.evicted == 0 || !source.sealed.is_empty() || source.late.is_some() {
                continue;
            }
            let open = source.tile.as_ref().and_then(|t| t.time_range()).map_or(i64::MAX, |(first, _)| first);
            for slot in &mut source.slots {
                let gone = slot.series != NO_SERIES
                    && n < MAX_FORGET
                    && head.series.is_evicted(slot.series)
                    && day_of(slot.last) < oldest_live
                    && slot.last < open;
                if gone {
                    n += 1;
                    let sid = std::mem::replace(&mut slot.series, NO_SERIES);
                    let key = keys::state64(self.id, keys::StateKind::Series, head.series.reference(sid));
                    batch.delete(Family::State, key);
                    forgotten.entry(head.series.tenant(sid)).or_default().insert(sid);
                    head.series.remove(sid);
                }
            }
        }
        for (tenant, ids) in forgotten {
            head.indexes[tenant as usize].remove_all(&ids);
        }
        drop(guard);
        if n > 0 {
            self.kv.write(batch)?;
        }
        Ok(n)
    }
}

/// Whether samples of the day are not in pages of the database yet.
fn is_in_memory(head: &Head, day: i64) -> bool {
    let range = day.saturating_mul(DAY_MS)..=day.saturating_mul(DAY_MS).saturating_add(DAY_MS - 1);
    let overlaps = |first: i64, last: i64| first <= *range.end() && last >= *range.start();
    head.sources.iter().any(|source| {
        source.tile.as_ref().is_some_and(|t| {
            t.time_range().is_some_and(|(first, last)| overlaps(first, last)) && t.days().contains(&day)
        }) || source.sealed.iter().any(|p| p.day == day)
            || source.late.iter().flat_map(|l| l.iter()).any(|s| range.contains(&s.timestamp))
    })
}

fn series_of(head: &Head, source: u32, slot: u32) -> Option<(u32, Labels, u64)> {
    let sid = head.sources.get(source as usize)?.slots.get(slot as usize)?.series;
    (sid != NO_SERIES).then(|| (head.series.tenant(sid), head.labels(sid), head.series.reference(sid)))
}

fn longest<B: AsRef<[u8]>>(page: &PageReader<B>) -> usize {
    page.series().map(|s| s.rows).max().unwrap_or(0)
}
