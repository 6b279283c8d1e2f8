//! The series of a head: found by hash of labels, by ref, and by position, which is the ordinal in the label index. The
//! labels themselves stand in the index.

use hashbrown::HashTable;
use model::Labels;

const NONE: u32 = u32::MAX;
const BLOCK: usize = 512;

/// One series.
#[derive(Clone, Copy, Debug)]
struct Series {
    /// `Labels::hash128`, in halves.
    hash: [u64; 2],
    reference: u64,
    source: u32,
    slot: u32,
    tenant: u32,
    evicted: bool,
}

/// All series of a head.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    all: Vec<Series>,
    by_hash: HashTable<u32>,
    by_ref: Vec<Option<Box<[u32; BLOCK]>>>,
    active: usize,
    /// Positions of removed series.
    free: Vec<u32>,
}

fn halves(hash: u128) -> [u64; 2] {
    [hash as u64, (hash >> 64) as u64]
}

fn table_hash(hash: [u64; 2], tenant: u32) -> u64 {
    (hash[0] ^ u64::from(tenant)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash[1]
}

impl SeriesTable {
    /// Adds a series; the caller knows that ref and labels are new.
    pub(crate) fn insert(
        &mut self,
        (tenant, labels): (u32, &Labels),
        reference: u64,
        (source, slot): (u32, u32),
        evicted: bool,
    ) -> u32 {
        let hash = halves(labels.hash128());
        let series = Series { hash, reference, source, slot, tenant, evicted };
        let sid = if let Some(sid) = self.free.pop() {
            self.all[sid as usize] = series;
            sid
        } else {
            if self.all.len() == self.all.capacity() {
                self.all.reserve_exact(self.all.len() / 4 + 64);
            }
            self.all.push(series);
            self.all.len() as u32 - 1
        };
        if !evicted {
            let all = &self.all;
            self.by_hash.insert_unique(table_hash(hash, tenant), sid, |other| {
                let series = &all[*other as usize];
                table_hash(series.hash, series.tenant)
            });
            self.active += 1;
        }
        let (block, at) = (reference as usize / BLOCK, reference as usize % BLOCK);
        if block >= self.by_ref.len() {
            self.by_ref.resize_with(block + 1, || None);
        }
        self.by_ref[block].get_or_insert_with(|| Box::new([NONE; BLOCK]))[at] = sid;
        sid
    }

    /// The active series of `tenant` with that hash of labels, if `same` says that its labels are the right ones.
    pub(crate) fn find(&self, tenant: u32, hash: u128, same: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = halves(hash);
        let is_it = |sid: &u32| {
            let series = &self.all[*sid as usize];
            series.hash == hash && series.tenant == tenant && same(*sid)
        };
        self.by_hash.find(table_hash(hash, tenant), is_it).copied()
    }

    /// The active series of that ref.
    #[inline]
    pub(crate) fn by_ref(&self, reference: u64) -> Option<u32> {
        self.by_any_ref(reference).filter(|sid| !self.all[*sid as usize].evicted)
    }

    /// The series of that ref, evicted or not.
    #[inline]
    pub(crate) fn by_any_ref(&self, reference: u64) -> Option<u32> {
        let block = self.by_ref.get(usize::try_from(reference).ok()? / BLOCK)?.as_ref()?;
        Some(block[reference as usize % BLOCK]).filter(|sid| *sid != NONE)
    }

    /// Source and slot.
    #[inline]
    pub(crate) fn place(&self, sid: u32) -> (u32, u32) {
        let series = &self.all[sid as usize];
        (series.source, series.slot)
    }

    pub(crate) fn reference(&self, sid: u32) -> u64 {
        self.all[sid as usize].reference
    }

    pub(crate) fn hash128(&self, sid: u32) -> u128 {
        let hash = self.all[sid as usize].hash;
        u128::from(hash[0]) | u128::from(hash[1]) << 64
    }

    pub(crate) fn tenant(&self, sid: u32) -> u32 {
        self.all[sid as usize].tenant
    }

    pub(crate) fn is_evicted(&self, sid: u32) -> bool {
        self.all[sid as usize].evicted
    }

    /// Makes a series unknown to writers; readers still find it by position.
    pub(crate) fn evict(&mut self, sid: u32) {
        let series = &mut self.all[sid as usize];
        if series.evicted {
            return;
        }
        series.evicted = true;
        let (hash, tenant) = (series.hash, series.tenant);
        if let Ok(entry) = self.by_hash.find_entry(table_hash(hash, tenant), |other| *other == sid) {
            entry.remove();
        }
        self.active -= 1;
    }

    /// Takes an evicted series out; its position is given to another.
    pub(crate) fn remove(&mut self, sid: u32) {
        debug_assert!(self.all[sid as usize].evicted, "only evicted series are removed");
        let reference = self.all[sid as usize].reference as usize;
        if let Some(Some(block)) = self.by_ref.get_mut(reference / BLOCK) {
            block[reference % BLOCK] = NONE;
            if block.iter().all(|sid| *sid == NONE) {
                self.by_ref[reference / BLOCK] = None;
            }
        }
        self.free.push(sid);
    }

    /// Series, evicted ones included.
    pub(crate) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Series that take samples.
    pub(crate) fn n_active(&self) -> usize {
        self.active
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> usize {
        let blocks = self.by_ref.iter().flatten().count() * BLOCK * 4 + self.by_ref.capacity() * 8;
        self.all.capacity() * size_of::<Series>() + self.by_hash.capacity() * 5 + blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_until_they_are_evicted() {
        let mut table = SeriesTable::default();
        let labels = |i: u64| Labels::from_pairs([("i", i.to_string())]).unwrap();
        for i in 0..2_000u64 {
            table.insert((0, &labels(i)), i + 1, (7, i as u32), false);
        }
        for i in 0..2_000u64 {
            let hash = labels(i).hash128();
            let sid = table.find(0, hash, |_| true).unwrap();
            assert_eq!(table.by_ref(i + 1), Some(sid));
            assert_eq!(table.place(sid), (7, i as u32));
            assert_eq!(table.hash128(sid), hash);
            assert_eq!(table.find(1, hash, |_| true), None);
            assert_eq!(table.find(0, hash, |_| false), None);
        }
        table.evict(5);
        assert_eq!((table.find(0, labels(5).hash128(), |_| true), table.by_ref(6)), (None, None));
        assert_eq!(table.n_active(), 1_999);
        assert_eq!(table.by_any_ref(6), Some(5));
        table.remove(5);
        assert_eq!(table.by_any_ref(6), None);
        assert_eq!(table.by_ref(u64::MAX), None);
    }
}
