//! A snapshot of a cluster of three processes: whole, of everything acknowledged before it was asked for, and startable;
//! also where the node asked has not all shards, under load, and when its power is cut in the middle.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use benches::http::encoded;
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tests::cluster::{PATIENCE, is_whole, status};
use tests::node::Node;
use tests::oracle::Writer;
use tests::power::{Disk, missing};
use tests::remote_write::{Series, Version, body_v2, send};
use tests::{three, tier};

const SHARDS: &str = "--cluster.shards=4";
const ADMIN: &str = "--web.enable-admin-api";
const SNAPSHOT: &str = "/api/v1/admin/tsdb/snapshot";

/// Asks a node for a snapshot; its name.
fn snapshot(node: &Node) -> Result<String> {
    let (code, body) = node.client().request("POST", SNAPSHOT, &[], &[])?;
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(code == 200, "{code} {text}");
    let answer: Value = serde_json::from_str(&text)?;
    Ok(answer["data"]["name"].as_str().context("a name")?.to_owned())
}

/// All samples of a writer's series up to `last`, s, in the order of their labels.
fn samples(node: &Node, writer: u64, last: f64) -> Result<Value> {
    let mut series = node.query(&format!("oracle{{writer=\"{writer}\"}}[3h]"), Some(last))?;
    if let Some(all) = series.as_array_mut() {
        all.sort_by_key(|one| one["metric"].to_string());
    }
    Ok(series)
}

fn instance(n: u64) -> Series {
    Series::of(&[("__name__", "later"), ("job", "copy"), ("instance", &format!("i{n}"))])
}

/// A snapshot of a cluster with so many copies of each shard, taken under load, is started beside it.
fn check(factor: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let copies = format!("--cluster.replication-factor={factor}");
    let flags = [SHARDS, ADMIN, &*copies];
    let (mut nodes, address) = three::start(folder.path(), &flags)?;
    let mut writers: Vec<Writer> = (1..4).map(|id| Writer::new(id, 40)).collect();
    for (writer, node) in writers.iter_mut().zip(&nodes) {
        for _ in 0..150 {
            writer.send(&node.address)?;
        }
    }
    // What is in it by all means; the writers go on meanwhile.
    let before: Vec<(u64, f64)> = writers.iter().map(|w| (w.shape().id, w.last_seconds())).collect();
    let over = AtomicBool::new(false);
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    let (name, meanwhile) = std::thread::scope(|scope| {
        let sending: Vec<_> = writers
            .iter_mut()
            .zip(&addresses)
            .map(|(writer, address)| {
                let over = &over;
                scope.spawn(move || {
                    let begun = writer.acked();
                    while !over.load(Ordering::Relaxed) {
                        writer.send(address)?;
                    }
                    Ok::<_, anyhow::Error>(writer.acked() - begun)
                })
            })
            .collect();
        let name = snapshot(&nodes[1]);
        over.store(true, Ordering::Relaxed);
        let sent = sending.into_iter().map(|thread| thread.join().expect("a writer ends"));
        Ok::<_, anyhow::Error>((name?, sent.sum::<Result<usize>>()?))
    })?;
    ensure!(meanwhile > 0, "nothing was written meanwhile");

    // It starts with nothing but its folder, as a cluster of its own.
    let data = folder.path().join("b");
    let copy = folder.path().join("copy");
    std::fs::rename(data.join("snapshots").join(&name), &copy)?;
    ensure!(std::fs::read_dir(data.join("snapshots"))?.next().is_none(), "nothing half done is left");
    let own = ["--config.file=/dev/null", "--cluster.name=eu", "--node.name=copy", ADMIN];
    let (mut restored, _) = tests::cluster::spawn(&copy, &own.map(str::to_owned))?;
    restored.wait_until_ready()?;
    let (theirs, now) = (status(&nodes[0])?, status(&restored)?);
    ensure!(now["id"] != theirs["id"] && now["node"] != theirs["members"][1]["node"], "its own ids: {now}");
    ensure!(now["members"].as_array().map(Vec::len) == Some(1), "one member: {now}");
    ensure!(now["underReplicatedShards"] == 0 && now["shards"].as_array().map(Vec::len) == Some(4), "{now}");
    let same = |restored: &Node, of: &Node| -> Result<()> {
        for (writer, last) in &before {
            let (here, there) = (samples(restored, *writer, *last)?, samples(of, *writer, *last)?);
            let series = here.as_array().map_or(0, Vec::len);
            let all = here.as_array().is_some_and(|all| {
                all.iter().all(|one| one["values"].as_array().is_some_and(|values| values.len() == 150))
            });
            ensure!(series == 40 && all && here == there, "writer {writer}: {series} series in the copy");
        }
        Ok(())
    };
    same(&restored, &nodes[0])?;

    // Both go on for themselves, also after a kill; and the copy grows.
    let at = before[0].1;
    let stamp = (at * 1000.0) as i64;
    let sent = send(&mut restored.client(), Version::V2, None, &body_v2(&[instance(1).float(stamp, 1.0)]))?;
    ensure!(sent.status == 204, "{sent:?}");
    restored.kill()?;
    let (mut restored, restored_address) = tests::cluster::spawn(&copy, &own.map(str::to_owned))?;
    restored.wait_until_ready()?;
    same(&restored, &nodes[0])?;
    ensure!(restored.value("sum(later)", Some(at))? == Some(1.0));
    ensure!(nodes[0].value("sum(later)", Some(at))?.is_none(), "the cluster has nothing of the copy's");
    let mut joining: Vec<String> = own.map(str::to_owned).to_vec();
    joining.retain(|flag| !flag.starts_with("--node.name"));
    joining.extend(["--node.name=d".to_owned(), format!("--cluster.join={restored_address}")]);
    let (mut joined, _) = tests::cluster::spawn(&folder.path().join("d"), &joining)?;
    joined.wait_until_ready()?;
    same(&joined, &nodes[0])?;
    ensure!(status(&joined)?["members"].as_array().map(Vec::len) == Some(2));
    // Told to join the old cluster, it stays in its own.
    joined.kill()?;
    joining.retain(|flag| !flag.starts_with("--cluster.join"));
    joining.push(format!("--cluster.join={address}"));
    let (mut joined, _) = tests::cluster::spawn(&folder.path().join("d"), &joining)?;
    joined.wait_until_ready()?;
    ensure!(status(&nodes[0])?["members"].as_array().map(Vec::len) == Some(3));
    joined.kill()?;
    restored.kill()?;

    // Without a majority of a shard there is none; the shards are named.
    let lost = nodes.remove(2);
    lost.kill()?;
    if factor == 3 {
        nodes.remove(0).kill()?;
    }
    let asked = nodes.last().context("a node")?;
    let refused = asked.client().exchange("POST", SNAPSHOT, &[], &[])?;
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    ensure!(
        refused.status == 503 && text.contains("shard ") && refused.header("retry-after").is_some(),
        "{} {text}",
        refused.status
    );
    Ok(())
}

