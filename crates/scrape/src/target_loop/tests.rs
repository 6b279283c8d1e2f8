//! Whole scrapes of an HTTP server on this machine, without timers: what reaches the sink.

use std::sync::atomic::{AtomicUsize, Ordering};

use formats::negotiate::ScrapeProtocol;
use model::Labels;
use model::seam::WriteBatch;
use model::seam::fake::{ManualClock, RecordingSink};
use prometheus_client::registry::Registry;

use super::*;
use crate::config::TargetGroup;
use crate::manager::{Manager, Options};
use crate::target::{Outcome as TargetOutcome, targets_of};
use crate::test_server::{self, Server, answer, endless, gzip, stuck, text};

struct Check {
    sink: Arc<RecordingSink>,
    scraper: Scraper,
    _manager: Manager,
}

impl Check {
    fn new(host: &str, change: impl FnOnce(&mut JobConfig)) -> Self {
        let mut job = JobConfig::new("j");
        change(&mut job);
        let group = TargetGroup { targets: vec![host.into()], ..TargetGroup::default() };
        let TargetOutcome::Kept(target) = targets_of(&group, &job).remove(0).ok().unwrap() else {
            panic!("kept")
        };
        let sink = Arc::new(RecordingSink::default());
        let clock = Arc::new(ManualClock::new(5000));
        let manager = Manager::new(Options::default(), sink.clone(), clock, &mut Registry::default());
        let shared = manager.shared_for_tests();
        let pool = PoolShared::for_tests(&job, &shared);
        let target_loop =
            TargetLoop { shared, pool, target, health: Arc::default(), stop: CancellationToken::new() };
        Self { sink, scraper: Scraper::new(&target_loop).unwrap(), _manager: manager }
    }

    async fn scrape(&mut self, timestamp: i64) -> WriteBatch {
        self.scraper.scrape(timestamp).await;
        let mut batches = self.sink.take();
        assert_eq!(batches.len(), 1);
        batches.remove(0)
    }

    /// `name value` of each series, in order; `…` for times.
    async fn values(&mut self) -> String {
        let batch = self.scrape(7000).await;
        assert_eq!(batch.scrape.unwrap().timestamp, 7000);
        let shown = RecordingSink::floats(&batch).into_iter().map(|(labels, timestamp, value)| {
            assert_eq!((timestamp, labels.get("job")), (7000, Some("j")));
            let name = labels.metric_name();
            if name == "scrape_duration_seconds" { name.to_owned() } else { format!("{name} {value}") }
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn error(&self) -> String {
        self.scraper.health.lock().error.clone()
    }
}

const REPORT_DOWN: &str = "up 0, scrape_duration_seconds, scrape_samples_scraped 0, \
                           scrape_samples_post_metric_relabeling 0, scrape_series_added 0";

#[tokio::test]
async fn a_good_scrape_and_its_report() {
    let server = Server::start(|_| text("# HELP a A.\na 1\nb{x=\"1\"} 2\n")).await;
    let mut check = Check::new(&server.host(), |job| job.scheme = "http".into());
    let batch = check.scrape(7000).await;
    let floats = RecordingSink::floats(&batch);
    let labels = |pairs: &[(&str, &str)]| {
        let host = server.host();
        Labels::from_pairs(pairs.iter().copied().chain([("job", "j"), ("instance", host.as_str())])).unwrap()
    };
    assert_eq!(floats[0], (labels(&[("__name__", "a")]), 7000, 1.0));
    assert_eq!(floats[1], (labels(&[("__name__", "b"), ("x", "1")]), 7000, 2.0));
    assert_eq!(floats[2], (labels(&[("__name__", "up")]), 7000, 1.0));
    assert_eq!(batch.metadata[0].help, "A.");
    assert_eq!(
        check.values().await,
        "a 1, b 2, up 1, scrape_duration_seconds, scrape_samples_scraped 2, \
         scrape_samples_post_metric_relabeling 2, scrape_series_added 0"
    );
    assert_eq!(check.error(), "");
    let asked = server.take();
    assert_eq!(asked[0].uri, "/metrics");
    assert_eq!(asked[0].header("accept-encoding"), "gzip");
    assert_eq!(asked[0].header("x-prometheus-scrape-timeout-seconds"), "10");
    assert!(asked[0].header("user-agent").starts_with("isobar/"));
    assert!(
        asked[0]
            .header("accept")
            .starts_with("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,")
    );
}

#[tokio::test]
async fn a_failed_scrape_says_so_and_nothing_else() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => text("a 1\n"),
        1 => {
            let mut answer = text("a 1\n");
            *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
        2 => text("a 1\nnot a metric line at all\n"),
        3 => answer("text/html", "<html>"),
        4 => text(""),
        _ => text("a 1\n"),
    })
    .await;
    let mut check = Check::new(&server.host(), |_| ());
    assert!(check.values().await.starts_with("a 1, up 1"));
    assert_eq!(check.values().await, REPORT_DOWN);
    assert_eq!(check.error(), "server returned HTTP status 500 Internal Server Error");
    let broken = check.values().await;
    assert!(broken.starts_with("up 0") && broken.contains("scrape_samples_scraped 1"), "{broken}");
    assert_eq!(check.values().await, REPORT_DOWN);
    assert!(check.error().contains("unsupported Content-Type \"text/html\""));
    assert!(check.values().await.starts_with("up 1"), "an empty body is a good scrape without series");
    assert!(check.values().await.starts_with("a 1, up 1"));
    drop(server);
}

#[tokio::test]
async fn a_target_that_is_not_there() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut check = Check::new(&address.to_string(), |_| ());
    assert_eq!(check.values().await, REPORT_DOWN);
    assert!(check.error().contains("refused"), "{}", check.error());
}

