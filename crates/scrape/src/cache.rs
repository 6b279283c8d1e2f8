//! What one target's series text meant at its last scrapes, so that a steady scrape parses and sorts no labels.
//!
//! Targets repeat their order: the entry after the last one found is tried first, by comparing bytes; only when the
//! order changed is the text hashed. The entries' canonical labels lie in one buffer that a batch copies whole.
//! When an entry is forgotten follows upstream's `scrapeCache`.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::{Labels, MetricKind, MetricMetadata};

/// The most bytes of labels that one target's series may have together: a hostile target with a body within its
/// limit must not take the node's memory by the labels that are added to each series.
pub(crate) const MAX_LABEL_BYTES: usize = 256 << 20;

/// Scrapes for which metadata is kept after it was last seen.
const METADATA_SCRAPES: u64 = 10;

/// What a series text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Metric relabelling drops it.
    Dropped,
    /// A series: where its labels lie.
    Kept {
        /// Start in [`SeriesCache::label_bytes`].
        start: u32,
        /// End.
        end: u32,
        /// Whether this scrape had it already.
        repeated: bool,
    },
}

struct Entry {
    text: Box<str>,
    kind: u8,
    dropped: bool,
    labels: Range<u32>,
    last_scrape: u64,
}

/// See the module's header.
#[derive(Default)]
pub(crate) struct SeriesCache {
    scrape: u64,
    entries: Vec<Entry>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Entries in the order of the last scrape, and of this one.
    order: Vec<u32>,
    new_order: Vec<u32>,
    at: usize,
    /// Entries seen in this scrape.
    seen: usize,
    label_bytes: Vec<u8>,
    live_bytes: usize,
    count_at_success: usize,
    metadata: HashMap<String, Metadata>,
    unsent: bool,
}

struct Metadata {
    value: Arc<MetricMetadata>,
    last_scrape: u64,
    sent: bool,
}

/// The kinds under which the same text means different labels.
fn kind_class(kind: MetricKind) -> u8 {
    match kind {
        MetricKind::Histogram => 1,
        MetricKind::Summary => 2,
        _ => 0,
    }
}

