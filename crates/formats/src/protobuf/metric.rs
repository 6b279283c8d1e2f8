//! One metric of a family: its fields, and the samples that it stands for.

use std::sync::Arc;

use model::Histogram;
use model::Labels;
use model::histogram::{ResetHint, Span};

use super::{Family, FamilyKind, Found, FoundExemplar, Histograms, Value};
use crate::DecodeError;
use crate::buckets::{Classic, MAX_SCHEMA, MIN_SCHEMA, indexed, layout, reduce_resolution};
use crate::float::format_boundary;
use crate::series_text::push_series;
use crate::wire::{Kind, Wire, zigzag};

/// More buckets, spans, quantiles or exemplars than any metric makes sense with.
const MAX_PARTS: usize = 65_536;
/// Exemplars have short labels: upstream keeps none with more than 128 characters.
const MAX_EXEMPLAR_LABELS: usize = 4096;
/// The finest schema that upstream knows of, though it stores it coarser.
const MAX_READ_SCHEMA: i64 = 52;

/// Memory that is used again for the next metric.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    name: String,
    series: String,
}

/// The fields of a metric. Only those of its family's type are looked at.
#[derive(Default)]
pub(super) struct Metric<'a> {
    labels: Vec<(&'a str, &'a str)>,
    timestamp: i64,
    /// Gauge, counter or untyped.
    simple: Simple<'a>,
    summary: Summary,
    histogram: RawHistogram<'a>,
}

#[derive(Default)]
struct Simple<'a> {
    value: f64,
    start: i64,
    exemplar: Option<Wire<'a>>,
}

#[derive(Default)]
struct Summary {
    count: u64,
    sum: f64,
    quantiles: Vec<(f64, f64)>,
    start: i64,
}

/// Counts of one side of a native histogram.
#[derive(Default)]
struct Side {
    spans: Vec<Span>,
    last: i64,
    /// Integer counts, from their deltas.
    integers: Vec<f64>,
    floats: Vec<f64>,
}

struct Bucket<'a> {
    boundary: f64,
    count: f64,
    exemplar: Option<Wire<'a>>,
}

#[derive(Default)]
struct RawHistogram<'a> {
    count: u64,
    count_float: f64,
    sum: f64,
    buckets: Vec<Bucket<'a>>,
    start: i64,
    schema: i64,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative: Side,
    positive: Side,
    exemplars: Vec<Wire<'a>>,
}

fn bytes<'a>(wire: &mut Wire<'a>, kind: Kind, place: &'static str) -> Result<Wire<'a>, DecodeError> {
    wire.expect(kind, Kind::Bytes)?;
    wire.message(place)
}

fn number(wire: &mut Wire<'_>, kind: Kind) -> Result<u64, DecodeError> {
    wire.expect(kind, Kind::Varint)?;
    wire.varint()
}

/// A double; a NaN is the one that expositions have.
fn double(wire: &mut Wire<'_>, kind: Kind) -> Result<f64, DecodeError> {
    wire.expect(kind, Kind::Fixed64)?;
    let value = wire.double()?;
    Ok(if value.is_nan() { crate::NORMAL_NAN } else { value })
}

