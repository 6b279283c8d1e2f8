//! What became of a batch, gathered from the router's own rejections and the shards' reports.

use std::collections::BTreeMap;

use model::LabelsBuilder;
use model::seam::{Counts, RejectReason, ShardReport, WriteBatch, WriteReport};

use crate::plan::Part;
use crate::validate::show;

/// Rejections that are told in words.
const MAX_TEXTS: usize = 5;

/// The most bytes of a request that a message echoes, cut marks aside.
const MAX_ECHO: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) written: Counts,
    pub(crate) rejected: BTreeMap<RejectReason, u64>,
    texts: Vec<String>,
}

impl Outcome {
    /// Counts `n` samples as rejected; `text` is only made when there is room for it.
    pub(crate) fn reject(&mut self, reason: RejectReason, n: u64, text: impl FnOnce() -> String) {
        *self.rejected.entry(reason).or_default() += n;
        if self.texts.len() < MAX_TEXTS {
            self.texts.push(text());
        }
    }

    /// Adds the report of `part`, a part of `batch`.
    pub(crate) fn add(&mut self, batch: &WriteBatch, part: &Part, report: &ShardReport) {
        self.written.samples += report.written.samples;
        self.written.histograms += report.written.histograms;
        self.written.exemplars += report.written.exemplars;
        for (reason, n) in &report.rejected {
            *self.rejected.entry(*reason).or_default() += n;
        }
        let room = MAX_TEXTS.saturating_sub(self.texts.len());
        for (at, timestamp, reason) in report.rejections.iter().take(room) {
            let series = part.origins.get(*at as usize).map(|origin| series_text(batch, origin.series));
            let series = series.unwrap_or_else(|| "?".into());
            let why = match reason {
                RejectReason::TooOld => {
                    format!("is older than the retention floor {}", part.batch.min_timestamp)
                }
                RejectReason::TooFarAhead => {
                    format!("is too far ahead of now, the newest accepted is {}", part.batch.max_timestamp)
                }
                RejectReason::DuplicateTimestamp => {
                    "has another value than the one stored at that time".into()
                }
                RejectReason::OutOfOrder => "is late and there is no more room for late samples".into(),
                RejectReason::SeriesLimit => "is of a series over the limit of series".into(),
                RejectReason::Fenced => "comes from a scraper that no longer owns its target".into(),
                RejectReason::OutOfOrderExemplar => "is older than the newest one of the series".into(),
                RejectReason::ExemplarWithoutSeries => "has no sample or histogram beside it".into(),
                other => format!("was rejected: {}", other.as_str()),
            };
            let what = match reason {
                RejectReason::OutOfOrderExemplar | RejectReason::ExemplarWithoutSeries => "exemplar",
                _ => "sample",
            };
            self.texts.push(format!("{what} at {timestamp} of {series} {why}"));
        }
    }

    pub(crate) fn into_report(self) -> WriteReport {
        WriteReport { written: self.written, rejected: self.rejected, first_reasons: self.texts }
    }
}

/// Series `index` of `batch` in words.
pub(crate) fn series_text(batch: &WriteBatch, index: u32) -> String {
    let mut builder = LabelsBuilder::new();
    let region =
        batch.series.get(index as usize).map(|series| region(batch, &series.labels)).unwrap_or_default();
    match (batch.decode_labels)(region, &mut builder).and_then(|()| builder.build()) {
        Ok(labels) => show(&labels),
        Err(error) => shorten(&error.to_string(), MAX_ECHO),
    }
}

/// The bytes of a label region; empty when it lies outside of the buffer.
#[inline]
pub(crate) fn region<'a>(batch: &'a WriteBatch, range: &std::ops::Range<u32>) -> &'a [u8] {
    batch.buffer.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// `text`, or its first `limit` bytes and a mark that there is more.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
