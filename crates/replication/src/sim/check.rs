//! What must hold of the nodes after every tick (I8, I7).
//!
//! | rule | how it is seen |
//! |---|---|
//! | election safety | a term of a group has one leader, for good |
//! | one vote | no replica votes for two in a term, also after a crash (`net`, from the messages) |
//! | log matching, committed entries never change | the log entry at an applied index is the same on every replica that has it, for good |
//! | leader completeness | who leads has the last entry that anybody has applied |
//! | state machine safety | the state hash of a shard at an index is the same on every replica, for good |
//! | monotonic | term, vote, and what is applied never go back in a life |
//! | order | purged ≤ applied ≤ last entry |

use std::collections::BTreeMap;

use storage::log::{GroupId, Vote};

use super::entropy::fold;
use crate::group::Group;
use crate::machine::Target;
use crate::node::Inner;

/// What was last seen of a replica in a life.
#[derive(Default)]
struct Seen {
    life: u64,
    vote: Option<Vote>,
    applied: u64,
}

/// Remembers what was seen.
#[derive(Default)]
pub(crate) struct Checker {
    /// By group and term.
    leaders: BTreeMap<(String, u64), u64>,
    /// By group: term and hash of each applied entry.
    applied: BTreeMap<String, BTreeMap<u64, (u64, u64)>>,
    /// By group and index, with the node that had it first.
    hashes: BTreeMap<(String, u64), (u64, usize)>,
    replicas: BTreeMap<u64, Seen>,
}

impl Checker {
    /// Looks at the node at `at` in its life number `life`.
    pub(crate) fn look(&mut self, at: usize, life: u64, inner: &Inner) -> Result<(), String> {
        let mut groups: Vec<_> = inner.groups.read().values().cloned().collect();
        groups.sort_by_key(|group| group.id);
        groups.iter().try_for_each(|group| {
            let looked = self.look_at(at, life, inner, group);
            looked.map_err(|what| format!("{what}: {} on node {at}, replica {}", group.name, group.id))
        })
    }

    /// How many terms had a leader.
    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }

    fn look_at(&mut self, at: usize, life: u64, inner: &Inner, group: &Group) -> Result<(), String> {
        use openraft::rt::WatchReceiver as _;
        let log = &inner.log;
        let id = GroupId(group.id.0);
        let Ok(state) = log.state(id) else { return Err("I17 the log is damaged".to_owned()) };
        let (term, leads) = {
            let metrics = group.raft().metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.state == openraft::ServerState::Leader)
        };
        let entries = self.applied.entry(group.name.clone()).or_default();
        if leads && inner.log.failure().is_none() {
            let known = *self.leaders.entry((group.name.clone(), term)).or_insert(group.id.0);
            if known != group.id.0 {
                return Err(format!(
                    "I8 election safety: replicas {known} and {} lead in term {term}",
                    group.id
                ));
            }
            // One that leads an old term still need not know better.
            let newest = self.leaders.range((group.name.clone(), term + 1)..).next();
            let is_newest = newest.is_none_or(|((name, _), _)| *name != group.name);
            if let Some((index, (entry_term, _))) = entries.last_key_value()
                && is_newest
                && *entry_term <= term
                && state.purged.is_none_or(|purged| purged.index < *index)
                && log.id_at(id, *index).map(|id| id.term) != Some(*entry_term)
            {
                return Err(format!("I8 leader completeness: the leader of term {term} lacks entry {index}"));
            }
        }
        let (applied, _) = group.progress();
        let seen = self.replicas.entry(group.id.0).or_default();
        if seen.life != life {
            *seen = Seen { life, ..Seen::default() };
        }
        // In a term, a vote that was given may give way to one that a majority gave, and to nothing else.
        let order = |vote: &Vote| (vote.term, vote.committed);
        if let (Some(before), Some(now)) = (seen.vote, state.vote)
            && (order(&now) < order(&before)
                || (order(&now) == order(&before) && now.voted_for != before.voted_for))
        {
            return Err(format!("I8 monotonic vote: {before:?}, then {now:?}"));
        }
        seen.vote = state.vote;
        if applied < seen.applied {
            return Err(format!("I8 monotonic applied: {}, then {applied}", seen.applied));
        }
        let purged = state.purged.map_or(0, |purged| purged.index);
        let last = state.last.map_or(0, |last| last.index);
        // State that was fetched is taken over in two steps: the log up to it goes first.
        let installing = || inner.folder.incoming_dir(group.id.0).is_dir();
        if (purged > applied && !installing()) || applied > last {
            return Err(format!("I8 order: purged {purged}, applied {applied}, last {last}"));
        }
        let from = if seen.applied == 0 { state.first } else { (seen.applied + 1).max(state.first) };
        if applied > 0 && from <= applied {
            let read = log.read(id, from, applied + 1, usize::MAX);
            for entry in read.map_err(|error| format!("I17 applied entries cannot be read: {error}"))? {
                let now = (entry.id.term, fold(u64::from(entry.tag), &entry.bytes));
                let known = *entries.entry(entry.id.index).or_insert(now);
                if known != now {
                    return Err(format!(
                        "I8 log matching: applied entry {} is {now:x?} here and was {known:x?}",
                        entry.id.index
                    ));
                }
            }
        }
        seen.applied = applied;
        if let Target::Shard(shard) = group.target() {
            let (index, hash) = shard.state_hash();
            let (known, first) = *self.hashes.entry((group.name.clone(), index.0)).or_insert((hash, at));
            if known != hash {
                return Err(format!(
                    "I7 state hash: {hash:016x} at entry {index}, {known:016x} on node {first}"
                ));
            }
        }
        Ok(())
    }
}
