//! A whole node in one process: written through Raft, read back, killed, restarted, damaged.

use std::sync::Arc;
use std::time::Duration;

use model::seam::{
    QueryBudget, ReadLevel, SelectRequest, SeriesData, ShardBatch, ShardReader, ShardReport, ShardSeries,
    ShardWriteError, ShardWriter, SystemClock,
};
use model::{Labels, MatchOp, Matcher, Sample, ShardId, TenantId, TimeRange};
use openraft::rt::WatchReceiver as _;
use prometheus_client::registry::Registry;
use storage::log::LogConfig;

use crate::{Peering, Replication, ReplicationConfig};

pub(crate) fn config(dir: &std::path::Path) -> ReplicationConfig {
    ReplicationConfig {
        data_dir: dir.to_path_buf(),
        shards: 2,
        min_free_bytes: Some(0),
        retention_ms: 0,
        // Short, so that groups rest and wake in the middle of tests.
        rest_after: Duration::from_millis(300),
        log: LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() },
        ..ReplicationConfig::default()
    }
}

/// A peer port that nobody else knows.
pub(crate) async fn peering() -> Peering {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertise = listener.local_addr().unwrap().to_string();
    Peering { listener, advertise, secret: None, tls: None, snapshot_bytes_per_second: 0 }
}

async fn open(config: &ReplicationConfig) -> Arc<Replication> {
    let clock = Arc::new(SystemClock::new());
    let mut registry = Registry::default();
    let node = Replication::open(config.clone(), peering().await, clock, &mut registry).await.unwrap();
    assert!(node.wait_caught_up(Duration::from_secs(20)).await, "{:?}", node.progress());
    node
}

pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

fn labels(series: usize) -> Labels {
    let mut builder = model::LabelsBuilder::default();
    builder.set("__name__", "m");
    builder.set("instance", "a");
    builder.set("job", "j");
    builder.set("n", &series.to_string());
    builder.build().unwrap()
}

pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) fn batch(series: std::ops::Range<usize>, step: i64) -> Arc<ShardBatch> {
    let mut batch = ShardBatch {
        tenant: Some(TenantId::anonymous()),
        epoch: model::Epoch(1),
        min_timestamp: i64::MIN,
        max_timestamp: i64::MAX,
        ..ShardBatch::default()
    };
    for n in series {
        let labels = labels(n);
        let key = topology::placement_key(&TenantId::anonymous(), &labels);
        batch.series.push(ShardSeries::New { labels, key });
        batch.samples.push(Sample { timestamp: START + step * 1000, value: value(n, step) });
        batch.ends.push((batch.samples.len() as u32, 0));
    }
    Arc::new(batch)
}

pub(crate) fn value(series: usize, step: i64) -> f64 {
    series as f64 * 1e6 + step as f64
}

/// Writes steps to a shard, one batch each, and expects all of it taken.
pub(crate) async fn write(node: &Replication, shard: ShardId, series: usize, steps: std::ops::Range<i64>) {
    for step in steps {
        let report = node.write(shard, batch(0..series, step)).await.unwrap();
        assert!(report.rejected.is_empty(), "{report:?}");
    }
}

/// Everything in a shard: (series, step) pairs, checked for value and order.
pub(crate) async fn read(node: &Replication, shard: ShardId) -> Vec<(usize, i64)> {
    read_source(node.snapshot(shard, ReadLevel::Linearizable).await.unwrap().as_ref())
}

/// A request for all that these tests write.
pub(crate) fn everything() -> SelectRequest {
    SelectRequest {
        tenant: TenantId::anonymous(),
        matchers: vec![Matcher::new("__name__", MatchOp::Equal, "m").unwrap()],
        range: TimeRange { after: 0, until: i64::MAX },
        budget: QueryBudget::unlimited(),
    }
}

/// Everything in a snapshot of a shard, likewise.
pub(crate) fn read_source(source: &dyn model::seam::SeriesSource) -> Vec<(usize, i64)> {
    let mut found = Vec::new();
    let mut iter = source.select(&everything()).unwrap();
    let mut data = SeriesData::default();
    while iter.next_series(&mut data).unwrap() {
        let n: usize = data.labels.get("n").unwrap().parse().unwrap();
        for (stamp, got) in data.stamps.iter().zip(&data.values) {
            let step = (stamp - START) / 1000;
            assert_eq!(got.to_bits(), value(n, step).to_bits(), "series {n} step {step}");
            found.push((n, step));
        }
    }
    found.sort_unstable();
    found
}

pub(crate) fn expect(series: usize, steps: i64) -> Vec<(usize, i64)> {
    (0..series).flat_map(|n| (0..steps).map(move |step| (n, step))).collect()
}

