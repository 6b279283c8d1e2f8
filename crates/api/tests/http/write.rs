//! The remote-write receiver.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use model::seam::fake::RecordingSink;
use model::seam::{RejectReason, WriteReport};
use model::{Code, Failure};

use crate::support::{Answer, Server, labels, server, server_with};

pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// A `prometheus.WriteRequest` with one series of one sample, timestamp 1000.
fn request_body(pairs: &[(&str, &str)], value: f64) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, text) in pairs {
        let label = [field(1, name.as_bytes()), field(2, text.as_bytes())].concat();
        series.extend(field(1, &label));
    }
    let mut sample = vec![1 << 3 | 1];
    sample.extend(value.to_le_bytes());
    sample.extend([2 << 3, 0xe8, 0x07]);
    series.extend(field(2, &sample));
    field(1, &series)
}

pub(crate) fn packed(body: &[u8]) -> Vec<u8> {
    formats::snappy::compress(body).unwrap()
}

async fn send(server: &Server, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::from(body)).unwrap()).await
}

const PLAIN: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

fn up(value: f64) -> Vec<u8> {
    packed(&request_body(&[("__name__", "up"), ("job", "x")], value))
}

async fn still_writes(server: &Server) {
    assert_eq!(send(server, "/api/v1/write", PLAIN, up(1.0)).await.status, 204);
}

#[tokio::test]
async fn a_request_reaches_the_sink_under_all_three_names() {
    let server = server();
    for path in ["/api/v1/write", "/api/v1/push", "/api/v1/receive"] {
        let answer = send(&server, path, PLAIN, up(2.5)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (204, ""), "{path}");
        let batches = std::mem::take(&mut *server.sink.batches.lock());
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].tenant.as_str(), "anonymous");
        let floats = RecordingSink::floats(&batches[0]);
        assert_eq!(floats, [(labels(&[("__name__", "up"), ("job", "x")]), 1_000, 2.5)]);
    }
    assert_eq!(send(&server, "/api/v1/write", &[], packed(b"")).await.status, 204, "an empty request");
    assert_eq!(server.get("/api/v1/write").await.status, 405);
}

