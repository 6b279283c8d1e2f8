//! The faults: how each is made, what of it must be seen to have happened, and what must go on meanwhile.
//!
//! Each one is over when it returns: processes run again, links are well, disks have space. What it returns is evidence
//! that it happened, never 0 when it did. Here: the list, and what is done to processes and to the relay between them; below:
//! what is done to disks, clocks, memory and CPU, to a network of packets, and by many clients. Some can go on while others
//! are made: [`Standing`].

mod clocks;
mod disks;
mod limits;
mod overload;
mod packets;

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
    /// F7: one fsync of each thread of the node that leads most fails, later ones succeed.
    FsyncFailsOnce,
    /// F7: reads of the files of the node that leads most fail; then it is restarted.
    ReadsFail,
    /// F7: a node is started while no file can be renamed.
    RenamesFail,
    /// F7: the file system of the node that leads most becomes read-only.
    ReadOnlyDisk,
    /// F9: every fsync of the node that leads most takes 300 ms longer.
    SlowFsync,
    /// F10: the wall clock of the node that leads most, then that of another one, is an hour ahead, and right again.
    ClockAhead,
    /// F10: the same, an hour late.
    ClockBehind,
    /// F10: the same, standing still.
    ClockFrozen,
    /// F10: the same, stepping forth and back, by seconds, minutes and hours.
    ClockSteps,
    /// F10: the same, ten times as fast.
    ClockFast,
    /// F15: more than ten times the writes.
    WriteStorm,
    /// F15: thirty clients with large queries.
    QueryStorm,
    /// F15: clients that send half a request, and slowly, or do not read answers.
    SlowClients,
    /// F15: ten thousand connections that do nothing.
    IdleClients,
    /// F15: clients that connect for each request, and hang up, with or without an answer.
    Reconnects,
    /// F17: the node that leads most gets a fifth of the CPU: it runs for 20 ms, is frozen for 80 ms, again and again.
    StarvedLeader,
    /// F17: it gets less CPU than it uses, at most a fifth of a core, by a quota of its control group.
    CpuQuota,
    /// F17: a node gets less memory than it needs, is killed for that, and started again.
    OutOfMemory,
    /// F18: SIGTERM of the node that leads most, under load.
    Terminate,
    /// F5 below TCP: every node loses a fifth of the packets of the others.
    PacketLoss,
    /// F4 below TCP: no packet passes between the node that leads most and the others.
    PacketPartition,
}

/// What a fault needs of the machine and of the cluster's [`Options`](crate::cluster::Options).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nodes with disks of their own.
    Disks,
    /// strace.
    Strace,
    /// Nodes with wall clocks of their own.
    Clocks,
    /// Control groups.
    Limits,
    /// Nodes with networks of their own.
    Namespaces,
}

