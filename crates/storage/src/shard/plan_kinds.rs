//! Planning what of a batch is more than floats: start timestamps, histograms, exemplars.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use model::Histogram;
use model::seam::{RejectReason, ShardBatch};

use super::planner::{LookUp, PendingBatch, PlanWork, Planner, known_value};
use crate::entry::{HistogramRecord, RowStarts, SlotId, WriteBuilder};
use crate::head::exemplars::Judgement;
use crate::head::source::Source;

/// What waits until the batch's rows are made.
#[derive(Debug, Default)]
pub(super) struct KindWork {
    /// Start timestamps of the batch's floats; the first at a slot and timestamp stays.
    starts: HashMap<(u32, u32, i64), i64>,
    /// Histograms, and whether the applied state of their slot is what apply will meet.
    histograms: Vec<(HistogramRecord, bool)>,
    /// Slots that have floats in the batch too; only known when it has histograms.
    floats: BTreeSet<SlotId>,
    row_starts: Vec<i64>,
    inherited: Vec<i64>,
}

impl KindWork {
    pub(super) fn start(&mut self, (source, slot): SlotId, timestamp: i64, start: i64) {
        self.starts.entry((source, slot, timestamp)).or_insert(start);
    }

    pub(super) fn has_starts(&self) -> bool {
        !self.starts.is_empty()
    }

    pub(super) fn histogram(
        &mut self,
        slot: SlotId,
        timestamp: i64,
        histogram: &Arc<Histogram>,
        start: i64,
        is_fresh: bool,
    ) {
        let histogram = Arc::clone(histogram);
        self.histograms.push((HistogramRecord { slot, timestamp, start, histogram }, is_fresh));
    }

    /// Takes note of the slots of the batch's floats, which are applied before its histograms.
    pub(super) fn note_floats(&mut self, slots: impl Iterator<Item = SlotId>) {
        self.floats.clear();
        if !self.histograms.is_empty() {
            self.floats.extend(slots);
        }
    }

    /// Tells the start timestamps of the row just pushed; `applied` is its source where the row is coded against it.
    pub(super) fn push_starts(
        &mut self,
        builder: &mut WriteBuilder,
        (source, timestamp): (u32, i64),
        slots: &[u32],
        applied: Option<&Source>,
    ) {
        let Self { starts, row_starts, inherited, .. } = self;
        row_starts.clear();
        row_starts.extend(slots.iter().map(|s| starts.get(&(source, *s, timestamp)).copied().unwrap_or(0)));
        let kinds = applied.and_then(|source| source.kinds.as_deref());
        let inherited = kinds.map(|kinds| {
            inherited.clear();
            inherited.extend(slots.iter().map(|slot| kinds.newest_start(*slot)));
            &inherited[..]
        });
        let row = builder.rows.count() - 1;
        if let Some(told) = RowStarts::of(row, row_starts, inherited) {
            builder.rows.fold_starts(row_starts);
            builder.records.push_starts(told);
        }
    }
}

impl PlanWork<'_> {
    /// Whether a histogram belongs into the entry, being new as far as the applied state tells (`place` is its slot
    /// there), or is there already; or why it is rejected.
    pub(super) fn judge_histogram(
        &mut self,
        place: Option<SlotId>,
        timestamp: i64,
        histogram: &Histogram,
        look_up: &mut LookUp<'_>,
    ) -> Result<bool, RejectReason> {
        let Some(place) = place else { return Ok(true) };
        let source = &self.head.sources[place.0 as usize];
        if timestamp > source.slots[place.1 as usize].last {
            return Ok(true);
        }
        match known_value(source, place, timestamp, look_up) {
            Some(old) if old.is_histogram(histogram) => Ok(false),
            Some(_) => Err(RejectReason::DuplicateTimestamp),
            None if self.late_left == 0 => Err(RejectReason::OutOfOrder),
            None => {
                self.late_left -= 1;
                Ok(true)
            }
        }
    }

    /// Puts the batch's histograms into the entry, after its rows; ends what belongs to the batch.
    pub(super) fn push_histograms(&mut self) {
        let mut all = std::mem::take(&mut self.kinds.histograms);
        all.sort_by_key(|(record, _)| (record.timestamp, record.slot));
        for (record, is_fresh) in &all {
            let (source, slot) = record.slot;
            let applied = self
                .head
                .sources
                .get(source as usize)
                .filter(|_| *is_fresh && !self.kinds.floats.contains(&record.slot))
                .and_then(|state| state.kinds.as_deref()?.newest(slot));
            self.builder.records.push_histogram(record, applied.map(|h| &**h));
            self.sources.insert(source);
        }
        all.clear();
        self.kinds.histograms = all;
        self.kinds.starts.clear();
    }
}

impl Planner {
    /// Puts those exemplars of the batch into the entry that are new as far as the applied state tells; counts in
    /// `repeated` those that are there already.
    pub(super) fn plan_exemplars(
        &self,
        work: &mut PlanWork<'_>,
        batch: &ShardBatch,
        (oldest, newest): (i64, i64),
        tenant: Option<u32>,
        out: &mut PendingBatch,
        repeated: &mut u64,
    ) {
        let head = work.head;
        for (series, exemplar) in &batch.exemplars {
            let at = *series as usize;
            let timestamp = exemplar.timestamp;
            let place = out.slots.get(at).copied().flatten();
            let Some(place) = place.or_else(|| self.created(work, batch, at)) else {
                out.reject(at, timestamp, RejectReason::ExemplarWithoutSeries);
                continue;
            };
            let reason = match timestamp {
                t if t < oldest => Some(RejectReason::TooOld),
                t if t > newest => Some(RejectReason::TooFarAhead),
                _ => None,
            };
            let reference = out.report.refs.get(at).copied().flatten();
            let judgement = match (reason, tenant.zip(reference)) {
                (Some(reason), _) => {
                    out.reject(at, timestamp, reason);
                    continue;
                }
                (None, Some((tenant, reference))) => head.exemplars.judge(tenant, reference.0, exemplar),
                (None, None) => Judgement::New,
            };
            match judgement {
                Judgement::New => work.builder.records.push_exemplar(place, exemplar),
                Judgement::Repeated => *repeated += 1,
                Judgement::OutOfOrder => out.reject(at, timestamp, RejectReason::OutOfOrderExemplar),
            }
        }
    }
}
