//! What a log entry of a shard says, and its byte coding.