impl Need {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Disks, Self::Strace, Self::Clocks, Self::Limits, Self::Namespaces];

    /// Whether this machine has it; says so, once for each call, when not ([`crate::tier`]).
    pub fn met(self) -> bool {
        match self {
            Self::Disks => crate::tier("root", crate::power::missing()),
            Self::Strace => crate::tier("tools", crate::trace::missing()),
            Self::Clocks => crate::tier("tools", crate::clock::missing()),
            Self::Limits => crate::tier("root", crate::limits::missing()),
            Self::Namespaces => crate::tier("root", crate::packets::missing()),
        }
    }
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 41] = [
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
        Self::FsyncFailsOnce,
        Self::ReadsFail,
        Self::RenamesFail,
        Self::ReadOnlyDisk,
        Self::SlowFsync,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::ClockFrozen,
        Self::ClockSteps,
        Self::ClockFast,
        Self::WriteStorm,
        Self::QueryStorm,
        Self::SlowClients,
        Self::IdleClients,
        Self::Reconnects,
        Self::StarvedLeader,
        Self::CpuQuota,
        Self::OutOfMemory,
        Self::Terminate,
        Self::PacketLoss,
        Self::PacketPartition,
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
            Self::IsolateLeader | Self::DeafLeader | Self::MuteLeader | Self::PacketPartition => {
                "I1 to I6, I12, I13"
            }
            Self::Flapping => "I1 to I6, I13",
            Self::SlowNetwork
            | Self::NarrowLinks
            | Self::PacketLoss
            | Self::SlowFsync
            | Self::StarvedLeader
            | Self::CpuQuota => "I1 to I6, I11",
            Self::Resets | Self::CutBodies => "I1 to I6",
            Self::FullDiskLeader | Self::FullDiskMajority | Self::FullDiskAll => "I1 to I6, I15",
            Self::FsyncFails | Self::FsyncFailsOnce | Self::ReadOnlyDisk => "I1 to I6, I16",
            Self::ReadsFail | Self::RenamesFail => "I1 to I6, I16, I17",
            Self::ClockAhead | Self::ClockBehind | Self::ClockFrozen | Self::ClockSteps | Self::ClockFast => {
                "I1 to I6, I18"
            }
            Self::WriteStorm
            | Self::QueryStorm
            | Self::SlowClients
            | Self::IdleClients
            | Self::Reconnects => "I1 to I6, I11, I25",
            Self::OutOfMemory => "I1 to I6, I25",
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
                | Self::PacketPartition
        )
    }

    /// What it needs.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::PowerCutLeader
            | Self::PowerCutAll
            | Self::FullDiskLeader
            | Self::FullDiskMajority
            | Self::FullDiskAll
            | Self::ReadOnlyDisk => &[Need::Disks],
            Self::PowerCutSlowDisks => &[Need::Disks, Need::Strace],
            Self::FsyncFails
            | Self::FsyncFailsOnce
            | Self::ReadsFail
            | Self::RenamesFail
            | Self::SlowFsync => &[Need::Strace],
            Self::ClockAhead | Self::ClockBehind | Self::ClockFrozen | Self::ClockSteps | Self::ClockFast => {
                &[Need::Clocks]
            }
            Self::CpuQuota | Self::OutOfMemory => &[Need::Limits],
            Self::PacketLoss | Self::PacketPartition => &[Need::Namespaces],
            _ => &[],
        }
    }

    /// Whether it cannot be made while `standing` goes on: both are done to the same thing, or waiting takes too long.
    pub fn disturbs(self, standing: Self) -> bool {
        match standing {
            Self::SlowNetwork => self.needs_relay() && self != Self::IsolateLeader || self.is_storm(),
            Self::SlowFsync => self.needs().contains(&Need::Strace) || self.is_storm(),
            _ => self.needs().contains(&Need::Clocks),
        }
    }

    /// Whether it is made by many clients.
    fn is_storm(self) -> bool {
        matches!(
            self,
            Self::WriteStorm | Self::QueryStorm | Self::SlowClients | Self::IdleClients | Self::Reconnects
        )
    }

    /// Whether it is made by the relay between nodes, which those with networks of their own do not have.
    pub fn needs_relay(self) -> bool {
        matches!(
            self,
            Self::IsolateLeader
                | Self::DeafLeader
                | Self::MuteLeader
                | Self::Flapping
                | Self::SlowNetwork
                | Self::NarrowLinks
                | Self::Resets
                | Self::CutBodies
        )
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
        Fault::FullDiskLeader => disks::full_disks(s, &[leader]),
        Fault::FullDiskMajority => disks::full_disks(s, &[leader, other]),
        Fault::FullDiskAll => disks::all_disks_full(s, &all),
        Fault::FsyncFails => disks::fsync_fails(s, leader, "fdatasync:error=EIO"),
        Fault::FsyncFailsOnce => disks::fsync_fails(s, leader, "fdatasync:error=EIO:when=1"),
        Fault::ReadsFail => disks::reads_fail(s, leader),
        Fault::RenamesFail => disks::renames_fail(s, other),
        Fault::ReadOnlyDisk => disks::read_only(s, leader),
        Fault::SlowFsync => {
            let traced = Traced::inject(s.cluster.node(leader)?.pid(), SLOW_FSYNC)?;
            until_injected(s, &traced, 3)?;
            resumes(s)?;
            Ok(traced.injected()? as u64)
        }
        Fault::ClockAhead
        | Fault::ClockBehind
        | Fault::ClockFrozen
        | Fault::ClockSteps
        | Fault::ClockFast => clocks::wrong(s, fault, &[leader, other]),
        Fault::WriteStorm => overload::writes(s),
        Fault::QueryStorm => overload::queries(s),
        Fault::SlowClients => overload::slow_clients(s),
        Fault::IdleClients => overload::idle_clients(s),
        Fault::Reconnects => overload::reconnects(s),
        Fault::StarvedLeader => starve(s, leader),
        Fault::CpuQuota => limits::little_cpu(s, leader),
        Fault::OutOfMemory => limits::out_of_memory(s, leader),
        Fault::PacketLoss => packets::lossy(s),
        Fault::PacketPartition => packets::partition(s, leader),
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

/// What a node's metric without labels says.
fn number(s: &Scenario, at: usize, metric: &str) -> Result<u64> {
    let (_, text) = s.cluster.node(at)?.get("/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{metric} is there"))?.trim().parse::<f64>()? as u64)
}

/// Lets the load go on until `look` is true.
fn until(s: &Scenario, what: &str, mut look: impl FnMut(&Scenario) -> Result<bool>) -> Result<()> {
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

/// A fault that goes on while others are made.
pub(crate) struct Standing {
    fault: Fault,
    traced: Vec<Traced>,
    delayed: u64,
}

impl Standing {
    /// Begins one of `SlowNetwork` (as there, on all links between nodes), `SlowFsync` (30 ms more, on all nodes),
    /// `ClockSteps` (all clocks are wrong, each in another way).
    ///
    /// # Errors
    /// It is another one, or cannot be made.
    pub(crate) fn begin(s: &Scenario, fault: Fault) -> Result<Self> {
        let mut standing = Self { fault, traced: Vec::new(), delayed: 0 };
        match fault {
            Fault::SlowNetwork => {
                standing.delayed = s.cluster.proxy.counters().delayed;
                let slow = Condition::slow(Duration::from_millis(40), Duration::from_millis(30));
                s.cluster.proxy.set_standing(&slow);
            }
            Fault::SlowFsync => {
                for at in 0..s.cluster.len() {
                    let pid = s.cluster.node(at)?.pid();
                    standing.traced.push(Traced::inject(pid, "fdatasync:delay_enter=30000")?);
                }
                standing.traced.iter().try_for_each(|traced| until_injected(s, traced, 1))?;
            }
            Fault::ClockSteps => clocks::all_wrong(s)?,
            other => anyhow::bail!("{other:?} cannot go on beside others"),
        }
        Ok(standing)
    }

    /// Ends it; gives which one it was and how much was seen of it.
    pub(crate) fn end(self, s: &Scenario) -> Result<(Fault, u64)> {
        let seen = match self.fault {
            Fault::SlowNetwork => {
                s.cluster.proxy.set_standing(&Condition::default());
                s.cluster.proxy.counters().delayed - self.delayed
            }
            Fault::ClockSteps => clocks::right(s)?,
            _ => self.traced.iter().map(|traced| Ok(traced.injected()? as u64)).sum::<Result<u64>>()?,
        };
        ensure!(seen > 0, "{:?} was never seen to have happened", self.fault);
        Ok((self.fault, seen))
    }
}
