//! How long writes stand still when a leader goes (I12), a real Prometheus that keeps sending through it, and leaders that
//! stay while the machine has no time for anything.
//!
//! The figures of docs/faults.md come from here: `scripts/soak.sh failover`. Without `ISOBAR_FAILOVER_KILLS=N` nothing is
//! measured, and Prometheus sees one kill instead of ten; without `ISOBAR_BUSY_MINUTES=N` no core is kept busy.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use benches::http::{Client, encoded};
use model::ShardId;
use model::seam::{Clock, SystemClock};
use serde_json::Value;
use tests::cluster::{Cluster, Options, PATIENCE};
use tests::oracle::Writer;
use tests::peer::{Helper, prometheus};
use tests::proxy::Condition;
use tests::scenario::{all_shards, instance_in};
use tests::tier;

/// A number in the environment.
#[allow(clippy::disallowed_methods, reason = "long forms are asked for by the environment")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How many leaders to kill for figures; `None` = no figures are wanted.
fn kills() -> Option<usize> {
    asked("ISOBAR_FAILOVER_KILLS").map(|kills| kills as usize)
}

/// How a leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Killed,
    /// After nothing was written for so long that its groups rest.
    KilledAtRest,
    Frozen,
    BlackHoled,
}

/// The leaders of all shards, and the node that leads most; leaderships may just be changing hands.
fn settled(cluster: &Cluster) -> Result<(Vec<usize>, usize)> {
    let clock = SystemClock::new();
    loop {
        match cluster.leaders(0).and_then(|leaders| Ok((leaders, cluster.leader_and_other()?.0))) {
            Ok((leaders, victim)) if leaders.contains(&victim) => return Ok((leaders, victim)),
            outcome => ensure!(clock.monotonic() < PATIENCE, "no leaders: {outcome:?}"),
        }
        std::thread::yield_now();
    }
}

/// Waits until at least `count` groups of a node rest.
fn wait_for_rest(cluster: &Cluster, at: usize, count: usize) -> Result<()> {
    let clock = SystemClock::new();
    let node = cluster.node(at)?;
    loop {
        let (_, text) = node.get("/metrics")?;
        let resting = text.lines().find_map(|line| line.strip_prefix("isobar_replication_resting_groups "));
        let resting: f64 = resting.context("the gauge of groups at rest")?.trim().parse()?;
        if resting >= count as f64 {
            return Ok(());
        }
        ensure!(clock.monotonic() < PATIENCE, "{resting} groups of node {at} rest, not {count}");
        std::thread::yield_now();
    }
}

/// For each shard that the victim led: the time from its end until a write that was sent after it was acknowledged.
fn outages(cluster: &mut Cluster, way: Way, first_id: u64) -> Result<Vec<Duration>> {
    cluster.wait_whole(PATIENCE)?;
    let (leaders, victim) = settled(cluster)?;
    let others: Vec<usize> = cluster.running().into_iter().filter(|at| *at != victim).collect();
    let led: Vec<ShardId> = all_shards()
        .into_iter()
        .zip(&leaders)
        .filter(|(_, leader)| **leader == victim)
        .map(|(shard, _)| shard)
        .collect();
    ensure!(!led.is_empty(), "the victim leads something");
    let at_rest = way == Way::KilledAtRest;
    if at_rest {
        wait_for_rest(cluster, victim, led.len())?;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let gone_ms = AtomicUsize::new(usize::MAX);
    let (warm, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let measured = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let probes: Vec<_> = led
            .iter()
            .enumerate()
            .map(|(number, shard)| {
                let instance = instance_in(*shard);
                let address = &cluster.addresses[others[number % others.len()]];
                let (clock, gone_ms, warm, stop) = (&clock, &gone_ms, &warm, &stop);
                scope.spawn(move || -> Result<Duration> {
                    let mut writer =
                        Writer::with(first_id + number as u64, 2, vec![instance?], Arc::clone(clock))
                            .with_patience(PATIENCE);
                    // A write would end the rest.
                    while at_rest && gone_ms.load(Ordering::SeqCst) == usize::MAX {
                        ensure!(!stop.load(Ordering::SeqCst), "it was told to stop");
                        std::thread::yield_now();
                    }
                    let mut told = false;
                    while !stop.load(Ordering::SeqCst) {
                        let sent = clock.monotonic();
                        let acked = writer.send_or_retry(address).is_ok_and(|reply| reply.status < 300);
                        if !acked {
                            continue;
                        }
                        if !std::mem::replace(&mut told, true) {
                            warm.fetch_add(1, Ordering::SeqCst);
                        }
                        let gone = gone_ms.load(Ordering::SeqCst);
                        if gone != usize::MAX && sent >= Duration::from_millis(gone as u64) {
                            let gone = Duration::from_millis(gone as u64);
                            return Ok(clock.monotonic() - gone);
                        }
                    }
                    anyhow::bail!("it was told to stop")
                })
            })
            .collect();
        while !at_rest && warm.load(Ordering::SeqCst) < led.len() && clock.monotonic() < PATIENCE {
            std::thread::yield_now();
        }
        let ended = match way {
            Way::Killed | Way::KilledAtRest => cluster.node(victim).and_then(|node| node.signal("KILL")),
            Way::Frozen => cluster.node(victim).and_then(|node| node.signal("STOP")),
            Way::BlackHoled => {
                for (from, to) in cluster.links(victim) {
                    cluster.proxy.set(from, to, Condition::hole());
                }
                Ok(())
            }
        };
        gone_ms.store(clock.monotonic().as_millis() as usize, Ordering::SeqCst);
        if ended.is_err() {
            stop.store(true, Ordering::SeqCst);
        }
        let joined =
            probes.into_iter().map(|probe| probe.join().map_err(|_| anyhow::anyhow!("a probe panicked"))?);
        let measured = joined.collect::<Result<Vec<Duration>>>();
        ended.and(measured)
    })?;
    match way {
        Way::Killed | Way::KilledAtRest => cluster.kill(victim)?,
        Way::Frozen => cluster.node(victim)?.signal("CONT")?,
        Way::BlackHoled => cluster.proxy.heal(),
    }
    cluster.restart()?;
    Ok(measured)
}

