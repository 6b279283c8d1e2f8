//! Clients that exist, against a running node: Debian's promtool and Prometheus, Grafana's calls, client_golang's way
//! of asking; the query log, and what is said of queries after a crash.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::{Client, encoded};
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tests::node::Node;
use tests::peer::{Helper, of_prometheus, prometheus};
use tests::tier;
use tests::wire::WriteRequest;

const PATIENCE: Duration = Duration::from_secs(60);

/// A node with ten minutes of two series each 10 s, ending at the time given with it (s).
fn node_with_data(folder: &Path, flags: &[&str]) -> Result<(Node, i64)> {
    let node = Node::start(&folder.join("data"), flags)?;
    let end = SystemClock::new().now_ms() / 10_000 * 10_000;
    let samples = |factor: f64| -> Vec<(i64, f64)> {
        (0..60).map(|n| (end - 600_000 + n * 10_000 + 10_000, factor * n as f64 / 3.0)).collect()
    };
    let request = WriteRequest::default()
        .series(&[("__name__", "seen"), ("job", "client"), ("instance", "a")], &samples(1.0), None)
        .series(&[("__name__", "seen"), ("job", "client"), ("instance", "b")], &samples(-1e9), None)
        .metadata("seen", "What clients see.");
    let (status, body) = node.client().request("POST", "/api/v1/write", &[], &request.body())?;
    ensure!(status == 204, "{status} {}", String::from_utf8_lossy(&body));
    Ok((node, end / 1_000))
}

fn run(program: &str, folder: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).current_dir(folder).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{args:?}: {}: {out}{err}", output.status);
    Ok(out.into_owned())
}