#[test]
fn a_snapshot_of_a_cluster_with_three_copies_starts_as_a_node_of_its_own() -> Result<()> {
    check(3)
}

#[test]
fn a_snapshot_of_a_cluster_with_one_copy_has_the_shards_of_all_nodes() -> Result<()> {
    check(1)
}

/// What is in the folder of snapshots.
fn names(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("snapshots")).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[test]
fn power_cut_in_the_middle_of_a_snapshot_leaves_none() -> Result<()> {
    if !tier("root", missing()) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut disk = Disk::new(512)?;
    // One copy each, and slow to be fetched.
    let flags = [
        SHARDS,
        ADMIN,
        "--cluster.replication-factor=1",
        "--cluster.snapshot-rate=64KiB",
        "--storage.min-free=0",
    ];
    let others = folder.path();
    let (asked, address) = three::spawn(&disk.root(), "a", None, &flags)?;
    let mut nodes = vec![asked];
    for name in ["b", "c"] {
        nodes.push(three::spawn(others, name, Some(&address), &flags)?.0);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    nodes[0].eventually(PATIENCE, "the cluster is whole", is_whole)?;
    // Values that do not compress, so that there is something to fetch.
    let mut state = 7_u64;
    let now = SystemClock::new().now_ms();
    for part in 0..20 {
        let series: Vec<Series> = (0..100)
            .map(|n| {
                let mut one = instance(n);
                for step in 0..50 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    one = one.float(now - 3_000_000 + (part * 50 + step) * 1_000, (state >> 11) as f64);
                }
                one
            })
            .collect();
        ensure!(send(&mut nodes[0].client(), Version::V2, None, &body_v2(&series))?.status == 204);
    }
    let data = disk.root().join("a");
    let client = nodes[0].client();
    let asking = std::thread::spawn(move || {
        let mut client = client;
        // It never comes to an answer.
        client.request("POST", SNAPSHOT, &[], &[]).is_ok()
    });
    let fetches = |name: &str| std::fs::read_dir(data.join("snapshots").join(name).join("incoming")).is_ok();
    nodes[0].eventually(PATIENCE, "a snapshot is being made", |_| {
        Ok(names(&data).iter().any(|name| name.ends_with(".part") && fetches(name)).then_some(()))
    })?;
    let cut = nodes.remove(0);
    disk.cut(cut.pid())?;
    drop(cut);
    ensure!(!asking.join().expect("the client ends"), "no snapshot was answered");
    disk.restore()?;
    ensure!(names(&data).iter().all(|name| name.ends_with(".part")), "{:?} looks whole", names(&data));
    let peer = status(&nodes[0])?["members"]
        .as_array()
        .context("members")?
        .iter()
        .find(|member| member["name"] == "b")
        .and_then(|member| member["address"].as_str())
        .context("an address")?
        .to_owned();
    let (mut back, _) = three::spawn(&disk.root(), "a", Some(&peer), &flags)?;
    back.wait_until_ready()?;
    ensure!(names(&data).is_empty(), "what was left of it is gone: {:?}", names(&data));
    let all = encoded("count(count_over_time(later[1h]))");
    back.eventually(PATIENCE, "all is there", |node| {
        let (code, text) = node.get(&format!("/api/v1/query?query={all}&time={}", now / 1000))?;
        Ok((code == 200 && text.contains("\"100\"")).then_some(()))
    })?;
    back.kill()
}
