//! Clusters of real processes under load through the faults of docs/faults.md. Every scenario checks I1 to I6 of what its
//! clients wrote and read, I14 by stopping and starting everything at its end, and what its faults name beside.
//!
//! Here each has one short run. `make soak` makes long ones: `ISOBAR_SOAK_MINUTES`, `ISOBAR_SOAK_SEED`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::seam::{Clock as _, SystemClock};
use tests::cluster::{Cluster, Options};
use tests::faults::{Fault, Need};
use tests::random_query::Random;
use tests::scenario;

/// One run, whose figures are printed. `ISOBAR_FAULTS_SEED=N` makes it another one.
#[allow(clippy::print_stdout, reason = "figures are what a run is for")]
fn run(name: &str, mut options: Options, faults: &[Fault]) -> Result<()> {
    options.seed += asked("ISOBAR_FAULTS_SEED").unwrap_or(0) * 1_000;
    let seed = options.seed;
    let report = scenario::run(name, options, faults)?;
    println!("{name} (seed {seed}): {report}");
    Ok(())
}

#[test]
fn f1_killed_leaders_followers_two_and_all_i1_to_i6_i12_i13_i14() -> Result<()> {
    let faults = [Fault::KillLeader, Fault::KillFollower, Fault::KillTwo, Fault::KillAll];
    run("f1-kills", Options::new(11), &faults)
}

#[test]
fn f3_f17_f18_leaders_frozen_starved_and_terminated_i1_to_i6_i11_i12() -> Result<()> {
    let faults = [Fault::FreezeLeader, Fault::StarvedLeader, Fault::Terminate];
    run("f3-f17-f18-freeze-starve-terminate", Options::new(31), &faults)
}

#[test]
fn f4_leaders_alone_deaf_and_mute_i1_to_i6_i12_i13() -> Result<()> {
    let faults = [Fault::IsolateLeader, Fault::DeafLeader, Fault::MuteLeader, Fault::Flapping];
    run("f4-partitions", Options::new(41), &faults)
}

#[test]
fn f5_slow_narrow_and_breaking_connections_i1_to_i6_i11() -> Result<()> {
    let faults = [Fault::SlowNetwork, Fault::NarrowLinks, Fault::Resets, Fault::CutBodies];
    run("f5-network", Options::new(51), &faults)
}

/// A cluster with what the needs are, if the machine has all of it.
fn options(seed: u64, needs: &[Need]) -> Option<Options> {
    needs.iter().all(|need| need.met()).then(|| Options {
        disk_megabytes: needs.contains(&Need::Disks).then_some(1_000),
        clocks: needs.contains(&Need::Clocks),
        namespaces: needs.contains(&Need::Namespaces),
        ..Options::new(seed)
    })
}

#[test]
fn f2_f6_power_cuts_and_full_disks_i1_to_i6_i14_i15() -> Result<()> {
    let Some(options) = options(21, &[Need::Disks]) else { return Ok(()) };
    let mut faults = vec![Fault::PowerCutLeader, Fault::PowerCutAll];
    if Need::Strace.met() {
        faults.push(Fault::PowerCutSlowDisks);
    }
    faults.extend([Fault::FullDiskLeader, Fault::FullDiskMajority, Fault::FullDiskAll]);
    run("f2-f6-disks", options, &faults)
}

#[test]
fn f7_f9_failing_and_slow_disks_i1_to_i6_i11_i16_i17() -> Result<()> {
    let Some(plain) = options(71, &[Need::Strace]) else { return Ok(()) };
    let mut faults = vec![
        Fault::SlowFsync,
        Fault::FsyncFails,
        Fault::FsyncFailsOnce,
        Fault::ReadsFail,
        Fault::RenamesFail,
    ];
    let own = options(71, &[Need::Disks]);
    if own.is_some() {
        faults.push(Fault::ReadOnlyDisk);
    }
    run("f7-f9-failing", own.unwrap_or(plain), &faults)
}

#[test]
fn f10_wrong_clocks_i1_to_i6_i18() -> Result<()> {
    let Some(options) = options(101, &[Need::Clocks]) else { return Ok(()) };
    let faults =
        [Fault::ClockAhead, Fault::ClockBehind, Fault::ClockFrozen, Fault::ClockSteps, Fault::ClockFast];
    run("f10-clocks", options, &faults)
}

#[test]
fn f15_overload_i1_to_i6_i11_i25() -> Result<()> {
    let faults =
        [Fault::WriteStorm, Fault::QueryStorm, Fault::SlowClients, Fault::IdleClients, Fault::Reconnects];
    run("f15-overload", Options::new(151), &faults)
}

#[test]
fn f17_too_little_memory_and_cpu_i1_to_i6_i11_i25() -> Result<()> {
    let Some(options) = options(171, &[Need::Limits]) else { return Ok(()) };
    run("f17-limits", options, &[Fault::CpuQuota, Fault::OutOfMemory])
}

#[test]
fn f4_f5_lost_packets_i1_to_i6_i11_i13() -> Result<()> {
    let Some(options) = options(45, &[Need::Namespaces]) else { return Ok(()) };
    run("f4-f5-packets", options, &[Fault::PacketLoss, Fault::PacketPartition])
}

