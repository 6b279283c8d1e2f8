//! Three processes on loopback that form one cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Node;

/// Longest wait for the cluster to be whole.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts three nodes with their data under `folder`, `copies` of each of `shards` shards and the further `flags`, and
/// waits until all shards have leaders and every node answers.
///
/// # Errors
/// A node does not start, or the cluster is not whole in time; the error has the node's log.
pub fn start(folder: &Path, copies: u32, shards: u32, flags: &[&str]) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut first = String::new();
    for name in ["a", "b", "c"] {
        let mut all = vec![
            "--config.file=/dev/null".to_owned(),
            "--cluster.name=scripts".to_owned(),
            "--cluster.bootstrap-expect=3".to_owned(),
            format!("--cluster.replication-factor={copies}"),
            format!("--cluster.shards={shards}"),
            format!("--node.name={name}"),
        ];
        if !first.is_empty() {
            all.push(format!("--cluster.join={first}"));
        }
        let all: Vec<&str> = all.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        let mut node = Node::spawn(&folder.join(name), &all)?;
        let line = node.wait_for("listening for other nodes")?;
        let address = line.split("address=").nth(1).context("the line names no address")?;
        if first.is_empty() {
            address.split_whitespace().next().unwrap_or(address).trim_matches('"').clone_into(&mut first);
        }
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    nodes[0].eventually(PATIENCE, "the cluster is whole", |node| {
        let status = node.api("/api/v1/cluster/status")?;
        let whole = status["shardsWithoutLeader"] == 0
            && status["underReplicatedShards"] == 0
            && status["shards"].as_array().is_some_and(|all| all.len() == shards as usize)
            && status["members"]
                .as_array()
                .is_some_and(|all| all.len() == 3 && all.iter().all(|member| member["answers"] == true));
        Ok(whole.then_some(()))
    })?;
    Ok(nodes)
}
