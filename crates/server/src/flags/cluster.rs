//! The flags of a node among others: who it is, where its peers are, how a cluster is formed.

use std::path::PathBuf;

use clap::Args;

use super::{Bytes, byte_size};

/// `--node.*` and `--cluster.*`.
#[derive(Args, Debug, Clone)]
pub struct ClusterFlags {
    /// Name of this node in the cluster, for people; unique. Default: made of its id.
    #[arg(long = "node.name", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Zone of this node: replicas are spread over zones.
    #[arg(long = "node.zone", value_name = "NAME", default_value = "")]
    pub zone: String,
    /// Name of the cluster; can be set once for a data folder. A new folder without it belongs to `isobar`.
    #[arg(long = "cluster.name", value_name = "NAME")]
    pub name: Option<String>,
    /// File with the secret that all nodes of the cluster share, at least 16 bytes.
    #[arg(long = "cluster.secret-file", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Address to listen on for other nodes.
    #[arg(long = "cluster.listen-address", value_name = "ADDR", default_value = "127.0.0.1:9095", value_parser = super::listen_address)]
    pub peer_listen: std::net::SocketAddr,
    /// Where other nodes reach that address, HOST:PORT; default is the address itself.
    #[arg(long = "cluster.advertise-address", value_name = "ADDR", value_parser = host_port)]
    pub advertise: Option<String>,
    /// Nodes to form a cluster with or to join: HOST:PORT,… or dns+NAME:PORT for all addresses of a name; may be
    /// repeated. A node with such a list never forms a cluster alone.
    #[arg(long = "cluster.join", value_name = "ADDRS", value_delimiter = ',', value_parser = join_entry)]
    pub join: Vec<String>,
    /// How many empty nodes form the cluster together.
    #[arg(long = "cluster.bootstrap-expect", value_name = "N", default_value_t = 1, value_parser = expect)]
    pub bootstrap_expect: usize,
    /// Copies of each shard when the cluster is formed: 1, 3, 5, or auto (3 where three nodes or more form it, else 1).
    #[arg(long = "cluster.replication-factor", value_name = "N", default_value = "auto", value_parser = factor)]
    pub replication_factor: Factor,
    /// Number of shards when the cluster is formed.
    #[arg(long = "cluster.shards", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub shards: u32,
    /// Certificate of this node for other nodes, PEM; the cluster's name is among its DNS names.
    #[arg(long = "cluster.tls.cert-file", value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate, PEM.
    #[arg(long = "cluster.tls.key-file", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// CAs that sign the certificates of the cluster's nodes, PEM.
    #[arg(long = "cluster.tls.ca-file", value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
    /// Speak to other nodes in plain text although they are not on this machine.
    #[arg(long = "cluster.insecure")]
    pub insecure: bool,
    /// Bytes a second that this node sends to bring replicas elsewhere up; 0 = no limit.
    #[arg(long = "cluster.snapshot-rate", value_name = "SIZE", default_value = "64MiB", value_parser = byte_size)]
    pub snapshot_rate: Bytes,
}

/// A replication factor; `None` = auto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(pub Option<usize>);

fn factor(text: &str) -> Result<Factor, String> {
    match text {
        "auto" => Ok(Factor(None)),
        "1" | "3" | "5" => Ok(Factor(text.parse().ok())),
        _ => Err(format!("{text:?} is not 1, 3, 5 or auto")),
    }
}

fn expect(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| format!("{text:?} is not a number of nodes"))?;
    if (1..=1000).contains(&number) { Ok(number) } else { Err(format!("{number} is not between 1 and 1000")) }
}

/// `HOST:PORT`, checked as far as that can be without looking it up.
fn host_port(text: &str) -> Result<String, String> {
    let (host, port) =
        text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not of the form HOST:PORT"))?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not of the form HOST:PORT")),
    }
}

fn join_entry(text: &str) -> Result<String, String> {
    host_port(text.strip_prefix("dns+").unwrap_or(text))?;
    Ok(text.to_owned())
}

impl ClusterFlags {
    /// The flags as `/api/v1/status/flags` shows them.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map_or(String::new(), |p| p.display().to_string());
        vec![
            ("node.name", self.node_name.clone().unwrap_or_default()),
            ("node.zone", self.zone.clone()),
            ("cluster.name", self.name.clone().unwrap_or_default()),
            ("cluster.secret-file", path(&self.secret_file)),
            ("cluster.listen-address", self.peer_listen.to_string()),
            ("cluster.advertise-address", self.advertise.clone().unwrap_or_default()),
            ("cluster.join", self.join.join(",")),
            ("cluster.bootstrap-expect", self.bootstrap_expect.to_string()),
            (
                "cluster.replication-factor",
                self.replication_factor.0.map_or("auto".into(), |n| n.to_string()),
            ),
            ("cluster.shards", self.shards.to_string()),
            ("cluster.tls.cert-file", path(&self.tls_cert)),
            ("cluster.tls.key-file", path(&self.tls_key)),
            ("cluster.tls.ca-file", path(&self.tls_ca)),
            ("cluster.insecure", self.insecure.to_string()),
            ("cluster.snapshot-rate", self.snapshot_rate.0.to_string()),
        ]
    }
}
