//! What can go wrong with the node log, for those who must decide what to do about it.

use std::io;
use std::sync::Arc;

use super::GroupId;

/// An error of the node log. Cheap to clone: one failed flush answers everybody who waits.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A file could not be created, opened, read or listed.
    #[error("node log {place}: {action}: {source}")]
    Io {
        /// Folder or file.
        place: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A write or fsync failed before: nothing is accepted any more until the process is restarted, because
    /// after a failed fsync nobody knows what is on the disk.
    #[error("node log {place}: stopped for good, since {reason}; repair the disk and restart")]
    Failed {
        /// Folder.
        place: String,
        /// The first failure.
        reason: Arc<str>,
    },
    /// A record that had been fsynced does not pass its checksum or is missing. Only this group is affected.
    #[error("node log: group {group} is damaged at {at}: {what}; `isobar tsdb salvage` keeps what is whole")]
    Damaged {
        /// The group.
        group: GroupId,
        /// Which entry or state.
        at: String,
        /// File, place and finding.
        what: Arc<str>,
    },
    /// A segment file is not there though others prove that it was.
    #[error(
        "node log {place}: segment {name} is missing; put the file back, or `isobar tsdb salvage` keeps what is whole"
    )]
    SegmentMissing {
        /// Folder.
        place: String,
        /// File name.
        name: String,
    },
    /// A segment was written by a newer version of the program.
    #[error(
        "node log {place}: {name} has format version {version}, this program reads up to {known}; use the newer program"
    )]
    NewerFormat {
        /// Folder.
        place: String,
        /// File name.
        name: String,
        /// Its version.
        version: u8,
        /// Ours.
        known: u8,
    },
    /// An append would leave a hole.
    #[error("node log: group {group}: append of index {index} would leave a hole after {last:?}")]
    Hole {
        /// The group.
        group: GroupId,
        /// The index to be appended.
        index: u64,
        /// The last index there.
        last: Option<u64>,
    },
    /// An entry is longer than a record may be.
    #[error("node log: group {group}: entry {index} has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// The group.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The entries asked for were purged or never written.
    #[error("node log: group {group} does not hold entry {index}")]
    NotThere {
        /// The group.
        group: GroupId,
        /// The first entry that is not there.
        index: u64,
    },
    /// The log is closed.
    #[error("node log: closed")]
    Closed,
}

impl LogError {
    pub(crate) fn io(place: impl Into<String>, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let place = place.into();
        move |source| Self::Io { place, action, source: Arc::new(source) }
    }
}
