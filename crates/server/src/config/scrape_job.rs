//! `global` as far as jobs inherit from it, and `scrape_configs`.
//!
//! Source: upstream `config/config.go` (`ScrapeConfig.Validate`).

use std::collections::BTreeMap;

use model::relabel::NameScheme;
use scrape::{Escaping, JobConfig, ScrapeProtocol};

use super::discovery::{discovery, ms};
use super::out::Out;
use super::relabel::rules;
use super::section::Section;
use super::{discovery as sd, http};

/// What jobs inherit where they say nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Time between scrapes, ms.
    pub scrape_interval: i64,
    /// Longest time of a scrape, ms.
    pub scrape_timeout: i64,
    /// Formats to ask for, when set.
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    /// Time between evaluations of rules, ms.
    pub evaluation_interval: i64,
    /// Labels of everything that leaves this server.
    pub external_labels: BTreeMap<String, String>,
    /// File of the query log.
    pub query_log: Option<std::path::PathBuf>,
    pub(super) body_size_limit: u64,
    pub(super) sample_limit: u64,
    pub(super) target_limit: u64,
    pub(super) label_limit: u64,
    pub(super) label_name_length_limit: u64,
    pub(super) label_value_length_limit: u64,
    pub(super) keep_dropped_targets: u64,
    pub(super) name_scheme: NameScheme,
    pub(super) escaping: Option<Escaping>,
    pub(super) native_histograms: bool,
    pub(super) convert_classic: bool,
    pub(super) always_classic: bool,
    pub(super) extra_metrics: bool,
}

/// Reads `global` (`None` when it is absent) and puts the effective one into `top`.
pub(super) fn global(top: &mut Section<'_>, env: &dyn Fn(&str) -> Option<String>) -> Global {
    let mut section = top.open_section("global").unwrap_or_else(|| top.empty_section("global"));
    let defaults = Global::default();
    let scrape_interval = section.duration_or("scrape_interval", defaults.scrape_interval);
    let timeout = section.raw_duration("scrape_timeout");
    if timeout.is_some_and(|timeout| timeout > scrape_interval) {
        section.problem("scrape_timeout", "global scrape timeout greater than scrape interval");
    }
    let scrape_timeout = timeout.unwrap_or_else(|| defaults.scrape_timeout.min(scrape_interval));
    section.put_duration("scrape_timeout", scrape_timeout);
    let scrape_protocols = protocols(&mut section);
    let evaluation_interval = section.duration_or("evaluation_interval", defaults.evaluation_interval);
    for key in ["rule_query_offset", "scrape_failure_log_file"] {
        section.not_active(key);
    }
    section.duration_or("rule_query_offset", 0);
    let query_log = section.raw("query_log_file").filter(|file| !file.is_empty());
    let query_log = query_log.map(|file| section.reader.join(&file));
    if let Some(file) = &query_log {
        section.put("query_log_file", Out::Text(file.to_string_lossy().into_owned()));
    }
    section.text("scrape_failure_log_file");
    let name_scheme = name_scheme(&mut section);
    let external_labels = external_labels(&mut section, name_scheme.unwrap_or_default(), env);
    let limits = Limits::read(&mut section, &defaults);
    if let Some(scheme) = name_scheme {
        section.put("metric_name_validation_scheme", Out::Text(scheme_name(scheme).into()));
    }
    let escaping = escaping(&mut section);
    let histograms = Histograms::read(&mut section);
    let extra_metrics = section.bool("extra_scrape_metrics").unwrap_or(false);
    top.put("global", section.finish());
    Global {
        scrape_interval,
        scrape_timeout,
        scrape_protocols,
        evaluation_interval,
        external_labels,
        query_log,
        body_size_limit: limits.body_size,
        sample_limit: limits.samples,
        target_limit: limits.targets,
        label_limit: limits.labels,
        label_name_length_limit: limits.name_length,
        label_value_length_limit: limits.value_length,
        keep_dropped_targets: limits.dropped,
        name_scheme: name_scheme.unwrap_or_default(),
        escaping,
        native_histograms: histograms.native.unwrap_or(false),
        convert_classic: histograms.convert.unwrap_or(false),
        always_classic: histograms.always_classic.unwrap_or(false),
        extra_metrics,
    }
}

