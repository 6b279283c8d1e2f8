//! What copies cost: the same generated samples to one node, to three nodes with one copy of each shard, and to three with
//! three; what travels between nodes for a query; how fast a node that was away catches up, and one node grows to three.
//!
//! Prints Markdown tables; writes every figure of every run as JSON to `--out`. `--only writes` leaves catching up and
//! growing out.
//!
//! Usage: `cluster --isobar BIN [--only writes] [--series N] [--steps N] [--runs N] [--out FILE]`

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use benches::generate::{Generator, Request, Shape};
use benches::http::{Client, encoded};
use benches::options::Options;
use benches::process::Server;
use benches::send::send;
use serde_json::{Value, json};

/// First steps, which carry the cost of creating the series.
const CREATION_STEPS: usize = 10;
/// Longest wait for a cluster to be whole.
const PATIENCE: Duration = Duration::from_secs(600);

/// Queries of which it is told what travels.
const QUERIES: &[&str] = &[
    "sum by (job) (rate(http_requests_total[5m]))",
    "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    "topk(5, http_requests_total)",
    "quantile(0.9, http_requests_total)",
    "absent_over_time(http_requests_total[5m])",
];

/// The program, what is measured, and whether only writes are.
fn options() -> Result<(String, Options, bool)> {
    let (mut isobar, mut only_writes) = (String::new(), false);
    let options = Options::read(40, "benchmark-cluster.json", |flag, value| match flag {
        "--isobar" => {
            value.clone_into(&mut isobar);
            true
        }
        "--only" => {
            only_writes = value == "writes";
            only_writes
        }
        _ => false,
    })?;
    ensure!(!isobar.is_empty(), "--isobar names the program");
    ensure!(options.shape.steps >= 2 * CREATION_STEPS, "at least {} steps", 2 * CREATION_STEPS);
    Ok((isobar, options, only_writes))
}

/// Where a measurement runs: the program, and a folder of its own.
struct Place<'a> {
    isobar: &'a str,
    folder: PathBuf,
}

impl Place<'_> {
    /// Starts node `at` of a cluster that `expect` nodes form, with `copies` of each shard; it is told of node 0.
    fn start(&self, at: usize, expect: usize, copies: usize) -> Result<Server> {
        let mut args = vec![
            "--config.file=/dev/null".to_owned(),
            format!("--storage.tsdb.path={}", self.folder.join(format!("node-{at}")).display()),
            "--web.enable-admin-api".to_owned(),
            "--log.level=warn".to_owned(),
            "--cluster.name=bench".to_owned(),
            format!("--node.name=node-{at}"),
            format!("--web.listen-address=127.0.0.1:{}", 19_290 + at),
            format!("--cluster.listen-address=127.0.0.1:{}", 19_390 + at),
            format!("--cluster.bootstrap-expect={expect}"),
            format!("--cluster.replication-factor={copies}"),
        ];
        if at > 0 {
            args.push("--cluster.join=127.0.0.1:19390".to_owned());
        }
        // A node of several is ready only when the others are there.
        let ready = if expect > 1 { "/-/healthy" } else { "/-/ready" };
        let log = self.folder.join(format!("node-{at}.log"));
        Server::start(self.isobar, &args, &format!("127.0.0.1:{}", 19_290 + at), ready, &log)
    }

    /// Starts a cluster and waits until it is whole.
    fn cluster(&self, nodes: usize, copies: usize) -> Result<Vec<Server>> {
        let servers = (0..nodes).map(|at| self.start(at, nodes, copies)).collect::<Result<Vec<_>>>()?;
        until_whole(&servers, copies)?;
        Ok(servers)
    }
}

