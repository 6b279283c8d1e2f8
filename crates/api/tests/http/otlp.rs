//! OTLP over HTTP: what a client gets back, and what reaches the sink.

use std::io::Write as _;

use axum::body::Body;
use http::Request;
use model::seam::fake::RecordingSink;
use model::seam::{RejectReason, WriteReport};
use model::{Failure, Histogram};

use super::support::{Answer, NOW, Server, server, server_with};

const PATH: &str = "/api/v1/otlp/v1/metrics";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::from(body)).unwrap()).await
}

fn gauge(value: f64) -> Vec<u8> {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
            "scopeMetrics":[{{"metrics":[{{"name":"room.temp","gauge":{{"dataPoints":[
                {{"timeUnixNano":"{NOW}000000","asDouble":{value}}}]}}}}]}}]}}]}}"#
    )
    .into_bytes()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn stored(server: &Server) -> Vec<String> {
    let batches = std::mem::take(&mut *server.sink.batches.lock());
    let floats = batches.iter().flat_map(RecordingSink::floats);
    floats.map(|(labels, at, value)| format!("{labels:?} {value} {at}")).collect()
}

/// After whatever came before, a good request is stored.
async fn still_takes(server: &Server) {
    server.sink.batches.lock().clear();
    let answer = send(server, PATH, JSON, gauge(1.0)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "{}"));
    assert_eq!(stored(server), [format!("{{\"__name__\": \"room_temp\", \"job\": \"shop\"}} 1 {NOW}")]);
}

#[tokio::test]
async fn both_codings_and_both_paths() {
    let server = server();
    still_takes(&server).await;
    let packed = [JSON, &[("content-encoding", "gzip")]].concat();
    let answer = send(&server, "/otlp/v1/metrics", &packed, gzip(&gauge(2.0))).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert!(stored(&server)[0].contains(" 2 "));
    // resource_metrics { scope_metrics { metrics { name: "a" gauge { data_points { as_double: 0 } } } } }
    let binary = b"\x0a\x0c\x12\x0a\x12\x08\x0a\x01a\x2a\x03\x0a\x01\x40".to_vec();
    let answer = send(&server, PATH, &[("content-type", "application/x-protobuf")], binary).await;
    assert_eq!(answer.status, 400, "a flag without a value: {}", answer.text());
    let binary = b"\x0a\x0d\x12\x0b\x12\x09\x0a\x01a\x2a\x04\x0a\x02\x40\x00".to_vec();
    let answer = send(&server, PATH, &[("content-type", "application/x-protobuf")], binary).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), "application/x-protobuf");
    assert_eq!(stored(&server), ["{\"__name__\": \"a\"} 0 0"]);
    let empty = send(&server, PATH, JSON, b"{}".to_vec()).await;
    assert_eq!((empty.status.as_u16(), empty.text()), (200, "{}"));
    assert!(server.sink.batches.lock().is_empty(), "nothing to write is not written");
    assert!(server.get("/metrics").await.text().contains("isobar_otlp_samples_total 3\n"));
}