#[test]
fn what_is_acknowledged_survives_a_kill_and_a_clean_stop() {
    run(async {
        let temp = tempfile::tempdir().unwrap();
        let config = config(temp.path());
        let node = open(&config).await;
        let shards = node.shard_map().load().all_shards();
        assert_eq!(shards.len(), 2);
        write(&node, shards[0], 20, 0..50).await;
        write(&node, shards[1], 3, 0..5).await;
        assert_eq!(read(&node, shards[0]).await, expect(20, 50));
        let before = node.state_hashes();
        node.abandon().await;
        drop(node);

        let node = open(&config).await;
        assert_eq!(read(&node, shards[0]).await, expect(20, 50));
        assert_eq!(read(&node, shards[1]).await, expect(3, 5));
        assert_eq!(before.len(), node.state_hashes().len());
        write(&node, shards[0], 20, 50..80).await;
        node.shutdown().await.unwrap();
        let refused = node.write(shards[0], batch(0..1, 99)).await;
        assert!(matches!(refused, Err(ShardWriteError::Failed(f)) if f.message.contains("stopping")));
        drop(node);

        let node = open(&config).await;
        assert_eq!(read(&node, shards[0]).await, expect(20, 80));
        // The same again is a success and changes nothing (I2).
        write(&node, shards[0], 20, 70..80).await;
        assert_eq!(read(&node, shards[0]).await, expect(20, 80));
        node.flush().await.unwrap();
        node.abandon().await;
        drop(node);

        let node = open(&config).await;
        assert_eq!(read(&node, shards[0]).await, expect(20, 80));
        assert_eq!(read(&node, shards[1]).await, expect(3, 5));
        node.shutdown().await.unwrap();
    });
}

#[test]
fn many_writers_are_answered_each_and_share_entries() {
    run(async {
        let temp = tempfile::tempdir().unwrap();
        let node = open(&config(temp.path())).await;
        let shard = node.shard_map().load().all_shards()[0];
        let writers = (0..200_usize).map(|n| {
            let node = Arc::clone(&node);
            async move { node.write(shard, batch(n..n + 1, 0)).await }
        });
        let reports: Vec<Result<ShardReport, ShardWriteError>> = futures::future::join_all(writers).await;
        assert!(reports.iter().all(|r| r.as_ref().is_ok_and(|r| r.written.samples == 1)));
        assert_eq!(read(&node, shard).await, expect(200, 1));
        let (_, entries, _) = node.state_hashes()[0];
        assert!(entries < 100, "{entries} entries for 200 batches");
        node.shutdown().await.unwrap();
    });
}

#[test]
fn the_log_stays_bounded_and_damage_below_the_durable_state_heals() {
    run(async {
        let temp = tempfile::tempdir().unwrap();
        let log = LogConfig { segment_bytes: 256 << 10, ..LogConfig::default() };
        let config = ReplicationConfig { log_bytes: 1 << 20, log, ..config(temp.path()) };
        let node = open(&config).await;
        let shards = node.shard_map().load().all_shards();
        // An idle shard holds the first segment; a busy one fills many.
        write(&node, shards[1], 1, 0..1).await;
        let segments = || std::fs::read_dir(temp.path().join("log")).unwrap().count();
        let mut step = 0;
        let mut most = 0;
        while step < 3000 && (step < 150 || segments() > 6) {
            write(&node, shards[0], 2000, step..step + 10).await;
            step += 10;
            most = most.max(segments());
        }
        assert!(segments() <= 7, "{} segments after {step} steps, {most} at most", segments());
        assert_eq!(read(&node, shards[1]).await, expect(1, 1));
        node.abandon().await;
        drop(node);
        let node = open(&config).await;
        assert_eq!(read(&node, shards[0]).await.len(), 2000 * step as usize);
        node.shutdown().await.unwrap();
    });
}

#[test]
fn a_group_that_stopped_at_an_entry_is_told_and_the_others_go_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let node = open(&config(dir.path())).await;
        assert_eq!(node.unready(), None);
        let group = Arc::clone(&node.inner.ready(ShardId(1)).await.unwrap().group);
        let term = group.leading().unwrap();
        let damaged = bytes::Bytes::from_static(b"\xff\xff this is no entry");
        assert!(group.propose(damaged, term).await.is_err());
        let mut metrics = group.raft().metrics();
        while group.broken().is_none() {
            tokio::time::timeout(Duration::from_secs(20), metrics.changed()).await.unwrap().unwrap();
        }
        let failed = node.progress().failed;
        assert!(matches!(&failed[..], [(shard, _)] if shard == "shard 1"), "{failed:?}");
        assert!(!node.caught_up());
        assert!(node.unready().unwrap().contains("has stopped"), "{:?}", node.unready());
        assert!(node.write(ShardId(1), batch(0..1, 0)).await.is_err());
        write(&node, ShardId(2), 1, 0..2).await;
    });
}
