//! The remote-write receiver: `/api/v1/write` and its aliases, for versions 1.0 and 2.0. A body becomes a batch for the
//! sample sink; the answer says what became of it: 204 all stored, 400 do not send again, 413, 415, 503 + Retry-After
//! send again. To a 2.0 request it also says in headers how much of each kind is stored.
//!
//! Not here: protobuf and snappy (`formats`), limits on series and samples, routing (`model::seam::SampleSink`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{FromRef, Request, State};
use axum::response::{IntoResponse, Response};
use formats::negotiate::{WriteProtocol, write_protocol};
use formats::remote_write::{self, Decoded};
use formats::{DecodeError, snappy};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::seam::{Counts, RejectReason, WriteBatch, WriteReport};
use model::{LabelsBuilder, TenantId};

use crate::body::read_limited;
use crate::error::{ApiError, ErrorKind};
use crate::metrics::{ApiMetrics, ReasonLabel};
use crate::params::{tenant, too_large};
use crate::state::ApiState;

/// Above this many decompressed bytes a body is decoded on a thread of its own, so that it delays no other request.
const DECODE_ASIDE_BYTES: usize = 512 << 10;

/// The receiver's own state: the bytes of requests held in memory.
#[derive(Debug, Default)]
pub(crate) struct WriteSlots {
    held: AtomicU64,
}

/// Bytes taken from the memory for requests; given back when dropped.
pub(crate) struct Held<'a> {
    slots: &'a WriteSlots,
    metrics: &'a ApiMetrics,
    bytes: u64,
}

impl WriteSlots {
    /// Takes `bytes`, unless all together would be over `limit`; one request may always be there.
    pub(crate) fn take<'a>(
        &'a self,
        bytes: u64,
        limit: u64,
        metrics: &'a ApiMetrics,
    ) -> Result<Held<'a>, ApiError> {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        metrics.writes_held_bytes.inc_by(bytes as i64);
        let held = Held { slots: self, metrics, bytes };
        if before > 0 && before + bytes > limit {
            let message =
                format!("too many write requests are under way: limit {limit} bytes of decompressed bodies");
            return Err(ApiError::busy(message, Duration::from_secs(1)));
        }
        Ok(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.slots.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.metrics.writes_held_bytes.dec_by(self.bytes as i64);
    }
}

/// What the write paths work on.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) state: Arc<ApiState>,
    pub(crate) slots: Arc<WriteSlots>,
}

impl FromRef<Arc<ApiState>> for Receiver {
    fn from_ref(state: &Arc<ApiState>) -> Self {
        Self { state: Arc::clone(state), slots: Arc::clone(&state.writes.0) }
    }
}

/// What is stored of a 2.0 request, in its answer's headers: samples, histograms, exemplars.
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

pub(crate) async fn write(State(receiver): State<Receiver>, request: Request) -> Response {
    let protocol = match check_headers(request.headers()) {
        Ok(protocol) => protocol,
        Err(refused) => return refuse(&receiver, None, refused),
    };
    match accept(&receiver, protocol, request).await {
        Ok(report) => answer(&receiver.state.metrics, protocol, &report),
        Err(refused) => refuse(&receiver, Some(protocol), refused),
    }
}

/// The answer to a request of which nothing is stored, or (5xx) of which it is not known what is.
fn refuse(receiver: &Receiver, protocol: Option<WriteProtocol>, refused: ApiError) -> Response {
    let status = refused.status();
    let reason = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
        StatusCode::REQUEST_TIMEOUT => "too_slow",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "bad_data",
    };
    receiver.state.metrics.write_failures.get_or_create(&ReasonLabel { reason }).inc();
    let mut response = refused.into_text();
    if protocol == Some(WriteProtocol::V2) && status.is_client_error() {
        set_written(&mut response, Counts::default());
    }
    response
}

fn set_written(response: &mut Response, written: Counts) {
    let Counts { samples, histograms, exemplars } = written;
    for (name, count) in WRITTEN.into_iter().zip([samples, histograms, exemplars]) {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
    }
}

