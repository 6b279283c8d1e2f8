//! The index that grows and shrinks: label pairs interned once, the values of a name kept sorted but for a short
//! tail of new ones, so that inserting stays cheap and reading needs no lock and no sorting of everything.

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::labels::push_pair;
use model::{Labels, Matcher};
use roaring::RoaringBitmap;

use super::forward::Forward;
use super::postings::{Ids, Postings};
use super::query::{self, View};
use super::{IndexError, SeriesIndex, seal};

/// A name with fewer new values than this does not sort them in.
const MIN_FRESH: usize = 32;

/// The index of a growing set of series.
///
/// About 25 bytes a series with ten ordinary labels, and about 90 bytes and its text for each distinct label pair.
#[derive(Clone, Debug, Default)]
pub struct MemIndex {
    names: Vec<Name>,
    name_numbers: HashMap<Box<str>, u32>,
    pairs: Vec<Pair>,
    /// Numbers of pairs that are not used.
    free: Vec<u32>,
    pair_numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    all: RoaringBitmap,
    forward: Forward,
    text_bytes: usize,
    /// Series inserted since bitmaps were last made small.
    unoptimized: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: Box<str>,
    /// Pairs, ascending by value.
    sorted: Vec<u32>,
    /// Pairs that came later, in any order.
    fresh: Vec<u32>,
}

impl Name {
    pub(super) fn values(&self) -> usize {
        self.sorted.len() + self.fresh.len()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) name: u32,
    pub(super) value: Box<str>,
    pub(super) postings: Postings,
}

