//! A TCP relay on loopback that stands between nodes, and between clients and nodes, and makes the network bad.
//!
//! Every node advertises an address of the relay, and clients use one too. The caller of a connection between nodes is
//! known by the first message of the handshake, which names it; so each direction between two nodes is a *link* of its
//! own, and a link's [`Condition`] holds for all connections between the two, whoever opened them: bytes from `a` to `b`
//! are calls that `a` makes and answers that it gives. That needs peers without TLS.
//!
//! A *hole* keeps what is sent, as a network that drops packets does: TCP sends them again, so after healing they arrive
//! late. A *cut* passes a number of bytes and then resets the connection. Every fault counts what it touched
//! ([`Counters`]), so that a test can tell that it happened. Datagrams lost, doubled or reordered are not made: TCP hides
//! them from both ends.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::random_query::Random;

/// Bytes that are relayed at once.
const PIECE: usize = 16 << 10;
/// Pieces under way in one direction of a connection; more makes the sender wait.
const PIECES: usize = 64;
/// The longest first message of a handshake between nodes.
const LONGEST_HELLO: usize = 1024;
/// Where the caller's node id stands in that message: behind magic, version, lane and cluster id.
const NODE_ID: std::ops::Range<usize> = 19..27;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// Whoever uses a node's client address.
    Client,
    /// The node of that number.
    Node(usize),
    /// A node that was not named yet ([`Proxy::name`]), or a caller that is none.
    Stranger,
}

/// How a link is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Nothing arrives until this is lifted.
    pub hole: bool,
    /// Every byte is under way for so long…
    pub delay: Duration,
    /// …and up to this much longer, at random.
    pub jitter: Duration,
    /// Bytes a second; `None` = no limit.
    pub bytes_per_second: Option<u64>,
}

impl Condition {
    /// Nothing arrives.
    pub fn hole() -> Self {
        Self { hole: true, ..Self::default() }
    }

    /// Slow: `delay` ± `jitter`.
    pub fn slow(delay: Duration, jitter: Duration) -> Self {
        Self { delay: delay.saturating_sub(jitter), jitter: jitter * 2, ..Self::default() }
    }

    /// So many bytes a second.
    pub fn narrow(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: Some(bytes_per_second), ..Self::default() }
    }
}

/// What faults have touched so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes relayed, whatever the condition.
    pub passed: u64,
    /// Bytes that met a hole.
    pub held: u64,
    /// Bytes that were delayed.
    pub delayed: u64,
    /// Bytes that waited for a limited link.
    pub limited: u64,
    /// Connections reset by [`Proxy::reset`].
    pub resets: u64,
    /// Connections reset in the middle of a message by [`Proxy::cut_after`].
    pub cuts: u64,
    /// Connections opened.
    pub connections: u64,
}

#[derive(Debug, Default)]
struct Link {
    condition: Condition,
    /// Bytes that still pass before the connection that carries them is reset.
    cut_after: Option<u64>,
    /// When a limited link is free again.
    free_at: Option<Instant>,
    counters: Counters,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Client,
    /// By its node id, which may be named later.
    Node(u64),
}

#[derive(Debug)]
struct Connection {
    caller: Caller,
    to: usize,
    /// Set to end it by a reset.
    reset: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    links: HashMap<(End, End), Link>,
    names: HashMap<u64, usize>,
    peers: HashMap<usize, SocketAddr>,
    clients: HashMap<usize, SocketAddr>,
    connections: Vec<Weak<Connection>>,
    random: Random,
    /// How links are when nothing else was said.
    standing: Condition,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// The relay. Its addresses stay the same while nodes come and go behind them.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    runtime: Runtime,
}

/// What becomes of a piece that was read.
struct Fate {
    due: Instant,
    /// How much of it goes on.
    pass: usize,
    /// The connection ends behind that.
    cut: bool,
}

