//! The border between async code and computing: [`Pool::run`] is the one place where a query's work leaves the
//! runtime's threads.
//!
//! A place on the pool is taken before the work starts and given back when the work really ends, also when its
//! caller has left earlier; so deadlines free callers at once and never let more work run than there are places.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::seam::QueryBudget;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::QueryError;
use crate::metrics::Metrics;

/// A bounded number of places for computing, with a bounded queue before it.
#[derive(Debug)]
pub(crate) struct Pool {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    metrics: Metrics,
}

/// A taken place.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: tokio::sync::OwnedSemaphorePermit,
    /// How long the wait was.
    pub(crate) waited: Duration,
}

struct Waiting<'a>(&'a Pool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.waiting.dec();
    }
}

impl Pool {
    /// A pool with `places` (at least 1) and a queue of `max_waiting`.
    pub(crate) fn new(places: usize, max_waiting: usize, metrics: Metrics) -> Self {
        let places = Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS)));
        Self { places, waiting: AtomicUsize::new(0), max_waiting, metrics }
    }

    /// Waits for a place until `deadline`.
    pub(crate) async fn place(&self, deadline: Instant) -> Result<Place, QueryError> {
        let started = Instant::now();
        if started >= deadline {
            return Err(QueryError::Timeout("query timed out in query queue".into()));
        }
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit, waited: Duration::ZERO });
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let message = format!("too many queries are waiting: limit {}", self.max_waiting);
            return Err(QueryError::Unavailable { message, retry_after: Duration::from_secs(1) });
        }
        self.metrics.waiting.inc();
        let _waiting = Waiting(self);
        match tokio::time::timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit, waited: started.elapsed() }),
            Ok(Err(_)) => Err(QueryError::Cancelled("query was canceled in query queue".into())),
            Err(_) => Err(QueryError::Timeout("query timed out in query queue".into())),
        }
    }

    /// Runs `work` on a thread of its own, holding `place`. At `deadline` the budget is stopped and the caller gets
    /// a timeout; the work ends at its next check.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        place: Place,
        deadline: Instant,
        budget: &Arc<QueryBudget>,
        work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(failed)) => {
                self.metrics.panics.inc();
                let message = match failed.try_into_panic() {
                    Ok(payload) => panic_text(payload.as_ref()),
                    Err(_) => "the runtime is shutting down".to_owned(),
                };
                tracing::error!(%message, "query ended in a panic");
                Err(QueryError::Internal(format!("unexpected error: {message}")))
            }
            Err(_) => {
                budget.time_out();
                Err(QueryError::Timeout("query timed out in expression evaluation".into()))
            }
        }
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text =
        payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn pool(places: usize, waiting: usize) -> Pool {
        Pool::new(places, waiting, Metrics::register(&mut Registry::default(), places))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_waiter_times_out() {
        let pool = pool(1, 1);
        let held = pool.place(soon()).await.unwrap();
        let now = Instant::now();
        let (first, second) = tokio::join!(pool.place(now + Duration::from_millis(5)), pool.place(soon()));
        assert!(matches!(first, Err(QueryError::Timeout(_))), "{first:?}");
        assert!(matches!(second, Err(QueryError::Unavailable { .. })), "{second:?}");
        drop(held);
        assert!(pool.place(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_frees_the_place() {
        let pool = pool(1, 0);
        let budget = QueryBudget::unlimited();
        let place = pool.place(soon()).await.unwrap();
        let result: Result<(), _> = pool.run(place, soon(), &budget, || panic!("boom")).await;
        assert_eq!(result.unwrap_err().to_string(), "unexpected error: boom");
        assert!(pool.place(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn the_deadline_frees_the_caller_but_not_the_place_until_the_work_ends() {
        let pool = pool(1, 0);
        let budget = QueryBudget::unlimited();
        let place = pool.place(soon()).await.unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let inner = Arc::clone(&budget);
        let work = move || {
            ended.recv().ok();
            inner.check().map_err(QueryError::from)
        };
        let result = pool.run(place, Instant::now() + Duration::from_millis(5), &budget, work).await;
        assert!(matches!(result, Err(QueryError::Timeout(_))), "{result:?}");
        assert!(matches!(pool.place(soon()).await, Err(QueryError::Unavailable { .. })));
        end.send(()).unwrap();
        let freed = tokio::time::timeout(Duration::from_secs(10), pool.places.acquire()).await;
        assert!(freed.is_ok());
    }
}
