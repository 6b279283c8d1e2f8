//! What a page shows at its top while it holds: a configuration that was not loaded, a shutdown. A list, and a stream
//! of its changes (server-sent events; upstream: `util/notifications`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{StatusCode, header};
use model::time;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::body::Uncompressed;
use crate::encode::{push_list, push_string};
use crate::query::{Shared, success};

/// Streams open at a time; one more gets 204, as upstream's default has it.
const MAX_SUBSCRIBERS: usize = 16;

/// Changes that a slow reader of a stream may lag behind; then it gets the list anew.
const BACKLOG: usize = 64;

/// One notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What to show.
    pub text: String,
    /// Since when, ms.
    pub since_ms: i64,
    /// Whether it holds; a stream also says when it no longer does.
    pub active: bool,
}

/// The notifications of a node.
#[derive(Debug)]
pub struct Notifications {
    list: Mutex<Vec<Notification>>,
    changes: Mutex<Option<broadcast::Sender<Notification>>>,
    subscribers: Arc<AtomicUsize>,
}

impl Default for Notifications {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            changes: Mutex::new(Some(broadcast::Sender::new(BACKLOG))),
            subscribers: Arc::default(),
        }
    }
}

impl Notifications {
    /// Says that `text` holds from `now_ms` on, or no longer. Nothing happens when that is known.
    pub fn set(&self, text: &str, active: bool, now_ms: i64) {
        let mut list = self.list.lock();
        let known = list.iter().position(|n| n.text == text);
        let change = Notification { text: text.to_owned(), since_ms: now_ms, active };
        match (known, active) {
            (None, true) => list.push(change.clone()),
            (Some(at), false) => {
                list.remove(at);
            }
            (Some(_), true) | (None, false) => return,
        }
        if let Some(changes) = self.changes.lock().as_ref() {
            // Without subscribers nobody needs to know.
            let _ = changes.send(change);
        }
    }

    /// What holds now, oldest first.
    pub fn list(&self) -> Vec<Notification> {
        self.list.lock().clone()
    }

    /// Ends all streams, for an orderly shutdown.
    pub fn close(&self) {
        *self.changes.lock() = None;
    }

    /// The present list and what comes after it, unless there are too many subscribers or the node stops.
    fn subscribe(&self) -> Option<(Vec<Notification>, broadcast::Receiver<Notification>, Subscriber)> {
        let subscriber = Subscriber::enter(&self.subscribers)?;
        // Under the lock of the list, so that no change falls between the two.
        let list = self.list.lock();
        let receiver = self.changes.lock().as_ref()?.subscribe();
        Some((list.clone(), receiver, subscriber))
    }
}

struct Subscriber(Arc<AtomicUsize>);

impl Subscriber {
    fn enter(count: &Arc<AtomicUsize>) -> Option<Self> {
        let one_more = |n: usize| (n < MAX_SUBSCRIBERS).then_some(n + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn push(out: &mut String, notification: &Notification) {
    out.push_str(r#"{"text":"#);
    push_string(out, &notification.text);
    out.push_str(r#","date":"#);
    push_string(out, &time::format_rfc3339(notification.since_ms));
    out.push_str(if notification.active { r#","active":true}"# } else { r#","active":false}"# });
}

pub(crate) async fn list(State(state): Shared) -> Response {
    success(|out| push_list(out, state.notifications.list(), |out, n| push(out, &n)))
}

fn event(notification: &Notification) -> Bytes {
    let mut out = String::from("data: ");
    push(&mut out, notification);
    out.push_str("\n\n");
    out.into()
}

pub(crate) async fn live(State(state): Shared) -> Response {
    let Some((now, receiver, subscriber)) = state.notifications.subscribe() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    // A comment first, so that the head of the answer goes out at once.
    let first = futures::stream::iter(
        std::iter::once(Bytes::from_static(b": notifications\n\n"))
            .chain(now.iter().map(event).collect::<Vec<_>>()),
    );
    let notifications = Arc::clone(&state.notifications);
    let rest = futures::stream::unfold(
        (receiver, subscriber, notifications),
        async |(mut receiver, subscriber, all)| {
            let piece = match receiver.recv().await {
                Ok(notification) => event(&notification),
                Err(RecvError::Lagged(_)) => all
                    .list()
                    .iter()
                    .map(event)
                    .fold(Vec::new(), |mut out, e| {
                        out.extend_from_slice(&e);
                        out
                    })
                    .into(),
                Err(RecvError::Closed) => return None,
            };
            Some((piece, (receiver, subscriber, all)))
        },
    );
    let body = Body::from_stream(first.chain(rest).map(Ok::<_, std::convert::Infallible>));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    let mut response = (headers, body).into_response();
    response.extensions_mut().insert(Uncompressed);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_listed_once_while_it_holds() {
        let all = Notifications::default();
        all.set("a", true, 1);
        all.set("a", true, 2);
        all.set("b", true, 3);
        all.set("c", false, 4);
        let texts =
            |all: &Notifications| all.list().iter().map(|n| (n.text.clone(), n.since_ms)).collect::<Vec<_>>();
        assert_eq!(texts(&all), [("a".into(), 1), ("b".into(), 3)]);
        all.set("a", false, 5);
        assert_eq!(texts(&all), [("b".into(), 3)]);
    }

    #[tokio::test]
    async fn streams_are_bounded_and_end_at_shutdown() {
        let all = Notifications::default();
        all.set("a", true, 1);
        let mut open: Vec<_> = std::iter::from_fn(|| all.subscribe()).take(100).collect();
        assert_eq!(open.len(), MAX_SUBSCRIBERS);
        open.truncate(1);
        assert!(all.subscribe().is_some());
        all.set("b", true, 2);
        let (list, receiver, _) = &mut open[0];
        assert_eq!(list.len(), 1);
        assert_eq!(receiver.recv().await.map(|n| n.text), Ok("b".into()));
        all.close();
        assert_eq!(receiver.recv().await, Err(RecvError::Closed));
        assert!(all.subscribe().is_none());
    }
}
