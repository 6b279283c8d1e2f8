//! One lane to one peer: its connection, and the frames of calls over it.
//!
//! A task owns the connection. Calls come by a queue; what waits while a frame is on its way goes together in the next
//! one. Flow control: a call takes its bytes from the lane's budget until it is answered, so a peer that does not keep
//! up makes callers wait, for no longer than their own limits.
//!
//! A stream that has died is found by its silence: when a call's time is up and nothing at all was heard since it was
//! sent, for a second at least, the connection is torn down, every call on it fails, and the next call connects
//! anew. (Heartbeats have less time than that: a busy machine that answers a little late would otherwise spend the rest
//! of its time on new connections.) A call that alone is late on a stream that talks fails alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::connect::{Client, Dial};
use crate::convert::status;
use crate::error::PeerError;
use crate::identity::{Lane, Me};
use crate::metrics::{Metrics, PeerLane};
use crate::security::Security;
use crate::wire;

/// Bytes of calls in one frame, about.
const FRAME_BYTES: usize = 1 << 20;
/// Calls that may wait for the lane's task.
const QUEUE: usize = 4096;
/// What a call costs beside its body, bytes.
const CALL_COST: usize = 64;
/// How long to leave a peer alone after a connection failed: calls fail at once meanwhile.
const BACKOFF: Duration = Duration::from_millis(100);
/// How long nothing at all must have been heard before a late call tears the connection down.
const SILENCE: Duration = Duration::from_secs(1);
/// How long a patient call may wait for company.
const PATIENCE: Duration = Duration::from_millis(20);

/// A call to a peer.
pub(crate) struct Call {
    pub(crate) kind: wire::Kind,
    pub(crate) group: u64,
    pub(crate) body: Bytes,
    /// How long the caller waits.
    pub(crate) limit: Duration,
    /// It may wait a little for others to share its frame.
    pub(crate) patient: bool,
}

type Answer = Result<Bytes, PeerError>;

/// A call on its way through the lane.
struct Waiting {
    call: wire::Call,
    deadline: Instant,
    limit: Duration,
    patient: bool,
    answer: oneshot::Sender<Answer>,
    budget: OwnedSemaphorePermit,
}

/// What the lane's task is asked.
enum Request {
    Call(Waiting),
    /// The connection, for calls that have a stream of their own.
    Client(oneshot::Sender<Result<Client, PeerError>>),
}

/// The way into a lane.
pub(crate) struct LaneHandle {
    node: NodeId,
    lane: Lane,
    queue: mpsc::Sender<Request>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    address: watch::Receiver<Arc<str>>,
    metrics: Metrics,
}

/// What all lanes are made with.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) me: Me,
    pub(crate) security: Security,
    pub(crate) connect_limit: Duration,
    pub(crate) metrics: Metrics,
}

impl LaneHandle {
    /// Starts the lane's task on `runtime`; it ends when the handle is dropped.
    pub(crate) fn start(
        ground: Ground,
        runtime: &tokio::runtime::Handle,
        node: NodeId,
        lane: Lane,
        address: watch::Receiver<Arc<str>>,
        budget_bytes: usize,
    ) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let metrics = ground.metrics.clone();
        let runner = Runner {
            which: PeerLane::new(node, lane),
            node,
            lane,
            ground,
            address: address.clone(),
            requests,
            failed: None,
        };
        runtime.spawn(runner.run());
        let budget = Arc::new(Semaphore::new(budget_bytes));
        Self { node, lane, queue, budget, budget_bytes, address, metrics }
    }

    pub(crate) fn peer(&self) -> String {
        format!("{:016x} at {}", self.node.0, *self.address.borrow())
    }

    /// Makes the call. In order of being called, as far as the budget lets them through.
    pub(crate) async fn call(&self, call: Call) -> Answer {
        let limit = call.limit;
        match tokio::time::timeout(limit, self.send(call)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.metrics.timeouts.get_or_create(&PeerLane::new(self.node, self.lane)).inc();
                Err(PeerError::Timeout { peer: self.peer(), after: limit })
            }
        }
    }

    async fn send(&self, call: Call) -> Answer {
        let Call { kind, group, body, limit, patient } = call;
        let deadline = Instant::now() + limit;
        let cost = (body.len() + CALL_COST).min(self.budget_bytes);
        let budget =
            Arc::clone(&self.budget).acquire_many_owned(u32::try_from(cost).unwrap_or(u32::MAX)).await;
        let budget = budget.map_err(|_| self.gone())?;
        let (answer, wait) = oneshot::channel();
        let limit_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let call = wire::Call { id: 0, kind: kind.into(), group, body, limit_ms };
        let waiting = Waiting { call, deadline, limit, patient, answer, budget };
        self.queue.send(Request::Call(waiting)).await.map_err(|_| self.gone())?;
        wait.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// The connection, made if there is none.
    pub(crate) async fn client(&self, limit: Duration) -> Result<Client, PeerError> {
        let ask = async {
            let (answer, wait) = oneshot::channel();
            self.queue.send(Request::Client(answer)).await.map_err(|_| self.gone())?;
            wait.await.unwrap_or_else(|_| Err(self.gone()))
        };
        let late = || Err(PeerError::Timeout { peer: self.peer(), after: limit });
        tokio::time::timeout(limit, ask).await.unwrap_or_else(|_| late())
    }

    fn gone(&self) -> PeerError {
        PeerError::Unreachable {
            peer: self.peer(),
            reason: "the node was taken out of the cluster".to_owned(),
        }
    }
}

