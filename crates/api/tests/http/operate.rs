//! Paths for operators: health, readiness, reload, quit, metrics, status, targets, the page.

use std::sync::atomic::Ordering;

use api::{ReadyState, Settings};
use axum::body::Body;
use http::Request;
use model::regex::Regex;
use serde_json::json;

use crate::support::{server, server_with};

#[tokio::test]
async fn health_and_readiness() {
    let server = server();
    for (path, text) in [("/-/healthy", "Isobar is Healthy.\n"), ("/-/ready", "Isobar is Ready.\n")] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, text));
        let head = server.call("HEAD", path).await;
        assert_eq!((head.status.as_u16(), head.text()), (200, ""));
    }
    // A node that is worse than others says so, and serves whom it has all the same.
    *server.unready.lock() = Some("its log failed".to_owned());
    let answer = server.get("/-/ready").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (503, "Service Unavailable: its log failed\n"));
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
    *server.unready.lock() = None;
    assert_eq!(server.get("/-/ready").await.status, 200);
    for (state, stopping) in [(ReadyState::NotReady, "false"), (ReadyState::Stopping, "true")] {
        server.readiness.set(state);
        assert_eq!(server.get("/-/healthy").await.status, 200);
        for path in ["/-/ready", "/api/v1/query?query=1", "/api/v1/labels", "/federate"] {
            let answer = server.get(path).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (503, "Service Unavailable"), "{path}");
            assert_eq!(answer.header("x-prometheus-stopping"), stopping);
        }
        assert_eq!(server.call("POST", "/api/v1/write").await.status, 503);
        assert_eq!(server.get("/metrics").await.status, 200);
        assert_eq!(server.get("/api/v1/status/walreplay").await.status, 200);
    }
}

#[tokio::test]
async fn reload_and_quit_need_the_lifecycle_flag_and_post() {
    let off = server();
    for path in ["/-/reload", "/-/quit"] {
        for method in ["POST", "PUT"] {
            let answer = off.call(method, path).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (403, "Lifecycle API is not enabled."));
        }
        let answer = off.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (405, "Only POST or PUT requests allowed"));
    }
    let on = server_with(Settings { lifecycle: true, ..Settings::default() }, Default::default());
    assert_eq!(on.call("POST", "/-/reload").await.status, 200);
    on.reloads.lock().push(Err("prometheus.yml:3:1: unknown field".into()));
    let failed = on.call("PUT", "/-/reload").await;
    assert_eq!(failed.status, 500);
    assert_eq!(failed.text(), "failed to reload config: prometheus.yml:3:1: unknown field\n");
    assert!(!on.quits.load(Ordering::Relaxed));
    assert_eq!(on.call("POST", "/-/quit").await.status, 200);
    assert!(on.quits.load(Ordering::Relaxed));
}

