//! Replicas are compared while the cluster runs (I7): apply is a function of the log, so at the same entry they are equal.
//!
//! Every ten minutes the leader of each shard tells the other members the hash of its state at the entry that it has
//! applied last. A member that has been there compares with its own. One that differs says so: in its log, in a metric,
//! and in the status of the cluster, where its replica is shown as failed. It goes on serving: which of them is right is
//! for people to find out, until a replica can be replaced by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use model::{LogIndex, NodeId};
use parking_lot::Mutex;

use crate::machine::Target;
use crate::node::Inner;
use crate::talk::{Ask, Reply};

/// How long a member may take to get as far as its leader.
const ANSWER: Duration = Duration::from_secs(2);

/// A replica's state as its leader's: asked of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The member.
    pub(crate) replica: u64,
    /// An entry that the leader has applied.
    pub(crate) index: u64,
    /// The hash of its state there.
    pub(crate) hash: u64,
}

/// Replicas here that differed from their leader's when they were last compared.
#[derive(Debug, Default)]
pub(crate) struct Differing(Mutex<BTreeSet<u64>>);

impl Differing {
    pub(crate) fn contains(&self, replica: u64) -> bool {
        self.0.lock().contains(&replica)
    }
}

/// Compares replicas of the shards led here from time to time, until the node stops.
pub(crate) fn start(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    inner.ground.data.clone().spawn(async move {
        while !inner.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(inner.config.compare_every).await;
            compare(&inner).await;
        }
    });
}

async fn compare(inner: &Inner) {
    let mut asked: BTreeMap<NodeId, Vec<Compared>> = BTreeMap::new();
    for (_, handle) in inner.ready_shards() {
        if handle.group.leading().is_none() {
            continue;
        }
        let (index, hash) = handle.shard.state_hash();
        for (replica, peer) in handle.group.membership().nodes().filter(|(id, _)| **id != handle.group.id.0) {
            let compared = Compared { replica: *replica, index: index.0, hash };
            asked.entry(NodeId(peer.node)).or_default().push(compared);
        }
    }
    let answers = asked.into_iter().map(|(node, replicas)| async move {
        // Who cannot be asked now is asked the next time.
        (node, inner.ask(node, &Ask::Compare(replicas), ANSWER * 2).await)
    });
    for (node, answer) in join_all(answers).await {
        if let Ok(Reply::Compared { equal, differing }) = answer {
            inner.metrics.compared.inc_by((equal.len() + differing.len()) as u64);
            if !differing.is_empty() {
                let node = format!("{:016x}", node.0);
                tracing::error!(%node, ?differing, "replicas differ from the ones here, which lead");
            }
        }
    }
}

/// As a member: compares with what leaders on another node say; the replicas that are equal and those that differ. Those
/// that have not got there in time, or have gone on for long, are in neither.
pub(crate) async fn answer(inner: &Inner, asked: &[Compared]) -> Reply {
    let (mut equal, mut differing) = (Vec::new(), Vec::new());
    let answers = asked.iter().map(|compared| async move {
        let group = inner.groups.read().get(&compared.replica).cloned()?;
        group.wait_applied(LogIndex(compared.index), ANSWER).await.ok()?;
        let Target::Shard(shard) = group.target() else { return None };
        let hash = shard.hash_at(LogIndex(compared.index))?;
        if hash != compared.hash {
            tracing::error!(
                group = %group.name,
                index = compared.index,
                here = format!("{hash:016x}"),
                leader = format!("{:016x}", compared.hash),
                "the state of this replica differs from its leader's at the same entry"
            );
        }
        Some(hash == compared.hash)
    });
    let answers = join_all(answers.collect::<Vec<_>>()).await;
    let mut known = inner.differing.0.lock();
    for (compared, same) in asked.iter().zip(answers) {
        match same {
            Some(true) => {
                known.remove(&compared.replica);
                equal.push(compared.replica);
            }
            Some(false) => {
                known.insert(compared.replica);
                differing.push(compared.replica);
            }
            None => {}
        }
    }
    inner.metrics.differing.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
    Reply::Compared { equal, differing }
}
