//! State records: a head ⇄ what of it stands in the database. Drawn in `FORMAT.md`.
//!
//! A flush takes an image of what changed under a short lock ([`FlushImage::take`]), codes it outside, and afterwards
//! drops from memory what became durable ([`FlushImage::settle`]). Loading gives the head as it was at the mark, open
//! tiles included, so that replay of the log from there makes the same decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::seam::SeriesData;
use model::{Exemplar, Labels, LogIndex, MetricKind, MetricMetadata, ReplicaId, ShardId, TimeRange};

use super::keys::{self, PageKey, StateKind};
use crate::StorageError;
use crate::codec::{DecodeError, Reader, open_record, put_bytes, put_signed, put_varint, seal_record};
use crate::entry::{decode_values, encode_values, put_histogram, read_histogram};
use crate::head::exemplars::{self, Numbered};
use crate::head::kinds::Kinds;
use crate::head::source::{
    LateSample, NEVER, NO_SERIES, Open, SealedPage, Slot, Source, TileWork, build_pages,
};
use crate::head::tile::Tile;
use crate::head::{Changes, Head, Tombstone, day_of};
use crate::kv::{Batch, Family, Kv, scan_prefix};
use crate::page::{MAX_ROWS, MAX_SERIES, PageBuilder, PageMeta, PageReader, PageScratch, SeriesInput};

/// Version of all state records.
pub(crate) const STATE_VERSION: u8 = 2;

/// What the mark record says besides the head's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) replica: u64,
    /// Whether anything was applied: index 0 is an index.
    pub(crate) any: bool,
    pub(crate) index: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A source as it was when the image was taken.
struct SourceImage {
    id: u32,
    tenant: u32,
    key: u128,
    revision: u64,
    pages: u64,
    opened: i64,
    sparse: bool,
    evicted: u32,
    gone: BTreeSet<u32>,
    slots: Vec<Slot>,
    last_set: Vec<u64>,
    tile: Option<Arc<Tile>>,
    kinds: Option<Arc<Kinds>>,
    sealed: Vec<SealedPage>,
    late: Option<Arc<Vec<LateSample>>>,
}

/// What a flush writes.
pub(crate) struct FlushImage {
    pub(crate) mark: Mark,
    mark_record: Vec<u8>,
    changes: Changes,
    sources: Vec<SourceImage>,
    series: Vec<(u64, Vec<u8>)>,
    targets: Option<Vec<u8>>,
    metadata: Vec<(Vec<u8>, Vec<u8>)>,
    tombstones: Vec<(u64, Vec<u8>)>,
    exemplars: Vec<(Vec<u8>, Vec<u8>)>,
    /// Days that get pages.
    pub(crate) days: BTreeSet<i64>,
    /// Keys of the pages.
    pub(crate) page_keys: Vec<PageKey>,
    /// Bytes of pages written.
    pub(crate) page_bytes: u64,
}

impl FlushImage {
    /// Takes what changed; the head counts as unchanged from here on.
    pub(crate) fn take(head: &mut Head, mark: Mark) -> Self {
        let changes = std::mem::take(&mut head.changes);
        let mut sources = Vec::with_capacity(changes.sources.len());
        for id in &changes.sources {
            let source = &mut head.sources[*id as usize];
            source.changed = false;
            sources.push(SourceImage {
                id: *id,
                tenant: source.tenant,
                key: source.key,
                revision: source.revision,
                pages: source.pages,
                opened: source.opened,
                sparse: source.sparse,
                evicted: source.evicted,
                gone: source.gone.clone(),
                slots: source.slots.clone(),
                last_set: source.last_set.clone(),
                tile: source.tile.clone(),
                kinds: source.kinds.clone(),
                sealed: source.sealed.clone(),
                late: source.late.clone(),
            });
        }
        let series = changes
            .series
            .iter()
            .map(|sid| (head.series.reference(*sid), series_record(head, *sid)))
            .collect();
        let targets = changes.targets.then(|| targets_record(head));
        let metadata = changes
            .metadata
            .iter()
            .filter_map(|key| Some((metadata_key(key.0, &key.1), metadata_record(head.metadata.get(key)?))))
            .collect();
        let tombstones = if changes.tombstones {
            head.tombstones.iter().map(|t| (t.index, tombstone_record(t))).collect()
        } else {
            Vec::new()
        };
        let exemplars = changes
            .exemplars
            .iter()
            .filter_map(|(tenant, number)| {
                let numbered = head.exemplars.get(*tenant, *number)?;
                Some((exemplar_key(*tenant, *number), exemplar_record(numbered)))
            })
            .collect();
        let mark_record = mark_record(head, &mark);
        Self {
            mark,
            mark_record,
            changes,
            sources,
            series,
            targets,
            metadata,
            tombstones,
            exemplars,
            days: BTreeSet::new(),
            page_keys: Vec::new(),
            page_bytes: 0,
        }
    }