impl Global {
    /// Which names are accepted where nothing else is said.
    pub(super) fn name_scheme(&self) -> NameScheme {
        self.name_scheme
    }
}

impl Default for Global {
    /// Upstream's defaults.
    fn default() -> Self {
        Self {
            scrape_interval: 60_000,
            scrape_timeout: 10_000,
            scrape_protocols: None,
            evaluation_interval: 60_000,
            external_labels: BTreeMap::new(),
            query_log: None,
            body_size_limit: 0,
            sample_limit: 0,
            target_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            keep_dropped_targets: 0,
            name_scheme: NameScheme::Utf8,
            escaping: None,
            native_histograms: false,
            convert_classic: false,
            always_classic: false,
            extra_metrics: false,
        }
    }
}

struct Limits {
    body_size: u64,
    samples: u64,
    targets: u64,
    labels: u64,
    name_length: u64,
    value_length: u64,
    dropped: u64,
}

impl Limits {
    fn read(section: &mut Section<'_>, global: &Global) -> Self {
        Self {
            body_size: section.size_or("body_size_limit", global.body_size_limit),
            samples: section.number_or("sample_limit", global.sample_limit),
            targets: section.number_or("target_limit", global.target_limit),
            labels: section.number_or("label_limit", global.label_limit),
            name_length: section.number_or("label_name_length_limit", global.label_name_length_limit),
            value_length: section.number_or("label_value_length_limit", global.label_value_length_limit),
            dropped: section.number_or("keep_dropped_targets", global.keep_dropped_targets),
        }
    }
}

/// Keys about native histograms.
struct Histograms {
    native: Option<bool>,
    convert: Option<bool>,
    always_classic: Option<bool>,
}

impl Histograms {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            native: section.bool("scrape_native_histograms"),
            convert: section.bool("convert_classic_histograms_to_nhcb"),
            always_classic: section.bool("always_scrape_classic_histograms"),
        }
    }
}

fn protocols(section: &mut Section<'_>) -> Option<Vec<ScrapeProtocol>> {
    let key = "scrape_protocols";
    if !section.has(key) {
        section.get(key);
        return None;
    }
    let mut all = Vec::new();
    for name in section.raw_texts(key) {
        match ScrapeProtocol::from_name(&name) {
            Some(protocol) if all.contains(&protocol) => {
                section.problem(key, format!("duplicated protocol in scrape_protocols: {name}"));
            }
            Some(protocol) => all.push(protocol),
            None => section.problem(key, format!("scrape_protocols: {}", unknown_protocol(&name))),
        }
    }
    if all.is_empty() {
        section.problem(key, "scrape_protocols cannot be empty");
        return None;
    }
    section.put(key, Out::texts(all.iter().map(|p| p.name())));
    Some(all)
}

fn unknown_protocol(name: &str) -> String {
    let names: Vec<&str> = ScrapeProtocol::ALL.iter().map(|p| p.name()).collect();
    format!("unknown scrape protocol {name}, supported: [{}]", names.join(" "))
}

fn name_scheme(section: &mut Section<'_>) -> Option<NameScheme> {
    let key = "metric_name_validation_scheme";
    match section.raw(key).as_deref() {
        None | Some("") => None,
        Some("utf8") => Some(NameScheme::Utf8),
        Some("legacy") => Some(NameScheme::Legacy),
        Some(other) => {
            let other = other.to_owned();
            section.problem(key, format!("unknown name validation method specified, must be either '', 'legacy' or 'utf8', got {other}"));
            None
        }
    }
}

fn scheme_name(scheme: NameScheme) -> &'static str {
    match scheme {
        NameScheme::Utf8 => "utf8",
        NameScheme::Legacy => "legacy",
    }
}

