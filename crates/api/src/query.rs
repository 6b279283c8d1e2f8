//! Queries and label calls: `query`, `query_range`, `series`, `labels`, label values, `metadata`, `format_query`,
//! `parse_query`, and the table of queries under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use model::seam::ReadLevel;
use model::{MetricMetadata, TimeRange, time};
use query::{Annotation, AnnotationKind, Options, Outcome, QueryError, Value};

use crate::body::{json_text, stream_json};
use crate::encode::{
    ResultEncoder, push_labels, push_list, push_notes, push_string, push_time, push_unsigned, push_value,
};
use crate::error::{ApiError, ErrorKind};
use crate::params::{Params, parse_duration_ns};
use crate::state::ApiState;

const TRUNCATED: &str = "results truncated due to limit";

/// Warnings (and as many infos) that an answer lists; upstream counts the rest, and so do we.
const MAX_NOTES: usize = 10;

pub(crate) type Shared = State<Arc<ApiState>>;

pub(crate) async fn query(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit("limit")?;
    let time_ms = params.time_or("time", state.clock.now_ms())?;
    let options = options(&params)?;
    let text = params.get("query");
    let outcome = state.frontend.instant(text, time_ms, &options).await?;
    Ok(answer(outcome, text, limit, params.get("stats")))
}

pub(crate) async fn query_range(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit("limit")?;
    let start = params.time("start")?;
    let end = params.time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ns = parse_duration_ns(params.get("step")).map_err(|why| ApiError::parameter("step", why))?;
    if step_ns <= 0 {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", why));
    }
    let span_ns = (i128::from(end) - i128::from(start)) * 1_000_000;
    if span_ns / i128::from(step_ns) > i128::from(state.frontend.config().max_points) {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
             (?step=XX)",
        ));
    }
    let options = options(&params)?;
    let text = params.get("query");
    let outcome = state.frontend.range(text, start, end, (step_ns / 1_000_000).max(1), &options).await?;
    Ok(answer(outcome, text, limit, params.get("stats")))
}

/// Tenant, timeout, lookback, freshness.
pub(crate) fn options(params: &Params) -> Result<Options, ApiError> {
    let timeout = params.timeout()?;
    let lookback = params
        .duration_ns("lookback_delta")
        .map_err(|why| ApiError::bad_data(format!("error parsing lookback delta duration: {why}")))?;
    let staleness =
        params.duration_ns("max_staleness").map_err(|why| ApiError::parameter("max_staleness", why))?;
    let read_level = match staleness.and_then(|ns| u64::try_from(ns).ok()) {
        Some(ns) if ns > 0 => ReadLevel::MaxStaleness(Duration::from_nanos(ns)),
        _ => ReadLevel::Linearizable,
    };
    let lookback_ms = lookback.map(|ns| ns / 1_000_000);
    let origin = params.origin.clone();
    let use_start_timestamps = params.use_start_timestamps()?;
    let per_step = params.get("stats") == "all";
    Ok(Options {
        tenant: params.tenant(),
        timeout,
        lookback_ms,
        read_level,
        use_start_timestamps,
        origin,
        per_step,
    })
}

fn answer(outcome: Outcome, text: &str, limit: usize, stats: &str) -> Response {
    let Outcome { mut value, annotations, stats: figures } = outcome;
    let (mut warnings, infos) = notes(&annotations, text);
    if limit > 0 && truncate(&mut value, limit) {
        warnings.push(TRUNCATED.into());
    }
    if !matches!(stats, "" | "true" | "all") {
        let shown: String = stats.chars().take(64).collect();
        warnings.push(format!(
            "value {shown:?} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
             use \"true\" or \"all\""
        ));
    }
    let figures = (!stats.is_empty()).then_some(&figures);
    stream_json(ResultEncoder::new(value, figures, &warnings, &infos))
}

fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(samples) if samples.len() > limit => samples.truncate(limit),
        Value::Matrix(series) if series.len() > limit => series.truncate(limit),
        Value::Vector(_) | Value::Matrix(_) | Value::Scalar(_) | Value::String(..) => return false,
    }
    true
}

