//! Pages come back bit for bit, and merging agrees with a naive model in which the first value stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::seam::SeriesData;
use model::{Histogram, LogIndex, TimeRange};
use proptest::prelude::*;

use super::*;

/// A sample as a test compares it: bits of the float, or the histogram's sum; and the start timestamp.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Float(u64),
    Histogram(u64),
}

type Series = BTreeMap<i64, (Value, i64)>;
/// A series with the precedence of each sample.
type Ranked = BTreeMap<i64, (Precedence, (Value, i64))>;

fn histogram(sum: u64) -> Arc<Histogram> {
    Arc::new(Histogram {
        sum: f64::from_bits(sum),
        positive_spans: vec![model::histogram::Span { offset: 1, length: 2 }],
        positive_buckets: vec![1.0, f64::from_bits(sum)],
        ..Histogram::default()
    })
}

fn data(series: &Series) -> SeriesData {
    let mut data = SeriesData::default();
    for (row, (stamp, (value, start))) in (0..).zip(series) {
        data.stamps.push(*stamp);
        data.starts.push(*start);
        match value {
            Value::Float(bits) => data.values.push(f64::from_bits(*bits)),
            Value::Histogram(sum) => {
                data.values.push(f64::NAN);
                data.histograms.push((row, histogram(*sum)));
            }
        }
    }
    data
}

fn series(data: &SeriesData) -> Series {
    let mut histograms = data.histograms.iter().peekable();
    assert!(data.stamps.is_sorted_by(|a, b| a < b));
    assert_eq!(data.stamps.len(), data.values.len());
    assert!(data.starts.is_empty() || data.starts.len() == data.stamps.len());
    let mut series = Series::new();
    for (row, stamp) in data.stamps.iter().enumerate() {
        let value = match histograms.next_if(|(at, _)| *at as usize == row) {
            Some((_, h)) => {
                assert!(h.same_bits(&histogram(h.sum.to_bits())));
                Value::Histogram(h.sum.to_bits())
            }
            None => Value::Float(data.values[row].to_bits()),
        };
        series.insert(*stamp, (value, data.starts.get(row).copied().unwrap_or(0)));
    }
    assert!(histograms.next().is_none());
    series
}

type Content = BTreeMap<u32, Series>;

fn build(meta: PageMeta, content: &Content) -> Option<(Vec<u8>, PageSummary)> {
    let mut builder = PageBuilder::new();
    builder.begin(meta);
    for (slot, series) in content {
        let data = data(series);
        if data.stamps.is_empty() {
            continue;
        }
        builder
            .add(&SeriesInput {
                slot: *slot,
                stamps: &data.stamps,
                values: &data.values,
                histograms: &data.histograms,
                starts: &data.starts,
            })
            .unwrap();
    }
    if builder.is_empty() {
        return None;
    }
    let mut page = Vec::new();
    let summary = builder.finish(&mut page).unwrap();
    Some((page, summary))
}

fn read(page: &[u8], range: TimeRange) -> Content {
    let page = PageReader::open(page).unwrap();
    let mut scratch = PageScratch::new();
    let mut content = Content::new();
    let slots: Vec<PageSeries> = page.series().collect();
    for (index, entry) in slots.iter().enumerate() {
        assert_eq!(page.find(entry.slot), Some(index));
        let mut data = SeriesData::default();
        let n = page.read(index, range, &mut scratch, &mut data).unwrap();
        assert_eq!(n, data.stamps.len());
        content.insert(entry.slot, series(&data));
    }
    content
}

fn cut(content: &Content, range: TimeRange) -> Content {
    content
        .iter()
        .filter(|(_, series)| !series.is_empty())
        .map(|(slot, series)| {
            let series = series.iter().filter(|(t, _)| range.contains(**t)).map(|(t, v)| (*t, *v)).collect();
            (*slot, series)
        })
        .collect()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (0u32..9).prop_map(|v| Value::Float(f64::from(v).to_bits())),
        1 => any::<u64>().prop_map(Value::Float),
        1 => Just(Value::Float(model::STALE_NAN_BITS)),
        1 => (0u64..3).prop_map(|v| Value::Histogram((v as f64).to_bits())),
    ]
}

