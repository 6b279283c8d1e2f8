//! Scrape targets: `targets`, `scrape_pools`, and the paths beside them.
//!
//! Targets belong to the tenant that their series are written to; to other tenants there are none.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use model::relabel::RelabelConfig;
use model::seam::TargetStatus;
use model::{Labels, LabelsBuilder, MetricMetadata, number, time};

use crate::encode::{push_labels, push_list, push_string, push_strings, push_unsigned};
use crate::error::ApiError;
use crate::params::Params;
use crate::query::{Shared, success};
use crate::state::ApiState;

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

/// Whether the request's tenant is the one that scraped series are written to.
fn owns_targets(state: &ApiState, params: &Params) -> bool {
    !state.settings.tenancy || params.tenant() == state.settings.default_tenant
}

pub(crate) async fn targets(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let owned = owns_targets(&state, &params);
    let wanted = params.get("state").to_ascii_lowercase();
    let any = wanted.is_empty() || wanted == "any";
    let pool = params.get("scrapePool");
    let in_pool = |target: &TargetStatus| pool.is_empty() || target.scrape_pool == pool;
    let active = if owned && (any || wanted == "active") { state.targets.active() } else { Vec::new() };
    let (dropped, counts) = if owned && (any || wanted == "dropped") {
        state.targets.dropped()
    } else {
        (Vec::new(), Default::default())
    };
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

pub(crate) async fn scrape_pools(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let pools = if owns_targets(&state, &params) { state.targets.pools() } else { Vec::new() };
    Ok(success(|out| {
        out.push_str(r#"{"scrapePools":"#);
        push_strings(out, pools);
        out.push('}');
    }))
}

fn pool_not_found(pool: &str) -> ApiError {
    let shown: String = pool.chars().take(100).collect();
    ApiError::bad_data(format!("error retrieving scrape config: scrape pool {shown:?} not found"))
}

/// The parameter `scrapePool`, which must name a pool of the request's tenant.
fn pool<'p>(state: &ApiState, params: &'p Params) -> Result<&'p str, ApiError> {
    let pool = params.get("scrapePool");
    if pool.is_empty() {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    }
    if !owns_targets(state, params) {
        return Err(pool_not_found(pool));
    }
    Ok(pool)
}

pub(crate) async fn scrape_pool_config(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let pool = pool(&state, &params)?;
    let yaml = (state.pool_config)(pool).ok_or_else(|| pool_not_found(pool))?;
    Ok(success(|out| {
        out.push_str(r#"{"yaml":"#);
        push_string(out, &yaml);
        out.push('}');
    }))
}

/// What each relabelling rule of a pool makes of a set of labels.
pub(crate) async fn relabel_steps(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let pool = pool(&state, &params)?;
    let text = params.get("labels");
    if text.is_empty() {
        return Err(ApiError::bad_data("no labels parameter provided"));
    }
    let labels: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_data(format!("error parsing labels: {error}")))?;
    let rules = state.targets.relabel_rules(pool).ok_or_else(|| pool_not_found(pool))?;
    let mut builder = LabelsBuilder::new();
    for (name, value) in &labels {
        builder.set(name, value);
    }
    let mut keep = true;
    let mut steps = String::new();
    push_list(&mut steps, &rules, |out, rule| {
        keep = keep && rule.apply(&mut builder);
        let labels = if keep { builder.build().unwrap_or_default() } else { Labels::empty() };
        out.push_str(r#"{"rule":"#);
        push_rule(out, rule.config());
        out.push_str(r#","output":"#);
        push_labels(out, &labels);
        out.push_str(if keep { r#","keep":true}"# } else { r#","keep":false}"# });
    });
    Ok(success(|out| {
        out.push_str(r#"{"steps":"#);
        out.push_str(&steps);
        out.push('}');
    }))
}

/// A rule with the names that its YAML has, what is at its default left out.
fn push_rule(out: &mut String, rule: &RelabelConfig) {
    let mut fields = serde_json::Map::new();
    if !rule.source_labels.is_empty() {
        fields.insert("source_labels".into(), rule.source_labels.clone().into());
    }
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            fields.insert(name.into(), value.into());
        }
    };
    text("separator", &rule.separator);
    text("regex", &rule.regex);
    text("target_label", &rule.target_label);
    text("replacement", &rule.replacement);
    text("action", rule.action.as_str());
    if rule.modulus != 0 {
        fields.insert("modulus".into(), rule.modulus.into());
    }
    out.push_str(&serde_json::Value::Object(fields).to_string());
}

/// Metadata of families as targets expose them.
pub(crate) async fn target_metadata(State(state): Shared, params: Params) -> Result<Response, ApiError> {
    let limit = match params.get("limit") {
        "" => usize::MAX,
        _ => usize::try_from(params.signed("limit")?).unwrap_or(usize::MAX),
    };
    let matchers = match params.get("match_target") {
        "" => Vec::new(),
        text => state.frontend.parse_selector(text).map_err(|e| ApiError::parameter("match_target", e))?,
    };
    let metric = params.get("metric");
    let mut found: Vec<(Labels, Arc<MetricMetadata>)> = Vec::new();
    if owns_targets(&state, &params) {
        for (labels, entries) in state.targets.metadata() {
            let matches = |m: &model::Matcher| m.matches(labels.get(m.name()).unwrap_or(""));
            if !matchers.iter().all(matches) {
                continue;
            }
            let wanted = entries.iter().filter(|entry| metric.is_empty() || entry.family == metric);
            found.extend(
                wanted.take(limit.saturating_sub(found.len())).map(|e| (labels.clone(), Arc::clone(e))),
            );
        }
    }
    Ok(success(|out| {
        push_list(out, found, |out, (labels, entry)| {
            out.push_str(r#"{"target":"#);
            push_labels(out, &labels);
            if metric.is_empty() {
                push_field(out, "metric", &entry.family);
            }
            push_field(out, "type", entry.kind.as_str());
            push_field(out, "help", &entry.help);
            push_field(out, "unit", &entry.unit);
            out.push('}');
        });
    }))
}
