//! One Raft group on this node: starting it, knowing whether it leads, linearizable reads, purging its log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::seam::ShardWriteError;
use model::{Failure, LogIndex, NodeId, ReplicaId};
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::rt::WatchReceiver as _;
use openraft::{ChangeMembers, Config, Instant as _, ReadPolicy, SnapshotPolicy};
use storage::log::{GroupId, LogError, NodeLog};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ReplicationError;
use crate::apply::ApplyPool;
use crate::calls::Calls;
use crate::coding::term_of;
use crate::log_store::{GroupLog, place};
use crate::machine::{Machine, Target, applied_term};
use crate::metrics::Metrics;
use crate::network::Network;
use crate::rest::{Rest, Stand};
use crate::space::Spaceless;
use crate::types::{Applied, Membership, Peer, Proposal, Raft, RaftLogId};

/// When clients should come back while there is no leader.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// Reads that may wait for one probe.
const READ_QUEUE: usize = 4096;

/// Entries that a replica may be behind and still count as caught up.
const LAG: u64 = 64;

/// Within which time a member that is alive answers its leader.
const LATELY: Duration = Duration::from_secs(1);

/// Where a linearizable read waits for its index.
type ReadAnswer = oneshot::Sender<Result<LogIndex, LeadError>>;

/// Why a replica did not do what only a leader does.
#[derive(Clone, Debug)]
pub(crate) enum LeadError {
    /// It does not lead: nothing was proposed or read. The node that leads, as far as it knows.
    NotLeader(Option<NodeId>),
    /// It led and failed.
    Failed(Failure),
}

impl From<LeadError> for Failure {
    fn from(error: LeadError) -> Self {
        match error {
            LeadError::NotLeader(Some(node)) => {
                Self::unavailable(format!("this node does not lead, node {node} does"), RETRY)
            }
            LeadError::NotLeader(None) => Self::unavailable("there is no leader just now", RETRY),
            LeadError::Failed(failure) => failure,
        }
    }
}

impl From<LeadError> for ShardWriteError {
    fn from(error: LeadError) -> Self {
        match error {
            LeadError::NotLeader(leader) => Self::NotLeader { leader },
            LeadError::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// What groups are started with.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) log: Arc<NodeLog>,
    pub(crate) pool: Arc<ApplyPool>,
    pub(crate) peers: Arc<dyn Calls>,
    pub(crate) spaceless: Arc<Spaceless>,
    /// Raft's own runtime.
    pub(crate) raft: Handle,
    /// The runtime of proposers and probes.
    pub(crate) data: Handle,
    pub(crate) metrics: Arc<Metrics>,
}

/// A group that runs.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) id: GroupId,
    raft: Raft,
    log: Arc<NodeLog>,
    target: Target,
    /// Held while state is fetched.
    catching_up: tokio::sync::Mutex<()>,
    applied: watch::Receiver<Option<RaftLogId>>,
    reads: mpsc::Sender<ReadAnswer>,
    /// Whether its timers stand still.
    pub(crate) rest: Rest,
    /// The term in which this replica, as the leader, began to hand over: it proposes nothing more in it, whether or not
    /// the other one heard of that. 0 = none.
    handed_over: AtomicU64,
}

/// openraft's settings for every group.
fn settings(name: &str) -> Result<Arc<Config>, ReplicationError> {
    let config = Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: 200,
        election_timeout_min: 600,
        election_timeout_max: 1000,
        // Snapshots are virtual and made by our own triggers, and so is the purge: members that are behind a little get
        // log, not state.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        enable_pre_vote: Some(true),
        // A new term after each start: refs of an incarnation are never given twice.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| ReplicationError::group(name, error))
}

/// The replicas that a group begins with.
#[derive(Clone, Debug)]
pub(crate) struct Founders {
    /// All of them, as voters: the same on each.
    pub(crate) voters: BTreeMap<u64, Peer>,
    /// Whether this one stands for election at once; the others wait for it a moment.
    pub(crate) first: bool,
}

impl Group {
    /// Starts replica `id` of the group called `name`: replays what the log holds beyond the durable state. `founders`
    /// are those that a group begins with, when this is one of them; a replica that comes later has none and waits to
    /// hear from the leader.
    pub(crate) async fn start(
        ground: &Ground,
        name: String,
        id: GroupId,
        target: Target,
        founders: Option<Founders>,
    ) -> Result<Arc<Self>, ReplicationError> {
        check_log(&ground.log, id, &target, &name)?;
        let (machine, applied) =
            Machine::new(id.0, target.clone(), Arc::clone(&ground.pool), Arc::clone(&ground.log))?;
        let log = GroupLog::new(Arc::clone(&ground.log), id);
        let config = settings(&name)?;
        let network = Network::new(Arc::clone(&ground.peers), Arc::clone(&ground.spaceless), id.0);
        let failed = |error: &dyn std::fmt::Display| ReplicationError::group(&name, error);
        // openraft spawns its tasks where it is called: on Raft's own runtime.
        let start = ground.raft.spawn(async move {
            let raft =
                Raft::new(id.0, config, network, log, machine).await.map_err(|error| error.to_string())?;
            if let Some(Founders { voters, first }) = founders {
                // All founders write the same first entry; whoever has it already has been here before.
                if !raft.is_initialized().await.map_err(|error| error.to_string())? {
                    raft.initialize(voters).await.map_err(|error| error.to_string())?;
                }
                if first {
                    raft.trigger().elect(true).await.map_err(|error| error.to_string())?;
                }
            }
            Ok::<_, String>(raft)
        });
        let raft = start.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let (reads, queue) = mpsc::channel(READ_QUEUE);
        let log = Arc::clone(&ground.log);
        ground.data.spawn(answer_reads(raft.clone(), queue, Arc::clone(&ground.metrics), Arc::clone(&log)));
        Ok(Arc::new(Self {
            name,
            id,
            raft,
            log,
            target,
            catching_up: tokio::sync::Mutex::default(),
            applied,
            reads,
            rest: Rest::default(),
            handed_over: AtomicU64::new(0),
        }))
    }

