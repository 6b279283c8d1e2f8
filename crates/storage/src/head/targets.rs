//! Which slots a scrape target feeds, so that those that are missing from its next scrape get staleness markers.
//!
//! The last target that fed a slot owns it. A scrape older than the target's newest one changes nothing.

use hashbrown::HashMap;

use super::source::Source;
use crate::entry::SlotId;
use model::is_stale;

/// A scrape target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: u64,
    /// Timestamp of its newest scrape, ms.
    pub(crate) last: i64,
    /// Slots it owns.
    count: u32,
    /// Sources that may have slots it owns, ascending.
    sources: Vec<u32>,
}

/// All targets that own slots. Numbers begin at 1.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    all: Vec<Target>,
    free: Vec<u32>,
    by_id: HashMap<u64, u32>,
}

impl Targets {
    /// Timestamp of the newest scrape of target `id`.
    pub(crate) fn last(&self, id: u64) -> Option<i64> {
        self.by_id.get(&id).map(|at| self.all[*at as usize - 1].last)
    }

    /// Sources that target `id` may own slots of.
    pub(crate) fn sources_of(&self, id: u64) -> impl Iterator<Item = u32> + '_ {
        self.by_id.get(&id).into_iter().flat_map(|at| self.all[*at as usize - 1].sources.iter().copied())
    }

    /// The targets with their newest scrapes, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64, i64)> + '_ {
        (1..).zip(&self.all).filter(|(_, t)| t.count > 0).map(|(at, t)| (at, t.id, t.last))
    }

    /// For loading: a target under the number it had.
    pub(crate) fn load(&mut self, number: u32, id: u64, last: i64) {
        while (self.all.len() as u32) < number {
            self.all.push(Target::default());
        }
        self.all[number as usize - 1] = Target { id, last, ..Target::default() };
        self.by_id.insert(id, number);
    }

    /// For loading, after all targets: `source` has a slot that target `number` owns. Sources come in order.
    pub(crate) fn load_slot(&mut self, number: u32, source: u32) -> bool {
        let Some(target) = (number as usize).checked_sub(1).and_then(|at| self.all.get_mut(at)) else {
            return false;
        };
        target.count += 1;
        if target.sources.last() != Some(&source) {
            target.sources.push(source);
        }
        true
    }

    /// For loading, at the end: numbers that nobody has are free again, lowest last.
    pub(crate) fn load_done(&mut self) {
        self.free = (1..).zip(&self.all).filter(|(_, t)| t.count == 0).map(|(at, _)| at).collect();
        self.free.reverse();
        for number in &self.free {
            let id = self.all[*number as usize - 1].id;
            if self.by_id.get(&id) == Some(number) {
                self.by_id.remove(&id);
            }
        }
    }

    /// A slot that target `number` (0 = none) owned is no longer its own.
    pub(crate) fn left(&mut self, number: u32) {
        let Some(at) = (number as usize).checked_sub(1) else { return };
        let target = &mut self.all[at];
        target.count -= 1;
        if target.count == 0 {
            self.by_id.remove(&target.id);
            *target = Target::default();
            // Kept in descending order, so that the lowest is taken first: also after a reload.
            let place = self.free.partition_point(|f| *f > number);
            self.free.insert(place, number);
        }
    }

    fn number(&mut self, id: u64) -> u32 {
        if let Some(number) = self.by_id.get(&id) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(Target::default());
            self.all.len() as u32
        });
        self.all[number as usize - 1] = Target { id, last: i64::MIN, ..Target::default() };
        self.by_id.insert(id, number);
        number
    }

    /// Takes note of a complete scrape of target `id` at `timestamp` that had the slots `seen` (a bitmap for each
    /// source, ascending), and gives the slots that want a staleness marker, ascending.
    pub(crate) fn scraped(
        &mut self,
        id: u64,
        timestamp: i64,
        seen: &[(u32, Vec<u64>)],
        sources: &mut [Source],
    ) -> Vec<SlotId> {
        if self.last(id).is_some_and(|last| last >= timestamp) {
            return Vec::new();
        }
        let nothing_seen = seen.iter().all(|(_, bits)| bits.iter().all(|w| *w == 0));
        if nothing_seen && !self.by_id.contains_key(&id) {
            return Vec::new();
        }
        let number = self.number(id);
        self.all[number as usize - 1].last = timestamp;
        let mut n_seen = 0;
        for (source, bits) in seen {
            let mut any = false;
            for slot in ones(bits) {
                let Some(state) = sources[*source as usize].slots.get_mut(slot as usize) else { continue };
                n_seen += 1;
                any = true;
                if state.target != number {
                    let before = std::mem::replace(&mut state.target, number);
                    self.all[number as usize - 1].count += 1;
                    self.left(before);
                }
            }
            let target = &mut self.all[number as usize - 1];
            if any && let Err(at) = target.sources.binary_search(source) {
                target.sources.insert(at, *source);
            }
        }
        let mut missing = Vec::new();
        if self.all[number as usize - 1].count != n_seen {
            let mut kept = Vec::new();
            for source in std::mem::take(&mut self.all[number as usize - 1].sources) {
                let bits = seen.iter().find(|(s, _)| *s == source).map_or(&[][..], |(_, bits)| bits);
                let mut owns = false;
                for (slot, state) in (0u32..).zip(&mut sources[source as usize].slots) {
                    if state.target != number {
                        continue;
                    }
                    if bits.get(slot as usize / 64).is_some_and(|w| w >> (slot % 64) & 1 == 1) {
                        owns = true;
                        continue;
                    }
                    state.target = 0;
                    self.all[number as usize - 1].count -= 1;
                    missing.push((
                        source,
                        slot,
                        state.last < timestamp && !is_stale(f64::from_bits(state.bits)),
                    ));
                }
                if owns {
                    kept.push(source);
                }
            }
            let target = &mut self.all[number as usize - 1];
            target.sources = kept;
            if target.count == 0 {
                target.count = 1;
                self.left(number);
            }
        }
        missing.into_iter().filter(|(.., wanted)| *wanted).map(|(source, slot, _)| (source, slot)).collect()
    }
}

/// The positions of the set bits, ascending.
pub(crate) fn ones(bits: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0u32..).zip(bits).flat_map(|(word, bits)| {
        let mut rest = *bits;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                word * 64 + bit
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_wants_a_marker_once() {
        let mut sources = vec![Source::new(0, 1), Source::new(0, 2)];
        for source in &mut sources {
            source.reserve_slot(69);
            for slot in &mut source.slots {
                slot.last = 100;
            }
        }
        let mut targets = Targets::default();
        let both = [(0, vec![0b111, 1]), (1, vec![1])];
        assert_eq!(targets.scraped(9, 100, &both, &mut sources), []);
        assert_eq!(targets.scraped(9, 115, &[(0, vec![0b101])], &mut sources), [(0, 1), (0, 64), (1, 0)]);
        assert_eq!(targets.scraped(9, 115, &[], &mut sources), [], "not newer");
        assert_eq!(
            targets.scraped(7, 116, &[(0, vec![0b1])], &mut sources),
            [],
            "another target takes a slot over"
        );
        assert_eq!(targets.scraped(9, 130, &[], &mut sources), [(0, 2)], "the end of a target");
        assert_eq!(targets.last(9), None);
        assert_eq!(targets.iter().collect::<Vec<_>>(), [(2, 7, 116)]);
        assert_eq!(targets.scraped(11, 140, &[(1, vec![2])], &mut sources), []);
        assert_eq!(targets.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2], "numbers are used again");
    }
}