    /// Codes everything into one batch.
    pub(crate) fn batch(&mut self, shard: ShardId) -> Batch {
        let mut batch = Batch::default();
        let mut work = TileWork::default();
        let mut builder = PageBuilder::new();
        for source in &self.sources {
            for page in &source.sealed {
                let key = PageKey {
                    day: page.day,
                    shard: shard.0,
                    source: source.id,
                    group: page.group,
                    late: false,
                    min_time: page.min_time,
                    max_time: page.max_time,
                    number: page.number,
                };
                self.days.insert(page.day);
                self.page_bytes += page.bytes.len() as u64;
                self.page_keys.push(key);
                batch.put(Family::Pages, key.encode(), page.bytes.to_vec());
            }
            if let Some(late) = &source.late {
                late_pages(late, self.mark.index, &mut builder, |day, group, (min_time, max_time), bytes| {
                    let key = PageKey {
                        day,
                        shard: shard.0,
                        source: source.id,
                        group,
                        late: true,
                        min_time,
                        max_time,
                        number: self.mark.index,
                    };
                    self.days.insert(day);
                    self.page_bytes += bytes.len() as u64;
                    self.page_keys.push(key);
                    batch.put(Family::Pages, key.encode(), bytes);
                });
            }
            let key = keys::state32(shard, StateKind::Source, source.id);
            batch.put(Family::State, key, source_record(source, &mut work));
        }
        for (reference, record) in std::mem::take(&mut self.series) {
            batch.put(Family::State, keys::state64(shard, StateKind::Series, reference), record);
        }
        if let Some(record) = self.targets.take() {
            batch.put(Family::State, keys::state(shard, StateKind::Targets), record);
        }
        for (suffix, record) in std::mem::take(&mut self.metadata) {
            let mut key = keys::state(shard, StateKind::Metadata);
            key.extend_from_slice(&suffix);
            batch.put(Family::State, key, record);
        }
        for (index, record) in std::mem::take(&mut self.tombstones) {
            batch.put(Family::State, keys::state64(shard, StateKind::Tombstone, index), record);
        }
        for (suffix, record) in std::mem::take(&mut self.exemplars) {
            let mut key = keys::state(shard, StateKind::Exemplar);
            key.extend_from_slice(&suffix);
            batch.put(Family::State, key, record);
        }
        batch.put(Family::State, keys::state(shard, StateKind::Mark), std::mem::take(&mut self.mark_record));
        batch
    }

    /// After the batch became durable: drops what it holds from memory, and gives the keys of its pages.
    pub(crate) fn settle(self, head: &mut Head) -> Vec<PageKey> {
        for image in self.sources {
            let source = &mut head.sources[image.id as usize];
            source.sealed.retain(|page| page.number >= image.pages);
            if source.sealed.is_empty() {
                source.sealed = Vec::new();
            }
            if image.late.is_some() {
                let rest: Vec<LateSample> = source
                    .late
                    .iter()
                    .flat_map(|l| l.iter())
                    .filter(|s| s.sequence > self.mark.index)
                    .cloned()
                    .collect();
                source.late = (!rest.is_empty()).then(|| Arc::new(rest));
            }
        }
        self.page_keys
    }

