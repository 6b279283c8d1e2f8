//! The store in memory, for tests: a visible and a durable copy, and faults to inject.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::{Batch, Change, Cursor, Family, Kv};
use crate::StorageError;

type Map = Arc<BTreeMap<(Family, Vec<u8>), Vec<u8>>>;

/// What shall go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Writes fail as on a full disk.
    pub full: bool,
    /// Those that fail so leave their changes of [`Family::State`], on the disk too, as if families were not flushed
    /// together: no store does, a test shows that this would be found.
    pub half: bool,
    /// Flushes fail.
    pub flush_fails: bool,
    /// Reads fail.
    pub read_fails: bool,
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryKv {
    visible: RwLock<Map>,
    durable: Mutex<Map>,
    faults: Mutex<Faults>,
    refused: AtomicU64,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    /// How many batches met a full disk so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Goes back to what the last flush made durable.
    pub fn cut_power(&self) {
        *self.visible.write() = self.durable.lock().clone();
    }

    /// Changes the stored value of a key in place, in both copies: damage that no checksum of ours foresaw.
    pub fn damage(&self, family: Family, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
        for map in [&mut *self.visible.write(), &mut *self.durable.lock()] {
            if let Some(value) = Arc::make_mut(map).get_mut(&(family, key.to_vec())) {
                change(value);
            }
        }
    }

    /// All keys of `family`.
    pub fn keys(&self, family: Family) -> Vec<Vec<u8>> {
        self.visible.read().keys().filter(|(f, _)| *f == family).map(|(_, k)| k.clone()).collect()
    }

    fn fail_if(&self, broken: impl Fn(&Faults) -> bool, full: bool) -> Result<(), StorageError> {
        if broken(&self.faults.lock()) {
            return Err(StorageError::Io {
                what: "memory store".into(),
                message: "injected fault".into(),
                full,
            });
        }
        Ok(())
    }
}

impl Kv for MemoryKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.fail_if(|f| f.read_fails, false)?;
        Ok(self.visible.read().get(&(family, key.to_vec())).cloned())
    }

    fn cursor(&self, family: Family) -> Box<dyn Cursor + '_> {
        let fails = self.faults.lock().read_fails;
        Box::new(MemoryCursor { map: self.visible.read().clone(), family, at: None, fails })
    }

    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        let faults = *self.faults.lock();
        if faults.full {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if faults.half {
                let mut half = batch.changes;
                half.retain(|change| change.family() == Family::State);
                change(&mut self.visible.write(), half.clone());
                change(&mut self.durable.lock(), half);
            }
            return self.fail_if(|f| f.full, true);
        }
        change(&mut self.visible.write(), batch.changes);
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.fail_if(|f| f.full, true)?;
        self.fail_if(|f| f.flush_fails, false)?;
        *self.durable.lock() = self.visible.read().clone();
        Ok(())
    }

    fn drop_range(&self, family: Family, from: &[u8], until: &[u8]) -> Result<(), StorageError> {
        for map in [&mut *self.visible.write(), &mut *self.durable.lock()] {
            remove_range(Arc::make_mut(map), family, from, until);
        }
        Ok(())
    }

    fn compact(&self, _: Family, _: &[u8], _: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        let message = "a store in memory has no files".to_owned();
        Err(StorageError::Io { what: dir.display().to_string(), message, full: false })
    }

    fn disk_bytes(&self) -> u64 {
        self.durable.lock().iter().map(|((_, k), v)| (k.len() + v.len()) as u64).sum()
    }
}

fn change(map: &mut Map, changes: Vec<Change>) {
    let map = Arc::make_mut(map);
    for change in changes {
        match change {
            Change::Put(family, key, value) => {
                map.insert((family, key), value);
            }
            Change::Delete(family, key) => {
                map.remove(&(family, key));
            }
            Change::DeleteRange(family, from, until) => remove_range(map, family, &from, &until),
        }
    }
}

fn remove_range(map: &mut BTreeMap<(Family, Vec<u8>), Vec<u8>>, family: Family, from: &[u8], until: &[u8]) {
    let gone: Vec<_> =
        map.range((family, from.to_vec())..(family, until.to_vec())).map(|(k, _)| k.clone()).collect();
    for key in gone {
        map.remove(&key);
    }
}

struct MemoryCursor {
    map: Map,
    family: Family,
    at: Option<(Family, Vec<u8>)>,
    fails: bool,
}

impl MemoryCursor {
    fn go(&mut self, bound: std::ops::Bound<(Family, Vec<u8>)>) {
        let next = self.map.range((bound, std::ops::Bound::Unbounded)).next();
        self.at = next.map(|(k, _)| k.clone()).filter(|(f, _)| *f == self.family && !self.fails);
    }
}

impl Cursor for MemoryCursor {
    fn seek(&mut self, key: &[u8]) {
        self.go(std::ops::Bound::Included((self.family, key.to_vec())));
    }

    fn advance(&mut self) {
        if let Some(at) = self.at.take() {
            self.go(std::ops::Bound::Excluded(at));
        }
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        let at = self.at.as_ref()?;
        Some((&at.1, self.map.get(at)?))
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.fails {
            return Err(StorageError::Io {
                what: "memory store".into(),
                message: "injected fault".into(),
                full: false,
            });
        }
        Ok(())
    }
}
