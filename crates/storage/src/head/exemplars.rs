//! The exemplars of a shard: for each tenant the newest ones, a bounded number of them, in the order in which they came
//! (upstream's `tsdb/exemplar.go`, whose rules for repeated and out-of-order ones these are). The oldest gives way to
//! the next. Each has a place in the database of its own (its number modulo the bound), so that a flush writes only new
//! ones over old ones.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use model::{Exemplar, TimeRange};

/// The most exemplars that a shard keeps of a tenant.
pub(crate) const MAX_EXEMPLARS: usize = 16 << 10;

/// An exemplar with its number (counted over the tenant's exemplars) and its series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) reference: u64,
    pub(crate) exemplar: Exemplar,
}

/// What becomes of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is new.
    New,
    /// It is there already.
    Repeated,
    /// Its series has a newer one.
    OutOfOrder,
}

/// The exemplars of all tenants.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    tenants: BTreeMap<u32, Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    /// Ascending numbers.
    all: VecDeque<Numbered>,
    /// Numbers by series, ascending; also in time.
    by_series: HashMap<u64, VecDeque<u64>>,
}

impl Ring {
    fn get(&self, number: u64) -> Option<&Exemplar> {
        let first = self.all.front()?.number;
        let found = self.all.get(usize::try_from(number.checked_sub(first)?).ok()?)?;
        (found.number == number).then_some(&found.exemplar)
    }

    fn push(&mut self, reference: u64, exemplar: Exemplar) -> u64 {
        if self.all.len() >= MAX_EXEMPLARS {
            self.drop_oldest();
        }
        let number = self.next;
        self.next += 1;
        self.by_series.entry(reference).or_default().push_back(number);
        self.all.push_back(Numbered { number, reference, exemplar });
        number
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.all.pop_front() else { return };
        if let Some(numbers) = self.by_series.get_mut(&oldest.reference) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_series.remove(&oldest.reference);
            }
        }
    }
}

impl Exemplars {
    /// What would become of `exemplar` of series `reference`: repeated when the series has the same, out of order when
    /// its newest comes later by (time, value, labels).
    pub(crate) fn judge(&self, tenant: u32, reference: u64, exemplar: &Exemplar) -> Judgement {
        let Some(ring) = self.tenants.get(&tenant) else { return Judgement::New };
        let Some(numbers) = ring.by_series.get(&reference) else { return Judgement::New };
        let newest_first = || numbers.iter().rev().filter_map(|number| ring.get(*number));
        let same = |other: &Exemplar| {
            other.timestamp == exemplar.timestamp
                && other.value.to_bits() == exemplar.value.to_bits()
                && other.labels == exemplar.labels
        };
        if newest_first().take_while(|other| other.timestamp >= exemplar.timestamp).any(same) {
            return Judgement::Repeated;
        }
        let Some(newest) = newest_first().next() else { return Judgement::New };
        let is_older = exemplar.timestamp < newest.timestamp
            || exemplar.timestamp == newest.timestamp
                && (exemplar.value < newest.value
                    || exemplar.value == newest.value && exemplar.labels < newest.labels);
        if is_older { Judgement::OutOfOrder } else { Judgement::New }
    }

    /// Adds a new exemplar and gives its number.
    pub(crate) fn push(&mut self, tenant: u32, reference: u64, exemplar: Exemplar) -> u64 {
        self.tenants.entry(tenant).or_default().push(reference, exemplar)
    }