async fn accept(
    receiver: &Receiver,
    protocol: WriteProtocol,
    request: Request,
) -> Result<WriteReport, ApiError> {
    let state = &receiver.state;
    let settings = &state.settings;
    let (parts, body) = request.into_parts();
    let tenant = tenant(&parts.headers, state)?;
    let packed = read_limited(body, settings.max_write_bytes, settings.body_timeout).await?;

    let declared = snappy_length(&packed).unwrap_or(0).min(settings.max_write_bytes as u64);
    let _held = receiver.slots.take(declared, settings.max_writes_held_bytes, &state.metrics)?;
    let limits = settings.write_limits;
    let max_bytes = settings.max_write_bytes;
    let decode = move || decode(protocol, &packed, tenant, max_bytes, &limits);
    let (Decoded { batch, left_out }, empty) = if declared as usize > DECODE_ASIDE_BYTES {
        tokio::task::spawn_blocking(decode)
            .await
            .map_err(|_| ApiError::new(ErrorKind::Internal, "decoding ended in a defect of ours"))??
    } else {
        decode()?
    };
    let is_empty = batch.series.is_empty() && batch.metadata.is_empty();
    let mut report = if is_empty { WriteReport::default() } else { state.sink.write(batch).await? };
    for (reason, count) in [
        (RejectReason::InvalidLabels, left_out.samples + empty.count),
        (RejectReason::ExemplarLabels, left_out.exemplars),
    ] {
        if count > 0 {
            *report.rejected.entry(reason).or_default() += count;
        }
    }
    report.first_reasons.extend(left_out.first);
    report.first_reasons.extend(empty.first);
    Ok(report)
}

/// Series of a 2.0 request that hold nothing, which 2.0 forbids. It forbids those with exemplars alone too, but that is
/// how Prometheus 3 sends every exemplar (prometheus/prometheus#17857), so they are taken for series that are there.
#[derive(Debug, Default)]
struct EmptySeries {
    count: u64,
    first: Option<String>,
}

/// Counts the series that hold nothing.
fn count_empty(batch: &WriteBatch) -> EmptySeries {
    let mut empty = EmptySeries::default();
    let mut builder = LabelsBuilder::new();
    for series in &batch.series {
        if [&series.samples, &series.histograms, &series.exemplars].iter().any(|held| !held.is_empty()) {
            continue;
        }
        empty.count += 1;
        if empty.first.is_none() {
            let range = series.labels.start as usize..series.labels.end as usize;
            let region = batch.buffer.get(range).unwrap_or_default();
            let named = (batch.decode_labels)(region, &mut builder).and_then(|()| builder.build());
            let name = named.map_or_else(|error| error.to_string(), |labels| labels.metric_name().to_owned());
            let shown: String = name.chars().take(64).collect();
            let text = format!("TimeSeries must contain at least one sample or histogram for series {shown}");
            empty.first = Some(text);
        }
    }
    empty
}

