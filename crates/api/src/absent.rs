//! Paths of features that are not there yet. Reads answer an empty, well-formed 200, so that clients and pages that
//! ask for everything keep working; what would change state answers 501, never a false success.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use formats::{DecodeError, snappy};
use http::{StatusCode, header};
use model::time;

use crate::body::{json_text, read_limited};
use crate::encode::push_string;
use crate::error::ApiError;
use crate::params::{Params, too_large};
use crate::query::{Shared, success};

/// 501 for something that would change state.
pub(crate) async fn change(request: Request) -> ApiError {
    ApiError::not_implemented(&format!("{} {}", request.method(), request.uri().path()))
}

pub(crate) async fn empty_list() -> Response {
    success(|out| out.push_str("[]"))
}

pub(crate) async fn rules() -> Response {
    success(|out| out.push_str(r#"{"groups":[]}"#))
}

pub(crate) async fn alerts() -> Response {
    success(|out| out.push_str(r#"{"alerts":[]}"#))
}

pub(crate) async fn alertmanagers() -> Response {
    success(|out| out.push_str(r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#))
}

pub(crate) async fn blocks() -> Response {
    success(|out| out.push_str(r#"{"blocks":[]}"#))
}

/// A stream of notifications that ends at once: upstream's answer when it takes no more subscribers.
pub(crate) async fn no_stream() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What the API can do, as far as it can.
pub(crate) async fn features(State(state): Shared) -> Response {
    let settings = &state.settings;
    success(|out| {
        out.push_str(&format!(
            r#"{{"api":{{"admin":{},"lifecycle":{},"remote_write_receiver":true,"label_values_match":true,"#,
            settings.admin, settings.lifecycle
        ));
        out.push_str(
            r#""otlp_write_receiver":true,"query_stats":true,"query_warnings":true,"search":false,"time_range_labels":true,"time_range_series":true}}"#,
        );
    })
}

/// Searching is not there: no results, in upstream's line format.
pub(crate) async fn search() -> Response {
    let body = "{\"status\":\"success\",\"has_more\":false}\n";
    ([(header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8")], body).into_response()
}

pub(crate) async fn cardinality_names() -> Response {
    json_text(r#"{"label_values_count_total":0,"label_names_count":0,"cardinality":[]}"#.into())
}

pub(crate) async fn cardinality_values() -> Response {
    json_text(r#"{"series_count_total":0,"labels":[]}"#.into())
}

/// Rule groups in Mimir's API: none.
pub(crate) async fn no_rule_files() -> Response {
    ([(header::CONTENT_TYPE, "application/yaml")], "{}\n").into_response()
}

/// Federation: no series.
pub(crate) async fn federate(params: Params) -> Result<Response, ApiError> {
    params.selectors()?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], "").into_response())
}

/// Remote read: as many empty results as there are queries.
pub(crate) async fn read(State(state): Shared, request: Request) -> Response {
    match empty_results(&state, request).await {
        Ok(response) => response,
        Err(error) => error.into_text(),
    }
}

async fn empty_results(state: &Arc<crate::state::ApiState>, request: Request) -> Result<Response, ApiError> {
    let settings = &state.settings;
    let packed = read_limited(request.into_body(), settings.max_form_bytes, settings.body_timeout).await?;
    let body = snappy::decompress(&packed, settings.max_form_bytes).map_err(|error| match error {
        DecodeError::TooLarge { .. } => too_large(settings.max_form_bytes),
        _ => ApiError::bad_data(error.to_string()),
    })?;
    let queries = count_queries(&body).ok_or_else(|| ApiError::bad_data("protobuf: not a read request"))?;
    // One empty `results` field (number 1, length 0) for each.
    let answer =
        snappy::compress(&[0x0a, 0x00].repeat(queries)).map_err(|e| ApiError::bad_data(e.to_string()))?;
    let headers = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
    Ok((headers, answer).into_response())
}

/// How many `queries` (field 1) a `prometheus.ReadRequest` has, or `None` when it is not one.
fn count_queries(body: &[u8]) -> Option<usize> {
    fn varint(body: &[u8], at: &mut usize) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *body.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let (mut at, mut queries) = (0, 0);
    while at < body.len() {
        let key = varint(body, &mut at)?;
        match key & 7 {
            0 => {
                varint(body, &mut at)?;
            }
            2 => {
                let length = usize::try_from(varint(body, &mut at)?).ok()?;
                at = at.checked_add(length).filter(|end| *end <= body.len())?;
                queries += usize::from(key >> 3 == 1);
            }
            _ => return None,
        }
    }
    Some(queries)
}

/// The admin API of the storage: off, or not there yet.
pub(crate) async fn admin(State(state): Shared, request: Request) -> ApiError {
    if state.settings.admin {
        return ApiError::not_implemented(&format!("{} {}", request.method(), request.uri().path()));
    }
    ApiError::switched_off("admin APIs disabled")
}

/// Profiles: an index page that says so, and 501 for each profile.
pub(crate) async fn profiles(request: Request) -> Response {
    let path = request.uri().path();
    if path.ends_with("/pprof") || path.ends_with("/pprof/") {
        return "Profiles are not there yet.\n".into_response();
    }
    ApiError::not_implemented(path).into_text()
}

/// Alertmanager's status, without an Alertmanager in it.
pub(crate) async fn alertmanager_status(State(state): Shared) -> Response {
    let mut out =
        String::from(r#"{"cluster":{"status":"disabled","peers":[]},"config":{"original":""},"uptime":"#);
    push_string(&mut out, &time::format_rfc3339((state.runtime)().start_ms));
    out.push_str(r#","versionInfo":{"version":"#);
    push_string(&mut out, &state.build.isobar_version);
    out.push_str(r#","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":""}}"#);
    json_text(out)
}

pub(crate) async fn bare_list() -> Response {
    json_text("[]".into())
}

/// A list of the paths in OpenAPI's form, without their parameters.
pub(crate) async fn openapi(State(state): Shared) -> Response {
    let mut out = String::from("openapi: 3.1.0\ninfo:\n  title: Isobar API\n  version: ");
    out.push_str(&state.build.isobar_version);
    out.push_str("\npaths:\n");
    for path in ["query", "query_range", "series", "labels", "label/{name}/values", "metadata", "targets"] {
        out.push_str(&format!(
            "  /api/v1/{path}:\n    get:\n      responses:\n        \"200\":\n          description: OK\n"
        ));
    }
    ([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], out).into_response()
}

#[cfg(test)]
mod tests {
    use super::count_queries;

    #[test]
    fn queries_of_a_read_request_are_counted() {
        assert_eq!(count_queries(&[]), Some(0));
        assert_eq!(count_queries(&[0x0a, 2, 8, 1, 0x0a, 0, 0x10, 1]), Some(2));
        assert_eq!(count_queries(&[0x0a, 200]), None);
        assert_eq!(count_queries(&[0x0b]), None);
        assert_eq!(count_queries(&[0xff; 20]), None);
    }
}
