//! Queries over three nodes in one process: each has its shards, its frontend and its leaf; what passes between them is
//! bytes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use model::seam::fake::{ManualClock, MemorySource};
use model::seam::{BoxFuture, FragmentRunner, ReadLevel, SeriesSource, ShardReader};
use model::{Epoch, Failure, Labels, MatchOp, Matcher, NodeId, ShardId, TenantId, TimeRange};
use prometheus_client::registry::Registry;
use query::{Config, Frontend, Leaf, Options, Outcome, QueryError};

const SHARDS: u32 = 8;

/// What all nodes share: the series, and how to reach each other.
struct Cluster {
    shards: Vec<Arc<MemorySource>>,
    nodes: u64,
    leaves: OnceLock<Vec<Leaf>>,
    epoch: AtomicU64,
    overlapping: bool,
    /// So many fragments fail before one is answered.
    failures: AtomicU32,
}

/// The cluster as one of its nodes sees it.
struct Reader {
    cluster: Arc<Cluster>,
    node: u64,
    /// How far this node's shard map is behind.
    behind: AtomicU64,
}

impl ShardReader for Reader {
    fn shards(&self, _: &TenantId, _: &[Matcher], _: TimeRange) -> Vec<ShardId> {
        (0..SHARDS).map(ShardId).collect()
    }

    fn snapshot(
        &self,
        shard: ShardId,
        _: ReadLevel,
    ) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
        let here = self.cluster.nodes == 0 || u64::from(shard.0) % self.cluster.nodes == self.node;
        let source = Arc::clone(&self.cluster.shards[shard.0 as usize]);
        Box::pin(async move {
            if here {
                Ok(source as Arc<dyn SeriesSource>)
            } else {
                Err(Failure::new(model::Code::WrongOwner, "the shard is not here"))
            }
        })
    }

    fn overlapping(&self, _: TimeRange) -> bool {
        self.cluster.overlapping
    }

    fn epoch(&self) -> Epoch {
        // A map that is behind catches up when it is looked at often enough.
        let behind = self.behind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        Epoch(self.cluster.epoch.load(Ordering::SeqCst) - u64::from(behind.is_ok()))
    }

    fn placement(&self, shards: &[ShardId]) -> Vec<(Option<NodeId>, Vec<ShardId>)> {
        if self.cluster.nodes == 0 {
            return vec![(None, shards.to_vec())];
        }
        (0..self.cluster.nodes)
            .map(|node| {
                let its = shards.iter().copied().filter(|s| u64::from(s.0) % self.cluster.nodes == node);
                ((node != self.node).then_some(NodeId(node)), its.collect::<Vec<_>>())
            })
            .filter(|(_, its)| !its.is_empty())
            .collect()
    }

    fn fragment(&self, node: NodeId, fragment: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let fails =
            self.cluster.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let leaf = self.cluster.leaves.get().expect("the nodes are there")[node.0 as usize].clone();
        Box::pin(async move {
            if fails.is_ok() {
                return Err(Failure::new(model::Code::Unavailable, "no leader"));
            }
            leaf.run(fragment).await
        })
    }
}

/// Two metrics of twelve instances, by their placement keys; `mixed`: a series has samples in two shards.
fn shards(mixed: bool) -> Vec<Arc<MemorySource>> {
    let mut all = vec![MemorySource::new(); SHARDS as usize];
    for instance in 0..12i64 {
        for name in ["c_total", "d_total"] {
            let instance_name = format!("i{instance}");
            let labels = [("__name__", name), ("job", "j"), ("instance", instance_name.as_str())];
            let labels = Labels::from_pairs(labels).expect("labels that form a set");
            let key = topology::placement_key(&TenantId::anonymous(), &labels);
            let shard = ((u128::from(key) * u128::from(SHARDS)) >> 64) as usize;
            for step in 0..80i64 {
                let at = if mixed && step >= 40 { (shard + 1) % SHARDS as usize } else { shard };
                let value = (step * (instance + 3) % 97) as f64 * 0.1;
                all[at].push(&labels, step * 15_000, value);
            }
        }
    }
    all.into_iter().map(Arc::new).collect()
}

