//! Whatever goes into a column comes out of it, bit for bit; whatever else is decoded is an error or rows, and
//! never a panic.

use std::sync::Arc;

use chunk::{ChunkError, Encoder, MAX_ROWS, Tag, decode_histograms, decode_stamps, decode_values};
use model::Histogram;
use model::histogram::{ResetHint, Span};
use proptest::prelude::*;

fn check(values: &[f64]) -> (Tag, usize) {
    let mut bytes = Vec::new();
    let tag = Encoder::new().values(values, &mut bytes);
    let mut out = vec![42.0];
    decode_values(&bytes, values.len(), &mut out)
        .unwrap_or_else(|e| panic!("{e}: {values:?} as {bytes:02x?}"));
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&out[1..]), bits(values));
    for cut in 0..bytes.len() {
        // A shorter column of a constant is a column too.
        let cut = decode_values(&bytes[..cut], values.len(), &mut Vec::new());
        assert!(tag == Tag::Constant || cut.is_err(), "a cut column decoded");
    }
    (tag, bytes.len())
}

#[test]
fn the_coding_suits_the_values() {
    let stale = model::stale_nan();
    assert_eq!(check(&[]), (Tag::Constant, 0));
    assert_eq!(check(&[0.0; 480]), (Tag::Constant, 1));
    assert_eq!(check(&[1.0; 480]), (Tag::Constant, 3));
    assert_eq!(check(&[stale; 3]), (Tag::Constant, 9));
    assert_eq!(check(&[-0.0, 0.0]).0, Tag::OrderedBits);
    let counter: Vec<f64> = (0..480).map(|i| f64::from(i * 7 + i % 3)).collect();
    let (tag, len) = check(&counter);
    assert_eq!(tag, Tag::Decimal);
    assert!(len < 480 * 3 / 8 + 30, "{len}");
    let mut ends: Vec<f64> = (0..480).map(|i| f64::from(i) * 0.25).collect();
    let (_, without) = check(&ends);
    ends[479] = stale;
    let (tag, with) = check(&ends);
    assert_eq!(tag, Tag::Decimal);
    assert!(with <= without + 15, "a staleness marker costs little: {without} and {with}");
    let random: Vec<f64> = (1..480).map(|i| (f64::from(i) * 1.7).sin()).collect();
    let (tag, len) = check(&random);
    assert_eq!(tag, Tag::OrderedBits);
    assert!(len < 8 * 480, "{len}");
    let mut sum = 0.0;
    let drifting: Vec<f64> = (0..480)
        .map(|i| {
            sum += f64::from(i % 7) * 0.01;
            sum
        })
        .collect();
    let (tag, len) = check(&drifting);
    assert_eq!(tag, Tag::NearDecimal);
    assert!(len < 2 * 480, "{len}");
    let wild: Vec<f64> = (1..480u64)
        .map(|i| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ i << 60))
        .collect();
    assert_eq!(check(&wild).0, Tag::Raw);
}

#[test]
fn rows_beyond_the_limit_are_refused_before_memory_is_taken() {
    assert_eq!(
        decode_values(&[0], MAX_ROWS + 1, &mut Vec::new()),
        Err(ChunkError::TooManyRows(MAX_ROWS + 1))
    );
    assert_eq!(decode_stamps(&[8], usize::MAX, &mut Vec::new()), Err(ChunkError::TooManyRows(usize::MAX)));
    assert_eq!(decode_values(&[9], 1, &mut Vec::new()), Err(ChunkError::UnknownTag(9)));
    assert_eq!(decode_values(&[0; 10], 1, &mut Vec::new()), Err(ChunkError::Trailing(1)));
}

fn special() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(model::stale_nan()),
        Just(-0.0),
        Just(0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::from_bits(0x7ff8_dead_beef_0001)),
        Just(5e-324),
        Just(f64::MAX),
        any::<u64>().prop_map(f64::from_bits),
    ]
}

/// Columns of one character, with a sprinkle of special values.
fn column() -> impl Strategy<Value = Vec<f64>> {
    let ordinary = prop_oneof![
        prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..150),
        prop::collection::vec((-1000i32..1000).prop_map(f64::from), 1..150),
        (prop::collection::vec(0u32..5000, 1..150), 0i32..13).prop_map(|(steps, e)| {
            let mut sum = 0u64;
            steps
                .iter()
                .map(|s| {
                    sum += u64::from(*s);
                    sum as f64 / 10f64.powi(e)
                })
                .collect()
        }),
        prop::collection::vec((0i64..1 << 53).prop_map(|v| v as f64), 1..150),
        prop::collection::vec((0.0f64..1.0).prop_map(|v| v * 1e6), 1..150),
        (prop::collection::vec(-50i32..5000, 1..150), 1i32..10).prop_map(|(steps, e)| {
            let mut sum = 0.0;
            steps
                .iter()
                .map(|s| {
                    sum += f64::from(*s) * 10f64.powi(-e);
                    sum
                })
                .collect()
        }),
        (prop::collection::vec(0u8..3, 1..150), any::<u64>()).prop_map(|(few, bits)| few
            .iter()
            .map(|v| f64::from_bits(bits.wrapping_add(u64::from(*v))))
            .collect()),
    ];
    (ordinary, prop::collection::vec((any::<prop::sample::Index>(), 1usize..40, special()), 0..6)).prop_map(
        |(mut values, specials): (Vec<f64>, _)| {
            for (at, len, value) in specials {
                let at = at.index(values.len());
                let end = (at + len).min(values.len());
                values[at..end].fill(value);
            }
            values
        },
    )
}

