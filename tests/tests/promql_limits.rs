//! Every limit of a query, on a node where they are low: the right code and kind of error, and a text that names the limit,
//! its value and who sets it (`docs/promql.md`). After each refusal the node has nothing under way and answers. Limits that a
//! script can show stand in `tests/scripts/limits.test`.

use anyhow::{Context as _, Result, ensure};
use benches::http::{Client, encoded};
use serde_json::Value;
use tests::node::Node;
use tests::remote_write::{Series, Version, body_v2, send};

const FLAGS: &[&str] = &[
    "--storage.tsdb.retention.time=0s",
    "--query.max-length=1KB",
    "--query.max-depth=10",
    "--query.max-operators=20",
    "--query.max-memory=256KB",
    "--query.timeout=1m",
];

fn ask(client: &mut Client, path: &str, form: &str) -> Result<(u16, Value)> {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, body) = client.request("POST", path, &headers, form.as_bytes())?;
    let answer = serde_json::from_slice(&body).context("JSON")?;
    Ok((status, answer))
}

/// Asks, and checks the refusal.
fn refused(
    client: &mut Client,
    path: &str,
    form: &str,
    status: u16,
    kind: &str,
    texts: &[&str],
) -> Result<()> {
    let shown: String = form.chars().take(120).collect();
    let (code, answer) = ask(client, path, form)?;
    let text = answer["error"].as_str().with_context(|| format!("{path} {shown}: no error"))?;
    ensure!(code == status && answer["errorType"] == kind, "{shown}: {code} {answer}");
    ensure!(texts.iter().all(|part| text.contains(part)), "{shown}: {text}");
    ensure!(text.len() < 1_000, "{shown}: the text is not shown in full: {text}");
    let (code, active) = ask_get(client, "/api/v1/status/active_queries")?;
    ensure!(code == 200 && active["data"].as_array().is_some_and(Vec::is_empty), "{shown}: {active}");
    let (code, answer) = ask(client, "/api/v1/query", "query=count(m)&time=600")?;
    ensure!(code == 200 && answer["data"]["result"][0]["value"][1] == "400", "{shown}: then {answer}");
    Ok(())
}

fn ask_get(client: &mut Client, path: &str) -> Result<(u16, Value)> {
    let (status, body) = client.request("GET", path, &[], &[])?;
    Ok((status, serde_json::from_slice(&body).context("JSON")?))
}

#[test]
fn each_limit_is_named_with_its_value_and_its_flag() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), FLAGS)?;
    let client = &mut node.client();
    let series: Vec<Series> = (0..400)
        .map(|at| {
            let name = format!("i{at}");
            (1..=40)
                .fold(Series::of(&[("__name__", "m"), ("instance", &name)]), |s, k| s.float(k * 15_000, 1.0))
        })
        .collect();
    let sent = send(client, Version::V2, None, &body_v2(&series))?;
    ensure!(sent.status == 204, "{}: {}", sent.status, sent.text);

    let query = |text: &str| format!("query={}&time=600", encoded(text));
    let instant = "/api/v1/query";
    for (text, parts) in [
        ("x".repeat(1025), ["1025 bytes", "the limit is 1024", "--query.max-length"]),
        (
            format!("{}1{}", "(".repeat(11), ")".repeat(11)),
            ["nests deeper", "limit of 10", "--query.max-depth"],
        ),
        (format!("1{}", "+1".repeat(21)), ["more operators", "limit of 20", "--query.max-operators"]),
    ] {
        refused(client, instant, &query(&text), 400, "bad_data", &parts)?;
        // The other entrances of a text have the same limits.
        let form = format!("query={}", encoded(&text));
        for path in ["/api/v1/parse_query", "/api/v1/format_query"] {
            refused(client, path, &form, 400, "bad_data", &parts)?;
        }
        let form = format!("{form}&start=0&end=600&step=60");
        refused(client, "/api/v1/query_range", &form, 400, "bad_data", &parts)?;
    }
    let selector = format!("match[]={}", encoded(&format!("{{a=\"{}\"}}", "x".repeat(1025))));
    refused(
        client,
        "/api/v1/series",
        &selector,
        400,
        "bad_data",
        &["the limit is 1024 (--query.max-length)"],
    )?;

    let range =
        |text: &str, end: i64, step: &str| format!("query={}&start=0&end={end}&step={step}", encoded(text));
    let points = ["exceeded maximum resolution of 11,000 points per timeseries"];
    refused(client, "/api/v1/query_range", &range("m", 11_001, "1"), 400, "bad_data", &points)?;
    let year = 365 * 86_400 * 10;
    refused(client, "/api/v1/query_range", &range("m", year, "0.001"), 400, "bad_data", &points)?;

    let memory = ["too much data into memory", "limit 262144 bytes (--query.max-memory)"];
    refused(client, "/api/v1/query_range", &range("m", 600, "1"), 422, "execution", &memory)?;
    refused(
        client,
        "/api/v1/query_range",
        &range("count_values(\"v\", m * time())", 600, "1"),
        422,
        "execution",
        &memory,
    )?;
    refused(client, instant, &query("m[1h]"), 422, "execution", &memory)?;
    // A subquery of a subquery, whose steps alone do not fit.
    let text = "max_over_time(sum_over_time(vector(1)[1h:1ms])[1h:1ms])";
    refused(client, instant, &query(text), 422, "execution", &memory)?;
    let text = "sum_over_time(vector(1)[290y:1ms])";
    refused(client, instant, &query(text), 422, "execution", &["steps, the limit is 20000000"])?;

    let late = |limit: &str| format!("{}&timeout={limit}", query("sum(m)"));
    let parts = ["query timed out", "limit 0s (the request's timeout)"];
    refused(client, instant, &late("0"), 503, "timeout", &parts)?;
    Ok(())
}

#[test]
fn the_timeout_of_the_flag_is_named_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &["--query.timeout=50ms"])?;
    // A thousand million steps, one after the other.
    let text = "count_over_time(sum_over_time(vector(1)[1000000s:1s])[1000s:1s])";
    let (code, answer) = ask(&mut node.client(), "/api/v1/query", &format!("query={}", encoded(text)))?;
    let error = answer["error"].as_str().context("an error")?;
    ensure!(code == 503 && answer["errorType"] == "timeout", "{code} {answer}");
    ensure!(error == "query timed out in expression evaluation: limit 50ms (--query.timeout)", "{error}");
    Ok(())
}
