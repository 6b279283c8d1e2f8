//! The faults: how each is made, what of it must be seen to have happened, and what must go on meanwhile.
//!
//! Each one is over when it returns: processes run again, links are well, disks have space. What it returns is evidence
//! that it happened, never 0 when it did.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::oracle::Reader;
use crate::proxy::{Condition, Counters, End};
use crate::scenario::{HEAL, Scenario};
use crate::trace::Traced;

/// Within which time writes must go on although one node is gone. Far more than what is promised (I12: 3 s, 5 s), which
/// is measured apart: here machines may be busy and programs not optimised.
const RESUME: Duration = Duration::from_secs(20);
/// Rounds of each writer that must be acknowledged while a fault is on that writes must survive.
const ROUNDS: u64 = 5;
/// Within which time a node without a majority must have refused a write (I13): 2 s, and half of one for machines that
/// are busy.
const REFUSAL: Duration = Duration::from_millis(2_500);
/// Within which time writes must go on when the disk of a leader is full: others lead within 3 s, and machines are busy.
const HANDED_OVER: Duration = Duration::from_secs(6);

/// What strace does for a disk whose every fsync takes 300 ms longer.
const SLOW_FSYNC: &str = "fdatasync:delay_enter=300000";

/// What can go wrong. Names of the list in docs/faults.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// F1: SIGKILL of the node that leads most.
    KillLeader,
    /// F1: SIGKILL of the node that leads least.
    KillFollower,
    /// F1: SIGKILL of two nodes: no majority is left, so nothing may be acknowledged.
    KillTwo,
    /// F1: SIGKILL of all nodes at once.
    KillAll,
    /// F2: power cut of the node that leads most.
    PowerCutLeader,
    /// F2: power cut of all nodes at one moment.
    PowerCutAll,
    /// F2 with F9: power cut of all nodes at one moment while every fsync takes 300 ms longer, so that much is under way.
    PowerCutSlowDisks,
    /// F3: the node that leads most is frozen until others lead, and wakes up.
    FreezeLeader,
    /// F4: nothing passes between the node that leads most and the others.
    IsolateLeader,
    /// F4: the node that leads most hears nobody; it is heard.
    DeafLeader,
    /// F4: nobody hears the node that leads most; it hears.
    MuteLeader,
    /// F4: now this node is alone, now that one.
    Flapping,
    /// F5: every message between nodes takes 75 ± 50 ms.
    SlowNetwork,
    /// F5: the links of one node carry 1 Mbit/s and take 300 ms.
    NarrowLinks,
    /// F5: connections between nodes are reset at random, and in the middle of messages.
    Resets,
    /// F5: requests of clients are cut in the middle of their bodies.
    CutBodies,
    /// F6: the disk of the node that leads most is full: others lead, until it has space again.
    FullDiskLeader,
    /// F6: the disks of two nodes are full: those with space lead, until there is space again.
    FullDiskMajority,
    /// F6: the disks of all nodes are full, and get space again.
    FullDiskAll,
    /// F7: every fsync of the node that leads most fails from one moment on; then the node is restarted.
    FsyncFails,
    /// F9: every fsync of the node that leads most takes 300 ms longer.
    SlowFsync,
    /// F17: the node that leads most gets a fifth of the CPU: it runs for 20 ms, is frozen for 80 ms, again and again.
    StarvedLeader,
    /// F18: SIGTERM of the node that leads most, under load.
    Terminate,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillTwo,
        Self::KillAll,
        Self::PowerCutLeader,
        Self::PowerCutAll,
        Self::PowerCutSlowDisks,
        Self::FreezeLeader,
        Self::IsolateLeader,
        Self::DeafLeader,
        Self::MuteLeader,
        Self::Flapping,
        Self::SlowNetwork,
        Self::NarrowLinks,
        Self::Resets,
        Self::CutBodies,
        Self::FullDiskLeader,
        Self::FullDiskMajority,
        Self::FullDiskAll,
        Self::FsyncFails,
        Self::SlowFsync,
        Self::StarvedLeader,
        Self::Terminate,
    ];

    /// The invariants that it puts to the test beside I1 to I6, which hold in every scenario.
    pub fn invariants(self) -> &'static str {
        match self {
            Self::KillLeader | Self::KillFollower | Self::Terminate => "I1 to I6, I12",
            Self::KillTwo => "I1 to I6, I13",
            Self::KillAll | Self::PowerCutLeader | Self::PowerCutAll | Self::PowerCutSlowDisks => {
                "I1 to I6, I14"
            }
            Self::FreezeLeader => "I1 to I6, I12 (a leader that wakes shows nothing old)",
            Self::IsolateLeader | Self::DeafLeader | Self::MuteLeader => "I1 to I6, I12, I13",
            Self::Flapping => "I1 to I6, I13",
            Self::SlowNetwork | Self::NarrowLinks | Self::SlowFsync | Self::StarvedLeader => "I1 to I6, I11",
            Self::Resets | Self::CutBodies => "I1 to I6",
            Self::FullDiskLeader | Self::FullDiskMajority | Self::FullDiskAll => "I1 to I6, I15",
            Self::FsyncFails => "I1 to I6, I16",
        }
    }

    /// Whether it makes others lead, surely.
    pub fn replaces_leaders(self) -> bool {
        matches!(
            self,
            Self::KillLeader
                | Self::PowerCutLeader
                | Self::FreezeLeader
                | Self::IsolateLeader
                | Self::MuteLeader
                | Self::FullDiskLeader
                | Self::Terminate
        )
    }

    /// Whether nodes need disks of their own for it.
    pub fn needs_disks(self) -> bool {
        matches!(
            self,
            Self::PowerCutLeader
                | Self::PowerCutAll
                | Self::PowerCutSlowDisks
                | Self::FullDiskLeader
                | Self::FullDiskMajority
                | Self::FullDiskAll
        )
    }

    /// Whether it needs strace.
    pub fn needs_strace(self) -> bool {
        matches!(self, Self::PowerCutSlowDisks | Self::FsyncFails | Self::SlowFsync)
    }
}