#[tokio::test]
async fn wrong_media_types_are_415() {
    let server = server();
    for (headers, text) in [
        (vec![("content-type", "application/json")], "application/x-protobuf"),
        (vec![("content-type", "application/x-protobuf;proto=some.Other")], "protobuf message"),
        (vec![("content-encoding", "gzip")], "gzip encoding (compression) is not accepted by this server"),
        (
            vec![("content-encoding", "snappy"), ("content-encoding", "snappy")],
            "more than one Content-Encoding",
        ),
    ] {
        let answer = send(&server, "/api/v1/write", &headers, up(1.0)).await;
        assert_eq!(answer.status, 415, "{headers:?}");
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    assert!(server.sink.batches.lock().is_empty());
    still_writes(&server).await;
}

#[tokio::test]
async fn broken_bodies_are_400_and_large_ones_413() {
    let server = server();
    let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let mut cut = up(1.0);
    cut.truncate(cut.len() - 3);
    for (body, code) in [
        (b"garbage that is no snappy".to_vec(), 400),
        (Vec::new(), 400),
        (vec![0xff; 11], 400),
        (cut, 400),
        (b"\xff\x06\x00\x00sNaPpY".to_vec(), 400),
        (packed(b"no protobuf at all"), 400),
        (packed(&field(1, &[0x0a, 0x7f])), 400),
        (four_gib.to_vec(), 413),
        (packed(&vec![0; 33 << 20]), 413),
        (vec![0; 33 << 20], 413),
        (packed(&field(1, &[]).repeat(25_000)), 413),
    ] {
        let answer = send(&server, "/api/v1/write", PLAIN, body.clone()).await;
        assert_eq!(answer.status, code, "{:?}: {}", &body[..body.len().min(12)], answer.text());
        assert!(!answer.text().is_empty() && answer.body.len() < 500);
    }
    assert!(server.sink.batches.lock().is_empty());
    still_writes(&server).await;
}

#[tokio::test]
async fn what_the_sink_says_becomes_a_code() {
    let server = server();
    let check = async |answer: Result<WriteReport, Failure>, code: u16, text: &str, retry: &str| {
        *server.sink.answer.lock() = Some(answer);
        let got = send(&server, "/api/v1/write", PLAIN, up(1.0)).await;
        assert_eq!(got.status, code);
        assert_eq!(got.text(), text);
        assert_eq!(got.header("retry-after"), retry);
    };
    let mut report = WriteReport::default();
    report.written.samples = 7;
    check(Ok(report.clone()), 204, "", "").await;
    report.rejected.insert(RejectReason::DuplicateTimestamp, 2);
    report.rejected.insert(RejectReason::TooOld, 1);
    report.first_reasons.push("up{job=\"x\"} at 1000: older than the retention".into());
    check(
        Ok(report),
        400,
        "3 samples were not stored (1 too_old, 2 duplicate_timestamp), 7 were; up{job=\"x\"} at 1000: older than the retention\n",
        "",
    )
    .await;
    let busy = Failure::unavailable("shard 3 has no leader", Duration::from_millis(2_500));
    check(Err(busy), 503, "shard 3 has no leader\n", "3").await;
    check(
        Err(Failure::new(Code::TooMany, "rate limit of 5 samples/s")),
        503,
        "rate limit of 5 samples/s\n",
        "1",
    )
    .await;
    check(Err(Failure::invalid("bad")), 400, "bad\n", "").await;
    check(Err(Failure::internal("oh")), 500, "oh\n", "").await;
    *server.sink.answer.lock() = None;
    still_writes(&server).await;
}

#[tokio::test]
async fn a_panic_costs_only_its_request() {
    let server = server();
    assert_eq!(send(&server, "/api/v1/write", PLAIN, up(666.0)).await.status, 500);
    still_writes(&server).await;
    assert!(server.get("/metrics").await.text().contains("isobar_http_panics_total 1\n"));
}

#[tokio::test]
async fn memory_for_requests_is_bounded() {
    let settings = api::Settings { max_writes_held_bytes: 50, ..api::Settings::default() };
    let server = server_with(settings, Default::default());
    // One request may always be there, however large; a second one is told to come again.
    let held = server.sink.gate.lock().await;
    let first = send(&server, "/api/v1/write", PLAIN, up(1.0));
    let second = async {
        while server.sink.batches.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let refused = send(&server, "/api/v1/write", PLAIN, up(2.0)).await;
        drop(held);
        refused
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (204, 503));
    assert!(second.text().contains("limit 50 bytes"), "{}", second.text());
    assert_eq!(second.header("retry-after"), "1");
    still_writes(&server).await;
}

#[tokio::test]
async fn the_tenant_is_named_by_the_header_only_with_tenancy() {
    let tenant = |answer: &Answer, server: &Server| {
        assert_eq!(answer.status, 204, "{}", answer.text());
        server.sink.batches.lock().pop().unwrap().tenant.as_str().to_owned()
    };
    let named = [PLAIN, &[("x-scope-orgid", "team-a")]].concat();
    let off = server();
    assert_eq!(tenant(&send(&off, "/api/v1/write", &named, up(1.0)).await, &off), "anonymous");
    let on = server_with(api::Settings { tenancy: true, ..api::Settings::default() }, Default::default());
    assert_eq!(tenant(&send(&on, "/api/v1/write", &named, up(1.0)).await, &on), "team-a");
    assert_eq!(tenant(&send(&on, "/api/v1/write", PLAIN, up(1.0)).await, &on), "anonymous");
    for bad in ["..", ".", "a/b", "a b", "x%00"] {
        let headers = [PLAIN, &[("x-scope-orgid", bad)]].concat();
        assert_eq!(send(&on, "/api/v1/write", &headers, up(1.0)).await.status, 400, "{bad}");
    }
}