    /// After a failure: everything counts as changed again.
    pub(crate) fn restore(self, head: &mut Head) {
        for id in self.changes.sources {
            head.touch(id);
        }
        let now = &mut head.changes;
        now.series.extend(self.changes.series);
        now.metadata.extend(self.changes.metadata);
        now.exemplars.extend(self.changes.exemplars);
        now.targets |= self.changes.targets;
        now.tombstones |= self.changes.tombstones;
        now.sealed_bytes += self.changes.sealed_bytes;
        now.late_samples += self.changes.late_samples;
    }
}

/// Late samples of a source → pages by day and group, the first value at a timestamp.
fn late_pages(
    late: &[LateSample],
    index: u64,
    builder: &mut PageBuilder,
    mut give: impl FnMut(i64, u32, (i64, i64), Vec<u8>),
) {
    let mut all = late.to_vec();
    all.sort_by_key(|s| (day_of(s.timestamp), s.slot, s.timestamp, s.sequence));
    all.dedup_by_key(|s| (s.slot, s.timestamp));
    let group_of = |s: &LateSample| s.slot / MAX_SERIES as u32;
    for of_group in
        all.chunk_by(|a, b| (day_of(a.timestamp), group_of(a)) == (day_of(b.timestamp), group_of(b)))
    {
        let series: Vec<&[LateSample]> = of_group.chunk_by(|a, b| a.slot == b.slot).collect();
        let longest = series.iter().map(|s| s.len()).max().unwrap_or(0);
        for part in 0..longest.div_ceil(MAX_ROWS) {
            builder.begin(PageMeta::late(LogIndex(index)));
            for samples in &series {
                let end = samples.len().min((part + 1) * MAX_ROWS);
                let Some(samples) = samples.get(part * MAX_ROWS..end).filter(|s| !s.is_empty()) else {
                    continue;
                };
                let mut data = SeriesData::default();
                samples.iter().for_each(|sample| sample.append_to(&mut data));
                let input = SeriesInput {
                    slot: samples[0].slot,
                    stamps: &data.stamps,
                    values: &data.values,
                    histograms: &data.histograms,
                    starts: &data.starts,
                };
                let added = builder.add(&input);
                debug_assert!(added.is_ok(), "late samples keep the rules of a page");
            }
            let mut bytes = Vec::new();
            if let Ok(summary) = builder.finish(&mut bytes) {
                give(
                    day_of(of_group[0].timestamp),
                    group_of(&of_group[0]),
                    (summary.min_time, summary.max_time),
                    bytes,
                );
            }
        }
    }
}

fn mark_record(head: &Head, mark: &Mark) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, mark.replica);
    out.push(u8::from(mark.any));
    put_varint(&mut out, mark.index);
    put_bytes(&mut out, &mark.bytes);
    put_varint(&mut out, head.next_ref);
    put_signed(&mut out, head.clock);
    put_signed(&mut out, head.floor);
    put_varint(&mut out, head.epoch);
    match head.range {
        None => out.push(0),
        Some((first, last)) => {
            out.push(1);
            put_varint(&mut out, first);
            put_varint(&mut out, last);
        }
    }
    out.extend_from_slice(&head.hash.to_le_bytes());
    put_varint(&mut out, head.tenants.len() as u64);
    for tenant in &head.tenants {
        put_bytes(&mut out, tenant.as_str().as_bytes());
    }
    seal_record(STATE_VERSION, &out)
}

fn read_mark(body: &[u8], head: &mut Head) -> Result<Mark, DecodeError> {
    let mut reader = Reader::new(body);
    let mark = Mark {
        replica: reader.varint()?,
        any: reader.byte()? != 0,
        index: reader.varint()?,
        bytes: reader.bytes()?.to_vec(),
    };
    head.next_ref = reader.varint()?;
    head.clock = reader.signed()?;
    head.floor = reader.signed()?;
    head.epoch = reader.varint()?;
    head.range = match reader.byte()? {
        0 => None,
        _ => Some((reader.varint()?, reader.varint()?)),
    };
    head.hash = reader.u64()?;
    for _ in 0..reader.count(2)? {
        let name = reader.text()?;
        head.tenant(name)?;
    }
    Ok(mark)
}

