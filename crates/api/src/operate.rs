//! Paths for operators and probes: health, readiness, reload, quit, our own metrics, version.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use formats::negotiate::{ExpositionFormat, content_type, exposition_for};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::registry::Registry;

use crate::encode::push_string;
use crate::error::{ApiError, ErrorKind};
use crate::exposition::to_prometheus_text;
use crate::query::Shared;
use crate::state::ReadyState;

pub(crate) async fn healthy() -> &'static str {
    "Isobar is Healthy.\n"
}

pub(crate) async fn ready(State(state): Shared) -> Response {
    if let Some(response) = unready(state.readiness.get()) {
        return response;
    }
    match (state.unready)() {
        Some(why) => {
            let headers = [("x-prometheus-stopping", "false"), (header::RETRY_AFTER.as_str(), "1")];
            let text = format!("Service Unavailable: {why}\n");
            (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
        }
        None => "Isobar is Ready.\n".into_response(),
    }
}

/// The answer of a node that does not serve: upstream's, with the header that tells starting from stopping.
pub(crate) fn unready(state: ReadyState) -> Option<Response> {
    let stopping = match state {
        ReadyState::Ready => return None,
        ReadyState::NotReady => "false",
        ReadyState::Stopping => "true",
    };
    let headers = [("x-prometheus-stopping", stopping), (header::RETRY_AFTER.as_str(), "1")];
    Some((StatusCode::SERVICE_UNAVAILABLE, headers, "Service Unavailable").into_response())
}

fn switched_off() -> Response {
    (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response()
}

pub(crate) async fn reload(State(state): Shared) -> Response {
    if !state.settings.lifecycle {
        return switched_off();
    }
    match (state.reload)().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(why) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload config: {why}\n")).into_response()
        }
    }
}

pub(crate) async fn quit(State(state): Shared) -> Response {
    if !state.settings.lifecycle {
        return switched_off();
    }
    (state.quit)();
    "Requesting termination... Goodbye!".into_response()
}

pub(crate) async fn only_post() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST, PUT")], "Only POST or PUT requests allowed")
        .into_response()
}

pub(crate) async fn metrics(State(state): Shared, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (media, text) = own_metrics(&state.registry, accept)
        .map_err(|e| ApiError::new(ErrorKind::Internal, format!("error writing metrics: {e}")))?;
    Ok(([(header::CONTENT_TYPE, media)], text).into_response())
}

/// What `/metrics` shows of `registry` to whoever sends this `Accept`: its media type and text. Fails when a metric of
/// the registry cannot be written; a retry does not help.
pub fn own_metrics(registry: &Registry, accept: &str) -> Result<(&'static str, String), std::fmt::Error> {
    let format = exposition_for(accept);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    if format != ExpositionFormat::OpenMetrics {
        text = to_prometheus_text(&text);
    }
    Ok((content_type(format), text))
}

pub(crate) async fn version(State(state): Shared) -> Response {
    let build = &state.build;
    let mut out = String::from("{");
    let fields = [
        ("version", &build.prometheus_version),
        ("revision", &build.revision),
        ("branch", &build.branch),
        ("buildDate", &build.build_date),
        ("goVersion", &build.compiler),
        ("isobarVersion", &build.isobar_version),
    ];
    for (at, (name, value)) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(&mut out, name);
        out.push(':');
        push_string(&mut out, value);
    }
    out.push_str("}\n");
    crate::body::json_text(out)
}
