//! Writing series as an exposition for federation: Prometheus's text format, OpenMetrics text, or delimited protobuf
//! (`io.prometheus.client.MetricFamily`), which alone can say native histograms. Upstream's counterpart is
//! `web/federate.go` over `expfmt`.

use model::histogram::ResetHint;
use model::{Histogram, MetricKind};

use crate::format_float;
use crate::negotiate::{ExpositionFormat, media_type, parameter};
use crate::text::write::TextWriter;
use crate::wire_write::WireWriter;

/// How names outside the classic alphabet are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameEscaping {
    /// As they are, in quotes.
    AllowUtf8,
    /// Other characters become `_`.
    #[default]
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, other characters become `__`.
    Dots,
    /// `U__` before it, `__` for `_`, `_<hex>_` for other characters.
    Values,
}

/// The format and the escaping that a scraper wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The format.
    pub format: ExpositionFormat,
    /// How names are written.
    pub escaping: NameEscaping,
}

/// What the `Accept` header `accept` (empty when there was none) wants, among what federation offers: protobuf and
/// text by their weights; OpenMetrics only for those who take no other text, as upstream never offers it here.
pub fn negotiate(accept: &str) -> Wanted {
    let mut best: Option<(f64, ExpositionFormat, &str)> = None;
    let mut open_metrics = None;
    for range in accept.split(',') {
        let quality = parameter(range, "q").map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
        if quality.is_nan() || quality <= 0.0 {
            continue;
        }
        let format = match media_type(range).as_deref() {
            Some("application/vnd.google.protobuf") => {
                let is = |name: &str, wanted: &str| parameter(range, name).as_deref() == Some(wanted);
                if !is("proto", "io.prometheus.client.MetricFamily") || !is("encoding", "delimited") {
                    continue;
                }
                ExpositionFormat::Protobuf
            }
            Some("text/plain" | "text/*" | "*/*") => ExpositionFormat::Prometheus,
            Some("application/openmetrics-text") => {
                open_metrics = Some((quality, ExpositionFormat::OpenMetrics, range));
                continue;
            }
            _ => continue,
        };
        if best.is_none_or(|(before, ..)| quality > before) {
            best = Some((quality, format, range));
        }
    }
    let (_, format, range) = best.or(open_metrics).unwrap_or((1.0, ExpositionFormat::Prometheus, ""));
    // Only those that were asked for by name: a scraper says it in each of its ranges.
    let escaping = accept_escaping(range).or_else(|| accept_escaping(accept)).unwrap_or_default();
    Wanted { format, escaping }
}

fn accept_escaping(range: &str) -> Option<NameEscaping> {
    let named = range.split([';', ',']).find_map(|part| part.trim().strip_prefix("escaping="))?;
    match named.trim_matches('"') {
        "allow-utf-8" => Some(NameEscaping::AllowUtf8),
        "underscores" => Some(NameEscaping::Underscores),
        "dots" => Some(NameEscaping::Dots),
        "values" => Some(NameEscaping::Values),
        _ => None,
    }
}

/// The value of an exposed series.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A float.
    Float(f64),
    /// A native histogram. One with custom buckets becomes a classic one; others are left out of text.
    Histogram(&'a Histogram),
}

/// An exposition that grows series by series; those of one metric must follow one another.
#[derive(Debug)]
pub struct Exposition {
    wanted: Wanted,
    text: TextWriter,
    bytes: Vec<u8>,
    /// The family that is being written: name and type.
    family: Option<(String, Kind)>,
    metrics: WireWriter,
}

/// Types of families here; a metric whose series differ in it comes as several families, as upstream bends the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

