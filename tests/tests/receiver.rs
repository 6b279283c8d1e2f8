//! What a receiver of remote write 2.0 must and should do, case by case as the checks of prometheus/compliance have it
//! (`remotewrite/receiver`): codes, counts in the headers, and what of a request is stored.

use anyhow::{Result, ensure};
use benches::http::Client;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::seam::{Clock as _, SystemClock};
use model::{Histogram, MetricKind};
use tests::node::Node;
use tests::remote_write::{Fields, Series, Version, body_v1, body_v2, send};

/// A case: its name, the series, and what is stored of it; with none of them the answer is 400.
type Case = (String, Vec<Series>, [u64; 3]);

fn float(labels: &[(&str, &str)], at: i64, value: f64) -> Series {
    Series::of(labels).float(at, value)
}

const JOB: &[(&str, &str)] = &[("__name__", "up"), ("job", "testjob"), ("instance", "localhost:9090")];

/// Floats of every kind of value under labels of every kind.
fn values(at: i64, out: &mut Vec<Case>) {
    for (number, value) in
        [1.0, model::stale_nan(), f64::from_bits(0x7ff8_0000_0000_0001), f64::INFINITY, f64::NEG_INFINITY]
            .into_iter()
            .enumerate()
    {
        let at = at + number as i64;
        for (name, labels, good) in [
            ("a name", &[("__name__", "up")][..], true),
            ("labels", JOB, true),
            (
                "line ends",
                &[("__name__", "up"), ("job", "test\njob\n"), ("instance", "localhost:9090")],
                true,
            ),
            ("dots", &[("__name__", "resource.cpu.usage"), ("job.name", "testjob")], true),
            ("spaces", &[("__name__", "resource cpu usage"), ("job name", "testjob")], true),
            ("no name", &[("job", "testjob"), ("instance", "localhost:9090")], false),
            ("no labels", &[], false),
        ] {
            let series = vec![float(labels, at, value)];
            out.push((format!("{value}, {name}"), series, [u64::from(good), 0, 0]));
        }
        let several = |unnamed: usize| -> Vec<Series> {
            (0..4)
                .map(|n| {
                    let instance = format!("localhost:{}", 9090 + n);
                    let mut labels = vec![("job", "several"), ("instance", instance.as_str())];
                    if n >= unnamed {
                        labels.push(("__name__", "up"));
                    }
                    float(&labels, at + 1_000, value)
                })
                .collect()
        };
        for unnamed in [0, 1, 4] {
            out.push((
                format!("{value}, {unnamed} of 4 without a name"),
                several(unnamed),
                [4 - unnamed as u64, 0, 0],
            ));
        }
    }
}

fn histogram(positive: bool, negative: bool, zero: bool) -> Histogram {
    let mut h = Histogram { integer: true, sum: 1.5, ..Histogram::default() };
    if positive {
        h.positive_spans = vec![Span { offset: 0, length: 3 }, Span { offset: 2, length: 2 }];
        h.positive_buckets = vec![1.0, 3.0, 4.0, 7.0, 8.0];
        h.count += 23.0;
    }
    if negative {
        h.negative_spans = vec![Span { offset: 0, length: 2 }];
        h.negative_buckets = vec![1.0, 2.0];
        h.count += 3.0;
    }
    if zero {
        h.zero_count = 1.0;
        h.count += 1.0;
    }
    h
}

fn custom() -> Histogram {
    Histogram {
        integer: true,
        schema: CUSTOM_BUCKETS_SCHEMA,
        sum: 1.0,
        count: 30.0,
        positive_spans: vec![Span { offset: 0, length: 6 }],
        positive_buckets: vec![2.0, 3.0, 5.0, 8.0, 7.0, 5.0],
        custom_values: Some([0.1, 0.5, 1.0, 2.5, 5.0, 10.0].into()),
        ..Histogram::default()
    }
}

