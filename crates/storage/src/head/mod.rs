//! What of a shard is in memory: series, slots, open tiles, sealed pages.