#[tokio::test]
async fn metrics_in_both_formats() {
    let server = server();
    server.get("/api/v1/query?query=up").await;
    server.get("/api/v1/label/job/values").await;
    let text = server.get("/metrics").await;
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8");
    assert!(
        text.text().contains("prometheus_http_requests_total{handler=\"/api/v1/query\",code=\"200\"} 1\n")
    );
    assert!(text.text().contains("handler=\"/api/v1/label/{name}/values\""), "routes, not paths");
    assert!(text.text().contains("# TYPE prometheus_http_requests_total counter\n"));
    assert!(text.text().contains("isobar_query_duration_seconds_count{kind=\"instant\"} 1\n"));
    let request = Request::get("/metrics").header("accept", "application/openmetrics-text;version=1.0.0");
    let open = server.send(request.body(Body::empty()).unwrap()).await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_the_node_is() {
    let server = server();
    let build = server.data("/api/v1/status/buildinfo").await;
    assert_eq!((&build["version"], &build["isobarVersion"]), (&json!("3.16.0"), &json!("0.1.0")));
    assert!(build.get("features").is_none(), "Grafana takes a server with features for Mimir");
    let runtime = server.data("/api/v1/status/runtimeinfo").await;
    assert_eq!(runtime["startTime"], "2023-11-14T22:13:20Z");
    assert_eq!(
        (&runtime["reloadConfigSuccess"], &runtime["storageRetention"]),
        (&json!(true), &json!("15d"))
    );
    assert_eq!(
        server.data("/api/v1/status/config").await,
        json!({"yaml": "global:\n  scrape_interval: 15s\n"})
    );
    assert_eq!(server.data("/api/v1/status/flags").await, json!({"config.file": "prometheus.yml"}));
    assert_eq!(
        server.data("/api/v1/status/not_active").await,
        json!(["rule_files: rules are not evaluated yet"])
    );
    let tsdb = server.data("/api/v1/status/tsdb").await;
    assert_eq!(
        tsdb["headStats"],
        json!({"numSeries": 3, "numLabelPairs": 4, "chunkCount": 5, "minTime": 1, "maxTime": 1_700_000_000_000i64})
    );
    assert_eq!(tsdb["seriesCountByMetricName"].as_array().unwrap().len(), 10);
    assert_eq!(tsdb["seriesCountByMetricName"][0], json!({"name": "m0", "value": 20}));
    assert_eq!(
        server.data("/api/v1/status/tsdb?limit=2").await["seriesCountByMetricName"].as_array().unwrap().len(),
        2
    );
    assert_eq!(server.get("/version").await.json()["version"], "3.16.0");
}

#[tokio::test]
async fn targets_by_state_and_pool() {
    let server = server();
    let all = server.data("/api/v1/targets").await;
    assert_eq!(all["activeTargets"].as_array().unwrap().len(), 2);
    assert_eq!(
        all["activeTargets"][0],
        json!({
            "discoveredLabels": {"__address__": "a:1"}, "labels": {"instance": "a:1", "job": "x"},
            "scrapePool": "x", "scrapeUrl": "http://a:1/metrics", "globalUrl": "http://a:1/metrics", "lastError": "",
            "lastScrape": "2023-11-14T22:13:20Z", "lastScrapeDuration": 0.025, "health": "up",
            "scrapeInterval": "15s", "scrapeTimeout": "10s",
        })
    );
    assert_eq!(all["activeTargets"][1]["lastScrape"], "0001-01-01T00:00:00Z");
    assert_eq!(
        all["droppedTargets"],
        json!([{"discoveredLabels": {"__address__": "c:1"}, "scrapePool": "x"}])
    );
    assert_eq!(all["droppedTargetCounts"], json!({"x": 1, "y": 0}));
    let active = server.data("/api/v1/targets?state=active&scrapePool=y").await;
    assert_eq!(
        (active["activeTargets"].as_array().unwrap().len(), &active["droppedTargets"]),
        (1, &json!([]))
    );
    let dropped = server.data("/api/v1/targets?state=dropped").await;
    assert_eq!(
        (&dropped["activeTargets"], dropped["droppedTargets"].as_array().unwrap().len()),
        (&json!([]), 1)
    );
    assert_eq!(server.data("/api/v1/scrape_pools").await, json!({"scrapePools": ["x", "y"]}));
    server.refused("/api/v1/scrape_pools/config", 400, "bad_data", "no scrapePool parameter provided").await;
    server
        .refused("/api/v1/scrape_pools/config?scrapePool=z", 400, "bad_data", "scrape pool \"z\" not found")
        .await;
    server
        .refused(
            "/api/v1/targets/relabel_steps?scrapePool=x",
            400,
            "bad_data",
            "no labels parameter provided",
        )
        .await;
    server
        .refused(
            "/api/v1/targets/metadata?match_target=%7B",
            400,
            "bad_data",
            "invalid parameter \"match_target\"",
        )
        .await;
}

#[tokio::test]
async fn the_page_comes_with_its_files_and_a_strict_policy() {
    let server = server();
    for path in ["/", "/query?g0.expr=up"] {
        let home = server.get(path).await;
        assert!(home.status.is_redirection());
        assert!(home.header("location").starts_with("/graph"), "{}", home.header("location"));
    }
    for path in [
        "/graph",
        "/cluster",
        "/alerts",
        "/rules",
        "/targets",
        "/service-discovery",
        "/tsdb-status",
        "/config",
        "/flags",
        "/status",
    ] {
        let page = server.get(path).await;
        assert_eq!(page.status, 200);
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!page.text().contains("<script>") && !page.text().contains("style="), "nothing inline");
    }
    for (path, media) in [
        ("/ui/app.js", "text/javascript; charset=utf-8"),
        ("/ui/cluster.js", "text/javascript; charset=utf-8"),
        ("/ui/app.css", "text/css; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
    ] {
        let file = server.get(path).await;
        assert_eq!((file.status.as_u16(), file.header("content-type")), (200, media));
        assert!(!file.text().contains("innerHTML"));
        assert_eq!(file.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn everything_works_under_a_prefix() {
    let settings =
        Settings { route_prefix: "/mon".into(), external_path: "/out/mon".into(), ..Settings::default() };
    let server = server_with(settings, Default::default());
    for path in
        ["/mon/-/healthy", "/mon/api/v1/query?query=1", "/mon/graph", "/mon/metrics", "/mon/ui/app.js"]
    {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/").await.header("location"), "/mon/");
    for path in ["/mon", "/mon/"] {
        assert_eq!(server.get(path).await.header("location"), "/out/mon/graph", "{path}");
    }
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 404);
}

#[tokio::test]
async fn cors_is_closed_unless_an_origin_matches() {
    let ask = async |server: &crate::support::Server, method: &str| {
        let request = Request::builder().method(method).uri("/api/v1/query?query=1");
        server.send(request.header("origin", "https://good.example").body(Body::empty()).unwrap()).await
    };
    let closed = server();
    assert_eq!(ask(&closed, "GET").await.header("access-control-allow-origin"), "");
    assert_eq!(ask(&closed, "OPTIONS").await.status, 204);
    for (pattern, allowed) in [
        ("https://good\\.example", "https://good.example"),
        ("https://other", ""),
        (".*", "https://good.example"),
    ] {
        let settings =
            Settings { cors_origin: Some(Regex::anchored(pattern).unwrap()), ..Settings::default() };
        let server = server_with(settings, Default::default());
        for method in ["GET", "OPTIONS"] {
            assert_eq!(
                ask(&server, method).await.header("access-control-allow-origin"),
                allowed,
                "{pattern}"
            );
        }
    }
}

#[tokio::test]
async fn wrong_methods_are_405() {
    let server = server();
    for (method, path) in [
        ("DELETE", "/api/v1/query"),
        ("PUT", "/api/v1/labels"),
        ("POST", "/api/v1/label/job/values"),
        ("GET", "/api/v1/admin/tsdb/delete_series"),
        ("GET", "/api/v1/read"),
        ("POST", "/metrics"),
    ] {
        let answer = server.call(method, path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(!answer.header("allow").is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn the_cluster_is_shown_always_and_changed_with_the_admin_flag() {
    let off = server();
    off.readiness.set(ReadyState::NotReady);
    let answer = off.get("/api/v1/cluster/status").await;
    assert_eq!(answer.status, 200);
    let data = &answer.json()["data"];
    assert_eq!(data["name"], "eu");
    assert_eq!(data["underReplicatedShards"], 1);
    assert_eq!(data["members"][1]["answers"], false);
    assert_eq!(
        data["members"][0]["drift"][0],
        json!({"setting": "retention", "node": "30d", "cluster": "15d"})
    );
    assert_eq!(data["shards"][0]["leader"], "0000000000000001");
    assert_eq!(data["shards"][0]["replicas"][0]["state"], "leader");
    assert_eq!(data["shards"][0]["replicas"][1]["state"], "unknown");
    assert_eq!(data["settings"], json!({"replication-factor": "3"}));
    let changes = [
        ("/api/v1/cluster/settings?replication-factor=3", 200),
        ("/api/v1/cluster/settings?colour=red", 400),
        ("/api/v1/cluster/settings", 400),
        ("/api/v1/cluster/transfer_leader?shard=1&node=n1", 200),
        ("/api/v1/cluster/transfer_leader?shard=1&node=n2", 503),
        ("/api/v1/cluster/transfer_leader?shard=x&node=n2", 400),
        ("/api/v1/cluster/remove?node=n2", 200),
        ("/api/v1/cluster/remove?node=n1", 400),
    ];
    let on = server_with(Settings { admin: true, ..Settings::default() }, query::Config::default());
    for (path, status) in changes {
        assert_eq!(on.call("POST", path).await.status.as_u16(), status, "{path}");
        assert_eq!(off.call("POST", path).await.status.as_u16(), 500, "{path} without the flag");
        assert_eq!(on.get(path).await.status.as_u16(), 405, "{path}");
    }
}
