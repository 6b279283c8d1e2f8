//! JSON in, series out, in both codings: the protobuf of a request is made from its JSON. Lines:
//! `labels value@time start=… exemplars`.

use std::collections::BTreeSet;

use model::seam::WriteBatch;
use model::{Exemplar, Histogram, Labels, TenantId};

use super::*;

const NOW: i64 = 2_000_000;

fn context() -> Context {
    Context { tenant: TenantId::anonymous(), now_ms: NOW, limits: RequestLimits::default() }
}

fn shown_labels(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn shown_exemplars(exemplars: &[Exemplar]) -> String {
    let one = |e: &Exemplar| format!(" #{{{}}} {}@{}", shown_labels(&e.labels), e.value, e.timestamp);
    exemplars.iter().map(one).collect()
}

fn shown_histogram(histogram: &Histogram) -> String {
    if histogram.is_stale() {
        return "stale".into();
    }
    let side = |spans: &[model::histogram::Span], counts: &[f64]| {
        let pairs = crate::buckets::indexed(spans, counts).filter(|(_, count)| *count != 0.0);
        pairs.map(|(index, count)| format!("{index}:{count}")).collect::<Vec<_>>().join(" ")
    };
    format!(
        "schema={} count={} sum={} zero={}/{:e} [{}] [{}] {:?}",
        histogram.schema,
        histogram.count,
        histogram.sum,
        histogram.zero_count,
        histogram.zero_threshold,
        side(&histogram.negative_spans, &histogram.negative_buckets),
        side(&histogram.positive_spans, &histogram.positive_buckets),
        histogram.custom_values.as_deref().unwrap_or_default(),
    )
}

fn lines(batch: &WriteBatch) -> Vec<String> {
    let mut lines = Vec::new();
    for series in &batch.series {
        let region = &batch.buffer[series.labels.start as usize..series.labels.end as usize];
        let labels = shown_labels(&Labels::from_canonical(region).expect("labels are canonical"));
        let exemplars =
            shown_exemplars(&batch.exemplars[series.exemplars.start as usize..series.exemplars.end as usize]);
        for at in series.samples.start as usize..series.samples.end as usize {
            let sample = batch.samples[at];
            let value = if model::is_stale(sample.value) { "stale".into() } else { sample.value.to_string() };
            let start = batch.starts.get(at).filter(|start| **start != 0);
            let start = start.map_or(String::new(), |start| format!(" start={start}"));
            lines.push(format!("{labels} {value}@{}{start}{exemplars}", sample.timestamp));
        }
        for (timestamp, histogram) in
            &batch.histograms[series.histograms.start as usize..series.histograms.end as usize]
        {
            lines.push(format!("{labels} {}@{timestamp}{exemplars}", shown_histogram(histogram)));
        }
    }
    lines
}

/// The lines of a request, and then what was rejected.
fn run(json: &str, settings: &Settings) -> Vec<String> {
    let both = [
        translate(json.as_bytes(), Coding::Json, &context(), settings),
        translate(&json::to_protobuf(json.as_bytes()).unwrap(), Coding::Protobuf, &context(), settings),
    ];
    let shown = both.map(|translated| {
        let translated = translated.unwrap();
        let mut lines = lines(&translated.batch);
        if translated.rejected > 0 || !translated.reasons.is_empty() {
            lines.push(format!("{} of {} rejected", translated.rejected, translated.points));
            lines.extend(translated.reasons);
        }
        lines
    });
    let [from_json, from_protobuf] = shown;
    assert_eq!(from_json, from_protobuf);
    from_json
}

/// A request with one resource, one scope and these metrics.
fn request(resource: &str, metrics: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{resource}]}},
            "scopeMetrics":[{{"scope":{{"name":"lib","version":"1"}},"metrics":[{metrics}]}}]}}]}}"#
    )
}

fn text(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}

