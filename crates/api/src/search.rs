//! Searching names and values, for completion in pages (`search/…`; upstream: `web/api/v1/search.go`): one JSON object
//! a line, first batches of results, then how it ended.
//!
//! Scores are computed in [`score`].

mod score;

use std::collections::HashMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use model::{MetricMetadata, TimeRange, number};

use crate::encode::{push_list, push_string};
use crate::error::ApiError;
use crate::params::{Params, go_bool};
use crate::query::{Shared, options, selectors};
use crate::state::ApiState;
use score::{Algorithm, Search};

/// Most `search[]` terms of a request.
const MAX_TERMS: usize = 32;
/// The largest batch; a larger wish is cut to it.
const MAX_BATCH: usize = 1_000;
/// The limit and the batch when a request names none.
const DEFAULT: usize = 100;
/// The highest limit of a request.
const MAX_LIMIT: usize = 10_000;

/// What all three paths are asked.
struct Asked {
    search: Search,
    by_score: bool,
    descending: bool,
    include_score: bool,
    range: TimeRange,
    limit: usize,
    batch: usize,
}

fn boolean(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        "" => Ok(default),
        other => go_bool(other)
            .ok_or_else(|| ApiError::bad_data(format!("invalid {name} {other:?}: must be boolean"))),
    }
}

fn positive(params: &Params, name: &str) -> Result<usize, ApiError> {
    match params.get(name) {
        "" => Ok(DEFAULT),
        text => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            ApiError::bad_data(format!("invalid {name} {shown:?}: must be a positive integer"))
        }),
    }
}

fn asked(state: &ApiState, params: &Params, endpoint: &str) -> Result<Asked, ApiError> {
    let now = state.clock.now_ms();
    let start = params.time_or("start", now.saturating_sub(3_600_000))?;
    let end = params.time_or("end", now)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let terms: Vec<&str> = params.all("search[]").collect();
    if terms.len() > MAX_TERMS {
        let count = terms.len();
        return Err(ApiError::bad_data(format!(
            "too many search[] terms: got {count}, maximum is {MAX_TERMS}"
        )));
    }
    let threshold = match params.get("fuzz_threshold") {
        "" => 0,
        text => text.parse::<u32>().ok().filter(|n| *n <= 100).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            ApiError::bad_data(format!("invalid fuzz_threshold {shown:?}: must be 0-100"))
        })?,
    };
    let algorithm = match params.get("fuzz_alg") {
        "" | "subsequence" => Algorithm::Subsequence,
        "jarowinkler" => Algorithm::JaroWinkler,
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(ApiError::bad_data(format!(
                "unsupported fuzz_alg {shown:?}: must be one of [subsequence jarowinkler]"
            )));
        }
    };
    let case_sensitive = boolean(params, "case_sensitive", true)?;
    let include_score = boolean(params, "include_score", false)?;
    let (by, direction) = (params.get("sort_by"), params.get("sort_dir"));
    if !direction.is_empty() && by.is_empty() {
        return Err(ApiError::bad_data("sort_dir is only valid when sort_by is set"));
    }
    if !direction.is_empty() && by == "score" {
        return Err(ApiError::bad_data("sort_dir is not supported for sort_by=score"));
    }
    if !matches!(direction, "" | "asc" | "dsc") {
        return Err(ApiError::bad_data(format!(
            "invalid sort_dir {direction:?}: must be \"asc\" or \"dsc\""
        )));
    }
    if !matches!(by, "" | "alpha" | "score") {
        let why = format!("invalid sort_by {by:?} for {endpoint}: must be \"alpha\" or \"score\"");
        return Err(ApiError::bad_data(why));
    }
    if by == "score" && terms.is_empty() {
        return Err(ApiError::bad_data("sort_by=score requires search[] to be set"));
    }
    let limit = positive(params, "limit")?;
    if limit > MAX_LIMIT {
        return Err(ApiError::bad_data(format!("limit {limit} exceeds the maximum ({MAX_LIMIT})")));
    }
    Ok(Asked {
        search: Search::new(&terms, f64::from(threshold) / 100.0, algorithm, case_sensitive),
        by_score: by == "score",
        descending: direction == "dsc",
        include_score,
        range: TimeRange::closed(start, end),
        limit,
        batch: positive(params, "batch_size")?.min(MAX_BATCH),
    })
}

