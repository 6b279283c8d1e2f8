//! Remote write 1.0 and 2.0 against a running node: every kind of sample comes back, also after a kill; and what a bad
//! request costs: its answer, what is stored of it, the memory it took, and whether the next good one works.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::Client;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use model::{Histogram, MetricKind};
use tests::node::Node;
use tests::peer::{Helper, prometheus};
use tests::remote_write::{Answer, Fields, Series, Version, body_v1, body_v2, send};
use tests::tier;

/// How much more memory than before bad requests may leave behind.
const MAX_GROWTH_KIB: u64 = 64 << 10;

fn start() -> Result<(tempfile::TempDir, Node)> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &[])?;
    Ok((folder, node))
}

/// The node's time, ms.
fn now(node: &Node) -> Result<i64> {
    Ok((node.api("/api/v1/query?query=time()")?["result"][0].as_f64().context("a time")? * 1000.0) as i64)
}

fn exponential() -> Histogram {
    Histogram {
        integer: true,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2.0,
        count: 12.0,
        sum: 18.5,
        positive_spans: vec![Span { offset: 0, length: 2 }, Span { offset: 1, length: 1 }],
        positive_buckets: vec![1.0, 2.0, 3.0],
        negative_spans: vec![Span { offset: -1, length: 1 }],
        negative_buckets: vec![4.0],
        ..Histogram::default()
    }
}

fn custom() -> Histogram {
    Histogram {
        integer: true,
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 6.0,
        sum: 7.0,
        positive_spans: vec![Span { offset: 0, length: 3 }],
        positive_buckets: vec![1.0, 2.0, 3.0],
        custom_values: Some([0.5, 2.0].into()),
        ..Histogram::default()
    }
}

fn gauge() -> Histogram {
    Histogram {
        integer: false,
        reset_hint: ResetHint::Gauge,
        count: 7.25,
        sum: -1.5,
        positive_spans: vec![Span { offset: 3, length: 1 }],
        positive_buckets: vec![7.25],
        ..Histogram::default()
    }
}

/// A later state of the counters of `h`.
fn grown(h: &Histogram) -> Histogram {
    let mut next = h.clone();
    next.positive_buckets[1] += 5.0;
    next.count += 5.0;
    next.sum += 5.0;
    next
}

fn every_kind(base: i64) -> Vec<Series> {
    let mut floats = Series::of(&[("__name__", "requests_total"), ("job", "kinds"), ("instance", "a")])
        .exemplar(base - 30_000, 0.25, &[("trace_id", "one")])
        .exemplar(base, 0.5, &[("trace_id", "two")]);
    floats.samples = vec![(base - 30_000, 1.0, base - 90_000), (base, 3.0, base - 90_000)];
    floats.metadata = Some((MetricKind::Counter, "Requests.".into(), String::new()));
    let two = |name: &str, h: Histogram| {
        Series::of(&[("__name__", name), ("job", "kinds"), ("instance", "a")])
            .histogram(base - 30_000, h.clone())
            .histogram(base, grown(&h))
    };
    let mut all = vec![floats, two("exponential", exponential()), two("custom", custom())];
    all.push(
        Series::of(&[("__name__", "gauge_histogram"), ("job", "kinds"), ("instance", "a")])
            .histogram(base, gauge()),
    );
    all.push(
        Series::of(&[("__name__", "ended"), ("job", "kinds"), ("instance", "a")])
            .histogram(base - 30_000, exponential())
            .histogram(base, Histogram::stale()),
    );
    all
}

