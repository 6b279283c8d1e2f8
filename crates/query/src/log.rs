//! The query log: one JSON line for each evaluated query, in upstream's fields (`promql/engine.go`, `exec`).
//!
//! A thread of its own writes; queries hand lines over and never wait for the disk. What does not fit into the queue
//! is counted and left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use model::time;
use parking_lot::RwLock;
use serde_json::{Map, Value, json};

use crate::error::QueryError;
use crate::metrics::Metrics;
use crate::stats::QueryStats;

/// Lines that wait to be written, at most.
const QUEUE: usize = 4_096;

/// Where a query came from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Address of the client, without its port.
    pub client: String,
    /// Method of the request.
    pub method: String,
    /// Path of the request.
    pub path: String,
}

/// What a line says of a query.
pub(crate) struct Logged<'a> {
    pub(crate) now_ms: i64,
    pub(crate) query: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) origin: Option<&'a Origin>,
    pub(crate) error: Option<&'a QueryError>,
    pub(crate) stats: &'a QueryStats,
}

/// The log; off until a file is named.
#[derive(Debug, Default)]
pub(crate) struct QueryLog {
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    lines: SyncSender<String>,
}

impl QueryLog {
    /// Writes to `path` from now on (opened anew even when it is the same, so that a rotated file is let go), or
    /// nowhere. Fails when the file cannot be opened; the log before stays in force then.
    pub(crate) fn set(&self, path: Option<&Path>, metrics: &Metrics) -> io::Result<()> {
        let opened = match path {
            None => None,
            Some(path) => Some(start(path, metrics)?),
        };
        *self.open.write() = opened;
        Ok(())
    }

    pub(crate) fn is_on(&self) -> bool {
        self.open.read().is_some()
    }

    /// Hands a line over.
    pub(crate) fn write(&self, logged: &Logged<'_>, metrics: &Metrics) {
        let open = self.open.read();
        let Some(open) = open.as_ref() else { return };
        match open.lines.try_send(line(logged)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                metrics.log_failures.inc();
            }
            Err(TrySendError::Disconnected(_)) => {
                metrics.log_failures.inc();
                tracing::debug!(file = %open.path.display(), "the query log's writer has ended");
            }
        }
    }
}

fn start(path: &Path, metrics: &Metrics) -> io::Result<Open> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let (lines, queue) = sync_channel::<String>(QUEUE);
    let failures = metrics.log_failures.clone();
    let shown = path.to_owned();
    std::thread::Builder::new().name("query-log".into()).spawn(move || {
        let mut broken = false;
        while let Ok(line) = queue.recv() {
            match append(&file, &line) {
                Ok(()) => broken = false,
                Err(error) => {
                    failures.inc();
                    if !broken {
                        tracing::error!(file = %shown.display(), %error, "cannot write the query log");
                    }
                    broken = true;
                }
            }
        }
    })?;
    Ok(Open { path: path.to_owned(), lines })
}

fn append(mut file: &File, line: &str) -> io::Result<()> {
    file.write_all(line.as_bytes())
}

fn line(logged: &Logged<'_>) -> String {
    let mut all = Map::new();
    all.insert("time".into(), time::format_rfc3339(logged.now_ms).into());
    all.insert("level".into(), "INFO".into());
    all.insert("msg".into(), "promql query logged".into());
    let params = json!({
        "query": logged.query,
        "start": rfc3339_ms(logged.start_ms),
        "end": rfc3339_ms(logged.end_ms),
        "step": logged.step_ms / 1_000,
    });
    all.insert("params".into(), params);
    if let Some(error) = logged.error {
        all.insert("error".into(), error.to_string().into());
    }
    all.insert("stats".into(), stats_json(logged.stats));
    // Queries are not traced: what upstream writes of such.
    all.insert("spanID".into(), "0".repeat(16).into());
    all.insert("traceID".into(), "0".repeat(32).into());
    if let Some(origin) = logged.origin {
        let request = json!({"clientIP": origin.client, "method": origin.method, "path": origin.path});
        all.insert("httpRequest".into(), request);
    }
    all.insert("tenant".into(), logged.tenant.into());
    format!("{}\n", Value::Object(all))
}

/// Always three digits of milliseconds, as upstream writes the times of a query.
fn rfc3339_ms(ms: i64) -> String {
    let text = time::format_rfc3339(ms);
    let Some(body) = text.strip_suffix('Z') else { return text };
    match body.split_once('.') {
        Some((head, fraction)) => format!("{head}.{fraction:0<3}Z"),
        None => format!("{body}.000Z"),
    }
}

fn stats_json(stats: &QueryStats) -> Value {
    let timings = &stats.timings;
    json!({
        "timings": {
            "evalTotalTime": timings.eval_total,
            "resultSortTime": timings.result_sort,
            "queryPreparationTime": timings.preparation,
            "innerEvalTime": timings.inner_eval,
            "execQueueTime": timings.queue,
            "execTotalTime": timings.exec_total,
        },
        "samples": {
            "totalQueryableSamples": stats.samples,
            "samplesRead": stats.samples,
            "peakSamples": stats.peak_bytes / 16,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn lines_have_upstreams_fields_and_a_broken_file_is_counted() {
        let metrics = Metrics::register(&mut Registry::default(), 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.log");
        let log = QueryLog::default();
        let origin =
            Origin { client: "127.0.0.1".into(), method: "GET".into(), path: "/api/v1/query".into() };
        let error = QueryError::Execution("no".into());
        let logged = Logged {
            now_ms: 1_000,
            query: "up == \"x\n\"",
            tenant: "anonymous",
            start_ms: 1_500,
            end_ms: 2_000,
            step_ms: 5_000,
            origin: Some(&origin),
            error: Some(&error),
            stats: &QueryStats::default(),
        };
        log.write(&logged, &metrics);
        assert!(!path.try_exists().unwrap());
        log.set(Some(&path), &metrics).unwrap();
        log.write(&logged, &metrics);
        log.write(&logged, &metrics);
        // Switching it off ends the writer once the queue is written.
        log.set(None, &metrics).unwrap();
        let until = std::iter::repeat_with(|| std::fs::read_to_string(&path).unwrap());
        let text = until.take(1_000_000).find(|text| text.lines().count() == 2).unwrap();
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["params"]["query"], "up == \"x\n\"");
        assert_eq!(first["params"]["start"], "1970-01-01T00:00:01.500Z");
        assert_eq!(first["params"]["end"], "1970-01-01T00:00:02.000Z");
        assert_eq!(first["params"]["step"], 5);
        assert_eq!(first["error"], "no");
        assert_eq!(first["httpRequest"]["clientIP"], "127.0.0.1");
        assert!(first["stats"]["timings"]["execTotalTime"].is_number());
        assert_eq!(metrics.log_failures.get(), 0);
        assert!(log.set(Some(folder.path()), &metrics).is_err(), "a folder is no file");
        assert!(!log.is_on());
    }
}
