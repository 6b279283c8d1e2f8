//! A simulated node: the real one, put together over a log in memory, a store in memory, a clock set from outside and a
//! runtime of its own whose time stands still unless it is told to go on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::NodeId;
use model::seam::Clock;
use prometheus_client::registry::Registry;
use storage::kv::{Faults, MemoryKv};
use storage::log::{Fault, FaultyFiles, NodeLog};
use storage::{Store, StoreConfig};
use tokio::runtime::Runtime;

use super::entropy::Rng;
use super::net::Net;
use crate::ReplicationConfig;
use crate::apply::ApplyPool;
use crate::folder::{DataFolder, Standing};
use crate::group::Ground;
use crate::membership;
use crate::metrics::Metrics;
use crate::node::{Inner, Parts};
use crate::peer_service::{Answerer, Fragments};
use crate::upkeep::Flushes;

/// The clocks of a node, set by the simulation.
#[derive(Debug, Default)]
pub(crate) struct SimClock {
    monotonic_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
    }
}

/// How a node's clocks go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Per cent of real time that its monotonic clock makes.
    pub(crate) monotonic: u64,
    /// The same of its wall clock; 0 = it is frozen.
    pub(crate) wall: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { monotonic: 100, wall: 100 }
    }
}

/// How a life of a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGKILL: what was written to files stays, synced or not.
    Kill,
    /// Power is cut: of what was not synced nothing is sure.
    PowerCut,
}

/// What runs of a node.
pub(crate) struct Life {
    runtime: Runtime,
    pub(crate) inner: Arc<Inner>,
    flushes: Flushes,
    /// When the disk is done with what waits.
    disk_due: Option<u64>,
    upkeep_due: u64,
}

/// A node, running or not.
pub(crate) struct SimNode {
    pub(crate) at: usize,
    config: ReplicationConfig,
    files: FaultyFiles,
    kv: Arc<MemoryKv>,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) pace: Pace,
    /// Hundredths of a millisecond of its monotonic clock that are owed.
    owed: u64,
    /// Milliseconds that a sync takes at least and at most.
    pub(crate) disk: (u64, u64),
    pub(crate) frozen: bool,
    /// Whether its database has no space.
    full: bool,
    /// Monotonic time that passed while it was frozen, ms.
    missed: u64,
    pub(crate) life: Option<Life>,
    pub(crate) lives: u64,
    port: u16,
    rng: Rng,
}

/// Where node `at` listens in its life number `port`.
fn address(at: usize, port: u16) -> String {
    format!("n{at}:{port}")
}

impl SimNode {
    pub(crate) fn new(at: usize, config: ReplicationConfig, rng: Rng) -> Self {
        let clock = Arc::new(SimClock::default());
        clock.wall_ms.store(crate::node_test::START, Ordering::Relaxed);
        Self {
            at,
            config,
            files: FaultyFiles::new(),
            kv: Arc::new(MemoryKv::new()),
            clock,
            pace: Pace::default(),
            owed: 0,
            disk: (0, 5),
            frozen: false,
            full: false,
            missed: 0,
            life: None,
            lives: 0,
            port: 1,
            rng,
        }
    }