/// `google.protobuf.Timestamp`, as ms.
fn time(wire: &mut Wire<'_>, kind: Kind) -> Result<i64, DecodeError> {
    let mut message = bytes(wire, kind, "timestamp")?;
    let (mut seconds, mut nanos) = (0, 0);
    while !message.is_done() {
        match message.tag()? {
            (1, kind) => seconds = number(&mut message, kind)? as i64,
            (2, kind) => nanos = number(&mut message, kind)? as i64,
            (_, kind) => message.skip(kind)?,
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

fn label<'a>(mut wire: Wire<'a>) -> Result<(&'a str, &'a str), DecodeError> {
    let (mut name, mut value) = ("", "");
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Bytes) => name = wire.text()?,
            (2, Kind::Bytes) => value = wire.text()?,
            (1 | 2, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    if name.is_empty() {
        return Err(wire.error("label without a name"));
    }
    Ok((name, value))
}

/// An exemplar; `None` when its labels form no set.
fn exemplar(mut wire: Wire<'_>) -> Result<Option<FoundExemplar>, DecodeError> {
    let (mut labels, mut length) = (Vec::new(), 0);
    let (mut value, mut timestamp) = (0.0, None);
    while !wire.is_done() {
        match wire.tag()? {
            (1, kind) => {
                let (name, text) = label(bytes(&mut wire, kind, "exemplar label")?)?;
                length += name.len() + text.len();
                crate::check_limit("bytes of an exemplar's labels", length, MAX_EXEMPLAR_LABELS)?;
                labels.push((name, text));
            }
            (2, kind) => value = double(&mut wire, kind)?,
            (3, kind) => timestamp = Some(time(&mut wire, kind)?),
            (_, kind) => wire.skip(kind)?,
        }
    }
    let labels = Labels::from_pairs(labels).ok();
    Ok(labels.map(|labels| FoundExemplar { labels, value, timestamp }))
}

impl<'a> Metric<'a> {
    pub(super) fn read(mut wire: Wire<'a>) -> Result<Self, DecodeError> {
        let mut out = Self::default();
        while !wire.is_done() {
            match wire.tag()? {
                (1, kind) => out.labels.push(label(bytes(&mut wire, kind, "label")?)?),
                (2 | 5, kind) => out.simple.value = simple(bytes(&mut wire, kind, "gauge")?)?.value,
                (3, kind) => out.simple = simple(bytes(&mut wire, kind, "counter")?)?,
                (4, kind) => out.summary = summary(bytes(&mut wire, kind, "summary")?)?,
                (6, kind) => out.timestamp = number(&mut wire, kind)? as i64,
                (7, kind) => out.histogram = histogram(bytes(&mut wire, kind, "histogram")?)?,
                (_, kind) => wire.skip(kind)?,
            }
        }
        Ok(out)
    }

    /// Hands out the samples of this metric of `family`.
    pub(super) fn hand_out<E: From<DecodeError>>(
        self,
        family: &Family<'_>,
        histograms: Histograms,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { labels, timestamp, simple, summary, histogram } = self;
        // Nobody can tell 0 from "not stated" in this format.
        let timestamp = (timestamp != 0).then_some(timestamp);
        let mut out = Out { family: family.name, labels: &labels, timestamp, scratch, each };
        match family.kind {
            FamilyKind::Gauge | FamilyKind::Untyped => out.float("", None, simple.value, 0, None),
            FamilyKind::Counter => {
                let exemplar = simple.exemplar.map(exemplar).transpose()?.flatten();
                out.float("", None, simple.value, simple.start, exemplar)
            }
            FamilyKind::Summary => {
                out.float("_count", None, summary.count as f64, summary.start, None)?;
                out.float("_sum", None, summary.sum, summary.start, None)?;
                for (quantile, value) in &summary.quantiles {
                    let label = ("quantile", format_boundary(*quantile));
                    out.float("", Some(&label), *value, summary.start, None)?;
                }
                Ok(())
            }
            FamilyKind::Histogram | FamilyKind::GaugeHistogram => {
                let gauge = family.kind == FamilyKind::GaugeHistogram;
                let native = histograms.native && histogram.is_native();
                if native {
                    let converted = histogram.native(family.name, gauge)?;
                    out.histogram(converted, histogram.start, histogram.timed_exemplars()?)?;
                }
                let classic = match native {
                    true => histograms.keep_classic && !histogram.buckets.is_empty(),
                    false => histograms.keep_classic || !histograms.convert,
                };
                if classic {
                    out.classic(&histogram)?;
                }
                if !native && histograms.convert {
                    let converted = histogram.custom(family.name, gauge)?;
                    out.histogram(converted, histogram.start, histogram.timed_exemplars()?)?;
                }
                Ok(())
            }
        }
    }
}

/// Where samples of one metric go.
struct Out<'a, 'b, E> {
    family: &'b str,
    labels: &'b [(&'a str, &'a str)],
    timestamp: Option<i64>,
    scratch: &'b mut Scratch,
    each: &'b mut dyn FnMut(Found<'_>) -> Result<(), E>,
}

impl<E: From<DecodeError>> Out<'_, '_, E> {
    fn found(
        &mut self,
        suffix: &str,
        extra: Option<&(&str, String)>,
        value: Value,
        start: i64,
        exemplars: Vec<FoundExemplar>,
    ) -> Result<(), E> {
        let Scratch { name, series } = &mut *self.scratch;
        name.clear();
        name.push_str(self.family);
        name.push_str(suffix);
        series.clear();
        let extra = extra.into_iter().map(|(name, value)| (*name, value.as_str()));
        push_series(series, name, self.labels.iter().copied().chain(extra));
        (self.each)(Found { series, value, timestamp: self.timestamp, start, exemplars })
    }

    fn float(
        &mut self,
        suffix: &str,
        extra: Option<&(&str, String)>,
        value: f64,
        start: i64,
        exemplar: Option<FoundExemplar>,
    ) -> Result<(), E> {
        self.found(suffix, extra, Value::Float(value), start, exemplar.into_iter().collect())
    }

    fn histogram(
        &mut self,
        histogram: Histogram,
        start: i64,
        exemplars: Vec<FoundExemplar>,
    ) -> Result<(), E> {
        self.found("", None, Value::Histogram(Arc::new(histogram)), start, exemplars)
    }

    fn classic(&mut self, histogram: &RawHistogram<'_>) -> Result<(), E> {
        let (count, start) = (histogram.any_count(), histogram.start);
        self.float("_count", None, count, start, None)?;
        self.float("_sum", None, histogram.sum, start, None)?;
        for bucket in &histogram.buckets {
            let exemplar = bucket.exemplar.map(exemplar).transpose()?.flatten();
            let label = ("le", format_boundary(bucket.boundary));
            self.float("_bucket", Some(&label), bucket.count, start, exemplar)?;
            if bucket.boundary == f64::INFINITY {
                return Ok(());
            }
        }
        self.float("_bucket", Some(&("le", "+Inf".into())), count, start, None)
    }
}

impl RawHistogram<'_> {
    /// What upstream calls native: anything of it is there. An empty span says so, too.
    fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
            || self.zero_count_float > 0.0
    }

    fn any_count(&self) -> f64 {
        if self.count_float != 0.0 { self.count_float } else { self.count as f64 }
    }

    /// Whether its counts are floats; an empty one may show it by the field in which its zeros stand.
    fn is_float(&self) -> bool {
        let in_field = |side: &Side| !side.floats.is_empty() && side.integers.is_empty();
        self.count_float > 0.0
            || self.zero_count_float > 0.0
            || (self.count == 0 && (in_field(&self.positive) || in_field(&self.negative)))
    }

    fn native(&self, family: &str, gauge: bool) -> Result<Histogram, DecodeError> {
        let bad = |problem: String| DecodeError::Histogram { family: cut(family), problem };
        if !(i64::from(MIN_SCHEMA)..=MAX_READ_SCHEMA).contains(&self.schema) {
            return Err(bad(format!("unknown schema {}", self.schema)));
        }
        let float = self.is_float();
        let side = |side: &Side, name: &str| {
            let counts = if float { &side.floats } else { &side.integers };
            let wanted: u64 = side.spans.iter().map(|span| u64::from(span.length)).sum();
            if wanted != counts.len() as u64 {
                let have = counts.len();
                return Err(bad(format!("{name} side: spans require {wanted} buckets, have {have}")));
            }
            layout(indexed(&side.spans, counts))
                .ok_or_else(|| bad(format!("{name} side: bucket index out of range")))
        };
        let (positive_spans, positive_buckets) = side(&self.positive, "positive")?;
        let (negative_spans, negative_buckets) = side(&self.negative, "negative")?;
        let mut histogram = Histogram {
            integer: !float,
            reset_hint: if gauge { ResetHint::Gauge } else { ResetHint::Unknown },
            schema: self.schema as i8,
            zero_threshold: self.zero_threshold,
            zero_count: if float { self.zero_count_float } else { self.zero_count as f64 },
            count: if float { self.count_float } else { self.count as f64 },
            sum: self.sum,
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: None,
        };
        reduce_resolution(&mut histogram, MAX_SCHEMA);
        Ok(histogram)
    }

    fn custom(&self, family: &str, gauge: bool) -> Result<Histogram, DecodeError> {
        let mut classic = Classic::default();
        classic.count(self.any_count());
        classic.sum(self.sum);
        for bucket in &self.buckets {
            classic.bucket(bucket.boundary, bucket.count);
        }
        let mut histogram = classic.convert().ok_or_else(|| DecodeError::Histogram {
            family: cut(family),
            problem: "classic buckets and count contradict each other".into(),
        })?;
        if gauge {
            histogram.reset_hint = ResetHint::Gauge;
        }
        Ok(histogram)
    }

    /// The exemplars of a native histogram, or else of its buckets; those without a timestamp are left out, since they
    /// could not be told from repeated ones.
    fn timed_exemplars(&self) -> Result<Vec<FoundExemplar>, DecodeError> {
        let own = self.exemplars.iter().copied();
        let all: Vec<Wire<'_>> = match self.exemplars.is_empty() {
            true => self.buckets.iter().filter_map(|bucket| bucket.exemplar).collect(),
            false => own.collect(),
        };
        let mut out = Vec::new();
        for wire in all {
            out.extend(exemplar(wire)?.filter(|exemplar| exemplar.timestamp.is_some()));
        }
        Ok(out)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

