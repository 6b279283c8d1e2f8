//! The peer port: accepting connections, TLS, handshake, then gRPC over HTTP/2.
//!
//! Nothing of HTTP/2 is read before the handshake went well. Whoever has not finished it in time is dropped, and only so
//! many may be in it at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::answer::Answerer;
use crate::connect::{CONNECTION_WINDOW, MAX_MESSAGE, On, PING_AFTER, PING_LIMIT, STREAM_WINDOW, refresh};
use crate::handshake::{self, HandshakeError};
use crate::identity::{Identity, Lane, Me};
use crate::io::{Counted, Stream};
use crate::metrics::{Metrics, PeerLane};
use crate::pace::Pace;
use crate::peers::Runtimes;
use crate::security::Security;
use crate::service::PeerService;
use crate::wire::peer_server::PeerServer;

/// Connections in TLS or handshake at a time.
const GREETINGS: usize = 64;

/// Between two lines of the log about refused connections: strangers must not fill a disk with them.
const REFUSALS_SAID: Duration = Duration::from_secs(5);

/// What was said of refused connections.
#[derive(Default)]
struct Refusals {
    said: Option<Instant>,
    unsaid: u64,
}

/// How the peer port is served.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// How long TLS and handshake may take. Default 3 s.
    pub handshake_limit: Duration,
    /// Open connections. Default 1024.
    pub max_connections: usize,
    /// Bytes a second that snapshots may take, all together; 0 = no limit. Default 64 MiB.
    pub snapshot_bytes_per_second: u64,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            handshake_limit: Duration::from_secs(3),
            max_connections: 1024,
            snapshot_bytes_per_second: 64 << 20,
        }
    }
}

/// A served port; dropping it closes the port and every connection to it.
#[derive(Debug)]
pub struct Serving {
    task: JoinHandle<()>,
    close: tokio::sync::watch::Sender<bool>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close.send_replace(true);
        self.task.abort();
    }
}

struct Port {
    service: Arc<dyn PeerService>,
    me: Me,
    security: Security,
    config: ServeConfig,
    runtimes: Runtimes,
    metrics: Metrics,
    pace: Arc<Pace>,
    open: AtomicUsize,
    refusals: Mutex<Refusals>,
    close: tokio::sync::watch::Receiver<bool>,
}

/// Answers peers at `listener` until the answer is dropped. Connections of the control lane run on Raft's runtime.
pub fn serve(
    listener: TcpListener,
    service: Arc<dyn PeerService>,
    me: Me,
    security: Security,
    config: ServeConfig,
    runtimes: Runtimes,
    metrics: Metrics,
) -> Serving {
    let (close, closed) = tokio::sync::watch::channel(false);
    let pace = Arc::new(Pace::new(config.snapshot_bytes_per_second));
    let open = AtomicUsize::new(0);
    let data = runtimes.data.clone();
    let refusals = Mutex::default();
    let port = Port { service, me, security, config, runtimes, metrics, pace, open, refusals, close: closed };
    let port = Arc::new(port);
    Serving { task: data.spawn(accept(listener, port)), close }
}

async fn accept(listener: TcpListener, port: Arc<Port>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS));
    loop {
        let Ok(turn) = Arc::clone(&greetings).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, say: others end meanwhile.
                tracing::warn!(%error, "a peer's connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let port = Arc::clone(&port);
        port.runtimes.data.clone().spawn(async move {
            if port.open.load(Ordering::Relaxed) >= port.config.max_connections {
                port.metrics.refuse("too_many_connections");
                return;
            }
            let greeted = tokio::time::timeout(port.config.handshake_limit, port.greet(stream)).await;
            drop(turn);
            match greeted {
                Ok(Ok((stream, peer, lane))) => port.clone().connected(stream, peer, lane),
                Ok(Err((kind, reason))) => {
                    port.metrics.refuse(kind);
                    port.say_refused(from, &reason);
                }
                Err(_) => {
                    port.metrics.refuse("timeout");
                    tracing::debug!(%from, "a connection to the peer port did not greet in time");
                }
            }
        });
    }
}

impl Port {
    /// Logs a refusal, unless one was logged a moment ago; the next line then says how many were not.
    fn say_refused(&self, from: SocketAddr, reason: &str) {
        let mut refusals = self.refusals.lock();
        if refusals.said.is_some_and(|at| at.elapsed() < REFUSALS_SAID) {
            refusals.unsaid += 1;
            return;
        }
        let unsaid = refusals.unsaid;
        *refusals = Refusals { said: Some(Instant::now()), unsaid: 0 };
        tracing::warn!(%from, %reason, unsaid, "a connection to the peer port was refused");
    }

    /// TLS and handshake; or what kind of thing went wrong, and what.
    async fn greet(&self, stream: TcpStream) -> Result<(Stream, Identity, Lane), (&'static str, String)> {
        stream.set_nodelay(true).map_err(|error| ("io", error.to_string()))?;
        let mut stream: Stream = match &self.security.tls {
            None => Box::new(stream),
            Some(tls) => {
                refresh(tls, &self.metrics).await;
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.current().server));
                let stream = acceptor.accept(stream).await.map_err(|error| ("tls", error.to_string()))?;
                tls.check_caller(stream.get_ref().1.peer_certificates())
                    .map_err(|reason| ("certificate", reason))?;
                Box::new(stream)
            }
        };
        let me = self.me.load_full();
        match handshake::answer_call(&mut stream, &me, &self.security.secret).await {
            Ok((peer, lane)) => Ok((stream, peer, lane)),
            Err(HandshakeError::Refused(reason)) => Err(("refused", reason)),
            Err(HandshakeError::Io(error)) => Err(("io", error.to_string())),
        }
    }

    /// Serves the connection on the runtime of its lane, until it ends or the port is closed.
    fn connected(self: Arc<Self>, stream: Stream, peer: Identity, lane: Lane) {
        let runtime = match lane {
            Lane::Control => self.runtimes.raft.clone(),
            Lane::Data | Lane::Request => self.runtimes.data.clone(),
        };
        let which = PeerLane::new(peer.node, lane);
        let stream = Counted {
            stream,
            sent: self.metrics.sent.get_or_create_owned(&which),
            received: self.metrics.received.get_or_create_owned(&which),
        };
        let on = On(runtime.clone());
        runtime.spawn(async move {
            self.open.fetch_add(1, Ordering::Relaxed);
            self.metrics.accepted.inc();
            let answerer =
                Answerer { service: Arc::clone(&self.service), peer, pace: Arc::clone(&self.pace) };
            let service = PeerServer::new(answerer).max_decoding_message_size(MAX_MESSAGE);
            let connection = Builder::new(on)
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_AFTER * 5)
                .keep_alive_timeout(PING_LIMIT * 3)
                .initial_stream_window_size(STREAM_WINDOW * 4)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(64 << 10)
                .max_concurrent_streams(1024)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            let mut close = self.close.clone();
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "a peer's connection ended");
                },
                // An error means that the port is gone.
                _ = close.wait_for(|closed| *closed) => {}
            }
            self.metrics.accepted.dec();
            self.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