/// Checks by queries that everything of [`every_kind`] is there.
fn check_every_kind(node: &Node, base: i64) -> Result<()> {
    let at = Some(base as f64 / 1000.0);
    for (expression, wanted) in [
        ("requests_total", Some(3.0)),
        ("histogram_count(exponential)", Some(17.0)),
        ("histogram_sum(exponential)", Some(23.5)),
        ("histogram_count(exponential offset 30s)", Some(12.0)),
        ("histogram_count(increase(exponential[31s])) > 4.9 < 5.6", Some(5.0)),
        ("histogram_fraction(-Inf, 0.001, exponential) * 17", Some(6.0)),
        ("histogram_count(custom)", Some(11.0)),
        ("histogram_quantile(1, custom)", Some(2.0)),
        ("histogram_sum(gauge_histogram)", Some(-1.5)),
        ("histogram_count(ended)", None),
        ("histogram_count(ended offset 30s)", Some(12.0)),
        ("count({job=\"kinds\"})", Some(4.0)),
    ] {
        let found = node.value(expression, at)?;
        let close = |(a, b): (f64, f64)| (a - b).abs() < 0.6;
        ensure!(found.is_some() == wanted.is_some(), "{expression}: {found:?} instead of {wanted:?}");
        ensure!(found.zip(wanted).is_none_or(close), "{expression}: {found:?} instead of {wanted:?}");
    }
    let shown = node.query("exponential", at)?;
    let buckets = shown[0]["histogram"][1]["buckets"].as_array().context("buckets")?;
    let counts: Vec<&str> = buckets.iter().filter_map(|b| b[3].as_str()).collect();
    ensure!(counts == ["4", "2", "1", "7", "3"], "{buckets:?}");
    Ok(())
}

#[test]
fn every_kind_of_sample_comes_back_after_a_kill() -> Result<()> {
    for version in [Version::V1, Version::V2] {
        let (folder, node) = start()?;
        let base = now(&node)?;
        let series = every_kind(base);
        let body = if version == Version::V2 { body_v2(&series) } else { body_v1(&series) };
        for _ in 0..2 {
            // The second time everything is there already, which is a success too.
            let answer = send(&mut node.client(), version, None, &body)?;
            ensure!(answer.status == 204, "{answer:?}");
            let written = (version == Version::V2).then_some([2, 7, 2]);
            ensure!(answer.written == written, "{answer:?}");
            check_every_kind(&node, base)?;
        }
        node.kill()?;
        let node = Node::start(&folder.path().join("data"), &[])?;
        check_every_kind(&node, base)?;
        if version == Version::V2 {
            let metadata = node.api("/api/v1/metadata?metric=requests_total")?;
            ensure!(metadata["requests_total"][0]["help"] == "Requests.", "{metadata}");
        }
        // Another value at the same time is refused, the rest of its request is stored.
        let mut other = every_kind(base)[1].clone();
        other.histograms[0].1 = gauge().into();
        other.histograms.push((base + 1_000, grown(&grown(&exponential())).into(), 0));
        let body = if version == Version::V2 { body_v2(&[other]) } else { body_v1(&[other]) };
        let answer = send(&mut node.client(), version, None, &body)?;
        ensure!(answer.status == 400 && answer.text.contains("1 duplicate_timestamp"), "{answer:?}");
        ensure!(answer.written.is_none_or(|written| written == [0, 2, 0]), "{answer:?}");
        ensure!(node.value("histogram_count(exponential)", Some(base as f64 / 1e3 + 1.0))? == Some(22.0));
        check_every_kind(&node, base)?;
        let (status, log) = node.stop()?;
        ensure!(status.success(), "{}", log.join("\n"));
    }
    Ok(())
}

/// A bad request.
struct Case {
    name: &'static str,
    version: Version,
    body: Vec<u8>,
    status: u16,
    /// What the answer's text names.
    text: &'static str,
    /// What the headers of a 2.0 answer say.
    written: [u64; 3],
    /// Series of the case (by its label `case`) that are there afterwards, with their samples.
    stored: &'static [(&'static str, f64)],
}

fn series(case: &str, name: &str) -> Series {
    Series::of(&[("__name__", name), ("case", case)])
}

fn with(change: impl FnOnce(&mut Histogram)) -> Histogram {
    let mut h = exponential();
    change(&mut h);
    h
}

