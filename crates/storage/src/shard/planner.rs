//! The leader's side of a shard: batches → one log entry.
//!
//! A plan reads the applied state and knows what is proposed and not applied yet, so plans may follow each other. What
//! it cannot know (the outcome of the plans before it) it leaves to apply: it only rejects and leaves out what the
//! applied state already decides. Series that are not applied yet travel with their definition every time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use model::seam::{Counts, RejectReason, ShardBatch, ShardReport, ShardSeries, ShardWriteError};
use model::{Epoch, Labels, SeriesRef, TenantId};
use xxhash_rust::xxh3::xxh3_128;

use super::apply::{BatchOutcome, previous_bases};
use super::plan_kinds::KindWork;
use super::{Plan, Planned};
use crate::entry::{Base, BatchHead, EntryHead, MarkRecord, SeriesDef, SlotId, SourceDef, WriteBuilder};
use crate::head::Head;
use crate::head::source::{MAX_SLOTS, Source, Stored};
use crate::head::targets::ones;

/// Rejections listed one by one in a report.
const MAX_LISTED: usize = 100;
/// Timestamps beyond these are rejected whatever the limits say, so that arithmetic on them is safe.
const TIMES: std::ops::RangeInclusive<i64> = i64::MIN / 4..=i64::MAX / 4;

/// Looks up a sample that is not in memory by source, slot, timestamp.
pub(super) type LookUp<'a> = dyn FnMut(SlotId, i64) -> Option<Stored> + 'a;

/// What the leader remembers between plans.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    pub(super) incarnation: u64,
    next_plan: u64,
    next_ref: u64,
    next_source: u32,
    /// Plans that are not applied yet.
    pending: VecDeque<PendingPlan>,
    /// By source: the newest plan that has samples of it.
    pub(super) touched: HashMap<u32, u64>,
    new_series: HashMap<(TenantId, u128), PendingSeries>,
    new_sources: HashMap<(TenantId, u128), u32>,
    next_slot: HashMap<u32, u32>,
    /// Sources that plans not applied yet feed, by scrape target.
    target_sources: HashMap<u64, BTreeSet<u32>>,
    samples: Vec<PlanSample>,
    /// `RetryAppendsTwice`: what is there already is not recognised.
    #[cfg(feature = "seeded_bugs")]
    pub(super) forgets: bool,
}

#[derive(Debug)]
struct PendingPlan {
    number: u64,
    batches: Vec<PendingBatch>,
}

#[derive(Debug, Default)]
pub(super) struct PendingBatch {
    pub(super) report: ShardReport,
    /// Slot of each series, for naming what apply rejects.
    pub(super) slots: Vec<Option<SlotId>>,
}

#[derive(Clone, Debug)]
struct PendingSeries {
    def: SeriesDef,
    /// The source's key, if the source is not applied yet either.
    source_key: Option<u128>,
    /// The newest plan that defines it.
    plan: u64,
}

/// One sample of a batch on its way into rows.
#[derive(Clone, Copy, Debug)]
struct PlanSample {
    source: u32,
    slot: u32,
    timestamp: i64,
    bits: u64,
}

impl PlanSample {
    fn order(&self) -> (u32, i64, u32) {
        (self.source, self.timestamp, self.slot)
    }
}

/// A series of a batch, as far as it is known.
#[derive(Clone, Copy)]
enum Resolved {
    /// In the applied state.
    Known { reference: u64, place: SlotId },
    /// In a plan that is not applied.
    Pending { reference: u64, place: SlotId },
    /// Not known.
    Unknown,
}

impl Planner {
    /// Starts anew under `incarnation`.
    pub(super) fn begin_term(&mut self, incarnation: u64) {
        let (next_ref, next_source) = (self.next_ref, self.next_source);
        *self = Self { incarnation, next_ref, next_source, ..Self::default() };
    }

    pub(super) fn head_of(&mut self, epoch: u64, now_ms: i64) -> EntryHead {
        self.next_plan += 1;
        EntryHead { epoch, incarnation: self.incarnation, plan: self.next_plan, now_ms }
    }

