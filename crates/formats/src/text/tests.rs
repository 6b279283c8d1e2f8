//! Texts in, entries or errors out. The inputs cover upstream's own test cases.

use model::LabelsBuilder;
use proptest::prelude::*;

use super::write::{TextWriter, openmetrics_to_text};
use super::*;

/// All entries, one a line, and the error, if there is one.
fn parse(format: TextFormat, body: &[u8]) -> String {
    let mut parser = Parser::new(body, format);
    let mut out = String::new();
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(entry)) => out.push_str(&show(&entry)),
            Err(error) => {
                out.push_str(&error.to_string());
                break;
            }
        }
        out.push('\n');
    }
    out.trim_end_matches('\n').to_owned()
}

fn show(entry: &Entry<'_>) -> String {
    match entry {
        Entry::Type { family, kind } => format!("type {} {}", family.text(), kind.as_str()),
        Entry::Help { family, help } => format!("help {} {:?}", family.text(), help.text()),
        Entry::Unit { family, unit } => format!("unit {} {unit:?}", family.text()),
        Entry::Series(entry) => {
            let mut builder = LabelsBuilder::new();
            let labels = series_labels(entry.series, entry.kind, &mut builder).and_then(|()| builder.build());
            let mut out = match labels {
                Ok(labels) => format!("{labels:?} {:?}", entry.value),
                Err(error) => error.to_string(),
            };
            if let Some(timestamp) = entry.timestamp {
                out += &format!(" @{timestamp}");
            }
            if let Some(exemplar) = entry.exemplar {
                let exemplar = exemplar.decode(-1).unwrap();
                out += &format!(" # {:?} {:?} @{}", exemplar.labels, exemplar.value, exemplar.timestamp);
            }
            out
        }
    }
}

#[track_caller]
fn check(format: TextFormat, body: impl AsRef<[u8]>, expected: &[&str]) {
    let body = body.as_ref();
    assert_eq!(parse(format, body), expected.join("\n"), "{}", String::from_utf8_lossy(body));
}

#[track_caller]
fn prom(body: impl AsRef<[u8]>, expected: &[&str]) {
    check(TextFormat::Prometheus, body, expected);
}

#[track_caller]
fn om(body: impl AsRef<[u8]>, expected: &[&str]) {
    check(TextFormat::OpenMetrics, body, expected);
}