/// Carries `fault` out and ends it; gives how much of it was seen to have happened.
pub(crate) fn inflict(s: &mut Scenario, fault: Fault) -> Result<u64> {
    s.cluster.wait_whole(HEAL).context("before the fault")?;
    let (leader, other) = leader_and_other(s)?;
    let all: Vec<usize> = (0..s.cluster.len()).collect();
    match fault {
        Fault::KillLeader => kill_one(s, leader),
        Fault::KillFollower => kill_one(s, other),
        Fault::KillTwo => kill_two(s, leader, other),
        Fault::KillAll => {
            pause(s, 0, 300);
            s.cluster.kill_together(&all)?;
            s.cluster.restart()?;
            resumes(s)?;
            Ok(all.len() as u64)
        }
        Fault::PowerCutLeader => power_cut(s, &[leader]),
        Fault::PowerCutAll => power_cut(s, &all),
        Fault::PowerCutSlowDisks => {
            let traced = all.iter().map(|at| Traced::inject(s.cluster.node(*at)?.pid(), SLOW_FSYNC));
            let traced = traced.collect::<Result<Vec<Traced>>>()?;
            for traced in &traced {
                until_injected(s, traced, 2)?;
            }
            resumes(s)?;
            power_cut(s, &all)
        }
        Fault::FreezeLeader => freeze(s, leader),
        Fault::IsolateLeader => {
            let links = s.cluster.links(leader);
            partition(s, leader, &links)
        }
        Fault::DeafLeader => {
            let mut links = s.cluster.links(leader);
            links.retain(|(_, to)| *to == End::Node(leader));
            partition(s, leader, &links)
        }
        Fault::MuteLeader => {
            let mut links = s.cluster.links(leader);
            links.retain(|(from, _)| *from == End::Node(leader));
            partition(s, leader, &links)
        }
        Fault::Flapping => flap(s),
        Fault::SlowNetwork => {
            let condition = Condition::slow(Duration::from_millis(75), Duration::from_millis(50));
            let links: Vec<(End, End)> = all.iter().flat_map(|at| s.cluster.links(*at)).collect();
            under(s, &links, &condition, |counters| counters.delayed)
        }
        Fault::NarrowLinks => {
            let slow = Condition::slow(Duration::from_millis(300), Duration::ZERO);
            let condition = Condition { bytes_per_second: Some(125_000), ..slow };
            let links = s.cluster.links(other);
            under(s, &links, &condition, |counters| counters.limited)
        }
        Fault::Resets => resets(s),
        Fault::CutBodies => cut_bodies(s),
        Fault::FullDiskLeader => full_disks(s, &[leader]),
        Fault::FullDiskMajority => full_disks(s, &[leader, other]),
        Fault::FullDiskAll => all_disks_full(s, &all),
        Fault::FsyncFails => fsync_fails(s, leader),
        Fault::SlowFsync => {
            let traced = Traced::inject(s.cluster.node(leader)?.pid(), SLOW_FSYNC)?;
            until_injected(s, &traced, 3)?;
            resumes(s)?;
            Ok(traced.injected()? as u64)
        }
        Fault::StarvedLeader => starve(s, leader),
        Fault::Terminate => {
            pause(s, 0, 300);
            s.cluster.stop(leader)?;
            resumes(s)?;
            s.cluster.restart()?;
            Ok(1)
        }
    }
}

