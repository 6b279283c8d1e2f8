//! What can go wrong in storage, one variant for each thing a caller may do differently.

use model::{Code, Failure};

/// A failure of storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk or the database refused. A retry may succeed when `full` is set (no space left).
    #[error("{what}: {message}")]
    Io {
        /// What was being done, and where.
        what: String,
        /// What the system said.
        message: String,
        /// Whether the reason is a full disk.
        full: bool,
    },
    /// Stored bytes failed their checksum or do not decode; the place is named.
    #[error("{place} is damaged: {message}")]
    Corrupt {
        /// Which record.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// A log entry does not fit the state it is applied to: this replica or the proposer has diverged. Final.
    #[error("log entry {index} does not fit the state of shard {shard}: {message}")]
    Diverged {
        /// The shard.
        shard: u32,
        /// The log index.
        index: u64,
        /// What does not fit.
        message: String,
    },
    /// Data written by a newer version, or by something else.
    #[error("{place} has format version {found}, this program knows {known}")]
    Version {
        /// Which record.
        place: String,
        /// What was found.
        found: u32,
        /// What this program can read.
        known: u32,
    },
    /// The folder is not one that this program may open.
    #[error("cannot open {path}: {message}")]
    Open {
        /// The folder.
        path: String,
        /// Why not.
        message: String,
    },
    /// A failure that a seam reported (budget, cancellation).
    #[error(transparent)]
    Seam(#[from] Failure),
}

impl StorageError {
    /// Damage at `place`.
    pub fn corrupt(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Corrupt { place: place.into(), message: message.into() }
    }

    /// Whether the reason is a full disk.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { full: true, .. })
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let code = match &error {
            StorageError::Io { full: true, .. } => Code::Unavailable,
            StorageError::Corrupt { .. } => Code::Corrupt,
            StorageError::Seam(failure) => return failure.clone(),
            _ => Code::Internal,
        };
        Failure::new(code, error.to_string())
    }
}
