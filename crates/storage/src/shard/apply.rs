//! Applies a log entry to a head: a pure function of both.
//!
//! The order of the entry's parts is the order of the effects: sources, series, then batch after batch its rows,
//! histograms and exemplars, then its scrape mark (whose staleness markers follow from the state), metadata; tiles are
//! sealed as soon as they are full; at the end the clock moves. What comes out is hashed with the entry, so that replicas that differ are found.

use std::collections::{BTreeMap, BTreeSet};

use model::seam::{Counts, RejectReason, ShardReport};
use model::{STALE_NAN_BITS, TimeRange};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::DecodeError;
use crate::entry::{
    self, Base, Decision, Entry, EntryHead, HistogramRecord, RowHead, RowSet, SeriesDef, SlotId, SourceDef,
    WriteReader, decode_values, fold,
};
use crate::head::exemplars::Judgement;
use crate::head::rows::{RowWork, apply_histogram, apply_row};
use crate::head::source::{NO_SERIES, Source};
use crate::head::targets::ones;
use crate::head::{Head, day_of};

/// The most that an entry may skip ahead in numbers of sources or slots: numbers of plans that were never committed.
const MAX_GAP: usize = 1 << 20;

/// Why an entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Misfit(String),
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchOutcome {
    /// Stored, or there already with the same value.
    pub(crate) written: Counts,
    /// What apply itself rejected: slot, timestamp, reason.
    pub(crate) rejected: Vec<(SlotId, i64, RejectReason)>,
    /// Whether the whole batch was refused because of its epoch.
    pub(crate) fenced: bool,
}

impl BatchOutcome {
    /// The report where this replica did not plan the entry: without refs and positions.
    pub(crate) fn report(&self) -> ShardReport {
        let mut report = ShardReport { written: self.written, ..ShardReport::default() };
        if self.fenced {
            report.rejected.insert(RejectReason::Fenced, 1);
        }
        for (_, _, reason) in &self.rejected {
            *report.rejected.entry(*reason).or_default() += 1;
        }
        report
    }
}

/// What became of an entry.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) head: EntryHead,
    pub(crate) batches: Vec<BatchOutcome>,
    /// Whether it was a write, which the planner waits for.
    pub(crate) is_write: bool,
    /// Staleness markers written.
    pub(crate) markers: u64,
    pub(crate) late: u64,
    /// Days of its rows.
    pub(crate) days: BTreeSet<i64>,
}

/// Scratch memory.
#[derive(Debug, Default)]
pub(crate) struct ApplyWork {
    pub(super) rows: RowWork,
    slots: Vec<u32>,
    bases: Vec<u64>,
    values: Vec<u64>,
    starts: Vec<i64>,
    previous: (Vec<u32>, Vec<u64>),
}

/// Applies the entry `bytes` at `index`. After an error the head is in no defined state.
pub(crate) fn apply(
    head: &mut Head,
    index: u64,
    bytes: &[u8],
    work: &mut ApplyWork,
) -> Result<Applied, ApplyError> {
    let (entry_head, entry) = entry::decode(bytes)?;
    let is_write = matches!(entry, Entry::Write(_));
    let mut applied = Applied {
        head: entry_head,
        batches: Vec::new(),
        is_write,
        markers: 0,
        late: 0,
        days: BTreeSet::new(),
    };
    let mut verdict = 0;
    match entry {
        Entry::Write(write) if entry_head.epoch < head.epoch => {
            applied
                .batches
                .resize_with(write.n_batches, || BatchOutcome { fenced: true, ..BatchOutcome::default() });
            verdict = fold(verdict, 1);
        }
        Entry::Write(write) => {
            apply_write(head, index, write, &mut applied, work)?;
            for batch in &applied.batches {
                let Counts { samples, histograms, exemplars } = batch.written;
                verdict = [samples, histograms, exemplars].into_iter().fold(verdict, fold);
                for ((source, slot), timestamp, reason) in &batch.rejected {
                    for number in [u64::from(*source), u64::from(*slot), *timestamp as u64, *reason as u64] {
                        verdict = fold(verdict, number);
                    }
                }
            }
            verdict = fold(verdict, applied.markers);
        }
        Entry::Decision(decision) => match decision {
            Decision::Delete { refs, after, until } => head.delete(index, refs, TimeRange { after, until }),
            Decision::Retention { floor } => head.floor = head.floor.max(floor),
            Decision::Evict { refs } => head.evict(&refs),
            Decision::Range { epoch, first, last } => {
                if epoch >= head.epoch {
                    head.epoch = epoch;
                    head.range = Some((first, last));
                }
            }
        },
    }
    head.advance_clock(entry_head.now_ms, index);
    head.hash = fold(fold(fold(head.hash, index), xxh3_64(bytes)), verdict);
    Ok(applied)
}

