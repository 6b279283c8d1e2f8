//! Groups at rest: while nothing happens in a group, nobody spends anything on it.
//!
//! A group in which nothing was written for some seconds, and whose members all have everything, needs no heartbeats and
//! no election timers of its own. Its leader's node says five times a second, in one message a node, which of the
//! groups that it leads rest and how they stand; a member that agrees stops its timers. Whoever is not told so for as
//! long as an election takes starts them again, and all is as it was without rest: a leader that died is replaced in
//! the usual time. A write, a vote, or a member that does not agree ends the rest of a group at once.
//!
//! Rest decides when timers run, never what Raft does: safety does not depend on it. Reads of a group at rest still
//! probe a majority.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use model::{LogIndex, NodeId};
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::group::Group;
use crate::node::Inner;
use crate::talk::{Ask, Reply};

/// How often a leader's node says that its groups rest.
const BEAT: Duration = Duration::from_millis(200);
/// How long the answer may take: what is not agreed to by then is awake at the next beat.
const ANSWER: Duration = Duration::from_millis(300);
/// How long a leader believes in the rest of its own group without agreement.
const LED: Duration = Duration::from_secs(1);
/// How long a member believes in it without being told so again: as long as an election timer runs, from the first to
/// the second, so that not all members wake at once.
const FOLLOWED: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1000));
/// How often a node looks for groups whose rest is over.
const LOOK: Duration = Duration::from_millis(50);

/// Until when a group's timers stand still, unless its rest is renewed or ended.
#[derive(Debug, Default)]
pub(crate) struct Rest(Mutex<Option<Instant>>);

/// A group at rest as its leader tells a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resting {
    /// The member.
    pub(crate) replica: u64,
    /// The leader's term.
    pub(crate) term: u64,
    /// The last entry, which is applied everywhere.
    pub(crate) last: u64,
}

impl Group {
    /// Lets the timers stand still until `until`.
    fn rest(&self, until: Instant) {
        if self.rest.0.lock().replace(until).is_none() {
            self.raft().runtime_config().tick(false);
        }
    }

    /// Has the timers run, if they do not.
    pub(crate) fn wake(&self) {
        if self.rest.0.lock().take().is_some() {
            self.raft().runtime_config().tick(true);
        }
    }

    /// Whether the timers stand still: then all members agreed to that lately.
    pub(crate) fn rests(&self) -> bool {
        self.rest.0.lock().is_some_and(|until| until > Instant::now())
    }

    fn wake_if_over(&self, now: Instant) {
        let mut until = self.rest.0.lock();
        if until.is_some_and(|until| until <= now) {
            *until = None;
            self.raft().runtime_config().tick(true);
        }
    }

    /// As a member: whether the group stands here as its leader on the node `from` says. Never before the leader was
    /// heard: after a start its next message tells what is committed, and a group at rest sends none.
    fn agrees(&self, from: NodeId, said: Resting) -> bool {
        let follows = {
            let metrics = self.raft().metrics();
            let metrics = metrics.borrow_watched();
            metrics.state != openraft::ServerState::Candidate
                && metrics.current_term == said.term
                && metrics.last_log_index == Some(said.last)
        };
        follows
            && self.caught_up()
            && self.leader().is_some_and(|(replica, node)| node == from && replica.0 != self.id.0)
            && self.progress().0 == said.last
    }
}

/// Lets groups of this node rest and wake, until the node stops.
pub(crate) fn start(inner: &Arc<Inner>) {
    // Beside Raft's control work: its runtime never waits behind data.
    let (telling, waking) = (Arc::clone(inner), Arc::clone(inner));
    inner.ground.raft.spawn(async move {
        let mut since = HashMap::new();
        while !telling.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(BEAT).await;
            tell(&telling, &mut since).await;
        }
    });
    inner.ground.raft.spawn(async move {
        while !waking.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            let mut resting = 0;
            for group in waking.groups.read().values() {
                group.wake_if_over(now);
                resting += i64::from(group.rests());
            }
            waking.ground.metrics.resting.set(resting);
        }
    });
}

/// How a group stands: the term, and the last entry.
pub(crate) type Stand = (u64, u64);

/// How groups stood at the last beats, and since when.
type Since = HashMap<u64, (Stand, Instant)>;

/// Tells the other nodes which of the groups led here rest, and lets those rest to which all of them agree.
async fn tell(inner: &Inner, since: &mut Since) {
    let now = Instant::now();
    let groups: Vec<Arc<Group>> = {
        let groups = inner.groups.read();
        since.retain(|id, _| groups.contains_key(id));
        groups.values().cloned().collect()
    };
    let mut still = Vec::new();
    for group in groups {
        let stands = group.settled();
        let Some((stand, members)) = stands else {
            since.remove(&group.id.0);
            if group.leading().is_some() {
                group.wake();
            }
            continue;
        };
        let known = since.entry(group.id.0).or_insert((stand, now));
        if known.0 != stand {
            *known = (stand, now);
        }
        if now.duration_since(known.1) >= inner.config.rest_after {
            still.push((group, stand, members));
        } else {
            group.wake();
        }
    }
    let mut asked: BTreeMap<NodeId, Vec<Resting>> = BTreeMap::new();
    for (_, (term, last), members) in &still {
        for (replica, node) in members {
            let resting = Resting { replica: *replica, term: *term, last: *last };
            asked.entry(*node).or_default().push(resting);
        }
    }
    let answers = asked.into_iter().map(|(node, groups)| async move {
        match inner.ask(node, &Ask::Rest(groups), ANSWER).await {
            Ok(Reply::Rests(agreed)) => agreed,
            // Silence is no agreement; what is wrong is told where it matters.
            Ok(_) | Err(_) => Vec::new(),
        }
    });
    let agreed: HashSet<u64> = join_all(answers).await.into_iter().flatten().collect();
    for (group, stand, members) in still {
        let unchanged = group.settled().is_some_and(|(now, _)| now == stand);
        if unchanged && members.iter().all(|(replica, _)| agreed.contains(replica)) {
            group.rest(Instant::now() + LED);
        } else {
            // Tried again once it has been still for a while more.
            since.insert(group.id.0, (stand, Instant::now()));
            group.wake();
        }
    }
}

/// As a member: lets groups rest whose leaders on the node `from` say so and that stand here as said; gives those.
pub(crate) fn agree(inner: &Inner, from: NodeId, said: &[Resting]) -> Vec<u64> {
    let groups = inner.groups.read();
    let mut agreed = Vec::new();
    for resting in said {
        let Some(group) = groups.get(&resting.replica) else { continue };
        if group.agrees(from, *resting) {
            inner.heard.note(resting.replica, LogIndex(resting.last));
            group.rest(Instant::now() + spread(resting.replica, inner.node));
            agreed.push(resting.replica);
        } else {
            group.wake();
        }
    }
    agreed
}

/// A time between the two of [`FOLLOWED`]: another one for each replica.
fn spread(replica: u64, node: NodeId) -> Duration {
    let (least, most) = FOLLOWED;
    let mixed = (replica ^ node.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    least + (most - least).mul_f64(mixed as f64 / f64::from(u32::MAX))
}
