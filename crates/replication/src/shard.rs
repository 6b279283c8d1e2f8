//! The leader's side of one shard: collects batches that wait, plans one entry of them, proposes it, answers each.
//!
//! One proposal in flight as a rule, a second one only when a full one waits; while one is in flight others collect,
//! so the busier the shard, the larger its entries. A shard at rest proposes at once; busy ones propose at the node's
//! beats, all at the same moment: what an entry costs whatever is in it (an fsync, wake-ups of threads, frames to the
//! other nodes) is then shared by the entries of all groups.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::seam::{BoxFuture, Clock, ShardBatch, ShardReport, ShardSeries, ShardWriteError};
use model::{Failure, ShardId};
use storage::{Plan, Planned, Shard};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::config::ReplicationConfig;
use crate::group::{Group, LeadError, RETRY};
use crate::metrics::{Metrics, ShardLabel};
use crate::types::Applied;

/// Batches that may wait for one shard, whatever their size.
const QUEUE: usize = 4096;
/// A shard that has proposed nothing for so many beats is at rest.
const AT_REST: u32 = 4;

/// The answer to a batch.
type Answer = Result<ShardReport, ShardWriteError>;

/// Bytes that wait over all shards, with their bound.
#[derive(Debug)]
pub(crate) struct Waiting {
    used: AtomicUsize,
    limit: usize,
    idle: Notify,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Waiting {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit, idle: Notify::new(), metrics })
    }

    /// Takes `bytes`, or fails when too much waits already.
    fn take(self: &Arc<Self>, bytes: usize) -> Result<Held, Failure> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { bytes, of: Arc::clone(self) };
        if used > 0 && used + bytes > self.limit {
            self.metrics.refused_overload.inc();
            return Err(Failure::unavailable(
                format!("overloaded: {used} bytes of samples wait to be stored, the limit is {}", self.limit),
                RETRY,
            ));
        }
        Ok(held)
    }

    /// Returns once nothing waits.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.used() == 0 {
                return;
            }
            idle.await;
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A share of [`Waiting`], given back when dropped.
#[derive(Debug)]
struct Held {
    bytes: usize,
    of: Arc<Waiting>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.of.used.fetch_sub(self.bytes, Ordering::Relaxed) == self.bytes {
            self.of.idle.notify_waiters();
        }
    }
}

/// When busy shards propose: at the same moments on the whole node, and on all nodes as far as their clocks agree, so
/// that a node's own entries and those of others reach its log together.
#[derive(Clone, Copy, Debug)]
struct Beats {
    origin: Instant,
    every: Duration,
}

impl Beats {
    fn new(every: Duration, clock: &dyn Clock) -> Self {
        let every = every.max(Duration::from_millis(1));
        let into = clock.now_ms().rem_euclid(i64::try_from(every.as_millis()).unwrap_or(i64::MAX));
        let origin = Instant::now();
        Self {
            origin: origin.checked_sub(Duration::from_millis(into.unsigned_abs())).unwrap_or(origin),
            every,
        }
    }

    /// When a shard whose last proposal was at `last` may propose what it has at `now`.
    fn turn(&self, last: Option<Instant>, now: Instant) -> Instant {
        let Some(last) = last.filter(|last| now.duration_since(*last) < self.every * AT_REST) else {
            return now;
        };
        // A beat that the last proposal was late for is not the next one.
        let earliest = now.max(last + self.every / 2);
        let (past, every) = (earliest.duration_since(self.origin).as_nanos(), self.every.as_nanos());
        let left = (every - past % every) % every;
        earliest + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    }
}

/// A batch that waits.
struct Queued {
    batch: Arc<ShardBatch>,
    held: Held,
    answer: oneshot::Sender<Answer>,
}

/// One shard as writers and readers see it.
pub(crate) struct ShardHandle {
    pub(crate) group: Arc<Group>,
    pub(crate) shard: Arc<Shard>,
    queue: mpsc::Sender<Queued>,
    waiting: Arc<Waiting>,
}

