//! The way in: takes batches of samples, finds out which series they mean, sends each shard its part, and answers
//! once every part is committed.
//!
//! A batch goes through [`fingerprint`](mod@fingerprint) (label bytes to a keyed hash) → [`cache`](mod@cache) (hash
//! to shard and ref) → [`validate`](mod@validate) (only for what is not in the cache) → [`plan`](mod@plan) (one part
//! a shard) → [`send`](mod@send) (until each part is committed) → [`report`](mod@report).
//!
//! Not here: wire formats, HTTP, storage, consensus. What could differ between replicas ("now", the retention floor)
//! is fixed in the parts; samples out of those bounds, late ones and duplicates are judged by the shard's leader.

mod cache;
mod fingerprint;
mod histogram;
mod limits;
mod metrics;
mod plan;
mod report;
mod send;
mod targets;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use model::seam::{BoxFuture, Clock, SampleSink, ShardWriter, WriteBatch, WriteReport};
use model::{Failure, ShardId, TenantId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use topology::ShardMap;

use cache::Cache;
use fingerprint::Fingerprints;
use metrics::Metrics;
use report::Outcome;
use targets::Targets;

pub use limits::{Limits, RESERVED_LABEL};

/// The router of samples to shards: [`SampleSink`] over a [`ShardWriter`].
pub struct Ingest {
    writer: Arc<dyn ShardWriter>,
    map: Arc<ArcSwap<ShardMap>>,
    clock: Arc<dyn Clock>,
    rules: ArcSwap<Rules>,
    fingerprints: Fingerprints,
    cache: Mutex<Cache>,
    targets: Mutex<Targets>,
    retries: send::RetryMemory,
    metrics: Metrics,
}

/// The limits in force, and how often they were changed: series that were accepted under older ones are validated
/// again.
struct Rules {
    limits: Limits,
    epoch: u64,
}

impl Ingest {
    /// A router with an empty cache. `map` may be replaced at any time by whoever shares it; batches follow the one
    /// that they meet, and a newer one when a shard tells them to.
    pub fn new(
        writer: Arc<dyn ShardWriter>,
        map: Arc<ArcSwap<ShardMap>>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry);
        Self {
            writer,
            map,
            clock,
            fingerprints: Fingerprints::new(),
            cache: Mutex::new(Cache::new(limits.cache_bytes)),
            targets: Mutex::new(Targets::default()),
            retries: send::RetryMemory::default(),
            rules: ArcSwap::from_pointee(Rules { limits, epoch: 0 }),
            metrics,
        }
    }

    /// Changes the limits for batches that come from now on (the size of the cache stays).
    pub fn set_limits(&self, limits: Limits) {
        self.rules.rcu(|rules| Rules { limits, epoch: rules.epoch + 1 });
    }

    async fn write_batch(&self, batch: WriteBatch) -> Result<WriteReport, Failure> {
        let rules = self.rules.load_full();
        let mut outcome = Outcome::default();
        let parts = self.plan(&batch, &rules, &mut outcome)?;
        let with_series = |part: &&plan::Part| !part.origins.is_empty();
        let written: Vec<ShardId> = parts.iter().filter(with_series).map(|part| part.shard).collect();
        if let Some(mark) = batch.scrape {
            self.targets.lock().begin(&batch.tenant, mark.target, &written);
        }
        let result = self.send_all(&batch, &rules, parts, &mut outcome).await;
        if let (Some(mark), Ok(())) = (batch.scrape, &result) {
            self.targets.lock().committed(&batch.tenant, mark.target, written);
        }
        self.metrics.count(&outcome, result.is_ok());
        result?;
        Ok(outcome.into_report())
    }
}

impl SampleSink for Ingest {
    fn write(&self, batch: WriteBatch) -> BoxFuture<'_, Result<WriteReport, Failure>> {
        Box::pin(self.write_batch(batch))
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").field("epoch", &self.map.load().epoch()).finish_non_exhaustive()
    }
}

/// One tenant's scrape target, as a key.
type TargetKey = (TenantId, u64);
