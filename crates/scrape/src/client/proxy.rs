//! Connections, directly or through an HTTP proxy: absolute requests for plain targets, CONNECT for TLS targets.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::Service;

use super::Url;
use crate::config::{HttpConfig, ProxyConfig};
use crate::error::ClientError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// TLS over [`Connector`].
pub(crate) type HttpsConnector = hyper_rustls::HttpsConnector<Connector>;

/// The most bytes of a proxy's answer to CONNECT.
const MAX_CONNECT_ANSWER: usize = 16 << 10;

/// The connector of a client.
pub(crate) fn connector(
    config: &HttpConfig,
    proxy: Option<Proxy>,
    tls: ClientConfig,
) -> Result<HttpsConnector, ClientError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let builder = match config.tls.server_name.as_str() {
        "" => builder,
        name => {
            let name = ServerName::try_from(name.to_owned())
                .map_err(|_| ClientError::Tls(format!("server_name {name:?} is not a valid name")))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    let connector = Connector { http, proxy };
    Ok(match config.enable_http2 {
        true => builder.enable_all_versions().wrap_connector(connector),
        false => builder.enable_http1().wrap_connector(connector),
    })
}

/// Proxies, checked: which requests go through which.
#[derive(Clone)]
pub(crate) struct Proxy {
    http: Option<Server>,
    https: Option<Server>,
    connect_headers: HeaderMap,
    exempt: Exempt,
}

/// One proxy.
#[derive(Clone)]
struct Server {
    url: Url,
    authorization: Option<HeaderValue>,
}

impl Server {
    fn new(text: &str) -> Result<Self, ClientError> {
        let url = Url::parse(text).map_err(ClientError::Proxy)?;
        if url.is_https() {
            return Err(ClientError::Proxy("a proxy that is reached over TLS is not supported yet".into()));
        }
        let authorization = match url.user_info() {
            None => None,
            Some(user) => {
                Some(super::header_value("Proxy-Authorization", &format!("Basic {}", STANDARD.encode(user)))?)
            }
        };
        Ok(Self { url, authorization })
    }
}

impl Proxy {
    pub(crate) fn new(config: &ProxyConfig) -> Result<Self, ClientError> {
        let server =
            |url: &Option<crate::Secret>| url.as_ref().map(|url| Server::new(url.expose())).transpose();
        let mut connect_headers = HeaderMap::new();
        for (name, values) in &config.connect_headers {
            let header =
                HeaderName::try_from(name.as_str()).map_err(|_| ClientError::Header(name.clone()))?;
            for value in values {
                connect_headers.append(header.clone(), super::header_value(name, value.expose())?);
            }
        }
        Ok(Self {
            http: server(&config.http)?,
            https: server(&config.https)?,
            connect_headers,
            exempt: Exempt::parse(&config.no_proxy),
        })
    }

    /// Adds what the proxy itself wants to know of a request that it forwards.
    pub(crate) fn add_headers(&self, url: &Url, headers: &mut HeaderMap) {
        if url.is_https() {
            return;
        }
        if let Some(value) = self.server_for(url).and_then(|server| server.authorization.as_ref()) {
            headers.insert(PROXY_AUTHORIZATION, value.clone());
        }
    }

    /// The proxy for `url`, unless it is reached directly.
    fn server_for(&self, url: &Url) -> Option<&Server> {
        let server = if url.is_https() { &self.https } else { &self.http };
        server.as_ref().filter(|_| !self.exempt.matches(&url.host(), url.port()))
    }
}

/// Hosts that are reached without the proxy.
#[derive(Clone, Debug, Default)]
struct Exempt {
    all: bool,
    networks: Vec<(IpAddr, u8)>,
    /// (name, port, whether names below it only).
    names: Vec<(String, Option<u16>, bool)>,
}

impl Exempt {
    /// Parses `no_proxy` as Go's `httpproxy` does.
    fn parse(text: &str) -> Self {
        let mut exempt = Self::default();
        for entry in text.split(',').map(|e| e.trim().to_ascii_lowercase()).filter(|e| !e.is_empty()) {
            if entry == "*" {
                exempt.all = true;
                continue;
            }
            let network =
                entry.split_once('/').map_or((entry.as_str(), None), |(ip, bits)| (ip, bits.parse().ok()));
            if let Ok(ip) = network.0.parse::<IpAddr>() {
                exempt.networks.push((ip, network.1.unwrap_or(if ip.is_ipv4() { 32 } else { 128 })));
                continue;
            }
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) => (name, port.parse().ok()),
                None => (entry.as_str(), None),
            };
            let name = name.strip_prefix('*').unwrap_or(name);
            let below_only = name.starts_with('.');
            exempt.names.push((name.trim_start_matches('.').to_owned(), port, below_only));
        }
        exempt
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.all || host == "localhost" {
            return true;
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return ip.is_loopback()
                || self.networks.iter().any(|(network, bits)| same_network(ip, *network, *bits));
        }
        self.names.iter().any(|(name, wanted, below_only)| {
            let below = host.strip_suffix(name.as_str()).is_some_and(|front| front.ends_with('.'));
            wanted.is_none_or(|p| p == port) && (below || (!below_only && host == name))
        })
    }
}

