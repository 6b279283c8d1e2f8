//! Clusters of real processes under load through the faults of docs/faults.md. Every scenario checks I1 to I6 of what its
//! clients wrote and read, I14 by stopping and starting everything at its end, and what its faults name beside.
//!
//! Here each has one short run. `make soak` makes long ones: `ISOBAR_SOAK_MINUTES`, `ISOBAR_SOAK_SEED`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use model::seam::{Clock as _, SystemClock};
use tests::cluster::{Cluster, Options};
use tests::faults::Fault;
use tests::power;
use tests::random_query::Random;
use tests::scenario;
use tests::tier;
use tests::trace;

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

#[test]
fn f2_f6_power_cuts_and_full_disks_i1_to_i6_i14_i15() -> Result<()> {
    if !tier("root", power::missing()) {
        return Ok(());
    }
    let options = Options { disk_megabytes: Some(1_000), ..Options::new(21) };
    let mut faults = vec![Fault::PowerCutLeader, Fault::PowerCutAll];
    if tier("tools", trace::missing()) {
        faults.push(Fault::PowerCutSlowDisks);
    }
    faults.extend([Fault::FullDiskLeader, Fault::FullDiskMajority, Fault::FullDiskAll]);
    run("f2-f6-disks", options, &faults)
}

#[test]
fn f7_f9_failing_and_slow_fsync_i1_to_i6_i11_i16() -> Result<()> {
    if !tier("tools", trace::missing()) {
        return Ok(());
    }
    run("f7-f9-fsync", Options::new(71), &[Fault::SlowFsync, Fault::FsyncFails])
}

/// A number in the environment.
#[allow(clippy::disallowed_methods, reason = "long forms are asked for by the environment")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Episodes of three random faults each on clusters that live for four episodes, every fourth cluster of five nodes.
#[test]
fn soak() -> Result<()> {
    let Some(minutes) = asked("ISOBAR_SOAK_MINUTES") else {
        println!("skipped: soak: set ISOBAR_SOAK_MINUTES, or use make soak");
        return Ok(());
    };
    let seed = asked("ISOBAR_SOAK_SEED").unwrap_or(1);
    let disks = tier("root", power::missing());
    let strace = tier("tools", trace::missing());
    let possible: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| (disks || !fault.needs_disks()) && (strace || !fault.needs_strace()))
        .collect();
    let clock = SystemClock::new();
    let mut random = Random::new(seed);
    let mut seen: BTreeMap<Fault, u64> = BTreeMap::new();
    let (mut acked, mut samples, mut reads, mut leaders, mut episodes) = (0, 0, 0, 0, 0);
    let mut left: Vec<Fault> = Vec::new();
    for number in 0_u64.. {
        if clock.monotonic() >= Duration::from_secs(minutes * 60) {
            break;
        }
        let nodes = if number % 4 == 3 { 5 } else { 3 };
        let options =
            Options { nodes, disk_megabytes: disks.then_some(1_000), ..Options::new(seed ^ number << 32) };
        let mut cluster = Cluster::start(options)?;
        for episode in 0..4 {
            let mut faults = Vec::new();
            while faults.len() < 3 {
                if left.is_empty() {
                    left.clone_from(&possible);
                }
                let fault = left.swap_remove(random.below(left.len()));
                // Of five nodes two may go.
                if nodes == 3 || !matches!(fault, Fault::KillTwo) {
                    faults.push(fault);
                }
            }
            let name = format!("soak-{number}-{episode}");
            let (report, same) =
                scenario::go_on(&name, seed ^ number << 32 ^ episode, cluster, 1 + episode * 50, &faults)?;
            cluster = same;
            println!("{:.0?} {name} ({nodes} nodes): {report}", clock.monotonic());
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
    let enough = episodes * 3 >= 2 * possible.len();
    ensure!(!enough || possible.iter().all(|fault| seen.contains_key(fault)), "not every fault was covered");
    Ok(())
}