#[test]
fn promtool_of_debian_asks_and_fetches() -> Result<()> {
    let promtool = of_prometheus("promtool");
    if !tier("peers", promtool.as_ref().err().cloned()) {
        return Ok(());
    }
    let Ok(promtool) = promtool else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let (node, end) = node_with_data(folder.path(), &[])?;
    let server = format!("http://{}", node.address);
    let at = format!("--time={end}");
    let instant = run(&promtool, folder.path(), &["query", "instant", &at, &server, "seen{instance=\"a\"}"])?;
    ensure!(instant.starts_with("seen{instance=\"a\", job=\"client\"} => 19.66"), "{instant}");
    let (start, stop) = (format!("--start={}", end - 60), format!("--end={end}"));
    let range = run(
        &promtool,
        folder.path(),
        &["query", "range", &start, &stop, "--step=30s", &server, "sum by (job) (seen)"],
    )?;
    ensure!(range.lines().count() == 4, "{range}");
    let series = run(&promtool, folder.path(), &["query", "series", "--match=seen", &server])?;
    ensure!(series.lines().count() == 2 && series.contains("instance=\"b\""), "{series}");
    let labels = run(&promtool, folder.path(), &["query", "labels", &server, "instance"])?;
    ensure!(labels.split_whitespace().collect::<Vec<_>>() == ["a", "b"], "{labels}");
    let refused =
        run(&promtool, folder.path(), &["query", "instant", &server, "sum("]).unwrap_err().to_string();
    ensure!(refused.contains("parse error"), "{refused}");
    run(&promtool, folder.path(), &["debug", "all", &server])?;
    ensure!(folder.path().join("debug.tar.gz").metadata()?.len() > 1_000);

    // `promtool push metrics` (since 2.46; Debian's is older) sends this: one series a sample with the job it was given,
    // stamped now, and the families' metadata.
    let now = SystemClock::new().now_ms();
    let pushed = WriteRequest::default()
        .series(&[("__name__", "pushed_total"), ("job", "promtool"), ("a", "b")], &[(now, 4.0)], None)
        .metadata("pushed_total", "Pushed.");
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("User-Agent", "promtool/3.16.0"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let (status, _) = node.client().request("POST", "/api/v1/write", &headers, &pushed.body())?;
    ensure!(status == 204, "{status}");
    ensure!(node.value("pushed_total{job=\"promtool\"}", Some(now as f64 / 1e3))? == Some(4.0));

    // Our own metrics and the federation answer are expositions that promtool takes.
    let (_, metrics) = node.get("/metrics")?;
    let (_, federated) = node.get("/federate?match[]=seen")?;
    for (what, text) in [("metrics", metrics), ("federate", federated)] {
        let file = folder.path().join(what);
        std::fs::write(&file, text)?;
        let output =
            Command::new(&promtool).args(["check", "metrics"]).stdin(std::fs::File::open(&file)?).output()?;
        // Lint findings (exit code 3) are not about the format.
        ensure!(output.status.code() != Some(1), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A call as Grafana makes it: method, path, form or query, and the JSON pointer that must be there in the answer.
struct Call(&'static str, &'static str, String, &'static str);

/// What Grafana's Prometheus data source asks: health check, label browser, explore, alert list, query builder hints.
fn grafana(end: i64) -> Vec<Call> {
    let start = end - 3_600;
    let form = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect::<Vec<_>>().join("&")
    };
    let span = [("start", start.to_string()), ("end", end.to_string())];
    let span: Vec<(&str, &str)> = span.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let with = |further: &[(&str, &str)]| form(&[further, &span].concat());
    vec![
        // Data source: save and test.
        Call(
            "POST",
            "/api/v1/query",
            form(&[("query", "1+1"), ("time", &end.to_string())]),
            "/data/result/1",
        ),
        Call("GET", "/api/v1/status/buildinfo", String::new(), "/data/version"),
        // Label browser and completion.
        Call("GET", "/api/v1/label/__name__/values", with(&[]), "/data/0"),
        Call("GET", "/api/v1/labels", with(&[("match[]", "seen")]), "/data/0"),
        Call("POST", "/api/v1/labels", with(&[]), "/data/0"),
        Call(
            "GET",
            "/api/v1/label/instance/values",
            with(&[("match[]", "{job=\"client\"}"), ("limit", "40000")]),
            "/data/1",
        ),
        Call("POST", "/api/v1/series", with(&[("match[]", "seen{job=\"client\"}")]), "/data/1/instance"),
        Call("GET", "/api/v1/metadata", String::new(), "/data/seen/0/help"),
        Call("GET", "/api/v1/metadata", form(&[("limit_per_metric", "1")]), "/data/seen/0/type"),
        // Explore and panels.
        Call(
            "POST",
            "/api/v1/query_range",
            with(&[("query", "rate(seen[5m])"), ("step", "15")]),
            "/data/result/0/values/0",
        ),
        Call(
            "POST",
            "/api/v1/query",
            form(&[("query", "seen"), ("time", &format!("{end}.5"))]),
            "/data/result/0/value/1",
        ),
        Call("POST", "/api/v1/query_exemplars", with(&[("query", "seen")]), "/data"),
        Call(
            "POST",
            "/api/v1/query",
            form(&[("query", "count({__name__=\"seen\"})"), ("time", &end.to_string()), ("limit", "1")]),
            "/data/result",
        ),
        Call(
            "GET",
            "/api/v1/parse_query",
            form(&[("query", "sum(rate(seen[5m])) by (job)")]),
            "/data/grouping/0",
        ),
        Call("GET", "/api/v1/format_query", form(&[("query", "sum(seen)by(job)")]), "/data"),
        // Alert list and rule hints.
        Call("GET", "/api/v1/rules", String::new(), "/data/groups"),
        Call("GET", "/api/v1/rules", form(&[("type", "alert")]), "/data/groups"),
        Call("GET", "/api/v1/alerts", String::new(), "/data/alerts"),
        Call("GET", "/api/v1/alertmanagers", String::new(), "/data/activeAlertmanagers"),
        // Health of the data source and cardinality panels.
        Call("GET", "/api/v1/status/tsdb", form(&[("limit", "10")]), "/data/headStats/numSeries"),
        Call("GET", "/api/v1/status/config", String::new(), "/data/yaml"),
        Call("GET", "/api/v1/status/flags", String::new(), "/data"),
        Call("GET", "/api/v1/status/runtimeinfo", String::new(), "/data/startTime"),
        Call("GET", "/api/v1/targets", form(&[("state", "active")]), "/data/activeTargets"),
    ]
}

#[test]
fn grafanas_calls_and_client_golangs_fallback_are_answered() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, end) = node_with_data(folder.path(), &[])?;
    for Call(method, path, pairs, pointer) in grafana(end) {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let (status, body) = match method {
            "POST" => node.client().request("POST", path, &form, pairs.as_bytes())?,
            _ => node.client().request("GET", &format!("{path}?{pairs}"), &[], &[])?,
        };
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(status == 200, "{method} {path}?{pairs}: {status} {text}");
        let json: Value = serde_json::from_str(&text)?;
        ensure!(json["status"] == "success", "{method} {path}: {text}");
        ensure!(json.pointer(pointer).is_some(), "{method} {path}?{pairs}: {pointer} is missing in {text}");
    }

    // client_golang posts a form, and asks again by GET where it gets 403, 405 or 501.
    for (path, pairs) in [
        ("/api/v1/query", "query=seen"),
        ("/api/v1/query_range", "query=seen&start=1&end=2&step=1"),
        ("/api/v1/query_exemplars", "query=seen"),
        ("/api/v1/labels", ""),
        ("/api/v1/label/job/values", ""),
        ("/api/v1/series", "match[]=seen"),
    ] {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let (mut status, _) = node.client().request("POST", path, &form, pairs.as_bytes())?;
        if [403, 405, 501].contains(&status) {
            status = node.client().request("GET", &format!("{path}?{pairs}"), &[], &[])?.0;
        }
        ensure!(status == 200, "{path}: {status}");
    }
    Ok(())
}

/// A Prometheus of Debian's with `config`, and its address.
fn start_prometheus(program: &str, folder: &Path, config: &str) -> Result<(Helper, String)> {
    let file = folder.join("peer.yml");
    std::fs::write(&file, config)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    drop(listener);
    let child = Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("peer").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Helper(child), address))
}

