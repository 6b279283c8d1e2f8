//! What the scraper is told: plain structs, already checked and with all defaults filled in.
//!
//! Reading them from YAML is `server::config`'s matter. Field by field they follow upstream's `scrape_config`; each
//! may change by a reload.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use formats::negotiate::ScrapeProtocol;
use model::relabel::{NameScheme, Rule};

use crate::secret::{Secret, Source};

/// Everything that one reload replaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The jobs; their names are unique.
    pub jobs: Vec<JobConfig>,
}

/// The body limit of jobs that set none: one hostile target must not take the node's memory.
pub const DEFAULT_BODY_LIMIT: u64 = 64 << 20;

/// One job: what is scraped, how, and what becomes of the labels. [`JobConfig::new`] has upstream's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct JobConfig {
    /// The value of label `job`, unless discovery or relabelling says otherwise.
    pub job_name: String,
    /// Keep scraped labels that collide with the target's.
    pub honor_labels: bool,
    /// Keep scraped timestamps.
    pub honor_timestamps: bool,
    /// Track staleness of samples with scraped timestamps too.
    pub track_timestamps_staleness: bool,
    /// Query parameters of the scrape URL, by name.
    pub params: BTreeMap<String, Vec<String>>,
    /// Time between scrapes; positive.
    pub interval: Duration,
    /// Longest time of one scrape; at most `interval`.
    pub timeout: Duration,
    /// Formats to ask for, the most wanted first; never empty.
    pub protocols: Vec<ScrapeProtocol>,
    /// The format to assume when the target does not say a known one.
    pub fallback_protocol: Option<ScrapeProtocol>,
    /// URL path.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Ask for gzip.
    pub enable_compression: bool,
    /// Most bytes of a decoded body; 0 means [`DEFAULT_BODY_LIMIT`].
    pub body_size_limit: u64,
    /// Most samples after metric relabelling; 0 = no limit.
    pub sample_limit: u64,
    /// Most targets of the job; beyond it all scrapes of the job fail; 0 = no limit.
    pub target_limit: u64,
    /// Most labels of a series; 0 = no limit.
    pub label_limit: u64,
    /// Longest label name, bytes; 0 = no limit.
    pub label_name_length_limit: u64,
    /// Longest label value, bytes; 0 = no limit.
    pub label_value_length_limit: u64,
    /// How many dropped targets are kept for the page; 0 = all.
    pub keep_dropped_targets: u64,
    /// Which metric and label names are accepted.
    pub name_scheme: NameScheme,
    /// How targets are asked to write names that are not legacy names.
    pub escaping: Escaping,
    /// Also store `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes`.
    pub extra_scrape_metrics: bool,
    /// Value of the label `__scrape_native_histograms__`: native histograms are read as such.
    pub scrape_native_histograms: bool,
    /// Value of the label `__always_scrape_classic_histograms__`: classic series are kept beside what they become.
    pub always_scrape_classic_histograms: bool,
    /// Value of the label `__convert_classic_histograms_to_nhcb__`: classic histograms become native ones with custom
    /// buckets.
    pub convert_classic_histograms: bool,
    /// Most buckets of a native histogram: a finer one is made coarser, or else fails the scrape; 0 = no limit.
    pub native_histogram_bucket_limit: u64,
    /// By what factor buckets of a native histogram grow at least: a finer one is made coarser; 0 = as they come.
    pub native_histogram_min_bucket_factor: f64,
    /// The job's targets are this node: its metrics are taken in the process. Only the built-in configuration has such a
    /// job; a file names addresses, and what is there is asked as anybody is.
    pub own: bool,
    /// What label `instance` calls this node where a target's address is loopback (`localhost`, `127.0.0.1`, `[::1]`), so
    /// that nodes of one cluster tell what they scrape of themselves apart; absent = the address as it is.
    pub loopback_name: Option<String>,
    /// How to connect and authenticate.
    pub http: HttpConfig,
    /// Rules for targets.
    pub relabel: Vec<Rule>,
    /// Rules for scraped series.
    pub metric_relabel: Vec<Rule>,
    /// Where targets come from.
    pub discovery: Vec<Discovery>,
}