/// Waits until all nodes answer, each shard has a leader and `copies` copies that are up to date; gives the time.
#[allow(
    clippy::disallowed_methods,
    reason = "a measuring program needs the machine's clock and waits for processes"
)]
fn until_whole(servers: &[Server], copies: usize) -> Result<f64> {
    let begun = Instant::now();
    loop {
        let status = Client::new(&servers[0].address).get("/api/v1/cluster/status").unwrap_or_default();
        let status: Value = serde_json::from_slice(&status).unwrap_or_default();
        let data = &status["data"];
        let len = |value: &Value| value.as_array().map_or(0, Vec::len);
        let has_all = |shard: &Value| {
            len(&shard["replicas"]) == copies
                && shard["replicas"].as_array().is_some_and(|all| all.iter().all(|r| r["lag"] == 0))
        };
        let whole = data["shardsWithoutLeader"] == 0
            && data["underReplicatedShards"] == 0
            && data["members"].as_array().is_some_and(|all| {
                all.len() == servers.len() && all.iter().all(|member| member["answers"] == true)
            })
            && data["shards"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(has_all));
        if whole {
            return Ok(begun.elapsed().as_secs_f64());
        }
        ensure!(begun.elapsed() < PATIENCE, "the cluster is not whole within {PATIENCE:?}: {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn cpu_seconds(servers: &[Server]) -> Result<f64> {
    servers.iter().map(Server::cpu_seconds).sum()
}

fn system_seconds(servers: &[Server]) -> Result<f64> {
    servers.iter().map(Server::system_seconds).sum()
}

fn switches(servers: &[Server]) -> Result<u64> {
    servers.iter().map(Server::switches).sum()
}

fn settle(servers: &[Server]) -> Result<()> {
    servers.iter().try_for_each(|server| server.settle(1.0))
}

/// The sum of a metric's samples over `servers`.
fn metric(servers: &[Server], name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for server in servers {
        let text = String::from_utf8(Client::new(&server.address).get("/metrics")?)?;
        let of_metric =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        for line in text.lines().filter(of_metric) {
            sum += line.rsplit(' ').next().context("a value")?.parse::<f64>()?;
        }
    }
    Ok(sum)
}

/// Sends everything to the first node; the cost over all nodes.
fn writes(servers: &[Server], steps: &[Vec<Request>]) -> Result<Value> {
    let path = "/api/v1/write";
    send(&servers[0].address, path, &steps[..CREATION_STEPS], 4)?;
    settle(servers)?;
    let (cpu, system, switched) = (cpu_seconds(servers)?, system_seconds(servers)?, switches(servers)?);
    let proposed = metric(servers, "isobar_replication_proposals_total")?;
    let sent = send(&servers[0].address, path, &steps[CREATION_STEPS..], 4)?;
    let while_sending = cpu_seconds(servers)? - cpu;
    settle(servers)?;
    let all = cpu_seconds(servers)? - cpu;
    let million = sent.samples as f64 / 1e6;
    let entries = metric(servers, "isobar_replication_proposals_total")? - proposed;
    let switched = switches(servers)?.saturating_sub(switched) as f64;
    Ok(
        json!({"nodes": servers.len(), "samples": sent.samples, "samples_per_s": sent.samples as f64 / sent.seconds,
        "cpu_s_per_million": all / million, "system_s_per_million": (system_seconds(servers)? - system) / million,
        "samples_per_entry": sent.samples as f64 / entries, "switches_per_entry": switched / entries,
        "cpu_s_per_million_while_sending": while_sending / million,
        "p50_ms": sent.latency(0.5), "p99_ms": sent.latency(0.99), "max_ms": sent.latency(1.0), "retries": sent.retries}),
    )
}

/// What each query makes travel between three nodes, of which each has a third of the series.
fn queries(servers: &[Server], shape: &Shape) -> Result<Value> {
    let end = (shape.start_ms + (shape.steps as i64 - 1) * shape.interval_ms) as f64 / 1e3;
    let start = end - 20.0 * shape.interval_ms as f64 / 1e3;
    let mut all = Vec::new();
    for expression in QUERIES {
        let path = format!(
            "/api/v1/query_range?query={}&start={start}&end={end}&step=15&stats=all",
            encoded(expression)
        );
        let answer = Client::new(&servers[0].address).get(&path).with_context(|| (*expression).to_owned())?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let stats = answer["data"]["stats"]["isobar"].clone();
        all.push(json!({"expression": expression, "stats": stats}));
    }
    Ok(Value::Array(all))
}

/// Stops the last node, writes half of the steps, starts it again: how fast it has everything.
fn catch_up(place: &Place<'_>, steps: &[Vec<Request>]) -> Result<Value> {
    let mut servers = place.cluster(3, 3)?;
    send(&servers[0].address, "/api/v1/write", &steps[..CREATION_STEPS], 4)?;
    servers.pop().context("three nodes")?.stop()?;
    let before = metric(&servers, "isobar_replication_proposed_bytes_total")?;
    let sent = send(&servers[0].address, "/api/v1/write", &steps[CREATION_STEPS..], 4)?;
    let bytes = metric(&servers, "isobar_replication_proposed_bytes_total")? - before;
    servers.push(place.start(2, 3, 3)?);
    let seconds = until_whole(&servers, 3)?;
    let fetched = metric(&servers, "isobar_replication_fetched_bytes_total")?;
    Ok(json!({"samples": sent.samples, "entry_bytes": bytes, "fetched_bytes": fetched, "seconds": seconds,
        "mb_per_s": bytes / seconds / 1e6, "samples_per_s": sent.samples as f64 / seconds}))
}

/// Writes everything to one node, then has it grow to three with three copies. With `by_state` the node is started
/// anew in between, after which its log is short and the others have to fetch what it has stored.
fn grow(place: &Place<'_>, steps: &[Vec<Request>], by_state: bool) -> Result<Value> {
    let mut servers = place.cluster(1, 1)?;
    let sent = send(&servers[0].address, "/api/v1/write", steps, 4)?;
    if by_state {
        servers.pop().context("one node")?.stop()?;
        servers.push(place.start(0, 1, 1)?);
        until_whole(&servers, 1)?;
    }
    for at in [1, 2] {
        servers.push(place.start(at, 1, 1)?);
    }
    until_whole(&servers, 1)?;
    let settings = Command::new(place.isobar)
        .args(["cluster", "settings", "replication-factor=3"])
        .arg(format!("--server=http://{}", servers[0].address))
        .output()?;
    ensure!(settings.status.success(), "{}", String::from_utf8_lossy(&settings.stderr));
    let seconds = until_whole(&servers, 3)?;
    let fetched = metric(&servers, "isobar_replication_fetched_bytes_total")?;
    let received = metric(&servers, "isobar_peer_received_bytes_total")?;
    Ok(
        json!({"samples": sent.samples, "fetched_bytes": fetched, "received_bytes": received, "seconds": seconds,
        "mb_per_s": received / seconds / 1e6, "samples_per_s": 2.0 * sent.samples as f64 / seconds}),
    )
}

fn measure(isobar: &str, shape: &Shape, steps: &[Vec<Request>], only_writes: bool) -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("isobar-bench-cluster-{}", std::process::id()));
    let within = |name: &str| -> Result<Place<'_>> {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Place { isobar, folder })
    };
    let (mut wrote, mut asked) = (Vec::new(), Value::Null);
    for (nodes, copies) in [(1, 1), (3, 1), (3, 3)] {
        let servers = within(&format!("write-{nodes}-{copies}"))?.cluster(nodes, copies)?;
        let mut cost = writes(&servers, steps)?;
        cost["copies"] = copies.into();
        wrote.push(cost);
        if (nodes, copies) == (3, 1) {
            asked = queries(&servers, shape)?;
        }
    }
    if only_writes {
        remove(&folder)?;
        return Ok(json!({"writes": wrote, "queries": asked}));
    }
    let caught_up = catch_up(&within("catch-up")?, steps)?;
    let grown = grow(&within("grow")?, steps, false)?;
    let grown_by_state = grow(&within("grow-by-state")?, steps, true)?;
    remove(&folder)?;
    Ok(json!({"writes": wrote, "queries": asked, "catch_up": caught_up, "grow": grown,
        "grow_by_state": grown_by_state}))
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
}