impl Exposition {
    /// An empty one.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            text: TextWriter::new(),
            bytes: Vec::new(),
            family: None,
            metrics: WireWriter::default(),
        }
    }

    /// Its `Content-Type`.
    pub fn content_type(&self) -> String {
        let escaping = match self.wanted.escaping {
            NameEscaping::AllowUtf8 => "allow-utf-8",
            NameEscaping::Underscores => "underscores",
            NameEscaping::Dots => "dots",
            NameEscaping::Values => "values",
        };
        let media = match self.wanted.format {
            ExpositionFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            ExpositionFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ExpositionFormat::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        };
        format!("{media}; escaping={escaping}")
    }

    /// Adds a series: its metric's name, its other labels, its value and timestamp in ms.
    pub fn add<'l>(
        &mut self,
        name: &str,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        value: Value<'_>,
        timestamp: i64,
    ) {
        let escaping = self.wanted.escaping;
        let name = escaped(name, escaping, true);
        let labels: Vec<(String, &str)> =
            labels.map(|(label, text)| (escaped(label, escaping, false), text)).collect();
        let kind = match value {
            Value::Float(_) => Kind::Untyped,
            Value::Histogram(histogram) if histogram.reset_hint == ResetHint::Gauge => Kind::GaugeHistogram,
            Value::Histogram(_) => Kind::Histogram,
        };
        if self.wanted.format == ExpositionFormat::Protobuf {
            self.begin(&name, kind);
            self.metrics.message(4, |out| put_metric(out, &labels, value, timestamp));
            return;
        }
        let custom = match value {
            Value::Histogram(histogram) if !histogram.has_custom_buckets() => return,
            Value::Histogram(histogram) => Some(histogram),
            Value::Float(_) => None,
        };
        self.begin(&name, kind);
        let open = self.wanted.format == ExpositionFormat::OpenMetrics;
        let text = &mut self.text;
        let mut sample = |name: &str, le: Option<&str>, value: f64| {
            let pairs = labels.iter().map(|(label, text)| (label.as_str(), *text));
            let pairs = pairs.chain(le.map(|le| ("le", le)));
            if open {
                text.open_sample(name, pairs, value, timestamp);
            } else {
                text.sample(name, pairs, value, Some(timestamp));
            }
        };
        match (value, custom) {
            (Value::Histogram(_), Some(histogram)) => {
                for (bound, count) in classic_buckets(histogram) {
                    sample(&format!("{name}_bucket"), Some(&format_float(bound)), count);
                }
                sample(&format!("{name}_sum"), None, histogram.sum);
                sample(&format!("{name}_count"), None, histogram.count);
            }
            (Value::Float(value), _) => sample(&name, None, value),
            (Value::Histogram(_), None) => {}
        }
    }

    /// The exposition.
    pub fn finish(mut self) -> Vec<u8> {
        match self.wanted.format {
            ExpositionFormat::Protobuf => {
                self.end_family();
                self.bytes
            }
            ExpositionFormat::Prometheus => self.text.finish().into_bytes(),
            ExpositionFormat::OpenMetrics => {
                let mut text = self.text.finish();
                text.push_str("# EOF\n");
                text.into_bytes()
            }
        }
    }

    fn begin(&mut self, name: &str, kind: Kind) {
        if self.family.as_ref().is_some_and(|(before, of)| before == name && *of == kind) {
            return;
        }
        self.end_family();
        self.family = Some((name.to_owned(), kind));
        let kind = match kind {
            Kind::Untyped => MetricKind::Unknown,
            Kind::Histogram => MetricKind::Histogram,
            Kind::GaugeHistogram => MetricKind::GaugeHistogram,
        };
        match self.wanted.format {
            ExpositionFormat::Prometheus => self.text.family(name, kind, ""),
            ExpositionFormat::OpenMetrics => self.text.open_family(name, kind),
            ExpositionFormat::Protobuf => {}
        }
    }

    /// Writes the protobuf family that is open, with its length before it.
    fn end_family(&mut self) {
        let Some((name, kind)) = self.family.take() else { return };
        if self.wanted.format != ExpositionFormat::Protobuf {
            return;
        }
        let mut head = WireWriter::default();
        head.bytes(1, name.as_bytes());
        head.number_always(3, kind as u64);
        let metrics = std::mem::take(&mut self.metrics.out);
        let mut length = WireWriter::default();
        length.varint((head.out.len() + metrics.len()) as u64);
        for part in [length.out, head.out, metrics] {
            self.bytes.extend_from_slice(&part);
        }
    }
}

/// A `Metric` of `io.prometheus.client`.
fn put_metric(out: &mut WireWriter, labels: &[(String, &str)], value: Value<'_>, timestamp: i64) {
    for (name, text) in labels {
        out.message(1, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.bytes(2, text.as_bytes());
        });
    }
    match value {
        Value::Float(value) => out.message(5, |untyped| untyped.double_always(1, value)),
        Value::Histogram(histogram) => out.message(7, |out| put_histogram(out, histogram)),
    }
    out.number_always(6, timestamp as u64);
}

