//! A replica whose state differs from the majority's serves no longer, and gets its state anew (I7, I17).
//!
//! ```text
//! found ── noted on disk, no reads, leadership handed over ──► kept aside ──► fetched ──► replica starts again
//!   ▲                                                                                            │
//!   └───────────────────────────── still differs ◄── compared with a majority ◄──────────────────┘
//!                                                      └── equal: the note goes, it serves
//! ```
//!
//! Its log and votes are right, only what was made of them is not: it goes on voting and following, but is never elected.
//! The log above the fetched state stays, so that nothing acknowledged gets fewer copies by this. The old state stays in
//! `quarantine/` for people to look at, in the form in which states travel (`storage/src/transfer.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Failure, NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use storage::log::{GroupId, LogId};
use storage::{Incoming, Shard, Subject};

use crate::ReplicationError;
use crate::catch_up;
use crate::compare;
use crate::folder::write_synced;
use crate::group::Group;
use crate::machine::Target;
use crate::node::{Inner, Local, serve, start_replica};

/// Between two attempts to get the state anew.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a replica may take to catch up before it is compared.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long a leadership may take to change hands.
const TRANSFER: Duration = Duration::from_secs(3);
/// States that are kept aside, at most: the newest.
const KEPT: usize = 3;

/// Why a replica is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) shard: ShardId,
    pub(crate) replica: u64,
    /// The entry at which it differed.
    pub(crate) index: u64,
    /// The hash of its state there.
    pub(crate) here: u64,
    /// The majority's.
    pub(crate) right: u64,
    /// The replicas that had it.
    pub(crate) healthy: Vec<u64>,
    /// When it was found, ms.
    pub(crate) found_ms: i64,
    /// Whether its state was fetched since, and is to be compared.
    pub(crate) fetched: bool,
}

impl Note {
    /// What people are told.
    fn reason(&self) -> String {
        format!(
            "the replica of shard {} here is in quarantine: at log entry {} its state {:016x} differed from the \
             majority's, {:016x}; it is fetched again from another node",
            self.shard, self.index, self.here, self.right
        )
    }

    fn encode(&self) -> String {
        let healthy: Vec<String> = self.healthy.iter().map(u64::to_string).collect();
        format!(
            "{} {} {} {:016x} {:016x} {} {} {}\n",
            self.shard.0,
            self.replica,
            self.index,
            self.here,
            self.right,
            healthy.join(","),
            self.found_ms,
            self.fetched
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let note = Self {
            shard: ShardId(words.next()?.parse().ok()?),
            replica: words.next()?.parse().ok()?,
            index: words.next()?.parse().ok()?,
            here: u64::from_str_radix(words.next()?, 16).ok()?,
            right: u64::from_str_radix(words.next()?, 16).ok()?,
            healthy: words.next()?.split(',').map(|id| id.parse().ok()).collect::<Option<_>>()?,
            found_ms: words.next()?.parse().ok()?,
            fetched: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(note)
    }
}

/// The replicas here that are in quarantine, by replica; on disk too, a file each.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    dir: PathBuf,
    notes: Mutex<BTreeMap<u64, Note>>,
}

impl Quarantine {
    /// Reads the notes in `dir`, which need not be there.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, ReplicationError> {
        let failed = |what| ReplicationError::io(dir.display().to_string(), what);
        let mut notes = BTreeMap::new();
        for name in names(&dir).map_err(failed("list"))?.into_iter().filter(|name| name.starts_with("note-"))
        {
            let path = dir.join(&name);
            let text = std::fs::read_to_string(&path).map_err(failed("read a note of"))?;
            let damaged = || ReplicationError::Meta(format!("{} is damaged; remove it", path.display()));
            let note = Note::decode(&text).ok_or_else(damaged)?;
            notes.insert(note.replica, note);
        }
        Ok(Self { dir, notes: Mutex::new(notes) })
    }

