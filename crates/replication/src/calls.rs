//! How this node calls others. Over connections it is `rpc` that does; in the simulation (`sim`) messages are put into
//! the hands of the other node by a network that loses, delays and cuts.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::seam::{BoxFuture, SeriesSource, ShardBatch};
use model::{LogIndex, NodeId, ShardId};
use rpc::convert::report::WriteAnswer;
use rpc::{Lane, Need, PeerError, Peers, ReadRefusal, RemoteReplica};

/// Read indexes of shards, in the order of the question.
pub(crate) type ReadIndexes = Vec<Result<LogIndex, ReadRefusal>>;

/// The pieces of a group's state, as they come.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, PeerError>>;

/// Calls to other nodes. What each does, and its limits, stands at the method of the same name of [`Peers`].
pub(crate) trait Calls: Send + Sync + Debug {
    fn set_address(&self, node: NodeId, address: &str);
    fn forget(&self, node: NodeId);
    fn address(&self, node: NodeId) -> Option<Arc<str>>;
    fn nodes(&self) -> Vec<NodeId>;
    fn silence(&self, node: NodeId) -> Duration;

    fn raft(
        &self,
        node: NodeId,
        lane: Lane,
        group: u64,
        message: Bytes,
        patient: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>>;

    fn write(
        &self,
        node: NodeId,
        shard: ShardId,
        batch: Arc<ShardBatch>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<WriteAnswer, PeerError>>;

    fn read_index<'a>(
        &'a self,
        node: NodeId,
        shards: &'a [ShardId],
        limit: Duration,
    ) -> BoxFuture<'a, Result<ReadIndexes, PeerError>>;

    fn fragment(
        &self,
        node: NodeId,
        fragment: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, PeerError>>;

    fn meta(&self, node: NodeId, body: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>>;

    fn meta_at<'a>(
        &'a self,
        address: &'a str,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, PeerError>>;

    fn snapshot(
        &self,
        node: NodeId,
        what: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Pieces, PeerError>>;

    /// Something to read a shard's replica on one of `nodes` from, as [`RemoteReplica`] does.
    fn replica(
        self: Arc<Self>,
        nodes: &[NodeId],
        shard: ShardId,
        need: Need,
        silence: Duration,
    ) -> Arc<dyn SeriesSource>;
}

impl Calls for Peers {
    fn set_address(&self, node: NodeId, address: &str) {
        Self::set_address(self, node, address);
    }

    fn forget(&self, node: NodeId) {
        Self::forget(self, node);
    }

    fn address(&self, node: NodeId) -> Option<Arc<str>> {
        Self::address(self, node)
    }

    fn nodes(&self) -> Vec<NodeId> {
        Self::nodes(self)
    }

    fn silence(&self, node: NodeId) -> Duration {
        Self::silence(self, node)
    }

    fn raft(
        &self,
        node: NodeId,
        lane: Lane,
        group: u64,
        message: Bytes,
        patient: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(Self::raft(self, node, lane, group, message, patient, limit))
    }

    fn write(
        &self,
        node: NodeId,
        shard: ShardId,
        batch: Arc<ShardBatch>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<WriteAnswer, PeerError>> {
        Box::pin(async move { Self::write(self, node, shard, &batch, limit).await })
    }

    fn read_index<'a>(
        &'a self,
        node: NodeId,
        shards: &'a [ShardId],
        limit: Duration,
    ) -> BoxFuture<'a, Result<ReadIndexes, PeerError>> {
        Box::pin(Self::read_index(self, node, shards, limit))
    }

    fn fragment(
        &self,
        node: NodeId,
        fragment: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, PeerError>> {
        Box::pin(Self::fragment(self, node, fragment, limit))
    }

    fn meta(&self, node: NodeId, body: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(Self::meta(self, node, body, limit))
    }

    fn meta_at<'a>(
        &'a self,
        address: &'a str,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move { Ok(Self::meta_at(self, address, body, limit).await?.1) })
    }

    fn snapshot(
        &self,
        node: NodeId,
        what: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Pieces, PeerError>> {
        Box::pin(async move {
            let snapshot = Self::snapshot(self, node, what, limit).await?;
            let next = |mut snapshot: rpc::Snapshot| async move {
                let piece = snapshot.next().await.transpose()?;
                Some((piece, snapshot))
            };
            Ok(futures::stream::unfold(snapshot, next).boxed())
        })
    }

    fn replica(
        self: Arc<Self>,
        nodes: &[NodeId],
        shard: ShardId,
        need: Need,
        silence: Duration,
    ) -> Arc<dyn SeriesSource> {
        Arc::new(RemoteReplica::new(self, nodes, shard, need, silence))
    }
}