fn values(address: &str, expression: &str, start: i64, end: i64) -> Result<Value> {
    let path = format!("/api/v1/query_range?query={}&start={start}&end={end}&step=10", encoded(expression));
    let answer: Value = serde_json::from_slice(&Client::new(address).get(&path)?)?;
    Ok(answer["data"]["result"].clone())
}

#[test]
fn a_prometheus_reads_back_through_remote_read_and_federates() -> Result<()> {
    let program = prometheus();
    if !tier("peers", program.as_ref().err().cloned()) {
        return Ok(());
    }
    let Ok(program) = program else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("isobar.yml");
    std::fs::write(&config, "global: {external_labels: {region: test}}\n")?;
    let flag = format!("--config.file={}", config.display());
    let (mut node, end) = node_with_data(folder.path(), &[&flag])?;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nremote_read:\n  - url: http://{0}/api/v1/read\n    read_recent: true\nscrape_configs:\n  \
         - job_name: federate\n    honor_labels: true\n    metrics_path: /federate\n    params: {{'match[]': ['seen']}}\n    \
         static_configs: [{{targets: ['{0}']}}]\n",
        node.address
    );
    let (_peer, address) = start_prometheus(&program, folder.path(), &config)?;

    // Series of before the Prometheus existed can only come through remote read.
    let (start, stop) = (end - 590, end - 120);
    let ours = values(&node.address, "seen", start, stop)?;
    let theirs = node.eventually(PATIENCE, "remote read", |_| {
        let found = values(&address, "seen", start, stop)?;
        Ok((found.as_array().map(Vec::len) == Some(2)).then_some(found))
    })?;
    for series in ours.as_array().context("a matrix")? {
        let same = |other: &&Value| other["metric"]["instance"] == series["metric"]["instance"];
        let other = theirs.as_array().context("a matrix")?.iter().find(same).context("the same series")?;
        ensure!(other["values"] == series["values"], "{other}\n{series}");
    }
    let missing = values(&address, "nothing_of_that_name", start, stop)?;
    ensure!(missing == serde_json::json!([]), "{missing}");

    // What it scraped itself from the federation path has the external label.
    node.eventually(PATIENCE, "federation", |_| {
        let path = format!("/api/v1/query?query={}", encoded("up{job=\"federate\"} == 1"));
        let answer: Value = serde_json::from_slice(&Client::new(&address).get(&path)?)?;
        Ok((answer["data"]["result"].as_array().map(Vec::len) == Some(1)).then_some(()))
    })?;
    let targets: Value = serde_json::from_slice(&Client::new(&address).get("/api/v1/targets")?)?;
    ensure!(targets["data"]["activeTargets"][0]["lastError"] == "", "{targets}");
    let (_, text) = node.get("/federate?match[]=seen")?;
    ensure!(text.contains("instance=\"a\",job=\"client\",region=\"test\"} 19.66"), "{text}");
    Ok(())
}

