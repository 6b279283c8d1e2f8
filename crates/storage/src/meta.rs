//! The meta group's state: a small ordered key-value table with the mark of the log position it stands at.

use std::collections::HashSet;
use std::sync::Arc;

use model::LogIndex;
use parking_lot::Mutex;

use crate::StorageError;
use crate::codec::{Reader, open_record, put_bytes, put_varint, seal_record};
use crate::kv::{Batch, Family, Kv, scan_prefix};
use crate::transfer::{Give, Incoming, Packer, Subject};

/// Key of the mark; table keys follow a 1.
const MARK: [u8; 1] = [0];
const VERSION: u8 = 1;

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

/// A key and its value.
pub type MetaPair = (Vec<u8>, Vec<u8>);

/// The meta group's table. What was applied is visible at once and durable after the next [`MetaTable::flush`] (or any
/// shard's flush that began later); the log covers the rest.
#[derive(Debug)]
pub struct MetaTable {
    kv: Arc<dyn Kv>,
    marks: Mutex<Marks>,
}

#[derive(Debug)]
struct Marks {
    /// Whether anything was applied: index 0 is an index.
    any: bool,
    applied: (u64, Vec<u8>),
    durable: (u64, Vec<u8>),
}

fn table_key(key: &[u8]) -> Vec<u8> {
    [&[1], key].concat()
}

impl MetaTable {
    pub(crate) fn open(kv: Arc<dyn Kv>) -> Result<Self, StorageError> {
        let damaged =
            |e: crate::entry::DecodeError| StorageError::corrupt("mark of the meta table", e.to_string());
        let record = kv.get(Family::Meta, &MARK)?;
        let any = record.is_some();
        let mark = match record {
            None => (0, Vec::new()),
            Some(record) => {
                let mut reader = Reader::new(open_record(VERSION, &record).map_err(damaged)?);
                (reader.varint().map_err(damaged)?, reader.bytes().map_err(damaged)?.to_vec())
            }
        };
        Ok(Self { kv, marks: Mutex::new(Marks { any, applied: mark.clone(), durable: mark }) })
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match self.kv.get(Family::Meta, &table_key(key))? {
            None => Ok(None),
            Some(record) => unpack(key, &record).map(Some),
        }
    }

    /// All pairs whose key begins with `prefix`, ascending.
    pub fn scan(&self, prefix: &[u8]) -> Result<Vec<MetaPair>, StorageError> {
        let mut pairs = Vec::new();
        scan_prefix(&*self.kv, Family::Meta, &table_key(prefix), |key, record| {
            pairs.push((key[1..].to_vec(), unpack(&key[1..], record)?));
            Ok(())
        })?;
        Ok(pairs)
    }

    /// Makes all `writes` or none, and moves the mark to (`index`, `mark`); replaying an index that is already applied
    /// changes nothing.
    pub fn apply(&self, index: LogIndex, writes: &[MetaWrite], mark: &[u8]) -> Result<(), StorageError> {
        let mut marks = self.marks.lock();
        if marks.any && index.0 <= marks.applied.0 {
            return Ok(());
        }
        let mut batch = Batch::default();
        for write in writes {
            match write {
                MetaWrite::Put { key, value } => {
                    batch.put(Family::Meta, table_key(key), seal_record(VERSION, value));
                }
                MetaWrite::Delete { key } => batch.delete(Family::Meta, table_key(key)),
            }
        }
        let mut body = Vec::new();
        put_varint(&mut body, index.0);
        put_bytes(&mut body, mark);
        batch.put(Family::Meta, MARK.to_vec(), seal_record(VERSION, &body));
        self.kv.write(batch)?;
        marks.any = true;
        marks.applied = (index.0, mark.to_vec());
        Ok(())
    }

    /// Gives the table in pieces, as it is now.
    pub fn export(&self, known: &HashSet<u128>, give: &mut Give<'_>) -> Result<(), StorageError> {
        // Nothing is applied while it is read; it is small.
        let marks = self.marks.lock();
        let mark = (LogIndex(marks.applied.0), marks.applied.1.clone());
        let mut packer = Packer::begin(Subject::Meta, &mark, known, give);
        packer.part(Family::Meta);
        scan_prefix(&*self.kv, Family::Meta, &[], |key, record| {
            packer.record(key, record);
            Ok(())
        })?;
        packer.end();
        Ok(())
    }

