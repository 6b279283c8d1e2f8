//! What nodes of a cluster say to each other: the peer port, the clients of peers, and the codings in between.
//!
//! The only crate that names tonic; contracts are in `proto/peer.proto`. It knows what messages look like and how they
//! get there, not what they mean: Raft messages, plan fragments, meta requests and snapshot parts are opaque bytes.
//!
//! | to | use |
//! |---|---|
//! | say who this node is | [`Identity`] in a [`Me`], which changes once: when it joins |
//! | say what protects the wire | [`Security`]: a [`Secret`], and [`Tls`] kept current with its [`TlsFiles`] |
//! | call peers | [`Peers`]: [`Peers::set_address`], [`Peers::forget`], and a method for each thing to ask |
//! | read a replica elsewhere | [`RemoteReplica`], a `SeriesSource` that blocks |
//! | answer peers | [`serve()`] with a [`PeerService`] |
//!
//! Between two nodes there are three connections in each direction, made when first needed ([`Lane`]): *control* for
//! heartbeats, votes and what else must never wait, run on Raft's own runtime; *data* for log entries; *request* for
//! what clients cause (writes, reads, fragments) and snapshots, whose readers may stop reading without holding up Raft.
//! On each one a stream of frames carries calls of all groups: what waits goes together, about 1 MiB at a time, and
//! unanswered bytes are bounded. A stream that is silent when a call's time is up is torn down, with its connection, and
//! the next call connects anew.
//!
//! Every connection begins with a handshake ([`handshake`], before any HTTP/2): cluster, wire version, and proof of the
//! shared secret on both sides; whoever breaks a rule is refused with the reason.

pub mod convert;

mod answer;
mod connect;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod identity;
mod io;
mod lane;
mod metrics;
mod pace;
mod peers;
mod remote;
mod security;
mod serve;
mod service;

/// Messages and services of `proto/peer.proto`.
#[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod wire {
    include!(concat!(env!("OUT_DIR"), "/isobar.peer.v1.rs"));
}

pub use error::{PeerError, SetupError};
pub use identity::{Identity, Lane, Me, WIRE_VERSION};
pub use metrics::Metrics;
pub use peers::{Peers, PeersConfig, Runtimes, Snapshot};
pub use remote::RemoteReplica;
pub use security::{Secret, Security, Tls, TlsFiles};
pub use serve::{ServeConfig, Serving, serve};
pub use service::{GivePart, Need, PeerService, ReadRefusal, SnapshotParts};
