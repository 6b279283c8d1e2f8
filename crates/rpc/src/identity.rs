//! Who a node is to its peers, and what kinds of traffic have connections of their own.

use std::sync::Arc;

use arc_swap::ArcSwap;
use model::NodeId;

/// The version of everything nodes say to each other. A node refuses peers with a newer one than its own, since only
/// the newer program knows what changed.
pub const WIRE_VERSION: u16 = 1;

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name: the same on all its nodes, and in their certificates' SAN.
    pub cluster_name: String,
    /// The cluster's id, made when it was formed; 0 = this node has not joined yet. Two clusters of the same name differ.
    pub cluster_id: u64,
    /// The node; never 0.
    pub node: NodeId,
}

/// This node's identity, which changes once: when it joins.
pub type Me = Arc<ArcSwap<Identity>>;

/// Traffic that has a TCP connection of its own to each peer, so that it never waits behind other traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes, transfers, read indexes, meta calls: small, and always soon.
    Control,
    /// Log entries.
    Data,
    /// What clients cause: writes, selects, fragments; and snapshots.
    Request,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Request];

    /// The word in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Data => "data",
            Self::Request => "request",
        }
    }

    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}