    /// What it applies to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Held while state is fetched for this replica.
    pub(crate) fn catching_up(&self) -> &tokio::sync::Mutex<()> {
        &self.catching_up
    }

    /// openraft's handle, for messages of peers.
    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The term in which this replica leads, once it has applied an entry of that term.
    pub(crate) fn leading(&self) -> Option<u64> {
        // After a start the saved vote alone says "leader" already; only the state says that it leads in fact.
        if !self.raft.is_leader() {
            return None;
        }
        let term = self.raft.as_leader().ok()?.term();
        (applied_term(self.applied.borrow().as_ref()) == term).then_some(term)
    }

    /// The replica that leads as far as this one knows, with its node; a leader that died is named until another one is
    /// elected. `None` during elections, and before anybody was heard.
    pub(crate) fn leader(&self) -> Option<(ReplicaId, NodeId)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?.node;
        Some((ReplicaId(leader), NodeId(node)))
    }

    /// Whether this replica leads, or has applied everything that it knows its leader to have committed. False before
    /// a leader was heard.
    pub(crate) fn caught_up(&self) -> bool {
        if self.leading().is_some() {
            return true;
        }
        let Some((leader, _)) = self.leader() else { return false };
        if leader.0 == self.id.0 {
            return false;
        }
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        // What the leader says is committed comes with its first message after a start.
        let committed = data.cluster_committed.as_ref().map(RaftLogId::index);
        committed.is_some_and(|committed| {
            self.applied.borrow().as_ref().is_some_and(|applied| applied.index() + LAG >= committed)
        })
    }

    /// Whether this replica lacks more than the last few entries that it knows to be committed.
    pub(crate) fn is_behind(&self) -> bool {
        let (applied, committed) = self.progress();
        applied + LAG < committed
    }

    /// Waits until this replica is caught up, for as long as it takes. Fails when the group stops.
    pub(crate) async fn wait_caught_up(&self) -> Result<(), Failure> {
        self.wait_until(|| self.caught_up().then_some(())).await
    }

    /// Waits until this replica leads, at most `limit`. Answers at once when another one is known to lead.
    pub(crate) async fn wait_leading(&self, limit: Duration) -> Result<u64, LeadError> {
        let look = || match self.leading() {
            Some(term) => Some(Ok(term)),
            None => self
                .leader()
                .filter(|(replica, _)| replica.0 != self.id.0)
                .map(|(_, node)| Err(LeadError::NotLeader(Some(node)))),
        };
        match tokio::time::timeout(limit, self.wait_until(look)).await {
            Ok(Ok(result)) => result,
            Ok(Err(failure)) => Err(LeadError::Failed(failure)),
            Err(_) => Err(LeadError::NotLeader(None)),
        }
    }

