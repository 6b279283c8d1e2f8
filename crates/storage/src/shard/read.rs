//! Reading a shard: a select picks series by the label indexes, then walks them in the order of source and slot, so that
//! each group of 64 neighbours is fetched from the database once, and joins what it finds there with sealed pages, open
//! tile and late rows in memory. The first value at a timestamp stays.
//!
//! What is in memory is taken under one short lock when the select begins; the database is read afterwards. What a flush
//! moves meanwhile is therefore seen twice, never missed, and the join makes it one again.

use std::sync::Arc;

use hashbrown::HashMap;
use model::histogram::ResetHint;
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource};
use model::{
    Code, Exemplar, Failure, Histogram, Labels, LogIndex, Matcher, MetricMetadata, TenantId, TimeRange,
};

use super::Shard;
use super::keys::{self, PageKey};
use crate::StorageError;
use crate::head::kinds::Kinds;
use crate::head::rows::known_hint;
use crate::head::source::{LateSample, Open, SealedPage, Stored};
use crate::head::tile::Tile;
use crate::head::{Head, day_of};
use crate::index::{IndexError, SeriesIndex};
use crate::kv::{Cursor, Family};
use crate::page::{MAX_SERIES, PageReader, PageScratch, Precedence, join};

/// A view of a shard for queries.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Arc<Shard>);

/// Where samples of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    source: u32,
    slot: u32,
    reference: u64,
}

impl Place {
    fn group(&self) -> (u32, u32) {
        (self.source, self.slot / MAX_SERIES as u32)
    }
}

/// A series that a select picked.
#[derive(Debug)]
struct Pick {
    labels: Labels,
    place: Place,
    /// Further places of the same labels: the series left the head and came back.
    more: Vec<Place>,
}

/// What is in memory of a source.
#[derive(Debug, Default)]
struct Memory {
    tile: Option<Arc<Tile>>,
    kinds: Option<Arc<Kinds>>,
    sealed: Vec<SealedPage>,
    late: Option<Arc<Vec<LateSample>>>,
    /// Of `late`, made when the source is first read: by slot and time, the lowest sequence at each time.
    sorted_late: Vec<LateSample>,
}

impl Memory {
    /// The samples that are not sealed.
    fn open(&self) -> Option<Open<'_>> {
        self.tile.as_ref().map(|tile| Open { tile, kinds: self.kinds.as_deref() })
    }

    fn sort_late(&mut self) {
        if let Some(late) = self.late.take() {
            self.sorted_late = late.to_vec();
            self.sorted_late.sort_by_key(|s| (s.slot, s.timestamp, s.sequence));
            self.sorted_late.dedup_by_key(|s| (s.slot, s.timestamp));
        }
    }

    fn late_of(&self, slot: u32) -> &[LateSample] {
        let from = self.sorted_late.partition_point(|s| s.slot < slot);
        let len = self.sorted_late[from..].partition_point(|s| s.slot == slot);
        &self.sorted_late[from..from + len]
    }
}

fn index_failure(error: &IndexError) -> Failure {
    Failure::new(Code::Corrupt, format!("label index: {error}"))
}

