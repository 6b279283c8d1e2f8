//! Snapshots of all candidate shards, taken at once; a shard that is not available is asked again inside the
//! deadline.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use model::seam::{ReadLevel, SeriesSource, ShardReader};
use model::{Code, Failure, ShardId};
use tokio::time::Instant;

use crate::error::QueryError;
use crate::metrics::Metrics;

/// The longest that a query waits for a shard without a leader, even if its deadline is later.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Snapshots of `shards`, in their order. Fails as soon as one shard fails for good, naming it.
pub(crate) async fn take(
    reader: &dyn ShardReader,
    shards: &[ShardId],
    level: ReadLevel,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<Vec<Arc<dyn SeriesSource>>, QueryError> {
    let until = deadline.min(Instant::now() + PATIENCE);
    try_join_all(shards.iter().map(|shard| one(reader, *shard, level, until, metrics))).await
}

/// Snapshots of `shards`, in their order, asked for once; the failure names the shard.
pub(crate) async fn once(
    reader: &dyn ShardReader,
    shards: &[ShardId],
    level: ReadLevel,
    deadline: Instant,
) -> Result<Vec<Arc<dyn SeriesSource>>, Failure> {
    let one =
        async |shard: ShardId| match tokio::time::timeout_at(deadline, reader.snapshot(shard, level)).await {
            Ok(Ok(source)) => Ok(source),
            Ok(Err(failure)) => {
                Err(Failure { message: format!("shard {shard}: {}", failure.message), ..failure })
            }
            Err(_) => Err(Failure::new(Code::Unavailable, format!("shard {shard}: no answer in time"))),
        };
    try_join_all(shards.iter().map(|shard| one(*shard))).await
}

/// Whether another try, perhaps on another node, may succeed.
pub(crate) fn is_passing(failure: &Failure) -> bool {
    matches!(failure.code, Code::Unavailable | Code::WrongOwner)
}

async fn one(
    reader: &dyn ShardReader,
    shard: ShardId,
    level: ReadLevel,
    until: Instant,
    metrics: &Metrics,
) -> Result<Arc<dyn SeriesSource>, QueryError> {
    let mut pause = Duration::from_millis(20);
    let mut last = None;
    loop {
        let failure = match tokio::time::timeout_at(until, reader.snapshot(shard, level)).await {
            Ok(Ok(source)) => return Ok(source),
            Ok(Err(failure)) => failure,
            Err(_) => {
                let last = last.unwrap_or_else(|| "no answer in time".to_owned());
                return Err(missing(shard, &last));
            }
        };
        if !is_passing(&failure) {
            return Err(failure.into());
        }
        if Instant::now() + pause >= until {
            return Err(missing(shard, &failure.message));
        }
        last = Some(failure.message);
        metrics.snapshot_retries.inc();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

fn missing(shard: ShardId, why: &str) -> QueryError {
    QueryError::Unavailable {
        message: format!("shard {shard} is not available: {why}"),
        retry_after: Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    use model::seam::BoxFuture;
    use model::seam::fake::MemorySource;
    use model::{Matcher, TenantId, TimeRange};
    use prometheus_client::registry::Registry;

    struct Flaky {
        failures: AtomicU32,
        code: Code,
    }

    impl ShardReader for Flaky {
        fn shards(&self, _: &TenantId, _: &[Matcher], _: TimeRange) -> Vec<ShardId> {
            vec![ShardId(3)]
        }

        fn snapshot(
            &self,
            _: ShardId,
            _: ReadLevel,
        ) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
            let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            let code = self.code;
            Box::pin(async move {
                match left {
                    Ok(_) => Err(Failure::new(code, "no leader")),
                    Err(_) => Ok(Arc::new(MemorySource::new()) as Arc<dyn SeriesSource>),
                }
            })
        }
    }

    async fn check(failures: u32, code: Code, millis: u64) -> Result<usize, String> {
        let metrics = Metrics::register(&mut Registry::default(), 1);
        let reader = Flaky { failures: AtomicU32::new(failures), code };
        let deadline = Instant::now() + Duration::from_millis(millis);
        let taken = take(&reader, &[ShardId(3)], ReadLevel::Linearizable, deadline, &metrics).await;
        taken.map(|all| all.len()).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn an_unavailable_shard_is_asked_again_until_the_deadline_and_then_named() {
        assert_eq!(check(3, Code::Unavailable, 5_000).await, Ok(1));
        assert_eq!(
            check(1_000, Code::Unavailable, 60).await,
            Err("shard 3 is not available: no leader".into())
        );
        assert_eq!(check(1, Code::Corrupt, 5_000).await, Err("no leader".into()));
    }
}
