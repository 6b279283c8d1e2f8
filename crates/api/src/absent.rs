//! Paths of features that are not there yet. Reads answer an empty, well-formed 200, so that clients and pages that
//! ask for everything keep working; what would change state answers 501, never a false success.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header;
use model::time;

use crate::body::json_text;
use crate::encode::push_string;
use crate::error::ApiError;
use crate::params::{Params, go_bool};
use crate::query::{Shared, success};

/// 501 for something that would change state.
pub(crate) async fn change(request: Request) -> ApiError {
    ApiError::not_implemented(&format!("{} {}", request.method(), request.uri().path()))
}

pub(crate) async fn empty_list() -> Response {
    success(|out| out.push_str("[]"))
}

/// Rule groups: none. What is asked for is checked all the same.
pub(crate) async fn rules(params: Params) -> Result<Response, ApiError> {
    let shown = |name: &str| params.get(name).chars().take(64).collect::<String>();
    let wrong = |name: &str, why: String| Err(ApiError::parameter(name, why));
    if !matches!(params.get("type"), "" | "alert" | "record") {
        return wrong("type", format!("not supported value {:?}", shown("type")));
    }
    if !params.get("exclude_alerts").is_empty() && go_bool(params.get("exclude_alerts")).is_none() {
        let why = format!("strconv.ParseBool: parsing {:?}: invalid syntax", shown("exclude_alerts"));
        return wrong("exclude_alerts", format!("error converting exclude_alerts: {why}"));
    }
    match params.get("group_limit") {
        "" if params.get("group_next_token").is_empty() => {}
        "" => {
            let why = "group_limit needs to be present in order to paginate over the groups";
            return wrong("group_next_token", why.into());
        }
        limit => match limit.parse::<i64>() {
            Ok(limit) if limit > 0 => {}
            Ok(_) => return wrong("group_limit", "group_limit needs to be greater than 0".into()),
            Err(_) => {
                let why = format!("strconv.ParseInt: parsing {:?}: invalid syntax", shown("group_limit"));
                return wrong("group_limit", format!("group_limit needs to be a valid number: {why}"));
            }
        },
    }
    Ok(success(|out| out.push_str(r#"{"groups":[]}"#)))
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

/// What Go programs profile, by the names of `net/http/pprof`.
const PROFILES: [&str; 7] = ["allocs", "block", "goroutine", "heap", "mutex", "profile", "threadcreate"];

/// An index of profiles, and profiles without samples whose comment says so: `promtool debug all` collects them with all
/// else. Any other path, such as that of Go's traces, answers 501.
pub(crate) async fn profiles(request: Request) -> Response {
    const COMMENT: &str = "Isobar takes no profiles yet: there are no samples in this one.";
    let path = request.uri().path();
    let name = path.strip_prefix("/debug/pprof").map(|name| name.trim_start_matches('/'));
    match name {
        Some("") => "Profiles are not there yet.\n".into_response(),
        Some(name) if PROFILES.contains(&name) => {
            // pprof's `Profile`: a table of two strings, the first empty, and a comment that is the second.
            let mut profile = vec![6 << 3 | 2, 0, 6 << 3 | 2, COMMENT.len() as u8];
            profile.extend_from_slice(COMMENT.as_bytes());
            profile.extend_from_slice(&[13 << 3, 1]);
            ([(header::CONTENT_TYPE, "application/x-protobuf")], profile).into_response()
        }
        _ => ApiError::not_implemented(path).into_text(),
    }
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
