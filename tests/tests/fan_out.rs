//! Three processes, each series on one of them: queries at any node see all, parts of them run where the series are, and
//! a node that is away makes an error that names what is missing (I5, I9, I10).

use anyhow::{Context as _, Result, ensure};
use benches::http::encoded;
use serde_json::Value;
use tests::cluster::PATIENCE;
use tests::node::Node;
use tests::oracle::Writer;
use tests::three;

const SERIES: u64 = 100;
const ROUNDS: usize = 30;

const FLAGS: &[&str] = &["--cluster.replication-factor=1", "--cluster.shards=6"];

/// The path of a query at the end of the writer's samples.
fn path(writer: &Writer, expression: &str) -> String {
    format!("/api/v1/query?query={}&time={}", encoded(expression), writer.last_seconds())
}

/// The whole `data` of a query at the end of the writer's samples.
fn ask(node: &Node, writer: &Writer, expression: &str) -> Result<Value> {
    node.api(&format!("{}&stats=all", path(writer, expression)))
}

#[test]
fn parts_of_a_query_run_where_the_series_are() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut nodes, address) = three::start(folder.path(), FLAGS)?;
    let status = nodes[0].api("/api/v1/cluster/status")?;
    for shard in status["shards"].as_array().context("shards")? {
        ensure!(
            shard["replicas"].as_array().is_some_and(|all| all.len() == 1),
            "one replica a shard: {shard}"
        );
    }
    let mut writer = Writer::new(1, SERIES);
    while writer.acked() < ROUNDS {
        let reply = writer.send(&nodes[writer.acked() % 3].address)?;
        ensure!(reply.status == 204, "{}", reply.body);
    }

    // Aggregations: answers of groups come, not series, and the same bits from everywhere.
    let whole = |node: &Node, expression: &str| -> Result<(String, Value)> {
        let data = ask(node, &writer, expression)?;
        Ok((data["result"].to_string(), data["stats"]["isobar"].clone()))
    };
    for expression in [
        "sum by (instance) (rate(oracle[20s]))",
        "avg without (n, instance) (oracle)",
        "topk(3, oracle)",
        "stddev(oracle) + count(oracle)",
        "quantile(0.5, oracle)",
        "absent_over_time(oracle[20s])",
    ] {
        let (answer, cost) = whole(&nodes[0], expression)?;
        for node in &nodes[1..] {
            let (other, _) = whole(node, expression)?;
            ensure!(answer == other, "{expression}: {answer}\n!=\n{other}");
        }
        ensure!(cost["nodes"] == 3 && cost["fragments"] == 2, "{expression} went to the others: {cost}");
        let moved = cost["movedSeries"].as_u64().context("movedSeries")?;
        let pushed = !expression.starts_with("absent_over_time");
        ensure!((moved == 0) == pushed, "{expression}: {moved} series moved: {cost}");
    }
    let (count, _) = whole(&nodes[1], "count(oracle)")?;
    ensure!(count.contains(&format!("\"{SERIES}\"")), "{count}");
    // Raw series travel, each once.
    for node in &nodes {
        ensure!(writer.check(node)? as u64 == SERIES * ROUNDS as u64);
        let values = node.api("/api/v1/label/n/values?match[]=oracle")?;
        ensure!(values.as_array().is_some_and(|all| all.len() as u64 == SERIES), "{values}");
    }

    // A node away: its shards are missing, and named; what needs none of them is answered.
    let gone = nodes.remove(2);
    gone.kill()?;
    let (code, body) = nodes[0].get(&path(&writer, "sum(oracle)"))?;
    ensure!(code == 503 && body.contains("shard"), "{code} {body}");
    // It comes back, at another address, and so do the answers.
    let (back, _) = three::spawn(folder.path(), "c", Some(&address), FLAGS)?;
    nodes.push(back);
    nodes[2].wait_until_ready()?;
    nodes[0].eventually(PATIENCE, "all shards answer again", |node| {
        let (code, body) = node.get(&path(&writer, "count(oracle)"))?;
        Ok((code == 200 && body.contains(&format!("\"{SERIES}\""))).then_some(()))
    })?;
    for node in &nodes {
        writer.check(node)?;
    }
    Ok(())
}