#[tokio::test]
async fn refusals_say_why() {
    let server = server();
    let check = async |headers: &[(&str, &str)], body: Vec<u8>, code: u16, text: &str| {
        let answer = send(&server, PATH, headers, body).await;
        assert_eq!(answer.status, code, "{headers:?}: {}", String::from_utf8_lossy(&answer.body));
        let shown = String::from_utf8_lossy(&answer.body);
        assert!(shown.contains(text), "{headers:?}: {shown}");
    };
    check(&[], gauge(1.0), 415, "Only application/x-protobuf and application/json").await;
    check(&[("content-type", "text/plain")], gauge(1.0), 415, "unsupported content type").await;
    check(
        &[JSON, &[("content-encoding", "zstd")]].concat(),
        gauge(1.0),
        415,
        "unsupported compression: zstd",
    )
    .await;
    check(&[JSON, &[("content-encoding", "gzip")]].concat(), gauge(1.0), 400, "gzip: ").await;
    check(
        &[JSON, &[("content-encoding", "gzip"), ("content-encoding", "gzip")]].concat(),
        gauge(1.0),
        415,
        "more than one",
    )
    .await;
    check(JSON, b"{\"resourceMetrics\":5}".to_vec(), 400, "\"code\":3").await;
    check(&[("content-type", "application/x-protobuf")], vec![0xff; 20], 400, "protobuf: ").await;
    check(JSON, vec![b' '; 33 << 20], 413, "33554432").await;
    let bomb = gzip(&vec![b' '; 40 << 20]);
    assert!(bomb.len() < 100_000);
    check(&[JSON, &[("content-encoding", "gzip")]].concat(), bomb.clone(), 413, "limit of 33554432").await;
    // A bomb that lies about its size is found out before it has grown.
    let mut liar = bomb;
    let end = liar.len();
    liar[end - 4..].copy_from_slice(&1000u32.to_le_bytes());
    check(&[JSON, &[("content-encoding", "gzip")]].concat(), liar, 400, "more than its trailer says").await;
    assert!(server.sink.batches.lock().is_empty());
    still_takes(&server).await;
    let text = server.get("/metrics").await.text().to_owned();
    assert!(text.contains("isobar_otlp_failures_total{reason=\"media_type\"} 4\n"), "{text}");
}

#[tokio::test]
async fn what_was_not_stored_is_counted() {
    let server = server();
    let delta = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"d","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":1},{"asInt":2}]}},
        {"name":"g","gauge":{"dataPoints":[{"asInt":1}]}}]}]}]}"#;
    let answer = send(&server, PATH, JSON, delta.to_vec()).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["partialSuccess"]["rejectedDataPoints"], "2");
    let message = json["partialSuccess"]["errorMessage"].as_str().unwrap();
    assert_eq!(
        message,
        "2 of 3 data points were not stored; metric \"d\": delta temporality is not supported, send cumulative points"
    );
    assert_eq!(stored(&server).len(), 1);

    let mut report = WriteReport::default();
    report.rejected.insert(RejectReason::OutOfOrder, 1);
    report.first_reasons.push("g at 0: too late".into());
    *server.sink.answer.lock() = Some(Ok(report));
    let answer = send(&server, PATH, JSON, gauge(1.0)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["partialSuccess"]["rejectedDataPoints"], "1");
    assert!(answer.text().contains("1 samples were not stored (1 out_of_order); g at 0: too late"));

    let busy = Failure::unavailable("shard 3 has no leader", std::time::Duration::from_millis(1500));
    *server.sink.answer.lock() = Some(Err(busy));
    let answer = send(&server, PATH, JSON, gauge(1.0)).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "2"));
    assert_eq!(answer.text(), r#"{"code":14,"message":"shard 3 has no leader"}"#);
    *server.sink.answer.lock() = None;
    still_takes(&server).await;
}

#[tokio::test]
async fn histograms_and_tenants_reach_the_sink() {
    let server = server_with(api::Settings { tenancy: true, ..api::Settings::default() }, Default::default());
    let body = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"e","exponentialHistogram":{
        "aggregationTemporality":2,"dataPoints":[{"startTimeUnixNano":"1000000","timeUnixNano":"2000000","count":"3",
        "scale":2,"positive":{"offset":1,"bucketCounts":["3"]}}]}}]}]}]}"#;
    let headers = [JSON, &[("x-scope-orgid", "team-a")]].concat();
    assert_eq!(send(&server, PATH, &headers, body.to_vec()).await.status, 200);
    let batch = server.sink.batches.lock().pop().unwrap();
    assert_eq!(batch.tenant.as_str(), "team-a");
    let (at, histogram) = &batch.histograms[0];
    let want = Histogram {
        integer: true,
        schema: 2,
        zero_threshold: 1e-128,
        count: 3.0,
        positive_spans: vec![model::histogram::Span { offset: 2, length: 1 }],
        positive_buckets: vec![3.0],
        ..Histogram::default()
    };
    assert!(*at == 2 && histogram.same_bits(&want), "{histogram:?}");
    let bad = [JSON, &[("x-scope-orgid", "../x")]].concat();
    assert_eq!(send(&server, PATH, &bad, gauge(1.0)).await.status, 400);
}
