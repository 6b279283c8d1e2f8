//! The samples of one series from several places (pages, open rows) → one ascending sequence, and the rule for
//! duplicates: **the first value stays**.

use std::borrow::Borrow;

use model::LogIndex;
use model::seam::SeriesData;

/// Decides between two samples of a series at one timestamp: the lower one stays.
///
/// A slot's rows in order come before its late rows: a sample is late only because the slot already had a newer one
/// when it came, so a sample in order at that timestamp was applied before it, whatever page was sealed first. Among
/// late rows the log index decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// Whether it came as a late row.
    pub late: bool,
    /// Log index at which its page was sealed, or of its row.
    pub sequence: LogIndex,
}

impl Precedence {
    /// Of rows that came in order.
    pub fn in_order(sequence: LogIndex) -> Self {
        Self { late: false, sequence }
    }

    /// Of late rows.
    pub fn late(sequence: LogIndex) -> Self {
        Self { late: true, sequence }
    }
}

/// Replaces the samples of `out` (not its labels) by those of `parts`, ascending, each timestamp once. Each part is
/// ascending in itself. Between parts of equal precedence the earlier in the list wins.
pub fn join<D: Borrow<SeriesData>>(parts: &[(Precedence, D)], out: &mut SeriesData) {
    out.stamps.clear();
    out.values.clear();
    out.histograms.clear();
    out.starts.clear();
    let mut parts: Vec<(Precedence, &SeriesData)> = parts
        .iter()
        .map(|(precedence, part)| (*precedence, part.borrow()))
        .filter(|(_, part)| !part.stamps.is_empty())
        .collect();
    parts.sort_by_key(|(_, part)| part.stamps[0]);
    let apart = parts.windows(2).all(|pair| pair[0].1.stamps.last() < pair[1].1.stamps.first());
    if apart {
        for (_, part) in parts {
            append(part, 0, part.stamps.len(), out);
        }
        return;
    }

    // Positions in order of (stamp, precedence); runs of a part that nothing else interrupts are copied whole.
    parts.sort_by_key(|(precedence, _)| *precedence);
    let mut order: Vec<(i64, u32, u32)> = Vec::with_capacity(parts.iter().map(|(_, p)| p.stamps.len()).sum());
    for (rank, (_, part)) in (0..).zip(&parts) {
        order.extend((0..).zip(&part.stamps).map(|(row, stamp)| (*stamp, rank, row)));
    }
    order.sort();
    order.dedup_by_key(|(stamp, ..)| *stamp);
    for run in order.chunk_by(|a, b| a.1 == b.1 && a.2 + 1 == b.2) {
        let (_, rank, row) = run[0];
        append(parts[rank as usize].1, row as usize, run.len(), out);
    }
}

/// Appends `len` samples of `part` from `start` on.
fn append(part: &SeriesData, start: usize, len: usize, out: &mut SeriesData) {
    let before = out.stamps.len();
    let end = start + len;
    out.stamps.extend_from_slice(&part.stamps[start..end]);
    out.values.extend_from_slice(&part.values[start..end]);
    let first = part.histograms.partition_point(|(row, _)| (*row as usize) < start);
    for (row, histogram) in &part.histograms[first..] {
        let row = *row as usize;
        if row >= end {
            break;
        }
        if let Ok(row) = u32::try_from(before + row - start) {
            out.histograms.push((row, histogram.clone()));
        }
    }
    if !part.starts.is_empty() {
        out.starts.resize(before, 0);
        out.starts.extend_from_slice(&part.starts[start..end]);
    } else if !out.starts.is_empty() {
        out.starts.resize(before + len, 0);
    }
}