fn gauge(name: &str, attributes: &str, at_ms: i64) -> String {
    format!(
        r#"{{"name":"{name}","gauge":{{"dataPoints":[{{"timeUnixNano":"{at_ms}000000","asDouble":1.5,
            "attributes":[{attributes}]}}]}}}}"#
    )
}

#[test]
fn gauges_and_sums() {
    let json = request(
        "",
        r#"{"name":"queue.length","unit":"1","description":"Waiting.","gauge":{"dataPoints":[
             {"timeUnixNano":"1000000000","asInt":"7"},
             {"timeUnixNano":1000999999,"asDouble":-2.5,"attributes":[{"key":"q.name","value":{"intValue":"4"}}]},
             {"timeUnixNano":"1000000000","flags":1,"attributes":[{"key":"b","value":{"boolValue":true}}]}]}},
           {"name":"requests","sum":{"dataPoints":[
             {"startTimeUnixNano":"500000000","timeUnixNano":"1000000000","asInt":"12",
              "exemplars":[{"timeUnixNano":"900000000","asDouble":3,"traceId":"0af7651916cd43dd8448eb211c80319c",
                "spanId":"b7ad6b7169203331","filteredAttributes":[{"key":"x","value":{"stringValue":"y"}}]}]}],
             "aggregationTemporality":2,"isMonotonic":true}},
           {"name":"level","unit":"By","sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE",
             "dataPoints":[{"timeUnixNano":"1000000000","asInt":"-3"}]}}"#,
    );
    let settings = Settings::default();
    assert_eq!(
        run(&json, &settings),
        [
            "__name__=queue_length_ratio 7@1000",
            "__name__=queue_length_ratio,q_name=4 -2.5@1000",
            "__name__=queue_length_ratio,b=true stale@1000",
            "__name__=requests_total 12@1000 start=500 #{span_id=b7ad6b7169203331,trace_id=0af7651916cd43dd8448eb211c80319c,x=y} 3@900",
            "__name__=level_bytes -3@1000",
        ]
    );
    let translated = translate(json.as_bytes(), Coding::Json, &context(), &settings).unwrap();
    let metadata: Vec<String> = translated
        .batch
        .metadata
        .iter()
        .map(|m| format!("{} {} {:?} {:?}", m.family, m.kind.as_str(), m.help, m.unit))
        .collect();
    let want = [
        r#"queue_length_ratio gauge "Waiting." """#,
        r#"requests_total counter "" """#,
        r#"level_bytes gauge "" "bytes""#,
    ];
    assert_eq!(metadata, want);
}

#[test]
fn histograms_and_summaries() {
    let json = request(
        "",
        r#"{"name":"h","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
             {"startTimeUnixNano":"1000000","timeUnixNano":"1000000000","count":"10","sum":12.5,
              "bucketCounts":["1","2","3","4"],"explicitBounds":[0.5,1,2],
              "exemplars":[{"timeUnixNano":"2000000","asDouble":1.5},{"timeUnixNano":"1000000","asDouble":1.2},
                           {"asInt":"9"}]}]}},
           {"name":"inf","histogram":{"aggregationTemporality":2,"dataPoints":[
             {"timeUnixNano":"1000000000","count":"3","bucketCounts":[1,2,0],"explicitBounds":[1,"Infinity"]}]}},
           {"name":"s","summary":{"dataPoints":[{"timeUnixNano":"1000000000","count":2,"sum":5,
             "quantileValues":[{"quantile":0.5,"value":2},{"quantile":1,"value":3}]}]}}"#,
    );
    assert_eq!(
        run(&json, &Settings::default()),
        [
            "__name__=h_seconds_sum 12.5@1000 start=1",
            "__name__=h_seconds_count 10@1000 start=1",
            "__name__=h_seconds_bucket,le=0.5 1@1000 start=1",
            "__name__=h_seconds_bucket,le=1 3@1000 start=1",
            "__name__=h_seconds_bucket,le=2 6@1000 start=1 #{} 1.2@1 #{} 1.5@2",
            "__name__=h_seconds_bucket,le=+Inf 10@1000 start=1 #{} 9@1000",
            "__name__=inf_count 3@1000",
            "__name__=inf_bucket,le=1 1@1000",
            "__name__=inf_bucket,le=+Inf 3@1000",
            "__name__=s_sum 5@1000",
            "__name__=s_count 2@1000",
            "__name__=s,quantile=0.5 2@1000",
            "__name__=s,quantile=1 3@1000",
        ]
    );
    let settings = Settings { convert_histograms: true, ..Settings::default() };
    assert_eq!(
        run(&json, &settings)[..2],
        [
            "__name__=h_seconds schema=-53 count=10 sum=12.5 zero=0/0e0 [] [0:1 1:2 2:3 3:4] [0.5, 1.0, 2.0]@1000 #{} 1.2@1 #{} 1.5@2 #{} 9@1000",
            "__name__=inf schema=-53 count=3 sum=0 zero=0/0e0 [] [0:1 1:2] [1.0]@1000",
        ]
    );
}

