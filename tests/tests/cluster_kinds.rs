//! Every kind of sample sent to one node of three is read the same from each: floats, native histograms of both kinds,
//! exemplars, metadata and start timestamps, by remote write 2.0 and OTLP; through every path that reads.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::encoded;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use model::{Histogram, MetricKind};
use serde_json::Value;
use tests::node::Node;
use tests::remote_write::{Series, Version, body_v2, send};
use tests::three;
use tests::wire::read_request;

const PATIENCE: Duration = Duration::from_secs(120);

fn three(folder: &Path) -> Result<Vec<Node>> {
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "otlp: {promote_resource_attributes: [zone]}\n")?;
    let flags = [
        &*format!("--config.file={}", config.display()),
        "--cluster.shards=4",
        "--enable-feature=use-start-timestamps,promql-experimental-functions",
    ];
    Ok(three::start(folder, &flags)?.0)
}

fn exponential(step: u32) -> Histogram {
    let first = f64::from(step);
    Histogram {
        integer: true,
        schema: 2,
        zero_threshold: 0.001,
        zero_count: first,
        count: 4.0 * first + 3.0,
        sum: 2.5 * first,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![first, first + 1.0],
        negative_spans: vec![Span { offset: 1, length: 1 }],
        negative_buckets: vec![first + 2.0],
        ..Histogram::default()
    }
}

fn custom(step: u32) -> Histogram {
    let first = f64::from(step);
    Histogram {
        integer: true,
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3.0 * first + 3.0,
        sum: first,
        positive_spans: vec![Span { offset: 0, length: 3 }],
        positive_buckets: vec![first, first + 1.0, first + 2.0],
        custom_values: Some([0.5, 2.0].into()),
        ..Histogram::default()
    }
}

fn gauge(step: u32) -> Histogram {
    let first = f64::from(step) + 0.25;
    Histogram {
        integer: false,
        reset_hint: ResetHint::Gauge,
        count: first,
        sum: -first,
        positive_spans: vec![Span { offset: 3, length: 1 }],
        positive_buckets: vec![first],
        ..Histogram::default()
    }
}

/// Four steps of 15 s that end at `base`, of each kind for several targets, so that all shards get some.
fn series(base: i64) -> Vec<Series> {
    let mut all = Vec::new();
    for target in 0..6 {
        let instance = format!("host-{target}:9100");
        let of = |name: &str| Series::of(&[("__name__", name), ("job", "kinds"), ("instance", &instance)]);
        let times = || (0..4u32).map(|step| (step, base - 45_000 + i64::from(step) * 15_000));
        let start = base - 3_600_000;
        let mut floats = of("requests_total");
        floats.metadata = Some((MetricKind::Counter, "Requests.".into(), "requests".into()));
        for (step, at) in times() {
            floats.samples.push((at, f64::from(step) * 1.5 + f64::from(target), start));
            floats = floats.exemplar(at, 0.25, &[("trace_id", &format!("t{target}-{step}"))]);
        }
        all.push(floats);
        for (name, make) in [
            ("exponential_seconds", exponential as fn(u32) -> Histogram),
            ("custom_seconds", custom),
            ("gauge_seconds", gauge),
        ] {
            let mut one = of(name);
            one.metadata = Some((MetricKind::Histogram, format!("Of {name}."), "seconds".into()));
            for (step, at) in times() {
                one.histograms.push((at, make(step + target).into(), start));
            }
            all.push(one);
        }
        all.push(of("ended").float(base - 15_000, 1.0).float(base, model::stale_nan()));
    }
    all
}

