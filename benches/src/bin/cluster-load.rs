//! The load of `make demo-cluster`: writes to and queries of a cluster, through the loss of nodes, with an account at its
//! end.
//!
//! It writes a step of generated samples every half second and queries all the time. A node that refuses connections or
//! breaks one is left for the next, as a load balancer does; an answer that is an error, or counts fewer samples than were
//! acknowledged before the question, is a failed query. At its end every acknowledged sample must be counted once.
//!
//! Usage: `cluster-load SECONDS HOST:PORT HOST:PORT HOST:PORT`. Exit code 1 when a query failed or a sample is missing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use benches::generate::{Generator, Shape};
use benches::http::{Client, encoded};
use serde_json::Value;

const STEP: Duration = Duration::from_millis(500);
const SERIES: usize = 1000;
/// How long one request may be tried at all nodes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Account {
    acked: AtomicU64,
    queries: AtomicU64,
    failed: AtomicU64,
    elsewhere: AtomicU64,
    longest_write_ms: AtomicU64,
    done: AtomicBool,
}

/// Clients of all nodes, of which one is in use.
struct Nodes {
    clients: Vec<Client>,
    at: usize,
}

impl Nodes {
    fn new(addresses: &[String], at: usize) -> Self {
        let client = |address: &String| Client::new(address).with_patience(Duration::from_secs(15));
        Self { clients: addresses.iter().map(client).collect(), at }
    }

    fn next(&mut self, account: &Account) {
        self.at = (self.at + 1) % self.clients.len();
        account.elsewhere.fetch_add(1, Ordering::Relaxed);
    }
}

#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measuring program reads the clock, keeps a pace and prints"
)]
fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().context("usage: cluster-load SECONDS HOST:PORT...")?.parse()?;
    let addresses: Vec<String> = args.collect();
    ensure!(!addresses.is_empty(), "usage: cluster-load SECONDS HOST:PORT...");
    let account = Account::default();
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..2)
            .map(|number| {
                let (addresses, account) = (&addresses, &account);
                scope.spawn(move || {
                    let mut nodes = Nodes::new(addresses, number + 1);
                    while !account.done.load(Ordering::Relaxed) {
                        read(&mut nodes, account);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                })
            })
            .collect();
        let written = write(&addresses, seconds, &account);
        account.done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        }
        written
    })?;
    let acked = account.acked.load(Ordering::Relaxed);
    let mut nodes = Nodes::new(&addresses, 0);
    let kept = count(&mut nodes, &account)?;
    let failed = account.failed.load(Ordering::Relaxed);
    println!("samples acknowledged:      {acked}");
    println!("samples lost:              {}", acked.saturating_sub(kept));
    println!("samples doubled:           {}", kept.saturating_sub(acked));
    println!(
        "longest write:             {:.2} s",
        account.longest_write_ms.load(Ordering::Relaxed) as f64 / 1e3
    );
    println!("queries answered:          {}", account.queries.load(Ordering::Relaxed));
    println!("queries failed:            {failed}");
    println!("requests sent to the next node: {}", account.elsewhere.load(Ordering::Relaxed));
    ensure!(failed == 0 && kept == acked, "the cluster lost something");
    Ok(())
}

/// Writes a step every half second, each request until it is acknowledged.
#[allow(clippy::disallowed_methods, reason = "a measuring program reads the clock and keeps a pace")]
fn write(addresses: &[String], seconds: u64, account: &Account) -> Result<()> {
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let steps = usize::try_from(seconds)? * 1000 / STEP.as_millis() as usize;
    let interval_ms = STEP.as_millis() as i64;
    let shape =
        Shape { series: SERIES, steps, interval_ms, start_ms: now_ms, batch: 500, seed: now_ms as u64 };
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let mut generator = Generator::new(&shape);
    let mut nodes = Nodes::new(addresses, 0);
    let begun = Instant::now();
    for number in 0u32.. {
        let Some(requests) = generator.next_step() else { break };
        for request in requests {
            let sent = Instant::now();
            loop {
                let at = nodes.at;
                match nodes.clients[at].request("POST", "/api/v1/write", &headers, &request.body) {
                    Ok((status, _)) if (200..300).contains(&status) => break,
                    Ok((status, body)) if (400..500).contains(&status) => {
                        bail!("a write was refused for good: {status} {}", String::from_utf8_lossy(&body))
                    }
                    Ok(_) | Err(_) => nodes.next(account),
                }
                ensure!(sent.elapsed() < PATIENCE, "a write was not acknowledged within {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
            account.acked.fetch_add(request.samples, Ordering::SeqCst);
            account.longest_write_ms.fetch_max(sent.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        let due = STEP * (number + 1);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(())
}

/// One query of how many samples there are: at least those that were acknowledged before it was sent.
fn read(nodes: &mut Nodes, account: &Account) {
    let before = account.acked.load(Ordering::SeqCst);
    match count(nodes, account) {
        Ok(found) if found >= before => account.queries.fetch_add(1, Ordering::Relaxed),
        Ok(_) | Err(_) => account.failed.fetch_add(1, Ordering::Relaxed),
    };
}

/// How many samples the cluster counts, asked at the next node as long as one cannot be talked to.
fn count(nodes: &mut Nodes, account: &Account) -> Result<u64> {
    // Samples of a step lie up to a tenth of a second ahead of it.
    let expression = "sum(count_over_time({cluster=\"bench\"}[1h] offset -1m))";
    let path = format!("/api/v1/query?query={}", encoded(expression));
    let mut last = None;
    for _ in 0..nodes.clients.len() * 2 {
        let at = nodes.at;
        match nodes.clients[at].request("GET", &path, &[], &[]) {
            Ok((200, body)) => {
                let answer: Value = serde_json::from_slice(&body)?;
                let value = &answer["data"]["result"][0]["value"][1];
                return Ok(value.as_str().unwrap_or("0").parse::<f64>()? as u64);
            }
            Ok((status, body)) => bail!("{status}: {}", String::from_utf8_lossy(&body)),
            Err(error) => {
                last = Some(error);
                nodes.next(account);
            }
        }
    }
    Err(last.context("no node")?.context("no node answers"))
}