fn source_record(source: &SourceImage, work: &mut TileWork) -> Vec<u8> {
    let mut out = Vec::with_capacity(source.slots.len() * 4 + 64);
    put_varint(&mut out, u64::from(source.tenant));
    out.extend_from_slice(&source.key.to_le_bytes());
    put_varint(&mut out, source.revision);
    put_varint(&mut out, source.pages);
    put_signed(&mut out, source.opened);
    out.push(u8::from(source.sparse));
    put_varint(&mut out, u64::from(source.evicted));
    put_varint(&mut out, source.gone.len() as u64);
    for slot in &source.gone {
        put_varint(&mut out, u64::from(*slot));
    }
    put_varint(&mut out, source.last_set.len() as u64);
    for word in &source.last_set {
        out.extend_from_slice(&word.to_le_bytes());
    }
    put_varint(&mut out, source.slots.len() as u64);
    let mut last = 0i64;
    for slot in &source.slots {
        put_signed(&mut out, slot.last.wrapping_sub(last));
        last = slot.last;
        put_varint(&mut out, u64::from(slot.target));
    }
    let bits: Vec<u64> = source.slots.iter().map(|s| s.bits).collect();
    encode_values(&vec![0; bits.len()], &bits, &mut out);
    let newest: Vec<_> = source.kinds.iter().flat_map(|kinds| kinds.iter()).collect();
    put_varint(&mut out, newest.len() as u64);
    for (slot, start, histogram) in newest {
        put_varint(&mut out, u64::from(slot));
        put_signed(&mut out, start);
        out.push(u8::from(histogram.is_some()));
        if let Some(histogram) = histogram {
            put_histogram(None, histogram, &mut out);
        }
    }
    match &source.tile {
        None => out.push(0),
        Some(tile) => {
            out.push(if tile.is_sparse() { 2 } else { 1 });
            put_varint(&mut out, tile.slots() as u64);
            let stamps = tile.row_stamps();
            put_varint(&mut out, stamps.len() as u64);
            let mut last = 0i64;
            for stamp in stamps {
                put_signed(&mut out, stamp.wrapping_sub(last));
                last = *stamp;
            }
            let everything = i64::MIN..=i64::MAX;
            let meta = PageMeta::in_order(LogIndex(0));
            let mut pages = Vec::new();
            let open = Open { tile, kinds: source.kinds.as_deref() };
            build_pages(open, tile.slots(), &everything, meta, work, |_, page| pages.push(page.bytes));
            put_varint(&mut out, pages.len() as u64);
            for page in pages {
                put_bytes(&mut out, &page);
            }
        }
    }
    seal_record(STATE_VERSION, &out)
}

fn read_source(body: &[u8]) -> Result<Source, DecodeError> {
    let mut reader = Reader::new(body);
    let tenant = reader.varint32("tenant")?;
    let mut source = Source::new(tenant, reader.u128()?);
    source.revision = reader.varint()?;
    source.pages = reader.varint()?;
    source.opened = reader.signed()?;
    source.sparse = reader.byte()? != 0;
    source.evicted = reader.varint32("evicted")?;
    for _ in 0..reader.count(1)? {
        source.gone.insert(reader.varint32("slot")?);
    }
    for _ in 0..reader.count(8)? {
        source.last_set.push(reader.u64()?);
    }
    let n_slots = reader.count(2)?;
    source.slots.reserve_exact(n_slots);
    let mut last = 0i64;
    for _ in 0..n_slots {
        last = last.wrapping_add(reader.signed()?);
        source.slots.push(Slot { last, target: reader.varint32("target")?, ..Slot::EMPTY });
    }
    let mut bits = Vec::with_capacity(n_slots);
    decode_values(&mut reader, &vec![0; n_slots], &mut bits)?;
    for (slot, bits) in source.slots.iter_mut().zip(bits) {
        slot.bits = bits;
    }
    for _ in 0..reader.count(3)? {
        let slot = reader.varint32("slot")?;
        if slot as usize >= n_slots {
            return Err(reader.invalid("slot"));
        }
        let start = reader.signed()?;
        let newest = match reader.byte()? {
            0 => None,
            1 => Some(Arc::new(read_histogram(&mut reader, None)?)),
            _ => return Err(reader.invalid("newest histogram")),
        };
        source.kinds_mut().load_newest(slot, start, newest);
    }
    let kind = reader.byte()?;
    if kind == 0 {
        return Ok(source);
    }
    let slots = reader.varint32("tile slots")? as usize;
    if slots > n_slots {
        return Err(reader.invalid("tile slots"));
    }
    let mut tile = Tile::new(kind == 2, slots);
    let mut stamps = Vec::new();
    let mut last = 0i64;
    for _ in 0..reader.count(1)? {
        last = last.wrapping_add(reader.signed()?);
        stamps.push(last);
    }
    tile.make_rows(&stamps);
    let mut scratch = PageScratch::new();
    let mut data = SeriesData::default();
    for _ in 0..reader.count(1)? {
        let page = PageReader::open(reader.bytes()?).map_err(|_| reader.invalid("tile page"))?;
        scratch.reset();
        for (at, series) in page.series().enumerate() {
            data.clear();
            page.read(at, TimeRange::ALL, &mut scratch, &mut data)
                .map_err(|_| reader.invalid("tile page"))?;
            if series.slot as usize >= slots {
                return Err(reader.invalid("tile slot"));
            }
            for (stamp, value) in data.stamps.iter().zip(&data.values) {
                tile.load(series.slot, *stamp, value.to_bits());
            }
            if !data.histograms.is_empty() || !data.starts.is_empty() || source.kinds.is_some() {
                source.kinds_mut().load_open(series.slot, &data);
            }
        }
    }
    source.tile = Some(Arc::new(tile));
    Ok(source)
}