/// A line of figures.
fn figures(what: &str, trials: usize, mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |quantile: f64| all[((all.len() - 1) as f64 * quantile).round() as usize];
    format!(
        "{what}: {trials} times, {} shards had to find another leader: p50 {:.2?}, p99 {:.2?}, longest {:.2?}",
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

#[test]
fn i12_time_until_writes_of_each_shard_succeed_again() -> Result<()> {
    let Some(kills) = kills() else {
        println!("skipped: measurement: set ISOBAR_FAILOVER_KILLS=50 to measure how long writes stand still");
        return Ok(());
    };
    let mut cluster = Cluster::start(Options::new(12))?;
    let mut id = 1;
    for (way, trials, limit) in [
        (Way::Killed, kills, Duration::from_secs(3)),
        (Way::KilledAtRest, kills.div_ceil(5), Duration::from_secs(3)),
        (Way::Frozen, kills.div_ceil(5), Duration::from_secs(5)),
        (Way::BlackHoled, kills.div_ceil(5), Duration::from_secs(5)),
    ] {
        let mut all = Vec::new();
        for _ in 0..trials {
            all.extend(outages(&mut cluster, way, id)?);
            id += 8;
        }
        let worst = all.iter().max().copied().unwrap_or_default();
        let kept = if worst <= limit { "kept" } else { "NOT kept by the longest" };
        println!("{} (promised {limit:?}: {kept})", figures(&format!("leader {way:?}"), trials, all));
    }
    Ok(())
}

/// The number that an expression gives at a server, 0 for nothing.
fn number(address: &str, expression: &str) -> Result<f64> {
    let path = format!("/api/v1/query?query={}", encoded(expression));
    let answer: Value = serde_json::from_slice(&Client::new(address).get(&path)?)?;
    match answer["data"]["result"].as_array().context("a vector")?.first() {
        None => Ok(0.0),
        Some(series) => Ok(series["value"][1].as_str().context("a value")?.parse()?),
    }
}

/// The values of a series in a range, by timestamp, at a server.
fn values(address: &str, selector: &str) -> Result<Vec<(String, String)>> {
    let path = format!("/api/v1/query?query={}", encoded(selector));
    let answer: Value = serde_json::from_slice(&Client::new(address).get(&path)?)?;
    let series =
        answer["data"]["result"].as_array().context("a matrix")?.first().context("a series")?.clone();
    let values = series["values"].as_array().context("values")?;
    Ok(values.iter().map(|pair| (pair[0].to_string(), pair[1].to_string())).collect())
}

#[test]
fn a_real_prometheus_keeps_sending_through_leader_kills_i1_i2() -> Result<()> {
    let found = prometheus();
    if !tier("peers", found.as_ref().err().cloned()) {
        return Ok(());
    }
    let program = found.map_err(anyhow::Error::msg)?;
    let kills = if kills().is_some() { 10 } else { 1 };
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(Options::new(13))?;
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        free.local_addr()?.port()
    };
    let own = format!("127.0.0.1:{port}");
    let config = folder.path().join("peer.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: prometheus, static_configs: [{{targets: ['{own}']}}]}}]\n\
             remote_write: [{{url: 'http://{}/api/v1/write', queue_config: {{batch_send_deadline: 1s}}}}]\n",
            cluster.addresses[0]
        ),
    )?;
    let peer = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("peer").display()))
        .arg(format!("--web.listen-address={own}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _peer = Helper(peer);
    let sent = "prometheus_remote_storage_samples_total";
    let sends = |least: f64| -> Result<f64> {
        let clock = SystemClock::new();
        loop {
            // It needs a moment until it answers at all.
            match number(&own, sent) {
                Ok(now) if now >= least => return Ok(now),
                other => ensure!(clock.monotonic() < PATIENCE, "{sent} should reach {least}: {other:?}"),
            }
            std::thread::yield_now();
        }
    };
    let mut before = sends(500.0)?;
    for _ in 0..kills {
        cluster.wait_whole(PATIENCE)?;
        // Whoever leads most, the node that Prometheus sends to included.
        let (_, victim) = settled(&cluster)?;
        cluster.kill(victim)?;
        if victim == 0 {
            // Nobody else takes what is sent to its address.
            cluster.restart()?;
        }
        before = sends(before + 1_000.0)?;
        cluster.restart()?;
    }
    cluster.wait_whole(PATIENCE)?;
    sends(before + 1_000.0)?;
    for counter in ["samples_failed_total", "samples_dropped_total"] {
        let count = number(&own, &format!("sum(prometheus_remote_storage_{counter})"))?;
        ensure!(count == 0.0, "{counter}: {count}");
    }
    // What both hold of one series is the same, up to what is still on its way.
    let range = "prometheus_tsdb_head_samples_appended_total{job=\"prometheus\",type!=\"histogram\"}[1h]";
    let theirs = values(&own, range)?;
    let ours = values(&cluster.addresses[1], range)?;
    ensure!(ours.len() > 5 && ours.len() <= theirs.len(), "{} of {}", ours.len(), theirs.len());
    ensure!(theirs.len() - ours.len() <= 5, "{} of {}", ours.len(), theirs.len());
    ensure!(ours[..] == theirs[..ours.len()], "the same samples: {ours:?} {theirs:?}");
    println!(
        "Prometheus through {kills} kills of leaders: {before} samples sent, 0 failed, 0 dropped, none missing"
    );
    Ok(())
}

/// In which terms nodes lead which shards, as all nodes say in order.
fn terms(cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    let of = |at: usize| -> Result<Vec<String>> {
        let (_, text) = cluster.node(at)?.get("/metrics")?;
        let terms = text.lines().filter(|line| line.starts_with("isobar_replication_term{"));
        Ok(terms.map(str::to_owned).collect())
    };
    (0..cluster.len()).map(of).collect()
}

/// Time that the cores of this machine had nothing to do, and all of their time, in ticks.
fn idle() -> Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("a line of all cores")?;
    let ticks: Result<Vec<u64>, _> = line.split_whitespace().skip(1).take(8).map(str::parse).collect();
    let ticks = ticks?;
    Ok((ticks[3] + ticks[4], ticks.iter().sum()))
}

