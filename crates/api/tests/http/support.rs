//! A router over fakes, and short ways to ask it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::web::{Web, WebSettings, WebSource};
use api::{
    ApiMetrics, ApiState, BuildInfo, Notifications, Readiness, ReadyState, RuntimeInfo, Settings,
    WritePlaces, router,
};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::relabel::{Action, NameScheme, RelabelConfig, Rule};
use model::seam::fake::{ManualClock, MemorySource};
use model::seam::{
    BoxFuture, ClusterStatus, ClusterView, MemberStatus, ReadLevel, ReplicaStatus, ReplicaView, SampleSink,
    SeriesSource, ShardReader, ShardStatus, StorageStatus, StorageView, TargetStatus, TargetsView,
    WriteBatch, WriteReport,
};
use model::{
    Failure, Histogram, Labels, Matcher, MetricKind, MetricMetadata, NodeId, ReplicaId, ShardId, TenantId,
    TimeRange,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tower::ServiceExt;

/// "Now" of all tests, ms.
pub(crate) const NOW: i64 = 1_700_000_000_000;

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A native histogram with `count` observations in one bucket.
pub(crate) fn histogram(count: u32) -> Histogram {
    Histogram {
        integer: true,
        schema: 1,
        count: f64::from(count),
        sum: 1.5 * f64::from(count),
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_buckets: vec![f64::from(count)],
        ..Histogram::default()
    }
}

/// Two shards of series: `up` of two instances, `requests_total`, each sampled every 15 s of the last hour.
fn shards() -> Vec<Arc<MemorySource>> {
    let mut first = MemorySource::new();
    let mut second = MemorySource::new();
    for step in 0..=240i64 {
        let at = NOW - 3_600_000 + step * 15_000;
        first.push(&labels(&[("__name__", "up"), ("instance", "a:1"), ("job", "x")]), at, 1.0);
        second.push(&labels(&[("__name__", "up"), ("instance", "b:1"), ("job", "x")]), at, 0.0);
        first.push(&labels(&[("__name__", "requests_total"), ("http.status", "200")]), at, step as f64);
    }
    // A native histogram, one with custom buckets, a stale series, one whose newest sample is a minute old.
    let latency = labels(&[("__name__", "latency"), ("job", "x")]);
    first.push_histogram(&latency, NOW - 30_000, Arc::new(histogram(3)));
    first.push_histogram(&latency, NOW - 15_000, Arc::new(histogram(5)));
    let custom = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: Some([1.0, 2.0].as_slice().into()),
        ..histogram(4)
    };
    second.push_histogram(&labels(&[("__name__", "sizes")]), NOW - 15_000, Arc::new(custom));
    let gone = labels(&[("__name__", "gone"), ("job", "x")]);
    second.push(&gone, NOW - 30_000, 1.0);
    second.push(&gone, NOW - 15_000, model::stale_nan());
    second.push(&labels(&[("__name__", "late"), ("region", "own")]), NOW - 60_000, 2.5);
    first.push_metadata(MetricMetadata {
        family: "requests_total".into(),
        kind: MetricKind::Counter,
        help: "Requests \"seen\"".into(),
        unit: String::new(),
    });
    vec![Arc::new(first), Arc::new(second)]
}

pub(crate) struct Reader {
    shards: Vec<Arc<MemorySource>>,
    pub(crate) down: AtomicBool,
}

impl ShardReader for Reader {
    fn shards(&self, _: &TenantId, _: &[Matcher], _: TimeRange) -> Vec<ShardId> {
        (0..self.shards.len() as u32).map(ShardId).collect()
    }

    fn snapshot(
        &self,
        shard: ShardId,
        _: ReadLevel,
    ) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
        let down = self.down.load(Ordering::Relaxed) && shard.0 == 1;
        let source = Arc::clone(&self.shards[shard.0 as usize]);
        Box::pin(async move {
            if down {
                return Err(Failure::unavailable("no leader", std::time::Duration::from_secs(2)));
            }
            Ok(source as Arc<dyn SeriesSource>)
        })
    }

    fn overlapping(&self, _: TimeRange) -> bool {
        false
    }
}

