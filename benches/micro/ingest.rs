//! Decoded batches through the router to shards that store nothing: the cost of finding out where each sample goes
//! when all series are known, and when none is. Throughput is in samples.

use std::sync::Arc;

use arc_swap::ArcSwap;
use benches::generate::{Generator, Shape};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use formats::remote_write::decode_v1;
use ingest::{Ingest, Limits};
use model::seam::fake::ManualClock;
use model::seam::{
    BoxFuture, Counts, SampleSink, ShardBatch, ShardReport, ShardSeries, ShardWriteError, ShardWriter,
};
use model::{SeriesRef, ShardId, TenantId};
use prometheus_client::registry::Registry;
use topology::ShardMap;

const START: i64 = 1_700_000_000_000;

/// Takes everything at once, and gives every new series a ref.
struct Sink;

impl ShardWriter for Sink {
    fn write(
        &self,
        _: ShardId,
        batch: Arc<ShardBatch>,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>> {
        let reference = |series: &ShardSeries| match series {
            ShardSeries::Known(reference) => Some(*reference),
            ShardSeries::New { key, .. } => Some(SeriesRef(*key)),
        };
        let report = ShardReport {
            incarnation: 1,
            refs: batch.series.iter().map(reference).collect(),
            written: Counts { samples: batch.samples.len() as u64, ..Counts::default() },
            ..ShardReport::default()
        };
        Box::pin(async move { Ok(report) })
    }
}

fn router() -> Ingest {
    let map = Arc::new(ArcSwap::from_pointee(ShardMap::initial(8)));
    Ingest::new(
        Arc::new(Sink),
        map,
        Limits::default(),
        Arc::new(ManualClock::new(START)),
        &mut Registry::default(),
    )
}

fn ingest(c: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    for series in [10_000, 100_000] {
        let shape = Shape { series, steps: 1, interval_ms: 15_000, start_ms: START, batch: 2_000, seed: 7 };
        let requests = Generator::new(&shape).next_step().unwrap_or_default();
        let bodies: Vec<Vec<u8>> =
            requests.iter().map(|r| formats::snappy::decompress(&r.body, 0).unwrap_or_default()).collect();
        let decode = || {
            bodies
                .iter()
                .filter_map(|body| decode_v1(body.clone(), TenantId::anonymous()).ok())
                .collect::<Vec<_>>()
        };
        let mut group = c.benchmark_group(format!("ingest_{series}"));
        group.throughput(Throughput::Elements(requests.iter().map(|r| r.samples).sum()));
        group.sample_size(20);
        let known = router();
        for batch in decode() {
            let _ = runtime.block_on(known.write(batch));
        }
        group.bench_function("known", |b| {
            b.iter_batched(
                decode,
                |batches| {
                    for batch in batches {
                        let _ = runtime.block_on(known.write(batch));
                    }
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function("decompress_decode_known", |b| {
            b.iter(|| {
                for request in &requests {
                    let body = formats::snappy::decompress(&request.body, 32 << 20);
                    let batch = body.and_then(|body| decode_v1(body, TenantId::anonymous()));
                    if let Ok(batch) = batch {
                        let _ = runtime.block_on(known.write(batch));
                    }
                }
            });
        });
        group.bench_function("new", |b| {
            b.iter_batched(
                || (router(), decode()),
                |(router, batches)| {
                    for batch in batches {
                        let _ = runtime.block_on(router.write(batch));
                    }
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, ingest);
criterion_main!(benches);
