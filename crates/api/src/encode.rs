//! JSON of results, written straight into text: no tree of values in between, numbers as Go prints them.
//!
//! [`ResultEncoder`] writes an answer in pieces, so that a large one is never in memory as a whole twice.

use model::histogram::exponential_bound;
use model::{Histogram, Labels, number};
use query::{Between, HistogramPoint, Point, QueryStats, Sample, SampleValue, Series, StepSamples, Value};

use crate::body::Pieces;

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(HEX[usize::from(other >> 4)]));
                out.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// Appends `["a","b"]`.
pub(crate) fn push_strings<S: AsRef<str>>(out: &mut String, all: impl IntoIterator<Item = S>) {
    push_list(out, all, |out, text| push_string(out, text.as_ref()));
}

/// Appends a JSON list whose elements `one` writes.
pub(crate) fn push_list<T>(
    out: &mut String,
    all: impl IntoIterator<Item = T>,
    mut one: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (at, item) in all.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        one(out, item);
    }
    out.push(']');
}

/// Appends a label set as an object.
pub(crate) fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

/// Appends a time as seconds with at most three decimals.
pub(crate) fn push_time(out: &mut String, ms: i64) {
    if ms < 0 {
        out.push('-');
    }
    let ms = ms.unsigned_abs();
    push_unsigned(out, ms / 1000);
    let fraction = ms % 1000;
    if fraction != 0 {
        out.push('.');
        for digit in [fraction / 100, fraction / 10 % 10, fraction % 10] {
            out.push(char::from(b'0' + digit as u8));
        }
    }
}

/// Appends a whole number.
pub(crate) fn push_unsigned(out: &mut String, value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or("0"));
}

/// Appends a sample value in quotes.
pub(crate) fn push_value(out: &mut String, value: f64) {
    out.push('"');
    push_number(out, value);
    out.push('"');
}

/// What [`number::push_api_float`] appends, several times faster for numbers with a fraction: values are most of the
/// bytes of an answer.
fn push_number(out: &mut String, value: f64) {
    // Whole numbers of moderate size are what most counters are.
    let whole = value as i64;
    if whole as f64 == value && whole.unsigned_abs() < 1 << 53 && (whole != 0 || value.is_sign_positive()) {
        if whole < 0 {
            out.push('-');
        }
        push_unsigned(out, whole.unsigned_abs());
        return;
    }
    if value.is_finite() {
        let mut buffer = zmij::Buffer::new();
        let digits = buffer.format_finite(value);
        // An exponent stands elsewhere in Go's form.
        if !digits.bytes().any(|b| b == b'e') {
            out.push_str(digits.strip_suffix(".0").unwrap_or(digits));
            return;
        }
    }
    number::push_api_float(out, value);
}

fn push_point(out: &mut String, point: &Point) {
    out.push('[');
    push_time(out, point.timestamp);
    out.push(',');
    push_value(out, point.value);
    out.push(']');
}

fn push_histogram_point(out: &mut String, point: &HistogramPoint) {
    out.push('[');
    push_time(out, point.timestamp);
    out.push(',');
    push_histogram(out, &point.histogram);
    out.push(']');
}