/// A 2.0 request with `symbols` and one series of `refs` with one sample at `timestamp`.
fn raw_v2(symbols: &[&str], refs: &[u64], timestamp: i64) -> Vec<u8> {
    let mut request = Fields::default();
    for symbol in symbols {
        request.bytes(4, symbol.as_bytes());
    }
    let mut series = Fields::default();
    let mut sample = Fields::default();
    sample.double(1, 1.0).varint(2, timestamp as u64);
    series.packed(1, refs.iter().copied()).bytes(2, &sample.0);
    request.bytes(5, &series.0);
    request.0
}

/// A 1.0 request with a series of these labels, as they are, and one sample.
fn raw_v1(pairs: &[(&[u8], &[u8])], timestamp: i64) -> Vec<u8> {
    let mut series = Fields::default();
    for (name, value) in pairs {
        let mut label = Fields::default();
        label.bytes(1, name).bytes(2, value);
        series.bytes(1, &label.0);
    }
    let mut sample = Fields::default();
    sample.double(1, 1.0).varint(2, timestamp as u64);
    series.bytes(2, &sample.0);
    let mut request = Fields::default();
    request.bytes(1, &series.0);
    request.0
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases(now: i64) -> Vec<Case> {
    let case = |name, version, body, status, text| Case {
        name,
        version,
        body,
        status,
        text,
        written: [0; 3],
        stored: &[],
    };
    let (v1, v2) = (Version::V1, Version::V2);
    let name: &[u8] = b"__name__";
    let histograms = |label: &'static str, bad: Histogram| {
        let all = [series(label, "good").float(now, 1.0), series(label, "bad").histogram(now, bad)];
        (body_v2(&all), body_v1(&all))
    };
    let mut all = Vec::new();
    for (label, bad, text) in [
        ("negative offset", with(|h| h.positive_spans[1].offset = -1), "has a span that goes back"),
        ("too long spans", with(|h| h.positive_spans[0].length = 9), "has spans that do not fit its buckets"),
        ("2^31 buckets", with(|h| h.positive_spans[1].length = 1 << 31), "has a bucket index out of range"),
        ("schema", with(|h| h.schema = 60), "has an unknown schema"),
        ("count", with(|h| h.count = 13.0), "counts other than its buckets"),
        (
            "negative bucket",
            with(|h| (h.integer, h.positive_buckets[0]) = (false, -1.0)),
            "has a bucket with a negative count",
        ),
    ] {
        let (second, first) = histograms(label, bad);
        for (version, body) in [(v1, first), (v2, second)] {
            let stored = [("good", 1.0)];
            let written = [1, 0, 0];
            let stored = Box::leak(Box::new(stored));
            all.push(Case { written, stored, ..case(label, version, body, 400, text) });
        }
    }
    let mut fields = Fields::default();
    fields.varint(1, 5).varint(15, now as u64);
    for _ in 0..70_000 {
        fields.bytes(11, &Fields::default().signed(1, 1).varint(2, 1).0);
    }
    let spans = {
        let mut request = Fields::default();
        let mut one = Fields::default();
        one.bytes(1, &Fields::default().bytes(1, name).bytes(2, b"x").0).bytes(4, &fields.0);
        request.bytes(1, &one.0);
        request.0
    };
    all.push(case("70,000 spans", v1, spans, 413, "spans of a histogram"));
    all.extend([
        case("no protobuf", v1, b"\xff\xff\xff\xff".to_vec(), 400, "protobuf"),
        case("no protobuf", v2, b"\xff\xff\xff\xff".to_vec(), 400, "protobuf"),
        case("a field cut short", v1, vec![0x0a, 0x7f, 1], 400, "protobuf"),
        case("1-byte fields", v1, [0x0a, 0].repeat(15 << 20), 413, "series of a request"),
        case("no name", v1, raw_v1(&[(b"case", b"no name")], now), 400, "has no metric name"),
        case(
            "repeated label",
            v1,
            raw_v1(&[(name, b"x"), (b"a", b"1"), (b"a", b"2")], now),
            400,
            "appears twice",
        ),
        case("not UTF-8", v1, raw_v1(&[(name, b"x"), (b"a", b"\xff")], now), 400, "UTF-8"),
        case("long value", v1, raw_v1(&[(name, b"x"), (b"a", &[b'v'; 1 << 20])], now), 400, "the limit is"),
        case("timestamp i64::MIN", v1, raw_v1(&[(name, b"x"), (b"case", b"t")], i64::MIN), 400, "too_old"),
        case("timestamp i64::MAX", v1, raw_v1(&[(name, b"x"), (b"case", b"t")], i64::MAX), 400, "too_far"),
        case("ref beyond", v2, raw_v2(&["", "__name__", "x"], &[1, 7], now), 400, "beyond the symbols"),
        case(
            "ref beyond u32",
            v2,
            raw_v2(&["", "__name__", "x"], &[1, 1 << 40], now),
            400,
            "beyond the symbols",
        ),
        case("odd refs", v2, raw_v2(&["", "__name__", "x"], &[1, 2, 1], now), 400, "odd number"),
        case("first symbol", v2, raw_v2(&["x", "__name__"], &[1, 0], now), 400, "first symbol"),
        case("no name", v2, raw_v2(&["", "case", "no name"], &[1, 2], now), 400, "has no metric name"),
        case("repeated label", v2, raw_v2(&["", "__name__", "x"], &[1, 2, 1, 2], now), 400, "appears twice"),
    ]);
    let many: Vec<(Vec<u8>, Vec<u8>)> =
        (0..100_000).map(|i| (format!("l{i}").into_bytes(), b"v".to_vec())).collect();
    let mut pairs: Vec<(&[u8], &[u8])> = many.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    pairs.push((name, b"x"));
    all.push(case("100,000 labels", v1, raw_v1(&pairs, now), 400, "label_limit"));
    // A few kilobytes that would become half a gigabyte of labels.
    let long = "v".repeat(60_000);
    let mut bomb = Fields::default();
    for symbol in ["", "__name__", long.as_str()] {
        bomb.bytes(4, symbol.as_bytes());
    }
    let mut one = Fields::default();
    one.packed(1, [1, 2]).bytes(2, &Fields::default().double(1, 1.0).varint(2, now as u64).0);
    for _ in 0..9_000 {
        bomb.bytes(5, &one.0);
    }
    all.push(case("fan-out of symbols", v2, bomb.0, 413, "after expansion"));
    let mut symbols = Fields::default();
    symbols.bytes(4, b"");
    for i in 0..1_000_000 {
        symbols.bytes(4, format!("s{i}").as_bytes());
    }
    symbols.0.extend(raw_v2(&[], &[1, 2], now));
    all.push(case("10^6 symbols with two used", v2, symbols.0, 400, "has no metric name"));
    let empty = Series::of(&[("__name__", "empty"), ("case", "empty series")]);
    all.push(Case {
        written: [1, 0, 0],
        stored: &[("good", 1.0)],
        ..case(
            "empty series",
            v2,
            body_v2(&[series("empty series", "good").float(now, 1.0), empty]),
            400,
            "must contain at least one sample or histogram",
        )
    });
    let twice = series("twice", "same").float(now, 1.0).float(now, 2.0).float(now + 1, 3.0);
    all.push(Case {
        written: [2, 0, 0],
        stored: &[("same", 2.0)],
        ..case("twice", v2, body_v2(&[twice]), 400, "1 duplicate_timestamp")
    });
    let mixed = series("exemplars", "e")
        .float(now, 1.0)
        .exemplar(now, 1.0, &[("trace_id", "b")])
        .exemplar(now - 5, 1.0, &[("trace_id", "a")])
        .exemplar(now + 1, 1.0, &[("trace_id", &"x".repeat(200))]);
    all.push(Case {
        written: [1, 0, 1],
        stored: &[("e", 1.0)],
        ..case("exemplars", v2, body_v2(&[mixed]), 400, "out_of_order_exemplar")
    });
    all
}