    /// Starts it; after a crash what its disk holds is read back. Gives why it cannot.
    pub(crate) fn start(&mut self, net: &Arc<Net>, now: u64, elsewhere: bool) -> Result<(), String> {
        assert!(self.life.is_none(), "it runs");
        if elsewhere {
            self.port += 1;
        }
        let address = address(self.at, self.port);
        net.arrive(self.at, &address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let entered = runtime.enter();
        let inner = self.assemble(net, &runtime, address).map_err(|error| error.to_string())?;
        membership::start(&inner);
        drop(entered);
        self.lives += 1;
        self.frozen = false;
        let upkeep_due = now + self.rng.between(200, 1200);
        self.life = Some(Life { runtime, inner, flushes: Flushes::default(), disk_due: None, upkeep_due });
        Ok(())
    }

    fn assemble(
        &mut self,
        net: &Arc<Net>,
        runtime: &Runtime,
        address: String,
    ) -> Result<Arc<Inner>, crate::ReplicationError> {
        let config = self.config.clone();
        let folder = DataFolder::open(&config.data_dir, config.cluster_name.as_deref())?;
        let mut registry = Registry::default();
        let kv = Arc::clone(&self.kv);
        let clock: Arc<dyn Clock> = self.clock.clone();
        let files = Arc::new(self.files.clone());
        let log = NodeLog::open_stepped(files, config.log.clone(), Arc::clone(&clock), &mut registry)?;
        let stored = StoreConfig { log: Some(Arc::clone(&log)), ..StoreConfig::default() };
        let store = Store::with_kv(kv, stored, &mut registry)?;
        let known = folder.identity();
        let cluster_id = match known.standing {
            Standing::Member { cluster_id, .. } => cluster_id,
            Standing::Empty | Standing::Forming(_) => 0,
        };
        let (node, cluster_name) = (known.node, known.cluster_name);
        let me: rpc::Me = Arc::new(ArcSwap::from_pointee(rpc::Identity { cluster_name, cluster_id, node }));
        let handle = runtime.handle().clone();
        let ground = Ground {
            log,
            pool: ApplyPool::inline(),
            peers: net.calls(self.at, Arc::clone(&me)),
            spaceless: Arc::default(),
            raft: handle.clone(),
            data: handle.clone(),
            metrics: Arc::new(Metrics::new(&mut registry)),
        };
        let identity = Arc::clone(&me);
        let inner = Inner::new(Parts { config, folder, store, clock, ground, identity, address })?;
        let service = Arc::new(Answerer::new(&inner, Arc::new(Fragments::default())));
        net.listen(self.at, service, handle, me);
        Ok(inner)
    }

    /// Ends its life.
    pub(crate) fn end(&mut self, net: &Net, how: End) {
        let Some(life) = self.life.take() else { return };
        net.leave(self.at, how == End::PowerCut);
        let Life { runtime, inner, .. } = life;
        inner.ground.log.abandon();
        self.files = match how {
            End::Kill => self.files.killed(),
            End::PowerCut => {
                let seed = self.rng.next();
                let share = self.rng.below(4);
                self.files.power_cut(seed, |random| random % 4 < share)
            }
        };
        // What the database did not flush is in memory only, whoever ends.
        self.kv.cut_power();
        let gone = Arc::downgrade(&inner);
        drop(inner);
        drop(runtime);
        assert!(gone.upgrade().is_none(), "something holds on to a node that ended");
        self.missed = 0;
        self.frozen = false;
    }

    /// The next sync of its log fails.
    pub(crate) fn fail_sync(&self) {
        self.files.plan(Fault::Sync(0));
    }

    /// Its disk is as fast as ever, and fails no more than it has.
    pub(crate) fn heal_disk(&mut self) {
        self.disk = (0, 5);
        self.files.heal();
    }

    /// Sets whether its database has no space.
    pub(crate) fn fill(&mut self, full: bool) {
        self.full = full;
        self.kv.set_faults(Faults { full, half: self.halves(), ..Faults::default() });
    }

    /// Whether its database has no space.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// How many batches found no space so far.
    pub(crate) fn refused(&self) -> u64 {
        self.kv.refused()
    }

    #[cfg(feature = "seeded_bugs")]
    fn halves(&self) -> bool {
        self.config.log.seeded_bug == Some(storage::log::SeededBug::HalfWrittenBatch)
    }

    #[cfg(not(feature = "seeded_bugs"))]
    #[allow(clippy::unused_self, reason = "the twin with the feature has the same shape")]
    fn halves(&self) -> bool {
        false
    }

    pub(crate) fn jump_wall(&self, ms: i64) {
        self.clock.wall_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) fn inner(&self) -> Option<&Arc<Inner>> {
        self.life.as_ref().map(|life| &life.inner)
    }

    /// Who it is, when it runs.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.inner().map(|inner| inner.node)
    }

    /// Whether its log has failed for good.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner().is_some_and(|inner| inner.log.failure().is_some())
    }

    /// Runs `work` on it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(life) = &self.life {
            life.runtime.spawn(work);
        }
    }

    /// Lets it run for `tick` ms of real time, which ends at `now`.
    pub(crate) fn run(&mut self, now: u64, tick: u64) {
        self.clock.wall_ms.fetch_add(tick as i64 * self.pace.wall / 100, Ordering::Relaxed);
        self.owed += tick * self.pace.monotonic;
        let mut passes = self.owed / 100;
        self.owed %= 100;
        self.clock.monotonic_ms.fetch_add(passes, Ordering::Relaxed);
        let Some(life) = &mut self.life else { return };
        if self.frozen {
            self.missed += passes;
            return;
        }
        if life.inner.log.waits() {
            let (least, most) = self.disk;
            let due = *life.disk_due.get_or_insert_with(|| now + self.rng.between(least, most));
            if due <= now {
                life.disk_due = None;
                life.inner.log.step();
            }
        }
        let woken = std::mem::take(&mut self.missed);
        passes += woken;
        let Life { runtime, inner, flushes, upkeep_due, .. } = life;
        if now >= *upkeep_due {
            *upkeep_due = now + 1000;
            let _entered = runtime.enter();
            flushes.look(inner, runtime.handle(), &|| false);
            if self.rng.chance(50) {
                for (_, handle) in inner.ready_shards() {
                    // What fails is tried again; a full disk makes it.
                    let _ = handle.shard.merge_step(1 << 20);
                }
            }
            if self.rng.chance(10) {
                let inner = Arc::clone(inner);
                runtime.spawn(async move { crate::upkeep::sweep(&inner).await });
            }
        }
        runtime.block_on(async {
            if woken > 0 {
                // As for a process that was stopped: all of the time is over at once.
                tokio::time::advance(Duration::from_millis(passes)).await;
            } else {
                tokio::time::sleep(Duration::from_millis(passes)).await;
            }
        });
    }
}

/// The configuration of node `at` of `nodes`, of which `expect` form the cluster.
pub(crate) fn config(dir: &Path, at: usize, expect: usize, shards: u32) -> ReplicationConfig {
    ReplicationConfig {
        node_name: format!("n{at}"),
        // One that has others to join never forms alone.
        join: (0..expect).filter(|_| expect > 1).map(|other| address(other, 1)).collect(),
        bootstrap_expect: expect,
        shards,
        rest_after: Duration::from_millis(1000),
        compare_every: Duration::from_secs(2),
        flush_age: Duration::from_secs(3),
        flush_bytes: 16 << 10,
        log_bytes: 192 << 10,
        log: storage::log::LogConfig {
            segment_bytes: 64 << 10,
            cache_bytes: 16 << 10,
            ..storage::log::LogConfig::default()
        },
        ..crate::node_test::config(dir)
    }
}