impl MemIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of series.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Number of distinct label pairs.
    pub fn label_pairs(&self) -> usize {
        self.pair_numbers.len()
    }

    /// Adds the series `ordinal`. One that is already there keeps its labels. Ascending ordinals are the cheapest;
    /// memory grows with the highest one (8 bytes for each 256).
    pub fn insert(&mut self, ordinal: u32, labels: &Labels) {
        if !self.all.insert(ordinal) {
            return;
        }
        let mut pairs = [0u32; 32];
        let mut len = 0;
        let mut more = Vec::new();
        for (name, value) in labels {
            let number = self.pair(name, value);
            self.pairs[number as usize].postings.insert(ordinal);
            match pairs.get_mut(len) {
                Some(slot) => {
                    *slot = number;
                    len += 1;
                }
                None if more.is_empty() => {
                    more.extend_from_slice(&pairs);
                    more.push(number);
                }
                None => more.push(number),
            }
        }
        self.forward.insert(ordinal, if more.is_empty() { &pairs[..len] } else { &more });
        self.unoptimized += 1;
        if self.unoptimized >= 1024 && self.unoptimized * 4 >= self.all.len() {
            self.optimize();
        }
    }

    /// Brings the bitmaps into their smallest form. Happens by itself each time the index has grown by a third.
    pub fn optimize(&mut self) {
        self.unoptimized = 0;
        self.all.optimize();
        for pair in &mut self.pairs {
            pair.postings.optimize();
        }
    }

    /// Removes the series `ordinal` and says whether it was there. For many, [`Self::remove_all`] is cheaper.
    pub fn remove(&mut self, ordinal: u32) -> bool {
        let known = self.all.contains(ordinal);
        if known {
            self.remove_all(&RoaringBitmap::from_iter([ordinal]));
        }
        known
    }

    /// Removes these series, and what of names and values only they had.
    pub fn remove_all(&mut self, ordinals: &RoaringBitmap) {
        let ordinals = ordinals & &self.all;
        let mut touched: Vec<u32> = Vec::new();
        for ordinal in &ordinals {
            touched.extend(self.forward.pairs(ordinal));
            self.forward.remove(ordinal);
        }
        self.all -= &ordinals;
        touched.sort_unstable();
        touched.dedup();
        let mut names = Vec::new();
        for number in touched {
            let pair = &mut self.pairs[number as usize];
            pair.postings.remove_all(&ordinals);
            if pair.postings.is_empty() {
                let hash = hash(&self.hasher, pair.name, &pair.value);
                if let Ok(entry) = self.pair_numbers.find_entry(hash, |n| *n == number) {
                    entry.remove();
                }
                names.push(pair.name);
                self.free.push(number);
                self.text_bytes -= pair.value.len();
                pair.value = Box::default();
            }
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            let pairs = &self.pairs;
            let name = &mut self.names[name as usize];
            for list in [&mut name.sorted, &mut name.fresh] {
                list.retain(|number| !pairs[*number as usize].postings.is_empty());
            }
        }
    }

    /// Appends the sealed form, see [`super::SealedIndex`].
    pub fn seal(&self, out: &mut Vec<u8>) -> Result<(), IndexError> {
        seal::seal(self, out)
    }

    pub(super) fn pairs_in_use(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| !pair.postings.is_empty())
    }

    pub(super) fn names_in_use(&self) -> impl Iterator<Item = (u32, &Name)> {
        (0..).zip(&self.names).filter(|(_, name)| name.values() > 0)
    }

    pub(super) fn series_bitmap(&self) -> &RoaringBitmap {
        &self.all
    }

    pub(super) fn pair_at(&self, number: u32) -> &Pair {
        &self.pairs[number as usize]
    }

    /// The pairs of a series, in the order of the labels' names.
    pub(super) fn pairs_of(&self, ordinal: u32) -> impl Iterator<Item = u32> + '_ {
        self.forward.pairs(ordinal)
    }

    /// All pairs of a name, ascending by value.
    pub(super) fn sorted_values(&self, name: &Name) -> Vec<u32> {
        self.merged(name, "")
    }

    /// The number of the pair, made if it is new.
    #[allow(clippy::cast_possible_truncation, reason = "2^32 pairs would not fit into memory")]
    fn pair(&mut self, name: &str, value: &str) -> u32 {
        let name_number = match self.name_numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.names.len() as u32;
                self.names.push(Name { text: name.into(), sorted: Vec::new(), fresh: Vec::new() });
                self.name_numbers.insert(name.into(), number);
                self.text_bytes += name.len();
                number
            }
        };
        let hash_of_pair = hash(&self.hasher, name_number, value);
        let pairs = &self.pairs;
        let same = |number: &u32| {
            let pair = &pairs[*number as usize];
            pair.name == name_number && *pair.value == *value
        };
        if let Some(number) = self.pair_numbers.find(hash_of_pair, same) {
            return *number;
        }
        let pair = Pair { name: name_number, value: value.into(), postings: Postings::None };
        let number = match self.free.pop() {
            Some(number) => {
                self.pairs[number as usize] = pair;
                number
            }
            None => {
                self.pairs.push(pair);
                (self.pairs.len() - 1) as u32
            }
        };
        self.text_bytes += value.len();
        let (pairs, hasher) = (&self.pairs, &self.hasher);
        self.pair_numbers.insert_unique(hash_of_pair, number, |n| {
            let pair = &pairs[*n as usize];
            hash(hasher, pair.name, &pair.value)
        });
        let name = &mut self.names[name_number as usize];
        let last = name.sorted.last().map(|last| &*pairs[*last as usize].value);
        if name.fresh.is_empty() && last.is_none_or(|last| last < value) {
            name.sorted.push(number);
            return number;
        }
        name.fresh.push(number);
        if name.fresh.len() > MIN_FRESH && name.fresh.len() * 8 > name.sorted.len() {
            let name = &self.names[name_number as usize];
            let sorted = self.merged(name, "");
            let name = &mut self.names[name_number as usize];
            name.sorted = sorted;
            name.fresh.clear();
        }
        number
    }

    /// The pairs of `name` whose values start with `prefix`, ascending by value.
    fn merged(&self, name: &Name, prefix: &str) -> Vec<u32> {
        let value = |number: u32| &*self.pairs[number as usize].value;
        let start = name.sorted.partition_point(|n| value(*n) < prefix);
        let len = name.sorted[start..].partition_point(|n| value(*n).starts_with(prefix));
        let sorted = &name.sorted[start..start + len];
        let mut fresh: Vec<u32> =
            name.fresh.iter().copied().filter(|n| value(*n).starts_with(prefix)).collect();
        fresh.sort_unstable_by(|a, b| value(*a).cmp(value(*b)));
        let mut merged = Vec::with_capacity(sorted.len() + fresh.len());
        let mut rest = sorted;
        for number in fresh {
            let before = rest.partition_point(|n| value(*n) < value(number));
            merged.extend_from_slice(&rest[..before]);
            merged.push(number);
            rest = &rest[before..];
        }
        merged.extend_from_slice(rest);
        merged
    }
}