    /// The reports of plan `number`, completed by what apply found; `None` when another replica planned it.
    pub(super) fn applied(
        &mut self,
        incarnation: u64,
        number: u64,
        outcomes: &[BatchOutcome],
    ) -> Option<Vec<ShardReport>> {
        if incarnation != self.incarnation {
            return None;
        }
        let mut reports = None;
        while self.pending.front().is_some_and(|p| p.number <= number) {
            let plan = self.pending.pop_front()?;
            if plan.number == number {
                reports = Some(plan.batches.into_iter().zip(outcomes).map(|(b, o)| b.complete(o)).collect());
            }
        }
        if self.pending.is_empty() {
            self.touched.clear();
            self.new_series.clear();
            self.new_sources.clear();
            self.next_slot.clear();
            self.target_sources.clear();
        } else {
            self.touched.retain(|_, plan| *plan > number);
            self.new_series.retain(|_, series| series.plan > number);
        }
        reports
    }

    /// One entry for all `batches`.
    pub(super) fn plan(
        &mut self,
        head: &Head,
        batches: &[Arc<ShardBatch>],
        now_ms: i64,
        max_late: usize,
        look_up: &mut LookUp<'_>,
    ) -> Plan {
        let entry_head = self.head_of(head.epoch, now_ms);
        let mut work = PlanWork {
            head,
            plan: entry_head.plan,
            builder: WriteBuilder::default(),
            sources: BTreeSet::new(),
            defined: BTreeSet::new(),
            late_left: max_late.saturating_sub(head.changes.late_samples),
            previous_source: None,
            previous: (Vec::new(), Vec::new()),
            slots: Vec::new(),
            values: Vec::new(),
            bases: Vec::new(),
            kinds: KindWork::default(),
        };
        let mut verdicts = Vec::with_capacity(batches.len());
        let mut pending = Vec::new();
        for batch in batches {
            verdicts.push(match self.plan_batch(&mut work, batch, look_up) {
                Err(error) => Planned::Refused(error),
                Ok((batch, false)) => Planned::Nothing(batch.report),
                Ok((batch, true)) => {
                    pending.push(batch);
                    Planned::InEntry(pending.len() - 1)
                }
            });
        }
        if pending.is_empty() {
            return Plan { entry: Vec::new(), verdicts };
        }
        for source in &work.sources {
            self.touched.insert(*source, entry_head.plan);
        }
        self.pending.push_back(PendingPlan { number: entry_head.plan, batches: pending });
        Plan { entry: work.builder.finish(&entry_head), verdicts }
    }

