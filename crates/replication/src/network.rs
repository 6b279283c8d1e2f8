//! Raft's way to other nodes: openraft's network over the peers of `rpc`.
//!
//! A message goes to a replica by its node's connections, which all groups share; the replica's id stands beside it.
//! Large entries take the data lane, everything else the control lane, where it never waits behind those; small entries
//! too, because Raft's runtime serves that lane: on their way to the other log they need no other thread. A heartbeat
//! that is due by the clock may wait a few milliseconds so that those of other groups share its frame; one that a read
//! asked for goes at once.
//!
//! After each commit openraft has an append without entries for every follower, which tells of it. Under load the next
//! entries tell it just as well: such an append waits a little for them, and is then left out.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::Fuse;
use futures::{Stream, StreamExt};
use model::NodeId;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
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
use crate::wire::{self, Answer, Message};

/// How long entries may take to be on the peer's disk. A slow disk there must not look like a dead peer; heartbeats tell
/// those apart.
const APPEND_LIMIT: Duration = Duration::from_secs(2);
/// How long a peer may take to fetch a group's state.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);
/// Bytes of entries up to which an append takes the control lane.
const SMALL: usize = 16 << 10;
/// Heartbeats that are due by the clock have this distance (openraft's interval is 200 ms).
const BY_CLOCK: Duration = Duration::from_millis(195);

/// What an append gave.
type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// How long an append that only tells what is committed waits for entries to go with.
const COMMIT_WAIT: Duration = Duration::from_millis(20);

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

/// Appends of `input` one after the other, without those that the next one makes needless: an append without entries says
/// nothing that the one after it does not say. One after which the input ends (a heartbeat, a probe) does not wait.
fn without_needless<S>(input: S) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static
where
    S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
{
    let next = |mut input: Fuse<S>| async move {
        let mut request = input.next().await?;
        let until = Instant::now() + COMMIT_WAIT;
        while request.entries.is_empty() {
            match tokio::time::timeout_at(until, input.next()).await {
                Ok(Some(next)) => request = next,
                Ok(None) | Err(_) => break,
            }
        }
        Some((request, input))
    };
    // Fused: a request that the end of the input let go is followed by one more look at it.
    Box::pin(futures::stream::unfold(input.fuse(), next))
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = VirtualSnapshot;

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, without_needless(input), option)
    }

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (lane, patient, limit) = match request.entries.iter().map(wire::size).sum::<usize>() {
            0 if request.entries.is_empty() => (Lane::Control, self.by_clock(), option.soft_ttl()),
            0..=SMALL => (Lane::Control, false, APPEND_LIMIT),
            _ => (Lane::Data, false, APPEND_LIMIT),
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

#[cfg(test)]
mod tests {
    use futures::channel::mpsc::{UnboundedReceiver, unbounded};
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::coding::log_id;
    use crate::types::{RaftEntry, RaftLogId};

    /// An append after entry `prev` with so many entries, which says that entries up to `committed` are.
    fn append(prev: u64, entries: u64, committed: u64) -> AppendEntriesRequest<Types> {
        let entries =
            (1..=entries).map(|n| RaftEntry::new(log_id(1, prev + n), EntryPayload::Blank)).collect();
        let vote = RaftVote::new_committed(1, 1);
        let (prev_log_id, leader_commit) = (Some(log_id(1, prev)), Some(log_id(1, committed)));
        AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }
    }

    /// What `request` says: previous index, entries, committed.
    fn said(request: &AppendEntriesRequest<Types>) -> (u64, usize, u64) {
        let index = |id: &Option<RaftLogId>| id.as_ref().map_or(0, RaftLogId::index);
        (index(&request.prev_log_id), request.entries.len(), index(&request.leader_commit))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_committed_is_told_with_entries_or_soon() {
        let (sender, input): (_, UnboundedReceiver<_>) = unbounded();
        // As openraft's, it may not be asked again once it has ended.
        let input = futures::stream::unfold(input, |mut input| async { Some((input.next().await?, input)) });
        let mut output = without_needless(Box::pin(input));
        let begun = Instant::now();
        let send = |request| sender.unbounded_send(request).unwrap();
        // Entries go at once, also with others behind them.
        send(append(4, 2, 4));
        send(append(6, 1, 4));
        assert_eq!(output.next().await.map(|r| said(&r)), Some((4, 2, 4)));
        assert_eq!(output.next().await.map(|r| said(&r)), Some((6, 1, 4)));
        // What only tells a commit is left out when more follows.
        send(append(7, 0, 6));
        send(append(7, 0, 7));
        send(append(7, 3, 7));
        assert_eq!(output.next().await.map(|r| said(&r)), Some((7, 3, 7)));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // When nothing follows it goes after a while.
        send(append(10, 0, 10));
        assert_eq!(output.next().await.map(|r| said(&r)), Some((10, 0, 10)));
        assert_eq!(begun.elapsed(), COMMIT_WAIT);
        // At the end of the input nothing waits.
        send(append(10, 0, 11));
        drop(sender);
        assert_eq!(output.next().await.map(|r| said(&r)), Some((10, 0, 11)));
        assert!(output.next().await.is_none());
        assert_eq!(begun.elapsed(), COMMIT_WAIT);
    }
}