#[test]
fn no_leadership_changes_while_all_cores_are_busy() -> Result<()> {
    let Some(minutes) = asked("ISOBAR_BUSY_MINUTES") else {
        println!(
            "skipped: measurement: set ISOBAR_BUSY_MINUTES=10 to see leaders stay while all cores are busy"
        );
        return Ok(());
    };
    let mut cluster = Cluster::start(Options::new(15))?;
    cluster.wait_whole(PATIENCE)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let instances: Vec<String> = all_shards().into_iter().map(instance_in).collect::<Result<_>>()?;
    let (mut id, mut acked, mut slowest) = (0, 0, Duration::ZERO);
    // A writer has so many rounds; each goes to another node, and none may be refused.
    let mut write = |rounds: usize, until: Duration| -> Result<()> {
        id += 1;
        let mut writer = Writer::with(id, 14, instances.clone(), Arc::clone(&clock)).with_patience(PATIENCE);
        for round in 0..rounds {
            let sent = clock.monotonic();
            if sent >= until {
                break;
            }
            let reply = writer.send(&cluster.addresses[round % cluster.len()])?;
            ensure!(reply.status < 300, "a write was refused: {reply:?}");
            acked += 1;
            slowest = slowest.max(clock.monotonic() - sent);
        }
        Ok(())
    };
    // A leader has a term to tell once it has proposed something.
    write(30, Duration::MAX)?;
    let cores = std::thread::available_parallelism()?.get();
    let burner = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().map(Helper);
    let _burners: Vec<Helper> = (0..cores).map(|_| burner()).collect::<std::io::Result<_>>()?;
    let before = terms(&cluster)?;
    let (idle_before, all_before) = idle()?;
    let until = clock.monotonic() + Duration::from_secs(minutes * 60);
    while clock.monotonic() < until {
        write(3_000, until)?;
    }
    let (idle_after, all_after) = idle()?;
    let after = terms(&cluster)?;
    let busy = 1.0 - (idle_after - idle_before) as f64 / (all_after - all_before) as f64;
    ensure!(busy > 0.98, "the cores were busy for {busy:.3} of the time only");
    ensure!(before.iter().flatten().count() >= all_shards().len(), "every shard has a leader: {before:?}");
    ensure!(before == after, "leaders changed: {before:?}, then {after:?}");
    println!(
        "{minutes} minutes with {cores} cores {:.1} % busy by {} processes beside: no leadership changed; {acked} writes \
         acknowledged one after the other, the slowest after {slowest:.2?}",
        busy * 100.0,
        cores
    );
    Ok(())
}
