//! One run of a cluster under load through some faults, to the verdict: what clients saw was right, every fault really
//! happened, and after healing everything is whole again.
//!
//! The order is that of [`run`]: form, load, faults one after the other (each waits until writes go on where they must,
//! or are refused where they may not), heal, settle what is of unknown fate, fresh writes on each shard, read everything
//! back from each node, stop all, start all, read everything back again, check the histories. Targets and moments follow
//! from the seed; threads and sockets do not, so a seed says what was tried, not what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use model::seam::{Clock, SystemClock};
use model::{Labels, ShardId, TenantId};
use topology::{ShardMap, placement_key};

use crate::cluster::{Cluster, Options, SHARDS};
use crate::faults::{Fault, Standing};
use crate::history::{self, Read, Shape};
use crate::load::Load;
use crate::oracle::{Reader, Writer};
use crate::random_query::Random;

/// Within which time a healed cluster is whole again.
pub const HEAL: Duration = Duration::from_secs(30);
/// Readers of the load.
const READERS: usize = 2;
/// Rounds of each writer before the first fault.
const WARM_UP: u64 = 5;
/// Number of the reader that reads everything back.
const LAST_READER: usize = 1_000;
/// Rounds that must have been acknowledged while faults were on.
const ENOUGH_DURING: u64 = 10;

/// A run that is under way.
pub struct Scenario {
    /// Its name, for messages and files.
    pub name: String,
    /// Where targets and moments come from.
    pub random: Random,
    /// The cluster.
    pub cluster: Cluster,
    /// The time in which histories are told.
    pub clock: Arc<dyn Clock>,
    /// The clients.
    pub load: Load,
    /// What was seen to have happened of each fault: bytes held, connections reset, processes ended, calls that failed.
    pub seen: BTreeMap<Fault, u64>,
    /// Reads beside those of the load.
    pub reads: Vec<Read>,
    /// When a fault began, when it was over, and which it was.
    windows: Vec<(Duration, Duration, Fault)>,
    next_id: u64,
}

/// Figures of a run that ended well.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was seen of each fault.
    pub seen: BTreeMap<Fault, u64>,
    /// Rounds acknowledged.
    pub acked: u64,
    /// Those that were acknowledged while a fault was on.
    pub acked_during: u64,
    /// Samples of acknowledged rounds.
    pub samples: u64,
    /// Those of them that are native histograms.
    pub histograms: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Writes that had to be sent again.
    pub failed_writes: u64,
    /// Reads that were not answered.
    pub failed_reads: u64,
    /// Leaders that were replaced.
    pub leader_changes: u64,
    /// For each fault the longest time in it that a writer had nothing acknowledged.
    pub pauses: BTreeMap<Fault, Duration>,
    /// How long the cluster took to be whole after healing.
    pub healed_after: Duration,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} rounds ({} samples, {} of them histograms) acknowledged, {} of them during faults, {} writes sent again; {} reads checked, {} \
             without an answer; leaders replaced {} times; whole {:.1?} after healing; 0 samples lost, doubled, stale",
            self.acked,
            self.samples,
            self.histograms,
            self.acked_during,
            self.failed_writes,
            self.reads,
            self.failed_reads,
            self.leader_changes,
            self.healed_after
        )?;
        for (fault, seen) in &self.seen {
            let pause = self.pauses.get(fault).copied().unwrap_or_default();
            write!(f, "\n  {fault:?}: seen {seen}, longest pause of a writer {pause:.1?}")?;
        }
        Ok(())
    }
}

/// A cluster of `options` through `faults`, one after the other, to the verdict. On failure the message has the seed, and
/// the logs of all nodes are in the file that it names.
pub fn run(name: &str, options: Options, faults: &[Fault]) -> Result<Report> {
    let seed = options.seed;
    let cluster = Cluster::start(options).with_context(|| format!("{name}: forming"))?;
    go_on(name, seed, cluster, 1, faults).map(|(report, _)| report)
}

