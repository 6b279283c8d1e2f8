//! Replicas are compared while the cluster runs (I7): apply is a function of the log, so at the same entry they are equal.
//!
//! Every ten minutes the leader of each shard asks the other members for the hash of their state at the entry that it has
//! applied last, and judges: where a majority of at least three voters agrees, whoever differs is wrong, the leader
//! included, and goes into quarantine. Without such a majority (a group that grows from one copy to three, members that do
//! not answer, three different states) nobody knows which state is right: that is told in the log, in a metric and in the
//! status of the cluster, and nothing else is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use model::{Failure, LogIndex, NodeId};
use parking_lot::Mutex;

use crate::group::Group;
use crate::machine::Target;
use crate::node::Inner;
use crate::quarantine;
use crate::talk::{Ask, Reply};

/// How long a member may take to get as far as its leader.
const ANSWER: Duration = Duration::from_secs(2);

/// Which replica's state is asked for, and at which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The replica.
    pub(crate) replica: u64,
    /// An entry that whoever asks has applied.
    pub(crate) index: u64,
}

/// What came of it, as the leader tells a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The member.
    pub(crate) replica: u64,
    /// Where the states were compared.
    pub(crate) index: u64,
    pub(crate) verdict: Verdict,
}

/// What comparing the states of a group's members gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All are equal.
    Alike,
    /// They differ, and no majority says which is right.
    Undecided,
    /// A majority of the voters has this hash, and these replicas have it; others are wrong.
    Majority { hash: u64, healthy: Vec<u64> },
}

/// Judges the hashes of a group's members, learners included, that are known; `voters` are all who vote.
pub(crate) fn judge(voters: &BTreeSet<u64>, hashes: &BTreeMap<u64, u64>) -> Verdict {
    let with = |hash: u64| hashes.iter().filter(move |(_, other)| **other == hash).map(|(id, _)| *id);
    let different: BTreeSet<u64> = hashes.values().copied().collect();
    if different.len() <= 1 {
        return Verdict::Alike;
    }
    let right = different.into_iter().find(|hash| {
        voters.len() >= 3 && with(*hash).filter(|id| voters.contains(id)).count() * 2 > voters.len()
    });
    right.map_or(Verdict::Undecided, |hash| Verdict::Majority { hash, healthy: with(hash).collect() })
}

/// Replicas here that differed from others when they were last compared, and nobody knows which is right.
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

/// Who votes in a group; nobody while the voters change, so that nothing is judged then.
pub(crate) fn voters(group: &Group) -> BTreeSet<u64> {
    match group.membership().get_joint_config().as_slice() {
        [voters] => voters.clone(),
        _ => BTreeSet::new(),
    }
}

/// The other members of a group, by replica.
pub(crate) fn others(group: &Group) -> BTreeMap<u64, NodeId> {
    let membership = group.membership();
    let others = membership.nodes().filter(|(id, _)| **id != group.id.0);
    others.map(|(id, peer)| (*id, NodeId(peer.node))).collect()
}

/// Asks nodes for the states of their replicas; the hashes of those that have got there in time. Who cannot be asked now is
/// asked the next time.
pub(crate) async fn ask(inner: &Inner, asked: BTreeMap<NodeId, Vec<Compared>>) -> BTreeMap<u64, u64> {
    let answers = asked
        .into_iter()
        .map(|(node, replicas)| async move { inner.ask(node, &Ask::Compare(replicas), ANSWER * 2).await });
    let told = join_all(answers).await.into_iter().filter_map(|answer| match answer {
        Ok(Reply::Compared(hashes)) => Some(hashes),
        _ => None,
    });
    told.flatten().collect()
}

async fn compare(inner: &Arc<Inner>) {
    let mut asked: BTreeMap<NodeId, Vec<Compared>> = BTreeMap::new();
    let mut led = Vec::new();
    for (_, handle) in inner.ready_shards() {
        if handle.group.leading().is_none() {
            continue;
        }
        let (index, hash) = handle.shard.state_hash();
        let members = others(&handle.group);
        for (replica, node) in &members {
            asked.entry(*node).or_default().push(Compared { replica: *replica, index: index.0 });
        }
        led.push((Arc::clone(&handle.group), index.0, hash, members));
    }
    let told = ask(inner, asked).await;
    inner.metrics.compared.inc_by(told.len() as u64);
    let mut judged: BTreeMap<NodeId, Vec<Judged>> = BTreeMap::new();
    for (group, index, hash, members) in led {
        let of_members = members.keys().filter_map(|id| Some((*id, *told.get(id)?)));
        let hashes: BTreeMap<u64, u64> = of_members.chain([(group.id.0, hash)]).collect();
        let verdict = judge(&voters(&group), &hashes);
        if verdict != Verdict::Alike {
            tracing::error!(group = %group.name, index, ?hashes, ?verdict, "replicas differ at the same entry");
        }
        for replica in hashes.keys() {
            let node = members.get(replica).copied().unwrap_or(inner.node);
            let verdict = verdict.clone();
            judged.entry(node).or_default().push(Judged { replica: *replica, index, verdict });
        }
    }
    let own = judged.remove(&inner.node).unwrap_or_default();
    let tell = judged.into_iter().map(|(node, judged)| async move {
        // Who does not hear it now is told the next time.
        if let Err(failure) = inner.ask(node, &Ask::Judge(judged), ANSWER).await {
            tracing::info!(%failure, "a node was not told how its replicas stand");
        }
    });
    join_all(tell).await;
    take(inner, own).await;
}

