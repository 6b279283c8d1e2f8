//! What can go wrong when a node is started or stopped. What goes wrong with a read or write is a `Failure`.

use std::io;

use model::{Code, Failure};
use storage::StorageError;
use storage::log::LogError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The data folder is not one that may be opened: another cluster's, another program's, a newer version's.
    #[error("data folder {dir}: {reason}")]
    Refused {
        /// The folder.
        dir: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The system refused something on the data folder.
    #[error("data folder {dir}: {action}: {source}")]
    Io {
        /// The folder or file.
        dir: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The node log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A Raft group stopped or did not start.
    #[error("group {group}: {reason}")]
    Group {
        /// Which group.
        group: String,
        /// What openraft said.
        reason: String,
    },
    /// The peer port's secret or certificates.
    #[error("peer port: {0}")]
    Peering(#[from] rpc::SetupError),
    /// State of the cluster does not decode or contradicts itself.
    #[error("cluster state: {0}")]
    Meta(String),
}

impl ReplicationError {
    pub(crate) fn io(dir: impl Into<String>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let dir = dir.into();
        move |source| Self::Io { dir, action, source }
    }

    /// Whether there was no space on the disk: then a retry helps once there is.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_disk_full())
    }

    pub(crate) fn group(group: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Group { group: group.into(), reason: reason.to_string() }
    }
}

impl From<ReplicationError> for Failure {
    fn from(error: ReplicationError) -> Self {
        match error {
            ReplicationError::Storage(error) => error.into(),
            ReplicationError::Log(LogError::Damaged { .. }) => Self::new(Code::Corrupt, error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}
