//! Storage of one node: the node log, shards' state machines (head, pages, index) and the meta group's table.
//!
//! Reading order: [`entry`] (what a log entry says), [`head`] (what is in memory), [`page`] and [`index`] (what is
//! on disk), [`kv`] (the only place that names RocksDB), [`shard`] (plan, apply, flush, read), [`store`] (one node's
//! shards over one database), [`transfer`] (state on its way to another node), [`log`] (the shared segmented log). Knows nothing of Raft, tenants' policy or PromQL,
//! and starts no threads.

mod codec;
pub mod entry;
pub mod error;
pub mod head;
pub mod index;
pub mod kv;
pub mod log;
pub mod meta;
pub mod metrics;
pub mod page;
pub mod salvage;
pub mod shard;
mod status;
pub mod store;
pub mod transfer;

pub use error::StorageError;
pub use meta::{MetaPair, MetaTable, MetaWrite};
pub use shard::{Cleaned, FlushFigures, MergeProgress, Plan, Planned, Shard};
pub use store::{Store, StoreConfig};
pub use transfer::{Incoming, Subject};
