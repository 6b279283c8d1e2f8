//! One connection to a peer: name resolution, TCP, TLS, handshake, HTTP/2.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::NodeId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use crate::error::PeerError;
use crate::handshake::{self, HandshakeError};
use crate::identity::{Identity, Lane, WIRE_VERSION};
use crate::io::{Counted, Stream};
use crate::metrics::{Metrics, PeerLane};
use crate::security::{Security, Tls};
use crate::wire::peer_client::PeerClient;

/// What an idle connection waits before it makes sure that the other end is there.
pub(crate) const PING_AFTER: Duration = Duration::from_secs(2);
/// How long the answer to that may take.
pub(crate) const PING_LIMIT: Duration = Duration::from_secs(3);
/// Unread bytes of one stream.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// Unread bytes of one connection: never what holds a stream up, since those who do not read would stop the others.
pub(crate) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Bytes that one message may have, in requests; and what frames are bounded for.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
/// Bytes that one answer to a look or fragment may have.
pub(crate) const MAX_ANSWER: usize = 64 << 20;

/// Makes calls over a connection.
pub(crate) type Client = PeerClient<Channel>;

/// The sending side of a connection, as tonic's clients want it.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Runs hyper's tasks on a given runtime.
#[derive(Clone, Debug)]
pub(crate) struct On(pub(crate) Handle);

impl<F> hyper::rt::Executor<F> for On
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// What a connection is made with.
pub(crate) struct Dial<'a> {
    pub(crate) me: Arc<Identity>,
    pub(crate) security: &'a Security,
    pub(crate) lane: Lane,
    /// Who must be at the other end; `None` = whoever it is.
    pub(crate) expected: Option<NodeId>,
    pub(crate) address: &'a str,
    pub(crate) limit: Duration,
    pub(crate) metrics: &'a Metrics,
}

impl Dial<'_> {
    pub(crate) fn peer(&self) -> String {
        match self.expected {
            Some(node) => format!("{:016x} at {}", node.0, self.address),
            None => self.address.to_owned(),
        }
    }

    /// Connects, on the current runtime. Gives the client and who is at the other end.
    pub(crate) async fn connect(&self) -> Result<(Client, Identity), PeerError> {
        let connected = match tokio::time::timeout(self.limit, self.steps()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unreachable(&format!("no connection within {:?}", self.limit))),
        };
        if let Some(node) = self.expected {
            let which = PeerLane::new(node, self.lane);
            match connected {
                Ok(_) => self.metrics.connects.get_or_create(&which).inc(),
                Err(_) => self.metrics.connect_failures.get_or_create(&which).inc(),
            };
        }
        connected
    }

    fn unreachable(&self, reason: &(impl ToString + ?Sized)) -> PeerError {
        PeerError::Unreachable { peer: self.peer(), reason: reason.to_string() }
    }

    async fn steps(&self) -> Result<(Client, Identity), PeerError> {
        let stream = self.tcp().await.map_err(|error| self.unreachable(&error))?;
        let mut stream: Stream = match &self.security.tls {
            None => Box::new(stream),
            Some(tls) => {
                refresh(tls, self.metrics).await;
                let connector = TlsConnector::from(Arc::clone(&tls.current().client));
                let stream = connector.connect(tls.name(), stream).await;
                Box::new(stream.map_err(|error| self.unreachable(&format!("TLS: {error}")))?)
            }
        };
        let met =
            handshake::call(&mut stream, &self.me, &self.security.secret, self.lane, WIRE_VERSION).await;
        let peer = met.map_err(|error| match error {
            HandshakeError::Io(error) => self.unreachable(&format!("handshake: {error}")),
            HandshakeError::Refused(reason) => PeerError::Refused { peer: self.peer(), reason },
        })?;
        if self.expected.is_some_and(|node| node != peer.node) {
            let reason = format!("node {:016x} is at its address now", peer.node.0);
            return Err(PeerError::Refused { peer: self.peer(), reason });
        }
        let which = PeerLane::new(peer.node, self.lane);
        let counted = Counted {
            stream,
            sent: self.metrics.sent.get_or_create_owned(&which),
            received: self.metrics.received.get_or_create_owned(&which),
        };
        let here = On(Handle::current());
        let (sender, connection) = Builder::new(here.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(64 << 10)
            .handshake(TokioIo::new(counted))
            .await
            .map_err(|error| self.unreachable(&error))?;
        let open = self.metrics.connections.get_or_create_owned(&which);
        let label = self.peer();
        open.inc();
        here.0.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(peer = %label, %error, "a connection to a peer ended");
            }
            open.dec();
        });
        let origin = Uri::from_static("http://peer");
        let client = PeerClient::with_origin(Channel(sender), origin)
            .max_decoding_message_size(MAX_ANSWER)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok((client, peer))
    }

    /// The first address of the name that takes a connection; names are looked up each time, since they move.
    async fn tcp(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host(self.address).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Takes changed certificates into use. When they cannot be used the old ones stay, and somebody has to be told.
pub(crate) async fn refresh(tls: &Arc<Tls>, metrics: &Metrics) {
    let tls = Arc::clone(tls);
    let refreshed = tokio::task::spawn_blocking(move || tls.refresh()).await;
    match refreshed {
        Ok(Ok(true)) => {
            metrics.certificate_reloads.inc();
            tracing::info!("the peers' certificate files changed and are in use");
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) => {
            metrics.certificate_errors.inc();
            tracing::warn!(%error, "changed certificate files cannot be used, the old ones stay");
        }
        Err(error) => tracing::warn!(%error, "certificate files were not looked at"),
    }
}
