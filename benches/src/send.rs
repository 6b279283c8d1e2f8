//! Replays generated bodies over several keep-alive connections and measures.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::generate::Request;
use crate::http::Client;

/// What a send took.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Samples acknowledged.
    pub samples: u64,
    /// Wall time.
    pub seconds: f64,
    /// Latency of every request, ms, ascending.
    pub latencies_ms: Vec<f64>,
    /// Requests answered 429 or 5xx and sent again.
    pub retries: u64,
}

impl Sent {
    /// The `quantile` (0 to 1) of the latencies, ms.
    pub fn latency(&self, quantile: f64) -> f64 {
        let last = self.latencies_ms.len().saturating_sub(1);
        self.latencies_ms.get((last as f64 * quantile) as usize).copied().unwrap_or(0.0)
    }
}

/// Sends `steps` (each a list of requests) to `path` of `address`. A request group keeps to one connection, so that
/// every series arrives in order.
#[allow(clippy::disallowed_methods, reason = "a measuring program needs the machine's clock")]
pub fn send(address: &str, path: &str, steps: &[Vec<Request>], connections: usize) -> Result<Sent> {
    let begun = Instant::now();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for connection in 0..connections {
            let sender = sender.clone();
            scope.spawn(move || {
                let mine = steps.iter().flat_map(|step| step.iter().skip(connection).step_by(connections));
                // The receiver outlives this thread.
                let _ = sender.send(send_some(address, path, mine));
            });
        }
    });
    drop(sender);
    let mut all = Sent::default();
    for part in receiver {
        let part = part?;
        all.samples += part.samples;
        all.retries += part.retries;
        all.latencies_ms.extend(part.latencies_ms);
    }
    all.latencies_ms.sort_by(f64::total_cmp);
    all.seconds = begun.elapsed().as_secs_f64();
    Ok(all)
}

#[allow(clippy::disallowed_methods, reason = "a measuring program needs the machine's clock")]
fn send_some<'a>(address: &str, path: &str, requests: impl Iterator<Item = &'a Request>) -> Result<Sent> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let mut client = Client::new(address);
    let mut sent = Sent::default();
    for request in requests {
        let mut tries = 0;
        loop {
            let begun = Instant::now();
            let (status, body) = client.request("POST", path, &headers, &request.body)?;
            sent.latencies_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            match status {
                200..300 => break,
                429 | 500.. if tries < 100 => {
                    tries += 1;
                    sent.retries += 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
                _ => bail!("{path}: {status} {}", String::from_utf8_lossy(&body[..body.len().min(300)])),
            }
        }
        sent.samples += request.samples;
    }
    Ok(sent)
}
