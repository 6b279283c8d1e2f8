//! A small HTTP server for tests: answers with a closure, keeps what it was asked, speaks TLS when told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What a server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_tls(None, handler).await
    }

    pub(crate) async fn with_tls(
        tls: Option<rustls::ServerConfig>,
        handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, handler) = (Arc::clone(&asked), Arc::new(handler));
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, handler, acceptor) = (Arc::clone(&log), Arc::clone(&handler), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, log, handler).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, log, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    /// What it was asked so far; forgotten then.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock())
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    log: Arc<Mutex<Vec<Asked>>>,
    handler: Arc<impl Fn(&Asked) -> Answer + Send + Sync + 'static>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
            let asked = Asked { uri: parts.uri.to_string(), headers: parts.headers, body };
            log.lock().push(asked.clone());
            Ok::<_, Infallible>(handler(&asked))
        }
    });
    // A client that goes away in the middle is no failure of a test.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await;
}

/// An answer with a content type and a body.
pub(crate) fn answer(content_type: &str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).boxed();
    Response::builder().header("content-type", content_type).body(body).unwrap()
}

/// An answer in Prometheus's text format.
pub(crate) fn text(body: impl Into<Bytes>) -> Answer {
    answer("text/plain; version=0.0.4", body)
}

/// A redirect.
pub(crate) fn redirect(location: &str) -> Answer {
    let mut answer = text("");
    *answer.status_mut() = http::StatusCode::FOUND;
    answer.headers_mut().insert("location", location.parse().unwrap());
    answer
}

/// A body without end.
pub(crate) fn endless(piece: &'static [u8]) -> Answer {
    let frames = futures::stream::repeat_with(move || Ok(http_body::Frame::data(Bytes::from_static(piece))));
    let mut answer = text("").map(|_| BoxBody::new(http_body_util::StreamBody::new(frames)));
    answer.headers_mut().remove("content-length");
    answer
}

/// A body that begins and never goes on.
pub(crate) fn stuck() -> Answer {
    let frames = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    text("").map(|_| BoxBody::new(http_body_util::StreamBody::new(frames)))
}

/// An answer whose body is `body` compressed.
pub(crate) fn gzip(body: &[u8]) -> Answer {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    let mut answer = text(encoder.finish().unwrap());
    answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    answer
}
