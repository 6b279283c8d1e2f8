//! The whole scraper over servers on this machine: it is driven by what reaches the sink, never by waiting a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::Failure;
use model::relabel::{Action, NameScheme, RelabelConfig, Rule};
use model::seam::fake::RecordingSink;
use model::seam::{BoxFuture, SystemClock, WriteBatch, WriteReport};
use tokio::sync::mpsc;

use super::*;
use crate::config::{Discovery, JobConfig, Pem, TargetGroup};
use crate::secret::Secret;
use crate::test_server::{Server, answer, text};

/// Sends each batch to the test.
struct Sent(mpsc::UnboundedSender<WriteBatch>);

impl SampleSink for Sent {
    fn write(&self, batch: WriteBatch) -> BoxFuture<'_, Result<WriteReport, Failure>> {
        // The test may have seen enough.
        let _ = self.0.send(batch);
        Box::pin(async { Ok(WriteReport::default()) })
    }
}

struct Check {
    manager: Manager,
    batches: mpsc::UnboundedReceiver<WriteBatch>,
}

impl Check {
    fn new() -> Self {
        let (sender, batches) = mpsc::unbounded_channel();
        let clock = Arc::new(SystemClock::new());
        let manager =
            Manager::new(Options::default(), Arc::new(Sent(sender)), clock, &mut Registry::default());
        Self { manager, batches }
    }

    async fn apply(&self, jobs: Vec<JobConfig>) -> Result<(), String> {
        self.manager.apply(Config { jobs }).await.map_err(|e| e.to_string())
    }