/// The same while `standing` faults go on: those that [`Standing`] knows.
pub fn run_beside(name: &str, options: Options, standing: &[Fault], faults: &[Fault]) -> Result<Report> {
    let seed = options.seed;
    let cluster = Cluster::start(options).with_context(|| format!("{name}: forming"))?;
    go_on_beside(name, seed, cluster, 1, standing, faults).map(|(report, _)| report)
}

/// The same with a cluster that is there already, and writers with ids from `first_id` on; gives the cluster back.
pub fn go_on(
    name: &str,
    seed: u64,
    cluster: Cluster,
    first_id: u64,
    faults: &[Fault],
) -> Result<(Report, Cluster)> {
    go_on_beside(name, seed, cluster, first_id, &[], faults)
}

/// The same while `standing` faults go on.
pub fn go_on_beside(
    name: &str,
    seed: u64,
    cluster: Cluster,
    first_id: u64,
    standing: &[Fault],
    faults: &[Fault],
) -> Result<(Report, Cluster)> {
    let mut scenario = Scenario::start(name, seed, cluster, first_id)?;
    let inflicted = scenario.inflict_all(standing, faults);
    let Scenario { mut cluster, load, reads, seen, windows, next_id, clock, random: _, name } = scenario;
    let outcome = match inflicted {
        Ok(()) => {
            let ended = Ended { name: &name, reads, seen, windows, next_id, clock };
            ended.finish(&mut cluster, load, faults)
        }
        Err(error) => Err(with_broken_promises(error, load, reads)),
    };
    match outcome {
        Ok(report) => Ok((report, cluster)),
        Err(error) => {
            let place = keep(&name, seed, &cluster.logs())?;
            Err(error.context(format!("{name} with seed {seed}; the logs are in {}", place.display())))
        }
    }
}

/// An error that ended a run early, with what is wrong with what clients had seen by then.
fn with_broken_promises(error: anyhow::Error, load: Load, mut reads: Vec<Read>) -> anyhow::Error {
    let done = match load.finish() {
        Ok(done) => done,
        Err(second) => return error.context(second),
    };
    reads.extend(done.readers.into_iter().flat_map(|reader| reader.reads));
    match broken_promises(&done.writers, &reads) {
        Ok(()) => error,
        Err(broken) => error.context(broken),
    }
}

/// Fails with the first promises that were broken.
fn broken_promises(writers: &[Writer], reads: &[Read]) -> Result<()> {
    let wrong: Vec<String> = writers
        .iter()
        .flat_map(|writer| history::check(writer.log(), reads))
        .map(|violation| violation.to_string())
        .collect();
    let first: Vec<&String> = wrong.iter().take(10).collect();
    ensure!(wrong.is_empty(), "{} promises were broken, the first: {first:#?}", wrong.len());
    Ok(())
}

/// Keeps the logs of a run that failed.
fn keep(name: &str, seed: u64, logs: &str) -> Result<PathBuf> {
    let place = std::env::temp_dir().join(format!("isobar-{name}-{seed}.log"));
    std::fs::write(&place, logs).with_context(|| format!("writing {}", place.display()))?;
    Ok(place)
}

/// The shard of the series of `instance` that a [`Writer`] sends.
pub fn shard_of(instance: &str) -> Result<ShardId> {
    let labels = Labels::from_pairs([("__name__", "oracle"), ("instance", instance), ("job", "oracle")])?;
    Ok(ShardMap::initial(SHARDS).route(placement_key(&TenantId::anonymous(), &labels), 0))
}

/// An instance whose series all lie in `shard`, and are not those of the load.
pub fn instance_in(shard: ShardId) -> Result<String> {
    for n in 0..1_000 {
        let instance = format!("probe-{n}");
        if shard_of(&instance)? == shard {
            return Ok(instance);
        }
    }
    bail!("no instance lies in shard {shard}")
}

