//! What goes on besides reads and writes: the disk guard, flushes and purges, retention, eviction, merges.
//!
//! The guard looks at the file system once a second. One thread decides about flushes once a second and carries them
//! out; another one, of low priority, does background work in small steps. Both end at the next step when told to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{Failure, ShardId};
use parking_lot::{Condvar, Mutex};
use storage::Shard;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::ReplicationError;
use crate::config::ReplicationConfig;
use crate::folder::keep_reserve;
use crate::group::{Group, RETRY};
use crate::machine::Target;
use crate::metrics::Metrics;
use crate::node::Inner;

/// How often things are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often deleted samples are taken off the disk.
const CLEAN: Duration = Duration::from_secs(600);
/// How often retention and idle series are looked at.
const SWEEP: Duration = Duration::from_secs(60);
/// Bytes of one step of background work.
const STEP_BYTES: u64 = 4 << 20;
/// Series that leave the head with one entry, at most.
const EVICT_LIMIT: usize = 10_000;

/// For how long after the disk became full writes are tried again inside: by then a node with space leads, if there is one.
const HANDING_OVER: Duration = Duration::from_secs(3);

/// Refuses writes while the disk is full.
pub(crate) struct DiskGuard {
    dir: PathBuf,
    min_free: Option<u64>,
    segment_bytes: u64,
    full_since: Mutex<Option<Instant>>,
    free: AtomicU64,
    /// What has to stay free.
    min: AtomicU64,
    metrics: Arc<Metrics>,
}

impl DiskGuard {
    pub(crate) fn new(config: &ReplicationConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        let guard = Self {
            dir: config.data_dir.clone(),
            min_free: config.min_free_bytes,
            segment_bytes: config.log.segment_bytes,
            full_since: Mutex::new(None),
            free: AtomicU64::new(u64::MAX),
            min: AtomicU64::new(0),
            metrics,
        };
        guard.look(u64::MAX);
        Arc::new(guard)
    }

    /// Whether too little space is free for writes.
    pub(crate) fn is_full(&self) -> bool {
        self.full_since.lock().is_some()
    }

    /// Whether entries of other leaders would use up what the node log keeps for votes and the like: then they are not
    /// taken, since a log that cannot go on has failed for good. `room` is what the log can still take.
    pub(crate) fn refuses_entries(&self, room: impl Fn() -> u64) -> bool {
        self.is_full() && self.is_starved(room(), self.free.load(Ordering::Relaxed))
    }

    /// The log has space reserved; when that goes to its end, the next segment must fit.
    fn is_starved(&self, room: u64, free: u64) -> bool {
        room < self.segment_bytes / 8 && free < self.segment_bytes
    }

    /// Fails while too little space is free.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Some(since) = *self.full_since.lock() else { return Ok(()) };
        self.metrics.refused_disk.inc();
        let free = self.free.load(Ordering::Relaxed);
        let message = format!(
            "no space left for writes: {free} bytes are free on the file system of {} (--storage.min-free)",
            self.dir.display()
        );
        let wait = if since.elapsed() < HANDING_OVER { RETRY } else { RETRY * 5 };
        Err(Failure::unavailable(message, wait))
    }

    /// Fails where `bytes` more would leave too little space free, or there is too little already.
    pub(crate) fn expect_room(&self, bytes: u64) -> Result<(), Failure> {
        self.check()?;
        let (free, min) = (self.free.load(Ordering::Relaxed), self.min.load(Ordering::Relaxed));
        if free.saturating_sub(min) >= bytes {
            return Ok(());
        }
        let message = format!(
            "no space left: about {bytes} bytes are needed, and of {free} bytes free on the file system of {} {min} must \
             stay so (--storage.min-free)",
            self.dir.display()
        );
        Err(Failure::unavailable(message, RETRY * 60))
    }

    /// Looks at the file system; `room` is what the node log can still take.
    fn look(&self, room: u64) {
        let stat = match rustix::fs::statvfs(&self.dir) {
            Ok(stat) => stat,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "cannot ask for free disk space");
                return;
            }
        };
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        let min = self.min_free.unwrap_or_else(|| (total / 20).min(5 << 30));
        // Space that comes and goes with flushes must not have leaderships come and go.
        let enough = if self.is_full() { min.saturating_add(min / 10) } else { min };
        let full = free < enough || self.is_starved(room, free);
        self.free.store(free, Ordering::Relaxed);
        self.min.store(min, Ordering::Relaxed);
        self.metrics.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.metrics.disk_full.set(i64::from(full));
        if !full && let Err(error) = keep_reserve(&self.dir, free) {
            tracing::debug!(%error, "cannot reserve space for a start on a full disk");
        }
        let mut since = self.full_since.lock();
        if since.is_some() == full {
            return;
        }
        *since = full.then(Instant::now);
        if full {
            tracing::error!(
                free,
                min,
                "the disk is full: this node leads nothing while others have space, and takes no writes; reads go on"
            );
        } else {
            tracing::info!(free, min, "there is disk space again: writes are taken");
        }
    }
}