impl Reader {
    /// The series of the head that match and may have samples after `range.after`, with their labels.
    fn pick_in_head(
        &self,
        head: &Head,
        tenant: u32,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<Pick>, Failure> {
        let index = &head.indexes[tenant as usize];
        let mut ids = index.select(matchers).map_err(|e| index_failure(&e))?;
        let is_newer = |sid: u32| {
            let (source, slot) = head.series.place(sid);
            head.sources[source as usize].slots[slot as usize].last > range.after
        };
        if ids.iter().any(|sid| !is_newer(sid)) {
            ids = ids.iter().filter(|sid| is_newer(*sid)).collect();
        }
        let mut picks = Vec::with_capacity(ids.len() as usize);
        let visited = index.visit_labels(&ids, &mut |sid, labels| {
            let (source, slot) = head.series.place(sid);
            let reference = head.series.reference(sid);
            picks.push(Pick { labels, place: Place { source, slot, reference }, more: Vec::new() });
            true
        });
        visited.map_err(|e| index_failure(&e))?;
        Ok(picks)
    }

    fn pick(&self, head: &Head, request: &SelectRequest) -> Result<Vec<Pick>, Failure> {
        let range = clip(head, request.range);
        self.pick_newer(head, request, range)
    }

    /// Those series of the head with samples after `of_head.after`, and those of the sealed days of the request's range.
    fn pick_newer(
        &self,
        head: &Head,
        request: &SelectRequest,
        of_head: TimeRange,
    ) -> Result<Vec<Pick>, Failure> {
        let Some(tenant) = head.find_tenant(request.tenant.as_str()) else { return Ok(Vec::new()) };
        let range = clip(head, request.range);
        let mut picks = self.pick_in_head(head, tenant, &request.matchers, of_head)?;
        let mut may_repeat = head.series.n_active() < head.series.len();
        let sealed = self.0.indexed_days(range);
        if !sealed.is_empty() {
            let mut known: hashbrown::HashSet<(u32, u32)> =
                picks.iter().map(|p| (p.place.source, p.place.slot)).collect();
            for day in sealed {
                let found = self.0.sealed_index(day, tenant)?;
                let Some(found) = found else { continue };
                let ids = found.index.select(&request.matchers).map_err(|e| index_failure(&e))?;
                let visited = found.index.visit_labels(&ids, &mut |ordinal, labels| {
                    if let Some((source, slot, reference)) = found.place(ordinal)
                        && known.insert((source, slot))
                    {
                        picks.push(Pick {
                            labels,
                            place: Place { source, slot, reference },
                            more: Vec::new(),
                        });
                        may_repeat = true;
                    }
                    true
                });
                visited.map_err(|e| index_failure(&e))?;
            }
        }
        if may_repeat {
            picks = unite(picks);
        }
        Ok(picks)
    }
}

/// The range without what retention took.
fn clip(head: &Head, range: TimeRange) -> TimeRange {
    TimeRange { after: range.after.max(head.floor.saturating_sub(1)), until: range.until }
}

/// Makes one of picks with the same labels, oldest ref first.
fn unite(mut picks: Vec<Pick>) -> Vec<Pick> {
    picks.sort_by(|a, b| {
        (a.labels.as_bytes(), a.place.reference).cmp(&(b.labels.as_bytes(), b.place.reference))
    });
    let mut united: Vec<Pick> = Vec::with_capacity(picks.len());
    for pick in picks {
        match united.last_mut() {
            Some(last) if last.labels == pick.labels => last.more.push(pick.place),
            _ => united.push(pick),
        }
    }
    united
}

impl SeriesSource for Reader {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        let state = self.0.readable()?;
        let head = &state.head;
        let mut picks = self.pick(head, request)?;
        picks.sort_by_key(|p| p.place);
        let charged: u64 = picks.iter().map(|p| (p.labels.as_bytes().len() + size_of::<Pick>()) as u64).sum();
        let charge = Charge::new(&request.budget, charged)?;
        let mut memory: HashMap<u32, Memory> = HashMap::new();
        let mut last = None;
        for pick in &picks {
            for place in std::iter::once(&pick.place).chain(&pick.more) {
                if last.replace(place.source) != Some(place.source)
                    && !memory.contains_key(&place.source)
                    && let Some(source) = head.sources.get(place.source as usize)
                {
                    let kept = Memory {
                        tile: source.tile.clone(),
                        kinds: source.kinds.clone(),
                        sealed: source.sealed.clone(),
                        late: source.late.clone(),
                        sorted_late: Vec::new(),
                    };
                    memory.insert(place.source, kept);
                }
            }
        }
        let mut tombstones: HashMap<u64, Vec<(u64, TimeRange)>> = HashMap::new();
        if !head.tombstones.is_empty() {
            for reference in
                picks.iter().flat_map(|p| std::iter::once(&p.place).chain(&p.more)).map(|p| p.reference)
            {
                for tombstone in &head.tombstones {
                    if tombstone.refs.binary_search(&reference).is_ok() {
                        tombstones.entry(reference).or_default().push((tombstone.index, tombstone.range));
                    }
                }
            }
        }
        let range = clip(head, request.range);
        let days = self.0.days_in(range);
        // Made before the state may change: state that is taken over from another node replaces pages too.
        let cursor = self.0.kv.cursor(Family::Pages);
        drop(state);
        Ok(Box::new(Walk {
            shard: &self.0,
            cursor,
            days,
            range,
            picks: picks.into_iter(),
            memory,
            tombstones,
            group: Group::default(),
            budget: Arc::clone(&request.budget),
            charge,
            parts: Vec::new(),
        }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        let state = self.0.readable()?;
        let picks = self.pick(&state.head, request)?;
        drop(state);
        let charged: u64 = picks.iter().map(|p| p.labels.as_bytes().len() as u64 + 16).sum();
        let _charge = Charge::new(&request.budget, charged)?;
        let mut all: Vec<Labels> = picks.into_iter().map(|p| p.labels).collect();
        if limit != 0 {
            all.truncate(limit);
        }
        Ok(all)
    }

    fn label_names(&self, request: &SelectRequest, limit: usize) -> Result<Vec<String>, Failure> {
        self.ask_indexes(request, limit, |index, matchers| {
            if matchers.is_empty() {
                return index.label_names(None);
            }
            index.label_names(Some(&index.select(matchers)?))
        })
    }

    fn label_values(
        &self,
        request: &SelectRequest,
        name: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        self.ask_indexes(request, limit, |index, matchers| {
            if matchers.is_empty() {
                return index.label_values(name, None);
            }
            index.label_values(name, Some(&index.select(matchers)?))
        })
    }

    fn exemplars(&self, request: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        let state = self.0.readable()?;
        let head = &state.head;
        let Some(tenant) = head.find_tenant(request.tenant.as_str()) else { return Ok(Vec::new()) };
        // An exemplar may be newer than the newest sample of its series.
        let picks = self.pick_newer(head, request, TimeRange::ALL)?;
        let mut by_reference: HashMap<u64, usize> = HashMap::new();
        for (at, pick) in picks.iter().enumerate() {
            for place in std::iter::once(&pick.place).chain(&pick.more) {
                by_reference.insert(place.reference, at);
            }
        }
        let mut found: Vec<Vec<Exemplar>> = vec![Vec::new(); picks.len()];
        let mut bytes = 0;
        for numbered in head.exemplars.in_range(tenant, clip(head, request.range)) {
            if let Some(at) = by_reference.get(&numbered.reference) {
                bytes += (size_of::<Exemplar>() + numbered.exemplar.labels.as_bytes().len()) as u64;
                found[*at].push(numbered.exemplar.clone());
            }
        }
        drop(state);
        let _charge = Charge::new(&request.budget, bytes)?;
        request.budget.check()?;
        let mut all: Vec<SeriesExemplars> = picks
            .into_iter()
            .zip(found)
            .filter(|(_, exemplars)| !exemplars.is_empty())
            .map(|(pick, mut exemplars)| {
                exemplars.sort_by_key(|e| e.timestamp);
                SeriesExemplars { labels: pick.labels, exemplars }
            })
            .collect();
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    fn metadata(&self, tenant: &TenantId, family: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        let state = self.0.readable()?;
        let head = &state.head;
        let Some(tenant) = head.find_tenant(tenant.as_str()) else { return Ok(Vec::new()) };
        Ok(match family {
            Some(family) => head.metadata.get(&(tenant, family.to_owned())).cloned().into_iter().collect(),
            None => head
                .metadata
                .range((tenant, String::new())..(tenant + 1, String::new()))
                .map(|(_, item)| item.clone())
                .collect(),
        })
    }
}

impl Reader {
    fn ask_indexes(
        &self,
        request: &SelectRequest,
        limit: usize,
        ask: impl Fn(&dyn SeriesIndex, &[Matcher]) -> Result<Vec<String>, IndexError>,
    ) -> Result<Vec<String>, Failure> {
        let state = self.0.readable()?;
        let head = &state.head;
        let Some(tenant) = head.find_tenant(request.tenant.as_str()) else { return Ok(Vec::new()) };
        let range = clip(head, request.range);
        let mut found = Vec::new();
        if self.0.has_live(range) {
            found = ask(&head.indexes[tenant as usize], &request.matchers).map_err(|e| index_failure(&e))?;
        }
        drop(state);
        let sealed = self.0.indexed_days(range);
        let many = !sealed.is_empty();
        for day in sealed {
            request.budget.check()?;
            if let Some(sealed) = self.0.sealed_index(day, tenant)? {
                found.extend(ask(&sealed.index, &request.matchers).map_err(|e| index_failure(&e))?);
            }
        }
        if many {
            found.sort_unstable();
            found.dedup();
        }
        if limit != 0 {
            found.truncate(limit);
        }
        Ok(found)
    }
}

/// Memory of a query, given back when it ends.
struct Charge {
    budget: Arc<QueryBudget>,
    bytes: u64,
}

impl Charge {
    fn new(budget: &Arc<QueryBudget>, bytes: u64) -> Result<Self, Failure> {
        let charge = Self { budget: Arc::clone(budget), bytes };
        charge.budget.charge(bytes)?;
        Ok(charge)
    }

    fn set(&mut self, base: u64, bytes: u64) -> Result<(), Failure> {
        let wanted = base + bytes;
        if wanted > self.bytes {
            let more = wanted - self.bytes;
            self.bytes = wanted;
            return self.budget.charge(more);
        }
        self.budget.release(self.bytes - wanted);
        self.bytes = wanted;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// A page of the group at hand.
struct OpenPage {
    page: PageReader<PageBytes>,
    scratch: PageScratch,
}

enum PageBytes {
    Stored(Vec<u8>),
    Memory(Arc<[u8]>),
}

impl AsRef<[u8]> for PageBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// The pages of 64 neighbouring slots.
#[derive(Default)]
struct Group {
    of: Option<(u32, u32)>,
    /// In order, then late; each by time.
    pages: Vec<OpenPage>,
    bytes: u64,
}

/// Walks the picked series.
struct Walk<'a> {
    shard: &'a Shard,
    cursor: Box<dyn Cursor + 'a>,
    days: Vec<i64>,
    range: TimeRange,
    picks: std::vec::IntoIter<Pick>,
    memory: HashMap<u32, Memory>,
    tombstones: HashMap<u64, Vec<(u64, TimeRange)>>,
    group: Group,
    budget: Arc<QueryBudget>,
    charge: Charge,
    parts: Vec<(Precedence, SeriesData)>,
}

impl SeriesIter for Walk<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        out.clear();
        let Some(pick) = self.picks.next() else {
            // What was read while it was found to be wrong is no answer.
            drop(self.shard.readable()?);
            return Ok(false);
        };
        self.budget.check()?;
        self.read_place(pick.place, out)?;
        if !pick.more.is_empty() {
            let mut all = vec![(Precedence::in_order(LogIndex(0)), std::mem::take(out))];
            for (rank, place) in (1..).zip(&pick.more) {
                let mut part = SeriesData::default();
                self.read_place(*place, &mut part)?;
                all.push((Precedence::in_order(LogIndex(rank)), part));
            }
            join(&all, out);
        }
        if !out.histograms.is_empty() {
            tell_resets(out);
        }
        out.labels = pick.labels;
        self.budget.count_samples(out.stamps.len() as u64);
        Ok(true)
    }
}

impl Walk<'_> {
    /// Appends the samples of one place.
    fn read_place(&mut self, place: Place, out: &mut SeriesData) -> Result<(), Failure> {
        self.open_group(place.group())?;
        let memory = self.memory.get(&place.source);
        let has_late = memory.is_some_and(|m| !m.late_of(place.slot).is_empty())
            || self.group.pages.iter().any(|p| p.page.meta().late && p.page.find(place.slot).is_some());
        let closed = self.range.after.saturating_add(1)..=self.range.until;
        if !has_late && !self.tombstones.contains_key(&place.reference) {
            let mut apart = true;
            for open in &mut self.group.pages {
                let Some(at) = open.page.find(place.slot) else { continue };
                let before = out.stamps.len();
                read_page(self.shard, place, open, at, self.range, out)?;
                apart &= is_apart(out, before);
            }
            if let Some(open) = memory.and_then(Memory::open) {
                let before = out.stamps.len();
                open.series(place.slot, &closed, out);
                apart &= is_apart(out, before);
            }
            if apart {
                return Ok(());
            }
        }
        self.join_place(place, out)
    }