    pub(crate) fn contains(&self, replica: u64) -> bool {
        self.notes.lock().contains_key(&replica)
    }

    pub(crate) fn len(&self) -> usize {
        self.notes.lock().len()
    }

    /// Why that replica serves nothing, if it is in here.
    pub(crate) fn reason(&self, replica: u64) -> Option<String> {
        self.notes.lock().get(&replica).map(Note::reason)
    }

    /// Why one of them serves nothing.
    pub(crate) fn any(&self) -> Option<String> {
        self.notes.lock().values().next().map(Note::reason)
    }

    /// Whether this node's replica of the shard is in here.
    pub(crate) fn holds(&self, shard: ShardId) -> bool {
        self.notes.lock().values().any(|note| note.shard == shard)
    }

    fn note_path(&self, replica: u64) -> PathBuf {
        self.dir.join(format!("note-{replica:016x}"))
    }

    fn write(&self, note: &Note) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        write_synced(&self.dir, &self.note_path(note.replica), note.encode().as_bytes())
    }

    /// Where the state is kept that was found wrong: of one that was found later the name comes later.
    fn kept_dir(&self, note: &Note) -> PathBuf {
        self.dir.join(format!("state-{:015}-shard-{}-replica-{}", note.found_ms, note.shard, note.replica))
    }

    /// Takes note of whether the state was fetched.
    fn set_fetched(&self, replica: u64, fetched: bool) -> std::io::Result<()> {
        let note = self.notes.lock().get_mut(&replica).map(|note| {
            note.fetched = fetched;
            note.clone()
        });
        note.map_or(Ok(()), |note| self.write(&note))
    }
}

