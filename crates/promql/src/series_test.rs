//! Series descriptions and start-timestamp lines.

use model::Histogram;

use crate::series::{SeriesValue, parse_start_timestamps};
use crate::{ParseOptions, parse_series};

fn show(value: &SeriesValue) -> String {
    match value {
        SeriesValue::Omitted => "_".to_owned(),
        SeriesValue::Float(v) if model::is_stale(*v) => "stale".to_owned(),
        SeriesValue::Float(v) => v.to_string(),
        SeriesValue::Histogram { histogram: h, hint_set } => {
            let offset = h.positive_spans.first().map_or(0, |s| s.offset);
            let hint = if *hint_set { format!(" {:?}", h.reset_hint) } else { String::new() };
            format!(
                "{{s{} c{} +{:?}@{offset} -{:?}{hint}}}",
                h.schema, h.count, h.positive_buckets, h.negative_buckets
            )
        }
    }
}

/// Adds or subtracts counts and sums, which is enough to see the order of things.
fn combine(a: &Histogram, b: &Histogram, subtract: bool) -> Result<Histogram, String> {
    let sign = if subtract { -1.0 } else { 1.0 };
    Ok(Histogram { count: a.count + sign * b.count, ..a.clone() })
}

fn check(text: &str, labels: &[(&str, &str)], values: &str) {
    let series = parse_series(text, &ParseOptions::ALL).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(series.labels.iter().collect::<Vec<_>>(), labels, "{text}");
    let shown: Vec<String> = series.expand(&mut combine).unwrap().iter().map(show).collect();
    assert_eq!(shown.join(" "), values, "{text}");
}

#[test]
fn floats() {
    let up = &[("__name__", "up")][..];
    check("up 1 -2.5 .5 1e3 0", up, "1 -2.5 0.5 1000 0");
    check("up 1+2x3 _ _x2 stale", up, "1 3 5 7 _ _ _ stale");
    check("up 10-5x2 1x2", up, "10 5 0 1 1 1");
    check("up Inf -inf nan", up, "inf -inf NaN");
    check("up", up, "");
    check("up{job=\"a } b\", \"c.d\"='e'} 1", &[("__name__", "up"), ("c.d", "e"), ("job", "a } b")], "1");
    check("{\"a b\", c=`\\`} 1", &[("__name__", "a b"), ("c", "\\")], "1");
    check("温度.x{é=\"1\"} 1", &[("__name__", "温度.x"), ("é", "1")], "1");
}

#[test]
fn histograms() {
    let h = &[("__name__", "h")][..];
    check("h {{}} {{ }}", h, "{s0 c0 +[]@0 -[]} {s0 c0 +[]@0 -[]}");
    check(
        "h {{schema:1 sum:-0.3 count:3.1 z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 10 7] offset:-3 n_buckets:[4.1 5] n_offset:-5}}",
        h,
        "{s1 c3.1 +[5.1, 10.0, 7.0]@-3 -[4.1, 5.0]}",
    );
    check(
        "h {{count:1}}x1 {{count:5}}-{{count:2}}x2",
        h,
        "{s0 c1 +[]@0 -[]} {s0 c1 +[]@0 -[]} {s0 c5 +[]@0 -[]} {s0 c3 +[]@0 -[]} {s0 c1 +[]@0 -[]}",
    );
    check("h {{counter_reset_hint:gauge count:2}}", h, "{s0 c2 +[]@0 -[] Gauge}");
    let custom =
        parse_series("h {{schema:-53 custom_values:[5 10] buckets:[1 2 3]}}", &ParseOptions::ALL).unwrap();
    let SeriesValue::Histogram { histogram, .. } = &custom.items[0].first else { panic!("no histogram") };
    assert_eq!(histogram.custom_values.as_deref(), Some(&[5.0, 10.0][..]));
    let mixed = parse_series("h {{schema:2}}+{{schema:1}}x1", &ParseOptions::ALL).unwrap();
    let error = mixed.expand(&mut combine).unwrap_err();
    assert_eq!(error, "error combining histograms: cannot merge from schema 1 to 2");
}

#[test]
fn errors_name_their_place() {
    for (text, message) in [
        (
            "up foo",
            "1:4: parse error: unexpected identifier \"foo\" in series values, expected number or \"stale\"",
        ),
        ("up{} 1+2", "1:9: parse error: unexpected end of input in series values"),
        ("up{}1", "1:5: parse error: unexpected \"1\" in series values"),
        (
            "up 1x",
            "1:6: parse error: invalid repetition in series values: strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        ("up 1x99999999999", "1:17: parse error: the series has more values than the limit of 4194304"),
        ("up {{sum:1 sum:2}}", "1:12: parse error: duplicate key \"sum\" in histogram"),
        ("up {{foo:1}}", "1:6: parse error: bad histogram descriptor found: \"foo\""),
        ("up{a} 1", "1:5: parse error: unexpected \"}\" in label set, expected \"=\""),
    ] {
        assert_eq!(parse_series(text, &ParseOptions::ALL).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn start_timestamps() {
    let read = |line: &str| parse_start_timestamps(line, &ParseOptions::ALL);
    assert_eq!(read("up 1 2 3"), None);
    assert_eq!(read("up{a=\"x@st y\"} 1"), None);
    let lines = read("  up{a=\"b c\"}@st  _ -30s-1mx2 +1m 0 _x2 -0msx1").unwrap().unwrap();
    assert_eq!(lines.labels.get("a"), Some("b c"));
    let offsets = [
        None,
        Some(-30_000),
        Some(-90_000),
        Some(-150_000),
        Some(60_000),
        Some(0),
        None,
        None,
        Some(0),
        Some(0),
    ];
    assert_eq!(lines.offsets, offsets);
    assert_eq!(read("up@st -1m").unwrap().unwrap().offsets, [Some(-60_000)]);
    assert_eq!(
        read("up@st 1q").unwrap().unwrap_err(),
        "invalid ST item \"1q\": not a valid duration string: \"1\""
    );
    assert_eq!(
        read("up@st -1m-1m").unwrap().unwrap_err(),
        "invalid ST item \"-1m-1m\": invalid repeat count"
    );
}
