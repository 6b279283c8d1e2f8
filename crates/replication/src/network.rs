//! Raft's way to other nodes: openraft's network over the peers of `rpc`.
//!
//! A message goes to a replica by its node's connections, which all groups share; the replica's id stands beside it.
//! Entries take the data lane, everything else the control lane, where it never waits behind entries. A heartbeat that is
//! due by the clock may wait a few milliseconds so that those of other groups share its frame; one that a read asked for
//! goes at once.

use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, OptionalSend};
use rpc::{Lane, PeerError};
use tokio::time::Instant;

use crate::calls::Calls;
use crate::machine::VirtualSnapshot;
use crate::space::Spaceless;
use crate::types::{Peer, RaftVote, Types};
use crate::wire::{Answer, Message};

/// How long entries may take to be on the peer's disk. A slow disk there must not look like a dead peer; heartbeats tell
/// those apart.
const APPEND_LIMIT: Duration = Duration::from_secs(2);
/// How long a peer may take to fetch a group's state.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);
/// Heartbeats that are due by the clock have this distance (openraft's interval is 200 ms).
const BY_CLOCK: Duration = Duration::from_millis(195);

/// Makes connections of one group.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    peers: Arc<dyn Calls>,
    spaceless: Arc<Spaceless>,
    /// The replica here.
    from: u64,
}

impl Network {
    pub(crate) fn new(peers: Arc<dyn Calls>, spaceless: Arc<Spaceless>, from: u64) -> Self {
        Self { peers, spaceless, from }
    }
}

/// The way to one replica.
pub(crate) struct Connection {
    peers: Arc<dyn Calls>,
    spaceless: Arc<Spaceless>,
    from: u64,
    to: u64,
    node: NodeId,
    heartbeat: Option<Instant>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        Connection {
            peers: Arc::clone(&self.peers),
            spaceless: Arc::clone(&self.spaceless),
            from: self.from,
            to: target,
            node: NodeId(node.node),
            heartbeat: None,
        }
    }
}

impl Connection {
    async fn ask(
        &self,
        message: Message,
        lane: Lane,
        patient: bool,
        limit: Duration,
        action: RPCTypes,
    ) -> Result<Answer, RPCError<Types>> {
        let answer = self.peers.raft(self.node, lane, self.to, message.encode(), patient, limit).await;
        let answer = answer.map_err(|error| match error {
            PeerError::Timeout { .. } => {
                RPCError::Timeout(Timeout { action, id: self.from, target: self.to, timeout: limit })
            }
            error => self.unreachable(&error),
        })?;
        Answer::decode(answer).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> RPCError<Types> {
        RPCError::Unreachable(Unreachable::new(&AnyError::error(format!("replica {}: {error}", self.to))))
    }

    fn unexpected(&self) -> RPCError<Types> {
        self.unreachable(&"it answered something else")
    }

    /// Whether a heartbeat now is one that the clock asked for.
    fn by_clock(&mut self) -> bool {
        let now = Instant::now();
        let before = self.heartbeat.replace(now);
        before.is_some_and(|before| now.duration_since(before) >= BY_CLOCK)
    }
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = VirtualSnapshot;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (lane, patient, limit) = if request.entries.is_empty() {
            (Lane::Control, self.by_clock(), option.soft_ttl())
        } else {
            (Lane::Data, false, APPEND_LIMIT)
        };
        let (at_beginning, has_entries) = (request.prev_log_id.is_none(), !request.entries.is_empty());
        let answer =
            self.ask(Message::Append(request), lane, patient, limit, RPCTypes::AppendEntries).await?;
        match answer {
            // Nothing comes before the beginning, so nothing can differ there.
            Answer::Append(AppendEntriesResponse::Conflict) if at_beginning => Err(self.unexpected()),
            Answer::Append(answer) => {
                if has_entries {
                    self.spaceless.clear(self.to);
                }
                Ok(answer)
            }
            Answer::NoSpace => {
                self.spaceless.note(self.to);
                Err(self.unreachable(&"its disk is full, its log takes no entries"))
            }
            _ => Err(self.unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = Message::Vote(request);
        match self.ask(message, Lane::Control, false, option.soft_ttl(), RPCTypes::Vote).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let message = Message::PreVote(request);
        match self.ask(message, Lane::Control, false, option.soft_ttl(), RPCTypes::Vote).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }

    /// The peer fetches the state itself, from this node, and answers when it has it.
    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<Types, VirtualSnapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let message = Message::Snapshot { vote, meta: snapshot.meta };
        let answer = tokio::select! {
            answer = self.ask(message, Lane::Data, false, SNAPSHOT_LIMIT, RPCTypes::InstallSnapshot) => answer?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Answer::Snapshot(answer) => Ok(answer),
            _ => Err(self.unexpected().into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let message = Message::Transfer(request);
        match self.ask(message, Lane::Control, false, option.soft_ttl(), RPCTypes::TransferLeader).await? {
            Answer::Transfer(answer) => Ok(answer),
            _ => Err(self.unexpected()),
        }
    }
}
