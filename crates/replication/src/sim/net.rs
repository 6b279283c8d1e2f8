//! The simulated network: calls between nodes as parcels on connections, which wait, are cut, torn and held up.
//!
//! Parcels of one connection arrive in order, as over TCP; those of different connections overtake each other. Behind a
//! cut nothing arrives and nobody is told; after a second of that the connection is torn, as `rpc` does with a silent
//! one. A node that was killed refuses at once, one without power says nothing, one that is frozen takes parcels in when
//! it wakes. Nothing is doubled by the network itself; what is sent again while the first copy is under way is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use model::seam::{BoxFuture, SelectRequest, SeriesExemplars, SeriesIter, SeriesSource, ShardBatch};
use model::{Failure, Labels, MetricMetadata, NodeId, ShardId, TenantId};
use parking_lot::Mutex;
use rpc::convert::report::WriteAnswer;
use rpc::{Lane, Need, PeerError, PeerService};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::entropy::{Rng, fold};
use crate::calls::{Calls, Pieces, ReadIndexes};
use crate::peer_service::Answerer;
use crate::wire::{Answer, Message};

/// How long a connection over which nothing arrives is kept, ms.
const TORN_AFTER: u64 = 1000;
/// How long a machine may be silent before its connections break: `rpc` pings them.
const SILENT_FOR: u64 = 5000;
/// The lane of connections that are made for one question.
const OWN: u8 = 3;

fn number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Data => 1,
        Lane::Request => 2,
    }
}

/// What is asked of a node.
#[derive(Clone)]
enum Question {
    Raft { group: u64, message: Bytes },
    Write { shard: ShardId, batch: Arc<ShardBatch>, limit: Duration },
    ReadIndex(Vec<ShardId>),
    Fragment(Bytes),
    Meta(Bytes),
    Snapshot(Bytes),
}

/// What it answers.
enum Reply {
    Bytes(Bytes),
    Write(WriteAnswer),
    Indexes(ReadIndexes),
    Pieces(Vec<Bytes>),
}

type Told = Result<Reply, PeerError>;
type Waiter = oneshot::Sender<Told>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wire {
    from: usize,
    to: usize,
    lane: u8,
}

enum Body {
    Ask { question: Question, limit: Duration },
    Tell { told: Told, is_vote: bool },
}

struct Parcel {
    sent: u64,
    due: u64,
    /// The life of the node that asked.
    life: u64,
    waiter: Waiter,
    body: Body,
}

/// A node as the network knows it.
#[derive(Default)]
struct Site {
    address: String,
    /// Counts its starts.
    life: u64,
    /// `None` when it does not run.
    running: Option<Running>,
    /// Whether nobody is even refused: there is no power.
    silent: bool,
    frozen: bool,
}

struct Running {
    service: Arc<Answerer>,
    handle: Handle,
    me: rpc::Me,
}

#[derive(Default)]
struct State {
    now: u64,
    sites: Vec<Site>,
    wires: BTreeMap<Wire, VecDeque<Parcel>>,
    /// Directions in which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    /// More delay of each parcel, ms: least and most.
    slow: Option<(u64, u64)>,
    /// Who waits for what will never come, and until when.
    lost: VecDeque<(u64, Waiter)>,
    /// For whom replicas voted, by replica and term.
    votes: BTreeMap<(u64, u64), u64>,
    /// Whether the next vote that arrives is waited for, and that vote: whose it is, and where it arrived.
    awaits_vote: bool,
    vote: Option<(usize, usize)>,
    trace: Vec<String>,
    trace_hash: u64,
    seen: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

/// The network.
pub(crate) struct Net {
    state: Mutex<State>,
    rng: Mutex<Rng>,
}

impl Net {
    pub(crate) fn new(nodes: usize, rng: Rng) -> Arc<Self> {
        let mut state = State::default();
        state.sites.resize_with(nodes, Site::default);
        Arc::new(Self { state: Mutex::new(state), rng: Mutex::new(rng) })
    }

