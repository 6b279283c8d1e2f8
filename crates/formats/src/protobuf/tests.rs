//! Messages in, lines out: `series value@timestamp start=… exemplars`. Messages are built field by field.

use super::*;
use crate::buckets::indexed;
use crate::wire::put_bytes;

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::put_varint(&mut out, value);
    out
}

/// Fields of a message.
fn text(field: u32, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

fn message(field: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, field, bytes);
    out
}

fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

fn signed(field: u32, value: i64) -> Vec<u8> {
    number(field, (value << 1 ^ value >> 63) as u64)
}

fn double(field: u32, value: f64) -> Vec<u8> {
    [varint(u64::from(field) << 3 | 1), value.to_le_bytes().to_vec()].concat()
}

fn label(field: u32, name: &str, value: &str) -> Vec<u8> {
    message(field, &[text(1, name), text(2, value)].concat())
}

fn family(name: &str, kind: u64, metrics: &[Vec<u8>]) -> Vec<u8> {
    let metrics: Vec<u8> = metrics.iter().flat_map(|metric| message(4, metric)).collect();
    let family = [text(1, name), text(2, "Help."), number(3, kind), metrics, text(5, "s")].concat();
    [varint(family.len() as u64), family].concat()
}

fn span(field: u32, offset: i64, length: u64) -> Vec<u8> {
    message(field, &[signed(1, offset), number(2, length)].concat())
}

fn exemplar(field: u32, value: f64, seconds: Option<u64>) -> Vec<u8> {
    let time = seconds.map_or(Vec::new(), |s| message(3, &[number(1, s), number(2, 5_000_000)].concat()));
    message(field, &[label(1, "id", "x"), double(2, value), time].concat())
}

fn lines(body: &[u8], histograms: Histograms) -> Vec<String> {
    let mut lines = Vec::new();
    let result: Result<(), DecodeError> = read(body, histograms, |item| {
        lines.push(match item {
            Item::Family { name, kind, help, unit } => format!("{name} {} {help} {unit}", kind.as_str()),
            Item::Found(found) => {
                let value = match &found.value {
                    Value::Float(value) => value.to_string(),
                    Value::Histogram(h) => {
                        let side = |spans, counts| {
                            let pairs =
                                indexed(spans, counts).map(|(index, count)| format!("{index}:{count}"));
                            pairs.collect::<Vec<_>>().join(" ")
                        };
                        format!(
                            "{} {:?} schema={} count={} sum={} zero={}/{} [{}] [{}] {:?}",
                            if h.integer { "int" } else { "float" },
                            h.reset_hint,
                            h.schema,
                            h.count,
                            h.sum,
                            h.zero_count,
                            h.zero_threshold,
                            side(&h.negative_spans, &h.negative_buckets),
                            side(&h.positive_spans, &h.positive_buckets),
                            h.custom_values.as_deref().unwrap_or_default()
                        )
                    }
                };
                let at = found.timestamp.map_or(String::new(), |at| format!("@{at}"));
                let start = if found.start == 0 { String::new() } else { format!(" start={}", found.start) };
                let exemplars: String = found
                    .exemplars
                    .iter()
                    .map(|e| format!(" #{:?} {} {:?}", e.labels, e.value, e.timestamp))
                    .collect();
                format!("{} {value}{at}{start}{exemplars}", found.series)
            }
        });
        Ok(())
    });
    lines.extend(result.err().map(|error| error.to_string()));
    lines
}

const NATIVE: Histograms = Histograms { native: true, keep_classic: false, convert: false };

