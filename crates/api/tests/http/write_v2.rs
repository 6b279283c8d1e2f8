//! The remote-write receiver, version 2.0: negotiation, what reaches the sink, the headers of the answer.

use http::Request;
use model::seam::fake::RecordingSink;
use model::seam::{Counts, RejectReason, WriteReport};
use model::{Failure, Labels};

use crate::support::{Answer, Server, labels, server};
use crate::write::{field, packed};

const V2: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

fn varint(number: u8, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for mut rest in [u64::from(number) << 3, value] {
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out
}

fn double(number: u8, value: f64) -> Vec<u8> {
    [vec![number << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

fn symbols(all: &[&str]) -> Vec<u8> {
    all.iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect()
}

fn series(refs: &[u8], parts: &[Vec<u8>]) -> Vec<u8> {
    field(5, &[field(1, refs), parts.concat()].concat())
}

fn sample(value: f64, timestamp: u64) -> Vec<u8> {
    field(2, &[double(1, value), varint(2, timestamp)].concat())
}

const SYMBOLS: [&str; 7] = ["", "__name__", "up", "job", "x", "trace", "Whether it is up."];
const UP: &[u8] = &[1, 2, 3, 4];

fn one_sample() -> Vec<u8> {
    [symbols(&SYMBOLS), series(UP, &[sample(1.0, 1_000)])].concat()
}

async fn send(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = Request::post("/api/v1/write");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(axum::body::Body::from(packed(body))).unwrap()).await
}

/// The three headers of what is stored, "" where one is missing.
fn written(answer: &Answer) -> [&str; 3] {
    ["samples", "histograms", "exemplars"].map(|kind| match kind {
        "samples" => answer.header("x-prometheus-remote-write-samples-written"),
        "histograms" => answer.header("x-prometheus-remote-write-histograms-written"),
        _ => answer.header("x-prometheus-remote-write-exemplars-written"),
    })
}

async fn still_writes(server: &Server) {
    *server.sink.answer.lock() = None;
    let answer = send(server, V2, &one_sample()).await;
    assert_eq!((answer.status.as_u16(), written(&answer)), (204, ["1", "0", "0"]), "{}", answer.text());
}

#[tokio::test]
async fn all_kinds_reach_the_sink() {
    let server = server();
    let histogram = field(
        3,
        &[varint(1, 3), double(3, 4.5), varint(4, 2), varint(6, 3), varint(15, 1_000), varint(17, 400)]
            .concat(),
    );
    let exemplar = field(4, &[field(1, &[5, 4]), double(2, 0.5), varint(3, 900)].concat());
    let metadata = field(5, &[varint(1, 2), varint(3, 6)].concat());
    let start = field(2, &[double(1, 7.0), varint(2, 2_000), varint(3, 500)].concat());
    let body = [
        symbols(&SYMBOLS),
        series(UP, &[sample(1.0, 1_000), start, exemplar, metadata]),
        series(&[1, 4], &[histogram]),
    ]
    .concat();
    let answer = send(&server, V2, &body).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
    let batch = server.sink.batches.lock().pop().unwrap();
    let up = labels(&[("__name__", "up"), ("job", "x")]);
    assert_eq!(RecordingSink::floats(&batch), [(up.clone(), 1_000, 1.0), (up, 2_000, 7.0)]);
    assert_eq!(batch.starts, [0, 500]);
    assert_eq!((batch.histograms[0].0, batch.histograms[0].1.count), (1_000, 3.0));
    assert_eq!(batch.histogram_starts, [400]);
    assert_eq!(batch.exemplars[0].labels, Labels::from_pairs([("trace", "x")]).unwrap());
    assert_eq!(
        (batch.metadata[0].family.as_str(), batch.metadata[0].help.as_str()),
        ("up", "Whether it is up.")
    );
    still_writes(&server).await;
}

#[tokio::test]
async fn broken_requests_store_nothing_and_say_so() {
    let server = server();
    let with = |refs: &[u8], parts: &[Vec<u8>]| [symbols(&SYMBOLS), series(refs, parts)].concat();
    let metadata = |number: u8, value| field(5, &varint(number, value));
    for (body, code, text) in [
        (with(&[1, 99], &[sample(1.0, 1)]), 400, "label reference beyond the symbols"),
        (with(&[1, 2, 3], &[sample(1.0, 1)]), 400, "odd number of label references"),
        (
            [symbols(&["up"]), series(&[0, 0], &[sample(1.0, 1)])].concat(),
            400,
            "first symbol that is not empty",
        ),
        (with(UP, &[sample(1.0, 1), metadata(4, 77)]), 400, "metadata reference beyond the symbols"),
        (with(UP, &[sample(1.0, 1), metadata(3, 77)]), 400, "metadata reference beyond the symbols"),
        (b"no protobuf at all".to_vec(), 400, "protobuf"),
    ] {
        let answer = send(&server, V2, &body).await;
        assert_eq!(answer.status, code, "{text}: {}", answer.text());
        assert!(answer.text().contains(text), "{text}: {}", answer.text());
        assert_eq!(written(&answer), ["0", "0", "0"], "{text}");
        assert!(server.sink.batches.lock().is_empty(), "{text}");
        still_writes(&server).await;
        server.sink.batches.lock().clear();
    }
}

#[tokio::test]
async fn a_small_body_does_not_become_a_large_one() {
    let server = server();
    // A value of 64 KiB that each of 10,000 series names: 640 MB of labels out of 150 KB.
    let long = "v".repeat(64 << 10);
    let mut body = symbols(&["", "__name__", &long]);
    let one = series(&[1, 2], &[sample(1.0, 1)]);
    for _ in 0..10_000 {
        body.extend_from_slice(&one);
    }
    let answer = send(&server, V2, &body).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("bytes of labels after expansion"), "{}", answer.text());
    assert_eq!(written(&answer), ["0", "0", "0"]);
    // More symbols than anybody needs.
    let mut many = symbols(&[""]);
    many.extend(field(4, b"x").repeat(3_000_000));
    assert_eq!(send(&server, V2, &many).await.status, 413);
    still_writes(&server).await;
}

#[tokio::test]
async fn a_series_that_holds_nothing_is_told_and_the_rest_is_stored() {
    let server = server();
    let exemplar = field(4, &[field(1, &[5, 4]), double(2, 0.5), varint(3, 900)].concat());
    let body = [one_sample(), series(&[1, 4], &[]), series(&[1, 6], &[exemplar])].concat();
    let answer = send(&server, V2, &body).await;
    assert_eq!((answer.status.as_u16(), written(&answer)), (400, ["1", "0", "0"]));
    assert!(
        answer.text().contains("TimeSeries must contain at least one sample or histogram for series x"),
        "{}",
        answer.text()
    );
    let batch = server.sink.batches.lock().pop().unwrap();
    assert_eq!(batch.samples.len(), 1);
    // An exemplar alone is how Prometheus sends it; whether its series is there, the sink knows.
    assert_eq!((batch.exemplars.len(), batch.series[2].exemplars.clone()), (1, 0..1));
    still_writes(&server).await;
}

#[tokio::test]
async fn headers_tell_what_is_stored_also_when_not_all_is() {
    let server = server();
    let stored = Counts { samples: 7, histograms: 2, exemplars: 1 };
    let mut report = WriteReport { written: stored, ..WriteReport::default() };
    report.rejected.insert(RejectReason::InvalidHistogram, 1);
    *server.sink.answer.lock() = Some(Ok(report));
    let answer = send(&server, V2, &one_sample()).await;
    assert_eq!((answer.status.as_u16(), written(&answer)), (400, ["7", "2", "1"]));
    assert_eq!(answer.text(), "1 samples were not stored (1 invalid_histogram), 9 were\n");

    // Of a request that may be stored or not, nothing is claimed.
    *server.sink.answer.lock() =
        Some(Err(Failure::unavailable("no leader", std::time::Duration::from_secs(1))));
    let answer = send(&server, V2, &one_sample()).await;
    assert_eq!((answer.status.as_u16(), written(&answer)), (503, ["", "", ""]));
    still_writes(&server).await;
}

#[tokio::test]
async fn exemplars_out_of_order_are_no_failure_of_a_1_0_request() {
    let server = server();
    let mut report = WriteReport::default();
    report.rejected.insert(RejectReason::OutOfOrderExemplar, 1);
    *server.sink.answer.lock() = Some(Ok(report));
    assert_eq!(send(&server, V2, &one_sample()).await.status, 400);
    let v1 = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    let answer = send(&server, &v1, b"").await;
    assert_eq!((answer.status.as_u16(), written(&answer)), (204, ["", "", ""]));
    still_writes(&server).await;
}

#[tokio::test]
async fn the_message_is_negotiated_by_the_media_type() {
    let server = server();
    for (content_type, encoding, code) in [
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", 204),
        ("application/x-protobuf; proto=io.prometheus.write.v2.Request", "snappy", 204),
        ("application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"", "snappy", 204),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", 415),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "zstd", 415),
        ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "gzip", 415),
        ("text/plain;proto=io.prometheus.write.v2.Request", "snappy", 415),
    ] {
        let headers = [("content-type", content_type), ("content-encoding", encoding)];
        let answer = send(&server, &headers, &one_sample()).await;
        assert_eq!(answer.status, code, "{content_type} {encoding}: {}", answer.text());
        assert_eq!(written(&answer)[0], if code == 204 { "1" } else { "" });
    }
}