    /// The calls of node `from` in its present life.
    pub(crate) fn calls(self: &Arc<Self>, from: usize, me: rpc::Me) -> Arc<SimCalls> {
        let life = self.state.lock().sites[from].life;
        let (net, born) = (Arc::clone(self), Instant::now());
        let (addresses, answered) = (Mutex::default(), Mutex::default());
        Arc::new(SimCalls { net, from, life, me, addresses, born, answered })
    }

    /// Node `at` begins a life at `address`.
    pub(crate) fn arrive(&self, at: usize, address: &str) {
        let site = &mut self.state.lock().sites[at];
        address.clone_into(&mut site.address);
        site.life += 1;
    }

    /// From now on node `at` answers.
    pub(crate) fn listen(&self, at: usize, service: Arc<Answerer>, handle: Handle, me: rpc::Me) {
        let site = &mut self.state.lock().sites[at];
        site.running = Some(Running { service, handle, me });
        site.silent = false;
        site.frozen = false;
    }

    /// Node `at` is gone; `silent`: its machine too.
    pub(crate) fn leave(&self, at: usize, silent: bool) {
        let mut state = self.state.lock();
        let site = &mut state.sites[at];
        site.running = None;
        site.silent = silent;
        site.frozen = false;
        let wires: Vec<Wire> =
            state.wires.keys().filter(|wire| wire.from == at || wire.to == at).copied().collect();
        for wire in wires {
            let parcels = state.wires.remove(&wire).unwrap_or_default();
            if silent {
                let until = state.now + SILENT_FOR;
                state.lost.extend(parcels.into_iter().map(|parcel| (until, parcel.waiter)));
            }
        }
    }

    pub(crate) fn freeze(&self, at: usize, frozen: bool) {
        self.state.lock().sites[at].frozen = frozen;
    }

    /// Cuts or heals the direction from `from` to `to`.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        let mut state = self.state.lock();
        if cut {
            state.cut.insert((from, to));
        } else {
            state.cut.remove(&(from, to));
        }
    }

    pub(crate) fn slow(&self, slow: Option<(u64, u64)>) {
        self.state.lock().slow = slow;
    }

    /// Resets all connections between two nodes.
    pub(crate) fn reset(&self, one: usize, other: usize) {
        let mut state = self.state.lock();
        let before: usize = state.wires.values().map(VecDeque::len).sum();
        state
            .wires
            .retain(|wire, _| (wire.from, wire.to) != (one, other) && (wire.from, wire.to) != (other, one));
        let after: usize = state.wires.values().map(VecDeque::len).sum();
        *state.seen.entry("parcels reset").or_default() += (before - after) as u64;
    }

