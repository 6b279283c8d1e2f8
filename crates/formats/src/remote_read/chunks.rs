//! Samples as chunks in Prometheus's encodings `XOR`, `HISTOGRAM` and `FLOAT_HISTOGRAM`, which are a wire format here:
//! remote readers decode them. A chunk begins anew after 120 samples, and wherever its encoding cannot go on: floats
//! beside histograms, another layout of buckets, a possible counter reset.

use std::sync::Arc;

use model::Histogram;
use model::histogram::{ResetHint, Span};
use model::seam::SeriesData;

use super::bits::{BitWriter, XorColumn, fits};
use super::{deltas, is_whole};

/// Samples of a full chunk, as Prometheus cuts them.
const SAMPLES: usize = 120;

/// How a chunk is encoded; the numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// Floats.
    Xor = 1,
    /// Integer histograms.
    Histogram = 2,
    /// Float histograms.
    FloatHistogram = 3,
}

/// A chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First timestamp, ms.
    pub min_time: i64,
    /// Last timestamp, ms.
    pub max_time: i64,
    /// Encoding.
    pub kind: ChunkKind,
    /// The encoded samples, the header with their number in it.
    pub bytes: Vec<u8>,
}

/// The samples of `data` as chunks, in order of time. Every float comes back bit for bit.
pub fn chunks(data: &SeriesData) -> Vec<Chunk> {
    let mut out = Vec::new();
    let mut histograms = data.histograms.as_slice();
    let mut at = 0;
    while at < data.stamps.len() {
        let next_histogram = histograms.first().map_or(data.stamps.len(), |(position, _)| *position as usize);
        if at < next_histogram {
            let end = next_histogram.min(at + SAMPLES);
            out.push(floats(&data.stamps[at..end], &data.values[at..end]));
            at = end;
            continue;
        }
        // As many histograms as follow one another without a float between them.
        let adjacent = histograms.iter().enumerate().take_while(|(n, (p, _))| *p as usize == at + n).count();
        let count = run(&histograms[..adjacent.min(SAMPLES)]);
        out.push(encode_histograms(&data.stamps[at..at + count], &histograms[..count]));
        histograms = &histograms[count..];
        at += count;
    }
    out
}

fn floats(stamps: &[i64], values: &[f64]) -> Chunk {
    let mut out = BitWriter::after(&(stamps.len() as u16).to_be_bytes());
    let mut column = XorColumn::new(values[0]);
    let mut delta = 0u64;
    for (at, (stamp, value)) in stamps.iter().zip(values).enumerate() {
        if at == 0 {
            out.uvarint(crate::wire_write::zigzag(*stamp));
            out.bits(value.to_bits(), 64);
            continue;
        }
        let now = stamp.wrapping_sub(stamps[at - 1]) as u64;
        if at == 1 {
            out.uvarint(now);
        } else {
            let change = now.wrapping_sub(delta) as i64;
            match change {
                0 => out.bits(0, 1),
                _ if fits(change, 14) => {
                    out.bits(0b10, 2);
                    out.bits(change as u64, 14);
                }
                _ if fits(change, 17) => {
                    out.bits(0b110, 3);
                    out.bits(change as u64, 17);
                }
                _ if fits(change, 20) => {
                    out.bits(0b1110, 4);
                    out.bits(change as u64, 20);
                }
                _ => {
                    out.bits(0b1111, 4);
                    out.bits(change as u64, 64);
                }
            }
        }
        delta = now;
        out.xor(&mut column, *value);
    }
    chunk(stamps, ChunkKind::Xor, out)
}

fn chunk(stamps: &[i64], kind: ChunkKind, out: BitWriter) -> Chunk {
    let last = stamps[stamps.len() - 1];
    Chunk { min_time: stamps[0], max_time: last, kind, bytes: out.finish() }
}

/// How many of `histograms`, from the first on, may share a chunk.
fn run(histograms: &[(u32, Arc<Histogram>)]) -> usize {
    let joins = |pair: &[(u32, Arc<Histogram>)]| follows(&pair[0].1, &pair[1].1);
    1 + histograms.windows(2).take_while(|pair| joins(pair)).count()
}

/// Whether `next` may stand behind `before` in a chunk: readers take each but the first of a chunk for a histogram
/// without a counter reset before it, in the layout of the first.
fn follows(before: &Histogram, next: &Histogram) -> bool {
    if before.is_stale() || next.is_stale() {
        return before.is_stale() && next.is_stale() && is_whole(before) == is_whole(next);
    }
    let bounds = |h: &Histogram| {
        h.custom_values.as_deref().unwrap_or(&[]).iter().map(|b| b.to_bits()).collect::<Vec<_>>()
    };
    let same_layout = is_whole(before) == is_whole(next)
        && before.schema == next.schema
        && before.zero_threshold.to_bits() == next.zero_threshold.to_bits()
        && before.positive_spans == next.positive_spans
        && before.negative_spans == next.negative_spans
        && bounds(before) == bounds(next);
    if !same_layout {
        return false;
    }
    let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    if gauge(before) || gauge(next) {
        return gauge(before) && gauge(next);
    }
    let grown = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| b >= a);
    next.reset_hint != ResetHint::Reset
        && next.count >= before.count
        && next.zero_count >= before.zero_count
        && grown(&before.positive_buckets, &next.positive_buckets)
        && grown(&before.negative_buckets, &next.negative_buckets)
}

