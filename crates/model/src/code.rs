//! The short list of failure codes that crosses crate and wire borders, and the failure that carries one.
//!
//! Each crate has its own error enum for what its callers may do differently; at a seam it becomes a
//! [`Failure`]. The translation to HTTP lives in `api/error.rs` alone, the one to gRPC in `rpc/status.rs`.

use std::fmt;
use std::time::Duration;

/// What kind of failure it is: what a caller, here or on another node, decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is wrong; the same request will fail again.
    Invalid,
    /// The request is well formed but cannot be carried out on this data (a PromQL execution error).
    Execution,
    /// The named thing does not exist.
    NotFound,
    /// A limit or budget was exceeded; the message names the limit and its value.
    TooMany,
    /// Something needed is not available just now (no leader, full disk, overload): a retry may succeed.
    Unavailable,
    /// The shard is owned by another node, or the request was routed by an old epoch.
    WrongOwner,
    /// The deadline passed.
    Timeout,
    /// The caller went away or cancelled.
    Cancelled,
    /// Stored data failed its checksum or does not decode.
    Corrupt,
    /// The feature is not there (yet).
    Unimplemented,
    /// A defect of ours.
    Internal,
}

/// A failure with its code, a message for people (lower case, no full stop, names the place) and, where a
/// retry makes sense, how long to wait before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a program decides by.
    pub code: Code,
    /// What a person reads.
    pub message: String,
    /// How long to wait before a retry, where one makes sense.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of `code` with `message` and no retry hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// [`Code::Invalid`] with `message`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// [`Code::Internal`] with `message`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// [`Code::Unavailable`] with `message` and a retry hint.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { code: Code::Unavailable, message: message.into(), retry_after: Some(retry_after) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
