//! Raft messages between nodes ⇄ bytes.
//!
//! A version byte and a kind, then fixed-width numbers, little endian; entries as in the log: log id, kind, length,
//! bytes. The bytes of large entries are not copied when a message is read: they share the frame that it came in. `rpc`
//! carries the bytes; which group a message is for stands beside it.

use bytes::Bytes;
use openraft::entry::RaftEntry as _;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::coding::{decode_membership, encode_membership, log_id, term_of};
use crate::log_store::{from_stored, place, to_stored};
use crate::types::{RaftEntry, RaftLogId, RaftVote, SnapshotMeta, StoredMembership, Types};

const VERSION: u8 = 1;

const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const TRANSFER: u8 = 4;
const SNAPSHOT: u8 = 5;
const NO_SPACE: u8 = 6;

/// Entries from this size on share the frame's memory.
const SHARED: usize = 4096;

/// A message to a replica.
#[derive(Debug)]
pub(crate) enum Message {
    /// Entries, or a heartbeat.
    Append(AppendEntriesRequest<Types>),
    /// A request for a vote.
    Vote(VoteRequest<Types>),
    /// Whether it would vote.
    PreVote(VoteRequest<Types>),
    /// Take over the leadership.
    Transfer(TransferLeaderRequest<Types>),
    /// The log you need is gone: fetch the state from the sender.
    Snapshot {
        /// The leader's vote.
        vote: RaftVote,
        /// Up to where the state goes.
        meta: SnapshotMeta,
    },
}

/// The answer to a message.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    Snapshot(SnapshotResponse<Types>),
    /// To entries: the disk is full, the log takes none.
    NoSpace,
}

