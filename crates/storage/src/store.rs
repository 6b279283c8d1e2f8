//! One node's storage: one database, its shards, the meta group's table.

use std::path::Path;
use std::sync::Arc;

use model::seam::StorageStatus;
use model::{ReplicaId, ShardId};
use prometheus_client::registry::Registry;

use crate::shard::Shard;
use crate::{MetaTable, StorageError};

/// Settings of [`Store::open`].
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes of decompressed blocks kept in memory for reads, over all shards. Default 64 MiB.
    pub cache_bytes: usize,
    /// Bytes that one column family may hold in memory before it is flushed. Default 32 MiB.
    pub write_buffer_bytes: usize,
    /// Late samples in memory of one shard above which further ones are rejected as out of order until the next flush.
    /// Default 1,000,000.
    pub max_late_samples: usize,
    /// How long after its end a day's index is sealed, ms. Default 2 h.
    pub late_window_ms: i64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            max_late_samples: 1_000_000,
            late_window_ms: 2 * 3_600_000,
        }
    }
}

/// One node's storage.
#[derive(Debug)]
pub struct Store {
    meta: MetaTable,
}

impl Store {
    /// Opens (or makes) the database in `dir`, which the caller has locked.
    pub fn open(_dir: &Path, _config: StoreConfig, _registry: &mut Registry) -> Result<Arc<Self>, StorageError> {
        Err(StorageError::corrupt("store", "not built yet"))
    }

    /// The replica of `shard` on this node, with its durable state loaded (empty when it is new). The same handle for
    /// the same shard. Fails when the data belongs to another replica id.
    pub fn shard(&self, _shard: ShardId, _replica: ReplicaId) -> Result<Arc<Shard>, StorageError> {
        Err(StorageError::corrupt("store", "not built yet"))
    }

    /// The meta group's table.
    pub fn meta(&self) -> &MetaTable {
        &self.meta
    }

    /// Flushes several shards (and the meta table) with one flush of the database: cheaper than one by one.
    pub fn flush(&self, _shards: &[Arc<Shard>]) -> Result<(), StorageError> {
        Err(StorageError::corrupt("store", "not built yet"))
    }

    /// Figures over all shards opened so far, each list cut to `limit`.
    pub fn status(&self, _limit: usize) -> StorageStatus {
        StorageStatus::default()
    }

    /// Bytes of the database's files.
    pub fn disk_bytes(&self) -> u64 {
        0
    }
}
