//! With `--tenancy.enabled` no path reads or writes another tenant's data: every path of the table is asked by one
//! tenant, and nothing of another's may be in any answer.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use api::{Endpoint, Media, Place, endpoints};
use benches::http::encoded;
use model::seam::{Clock as _, SystemClock};
use tests::node::Node;
use tests::wire::{WriteRequest, read_request};

/// What stands in every name and value of the tenant `red`, and in nothing else.
const CANARY: &str = "canary_red";

fn ask(node: &Node, tenant: Option<&str>, method: &str, path: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut headers = Vec::new();
    headers.extend(tenant.map(|tenant| ("X-Scope-OrgID", tenant)));
    let (status, body) = node.client().request(method, path, &headers, body)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The canary data of a tenant: a metric, a label, a value, an exemplar, a help text, all with `mark` in them.
fn canaries(mark: &str, now: i64, value: f64) -> Vec<u8> {
    let metric = format!("{mark}_metric");
    let pairs = [
        ("__name__", metric.as_str()),
        ("job", &format!("{mark}_job")),
        (&format!("{mark}_label"), &format!("{mark}_value")),
        ("shared", "label"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let trace = format!("{mark}_trace");
    let samples = [(now - 20_000, value), (now - 10_000, value)];
    WriteRequest::default()
        .series(&pairs, &samples, Some(&[("trace_id", &trace)]))
        .series(&[("__name__", "same"), ("a", "b")], &samples, None)
        .metadata(&metric, &format!("{mark}_help"))
        .body()
}

/// A path with parameters that reach everything.
fn widest(endpoint: &Endpoint, now: i64) -> String {
    let mut path = endpoint.path.replace("{*", "{");
    let mut query = Vec::new();
    for parameter in endpoint.parameters {
        let value = match parameter.name {
            "query" | "match[]" | "match_target" => "{__name__=~\".+\"}".to_owned(),
            "start" => (now / 1_000 - 3_600).to_string(),
            "end" | "time" => (now / 1_000).to_string(),
            "step" => "10s".to_owned(),
            "name" | "label" => "__name__".to_owned(),
            "limit" => "1000".to_owned(),
            "stats" | "timeout" | "scrapePool" | "labels" => parameter.example.to_owned(),
            "path" | "namespace" | "group" | "id" => parameter.example.to_owned(),
            // Anything narrower could hide what must not be there.
            _ => continue,
        };
        if parameter.place == Place::Path {
            path = path.replace(&format!("{{{}}}", parameter.name), &value);
        } else {
            query.push(format!("{}={}", encoded(parameter.name), encoded(&value)));
        }
    }
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

fn start(folder: &Path) -> Result<Node> {
    let config = folder.join("prometheus.yml");
    std::fs::write(
        &config,
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: house_job\n    static_configs: [{targets: [\"127.0.0.1:1\"]}]\n\
         isobar: {tenancy: {default: house}}\n",
    )?;
    let flags = [
        format!("--config.file={}", config.display()),
        "--tenancy.enabled".into(),
        "--web.enable-admin-api".into(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Node::start(&folder.join("data"), &flags)
}

fn query(node: &Node, tenant: Option<&str>, expression: &str) -> Result<String> {
    Ok(ask(node, tenant, "GET", &format!("/api/v1/query?query={}", encoded(expression)), &[])?.1)
}

#[test]
fn no_path_shows_or_changes_another_tenants_data() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut node = start(folder.path())?;
    let now = SystemClock::new().now_ms();
    for (tenant, mark, value) in [("red", CANARY, 1.0), ("blue", "own_blue", 2.0)] {
        let (status, text) = ask(&node, Some(tenant), "POST", "/api/v1/write", &canaries(mark, now, value))?;
        ensure!(status == 204, "{tenant}: {status} {text}");
    }

    // What each tenant sees of itself, so that the look for canaries below is known to find them.
    let mut shown = 0;
    for endpoint in endpoints() {
        if endpoint.media == Media::Events
            || endpoint.path.contains("admin")
            || endpoint.path.starts_with("/-/")
        {
            continue;
        }
        for method in endpoint.methods {
            if *method == "DELETE" || (*method == "POST" && endpoint.code == 204) {
                continue;
            }
            let path = widest(&endpoint, now);
            for tenant in [Some("red"), Some("blue"), None, Some("nobody")] {
                let (status, text) = if endpoint.path == "/api/v1/read" {
                    let body = read_request(now - 60_000, now, "__name__", ".+", false);
                    let streamed = read_request(now - 60_000, now, "__name__", ".+", true);
                    let (status, text) = ask(&node, tenant, "POST", &path, &body)?;
                    (status, text + &ask(&node, tenant, "POST", &path, &streamed)?.1)
                } else {
                    ask(&node, tenant, method, &path, &[])?
                };
                ensure!(status < 500 || status == 501, "{method} {path}: {status} {text}");
                if tenant == Some("red") {
                    shown += usize::from(text.contains(CANARY));
                } else {
                    ensure!(!text.contains(CANARY), "{tenant:?} {method} {path}: {text}");
                }
                // The node's own metrics are no tenant's.
                if tenant == Some("nobody") && endpoint.path != "/metrics" {
                    ensure!(!text.contains("own_blue") && !text.contains("house_job\""), "{path}: {text}");
                }
            }
        }
    }
    // query, query_range, series, labels, values, metadata, search, read, federate, tsdb.
    ensure!(shown >= 15, "only {shown} answers of red's show red's data");

    // Same name and labels, two tenants, two series.
    for (tenant, value) in [("red", "\"1\""), ("blue", "\"2\"")] {
        let text = query(&node, Some(tenant), "same")?;
        ensure!(text.contains(value), "{tenant}: {text}");
    }
    // Scraped series belong to the default tenant, which needs no header.
    node.eventually(std::time::Duration::from_secs(30), "the default tenant's scrape", |n| {
        Ok(query(n, None, "up")?.contains("house_job").then_some(()))
    })?;
    ensure!(query(&node, Some("house"), "up")?.contains("house_job"));
    ensure!(!query(&node, Some("red"), "up")?.contains("house_job"));

    // Deleting everything deletes what is one's own.
    let everything = format!("/api/v1/admin/tsdb/delete_series?match[]={}", encoded("{__name__=~\".+\"}"));
    let (status, text) = ask(&node, Some("blue"), "POST", &everything, &[])?;
    ensure!(status == 204, "{status} {text}");
    ensure!(!query(&node, Some("blue"), "same")?.contains("\"2\""), "blue's own is gone");
    ensure!(query(&node, Some("red"), "same")?.contains("\"1\""), "red's is not");

    // The same again after a restart.
    node.stop()?;
    let node = start(folder.path())?;
    ensure!(query(&node, Some("red"), "same")?.contains("\"1\""));
    ensure!(!query(&node, Some("blue"), "{__name__=~\".+\"}")?.contains(CANARY));
    let (status, text) = ask(&node, Some("../red"), "GET", "/api/v1/query?query=same", &[])?;
    ensure!(status == 400 && text.contains("invalid X-Scope-OrgID"), "{status} {text}");
    Ok(())
}

#[test]
fn without_the_flag_the_header_is_not_looked_at() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &[])?;
    let now = SystemClock::new().now_ms();
    let (status, _) = ask(&node, Some("red"), "POST", "/api/v1/write", &canaries(CANARY, now, 1.0))?;
    assert_eq!(status, 204);
    for tenant in [None, Some("blue"), Some("..")] {
        let text = query(&node, tenant, "same")?;
        assert!(text.contains("\"1\""), "{tenant:?}: {text}");
    }
    node.stop().context("stopping")?;
    Ok(())
}
