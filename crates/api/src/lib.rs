//! The HTTP interface: Prometheus's API, the remote-write receiver, the operating paths, and the page at `/graph`.
//!
//! Reading order: [`ApiState`] (what the paths work on), [`router()`] (which path is which), then one file for each
//! family of paths: `query`, `write`, `targets`, `status`, `cluster`, `operate`, `absent` (paths of features that are not
//! there yet), `ui`. Around them: `params` (what clients send), `error` (what they get when it fails), `encode`
//! (JSON of results), `body` (streaming, gzip, reading with limits), `layers` (what happens to every request),
//! [`listen`] (connections).
//!
//! Not here: what a query means (`query`, `engine`), where samples go (`model::seam::SampleSink`), storage, Raft,
//! scraping. This is the only crate that names axum.

mod absent;
mod body;
mod cluster;
mod encode;
mod error;
mod explain;
mod exposition;
mod layers;
pub mod listen;
mod metrics;
mod operate;
mod params;
mod query;
mod router;
mod state;
mod status;
mod targets;
mod ui;
mod write;

pub use listen::{ListenLimits, serve};
pub use metrics::ApiMetrics;
pub use router::router;
pub use state::{ApiState, BuildInfo, Readiness, ReadyState, ReloadFn, RuntimeInfo, Settings};