fn histograms(at: i64, out: &mut Vec<Case>) {
    let of = |name: &str, h: Histogram| vec![Series::of(&[("__name__", name)]).histogram(at, h)];
    for (name, h) in [
        ("all", histogram(true, true, true)),
        ("custom", custom()),
        ("positive", histogram(true, false, true)),
        ("negative", histogram(false, true, false)),
        ("zero", histogram(false, false, true)),
        ("empty", histogram(false, false, false)),
        ("float", Histogram { integer: false, ..histogram(true, true, true) }),
        ("stale", Histogram::stale()),
    ] {
        out.push((format!("histogram: {name}"), of(&format!("h_{name}"), h), [0, 1, 0]));
    }
    for (name, h) in [
        ("count", Histogram { count: 99.0, ..histogram(true, false, false) }),
        (
            "a span too long",
            Histogram { positive_spans: vec![Span { offset: 0, length: 9 }], ..histogram(true, false, true) },
        ),
        (
            "bounds that descend",
            Histogram { custom_values: Some([1.0, 0.5, 1.0, 2.5, 5.0, 10.0].into()), ..custom() },
        ),
        (
            "a bound +Inf",
            Histogram { custom_values: Some([0.1, 0.5, 1.0, 2.5, 5.0, f64::INFINITY].into()), ..custom() },
        ),
        (
            "custom with a negative side",
            Histogram {
                negative_spans: vec![Span { offset: 0, length: 1 }],
                negative_buckets: vec![0.0],
                ..custom()
            },
        ),
        ("an unknown schema", Histogram { schema: -9, ..histogram(true, false, true) }),
    ] {
        out.push((format!("histogram: {name}"), of("h_bad", h), [0, 0, 0]));
    }
    let mut good = of("h_good", histogram(true, true, false));
    good.extend(of("h_bad", Histogram { count: 99.0, ..histogram(true, false, false) }));
    good[0] = good[0].clone().exemplar(at, 1.5, &[("trace_id", "x")]);
    out.push(("histogram: one of two is bad".into(), good, [0, 1, 1]));
}