struct Runner {
    node: NodeId,
    lane: Lane,
    which: PeerLane,
    ground: Ground,
    address: watch::Receiver<Arc<str>>,
    requests: mpsc::Receiver<Request>,
    /// The last failure to connect, and until when it stands for the next one too.
    failed: Option<(PeerError, Instant)>,
}

/// A call that was sent, or is about to be.
struct Pending {
    sent: Instant,
    limit: Duration,
    answer: oneshot::Sender<Answer>,
    _budget: OwnedSemaphorePermit,
}

/// How a session ended.
enum End {
    /// Nobody can call any more.
    Dropped,
    /// The peer moved; what was under way fails with this.
    Broken(PeerError),
}

impl Runner {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            if let Some((error, until)) = &self.failed
                && Instant::now() < *until
                && !self.address.has_changed().unwrap_or(false)
            {
                refuse(first, error);
                continue;
            }
            let address = Arc::clone(&self.address.borrow_and_update());
            let dial = Dial {
                me: self.ground.me.load_full(),
                security: &self.ground.security,
                lane: self.lane,
                expected: Some(self.node),
                address: &address,
                limit: self.ground.connect_limit,
                metrics: &self.ground.metrics,
            };
            let peer = dial.peer();
            match dial.connect().await {
                Ok((client, _)) => {
                    if self.failed.take().is_some() {
                        tracing::info!(%peer, lane = self.lane.as_str(), "a peer can be reached again");
                    }
                    match self.session(client, &peer, first).await {
                        End::Dropped => return,
                        End::Broken(error) => {
                            tracing::info!(lane = self.lane.as_str(), %error, "a connection to a peer broke");
                        }
                    }
                }
                Err(error) => {
                    if self.failed.is_none() {
                        tracing::warn!(lane = self.lane.as_str(), %error, "a peer cannot be reached");
                    }
                    refuse(first, &error);
                    while let Ok(waiting) = self.requests.try_recv() {
                        refuse(waiting, &error);
                    }
                    self.failed = Some((error, Instant::now() + BACKOFF));
                }
            }
        }
    }

    /// Sends and answers until the stream ends.
    async fn session(&mut self, mut client: Client, peer: &str, first: Request) -> End {
        let broken =
            |reason: &str| PeerError::Unreachable { peer: peer.to_owned(), reason: reason.to_owned() };
        let mut stream = Session::new(client.clone());
        stream.take(first);
        let (frames, outgoing) = mpsc::channel(1);
        let opening = client.exchange(ReceiverStream::new(outgoing));
        let opened = tokio::time::timeout(self.ground.connect_limit, opening).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return stream.fail(broken(status.message())),
            Err(_) => return stream.fail(broken("the stream of calls did not open in time")),
        };
        let mut batch = Vec::new();
        loop {
            let room = stream.outbox_bytes < FRAME_BYTES;
            let due = stream.next_deadline();
            let ready = stream.ready_at();
            tokio::select! {
                biased;
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => stream.answered(frame),
                    Ok(None) => return stream.fail(broken("the peer closed the connection")),
                    Err(status) => return stream.fail(broken(status.message())),
                },
                () = at(due), if due.is_some() => {
                    let late = stream.expire();
                    self.ground.metrics.timeouts.get_or_create(&self.which).inc_by(late.calls);
                    if late.silent {
                        return stream.fail(broken("the stream is silent: torn down"));
                    }
                },
                changed = self.address.changed() => {
                    return stream.fail(broken(if changed.is_ok() { "the peer has another address" } else { "the node was taken out of the cluster" }));
                },
                permit = frames.reserve(), if ready.is_some_and(|at| at <= Instant::now()) => match permit {
                    Ok(permit) => {
                        let frame = stream.frame();
                        self.ground.metrics.frames.get_or_create(&self.which).inc();
                        self.ground.metrics.calls.get_or_create(&self.which).inc_by(frame.calls.len() as u64);
                        permit.send(frame);
                    }
                    Err(_) => return stream.fail(broken("the stream of calls ended")),
                },
                () = at(ready), if ready.is_some_and(|at| at > Instant::now()) => {},
                count = self.requests.recv_many(&mut batch, 256), if room => {
                    if count == 0 {
                        stream.fail(broken("the node was taken out of the cluster"));
                        return End::Dropped;
                    }
                    for request in batch.drain(..) {
                        stream.take(request);
                    }
                },
            }
        }
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