fn series_record(head: &Head, sid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let (source, slot) = head.series.place(sid);
    put_varint(&mut out, u64::from(source));
    put_varint(&mut out, u64::from(slot));
    out.push(u8::from(head.series.is_evicted(sid)));
    put_bytes(&mut out, head.labels(sid).as_bytes());
    seal_record(STATE_VERSION, &out)
}

struct SeriesRecord {
    source: u32,
    slot: u32,
    evicted: bool,
    labels: Labels,
}

fn read_series(body: &[u8]) -> Result<SeriesRecord, DecodeError> {
    let mut reader = Reader::new(body);
    let (source, slot) = (reader.varint32("source")?, reader.varint32("slot")?);
    let evicted = reader.byte()? != 0;
    let labels = Labels::from_canonical(reader.bytes()?).map_err(|_| reader.invalid("labels"))?;
    Ok(SeriesRecord { source, slot, evicted, labels })
}

/// The source of a series record; `None` when it is damaged.
pub(crate) fn source_of_series(record: &[u8]) -> Option<u32> {
    read_series(open_record(STATE_VERSION, record).ok()?).ok().map(|s| s.source)
}

fn targets_record(head: &Head) -> Vec<u8> {
    let mut out = Vec::new();
    let all: Vec<_> = head.targets.iter().collect();
    put_varint(&mut out, all.len() as u64);
    for (number, id, last) in all {
        put_varint(&mut out, u64::from(number));
        out.extend_from_slice(&id.to_le_bytes());
        put_signed(&mut out, last);
    }
    seal_record(STATE_VERSION, &out)
}

fn metadata_key(tenant: u32, family: &str) -> Vec<u8> {
    let mut key = tenant.to_be_bytes().to_vec();
    key.extend_from_slice(family.as_bytes());
    key
}

fn metadata_record(item: &MetricMetadata) -> Vec<u8> {
    let mut out = vec![item.kind as u8];
    put_bytes(&mut out, item.help.as_bytes());
    put_bytes(&mut out, item.unit.as_bytes());
    seal_record(STATE_VERSION, &out)
}

fn exemplar_key(tenant: u32, number: u64) -> Vec<u8> {
    let mut key = tenant.to_be_bytes().to_vec();
    key.extend_from_slice(&exemplars::position(number).to_be_bytes());
    key
}

fn exemplar_record(numbered: &Numbered) -> Vec<u8> {
    let Numbered { number, reference, exemplar } = numbered;
    let mut out = Vec::new();
    put_varint(&mut out, *number);
    put_varint(&mut out, *reference);
    put_signed(&mut out, exemplar.timestamp);
    out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    put_bytes(&mut out, exemplar.labels.as_bytes());
    seal_record(STATE_VERSION, &out)
}