fn histogram() -> impl Strategy<Value = Histogram> {
    let spans = || prop::collection::vec((any::<i32>(), any::<u32>()), 0..3);
    let count = || prop_oneof![(0u32..50).prop_map(f64::from), special()];
    let buckets = move || prop::collection::vec(count(), 0..5);
    let rest = (any::<bool>(), 0u8..4, prop::sample::select(vec![-53i8, -4, 0, 3, 8]), special());
    let numbers = (count(), count(), special());
    let custom = prop::option::of(prop::collection::vec(special(), 0..4));
    (rest, numbers, spans(), buckets(), spans(), buckets(), custom).prop_map(
        |(
            (integer, hint, schema, zero_threshold),
            (zero_count, count, sum),
            ps,
            positive,
            ns,
            negative,
            custom,
        )| {
            let spans =
                |s: Vec<(i32, u32)>| s.into_iter().map(|(offset, length)| Span { offset, length }).collect();
            Histogram {
                integer,
                reset_hint: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge]
                    [usize::from(hint)],
                schema,
                zero_threshold,
                zero_count,
                count,
                sum,
                positive_spans: spans(ps),
                positive_buckets: positive,
                negative_spans: spans(ns),
                negative_buckets: negative,
                custom_values: custom.map(Arc::from),
            }
        },
    )
}

fn check_histograms(histograms: &[Histogram]) -> usize {
    let mut bytes = Vec::new();
    Encoder::new().histograms(histograms, &mut bytes);
    let mut out = Vec::new();
    decode_histograms(&bytes, histograms.len(), &mut out).expect("a column decodes");
    assert_eq!(out.len(), histograms.len());
    for (a, b) in out.iter().zip(histograms) {
        assert!(a.same_bits(b), "{a:?} is not {b:?}");
    }
    bytes.len()
}

#[test]
fn histograms_of_one_layout_are_small() {
    let histograms: Vec<Histogram> = (0..120u32)
        .map(|i| Histogram {
            integer: true,
            schema: 3,
            zero_threshold: 2f64.powi(-128),
            count: f64::from(i * 20),
            sum: f64::from(i) * 0.5,
            positive_spans: vec![Span { offset: -2, length: 20 }],
            positive_buckets: vec![f64::from(i); 20],
            ..Histogram::default()
        })
        .collect();
    let len = check_histograms(&histograms);
    assert!(len < 120 * 3, "{len} bytes");
    check_histograms(&[]);
    check_histograms(&vec![Histogram::stale(); 3]);
}

proptest! {
    #[test]
    fn floats_come_back(values in column()) {
        check(&values);
    }

    #[test]
    fn stamps_come_back(start in any::<i64>(), steps in prop::collection::vec(-20i64..20_000, 0..200), wild in any::<bool>()) {
        let mut last = start;
        let stamps: Vec<i64> = steps
            .iter()
            .map(|s| { last = last.wrapping_add(if wild { s.wrapping_mul(0x1234_5678_9abc_def1) } else { *s }); last })
            .collect();
        let mut bytes = Vec::new();
        Encoder::new().stamps(&stamps, &mut bytes);
        let mut out = Vec::new();
        decode_stamps(&bytes, stamps.len(), &mut out).unwrap();
        prop_assert_eq!(out, stamps);
    }

    #[test]
    fn histograms_come_back(
        kinds in prop::collection::vec(histogram(), 1..4),
        picks in prop::collection::vec((any::<prop::sample::Index>(), special()), 1..40),
    ) {
        let rows: Vec<Histogram> = picks
            .iter()
            .map(|(at, sum)| Histogram { sum: *sum, ..kinds[at.index(kinds.len())].clone() })
            .collect();
        check_histograms(&rows);
    }

    #[test]
    fn different_histograms_come_back(rows in prop::collection::vec(histogram(), 1..40)) {
        check_histograms(&rows);
    }

    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0u8..10, count in 0usize..600) {
        if let Some(first) = bytes.first_mut() {
            *first = *first & 0xf0 | tag;
        }
        let (mut values, mut stamps, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        if decode_values(&bytes, count, &mut values).is_ok() {
            prop_assert_eq!(values.len(), count);
        }
        if decode_stamps(&bytes, count, &mut stamps).is_ok() {
            prop_assert_eq!(stamps.len(), count);
        }
        if let Some(first) = bytes.first_mut() {
            *first = tag % 2;
        }
        if decode_histograms(&bytes, count, &mut histograms).is_ok() {
            prop_assert_eq!(histograms.len(), count);
        }
    }

    #[test]
    fn damaged_columns_never_panic(values in column(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = Vec::new();
        Encoder::new().values(&values, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut out = Vec::new();
        if decode_values(&bytes, values.len(), &mut out).is_ok() {
            prop_assert_eq!(out.len(), values.len());
        }
    }

    #[test]
    fn damaged_histograms_never_panic(rows in prop::collection::vec(histogram(), 1..10), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut bytes = Vec::new();
        Encoder::new().histograms(&rows, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let mut out = Vec::new();
        if decode_histograms(&bytes, rows.len(), &mut out).is_ok() {
            prop_assert_eq!(out.len(), rows.len());
        }
    }
}
