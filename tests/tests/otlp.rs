//! An OpenTelemetry SDK (Python's, from its registry) sends to a node, and the metrics are found by PromQL.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::node::Node;
use tests::peer::script;
use tests::tier;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("otlp")
}

/// A Python that has the SDK, or why there is none.
fn python() -> Result<PathBuf, String> {
    let output = Command::new(script("otel.sh")).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout).into());
    }
    Err(text(&output.stderr).lines().last().unwrap_or("scripts/otel.sh failed without a word").to_owned())
}

#[test]
fn an_sdk_sends_every_kind_of_metric() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let python = python();
    if !tier("peers", python.as_ref().err().cloned()) {
        return Ok(());
    }
    let python = python.map_err(anyhow::Error::msg)?;
    let config = temporary.path().join("prometheus.yml");
    std::fs::write(&config, "otlp:\n  promote_resource_attributes: [deployment.environment.name]\n")?;
    let flag = format!("--config.file={}", config.display());
    let mut node = Node::start(&temporary.path().join("data"), &[&flag])?;
    let send = |node: &Node, temporality: &str| {
        let url = format!("http://{}/api/v1/otlp/v1/metrics", node.address);
        let mut client = Command::new(&python);
        client.arg(folder().join("client.py")).args([url.as_str(), temporality]);
        let output = client.output().context("running the SDK")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "{}", text(&output.stderr));
        anyhow::Ok((text(&output.stdout), text(&output.stderr)))
    };
    let (said, errors) = send(&node, "cumulative")?;
    assert_eq!(said.trim(), "exports SUCCESS", "{errors}");

    let patience = Duration::from_secs(30);
    let labels = "job=\"shop/checkout\",instance=\"i-1\",deployment_environment_name=\"test\"";
    for (expression, want) in [
        (format!("orders_total{{{labels},http_response_status_code=\"200\"}}"), 5.0),
        (format!("sum(orders_total{{{labels}}})"), 7.0),
        (format!("room_temperature_celsius{{{labels}}}"), 21.5),
        (format!("request_duration_seconds_count{{{labels}}}"), 4.0),
        (format!("request_duration_seconds_bucket{{{labels},le=\"5\"}}"), 3.0),
        (format!("request_duration_seconds_bucket{{{labels},le=\"+Inf\"}}"), 4.0),
        (
            "target_info{job=\"shop/checkout\",instance=\"i-1\",telemetry_sdk_language=\"python\"}"
                .to_owned(),
            1.0,
        ),
    ] {
        let value = node.eventually(patience, &expression, |n| n.value(&expression, None))?;
        assert!((value - want).abs() < 1e-9, "{expression}: {value}");
    }
    let metadata = node.api("/api/v1/metadata?metric=orders_total")?;
    assert_eq!(metadata["orders_total"][0]["type"], "counter");
    assert_eq!(metadata["orders_total"][0]["help"], "Orders taken.");

    // Delta points are counted as rejected, and the gauge beside them is stored.
    let (said, _) = send(&node, "delta")?;
    assert_eq!(said.trim(), "exports SUCCESS", "a partial success is a success");
    let (_, served) = node.get("/metrics")?;
    let rejected = served.lines().find_map(|line| line.strip_prefix("isobar_otlp_rejected_points_total "));
    assert_eq!(rejected, Some("4"), "two sums, one histogram, one exponential histogram");
    Ok(())
}