/// Odd values that are good ones.
fn odd(now: i64) -> Vec<Series> {
    let values =
        [f64::NAN, f64::from_bits(0x7ff8_0000_0000_1234), f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324];
    let mut all: Vec<Series> =
        values.iter().map(|v| series(&format!("odd {:x}", v.to_bits()), "odd").float(now, *v)).collect();
    all.push(series("<script>alert(\"\\n\")</script>\0\n\u{1F600}", "odd").float(now, 1.0));
    all.push(series("late", "late").float(now, 1.0).float(now - 60_000, 2.0).float(now - 30_000, 3.0));
    all.push(series("fine", "fine").histogram(now, with(|h| h.schema = 10)));
    all
}

fn good(client: &mut Client, number: usize, now: i64) -> Result<Answer> {
    let body = body_v2(&[series("good", "good").float(now + number as i64, number as f64)]);
    send(client, Version::V2, None, &body)
}

#[test]
fn bad_requests_cost_only_themselves() -> Result<()> {
    let (_folder, node) = start()?;
    let now = now(&node)?;
    let mut client = node.client();
    ensure!(good(&mut client, 0, now)?.status == 204);
    let before = node.memory_kb("VmRSS")?;
    for (number, case) in (1..).zip(cases(now)) {
        let what = format!("{} ({:?})", case.name, case.version);
        let answer = send(&mut client, case.version, None, &case.body).context(what.clone())?;
        ensure!(answer.status == case.status, "{what}: {answer:?}");
        ensure!(answer.text.contains(case.text), "{what}: {}", answer.text);
        ensure!(answer.text.len() < 1_500, "{what}: an answer of {} bytes", answer.text.len());
        let written = (case.version == Version::V2).then_some(case.written);
        ensure!(answer.written == written, "{what}: {answer:?}");
        let selector = format!("sort(count_over_time({{case={:?}}}[1h]))", case.name);
        let found = node.query(&selector, Some(now as f64 / 1e3 + 1.0))?;
        let found: BTreeMap<String, f64> = found
            .as_array()
            .context("a vector")?
            .iter()
            .map(|s| {
                let count = s["value"][1].as_str().and_then(|v| v.parse().ok()).context("a count")?;
                Ok((s["metric"].to_string(), count))
            })
            .collect::<Result<_>>()?;
        // The same case in the other version has the same series.
        let counts: Vec<f64> = found.values().copied().collect();
        let wanted: Vec<f64> = case.stored.iter().map(|(_, samples)| *samples).collect();
        ensure!(counts == wanted, "{what}: {found:?} instead of {:?}", case.stored);
        let next = good(&mut client, number, now)?;
        ensure!(next.status == 204 && next.written == Some([1, 0, 0]), "after {what}: {next:?}");
    }
    let after = node.memory_kb("VmRSS")?;
    ensure!(after < before + MAX_GROWTH_KIB, "{before} KiB before, {after} KiB after");

    for version in [Version::V1, Version::V2] {
        let series = odd(now);
        let body = if version == Version::V2 { body_v2(&series) } else { body_v1(&series) };
        let answer = send(&mut client, version, None, &body)?;
        ensure!(answer.status == 204, "{answer:?}");
    }
    let at = Some(now as f64 / 1e3);
    ensure!(node.value("count(odd)", at)? == Some(7.0));
    ensure!(node.value("1 / odd{case=\"odd 8000000000000000\"}", at)? == Some(f64::NEG_INFINITY));
    ensure!(node.value("sum_over_time(late[2m])", at)? == Some(6.0), "late samples are kept");
    let shown = node.query("fine", at)?;
    ensure!(shown[0]["histogram"][1]["count"] == "12", "{shown}");
    Ok(())
}