#[test]
fn simple_metrics() {
    let created = message(3, &[number(1, 1000), number(2, 250_000_000)].concat());
    let body = [
        family(
            "c_total",
            0,
            &[
                [
                    label(1, "a", "b\"\n"),
                    message(3, &[double(1, 5.0), exemplar(2, 2.0, None), created].concat()),
                ]
                .concat(),
                [
                    label(1, "a.b", "c"),
                    message(3, &[double(1, f64::NAN), exemplar(2, 1.0, Some(7))].concat()),
                    number(6, 99),
                ]
                .concat(),
            ],
        ),
        family("temp.c", 1, &[message(2, &double(1, -1.5))]),
        family("u", 3, &[message(5, &double(1, 3.0)), Vec::new()]),
        family("empty", 1, &[]),
        family(
            "s",
            2,
            &[
                message(
                    4,
                    &[
                        number(1, 3),
                        double(2, 6.0),
                        message(3, &[double(1, 0.5), double(2, 2.0)].concat()),
                        message(4, &number(1, 2)),
                    ]
                    .concat(),
                ),
                message(4, &number(1, 1)),
            ],
        ),
    ]
    .concat();
    let want = [
        "c_total counter Help. s",
        "c_total{a=\"b\\\"\\n\"} 5 start=1000250 #{\"id\": \"x\"} 2 None",
        "c_total{\"a.b\"=\"c\"} NaN@99 #{\"id\": \"x\"} 1 Some(7005)",
        "temp.c gauge Help. s",
        "{\"temp.c\"} -1.5",
        "u unknown Help. s",
        "u 3",
        "u 0",
        "s summary Help. s",
        "s_count 3 start=2000",
        "s_sum 6 start=2000",
        "s{quantile=\"0.5\"} 2 start=2000",
        "s_count 1",
        "s_sum 0",
    ];
    assert_eq!(lines(&body, Histograms::default()), want);
}

/// A histogram that is classic and native.
fn both() -> Vec<u8> {
    let bucket = |bound: f64, count: u64, more: Vec<u8>| {
        message(3, &[number(1, count), double(2, bound), more].concat())
    };
    let histogram = [
        number(1, 9),
        double(2, 4.5),
        bucket(0.5, 2, exemplar(3, 0.25, Some(3))),
        bucket(1.0, 6, exemplar(3, 0.75, None)),
        signed(5, 1),
        double(6, 0.001),
        number(7, 1),
        span(12, -1, 2),
        span(12, 4, 1),
        signed(13, 2),
        signed(13, 1),
        message(13, &varint(1)),
        span(9, 0, 1),
        signed(10, 2),
        message(15, &number(1, 1)),
    ]
    .concat();
    message(7, &histogram)
}

#[test]
fn histograms_in_all_forms() {
    let body = family("h", 4, &[both()]);
    let native = "h int Unknown schema=1 count=9 sum=4.5 zero=1/0.001 [0:2] [-1:2 0:3 5:2] [] start=1000 #{\"id\": \"x\"} 0.25 Some(3005)";
    let classic = [
        "h_count 9 start=1000",
        "h_sum 4.5 start=1000",
        "h_bucket{le=\"0.5\"} 2 start=1000 #{\"id\": \"x\"} 0.25 Some(3005)",
        "h_bucket{le=\"1.0\"} 6 start=1000 #{\"id\": \"x\"} 0.75 None",
        "h_bucket{le=\"+Inf\"} 9 start=1000",
    ];
    let custom = "h int Unknown schema=-53 count=9 sum=4.5 zero=0/0 [] [0:2 1:4 2:3] [0.5, 1.0] start=1000 #{\"id\": \"x\"} 0.25 Some(3005)";
    let check = |native_too: bool, keep_classic: bool, convert: bool, want: &[&str]| {
        let got = lines(&body, Histograms { native: native_too, keep_classic, convert });
        assert_eq!(got[0], "h histogram Help. s");
        assert_eq!(got[1..], *want, "{native_too} {keep_classic} {convert}");
    };
    check(false, false, false, &classic);
    check(true, false, false, &[native]);
    check(true, true, false, &[&[native], &classic[..]].concat());
    check(true, true, true, &[&[native], &classic[..]].concat());
    check(false, false, true, &[custom]);
    check(false, true, true, &[&classic[..], &[custom]].concat());
}