fn push_sample(out: &mut String, sample: &Sample) {
    out.push_str(r#"{"metric":"#);
    push_labels(out, &sample.labels);
    match &sample.value {
        SampleValue::Float(value) => {
            out.push_str(r#","value":"#);
            push_point(out, &Point { timestamp: sample.timestamp, value: *value });
        }
        SampleValue::Histogram(histogram) => {
            out.push_str(r#","histogram":"#);
            let histogram = std::sync::Arc::clone(histogram);
            push_histogram_point(out, &HistogramPoint { timestamp: sample.timestamp, histogram });
        }
    }
    out.push('}');
}

fn push_series(out: &mut String, series: &Series) {
    out.push_str(r#"{"metric":"#);
    push_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.push_str(r#","values":"#);
        push_list(out, &series.floats, push_point);
    }
    if !series.histograms.is_empty() {
        out.push_str(r#","histograms":"#);
        push_list(out, &series.histograms, push_histogram_point);
    }
    out.push('}');
}

/// Appends a native histogram: count, sum and its non-empty buckets, lowest first.
pub(crate) fn push_histogram(out: &mut String, histogram: &Histogram) {
    out.push_str(r#"{"count":"#);
    push_value(out, histogram.count);
    out.push_str(r#","sum":"#);
    push_value(out, histogram.sum);
    let mut found = false;
    for_each_bucket(histogram, |bounds, lower, upper, count| {
        if count == 0.0 {
            return;
        }
        out.push_str(if found { ",[" } else { r#","buckets":[["# });
        found = true;
        out.push(char::from(b'0' + bounds));
        for value in [lower, upper, count] {
            out.push(',');
            push_value(out, value);
        }
        out.push(']');
    });
    if found {
        out.push(']');
    }
    out.push('}');
}

/// Calls `each` with (which bounds belong to the bucket, lower, upper, count), lowest bucket first. Bounds: 0 =
/// upper, 1 = lower, 2 = none, 3 = both.
fn for_each_bucket(histogram: &Histogram, mut each: impl FnMut(u8, f64, f64, f64)) {
    if histogram.has_custom_buckets() {
        let bounds = histogram.custom_values.as_deref().unwrap_or(&[]);
        let bound = |index: i64| usize::try_from(index).ok().and_then(|i| bounds.get(i)).copied();
        for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
            let lower =
                if index == 0 { f64::NEG_INFINITY } else { bound(index - 1).unwrap_or(f64::INFINITY) };
            let upper = bound(index).unwrap_or(f64::INFINITY);
            each(if lower == f64::NEG_INFINITY { 3 } else { 0 }, lower, upper, count);
        }
        return;
    }
    let schema = histogram.schema;
    let width = histogram.zero_threshold;
    // Buckets that reach into the zero bucket end where it begins.
    let outside = |bound: f64| bound.max(width);
    let negative: Vec<(i64, f64)> = indexed(&histogram.negative_spans, &histogram.negative_buckets).collect();
    for (index, count) in negative.into_iter().rev() {
        each(1, -exponential_bound(index, schema), -outside(exponential_bound(index - 1, schema)), count);
    }
    if histogram.zero_count > 0.0 {
        each(3, -width, width, histogram.zero_count);
    }
    for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
        each(0, outside(exponential_bound(index - 1, schema)), exponential_bound(index, schema), count);
    }
}

fn indexed<'a>(
    spans: &'a [model::histogram::Span],
    buckets: &'a [f64],
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next + i64::from(span.offset);
        next = first + i64::from(span.length);
        first..next
    });
    indexes.zip(buckets.iter().copied())
}

/// Writes the answer to a query piece by piece.
pub(crate) struct ResultEncoder {
    rest: Rest,
    begun: bool,
    /// Everything after the result.
    tail: String,
}

enum Rest {
    Text(String),
    Vector(std::vec::IntoIter<Sample>),
    Matrix(std::vec::IntoIter<Series>),
    Done,
}

impl ResultEncoder {
    /// The encoder of `value` with the figures of `stats`, if given, and the texts of warnings and infos.
    pub(crate) fn new(
        value: Value,
        stats: Option<&QueryStats>,
        warnings: &[String],
        infos: &[String],
    ) -> Self {
        let scalar = |kind: &str, timestamp: i64, write: &dyn Fn(&mut String)| {
            let mut text = format!(r#""{kind}","result":["#);
            push_time(&mut text, timestamp);
            text.push(',');
            write(&mut text);
            text.push(']');
            Rest::Text(text)
        };
        let rest = match value {
            Value::Scalar(point) => scalar("scalar", point.timestamp, &|out| push_value(out, point.value)),
            Value::String(text, timestamp) => scalar("string", timestamp, &|out| push_string(out, &text)),
            Value::Vector(samples) => Rest::Vector(samples.into_iter()),
            Value::Matrix(series) => Rest::Matrix(series.into_iter()),
        };
        let mut tail = String::new();
        if let Some(stats) = stats {
            push_stats(&mut tail, stats);
        }
        tail.push('}');
        push_notes(&mut tail, warnings, infos);
        tail.push('}');
        Self { rest, begun: false, tail }
    }
}

impl Pieces for ResultEncoder {
    fn fill(&mut self, out: &mut String, target: usize) -> bool {
        if !self.begun {
            out.push_str(r#"{"status":"success","data":{"resultType":"#);
            out.push_str(match &self.rest {
                Rest::Text(text) => text,
                Rest::Vector(_) => r#""vector","result":["#,
                Rest::Matrix(_) | Rest::Done => r#""matrix","result":["#,
            });
        }
        let comma = |begun: &mut bool, out: &mut String| {
            if *begun {
                out.push(',');
            }
            *begun = true;
        };
        match &mut self.rest {
            Rest::Done => return true,
            Rest::Text(_) => {}
            Rest::Vector(samples) => {
                for sample in samples {
                    comma(&mut self.begun, out);
                    push_sample(out, &sample);
                    if out.len() >= target {
                        return false;
                    }
                }
                out.push(']');
            }
            Rest::Matrix(all) => {
                for series in all {
                    comma(&mut self.begun, out);
                    push_series(out, &series);
                    if out.len() >= target {
                        return false;
                    }
                }
                out.push(']');
            }
        }
        self.begun = true;
        self.rest = Rest::Done;
        out.push_str(&self.tail);
        true
    }
}

fn push_stats(out: &mut String, stats: &QueryStats) {
    let timings = &stats.timings;
    out.push_str(r#","stats":{"timings":{"#);
    let all = [
        ("evalTotalTime", timings.eval_total),
        ("resultSortTime", timings.result_sort),
        ("queryPreparationTime", timings.preparation),
        ("innerEvalTime", timings.inner_eval),
        ("execQueueTime", timings.queue),
        ("execTotalTime", timings.exec_total),
    ];
    for (at, (name, seconds)) in all.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        number::push_api_float(out, seconds);
    }
    out.push_str(r#"},"samples":{"#);
    let of_steps = |of: fn(&StepSamples) -> u64| {
        if stats.steps.is_empty() { stats.samples } else { stats.steps.iter().map(of).sum() }
    };
    push_steps(out, "totalQueryableSamplesPerStep", &stats.steps, |step| step.all);
    out.push_str(r#""totalQueryableSamples":"#);
    push_unsigned(out, of_steps(|step| step.all));
    out.push(',');
    push_steps(out, "samplesReadPerStep", &stats.steps, |step| step.new);
    out.push_str(r#""samplesRead":"#);
    push_unsigned(out, of_steps(|step| step.new));
    out.push_str(r#","peakSamples":"#);
    push_unsigned(out, stats.peak_bytes / 16);
    out.push_str(r#"},"isobar":{"shards":"#);
    push_unsigned(out, stats.shards);
    out.push_str(r#","peakBytes":"#);
    push_unsigned(out, stats.peak_bytes);
    push_between(out, &stats.between);
    out.push_str("}}");
}

/// Appends `"name":[[time,samples],…],`, unless there are no steps.
fn push_steps(out: &mut String, name: &str, steps: &[StepSamples], of: fn(&StepSamples) -> u64) {
    if steps.is_empty() {
        return;
    }
    push_string(out, name);
    out.push_str(":[");
    for (at, step) in steps.iter().enumerate() {
        out.push_str(if at > 0 { ",[" } else { "[" });
        push_time(out, step.time);
        out.push(',');
        push_unsigned(out, of(step));
        out.push(']');
    }
    out.push_str("],");
}

/// Appends what went between nodes for a query, when anything did.
fn push_between(out: &mut String, between: &Between) {
    if *between == Between::default() {
        return;
    }
    let all = [
        ("nodes", between.nodes),
        ("fragments", between.fragments),
        ("fragmentBytes", between.fragment_bytes),
        ("partialBytes", between.partial_bytes),
        ("movedSeries", between.moved_series),
        ("movedBytes", between.moved_bytes),
        ("retries", between.retries),
        ("evaluations", 1 + u64::from(between.again)),
    ];
    for (name, value) in all {
        out.push(',');
        push_string(out, name);
        out.push(':');
        push_unsigned(out, value);
    }
}

/// Appends `,"warnings":[…],"infos":[…]`, leaving out what is empty.
pub(crate) fn push_notes(out: &mut String, warnings: &[String], infos: &[String]) {
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            out.push(',');
            push_string(out, name);
            out.push(':');
            push_strings(out, texts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use model::histogram::Span;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_those_of_the_model(bits in any::<u64>(), small in -1e6f64..1e6, cents in any::<i32>()) {
            for value in [f64::from_bits(bits), small, f64::from(cents) / 100.0, f64::from(cents), f64::from(cents) * 1e14] {
                let (mut fast, mut plain) = (String::new(), String::new());
                push_number(&mut fast, value);
                number::push_api_float(&mut plain, value);
                prop_assert_eq!(fast, plain);
            }
        }
    }

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn strings_times_and_values() {
        assert_eq!(text(|o| push_string(o, "a\"\\\n\u{1}é<b>")), r#""a\"\\\n\u0001é<b>""#);
        for (ms, expected) in
            [(0, "0"), (1_500, "1.500"), (-1, "-0.001"), (1_435_781_451_781, "1435781451.781")]
        {
            assert_eq!(text(|o| push_time(o, ms)), expected);
        }
        assert_eq!(text(|o| push_time(o, i64::MIN)), "-9223372036854775.808");
        for (value, expected) in [
            (1.0, "\"1\""),
            (0.1, "\"0.1\""),
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"+Inf\""),
            (f64::NEG_INFINITY, "\"-Inf\""),
            (1e21, "\"1e+21\""),
            (1e-7, "\"1e-07\""),
            (123_456_789.125, "\"123456789.125\""),
            (-0.0, "\"-0\""),
        ] {
            assert_eq!(text(|o| push_value(o, value)), expected);
        }
    }

    fn encode(value: Value, target: usize) -> (String, usize) {
        let mut encoder = ResultEncoder::new(value, None, &["w".into()], &[]);
        let (mut whole, mut pieces) = (String::new(), 0);
        loop {
            let mut piece = String::new();
            let done = encoder.fill(&mut piece, target);
            whole.push_str(&piece);
            pieces += 1;
            if done {
                return (whole, pieces);
            }
        }
    }

    #[test]
    fn results_are_the_same_in_one_piece_or_many() {
        let labels = |job: &str| Labels::from_pairs([("__name__", "up"), ("job", job)]).unwrap();
        let series = |job: &str| Series {
            labels: labels(job),
            floats: vec![Point { timestamp: 1_000, value: 1.0 }, Point { timestamp: 2_500, value: f64::NAN }],
            histograms: Vec::new(),
        };
        let matrix = || Value::Matrix(vec![series("a"), series("b")]);
        let expected = concat!(
            r#"{"status":"success","data":{"resultType":"matrix","result":["#,
            r#"{"metric":{"__name__":"up","job":"a"},"values":[[1,"1"],[2.500,"NaN"]]},"#,
            r#"{"metric":{"__name__":"up","job":"b"},"values":[[1,"1"],[2.500,"NaN"]]}"#,
            r#"]},"warnings":["w"]}"#
        );
        assert_eq!(encode(matrix(), 1 << 20), (expected.to_owned(), 1));
        assert_eq!(encode(matrix(), 1), (expected.to_owned(), 3));
        let sample = Sample { labels: labels("a"), timestamp: 5, value: SampleValue::Float(2.0) };
        assert_eq!(
            encode(Value::Vector(vec![sample]), 1 << 20).0,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[0.005,"2"]}]},"warnings":["w"]}"#
        );
        assert_eq!(
            encode(Value::Scalar(Point { timestamp: 0, value: 2.0 }), 1).0,
            r#"{"status":"success","data":{"resultType":"scalar","result":[0,"2"]},"warnings":["w"]}"#
        );
        assert_eq!(
            encode(Value::Matrix(Vec::new()), 1).0,
            r#"{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":["w"]}"#
        );
        assert_eq!(
            encode(Value::String("x\"".into(), 1_000), 1).0,
            r#"{"status":"success","data":{"resultType":"string","result":[1,"x\""]},"warnings":["w"]}"#
        );
    }

    #[test]
    fn histograms_show_their_filled_buckets() {
        let histogram = Histogram {
            schema: 0,
            count: 6.0,
            sum: 4.5,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![3.0],
            ..Histogram::default()
        };
        assert_eq!(
            text(|o| push_histogram(o, &histogram)),
            r#"{"count":"6","sum":"4.5","buckets":[[1,"-2","-1","3"],[3,"-0.001","0.001","1"],[0,"0.5","1","2"]]}"#
        );
        let custom = Histogram {
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count: 3.0,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 1.0, 1.0],
            custom_values: Some(Arc::from([5.0, 10.0])),
            ..Histogram::default()
        };
        assert_eq!(
            text(|o| push_histogram(o, &custom)),
            r#"{"count":"3","sum":"0","buckets":[[3,"-Inf","5","1"],[0,"5","10","1"],[0,"10","+Inf","1"]]}"#
        );
    }
}