    /// The same where parts overlap, late rows or deletions are to be heeded.
    fn join_place(&mut self, place: Place, out: &mut SeriesData) -> Result<(), Failure> {
        self.parts.clear();
        let nothing = Vec::new();
        let masks = self.tombstones.get(&place.reference).unwrap_or(&nothing);
        for open in &mut self.group.pages {
            let Some(at) = open.page.find(place.slot) else { continue };
            let meta = open.page.meta();
            let mut part = SeriesData::default();
            read_page(self.shard, place, open, at, self.range, &mut part)?;
            for (_, range) in masks.iter().filter(|(index, _)| meta.last_sequence.0 <= *index) {
                mask(&mut part, *range);
            }
            self.parts.push((meta.precedence(), part));
        }
        if let Some(memory) = self.memory.get(&place.source) {
            let closed = self.range.after.saturating_add(1)..=self.range.until;
            if let Some(open) = memory.open() {
                let mut part = SeriesData::default();
                open.series(place.slot, &closed, &mut part);
                self.parts.push((Precedence::in_order(LogIndex(u64::MAX)), part));
            }
            let mut part = SeriesData::default();
            for sample in memory.late_of(place.slot).iter().filter(|s| closed.contains(&s.timestamp)) {
                sample.append_to(&mut part);
            }
            // What is in memory came after every late page.
            self.parts.push((Precedence::late(LogIndex(u64::MAX)), part));
        }
        join(&self.parts, out);
        Ok(())
    }

