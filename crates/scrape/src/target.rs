//! From a discovered address to a target: labels, relabelling, checks, URL.
//!
//! Source: upstream `scrape/target.go` (`PopulateDiscoveredLabels`, `PopulateLabels`, `Target.URL`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use formats::protobuf::Histograms;
use model::relabel::relabel;
use model::time::{format_duration, parse_duration};
use model::{Labels, LabelsBuilder};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{JobConfig, TargetGroup};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const INSTANCE: &str = "instance";
const UNIX_SOCKET: &str = "__unix_socket__";
const CONVERT: &str = "__convert_classic_histograms_to_nhcb__";
const KEEP_CLASSIC: &str = "__always_scrape_classic_histograms__";
const NATIVE: &str = "__scrape_native_histograms__";
const BOOL_LABELS: [(&str, &str); 3] = [
    (CONVERT, "convert classic histograms to nhcb"),
    (KEEP_CLASSIC, "always scrape classic histograms"),
    (NATIVE, "scrape native histograms"),
];

/// Something that is scraped: its identity and where it is.
#[derive(Debug)]
pub(crate) struct Target {
    /// Labels that its series get: those after relabelling that do not start with `__`.
    pub(crate) labels: Labels,
    /// Tells targets of one job apart: all labels after relabelling, and the URL.
    pub(crate) key: u64,
    /// Identity for staleness ([`model::seam::ScrapeMark`]): as `key`, without what only says when to scrape, and
    /// with the job's name. The same on every node.
    pub(crate) id: u64,
    /// What is fetched.
    pub(crate) url: String,
    /// Time between scrapes.
    pub(crate) interval: Duration,
    /// Longest time of one scrape.
    pub(crate) timeout: Duration,
    /// Which forms of histograms it gives, by its labels.
    pub(crate) histograms: Histograms,
    /// Why it cannot be scraped at all.
    pub(crate) unsupported: Option<String>,
    /// Labels before relabelling, for the page; a later discovery may change them.
    pub(crate) discovered: Mutex<Labels>,
}

/// What one address of a group became.
pub(crate) enum Outcome {
    /// A target.
    Kept(Arc<Target>),
    /// Relabelling dropped it; its discovered labels.
    Dropped(Labels),
}

/// The targets of `group` in job `job`; each address that cannot be one gives a text.
pub(crate) fn targets_of(group: &TargetGroup, job: &JobConfig) -> Vec<Result<Outcome, String>> {
    let mut outcomes = Vec::with_capacity(group.targets.len());
    for (i, address) in group.targets.iter().enumerate() {
        let outcome = target_of(address, &group.labels, job);
        outcomes.push(outcome.map_err(|e| format!("instance {i} in group {}: {e}", group.source)));
    }
    outcomes
}

fn target_of(address: &str, group: &BTreeMap<String, String>, job: &JobConfig) -> Result<Outcome, String> {
    let (discovered, labels) = populate_labels(address, group, job)?;
    match labels {
        None => Ok(Outcome::Dropped(discovered)),
        Some(labels) => Target::new(&labels, discovered, job).map(|target| Outcome::Kept(Arc::new(target))),
    }
}

/// The labels of a discovered address before relabelling, and after it (`None` = dropped). Fails on what upstream
/// refuses as a target.
pub fn populate_labels(
    address: &str,
    group: &BTreeMap<String, String>,
    job: &JobConfig,
) -> Result<(Labels, Option<Labels>), String> {
    let mut builder = discovered_labels(address, group, job);
    let discovered = builder.build().map_err(|e| e.to_string())?;
    if !relabel(&job.relabel, &mut builder) {
        return Ok((discovered, None));
    }
    let address = builder.get(ADDRESS).unwrap_or("").to_owned();
    check_address(&address)?;
    let interval = positive_duration(builder.get(INTERVAL).unwrap_or(""), "interval")?;
    let timeout = positive_duration(builder.get(TIMEOUT).unwrap_or(""), "timeout")?;
    if timeout > interval {
        let text = |name| builder.get(name).unwrap_or("").to_owned();
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({:?} > {:?})",
            text(TIMEOUT),
            text(INTERVAL)
        ));
    }
    for (name, what) in BOOL_LABELS {
        if let Some(value) = builder.get(name)
            && !is_go_bool(value)
        {
            return Err(format!(
                "error parsing {what}: strconv.ParseBool: parsing {value:?}: invalid syntax"
            ));
        }
    }
    let meta: Vec<String> = builder
        .pairs()
        .map(|(name, _)| name)
        .filter(|n| n.starts_with(META_PREFIX))
        .map(str::to_owned)
        .collect();
    for name in meta {
        builder.remove(&name);
    }
    if builder.get(INSTANCE).is_none() {
        builder.set(INSTANCE, &instance_of(&address, job.loopback_name.as_deref()));
    }
    builder.build().map(|labels| (discovered, Some(labels))).map_err(|e| e.to_string())
}

