//! The series that every scrape makes about itself, and the batch of a whole scrape.
//!
//! Source: upstream `scrapeLoop.report` and
//! <https://prometheus.io/docs/concepts/jobs_instances/#automatically-generated-labels-and-time-series>.

use std::ops::Range;

use model::seam::{BatchSeries, ScrapeMark, WriteBatch, decode_canonical};
use model::{LabelError, Labels, LabelsBuilder, METRIC_NAME, Sample, TenantId};

use crate::append::Appended;

/// In this order; the last three only with `extra_scrape_metrics`.
const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// What a scrape says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// It went well.
    pub(crate) up: bool,
    /// Time it took, seconds.
    pub(crate) duration: f64,
    /// See [`Appended`].
    pub(crate) scraped: u64,
    /// See [`Appended`].
    pub(crate) after_relabelling: u64,
    /// See [`Appended`].
    pub(crate) series_added: u64,
    /// Set with `extra_scrape_metrics`.
    pub(crate) extra: Option<Extra>,
}

/// What `extra_scrape_metrics` adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra {
    /// Timeout, seconds.
    pub(crate) timeout: f64,
    /// `sample_limit`.
    pub(crate) sample_limit: u64,
    /// Decoded bytes of the body; −1 when it was over its limit.
    pub(crate) body_bytes: f64,
}

/// The labels of a target's report series, in canonical bytes.
#[derive(Debug)]
pub(crate) struct ReportLabels {
    bytes: Vec<u8>,
    ranges: [Range<usize>; NAMES.len()],
}

impl ReportLabels {
    /// Those of a target with `target` labels.
    pub(crate) fn new(target: &Labels) -> Result<Self, LabelError> {
        let mut bytes = Vec::new();
        let mut ranges: [Range<usize>; NAMES.len()] = Default::default();
        for (range, name) in ranges.iter_mut().zip(NAMES) {
            let labels = LabelsBuilder::from_labels(target).set(METRIC_NAME, name).build()?;
            let start = bytes.len();
            bytes.extend_from_slice(labels.as_bytes());
            *range = start..bytes.len();
        }
        Ok(Self { bytes, ranges })
    }
}

/// The batch of one scrape: what it found (`appended` over `label_bytes`) and its report.
pub(crate) fn batch(
    tenant: &TenantId,
    mark: ScrapeMark,
    label_bytes: &[u8],
    appended: Appended,
    labels: &ReportLabels,
    report: &Report,
) -> WriteBatch {
    let Appended { mut series, mut samples, mut starts, histograms, histogram_starts, exemplars, .. } =
        appended;
    let mut buffer = Vec::with_capacity(label_bytes.len() + labels.bytes.len());
    buffer.extend_from_slice(label_bytes);
    let base = buffer.len();
    buffer.extend_from_slice(&labels.bytes);

    let mut values = vec![
        f64::from(u8::from(report.up)),
        report.duration,
        report.scraped as f64,
        report.after_relabelling as f64,
        report.series_added as f64,
    ];
    if let Some(extra) = report.extra {
        values.extend([extra.timeout, extra.sample_limit as f64, extra.body_bytes]);
    }
    for (value, range) in values.into_iter().zip(&labels.ranges) {
        let first = samples.len() as u32;
        samples.push(Sample { timestamp: mark.timestamp, value });
        series.push(BatchSeries {
            labels: (base + range.start) as u32..(base + range.end) as u32,
            samples: first..first + 1,
            ..BatchSeries::default()
        });
    }
    if !starts.is_empty() {
        starts.resize(samples.len(), 0);
    }
    WriteBatch {
        series,
        samples,
        starts,
        histograms,
        histogram_starts,
        exemplars,
        ..ended(tenant, mark, buffer)
    }
}

/// The batch that says that a target has ended: its whole scrape has no series.
pub(crate) fn ended_batch(tenant: &TenantId, mark: ScrapeMark) -> WriteBatch {
    ended(tenant, mark, Vec::new())
}

fn ended(tenant: &TenantId, mark: ScrapeMark, buffer: Vec<u8>) -> WriteBatch {
    WriteBatch {
        tenant: tenant.clone(),
        buffer,
        decode_labels: decode_canonical,
        series: Vec::new(),
        samples: Vec::new(),
        starts: Vec::new(),
        histograms: Vec::new(),
        histogram_starts: Vec::new(),
        exemplars: Vec::new(),
        metadata: Vec::new(),
        scrape: Some(mark),
    }
}
