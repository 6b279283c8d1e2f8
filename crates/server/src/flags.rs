//! The flags of `isobar serve`: ours and upstream's, as typed values.
//!
//! Upstream's flags that have no meaning here are accepted with a warning ([`split_ignored`]); all others are errors.
//! Not here: the configuration file (`config`), and the flags of the other commands (`cli`).

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

pub use cluster::{ClusterFlags, Factor};

mod cluster;

/// Flags of upstream that change nothing here, by prefix or whole name, with the reason shown in the warning.
const IGNORED: &[(&str, &str)] = &[
    ("storage.tsdb.min-block-duration", "there are no blocks"),
    ("storage.tsdb.max-block-duration", "there are no blocks"),
    ("storage.tsdb.no-lockfile", "the data folder is always locked"),
    ("storage.tsdb.allow-overlapping", "late samples are always accepted"),
    ("storage.tsdb.wal-", "the node log has its own format"),
    ("storage.tsdb.head-chunks", "there are no head chunk files"),
    ("storage.tsdb.samples-per-chunk", "chunks are sealed by rows"),
    ("storage.tsdb.delay-compact", "there are no blocks"),
    ("storage.remote.flush-deadline", "sending to remote storage is not there yet"),
    ("storage.agent.", "agent mode is not there yet"),
    ("storage.exemplars.", "exemplar storage is not limited by count"),
    ("rules.", "rules are not evaluated yet"),
    ("alertmanager.", "alerts are not sent yet"),
    ("scrape.", "the scraper has no such setting"),
    ("query.max-samples", "a query is bounded by its memory, see --query.max-memory"),
    ("web.console.", "consoles are not supported"),
    ("web.user-assets", "the page has no user assets"),
    ("web.enable-remote-write-receiver", "the receiver is always on"),
    ("web.enable-otlp-receiver", "the receiver needs no switch"),
    ("web.remote-write-receiver.", "accepted messages are fixed"),
    ("web.page-title", "the title is fixed"),
    ("auto-gomaxprocs", "there is no Go runtime"),
    ("auto-gomemlimit", "there is no Go runtime"),
];

/// The flags of `isobar serve`.
#[derive(Parser, Debug, Clone)]
#[command(name = "isobar serve", disable_version_flag = true, about = "Run a node")]
pub struct ServeFlags {
    /// Configuration file in Prometheus's format. Without it, and with no prometheus.yml in the folder, a built-in
    /// configuration scrapes this node itself.
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Folder of the data; created when missing.
    #[arg(long = "storage.tsdb.path", value_name = "DIR", default_value = "data/")]
    pub data_dir: PathBuf,
    /// How long samples are kept, for example 15d.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", default_value = "15d", value_parser = duration)]
    pub retention: Millis,
    /// Free space below which writes are refused until there is more: bytes with a unit, for example 5GiB. 0 means
    /// the smaller of 5 % and 5 GiB.
    #[arg(long = "storage.min-free", value_name = "SIZE", default_value = "0", value_parser = byte_size)]
    pub min_free: Bytes,
    /// Address to listen on for HTTP; may be repeated.
    #[arg(long = "web.listen-address", value_name = "ADDR", default_value = "0.0.0.0:9090", value_parser = listen_address)]
    pub listen: Vec<SocketAddr>,
    /// URL under which the node is reached from outside.
    #[arg(long = "web.external-url", value_name = "URL", default_value = "")]
    pub external_url: String,
    /// Prefix of all paths; default is the path of --web.external-url.
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub route_prefix: Option<String>,
    /// File with TLS, users and headers of the HTTP interface, in exporter-toolkit's format.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,
    /// Allow POST /-/reload and /-/quit.
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Allow the admin API.
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,
    /// Origins allowed by CORS, a fully anchored regular expression; empty = none.
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = "")]
    pub cors_origin: String,
    /// Most HTTP connections at a time; for one more, the one without a request for longest is closed.
    #[arg(long = "web.max-connections", value_name = "N", default_value_t = 512)]
    pub max_connections: usize,
    /// Longest time to read a request's head, and to wait for the next request of an idle connection.
    #[arg(long = "web.read-timeout", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub read_timeout: Millis,
    /// Feature names as upstream's, separated by commas; may be repeated.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    pub features: Vec<String>,
    /// Longest time of a query.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub query_timeout: Millis,
    /// How far back an instant selector looks for a sample.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub lookback: Millis,
    /// Most queries evaluated at a time; more wait.
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    pub query_concurrency: usize,
    /// Most memory that one query may use.
    #[arg(long = "query.max-memory", value_name = "SIZE", default_value = "1GiB", value_parser = byte_size)]
    pub query_memory: Bytes,
    /// Longest text of a query or selector.
    #[arg(long = "query.max-length", value_name = "SIZE", default_value = "64KiB", value_parser = byte_size)]
    pub query_length: Bytes,
    /// How deep a query may nest; a thread's stack holds no more than the default.
    #[arg(long = "query.max-depth", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub query_depth: u16,
    /// How many operators a query may have; a thread's stack holds no more than the default.
    #[arg(long = "query.max-operators", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub query_operators: u16,
    /// Most samples of a remote read that is answered with samples; 0 = no limit.
    #[arg(long = "storage.remote.read-sample-limit", value_name = "N", default_value_t = 50_000_000)]
    pub read_samples: u64,
    /// Most remote reads at a time; more wait.
    #[arg(long = "storage.remote.read-concurrent-limit", value_name = "N", default_value_t = 10)]
    pub read_concurrency: usize,
    /// Bytes that a frame of a streamed remote read aims at.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", value_name = "BYTES", default_value_t = 1 << 20)]
    pub read_frame_bytes: usize,
    /// What this node does; only `all` on a node of its own so far.
    #[arg(long = "role", value_name = "ROLES", default_value = "all")]
    pub role: String,
    /// Who the node is among others.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Take the tenant from the header X-Scope-OrgID.
    #[arg(long = "tenancy.enabled")]
    pub tenancy: bool,
    /// debug, info, warn or error.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error"])]
    pub log_level: String,
    /// logfmt or json.
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt", value_parser = ["logfmt", "json"])]
    pub log_format: String,
}

