//! A node with every role: what is built from what, and in which order it starts and stops.
//!
//! Start: flags → configuration → listeners (so that a taken port fails at once) → data folder, log and groups → ingest,
//! query, scraping → HTTP. Stop: not ready → scraping → HTTP (requests under way end) → groups flush and close.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use api::listen::TlsSource;
use api::web::WebSource;
use api::{
    ApiMetrics, ApiState, BuildInfo, ListenLimits, Notifications, Readiness, ReadyState, RuntimeInfo,
    Settings, WritePlaces,
};
use arc_swap::ArcSwap;
use ingest::Ingest;
use model::regex::Regex;
use model::seam::{Clock, SampleSink, ShardReader, ShardWriter, SystemClock};
use model::{Labels, TenantId};
use prometheus_client::registry::Registry;
use query::Frontend;
use replication::Replication;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::features;
use super::process::{ProcessMetrics, ReloadState};
use super::{PROMETHEUS_VERSION, VERSION, web};
use crate::config::{self, ConfigError, Loaded};
use crate::flags::ServeFlags;

/// The configuration in force, and how another takes its place.
struct Configuration {
    flags: ServeFlags,
    current: ArcSwap<Loaded>,
    scraper: Arc<scrape::Manager>,
    frontend: Frontend,
    replication: Arc<Replication>,
    state: Arc<ReloadState>,
    notifications: Arc<Notifications>,
    web: WebSource,
    clock: Arc<dyn Clock>,
}

/// Shown at the top of pages while the last load of the configuration had failed; upstream's text.
const RELOAD_FAILED: &str = "Configuration reload has failed.";

/// Shown at the top of pages while the node stops.
const STOPPING: &str = "Isobar is shutting down and gracefully stopping all operations.";

impl Configuration {
    /// Loads the file again: everything or nothing. The error names file, line and column.
    async fn reload(&self) -> Result<(), String> {
        let outcome = self.apply().await;
        self.state.set(outcome.is_ok(), self.clock.now_ms());
        self.notifications.set(RELOAD_FAILED, outcome.is_err(), self.clock.now_ms());
        match &outcome {
            Ok(()) => tracing::info!("configuration loaded"),
            Err(error) => {
                tracing::error!(%error, "the configuration was not loaded; the one before stays in force")
            }
        }
        outcome
    }

    async fn apply(&self) -> Result<(), String> {
        let mut loaded = load(&self.flags, &self.web).map_err(|e| e.to_string())?;
        if let Some(name) = self.replication.name_among_others() {
            among_others(&mut loaded, &name);
        }
        web::reload(self.flags.web_config.as_deref(), &self.web)?;
        let log = loaded.global.query_log.clone();
        self.frontend.set_query_log(log.as_deref()).map_err(|error| {
            let file = log.unwrap_or_default();
            format!("global.query_log_file {}: {error}", file.display())
        })?;
        self.scraper.apply(loaded.scrape.clone()).await.map_err(|e| e.to_string())?;
        self.frontend.set_subquery_step(loaded.global.evaluation_interval);
        // It takes effect, here too, once the cluster's settings say so.
        self.replication.set_retention(retention_ms(&self.flags, &loaded));
        self.current.store(Arc::new(loaded));
        Ok(())
    }
}

/// The configuration that the flags name: a file, `prometheus.yml` in the folder, or the built-in one.
fn load(flags: &ServeFlags, web: &WebSource) -> Result<Loaded, ConfigError> {
    #[allow(clippy::disallowed_methods, reason = "server reads the environment")]
    let env = |name: &str| std::env::var(name).ok();
    let file = match &flags.config_file {
        Some(file) => Some(file.clone()),
        None => Some(std::path::PathBuf::from("prometheus.yml")).filter(|f| f.try_exists().unwrap_or(true)),
    };
    match file {
        Some(file) => config::load_file(&file, &env),
        None => {
            let scheme = if web.load().tls().is_some() { "https" } else { "http" };
            config::builtin(scheme, flags.listen.first().map_or(9090, SocketAddr::port))
        }
    }
}

/// What changes in the configuration of node `name` of several: its own loopback targets carry its name, and nobody divides
/// the targets yet.
fn among_others(loaded: &mut Loaded, name: &str) {
    let jobs = &mut loaded.scrape.jobs;
    for job in jobs.iter_mut() {
        job.loopback_name = Some(name.to_owned());
    }
    if jobs.iter().any(|job| !job.own) {
        let line = "scrape_configs: dividing targets among nodes (each node given this file scrapes all of them; give it to one)";
        tracing::warn!(setting = line, "not active yet");
        loaded.not_active.push(line.to_owned());
    }
}