/// The results among `all` in order, and whether there are more than the limit.
fn found(asked: &Asked, all: Vec<String>) -> (Vec<(String, f64)>, bool) {
    let scored = |text: String| asked.search.score(&text).map(|score| (text, score));
    let mut found: Vec<(String, f64)> = all.into_iter().filter_map(scored).collect();
    if asked.by_score {
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    } else if asked.descending {
        found.sort_by(|a, b| b.0.cmp(&a.0));
    } else {
        found.sort_by(|a, b| a.0.cmp(&b.0));
    }
    let more = found.len() > asked.limit;
    found.truncate(asked.limit);
    (found, more)
}

/// The answer: `key` names a result's text; `further` writes what else is known of it.
fn lines(
    asked: &Asked,
    all: Vec<String>,
    key: &'static str,
    further: impl Fn(&mut String, &str) + Send + 'static,
) -> Response {
    let (found, more) = found(asked, all);
    let (batch, include_score) = (asked.batch, asked.include_score);
    let line = move |results: &[(String, f64)]| {
        let mut out = String::from(r#"{"results":"#);
        push_list(&mut out, results, |out, (text, score)| {
            out.push('{');
            push_string(out, key);
            out.push(':');
            push_string(out, text);
            if include_score {
                out.push_str(r#","score":"#);
                number::push_api_float(out, *score);
            }
            further(out, text);
            out.push('}');
        });
        out.push_str("}\n");
        out
    };
    let end = format!("{{\"status\":\"success\",\"has_more\":{more}}}\n");
    let mut next = 0;
    let mut ended = false;
    let pieces = std::iter::from_fn(move || {
        if next < found.len() || next == 0 {
            // The first batch comes also when it is empty.
            let now = &found[next..found.len().min(next + batch)];
            next += now.len().max(1);
            return Some(Ok::<_, Infallible>(Bytes::from(line(now))));
        }
        if ended {
            return None;
        }
        ended = true;
        Some(Ok(Bytes::from(end.clone())))
    });
    let body = Body::from_stream(futures::stream::iter(pieces));
    ([(header::CONTENT_TYPE, "application/x-ndjson; charset=utf-8")], body).into_response()
}

pub(crate) async fn metric_names(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let asked = asked(&state, &params, "metric_names")?;
    let with_metadata = boolean(&params, "include_metadata", false)?;
    let sets = selectors(&state, &params)?;
    let options = options(&params)?;
    let all = state.frontend.label_values(model::METRIC_NAME, sets, asked.range, 0, &options).await?;
    let mut metadata: HashMap<String, MetricMetadata> = HashMap::new();
    if with_metadata {
        for entry in state.frontend.metadata(None, &options).await? {
            metadata.entry(entry.family.clone()).or_insert(entry);
        }
    }
    Ok(lines(&asked, all, "name", move |out, name| {
        let Some(entry) = metadata.get(name) else { return };
        for (key, text) in [("type", entry.kind.as_str()), ("help", &entry.help), ("unit", &entry.unit)] {
            if !text.is_empty() {
                out.push(',');
                push_string(out, key);
                out.push(':');
                push_string(out, text);
            }
        }
    }))
}

pub(crate) async fn label_names(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let asked = asked(&state, &params, "label_names")?;
    let sets = selectors(&state, &params)?;
    let all = state.frontend.label_names(sets, asked.range, 0, &options(&params)?).await?;
    Ok(lines(&asked, all, "name", |_, _| {}))
}

pub(crate) async fn label_values(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let asked = asked(&state, &params, "label_values")?;
    let label = params.get("label");
    if label.is_empty() {
        return Err(ApiError::bad_data("missing required parameter \"label\""));
    }
    let sets = selectors(&state, &params)?;
    let all = state.frontend.label_values(label, sets, asked.range, 0, &options(&params)?).await?;
    Ok(lines(&asked, all, "value", |_, _| {}))
}