/// What can go on beside other faults, as far as this machine has what it needs.
fn standing() -> Vec<Fault> {
    let possible = [Fault::SlowNetwork, Fault::SlowFsync, Fault::ClockSteps];
    possible.into_iter().filter(|fault| fault.needs().iter().all(|need| need.met())).collect()
}

#[test]
fn several_faults_at_the_same_moment_i1_to_i6() -> Result<()> {
    let standing = standing();
    let mut options = Options { clocks: standing.contains(&Fault::ClockSteps), ..Options::new(191) };
    options.seed += asked("ISOBAR_FAULTS_SEED").unwrap_or(0) * 1_000;
    let seed = options.seed;
    let acute = [Fault::KillLeader, Fault::IsolateLeader, Fault::FreezeLeader];
    let report = scenario::run_beside("overlapping", options, &standing, &acute)?;
    println!("overlapping (seed {seed}): {report}");
    Ok(())
}

/// A number in the environment.
#[allow(clippy::disallowed_methods, reason = "long forms are asked for by the environment")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Episodes of three random faults each on clusters that live for four episodes: every fourth of five nodes, every fifth with
/// networks of packets. In every third episode other faults go on beside the three.
#[test]
fn soak() -> Result<()> {
    let Some(minutes) = asked("ISOBAR_SOAK_MINUTES") else {
        println!("skipped: soak: set ISOBAR_SOAK_MINUTES, or use make soak");
        return Ok(());
    };
    let seed = asked("ISOBAR_SOAK_SEED").unwrap_or(1);
    let met: Vec<Need> = Need::ALL.into_iter().filter(|need| need.met()).collect();
    let possible: Vec<Fault> =
        Fault::ALL.into_iter().filter(|fault| fault.needs().iter().all(|need| met.contains(need))).collect();
    let standing = standing();
    let clock = SystemClock::new();
    let mut random = Random::new(seed);
    let mut seen: BTreeMap<Fault, u64> = BTreeMap::new();
    let (mut acked, mut samples, mut reads, mut leaders, mut episodes) = (0, 0, 0, 0, 0);
    let mut left: Vec<Fault> = Vec::new();
    for number in 0_u64.. {
        if clock.monotonic() >= Duration::from_secs(minutes * 60) {
            break;
        }
        let namespaces = number % 5 == 4 && met.contains(&Need::Namespaces);
        let nodes = if number % 4 == 3 { 5 } else { 3 };
        let options = Options {
            nodes,
            disk_megabytes: met.contains(&Need::Disks).then_some(1_000),
            clocks: met.contains(&Need::Clocks) && !namespaces,
            namespaces,
            ..Options::new(seed ^ number << 32)
        };
        // Of five nodes two may go.
        let fits = |fault: &Fault| {
            (nodes == 3 || *fault != Fault::KillTwo)
                && if namespaces {
                    !fault.needs_relay() && !fault.needs().contains(&Need::Clocks)
                } else {
                    !fault.needs().contains(&Need::Namespaces)
                }
        };
        let mut cluster = Cluster::start(options)?;
        for episode in 0..4 {
            let mut faults = Vec::new();
            while faults.len() < 3 {
                // Each once before any comes again, as far as it fits this cluster.
                if !left.iter().any(fits) {
                    left.extend(&possible);
                }
                let fitting: Vec<usize> = (0..left.len()).filter(|at| fits(&left[*at])).collect();
                faults.push(left.swap_remove(fitting[random.below(fitting.len())]));
            }
            let beside: Vec<Fault> = if number % 3 == 1 && !namespaces {
                // One that is made by itself, too, would end it.
                let free = |fault: &&Fault| !faults.iter().any(|other| other.disturbs(**fault));
                standing.iter().filter(free).copied().collect()
            } else {
                Vec::new()
            };
            let name = format!("soak-{number}-{episode}");
            let seed = seed ^ number << 32 ^ episode;
            let (report, same) =
                scenario::go_on_beside(&name, seed, cluster, 1 + episode * 50, &beside, &faults)?;
            cluster = same;
            println!("{:.0?} {name} ({nodes} nodes, beside {beside:?}): {report}", clock.monotonic());
            for (fault, count) in &report.seen {
                *seen.entry(*fault).or_default() += count;
            }
            acked += report.acked;
            samples += report.samples;
            reads += report.reads;
            leaders += report.leader_changes;
            episodes += 1;
            if clock.monotonic() >= Duration::from_secs(minutes * 60) {
                break;
            }
        }
    }
    println!(
        "soak with seed {seed}: {episodes} episodes in {:.0?}; {acked} rounds ({samples} samples) acknowledged, {reads} \
         reads checked, leaders replaced {leaders} times; 0 samples lost, doubled, stale",
        clock.monotonic()
    );
    for fault in &possible {
        println!("  {fault:?}: seen {}", seen.get(fault).copied().unwrap_or(0));
    }
    let missed: Vec<&Fault> = possible.iter().filter(|fault| !seen.contains_key(fault)).collect();
    ensure!(episodes * 3 < 2 * possible.len() || missed.is_empty(), "not covered: {missed:?}");
    Ok(())
}
