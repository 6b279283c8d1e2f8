//! What the node log promises, on files in memory: order, reading back, marks, segments that go, damage that
//! stays with its group, failures that are final.

use std::sync::Arc;

use bytes::Bytes;
use model::seam::fake::ManualClock;
use prometheus_client::registry::Registry;

use super::*;

const G1: GroupId = GroupId(1);
const G2: GroupId = GroupId(2);

pub(super) fn small() -> LogConfig {
    LogConfig { segment_bytes: 64 << 10, cache_bytes: 4 << 10, batch_bytes: 16 << 10, ..LogConfig::default() }
}

pub(super) fn open_with(files: &FaultyFiles, config: LogConfig) -> Result<Arc<NodeLog>, LogError> {
    NodeLog::open(Arc::new(files.clone()), config, Arc::new(ManualClock::default()), &mut Registry::default())
}

pub(super) fn open(files: &FaultyFiles) -> Arc<NodeLog> {
    open_with(files, small()).expect("opens")
}

pub(super) fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    let bytes: Vec<u8> =
        (0..size as u64).map(|i| ((i * 31 + index * 7 + term * 3) % 251) as u8 + 1).collect();
    LogEntry { id: LogId { term, index }, tag: 1, bytes: Bytes::from(bytes) }
}

fn fill(log: &NodeLog, group: GroupId, range: std::ops::Range<u64>, size: usize) {
    for index in range {
        log.append_wait(group, vec![entry(1, index, size)]).expect("appends");
    }
}

/// The log as text: one line a group.
pub(super) fn show(log: &NodeLog) -> String {
    let mut out = String::new();
    let id = |id: Option<LogId>| id.map_or("-".to_owned(), |id| format!("{}.{}", id.term, id.index));
    for (group, state, damage) in log.groups() {
        let vote = state.vote.map_or("-".into(), |v| {
            format!("{}:{}{}", v.term, v.voted_for, if v.committed { "!" } else { "" })
        });
        let first = state.purged.map_or(0, |p| p.index + 1);
        let (first, entries) = match log.read(group, first, u64::MAX, usize::MAX) {
            Ok(entries) => {
                for e in &entries {
                    assert_eq!(
                        *e,
                        entry(e.id.term, e.id.index, e.bytes.len()),
                        "bytes of {group} {:?}",
                        e.id
                    );
                }
                let first = entries.first().map_or("-".into(), |e| e.id.index.to_string());
                (first, entries.len().to_string())
            }
            Err(error) => ("?".into(), error.to_string()),
        };
        let damage = damage.map_or(String::new(), |d| format!(" DAMAGED {d}"));
        out += &format!(
            "{group}: vote {vote} purged {} committed {} last {} first {first} entries {entries}{damage}\n",
            id(state.purged),
            id(state.committed),
            id(state.last),
        );
    }
    out
}

fn check(log: &NodeLog, expect: &str) {
    let expect: String =
        expect.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect();
    assert_eq!(show(log), expect);
}

fn segments(files: &FaultyFiles) -> Vec<String> {
    let mut names = files.list().expect("lists");
    names.sort();
    names
}

#[test]
fn what_was_written_is_read_back() {
    let files = FaultyFiles::new();
    let log = open(&files);
    log.save_vote_wait(G1, Vote { term: 1, voted_for: 7, committed: false }).expect("votes");
    log.save_vote_wait(G1, Vote { term: 1, voted_for: 7, committed: true }).expect("votes");
    fill(&log, G1, 0..5, 100);
    fill(&log, G2, 0..3, 0);
    log.save_committed(G1, LogId { term: 1, index: 4 }).expect("notes");
    log.append_wait(G1, vec![entry(2, 3, 10), entry(2, 4, 11)]).expect("overwrites");
    log.purge_wait(G2, LogId { term: 1, index: 1 }).expect("purges");
    let expect = "1: vote 1:7! purged - committed 1.2 last 2.4 first 0 entries 5
                  2: vote - purged 1.1 committed - last 1.2 first 2 entries 1";
    check(&log, expect);
    log.close().expect("closes");
    assert!(matches!(log.purge_wait(G2, LogId { term: 1, index: 2 }), Err(LogError::Closed)));
    let log = open(&files);
    check(&log, expect);
    log.abandon();
    check(&open(&files.killed()), expect);
}

