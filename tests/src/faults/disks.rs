//! F2, F6, F7: disks that are full, that lose power, and that fail: fsync, reads, renames, all writes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::Client;

use super::{number, pause, resumes, until, until_injected};
use crate::node::Launch;
use crate::scenario::{Scenario, all_shards};
use crate::trace::{Traced, lines_touched};

/// Within which time writes must go on when the disk of a leader is full: others lead within 3 s, and machines are busy.
const HANDED_OVER: Duration = Duration::from_secs(6);

/// Fills the disks of `which`, among which one that leads: writes go on, led by the others, until there is space again and
/// leaderships are spread as before.
pub(super) fn full_disks(s: &mut Scenario, which: &[usize]) -> Result<u64> {
    fill(s, which)?;
    let handed_over = s.load.wait(&s.load.mark(), 1, 1, HANDED_OVER).and_then(|()| {
        until(s, "who has no space leads nothing", |s| {
            let lead = which.iter().map(|at| number(s, *at, "isobar_replication_leaders"));
            Ok(lead.sum::<Result<u64>>()? == 0)
        })?;
        let status = s.cluster.status(which[0])?;
        let full =
            status["members"].as_array().into_iter().flatten().filter(|m| m["diskFull"] == true).count();
        ensure!(full == which.len(), "I15: the status shows {full} full disks, not {}", which.len());
        resumes(s)
    });
    for at in which {
        s.cluster.disks[*at].free()?;
    }
    handed_over.context("I15: writes must go on while others have space")?;
    resumes(s)?;
    until(s, "it leads again once there is space", |s| {
        // With more nodes than shards, leaderships are evenly spread when some nodes lead nothing.
        let may_lead_nothing = s.cluster.len() > all_shards().len();
        Ok(may_lead_nothing || number(s, which[0], "isobar_replication_leaders")? > 0)
    })?;
    Ok(which.len() as u64)
}

/// Fills all disks: a write is refused with the reason, and when there is space writes go on by themselves.
pub(super) fn all_disks_full(s: &mut Scenario, all: &[usize]) -> Result<u64> {
    fill(s, all)?;
    let mut probe = s.probe(None)?;
    let reply = probe.send(&s.cluster.addresses[0]);
    for at in all {
        s.cluster.disks[*at].free()?;
    }
    let reply = reply.context("a node whose disk is full answers")?;
    ensure!(
        reply.status == 503 && reply.headers.contains("retry-after:") && reply.body.contains("no space left"),
        "I15: a write for which nobody has space must be refused with 503, Retry-After and the reason: {reply:?}"
    );
    resumes(s)?;
    all.iter().map(|at| number(s, *at, "isobar_replication_refused_disk_full_total")).sum()
}

/// Fills disks to the last byte; returns once their nodes have noticed.
fn fill(s: &mut Scenario, which: &[usize]) -> Result<()> {
    let filled: u64 =
        which.iter().map(|at| s.cluster.disks[*at].fill()).collect::<Result<Vec<_>>>()?.iter().sum();
    ensure!(filled > 1 << 20, "the disks were full before");
    let noticed = until(s, "nodes notice that their disks are full", |s| {
        let full = which.iter().map(|at| number(s, *at, "isobar_replication_disk_full"));
        Ok(full.collect::<Result<Vec<_>>>()?.iter().all(|full| *full == 1))
    });
    if noticed.is_err() {
        which.iter().try_for_each(|at| s.cluster.disks[*at].free())?;
    }
    noticed
}

/// Fsyncs of a node fail from one moment on, all (`"fdatasync:error=EIO"`) or only the first: it may acknowledge nothing more,
/// the others go on; a restart mends it.
pub(super) fn fsync_fails(s: &mut Scenario, at: usize, inject: &str) -> Result<u64> {
    let traced = Traced::inject(s.cluster.node(at)?.pid(), inject)?;
    until_injected(s, &traced, 1)?;
    let outcome = resumes(s);
    let injected = traced.injected()?;
    drop(traced);
    outcome?;
    log_failed(s, at)?;
    s.cluster.kill(at)?;
    s.cluster.restart()?;
    Ok(injected as u64)
}

/// The log of a node has failed for good, and the node says so; its clients are served by the others, through it (I16).
fn log_failed(s: &mut Scenario, at: usize) -> Result<()> {
    until(s, "I16: a log that fails has failed for good", |s| Ok(number(s, at, "isobar_log_failed")? == 1))?;
    let (code, why) = s.cluster.node(at)?.get("/-/ready")?;
    ensure!(code == 503 && why.contains("log"), "a node whose log has failed is not ready: {code} {why}");
    let mut probe = s.probe(None)?;
    let reply = probe.send(&s.cluster.addresses[at]).context("a node whose log has failed answers")?;
    ensure!(reply.status < 300, "I16: the shard goes on, also for clients of that node: {reply:?}");
    Ok(())
}

/// The file system of a node is read-only from one moment on, as the kernel makes it on errors.
pub(super) fn read_only(s: &mut Scenario, at: usize) -> Result<u64> {
    pause(s, 0, 300);
    s.cluster.disks.get(at).context("a disk of its own")?.abort()?;
    resumes(s)?;
    log_failed(s, at)?;
    s.cluster.kill(at)?;
    s.cluster.disks[at].restore()?;
    s.cluster.restart()?;
    resumes(s)?;
    Ok(1)
}

/// Reads of a node's files fail: what it cannot read it does not answer, and the others go on; then it is restarted.
pub(super) fn reads_fail(s: &mut Scenario, at: usize) -> Result<u64> {
    let traced = Traced::inject(s.cluster.node(at)?.pid(), "pread64:error=EIO")?;
    let address = s.cluster.node(at)?.address.clone();
    // What it holds in memory needs no reads: merging what lies on the disk does.
    let touched = until(s, "reads fail", |_| {
        let cleaned = Client::new(&address).request("POST", "/api/v1/admin/tsdb/clean_tombstones", &[], &[]);
        // It may say that it could not.
        cleaned.map(|_| ())?;
        Ok(traced.injected()? > 0)
    });
    let outcome = touched.and_then(|()| resumes(s));
    let injected = traced.injected()?;
    drop(traced);
    outcome?;
    s.cluster.kill(at)?;
    s.cluster.restart()?;
    resumes(s)?;
    Ok(injected as u64)
}

/// A node is started while its files cannot be renamed: it serves, or says why it does not start; the others go on.
pub(super) fn renames_fail(s: &mut Scenario, at: usize) -> Result<u64> {
    s.cluster.kill(at)?;
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("trace");
    let inject = "inject=rename,renameat,renameat2:error=EIO";
    // With -D strace is the child of what it traces.
    let words = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        "trace=rename,renameat,renameat2",
        "-e",
        inject,
        "-o",
    ];
    let under = words.iter().map(|word| (*word).to_owned()).chain([trace.display().to_string()]).collect();
    match s.cluster.spawn_as(at, &Launch { under, ..Launch::default() }) {
        Ok(()) => {
            resumes(s)?;
            s.cluster.kill(at)?;
        }
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("Input/output error"), "a node that does not start must say why: {text}");
            ensure!(!text.contains("panicked at"), "{text}");
            resumes(s)?;
        }
    }
    let injected = lines_touched(&trace)?;
    ensure!(injected > 0, "no rename failed");
    s.cluster.restart()?;
    resumes(s)?;
    Ok(injected as u64)
}