/// Whether `host` is this machine's loopback, as configurations write it.
pub(crate) fn is_loopback(host: &str) -> bool {
    ["127.0.0.1", "localhost", "::1", "[::1]"].contains(&host)
}

/// The label `instance` of a target that got none: its address, with the node's name for a loopback host.
fn instance_of(address: &str, node: Option<&str>) -> String {
    let Some(node) = node else { return address.to_owned() };
    match address.rsplit_once(':') {
        _ if is_loopback(address) => node.to_owned(),
        Some((host, port)) if is_loopback(host) => format!("{node}:{port}"),
        _ => address.to_owned(),
    }
}

/// Fails on an address that cannot be one: upstream refuses those with a slash, since people paste URLs.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    if address.is_empty() {
        return Err("no address".into());
    }
    if address.contains('/') {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    Ok(())
}

fn discovered_labels(address: &str, group: &BTreeMap<String, String>, job: &JobConfig) -> LabelsBuilder {
    let mut builder = LabelsBuilder::new();
    for (name, value) in group {
        builder.set(name, value);
    }
    builder.set(ADDRESS, address);
    let duration = |d: Duration| format_duration(i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let mut default = |name: &str, value: &str| {
        if builder.get(name).is_none() {
            builder.set(name, value);
        }
    };
    default("job", &job.job_name);
    default(INTERVAL, &duration(job.interval));
    default(TIMEOUT, &duration(job.timeout));
    default(METRICS_PATH, &job.metrics_path);
    default(SCHEME, &job.scheme);
    let flags =
        [job.convert_classic_histograms, job.always_scrape_classic_histograms, job.scrape_native_histograms];
    for ((name, _), flag) in BOOL_LABELS.iter().zip(flags) {
        default(name, if flag { "true" } else { "false" });
    }
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            default(&format!("{PARAM_PREFIX}{name}"), first);
        }
    }
    builder
}

fn positive_duration(text: &str, what: &str) -> Result<i64, String> {
    match parse_duration(text) {
        Err(error) => Err(format!("error parsing scrape {what}: {error}")),
        Ok(0) => Err(format!("scrape {what} cannot be 0")),
        Ok(ms) => Ok(ms),
    }
}

fn is_go_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True" | "0" | "f" | "F" | "FALSE" | "false" | "False")
}

/// Whether a boolean label says yes; [`populate_labels`] has checked its text.
fn is_set(labels: &Labels, name: &str) -> bool {
    labels.get(name).is_some_and(|text| matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True"))
}

impl Target {
    fn new(labels: &Labels, discovered: Labels, job: &JobConfig) -> Result<Self, String> {
        let url = url_of(labels, &job.params);
        let duration = |name| -> Result<Duration, String> {
            let ms = positive_duration(labels.get(name).unwrap_or(""), name)?;
            Ok(Duration::from_millis(ms.unsigned_abs()))
        };
        let scheme = labels.get(SCHEME).unwrap_or("");
        let unsupported = if labels.get(UNIX_SOCKET).is_some() {
            Some("scraping over unix domain sockets is not supported yet".to_owned())
        } else if scheme != "http" && scheme != "https" {
            Some(format!("unsupported protocol scheme {scheme:?}"))
        } else {
            None
        };
        let hash = |labels: &Labels, job: &str| {
            let mut bytes = labels.as_bytes().to_vec();
            for part in [url.as_str(), job] {
                bytes.push(0xff);
                bytes.extend_from_slice(part.as_bytes());
            }
            xxh3_64(&bytes)
        };
        let timeless = labels.filtered(|name| name != INTERVAL && name != TIMEOUT);
        Ok(Self {
            key: hash(labels, ""),
            id: hash(&timeless, &job.job_name),
            labels: labels.filtered(|name| !name.starts_with("__")),
            interval: duration(INTERVAL)?,
            timeout: duration(TIMEOUT)?,
            url,
            histograms: Histograms {
                native: is_set(labels, NATIVE),
                keep_classic: is_set(labels, KEEP_CLASSIC),
                convert: is_set(labels, CONVERT),
            },
            unsupported,
            discovered: Mutex::new(discovered),
        })
    }
}

/// The URL that a target's labels and the job's parameters say, written as Go's `url.URL` writes it.
fn url_of(labels: &Labels, params: &BTreeMap<String, Vec<String>>) -> String {
    let mut params: BTreeMap<&str, Vec<&str>> = params
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()))
        .collect();
    for (name, value) in labels {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        let values = params.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    let get = |name| labels.get(name).unwrap_or("");
    let path = get(METRICS_PATH);
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let mut url = format!("{}://{}{slash}{}", get(SCHEME), get(ADDRESS), escape(path, b"-_.~$&+,/:;=@"));
    let mut separator = '?';
    for (name, values) in &params {
        for value in values {
            url.push(separator);
            separator = '&';
            for (i, part) in [name, value].into_iter().enumerate() {
                if i > 0 {
                    url.push('=');
                }
                url.push_str(&escape(part, b"-_.~ ").replace(' ', "+"));
            }
        }
    }
    url
}

