//! What the node is and how it does: `status/…`.

use axum::extract::State;
use axum::response::Response;
use model::seam::NamedCount;
use model::time;

use crate::encode::{push_list, push_string, push_strings, push_unsigned};
use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, success};

/// Longest list that `status/tsdb` gives.
const MAX_TSDB_LIMIT: i64 = 10_000;

fn push_object(out: &mut String, fields: &[(&str, &str)]) {
    out.push('{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push_string(out, value);
    }
    out.push('}');
}

pub(crate) async fn build_info(State(state): Shared) -> Response {
    let build = &state.build;
    success(|out| {
        push_object(
            out,
            &[
                ("version", &build.prometheus_version),
                ("revision", &build.revision),
                ("branch", &build.branch),
                ("buildUser", ""),
                ("buildDate", &build.build_date),
                ("goVersion", &build.compiler),
                ("isobarVersion", &build.isobar_version),
            ],
        );
    })
}

pub(crate) async fn runtime_info(State(state): Shared) -> Response {
    let info = (state.runtime)();
    let moment = |ms: i64| time::format_rfc3339(ms);
    success(|out| {
        let texts = [
            ("startTime", moment(info.start_ms)),
            ("CWD", info.working_dir),
            ("hostname", info.hostname),
            ("serverTime", moment(state.clock.now_ms())),
            ("lastConfigTime", moment(info.last_config_ms)),
            ("GOGC", String::new()),
            ("GODEBUG", String::new()),
            ("storageRetention", info.retention),
        ];
        let texts: Vec<(&str, &str)> = texts.iter().map(|(n, v)| (*n, v.as_str())).collect();
        push_object(out, &texts);
        out.pop();
        out.push_str(&format!(
            r#","reloadConfigSuccess":{},"corruptionCount":{},"goroutineCount":0,"GOMAXPROCS":{},"GOMEMLIMIT":0}}"#,
            info.reload_success, info.corruptions, info.threads
        ));
    })
}

pub(crate) async fn config(State(state): Shared) -> Response {
    let text = (state.config_text)();
    success(|out| push_object(out, &[("yaml", &text)]))
}

pub(crate) async fn flags(State(state): Shared) -> Response {
    let flags: Vec<(&str, &str)> = state.flags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    success(|out| push_object(out, &flags))
}

/// What the configuration asks for and this version does not do yet.
pub(crate) async fn not_active(State(state): Shared) -> Response {
    let lines = (state.not_active)();
    success(|out| push_strings(out, lines))
}

/// The log is replayed before the node listens: always at its end.
pub(crate) async fn wal_replay() -> Response {
    success(|out| out.push_str(r#"{"min":0,"max":0,"current":0}"#))
}

fn push_counts(out: &mut String, name: &str, counts: &[NamedCount]) {
    out.push(',');
    push_string(out, name);
    out.push(':');
    push_list(out, counts, |out, (name, value)| {
        out.push_str(r#"{"name":"#);
        push_string(out, name);
        out.push_str(r#","value":"#);
        push_unsigned(out, *value);
        out.push('}');
    });
}

pub(crate) async fn tsdb(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = match params.get("limit") {
        "" => 10,
        text => text
            .parse()
            .ok()
            .filter(|n| *n >= 1)
            .ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?,
    };
    if limit > MAX_TSDB_LIMIT {
        return Err(ApiError::bad_data(format!("limit must not exceed {MAX_TSDB_LIMIT}")));
    }
    let storage = std::sync::Arc::clone(&state.storage);
    let tenant = state.settings.tenancy.then(|| params.tenant());
    let status =
        tokio::task::spawn_blocking(move || storage.status(tenant.as_ref(), limit as usize)).await.map_err(
            |_| ApiError::new(crate::error::ErrorKind::Internal, "storage status ended in a defect of ours"),
        )?;
    Ok(success(|out| {
        out.push_str(&format!(
            r#"{{"headStats":{{"numSeries":{},"numLabelPairs":{},"chunkCount":{},"minTime":{},"maxTime":{}}}"#,
            status.series, status.label_pairs, status.chunks, status.min_time, status.max_time
        ));
        push_counts(out, "seriesCountByMetricName", &status.series_by_metric);
        push_counts(out, "labelValueCountByLabelName", &status.values_by_label);
        push_counts(out, "memoryInBytesByLabelName", &status.memory_by_label);
        push_counts(out, "seriesCountByLabelValuePair", &status.series_by_pair);
        out.push('}');
    }))
}
