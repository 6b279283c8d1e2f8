//! Walks a request by offset: resources, scopes, metrics, points. A message is read twice where one of its fields is
//! needed before those that stand in front of it.

use std::collections::HashSet;
use std::sync::Arc;

use model::histogram::CUSTOM_BUCKETS_SCHEMA;
use model::seam::{BatchSeries, WriteBatch, decode_canonical};
use model::{Exemplar, Histogram, MetricKind, MetricMetadata, Sample, stale_nan};
use xxhash_rust::xxh3::xxh3_128;

use super::labels::{LabelSet, Resource, Scope, of_point, push_canonical};
use super::names::{NamedKind, metric_name, unit_name};
use super::point::{Point, Shape, Side, cut};
use super::value::Attributes;
use super::{Context, Settings, Translated};
use crate::buckets::{MAX_SCHEMA, MIN_SCHEMA, layout};
use crate::wire::{Kind, Wire};
use crate::{DecodeError, check_limit};

/// Texts of rejections that are kept.
const MAX_REASONS: usize = 5;
/// Samples of `target_info` for one resource of a request: two days of them at the default step.
const MAX_TARGET_INFO: i64 = 1000;
/// Exemplars further ahead than this are left out, ms.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;
/// The width of the zero bucket of histograms that do not state it.
const ZERO_THRESHOLD: f64 = 1e-128;
const TARGET_INFO: &str = "target_info";

pub(super) fn translate(
    body: &[u8],
    context: &Context,
    settings: &Settings,
) -> Result<Translated, DecodeError> {
    let batch = WriteBatch {
        tenant: context.tenant.clone(),
        buffer: Vec::new(),
        decode_labels: decode_canonical,
        series: Vec::new(),
        samples: Vec::new(),
        starts: Vec::new(),
        histograms: Vec::new(),
        histogram_starts: Vec::new(),
        exemplars: Vec::new(),
        metadata: Vec::new(),
        scrape: None,
    };
    let mut walk = Walk {
        settings,
        context,
        out: Translated { batch, points: 0, rejected: 0, reasons: Vec::new() },
        point: Point::new(),
        families: HashSet::new(),
        target_infos: HashSet::new(),
        metadata_bytes: 0,
        times: None,
    };
    let mut wire = Wire::new(body, "request");
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Bytes) => {
                let message = wire.message("resource metrics")?;
                walk.resource(message)?;
            }
            (1, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    let mut out = walk.out;
    if out.batch.starts.iter().all(|start| *start == 0) {
        out.batch.starts = Vec::new();
    }
    if out.batch.histogram_starts.iter().all(|start| *start == 0) {
        out.batch.histogram_starts = Vec::new();
    }
    Ok(out)
}

struct Walk<'a> {
    settings: &'a Settings,
    context: &'a Context,
    out: Translated,
    point: Point<'a>,
    families: HashSet<u128>,
    /// Samples of `target_info` that are there: (hash of the labels, timestamp).
    target_infos: HashSet<(u128, i64)>,
    metadata_bytes: usize,
    /// The first and last time of the points of the resource, ms.
    times: Option<(i64, i64)>,
}

/// What the points of a metric have in common.
struct Metric<'a, 'b> {
    /// As sent.
    sent_name: &'a str,
    /// As stored, or why it cannot be.
    name: Result<String, String>,
    shape: Shape,
    /// A sum, whose exemplars count.
    is_sum: bool,
    resource: &'b Result<Resource<'a>, String>,
    scope: &'b Result<Scope<'a>, String>,
}

/// The fields of a metric's message.
#[derive(Default)]
struct MetricFields<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    data: Option<(u32, Wire<'a>)>,
}

impl<'a> Walk<'a> {
    fn resource(&mut self, wire: Wire<'a>) -> Result<(), DecodeError> {
        let mut attributes = Attributes::new();
        let mut pass = wire;
        while !pass.is_done() {
            match pass.tag()? {
                (1, Kind::Bytes) => {
                    let mut message = pass.message("resource")?;
                    while !message.is_done() {
                        match message.tag()? {
                            (1, Kind::Bytes) => attributes.read(message.message("resource attribute")?)?,
                            (_, kind) => message.skip(kind)?,
                        }
                    }
                }
                (_, kind) => pass.skip(kind)?,
            }
        }
        let resource = Resource::new(&attributes, self.settings);
        self.times = None;
        let mut pass = wire;
        while !pass.is_done() {
            match pass.tag()? {
                (2, Kind::Bytes) => {
                    let message = pass.message("scope metrics")?;
                    self.scope(message, &resource)?;
                }
                (2, _) => return Err(pass.error("wrong wire type for the field")),
                (_, kind) => pass.skip(kind)?,
            }
        }
        match (&resource, self.times) {
            (Ok(resource), Some(times)) => self.target_info(resource, &attributes, times),
            _ => Ok(()),
        }
    }