#[test]
fn queries_are_logged_listed_and_told_of_after_a_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, "global: {query_log_file: queries.log}\n")?;
    let flag = format!("--config.file={}", config.display());
    let (mut node, end) = node_with_data(folder.path(), &[&flag])?;
    node.query("sum(seen)", Some(end as f64))?;
    let file = folder.path().join("queries.log");
    let line = node.eventually(PATIENCE, "a line in the query log", |_| {
        let text = std::fs::read_to_string(&file)?;
        Ok(text.lines().next().map(str::to_owned))
    })?;
    let logged: Value = serde_json::from_str(&line)?;
    ensure!(logged["params"]["query"] == "sum(seen)", "{line}");
    ensure!(
        logged["httpRequest"]["clientIP"] == "127.0.0.1" && logged["httpRequest"]["path"] == "/api/v1/query"
    );
    ensure!(logged["stats"]["samples"]["totalQueryableSamples"].as_u64() > Some(0), "{line}");

    // A query that takes long: listed, cancelled by its number, and named after a crash.
    let slow = "quantile_over_time(0.5, (vector(1))[100m:100ms])";
    let path = format!("/api/v1/query_range?query={}&start={}&end={end}&step=1", encoded(slow), end - 10_000);
    let ask_slowly = |node: &Node| {
        let (address, path) = (node.address.clone(), path.clone());
        std::thread::spawn(move || Client::new(&address).request("GET", &path, &[], &[]))
    };
    let listed = |n: &Node| -> Result<Option<u64>> {
        let all = n.api("/api/v1/status/active_queries")?;
        let found = all.as_array().context("a list")?.iter().find(|q| q["query"] == slow).cloned();
        Ok(found.and_then(|q| q["id"].as_u64()))
    };
    let asked = ask_slowly(&node);
    let id = node.eventually(PATIENCE, "the slow query is listed", listed)?;
    let (status, _) =
        node.client().request("DELETE", &format!("/api/v1/status/active_queries/{id}"), &[], &[])?;
    ensure!(status == 204);
    let Ok(answer) = asked.join() else { bail!("the asking thread panicked") };
    let (status, body) = answer?;
    ensure!(status == 499, "{status} {}", String::from_utf8_lossy(&body));
    ensure!(node.client().request("DELETE", "/api/v1/status/active_queries/999999", &[], &[])?.0 == 404);

    let asked = ask_slowly(&node);
    node.eventually(PATIENCE, "the slow query is listed again", listed)?;
    node.kill()?;
    let _ = asked.join();
    let data = folder.path().join("data");
    let mut node = Node::spawn(&data, &[&flag])?;
    let line = node.wait_for("these queries did not finish in the last run")?;
    ensure!(line.contains("quantile_over_time"), "{line}");
    node.wait_for("ready to serve")?;
    node.stop()?;
    let mut node = Node::spawn(&data, &[&flag])?;
    node.wait_for("ready to serve")?;
    let (_, log) = node.stop()?;
    ensure!(!log.join("\n").contains("did not finish"), "an orderly end leaves nothing behind");
    Ok(())
}