/// How long samples are kept, ms: as the file says, else as the flag does.
fn retention_ms(flags: &ServeFlags, loaded: &Loaded) -> i64 {
    loaded.retention.time_ms.unwrap_or(flags.retention.0)
}

/// Has samples judged too old by what the cluster's settings say, not by this node's flags, whenever that changes.
async fn follow_retention(replication: Arc<Replication>, ingest: Arc<Ingest>, mut known: i64) {
    loop {
        known = replication.retention_after(known).await;
        ingest.set_limits(write_limits(known));
    }
}

fn write_limits(retention_ms: i64) -> ingest::Limits {
    ingest::Limits {
        retention: Duration::from_millis(retention_ms.unsigned_abs()),
        ..ingest::Limits::default()
    }
}

/// Runs the node until it is told to stop.
#[allow(clippy::too_many_lines, reason = "the one place where everything is put together, in order")]
pub(super) async fn run(flags: ServeFlags) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let start_ms = clock.now_ms();
    let (enabled, warnings) = features::enable(&flags.features);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let web = web::load(flags.web_config.as_deref())?;

    let mut listeners = Vec::new();
    for address in &flags.listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        listeners.push(listener);
    }
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let mut flags = flags;
    flags.listen.clone_from(&addresses);
    let loaded = load(&flags, &web)?;
    for line in &loaded.not_active {
        tracing::warn!(setting = %line, "not active yet");
    }
    let external_path = path_of(&flags.external_url);
    let settings = settings(&flags, &external_path, &loaded)?;
    flags.tenancy = settings.tenancy;
    let notifications = Arc::new(Notifications::default());

    let mut registry = Registry::default();
    let retention = retention_ms(&flags, &loaded);
    let peering = super::peering::bind(&flags).await?;
    let config = replication_config(&flags, retention);
    // Who asks for a stop from here on gets a clean one.
    let signals = Signals::heed()?;
    let replication = Replication::open(config, peering, Arc::clone(&clock), &mut registry).await?;
    let writer: Arc<dyn ShardWriter> = Arc::clone(&replication) as _;
    let reader: Arc<dyn ShardReader> = Arc::clone(&replication) as _;
    let known = replication.retention_ms();
    let limits = write_limits(known);
    let ingest = Ingest::new(writer, replication.shard_map(), limits, Arc::clone(&clock), &mut registry);
    let ingest = Arc::new(ingest);
    tokio::spawn(follow_retention(Arc::clone(&replication), Arc::clone(&ingest), known));
    let sink: Arc<dyn SampleSink> = Arc::clone(&ingest) as _;
    let frontend = Frontend::new(reader, query_config(&flags, enabled), Arc::clone(&clock), &mut registry);
    replication.answer_fragments(Arc::new(query::Leaf::new(frontend.clone())));
    // The registry is complete only when everything is built; no scrape begins before.
    let complete: Arc<OnceLock<Arc<Registry>>> = Arc::default();
    let options = scrape::Options {
        own: Some(own_metrics(&complete)),
        tenant: settings.default_tenant.clone(),
        offset_seed: scrape::Options::seed_of(&replication.node().to_string()),
        external_url: external_url(&flags),
        ..scrape::Options::default()
    };
    let scraper =
        Arc::new(scrape::Manager::new(options, Arc::clone(&sink), Arc::clone(&clock), &mut registry));

    let state = Arc::new(ReloadState::default());
    let configuration = Arc::new(Configuration {
        flags: flags.clone(),
        current: ArcSwap::from_pointee(loaded),
        scraper: Arc::clone(&scraper),
        frontend: frontend.clone(),
        replication: Arc::clone(&replication),
        state: Arc::clone(&state),
        notifications: Arc::clone(&notifications),
        web: Arc::clone(&web),
        clock: Arc::clone(&clock),
    });

    let metrics = ApiMetrics::register(&mut registry);
    let counted = Arc::clone(&configuration);
    registry.register_collector(Box::new(ProcessMetrics {
        start_ms,
        reload: Arc::clone(&state),
        not_active: Box::new(move || counted.current.load().not_active.len()),
    }));
    let registry = Arc::new(registry);
    // Set once, here.
    let _ = complete.set(Arc::clone(&registry));
    let stop = CancellationToken::new();
    let readiness = Arc::new(Readiness::default());
    let state = ApiState {
        frontend,
        sink,
        targets: Arc::clone(&scraper) as _,
        storage: Arc::clone(&replication) as _,
        cluster: Arc::clone(&replication) as _,
        registry,
        metrics: metrics.clone(),
        clock: Arc::clone(&clock),
        settings,
        build: BuildInfo {
            prometheus_version: PROMETHEUS_VERSION.into(),
            isobar_version: VERSION.into(),
            compiler: "rustc".into(),
            ..BuildInfo::default()
        },
        flags: flag_values(&flags),
        not_active: from_config(&configuration, |loaded| loaded.not_active.clone()),
        config_text: from_config(&configuration, |loaded| loaded.to_yaml().to_owned()),
        pool_config: {
            let configuration = Arc::clone(&configuration);
            Arc::new(move |pool| configuration.current.load().job_yaml(pool).map(str::to_owned))
        },
        external_labels: from_config(&configuration, external_labels),
        web: Arc::clone(&web),
        notifications: Arc::clone(&notifications),
        reads: Arc::new(tokio::sync::Semaphore::new(flags.read_concurrency.max(1))),
        writes: WritePlaces::default(),
        otlp: {
            let lookback = Duration::from_millis(flags.lookback.0.unsigned_abs());
            from_config(&configuration, move |loaded| {
                Arc::new(api::OtlpSettings { lookback, ..loaded.otlp.clone() })
            })
        },
        runtime: runtime_info(&configuration, &flags, start_ms),
        readiness: Arc::clone(&readiness),
        unready: {
            let replication = Arc::clone(&replication);
            Arc::new(move || replication.unready())
        },
        reload: {
            let configuration = Arc::clone(&configuration);
            Arc::new(move || {
                let configuration = Arc::clone(&configuration);
                Box::pin(async move { configuration.reload().await })
            })
        },
        quit: {
            let stop = stop.clone();
            Arc::new(move || stop.cancel())
        },
    };
    let router = api::router(state);
    let limits = ListenLimits {
        max_connections: flags.max_connections,
        head_timeout: Duration::from_millis(flags.read_timeout.0.unsigned_abs()),
        ..ListenLimits::default()
    };
    let drained = CancellationToken::new();
    let tls: Option<TlsSource> = web.load().tls().map(|first| -> TlsSource {
        let web = Arc::clone(&web);
        Arc::new(move || web.load().tls().unwrap_or_else(|| Arc::clone(&first)))
    });
    let server = tokio::spawn(api::serve(listeners, router, tls, limits, metrics, drained.clone()));
    if let Some(file) = flags.web_config.clone() {
        tokio::spawn(web::watch(file, Arc::clone(&web), drained.clone()));
    }
    let first = addresses.first().map_or(String::new(), SocketAddr::to_string);
    tracing::info!(address = %first, "answering HTTP; not ready yet");
    let started = async {
        wait_until_caught_up(&replication).await;
        // The file was read well above; what can still fail is what it names (certificates, say).
        configuration.reload().await.map_err(anyhow::Error::msg)?;
        readiness.set(ReadyState::Ready);
        let shown = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        tracing::info!(address = %first, all = %shown, "ready to serve");
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        stopped = wait_for_stop(signals, &configuration, &stop) => stopped,
        failed = async { match started.await { Ok(()) => std::future::pending().await, Err(error) => error } } => Err(failed),
    };
    tracing::info!("stopping: no new scrapes and requests, then everything is flushed");
    readiness.set(ReadyState::Stopping);
    notifications.set(STOPPING, true, clock.now_ms());
    scraper.shutdown().await;
    notifications.close();
    drained.cancel();
    server.await.context("the HTTP server")?.context("the HTTP server")?;
    replication.shutdown().await.context("flushing and closing the node's groups")?;
    tracing::info!("stopped");
    outcome
}

