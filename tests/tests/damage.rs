//! I17: torn and damaged files. A torn end is cut; anything else is an exact refusal, of one shard or of the start,
//! and never a wrong answer or a panic. The salvage command makes a damaged log usable and tells what is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::node::{Node, binary};
use tests::oracle::Writer;

const QUIET: &[&str] = &["--config.file=/dev/null"];

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg("--sparse=always").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}

/// The newest file in `folder` whose name satisfies `pick`, with the most bytes that are not zero among its like.
fn file(folder: &Path, pick: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if pick(&entry.file_name().to_string_lossy()) {
            found.push((entry.metadata()?.len(), entry.path()));
        }
    }
    found.sort();
    Ok(found.pop().with_context(|| format!("no such file in {}", folder.display()))?.1)
}

fn flip(path: &Path, at: impl Fn(&[u8]) -> usize) -> Result<usize> {
    let mut bytes = std::fs::read(path)?;
    let at = at(&bytes);
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes)?;
    Ok(at)
}

fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&b| b != 0).map_or(0, |at| at + 1)
}

/// A folder with data in the database and, above it, in the log; the node was killed.
fn folder_with_data(folder: &Path, writer: &mut Writer) -> Result<PathBuf> {
    let data = folder.join("data");
    let node = Node::start(&data, QUIET)?;
    for _ in 0..60 {
        ensure!(writer.send(&node.address)?.status < 300, "writes work");
    }
    let (status, log) = node.stop()?;
    ensure!(status.success(), "{}", log.join("\n"));
    let node = Node::start(&data, QUIET)?;
    for _ in 0..60 {
        ensure!(writer.send(&node.address)?.status < 300, "writes work");
    }
    writer.check(&node)?;
    node.kill()?;
    Ok(data)
}

/// What a start on a damaged folder led to.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Everything acknowledged is served.
    Whole,
    /// The start was refused, with this line.
    Refused(String),
    /// It runs, and answers reads of the damaged part with an error.
    Withheld(String),
}

fn outcome(data: &Path, writer: &Writer) -> Result<Outcome> {
    let mut node = Node::spawn(data, QUIET)?;
    let served = node.wait_for("ready to serve");
    let Ok(served) = served else {
        let (status, _) = node.wait()?;
        let log = node.log.join("\n");
        ensure!(!status.success(), "it ended well without serving: {log}");
        ensure!(!log.contains("panicked"), "a panic: {log}");
        return Ok(Outcome::Refused(log));
    };
    node.address = address(&served)?;
    let checked = writer.check(&node);
    let outcome = match checked {
        Ok(_) => Outcome::Whole,
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(
                !text.contains("wrong samples") && !text.contains("two samples"),
                "served damage: {text}"
            );
            Outcome::Withheld(text)
        }
    };
    let (_, log) = node.stop()?;
    let log = log.join("\n");
    ensure!(!log.contains("panicked"), "a panic: {log}");
    Ok(outcome)
}

fn address(line: &str) -> Result<String> {
    let address = line.split("address=").nth(1).context("the line names no address")?;
    Ok(address.split_whitespace().next().unwrap_or(address).trim_matches('"').to_owned())
}

#[test]
fn one_flipped_bit_in_each_kind_of_file_is_never_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut writer = Writer::new(1, 30);
    let data = folder.path().join("whole");
    std::fs::rename(folder_with_data(folder.path(), &mut writer)?, &data)?;
    let middle = |bytes: &[u8]| used(bytes) / 2;
    let mut seen = Vec::new();
    for (kind, part, prefix, suffix) in [
        ("identity", "", "NODE", ""),
        ("log", "log", "", ".log"),
        ("table", "db", "", ".sst"),
        ("manifest", "db", "MANIFEST", ""),
        ("current", "db", "CURRENT", ""),
    ] {
        let copied = folder.path().join(kind);
        copy(&data, &copied)?;
        let path = file(&copied.join(part), |name| name.starts_with(prefix) && name.ends_with(suffix))?;
        let at = flip(&path, middle)?;
        let outcome = outcome(&copied, &writer).with_context(|| format!("{} byte {at}", path.display()))?;
        seen.push((kind, outcome));
        std::fs::remove_dir_all(&copied)?;
    }
    for (kind, outcome) in &seen {
        println!("{kind}: {outcome:?}");
    }
    let refused = seen.iter().filter(|(_, outcome)| *outcome != Outcome::Whole).count();
    assert!(refused >= 3, "the damage was noticed: {seen:?}");
    Ok(())
}

#[test]
fn a_torn_last_record_is_cut_quietly() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut writer = Writer::new(1, 30);
    let data = folder_with_data(folder.path(), &mut writer)?;
    // What a write that did not finish leaves: half a record that nobody was told of.
    let path = file(&data.join("log"), |name| name.ends_with(".log"))?;
    let mut bytes = std::fs::read(&path)?;
    let end = used(&bytes).next_multiple_of(8);
    let record = bytes.windows(4).rposition(|w| w == b"iREC").context("a record")?;
    let half: Vec<u8> = bytes[record..record + 60].to_vec();
    bytes[end..end + 60].copy_from_slice(&half);
    std::fs::write(&path, bytes)?;
    assert_eq!(outcome(&data, &writer)?, Outcome::Whole);
    Ok(())
}

#[test]
fn salvage_gives_up_what_is_damaged_and_tells() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut writer = Writer::new(1, 30);
    let data = folder_with_data(folder.path(), &mut writer)?;
    let path = file(&data.join("log"), |name| name.ends_with(".log"))?;
    // A body in the last third: of an entry that the database does not have.
    flip(&path, |bytes| {
        let from = used(bytes) * 3 / 4;
        let record = bytes[from..].windows(4).position(|w| w == b"iREC").unwrap_or(0) + from;
        // Past the header of 72 bytes, in the body of whichever record has one.
        let mut at = record;
        while u32::from_le_bytes([bytes[at + 8], bytes[at + 9], bytes[at + 10], bytes[at + 11]]) < 64 {
            at += bytes[at + 4..].windows(4).position(|w| w == b"iREC").unwrap_or(8) + 4;
        }
        at + 90
    })?;
    let before = outcome(&data, &writer)?;
    assert!(matches!(&before, Outcome::Withheld(text) if text.contains("salvage")), "{before:?}");
    let output = Command::new(binary()).args(["tsdb", "salvage"]).arg(&data).output()?;
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{told}");
    assert!(told.contains("shard") && told.contains("given up"), "{told}");
    assert!(data.join("log/quarantine").read_dir()?.next().is_some(), "the damaged file is kept");
    let node = Node::start(&data, QUIET)?;
    let lost = writer.check(&node).map(|_| String::new()).unwrap_or_else(|error| format!("{error:#}"));
    assert!(lost.contains("I1 lost") && !lost.contains("I3 phantom"), "{lost}");
    let reply = writer.send(&node.address)?;
    assert!(reply.status < 300, "{reply:?}");
    node.kill()
}