struct Nodes {
    cluster: Arc<Cluster>,
    readers: Vec<Arc<Reader>>,
    frontends: Vec<Frontend>,
}

/// `nodes` nodes, or with 0 a single one that has everything.
fn cluster(nodes: u64, overlapping: bool, config: &Config) -> Nodes {
    let cluster = Arc::new(Cluster {
        shards: shards(overlapping),
        nodes,
        leaves: OnceLock::new(),
        epoch: AtomicU64::new(5),
        overlapping,
        failures: AtomicU32::new(0),
    });
    let mut made = Nodes { cluster: Arc::clone(&cluster), readers: Vec::new(), frontends: Vec::new() };
    for node in 0..nodes.max(1) {
        let reader = Arc::new(Reader { cluster: Arc::clone(&cluster), node, behind: AtomicU64::new(0) });
        let clock = Arc::new(ManualClock::new(1_200_000));
        let frontend =
            Frontend::new(Arc::clone(&reader) as _, config.clone(), clock, &mut Registry::default());
        made.readers.push(reader);
        made.frontends.push(frontend);
    }
    let leaves = made.frontends.iter().cloned().map(Leaf::new).collect();
    assert!(cluster.leaves.set(leaves).is_ok());
    made
}

fn options() -> Options {
    Options::of(TenantId::anonymous())
}

async fn ask(frontend: &Frontend, text: &str) -> Result<Outcome, QueryError> {
    frontend.range(text, 300_000, 1_170_000, 30_000, &options()).await
}

const QUERIES: [&str; 7] = [
    "sum by (job) (rate(c_total[5m]))",
    "c_total / d_total",
    "topk(2, c_total)",
    "avg(c_total) - on () group_right () max by (instance) (d_total)",
    "absent_over_time(nothing[5m])",
    "sort_desc(increase(d_total[2m]))",
    "scalar(sum(c_total)) + count_values(\"v\", d_total)",
];

