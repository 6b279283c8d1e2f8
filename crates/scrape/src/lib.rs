//! Scraping: finds targets, fetches their metrics, and hands each scrape to a [`model::seam::SampleSink`] as one
//! complete batch.
//!
//! The way of a scrape: `discovery` → `target` (labels) → `pool` (which targets run) → `target_loop` (when) →
//! `client` (fetch) → `append` over `cache` (text to batch) → `report` (`up` and the like) → the sink. `manager`
//! owns the pools and applies configurations.
//!
//! Not here: where samples go, staleness markers (the shard's leader makes them from the batch's mark), YAML.

mod append;
mod cache;
mod client;
mod config;
pub mod discovery;
mod error;
mod manager;
mod metrics;
mod own;
mod pool;
mod report;
mod schedule;
mod secret;
mod target;
mod target_loop;
#[cfg(test)]
mod test_server;

pub use config::{
    Auth, Config, DEFAULT_BODY_LIMIT, Discovery, Escaping, HttpConfig, JobConfig, OAuth2, Pem, ProxyConfig,
    TargetGroup, TlsConfig, TlsVersion,
};
pub use error::{ClientError, ScrapeError};
pub use formats::negotiate::ScrapeProtocol;
pub use manager::{ExternalUrl, Manager, Options};
pub use own::{OwnAnswer, OwnMetrics};
pub use secret::{REDACTED, Secret, Source};
pub use target::populate_labels;