    fn scope(&mut self, wire: Wire<'a>, resource: &Result<Resource<'a>, String>) -> Result<(), DecodeError> {
        let (mut name, mut version, mut schema_url) = ("", "", "");
        let mut attributes = Attributes::new();
        let mut pass = wire;
        while !pass.is_done() {
            match pass.tag()? {
                (1, Kind::Bytes) => {
                    let mut message = pass.message("scope")?;
                    while !message.is_done() {
                        match message.tag()? {
                            (1, Kind::Bytes) => name = message.text()?,
                            (2, Kind::Bytes) => version = message.text()?,
                            (3, Kind::Bytes) => attributes.read(message.message("scope attribute")?)?,
                            (_, kind) => message.skip(kind)?,
                        }
                    }
                }
                (3, Kind::Bytes) => schema_url = pass.text()?,
                (_, kind) => pass.skip(kind)?,
            }
        }
        let scope = Scope::new((name, version, schema_url), &attributes, self.settings);
        let mut pass = wire;
        while !pass.is_done() {
            match pass.tag()? {
                (2, Kind::Bytes) => {
                    let message = pass.message("metric")?;
                    self.metric(message, resource, &scope)?;
                }
                (2, _) => return Err(pass.error("wrong wire type for the field")),
                (_, kind) => pass.skip(kind)?,
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        wire: Wire<'a>,
        resource: &Result<Resource<'a>, String>,
        scope: &Result<Scope<'a>, String>,
    ) -> Result<(), DecodeError> {
        let fields = metric_fields(wire)?;
        let Some((field, data)) = fields.data else { return Ok(()) };
        let (temporality, monotonic) =
            if matches!(field, 7 | 9 | 10) { temporality(data)? } else { (2, false) };
        let (shape, kind, named) = match field {
            5 => (Shape::Number, MetricKind::Gauge, NamedKind::Gauge),
            7 if monotonic => (Shape::Number, MetricKind::Counter, NamedKind::Counter),
            7 => (Shape::Number, MetricKind::Gauge, NamedKind::Other),
            9 => (Shape::Histogram, MetricKind::Histogram, NamedKind::Other),
            10 => (Shape::Exponential, MetricKind::Histogram, NamedKind::Other),
            _ => (Shape::Summary, MetricKind::Summary, NamedKind::Other),
        };
        let name = match temporality {
            2 => metric_name(fields.name, fields.unit, named, self.settings.strategy),
            1 => Err(format!(
                "metric {:?}: delta temporality is not supported, send cumulative points",
                cut(fields.name)
            )),
            _ => Err(format!("metric {:?}: aggregation temporality is not stated", cut(fields.name))),
        };
        let metric = Metric { sent_name: fields.name, name, shape, is_sum: field == 7, resource, scope };
        let mut stored = false;
        let mut pass = data;
        while !pass.is_done() {
            match pass.tag()? {
                (1, Kind::Bytes) => {
                    let message = pass.message("data point")?;
                    stored |= self.point(message, &metric)?;
                }
                (1, _) => return Err(pass.error("wrong wire type for the field")),
                (_, kind) => pass.skip(kind)?,
            }
        }
        match (&metric.name, stored) {
            (Ok(name), true) => self.metadata(name, kind, &fields),
            _ => Ok(()),
        }
    }

    /// Reads a point and stores it; false when it was rejected.
    fn point(&mut self, wire: Wire<'a>, metric: &Metric<'a, '_>) -> Result<bool, DecodeError> {
        let mut point = std::mem::replace(&mut self.point, Point::new());
        let read = point.read(metric.shape, wire);
        let outcome = read.and_then(|()| {
            self.out.points += 1;
            let limit = self.context.limits.max_samples;
            check_limit("data points of a request", self.out.points as usize, limit)?;
            if point.nanos != 0 {
                let at = point.timestamp();
                let (first, last) = self.times.unwrap_or((at, at));
                self.times = Some((first.min(at), last.max(at)));
            }
            self.store(&mut point, metric)
        });
        self.point = point;
        match outcome? {
            Ok(()) => Ok(true),
            Err(reason) => {
                self.out.rejected += 1;
                self.reason(reason);
                Ok(false)
            }
        }
    }

    fn reason(&mut self, reason: String) {
        if self.out.reasons.len() < MAX_REASONS && !self.out.reasons.contains(&reason) {
            self.out.reasons.push(reason);
        }
    }

    /// Stores a point wholly, or rejects it with a reason and stores nothing of it.
    fn store(
        &mut self,
        point: &mut Point<'a>,
        metric: &Metric<'a, '_>,
    ) -> Result<Result<(), String>, DecodeError> {
        let parts = (&metric.name, metric.resource, metric.scope);
        let (name, resource, scope) = match parts {
            (Ok(name), Ok(resource), Ok(scope)) => (name, resource, scope),
            (Err(reason), ..) | (_, Err(reason), _) | (_, _, Err(reason)) => return Ok(Err(reason.clone())),
        };
        let about = |reason: String| format!("metric {:?}: {reason}", cut(metric.sent_name));
        let labels = match of_point(&point.attributes, resource, scope, self.settings) {
            Ok(labels) => labels,
            Err(reason) => return Ok(Err(about(reason))),
        };
        let exemplars = self.exemplars(point, metric);
        match metric.shape {
            Shape::Number => {
                let exemplars = if metric.is_sum { exemplars } else { Vec::new() };
                self.float(point, &labels, name, None, point.value, exemplars)?;
            }
            Shape::Summary => self.summary(point, &labels, name)?,
            Shape::Histogram => {
                if let Err(reason) = check_buckets(point) {
                    return Ok(Err(about(reason)));
                }
                if !self.settings.convert_histograms {
                    self.classic(point, &labels, name, exemplars)?;
                } else {
                    match custom_histogram(point) {
                        Some(histogram) => self.histogram(point, &labels, name, histogram, exemplars)?,
                        None => return Ok(Err(about("bucket index out of range".into()))),
                    }
                }
            }
            Shape::Exponential => match exponential_histogram(point) {
                Ok(histogram) => self.histogram(point, &labels, name, histogram, exemplars)?,
                Err(reason) => return Ok(Err(about(reason))),
            },
        }
        Ok(Ok(()))
    }

    /// The exemplars of a point, by time; those that make no sense or lie too far ahead are left out with a reason.
    fn exemplars(&mut self, point: &mut Point<'_>, metric: &Metric<'_, '_>) -> Vec<Exemplar> {
        let (at, latest) = (point.timestamp(), self.context.now_ms.saturating_add(MAX_AHEAD_MS));
        let mut kept = Vec::new();
        for exemplar in point.exemplars.drain(..) {
            match exemplar {
                Some(mut exemplar) if exemplar.timestamp <= latest => {
                    if exemplar.timestamp == 0 {
                        exemplar.timestamp = at;
                    }
                    kept.push(exemplar);
                }
                other => {
                    let why =
                        if other.is_some() { "lies too far ahead" } else { "has no value or no label set" };
                    self.reason(format!("metric {:?}: an exemplar {why}", cut(metric.sent_name)));
                }
            }
        }
        kept.sort_by_key(|exemplar| exemplar.timestamp);
        kept
    }

    /// A gauge, a sum, or one series of a histogram or summary.
    fn float(
        &mut self,
        point: &Point<'_>,
        labels: &LabelSet<'_>,
        name: &str,
        extra: Option<(&str, &str)>,
        value: f64,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        let value = if point.is_empty() { stale_nan() } else { value };
        let sample = Sample { timestamp: point.timestamp(), value };
        self.sample(labels, (name, extra), sample, point.start(), exemplars)
    }

    fn sample(
        &mut self,
        labels: &LabelSet<'_>,
        (name, extra): (&str, Option<(&str, &str)>),
        sample: Sample,
        start: i64,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        let first = self.out.batch.samples.len() as u32;
        self.out.batch.samples.push(sample);
        self.out.batch.starts.push(start);
        let series = BatchSeries { samples: first..first + 1, ..BatchSeries::default() };
        self.series(labels, (name, extra), series, exemplars)
    }

    fn histogram(
        &mut self,
        point: &Point<'_>,
        labels: &LabelSet<'_>,
        name: &str,
        histogram: Histogram,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        let histogram = if point.is_empty() { Histogram::stale() } else { histogram };
        let first = self.out.batch.histograms.len() as u32;
        self.out.batch.histograms.push((point.timestamp(), Arc::new(histogram)));
        self.out.batch.histogram_starts.push(point.start());
        let series = BatchSeries { histograms: first..first + 1, ..BatchSeries::default() };
        self.series(labels, (name, None), series, exemplars)
    }

    fn series(
        &mut self,
        labels: &LabelSet<'_>,
        (name, extra): (&str, Option<(&str, &str)>),
        mut series: BatchSeries,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        let limits = &self.context.limits;
        let batch = &mut self.out.batch;
        let start = batch.buffer.len();
        push_canonical(&mut batch.buffer, labels, name, extra);
        series.labels = start as u32..batch.buffer.len() as u32;
        let first = batch.exemplars.len() as u32;
        batch.exemplars.extend(exemplars);
        series.exemplars = first..batch.exemplars.len() as u32;
        batch.series.push(series);
        let label_limit = match limits.max_label_bytes {
            0 => i32::MAX as usize,
            bytes => bytes.saturating_mul(2),
        };
        check_limit("bytes of labels after expansion", batch.buffer.len(), label_limit)?;
        check_limit("samples of a request", batch.series.len(), limits.max_samples.saturating_mul(4))?;
        check_limit("exemplars of a request", batch.exemplars.len(), limits.max_samples)
    }

    fn classic(
        &mut self,
        point: &Point<'_>,
        labels: &LabelSet<'_>,
        name: &str,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        if let Some(sum) = point.sum {
            self.float(point, labels, &format!("{name}_sum"), None, sum, Vec::new())?;
        }
        let count = point.count as f64;
        self.float(point, labels, &format!("{name}_count"), None, count, Vec::new())?;
        // Sorted by time, so each bucket's exemplars are too.
        let mut of_bucket: Vec<Vec<Exemplar>> = vec![Vec::new(); point.bounds.len() + 1];
        for exemplar in exemplars {
            let bucket = point.bounds.partition_point(|bound| exemplar.value > *bound);
            of_bucket[bucket].push(exemplar);
        }
        let bucket_name = format!("{name}_bucket");
        let mut cumulative = 0u64;
        let mut of_bucket = of_bucket.into_iter();
        let mut last = Vec::new();
        for (bound, own) in point.bounds.iter().zip(&point.counts) {
            cumulative += own;
            let mut exemplars = of_bucket.next().unwrap_or_default();
            if *bound == f64::INFINITY {
                last.append(&mut exemplars);
                continue;
            }
            let le = Some(("le", format!("{bound}")));
            let le = le.as_ref().map(|(name, text)| (*name, text.as_str()));
            self.float(point, labels, &bucket_name, le, cumulative as f64, exemplars)?;
        }
        last.extend(of_bucket.flatten());
        self.float(point, labels, &bucket_name, Some(("le", "+Inf")), count, last)
    }

    fn summary(&mut self, point: &Point<'_>, labels: &LabelSet<'_>, name: &str) -> Result<(), DecodeError> {
        let sum = point.sum.unwrap_or(0.0);
        self.float(point, labels, &format!("{name}_sum"), None, sum, Vec::new())?;
        self.float(point, labels, &format!("{name}_count"), None, point.count as f64, Vec::new())?;
        for (quantile, value) in &point.quantiles {
            let text =
                if quantile.is_finite() { format!("{quantile}") } else { crate::format_float(*quantile) };
            self.float(point, labels, name, Some(("quantile", &text)), *value, Vec::new())?;
        }
        Ok(())
    }

    fn metadata(
        &mut self,
        name: &str,
        kind: MetricKind,
        fields: &MetricFields<'_>,
    ) -> Result<(), DecodeError> {
        let metadata = MetricMetadata {
            family: name.to_owned(),
            kind,
            help: fields.description.to_owned(),
            unit: unit_name(fields.unit),
        };
        self.add_metadata(metadata)
    }

    fn add_metadata(&mut self, metadata: MetricMetadata) -> Result<(), DecodeError> {
        let MetricMetadata { family, kind, help, unit } = &metadata;
        let key =
            [family.as_bytes(), &[0xff, *kind as u8], help.as_bytes(), &[0xff], unit.as_bytes()].concat();
        if self.families.insert(xxh3_128(&key)) {
            self.metadata_bytes += key.len();
            let limits = &self.context.limits;
            check_limit("bytes of metadata", self.metadata_bytes, limits.max_label_bytes)?;
            self.out.batch.metadata.push(metadata);
            check_limit("metadata of a request", self.out.batch.metadata.len(), limits.max_samples)?;
        }
        Ok(())
    }

    /// Adds `target_info` from the first time of the resource's points to the last, close enough together that a query
    /// between them finds one.
    fn target_info(
        &mut self,
        resource: &Resource<'a>,
        attributes: &Attributes<'a>,
        (first, last): (i64, i64),
    ) -> Result<(), DecodeError> {
        let labels = match resource.target_info(attributes, self.settings) {
            Ok(Some(labels)) => labels,
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.reason(format!("{TARGET_INFO}: {reason}"));
                return Ok(());
            }
        };
        let mut bytes = Vec::new();
        push_canonical(&mut bytes, &labels, TARGET_INFO, None);
        let hash = xxh3_128(&bytes);
        let step = i64::try_from(self.settings.lookback.as_millis() / 2).unwrap_or(i64::MAX).max(1);
        let mut at = first.max(last.saturating_sub(step.saturating_mul(MAX_TARGET_INFO)));
        loop {
            let timestamp = at.min(last);
            if self.target_infos.insert((hash, timestamp)) {
                let sample = Sample { timestamp, value: 1.0 };
                self.sample(&labels, (TARGET_INFO, None), sample, 0, Vec::new())?;
            }
            if at >= last {
                break;
            }
            at = at.saturating_add(step);
        }
        self.add_metadata(MetricMetadata {
            family: TARGET_INFO.into(),
            kind: MetricKind::Gauge,
            help: "Target metadata".into(),
            unit: String::new(),
        })
    }
}

fn metric_fields(mut wire: Wire<'_>) -> Result<MetricFields<'_>, DecodeError> {
    let mut fields = MetricFields::default();
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Bytes) => fields.name = wire.text()?,
            (2, Kind::Bytes) => fields.description = wire.text()?,
            (3, Kind::Bytes) => fields.unit = wire.text()?,
            (field @ (5 | 7 | 9 | 10 | 11), Kind::Bytes) => {
                fields.data = Some((field, wire.message("metric data")?));
            }
            (1 | 2 | 3 | 5 | 7 | 9 | 10 | 11, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(fields)
}

/// Aggregation temporality, and whether a sum is monotonic.
fn temporality(mut wire: Wire<'_>) -> Result<(u64, bool), DecodeError> {
    let mut out = (0, false);
    while !wire.is_done() {
        match wire.tag()? {
            (2, Kind::Varint) => out.0 = wire.varint()?,
            (3, Kind::Varint) => out.1 = wire.varint()? != 0,
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(out)
}

/// Fails when bounds and counts of a histogram contradict each other.
fn check_buckets(point: &Point<'_>) -> Result<(), String> {
    let (bounds, counts) = (&point.bounds, &point.counts);
    if bounds.iter().any(|bound| bound.is_nan()) || !bounds.is_sorted_by(|a, b| a < b) {
        return Err("explicit bounds are not strictly ascending".into());
    }
    let fits = counts.len() == bounds.len() + 1 || (counts.is_empty() && bounds.is_empty());
    if !fits && !point.is_empty() {
        return Err(format!("{} bucket counts for {} explicit bounds", counts.len(), bounds.len()));
    }
    let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
    if sum.is_none() {
        return Err("bucket counts overflow".into());
    }
    Ok(())
}

fn custom_histogram(point: &Point<'_>) -> Option<Histogram> {
    let counts = point.counts.iter().enumerate().map(|(index, count)| (index as i64, *count as f64));
    let (positive_spans, positive_buckets) = layout(counts)?;
    let bounds: Vec<f64> = point.bounds.iter().copied().filter(|bound| *bound != f64::INFINITY).collect();
    Some(Histogram {
        integer: true,
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        custom_values: Some(bounds.into()),
        ..Histogram::default()
    })
}

fn exponential_histogram(point: &Point<'_>) -> Result<Histogram, String> {
    if point.scale < i64::from(MIN_SCHEMA) {
        return Err(format!("scale must be >= {MIN_SCHEMA}, was {}", point.scale));
    }
    let schema = point.scale.min(i64::from(MAX_SCHEMA));
    let scale_down = (point.scale - schema).min(63) as u32;
    let side = |side: &Side| {
        // OTLP's index i is what stands left of native index i + 1.
        let counts = side.counts.iter().enumerate();
        let indexed = counts
            .map(|(at, count)| (((side.offset.saturating_add(at as i64)) >> scale_down) + 1, *count as f64));
        layout(indexed).ok_or_else(|| "bucket index out of range".to_owned())
    };
    let (positive_spans, positive_buckets) = side(&point.positive)?;
    let (negative_spans, negative_buckets) = side(&point.negative)?;
    let stated = point.zero_threshold;
    Ok(Histogram {
        integer: true,
        schema: schema as i8,
        zero_threshold: if stated > 0.0 && stated.is_finite() { stated } else { ZERO_THRESHOLD },
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    })
}
