//! I1 with a real file system: what the node log acknowledged before the power was cut is there after it.
//!
//! A child process writes and prints each acknowledgement; the power is cut while it writes; the log is opened on the
//! disk as it was. The same run with the fsync taken out must lose something, or the harness proves nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use model::seam::SystemClock;
use prometheus_client::registry::Registry;
use storage::log::{DiskFiles, GroupId, LogConfig, LogEntry, LogError, LogId, NodeLog, SeededBug, Vote};
use tests::power::{self, Disk};
use tests::tier;

/// Says to this test program, started as a child, where to write; unset in an ordinary run.
const DIR: &str = "POWER_CUT_DIR";
/// Which bug the child's log shall have.
const BUG: &str = "POWER_CUT_BUG";

fn open(dir: &Path, bug: Option<SeededBug>) -> Result<Arc<NodeLog>> {
    let files = Arc::new(DiskFiles::new(&dir.join("log"))?);
    let config = LogConfig { segment_bytes: 1 << 20, seeded_bug: bug, ..LogConfig::default() };
    Ok(NodeLog::open(files, config, Arc::new(SystemClock::new()), &mut Registry::default())?)
}

fn entry(group: u64, index: u64) -> LogEntry {
    let bytes: Vec<u8> = (0..900_u64).map(|i| ((i * 13 + index * 7 + group) % 251) as u8 + 1).collect();
    LogEntry { id: LogId { term: 1, index }, tag: 1, bytes: bytes.into() }
}

/// The child: writes until the disk is gone. In an ordinary run of the tests it has nothing to do.
#[test]
#[allow(clippy::disallowed_methods, reason = "the parent talks to its child through the environment")]
fn writer_process() -> Result<()> {
    let Ok(dir) = std::env::var(DIR) else { return Ok(()) };
    let bug = match std::env::var(BUG).as_deref() {
        Ok("append") => Some(SeededBug::UnsyncedAppend),
        Ok("vote") => Some(SeededBug::UnsyncedVote),
        _ => None,
    };
    let log = open(Path::new(&dir), bug)?;
    // What is synced saves what is not and stands before it: with a bug only that is written which the bug concerns.
    let votes_only = bug == Some(SeededBug::UnsyncedVote);
    let entries_only = bug == Some(SeededBug::UnsyncedAppend);
    std::thread::scope(|scope| {
        for group in 1..4 {
            let log = &log;
            scope.spawn(move || {
                for index in 0.. {
                    if votes_only || !entries_only && index % 10 == 0 {
                        let vote = Vote { term: index + 1, voted_for: group, committed: true };
                        if log.save_vote_wait(GroupId(group), vote).is_err() {
                            return;
                        }
                        println!("\nvoted {group} {}", index + 1);
                    }
                    if votes_only {
                        continue;
                    }
                    match log.append_wait(GroupId(group), vec![entry(group, index)]) {
                        Ok(()) => println!("\nacked {group} {index}"),
                        Err(LogError::Failed { .. }) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    Ok(())
}

/// A child that is ended with the test.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was acknowledged: by group the last entry and the last term voted in.
#[derive(Debug, Default)]
struct Acked {
    entries: BTreeMap<u64, u64>,
    votes: BTreeMap<u64, u64>,
}

/// Writes with `bug`, cuts the power after `cut_after` acknowledgements, and says what the disk lost.
fn lost_by_a_cut(bug: &str, cut_after: usize) -> Result<Vec<String>> {
    let mut disk = Disk::new(96)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "writer_process", "--nocapture", "--test-threads=1"])
        .env(DIR, disk.root())
        .env(BUG, bug)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().context("standard output is piped")?;
    let writer = Writer(child);
    let mut acked = Acked::default();
    let mut seen = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["acked", group, index] => {
                acked.entries.insert(group.parse()?, index.parse()?);
                seen += 1;
            }
            ["voted", group, term] => {
                acked.votes.insert(group.parse()?, term.parse()?);
                seen += 1;
            }
            _ => continue,
        }
        if seen == cut_after {
            seen += 1;
            disk.cut(writer.0.id())?;
        }
    }
    drop(writer);
    disk.restore()?;
    let log = open(&disk.root(), None)?;
    let mut lost = Vec::new();
    for (&group, &last) in &acked.entries {
        let first_bad = match log.read(GroupId(group), 0, last + 1, usize::MAX) {
            Ok(found) => (0..=last).find(|&index| found.get(index as usize) != Some(&entry(group, index))),
            Err(error) => bail!("group {group}: {error}"),
        };
        lost.extend(first_bad.map(|index| format!("group {group}: entry {index} of {last} acknowledged")));
    }
    for (&group, &term) in &acked.votes {
        let vote = log.state(GroupId(group))?.vote.map_or(0, |vote| vote.term);
        if vote < term {
            lost.push(format!("group {group}: voted in term {term}, after the cut in {vote}"));
        }
    }
    assert!(seen > cut_after, "the power was cut after {cut_after} acknowledgements, {seen} were seen");
    Ok(lost)
}

#[test]
fn acknowledged_entries_and_votes_survive_a_power_cut() -> Result<()> {
    if !tier("root", power::missing()) {
        return Ok(());
    }
    for cut_after in [1, 7, 50, 130, 400] {
        assert_eq!(lost_by_a_cut("", cut_after)?, Vec::<String>::new(), "cut after {cut_after}");
    }
    Ok(())
}

#[test]
fn a_log_without_its_fsync_is_caught() -> Result<()> {
    if !tier("root", power::missing()) {
        return Ok(());
    }
    // What is not synced may still have reached the disk by chance, so the power is cut at several moments; at least one
    // must show the loss.
    for (bug, word) in [("append", "acknowledged"), ("vote", "voted")] {
        let mut lost = Vec::new();
        for cut_after in [40, 77, 100, 163, 250, 300, 333, 401] {
            lost.extend(lost_by_a_cut(bug, cut_after)?);
        }
        assert!(lost.iter().any(|l| l.contains(word)), "an unsynced {bug} must show: {lost:?}");
        println!("unsynced {bug}: {lost:?}");
    }
    Ok(())
}
