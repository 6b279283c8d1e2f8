//! Access tokens by OAuth 2's client credentials: asked for when there is none that is still good.
//!
//! Source: `common/config/http_config.go` (`oauth2RoundTripper`) and Go's `oauth2/clientcredentials`: the client
//! authenticates by HTTP basic authentication and, when the server does not take that, in the form.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Shared, Url, build, chain, load, proxy, tls};
use crate::config::{HttpConfig, OAuth2};
use crate::error::ClientError;
use crate::secret::Secret;

/// The most bytes of a token server's answer.
const MAX_ANSWER: usize = 1 << 20;
/// A token is not used in its last seconds.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long a token is good whose server does not say.
const NO_EXPIRY: Duration = Duration::from_secs(365 * 24 * 3600);

type Inner = Client<proxy::HttpsConnector, Full<Bytes>>;

/// Where tokens come from.
pub(crate) struct TokenSource {
    config: OAuth2,
    url: Url,
    http: HttpConfig,
    shared: Shared,
    proxy: Option<proxy::Proxy>,
    tls: tls::Reloading<Inner>,
    /// Held while a token is asked for, so that all scrapes of a job wait for one answer.
    token: Mutex<Option<Token>>,
}

struct Token {
    authorization: Secret,
    /// The secret that it was asked for with: another one makes it void.
    client_secret: String,
    /// On the monotonic clock.
    good_until: Duration,
}

/// What a token server answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: serde_json::Value,
    #[serde(default)]
    error: String,
}

impl TokenSource {
    /// A source without a token yet; reads the files that TLS needs.
    pub(crate) fn new(config: &OAuth2, shared: &Shared) -> Result<Self, ClientError> {
        let url = Url::parse(config.token_url.expose()).map_err(|e| error(format!("token_url: {e}")))?;
        let http =
            HttpConfig { tls: config.tls.clone(), proxy: config.proxy.clone(), ..HttpConfig::default() };
        let proxy = http.proxy.as_ref().map(proxy::Proxy::new).transpose()?;
        let files = tls::Files::read(&http.tls)?;
        let inner = build(&http, proxy.clone(), &files)?;
        let tls = tls::Reloading::new(files, inner, shared.clock.monotonic());
        let token = Mutex::default();
        Ok(Self { config: config.clone(), url, http, shared: shared.clone(), proxy, tls, token })
    }

    /// The value of `Authorization`.
    pub(crate) async fn authorization(&self) -> Result<String, ClientError> {
        let client_secret = load(&self.config.client_secret, "oauth2 client secret").await?;
        let mut token = self.token.lock().await;
        let now = self.shared.clock.monotonic();
        if let Some(token) = &*token
            && token.client_secret == client_secret
            && now < token.good_until
        {
            return Ok(token.authorization.expose().to_owned());
        }
        let fresh = self.ask(client_secret, now).await?;
        let authorization = fresh.authorization.expose().to_owned();
        *token = Some(fresh);
        Ok(authorization)
    }

    async fn ask(&self, client_secret: String, now: Duration) -> Result<Token, ClientError> {
        let in_header = self.post(&client_secret, true).await;
        let answer = match in_header {
            Ok(answer) => answer,
            // The server may want the client's name in the form; its answer to that counts.
            Err(Refused::Answered(_)) => match self.post(&client_secret, false).await {
                Ok(answer) => answer,
                Err(refused) => return Err(refused.into_error()),
            },
            Err(refused) => return Err(refused.into_error()),
        };
        let kind = match answer.token_type.to_ascii_lowercase().as_str() {
            "" | "bearer" => "Bearer".to_owned(),
            "mac" => "MAC".into(),
            "basic" => "Basic".into(),
            _ => answer.token_type,
        };
        let expires = seconds(&answer.expires_in).map_or(NO_EXPIRY, Duration::from_secs);
        Ok(Token {
            authorization: Secret::new(format!("{kind} {}", answer.access_token)),
            client_secret,
            good_until: now + expires.min(NO_EXPIRY).saturating_sub(EXPIRY_MARGIN),
        })
    }

    async fn post(&self, client_secret: &str, in_header: bool) -> Result<Answer, Refused> {
        let config = &self.config;
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        if !config.scopes.is_empty() {
            form.push(("scope", config.scopes.join(" ")));
        }
        form.extend(
            config.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.expose().to_owned())),
        );
        if !in_header {
            form.push(("client_id", config.client_id.clone()));
            form.push(("client_secret", client_secret.to_owned()));
        }
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let failed = |e: String| Refused::Failed(error(e));
        let mut request = Request::post(self.url.uri())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(http::header::USER_AGENT, self.shared.user_agent.clone())
            .body(Full::from(pairs.join("&")))
            .map_err(|e| failed(e.to_string()))?;
        if in_header {
            let pair = format!("{}:{}", encode(&config.client_id), encode(client_secret));
            let text = format!("Basic {}", STANDARD.encode(pair));
            let mut value = HeaderValue::from_str(&text).map_err(|e| failed(e.to_string()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        if let Some(proxy) = &self.proxy {
            proxy.add_headers(&self.url, request.headers_mut());
        }
        let client = self.client().await.map_err(Refused::Failed)?;
        let response = client.request(request).await.map_err(|e| failed(chain(&e)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| failed(format!("answer of the token server: {e}")))?.to_bytes();
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        match answer {
            Some(answer) if status.is_success() && !answer.access_token.is_empty() => Ok(answer),
            // What the server says may repeat what it was sent: only its error's name is shown.
            Some(answer) if !answer.error.is_empty() => {
                let name: String = answer.error.chars().take(100).collect();
                Err(Refused::Answered(format!("token server returned HTTP status {status}: {name:?}")))
            }
            _ if status.is_success() => {
                Err(Refused::Failed(error("the token server's answer has no access_token".into())))
            }
            _ => Err(Refused::Answered(format!("token server returned HTTP status {status}"))),
        }
    }

    /// The client with the present content of the TLS files.
    async fn client(&self) -> Result<Inner, ClientError> {
        let now = self.shared.clock.monotonic();
        self.tls.current(now, &self.http.tls, |files| build(&self.http, self.proxy.clone(), files)).await
    }
}

/// Why there is no token.
enum Refused {
    /// The server said no.
    Answered(String),
    /// It could not be asked, or what it said makes no sense.
    Failed(ClientError),
}

impl Refused {
    fn into_error(self) -> ClientError {
        match self {
            Self::Answered(text) => error(text),
            Self::Failed(error) => error,
        }
    }
}

fn error(reason: String) -> ClientError {
    ClientError::OAuth2(reason)
}

/// `expires_in`, which some servers write as a text.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.filter(|seconds| *seconds > 0)
}

/// As in forms: spaces as `+`, all but letters, digits and `-_.~` as `%xx`.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