impl ShardHandle {
    /// Starts the proposer of `shard`.
    pub(crate) fn start(
        id: ShardId,
        group: Arc<Group>,
        shard: Arc<Shard>,
        config: &ReplicationConfig,
        waiting: Arc<Waiting>,
        clock: Arc<dyn Clock>,
        data: &tokio::runtime::Handle,
    ) -> Arc<Self> {
        let (queue, incoming) = mpsc::channel(QUEUE);
        let beats = Beats::new(config.linger, &*clock);
        let proposer = Proposer {
            id,
            group: Arc::clone(&group),
            shard: Arc::clone(&shard),
            clock,
            metrics: Arc::clone(&waiting.metrics),
            entry_bytes: config.entry_bytes,
            beats,
            leader_wait: config.leader_wait,
            term: None,
        };
        data.spawn(proposer.run(incoming));
        Arc::new(Self { group, shard, queue, waiting })
    }

    /// Commits a batch.
    pub(crate) async fn write(&self, batch: Arc<ShardBatch>) -> Answer {
        let held = self.waiting.take(cost(&batch)).map_err(ShardWriteError::Failed)?;
        let (answer, wait) = oneshot::channel();
        let stopped = || ShardWriteError::Failed(Failure::unavailable("the shard has stopped", RETRY));
        self.queue.send(Queued { batch, held, answer }).await.map_err(|_| stopped())?;
        wait.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Proposes an entry that one of `Shard`'s other plans made (retention, deletes …); nothing when it is empty.
    pub(crate) async fn propose(&self, term: u64, entry: Vec<u8>) -> Result<(), Failure> {
        if entry.is_empty() {
            return Ok(());
        }
        self.group.propose(Bytes::from(entry), term).await?;
        Ok(())
    }
}

/// About how many bytes a batch holds in memory and in an entry.
fn cost(batch: &ShardBatch) -> usize {
    let labels: usize = batch
        .series
        .iter()
        .map(|series| match series {
            ShardSeries::Known(_) => 16,
            ShardSeries::New { labels, .. } => 64 + labels.as_bytes().len(),
        })
        .sum();
    labels
        + batch.samples.len() * 16
        + batch.histograms.len() * 512
        + batch.exemplars.len() * 128
        + batch.metadata.len() * 128
}

/// What came of a proposal.
struct Done {
    committed: bool,
}

struct Proposer {
    id: ShardId,
    group: Arc<Group>,
    shard: Arc<Shard>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    entry_bytes: usize,
    beats: Beats,
    leader_wait: Duration,
    /// The term that `shard` plans in.
    term: Option<u64>,
}

impl Proposer {
    async fn run(mut self, mut incoming: mpsc::Receiver<Queued>) {
        let mut flying: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut pending: Vec<Queued> = Vec::new();
        let mut bytes = 0;
        let mut last: Option<Instant> = None;
        let mut due: Option<Instant> = None;
        loop {
            // Collect until it is this shard's turn.
            loop {
                while bytes < self.entry_bytes {
                    let Ok(queued) = incoming.try_recv() else { break };
                    bytes += queued.held.bytes;
                    pending.push(queued);
                }
                let full = bytes >= self.entry_bytes;
                let turn = match flying.len() {
                    0 => true,
                    1 => full,
                    _ => false,
                };
                let turn = turn && !pending.is_empty();
                if turn && !full && due.is_none() {
                    due = Some(self.beats.turn(last, Instant::now()));
                }
                if turn && (full || due.is_none_or(|at| at <= Instant::now())) {
                    break;
                }
                let pause = async {
                    match due {
                        Some(at) if turn => tokio::time::sleep_until(at).await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    Some(done) = flying.next(), if !flying.is_empty() => self.landed(&done),
                    queued = incoming.recv(), if !full => match queued {
                        Some(queued) => {
                            bytes += queued.held.bytes;
                            pending.push(queued);
                        }
                        None => {
                            // Stopped: whoever still waits is told by the drop of its sender.
                            while flying.next().await.is_some() {}
                            return;
                        }
                    },
                    () = pause => {}
                }
            }
            let term = match self.lead(&mut flying).await {
                Ok(term) => term,
                Err(error) => {
                    (bytes, due) = (0, None);
                    for queued in pending.drain(..) {
                        // A writer that went away does not matter.
                        let _ = queued.answer.send(Err(error.clone().into()));
                    }
                    continue;
                }
            };
            last = Some(Instant::now());
            due = None;
            bytes = 0;
            let batches = std::mem::take(&mut pending);
            if let Some(flight) = self.plan(batches, term) {
                flying.push(flight);
            }
        }
    }

    /// The term this replica leads in; makes the shard ready to plan in it.
    async fn lead(
        &mut self,
        flying: &mut FuturesUnordered<BoxFuture<'static, Done>>,
    ) -> Result<u64, LeadError> {
        loop {
            let term = match self.group.leading() {
                Some(term) => term,
                None => self.group.wait_leading(self.leader_wait).await?,
            };
            if self.term == Some(term) {
                return Ok(term);
            }
            // What is in flight was planned in another term or before a failure: it must land first.
            while let Some(done) = flying.next().await {
                self.landed(&done);
            }
            if self.group.leading() == Some(term) {
                self.shard.begin_term(term);
                self.term = Some(term);
                let label = ShardLabel { shard: self.id.0 };
                self.metrics.terms.get_or_create(&label).set(i64::try_from(term).unwrap_or(i64::MAX));
                return Ok(term);
            }
        }
    }

    fn landed(&mut self, done: &Done) {
        if !done.committed {
            // Not known what became of it: plan anew.
            self.term = None;
        }
    }

    fn plan(&self, queued: Vec<Queued>, term: u64) -> Option<BoxFuture<'static, Done>> {
        let batches: Vec<Arc<ShardBatch>> = queued.iter().map(|queued| Arc::clone(&queued.batch)).collect();
        let Plan { entry, verdicts } = self.shard.plan(&batches, self.clock.now_ms());
        self.metrics.batches.inc_by(batches.len() as u64);
        let mut waiters = Vec::new();
        for (queued, verdict) in queued.into_iter().zip(verdicts) {
            match verdict {
                Planned::InEntry(position) => waiters.push((position, queued)),
                // A writer that went away does not matter, here and below.
                Planned::Nothing(report) => {
                    let _ = queued.answer.send(Ok(report));
                }
                Planned::Refused(error) => {
                    let _ = queued.answer.send(Err(error));
                }
            }
        }
        if entry.is_empty() {
            return None;
        }
        self.metrics.proposals.inc();
        self.metrics.proposed_bytes.inc_by(entry.len() as u64);
        let group = Arc::clone(&self.group);
        let metrics = Arc::clone(&self.metrics);
        Some(Box::pin(async move {
            let started = Instant::now();
            let result = group.propose(Bytes::from(entry), term).await;
            metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            let committed = result.is_ok();
            let mut reports = match result {
                Ok(Applied::Reports(reports)) => Ok(reports.into_iter().map(Some).collect::<Vec<_>>()),
                Ok(other) => {
                    let what = format!("applying a shard's entry gave {other:?}");
                    Err(ShardWriteError::Failed(Failure::internal(what)))
                }
                Err(error) => Err(error.into()),
            };
            for (position, queued) in waiters {
                let answer = match &mut reports {
                    Ok(reports) => reports.get_mut(position).and_then(Option::take).ok_or_else(|| {
                        ShardWriteError::Failed(Failure::internal(
                            "an entry was applied without a report for its batch",
                        ))
                    }),
                    Err(error) => Err(error.clone()),
                };
                let _ = queued.answer.send(answer);
            }
            Done { committed }
        }))
    }
}

#[cfg(test)]
mod tests {
    use model::seam::fake::ManualClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn busy_shards_propose_together_and_those_at_rest_at_once() {
        let ms = Duration::from_millis;
        let clock = ManualClock::new(1_000_003);
        let beats = Beats::new(ms(5), &clock);
        let start = Instant::now();
        let at = |n: u64| start + ms(n);
        assert_eq!(beats.turn(None, at(100)), at(100), "the first one");
        // The clock stood 3 ms behind a beat at the start.
        assert_eq!(beats.turn(Some(at(97)), at(98)), at(102));
        assert_eq!(beats.turn(Some(at(99)), at(102)), at(102));
        assert_eq!(beats.turn(Some(at(97)), at(103)), at(107));
        assert_eq!(beats.turn(Some(at(101)), at(101)), at(107), "the beat at 102 was this proposal's own");
        assert_eq!(beats.turn(Some(at(80)), at(100)), at(100), "at rest");
    }
}
