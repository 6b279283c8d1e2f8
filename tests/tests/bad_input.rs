//! Bad input over HTTP against a running node: each row says what is sent, which code and words come back, and that
//! nothing of it is stored. After each row the node's memory has grown by less than 64 MiB at its highest, and the next
//! good request works. `docs/bad-input.md` has these rows; a test compares them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::encoded;
use model::Histogram;
use model::histogram::Span;
use model::seam::{Clock as _, SystemClock};
use tests::node::Node;
use tests::remote_write::{Fields, Series, body_v2};
use tests::wire::{WriteRequest, read_request, snappy};

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// Memory that one bad request may take at its highest.
const MAX_GROWTH_KB: u64 = 64 << 10;

/// What is sent.
enum Send {
    /// GET of a path.
    Get(String),
    /// GET with a header.
    With(&'static str, String, String),
    /// POST of a body.
    Post(&'static str, Vec<u8>),
    /// POST of a body with headers.
    Body(&'static str, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// POST of a form.
    Form(&'static str, String),
    /// Another method.
    Method(&'static str, String),
    /// Bytes on a connection, as they are.
    Raw(Vec<u8>),
}

/// A row: its name in the documentation, what is sent, the code (0 = the connection is closed), words of the answer.
struct Row(&'static str, Send, u16, &'static str);

fn query(text: &str) -> Send {
    Send::Form("/api/v1/query", format!("query={}", encoded(text)))
}

fn range(text: &str, rest: &str) -> Send {
    Send::Form("/api/v1/query_range", format!("query={}&{rest}", encoded(text)))
}

/// A query whose value is an error.
fn fails(name: &'static str, text: &str, words: &'static str) -> Row {
    Row(name, query(text), 422, words)
}

/// A query that is none.
fn wrong(name: &'static str, text: &str, words: &'static str) -> Row {
    Row(name, query(text), 400, words)
}

fn get(path: &str) -> Send {
    Send::Get(path.to_owned())
}

fn promql() -> Vec<Row> {
    let (now, before) = (1_700_000_000, 1_699_990_000);
    let span = format!("start={before}&end={now}&step=1");
    vec![
        wrong("PromQL: empty", "", "no expression found in input"),
        wrong(
            "PromQL: 20,000 nested parentheses",
            &("(".repeat(20_000) + "1" + &")".repeat(20_000)),
            "nests deeper than the limit of 200 levels",
        ),
        wrong(
            "PromQL: 5,000 nested calls",
            &("abs(".repeat(5_000) + "x" + &")".repeat(5_000)),
            "nests deeper than the limit of 200 levels",
        ),
        wrong(
            "PromQL: 60,000 unary minuses",
            &("-".repeat(60_000) + "1"),
            "nests deeper than the limit of 200 levels",
        ),
        wrong(
            "PromQL: 20,000 operands in a chain",
            "x+".repeat(20_000).trim_end_matches('+'),
            "more operators than the limit of 1000",
        ),
        wrong("PromQL: text over 64 KiB", &"a".repeat(70_000), "the limit is 65536"),
        wrong("PromQL: expression of a huge repetition", "{a=~\"(a{1000}){1000}\"}", "invalid repeat count"),
        Row(
            "PromQL: expression of 10,000 groups",
            query(&format!("{{a=~\"{}\"}}", "(a)".repeat(10_000))),
            200,
            "",
        ),
        Row(
            "PromQL: more than 11,000 points",
            range("up", "start=0&end=315360000&step=0.001"),
            400,
            "exceeded maximum resolution of 11,000 points",
        ),
        Row("PromQL: range of 100 years", query("count_over_time(up[100y])"), 200, ""),
        fails("PromQL: a subquery of 10^11 steps", "max_over_time(up[100y:30ms])", "the limit is 20000000"),
        Row(
            "PromQL: a subquery in a subquery in a subquery",
            range("max_over_time(max_over_time(max_over_time(good[1d:1s])[1d:1s])[1d:1s])", &span),
            200,
            "",
        ),
        wrong("PromQL: offset beyond all time", "up offset 300000000y", "duration out of range"),
        wrong("PromQL: @ beyond all time", "up @ 1e300", "timestamp out of bounds"),
        wrong("PromQL: offset by an expression that overflows", "up offset (1e300)", "duration"),
        Row("PromQL: topk of 10^18", query("topk(1e18, up)"), 200, ""),
        Row("PromQL: quantile of NaN", query("quantile(NaN, up)"), 200, ""),
        fails(
            "PromQL: label_replace with a bad expression",
            "label_replace(up, \"a\", \"$1\", \"b\", \"(\")",
            "invalid regular expression",
        ),
        fails(
            "PromQL: many-to-many matching",
            "{__name__=~\"good|other\"} * on () {__name__=~\"good|other\"}",
            "many-to-many matching not allowed",
        ),
        wrong(
            "PromQL: selector that matches everything",
            "{a=~\".*\"}",
            "must contain at least one non-empty matcher",
        ),
        Row(
            "PromQL: invalid UTF-8",
            Send::Form("/api/v1/query", "query=%ff%fe".into()),
            400,
            "not valid UTF-8",
        ),
        wrong("PromQL: NUL", "up\0", "unexpected character"),
    ]
}

fn parameters() -> Vec<Row> {
    let many = "match[]=up&".repeat(50_000);
    let long = format!("/api/v1/query?query=1&x={}", "y".repeat(1 << 20));
    let tenant =
        |name: &str| Send::With("X-Scope-OrgID", name.to_owned(), "/api/v1/query?query=1".to_owned());
    vec![
        Row("HTTP: a parameter twice, the first counts", get("/api/v1/query?query=1&query=("), 200, ""),
        Row("HTTP: %00 in a value", get("/api/v1/label/a%00b/values"), 200, ""),
        Row("HTTP: overlong UTF-8", get("/api/v1/query?query=%c0%80"), 400, "not valid UTF-8"),
        Row("HTTP: a broken escape", get("/api/v1/query?query=%zz"), 400, "invalid URL escape"),
        Row(
            "HTTP: a semicolon",
            get("/api/v1/query?query=1;limit=1"),
            400,
            "invalid semicolon separator in query",
        ),
        Row("HTTP: limit=-1", get("/api/v1/labels?limit=-1"), 400, "limit must be non-negative"),
        Row("HTTP: a huge limit", get("/api/v1/labels?limit=9223372036854775807"), 200, ""),
        Row(
            "HTTP: a limit beyond 64 bits",
            get("/api/v1/labels?limit=92233720368547758079"),
            400,
            "value out of range",
        ),
        Row("HTTP: time=NaN", get("/api/v1/query?query=1&time=NaN"), 400, "to a valid timestamp"),
        Row("HTTP: time=+Inf", get("/api/v1/query?query=1&time=%2BInf"), 400, "to a valid timestamp"),
        Row("HTTP: time=1e308", get("/api/v1/query?query=1&time=1e308"), 400, "to a valid timestamp"),
        Row("HTTP: a negative time", get("/api/v1/query?query=1&time=-1e9"), 200, ""),
        Row(
            "HTTP: step=0",
            get("/api/v1/query_range?query=1&start=1&end=2&step=0"),
            400,
            "zero or negative query resolution step",
        ),
        Row(
            "HTTP: end before start",
            get("/api/v1/query_range?query=1&start=2&end=1&step=1"),
            400,
            "end timestamp must not be before start time",
        ),
        Row(
            "HTTP: timeout that overflows",
            get("/api/v1/query?query=1&timeout=1e30"),
            400,
            "overflows int64",
        ),
        Row("HTTP: 50,000 match[]", Send::Form("/api/v1/series", many), 400, "the limit is 1000"),
        Row(
            "HTTP: a form over 1 MiB",
            Send::Form("/api/v1/query", format!("query={}", "a".repeat(2 << 20))),
            413,
            "limit of 1048576 bytes",
        ),
        Row(
            "HTTP: a URL of 1 MiB",
            Send::Raw(format!("GET {long} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()),
            0,
            "",
        ),
        Row(
            "HTTP: a NUL in a header",
            Send::Raw(b"GET / HTTP/1.1\r\nhost: x\r\nx-scope-orgid: a\0b\r\n\r\n".to_vec()),
            0,
            "",
        ),
        Row("HTTP: an unknown path", get("/api/v1/nothing"), 404, "404 page not found"),
        Row("HTTP: a path with dots", get("/api/v1/../../etc/passwd"), 404, "404 page not found"),
        Row("HTTP: //evil as path", get("//evil.example/graph"), 404, "404 page not found"),
        Row(
            "HTTP: an odd method",
            Send::Method("BREW", "/api/v1/query?query=1".into()),
            405,
            "this path takes only GET, HEAD, POST",
        ),
        Row(
            "HTTP: deleting by GET",
            get("/api/v1/admin/tsdb/delete_series?match[]=good"),
            405,
            "this path takes only POST, PUT",
        ),
        Row("HTTP: reloading by GET", get("/-/reload"), 405, "Only POST or PUT requests allowed"),
        Row(
            "HTTP: deleting without a selector",
            Send::Method("POST", "/api/v1/admin/tsdb/delete_series".into()),
            400,
            "no match[] parameter provided",
        ),
        Row(
            "HTTP: deleting everything by an empty selector",
            Send::Form("/api/v1/admin/tsdb/delete_series", "match[]={}".into()),
            400,
            "must contain at least one non-empty matcher",
        ),
        Row("HTTP: tenant ..", tenant(".."), 400, "invalid X-Scope-OrgID"),
        Row("HTTP: tenant with a slash", tenant("../../anonymous"), 400, "may hold only letters"),
        Row("HTTP: an empty tenant", tenant(""), 400, "must have 1 to 150 bytes"),
        Row("HTTP: a tenant of 200 bytes", tenant(&"x".repeat(200)), 400, "must have 1 to 150 bytes"),
        Row(
            "HTTP: garbage instead of a request",
            Send::Raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
            0,
            "",
        ),
    ]
}

/// A write request of one series with these label pairs, as they are, and these samples.
fn series(pairs: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut series = Fields::default();
    for (name, value) in pairs {
        series.bytes(1, &Fields::default().bytes(1, name).bytes(2, value).0);
    }
    for (timestamp, value) in samples {
        series.bytes(2, &Fields::default().double(1, *value).varint(2, *timestamp as u64).0);
    }
    let mut out = Fields::default();
    out.bytes(1, &series.0);
    out.0
}

fn bodies(now: i64) -> Vec<Row> {
    let write = |body: Vec<u8>| Send::Post("/api/v1/write", body);
    let one = |pairs: &[(&[u8], &[u8])], samples: &[(i64, f64)]| write(snappy(&series(pairs, samples)));
    let name: (&[u8], &[u8]) = (b"__name__", b"bad");
    let at = [(now, 1.0)];
    // A length of 2^32 - 1, and nothing of it.
    let bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    let empty_series = [0x0a, 0x00].repeat(1_000_000);
    let long = "v".repeat(1 << 20);
    let names: Vec<String> = (0..100_000).map(|n| format!("l{n:06}")).collect();
    let many: Vec<(&[u8], &[u8])> =
        std::iter::once(name).chain(names.iter().map(|n| (n.as_bytes(), b"v".as_slice()))).collect();
    let queries: Vec<u8> = [0x0a, 0x00].repeat(500_000);
    vec![
        Row("write: snappy that declares 4 GiB", write(bomb.clone()), 413, "limit of 33554432 bytes"),
        Row("write: not snappy", write(vec![0xff; 1_000]), 400, "snappy"),
        Row(
            "write: snappy frames instead of a block",
            write(b"\xff\x06\x00\x00sNaPpY\x01\x00\x00\x00".to_vec()),
            400,
            "frame format",
        ),
        Row("write: a body over 32 MiB", write(vec![0; 33 << 20]), 413, "limit of 33554432 bytes"),
        Row("write: a million empty series", write(snappy(&empty_series)), 413, "limit of 20000"),
        Row("write: no metric name", one(&[(b"a", b"b")], &at), 400, "invalid_labels"),
        Row("write: an empty label name", one(&[name, (b"", b"b")], &at), 400, "invalid_labels"),
        Row("write: a label twice", one(&[name, (b"a", b"b"), (b"a", b"c")], &at), 400, "invalid_labels"),
        Row("write: invalid UTF-8", one(&[name, (b"a", b"\xff")], &at), 400, "invalid_labels"),
        Row("write: a label value of 1 MiB", one(&[name, (b"a", long.as_bytes())], &at), 400, "label_limit"),
        Row("write: 100,000 labels", one(&many, &at), 400, "label_limit"),
        Row("write: timestamp at the smallest number", one(&[name], &[(i64::MIN, 1.0)]), 400, "too_old"),
        Row(
            "write: timestamp at the largest number",
            one(&[name], &[(i64::MAX, 1.0)]),
            400,
            "too_far_in_future",
        ),
        Row(
            "write: another value at a taken time",
            one(&[(b"__name__", b"good")], &[(now, 7.0)]),
            400,
            "duplicate_timestamp",
        ),
        Row(
            "write: JSON",
            Send::With("Content-Type", "application/json".into(), "POST /api/v1/write".into()),
            415,
            "application/x-protobuf",
        ),
        Row(
            "write: a media type with half a parameter",
            Send::With("Content-Type", "application/x-protobuf;proto".into(), "POST /api/v1/write".into()),
            415,
            "key-values",
        ),
        Row(
            "write: gzip",
            Send::With("Content-Encoding", "gzip".into(), "POST /api/v1/write".into()),
            415,
            "only snappy is acceptable",
        ),
        Row(
            "read: snappy that declares 4 GiB",
            Send::Post("/api/v1/read", bomb),
            413,
            "limit of 1048576 bytes",
        ),
        Row(
            "read: half a million queries",
            Send::Post("/api/v1/read", snappy(&queries)),
            400,
            "over the limit of 100",
        ),
        Row(
            "read: a bad expression",
            Send::Post("/api/v1/read", read_request(0, now, "a", "(", true)),
            400,
            "matcher of label",
        ),
        Row("read: not protobuf", Send::Post("/api/v1/read", snappy(&[0xff; 40])), 400, "protobuf"),
    ]
}

/// A 2.0 request with these symbols and one series.
fn request_v2(symbols: &[&str], series: &Fields) -> Vec<u8> {
    let mut request = Fields::default();
    for symbol in symbols {
        request.bytes(4, symbol.as_bytes());
    }
    request.bytes(5, &series.0);
    request.0
}

fn second_version(now: i64) -> Vec<Row> {
    let send = |body: &[u8]| {
        let headers = vec![("Content-Type", V2), ("Content-Encoding", "snappy")];
        Send::Body("/api/v1/write", headers, snappy(body))
    };
    let sample = Fields::default().double(1, 1.0).varint(2, now as u64).clone();
    let with = |refs: &[u64]| {
        let mut series = Fields::default();
        series.packed(1, refs.iter().copied()).bytes(2, &sample.0);
        series
    };
    let base = ["", "__name__", "bad"];
    let one = |series: &Fields| {
        // The last symbol is none.
        let mut request = Fields(request_v2(&base, series));
        send(&request.bytes(4, b"\xff").0)
    };
    let odd = |name, change: fn(&mut Histogram)| {
        let mut histogram = Histogram {
            integer: true,
            count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 1.0],
            ..Histogram::default()
        };
        change(&mut histogram);
        let series = Series::of(&[("__name__", "bad")]).histogram(now, histogram);
        Row(name, send(&body_v2(&[series])), 400, "invalid_histogram")
    };
    let metadata = with(&[1, 2]).bytes(5, &Fields::default().varint(1, 1).varint(4, 9).0).clone();
    let mut no_symbols = Fields::default();
    for _ in 0..1_000_000 {
        no_symbols.bytes(4, b"");
    }
    no_symbols.bytes(5, &with(&[1, 2]).0);
    let long = "v".repeat(60_000);
    let mut fan_out = Fields(request_v2(&["", "__name__", &long], &with(&[1, 2])));
    for _ in 0..9_000 {
        fan_out.bytes(5, &with(&[1, 2]).0);
    }
    let mut histogram = Fields::default();
    histogram.varint(1, 5).varint(15, now as u64).packed(12, vec![0; 20_000_000]);
    let mut buckets = with(&[1, 2]);
    buckets.bytes(3, &histogram.0);
    vec![
        Row("write 2.0: a reference beyond the symbols", one(&with(&[1, 9])), 400, "beyond the symbols"),
        Row(
            "write 2.0: an odd number of references",
            one(&with(&[1])),
            400,
            "odd number of label references",
        ),
        Row("write 2.0: a unit beyond the symbols", one(&metadata), 400, "metadata reference beyond"),
        Row("write 2.0: a first symbol", send(&request_v2(&["x"], &with(&[0, 0]))), 400, "first symbol"),
        Row(
            "write 2.0: a series without samples",
            one(Fields::default().packed(1, [1, 2])),
            400,
            "at least one sample",
        ),
        Row(
            "write 2.0: no metric name",
            send(&request_v2(&["", "a", "b"], &with(&[1, 2]))),
            400,
            "no metric name",
        ),
        Row("write 2.0: ten million references", one(&with(&vec![1; 10_000_000])), 413, "limit of 262144"),
        Row("write 2.0: a million symbols with two used", send(&no_symbols.0), 400, "no metric name"),
        Row("write 2.0: symbols that become 540 MB of labels", send(&fan_out.0), 413, "limit of 33554432"),
        Row("write 2.0: a histogram of 20 million buckets", one(&buckets), 413, "limit of 65536"),
        Row("write 2.0: a symbol that is not UTF-8", one(&with(&[1, 3])), 400, "label that is not UTF-8"),
        odd("write 2.0: a span of 2^31 buckets", |h| h.positive_spans[0].length = 1 << 31),
        odd("write 2.0: spans that overlap", |h| {
            h.positive_spans = vec![Span { offset: 0, length: 1 }, Span { offset: -1, length: 1 }];
        }),
        odd("write 2.0: a negative count", |h| h.positive_buckets = vec![1.0, -1.0]),
        odd("write 2.0: a count that is not that of the buckets", |h| h.count = 9.0),
        odd("write 2.0: an unknown schema", |h| h.schema = -10),
        Row(
            "write 2.0: an unknown message",
            Send::Body(
                "/api/v1/write",
                vec![("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v3.Request")],
                Vec::new(),
            ),
            415,
            "io.prometheus.write.v3.Request",
        ),
    ]
}

/// A request of one metric in JSON.
fn otlp_json(metric: &str) -> Vec<u8> {
    format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"bad",{metric}}}]}}]}}]}}"#)
        .into_bytes()
}

