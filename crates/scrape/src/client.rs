//! The HTTP client of scrapes and of HTTP discovery: credentials, headers, TLS, proxies, redirects, bounded bodies.
//!
//! One client a job; connections are kept and reused. Credentials and configured headers go to the configured host
//! only. A fetch is bounded in time, in bytes after decompression, and in the memory of all fetches together.

mod body;
mod oauth2;
mod proxy;
mod tls;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::seam::Clock;
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use body::BodyBudget;
pub(crate) use url::Url;

use crate::config::{Auth, HttpConfig};
use crate::error::ClientError;
use crate::metrics::Metrics;
use crate::secret::Source;

/// Hops of redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Connections that nobody used for so long are closed.
const IDLE: Duration = Duration::from_secs(300);

/// What all clients of a node share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Memory for bodies that are being read.
    pub(crate) budget: Arc<BodyBudget>,
    /// Value of `User-Agent`.
    pub(crate) user_agent: HeaderValue,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Figures.
    pub(crate) metrics: Metrics,
}

type Inner = Client<proxy::HttpsConnector, Empty<Bytes>>;

/// A client with one configuration.
pub(crate) struct HttpClient {
    config: HttpConfig,
    tokens: Option<oauth2::TokenSource>,
    shared: Shared,
    proxy: Option<proxy::Proxy>,
    tls: tls::Reloading<Inner>,
}

/// One request.
pub(crate) struct Fetch<'a> {
    /// Where.
    pub(crate) url: &'a Url,
    /// Headers that carry no secrets; they follow redirects.
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    /// Most bytes of the decoded body.
    pub(crate) body_limit: u64,
    /// Read with rests, since it is likely to be too large.
    pub(crate) paced: bool,
    /// Most time for all of it.
    pub(crate) timeout: Duration,
}

/// A body that arrived whole with status 200.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Value of `Content-Type`, or empty.
    pub(crate) content_type: String,
    /// The decoded body.
    pub(crate) body: Vec<u8>,
    /// Its share of the memory for bodies.
    _shares: Vec<OwnedSemaphorePermit>,
}

impl Answer {
    /// What this process gave itself.
    pub(crate) fn own(content_type: String, body: Vec<u8>) -> Self {
        Self { content_type, body, _shares: Vec::new() }
    }
}

