//! Where fuzzing begins: beside the files of `fuzz/corpus`, what the encoders make of small values. Made anew each time,
//! so that they are of the version that the decoders read.

use std::sync::Arc;
use std::time::Duration;

use engine::Features;
use engine::distribute::Fragment;
use model::histogram::Span;
use model::seam::{ReadLevel, SeriesData, ShardBatch, ShardReport, ShardSeries, ShardWriteError};
use model::{
    Code, Epoch, Exemplar, Failure, Histogram, Labels, LogIndex, Sample, ShardId, StepGrid, TenantId,
};
use rpc::convert;
use storage::page::{PageBuilder, PageMeta, SeriesInput};
use topology::ShardMap;

use crate::{peers, stored};

fn histogram() -> Histogram {
    Histogram {
        count: 7.0,
        sum: 12.5,
        integer: true,
        zero_count: 1.0,
        positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 3, length: 1 }],
        positive_buckets: vec![1.0, 2.0, 3.0],
        ..Histogram::default()
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap_or_else(|_| Labels::empty())
}

const NOW: i64 = 1_700_000_000_000;

/// A batch with each kind of sample.
fn batch() -> ShardBatch {
    let series = ["up", "h"].map(|name| ShardSeries::New {
        labels: labels(&[("__name__", name), ("job", "a"), ("instance", "b:80")]),
        key: 77,
    });
    ShardBatch {
        tenant: Some(TenantId::anonymous()),
        series: series.to_vec(),
        ends: vec![(2, 0), (2, 1)],
        samples: vec![Sample { timestamp: NOW, value: 1.0 }, Sample { timestamp: NOW + 15_000, value: 1.5 }],
        starts: vec![0, NOW - 1],
        histograms: vec![(NOW, Arc::new(histogram()))],
        exemplars: vec![(0, Exemplar { labels: labels(&[("trace_id", "x")]), value: 0.5, timestamp: NOW })],
        min_timestamp: 0,
        max_timestamp: i64::MAX,
        ..ShardBatch::default()
    }
}

fn series() -> Vec<u8> {
    let data = SeriesData {
        labels: labels(&[("__name__", "h")]),
        stamps: vec![NOW, NOW + 15_000],
        values: vec![1.0, 0.0],
        histograms: vec![(1, Arc::new(histogram()))],
        ..SeriesData::default()
    };
    let mut out = Vec::new();
    convert::series::encode(&data, 0, &mut out);
    out
}

fn page() -> Vec<u8> {
    let mut builder = PageBuilder::new();
    builder.begin(PageMeta::in_order(LogIndex(5)));
    let stamps = [NOW, NOW + 15_000, NOW + 30_000];
    let histograms = [(1, Arc::new(histogram()))];
    let input = |slot, stamps, histograms| SeriesInput {
        slot,
        stamps,
        values: &[1.0, 2.5, 2.5],
        histograms,
        starts: &[],
    };
    let mut out = Vec::new();
    let made = builder
        .add(&input(3, &stamps, &[]))
        .and_then(|()| builder.add(&input(9, &stamps, &histograms)))
        .and_then(|()| builder.finish(&mut out));
    made.expect("a page of good series");
    out.truncate(out.len() - 4);
    out
}

fn columns() -> [Vec<u8>; 3] {
    let mut encoder = chunk::Encoder::new();
    let mut all = [vec![1], vec![1], vec![1]];
    encoder.values(&[1.5, 2.25, 2.25, 1e300, f64::NAN], &mut all[0]);
    encoder.stamps(&[NOW, NOW + 15_000, NOW + 30_000, NOW + 45_001, NOW], &mut all[1]);
    encoder.histograms(&vec![histogram(); 5], &mut all[2]);
    all
}

fn fragment() -> Vec<u8> {
    Fragment {
        tenant: TenantId::anonymous(),
        shards: vec![ShardId(0), ShardId(5)],
        epoch: Epoch(3),
        read_level: ReadLevel::Linearizable,
        deadline: Duration::from_secs(3),
        memory_bytes: 1 << 20,
        lookback_ms: 300_000,
        features: Features::default(),
        steps: Some(StepGrid::range(0, 600_000, 60_000)),
        parts: peers::some_parts(),
    }
    .encode()
}

/// Without the checksum that the target makes.
fn entry() -> Vec<u8> {
    let mut entry = stored::some_entry(batch());
    entry.drain(2..6);
    entry
}

/// For each target that needs bytes: its name, and what of it and the bytes are.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all: Vec<(&str, &str, Vec<u8>)> = Vec::new();
    for (name, column) in ["values", "stamps", "histograms"].into_iter().zip(columns()) {
        all.push(("chunk_decode", name, column));
    }
    all.push(("chunk_round_trip", "distances", [&[8u8; 1][..], &[60; 40], &[0, 1, 255, 60]].concat()));
    all.push(("chunk_round_trip", "bits", [&[0u8; 1][..], &f64::NAN.to_le_bytes(), &[7; 24]].concat()));
    all.push(("page", "two_series", page()));
    all.push(("index", "three_series", stored::some_index()));
    all.push(("entry", "write", entry()));
    all.push(("state_transfer", "shard", stored::some_transfer(batch())));
    all.push(("log", "header_of_the_second_record", [&[0x20, 0x10, 4][..], &[0xff; 4]].concat()));
    all.push(("shard_map", "eight_shards", topology::coding::encode(&ShardMap::initial(8))));
    all.push(("handshake", "hello", peers::some_hello()));
    all.push(("peer_batch", "each_kind", convert::batch::encode(&batch())));
    all.push(("peer_series", "floats_and_a_histogram", series()));
    all.push(("peer_report", "report", convert::report::encode(&Ok(ShardReport::default()))));
    let refused = ShardWriteError::Failed(Failure::new(Code::Unavailable, "no leader"));
    all.push(("peer_report", "failure", convert::report::encode(&Err(refused))));
    all.push(("peer_failure", "unavailable", convert::status::encode(&Failure::new(Code::Unavailable, "x"))));
    all.push(("fragment", "two_shards", fragment()));
    for (name, bytes) in replication::fuzz::seeds() {
        all.push(("raft", name, bytes));
    }
    let mut all: Vec<_> =
        all.into_iter().map(|(target, name, bytes)| (target, name.to_owned(), bytes)).collect();
    for (at, bytes) in peers::some_partials().into_iter().enumerate() {
        all.push(("partial", format!("of_query_{at}"), bytes));
    }
    all
}
