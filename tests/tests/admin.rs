//! What an operator asks of a node's storage: deleted samples leave the disk, and a copy of the data is a data folder.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tests::node::Node;
use tests::remote_write::{Series, Version, body_v2, send};

/// Bytes of the files of the database.
fn size(data: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(data.join("db"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "sst") {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

fn post(node: &Node, path: &str) -> Result<(u16, Value)> {
    let (status, body) = node.client().request("POST", path, &[], &[])?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Series of two jobs, 200 samples each, whose values do not compress.
fn write(node: &Node, base: i64) -> Result<()> {
    let mut state = 7u64;
    for job in ["kept", "gone"] {
        let mut all = Vec::new();
        for instance in 0..100 {
            let mut series =
                Series::of(&[("__name__", "m"), ("job", job), ("instance", &format!("i{instance}"))]);
            for step in 0..200 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                series = series.float(base - 3_000_000 + step * 15_000, (state >> 11) as f64);
            }
            all.push(series);
        }
        let answer = send(&mut node.client(), Version::V2, None, &body_v2(&all))?;
        ensure!(answer.status == 204, "{answer:?}");
    }
    Ok(())
}

#[test]
fn deleted_samples_leave_the_disk_and_a_copy_is_a_data_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let flags = ["--web.enable-admin-api", "--config.file=/dev/null"];
    let node = Node::start(&data, &flags)?;
    let base = SystemClock::new().now_ms() / 15_000 * 15_000;
    let at = Some(base as f64 / 1e3);
    write(&node, base)?;
    ensure!(post(&node, "/api/v1/admin/tsdb/clean_tombstones")?.0 == 204, "nothing to clean is fine");
    let before = size(&data)?;
    let kept = node.query("sum_over_time(m{job=\"kept\"}[1h])", at)?;
    ensure!(kept.as_array().map(Vec::len) == Some(100) && before > 100_000, "{before}");

    ensure!(post(&node, "/api/v1/admin/tsdb/delete_series?match[]=m%7Bjob%3D%22gone%22%7D")?.0 == 204);
    ensure!(node.value("count(count_over_time(m[1h]))", at)? == Some(100.0));
    ensure!(post(&node, "/api/v1/admin/tsdb/clean_tombstones")?.0 == 204);
    let after = size(&data)?;
    ensure!(after < before * 2 / 3, "{before} bytes before, {after} after");
    ensure!(node.query("sum_over_time(m{job=\"kept\"}[1h])", at)? == kept);

    // A copy of now; what is written later is not in it.
    let (status, answer) = post(&node, "/api/v1/admin/tsdb/snapshot?skip_head=false")?;
    let name = answer["data"]["name"].as_str().context("a name")?.to_owned();
    ensure!(status == 200 && name.len() == "20060102T150405Z-0123456789abcdef".len(), "{status} {answer}");
    let later = Series::of(&[("__name__", "later"), ("job", "kept"), ("instance", "x")]).float(base, 1.0);
    ensure!(send(&mut node.client(), Version::V2, None, &body_v2(&[later]))?.status == 204);

    // It starts beside the one that it is of, and again after both have gone on.
    let copy = folder.path().join("copy");
    std::fs::rename(data.join("snapshots").join(&name), &copy)?;
    let restored = Node::start(&copy, &flags)?;
    ensure!(restored.query("sum_over_time(m{job=\"kept\"}[1h])", at)? == kept);
    ensure!(restored.value("count(count_over_time(m[1h]))", at)? == Some(100.0));
    ensure!(restored.value("later", at)?.is_none() && node.value("later", at)? == Some(1.0));
    let own = Series::of(&[("__name__", "own"), ("job", "kept"), ("instance", "i1")]).float(base, 2.0);
    ensure!(send(&mut restored.client(), Version::V2, None, &body_v2(&[own]))?.status == 204);
    restored.kill()?;
    let restored = Node::start(&copy, &flags)?;
    ensure!(
        restored.value("own", at)? == Some(2.0)
            && restored.query("sum_over_time(m{job=\"kept\"}[1h])", at)? == kept
    );
    ensure!(node.value("own", at)?.is_none());
    let (_, names) = node.get("/api/v1/label/__name__/values")?;
    ensure!(names.contains("later") && !names.contains("own"), "{names}");
    for node in [restored, node] {
        let (status, log) = node.stop()?;
        ensure!(status.success(), "{}", log.join("\n"));
    }
    // Nothing half done is left.
    ensure!(std::fs::read_dir(data.join("snapshots"))?.next().is_none());
    Ok(())
}