    /// Replaces the table by what `incoming` holds, at once; durable when it returns.
    pub(crate) fn install(&self, incoming: &Incoming) -> Result<(), StorageError> {
        let mut marks = self.marks.lock();
        let mut batch = Batch::default();
        batch.delete_range(Family::Meta, Vec::new(), vec![0xff; 16]);
        incoming.each(|family, key, record| {
            if family != Family::Meta {
                return Err(StorageError::corrupt(
                    "meta state from another node",
                    "a record of another family",
                ));
            }
            batch.put(family, key.to_vec(), record.to_vec());
            Ok(())
        })?;
        self.kv.write(batch)?;
        self.kv.flush()?;
        if let Some((index, mark)) = incoming.mark() {
            marks.any = true;
            marks.applied = (index.0, mark.clone());
            marks.durable = marks.applied.clone();
        }
        Ok(())
    }

    /// Position and mark of the last apply.
    pub fn mark(&self) -> (LogIndex, Vec<u8>) {
        let marks = self.marks.lock();
        (LogIndex(marks.applied.0), marks.applied.1.clone())
    }

    /// Position and mark that survive a crash.
    pub fn durable(&self) -> (LogIndex, Vec<u8>) {
        let marks = self.marks.lock();
        (LogIndex(marks.durable.0), marks.durable.1.clone())
    }

    /// Makes everything applied so far durable and gives its index.
    pub fn flush(&self) -> Result<LogIndex, StorageError> {
        let applied = self.before_flush();
        self.kv.flush()?;
        self.after_flush(applied);
        Ok(self.durable().0)
    }

    /// The mark that the next flush of the database makes durable.
    pub(crate) fn before_flush(&self) -> (u64, Vec<u8>) {
        self.marks.lock().applied.clone()
    }

    /// A flush that began after `mark` was taken has succeeded.
    pub(crate) fn after_flush(&self, mark: (u64, Vec<u8>)) {
        let mut marks = self.marks.lock();
        if mark.0 >= marks.durable.0 {
            marks.durable = mark;
        }
    }
}

fn unpack(key: &[u8], record: &[u8]) -> Result<Vec<u8>, StorageError> {
    let place = || format!("meta record {:?}", String::from_utf8_lossy(key));
    open_record(VERSION, record)
        .map(<[u8]>::to_vec)
        .map_err(|e| StorageError::corrupt(place(), e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MemoryKv;

    #[test]
    fn applied_is_visible_and_durable_after_a_flush() {
        let kv = Arc::new(MemoryKv::new());
        let table = MetaTable::open(kv.clone()).unwrap();
        let put = |k: &str, v: &str| MetaWrite::Put { key: k.into(), value: v.into() };
        table.apply(LogIndex(3), &[put("a/1", "x"), put("a/2", "y"), put("b", "z")], b"m3").unwrap();
        assert_eq!(table.get(b"a/1").unwrap(), Some(b"x".to_vec()));
        assert_eq!(table.scan(b"a/").unwrap().len(), 2);
        assert_eq!(table.durable().0, LogIndex(0));
        assert_eq!(table.flush().unwrap(), LogIndex(3));
        table.apply(LogIndex(4), &[MetaWrite::Delete { key: b"b".to_vec() }], b"m4").unwrap();
        table.apply(LogIndex(4), &[put("b", "again")], b"m4").unwrap();
        assert_eq!(table.get(b"b").unwrap(), None);
        kv.cut_power();
        let table = MetaTable::open(kv.clone()).unwrap();
        assert_eq!(table.mark(), (LogIndex(3), b"m3".to_vec()));
        assert_eq!(table.get(b"b").unwrap(), Some(b"z".to_vec()));
        kv.damage(Family::Meta, &table_key(b"b"), |v| *v.last_mut().unwrap() ^= 1);
        assert!(matches!(table.get(b"b"), Err(StorageError::Corrupt { .. })));
    }
}