fn refuse(request: Request, error: &PeerError) {
    // Callers that went away do not matter, here and below.
    match request {
        Request::Call(waiting) => {
            let _ = waiting.answer.send(Err(error.clone()));
        }
        Request::Client(answer) => {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

/// Calls of one connection.
struct Session {
    client: Client,
    next_id: u64,
    outbox: VecDeque<(Instant, wire::Call)>,
    outbox_bytes: usize,
    /// Calls in the outbox that do not wait for company.
    urgent: usize,
    pending: HashMap<u64, Pending>,
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    heard: Instant,
    /// When the first late call was sent since something was heard.
    unheard: Option<Instant>,
}

/// What [`Session::expire`] found.
struct Late {
    calls: u64,
    silent: bool,
}

impl Session {
    fn new(client: Client) -> Self {
        Self {
            client,
            next_id: 1,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            urgent: 0,
            pending: HashMap::new(),
            deadlines: BinaryHeap::new(),
            heard: Instant::now(),
            unheard: None,
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Client(answer) => {
                let _ = answer.send(Ok(self.client.clone()));
            }
            Request::Call(Waiting { mut call, deadline, limit, patient, answer, budget }) => {
                let now = Instant::now();
                if answer.is_closed() {
                    return;
                }
                call.id = self.next_id;
                self.next_id += 1;
                self.deadlines.push(Reverse((deadline, call.id)));
                self.pending.insert(call.id, Pending { sent: now, limit, answer, _budget: budget });
                self.outbox_bytes += call.body.len() + CALL_COST;
                self.urgent += usize::from(!patient);
                let ready = if patient { now + PATIENCE.min(limit / 4) } else { now };
                self.outbox.push_back((ready, call));
            }
        }
    }

    /// When the next frame may go.
    fn ready_at(&self) -> Option<Instant> {
        let (first, _) = self.outbox.front()?;
        let now = self.urgent > 0 || self.outbox_bytes >= FRAME_BYTES;
        Some(if now { Instant::now() } else { *first })
    }

    fn frame(&mut self) -> wire::CallFrame {
        let mut calls = Vec::with_capacity(self.outbox.len().min(1024));
        let mut bytes = 0;
        while let Some((_, call)) = self.outbox.front() {
            let size = call.body.len() + CALL_COST;
            if bytes > 0 && bytes + size > FRAME_BYTES {
                break;
            }
            bytes += size;
            if let Some((_, call)) = self.outbox.pop_front() {
                calls.push(call);
            }
        }
        self.outbox_bytes -= bytes;
        // What is left was too much for this frame: it goes with the next, whatever its patience.
        self.urgent = self.outbox.len();
        wire::CallFrame { calls }
    }

    fn answered(&mut self, frame: wire::AnswerFrame) {
        self.heard = Instant::now();
        self.unheard = None;
        for wire::Answer { id, body, failure } in frame.answers {
            // An answer that nobody waits for any more is late.
            let Some(pending) = self.pending.remove(&id) else { continue };
            let answer = match failure {
                None => Ok(body),
                Some(failure) => Err(PeerError::Failed(status::from_wire(failure))),
            };
            let _ = pending.answer.send(answer);
        }
    }

    /// When the first call that still waits is late.
    fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(Reverse((deadline, id))) = self.deadlines.peek() {
            if self.pending.contains_key(id) {
                return Some(*deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Lets go of calls that are late.
    fn expire(&mut self) -> Late {
        let now = Instant::now();
        let mut late = Late { calls: 0, silent: false };
        while let Some(Reverse((deadline, id))) = self.deadlines.peek().copied() {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let Some(pending) = self.pending.remove(&id) else { continue };
            late.calls += 1;
            if self.heard < pending.sent {
                let since = self.unheard.map_or(pending.sent, |since| since.min(pending.sent));
                self.unheard = Some(since);
                late.silent |= now.duration_since(since) >= SILENCE;
            }
            let after = pending.limit;
            let _ = pending.answer.send(Err(PeerError::Timeout { peer: String::new(), after }));
        }
        late
    }

    /// Fails every call.
    fn fail(self, error: PeerError) -> End {
        for (_, pending) in self.pending {
            let _ = pending.answer.send(Err(error.clone()));
        }
        End::Broken(error)
    }
}