#[allow(clippy::print_stdout, reason = "the report goes to standard output")]
fn report(result: &Value) {
    let cell = |value: &Value| match value.as_f64() {
        Some(v) if v >= 100.0 => format!("{v:.0}"),
        Some(v) => format!("{v:.2}"),
        None => "-".to_owned(),
    };
    let rows = |title: &str, list: &Value, columns: &[(&str, &str)]| {
        println!("| {title} | {} |", columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
        println!("|---|{}", "---:|".repeat(columns.len()));
        for (at, row) in list.as_array().into_iter().flatten().enumerate() {
            let named = match row["expression"].as_str() {
                Some(expression) => format!("`{expression}`"),
                None if row["nodes"].is_u64() => format!("{} nodes, {} copies", row["nodes"], row["copies"]),
                None => {
                    ["by the log, a node that was away", "one node grows to three", "the same, by its state"]
                        [at]
                        .to_owned()
                }
            };
            let cells: Vec<String> = columns
                .iter()
                .map(|(_, pointer)| row.pointer(pointer).map_or("-".to_owned(), cell))
                .collect();
            println!("| {named} | {} |", cells.join(" | "));
        }
        println!();
    };
    rows(
        "writes",
        &result["writes"],
        &[
            ("CPU s per million samples, all nodes", "/cpu_s_per_million"),
            ("of it in the kernel", "/system_s_per_million"),
            ("samples an entry", "/samples_per_entry"),
            ("context switches an entry", "/switches_per_entry"),
            ("samples/s", "/samples_per_s"),
            ("p50 ms", "/p50_ms"),
            ("p99 ms", "/p99_ms"),
            ("max ms", "/max_ms"),
        ],
    );
    rows(
        "query, three nodes, one copy: bytes between nodes",
        &result["queries"],
        &[
            ("fragments", "/stats/fragmentBytes"),
            ("partials", "/stats/partialBytes"),
            ("of them moved series", "/stats/movedBytes"),
            ("series moved", "/stats/movedSeries"),
        ],
    );
    if result["catch_up"].is_null() {
        return;
    }
    rows(
        "catching up",
        &json!([result["catch_up"], result["grow"], result["grow_by_state"]]),
        &[
            ("s", "/seconds"),
            ("MB/s", "/mb_per_s"),
            ("samples/s", "/samples_per_s"),
            ("state fetched, bytes", "/fetched_bytes"),
        ],
    );
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
fn main() -> Result<()> {
    let (isobar, options, only_writes) = options()?;
    eprintln!("generating {} series × {} steps", options.shape.series, options.shape.steps);
    let mut generator = Generator::new(&options.shape);
    let mut steps = Vec::new();
    while let Some(step) = generator.next_step() {
        steps.push(step);
    }
    let mut all = Vec::new();
    for run in 0..options.runs {
        eprintln!("run {} of {}", run + 1, options.runs);
        let result = measure(&isobar, &options.shape, &steps, only_writes)?;
        println!("\n## Run {}\n", run + 1);
        report(&result);
        all.push(result);
    }
    let shape = json!({"series": options.shape.series, "steps": options.shape.steps, "interval_ms": options.shape.interval_ms,
        "batch": options.shape.batch, "seed": options.shape.seed, "connections": 4});
    std::fs::write(&options.out, serde_json::to_string_pretty(&json!({"shape": shape, "runs": all}))?)?;
    Ok(())
}