    fn plan_batch(
        &mut self,
        work: &mut PlanWork<'_>,
        batch: &ShardBatch,
        look_up: &mut LookUp<'_>,
    ) -> Result<(PendingBatch, bool), ShardWriteError> {
        let head = work.head;
        if head.range.is_some() && batch.epoch.0 != head.epoch {
            return Err(ShardWriteError::WrongOwner { epoch: Epoch(head.epoch) });
        }
        let Some(tenant) = &batch.tenant else {
            return Ok((PendingBatch::default(), false));
        };
        let tenant_number = head.find_tenant(tenant.as_str());
        let resolved = self.resolve(head, batch, tenant, tenant_number)?;

        let mut out = PendingBatch {
            report: ShardReport {
                incarnation: self.incarnation,
                refs: vec![None; batch.series.len()],
                ..ShardReport::default()
            },
            slots: vec![None; batch.series.len()],
        };
        let mut mark = batch
            .scrape
            .filter(|m| head.targets.last(m.target).is_none_or(|last| last < m.timestamp))
            .map(|m| MarkRecord { target: m.target, timestamp: m.timestamp, ..MarkRecord::default() });
        let mut repeated = Counts::default();
        let oldest = batch.min_timestamp.max(head.floor).max(*TIMES.start());
        let newest = batch.max_timestamp.min(*TIMES.end());
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        let mut from = (0usize, 0usize);
        for (i, (series, resolved)) in batch.series.iter().zip(resolved).enumerate() {
            let until = batch.ends.get(i).map_or(from, |e| (e.0 as usize, e.1 as usize));
            let of_series = batch.samples.get(from.0..until.0).unwrap_or(&[]);
            let first_sample = from.0;
            let histograms = from.1..until.1.max(from.1);
            from = until;
            let (mut reference, mut place) = match resolved {
                Resolved::Known { reference, place } => (Some(reference), Some((place, true))),
                Resolved::Pending { reference, place } => (Some(reference), Some((place, false))),
                Resolved::Unknown => (None, None),
            };
            let mut left_out = false;
            for (at, sample) in (first_sample..).zip(of_series) {
                let (timestamp, bits) = (sample.timestamp, sample.value.to_bits());
                if timestamp < oldest || timestamp > newest {
                    let reason =
                        if timestamp < oldest { RejectReason::TooOld } else { RejectReason::TooFarAhead };
                    out.reject(i, timestamp, reason);
                    left_out = true;
                    continue;
                }
                if let Some(((source, slot), true)) = place {
                    let state = &head.sources[source as usize];
                    if timestamp <= state.slots[slot as usize].last {
                        let known = known_value(state, (source, slot), timestamp, look_up);
                        #[cfg(feature = "seeded_bugs")]
                        let known = known.filter(|_| !self.forgets);
                        match known {
                            Some(old) if old.is_float(bits) => {
                                repeated.samples += 1;
                                left_out = true;
                                continue;
                            }
                            Some(_) => {
                                out.reject(i, timestamp, RejectReason::DuplicateTimestamp);
                                left_out = true;
                                continue;
                            }
                            None if work.late_left == 0 => {
                                out.reject(i, timestamp, RejectReason::OutOfOrder);
                                left_out = true;
                                continue;
                            }
                            None => work.late_left -= 1,
                        }
                    }
                }
                let (source, slot) = match place {
                    Some((place, _)) => place,
                    None => {
                        let ShardSeries::New { labels, key } = series else { continue };
                        let def = self.create(work, tenant, tenant_number, labels, *key);
                        reference = Some(def.0);
                        place = Some((def.1, false));
                        def.1
                    }
                };
                samples.push(PlanSample { source, slot, timestamp, bits });
                if let Some(start) = batch.starts.get(at) {
                    work.kinds.start((source, slot), timestamp, *start);
                }
            }
            for at in histograms {
                let Some((timestamp, histogram)) = batch.histograms.get(at) else { break };
                let known = place.filter(|(_, applied)| *applied).map(|(place, _)| place);
                let verdict = if *timestamp < oldest {
                    Err(RejectReason::TooOld)
                } else if *timestamp > newest {
                    Err(RejectReason::TooFarAhead)
                } else {
                    work.judge_histogram(known, *timestamp, histogram, look_up)
                };
                match verdict {
                    Ok(true) => {}
                    Ok(false) => {
                        repeated.histograms += 1;
                        left_out = true;
                        continue;
                    }
                    Err(reason) => {
                        out.reject(i, *timestamp, reason);
                        left_out = true;
                        continue;
                    }
                }
                let slot = match place {
                    Some((place, _)) => place,
                    None => {
                        let ShardSeries::New { labels, key } = series else { break };
                        let def = self.create(work, tenant, tenant_number, labels, *key);
                        reference = Some(def.0);
                        place = Some((def.1, false));
                        def.1
                    }
                };
                let start = batch.histogram_starts.get(at).copied().unwrap_or(0);
                let is_fresh = !self.touched.contains_key(&slot.0) && !work.sources.contains(&slot.0);
                work.kinds.histogram(slot, *timestamp, histogram, start, is_fresh);
            }
            if let (Resolved::Pending { .. }, ShardSeries::New { labels, .. }) = (resolved, series) {
                self.define_again(work, tenant, labels);
            }
            let place = place.map(|(place, _)| place);
            out.report.refs[i] = reference.map(SeriesRef);
            out.slots[i] = place;
            if let (Some(mark), Some(place)) = (&mut mark, place) {
                if batch.untracked.get(i).copied().unwrap_or(false) {
                    mark.untracked.push(place);
                } else if left_out {
                    mark.present.push(place);
                }
            }
        }
        self.plan_exemplars(work, batch, (oldest, newest), tenant_number, &mut out, &mut repeated.exemplars);
        out.report.written = repeated;
        work.kinds.note_floats(samples.iter().map(|s| (s.source, s.slot)));
        self.push_rows(work, &mut samples);
        work.push_histograms();
        self.samples = samples;
        if let Some(mark) = &mark {
            self.expect_markers(work, mark.target, &out.slots);
        }

        let mut metadata = Vec::new();
        for item in &batch.metadata {
            let known = tenant_number.and_then(|t| head.metadata.get(&(t, item.family.clone())));
            if known != Some(item) {
                metadata.push(item.clone());
            }
        }
        let is_empty = work.builder.rows.is_empty() && work.builder.records.is_empty();
        if is_empty && mark.is_none() && metadata.is_empty() {
            return Ok((out, false));
        }
        let rejected = out.report.rejected.iter().map(|(reason, count)| (*reason as u8, *count)).collect();
        let tenant = tenant.as_str().to_owned();
        let starts = Vec::new();
        work.builder.end_batch(&BatchHead { repeated, rejected, mark, metadata, tenant, starts });
        Ok((out, true))
    }