#[test]
fn prometheus_accepts() {
    prom("", &[]);
    prom("\n \n\t\n", &[]);
    prom("a 1", &[r#"{"__name__": "a"} 1.0"#]);
    prom("  a\t1  \n", &[r#"{"__name__": "a"} 1.0"#]);
    prom("go_goroutines 33  \t123123", &[r#"{"__name__": "go_goroutines"} 33.0 @123123"#]);
    prom("some:rate5m{a_b=\"c\"}1\n", &[r#"{"__name__": "some:rate5m", "a_b": "c"} 1.0"#]);
    prom("a { q= \"1\", b = \"x\" , } 2 3 ", &[r#"{"__name__": "a", "b": "x", "q": "1"} 2.0 @3"#]);
    prom("a{b=\"1\" c=\"2\"d=\"3\"} 1", &[r#"{"__name__": "a", "b": "1", "c": "2", "d": "3"} 1.0"#]);
    prom("a{} +Inf\nb -inf", &[r#"{"__name__": "a"} inf"#, r#"{"__name__": "b"} -inf"#]);
    prom(
        r#"a{l="\"bar\" \\ \n \x"} 1"#,
        &["{\"__name__\": \"a\", \"l\": \"\\\"bar\\\" \\\\ \\n \\\\x\"} 1.0"],
    );
    prom("a{l=\"two\nlines\"} 1", &["{\"__name__\": \"a\", \"l\": \"two\\nlines\"} 1.0"]);
    prom("n{a=\"abc\0\"} 1", &["{\"__name__\": \"n\", \"a\": \"abc\\0\"} 1.0"]);
    prom(r#"{"utf.8 \"n\"", "l a"="é"} 1"#, &["{\"__name__\": \"utf.8 \\\"n\\\"\", \"l a\": \"é\"} 1.0"]);
    prom(r#"{b="c", "name",} 1"#, &[r#"{"__name__": "name", "b": "c"} 1.0"#]);
    prom(r#"a{"b"="c"} 1"#, &[r#"{"__name__": "a", "b": "c"} 1.0"#]);
    prom(r#"a{b="1",b="2"} 1"#, &["label name \"b\" appears twice"]);
}

#[test]
fn prometheus_metadata_and_comments() {
    prom(
        "# HELP a Some \\\\ text\\n \\\"x\\\"\n# \tTYPE a summary\na{quantile=\"0\"} 4.9351e-05\n# HELP n\n# HELP m \n#\n\
         #HELP x y\n# Hrandom\n# HELPER\n# TYPE\n# EOF\n# TYPE \"q u\" untyped",
        &[
            "help a \"Some \\\\ text\\n \\\\\\\"x\\\\\\\"\"",
            "type a summary",
            r#"{"__name__": "a", "quantile": "0.0"} 4.9351e-5"#,
            "help n \"\"",
            "help m \"\"",
            "type q u unknown",
        ],
    );
    prom(
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_bucket{le=\"1e7\"} 3\nh{quantile=\"1\"} 1\n\
         h_bucket{le=\"x\"} 1",
        &[
            "type h histogram",
            r#"{"__name__": "h_bucket", "le": "1.0"} 1.0"#,
            r#"{"__name__": "h_bucket", "le": "+Inf"} 2.0"#,
            r#"{"__name__": "h_bucket", "le": "1e+07"} 3.0"#,
            r#"{"__name__": "h", "quantile": "1"} 1.0"#,
            r#"{"__name__": "h_bucket", "le": "x"} 1.0"#,
        ],
    );
    prom("# TYPE g gauge\ng{le=\"1\"} 1", &["type g gauge", r#"{"__name__": "g", "le": "1"} 1.0"#]);
    prom("# HELP a foo\0bar", &["help a \"foo\\0bar\""]);
}

#[test]
fn prometheus_refuses() {
    prom("a", &["line 1: expected value after metric, got the end"]);
    prom(
        "b 1\na\nc 2",
        &[r#"{"__name__": "b"} 1.0"#, "line 2: expected value after metric, got the end of the line"],
    );
    prom("a{b='c'} 1\n", &["line 1: expected label value, got \"'c'} 1\""]);
    prom("a{b=\n", &["line 1: expected label value, got the end of the line"]);
    prom(b"a{\xff=\"foo\"} 1\n", &["line 1: expected label name, got \"\u{fffd}=\\\"foo\\\"} 1\""]);
    prom(b"a{b=\"\xff\"} 1\n", &["line 1: invalid UTF-8 label value, got \"\\\"\u{fffd}\\\"} 1\""]);
    prom(r#"{"a", "b = "c"}"#, &[r#"line 1: expected equal, got "c\"}""#]);
    prom(r#"{"a",b\nc="d"} 1"#, &[r#"line 1: expected equal, got "\\nc=\"d\"} 1""#]);
    prom("a true\n", &["line 1: invalid number, got \"true\""]);
    prom("w{problem=\"", &["line 1: expected label value, got \"\\\"\""]);
    prom("e{=\"\"} 0", &["line 1: expected label name, got \"=\\\"\\\"} 0\""]);
    prom("{A}0", &["line 1: expected equal, got \"}0\""]);
    prom("foo 1_2\n", &["line 1: invalid number, got \"1_2\""]);
    prom("foo 0x1p-3\n", &["line 1: invalid number, got \"0x1p-3\""]);
    prom("foo 0 1_2\n", &["line 1: expected next entry after timestamp, got \"_2\""]);
    prom("foo 0 -1\n", &["line 1: expected timestamp or new record, got \"-1\""]);
    prom("foo 0 99999999999999999999\n", &["line 1: timestamp out of range, got \"99999999999999999999\""]);
    prom(r#"{a="ok"} 1"#, &[r#"line 1: metric name not set, got "{a=\"ok\"} 1""#]);
    prom("{} 1", &["line 1: metric name not set, got \"{} 1\""]);
    prom(r#"{"a","b"} 1"#, &[r#"line 1: metric name already set, got "\"a\",\"b\"} 1""#]);
    prom(r#"a{"b"} 1"#, &[r#"line 1: metric name already set, got "\"b\"} 1""#]);
    prom("# TYPE #\n#EOF\n", &["line 1: expected metric name after TYPE, got \"#\""]);
    prom("# HELP #\n#EOF\n", &["line 1: expected metric name after HELP, got \"#\""]);
    prom("# TYPE a  counter\n", &["line 1: invalid metric type, got \" counter\""]);
    prom("# TYPE a info\n", &["line 1: invalid metric type, got \"info\""]);
    prom(b"# HELP a \xff\n", &["line 1: text is not a valid utf8 string, got \" \u{fffd}\""]);
    prom("a{b=\0\"s\"} 1\n", &["line 1: expected label value, got \"\\0\\\"s\\\"} 1\""]);
    prom("a{b\0=\"s\"} 1\n", &["line 1: expected equal, got \"\\0=\\\"s\\\"} 1\""]);
    prom("a\0{b=\"d\"} 1", &["line 1: invalid number, got \"\\0{b=\\\"d\\\"} 1\""]);
    prom("a 0 1\0", &["line 1: expected next entry after timestamp, got \"\\0\""]);
    prom("\0a 1", &["line 1: expected a valid start token, got \"\\0a 1\""]);
    prom("9a 1", &["line 1: expected a valid start token, got \"9a 1\""]);
    prom("<html>", &["line 1: expected a valid start token, got \"<html>\""]);
    prom("a{b=\"c\",,} 1", &["line 1: expected label name, got \",} 1\""]);
    prom("a{,} 1", &["line 1: expected label name, got \",} 1\""]);
}

#[test]
fn openmetrics_accepts() {
    om("# EOF", &[]);
    om("# EOF\n", &[]);
    om(
        "# HELP a_seconds Text \\\"q\\\" \\x.\n# TYPE a_seconds summary\n# UNIT a_seconds seconds\n\
         a_seconds{quantile=\"0\"} 4.9351e-05\n# HELP n \n# UNIT nounit \na_seconds_count 99 123.123\n# EOF\n",
        &[
            "help a_seconds \"Text \\\"q\\\" \\\\x.\"",
            "type a_seconds summary",
            "unit a_seconds \"seconds\"",
            r#"{"__name__": "a_seconds", "quantile": "0.0"} 4.9351e-5"#,
            "help n \"\"",
            "unit nounit \"\"",
            r#"{"__name__": "a_seconds_count"} 99.0 @123123"#,
        ],
    );
    om(
        "# TYPE foo counter\nfoo_total 17.0 1520879607.789 # {id=\"counter-test\"} 5\nfoo_created 1520872607.123\n\
         foo_total{a=\"b\"} 1 # {id=\"x\",q=\"\\\"y\"} 4 -123.5\nb 1 # {} NaN\n# EOF",
        &[
            "type foo counter",
            r#"{"__name__": "foo_total"} 17.0 @1520879607789 # {"id": "counter-test"} 5.0 @-1"#,
            r#"{"__name__": "foo_created"} 1520872607.123"#,
            r#"{"__name__": "foo_total", "a": "b"} 1.0 # {"id": "x", "q": "\"y"} 4.0 @-123500"#,
            r#"{"__name__": "b"} 1.0 # {} NaN @-1"#,
        ],
    );
    for kind in ["gauge", "histogram", "gaugehistogram", "info", "stateset", "unknown"] {
        om(format!("# TYPE x {kind}\n# EOF"), &[&format!("type x {kind}")]);
    }
    om(
        "{\"http.status\",q=\"0.9\",a=\"b\"} 8.3\n# TYPE \"a b\" gauge\n# EOF\n",
        &[r#"{"__name__": "http.status", "a": "b", "q": "0.9"} 8.3"#, "type a b gauge"],
    );
    om("a{b=\"\0ss\",} nan\n# EOF\n", &[r#"{"__name__": "a", "b": "\0ss"} NaN"#]);
}

#[test]
fn openmetrics_refuses() {
    let refuses = |body: &str, expected: &str| om(body, &[expected]);
    refuses("", "line 1: data does not end with # EOF, got the end");
    refuses("\n", "line 1: expected a valid start token, got the end of the line");
    refuses("metric", "line 1: expected value after metric, got the end");
    refuses("metric 1", "line 1: data does not end with # EOF, got the end");
    refuses("m 1 # {aa=\"bb\"} 4", "line 1: data does not end with # EOF, got the end");
    om("metric 1\n", &[r#"{"__name__": "metric"} 1.0"#, "line 2: data does not end with # EOF, got the end"]);
    refuses("a\n#EOF\n", "line 1: expected value after metric, got the end of the line");
    refuses(" a 1\n# EOF\n", "line 1: expected a valid start token, got \" a 1\"");
    refuses("9\n# EOF\n", "line 1: expected a valid start token, got \"9\"");
    refuses("# TYPE u untyped\n# EOF\n", "line 1: invalid metric type, got \"untyped\"");
    refuses("# TYPE c counter \n# EOF\n", "line 1: invalid metric type, got \"counter \"");
    refuses("#  TYPE c counter\n# EOF\n", "line 1: expected a valid start token, got \"#  TYPE c counter\"");
    refuses("# a comment\n# EOF\n", "line 1: expected a valid start token, got \"# a comment\"");
    refuses("# TYPE \n# EOF\n", "line 1: expected metric name after TYPE, got the end of the line");
    refuses("# TYPE m\n# EOF\n", "line 1: expected text in TYPE, got the end of the line");
    refuses("# HELP m\n# EOF\n", "line 1: expected text in HELP, got the end of the line");
    refuses("# HELP m x", "line 1: data does not end with # EOF, got the end");
    refuses("# UNIT metric suffix\n", "line 1: unit not a suffix of metric \"metric\", got \"suffix\"");
    refuses(
        "# UNIT metricsuffix suffix\n",
        "line 1: unit not a suffix of metric \"metricsuffix\", got \"suffix\"",
    );
    refuses("a\t1\n# EOF\n", "line 1: expected value after metric, got \"\\t1\"");
    refuses("a 1\t2\n# EOF\n", "line 1: invalid number, got \"1\\t2\"");
    refuses("a 1 2 \n# EOF\n", "line 1: expected next entry, got \" \"");
    refuses("a 1 2 #\n# EOF\n", "line 1: expected next entry, got \" #\"");
    refuses("a 1  2\n# EOF\n", "line 1: expected timestamp, got \"  2\"");
    refuses("a 1 1z\n# EOF\n", "line 1: invalid number, got \"1z\"");
    refuses("a 1 1 1\n# EOF\n", "line 1: expected next entry, got \" 1\"");
    refuses("a 1 NaN\n", "line 1: invalid timestamp, got \" NaN\"");
    refuses("a 1 -Inf\n", "line 1: invalid timestamp, got \" -Inf\"");
    refuses("# EOF\na 1", "line 2: unexpected data after # EOF, got \"a 1\"");
    refuses("# EOF\n\n", "line 2: unexpected data after # EOF, got the end of the line");
    refuses("# EOFa 1", "line 1: unexpected data after # EOF, got \"a 1\"");
    refuses("a{b=\"c\"d=\"e\"} 1\n# EOF\n", "line 1: expected comma or brace close, got \"d=\\\"e\\\"} 1\"");
    refuses("a{b=\"c\", d=\"e\"} 1\n# EOF\n", "line 1: expected label name, got \" d=\\\"e\\\"} 1\"");
    refuses("a{b=\"c\",,d=\"e\"} 1\n# EOF\n", "line 1: expected label name, got \",d=\\\"e\\\"} 1\"");
    refuses("a{b=\"c\nd\"} 1\n# EOF\n", "line 1: expected label value, got \"\\\"c\"");
    refuses("{b=\"c\",} 1", "line 1: metric name not set, got \"{b=\\\"c\\\",} 1\"");
    refuses("m 1 # {aa=bb}\n# EOF\n", "line 1: expected label value, got \"bb}\"");
    refuses(
        "m 1 # {aa=\"bb\"}\n# EOF\n",
        "line 1: expected value after exemplar labels, got the end of the line",
    );
    refuses("m 1 # {bb}", "line 1: expected equal, got \"}\"");
    refuses("m 1 # {\"bb\"} 1", "line 1: expected equal, got \"} 1\"");
    refuses("m 1 # {aa=\"bb\",,cc=\"dd\"} 1", "line 1: expected label name, got \",cc=\\\"dd\\\"} 1\"");
    refuses("m 1 # {aa=\"bb\"} 1_2", "line 1: invalid number, got \"1_2\"");
    refuses("m 1 # {aa=\"bb\"} 4 NaN", "line 1: invalid timestamp, got \" NaN\"");
    refuses("m 1 # {b=\"\0ss\"} 1\n", "line 1: expected label value, got \"\\\"\\0ss\\\"} 1\"");
    refuses("# H", "line 1: expected a valid start token, got \"# H\"");
}

#[test]
fn a_written_text_is_read_back() {
    let mut writer = TextWriter::new();
    writer.family("up", MetricKind::Gauge, "one\ntwo \\ \"three\"");
    writer.sample("up", [("job", "a\"b\\c\nd"), ("l a", "é")], 1e6, Some(-5));
    writer.sample("utf.8", [("x", "")], f64::NAN, None);
    writer.sample("bare", [], -0.0, None);
    let text = writer.finish();
    assert_eq!(
        text,
        "# HELP up one\\ntwo \\\\ \"three\"\n# TYPE up gauge\nup{job=\"a\\\"b\\\\c\\nd\",\"l a\"=\"é\"} 1e+06 -5\n\
         {\"utf.8\",x=\"\"} NaN\nbare -0\n"
    );
    prom(
        text.replace(" -5", " 5"),
        &[
            r#"help up "one\ntwo \\ \"three\"""#,
            "type up gauge",
            r#"{"__name__": "up", "job": "a\"b\\c\nd", "l a": "é"} 1000000.0 @5"#,
            r#"{"__name__": "utf.8"} NaN"#,
            r#"{"__name__": "bare"} -0.0"#,
        ],
    );
}

#[test]
fn openmetrics_becomes_text() {
    let body = "# HELP isobar_writes Requests.\n# TYPE isobar_writes counter\nisobar_writes_total{a=\"b\"} 3 1.5 # {id=\"x\"} 1\n\
                # TYPE t_seconds histogram\n# UNIT t_seconds seconds\nt_seconds_bucket{le=\"1.0\"} 2\n\
                # TYPE build info\nbuild_info{v=\"1\"} 1\n# HELP loose Text.\nloose 1\n# EOF\n";
    assert_eq!(
        openmetrics_to_text(body.as_bytes()).unwrap(),
        "# HELP isobar_writes_total Requests.\n# TYPE isobar_writes_total counter\nisobar_writes_total{a=\"b\"} 3 1500\n\
         # TYPE t_seconds histogram\nt_seconds_bucket{le=\"1.0\"} 2\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n\
         loose 1\n"
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(
        body in proptest::collection::vec(proptest::sample::select(b"ab:1 .\n\t#{}=,\"\\\0\xffENaHLPTYUIO".to_vec()), 0..60),
        openmetrics in any::<bool>(),
    ) {
        let format = if openmetrics { TextFormat::OpenMetrics } else { TextFormat::Prometheus };
        parse(format, &body);
    }

    #[test]
    fn written_series_come_back(
        name in "\\PC{1,8}", label in "\\PC{1,8}", text in "(.|\n){1,8}", bits in any::<u64>(), timestamp in 0i64..,
    ) {
        prop_assume!(label != model::METRIC_NAME);
        let value = f64::from_bits(bits);
        let mut writer = TextWriter::new();
        writer.sample(&name, [(label.as_str(), text.as_str())], value, Some(timestamp));
        let body = writer.finish();
        let mut parser = Parser::new(body.as_bytes(), TextFormat::Prometheus);
        let entry = parser.next().unwrap().unwrap();
        let Entry::Series(entry) = entry else { panic!("not a series: {entry:?}") };
        let mut builder = LabelsBuilder::new();
        series_labels(entry.series, entry.kind, &mut builder).unwrap();
        let pairs: Vec<_> = builder.pairs().collect();
        prop_assert_eq!(pairs, vec![(model::METRIC_NAME, name.as_str()), (label.as_str(), text.as_str())]);
        prop_assert_eq!(entry.timestamp, Some(timestamp));
        prop_assert!(entry.value.to_bits() == bits || value.is_nan() && entry.value.is_nan());
        prop_assert_eq!(parser.next(), Ok(None));
    }
}
