//! Identifiers: small newtypes, so that no id travels as a bare number or string.

use std::fmt;
use std::sync::Arc;

/// A tenant's name: 1 to 150 bytes of `A-Z a-z 0-9 _ . * ' ( ) ! -`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The longest tenant name, in bytes.
    pub const MAX_LEN: usize = 150;

    /// The tenant `name`, or what is wrong with the name.
    pub fn new(name: &str) -> Result<Self, String> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.*'()!-".contains(&b);
        if name.is_empty() || name.len() > Self::MAX_LEN {
            return Err(format!("tenant id must have 1 to {} bytes, has {}", Self::MAX_LEN, name.len()));
        }
        if name == "." || name == ".." || !name.bytes().all(ok) {
            return Err("tenant id may hold only letters, digits and _.*'()!- and not be . or ..".into());
        }
        Ok(Self(name.into()))
    }

    /// The tenant of a server with tenancy off, and of requests that name none.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// A shard of the data: one Raft group. Never reused within a cluster.
    ShardId(u32)
}
number_id! {
    /// A node (one process with one data folder) of the cluster.
    NodeId(u64)
}
number_id! {
    /// A replica of a shard: Raft's node id. Issued by the meta group for each (shard, placement) and
    /// never used again.
    ReplicaId(u64)
}
number_id! {
    /// A version of the shard map, or of one shard's range.
    Epoch(u64)
}
number_id! {
    /// A position in one group's Raft log.
    LogIndex(u64)
}
number_id! {
    /// A series inside one shard: allocated by the shard's leader, never reused.
    SeriesRef(u64)
}
