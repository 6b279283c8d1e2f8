//! Connections: accepting them up to a limit, TLS, HTTP/1 and HTTP/2, closing them in order at shutdown.
//!
//! A client that is slow to send the head of a request is closed after a time; one that is slow with a body gets 408
//! from the reader of the body; one that does not take its answer is closed; idle connections end with the head's timeout,
//! and before that when others want to connect and there are as many as may be (`open`).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::metrics::{ApiMetrics, ReasonLabel};
use crate::open::{Answer, Connection, Connections, Patience};

/// The TLS settings for the next handshake; asked for each, so that new certificates take effect at once.
pub type TlsSource = Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// The address of the other end of a request's connection, among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub SocketAddr);

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// Most connections at a time over all listeners. When one more comes, the one without a request for longest is
    /// closed; while all have requests under way it waits. Default 512.
    pub max_connections: usize,
    /// Longest time for the head of a request, the wait for the next one on an open connection, and a TLS
    /// handshake. Default 5 m for the head; a handshake gets at most 10 s.
    pub head_timeout: Duration,
    /// Longest time for a client to take a piece of an answer (64 KiB as a rule), beside what `answer_rate` gives it.
    /// Default 30 s.
    pub answer_timeout: Duration,
    /// Bytes of such a piece that may take a second more. Default 1 KiB.
    pub answer_rate: u64,
    /// Largest head, bytes. Default 128 KiB: a query text of 64 KiB in its URL fits, percent-encoded.
    pub max_head_bytes: usize,
    /// How long requests may go on once shutdown began. Default 10 s.
    pub drain: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            head_timeout: Duration::from_secs(300),
            answer_timeout: Duration::from_secs(30),
            answer_rate: 1 << 10,
            max_head_bytes: 128 << 10,
            drain: Duration::from_secs(10),
        }
    }
}

struct Shared {
    router: Router,
    tls: Option<TlsSource>,
    limits: ListenLimits,
    metrics: ApiMetrics,
    slots: Arc<Semaphore>,
    open: Arc<Connections>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Serves `router` on all `listeners` until `shutdown` is cancelled; then stops accepting, lets requests under way
/// end for the drain time, and returns. With `tls` every connection must speak TLS.
///
/// # Errors
/// When a listener is broken for good.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    tls: Option<TlsSource>,
    limits: ListenLimits,
    metrics: ApiMetrics,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        router,
        tls,
        limits,
        metrics,
        slots: Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS))),
        open: Arc::default(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
    });
    let accepting = listeners.into_iter().map(|listener| accept_loop(Arc::clone(&shared), listener));
    let result = futures::future::try_join_all(accepting).await;
    shutdown.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests were cut off at shutdown");
    }
    result.map(|_| ())
}

async fn accept_loop(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let slot = tokio::select! {
                    () = shared.shutdown.cancelled() => return Ok(()),
                    slot = slot(&shared) => slot,
                };
                let task = connection(Arc::clone(&shared), stream, client, slot);
                shared.tasks.spawn(task);
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors, most likely: closing connections heals it.
                tracing::warn!(%error, "cannot accept connections just now");
                shared.metrics.connections_refused.get_or_create(&ReasonLabel { reason: "accept" }).inc();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A place for one more connection; others are closed for it where they have no request.
async fn slot(shared: &Shared) -> OwnedSemaphorePermit {
    const AGAIN: Duration = Duration::from_millis(100);
    loop {
        if let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() {
            return slot;
        }
        shared.open.close_one();
        // With none to close: until a request is over, which nobody tells.
        if let Ok(Ok(slot)) = tokio::time::timeout(AGAIN, Arc::clone(&shared.slots).acquire_owned()).await {
            return slot;
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr, _slot: OwnedSemaphorePermit) {
    struct Open<'a>(&'a ApiMetrics);
    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.connections.dec();
        }
    }
    shared.metrics.connections.inc();
    let _open = Open(&shared.metrics);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off delays of a connection");
    }
    let open = Arc::new(shared.open.open());
    let reason = tokio::select! {
        () = talk(&shared, stream, client, &open) => return,
        () = open.closed() => "idle",
        () = open.unread(shared.limits.answer_timeout) => "unread",
    };
    shared.metrics.connections_refused.get_or_create(&ReasonLabel { reason }).inc();
}

async fn talk(shared: &Shared, stream: TcpStream, client: SocketAddr, open: &Arc<Connection>) {
    let Some(tls) = &shared.tls else { return speak(shared, stream, client, open).await };
    let patience = shared.limits.head_timeout.min(Duration::from_secs(10));
    match tokio::time::timeout(patience, TlsAcceptor::from(tls()).accept(stream)).await {
        Ok(Ok(stream)) => speak(shared, stream, client, open).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            shared.metrics.connections_refused.get_or_create(&ReasonLabel { reason: "tls" }).inc();
        }
        Err(_) => {
            shared.metrics.connections_refused.get_or_create(&ReasonLabel { reason: "tls_timeout" }).inc();
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: &Shared,
    stream: S,
    client: SocketAddr,
    open: &Arc<Connection>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head_bytes = shared.limits.max_head_bytes.max(8 << 10);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_timeout)
        .max_buf_size(head_bytes)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(250)
        .keep_alive_interval(Some(Duration::from_secs(60)));
    let router = shared.router.clone();
    let open = Arc::clone(open);
    let patience = Patience { least: shared.limits.answer_timeout, rate: shared.limits.answer_rate };
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ClientAddress(client));
        let (under_way, router) = (open.begin(), router.clone());
        async move {
            let response = router.oneshot(request).await?;
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, under_way, patience)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
