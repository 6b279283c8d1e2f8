//! What the paths work on: seams, callbacks and settings, put together by `server`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use model::regex::Regex;
use model::seam::{BoxFuture, Clock, ClusterView, SampleSink, StorageView, TargetsView};
use model::{Labels, TenantId};
use prometheus_client::registry::Registry;
use query::Frontend;
use tokio::sync::Semaphore;

use crate::metrics::ApiMetrics;
use crate::notifications::Notifications;
use crate::web::WebSource;
use crate::write::WriteSlots;

/// The configuration of the scrape pool of that name as YAML, if there is one.
pub type PoolConfigFn = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Why the node is not ready though it serves; `None` = it is.
pub type UnreadyFn = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Loads the configuration again; the error is shown to whoever asked.
pub type ReloadFn = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the paths work on.
#[derive(Clone)]
pub struct ApiState {
    /// Answers queries.
    pub frontend: Frontend,
    /// Takes samples.
    pub sink: Arc<dyn SampleSink>,
    /// Scrape targets.
    pub targets: Arc<dyn TargetsView>,
    /// Figures of the storage.
    pub storage: Arc<dyn StorageView>,
    /// The cluster that the node belongs to.
    pub cluster: Arc<dyn ClusterView>,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// The API's own metrics, registered in `registry`.
    pub metrics: ApiMetrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub settings: Settings,
    /// Versions.
    pub build: BuildInfo,
    /// Flags by name without dashes, with their values.
    pub flags: BTreeMap<String, String>,
    /// What the configuration asks for and this version does not do yet, one line each.
    pub not_active: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The loaded configuration as YAML, without secrets.
    pub config_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// The configuration of one scrape pool as YAML, without secrets; none when there is no such pool.
    pub pool_config: PoolConfigFn,
    /// `global.external_labels`.
    pub external_labels: Arc<dyn Fn() -> Labels + Send + Sync>,
    /// Users, TLS, headers.
    pub web: WebSource,
    /// What pages show at their top.
    pub notifications: Arc<Notifications>,
    /// Places for remote reads; more wait.
    pub reads: Arc<Semaphore>,
    /// Memory for write requests.
    pub writes: WritePlaces,
    /// How OTLP is translated, as now configured.
    pub otlp: Arc<dyn Fn() -> Arc<formats::otlp::Settings> + Send + Sync>,
    /// Figures of the process.
    pub runtime: Arc<dyn Fn() -> RuntimeInfo + Send + Sync>,
    /// Whether the node serves.
    pub readiness: Arc<Readiness>,
    /// Why a node that serves is not as good as others, for `/-/ready`; requests are served all the same.
    pub unready: UnreadyFn,
    /// Loads the configuration again.
    pub reload: ReloadFn,
    /// Begins an orderly shutdown.
    pub quit: Arc<dyn Fn() + Send + Sync>,
}

/// The memory that write requests of all paths share.
#[derive(Clone, Debug, Default)]
pub struct WritePlaces(pub(crate) Arc<WriteSlots>);

/// Settings of the HTTP interface. None is live-reloadable.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path under which everything is served: empty, or with a leading and without a trailing slash.
    pub route_prefix: String,
    /// Path of the external URL, in the same form: what redirects and the page use.
    pub external_path: String,
    /// Origins that CORS allows; none when absent.
    pub cors_origin: Option<Regex>,
    /// `POST /-/reload` and `/-/quit` work.
    pub lifecycle: bool,
    /// The admin API is on.
    pub admin: bool,
    /// The header `X-Scope-OrgID` names the tenant.
    pub tenancy: bool,
    /// The tenant of requests that name none, and of scraped series. Default `anonymous`.
    pub default_tenant: TenantId,
    /// Most samples of a remote read that is answered with samples; 0 = no limit. Default 50 million.
    pub max_read_samples: u64,
    /// Bytes that a frame of a streamed remote read aims at. Default 1 MiB.
    pub max_read_frame_bytes: usize,
    /// Largest write request, bytes, before and after decompression. Default 32 MiB.
    pub max_write_bytes: usize,
    /// Decompressed write requests held in memory at a time, bytes; more are refused with 503. Default 512 MiB.
    pub max_writes_held_bytes: u64,
    /// Largest form body, bytes. Default 1 MiB.
    pub max_form_bytes: usize,
    /// Longest time to read a request's body. Default 30 s.
    pub body_timeout: Duration,
    /// What a write request may hold.
    pub write_limits: formats::RequestLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            route_prefix: String::new(),
            external_path: String::new(),
            cors_origin: None,
            lifecycle: false,
            admin: false,
            tenancy: false,
            default_tenant: TenantId::anonymous(),
            max_read_samples: 50_000_000,
            max_read_frame_bytes: 1 << 20,
            max_write_bytes: 32 << 20,
            max_writes_held_bytes: 512 << 20,
            max_form_bytes: 1 << 20,
            body_timeout: Duration::from_secs(30),
            write_limits: formats::RequestLimits::default(),
        }
    }
}

/// Versions, as `/api/v1/status/buildinfo` shows them.
#[derive(Clone, Debug, Default)]
pub struct BuildInfo {
    /// The level of Prometheus that we match: clients decide by it.
    pub prometheus_version: String,
    /// Our version.
    pub isobar_version: String,
    /// Commit.
    pub revision: String,
    /// Branch.
    pub branch: String,
    /// When it was built, empty when not known.
    pub build_date: String,
    /// The compiler, where upstream names Go's.
    pub compiler: String,
}

/// Figures of the process, as `/api/v1/status/runtimeinfo` shows them.
#[derive(Clone, Debug, Default)]
pub struct RuntimeInfo {
    /// Start of the process, ms.
    pub start_ms: i64,
    /// Working folder.
    pub working_dir: String,
    /// Host name.
    pub hostname: String,
    /// Whether the last (re)load of the configuration went well.
    pub reload_success: bool,
    /// When the configuration was last loaded well, ms.
    pub last_config_ms: i64,
    /// Damaged records found and put aside.
    pub corruptions: u64,
    /// Threads that run tasks.
    pub threads: usize,
    /// Retention, as text: `15d`.
    pub retention: String,
}

/// Whether a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// Starting.
    NotReady,
    /// Serving.
    Ready,
    /// Shutting down.
    Stopping,
}

/// Whether this node serves; starts as [`ReadyState::NotReady`].
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Sets the state.
    pub fn set(&self, state: ReadyState) {
        let number = match state {
            ReadyState::NotReady => 0,
            ReadyState::Ready => 1,
            ReadyState::Stopping => 2,
        };
        self.0.store(number, Ordering::Release);
    }

    /// The state.
    pub fn get(&self) -> ReadyState {
        match self.0.load(Ordering::Acquire) {
            0 => ReadyState::NotReady,
            1 => ReadyState::Ready,
            _ => ReadyState::Stopping,
        }
    }
}