/// Why nothing usable arrived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The time was over.
    #[error("Get {url:?}: context deadline exceeded")]
    Timeout {
        /// What was asked for.
        url: String,
        /// Bytes of the decoded body that had come.
        read: u64,
    },
    /// Not connected, or the connection broke.
    #[error("Get {url:?}: {reason}")]
    Transport {
        /// What was asked for.
        url: String,
        /// The chain of causes.
        reason: String,
    },
    /// The answer was not 200.
    #[error("server returned HTTP status {0}")]
    Status(StatusCode),
    /// The decoded body has more bytes than allowed.
    #[error("body size limit exceeded")]
    TooLarge,
    /// The body does not decompress.
    #[error("gzip: {0}")]
    Gzip(String),
    /// The node's own metrics could not be written.
    #[error("{0}")]
    Own(String),
    /// Too many redirects, or one that is not followed.
    #[error("Get {url:?}: {reason}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The client's own settings do not work (any more).
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl HttpClient {
    /// A client for `config`; reads the files that TLS needs, so that mistakes show at once.
    pub(crate) fn new(config: &HttpConfig, shared: &Shared) -> Result<Self, ClientError> {
        for name in config.headers.keys() {
            HeaderName::try_from(name.as_str()).map_err(|_| ClientError::Header(name.clone()))?;
        }
        let proxy = config.proxy.as_ref().map(proxy::Proxy::new).transpose()?;
        let inline = tls::Files::read(&config.tls)?;
        let inner = build(config, proxy.clone(), &inline)?;
        let now = shared.clock.monotonic();
        let tokens = match &config.auth {
            Auth::OAuth2(settings) => Some(oauth2::TokenSource::new(settings, shared)?),
            _ => None,
        };
        Ok(Self {
            config: config.clone(),
            tokens,
            shared: shared.clone(),
            proxy,
            tls: tls::Reloading::new(inline, inner, now),
        })
    }

    /// The figures that this client counts in.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Fetches a body. Whatever the server does, this ends within the timeout and the limit.
    pub(crate) async fn fetch(&self, fetch: &Fetch<'_>) -> Result<Answer, FetchError> {
        let progress = AtomicU64::new(0);
        let timed = tokio::time::timeout(fetch.timeout, self.fetch_untimed(fetch, &progress)).await;
        timed.unwrap_or_else(|_| {
            Err(FetchError::Timeout { url: fetch.url.redacted(), read: progress.load(Ordering::Relaxed) })
        })
    }

    /// `progress` follows the bytes of the decoded body.
    async fn fetch_untimed(&self, fetch: &Fetch<'_>, progress: &AtomicU64) -> Result<Answer, FetchError> {
        let client = self.current().await?;
        let private = self.private_headers(fetch.url).await?;
        let mut url = fetch.url.clone();
        let mut trusted = true;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&client, &url, fetch, trusted.then_some(&private)).await?;
            let Some(location) = self.redirect(&response) else {
                return self.read(response, fetch, progress).await;
            };
            let error = |reason: String| FetchError::Redirect { url: url.redacted(), reason };
            let next = url.join(&location).map_err(error)?;
            if next.is_link_local() && !fetch.url.is_link_local() {
                return Err(error("redirect to a link-local address is not followed".into()));
            }
            // Once a hop has left the configured host, later hops get no credentials either.
            trusted &= next.may_share_credentials_of(fetch.url);
            url = next;
        }
        Err(FetchError::Redirect {
            url: url.redacted(),
            reason: format!("stopped after {MAX_REDIRECTS} redirects"),
        })
    }

    /// Where to go instead, when redirects are followed and this is one.
    fn redirect(&self, response: &Response<Incoming>) -> Option<String> {
        let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = response.headers().get(LOCATION)?.to_str().ok()?;
        (moved && self.config.follow_redirects).then(|| location.to_owned())
    }

    async fn send(
        &self,
        client: &Inner,
        url: &Url,
        fetch: &Fetch<'_>,
        private: Option<&HeaderMap>,
    ) -> Result<Response<Incoming>, FetchError> {
        let transport = |reason: String| FetchError::Transport { url: url.redacted(), reason };
        let mut request = Request::get(url.uri()).body(Empty::new()).map_err(|e| transport(e.to_string()))?;
        let headers = request.headers_mut();
        for (name, value) in fetch.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers.insert(USER_AGENT, self.shared.user_agent.clone());
        for (name, value) in private.into_iter().flatten() {
            headers.append(name.clone(), value.clone());
        }
        if let Some(proxy) = &self.proxy {
            proxy.add_headers(url, headers);
        }
        client.request(request).await.map_err(|error| transport(chain(&error)))
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        fetch: &Fetch<'_>,
        progress: &AtomicU64,
    ) -> Result<Answer, FetchError> {
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let text = |name: HeaderName| -> String {
            response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned()
        };
        let (content_type, gzip) = (text(CONTENT_TYPE), text(CONTENT_ENCODING) == "gzip");
        let url = || fetch.url.redacted();
        let (body, shares) = body::read(
            response.into_body(),
            gzip,
            (fetch.body_limit, fetch.paced),
            &self.shared.budget,
            progress,
            url,
        )
        .await?;
        Ok(Answer { content_type, body, _shares: shares })
    }

    /// The headers that only the configured host may see.
    async fn private_headers(&self, url: &Url) -> Result<HeaderMap, ClientError> {
        let mut headers = HeaderMap::new();
        let mut authorization = match &self.config.auth {
            // Its token is asked for below.
            Auth::OAuth2(_) => None,
            Auth::None => url.user_info().map(|user| format!("Basic {}", STANDARD.encode(user))),
            Auth::Basic { username, password } => {
                let pair =
                    format!("{}:{}", load(username, "username").await?, load(password, "password").await?);
                Some(format!("Basic {}", STANDARD.encode(pair)))
            }
            Auth::Header { kind, credentials } => {
                Some(format!("{kind} {}", load(credentials, "authorization credentials").await?))
            }
        };
        if let Some(tokens) = &self.tokens {
            authorization = Some(tokens.authorization().await?);
        }
        if let Some(text) = authorization.take() {
            headers.insert(AUTHORIZATION, header_value("Authorization", &text)?);
        }
        for (name, values) in &self.config.headers {
            let header =
                HeaderName::try_from(name.as_str()).map_err(|_| ClientError::Header(name.clone()))?;
            for value in values {
                headers.append(header.clone(), header_value(name, &load(value, "headers").await?)?);
            }
        }
        Ok(headers)
    }

    /// The client with the present content of the TLS files.
    async fn current(&self) -> Result<Inner, ClientError> {
        let now = self.shared.clock.monotonic();
        self.tls.current(now, &self.config.tls, |files| build(&self.config, self.proxy.clone(), files)).await
    }
}

fn build<B>(
    config: &HttpConfig,
    proxy: Option<proxy::Proxy>,
    files: &tls::Files,
) -> Result<Client<proxy::HttpsConnector, B>, ClientError>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    let connector = proxy::connector(config, proxy, tls::client_config(&config.tls, files)?)?;
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .build(connector))
}

fn header_value(name: &str, text: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ClientError::Header(name.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The text of a source; of a file without white space around it, as upstream.
async fn load(source: &Source, what: &'static str) -> Result<String, ClientError> {
    match source {
        Source::Inline(secret) => Ok(secret.expose().to_owned()),
        Source::File(path) => {
            let error = |source| ClientError::File { what, path: path.clone(), source };
            let bytes = tokio::fs::read(path).await.map_err(error)?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        }
    }
}

/// An error with all its causes, as Go prints wrapped errors.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let shown = cause.to_string();
        if !text.contains(&shown) {
            text.push_str(": ");
            text.push_str(&shown);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
