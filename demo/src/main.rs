//! Three small services to monitor: `teleprompter` (8000), `task-worker` (8001), `edge-gateway` (8002).
//!
//! Each serves `/metrics` in text format 0.0.4 with counters, gauges and classic histograms. Their load is a function
//! of time and a fixed seed: slow waves, noise, a burst of errors in every fifth minute. Used by `make demo` and by
//! the end-to-end test; nothing here is part of the product.
//!
//! Usage: `example-services [PORT [PORT [PORT]]]`; port 0 takes a free one. The addresses are printed, one a line.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// A classic histogram.
#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(value <= bound);
        }
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (count, bound) in self.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
    }
}

/// The state of one service: work done per endpoint, and gauges.
#[derive(Default)]
struct State {
    done_until: f64,
    random: u64,
    requests: Vec<[u64; 2]>,
    latency: Vec<Histogram>,
    cache_hits: u64,
    cache_misses: u64,
    queue: f64,
}

/// What tells one service from another.
struct Service {
    job: &'static str,
    endpoints: [&'static str; 3],
    requests_per_second: f64,
    base_latency: f64,
}

const SERVICES: [Service; 3] = [
    Service {
        job: "teleprompter",
        endpoints: ["/scroll", "/cue", "/health"],
        requests_per_second: 40.0,
        base_latency: 0.02,
    },
    Service {
        job: "task-worker",
        endpoints: ["render", "encode", "notify"],
        requests_per_second: 12.0,
        base_latency: 0.2,
    },
    Service {
        job: "edge-gateway",
        endpoints: ["/api/login", "/api/items", "/static"],
        requests_per_second: 90.0,
        base_latency: 0.008,
    },
];

impl State {
    /// A number in 0..1 (xorshift: the demo needs repeatable noise, not good randomness).
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Does the work of the time up to `now` seconds, in steps of a tenth of a second.
    fn catch_up(&mut self, service: &Service, now: f64) {
        while self.done_until + 0.1 <= now {
            self.done_until += 0.1;
            let wave = 1.0 + 0.5 * (self.done_until / 60.0).sin();
            let failing = (self.done_until / 60.0) as u64 % 5 == 4;
            let mut wanted = service.requests_per_second * wave / 10.0;
            while wanted > 0.0 && self.random() < wanted {
                wanted -= 1.0;
                let endpoint = (self.random() * 3.0) as usize % 3;
                let error = self.random() < if failing { 0.2 } else { 0.01 };
                self.requests[endpoint][usize::from(error)] += 1;
                let seconds = service.base_latency * wave * (0.3 - (1.0 - self.random()).ln());
                self.latency[endpoint].observe(seconds);
                if self.random() < 0.85 { self.cache_hits += 1 } else { self.cache_misses += 1 }
            }
            self.queue = (self.queue + (self.random() - 0.48) * 4.0 * wave).clamp(0.0, 500.0);
        }
    }

    fn metrics(&self, service: &Service) -> String {
        let mut out = String::with_capacity(8 << 10);
        out.push_str("# HELP http_requests_total Requests by endpoint and status.\n# TYPE http_requests_total counter\n");
        for (endpoint, [ok, errors]) in service.endpoints.iter().zip(&self.requests) {
            let _ = writeln!(out, "http_requests_total{{endpoint=\"{endpoint}\",status=\"200\"}} {ok}");
            let _ = writeln!(out, "http_requests_total{{endpoint=\"{endpoint}\",status=\"500\"}} {errors}");
        }
        out.push_str("# HELP http_request_duration_seconds Time to answer.\n# TYPE http_request_duration_seconds histogram\n");
        for (endpoint, histogram) in service.endpoints.iter().zip(&self.latency) {
            histogram.write(&mut out, "http_request_duration_seconds", &format!("endpoint=\"{endpoint}\""));
        }
        let ratio = self.cache_hits as f64 / (self.cache_hits + self.cache_misses).max(1) as f64;
        let _ =
            writeln!(out, "# HELP rabbitmq_queue_size Messages waiting.\n# TYPE rabbitmq_queue_size gauge");
        let _ = writeln!(out, "rabbitmq_queue_size{{queue=\"{}\"}} {}", service.job, self.queue.round());
        let _ =
            writeln!(out, "# HELP cache_hit_ratio Share of look-ups that hit.\n# TYPE cache_hit_ratio gauge");
        let _ = writeln!(out, "cache_hit_ratio {ratio}");
        let _ = writeln!(out, "# HELP cache_hits_total Look-ups that hit.\n# TYPE cache_hits_total counter");
        let _ = writeln!(out, "cache_hits_total {}", self.cache_hits);
        let _ = writeln!(
            out,
            "# HELP cache_misses_total Look-ups that missed.\n# TYPE cache_misses_total counter"
        );
        let _ = writeln!(out, "cache_misses_total {}", self.cache_misses);
        out
    }
}

fn answer(stream: &TcpStream, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, body) = if request.starts_with("GET /metrics") {
        ("200 OK", body)
    } else {
        ("404 Not Found", "see /metrics\n")
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program of its own"
)]
fn main() -> std::io::Result<()> {
    let mut ports: Vec<u16> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for default in [8000, 8001, 8002].into_iter().skip(ports.len()) {
        ports.push(default);
    }
    let started = Instant::now();
    let mut threads = Vec::new();
    for (number, (service, port)) in SERVICES.iter().zip(ports).enumerate() {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        println!("{} {}", service.job, listener.local_addr()?);
        let state = Arc::new(Mutex::new(State {
            random: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1),
            requests: vec![[0; 2]; 3],
            latency: (0..3).map(|_| Histogram::default()).collect(),
            queue: 20.0,
            ..State::default()
        }));
        threads.push(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let body = {
                    let mut state = state.lock().expect("no holder of this lock panics");
                    state.catch_up(service, started.elapsed().as_secs_f64());
                    state.metrics(service)
                };
                if let Err(error) = answer(&stream, &body) {
                    eprintln!("{}: a request failed: {error}", service.job);
                }
            }
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}
