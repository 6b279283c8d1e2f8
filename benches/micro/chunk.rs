//! Columns and pages: encode, decode, seal a page, read a series from it, merge pages. Values are generated from a
//! fixed seed in the characters that exporters have; `columns/*` counts samples, so criterion prints them a second.
#![allow(clippy::print_stdout, reason = "sizes are figures of a benchmark too")]

use std::hint::black_box;

use chunk::{Encoder, decode_values};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::seam::SeriesData;
use model::{LogIndex, TimeRange};
use storage::page::{MergeInput, PageBuilder, PageMeta, PageReader, PageScratch, SeriesInput, merge};

/// A small generator of numbers (splitmix64), so that every run sees the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Columns of one character, `rows` long.
fn column(kind: &str, rows: usize, numbers: &mut Numbers) -> Vec<f64> {
    let mut sum = numbers.below(100_000) as f64;
    (0..rows)
        .map(|_| match kind {
            "constant" => 42.0,
            "counter" => {
                sum += numbers.below(40) as f64;
                sum
            }
            "rare counter" => {
                sum += f64::from(numbers.below(20) == 0);
                sum
            }
            "bytes" => {
                sum += 4096.0 * (numbers.below(64) as f64 - 31.0);
                sum
            }
            "seconds" => {
                sum += numbers.below(300) as f64 * 0.01;
                sum
            }
            "ratio" => numbers.next() as f64 / u64::MAX as f64,
            _ => unreachable!("no such kind"),
        })
        .collect()
}

const KINDS: [&str; 6] = ["constant", "counter", "rare counter", "bytes", "seconds", "ratio"];

fn columns(c: &mut Criterion) {
    let mut group = c.benchmark_group("columns");
    for rows in [32, 480] {
        for kind in KINDS {
            let mut numbers = Numbers(1);
            let values: Vec<Vec<f64>> = (0..64).map(|_| column(kind, rows, &mut numbers)).collect();
            group.throughput(Throughput::Elements(64 * rows as u64));
            let mut encoder = Encoder::new();
            let mut bytes = Vec::new();
            group.bench_function(format!("encode {kind} {rows}"), |b| {
                b.iter(|| {
                    bytes.clear();
                    for values in &values {
                        encoder.values(black_box(values), &mut bytes);
                    }
                });
            });
            println!("{kind} {rows}: {:.3} bytes a sample", bytes.len() as f64 / (64 * rows) as f64);
            let encoded: Vec<Vec<u8>> = values
                .iter()
                .map(|values| {
                    let mut bytes = Vec::new();
                    encoder.values(values, &mut bytes);
                    bytes
                })
                .collect();
            let mut out = Vec::new();
            group.bench_function(format!("decode {kind} {rows}"), |b| {
                b.iter(|| {
                    for bytes in &encoded {
                        out.clear();
                        decode_values(black_box(bytes), rows, &mut out).expect("a column just encoded");
                    }
                });
            });
        }
    }
    group.finish();
}

/// A page of 64 series of mixed character from row `from` on.
fn page(from: i64, rows: usize, builder: &mut PageBuilder) -> Vec<u8> {
    let mut numbers = Numbers(from.unsigned_abs());
    let stamps: Vec<i64> =
        (from..).take(rows).map(|row| 1_700_000_000_000 + 15_000 * row + row % 7).collect();
    builder.begin(PageMeta::in_order(LogIndex(from.unsigned_abs())));
    for slot in 0..64 {
        let values = column(KINDS[slot as usize % KINDS.len()], rows, &mut numbers);
        builder
            .add(&SeriesInput { slot, stamps: &stamps, values: &values, ..SeriesInput::default() })
            .expect("a good series");
    }
    let mut bytes = Vec::new();
    builder.finish(&mut bytes).expect("a page with series");
    bytes
}

fn pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("pages");
    let mut builder = PageBuilder::new();
    let bytes = page(0, 480, &mut builder);
    group.throughput(Throughput::Elements(480 * 64));
    let (mut scratch, mut out) = (PageScratch::new(), SeriesData::default());
    group.bench_function("read 64 series of 480", |b| {
        b.iter(|| {
            let reader = PageReader::open(black_box(&bytes)).expect("a page just built");
            scratch.reset();
            for index in 0..64 {
                out.clear();
                reader.read(index, TimeRange::ALL, &mut scratch, &mut out).expect("a page just built");
            }
        });
    });
    group.throughput(Throughput::Elements(480));
    group.bench_function("read 1 series of 480", |b| {
        b.iter(|| {
            let reader = PageReader::open(black_box(&bytes)).expect("a page just built");
            scratch.reset();
            out.clear();
            reader.read(31, TimeRange::ALL, &mut scratch, &mut out).expect("a page just built")
        });
    });
    group.throughput(Throughput::Elements(480 * 64));
    let small: Vec<Vec<u8>> = (0..15).map(|n| page(32 * n, 32, &mut builder)).collect();
    group.bench_function("merge 15 pages of 32 rows", |b| {
        b.iter_batched(
            || {
                small
                    .iter()
                    .map(|bytes| PageReader::open(bytes).expect("a page just built"))
                    .collect::<Vec<_>>()
            },
            |readers| {
                let inputs: Vec<_> = readers.iter().map(|page| MergeInput { page, masks: &[] }).collect();
                let mut size = 0;
                merge(&inputs, 480, |bytes, _| size += bytes.len()).expect("pages just built");
                size
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, columns, pages);
criterion_main!(benches);
