//! I1 at the log: random histories on faulty files, cut or killed at random places, against a plain model.
//!
//! After each cut: whatever was acknowledged is there with its bytes, nothing is there that nobody wrote, votes
//! never go back, and the log takes appends again. The same histories on a log without its fsync must lose
//! something, or the harness would prove nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::log_test::{entry, open_with, small};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { group: u64, count: u64, size: usize, wait: bool },
    Overwrite { group: u64, back: u64, size: usize },
    Vote { group: u64, wait: bool },
    Truncate { group: u64, back: u64 },
    Purge { group: u64, keep: u64 },
    Commit { group: u64 },
    Cut { seed: u64, keep: u8 },
    Kill,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let group = 1..4_u64;
    let size = prop_oneof![0..40_usize, 400..700_usize, 3000..5000_usize];
    prop_oneof![
        6 => (group.clone(), 1..6_u64, size.clone(), any::<bool>())
            .prop_map(|(group, count, size, wait)| Step::Append { group, count, size, wait }),
        1 => (group.clone(), 0..4_u64, size).prop_map(|(group, back, size)| Step::Overwrite { group, back, size }),
        2 => (group.clone(), any::<bool>()).prop_map(|(group, wait)| Step::Vote { group, wait }),
        1 => (group.clone(), 0..3_u64).prop_map(|(group, back)| Step::Truncate { group, back }),
        2 => (group.clone(), 0..5_u64).prop_map(|(group, keep)| Step::Purge { group, keep }),
        1 => group.prop_map(|group| Step::Commit { group }),
        2 => (any::<u64>(), 0..=255_u8).prop_map(|(seed, keep)| Step::Cut { seed, keep }),
        1 => Just(Step::Kill),
        1 => Just(Step::Reopen),
    ]
}

/// What may and must be there of one group.
#[derive(Clone, Debug, Default)]
struct Model {
    /// What was written, in order, with the entries that count after it: states that a cut may leave.
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    /// Acknowledged: must be there.
    acked: BTreeMap<u64, LogEntry>,
    vote: Option<Vote>,
    acked_vote: Option<Vote>,
    /// Everything ever written at an index.
    written: BTreeMap<u64, Vec<LogEntry>>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.entries.keys().next_back().map(|i| i + 1).or(self.purged.map(|p| p.index + 1)).unwrap_or(0)
    }

    fn drop_from(&mut self, from: u64) {
        self.entries.split_off(&from);
        self.acked.split_off(&from);
    }
}

/// Runs a history; `Err` tells what was lost.
fn run(steps: &[Step], config: &LogConfig) -> Result<(), String> {
    let mut files = FaultyFiles::new();
    let open =
        |files: &FaultyFiles| open_with(files, config.clone()).map_err(|e| format!("does not open: {e}"));
    let mut log = open(&files)?;
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    for step in steps.iter().chain([&Step::Cut { seed: 3, keep: 0 }]) {
        match *step {
            Step::Append { group, count, size, wait } => {
                let model = models.entry(group).or_default();
                let entries: Vec<_> = (0..count).map(|i| entry(model.term, model.next() + i, size)).collect();
                append(&log, group, model, entries, wait)?;
            }
            Step::Overwrite { group, back, size } => {
                let model = models.entry(group).or_default();
                let first = model.purged.map_or(0, |p| p.index + 1);
                model.term += 1;
                let entries = vec![entry(model.term, model.next().saturating_sub(back).max(first), size)];
                append(&log, group, model, entries, true)?;
            }
            Step::Vote { group, wait } => {
                let model = models.entry(group).or_default();
                model.term += 1;
                let vote = Vote { term: model.term, voted_for: group, committed: group == 1 };
                model.vote = Some(vote);
                if wait {
                    log.save_vote_wait(GroupId(group), vote).map_err(|e| e.to_string())?;
                    model.acked_vote = Some(vote);
                } else {
                    log.save_vote(GroupId(group), vote, Box::new(|_| {})).map_err(|e| e.to_string())?;
                }
            }
            Step::Truncate { group, back } => {
                let model = models.entry(group).or_default();
                let first = model.purged.map_or(0, |p| p.index + 1);
                let from = model.next().saturating_sub(back).max(first);
                model.drop_from(from);
                log.wait(|f| log.truncate(GroupId(group), from, f)).map_err(|e| e.to_string())?;
            }
            Step::Purge { group, keep } => {
                let model = models.entry(group).or_default();
                let Some(upto) = model.next().checked_sub(keep + 1) else { continue };
                let Some(id) = model.entries.get(&upto).map(|e| e.id) else { continue };
                // As in the product: only what is durable elsewhere is purged, and only acknowledged entries are.
                log.purge_wait(GroupId(group), id).map_err(|e| e.to_string())?;
                model.purged = Some(id);
                model.entries = model.entries.split_off(&(upto + 1));
                model.acked = model.acked.split_off(&(upto + 1));
            }
            Step::Commit { group } => {
                let model = models.entry(group).or_default();
                if let Some(last) = model.entries.values().next_back() {
                    log.save_committed(GroupId(group), last.id).map_err(|e| e.to_string())?;
                }
            }
            Step::Cut { seed, keep } => {
                log.abandon();
                files = files.power_cut(seed, |random| (random >> 56) < u64::from(keep));
                log = open(&files)?;
                compare(&log, &mut models)?;
            }
            Step::Kill => {
                log.abandon();
                files = files.killed();
                log = open(&files)?;
                compare(&log, &mut models)?;
            }
            Step::Reopen => {
                log.close().map_err(|e| e.to_string())?;
                for model in models.values_mut() {
                    model.acked = model.entries.clone();
                    model.acked_vote = model.vote;
                }
                files = files.killed_copy();
                log = open(&files)?;
                compare(&log, &mut models)?;
            }
        }
    }
    Ok(())
}