/// All shards.
pub fn all_shards() -> Vec<ShardId> {
    ShardMap::initial(SHARDS).all_shards()
}

impl Scenario {
    fn start(name: &str, seed: u64, cluster: Cluster, first_id: u64) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let load = Load::start(&cluster.addresses, &clock, seed, first_id, READERS)?;
        let next_id = first_id + cluster.len() as u64;
        let scenario = Self {
            name: name.to_owned(),
            random: Random::new(seed),
            cluster,
            clock,
            load,
            seen: BTreeMap::new(),
            reads: Vec::new(),
            windows: Vec::new(),
            next_id,
        };
        scenario.load.wait(&scenario.load.mark(), WARM_UP, 1, HEAL)?;
        Ok(scenario)
    }

    /// A writer of its own beside the load, for instances in `shard`, or anywhere.
    pub fn probe(&mut self, shard: Option<ShardId>) -> Result<Writer> {
        let id = self.next_id;
        self.next_id += 1;
        probe(id, shard, &self.clock)
    }

    /// Carries out all faults one after the other while the standing ones go on.
    fn inflict_all(&mut self, standing: &[Fault], faults: &[Fault]) -> Result<()> {
        let begun = standing.iter().map(|fault| Standing::begin(self, *fault)).collect::<Result<Vec<_>>>()?;
        for fault in faults {
            self.inflict(*fault).with_context(|| format!("{fault:?} ({})", fault.invariants()))?;
        }
        for standing in begun {
            let (fault, seen) = standing.end(self)?;
            *self.seen.entry(fault).or_default() += seen;
        }
        Ok(())
    }

    /// Carries out a fault and notes when it was on.
    fn inflict(&mut self, fault: Fault) -> Result<()> {
        let begun = self.clock.monotonic();
        let seen = crate::faults::inflict(self, fault)?;
        self.windows.push((begun, self.clock.monotonic(), fault));
        *self.seen.entry(fault).or_default() += seen;
        Ok(())
    }
}

fn probe(id: u64, shard: Option<ShardId>, clock: &Arc<dyn Clock>) -> Result<Writer> {
    let instance = match shard {
        Some(shard) => instance_in(shard)?,
        None => "probe".to_owned(),
    };
    let writer = Writer::with(id, 3, vec![instance], Arc::clone(clock));
    Ok(writer.with_patience(HEAL).with_histograms())
}

/// What is left of a scenario once its faults are over.
struct Ended<'a> {
    name: &'a str,
    reads: Vec<Read>,
    seen: BTreeMap<Fault, u64>,
    windows: Vec<(Duration, Duration, Fault)>,
    next_id: u64,
    clock: Arc<dyn Clock>,
}