/// Bytes that are no message or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed Raft message: {0}")]
pub(crate) struct Malformed(&'static str);

type Result<T> = std::result::Result<T, Malformed>;

struct Out(Vec<u8>);

impl Out {
    fn new(kind: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 64);
        bytes.extend_from_slice(&[VERSION, kind]);
        Self(bytes)
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn id(&mut self, id: Option<&RaftLogId>) {
        self.byte(u8::from(id.is_some()));
        if let Some(id) = id {
            self.number(term_of(id));
            self.number(id.index());
        }
    }

    fn vote(&mut self, vote: &RaftVote) {
        let leader = vote.leader_id();
        self.number(leader.term);
        self.number(leader.voted_for);
        self.byte(u8::from(vote.is_committed()));
    }

    fn entry(&mut self, entry: RaftEntry) {
        let stored = to_stored(entry);
        self.number(stored.id.term);
        self.number(stored.id.index);
        self.byte(stored.tag);
        self.bytes(&stored.bytes);
    }
}

struct In(Bytes);

impl In {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.0.first().ok_or(Malformed("cut off"))?;
        let _ = self.0.split_to(1);
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let number = u64::from_le_bytes(*self.0.first_chunk().ok_or(Malformed("cut off"))?);
        let _ = self.0.split_to(8);
        Ok(number)
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let len = self.number()?;
        if len > self.0.len() as u64 {
            return Err(Malformed("cut off"));
        }
        let len = len as usize;
        let bytes = self.0.split_to(len);
        Ok(if len < SHARED { Bytes::copy_from_slice(&bytes) } else { bytes })
    }

    fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    fn id(&mut self) -> Result<Option<RaftLogId>> {
        if !self.flag()? {
            return Ok(None);
        }
        Ok(Some(log_id(self.number()?, self.number()?)))
    }

    fn vote(&mut self) -> Result<RaftVote> {
        let (term, node) = (self.number()?, self.number()?);
        Ok(if self.flag()? { RaftVote::new_committed(term, node) } else { RaftVote::new(term, node) })
    }

    fn entry(&mut self) -> Result<RaftEntry> {
        let id = storage::log::LogId { term: self.number()?, index: self.number()? };
        let entry = storage::log::LogEntry { id, tag: self.byte()?, bytes: self.bytes()? };
        from_stored(entry).map_err(|_| Malformed("an entry does not decode"))
    }

    fn head(bytes: Bytes) -> Result<(u8, Self)> {
        let mut bytes = Self(bytes);
        if bytes.byte()? != VERSION {
            return Err(Malformed("an unknown version"));
        }
        Ok((bytes.byte()?, bytes))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

impl Message {
    /// Its bytes.
    pub(crate) fn encode(self) -> Bytes {
        let out = match self {
            Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }) => {
                let bytes = entries.iter().map(|entry| size(entry) + 25).sum();
                let mut out = Out::new(APPEND, bytes);
                out.vote(&vote);
                out.id(prev_log_id.as_ref());
                out.id(leader_commit.as_ref());
                out.number(entries.len() as u64);
                for entry in entries {
                    out.entry(entry);
                }
                out
            }
            Self::Vote(request) => vote_request(VOTE, &request),
            Self::PreVote(request) => vote_request(PRE_VOTE, &request),
            Self::Transfer(request) => {
                let mut out = Out::new(TRANSFER, 0);
                out.vote(request.from_leader());
                out.number(*request.to_node_id());
                out.id(request.last_log_id());
                out
            }
            Self::Snapshot { vote, meta } => {
                let mut out = Out::new(SNAPSHOT, 0);
                out.vote(&vote);
                out.id(meta.last_log_id.as_ref());
                out.id(meta.last_membership.log_id().as_ref());
                out.bytes(&encode_membership(meta.last_membership.membership()));
                out
            }
        };
        out.0.into()
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let (kind, mut bytes) = In::head(bytes)?;
        let message = match kind {
            APPEND => {
                let vote = bytes.vote()?;
                let (prev_log_id, leader_commit) = (bytes.id()?, bytes.id()?);
                let count = bytes.number()?;
                // An entry takes 25 bytes at least.
                if count > bytes.0.len() as u64 / 25 {
                    return Err(Malformed("it announces more entries than it has"));
                }
                let mut entries: Vec<RaftEntry> = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let entry = bytes.entry()?;
                    let before = entries.last().map(RaftEntry::log_id).or(prev_log_id);
                    if before.is_some_and(|before| {
                        before.index().checked_add(1) != Some(place(&entry.log_id()).index)
                    }) {
                        return Err(Malformed("its entries do not follow each other"));
                    }
                    entries.push(entry);
                }
                Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            VOTE | PRE_VOTE => {
                let mut request = VoteRequest::new(bytes.vote()?, bytes.id()?);
                request.leadership_transfer = bytes.flag()?;
                if kind == VOTE { Self::Vote(request) } else { Self::PreVote(request) }
            }
            TRANSFER => {
                Self::Transfer(TransferLeaderRequest::new(bytes.vote()?, bytes.number()?, bytes.id()?))
            }
            SNAPSHOT => {
                let vote = bytes.vote()?;
                let (last_log_id, at) = (bytes.id()?, bytes.id()?);
                let membership = decode_membership(&bytes.bytes()?);
                let membership = membership.ok_or(Malformed("a membership does not decode"))?;
                let last_membership = StoredMembership::new(at, membership);
                Self::Snapshot { vote, meta: SnapshotMeta { last_log_id, last_membership } }
            }
            _ => return Err(Malformed("an unknown kind of message")),
        };
        bytes.end()?;
        Ok(message)
    }
}

/// About how many bytes `entry` takes.
pub(crate) fn size(entry: &RaftEntry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => proposal.0.len(),
        openraft::EntryPayload::Blank | openraft::EntryPayload::Membership(_) => 256,
    }
}

fn vote_request(kind: u8, request: &VoteRequest<Types>) -> Out {
    let mut out = Out::new(kind, 0);
    out.vote(&request.vote);
    out.id(request.last_log_id.as_ref());
    out.byte(u8::from(request.leadership_transfer));
    out
}

