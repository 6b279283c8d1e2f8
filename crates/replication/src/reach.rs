//! Whom this node reaches: what tells a shard without a majority from one that elects a leader.
//!
//! Every peer that has not answered anything lately is asked something, so that silence means that it cannot be reached
//! (or cannot reach this node: a question is there and back). A node that has reached no majority of a shard's voters for
//! more than a second cannot have its writes committed, and no election that it takes part in can succeed: what waits for
//! the shard is refused at once. While a majority answers, a leader is waited for as long as requests may wait, since
//! elections take up to two seconds and more when machines are busy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::{Failure, NodeId, ShardId};

use crate::group::RETRY;
use crate::node::Inner;
use crate::talk::Ask;

/// How often peers are looked at. One that has not answered anything since the look before is asked.
const BEAT: Duration = Duration::from_millis(250);
/// How long such an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// A peer that has said nothing for so long is out of reach: four questions, or a round trip of half a second and more.
const SILENCE: Duration = Duration::from_millis(1_200);
/// Between two looks of something that waits for a shard.
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row that must find no majority. They are counted, not timed: a process that was frozen first hears what
/// its peers have to say.
const LOOKS: u32 = 5;

/// Asks peers that are silent until the node stops.
pub(crate) fn start(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    inner.ground.raft.clone().spawn(async move {
        while !inner.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep(BEAT).await;
            for node in inner.peers.nodes() {
                if node != inner.node && inner.peers.silence(node) >= BEAT {
                    let inner = Arc::clone(&inner);
                    // Not one after the other: a peer that is gone must not make others seem so. Whether it answers is
                    // noted by `rpc`; that no group rests is nothing new to it.
                    let ask = async move { inner.ask(node, &Ask::Rest(Vec::new()), ANSWER).await.is_ok() };
                    tokio::spawn(ask);
                }
            }
        }
    });
}

impl Inner {
    /// Returns once this node has reached no majority of the shard's voters for a while.
    pub(crate) async fn cut_off(&self, shard: ShardId) -> Failure {
        let mut looks = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.without_majority(shard) {
                Some((reached, all)) if looks >= LOOKS => {
                    let reason = format!(
                        "shard {shard} has no majority that this node reaches: {reached} of {all} replicas answer"
                    );
                    // Longer than what is tried again inside.
                    return Failure::unavailable(reason, RETRY * 2);
                }
                Some(_) => looks += 1,
                None => looks = 0,
            }
        }
    }

    /// How many of a shard's voters this node reaches, itself included, and how many there are, when these are not more
    /// than half of them. While the voters change: of those before or those after.
    fn without_majority(&self, shard: ShardId) -> Option<(usize, usize)> {
        let reaches = |node: NodeId| node == self.node || self.peers.silence(node) < SILENCE;
        let sets: Vec<BTreeSet<NodeId>> = match self.replica_here(shard) {
            Some(group) => {
                let membership = group.membership();
                let node = |id: &u64| membership.get_node(id).map(|peer| NodeId(peer.node));
                membership
                    .get_joint_config()
                    .iter()
                    .map(|ids| ids.iter().filter_map(node).collect())
                    .collect()
            }
            None => vec![self.nodes_of(shard).into_iter().collect()],
        };
        let reached = |set: &BTreeSet<NodeId>| set.iter().filter(|node| reaches(**node)).count();
        sets.iter()
            .map(|set| (reached(set), set.len()))
            .find(|(reached, all)| reached * 2 <= *all && *all > 0)
    }
}