#[tokio::test]
async fn hostile_bodies_are_bounded() {
    let server = Server::start(|asked| match asked.uri.as_str() {
        "/endless" => endless(b"a 1\n"),
        "/bomb" => gzip(&vec![b'#'; 8 << 20]),
        "/stuck" => stuck(),
        _ => text("a 1\n"),
    })
    .await;
    for path in ["/endless", "/bomb"] {
        let mut check = Check::new(&server.host(), |job| {
            job.metrics_path = path.into();
            job.body_size_limit = 1 << 20;
            job.extra_scrape_metrics = true;
        });
        let values = check.values().await;
        assert!(
            values.ends_with("scrape_timeout_seconds 10, scrape_sample_limit 0, scrape_body_size_bytes -1"),
            "{values}"
        );
        assert_eq!(check.error(), "body size limit exceeded");
    }
    let mut check = Check::new(&server.host(), |job| {
        job.metrics_path = "/stuck".into();
        job.timeout = Duration::from_millis(50);
    });
    assert_eq!(check.values().await, REPORT_DOWN);
    assert!(check.error().ends_with("context deadline exceeded"), "{}", check.error());
}

#[tokio::test]
async fn a_target_known_for_too_large_bodies_is_read_whole_only_once_in_a_while() {
    let asked = Arc::new(AtomicUsize::new(0));
    let size = Arc::new(AtomicUsize::new(4 << 20));
    let (counted, of_body) = (Arc::clone(&asked), Arc::clone(&size));
    let server = Server::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        text(format!("a 1\n{}\n", "#".repeat(of_body.load(Ordering::Relaxed))))
    })
    .await;
    let mut check = Check::new(&server.host(), |job| job.body_size_limit = 3 << 20);
    assert_eq!(check.values().await, REPORT_DOWN);
    // Now it would fit, which is found out at the ninth scrape.
    size.store(2 << 20, Ordering::Relaxed);
    for _ in 0..8 {
        assert_eq!(check.values().await, REPORT_DOWN);
        assert_eq!(check.error(), "body size limit exceeded");
    }
    assert!(check.values().await.starts_with("a 1, up 1"));
    assert!(check.values().await.starts_with("a 1, up 1"), "it is no longer known for anything");
    // A small body is taken at once.
    size.store(4 << 20, Ordering::Relaxed);
    assert_eq!(check.values().await, REPORT_DOWN);
    assert_eq!(check.values().await, REPORT_DOWN);
    size.store(10, Ordering::Relaxed);
    assert!(check.values().await.starts_with("a 1, up 1"));
    assert_eq!(asked.load(Ordering::Relaxed), 14);
}

#[tokio::test]
async fn settings_reach_the_request() {
    let server =
        Server::start(
            |asked| if asked.header("accept-encoding") == "gzip" { gzip(b"z 1\n") } else { text("a 1\n") },
        )
        .await;
    let mut check = Check::new(&server.host(), |job| {
        job.params.insert("module".into(), vec!["x y".into()]);
        job.metrics_path = "/probe".into();
        job.enable_compression = false;
        job.protocols = vec![ScrapeProtocol::PrometheusText0_0_4];
        job.escaping = crate::Escaping::Underscores;
        job.timeout = Duration::from_millis(2500);
    });
    assert!(check.values().await.starts_with("a 1, up 1"));
    let asked = server.take().remove(0);
    assert_eq!(asked.uri, "/probe?module=x+y");
    assert_eq!(asked.header("accept-encoding"), "identity");
    assert_eq!(asked.header("accept"), "text/plain;version=0.0.4;q=0.6,*/*;q=0.5");
    assert_eq!(asked.header("x-prometheus-scrape-timeout-seconds"), "2.5");
    let mut check = Check::new(&server.host(), |_| ());
    assert!(check.values().await.starts_with("z 1, up 1"));
}

