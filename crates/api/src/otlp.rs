//! The OTLP receiver: `/api/v1/otlp/v1/metrics` and its alias. The answer follows OTLP/HTTP: 200 with the counts of
//! what was rejected, else a status in the coding of the request; 503 + Retry-After alone means: send it again.
//!
//! Not here: what a request means (`formats::otlp`), decompression (`formats::gzip`), routing of samples.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use formats::otlp::answer::{StatusCode as RpcCode, partial_success, status};
use formats::otlp::{Coding, Context, Settings, Translated, coding_of, translate};
use formats::{DecodeError, gzip};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::seam::WriteReport;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::body::read_limited;
use crate::error::{ApiError, ErrorKind};
use crate::metrics::ReasonLabel;
use crate::params::tenant;
use crate::write::Receiver;

/// Above this many bytes a body is decoded on a thread of its own, so that it delays no other request.
const DECODE_ASIDE_BYTES: usize = 256 << 10;
/// What gzip makes of a body, at most.
const GZIP_RATIO: u64 = 1032;

/// Figures of the receiver.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtlpMetrics {
    samples: Counter,
    rejected: Counter,
    failures: Family<ReasonLabel, Counter>,
}

impl OtlpMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "isobar_otlp_samples",
            "Samples stored by the OTLP receiver",
            metrics.samples.clone(),
        );
        registry.register(
            "isobar_otlp_rejected_points",
            "Data points that the OTLP receiver did not store",
            metrics.rejected.clone(),
        );
        registry.register(
            "isobar_otlp_failures",
            "Requests that the OTLP receiver refused as a whole",
            metrics.failures.clone(),
        );
        metrics
    }
}

pub(crate) async fn metrics(State(receiver): State<Receiver>, request: Request) -> Response {
    let metrics = &receiver.state.metrics.otlp;
    let coding = match text(request.headers(), &header::CONTENT_TYPE)
        .and_then(|kind| coding_of(kind).map_err(|error| unsupported(error.to_string())))
    {
        Ok(coding) => coding,
        Err(refused) => {
            count_failure(metrics, &refused);
            return refused.into_text();
        }
    };
    match accept(&receiver, coding, request).await {
        Ok(taken) => {
            metrics.samples.inc_by(taken.samples);
            metrics.rejected.inc_by(taken.rejected);
            let body = partial_success(coding, taken.rejected, &taken.message);
            answer(StatusCode::OK.into_response(), coding, body)
        }
        Err(refused) => {
            count_failure(metrics, &refused);
            let code = match refused.status() {
                StatusCode::SERVICE_UNAVAILABLE => RpcCode::Unavailable,
                StatusCode::PAYLOAD_TOO_LARGE => RpcCode::ResourceExhausted,
                status if status.is_server_error() => RpcCode::Internal,
                _ => RpcCode::InvalidArgument,
            };
            let body = status(coding, code, &refused.message);
            answer(refused.into_text(), coding, body)
        }
    }
}

/// `response` with another body.
fn answer(response: Response, coding: Coding, body: Vec<u8>) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(coding.media_type()));
    Response::from_parts(parts, axum::body::Body::from(body))
}

fn count_failure(metrics: &OtlpMetrics, refused: &ApiError) {
    let reason = match refused.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
        StatusCode::REQUEST_TIMEOUT => "too_slow",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal",
        _ => "bad_data",
    };
    metrics.failures.get_or_create(&ReasonLabel { reason }).inc();
}

/// What became of a request that was taken.
struct Taken {
    samples: u64,
    rejected: u64,
    message: String,
}