fn escaping(section: &mut Section<'_>) -> Option<Escaping> {
    let key = "metric_name_escaping_scheme";
    let name = section.text(key)?;
    let escaping = Escaping::parse(&name);
    if escaping.is_none() {
        let message = format!(
            "unknown name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {name:?}"
        );
        section.problem(key, message);
    }
    escaping
}

fn external_labels(
    section: &mut Section<'_>,
    scheme: NameScheme,
    env: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let key = "external_labels";
    let mut labels = BTreeMap::new();
    let Some(mut given) = section.section(key) else { return labels };
    for name in given.keys(|_| true) {
        if !scheme.is_valid_label_name(name) {
            given.problem(name, format!("{name:?} is not a valid label name"));
        }
        let value = given.raw(name).unwrap_or_default();
        labels.insert(name.to_owned(), expand(&value, env));
    }
    let pairs = labels.iter().map(|(name, value)| (name.clone(), Out::Text(value.clone()))).collect();
    section.put(key, Out::Map(pairs));
    labels
}

/// Go's `os.Expand` with the environment: `$name`, `${name}`, `$$`.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => inner.split_once('}').unwrap_or(("", inner)),
            None if rest.starts_with('$') => ("$", &rest[1..]),
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        match name {
            "" if !rest.starts_with('{') => out.push('$'),
            "$" => out.push('$'),
            name => out.push_str(&env(name).unwrap_or_default()),
        }
        rest = after;
    }
    out + rest
}

/// Reads one job; `None` when it has no name.
pub(super) fn job(mut section: Section<'_>, global: &Global) -> (Option<JobConfig>, Out) {
    let name = section.text("job_name");
    if name.is_none() {
        section.problem("", "job_name is empty");
    }
    let mut job = JobConfig::new(name.clone().unwrap_or_default());
    if let Some(name) = &name {
        section.path = format!("scrape_configs[job_name={name:?}]");
    }
    job.honor_labels = section.flag("honor_labels");
    job.honor_timestamps = section.bool_or("honor_timestamps", true);
    job.track_timestamps_staleness = section.bool_or("track_timestamps_staleness", false);
    params(&mut section, &mut job);
    times(&mut section, &mut job, global);

    let histograms = Histograms::read(&mut section);
    let mut inherit = |key: &str, own: Option<bool>, global: bool| {
        if own.is_none() {
            section.put(key, Out::Bool(global));
        }
        own.unwrap_or(global)
    };
    job.scrape_native_histograms =
        inherit("scrape_native_histograms", histograms.native, global.native_histograms);
    job.convert_classic_histograms =
        inherit("convert_classic_histograms_to_nhcb", histograms.convert, global.convert_classic);
    job.always_scrape_classic_histograms =
        inherit("always_scrape_classic_histograms", histograms.always_classic, global.always_classic);
    job.protocols = protocols(&mut section).unwrap_or_else(|| {
        // Only protobuf carries native histograms.
        let default: &[ScrapeProtocol] = match job.scrape_native_histograms {
            true => &ScrapeProtocol::PROTOBUF_FIRST,
            false => &ScrapeProtocol::DEFAULT,
        };
        let inherited = global.scrape_protocols.clone().unwrap_or_else(|| default.to_vec());
        section.put("scrape_protocols", Out::texts(inherited.iter().map(|p| p.name())));
        inherited
    });
    if let Some(name) = section.text("fallback_scrape_protocol") {
        job.fallback_protocol = ScrapeProtocol::from_name(&name);
        if job.fallback_protocol.is_none() {
            section.problem("fallback_scrape_protocol", unknown_protocol(&name));
        }
    }
    section.not_active("scrape_failure_log_file");
    section.text("scrape_failure_log_file");
    job.metrics_path = section.text_or("metrics_path", "/metrics");
    job.scheme = section.text_or("scheme", "http");
    job.enable_compression = section.bool_or("enable_compression", true);
    let limits = Limits::read(&mut section, global);
    job.body_size_limit = limits.body_size;
    job.sample_limit = limits.samples;
    job.target_limit = limits.targets;
    job.label_limit = limits.labels;
    job.label_name_length_limit = limits.name_length;
    job.label_value_length_limit = limits.value_length;
    job.keep_dropped_targets = limits.dropped;
    job.native_histogram_bucket_limit = section.number_or("native_histogram_bucket_limit", 0);
    job.native_histogram_min_bucket_factor =
        section.float("native_histogram_min_bucket_factor").unwrap_or(0.0);
    names(&mut section, &mut job, global);
    job.extra_scrape_metrics = section.bool_or("extra_scrape_metrics", global.extra_metrics);
    job.http = http::client(&mut section, true);
    job.relabel =
        rules(&mut section, "relabel_configs", "target relabeling rule in scrape config", job.name_scheme);
    job.metric_relabel = rules(
        &mut section,
        "metric_relabel_configs",
        "metric relabeling rule in scrape config",
        job.name_scheme,
    );
    let check_addresses = job.relabel.is_empty();
    job.discovery = discovery(&mut section, check_addresses);
    (name.map(|_| job), section.finish())
}

