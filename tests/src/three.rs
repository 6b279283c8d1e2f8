//! Three processes on loopback that form one cluster, with nothing between them.

use std::path::Path;

use anyhow::Result;

use crate::cluster::{self, PATIENCE, is_whole};
use crate::node::Node;

/// Starts node `name` of three with its data under `folder`, and the further `flags`; `join` is the peer address of one
/// that runs. Gives the node, not ready yet, and its own peer address.
///
/// # Errors
/// It does not start; the error has its log.
pub fn spawn(folder: &Path, name: &str, join: Option<&str>, flags: &[&str]) -> Result<(Node, String)> {
    let mut all = vec![
        "--cluster.name=eu".to_owned(),
        "--cluster.bootstrap-expect=3".to_owned(),
        format!("--node.name={name}"),
    ];
    if !flags.iter().any(|flag| flag.starts_with("--config.file=")) {
        all.push("--config.file=/dev/null".to_owned());
    }
    all.extend(join.map(|address| format!("--cluster.join={address}")));
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    cluster::spawn(&folder.join(name), &all)
}

/// Starts `a`, `b` and `c` with `flags` and waits until they are one cluster: all ready, all shards with leaders and all
/// their copies. `b` and `c` know `a`'s address alone, which is given, too.
///
/// # Errors
/// A node does not start, or the cluster is not whole in time; the error has the node's log.
pub fn start(folder: &Path, flags: &[&str]) -> Result<(Vec<Node>, String)> {
    let (first, address) = spawn(folder, "a", None, flags)?;
    let mut nodes = vec![first];
    for name in ["b", "c"] {
        nodes.push(spawn(folder, name, Some(&address), flags)?.0);
    }
    for node in &mut nodes {
        node.wait_until_ready()?;
    }
    nodes[0].eventually(PATIENCE, "the cluster is whole", is_whole)?;
    Ok((nodes, address))
}
