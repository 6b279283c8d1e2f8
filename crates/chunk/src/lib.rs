//! Columns of samples ⇄ compressed bytes, exact for every bit pattern.
//!
//! A *column* is what one series (or the stamps that many series share) holds in one page: floats, stamps
//! (any `i64`), or native histograms. [`Encoder`] makes columns out of slices, the `decode_*` functions append
//! to vectors that the caller reuses. A column's bytes describe themselves except for the number of rows and
//! their own length, which the page around them knows.
//!
//! | file | story |
//! |---|---|
//! | `bits.rs` | 32 integers of equal width ⇄ bits |
//! | `pack.rs` | integers ⇄ differences ⇄ mini-blocks with patches |
//! | `decimal.rs` | floats that are decimals ⇄ integers |
//! | `float.rs` | columns of floats: constant, decimal, near decimal, ordered bits, raw, and exceptions |
//! | `histogram.rs` | columns of native histograms |
//!
//! No label, index, file or clock is known here. The bytes are drawn in `crates/storage/FORMAT.md`; the choice
//! of codings follows the measurements behind it (exact decimals, differences, blocks of 32 with patches, as in
//! PFOR and VictoriaMetrics' decimal detection).
#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod bits;
mod bytes;
mod decimal;
mod float;
mod histogram;
mod pack;

pub use float::Tag;
pub use histogram::{is_same_layout, put_layout, read_layout_of};

use std::borrow::Borrow;
use std::sync::Arc;

use model::Histogram;

/// The most rows that a column may have; decoding more is refused before anything is allocated.
pub const MAX_ROWS: usize = 1 << 16;

/// Why bytes are not a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end before the column does.
    #[error("column is cut short at byte {0}")]
    Truncated(usize),
    /// The bytes do not end where the column does.
    #[error("column has {0} bytes too many")]
    Trailing(usize),
    /// The first byte names a coding that this version does not know.
    #[error("unknown column coding {0}")]
    UnknownTag(u8),
    /// A field holds what no encoder writes.
    #[error("column holds an impossible {0}")]
    Invalid(&'static str),
    /// More rows than [`MAX_ROWS`].
    #[error("column of {0} rows is larger than the limit of {MAX_ROWS}")]
    TooManyRows(usize),
}

/// Makes columns; keeps its scratch memory between calls.
#[derive(Debug, Default)]
pub struct Encoder {
    packer: pack::Packer,
    ints: Vec<i64>,
    distances: Vec<i64>,
    misses: Vec<u32>,
    exceptions: Vec<float::Exception>,
    exception_bytes: Vec<u8>,
    plane: Vec<f64>,
    spare: Vec<u8>,
    part: Vec<u8>,
}

impl Encoder {
    /// An encoder without scratch memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the column of `values` to `out` and says which coding it chose. No values, no bytes.
    pub fn values(&mut self, values: &[f64], out: &mut Vec<u8>) -> Tag {
        float::encode(self, values, out)
    }

    /// Appends the column of `stamps` to `out`: any integers, in any order; regular distances cost nothing.
    /// No stamps, no bytes.
    pub fn stamps(&mut self, stamps: &[i64], out: &mut Vec<u8>) {
        if !stamps.is_empty() {
            self.packer.encode(stamps, Tag::Integers as u8, 0, &[], out);
        }
    }

    /// Appends the column of `histograms` to `out`. No histograms, no bytes.
    pub fn histograms<H: Borrow<Histogram>>(&mut self, histograms: &[H], out: &mut Vec<u8>) {
        histogram::encode(self, histograms, out);
    }
}

/// Appends the `count` floats of the column `bytes` to `out`. After an error `out` may hold a part of them.
pub fn decode_values(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ChunkError> {
    float::decode(bytes, check_count(count)?, out)
}

/// Appends the `count` integers of the column `bytes` to `out`. After an error `out` may hold a part of them.
pub fn decode_stamps(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ChunkError> {
    if check_count(count)? == 0 {
        return bytes::expect_empty(bytes);
    }
    let mut reader = bytes::Reader::new(bytes);
    let head = pack::Head::read(&mut reader)?;
    if head.tag != Tag::Integers as u8 {
        return Err(ChunkError::UnknownTag(head.tag));
    }
    if head.has_exceptions || head.exponent != 0 {
        return Err(ChunkError::Invalid("flag of a stamp column"));
    }
    out.reserve(count);
    pack::decode(&head, &mut reader, count, |block| out.extend_from_slice(block))?;
    reader.finish()
}

/// Appends the `count` histograms of the column `bytes` to `out`. After an error `out` may hold a part of them.
pub fn decode_histograms(
    bytes: &[u8],
    count: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), ChunkError> {
    histogram::decode(bytes, check_count(count)?, out)
}

fn check_count(count: usize) -> Result<usize, ChunkError> {
    if count > MAX_ROWS { Err(ChunkError::TooManyRows(count)) } else { Ok(count) }
}