    /// Ends all faults of the network.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.slow = None;
        state.awaits_vote = false;
    }

    /// A line of the trace.
    pub(crate) fn note(&self, line: &str) {
        self.state.lock().note(line);
    }

    pub(crate) fn trace(&self) -> (u64, Vec<String>) {
        let mut state = self.state.lock();
        (state.trace_hash, std::mem::take(&mut state.trace))
    }

    /// What happened, and how often.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().seen.clone()
    }

    /// Violations seen in messages, taken out.
    pub(crate) fn violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().violations)
    }

    /// Waits for the next vote that is given.
    pub(crate) fn watch_for_vote(&self) {
        self.state.lock().awaits_vote = true;
    }

    /// The vote that was waited for, taken out: the voter, and where it has just arrived.
    pub(crate) fn vote(&self) -> Option<(usize, usize)> {
        self.state.lock().vote.take()
    }

    /// Hands over what is due at `now`.
    pub(crate) fn deliver(self: &Arc<Self>, now: u64) {
        let mut state = self.state.lock();
        state.now = now;
        while state.lost.front().is_some_and(|(until, _)| *until <= now) {
            state.lost.pop_front();
        }
        let wires: Vec<Wire> = state.wires.keys().copied().collect();
        for wire in wires {
            self.deliver_wire(&mut state, wire, now);
        }
        state.wires.retain(|_, parcels| !parcels.is_empty());
    }

    fn deliver_wire(self: &Arc<Self>, state: &mut State, wire: Wire, now: u64) {
        loop {
            let Some(parcels) = state.wires.get_mut(&wire) else { return };
            let Some(front) = parcels.front() else { return };
            if front.due > now || state.sites[wire.to].frozen {
                return;
            }
            if state.cut.contains(&(wire.from, wire.to)) {
                if now - front.sent >= TORN_AFTER {
                    *state.seen.entry("parcels lost").or_default() += parcels.len() as u64;
                    parcels.clear();
                }
                return;
            }
            let Some(parcel) = parcels.pop_front() else { return };
            self.arrived(state, wire, parcel);
        }
    }

    fn arrived(self: &Arc<Self>, state: &mut State, wire: Wire, parcel: Parcel) {
        let Parcel { life, waiter, body, .. } = parcel;
        let line = format!("{} {}>{} {} {}", state.now, wire.from, wire.to, wire.lane, body);
        state.note(&line);
        match body {
            Body::Ask { question, limit } => {
                let site = &state.sites[wire.to];
                let Some(running) = &site.running else {
                    if site.silent {
                        state.lost.push_back((state.now + SILENT_FOR, waiter));
                    }
                    return;
                };
                let asker = state.sites[wire.from].running.as_ref();
                let Some(from) = asker.map(|asker| asker.me.load_full()) else { return };
                let here = running.me.load();
                if from.cluster_id != here.cluster_id && from.cluster_id != 0 && here.cluster_id != 0 {
                    let reason = "the nodes belong to two clusters".to_owned();
                    let refused = PeerError::Refused { peer: site.address.clone(), reason };
                    // Whoever asked may be gone.
                    let _ = waiter.send(Err(refused));
                    return;
                }
                let (net, service) = (Arc::clone(self), Arc::clone(&running.service));
                let back = Wire { from: wire.to, to: wire.from, lane: wire.lane };
                running.handle.spawn(async move {
                    let mut is_vote = false;
                    let answer = net.answer(&service, &from, question, &mut is_vote);
                    // Late answers go nowhere, as when the caller has given up.
                    if let Ok(told) = tokio::time::timeout(limit, answer).await {
                        net.send(back, life, waiter, Body::Tell { told, is_vote });
                    }
                });
            }
            Body::Tell { told, is_vote } => {
                if is_vote && std::mem::take(&mut state.awaits_vote) {
                    state.vote = Some((wire.from, wire.to));
                }
                if state.sites[wire.to].life == life {
                    // Whoever asked may have given up.
                    let _ = waiter.send(told);
                }
            }
        }
    }

    async fn answer(
        &self,
        service: &Answerer,
        from: &rpc::Identity,
        question: Question,
        is_vote: &mut bool,
    ) -> Told {
        let told = match question {
            Question::Raft { group, message } => {
                let answer = service.raft(from.node, group, message.clone()).await;
                answer.map(|answer| {
                    *is_vote = self.watch_vote(group, &message, &answer);
                    Reply::Bytes(answer.into())
                })
            }
            Question::Write { shard, batch, limit } => {
                let batch = ShardBatch::clone(&batch);
                Ok(Reply::Write(service.write(from.node, shard, batch, limit).await))
            }
            Question::ReadIndex(shards) => Ok(Reply::Indexes(service.read_index(shards).await)),
            Question::Fragment(fragment) => {
                service.fragment(from.node, fragment).await.map(|partial| Reply::Bytes(partial.into()))
            }
            Question::Meta(body) => service.meta(from, body).await.map(|answer| Reply::Bytes(answer.into())),
            Question::Snapshot(what) => service.snapshot(from.node, what).await.and_then(|parts| {
                let mut pieces = Vec::new();
                parts(&mut |piece| {
                    pieces.push(Bytes::from(piece));
                    true
                })?;
                Ok(Reply::Pieces(pieces))
            }),
        };
        told.map_err(PeerError::Failed)
    }

    /// A replica votes once a term, whatever happened to it in between (I8). Gives whether this is a vote that is given.
    fn watch_vote(&self, group: u64, message: &Bytes, answer: &[u8]) -> bool {
        let Ok(Message::Vote(request)) = Message::decode(message.clone()) else { return false };
        let Ok(Answer::Vote(answer)) = Answer::decode(Bytes::copy_from_slice(answer)) else { return false };
        let leader = request.vote.leader_id();
        let mut state = self.state.lock();
        let own = ((leader.voted_for, leader.term), leader.voted_for);
        let given = ((group, leader.term), leader.voted_for);
        for (key, candidate) in [own, given].into_iter().take(1 + usize::from(answer.vote_granted)) {
            let known = *state.votes.entry(key).or_insert(candidate);
            if known != candidate {
                let text = format!(
                    "I8 vote: replica {} voted for {known} and for {candidate} in term {}",
                    key.0, key.1
                );
                state.violations.push(text);
            }
        }
        answer.vote_granted
    }

    fn send(&self, wire: Wire, life: u64, waiter: Waiter, body: Body) {
        let mut state = self.state.lock();
        let mut delay = {
            let mut rng = self.rng.lock();
            let slow = state.slow.map_or(0, |(least, most)| rng.between(least, most));
            slow + if rng.chance(2) { rng.between(1, 80) } else { rng.between(0, 3) }
        };
        if state.slow.is_some() {
            *state.seen.entry("parcels slowed").or_default() += 1;
        }
        let sent = state.now;
        let parcels = state.wires.entry(wire).or_default();
        if let Some(last) = parcels.back() {
            delay = delay.max(last.due.saturating_sub(sent));
        }
        parcels.push_back(Parcel { sent, due: sent + delay, life, waiter, body });
    }

    /// Whether parcels arrive between two nodes in both directions.
    fn connected(&self, one: usize, other: usize) -> bool {
        let state = self.state.lock();
        let up = |at: usize| state.sites[at].running.is_some() && !state.sites[at].frozen;
        up(one) && up(other) && !state.cut.contains(&(one, other)) && !state.cut.contains(&(other, one))
    }
}

