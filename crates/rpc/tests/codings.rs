//! The hand-made codings: what goes in comes out bit by bit, and garbage is an error.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use model::histogram::{ResetHint, Span};
use model::seam::{Counts, RejectReason, ScrapeMark, SeriesData, ShardBatch, ShardReport, ShardSeries};
use model::{Epoch, Exemplar, Histogram, Labels, MetricKind, MetricMetadata, Sample, SeriesRef, TenantId};
use proptest::prelude::*;
use rpc::convert::{batch, report, series};

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0..1_000_000_u32).prop_map(f64::from),
        Just(f64::from_bits(model::STALE_NAN_BITS)),
        Just(-0.0),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-z]{1,8}", ".{1,12}", 0..5)
        .prop_map(|pairs| Labels::from_pairs(pairs).unwrap())
}

fn histogram() -> impl Strategy<Value = Arc<Histogram>> {
    let spans = || prop::collection::vec((any::<i32>(), any::<u32>()), 0..4);
    let floats = || prop::collection::vec(float(), 0..6);
    let custom = prop::option::of(prop::collection::vec(float(), 0..4));
    (
        any::<bool>(),
        0..4_u8,
        any::<i8>(),
        prop::array::uniform4(float()),
        spans(),
        floats(),
        spans(),
        floats(),
        custom,
    )
        .prop_map(|(integer, hint, schema, four, ps, pb, ns, nb, custom)| {
            let spans =
                |s: Vec<(i32, u32)>| s.into_iter().map(|(offset, length)| Span { offset, length }).collect();
            Arc::new(Histogram {
                integer,
                reset_hint: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge]
                    [usize::from(hint)],
                schema,
                zero_threshold: four[0],
                zero_count: four[1],
                count: four[2],
                sum: four[3],
                positive_spans: spans(ps),
                positive_buckets: pb,
                negative_spans: spans(ns),
                negative_buckets: nb,
                custom_values: custom.map(Into::into),
            })
        })
}

/// A series of a batch: what it is, its floats with starts, its histograms.
type Part = (Option<u64>, Labels, u64, Vec<(i64, f64, i64)>, Vec<(i64, Arc<Histogram>)>, bool);

fn part() -> impl Strategy<Value = Part> {
    let samples = prop::collection::vec((any::<i64>(), float(), any::<i64>()), 0..5);
    let histograms = prop::collection::vec((any::<i64>(), histogram()), 0..2);
    (prop::option::of(any::<u64>()), labels(), any::<u64>(), samples, histograms, any::<bool>())
}

prop_compose! {
    fn a_batch()(
        parts in prop::collection::vec(part(), 0..12),
        tenant in prop::option::of("[a-z]{1,20}"),
        (epoch, incarnation, known_check) in any::<(u64, u64, u128)>(),
        scrape in prop::option::of((any::<u64>(), any::<i64>())),
        (min_timestamp, max_timestamp) in any::<(i64, i64)>(),
        (with_starts, with_untracked) in any::<(bool, bool)>(),
        exemplars in prop::collection::vec((0..12_u32, labels(), float(), any::<i64>()), 0..4),
        metadata in prop::collection::vec(("[a-z]{0,8}", 0..8_u64, ".{0,9}", ".{0,4}"), 0..3),
    ) -> ShardBatch {
        let mut batch = ShardBatch {
            tenant: tenant.map(|name| TenantId::new(&name).unwrap()),
            epoch: Epoch(epoch),
            incarnation,
            known_check,
            scrape: scrape.map(|(target, timestamp)| ScrapeMark { target, timestamp }),
            min_timestamp,
            max_timestamp,
            ..ShardBatch::default()
        };
        for (known, labels, key, samples, histograms, untracked) in parts {
            batch.series.push(match known {
                Some(known) => ShardSeries::Known(SeriesRef(known)),
                None => ShardSeries::New { labels, key },
            });
            for (timestamp, value, start) in samples {
                batch.samples.push(Sample { timestamp, value });
                if with_starts {
                    batch.starts.push(start);
                }
            }
            if with_starts {
                batch.histogram_starts.extend(histograms.iter().map(|(timestamp, _)| timestamp / 3));
            }
            batch.histograms.extend(histograms);
            batch.ends.push((batch.samples.len() as u32, batch.histograms.len() as u32));
            if with_untracked {
                batch.untracked.push(untracked);
            }
        }
        for (series, labels, value, timestamp) in exemplars {
            if (series as usize) < batch.series.len() {
                batch.exemplars.push((series, Exemplar { labels, value, timestamp }));
            }
        }
        for (family, kind, help, unit) in metadata {
            batch.metadata.push(MetricMetadata { family, kind: MetricKind::from_number(kind), help, unit });
        }
        batch
    }
}

