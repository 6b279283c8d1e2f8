//! The label index of the series of one shard, tenant and (when sealed) partition: label pairs → ordinals, and back.
//!
//! Ordinals are `u32`s that the caller gives. Matchers have Prometheus's meaning: an absent label is the empty
//! string, so a matcher that accepts it also accepts series without the label.
//!
//! | file | story |
//! |---|---|
//! | `postings.rs` | the ordinals of one pair in memory: one, a few, or a bitmap |
//! | `forward.rs` | ordinal → pairs in memory |
//! | `mem.rs` | the index that grows and shrinks |
//! | `query.rs` | matchers, label names and values, the same over both kinds of index |
//! | `seal.rs` | the bytes of an ended partition's index (drawn in `FORMAT.md`) |
//! | `sealed.rs` | look-ups in those bytes |
//! | `cardinality.rs` | figures for the status page |
//!
//! Not here: which ordinal belongs to which source and slot, samples, the database.

mod cardinality;
mod forward;
mod mem;
mod postings;
mod query;
mod seal;
mod sealed;
#[cfg(test)]
mod tests;

pub use cardinality::Cardinality;
pub use mem::MemIndex;
pub use sealed::SealedIndex;

use std::borrow::Cow;

use model::{Labels, Matcher};
use roaring::RoaringBitmap;

/// What can go wrong with a sealed index. An index in memory never fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Written by a newer version, or not an index.
    #[error("index has format version {0}, this program knows {known}", known = seal::VERSION)]
    Version(u8),
    /// The checksum does not fit the bytes.
    #[error("index checksum is {found:08x}, its bytes give {expected:08x}")]
    Checksum {
        /// What stands in the block.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// The bytes do not decode, though the checksum fits.
    #[error("index holds an impossible {0}")]
    Format(&'static str),
    /// The block would be larger than 4 GiB.
    #[error("index is too large to be sealed")]
    TooLarge,
}

/// What can be asked of an index, in memory or sealed.
pub trait SeriesIndex {
    /// All series.
    fn all(&self) -> Cow<'_, RoaringBitmap>;

    /// The series that satisfy all `matchers`; all series when there is none.
    fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, IndexError>;

    /// Names of the labels of all series, or of those `within`; ascending.
    fn label_names(&self, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError>;

    /// Values of label `name` of all series, or of those `within`; ascending.
    fn label_values(&self, name: &str, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError>;

    /// Gives the labels of each series `within` that the index has, in ascending order of ordinals, until `each`
    /// says false. Cheaper than one by one.
    fn visit_labels(
        &self,
        within: &RoaringBitmap,
        each: &mut dyn FnMut(u32, Labels) -> bool,
    ) -> Result<(), IndexError>;

    /// The labels of one series.
    fn labels(&self, ordinal: u32) -> Result<Option<Labels>, IndexError> {
        let mut found = None;
        self.visit_labels(&RoaringBitmap::from_iter([ordinal]), &mut |_, labels| {
            found = Some(labels);
            false
        })?;
        Ok(found)
    }

    /// Bytes of memory it takes, about.
    fn memory(&self) -> usize;
}
