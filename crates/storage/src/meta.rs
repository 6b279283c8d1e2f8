//! The meta group's state: a small ordered key-value table with the mark of the log position it stands at.

use model::LogIndex;

use crate::StorageError;

/// One change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaWrite {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes `key`, if it is there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// The meta group's table. What was applied is visible at once and durable after the next [`MetaTable::flush`] (or any
/// shard's flush that began later); the log covers the rest.
#[derive(Debug)]
pub struct MetaTable {}

impl MetaTable {
    /// The value of `key`.
    pub fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Err(StorageError::corrupt("meta", "not built yet"))
    }

    /// All pairs whose key begins with `prefix`, ascending.
    pub fn scan(&self, _prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StorageError> {
        Err(StorageError::corrupt("meta", "not built yet"))
    }

    /// Makes all `writes` or none, and moves the mark to (`index`, `mark`); replaying an index that is already applied
    /// changes nothing.
    pub fn apply(&self, _index: LogIndex, _writes: &[MetaWrite], _mark: &[u8]) -> Result<(), StorageError> {
        Err(StorageError::corrupt("meta", "not built yet"))
    }

    /// Position and mark of the last apply.
    pub fn mark(&self) -> (LogIndex, Vec<u8>) {
        (LogIndex(0), Vec::new())
    }

    /// Position and mark that survive a crash.
    pub fn durable(&self) -> (LogIndex, Vec<u8>) {
        (LogIndex(0), Vec::new())
    }

    /// Makes everything applied so far durable and gives its index.
    pub fn flush(&self) -> Result<LogIndex, StorageError> {
        Err(StorageError::corrupt("meta", "not built yet"))
    }
}