impl SeriesCache {
    /// Begins a scrape.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
        self.at = 0;
        self.seen = 0;
        self.new_order.clear();
    }

    /// How many series the last scrape had, about.
    pub(crate) fn len_hint(&self) -> usize {
        self.order.len()
    }

    /// Bytes that the ranges of [`Meaning::Kept`] point into.
    pub(crate) fn label_bytes(&self) -> &[u8] {
        &self.label_bytes
    }

    /// What `text` means, if an earlier scrape or an earlier line had it.
    pub(crate) fn get(&mut self, text: &str, kind: MetricKind) -> Option<Meaning> {
        let class = kind_class(kind);
        let is = |entry: &Entry| entry.kind == class && *entry.text == *text;
        let predicted = self.order.get(self.at).copied();
        let slot = match predicted {
            Some(slot) if is(&self.entries[slot as usize]) => slot,
            _ => {
                let hash = self.hasher.hash_one((class, text));
                let found = self.index.find(hash, |slot| is(&self.entries[*slot as usize])).copied()?;
                // The target may have left series out or put some in: go on after the one found.
                if let Some(ahead) =
                    self.order[self.at.min(self.order.len())..].iter().take(64).position(|s| *s == found)
                {
                    self.at += ahead;
                }
                found
            }
        };
        if self.order.get(self.at) == Some(&slot) {
            self.at += 1;
        }
        let entry = &mut self.entries[slot as usize];
        let repeated = entry.last_scrape == self.scrape;
        entry.last_scrape = self.scrape;
        if !repeated {
            self.seen += 1;
            self.new_order.push(slot);
        }
        let Range { start, end } = entry.labels;
        Some(if entry.dropped { Meaning::Dropped } else { Meaning::Kept { start, end, repeated } })
    }

    /// Remembers that `text` means `labels`, or (with `None`) that it is dropped. `None` when there is no room for
    /// the labels.
    pub(crate) fn insert(
        &mut self,
        text: &str,
        kind: MetricKind,
        labels: Option<&Labels>,
    ) -> Option<Range<u32>> {
        let bytes = labels.map_or(&[][..], Labels::as_bytes);
        if self.label_bytes.len() + bytes.len() > MAX_LABEL_BYTES {
            return None;
        }
        let start = self.label_bytes.len() as u32;
        self.label_bytes.extend_from_slice(bytes);
        self.live_bytes += bytes.len();
        let range = start..self.label_bytes.len() as u32;
        let slot = self.entries.len() as u32;
        let class = kind_class(kind);
        self.entries.push(Entry {
            text: text.into(),
            kind: class,
            dropped: labels.is_none(),
            labels: range.clone(),
            last_scrape: self.scrape,
        });
        let entries = &self.entries;
        let hasher = &self.hasher;
        let rehash =
            |slot: &u32| hasher.hash_one((entries[*slot as usize].kind, &*entries[*slot as usize].text));
        self.index.insert_unique(hasher.hash_one((class, text)), slot, rehash);
        self.seen += 1;
        self.new_order.push(slot);
        Some(range)
    }

    /// Ends a scrape. After a good one (`flush`), what it did not have is forgotten; after a bad one only when the
    /// cache has grown beyond measure. True when it was flushed for that.
    pub(crate) fn finish(&mut self, flush: bool) -> bool {
        let count = self.entries.len() + self.metadata.len();
        let forced = !flush && count > self.count_at_success * 2 + 1000;
        if flush {
            self.count_at_success = count;
        }
        if flush || forced {
            std::mem::swap(&mut self.order, &mut self.new_order);
            let scrape = self.scrape;
            self.metadata.retain(|_, metadata| scrape - metadata.last_scrape <= METADATA_SCRAPES);
            if self.seen < self.entries.len() {
                self.forget_unseen();
            }
        }
        forced
    }

    /// Keeps the entries of this scrape only, in its order.
    fn forget_unseen(&mut self) {
        let mut old: Vec<Option<Entry>> = std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        let old_bytes = std::mem::take(&mut self.label_bytes);
        self.index.clear();
        for slot in &mut self.order {
            let Some(mut entry) = old[*slot as usize].take() else { continue };
            let start = self.label_bytes.len() as u32;
            self.label_bytes
                .extend_from_slice(&old_bytes[entry.labels.start as usize..entry.labels.end as usize]);
            entry.labels = start..self.label_bytes.len() as u32;
            *slot = self.entries.len() as u32;
            self.entries.push(entry);
        }
        self.live_bytes = self.label_bytes.len();
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash =
            |slot: &u32| hasher.hash_one((entries[*slot as usize].kind, &*entries[*slot as usize].text));
        for slot in 0..entries.len() as u32 {
            self.index.insert_unique(rehash(&slot), slot, rehash);
        }
        self.index.shrink_to_fit(rehash);
    }

    /// Notes a piece of metadata of `family`: `known` says whether it is there already, `change` puts it in.
    pub(crate) fn note(
        &mut self,
        family: &str,
        known: impl FnOnce(&MetricMetadata) -> bool,
        change: impl FnOnce(&mut MetricMetadata),
    ) {
        if !self.metadata.contains_key(family) {
            let value = MetricMetadata { family: family.to_owned(), ..MetricMetadata::default() };
            self.metadata
                .insert(family.to_owned(), Metadata { value: Arc::new(value), last_scrape: 0, sent: false });
            self.unsent = true;
        }
        if let Some(metadata) = self.metadata.get_mut(family) {
            metadata.last_scrape = self.scrape;
            if !known(&metadata.value) {
                // What the targets page holds of it stays as it was until it asks again.
                change(Arc::make_mut(&mut metadata.value));
                metadata.sent = false;
                self.unsent = true;
            }
        }
    }

    /// The metadata that has not been taken since it changed.
    pub(crate) fn take_unsent(&mut self) -> Vec<MetricMetadata> {
        if !std::mem::take(&mut self.unsent) {
            return Vec::new();
        }
        let unsent = self.metadata.values_mut().filter(|metadata| !metadata.sent);
        unsent
            .map(|metadata| {
                metadata.sent = true;
                MetricMetadata::clone(&metadata.value)
            })
            .collect()
    }

    /// How many families have metadata.
    pub(crate) fn metadata_len(&self) -> usize {
        self.metadata.len()
    }

    /// The metadata of all families, by family.
    pub(crate) fn metadata(&self) -> Vec<Arc<MetricMetadata>> {
        let mut all: Vec<_> = self.metadata.values().map(|metadata| Arc::clone(&metadata.value)).collect();
        all.sort_by(|a, b| a.family.cmp(&b.family));
        all
    }

    /// All metadata has to be sent again: a write failed.
    pub(crate) fn resend_metadata(&mut self) {
        for metadata in self.metadata.values_mut() {
            metadata.sent = false;
        }
        self.unsent = !self.metadata.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: MetricKind = MetricKind::Gauge;

    fn scrape(cache: &mut SeriesCache, texts: &[&str], good: bool) -> String {
        cache.begin();
        let mut out = Vec::new();
        for text in texts {
            match cache.get(text, KIND) {
                Some(Meaning::Dropped) => out.push("-".to_owned()),
                Some(Meaning::Kept { start, end, repeated }) => {
                    let labels =
                        Labels::from_canonical(&cache.label_bytes()[start as usize..end as usize]).unwrap();
                    assert_eq!(labels.metric_name(), *text);
                    out.push(if repeated { "again" } else { "known" }.to_owned());
                }
                None => {
                    let labels = Labels::from_pairs([(model::METRIC_NAME, *text)]).unwrap();
                    cache.insert(text, KIND, (!text.starts_with('d')).then_some(&labels)).unwrap();
                    out.push("new".to_owned());
                }
            }
        }
        cache.finish(good);
        out.join(" ")
    }

    #[test]
    fn texts_are_known_from_the_scrape_before() {
        let mut cache = SeriesCache::default();
        assert_eq!(scrape(&mut cache, &["a", "b", "c", "d"], true), "new new new new");
        assert_eq!(scrape(&mut cache, &["a", "b", "c", "d"], true), "known known known -");
        assert_eq!(scrape(&mut cache, &["c", "a", "a", "x", "b"], true), "known known again new known");
        assert_eq!(scrape(&mut cache, &["d", "x"], true), "new known");
        assert_eq!(scrape(&mut cache, &["a"], false), "new");
        assert_eq!(scrape(&mut cache, &["x", "d", "a"], true), "known - known");
    }

    #[test]
    fn bad_scrapes_do_not_make_it_grow_without_bound() {
        let mut cache = SeriesCache::default();
        let mut forced = 0;
        for round in 0..50 {
            cache.begin();
            for i in 0..100 {
                let text = format!("m{round}_{i}");
                let labels = Labels::from_pairs([(model::METRIC_NAME, &text)]).unwrap();
                cache.insert(&text, KIND, Some(&labels)).unwrap();
            }
            forced += usize::from(cache.finish(false));
        }
        assert!(forced > 0 && cache.entries.len() <= 1100, "{forced} {}", cache.entries.len());
        assert_eq!(cache.index.len(), cache.entries.len());
    }

    #[test]
    fn metadata_is_sent_when_it_changes() {
        let mut cache = SeriesCache::default();
        let help = |cache: &mut SeriesCache, text: &str| {
            cache.begin();
            cache.note("m", |m| m.help == text, |m| m.help = text.to_owned());
            cache.finish(true);
            cache.take_unsent().len()
        };
        assert_eq!(help(&mut cache, "x"), 1);
        assert_eq!(help(&mut cache, "x"), 0);
        assert_eq!(help(&mut cache, "y"), 1);
        cache.resend_metadata();
        assert_eq!(help(&mut cache, "y"), 1);
    }
}