/// The length that a snappy block declares: its first varint.
fn snappy_length(block: &[u8]) -> Option<u64> {
    let mut length = 0u64;
    for (at, byte) in block.iter().take(5).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

fn decode(
    protocol: WriteProtocol,
    packed: &[u8],
    tenant: TenantId,
    max_bytes: usize,
    limits: &formats::RequestLimits,
) -> Result<(Decoded, EmptySeries), ApiError> {
    let refused = |error: DecodeError| match error {
        DecodeError::TooLarge { .. } => ApiError::new(ErrorKind::TooLarge, error.to_string()),
        _ => ApiError::bad_data(error.to_string()),
    };
    if snappy_length(packed).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    let body = snappy::decompress(packed, max_bytes).map_err(refused)?;
    match protocol {
        WriteProtocol::V1 => {
            let decoded = remote_write::decode_v1_limited(body, tenant, limits).map_err(refused)?;
            Ok((decoded, EmptySeries::default()))
        }
        WriteProtocol::V2 => {
            let decoded = remote_write::decode_v2(&body, tenant, limits).map_err(refused)?;
            let empty = count_empty(&decoded.batch);
            Ok((decoded, empty))
        }
    }
}

/// Media type, message and encoding must be those of remote write; gives its version.
fn check_headers(headers: &HeaderMap) -> Result<WriteProtocol, ApiError> {
    let text = |name: HeaderName| {
        let value = headers.get(&name).map(|v| v.to_str());
        value.unwrap_or(Ok("")).map_err(|_| unsupported(format!("header {name} is not printable ASCII")))
    };
    let protocol =
        write_protocol(text(header::CONTENT_TYPE)?).map_err(|error| unsupported(error.to_string()))?;
    if headers.get_all(header::CONTENT_ENCODING).iter().count() > 1 {
        return Err(unsupported("more than one Content-Encoding".into()));
    }
    let encoding = text(header::CONTENT_ENCODING)?.trim();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        let shown: String = encoding.chars().take(64).collect();
        return Err(unsupported(format!(
            "{shown} encoding (compression) is not accepted by this server; only snappy is acceptable"
        )));
    }
    Ok(protocol)
}

fn unsupported(message: String) -> ApiError {
    ApiError::new(ErrorKind::UnsupportedMedia, message)
}

/// Whether a rejection makes the answer a 400. Exemplars are no reason in 1.0, as upstream has it: its senders repeat and
/// reorder them in good faith, and would take the whole request for lost.
fn is_told(protocol: WriteProtocol, reason: RejectReason) -> bool {
    let of_exemplars = matches!(
        reason,
        RejectReason::OutOfOrderExemplar | RejectReason::ExemplarWithoutSeries | RejectReason::ExemplarLabels
    );
    protocol == WriteProtocol::V2 || !of_exemplars
}

fn answer(metrics: &ApiMetrics, protocol: WriteProtocol, report: &WriteReport) -> Response {
    metrics.write_samples.inc_by(report.written.samples + report.written.histograms);
    for (reason, count) in &report.rejected {
        metrics.write_rejected.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc_by(*count);
    }
    let told = report.rejected.iter().filter(|(reason, _)| is_told(protocol, **reason));
    let mut response = if told.clone().next().is_none() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let counts: Vec<String> = told.clone().map(|(r, n)| format!("{n} {}", r.as_str())).collect();
        let total: u64 = told.map(|(_, n)| *n).sum();
        let written = report.written.samples + report.written.histograms;
        let mut message = format!("{total} samples were not stored ({}), {written} were", counts.join(", "));
        for reason in &report.first_reasons {
            message.push_str("; ");
            message.push_str(reason);
        }
        ApiError::bad_data(message).into_text()
    };
    if protocol == WriteProtocol::V2 {
        set_written(&mut response, report.written);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_remote_write_in_snappy_is_accepted() {
        let check = |content_type: &str, encoding: &str, ok: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, content_type), (header::CONTENT_ENCODING, encoding)]
            {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_str(value).unwrap());
                }
            }
            let result = check_headers(&headers);
            assert_eq!(result.is_ok(), ok, "{content_type} {encoding}");
            if let Err(error) = result {
                assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
        };
        check("application/x-protobuf", "snappy", true);
        check("", "", true);
        check("application/x-protobuf; proto=prometheus.WriteRequest", "snappy", true);
        check("application/x-protobuf; proto=io.prometheus.write.v2.Request", "snappy", true);
        check("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", true);
        check("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", false);
        check("application/x-protobuf; proto=something.Else", "snappy", false);
        check("application/json", "snappy", false);
        check("application/x-protobuf", "gzip", false);
        check("application/x-protobuf", "snappy, gzip", false);
    }

    #[test]
    fn declared_lengths() {
        assert_eq!(snappy_length(&[5, 1, 2]), Some(5));
        assert_eq!(snappy_length(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(u64::from(u32::MAX)));
        assert_eq!(snappy_length(&[0xff; 10]), None);
        assert_eq!(snappy_length(&[]), None);
    }
}