fn escape(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::relabel::{NameScheme, RelabelConfig, Rule};

    fn job(change: impl FnOnce(&mut JobConfig)) -> JobConfig {
        let mut job = JobConfig::new("node");
        change(&mut job);
        job
    }

    fn rule(source: &str, regex: &str, target: &str, replacement: &str) -> Rule {
        let config = RelabelConfig {
            source_labels: vec![source.into()],
            regex: regex.into(),
            target_label: target.into(),
            replacement: replacement.into(),
            ..RelabelConfig::default()
        };
        Rule::new(config, NameScheme::Utf8).unwrap()
    }

    /// `url labels` of the one target, `dropped`, or the error.
    fn check(job: &JobConfig, address: &str, group: &[(&str, &str)], want: &str) {
        let labels = group.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let group = TargetGroup { targets: vec![address.into()], labels, source: "0".into() };
        let got = match targets_of(&group, job).remove(0) {
            Ok(Outcome::Kept(target)) => {
                let pairs: Vec<String> = target.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{} {}", target.url, pairs.join(","))
            }
            Ok(Outcome::Dropped(_)) => "dropped".into(),
            Err(error) => error,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn a_plain_target() {
        check(
            &job(|_| ()),
            "a:80",
            &[("env", "prod")],
            "http://a:80/metrics env=prod,instance=a:80,job=node",
        );
    }

    #[test]
    fn what_a_node_of_several_scrapes_of_itself_has_its_name() {
        let job = job(|job| job.loopback_name = Some("n1".into()));
        check(&job, "localhost:80", &[], "http://localhost:80/metrics instance=n1:80,job=node");
        check(&job, "[::1]:80", &[], "http://[::1]:80/metrics instance=n1:80,job=node");
        check(&job, "127.0.0.1", &[], "http://127.0.0.1/metrics instance=n1,job=node");
        check(&job, "localhost:80", &[("instance", "x")], "http://localhost:80/metrics instance=x,job=node");
        check(&job, "a:80", &[], "http://a:80/metrics instance=a:80,job=node");
    }

    #[test]
    fn labels_say_scheme_path_parameters_and_instance() {
        let job = job(|job| {
            job.params = BTreeMap::from([
                ("module".into(), vec!["http_2xx".into(), "b c".into()]),
                ("x".into(), vec!["1".into()]),
            ]);
            job.relabel = vec![
                rule("__address__", "(.*)", "__param_target", "https://$1/?q=1"),
                rule("__param_target", "(.*)", "instance", "$1"),
                rule("nothing", "(.*)", "__address__", "prober:9115"),
                rule("nothing", "(.*)", "__metrics_path__", "/probe me"),
                rule("nothing", "(.*)", "__scheme__", "https"),
            ];
        });
        check(
            &job,
            "example.org",
            &[("__meta_x", "1"), ("job", "own")],
            "https://prober:9115/probe%20me?module=http_2xx&module=b+c&target=https%3A%2F%2Fexample.org%2F%3Fq%3D1&x=1 \
             instance=https://example.org/?q=1,job=own",
        );
    }

    #[test]
    fn targets_that_cannot_be() {
        let plain = job(|_| ());
        check(
            &plain,
            "http://a/metrics",
            &[],
            "instance 0 in group 0: \"http://a/metrics\" is not a valid hostname",
        );
        check(&plain, "", &[], "instance 0 in group 0: no address");
        let interval = ("__scrape_interval__", "5s");
        check(
            &plain,
            "a",
            &[interval],
            "instance 0 in group 0: scrape timeout cannot be greater than scrape interval (\"10s\" > \"5s\")",
        );
        check(
            &plain,
            "a",
            &[("__scrape_timeout__", "0")],
            "instance 0 in group 0: scrape timeout cannot be 0",
        );
        let drop = job(|job| {
            job.relabel = vec![
                Rule::new(
                    RelabelConfig {
                        regex: "".into(),
                        action: model::relabel::Action::Drop,
                        ..RelabelConfig::default()
                    },
                    NameScheme::Utf8,
                )
                .unwrap(),
            ];
        });
        check(&drop, "a", &[], "dropped");
    }

    #[test]
    fn identity_is_of_labels_and_url_but_staleness_not_of_the_interval() {
        let make = |interval: &str, path: &str| {
            let group = TargetGroup {
                targets: vec!["a".into()],
                labels: BTreeMap::from([
                    ("__scrape_interval__".into(), interval.into()),
                    ("__metrics_path__".into(), path.into()),
                ]),
                source: String::new(),
            };
            match targets_of(&group, &job(|_| ())).remove(0) {
                Ok(Outcome::Kept(target)) => target,
                _ => panic!("kept"),
            }
        };
        let (a, b, c) = (make("30s", "/m"), make("1m", "/m"), make("30s", "/n"));
        assert!(a.key != b.key && a.id == b.id);
        assert!(a.key != c.key && a.id != c.id);
        assert_eq!((b.interval, b.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
    }
}
