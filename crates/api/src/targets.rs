//! Scrape targets: `targets`, `scrape_pools`, and the paths beside them.

use axum::extract::State;
use axum::response::Response;
use model::seam::TargetStatus;
use model::{number, time};

use crate::encode::{push_labels, push_list, push_string, push_strings, push_unsigned};
use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, success};

/// Go's zero time: what a target that was never scraped shows.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn push_field(out: &mut String, name: &str, value: &str) {
    out.push(',');
    push_string(out, name);
    out.push(':');
    push_string(out, value);
}

fn push_active(out: &mut String, target: &TargetStatus) {
    out.push_str(r#"{"discoveredLabels":"#);
    push_labels(out, &target.discovered_labels);
    out.push_str(r#","labels":"#);
    push_labels(out, &target.labels);
    push_field(out, "scrapePool", &target.scrape_pool);
    push_field(out, "scrapeUrl", &target.scrape_url);
    push_field(out, "globalUrl", &target.global_url);
    push_field(out, "lastError", &target.last_error);
    let last = target.last_scrape_ms;
    let last = if last == 0 { NEVER.to_owned() } else { time::format_rfc3339(last) };
    push_field(out, "lastScrape", &last);
    out.push_str(r#","lastScrapeDuration":"#);
    let duration = if target.last_scrape_duration.is_finite() { target.last_scrape_duration } else { 0.0 };
    number::push_api_float(out, duration);
    push_field(out, "health", target.health);
    push_field(out, "scrapeInterval", &time::format_duration(target.interval_ms));
    push_field(out, "scrapeTimeout", &time::format_duration(target.timeout_ms));
    out.push('}');
}

fn push_dropped(out: &mut String, target: &TargetStatus) {
    out.push_str(r#"{"discoveredLabels":"#);
    push_labels(out, &target.discovered_labels);
    push_field(out, "scrapePool", &target.scrape_pool);
    out.push('}');
}

pub(crate) async fn targets(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let wanted = params.get("state").to_ascii_lowercase();
    let any = wanted.is_empty() || wanted == "any";
    let pool = params.get("scrapePool");
    let in_pool = |target: &TargetStatus| pool.is_empty() || target.scrape_pool == pool;
    let active = if any || wanted == "active" { state.targets.active() } else { Vec::new() };
    let (dropped, counts) =
        if any || wanted == "dropped" { state.targets.dropped() } else { (Vec::new(), Default::default()) };
    Ok(success(|out| {
        out.push_str(r#"{"activeTargets":"#);
        push_list(out, active.iter().filter(|t| in_pool(t)), push_active);
        out.push_str(r#","droppedTargets":"#);
        push_list(out, dropped.iter().filter(|t| in_pool(t)), push_dropped);
        out.push_str(r#","droppedTargetCounts":{"#);
        for (at, (name, count)) in counts.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_string(out, name);
            out.push(':');
            push_unsigned(out, *count as u64);
        }
        out.push_str("}}");
    }))
}

pub(crate) async fn scrape_pools(State(state): Shared) -> Response {
    success(|out| {
        out.push_str(r#"{"scrapePools":"#);
        push_strings(out, state.targets.pools());
        out.push('}');
    })
}

fn known_pool(state: &crate::state::ApiState, params: &Params) -> Result<(), ApiError> {
    let pool = params.get("scrapePool");
    if pool.is_empty() {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    }
    if !state.targets.pools().iter().any(|name| name == pool) {
        let shown: String = pool.chars().take(100).collect();
        return Err(ApiError::bad_data(format!(
            "error retrieving scrape config: scrape pool {shown:?} not found"
        )));
    }
    Ok(())
}

/// The text of one pool's configuration is not kept apart yet: an empty one.
pub(crate) async fn scrape_pool_config(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    known_pool(&state, &params)?;
    Ok(success(|out| out.push_str(r#"{"yaml":""}"#)))
}

/// Relabelling step by step is not there yet: an empty list.
pub(crate) async fn relabel_steps(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    known_pool(&state, &params)?;
    if params.get("labels").is_empty() {
        return Err(ApiError::bad_data("no labels parameter provided"));
    }
    Ok(success(|out| out.push_str(r#"{"steps":[]}"#)))
}

/// Metadata by target is not kept: an empty list. Metadata by family is at `metadata`.
pub(crate) async fn target_metadata(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    params.signed("limit")?;
    let matcher = params.get("match_target");
    if !matcher.is_empty() {
        state.frontend.parse_selector(matcher).map_err(|e| ApiError::parameter("match_target", e))?;
    }
    Ok(success(|out| out.push_str("[]")))
}
