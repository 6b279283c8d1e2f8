//! Remote write 1.0: `prometheus.WriteRequest`.
//!
//! A series' label fields commonly stand together; then its label region is that piece of the body. Where they do
//! not, they are gathered behind the body's end, so that a region is always one slice.

use std::sync::Arc;

use model::seam::{BatchSeries, WriteBatch};
use model::{Exemplar, LabelError, Labels, LabelsBuilder, MetricKind, MetricMetadata, Sample, TenantId};

use super::{Decoded, LeftOut, histogram};
use crate::wire::{Kind, Wire, short_varint};
use crate::{DecodeError, RequestLimits, check_limit};

/// Exemplars have short labels: upstream keeps none with more than 128 characters. Longer ones than this are not built.
pub(super) const MAX_EXEMPLAR_LABELS: usize = 4096;

/// What is told of an exemplar over [`MAX_EXEMPLAR_LABELS`].
pub(super) const TOO_LONG: &str = "exemplar labels of more than 4096 bytes";
/// What is told of an exemplar with a repeated name, say.
pub(super) const NO_LABEL_SET: &str = "exemplar labels that are no label set";

pub(super) fn decode(
    mut body: Vec<u8>,
    tenant: TenantId,
    limits: &RequestLimits,
) -> Result<Decoded, DecodeError> {
    // Regions are u32, and scattered labels may double the buffer.
    check_limit("body in bytes", body.len(), i32::MAX as usize)?;
    let mut decoder = Decoder {
        limits,
        spill: Vec::new(),
        base: body.len(),
        batch: empty_batch(tenant),
        left_out: LeftOut::default(),
        buckets: 0,
    };
    decoder.request(&body)?;
    let Decoder { spill, mut batch, left_out, .. } = decoder;
    body.extend_from_slice(&spill);
    batch.buffer = body;
    Ok(Decoded { batch, left_out })
}

fn empty_batch(tenant: TenantId) -> WriteBatch {
    WriteBatch {
        tenant,
        buffer: Vec::new(),
        decode_labels,
        series: Vec::new(),
        samples: Vec::new(),
        starts: Vec::new(),
        histograms: Vec::new(),
        histogram_starts: Vec::new(),
        exemplars: Vec::new(),
        metadata: Vec::new(),
        scrape: None,
    }
}

/// Decodes the label fields of a series (`labels = 1`, each with `name = 1` and `value = 2`).
pub fn decode_labels(region: &[u8], into: &mut LabelsBuilder) -> Result<(), LabelError> {
    into.clear();
    let mut wire = Wire::new(region, "labels");
    let truncated = |wire: &Wire<'_>| LabelError::Truncated(wire.at);
    while !wire.is_done() {
        let (field, kind) = wire.tag().map_err(|_| truncated(&wire))?;
        if (field, kind) != (1, Kind::Bytes) {
            return Err(truncated(&wire));
        }
        let mut label = wire.message("labels").map_err(|_| truncated(&wire))?;
        let (mut name, mut value) = ("", "");
        while !label.is_done() {
            let (field, kind) = label.tag().map_err(|_| truncated(&label))?;
            match (field, kind) {
                (1 | 2, Kind::Bytes) => {
                    let range = label.bytes().map_err(|_| truncated(&label))?;
                    let start = range.start;
                    let text = std::str::from_utf8(&region[range]).map_err(|_| LabelError::NotUtf8(start))?;
                    if field == 1 {
                        name = text;
                    } else {
                        value = text;
                    }
                }
                _ => label.skip(kind).map_err(|_| truncated(&label))?,
            }
        }
        into.push(name, value);
    }
    Ok(())
}

struct Decoder<'a> {
    limits: &'a RequestLimits,
    /// Label fields that do not stand together; their place is `base` and after.
    spill: Vec<u8>,
    base: usize,
    batch: WriteBatch,
    left_out: LeftOut,
    /// Of all histograms.
    buckets: usize,
}

