//! A network of packets: each node in a namespace of its own on a bridge, with rules that drop some or all of what comes
//! from other nodes. Needs root, `ip` and `nft`. Clients come from outside and are not touched.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::node::Launch;

/// Ports of a node in its namespace: for clients, for other nodes.
const PORTS: (u16, u16) = (9090, 9095);
/// The last byte of the first node's address; the bridge has 1.
const FIRST: u8 = 10;

/// What this machine lacks for it; `None` = nothing.
pub fn missing() -> Option<String> {
    if let Some(tool) = ["ip", "nft"].iter().find(|tool| run(&[tool, "-V"], None).is_err()) {
        return Some(format!("it needs {tool}"));
    }
    let tried = Packets::new(1).and_then(|packets| packets.drop_some(0, 50));
    tried.err().map(|error| format!("it needs network namespaces with nftables: {error:#}"))
}

/// The namespaces of a cluster's nodes and the bridge between them; gone when dropped.
#[derive(Debug)]
pub struct Packets {
    /// What names begin with: interfaces have 15 bytes at most.
    name: String,
    net: [u8; 3],
    nodes: usize,
    /// Holds the secret that nodes show each other.
    folder: TempDir,
}

fn run(words: &[&str], input: Option<&str>) -> Result<String> {
    let (program, arguments) = words.split_first().context("a program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {program}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Packets {
    /// Namespaces for so many nodes, which all reach each other and this one.
    pub fn new(nodes: usize) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // A network of its own for each: others may test here at the same time.
        let place = (pid.wrapping_mul(31) + number) % (1 << 14);
        let packets = Self {
            name: format!("ib{pid:x}{number}"),
            net: [10, 64 | (place >> 8) as u8, place as u8],
            nodes,
            folder: tempfile::tempdir()?,
        };
        std::fs::write(packets.folder.path().join("secret"), "a secret of the tests, long enough")?;
        let bridge = &packets.name;
        let ip = |line: &str| run(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>(), None);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", packets.address(1)))?;
        ip(&format!("link set {bridge} up"))?;
        for at in 0..nodes {
            let (namespace, link) = (packets.namespace(at), format!("{bridge}{}", (b'a' + at as u8) as char));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {link} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", packets.node(at)))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(packets)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, last)
    }

    fn node(&self, at: usize) -> Ipv4Addr {
        self.address(FIRST + at as u8)
    }

    fn namespace(&self, at: usize) -> String {
        format!("{}n{at}", self.name)
    }

    /// Where clients and where other nodes reach a node.
    pub(crate) fn addresses(&self, at: usize) -> (String, String) {
        let node = self.node(at);
        (format!("{node}:{}", PORTS.0), format!("{node}:{}", PORTS.1))
    }

    /// The flags of nodes that listen on other addresses than loopback.
    pub(crate) fn flags(&self) -> Vec<String> {
        let secret = self.folder.path().join("secret");
        vec!["--cluster.insecure".to_owned(), format!("--cluster.secret-file={}", secret.display())]
    }

    /// How a node is started in its namespace.
    pub(crate) fn launch(&self, at: usize) -> Launch {
        let under = ["ip", "netns", "exec", &self.namespace(at)].map(str::to_owned).to_vec();
        Launch { under, listen: Some(self.addresses(at)), ..Launch::default() }
    }

    /// From now on a node loses `percent` of the packets that come from other nodes.
    pub fn drop_some(&self, at: usize, percent: u8) -> Result<()> {
        self.rule(at, &format!("ip saddr {} numgen random mod 100 < {percent}", self.others()), "")
    }

    /// From now on nothing passes between a node and the others.
    pub fn isolate(&self, at: usize) -> Result<()> {
        let others = self.others();
        self.rule(at, &format!("ip saddr {others}"), &format!("ip daddr {others} drop;"))
    }

    /// The addresses of all nodes.
    fn others(&self) -> String {
        format!("{}-{}", self.node(0), self.node(self.nodes.max(2) - 1))
    }

    fn rule(&self, at: usize, arriving: &str, leaving: &str) -> Result<()> {
        let rules = format!(
            "table inet faults {{\n\
             chain arriving {{ type filter hook input priority 0; iif \"eth0\" {arriving} counter drop; }}\n\
             chain leaving {{ type filter hook output priority 0; {leaving} }}\n}}\n"
        );
        run(&["ip", "netns", "exec", &self.namespace(at), "nft", "-f", "-"], Some(&rules)).map(|_| ())
    }

    /// How many packets a node has lost by that.
    pub fn dropped(&self, at: usize) -> Result<u64> {
        let text = run(
            &["ip", "netns", "exec", &self.namespace(at), "nft", "list", "table", "inet", "faults"],
            None,
        )?;
        let count = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(count.context("a rule that counts")?.parse()?)
    }

    /// The node loses nothing any more.
    pub fn heal(&self, at: usize) -> Result<()> {
        let line = ["ip", "netns", "exec", &self.namespace(at), "nft", "delete", "table", "inet", "faults"];
        run(&line, None).map(|_| ())
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // What was not made cannot be removed; links between namespaces go with these.
        for at in 0..self.nodes {
            let _ = run(&["ip", "netns", "del", &self.namespace(at)], None);
        }
        let _ = run(&["ip", "link", "del", &self.name], None);
    }
}
