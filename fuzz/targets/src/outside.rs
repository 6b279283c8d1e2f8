//! What comes from outside: expositions, remote write and read, OTLP, compression, headers.

use formats::otlp::{Coding, Context, Settings, Strategy, translate};
use formats::protobuf::{self, Histograms, Item, Value};
use formats::text::custom::{Converted, CustomBuckets};
use formats::text::{Entry, Parser, TextFormat, series_labels};
use formats::{DecodeError, RequestLimits, gzip, negotiate, remote_read, remote_write, snappy};
use model::seam::WriteBatch;
use model::{Histogram, LabelsBuilder, TenantId};

/// What the limits of a small request are, so that small inputs reach them.
const LIMITS: RequestLimits = RequestLimits { max_series: 100, max_samples: 500, max_label_bytes: 64 << 10 };
/// The most bytes that compressed inputs may become.
const MAX_DECOMPRESSED: usize = 1 << 20;

/// Prometheus's text format, with and without conversion of classic histograms.
pub(crate) fn text(data: &[u8]) {
    exposition(data, TextFormat::Prometheus);
}

/// OpenMetrics.
pub(crate) fn openmetrics(data: &[u8]) {
    exposition(data, TextFormat::OpenMetrics);
}

fn exposition(data: &[u8], format: TextFormat) {
    let mut builder = LabelsBuilder::new();
    let mut parser = Parser::new(data, format);
    let mut entries = 0;
    while let Ok(Some(entry)) = parser.next() {
        entries += 1;
        assert!(entries <= data.len() + 1, "every entry takes a byte");
        if let Entry::Series(series) = entry {
            assert!(!model::is_stale(series.value), "no text is a staleness marker");
            let decoded = series_labels(series.series, series.kind, &mut builder);
            assert!(decoded.is_ok(), "what was parsed decodes: {:?}", series.series);
            if let Some(exemplar) = series.exemplar {
                let _ = exemplar.decode(0);
            }
        }
    }
    let mut converted = CustomBuckets::new(Parser::new(data, format), true);
    while let Ok(Some(piece)) = converted.next() {
        if let Converted::Histogram { series, histogram, .. } = piece {
            assert!(series_labels(&series, model::MetricKind::Unknown, &mut builder).is_ok());
            check_histogram(&histogram);
        }
    }
}

/// Delimited `MetricFamily` messages, in all forms of histograms.
pub(crate) fn protobuf_scrape(data: &[u8]) {
    let mut builder = LabelsBuilder::new();
    for bits in 0..8 {
        let histograms =
            Histograms { native: bits & 1 != 0, keep_classic: bits & 2 != 0, convert: bits & 4 != 0 };
        let _: Result<(), DecodeError> = protobuf::read(data, histograms, |item| {
            if let Item::Found(found) = item {
                let decoded = series_labels(found.series, model::MetricKind::Unknown, &mut builder);
                assert!(decoded.is_ok(), "what was written decodes: {:?}", found.series);
                match found.value {
                    Value::Float(value) => {
                        assert!(!model::is_stale(value), "no target writes staleness markers")
                    }
                    Value::Histogram(histogram) => check_histogram(&histogram),
                }
            }
            Ok(())
        });
    }
}

/// Remote write 1.0, decompressed.
pub(crate) fn remote_write_v1(data: &[u8]) {
    if let Ok(found) = remote_write::decode_v1_limited(data.to_vec(), TenantId::anonymous(), &LIMITS) {
        check_batch(&found.batch);
    }
}

/// Remote write 2.0, decompressed.
pub(crate) fn remote_write_v2(data: &[u8]) {
    if let Ok(found) = remote_write::decode_v2(data, TenantId::anonymous(), &LIMITS) {
        check_batch(&found.batch);
    }
}

