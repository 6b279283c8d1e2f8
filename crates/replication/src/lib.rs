//! Replication: the shards and the meta group of a node as Raft groups over the node log and storage.
//!
//! The only crate that names openraft. A node alone is a cluster whose groups have one voter each; it runs the same
//! code as a node among many: nothing here asks how many voters there are. Reading order: [`folder`] (the data
//! directory), [`node`] (what is started, and the seams that are answered), `membership` over `forming` and `talk`
//! (forming, joining, following the cluster's state), `meta` with [`members`] and [`settings`] (that state), `tend`
//! (groups brought to what it says), `shard` (proposing), `group` (one Raft group), `log_store`, `machine` and `apply`
//! (openraft's storage over ours), `catch_up` (state from another node), `compare` (replicas are equal), `upkeep` (flush, purge, merge, disk guard), [`status`]. Nothing here knows PromQL,
//! HTTP or scraping.

pub mod config;
pub mod error;
pub mod folder;
pub mod members;
pub mod node;
pub mod settings;
pub mod status;

mod apply;
mod calls;
mod catch_up;
#[cfg(test)]
mod cluster_test;
mod coding;
mod compare;
mod forming;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod log_store;
mod machine;
mod membership;
mod meta;
mod metrics;
mod network;
#[cfg(test)]
mod node_test;
pub mod peer_service;
mod quarantine;
mod reach;
mod ready;
mod rest;
mod router;
#[cfg(test)]
mod router_test;
mod shard;
#[cfg(test)]
mod sim;
mod space;
#[cfg(test)]
mod suite_test;
mod talk;
mod tend;
mod types;
mod upkeep;
mod wire;

#[cfg(feature = "seeded_bugs")]
mod seeded;
#[cfg(feature = "seeded_bugs")]
pub use storage::log::SeededBug;

pub use config::{PeerTls, Peering, ReplicationConfig};
pub use error::ReplicationError;
pub use folder::DataFolder;
pub use node::{Progress, Replication, SalvageLine};
