//! One data point of any kind, read into memory that the next one reuses.

use std::borrow::Cow;

use model::{Exemplar, Labels};

use super::value::Attributes;
use crate::DecodeError;
use crate::wire::{Kind, Wire, zigzag};

/// More buckets, bounds, quantiles or exemplars than any point makes sense with.
const MAX_PARTS: usize = 65_536;
/// An exemplar whose labels have more characters loses its attributes, as upstream.
const MAX_EXEMPLAR_CHARS: usize = 128;
/// The bit of a point's flags that says: nothing was recorded.
const NO_RECORDED_VALUE: u64 = 1;

/// What kind of points a metric has, by the field that holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `NumberDataPoint`
    Number,
    /// `HistogramDataPoint`
    Histogram,
    /// `ExponentialHistogramDataPoint`
    Exponential,
    /// `SummaryDataPoint`
    Summary,
}

/// One side of an exponential histogram.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) offset: i64,
    pub(super) counts: Vec<u64>,
}

/// An exemplar; `None` stands for a value or labels that make no sense.
pub(super) type PointExemplar = Option<Exemplar>;

/// A data point.
#[derive(Debug)]
pub(super) struct Point<'a> {
    pub(super) attributes: Attributes<'a>,
    pub(super) start_nanos: u64,
    pub(super) nanos: u64,
    pub(super) flags: u64,
    pub(super) value: f64,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) counts: Vec<u64>,
    pub(super) bounds: Vec<f64>,
    pub(super) scale: i64,
    pub(super) zero_count: u64,
    pub(super) zero_threshold: f64,
    pub(super) positive: Side,
    pub(super) negative: Side,
    pub(super) quantiles: Vec<(f64, f64)>,
    pub(super) exemplars: Vec<PointExemplar>,
}