impl Decoder<'_> {
    fn request(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        let guess = body.len() / 128 + 1;
        self.batch.series.reserve(guess);
        self.batch.samples.reserve(guess);
        let mut wire = Wire::new(body, "write request");
        while !wire.is_done() {
            match wire.tag()? {
                (1, Kind::Bytes) => {
                    let series = wire.message("timeseries")?;
                    self.series(series)?;
                    check_limit("series of a request", self.batch.series.len(), self.limits.max_series)?;
                }
                (3, Kind::Bytes) => {
                    let entry = wire.message("metadata")?;
                    self.batch.metadata.push(metadata(entry)?);
                    check_limit("metadata of a request", self.batch.metadata.len(), self.limits.max_series)?;
                }
                (1 | 3, _) => return Err(wire.error("wrong wire type for the field")),
                // No 1.0 request has them; one of 2.0 must not be taken for an empty one.
                (4 | 5, Kind::Bytes) => return Err(wire.error("field of a 2.0 request")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        Ok(())
    }

    fn series(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let batch = &mut self.batch;
        let first_sample = batch.samples.len();
        let first_histogram = batch.histograms.len();
        let first_exemplar = batch.exemplars.len();
        let mut labels = wire.at..wire.at;
        let mut scattered = false;
        while !wire.is_done() {
            if let Some((sample, next)) = fast_sample(wire.buf, wire.at, wire.end) {
                batch.samples.push(sample);
                wire.at = next;
                continue;
            }
            let start = wire.at;
            let (field, kind) = wire.tag()?;
            match (field, kind) {
                (1, Kind::Bytes) => {
                    wire.bytes()?;
                    wire.at = pass_labels(wire.buf, wire.at, wire.end);
                    let here = start..wire.at;
                    if labels.is_empty() {
                        labels = here;
                    } else if !scattered && labels.end == here.start {
                        labels.end = here.end;
                    } else {
                        if !scattered {
                            let gathered = self.spill.len();
                            self.spill.extend_from_slice(&wire.buf[labels]);
                            labels = gathered..gathered;
                            scattered = true;
                        }
                        self.spill.extend_from_slice(&wire.buf[here]);
                        labels.end = self.spill.len();
                    }
                }
                (2, Kind::Bytes) => batch.samples.push(sample(wire.message("timeseries.samples")?)?),
                (3, Kind::Bytes) => match exemplar(wire.message("timeseries.exemplars")?)? {
                    Ok(exemplar) => batch.exemplars.push(exemplar),
                    Err(problem) => {
                        self.left_out.exemplars += 1;
                        self.left_out.tell(batch.series.len(), problem);
                    }
                },
                (4, Kind::Bytes) => {
                    let (histogram, timestamp, _) =
                        histogram::decode(wire.message("timeseries.histograms")?)?;
                    histogram::count(&histogram, &mut self.buckets)?;
                    batch.histograms.push((timestamp, Arc::new(histogram)));
                }
                (1..=4, _) => return Err(wire.error("wrong wire type for the field")),
                _ => wire.skip(kind)?,
            }
        }
        let n_samples = batch.samples.len() + batch.histograms.len();
        check_limit("samples of a request", n_samples, self.limits.max_samples)?;
        check_limit("exemplars of a request", batch.exemplars.len(), self.limits.max_samples)?;
        let base = if scattered { self.base } else { 0 };
        let range = |first: usize, end: usize| first as u32..end as u32;
        batch.series.push(BatchSeries {
            labels: range(base + labels.start, base + labels.end),
            samples: range(first_sample, batch.samples.len()),
            histograms: range(first_histogram, batch.histograms.len()),
            exemplars: range(first_exemplar, batch.exemplars.len()),
            untracked: false,
        });
        Ok(())
    }
}

/// The end of the run of label fields at `at`, as far as they have the short form that nearly all have.
#[inline]
fn pass_labels(buf: &[u8], mut at: usize, end: usize) -> usize {
    while let Some(&[0x0a, length]) = buf.get(at..at + 2)
        && length < 0x80
        && at + 2 + usize::from(length) <= end
    {
        at += 2 + usize::from(length);
    }
    at
}

/// A sample field as every sender writes it: tag, length, value, timestamp of at most 8 bytes. `None` for any other
/// form and near the buffer's end.
#[inline]
fn fast_sample(buf: &[u8], at: usize, end: usize) -> Option<(Sample, usize)> {
    let window: &[u8; 20] = buf.get(at..at + 20)?.try_into().ok()?;
    if window[0] != 0x12 || window[2] != 0x09 || window[11] != 0x10 {
        return None;
    }
    let value = f64::from_le_bytes(window[3..11].try_into().ok()?);
    let (timestamp, length) = short_varint(window[12..20].try_into().ok()?)?;
    let next = at + 12 + length;
    if usize::from(window[1]) != 10 + length || next > end {
        return None;
    }
    Some((Sample { timestamp: timestamp as i64, value }, next))
}

fn sample(mut wire: Wire<'_>) -> Result<Sample, DecodeError> {
    let mut sample = Sample { timestamp: 0, value: 0.0 };
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Fixed64) => sample.value = wire.double()?,
            (2, Kind::Varint) => sample.timestamp = wire.varint()? as i64,
            (1 | 2, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(sample)
}

/// An exemplar, or what is wrong with its labels.
fn exemplar(mut wire: Wire<'_>) -> Result<Result<Exemplar, &'static str>, DecodeError> {
    let mut gathered = Vec::new();
    let mut too_long = false;
    let (mut value, mut timestamp) = (0.0, 0);
    while !wire.is_done() {
        let start = wire.at;
        match wire.tag()? {
            (1, Kind::Bytes) => {
                wire.bytes()?;
                too_long |= gathered.len() + wire.at - start > MAX_EXEMPLAR_LABELS;
                if !too_long {
                    gathered.extend_from_slice(&wire.buf[start..wire.at]);
                }
            }
            (2, Kind::Fixed64) => value = wire.double()?,
            (3, Kind::Varint) => timestamp = wire.varint()? as i64,
            (1..=3, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    if too_long {
        return Ok(Err(TOO_LONG));
    }
    let mut builder = LabelsBuilder::new();
    let labels: Result<Labels, LabelError> =
        decode_labels(&gathered, &mut builder).and_then(|()| builder.build());
    Ok(labels.map(|labels| Exemplar { labels, value, timestamp }).map_err(|_| NO_LABEL_SET))
}

/// Text that is not UTF-8 does not cost the samples of the request.
fn metadata(mut wire: Wire<'_>) -> Result<MetricMetadata, DecodeError> {
    let lossy = |wire: &mut Wire<'_>| Ok(String::from_utf8_lossy(&wire.buf[wire.bytes()?]).into_owned());
    let mut out = MetricMetadata::default();
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Varint) => out.kind = MetricKind::from_number(wire.varint()?),
            (2, Kind::Bytes) => out.family = lossy(&mut wire)?,
            (4, Kind::Bytes) => out.help = lossy(&mut wire)?,
            (5, Kind::Bytes) => out.unit = lossy(&mut wire)?,
            (1 | 2 | 4 | 5, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(out)
}
