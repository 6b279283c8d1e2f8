//! What a row or a histogram does to a source: each sample is accepted, found to be there already, rejected, or late.

use std::sync::Arc;

use model::histogram::ResetHint;
use model::seam::RejectReason;
use model::{Histogram, STALE_NAN_BITS};

use super::source::{LateKind, LateSample, NEVER, Source};
use super::tile::Cell;

/// What became of the samples of a row.
#[derive(Debug, Default)]
pub(crate) struct RowOutcome {
    /// Stored, or there already with the same value.
    pub(crate) written: u64,
    pub(crate) late: u64,
    /// Slots whose sample was rejected.
    pub(crate) rejected: Vec<(u32, RejectReason)>,
}

/// Scratch memory of [`apply_row`].
#[derive(Debug, Default)]
pub(crate) struct RowWork {
    cells: Vec<Cell>,
    /// `RetryAppendsTwice`.
    #[cfg(feature = "seeded_bugs")]
    pub(crate) appends_twice: bool,
}

/// Applies a row: `slots` ascend, `values` are bits; `starts` are the start timestamps, if the row has any. A sample newer than its slot's last one is accepted. At the same
/// timestamp, or where the open tile has one, the same bits are a success and others are rejected: the first value
/// stays. Anything else is late and kept with the log index as sequence; readers take the lowest.
pub(crate) fn apply_row(
    source: &mut Source,
    timestamp: i64,
    (slots, values): (&[u32], &[u64]),
    starts: Option<&[i64]>,
    (index, clock): (u64, i64),
    work: &mut RowWork,
) -> RowOutcome {
    let mut outcome = RowOutcome::default();
    work.cells.clear();
    for (&slot, &bits) in slots.iter().zip(values) {
        let state = &mut source.slots[slot as usize];
        if timestamp > state.last {
            state.last = timestamp;
            state.bits = bits;
            if !source.gone.is_empty() {
                source.gone.remove(&slot);
            }
            work.cells.push((slot, bits));
            continue;
        }
        debug_assert!(state.last != NEVER, "every timestamp is above it");
        #[cfg(feature = "seeded_bugs")]
        if work.appends_twice && timestamp == state.last && bits == state.bits {
            outcome.written += 1;
            source.open_tile(clock).append(timestamp, (slot, bits));
            continue;
        }
        match source.stored(slot, timestamp) {
            Some(old) if old.is_float(bits) => outcome.written += 1,
            Some(_) => outcome.rejected.push((slot, RejectReason::DuplicateTimestamp)),
            None => {
                outcome.written += 1;
                outcome.late += 1;
                let start = starts.map_or(0, |starts| start_of(slot, slots, starts));
                let more = (start != 0).then(|| Arc::new(LateKind { histogram: None, start }));
                source.push_late(LateSample { slot, timestamp, bits, sequence: index, more });
            }
        }
    }
    outcome.written += work.cells.len() as u64;
    if !work.cells.is_empty() {
        let n_slots = source.slots.len();
        source.open_tile(clock).put(timestamp, n_slots, &work.cells);
        if starts.is_some() || source.kinds.is_some() {
            let kinds = source.kinds_mut();
            for (slot, _) in &work.cells {
                kinds.float(*slot, timestamp, starts.map_or(0, |starts| start_of(*slot, slots, starts)));
            }
        }
    }
    source.revision += 1;
    source.last_set.clear();
    source.last_set.resize(slots.last().map_or(0, |last| *last as usize / 64 + 1), 0);
    for slot in slots {
        source.last_set[*slot as usize / 64] |= 1 << (slot % 64);
    }
    outcome
}

fn start_of(slot: u32, slots: &[u32], starts: &[i64]) -> i64 {
    slots.binary_search(&slot).ok().and_then(|at| starts.get(at)).copied().unwrap_or(0)
}

/// What is known about a counter reset before `histogram`, as upstream's store tells it: one that goes on from the sample
/// just `before` it says so, a gauge stays one, all others say nothing. Senders' own hints are not trusted, since they
/// cannot know what came between; but a "reset" is never turned into its contrary.
pub(crate) fn known_hint(before: Option<&Histogram>, histogram: &Histogram) -> ResetHint {
    let goes_on = |before: &Histogram| {
        before.reset_hint != ResetHint::Gauge
            && histogram.reset_hint != ResetHint::Reset
            && !before.is_stale()
            && histogram.continues(before)
    };
    match histogram.reset_hint {
        ResetHint::Gauge => ResetHint::Gauge,
        hint if histogram.is_stale() => hint,
        _ if before.is_some_and(goes_on) => ResetHint::NotReset,
        _ => ResetHint::Unknown,
    }
}

/// Applies a histogram, under the rules of [`apply_row`]; gives whether it is late. One that is not late is stored with
/// what is known of a reset before it ([`known_hint`]), since a reader may not see the sample before.
pub(crate) fn apply_histogram(
    source: &mut Source,
    (slot, timestamp): (u32, i64),
    mut histogram: Arc<Histogram>,
    start: i64,
    (index, clock): (u64, i64),
) -> Result<bool, RejectReason> {
    let state = &mut source.slots[slot as usize];
    if timestamp > state.last {
        state.last = timestamp;
        // Whether the newest sample is a staleness marker is asked of the bits.
        state.bits = if histogram.is_stale() { STALE_NAN_BITS } else { 0 };
        let cell = (slot, state.bits);
        source.gone.remove(&slot);
        let n_slots = source.slots.len();
        source.open_tile(clock).put(timestamp, n_slots, &[cell]);
        let kinds = source.kinds_mut();
        let hint = known_hint(kinds.newest(slot).map(|newest| &**newest), &histogram);
        // What a sender says of a reset is kept where it does not claim more than is known.
        if hint != histogram.reset_hint
            && (hint, histogram.reset_hint) != (ResetHint::Unknown, ResetHint::Reset)
        {
            Arc::make_mut(&mut histogram).reset_hint = hint;
        }
        kinds.histogram(slot, timestamp, histogram, start);
        return Ok(false);
    }
    match source.stored(slot, timestamp) {
        Some(old) if old.is_histogram(&histogram) => Ok(false),
        Some(_) => Err(RejectReason::DuplicateTimestamp),
        None => {
            let more = Some(Arc::new(LateKind { histogram: Some(histogram), start }));
            source.push_late(LateSample { slot, timestamp, bits: 0, sequence: index, more });
            Ok(true)
        }
    }
}
