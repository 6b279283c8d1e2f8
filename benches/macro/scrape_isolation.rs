//! Whether hostile targets slow the scrapes of others: a node scrapes 200 good targets, with and without 20 hostile ones,
//! in turns, by reloads of its configuration; what its scrapes took is read from its own `scrape_duration_seconds`.
//!
//! A quarter of the hostile ones each: a body without end, a body that drips, a gzip bomb, a line without end. The targets
//! are served by this process on the same machine, so that serving hostile ones costs the node's cores too.
//!
//! `cargo bench -p benches --bench scrape_isolation [-- SECONDS_A_TURN]`, with the program of `ISOBAR_BIN`, or else
//! `target/release/isobar`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::{Client, encoded};
use benches::process::Server;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const GOOD: usize = 200;
const HOSTILE: usize = 20;
const SERIES: usize = 500;
const INTERVAL: u64 = 5;
const TURNS: usize = 4;

/// The answers that are made once.
struct Answers {
    good: Vec<u8>,
    bomb: Vec<u8>,
}

fn answers() -> Result<Answers> {
    let mut body = String::from("# TYPE requests_total counter\n");
    for i in 0..SERIES {
        body.push_str(&format!(
            "requests_total{{path=\"/api/v1/thing/{i}\",method=\"GET\",code=\"200\"}} {i}\n"
        ));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..256 {
        encoder.write_all(&[b'#'; 1 << 20])?;
    }
    let packed = encoder.finish()?;
    let head = |length: usize, more: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {length}\r\n{more}\r\n"
        )
    };
    Ok(Answers {
        good: [head(body.len(), "").into_bytes(), body.into_bytes()].concat(),
        bomb: [head(packed.len(), "content-encoding: gzip\r\n").into_bytes(), packed].concat(),
    })
}

async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    while let Ok((stream, _)) = listener.accept().await {
        let answers = Arc::clone(&answers);
        // A scraper that hangs up on a hostile target is what is wanted.
        tokio::spawn(async move { drop(connection(stream, &answers).await) });
    }
}

async fn connection(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\r\n";
    let mut request = Vec::new();
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        if request.starts_with(b"GET /endless ") {
            stream.write_all(ENDLESS).await?;
            let piece = b"a 1\n".repeat(4096);
            loop {
                stream.write_all(&piece).await?;
            }
        }
        if request.starts_with(b"GET /line ") {
            stream.write_all(ENDLESS).await?;
            let piece = vec![b'a'; 64 << 10];
            loop {
                stream.write_all(&piece).await?;
            }
        }
        if request.starts_with(b"GET /drip ") {
            stream.write_all(ENDLESS).await?;
            loop {
                stream.write_all(b"#").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let bomb = request.starts_with(b"GET /bomb ");
        stream.write_all(if bomb { &answers.bomb } else { &answers.good }).await?;
    }
}

/// A job as the configuration has it.
fn job(name: &str, path: &str, targets: &[SocketAddr]) -> String {
    let targets: Vec<String> = targets.iter().map(|address| format!("'{address}'")).collect();
    let targets = targets.join(", ");
    format!(
        "  - job_name: {name}\n    metrics_path: {path}\n    static_configs: [{{targets: [{targets}]}}]\n"
    )
}

/// The value below which a share of `sorted` lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// The values of a range selector's series, at now.
fn samples(node: &Server, selector: &str) -> Result<Vec<f64>> {
    let path = format!("/api/v1/query?query={}", encoded(selector));
    let answer: Value = serde_json::from_slice(&Client::new(&node.address).get(&path)?)?;
    let series = answer["data"]["result"].as_array().context("a matrix")?;
    let values = series.iter().flat_map(|s| s["values"].as_array().into_iter().flatten());
    values.map(|pair| pair[1].as_str().context("a value")?.parse().context("a number")).collect()
}

async fn run(program: &str, turn: u64) -> Result<()> {
    let answers = Arc::new(answers()?);
    let mut addresses = Vec::new();
    for _ in 0..GOOD + HOSTILE {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        tokio::spawn(serve(listener, Arc::clone(&answers)));
    }
    let (good, hostile) = addresses.split_at(GOOD);
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    let head =
        format!("global: {{scrape_interval: {INTERVAL}s, scrape_timeout: {INTERVAL}s}}\nscrape_configs:\n");
    let alone = head + &job("good", "/metrics", good);
    let mut with = alone.clone();
    for (targets, path) in hostile.chunks(HOSTILE / 4).zip(["/endless", "/drip", "/bomb", "/line"]) {
        with.push_str(&job(&path[1..], path, targets));
    }
    std::fs::write(&config, &alone)?;
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").await?;
        free.local_addr()?.to_string()
    };
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", folder.path().join("data").display()),
        format!("--web.listen-address={address}"),
        "--cluster.listen-address=127.0.0.1:0".into(),
        "--web.enable-lifecycle".into(),
    ];
    let (program, log) = (program.to_owned(), folder.path().join("log"));
    let node =
        tokio::task::spawn_blocking(move || Server::start(&program, &args, &address, "/-/ready", &log));
    let node = node.await??;
    let mut taken: [Vec<f64>; 2] = Default::default();
    let mut failed = [0; 2];
    for number in 0..2 * TURNS {
        let which = number % 2;
        std::fs::write(&config, if which == 1 { &with } else { &alone })?;
        let (status, body) = Client::new(&node.address).request("POST", "/-/reload", &[], &[])?;
        if status != 200 {
            bail!("reload: {status} {}", String::from_utf8_lossy(&body));
        }
        // What was begun under the other configuration is left out.
        tokio::time::sleep(Duration::from_secs(2 * INTERVAL + turn)).await;
        taken[which]
            .append(&mut samples(&node, &format!("scrape_duration_seconds{{job=\"good\"}}[{turn}s]"))?);
        failed[which] +=
            samples(&node, &format!("up{{job=\"good\"}}[{turn}s]"))?.iter().filter(|v| **v != 1.0).count();
        if which == 1 {
            let down = samples(&node, &format!("up{{job!=\"good\"}}[{turn}s]"))?;
            ensure!(
                down.len() >= HOSTILE && down.iter().all(|v| *v == 0.0),
                "the hostile ones were not scraped, or fail not"
            );
        }
    }
    println!("CPU of the node: {:.1} s", node.cpu_seconds()?);
    println!("its memory at most: {} MiB", node.memory("VmHWM")? >> 20);
    node.stop()?;
    let mut p99 = [0.0; 2];
    for (which, name) in ["alone", "with 20 hostile targets"].into_iter().enumerate() {
        let values = &mut taken[which];
        ensure!(values.len() >= GOOD, "{} scrapes of good targets {name}", values.len());
        values.sort_by(f64::total_cmp);
        p99[which] = quantile(values, 0.99);
        println!(
            "{name}: {} scrapes, {} failed, p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            values.len(),
            failed[which],
            quantile(values, 0.5) * 1e3,
            quantile(values, 0.9) * 1e3,
            p99[which] * 1e3,
            quantile(values, 1.0) * 1e3
        );
    }
    println!("p99 moved by {:+.1} %", (p99[1] / p99[0] - 1.0) * 100.0);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the program under measurement is named by the environment")]
fn main() -> Result<()> {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(30);
    let program = std::env::var("ISOBAR_BIN").unwrap_or_else(|_| {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/isobar");
        built.display().to_string()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&program, seconds))
}