/// A duration in milliseconds, with the text it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub i64);

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

fn duration(text: &str) -> Result<Millis, String> {
    model::time::parse_duration(text).map(Millis).map_err(|e| e.to_string())
}

/// Parses `512MiB`, `5GB`, `1024`, `100KB`: decimal and binary units both mean powers of 1024, as upstream's do.
fn byte_size(text: &str) -> Result<Bytes, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 =
        text[..digits].parse().map_err(|_| format!("{text:?} does not begin with a whole number"))?;
    let shift = match text[digits..].trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        unit => return Err(format!("{unit:?} is not a unit of size (KB, MB, GB, TB, PB, or KiB …)")),
    };
    number.checked_mul(1 << shift).map(Bytes).ok_or_else(|| format!("{text:?} is too large"))
}

/// Parses `0.0.0.0:9090`, `:9090`, `localhost:9090`, `[::1]:9090`.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse().map_err(|_| format!("{text:?} is not an address of the form HOST:PORT"))
}

/// Takes upstream's flags that have no meaning here out of `args`; the second list has a warning for each.
pub fn split_ignored(args: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (mut kept, mut warnings) = (Vec::with_capacity(args.len()), Vec::new());
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let flag = arg.strip_prefix("--").unwrap_or("");
        let (name, has_value) = flag.split_once('=').map_or((flag, false), |(name, _)| (name, true));
        let name = name.strip_prefix("no-").unwrap_or(name);
        let found = IGNORED.iter().find(|(known, _)| !name.is_empty() && name.starts_with(known));
        let Some((_, reason)) = found else {
            kept.push(arg);
            continue;
        };
        warnings.push(format!("flag --{name} has no effect: {reason}"));
        if !has_value && args.peek().is_some_and(|next| !next.starts_with('-')) {
            args.next();
        }
    }
    (kept, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ServeFlags, String> {
        let all = std::iter::once("isobar").chain(args.iter().copied());
        ServeFlags::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_upstream() {
        let flags = parse(&[]).unwrap();
        assert_eq!(flags.listen, ["0.0.0.0:9090".parse().unwrap()]);
        assert_eq!(flags.retention, Millis(15 * 86_400_000));
        assert_eq!(flags.query_timeout, Millis(120_000));
        assert_eq!(flags.query_memory, Bytes(1 << 30));
    }

    #[test]
    fn addresses_sizes_and_lists() {
        let flags = parse(&[
            "--web.listen-address=:9091",
            "--web.listen-address=localhost:9092",
            "--storage.min-free=5GiB",
            "--enable-feature=a,b",
            "--enable-feature=c",
        ])
        .unwrap();
        assert_eq!(flags.listen.len(), 2);
        assert_eq!(flags.min_free, Bytes(5 << 30));
        assert_eq!(flags.features, ["a", "b", "c"]);
        assert!(parse(&["--storage.min-free=5X"]).unwrap_err().contains("unit of size"));
        assert!(parse(&["--web.listen-address=nowhere"]).unwrap_err().contains("HOST:PORT"));
        assert!(parse(&["--no.such.flag"]).is_err());
    }

    #[test]
    fn a_node_among_others() {
        let flags = parse(&[
            "--cluster.join=a:1,dns+b:2",
            "--cluster.join=[::1]:3",
            "--cluster.replication-factor=3",
        ]);
        let cluster = flags.unwrap().cluster;
        assert_eq!(cluster.join, ["a:1", "dns+b:2", "[::1]:3"]);
        assert_eq!(cluster.replication_factor, Factor(Some(3)));
        assert_eq!(parse(&[]).unwrap().cluster.replication_factor, Factor(None));
        for bad in [
            "--cluster.join=nowhere",
            "--cluster.join=a:0",
            "--cluster.replication-factor=2",
            "--cluster.bootstrap-expect=0",
            "--cluster.tls.cert-file=a",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstream_flags_without_meaning_are_taken_out_with_their_values() {
        let args =
            ["--storage.tsdb.wal-compression", "--rules.alert.for-grace-period", "1h", "--log.level=warn"];
        let (kept, warnings) = split_ignored(args.iter().map(|a| (*a).to_owned()).collect());
        assert_eq!(kept, ["--log.level=warn"]);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[1].contains("rules are not evaluated yet"));
    }
}
