//! A cluster of real processes on loopback, behind the relay of [`crate::proxy`], with what can be done to its nodes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::Client;
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tempfile::TempDir;

use crate::clock::Clocks;
use crate::node::{Launch, Node, binary};
use crate::packets::Packets;
use crate::power::Disk;
use crate::proxy::{End, Proxy};

/// Longest wait for a cluster to be as it should.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Shards of the clusters here.
pub const SHARDS: u32 = 3;
/// How long a node may take to tell what it sees of the cluster.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// Names of nodes, by number.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The flags of a node of a cluster of `expect` nodes.
pub fn flags(name: &str, expect: usize, more: &[String]) -> Vec<String> {
    let mut flags = vec![
        "--config.file=/dev/null".to_owned(),
        "--cluster.name=eu".to_owned(),
        format!("--cluster.bootstrap-expect={expect}"),
        format!("--cluster.shards={SHARDS}"),
        "--web.enable-admin-api".to_owned(),
        format!("--node.name={name}"),
    ];
    flags.extend_from_slice(more);
    flags
}

/// Starts a node with its data in `data`; gives it, not ready yet, and the address on which it listens for peers.
pub fn spawn(data: &Path, flags: &[String]) -> Result<(Node, String)> {
    launch(data, flags, &Launch::default())
}

/// The same as `how` says.
fn launch(data: &Path, flags: &[String], how: &Launch) -> Result<(Node, String)> {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut node = Node::launch(data, &flags, how)?;
    let line = node.wait_for("listening for other nodes")?;
    let address = line.split("address=").nth(1).context("the line names no address")?;
    let address = address.split_whitespace().next().unwrap_or(address).trim_matches('"').to_owned();
    Ok((node, address))
}

/// What a node says of its cluster.
pub fn status(node: &Node) -> Result<Value> {
    node.api("/api/v1/cluster/status")
}

/// The leaders of all shards as a node sees them, by node id; `None` while one has none.
pub fn leaders(node: &Node) -> Result<Option<Vec<String>>> {
    let status = status(node)?;
    let shards = status["shards"].as_array().context("shards")?;
    Ok(shards.iter().map(|shard| shard["leader"].as_str().map(str::to_owned)).collect())
}

/// Whether a status shows `nodes` nodes that all answer, and shards with leaders and all their copies.
pub fn shows_whole(status: &Value, nodes: usize) -> bool {
    status["shardsWithoutLeader"] == 0
        && status["underReplicatedShards"] == 0
        && status["members"]
            .as_array()
            .is_some_and(|members| members.len() == nodes && members.iter().all(|m| m["answers"] == true))
}

/// `Some` once a node sees three nodes that are well.
pub fn is_whole(node: &Node) -> Result<Option<()>> {
    Ok(shows_whole(&status(node)?, 3).then_some(()))
}

/// `isobar cluster` asking a node; its output, or what it complains of.
pub fn command(node: &Node, args: &[&str]) -> Result<String> {
    let output = Command::new(binary())
        .arg("cluster")
        .args(args)
        .arg(format!("--server=http://{}", node.address))
        .output()
        .context("running isobar cluster")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes: 3 to 5.
    pub nodes: usize,
    /// Where jitter comes from.
    pub seed: u64,
    /// Megabytes of the disk that each node gets for itself (needs root); `None` = folders on a common one.
    pub disk_megabytes: Option<u64>,
    /// Whether each node gets a wall clock of its own, which can be made wrong (needs libfaketime).
    pub clocks: bool,
    /// Whether each node gets a network namespace of its own (needs root, `ip` and `nft`); then clients and nodes talk
    /// without the relay.
    pub namespaces: bool,
    /// More flags of all nodes.
    pub flags: Vec<String>,
}

impl Options {
    /// Three nodes on one disk.
    pub fn new(seed: u64) -> Self {
        Self { nodes: 3, seed, disk_megabytes: None, clocks: false, namespaces: false, flags: Vec::new() }
    }
}

/// A cluster whose nodes and clients talk over the relay. Nodes are numbers from 0.
pub struct Cluster {
    /// The network between everybody.
    pub proxy: Proxy,
    /// Where clients reach the nodes, whoever runs there just now.
    pub addresses: Vec<String>,
    /// The nodes' disks, if they have their own.
    pub disks: Vec<Disk>,
    /// The nodes' wall clocks, if they have their own.
    pub clocks: Option<Clocks>,
    /// The nodes' network namespaces, if they have their own.
    pub packets: Option<Packets>,
    folder: TempDir,
    options: Options,
    advertised: Vec<String>,
    nodes: Vec<Option<Node>>,
    ids: Vec<String>,
    /// Logs of processes that have ended, with the node's number.
    ended: Vec<(usize, Vec<String>)>,
}

