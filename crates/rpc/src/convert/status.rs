//! Failures ⇄ messages, bytes and gRPC statuses.
//!
//! gRPC's code is for those who watch the wire; ours decides and travels in the status's details.

use std::time::Duration;

use model::{Code, Failure};
use prost::Message;
use tonic::Status;

use super::coding::Malformed;
use crate::wire;

const CODES: [Code; 11] = [
    Code::Internal,
    Code::Invalid,
    Code::Execution,
    Code::NotFound,
    Code::TooMany,
    Code::Unavailable,
    Code::WrongOwner,
    Code::Timeout,
    Code::Cancelled,
    Code::Corrupt,
    Code::Unimplemented,
];

/// The message for `failure`.
pub(crate) fn to_wire(failure: &Failure) -> wire::Failure {
    let code = CODES.iter().position(|code| *code == failure.code).unwrap_or(0);
    let retry =
        failure.retry_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
    wire::Failure { code: code as u32, message: failure.message.clone(), retry_after_ms: retry }
}

/// The failure in a message; a code of a newer version counts as internal.
pub(crate) fn from_wire(failure: wire::Failure) -> Failure {
    let code = CODES.get(failure.code as usize).copied().unwrap_or(Code::Internal);
    let retry_after = (failure.retry_after_ms != 0).then(|| Duration::from_millis(failure.retry_after_ms));
    Failure { code, message: failure.message, retry_after }
}

/// The bytes of `failure`.
pub fn encode(failure: &Failure) -> Vec<u8> {
    to_wire(failure).encode_to_vec()
}

/// Reads them back.
pub fn decode(bytes: &[u8]) -> Result<Failure, Malformed> {
    wire::Failure::decode(bytes).map(from_wire).map_err(|_| Malformed("not a failure"))
}

/// The status for `failure`.
pub(crate) fn to_status(failure: &Failure) -> Status {
    let code = match failure.code {
        Code::Invalid => tonic::Code::InvalidArgument,
        Code::Execution | Code::WrongOwner => tonic::Code::FailedPrecondition,
        Code::NotFound => tonic::Code::NotFound,
        Code::TooMany => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Timeout => tonic::Code::DeadlineExceeded,
        Code::Cancelled => tonic::Code::Cancelled,
        Code::Corrupt => tonic::Code::DataLoss,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
    };
    // Headers are small; the whole text is in the details too, which share their limit.
    let mut short = failure.clone();
    if short.message.len() > 4096 {
        let cut = short.message.floor_char_boundary(4096);
        short.message.truncate(cut);
    }
    Status::with_details(code, short.message.clone(), encode(&short).into())
}

/// The failure that a peer's service sent in a status; `None` when the status came from gRPC itself (a broken
/// connection, a message over the limit).
pub(crate) fn from_status(status: &Status) -> Option<Failure> {
    if status.details().is_empty() {
        return None;
    }
    decode(status.details()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_come_back_by_bytes_and_by_status() {
        for code in CODES {
            let failure =
                Failure { code, message: "ein Grund".into(), retry_after: Some(Duration::from_secs(2)) };
            assert_eq!(decode(&encode(&failure)), Ok(failure.clone()));
            assert_eq!(from_status(&to_status(&failure)), Some(failure));
        }
        assert_eq!(from_status(&Status::unavailable("h2")), None);
        let newer = wire::Failure { code: 99, message: "x".into(), retry_after_ms: 0 };
        assert_eq!(from_wire(newer), Failure::internal("x"));
        let long = Failure::internal("ä".repeat(10_000));
        assert_eq!(from_status(&to_status(&long)).map(|failure| failure.message.len()), Some(4096));
    }
}