    /// Waits until `look` gives something, looking again whenever the group's state changes.
    async fn wait_until<T>(&self, look: impl Fn() -> Option<T>) -> Result<T, Failure> {
        let mut applied = self.applied.clone();
        let mut server = self.raft.server_metrics();
        let mut data = self.raft.data_metrics();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            let changed = tokio::select! {
                changed = applied.changed() => changed.is_ok(),
                changed = server.changed() => changed.is_ok(),
                changed = data.changed() => changed.is_ok(),
            };
            if !changed {
                return Err(self.stopped());
            }
        }
    }

    /// Why the group runs no more.
    fn stopped(&self) -> Failure {
        let reason = match self.log.failure() {
            Some(error) => error.to_string(),
            None => format!("{} has stopped", self.name),
        };
        Failure::unavailable(reason, RETRY)
    }

    /// Proposes `entry` as the leader of `term`; gives what applying it gave. `NotLeader` means that it was not proposed;
    /// any other error: not known whether it was committed.
    pub(crate) async fn propose(&self, entry: Bytes, term: u64) -> Result<Applied, LeadError> {
        self.wake();
        let (responder, answer) = ProgressResponder::complete_only();
        let sent = self.raft.write(Proposal(entry)).with_leader(term).responder(responder).await;
        if sent.is_err() {
            return Err(LeadError::Failed(self.stopped()));
        }
        match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                Err(LeadError::NotLeader(to.leader_node.map(|peer| NodeId(peer.node))))
            }
            Ok(Err(error)) => {
                Err(LeadError::Failed(Failure::unavailable(format!("{}: {error}", self.name), RETRY)))
            }
            Err(_) => Err(LeadError::Failed(self.stopped())),
        }
    }

    /// As the leader: the log index up to which a replica must have applied to see every write that was acknowledged
    /// before the call. This replica has applied it. Calls that wait at the same time share one probe of the majority.
    pub(crate) async fn read_index(&self) -> Result<LogIndex, LeadError> {
        let (sender, receiver) = oneshot::channel();
        let stopped = || LeadError::Failed(self.stopped());
        self.reads.send(sender).await.map_err(|_| stopped())?;
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Waits until this replica has applied the entry at `index`, at most `limit`.
    pub(crate) async fn wait_applied(&self, index: LogIndex, limit: Duration) -> Result<(), Failure> {
        let look = || {
            let applied = self.applied.borrow().as_ref().map(RaftLogId::index);
            applied.is_some_and(|applied| applied >= index.0).then_some(())
        };
        let late = |_| {
            let reason = format!("{} has not applied entry {index} here within {limit:?}", self.name);
            Err(Failure::unavailable(reason, RETRY))
        };
        tokio::time::timeout(limit, self.wait_until(look)).await.unwrap_or_else(late)
    }

    /// Purges the log up to what is durable; a leader keeps what a member has not got yet, and one that follows keeps
    /// everything (it may lead soon), unless `all`: then members that are behind will be sent state.
    pub(crate) async fn purge_durable(&self, all: bool) -> Result<(), Failure> {
        #[cfg(feature = "seeded_bugs")]
        crate::seeded::purge_applied(&self.log, self.id, &self.target);
        let durable = self.target.durable()?;
        let Some(durable) = durable.last else { return Ok(()) };
        let upto = match self.least_matched() {
            _ if all => durable.index(),
            Some(matched) => durable.index().min(matched),
            None => return Ok(()),
        };
        if self.log.state(self.id).is_ok_and(|state| state.first > upto) {
            return Ok(());
        }
        self.raft.trigger().snapshot().await.map_err(|_| self.stopped())?;
        // openraft purges what a snapshot covers, and building one takes a moment.
        let covered = || {
            let data = self.raft.data_metrics();
            let snapshot = data.borrow_watched().snapshot.as_ref().map(RaftLogId::index);
            snapshot.is_some_and(|snapshot| snapshot >= upto).then_some(())
        };
        let late = |_| Err(Failure::unavailable(format!("{}: no snapshot was noted", self.name), RETRY));
        tokio::time::timeout(Duration::from_secs(10), self.wait_until(covered)).await.unwrap_or_else(late)?;
        self.raft.trigger().purge_log(upto).await.map_err(|_| self.stopped())
    }

    /// As the leader: the last entry that all members have; `None` when this replica does not lead.
    fn least_matched(&self) -> Option<u64> {
        self.leading()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let matched = replication.values().map(|matched| matched.as_ref().map_or(0, RaftLogId::index));
        Some(matched.min().unwrap_or(u64::MAX))
    }

    /// The membership in effect.
    pub(crate) fn membership(&self) -> Membership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().clone()
    }

    /// As the leader: how far each member is with the log, by replica, and the last entry.
    pub(crate) fn positions(&self) -> (BTreeMap<u64, u64>, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<RaftLogId>| id.as_ref().map_or(0, RaftLogId::index);
        let replication = metrics.replication.iter().flatten();
        let positions = replication.map(|(id, matched)| (*id, index(matched))).collect();
        (positions, metrics.last_log_index.unwrap_or(0))
    }

    /// As the leader: whether `replica` has all but the last few entries.
    pub(crate) fn is_current(&self, replica: u64) -> bool {
        let (positions, last) = self.positions();
        positions.get(&replica).is_some_and(|at| at + LAG >= last && *at > 0)
    }

    /// As the leader: the term and the last entry, once it is applied here and all members have it, with the other
    /// members and their nodes. `None` also while the membership changes, and once the leadership is being handed over:
    /// then the others' timers must run, or nobody leads where the request to take over was lost.
    pub(crate) fn settled(&self) -> Option<(Stand, Vec<(u64, NodeId)>)> {
        let term = self.leading().filter(|term| self.handed_over.load(Ordering::Relaxed) != *term)?;
        let applied = self.applied.borrow().as_ref().map(RaftLogId::index)?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        if metrics.last_log_index != Some(applied) || membership.get_joint_config().len() != 1 {
            return None;
        }
        let matched = metrics.replication.as_ref()?;
        let others = membership.nodes().filter(|(id, _)| **id != self.id.0);
        let others: Vec<_> = others.map(|(id, peer)| (*id, NodeId(peer.node))).collect();
        let has_all = |id: &u64| {
            matched.get(id).and_then(Option::as_ref).is_some_and(|matched| matched.index() == applied)
        };
        others.iter().all(|(id, _)| has_all(id)).then_some(((term, applied), others))
    }

    /// As the leader: whether `replica` has answered lately.
    pub(crate) fn answers(&self, replica: u64) -> bool {
        if self.rests() {
            return true;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answered =
            metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&replica).copied().flatten());
        answered.is_some_and(|at| at.elapsed() < LATELY)
    }

    /// As the leader: takes a replica in that has no vote yet; its log or state is sent from now on.
    pub(crate) async fn add_learner(&self, replica: u64, peer: Peer) -> Result<(), Failure> {
        self.wake();
        let added = self.raft.add_learner(replica, peer, false).await;
        added.map(|_| ()).map_err(|error| self.not_changed(&error))
    }

    /// As the leader: makes `voters` those who vote, by one joint change; who voted before and does not now stays as a
    /// learner.
    pub(crate) async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), Failure> {
        self.wake();
        let changed = self.raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await;
        changed.map(|_| ()).map_err(|error| self.not_changed(&error))
    }

    /// As the leader: takes replicas out that have no vote.
    pub(crate) async fn remove_learners(&self, replicas: BTreeSet<u64>) -> Result<(), Failure> {
        self.wake();
        let changed = self.raft.change_membership(ChangeMembers::RemoveNodes(replicas), true).await;
        changed.map(|_| ()).map_err(|error| self.not_changed(&error))
    }

    fn not_changed(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::unavailable(format!("{}: the membership was not changed: {error}", self.name), RETRY)
    }

    /// As the leader: hands leadership to `replica`, and waits until this one does not lead any more, at most `limit`.
    pub(crate) async fn transfer(&self, replica: u64, limit: Duration) -> Result<(), Failure> {
        self.wake();
        if let Some(term) = self.leading() {
            self.handed_over.store(term, Ordering::Relaxed);
        }
        self.raft.trigger().transfer_leader(replica).await.map_err(|_| self.stopped())?;
        let follows = || (!self.raft.is_leader()).then_some(());
        let late = |_| {
            let reason = format!("{}: leadership was not taken over within {limit:?}", self.name);
            Err(Failure::unavailable(reason, RETRY))
        };
        tokio::time::timeout(limit, self.wait_until(follows)).await.unwrap_or_else(late)
    }

    /// As the leader: the voter to hand leadership to, one of those that `may` lead and has all of the log.
    pub(crate) fn successor(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        self.leading()?;
        let (positions, _) = self.positions();
        let membership = self.membership();
        let others = membership.voter_ids().filter(|id| *id != self.id.0);
        others
            .filter(|id| may(*id))
            .filter(|id| self.is_current(*id) && self.answers(*id))
            .max_by_key(|id| positions.get(id).copied())
    }

    /// How far applying is, for those who wait for changes.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<RaftLogId>> {
        self.applied.clone()
    }

    /// The last entry applied here, and the last one that the leader says is committed, as far as known.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let applied = self.applied.borrow().as_ref().map_or(0, RaftLogId::index);
        let data = self.raft.data_metrics();
        let data = data.borrow_watched();
        let committed = data.cluster_committed.as_ref().map_or(0, RaftLogId::index);
        (applied, committed.max(applied))
    }

    /// Entries in the log that are not applied.
    pub(crate) fn replay_left(&self) -> u64 {
        let last = self.log.state(self.id).ok().and_then(|state| state.last).map_or(0, |last| last.index);
        last.saturating_sub(self.applied.borrow().as_ref().map_or(0, RaftLogId::index))
    }

    /// Why Raft has stopped by itself, if it has: an entry that cannot be applied, a panic, a log that failed. Nothing but a
    /// restart of the node starts it again.
    pub(crate) fn broken(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
        }
    }

    /// Stops Raft for good and waits until nothing of this run can touch the state any more, for as long as that takes.
    pub(crate) async fn end(&self, pool: &ApplyPool) {
        self.stop().await;
        // Its state machine says so as it goes; entries that it handed over by then come first.
        let mut applied = self.applied.clone();
        while applied.changed().await.is_ok() {}
        pool.drained(self.id.0, self.target.clone()).await;
    }

    /// Stops Raft; the log and the state stay.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.name, %error, "a Raft group did not stop cleanly");
        }
    }
}

