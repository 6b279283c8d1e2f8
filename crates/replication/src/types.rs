//! What openraft is told about our types: terms and ids are numbers, entries are opaque bytes, one leader a term.

use std::fmt;

use bytes::Bytes;
use model::seam::ShardReport;
use openraft::impls::leader_id_std;

/// What is proposed: the bytes of one log entry.
#[derive(Clone)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry gave.
#[derive(Clone, Debug, Default)]
pub(crate) enum Applied {
    /// A blank or membership entry.
    #[default]
    Nothing,
    /// A shard's entry: a report for each batch in it.
    Reports(Vec<ShardReport>),
    /// A meta command: whether its conditions held.
    Meta(bool),
}

/// A replica's node, beside its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The node that the replica is on.
    pub(crate) node: u64,
}

openraft::declare_raft_types!(
    /// Types of all groups.
    pub(crate) Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Peer,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

pub(crate) type RaftLogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type RaftEntry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type RaftVote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;