/// Gives the hashes of replicas here at the entries asked for. Those that have not got there in time, or have gone on for
/// long, are left out.
pub(crate) async fn answer(inner: &Inner, asked: &[Compared]) -> Reply {
    let answers = asked.iter().map(|compared| async move {
        let group = inner.groups.read().get(&compared.replica).cloned()?;
        group.wait_applied(LogIndex(compared.index), ANSWER).await.ok()?;
        let Target::Shard(shard) = group.target() else { return None };
        Some((compared.replica, shard.hash_at(LogIndex(compared.index))?))
    });
    Reply::Compared(join_all(answers).await.into_iter().flatten().collect())
}

/// Does what leaders judged of replicas here.
pub(crate) async fn take(inner: &Arc<Inner>, judged: Vec<Judged>) {
    for Judged { replica, index, verdict } in judged {
        let undecided = verdict == Verdict::Undecided;
        {
            let mut differing = inner.differing.0.lock();
            if undecided {
                differing.insert(replica);
            } else {
                differing.remove(&replica);
            }
        }
        let Verdict::Majority { hash, healthy } = verdict else { continue };
        let Some(group) = inner.groups.read().get(&replica).cloned() else { continue };
        let Target::Shard(shard) = group.target() else { continue };
        // What was compared may be gone by now: only what still differs there is wrong.
        let here = shard.hash_at(LogIndex(index));
        if let Some(here) = here.filter(|here| *here != hash) {
            let note = quarantine::Note {
                shard: shard.id(),
                replica,
                index,
                here,
                right: hash,
                healthy,
                found_ms: inner.clock.now_ms(),
                fetched: false,
            };
            quarantine::begin(inner, &group, shard, note).await;
        }
    }
    note_metrics(inner);
}

/// Brings the metrics of replicas that differ up to date.
pub(crate) fn note_metrics(inner: &Inner) {
    let quarantined = inner.quarantine.len();
    let differing = inner.differing.0.lock().len() + quarantined;
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    inner.metrics.quarantined.set(gauge(quarantined));
    inner.metrics.differing.set(gauge(differing));
}

/// Whether replica `group` of this node is as a majority of its group; fails while that cannot be known.
pub(crate) async fn is_right(inner: &Inner, group: &Group) -> Result<bool, Failure> {
    let Target::Shard(shard) = group.target() else { return Ok(true) };
    let (index, own) = shard.state_hash();
    let mut asked: BTreeMap<NodeId, Vec<Compared>> = BTreeMap::new();
    for (replica, node) in others(group) {
        asked.entry(node).or_default().push(Compared { replica, index: index.0 });
    }
    let mut hashes = ask(inner, asked).await;
    hashes.insert(group.id.0, own);
    let voters = voters(group);
    let agreeing = hashes.iter().filter(|(id, hash)| voters.contains(id) && **hash == own).count();
    match judge(&voters, &hashes) {
        Verdict::Alike if agreeing * 2 > voters.len() => Ok(true),
        Verdict::Majority { hash, .. } => Ok(hash == own),
        Verdict::Alike | Verdict::Undecided => {
            let reason = format!("{}: no majority tells whether the state here is right", group.name);
            Err(Failure::unavailable(reason, ANSWER))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_of_three_and_more_says_who_is_right() {
        let judged = |voters: &[u64], hashes: &[(u64, u64)]| {
            judge(&voters.iter().copied().collect(), &hashes.iter().copied().collect())
        };
        let majority = |healthy: &[u64]| Verdict::Majority { hash: 7, healthy: healthy.to_vec() };
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 7), (3, 7)]), Verdict::Alike);
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 7), (3, 8)]), majority(&[1, 2]));
        assert_eq!(judged(&[1, 2, 3], &[(1, 8), (2, 7), (3, 7)]), majority(&[2, 3]));
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 8), (3, 9)]), Verdict::Undecided);
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 8)]), Verdict::Undecided, "the third is silent");
        assert_eq!(judged(&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 8), (4, 7)]), majority(&[1, 2, 4]));
        assert_eq!(judged(&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 8)]), Verdict::Undecided);
        assert_eq!(judged(&[1, 2], &[(1, 7), (2, 8)]), Verdict::Undecided);
        assert_eq!(judged(&[1], &[(1, 7), (2, 8), (3, 7)]), Verdict::Undecided, "learners have no say");
        assert_eq!(judged(&[1, 2, 3], &[(1, 7), (2, 7), (3, 7), (4, 8)]), majority(&[1, 2, 3]));
        assert_eq!(judged(&[], &[(1, 7), (2, 8)]), Verdict::Undecided, "while the voters change");
    }
}
