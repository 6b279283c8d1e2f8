//! Whether this node is as good as any other for clients and for those who restart nodes one by one, once it has started.
//!
//! It is not while its log has failed, one of its groups has stopped by itself or one of its replicas is in quarantine, nor
//! while one is far behind its leader without a break for [`PATIENCE`]: then another node that is stopped may be the last
//! one with what this one lacks. It stays ready without a
//! leader or a majority: it cannot tell whether it is alone or all are, and if all were taken out of a service, clients
//! would get nothing instead of 503 with the shard's name, and nobody a status or a stale read. Nor does it matter that
//! the disk is full or much is to be done: others lead, or clients are told when to come again. A replica that is placed
//! on a running node does not count until it has caught up for the first time.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::Inner;

/// For how long a replica must be behind without a break.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when replicas are behind, by group id, as of the looks so far.
#[derive(Debug, Default)]
pub(crate) struct Behind(Mutex<HashMap<u64, Duration>>);

impl Behind {
    /// Takes note of the groups that are behind at `now`.
    fn note(&self, now: Duration, behind: impl Iterator<Item = u64>) {
        let mut since = self.0.lock();
        *since = behind.map(|group| (group, since.get(&group).copied().unwrap_or(now))).collect();
    }

    /// A group that is behind for too long.
    fn first(&self, now: Duration) -> Option<u64> {
        let since = self.0.lock();
        since.iter().find(|(_, since)| now.saturating_sub(**since) >= PATIENCE).map(|(group, _)| *group)
    }
}

/// Looks which replicas are behind.
pub(crate) fn look(inner: &Inner) {
    let meta = inner.meta.load_full();
    let shards = inner.ready_shards();
    let groups = meta.iter().chain(shards.iter().map(|(_, handle)| &handle.group));
    inner.behind.note(inner.clock.monotonic(), groups.filter(|g| g.is_behind()).map(|g| g.id.0));
    inner.metrics.unready.set(i64::from(unready(inner).is_some()));
}

/// Why the node is not as good as others, if it is not.
pub(crate) fn unready(inner: &Inner) -> Option<String> {
    if let Some(error) = inner.log.failure() {
        return Some(error.to_string());
    }
    let stopped = |group: &std::sync::Arc<crate::group::Group>| Some((group.name.clone(), group.broken()?));
    if let Some((name, reason)) = inner.groups.read().values().find_map(stopped) {
        return Some(format!("the replica of {name} here has stopped: {reason}"));
    }
    if let Some(reason) = inner.quarantine.any() {
        return Some(reason);
    }
    let group = inner.behind.first(inner.clock.monotonic())?;
    let name = inner.groups.read().get(&group).map_or_else(|| group.to_string(), |group| group.name.clone());
    Some(format!("the replica of {name} here is behind its leader"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_behind_without_a_break_is_unready() {
        let behind = Behind::default();
        let second = Duration::from_secs;
        behind.note(second(1), [7, 8].into_iter());
        behind.note(second(5), [7].into_iter());
        behind.note(second(6), [7, 8].into_iter());
        assert_eq!(behind.first(second(10)), None);
        assert_eq!(behind.first(second(11)), Some(7));
        behind.note(second(12), [8].into_iter());
        assert_eq!(behind.first(second(12)), None, "7 has caught up, 8 had a break");
        assert_eq!(behind.first(second(16)), Some(8));
    }
}