/// A target that answers every scrape with one integer native histogram with a later state each time, in the protobuf
/// format; gives its address.
fn native_target() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for (number, stream) in (1u64..).zip(listener.incoming().flatten()) {
            if answer_scrape(stream, number).is_err() {
                return;
            }
        }
    });
    Ok(address)
}

fn answer_scrape(mut stream: TcpStream, number: u64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut span = Fields::default();
    span.signed(1, 2).varint(2, 2);
    let mut histogram = Fields::default();
    histogram
        .varint(1, 3 * number)
        .double(2, 4.5 * number as f64)
        .signed(5, 3)
        .double(6, 1e-128)
        .varint(7, number);
    histogram.bytes(12, &span.0).signed(13, number as i64).signed(13, 0);
    let mut metric = Fields::default();
    metric.bytes(7, &histogram.0);
    let mut family = Fields::default();
    family.bytes(1, b"native_seconds").bytes(2, b"A native one.").varint(3, 4).bytes(4, &metric.0);
    let mut body = Fields::default();
    body.bytes(0, &family.0);
    // Delimited: the length without the tag that `bytes` wrote.
    let body = &body.0[1..];
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf; \
         proto=io.prometheus.client.MetricFamily; encoding=delimited\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

#[test]
fn a_prometheus_sends_native_histograms() -> Result<()> {
    let prometheus = prometheus();
    if !tier("peers", prometheus.as_ref().err().cloned()) {
        return Ok(());
    }
    let Ok(prometheus) = prometheus else { return Ok(()) };
    let (folder, mut node) = start()?;
    let config = folder.path().join("peer.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: native\n    static_configs:\n      - targets: \
             [\"{}\"]\nremote_write:\n  - url: http://{}/api/v1/write\n    send_native_histograms: true\n    \
             send_exemplars: true\n",
            native_target()?,
            node.address
        ),
    )?;
    let peer = Command::new(&prometheus)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("peer").display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .arg("--enable-feature=native-histograms,exemplar-storage")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _peer = Helper(peer);
    let patience = Duration::from_secs(60);
    node.eventually(patience, "histograms arrive and grow", |n| {
        n.value("histogram_count(native_seconds) > 15", None)
    })?;
    let ratio = "histogram_sum(native_seconds) / histogram_count(native_seconds)";
    ensure!(node.value(ratio, None)? == Some(1.5));
    let resets = node.value("resets(native_seconds[1m])", None)?;
    ensure!(resets == Some(0.0), "{resets:?}");
    let quantile = node.value("histogram_quantile(0.9, rate(native_seconds[10s]))", None)?;
    ensure!(quantile.is_some_and(|q| (1.0..1.5).contains(&q)), "{quantile:?}");
    Ok(())
}

