//! Hostile targets: each costs only its own scrapes, which fail with a reason. `docs/bad-input.md` has these rows; a test
//! compares them.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::node::Node;
use tests::remote_write::Fields;

/// Memory that all of them together may take at their highest: the limit of a body here times their number, and room.
const MAX_GROWTH_KB: u64 = 128 << 10;

/// What a target answers, and what its page says of it.
struct Target {
    name: &'static str,
    head: &'static str,
    /// The body, and how often it comes; for ever when 0.
    body: Vec<u8>,
    times: usize,
    /// Part of the error of its scrape.
    error: &'static str,
}

fn targets() -> Vec<Target> {
    const TEXT: &str = "content-type: text/plain; version=0.0.4\r\n";
    const OPEN: &str = "content-type: application/openmetrics-text; version=1.0.0\r\n";
    const PROTOBUF: &str = "content-type: application/vnd.google.protobuf; \
                            proto=io.prometheus.client.MetricFamily; encoding=delimited\r\n";
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..64 {
            // Writing to memory does not fail.
            let _ = encoder.write_all(&vec![b'#'; 1 << 20]);
        }
        encoder.finish().unwrap_or_default()
    };
    let text = |name, body: &[u8], error| Target { name, head: TEXT, body: body.to_vec(), times: 1, error };
    let mut bad_histogram = Fields::default();
    // A span that is longer than its buckets.
    let span = Fields::default().signed(1, 0).varint(2, 9).clone();
    let histogram =
        Fields::default().varint(1, 3).double(2, 1.0).signed(5, 3).bytes(12, &span.0).signed(13, 3).clone();
    bad_histogram.bytes(1, b"bad").varint(3, 4).bytes(4, &Fields::default().bytes(7, &histogram.0).0);
    let delimited = Fields::default().bytes(0, &bad_histogram.0).0[1..].to_vec();
    vec![
        Target {
            times: 0,
            ..text("scrape: a body without end", &b"bad 1\n".repeat(10_000), "body size limit exceeded")
        },
        Target {
            times: 0,
            ..text("scrape: a line without end", &[b'a'; 65_536], "body size limit exceeded")
        },
        Target {
            name: "scrape: gzip that becomes 64 MiB",
            head: "content-type: text/plain; version=0.0.4\r\ncontent-encoding: gzip\r\n",
            body: gzip,
            times: 1,
            error: "body size limit exceeded",
        },
        text("scrape: braces without a name", b"bad 1\n{} 1\n", "line 2"),
        text("scrape: a label without a value", b"bad 1\nbad{a} 2\n", "line 2"),
        text("scrape: a value that is no number", b"bad 1\nbad x\n", "line 2"),
        text("scrape: text that is not UTF-8", b"bad{a=\"\xff\"} 1\n", "line 1"),
        Target { head: OPEN, ..text("scrape: OpenMetrics without an end", b"bad 1\n", "# EOF") },
        Target {
            head: "content-type: text/html\r\n",
            ..text("scrape: a page of HTML", b"<html></html>", "unsupported Content-Type")
        },
        Target { head: PROTOBUF, ..text("scrape: protobuf that is none", &[0xff; 40], "protobuf") },
        Target {
            head: PROTOBUF,
            body: delimited,
            ..text("scrape: a native histogram that contradicts itself", b"", "histogram")
        },
        text(
            "scrape: more labels than the limit",
            b"bad{a=\"1\",b=\"2\",c=\"3\",d=\"4\",e=\"5\",f=\"6\"} 1\n",
            "label_limit exceeded",
        ),
        Target {
            times: 200,
            ..text("scrape: more samples than the limit", b"bad 1\n", "sample limit exceeded")
        },
    ]
}

/// Answers every request with `head` and the bodies, closing the connection at the end; gives the address.
fn serve(target: &Target) -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let head = format!("HTTP/1.1 200 OK\r\n{}connection: close\r\n\r\n", target.head);
    let (body, times, numbered) = (target.body.clone(), target.times, target.times > 1);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            // A scraper that hangs up on such an answer is what is wanted.
            let _ = stream.write_all(head.as_bytes());
            let mut sent = 0;
            while times == 0 || sent < times {
                let written = if numbered {
                    stream.write_all(format!("bad{{n=\"{sent}\"}} 1\n").as_bytes())
                } else {
                    stream.write_all(&body)
                };
                if written.is_err() {
                    break;
                }
                sent += 1;
            }
        }
    });
    Ok(address)
}

#[test]
fn hostile_targets_cost_only_their_own_scrapes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = Target {
        name: "good",
        head: "content-type: text/plain; version=0.0.4\r\n",
        body: b"good 1\n".to_vec(),
        times: 1,
        error: "",
    };
    let all = targets();
    let mut config = "global: {scrape_interval: 1s, scrape_timeout: 1s, body_size_limit: 4MB, label_limit: 8, sample_limit: 100, scrape_native_histograms: true}\n\
                      scrape_configs:\n"
        .to_owned();
    for (number, target) in std::iter::once(&good).chain(&all).enumerate() {
        let address = serve(target)?;
        config.push_str(&format!(
            "  - job_name: j{number}\n    static_configs: [{{targets: ['{address}'], labels: {{instance: i}}}}]\n"
        ));
    }
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config)?;
    let flag = format!("--config.file={}", file.display());
    let mut node = Node::start(&folder.path().join("data"), &[&flag])?;
    let before = node.memory_kb("VmRSS")?;
    let patience = Duration::from_secs(60);
    // Each was scraped some times: the memory that it costs would show by now.
    let counted = format!("count(count_over_time(up[1m]) >= 5) == {}", all.len() + 1);
    node.eventually(patience, "five scrapes of each", |n| n.value(&counted, None))?;
    let grown = node.memory_kb("VmHWM")?.saturating_sub(before);
    ensure!(grown < MAX_GROWTH_KB, "{grown} kB more memory with {} hostile targets", all.len());
    ensure!(
        node.value("good", None)? == Some(1.0)
            && node.value("count_over_time(good[1m]) >= 5", None)?.is_some()
    );
    let shown = node.api("/api/v1/targets?state=active")?;
    let mut wrong = Vec::new();
    for (number, target) in std::iter::once(&good).chain(&all).enumerate() {
        let pool = format!("j{number}");
        let of_pool =
            shown["activeTargets"].as_array().into_iter().flatten().find(|t| t["scrapePool"] == *pool);
        let of_pool = of_pool.with_context(|| format!("no target of {pool}"))?;
        let (error, health) = (of_pool["lastError"].as_str().unwrap_or(""), of_pool["health"].as_str());
        let right = if target.error.is_empty() { error.is_empty() } else { error.contains(target.error) };
        if !right || health != Some(if target.error.is_empty() { "up" } else { "down" }) {
            wrong.push(format!("{}: {health:?} {error}", target.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(
        node.value("count({__name__=~\"bad.*|a+\"})", None)?.is_none(),
        "something of a bad scrape was stored"
    );
    node.stop()?;
    Ok(())
}

#[test]
fn the_documentation_has_every_row() -> Result<()> {
    let line = |target: &Target| format!("| {} | `up` 0 | `{}` |", target.name, target.error);
    tests::documented("bad-input.md", targets().iter().map(line))
}