impl Cluster {
    /// Starts the nodes, and waits until they have formed a cluster and see each other whole.
    pub fn start(options: Options) -> Result<Self> {
        ensure!((3..=NAMES.len()).contains(&options.nodes), "{} nodes", options.nodes);
        let proxy = Proxy::new(options.seed)?;
        let count = options.nodes;
        let packets = options.namespaces.then(|| Packets::new(count)).transpose()?;
        let (addresses, advertised) = match &packets {
            Some(packets) => (0..count).map(|at| packets.addresses(at)).unzip(),
            None => {
                let clients = (0..count).map(|at| proxy.client_address(at));
                let peers = (0..count).map(|at| proxy.peer_address(at));
                (clients.collect::<Result<_>>()?, peers.collect::<Result<_>>()?)
            }
        };
        let mut cluster = Self {
            addresses,
            advertised,
            clocks: options.clocks.then(|| Clocks::new(count)).transpose()?,
            packets,
            disks: match options.disk_megabytes {
                Some(megabytes) => (0..count).map(|_| Disk::new(megabytes)).collect::<Result<_>>()?,
                None => Vec::new(),
            },
            folder: tempfile::tempdir()?,
            proxy,
            nodes: (0..count).map(|_| None).collect(),
            ids: Vec::new(),
            ended: Vec::new(),
            options,
        };
        for at in 0..count {
            cluster.spawn(at)?;
        }
        cluster.wait_until_ready()?;
        for at in 0..count {
            let id = status(cluster.node(at)?)?["node"].as_str().context("a node id")?.to_owned();
            cluster.proxy.name(u64::from_str_radix(&id, 16).context("a node id in hex")?, at);
            cluster.ids.push(id);
        }
        cluster.wait_whole(PATIENCE)?;
        Ok(cluster)
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: it has three nodes at least.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node keeps its data.
    pub fn data(&self, at: usize) -> PathBuf {
        match self.disks.get(at) {
            Some(disk) => disk.root().join("data"),
            None => self.folder.path().join(NAMES[at]),
        }
    }

    /// A node that runs.
    pub fn node(&self, at: usize) -> Result<&Node> {
        self.nodes[at].as_ref().with_context(|| format!("node {} runs", NAMES[at]))
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.len()).filter(|at| self.nodes[*at].is_some()).collect()
    }

    fn spawn(&mut self, at: usize) -> Result<()> {
        let how = match (&self.clocks, &self.packets) {
            (Some(clocks), _) => clocks.launch(at),
            (_, Some(packets)) => packets.launch(at),
            (None, None) => Launch::default(),
        };
        self.spawn_as(at, &how)
    }

    /// Starts a node that does not run, as `how` says; returns once it answers HTTP, ready or not.
    ///
    /// # Errors
    /// It does not come so far.
    pub fn spawn_as(&mut self, at: usize, how: &Launch) -> Result<()> {
        let mut more = vec![
            format!("--cluster.advertise-address={}", self.advertised[at]),
            format!("--cluster.join={}", self.advertised.join(",")),
        ];
        if let Some(packets) = &self.packets {
            more.extend(packets.flags());
        }
        more.extend_from_slice(&self.options.flags);
        let flags = flags(NAMES[at], self.len(), &more);
        let (mut node, peer) = launch(&self.data(at), &flags, how)?;
        node.wait_for_http()?;
        if self.packets.is_none() {
            self.proxy.set_upstream(at, &peer, &node.address)?;
        }
        self.nodes[at] = Some(node);
        Ok(())
    }