fn apply_write(
    head: &mut Head,
    index: u64,
    mut write: WriteReader<'_>,
    applied: &mut Applied,
    work: &mut ApplyWork,
) -> Result<(), ApplyError> {
    for def in std::mem::take(&mut write.sources) {
        define_source(head, &def)?;
    }
    for def in std::mem::take(&mut write.series) {
        define_series(head, &def)?;
    }
    let mut check = 0;
    let mut last_timestamp = 0;
    let mut last_day = None;
    work.previous.0.clear();
    work.previous.1.clear();
    let mut previous_source = u32::MAX;
    for _ in 0..write.n_batches {
        let (batch, n_rows) = write.batch()?;
        let mut outcome = BatchOutcome { written: batch.repeated, ..BatchOutcome::default() };
        let mut seen: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut starts = batch.starts.iter().peekable();
        for number in 0..n_rows {
            let reader = write.rows();
            let row = RowHead::read(reader, last_timestamp)?;
            last_timestamp = row.timestamp;
            let day = day_of(row.timestamp);
            if last_day != Some(day) {
                last_day = Some(day);
                applied.days.insert(day);
            }
            let Some(source) = head.sources.get_mut(row.source as usize) else {
                return Err(ApplyError::Misfit(format!("row of source {} that does not exist", row.source)));
            };
            row_slots(source, &row, &mut work.slots)?;
            row_bases(source, &row, previous_source, work)?;
            work.values.clear();
            decode_values(reader, &work.bases, &mut work.values)?;
            check = fold(fold(check, u64::from(row.source)), row.timestamp as u64);
            for (slot, value) in work.slots.iter().zip(&work.values) {
                check = fold(check, value.wrapping_add(u64::from(*slot)));
            }
            let starts = match starts.next_if(|starts| starts.row as usize == number) {
                None => None,
                Some(told) => {
                    let kinds = source.kinds.as_deref();
                    let newest = |slot| kinds.map_or(0, |kinds| kinds.newest_start(slot));
                    told.resolve(&work.slots, newest, &mut work.starts)?;
                    check = work.starts.iter().fold(check, |check, start| fold(check, *start as u64));
                    Some(&work.starts[..])
                }
            };
            let place = (index, head.clock.max(applied.head.now_ms));
            let cells = (&work.slots[..], &work.values[..]);
            let result = apply_row(source, row.timestamp, cells, starts, place, &mut work.rows);
            outcome.written.samples += result.written;
            applied.late += result.late;
            head.changes.late_samples += result.late as usize;
            for (slot, reason) in result.rejected {
                outcome.rejected.push(((row.source, slot), row.timestamp, reason));
            }
            if batch.mark.is_some() {
                let bits = seen.entry(row.source).or_default();
                for slot in &work.slots {
                    set_bit(bits, *slot);
                }
            }
            let full = source.is_full();
            head.touch(row.source);
            if full {
                head.seal(row.source, index);
            }
            previous_source = row.source;
            std::mem::swap(&mut work.previous.0, &mut work.slots);
            std::mem::swap(&mut work.previous.1, &mut work.values);
        }
        apply_histograms(
            head,
            index,
            &mut write,
            applied,
            &mut outcome,
            batch.mark.is_some().then_some(&mut seen),
        )?;
        apply_exemplars(head, &mut write, &mut outcome)?;
        if let Some(mark) = &batch.mark {
            for (source, slot) in &mark.present {
                check_slot(head, *source, *slot)?;
                set_bit(seen.entry(*source).or_default(), *slot);
            }
            for (source, slot) in &mark.untracked {
                if let Some(word) = seen.get_mut(source).and_then(|bits| bits.get_mut(*slot as usize / 64)) {
                    *word &= !(1 << (slot % 64));
                }
            }
            let seen: Vec<(u32, Vec<u64>)> = seen.into_iter().collect();
            // Who owns a slot is stored with its source, also where no row changes it.
            let fed: Vec<u32> = head.targets.sources_of(mark.target).collect();
            seen.iter().map(|(source, _)| *source).chain(fed).for_each(|source| head.touch(source));
            let missing = head.targets.scraped(mark.target, mark.timestamp, &seen, &mut head.sources);
            head.changes.targets = true;
            applied.days.insert(day_of(mark.timestamp));
            last_day = None;
            applied.markers += missing.len() as u64;
            for of_source in missing.chunk_by(|a, b| a.0 == b.0) {
                let slots: Vec<u32> = of_source.iter().map(|(_, slot)| *slot).collect();
                let values = vec![STALE_NAN_BITS; slots.len()];
                let id = of_source[0].0;
                let place = (index, head.clock.max(applied.head.now_ms));
                let source = &mut head.sources[id as usize];
                apply_row(source, mark.timestamp, (&slots, &values), None, place, &mut work.rows);
                let full = source.is_full();
                head.touch(id);
                if full {
                    head.seal(id, index);
                }
            }
        }
        if !batch.metadata.is_empty() {
            let tenant = head.tenant(&batch.tenant)?;
            for item in batch.metadata {
                head.set_metadata(tenant, item);
            }
        }
        applied.batches.push(outcome);
    }
    write.finish(check)?;
    Ok(())
}