/// The texts of warnings and infos, at most ten of each and the number of the others.
fn notes(annotations: &[Annotation], text: &str) -> (Vec<String>, Vec<String>) {
    let of = |kind: AnnotationKind, word: &str| {
        let all: Vec<&Annotation> = annotations.iter().filter(|a| a.kind == kind).collect();
        let mut texts: Vec<String> = all.iter().take(MAX_NOTES).map(|a| a.render(text)).collect();
        if all.len() > MAX_NOTES {
            texts.push(format!("{} more {word} annotations omitted", all.len() - MAX_NOTES));
        }
        texts
    };
    (of(AnnotationKind::Warning, "warning"), of(AnnotationKind::Info, "info"))
}

/// The parsed `match[]` parameters; each set of them as a whole must not match every series. The error's text is
/// without the parameter's name where `bare`, as upstream has it in answers about labels.
fn parsed_selectors(
    state: &ApiState,
    params: &Params,
    bare: bool,
) -> Result<Vec<Vec<model::Matcher>>, ApiError> {
    let wrong =
        |why: String| if bare { ApiError::bad_data(why) } else { ApiError::parameter("match[]", why) };
    let mut sets = Vec::new();
    for text in params.selectors()? {
        let matchers = state.frontend.parse_selector(text).map_err(|error| match error {
            QueryError::Parse(why) => wrong(why),
            other => other.into(),
        })?;
        if matchers.iter().all(model::Matcher::matches_empty) {
            return Err(wrong("match[] must contain at least one non-empty matcher".into()));
        }
        sets.push(matchers);
    }
    Ok(sets)
}

/// [`parsed_selectors`] whose errors name the parameter.
pub(crate) fn selectors(state: &ApiState, params: &Params) -> Result<Vec<Vec<model::Matcher>>, ApiError> {
    parsed_selectors(state, params, false)
}

/// What storage is asked for, so that a cut can be told from an exact fit.
fn one_more(limit: usize) -> usize {
    if limit == 0 { 0 } else { limit.saturating_add(1) }
}

fn cut<T>(all: &mut Vec<T>, limit: usize) -> Vec<String> {
    if limit > 0 && all.len() > limit {
        all.truncate(limit);
        return vec![TRUNCATED.into()];
    }
    Vec::new()
}