    /// Starts nodes that do not run, all before any is waited for; returns once they are ready to serve.
    pub fn restart(&mut self) -> Result<()> {
        for at in 0..self.len() {
            if self.nodes[at].is_none() {
                self.spawn(at)?;
            }
        }
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().flatten() {
            node.eventually(PATIENCE, "it is ready", |node| {
                let (code, _) = node.get("/-/ready")?;
                Ok((code == 200).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Ends a node by SIGKILL.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let node = self.nodes[at].take().context("the node runs")?;
        self.ended.push((at, node.end()?));
        Ok(())
    }

    /// Forgets a node that has ended by itself, or was ended by others.
    pub fn bury(&mut self, at: usize) -> Result<()> {
        self.kill(at)
    }

    /// Whether a node's process still runs.
    pub fn runs(&mut self, at: usize) -> Result<bool> {
        self.nodes[at].as_mut().context("the node was started")?.runs()
    }

    /// Ends several nodes by SIGKILL, all before any is waited for.
    pub fn kill_together(&mut self, which: &[usize]) -> Result<()> {
        for &at in which {
            self.node(at)?.signal("KILL")?;
        }
        which.iter().try_for_each(|&at| self.kill(at))
    }

    /// Ends a node by SIGTERM; fails when it does not end well.
    pub fn stop(&mut self, at: usize) -> Result<()> {
        let node = self.nodes[at].take().context("the node runs")?;
        let (ended, log) = node.stop()?;
        let text = log.join("\n");
        self.ended.push((at, log));
        ensure!(ended.success(), "node {} ended with {ended} on SIGTERM:\n{text}", NAMES[at]);
        Ok(())
    }

    /// Cuts the power of nodes with disks of their own: all are frozen first, so that it happens at one moment. The disks
    /// are as they were then; the nodes do not run any more.
    pub fn cut_power(&mut self, which: &[usize]) -> Result<()> {
        for &at in which {
            self.node(at)?.signal("STOP")?;
        }
        for &at in which {
            let pid = self.node(at)?.pid();
            self.disks.get(at).context("a disk of its own")?.cut(pid)?;
        }
        for &at in which {
            self.kill(at)?;
            self.disks[at].restore()?;
        }
        Ok(())
    }

    /// Asks a node for its status, over the relay, as clients do.
    pub fn status(&self, at: usize) -> Result<Value> {
        let mut client = Client::new(&self.addresses[at]).with_patience(STATUS_PATIENCE);
        let answer: Value = serde_json::from_slice(&client.get("/api/v1/cluster/status")?)?;
        Ok(answer["data"].clone())
    }

    /// The nodes that lead the shards, by shard, as node `at` sees it; fails while a shard has none.
    pub fn leaders(&self, at: usize) -> Result<Vec<usize>> {
        let status = self.status(at)?;
        let shards = status["shards"].as_array().context("shards")?;
        shards
            .iter()
            .map(|shard| {
                let id = shard["leader"].as_str().context("a shard has no leader")?;
                self.ids.iter().position(|known| known == id).context("a known node")
            })
            .collect()
    }

    /// A node that leads something, and one that leads less than it. The latter may lead too.
    pub fn leader_and_other(&self) -> Result<(usize, usize)> {
        let leaders = self.leaders(*self.running().first().context("a node runs")?)?;
        let leads = |at: &usize| leaders.iter().filter(|leader| *leader == at).count();
        let most = (0..self.len()).max_by_key(leads).context("nodes")?;
        let least = (0..self.len()).filter(|at| *at != most).min_by_key(leads).context("nodes")?;
        Ok((most, least))
    }

    /// Waits until every running node shows all nodes and all copies well; fails after `limit`. Gives how long it took.
    pub fn wait_whole(&mut self, limit: Duration) -> Result<Duration> {
        let clock = SystemClock::new();
        let count = self.len();
        for at in self.running() {
            let left = limit.saturating_sub(clock.monotonic());
            let (address, Some(node)) = (self.addresses[at].clone(), &mut self.nodes[at]) else { continue };
            node.eventually(left, "the cluster is whole", |_| {
                let mut client = Client::new(&address).with_patience(STATUS_PATIENCE);
                let answer: Value = serde_json::from_slice(&client.get("/api/v1/cluster/status")?)?;
                if shows_whole(&answer["data"], count) {
                    return Ok(Some(()));
                }
                bail!("{}", answer["data"]["shards"])
            })?;
        }
        Ok(clock.monotonic())
    }

    /// The links from one node to all others, and back.
    pub fn links(&self, at: usize) -> Vec<(End, End)> {
        let others = (0..self.len()).filter(|other| *other != at);
        others
            .flat_map(|other| [(End::Node(at), End::Node(other)), (End::Node(other), End::Node(at))])
            .collect()
    }

    /// Lines in the logs, of running and ended processes, that tell of a panic.
    pub fn panics(&mut self) -> Vec<String> {
        let running = self.nodes.iter_mut().enumerate();
        let running: Vec<(usize, Vec<String>)> =
            running.filter_map(|(at, node)| Some((at, node.as_mut()?.log().to_vec()))).collect();
        let all = self.ended.iter().chain(&running);
        let lines = all.flat_map(|(at, log)| log.iter().map(move |line| format!("{}: {line}", NAMES[*at])));
        lines.filter(|line| line.contains("panicked at")).collect()
    }

    /// The logs of all processes so far, for people who look for the reason of a failure.
    pub fn logs(&mut self) -> String {
        let mut text = String::new();
        for (at, log) in &self.ended {
            text.push_str(&format!("---- node {} (ended)\n{}\n", NAMES[*at], log.join("\n")));
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Some(node) = node {
                text.push_str(&format!("---- node {} (runs)\n{}\n", NAMES[at], node.log().join("\n")));
            }
        }
        text
    }
}
