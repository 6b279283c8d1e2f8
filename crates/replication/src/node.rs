//! This node's replicas: opening the data folder, answering the seams, stopping in order.
//!
//! Opening returns at once; `membership` then finds or forms the cluster, starts the meta group, and starts a shard's
//! replica whenever the meta state places one here. Each answers as soon as it is ready. Until the cluster is known the
//! shard map is one of epoch 0, under which nothing is written or read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use model::seam::{
    BoxFuture, Clock, FragmentRunner, ReadLevel, SeriesSource, ShardBatch, ShardReader, ShardReport,
    ShardWriteError, ShardWriter, StorageStatus, StorageView,
};
use model::{Epoch, Failure, Matcher, NodeId, ReplicaId, ShardId, TenantId, TimeRange};
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use storage::log::{DiskFiles, GroupId, NodeLog};
use storage::{Shard, Store, StoreConfig};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use topology::ShardMap;

use crate::ReplicationError;
use crate::apply::ApplyPool;
use crate::calls::Calls;
use crate::catch_up;
use crate::compare::Differing;
use crate::config::{PeerTls, Peering, ReplicationConfig};
use crate::folder::{DataFolder, Identity, Standing};
use crate::group::{Founders, Ground, Group, LeadError, RETRY};
use crate::machine::Target;
use crate::members::Candidate;
use crate::membership;
use crate::meta::Cluster;
use crate::metrics::Metrics;
use crate::peer_service::{Answerer, Fragments, Heard};
use crate::quarantine::{self, Quarantine};
use crate::router::Router;
use crate::shard::{ShardHandle, Waiting};
use crate::talk::{Ask, Deletion};
use crate::tend::ask_leader;
use crate::types::Applied;
use crate::upkeep::{DiskGuard, Upkeep};

/// Groups that replay at the same time.
const REPLAYS: usize = 3;
/// A replica that has not heard a leader for so long is not caught up with one.
const SILENCE: Duration = Duration::from_secs(5);

/// How far starting is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Groups of this node.
    pub groups: usize,
    /// Those that lead, or have caught up with their leader.
    pub ready: usize,
    /// Log entries still to be replayed in groups that have started.
    pub entries_left: u64,
    /// Groups that cannot start, and why.
    pub failed: Vec<(String, String)>,
    /// What the node waits for before it belongs to a cluster; empty once it does.
    pub waits_for: String,
}

/// What `Replication::salvage` did to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvageLine {
    /// The group: a shard or the meta group.
    pub group: String,
    /// What was found and what became of it, for people.
    pub text: String,
}

/// A shard on this node.
#[derive(Clone)]
pub(crate) enum Local {
    /// Replaying, catching up, or waiting for its turn to.
    Starting,
    /// It takes reads and writes.
    Ready(Arc<ShardHandle>),
    /// It cannot start.
    Failed(String),
}

/// What is shared with tasks and upkeep.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    /// This node as it introduces itself; what its flags say of settings is in `own`.
    pub(crate) me: Candidate,
    /// Who it is to its peers.
    pub(crate) identity: rpc::Me,
    pub(crate) peers: Arc<dyn Calls>,
    pub(crate) config: ReplicationConfig,
    pub(crate) folder: DataFolder,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<NodeLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ground: Ground,
    /// The meta group, once this node has a replica of it.
    pub(crate) meta: ArcSwapOption<Group>,
    /// The cluster as the meta state here says; `None` before this node belongs to one.
    pub(crate) cluster: ArcSwapOption<Cluster>,
    /// Groups that take messages from peers, by replica id.
    pub(crate) groups: RwLock<HashMap<u64, Arc<Group>>>,
    pub(crate) shards: RwLock<BTreeMap<ShardId, Local>>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) guard: Arc<DiskGuard>,
    pub(crate) behind: crate::ready::Behind,
    /// What this node's own flags say of the settings that must agree.
    pub(crate) own: Mutex<BTreeMap<String, String>>,
    /// Why this node belongs to no cluster yet, or may not any more.
    pub(crate) waits_for: Mutex<String>,
    pub(crate) membership: membership::State,
    changed: watch::Sender<u64>,
    pub(crate) map: Arc<ArcSwap<ShardMap>>,
    pub(crate) stopping: AtomicBool,
    /// Shards that replay at the same time.
    turns: Semaphore,
    pub(crate) router: Router,
    pub(crate) heard: Heard,
    pub(crate) differing: Differing,
    pub(crate) quarantine: Quarantine,
    /// Held while a snapshot is made.
    pub(crate) snapshotting: tokio::sync::Mutex<()>,
}

