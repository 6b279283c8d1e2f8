//! What happens to every request: counting and timing, panics caught, CORS, gzip, security headers, and the refusal
//! of a node that does not serve (yet).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::body::gzipped;
use crate::error::{ApiError, ErrorKind};
use crate::metrics::{HandlerLabel, RequestLabels};
use crate::operate::unready;
use crate::params::accepted;
use crate::state::ApiState;

/// Counts and times the request by its route, and turns a panic into a 500.
pub(crate) async fn observe(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>();
    let handler: Arc<str> = matched.map_or("unknown", MatchedPath::as_str).into();
    let started = tokio::time::Instant::now();
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            state.metrics.panics.inc();
            tracing::error!(%handler, "request ended in a panic");
            ApiError::new(ErrorKind::Internal, "unexpected error: the request ended in a defect of ours")
                .into_response()
        }
    };
    let metrics = &state.metrics;
    let labels = RequestLabels { handler: Arc::clone(&handler), code: response.status().as_u16() };
    metrics.requests.get_or_create(&labels).inc();
    metrics.duration.get_or_create(&HandlerLabel { handler }).observe(started.elapsed().as_secs_f64());
    response
}

/// CORS, gzip, and headers that keep browsers from guessing.
pub(crate) async fn headers(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let wants_gzip =
        accepted(request.headers(), header::ACCEPT_ENCODING).iter().any(|(m, _)| m == "gzip" || m == "*");
    let allowed = allowed_origin(request.headers(), &state);
    let mut response = next.run(request).await;
    if wants_gzip && response.status() == StatusCode::OK {
        response = gzipped(response);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    // Also where no origin is allowed: a cache may not give that answer to a page that is.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

fn allowed_origin(headers: &HeaderMap, state: &ApiState) -> Option<HeaderValue> {
    let regex = state.settings.cors_origin.as_ref()?;
    let origin = headers.get(header::ORIGIN)?;
    origin.to_str().is_ok_and(|text| regex.is_match(text)).then(|| origin.clone())
}

/// 503 until the node serves, and again once it stops. `OPTIONS` is answered here for all paths.
pub(crate) async fn gate(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    match unready(state.readiness.get()) {
        Some(response) => response,
        None => next.run(request).await,
    }
}
