//! Chunks are read back by a decoder of their own, written from the description of the layout.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use model::seam::SeriesData;
use model::{Histogram, Labels, MatchOp, stale_nan};
use proptest::prelude::*;

use super::*;
use crate::DecodeError;
use crate::wire::{Kind, Wire, zigzag as unzigzag};

/// Reads bits, highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bits(&mut self, count: usize) -> u64 {
        let mut value = 0;
        for _ in 0..count {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            value = value << 1 | u64::from(bit);
            self.at += 1;
        }
        value
    }

    fn signed(&mut self, width: usize) -> i64 {
        let raw = self.bits(width);
        if width < 64 && raw > 1 << (width - 1) { raw.wrapping_sub(1 << width) as i64 } else { raw as i64 }
    }

    fn ones(&mut self, most: usize) -> usize {
        (0..most).take_while(|_| self.bits(1) == 1).count()
    }

    fn uvarint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.bits(8);
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn varbit(&mut self, signed: bool) -> i64 {
        let width = [0, 3, 6, 9, 12, 18, 25, 56, 64][self.ones(8)];
        match (width, signed) {
            (0, _) => 0,
            (_, true) => self.signed(width),
            (_, false) => self.bits(width) as i64,
        }
    }

    fn xor(&mut self, value: &mut f64, window: &mut (usize, usize)) {
        if self.bits(1) == 0 {
            return;
        }
        if self.bits(1) == 1 {
            let leading = self.bits(5) as usize;
            let significant = match self.bits(6) as usize {
                0 => 64,
                n => n,
            };
            *window = (leading, 64 - leading - significant);
        }
        let difference = self.bits(64 - window.0 - window.1) << window.1;
        *value = f64::from_bits(value.to_bits() ^ difference);
    }
}

fn read_floats(chunk: &Chunk) -> Vec<(i64, u64)> {
    let count = u16::from_be_bytes([chunk.bytes[0], chunk.bytes[1]]);
    let mut bits = Bits { bytes: &chunk.bytes, at: 16 };
    let (mut time, mut delta, mut value, mut window) = (0i64, 0i64, 0.0, (0, 0));
    let mut out = Vec::new();
    for at in 0..count {
        match at {
            0 => {
                time = unzigzag(bits.uvarint());
                value = f64::from_bits(bits.bits(64));
            }
            1 => delta = bits.uvarint() as i64,
            _ => {
                let width = [0, 14, 17, 20, 64][bits.ones(4)];
                delta = delta.wrapping_add(if width == 0 { 0 } else { bits.signed(width) });
            }
        }
        if at > 0 {
            time = time.wrapping_add(delta);
            bits.xor(&mut value, &mut window);
        }
        out.push((time, value.to_bits()));
    }
    assert!(bits.at.div_ceil(8) == chunk.bytes.len(), "nothing is left over");
    out
}