#[tokio::test]
async fn three_nodes_answer_as_one_does_and_say_what_went_between_them() {
    for overlapping in [false, true] {
        let one = cluster(0, overlapping, &Config::default());
        let three = cluster(3, overlapping, &Config::default());
        for text in QUERIES {
            let expected = ask(&one.frontends[0], text).await.unwrap();
            assert_eq!(expected.stats.between, query::Between::default());
            for frontend in &three.frontends {
                let outcome = ask(frontend, text).await.unwrap();
                assert_eq!(format!("{:?}", outcome.value), format!("{:?}", expected.value), "{text}");
                assert_eq!(outcome.annotations, expected.annotations, "{text}");
                assert_eq!(outcome.stats.samples, expected.stats.samples, "{text}");
                let between = outcome.stats.between;
                assert_eq!(between.nodes, 3, "{text}");
                assert!(between.fragments > 0 && between.partial_bytes > 0, "{text}: {between:?}");
                if overlapping && !text.contains("nothing") {
                    assert!(between.moved_series > 0 && between.moved_bytes > 0, "{text}: {between:?}");
                } else if !text.contains("nothing") {
                    assert_eq!(between.moved_series, 0, "{text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn errors_of_evaluation_are_those_of_one_node() {
    let (one, three) = (cluster(0, false, &Config::default()), cluster(3, false, &Config::default()));
    for text in ["c_total * on (job) d_total", "c_total * ignoring (le) {__name__=~\"c_total|d_total\"}"] {
        let expected = ask(&one.frontends[0], text).await.unwrap_err();
        let error = ask(&three.frontends[1], text).await.unwrap_err();
        assert_eq!(error.to_string(), expected.to_string());
        assert!(matches!(error, QueryError::Execution(_)), "{error:?}");
    }
}

#[tokio::test]
async fn labels_and_metadata_are_joined_over_the_nodes() {
    let (one, three) = (cluster(0, false, &Config::default()), cluster(3, false, &Config::default()));
    let selector = || vec![vec![Matcher::new("__name__", MatchOp::Regex, "c.*").unwrap()]];
    let (one, three) = (&one.frontends[0], &three.frontends[2]);
    let names = |f: &Frontend| {
        let f = f.clone();
        async move { f.label_names(Vec::new(), TimeRange::ALL, 0, &options()).await.unwrap() }
    };
    assert_eq!(names(three).await, names(one).await);
    let values = three.label_values("instance", selector(), TimeRange::ALL, 5, &options()).await.unwrap();
    assert_eq!(values, ["i0", "i1", "i10", "i11", "i2"]);
    let mut series = three.series(selector(), TimeRange::ALL, 0, &options()).await.unwrap();
    let mut expected = one.series(selector(), TimeRange::ALL, 0, &options()).await.unwrap();
    series.sort();
    expected.sort();
    assert_eq!(series, expected);
    assert!(three.metadata(None, &options()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_place_that_fails_is_asked_again_and_a_missing_shard_is_named() {
    let three = cluster(3, false, &Config::default());
    let expected = ask(&three.frontends[0], QUERIES[0]).await.unwrap();
    three.cluster.failures.store(3, Ordering::SeqCst);
    let outcome = ask(&three.frontends[0], QUERIES[0]).await.unwrap();
    assert_eq!(format!("{:?}", outcome.value), format!("{:?}", expected.value));
    assert_eq!(outcome.stats.between.retries, 3);
    three.cluster.failures.store(u32::MAX, Ordering::SeqCst);
    let options = Options { timeout: Some(std::time::Duration::from_millis(200)), ..options() };
    let error = three.frontends[0].instant("c_total", 600_000, &options).await.unwrap_err();
    let QueryError::Unavailable { message, .. } = error else { panic!("{error:?}") };
    assert!(message.starts_with("shards ") && message.contains("no leader"), "{message}");
}

#[tokio::test]
async fn a_node_with_another_shard_map_refuses_until_both_agree() {
    let three = cluster(3, false, &Config::default());
    let expected = ask(&three.frontends[0], QUERIES[1]).await.unwrap();
    // The asker is behind: the shards are chosen again when it has caught up.
    three.readers[0].behind.store(2, Ordering::SeqCst);
    let outcome = ask(&three.frontends[0], QUERIES[1]).await.unwrap();
    assert_eq!(format!("{:?}", outcome.value), format!("{:?}", expected.value));
    // Another node is behind: it is asked again.
    three.readers[1].behind.store(2, Ordering::SeqCst);
    let outcome = ask(&three.frontends[0], QUERIES[1]).await.unwrap();
    assert_eq!(format!("{:?}", outcome.value), format!("{:?}", expected.value));
    assert!(outcome.stats.between.retries > 0);
}

#[tokio::test]
async fn garbage_is_refused_and_a_small_budget_stops_a_fragment() {
    let three = cluster(3, false, &Config::default());
    let leaf = &three.cluster.leaves.get().unwrap()[0];
    for bytes in [vec![], vec![1, 1, 7], vec![0xf1, b'{'], vec![200; 50]] {
        let failure = leaf.run(bytes.clone()).await.unwrap_err();
        assert!(
            matches!(failure.code, model::Code::Invalid | model::Code::Unimplemented),
            "{bytes:?}: {failure:?}"
        );
    }
    let config = Config { max_memory_bytes: 2_000, ..Config::default() };
    let small = cluster(3, false, &config);
    let error = ask(&small.frontends[0], "c_total").await.unwrap_err();
    assert!(error.to_string().contains("limit 2000 bytes"), "{error}");
}

#[tokio::test]
async fn a_plan_says_who_would_answer() {
    let three = cluster(3, false, &Config::default());
    let plan = three.frontends[0].explain("sum(c_total) + 1", 0, 60_000, 15_000, &options()).await.unwrap();
    assert_eq!(plan["distributed"], true);
    assert_eq!(plan["root"], "part_0 + 1");
    assert_eq!(plan["places"].as_array().unwrap().len(), 3);
    assert_eq!(plan["places"][1]["node"], 1);
}