/// Applies the histograms of a batch; takes note in `seen` which slots they are of.
fn apply_histograms(
    head: &mut Head,
    index: u64,
    write: &mut WriteReader<'_>,
    applied: &mut Applied,
    outcome: &mut BatchOutcome,
    mut seen: Option<&mut BTreeMap<u32, Vec<u64>>>,
) -> Result<(), ApplyError> {
    for _ in 0..write.n_histograms()? {
        let newest = |(source, slot): SlotId| {
            head.sources.get(source as usize)?.kinds.as_deref()?.newest(slot).cloned()
        };
        let HistogramRecord { slot: (id, slot), timestamp, start, histogram } = write.histogram(newest)?;
        check_slot(head, id, slot)?;
        applied.days.insert(day_of(timestamp));
        let place = (index, head.clock.max(applied.head.now_ms));
        let source = &mut head.sources[id as usize];
        match apply_histogram(source, (slot, timestamp), histogram, start, place) {
            Ok(late) => {
                outcome.written.histograms += 1;
                applied.late += u64::from(late);
                head.changes.late_samples += usize::from(late);
            }
            Err(reason) => outcome.rejected.push(((id, slot), timestamp, reason)),
        }
        if let Some(seen) = &mut seen {
            set_bit(seen.entry(id).or_default(), slot);
        }
        let full = head.sources[id as usize].is_full();
        head.touch(id);
        if full {
            head.seal(id, index);
        }
    }
    Ok(())
}

/// Applies the exemplars of a batch.
fn apply_exemplars(
    head: &mut Head,
    write: &mut WriteReader<'_>,
    outcome: &mut BatchOutcome,
) -> Result<(), ApplyError> {
    for _ in 0..write.n_exemplars()? {
        let ((source, slot), exemplar) = write.exemplar()?;
        check_slot(head, source, slot)?;
        let timestamp = exemplar.timestamp;
        match head.add_exemplar(source, slot, exemplar) {
            Judgement::New | Judgement::Repeated => outcome.written.exemplars += 1,
            Judgement::OutOfOrder => {
                outcome.rejected.push(((source, slot), timestamp, RejectReason::OutOfOrderExemplar));
            }
        }
    }
    Ok(())
}

fn define_source(head: &mut Head, def: &SourceDef) -> Result<(), ApplyError> {
    let tenant = head.tenant(&def.tenant)?;
    let at = def.id as usize;
    if at > head.sources.len() + MAX_GAP {
        return Err(ApplyError::Misfit(format!("source {} is far beyond the last", def.id)));
    }
    while head.sources.len() <= at {
        head.sources.push(Source::new(u32::MAX, 0));
    }
    let known = &head.sources[at];
    if known.tenant == u32::MAX {
        head.sources[at] = Source::new(tenant, def.key);
        head.by_key.insert((tenant, def.key), def.id);
        head.touch(def.id);
    } else if (known.tenant, known.key) != (tenant, def.key) {
        return Err(ApplyError::Misfit(format!("source {} is defined as another", def.id)));
    }
    Ok(())
}