#[test]
fn a_hole_is_refused() {
    let log = open(&FaultyFiles::new());
    fill(&log, G1, 0..3, 10);
    assert!(matches!(
        log.append_wait(G1, vec![entry(1, 4, 1)]),
        Err(LogError::Hole { index: 4, last: Some(2), .. })
    ));
    assert!(matches!(
        log.append_wait(G1, vec![entry(1, 3, 1), entry(1, 5, 1)]),
        Err(LogError::Hole { index: 5, .. })
    ));
    fill(&log, G1, 3..4, 10);
}

#[test]
fn truncate_and_forget_survive() {
    let files = FaultyFiles::new();
    let log = open(&files);
    fill(&log, G1, 0..10, 50);
    fill(&log, G2, 0..2, 50);
    log.wait(|f| log.truncate(G1, 4, f)).expect("truncates");
    log.wait(|f| log.forget(G2, f)).expect("forgets");
    let expect = "1: vote - purged - committed - last 1.3 first 0 entries 4";
    check(&log, expect);
    log.close().expect("closes");
    let log = open(&files);
    check(&log, expect);
    fill(&log, G1, 4..6, 50);
    log.wait(|f| log.truncate(G1, 0, f)).expect("truncates");
    drop(log);
    check(&open(&files), "1: vote - purged - committed - last - first - entries 0");
}

#[test]
fn segments_go_when_nobody_needs_them_and_what_counts_stays() {
    let files = FaultyFiles::new();
    let log = open(&files);
    log.save_vote_wait(G2, Vote { term: 3, voted_for: 9, committed: true }).expect("votes");
    fill(&log, G2, 0..1, 10);
    fill(&log, G1, 0..100, 4000);
    let all = segments(&files).len();
    assert!(all > 5, "rolled: {all}");
    let held = log.holdings();
    assert_eq!((held[0].group, held[0].first), (G1, 0));
    log.purge_wait(G1, LogId { term: 1, index: 90 }).expect("purges");
    assert_eq!(segments(&files).len(), all, "group 2 still holds the first segment");
    log.purge_wait(G2, LogId { term: 1, index: 0 }).expect("purges");
    // Removal happens after the callback: one more record waits for it.
    log.save_vote_wait(G1, Vote { term: 4, voted_for: 1, committed: false }).expect("votes");
    assert!(segments(&files).len() < 4, "{:?}", segments(&files));
    let expect = "1: vote 4:1 purged 1.90 committed - last 1.99 first 91 entries 9
                  2: vote 3:9! purged 1.0 committed - last 1.0 first - entries 0";
    check(&log, expect);
    log.abandon();
    let log = open(&files.killed());
    check(&log, expect);
    fill(&log, G2, 1..2, 10);
}

#[test]
fn one_flush_serves_all_who_wait() {
    let files = FaultyFiles::new();
    let log = open(&files);
    let before = files.syncs();
    let (sender, receiver) = std::sync::mpsc::channel();
    for group in 0..50 {
        for index in 0..4 {
            let sender = sender.clone();
            log.append(
                GroupId(group),
                vec![entry(1, index, 20)],
                Box::new(move |r| {
                    let _ = sender.send(r);
                }),
            )
            .expect("queues");
        }
    }
    for _ in 0..200 {
        receiver.recv().expect("answers").expect("flushed");
    }
    assert!(files.syncs() - before < 100, "{} syncs for 200 appends", files.syncs() - before);
}

#[test]
fn a_failed_fsync_is_final() {
    let files = FaultyFiles::new();
    let log = open(&files);
    fill(&log, G1, 0..3, 10);
    files.plan(Fault::Sync(0));
    let error = log.append_wait(G1, vec![entry(1, 3, 10)]).expect_err("must fail");
    assert!(error.to_string().contains("stopped for good") && error.to_string().contains("fsync"), "{error}");
    assert_eq!(files.happened().0, 1, "the fault happened");
    assert!(matches!(log.append_wait(G2, vec![entry(1, 0, 10)]), Err(LogError::Failed { .. })));
    assert!(matches!(log.save_vote_wait(G1, Vote::default()), Err(LogError::Failed { .. })));
    assert!(log.failure().is_some() && log.close().is_err());
    // The page cache still shows what the failed fsync has dropped: the next start must not believe it.
    let cut = files.killed().power_cut(1, |_| false);
    check(&open(&cut), "1: vote - purged - committed - last 1.2 first 0 entries 3");
    // And if the next start sees it in the page cache, it makes it durable before it believes it.
    let again = files.killed();
    drop(open(&again));
    check(&open(&again.power_cut(1, |_| false)), "1: vote - purged - committed - last 1.3 first 0 entries 4");
}