fn read_histograms(chunk: &Chunk) -> Vec<(i64, Histogram)> {
    let count = u16::from_be_bytes([chunk.bytes[0], chunk.bytes[1]]);
    let hint = [ResetHint::Unknown, ResetHint::NotReset, ResetHint::Reset, ResetHint::Gauge]
        [usize::from(chunk.bytes[2] >> 6)];
    let mut bits = Bits { bytes: &chunk.bytes, at: 24 };
    let mut layout = Histogram { integer: chunk.kind == ChunkKind::Histogram, ..Histogram::default() };
    layout.zero_threshold = match bits.bits(8) {
        0 => 0.0,
        255 => f64::from_bits(bits.bits(64)),
        n => 0.5 * 2f64.powi(n as i32 - 243),
    };
    layout.schema = bits.varbit(true) as i8;
    for positive in [true, false] {
        let spans = (0..bits.varbit(false))
            .map(|_| {
                let length = bits.varbit(false) as u32;
                Span { offset: bits.varbit(true) as i32, length }
            })
            .collect();
        if positive { layout.positive_spans = spans } else { layout.negative_spans = spans }
    }
    if layout.schema == CUSTOM_BUCKETS_SCHEMA {
        let bounds = (0..bits.varbit(false)).map(|_| match bits.varbit(false) {
            0 => f64::from_bits(bits.bits(64)),
            n => (n - 1) as f64 / 1000.0,
        });
        layout.custom_values = Some(bounds.collect::<Vec<_>>().into());
    }
    let buckets = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
    let (positive, negative) = (buckets(&layout.positive_spans), buckets(&layout.negative_spans));
    // Columns: count, zero count, positive, negative buckets; integers as value and difference.
    let columns = 2 + positive + negative;
    let (mut whole, mut float) = (vec![(0i64, 0i64); columns], vec![(0.0f64, (0, 0)); columns]);
    let (mut time, mut delta, mut sum) = (0i64, 0i64, (0.0f64, (0, 0)));
    let mut out = Vec::new();
    for at in 0..count {
        let change = bits.varbit(true);
        delta = if at == 0 { 0 } else { delta + change };
        time += if at == 0 { change } else { delta };
        for column in 0..columns {
            if column == 2 && layout.integer {
                if at == 0 { sum.0 = f64::from_bits(bits.bits(64)) } else { bits.xor(&mut sum.0, &mut sum.1) }
            }
            if layout.integer && at == 0 {
                whole[column] = (bits.varbit(column >= 2), 0);
            } else if layout.integer {
                whole[column].1 += bits.varbit(true);
                whole[column].0 += whole[column].1;
            } else {
                let (value, window) = &mut float[column];
                if at == 0 { *value = f64::from_bits(bits.bits(64)) } else { bits.xor(value, window) }
            }
            if column == 1 && !layout.integer {
                if at == 0 { sum.0 = f64::from_bits(bits.bits(64)) } else { bits.xor(&mut sum.0, &mut sum.1) }
            }
        }
        if columns == 2 && layout.integer {
            if at == 0 { sum.0 = f64::from_bits(bits.bits(64)) } else { bits.xor(&mut sum.0, &mut sum.1) }
        }
        let mut one = layout.clone();
        one.reset_hint = if at == 0 || hint == ResetHint::Gauge { hint } else { ResetHint::NotReset };
        one.sum = sum.0;
        if layout.integer {
            one.count = whole[0].0 as f64;
            one.zero_count = whole[1].0 as f64;
            let sums = |all: &[(i64, i64)]| {
                all.iter()
                    .scan(0, |total, (delta, _)| {
                        *total += delta;
                        Some(*total as f64)
                    })
                    .collect()
            };
            one.positive_buckets = sums(&whole[2..2 + positive]);
            one.negative_buckets = sums(&whole[2 + positive..]);
        } else {
            one.count = float[0].0;
            one.zero_count = float[1].0;
            one.positive_buckets = float[2..2 + positive].iter().map(|(v, _)| *v).collect();
            one.negative_buckets = float[2 + positive..].iter().map(|(v, _)| *v).collect();
        }
        out.push((time, one));
    }
    out
}

fn series(stamps: Vec<i64>, values: Vec<f64>) -> SeriesData {
    let labels = Labels::from_pairs([("__name__", "m"), ("a", "b")]).unwrap();
    SeriesData { labels, stamps, values, ..SeriesData::default() }
}

fn histogram(counts: [u32; 3], hint: ResetHint, integer: bool, custom: bool) -> Histogram {
    let buckets: Vec<f64> = counts.iter().map(|c| f64::from(*c) + if integer { 0.0 } else { 0.25 }).collect();
    let count = buckets.iter().sum::<f64>() + buckets[0];
    let spans = vec![Span { offset: if custom { 0 } else { -2 }, length: 2 }, Span { offset: 3, length: 1 }];
    Histogram {
        integer,
        reset_hint: hint,
        schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 3 },
        zero_threshold: if custom { 0.0 } else { 2f64.powi(-128) },
        zero_count: 0.0,
        count,
        sum: 1.5 * count,
        positive_spans: spans,
        positive_buckets: buckets.clone(),
        negative_spans: if custom { vec![] } else { vec![Span { offset: 1, length: 1 }] },
        negative_buckets: if custom { vec![] } else { vec![buckets[0]] },
        custom_values: custom.then(|| [0.005, 1.0, 1e9, 2e9, 3e9, 4e9].as_slice().into()),
    }
}

