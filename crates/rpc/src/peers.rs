//! The clients of all peers: addresses, and one method for each thing that can be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::seam::ShardBatch;
use model::{Failure, LogIndex, NodeId, ShardId};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::connect::{Client, Dial};
use crate::convert::report::WriteAnswer;
use crate::convert::{Malformed, batch, report, status};
use crate::error::PeerError;
use crate::identity::{Identity, Lane, Me};
use crate::lane::{Call, Ground, LaneHandle};
use crate::metrics::Metrics;
use crate::security::Security;
use crate::service::ReadRefusal;
use crate::wire;

/// How peers are called.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// How long name resolution, TCP, TLS and handshake may take together. Default 1 s.
    pub connect_limit: Duration,
    /// Bytes of unanswered calls to one peer: control lane. Default 8 MiB.
    pub control_bytes: usize,
    /// The same for log entries. Default 32 MiB.
    pub data_bytes: usize,
    /// The same for writes. Default 32 MiB.
    pub request_bytes: usize,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            connect_limit: Duration::from_secs(1),
            control_bytes: 8 << 20,
            data_bytes: 32 << 20,
            request_bytes: 32 << 20,
        }
    }
}

/// The runtimes that lanes run on.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// Raft's own: the control lane, so that it never waits for data work.
    pub raft: Handle,
    /// Everything else.
    pub data: Handle,
}

/// One peer.
struct Peer {
    address: watch::Sender<Arc<str>>,
    lanes: [LaneHandle; 3],
    /// When it last answered anything; before it did, since when it is known.
    answered: Mutex<Instant>,
}

impl Peer {
    fn lane(&self, lane: Lane) -> &LaneHandle {
        &self.lanes[usize::from(lane.number())]
    }

    /// Notes that the peer answered, if it did.
    fn note<T>(&self, outcome: &Result<T, PeerError>) {
        if matches!(outcome, Ok(_) | Err(PeerError::Failed(_))) {
            *self.answered.lock() = Instant::now();
        }
    }
}

/// All peers of this node. Connections are made when they are first needed.
pub struct Peers {
    ground: Ground,
    config: PeersConfig,
    runtimes: Runtimes,
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.peers.read().iter().map(|(node, peer)| (node, peer.address.borrow().clone())))
            .finish()
    }
}

impl Peers {
    /// No peers yet.
    pub fn new(
        me: Me,
        security: Security,
        config: PeersConfig,
        runtimes: Runtimes,
        metrics: Metrics,
    ) -> Arc<Self> {
        let ground = Ground { me, security, connect_limit: config.connect_limit, metrics };
        Arc::new(Self { ground, config, runtimes, peers: RwLock::default() })
    }

    /// Where `node` is from now on ("host:port"; the host is looked up at each connect). Connections to another address
    /// are dropped.
    pub fn set_address(&self, node: NodeId, address: &str) {
        let mut peers = self.peers.write();
        if let Some(peer) = peers.get(&node) {
            peer.address.send_if_modified(|now| {
                let changed = **now != *address;
                if changed {
                    *now = address.into();
                }
                changed
            });
            return;
        }
        let (sender, receiver) = watch::channel(Arc::from(address));
        let lanes = Lane::ALL.map(|lane| {
            let (runtime, budget) = match lane {
                Lane::Control => (&self.runtimes.raft, self.config.control_bytes),
                Lane::Data => (&self.runtimes.data, self.config.data_bytes),
                Lane::Request => (&self.runtimes.data, self.config.request_bytes),
            };
            LaneHandle::start(self.ground.clone(), runtime, node, lane, receiver.clone(), budget)
        });
        peers.insert(node, Arc::new(Peer { address: sender, lanes, answered: Mutex::new(Instant::now()) }));
    }

    /// Drops the connections to `node` and its address.
    pub fn forget(&self, node: NodeId) {
        self.peers.write().remove(&node);
    }

    /// Where `node` is, as last set.
    pub fn address(&self, node: NodeId) -> Option<Arc<str>> {
        self.peers.read().get(&node).map(|peer| peer.address.borrow().clone())
    }

