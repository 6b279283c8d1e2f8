//! A copy of everything that a cluster holds, which can be started as a node of its own.
//!
//! The node that is asked takes a linearizable read index of each shard, so that everything acknowledged before the call
//! is in the copy, and gathers each shard's state at or after it: from its own database, which is copied by sharing its
//! files, or from another node, as one that catches up does. A copy of each node, put together later, would be of several
//! moments and could hold different entries under one number; so this one becomes a cluster of its own, with one member:
//! a new id of the cluster and of the node, one voter in each group, and in each group one entry more that says so, with
//! the log given up to there. It can grow by nodes that join it; nodes of the old cluster refuse it and are refused.
//!
//! Until it is whole it is called `….part`; those are removed at the next start and before the next snapshot.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use model::{Failure, LogIndex, NodeId, ReplicaId, ShardId, time};
use prometheus_client::registry::Registry;
use storage::log::{DiskFiles, GroupId, LogConfig, LogId, NodeLog, Vote};
use storage::{Incoming, Store, Subject};

use super::{Inner, Replication};
use crate::ReplicationError;
use crate::catch_up;
use crate::coding::Mark;
use crate::folder::{Identity, Standing, random, remove_parts, write_identity};
use crate::group::RETRY;
use crate::log_store::{place, raft_id};
use crate::machine::Target;
use crate::meta::{self, Cluster};
use crate::talk::{Ask, Reply};
use crate::types::{Membership, Peer, StoredMembership};

/// Bytes of the segments of a copy's log, which has next to nothing in it; the node that starts on it makes larger ones.
const SEGMENT_BYTES: u64 = 1 << 20;
/// How long a node may take to say how large its shards are.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(2);

/// Where the state of a shard is.
enum Found {
    /// In this node's database, as that replica's.
    Here(ReplicaId),
    /// Fetched from another node.
    Fetched(Incoming),
}

/// Makes the copy and gives its name below `snapshots/` of the data folder.
pub(super) async fn take(inner: &Arc<Inner>) -> Result<String, Failure> {
    let Ok(_one) = inner.snapshotting.try_lock() else {
        return Err(Failure::unavailable("another snapshot is being made", RETRY * 10));
    };
    let cluster = inner.cluster()?;
    let shards = cluster.map.all_shards();
    let read = shards.iter().map(|shard| async move { (*shard, inner.read_index(*shard).await) });
    let (mut points, mut missing) = (Vec::new(), Vec::new());
    for (shard, index) in join_all(read.collect::<Vec<_>>()).await {
        match index {
            Ok(index) => points.push((shard, index)),
            Err(failure) => missing.push(failure.message),
        }
    }
    if !missing.is_empty() {
        let reason = format!("no snapshot without all shards: {}", missing.join("; "));
        return Err(Failure::unavailable(reason, RETRY * 2));
    }
    // As upstream names them: a time and a number that no other has.
    let now: String = time::format_rfc3339(inner.clock.now_ms()).chars().take(19).collect();
    let name = format!("{}Z-{:016x}", now.replace(['-', ':'], ""), random());
    let all = inner.folder.snapshots_dir();
    remove_parts(&all)?;
    let (part, whole) = (all.join(format!("{name}.part")), all.join(&name));
    let made = make(inner, cluster, points, &part).await.and_then(|()| {
        std::fs::rename(&part, &whole)
            .and_then(|()| File::open(&all)?.sync_all())
            .map_err(ReplicationError::io(whole.display().to_string(), "name the snapshot"))?;
        Ok(())
    });
    if let Err(failure) = made {
        // Half a copy is none; what stopped it is what is told.
        let _ = remove_parts(&all);
        return Err(failure);
    }
    Ok(name)
}

