//! One Raft group on this node: starting it, knowing whether it leads, linearizable reads, purging its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::Failure;
use openraft::impls::ProgressResponder;
use openraft::rt::WatchReceiver as _;
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use storage::log::{GroupId, LogError, NodeLog};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ReplicationError;
use crate::apply::ApplyPool;
use crate::coding::term_of;
use crate::log_store::{GroupLog, place};
use crate::machine::{Machine, Target, applied_term};
use crate::metrics::Metrics;
use crate::network::NoPeers;
use crate::types::{Applied, Peer, Proposal, Raft, RaftLogId};

/// When clients should come back while there is no leader.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// Reads that may wait for one probe.
const READ_QUEUE: usize = 4096;

/// What groups are started with.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) node: u64,
    pub(crate) log: Arc<NodeLog>,
    pub(crate) pool: Arc<ApplyPool>,
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
    applied: watch::Receiver<Option<RaftLogId>>,
    reads: mpsc::Sender<oneshot::Sender<Result<(), Failure>>>,
}

/// openraft's settings for every group.
fn settings(name: &str) -> Result<Arc<Config>, ReplicationError> {
    let config = Config {
        cluster_name: name.to_owned(),
        heartbeat_interval: 200,
        election_timeout_min: 600,
        election_timeout_max: 1000,
        // Snapshots are virtual and made by our own triggers; everything that one covers is purged.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        replication_lag_threshold: u64::MAX,
        enable_pre_vote: Some(true),
        // A new term after each start: refs of an incarnation are never given twice.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| ReplicationError::group(name, error))
}

impl Group {
    /// Starts replica `id` of the group called `name`: replays what the log holds beyond the durable state, and stands
    /// for election at once if nobody leads. `form_with` are the members of a group that has no log yet anywhere.
    pub(crate) async fn start(
        ground: &Ground,
        name: String,
        id: GroupId,
        target: Target,
        form_with: Option<BTreeMap<u64, Peer>>,
    ) -> Result<Arc<Self>, ReplicationError> {
        let purge_to = check_log(&ground.log, id, &target, &name)?;
        let (machine, applied) = Machine::new(id.0, target.clone(), Arc::clone(&ground.pool))?;
        let log = GroupLog::new(Arc::clone(&ground.log), id);
        let config = settings(&name)?;
        let failed = |error: &dyn std::fmt::Display| ReplicationError::group(&name, error);
        // openraft spawns its tasks where it is called: on Raft's own runtime.
        let start = ground.raft.spawn(async move {
            let raft =
                Raft::new(id.0, config, NoPeers, log, machine).await.map_err(|error| error.to_string())?;
            if let Some(members) = form_with
                && !raft.is_initialized().await.map_err(|error| error.to_string())?
            {
                raft.initialize(members).await.map_err(|error| error.to_string())?;
            }
            raft.trigger().elect(true).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(raft)
        });
        let raft = start.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let (reads, queue) = mpsc::channel(READ_QUEUE);
        if let Some(durable) = &purge_to {
            raft.trigger().purge_log(durable.index()).await.map_err(|error| failed(&error))?;
        }
        ground.data.spawn(answer_reads(raft.clone(), queue, Arc::clone(&ground.metrics)));
        Ok(Arc::new(Self { name, id, raft, log: Arc::clone(&ground.log), applied, reads }))
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

    /// Waits until this replica leads, at most `limit`.
    pub(crate) async fn wait_leading(&self, limit: Duration) -> Result<u64, Failure> {
        let mut applied = self.applied.clone();
        let mut metrics = self.raft.server_metrics();
        let wait = async {
            loop {
                if let Some(term) = self.leading() {
                    return Ok(term);
                }
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return Err(self.stopped()) },
                    changed = metrics.changed() => if changed.is_err() { return Err(self.stopped()) },
                }
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(term) => term,
            Err(_) => Err(Failure::unavailable(format!("{} has no leader here just now", self.name), RETRY)),
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

    /// Proposes `entry` as the leader of `term`; gives what applying it gave. An error means: not known whether it was
    /// committed.
    pub(crate) async fn propose(&self, entry: Bytes, term: u64) -> Result<Applied, Failure> {
        let (responder, answer) = ProgressResponder::complete_only();
        let sent = self.raft.write(Proposal(entry)).with_leader(term).responder(responder).await;
        if sent.is_err() {
            return Err(self.stopped());
        }
        match answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => Err(Failure::unavailable(format!("{}: {error}", self.name), RETRY)),
            Err(_) => Err(self.stopped()),
        }
    }

    /// Returns once this replica has applied every write that was acknowledged before the call.
    pub(crate) async fn linearize(&self) -> Result<(), Failure> {
        let (sender, receiver) = oneshot::channel();
        self.reads.send(sender).await.map_err(|_| self.stopped())?;
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Purges the log up to the durable mark: openraft takes a (virtual) snapshot at it and purges below.
    pub(crate) async fn purge_durable(&self) -> Result<(), Failure> {
        self.raft.trigger().snapshot().await.map_err(|_| self.stopped())
    }

    /// Entries in the log that are not applied.
    pub(crate) fn replay_left(&self) -> u64 {
        let last = self.log.state(self.id).ok().and_then(|state| state.last).map_or(0, |last| last.index);
        last.saturating_sub(self.applied.borrow().as_ref().map_or(0, RaftLogId::index))
    }

    /// Stops Raft; the log and the state stay.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.name, %error, "a Raft group did not stop cleanly");
        }
    }
}

/// The log must reach at least as far as the durable state, and be whole above it. Gives where the durable state ends.
fn check_log(
    log: &NodeLog,
    id: GroupId,
    target: &Target,
    name: &str,
) -> Result<Option<RaftLogId>, ReplicationError> {
    let durable = target.durable()?;
    let Some(durable) = durable.last else {
        log.state(id)?;
        return Ok(None);
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
    Ok(Some(durable))
}

/// Answers linearizable reads: one probe of leadership for all that wait.
async fn answer_reads(
    raft: Raft,
    mut queue: mpsc::Receiver<oneshot::Sender<Result<(), Failure>>>,
    metrics: Arc<Metrics>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, READ_QUEUE).await > 0 {
        metrics.reads.inc_by(waiting.len() as u64);
        metrics.read_probes.inc();
        let result = match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::unavailable(format!("no linearizable read: {error}"), RETRY)),
        };
        for reader in waiting.drain(..) {
            // A reader that went away does not matter.
            let _ = reader.send(result.clone());
        }
    }
}