/// A remote read request, decompressed.
pub(crate) fn remote_read(data: &[u8]) {
    if let Ok(request) = remote_read::decode(data) {
        assert!(request.queries.len() <= remote_read::MAX_QUERIES);
        assert!(request.queries.iter().all(|query| query.matchers.len() <= remote_read::MAX_MATCHERS));
    }
}

/// `Accept` and `Content-Type`.
pub(crate) fn headers(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    let _ = negotiate::exposition_for(header);
    let fallback = negotiate::ScrapeProtocol::PrometheusText0_0_4;
    assert!(negotiate::scrape_format(header, Some(fallback)).is_ok(), "the fallback always holds");
    for result in [negotiate::scrape_format(header, None).err(), negotiate::write_protocol(header).err()] {
        assert!(result.is_none_or(|error| error.to_string().len() < 2_000), "messages are short");
    }
}

/// OTLP in protobuf.
pub(crate) fn otlp_protobuf(data: &[u8]) {
    otlp(data, Coding::Protobuf);
}

/// OTLP in JSON.
pub(crate) fn otlp_json(data: &[u8]) {
    otlp(data, Coding::Json);
}

fn otlp(data: &[u8], coding: Coding) {
    for (strategy, convert_histograms) in
        [(Strategy::UnderscoreEscapingWithSuffixes, false), (Strategy::NoTranslation, true)]
    {
        let settings = Settings { strategy, convert_histograms, promote_scope: true, ..Settings::default() };
        let context = Context { tenant: TenantId::anonymous(), now_ms: 1_700_000_000_000, limits: LIMITS };
        let Ok(translated) = translate(data, coding, &context, &settings) else { continue };
        assert!(translated.rejected <= translated.points);
        check_batch(&translated.batch);
        let mut builder = LabelsBuilder::new();
        for series in &translated.batch.series {
            let region = &translated.batch.buffer[series.labels.start as usize..series.labels.end as usize];
            assert!((translated.batch.decode_labels)(region, &mut builder).is_ok(), "labels are canonical");
            assert!(builder.get(model::METRIC_NAME).is_some(), "every series has a name");
        }
    }
}

/// Snappy blocks.
pub(crate) fn snappy(data: &[u8]) {
    if let Ok(out) = snappy::decompress(data, MAX_DECOMPRESSED) {
        assert!(out.len() <= MAX_DECOMPRESSED);
    }
}

/// Gzip streams.
pub(crate) fn gzip(data: &[u8]) {
    if let Ok(out) = gzip::decompress(data, MAX_DECOMPRESSED) {
        assert!(out.len() <= MAX_DECOMPRESSED);
    }
    let _ = gzip::declared_length(data);
}

/// A batch whose ranges lie inside it, within the limits.
fn check_batch(batch: &WriteBatch) {
    let inside = |range: &std::ops::Range<u32>, length: usize| {
        assert!(range.start <= range.end && range.end as usize <= length, "{range:?} of {length}");
    };
    for series in &batch.series {
        inside(&series.labels, batch.buffer.len());
        inside(&series.samples, batch.samples.len());
        inside(&series.histograms, batch.histograms.len());
        inside(&series.exemplars, batch.exemplars.len());
        let region = &batch.buffer[series.labels.start as usize..series.labels.end as usize];
        let _ = (batch.decode_labels)(region, &mut LabelsBuilder::new());
    }
    assert!(batch.starts.is_empty() || batch.starts.len() == batch.samples.len());
    assert!(batch.series.len() <= LIMITS.max_samples * 4);
    assert!(batch.samples.len() + batch.histograms.len() <= LIMITS.max_samples * 4);
}

/// A histogram whose spans and counts fit each other.
fn check_histogram(histogram: &Histogram) {
    for (spans, counts) in [
        (&histogram.positive_spans, &histogram.positive_buckets),
        (&histogram.negative_spans, &histogram.negative_buckets),
    ] {
        let covered: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
        assert_eq!(covered, counts.len() as u64);
    }
    assert!(!model::is_stale(histogram.sum), "no target writes staleness markers");
}