#[test]
fn what_is_not_remote_write_is_refused_by_its_headers() -> Result<()> {
    let (_folder, mut node) = start()?;
    let now = now(&node)?;
    let mut client = node.client();
    let body = body_v2(&[series("headers", "x").float(now, 1.0)]);
    let packed = snap::raw::Encoder::new().compress_vec(&body)?;
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    for (content_type, encoding, body, status) in [
        ("application/x-protobuf;proto=io.prometheus.write.v9.Request", "snappy", &packed, 415),
        ("application/json", "snappy", &packed, 415),
        (v2, "zstd", &packed, 415),
        (v2, "snappy", &body, 400),
        (v2, "snappy", &vec![0xff, 0xff, 0xff, 0xff, 0x0f], 413),
        (v2, "snappy", &b"\xff\x06\x00\x00sNaPpY".to_vec(), 400),
        (v2, "snappy", &packed, 204),
        (v2, "", &packed, 204),
    ] {
        let headers = [("Content-Type", content_type), ("Content-Encoding", encoding)];
        let (found, text) = client.request("POST", "/api/v1/write", &headers, body)?;
        ensure!(found == status, "{content_type} {encoding}: {found} {}", String::from_utf8_lossy(&text));
    }
    node.eventually(Duration::from_secs(10), "the good one is there", |n| {
        Ok(n.value("x", Some(now as f64 / 1e3))?.filter(|v| *v == 1.0))
    })?;
    Ok(())
}