/// A node that leads something and one that leads less; leaderships may just be changing hands.
fn leader_and_other(s: &Scenario) -> Result<(usize, usize)> {
    let deadline = s.clock.monotonic() + HEAL;
    loop {
        match s.cluster.leader_and_other() {
            Ok(both) => return Ok(both),
            Err(error) if s.clock.monotonic() > deadline => return Err(error),
            Err(_) => s.load.run_for(Duration::from_millis(100)),
        }
    }
}

/// Lets the load go on for `least_ms`, and up to `more_ms` longer, as the seed decides.
fn pause(s: &mut Scenario, least_ms: u64, more_ms: usize) {
    let more = s.random.below(more_ms) as u64;
    s.load.run_for(Duration::from_millis(least_ms + more));
}

/// Writes and reads go on, whatever is the matter.
fn resumes(s: &Scenario) -> Result<()> {
    s.load.wait(&s.load.mark(), ROUNDS, 2, RESUME)
}

fn kill_one(s: &mut Scenario, at: usize) -> Result<u64> {
    pause(s, 0, 300);
    s.cluster.kill(at)?;
    resumes(s)?;
    s.cluster.restart()?;
    Ok(1)
}

/// A write to node `at`, which has no majority: it must be refused within the limit, with the word to come again.
fn is_refused(s: &mut Scenario, at: usize) -> Result<()> {
    let mut probe = s.probe(None)?;
    let begun = s.clock.monotonic();
    let reply = probe.send(&s.cluster.addresses[at]).context("a node without a majority answers")?;
    let took = s.clock.monotonic() - begun;
    ensure!(
        reply.status == 503 && reply.headers.contains("retry-after:") && reply.body.contains("shard "),
        "I13: a write without a majority must be refused with 503 and Retry-After, naming the shard: {reply:?}"
    );
    ensure!(took < REFUSAL, "I13: it was refused after {took:?}");
    Ok(())
}

fn kill_two(s: &mut Scenario, one: usize, two: usize) -> Result<u64> {
    pause(s, 0, 300);
    s.cluster.kill_together(&[one, two])?;
    let left = s.cluster.running();
    ensure!(left.len() == 1, "one of three nodes is left, not {left:?}");
    // Answers that were on their way are there by then.
    pause(s, 1_000, 1);
    let mark = s.load.mark();
    is_refused(s, left[0])?;
    ensure!(s.load.acked_since(&mark) == 0, "rounds were acknowledged without a majority");
    s.cluster.restart()?;
    resumes(s)?;
    Ok(2)
}

fn power_cut(s: &mut Scenario, which: &[usize]) -> Result<u64> {
    pause(s, 0, 300);
    s.cluster.cut_power(which)?;
    if which.len() < s.cluster.len() {
        resumes(s)?;
    }
    s.cluster.restart()?;
    resumes(s)?;
    Ok(which.len() as u64)
}

