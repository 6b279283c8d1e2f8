//! The page at `/graph`: three files, embedded, without a build step. Everything in it is relative to its own path,
//! so that it works under any prefix.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header;

use crate::state::ApiState;

const PAGE: &str = include_str!("../ui/index.html");
const SCRIPT: &str = include_str!("../ui/app.js");
const STYLE: &str = include_str!("../ui/app.css");
const ICON: &str = include_str!("../ui/favicon.svg");

/// Scripts, styles and requests only from this server; nothing inline; no frames around the page from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The files that the page is made of.
pub(crate) fn files() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/ui/app.js", get(async || file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/ui/app.css", get(async || file("text/css; charset=utf-8", STYLE)))
        .route("/favicon.svg", get(async || file("image/svg+xml", ICON)))
        .route("/favicon.ico", get(async || file("image/svg+xml", ICON)))
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
