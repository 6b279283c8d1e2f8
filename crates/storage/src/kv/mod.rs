//! The key-value store beneath: the only place that names RocksDB.