#[test]
fn exponential_histograms() {
    let point = |fields: &str| {
        let metric = format!(
            r#"{{"name":"e","exponentialHistogram":{{"aggregationTemporality":2,
                "dataPoints":[{{"timeUnixNano":"1000000000",{fields}}}]}}}}"#
        );
        run(&request("", &metric), &Settings::default())
    };
    assert_eq!(
        point(
            r#""count":"9","sum":4,"scale":3,"zeroCount":"2","positive":{"offset":-1,"bucketCounts":["1","0","2"]},
               "negative":{"offset":5,"bucketCounts":["4"]}"#
        ),
        ["__name__=e schema=3 count=9 sum=4 zero=2/1e-128 [6:4] [0:1 2:2] []@1000"]
    );
    // Two scales too fine: four buckets become one.
    assert_eq!(
        point(
            r#""count":"9","scale":10,"positive":{"offset":-1,"bucketCounts":[1,1,1,1,1,1]},"zeroThreshold":0.001"#
        ),
        ["__name__=e schema=8 count=9 sum=0 zero=0/1e-3 [] [0:1 1:4 2:1] []@1000"]
    );
    assert_eq!(point(r#""flags":1,"scale":0"#), ["__name__=e stale@1000"]);
    assert_eq!(
        point(r#""count":"1","scale":2147483647,"positive":{"offset":-2147483648,"bucketCounts":[1]}"#),
        ["__name__=e schema=8 count=1 sum=0 zero=0/1e-128 [] [0:1] []@1000"]
    );
    let refused = |fields: &str, reason: &str| {
        assert_eq!(point(fields), ["1 of 1 rejected".to_owned(), format!("metric \"e\": {reason}")]);
    };
    refused(r#""scale":-5"#, "scale must be >= -4, was -5");
    refused(r#""scale":-2147483648"#, "scale must be >= -4, was -2147483648");
    refused(r#""scale":0,"positive":{"offset":2147483647,"bucketCounts":[1]}"#, "bucket index out of range");
}

#[test]
fn labels_of_resource_scope_and_point() {
    let resource = [
        text("service.name", "shop"),
        text("service.namespace", "eu"),
        text("service.instance.id", "i-1"),
        text("host.name", "h1"),
        text("k8s.pod", "p"),
    ]
    .join(",");
    let metrics = gauge("m", &[text("a.b", "1"), text("a/b", "2"), text("job", "own")].join(","), 400_000);
    let json = request(&resource, &(metrics + "," + &gauge("n", "", 1_000_000)));
    let base = Settings { lookback: Duration::from_secs(600), ..Settings::default() };
    assert_eq!(
        run(&json, &base),
        [
            "__name__=m,a_b=1;2,instance=i-1,job=eu/shop 1.5@400000",
            "__name__=n,instance=i-1,job=eu/shop 1.5@1000000",
            "__name__=target_info,host_name=h1,instance=i-1,job=eu/shop,k8s_pod=p 1@400000",
            "__name__=target_info,host_name=h1,instance=i-1,job=eu/shop,k8s_pod=p 1@700000",
            "__name__=target_info,host_name=h1,instance=i-1,job=eu/shop,k8s_pod=p 1@1000000",
        ]
    );
    let first = |settings: Settings| run(&json, &settings).swap_remove(0);
    let last = |settings: Settings| run(&json, &settings).pop().unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        first(Settings { promote: Promote::Only(names(&["host.name", "absent"])), ..base.clone() }),
        "__name__=m,a_b=1;2,host_name=h1,instance=i-1,job=eu/shop 1.5@400000"
    );
    assert_eq!(
        first(Settings { promote: Promote::AllExcept(names(&["host.name"])), ..base.clone() }),
        "__name__=m,a_b=1;2,instance=i-1,job=eu/shop,k8s_pod=p,service_instance_id=i-1,service_name=shop,service_namespace=eu 1.5@400000"
    );
    assert_eq!(
        first(Settings { promote_scope: true, ..base.clone() }),
        "__name__=m,a_b=1;2,instance=i-1,job=eu/shop,otel_scope_name=lib,otel_scope_version=1 1.5@400000"
    );
    assert_eq!(
        first(Settings { strategy: Strategy::NoTranslation, ..base.clone() }),
        "__name__=m,a.b=1,a/b=2,instance=i-1,job=eu/shop 1.5@400000"
    );
    assert_eq!(
        last(Settings { keep_identifying: true, ..base.clone() }),
        "__name__=target_info,host_name=h1,instance=i-1,job=eu/shop,k8s_pod=p,service_instance_id=i-1,service_name=shop,service_namespace=eu 1@1000000"
    );
    // Nothing but the identity, or no identity: no target_info.
    for resource in [text("service.name", "x"), text("host.name", "x"), String::new()] {
        assert_eq!(run(&request(&resource, &gauge("m", "", 1)), &base).len(), 1, "{resource}");
    }
    // A hostile span of time gives a bounded number of samples.
    let far = request(
        &[text("service.name", "x"), text("a", "b")].join(","),
        &(gauge("m", "", 1) + "," + &gauge("m", "", 9_000_000_000_000)),
    );
    assert_eq!(run(&far, &base).len(), 2 + 1001);
}

#[test]
fn values_become_texts() {
    let check = |value: &str, want: &str| {
        let attribute = format!(r#"{{"key":"v","value":{value}}}"#);
        let got = run(&request("", &gauge("m", &attribute, 1)), &Settings::default());
        assert_eq!(got, [format!("__name__=m,v={want} 1.5@1")], "{value}");
    };
    check(r#"{"intValue":-5}"#, "-5");
    check(r#"{"doubleValue":1e21}"#, "1e+21");
    check(r#"{"doubleValue":"NaN"}"#, "NaN");
    check(r#"{"bytesValue":"aGk="}"#, "aGk=");
    check(
        r#"{"kvlistValue":{"values":[{"key":"b","value":{"boolValue":false}},{"key":"a","value":{"stringValue":"<\"x\">\u0001"}}]}}"#,
        r#"{"a":"\u003c\"x\"\u003e\u0001","b":false}"#,
    );
    check(r#"{"arrayValue":{"values":[{"intValue":"1"},{},{"doubleValue":0.5}]}}"#, "[1,null,0.5]");
    check(r#"{"array_value":{"values":[{"string_value":"x"}]},"unknown":[{"deep":[1]}]}"#, r#"["x"]"#);
    let empty = format!(r#"{{"key":"v","value":{}}}"#, "{}");
    assert_eq!(run(&request("", &gauge("m", &empty, 1)), &Settings::default()), ["__name__=m 1.5@1"]);
}

#[test]
fn points_that_make_no_sense_are_counted() {
    let check = |metrics: &str, want: &[&str]| {
        assert_eq!(run(&request("", metrics), &Settings::default()), want, "{metrics}");
    };
    let delta = r#"{"name":"d","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[
        {"timeUnixNano":1000000,"asInt":1},{"asInt":2},{}]}}"#;
    check(
        &[delta, &gauge("m", "", 1)].join(","),
        &[
            "__name__=m 1.5@1",
            "3 of 4 rejected",
            "metric \"d\": delta temporality is not supported, send cumulative points",
        ],
    );
    check(
        r#"{"name":"d","exponentialHistogram":{"dataPoints":[{"scale":0}]}}"#,
        &["1 of 1 rejected", "metric \"d\": aggregation temporality is not stated"],
    );
    let histogram = |point: &str| {
        format!(r#"{{"name":"h","histogram":{{"aggregationTemporality":2,"dataPoints":[{point}]}}}}"#)
    };
    for (point, reason) in [
        (r#"{"bucketCounts":[1,1,1],"explicitBounds":[2,1]}"#, "explicit bounds are not strictly ascending"),
        (r#"{"bucketCounts":[1,1,1],"explicitBounds":[1,1]}"#, "explicit bounds are not strictly ascending"),
        (r#"{"bucketCounts":[1,1],"explicitBounds":["NaN"]}"#, "explicit bounds are not strictly ascending"),
        (r#"{"bucketCounts":[1],"explicitBounds":[1,2]}"#, "1 bucket counts for 2 explicit bounds"),
        (r#"{"bucketCounts":["18446744073709551615","1"],"explicitBounds":[1]}"#, "bucket counts overflow"),
    ] {
        check(&histogram(point), &["1 of 1 rejected", &format!("metric \"h\": {reason}")]);
    }
    check(&gauge("", "", 1), &["1 of 1 rejected", "metric without a name"]);
    check(&gauge("m", &text("", "x"), 1), &["1 of 1 rejected", "metric \"m\": label name is empty"]);
    check(
        r#"{"name":"s","sum":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":1000000,"asInt":1,
            "exemplars":[{},{"timeUnixNano":"2600001000000","asInt":1},{"timeUnixNano":"2600000000000","asInt":2}]}]}}"#,
        &[
            "__name__=s 1@1 #{} 2@2600000",
            "0 of 1 rejected",
            "metric \"s\": an exemplar has no value or no label set",
            "metric \"s\": an exemplar lies too far ahead",
        ],
    );
    check(r#"{"name":"nothing"}"#, &[]);
    check("", &[]);
}

#[test]
fn long_exemplars_lose_their_attributes() {
    let json = request(
        "",
        &format!(
            r#"{{"name":"s","sum":{{"aggregationTemporality":2,"dataPoints":[{{"asInt":1,"exemplars":[
               {{"asInt":1,"traceId":"01","filteredAttributes":[{}]}}]}}]}}}}"#,
            text("x", &"y".repeat(130))
        ),
    );
    assert_eq!(run(&json, &Settings::default()), ["__name__=s 1@0 #{trace_id=01} 1@0"]);
}

fn fails(body: &[u8], coding: Coding) -> String {
    translate(body, coding, &context(), &Settings::default()).unwrap_err().to_string()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::put_bytes(&mut out, u32::from(number), bytes);
    out
}

#[test]
fn damaged_and_oversized_requests_fail_as_a_whole() {
    for (body, want) in [
        ("", "json: EOF while parsing"),
        ("[]", "json: invalid type: sequence, expected an object"),
        (r#"{"resourceMetrics":{}}"#, "json: an object as the value of resourceMetrics"),
        (
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":5}]}]}]}"#,
            "json: a number as the value of name",
        ),
        (r#"{"resourceMetrics":[]} x"#, "json: trailing characters"),
    ] {
        let got = fails(body.as_bytes(), Coding::Json);
        assert!(got.starts_with(want), "{body}: {got}");
    }
    let got = fails(&field(1, &field(2, &field(2, &field(1, b"\xff")))), Coding::Protobuf);
    assert!(got.contains("text that is not UTF-8 in metric"), "{got}");
    assert!(fails(&[0x0a, 0x7f], Coding::Protobuf).contains("length beyond the end"));
    assert!(fails(&[0x08, 1], Coding::Protobuf).contains("wrong wire type"));

    // A list in a list, ten thousand times: neither coding may exhaust the stack.
    let mut value = field(1, b"x");
    for _ in 0..10_000 {
        value = field(5, &field(1, &value));
    }
    let attribute = [field(1, b"k"), field(2, &value)].concat();
    let nested = field(1, &field(1, &field(1, &attribute)));
    assert!(fails(&nested, Coding::Protobuf).contains("more than 64 times"));
    let json = r#"{"arrayValue":{"values":["#.repeat(10_000);
    let json = format!(r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"k","value":{json}"#);
    assert!(fails(json.as_bytes(), Coding::Json).contains("recursion limit exceeded"));

    let many_points =
        field(1, &field(2, &field(2, &[field(1, b"m"), field(5, &field(1, b"").repeat(100_001))].concat())));
    assert_eq!(
        fails(&many_points, Coding::Protobuf),
        "data points of a request: 100001 is over the limit of 100000"
    );
    let many_attributes = field(1, &field(1, &field(1, b"").repeat(5000)));
    assert_eq!(
        fails(&many_attributes, Coding::Protobuf),
        "attributes of one list: 4097 is over the limit of 4096"
    );
    // A small body that wants to become a large one: a long attribute on each of very many series.
    let point = [
        field(9, &[field(1, b"k"), field(2, &field(1, &[b'x'; 1 << 20]))].concat()),
        field(6, &1u64.to_le_bytes().repeat(101)),
        field(7, &(0..100u64).flat_map(|i| (i as f64).to_le_bytes()).collect::<Vec<_>>()),
    ]
    .concat();
    let histogram = [field(1, &point), vec![0x10, 2]].concat();
    let fan_out = field(1, &field(2, &field(2, &[field(1, b"m"), field(9, &histogram)].concat())));
    assert!(fails(&fan_out, Coding::Protobuf).starts_with("bytes of labels after expansion: "));
    let buckets = [field(8, &field(2, &vec![1; 70_000]))].concat();
    let exponential = [field(1, &buckets), vec![0x10, 2]].concat();
    let wide = field(1, &field(2, &field(2, &[field(1, b"m"), field(10, &exponential)].concat())));
    assert_eq!(fails(&wide, Coding::Protobuf), "buckets of a data point: 65537 is over the limit of 65536");
    let zeros = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[0{}]}}]}}}}]}}]}}]}}"#,
        ",0".repeat(1 << 20)
    );
    assert!(fails(zeros.as_bytes(), Coding::Json).starts_with("bytes of numbers in JSON: "));
}

#[test]
fn answers() {
    let text = |coding, rejected, message| {
        String::from_utf8_lossy(&answer::partial_success(coding, rejected, message)).into_owned()
    };
    assert_eq!(text(Coding::Protobuf, 0, ""), "");
    assert_eq!(text(Coding::Json, 0, ""), "{}");
    assert_eq!(
        text(Coding::Json, 3, "why"),
        r#"{"partialSuccess":{"errorMessage":"why","rejectedDataPoints":"3"}}"#
    );
    assert_eq!(answer::partial_success(Coding::Protobuf, 3, "why"), b"\x0a\x07\x08\x03\x12\x03why");
    let status = |coding| answer::status(coding, answer::StatusCode::InvalidArgument, "no");
    assert_eq!(status(Coding::Protobuf), b"\x08\x03\x12\x02no");
    assert_eq!(status(Coding::Json), br#"{"code":3,"message":"no"}"#);
}
