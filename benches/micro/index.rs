//! The label index at 100,000 series with ten labels: insert, select in the usual shapes, label values, seal, and
//! the same look-ups in the sealed form. Ordinals are in the order (target, metric), as shards give them.
#![allow(clippy::print_stdout, reason = "sizes are figures of a benchmark too")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::{Labels, MatchOp, Matcher};
use storage::index::{MemIndex, SealedIndex, SeriesIndex};

const SERIES: u32 = 100_000;
/// Series of a target.
const TARGET: u32 = 500;

fn labels(ordinal: u32) -> Labels {
    let (target, series) = (ordinal / TARGET, ordinal % TARGET);
    Labels::from_pairs([
        ("__name__", format!("http_request_duration_seconds_bucket_{}", series / 5)),
        ("cluster", "production-1".to_owned()),
        ("container", format!("container-{}", target % 7)),
        ("env", "production".to_owned()),
        ("instance", format!("10.0.{}.{}:9100", target / 250, target % 250)),
        ("job", format!("job-{}", target % 20)),
        ("le", (series % 5).to_string()),
        ("namespace", format!("namespace-{}", target % 40)),
        ("pod", format!("pod-{target}-abcdef")),
        ("region", "eu-west-1".to_owned()),
    ])
    .expect("good labels")
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher::new(name, op, value).expect("a good expression")
}

fn build(all: &[Labels]) -> MemIndex {
    let mut index = MemIndex::new();
    for (ordinal, labels) in (0..).zip(all) {
        index.insert(ordinal, labels);
    }
    index
}

fn benches_of(c: &mut Criterion, name: &str, index: &dyn SeriesIndex) {
    let mut group = c.benchmark_group(name);
    let metric = || matcher("__name__", MatchOp::Equal, "http_request_duration_seconds_bucket_7");
    let shapes = [
        ("name", vec![metric()]),
        ("name and job", vec![metric(), matcher("job", MatchOp::Equal, "job-3")]),
        ("name and instance", vec![metric(), matcher("instance", MatchOp::Equal, "10.0.0.77:9100")]),
        ("name and prefix of pod", vec![metric(), matcher("pod", MatchOp::Regex, "pod-1.*")]),
        ("name and part of pod", vec![metric(), matcher("pod", MatchOp::Regex, ".*7-abc.*")]),
        ("name and not job", vec![metric(), matcher("job", MatchOp::NotEqual, "job-3")]),
    ];
    for (shape, matchers) in &shapes {
        group.bench_function(format!("select {shape}"), |b| {
            b.iter(|| index.select(black_box(matchers)).expect("a good index"));
        });
    }
    let within = index.select(&shapes[0].1).expect("a good index");
    group.bench_function("values of pod", |b| b.iter(|| index.label_values("pod", None)));
    group.bench_function("values of pod of one metric", |b| {
        b.iter(|| index.label_values("pod", Some(&within)))
    });
    group.bench_function("names of one metric", |b| b.iter(|| index.label_names(Some(&within))));
    group.throughput(Throughput::Elements(within.len()));
    group.bench_function("labels of one metric", |b| {
        b.iter(|| index.visit_labels(&within, &mut |_, labels| black_box(labels).as_bytes().len() < 10_000));
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    let all: Vec<Labels> = (0..SERIES).map(labels).collect();
    let mut group = c.benchmark_group("index");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(SERIES)));
    group.bench_function("insert", |b| b.iter_batched(|| (), |()| build(&all), BatchSize::PerIteration));
    let mut memory = build(&all);
    memory.optimize();
    let mut block = Vec::new();
    group.bench_function("seal", |b| {
        b.iter(|| {
            block.clear();
            memory.seal(&mut block).expect("a small index");
        });
    });
    group.finish();
    let per_series = |bytes: usize| bytes as f64 / f64::from(SERIES);
    println!(
        "{:.1} bytes a series in memory, {:.1} sealed",
        per_series(memory.memory()),
        per_series(block.len())
    );
    benches_of(c, "index in memory", &memory);
    let sealed = SealedIndex::open(&block).expect("a block just sealed");
    benches_of(c, "index sealed", &sealed);
}

criterion_group!(benches, index);
criterion_main!(benches);
