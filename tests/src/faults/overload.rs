//! F15: ten times the writes or queries, clients that are slow or do nothing, and storms of new connections. The load goes
//! on meanwhile; what is too much is refused at once, with the word when to come again; no node ends or grows without
//! bound (I25, I11).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use benches::http::{Client, encoded};
use model::seam::{Clock as _, SystemClock};

use super::{RESUME, number, resumes};
use crate::limits::memory_of;
use crate::oracle::write_body;
use crate::scenario::Scenario;

/// Clients of a storm, for all nodes together.
const CLIENTS: usize = 30;
/// How long a storm lasts at least.
const STORM: Duration = Duration::from_secs(2);
/// Within which time everything is refused that is refused: writes wait for 10 s at most, and a node may be busy.
const REFUSED: Duration = Duration::from_secs(15);
/// More memory than any node may have in a storm.
const MOST_MEMORY: u64 = 1 << 30;
/// Connections that do nothing, for all nodes together.
const IDLE: usize = 10_000;
/// Connections that a node may have at a time (`--web.max-connections`).
const MOST_CONNECTIONS: u64 = 512;
/// Connections with half a request, a node.
const SLOW: usize = 200;
/// Connections whose answers are not read, a node.
const UNREAD: usize = 5;
/// Series of one request of a storm of writes.
const SERIES: u64 = 500;

/// What clients of a storm were told.
#[derive(Debug, Default)]
struct Told {
    done: AtomicU64,
    refused: AtomicU64,
}

/// Has `client` called by many threads, with the number of the thread and of the call, until the load has gone on; gives what
/// they were told. A client gives the status of an answer, and whether it says when to come again.
fn storm(s: &Scenario, client: impl Fn(&mut Client, u64, u64) -> Result<(u16, bool)> + Sync) -> Result<Told> {
    let (told, over) = (Told::default(), AtomicBool::new(false));
    let addresses: Vec<String> =
        (0..s.cluster.len()).map(|at| Ok(s.cluster.node(at)?.address.clone())).collect::<Result<_>>()?;
    let outcome = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|thread| {
                let (told, over, client) = (&told, &over, &client);
                let address = &addresses[thread % addresses.len()];
                scope.spawn(move || -> Result<()> {
                    let clock = SystemClock::new();
                    let mut connection = Client::new(address).with_patience(REFUSED * 2);
                    for call in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let asked = clock.monotonic();
                        // A connection may be closed for others; that is no answer.
                        let Ok((status, again)) = client(&mut connection, thread as u64, call) else {
                            continue;
                        };
                        let took = clock.monotonic() - asked;
                        match status {
                            200..300 => told.done.fetch_add(1, Ordering::Relaxed),
                            503 if again => told.refused.fetch_add(1, Ordering::Relaxed),
                            _ => anyhow::bail!("I25: it was answered {status}, when to come again: {again}"),
                        };
                        ensure!(status < 300 || took < REFUSED, "I11: it was refused after {took:?}");
                    }
                    Ok(())
                })
            })
            .collect();
        let begun = s.clock.monotonic();
        let mut outcome = Ok(());
        while outcome.is_ok() && s.clock.monotonic() - begun < STORM {
            outcome = s.load.wait(&s.load.mark(), 1, 1, RESUME);
        }
        over.store(true, Ordering::Relaxed);
        let ended = clients
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked"))));
        outcome.and(ended.collect::<Result<()>>())
    });
    outcome?;
    Ok(told)
}

/// Nodes run and have not grown too large; the load goes on as before.
fn is_well(s: &mut Scenario) -> Result<()> {
    for at in 0..s.cluster.len() {
        ensure!(s.cluster.runs(at)?, "I25: node {at} has ended");
        let memory = memory_of(s.cluster.node(at)?.pid())?;
        ensure!(memory < MOST_MEMORY, "I25: node {at} has {memory} bytes of memory");
    }
    resumes(s)
}

/// Ten times the samples of the load, and more: gives how many requests were stored or refused.
pub(super) fn writes(s: &mut Scenario) -> Result<u64> {
    let before = s.load.mark();
    // Early enough for nodes whose clocks are an hour slow: what is far ahead of a clock is refused for good.
    let from = s.clock.now_ms() - 3 * 3_600_000;
    let told = storm(s, |client, thread, call| {
        let series = (0..SERIES).map(|n| {
            let labels = vec![
                ("__name__", "storm".to_owned()),
                ("instance", format!("storm-{}", n % 20)),
                ("job", "storm".to_owned()),
                ("n", format!("{thread}-{n}")),
            ];
            (labels, (0..4).map(|at| (from + (call * 4 + at) as i64 * 100, (call + n) as f64)).collect())
        });
        let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
        let answer = client.exchange("POST", "/api/v1/write", &headers, &write_body(series))?;
        Ok((answer.status, answer.header("retry-after").is_some()))
    })?;
    let (done, refused) = (told.done.into_inner(), told.refused.into_inner());
    let usual = s.load.acked_since(&before) * 14;
    let stormed = done * SERIES * 4;
    ensure!(
        stormed > usual * 10 || refused > 0,
        "{stormed} samples in a storm, {usual} beside it, none refused"
    );
    is_well(s)?;
    Ok(done + refused)
}

