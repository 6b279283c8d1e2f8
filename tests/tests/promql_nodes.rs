//! Random queries of the whole language on three processes with 8 shards, answered byte for byte as one process answers
//! them: values, order, annotations, errors (DESIGN 9: answers do not depend on where series are).
//!
//! `ISOBAR_NODES_QUERIES` and `ISOBAR_NODES_SEED` ask more; `ISOBAR_NODES_COPIES=3` gives each node all series.

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::{Client, encoded};
use model::seam::fake::MemorySource;
use serde_json::Value;
use tests::node::Node;
use tests::random_query::{Queries, Random, TIMES, series};
use tests::remote_write::{Version, body_v2, send, series_of};

const FLAGS: &[&str] = &[
    "--tenancy.enabled",
    "--storage.tsdb.retention.time=0s",
    "--enable-feature=promql-experimental-functions,promql-binop-fill-modifiers,type-and-unit-labels",
];

/// Queries over the same data.
const PER_DATA: u64 = 100;

#[allow(clippy::disallowed_methods, reason = "the environment asks for longer runs")]
fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Sends all of it to one of `clients` after the other.
fn write(clients: &mut [Client], tenant: &str, source: &MemorySource) -> Result<()> {
    for (at, part) in series_of(source)?.chunks(20).enumerate() {
        let node = at % clients.len();
        let answer = send(&mut clients[node], Version::V2, Some(tenant), &body_v2(part))?;
        ensure!(answer.status == 204, "{}: {}", answer.status, answer.text);
    }
    Ok(())
}

/// The bytes that answer a request.
fn ask(client: &mut Client, tenant: &str, starts: bool, form: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("X-Scope-OrgID", tenant),
        ("X-Prometheus-Use-Start-Timestamps", if starts { "true" } else { "false" }),
    ];
    client.request("POST", path, &headers, form.as_bytes())
}

#[test]
fn three_nodes_answer_as_one() -> Result<()> {
    let (count, first) = (asked("ISOBAR_NODES_QUERIES", 300), asked("ISOBAR_NODES_SEED", 1));
    let copies = asked("ISOBAR_NODES_COPIES", 1);
    let folder = tempfile::tempdir()?;
    let one = Node::start(&folder.path().join("one"), FLAGS)?;
    let factor = format!("--cluster.replication-factor={copies}");
    let flags = [&[&*factor, "--cluster.shards=8"], FLAGS].concat();
    let (nodes, _) = tests::three::start(folder.path(), &flags)?;
    let mut alone = [one.client()];
    let mut clients: Vec<Client> = nodes.iter().map(Node::client).collect();

    let (mut failed, mut empty, mut fragments, mut wrong) = (0, 0, 0, Vec::new());
    for block in 0..count.div_ceil(PER_DATA) {
        let seed = first + block;
        let tenant = format!("seed-{seed}");
        let mut random = Random::new(seed);
        let source = series(&mut random);
        write(&mut alone, &tenant, &source)?;
        write(&mut clients, &tenant, &source)?;
        let mut queries = Queries::new(seed, true);
        for at in 0..PER_DATA.min(count - block * PER_DATA) {
            let text = queries.query();
            let start = random.below(TIMES.1 as usize) as f64 / 1000.0;
            let (path, times) = if random.once_in(4) {
                ("/api/v1/query", format!("time={start}"))
            } else {
                let step = [15, 30, 61][random.below(3)];
                ("/api/v1/query_range", format!("start={start}&end={}&step={step}", TIMES.1 / 1000 + 60))
            };
            let starts = random.once_in(3);
            let form = format!("query={}&{times}", encoded(&text));
            let node = at as usize % clients.len();
            let expected = ask(&mut alone[0], &tenant, starts, &form, path)?;
            let found = ask(&mut clients[node], &tenant, starts, &form, path)?;
            let answer: Value = serde_json::from_slice(&expected.1).context("JSON")?;
            failed += usize::from(expected.0 != 200);
            empty += usize::from(answer["data"]["result"].as_array().is_some_and(Vec::is_empty));
            if expected != found {
                let show = |(status, body): &(u16, Vec<u8>)| {
                    format!("{status} {}", String::from_utf8_lossy(&body[..body.len().min(1500)]))
                };
                wrong.push(format!(
                    "seed {seed}, {times}, starts {starts}: {text}\n  {}\n  {}",
                    show(&expected),
                    show(&found)
                ));
            }
            if at % 10 == 0 {
                let (_, body) = ask(&mut clients[node], &tenant, starts, &format!("{form}&stats=all"), path)?;
                let answer: Value = serde_json::from_slice(&body)?;
                fragments += answer["data"]["stats"]["isobar"]["fragments"].as_u64().unwrap_or(0);
            }
        }
    }
    println!(
        "seeds from {first}, {copies} copies: {count} queries, {failed} failed alike, {empty} empty, {} wrong; \
         {fragments} fragments for every tenth",
        wrong.len()
    );
    if !wrong.is_empty() {
        bail!("{} wrong, the first:\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
    }
    let count = usize::try_from(count)?;
    // With a copy of every shard each node answers alone.
    ensure!(fragments > 0 || copies > 1, "no part of any query was pushed to where its series are");
    ensure!(failed * 2 < count && empty * 2 < count, "most queries answer something");
    Ok(())
}