fn read_exemplar(body: &[u8]) -> Result<Numbered, DecodeError> {
    let mut reader = Reader::new(body);
    let (number, reference) = (reader.varint()?, reader.varint()?);
    let timestamp = reader.signed()?;
    let value = f64::from_bits(reader.u64()?);
    let labels = Labels::from_canonical(reader.bytes()?).map_err(|_| reader.invalid("labels"))?;
    Ok(Numbered { number, reference, exemplar: Exemplar { labels, value, timestamp } })
}

fn tombstone_record(tombstone: &Tombstone) -> Vec<u8> {
    let mut out = Vec::new();
    put_signed(&mut out, tombstone.range.after);
    put_signed(&mut out, tombstone.range.until);
    put_varint(&mut out, tombstone.refs.len() as u64);
    for reference in &tombstone.refs {
        put_varint(&mut out, *reference);
    }
    seal_record(STATE_VERSION, &out)
}

/// Loads the durable head of a shard; an empty one when there is none.
pub(crate) fn load(kv: &dyn Kv, shard: ShardId, replica: ReplicaId) -> Result<(Head, Mark), StorageError> {
    let mut head = Head::new();
    let place = |what: &str| format!("{what} of shard {shard}");
    let open = |what: &str, value: &[u8]| -> Result<Vec<u8>, StorageError> {
        open_record(STATE_VERSION, value).map(<[u8]>::to_vec).map_err(|e| match e {
            DecodeError::Version(found) => StorageError::Version {
                place: place(what),
                found: u32::from(found),
                known: u32::from(STATE_VERSION),
            },
            other => StorageError::corrupt(place(what), other.to_string()),
        })
    };
    let bad = |what: &str| {
        let place = place(what);
        move |e: DecodeError| StorageError::corrupt(place, e.to_string())
    };
    let Some(record) = kv.get(Family::State, &keys::state(shard, StateKind::Mark))? else {
        return Ok((head, Mark { replica: replica.0, ..Mark::default() }));
    };
    let mark = read_mark(&open("mark", &record)?, &mut head).map_err(bad("mark"))?;
    if mark.replica != replica.0 {
        return Err(StorageError::Open {
            path: place("data"),
            message: format!("it belongs to replica {}, not {replica}", mark.replica),
        });
    }
    scan_prefix(kv, Family::State, &keys::state(shard, StateKind::Source), |key, value| {
        let id =
            number32(key).ok_or_else(|| StorageError::corrupt(place("source"), "its key is too short"))?;
        let source = read_source(&open("source", value)?).map_err(bad("source"))?;
        if source.tenant as usize >= head.tenants.len() {
            return Err(StorageError::corrupt(place("source"), "its tenant does not exist"));
        }
        while head.sources.len() < id as usize {
            head.sources.push(Source::new(u32::MAX, 0));
        }
        head.by_key.insert((source.tenant, source.key), id);
        head.sources.push(source);
        Ok(())
    })?;
    scan_prefix(kv, Family::State, &keys::state(shard, StateKind::Series), |key, value| {
        let what = "series";
        let reference =
            number64(key).ok_or_else(|| StorageError::corrupt(place(what), "its key is too short"))?;
        if head.is_far_ref(reference) {
            return Err(StorageError::corrupt(place(what), "its ref is far beyond the last"));
        }
        let record = read_series(&open(what, value)?).map_err(bad(what))?;
        let Some(source) = head.sources.get_mut(record.source as usize) else {
            return Err(StorageError::corrupt(place(what), "its source does not exist"));
        };
        let Some(slot) = source.slots.get_mut(record.slot as usize).filter(|s| s.series == NO_SERIES) else {
            return Err(StorageError::corrupt(place(what), "its slot does not exist or is taken"));
        };
        let tenant = source.tenant;
        let at = (record.source, record.slot);
        slot.series = head.series.insert((tenant, &record.labels), reference, at, record.evicted);
        head.indexes[tenant as usize].insert(slot.series, &record.labels);
        Ok(())
    })?;
    load_targets(kv, shard, &mut head, &open, &bad)?;
    scan_prefix(kv, Family::State, &keys::state(shard, StateKind::Metadata), |key, value| {
        let what = "metadata";
        let tenant = number32(key).filter(|t| (*t as usize) < head.tenants.len());
        let family = key.get(9..).and_then(|f| std::str::from_utf8(f).ok());
        let (Some(tenant), Some(family)) = (tenant, family) else {
            return Err(StorageError::corrupt(place(what), "its key does not decode"));
        };
        let body = open(what, value)?;
        let mut reader = Reader::new(&body);
        let mut read = || -> Result<MetricMetadata, DecodeError> {
            let kind = MetricKind::from_number(u64::from(reader.byte()?));
            let (help, unit) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            Ok(MetricMetadata { family: family.to_owned(), kind, help, unit })
        };
        let item = read().map_err(bad(what))?;
        head.metadata.insert((tenant, family.to_owned()), item);
        Ok(())
    })?;
    scan_prefix(kv, Family::State, &keys::state(shard, StateKind::Tombstone), |key, value| {
        let what = "tombstone";
        let index =
            number64(key).ok_or_else(|| StorageError::corrupt(place(what), "its key is too short"))?;
        let body = open(what, value)?;
        let mut reader = Reader::new(&body);
        let mut read = || -> Result<Tombstone, DecodeError> {
            let range = TimeRange { after: reader.signed()?, until: reader.signed()? };
            let refs = (0..reader.count(1)?).map(|_| reader.varint()).collect::<Result<_, _>>()?;
            Ok(Tombstone { index, range, refs })
        };
        head.tombstones.push(read().map_err(bad(what))?);
        Ok(())
    })?;
    let mut exemplars: BTreeMap<u32, Vec<Numbered>> = BTreeMap::new();
    scan_prefix(kv, Family::State, &keys::state(shard, StateKind::Exemplar), |key, value| {
        let what = "exemplar";
        let tenant = number32(key).filter(|t| (*t as usize) < head.tenants.len());
        let tenant = tenant.ok_or_else(|| StorageError::corrupt(place(what), "its key does not decode"))?;
        let numbered = read_exemplar(&open(what, value)?).map_err(bad(what))?;
        exemplars.entry(tenant).or_default().push(numbered);
        Ok(())
    })?;
    for (tenant, all) in exemplars {
        head.exemplars.load(tenant, all);
    }
    Ok((head, mark))
}

