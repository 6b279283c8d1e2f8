//! The web configuration: users, headers, rate; secrets never shown.

use std::sync::Arc;
use std::time::Duration;

use api::web::{Web, WebSettings};
use axum::body::Body;
use http::Request;

use crate::support::{Answer, Server, server};

fn put(server: &Server, settings: WebSettings) {
    server.web.store(Arc::new(Web::new(settings).unwrap()));
}

/// `alice` with the password `secret`, at the lowest cost.
fn alice() -> WebSettings {
    let hash = bcrypt::hash("secret", 4).unwrap();
    WebSettings { users: [("alice".to_owned(), hash)].into(), ..WebSettings::default() }
}

async fn ask(server: &Server, path: &str, authorization: &str) -> Answer {
    let request = Request::get(path).header("authorization", authorization);
    server.send(request.body(Body::empty()).unwrap()).await
}

/// `alice:secret`, and `alice:wrong`.
const GOOD: &str = "Basic YWxpY2U6c2VjcmV0";
const BAD: &str = "Basic YWxpY2U6d3Jvbmc=";

#[tokio::test]
async fn with_users_every_path_wants_a_password_and_a_reload_changes_that() {
    let server = server();
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
    put(&server, alice());
    for path in
        ["/", "/-/healthy", "/metrics", "/api/v1/query?query=1", "/federate", "/nothing", "/ui/app.js"]
    {
        for answer in [server.get(path).await, ask(&server, path, BAD).await] {
            assert_eq!((answer.status.as_u16(), answer.text()), (401, "Unauthorized\n"), "{path}");
            assert_eq!(answer.header("www-authenticate"), "Basic");
        }
        assert_ne!(ask(&server, path, GOOD).await.status, 401, "{path}");
    }
    assert_eq!(server.call("POST", "/api/v1/write").await.status, 401);
    assert_eq!(server.call("OPTIONS", "/api/v1/query").await.status, 401);
    put(&server, WebSettings::default());
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
}

#[tokio::test]
async fn headers_are_put_on_every_answer() {
    let server = server();
    let headers = [("X-Frame-Options", "deny"), ("Strict-Transport-Security", "max-age=1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    put(&server, WebSettings { headers, ..alice() });
    for answer in
        [server.get("/metrics").await, ask(&server, "/metrics", GOOD).await, ask(&server, "/no", GOOD).await]
    {
        assert_eq!(answer.header("x-frame-options"), "deny");
        assert_eq!(answer.header("strict-transport-security"), "max-age=1");
    }
}

#[tokio::test]
async fn requests_over_the_rate_get_429() {
    let server = server();
    let rate_limit = Some((Duration::from_secs(3_600), 2));
    put(&server, WebSettings { rate_limit, ..WebSettings::default() });
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(server.get("/-/healthy").await.status.as_u16());
    }
    assert_eq!(codes, [200, 200, 429]);
}

#[test]
fn settings_and_errors_show_no_secret() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    assert!(!format!("{:?}", Web::new(alice()).unwrap()).contains("$2"));
    let short = hash[..50].to_owned();
    let bad = WebSettings { users: [("alice".to_owned(), short.clone())].into(), ..WebSettings::default() };
    let error = Web::new(bad).unwrap_err();
    assert!(error.contains("alice") && !error.contains(&short[..20]), "{error}");
}
