//! What `make demo` shows, as a test: scraping three services, a Prometheus that remote-writes, PromQL over HTTP,
//! reload, and a restart that keeps everything.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tests::node::{Node, binary};
use tests::peer::{Helper, prometheus, script};
use tests::tier;

/// Starts the example services on free ports; gives (job, address) of each.
fn services() -> Result<(Helper, Vec<(String, String)>)> {
    let program = binary().with_file_name("example-services");
    let mut child = Command::new(&program)
        .args(["0", "0", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines().take(3) {
        let line = line?;
        let (job, address) = line.split_once(' ').context("a job and an address")?;
        found.push((job.to_owned(), address.to_owned()));
    }
    Ok((Helper(child), found))
}

fn configuration(targets: &[(String, String)]) -> String {
    let mut text = "global:\n  scrape_interval: 1s\nscrape_configs:\n".to_owned();
    for (job, address) in targets {
        text.push_str(&format!(
            "  - job_name: {job}\n    static_configs:\n      - targets: [\"{address}\"]\n"
        ));
    }
    text
}

#[test]
fn services_are_scraped_and_the_golden_signals_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_services, targets) = services()?;
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, configuration(&targets))?;
    let flags = [format!("--config.file={}", config.display()), "--web.enable-lifecycle".to_owned()];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = folder.path().join("data");
    let mut node = Node::start(&data, &flags)?;

    let patience = Duration::from_secs(60);
    let up = "count(up == 1)";
    node.eventually(patience, "three targets are up", |n| Ok(n.value(up, None)?.filter(|v| *v == 3.0)))?;
    for (what, expression) in [
        (
            "error rate",
            "sum(rate(http_requests_total{status=\"500\"}[1m])) / sum(rate(http_requests_total[1m]))",
        ),
        ("latency", "histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket[1m])))"),
        ("queue", "max(rabbitmq_queue_size)"),
        ("cache hits", "min(cache_hit_ratio{job=\"teleprompter\"})"),
    ] {
        let value =
            node.eventually(patience, what, |n| Ok(n.value(expression, None)?.filter(|v| v.is_finite())))?;
        assert!((0.0..1e4).contains(&value), "{what}: {value}");
    }
    let metadata = node.api("/api/v1/metadata?metric=cache_hit_ratio")?;
    assert_eq!(metadata["cache_hit_ratio"][0]["type"], "gauge");
    assert_eq!(metadata["cache_hit_ratio"][0]["help"], "Share of look-ups that hit.");
    let targets_page = node.api("/api/v1/targets?state=active")?;
    assert_eq!(targets_page["activeTargets"].as_array().map(Vec::len), Some(3));

    // Every metric that the node serves stands in the documentation.
    let listed = std::fs::read_to_string(script("../docs/metrics.md"))?;
    let (_, served) = node.get("/metrics")?;
    let names: Vec<&str> =
        served.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !listed.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");

    // A broken file changes nothing; a good one with a target less ends that target's series.
    std::fs::write(&config, "scrape_configs:\n  - job_nam: x\n")?;
    let (status, body) = {
        let (s, b) = node.client().request("POST", "/-/reload", &[], &[])?;
        (s, String::from_utf8_lossy(&b).into_owned())
    };
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("job_nam") && body.contains('2'), "names the key and the line: {body}");
    assert_eq!(node.value(up, None)?, Some(3.0));
    std::fs::write(&config, configuration(&targets[..2]))?;
    node.signal("HUP")?;
    node.eventually(patience, "the third target is stale", |n| {
        Ok(n.value("count(up)", None)?.filter(|v| *v == 2.0))
    })?;

    // A restart keeps everything that was there.
    let time = node.value("max(timestamp(up))", None)?.context("a timestamp")?;
    let before = node.query("sum by (job, status) (http_requests_total)", Some(time))?;
    let (status, log) = node.stop()?;
    assert!(status.success(), "{status}: {}", log.join("\n"));
    let node = Node::start(&data, &flags)?;
    assert_eq!(node.query("sum by (job, status) (http_requests_total)", Some(time))?, before);
    Ok(())
}

#[test]
fn a_prometheus_with_nothing_but_a_url_sends_samples_and_metadata_through_a_restart_of_ours() -> Result<()> {
    let prometheus = prometheus();
    if !tier("peers", prometheus.as_ref().err().cloned()) {
        return Ok(());
    }
    let Ok(prometheus) = prometheus else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (_services, targets) = services()?;
    let data = folder.path().join("data");
    let mut node = Node::start(&data, &[])?;
    let port = node.address.clone();

    let config = folder.path().join("peer.yml");
    let text = configuration(&targets)
        .replace("scrape_interval: 1s", "scrape_interval: 1s\n  external_labels: {via: prometheus}");
    std::fs::write(
        &config,
        format!(
            "{text}remote_write:\n  - url: http://{port}/api/v1/write\n    metadata_config: {{send_interval: 1s}}\n"
        ),
    )?;
    let peer = Command::new(&prometheus)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("peer").display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _peer = Helper(peer);

    let patience = Duration::from_secs(60);
    let sent = "count(up{via=\"prometheus\"} == 1)";
    node.eventually(patience, "samples arrive", |n| Ok(n.value(sent, None)?.filter(|v| *v == 3.0)))?;
    node.eventually(patience, "metadata arrives", |n| {
        let metadata = n.api("/api/v1/metadata?metric=http_requests_total")?;
        Ok((metadata["http_requests_total"][0]["type"] == "counter").then_some(()))
    })?;

    // Killed and started again on the same port: the sender goes on, and no scrape is missing in between.
    let first = node.value("min(timestamp(up{via=\"prometheus\"}))", None)?.context("a timestamp")?;
    node.kill()?;
    let listen = format!("--web.listen-address={port}");
    let mut node = Node::start(&data, &[&listen])?;
    let later = first + 15.0;
    node.eventually(patience, "samples of after the restart", |n| {
        Ok(n.value("min(timestamp(up{via=\"prometheus\"}))", None)?.filter(|t| *t >= later))
    })?;
    let scraped =
        node.value("min(count_over_time(up{via=\"prometheus\"}[14s]))", Some(later))?.context("a count")?;
    assert!(scraped >= 13.0, "scrapes each second arrive without a gap: {scraped} in 14 s");
    Ok(())
}