fn put_histogram(out: &mut WireWriter, histogram: &Histogram) {
    out.double_always(2, histogram.sum);
    if histogram.has_custom_buckets() {
        for (bound, count) in classic_buckets(histogram) {
            out.message(3, |bucket| {
                bucket.double_always(2, bound);
                bucket.double_always(4, count);
            });
        }
        out.double_always(4, histogram.count);
        return;
    }
    out.double_always(4, histogram.count);
    out.number_always(5, crate::wire_write::zigzag(i64::from(histogram.schema)));
    out.double_always(6, histogram.zero_threshold);
    out.double_always(8, histogram.zero_count);
    let sides = [
        (9, 11, &histogram.negative_spans, &histogram.negative_buckets),
        (12, 14, &histogram.positive_spans, &histogram.positive_buckets),
    ];
    for (span_field, count_field, spans, counts) in sides {
        for span in spans {
            out.message(span_field, |out| {
                out.signed(1, i64::from(span.offset));
                out.number(2, u64::from(span.length));
            });
        }
        for count in counts {
            out.double_always(count_field, *count);
        }
    }
    if histogram.positive_spans.is_empty() && histogram.negative_spans.is_empty() {
        // Without any span a reader would take it for a classic histogram: an empty one, as upstream writes it.
        out.message(12, |_| {});
    }
}

/// Upper bounds with cumulative counts, `+Inf` last.
fn classic_buckets(histogram: &Histogram) -> Vec<(f64, f64)> {
    let bounds = histogram.custom_values.as_deref().unwrap_or(&[]);
    let mut counts = vec![0.0; bounds.len() + 1];
    let mut index = 0i64;
    let mut buckets = histogram.positive_buckets.iter();
    for span in &histogram.positive_spans {
        index += i64::from(span.offset);
        for count in buckets.by_ref().take(span.length as usize) {
            if let Some(slot) = usize::try_from(index).ok().and_then(|at| counts.get_mut(at)) {
                *slot = *count;
            }
            index += 1;
        }
    }
    let mut total = 0.0;
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    bounds
        .zip(counts)
        .map(|(bound, count)| {
            total += count;
            (bound, total)
        })
        .collect()
}