impl State {
    fn note(&mut self, line: &str) {
        self.trace_hash = fold(self.trace_hash, line.as_bytes());
        self.trace.push(line.to_owned());
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |f: &mut fmt::Formatter<'_>, what: &str, bytes: &[u8]| {
            write!(f, "{what} {} {:016x}", bytes.len(), fold(0, bytes))
        };
        match self {
            Self::Ask { question, .. } => match question {
                Question::Raft { group, message } => {
                    write!(f, "raft {group} kind {} ", message.get(1).copied().unwrap_or_default())?;
                    told(f, "", message)
                }
                Question::Write { shard, batch, .. } => {
                    write!(f, "write {shard} {} samples", batch.samples.len())
                }
                Question::ReadIndex(shards) => write!(f, "read index {shards:?}"),
                Question::Fragment(bytes) => told(f, "fragment", bytes),
                Question::Meta(bytes) => told(f, "meta", bytes),
                Question::Snapshot(bytes) => told(f, "snapshot", bytes),
            },
            Self::Tell { told: Ok(reply), .. } => match reply {
                Reply::Bytes(bytes) => told(f, "answer", bytes),
                Reply::Write(answer) => write!(f, "written {}", answer.is_ok()),
                Reply::Indexes(indexes) => write!(f, "indexes {indexes:?}"),
                Reply::Pieces(pieces) => write!(f, "pieces {}", pieces.len()),
            },
            Self::Tell { told: Err(error), .. } => write!(f, "failed {error}"),
        }
    }
}