impl JobConfig {
    /// A job with upstream's defaults and no target.
    pub fn new(job_name: impl Into<String>) -> Self {
        Self {
            job_name: job_name.into(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            params: BTreeMap::new(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            protocols: ScrapeProtocol::DEFAULT.to_vec(),
            fallback_protocol: None,
            metrics_path: "/metrics".into(),
            scheme: "http".into(),
            enable_compression: true,
            body_size_limit: 0,
            sample_limit: 0,
            target_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            keep_dropped_targets: 0,
            name_scheme: NameScheme::Utf8,
            escaping: Escaping::AllowUtf8,
            extra_scrape_metrics: false,
            scrape_native_histograms: false,
            always_scrape_classic_histograms: false,
            convert_classic_histograms: false,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            own: false,
            loopback_name: None,
            http: HttpConfig::default(),
            relabel: Vec::new(),
            metric_relabel: Vec::new(),
            discovery: Vec::new(),
        }
    }
}

/// How a target shall write names that are not legacy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escaping {
    /// As they are.
    #[default]
    AllowUtf8,
    /// Other characters as `_`.
    Underscores,
    /// Dots as `_dot_`, and so on.
    Dots,
    /// Other characters as `U__…` codes.
    Values,
}

impl Escaping {
    /// The word used in configurations and in the `Accept` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The escaping that configurations call `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::AllowUtf8, Self::Underscores, Self::Dots, Self::Values]
            .into_iter()
            .find(|e| e.as_str() == name)
    }
}

/// How to connect to a server and authenticate there.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Credentials, sent to the configured host only.
    pub auth: Auth,
    /// TLS settings.
    pub tls: TlsConfig,
    /// Follow redirects.
    pub follow_redirects: bool,
    /// Offer HTTP/2 (over TLS).
    pub enable_http2: bool,
    /// Further headers, by name; sent to the configured host only.
    pub headers: BTreeMap<String, Vec<Source>>,
    /// Connect through this proxy.
    pub proxy: Option<ProxyConfig>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            tls: TlsConfig::default(),
            follow_redirects: true,
            enable_http2: true,
            headers: BTreeMap::new(),
            proxy: None,
        }
    }
}

/// Credentials.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// User name.
        username: Source,
        /// Password.
        password: Source,
    },
    /// An `Authorization` header of another type, for example `Bearer`.
    Header {
        /// The first word of the header.
        kind: String,
        /// The rest.
        credentials: Source,
    },
    /// A token that a server gives for the client's credentials.
    OAuth2(Box<OAuth2>),
}

/// Where and how tokens are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// The client's name.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Source,
    /// What the token shall be good for.
    pub scopes: Vec<String>,
    /// The token server.
    pub token_url: Secret,
    /// Further fields of the form that is sent there.
    pub endpoint_params: BTreeMap<String, Secret>,
    /// TLS to the token server.
    pub tls: TlsConfig,
    /// Reach the token server through this proxy.
    pub proxy: Option<ProxyConfig>,
}

/// A proxy for outgoing connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// The URL of the proxy for `http` targets, which may hold a user and a password; without one they are reached
    /// directly.
    pub http: Option<Secret>,
    /// The same for `https` targets.
    pub https: Option<Secret>,
    /// Hosts that are reached without it: names, `.suffixes`, addresses, networks, `*`, separated by commas.
    pub no_proxy: String,
    /// Headers of the CONNECT request, by name.
    pub connect_headers: BTreeMap<String, Vec<Secret>>,
}

/// TLS settings of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// The certificate authorities to trust (PEM) instead of the system's.
    pub ca: Option<Pem>,
    /// The client's certificate chain (PEM).
    pub cert: Option<Pem>,
    /// The client's key (PEM).
    pub key: Option<Source>,
    /// The name to expect in the server's certificate, and to send as SNI; empty = the URL's host.
    pub server_name: String,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Lowest version; `None` = TLS 1.2.
    pub min_version: Option<TlsVersion>,
    /// Highest version; `None` = TLS 1.3.
    pub max_version: Option<TlsVersion>,
}

/// PEM text that is no secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Pem {
    /// It stands in the configuration.
    Inline(String),
    /// It is the content of a file, which may change.
    File(PathBuf),
}

/// A version of TLS. Below 1.2 nothing is spoken; such a lower bound means 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Where targets come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovery {
    /// The configuration itself.
    Static(Vec<TargetGroup>),
    /// Files with target groups, JSON or YAML by their ending.
    File {
        /// Paths; `*` and `?` may stand in the last part.
        patterns: Vec<String>,
        /// Read again at least this often; changes are noticed within seconds.
        refresh: Duration,
    },
    /// An HTTP server that gives target groups as JSON.
    Http {
        /// Its URL, which may hold a user and a password.
        url: Secret,
        /// Asked this often.
        refresh: Duration,
        /// How to ask.
        http: Box<HttpConfig>,
    },
}

/// Targets with labels in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Values of `__address__`.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: BTreeMap<String, String>,
    /// Where the group comes from, for messages.
    pub source: String,
}