/// Gives the body of a record of that name.
type OpenRecord<'a> = dyn Fn(&str, &[u8]) -> Result<Vec<u8>, StorageError> + 'a;

fn load_targets<E: FnOnce(DecodeError) -> StorageError>(
    kv: &dyn Kv,
    shard: ShardId,
    head: &mut Head,
    open: &OpenRecord<'_>,
    bad: &dyn Fn(&str) -> E,
) -> Result<(), StorageError> {
    let what = "targets";
    if let Some(record) = kv.get(Family::State, &keys::state(shard, StateKind::Targets))? {
        let body = open(what, &record)?;
        let mut reader = Reader::new(&body);
        let mut read = || -> Result<(), DecodeError> {
            for _ in 0..reader.count(10)? {
                let number = reader.varint32("target")?;
                let id = reader.u64()?;
                if number == 0 || number > 1 << 24 {
                    return Err(reader.invalid("target"));
                }
                head.targets.load(number, id, reader.signed()?);
            }
            Ok(())
        };
        read().map_err(bad(what))?;
    }
    let salvaged = kv.get(Family::State, &keys::state(shard, StateKind::Targets))?.is_none();
    for (id, source) in (0u32..).zip(&mut head.sources) {
        for slot in source.slots.iter_mut().filter(|s| s.target != 0) {
            if salvaged {
                // The record was damaged and moved away: nobody owns the slots any more.
                slot.target = 0;
                continue;
            }
            if !head.targets.load_slot(slot.target, id) {
                return Err(StorageError::corrupt(
                    format!("{what} of shard {shard}"),
                    format!("a slot of source {id} names target {}, which is not there", slot.target),
                ));
            }
        }
    }
    head.targets.load_done();
    Ok(())
}

fn number32(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(5..9)?.try_into().ok()?))
}

fn number64(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(5..13)?.try_into().ok()?))
}

const _: () = assert!(NEVER == i64::MIN);