async fn accept(receiver: &Receiver, coding: Coding, request: Request) -> Result<Taken, ApiError> {
    let state = &receiver.state;
    let limits = &state.settings;
    let (parts, body) = request.into_parts();
    let packed = is_gzip(&parts.headers)?;
    let tenant = tenant(&parts.headers, state)?;
    let body = read_limited(body, limits.max_write_bytes, limits.body_timeout).await?;

    // A body counts as what it says it becomes; one that becomes more is refused.
    let plain = body.len() as u64;
    let declared = match packed {
        true => u64::from(gzip::declared_length(&body).unwrap_or(0)).min(plain.saturating_mul(GZIP_RATIO)),
        false => plain,
    };
    let declared = declared.max(plain).min(limits.max_write_bytes as u64);
    let _held = receiver.slots.take(declared, limits.max_writes_held_bytes, &state.metrics)?;
    let work = Work {
        body,
        packed,
        coding,
        most: declared as usize,
        limit: limits.max_write_bytes,
        context: Context { tenant, now_ms: state.clock.now_ms(), limits: limits.write_limits },
        settings: (state.otlp)(),
    };
    let translated = if declared as usize > DECODE_ASIDE_BYTES {
        tokio::task::spawn_blocking(move || work.run())
            .await
            .map_err(|_| ApiError::new(ErrorKind::Internal, "decoding ended in a defect of ours"))??
    } else {
        work.run()?
    };
    let Translated { batch, points, rejected, reasons } = translated;
    let empty = batch.series.is_empty() && batch.metadata.is_empty();
    let report = if empty { WriteReport::default() } else { state.sink.write(batch).await? };
    Ok(taken(points, rejected, reasons, &report))
}

/// One request that has to be decoded.
struct Work {
    body: Bytes,
    packed: bool,
    coding: Coding,
    /// What the body said it becomes.
    most: usize,
    limit: usize,
    context: Context,
    settings: Arc<Settings>,
}

impl Work {
    fn run(self) -> Result<Translated, ApiError> {
        let refused = |error: DecodeError| match error {
            DecodeError::TooLarge { .. } => ApiError::new(ErrorKind::TooLarge, error.to_string()),
            _ => ApiError::bad_data(error.to_string()),
        };
        let body = match self.packed {
            true => match gzip::decompress(&self.body, self.most) {
                Err(DecodeError::TooLarge { .. }) if self.most < self.limit => {
                    return Err(ApiError::bad_data("gzip: the body holds more than its trailer says"));
                }
                other => other.map_err(refused)?.into(),
            },
            false => self.body,
        };
        translate(&body, self.coding, &self.context, &self.settings).map_err(refused)
    }
}

/// What the client is told: points that made no sense, and what storage did not take of the others.
fn taken(points: u64, rejected: u64, reasons: Vec<String>, report: &WriteReport) -> Taken {
    let samples = report.written.samples + report.written.histograms;
    let not_stored: u64 = report.rejected.values().sum();
    let mut parts = Vec::new();
    if rejected > 0 {
        parts.push(format!("{rejected} of {points} data points were not stored"));
    }
    parts.extend(reasons);
    if not_stored > 0 {
        let counts: Vec<String> =
            report.rejected.iter().map(|(reason, count)| format!("{count} {}", reason.as_str())).collect();
        parts.push(format!("{not_stored} samples were not stored ({})", counts.join(", ")));
        parts.extend(report.first_reasons.iter().cloned());
    }
    // One point may be many samples, but no more points can be lost than there are.
    let rejected = (rejected + not_stored).min(points.max(rejected));
    Taken { samples, rejected, message: parts.join("; ") }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    if headers.get_all(header::CONTENT_ENCODING).iter().count() > 1 {
        return Err(unsupported("more than one Content-Encoding".into()));
    }
    match text(headers, &header::CONTENT_ENCODING)?.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(false),
        "gzip" => Ok(true),
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(unsupported(format!(
                "unsupported compression: {shown}. Only \"gzip\" or no compression supported"
            )))
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<&'a str, ApiError> {
    let value = headers.get(name).map_or(Ok(""), HeaderValue::to_str);
    value.map_err(|_| unsupported(format!("header {name} is not printable ASCII")))
}

fn unsupported(message: String) -> ApiError {
    ApiError::new(ErrorKind::UnsupportedMedia, message)
}