fn same_network(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let number = |ip| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((a, width), (b, other)) = (number(a), number(b));
    let bits = u32::from(bits).min(width);
    width == other && (bits == 0 || (a ^ b) >> (128 - bits) == 0)
}

/// Makes TCP connections.
#[derive(Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    proxy: Option<Proxy>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        // The clone that is left behind becomes ready again; the one that was polled is used.
        let fresh = self.http.clone();
        let mut http = std::mem::replace(&mut self.http, fresh);
        let proxy = self.proxy.clone();
        Box::pin(async move {
            let url = Url::parse(&target.to_string())?;
            let through = proxy.as_ref().and_then(|proxy| Some((proxy, proxy.server_for(&url)?)));
            let Some((proxy, server)) = through else {
                return Ok(Stream { io: http.call(target).await?, proxied: false });
            };
            let io = http
                .call(server.url.uri())
                .await
                .map_err(|e| format!("proxyconnect tcp: {}", super::chain(&e)))?;
            if url.is_https() {
                let mut io = io.into_inner();
                tunnel(&mut io, &url, server, &proxy.connect_headers).await?;
                return Ok(Stream { io: TokioIo::new(io), proxied: false });
            }
            Ok(Stream { io, proxied: true })
        })
    }
}

/// Asks the proxy at the other end of `io` for a tunnel to `url`.
async fn tunnel(io: &mut TcpStream, url: &Url, server: &Server, headers: &HeaderMap) -> Result<(), BoxError> {
    let host = url.host();
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host };
    let target = format!("{bracketed}:{}", url.port());
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    let own = server.authorization.iter().map(|value| (&PROXY_AUTHORIZATION, value));
    for (name, value) in own.chain(headers) {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    io.write_all(&request).await?;

    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        // Byte by byte: what follows the head belongs to the tunnel.
        answer.push(io.read_u8().await?);
        if answer.len() > MAX_CONNECT_ANSWER {
            return Err("the proxy's answer to CONNECT is too long".into());
        }
    }
    let head = String::from_utf8_lossy(&answer);
    let status = head.lines().next().unwrap_or("").to_owned();
    match status.split(' ').nth(1) {
        Some(code) if code.starts_with('2') => Ok(()),
        _ => {
            Err(format!("proxy refused to connect: {}", status.chars().take(200).collect::<String>()).into())
        }
    }
}

/// A TCP connection that knows whether requests on it must name the whole URL.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exempt_hosts() {
        let check = |list: &str, host: &str, want: bool| {
            assert_eq!(Exempt::parse(list).matches(host, 9090), want, "{list} {host}");
        };
        check("", "a.org", false);
        check("*", "a.org", true);
        check("a.org", "a.org", true);
        check("a.org", "x.a.org", true);
        check(".a.org", "a.org", false);
        check("*.a.org", "x.a.org", true);
        check("a.org:9090, b", "a.org", true);
        check("a.org:80", "a.org", false);
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("::/0", "10.1.2.3", false);
        check("", "localhost", true);
        check("", "127.0.0.1", true);
    }
}
