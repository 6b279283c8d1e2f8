//! The targets of one job: which are active, which were dropped, and what they share.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use model::relabel::Rule;
use model::seam::TargetStatus;
use model::{Labels, MetricMetadata};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::HttpClient;
use crate::config::{JobConfig, TargetGroup};
use crate::discovery::{Source, Update};
use crate::error::ScrapeError;
use crate::manager::Shared;
use crate::metrics::JobLabel;
use crate::target::{Outcome, Target, targets_of};
use crate::target_loop::{Health, TargetLoop};

/// What changes with a reload of a job.
pub(crate) struct Runtime {
    pub(crate) job: Arc<JobConfig>,
    pub(crate) client: HttpClient,
}

/// What the loops of a job's targets see of it.
pub(crate) struct PoolShared {
    pub(crate) name: String,
    pub(crate) runtime: ArcSwap<Runtime>,
    forced_error: ArcSwapOption<String>,
}

impl PoolShared {
    #[cfg(test)]
    pub(crate) fn for_tests(job: &JobConfig, shared: &Shared) -> Arc<Self> {
        let prepared = Prepared::new(job, shared).unwrap();
        Arc::new(Self {
            name: job.job_name.clone(),
            runtime: ArcSwap::from_pointee(prepared.runtime),
            forced_error: ArcSwapOption::empty(),
        })
    }

    /// Why all scrapes of the job fail just now.
    pub(crate) fn forced_error(&self) -> Option<String> {
        self.forced_error.load().as_deref().cloned()
    }
}

/// A job's new configuration, with all that could fail already done.
pub(crate) struct Prepared {
    runtime: Runtime,
    sources: Vec<Source>,
}

impl Prepared {
    /// Builds the clients of `job`, which reads the files that they need.
    pub(crate) fn new(job: &JobConfig, shared: &Shared) -> Result<Self, ScrapeError> {
        let error = |source| ScrapeError::Client { job: job.job_name.clone(), source };
        let client = HttpClient::new(&job.http, &shared.client).map_err(error)?;
        let sources: Result<Vec<_>, _> =
            job.discovery.iter().map(|d| Source::new(d, &shared.client)).collect();
        let sources = sources.map_err(error)?;
        Ok(Self { runtime: Runtime { job: Arc::new(job.clone()), client }, sources })
    }
}

/// One job that runs.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    common: Arc<PoolShared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By [`Target::key`].
    active: HashMap<u64, Active>,
    dropped: Vec<Labels>,
    dropped_count: usize,
    /// The last groups of each source.
    groups: Vec<Vec<TargetGroup>>,
    /// Ends the discovery tasks of the present configuration.
    discovery: CancellationToken,
}

struct Active {
    target: Arc<Target>,
    health: Arc<Mutex<Health>>,
    stop: CancellationToken,
}

impl Pool {
    /// Starts a job.
    pub(crate) fn start(prepared: Prepared, shared: &Arc<Shared>) -> Arc<Self> {
        let Prepared { runtime, sources } = prepared;
        let common = Arc::new(PoolShared {
            name: runtime.job.job_name.clone(),
            runtime: ArcSwap::from_pointee(runtime),
            forced_error: ArcSwapOption::empty(),
        });
        let pool = Arc::new(Self { shared: Arc::clone(shared), common, state: Mutex::default() });
        pool.discover(sources, Vec::new());
        pool
    }

    /// The job's configuration.
    pub(crate) fn job(&self) -> Arc<JobConfig> {
        Arc::clone(&self.common.runtime.load().job)
    }

    /// Goes on with a new configuration. Targets that stay the same keep their schedule.
    pub(crate) fn reload(self: &Arc<Self>, prepared: Prepared) {
        let Prepared { runtime, sources } = prepared;
        let old = self.job();
        let new = Arc::clone(&runtime.job);
        self.common.runtime.store(Arc::new(runtime));
        // Sources that did not change are started anew but keep their groups until they report.
        let kept = {
            let state = self.state.lock();
            let groups_of = |config| {
                let at = old.discovery.iter().position(|old| old == config)?;
                state.groups.get(at).cloned()
            };
            new.discovery.iter().map(|config| groups_of(config).unwrap_or_default()).collect()
        };
        self.discover(sources, kept);
        self.sync();
    }