    /// The exemplar with that number, if it has not given way.
    pub(crate) fn get(&self, tenant: u32, number: u64) -> Option<&Numbered> {
        let ring = self.tenants.get(&tenant)?;
        let first = ring.all.front()?.number;
        ring.all.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// The exemplars of `tenant` with timestamps in `range`, in the order in which they came.
    pub(crate) fn in_range(&self, tenant: u32, range: TimeRange) -> impl Iterator<Item = &Numbered> {
        let all = self.tenants.get(&tenant).into_iter().flat_map(|ring| &ring.all);
        all.filter(move |numbered| range.contains(numbered.exemplar.timestamp))
    }

    /// For loading: all exemplars of a tenant, in any order. A gap (a damaged one was moved away) is closed by giving up
    /// what came before it.
    pub(crate) fn load(&mut self, tenant: u32, mut all: Vec<Numbered>) {
        all.sort_by_key(|numbered| numbered.number);
        let mut ring = Ring::default();
        for numbered in all {
            if ring.next != numbered.number {
                ring = Ring { next: numbered.number, ..Ring::default() };
            }
            ring.push(numbered.reference, numbered.exemplar);
        }
        self.tenants.insert(tenant, ring);
    }

    /// Bytes of memory in use, roughly.
    pub(crate) fn memory(&self) -> usize {
        let of_ring = |ring: &Ring| {
            ring.all
                .iter()
                .map(|n| size_of::<Numbered>() + n.exemplar.labels.as_bytes().len() + 8)
                .sum::<usize>()
                + ring.by_series.capacity() * 48
        };
        self.tenants.values().map(of_ring).sum()
    }
}

/// The place of exemplar `number` among those that are stored.
pub(crate) fn position(number: u64) -> u32 {
    (number % MAX_EXEMPLARS as u64) as u32
}

#[cfg(test)]
mod tests {
    use model::Labels;

    use super::*;

    fn exemplar(timestamp: i64, value: f64, id: &str) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("id", id)]).unwrap(), value, timestamp }
    }

    #[test]
    fn repeated_and_older_ones_are_told() {
        let mut all = Exemplars::default();
        let first = exemplar(10, 1.0, "a");
        assert_eq!(all.judge(0, 7, &first), Judgement::New);
        all.push(0, 7, first.clone());
        all.push(0, 7, exemplar(20, 5.0, "b"));
        assert_eq!(all.judge(0, 7, &first), Judgement::Repeated, "also an older one");
        assert_eq!(all.judge(0, 7, &exemplar(20, 5.0, "b")), Judgement::Repeated);
        assert_eq!(all.judge(0, 7, &exemplar(10, 2.0, "a")), Judgement::OutOfOrder);
        assert_eq!(all.judge(0, 7, &exemplar(20, 4.0, "b")), Judgement::OutOfOrder);
        assert_eq!(all.judge(0, 7, &exemplar(20, 5.0, "a")), Judgement::OutOfOrder);
        assert_eq!(all.judge(0, 7, &exemplar(20, 6.0, "a")), Judgement::New);
        assert_eq!(all.judge(0, 8, &first), Judgement::New, "of another series");
        assert_eq!(all.judge(1, 7, &first), Judgement::New, "of another tenant");
    }

    #[test]
    fn the_oldest_give_way() {
        let mut all = Exemplars::default();
        for i in 0..MAX_EXEMPLARS as i64 + 3 {
            all.push(0, u64::from(i >= 2), exemplar(i, 0.0, "x"));
        }
        all.push(1, 1, exemplar(0, 0.0, "x"));
        let kept: Vec<i64> = all.in_range(0, TimeRange::ALL).map(|n| n.exemplar.timestamp).collect();
        assert_eq!((kept.len(), kept[0]), (MAX_EXEMPLARS, 3));
        assert_eq!(all.get(0, 2), None);
        assert_eq!(all.get(0, 3).map(|n| n.exemplar.timestamp), Some(3));
        assert_eq!(all.judge(0, 0, &exemplar(-5, 0.0, "x")), Judgement::New, "none of that series is left");
        assert_eq!(position(MAX_EXEMPLARS as u64 + 1), 1);

        let mut stored: Vec<Numbered> = all.in_range(0, TimeRange::ALL).cloned().collect();
        stored.reverse();
        let mut loaded = Exemplars::default();
        loaded.load(0, stored);
        let again: Vec<i64> = loaded.in_range(0, TimeRange::ALL).map(|n| n.exemplar.timestamp).collect();
        assert_eq!(again, kept);
        assert_eq!(loaded.push(0, 9, exemplar(1, 1.0, "y")), MAX_EXEMPLARS as u64 + 3);
    }
}