fn list_answer<T>(all: Vec<T>, warnings: &[String], one: impl FnMut(&mut String, T)) -> Response {
    let mut out = String::from(r#"{"status":"success","data":"#);
    push_list(&mut out, all, one);
    push_notes(&mut out, warnings, &[]);
    out.push('}');
    json_text(out)
}

/// `{"status":"success","data":…}` around what `write` appends.
pub(crate) fn success(write: impl FnOnce(&mut String)) -> Response {
    let mut out = String::from(r#"{"status":"success","data":"#);
    write(&mut out);
    out.push('}');
    json_text(out)
}

pub(crate) async fn series(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = params.limit("limit")?;
    let range = params.range()?;
    let sets = selectors(&state, &params)?;
    let mut all = state.frontend.series(sets, range, one_more(limit), &options(&params)?).await?;
    let warnings = cut(&mut all, limit);
    Ok(list_answer(all, &warnings, |out, labels| push_labels(out, &labels)))
}

pub(crate) async fn labels(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = params.limit("limit")?;
    let range = params.range()?;
    let sets = parsed_selectors(&state, &params, true)?;
    let mut all = state.frontend.label_names(sets, range, one_more(limit), &options(&params)?).await?;
    let warnings = cut(&mut all, limit);
    Ok(list_answer(all, &warnings, |out, name| push_string(out, &name)))
}

pub(crate) async fn label_values(
    State(state): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let limit = params.limit("limit")?;
    let range = params.range()?;
    let sets = parsed_selectors(&state, &params, true)?;
    let mut all =
        state.frontend.label_values(&name, sets, range, one_more(limit), &options(&params)?).await?;
    let warnings = cut(&mut all, limit);
    Ok(list_answer(all, &warnings, |out, value| push_string(out, &value)))
}

/// A name as clients escape UTF-8 names in paths: `U__` before it, `__` for `_`, `_<hex>_` for other characters. A
/// name that is not escaped rightly stands for itself, as upstream's `model.UnescapeName` has it.
fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let Some(end) = rest.find('_') else { return name.to_owned() };
        let code = rest[..end].bytes().all(|b| b.is_ascii_hexdigit()).then_some(&rest[..end]);
        let Some(found) = code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32)
        else {
            return name.to_owned();
        };
        out.push(found);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

pub(crate) async fn metadata(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = params.signed("limit")?;
    let per_metric = params.signed("limit_per_metric")?;
    let family = Some(params.get("metric")).filter(|name| !name.is_empty());
    let all = state.frontend.metadata(family, &options(&params)?).await?;
    let mut families: BTreeMap<&str, Vec<&MetricMetadata>> = BTreeMap::new();
    for entry in &all {
        let entries = families.entry(&entry.family).or_default();
        if per_metric <= 0 || (entries.len() as i64) < per_metric {
            entries.push(entry);
        }
    }
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(success(|out| {
        out.push('{');
        for (at, (family, entries)) in families.into_iter().take(shown).enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_string(out, family);
            out.push(':');
            push_list(out, entries, |out, entry| {
                out.push_str(r#"{"type":"#);
                push_string(out, entry.kind.as_str());
                out.push_str(r#","unit":"#);
                push_string(out, &entry.unit);
                out.push_str(r#","help":"#);
                push_string(out, &entry.help);
                out.push('}');
            });
        }
        out.push('}');
    }))
}

pub(crate) async fn format_query(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let text = state.frontend.format(params.get("query"))?;
    Ok(success(|out| push_string(out, &text)))
}

pub(crate) async fn parse_query(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let tree = state.frontend.syntax_tree(params.get("query"))?;
    Ok(success(|out| out.push_str(&tree.to_string())))
}

/// Exemplars are not stored yet: checks what upstream checks, and answers that there is none.
pub(crate) async fn query_exemplars(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let TimeRange { after, until } = params.range()?;
    if until < after.saturating_add(1) && after != i64::MIN {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let sets =
        state.frontend.selectors(params.get("query")).map_err(|e| ApiError::bad_data(e.to_string()))?;
    let all = if sets.is_empty() {
        Vec::new()
    } else {
        state.frontend.exemplars(sets, TimeRange { after, until }, &options(&params)?).await?
    };
    Ok(success(|out| {
        push_list(out, all, |out, series| {
            out.push_str(r#"{"seriesLabels":"#);
            push_labels(out, &series.labels);
            out.push_str(r#","exemplars":"#);
            push_list(out, series.exemplars, |out, exemplar| {
                out.push_str(r#"{"labels":"#);
                push_labels(out, &exemplar.labels);
                out.push_str(r#","value":"#);
                push_value(out, exemplar.value);
                out.push_str(r#","timestamp":"#);
                push_time(out, exemplar.timestamp);
                out.push('}');
            });
            out.push('}');
        });
    }))
}

pub(crate) async fn active_queries(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let tenancy = state.settings.tenancy;
    let tenant = params.tenant();
    let all: Vec<_> =
        state.frontend.active().into_iter().filter(|q| !tenancy || q.tenant == tenant).collect();
    Ok(success(|out| {
        push_list(out, all, |out, active| {
            out.push_str(r#"{"id":"#);
            push_unsigned(out, active.id);
            out.push_str(r#","kind":"#);
            push_string(out, active.kind);
            out.push_str(r#","tenant":"#);
            push_string(out, active.tenant.as_str());
            out.push_str(r#","query":"#);
            push_string(out, &active.text);
            out.push_str(r#","startedAt":"#);
            push_string(out, &time::format_rfc3339(active.started_ms));
            out.push_str(r#","started":"#);
            push_time(out, active.started_ms);
            out.push_str(r#","samples":"#);
            push_unsigned(out, active.samples);
            out.push_str(r#","peakBytes":"#);
            push_unsigned(out, active.peak_bytes);
            out.push('}');
        });
    }))
}

pub(crate) async fn cancel_query(
    State(state): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let shown: String = id.chars().take(32).collect();
    let missing = || ApiError::new(ErrorKind::NotFound, format!("there is no query {shown:?} under way"));
    let id: u64 = id.parse().map_err(|_| missing())?;
    let tenant = params.tenant();
    let owned = |q: &query::ActiveQuery| q.id == id && (!state.settings.tenancy || q.tenant == tenant);
    if !state.frontend.active().iter().any(owned) || !state.frontend.cancel(id) {
        return Err(missing());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn escaped_names_come_back() {
        for (escaped, name) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___e9___", "é_"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__open_2e", "U__open_2e"),
            ("U__surrogate_d800_", "U__surrogate_d800_"),
        ] {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }
}
