//! Deleted samples leave the disk: pages that still hold some are written again without them, and deletions of which
//! nothing is left on any page are forgotten. As all background work, this is no part of the replicated state.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::keys::{self, PageKey, StateKind};
use super::merge::{MERGED, TARGET_ROWS};
use super::{Cleaned, Shard};
use crate::StorageError;
use crate::head::Tombstone;
use crate::head::source::NO_SERIES;
use crate::kv::{Batch, Family, scan_prefix};
use crate::page::{Mask, MergeInput, PageReader, merge};

/// Refs of series that are no longer in the head, by source and slot.
type Forgotten = HashMap<(u32, u32), u64>;

impl Shard {
    /// Writes the pages that hold samples of deletions that are durable anew without them, and forgets those deletions.
    /// What is deleted and lies in memory waits for a flush and another call. A damaged page is left as it is, and with
    /// it the deletions. One at a time, and not beside merges.
    pub fn clean_deleted(&self) -> Result<Cleaned, StorageError> {
        let _merging = self.merging.lock();
        let mut done = Cleaned::default();
        let durable = self.durable.lock().0;
        let known: Vec<Tombstone> = {
            let state = self.state.read();
            state.head.tombstones.iter().filter(|t| t.index <= durable).cloned().collect()
        };
        if known.is_empty() {
            return Ok(done);
        }
        let days: Vec<i64> = self.days.known.read().keys().copied().collect();
        let mut rewritten: BTreeSet<i64> = BTreeSet::new();
        for day in days {
            if self.clean_day(day, &known, &mut done)? {
                rewritten.insert(day);
            }
        }
        if done.left == 0 {
            self.forget_deletions(&known)?;
            done.deletions = known.len() as u64;
        }
        // Only now the old pages are there twice; what cannot be compacted just now is compacted some day.
        for day in rewritten {
            let from = keys::day(day, self.id);
            if let Some(until) = crate::kv::prefix_end(&from) {
                self.kv.compact(Family::Pages, &from, &until)?;
            }
        }
        Ok(done)
    }

    /// Cleans the pages of a day; whether any was written anew.
    fn clean_day(&self, day: i64, known: &[Tombstone], done: &mut Cleaned) -> Result<bool, StorageError> {
        let mut found: Vec<PageKey> = Vec::new();
        let overlaps = |key: &PageKey| {
            known.iter().any(|t| key.max_time > t.range.after && key.min_time <= t.range.until)
        };
        scan_prefix(&*self.kv, Family::Pages, &keys::day(day, self.id), |key, _| {
            found.extend(PageKey::decode(key).filter(overlaps));
            Ok(())
        })?;
        let mut forgotten: Option<Forgotten> = None;
        let mut any = false;
        for key in found {
            let Some(bytes) = self.kv.get(Family::Pages, &key.encode())? else { continue };
            let page = match PageReader::open(bytes) {
                Ok(page) => page,
                Err(error) => {
                    let error = self.damaged(&key.name(), error.to_string());
                    tracing::error!(shard = %self.id, %error, "damaged page, what was deleted from it stays");
                    done.left += 1;
                    continue;
                }
            };
            let Some(masks) = self.masks_of_page(day, &key, &page, known, &mut forgotten)? else {
                done.left += 1;
                continue;
            };
            if !masks.is_empty() {
                self.rewrite(&key, &page, &masks, done)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// What the deletions take out of a page; `None` when a series of it is nowhere known.
    fn masks_of_page(
        &self,
        day: i64,
        key: &PageKey,
        page: &PageReader<Vec<u8>>,
        known: &[Tombstone],
        forgotten: &mut Option<Forgotten>,
    ) -> Result<Option<Vec<Mask>>, StorageError> {
        let mut masks = Vec::new();
        for series in page.series() {
            let in_head = {
                let head = &self.state.read().head;
                let slot =
                    head.sources.get(key.source as usize).and_then(|s| s.slots.get(series.slot as usize));
                slot.map(|s| s.series).filter(|sid| *sid != NO_SERIES).map(|sid| head.series.reference(sid))
            };
            let reference = match in_head {
                Some(reference) => Some(reference),
                None => {
                    if forgotten.is_none() {
                        *forgotten = Some(self.forgotten_of(day)?);
                    }
                    forgotten.as_ref().and_then(|all| all.get(&(key.source, series.slot)).copied())
                }
            };
            let Some(reference) = reference else { return Ok(None) };
            for tombstone in known {
                if page.meta().last_sequence.0 <= tombstone.index
                    && page.overlaps(tombstone.range)
                    && tombstone.refs.binary_search(&reference).is_ok()
                {
                    masks.push(Mask { slot: series.slot, range: tombstone.range });
                }
            }
        }
        Ok(Some(masks))
    }

    /// The series of the sealed indexes of a day.
    fn forgotten_of(&self, day: i64) -> Result<Forgotten, StorageError> {
        let n_tenants = self.state.read().head.tenants.len() as u32;
        let mut all = Forgotten::new();
        for tenant in 0..n_tenants {
            let Some(sealed) = self.sealed_index(day, tenant)? else { continue };
            all.extend(
                sealed.places().iter().map(|(source, slot, reference)| ((*source, *slot), *reference)),
            );
        }
        Ok(all)
    }

    fn rewrite(
        &self,
        key: &PageKey,
        page: &PageReader<Vec<u8>>,
        masks: &[Mask],
        done: &mut Cleaned,
    ) -> Result<(), StorageError> {
        let mut pages: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let rewritten = merge(&[MergeInput { page, masks }], TARGET_ROWS, |bytes, summary| {
            let (min_time, max_time) = (summary.min_time, summary.max_time);
            let new = PageKey { min_time, max_time, number: key.number | MERGED, ..*key };
            pages.push((new.encode(), bytes));
        });
        rewritten.map_err(|e| self.damaged(&key.name(), e.to_string()))?;
        let own = key.encode();
        let mut batch = Batch::default();
        batch.delete(Family::Pages, own.clone());
        let mut written = 0;
        for (new, bytes) in pages {
            if new != own && self.kv.get(Family::Pages, &new)?.is_some() {
                // Pages of one flush share their number: this one becomes another's namesake and stays as it is.
                done.left += 1;
                return Ok(());
            }
            written += bytes.len() as u64;
            batch.put(Family::Pages, new, bytes);
        }
        done.pages += 1;
        done.freed_bytes += (page.bytes().len() as u64).saturating_sub(written);
        self.metrics.merged_bytes.inc_by(written);
        self.kv.write(batch)
    }

    fn forget_deletions(&self, gone: &[Tombstone]) -> Result<(), StorageError> {
        // A flush under way would put their records back.
        let _no_flush = self.flushing.lock();
        let indexes: BTreeSet<u64> = gone.iter().map(|t| t.index).collect();
        let mut batch = Batch::default();
        for index in &indexes {
            batch.delete(Family::State, keys::state64(self.id, StateKind::Tombstone, *index));
        }
        self.kv.write(batch)?;
        self.state.write().head.tombstones.retain(|t| !indexes.contains(&t.index));
        Ok(())
    }
}