async fn make(
    inner: &Arc<Inner>,
    cluster: Arc<Cluster>,
    points: Vec<(ShardId, LogIndex)>,
    part: &Path,
) -> Result<(), Failure> {
    let (mut found, mut elsewhere) = (BTreeMap::new(), Vec::new());
    for (shard, index) in points {
        // What was there a moment ago may need a moment here.
        let caught_up = match inner.local(shard) {
            Some(handle) => {
                handle.group.wait_applied(index, inner.config.leader_wait).await.ok().map(|()| handle)
            }
            None => None,
        };
        match caught_up {
            Some(handle) => {
                found.insert(shard, Found::Here(ReplicaId(handle.group.id.0)));
            }
            None => elsewhere.push((shard, index)),
        }
    }
    // Fetched, and then stored beside: twice their size for a while.
    let size = sizes(inner, &elsewhere).await;
    inner.guard.expect_room(size.saturating_mul(2))?;
    for (shard, index) in elsewhere {
        let dir = part.join("incoming").join(shard.0.to_string());
        found.insert(shard, Found::Fetched(fetch(inner, shard, index, &dir).await?));
    }
    let (copying, dir) = (Arc::clone(inner), part.to_path_buf());
    let copied = inner.ground.pool.aside(move || {
        copying.flush_all()?;
        copy(&copying, &cluster, found, &dir)?;
        Ok::<_, Failure>(())
    });
    copied.await?
}

/// About how many bytes the states of `shards` have, as the nodes that may give them say.
async fn sizes(inner: &Inner, shards: &[(ShardId, LogIndex)]) -> u64 {
    let mut by_node: BTreeMap<NodeId, Vec<ShardId>> = BTreeMap::new();
    for (shard, _) in shards {
        if let Some(node) = inner.others(*shard).first() {
            by_node.entry(*node).or_default().push(*shard);
        }
    }
    let asked = by_node.into_iter().map(|(node, shards)| async move {
        // What is not known is looked at as it comes.
        match inner.ask(node, &Ask::Size(shards), ANSWER).await {
            Ok(Reply::Size(bytes)) => bytes,
            _ => 0,
        }
    });
    join_all(asked.collect::<Vec<_>>()).await.into_iter().sum()
}

/// About how many bytes the states of `shards` have here.
pub(crate) fn size_of(inner: &Inner, shards: &[ShardId]) -> u64 {
    let here = inner.running_shards();
    let asked = here.iter().filter(|(shard, _)| shards.contains(shard)).count() as u64;
    inner.store.disk_bytes() * asked / (here.len() as u64).max(1)
}

