//! Replication: the shards and the meta group of a node as Raft groups over the node log and storage.
//!
//! The only crate that names openraft. A node alone is a cluster whose groups have one voter each; it runs the same
//! code as a node among many: nothing here asks how many voters there are. Reading order: [`folder`] (the data
//! directory), [`node`] (what is started, and the seams that are answered), `shard` (proposing and reading),
//! `group` (one Raft group), `log_store`, `machine` and `apply` (openraft's storage over ours), `meta` (cluster
//! state), `upkeep` (flush, purge, merge, disk guard). Nothing here knows PromQL, HTTP or scraping.

pub mod config;
pub mod error;
pub mod folder;
pub mod node;

mod apply;
mod coding;
mod group;
mod log_store;
mod machine;
mod meta;
mod metrics;
mod network;
#[cfg(test)]
mod node_test;
mod shard;
#[cfg(test)]
mod suite_test;
mod types;
mod upkeep;

pub use config::ReplicationConfig;
pub use error::ReplicationError;
pub use folder::DataFolder;
pub use node::{Progress, Replication, SalvageLine};
