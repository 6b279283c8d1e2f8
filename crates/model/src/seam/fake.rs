//! Small real implementations of seams for tests: series in memory, a sink that records, a clock set by hand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{
    BoxFuture, Clock, Counts, SampleSink, SelectRequest, SeriesData, SeriesExemplars, SeriesIter,
    SeriesSource, WriteBatch, WriteReport,
};
use crate::{Exemplar, Failure, Histogram, Labels, LabelsBuilder, Matcher, MetricMetadata, TenantId};

/// Series held in memory, in one tenant (requests' tenants are ignored).
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    series: BTreeMap<Labels, SeriesData>,
    metadata: Vec<MetricMetadata>,
    exemplars: BTreeMap<Labels, Vec<Exemplar>>,
}

impl MemorySource {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a float. Timestamps of a series must ascend; a repeated one replaces nothing and is ignored.
    pub fn push(&mut self, labels: &Labels, timestamp: i64, value: f64) {
        self.push_any(labels, timestamp, value, None, 0);
    }

    /// Adds a histogram, under the same rule.
    pub fn push_histogram(&mut self, labels: &Labels, timestamp: i64, histogram: Arc<Histogram>) {
        self.push_any(labels, timestamp, 0.0, Some(histogram), 0);
    }

    /// Adds a float or histogram with a start timestamp (0 = unknown), under the same rule.
    pub fn push_any(
        &mut self,
        labels: &Labels,
        timestamp: i64,
        value: f64,
        histogram: Option<Arc<Histogram>>,
        start: i64,
    ) {
        let data = self
            .series
            .entry(labels.clone())
            .or_insert_with(|| SeriesData { labels: labels.clone(), ..SeriesData::default() });
        if data.stamps.last().is_some_and(|last| *last >= timestamp) {
            return;
        }
        if let Some(histogram) = histogram {
            data.histograms.push((data.stamps.len() as u32, histogram));
        }
        if start != 0 && data.starts.is_empty() {
            data.starts = vec![0; data.stamps.len()];
        }
        if start != 0 || !data.starts.is_empty() {
            data.starts.push(start);
        }
        data.stamps.push(timestamp);
        data.values.push(value);
    }

    /// Adds an exemplar to the series of those labels. Timestamps of a series must not descend.
    pub fn push_exemplar(&mut self, labels: &Labels, exemplar: Exemplar) {
        self.exemplars.entry(labels.clone()).or_default().push(exemplar);
    }

    /// Adds metadata.
    pub fn push_metadata(&mut self, metadata: MetricMetadata) {
        self.metadata.push(metadata);
    }

    fn matching<'a>(&'a self, matchers: &'a [Matcher]) -> impl Iterator<Item = &'a SeriesData> {
        self.series
            .values()
            .filter(move |data| matchers.iter().all(|m| m.matches(data.labels.get(m.name()).unwrap_or(""))))
    }
}

struct MemoryIter<'a> {
    rest: std::vec::IntoIter<&'a SeriesData>,
    request: SelectRequest,
}

impl SeriesIter for MemoryIter<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        out.clear();
        self.request.budget.check()?;
        let Some(data) = self.rest.next() else { return Ok(false) };
        out.labels = data.labels.clone();
        let from = data.stamps.partition_point(|t| *t <= self.request.range.after);
        let to = data.stamps.partition_point(|t| *t <= self.request.range.until).max(from);
        out.stamps.extend_from_slice(&data.stamps[from..to]);
        out.values.extend_from_slice(&data.values[from..to]);
        if !data.starts.is_empty() {
            out.starts.extend_from_slice(&data.starts[from..to]);
        }
        for (at, histogram) in &data.histograms {
            if (from..to).contains(&(*at as usize)) {
                out.histograms.push((*at - from as u32, Arc::clone(histogram)));
            }
        }
        Ok(true)
    }
}

impl SeriesSource for MemorySource {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        let all: Vec<&SeriesData> = self
            .series
            .values()
            .filter(|d| request.matchers.iter().all(|m| m.matches(d.labels.get(m.name()).unwrap_or(""))))
            .collect();
        Ok(Box::new(MemoryIter { rest: all.into_iter(), request: request.clone() }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        let has = |d: &&SeriesData| d.stamps.iter().any(|t| request.range.contains(*t));
        let mut all: Vec<Labels> =
            self.matching(&request.matchers).filter(has).map(|d| d.labels.clone()).collect();
        if limit > 0 {
            all.truncate(limit);
        }
        Ok(all)
    }

    fn label_names(&self, request: &SelectRequest, limit: usize) -> Result<Vec<String>, Failure> {
        let mut names: Vec<String> = self
            .series(request, 0)?
            .iter()
            .flat_map(|l| l.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
            .collect();
        names.sort();
        names.dedup();
        if limit > 0 {
            names.truncate(limit);
        }
        Ok(names)
    }

    fn label_values(
        &self,
        request: &SelectRequest,
        name: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        let mut values: Vec<String> =
            self.series(request, 0)?.iter().filter_map(|l| l.get(name).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        if limit > 0 {
            values.truncate(limit);
        }
        Ok(values)
    }

    fn exemplars(&self, request: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        request.budget.check()?;
        let matching = self.exemplars.iter().filter(|(labels, _)| {
            request.matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or("")))
        });
        let in_range = |all: &Vec<Exemplar>| -> Vec<Exemplar> {
            all.iter().filter(|e| request.range.contains(e.timestamp)).cloned().collect()
        };
        let of_series = |(labels, all): (&Labels, &Vec<Exemplar>)| SeriesExemplars {
            labels: labels.clone(),
            exemplars: in_range(all),
        };
        Ok(matching.map(of_series).filter(|series| !series.exemplars.is_empty()).collect())
    }

    fn metadata(&self, _tenant: &TenantId, family: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        Ok(self.metadata.iter().filter(|m| family.is_none_or(|f| f == m.family)).cloned().collect())
    }
}

/// A sink that keeps every batch, with labels decoded, and says that all was written.
#[derive(Debug, Default)]
pub struct RecordingSink {
    batches: Mutex<Vec<WriteBatch>>,
}

impl RecordingSink {
    /// The batches so far, oldest first; the sink forgets them.
    pub fn take(&self) -> Vec<WriteBatch> {
        std::mem::take(&mut self.batches.lock().expect("no holder of this lock panics"))
    }

    /// The floats of `batch`: (labels, timestamp, value), in order. Panics on undecodable labels.
    pub fn floats(batch: &WriteBatch) -> Vec<(Labels, i64, f64)> {
        let mut builder = LabelsBuilder::new();
        let mut out = Vec::new();
        for series in &batch.series {
            let region = &batch.buffer[series.labels.start as usize..series.labels.end as usize];
            (batch.decode_labels)(region, &mut builder).expect("a test writes decodable labels");
            let labels = builder.build().expect("a test writes valid labels");
            for sample in &batch.samples[series.samples.start as usize..series.samples.end as usize] {
                out.push((labels.clone(), sample.timestamp, sample.value));
            }
        }
        out
    }
}

impl SampleSink for RecordingSink {
    fn write(&self, batch: WriteBatch) -> BoxFuture<'_, Result<WriteReport, Failure>> {
        let written = Counts {
            samples: batch.samples.len() as u64,
            histograms: batch.histograms.len() as u64,
            exemplars: batch.exemplars.len() as u64,
        };
        self.batches.lock().expect("no holder of this lock panics").push(batch);
        Box::pin(async move { Ok(WriteReport { written, ..WriteReport::default() }) })
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst).unsigned_abs())
    }
}
