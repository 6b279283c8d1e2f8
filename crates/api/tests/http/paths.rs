//! Paths that clients call and that are not there yet: never 404, never a false success.

use api::Settings;
use axum::body::Body;
use http::Request;

use crate::support::{assert_refused, server, server_with};

#[tokio::test]
async fn reads_answer_empty_and_well_formed() {
    let server = server();
    for (path, data) in [
        ("rules", r#"{"groups":[]}"#),
        ("alerts", r#"{"alerts":[]}"#),
        ("alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("notifications", "[]"),
        ("targets/metadata", "[]"),
        ("targets/relabel_steps?scrapePool=x&labels=%7B%7D", r#"{"steps":[]}"#),
        ("scrape_pools/config?scrapePool=x", r#"{"yaml":""}"#),
        ("status/tsdb/blocks", r#"{"blocks":[]}"#),
        ("status/self_metrics", "[]"),
        ("status/walreplay", r#"{"min":0,"max":0,"current":0}"#),
        ("query_exemplars?query=up", "[]"),
    ] {
        let found = server.data(&format!("/api/v1/{path}")).await;
        assert_eq!(found, serde_json::from_str::<serde_json::Value>(data).unwrap(), "{path}");
    }
    assert!(server.data("/api/v1/features").await["api"]["remote_write_receiver"].as_bool().unwrap());
    for path in [
        "/api/v1/search/metric_names",
        "/api/v1/search/label_names",
        "/api/v1/search/label_values",
        "/api/v1/cardinality/label_names",
        "/api/v1/cardinality/label_values",
        "/api/v1/openapi.yaml",
        "/federate?match[]=up",
        "/api/v2/status",
        "/api/v2/receivers",
        "/api/v2/silences",
        "/api/v2/alerts",
        "/api/v2/alerts/groups",
        "/config/v1/rules",
        "/config/v1/rules/team",
        "/config/v1/rules/team/group",
        "/debug/pprof/",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/api/v1/notifications/live").await.status, 204);
    let nothing = server.get("/nothing").await;
    assert_eq!((nothing.status.as_u16(), nothing.text()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn changes_answer_501() {
    let server = server();
    for (method, path) in [
        ("POST", "/api/v1/otlp/v1/metrics"),
        ("POST", "/otlp/v1/metrics"),
        ("POST", "/api/v2/alerts"),
        ("POST", "/api/v2/silences"),
        ("DELETE", "/api/v2/silence/1"),
        ("GET", "/api/v2/silence/1"),
        ("POST", "/config/v1/rules/team"),
        ("DELETE", "/config/v1/rules/team/group"),
    ] {
        let answer = server.call(method, path).await;
        assert_refused(&answer, 501, "not_implemented", "is not there yet", path);
    }
    assert_eq!(server.get("/debug/pprof/heap").await.status, 501);
}

#[tokio::test]
async fn the_admin_api_is_off_or_not_there() {
    let off = server();
    let on = server_with(Settings { admin: true, ..Settings::default() }, Default::default());
    for path in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        for method in ["POST", "PUT"] {
            let path = format!("/api/v1/admin/tsdb/{path}");
            assert_refused(&off.call(method, &path).await, 500, "unavailable", "admin APIs disabled", &path);
            assert_refused(&on.call(method, &path).await, 501, "not_implemented", "is not there yet", &path);
        }
    }
}

#[tokio::test]
async fn remote_read_answers_each_query_with_nothing() {
    let server = server();
    let ask = async |body: Vec<u8>| {
        server.send(Request::post("/api/v1/read").body(Body::from(body)).unwrap()).await
    };
    let two = formats::snappy::compress(&[0x0a, 2, 8, 1, 0x0a, 0]).unwrap();
    let answer = ask(two).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, "snappy"));
    assert_eq!(formats::snappy::decompress(&answer.body, 100).unwrap(), [0x0a, 0, 0x0a, 0]);
    assert_eq!(ask(b"garbage".to_vec()).await.status, 400);
    assert_eq!(ask(formats::snappy::compress(&[0x0b]).unwrap()).await.status, 400);
}