fn simple(mut wire: Wire<'_>) -> Result<Simple<'_>, DecodeError> {
    let mut out = Simple::default();
    while !wire.is_done() {
        match wire.tag()? {
            (1, kind) => out.value = double(&mut wire, kind)?,
            (2, kind) => out.exemplar = Some(bytes(&mut wire, kind, "exemplar")?),
            (3, kind) => out.start = time(&mut wire, kind)?,
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(out)
}

fn summary(mut wire: Wire<'_>) -> Result<Summary, DecodeError> {
    let mut out = Summary::default();
    while !wire.is_done() {
        match wire.tag()? {
            (1, kind) => out.count = number(&mut wire, kind)?,
            (2, kind) => out.sum = double(&mut wire, kind)?,
            (3, kind) => {
                let mut message = bytes(&mut wire, kind, "quantile")?;
                let (mut quantile, mut value) = (0.0, 0.0);
                while !message.is_done() {
                    match message.tag()? {
                        (1, kind) => quantile = double(&mut message, kind)?,
                        (2, kind) => value = double(&mut message, kind)?,
                        (_, kind) => message.skip(kind)?,
                    }
                }
                out.quantiles.push((quantile, value));
                crate::check_limit("quantiles of a summary", out.quantiles.len(), MAX_PARTS)?;
            }
            (4, kind) => out.start = time(&mut wire, kind)?,
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(out)
}

fn histogram(mut wire: Wire<'_>) -> Result<RawHistogram<'_>, DecodeError> {
    let mut out = RawHistogram::default();
    while !wire.is_done() {
        let (field, kind) = wire.tag()?;
        match field {
            1 => out.count = number(&mut wire, kind)?,
            2 => out.sum = double(&mut wire, kind)?,
            3 => {
                out.buckets.push(bucket(bytes(&mut wire, kind, "bucket")?)?);
                crate::check_limit("buckets of a histogram", out.buckets.len(), MAX_PARTS)?;
            }
            4 => out.count_float = double(&mut wire, kind)?,
            5 => out.schema = zigzag(number(&mut wire, kind)?),
            6 => out.zero_threshold = double(&mut wire, kind)?,
            7 => out.zero_count = number(&mut wire, kind)?,
            8 => out.zero_count_float = double(&mut wire, kind)?,
            9 => out.negative.span(bytes(&mut wire, kind, "bucket span")?)?,
            10 => out.negative.deltas(&mut wire, kind)?,
            11 => out.negative.counts(&mut wire, kind)?,
            12 => out.positive.span(bytes(&mut wire, kind, "bucket span")?)?,
            13 => out.positive.deltas(&mut wire, kind)?,
            14 => out.positive.counts(&mut wire, kind)?,
            15 => out.start = time(&mut wire, kind)?,
            16 => {
                out.exemplars.push(bytes(&mut wire, kind, "exemplar")?);
                crate::check_limit("exemplars of a histogram", out.exemplars.len(), MAX_PARTS)?;
            }
            _ => wire.skip(kind)?,
        }
    }
    Ok(out)
}

fn bucket(mut wire: Wire<'_>) -> Result<Bucket<'_>, DecodeError> {
    let (mut count, mut count_float) = (0, 0.0);
    let mut out = Bucket { boundary: 0.0, count: 0.0, exemplar: None };
    while !wire.is_done() {
        match wire.tag()? {
            (1, kind) => count = number(&mut wire, kind)?,
            (2, kind) => out.boundary = double(&mut wire, kind)?,
            (3, kind) => out.exemplar = Some(bytes(&mut wire, kind, "exemplar")?),
            (4, kind) => count_float = double(&mut wire, kind)?,
            (_, kind) => wire.skip(kind)?,
        }
    }
    out.count = if count_float != 0.0 { count_float } else { count as f64 };
    Ok(out)
}

impl Side {
    fn span(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let mut span = Span { offset: 0, length: 0 };
        while !wire.is_done() {
            let bad = |wire: &Wire<'_>| wire.error("histogram span out of range");
            match wire.tag()? {
                (1, kind) => {
                    let offset = zigzag(number(&mut wire, kind)?);
                    span.offset = i32::try_from(offset).map_err(|_| bad(&wire))?;
                }
                (2, kind) => {
                    let length = number(&mut wire, kind)?;
                    span.length = u32::try_from(length).map_err(|_| bad(&wire))?;
                }
                (_, kind) => wire.skip(kind)?,
            }
        }
        self.spans.push(span);
        crate::check_limit("spans of a histogram", self.spans.len(), MAX_PARTS)
    }

    fn deltas(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        wire.varints(kind, |delta| {
            self.last = self.last.saturating_add(zigzag(delta));
            if self.integers.len() <= MAX_PARTS {
                self.integers.push(self.last as f64);
            }
        })?;
        crate::check_limit("buckets of a histogram", self.integers.len(), MAX_PARTS)
    }

    fn counts(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        wire.fixed64s(kind, |bits| {
            if self.floats.len() <= MAX_PARTS {
                self.floats.push(f64::from_bits(bits));
            }
        })?;
        crate::check_limit("buckets of a histogram", self.floats.len(), MAX_PARTS)
    }
}
