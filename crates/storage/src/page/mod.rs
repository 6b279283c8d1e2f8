//! Pages: the chunks of up to 64 neighbouring slots of one source, over one stretch of time, as one value of the
//! database.
//!
//! A page keeps each distinct column of stamps once; a series refers to a column, with the rows that it misses if
//! it misses some. Reading one series decodes its column of stamps (once a page) and its own bytes, nothing else.
//!
//! | file | story |
//! |---|---|
//! | `format.rs` | header and tables ⇄ bytes (drawn in `FORMAT.md`) |
//! | `presence.rs` | which rows of a column a series has ⇄ bytes |
//! | `build.rs` | series → a page |
//! | `read.rs` | a page → the samples of one series |
//! | `join.rs` | the samples of one series from several places → one sequence; the rule for duplicates |
//! | `merge.rs` | consecutive pages → larger pages |
//!
//! Not here: which source, shard or day a page belongs to (that is in its key), the database, labels.

mod build;
#[cfg(test)]
pub(crate) mod example;
mod format;
mod join;
mod merge;
mod presence;
mod read;
#[cfg(test)]
mod tests;

pub use build::{PageBuilder, PageSummary, SeriesInput};
pub use join::{Precedence, join};
pub use merge::{Mask, MergeInput, merge};
pub use read::{PageReader, PageScratch, PageSeries};

use chunk::ChunkError;
use model::LogIndex;

/// The most series in a page.
pub const MAX_SERIES: usize = 64;

/// The most rows (samples) of one series in a page.
pub const MAX_ROWS: usize = 4096;

/// What can go wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Written by a newer version, or not a page.
    #[error("page has format version {0}, this program knows {known}", known = format::VERSION)]
    Version(u8),
    /// The checksum does not fit the bytes.
    #[error("page checksum is {found:08x}, its bytes give {expected:08x}")]
    Checksum {
        /// What stands in the page.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// Header or tables do not decode, though the checksum fits.
    #[error("page holds an impossible {0}")]
    Format(&'static str),
    /// A column of a series does not decode, though the checksum fits.
    #[error("page series of slot {slot}: {error}")]
    Series {
        /// The series' slot.
        slot: u32,
        /// What is wrong with its bytes.
        error: ChunkError,
    },
    /// A column of stamps does not decode, though the checksum fits.
    #[error("page stamp column {column}: {error}")]
    Stamps {
        /// Number of the column.
        column: usize,
        /// What is wrong with its bytes.
        error: ChunkError,
    },
    /// The caller's series cannot be put into a page.
    #[error("series of slot {slot} cannot be put into a page: {what}")]
    Input {
        /// The series' slot.
        slot: u32,
        /// Which rule it breaks.
        what: &'static str,
    },
}

/// What a page says of all its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMeta {
    /// Log index at which it was sealed; of a merged page, the lowest of its parts.
    pub sequence: LogIndex,
    /// Of a merged page, the highest log index of its parts; else the same as `sequence`.
    pub last_sequence: LogIndex,
    /// Whether it holds late rows: samples that came when their slot already had a newer one.
    pub late: bool,
}

impl PageMeta {
    /// A page of rows in order, sealed at `sequence`.
    pub fn in_order(sequence: LogIndex) -> Self {
        Self { sequence, last_sequence: sequence, late: false }
    }

    /// A page of late rows, sealed at `sequence`.
    pub fn late(sequence: LogIndex) -> Self {
        Self { sequence, last_sequence: sequence, late: true }
    }

    /// Which of two samples at one timestamp stays.
    pub fn precedence(&self) -> Precedence {
        Precedence { late: self.late, sequence: self.sequence }
    }
}
