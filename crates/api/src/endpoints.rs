//! The table of paths: each is added with its methods, parameters and what it answers, in one call that also routes it.
//! From the table come the router, `/api/v1/openapi.yaml` and `docs/api.md`, so that none of them can forget a path.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::{HeaderValue, StatusCode, header};

use crate::error::{ApiError, ErrorKind};
use crate::state::ApiState;

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the query string, or in the form of a POST.
    Query,
    /// A part of the path.
    Path,
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name; a name that ends with `[]` may be repeated.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether a request without it is refused.
    pub required: bool,
    /// A value that the path accepts, for examples and tests.
    pub example: &'static str,
}

/// A parameter that may be left out.
pub(crate) const fn optional(name: &'static str, example: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, required: false, example }
}

/// A parameter that must be there.
pub(crate) const fn required(name: &'static str, example: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, required: true, example }
}

/// A part of the path.
pub(crate) const fn in_path(name: &'static str, example: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, required: true, example }
}

/// What a path answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// JSON in the envelope of the API.
    Json,
    /// Plain text.
    Text,
    /// YAML.
    Yaml,
    /// One JSON object a line.
    Lines,
    /// Protobuf.
    Protobuf,
    /// Server-sent events.
    Events,
    /// A page, or a redirect to one.
    Page,
    /// Nothing but the code.
    Nothing,
}

impl Media {
    /// The media type, if there is one.
    pub fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Json => "application/json",
            Self::Text => "text/plain",
            Self::Yaml => "application/yaml",
            Self::Lines => "application/x-ndjson",
            Self::Protobuf => "application/x-protobuf",
            Self::Events => "text/event-stream",
            Self::Page => "text/html",
            Self::Nothing => return None,
        })
    }
}

/// A path.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The path, parts in braces.
    pub path: String,
    /// Its methods, `GET` (with `HEAD`), `POST`, `PUT`, `DELETE`.
    pub methods: &'static [&'static str],
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// What it answers with.
    pub media: Media,
    /// The code of a good answer without any data behind it; 501 for what does not work yet.
    pub code: u16,
    /// What it is for, one sentence without a full stop.
    pub summary: &'static str,
}

/// Methods of a path that reads: parameters in the query string or in a form.
pub(crate) const READ: &[&str] = &["GET", "POST"];
/// Methods of a path that only shows.
pub(crate) const GET: &[&str] = &["GET"];
/// Methods of a path that takes a body.
pub(crate) const POST: &[&str] = &["POST"];
/// Methods of a path that changes something.
pub(crate) const CHANGE: &[&str] = &["POST", "PUT"];

/// Paths under one prefix, and the router over them.
pub(crate) struct Table {
    prefix: &'static str,
    endpoints: Vec<Endpoint>,
    router: Router<Arc<ApiState>>,
}

impl Table {
    /// An empty table of paths under `prefix`.
    pub(crate) fn under(prefix: &'static str) -> Self {
        Self { prefix, endpoints: Vec::new(), router: Router::new() }
    }

    /// Adds a path that answers 200 when all is well.
    pub(crate) fn add(
        self,
        path: &str,
        methods: &'static [&'static str],
        parameters: &'static [Parameter],
        media: Media,
        summary: &'static str,
        handler: MethodRouter<Arc<ApiState>>,
    ) -> Self {
        self.add_with(200, path, methods, parameters, media, summary, handler)
    }

    /// Adds a path that answers `code` when all is well.
    #[allow(clippy::too_many_arguments, reason = "a row of a table")]
    pub(crate) fn add_with(
        mut self,
        code: u16,
        path: &str,
        methods: &'static [&'static str],
        parameters: &'static [Parameter],
        media: Media,
        summary: &'static str,
        handler: MethodRouter<Arc<ApiState>>,
    ) -> Self {
        let full = format!("{}{path}", self.prefix);
        self.endpoints.push(Endpoint { path: full.clone(), methods, parameters, media, code, summary });
        let allowed = allow(methods);
        let refuse = move || {
            let allowed = allowed.clone();
            async move { wrong_method(&allowed) }
        };
        self.router = self.router.route(&full, handler.fallback(refuse));
        self
    }

    /// The paths, and the router over them.
    pub(crate) fn parts(self) -> (Vec<Endpoint>, Router<Arc<ApiState>>) {
        (self.endpoints, self.router)
    }
}

