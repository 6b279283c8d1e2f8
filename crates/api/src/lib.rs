//! The HTTP interface: Prometheus's API, the remote-write receiver, the operating paths, and the pages.
//!
//! Reading order: [`ApiState`] (what the paths work on), [`router()`] (which path is which, by the table of
//! `endpoints`), then one file for each family of paths: `query`, `read`, `federate`, `search`, `write`, `otlp`, `targets`,
//! `status`, `cluster`, `features`, `notifications`, `admin`, `operate`, `absent` (paths of features that are not there yet),
//! `ui`. Around them: `params` (what clients send, and for which tenant), `error` (what they get when it fails),
//! `encode` (JSON of results), `body` (streaming, gzip, reading with limits), `layers` (what happens to every
//! request), [`web`] (who may ask), [`listen`] (connections).
//!
//! Not here: what a query means (`query`, `engine`), where samples go (`model::seam::SampleSink`), storage, Raft,
//! scraping. This is the only crate that names axum.

mod absent;
mod admin;
mod body;
mod cluster;
mod encode;
mod endpoints;
mod error;
mod explain;
mod exposition;
mod features;
mod federate;
#[doc(hidden)]
pub mod fuzz;
mod layers;
pub mod listen;
mod metrics;
mod notifications;
mod open;
mod operate;
mod otlp;
mod params;
mod query;
mod read;
mod router;
mod search;
mod state;
mod status;
mod targets;
mod ui;
pub mod web;
mod write;

pub use endpoints::{Endpoint, Media, Parameter, Place, markdown};
pub use formats::otlp::{Promote as OtlpPromote, Settings as OtlpSettings, Strategy as OtlpStrategy};
pub use listen::{ClientAddress, ListenLimits, serve};
pub use metrics::ApiMetrics;
pub use notifications::{Notification, Notifications};
pub use operate::own_metrics;
pub use router::{endpoints, router};
pub use state::{
    ApiState, BuildInfo, PoolConfigFn, Readiness, ReadyState, ReloadFn, RuntimeInfo, Settings, UnreadyFn,
    WritePlaces,
};
