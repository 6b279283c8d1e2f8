//! Parts to committed parts: all shards at once, each part on its own until it is committed or patience ends.
//!
//! | a shard says | then |
//! |---|---|
//! | done | refs are learnt |
//! | unknown refs | the part goes again at once, with labels |
//! | wrong owner | by the newer map, as soon as it is there |
//! | not the leader, or unavailable for no longer than a second | the part goes again after a pause |
//! | anything else | the write fails; sending it again is harmless |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use model::seam::{ShardBatch, ShardReport, ShardSeries, ShardWriteError, WriteBatch};
use model::{Code, Failure, ShardId};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cache::Lesson;
use crate::metrics::Cause;
use crate::plan::{Part, labels_again};
use crate::report::{Outcome, region};
use crate::{Ingest, Rules};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// A shard that asks for a longer pause than that is not waited for: the sender keeps the data.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What senders are told when patience ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Ingest {
    /// Commits all parts. On failure some may be committed; the first failure is told.
    pub(crate) async fn send_all(
        &self,
        batch: &WriteBatch,
        rules: &Rules,
        parts: Vec<Part>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + rules.limits.patience;
        let sending = parts.into_iter().map(|part| self.send(batch, rules, part, deadline));
        let mut failure = None;
        for result in join_all(sending).await {
            match result {
                Ok(committed) => {
                    for (part, report) in &committed {
                        outcome.add(batch, part, report);
                    }
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Commits one part, which may become several on the way.
    async fn send(
        &self,
        batch: &WriteBatch,
        rules: &Rules,
        part: Part,
        deadline: Instant,
    ) -> Result<Vec<(Part, ShardReport)>, Failure> {
        let mut committed = Vec::new();
        let mut work = vec![part];
        let mut pause = FIRST_PAUSE;
        let mut held = None;
        while let Some(part) = work.pop() {
            let answer = timeout_at(deadline, self.writer.write(part.shard, Arc::clone(&part.batch))).await;
            let answer = answer.map_err(|_| out_of_patience(part.shard, rules, "it has not answered"))?;
            let (wait_for, cause) = match answer {
                Ok(report) => {
                    self.learn(batch, rules, &part, &report);
                    committed.push((part, report));
                    continue;
                }
                Err(ShardWriteError::UnknownRefs) => {
                    self.cache.lock().forget(part.shard);
                    self.metrics.retried(Cause::UnknownRefs);
                    work.push(with_labels(batch, rules, part)?);
                    continue;
                }
                Err(ShardWriteError::WrongOwner { epoch }) => {
                    if self.map.load().epoch() > part.batch.epoch {
                        self.metrics.retried(Cause::WrongOwner);
                        work.extend(self.replan(batch, rules, &part)?);
                        continue;
                    }
                    let reason = format!("its shard map is of epoch {epoch}, ours of {}", part.batch.epoch);
                    (reason, Cause::WrongOwner)
                }
                // The writer has looked for the leader and not found it: an election is under way.
                Err(ShardWriteError::NotLeader { .. }) => {
                    ("its leader is not known just now".to_owned(), Cause::Unavailable)
                }
                Err(ShardWriteError::Failed(failure)) => {
                    let soon = failure.retry_after.is_none_or(|wait| wait <= LONGEST_WAIT);
                    if failure.code != Code::Unavailable || !soon {
                        return Err(failure);
                    }
                    (failure.message, Cause::Unavailable)
                }
            };
            let until = Instant::now() + pause;
            if until >= deadline {
                return Err(out_of_patience(part.shard, rules, &wait_for));
            }
            if held.is_none() {
                let bytes = part_bytes(&part.batch);
                held = self.retries.hold(bytes, rules.limits.retry_bytes);
                if held.is_none() {
                    return Err(Failure::unavailable(
                        format!("shard {}: {wait_for}; too much waits to be tried again", part.shard),
                        RETRY_AFTER,
                    ));
                }
            }
            self.metrics.retried(cause);
            sleep_until(until).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            work.push(part);
        }
        Ok(committed)
    }

    /// Remembers the refs that the leader gave to series that came with labels.
    fn learn(&self, batch: &WriteBatch, rules: &Rules, part: &Part, report: &ShardReport) {
        let is_new = |series: &ShardSeries| matches!(series, ShardSeries::New { .. });
        if !part.batch.series.iter().any(is_new) {
            return;
        }
        let context = self.fingerprints.context(&batch.tenant, batch.decode_labels, rules.epoch);
        let mut lessons = Vec::new();
        for ((series, origin), reference) in part.batch.series.iter().zip(&part.origins).zip(&report.refs) {
            let (ShardSeries::New { labels, key }, Some(reference)) = (series, reference) else { continue };
            let Some(source) = batch.series.get(origin.series as usize) else { continue };
            lessons.push(Lesson {
                fingerprint: self.fingerprints.of(context, region(batch, &source.labels)),
                key: *key,
                check: labels.hash128(),
                shard: part.shard,
                epoch: part.batch.epoch,
                version: origin.version,
                incarnation: report.incarnation,
                reference: *reference,
            });
        }
        let mut cache = self.cache.lock();
        for lesson in &lessons {
            cache.learn(lesson);
        }
    }
}

fn out_of_patience(shard: ShardId, rules: &Rules, reason: &str) -> Failure {
    let patience = rules.limits.patience.as_secs_f64();
    Failure::unavailable(
        format!("shard {shard} has not committed within {patience} s: {reason}"),
        RETRY_AFTER,
    )
}

/// The part with labels in place of refs. A part without refs cannot get better by that: its shard is at fault.
fn with_labels(batch: &WriteBatch, rules: &Rules, part: Part) -> Result<Part, Failure> {
    let old = &part.batch;
    let mut series = Vec::with_capacity(old.series.len());
    let mut changed = false;
    for (one, origin) in old.series.iter().zip(&part.origins) {
        series.push(match one {
            ShardSeries::New { .. } => one.clone(),
            ShardSeries::Known(_) => {
                changed = true;
                ShardSeries::New { labels: labels_again(batch, rules, origin.series)?, key: origin.key }
            }
        });
    }
    if !changed {
        let message = format!("shard {} does not know refs that it was not given", part.shard);
        return Err(Failure::internal(message));
    }
    let batch = ShardBatch { series, incarnation: 0, known_check: 0, ..ShardBatch::clone(old) };
    Ok(Part { batch: Arc::new(batch), ..part })
}

/// What a part costs while it waits, roughly.
fn part_bytes(batch: &ShardBatch) -> usize {
    let labels: usize = batch
        .series
        .iter()
        .map(|series| match series {
            ShardSeries::New { labels, .. } => 40 + labels.as_bytes().len(),
            ShardSeries::Known(_) => 40,
        })
        .sum();
    labels + batch.samples.len() * 24 + batch.histograms.len() * 512 + batch.exemplars.len() * 256
}

/// Bytes of all parts that wait to be tried again.
#[derive(Debug, Default)]
pub(crate) struct RetryMemory(Arc<AtomicUsize>);

/// A claim on that memory, given back when dropped.
struct Held {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl RetryMemory {
    /// Bytes that wait now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn hold(&self, bytes: usize, limit: usize) -> Option<Held> {
        let held = Held { total: Arc::clone(&self.0), bytes };
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= limit).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
