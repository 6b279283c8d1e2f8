//! Bytes of other people's formats, to and from the model: remote write, remote read, OTLP, text exposition, OpenMetrics,
//! the protobuf exposition, snappy blocks and gzip, and the headers by which their versions are chosen.
//!
//! Everything here is a function of its arguments: no sockets, no tenants' limits, no routing. Whatever is
//! allocated is bounded by the size of the input and by [`RequestLimits`]; no input makes it panic.
//!
//! Reading order: [`remote_write`] (over [`snappy`] and the protobuf reader in `wire`), [`text`], [`protobuf`],
//! [`otlp`] (over [`gzip`]), [`buckets`] (layouts of native histograms), [`negotiate`].

pub mod buckets;
pub mod expose;
mod float;
pub mod gzip;
pub mod negotiate;
pub mod otlp;
pub mod protobuf;
pub mod remote_read;
pub mod remote_write;
mod series_text;
pub mod snappy;
pub mod text;
mod wire;
mod wire_write;

pub use float::{NORMAL_NAN, format_float, parse_float};

/// What one request may hold, whatever its sender; 0 switches a limit off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Series, and likewise metadata entries.
    pub max_series: usize,
    /// Floats and histograms together, and likewise exemplars.
    pub max_samples: usize,
    /// Bytes of labels after expansion, where a format may repeat them by reference.
    pub max_label_bytes: usize,
}

impl RequestLimits {
    /// The limit of label bytes, or where none is set what offsets of 32 bits reach.
    pub(crate) fn label_bytes(&self) -> usize {
        if self.max_label_bytes == 0 { i32::MAX as usize } else { self.max_label_bytes }
    }
}

impl Default for RequestLimits {
    /// 20,000 series, 100,000 samples, 32 MiB of labels.
    fn default() -> Self {
        Self { max_series: 20_000, max_samples: 100_000, max_label_bytes: 32 << 20 }
    }
}

/// Why bytes were not accepted. Nothing of a request that fails so has been used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A limit would be exceeded.
    #[error("{what}: {found} is over the limit of {limit}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is, at least.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// Not a snappy block.
    #[error("snappy: {0}")]
    Snappy(String),
    /// Not a gzip stream.
    #[error("gzip: {0}")]
    Gzip(String),
    /// JSON that is damaged or does not fit its schema.
    #[error("json: {0}")]
    Json(String),
    /// Protobuf that is cut short or does not fit its schema.
    #[error("protobuf: {problem} in {place} at offset {offset}")]
    Wire {
        /// The message or field, as in `timeseries.samples`.
        place: &'static str,
        /// Offset in the decompressed body.
        offset: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Exposition text that does not follow its grammar.
    #[error("line {line}: {problem}")]
    Text {
        /// Line, from 1.
        line: usize,
        /// What is wrong, with a short piece of the text.
        problem: String,
    },
    /// A histogram of an exposition that contradicts itself.
    #[error("histogram {family:?}: {problem}")]
    Histogram {
        /// Its family.
        family: String,
        /// What is wrong.
        problem: String,
    },
    /// A header that names nothing that is understood.
    #[error("{0}")]
    Header(String),
}

impl From<DecodeError> for model::Failure {
    fn from(error: DecodeError) -> Self {
        let code = match error {
            DecodeError::TooLarge { .. } => model::Code::TooMany,
            _ => model::Code::Invalid,
        };
        Self::new(code, error.to_string())
    }
}

/// Fails when `found` is over `limit`, unless the limit is off.
fn check_limit(what: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if limit != 0 && found > limit {
        return Err(DecodeError::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}