/// A gauge, a sum with a start, and a histogram with an exemplar, of OTLP in JSON.
fn otlp(base: i64) -> String {
    let at = base * 1_000_000;
    let start = (base - 600_000) * 1_000_000;
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"checkout"}}}},
        {{"key":"service.instance.id","value":{{"stringValue":"i-1"}}}},{{"key":"zone","value":{{"stringValue":"z"}}}}]}},
        "scopeMetrics":[{{"metrics":[
        {{"name":"room.temp","unit":"Cel","description":"Warmth.","gauge":{{"dataPoints":[{{"timeUnixNano":"{at}","asDouble":21.5}}]}}}},
        {{"name":"orders","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{"startTimeUnixNano":"{start}","timeUnixNano":"{at}","asInt":"7"}}]}}}},
        {{"name":"latency","unit":"s","exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{"startTimeUnixNano":"{start}","timeUnixNano":"{at}",
        "count":"6","sum":9.5,"scale":3,"zeroCount":"1","positive":{{"offset":2,"bucketCounts":["2","3"]}},
        "exemplars":[{{"timeUnixNano":"{at}","asDouble":1.5,"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331"}}]}}]}}}}
        ]}}]}}]}}"#
    )
}

/// An answer with its lists in one order: series come in no particular one.
fn sorted(mut answer: Value) -> Value {
    fn order(value: &mut Value) {
        match value {
            Value::Array(list) => {
                list.iter_mut().for_each(order);
                if list.iter().all(Value::is_object) {
                    list.sort_by_key(ToString::to_string);
                }
            }
            Value::Object(map) => map.values_mut().for_each(order),
            _ => {}
        }
    }
    order(&mut answer);
    answer
}

