//! Remote read and federation.

use axum::body::Body;
use http::Request;
use model::Labels;

use api::Settings;

use crate::support::{Answer, NOW, Server, labels, server, server_with};

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Start, end, and matchers of (kind, name, value).
type Query<'a> = (i64, i64, &'a [(u8, &'a str, &'a str)]);

/// A read request of one query for each of `queries`.
fn request(queries: &[Query<'_>], accepted: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (start, end, matchers) in queries {
        let mut query = Vec::new();
        for (number, value) in [(1u8, start), (2, end)] {
            query.push(number << 3);
            varint(&mut query, *value as u64);
        }
        for (kind, name, value) in *matchers {
            let mut matcher = vec![1 << 3, *kind];
            field(&mut matcher, 2, name.as_bytes());
            field(&mut matcher, 3, value.as_bytes());
            field(&mut query, 3, &matcher);
        }
        field(&mut out, 1, &query);
    }
    for kind in accepted {
        out.extend([2 << 3, *kind]);
    }
    out
}

async fn read(server: &Server, body: &[u8]) -> Answer {
    let packed = formats::snappy::compress(body).unwrap();
    server.send(Request::post("/api/v1/read").body(Body::from(packed)).unwrap()).await
}

/// The fields of a message: (number, bytes of length-delimited ones or the varint).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let take = |bytes: &mut &[u8]| {
        let mut value = 0u64;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    };
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = take(&mut bytes);
        match key & 7 {
            0 => out.push((key >> 3, take(&mut bytes).to_le_bytes().to_vec())),
            1 => {
                out.push((key >> 3, bytes[..8].to_vec()));
                bytes = &bytes[8..];
            }
            2 => {
                let length = take(&mut bytes) as usize;
                out.push((key >> 3, bytes[..length].to_vec()));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    out
}

/// The label pairs of a time series or a chunked series, as `name=value` joined.
fn names(series: &[(u64, Vec<u8>)]) -> String {
    let pair = |bytes: &[u8]| {
        let parts = fields(bytes);
        format!("{}={}", String::from_utf8_lossy(&parts[0].1), String::from_utf8_lossy(&parts[1].1))
    };
    series.iter().filter(|(n, _)| *n == 1).map(|(_, b)| pair(b)).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn samples_of_each_query_with_external_labels() {
    let server = server();
    *server.external.lock() = labels(&[("region", "eu"), ("job", "never seen")]);
    let minute = (NOW - 60_000, NOW);
    let body = request(
        &[
            (minute.0, minute.1, &[(0, "__name__", "up"), (2, "instance", "a.*|b.*")]),
            (minute.0, minute.1, &[(0, "__name__", "nothing")]),
            (minute.0, minute.1, &[(0, "__name__", "late"), (0, "region", "eu")]),
            (minute.0, minute.1, &[(0, "__name__", "latency"), (0, "region", "eu")]),
        ],
        &[],
    );
    let answer = read(&server, &body).await;
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    assert_eq!(
        (answer.header("content-type"), answer.header("content-encoding")),
        ("application/x-protobuf", "snappy")
    );
    let plain = formats::snappy::decompress(&answer.body, 1 << 20).unwrap();
    let results: Vec<Vec<(u64, Vec<u8>)>> = fields(&plain).iter().map(|(_, b)| fields(b)).collect();
    assert_eq!(results.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 0, 1]);
    let first = fields(&results[0][0].1);
    assert_eq!(names(&first), "__name__=up,instance=a:1,job=x,region=eu");
    assert_eq!(first.iter().filter(|(n, _)| *n == 2).count(), 5, "both ends are included");
    let latency = fields(&results[3][0].1);
    assert_eq!(names(&latency), "__name__=latency,job=x,region=eu");
    assert_eq!(latency.iter().filter(|(n, _)| *n == 4).count(), 2, "histograms");
}

#[tokio::test]
async fn streamed_chunks_in_order_of_labels() {
    let server = server();
    let body = request(&[(0, NOW, &[(2, "__name__", "up|latency")])], &[1, 0]);
    let packed = formats::snappy::compress(&body).unwrap();
    let ask =
        Request::post("/api/v1/read").header("accept-encoding", "gzip").body(Body::from(packed)).unwrap();
    let answer = server.send(ask).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    assert_eq!(answer.header("content-encoding"), "", "a stream goes out as it is");
    let mut rest = answer.body.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|b| b & 0x80 == 0).unwrap();
        let length = rest[..=end].iter().rev().fold(0usize, |sum, b| sum << 7 | usize::from(b & 0x7f));
        let start = end + 5;
        for (number, series) in fields(&rest[start..start + length]) {
            assert_eq!(number, 1);
            let series = fields(&series);
            let kinds: Vec<u8> =
                series.iter().filter(|(n, _)| *n == 2).map(|(_, c)| fields(c)[2].1[0]).collect();
            found.push((names(&series), kinds));
        }
        rest = &rest[start + length..];
    }
    let expected = [
        ("__name__=latency,job=x".to_owned(), vec![2]),
        ("__name__=up,instance=a:1,job=x".to_owned(), vec![1, 1, 1]),
        ("__name__=up,instance=b:1,job=x".to_owned(), vec![1, 1, 1]),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn bad_reads_are_refused_in_plain_text_and_cost_nothing() {
    let server = server_with(Settings { max_read_samples: 10, ..Settings::default() }, Default::default());
    let up: &[(u8, &str, &str)] = &[(0, "__name__", "up")];
    let many = vec![(0, 0, &[] as &[(u8, &str, &str)]); 101];
    for (body, text) in [
        (request(&[(0, NOW, up)], &[]), "exceeded sample limit (10, --storage.remote.read-sample-limit)"),
        (request(&[(0, NOW, up)], &[9]), "server does not support any of the requested response types: [9]"),
        (request(&[(0, NOW, &[(2, "a", "(")])], &[]), "matcher of label \"a\""),
        (request(&many, &[]), "queries of a read request: 101 is over the limit of 100"),
        (vec![0x0a, 0xff], "protobuf: "),
    ] {
        let answer = read(&server, &body).await;
        assert_eq!(answer.status, 400, "{text}");
        assert!(answer.text().contains(text), "{}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain"));
    }
    let raw = async |body: &[u8]| {
        server.send(Request::post("/api/v1/read").body(Body::from(body.to_vec())).unwrap()).await
    };
    assert_eq!(raw(b"garbage").await.status, 400);
    // Five bytes that declare 4 GiB.
    assert_eq!(raw(&[0xff, 0xff, 0xff, 0xff, 0x0f]).await.status, 413);
    assert_eq!(raw(&vec![0; 2 << 20]).await.status, 413);
    assert_eq!(server.get("/api/v1/read").await.status, 405);
    let good = read(&server, &request(&[(NOW - 15_000, NOW, up)], &[])).await;
    assert_eq!(good.status, 200);
    let plain = formats::snappy::decompress(&good.body, 1 << 20).unwrap();
    assert_eq!(fields(&fields(&plain)[0].1).len(), 2);
}

