//! What this server can do, in upstream's categories and names (`/api/v1/features`): only what works is true.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::query::{Shared, success};

pub(crate) async fn features(State(state): Shared) -> Response {
    let settings = &state.settings;
    let parser = &state.frontend.config().parser;
    let engine = &state.frontend.config().features;
    let all = json!({
        "api": {
            "admin": settings.admin,
            "exclude_alerts": false,
            "label_values_match": true,
            "lifecycle": settings.lifecycle,
            "otlp_write_receiver": true,
            "openapi_3.1": true,
            "query_stats": true,
            "query_warnings": true,
            "remote_write_receiver": true,
            "search": true,
            "search_fuzz_alg_jarowinkler": true,
            "search_fuzz_alg_subsequence": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "isobar": {
            "active_queries": true,
            "tenancy": settings.tenancy,
        },
        "prometheus": {
            "agent_mode": false,
            "auto_reload_config": false,
            "server_mode": true,
        },
        "promql": {
            "anchored": true,
            "at_modifier": true,
            "bool": true,
            "by": true,
            "delayed_name_removal": engine.delayed_name_removal,
            "duration_expr": true,
            "fill": parser.fill_modifiers,
            "fill_left": parser.fill_modifiers,
            "fill_right": parser.fill_modifiers,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "per_step_stats": true,
            "smoothed": true,
            "subqueries": true,
            "type_and_unit_labels": engine.type_and_unit_labels,
            "unquoted_utf8_names": parser.unquoted_utf8_names,
            "use_start_timestamps": engine.use_start_timestamps,
            "without": true,
        },
        "promql_functions": switches(state.frontend.functions()),
        "promql_operators": switches(state.frontend.operators()),
        "rules": {},
        "tsdb": {
            "out_of_order": true,
        },
    });
    success(|out| out.push_str(&all.to_string()))
}

fn switches(names: Vec<(&'static str, bool)>) -> Value {
    Value::Object(names.into_iter().map(|(name, on)| (name.to_owned(), on.into())).collect::<Map<_, _>>())
}
