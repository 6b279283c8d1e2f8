//! What peers may ask of this node: the seam answered by `replication` (and, for fragments, by `query`).
//!
//! Callers are nodes of this cluster, checked in the handshake. What they send may still be wrong, old or meant for
//! somebody else; an answer to it is a failure, never a panic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::seam::{BoxFuture, SeriesSource, ShardBatch, ShardReport, ShardWriteError};
use model::{Failure, LogIndex, NodeId, ShardId};

use crate::identity::Identity;

/// Why a node gave no read index for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    /// This node does not lead the shard, and takes that one for the leader.
    NotLeader(Option<NodeId>),
    /// It leads, or should, and could not make sure in time.
    Failed(Failure),
}

/// What a replica must have reached before it answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// This entry of the shard's log is applied: with a read index, the read is linearizable.
    Applied(LogIndex),
    /// The replica heard of its leader within this time.
    MaxStaleness(Duration),
}

/// Takes a part of a snapshot; false = nobody wants more.
pub type GivePart<'a> = dyn FnMut(Vec<u8>) -> bool + 'a;

/// Gives the parts of a snapshot one after the other until its end, a failure, or nobody wants more. Run on a blocking
/// thread; giving a part waits while the receiver or the bound of bytes a second is behind.
pub type SnapshotParts = Box<dyn FnOnce(&mut GivePart<'_>) -> Result<(), Failure> + Send>;

/// Answers peers. Every method is cancelled by dropping its future when the caller goes away or its time is up.
pub trait PeerService: Send + Sync + 'static {
    /// A Raft message for `group`; its answer. Messages of one caller and lane come in the order they were sent.
    fn raft(&self, from: NodeId, group: u64, message: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;

    /// Commits a batch if this node leads the shard.
    fn write(
        &self,
        from: NodeId,
        shard: ShardId,
        batch: ShardBatch,
        limit: Duration,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>>;

    /// For each shard the log index up to which a replica must have applied to see everything acknowledged so far.
    fn read_index(&self, shards: Vec<ShardId>) -> BoxFuture<'_, Vec<Result<LogIndex, ReadRefusal>>>;

    /// This node's replica of the shard, once it is as far as needed.
    fn replica(&self, shard: ShardId, need: Need) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>>;

    /// Evaluates a plan fragment, which carries its own deadline, into a partial; both opaque here.
    fn fragment(&self, from: NodeId, fragment: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;

    /// A request about the cluster (joining, status, settings, commands for the meta group); opaque here.
    fn meta(&self, from: &Identity, body: Bytes) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;

    /// The parts of the state that `what` (opaque here) names. What a broken transfer left at the caller stands in
    /// `what`, so that it need not be sent again.
    fn snapshot(&self, from: NodeId, what: Bytes) -> BoxFuture<'_, Result<SnapshotParts, Failure>>;
}