fn otlp(now: i64) -> Vec<Row> {
    const PATH: &str = "/api/v1/otlp/v1/metrics";
    let json = |body: Vec<u8>| Send::Body(PATH, vec![("Content-Type", "application/json")], body);
    let packed = |encoding, body| {
        Send::Body(PATH, vec![("Content-Type", "application/json"), ("Content-Encoding", encoding)], body)
    };
    let at = format!("\"timeUnixNano\":\"{}\"", now as i128 * 1_000_000);
    let nested = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"a","value":{}{{}}{}}}]}}}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(10_000),
        "]}}".repeat(10_000)
    );
    let mut deep = Vec::new();
    for _ in 0..5_000 {
        // array_value { values { … } }
        deep = Fields::default().bytes(5, &Fields::default().bytes(1, &deep).0).0.clone();
    }
    let attribute = Fields::default().bytes(1, b"a").bytes(2, &deep).clone();
    let resource = Fields::default().bytes(1, &Fields::default().bytes(1, &attribute.0).0).clone();
    let deep = Fields::default().bytes(1, &resource.0).clone();
    let attributes: Vec<String> =
        (0..5_000).map(|n| format!(r#"{{"key":"k{n}","value":{{"stringValue":"v"}}}}"#)).collect();
    let many = otlp_json(&format!(
        r#""gauge":{{"dataPoints":[{{{at},"asDouble":1,"attributes":[{}]}}]}}"#,
        attributes.join(",")
    ));
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        // Writing to memory does not fail.
        let _ = encoder.write_all(&vec![b' '; 40 << 20]);
        encoder.finish().unwrap_or_default()
    };
    let points = vec![format!("{{{at},\"asDouble\":1}}"); 100_001].join(",");
    let mut rows = vec![
        Row(
            "OTLP: not protobuf",
            Send::Body(PATH, vec![("Content-Type", "application/x-protobuf")], vec![0xff; 40]),
            400,
            "protobuf",
        ),
        Row("OTLP: JSON cut short", json(br#"{"resourceMetrics":["#.to_vec()), 400, "json"),
        Row(
            "OTLP: text",
            Send::Body(PATH, vec![("Content-Type", "text/plain")], b"a 1\n".to_vec()),
            415,
            "unsupported content type",
        ),
        Row("OTLP: zstd", packed("zstd", vec![0; 40]), 415, "unsupported compression: zstd"),
        Row("OTLP: not gzip", packed("gzip", vec![0xff; 40]), 400, "gzip"),
        Row("OTLP: gzip that becomes 40 MiB", packed("gzip", bomb), 413, "limit of 33554432"),
        Row("OTLP: a body over 32 MiB", json(vec![b' '; 33 << 20]), 413, "33554432"),
        Row(
            "OTLP: an attribute in 10,000 lists, in JSON",
            json(nested.into_bytes()),
            400,
            "recursion limit exceeded",
        ),
        Row(
            "OTLP: an attribute in 5,000 lists",
            Send::Body(PATH, vec![("Content-Type", "application/x-protobuf")], deep.0),
            400,
            "more than 64 times",
        ),
        Row("OTLP: 5,000 attributes", json(many), 413, "limit of 4096"),
        Row(
            "OTLP: 100,001 points",
            json(otlp_json(&format!(r#""gauge":{{"dataPoints":[{points}]}}"#))),
            413,
            "limit of 100000",
        ),
    ];
    let refused = [
        (
            "OTLP: a delta sum without a start",
            r#""sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{AT,"asDouble":1}]}"#,
        ),
        (
            "OTLP: a temporality that is not known",
            r#""sum":{"aggregationTemporality":9,"dataPoints":[{AT,"asDouble":1}]}"#,
        ),
        (
            "OTLP: bounds that do not ascend",
            r#""histogram":{"aggregationTemporality":2,"dataPoints":[{AT,"count":"3","sum":1,"explicitBounds":[2,1],"bucketCounts":["1","1","1"]}]}"#,
        ),
        (
            "OTLP: a bound that is no number",
            r#""histogram":{"aggregationTemporality":2,"dataPoints":[{AT,"count":"2","sum":1,"explicitBounds":["NaN"],"bucketCounts":["1","1"]}]}"#,
        ),
        (
            "OTLP: counts that do not fit the bounds",
            r#""histogram":{"aggregationTemporality":2,"dataPoints":[{AT,"count":"2","sum":1,"explicitBounds":[1,2],"bucketCounts":["2"]}]}"#,
        ),
        (
            "OTLP: an exponential scale of -2^31",
            r#""exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{AT,"count":"1","sum":1,"scale":-2147483648,"positive":{"bucketCounts":["1"]}}]}"#,
        ),
        ("OTLP: a point without a time", r#""gauge":{"dataPoints":[{"asDouble":1}]}"#),
    ];
    for (name, metric) in refused {
        let body = otlp_json(&metric.replace("AT", &at));
        rows.push(Row(name, json(body), 200, "\"rejectedDataPoints\":\"1\""));
    }
    rows
}

fn rows(now: i64) -> Vec<Row> {
    promql()
        .into_iter()
        .chain(parameters())
        .chain(bodies(now))
        .chain(second_version(now))
        .chain(otlp(now))
        .collect()
}

/// Code and body; the code is 0 when the connection was closed without an answer, or with 400 or 431 before any path
/// was looked at.
fn send(node: &Node, what: &Send) -> Result<(u16, String)> {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, body) = match what {
        Send::Get(path) => node.client().request("GET", path, &[], &[])?,
        Send::With(name, value, path) => {
            let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
            node.client().request(method, path, &[(name, value)], &[])?
        }
        Send::Post(path, body) => node.client().request("POST", path, &[], body)?,
        Send::Body(path, headers, body) => node.client().request("POST", path, headers, body)?,
        Send::Form(path, form_body) => node.client().request("POST", path, &form, form_body.as_bytes())?,
        Send::Method(method, path) => node.client().request(method, path, &[], &[])?,
        Send::Raw(bytes) => {
            let mut stream = TcpStream::connect(&node.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            // The server may have closed while the rest is being sent.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let head = String::from_utf8_lossy(&answer).into_owned();
            ensure!(
                head.is_empty() || head.starts_with("HTTP/1.1 4"),
                "an answer to what is no request: {head}"
            );
            return Ok((0, String::new()));
        }
    };
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[test]
fn each_row_has_its_code_its_words_and_its_bounds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--tenancy.enabled", "--web.enable-admin-api", "--web.enable-lifecycle"];
    let node = Node::start(&folder.path().join("data"), &flags)?;
    let now = SystemClock::new().now_ms();
    let good = WriteRequest::default()
        .series(&[("__name__", "good")], &[(now, 1.0)], None)
        .series(&[("__name__", "other")], &[(now, 1.0)], None)
        .body();
    ensure!(node.client().request("POST", "/api/v1/write", &[], &good)?.0 == 204);
    let stored =
        |node: &Node| node.value("count({__name__=~\".+\"}) + 0 * sum(good)", Some(now as f64 / 1e3));
    ensure!(stored(&node)? == Some(2.0));
    let mut wrong = Vec::new();
    for Row(name, what, code, words) in rows(now) {
        node.reset_highest_memory()?;
        let before = node.memory_kb("VmRSS")?;
        let (found, text) = send(&node, &what).with_context(|| name.to_owned())?;
        let grown = node.memory_kb("VmHWM")?.saturating_sub(before);
        // Quotes stand escaped in JSON.
        let text = text.replace("\\\"", "\"");
        let shown: String = text.chars().take(300).collect();
        if found != code || !text.contains(words) {
            wrong.push(format!("{name}: {found} {shown}"));
        }
        if code >= 400 && text.len() > 2_000 {
            wrong.push(format!("{name}: an answer of {} bytes", text.len()));
        }
        if grown > MAX_GROWTH_KB {
            wrong.push(format!("{name}: {grown} kB more memory"));
        }
        if stored(&node)? != Some(2.0) {
            wrong.push(format!("{name}: something was stored or lost"));
        }
    }
    let (_, metrics) = node.get("/metrics")?;
    for panics in ["isobar_http_panics_total 0", "isobar_query_panics_total 0"] {
        ensure!(metrics.contains(panics), "no {panics} in the metrics");
    }
    ensure!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    node.stop()?;
    Ok(())
}

#[test]
fn the_documentation_has_every_row() -> Result<()> {
    let line = |Row(name, _, code, words): &Row| {
        let code = if *code == 0 { "closed".to_owned() } else { code.to_string() };
        let words = if words.is_empty() { String::new() } else { format!("`{words}`") };
        format!("| {name} | {code} | {words} |")
    };
    tests::documented("bad-input.md", rows(0).iter().map(line))
}