    /// Fetches the pages of a group, in memory and stored, that overlap the range.
    fn open_group(&mut self, of: (u32, u32)) -> Result<(), Failure> {
        if self.group.of == Some(of) {
            return Ok(());
        }
        let (source, group) = of;
        self.group.of = None;
        self.group.pages.clear();
        let base = self.charge.bytes - self.group.bytes;
        self.group.bytes = 0;
        self.charge.set(base, 0)?;
        for day in &self.days {
            let prefix = keys::group(*day, self.shard.id, source, group);
            self.cursor.seek(&prefix);
            while let Some((key, value)) = self.cursor.entry() {
                if !key.starts_with(&prefix) {
                    break;
                }
                let Some(place) = PageKey::decode(key) else {
                    return Err(self.shard.damaged("page key", format!("{key:02x?}")).into());
                };
                if place.min_time <= self.range.until && place.max_time > self.range.after {
                    let page = PageReader::open(PageBytes::Stored(value.to_vec()))
                        .map_err(|e| self.shard.damaged(&place.name(), e.to_string()))?;
                    self.group.bytes += value.len() as u64;
                    self.group.pages.push(OpenPage { page, scratch: PageScratch::new() });
                }
                self.cursor.advance();
            }
            self.cursor.check()?;
        }
        if let Some(memory) = self.memory.get_mut(&source) {
            memory.sort_late();
            for sealed in memory.sealed.iter().filter(|p| p.group == group) {
                if sealed.min_time <= self.range.until && sealed.max_time > self.range.after {
                    let page = PageReader::open(PageBytes::Memory(Arc::clone(&sealed.bytes)))
                        .map_err(|e| self.shard.damaged("page in memory", e.to_string()))?;
                    self.group.pages.push(OpenPage { page, scratch: PageScratch::new() });
                }
            }
        }
        self.group
            .pages
            .sort_by_key(|open| (open.page.meta().late, open.page.min_time(), open.page.max_time()));
        self.charge.set(base, self.group.bytes)?;
        self.group.of = Some(of);
        Ok(())
    }
}

fn read_page(
    shard: &Shard,
    place: Place,
    open: &mut OpenPage,
    at: usize,
    range: TimeRange,
    out: &mut SeriesData,
) -> Result<(), Failure> {
    open.page.read(at, range, &mut open.scratch, out).map(|_| ()).map_err(|e| {
        let name = format!("page of source {}, slot {}", place.source, place.slot);
        shard.damaged(&name, e.to_string()).into()
    })
}

/// Says of each histogram what is known about a counter reset before it ([`known_hint`]). Of the first one that is what
/// was known when it was stored, since the sample before it is not at hand.
fn tell_resets(out: &mut SeriesData) {
    let mut previous: Option<(u32, Arc<Histogram>)> = None;
    for (row, histogram) in &mut out.histograms {
        let before = previous.take().filter(|(at, _)| at + 1 == *row);
        let hint = match histogram.reset_hint {
            ResetHint::NotReset if *row == 0 => ResetHint::NotReset,
            _ => known_hint(before.as_ref().map(|(_, before)| &**before), histogram),
        };
        if histogram.reset_hint != hint {
            Arc::make_mut(histogram).reset_hint = hint;
        }
        previous = Some((*row, Arc::clone(histogram)));
    }
}

fn is_apart(out: &SeriesData, before: usize) -> bool {
    before == 0 || before == out.stamps.len() || out.stamps[before - 1] < out.stamps[before]
}

/// Takes the samples in `range` out of `part`.
fn mask(part: &mut SeriesData, range: TimeRange) {
    let keep: Vec<bool> = part.stamps.iter().map(|t| !range.contains(*t)).collect();
    if keep.iter().all(|k| *k) {
        return;
    }
    let mut kept = SeriesData::default();
    let mut histograms = part.histograms.iter().peekable();
    for (row, keep) in (0u32..).zip(&keep) {
        let histogram = histograms.next_if(|(at, _)| *at == row);
        if *keep {
            if let Some((_, histogram)) = histogram {
                kept.histograms.push((kept.stamps.len() as u32, Arc::clone(histogram)));
            }
            kept.stamps.push(part.stamps[row as usize]);
            kept.values.push(part.values[row as usize]);
            if !part.starts.is_empty() {
                kept.starts.push(part.starts[row as usize]);
            }
        }
    }
    *part = kept;
}

impl Shard {
    /// The sample stored at (`source`, `slot`, `timestamp`) outside the open tile: for the planner.
    pub(super) fn look_up(&self, head: &Head, (source, slot): (u32, u32), timestamp: i64) -> Option<Stored> {
        let state = head.sources.get(source as usize)?;
        let late = state.late.as_deref().map_or(&[][..], Vec::as_slice);
        let reference = head.series.reference(state.slots.get(slot as usize)?.series);
        let place = Place { source, slot, reference };
        let range = TimeRange::closed(timestamp, timestamp);
        let group = place.group();
        let mut data = SeriesData::default();
        let mut found: Option<(Precedence, Stored)> = None;
        let mut consider = |open: &mut OpenPage| -> Result<(), Failure> {
            let Some(at) = open.page.find(slot) else { return Ok(()) };
            data.clear();
            read_page(self, place, open, at, range, &mut data)?;
            let precedence = open.page.meta().precedence();
            if let Some(value) = data.values.first()
                && !head.hides(reference, open.page.meta().last_sequence.0, timestamp)
                && found.as_ref().is_none_or(|(p, _)| precedence < *p)
            {
                let histogram = data.histograms.first().map(|(_, h)| Stored::Histogram(Arc::clone(h)));
                found = Some((precedence, histogram.unwrap_or(Stored::Float(value.to_bits()))));
            }
            Ok(())
        };
        for page in state.sealed.iter().filter(|p| p.group == group.1) {
            if (page.min_time..=page.max_time).contains(&timestamp) {
                let page = PageReader::open(PageBytes::Memory(Arc::clone(&page.bytes))).ok()?;
                consider(&mut OpenPage { page, scratch: PageScratch::new() }).ok()?;
            }
        }
        let prefix = keys::group(day_of(timestamp), self.id, source, group.1);
        let mut cursor = self.kv.cursor(Family::Pages);
        cursor.seek(&prefix);
        while let Some((key, value)) = cursor.entry() {
            let Some(key) = PageKey::decode(key).filter(|_| key.starts_with(&prefix)) else { break };
            if (key.min_time..=key.max_time).contains(&timestamp) {
                // Damage is no answer here: apply decides without it, and readers say it.
                let page = PageReader::open(PageBytes::Stored(value.to_vec())).ok()?;
                consider(&mut OpenPage { page, scratch: PageScratch::new() }).ok()?;
            }
            cursor.advance();
        }
        let in_memory = late.iter().filter(|s| s.slot == slot && s.timestamp == timestamp).map(|s| {
            let histogram = s.more.as_ref().and_then(|more| more.histogram.clone());
            let stored = histogram.map_or(Stored::Float(s.bits), Stored::Histogram);
            (Precedence::late(LogIndex(s.sequence)), stored)
        });
        found.into_iter().chain(in_memory).min_by_key(|(p, _)| *p).map(|(_, stored)| stored)
    }

    /// Counts damage and makes an error of it.
    pub(super) fn damaged(&self, what: &str, message: String) -> StorageError {
        self.metrics.corruptions.inc();
        StorageError::corrupt(format!("shard {}: {what}", self.id), message)
    }
}
