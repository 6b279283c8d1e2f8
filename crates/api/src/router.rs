//! Which path is which. None of the paths that clients of Prometheus, Alertmanager or Mimir call answers 404.

use std::sync::Arc;

use axum::extract::State;
use axum::handler::Handler;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use http::StatusCode;

use crate::endpoints::{
    CHANGE, Endpoint, GET, Media, POST, Parameter, READ, Table, in_path, openapi_yaml, optional, required,
};
use crate::state::ApiState;
use crate::{
    absent, admin, cluster, explain, features, federate, layers, notifications, operate, otlp, query, read,
    search, status, targets, ui, web, write,
};

/// The whole HTTP interface over `state`.
pub fn router(state: ApiState) -> Router {
    let prefix = state.settings.route_prefix.clone();
    let state = Arc::new(state);
    let gate = middleware::from_fn_with_state(Arc::clone(&state), layers::gate);
    let served = gated().parts().1.layer(gate).merge(always().parts().1).merge(ui::files());
    let all = if prefix.is_empty() { served } else { under(&prefix, served) };
    all.fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), web::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), layers::headers))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), layers::observe))
        .with_state(state)
}

/// Every path of the interface, without the route prefix and the files of the page.
pub fn endpoints() -> Vec<Endpoint> {
    let mut all = gated().parts().0;
    all.extend(always().parts().0);
    all
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

/// POST and PUT.
fn change<H, T>(handler: H) -> MethodRouter<Arc<ApiState>>
where
    H: Handler<T, Arc<ApiState>> + Clone,
    T: 'static,
{
    post(handler.clone()).put(handler)
}

const INSTANT: &[Parameter] = &[
    required("query", "up"),
    optional("time", "1700000000"),
    optional("timeout", "30s"),
    optional("limit", "10"),
    optional("lookback_delta", "5m"),
    optional("stats", "all"),
    optional("max_staleness", "30s"),
];
const RANGE: &[Parameter] = &[
    required("query", "up"),
    required("start", "1699999000"),
    required("end", "1700000000"),
    required("step", "15s"),
    optional("timeout", "30s"),
    optional("limit", "10"),
    optional("lookback_delta", "5m"),
    optional("stats", "all"),
    optional("max_staleness", "30s"),
];
const EXPRESSION: &[Parameter] = &[required("query", "sum(up)")];
const EXEMPLARS: &[Parameter] =
    &[required("query", "up"), optional("start", "1699999000"), optional("end", "1700000000")];
const SERIES: &[Parameter] = &[
    required("match[]", "up"),
    optional("start", "1699999000"),
    optional("end", "1700000000"),
    optional("limit", "10"),
];
const NAMES: &[Parameter] = &[
    optional("match[]", "up"),
    optional("start", "1699999000"),
    optional("end", "1700000000"),
    optional("limit", "10"),
];
const VALUES: &[Parameter] = &[
    in_path("name", "job"),
    optional("match[]", "up"),
    optional("start", "1699999000"),
    optional("end", "1700000000"),
    optional("limit", "10"),
];
const METADATA: &[Parameter] =
    &[optional("metric", "up"), optional("limit", "10"), optional("limit_per_metric", "1")];
const SEARCH: &[Parameter] = &[
    optional("search[]", "u"),
    optional("match[]", "up"),
    optional("fuzz_alg", "subsequence"),
    optional("fuzz_threshold", "10"),
    optional("case_sensitive", "true"),
    optional("include_score", "true"),
    optional("sort_by", "alpha"),
    optional("sort_dir", "asc"),
    optional("start", "1699999000"),
    optional("end", "1700000000"),
    optional("limit", "10"),
    optional("batch_size", "100"),
    optional("include_metadata", "true"),
];
const SEARCH_VALUES: &[Parameter] = &[
    required("label", "job"),
    optional("search[]", "x"),
    optional("match[]", "up"),
    optional("fuzz_alg", "subsequence"),
    optional("fuzz_threshold", "10"),
    optional("case_sensitive", "true"),
    optional("include_score", "true"),
    optional("sort_by", "alpha"),
    optional("sort_dir", "asc"),
    optional("start", "1699999000"),
    optional("end", "1700000000"),
    optional("limit", "10"),
    optional("batch_size", "100"),
];
const TARGETS: &[Parameter] = &[optional("state", "any"), optional("scrapePool", "x")];
const TARGETS_METADATA: &[Parameter] =
    &[optional("match_target", "{job=\"x\"}"), optional("metric", "up"), optional("limit", "10")];
const RELABEL: &[Parameter] = &[required("scrapePool", "x"), required("labels", "{\"a\":\"b\"}")];
const POOL: &[Parameter] = &[required("scrapePool", "x")];
const RULES: &[Parameter] = &[
    optional("type", "alert"),
    optional("rule_name[]", "x"),
    optional("rule_group[]", "x"),
    optional("file[]", "x"),
    optional("match[]", "{a=\"b\"}"),
    optional("exclude_alerts", "true"),
    optional("group_limit", "10"),
    optional("group_next_token", "x"),
];
const LIMIT: &[Parameter] = &[optional("limit", "10")];
const DELETE_SERIES: &[Parameter] =
    &[required("match[]", "up"), optional("start", "1699999000"), optional("end", "1700000000")];
const SNAPSHOT: &[Parameter] = &[optional("skip_head", "false")];
const ID: &[Parameter] = &[in_path("id", "1")];
const SELECT: &[Parameter] = &[required("match[]", "up")];
const NAMESPACE: &[Parameter] = &[in_path("namespace", "team")];
const GROUP: &[Parameter] = &[in_path("namespace", "team"), in_path("group", "g")];
const PROFILE: &[Parameter] = &[in_path("path", "pprof/heap")];
const SETTINGS: &[Parameter] = &[optional("replication-factor", "3")];
const TRANSFER: &[Parameter] = &[required("shard", "1"), required("node", "n1")];
const NODE: &[Parameter] = &[required("node", "n2")];
const NONE: &[Parameter] = &[];

/// Paths that answer 503 while the node starts or stops.
fn gated() -> Table {
    let table = queries(Table::under(""));
    let table = writes(table);
    let table = states(table);
    let table = rules_and_alerts(table);
    admins(table)
}

fn queries(table: Table) -> Table {
    table
        .add(
            "/api/v1/query",
            READ,
            INSTANT,
            Media::Json,
            "The value of an expression at one time",
            both(query::query),
        )
        .add(
            "/api/v1/query_range",
            READ,
            RANGE,
            Media::Json,
            "The values of an expression over a range of time",
            both(query::query_range),
        )
        .add(
            "/api/v1/query_exemplars",
            READ,
            EXEMPLARS,
            Media::Json,
            "Exemplars of the series that an expression selects",
            both(query::query_exemplars),
        )
        .add(
            "/api/v1/query_explain",
            READ,
            RANGE,
            Media::Json,
            "How a range query would run",
            both(explain::query_explain),
        )
        .add(
            "/api/v1/format_query",
            READ,
            EXPRESSION,
            Media::Json,
            "An expression in canonical form",
            both(query::format_query),
        )
        .add(
            "/api/v1/parse_query",
            READ,
            EXPRESSION,
            Media::Json,
            "The syntax tree of an expression",
            both(query::parse_query),
        )
        .add("/api/v1/series", READ, SERIES, Media::Json, "Label sets of series", both(query::series))
        .add("/api/v1/labels", READ, NAMES, Media::Json, "Label names", both(query::labels))
        .add(
            "/api/v1/label/{name}/values",
            GET,
            VALUES,
            Media::Json,
            "Values of a label",
            get(query::label_values),
        )
        .add(
            "/api/v1/metadata",
            GET,
            METADATA,
            Media::Json,
            "Type, help and unit of metric families",
            get(query::metadata),
        )
        .add(
            "/api/v1/search/metric_names",
            READ,
            SEARCH,
            Media::Lines,
            "Metric names that fit a search",
            both(search::metric_names),
        )
        .add(
            "/api/v1/search/label_names",
            READ,
            SEARCH,
            Media::Lines,
            "Label names that fit a search",
            both(search::label_names),
        )
        .add(
            "/api/v1/search/label_values",
            READ,
            SEARCH_VALUES,
            Media::Lines,
            "Values of a label that fit a search",
            both(search::label_values),
        )
        .add(
            "/api/v1/cardinality/label_names",
            READ,
            NONE,
            Media::Json,
            "Mimir's cardinality of label names: empty so far",
            both(absent::cardinality_names),
        )
        .add(
            "/api/v1/cardinality/label_values",
            READ,
            NONE,
            Media::Json,
            "Mimir's cardinality of label values: empty so far",
            both(absent::cardinality_values),
        )
        .add(
            "/api/v1/read",
            POST,
            NONE,
            Media::Protobuf,
            "Remote read: raw samples, or a stream of chunks",
            post(read::read),
        )
        .add(
            "/federate",
            GET,
            SELECT,
            Media::Text,
            "The newest samples of series, for a federating Prometheus",
            get(federate::federate),
        )
}

fn writes(table: Table) -> Table {
    table
        .add_with(204, "/api/v1/write", POST, NONE, Media::Nothing, "Remote write", post(write::write))
        .add_with(
            204,
            "/api/v1/push",
            POST,
            NONE,
            Media::Nothing,
            "Remote write, by Mimir's path",
            post(write::write),
        )
        .add_with(
            204,
            "/api/v1/receive",
            POST,
            NONE,
            Media::Nothing,
            "Remote write, by Thanos's path",
            post(write::write),
        )
        .add(
            "/api/v1/otlp/v1/metrics",
            POST,
            NONE,
            Media::Protobuf,
            "Metrics of OpenTelemetry",
            post(otlp::metrics),
        )
        .add(
            "/otlp/v1/metrics",
            POST,
            NONE,
            Media::Protobuf,
            "Metrics of OpenTelemetry, by Mimir's path",
            post(otlp::metrics),
        )
}

fn states(table: Table) -> Table {
    table
        .add("/api/v1/targets", GET, TARGETS, Media::Json, "Scrape targets", get(targets::targets))
        .add(
            "/api/v1/targets/metadata",
            GET,
            TARGETS_METADATA,
            Media::Json,
            "Metadata of families by target",
            get(targets::target_metadata),
        )
        .add(
            "/api/v1/targets/relabel_steps",
            GET,
            RELABEL,
            Media::Json,
            "What each relabelling rule of a pool makes of labels",
            get(targets::relabel_steps),
        )
        .add(
            "/api/v1/scrape_pools",
            GET,
            NONE,
            Media::Json,
            "Names of the scrape pools",
            get(targets::scrape_pools),
        )
        .add(
            "/api/v1/scrape_pools/config",
            GET,
            POOL,
            Media::Json,
            "The configuration of a scrape pool",
            get(targets::scrape_pool_config),
        )
        .add("/api/v1/features", GET, NONE, Media::Json, "What this server can do", get(features::features))
        .add("/api/v1/openapi.yaml", GET, NONE, Media::Yaml, "This table as OpenAPI", get(openapi_yaml))
        .add(
            "/api/v1/status/config",
            GET,
            NONE,
            Media::Json,
            "The configuration in force, secrets masked",
            get(status::config),
        )
        .add(
            "/api/v1/status/runtimeinfo",
            GET,
            NONE,
            Media::Json,
            "How the process does",
            get(status::runtime_info),
        )
        .add("/api/v1/status/buildinfo", GET, NONE, Media::Json, "Versions", get(status::build_info))
        .add("/api/v1/status/flags", GET, NONE, Media::Json, "Flags with their values", get(status::flags))
        .add(
            "/api/v1/status/not_active",
            GET,
            NONE,
            Media::Json,
            "What the configuration asks for and this version does not do",
            get(status::not_active),
        )
        .add(
            "/api/v1/status/tsdb",
            GET,
            LIMIT,
            Media::Json,
            "Cardinality of the series in memory",
            get(status::tsdb),
        )
        .add(
            "/api/v1/status/tsdb/blocks",
            GET,
            NONE,
            Media::Json,
            "Blocks: there are none here",
            get(absent::blocks),
        )
        .add(
            "/api/v1/status/self_metrics",
            GET,
            NONE,
            Media::Json,
            "Own metrics as JSON: empty so far, see /metrics",
            get(absent::empty_list),
        )
        .add(
            "/api/v1/status/active_queries",
            GET,
            NONE,
            Media::Json,
            "Queries under way",
            get(query::active_queries),
        )
        .add_with(
            204,
            "/api/v1/status/active_queries/{id}",
            &["DELETE"],
            ID,
            Media::Nothing,
            "Cancels a query",
            delete(query::cancel_query),
        )
}

fn rules_and_alerts(table: Table) -> Table {
    const RULE_FILES: &[&str] = &["GET", "POST", "DELETE"];
    let rule_files = || get(absent::no_rule_files).post(absent::change).delete(absent::change);
    table
        .add("/api/v1/rules", GET, RULES, Media::Json, "Rules: none are evaluated yet", get(absent::rules))
        .add("/api/v1/alerts", GET, NONE, Media::Json, "Alerts: none yet", get(absent::alerts))
        .add(
            "/api/v1/alertmanagers",
            GET,
            NONE,
            Media::Json,
            "Alertmanagers: none yet",
            get(absent::alertmanagers),
        )
        .add(
            "/config/v1/rules",
            RULE_FILES,
            NONE,
            Media::Yaml,
            "Mimir's rule files: none; changes answer 501",
            rule_files(),
        )
        .add(
            "/config/v1/rules/{namespace}",
            RULE_FILES,
            NAMESPACE,
            Media::Yaml,
            "Mimir's rule files of a namespace: none; changes answer 501",
            rule_files(),
        )
        .add(
            "/config/v1/rules/{namespace}/{group}",
            RULE_FILES,
            GROUP,
            Media::Yaml,
            "A rule group in Mimir's API: none; changes answer 501",
            rule_files(),
        )
        .add(
            "/api/v2/status",
            GET,
            NONE,
            Media::Json,
            "Alertmanager's status, without an Alertmanager",
            get(absent::alertmanager_status),
        )
        .add(
            "/api/v2/receivers",
            GET,
            NONE,
            Media::Json,
            "Alertmanager's receivers: none",
            get(absent::bare_list),
        )
        .add(
            "/api/v2/silences",
            READ,
            NONE,
            Media::Json,
            "Alertmanager's silences: none; changes answer 501",
            get(absent::bare_list).post(absent::change),
        )
        .add_with(
            501,
            "/api/v2/silence/{id}",
            &["GET", "DELETE"],
            ID,
            Media::Json,
            "A silence",
            get(absent::change).delete(absent::change),
        )
        .add(
            "/api/v2/alerts",
            READ,
            NONE,
            Media::Json,
            "Alertmanager's alerts: none; changes answer 501",
            get(absent::bare_list).post(absent::change),
        )
        .add(
            "/api/v2/alerts/groups",
            GET,
            NONE,
            Media::Json,
            "Alertmanager's groups of alerts: none",
            get(absent::bare_list),
        )
}

fn admins(table: Table) -> Table {
    table
        .add_with(
            204,
            "/api/v1/admin/tsdb/delete_series",
            CHANGE,
            DELETE_SERIES,
            Media::Nothing,
            "Deletes samples (--web.enable-admin-api)",
            change(admin::delete_series),
        )
        .add_with(
            204,
            "/api/v1/admin/tsdb/clean_tombstones",
            CHANGE,
            NONE,
            Media::Nothing,
            "Frees the space of deleted samples on this node at once (--web.enable-admin-api)",
            change(admin::clean_tombstones),
        )
        .add(
            "/api/v1/admin/tsdb/snapshot",
            CHANGE,
            SNAPSHOT,
            Media::Json,
            "A copy of all data of the cluster that starts as a node of its own, below snapshots/ of this node's data folder (--web.enable-admin-api)",
            change(admin::snapshot),
        )
}

/// The cluster; its status also while the node looks for it. Changes need `--web.enable-admin-api`.
fn cluster_paths(table: Table) -> Table {
    table
        .add(
            "/api/v1/cluster/status",
            GET,
            NONE,
            Media::Json,
            "Members, settings and shards of the cluster",
            get(cluster::status),
        )
        .add(
            "/api/v1/cluster/settings",
            POST,
            SETTINGS,
            Media::Json,
            "Changes settings that must agree, each a parameter by its name (--web.enable-admin-api)",
            post(cluster::settings),
        )
        .add(
            "/api/v1/cluster/transfer_leader",
            POST,
            TRANSFER,
            Media::Json,
            "Gives the leadership of a shard to a node (--web.enable-admin-api)",
            post(cluster::transfer_leader),
        )
        .add(
            "/api/v1/cluster/remove",
            POST,
            NODE,
            Media::Json,
            "Takes a node out of the cluster (--web.enable-admin-api)",
            post(cluster::remove),
        )
}

/// Paths that answer also while the node starts or stops.
fn always() -> Table {
    let table = cluster_paths(Table::under(""))
        .add(
            "/api/v1/status/walreplay",
            GET,
            NONE,
            Media::Json,
            "How far the replay of the log is",
            get(status::wal_replay),
        )
        .add(
            "/api/v1/notifications",
            GET,
            NONE,
            Media::Json,
            "What is to be shown at the top of pages",
            get(notifications::list),
        )
        .add(
            "/api/v1/notifications/live",
            GET,
            NONE,
            Media::Events,
            "Notifications as they come",
            get(notifications::live),
        )
        .add("/-/healthy", GET, NONE, Media::Text, "Whether the process lives", get(operate::healthy))
        .add("/-/ready", GET, NONE, Media::Text, "Whether the node serves", get(operate::ready))
        .add(
            "/-/reload",
            CHANGE,
            NONE,
            Media::Nothing,
            "Loads the configuration again (--web.enable-lifecycle)",
            change(operate::reload).get(operate::only_post),
        )
        .add(
            "/-/quit",
            CHANGE,
            NONE,
            Media::Text,
            "Ends the process in order (--web.enable-lifecycle)",
            change(operate::quit).get(operate::only_post),
        )
        .add("/metrics", GET, NONE, Media::Text, "Own metrics", get(operate::metrics))
        .add("/version", GET, NONE, Media::Json, "Versions, without an envelope", get(operate::version))
        .add(
            "/debug/{*path}",
            GET,
            PROFILE,
            Media::Protobuf,
            "Profiles: none are taken yet, those of pprof are empty",
            get(absent::profiles),
        )
        .add("/", GET, NONE, Media::Page, "Redirects to the page", get(ui::home))
        .add("/query", GET, NONE, Media::Page, "Redirects to the page", get(ui::home));
    ui::PAGES
        .iter()
        .fold(table, |table, (path, what)| table.add(path, GET, NONE, Media::Page, what, get(ui::page)))
}
