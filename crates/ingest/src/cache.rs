//! Which series a fingerprint means: its placement key, its shard, and the ref that the shard's leader gave it.
//!
//! Senders repeat their order, so each entry remembers which entry came after it the last time: mostly a look-up is
//! one comparison, without a probe of the table. The cache has a fixed budget; when it is full, entries that were not
//! asked for since the hand passed them make room (second chance). New entries start without a chance, so a flood of
//! series that come once does not push out those that come again.

use std::collections::HashMap;

use hashbrown::HashTable;
use model::{Epoch, SeriesRef, ShardId};

/// No entry.
const NONE: u32 = u32::MAX;

/// Bytes an entry costs with its place in the table.
const ENTRY_COST: usize = size_of::<Entry>() + 16;

#[derive(Clone, Debug)]
struct Entry {
    fingerprint: [u64; 2],
    check: [u64; 2],
    key: u64,
    reference: SeriesRef,
    incarnation: u64,
    shard: ShardId,
    /// The entry that was asked for after this one the last time.
    next: u32,
    /// The low bits of the epoch of the map that `shard` was found by.
    epoch: u32,
    /// The version of that map.
    version: u16,
    used: bool,
}

/// What is known of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Its placement key.
    pub(crate) key: u64,
    /// XOR-able hash of its canonical labels.
    pub(crate) check: u128,
    /// The shard that knows it.
    pub(crate) shard: ShardId,
    /// The version of the map of the asked epoch by which it is in that shard, if that was looked up before.
    pub(crate) version: Option<u16>,
    /// Its ref there, if still good.
    pub(crate) reference: Option<SeriesRef>,
}

/// What a committed part taught about a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lesson {
    pub(crate) fingerprint: u128,
    pub(crate) key: u64,
    pub(crate) check: u128,
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) version: u16,
    pub(crate) incarnation: u64,
    pub(crate) reference: SeriesRef,
}

/// How look-ups went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) predicted: u64,
    pub(crate) probed: u64,
    pub(crate) missed: u64,
}

#[derive(Debug)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    table: HashTable<u32>,
    /// The incarnation of each shard's refs that were learnt last.
    incarnations: HashMap<ShardId, u64>,
    capacity: usize,
    hand: usize,
    evictions: u64,
}

impl Cache {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            entries: Vec::new(),
            table: HashTable::new(),
            incarnations: HashMap::new(),
            capacity: (bytes / ENTRY_COST).clamp(1_024, NONE as usize),
            hand: 0,
            evictions: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The incarnation that known refs of `shard` belong to.
    pub(crate) fn incarnation(&self, shard: ShardId) -> u64 {
        self.incarnations.get(&shard).copied().unwrap_or(0)
    }

    /// Looks up `fingerprints`, which came in this order, and appends one answer for each to `out`.
    pub(crate) fn look_up(
        &mut self,
        fingerprints: &[u128],
        epoch: Epoch,
        out: &mut Vec<Option<Hit>>,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut previous = NONE;
        let mut last_shard = (ShardId(u32::MAX), 0);
        for fingerprint in fingerprints {
            let halves = split(*fingerprint);
            let predicted = self.entries.get(previous as usize).map_or(NONE, |entry| entry.next);
            let found =
                if self.entries.get(predicted as usize).is_some_and(|entry| entry.fingerprint == halves) {
                    tally.predicted += 1;
                    predicted
                } else {
                    let found = self.find(halves);
                    if found == NONE {
                        tally.missed += 1;
                        out.push(None);
                        continue;
                    }
                    tally.probed += 1;
                    if let Some(entry) = self.entries.get_mut(previous as usize) {
                        entry.next = found;
                    }
                    found
                };
            previous = found;
            let entry = &mut self.entries[found as usize];
            entry.used = true;
            if last_shard.0 != entry.shard {
                last_shard = (entry.shard, self.incarnations.get(&entry.shard).copied().unwrap_or(0));
            }
            out.push(Some(Hit {
                key: entry.key,
                check: join(entry.check),
                shard: entry.shard,
                version: (entry.epoch == epoch.0 as u32).then_some(entry.version),
                reference: (entry.incarnation == last_shard.1).then_some(entry.reference),
            }));
        }
        tally
    }

    /// Remembers what a committed part taught.
    pub(crate) fn learn(&mut self, lesson: &Lesson) {
        self.incarnations.insert(lesson.shard, lesson.incarnation);
        let fingerprint = split(lesson.fingerprint);
        let entry = Entry {
            fingerprint,
            check: split(lesson.check),
            key: lesson.key,
            reference: lesson.reference,
            incarnation: lesson.incarnation,
            shard: lesson.shard,
            next: NONE,
            epoch: lesson.epoch.0 as u32,
            version: lesson.version,
            used: false,
        };
        let found = self.find(fingerprint);
        if let Some(old) = self.entries.get_mut(found as usize) {
            *old = Entry { next: old.next, used: true, ..entry };
            return;
        }
        let slot = if self.entries.len() < self.capacity {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let slot = self.make_room();
            self.entries[slot] = entry;
            slot
        };
        let entries = &self.entries;
        self.table.insert_unique(fingerprint[0], slot as u32, |at| entries[*at as usize].fingerprint[0]);
    }