#[test]
fn a_failed_write_is_final() {
    let files = FaultyFiles::new();
    let log = open(&files);
    files.plan(Fault::Write(0));
    log.append_wait(G1, vec![entry(1, 0, 10)]).expect_err("must fail");
    assert_eq!(files.happened().1, 1, "the fault happened");
    assert!(matches!(log.append_wait(G1, vec![entry(1, 0, 10)]), Err(LogError::Failed { .. })));
}

#[test]
fn a_full_disk_leaves_the_reserved_room_and_a_restart_works() {
    let files = FaultyFiles::new();
    let log = open(&files);
    files.plan(Fault::Full);
    let mut index = 0;
    while log.room() > 8 << 10 {
        fill(&log, G1, index..index + 1, 2000);
        index += 1;
    }
    assert!(files.happened().2 > 0, "the fault happened");
    log.save_vote_wait(G1, Vote { term: 2, voted_for: 1, committed: true }).expect("votes still work");
    log.abandon();
    let files = files.killed();
    files.plan(Fault::Full);
    let log = open(&files);
    assert_eq!(log.state(G1).expect("whole").last, Some(LogId { term: 1, index: index - 1 }));
    files.heal();
    fill(&log, G1, index..index + 40, 2000);
}

/// One bit flipped anywhere in the used part: repaired, or refused for one group; never another answer, never a panic.
#[test]
fn one_flipped_bit_hits_one_group_at_most() {
    let files = FaultyFiles::new();
    let log = open(&files);
    log.save_vote_wait(G2, Vote { term: 1, voted_for: 2, committed: true }).expect("votes");
    for index in 0..12 {
        fill(&log, G1, index..index + 1, 90);
        fill(&log, G2, index..index + 1, 70);
    }
    let whole = show(&log);
    log.close().expect("closes");
    let name = segments(&files)[0].clone();
    let mut used = 0;
    files.damage(&name, |bytes| used = bytes.iter().rposition(|&b| b != 0).expect("used") + 1);
    let (mut repaired, mut refused) = (0, 0);
    for at in (0..used).step_by(3) {
        let files = files.killed_copy();
        files.damage(&name, |bytes| bytes[at] ^= 1 << (at % 8));
        let log = open(&files);
        let damaged: Vec<_> = log.groups().into_iter().filter(|(_, _, damage)| damage.is_some()).collect();
        assert!(damaged.len() <= 1, "byte {at}: {}", show(&log));
        let Some((hurt, _, error)) = damaged.into_iter().next() else {
            assert_eq!(show(&log), whole, "byte {at}");
            repaired += 1;
            continue;
        };
        refused += 1;
        let text = error.expect("damaged").to_string();
        assert!(text.contains("0000000000000001.log at "), "names the place: {text}");
        assert!(log.append_wait(hurt, vec![entry(1, 12, 1)]).is_err() && log.state(hurt).is_err());
        let other = if hurt == G1 { G2 } else { G1 };
        log.append_wait(other, vec![entry(1, 12, 5)]).expect("the other group goes on");
        // The state machine holds everything durably: then nothing is lost, and the group heals.
        log.purge_wait(hurt, LogId { term: 1, index: 11 }).expect("purges");
        log.append_wait(hurt, vec![entry(1, 12, 5)]).expect("healed");
    }
    assert!(repaired > 50 && refused > 200, "{repaired} repaired, {refused} refused");
}

#[test]
fn salvage_keeps_what_is_whole() {
    let files = FaultyFiles::new();
    let log = open(&files);
    for index in 0..40 {
        fill(&log, G1, index..index + 1, 3000);
        fill(&log, G2, index..index + 1, 700);
    }
    log.close().expect("closes");
    let marker = entry(1, 25, 3000).bytes;
    let mut hit = 0;
    for name in segments(&files) {
        files.damage(&name, |bytes| {
            if let Some(at) = bytes.windows(3000).position(|w| w == &marker[..]) {
                bytes[at + 1000] ^= 4;
                hit += 1;
            }
        });
    }
    assert_eq!(hit, 1, "the damage happened");
    let log = open(&files);
    assert!(log.state(G1).is_err());
    log.read(G1, 0, 25, usize::MAX).expect("entries before are whole");
    assert!(matches!(log.read(G1, 20, 30, usize::MAX), Err(LogError::Damaged { .. })));
    drop(log);
    let report =
        NodeLog::salvage(&(Arc::new(files.clone()) as Arc<dyn LogFiles>), small(), &[]).expect("salvages");
    assert_eq!(report.len(), 1);
    let lost = &report[0];
    assert_eq!((lost.group, lost.lost_from), (G1, Some(25)));
    assert_eq!(lost.known_last, Some(LogId { term: 1, index: 39 }));
    assert_eq!(lost.kept_last, Some(LogId { term: 1, index: 24 }));
    let log = open(&files);
    check(
        &log,
        "1: vote - purged - committed - last 1.24 first 0 entries 25
                 2: vote - purged - committed - last 1.39 first 0 entries 40",
    );
    fill(&log, G1, 25..60, 3000);
    drop(log);
    check(
        &open(&files),
        "1: vote - purged - committed - last 1.59 first 0 entries 60
                          2: vote - purged - committed - last 1.39 first 0 entries 40",
    );
}