#[test]
fn secrets_of_the_configuration_are_in_no_answer_and_no_log() -> Result<()> {
    const CANARY: &str = "canary-secret";
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    let jobs = [
        "basic_auth: {username: u, password: canary-secret-1}",
        "authorization: {credentials: canary-secret-2}",
        "bearer_token: canary-secret-3",
        "http_headers: {X-Key: {secrets: [canary-secret-4]}}",
        "proxy_url: http://u:canary-secret-5@127.0.0.1:1",
        "http_sd_configs: [{url: 'http://u:canary-secret-6@127.0.0.1:1/sd', authorization: {credentials: canary-secret-7}}]",
        "oauth2: {client_id: c, client_secret: canary-secret-8, token_url: 'http://127.0.0.1:1/'}",
    ];
    let mut text = "global: {scrape_interval: 1s}\nremote_write:\n  - url: http://u:canary-secret-9@127.0.0.1:1/w\n    basic_auth: {username: u, password: canary-secret-10}\nscrape_configs:\n".to_owned();
    for (n, job) in jobs.iter().enumerate() {
        text.push_str(&format!(
            "  - job_name: job{n}\n    {job}\n    static_configs: [{{targets: [\"127.0.0.1:1\"]}}]\n"
        ));
    }
    std::fs::write(&config, text)?;
    let flag = format!("--config.file={}", config.display());
    let mut node =
        Node::start(&folder.path().join("data"), &[&flag, "--log.level=debug", "--web.enable-lifecycle"])?;
    node.eventually(PATIENCE, "every job has been scraped", |n| {
        Ok(n.value("count(up == 0)", None)?.filter(|count| *count == jobs.len() as f64))
    })?;
    let mut looked = 0;
    for endpoint in api::endpoints() {
        if endpoint.media == api::Media::Events || !endpoint.methods.contains(&"GET") {
            continue;
        }
        let mut path = endpoint.path.replace("{*", "{");
        let mut query = Vec::new();
        for parameter in endpoint.parameters {
            let example = if parameter.name == "scrapePool" { "job1" } else { parameter.example };
            if parameter.place == api::Place::Path {
                path = path.replace(&format!("{{{}}}", parameter.name), example);
            } else if parameter.required {
                query.push(format!("{}={}", encoded(parameter.name), encoded(example)));
            }
        }
        let (status, body) = node.get(&format!("{path}?{}", query.join("&")))?;
        ensure!(!body.contains(CANARY), "{path}: {status} {body}");
        looked += usize::from(status == 200);
    }
    ensure!(looked > 40, "{looked}");
    let shown = node.api("/api/v1/status/config")?;
    ensure!(shown["yaml"].as_str().is_some_and(|yaml| yaml.contains("<secret>")), "{shown}");
    // An error in the file shows none either.
    std::fs::write(&config, "scrape_configs:\n- job_name: a\n  basic_auth: {passwort: canary-secret-11}\n")?;
    let (status, body) = node.client().request("POST", "/-/reload", &[], &[])?;
    let body = String::from_utf8_lossy(&body).into_owned();
    ensure!(status == 500 && body.contains("passwort") && !body.contains(CANARY), "{body}");
    let notifications = node.api("/api/v1/notifications")?;
    ensure!(notifications[0]["text"] == "Configuration reload has failed.", "{notifications}");
    let (_, log) = node.stop()?;
    let log = log.join("\n");
    ensure!(log.lines().count() > 20 && !log.contains(CANARY), "{log}");
    Ok(())
}