/// The threads and tasks of upkeep.
pub(crate) struct Upkeep {
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits for `pause`; true when it is time to stop.
    fn wait(&self, pause: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, pause);
        }
        *stopped
    }
}

impl Upkeep {
    pub(crate) fn start(inner: &Arc<Inner>, data: &Handle) -> Result<Self, ReplicationError> {
        let stop = Arc::new(Stop::default());
        let mut threads = Vec::new();
        let mut spawn = |name: &'static str,
                         run: fn(&Inner, &Stop, &Handle)|
         -> Result<(), ReplicationError> {
            let (inner, stop, data) = (Arc::clone(inner), Arc::clone(&stop), data.clone());
            let thread =
                std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&inner, &stop, &data));
            threads.push(thread.map_err(ReplicationError::io(name, "start the thread of"))?);
            Ok(())
        };
        spawn("disk-guard", watch_disk)?;
        spawn("flush", flush_when_due)?;
        spawn("background", background)?;
        Ok(Self { stop, threads: Mutex::new(threads) })
    }

    /// Ends the threads at their next step.
    pub(crate) fn stop(&self) {
        *self.stop.stopped.lock() = true;
        self.stop.changed.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of upkeep panicked");
            }
        }
    }
}

fn watch_disk(inner: &Inner, stop: &Stop, _data: &Handle) {
    loop {
        inner.guard.look(inner.log.room());
        inner.metrics.waiting_bytes.set(i64::try_from(inner.waiting.used()).unwrap_or(i64::MAX));
        let left = inner.progress().entries_left;
        inner.metrics.replay_left.set(i64::try_from(left).unwrap_or(i64::MAX));
        crate::status::measure(inner);
        crate::ready::look(inner);
        if stop.wait(LOOK) {
            return;
        }
    }
}

/// Flushes by age, by bytes, and by the length of the log.
fn flush_when_due(inner: &Inner, stop: &Stop, data: &Handle) {
    let mut flushes = Flushes::default();
    while !stop.wait(LOOK) {
        flushes.look(inner, data, &|| stop.wait(Duration::ZERO));
    }
}

/// Since when there is something to flush.
#[derive(Default)]
pub(crate) struct Flushes {
    shards: HashMap<ShardId, Duration>,
    meta: Option<Duration>,
}

impl Flushes {
    /// Flushes what is due now, until it is time to stop.
    pub(crate) fn look(&mut self, inner: &Inner, data: &Handle, stops: &dyn Fn() -> bool) {
        if inner.log.failure().is_some() {
            // What is not in the log for sure may not be stored.
            return;
        }
        let now = inner.clock.monotonic();
        // Also those that serve nothing just now: the log must not grow for them.
        let shards = inner.running_shards();
        let mut due: Vec<(ShardId, Arc<Group>)> = Vec::new();
        let mut rest: Vec<(u64, ShardId, Arc<Group>)> = Vec::new();
        let mut total = 0;
        for (id, group) in shards {
            let Target::Shard(shard) = group.target() else { continue };
            let figures = shard.flush_due();
            if figures.entries == 0 {
                self.shards.remove(&id);
                continue;
            }
            let started = *self.shards.entry(id).or_insert(now);
            let bytes = figures.sealed_bytes + figures.entry_bytes;
            total += bytes;
            if now.saturating_sub(started) >= inner.config.flush_age {
                due.push((id, group));
            } else {
                rest.push((bytes, id, group));
            }
        }
        // Over the bound: the largest first, until half of it would be left.
        rest.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
        let mut rest = rest.into_iter();
        if total > inner.config.flush_bytes {
            while total > inner.config.flush_bytes / 2
                && let Some((bytes, id, group)) = rest.next()
            {
                total -= bytes;
                due.push((id, group));
            }
        }
        // The log is too long: whoever holds its oldest segments back flushes, however little it has.
        let mut meta_due = false;
        let meta = inner.meta.load_full();
        let mut held: Vec<u64> = Vec::new();
        if inner.log.size() > inner.config.log_bytes {
            let keep = inner.config.log_bytes / 2;
            held = inner
                .log
                .holdings()
                .into_iter()
                .filter(|h| h.behind_bytes > keep)
                .map(|h| h.group.0)
                .collect();
            meta_due = meta.as_ref().is_some_and(|meta| held.contains(&meta.id.0));
            due.extend(
                rest.filter(|(_, _, group)| held.contains(&group.id.0)).map(|(_, id, group)| (id, group)),
            );
        }
        for (id, group) in due {
            self.shards.remove(&id);
            let too_long = held.contains(&group.id.0);
            flush_shard(inner, &group, too_long, data);
            if stops() {
                return;
            }
        }
        let meta_applied = inner.store.meta().mark().0 != inner.store.meta().durable().0;
        if meta_applied {
            let started = *self.meta.get_or_insert(now);
            meta_due |= now.saturating_sub(started) >= inner.config.flush_age;
        }
        if meta_due && meta_applied {
            self.meta = None;
            if let Err(error) = inner.store.meta().flush() {
                inner.metrics.flush_failures.inc();
                tracing::error!(%error, "cannot flush the meta group");
            }
        }
        // Also what needed no flush: a member may have caught up since, or the log may have become too long.
        for group in inner.groups.read().values() {
            purge(group, held.contains(&group.id.0), data);
        }
    }
}