async fn federate(server: &Server, query: &str, accept: &str) -> Answer {
    let request = Request::get(format!("/federate?{query}")).header("accept", accept);
    server.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn federation_gives_the_newest_samples_sorted_with_external_labels() {
    let server = server();
    let selectors = "match[]=up&match[]=%7B__name__%3D~%22up|late|gone|latency|sizes%22%7D";
    let plain = federate(&server, selectors, "").await;
    assert_eq!(plain.status, 200);
    assert_eq!(
        plain.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
    let (now, before, minute) = (NOW, NOW - 15_000, NOW - 60_000);
    let expected = format!(
        "# TYPE late untyped\nlate{{region=\"own\",instance=\"\"}} 2.5 {minute}\n\
         # TYPE sizes histogram\nsizes_bucket{{instance=\"\",le=\"1\"}} 0 {before}\n\
         sizes_bucket{{instance=\"\",le=\"2\"}} 4 {before}\nsizes_bucket{{instance=\"\",le=\"+Inf\"}} 4 {before}\n\
         sizes_sum{{instance=\"\"}} 6 {before}\nsizes_count{{instance=\"\"}} 4 {before}\n\
         # TYPE up untyped\nup{{instance=\"a:1\",job=\"x\"}} 1 {now}\nup{{instance=\"b:1\",job=\"x\"}} 0 {now}\n"
    );
    assert_eq!(plain.text(), expected);

    *server.external.lock() = labels(&[("region", "eu"), ("instance", "me")]);
    let up = federate(&server, "match[]=up%7Binstance%3D%22a:1%22%7D", "").await;
    assert_eq!(
        up.text(),
        format!("# TYPE up untyped\nup{{instance=\"a:1\",job=\"x\",region=\"eu\"}} 1 {now}\n")
    );
    *server.external.lock() = Labels::empty();
    let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9,text/plain;q=0.1";
    let native = federate(&server, "match[]=latency", protobuf).await;
    assert!(native.header("content-type").starts_with("application/vnd.google.protobuf"));
    let family = fields(&native.body[1..]);
    assert_eq!(family[0].1, b"latency");
    assert_eq!(federate(&server, "match[]=latency", "").await.text(), "");
    let none = federate(&server, "", "").await;
    assert_eq!((none.status.as_u16(), none.text()), (200, ""));
    let bad = federate(&server, "match[]=up%7B", "").await;
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("parse error"), "{}", bad.text());
    let open = federate(&server, "match[]=late", "application/openmetrics-text;version=1.0.0").await;
    assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
}