/// Slots that mostly share their stamps, as those of one target do.
fn content() -> impl Strategy<Value = Content> {
    let floats = prop::bool::weighted(0.7);
    let one =
        (any::<u32>(), floats, prop::collection::vec((value(), 0i64..3), 1..40), prop::bool::weighted(0.3));
    (prop::collection::btree_map(0u32..40, one, 1..12), 0i64..3).prop_map(|(slots, jitter)| {
        slots
            .into_iter()
            .map(|(slot, (misses, plain, values, starts))| {
                let series = values
                    .into_iter()
                    .enumerate()
                    .filter(|(row, _)| misses % 3 > 0 || misses >> (row % 32) & 1 == 0)
                    .map(|(row, (value, start))| {
                        let value = match value {
                            Value::Histogram(sum) if plain => Value::Float(sum),
                            value => value,
                        };
                        (
                            row as i64 * 2 + i64::from(misses % 5 == 0) * jitter,
                            (value, if starts { start } else { 0 }),
                        )
                    })
                    .collect();
                (slot, series)
            })
            .collect()
    })
}

fn range() -> impl Strategy<Value = TimeRange> {
    prop_oneof![
        Just(TimeRange::ALL),
        (-5i64..90, 0i64..90).prop_map(|(a, n)| TimeRange { after: a, until: a + n })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn pages_come_back(content in content(), range in range(), late in any::<bool>(), sequence in any::<u64>()) {
        let meta = PageMeta { late, ..PageMeta::in_order(LogIndex(sequence)) };
        if let Some((page, summary)) = build(meta, &content) {
            prop_assert_eq!(read(&page, TimeRange::ALL), cut(&content, TimeRange::ALL));
            prop_assert_eq!(read(&page, range), cut(&content, range));
            let reader = PageReader::open(&page).unwrap();
            prop_assert_eq!(reader.meta(), meta);
            prop_assert_eq!(summary.samples, content.values().map(|s| s.len() as u64).sum::<u64>());
            prop_assert_eq!((reader.min_time(), reader.max_time()), (summary.min_time, summary.max_time));
            let times = content.values().flat_map(|s| s.keys().copied());
            prop_assert_eq!(times.clone().min(), Some(summary.min_time));
            prop_assert_eq!(times.max(), Some(summary.max_time));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed(content in content(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        if let Some((mut page, _)) = build(PageMeta::in_order(LogIndex(7)), &content) {
            let at = at.index(page.len());
            page[at] ^= 1 << bit;
            prop_assert!(PageReader::open(&page).is_err());
        }
    }

    #[test]
    fn damage_under_a_right_checksum_never_panics(
        content in content(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        if let Some((mut page, _)) = build(PageMeta::in_order(LogIndex(7)), &content) {
            let end = page.len() - format::CHECKSUM_LEN;
            for (at, byte) in changes {
                page[at.index(end - 1) + 1] = byte;
            }
            let checksum = crc32c::crc32c(&page[..end]);
            page[end..].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(reader) = PageReader::open(&page) {
                let mut scratch = PageScratch::new();
                for index in 0..reader.len() {
                    let mut data = SeriesData::default();
                    let _ = reader.read(index, TimeRange::ALL, &mut scratch, &mut data);
                }
            }
        }
    }

    #[test]
    fn merging_agrees_with_the_model(
        contents in prop::collection::vec((content(), 0i64..60, any::<bool>()), 1..6),
        masks in prop::collection::vec((any::<prop::sample::Index>(), 0u32..40, range()), 0..4),
        target in 1usize..60,
    ) {
        // Later pages are further on in time but may overlap; each has a sequence of its own.
        let mut pages = Vec::new();
        let mut expected: BTreeMap<u32, Ranked> = BTreeMap::new();
        let masks: Vec<(usize, Mask)> =
            masks.into_iter().map(|(at, slot, range)| (at.index(contents.len()), Mask { slot, range })).collect();
        for (n, (content, offset, late)) in contents.into_iter().enumerate() {
            let moved: Content = content
                .into_iter()
                .map(|(slot, series)| (slot, series.into_iter().map(|(t, v)| (t + offset, v)).collect()))
                .collect();
            let meta = PageMeta { late, ..PageMeta::in_order(LogIndex(100 - n as u64)) };
            let Some((page, _)) = build(meta, &moved) else { continue };
            let of_page: Vec<Mask> = masks.iter().filter(|(at, _)| *at == n).map(|(_, m)| *m).collect();
            for (slot, series) in moved {
                let masked = |t: i64| of_page.iter().any(|m| m.slot == slot && m.range.contains(t));
                for (t, value) in series.into_iter().filter(|(t, _)| !masked(*t)) {
                    let best = expected.entry(slot).or_default().entry(t).or_insert((meta.precedence(), value));
                    if meta.precedence() < best.0 {
                        *best = (meta.precedence(), value);
                    }
                }
            }
            pages.push((page, of_page));
        }
        let readers: Vec<_> = pages.iter().map(|(page, _)| PageReader::open(page).unwrap()).collect();
        let inputs: Vec<_> =
            readers.iter().zip(&pages).map(|(page, (_, masks))| MergeInput { page, masks }).collect();
        let mut found: BTreeMap<u32, Series> = BTreeMap::new();
        let mut samples = 0;
        merge(&inputs, target, |page, summary| {
            let reader = PageReader::open(&page).unwrap();
            assert_eq!(reader.meta().late, readers.iter().all(|r| r.meta().late));
            assert_eq!(Some(reader.meta().sequence), readers.iter().map(|r| r.meta().sequence).min());
            assert_eq!(Some(reader.meta().last_sequence), readers.iter().map(|r| r.meta().sequence).max());
            samples += summary.samples;
            for (slot, series) in read(&page, TimeRange::ALL) {
                assert!(series.len() <= target);
                let before = found.entry(slot).or_default();
                assert!(before.keys().last() < series.keys().next() || series.is_empty(), "pages are in order");
                before.extend(series);
            }
        })
        .unwrap();
        let expected: BTreeMap<u32, Series> = expected
            .into_iter()
            .map(|(slot, series)| (slot, series.into_iter().map(|(t, (_, v))| (t, v)).collect::<Series>()))
            .filter(|(_, series): &(u32, Series)| !series.is_empty())
            .collect();
        found.retain(|_, series| !series.is_empty());
        prop_assert_eq!(samples, expected.values().map(|s| s.len() as u64).sum::<u64>());
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn neighbours_share_their_stamps() {
    let mut builder = PageBuilder::new();
    builder.begin(PageMeta::in_order(LogIndex(1)));
    // Uneven stamps, which are dear if stored for each series.
    let stamps: Vec<i64> = (0..480i64).map(|i| 1_700_000_000_000 + 15_000 * i + i * i * 7919 % 11).collect();
    let values: Vec<f64> = (0..480).map(|i| f64::from(i / 100)).collect();
    for slot in 0..64 {
        let from = if slot % 9 == 4 { 200 } else { 0 };
        builder
            .add(&SeriesInput {
                slot,
                stamps: &stamps[from..],
                values: &values[from..],
                ..SeriesInput::default()
            })
            .unwrap();
    }
    let mut page = Vec::new();
    let summary = builder.finish(&mut page).unwrap();
    assert_eq!((summary.series, summary.first_slot, summary.last_slot), (64, 0, 63));
    assert!(page.len() < 64 * 40, "{} bytes", page.len());
    let mut out = SeriesData::default();
    let reader = PageReader::open(&page).unwrap();
    let index = reader.find(4).unwrap();
    reader.read(index, TimeRange::ALL, &mut PageScratch::new(), &mut out).unwrap();
    assert_eq!(out.stamps, stamps[200..]);
}

#[test]
fn equal_values_are_stored_once() {
    let stamps: Vec<i64> = (0..100).collect();
    let values: Vec<f64> = (0..100).map(|i| f64::from(i * i % 17)).collect();
    let mut builder = PageBuilder::new();
    let mut sizes = Vec::new();
    for copies in [1, 3] {
        builder.begin(PageMeta::in_order(LogIndex(1)));
        for slot in 0..copies {
            // The second misses rows in the middle, so that it has other stamps, and then equal values.
            let gap = if slot == 1 { 30..40 } else { 0..0 };
            let rows = || (0..100).filter(|row| !gap.contains(row));
            let stamps: Vec<i64> = rows().map(|row| stamps[row]).collect();
            let values: Vec<f64> = rows().map(|row| values[row % 50]).collect();
            builder
                .add(&SeriesInput {
                    slot: 2 * slot,
                    stamps: &stamps,
                    values: &values,
                    ..SeriesInput::default()
                })
                .unwrap();
            builder
                .add(&SeriesInput {
                    slot: 2 * slot + 1,
                    stamps: &stamps,
                    values: &values,
                    ..SeriesInput::default()
                })
                .unwrap();
        }
        let mut page = Vec::new();
        builder.finish(&mut page).unwrap();
        let content = read(&page, TimeRange::ALL);
        for slot in 0..copies {
            assert_eq!(content[&(2 * slot)], content[&(2 * slot + 1)]);
            assert_eq!(content[&(2 * slot)].len(), if slot == 1 { 90 } else { 100 });
            assert_eq!(content[&(2 * slot)][&45].0, Value::Float(values[45].to_bits()));
        }
        sizes.push(page.len());
    }
    assert!(sizes[1] < 2 * sizes[0] + 40, "{sizes:?}");
}

#[test]
fn what_does_not_belong_into_a_page_is_refused() {
    let mut builder = PageBuilder::new();
    builder.begin(PageMeta::late(LogIndex(1)));
    assert_eq!(builder.finish(&mut Vec::new()), Err(PageError::Format("number of series")));
    let good = SeriesInput { slot: 3, stamps: &[1, 2], values: &[1.0, 2.0], ..SeriesInput::default() };
    builder.add(&good).unwrap();
    let mut refuse = |input: &SeriesInput<'_>, what: &'static str| {
        assert_eq!(builder.add(input), Err(PageError::Input { slot: input.slot, what }));
    };
    refuse(&good, "slots are not ascending");
    let good = SeriesInput { slot: 9, ..good };
    refuse(&SeriesInput { stamps: &[2, 2], ..good }, "its stamps are not ascending");
    refuse(&SeriesInput { values: &[1.0], ..good }, "its columns differ in length");
    refuse(&SeriesInput { starts: &[1], ..good }, "its columns differ in length");
    refuse(&SeriesInput { stamps: &[], values: &[], ..good }, "it has no samples");
    refuse(
        &SeriesInput { histograms: &[(2, histogram(0))], ..good },
        "its histograms are not ascending rows",
    );
    assert_eq!(builder.len(), 1);
}

fn check_column(name: &str, expected: &[f64]) {
    let bytes = example::example(name);
    let mut values = Vec::new();
    chunk::decode_values(&bytes, expected.len(), &mut values).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&values), bits(expected), "{name}");
    let mut encoded = Vec::new();
    chunk::Encoder::new().values(expected, &mut encoded);
    assert_eq!(encoded, bytes, "{name} is what is written");
}

#[test]
fn the_examples_of_columns_decode() {
    check_column("constant", &[1.0; 4]);
    check_column("decimal", &[10.0, 10.5, 11.25, model::stale_nan()]);
    check_column("near decimal", &[0.01, 0.1 + 0.2, 0.04]);
    let patched: Vec<f64> = (0..34).map(|row| if row == 7 { 1000.0 } else { f64::from(row % 2) }).collect();
    check_column("patches", &patched);
    let mut stamps = Vec::new();
    chunk::decode_stamps(&example::example("stamps"), 4, &mut stamps).unwrap();
    assert_eq!(stamps, [1_700_000_000_000, 1_700_000_015_000, 1_700_000_030_000, 1_700_000_045_001]);
    let mut histograms = Vec::new();
    chunk::decode_histograms(&example::example("histograms"), 2, &mut histograms).unwrap();
    let first = Histogram {
        integer: true,
        schema: 3,
        zero_count: 1.0,
        count: 4.0,
        sum: 2.5,
        positive_spans: vec![model::histogram::Span { offset: -1, length: 2 }],
        positive_buckets: vec![1.0, 2.0],
        ..Histogram::default()
    };
    let second = Histogram { count: 5.0, sum: 3.0, positive_buckets: vec![1.0, 3.0], ..first.clone() };
    assert!(histograms[0].same_bits(&first) && histograms[1].same_bits(&second), "{histograms:?}");
}

#[test]
fn the_example_of_a_page_decodes() {
    let bytes = example::example("page");
    let reader = PageReader::open(&bytes).unwrap();
    assert_eq!(reader.meta(), PageMeta::in_order(LogIndex(42)));
    let stamp = |row: i64| 1_700_000_000_000 + 15_000 * row;
    let floats = |rows: &[(i64, f64)]| -> Series {
        rows.iter().map(|(row, v)| (stamp(*row), (Value::Float(v.to_bits()), 0))).collect()
    };
    let ramp = floats(&[(0, 10.0), (1, 20.0), (2, 30.0), (3, 60.0)]);
    let expected = Content::from([
        (5, floats(&[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)])),
        (6, ramp.clone()),
        (9, floats(&[(1, 7.0), (2, 7.0), (3, 8.0)])),
        (10, ramp),
    ]);
    assert_eq!(read(&bytes, TimeRange::ALL), expected);
}