    /// The nodes that have an address.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.peers.read().keys().copied().collect()
    }

    /// For how long `node` has not answered anything; 0 for a node without an address. Only a question tells whether it
    /// would.
    pub fn silence(&self, node: NodeId) -> Duration {
        self.peers.read().get(&node).map_or(Duration::ZERO, |peer| peer.answered.lock().elapsed())
    }

    /// The runtime for work that is not Raft's control work.
    pub(crate) fn data(&self) -> &Handle {
        &self.runtimes.data
    }

    fn peer(&self, node: NodeId) -> Result<Arc<Peer>, PeerError> {
        self.peers.read().get(&node).map(Arc::clone).ok_or(PeerError::UnknownNode(node))
    }

    async fn call(&self, node: NodeId, lane: Lane, call: Call) -> Result<Bytes, PeerError> {
        let peer = self.peer(node)?;
        let named = || peer.lane(lane).peer();
        let answer = peer.lane(lane).call(call).await;
        peer.note(&answer);
        answer.map_err(|error| match error {
            PeerError::Timeout { peer, after } if peer.is_empty() => {
                PeerError::Timeout { peer: named(), after }
            }
            error => error,
        })
    }

    /// Sends a Raft message for `group`; the answer's bytes. `patient` ones (heartbeats) may wait some milliseconds for
    /// others to share their frame. Messages of a lane arrive in the order in which this was called, as long as the
    /// connection holds.
    pub async fn raft(
        &self,
        node: NodeId,
        lane: Lane,
        group: u64,
        message: Bytes,
        patient: bool,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        let call = Call { kind: wire::Kind::Raft, group, body: message, limit, patient };
        self.call(node, lane, call).await
    }

    /// Has `node` commit a batch, if it leads the shard. Nothing of the batch is kept here: the caller resends it.
    pub async fn write(
        &self,
        node: NodeId,
        shard: ShardId,
        batch: &ShardBatch,
        limit: Duration,
    ) -> Result<WriteAnswer, PeerError> {
        let body = Bytes::from(batch::encode(batch));
        let call = Call { kind: wire::Kind::Write, group: shard.0.into(), body, limit, patient: false };
        let answer = self.call(node, Lane::Request, call).await?;
        report::decode(&answer).map_err(|what| self.malformed(node, what))
    }

    /// Asks `node` for read indexes of shards it should lead, in order.
    pub async fn read_index(
        &self,
        node: NodeId,
        shards: &[ShardId],
        limit: Duration,
    ) -> Result<Vec<Result<LogIndex, ReadRefusal>>, PeerError> {
        let request = wire::ReadIndexRequest { shards: shards.iter().map(|shard| shard.0).collect() };
        let body = Bytes::from(request.encode_to_vec());
        let call = Call { kind: wire::Kind::ReadIndex, group: 0, body, limit, patient: false };
        let answer = self.call(node, Lane::Control, call).await?;
        let answer = wire::ReadIndexAnswer::decode(answer)
            .map_err(|_| self.malformed(node, Malformed("not an answer about read indexes")))?;
        if answer.indexes.len() != shards.len() {
            return Err(self.malformed(node, Malformed("an answer about other shards")));
        }
        let indexes = answer.indexes.into_iter().map(|index| match index {
            wire::ReadIndex { failure: Some(failure), .. } => {
                Err(ReadRefusal::Failed(status::from_wire(failure)))
            }
            wire::ReadIndex { not_leader: true, leader, .. } => {
                Err(ReadRefusal::NotLeader((leader != 0).then_some(NodeId(leader))))
            }
            wire::ReadIndex { index, .. } => Ok(LogIndex(index)),
        });
        Ok(indexes.collect())
    }

    /// Has `node` evaluate a plan fragment (opaque); the partial, of any size: whoever asks bounds it in the fragment.
    /// `limit` bounds how long nothing may come. Dropping the future cancels the work there.
    pub async fn fragment(
        &self,
        node: NodeId,
        fragment: Bytes,
        limit: Duration,
    ) -> Result<Vec<u8>, PeerError> {
        let request = wire::FragmentRequest { fragment };
        let parts = self
            .unary(node, Lane::Request, limit, |mut client| async move { client.fragment(request).await });
        let mut parts = parts.await?;
        let mut partial = Vec::new();
        let late = || PeerError::Timeout { peer: self.name(node), after: limit };
        loop {
            let part = tokio::time::timeout(limit, parts.message()).await.map_err(|_| late())?;
            match part.map_err(|status| failed(&status, self.name(node)))? {
                Some(part) => partial.extend_from_slice(&part.bytes),
                None => return Ok(partial),
            }
        }
    }

    /// Asks `node` about the cluster (opaque).
    pub async fn meta(&self, node: NodeId, body: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        let request = wire::MetaRequest { body };
        let answer =
            self.unary(node, Lane::Control, limit, |mut client| async move { client.meta(request).await });
        Ok(answer.await?.body)
    }

    /// Asks whoever is at `address` about the cluster, over a connection of its own; who that is, and its answer.
    pub async fn meta_at(
        &self,
        address: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(Identity, Bytes), PeerError> {
        let dial = Dial {
            me: self.ground.me.load_full(),
            security: &self.ground.security,
            lane: Lane::Control,
            expected: None,
            address,
            limit: self.config.connect_limit.min(limit),
            metrics: &self.ground.metrics,
        };
        let ask = async {
            let (mut client, peer) = dial.connect().await?;
            let answer = client.meta(wire::MetaRequest { body }).await;
            let answer = answer.map_err(|status| failed(&status, address.to_owned()))?;
            Ok((peer, answer.into_inner().body))
        };
        let late = || Err(PeerError::Timeout { peer: address.to_owned(), after: limit });
        tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| late())
    }

    /// Begins to fetch the state that `what` (opaque) names from `node`; `limit` bounds how long nothing may come.
    pub async fn snapshot(&self, node: NodeId, what: Bytes, limit: Duration) -> Result<Snapshot, PeerError> {
        let request = wire::SnapshotRequest { what };
        let parts = self
            .unary(node, Lane::Request, limit, |mut client| async move { client.snapshot(request).await });
        Ok(Snapshot { parts: parts.await?, next: 0, peer: self.name(node), silence: limit })
    }

    pub(crate) async fn look(
        &self,
        node: NodeId,
        request: wire::LookRequest,
        limit: Duration,
    ) -> Result<wire::LookAnswer, PeerError> {
        self.unary(node, Lane::Request, limit, |mut client| async move { client.look(request).await }).await
    }

    pub(crate) async fn select(
        &self,
        node: NodeId,
        request: wire::SelectRequest,
        limit: Duration,
    ) -> Result<Streaming<wire::SeriesPart>, PeerError> {
        self.unary(node, Lane::Request, limit, |mut client| async move { client.select(request).await }).await
    }

    /// A call with an HTTP/2 stream of its own; dropping the future resets the stream.
    async fn unary<T, F>(
        &self,
        node: NodeId,
        lane: Lane,
        limit: Duration,
        call: impl FnOnce(Client) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let peer = self.peer(node)?;
        let lane = peer.lane(lane);
        let ask = async {
            let client = lane.client(limit).await?;
            call(client).await.map_err(|status| failed(&status, lane.peer()))
        };
        let late = || Err(PeerError::Timeout { peer: lane.peer(), after: limit });
        let answer = tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| late());
        peer.note(&answer);
        Ok(answer?.into_inner())
    }

    fn malformed(&self, node: NodeId, what: Malformed) -> PeerError {
        PeerError::Malformed { peer: self.name(node), what }
    }

    /// The node and its address, for messages.
    pub(crate) fn name(&self, node: NodeId) -> String {
        match self.address(node) {
            Some(address) => format!("{:016x} at {address}", node.0),
            None => format!("{:016x}", node.0),
        }
    }
}

