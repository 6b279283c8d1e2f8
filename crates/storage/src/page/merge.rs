//! Consecutive pages of the same slots → larger pages, exact and without duplicates.

use std::collections::BTreeMap;

use model::TimeRange;
use model::seam::SeriesData;

use super::{
    MAX_ROWS, MAX_SERIES, PageBuilder, PageError, PageMeta, PageReader, PageScratch, PageSummary, Precedence,
    SeriesInput, join,
};

/// Samples of a slot that are not to be kept: deleted, or beyond retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The slot.
    pub slot: u32,
    /// Which of its samples.
    pub range: TimeRange,
}

/// A page to merge.
#[derive(Debug)]
pub struct MergeInput<'a, B> {
    /// The page.
    pub page: &'a PageReader<B>,
    /// What of it is masked.
    pub masks: &'a [Mask],
}

/// Merges `inputs` into pages of about `target_rows` rows (at most [`MAX_ROWS`]) a series and gives each to `out`,
/// in order of time, then slot. Nothing is given when everything is masked.
///
/// The merged pages carry the range of the inputs' sequences and are late only if all inputs are. So that the first
/// value stays also afterwards, late pages are merged oldest sequence first: never leave out a late page that is
/// older than one of the inputs and overlaps it in time.
pub fn merge<B: AsRef<[u8]>>(
    inputs: &[MergeInput<'_, B>],
    target_rows: usize,
    mut out: impl FnMut(Vec<u8>, PageSummary),
) -> Result<(), PageError> {
    let metas = || inputs.iter().map(|input| input.page.meta());
    let (Some(sequence), Some(last_sequence)) =
        (metas().map(|m| m.sequence).min(), metas().map(|m| m.last_sequence).max())
    else {
        return Ok(());
    };
    let meta = PageMeta { sequence, last_sequence, late: metas().all(|m| m.late) };
    let series = collect(inputs)?;

    let longest = series.values().map(|s| s.data.stamps.len()).max().unwrap_or(0);
    let target_rows = target_rows.clamp(1, MAX_ROWS);
    // Pages of equal size, rather than full ones and a rest.
    let rows = longest.div_ceil(longest.div_ceil(target_rows).max(1)).max(1);
    let mut after = i64::MIN;
    let mut builder = PageBuilder::new();
    loop {
        let until = series.values().filter_map(|s| s.cut(after, rows)).min().unwrap_or(i64::MAX);
        let mut slots = series.iter().filter(|(_, s)| s.end(after) != s.end(until)).peekable();
        while slots.peek().is_some() {
            builder.begin(meta);
            for (slot, series) in slots.by_ref().take(MAX_SERIES) {
                series.add(*slot, after, until, &mut builder)?;
            }
            let mut page = Vec::new();
            let summary = builder.finish(&mut page)?;
            out(page, summary);
        }
        if until == i64::MAX {
            return Ok(());
        }
        after = until;
    }
}

/// All samples of one slot.
#[derive(Default)]
struct Merged {
    data: SeriesData,
}

impl Merged {
    /// Rows before the end of `until`.
    fn end(&self, until: i64) -> usize {
        self.data.stamps.partition_point(|t| *t <= until)
    }

    /// The last time of a page that begins after `after` and has at most `rows` rows of this series; `None` when
    /// all of the rest fits.
    fn cut(&self, after: i64, rows: usize) -> Option<i64> {
        let stamps = &self.data.stamps[self.end(after)..];
        (stamps.len() > rows).then(|| stamps[rows - 1])
    }

    fn add(&self, slot: u32, after: i64, until: i64, builder: &mut PageBuilder) -> Result<(), PageError> {
        let (row, row_end) = (self.end(after), self.end(until));
        let of_row = |at: u32| (row..row_end).contains(&(at as usize));
        let offset = u32::try_from(row).map_err(|_| PageError::Format("number of rows"))?;
        let histograms: Vec<_> = self
            .data
            .histograms
            .iter()
            .filter(|(at, _)| of_row(*at))
            .map(|(at, histogram)| (*at - offset, histogram.clone()))
            .collect();
        builder.add(&SeriesInput {
            slot,
            stamps: &self.data.stamps[row..row_end],
            values: &self.data.values[row..row_end],
            histograms: &histograms,
            starts: if self.data.starts.is_empty() { &[] } else { &self.data.starts[row..row_end] },
        })
    }
}

/// Reads all inputs, slot by slot, and joins what belongs together.
fn collect<B: AsRef<[u8]>>(inputs: &[MergeInput<'_, B>]) -> Result<BTreeMap<u32, Merged>, PageError> {
    let mut places: BTreeMap<u32, Vec<(usize, usize)>> = BTreeMap::new();
    for (input, MergeInput { page, .. }) in inputs.iter().enumerate() {
        for (index, series) in page.series().enumerate() {
            places.entry(series.slot).or_default().push((input, index));
        }
    }
    let mut scratches: Vec<PageScratch> = inputs.iter().map(|_| PageScratch::new()).collect();
    let mut merged = BTreeMap::new();
    for (slot, places) in places {
        let mut parts: Vec<(Precedence, SeriesData)> = Vec::with_capacity(places.len());
        for (input, index) in places {
            let MergeInput { page, masks } = &inputs[input];
            let scratch = &mut scratches[input];
            for range in gaps(masks, slot) {
                let mut part = SeriesData::default();
                page.read(index, range, scratch, &mut part)?;
                parts.push((page.meta().precedence(), part));
            }
        }
        let mut all = Merged::default();
        join(&parts, &mut all.data);
        if !all.data.stamps.is_empty() {
            merged.insert(slot, all);
        }
    }
    Ok(merged)
}

/// What the masks of a slot leave over.
fn gaps(masks: &[Mask], slot: u32) -> Vec<TimeRange> {
    let mut ranges: Vec<TimeRange> = masks.iter().filter(|m| m.slot == slot).map(|m| m.range).collect();
    ranges.sort_by_key(|r| r.after);
    let mut gaps = Vec::new();
    let mut after = i64::MIN;
    for range in ranges {
        if range.after > after {
            gaps.push(TimeRange { after, until: range.after });
        }
        after = after.max(range.until);
    }
    if after < i64::MAX {
        gaps.push(TimeRange { after, until: i64::MAX });
    }
    gaps
}