impl<'a> Point<'a> {
    pub(super) fn new() -> Self {
        Self {
            attributes: Attributes::new(),
            start_nanos: 0,
            nanos: 0,
            flags: 0,
            value: 0.0,
            count: 0,
            sum: None,
            counts: Vec::new(),
            bounds: Vec::new(),
            scale: 0,
            zero_count: 0,
            zero_threshold: 0.0,
            positive: Side::default(),
            negative: Side::default(),
            quantiles: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    /// Its time, ms.
    pub(super) fn timestamp(&self) -> i64 {
        millis(self.nanos)
    }

    /// Its start time, ms; 0 = not known.
    pub(super) fn start(&self) -> i64 {
        millis(self.start_nanos)
    }

    /// Whether it says that nothing was recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    fn clear(&mut self) {
        self.attributes.clear();
        for list in [&mut self.counts, &mut self.positive.counts, &mut self.negative.counts] {
            list.clear();
        }
        self.bounds.clear();
        self.quantiles.clear();
        self.exemplars.clear();
        (self.start_nanos, self.nanos, self.flags, self.count, self.zero_count) = (0, 0, 0, 0, 0);
        (self.value, self.sum, self.zero_threshold, self.scale) = (0.0, None, 0.0, 0);
        (self.positive.offset, self.negative.offset) = (0, 0);
    }

    /// Reads a point of that shape.
    pub(super) fn read(&mut self, shape: Shape, mut wire: Wire<'a>) -> Result<(), DecodeError> {
        self.clear();
        while !wire.is_done() {
            let (field, kind) = wire.tag()?;
            match shape {
                Shape::Number => self.number(field, kind, &mut wire)?,
                Shape::Histogram => self.histogram(field, kind, &mut wire)?,
                Shape::Exponential => self.exponential(field, kind, &mut wire)?,
                Shape::Summary => self.summary(field, kind, &mut wire)?,
            }
        }
        Ok(())
    }

    fn number(&mut self, field: u32, kind: Kind, wire: &mut Wire<'a>) -> Result<(), DecodeError> {
        match field {
            2 => self.start_nanos = fixed(wire, kind)?,
            3 => self.nanos = fixed(wire, kind)?,
            4 => self.value = f64::from_bits(fixed(wire, kind)?),
            5 => self.exemplar(wire, kind)?,
            6 => self.value = fixed(wire, kind)? as i64 as f64,
            7 => self.attribute(wire, kind)?,
            8 => self.flags = number(wire, kind)?,
            _ => wire.skip(kind)?,
        }
        Ok(())
    }

    fn histogram(&mut self, field: u32, kind: Kind, wire: &mut Wire<'a>) -> Result<(), DecodeError> {
        match field {
            2 => self.start_nanos = fixed(wire, kind)?,
            3 => self.nanos = fixed(wire, kind)?,
            4 => self.count = fixed(wire, kind)?,
            5 => self.sum = Some(f64::from_bits(fixed(wire, kind)?)),
            6 => wire.fixed64s(kind, |count| bounded(&mut self.counts, count))?,
            7 => wire.fixed64s(kind, |bits| bounded(&mut self.bounds, f64::from_bits(bits)))?,
            8 => self.exemplar(wire, kind)?,
            9 => self.attribute(wire, kind)?,
            10 => self.flags = number(wire, kind)?,
            _ => wire.skip(kind)?,
        }
        crate::check_limit("buckets of a data point", self.counts.len().max(self.bounds.len()), MAX_PARTS)
    }

    fn exponential(&mut self, field: u32, kind: Kind, wire: &mut Wire<'a>) -> Result<(), DecodeError> {
        match field {
            1 => self.attribute(wire, kind)?,
            2 => self.start_nanos = fixed(wire, kind)?,
            3 => self.nanos = fixed(wire, kind)?,
            4 => self.count = fixed(wire, kind)?,
            5 => self.sum = Some(f64::from_bits(fixed(wire, kind)?)),
            6 => self.scale = small(wire, kind)?,
            7 => self.zero_count = fixed(wire, kind)?,
            8 => self.positive.read(wire, kind)?,
            9 => self.negative.read(wire, kind)?,
            10 => self.flags = number(wire, kind)?,
            11 => self.exemplar(wire, kind)?,
            14 => self.zero_threshold = f64::from_bits(fixed(wire, kind)?),
            _ => wire.skip(kind)?,
        }
        Ok(())
    }

    fn summary(&mut self, field: u32, kind: Kind, wire: &mut Wire<'a>) -> Result<(), DecodeError> {
        match field {
            2 => self.start_nanos = fixed(wire, kind)?,
            3 => self.nanos = fixed(wire, kind)?,
            4 => self.count = fixed(wire, kind)?,
            5 => self.sum = Some(f64::from_bits(fixed(wire, kind)?)),
            6 => self.quantiles.push(quantile(message(wire, kind, "quantile")?)?),
            7 => self.attribute(wire, kind)?,
            8 => self.flags = number(wire, kind)?,
            _ => wire.skip(kind)?,
        }
        crate::check_limit("quantiles of a data point", self.quantiles.len(), MAX_PARTS)
    }

    fn attribute(&mut self, wire: &mut Wire<'a>, kind: Kind) -> Result<(), DecodeError> {
        let message = message(wire, kind, "attribute")?;
        self.attributes.read(message)
    }

    fn exemplar(&mut self, wire: &mut Wire<'a>, kind: Kind) -> Result<(), DecodeError> {
        let message = message(wire, kind, "exemplar")?;
        self.exemplars.push(exemplar(message)?);
        crate::check_limit("exemplars of a data point", self.exemplars.len(), MAX_PARTS)
    }
}

impl Side {
    fn read(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        let mut message = message(wire, kind, "buckets")?;
        while !message.is_done() {
            match message.tag()? {
                (1, kind) => self.offset = small(&mut message, kind)?,
                (2, kind) => message.varints(kind, |count| bounded(&mut self.counts, count))?,
                (_, kind) => message.skip(kind)?,
            }
        }
        crate::check_limit("buckets of a data point", self.counts.len(), MAX_PARTS)
    }
}

/// Appends while the list is not over its limit: the check that fails then comes after.
fn bounded<T>(list: &mut Vec<T>, value: T) {
    if list.len() <= MAX_PARTS {
        list.push(value);
    }
}

fn fixed(wire: &mut Wire<'_>, kind: Kind) -> Result<u64, DecodeError> {
    wire.expect(kind, Kind::Fixed64)?;
    wire.fixed64()
}

fn number(wire: &mut Wire<'_>, kind: Kind) -> Result<u64, DecodeError> {
    wire.expect(kind, Kind::Varint)?;
    wire.varint()
}

/// A signed number of 32 bits: more bits than that are cut off, as protobuf has it.
fn small(wire: &mut Wire<'_>, kind: Kind) -> Result<i64, DecodeError> {
    number(wire, kind).map(|value| i64::from(zigzag(value) as i32))
}

fn message<'a>(wire: &mut Wire<'a>, kind: Kind, place: &'static str) -> Result<Wire<'a>, DecodeError> {
    wire.expect(kind, Kind::Bytes)?;
    wire.message(place)
}

/// Nanoseconds as ms; a time after 2262 becomes one before 1970, as upstream.
fn millis(nanos: u64) -> i64 {
    nanos as i64 / 1_000_000
}

fn quantile(mut wire: Wire<'_>) -> Result<(f64, f64), DecodeError> {
    let mut out = (0.0, 0.0);
    while !wire.is_done() {
        match wire.tag()? {
            (1, kind) => out.0 = f64::from_bits(fixed(&mut wire, kind)?),
            (2, kind) => out.1 = f64::from_bits(fixed(&mut wire, kind)?),
            (_, kind) => wire.skip(kind)?,
        }
    }
    Ok(out)
}

fn exemplar(mut wire: Wire<'_>) -> Result<PointExemplar, DecodeError> {
    let (mut value, mut nanos) = (None, 0);
    let (mut trace, mut span): (&[u8], &[u8]) = (&[], &[]);
    let mut attributes = Attributes::new();
    while !wire.is_done() {
        match wire.tag()? {
            (2, kind) => nanos = fixed(&mut wire, kind)?,
            (3, kind) => value = Some(f64::from_bits(fixed(&mut wire, kind)?)),
            (6, kind) => value = Some(fixed(&mut wire, kind)? as i64 as f64),
            (field @ (4 | 5), Kind::Bytes) => {
                let range = wire.bytes()?;
                *(if field == 4 { &mut span } else { &mut trace }) = &wire.buf[range];
            }
            (7, kind) => attributes.read(message(&mut wire, kind, "exemplar attribute")?)?,
            (_, kind) => wire.skip(kind)?,
        }
    }
    let id = |name: &'static str, bytes: &[u8]| {
        let known = !bytes.is_empty() && bytes.len() <= 16 && bytes.iter().any(|b| *b != 0);
        known.then(|| {
            (Cow::Borrowed(name), bytes.iter().map(|b| format!("{b:02x}")).collect::<String>().into())
        })
    };
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        id("trace_id", trace).into_iter().chain(id("span_id", span)).collect();
    let chars = |name: &str, value: &str| name.chars().count() + value.chars().count();
    let all = pairs.iter().map(|(n, v)| chars(n, v)).sum::<usize>()
        + attributes.list.iter().map(|(n, v)| chars(n, v)).sum::<usize>();
    if all <= MAX_EXEMPLAR_CHARS {
        pairs.extend(attributes.list.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)));
    }
    let labels = Labels::from_pairs(pairs).ok();
    Ok(value.zip(labels).map(|(value, labels)| Exemplar { labels, value, timestamp: millis(nanos) }))
}

/// At most 100 characters of `text`, for messages.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(at, _)| &text[..at])
}