/// Fetches a shard's state, at `index` or after it, from whichever replica can give that, its leader first.
async fn fetch(inner: &Inner, shard: ShardId, index: LogIndex, dir: &Path) -> Result<Incoming, Failure> {
    let mut last =
        Failure::unavailable(format!("shard {shard} has no replica that this node knows of"), RETRY);
    for node in inner.others(shard) {
        let fetched =
            catch_up::fetch(inner, Subject::Shard(shard), &format!("shard {shard}"), dir, node).await;
        match fetched {
            Ok(incoming) if incoming.mark().is_some_and(|(mark, _)| *mark >= index) => return Ok(incoming),
            Ok(_) => {
                let reason = format!("node {:016x} has not applied entry {index} of shard {shard}", node.0);
                last = Failure::unavailable(reason, RETRY);
            }
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// A group of the copy: its only replica, and where its log begins.
type Begun = (ReplicaId, LogId);

fn copy(
    inner: &Inner,
    cluster: &Cluster,
    found: BTreeMap<ShardId, Found>,
    dir: &Path,
) -> Result<(), ReplicationError> {
    let failed = |what: &'static str| ReplicationError::io(dir.display().to_string(), what);
    std::fs::create_dir_all(dir).map_err(failed("create"))?;
    inner.store.checkpoint(&dir.join("db"))?;
    let (node, cluster_id) = (NodeId(random()), random());
    let begun = {
        let store = Store::open(&dir.join("db"), inner.config.store.clone(), &mut Registry::default())?;
        found_anew(inner, cluster, &store, found, node, cluster_id)?
    };
    let files = DiskFiles::new(&dir.join("log")).map_err(failed("create the log of"))?;
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
    let log = NodeLog::open(Arc::new(files), config, Arc::clone(&inner.clock), &mut Registry::default())?;
    for (replica, at) in &begun {
        let vote = Vote { term: at.term, voted_for: replica.0, committed: false };
        log.save_vote(GroupId(replica.0), vote, Box::new(|_| {}))?;
        // What was written is on the disk when the log is closed; a failure is told there.
        log.purge(GroupId(replica.0), *at, Box::new(|_| {}))?;
    }
    log.close()?;
    let meta_replica = begun.first().map_or(0, |(replica, _)| replica.0);
    let standing = Standing::Member { cluster_id, meta_replica };
    write_identity(dir, &Identity { node, standing, ..inner.folder.identity() })?;
    let incoming = dir.join("incoming");
    if incoming.is_dir() {
        std::fs::remove_dir_all(&incoming).map_err(failed("tidy up"))?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync"))
}

/// Makes of the copied database that of a cluster with one member, `node`; durable when it returns. Gives its groups, the
/// meta group first.
fn found_anew(
    inner: &Inner,
    cluster: &Cluster,
    store: &Arc<Store>,
    found: BTreeMap<ShardId, Found>,
    node: NodeId,
    cluster_id: u64,
) -> Result<Vec<Begun>, ReplicationError> {
    let mut next = cluster.next_replica;
    let mut issue = || {
        next += 1;
        ReplicaId(next - 1)
    };
    let meta_replica = issue();
    let (mut shards, mut replicas) = (Vec::new(), BTreeMap::new());
    for (id, found) in found {
        let replica = match found {
            Found::Here(replica) => replica,
            Found::Fetched(incoming) => {
                let replica = issue();
                store.install(Subject::Shard(id), replica, &incoming)?;
                replica
            }
        };
        shards.push(store.shard(id, replica)?);
        replicas.insert(id, replica);
    }
    let mut begun = Vec::new();
    // The entry that makes the one replica the only voter: nobody proposed it, but it is as if.
    let mut begin = |target: &Target, replica: ReplicaId| {
        let last = target.applied()?.last;
        let last = last.ok_or_else(|| ReplicationError::group("a group", "it has applied nothing yet"))?;
        let at = LogId { index: last.index() + 1, ..place(&last) };
        let voters = [(replica.0, Peer { node: node.0 })];
        let membership = Membership::new(vec![[replica.0].into()], BTreeMap::from(voters))
            .map_err(|error| ReplicationError::group("a group", error))?;
        let mark = Mark {
            last: Some(raft_id(at)),
            membership: StoredMembership::new(Some(raft_id(at)), membership),
        };
        begun.push((replica, at));
        Ok::<_, ReplicationError>((LogIndex(at.index), mark.encode()))
    };
    let (index, mark) = begin(&Target::Meta(Arc::clone(store)), meta_replica)?;
    let member = inner.candidate().into_member(meta_replica.0);
    // By now all ids are issued.
    let writes = meta::alone(cluster, cluster_id, node, &member, &replicas, next);
    store.meta().apply(index, &writes, &mark)?;
    for shard in &shards {
        let (index, mark) = begin(&Target::Shard(Arc::clone(shard)), replicas[&shard.id()])?;
        shard.set_mark(index, &mark);
    }
    store.flush(&shards)?;
    Ok(begun)
}

impl Replication {
    /// See `take`; goes on to its end when nobody waits for it any more.
    pub(super) async fn take_snapshot(&self) -> Result<String, Failure> {
        let inner = Arc::clone(&self.inner);
        let taken = self.inner.ground.data.spawn(async move { take(&inner).await });
        taken.await.unwrap_or_else(|error| Err(Failure::internal(error.to_string())))
    }
}
