//! Native histograms of remote write, which 1.0 and 2.0 code alike. Whether a histogram contradicts itself is not
//! judged here but by `ingest`, so that a bad one costs only itself.

use model::Histogram;
use model::histogram::{ResetHint, Span};

use crate::wire::{Kind, Wire, zigzag};
use crate::{DecodeError, check_limit};

/// More buckets or spans than any schema makes sense with.
const MAX_BUCKETS: usize = 65_536;
/// Buckets, spans and boundaries of all histograms of a request: a byte of the body may become one of eight bytes.
const MAX_REQUEST_BUCKETS: usize = 2_000_000;

/// Adds what `histogram` has to `sum`, which counts over a request.
pub(super) fn count(histogram: &Histogram, sum: &mut usize) -> Result<(), DecodeError> {
    let spans = histogram.positive_spans.len() + histogram.negative_spans.len();
    let buckets = histogram.positive_buckets.len() + histogram.negative_buckets.len();
    *sum += spans + buckets + histogram.custom_values.as_ref().map_or(0, |bounds| bounds.len());
    check_limit("buckets of all histograms of a request", *sum, MAX_REQUEST_BUCKETS)
}

/// The histogram in `wire`, its timestamp and its start timestamp (0 = unknown).
pub(super) fn decode(mut wire: Wire<'_>) -> Result<(Histogram, i64, i64), DecodeError> {
    let mut out = Histogram { integer: true, ..Histogram::default() };
    let (mut timestamp, mut start) = (0, 0);
    let (mut positive, mut negative) = (Buckets::default(), Buckets::default());
    let mut custom = Vec::new();
    while !wire.is_done() {
        let (field, kind) = wire.tag()?;
        match field {
            1 | 6 => {
                wire.expect(kind, Kind::Varint)?;
                let count = wire.varint()? as f64;
                if field == 1 {
                    (out.count, out.integer) = (count, true);
                } else {
                    out.zero_count = count;
                }
            }
            2 | 3 | 5 | 7 => {
                wire.expect(kind, Kind::Fixed64)?;
                let value = wire.double()?;
                match field {
                    2 => (out.count, out.integer) = (value, false),
                    3 => out.sum = value,
                    5 => out.zero_threshold = value,
                    _ => out.zero_count = value,
                }
            }
            4 => {
                wire.expect(kind, Kind::Varint)?;
                // What is beyond is no schema either, and costs only its histogram.
                let schema = zigzag(wire.varint()?);
                out.schema = schema.clamp(i64::from(i8::MIN), i64::from(i8::MAX)) as i8;
            }
            8 => negative.span(&mut wire, kind)?,
            9 => negative.deltas(&mut wire, kind)?,
            10 => negative.counts(&mut wire, kind)?,
            11 => positive.span(&mut wire, kind)?,
            12 => positive.deltas(&mut wire, kind)?,
            13 => positive.counts(&mut wire, kind)?,
            14 | 15 | 17 => {
                wire.expect(kind, Kind::Varint)?;
                let value = wire.varint()?;
                match field {
                    14 => out.reset_hint = reset_hint(value),
                    15 => timestamp = value as i64,
                    _ => start = value as i64,
                }
            }
            16 => {
                wire.doubles(kind, &mut custom, "custom bucket boundaries of a histogram", MAX_BUCKETS)?;
            }
            _ => wire.skip(kind)?,
        }
    }
    (out.positive_spans, out.positive_buckets) = positive.take(out.integer);
    (out.negative_spans, out.negative_buckets) = negative.take(out.integer);
    if !custom.is_empty() || out.has_custom_buckets() {
        out.custom_values = Some(custom.into());
    }
    Ok((out, timestamp, start))
}

fn reset_hint(number: u64) -> ResetHint {
    match number {
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    }
}

/// What a histogram may have too many of.
const BUCKETS: &str = "buckets of a histogram";

/// The buckets of one side: integers as deltas, floats as they are.
#[derive(Default)]
struct Buckets {
    spans: Vec<Span>,
    integers: Vec<f64>,
    last: i64,
    floats: Vec<f64>,
}

impl Buckets {
    fn span(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        wire.expect(kind, Kind::Bytes)?;
        let mut message = wire.message("histogram span")?;
        let mut span = Span { offset: 0, length: 0 };
        while !message.is_done() {
            let (field, kind) = message.tag()?;
            match field {
                1 | 2 => {
                    message.expect(kind, Kind::Varint)?;
                    let value = message.varint()?;
                    // What is beyond fits no buckets, and costs only its histogram.
                    if field == 1 {
                        span.offset = zigzag(value).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
                    } else {
                        span.length = u32::try_from(value).unwrap_or(u32::MAX);
                    }
                }
                _ => message.skip(kind)?,
            }
        }
        self.spans.push(span);
        check_limit("spans of a histogram", self.spans.len(), MAX_BUCKETS)
    }

    fn deltas(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        wire.try_varints(kind, |delta| {
            check_limit(BUCKETS, self.integers.len() + 1, MAX_BUCKETS)?;
            self.last = self.last.saturating_add(zigzag(delta));
            self.integers.push(self.last as f64);
            Ok(())
        })
    }

    fn counts(&mut self, wire: &mut Wire<'_>, kind: Kind) -> Result<(), DecodeError> {
        wire.doubles(kind, &mut self.floats, BUCKETS, MAX_BUCKETS)
    }

    fn take(self, integer: bool) -> (Vec<Span>, Vec<f64>) {
        (self.spans, if integer { self.integers } else { self.floats })
    }
}