    /// Finds every series of the batch, and checks the known refs and the range of the new ones.
    fn resolve(
        &self,
        head: &Head,
        batch: &ShardBatch,
        tenant: &TenantId,
        tenant_number: Option<u32>,
    ) -> Result<Vec<Resolved>, ShardWriteError> {
        let mut resolved = Vec::with_capacity(batch.series.len());
        let (mut check, mut any_known) = (0, false);
        for series in &batch.series {
            resolved.push(match series {
                ShardSeries::Known(reference) => {
                    any_known = true;
                    let sid = head.series.by_ref(reference.0).ok_or(ShardWriteError::UnknownRefs)?;
                    if Some(head.series.tenant(sid)) != tenant_number {
                        return Err(ShardWriteError::UnknownRefs);
                    }
                    check ^= head.series.hash128(sid);
                    Resolved::Known { reference: reference.0, place: head.series.place(sid) }
                }
                ShardSeries::New { labels, key } => {
                    if head.range.is_some_and(|(first, last)| *key < first || *key > last) {
                        return Err(ShardWriteError::WrongOwner { epoch: Epoch(head.epoch) });
                    }
                    let hash = labels.hash128();
                    let known = tenant_number.and_then(|t| head.find_series(t, hash, labels));
                    let pending =
                        || self.new_series.get(&(tenant.clone(), hash)).filter(|p| p.def.labels == *labels);
                    match known {
                        Some(sid) => Resolved::Known {
                            reference: head.series.reference(sid),
                            place: head.series.place(sid),
                        },
                        None if self.new_series.is_empty() => Resolved::Unknown,
                        None => pending().map_or(Resolved::Unknown, |p| Resolved::Pending {
                            reference: p.def.reference,
                            place: (p.def.source, p.def.slot),
                        }),
                    }
                }
            });
        }
        if any_known && (batch.incarnation != self.incarnation || check != batch.known_check) {
            return Err(ShardWriteError::UnknownRefs);
        }
        Ok(resolved)
    }

