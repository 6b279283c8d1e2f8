//! Where things live: the placement key of a series, the source of its rows, and the shard map that says which
//! shard holds a key at which sample time.
//!
//! And which nodes get replicas, votes and leaderships.
//!
//! Pure functions of their arguments. Who stores a shard map, who hands it around and who carries out what is placed
//! is not decided here, and neither Raft nor the network is known.
//!
//! Reading order: [`placement`] (labels to key), [`shard_map`] (key and time to shard), [`coding`] (the map as
//! bytes), [`replicas`] (shards to nodes).

pub mod coding;
pub mod placement;
pub mod replicas;
pub mod shard_map;

pub use placement::{Placement, SourceKey, family_key, place, placement_key, source_key};
pub use shard_map::{KeyRange, MapVersion, ShardMap, day_of};

/// Why a shard map, or its bytes, is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The bytes end early or hold an impossible number.
    #[error("shard map bytes are damaged at offset {0}")]
    Damaged(usize),
    /// Bytes follow the end of the map.
    #[error("shard map has {0} bytes too many")]
    Trailing(usize),
    /// The map was made under a placement scheme that this build does not know.
    #[error("placement scheme {0} is not known, this build knows {known}", known = shard_map::SCHEME)]
    UnknownScheme(u32),
    /// The list of versions is empty, not ascending, or does not begin with the beginning of time.
    #[error("shard map version {0} is out of order")]
    VersionOrder(usize),
    /// The ranges of a version do not begin at key 0 or are not strictly ascending.
    #[error("key range {range} of shard map version {version} is out of order")]
    RangeOrder {
        /// Index of the version.
        version: usize,
        /// Index of the range in it.
        range: usize,
    },
}
