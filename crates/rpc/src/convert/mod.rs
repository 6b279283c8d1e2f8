//! Model values ⇄ bytes of the wire.
//!
//! Where bytes and CPU matter (batches of samples, series of a select) the coding is by hand, in `batch`, `report`,
//! `series` and `histogram` over the numbers of `coding`; the rest are messages of `proto/peer.proto`. Every hand-made
//! coding begins with a version byte. Decoders take bytes from a peer that was checked, and still trust none of them:
//! no length is allocated before as many bytes are there, and what contradicts itself is [`Malformed`], never a panic.

pub mod batch;
pub mod report;
pub mod series;
pub mod status;

mod coding;
mod histogram;

pub use coding::Malformed;
