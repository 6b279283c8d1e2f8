//! Connections that are open, and which of them to close: when there are too many the one without a request for longest,
//! and at any time one whose client does not take its answer.
//!
//! A client that opens connections and leaves them idle thus never keeps others out; those with requests under way stay as
//! long as they make progress. What counts is how long a piece of an answer that is there waits to be taken: an answer of
//! which nothing is there yet may last for ever.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How fast a client has to take an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For each piece.
    pub(crate) least: Duration,
    /// Bytes that may take a second more.
    pub(crate) rate: u64,
}

/// All open connections of this process's listeners.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<u64, Arc<State>>>,
    /// Counts connections and ends of requests: what happened later has the higher number.
    turn: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that are not answered to the end.
    requests: AtomicUsize,
    /// The turn of the accept, or of the end of the last request.
    idle_since: AtomicU64,
    close: Notify,
    /// By request: when the piece of its answer that was given last must have been taken.
    due: Mutex<BTreeMap<u64, Instant>>,
}

/// An open connection; it is not counted any more once dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    of: Arc<Connections>,
    number: u64,
    state: Arc<State>,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    of: Arc<Connections>,
    state: Arc<State>,
    number: u64,
}

impl Connections {
    /// A connection that was just accepted.
    pub(crate) fn open(self: &Arc<Self>) -> Connection {
        let number = self.turn.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State { idle_since: AtomicU64::new(number), ..State::default() });
        self.open.lock().insert(number, Arc::clone(&state));
        Connection { of: Arc::clone(self), number, state }
    }

    /// Has the connection closed that had no request for longest, if there is one without.
    pub(crate) fn close_one(&self) {
        let open = self.open.lock();
        let idle = open.values().filter(|state| state.is_idle());
        if let Some(longest) = idle.min_by_key(|state| state.idle_since.load(Ordering::Relaxed)) {
            // Stays if nobody waits for it just now.
            longest.close.notify_one();
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }
}

impl Connection {
    /// A request begins; it is over when the value is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        self.state.requests.fetch_add(1, Ordering::AcqRel);
        let number = self.of.turn.fetch_add(1, Ordering::Relaxed);
        UnderWay { of: Arc::clone(&self.of), state: Arc::clone(&self.state), number }
    }

    /// Returns when the client has not taken a piece of an answer in time; looked at a few times in `patience`.
    pub(crate) async fn unread(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 4).await;
            let now = Instant::now();
            if self.state.due.lock().values().any(|due| *due < now) {
                return;
            }
        }
    }

    /// Returns when the connection shall be closed for others.
    pub(crate) async fn closed(&self) {
        loop {
            self.state.close.notified().await;
            // A request may have begun since it was chosen.
            if self.state.is_idle() {
                return;
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.of.open.lock().remove(&self.number);
    }
}

impl UnderWay {
    /// The client shall take `bytes` of the answer.
    fn given(&self, bytes: usize, patience: Patience) {
        let due = Instant::now() + patience.least + Duration::from_secs(bytes as u64 / patience.rate.max(1));
        self.state.due.lock().insert(self.number, due);
    }

    /// It has, or its connection has room for more.
    fn taken(&self) {
        self.state.due.lock().remove(&self.number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.taken();
        self.state.idle_since.store(self.of.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.state.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer, whose request is under way until it has been sent.
pub(crate) struct Answer {
    body: Body,
    request: UnderWay,
    patience: Patience,
}

impl Answer {
    /// The body of the answer to `request`, of which the client must take each piece in time.
    pub(crate) fn new(body: Body, request: UnderWay, patience: Patience) -> Self {
        Self { body, request, patience }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.request.taken();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.request.given(data.len(), self.patience);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_piece_that_is_not_taken_is_waited_for_in_vain() {
        const LEAST: Duration = Duration::from_secs(30);
        const PATIENCE: Patience = Patience { least: LEAST, rate: 1024 };
        let all = Arc::new(Connections::default());
        let (slow, stuck) = (all.open(), all.open());
        let of_slow = slow.begin();
        let begun = Instant::now();
        // A stream that has nothing to say for an hour, then is read slowly, but is.
        assert!(tokio::time::timeout(Duration::from_secs(3600), slow.unread(LEAST)).await.is_err());
        let of_stuck = stuck.begin();
        of_stuck.given(10 << 10, PATIENCE);
        for _ in 0..10 {
            of_slow.given(10 << 10, PATIENCE);
            assert!(tokio::time::timeout(Duration::from_secs(39), slow.unread(LEAST)).await.is_err());
            of_slow.taken();
        }
        assert!(begun.elapsed() >= Duration::from_secs(3600 + 390));
        stuck.unread(LEAST).await;
    }

    #[tokio::test]
    async fn the_one_without_a_request_for_longest_is_closed() {
        let all = Arc::new(Connections::default());
        let (busy, first, second) = (all.open(), all.open(), all.open());
        let under_way = busy.begin();
        drop(first.begin());
        // The second has had no request since before the first one's ended.
        all.close_one();
        second.closed().await;
        drop(second);
        all.close_one();
        first.closed().await;
        drop(first);
        all.close_one();
        assert!(futures::FutureExt::now_or_never(busy.closed()).is_none(), "it has a request under way");
        drop(under_way);
        all.close_one();
        busy.closed().await;
    }
}
