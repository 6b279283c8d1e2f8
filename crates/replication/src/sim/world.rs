//! A whole run: nodes form a cluster, clients write and read while things break, everything is healed, and all must be
//! well.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::seam::ReadLevel;
use model::{LogIndex, NodeId, ShardId};
use parking_lot::Mutex;
#[cfg(feature = "seeded_bugs")]
use storage::log::SeededBug;

use super::check::Checker;
use super::client::{History, Shown, read_all};
use super::entropy::Rng;
use super::faults::{self, Ends, Kind, Undo, strike};
use super::net::Net;
use super::node::{End, Pace, SimNode, config};
use crate::node::Local;
use crate::talk::Ask;
use crate::tend::ask_leader;

/// Milliseconds of one tick.
pub(crate) const TICK: u64 = 5;
/// How long everything may take that must happen without faults, ms.
const PATIENCE: u64 = 40_000;

/// What the seed decides before a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Nodes; the first `expect` form the cluster.
    nodes: usize,
    expect: usize,
    shards: u32,
    clients: usize,
    /// Series of a write.
    width: usize,
    /// How long things break, ms.
    faults_ms: u64,
    /// Least and most time between two faults, ms.
    between: (u64, u64),
    /// Whether things break while the cluster forms.
    while_forming: bool,
    kinds: Vec<Kind>,
}

impl Options {
    /// Three nodes on which nothing breaks.
    pub(crate) fn calm() -> Self {
        let some = Self::of(0);
        Self { nodes: 3, expect: 3, shards: 1, while_forming: false, kinds: Vec::new(), ..some }
    }

    /// Five nodes with some of eight shards each, on which nothing breaks.
    pub(crate) fn spread() -> Self {
        Self { nodes: 5, expect: 5, shards: 8, ..Self::calm() }
    }

    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x00b7_10a5);
        let (nodes, expect) = rng.pick(&[(3, 3), (3, 3), (3, 3), (4, 3), (5, 5), (1, 1)]).unwrap_or((3, 3));
        // A few kinds a run meet each other more often than all of them would.
        let count = rng.between(2, 7);
        let mut kinds: Vec<Kind> = (0..count).filter_map(|_| rng.pick(&Kind::ALL)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if nodes == 1 {
            kinds.retain(|kind| {
                !matches!(
                    kind,
                    Kind::Isolate
                        | Kind::Deaf
                        | Kind::Mute
                        | Kind::Bridge
                        | Kind::Reset
                        | Kind::Transfer
                        | Kind::PowerCutVoter
                )
            });
        }
        let least = rng.between(50, 800);
        Self {
            seed,
            nodes,
            expect,
            shards: rng.between(1, 2) as u32,
            clients: rng.between(1, 4) as usize,
            width: rng.between(1, 8) as usize,
            faults_ms: rng.between(6_000, 14_000),
            between: (least, least + rng.between(100, 2000)),
            while_forming: rng.chance(30),
            kinds,
        }
    }
}

/// What came back to a client.
enum Back {
    Write(u64, bool),
    Read { shard: ShardId, began: u64, shown: Option<Shown> },
}

/// Where a client's call is under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    at: usize,
    life: u64,
    /// The write; `None` = a read.
    write: Option<u64>,
}

/// A run.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) net: Arc<Net>,
    pub(crate) nodes: Vec<SimNode>,
    options: Options,
    rng: Rng,
    ends: Vec<Ends>,
    /// Nodes that hand over and then end: when, and for how long.
    pub(crate) stops: Vec<(u64, usize, u64)>,
    back: Arc<Mutex<Vec<(u64, Back)>>>,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    history: History,
    checker: Checker,
    seen: BTreeMap<&'static str, u64>,
    formed: bool,
    /// Whether a replica differs on purpose: then the checks after each tick are left out.
    astray: bool,
}

type Checked = Result<(), String>;

impl World {
    pub(crate) fn new(options: Options, dir: &Path) -> Self {
        let mut rng = Rng::new(options.seed);
        let net = Net::new(options.nodes, Rng::new(rng.next()));
        let node = |at: usize| {
            let mut config = config(&dir.join(format!("n{at}")), at, options.expect, options.shards);
            seed_bug(&mut config);
            SimNode::new(at, config, Rng::new(options.seed.wrapping_mul(31).wrapping_add(at as u64)))
        };
        let nodes = (0..options.nodes).map(node).collect();
        Self {
            now: 0,
            net,
            nodes,
            options,
            rng,
            ends: Vec::new(),
            stops: Vec::new(),
            back: Arc::default(),
            flights: BTreeMap::new(),
            next_flight: 0,
            history: History::default(),
            checker: Checker::default(),
            seen: BTreeMap::new(),
            formed: false,
            astray: false,
        }
    }

