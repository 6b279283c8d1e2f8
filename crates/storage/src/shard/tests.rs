//! Tests of a whole shard.