fn allow(methods: &[&str]) -> String {
    methods
        .iter()
        .flat_map(|method| if *method == "GET" { vec!["GET", "HEAD"] } else { vec![*method] })
        .collect::<Vec<_>>()
        .join(", ")
}

/// 405, with the methods that there are.
fn wrong_method(allowed: &str) -> Response {
    let error = ApiError::new(ErrorKind::WrongMethod, format!("this path takes only {allowed}"));
    let mut response = error.into_response();
    if let Ok(value) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// The paths as OpenAPI's YAML. Strings are JSON strings, which are YAML too.
pub(crate) fn openapi(endpoints: &[Endpoint], version: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = format!(
        "openapi: 3.1.0\ninfo:\n  title: Isobar\n  version: {}\n  description: The HTTP API of Prometheus, and what Isobar has beside it.\npaths:\n",
        quoted(version)
    );
    for endpoint in endpoints {
        out.push_str(&format!("  {}:\n", quoted(&endpoint.path.replace("{*", "{"))));
        for method in endpoint.methods {
            let id: String =
                endpoint.path.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let method = method.to_ascii_lowercase();
            out.push_str(&format!(
                "    {method}:\n      operationId: {}\n      summary: {}\n",
                quoted(&format!("{method}{id}")),
                quoted(endpoint.summary)
            ));
            if !endpoint.parameters.is_empty() {
                out.push_str("      parameters:\n");
            }
            for parameter in endpoint.parameters {
                let place = if parameter.place == Place::Path { "path" } else { "query" };
                let schema = if parameter.name.ends_with("[]") {
                    "type: array\n            items:\n              type: string"
                } else {
                    "type: string"
                };
                out.push_str(&format!(
                    "        - name: {}\n          in: {place}\n          required: {}\n          example: {}\n          schema:\n            {schema}\n",
                    quoted(parameter.name), parameter.required, quoted(parameter.example)
                ));
            }
            out.push_str(&format!(
                "      responses:\n        \"{}\":\n          description: \"{}\"\n",
                endpoint.code,
                if endpoint.code == 501 { "Not there yet" } else { "OK" }
            ));
            if let Some(media) = endpoint.media.as_str().filter(|_| endpoint.code == 200) {
                out.push_str(&format!("          content:\n            {media}: {{}}\n"));
            }
            out.push_str("        default:\n          description: Error\n");
        }
    }
    out
}

/// The paths as the table of `docs/api.md`.
pub fn markdown(endpoints: &[Endpoint]) -> String {
    let mut out = String::from("| path | methods | parameters | what it answers |\n|---|---|---|---|\n");
    for endpoint in endpoints {
        let parameters: Vec<String> = endpoint
            .parameters
            .iter()
            .filter(|parameter| parameter.place == Place::Query)
            .map(|parameter| format!("`{}`{}", parameter.name, if parameter.required { "" } else { "?" }))
            .collect();
        let code = if endpoint.code == 200 { String::new() } else { format!(" ({})", endpoint.code) };
        out.push_str(&format!(
            "| `{}` | {} | {} | {}{code} |\n",
            endpoint.path,
            endpoint.methods.join(" "),
            if parameters.is_empty() { "–".to_owned() } else { parameters.join(" ") },
            endpoint.summary
        ));
    }
    out
}

pub(crate) async fn openapi_yaml(State(state): State<Arc<ApiState>>) -> Response {
    let text = openapi(&crate::router::endpoints(), &state.build.isobar_version);
    let headers = [(header::CONTENT_TYPE, "application/yaml; charset=utf-8")];
    (StatusCode::OK, headers, text).into_response()
}
