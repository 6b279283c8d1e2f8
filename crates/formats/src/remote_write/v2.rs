//! Remote write 2.0: `io.prometheus.write.v2.Request`. Labels come as references into a table of symbols that holds
//! for one request only, so they are written out as canonical label bytes; what repeats is counted after expansion.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use model::labels::push_pair;
use model::seam::{BatchSeries, WriteBatch, decode_canonical};
use model::{Exemplar, Labels, METRIC_NAME, MetricKind, MetricMetadata, Sample, TenantId};

use super::v1::{MAX_EXEMPLAR_LABELS, NO_LABEL_SET, TOO_LONG};
use super::{Decoded, LeftOut, histogram};
use crate::wire::{Kind, Wire, short_varint};
use crate::{DecodeError, RequestLimits, check_limit};

pub(super) fn decode(body: &[u8], tenant: TenantId, limits: &RequestLimits) -> Result<Decoded, DecodeError> {
    check_limit("body in bytes", body.len(), i32::MAX as usize)?;
    let batch = WriteBatch {
        tenant,
        buffer: Vec::with_capacity(body.len()),
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
    let mut decoder = Decoder {
        limits,
        symbols: Vec::new(),
        batch,
        has_starts: false,
        has_histogram_starts: false,
        families: HashSet::new(),
        metadata_bytes: 0,
        refs: Vec::new(),
        pairs: Vec::new(),
        left_out: LeftOut::default(),
        buckets: 0,
    };
    // Symbols may stand behind the series that use them.
    let mut series = Vec::new();
    let mut wire = Wire::new(body, "request");
    while !wire.is_done() {
        match wire.tag()? {
            (4, Kind::Bytes) => {
                let symbol = &body[wire.bytes()?];
                if decoder.symbols.is_empty() && !symbol.is_empty() {
                    return Err(wire.error("first symbol that is not empty"));
                }
                // What is no text costs the series that use it, not the others.
                decoder.symbols.push(std::str::from_utf8(symbol).ok());
                let most = limits.max_series.saturating_mul(MAX_SYMBOLS_PER_SERIES);
                check_limit("symbols of a request", decoder.symbols.len(), most)?;
            }
            (5, Kind::Bytes) => {
                series.push(wire.bytes()?);
                check_limit("series of a request", series.len(), limits.max_series)?;
            }
            (4 | 5, _) => return Err(wire.error("wrong wire type for the field")),
            // Reserved, so that a request of the other version is not taken for an empty one.
            (1..=3, _) => return Err(wire.error("field of a 1.0 request")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    let n_series = series.len();
    for (number, range) in series.into_iter().enumerate() {
        decoder.series(number, Wire::part(body, range, "timeseries"))?;
        if number == 0 {
            // Series of a request are much alike: what the first takes tells what all will.
            let all = decoder.batch.buffer.len().saturating_mul(n_series);
            decoder.batch.buffer.reserve(all.min(MAX_RESERVED.min(limits.label_bytes())));
        }
    }
    Ok(decoder.finish())
}

/// Far more names and values than a series may have; each costs 4 bytes here, and its pair 32.
const MAX_REFERENCES: usize = 1 << 18;

/// Room for labels that is taken before they are there, bytes.
const MAX_RESERVED: usize = 4 << 20;

/// More distinct names and values than that a series are only there to cost memory.
const MAX_SYMBOLS_PER_SERIES: usize = 100;

struct Decoder<'a> {
    limits: &'a RequestLimits,
    /// `None` is one that is not UTF-8.
    symbols: Vec<Option<&'a str>>,
    batch: WriteBatch,
    /// Whether any sample had a start timestamp.
    has_starts: bool,
    /// Whether any histogram had one.
    has_histogram_starts: bool,
    /// The metadata taken so far: where the metric's name stands in the body, its kind, the references of help and unit.
    families: HashSet<(*const u8, MetricKind, u32, u32)>,
    metadata_bytes: usize,
    refs: Vec<u32>,
    pairs: Vec<(&'a str, &'a str)>,
    left_out: LeftOut,
    /// Of all histograms.
    buckets: usize,
}

/// What is told of references that name no symbol.
const BEYOND: &str = "label reference beyond the symbols";
/// What is told of references to a symbol that is not UTF-8.
const NO_TEXT: &str = "label that is not UTF-8";

impl<'a> Decoder<'a> {
    fn series(&mut self, number: usize, mut wire: Wire<'a>) -> Result<(), DecodeError> {
        let first = (self.batch.samples.len(), self.batch.histograms.len(), self.batch.exemplars.len());
        self.refs.clear();
        let mut metadata = None;
        let mut created = 0;
        while !wire.is_done() {
            match wire.tag()? {
                (1, kind) => references(&mut wire, kind, &mut self.refs)?,
                (2, Kind::Bytes) => {
                    let (sample, start) = sample(wire.message("timeseries.samples")?)?;
                    self.batch.samples.push(sample);
                    self.batch.starts.push(start);
                    self.has_starts |= start != 0;
                }
                (3, Kind::Bytes) => {
                    let (histogram, timestamp, start) =
                        histogram::decode(wire.message("timeseries.histograms")?)?;
                    histogram::count(&histogram, &mut self.buckets)?;
                    self.batch.histograms.push((timestamp, Arc::new(histogram)));
                    self.batch.histogram_starts.push(start);
                    self.has_histogram_starts |= start != 0;
                }
                (4, Kind::Bytes) => match self.exemplar(wire.message("timeseries.exemplars")?)? {
                    Ok(exemplar) => self.batch.exemplars.push(exemplar),
                    Err(problem) => {
                        self.left_out.exemplars += 1;
                        self.left_out.tell(number, problem);
                    }
                },
                (5, Kind::Bytes) => metadata = Some(wire.message("timeseries.metadata")?),
                // The release candidates of 2.0 had one for the whole series.
                (6, Kind::Varint) => created = timestamp(&mut wire)?,
                (2..=6, _) => return Err(wire.error("wrong wire type for the field")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        let n_samples = self.batch.samples.len() + self.batch.histograms.len();
        check_limit("samples of a request", n_samples, self.limits.max_samples)?;
        check_limit("exemplars of a request", self.batch.exemplars.len(), self.limits.max_samples)?;
        let readable = match self.resolve() {
            Ok(()) => metadata.map_or(Ok(Ok(())), |message| self.metadata(message))?,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = readable {
            let lost = n_samples - first.0 - first.1;
            self.left_out.samples += lost.max(1) as u64;
            self.left_out.tell(number, problem);
            self.batch.samples.truncate(first.0);
            self.batch.starts.truncate(first.0);
            self.batch.histograms.truncate(first.1);
            self.batch.histogram_starts.truncate(first.1);
            self.batch.exemplars.truncate(first.2);
            return Ok(());
        }
        if created != 0 {
            self.created(created, first.0, first.1);
        }
        let labels = self.write_labels()?;
        let range = |first: usize, end: usize| first as u32..end as u32;
        self.batch.series.push(BatchSeries {
            labels,
            samples: range(first.0, self.batch.samples.len()),
            histograms: range(first.1, self.batch.histograms.len()),
            exemplars: range(first.2, self.batch.exemplars.len()),
            untracked: false,
        });
        Ok(())
    }

    /// Resolves `self.refs` to `self.pairs`, in the order of names; fails with what is wrong with them.
    fn resolve(&mut self) -> Result<(), &'static str> {
        if !self.refs.len().is_multiple_of(2) {
            return Err("odd number of label references");
        }
        self.pairs.clear();
        for pair in self.refs.chunks_exact(2) {
            let symbol = |at: u32| self.symbols.get(at as usize).ok_or(BEYOND)?.ok_or(NO_TEXT);
            self.pairs.push((symbol(pair[0])?, symbol(pair[1])?));
        }
        if !self.pairs.is_sorted_by(|a, b| a.0 <= b.0) {
            self.pairs.sort_by_key(|(name, _)| *name);
        }
        Ok(())
    }

    /// Appends the labels in `self.pairs` to the buffer. A repeated name stays repeated, so that decoding fails.
    fn write_labels(&mut self) -> Result<Range<u32>, DecodeError> {
        let start = self.batch.buffer.len();
        for (name, value) in &self.pairs {
            if !value.is_empty() {
                push_pair(&mut self.batch.buffer, name, value);
            }
            let limit = self.limits.label_bytes();
            check_limit("bytes of labels after expansion", self.batch.buffer.len(), limit)?;
        }
        Ok(start as u32..self.batch.buffer.len() as u32)
    }

    /// Gives samples from `sample` on and histograms from `histogram` on that say no start the one of their series.
    fn created(&mut self, start: i64, sample: usize, histogram: usize) {
        for own in &mut self.batch.starts[sample..] {
            self.has_starts = true;
            *own = if *own == 0 { start } else { *own };
        }
        for own in &mut self.batch.histogram_starts[histogram..] {
            self.has_histogram_starts = true;
            *own = if *own == 0 { start } else { *own };
        }
    }

    /// An exemplar, or what is wrong with its labels.
    fn exemplar(&mut self, mut wire: Wire<'a>) -> Result<Result<Exemplar, &'static str>, DecodeError> {
        let series_refs = std::mem::take(&mut self.refs);
        let (mut value, mut timestamp) = (0.0, 0);
        while !wire.is_done() {
            match wire.tag()? {
                (1, kind) => references(&mut wire, kind, &mut self.refs)?,
                (2, Kind::Fixed64) => value = wire.double()?,
                (3, Kind::Varint) => timestamp = wire.varint()? as i64,
                (2 | 3, _) => return Err(wire.error("wrong wire type for the field")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        let labels = self.resolve().and_then(|()| {
            let bytes: usize = self.pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if bytes > MAX_EXEMPLAR_LABELS {
                return Err(TOO_LONG);
            }
            Labels::from_pairs(self.pairs.iter().copied()).map_err(|_| NO_LABEL_SET)
        });
        self.refs = series_refs;
        Ok(labels.map(|labels| Exemplar { labels, value, timestamp }))
    }

    /// Takes the metadata of the series whose labels are in `self.pairs`, unless the same was there before; or says what
    /// is wrong with it.
    fn metadata(&mut self, mut wire: Wire<'a>) -> Result<Result<(), &'static str>, DecodeError> {
        let (mut kind, mut help, mut unit) = (MetricKind::Unknown, 0, 0);
        while !wire.is_done() {
            match wire.tag()? {
                (1, Kind::Varint) => kind = MetricKind::from_number(wire.varint()?),
                (3, Kind::Varint) => help = wire.varint()?,
                (4, Kind::Varint) => unit = wire.varint()?,
                (1 | 3 | 4, _) => return Err(wire.error("wrong wire type for the field")),
                (_, kind) => wire.skip(kind)?,
            }
        }
        // A request without symbols may still say "no help, no unit".
        let text = |at: u64| match at {
            0 => Some(""),
            at => usize::try_from(at).ok().and_then(|at| self.symbols.get(at)).map(|text| text.unwrap_or("")),
        };
        let (Some(help_text), Some(unit_text)) = (text(help), text(unit)) else {
            return Ok(Err("metadata reference beyond the symbols"));
        };
        let name = self.pairs.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| *value);
        let family = family_of(name, kind);
        if family.is_empty() || (kind == MetricKind::Unknown && help == 0 && unit == 0) {
            return Ok(Ok(()));
        }
        if self.families.insert((name.as_ptr(), kind, help as u32, unit as u32)) {
            self.metadata_bytes += family.len() + help_text.len() + unit_text.len();
            check_limit(
                "bytes of metadata after expansion",
                self.metadata_bytes,
                self.limits.max_label_bytes,
            )?;
            self.batch.metadata.push(MetricMetadata {
                family: family.to_owned(),
                kind,
                help: help_text.to_owned(),
                unit: unit_text.to_owned(),
            });
        }
        Ok(Ok(()))
    }

    fn finish(mut self) -> Decoded {
        if !self.has_starts {
            self.batch.starts = Vec::new();
        }
        if !self.has_histogram_starts {
            self.batch.histogram_starts = Vec::new();
        }
        Decoded { batch: self.batch, left_out: self.left_out }
    }
}

fn references(wire: &mut Wire<'_>, kind: Kind, refs: &mut Vec<u32>) -> Result<(), DecodeError> {
    wire.try_varints(kind, |value| {
        check_limit("label references of a series", refs.len() + 1, MAX_REFERENCES)?;
        // No request has so many symbols that the largest number names one.
        refs.push(u32::try_from(value).unwrap_or(u32::MAX));
        Ok(())
    })
}

/// The family of a series of a classic histogram or summary is its name without the suffix.
fn family_of(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram | MetricKind::GaugeHistogram => &["_bucket", "_sum", "_count"],
        MetricKind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn sample(mut wire: Wire<'_>) -> Result<(Sample, i64), DecodeError> {
    let (mut sample, mut start) = (Sample { timestamp: 0, value: 0.0 }, 0);
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Fixed64) => sample.value = wire.double()?,
            (2, Kind::Varint) => sample.timestamp = timestamp(&mut wire)?,
            (3, Kind::Varint) => start = timestamp(&mut wire)?,
            (1..=3, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok((sample, start))
}

#[inline]
fn timestamp(wire: &mut Wire<'_>) -> Result<i64, DecodeError> {
    let window = wire.buf[..wire.end].get(wire.at..wire.at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok());
    match window.and_then(short_varint) {
        Some((value, length)) => {
            wire.at += length;
            Ok(value as i64)
        }
        None => wire.varint().map(|value| value as i64),
    }
}