#[test]
fn a_missing_segment_is_an_exact_refusal() {
    let files = FaultyFiles::new();
    let log = open(&files);
    fill(&log, G1, 0..60, 3000);
    log.close().expect("closes");
    let names = segments(&files);
    for missing in &names[1..names.len() - 1] {
        let files = files.killed_copy();
        files.remove(missing).expect("removes");
        let error = open_with(&files, small()).expect_err("refuses").to_string();
        assert!(error.contains(&format!("segment {missing} is missing")), "{error}");
    }
    files.remove(&names[0]).expect("removes");
    let log = open(&files);
    assert!(log.state(G1).expect_err("refuses").to_string().contains("entry 0"), "{}", show(&log));
}

#[test]
fn a_newer_format_is_refused() {
    let files = FaultyFiles::new();
    drop(open(&files));
    files.damage(&segments(&files)[0], |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    });
    let error = open_with(&files, small()).expect_err("refuses").to_string();
    assert!(error.contains("format version 9, this program reads up to 1"), "{error}");
}

#[test]
fn a_file_cut_at_any_byte_loses_only_its_end() {
    let files = FaultyFiles::new();
    let log = open(&files);
    fill(&log, G1, 0..20, 150);
    log.abandon();
    let name = segments(&files)[0].clone();
    let files = files.killed();
    let mut used = 0;
    files.damage(&name, |bytes| used = bytes.iter().rposition(|&b| b != 0).expect("used") + 1);
    let mut last = 20;
    for cut in (used - 2000..used).rev() {
        for zeroed in [false, true] {
            let files = files.killed_copy();
            files.damage(&name, |bytes| if zeroed { bytes[cut..].fill(0) } else { bytes.truncate(cut) });
            let log = open(&files);
            let state = log.state(G1).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            let have = state.last.expect("some").index + 1;
            assert!(have == last || have + 1 == last, "cut at {cut}: {have} entries after {last}");
            last = have;
            fill(&log, G1, have..have + 2, 80);
            drop(log);
            let log = open(&files);
            assert_eq!(log.state(G1).expect("whole").last.expect("some").index, have + 1, "cut at {cut}");
        }
    }
    assert!(last < 12, "the cuts happened: {last}");
}

/// The example bytes of FORMAT.md decode to what is written beside them.
#[test]
fn format_examples_decode() {
    let text = include_str!("../../FORMAT.md");
    let example = |name: &str| -> Vec<u8> {
        let start =
            text.find(&format!("<!-- example: {name} -->")).unwrap_or_else(|| panic!("example {name}"));
        let block = text[start..].split("```").nth(1).expect("a block");
        let hex: String = block.lines().skip(1).map(|l| l.split("  ").next().expect("bytes")).collect();
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).expect("hex"), 16).expect("hex"))
            .collect()
    };
    let good = record::SegmentHeader::Good { seq: 3, first_lsn: 1000 };
    assert_eq!(record::decode_segment_header(&example("log segment header")), good);
    let bytes = example("log record");
    let header = record::Header::decode(&bytes).expect("decodes");
    assert_eq!((header.kind, header.tag, header.lsn, header.batch), (Kind::Entry, 1, 1002, 1001));
    assert_eq!((header.group, header.index, header.term, header.prev_group), (GroupId(5), 42, 2, GroupId(4)));
    assert_eq!(header.body(&bytes), Some(&b"hello, shard"[..]));
    assert_eq!(record::record_len(header.body_len) as usize, bytes.len());
    let rows = record::decode_table(&example("log table")).expect("decodes");
    let row = record::TableRow {
        vote: Some(Vote { term: 2, voted_for: 5, committed: true }),
        purged: Some(LogId { term: 1, index: 40 }),
        committed: Some(LogId { term: 2, index: 41 }),
        last: Some(LogId { term: 2, index: 42 }),
    };
    assert_eq!(rows, vec![(GroupId(5), row)]);
}
