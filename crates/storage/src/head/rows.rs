//! What a row does to a source: each sample is accepted, found to be there already, rejected, or late.

use model::seam::RejectReason;

use super::source::{LateSample, NEVER, Source};
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
}

/// Applies a row: `slots` ascend, `values` are bits. A sample newer than its slot's last one is accepted. At the same
/// timestamp, or where the open tile has one, the same bits are a success and others are rejected: the first value
/// stays. Anything else is late and kept with the log index as sequence; readers take the lowest.
pub(crate) fn apply_row(
    source: &mut Source,
    timestamp: i64,
    (slots, values): (&[u32], &[u64]),
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
        let there = if timestamp == state.last && !source.gone.contains(&slot) {
            Some(state.bits)
        } else {
            source.tile.as_ref().and_then(|tile| tile.get(slot, timestamp))
        };
        match there {
            Some(old) if old == bits => outcome.written += 1,
            Some(_) => outcome.rejected.push((slot, RejectReason::DuplicateTimestamp)),
            None => {
                outcome.written += 1;
                outcome.late += 1;
                source.push_late(LateSample { slot, timestamp, bits, sequence: index });
            }
        }
    }
    outcome.written += work.cells.len() as u64;
    if !work.cells.is_empty() {
        let n_slots = source.slots.len();
        source.open_tile(clock).put(timestamp, n_slots, &work.cells);
    }
    source.revision += 1;
    source.last_set.clear();
    source.last_set.resize(slots.last().map_or(0, |last| *last as usize / 64 + 1), 0);
    for slot in slots {
        source.last_set[*slot as usize / 64] |= 1 << (slot % 64);
    }
    outcome
}