    /// The next batch that `wanted` says yes to.
    async fn until(&mut self, wanted: impl Fn(&WriteBatch) -> bool) -> WriteBatch {
        let search = async {
            loop {
                let batch = self.batches.recv().await.expect("the scraper runs");
                if wanted(&batch) {
                    return batch;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), search).await.expect("a batch comes")
    }
}

fn has(batch: &WriteBatch, name: &str, value: f64) -> bool {
    RecordingSink::floats(batch).iter().any(|(labels, _, v)| labels.metric_name() == name && *v == value)
}

fn job(name: &str, targets: &[String], change: impl FnOnce(&mut JobConfig)) -> JobConfig {
    let mut job = JobConfig::new(name);
    (job.interval, job.timeout) = (Duration::from_millis(40), Duration::from_millis(40));
    let group = TargetGroup { targets: targets.to_vec(), ..TargetGroup::default() };
    job.discovery = vec![Discovery::Static(vec![group])];
    change(&mut job);
    job
}

fn drop_rule(source: &str, regex: &str) -> Rule {
    let config = RelabelConfig {
        source_labels: vec![source.into()],
        regex: regex.into(),
        action: Action::Drop,
        ..RelabelConfig::default()
    };
    Rule::new(config, NameScheme::Utf8).unwrap()
}

#[tokio::test]
async fn targets_are_scraped_and_shown() {
    let server = Server::start(|_| text("a 1\n")).await;
    let mut check = Check::new();
    let targets = [server.host(), "dropped:1".into(), "dropped:2".into()];
    let jobs = vec![job("j", &targets, |job| {
        job.relabel = vec![drop_rule("__address__", "dropped.*")];
        job.keep_dropped_targets = 1;
    })];
    check.apply(jobs.clone()).await.unwrap();
    let first = check.until(|b| has(b, "up", 1.0)).await;
    let second = check.until(|b| has(b, "scrape_series_added", 0.0)).await;
    assert_eq!(first.scrape.unwrap().target, second.scrape.unwrap().target);
    assert!(second.scrape.unwrap().timestamp > first.scrape.unwrap().timestamp);

    let active = check.manager.active();
    assert_eq!((active.len(), active[0].health, active[0].scrape_pool.as_str()), (1, "up", "j"));
    assert_eq!(active[0].scrape_url, server.url("/metrics"));
    assert_eq!((active[0].interval_ms, active[0].timeout_ms), (40, 40));
    assert_eq!(active[0].discovered_labels.get("__address__"), Some(server.host().as_str()));
    let (dropped, counts) = check.manager.dropped();
    assert_eq!((dropped.len(), counts["j"]), (1, 2));
    assert_eq!(check.manager.pools(), ["j"]);

    // The same configuration again changes nothing: the cache is still warm.
    check.apply(jobs).await.unwrap();
    let next = check.until(|b| has(b, "up", 1.0)).await;
    assert!(has(&next, "scrape_series_added", 0.0));
    check.manager.shutdown().await;
    assert!(check.apply(Vec::new()).await.is_err());
    while check.batches.try_recv().is_ok_and(|batch| !batch.series.is_empty()) {}
    assert!(check.batches.try_recv().is_err(), "nothing is written at shutdown");
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let server = Server::start(|_| text("a 1\nb 2\n")).await;
    let mut check = Check::new();
    check.apply(vec![job("j", &[server.host()], |_| ())]).await.unwrap();
    let before = check.until(|b| has(b, "a", 1.0)).await.scrape.unwrap().target;

    let broken = job("k", &[], |job| job.http.tls.ca = Some(Pem::File("/none/ca.pem".into())));
    let changed = job("j", &[server.host()], |job| job.metric_relabel = vec![drop_rule("__name__", "a")]);
    let error = check.apply(vec![changed.clone(), broken]).await.unwrap_err();
    assert!(error.contains("job name \"k\"") && error.contains("CA cert"), "{error}");
    assert_eq!(check.manager.pools(), ["j"]);
    while check.batches.try_recv().is_ok() {}
    check.until(|b| has(b, "a", 1.0)).await;
    let twice = check.apply(vec![changed.clone(), changed.clone()]).await.unwrap_err();
    assert!(twice.contains("found multiple scrape configs"), "{twice}");

    check.apply(vec![changed]).await.unwrap();
    let after = check.until(|b| has(b, "b", 2.0) && !has(b, "a", 1.0)).await;
    assert_eq!(after.scrape.unwrap().target, before, "the target is the same one");
    check.manager.shutdown().await;
}

#[tokio::test]
async fn a_removed_target_ends_and_one_that_comes_back_does_not() {
    let server = Server::start(|_| text("a 1\n")).await;
    let mut check = Check::new();
    let with = |targets: &[String]| vec![job("j", targets, |_| ())];
    check.apply(with(&[server.host()])).await.unwrap();
    let id = check.until(|b| has(b, "up", 1.0)).await.scrape.unwrap().target;
    // Another interval is another loop, but the same target: it must not be marked as ended.
    let slower = job("j", &[server.host()], |job| job.interval = Duration::from_millis(60));
    check.apply(vec![slower]).await.unwrap();
    for _ in 0..6 {
        let batch = check.until(|_| true).await;
        assert!(!batch.series.is_empty(), "it has not ended");
    }
    check.apply(with(&[])).await.unwrap();
    let ended = check.until(|b| b.series.is_empty()).await;
    assert_eq!(ended.scrape.unwrap().target, id);
    assert!(check.manager.active().is_empty());
    check.manager.shutdown().await;
}

#[tokio::test]
async fn too_many_targets_fail_all_scrapes_of_the_job() {
    let server = Server::start(|_| text("a 1\n")).await;
    let mut check = Check::new();
    let targets = [server.host(), format!("localhost:{}", server.address.port())];
    check.apply(vec![job("j", &targets, |job| job.target_limit = 1)]).await.unwrap();
    check.until(|b| has(b, "up", 0.0) && !has(b, "a", 1.0)).await;
    let shown = check.manager.active();
    let down = shown.iter().find(|t| t.health == "down").unwrap();
    assert_eq!(down.last_error, "target_limit exceeded (number of targets: 2, limit: 1)");
    check.manager.shutdown().await;
}

#[tokio::test]
async fn targets_come_from_an_http_server() {
    let server = Server::start(|_| text("a 1\n")).await;
    let host = server.host();
    let count = AtomicUsize::new(0);
    let discovery = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("text/html", "no"),
        1..4 => answer(
            "application/json; charset=utf-8",
            format!(r#"[{{"targets": ["{host}"], "labels": {{"from": "sd"}}}}]"#),
        ),
        4..8 => answer("application/json", "[broken"),
        _ => answer("application/json", "[]"),
    })
    .await;
    let mut check = Check::new();
    let url = discovery.url("/targets").replacen("http://", "http://u:p@", 1);
    let jobs = vec![job("j", &[], |job| {
        job.discovery = vec![Discovery::Http {
            url: Secret::new(url),
            refresh: Duration::from_millis(150),
            http: Box::default(),
        }];
    })];
    check.apply(jobs).await.unwrap();
    let batch = check.until(|b| has(b, "up", 1.0)).await;
    assert!(RecordingSink::floats(&batch).iter().all(|(labels, ..)| labels.get("from") == Some("sd")));
    let shown = check.manager.active().remove(0).discovered_labels;
    assert_eq!(
        shown.get("__meta_url"),
        Some(format!("http://u:xxxxx@{}/targets", discovery.host()).as_str())
    );
    check.until(|b| b.series.is_empty()).await;
    let asked = discovery.take().remove(0);
    assert_eq!(asked.header("authorization"), "Basic dTpw");
    assert_eq!(asked.header("x-prometheus-refresh-interval-seconds"), "0.15");
    check.manager.shutdown().await;
}

#[test]
fn links_for_people_outside() {
    let options = Options {
        external_url: Some(ExternalUrl { scheme: "https".into(), host: "mon.org".into(), own_port: 9090 }),
        ..Options::default()
    };
    for (url, want) in [
        ("http://localhost:9090/metrics", "https://mon.org/metrics"),
        ("http://127.0.0.1:9100/metrics", "http://mon.org:9100/metrics"),
        ("http://a:9100/metrics", "http://a:9100/metrics"),
    ] {
        assert_eq!(options.global_url(url), want);
    }
    assert_eq!(Options::default().global_url("http://localhost:1/"), "http://localhost:1/");
    assert_eq!(Options::seed_of("n1"), Options::seed_of("n1"));
}
