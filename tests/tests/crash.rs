//! I1 to I4 with the program as people run it: killed at random, stopped under load, its power cut, its disk full,
//! its fsync failing. Each test checks that its fault really happened.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::node::{Node, binary};
use tests::oracle::Writer;
use tests::power::{self, Disk};
use tests::tier;
use tests::trace::{self, Traced};

const QUIET: &[&str] = &["--config.file=/dev/null"];

/// Sends rounds from `writers` at once until `enough` says so or the node is gone.
fn load(writers: &mut [Writer], address: &str, enough: impl Fn(usize) -> bool + Sync) {
    let stop = AtomicBool::new(false);
    let acked = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in writers {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match writer.send(address) {
                        Ok(reply) if reply.status < 300 => {
                            if enough(acked.fetch_add(1, Ordering::Relaxed) + 1) {
                                stop.store(true, Ordering::Relaxed);
                            }
                        }
                        Ok(_) | Err(_) => stop.store(true, Ordering::Relaxed),
                    }
                }
            });
        }
    });
}

fn start(data: &Path) -> Result<Node> {
    Node::start(data, QUIET)
}

fn check_all(node: &Node, writers: &[Writer]) -> Result<()> {
    writers.iter().try_for_each(|writer| writer.check(node).map(|_| ()))
}

#[test]
fn kill_9_at_random_moments_loses_nothing_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut writers: Vec<Writer> = (1..4).map(|id| Writer::new(id, 40).with_histograms()).collect();
    let mut interrupted = 0;
    for round in 0..6_usize {
        let node = start(&data)?;
        for writer in &mut writers {
            writer.retry_unknown(&node.address)?;
        }
        check_all(&node, &writers)?;
        let pid = node.pid().to_string();
        // Killed from inside the load, at another number of acknowledgements each time: some request is always open.
        let moment = [1, 7, 40, 13, 90, 25][round];
        load(&mut writers, &node.address.clone(), |acked| {
            acked >= moment
                && Command::new("kill").args(["-KILL", &pid]).status().is_ok()
                && acked > moment + 50
        });
        interrupted += writers.iter().map(Writer::unknown).sum::<usize>();
        drop(node);
    }
    assert!(interrupted > 0, "no request was open when the node was killed");
    let node = start(&data)?;
    for writer in &mut writers {
        writer.retry_unknown(&node.address)?;
        assert_eq!(writer.unknown(), 0);
        assert!(writer.acked() > 20, "{writer:?}");
    }
    check_all(&node, &writers)?;
    node.kill()
}

#[test]
fn sigterm_under_load_answers_what_it_took_and_keeps_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut writers: Vec<Writer> = (1..5).map(|id| Writer::new(id, 100).with_histograms()).collect();
    let mut node = start(&data)?;
    let pid = node.pid().to_string();
    load(&mut writers, &node.address.clone(), |acked| {
        acked == 60 && Command::new("kill").args(["-TERM", &pid]).status().is_err()
    });
    let (status, log) = node.wait()?;
    assert!(status.success(), "{status}: {}", log.join("\n"));
    assert!(writers.iter().map(Writer::acked).sum::<usize>() >= 60, "the load ran");
    let node = start(&data)?;
    check_all(&node, &writers)?;
    node.kill()
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() -> Result<()> {
    if !tier("root", power::missing()) {
        return Ok(());
    }
    let mut disk = Disk::new(1500)?;
    let mut writers: Vec<Writer> = (1..4).map(|id| Writer::new(id, 60).with_histograms()).collect();
    for moment in [30, 1, 200] {
        let data = disk.root().join("data");
        let node = start(&data)?;
        for writer in &mut writers {
            writer.retry_unknown(&node.address)?;
        }
        check_all(&node, &writers)?;
        let (pid, cut) = (node.pid(), &disk);
        load(&mut writers, &node.address.clone(), |acked| acked == moment && cut.cut(pid).is_err());
        drop(node);
        disk.restore()?;
        assert!(writers.iter().any(|writer| writer.unknown() > 0), "the cut came under load");
    }
    let node = start(&disk.root().join("data"))?;
    check_all(&node, &writers)?;
    for writer in &mut writers {
        writer.retry_unknown(&node.address)?;
    }
    check_all(&node, &writers)?;
    node.kill()
}