fn params(section: &mut Section<'_>, job: &mut JobConfig) {
    let Some(mut params) = section.section("params") else { return };
    for name in params.keys(|_| true) {
        let values = params.raw_texts(name);
        params.put(name, Out::texts(&values));
        job.params.insert(name.to_owned(), values);
    }
    section.put("params", params.finish());
}

fn times(section: &mut Section<'_>, job: &mut JobConfig, global: &Global) {
    let interval = section.duration_or("scrape_interval", global.scrape_interval);
    let timeout = section.raw_duration("scrape_timeout");
    if timeout.is_some_and(|timeout| timeout > interval) {
        let message = format!(
            "scrape timeout greater than scrape interval for scrape config with job name {:?}",
            job.job_name
        );
        section.problem("scrape_timeout", message);
    }
    let timeout = timeout.unwrap_or_else(|| global.scrape_timeout.min(interval));
    section.put_duration("scrape_timeout", timeout);
    (job.interval, job.timeout) = (ms(interval), ms(timeout));
}

/// Which names are accepted and how targets shall write the others; one default depends on the other.
fn names(section: &mut Section<'_>, job: &mut JobConfig, global: &Global) {
    let own = name_scheme(section);
    job.name_scheme = own.unwrap_or(global.name_scheme);
    section.put("metric_name_validation_scheme", Out::Text(scheme_name(job.name_scheme).into()));
    let of_scheme = |scheme| match scheme {
        NameScheme::Utf8 => Escaping::AllowUtf8,
        NameScheme::Legacy => Escaping::Underscores,
    };
    let given = section.has("metric_name_escaping_scheme");
    job.escaping = match (escaping(section), own) {
        (Some(escaping), _) => escaping,
        (None, Some(own)) => of_scheme(own),
        (None, None) => global.escaping.unwrap_or(of_scheme(global.name_scheme)),
    };
    if !given {
        section.put("metric_name_escaping_scheme", Out::Text(job.escaping.as_str().into()));
    }
    if job.escaping == Escaping::AllowUtf8 && job.name_scheme == NameScheme::Legacy {
        let message = "utf8 metric names requested but validation scheme is not set to UTF8";
        section.problem("metric_name_escaping_scheme", message);
    }
}

/// What `isobar check config` finds wrong with a job's static targets.
pub(super) fn check_static(job: &JobConfig) -> Result<(), String> {
    for source in &job.discovery {
        if let scrape::Discovery::Static(groups) = source {
            sd::check_groups(groups, job)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_expand_as_in_go() {
        let env = |name: &str| (name == "HOST").then(|| "n1".to_owned());
        for (text, want) in [
            ("$HOST", "n1"),
            ("a${HOST}b", "an1b"),
            ("$$HOST", "$HOST"),
            ("$NONE-x", "-x"),
            ("5$", "5$"),
            ("$-", "$-"),
        ] {
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }
}