fn exemplars(at: i64, out: &mut Vec<Case>) {
    for (name, labels) in [
        ("trace", &[("trace_id", "abc123def456")][..]),
        ("span", &[("trace_id", "xyz789"), ("span_id", "span123")]),
        ("other", &[("user_id", "user123")]),
        ("several", &[("trace_id", "trace456"), ("user", "admin"), ("endpoint", "/login")]),
        ("none", &[]),
        ("unicode", &[("trace_id", "unicode_trace_测试")]),
    ] {
        let series = float(&[("__name__", &format!("e_{name}")), ("region", "🌍")], at, 1.0);
        out.push((format!("exemplar: {name}"), vec![series.exemplar(at, 1.0, labels)], [1, 0, 1]));
    }
    for (number, value) in
        [0.0, -123.456, 1e10, 1e-10, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().enumerate()
    {
        let name = format!("e_value_{number}");
        let series = float(&[("__name__", &name)], at, value).exemplar(at, value, &[("trace_id", "v")]);
        out.push((format!("exemplar: {value}"), vec![series], [1, 0, 1]));
    }
    let mut over_time = Series::of(&[("__name__", "e_times")]);
    for back in [3_600_000, 60_000, 0] {
        over_time = over_time.float(at - back, 0.5).exemplar(at - back, 0.5, &[("trace_id", "t")]);
    }
    out.push(("exemplar: over an hour".into(), vec![over_time], [3, 0, 3]));
    let unnamed = float(&[("job", "test")], at, 1.0).exemplar(at, 1.0, &[("trace_id", "t")]);
    out.push(("exemplar: of a series without a name".into(), vec![unnamed], [0; 3]));
    let alone = Series::of(&[("__name__", "e_alone")]).exemplar(at, 1.0, &[("trace_id", "t")]);
    out.push(("exemplar: without a sample".into(), vec![alone], [0; 3]));
    // As Prometheus 3 sends them: each exemplar in a series of its own, here with the first sample, and later without.
    let named = || Series::of(&[("__name__", "e_apart")]);
    let apart = |at: i64| named().exemplar(at, 1.0, &[("trace_id", "t")]);
    out.push(("exemplar: beside its series".into(), vec![apart(at), named().float(at, 1.0)], [1, 0, 1]));
    out.push(("exemplar: after its series".into(), vec![apart(at + 1)], [0, 0, 1]));
    let long = "x".repeat(200);
    let long = float(&[("__name__", "e_long")], at, 1.0).exemplar(at, 1.0, &[("trace_id", &long)]);
    out.push(("exemplar: too long".into(), vec![long], [1, 0, 0]));
}

fn metadata(at: i64, out: &mut Vec<Case>) {
    for (number, kind) in (0..).zip([
        MetricKind::Unknown,
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Summary,
        MetricKind::Histogram,
        MetricKind::GaugeHistogram,
        MetricKind::Info,
        MetricKind::StateSet,
    ]) {
        for (which, help, unit) in
            [("texts", "Test metric with\nnewlines and \"quotes\"", "bytes/sec"), ("nothing", "", "")]
        {
            let name = format!("m_{number}_{which}");
            let mut series = float(&[("__name__", &name)], at, 1.0);
            series.metadata = Some((kind, help.into(), unit.into()));
            out.push((format!("metadata: {kind:?}, {which}"), vec![series], [1, 0, 0]));
        }
    }
    let mut alone = Series::of(&[("__name__", "m_alone")]);
    alone.metadata = Some((MetricKind::Counter, "Orphan.".into(), String::new()));
    out.push(("metadata: without a sample".into(), vec![alone], [0; 3]));
    let many: Vec<Series> = (0..50)
        .map(|n| {
            let mut series =
                float(&[("__name__", &format!("many_{n}")), ("series", &n.to_string())], at, n.into());
            series.metadata = Some((MetricKind::Counter, format!("Counter number {n}"), "count".into()));
            series.exemplar(at, n.into(), &[("trace_id", &format!("trace_{n}"))])
        })
        .collect();
    out.push(("fifty with everything".into(), many, [50, 0, 50]));
}

fn times(at: i64, out: &mut Vec<Case>) {
    let of = |name: &str| Series::of(&[("__name__", name)]);
    let mut started = of("t_started").float(at, 1.0).histogram(at + 1, histogram(true, false, false));
    started.samples[0].2 = at - 3_600_000;
    started.histograms[0].2 = at - 3_600_000;
    out.push(("start timestamps".into(), vec![started], [1, 1, 0]));
    let late = of("t_late").float(at, 1.0).float(at - 60_000, 2.0).float(at - 3_600_000, 3.0);
    out.push(("late samples".into(), vec![late], [3, 0, 0]));
    out.push(("the same sample twice".into(), vec![of("t_twice").float(at, 1.0).float(at, 1.0)], [2, 0, 0]));
    out.push(("two values at a time".into(), vec![of("t_two").float(at, 1.0).float(at, 2.0)], [1, 0, 0]));
    out.push((
        "a series twice".into(),
        vec![of("t_again").float(at, 1.0), of("t_again").float(at + 1, 2.0)],
        [2, 0, 0],
    ));
    out.push((
        "too far ahead".into(),
        vec![of("t_ahead").float(at + 3_600_000, 1.0), of("t_now").float(at, 1.0)],
        [1, 0, 0],
    ));
    out.push(("too old".into(), vec![of("t_old").float(1_000, 1.0), of("t_new").float(at, 1.0)], [1, 0, 0]));
    out.push(("nothing".into(), Vec::new(), [0; 3]));
}

/// How many of each kind the series hold.
fn sent(series: &[Series]) -> [u64; 3] {
    let sum = |count: fn(&Series) -> usize| series.iter().map(count).sum::<usize>() as u64;
    [sum(|s| s.samples.len()), sum(|s| s.histograms.len()), sum(|s| s.exemplars.len())]
}

#[test]
fn each_request_has_its_code_and_true_counts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &["--config.file=/dev/null"])?;
    let at = SystemClock::new().now_ms() - 10_000;
    let mut cases = Vec::new();
    for add in [values, histograms, exemplars, metadata, times] {
        add(at, &mut cases);
    }
    let mut wrong = Vec::new();
    let mut client = node.client();
    for (name, series, stored) in &cases {
        let is_whole = sent(series) == *stored
            && series
                .iter()
                .all(|s| !(s.samples.is_empty() && s.histograms.is_empty() && s.exemplars.is_empty()));
        let code = if is_whole { 204 } else { 400 };
        // The same again is the same answer.
        for _ in 0..2 {
            let answer = send(&mut client, Version::V2, None, &body_v2(series))?;
            if answer.status != code || answer.written != Some(*stored) {
                wrong.push(format!("{name}: {code} {stored:?} wanted: {answer:?}"));
            }
            if code == 400 && (answer.text.is_empty() || answer.text.len() > 1_500) {
                wrong.push(format!("{name}: a text of {} bytes", answer.text.len()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    ensure!(cases.len() > 100, "{} cases", cases.len());
    let of_metadata = node.api("/api/v1/metadata?metric=m_1_texts")?;
    ensure!(of_metadata["m_1_texts"][0]["unit"] == "bytes/sec", "{of_metadata}");
    Ok(())
}

/// A request by its headers: what it is called, they, the body, the code.
type Headed<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

#[test]
fn headers_decide_and_1_0_is_taken_beside_2_0() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &["--config.file=/dev/null"])?;
    let at = SystemClock::new().now_ms() - 10_000;
    let (first, second) =
        ("application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    let pack = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body);
    let one = vec![Series::of(JOB).float(at, 1.0)];
    let (body_1, body_2) = (pack(&body_v1(&one))?, pack(&body_v2(&one))?);
    let mut spoiled = body_2.clone();
    spoiled[0] = b'0';
    let ask = |headers: &[(&str, &str)], body: &[u8]| {
        Client::new(&node.address).exchange("POST", "/api/v1/write", headers, body)
    };
    let snappy = ("Content-Encoding", "snappy");
    let version = ("X-Prometheus-Remote-Write-Version", "2.0.0");
    let cases: &[Headed<'_>] = &[
        ("JSON", &[("Content-Type", "application/json"), snappy], &spoiled, 415),
        ("a picture", &[("Content-Type", "image/png"), snappy], &spoiled, 415),
        ("gzip", &[("Content-Type", second), ("Content-Encoding", "gzip")], &spoiled, 415),
        ("deflate", &[("Content-Type", second), ("Content-Encoding", "deflate")], &spoiled, 415),
        (
            "another message",
            &[("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v9.Request"), snappy],
            &body_2,
            415,
        ),
        ("spoiled", &[("Content-Type", second), snappy, version], &spoiled, 400),
        ("1.0 spoiled", &[("Content-Type", first), snappy], &[&[0xff], &body_1[1..]].concat(), 400),
        ("1.0 as 2.0", &[("Content-Type", second), snappy], &body_1, 400),
        ("2.0 as 1.0", &[("Content-Type", first), snappy], &body_2, 400),
        ("2.0", &[("Content-Type", second), snappy, version], &body_2, 204),
        (
            "2.0 with a blank",
            &[("Content-Type", "application/x-protobuf; proto=io.prometheus.write.v2.Request"), snappy],
            &body_2,
            204,
        ),
        (
            "2.0 in quotes",
            &[("Content-Type", "application/x-protobuf;proto=\"io.prometheus.write.v2.Request\""), snappy],
            &body_2,
            204,
        ),
        ("2.0 without an encoding", &[("Content-Type", second)], &body_2, 204),
        (
            "2.0 with the version of 1.0",
            &[("Content-Type", second), snappy, ("X-Prometheus-Remote-Write-Version", "0.1.0")],
            &body_2,
            204,
        ),
        ("1.0", &[("Content-Type", first), snappy], &body_1, 204),
        (
            "1.0 with its message",
            &[("Content-Type", "application/x-protobuf;proto=prometheus.WriteRequest"), snappy],
            &body_1,
            204,
        ),
        ("1.0 without a type", &[snappy], &body_1, 204),
        ("an empty 2.0", &[("Content-Type", second), snappy], &[0], 204),
        ("an empty 1.0", &[("Content-Type", first), snappy], &[0], 204),
    ];
    for (name, headers, body, status) in cases {
        let answer = ask(headers, body)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == *status, "{name}: {} {text}", answer.status);
        let counts = answer.header("x-prometheus-remote-write-samples-written");
        let is_second = headers.iter().any(|(_, value)| value.contains("write.v2.Request"));
        let wanted = match (is_second, status) {
            (true, 204) if body.len() == 1 => Some("0"),
            (true, 204) => Some("1"),
            (true, 400) => Some("0"),
            _ => None,
        };
        ensure!(counts == wanted, "{name}: {counts:?} instead of {wanted:?}");
    }
    // What 1.0 cannot store is told with the same code, and without counts; bad exemplars are not.
    let mut client = node.client();
    let bad =
        vec![Series::of(&[("job", "x")]).float(at, 1.0), Series::of(&[("__name__", "good")]).float(at, 1.0)];
    let answer = send(&mut client, Version::V1, None, &body_v1(&bad))?;
    ensure!((answer.status, answer.written) == (400, None) && answer.text.contains("1 were"), "{answer:?}");
    let long = "x".repeat(200);
    let exemplar =
        vec![Series::of(&[("__name__", "long")]).float(at, 1.0).exemplar(at, 1.0, &[("trace_id", &long)])];
    let answer = send(&mut client, Version::V1, None, &body_v1(&exemplar))?;
    ensure!((answer.status, answer.written) == (204, None), "{answer:?}");
    ensure!(node.value("count({__name__=~\"good|long\"})", Some((at + 1) as f64 / 1e3))? == Some(2.0));
    Ok(())
}

/// References that name no symbol cost only their series or exemplar.
#[test]
fn wrong_references_cost_only_their_series() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(&folder.path().join("data"), &["--config.file=/dev/null"])?;
    let at = SystemClock::new().now_ms() - 10_000;
    let sample = Fields::default().double(1, 1.0).varint(2, at as u64).clone();
    let series = |refs: &[u64], more: &[(u64, Vec<u8>)]| {
        let mut out = Fields::default();
        out.packed(1, refs.iter().copied()).bytes(2, &sample.0);
        more.iter().for_each(|(number, bytes)| {
            out.bytes(*number, bytes);
        });
        out
    };
    let symbols = ["", "__name__", "first", "second", "third", "id", "a"];
    let exemplar = |refs: &[u64]| {
        let mut out = Fields::default();
        out.packed(1, refs.iter().copied()).double(2, 1.0).varint(3, at as u64);
        out.0
    };
    let unit = Fields::default().varint(1, 1).varint(4, 99).0.clone();
    let all = [
        series(&[1, 2], &[(4, exemplar(&[5, 6])), (4, exemplar(&[5, 99]))]),
        series(&[1, 99], &[]),
        series(&[1, 3, 5], &[]),
        series(&[1, 3], &[(5, unit)]),
        series(&[1, 4], &[]),
    ];
    let mut request = Fields::default();
    for symbol in symbols {
        request.bytes(4, symbol.as_bytes());
    }
    for one in &all {
        request.bytes(5, &one.0);
    }
    let answer = send(&mut node.client(), Version::V2, None, &request.0)?;
    ensure!((answer.status, answer.written) == (400, Some([2, 0, 1])), "{answer:?}");
    for words in [
        "3 invalid_labels",
        "1 exemplar_labels",
        "series 1 of the request: label reference beyond the symbols",
    ] {
        ensure!(answer.text.contains(words), "{words} is not in {}", answer.text);
    }
    let names = node.api("/api/v1/label/__name__/values")?;
    ensure!(names == serde_json::json!(["first", "third"]), "{names}");
    Ok(())
}
