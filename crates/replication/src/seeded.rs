//! Bugs that a test switches on to prove that the fault scenarios find them (feature `seeded_bugs`, see
//! `scripts/seeded-bugs.sh`). Without the feature nothing of this is in the program.

use std::sync::Arc;

use model::LogIndex;
use model::seam::SeriesSource;
use model::seam::fake::MemorySource;
use openraft::rt::WatchReceiver as _;
use storage::log::{NodeLog, SeededBug};

use crate::log_store::place;
use crate::machine::Target;
use crate::types::Raft;

/// `UnprovenReads`: the index that a replica that takes itself for the leader has applied.
pub(crate) fn unproven_read(log: &NodeLog, raft: &Raft) -> Option<LogIndex> {
    if log.seeded_bug() != Some(SeededBug::UnprovenReads) || !raft.is_leader() {
        return None;
    }
    let data = raft.data_metrics();
    let data = data.borrow_watched();
    data.last_applied.as_ref().map(|applied| LogIndex(applied.index()))
}

/// `PartialAnswers`: an empty source in place of a shard that cannot be read.
pub(crate) fn nothing(log: &NodeLog) -> Option<Arc<dyn SeriesSource>> {
    (log.seeded_bug() == Some(SeededBug::PartialAnswers)).then(|| Arc::new(MemorySource::new()) as _)
}

/// `EarlyPurge`: purges what is applied, stored or not.
pub(crate) fn purge_applied(log: &NodeLog, group: storage::log::GroupId, target: &Target) {
    if log.seeded_bug() == Some(SeededBug::EarlyPurge)
        && let Ok(mark) = target.applied()
        && let Some(applied) = mark.last
    {
        // A bug does not look at errors either.
        let _ = log.purge(group, place(&applied), Box::new(|_| {}));
    }
}
