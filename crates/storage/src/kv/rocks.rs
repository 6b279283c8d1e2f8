//! The store on RocksDB: own write-ahead log off, all families flushed together, checksums verified on every read.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBRawIterator, ErrorKind, FlushOptions, LogLevel, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::{Batch, Change, Cursor, Family, Kv};
use crate::StorageError;

/// Bytes of disk beyond what is written that must stay free: for manifests, and for a compaction under way.
const ROOM: u64 = 16 << 20;

/// Memory bounds of a [`RocksKv`].
#[derive(Clone, Copy, Debug)]
pub struct RocksConfig {
    /// Bytes of decompressed blocks kept for reads.
    pub cache_bytes: usize,
    /// Bytes a family may hold in memory.
    pub write_buffer_bytes: usize,
}

impl Default for RocksConfig {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, write_buffer_bytes: 32 << 20 }
    }
}

/// A store on RocksDB.
pub struct RocksKv {
    db: DB,
}

impl std::fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksKv").field("path", &self.db.path()).finish()
    }
}

impl RocksKv {
    /// Opens or makes the database in `dir`.
    pub fn open(dir: &Path, config: &RocksConfig) -> Result<Self, StorageError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_max_background_jobs(2);
        options.set_db_write_buffer_size(config.write_buffer_bytes.saturating_mul(2));
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(512);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        let cache = Cache::new_lru_cache(config.cache_bytes);
        // RocksDB leaves its read-only state after a full disk by itself once the largest write buffer fits: its own
        // family, which stays empty, must not ask for more than ours.
        let mut unused = Options::default();
        unused.set_write_buffer_size(1 << 20);
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, config, &cache)))
            .into_iter()
            .chain([ColumnFamilyDescriptor::new("default", unused)]);
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|error| match error.kind() {
            ErrorKind::Corruption => {
                StorageError::corrupt(format!("database {}", dir.display()), error.to_string())
            }
            _ => StorageError::Open { path: dir.display().to_string(), message: error.to_string() },
        })?;
        Ok(Self { db })
    }

    /// Refuses when the disk lacks room for what is about to be written: RocksDB that ran into a full disk refuses every
    /// write until it has recovered, so it is kept from running into one.
    fn expect_room(&self, what: &str, bytes: u64) -> Result<(), StorageError> {
        let stat = rustix::fs::statvfs(self.db.path()).map_err(|e| StorageError::Io {
            what: format!("database: {what}"),
            message: format!("cannot tell the free space: {e}"),
            full: false,
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < bytes.saturating_add(ROOM) {
            return Err(StorageError::Io {
                what: format!("database: {what}"),
                message: format!(
                    "{free} bytes are free on the disk, {bytes} and a reserve of {ROOM} are needed"
                ),
                full: true,
            });
        }
        Ok(())
    }

    /// Bytes that a flush would write at most.
    fn unflushed(&self) -> u64 {
        Family::ALL
            .into_iter()
            .filter_map(|f| self.family(f).ok())
            .filter_map(|h| {
                self.db.property_int_value_cf(&h, "rocksdb.cur-size-all-mem-tables").ok().flatten()
            })
            .sum()
    }

    fn family(&self, family: Family) -> Result<std::sync::Arc<rocksdb::BoundColumnFamily<'_>>, StorageError> {
        self.db.cf_handle(family.name()).ok_or_else(|| {
            StorageError::corrupt("database", format!("column family {} is missing", family.name()))
        })
    }
}