fn define_series(head: &mut Head, def: &SeriesDef) -> Result<(), ApplyError> {
    let misfit = |what: &str| Err(ApplyError::Misfit(format!("series {}: {what}", def.reference)));
    let Some(tenant) = head.sources.get(def.source as usize).map(|s| s.tenant).filter(|t| *t != u32::MAX)
    else {
        return misfit("its source does not exist");
    };
    if let Some(sid) = head.series.by_any_ref(def.reference) {
        let same = head.series.place(sid) == (def.source, def.slot) && head.labels(sid) == def.labels;
        return if same { Ok(()) } else { misfit("its ref belongs to another series") };
    }
    if head.find_series(tenant, def.labels.hash128(), &def.labels).is_some() {
        return misfit("its labels have another ref");
    }
    if head.is_far_ref(def.reference) {
        return misfit("its ref is far beyond the last");
    }
    let source = &mut head.sources[def.source as usize];
    if def.slot as usize > source.slots.len() + MAX_GAP {
        return misfit("its slot is far beyond the last");
    }
    source.reserve_slot(def.slot);
    let slot = &mut source.slots[def.slot as usize];
    if slot.series != NO_SERIES {
        return misfit("its slot is taken");
    }
    slot.series = head.series.insert((tenant, &def.labels), def.reference, (def.source, def.slot), false);
    let sid = slot.series;
    head.indexes[tenant as usize].insert(sid, &def.labels);
    head.next_ref = head.next_ref.max(def.reference.saturating_add(1));
    head.changes.series.push(sid);
    head.touch(def.source);
    Ok(())
}

fn check_slot(head: &Head, source: u32, slot: u32) -> Result<(), ApplyError> {
    let known = head.sources.get(source as usize).and_then(|s| s.slots.get(slot as usize));
    if known.is_none_or(|s| s.series == NO_SERIES) {
        return Err(ApplyError::Misfit(format!("slot {slot} of source {source} does not exist")));
    }
    Ok(())
}

fn row_slots(source: &Source, row: &RowHead, slots: &mut Vec<u32>) -> Result<(), ApplyError> {
    slots.clear();
    if let Base::Applied { revision } = row.base
        && revision != source.revision
    {
        return Err(ApplyError::Misfit(format!(
            "row of source {} is coded against revision {revision}, the source is at {}",
            row.source, source.revision
        )));
    }
    match &row.set {
        RowSet::Same => slots.extend(ones(&source.last_set)),
        RowSet::Slots(given) => slots.extend_from_slice(given),
    }
    let known =
        slots.iter().all(|s| source.slots.get(*s as usize).is_some_and(|slot| slot.series != NO_SERIES));
    if !known {
        return Err(ApplyError::Misfit(format!(
            "row of source {} has a slot that does not exist",
            row.source
        )));
    }
    Ok(())
}

fn row_bases(
    source: &Source,
    row: &RowHead,
    previous_source: u32,
    work: &mut ApplyWork,
) -> Result<(), ApplyError> {
    let bases = &mut work.bases;
    bases.clear();
    match row.base {
        Base::Absolute => bases.resize(work.slots.len(), 0),
        Base::Applied { .. } => bases.extend(work.slots.iter().map(|slot| source.slots[*slot as usize].bits)),
        Base::Previous if previous_source != row.source => {
            return Err(ApplyError::Misfit("row is coded against a row of another source".into()));
        }
        Base::Previous => previous_bases(&work.slots, &work.previous.0, &work.previous.1, bases),
    }
    Ok(())
}

/// For each of `slots` its value in the previous row, 0 where that has none.
pub(crate) fn previous_bases(slots: &[u32], previous: &[u32], values: &[u64], bases: &mut Vec<u64>) {
    let mut at = 0;
    for slot in slots {
        while previous.get(at).is_some_and(|p| p < slot) {
            at += 1;
        }
        bases.push(if previous.get(at) == Some(slot) { values[at] } else { 0 });
    }
}

fn set_bit(bits: &mut Vec<u64>, slot: u32) {
    let word = slot as usize / 64;
    if word >= bits.len() {
        bits.resize(word + 1, 0);
    }
    bits[word] |= 1 << (slot % 64);
}
