//! Three processes on loopback: forming, a leader killed under load, a node away, status and readiness (I1, I2, I5, I12).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tests::node::{Node, binary};
use tests::oracle::Writer;

/// Longest wait for a cluster to be as it should.
const PATIENCE: Duration = Duration::from_secs(120);

fn flags(name: &str, more: &[String]) -> Vec<String> {
    let mut flags = vec![
        "--config.file=/dev/null".to_owned(),
        "--cluster.name=eu".to_owned(),
        "--cluster.bootstrap-expect=3".to_owned(),
        "--cluster.shards=3".to_owned(),
        "--web.enable-admin-api".to_owned(),
        format!("--node.name={name}"),
    ];
    flags.extend_from_slice(more);
    flags
}

fn spawn(folder: &Path, name: &str, join: Option<&str>) -> Result<(Node, String)> {
    let join: Vec<String> = join.map(|address| format!("--cluster.join={address}")).into_iter().collect();
    let flags = flags(name, &join);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut node = Node::spawn(&folder.join(name), &flags)?;
    let line = node.wait_for("listening for other nodes")?;
    let address = line.split("address=").nth(1).context("the line names no address")?;
    let address = address.split_whitespace().next().unwrap_or(address).trim_matches('"').to_owned();
    Ok((node, address))
}

/// Three nodes that have formed; `b` and `c` know `a`'s address alone.
fn three(folder: &Path) -> Result<Vec<Node>> {
    let (first, address) = spawn(folder, "a", None)?;
    let mut nodes = vec![first];
    for name in ["b", "c"] {
        nodes.push(spawn(folder, name, Some(&address))?.0);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    Ok(nodes)
}

fn status(node: &Node) -> Result<Value> {
    node.api("/api/v1/cluster/status")
}

fn leaders(node: &Node) -> Result<Option<Vec<String>>> {
    let status = status(node)?;
    let shards = status["shards"].as_array().context("shards")?;
    Ok(shards.iter().map(|shard| shard["leader"].as_str().map(str::to_owned)).collect())
}

fn is_whole(node: &Node) -> Result<Option<()>> {
    let status = status(node)?;
    let whole = status["shardsWithoutLeader"] == 0
        && status["underReplicatedShards"] == 0
        && status["members"]
            .as_array()
            .is_some_and(|m| m.len() == 3 && m.iter().all(|m| m["answers"] == true));
    Ok(whole.then_some(()))
}

/// `isobar cluster` asking a node; its output, or what it complains of.
fn command(node: &Node, args: &[&str]) -> Result<String> {
    let output = Command::new(binary())
        .arg("cluster")
        .args(args)
        .arg(format!("--server=http://{}", node.address))
        .output()
        .context("running isobar cluster")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends rounds until `count` more are acknowledged; what failed is sent again. Gives the longest time without an
/// acknowledgement.
fn send(writer: &mut Writer, address: &str, count: usize) -> Result<Duration> {
    let enough = writer.acked() + count;
    let clock = SystemClock::new();
    let (mut last, mut longest) = (Duration::ZERO, Duration::ZERO);
    while writer.acked() < enough {
        let before = writer.acked();
        if writer.unknown() > 0 {
            writer.retry_unknown(address)?;
        } else {
            // A refusal or a broken connection is remembered by the writer as unknown, and sent again above.
            let _ = writer.send(address);
        }
        if writer.acked() > before {
            longest = longest.max(clock.monotonic() - last);
            last = clock.monotonic();
        }
        ensure!(clock.monotonic() < PATIENCE, "{} of {enough} rounds acknowledged", writer.acked());
    }
    Ok(longest)
}

#[test]
fn a_leader_killed_under_load_loses_and_doubles_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut nodes = three(folder.path())?;
    nodes[0].eventually(PATIENCE, "the cluster is whole", is_whole)?;
    let mut writers: Vec<Writer> = (1..4).map(|id| Writer::new(id, 60)).collect();
    for (writer, node) in writers.iter_mut().zip(&nodes) {
        send(writer, &node.address, 5)?;
    }
    for (writer, node) in writers.iter().zip(nodes.iter().rev()) {
        writer.check(node)?;
    }
    // A node that leads and that no writer of what follows talks to.
    let leading = leaders(&nodes[0])?.context("all shards have leaders")?;
    let ids: Vec<String> = nodes
        .iter()
        .map(|node| Ok(status(node)?["node"].as_str().context("a node id")?.to_owned()))
        .collect::<Result<_>>()?;
    let victim = (0..3).find(|at| leading.contains(&ids[*at])).context("somebody leads")?;
    let killed = nodes.remove(victim);
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let pauses: Vec<Duration> = std::thread::scope(|scope| {
        let sending: Vec<_> = writers
            .iter_mut()
            .enumerate()
            .map(|(at, writer)| {
                let address = &addresses[at % 2];
                scope.spawn(move || send(writer, address, 40))
            })
            .collect();
        killed.kill()?;
        sending.into_iter().map(|thread| thread.join().expect("a writer ends")).collect::<Result<_>>()
    })?;
    println!("longest pauses of the writers after the kill: {pauses:?}");
    for writer in &writers {
        ensure!(writer.unknown() == 0, "a round is still unknown: {writer:?}");
        for node in &nodes {
            writer.check(node)?;
        }
    }
    let now = status(&nodes[0])?;
    ensure!(now["underReplicatedShards"] == 3, "the lost copies are shown: {now}");
    let name = ["a", "b", "c"][victim];
    let drawn = command(&nodes[1], &["status"])?;
    ensure!(drawn.contains("NOT HEALTHY") && drawn.contains("1 silent") && drawn.contains(name), "{drawn}");
    // It comes back at another address and catches up.
    let peer = now["members"]
        .as_array()
        .context("members")?
        .iter()
        .find(|member| member["name"] != name && member["answers"] == true)
        .and_then(|member| member["address"].as_str())
        .context("a member's address")?
        .to_owned();
    let (mut back, _) = spawn(folder.path(), name, Some(&peer))?;
    back.wait_until_ready()?;
    nodes[0].eventually(PATIENCE, "the cluster is whole again", is_whole)?;
    ensure!(command(&back, &["status"])?.contains("(healthy): 3 nodes"), "healthy again");
    // A leadership is moved to it by hand, and a setting that cannot be is refused.
    command(&nodes[0], &["transfer-leader", "1", name])?;
    let refused = command(&nodes[0], &["settings", "shards=9"]);
    ensure!(
        refused.is_err_and(|e| e.to_string().contains("fixed when the cluster is formed")),
        "shards are fixed"
    );
    for writer in &writers {
        writer.check(&back)?;
    }
    for node in nodes {
        let (ended, log) = node.stop()?;
        ensure!(ended.success(), "{ended}: {}", log.join("\n"));
    }
    back.kill()
}

#[test]
fn a_node_alone_of_three_waits_and_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut node, _) = spawn(folder.path(), "a", None)?;
    node.wait_for_http()?;
    node.eventually(PATIENCE, "it says what it waits for", |node| {
        let status = status(node)?;
        Ok(status["waitsFor"].as_str().is_some_and(|text| text.contains("1 of 3 nodes")).then_some(()))
    })?;
    let (ready, _) = node.get("/-/ready")?;
    ensure!(ready == 503, "ready: {ready}");
    let (ended, log) = node.stop()?;
    ensure!(ended.success(), "{ended}: {}", log.join("\n"));
    Ok(())
}