#[test]
fn every_kind_reads_the_same_from_every_node() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let nodes = three(folder.path())?;
    let now = nodes[0].api("/api/v1/query?query=time()")?["result"][0].as_f64().context("a time")?;
    let base = (now * 1e3) as i64 / 15_000 * 15_000;
    let answer = send(&mut nodes[0].client(), Version::V2, None, &body_v2(&series(base)))?;
    ensure!(answer.status == 204 && answer.written == Some([36, 72, 24]), "{answer:?}");
    let json = [("Content-Type", "application/json")];
    let (status, text) =
        nodes[0].client().request("POST", "/api/v1/otlp/v1/metrics", &json, otlp(base).as_bytes())?;
    ensure!((status, &*text) == (200, b"{}"), "{status} {}", String::from_utf8_lossy(&text));

    let (from, at) = ((base - 60_000) / 1_000, base / 1_000);
    let (span, all) = (format!("start={from}&end={at}"), encoded("{__name__=~\".+\"}"));
    let kinds = encoded("{job=\"kinds\"}");
    // Path, and how many items must be in its answer at least, at which pointer.
    let mut asked: Vec<(String, &str, usize)> = vec![
        (format!("/api/v1/query?query={all}&time={at}"), "/result", 6 * 4 + 4),
        (format!("/api/v1/query?query={kinds}%5B50s%5D&time={at}"), "/result", 6 * 5),
        (format!("/api/v1/query_range?query={kinds}&{span}&step=15"), "/result", 6 * 5),
        (format!("/api/v1/query_exemplars?query={all}&{span}"), "", 7),
        ("/api/v1/metadata".to_owned(), "", 6),
        (format!("/api/v1/series?match[]={all}&{span}"), "", 6 * 5 + 4),
        (format!("/api/v1/labels?{span}"), "", 4),
        (format!("/api/v1/label/instance/values?{span}"), "", 7),
        (format!("/api/v1/label/__name__/values?{span}"), "", 9),
    ];
    for (expression, least) in [
        ("start_timestamp(requests_total)", 6),
        ("start_timestamp(orders_total)", 1),
        ("sum(histogram_count(exponential_seconds))", 1),
        ("histogram_quantile(0.9, sum(rate(exponential_seconds[1m])))", 1),
        ("histogram_quantile(0.5, sum by (instance) (custom_seconds))", 6),
        ("histogram_avg(gauge_seconds)", 6),
        ("histogram_fraction(0, 2, latency_seconds)", 1),
        ("sum by (job) (rate(requests_total[1m]))", 1),
        ("resets(exponential_seconds[1m])", 6),
        ("topk(3, requests_total)", 3),
        ("target_info", 1),
    ] {
        asked.push((format!("/api/v1/query?query={}&time={at}", encoded(expression)), "/result", least));
    }
    for (path, pointer, least) in asked {
        let answers = nodes
            .iter()
            .map(|node| Ok(sorted(node.api(&path)?)))
            .collect::<Result<Vec<Value>>>()
            .context(path.clone())?;
        let found = answers[0].pointer(pointer).context("the place of items")?;
        let items = found.as_array().map(Vec::len).or_else(|| found.as_object().map(serde_json::Map::len));
        ensure!(items >= Some(least), "{path}: {items:?} items: {found}");
        for (name, answer) in ["b", "c"].iter().zip(&answers[1..]) {
            ensure!(*answer == answers[0], "{path} of {name}:\n{answer}\nof a:\n{}", answers[0]);
        }
    }
    let exemplars = nodes[2].api(&format!("/api/v1/query_exemplars?query=latency_seconds&{span}"))?;
    ensure!(
        exemplars[0]["exemplars"][0]["labels"]["trace_id"] == "0af7651916cd43dd8448eb211c80319c",
        "{exemplars}"
    );
    ensure!(
        nodes[1].value("start_timestamp(orders_total)", Some(at as f64))?
            == Some((base - 600_000) as f64 / 1e3)
    );
    ensure!(nodes[2].query("ended", Some(at as f64))?.as_array().is_some_and(Vec::is_empty), "stale");

    // Samples by step: of windows of 30 s, four samples of six series.
    let query = encoded("sum(rate(requests_total[30s]))");
    for node in &nodes {
        let answer = node.api(&format!("/api/v1/query_range?query={query}&{span}&step=15&stats=all"))?;
        let samples = &answer["stats"]["samples"];
        let steps = |counts: [u64; 5]| {
            let pairs =
                (from..).step_by(15).zip(counts).map(|(time, count)| serde_json::json!([time, count]));
            Value::Array(pairs.collect())
        };
        ensure!(samples["totalQueryableSamplesPerStep"] == steps([0, 6, 12, 12, 12]), "{samples}");
        ensure!(samples["samplesReadPerStep"] == steps([0, 6, 6, 6, 6]), "{samples}");
        ensure!(samples["totalQueryableSamples"] == 42 && samples["samplesRead"] == 24, "{samples}");
        let answer = node.api(&format!("/api/v1/query?query=requests_total&time={at}&stats=all"))?;
        let samples = &answer["stats"]["samples"];
        ensure!(samples["totalQueryableSamplesPerStep"] == serde_json::json!([[at, 6]]), "{samples}");
    }

    // Federation: lines of each node, whatever their order.
    let federated = nodes
        .iter()
        .map(|node| {
            let (status, text) = node.get(&format!("/federate?match[]={kinds}"))?;
            ensure!(status == 200, "{status} {text}");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            Ok(lines)
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(federated[0].iter().filter(|line| line.starts_with("requests_total{")).count() == 6);
    ensure!(federated[1] == federated[0] && federated[2] == federated[0], "{federated:?}");

    for streamed in [false, true] {
        let body = read_request(base - 60_000, base, "job", "kinds|checkout", streamed);
        let answers = nodes
            .iter()
            .map(|node| node.client().request("POST", "/api/v1/read", &[], &body))
            .collect::<Result<Vec<_>>>()?;
        ensure!(answers[0].0 == 200 && answers[0].1.len() > 1_000, "{} {}", answers[0].0, answers[0].1.len());
        ensure!(answers[1] == answers[0] && answers[2] == answers[0], "remote read, streamed: {streamed}");
    }
    let mut nodes = nodes;
    for node in &mut nodes {
        node.eventually(PATIENCE, "no shard without leader", |n| {
            Ok((n.api("/api/v1/cluster/status")?["shardsWithoutLeader"] == 0).then_some(()))
        })?;
    }
    for node in nodes {
        let (status, log) = node.stop()?;
        ensure!(status.success(), "{}", log.join("\n"));
    }
    Ok(())
}