    /// Ends the job: its targets end too.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.discovery.cancel();
        for (_, active) in state.active.drain() {
            self.shared.deactivate(active.target.id);
            active.stop.cancel();
        }
        let label = self.label();
        self.shared.metrics.targets.remove(&label);
        self.shared.metrics.syncs.remove(&label);
        self.shared.metrics.sync_failures.remove(&label);
    }

    /// Runs `sources` instead of those before; `groups` are known of them already.
    fn discover(self: &Arc<Self>, sources: Vec<Source>, mut groups: Vec<Vec<TargetGroup>>) {
        groups.resize(sources.len(), Vec::new());
        let stop = CancellationToken::new();
        {
            let mut state = self.state.lock();
            state.discovery.cancel();
            state.discovery = stop.clone();
            state.groups = groups;
        }
        let (sender, mut receiver) = mpsc::channel::<Update>(16);
        for (i, source) in sources.into_iter().enumerate() {
            self.shared.spawn(source.run(i, sender.clone(), stop.clone()));
        }
        let pool = Arc::clone(self);
        self.shared.spawn(async move {
            loop {
                let update = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    update = receiver.recv() => update,
                };
                let Some(update) = update else { return };
                if let Some(groups) = pool.state.lock().groups.get_mut(update.source) {
                    *groups = update.groups;
                }
                pool.sync();
            }
        });
        // Dropping the last sender ends the task above when all sources are done (static ones).
        drop(sender);
    }

    /// Makes the running targets those that the groups say.
    fn sync(&self) {
        let job = self.job();
        let label = self.label();
        let metrics = &self.shared.metrics;
        let mut state = self.state.lock();
        let mut wanted: HashMap<u64, Arc<Target>> = HashMap::new();
        let (mut dropped, mut dropped_count) = (Vec::new(), 0usize);
        for group in state.groups.iter().flatten() {
            for outcome in targets_of(group, &job) {
                match outcome {
                    Ok(Outcome::Kept(target)) => {
                        wanted.entry(target.key).or_insert(target);
                    }
                    Ok(Outcome::Dropped(labels)) => {
                        dropped_count += 1;
                        if job.keep_dropped_targets == 0 || (dropped.len() as u64) < job.keep_dropped_targets
                        {
                            dropped.push(labels);
                        }
                    }
                    Err(error) => {
                        metrics.sync_failures.get_or_create(&label).inc();
                        tracing::error!(job = %job.job_name, %error, "creating target failed");
                    }
                }
            }
        }
        (state.dropped, state.dropped_count) = (dropped, dropped_count);
        let count = wanted.len() as u64;
        let over = job.target_limit > 0 && count > job.target_limit;
        if over {
            metrics.target_limit.inc();
        }
        let limit = job.target_limit;
        let text = || Arc::new(format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        self.common.forced_error.store(over.then(text));

        // New ones are counted as active before old ones end, so that a target that only changed its interval is
        // never taken for ended.
        for (key, target) in &wanted {
            match state.active.get(key) {
                Some(active) => *active.target.discovered.lock() = target.discovered.lock().clone(),
                None => {
                    let active = self.activate(Arc::clone(target));
                    state.active.insert(*key, active);
                }
            }
        }
        state.active.retain(|key, active| {
            let stays = wanted.contains_key(key);
            if !stays {
                self.shared.deactivate(active.target.id);
                active.stop.cancel();
            }
            stays
        });
        metrics.syncs.get_or_create(&label).inc();
        metrics.targets.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn activate(&self, target: Arc<Target>) -> Active {
        self.shared.activate(target.id);
        let active = Active { target, health: Arc::default(), stop: CancellationToken::new() };
        let target_loop = TargetLoop {
            shared: Arc::clone(&self.shared),
            pool: Arc::clone(&self.common),
            target: Arc::clone(&active.target),
            health: Arc::clone(&active.health),
            stop: active.stop.clone(),
        };
        self.shared.spawn(target_loop.run());
        active
    }

    fn label(&self) -> JobLabel {
        JobLabel { scrape_job: self.common.name.clone() }
    }

    /// The active targets, by URL and labels.
    pub(crate) fn active(&self) -> Vec<TargetStatus> {
        let state = self.state.lock();
        let mut list: Vec<TargetStatus> = state.active.values().map(|active| self.status(active)).collect();
        list.sort_by(|a, b| (&a.scrape_url, &a.labels).cmp(&(&b.scrape_url, &b.labels)));
        list
    }

    fn status(&self, active: &Active) -> TargetStatus {
        let target = &active.target;
        let health = active.health.lock();
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let never = health.last_scrape_ms == 0 && health.error.is_empty();
        TargetStatus {
            discovered_labels: target.discovered.lock().clone(),
            labels: target.labels.clone(),
            scrape_pool: self.common.name.clone(),
            scrape_url: target.url.clone(),
            global_url: self.shared.options.global_url(&target.url),
            health: match (never, health.error.is_empty()) {
                (true, _) => "unknown",
                (false, true) => "up",
                (false, false) => "down",
            },
            last_error: health.error.clone(),
            last_scrape_ms: health.last_scrape_ms,
            last_scrape_duration: health.duration,
            interval_ms: ms(target.interval),
            timeout_ms: ms(target.timeout),
        }
    }

    /// Metadata of the active targets, by their labels.
    pub(crate) fn metadata(&self) -> Vec<(Labels, Vec<Arc<MetricMetadata>>)> {
        let state = self.state.lock();
        let one = |active: &Active| (active.target.labels.clone(), active.health.lock().metadata.clone());
        let mut list: Vec<_> = state.active.values().map(one).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// The rules for its targets.
    pub(crate) fn relabel_rules(&self) -> Vec<Rule> {
        self.common.runtime.load().job.relabel.clone()
    }

    /// The dropped targets that were kept, and how many there are.
    pub(crate) fn dropped(&self) -> (Vec<TargetStatus>, usize) {
        let state = self.state.lock();
        let status = |labels: &Labels| TargetStatus {
            discovered_labels: labels.clone(),
            scrape_pool: self.common.name.clone(),
            health: "unknown",
            ..TargetStatus::default()
        };
        (state.dropped.iter().map(status).collect(), state.dropped_count)
    }
}