fn append(
    log: &NodeLog,
    group: u64,
    model: &mut Model,
    entries: Vec<LogEntry>,
    wait: bool,
) -> Result<(), String> {
    let Some(first) = entries.first().map(|e| e.id.index) else { return Ok(()) };
    model.drop_from(first);
    for entry in &entries {
        model.written.entry(entry.id.index).or_default().push(entry.clone());
        model.entries.insert(entry.id.index, entry.clone());
    }
    if wait {
        log.append_wait(GroupId(group), entries).map_err(|e| e.to_string())?;
        // One flush keeps the order: everything of this group before it is on the disk too.
        model.acked = model.entries.clone();
        model.acked_vote = model.vote;
        return Ok(());
    }
    log.append(GroupId(group), entries, Box::new(|_| {})).map_err(|e| e.to_string())
}

/// The log against the models, which then take over what is there.
fn compare(log: &NodeLog, models: &mut BTreeMap<u64, Model>) -> Result<(), String> {
    for (&group, model) in models {
        let state = log.state(GroupId(group)).map_err(|e| format!("group {group}: {e}"))?;
        let first = state.purged.map_or(0, |p| p.index + 1);
        let found = log
            .read(GroupId(group), first, u64::MAX, usize::MAX)
            .map_err(|e| format!("group {group}: {e}"))?;
        let found: BTreeMap<u64, LogEntry> = found.into_iter().map(|e| (e.id.index, e)).collect();
        for (index, entry) in &model.acked {
            if found.get(index) != Some(entry) {
                return Err(format!(
                    "group {group}: acknowledged entry {index} is {:?}",
                    found.get(index).map(|e| e.id)
                ));
            }
        }
        for (index, entry) in &found {
            if !model.written.get(index).is_some_and(|written| written.contains(entry)) {
                return Err(format!("group {group}: entry {index} was never written"));
            }
        }
        if state.vote.map(|v| v.term) < model.acked_vote.map(|v| v.term) {
            return Err(format!("group {group}: vote {:?} after {:?}", state.vote, model.acked_vote));
        }
        if state.purged != model.purged && model.purged.is_some() && state.purged < model.purged {
            return Err(format!("group {group}: purged {:?} after {:?}", state.purged, model.purged));
        }
        model.purged = state.purged;
        model.vote = state.vote;
        model.acked_vote = state.vote;
        model.acked.clone_from(&found);
        model.entries = found;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn i1_acknowledged_entries_and_votes_survive(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(run(&steps, &small()), Ok(()));
    }
}

#[cfg(feature = "seeded_bugs")]
#[test]
fn the_harness_finds_a_missing_fsync() {
    let cut = Step::Cut { seed: 1, keep: 0 };
    let append = [Step::Append { group: 1, count: 1, size: 30, wait: true }, cut.clone()];
    let vote = [Step::Vote { group: 2, wait: true }, cut];
    for (bug, history) in [(SeededBug::UnsyncedAppend, &append), (SeededBug::UnsyncedVote, &vote)] {
        let config = LogConfig { seeded_bug: Some(bug), ..small() };
        let lost = run(history, &config).expect_err("the missing fsync must show");
        assert!(lost.contains("acknowledged entry") || lost.contains("vote"), "{bug:?}: {lost}");
        assert_eq!(run(history, &small()), Ok(()));
    }
}

#[test]
fn reading_does_not_stop_writing() {
    let files = FaultyFiles::new();
    let log = open_with(&files, small()).expect("opens");
    let writer = Arc::clone(&log);
    let thread = std::thread::spawn(move || {
        for index in 0..300 {
            writer.append_wait(GroupId(1), vec![entry(1, index, 2000)]).expect("appends");
        }
    });
    let mut at = 0;
    while at < 300 {
        for e in log.read(GroupId(1), at, u64::MAX, 10_000).expect("reads") {
            assert_eq!(e, entry(1, at, 2000));
            at += 1;
        }
    }
    thread.join().expect("writes");
}
