//! Why a call to a peer gave no answer of its service.

use std::time::Duration;

use model::{Code, Failure, NodeId};

use crate::convert::Malformed;

/// When callers should come back to a peer that cannot be reached.
const RETRY: Duration = Duration::from_secs(1);

/// A call that failed. Unless it says otherwise it is not known whether the peer carried the call out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No address is known for the node: nothing was sent.
    #[error("no address is known for node {0:?}")]
    UnknownNode(NodeId),
    /// The peer could not be reached, or the connection broke.
    #[error("peer {peer} cannot be reached: {reason}")]
    Unreachable {
        /// Node and address.
        peer: String,
        /// What happened.
        reason: String,
    },
    /// The peer or this node refused the other in the handshake; a retry helps only after somebody changed a setting.
    #[error("peer {peer}: {reason}")]
    Refused {
        /// Node and address.
        peer: String,
        /// Which rule was broken.
        reason: String,
    },
    /// No answer in time.
    #[error("peer {peer} did not answer within {after:?}")]
    Timeout {
        /// Node and address.
        peer: String,
        /// The limit of the call.
        after: Duration,
    },
    /// The answer does not decode.
    #[error("peer {peer}: {what}")]
    Malformed {
        /// Node and address.
        peer: String,
        /// What is wrong with it.
        what: Malformed,
    },
    /// The peer's service answered with a failure.
    #[error("{0}")]
    Failed(Failure),
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Failed(failure) => failure,
            PeerError::Timeout { .. } => {
                Self { retry_after: Some(RETRY), ..Self::new(Code::Timeout, error.to_string()) }
            }
            PeerError::Malformed { .. } => Self::internal(error.to_string()),
            PeerError::UnknownNode(_) | PeerError::Unreachable { .. } | PeerError::Refused { .. } => {
                Self::unavailable(error.to_string(), RETRY)
            }
        }
    }
}

/// Settings of the peer transport that cannot be used: files that are missing or do not fit each other.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct SetupError {
    /// The file or setting.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SetupError {
    pub(crate) fn new(what: impl Into<String>, reason: &(impl ToString + ?Sized)) -> Self {
        Self { what: what.into(), reason: reason.to_string() }
    }
}
