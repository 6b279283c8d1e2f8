//! Settings of this crate. Plain values: `server` fills them from flags and file.

use std::path::PathBuf;
use std::time::Duration;

use storage::StoreConfig;
use storage::log::LogConfig;

/// Files of mutual TLS between nodes, PEM; read again when they change.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// `--cluster.tls.cert-file`: this node's certificate, with the cluster's name among its DNS names.
    pub cert: PathBuf,
    /// `--cluster.tls.key-file`: its key.
    pub key: PathBuf,
    /// `--cluster.tls.ca-file`: the CAs that sign the cluster's certificates.
    pub ca: PathBuf,
}

/// Where and how a node meets its peers.
#[derive(Debug)]
pub struct Peering {
    /// The peer port, bound.
    pub listener: tokio::net::TcpListener,
    /// `--cluster.advertise-address`: where peers reach that port, `HOST:PORT`.
    pub advertise: String,
    /// The cluster's secret (`--cluster.secret-file`), at least 16 bytes; `None` only where peers are on this machine.
    pub secret: Option<Vec<u8>>,
    /// Certificates of the peer port; `None` = plain text.
    pub tls: Option<PeerTls>,
    /// Bytes a second that this node sends of snapshots, to all peers together; 0 = no limit.
    pub snapshot_bytes_per_second: u64,
}

/// How a node's replicas are run. Not live-reloadable, except where a setter of `Replication` says so.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// The data folder (`--storage.tsdb.path`), created when missing.
    pub data_dir: PathBuf,
    /// `--cluster.name`; `None` = not given: the name in the folder, or `isobar` for a new one. It can be set once.
    pub cluster_name: Option<String>,
    /// `--node.name`, for people; unique in the cluster. Empty = made of the node's id.
    pub node_name: String,
    /// `--node.zone`; replicas of a shard and voters are spread over zones. Empty = none.
    pub zone: String,
    /// `--cluster.join`: addresses of nodes to look for a cluster at, `HOST:PORT`, or `dns+NAME:PORT` for all addresses
    /// of a name. With any, a node never forms a cluster alone.
    pub join: Vec<String>,
    /// `--cluster.bootstrap-expect`: how many empty nodes form a cluster. Default 1, at least 1.
    pub bootstrap_expect: usize,
    /// `--cluster.replication-factor` of a cluster that is formed now: 1, 3 or 5. `None` = 3 where that many form, else 1.
    pub replication_factor: Option<usize>,
    /// `--cluster.shards` of a cluster that is formed now; one that exists keeps its own. Default 8, at least 1.
    pub shards: u32,
    /// Free space of the file system below which writes are refused, bytes; `None` = min(5 %, 5 GiB).
    pub min_free_bytes: Option<u64>,
    /// Bytes of batches that may wait to be proposed or committed before writes are refused. Default 128 MiB.
    pub max_waiting_bytes: usize,
    /// How long a write or read waits for a leader or for replay before it fails as unavailable. Default 5 s.
    pub leader_wait: Duration,
    /// Bytes of batches that make a proposal full. Default 256 KiB.
    pub entry_bytes: usize,
    /// Time between the beats at which busy shards propose what is not full; a shard at rest proposes at once. At least
    /// 1 ms. Default 5 ms.
    pub linger: Duration,
    /// How long a group must be still before it rests: no heartbeats until something happens. Default 5 s.
    pub rest_after: Duration,
    /// How often the leader of a shard has its state compared with the other replicas' (I7). Default 10 min.
    pub compare_every: Duration,
    /// A shard with unflushed data is flushed at least this often. Default 5 min.
    pub flush_age: Duration,
    /// Unflushed bytes over all shards that make the largest ones flush. Default 64 MiB.
    pub flush_bytes: u64,
    /// Size of the node log that makes the shards that hold it back flush. Default 512 MiB.
    pub log_bytes: u64,
    /// How long samples are kept as this node's flags say, ms; 0 = for ever. Default 15 days. The cluster's settings
    /// decide, which follow when all nodes' flags agree. Live: `Replication::set_retention`.
    pub retention_ms: i64,
    /// Series without a sample for this long leave the head, ms. Default 3 h.
    pub idle_series_ms: i64,
    /// Threads that apply committed entries. Default 2.
    pub apply_threads: usize,
    /// The node log's settings.
    pub log: LogConfig,
    /// Storage's settings.
    pub store: StoreConfig,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            cluster_name: None,
            node_name: String::new(),
            zone: String::new(),
            join: Vec::new(),
            bootstrap_expect: 1,
            replication_factor: None,
            shards: 8,
            min_free_bytes: None,
            max_waiting_bytes: 128 << 20,
            leader_wait: Duration::from_secs(5),
            entry_bytes: 256 << 10,
            linger: Duration::from_millis(5),
            rest_after: Duration::from_secs(5),
            compare_every: Duration::from_secs(600),
            flush_age: Duration::from_secs(300),
            flush_bytes: 64 << 20,
            log_bytes: 512 << 20,
            retention_ms: 15 * 86_400_000,
            idle_series_ms: 3 * 3_600_000,
            apply_threads: 2,
            log: LogConfig::default(),
            store: StoreConfig::default(),
        }
    }
}