/// Returns when this node belongs to a cluster and every group of it takes reads and writes, or cannot start at all; says
/// how far that is. What cannot start is named in the log and in each request that needs it; the other groups serve.
async fn wait_until_caught_up(replication: &Replication) {
    while !replication.wait_caught_up(Duration::from_secs(2)).await {
        let progress = replication.progress();
        if progress.waits_for.is_empty() && progress.ready + progress.failed.len() >= progress.groups {
            for (group, reason) in &progress.failed {
                tracing::error!(%group, %reason, "a group cannot start; its data is not served");
            }
            return;
        }
        let (ready, groups, left) = (progress.ready, progress.groups, progress.entries_left);
        tracing::info!(ready, groups, entries_left = left, waits_for = %progress.waits_for, "not caught up yet");
        if !progress.failed.is_empty() {
            // With a failed group the wait above returns at once.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The signals that the node heeds; from [`Signals::heed`] on they end nothing by themselves.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn heed() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Returns when SIGTERM, SIGINT or `/-/quit` asks to stop; SIGHUP reloads meanwhile.
async fn wait_for_stop(
    mut signals: Signals,
    configuration: &Arc<Configuration>,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            () = stop.cancelled() => return Ok(()),
            _ = signals.hangup.recv() => {
                // The outcome is logged and counted by reload itself.
                let _ = configuration.reload().await;
            }
        }
    }
}

/// `global.external_labels` as a set of labels.
fn external_labels(loaded: &Loaded) -> Labels {
    Labels::from_pairs(loaded.global.external_labels.iter()).unwrap_or_default()
}

fn settings(flags: &ServeFlags, external_path: &str, loaded: &Loaded) -> Result<Settings> {
    let tenancy = flags.tenancy || loaded.isobar.tenancy_enabled == Some(true);
    let default_tenant = loaded.isobar.default_tenant.clone().filter(|_| tenancy);
    let cors_origin = match flags.cors_origin.as_str() {
        "" => None,
        pattern => Some(Regex::anchored(pattern).map_err(|e| anyhow::anyhow!("--web.cors.origin: {e}"))?),
    };
    let prefix = flags.route_prefix.as_deref().unwrap_or(external_path);
    Ok(Settings {
        route_prefix: normal_path(prefix),
        external_path: external_path.to_owned(),
        cors_origin,
        lifecycle: flags.enable_lifecycle,
        admin: flags.enable_admin_api,
        tenancy,
        default_tenant: default_tenant.unwrap_or_else(TenantId::anonymous),
        max_read_samples: flags.read_samples,
        max_read_frame_bytes: flags.read_frame_bytes,
        ..Settings::default()
    })
}

/// This node's metrics for its own scrapes.
fn own_metrics(registry: &Arc<OnceLock<Arc<Registry>>>) -> scrape::OwnMetrics {
    let registry = Arc::clone(registry);
    scrape::OwnMetrics::new(move |accept| {
        let registry = registry.get().ok_or("the node is starting")?;
        let (media, text) =
            api::own_metrics(registry, accept).map_err(|e| format!("error writing metrics: {e}"))?;
        Ok(scrape::OwnAnswer { content_type: media.into(), body: text.into_bytes() })
    })
}

/// How the node is reached from outside, for links on the targets page: `--web.external-url`, or nothing.
fn external_url(flags: &ServeFlags) -> Option<scrape::ExternalUrl> {
    let (scheme, rest) = flags.external_url.split_once("://")?;
    let host = rest.split('/').next().unwrap_or(rest).to_owned();
    let own_port = flags.listen.first().map_or(9090, SocketAddr::port);
    Some(scrape::ExternalUrl { scheme: scheme.to_owned(), host, own_port })
}

/// The path of a URL in the form of [`normal_path`].
fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or(String::new(), |at| normal_path(&rest[at..]))
}

