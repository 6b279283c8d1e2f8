//! Remote write: decompressed protobuf bodies to [`WriteBatch`]es, pulled series by series without structs of their
//! own. Labels are not decoded here: a series' label region is named by its place in the buffer, and decoded by
//! [`WriteBatch::decode_labels`] when it is new to whoever asks.
//!
//! Version 1.0 lives in [`v1`], 2.0 in [`v2`], histograms of both in `histogram`.

mod histogram;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use model::TenantId;
use model::seam::WriteBatch;

use crate::{DecodeError, RequestLimits};

pub use v1::decode_labels as decode_labels_v1;

/// A request: what can be stored, and what cannot be read of it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What can be stored.
    pub batch: WriteBatch,
    /// What is not in `batch`, though the request had it.
    pub left_out: LeftOut,
}

/// Series and exemplars that cost only themselves, as in upstream's `appendV2`: their references name symbols that are
/// not there, or an exemplar's labels are no label set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Samples and histograms of series left out; a series without any counts as one.
    pub samples: u64,
    /// Exemplars left out of series that are kept.
    pub exemplars: u64,
    /// Texts of the first few.
    pub first: Vec<String>,
}

impl LeftOut {
    /// Texts kept.
    const MAX_TEXTS: usize = 3;

    fn tell(&mut self, series: usize, problem: &str) {
        if self.first.len() < Self::MAX_TEXTS {
            self.first.push(format!("series {series} of the request: {problem}"));
        }
    }
}

/// Decodes a remote write 1.0 body (`prometheus.WriteRequest`) under the default limits; what cannot be read of
/// exemplars is left out.
pub fn decode_v1(body: Vec<u8>, tenant: TenantId) -> Result<WriteBatch, DecodeError> {
    v1::decode(body, tenant, &RequestLimits::default()).map(|decoded| decoded.batch)
}

/// Decodes a remote write 1.0 body (`prometheus.WriteRequest`). Label regions are the label fields as they stand on
/// the wire. Fails on protobuf that is damaged outside of labels, and over the limits; wrong labels are found when
/// they are decoded, so that they cost only their own series.
pub fn decode_v1_limited(
    body: Vec<u8>,
    tenant: TenantId,
    limits: &RequestLimits,
) -> Result<Decoded, DecodeError> {
    v1::decode(body, tenant, limits)
}

/// Decodes a remote write 2.0 body (`io.prometheus.write.v2.Request`). Label regions are canonical label bytes
/// ([`model::Labels`]), except where a series repeats a label name: those fail when they are decoded. A series whose
/// references are odd in number or name no symbol is left out. Fails on damaged protobuf, on a first symbol that is not
/// empty, and over the limits (labels are counted after expansion).
pub fn decode_v2(body: &[u8], tenant: TenantId, limits: &RequestLimits) -> Result<Decoded, DecodeError> {
    v2::decode(body, tenant, limits)
}