fn family_options(family: Family, config: &RocksConfig, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(if family == Family::Pages { 32 << 10 } else { 16 << 10 });
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(config.write_buffer_bytes);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

fn io(what: &str, error: &rocksdb::Error) -> StorageError {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => StorageError::corrupt(format!("database ({what})"), message),
        _ => {
            let full = message.contains("No space left")
                || message.contains("NoSpace")
                || message.contains("Space limit");
            StorageError::Io { what: format!("database: {what}"), message, full }
        }
    }
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.db.get_cf(&self.family(family)?, key).map_err(|e| io("get", &e))
    }

    fn cursor(&self, family: Family) -> Box<dyn Cursor + '_> {
        match self.family(family) {
            Ok(handle) => {
                let mut options = ReadOptions::default();
                options.set_verify_checksums(true);
                Box::new(RocksCursor { iter: self.db.raw_iterator_cf_opt(&handle, options) })
            }
            Err(_) => Box::new(NoFamily(family)),
        }
    }

    fn write(&self, batch: Batch) -> Result<(), StorageError> {
        // A write may make RocksDB flush what is in memory; small ones do not, and go on also on a full disk.
        let bytes = |change: &Change| match change {
            Change::Put(_, key, value) => (key.len() + value.len()) as u64,
            Change::Delete(..) | Change::DeleteRange(..) => 64,
        };
        let in_memory = self.unflushed() + batch.changes.iter().map(bytes).sum::<u64>();
        if in_memory >= ROOM {
            self.expect_room("write", in_memory)?;
        }
        let mut changes = WriteBatch::default();
        // Each change is freed as soon as it is copied: a flush has them by the hundred thousand.
        for change in batch.changes {
            match change {
                Change::Put(family, key, value) => changes.put_cf(&self.family(family)?, key, value),
                Change::Delete(family, key) => changes.delete_cf(&self.family(family)?, key),
                Change::DeleteRange(family, from, until) => {
                    changes.delete_range_cf(&self.family(family)?, from.as_slice(), until.as_slice());
                }
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(changes, &options).map_err(|e| io("write", &e))
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.expect_room("flush", self.unflushed())?;
        let handles = Family::ALL.into_iter().map(|f| self.family(f)).collect::<Result<Vec<_>, _>>()?;
        let handles: Vec<_> = handles.iter().collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&handles, &options).map_err(|e| io("flush", &e))
    }

    fn drop_range(&self, family: Family, from: &[u8], until: &[u8]) -> Result<(), StorageError> {
        let handle = self.family(family)?;
        self.db.delete_file_in_range_cf(&handle, from, until).map_err(|e| io("drop files", &e))?;
        let mut batch = Batch::default();
        batch.delete_range(family, from.to_vec(), until.to_vec());
        self.write(batch)
    }

    fn compact(&self, family: Family, from: &[u8], until: &[u8]) -> Result<(), StorageError> {
        // Only what is in files can be compacted.
        self.flush()?;
        let handle = self.family(family)?;
        let mut options = CompactOptions::default();
        // The last level holds what was removed, so it is rewritten too.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        self.db.compact_range_cf_opt(&handle, Some(from), Some(until), &options);
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StorageError> {
        self.expect_room("checkpoint", self.unflushed())?;
        let checkpoint = Checkpoint::new(&self.db).map_err(|e| io("checkpoint", &e))?;
        checkpoint.create_checkpoint(dir).map_err(|e| io("checkpoint", &e))
    }

    fn disk_bytes(&self) -> u64 {
        Family::ALL
            .into_iter()
            .filter_map(|f| self.family(f).ok())
            .filter_map(|h| self.db.property_int_value_cf(&h, "rocksdb.total-sst-files-size").ok().flatten())
            .sum()
    }
}

struct RocksCursor<'a> {
    iter: DBRawIterator<'a>,
}

impl Cursor for RocksCursor<'_> {
    fn seek(&mut self, key: &[u8]) {
        self.iter.seek(key);
    }

    fn advance(&mut self) {
        if self.iter.valid() {
            self.iter.next();
        }
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.iter.item()
    }

    fn check(&self) -> Result<(), StorageError> {
        self.iter.status().map_err(|e| io("read", &e))
    }
}

struct NoFamily(Family);

impl Cursor for NoFamily {
    fn seek(&mut self, _key: &[u8]) {}

    fn advance(&mut self) {}

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        None
    }

    fn check(&self) -> Result<(), StorageError> {
        Err(StorageError::corrupt("database", format!("column family {} is missing", self.0.name())))
    }
}