proptest! {
    #[test]
    fn floats_of_any_bits_and_times_come_back(
        start in -(1i64 << 50)..1i64 << 50,
        samples in proptest::collection::vec((1i64..2_000_000, any::<u64>(), any::<bool>()), 1..400),
    ) {
        let (mut stamps, mut values) = (Vec::new(), Vec::new());
        let mut time = start;
        for (step, bits, regular) in samples {
            time += if regular { 15_000 } else { step };
            stamps.push(time);
            values.push(if regular { (bits % 1000) as f64 } else { f64::from_bits(bits) });
        }
        let data = series(stamps, values);
        let chunks = chunks(&data);
        prop_assert_eq!(chunks.len(), data.stamps.len().div_ceil(120));
        let found: Vec<_> = chunks.iter().flat_map(read_floats).collect();
        let expected: Vec<_> = data.stamps.iter().copied().zip(data.values.iter().map(|v| v.to_bits())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn histograms_of_all_kinds_come_back(
        all in proptest::collection::vec((any::<[u8; 3]>(), 0u8..12, any::<bool>(), any::<bool>(), 1i64..100_000), 1..200),
        growing in any::<bool>(),
    ) {
        let mut data = series(vec![], vec![]);
        let (mut time, mut total) = (1_700_000_000_000i64, [0u32; 3]);
        for (counts, kind, integer, custom, step) in all {
            time += step;
            for (sum, count) in total.iter_mut().zip(counts) {
                *sum = if growing { *sum + u32::from(count) } else { u32::from(count) };
            }
            let (integer, custom) = if growing { (true, false) } else { (integer, custom) };
            let one = match kind {
                0 => None,
                1 => Some(Histogram::stale()),
                2 => Some(histogram(total, ResetHint::Gauge, integer, custom)),
                3 => Some(histogram(total, ResetHint::Reset, integer, custom)),
                4 => Some(histogram(total, ResetHint::NotReset, integer, custom)),
                _ => Some(histogram(total, ResetHint::Unknown, integer, custom)),
            };
            if let Some(one) = one {
                data.histograms.push((data.stamps.len() as u32, Arc::new(one)));
            }
            data.stamps.push(time);
            data.values.push(f64::from(counts[0]));
        }
        let mut position = 0;
        for chunk in chunks(&data) {
            prop_assert_eq!(chunk.min_time, data.stamps[position]);
            if chunk.kind == ChunkKind::Xor {
                position += read_floats(&chunk).len();
                continue;
            }
            let mut before: Option<Histogram> = None;
            for (time, found) in read_histograms(&chunk) {
                prop_assert_eq!(time, data.stamps[position]);
                let at = data.histograms.iter().position(|(p, _)| *p as usize == position).expect("a histogram");
                let expected = &data.histograms[at].1;
                if expected.is_stale() {
                    prop_assert_eq!(found.sum.to_bits(), stale_nan().to_bits());
                } else {
                    let mut expected = Histogram::clone(expected);
                    // What a reader may conclude: no reset where the encoder saw none.
                    if let Some(before) = &before && expected.reset_hint == ResetHint::Unknown {
                        prop_assert!(expected.count >= before.count);
                        expected.reset_hint = ResetHint::NotReset;
                    }
                    prop_assert!(found.same_bits(&expected), "{found:?}\n{expected:?}");
                }
                before = Some(found);
                position += 1;
            }
        }
        prop_assert_eq!(position, data.stamps.len());
    }

    #[test]
    fn garbage_is_an_error_or_a_request(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }
}

#[test]
fn a_chunk_in_bytes() {
    // Ten seconds apart, one value repeated and one that changes its last bits.
    let data = series(vec![1_000, 11_000, 21_000], vec![1.0, 1.0, 2.0]);
    let chunk = &chunks(&data)[0];
    assert_eq!((chunk.kind, chunk.min_time, chunk.max_time), (ChunkKind::Xor, 1_000, 21_000));
    let expected = [
        0,
        3, // three samples
        0xd0,
        0x0f, // zigzag of 1000
        0x3f,
        0xf0,
        0,
        0,
        0,
        0,
        0,
        0, // 1.0
        0x90,
        0x4e, // difference 10000
        // 0 = same value; 0 = same difference; 11 = new window, 00001 leading, 001011 significant, eleven ones
        0b0011_0000,
        0b1001_0111,
        0b1111_1111,
        0b1100_0000,
    ];
    assert_eq!(chunk.bytes, expected);
}

fn request(queries: &[&[(u64, &str, &str)]], accepted: &[u64]) -> Vec<u8> {
    let mut writer = WireWriter::default();
    for matchers in queries {
        writer.message(1, |query| {
            query.number(1, 1_000);
            query.number(2, 2_000);
            for (kind, name, value) in *matchers {
                query.message(3, |out| {
                    out.number(1, *kind);
                    out.bytes(2, name.as_bytes());
                    out.bytes(3, value.as_bytes());
                });
            }
            query.message(4, |hints| hints.bytes(2, b"rate"));
        });
    }
    writer.packed(2, accepted.iter().copied());
    writer.out
}

#[test]
fn requests_are_read_and_refused_with_a_reason() {
    let good = decode(&request(&[&[(0, "__name__", "up"), (3, "job", "a.*")], &[]], &[7, 1, 0])).unwrap();
    assert_eq!(good.response, ResponseKind::Chunks);
    assert_eq!(good.queries.len(), 2);
    assert_eq!(good.queries[0].range, model::TimeRange::closed(1_000, 2_000));
    assert_eq!(good.queries[0].matchers[1].op(), MatchOp::NotRegex);
    assert_eq!(decode(&request(&[], &[])).unwrap().response, ResponseKind::Samples);

    let refused = |body: &[u8]| decode(body).unwrap_err().to_string();
    assert!(
        refused(&request(&[], &[9])).contains("does not support any of the requested response types: [9]")
    );
    assert!(refused(&request(&[&[(4, "a", "b")]], &[])).contains("invalid matcher type"));
    assert!(refused(&request(&[&[(0, "", "b")]], &[])).contains("without a label name"));
    assert!(refused(&request(&[&[(2, "a", "(")]], &[])).contains("matcher of label \"a\""));
    let many: Vec<&[(u64, &str, &str)]> = vec![&[]; 101];
    assert!(refused(&request(&many, &[])).contains("101 is over the limit of 100"));
    let one = vec![(0, "a", "b"); 1_001];
    assert!(refused(&request(&[&one], &[])).contains("1001 is over the limit of 1000"));
    assert!(matches!(decode(&[0x0a, 200]), Err(DecodeError::Wire { .. })));
}

#[test]
fn answers_hold_every_sample_with_external_labels_beside_its_own() {
    let mut data = series(vec![5, 6], vec![-0.0, 1.0]);
    data.histograms.push((1, Arc::new(histogram([1, 2, 3], ResetHint::Gauge, true, false))));
    let external = Labels::from_pairs([("a", "other"), ("region", "x")]).unwrap();
    let body = response(&[vec![time_series(&data, &external)], vec![]]);
    let mut wire = Wire::new(&body, "response");
    wire.tag().unwrap();
    let mut result = wire.message("result").unwrap();
    result.tag().unwrap();
    let mut series = result.message("series").unwrap();
    let mut fields = Vec::new();
    let mut labels = Vec::new();
    while !series.is_done() {
        let (field, kind) = series.tag().unwrap();
        assert_eq!(kind, Kind::Bytes);
        fields.push(field);
        let mut inner = series.message("inner").unwrap();
        if field == 1 {
            inner.tag().unwrap();
            let name = inner.text().unwrap();
            inner.tag().unwrap();
            labels.push((name, inner.text().unwrap()));
        }
    }
    assert_eq!(fields, [1, 1, 1, 2, 4]);
    assert_eq!(labels, [("__name__", "m"), ("a", "b"), ("region", "x")]);
    assert_eq!(wire.tag().unwrap(), (1, Kind::Bytes));
    assert!(wire.message("second").unwrap().is_done() && wire.is_done());
}

#[test]
fn frames_have_length_checksum_and_a_bounded_size() {
    let data =
        series((0..1_000).map(|i| i * 15_000).collect(), (0..1_000).map(|i| f64::from(i) / 3.0).collect());
    let chunks = chunks(&data);
    let mut out = Vec::new();
    put_frames(&mut out, &with_external(&data.labels, &Labels::empty()), &chunks, 1, 2_000);
    let mut wire = Wire::new(&out, "frames");
    let (mut frames, mut found) = (0, 0);
    while !wire.is_done() {
        let length = wire.varint().unwrap() as usize;
        let start = wire.at + 4;
        let checksum = u32::from_be_bytes(out[start - 4..start].try_into().unwrap());
        let frame = &out[start..start + length];
        assert_eq!(checksum, crc32c::crc32c(frame));
        assert!(length < 3_500, "{length}");
        let mut message = Wire::new(frame, "frame");
        message.tag().unwrap();
        let mut series = message.message("series").unwrap();
        while !series.is_done() {
            let (field, kind) = series.tag().unwrap();
            found += usize::from(field == 2);
            series.skip(kind).unwrap();
        }
        assert_eq!(message.tag().unwrap(), (2, Kind::Varint));
        assert_eq!(message.varint(), Ok(1));
        frames += 1;
        wire.at = start + length;
    }
    assert_eq!(found, chunks.len());
    assert!(frames > 2, "{frames}");
}