/// A sink that keeps batches and answers as told.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) batches: Mutex<Vec<WriteBatch>>,
    pub(crate) answer: Mutex<Option<Result<WriteReport, Failure>>>,
    /// Writes wait until this lock is free.
    pub(crate) gate: tokio::sync::Mutex<()>,
}

impl SampleSink for Sink {
    fn write(&self, batch: WriteBatch) -> BoxFuture<'_, Result<WriteReport, Failure>> {
        let mut report = WriteReport::default();
        report.written.samples = batch.samples.len() as u64;
        assert!(!batch.samples.iter().any(|s| s.value == 666.0), "a sink that panics on this value");
        self.batches.lock().push(batch);
        let answer = self.answer.lock().clone().unwrap_or(Ok(report));
        Box::pin(async move {
            drop(self.gate.lock().await);
            answer
        })
    }
}

struct Targets;

impl TargetsView for Targets {
    fn active(&self) -> Vec<TargetStatus> {
        let one = |pool: &str, health: &'static str, error: &str, last: i64| TargetStatus {
            discovered_labels: labels(&[("__address__", "a:1")]),
            labels: labels(&[("instance", "a:1"), ("job", pool)]),
            scrape_pool: pool.into(),
            scrape_url: "http://a:1/metrics".into(),
            global_url: "http://a:1/metrics".into(),
            last_error: error.into(),
            last_scrape_ms: last,
            last_scrape_duration: 0.025,
            health,
            interval_ms: 15_000,
            timeout_ms: 10_000,
        };
        vec![one("x", "up", "", NOW), one("y", "unknown", "", 0)]
    }

    fn dropped(&self) -> (Vec<TargetStatus>, BTreeMap<String, usize>) {
        let one = TargetStatus {
            discovered_labels: labels(&[("__address__", "c:1")]),
            scrape_pool: "x".into(),
            ..TargetStatus::default()
        };
        (vec![one], [("x".to_owned(), 1), ("y".to_owned(), 0)].into())
    }

    fn pools(&self) -> Vec<String> {
        vec!["x".into(), "y".into()]
    }

    fn metadata(&self) -> Vec<(Labels, Vec<Arc<MetricMetadata>>)> {
        let entry = |family: &str| {
            let help = format!("help of {family}");
            Arc::new(MetricMetadata {
                family: family.into(),
                kind: MetricKind::Gauge,
                help,
                unit: String::new(),
            })
        };
        let target = |job: &str| labels(&[("instance", "a:1"), ("job", job)]);
        vec![(target("x"), vec![entry("one"), entry("two")]), (target("y"), vec![entry("one")])]
    }

    fn relabel_rules(&self, pool: &str) -> Option<Vec<Rule>> {
        let rule = |config| Rule::new(config, NameScheme::Utf8).unwrap();
        let rename = RelabelConfig {
            source_labels: vec!["a".into()],
            target_label: "b".into(),
            ..RelabelConfig::default()
        };
        let drop = RelabelConfig {
            source_labels: vec!["b".into()],
            regex: "bad".into(),
            action: Action::Drop,
            ..RelabelConfig::default()
        };
        (pool == "x").then(|| vec![rule(rename), rule(drop)])
    }
}

/// What was deleted: tenant, number of selectors, range.
type Deleted = Arc<Mutex<Vec<(TenantId, usize, TimeRange)>>>;

struct Storage(Deleted);

impl StorageView for Storage {
    fn delete_series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.0.lock().push((tenant.clone(), selectors.len(), range));
        Box::pin(async { Ok(()) })
    }

    fn clean_deleted(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<String, Failure>> {
        Box::pin(async { Ok("20260102T030405Z-000000000000002a".to_owned()) })
    }

    fn status(&self, tenant: Option<&TenantId>, limit: usize) -> StorageStatus {
        if tenant.is_some_and(|tenant| *tenant != TenantId::anonymous()) {
            return StorageStatus::default();
        }
        let many = (0..20).map(|n| (format!("m{n}"), 20 - n)).take(limit).collect();
        StorageStatus {
            series: 3,
            label_pairs: 4,
            chunks: 5,
            min_time: 1,
            max_time: NOW,
            series_by_metric: many,
            ..StorageStatus::default()
        }
    }
}

