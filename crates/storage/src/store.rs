//! One node's storage: one database, its shards, the meta group's table.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::seam::StorageStatus;
use model::{ReplicaId, ShardId, TenantId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::kv::{Kv, RocksConfig, RocksKv};
use crate::log::NodeLog;
use crate::metrics::Metrics;
use crate::shard::Shard;
use crate::transfer::{Incoming, Subject};
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
    /// The log that holds the entries: what they made of a shard is stored only once they are on the disk there, since a
    /// state ahead of its log looks as if part of the log had been lost. Default none.
    pub log: Option<Arc<NodeLog>>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            max_late_samples: 1_000_000,
            late_window_ms: 2 * 3_600_000,
            log: None,
        }
    }
}

/// One node's storage.
#[derive(Debug)]
pub struct Store {
    kv: Arc<dyn Kv>,
    config: StoreConfig,
    metrics: Metrics,
    meta: MetaTable,
    shards: Mutex<BTreeMap<ShardId, (ReplicaId, Arc<Shard>)>>,
}

impl Store {
    /// Opens (or makes) the database in `dir`, which the caller has locked.
    pub fn open(dir: &Path, config: StoreConfig, registry: &mut Registry) -> Result<Arc<Self>, StorageError> {
        let rocks =
            RocksConfig { cache_bytes: config.cache_bytes, write_buffer_bytes: config.write_buffer_bytes };
        Self::with_kv(Arc::new(RocksKv::open(dir, &rocks)?), config, registry)
    }

    /// The same over any key-value store.
    pub fn with_kv(
        kv: Arc<dyn Kv>,
        config: StoreConfig,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, StorageError> {
        let metrics = Metrics::new(registry);
        let meta = MetaTable::open(Arc::clone(&kv))?;
        Ok(Arc::new(Self { kv, config, metrics, meta, shards: Mutex::default() }))
    }

    /// The replica of `shard` on this node, with its durable state loaded (empty when it is new). The same handle for
    /// the same shard. Fails when the data belongs to another replica id.
    pub fn shard(&self, shard: ShardId, replica: ReplicaId) -> Result<Arc<Shard>, StorageError> {
        let mut shards = self.shards.lock();
        if let Some((known, handle)) = shards.get(&shard) {
            if *known == replica {
                return Ok(Arc::clone(handle));
            }
            return Err(StorageError::Open {
                path: format!("data of shard {shard}"),
                message: format!("it is open as replica {known}, not {replica}"),
            });
        }
        let kv = Arc::clone(&self.kv);
        let handle = Arc::new(Shard::open(shard, replica, kv, self.config.clone(), self.metrics.clone())?);
        shards.insert(shard, (replica, Arc::clone(&handle)));
        Ok(handle)
    }

    /// Replaces the state of what `incoming` is of by what it holds, whether or not the shard is open; a shard's becomes
    /// the state of `replica`. Durable when it returns; to be done again after a crash.
    pub fn install(
        &self,
        subject: Subject,
        replica: ReplicaId,
        incoming: &Incoming,
    ) -> Result<(), StorageError> {
        match subject {
            Subject::Meta => self.meta.install(incoming),
            Subject::Shard(shard) => {
                let open = self.shards.lock().get(&shard).map(|(_, handle)| Arc::clone(handle));
                match open {
                    Some(handle) => handle.install(replica, incoming),
                    None => crate::shard::replace(&*self.kv, shard, replica, incoming),
                }
            }
        }
    }

    /// The meta group's table.
    pub fn meta(&self) -> &MetaTable {
        &self.meta
    }

    /// Flushes several shards (and the meta table) with one flush of the database: cheaper than one by one.
    pub fn flush(&self, shards: &[Arc<Shard>]) -> Result<(), StorageError> {
        let meta = self.meta.before_flush();
        let mut pending = Vec::with_capacity(shards.len());
        let mut failed = None;
        // In order of ids, so that two callers cannot wait for each other.
        let ordered: BTreeMap<ShardId, &Arc<Shard>> = shards.iter().map(|s| (s.id(), s)).collect();
        for shard in ordered.into_values() {
            match shard.begin_flush() {
                Ok(flush) => pending.extend(flush),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let flushed = self.kv.flush();
        if flushed.is_ok() {
            self.meta.after_flush(meta);
        }
        let message = flushed.as_ref().err().map(|e| (e.to_string(), e.is_disk_full()));
        for flush in pending {
            let result = match &message {
                None => Ok(()),
                Some((message, full)) => {
                    Err(StorageError::Io { what: "flush".into(), message: message.clone(), full: *full })
                }
            };
            // The first failure is given below.
            let _ = flush.end(result);
        }
        flushed?;
        failed.map_or(Ok(()), Err)
    }

    /// Figures over all shards opened so far, of one tenant or of all, each list cut to `limit`.
    pub fn status(&self, tenant: Option<&TenantId>, limit: usize) -> StorageStatus {
        let shards: Vec<Arc<Shard>> = self.shards.lock().values().map(|(_, s)| Arc::clone(s)).collect();
        crate::status::status(&shards, tenant, limit)
    }

    /// Makes a copy of the database in `dir`, which must not be there: of everything that was flushed before this call,
    /// and consistent. It shares files with this one, so it costs next to nothing and must lie on the same file system.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.kv.checkpoint(dir)
    }

    /// Bytes of the database's files.
    pub fn disk_bytes(&self) -> u64 {
        self.kv.disk_bytes()
    }
}
