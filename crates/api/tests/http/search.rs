//! Searching names and values, targets' further paths, notifications.

use api::Settings;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Server, assert_refused, server, server_with};

async fn lines(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.get(&format!("/api/v1/search/{path}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/x-ndjson; charset=utf-8");
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn batches_then_how_it_ended() {
    let server = server();
    let all = lines(&server, "metric_names").await;
    assert_eq!(all.len(), 2);
    let names: Vec<&str> =
        all[0]["results"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gone", "late", "latency", "requests_total", "sizes", "up"]);
    assert_eq!(all[1], json!({"status": "success", "has_more": false}));

    let cut = lines(&server, "metric_names?limit=3&batch_size=2").await;
    assert_eq!(cut.len(), 3);
    assert_eq!(cut[1]["results"], json!([{"name": "latency"}]));
    assert_eq!(cut[2]["has_more"], true);

    let scored = lines(&server, "metric_names?search[]=lat&sort_by=score&include_score=true").await;
    assert_eq!(scored[0]["results"], json!([{"name": "late", "score": 1}, {"name": "latency", "score": 1}]));
    let described = lines(&server, "metric_names?search[]=requests&include_metadata=true").await;
    assert_eq!(
        described[0]["results"],
        json!([{"name": "requests_total", "type": "counter", "help": "Requests \"seen\""}])
    );
    let none = lines(&server, "metric_names?search[]=zzz").await;
    assert_eq!(none, [json!({"results": []}), json!({"status": "success", "has_more": false})]);
    let values = lines(&server, "label_values?label=instance&sort_by=alpha&sort_dir=dsc").await;
    assert_eq!(values[0]["results"], json!([{"value": "b:1"}, {"value": "a:1"}]));
    let labels = lines(&server, "label_names?match[]=up&search[]=INST&case_sensitive=false").await;
    assert_eq!(labels[0]["results"], json!([{"name": "instance"}]));
}

#[tokio::test]
async fn bad_searches_are_refused_before_anything_is_read() {
    let server = server();
    let terms = "search[]=a&".repeat(33);
    for (query, text) in [
        ("fuzz_threshold=101", "invalid fuzz_threshold \"101\": must be 0-100"),
        ("fuzz_alg=soundex", "unsupported fuzz_alg \"soundex\""),
        ("sort_dir=asc", "sort_dir is only valid when sort_by is set"),
        ("sort_by=size", "invalid sort_by \"size\""),
        ("sort_by=score", "sort_by=score requires search[] to be set"),
        ("limit=0", "invalid limit \"0\": must be a positive integer"),
        ("limit=10001", "exceeds the maximum (10000)"),
        ("batch_size=-1", "invalid batch_size \"-1\""),
        ("case_sensitive=maybe", "must be boolean"),
        ("start=10&end=5", "end timestamp must not be before start timestamp"),
        (terms.as_str(), "too many search[] terms: got 33, maximum is 32"),
    ] {
        server.refused(&format!("/api/v1/search/metric_names?{query}"), 400, "bad_data", text).await;
    }
    server
        .refused("/api/v1/search/label_values", 400, "bad_data", "missing required parameter \"label\"")
        .await;
    let wide = lines(&server, "metric_names?batch_size=99999999999").await;
    assert_eq!(wide.len(), 2, "a larger batch is cut");
}

#[tokio::test]
async fn metadata_by_target_and_rules_step_by_step() {
    let server = server();
    let all = server.data("/api/v1/targets/metadata").await;
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(
        all[0],
        json!({"target": {"instance": "a:1", "job": "x"}, "metric": "one", "type": "gauge", "help": "help of one", "unit": ""})
    );
    let one = server.data("/api/v1/targets/metadata?match_target=%7Bjob%3D%22y%22%7D&metric=one").await;
    assert_eq!(
        one,
        json!([{"target": {"instance": "a:1", "job": "y"}, "type": "gauge", "help": "help of one", "unit": ""}])
    );
    assert_eq!(server.data("/api/v1/targets/metadata?limit=2").await.as_array().unwrap().len(), 2);
    assert_eq!(server.data("/api/v1/targets/metadata?limit=0").await, json!([]));

    let steps = |value: &str| {
        format!("/api/v1/targets/relabel_steps?scrapePool=x&labels=%7B%22a%22:%22{value}%22%7D")
    };
    let kept = server.data(&steps("good")).await;
    assert_eq!(kept["steps"][0]["output"], json!({"a": "good", "b": "good"}));
    assert_eq!(kept["steps"][0]["rule"]["target_label"], "b");
    assert_eq!(kept["steps"][1]["keep"], true);
    let dropped = server.data(&steps("bad")).await;
    assert_eq!((&dropped["steps"][1]["keep"], &dropped["steps"][1]["output"]), (&json!(false), &json!({})));
    server
        .refused(
            "/api/v1/targets/relabel_steps?scrapePool=x&labels=%7B",
            400,
            "bad_data",
            "error parsing labels",
        )
        .await;
    assert_eq!(
        server.data("/api/v1/scrape_pools/config?scrapePool=x").await,
        json!({"yaml": "job_name: x\n"})
    );
}

#[tokio::test]
async fn with_tenancy_targets_belong_to_the_default_tenant_alone() {
    let settings = Settings { tenancy: true, ..Settings::default() };
    let server = server_with(settings, Default::default());
    let ask = async |path: &str, tenant: &str| {
        let request = http::Request::get(path).header("x-scope-orgid", tenant);
        server.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let count =
        |answer: crate::support::Answer| answer.json()["data"]["activeTargets"].as_array().unwrap().len();
    assert_eq!(count(ask("/api/v1/targets", "anonymous").await), 2);
    assert_eq!(count(ask("/api/v1/targets", "other").await), 0);
    assert_eq!(ask("/api/v1/scrape_pools", "other").await.json()["data"]["scrapePools"], json!([]));
    assert_eq!(ask("/api/v1/targets/metadata", "other").await.json()["data"], json!([]));
    let hidden = ask("/api/v1/scrape_pools/config?scrapePool=x", "other").await;
    assert_refused(&hidden, 400, "bad_data", "scrape pool \"x\" not found", "another tenant");
    assert_eq!(ask("/api/v1/status/tsdb", "other").await.json()["data"]["headStats"]["numSeries"], 0);
    for (bad, text) in [
        ("..", "not be . or .."),
        (".", "not be . or .."),
        ("", "must have 1 to 150 bytes"),
        ("a/b", "may hold only letters"),
        ("a|b", "may hold only letters"),
        (&"x".repeat(151), "must have 1 to 150 bytes"),
    ] {
        let answer = ask("/api/v1/query?query=1", bad).await;
        assert_refused(&answer, 400, "bad_data", text, bad);
    }
    let two = http::Request::get("/api/v1/labels").header("x-scope-orgid", "a").header("thanos-tenant", "b");
    let two = server.send(two.body(axum::body::Body::empty()).unwrap()).await;
    assert_refused(&two, 400, "bad_data", "the headers name several tenants", "two names");
    assert_eq!(ask("/api/v1/query?query=1", &"x".repeat(150)).await.status, 200);
}

#[tokio::test]
async fn notifications_as_a_list_and_as_a_stream() {
    let server = server();
    server.notifications.set("something holds", true, 1_000);
    let one = json!({"text": "something holds", "date": "1970-01-01T00:00:01Z", "active": true});
    assert_eq!(server.data("/api/v1/notifications").await, json!([one]));
    let request = http::Request::get("/api/v1/notifications/live").body(axum::body::Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut seen = String::new();
    let mut read_until = async |end: &str| {
        while !seen.contains(end) {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    read_until("\"active\":true}\n\n").await;
    server.notifications.set("something holds", false, 2_000);
    read_until("\"active\":false}\n\n").await;
    server.notifications.close();
    assert!(body.frame().await.is_none(), "it ends when the node stops");
}