/// The log must reach at least as far as the durable state, and be whole above it.
fn check_log(log: &NodeLog, id: GroupId, target: &Target, name: &str) -> Result<(), ReplicationError> {
    let durable = target.durable()?;
    let Some(durable) = durable.last else {
        log.state(id)?;
        return Ok(());
    };
    let state = match log.state(id) {
        Ok(state) => state,
        Err(LogError::Damaged { .. }) => {
            // What is damaged may lie below the durable state; then nothing is lost.
            log.purge_wait(id, place(&durable))?;
            log.state(id)?
        }
        Err(error) => return Err(error.into()),
    };
    let last = state.last.map_or(0, |last| last.index);
    if state.last.is_none() || last < durable.index() {
        let reason = format!(
            "the node log ends at entry {last}, but entry {} was already stored: part of the log was lost or put back \
             from a copy; `isobar tsdb salvage` goes on from what is stored",
            durable.index()
        );
        return Err(ReplicationError::group(name, reason));
    }
    debug_assert!(term_of(&durable) > 0 || durable.index() == 0, "entries of a leader have a term");
    Ok(())
}

/// Answers linearizable reads: one probe of leadership for all that wait.
async fn answer_reads(
    raft: Raft,
    mut queue: mpsc::Receiver<ReadAnswer>,
    metrics: Arc<Metrics>,
    #[cfg_attr(not(feature = "seeded_bugs"), expect(unused_variables, reason = "for seeded bugs"))] log: Arc<
        NodeLog,
    >,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, READ_QUEUE).await > 0 {
        #[cfg(feature = "seeded_bugs")]
        if let Some(index) = crate::seeded::unproven_read(&log, &raft) {
            for reader in waiting.drain(..) {
                let _ = reader.send(Ok(index));
            }
            continue;
        }
        metrics.reads.inc_by(waiting.len() as u64);
        metrics.read_probes.inc();
        let result = match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(at) => Ok(LogIndex(at.log_id().index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(LeadError::NotLeader(to.leader_node.map(|peer| NodeId(peer.node))))
            }
            Err(error) => {
                Err(LeadError::Failed(Failure::unavailable(format!("no linearizable read: {error}"), RETRY)))
            }
        };
        for reader in waiting.drain(..) {
            // A reader that went away does not matter.
            let _ = reader.send(result.clone());
        }
    }
}
