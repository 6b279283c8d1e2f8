//! The request of a remote read (`prometheus.ReadRequest`).

use model::{MatchOp, Matcher, TimeRange};

use crate::wire::{Kind, Wire};
use crate::{DecodeError, check_limit};

/// Most queries of one request.
pub const MAX_QUERIES: usize = 100;

/// Most matchers of one query.
pub const MAX_MATCHERS: usize = 1_000;

/// A request of a remote read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// At most [`MAX_QUERIES`].
    pub queries: Vec<ReadQuery>,
    /// The first of the accepted kinds of answer that we know.
    pub response: ResponseKind,
}

/// One query of a request. Its hints are left aside: they never change the answer.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    /// From the first to the last timestamp, both included.
    pub range: TimeRange,
    /// At most [`MAX_MATCHERS`]; none means every series.
    pub matchers: Vec<Matcher>,
}

/// A kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// Samples in one snappy block.
    Samples,
    /// A stream of frames with chunks.
    Chunks,
}

/// The request that the decompressed `body` holds. Fails on anything that is not one, on an expression that is not
/// valid, on too many queries or matchers, and when no accepted kind of answer is known.
pub fn decode(body: &[u8]) -> Result<ReadRequest, DecodeError> {
    let mut wire = Wire::new(body, "read request");
    let mut queries = Vec::new();
    let mut accepted = Vec::new();
    while !wire.is_done() {
        let (field, kind) = wire.tag()?;
        match field {
            1 => {
                wire.expect(kind, Kind::Bytes)?;
                check_limit("queries of a read request", queries.len() + 1, MAX_QUERIES)?;
                queries.push(query(wire.message("queries")?)?);
            }
            2 => {
                let mut count = accepted.len();
                wire.varints(kind, |value| {
                    count += 1;
                    if count <= 16 {
                        accepted.push(value);
                    }
                })?;
            }
            _ => wire.skip(kind)?,
        }
    }
    let known = |value: &u64| match value {
        0 => Some(ResponseKind::Samples),
        1 => Some(ResponseKind::Chunks),
        _ => None,
    };
    let response = if accepted.is_empty() {
        ResponseKind::Samples
    } else {
        accepted.iter().find_map(known).ok_or_else(|| {
            DecodeError::Header(format!(
                "server does not support any of the requested response types: {accepted:?}; supported: SAMPLES, \
                 STREAMED_XOR_CHUNKS"
            ))
        })?
    };
    Ok(ReadRequest { queries, response })
}

fn query(mut wire: Wire<'_>) -> Result<ReadQuery, DecodeError> {
    let (mut start, mut end) = (0, 0);
    let mut matchers = Vec::new();
    while !wire.is_done() {
        let (field, kind) = wire.tag()?;
        match field {
            1 | 2 => {
                wire.expect(kind, Kind::Varint)?;
                let value = wire.varint()? as i64;
                if field == 1 {
                    start = value;
                } else {
                    end = value;
                }
            }
            3 => {
                wire.expect(kind, Kind::Bytes)?;
                check_limit("matchers of a query", matchers.len() + 1, MAX_MATCHERS)?;
                matchers.push(matcher(wire.message("queries.matchers")?)?);
            }
            _ => wire.skip(kind)?,
        }
    }
    Ok(ReadQuery { range: TimeRange::closed(start, end), matchers })
}

fn matcher(mut wire: Wire<'_>) -> Result<Matcher, DecodeError> {
    let (mut op, mut name, mut value) = (MatchOp::Equal, "", "");
    while !wire.is_done() {
        let (field, kind) = wire.tag()?;
        match field {
            1 => {
                wire.expect(kind, Kind::Varint)?;
                op = match wire.varint()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(wire.error("invalid matcher type")),
                };
            }
            2 | 3 => {
                wire.expect(kind, Kind::Bytes)?;
                let text = wire.text()?;
                if field == 2 {
                    name = text;
                } else {
                    value = text;
                }
            }
            _ => wire.skip(kind)?,
        }
    }
    if name.is_empty() {
        return Err(wire.error("matcher without a label name"));
    }
    Matcher::new(name, op, value).map_err(|error| {
        let shown: String = name.chars().take(64).collect();
        DecodeError::Header(format!("matcher of label {shown:?}: {error}"))
    })
}