    /// Gives a new series its ref, source and slot, and defines it in the entry.
    fn create(
        &mut self,
        work: &mut PlanWork<'_>,
        tenant: &TenantId,
        tenant_number: Option<u32>,
        labels: &Labels,
        key: u64,
    ) -> (u64, SlotId) {
        let head = work.head;
        let hash = labels.hash128();
        if let Some(p) = self.new_series.get(&(tenant.clone(), hash)).filter(|p| p.def.labels == *labels) {
            // The same series again in this plan.
            let known = (p.def.reference, (p.def.source, p.def.slot));
            self.define_again(work, tenant, labels);
            return known;
        }
        let source_key = source_key(labels, key);
        let known = self
            .new_sources
            .get(&(tenant.clone(), source_key))
            .copied()
            .map(|id| (id, true))
            .or_else(|| head.by_key.get(&(tenant_number?, source_key)).map(|id| (*id, false)));
        let usable = known.filter(|(id, _)| {
            let state = head.sources.get(*id as usize);
            let len =
                state.map_or(0, |s| s.slots.len()).max(self.next_slot.get(id).map_or(0, |n| *n as usize));
            len < MAX_SLOTS
                && state.is_none_or(|s| s.slots.len() < 1024 || s.evicted as usize * 2 <= s.slots.len())
        });
        let (source, is_new) = usable.unwrap_or_else(|| {
            self.next_source = self.next_source.max(head.sources.len() as u32);
            let id = self.next_source;
            self.next_source += 1;
            self.new_sources.insert((tenant.clone(), source_key), id);
            (id, true)
        });
        let applied_slots = head.sources.get(source as usize).map_or(0, |s| s.slots.len() as u32);
        let next = self.next_slot.entry(source).or_insert(0);
        let slot = (*next).max(applied_slots);
        *next = slot + 1;
        self.next_ref = self.next_ref.max(head.next_ref);
        let reference = self.next_ref;
        self.next_ref += 1;
        let def = SeriesDef { reference, source, slot, labels: labels.clone() };
        let source_key = is_new.then_some(source_key);
        self.new_series.insert((tenant.clone(), hash), PendingSeries { def, source_key, plan: 0 });
        self.define_again(work, tenant, labels);
        (reference, (source, slot))
    }

    /// The slot of series `at` of the batch where the plan has created it for samples that stand elsewhere in the batch:
    /// Prometheus sends exemplars apart from the samples of their series.
    pub(super) fn created(&self, work: &PlanWork<'_>, batch: &ShardBatch, at: usize) -> Option<SlotId> {
        let Some(ShardSeries::New { labels, .. }) = batch.series.get(at) else { return None };
        let series = self.new_series.get(&(batch.tenant.clone()?, labels.hash128()))?;
        let def = &series.def;
        (series.plan == work.plan && def.labels == *labels).then_some((def.source, def.slot))
    }

    /// Puts the definition of a series that is not applied yet into the entry, once.
    fn define_again(&mut self, work: &mut PlanWork<'_>, tenant: &TenantId, labels: &Labels) {
        let Some(series) = self.new_series.get_mut(&(tenant.clone(), labels.hash128())) else { return };
        if series.plan == work.plan {
            return;
        }
        series.plan = work.plan;
        if let Some(key) = series.source_key
            && work.defined.insert(series.def.source)
        {
            let tenant = tenant.as_str().to_owned();
            work.builder.define_source(&SourceDef { id: series.def.source, tenant, key });
        }
        work.builder.define_series(&series.def);
    }

    /// Turns a batch's samples into rows.
    fn push_rows(&self, work: &mut PlanWork<'_>, samples: &mut [PlanSample]) {
        if !samples.is_sorted_by_key(PlanSample::order) {
            samples.sort_by_key(PlanSample::order);
        }
        let mut rest: Vec<PlanSample> = Vec::new();
        for row in samples.chunk_by(|a, b| (a.source, a.timestamp) == (b.source, b.timestamp)) {
            if row.windows(2).all(|pair| pair[0].slot < pair[1].slot) {
                self.push_row(work, row);
                continue;
            }
            // A slot more than once at a timestamp: further rows, so that apply judges in the order of arrival.
            let mut left = row.to_vec();
            while !left.is_empty() {
                let mut taken: Vec<PlanSample> = Vec::with_capacity(left.len());
                rest.clear();
                for sample in left.drain(..) {
                    if taken.last().is_some_and(|last| last.slot == sample.slot) {
                        rest.push(sample);
                    } else {
                        taken.push(sample);
                    }
                }
                self.push_row(work, &taken);
                std::mem::swap(&mut left, &mut rest);
            }
        }
    }