#[tokio::test]
async fn limits_fail_the_scrape_but_are_counted() {
    let server = Server::start(|_| text("a 1\nb 1\nc 1\n")).await;
    let mut check = Check::new(&server.host(), |job| {
        job.sample_limit = 2;
        job.extra_scrape_metrics = true;
    });
    assert_eq!(
        check.values().await,
        "up 0, scrape_duration_seconds, scrape_samples_scraped 3, scrape_samples_post_metric_relabeling 3, \
         scrape_series_added 2, scrape_timeout_seconds 10, scrape_sample_limit 2, scrape_body_size_bytes 12"
    );
    assert_eq!(check.error(), "sample limit exceeded");
}

#[tokio::test]
async fn large_bodies_are_read_elsewhere_with_the_same_outcome() {
    let body: String = (0..20_000).map(|i| format!("m{{i=\"{i}\"}} {i}\n")).collect();
    let server = Server::start(move |_| text(body.clone())).await;
    let mut check = Check::new(&server.host(), |_| ());
    for added in [20_000.0, 0.0] {
        let floats = RecordingSink::floats(&check.scrape(7000).await);
        assert_eq!(floats.len(), 20_005);
        assert_eq!(floats[20_004].2, added);
    }
}

#[tokio::test]
async fn a_fallback_protocol() {
    let server = Server::start(|_| answer("", "a 1\n")).await;
    let mut check = Check::new(&server.host(), |_| ());
    assert_eq!(check.values().await, REPORT_DOWN);
    assert!(check.error().contains("blank Content-Type"));
    let mut check =
        Check::new(&server.host(), |job| job.fallback_protocol = Some(ScrapeProtocol::PrometheusText0_0_4));
    assert!(check.values().await.starts_with("a 1, up 1"));
    let _ = test_server::redirect("/");
}

/// `h`: two observations in the native bucket 1 of schema 0, created at 5 s; delimited.
const NATIVE: &[u8] = b"\x21\x0a\x01h\x18\x04\x22\x1a\x3a\x18\x08\x02\x11\x00\x00\x00\x00\x00\x00\x08\x40\
                        \x62\x04\x08\x02\x10\x01\x6a\x01\x04\x7a\x02\x08\x05";

#[tokio::test]
async fn native_histograms_are_asked_for_and_stored() {
    assert_eq!(NATIVE.len(), usize::from(NATIVE[0]) + 1);
    let server = Server::start(|asked| {
        let wanted = asked.header("accept").starts_with("application/vnd.google.protobuf;");
        if wanted {
            answer("application/vnd.google.protobuf; encoding=delimited", NATIVE)
        } else {
            text("h_count 2\n")
        }
    })
    .await;
    let mut check = Check::new(&server.host(), |job| {
        job.scrape_native_histograms = true;
        job.protocols = ScrapeProtocol::PROTOBUF_FIRST.to_vec();
    });
    let batch = check.scrape(7000).await;
    assert_eq!(check.error(), "");
    let (at, histogram) = &batch.histograms[0];
    assert_eq!((*at, histogram.count, histogram.sum, histogram.schema), (7000, 2.0, 3.0, 0));
    assert_eq!(histogram.positive_buckets, [2.0]);
    assert_eq!((batch.series[0].histograms.clone(), batch.series[0].samples.len()), (0..1, 0));
    // The same body read as a classic histogram, with its start.
    let mut check = Check::new(&server.host(), |job| job.protocols = ScrapeProtocol::PROTOBUF_FIRST.to_vec());
    let batch = check.scrape(7000).await;
    assert_eq!(batch.histograms.len(), 0);
    assert_eq!(batch.starts, [5000, 5000, 5000, 0, 0, 0, 0, 0]);
    let names = RecordingSink::floats(&batch).into_iter().map(|(labels, ..)| labels.metric_name().to_owned());
    assert_eq!(names.take(4).collect::<Vec<_>>(), ["h_count", "h_sum", "h_bucket", "up"]);
    // The target's labels decide, so that relabelling may.
    let mut check = Check::new(&server.host(), |job| {
        job.protocols = ScrapeProtocol::PROTOBUF_FIRST.to_vec();
        let config = model::relabel::RelabelConfig {
            target_label: "__scrape_native_histograms__".into(),
            replacement: "true".into(),
            ..model::relabel::RelabelConfig::default()
        };
        job.relabel = vec![model::relabel::Rule::new(config, model::relabel::NameScheme::Utf8).unwrap()];
    });
    assert_eq!(check.scrape(7000).await.histograms.len(), 1);
}

#[tokio::test]
async fn a_damaged_protobuf_body_fails_the_scrape() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("application/vnd.google.protobuf", NATIVE),
        _ => answer("application/vnd.google.protobuf", &NATIVE[..20]),
    })
    .await;
    let mut check = Check::new(&server.host(), |_| ());
    assert!(check.values().await.starts_with("h_count 2, h_sum 3, h_bucket 2, up 1"));
    assert_eq!(check.values().await, REPORT_DOWN);
    assert!(check.error().contains("length beyond the end in metric family"), "{}", check.error());
}