/// Thirty clients that ask for much: gives how many queries were answered or refused.
pub(super) fn queries(s: &mut Scenario) -> Result<u64> {
    let end = s.clock.now_ms() / 1000;
    let query = encoded("sum by (n) (rate(oracle[5m])) / count(oracle)");
    let path = format!("/api/v1/query_range?query={query}&start={}&end={end}&step=3", end - 9_000);
    let before = s.load.mark().reads;
    let told = storm(s, |client, _, _| {
        let answer = client.exchange("GET", &path, &[], &[])?;
        Ok((answer.status, answer.header("retry-after").is_some()))
    })?;
    let (done, refused) = (told.done.into_inner(), told.refused.into_inner());
    let usual = s.load.mark().reads - before;
    ensure!(done + refused > usual, "{done} queries answered, {refused} refused, {usual} beside them");
    is_well(s)?;
    Ok(done + refused)
}

/// Opens `count` connections to each node, and sends `text` over each.
fn open(s: &Scenario, count: usize, text: &str) -> Result<Vec<TcpStream>> {
    let mut all = Vec::new();
    for at in 0..s.cluster.len() {
        let address = &s.cluster.node(at)?.address;
        for _ in 0..count {
            let mut stream = TcpStream::connect(address)?;
            stream.set_write_timeout(Some(Duration::from_secs(5)))?;
            // The node may have closed it for others already.
            let _ = stream.write_all(text.as_bytes());
            all.push(stream);
        }
    }
    Ok(all)
}

/// Clients that send half a head, half a body, or do not read their answers, and a byte now and then.
pub(super) fn slow_clients(s: &mut Scenario) -> Result<u64> {
    let mut slow = open(s, SLOW, "GET /api/v1/query?query=up HTTP/1.1\r\nHost: ")?;
    slow.extend(open(s, SLOW, "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")?);
    // Few: until nothing more fits between the two ends each of them costs as much as a client that reads.
    slow.extend(open(s, UNREAD, &"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200))?);
    for _ in 0..3 {
        for stream in &mut slow {
            stream.set_nonblocking(true)?;
            // What is full or closed takes none.
            let _ = stream.write(b"x");
        }
        resumes(s)?;
    }
    let count = slow.len() as u64;
    drop(slow);
    is_well(s)?;
    Ok(count)
}

/// Ten thousand connections on which nothing is asked: others get in all the same.
pub(super) fn idle_clients(s: &mut Scenario) -> Result<u64> {
    let idle = open(s, IDLE / s.cluster.len(), "")?;
    resumes(s)?;
    for at in 0..s.cluster.len() {
        let open = number(s, at, "isobar_http_connections")?;
        ensure!(open <= MOST_CONNECTIONS, "node {at} has {open} connections");
    }
    let count = idle.len() as u64;
    drop(idle);
    is_well(s)?;
    Ok(count)
}

/// Clients that connect, ask, and hang up, again and again; every third does not wait for the answer.
pub(super) fn reconnects(s: &mut Scenario) -> Result<u64> {
    let addresses: Vec<String> =
        (0..s.cluster.len()).map(|at| Ok(s.cluster.node(at)?.address.clone())).collect::<Result<_>>()?;
    let told = storm(s, |_, thread, call| {
        let mut stream = TcpStream::connect(&addresses[thread as usize % addresses.len()])?;
        stream.set_read_timeout(Some(REFUSED))?;
        stream.write_all(b"GET /api/v1/labels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        if call % 3 == 0 {
            stream.shutdown(Shutdown::Both)?;
            anyhow::bail!("nobody waits for the answer");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).unwrap_or("0").parse()?;
        Ok((status, answer.to_ascii_lowercase().contains("retry-after:")))
    })?;
    let (done, refused) = (told.done.into_inner(), told.refused.into_inner());
    ensure!(done > 0, "no client of the storm was answered, {refused} were refused");
    is_well(s)?;
    Ok(done + refused)
}
