//! Which path is which. None of the paths that clients of Prometheus, Alertmanager or Mimir call answers 404.

use std::sync::Arc;

use axum::extract::State;
use axum::handler::Handler;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, any, delete, get, post, put};
use axum::{Router, middleware};
use http::StatusCode;

use crate::state::ApiState;
use crate::write::{Receiver, WriteSlots};
use crate::{absent, cluster, explain, layers, operate, query, status, targets, ui, write};

/// The whole HTTP interface over `state`.
pub fn router(state: ApiState) -> Router {
    let prefix = state.settings.route_prefix.clone();
    let state = Arc::new(state);
    let served = Router::new()
        .nest("/api/v1", api_v1(&state))
        .nest("/api/v2", alertmanager())
        .merge(other_apis(&state))
        .merge(operating())
        .merge(ui::routes());
    let all = if prefix.is_empty() { served } else { under(&prefix, served) };
    all.fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), layers::headers))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), layers::observe))
        .with_state(state)
}

type Routes = Router<Arc<ApiState>>;

/// `served` under a prefix; the root redirects there.
fn under(prefix: &str, served: Routes) -> Routes {
    let target = format!("{prefix}/");
    let home = async move |State(state): State<Arc<ApiState>>| ui::to_page(&state, "graph", None);
    let redirect = async move || Redirect::to(&target);
    Router::new().nest(prefix, served).route(&format!("{prefix}/"), get(home)).route("/", get(redirect))
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// GET and form POST.
fn both<H, T>(handler: H) -> MethodRouter<Arc<ApiState>>
where
    H: Handler<T, Arc<ApiState>> + Clone,
    T: 'static,
{
    get(handler.clone()).post(handler)
}

fn api_v1(state: &Arc<ApiState>) -> Routes {
    let reads = Router::new()
        .route("/query", both(query::query))
        .route("/query_range", both(query::query_range))
        .route("/query_exemplars", both(query::query_exemplars))
        .route("/query_explain", both(explain::query_explain))
        .route("/format_query", both(query::format_query))
        .route("/parse_query", both(query::parse_query))
        .route("/series", both(query::series))
        .route("/labels", both(query::labels))
        .route("/label/{name}/values", get(query::label_values))
        .route("/metadata", get(query::metadata))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::target_metadata))
        .route("/targets/relabel_steps", get(targets::relabel_steps))
        .route("/scrape_pools", get(targets::scrape_pools))
        .route("/scrape_pools/config", get(targets::scrape_pool_config))
        .route("/rules", get(absent::rules))
        .route("/alerts", get(absent::alerts))
        .route("/alertmanagers", get(absent::alertmanagers))
        .route("/features", get(absent::features))
        .route("/openapi.yaml", get(absent::openapi))
        .route("/search/metric_names", both(absent::search))
        .route("/search/label_names", both(absent::search))
        .route("/search/label_values", both(absent::search))
        .route("/cardinality/label_names", both(absent::cardinality_names))
        .route("/cardinality/label_values", both(absent::cardinality_values))
        .route("/read", post(absent::read))
        .route("/otlp/v1/metrics", post(absent::change))
        .route("/status/config", get(status::config))
        .route("/status/runtimeinfo", get(status::runtime_info))
        .route("/status/buildinfo", get(status::build_info))
        .route("/status/flags", get(status::flags))
        .route("/status/not_active", get(status::not_active))
        .route("/status/tsdb", get(status::tsdb))
        .route("/status/tsdb/blocks", get(absent::blocks))
        .route("/status/self_metrics", get(absent::empty_list))
        .route("/status/active_queries", get(query::active_queries))
        .route("/status/active_queries/{id}", delete(query::cancel_query))
        .route("/admin/tsdb/delete_series", post(absent::admin).put(absent::admin))
        .route("/admin/tsdb/clean_tombstones", post(absent::admin).put(absent::admin))
        .route("/admin/tsdb/snapshot", post(absent::admin).put(absent::admin));
    // These answer also while the node starts or stops.
    let always = Router::new()
        .route("/cluster/status", get(cluster::status))
        .route("/cluster/settings", post(cluster::settings))
        .route("/cluster/transfer_leader", post(cluster::transfer_leader))
        .route("/cluster/remove", post(cluster::remove))
        .route("/status/walreplay", get(status::wal_replay))
        .route("/notifications", get(absent::empty_list))
        .route("/notifications/live", get(absent::no_stream));
    let gate = middleware::from_fn_with_state(Arc::clone(state), layers::gate);
    reads.merge(writes(state)).layer(gate).merge(always)
}

fn writes(state: &Arc<ApiState>) -> Routes {
    let receiver = Receiver { state: Arc::clone(state), slots: Arc::new(WriteSlots::default()) };
    Router::new()
        .route("/write", post(write::write))
        .route("/push", post(write::write))
        .route("/receive", post(write::write))
        .with_state(receiver)
}

/// Alertmanager's API, without an Alertmanager behind it.
fn alertmanager() -> Routes {
    Router::new()
        .route("/status", get(absent::alertmanager_status))
        .route("/receivers", get(absent::bare_list))
        .route("/silences", get(absent::bare_list).post(absent::change))
        .route("/silence/{id}", get(absent::change).delete(absent::change))
        .route("/alerts", get(absent::bare_list).post(absent::change))
        .route("/alerts/groups", get(absent::bare_list))
}

/// Federation, and the APIs that others put at the root.
fn other_apis(state: &Arc<ApiState>) -> Routes {
    let rules = |read: MethodRouter<Arc<ApiState>>| read.post(absent::change).delete(absent::change);
    let gate = middleware::from_fn_with_state(Arc::clone(state), layers::gate);
    Router::new()
        .route("/federate", get(absent::federate))
        .route("/otlp/v1/metrics", post(absent::change))
        .route("/config/v1/rules", rules(get(absent::no_rule_files)))
        .route("/config/v1/rules/{namespace}", rules(get(absent::no_rule_files)))
        .route("/config/v1/rules/{namespace}/{group}", rules(get(absent::no_rule_files)))
        .layer(gate)
}

fn operating() -> Routes {
    Router::new()
        .route("/-/healthy", get(operate::healthy))
        .route("/-/ready", get(operate::ready))
        .route("/-/reload", post(operate::reload).put(operate::reload).get(operate::only_post))
        .route("/-/quit", put(operate::quit).post(operate::quit).get(operate::only_post))
        .route("/metrics", get(operate::metrics))
        .route("/version", get(operate::version))
        .route("/debug/{*path}", any(absent::profiles))
}