/// This node's replicas.
pub struct Replication {
    pub(crate) inner: Arc<Inner>,
    upkeep: Arc<Upkeep>,
    runtimes: Mutex<Option<(Runtime, Runtime)>>,
    serving: Mutex<Option<rpc::Serving>>,
    fragments: Arc<Fragments>,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replication({:016x})", self.node().0)
    }
}

impl Replication {
    /// Opens the data folder of `config` with its log and database. What it holds is started in the background, as is
    /// forming or joining a cluster where it belongs to none yet (see [`Replication::caught_up`]). The folder stays
    /// locked until the value is dropped. `peering` is where other nodes reach this one.
    pub async fn open(
        config: ReplicationConfig,
        peering: Peering,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, ReplicationError> {
        let folder = DataFolder::open(&config.data_dir, config.cluster_name.as_deref())?;
        let files = DiskFiles::new(&folder.log_dir())
            .map_err(ReplicationError::io(folder.log_dir().display().to_string(), "create"))?;
        let log = NodeLog::open(Arc::new(files), config.log.clone(), Arc::clone(&clock), registry)?;
        let stored = StoreConfig { log: Some(Arc::clone(&log)), ..config.store.clone() };
        let store = Store::open(&folder.store_dir(), stored, registry)?;
        let raft = runtime("raft", 1)?;
        let data = runtime("shards", 2)?;
        let known = folder.identity();
        let node = known.node;
        let cluster_id = match known.standing {
            Standing::Member { cluster_id, .. } => cluster_id,
            Standing::Empty | Standing::Forming(_) => 0,
        };
        let security = peer_security(&peering, &known.cluster_name)?;
        let identity = rpc::Identity { cluster_name: known.cluster_name, cluster_id, node };
        let identity: rpc::Me = Arc::new(ArcSwap::from_pointee(identity));
        let runtimes = rpc::Runtimes { raft: raft.handle().clone(), data: data.handle().clone() };
        let wire = rpc::Metrics::new(registry);
        let peers = rpc::Peers::new(
            Arc::clone(&identity),
            security.clone(),
            rpc::PeersConfig::default(),
            runtimes.clone(),
            wire.clone(),
        );
        let ground = Ground {
            log,
            pool: ApplyPool::start(config.apply_threads)?,
            peers,
            spaceless: Arc::default(),
            raft: raft.handle().clone(),
            data: data.handle().clone(),
            metrics: Arc::new(Metrics::new(registry)),
        };
        let parts =
            Parts { config, folder, store, clock, ground, identity, address: peering.advertise.clone() };
        let inner = Inner::new(parts)?;
        let fragments = Arc::new(Fragments::default());
        let serving = rpc::serve(
            peering.listener,
            Arc::new(Answerer::new(&inner, Arc::clone(&fragments))),
            Arc::clone(&inner.identity),
            security,
            rpc::ServeConfig {
                snapshot_bytes_per_second: peering.snapshot_bytes_per_second,
                ..rpc::ServeConfig::default()
            },
            runtimes,
            wire,
        );
        membership::start(&inner);
        let upkeep = Upkeep::start(&inner, data.handle())?;
        Ok(Arc::new(Self {
            inner,
            upkeep: Arc::new(upkeep),
            runtimes: Mutex::new(Some((raft, data))),
            serving: Mutex::new(Some(serving)),
            fragments,
        }))
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.inner.folder.identity()
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// This node's name in a cluster that has other members, too; none while it is alone or in no cluster.
    pub fn name_among_others(&self) -> Option<String> {
        let cluster = self.inner.cluster.load_full()?;
        let own = cluster.members.get(&self.inner.node)?;
        (cluster.members.len() > 1).then(|| own.name.clone())
    }

    /// The shard map, kept current.
    pub fn shard_map(&self) -> Arc<ArcSwap<ShardMap>> {
        Arc::clone(&self.inner.map)
    }

    /// Whether this node belongs to a cluster and all its replicas are caught up: what a start waits for.
    pub fn caught_up(&self) -> bool {
        self.progress().is_ready()
    }

    /// Why this node, once it has started, is not as good as others: its log has failed, or a replica here is behind its
    /// leader for more than ten seconds. What `/-/ready` asks of a node that has started.
    pub fn unready(&self) -> Option<String> {
        crate::ready::unready(&self.inner)
    }

    /// Waits until [`Replication::caught_up`] or a group failed to start, at most `limit`.
    pub async fn wait_caught_up(&self, limit: Duration) -> bool {
        let mut changed = self.inner.changed.subscribe();
        let wait = async {
            loop {
                let progress = self.progress();
                if progress.is_ready() || !progress.failed.is_empty() {
                    return;
                }
                // A replica that is behind again catches up without a change here.
                let again = tokio::time::timeout(Duration::from_millis(200), changed.changed()).await;
                if matches!(again, Ok(Err(_))) {
                    return;
                }
            }
        };
        // The answer below says how it ended.
        let _ = tokio::time::timeout(limit, wait).await;
        self.caught_up()
    }

    /// How far starting is.
    pub fn progress(&self) -> Progress {
        self.inner.progress()
    }

    /// Takes note that this node's flags now say that samples are kept for so long, ms (0 = for ever). It takes effect
    /// once all nodes' flags say so.
    pub fn set_retention(&self, retention_ms: i64) {
        self.inner.own.lock().insert("retention".to_owned(), model::time::format_duration(retention_ms));
        self.inner.membership.announce_again();
    }

    /// How long samples are kept as the cluster's settings say, ms (0 = for ever); before they are known, as this node's
    /// flags do.
    pub fn retention_ms(&self) -> i64 {
        self.inner.retention_ms()
    }

    /// Waits until [`Self::retention_ms`] is not `known` any more; gives it. Never ends when the node stops meanwhile.
    pub async fn retention_after(&self, known: i64) -> i64 {
        let mut changed = self.inner.changed.subscribe();
        loop {
            let now = self.inner.retention_ms();
            if now != known {
                return now;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Deletes the samples in `range` of series of `tenant` that match one of `selectors`, in all shards, wherever their
    /// leaders are. After a failure some shards may have deleted; a retry is harmless.
    pub async fn delete_series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<(), Failure> {
        let what = Deletion { tenant: tenant.clone(), selectors: selectors.to_vec(), range };
        for shard in self.inner.map.load().all_shards() {
            ask_leader(&self.inner, shard, &Ask::Delete { shard, what: what.clone() }).await?;
        }
        Ok(())
    }

    /// Frees the space of deleted samples of the shards on this node: flushes, writes pages anew, compacts. The other
    /// replicas do so by themselves from time to time, see `upkeep`.
    pub async fn clean_deleted(&self) -> Result<(), Failure> {
        let inner = Arc::clone(&self.inner);
        let cleaned = tokio::task::spawn_blocking(move || {
            inner.flush_all()?;
            for (id, handle) in inner.ready_shards() {
                let done = handle.shard.clean_deleted()?;
                if done.left > 0 {
                    let what = format!("shard {id}: {} pages may still hold deleted samples", done.left);
                    return Err(Failure::internal(what));
                }
            }
            Ok(())
        });
        cleaned.await.unwrap_or_else(|error| Err(Failure::internal(error.to_string())))
    }

    /// Flushes all shards and the meta group to the database, and purges the log.
    pub async fn flush(&self) -> Result<(), Failure> {
        let inner = Arc::clone(&self.inner);
        let flushed = tokio::task::spawn_blocking(move || inner.flush_all());
        flushed.await.unwrap_or_else(|error| Err(Failure::internal(error.to_string())))
    }

    /// Index and rolling state hash of each ready shard.
    pub fn state_hashes(&self) -> Vec<(ShardId, u64, u64)> {
        let shards = self.inner.shards.read();
        let ready = shards.iter().filter_map(|(id, local)| match local {
            Local::Ready(handle) => {
                let (index, hash) = handle.shard.state_hash();
                Some((*id, index.0, hash))
            }
            Local::Starting | Local::Failed(_) => None,
        });
        ready.collect()
    }

    /// Stops in order: no more writes, what is in flight is answered, everything is flushed to the database, the log
    /// is closed. Idempotent.
    pub async fn shutdown(&self) -> Result<(), Failure> {
        if self.inner.stopping.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // Writes that are stuck are told by the stop of their group.
        let _ = tokio::time::timeout(self.inner.config.leader_wait, self.inner.waiting.drained()).await;
        crate::tend::hand_over_all(&self.inner).await;
        self.stop_upkeep().await;
        let result = self.flush().await;
        self.stop_groups().await;
        let closed = self.inner.log.close().map_err(|error| Failure::internal(error.to_string()));
        result.and(closed)
    }

    async fn stop_upkeep(&self) {
        let upkeep = Arc::clone(&self.upkeep);
        // Joins threads that may be in the middle of a flush; their panics are told there.
        let _ = tokio::task::spawn_blocking(move || upkeep.stop()).await;
    }

    /// Has `runner` evaluate the fragments that other nodes send, until the node stops. Before that they are told to
    /// ask elsewhere or again.
    pub fn answer_fragments(&self, runner: Arc<dyn FragmentRunner>) {
        *self.fragments.write() = Some(runner);
    }

    async fn stop_groups(&self) {
        // Nobody is answered any more, as after a kill.
        drop(self.serving.lock().take());
        // The runner reads through this node, and would keep it for ever.
        drop(self.fragments.write().take());
        let groups: Vec<Arc<Group>> = self.inner.groups.write().drain().map(|(_, group)| group).collect();
        futures::future::join_all(groups.iter().map(|group| group.stop())).await;
        let pool = Arc::clone(&self.inner.ground.pool);
        // A blocking join of threads that only finish what they have.
        let _ = tokio::task::spawn_blocking(move || pool.stop()).await;
        let runtimes = self.runtimes.lock().take();
        if let Some((raft, data)) = runtimes {
            // Waits until their tasks are gone, and with them the last handles of the database and the log: whoever
            // opens the folder next, also in this process, finds it free.
            let ended = tokio::task::spawn_blocking(move || {
                raft.shutdown_timeout(Duration::from_secs(5));
                data.shutdown_timeout(Duration::from_secs(5));
            });
            if ended.await.is_err() {
                tracing::error!("ending the runtimes of the groups panicked");
            }
        }
    }

    /// Stops without flushing or closing anything, as a kill would. For tests.
    pub async fn abandon(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.inner.log.abandon();
        self.stop_upkeep().await;
        self.stop_groups().await;
    }

    /// Makes a data folder with a damaged node log usable: groups go on from what storage holds durably and what is
    /// whole in the log above it. Not while a node runs on it. Returns what was given up, a line a group.
    pub fn salvage(config: &ReplicationConfig) -> Result<Vec<SalvageLine>, ReplicationError> {
        salvage::salvage(config)
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        self.upkeep.stop();
        if let Some((raft, data)) = self.runtimes.lock().take() {
            raft.shutdown_background();
            data.shutdown_background();
        }
        self.inner.ground.pool.stop();
    }
}

impl Progress {
    /// Whether everything is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.waits_for.is_empty() && self.ready == self.groups
    }
}

pub(crate) mod salvage;
pub(crate) mod snapshot;

fn peer_security(peering: &Peering, cluster_name: &str) -> Result<rpc::Security, ReplicationError> {
    let secret = match &peering.secret {
        Some(text) => rpc::Secret::new(text)?,
        None => rpc::Secret::none(),
    };
    let tls = peering
        .tls
        .clone()
        .map(|PeerTls { cert, key, ca }| rpc::Tls::load(rpc::TlsFiles { cert, key, ca }, cluster_name));
    Ok(rpc::Security { secret, tls: tls.transpose()? })
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, ReplicationError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(ReplicationError::io(name, "start the runtime of"))
}

/// Starts this node's replica of a shard, after its turn, and has it serve; `founders` as in [`Group::start`].
pub(crate) async fn start_shard(
    inner: &Arc<Inner>,
    shard: ShardId,
    replica: ReplicaId,
    founders: Option<Founders>,
) -> Result<(), ReplicationError> {
    let (group, opened) = start_replica(inner, shard, replica, founders).await?;
    match inner.quarantine.reason(replica.0) {
        None => serve(inner, shard, group, opened).await,
        Some(reason) => {
            inner.set(shard, Local::Failed(reason));
            drop((group, opened));
            quarantine::cure(inner, shard, replica).await;
            Ok(())
        }
    }
}

/// Starts a replica that serves nothing yet.
pub(crate) async fn start_replica(
    inner: &Arc<Inner>,
    shard: ShardId,
    replica: ReplicaId,
    founders: Option<Founders>,
) -> Result<(Arc<Group>, Arc<Shard>), ReplicationError> {
    let name = format!("shard {shard}");
    let failed = |reason: &dyn std::fmt::Display| ReplicationError::group(&name, reason);
    // Closed never: the semaphore lives as long as the node.
    let turn = inner.turns.acquire().await.map_err(|error| failed(&error))?;
    let (store, finishing) = (Arc::clone(&inner.store), Arc::clone(inner));
    let opened = inner.ground.pool.aside(move || {
        // State that was fetched and not taken over before the last stop comes first.
        catch_up::finish(&finishing, storage::Subject::Shard(shard), replica)?;
        store.shard(shard, replica).map_err(ReplicationError::from)
    });
    let opened = opened.await.map_err(|error| failed(&error))??;
    let target = Target::Shard(Arc::clone(&opened));
    let group = Group::start(&inner.ground, name.clone(), GroupId(replica.0), target, founders).await?;
    if let Some(reason) = inner.quarantine.reason(replica.0) {
        group.raft().runtime_config().elect(false);
        opened.withhold(Some(reason));
    }
    inner.groups.write().insert(replica.0, Arc::clone(&group));
    drop(turn);
    Ok((group, opened))
}

/// Has a replica serve, once it has caught up.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    shard: ShardId,
    group: Arc<Group>,
    opened: Arc<Shard>,
) -> Result<(), ReplicationError> {
    // It takes as long as it takes: an election without a majority, or history to be fetched.
    let caught_up = group.wait_caught_up().await;
    caught_up.map_err(|error| ReplicationError::group(group.name.clone(), error))?;
    let (waiting, clock) = (Arc::clone(&inner.waiting), Arc::clone(&inner.clock));
    let data = &inner.ground.data;
    let handle = ShardHandle::start(shard, group, opened, &inner.config, waiting, clock, data);
    inner.set(shard, Local::Ready(handle));
    Ok(())
}

/// What a node is put together from.
pub(crate) struct Parts {
    pub(crate) config: ReplicationConfig,
    pub(crate) folder: DataFolder,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ground: Ground,
    pub(crate) identity: rpc::Me,
    /// Where others reach it.
    pub(crate) address: String,
}

impl Inner {
    /// A node on which nothing runs yet.
    pub(crate) fn new(parts: Parts) -> Result<Arc<Self>, ReplicationError> {
        let Parts { config, folder, store, clock, ground, identity, address } = parts;
        let node = folder.identity().node;
        let own = membership::own_settings(&config);
        let name = match &config.node_name {
            name if name.is_empty() => format!("{:016x}", node.0),
            name => name.clone(),
        };
        let me = Candidate { node, name, zone: config.zone.clone(), address, own: own.clone() };
        if !me.is_plain() {
            let reason = "the node's name, zone or advertised address is longer than 255 bytes or holds control characters";
            return Err(ReplicationError::Meta(reason.to_owned()));
        }
        let unknown = ShardMap::new(
            Epoch(0),
            topology::shard_map::SCHEME,
            ShardMap::initial(config.shards).versions().to_vec(),
        );
        let unknown = unknown.map_err(|error| ReplicationError::Meta(error.to_string()))?;
        let metrics = Arc::clone(&ground.metrics);
        let quarantine = Quarantine::open(folder.dir().join("quarantine"))?;
        metrics.quarantined.set(quarantine.len() as i64);
        Ok(Arc::new(Self {
            membership: membership::State::new(me.clone(), &config),
            own: Mutex::new(own),
            node,
            me,
            identity,
            peers: Arc::clone(&ground.peers),
            waiting: Waiting::new(config.max_waiting_bytes, Arc::clone(&metrics)),
            guard: DiskGuard::new(&config, Arc::clone(&metrics)),
            behind: crate::ready::Behind::default(),
            config,
            folder,
            store,
            log: Arc::clone(&ground.log),
            clock,
            metrics,
            ground,
            meta: ArcSwapOption::empty(),
            cluster: ArcSwapOption::empty(),
            groups: RwLock::default(),
            shards: RwLock::default(),
            waits_for: Mutex::new("starting".to_owned()),
            changed: watch::channel(0).0,
            map: Arc::new(ArcSwap::from_pointee(unknown)),
            stopping: AtomicBool::new(false),
            turns: Semaphore::new(REPLAYS),
            router: Router::default(),
            heard: Heard::default(),
            differing: Differing::default(),
            quarantine,
            snapshotting: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) fn set(&self, shard: ShardId, local: Local) {
        self.shards.write().insert(shard, local);
        self.note_change();
    }

    /// Wakes those who wait for the node's groups.
    pub(crate) fn note_change(&self) {
        let progress = self.progress();
        self.metrics.ready_groups.set(i64::try_from(progress.ready).unwrap_or(i64::MAX));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Whether a replica leads, or has caught up with a leader that it hears: one that has no vote never notices by itself
    /// that nobody leads it any more.
    pub(crate) fn is_caught_up(&self, group: &Group) -> bool {
        let heard = || self.heard.last(group.id.0).is_some_and(|(at, _)| at.elapsed() < SILENCE);
        group.caught_up() && (group.leading().is_some() || heard())
    }

    /// How long samples are kept, ms; 0 = for ever.
    pub(crate) fn retention_ms(&self) -> i64 {
        let cluster = self.cluster.load();
        cluster.as_ref().and_then(|c| c.settings.retention_ms()).unwrap_or(self.config.retention_ms)
    }

    pub(crate) fn progress(&self) -> Progress {
        let shards = self.shards.read();
        let mut progress = Progress {
            groups: shards.len() + 1,
            waits_for: self.waits_for.lock().clone(),
            ..Progress::default()
        };
        if let Some(error) = self.log.failure() {
            progress.failed.push(("node log".to_owned(), error.to_string()));
            return progress;
        }
        if let Some(reason) = self.membership.failure() {
            progress.failed.push(("meta group".to_owned(), reason));
        }
        if let Some(meta) = self.meta.load().as_ref() {
            match meta.broken() {
                Some(reason) => progress.failed.push(("meta group".to_owned(), reason)),
                None => progress.ready += usize::from(self.is_caught_up(meta)),
            }
        }
        for (id, local) in &*shards {
            match local {
                Local::Starting => {}
                Local::Ready(handle) => match handle.group.broken() {
                    Some(reason) => progress.failed.push((format!("shard {id}"), reason)),
                    None => {
                        progress.ready += usize::from(self.is_caught_up(&handle.group));
                        progress.entries_left += handle.group.replay_left();
                    }
                },
                Local::Failed(reason) => progress.failed.push((format!("shard {id}"), reason.clone())),
            }
        }
        progress
    }

    /// The shard, waiting a bounded time while it starts.
    pub(crate) async fn ready(&self, shard: ShardId) -> Result<Arc<ShardHandle>, Failure> {
        let look = || match self.shards.read().get(&shard) {
            None if self.cluster.load().is_none() => None,
            None => {
                Some(Err(Failure::new(model::Code::WrongOwner, format!("shard {shard} is not on this node"))))
            }
            Some(Local::Ready(handle)) => Some(Ok(Arc::clone(handle))),
            Some(Local::Failed(reason)) => Some(Err(Failure::new(
                model::Code::Unavailable,
                format!("shard {shard} is not available: {reason}"),
            ))),
            Some(Local::Starting) => None,
        };
        if let Some(found) = look() {
            return found;
        }
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                if changed.changed().await.is_err() {
                    return Err(Failure::unavailable("the node is stopping", RETRY));
                }
            }
        };
        let late = || {
            let reason = match &*self.waits_for.lock() {
                waits if waits.is_empty() => format!("shard {shard} is still catching up"),
                waits => format!("this node does not belong to a cluster yet: {waits}"),
            };
            Err(Failure::unavailable(reason, RETRY))
        };
        tokio::time::timeout(self.config.leader_wait, wait).await.unwrap_or_else(|_| late())
    }

    /// The meta group.
    pub(crate) fn meta_group(&self) -> Result<Arc<Group>, Failure> {
        let waits = || Failure::unavailable("this node does not belong to a cluster yet", RETRY);
        self.meta.load_full().ok_or_else(waits)
    }

    /// Proposes a meta command as the meta group's leader; whether its conditions held.
    pub(crate) async fn lead_command(&self, command: Vec<u8>) -> Result<bool, LeadError> {
        let meta = self.meta_group().map_err(LeadError::Failed)?;
        let term = meta.wait_leading(self.config.leader_wait).await?;
        match meta.propose(command.into(), term).await? {
            Applied::Meta(held) => Ok(held),
            other => {
                let what = format!("applying a meta command gave {other:?}");
                Err(LeadError::Failed(Failure::internal(what)))
            }
        }
    }

    /// The shards that are ready.
    pub(crate) fn ready_shards(&self) -> Vec<(ShardId, Arc<ShardHandle>)> {
        let shards = self.shards.read();
        let ready = shards.iter().filter_map(|(id, local)| match local {
            Local::Ready(handle) => Some((*id, Arc::clone(handle))),
            Local::Starting | Local::Failed(_) => None,
        });
        ready.collect()
    }
}

impl ShardWriter for Replication {
    fn write(
        &self,
        shard: ShardId,
        batch: Arc<ShardBatch>,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>> {
        Box::pin(async move { self.inner.route_write(shard, batch).await })
    }
}

impl ShardReader for Replication {
    fn shards(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<ShardId> {
        self.inner.map.load().candidates(tenant, matchers, range)
    }

    fn snapshot(
        &self,
        shard: ShardId,
        level: ReadLevel,
    ) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>> {
        Box::pin(async move { self.inner.route_read(shard, level).await })
    }

    fn overlapping(&self, range: TimeRange) -> bool {
        let map = self.inner.map.load();
        // Versions ascend, and each holds until the next one begins.
        map.version_at(range.after.saturating_add(1)).0 != map.version_at(range.until).0
    }

    fn epoch(&self) -> Epoch {
        self.inner.map.load().epoch()
    }

    fn placement(&self, shards: &[ShardId]) -> Vec<(Option<NodeId>, Vec<ShardId>)> {
        self.inner.places(shards)
    }

    fn fragment(&self, node: NodeId, fragment: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        Box::pin(self.inner.route_fragment(node, fragment))
    }
}

impl StorageView for Replication {
    fn status(&self, tenant: Option<&TenantId>, limit: usize) -> StorageStatus {
        self.inner.store.status(tenant, limit)
    }

    fn delete_series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(Self::delete_series(self, tenant, selectors, range))
    }

    fn clean_deleted(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(Self::clean_deleted(self))
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<String, Failure>> {
        Box::pin(self.take_snapshot())
    }
}

/// Replicas of this node by group id, for messages.
pub(crate) fn group_names(
    cluster: Option<&Cluster>,
    node: NodeId,
    meta_replica: Option<u64>,
) -> HashMap<u64, String> {
    let meta = meta_replica.map(|replica| (replica, "meta group".to_owned()));
    let shards = cluster.map(|cluster| cluster.replicas_on(node)).unwrap_or_default();
    let shards = shards.into_iter().map(|(shard, replica, _)| (replica.0, format!("shard {shard}")));
    meta.into_iter().chain(shards).collect()
}
