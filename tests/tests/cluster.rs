//! Three processes on loopback: forming, a leader killed under load, a node away, status and readiness (I1, I2, I5, I12).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::seam::{Clock as _, SystemClock};
use tests::cluster::{PATIENCE, command, is_whole, leaders, status};
use tests::oracle::Writer;
use tests::three;

const FLAGS: &[&str] = &["--cluster.shards=3", "--web.enable-admin-api"];

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
    let (mut nodes, _) = three::start(folder.path(), FLAGS)?;
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
    let (mut back, _) = three::spawn(folder.path(), name, Some(&peer), FLAGS)?;
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
    let (mut node, _) = three::spawn(folder.path(), "a", None, FLAGS)?;
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