/// `name` in a form that the scraper takes; colons are of the alphabet of metric names only.
fn escaped(name: &str, escaping: NameEscaping, colons: bool) -> String {
    let classic = |at: usize, c: char| {
        c.is_ascii_alphabetic() || c == '_' || (c == ':' && colons) || (at > 0 && c.is_ascii_digit())
    };
    let is_classic = !name.is_empty() && name.chars().enumerate().all(|(at, c)| classic(at, c));
    let chars = || name.chars().enumerate();
    match escaping {
        NameEscaping::AllowUtf8 => name.to_owned(),
        NameEscaping::Underscores if is_classic => name.to_owned(),
        NameEscaping::Underscores => chars().map(|(at, c)| if classic(at, c) { c } else { '_' }).collect(),
        // Also classic names: `_` must not be taken for an escape.
        NameEscaping::Dots => chars().fold(String::new(), |mut out, (at, c)| {
            match c {
                '_' => out.push_str("__"),
                '.' => out.push_str("_dot_"),
                c if classic(at, c) => out.push(c),
                _ => out.push_str("__"),
            }
            out
        }),
        NameEscaping::Values if is_classic => name.to_owned(),
        NameEscaping::Values => chars().fold("U__".to_owned(), |mut out, (at, c)| {
            match c {
                '_' => out.push_str("__"),
                c if classic(at, c) => out.push(c),
                c => out.push_str(&format!("_{:x}_", u32::from(c))),
            }
            out
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind as WireKind, Wire};
    use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn what_is_wanted_of_what_there_is() {
        let check = |accept: &str, format: ExpositionFormat, escaping: NameEscaping| {
            assert_eq!(negotiate(accept), Wanted { format, escaping }, "{accept}");
        };
        let (text, utf8, plain) =
            (ExpositionFormat::Prometheus, NameEscaping::AllowUtf8, NameEscaping::Underscores);
        check("", text, plain);
        check("*/*", text, plain);
        check("text/html;q=0", text, plain);
        check("text/plain;version=1.0.0;escaping=allow-utf-8", text, utf8);
        check("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3,*/*;q=0.2", text, plain);
        check("application/openmetrics-text;version=1.0.0", ExpositionFormat::OpenMetrics, plain);
        check(&format!("{PROTOBUF};q=0.6,text/plain;q=0.5"), ExpositionFormat::Protobuf, plain);
        check(&format!("{PROTOBUF};q=0.1,text/plain;q=0.5"), text, plain);
        check("application/vnd.google.protobuf;q=0.6,*/*;q=0.1", text, plain);
    }

    fn histogram(custom: bool, hint: ResetHint) -> Histogram {
        Histogram {
            reset_hint: hint,
            schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 1 },
            count: 4.0,
            sum: 9.5,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![1.0, 3.0],
            custom_values: custom.then(|| [0.5, 1.0].as_slice().into()),
            ..Histogram::default()
        }
    }

    fn exposed(accept: &str) -> Vec<u8> {
        let mut out = Exposition::new(negotiate(accept));
        out.add("a.b", [("c.d", "x\"\n")].into_iter(), Value::Float(1.5), 1_000);
        out.add("h", [("k", "v")].into_iter(), Value::Histogram(&histogram(true, ResetHint::Unknown)), 2_000);
        out.add("n", [].into_iter(), Value::Histogram(&histogram(false, ResetHint::Gauge)), 3_000);
        out.add("n", [("k", "v")].into_iter(), Value::Float(f64::INFINITY), 3_500);
        out.finish()
    }

    #[test]
    fn text_holds_floats_and_classic_histograms() {
        let text = String::from_utf8(exposed("text/plain;escaping=allow-utf-8")).unwrap();
        assert_eq!(
            text,
            "# TYPE \"a.b\" untyped\n{\"a.b\",\"c.d\"=\"x\\\"\\n\"} 1.5 1000\n# TYPE h histogram\n\
             h_bucket{k=\"v\",le=\"0.5\"} 0 2000\nh_bucket{k=\"v\",le=\"1\"} 1 2000\n\
             h_bucket{k=\"v\",le=\"+Inf\"} 4 2000\nh_sum{k=\"v\"} 9.5 2000\nh_count{k=\"v\"} 4 2000\n\
             # TYPE n untyped\nn{k=\"v\"} +Inf 3500\n"
        );
        let classic = String::from_utf8(exposed("")).unwrap();
        assert!(classic.starts_with("# TYPE a_b untyped\na_b{c_d=\"x\\\"\\n\"} 1.5 1000\n"), "{classic}");
        let open = String::from_utf8(exposed("application/openmetrics-text")).unwrap();
        assert!(open.starts_with("# TYPE a_b unknown\na_b{c_d=\"x\\\"\\n\"} 1.5 1\n"), "{open}");
        assert!(open.ends_with("n{k=\"v\"} +Inf 3.5\n# EOF\n"), "{open}");
        for scheme in ["dots", "values"] {
            let text = String::from_utf8(exposed(&format!("text/plain;escaping={scheme}"))).unwrap();
            let name = if scheme == "dots" { "a_dot_b" } else { "U__a_2e_b" };
            assert!(text.contains(&format!("# TYPE {name} untyped\n")), "{text}");
        }
    }

    #[test]
    fn protobuf_holds_native_histograms_too() {
        let bytes = exposed(PROTOBUF);
        let mut wire = Wire::new(&bytes, "families");
        let mut found = Vec::new();
        while !wire.is_done() {
            let mut family = wire.message("family").unwrap();
            let (mut name, mut kind, mut metrics) = ("", 0, 0);
            while !family.is_done() {
                match family.tag().unwrap() {
                    (1, _) => name = family.text().unwrap(),
                    (3, _) => kind = family.varint().unwrap(),
                    (4, WireKind::Bytes) => {
                        metrics += 1;
                        family.skip(WireKind::Bytes).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
            found.push((name, kind, metrics));
        }
        assert_eq!(found, [("a_b", 3, 1), ("h", 4, 1), ("n", 5, 1), ("n", 3, 1)]);
    }
}