    fn push_row(&self, work: &mut PlanWork<'_>, row: &[PlanSample]) {
        let Some(&PlanSample { source, timestamp, .. }) = row.first() else { return };
        let PlanWork {
            head, builder, sources, previous_source, previous, slots, values, bases, kinds, ..
        } = work;
        slots.clear();
        values.clear();
        bases.clear();
        slots.extend(row.iter().map(|s| s.slot));
        values.extend(row.iter().map(|s| s.bits));
        let state = head.sources.get(source as usize).filter(|_| !self.touched.contains_key(&source));
        let first_in_entry = sources.insert(source);
        let mut same = false;
        let base = match state {
            _ if *previous_source == Some(source) => {
                previous_bases(slots, &previous.0, &previous.1, bases);
                Base::Previous
            }
            Some(state) if first_in_entry => {
                bases.extend(slots.iter().map(|s| state.slots.get(*s as usize).map_or(0, |slot| slot.bits)));
                same = ones(&state.last_set).eq(slots.iter().copied());
                Base::Applied { revision: state.revision }
            }
            _ => {
                bases.resize(slots.len(), 0);
                Base::Absolute
            }
        };
        let applied = state.filter(|_| matches!(base, Base::Applied { .. }));
        builder.rows.push((source, timestamp), base, slots, same, (bases, values));
        if kinds.has_starts() {
            kinds.push_starts(builder, (source, timestamp), slots, applied);
        }
        *previous_source = Some(source);
        std::mem::swap(&mut previous.0, slots);
        std::mem::swap(&mut previous.1, values);
    }

    /// Takes note that apply may write staleness markers of `target`: no later plan may count on the state of the
    /// sources that the target feeds, in the applied state or through plans that are not applied yet.
    fn expect_markers(&mut self, work: &mut PlanWork<'_>, target: u64, slots: &[Option<SlotId>]) {
        let fed = self.target_sources.entry(target).or_default();
        fed.extend(work.head.targets.sources_of(target));
        fed.extend(slots.iter().flatten().map(|(source, _)| *source));
        work.sources.extend(fed.iter().copied());
    }
}

/// What lives as long as one plan is made.
pub(super) struct PlanWork<'a> {
    pub(super) head: &'a Head,
    plan: u64,
    pub(super) builder: WriteBuilder,
    /// Sources that the entry touches so far.
    pub(super) sources: BTreeSet<u32>,
    /// Sources that the entry defines.
    defined: BTreeSet<u32>,
    pub(super) late_left: usize,
    pub(super) kinds: KindWork,
    previous_source: Option<u32>,
    previous: (Vec<u32>, Vec<u64>),
    slots: Vec<u32>,
    values: Vec<u64>,
    bases: Vec<u64>,
}

/// The sample stored at a timestamp that is not newer than the slot's last.
pub(super) fn known_value(
    source: &Source,
    place: SlotId,
    timestamp: i64,
    look_up: &mut LookUp<'_>,
) -> Option<Stored> {
    source.stored(place.1, timestamp).or_else(|| look_up(place, timestamp))
}

/// Identity of a source within its tenant: job and instance; for series without instance, job and the top 8 bits of the
/// placement key.
pub(crate) fn source_key(labels: &Labels, key: u64) -> u128 {
    let job = labels.get("job").unwrap_or("");
    let mut bytes = Vec::with_capacity(job.len() + 40);
    match labels.get("instance") {
        Some(instance) => {
            bytes.push(1);
            bytes.extend_from_slice(instance.as_bytes());
        }
        None => bytes.extend_from_slice(&[0, (key >> 56) as u8]),
    }
    bytes.push(0xff);
    bytes.extend_from_slice(job.as_bytes());
    xxh3_128(&bytes)
}

impl PendingBatch {
    pub(super) fn reject(&mut self, series: usize, timestamp: i64, reason: RejectReason) {
        let report = &mut self.report;
        *report.rejected.entry(reason).or_default() += 1;
        if report.rejections.len() < MAX_LISTED {
            report.rejections.push((series as u32, timestamp, reason));
        }
    }

    fn complete(mut self, outcome: &BatchOutcome) -> ShardReport {
        if outcome.fenced {
            self.report.written = Counts::default();
            self.report.refs.fill(None);
            *self.report.rejected.entry(RejectReason::Fenced).or_default() += self.slots.len() as u64;
            return self.report;
        }
        self.report.written = outcome.written;
        for (place, timestamp, reason) in &outcome.rejected {
            let listed = self.report.rejections.len() < MAX_LISTED;
            let series = if listed { self.slots.iter().position(|slot| slot == &Some(*place)) } else { None };
            self.reject(series.unwrap_or(0), *timestamp, *reason);
        }
        self.report
    }
}