/// The calls of one life of a node.
pub(crate) struct SimCalls {
    net: Arc<Net>,
    from: usize,
    life: u64,
    me: rpc::Me,
    addresses: Mutex<BTreeMap<NodeId, Arc<str>>>,
    born: Instant,
    /// When each site last answered anything.
    answered: Mutex<BTreeMap<usize, Instant>>,
}

impl fmt::Debug for SimCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimCalls({}, life {}, {:?})", self.from, self.life, self.me.load().node)
    }
}

impl SimCalls {
    /// The node that is at the address of `node`, if it is that one: as the handshake finds out.
    fn site(&self, node: NodeId) -> Result<usize, PeerError> {
        let address = self.address(node).ok_or(PeerError::UnknownNode(node))?;
        let at = self.site_at(&address)?;
        let state = self.net.state.lock();
        let other = state.sites[at].running.as_ref().is_some_and(|running| running.me.load().node != node);
        if other {
            let reason = "another node is there".to_owned();
            return Err(PeerError::Refused { peer: address.to_string(), reason });
        }
        Ok(at)
    }

    fn site_at(&self, address: &str) -> Result<usize, PeerError> {
        let state = self.net.state.lock();
        let found = state.sites.iter().position(|site| site.address == address);
        let reason = || "nobody listens there".to_owned();
        found.ok_or_else(|| PeerError::Unreachable { peer: address.to_owned(), reason: reason() })
    }

    async fn call(&self, to: usize, lane: u8, question: Question, limit: Duration) -> Told {
        let (waiter, answer) = oneshot::channel();
        let wire = Wire { from: self.from, to, lane };
        self.net.send(wire, self.life, waiter, Body::Ask { question, limit });
        let peer = || format!("node {to}");
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(told)) => {
                if matches!(told, Ok(_) | Err(PeerError::Failed(_))) {
                    self.answered.lock().insert(to, Instant::now());
                }
                told
            }
            Ok(Err(_)) => {
                // As long as `rpc` leaves a peer alone whose connection failed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(PeerError::Unreachable { peer: peer(), reason: "the connection broke".to_owned() })
            }
            Err(_) => Err(PeerError::Timeout { peer: peer(), after: limit }),
        }
    }

    fn other(&self) -> PeerError {
        PeerError::Failed(Failure::internal("an answer to something else"))
    }
}

impl Calls for SimCalls {
    fn set_address(&self, node: NodeId, address: &str) {
        self.addresses.lock().insert(node, address.into());
    }

    fn forget(&self, node: NodeId) {
        self.addresses.lock().remove(&node);
    }

    fn address(&self, node: NodeId) -> Option<Arc<str>> {
        self.addresses.lock().get(&node).cloned()
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.addresses.lock().keys().copied().collect()
    }

    fn silence(&self, node: NodeId) -> Duration {
        let Some(address) = self.address(node) else { return Duration::ZERO };
        let answered = self.site_at(&address).ok().and_then(|at| self.answered.lock().get(&at).copied());
        answered.unwrap_or(self.born).elapsed()
    }

