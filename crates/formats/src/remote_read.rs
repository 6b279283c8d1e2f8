//! Remote read: the request, and its two kinds of answer (`prompb/remote.proto` and `storage/remote/codec.go` of
//! Prometheus): all samples in one snappy block, or a stream of frames with chunks in Prometheus's own chunk encodings
//! ([`mod@chunks`]).
//!
//! An answer is put together from series that are encoded one by one, so that nobody holds the samples and their
//! encoding at once. Not here: finding the series, limits on their number, HTTP.

mod bits;
mod chunks;
mod request;
#[cfg(test)]
mod tests;

use model::histogram::Span;
use model::seam::SeriesData;
use model::{Histogram, Labels};

pub use chunks::{Chunk, ChunkKind, chunks};
pub use request::{MAX_MATCHERS, MAX_QUERIES, ReadQuery, ReadRequest, ResponseKind, decode};

use crate::wire_write::{WireWriter, zigzag};

/// `Content-Type` of an answer with samples; its `Content-Encoding` is `snappy`.
pub const SAMPLES_CONTENT_TYPE: &str = "application/x-protobuf";

/// `Content-Type` of a streamed answer.
pub const CHUNKS_CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// A series' labels with those of `external` that it does not have itself, in order of names.
pub fn with_external<'l>(labels: &'l Labels, external: &'l Labels) -> Vec<(&'l str, &'l str)> {
    let mut all: Vec<(&str, &str)> = labels.iter().collect();
    all.extend(external.iter().filter(|(name, _)| labels.get(name).is_none()));
    all.sort_unstable();
    all
}

/// A `prometheus.TimeSeries` with the samples of `data` and its labels joined with `external`.
pub fn time_series(data: &SeriesData, external: &Labels) -> Vec<u8> {
    let mut writer = WireWriter::default();
    put_labels(&mut writer, &with_external(&data.labels, external));
    let mut histograms = data.histograms.iter().peekable();
    for (at, (stamp, value)) in data.stamps.iter().zip(&data.values).enumerate() {
        if let Some((_, histogram)) = histograms.next_if(|(position, _)| *position as usize == at) {
            writer.message(4, |out| put_histogram(out, *stamp, histogram));
            continue;
        }
        writer.message(2, |out| {
            out.double(1, *value);
            out.number(2, *stamp as u64);
        });
    }
    writer.out
}

/// A `prometheus.ReadResponse` (before compression): one list of encoded series for each query.
pub fn response(results: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let total: usize = results.iter().flatten().map(|series| series.len() + 6).sum();
    let mut writer = WireWriter { out: Vec::with_capacity(total + 6 * results.len()) };
    for series in results {
        let length: usize = series.iter().map(|one| 1 + varint_len(one.len()) + one.len()).sum();
        writer.varint(1 << 3 | 2);
        writer.varint(length as u64);
        for one in series {
            writer.bytes(1, one);
        }
    }
    writer.out
}

/// Appends the frames of one series to `out`: each a length, a checksum, and a `prometheus.ChunkedReadResponse` with
/// chunks of about `max_frame_bytes` at most, one chunk at least.
pub fn put_frames(
    out: &mut Vec<u8>,
    labels: &[(&str, &str)],
    chunks: &[Chunk],
    query_index: usize,
    max_frame_bytes: usize,
) {
    let mut rest = chunks;
    while !rest.is_empty() {
        let mut bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
        let mut count = 0;
        while count < rest.len() && (count == 0 || bytes < max_frame_bytes) {
            bytes += rest[count].bytes.len() + 24;
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        let mut writer = WireWriter { out: Vec::with_capacity(bytes) };
        writer.message(1, |series| {
            put_labels(series, labels);
            for chunk in now {
                series.message(2, |out| {
                    out.number(1, chunk.min_time as u64);
                    out.number(2, chunk.max_time as u64);
                    out.number(3, chunk.kind as u64);
                    out.bytes(4, &chunk.bytes);
                });
            }
        });
        writer.number(2, query_index as u64);
        let mut header = WireWriter::default();
        header.varint(writer.out.len() as u64);
        out.extend_from_slice(&header.out);
        out.extend_from_slice(&crc32c::crc32c(&writer.out).to_be_bytes());
        out.extend_from_slice(&writer.out);
    }
}

fn varint_len(value: usize) -> usize {
    (value.max(1).ilog2() / 7 + 1) as usize
}

fn put_labels(writer: &mut WireWriter, labels: &[(&str, &str)]) {
    for (name, value) in labels {
        writer.message(1, |out| {
            out.bytes(1, name.as_bytes());
            out.bytes(2, value.as_bytes());
        });
    }
}

/// Whether all counts are whole numbers that an integer histogram can say.
fn is_whole(histogram: &Histogram) -> bool {
    let whole = |value: f64| (0.0..=9_007_199_254_740_992.0).contains(&value) && value.fract() == 0.0;
    histogram.integer
        && whole(histogram.count)
        && whole(histogram.zero_count)
        && histogram.positive_buckets.iter().chain(&histogram.negative_buckets).all(|count| whole(*count))
}

/// Bucket counts of an integer histogram, each as the difference to the one before.
fn deltas(buckets: &[f64]) -> impl Iterator<Item = i64> + '_ {
    let mut before = 0;
    buckets.iter().map(move |count| {
        let count = *count as i64;
        let delta = count - before;
        before = count;
        delta
    })
}

/// The fields of a `prometheus.Histogram`.
fn put_histogram(out: &mut WireWriter, timestamp: i64, histogram: &Histogram) {
    let whole = is_whole(histogram);
    if whole {
        out.number_always(1, histogram.count as u64);
    } else {
        out.double_always(2, histogram.count);
    }
    out.double(3, histogram.sum);
    out.signed(4, i64::from(histogram.schema));
    out.double(5, histogram.zero_threshold);
    if whole {
        out.number_always(6, histogram.zero_count as u64);
    } else {
        out.double_always(7, histogram.zero_count);
    }
    let put_spans = |out: &mut WireWriter, field: u32, spans: &[Span]| {
        for span in spans {
            out.message(field, |out| {
                out.signed(1, i64::from(span.offset));
                out.number(2, u64::from(span.length));
            });
        }
    };
    put_spans(out, 8, &histogram.negative_spans);
    if whole {
        out.packed(9, deltas(&histogram.negative_buckets).map(zigzag));
    } else {
        out.packed_doubles(10, &histogram.negative_buckets);
    }
    put_spans(out, 11, &histogram.positive_spans);
    if whole {
        out.packed(12, deltas(&histogram.positive_buckets).map(zigzag));
    } else {
        out.packed_doubles(13, &histogram.positive_buckets);
    }
    out.number(14, histogram.reset_hint as u64);
    out.number(15, timestamp as u64);
    out.packed_doubles(16, histogram.custom_values.as_deref().unwrap_or(&[]));
}