impl Proxy {
    /// A relay whose jitter follows from `seed`.
    pub fn new(seed: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("proxy")
            .enable_all()
            .build()
            .context("the runtime of the relay")?;
        let state = State {
            links: HashMap::new(),
            names: HashMap::new(),
            peers: HashMap::new(),
            clients: HashMap::new(),
            connections: Vec::new(),
            random: Random::new(seed),
            standing: Condition::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::channel(0).0 });
        Ok(Self { shared, runtime })
    }

    /// Opens the address at which other nodes reach node `to`.
    pub fn peer_address(&self, to: usize) -> Result<String> {
        self.listen(to, true)
    }

    /// Opens the address at which clients reach node `to`.
    pub fn client_address(&self, to: usize) -> Result<String> {
        self.listen(to, false)
    }

    fn listen(&self, to: usize, peers: bool) -> Result<String> {
        let listener = self.runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&shared), near, to, peers));
            }
        });
        Ok(address.to_string())
    }

    /// Where node `to` really is: its port for peers and its port for clients. Connections to it are refused before.
    pub fn set_upstream(&self, to: usize, peers: &str, clients: &str) -> Result<()> {
        let mut state = self.shared.state.lock();
        state.peers.insert(to, peers.parse().with_context(|| format!("an address: {peers:?}"))?);
        state.clients.insert(to, clients.parse().with_context(|| format!("an address: {clients:?}"))?);
        Ok(())
    }

    /// From now on the node with id `id` is node `number`, on connections that are open already too.
    pub fn name(&self, id: u64, number: usize) {
        self.shared.state.lock().names.insert(id, number);
    }

    /// Sets how the link from one end to another is.
    pub fn set(&self, from: End, to: End, condition: Condition) {
        let mut state = self.shared.state.lock();
        let link = state.links.entry((from, to)).or_default();
        link.condition = condition;
        link.free_at = None;
        drop(state);
        self.shared.changed.send_modify(|version| *version += 1);
    }

    /// Sets how all links between nodes are that were used so far, and are again after [`Proxy::heal`].
    pub fn set_standing(&self, condition: &Condition) {
        self.shared.state.lock().standing = condition.clone();
        self.heal();
    }

    /// Sets how the links between two ends are, both ways.
    pub fn set_both(&self, a: End, b: End, condition: &Condition) {
        self.set(a, b, condition.clone());
        self.set(b, a, condition.clone());
    }

    /// All links are well again (or as they are anyway: [`Proxy::set_standing`]), and no cut is due any more.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock();
        let standing = state.standing.clone();
        for ((from, to), link) in &mut state.links {
            let clients = [*from, *to].contains(&End::Client);
            link.condition = if clients { Condition::default() } else { standing.clone() };
            link.free_at = None;
            link.cut_after = None;
        }
        drop(state);
        self.shared.changed.send_modify(|version| *version += 1);
    }

    /// Resets the connection that carries the byte after the next `bytes` from one end to the other.
    pub fn cut_after(&self, from: End, to: End, bytes: u64) {
        self.shared.state.lock().links.entry((from, to)).or_default().cut_after = Some(bytes);
    }

    /// Resets all connections between two ends, whoever opened them. Gives how many.
    pub fn reset(&self, a: End, b: End) -> u64 {
        let mut state = self.shared.state.lock();
        let open: Vec<Arc<Connection>> = state.connections.iter().filter_map(Weak::upgrade).collect();
        let mut count = 0;
        for connection in open {
            let from = state.end(connection.caller);
            let to = End::Node(connection.to);
            if (from, to) == (a, b) || (from, to) == (b, a) {
                connection.reset.send_replace(true);
                state.links.entry((from, to)).or_default().counters.resets += 1;
                count += 1;
            }
        }
        count
    }

    /// What was touched on the link from one end to another.
    pub fn link(&self, from: End, to: End) -> Counters {
        self.shared.state.lock().links.get(&(from, to)).map(|link| link.counters).unwrap_or_default()
    }

    /// What was touched on all links together.
    pub fn counters(&self) -> Counters {
        let state = self.shared.state.lock();
        state.links.values().fold(Counters::default(), |sum, link| {
            let one = link.counters;
            Counters {
                passed: sum.passed + one.passed,
                held: sum.held + one.held,
                delayed: sum.delayed + one.delayed,
                limited: sum.limited + one.limited,
                resets: sum.resets + one.resets,
                cuts: sum.cuts + one.cuts,
                connections: sum.connections + one.connections,
            }
        })
    }
}

impl State {
    fn end(&self, caller: Caller) -> End {
        match caller {
            Caller::Client => End::Client,
            Caller::Node(id) => self.names.get(&id).map_or(End::Stranger, |number| End::Node(*number)),
        }
    }
}

impl Shared {
    /// The link of a direction; `back` is from the one who was called.
    fn ends(state: &State, connection: &Connection, back: bool) -> (End, End) {
        let (caller, called) = (state.end(connection.caller), End::Node(connection.to));
        if back { (called, caller) } else { (caller, called) }
    }