/// Two nodes, one of which is silent; a shard with a copy on each.
struct Cluster;

impl ClusterView for Cluster {
    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        let member = |n: u64| MemberStatus {
            node: NodeId(n),
            name: format!("n{n}"),
            zone: "z".into(),
            address: format!("h{n}:9095"),
            answers: n == 1,
            meta_voter: n == 1,
            meta_leader: n == 1,
            replicas: 1,
            leads: usize::from(n == 1),
            disk_full: n == 1,
            drift: vec![("retention".into(), "30d".into(), "15d".into())],
        };
        let view = ReplicaView {
            quarantined: false,
            applied: 9,
            committed: 9,
            leads: true,
            ready: true,
            failed: false,
            votes: true,
            full: true,
        };
        let replica = |n: u64, view: Option<ReplicaView>| ReplicaStatus {
            replica: ReplicaId(n + 10),
            node: NodeId(n),
            view,
            lag: if view.is_some() { 0 } else { 9 },
        };
        let shard = ShardStatus {
            shard: ShardId(1),
            leader: Some(NodeId(1)),
            replicas: vec![replica(1, Some(view)), replica(2, None)],
            missing: 1,
        };
        Box::pin(std::future::ready(ClusterStatus {
            name: "eu".into(),
            id: 7,
            node: NodeId(1),
            waits_for: String::new(),
            members: vec![member(1), member(2)],
            shards: vec![shard],
            settings_version: 2,
            settings: BTreeMap::from([("replication-factor".to_owned(), "3".to_owned())]),
        }))
    }

    fn change_settings(&self, changes: Vec<(String, String)>) -> BoxFuture<'_, Result<(), Failure>> {
        let good = changes == [("replication-factor".to_owned(), "3".to_owned())];
        let result = if good { Ok(()) } else { Err(Failure::invalid("there is no such setting")) };
        Box::pin(std::future::ready(result))
    }

    fn transfer_leader(&self, shard: ShardId, node: String) -> BoxFuture<'_, Result<(), Failure>> {
        let good = (shard, node.as_str()) == (ShardId(1), "n1");
        let late = || Failure::unavailable("it is behind", std::time::Duration::from_secs(1));
        Box::pin(std::future::ready(if good { Ok(()) } else { Err(late()) }))
    }

    fn remove_node(&self, node: String) -> BoxFuture<'_, Result<(), Failure>> {
        let result = if node == "n2" { Ok(()) } else { Err(Failure::invalid("it has replicas")) };
        Box::pin(std::future::ready(result))
    }
}

/// A router and what is behind it.
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) sink: Arc<Sink>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) unready: Arc<Mutex<Option<String>>>,
    pub(crate) frontend: query::Frontend,
    pub(crate) metrics: ApiMetrics,
    pub(crate) reloads: Arc<Mutex<Vec<Result<(), String>>>>,
    pub(crate) quits: Arc<AtomicBool>,
    pub(crate) deleted: Deleted,
    pub(crate) web: WebSource,
    pub(crate) notifications: Arc<Notifications>,
    pub(crate) external: Arc<Mutex<Labels>>,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub(crate) fn server() -> Server {
    server_with(Settings::default(), query::Config::default())
}

