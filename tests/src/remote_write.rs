//! Remote write from the sender's side: series to the bodies of 2.0 and 1.0 requests, and their sending. What a body may
//! not say (symbols out of range, contradictions) is made by tests themselves.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use benches::http::Client;
use model::histogram::Span;
use model::seam::fake::MemorySource;
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesSource as _};
use model::{Exemplar, Histogram, Labels, MetricKind, TenantId, TimeRange};

/// What is sent of one series.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Floats: timestamp, value, start timestamp (0 = none).
    pub samples: Vec<(i64, f64, i64)>,
    /// Histograms: timestamp, histogram, start timestamp (0 = none).
    pub histograms: Vec<(i64, Arc<Histogram>, i64)>,
    /// Exemplars.
    pub exemplars: Vec<Exemplar>,
    /// Kind, help and unit; only 2.0 has them here.
    pub metadata: Option<(MetricKind, String, String)>,
}

impl Series {
    /// A series without samples. Panics on labels that are no label set.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let labels = Labels::from_pairs(pairs.iter().copied()).expect("a test names valid labels");
        Self { labels, ..Self::default() }
    }

    /// With a float.
    #[must_use]
    pub fn float(mut self, timestamp: i64, value: f64) -> Self {
        self.samples.push((timestamp, value, 0));
        self
    }

    /// With a histogram.
    #[must_use]
    pub fn histogram(mut self, timestamp: i64, histogram: Histogram) -> Self {
        self.histograms.push((timestamp, Arc::new(histogram), 0));
        self
    }

    /// With an exemplar.
    #[must_use]
    pub fn exemplar(mut self, timestamp: i64, value: f64, labels: &[(&str, &str)]) -> Self {
        let labels = Labels::from_pairs(labels.iter().copied()).expect("a test names valid labels");
        self.exemplars.push(Exemplar { labels, value, timestamp });
        self
    }
}

/// What is to be sent so that a receiver has all of `source`.
///
/// # Errors
/// When `source` cannot be read.
pub fn series_of(source: &MemorySource) -> Result<Vec<Series>> {
    let request = SelectRequest {
        tenant: TenantId::anonymous(),
        matchers: Vec::new(),
        range: TimeRange::ALL,
        budget: QueryBudget::unlimited(),
    };
    let (mut iter, mut data, mut all) = (source.select(&request)?, SeriesData::default(), Vec::new());
    while iter.next_series(&mut data)? {
        let mut series = Series { labels: data.labels.clone(), ..Series::default() };
        let mut histograms = data.histograms.iter().peekable();
        for (row, stamp) in data.stamps.iter().enumerate() {
            let start = data.starts.get(row).copied().unwrap_or(0);
            match histograms.next_if(|(at, _)| *at as usize == row) {
                Some((_, histogram)) => series.histograms.push((*stamp, Arc::clone(histogram), start)),
                None => series.samples.push((*stamp, data.values[row], start)),
            }
        }
        all.push(series);
    }
    Ok(all)
}