    fn raft(
        &self,
        node: NodeId,
        lane: Lane,
        group: u64,
        message: Bytes,
        _patient: bool,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            match self.call(to, number(lane), Question::Raft { group, message }, limit).await? {
                Reply::Bytes(bytes) => Ok(bytes),
                _ => Err(self.other()),
            }
        })
    }

    fn write(
        &self,
        node: NodeId,
        shard: ShardId,
        batch: Arc<ShardBatch>,
        limit: Duration,
    ) -> BoxFuture<'_, Result<WriteAnswer, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            let question = Question::Write { shard, batch, limit };
            match self.call(to, number(Lane::Request), question, limit).await? {
                Reply::Write(answer) => Ok(answer),
                _ => Err(self.other()),
            }
        })
    }

    fn read_index<'a>(
        &'a self,
        node: NodeId,
        shards: &'a [ShardId],
        limit: Duration,
    ) -> BoxFuture<'a, Result<ReadIndexes, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            let question = Question::ReadIndex(shards.to_vec());
            match self.call(to, number(Lane::Control), question, limit).await? {
                Reply::Indexes(indexes) => Ok(indexes),
                _ => Err(self.other()),
            }
        })
    }

    fn fragment(
        &self,
        node: NodeId,
        fragment: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            match self.call(to, number(Lane::Request), Question::Fragment(fragment), limit).await? {
                Reply::Bytes(bytes) => Ok(bytes.into()),
                _ => Err(self.other()),
            }
        })
    }

    fn meta(&self, node: NodeId, body: Bytes, limit: Duration) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            match self.call(to, number(Lane::Control), Question::Meta(body), limit).await? {
                Reply::Bytes(bytes) => Ok(bytes),
                _ => Err(self.other()),
            }
        })
    }

    fn meta_at<'a>(
        &'a self,
        address: &'a str,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, PeerError>> {
        Box::pin(async move {
            let to = self.site_at(address)?;
            match self.call(to, OWN, Question::Meta(body), limit).await? {
                Reply::Bytes(bytes) => Ok(bytes),
                _ => Err(self.other()),
            }
        })
    }

    fn snapshot(
        &self,
        node: NodeId,
        what: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Pieces, PeerError>> {
        Box::pin(async move {
            let to = self.site(node)?;
            let told = self.call(to, number(Lane::Request), Question::Snapshot(what), limit).await?;
            let Reply::Pieces(pieces) = told else { return Err(self.other()) };
            let (net, from) = (Arc::clone(&self.net), self.from);
            let stream = futures::stream::iter(pieces).then(move |piece| {
                let net = Arc::clone(&net);
                async move {
                    // A piece a moment, as long as the connection holds.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if net.connected(to, from) {
                        return Ok(piece);
                    }
                    *net.state.lock().seen.entry("transfers cut").or_default() += 1;
                    let reason = "the connection broke".to_owned();
                    Err(PeerError::Unreachable { peer: format!("node {to}"), reason })
                }
            });
            Ok(stream.boxed())
        })
    }

    /// Looks at the replicas at once: what a reader elsewhere sees has no way to travel in this simulation.
    fn replica(
        self: Arc<Self>,
        nodes: &[NodeId],
        shard: ShardId,
        need: Need,
        _silence: Duration,
    ) -> Arc<dyn SeriesSource> {
        for node in nodes {
            let Ok(to) = self.site(*node) else { continue };
            if !self.net.connected(self.from, to) {
                continue;
            }
            let running = {
                let state = self.net.state.lock();
                let running = state.sites[to].running.as_ref();
                running.map(|running| (Arc::clone(&running.service), running.handle.clone()))
            };
            let Some((service, handle)) = running else { continue };
            let _there = handle.enter();
            if let Some(Ok(source)) = service.replica(shard, need).now_or_never() {
                *self.net.state.lock().seen.entry("reads elsewhere").or_default() += 1;
                return source;
            }
        }
        Arc::new(Nowhere)
    }
}

/// What a read of a replica gives that cannot be reached.
struct Nowhere;

fn nowhere<T>() -> Result<T, Failure> {
    Err(Failure::unavailable("no replica that is far enough can be reached", Duration::from_secs(1)))
}

impl SeriesSource for Nowhere {
    fn select<'a>(&'a self, _: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        nowhere()
    }

    fn series(&self, _: &SelectRequest, _: usize) -> Result<Vec<Labels>, Failure> {
        nowhere()
    }

    fn label_names(&self, _: &SelectRequest, _: usize) -> Result<Vec<String>, Failure> {
        nowhere()
    }

    fn label_values(&self, _: &SelectRequest, _: &str, _: usize) -> Result<Vec<String>, Failure> {
        nowhere()
    }

    fn exemplars(&self, _: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        nowhere()
    }

    fn metadata(&self, _: &TenantId, _: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        nowhere()
    }
}