/// Everything in a batch, comparable bit by bit.
fn text(batch: &ShardBatch) -> String {
    let bits: Vec<_> = batch.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
    let exemplars: Vec<_> =
        batch.exemplars.iter().map(|(n, e)| (n, &e.labels, e.value.to_bits(), e.timestamp)).collect();
    format!(
        "{:?} {:?} {} {} {:?} {:?} {:?} {bits:?} {:?} {:?} {exemplars:?} {:?} {:?} {} {}",
        batch.tenant,
        batch.epoch,
        batch.incarnation,
        batch.known_check,
        batch.series,
        batch.ends,
        batch.untracked,
        (&batch.starts, &batch.histogram_starts),
        batch.histograms.iter().map(|(t, _)| t).collect::<Vec<_>>(),
        batch.metadata,
        batch.scrape,
        batch.min_timestamp,
        batch.max_timestamp
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn batches_come_back(original in a_batch()) {
        let bytes = batch::encode(&original);
        let back = batch::decode(&bytes).unwrap();
        prop_assert_eq!(text(&back), text(&original));
        for ((_, a), (_, b)) in back.histograms.iter().zip(&original.histograms) {
            prop_assert!(a.same_bits(b));
        }
        // Cut anywhere it is an error, and flipped anywhere it is no panic.
        for cut in 0..bytes.len() {
            prop_assert!(batch::decode(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
        let mut flipped = bytes;
        for at in 0..flipped.len() {
            flipped[at] ^= 0xa5;
            let _ = batch::decode(&flipped);
            flipped[at] ^= 0xa5;
        }
    }

    #[test]
    fn garbage_is_an_error_or_a_value(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = batch::decode(&bytes);
        let _ = report::decode(&bytes);
        let _ = series::decode(&mut &*bytes, false, &mut SeriesData::default());
        let _ = series::decode(&mut &*bytes, true, &mut SeriesData::default());
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = batch::decode(&bytes);
        let _ = report::decode(&bytes);
    }

    #[test]
    fn reports_come_back(
        incarnation: u64,
        refs in prop::collection::vec(prop::option::of(any::<u64>()), 0..50),
        written: (u64, u64, u64),
        rejections in prop::collection::vec((any::<u32>(), any::<i64>()), 0..5),
        count: u64,
    ) {
        let original = ShardReport {
            incarnation,
            refs: refs.into_iter().map(|reference| reference.map(SeriesRef)).collect(),
            written: Counts { samples: written.0, histograms: written.1, exemplars: written.2 },
            rejections: rejections.into_iter().map(|(n, t)| (n, t, RejectReason::OutOfOrder)).collect(),
            rejected: [(RejectReason::Fenced, count)].into(),
        };
        let bytes = report::encode(&Ok(original.clone()));
        let back = report::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(format!("{back:?}"), format!("{original:?}"));
        for cut in 0..bytes.len() {
            prop_assert!(report::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn series_come_back_in_any_number_of_parts(
        all in prop::collection::vec((labels(), prop::collection::vec((any::<i64>(), float(), any::<i64>()), 0..30), any::<bool>(), histogram()), 1..5),
        long in 0..20_000_usize,
    ) {
        let mut originals: Vec<SeriesData> = Vec::new();
        for (labels, samples, with_starts, histogram) in all {
            let mut data = SeriesData { labels, ..SeriesData::default() };
            for (number, (stamp, value, start)) in samples.into_iter().enumerate() {
                data.stamps.push(stamp);
                data.values.push(value);
                if with_starts {
                    data.starts.push(start);
                }
                if number % 7 == 3 {
                    data.histograms.push((number as u32, Arc::clone(&histogram)));
                }
            }
            originals.push(data);
        }
        let mut data = SeriesData { labels: originals[0].labels.clone(), ..SeriesData::default() };
        for number in 0..long {
            data.stamps.push(number as i64 * 15_000);
            data.values.push(number as f64 / 3.0);
            if number % 2 == 0 {
                data.histograms.push((number as u32, Arc::new(Histogram::stale())));
            }
        }
        originals.push(data);
        // One record a part: the worst case.
        let mut parts = Vec::new();
        for data in &originals {
            let mut from = Some(0);
            while let Some(at) = from {
                let mut part = Vec::new();
                from = series::encode(data, at, &mut part);
                parts.push(part);
            }
        }
        let mut parts = parts.iter();
        for original in &originals {
            let mut back = SeriesData::default();
            let mut within = false;
            loop {
                let mut part: &[u8] = parts.next().unwrap();
                let whole = series::decode(&mut part, within, &mut back).unwrap();
                prop_assert!(part.is_empty());
                if whole {
                    break;
                }
                within = true;
            }
            prop_assert_eq!(&back.labels, &original.labels);
            prop_assert_eq!(&back.stamps, &original.stamps);
            prop_assert_eq!(&back.starts, &original.starts);
            let bits = |data: &SeriesData| data.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(original));
            prop_assert_eq!(back.histograms.len(), original.histograms.len());
            for (a, b) in back.histograms.iter().zip(&original.histograms) {
                prop_assert!(a.0 == b.0 && a.1.same_bits(&b.1));
            }
        }
    }
}

#[test]
fn a_count_alone_allocates_nothing() {
    // Version 1, no flags, then zeros up to the series' count: four billion of them, and nothing behind.
    let mut bytes = vec![1, 0, 0, 0];
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let error = batch::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("larger than what follows"), "{error}");
}

#[test]
fn a_usual_batch_is_small() {
    let batch = ShardBatch {
        tenant: Some(TenantId::anonymous()),
        series: (0..10_000).map(|n| ShardSeries::Known(SeriesRef(n + 5))).collect(),
        ends: (1..=10_000).map(|n| (n, 0)).collect(),
        samples: (0..10_000)
            .map(|n| Sample { timestamp: 1_700_000_000_000, value: f64::from(n * 37) })
            .collect(),
        ..ShardBatch::default()
    };
    let bytes = batch::encode(&batch).len();
    assert!(bytes < 10_000 * 8, "{bytes} bytes for 10,000 samples");
}
