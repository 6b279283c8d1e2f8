//! A service that answers like a node would, and nodes of it on loopback.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use model::seam::fake::MemorySource;
use model::seam::{BoxFuture, Counts, SeriesSource, ShardBatch, ShardReport, ShardWriteError};
use model::{Code, Failure, Labels, LogIndex, NodeId, SeriesRef, ShardId};
use rpc::{
    GivePart, Identity, Me, Metrics, Need, PeerService, Peers, PeersConfig, ReadRefusal, Runtimes, Secret,
    Security, ServeConfig, Serving, SnapshotParts,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

/// Bytes of a part of the service's snapshots.
pub(crate) const PART: usize = 1000;
/// Parts in each.
/// Bytes of the answer to the fragment `large`: more than a message may have.
pub(crate) const LARGE: usize = 70 << 20;
pub(crate) const PARTS: u64 = 20;

/// Answers so that callers can tell what arrived.
#[derive(Default)]
pub(crate) struct Echo {
    /// Raft messages so far.
    pub(crate) messages: AtomicU64,
    /// Writes under way, and the most at a time.
    pub(crate) writing: AtomicUsize,
    /// Cancelled fragments.
    pub(crate) cancelled: Arc<AtomicU64>,
    /// What replicas hold.
    pub(crate) series: Option<Arc<MemorySource>>,
}

struct Cancelled(Arc<AtomicU64>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl PeerService for Echo {
    /// Answers caller, group and the message's length; `sleep` never answers.
    fn raft(&self, from: NodeId, group: u64, message: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        self.messages.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match &*message {
                b"sleep" => std::future::pending().await,
                b"fail" => Err(Failure::unavailable("as asked", Duration::from_secs(3))),
                _ => Ok(format!("{from} {group} {}", message.len()).into_bytes()),
            }
        })
    }

    /// Shard 1 is led here, shard 2 by node 77; others have a wrong owner.
    fn write(
        &self,
        _from: NodeId,
        shard: ShardId,
        batch: ShardBatch,
        _limit: Duration,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>> {
        Box::pin(async move {
            match shard.0 {
                1 => Ok(ShardReport {
                    incarnation: 5,
                    refs: (0..batch.series.len() as u64).map(|n| Some(SeriesRef(n + 10))).collect(),
                    written: Counts { samples: batch.samples.len() as u64, ..Counts::default() },
                    ..ShardReport::default()
                }),
                2 => Err(ShardWriteError::NotLeader { leader: Some(NodeId(77)) }),
                _ => Err(ShardWriteError::UnknownRefs),
            }
        })
    }

    fn read_index(&self, shards: Vec<ShardId>) -> BoxFuture<'_, Vec<Result<LogIndex, ReadRefusal>>> {
        let index = |shard: ShardId| match shard.0 {
            1 => Ok(LogIndex(1234)),
            2 => Err(ReadRefusal::NotLeader(None)),
            _ => Err(ReadRefusal::Failed(Failure::internal("no such shard"))),
        };
        Box::pin(async move { shards.into_iter().map(index).collect() })
    }

    fn replica(&self, shard: ShardId, need: Need) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
        Box::pin(async move {
            match (&self.series, need) {
                (Some(series), Need::Applied(LogIndex(7))) if shard.0 == 1 => Ok(Arc::clone(series) as _),
                _ => Err(Failure::new(Code::NotFound, format!("shard {shard} at {need:?} is not here"))),
            }
        })
    }

    /// Answers its bytes reversed, `large` with more than a message may hold; `sleep` never answers, and counts its end.
    fn fragment(&self, _from: NodeId, fragment: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            if &*fragment == b"sleep" {
                let _cancelled = Cancelled(Arc::clone(&self.cancelled));
                self.writing.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            if &*fragment == b"large" {
                return Ok((0..LARGE).map(|at| at as u8).collect());
            }
            Ok(fragment.iter().rev().copied().collect())
        })
    }

    fn meta(&self, from: &Identity, body: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let answer = format!("{} {}", from.node, String::from_utf8_lossy(&body));
        Box::pin(async move { Ok(answer.into_bytes()) })
    }

    /// Numbered parts; `damaged` has three, then a failure.
    fn snapshot(&self, _from: NodeId, what: Bytes) -> BoxFuture<'_, Result<SnapshotParts, Failure>> {
        Box::pin(async move {
            Ok(Box::new(move |give: &mut GivePart<'_>| {
                for number in 0..PARTS {
                    if &*what == b"damaged" && number == 3 {
                        return Err(Failure::new(Code::Corrupt, "part 3 is damaged"));
                    }
                    if !give(vec![number as u8; PART]) {
                        break;
                    }
                }
                Ok(())
            }) as SnapshotParts)
        })
    }
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) me: Me,
    pub(crate) service: Arc<Echo>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) address: String,
    pub(crate) serving: Option<Serving>,
    pub(crate) security: Security,
}

pub(crate) fn plain() -> Security {
    Security { secret: Secret::new(b"a secret of 16+ bytes").unwrap(), tls: None }
}

pub(crate) fn identity(node: u64) -> Me {
    Arc::new(ArcSwap::from_pointee(Identity { cluster_name: "eu".into(), cluster_id: 9, node: NodeId(node) }))
}

pub(crate) fn runtimes() -> Runtimes {
    Runtimes { raft: Handle::current(), data: Handle::current() }
}

impl Node {
    pub(crate) async fn start(node: u64, security: Security, service: Echo) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (me, service) = (identity(node), Arc::new(service));
        let peers = Peers::new(
            Arc::clone(&me),
            security.clone(),
            PeersConfig::default(),
            runtimes(),
            Metrics::default(),
        );
        let mut node = Self { me, service, peers, address, serving: None, security };
        node.serve(listener);
        node
    }

    pub(crate) fn serve(&mut self, listener: TcpListener) {
        let config = ServeConfig { handshake_limit: Duration::from_secs(2), ..ServeConfig::default() };
        self.address = listener.local_addr().unwrap().to_string();
        self.serving = Some(rpc::serve(
            listener,
            Arc::clone(&self.service) as _,
            Arc::clone(&self.me),
            self.security.clone(),
            config,
            runtimes(),
            Metrics::default(),
        ));
    }

    pub(crate) fn id(&self) -> NodeId {
        self.me.load().node
    }

    pub(crate) fn knows(&self, other: &Self) {
        self.peers.set_address(other.id(), &other.address);
    }
}

/// Two nodes, the first knows the second.
pub(crate) async fn pair(security: Security, service: Echo) -> (Node, Node) {
    let a = Node::start(1, security.clone(), Echo::default()).await;
    let b = Node::start(2, security, service).await;
    a.knows(&b);
    (a, b)
}

pub(crate) fn series(of: usize) -> MemorySource {
    let mut source = MemorySource::new();
    for number in 0..of {
        let labels =
            Labels::from_pairs([("__name__", "up"), ("instance", &format!("host-{number}"))]).unwrap();
        for minute in 0..60 {
            source.push(&labels, minute * 60_000, (number * 60) as f64 + minute as f64 / 7.0);
        }
    }
    source
}
