//! Who may connect and ask: TLS, client certificates, users with passwords, headers of answers, and the rate of
//! requests, as exporter-toolkit's web configuration file states them.
//!
//! [`WebSettings`] are plain values (reading the file is `server`'s matter); [`Web`] is what they become, and may be
//! replaced while serving. Here: the layer for every request. Below: [`users`] (passwords), [`tls`] (handshakes),
//! [`names`] (names in certificates).

mod names;
mod tls;
mod users;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;

use crate::state::ApiState;
use users::{Refusal, Users};

pub use tls::{ClientAuth, TlsServerSettings, TlsVersion, suite_is_known};
pub use users::check_hash;

/// Headers that the file may set, with the values allowed for those that have a list; upstream's `extraHTTPHeaders`.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// What the web configuration file states, with the texts of the files that it names. All of it is live-reloadable,
/// but not whether there is TLS at all.
#[derive(Clone, PartialEq, Default)]
pub struct WebSettings {
    /// TLS; plain HTTP when absent.
    pub tls: Option<TlsServerSettings>,
    /// Refuse HTTP/2 over TLS. Default false.
    pub no_http2: bool,
    /// Headers of every answer.
    pub headers: Vec<(String, String)>,
    /// bcrypt hashes by user; with none everybody may ask.
    pub users: BTreeMap<String, String>,
    /// Time between two requests, over all clients, and how many may come at once; no limit when absent.
    pub rate_limit: Option<(Duration, u64)>,
}

impl fmt::Debug for WebSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<&String> = self.users.keys().collect();
        f.debug_struct("WebSettings")
            .field("tls", &self.tls.is_some())
            .field("users", &users)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a header of the file, in upstream's words.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("HTTP header {name:?} can not be configured"));
    };
    if !allowed.is_empty() && !allowed.contains(&value) {
        return Err(format!("invalid value for {name}. Expected one of: {allowed:?}, but got: {value:?}"));
    }
    HeaderValue::from_str(value)
        .map(|_| ())
        .map_err(|_| format!("the value of {name} is not a header's text"))
}

/// The web configuration in force.
pub struct Web {
    settings: WebSettings,
    tls: Option<Arc<ServerConfig>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    users: Option<Users>,
    rate: Option<Mutex<Bucket>>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Web {
    /// Builds what `settings` state. Fails on certificates, keys, hashes and headers that cannot be used, naming them.
    pub fn new(settings: WebSettings) -> Result<Self, String> {
        let tls = match &settings.tls {
            None => None,
            Some(tls) => Some(Arc::new(tls::server_config(tls, !settings.no_http2)?)),
        };
        let mut headers = Vec::new();
        for (name, value) in &settings.headers {
            check_header(name, value)?;
            let bad = |_| format!("header {name} cannot be sent");
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("bad header name {name:?}"))?;
            headers.push((name, HeaderValue::from_str(value).map_err(bad)?));
        }
        let users = if settings.users.is_empty() { None } else { Some(Users::new(&settings.users)?) };
        let rate =
            settings.rate_limit.filter(|(interval, _)| !interval.is_zero()).map(|(interval, burst)| {
                Mutex::new(Bucket {
                    interval,
                    burst: burst as f64,
                    tokens: burst as f64,
                    filled: Instant::now(),
                })
            });
        Ok(Self { settings, tls, headers, users, rate })
    }

    /// The settings it was built from.
    pub fn settings(&self) -> &WebSettings {
        &self.settings
    }

    /// TLS for the next handshake, when it is on.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }
}

/// Where the web configuration in force is found and replaced.
pub type WebSource = Arc<ArcSwap<Web>>;

/// A bucket of requests that fills with time.
struct Bucket {
    interval: Duration,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() / self.interval.as_secs_f64()).min(self.burst);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// Refuses requests over the rate and those without a user's password, and puts the configured headers on answers.
pub(crate) async fn guard(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response {
    let web = state.web.load_full();
    let mut response = match refusal(&web, request.headers()).await {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    for (name, value) in &web.headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

async fn refusal(web: &Web, headers: &HeaderMap) -> Option<Response> {
    if let Some(rate) = &web.rate
        && !rate.lock().take(Instant::now())
    {
        return Some((StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response());
    }
    let users = web.users.as_ref()?;
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    match users.check(given).await {
        Ok(()) => None,
        Err(Refusal::Unauthorized) => {
            let headers = [(header::WWW_AUTHENTICATE, "Basic")];
            Some((StatusCode::UNAUTHORIZED, headers, "Unauthorized\n").into_response())
        }
        Err(Refusal::Busy) => {
            let headers = [(header::RETRY_AFTER, "1")];
            let text = "too many passwords are being checked\n";
            Some((StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_an_interval() {
        let start = Instant::now();
        let interval = Duration::from_millis(100);
        let mut bucket = Bucket { interval, burst: 2.0, tokens: 2.0, filled: start };
        let taken: Vec<bool> = [0, 0, 0, 50, 100, 120, 10_000, 10_000, 10_000]
            .iter()
            .map(|ms| bucket.take(start + Duration::from_millis(*ms)))
            .collect();
        assert_eq!(taken, [true, true, false, false, true, false, true, true, false]);
    }

    #[test]
    fn only_upstreams_headers_with_their_values() {
        assert!(check_header("X-Frame-Options", "deny").is_ok());
        let bad = check_header("X-Frame-Options", "allow").unwrap_err();
        assert_eq!(
            bad,
            "invalid value for X-Frame-Options. Expected one of: [\"deny\", \"sameorigin\"], but got: \"allow\""
        );
        assert_eq!(check_header("Server", "x").unwrap_err(), "HTTP header \"Server\" can not be configured");
        assert!(check_header("X-XSS-Protection", "a\r\nb: c").is_err());
    }
}