impl Ended<'_> {
    /// Heals, reads back, restarts, reads back, checks.
    fn finish(mut self, cluster: &mut Cluster, load: Load, faults: &[Fault]) -> Result<Report> {
        cluster.proxy.heal();
        cluster.restart()?;
        let healed_after = cluster.wait_whole(HEAL).context("after healing")?;
        let done = load.finish()?;
        let mut writers = done.writers;
        for writer in &mut writers {
            self.settle(writer, cluster)?;
        }
        for (at, shard) in all_shards().into_iter().enumerate() {
            let mut writer = probe(self.next_id + at as u64, Some(shard), &self.clock)?;
            for address in &cluster.addresses {
                let reply = writer.send(address)?;
                ensure!(reply.status < 300, "a fresh write to shard {shard} after healing: {reply:?}");
            }
            writers.push(writer);
        }
        let shapes: Vec<Shape> = writers.iter().map(Writer::shape).collect();
        let mut last = Reader::new(LAST_READER, Arc::clone(&self.clock)).with_patience(HEAL);
        read_back(&mut last, &shapes, cluster)?;
        for at in cluster.running() {
            cluster.stop(at)?;
        }
        cluster.restart()?;
        read_back(&mut last, &shapes, cluster)?;

        let failed_reads = done.readers.iter().map(|reader| reader.failed).sum();
        self.reads.extend(done.readers.into_iter().flat_map(|reader| reader.reads));
        self.reads.append(&mut last.reads);
        broken_promises(&writers, &self.reads)?;
        let panics = cluster.panics();
        ensure!(panics.is_empty(), "panics: {panics:#?}");
        let report =
            self.report(&writers, failed_reads, done.failed_writes, done.leader_changes, healed_after);
        for fault in faults {
            let seen = report.seen.get(fault).copied().unwrap_or(0);
            ensure!(seen > 0, "{fault:?} was never seen to have happened");
        }
        let needs_leaders = faults.iter().any(|fault| fault.replaces_leaders());
        ensure!(!needs_leaders || report.leader_changes > 0, "no leader was ever replaced");
        ensure!(report.histograms > 0, "no histogram was acknowledged");
        ensure!(
            faults.is_empty() || report.acked_during >= ENOUGH_DURING,
            "{} rounds were acknowledged while faults were on",
            report.acked_during
        );
        Ok(report)
    }

    /// Sends what is of unknown fate again until everything is acknowledged.
    fn settle(&self, writer: &mut Writer, cluster: &Cluster) -> Result<()> {
        let deadline = self.clock.monotonic() + HEAL;
        while writer.unknown() > 0 && writer.log().refused.is_empty() {
            // An error leaves the round unknown, and the loop goes on until the deadline.
            let _ = writer.retry_unknown(&cluster.addresses[0]);
            ensure!(
                self.clock.monotonic() < deadline,
                "{}: {writer:?} could not be settled within {HEAL:?} after healing",
                self.name
            );
        }
        Ok(())
    }

    fn report(
        self,
        writers: &[Writer],
        failed_reads: u64,
        failed_writes: u64,
        leader_changes: u64,
        healed_after: Duration,
    ) -> Report {
        let mut report = Report {
            seen: self.seen,
            reads: self.reads.len() as u64,
            failed_writes,
            failed_reads,
            leader_changes,
            healed_after,
            ..Report::default()
        };
        for writer in writers {
            let log = writer.log();
            let mut acked: Vec<Duration> = log.rounds.iter().filter_map(|round| round.acked).collect();
            acked.sort_unstable();
            report.acked += acked.len() as u64;
            report.samples += acked.len() as u64 * log.shape.series;
            report.histograms += acked.len() as u64 * log.shape.natives();
            let within = |at: &&Duration| self.windows.iter().any(|(from, to, _)| (from..=to).contains(at));
            report.acked_during += acked.iter().filter(within).count() as u64;
            for (from, to, fault) in &self.windows {
                let pairs = acked.windows(2).filter(|pair| pair[1] > *from && pair[0] < *to);
                let longest = pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
                let pause = report.pauses.entry(*fault).or_default();
                *pause = (*pause).max(longest);
            }
        }
        report
    }
}

/// Reads every writer's samples and sums from every node.
fn read_back(reader: &mut Reader, shapes: &[Shape], cluster: &Cluster) -> Result<()> {
    for (node, address) in cluster.addresses.iter().enumerate() {
        for shape in shapes {
            reader
                .samples(*shape, node, address)
                .with_context(|| format!("reading back from node {node}"))?;
            reader.sums(*shape, node, address).with_context(|| format!("summing up on node {node}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_an_instance_and_the_load_reaches_all() -> Result<()> {
        for shard in all_shards() {
            assert_eq!(shard_of(&instance_in(shard)?)?, shard);
        }
        let reached = (0..14)
            .map(|n| shard_of(&format!("host-{n}")))
            .collect::<Result<std::collections::BTreeSet<_>>>()?;
        assert_eq!(reached.len(), SHARDS as usize);
        Ok(())
    }
}