/// What a gRPC status says: the service's failure, or that the connection broke.
pub(crate) fn failed(status: &Status, peer: String) -> PeerError {
    match status::from_status(status) {
        Some(failure) => PeerError::Failed(failure),
        None if status.code() == tonic::Code::OutOfRange
            || status.code() == tonic::Code::ResourceExhausted =>
        {
            PeerError::Failed(Failure::new(
                model::Code::TooMany,
                format!("peer {peer}: {}", status.message()),
            ))
        }
        None => PeerError::Unreachable { peer, reason: status.message().to_owned() },
    }
}

/// A snapshot on its way here.
#[derive(Debug)]
pub struct Snapshot {
    parts: Streaming<wire::SnapshotPart>,
    next: u64,
    peer: String,
    silence: Duration,
}

impl Snapshot {
    /// The next part, `None` at the end: the sender said that there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PeerError> {
        let late = || PeerError::Timeout { peer: self.peer.clone(), after: self.silence };
        let part = tokio::time::timeout(self.silence, self.parts.message()).await.map_err(|_| late())?;
        let Some(part) = part.map_err(|status| failed(&status, self.peer.clone()))? else { return Ok(None) };
        if part.number != self.next {
            let what = Malformed("parts of a snapshot are out of order");
            return Err(PeerError::Malformed { peer: self.peer.clone(), what });
        }
        self.next += 1;
        Ok(Some(part.bytes))
    }
}