/// Freezes a leader until others lead, with reads waiting in front of it, and wakes it up: they and those that follow
/// must see everything that was acknowledged before they were asked.
fn freeze(s: &mut Scenario, at: usize) -> Result<u64> {
    let shapes = s.load.shapes();
    let address = s.cluster.addresses[at].clone();
    pause(s, 0, 300);
    s.cluster.node(at)?.signal("STOP")?;
    let frozen = resumes(s);
    let waiting: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(number, shape)| {
            let mut reader = Reader::new(100 + number, s.clock.clone()).with_patience(HEAL);
            let (shape, address) = (*shape, address.clone());
            std::thread::spawn(move || {
                // No answer is no wrong one; how many there were is counted below.
                for _ in 0..5 {
                    let _ = reader.samples(shape, at, &address);
                }
                reader
            })
        })
        .collect();
    // Until the questions are in front of it: more is acknowledged meanwhile, which they need not see.
    let asked = frozen.and_then(|()| resumes(s));
    s.cluster.node(at)?.signal("CONT")?;
    let mut answered = 0;
    for thread in waiting {
        let reader = thread.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?;
        answered += reader.reads.len() as u64;
        s.reads.extend(reader.reads);
    }
    asked?;
    ensure!(answered > 0, "no read was answered by the node that woke up");
    Ok(answered)
}

/// Gives a node a fifth of the CPU for six seconds at least, and until writes have gone on.
fn starve(s: &mut Scenario, at: usize) -> Result<u64> {
    let mark = s.load.mark();
    let deadline = s.clock.monotonic() + RESUME;
    let mut frozen = 0;
    loop {
        s.cluster.node(at)?.signal("STOP")?;
        pause(s, 80, 1);
        s.cluster.node(at)?.signal("CONT")?;
        frozen += 1;
        pause(s, 20, 1);
        let gone_on = s.load.wait(&mark, ROUNDS, 2, Duration::ZERO);
        if frozen >= 60 && gone_on.is_ok() {
            return Ok(frozen);
        }
        ensure!(s.clock.monotonic() < deadline, "{gone_on:?}");
    }
}

fn partition(s: &mut Scenario, at: usize, links: &[(End, End)]) -> Result<u64> {
    let both_ways = links.len() == s.cluster.links(at).len();
    let before = s.cluster.proxy.counters().held;
    pause(s, 0, 300);
    for (from, to) in links {
        s.cluster.proxy.set(*from, *to, Condition::hole());
    }
    resumes(s)?;
    if both_ways {
        is_refused(s, at)?;
    }
    let held = s.cluster.proxy.counters().held - before;
    s.cluster.proxy.heal();
    resumes(s)?;
    ensure!(held > 0, "nothing met the hole");
    Ok(held)
}

fn flap(s: &mut Scenario) -> Result<u64> {
    let before = s.cluster.proxy.counters().held;
    for _ in 0..4 {
        let at = s.random.below(s.cluster.len());
        for (from, to) in s.cluster.links(at) {
            s.cluster.proxy.set(from, to, Condition::hole());
        }
        pause(s, 1_000, 1_500);
        s.cluster.proxy.heal();
        pause(s, 100, 500);
    }
    let held = s.cluster.proxy.counters().held - before;
    ensure!(held > 0, "nothing met the hole");
    resumes(s)?;
    Ok(held)
}

/// Writes go on while `links` are in `condition`; gives how much more `counted` has.
fn under(
    s: &mut Scenario,
    links: &[(End, End)],
    condition: &Condition,
    counted: fn(&Counters) -> u64,
) -> Result<u64> {
    let before = counted(&s.cluster.proxy.counters());
    for (from, to) in links {
        s.cluster.proxy.set(*from, *to, condition.clone());
    }
    // The first rounds after the change may still have gone before it.
    resumes(s)?;
    resumes(s)?;
    let touched = counted(&s.cluster.proxy.counters()) - before;
    s.cluster.proxy.heal();
    ensure!(touched > 0, "nothing met {condition:?}");
    Ok(touched)
}

fn resets(s: &mut Scenario) -> Result<u64> {
    let before = s.cluster.proxy.counters();
    let count = s.cluster.len();
    for turn in 0..12 {
        let from = s.random.below(count);
        let to = (from + 1 + s.random.below(count - 1)) % count;
        if turn % 2 == 0 {
            s.cluster.proxy.reset(End::Node(from), End::Node(to));
        } else {
            let bytes = s.random.below(30_000) as u64;
            s.cluster.proxy.cut_after(End::Node(from), End::Node(to), bytes);
        }
        pause(s, 100, 200);
    }
    resumes(s)?;
    s.cluster.proxy.heal();
    let after = s.cluster.proxy.counters();
    let (resets, cuts) = (after.resets - before.resets, after.cuts - before.cuts);
    ensure!(resets > 0 && cuts > 0, "{resets} connections were reset, {cuts} cut in the middle");
    Ok(resets + cuts)
}