#[test]
fn a_full_disk_refuses_writes_goes_on_reading_and_recovers_by_itself() -> Result<()> {
    if !tier("root", power::missing()) {
        return Ok(());
    }
    let disk = Disk::new(700)?;
    let data = disk.root().join("data");
    let mut node = start(&data)?;
    let mut writer = Writer::new(1, 50);
    for _ in 0..20 {
        ensure!(writer.send(&node.address)?.status < 300, "writes work before");
    }
    assert!(disk.fill()? > 1 << 20, "the disk was not full before");
    let patience = Duration::from_secs(10);
    let address = node.address.clone();
    let refused = node.eventually(patience, "a write is refused", |_| {
        let reply = writer.send(&address)?;
        Ok((reply.status == 503).then_some(reply))
    })?;
    assert!(refused.headers.contains("retry-after:"), "{refused:?}");
    assert!(refused.body.contains("no space left"), "{refused:?}");
    writer.check(&node)?;
    // A restart on the full disk works, and still reads.
    node.kill()?;
    let mut node = start(&data)?;
    writer.check(&node)?;
    let address = node.address.clone();
    assert_eq!(writer.send(&address)?.status, 503);
    disk.free()?;
    node.eventually(patience, "writes work again", |_| {
        Ok((writer.send(&address)?.status < 300).then_some(()))
    })?;
    writer.retry_unknown(&address)?;
    writer.check(&node)?;
    node.kill()
}

#[test]
fn a_failed_fsync_stops_acknowledgements_for_good() -> Result<()> {
    if !tier("tools", trace::missing()) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut node = start(&data)?;
    let mut writer = Writer::new(1, 20);
    for _ in 0..5 {
        ensure!(writer.send(&node.address)?.status < 300, "writes work before");
    }
    let traced = Traced::inject(node.pid(), "fdatasync:error=EIO")?;
    let patience = Duration::from_secs(30);
    let address = node.address.clone();
    let refused = node.eventually(patience, "a write is refused", |_| {
        let reply = writer.send(&address)?;
        Ok((reply.status >= 500).then_some(reply))
    })?;
    assert!(traced.injected()? > 0, "the fault happened");
    assert_eq!(refused.status, 503, "{refused:?}");
    // The disk is well again, and yet nothing may be acknowledged: nobody knows what the failed fsync lost.
    drop(traced);
    for _ in 0..3 {
        let reply = writer.send(&address)?;
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.body.contains("stopped for good"), "{reply:?}");
    }
    node.kill()?;
    let node = start(&data)?;
    writer.retry_unknown(&node.address)?;
    writer.check(&node)?;
    assert_eq!(writer.unknown(), 0);
    node.kill()
}

#[test]
fn a_second_process_on_the_folder_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let node = start(&data)?;
    let mut second = Node::spawn(&data, QUIET)?;
    let (status, log) = second.wait()?;
    assert!(!status.success() && log.iter().any(|l| l.contains("another process uses it")), "{log:#?}");
    node.kill()
}

#[test]
fn a_folder_of_prometheus_is_refused_with_the_command() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let block = data.join("01HQ3X9T4ZC9W3K5D2S8M7N6P5");
    std::fs::create_dir_all(&block)?;
    std::fs::write(block.join("meta.json"), "{}")?;
    let mut node = Node::spawn(&data, QUIET)?;
    let (status, log) = node.wait()?;
    assert!(!status.success() && log.iter().any(|l| l.contains("--storage.tsdb.path=OTHER")), "{log:#?}");
    let first = std::fs::read_dir(&data)?.next().context("the block is there")??;
    assert_eq!(first.path(), block, "nothing was changed ({})", binary().display());
    Ok(())
}