    /// The whole run; gives what happened how often.
    pub(crate) fn run(&mut self) -> Result<BTreeMap<&'static str, u64>, String> {
        self.form()?;
        self.break_things()?;
        self.heal()?;
        self.settle()?;
        // All at once, once more: what was acknowledged is on every disk that promised it.
        for node in &mut self.nodes {
            node.end(&self.net, End::PowerCut);
        }
        for at in 0..self.nodes.len() {
            self.start(at)?;
        }
        self.settle()?;
        let mut seen = std::mem::take(&mut self.seen);
        seen.extend(self.net.seen());
        seen.insert("writes acknowledged", self.history.acked);
        seen.insert("writes unknown", self.history.unknown);
        seen.insert("reads checked", self.history.reads);
        seen.insert("batches without space", self.nodes.iter().map(SimNode::refused).sum());
        seen.insert("leaders", self.checker.terms() as u64);
        seen.insert("simulated ms", self.now);
        let compared = self.nodes.iter().filter_map(SimNode::inner).map(|inner| inner.metrics.compared.get());
        seen.insert("replicas compared", compared.sum());
        if self.nodes.iter().filter_map(SimNode::inner).any(|inner| inner.metrics.differing.get() != 0) {
            return Err("I7: replicas were taken for different that are equal".to_owned());
        }
        Ok(seen)
    }

    /// Leaderships are spread over nodes of which each sees some of the shards, and then stay where they are; fails unless they
    /// do.
    pub(crate) fn spread_leaders(&mut self) -> Checked {
        self.form()?;
        self.settle()?;
        let leaders = |world: &Self| {
            let nodes = world.nodes.iter().filter_map(SimNode::inner).map(|inner| {
                let led = inner.running_shards().into_iter().filter(|(_, group)| group.leading().is_some());
                led.map(|(shard, group)| (shard, group.leading())).collect()
            });
            nodes.collect::<Vec<BTreeMap<_, _>>>()
        };
        let shards = self.options.shards as usize;
        self.wait("every shard is led", |world| {
            leaders(world).iter().map(BTreeMap::len).sum::<usize>() == shards
        })?;
        for _ in 0..120 {
            self.let_pass(500)?;
        }
        let before = leaders(self);
        for _ in 0..60 {
            self.let_pass(500)?;
        }
        let after = leaders(self);
        if before != after {
            return Err(format!("leaderships move: {before:?}, then {after:?}"));
        }
        let even = after.iter().all(|led| (1..=3).contains(&led.len()));
        if even { Ok(()) } else { Err(format!("leaderships are not spread: {after:?}")) }
    }

    /// One replica, the leader or another, applies an entry that no other has. Fails unless it goes into quarantine and is
    /// as the others afterwards, also when its node ends in between.
    pub(crate) fn let_one_differ(&mut self, leader: bool) -> Checked {
        self.form()?;
        self.settle()?;
        self.astray = true;
        let victim = self.nodes.iter().find_map(|node| {
            let (_, handle) = node
                .inner()?
                .ready_shards()
                .into_iter()
                .find(|(_, h)| h.group.leading().is_some() == leader)?;
            Some((node.at, handle))
        });
        let (at, handle) = victim.ok_or("no replica is as wanted")?;
        // What the others apply there is another floor: what comes after it fits both. The leader plans it first.
        let leader = self.nodes.iter().find_map(|node| {
            let led = node.inner()?.ready_shards().into_iter();
            led.filter_map(|(_, led)| Some((node.at, led.group.leading()?, led))).next()
        });
        let (leads_at, term, leads) = leader.ok_or("nobody leads")?;
        let right = leads.shard.plan_retention(1, 1);
        let (index, mark) = handle.shard.applied();
        let entry = handle.shard.plan_retention(2, 1);
        let applied = handle.shard.apply(LogIndex(index.0 + 1), &entry, &mark);
        applied.map_err(|error| error.to_string())?;
        drop(handle);
        self.nodes[leads_at].spawn(async move {
            leads.propose(term, right).await.expect("a leader in calm proposes");
        });
        let quarantined = |world: &Self| {
            let own = world.nodes[at].inner().map(|inner| crate::status::own(inner));
            own.is_some_and(|own| own.replicas.values().any(|view| view.quarantined && view.failed))
        };
        self.wait("it is in quarantine", |world| quarantined(world))?;
        let inner = self.nodes[at].inner().ok_or("it has ended")?;
        if crate::ready::unready(inner).is_none_or(|reason| !reason.contains("quarantine")) {
            return Err("its node is ready".to_owned());
        }
        if inner
            .ready_shards()
            .iter()
            .any(|(_, h)| h.shard.reader().label_names(&crate::node_test::everything(), 0).is_ok())
        {
            return Err("it is read".to_owned());
        }
        let differing = inner.metrics.differing.get();
        if differing != 1 {
            return Err(format!("{differing} replicas differ by the metric"));
        }
        self.nodes[at].end(&self.net, End::PowerCut);
        self.start(at)?;
        self.settle()?;
        if quarantined(self) {
            return Err("it is in quarantine still".to_owned());
        }
        let inner = self.nodes[at].inner().ok_or("it has ended")?;
        let kept = std::fs::read_dir(inner.folder.dir().join("quarantine")).map_err(|e| e.to_string())?;
        let kept: Vec<_> = kept.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        match kept.as_slice() {
            [one] if one.starts_with("state-") => Ok(()),
            _ => Err(format!("kept of it: {kept:?}")),
        }
    }

    fn form(&mut self) -> Checked {
        for at in 0..self.options.expect {
            let pause = self.rng.between(0, 300);
            self.let_pass(pause)?;
            self.start(at)?;
        }
        if self.options.while_forming {
            let until = self.now + 4000;
            while self.now < until {
                self.maybe_break(until)?;
            }
            self.heal()?;
        }
        let members = 0..self.options.expect;
        self.wait("the cluster is formed", |world| members.clone().all(|at| world.is_ready(at)))?;
        let ids: Vec<_> =
            members.filter_map(|at| Some(self.nodes[at].inner()?.identity.load().cluster_id)).collect();
        if ids.iter().any(|id| *id != ids[0]) {
            return Err(format!("forming: two clusters were formed: {ids:x?}"));
        }
        self.formed = true;
        Ok(())
    }

    fn break_things(&mut self) -> Checked {
        let until = self.now + self.options.faults_ms;
        let mut late = (self.options.expect..self.options.nodes).collect::<Vec<_>>();
        let joins_at = self.now + self.rng.below(self.options.faults_ms / 2);
        while self.now < until {
            if self.now >= joins_at
                && let Some(at) = late.pop()
            {
                self.start(at)?;
            }
            self.maybe_break(until)?;
        }
        for at in late {
            self.start(at)?;
        }
        Ok(())
    }

    /// Lets some time pass, with one fault at its end.
    fn maybe_break(&mut self, until: u64) -> Checked {
        let (least, most) = self.options.between;
        let pause = self.rng.between(least, most).min(until.saturating_sub(self.now).max(TICK));
        self.let_pass(pause)?;
        let mut rng = Rng::new(self.rng.next());
        if let Some(kind) = rng.pick(&self.options.kinds) {
            let line = format!("{} fault {}", self.now, kind.name());
            super::log::note(&line);
            self.net.note(&line);
            strike(self, kind, &mut rng);
        }
        Ok(())
    }

    pub(crate) fn counted(&mut self, kind: Kind) {
        *self.seen.entry(kind.name()).or_default() += 1;
    }

    pub(crate) fn undo(&mut self, after: u64, what: Undo) {
        self.ends.push(Ends { at: self.now + after, what });
    }

    fn end_faults(&mut self) -> Checked {
        let now = self.now;
        let due: Vec<(u64, usize, u64)> = self.stops.iter().filter(|(at, ..)| *at <= now).copied().collect();
        self.stops.retain(|(at, ..)| *at > now);
        for (_, at, away) in due {
            if self.nodes[at].life.is_some() {
                self.nodes[at].end(&self.net, End::Kill);
                self.undo(away, Undo::Start(at));
            }
        }
        let (due, rest) = std::mem::take(&mut self.ends).into_iter().partition(|ends: &Ends| ends.at <= now);
        self.ends = rest;
        let due: Vec<Ends> = due;
        due.into_iter().try_for_each(|ends| self.end_fault(ends.what))
    }

    fn end_fault(&mut self, what: Undo) -> Checked {
        match what {
            Undo::End(at, away) => faults::end(self, at, End::PowerCut, away),
            Undo::Start(at) => return self.start(at),
            Undo::Thaw(at) => {
                self.nodes[at].frozen = false;
                self.net.freeze(at, false);
            }
            Undo::Heal(cut) => cut.iter().for_each(|(from, to)| self.net.cut(*from, *to, false)),
            Undo::Fast => self.net.slow(None),
            Undo::Space(at) => self.nodes[at].fill(false),
            Undo::Disk(at) => {
                self.nodes[at].heal_disk();
                if self.nodes[at].has_failed() {
                    *self.seen.entry("logs that failed").or_default() += 1;
                    self.nodes[at].end(&self.net, End::PowerCut);
                    self.undo(500, Undo::Start(at));
                }
            }
            Undo::Clocks(at) => self.nodes[at].pace = Pace::default(),
        }
        Ok(())
    }

    fn start(&mut self, at: usize) -> Checked {
        if self.nodes[at].life.is_some() {
            return Ok(());
        }
        // Only one, and once the others know it: nobody finds anybody where all have moved.
        let elsewhere = self.formed && at == 0 && self.nodes.len() > 1 && self.rng.chance(30);
        *self.seen.entry("starts elsewhere").or_default() += u64::from(elsewhere);
        *self.seen.entry("starts on a full disk").or_default() += u64::from(self.nodes[at].is_full());
        let (net, now) = (Arc::clone(&self.net), self.now);
        self.nodes[at]
            .start(&net, now, elsewhere)
            .map_err(|error| format!("node {at} does not start: {error}"))
    }

    /// Ends all faults and has everything run.
    fn heal(&mut self) -> Checked {
        self.ends.clear();
        self.stops.clear();
        self.net.heal();
        for at in 0..self.nodes.len() {
            self.net.freeze(at, false);
            let node = &mut self.nodes[at];
            node.frozen = false;
            node.heal_disk();
            node.pace = Pace::default();
            node.fill(false);
            if node.has_failed() {
                *self.seen.entry("logs that failed").or_default() += 1;
                node.end(&self.net, End::PowerCut);
            }
            if self.nodes[at].lives > 0 {
                self.start(at)?;
            }
        }
        self.net.note(&format!("{} healed", self.now));
        Ok(())
    }

    fn is_ready(&self, at: usize) -> bool {
        self.nodes[at].inner().is_some_and(|inner| inner.progress().is_ready())
    }

    fn shards(&self) -> Vec<ShardId> {
        (1..=self.options.shards).map(ShardId).collect()
    }

    /// Without faults: everything is ready, every write is acknowledged in the end, fresh ones too, all replicas are
    /// equal, and every sample is there once, whichever node is asked.
    fn settle(&mut self) -> Checked {
        let count = self.nodes.len();
        self.wait("all nodes are ready", |world| (0..count).all(|at| world.is_ready(at)))?;
        for shard in self.shards() {
            for client in 0..self.options.clients {
                self.write(shard, client, None);
            }
        }
        self.wait("every write is acknowledged", |world| world.history.open.is_empty())?;
        self.wait("the replicas are equal", World::are_equal)?;
        for at in 0..count {
            for shard in self.shards() {
                let before = self.history.reads;
                let read = |world: &mut Self| {
                    if world.flights.is_empty() {
                        world.read(shard, Some(at));
                    }
                };
                self.wait_doing("a read is answered", |world| world.history.reads > before, read)?;
            }
        }
        for node in &self.nodes {
            let Some(inner) = node.inner() else { continue };
            for (shard, handle) in inner.ready_shards() {
                let shown = read_all(handle.shard.reader().as_ref())
                    .map_err(|error| format!("a replica cannot be read: {error}"))?;
                let sent = self.history.sent(shard);
                let shown_at = (self.now, shown.len());
                self.history.shown(shard, self.now, self.now, &shown).map_err(|what| {
                    format!("{what}: replica of shard {shard} on node {} at {shown_at:?}", node.at)
                })?;
                if shown.len() != sent {
                    return Err(format!(
                        "I1 lost: {} of {sent} samples of shard {shard} on node {}",
                        shown.len(),
                        node.at
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether all replicas of each shard have applied the same, which must be all that there is (I7).
    fn are_equal(&mut self) -> bool {
        let mut by_shard: BTreeMap<ShardId, Vec<(u64, u64)>> = BTreeMap::new();
        for inner in self.nodes.iter().filter_map(SimNode::inner) {
            for (shard, local) in &*inner.shards.read() {
                let Local::Ready(handle) = local else { return false };
                let (index, hash) = handle.shard.state_hash();
                by_shard.entry(*shard).or_default().push((index.0, hash));
            }
        }
        by_shard.len() == self.options.shards as usize
            && by_shard.values().all(|states| states.iter().all(|state| *state == states[0]))
    }

    /// Sends a batch of `client`, or sends one again.
    fn write(&mut self, shard: ShardId, client: usize, again: Option<u64>) {
        let width = self.options.width;
        let write = again.unwrap_or_else(|| self.history.begin(shard, client, width));
        let Some(open) = self.history.open.get_mut(&write) else { return };
        open.flying = true;
        let (batch, shard) = (open.batch(), open.shard);
        let called = self.call(None, Some(write), move |inner| async move {
            let written = inner.route_write(shard, batch).await;
            let refused = written.as_ref().is_ok_and(|report| !report.rejected.is_empty());
            assert!(!refused, "I4 a valid batch was refused: {written:?}");
            Back::Write(write, written.is_ok())
        });
        if !called {
            self.history.unknown(write);
        }
    }

    fn read(&mut self, shard: ShardId, at: Option<usize>) {
        let began = self.now;
        self.call(at, None, move |inner| async move {
            let source = inner.route_read(shard, ReadLevel::Linearizable).await;
            let shown = source.and_then(|source| read_all(source.as_ref())).ok();
            Back::Read { shard, began, shown }
        });
    }

    /// Has a node do something for a client; false when it does not run.
    fn call<F>(
        &mut self,
        at: Option<usize>,
        write: Option<u64>,
        work: impl FnOnce(Arc<crate::node::Inner>) -> F,
    ) -> bool
    where
        F: Future<Output = Back> + Send + 'static,
    {
        let at = at.unwrap_or_else(|| self.rng.below(self.nodes.len() as u64) as usize);
        let node = &self.nodes[at];
        let Some(inner) = node.inner() else { return false };
        self.next_flight += 1;
        let (flight, back) = (self.next_flight, Arc::clone(&self.back));
        let work = work(Arc::clone(inner));
        node.spawn(async move {
            let done = work.await;
            back.lock().push((flight, done));
        });
        self.flights.insert(flight, Flight { at, life: node.lives, write });
        true
    }

    /// Takes in what came back, and what never will.
    fn take_in(&mut self) -> Checked {
        let back = std::mem::take(&mut *self.back.lock());
        for (flight, back) in back {
            self.flights.remove(&flight);
            match back {
                Back::Write(write, true) => {
                    self.net.note(&format!("{} acknowledged {write}", self.now));
                    self.history.acknowledged(write, self.now);
                }
                Back::Write(write, false) => self.history.unknown(write),
                Back::Read { shard, began, shown: Some(shown) } => {
                    self.net.note(&format!("{} read {shard}: {}", self.now, shown.len()));
                    self.history.shown(shard, began, self.now, &shown)?;
                }
                Back::Read { shown: None, .. } => {}
            }
        }
        let gone: Vec<(u64, Option<u64>)> = self
            .flights
            .iter()
            .filter(|(_, flight)| {
                let node = &self.nodes[flight.at];
                node.life.is_none() || node.lives != flight.life
            })
            .map(|(id, flight)| (*id, flight.write))
            .collect();
        for (flight, write) in gone {
            self.flights.remove(&flight);
            if let Some(write) = write {
                self.history.unknown(write);
            }
        }
        Ok(())
    }

    /// What clients do now: sending again what is unknown, sometimes something new, sometimes reading. Writes that wait
    /// for an election leave readers alone.
    fn clients(&mut self) {
        for client in 0..self.options.clients {
            if !self.rng.chance(8) {
                continue;
            }
            let writes = self.flights.values().filter(|flight| flight.write.is_some()).count();
            let most = self.options.clients * 3;
            let shard = ShardId(1 + self.rng.below(self.options.shards.into()) as u32);
            let open: Vec<u64> =
                self.history.open.iter().filter(|(_, write)| !write.flying).map(|(id, _)| *id).collect();
            match self.rng.below(10) {
                4..=5 if self.flights.len() - writes <= most => self.read(shard, None),
                _ if writes > most => {}
                0..=2 if !open.is_empty() => self.write(shard, client, open.first().copied()),
                3 => self.write(shard, client, self.rng.clone().pick(&open)),
                _ if self.history.open.len() < 40 => self.write(shard, client, None),
                _ => {}
            }
        }
    }

    /// One tick of everything, and the checks after it.
    fn tick(&mut self) -> Checked {
        self.now += TICK;
        self.net.deliver(self.now);
        if let Some(vote) = self.net.vote() {
            let mut rng = Rng::new(self.rng.next());
            faults::voted(self, vote, &mut rng);
        }
        for node in &mut self.nodes {
            node.run(self.now, TICK);
        }
        self.take_in()?;
        for node in &self.nodes {
            if let Some(inner) = node.inner().filter(|_| !self.astray) {
                self.checker.look(node.at, node.lives, inner)?;
            }
        }
        self.net.violations().into_iter().next().map_or(Ok(()), Err)
    }

    fn let_pass(&mut self, ms: u64) -> Checked {
        let until = self.now + ms;
        while self.now < until {
            self.tick()?;
            self.end_faults()?;
            if self.nodes.iter().any(|node| node.lives > 0) {
                self.clients();
            }
        }
        Ok(())
    }

    fn wait(&mut self, what: &str, look: impl Fn(&mut Self) -> bool) -> Checked {
        self.wait_doing(what, look, |_| {})
    }

    /// Waits until `look`, sending again what is not acknowledged and doing `each` before each tick.
    fn wait_doing(
        &mut self,
        what: &str,
        look: impl Fn(&mut Self) -> bool,
        mut each: impl FnMut(&mut Self),
    ) -> Checked {
        let until = self.now + PATIENCE;
        while !look(self) {
            if self.now >= until {
                let progress: Vec<_> =
                    self.nodes.iter().map(|node| node.inner().map(|inner| inner.progress())).collect();
                let open = &self.history.open;
                return Err(format!(
                    "not within {PATIENCE} ms without faults: {what}; {progress:?}; {open:?}"
                ));
            }
            self.tick()?;
            each(self);
            let open = self.history.open.iter().find(|(_, write)| !write.flying);
            if let Some((write, shard)) = open.map(|(id, write)| (*id, write.shard)) {
                self.write(shard, 0, Some(write));
            }
        }
        Ok(())
    }

    /// A node that leads a group.
    pub(crate) fn a_leader(&mut self) -> Option<usize> {
        let leads = |node: &&SimNode| {
            node.inner()
                .is_some_and(|inner| inner.groups.read().values().any(|group| group.leading().is_some()))
        };
        let leaders: Vec<usize> = self.nodes.iter().filter(leads).map(|node| node.at).collect();
        self.rng.pick(&leaders)
    }

    /// Has the leader of a shard asked, through node `via`, to hand over to node `to`.
    pub(crate) fn transfer(&mut self, via: usize, to: usize) {
        let Some(to) = self.nodes[to].node() else { return };
        let shard = ShardId(1 + self.rng.below(self.options.shards.into()) as u32);
        let Some(inner) = self.nodes[via].inner().cloned() else { return };
        self.nodes[via].spawn(async move {
            // It may not come to pass, for many good reasons.
            let _ = ask_leader(&inner, shard, &Ask::Transfer { shard, to: NodeId(to.0) }).await;
        });
    }

    /// Flushes a node and purges its log of everything that is durable, whoever still needs it.
    pub(crate) fn purge(&mut self, at: usize) {
        let Some(inner) = self.nodes[at].inner().cloned() else { return };
        self.nodes[at].spawn(async move {
            // A full disk takes no flush.
            if inner.flush_all().is_err() {
                return;
            }
            let mut groups: Vec<_> = inner.groups.read().values().cloned().collect();
            groups.sort_by_key(|group| group.id);
            for group in groups {
                // It stops meanwhile, or has nothing.
                let _ = group.purge_durable(true).await;
            }
        });
    }
}

#[cfg(feature = "seeded_bugs")]
fn seed_bug(config: &mut crate::ReplicationConfig) {
    let named = super::setting("ISOBAR_SEEDED_BUG");
    config.log.seeded_bug = named.as_deref().and_then(SeededBug::named);
}

#[cfg(not(feature = "seeded_bugs"))]
fn seed_bug(_config: &mut crate::ReplicationConfig) {}