pub(crate) fn server_with(settings: Settings, config: query::Config) -> Server {
    let mut registry = Registry::default();
    let reader = Arc::new(Reader { shards: shards(), down: AtomicBool::new(false) });
    let clock = Arc::new(ManualClock::new(NOW));
    let frontend =
        query::Frontend::new(Arc::clone(&reader) as _, config, Arc::clone(&clock) as _, &mut registry);
    let metrics = ApiMetrics::register(&mut registry);
    let sink = Arc::new(Sink::default());
    let readiness = Arc::new(Readiness::default());
    readiness.set(ReadyState::Ready);
    let unready: Arc<Mutex<Option<String>>> = Arc::default();
    let why = Arc::clone(&unready);
    let reloads: Arc<Mutex<Vec<Result<(), String>>>> = Arc::default();
    let quits = Arc::new(AtomicBool::new(false));
    let deleted = Deleted::default();
    let web: WebSource = Arc::new(ArcSwap::from_pointee(Web::new(WebSettings::default()).unwrap()));
    let notifications = Arc::new(Notifications::default());
    let external: Arc<Mutex<Labels>> = Arc::default();
    let shown_external = Arc::clone(&external);
    let (next_reload, quit) = (Arc::clone(&reloads), Arc::clone(&quits));
    let state = ApiState {
        frontend: frontend.clone(),
        sink: Arc::clone(&sink) as _,
        targets: Arc::new(Targets),
        storage: Arc::new(Storage(Arc::clone(&deleted))),
        cluster: Arc::new(Cluster),
        registry: Arc::new(registry),
        metrics: metrics.clone(),
        clock,
        settings,
        build: BuildInfo {
            prometheus_version: "3.16.0".into(),
            isobar_version: "0.1.0".into(),
            ..BuildInfo::default()
        },
        flags: [("config.file".to_owned(), "prometheus.yml".to_owned())].into(),
        not_active: Arc::new(|| vec!["rule_files: rules are not evaluated yet".into()]),
        config_text: Arc::new(|| "global:\n  scrape_interval: 15s\n".into()),
        pool_config: Arc::new(|pool| (pool == "x").then(|| "job_name: x\n".to_owned())),
        external_labels: Arc::new(move || shown_external.lock().clone()),
        web: Arc::clone(&web),
        notifications: Arc::clone(&notifications),
        reads: Arc::new(tokio::sync::Semaphore::new(2)),
        writes: WritePlaces::default(),
        otlp: Arc::new(Arc::default),
        runtime: Arc::new(|| RuntimeInfo {
            start_ms: NOW,
            working_dir: "/x".into(),
            retention: "15d".into(),
            reload_success: true,
            ..RuntimeInfo::default()
        }),
        readiness: Arc::clone(&readiness),
        unready: Arc::new(move || why.lock().clone()),
        reload: Arc::new(move || {
            let outcome = next_reload.lock().pop().unwrap_or(Ok(()));
            Box::pin(async move { outcome })
        }),
        quit: Arc::new(move || quit.store(true, Ordering::Relaxed)),
    };
    let router = router(state);
    Server {
        router,
        sink,
        reader,
        readiness,
        unready,
        frontend,
        metrics,
        reloads,
        quits,
        deleted,
        web,
        notifications,
        external,
    }
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path).await
    }

    pub(crate) async fn form(&self, path: &str, form: &str) -> Answer {
        let request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    /// Asks and expects 200 with `data`.
    pub(crate) async fn data(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        let json = answer.json();
        assert_eq!(json["status"], "success");
        json["data"].clone()
    }

    /// Asks and expects an error of that code and type with that text; then a plain query still works.
    pub(crate) async fn refused(&self, path: &str, code: u16, kind: &str, text: &str) {
        let answer = self.get(path).await;
        assert_refused(&answer, code, kind, text, path);
        assert_eq!(self.get("/api/v1/query?query=1").await.status, 200, "after {path}");
    }
}

pub(crate) fn assert_refused(answer: &Answer, code: u16, kind: &str, text: &str, about: &str) {
    assert_eq!(answer.status, code, "{about}: {}", answer.text());
    let json = answer.json();
    assert_eq!((&json["status"], &json["errorType"]), (&"error".into(), &kind.into()), "{about}: {json}");
    let message = json["error"].as_str().unwrap();
    assert!(message.contains(text), "{about}: {message}");
    assert!(json.get("data").is_none());
}
