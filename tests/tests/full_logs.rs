//! I15: the disks of a majority of a shard's nodes are so full that their logs take no entries. Writes are refused at once,
//! with the shard and the reason, and go on by themselves when there is space.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::Answer;
use model::seam::{Clock as _, SystemClock};
use tests::cluster::{PATIENCE, is_whole, leaders, status};
use tests::node::Node;
use tests::power::{Disk, missing};
use tests::remote_write::{Series, body_v2};
use tests::{three, tier};

/// Series of a request, each with that many bytes of labels, so that logs grow fast.
const SERIES: u64 = 400;
const LABEL_BYTES: usize = 4_000;
/// A refusal at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A request of series that nobody has seen.
fn request(number: u64, stamp: i64) -> Result<Vec<u8>> {
    let mut state = number + 1;
    let all: Vec<Series> = (0..SERIES)
        .map(|n| {
            let mut text = String::with_capacity(LABEL_BYTES + 16);
            while text.len() < LABEL_BYTES {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(&format!("{state:016x}"));
            }
            let of =
                [("__name__", "long"), ("instance", "a"), ("job", "j"), ("n", &*format!("{number}-{n}"))];
            let labels: Vec<(&str, &str)> = of.into_iter().chain([("text", &*text)]).collect();
            Series::of(&labels).float(stamp, n as f64)
        })
        .collect();
    snap::raw::Encoder::new().compress_vec(&body_v2(&all)).context("compressing")
}

#[test]
fn a_majority_with_full_logs_refuses_writes_at_once_and_resumes() -> Result<()> {
    if !tier("root", missing()) {
        return Ok(());
    }
    let disks = [Disk::new(400)?, Disk::new(400)?, Disk::new(400)?];
    let names = ["north", "east", "west"];
    let flags = ["--cluster.shards=1", "--storage.min-free=4MiB"];
    let (first, address) = three::spawn(&disks[0].root(), names[0], None, &flags)?;
    let mut nodes = vec![first];
    for at in [1, 2] {
        nodes.push(three::spawn(&disks[at].root(), names[at], Some(&address), &flags)?.0);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    nodes[0].eventually(PATIENCE, "the cluster is whole", is_whole)?;
    let clock = SystemClock::new();
    let stamp = clock.now_ms();
    let mut number = 0;
    let mut write = |node: &Node| -> Result<(Answer, Duration)> {
        number += 1;
        let body = request(number, stamp)?;
        let headers = [
            ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "2.0.0"),
        ];
        let asked = clock.monotonic();
        let answer = node.client().exchange("POST", "/api/v1/write", &headers, &body)?;
        Ok((answer, clock.monotonic() - asked))
    };
    ensure!(write(&nodes[0])?.0.status == 204, "there is space");
    let leader = leaders(&nodes[0])?.context("a leader")?.remove(0);
    let mut full = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        if status(node)?["node"].as_str() != Some(&*leader) {
            full.push(at);
        }
    }
    for at in &full {
        disks[*at].fill()?;
    }
    // What their logs keep in reserve is used up first.
    let mut stored = 1;
    let (refused, took) = loop {
        ensure!(clock.monotonic() < PATIENCE, "nothing was refused, {stored} requests were stored");
        let (answer, took) = write(&nodes[full[0]])?;
        if answer.status != 204 {
            break (answer, took);
        }
        stored += 1;
    };
    ensure!(stored > 10, "its log took only {stored} requests");
    let says = |answer: &Answer| {
        let text = String::from_utf8_lossy(&answer.body);
        let named = full.iter().all(|at| text.contains(names[*at]));
        answer.status == 503
            && text.contains("shard 1")
            && text.contains("no disk space")
            && named
            && answer.header("retry-after").is_some()
    };
    ensure!(says(&refused) && took < AT_ONCE, "I15, I11: {took:?} {refused:?}");
    // Whoever is asked; and what was stored is read.
    for node in &nodes {
        let (refused, took) = write(node)?;
        ensure!(says(&refused) && took < AT_ONCE, "I15, I11: {took:?} {refused:?}");
    }
    let count = |node: &Node| node.value("count(long)", Some(stamp as f64 / 1e3));
    ensure!(count(&nodes[0])?.is_some_and(|n| n >= (stored * SERIES) as f64), "I1: reads go on");
    for at in &full {
        disks[*at].free()?;
    }
    let begun = clock.monotonic();
    while write(&nodes[0])?.0.status != 204 {
        ensure!(clock.monotonic() - begun < PATIENCE, "writes do not go on");
        std::thread::yield_now();
    }
    println!(
        "{stored} requests stored, refused after {took:?}, writes {:?} after there was space",
        clock.monotonic() - begun
    );
    stored += 1;
    for node in &nodes {
        ensure!(count(node)?.is_some_and(|n| n >= (stored * SERIES) as f64), "I1");
    }
    nodes.into_iter().try_for_each(Node::kill)
}