fn encode_histograms(stamps: &[i64], histograms: &[(u32, Arc<Histogram>)]) -> Chunk {
    let all: Vec<&Histogram> = histograms.iter().map(|(_, histogram)| histogram.as_ref()).collect();
    let hint = match all[0].reset_hint {
        ResetHint::Unknown => 0b0000_0000,
        ResetHint::Reset => 0b1000_0000,
        ResetHint::NotReset => 0b0100_0000,
        ResetHint::Gauge => 0b1100_0000,
    };
    let [high, low] = (all.len() as u16).to_be_bytes();
    let mut out = BitWriter::after(&[high, low, hint]);
    // A staleness marker has no buckets, whatever it came with.
    let marker = Histogram { sum: all[0].sum, ..Histogram::default() };
    put_layout(&mut out, if all[0].is_stale() { &marker } else { all[0] });
    let whole = is_whole(all[0]);
    if whole {
        integers(&mut out, stamps, &all);
    } else {
        put_floats(&mut out, stamps, &all);
    }
    chunk(stamps, if whole { ChunkKind::Histogram } else { ChunkKind::FloatHistogram }, out)
}

fn put_layout(out: &mut BitWriter, histogram: &Histogram) {
    put_zero_threshold(out, histogram.zero_threshold);
    out.varbit(i64::from(histogram.schema));
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        out.varbit_unsigned(spans.len() as u64);
        for Span { offset, length } in spans {
            out.varbit_unsigned(u64::from(*length));
            out.varbit(i64::from(*offset));
        }
    }
    if histogram.has_custom_buckets() {
        let bounds = histogram.custom_values.as_deref().unwrap_or(&[]);
        out.varbit_unsigned(bounds.len() as u64);
        for bound in bounds {
            put_bound(out, *bound);
        }
    }
}

/// One byte for zero and for powers of two from 2^-243 to 2^10, else nine.
fn put_zero_threshold(out: &mut BitWriter, threshold: f64) {
    let bits = threshold.to_bits();
    let exponent = (bits >> 52) as i64 - 1022;
    if threshold == 0.0 {
        out.byte(0);
    } else if bits << 12 == 0 && (-242..=11).contains(&exponent) {
        out.byte((exponent + 243) as u8);
    } else {
        out.byte(255);
        out.bits(bits, 64);
    }
}

/// A bound that is a multiple of 0.001 up to 33,554.43 takes up to four bytes, any other a bit and eight.
fn put_bound(out: &mut BitWriter, bound: f64) {
    let thousandths = bound * 1000.0;
    if (0.0..=33_554_430.0).contains(&thousandths) && thousandths.round() / 1000.0 == bound {
        out.varbit_unsigned(thousandths.round() as u64 + 1);
    } else {
        out.bits(0, 1);
        out.bits(bound.to_bits(), 64);
    }
}

/// A column of integers: the value, then changes of differences.
#[derive(Clone, Copy, Debug, Default)]
struct IntegerColumn {
    value: i64,
    delta: i64,
}

impl IntegerColumn {
    fn put(&mut self, out: &mut BitWriter, value: i64) {
        let delta = value.wrapping_sub(self.value);
        out.varbit(delta.wrapping_sub(self.delta));
        *self = Self { value, delta };
    }
}

fn integers(out: &mut BitWriter, stamps: &[i64], all: &[&Histogram]) {
    let buckets = |h: &Histogram| -> Vec<i64> {
        deltas(&h.positive_buckets).chain(deltas(&h.negative_buckets)).collect()
    };
    let first = all[0];
    let stale = first.is_stale();
    let column = |value: i64| IntegerColumn { value, delta: 0 };
    let (count, zero) = if stale { (0, 0) } else { (first.count as i64, first.zero_count as i64) };
    let (mut time, mut count, mut zero) = (column(stamps[0]), column(count), column(zero));
    let mut sum = XorColumn::new(first.sum);
    out.varbit(time.value);
    out.varbit_unsigned(count.value as u64);
    out.varbit_unsigned(zero.value as u64);
    out.bits(first.sum.to_bits(), 64);
    let mut columns: Vec<IntegerColumn> =
        if stale { Vec::new() } else { buckets(first).into_iter().map(column).collect() };
    for bucket in &columns {
        out.varbit(bucket.value);
    }
    for (stamp, histogram) in stamps.iter().zip(all).skip(1) {
        time.put(out, *stamp);
        if stale {
            out.varbit(0);
            out.varbit(0);
            out.xor(&mut sum, histogram.sum);
            continue;
        }
        count.put(out, histogram.count as i64);
        zero.put(out, histogram.zero_count as i64);
        out.xor(&mut sum, histogram.sum);
        for (bucket, value) in columns.iter_mut().zip(buckets(histogram)) {
            bucket.put(out, value);
        }
    }
}

fn put_floats(out: &mut BitWriter, stamps: &[i64], all: &[&Histogram]) {
    let values = |h: &Histogram| -> Vec<f64> {
        if h.is_stale() {
            return vec![0.0, 0.0, h.sum];
        }
        let head = [h.count, h.zero_count, h.sum];
        head.iter().chain(&h.positive_buckets).chain(&h.negative_buckets).copied().collect()
    };
    let mut time = IntegerColumn { value: stamps[0], delta: 0 };
    out.varbit(time.value);
    let mut columns: Vec<XorColumn> = values(all[0])
        .into_iter()
        .map(|value| {
            out.bits(value.to_bits(), 64);
            XorColumn::new(value)
        })
        .collect();
    for (stamp, histogram) in stamps.iter().zip(all).skip(1) {
        time.put(out, *stamp);
        for (column, value) in columns.iter_mut().zip(values(histogram)) {
            out.xor(column, value);
        }
    }
}
