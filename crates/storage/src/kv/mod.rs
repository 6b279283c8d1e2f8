//! The key-value store beneath: ordered families of keys, atomic batches, durability only by an explicit flush.
//!
//! [`RocksKv`] is the only place that names RocksDB; [`MemoryKv`] is the same in memory for tests, with a durable and a
//! visible copy, so that a power cut can be played, and with faults that tests inject.

mod memory;
mod rocks;

use std::fmt::Debug;
use std::path::Path;

pub use memory::{Faults, MemoryKv};
pub use rocks::{RocksConfig, RocksKv};

use crate::StorageError;

/// The families of keys. A batch over several is atomic, and so is a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// State of shards: marks, series, slots, open tiles.
    State,
    /// Pages of samples.
    Pages,
    /// Sealed indexes.
    Index,
    /// The meta group's table.
    Meta,
    /// Damaged records that a salvage moved away.
    Quarantine,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::State, Self::Pages, Self::Index, Self::Meta, Self::Quarantine];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Pages => "pages",
            Self::Index => "index",
            Self::Meta => "meta",
            Self::Quarantine => "quarantine",
        }
    }
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Family, Vec<u8>),
    /// Removes all keys from the first (included) to the second (excluded).
    DeleteRange(Family, Vec<u8>, Vec<u8>),
}

impl Change {
    /// Of which family its keys are.
    pub fn family(&self) -> Family {
        match self {
            Self::Put(family, ..) | Self::Delete(family, _) | Self::DeleteRange(family, ..) => *family,
        }
    }
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order; a later one wins.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Sets `key` of `family`.
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(Change::Put(family, key, value));
    }

    /// Removes `key` of `family`.
    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.changes.push(Change::Delete(family, key));
    }

    /// Removes the keys of `family` from `from` (included) to `until` (excluded).
    pub fn delete_range(&mut self, family: Family, from: Vec<u8>, until: Vec<u8>) {
        self.changes.push(Change::DeleteRange(family, from, until));
    }
}

/// A position in the keys of one family, over the state at the time it was made.
pub trait Cursor {
    /// Moves to the first key that is not below `key`.
    fn seek(&mut self, key: &[u8]);
    /// Moves to the next key.
    fn advance(&mut self);
    /// The pair at the position; `None` at the end or after a failure.
    fn entry(&self) -> Option<(&[u8], &[u8])>;
    /// Whether a failure ended the walk.
    fn check(&self) -> Result<(), StorageError>;
}

/// An ordered key-value store.
pub trait Kv: Send + Sync + Debug {
    /// The value of `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;
    /// A cursor over `family`, not yet positioned.
    fn cursor(&self, family: Family) -> Box<dyn Cursor + '_>;
    /// Makes the changes visible; durable only after [`Kv::flush`].
    fn write(&self, batch: Batch) -> Result<(), StorageError>;
    /// Makes everything that was written before this call durable.
    fn flush(&self) -> Result<(), StorageError>;
    /// Drops all keys of `family` from `from` to `until` (excluded) for good, whole files where possible. Only for keys
    /// that nobody reads any more.
    fn drop_range(&self, family: Family, from: &[u8], until: &[u8]) -> Result<(), StorageError>;
    /// Gives the space of keys of `family` from `from` to `until` (excluded) that were removed or replaced back to the
    /// file system. Takes as long as reading and writing what is there.
    fn compact(&self, family: Family, from: &[u8], until: &[u8]) -> Result<(), StorageError>;
    /// Makes a copy of everything written so far in `dir`, which must not be there, that shares files with this store.
    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError>;
    /// Bytes of files.
    fn disk_bytes(&self) -> u64;
}

/// All pairs of `family` whose key begins with `prefix`, handed to `each` in ascending order.
pub fn scan_prefix(
    kv: &dyn Kv,
    family: Family,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut cursor = kv.cursor(family);
    cursor.seek(prefix);
    while let Some((key, value)) = cursor.entry() {
        if !key.starts_with(prefix) {
            break;
        }
        each(key, value)?;
        cursor.advance();
    }
    cursor.check()
}

/// The smallest key above all keys that begin with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exercise(kv: &dyn Kv) {
        let mut batch = Batch::default();
        for i in 0..10u8 {
            batch.put(Family::Pages, vec![1, i], vec![i]);
        }
        batch.put(Family::State, vec![7], vec![1]);
        batch.delete(Family::Pages, vec![1, 3]);
        batch.delete_range(Family::Pages, vec![1, 5], vec![1, 8]);
        kv.write(batch).unwrap();
        let mut seen = Vec::new();
        scan_prefix(kv, Family::Pages, &[1], |k, _| {
            seen.push(k[1]);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [0, 1, 2, 4, 8, 9]);
        assert_eq!(kv.get(Family::State, &[7]).unwrap(), Some(vec![1]));
        kv.flush().unwrap();
        kv.drop_range(Family::Pages, &[1, 0], &[1, 2]).unwrap();
        assert_eq!(kv.get(Family::Pages, &[1, 1]).unwrap(), None);
        assert_eq!(kv.get(Family::Pages, &[1, 2]).unwrap(), Some(vec![2]));
    }

    #[test]
    fn memory_and_rocks_do_the_same() {
        exercise(&MemoryKv::new());
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(dir.path(), &RocksConfig::default()).unwrap();
        exercise(&kv);
        drop(kv);
        let kv = RocksKv::open(dir.path(), &RocksConfig::default()).unwrap();
        assert_eq!(kv.get(Family::State, &[7]).unwrap(), Some(vec![1]));
    }

    #[test]
    fn a_power_cut_takes_what_was_not_flushed() {
        let kv = MemoryKv::new();
        let put = |k: u8| Batch { changes: vec![Change::Put(Family::State, vec![k], vec![k])] };
        kv.write(put(1)).unwrap();
        kv.flush().unwrap();
        kv.write(put(2)).unwrap();
        kv.cut_power();
        assert_eq!(kv.get(Family::State, &[1]).unwrap(), Some(vec![1]));
        assert_eq!(kv.get(Family::State, &[2]).unwrap(), None);
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
    }
}
