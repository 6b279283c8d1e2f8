//! The macro run: the same generated samples to Isobar and to the peers, one server at a time, in one run.
//!
//! For each server: start on an empty folder, send the steps that create the series, send the rest, settle, time the
//! queries, restart after `kill -9`. Prints Markdown tables; writes every figure of every run as JSON to `--out`.
//!
//! Usage: `macro --isobar BIN [--prometheus BIN] [--victoria BIN] [--series N] [--steps N] [--runs N] [--out FILE]`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use benches::generate::{Generator, Request, Shape};
use benches::http::{Client, encoded};
use benches::options::Options;
use benches::process::{Server, disk_bytes};
use benches::send::send;
use serde_json::{Value, json};

/// First steps, which carry the cost of creating the series.
const CREATION_STEPS: usize = 10;

const QUERIES: &[(&str, &str)] = &[
    ("instant, count of every series", "count({__name__=~\".+\"})"),
    ("instant, last value of 20 %", "sum by (namespace) (http_requests_total)"),
    ("instant, rate of 20 %", "sum by (job) (rate(http_requests_total[5m]))"),
    ("instant, one series", "http_requests_total{instance=\"10.0.0.7:8080\",method=\"GET\",status=\"200\"}"),
    ("range, rate of 1 %", "sum by (status) (rate(http_requests_total{namespace=\"payments\"}[5m]))"),
    ("range, rate of 20 %", "sum by (job) (rate(http_requests_total[5m]))"),
    (
        "range, histogram_quantile of 30 %",
        "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    ("range, topk of sums", "topk(5, sum by (pod) (rate(node_cpu_seconds_total{mode=\"user\"}[5m])))"),
    ("range, max of last values", "max by (namespace) (container_memory_bytes{container=\"c3\"})"),
    (
        "range, ratio of two rates",
        "sum by (job) (rate(http_requests_total{status=\"500\"}[5m])) / sum by (job) (rate(http_requests_total[5m]))",
    ),
];

/// What is measured: servers by their kind, and the rest.
fn options() -> Result<(Vec<(String, String)>, Options)> {
    let mut programs = Vec::new();
    let options = Options::read(60, "benchmark.json", |flag, value| {
        let known = ["--isobar", "--prometheus", "--victoria"].contains(&flag);
        programs.extend(known.then(|| (flag[2..].to_owned(), value.to_owned())));
        known
    })?;
    if programs.is_empty() || options.shape.steps <= CREATION_STEPS {
        bail!(
            "name at least one server, for example --isobar target/release/isobar, and more than {CREATION_STEPS} steps"
        );
    }
    Ok((programs, options))
}

/// Address, ready path and arguments of a server of that kind with its data in `folder`.
fn start(kind: &str, program: &str, folder: &Path) -> Result<Server> {
    let text = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    let data = folder.join("data").display().to_string();
    let config = folder.join("empty.yml");
    std::fs::write(&config, "scrape_configs: []\n")?;
    let config = format!("--config.file={}", config.display());
    let (address, ready, args) = match kind {
        "isobar" => {
            let args = [
                &config,
                &format!("--storage.tsdb.path={data}"),
                "--web.listen-address=127.0.0.1:19190",
                "--cluster.listen-address=127.0.0.1:0",
                "--log.level=warn",
            ];
            ("127.0.0.1:19190", "/-/ready", text(&args))
        }
        "prometheus" => {
            let args = [
                &config,
                &format!("--storage.tsdb.path={data}"),
                "--web.listen-address=127.0.0.1:19191",
                "--web.enable-remote-write-receiver",
                "--storage.tsdb.retention.time=30d",
                "--log.level=warn",
            ];
            ("127.0.0.1:19191", "/-/ready", text(&args))
        }
        _ => {
            let args = [
                &format!("-storageDataPath={data}"),
                "-httpListenAddr=127.0.0.1:19192",
                "-retentionPeriod=30d",
                "-loggerLevel=WARN",
            ];
            ("127.0.0.1:19192", "/health", text(&args))
        }
    };
    Server::start(program, &args, address, ready, &folder.join("server.log"))
}

#[allow(clippy::disallowed_methods, reason = "a measuring program needs the machine's clock")]
fn queries(server: &Server, kind: &str, shape: &Shape) -> Result<Value> {
    let end = shape.start_ms + (shape.steps as i64 - 1) * shape.interval_ms;
    let start = end - (shape.steps as i64 - 20).max(4) * shape.interval_ms;
    let mut results = Vec::new();
    let mut client = Client::new(&server.address);
    for (name, expression) in QUERIES {
        let cache = if kind == "victoria" { "&nocache=1" } else { "" };
        let path = if name.starts_with("instant") {
            format!("/api/v1/query?query={}&time={}{cache}", encoded(expression), end as f64 / 1e3)
        } else {
            let (start, end) = (start as f64 / 1e3, end as f64 / 1e3);
            format!(
                "/api/v1/query_range?query={}&start={start}&end={end}&step=15{cache}",
                encoded(expression)
            )
        };
        let answer = client.get(&path).with_context(|| (*name).to_owned())?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let series = answer["data"]["result"].as_array().map_or(0, Vec::len);
        let (cpu, begun) = (server.cpu_seconds()?, Instant::now());
        let mut times = Vec::new();
        while times.len() < 7 || (begun.elapsed().as_secs_f64() < 1.0 && times.len() < 200) {
            let one = Instant::now();
            client.get(&path)?;
            times.push(one.elapsed().as_secs_f64() * 1e3);
        }
        let cpu_ms = (server.cpu_seconds()? - cpu) * 1e3 / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let slowest = times[times.len() - 1];
        results.push(json!({"query": name, "expression": expression, "series": series, "median_ms": median,
            "max_ms": slowest, "cpu_ms": cpu_ms, "repetitions": times.len()}));
    }
    Ok(Value::Array(results))
}

#[allow(clippy::disallowed_methods, reason = "a measuring program needs the machine's clock")]
fn measure(kind: &str, program: &str, shape: &Shape, steps: &[Vec<Request>]) -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("isobar-bench-{}-{kind}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let server = start(kind, program, &folder)?;
    let command = server.command.clone();
    let empty_rss = server.memory("VmRSS")?;

    let cpu = server.cpu_seconds()?;
    let created = send(&server.address, "/api/v1/write", &steps[..CREATION_STEPS], 4)?;
    server.settle(1.0)?;
    let creation_cpu = server.cpu_seconds()? - cpu;

    let cpu = server.cpu_seconds()?;
    let main = send(&server.address, "/api/v1/write", &steps[CREATION_STEPS..], 4)?;
    let during = server.cpu_seconds()? - cpu;
    server.settle(3.0)?;
    let main_cpu = server.cpu_seconds()? - cpu;
    let rss = server.memory("VmRSS")?;
    let peak = server.memory("VmHWM")?;
    let disk = disk_bytes(&folder.join("data"))?;
    let queries = queries(&server, kind, shape)?;

    server.kill()?;
    let begun = Instant::now();
    let server = start(kind, program, &folder)?;
    let ready_s = begun.elapsed().as_secs_f64();
    let end = (shape.start_ms + (shape.steps as i64 - 1) * shape.interval_ms) as f64 / 1e3 + 14.0;
    let path = format!("/api/v1/query?query={}&time={end}", encoded("count({__name__=~\".+\"})"));
    let wanted = format!("\"{}\"", shape.series / 100 * 100);
    loop {
        let answer = Client::new(&server.address).get(&path).unwrap_or_default();
        if String::from_utf8_lossy(&answer).contains(&wanted) {
            break;
        }
        if begun.elapsed().as_secs() > 120 {
            bail!("{kind}: no right count within 120 s of the restart: {}", String::from_utf8_lossy(&answer));
        }
    }
    let first_answer_s = begun.elapsed().as_secs_f64();
    server.stop()?;
    std::fs::remove_dir_all(&folder)?;

    let series = (shape.series / 100 * 100) as f64;
    Ok(json!({
        "server": kind, "command": command, "series": series,
        "creation": {"samples": created.samples, "cpu_s_per_million": creation_cpu / created.samples as f64 * 1e6},
        "main": {"samples": main.samples, "samples_per_s": main.samples as f64 / main.seconds,
            "cpu_s_per_million": main_cpu / main.samples as f64 * 1e6,
            "cpu_s_per_million_while_sending": during / main.samples as f64 * 1e6,
            "p50_ms": main.latency(0.5), "p99_ms": main.latency(0.99), "max_ms": main.latency(1.0), "retries": main.retries},
        "memory": {"empty_rss": empty_rss, "settled_rss": rss, "peak_rss": peak, "rss_bytes_per_series": rss as f64 / series},
        "disk_bytes_per_sample": disk as f64 / (created.samples + main.samples) as f64,
        "queries": queries,
        "restart_after_kill": {"ready_s": ready_s, "first_right_answer_s": first_answer_s},
    }))
}

fn version(kind: &str, program: &str) -> String {
    let flag = if kind == "isobar" { "version" } else { "--version" };
    let output = std::process::Command::new(program).arg(flag).output();
    output.map_or_else(
        |e| e.to_string(),
        |o| {
            let text = if o.stdout.is_empty() { o.stderr } else { o.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or("").to_owned()
        },
    )
}

#[allow(clippy::print_stdout, reason = "the report goes to standard output")]
fn report(results: &[Value]) {
    let cell = |value: &Value| {
        value
            .as_f64()
            .map_or("-".to_owned(), |v| if v >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") })
    };
    println!(
        "| ingest | {} |",
        results.iter().map(|r| r["server"].as_str().unwrap_or("?")).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}", "---:|".repeat(results.len()));
    let rows = [
        ("CPU s per million samples, creating the series", "/creation/cpu_s_per_million"),
        ("CPU s per million samples, then", "/main/cpu_s_per_million"),
        ("samples/s taken", "/main/samples_per_s"),
        ("latency p50, ms", "/main/p50_ms"),
        ("latency p99, ms", "/main/p99_ms"),
        ("latency max, ms", "/main/max_ms"),
        ("RSS per active series, bytes", "/memory/rss_bytes_per_series"),
        ("bytes on disk per sample, not forced to merge", "/disk_bytes_per_sample"),
        ("restart after kill -9: first right answer, s", "/restart_after_kill/first_right_answer_s"),
    ];
    for (title, pointer) in rows {
        let cells: Vec<String> =
            results.iter().map(|r| r.pointer(pointer).map_or("-".to_owned(), cell)).collect();
        println!("| {title} | {} |", cells.join(" | "));
    }
    println!(
        "\n| query: median ms / CPU ms | {} |",
        results.iter().map(|r| r["server"].as_str().unwrap_or("?")).collect::<Vec<_>>().join(" | ")
    );
    println!("|---|{}", "---:|".repeat(results.len()));
    for (at, (name, _)) in QUERIES.iter().enumerate() {
        let cells: Vec<String> = results
            .iter()
            .map(|r| {
                format!("{} / {}", cell(&r["queries"][at]["median_ms"]), cell(&r["queries"][at]["cpu_ms"]))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
fn main() -> Result<()> {
    let (programs, options) = options()?;
    eprintln!("generating {} series × {} steps", options.shape.series, options.shape.steps);
    let mut generator = Generator::new(&options.shape);
    let mut steps = Vec::new();
    while let Some(step) = generator.next_step() {
        steps.push(step);
    }
    let versions: BTreeMap<&str, String> =
        programs.iter().map(|(kind, program)| (kind.as_str(), version(kind, program))).collect();
    let mut all = Vec::new();
    for run in 0..options.runs {
        let mut results = Vec::new();
        for (kind, program) in &programs {
            eprintln!("run {} of {}: {kind}", run + 1, options.runs);
            results.push(measure(kind, program, &options.shape, &steps)?);
        }
        println!("\n## Run {}\n", run + 1);
        report(&results);
        all.push(results);
    }
    let shape = json!({"series": options.shape.series, "steps": options.shape.steps, "interval_ms": options.shape.interval_ms,
        "batch": options.shape.batch, "seed": options.shape.seed, "connections": 4});
    let file = json!({"shape": shape, "versions": versions, "runs": all});
    std::fs::write(&options.out, serde_json::to_string_pretty(&file)?)?;
    Ok(())
}
