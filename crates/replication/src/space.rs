//! Members of groups led here that take no entries for lack of disk space, as they say when they are sent some (I15).
//!
//! Without space on a majority nothing can be committed, whoever leads: writes are refused at once, with the reason, as
//! those of a shard without a majority are (`reach`). What a leader has in its log is offered to the others again and
//! again, so that what they say is never old, and that there is space again is heard within seconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Failure, NodeId, ShardId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::group::{Group, RETRY};
use crate::node::Inner;

/// For how long what a member said counts.
const LATELY: Duration = Duration::from_secs(3);
/// Between two looks of a write that waits.
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row that must find no majority: space that comes and goes with the end of a segment is waited for.
const LOOKS: u32 = 5;

/// When members last said that they have no space, by replica.
#[derive(Debug, Default)]
pub(crate) struct Spaceless {
    said: Mutex<HashMap<u64, Instant>>,
    any: AtomicBool,
}

impl Spaceless {
    /// A member says that it has none.
    pub(crate) fn note(&self, replica: u64) {
        self.said.lock().insert(replica, Instant::now());
        self.any.store(true, Ordering::Relaxed);
    }

    /// A member took entries.
    pub(crate) fn clear(&self, replica: u64) {
        if self.any.load(Ordering::Relaxed) {
            let mut said = self.said.lock();
            said.remove(&replica);
            self.any.store(!said.is_empty(), Ordering::Relaxed);
        }
    }

    fn lately(&self, replica: u64) -> bool {
        self.any.load(Ordering::Relaxed)
            && self.said.lock().get(&replica).is_some_and(|at| at.elapsed() < LATELY)
    }
}

impl Inner {
    /// As the leader: why nothing can be committed, where so many voters have no disk space that the others are no majority.
    /// While the voters change: of those before or those after.
    pub(crate) fn without_space(&self, shard: ShardId, group: &Group) -> Option<Failure> {
        let spaceless = &self.ground.spaceless;
        if !spaceless.any.load(Ordering::Relaxed) {
            return None;
        }
        let membership = group.membership();
        let (full, all) = membership.get_joint_config().iter().find_map(|voters: &BTreeSet<u64>| {
            let full: Vec<u64> = voters.iter().copied().filter(|id| spaceless.lately(*id)).collect();
            ((voters.len() - full.len()) * 2 <= voters.len()).then_some((full, voters.len()))
        })?;
        let cluster = self.cluster.load();
        let name = |id: &u64| {
            let node = NodeId(membership.get_node(id)?.node);
            let member = cluster.as_ref().and_then(|cluster| cluster.members.get(&node));
            Some(member.map_or_else(|| format!("{:016x}", node.0), |member| member.name.clone()))
        };
        let names: Vec<String> = full.iter().filter_map(name).collect();
        let reason = format!(
            "shard {shard}: {} of {all} replicas have no disk space for entries (on {})",
            full.len(),
            names.join(", ")
        );
        Some(Failure::unavailable(reason, RETRY * 5))
    }

    /// Returns once that has been so for a while.
    pub(crate) async fn stays_without_space(&self, shard: ShardId, group: &Group) -> Failure {
        let mut looks = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.without_space(shard, group) {
                Some(failure) if looks >= LOOKS => return failure,
                Some(_) => looks += 1,
                None => looks = 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_members_said_grows_old_and_is_taken_back() {
        let spaceless = Spaceless::default();
        spaceless.clear(3);
        assert!(!spaceless.lately(3));
        spaceless.note(3);
        spaceless.note(4);
        assert!(spaceless.lately(3) && spaceless.lately(4) && !spaceless.lately(5));
        spaceless.clear(4);
        assert!(!spaceless.lately(4));
        tokio::time::advance(LATELY).await;
        assert!(!spaceless.lately(3));
    }
}
