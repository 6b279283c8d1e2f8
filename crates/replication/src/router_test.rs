//! Writes and reads through a node that has no replica of anything, and what it does when the leader is not where it
//! was, is silent, or is gone.

use std::sync::Arc;
use std::time::Duration;

use model::seam::{
    QueryBudget, ReadLevel, SelectRequest, SeriesSource, ShardReader as _, ShardWriteError, ShardWriter as _,
    SystemClock,
};
use model::{Code, Failure, MatchOp, Matcher, NodeId, ShardId, TenantId, TimeRange};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::node_test::{batch, config, expect, read, run};
use crate::{Peering, Replication, ReplicationConfig};

const PATIENCE: Duration = Duration::from_secs(60);
const SHARD: ShardId = ShardId(1);

async fn start(config: ReplicationConfig) -> (Arc<Replication>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertise = listener.local_addr().unwrap().to_string();
    let secret = Some(b"a secret of the tests".to_vec());
    let peering =
        Peering { listener, advertise: advertise.clone(), secret, tls: None, snapshot_bytes_per_second: 0 };
    let clock = Arc::new(SystemClock::new());
    let node = Replication::open(config, peering, clock, &mut Registry::default()).await.unwrap();
    (node, advertise)
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything of the shard as `node` sees it.
async fn read_at(node: &Replication) -> Vec<(usize, i64)> {
    collect(node.snapshot(SHARD, ReadLevel::Linearizable).await.unwrap()).await
}

/// A remote replica blocks the thread that reads it.
async fn collect(source: Arc<dyn SeriesSource>) -> Vec<(usize, i64)> {
    tokio::task::spawn_blocking(move || crate::node_test::read_source(source.as_ref())).await.unwrap()
}

fn request() -> SelectRequest {
    SelectRequest {
        tenant: TenantId::anonymous(),
        matchers: vec![Matcher::new("__name__", MatchOp::Equal, "m").unwrap()],
        range: TimeRange { after: 0, until: i64::MAX },
        budget: QueryBudget::unlimited(),
    }
}

/// A node with all replicas, and one with none.
async fn two(dirs: [&std::path::Path; 2]) -> (Arc<Replication>, Arc<Replication>, String) {
    let first = ReplicationConfig { node_name: "a".to_owned(), ..config(dirs[0]) };
    let (a, address) = start(first).await;
    until("a is ready", async || a.caught_up()).await;
    let second = ReplicationConfig {
        node_name: "b".to_owned(),
        join: vec![address.clone()],
        leader_wait: Duration::from_secs(2),
        ..config(dirs[1])
    };
    let (b, _) = start(second).await;
    until("b is ready", async || b.caught_up()).await;
    assert!(b.state_hashes().is_empty(), "it has no replica");
    (a, b, address)
}

#[test]
fn a_node_without_replicas_writes_and_reads_through_the_others() {
    run(async {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (a, b, _) = two([dirs[0].path(), dirs[1].path()]).await;
        for step in 0..10 {
            let report = b.write(SHARD, batch(0..20, step)).await.unwrap();
            assert!(report.rejected.is_empty() && report.refs.iter().all(Option::is_some), "{report:?}");
            // What was acknowledged is there at once, wherever it is read.
            assert_eq!(read_at(&b).await, expect(20, step + 1));
        }
        assert_eq!(read(&a, SHARD).await, expect(20, 10));
        let source = b.snapshot(SHARD, ReadLevel::MaxStaleness(Duration::from_secs(5))).await.unwrap();
        assert_eq!(collect(source).await, expect(20, 10));
        // Many reads of all shards at a time share calls; label calls go the same way.
        let shards = b.shard_map().load().all_shards();
        let reads =
            (0..50).flat_map(|_| shards.iter().map(|shard| b.snapshot(*shard, ReadLevel::Linearizable)));
        for source in futures::future::join_all(reads.collect::<Vec<_>>()).await {
            source.unwrap();
        }
        let source = b.snapshot(SHARD, ReadLevel::Linearizable).await.unwrap();
        let names = tokio::task::spawn_blocking(move || source.label_names(&request(), 0)).await.unwrap();
        assert_eq!(names.unwrap(), ["__name__", "instance", "job", "n"]);
        b.shutdown().await.unwrap();
        a.shutdown().await.unwrap();
    });
}

#[test]
fn a_wrong_or_silent_leader_is_left_and_a_missing_one_is_named() {
    run(async {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (a, b, address) = two([dirs[0].path(), dirs[1].path()]).await;
        b.write(SHARD, batch(0..3, 0)).await.unwrap();
        // A node that takes connections and says nothing, and one that nobody knows.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        b.inner.peers.set_address(NodeId(77), &silent.local_addr().unwrap().to_string());
        for (step, wrong) in [(1, 77), (2, 78)] {
            b.inner.router.remember(SHARD, NodeId(wrong));
            b.write(SHARD, batch(0..3, step)).await.unwrap();
            b.inner.router.remember(SHARD, NodeId(wrong));
            assert_eq!(read_at(&b).await, expect(3, step + 1));
        }
        // Gone: the write fails in time, says which shard, and that a retry may help.
        a.abandon().await;
        drop(a);
        let begin = tokio::time::Instant::now();
        let failure = match b.write(SHARD, batch(0..3, 3)).await {
            Err(ShardWriteError::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        };
        let missing = |failure: &Failure| {
            assert_eq!(failure.code, Code::Unavailable, "{failure}");
            assert!(failure.message.contains("shard 1") && failure.retry_after.is_some(), "{failure:?}");
        };
        missing(&failure);
        missing(&b.snapshot(SHARD, ReadLevel::Linearizable).await.err().unwrap());
        assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}", begin.elapsed());
        // Back at another address.
        let again =
            ReplicationConfig { node_name: "a".to_owned(), join: vec![address], ..config(dirs[0].path()) };
        let (a, _) = start(again).await;
        until("writes go on", async || b.write(SHARD, batch(0..3, 3)).await.is_ok()).await;
        assert_eq!(read_at(&b).await, expect(3, 4));
        b.shutdown().await.unwrap();
        a.shutdown().await.unwrap();
    });
}