/// A path with a leading and without a trailing slash; empty for the root.
fn normal_path(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

fn replication_config(flags: &ServeFlags, retention_ms: i64) -> replication::ReplicationConfig {
    #[cfg_attr(not(feature = "seeded_bugs"), expect(unused_mut, reason = "for seeded bugs"))]
    let mut config = replication::ReplicationConfig {
        data_dir: flags.data_dir.clone(),
        cluster_name: flags.cluster.name.clone(),
        node_name: flags.cluster.node_name.clone().unwrap_or_default(),
        zone: flags.cluster.zone.clone(),
        join: flags.cluster.join.clone(),
        bootstrap_expect: flags.cluster.bootstrap_expect,
        replication_factor: flags.cluster.replication_factor.0,
        shards: flags.cluster.shards,
        min_free_bytes: (flags.min_free.0 > 0).then_some(flags.min_free.0),
        retention_ms,
        ..replication::ReplicationConfig::default()
    };
    #[cfg(feature = "seeded_bugs")]
    {
        config.log.seeded_bug = super::seeded_bug();
    }
    config
}

fn query_config(flags: &ServeFlags, enabled: features::Enabled) -> query::Config {
    query::Config {
        timeout: Duration::from_millis(flags.query_timeout.0.unsigned_abs()),
        max_concurrency: flags.query_concurrency.max(1),
        max_memory_bytes: flags.query_memory.0,
        lookback_ms: flags.lookback.0,
        active_file: Some(flags.data_dir.join("queries.active")),
        parser: promql::ParseOptions {
            limits: promql::Limits {
                max_length: usize::try_from(flags.query_length.0).unwrap_or(usize::MAX),
                max_depth: flags.query_depth.into(),
                max_operators: flags.query_operators.into(),
            },
            ..enabled.parser
        },
        features: enabled.engine,
        ..query::Config::default()
    }
}

/// A callback that reads the configuration in force.
fn from_config<T>(
    configuration: &Arc<Configuration>,
    read: impl Fn(&Loaded) -> T + Send + Sync + 'static,
) -> Arc<dyn Fn() -> T + Send + Sync> {
    let configuration = Arc::clone(configuration);
    Arc::new(move || read(&configuration.current.load()))
}

fn runtime_info(
    configuration: &Arc<Configuration>,
    flags: &ServeFlags,
    start_ms: i64,
) -> Arc<dyn Fn() -> RuntimeInfo + Send + Sync> {
    let configuration = Arc::clone(configuration);
    let retention = model::time::format_duration(flags.retention.0);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let working_dir = std::env::current_dir().map_or(String::new(), |d| d.display().to_string());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(move || {
        let (reload_success, last_config_ms) = configuration.state.get();
        RuntimeInfo {
            start_ms,
            working_dir: working_dir.clone(),
            hostname: hostname.clone(),
            reload_success,
            last_config_ms,
            corruptions: 0,
            threads,
            retention: retention.clone(),
        }
    })
}

/// The flags as `/api/v1/status/flags` shows them.
fn flag_values(flags: &ServeFlags) -> BTreeMap<String, String> {
    let duration = |millis: crate::flags::Millis| model::time::format_duration(millis.0);
    let listen = flags.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let config = flags.config_file.as_ref().map_or(String::new(), |f| f.display().to_string());
    [
        ("config.file", config),
        ("storage.tsdb.path", flags.data_dir.display().to_string()),
        ("storage.tsdb.retention.time", duration(flags.retention)),
        ("storage.min-free", flags.min_free.0.to_string()),
        ("web.listen-address", listen),
        ("web.external-url", flags.external_url.clone()),
        ("web.route-prefix", flags.route_prefix.clone().unwrap_or_default()),
        ("web.config.file", flags.web_config.as_ref().map_or(String::new(), |f| f.display().to_string())),
        ("storage.remote.read-sample-limit", flags.read_samples.to_string()),
        ("storage.remote.read-concurrent-limit", flags.read_concurrency.to_string()),
        ("storage.remote.read-max-bytes-in-frame", flags.read_frame_bytes.to_string()),
        ("web.enable-lifecycle", flags.enable_lifecycle.to_string()),
        ("web.enable-admin-api", flags.enable_admin_api.to_string()),
        ("web.cors.origin", flags.cors_origin.clone()),
        ("web.max-connections", flags.max_connections.to_string()),
        ("web.read-timeout", duration(flags.read_timeout)),
        ("enable-feature", flags.features.join(",")),
        ("query.timeout", duration(flags.query_timeout)),
        ("query.lookback-delta", duration(flags.lookback)),
        ("query.max-concurrency", flags.query_concurrency.to_string()),
        ("query.max-memory", flags.query_memory.0.to_string()),
        ("query.max-length", flags.query_length.0.to_string()),
        ("query.max-depth", flags.query_depth.to_string()),
        ("query.max-operators", flags.query_operators.to_string()),
        ("role", flags.role.clone()),
        ("tenancy.enabled", flags.tenancy.to_string()),
        ("log.level", flags.log_level.clone()),
        ("log.format", flags.log_format.clone()),
    ]
    .into_iter()
    .chain(flags.cluster.values())
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_urls_have_a_leading_and_no_trailing_slash() {
        assert_eq!(path_of("http://host:9090/prom/"), "/prom");
        assert_eq!(path_of("http://host:9090"), "");
        assert_eq!(path_of(""), "");
        assert_eq!(normal_path("a/b"), "/a/b");
        assert_eq!(normal_path("/"), "");
    }
}