    /// Decides about `len` bytes that were just read.
    fn decide(&self, connection: &Connection, back: bool, len: usize) -> Fate {
        let mut state = self.state.lock();
        let ends = Self::ends(&state, connection, back);
        let jitter = state.random.next();
        let link = state.links.entry(ends).or_default();
        let now = Instant::now();
        let bytes = len as u64;
        let mut due = now;
        if let Some(rate) = link.condition.bytes_per_second {
            let free = link.free_at.map_or(now, |at| at.max(now));
            due = free + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            link.free_at = Some(due);
            link.counters.limited += bytes;
        }
        let Condition { delay, jitter: spread, .. } = link.condition;
        if !delay.is_zero() || !spread.is_zero() {
            due += delay + spread.mul_f64((jitter % 1000) as f64 / 1000.0);
            link.counters.delayed += bytes;
        }
        link.counters.passed += bytes;
        match &mut link.cut_after {
            Some(left) if *left < bytes => {
                let pass = *left as usize;
                link.cut_after = None;
                link.counters.cuts += 1;
                Fate { due, pass, cut: true }
            }
            Some(left) => {
                *left -= bytes;
                Fate { due, pass: len, cut: false }
            }
            None => Fate { due, pass: len, cut: false },
        }
    }

    /// Returns once the link is no hole; `bytes` count as held if it was one.
    async fn wait_out_hole(&self, connection: &Connection, back: bool, bytes: usize) {
        let mut changed = self.changed.subscribe();
        let mut counted = false;
        loop {
            {
                let mut state = self.state.lock();
                let ends = Self::ends(&state, connection, back);
                let link = state.links.entry(ends).or_default();
                if !link.condition.hole {
                    return;
                }
                if !std::mem::replace(&mut counted, true) {
                    link.counters.held += bytes as u64;
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Closes by a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = stream.set_zero_linger();
}

async fn serve(shared: Arc<Shared>, mut near: TcpStream, to: usize, peers: bool) {
    let mut first = Vec::new();
    let caller = if peers {
        match hello(&mut near, &mut first).await {
            Some(id) => Caller::Node(id),
            None => return reset(&near),
        }
    } else {
        Caller::Client
    };
    let upstream = {
        let state = shared.state.lock();
        if peers { state.peers.get(&to).copied() } else { state.clients.get(&to).copied() }
    };
    let Some(upstream) = upstream else { return reset(&near) };
    let Ok(mut far) = TcpStream::connect(upstream).await else { return reset(&near) };
    // Without this every small message would wait for the acknowledgement of the one before.
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let (sender, mut resets) = watch::channel(false);
    let connection = Arc::new(Connection { caller, to, reset: sender });
    {
        let mut state = shared.state.lock();
        state.connections.retain(|weak| weak.strong_count() > 0);
        state.connections.push(Arc::downgrade(&connection));
        let ends = Shared::ends(&state, &connection, false);
        state.links.entry(ends).or_default().counters.connections += 1;
    }
    let ended = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let there = pump(&shared, &connection, false, near_read, far_write, first);
        let back = pump(&shared, &connection, true, far_read, near_write, Vec::new());
        tokio::select! {
            both = async { tokio::try_join!(there, back) } => both.is_ok(),
            _ = resets.wait_for(|reset| *reset) => false,
        }
    };
    if !ended {
        reset(&near);
        reset(&far);
    }
}

/// The first message of a caller, kept in `bytes`; gives the node id in it.
async fn hello(near: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<u64> {
    let mut len = [0; 2];
    near.read_exact(&mut len).await.ok()?;
    let size = usize::from(u16::from_be_bytes(len));
    if size > LONGEST_HELLO {
        return None;
    }
    bytes.extend_from_slice(&len);
    bytes.resize(2 + size, 0);
    near.read_exact(&mut bytes[2..]).await.ok()?;
    let id = bytes[2..].get(NODE_ID)?;
    Some(u64::from_be_bytes(id.try_into().ok()?))
}

/// Relays one direction, `first` before everything, until its end, which is passed on; an error is a broken connection.
async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    shared: &Shared,
    connection: &Connection,
    back: bool,
    mut from: R,
    mut to: W,
    first: Vec<u8>,
) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Fate, Vec<u8>)>(PIECES);
    let read = async move {
        let mut bytes = first;
        loop {
            if !bytes.is_empty() {
                let fate = shared.decide(connection, back, bytes.len());
                if sender.send((fate, std::mem::take(&mut bytes))).await.is_err() {
                    return Ok(());
                }
            }
            bytes.resize(PIECE, 0);
            let len = from.read(&mut bytes).await?;
            bytes.truncate(len);
            if len == 0 {
                return Ok(());
            }
        }
    };
    let write = async move {
        let mut last = Instant::now();
        while let Some((Fate { due, pass, cut }, bytes)) = pieces.recv().await {
            // Jitter does not reorder a stream.
            last = last.max(due);
            tokio::time::sleep_until(last).await;
            shared.wait_out_hole(connection, back, bytes.len()).await;
            to.write_all(&bytes[..pass]).await?;
            if cut {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
        shared.wait_out_hole(connection, back, 0).await;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|((), ())| ())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A server that sends back what it gets; gives its address.
    fn echo() -> SocketAddr {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(len @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn hello_of(id: u64) -> Vec<u8> {
        let mut bytes = vec![0, 40];
        bytes.resize(2 + 40, 7);
        bytes[2 + NODE_ID.start..2 + NODE_ID.end].copy_from_slice(&id.to_be_bytes());
        bytes
    }

    fn proxy() -> (Proxy, std::net::TcpStream) {
        let proxy = Proxy::new(1).unwrap();
        let (peers, clients) = (proxy.peer_address(1).unwrap(), proxy.client_address(1).unwrap());
        assert_ne!(peers, clients);
        let echo = echo().to_string();
        proxy.set_upstream(1, &echo, &echo).unwrap();
        let stream = std::net::TcpStream::connect(peers).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        (proxy, stream)
    }

    fn exchange(stream: &mut std::net::TcpStream, bytes: &[u8]) -> Vec<u8> {
        stream.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).unwrap();
        back
    }

    #[test]
    fn the_caller_is_known_by_its_handshake() {
        let (proxy, mut stream) = proxy();
        proxy.name(0xabcd, 0);
        let hello = hello_of(0xabcd);
        assert_eq!(exchange(&mut stream, &hello), hello);
        let link = proxy.link(End::Node(0), End::Node(1));
        assert_eq!((link.passed, link.connections), (42, 1));
        assert_eq!(proxy.link(End::Node(1), End::Node(0)).passed, 42);
        assert_eq!(proxy.link(End::Stranger, End::Node(1)), Counters::default());
    }

    #[test]
    fn a_hole_is_one_way_and_what_it_kept_arrives_late() {
        let (proxy, mut stream) = proxy();
        exchange(&mut stream, &hello_of(5));
        proxy.name(5, 0);
        proxy.set(End::Node(1), End::Node(0), Condition::hole());
        stream.write_all(b"ping").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut back = [0; 4];
        assert!(stream.read_exact(&mut back).is_err(), "nothing comes back");
        assert_eq!(proxy.link(End::Node(1), End::Node(0)).held, 4);
        assert_eq!(proxy.link(End::Node(0), End::Node(1)).held, 0, "the other direction is open");
        proxy.heal();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }

    #[test]
    fn slow_and_narrow_links_take_their_time() {
        let (proxy, mut stream) = proxy();
        exchange(&mut stream, &hello_of(5));
        proxy.name(5, 0);
        proxy.set(
            End::Node(0),
            End::Node(1),
            Condition::slow(Duration::from_millis(80), Duration::from_millis(30)),
        );
        let before = Instant::now();
        exchange(&mut stream, b"ping");
        assert!(before.elapsed() >= Duration::from_millis(50));
        proxy.set(End::Node(0), End::Node(1), Condition::narrow(100_000));
        let before = Instant::now();
        exchange(&mut stream, &vec![1; 20_000]);
        assert!(before.elapsed() >= Duration::from_millis(190), "{:?}", before.elapsed());
        let link = proxy.counters();
        assert_eq!((link.delayed, link.limited), (4, 20_000));
    }

    #[test]
    fn connections_are_reset_and_cut_where_asked() {
        let (proxy, mut stream) = proxy();
        exchange(&mut stream, &hello_of(5));
        proxy.name(5, 0);
        proxy.cut_after(End::Node(0), End::Node(1), 6);
        assert_eq!(exchange(&mut stream, b"ping"), b"ping");
        stream.write_all(b"pong").unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_err() && rest.len() <= 2, "{ended:?} {rest:?}");
        assert_eq!(proxy.counters().cuts, 1);

        let clients = proxy.client_address(1).unwrap();
        let mut stream = std::net::TcpStream::connect(clients).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        exchange(&mut stream, b"ping");
        assert_eq!(proxy.reset(End::Client, End::Node(1)), 1);
        assert!(stream.read_to_end(&mut rest).is_err());
        assert_eq!(proxy.counters().resets, 1);
    }
}