fn hash(hasher: &DefaultHashBuilder, name: u32, value: &str) -> u64 {
    hasher.hash_one((name, value))
}

impl View for MemIndex {
    const PAIRS_COST: u64 = 1;

    fn series(&self) -> &RoaringBitmap {
        &self.all
    }

    fn name(&self, name: &str) -> Result<Option<u32>, IndexError> {
        Ok(self.name_numbers.get(name).copied().filter(|n| self.names[*n as usize].values() > 0))
    }

    fn visit_names(&self, each: &mut dyn FnMut(u32, &str)) -> Result<(), IndexError> {
        let mut names: Vec<(u32, &Name)> = self.names_in_use().collect();
        names.sort_unstable_by(|a, b| a.1.text.cmp(&b.1.text));
        for (number, name) in names {
            each(number, &name.text);
        }
        Ok(())
    }

    fn values(&self, name: u32) -> Result<usize, IndexError> {
        Ok(self.names[name as usize].values())
    }

    fn find(&self, name: u32, value: &str) -> Result<Option<Ids<'_>>, IndexError> {
        let hash = hash(&self.hasher, name, value);
        let same = |number: &u32| {
            let pair = &self.pairs[*number as usize];
            pair.name == name && *pair.value == *value
        };
        Ok(self.pair_numbers.find(hash, same).map(|number| self.pairs[*number as usize].postings.ids()))
    }

    fn visit_values<'s>(
        &'s self,
        name: u32,
        prefix: &str,
        each: &mut query::EachValue<'_, 's>,
    ) -> Result<(), IndexError> {
        for number in self.merged(&self.names[name as usize], prefix) {
            let pair = &self.pairs[number as usize];
            if !each(&pair.value, &|| Ok(pair.postings.ids()))? {
                break;
            }
        }
        Ok(())
    }

    fn value(&self, _name: u32, value: u32) -> Result<Cow<'_, str>, IndexError> {
        Ok(Cow::Borrowed(&self.pairs[value as usize].value))
    }

    fn visit_pairs(&self, within: &RoaringBitmap, each: &mut query::EachPairs<'_>) -> Result<(), IndexError> {
        let mut pairs = Vec::new();
        for ordinal in within {
            pairs.clear();
            pairs.extend(self.forward.pairs(ordinal).map(|n| (self.pairs[n as usize].name, n)));
            if (!pairs.is_empty() || self.all.contains(ordinal)) && !each(ordinal, &pairs)? {
                break;
            }
        }
        Ok(())
    }
}

impl SeriesIndex for MemIndex {
    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Borrowed(&self.all)
    }

    fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, IndexError> {
        query::select(self, matchers)
    }

    fn label_names(&self, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError> {
        query::label_names(self, within)
    }

    fn label_values(&self, name: &str, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError> {
        query::label_values(self, name, within)
    }

    fn visit_labels(
        &self,
        within: &RoaringBitmap,
        each: &mut dyn FnMut(u32, Labels) -> bool,
    ) -> Result<(), IndexError> {
        let mut bytes = Vec::new();
        for ordinal in within {
            if !self.all.contains(ordinal) {
                continue;
            }
            bytes.clear();
            for number in self.forward.pairs(ordinal) {
                let pair = &self.pairs[number as usize];
                push_pair(&mut bytes, &self.names[pair.name as usize].text, &pair.value);
            }
            let labels = Labels::from_canonical(&bytes).map_err(|_| IndexError::Format("label set"))?;
            if !each(ordinal, labels) {
                break;
            }
        }
        Ok(())
    }

    fn memory(&self) -> usize {
        let postings: usize = self.pairs.iter().map(|pair| size_of::<Pair>() + pair.postings.memory()).sum();
        let lists: usize = self
            .names
            .iter()
            .map(|n| (n.sorted.capacity() + n.fresh.capacity()) * 4 + size_of::<Name>() + 48)
            .sum();
        // A boxed text costs about 16 bytes more than its length.
        let texts = self.text_bytes + 16 * (self.pairs.len() + self.names.len());
        let table = self.pair_numbers.capacity() * 6;
        self.forward.memory() + self.all.serialized_size() + postings + lists + texts + table
    }
}
