//! Scrapes in delimited protobuf: `io.prometheus.client.MetricFamily`, with classic and native histograms, exemplars
//! and start timestamps.
//!
//! What comes out, in which order and what is refused follows upstream's `model/textparse/protobufparse.go` (3.16).
//! Different here, on purpose: a NaN is [`crate::NORMAL_NAN`], as in the text formats, so that no target can write
//! staleness markers; and classic buckets of one histogram are bounded.
//!
//! The text form of a series ([`Found::series`]) is that of `text`, so a reader of one reads the other.

mod metric;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use model::{Histogram, Labels, MetricKind};

use crate::DecodeError;
use crate::wire::{Kind, Wire};
use metric::Metric;

/// Which forms of a histogram are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// Native ones as such; without it they are read as classic ones.
    pub native: bool,
    /// Classic ones also where there is a native one, or one with custom buckets.
    pub keep_classic: bool,
    /// Classic ones as native ones with custom buckets.
    pub convert: bool,
}

/// A piece of an exposition.
#[derive(Debug)]
pub enum Item<'a> {
    /// A metric family, before its series.
    Family {
        /// Its name.
        name: &'a str,
        /// Its type.
        kind: MetricKind,
        /// Its help text.
        help: &'a str,
        /// Its unit, empty when not stated.
        unit: &'a str,
    },
    /// A sample.
    Found(Found<'a>),
}

/// The value of a sample.
#[derive(Clone, Debug)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// A sample.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Name and labels as the text format writes them; the same text always means the same series.
    pub series: &'a str,
    /// The value.
    pub value: Value,
    /// Its timestamp in ms, when it has one.
    pub timestamp: Option<i64>,
    /// When its series began, ms; 0 = not stated.
    pub start: i64,
    /// Its exemplars.
    pub exemplars: Vec<FoundExemplar>,
}

/// An exemplar, which may have no timestamp.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundExemplar {
    /// The exemplar's own labels.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Its timestamp in ms, when it has one.
    pub timestamp: Option<i64>,
}

/// Hands the pieces of `body` to `each`, in order. Fails where the body is damaged, and when `each` does; what was
/// handed out before is then part of nothing.
pub fn read<E: From<DecodeError>>(
    body: &[u8],
    histograms: Histograms,
    mut each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut wire = Wire::new(body, "metric family");
    let mut scratch = metric::Scratch::default();
    while !wire.is_done() {
        let message = wire.message("metric family")?;
        let family = family(message)?;
        let mut announced = false;
        let mut pass = message;
        while !pass.is_done() {
            match pass.tag()? {
                (4, Kind::Bytes) => {
                    if !std::mem::replace(&mut announced, true) {
                        let Family { name, kind, help, unit } = family;
                        each(Item::Family { name, kind: kind.model(), help, unit })?;
                    }
                    let metric = Metric::read(pass.message("metric")?)?;
                    metric
                        .hand_out(&family, histograms, &mut scratch, &mut |found| each(Item::Found(found)))?;
                }
                (4, _) => return Err(pass.error("wrong wire type for the field").into()),
                (_, kind) => pass.skip(kind)?,
            }
        }
    }
    Ok(())
}

/// The type of a family, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FamilyKind {
    Counter,
    Gauge,
    Summary,
    Untyped,
    Histogram,
    GaugeHistogram,
}

impl FamilyKind {
    fn model(self) -> MetricKind {
        match self {
            Self::Counter => MetricKind::Counter,
            Self::Gauge => MetricKind::Gauge,
            Self::Summary => MetricKind::Summary,
            Self::Untyped => MetricKind::Unknown,
            Self::Histogram => MetricKind::Histogram,
            Self::GaugeHistogram => MetricKind::GaugeHistogram,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: FamilyKind,
    unit: &'a str,
}

/// The fields of a family besides its metrics.
fn family(mut wire: Wire<'_>) -> Result<Family<'_>, DecodeError> {
    let mut out = Family { name: "", help: "", kind: FamilyKind::Counter, unit: "" };
    let mut has_metrics = false;
    while !wire.is_done() {
        match wire.tag()? {
            (1, Kind::Bytes) => out.name = wire.text()?,
            (2, Kind::Bytes) => out.help = wire.text()?,
            (3, Kind::Varint) => {
                out.kind = match wire.varint()? {
                    0 => FamilyKind::Counter,
                    1 => FamilyKind::Gauge,
                    2 => FamilyKind::Summary,
                    3 => FamilyKind::Untyped,
                    4 => FamilyKind::Histogram,
                    5 => FamilyKind::GaugeHistogram,
                    _ => return Err(wire.error("unknown metric type")),
                }
            }
            (5, Kind::Bytes) => out.unit = wire.text()?,
            (4, Kind::Bytes) => {
                wire.bytes()?;
                has_metrics = true;
            }
            (1..=5, _) => return Err(wire.error("wrong wire type for the field")),
            (_, kind) => wire.skip(kind)?,
        }
    }
    // An empty family is passed over, whatever it is called.
    if has_metrics && out.name.is_empty() {
        return Err(wire.error("metric family without a name"));
    }
    Ok(out)
}
