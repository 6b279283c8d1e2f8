//! Paths that clients call and that are not there yet: never 404, never a false success.

use api::Settings;
use model::{TenantId, TimeRange};

use crate::support::{assert_refused, server, server_with};

#[tokio::test]
async fn reads_answer_empty_and_well_formed() {
    let server = server();
    for (path, data) in [
        ("rules", r#"{"groups":[]}"#),
        ("alerts", r#"{"alerts":[]}"#),
        ("alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("notifications", "[]"),
        ("status/tsdb/blocks", r#"{"blocks":[]}"#),
        ("status/self_metrics", "[]"),
        ("status/walreplay", r#"{"min":0,"max":0,"current":0}"#),
        ("query_exemplars?query=up", "[]"),
    ] {
        let found = server.data(&format!("/api/v1/{path}")).await;
        assert_eq!(found, serde_json::from_str::<serde_json::Value>(data).unwrap(), "{path}");
    }
    let features = server.data("/api/v1/features").await;
    for (category, name, on) in [
        ("api", "remote_write_receiver", true),
        ("promql", "duration_expr", true),
        ("promql", "smoothed", true),
        ("promql", "fill_left", false),
        ("promql_functions", "rate", true),
        ("promql_functions", "info", false),
        ("promql_operators", ">/", true),
        ("promql_operators", "limitk", false),
    ] {
        assert_eq!(features[category][name], on, "{category} {name}");
    }
    for path in [
        "/api/v1/cardinality/label_names",
        "/api/v1/cardinality/label_values",
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
    let nothing = server.get("/nothing").await;
    assert_eq!((nothing.status.as_u16(), nothing.text()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn changes_answer_501() {
    let server = server();
    for (method, path) in [
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
    assert_eq!(server.get("/debug/pprof/trace?seconds=1").await.status, 501);
    let profile = server.get("/debug/pprof/profile?seconds=30").await;
    assert_eq!(profile.status, 200);
    assert!(profile.text().contains("takes no profiles yet"), "{}", profile.text());
}

#[tokio::test]
async fn the_admin_api_is_off_or_deletes_cleans_and_copies() {
    let off = server();
    let on = server_with(Settings { admin: true, ..Settings::default() }, Default::default());
    for path in ["delete_series?match[]=up", "clean_tombstones", "snapshot"] {
        for method in ["POST", "PUT"] {
            let path = format!("/api/v1/admin/tsdb/{path}");
            assert_refused(&off.call(method, &path).await, 500, "unavailable", "admin APIs disabled", &path);
        }
        let path = format!("/api/v1/admin/tsdb/{path}");
        assert_refused(&on.get(&path).await, 405, "bad_data", "this path takes only POST, PUT", &path);
    }
    assert_eq!(on.call("POST", "/api/v1/admin/tsdb/clean_tombstones").await.status, 204);
    let snapshot = "/api/v1/admin/tsdb/snapshot";
    let name = r#"{"status":"success","data":{"name":"20260102T030405Z-000000000000002a"}}"#;
    assert_eq!(on.call("PUT", &format!("{snapshot}?skip_head=true")).await.text(), name);
    let wrong = "invalid parameter \"skip_head\": unable to parse boolean";
    assert_refused(&on.form(snapshot, "skip_head=si").await, 400, "bad_data", wrong, snapshot);
    let delete = "/api/v1/admin/tsdb/delete_series";
    for (query, text) in [
        ("", "no match[] parameter provided"),
        ("?match[]=%7B%7D", "must contain at least one non-empty matcher"),
        ("?match[]=up&start=10&end=5", "end timestamp must not be before start timestamp"),
        ("?match[]=up%7B", "invalid parameter \"match[]\""),
    ] {
        assert_refused(&on.call("POST", &format!("{delete}{query}")).await, 400, "bad_data", text, query);
    }
    assert!(on.deleted.lock().is_empty());
    let done = on.form(delete, "match[]=up&match[]=down&start=1&end=2").await;
    assert_eq!((done.status.as_u16(), done.text()), (204, ""));
    let deleted = on.deleted.lock().clone();
    assert_eq!(deleted, [(TenantId::anonymous(), 2, TimeRange::closed(1_000, 2_000))]);
}
