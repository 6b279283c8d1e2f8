//! The scraper of a node: takes configurations, runs a pool a job, answers the targets page.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use http::HeaderValue;
use model::relabel::Rule;
use model::seam::{Clock, SampleSink, TargetStatus, TargetsView};
use model::{Labels, MetricMetadata, TenantId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64;

use crate::client::{self, BodyBudget};
use crate::config::Config;
use crate::error::ScrapeError;
use crate::metrics::Metrics;
use crate::own::OwnMetrics;
use crate::pool::{Pool, Prepared};
use crate::target::is_loopback;

/// Memory for bodies larger than 1 MiB that are being read or parsed, all together.
const BODY_BUDGET: usize = 512 << 20;

/// What does not change with a reload.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose series the scraped ones are.
    pub tenant: TenantId,
    /// Moves the phases of all targets, so that nodes do not scrape at the same times: see [`Options::seed_of`].
    pub offset_seed: u64,
    /// How this node is reached from outside, for links on the targets page.
    pub external_url: Option<ExternalUrl>,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// This node's metrics, for jobs that are [`crate::JobConfig::own`].
    pub own: Option<OwnMetrics>,
}

/// How a node is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl {
    /// `http` or `https`.
    pub scheme: String,
    /// Host, with the port where it is not the scheme's.
    pub host: String,
    /// The port on which this node listens itself.
    pub own_port: u16,
}

impl Default for Options {
    /// The anonymous tenant, no seed, links as scraped, no metrics of one's own.
    fn default() -> Self {
        Self {
            tenant: TenantId::anonymous(),
            offset_seed: 0,
            external_url: None,
            user_agent: concat!("isobar/", env!("CARGO_PKG_VERSION")).into(),
            own: None,
        }
    }
}

impl Options {
    /// A seed from a node's name: the same after each restart.
    pub fn seed_of(node_name: &str) -> u64 {
        xxh3_64(node_name.as_bytes())
    }

    /// `url` as reachable from outside: loopback names become the external host, as upstream's page does.
    pub(crate) fn global_url(&self, url: &str) -> String {
        let Some(external) = &self.external_url else { return url.to_owned() };
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let Some((host, port)) = authority.rsplit_once(':') else { return url.to_owned() };
        if !is_loopback(host) {
            return url.to_owned();
        }
        if port.parse() == Ok(external.own_port) {
            return format!("{}://{}{path}", external.scheme, external.host);
        }
        let (external_host, _) = external.host.rsplit_once(':').unwrap_or((&external.host, ""));
        format!("{scheme}://{external_host}:{port}{path}")
    }
}

/// What pools and loops share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) sink: Arc<dyn SampleSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) client: client::Shared,
    /// Large bodies parsed at a time, and huge ones.
    pub(crate) parse_slots: Semaphore,
    pub(crate) huge_slots: Semaphore,
    /// Cancelled at shutdown: everything stops where it is and writes nothing more.
    pub(crate) shutdown: CancellationToken,
    tasks: TaskTracker,
    /// How often each target is active, by `Target::id`.
    active: Mutex<HashMap<u64, usize>>,
}

impl Shared {
    /// Runs `task`; shutdown waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    pub(crate) fn activate(&self, id: u64) {
        *self.active.lock().entry(id).or_default() += 1;
    }

    pub(crate) fn deactivate(&self, id: u64) {
        let mut active = self.active.lock();
        if let Some(count) = active.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                active.remove(&id);
            }
        }
    }

    /// Whether some loop scrapes that target.
    pub(crate) fn is_active(&self, id: u64) -> bool {
        self.active.lock().contains_key(&id)
    }
}

/// The scraper of a node. Must be used inside a tokio runtime.
pub struct Manager {
    shared: Arc<Shared>,
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
    /// One configuration is applied at a time.
    applying: tokio::sync::Mutex<()>,
}

impl Manager {
    /// A scraper without jobs that writes to `sink`.
    pub fn new(
        options: Options,
        sink: Arc<dyn SampleSink>,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::new(registry);
        let user_agent = HeaderValue::from_str(&options.user_agent);
        let client = client::Shared {
            budget: Arc::new(BodyBudget::new(BODY_BUDGET)),
            user_agent: user_agent.unwrap_or_else(|_| HeaderValue::from_static("isobar")),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared {
            options,
            sink,
            clock,
            metrics,
            client,
            parse_slots: Semaphore::new(cpus),
            huge_slots: Semaphore::new(1),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            active: Mutex::default(),
        };
        Self { shared: Arc::new(shared), pools: Mutex::default(), applying: tokio::sync::Mutex::new(()) }
    }

    /// Makes `config` the running configuration, wholly or (on an error) not at all. Jobs that did not change go on
    /// untouched; of those that did, targets that stay the same keep their schedule.
    pub async fn apply(&self, config: Config) -> Result<(), ScrapeError> {
        let _one_at_a_time = self.applying.lock().await;
        if self.shared.shutdown.is_cancelled() {
            return Err(ScrapeError::ShutDown);
        }
        let mut names: BTreeMap<&str, ()> = BTreeMap::new();
        for job in &config.jobs {
            if names.insert(&job.job_name, ()).is_some() {
                return Err(ScrapeError::DuplicateJob(job.job_name.clone()));
            }
        }
        let running = self.pools.lock().clone();
        let changed: Vec<_> = config
            .jobs
            .iter()
            .filter(|job| running.get(&job.job_name).is_none_or(|pool| *pool.job() != **job))
            .cloned()
            .collect();
        // Reading files and building TLS settings takes a while: not on a thread that serves others.
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        let prepare = move || {
            let _entered = runtime.enter();
            changed.iter().map(|job| Prepared::new(job, &shared).map(|p| (job.job_name.clone(), p))).collect()
        };
        let prepared: Result<Vec<_>, ScrapeError> =
            tokio::task::spawn_blocking(prepare).await.map_err(|_| ScrapeError::ShutDown)?;
        let prepared = prepared?;

        for (name, prepared) in prepared {
            match running.get(&name) {
                Some(pool) => pool.reload(prepared),
                None => {
                    let pool = Pool::start(prepared, &self.shared);
                    self.pools.lock().insert(name, pool);
                }
            }
        }
        for (name, pool) in running {
            if !names.contains_key(name.as_str()) {
                self.pools.lock().remove(&name);
                pool.stop();
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Stops everything and waits for it. Writes no staleness markers: another node or a restart goes on.
    pub async fn shutdown(&self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl TargetsView for Manager {
    fn active(&self) -> Vec<TargetStatus> {
        let pools = self.pools.lock().clone();
        pools.values().flat_map(|pool| pool.active()).collect()
    }

    fn dropped(&self) -> (Vec<TargetStatus>, BTreeMap<String, usize>) {
        let pools = self.pools.lock().clone();
        let (mut targets, mut counts) = (Vec::new(), BTreeMap::new());
        for (name, pool) in pools {
            let (kept, count) = pool.dropped();
            targets.extend(kept);
            counts.insert(name, count);
        }
        (targets, counts)
    }

    fn pools(&self) -> Vec<String> {
        self.pools.lock().keys().cloned().collect()
    }

    fn metadata(&self) -> Vec<(Labels, Vec<Arc<MetricMetadata>>)> {
        let pools = self.pools.lock().clone();
        pools.values().flat_map(|pool| pool.metadata()).collect()
    }

    fn relabel_rules(&self, pool: &str) -> Option<Vec<Rule>> {
        let pool = self.pools.lock().get(pool).cloned()?;
        Some(pool.relabel_rules())
    }
}

#[cfg(test)]
mod tests;
