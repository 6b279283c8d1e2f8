//! The pages: one document and its files, embedded, without a build step. The document shows what the last part of its
//! address names. Everything in it is relative to its own path, so that it works under any prefix.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header;

use crate::state::ApiState;

const PAGE: &str = include_str!("../ui/index.html");
const ICON: &str = include_str!("../ui/favicon.svg");
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The pages: path, and what it is.
pub(crate) const PAGES: [(&str, &str); 10] = [
    ("/graph", "The page that runs queries"),
    ("/cluster", "The page of nodes, shards and copies"),
    ("/alerts", "The page of alerts"),
    ("/rules", "The page of rules"),
    ("/targets", "The page of targets"),
    ("/service-discovery", "The page of targets before relabelling"),
    ("/tsdb-status", "The page of what the storage holds"),
    ("/config", "The page of the configuration"),
    ("/flags", "The page of flags"),
    ("/status", "The page of the process"),
];

/// The files of the document: path, media type, text.
const FILES: [(&str, &str, &str); 9] = [
    ("/ui/app.css", "text/css; charset=utf-8", include_str!("../ui/app.css")),
    ("/ui/app.js", SCRIPT, include_str!("../ui/app.js")),
    ("/ui/base.js", SCRIPT, include_str!("../ui/base.js")),
    ("/ui/chart.js", SCRIPT, include_str!("../ui/chart.js")),
    ("/ui/cluster.js", SCRIPT, include_str!("../ui/cluster.js")),
    ("/ui/complete.js", SCRIPT, include_str!("../ui/complete.js")),
    ("/ui/pages.js", SCRIPT, include_str!("../ui/pages.js")),
    ("/ui/query.js", SCRIPT, include_str!("../ui/query.js")),
    ("/favicon.svg", IMAGE, ICON),
];

/// Scripts, styles and requests only from this server; nothing inline; no frames around the page from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The files that the pages are made of.
pub(crate) fn files() -> Router<Arc<ApiState>> {
    let icon = Router::new().route("/favicon.ico", get(async || file(IMAGE, ICON)));
    FILES
        .into_iter()
        .fold(icon, |router, (path, media, text)| router.route(path, get(async move || file(media, text))))
}

/// Sends the browser to page `name`, with the query string that it came with.
pub(crate) fn to_page(state: &ApiState, name: &str, query: Option<&str>) -> Redirect {
    let path = format!("{}/{name}", state.settings.external_path);
    match query {
        Some(query) => Redirect::to(&format!("{path}?{query}")),
        None => Redirect::to(&path),
    }
}

pub(crate) async fn home(State(state): State<Arc<ApiState>>, RawQuery(query): RawQuery) -> Redirect {
    to_page(&state, "graph", query.as_deref())
}

pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

fn file(media: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}