    /// Forgets all refs of `shard`: its leader does not know them.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.incarnations.remove(&shard);
    }

    fn find(&self, fingerprint: [u64; 2]) -> u32 {
        let same = |at: &u32| self.entries[*at as usize].fingerprint == fingerprint;
        self.table.find(fingerprint[0], same).copied().unwrap_or(NONE)
    }

    /// Takes an entry out of the table and gives its slot.
    fn make_room(&mut self) -> usize {
        loop {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &mut self.entries[slot];
            if std::mem::take(&mut entry.used) {
                continue;
            }
            if let Ok(place) = self.table.find_entry(entry.fingerprint[0], |at| *at as usize == slot) {
                place.remove();
            }
            self.evictions += 1;
            return slot;
        }
    }
}

fn split(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

fn join(halves: [u64; 2]) -> u128 {
    u128::from(halves[0]) | u128::from(halves[1]) << 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lesson(number: u64, incarnation: u64) -> Lesson {
        Lesson {
            fingerprint: u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            key: number,
            check: u128::from(number) << 70 | 1,
            shard: ShardId(number as u32 % 3),
            epoch: Epoch(7),
            version: 2,
            incarnation,
            reference: SeriesRef(number + 1000),
        }
    }

    fn look_up(cache: &mut Cache, numbers: &[u64], epoch: u64) -> (Vec<Option<Hit>>, Tally) {
        let prints: Vec<u128> = numbers.iter().map(|number| lesson(*number, 0).fingerprint).collect();
        let mut out = Vec::new();
        let tally = cache.look_up(&prints, Epoch(epoch), &mut out);
        (out, tally)
    }

    #[test]
    fn order_is_learnt() {
        let mut cache = Cache::new(0);
        assert_eq!(look_up(&mut cache, &[1, 2, 3], 7).1, Tally { predicted: 0, probed: 0, missed: 3 });
        for number in 1..=5 {
            cache.learn(&lesson(number, 9));
        }
        assert_eq!(look_up(&mut cache, &[1, 2, 3, 4], 7).1, Tally { predicted: 0, probed: 4, missed: 0 });
        let (hits, tally) = look_up(&mut cache, &[1, 2, 3, 4], 7);
        assert_eq!(tally, Tally { predicted: 3, probed: 1, missed: 0 });
        let hit = hits[3].unwrap();
        assert_eq!(
            (hit.key, hit.shard, hit.version, hit.reference),
            (4, ShardId(1), Some(2), Some(SeriesRef(1004)))
        );
        assert_eq!(hit.check, lesson(4, 9).check);
        assert_eq!(look_up(&mut cache, &[2, 5, 6, 3], 7).1, Tally { predicted: 0, probed: 3, missed: 1 });
    }

    #[test]
    fn refs_of_another_incarnation_are_not_good() {
        let mut cache = Cache::new(0);
        for number in [0, 3, 1] {
            cache.learn(&lesson(number, 1));
        }
        cache.learn(&lesson(3, 2));
        let reference = |hits: &[Option<Hit>], at: usize| hits[at].unwrap().reference.map(|r| r.0);
        let (hits, _) = look_up(&mut cache, &[0, 3, 1], 8);
        assert_eq!(reference(&hits, 0), None);
        assert_eq!(reference(&hits, 1), Some(1003));
        assert_eq!(reference(&hits, 2), Some(1001));
        assert_eq!(hits[1].unwrap().version, None, "the epoch is another");
        cache.forget(ShardId(0));
        assert_eq!(reference(&look_up(&mut cache, &[3], 8).0, 0), None);
    }

    #[test]
    fn a_full_cache_keeps_what_is_asked_for() {
        let mut cache = Cache::new(0);
        let hot: Vec<u64> = (0..100).collect();
        for number in &hot {
            cache.learn(&lesson(*number, 1));
        }
        for flood in 0..20 {
            assert_eq!(look_up(&mut cache, &hot, 7).1.missed, 0, "round {flood}");
            for number in 0..500 {
                cache.learn(&lesson(1_000 + flood * 500 + number, 1));
            }
        }
        assert_eq!(cache.len(), 1_024);
        assert_eq!(cache.evictions(), 100 + 20 * 500 - 1_024);
    }

    proptest! {
        /// Whatever is evicted, an answer is never another series'.
        #[test]
        fn answers_are_of_the_series_asked_for(rounds in proptest::collection::vec((0u64..4_000, 1u64..600), 1..12)) {
            let mut cache = Cache::new(0);
            for (first, count) in rounds {
                let numbers: Vec<u64> = (first..first + count).collect();
                let (hits, _) = look_up(&mut cache, &numbers, 7);
                for (number, hit) in numbers.iter().zip(&hits) {
                    if let Some(hit) = hit {
                        prop_assert_eq!((hit.key, hit.reference), (*number, Some(SeriesRef(number + 1000))));
                    }
                }
                for number in &numbers {
                    cache.learn(&lesson(*number, 1));
                }
                prop_assert!(cache.len() <= 1_024);
                prop_assert_eq!(cache.table.len(), cache.entries.len());
            }
        }
    }
}
