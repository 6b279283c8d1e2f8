//! What a client gets back, in the coding in which it asked: `ExportMetricsServiceResponse` for a request that was
//! taken, wholly or in part, and `google.rpc.Status` for one that was not.

use super::Coding;
use crate::wire::{put_text, put_varint_field};

/// The numbers of `google.rpc.Code` that answers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusCode {
    /// The request is wrong; sending it again does not help.
    InvalidArgument = 3,
    /// A limit is exceeded.
    ResourceExhausted = 8,
    /// A defect.
    Internal = 13,
    /// Send it again later.
    Unavailable = 14,
}

impl Coding {
    /// The media type of that coding.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The body of the answer to a request of which `rejected` points were not stored; `message` says why, or warns.
pub fn partial_success(coding: Coding, rejected: u64, message: &str) -> Vec<u8> {
    let told = rejected > 0 || !message.is_empty();
    match coding {
        Coding::Protobuf => {
            let mut inner = Vec::new();
            put_varint_field(&mut inner, 1, rejected);
            put_text(&mut inner, 2, message);
            let mut out = Vec::new();
            if told {
                crate::wire::put_bytes(&mut out, 1, &inner);
            }
            out
        }
        Coding::Json if !told => b"{}".to_vec(),
        Coding::Json => {
            // 64-bit numbers are texts in protobuf's JSON.
            let inner = serde_json::json!({
                "rejectedDataPoints": rejected.to_string(),
                "errorMessage": message,
            });
            serde_json::json!({ "partialSuccess": inner }).to_string().into_bytes()
        }
    }
}

/// The body of the answer to a request that failed.
pub fn status(coding: Coding, code: StatusCode, message: &str) -> Vec<u8> {
    match coding {
        Coding::Protobuf => {
            let mut out = Vec::new();
            put_varint_field(&mut out, 1, code as u64);
            put_text(&mut out, 2, message);
            out
        }
        Coding::Json => {
            serde_json::json!({ "code": code as u8, "message": message }).to_string().into_bytes()
        }
    }
}
