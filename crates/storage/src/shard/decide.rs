//! Decisions of the leader that are not writes, each an entry of its own.

use model::{Epoch, Matcher, TenantId, TimeRange};

use super::Shard;
use crate::StorageError;
use crate::entry::Decision;
use crate::head::Head;
use crate::head::source::{NEVER, NO_SERIES};
use crate::index::SeriesIndex;

impl Shard {
    fn decide(&self, now_ms: i64, decision: impl FnOnce(&Head) -> Option<Decision>) -> Vec<u8> {
        let mut planner = self.planner.lock();
        let state = self.state.read();
        match decision(&state.head) {
            Some(decision) => decision.encode(&planner.head_of(state.head.epoch, now_ms)),
            None => Vec::new(),
        }
    }

    /// Leader: an entry that deletes samples in `range` of the series of `tenant` that match one of `selectors` (each a
    /// list of matchers), as they are now. Empty when nothing matches.
    pub fn plan_delete(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        now_ms: i64,
    ) -> Result<Vec<u8>, StorageError> {
        let mut refs = Vec::new();
        {
            let state = self.state.read();
            let head = &state.head;
            let Some(tenant) = head.find_tenant(tenant.as_str()) else { return Ok(Vec::new()) };
            let damaged = |e: crate::index::IndexError| self.damaged("label index", e.to_string());
            for matchers in selectors {
                let found = head.indexes[tenant as usize].select(matchers).map_err(damaged)?;
                refs.extend(found.iter().map(|sid| head.series.reference(sid)));
                for day in self.indexed_days(range) {
                    if let Some(sealed) = self.sealed_index(day, tenant)? {
                        let found = sealed.index.select(matchers).map_err(damaged)?;
                        refs.extend(found.iter().filter_map(|ordinal| Some(sealed.place(ordinal)?.2)));
                    }
                }
            }
        }
        refs.sort_unstable();
        refs.dedup();
        Ok(self.decide(now_ms, |_| {
            (!refs.is_empty()).then_some(Decision::Delete { refs, after: range.after, until: range.until })
        }))
    }

    /// Leader: an entry that moves the retention floor to `floor_ms`: older samples are no longer read or accepted.
    /// Empty when the floor is there already.
    pub fn plan_retention(&self, floor_ms: i64, now_ms: i64) -> Vec<u8> {
        self.decide(now_ms, |head| (floor_ms > head.floor).then_some(Decision::Retention { floor: floor_ms }))
    }

    /// Leader: an entry that takes series out of the head that had no sample since `idle_before_ms` (at most `limit`).
    /// Empty when there is none.
    pub fn plan_evict(&self, idle_before_ms: i64, limit: usize, now_ms: i64) -> Vec<u8> {
        self.decide(now_ms, |head| {
            let mut refs = Vec::new();
            'all: for source in &head.sources {
                for slot in source.slots.iter().filter(|s| s.last != NEVER && s.last < idle_before_ms) {
                    if refs.len() >= limit {
                        break 'all;
                    }
                    if slot.series != NO_SERIES && !head.series.is_evicted(slot.series) {
                        refs.push(head.series.reference(slot.series));
                    }
                }
            }
            refs.sort_unstable();
            (!refs.is_empty()).then_some(Decision::Evict { refs })
        })
    }

    /// Leader: an entry that sets the shard's epoch and its range of placement keys (first and last, both included).
    /// Until the first such entry the shard takes batches of any epoch.
    pub fn plan_range(&self, epoch: Epoch, first_key: u64, last_key: u64, now_ms: i64) -> Vec<u8> {
        self.decide(now_ms, |_| Some(Decision::Range { epoch: epoch.0, first: first_key, last: last_key }))
    }
}