#[test]
fn float_and_gauge_histograms() {
    let float = [double(4, 2.5), double(8, 0.5), signed(5, 0), span(12, 1, 1), double(14, 2.0)].concat();
    let body = family("g", 5, &[message(7, &float)]);
    assert_eq!(
        lines(&body, NATIVE),
        ["g gaugehistogram Help. s", "g float Gauge schema=0 count=2.5 sum=0 zero=0.5/0 [] [1:2] []"]
    );
    // All counts are 0, and stand in the fields of floats.
    let zeros = [signed(5, 0), span(12, 1, 2), double(14, 0.0), double(14, 0.0)].concat();
    assert!(
        lines(&family("g", 4, &[message(7, &zeros)]), NATIVE)[1]
            .starts_with("g float Unknown schema=0 count=0")
    );
    // An empty span says "native, without observations".
    let empty = [signed(5, 3), span(12, 0, 0)].concat();
    assert!(
        lines(&family("g", 4, &[message(7, &empty)]), NATIVE)[1]
            .starts_with("g int Unknown schema=3 count=0")
    );
    // Too fine a schema is made coarser.
    let fine =
        [number(1, 3), signed(5, 10), span(12, 1, 3), signed(13, 1), signed(13, 0), signed(13, 0)].concat();
    assert!(
        lines(&family("g", 4, &[message(7, &fine)]), NATIVE)[1]
            .contains("schema=8 count=3 sum=0 zero=0/0 [] [1:3]")
    );
}

#[test]
fn damage_is_named() {
    let check = |body: Vec<u8>, histograms: Histograms, want: &str| {
        let got = lines(&body, histograms);
        assert!(got.last().unwrap().contains(want), "{got:?}");
    };
    check(vec![5, 1], NATIVE, "length beyond the end in metric family");
    check(vec![0xff; 12], NATIVE, "varint of more than 10 bytes");
    check(family("x", 9, &[Vec::new()]), NATIVE, "unknown metric type");
    check(family("", 1, &[Vec::new()]), NATIVE, "metric family without a name");
    check(family("x", 1, &[label(1, "", "y")]), NATIVE, "label without a name");
    check(family("x", 1, &[message(1, &message(2, b"\xff"))]), NATIVE, "not UTF-8 in label");
    check(family("x", 1, &[number(2, 1)]), NATIVE, "wrong wire type");
    let histogram = |fields: &[Vec<u8>]| family("h", 4, &[message(7, &fields.concat())]);
    check(
        histogram(&[span(12, 0, 3), signed(13, 1)]),
        NATIVE,
        "histogram \"h\": positive side: spans require 3 buckets, have 1",
    );
    check(
        histogram(&[span(9, 0, 4_000_000_000), span(9, 0, 4_000_000_000)]),
        NATIVE,
        "negative side: spans require 8000000000 buckets, have 0",
    );
    check(histogram(&[span(12, 0, 5_000_000_000)]), NATIVE, "span out of range");
    check(histogram(&[signed(5, 53), number(7, 1)]), NATIVE, "unknown schema 53");
    check(histogram(&[signed(5, -5), number(7, 1)]), NATIVE, "unknown schema -5");
    check(
        histogram(&[span(12, 2_147_483_647, 1), span(12, 2_147_483_647, 1), signed(13, 1), signed(13, 0)]),
        NATIVE,
        "bucket index out of range",
    );
    let convert = Histograms { convert: true, ..Histograms::default() };
    check(
        histogram(&[number(1, 5), message(3, &[number(1, 6), double(2, f64::INFINITY)].concat())]),
        convert,
        "contradict each other",
    );
    check(
        histogram(&vec![message(3, b""); 65_537]),
        NATIVE,
        "buckets of a histogram: 65537 is over the limit",
    );
    let long = message(3, &message(2, &label(1, "x", &"y".repeat(5000))));
    check(family("c", 0, &[long]), NATIVE, "bytes of an exemplar's labels");
    // Very many empty families are passed over, without recursion.
    assert!(lines(&[0].repeat(1_000_000), NATIVE).is_empty());
}