/// Writes protobuf fields.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A varint.
    pub fn varint(&mut self, number: u64, value: u64) -> &mut Self {
        self.raw(number << 3);
        self.raw(value);
        self
    }

    /// A zigzag varint.
    pub fn signed(&mut self, number: u64, value: i64) -> &mut Self {
        self.varint(number, ((value << 1) ^ (value >> 63)) as u64)
    }

    /// A double.
    pub fn double(&mut self, number: u64, value: f64) -> &mut Self {
        self.raw(number << 3 | 1);
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
        self
    }

    /// Bytes, a string or a message.
    pub fn bytes(&mut self, number: u64, bytes: &[u8]) -> &mut Self {
        self.raw(number << 3 | 2);
        self.raw(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// Packed varints.
    pub fn packed(&mut self, number: u64, values: impl IntoIterator<Item = u64>) -> &mut Self {
        let mut inner = Self::default();
        values.into_iter().for_each(|value| inner.raw(value));
        self.bytes(number, &inner.0)
    }
}

/// Symbols by their numbers; number 0 is the empty one.
#[derive(Debug)]
struct Symbols {
    all: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.all.len() as u64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn refs(&mut self, labels: &Labels) -> Vec<u64> {
        let mut refs = Vec::new();
        for (name, value) in labels {
            refs.push(self.number(name));
            refs.push(self.number(value));
        }
        refs
    }
}

/// An `io.prometheus.write.v2.Request`.
pub fn body_v2(all: &[Series]) -> Vec<u8> {
    let mut symbols = Symbols { all: vec![String::new()], numbers: HashMap::from([(String::new(), 0)]) };
    let mut written = Fields::default();
    for series in all {
        let mut out = Fields::default();
        out.packed(1, symbols.refs(&series.labels));
        for (timestamp, value, start) in &series.samples {
            let mut sample = Fields::default();
            sample.double(1, *value).varint(2, *timestamp as u64);
            if *start != 0 {
                sample.varint(3, *start as u64);
            }
            out.bytes(2, &sample.0);
        }
        for (timestamp, histogram, start) in &series.histograms {
            out.bytes(3, &histogram_fields(histogram, *timestamp, *start).0);
        }
        for exemplar in &series.exemplars {
            let mut one = Fields::default();
            one.packed(1, symbols.refs(&exemplar.labels));
            one.double(2, exemplar.value).varint(3, exemplar.timestamp as u64);
            out.bytes(4, &one.0);
        }
        if let Some((kind, help, unit)) = &series.metadata {
            let (help, unit) = (symbols.number(help), symbols.number(unit));
            out.bytes(5, &Fields::default().varint(1, *kind as u64).varint(3, help).varint(4, unit).0);
        }
        written.bytes(5, &out.0);
    }
    let mut request = Fields::default();
    for symbol in &symbols.all {
        request.bytes(4, symbol.as_bytes());
    }
    request.0.extend_from_slice(&written.0);
    request.0
}

/// A `prometheus.WriteRequest`.
pub fn body_v1(all: &[Series]) -> Vec<u8> {
    let labels = |out: &mut Fields, labels: &Labels| {
        for (name, value) in labels {
            out.bytes(1, &Fields::default().bytes(1, name.as_bytes()).bytes(2, value.as_bytes()).0);
        }
    };
    let mut request = Fields::default();
    for series in all {
        let mut out = Fields::default();
        labels(&mut out, &series.labels);
        for (timestamp, value, _) in &series.samples {
            out.bytes(2, &Fields::default().double(1, *value).varint(2, *timestamp as u64).0);
        }
        for exemplar in &series.exemplars {
            let mut one = Fields::default();
            labels(&mut one, &exemplar.labels);
            one.double(2, exemplar.value).varint(3, exemplar.timestamp as u64);
            out.bytes(3, &one.0);
        }
        for (timestamp, histogram, _) in &series.histograms {
            out.bytes(4, &histogram_fields(histogram, *timestamp, 0).0);
        }
        request.bytes(1, &out.0);
    }
    request.0
}

/// The fields of a histogram, which both versions number alike.
pub fn histogram_fields(h: &Histogram, timestamp: i64, start: i64) -> Fields {
    let mut out = Fields::default();
    if h.integer {
        out.varint(1, h.count as u64).varint(6, h.zero_count as u64);
    } else {
        out.double(2, h.count).double(7, h.zero_count);
    }
    out.double(3, h.sum).signed(4, i64::from(h.schema)).double(5, h.zero_threshold);
    for (first, spans, buckets) in
        [(8, &h.negative_spans, &h.negative_buckets), (11, &h.positive_spans, &h.positive_buckets)]
    {
        for Span { offset, length } in spans {
            let mut span = Fields::default();
            span.signed(1, i64::from(*offset)).varint(2, u64::from(*length));
            out.bytes(first, &span.0);
        }
        if h.integer {
            let mut last = 0;
            let deltas = buckets.iter().map(|count| {
                let delta = *count as i64 - std::mem::replace(&mut last, *count as i64);
                ((delta << 1) ^ (delta >> 63)) as u64
            });
            out.packed(first + 1, deltas.collect::<Vec<_>>());
        } else {
            let counts: Vec<u8> = buckets.iter().flat_map(|count| count.to_bits().to_le_bytes()).collect();
            out.bytes(first + 2, &counts);
        }
    }
    out.varint(14, h.reset_hint as u64).varint(15, timestamp as u64);
    if let Some(bounds) = &h.custom_values {
        let bytes: Vec<u8> = bounds.iter().flat_map(|bound| bound.to_bits().to_le_bytes()).collect();
        out.bytes(16, &bytes);
    }
    if start != 0 {
        out.varint(17, start as u64);
    }
    out
}

/// Which version a body is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.0.
    V1,
    /// 2.0.
    V2,
}

impl Version {
    /// What a request says of itself: the content type, and the number.
    pub fn headers(self) -> (&'static str, &'static str) {
        match self {
            Self::V1 => ("application/x-protobuf", "0.1.0"),
            Self::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The code.
    pub status: u16,
    /// The text.
    pub text: String,
    /// Samples, histograms and exemplars that the headers say are stored.
    pub written: Option<[u64; 3]>,
}

/// Sends a body (not compressed yet) as `tenant`, if one is named.
pub fn send(client: &mut Client, version: Version, tenant: Option<&str>, body: &[u8]) -> Result<Answer> {
    let packed = snap::raw::Encoder::new().compress_vec(body).context("compressing")?;
    let (content_type, number) = version.headers();
    let mut headers = vec![
        ("Content-Type", content_type),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", number),
    ];
    headers.extend(tenant.map(|tenant| ("X-Scope-OrgID", tenant)));
    let answer = client.exchange("POST", "/api/v1/write", &headers, &packed)?;
    let count = |kind: &str| {
        let name = format!("x-prometheus-remote-write-{kind}-written");
        answer.header(&name).and_then(|value| value.parse().ok())
    };
    let written = match (count("samples"), count("histograms"), count("exemplars")) {
        (Some(samples), Some(histograms), Some(exemplars)) => Some([samples, histograms, exemplars]),
        _ => None,
    };
    Ok(Answer {
        status: answer.status,
        text: String::from_utf8_lossy(&answer.body).trim_end().to_owned(),
        written,
    })
}