/// The names in a folder, in order; none where it is not there.
fn names(dir: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Takes a replica out of service whose state is wrong, and has it made right in the background.
pub(crate) async fn begin(inner: &Arc<Inner>, group: &Arc<Group>, shard: &Arc<Shard>, note: Note) {
    let (id, replica, reason) = (note.shard, note.replica, note.reason());
    if inner.quarantine.notes.lock().insert(replica, note.clone()).is_some() {
        return;
    }
    // From here on nothing is read from it, also by queries under way.
    shard.withhold(Some(reason.clone()));
    inner.metrics.quarantines.inc();
    compare::note_metrics(inner);
    tracing::error!(shard = id.0, replica, index = note.index, %reason, "a replica goes into quarantine");
    let (noted, noting) = (note.clone(), Arc::clone(inner));
    let written = inner.ground.pool.aside(move || noting.quarantine.write(&noted)).await;
    if let Err(error) = written.and_then(|done| done.map_err(|e| Failure::internal(e.to_string()))) {
        // Until the next start it is in quarantine all the same; then it will be found again.
        tracing::error!(shard = id.0, %error, "the quarantine of a replica could not be noted");
    }
    group.raft().runtime_config().elect(false);
    if let Some(to) = group.successor(|replica| note.healthy.contains(&replica))
        && let Err(failure) = group.transfer(to, TRANSFER).await
    {
        // It ends when the replica is started again.
        tracing::warn!(shard = id.0, %failure, "the leadership of a replica in quarantine was not handed over");
    }
    inner.set(id, Local::Failed(reason));
    let inner = Arc::clone(inner);
    inner.ground.data.clone().spawn(async move { cure(&inner, id, ReplicaId(replica)).await });
}

/// Makes a replica in quarantine right, for as long as that takes; then it serves.
pub(crate) async fn cure(inner: &Arc<Inner>, shard: ShardId, replica: ReplicaId) {
    let mut attempt = 0;
    while !inner.stopping.load(Ordering::Relaxed) {
        match attempt_cure(inner, shard, replica, attempt).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(shard = shard.0, %error, "a replica stays in quarantine"),
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt_cure(
    inner: &Arc<Inner>,
    id: ShardId,
    replica: ReplicaId,
    attempt: usize,
) -> Result<(), ReplicationError> {
    let name = format!("shard {id}");
    let failed = |reason: &dyn std::fmt::Display| ReplicationError::group(&name, reason);
    let note = inner.quarantine.notes.lock().get(&replica.0).cloned();
    let Some(note) = note else { return Ok(()) };
    let running = inner.groups.read().get(&replica.0).cloned();
    let group = match running {
        Some(group) => group,
        // It was to be started again before, and that failed.
        None => start_replica(inner, id, replica, None).await?.0,
    };
    let Target::Shard(shard) = group.target().clone() else { return Ok(()) };
    let group = if note.fetched {
        group
    } else {
        keep(inner, &shard, &note).await;
        let others = compare::others(&group);
        let from =
            source(&group, &others, &note, attempt).ok_or_else(|| failed(&"no healthy replica is known"))?;
        replace(inner, id, &group, from).await?
    };
    if !is_right(inner, &group).await? {
        set_fetched(inner, replica, false).await?;
        return Err(failed(&"the state that was fetched differs from the majority's too"));
    }
    let (path, dir) = (inner.quarantine.note_path(replica.0), inner.quarantine.dir.clone());
    let removed = inner.ground.pool.aside(move || match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::File::open(dir)?.sync_all(),
    });
    removed.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    inner.quarantine.notes.lock().remove(&replica.0);
    compare::note_metrics(inner);
    shard.withhold(None);
    group.raft().runtime_config().elect(true);
    tracing::info!(shard = id.0, "a replica is as the majority again and leaves quarantine");
    serve(inner, id, group, shard).await
}

/// Has the state of a replica fetched from the node `from`, and the replica started again over it.
async fn replace(
    inner: &Arc<Inner>,
    id: ShardId,
    group: &Arc<Group>,
    from: NodeId,
) -> Result<Arc<Group>, ReplicationError> {
    let failed = |reason: &dyn std::fmt::Display| ReplicationError::group(&group.name, reason);
    let (key, dir) = (group.id, inner.folder.incoming_dir(group.id.0));
    let replica = ReplicaId(key.0);
    let _one = group.catching_up().lock().await;
    let fetched = catch_up::fetch(inner, Subject::Shard(id), &group.name, &dir, from).await;
    let at = catch_up::place_of(&fetched.map_err(|error| failed(&error))?)?;
    let at = at.ok_or_else(|| failed(&"what was fetched is empty"))?;
    if inner.stopping.load(Ordering::Relaxed) {
        return Err(failed(&"the node is stopping"));
    }
    inner.groups.write().remove(&key.0);
    group.end(&inner.ground.pool).await;
    let log = Arc::clone(&inner.log);
    let given_up = inner.ground.pool.aside(move || give_up_below(&log, key, at)).await;
    // Whatever came of it, the replica runs again; what was fetched is taken over first, where the log allows that.
    let (group, _) = start_replica(inner, id, replica, None).await?;
    given_up.map_err(|error| failed(&error))??;
    set_fetched(inner, replica, true).await?;
    Ok(group)
}

async fn set_fetched(inner: &Arc<Inner>, replica: ReplicaId, fetched: bool) -> Result<(), ReplicationError> {
    let noting = Arc::clone(inner);
    let noted = inner.ground.pool.aside(move || noting.quarantine.set_fetched(replica.0, fetched)).await;
    let failed = |reason: &dyn std::fmt::Display| ReplicationError::group("quarantine", reason);
    noted.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

async fn is_right(inner: &Inner, group: &Group) -> Result<bool, ReplicationError> {
    let failed = |reason: &dyn std::fmt::Display| ReplicationError::group(&group.name, reason);
    let caught_up = tokio::time::timeout(CATCH_UP, group.wait_caught_up()).await;
    caught_up.map_err(|_| failed(&"it does not catch up"))?.map_err(|error| failed(&error))?;
    compare::is_right(inner, group).await.map_err(|error| failed(&error))
}

/// The node to fetch from: the leader's if it is known to be right, else another one after the other.
fn source(group: &Group, others: &BTreeMap<u64, NodeId>, note: &Note, attempt: usize) -> Option<NodeId> {
    let leader = group.leader().map(|(replica, _)| replica.0);
    let mut healthy: Vec<u64> = others.keys().copied().filter(|id| note.healthy.contains(id)).collect();
    healthy.sort_by_key(|id| Some(*id) != leader);
    let at = healthy.get(attempt % healthy.len().max(1))?;
    others.get(at).copied()
}

/// Gives up the log up to the place of the state that follows. Fails when the log begins above it. Blocks.
fn give_up_below(log: &storage::log::NodeLog, group: GroupId, at: LogId) -> Result<(), ReplicationError> {
    if log.state(group)?.purged.is_some_and(|purged| purged.index > at.index) {
        return Err(ReplicationError::group("the log", "it begins above the state that was fetched"));
    }
    catch_up::give_up_below(log, group, at)
}

/// Keeps the state as it is beside, once, where there is space; of earlier ones the newest stay.
async fn keep(inner: &Arc<Inner>, shard: &Arc<Shard>, note: &Note) {
    let (shard, note, keeping) = (Arc::clone(shard), note.clone(), Arc::clone(inner));
    let kept = inner.ground.pool.aside(move || {
        let quarantine = &keeping.quarantine;
        let dir = quarantine.kept_dir(&note);
        let mut incoming = Incoming::open(&dir, Subject::Shard(note.shard))?;
        if incoming.is_complete() {
            return Ok(());
        }
        incoming.restart()?;
        let mut failure = keeping.guard.check().err();
        let exported = failure.is_none().then(|| {
            shard.export(&incoming.known().into_iter().collect(), &mut |piece| {
                let taken = keeping.guard.check().and_then(|()| Ok(incoming.take(&piece)?));
                failure = taken.err();
                failure.is_none()
            })
        });
        let io = |error: std::io::Error| Failure::internal(error.to_string());
        if let Some(failure) = failure.or(exported.and_then(Result::err).map(Failure::from)) {
            std::fs::remove_dir_all(&dir).map_err(io)?;
            return Err(failure);
        }
        tracing::info!(shard = note.shard.0, dir = %dir.display(), "the state of a replica in quarantine is kept");
        let all = names(&quarantine.dir).map_err(io)?;
        let mut states: Vec<_> = all.into_iter().filter(|name| name.starts_with("state-")).collect();
        states.retain(|name| quarantine.dir.join(name) != dir);
        for old in states.iter().rev().skip(KEPT - 1) {
            std::fs::remove_dir_all(quarantine.dir.join(old)).map_err(io)?;
        }
        Ok::<_, Failure>(())
    });
    if let Err(failure) = kept.await.and_then(|kept| kept) {
        tracing::warn!(%failure, "the state of a replica in quarantine is not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("quarantine");
        assert_eq!(Quarantine::open(dir.clone()).unwrap().len(), 0);
        let note = Note {
            shard: ShardId(3),
            replica: 9,
            index: 100,
            here: 1,
            right: u64::MAX,
            healthy: vec![7, 8],
            found_ms: 5,
            fetched: false,
        };
        let quarantine = Quarantine::open(dir.clone()).unwrap();
        quarantine.write(&note).unwrap();
        let again = Quarantine::open(dir.clone()).unwrap();
        assert_eq!(again.notes.lock().values().collect::<Vec<_>>(), [&note]);
        assert!(again.holds(ShardId(3)) && !again.holds(ShardId(4)) && again.contains(9));
        again.set_fetched(9, true).unwrap();
        assert!(Quarantine::open(dir.clone()).unwrap().notes.lock()[&9].fetched);
        std::fs::write(quarantine.note_path(9), "3 9").unwrap();
        assert!(Quarantine::open(dir).unwrap_err().to_string().contains("is damaged"));
    }
}