fn cut_bodies(s: &mut Scenario) -> Result<u64> {
    let before = s.cluster.proxy.counters().cuts;
    for turn in 0..20 {
        // A request has a head of some 200 bytes and a body of some 1,500; answers are short.
        let (from, to) = (End::Client, End::Node(turn % s.cluster.len()));
        if s.random.once_in(4) {
            s.cluster.proxy.cut_after(to, from, s.random.below(400) as u64);
        } else {
            s.cluster.proxy.cut_after(from, to, 250 + s.random.below(4_000) as u64);
        }
        pause(s, 50, 100);
    }
    s.cluster.proxy.heal();
    resumes(s)?;
    let cuts = s.cluster.proxy.counters().cuts - before;
    ensure!(cuts > 0, "no connection of a client was cut");
    Ok(cuts)
}

/// Fills the disks of `which`, among which one that leads: writes go on, led by the others, until there is space again and
/// leaderships are spread as before.
fn full_disks(s: &mut Scenario, which: &[usize]) -> Result<u64> {
    fill(s, which)?;
    let handed_over = s.load.wait(&s.load.mark(), 1, 1, HANDED_OVER).and_then(|()| {
        for at in which {
            let leads = number(s, *at, "isobar_replication_leaders")?;
            ensure!(leads == 0, "node {at} leads {leads} shards though its disk is full");
        }
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
        Ok(number(s, which[0], "isobar_replication_leaders")? > 0)
    })?;
    Ok(which.len() as u64)
}

/// Fills all disks: a write is refused with the reason, and when there is space writes go on by themselves.
fn all_disks_full(s: &mut Scenario, all: &[usize]) -> Result<u64> {
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

/// What a node's metric without labels says.
fn number(s: &Scenario, at: usize, metric: &str) -> Result<u64> {
    let (_, text) = s.cluster.node(at)?.get("/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{metric} is there"))?.trim().parse::<f64>()? as u64)
}

/// Lets the load go on until `look` is true.
fn until(s: &Scenario, what: &str, look: impl Fn(&Scenario) -> Result<bool>) -> Result<()> {
    let deadline = s.clock.monotonic() + HEAL;
    while !look(s)? {
        ensure!(s.clock.monotonic() < deadline, "not within {HEAL:?}: {what}");
        s.load.run_for(Duration::from_millis(50));
    }
    Ok(())
}

/// Returns once `count` calls were touched: attaching takes a moment, and writes go on meanwhile.
fn until_injected(s: &Scenario, traced: &Traced, count: usize) -> Result<()> {
    until(s, "calls are touched", |_| Ok(traced.injected()? >= count))
}

/// From one moment on no fsync of a node succeeds: it may acknowledge nothing more, the others go on; a restart mends it.
fn fsync_fails(s: &mut Scenario, at: usize) -> Result<u64> {
    let traced = Traced::inject(s.cluster.node(at)?.pid(), "fdatasync:error=EIO")?;
    until_injected(s, &traced, 1)?;
    let outcome = resumes(s);
    let injected = traced.injected()?;
    drop(traced);
    outcome?;
    // I16: it is latched although fsync works again.
    ensure!(number(s, at, "isobar_log_failed")? == 1, "I16: a failed fsync is not final");
    let (code, why) = s.cluster.node(at)?.get("/-/ready")?;
    ensure!(code == 503 && why.contains("log"), "a node whose log has failed is not ready: {code} {why}");
    // Its clients are served all the same: by the others, through it.
    let mut probe = s.probe(None)?;
    let reply = probe.send(&s.cluster.addresses[at]).context("a node whose log has failed answers")?;
    ensure!(reply.status < 300, "I16: the shard goes on, also for clients of that node: {reply:?}");
    s.cluster.kill(at)?;
    s.cluster.restart()?;
    Ok(injected as u64)
}