fn flush_shard(inner: &Inner, group: &Arc<Group>, too_long: bool, data: &Handle) {
    let Target::Shard(shard) = group.target() else { return };
    let started = inner.clock.monotonic();
    match shard.flush() {
        Ok(_) => {
            inner.metrics.flushes.inc();
            let took = inner.clock.monotonic().saturating_sub(started);
            inner.metrics.flush_seconds.observe(took.as_secs_f64());
            purge(group, too_long, data);
        }
        Err(error) => {
            inner.metrics.flush_failures.inc();
            tracing::error!(group = %group.name, %error, "cannot flush; trying again later");
        }
    }
}

/// Purges what the group does not need any more; also what only members need that are behind, when the log is too long.
fn purge(group: &Arc<Group>, too_long: bool, data: &Handle) {
    let group = Arc::clone(group);
    data.spawn(async move {
        if let Err(error) = group.purge_durable(too_long).await {
            tracing::debug!(group = %group.name, %error, "cannot purge the log");
        }
    });
}

impl Inner {
    /// Flushes everything with one flush of the database.
    pub(crate) fn flush_all(&self) -> Result<(), Failure> {
        let shards: Vec<Arc<Shard>> =
            self.ready_shards().into_iter().map(|(_, h)| Arc::clone(&h.shard)).collect();
        self.store.flush(&shards)?;
        Ok(())
    }
}

/// Retention, idle series, merges: at low priority, in small steps.
fn background(inner: &Inner, stop: &Stop, data: &Handle) {
    // Only a wish: without the right to it the thread runs as any other.
    let _ = rustix::process::setpriority_process(None, 10);
    let mut swept = None;
    let mut cleaned = inner.clock.monotonic();
    let mut pause = LOOK;
    while !stop.wait(pause) {
        let now = inner.clock.monotonic();
        let clean = now.saturating_sub(cleaned) >= CLEAN;
        if clean {
            cleaned = now;
        }
        if swept.is_none_or(|at| now.saturating_sub(at) >= SWEEP) {
            swept = Some(now);
            data.block_on(sweep(inner));
        }
        let mut more = false;
        for (id, handle) in inner.ready_shards() {
            match handle.shard.merge_step(STEP_BYTES) {
                Ok(progress) => more |= progress.more,
                Err(error) => {
                    tracing::error!(shard = id.0, %error, "background work failed; trying again later")
                }
            }
            if clean {
                match handle.shard.clean_deleted() {
                    Ok(done) if done.pages > 0 => {
                        tracing::info!(
                            shard = id.0,
                            pages = done.pages,
                            bytes = done.freed_bytes,
                            "deleted samples are off the disk"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(shard = id.0, %error, "cannot take deleted samples off the disk; trying again later");
                    }
                }
            }
            if stop.wait(Duration::ZERO) {
                return;
            }
        }
        pause = if more { Duration::from_millis(20) } else { LOOK * 5 };
    }
}

/// Proposes what time brings: the retention floor, the end of idle series.
pub(crate) async fn sweep(inner: &Inner) {
    let now_ms = inner.clock.now_ms();
    let retention = inner.retention_ms();
    for (id, handle) in inner.ready_shards() {
        let Some(term) = handle.group.leading() else { continue };
        let mut entries = Vec::new();
        if retention > 0 {
            entries.push(handle.shard.plan_retention(now_ms.saturating_sub(retention), now_ms));
        }
        let idle_before = now_ms.saturating_sub(inner.config.idle_series_ms);
        entries.push(handle.shard.plan_evict(idle_before, EVICT_LIMIT, now_ms));
        for entry in entries {
            if let Err(failure) = handle.propose(term, entry).await {
                tracing::warn!(shard = id.0, %failure, "cannot propose housekeeping; trying again later");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(dir: &std::path::Path, min_free: u64, segment_bytes: u64) -> Arc<DiskGuard> {
        let mut config = crate::node_test::config(dir);
        config.min_free_bytes = Some(min_free);
        config.log.segment_bytes = segment_bytes;
        let mut registry = prometheus_client::registry::Registry::default();
        DiskGuard::new(&config, Arc::new(Metrics::new(&mut registry)))
    }

    #[test]
    fn a_full_disk_refuses_writes_and_at_the_end_of_the_log_entries_too() {
        let dir = tempfile::tempdir().unwrap();
        let spacious = guard(dir.path(), 0, 1 << 20);
        assert!(!spacious.is_full() && spacious.check().is_ok() && !spacious.refuses_entries(|| 0));
        // The next segment fits: the log can go on.
        let full = guard(dir.path(), u64::MAX, 1 << 20);
        assert!(full.is_full() && !full.refuses_entries(|| 0));
        assert_eq!(full.check().unwrap_err().retry_after, Some(RETRY), "somebody else may lead soon");
        // It does not.
        let at_end = guard(dir.path(), u64::MAX, u64::MAX);
        assert!(at_end.refuses_entries(|| 1 << 20) && !at_end.refuses_entries(|| u64::MAX));
    }
}