impl Answer {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let out = match self {
            Self::Append(answer) => {
                let mut out = Out::new(APPEND, 0);
                match answer {
                    AppendEntriesResponse::Success => out.byte(0),
                    AppendEntriesResponse::PartialSuccess(upto) => {
                        out.byte(1);
                        out.id(upto.as_ref());
                    }
                    AppendEntriesResponse::Conflict => out.byte(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.byte(3);
                        out.vote(vote);
                    }
                }
                out
            }
            Self::Vote(answer) => {
                let mut out = Out::new(VOTE, 0);
                out.vote(&answer.vote);
                out.byte(u8::from(answer.vote_granted));
                out.id(answer.last_log_id.as_ref());
                out
            }
            Self::Transfer(answer) => {
                let mut out = Out::new(TRANSFER, 0);
                match answer {
                    Ok(()) => out.byte(0),
                    Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                        out.byte(1);
                        out.vote(expected);
                        out.vote(actual);
                    }
                    Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                        out.byte(2);
                        out.id(expected.as_ref());
                        out.id(actual.as_ref());
                    }
                }
                out
            }
            Self::Snapshot(answer) => {
                let mut out = Out::new(SNAPSHOT, 0);
                out.vote(&answer.vote);
                out
            }
            Self::NoSpace => Out::new(NO_SPACE, 0),
        };
        out.0
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let (kind, mut bytes) = In::head(bytes)?;
        let answer = match kind {
            APPEND => Self::Append(match bytes.byte()? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(bytes.id()?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(bytes.vote()?),
                _ => return Err(Malformed("an unknown answer to entries")),
            }),
            VOTE => {
                let (vote, granted) = (bytes.vote()?, bytes.flag()?);
                Self::Vote(VoteResponse::new(vote, bytes.id()?, granted))
            }
            TRANSFER => Self::Transfer(match bytes.byte()? {
                0 => Ok(()),
                1 => Err(TransferLeaderError::VoteChanged { expected: bytes.vote()?, actual: bytes.vote()? }),
                2 => Err(TransferLeaderError::LogNotFlushed { expected: bytes.id()?, actual: bytes.id()? }),
                _ => return Err(Malformed("an unknown answer to a transfer")),
            }),
            NO_SPACE => Self::NoSpace,
            SNAPSHOT => Self::Snapshot(SnapshotResponse::new(bytes.vote()?)),
            _ => return Err(Malformed("an unknown kind of answer")),
        };
        bytes.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::EntryPayload;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Membership, Peer, Proposal};

    fn id() -> impl Strategy<Value = Option<RaftLogId>> {
        prop::option::of((1..u64::MAX, 0..u64::MAX / 2).prop_map(|(term, index)| log_id(term, index)))
    }

    fn vote() -> impl Strategy<Value = RaftVote> {
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, node, committed)| {
            if committed { RaftVote::new_committed(term, node) } else { RaftVote::new(term, node) }
        })
    }

    fn membership() -> Membership {
        let nodes: BTreeMap<u64, Peer> = (1..4).map(|id| (id, Peer { node: id * 10 })).collect();
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], nodes).unwrap()
    }

    fn payload() -> impl Strategy<Value = EntryPayload<Proposal, u64, Peer>> {
        prop_oneof![
            Just(EntryPayload::Blank),
            Just(EntryPayload::Membership(membership())),
            prop::collection::vec(any::<u8>(), 0..6000)
                .prop_map(|bytes| EntryPayload::Normal(Proposal(bytes.into()))),
        ]
    }

    prop_compose! {
        fn append()(
            vote in vote(),
            prev in id(),
            leader_commit in id(),
            payloads in prop::collection::vec(payload(), 0..6),
        ) -> Message {
            let first = prev.as_ref().map_or(0, |prev| prev.index() + 1);
            let entries = payloads.into_iter().enumerate();
            let entries = entries.map(|(n, payload)| RaftEntry::new(log_id(7, first + n as u64), payload)).collect();
            Message::Append(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit })
        }
    }

    fn message() -> impl Strategy<Value = Message> {
        let request = |(vote, last, transfer)| {
            let mut request = VoteRequest::new(vote, last);
            request.leadership_transfer = transfer;
            request
        };
        prop_oneof![
            append(),
            (vote(), id(), any::<bool>()).prop_map(move |all| Message::Vote(request(all))),
            (vote(), id(), any::<bool>()).prop_map(move |all| Message::PreVote(request(all))),
            (vote(), any::<u64>(), id())
                .prop_map(|(vote, to, last)| Message::Transfer(TransferLeaderRequest::new(vote, to, last))),
            (vote(), id(), id()).prop_map(|(vote, last_log_id, at)| Message::Snapshot {
                vote,
                meta: SnapshotMeta { last_log_id, last_membership: StoredMembership::new(at, membership()) },
            }),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            Just(Answer::Append(AppendEntriesResponse::Success)),
            Just(Answer::Append(AppendEntriesResponse::Conflict)),
            id().prop_map(|upto| Answer::Append(AppendEntriesResponse::PartialSuccess(upto))),
            vote().prop_map(|vote| Answer::Append(AppendEntriesResponse::HigherVote(vote))),
            (vote(), id(), any::<bool>())
                .prop_map(|(vote, last, granted)| Answer::Vote(VoteResponse::new(vote, last, granted))),
            Just(Answer::Transfer(Ok(()))),
            (vote(), vote()).prop_map(|(expected, actual)| {
                Answer::Transfer(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }),
            (id(), id()).prop_map(|(expected, actual)| {
                Answer::Transfer(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }),
            vote().prop_map(|vote| Answer::Snapshot(SnapshotResponse::new(vote))),
            Just(Answer::NoSpace),
        ]
    }

    /// Everything of a message, with the bytes of proposals, which their text leaves out.
    fn text(message: &Message) -> String {
        let Message::Append(request) = message else { return format!("{message:?}") };
        let bytes: Vec<&[u8]> = request
            .entries
            .iter()
            .filter_map(|entry| match &entry.payload {
                EntryPayload::Normal(proposal) => Some(&proposal.0[..]),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            })
            .collect();
        format!("{message:?} {bytes:?}")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_come_back(message in message()) {
            let expected = text(&message);
            let bytes = message.encode();
            prop_assert_eq!(text(&Message::decode(bytes.clone()).unwrap()), expected);
            for cut in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
                prop_assert!(Message::decode(bytes.slice(..cut)).is_err(), "cut at {}", cut);
            }
        }

        #[test]
        fn answers_come_back(answer in answer()) {
            let expected = format!("{answer:?}");
            let bytes = Bytes::from(answer.encode());
            prop_assert_eq!(format!("{:?}", Answer::decode(bytes.clone()).unwrap()), expected);
            for cut in 0..bytes.len() {
                prop_assert!(Answer::decode(bytes.slice(..cut)).is_err(), "cut at {}", cut);
            }
        }

        #[test]
        fn garbage_is_an_error_or_a_value(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..7_u8) {
            let _ = Message::decode(bytes.clone().into());
            let _ = Answer::decode(bytes.clone().into());
            if bytes.len() > 1 {
                bytes[0] = VERSION;
                bytes[1] = kind;
            }
            let _ = Message::decode(bytes.clone().into());
            let _ = Answer::decode(bytes.into());
        }
    }

    #[test]
    fn entries_must_follow_each_other() {
        let entry = |index| RaftEntry::new(log_id(1, index), EntryPayload::Blank);
        let request = |prev: Option<RaftLogId>, entries| {
            let request = AppendEntriesRequest {
                vote: RaftVote::new_committed(1, 1),
                prev_log_id: prev,
                entries,
                leader_commit: None,
            };
            Message::decode(Message::Append(request).encode())
        };
        assert!(request(Some(log_id(1, 4)), vec![entry(5), entry(6)]).is_ok());
        assert!(request(None, vec![entry(5), entry(7)]).is_err(), "a gap");
        assert!(request(Some(log_id(1, 4)), vec![entry(6)]).is_err(), "a gap after the one before");
        assert!(request(Some(log_id(1, u64::MAX)), vec![entry(0)]).is_err(), "past the end of numbers");
    }
}
