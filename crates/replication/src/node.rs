//! This node's replicas: starting them, answering the seams, stopping them in order.
//!
//! The meta group starts first, since it knows the shard map and which replicas are here; shards follow in the
//! background, a few at a time, and each answers as soon as it is ready.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use model::seam::{
    BoxFuture, Clock, ReadLevel, SeriesSource, ShardBatch, ShardReader, ShardReport, ShardWriteError,
    ShardWriter, StorageStatus, StorageView,
};
use model::{Failure, Matcher, NodeId, ReplicaId, ShardId, TenantId, TimeRange};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use storage::Store;
use storage::log::{DiskFiles, GroupId, NodeLog};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use topology::ShardMap;

use crate::ReplicationError;
use crate::apply::ApplyPool;
use crate::config::ReplicationConfig;
use crate::folder::{DataFolder, Identity};
use crate::group::{Ground, Group, RETRY};
use crate::machine::Target;
use crate::meta::{self, Cluster, Command};
use crate::metrics::Metrics;
use crate::shard::{ShardHandle, Waiting};
use crate::types::{Applied, Peer};
use crate::upkeep::{DiskGuard, Upkeep};

/// Groups that replay at the same time.
const REPLAYS: usize = 3;

/// How far starting is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Groups of this node.
    pub groups: usize,
    /// Those that lead or follow, and have replayed.
    pub ready: usize,
    /// Log entries still to be replayed in groups that have started.
    pub entries_left: u64,
    /// Groups that cannot start, and why.
    pub failed: Vec<(String, String)>,
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
    /// Replaying, or waiting for its turn to.
    Starting,
    /// It takes reads and writes.
    Ready(Arc<ShardHandle>),
    /// It cannot start.
    Failed(String),
}

/// What is shared with tasks and upkeep.
pub(crate) struct Inner {
    pub(crate) config: ReplicationConfig,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<NodeLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) meta: Arc<Group>,
    pub(crate) shards: RwLock<BTreeMap<ShardId, Local>>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) guard: Arc<DiskGuard>,
    pub(crate) retention_ms: std::sync::atomic::AtomicI64,
    changed: watch::Sender<u64>,
    map: Arc<ArcSwap<ShardMap>>,
    pub(crate) stopping: AtomicBool,
}

/// This node's replicas.
pub struct Replication {
    inner: Arc<Inner>,
    upkeep: Arc<Upkeep>,
    pool: Arc<ApplyPool>,
    runtimes: parking_lot::Mutex<Option<(Runtime, Runtime)>>,
    identity: Identity,
    _folder: Option<DataFolder>,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replication({})", self.identity.cluster_name)
    }
}

impl Replication {
    /// Opens the data folder of `config` with its log and database, and starts everything in it; forms a cluster of
    /// one in an empty folder. Returns when the shard map is known; shards get ready in the background (see
    /// [`Replication::caught_up`]). The folder stays locked until the value is dropped.
    pub async fn open(
        config: ReplicationConfig,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, ReplicationError> {
        let folder = DataFolder::open(&config.data_dir, config.cluster_name.as_deref())?;
        let store = Store::open(&folder.store_dir(), config.store.clone(), registry)?;
        let files = DiskFiles::new(&folder.log_dir())
            .map_err(ReplicationError::io(folder.log_dir().display().to_string(), "create"))?;
        let log = NodeLog::open(Arc::new(files), config.log.clone(), Arc::clone(&clock), registry)?;
        let identity = folder.identity().clone();
        Self::start(config, identity, Some(folder), store, log, clock, registry).await
    }

    /// [`Replication::open`] over parts that the caller opened (tests, with faulty files). `folder` is kept locked.
    pub async fn start(
        config: ReplicationConfig,
        identity: Identity,
        folder: Option<DataFolder>,
        store: Arc<Store>,
        log: Arc<NodeLog>,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, ReplicationError> {
        let metrics = Arc::new(Metrics::new(registry));
        let raft = runtime("raft", 1)?;
        let data = runtime("shards", 2)?;
        let pool = ApplyPool::start(config.apply_threads)?;
        let ground = Ground {
            node: identity.node.0,
            log: Arc::clone(&log),
            pool: Arc::clone(&pool),
            raft: raft.handle().clone(),
            data: data.handle().clone(),
            metrics: Arc::clone(&metrics),
        };
        let meta = start_meta(&ground, &identity, &store).await?;
        let cluster = form_or_read(&config, &identity, &store, &meta).await?;
        let waiting = Waiting::new(config.max_waiting_bytes, Arc::clone(&metrics));
        let guard = DiskGuard::new(&config, Arc::clone(&metrics));
        let shards = cluster.replicas.iter().map(|(shard, _)| (*shard, Local::Starting)).collect();
        let inner = Arc::new(Inner {
            retention_ms: config.retention_ms.into(),
            config,
            store,
            log,
            clock,
            metrics,
            meta,
            shards: RwLock::new(shards),
            waiting,
            guard,
            changed: watch::channel(0).0,
            map: Arc::new(ArcSwap::from_pointee(cluster.map.clone())),
            stopping: AtomicBool::new(false),
        });
        start_shards(&inner, &ground, &cluster);
        let upkeep = Upkeep::start(&inner, data.handle())?;
        Ok(Arc::new(Self {
            inner,
            upkeep: Arc::new(upkeep),
            pool,
            runtimes: parking_lot::Mutex::new(Some((raft, data))),
            identity,
            _folder: folder,
        }))
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.identity.node
    }

    /// The shard map, kept current.
    pub fn shard_map(&self) -> Arc<ArcSwap<ShardMap>> {
        Arc::clone(&self.inner.map)
    }

    /// Whether all groups of this node have a leader and have replayed: what `/-/ready` asks.
    pub fn caught_up(&self) -> bool {
        let progress = self.progress();
        progress.ready == progress.groups
    }

    /// Waits until [`Replication::caught_up`] or a group failed to start, at most `limit`.
    pub async fn wait_caught_up(&self, limit: Duration) -> bool {
        let mut changed = self.inner.changed.subscribe();
        let wait = async {
            loop {
                let progress = self.progress();
                if progress.ready == progress.groups || !progress.failed.is_empty() {
                    return;
                }
                if changed.changed().await.is_err() {
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

    /// Changes how long samples are kept, ms (0 = for ever).
    pub fn set_retention(&self, retention_ms: i64) {
        self.inner.retention_ms.store(retention_ms, Ordering::Relaxed);
    }

    /// The settings document of the cluster, when one was stored.
    pub fn settings(&self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.inner.store.meta().get(meta::SETTINGS)?)
    }

    /// Replaces the settings document if it still is `old`; whether it was.
    pub async fn set_settings(&self, old: Option<Vec<u8>>, new: Vec<u8>) -> Result<bool, Failure> {
        let writes = vec![storage::MetaWrite::Put { key: meta::SETTINGS.to_vec(), value: new }];
        let command = Command { expect: vec![(meta::SETTINGS.to_vec(), old)], writes };
        self.inner.command(&command).await
    }

    /// Deletes the samples in `range` of series of `tenant` that match one of `selectors`, in all shards of this node.
    pub async fn delete_series(
        &self,
        tenant: &TenantId,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<(), Failure> {
        for shard in self.inner.map.load().all_shards() {
            let handle = self.inner.ready(shard).await?;
            let term = handle.group.wait_leading(self.inner.config.leader_wait).await?;
            let entry = handle.shard.plan_delete(tenant, selectors, range, self.inner.clock.now_ms())?;
            handle.propose(term, entry).await?;
        }
        Ok(())
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

    async fn stop_groups(&self) {
        let shards: Vec<Local> = self.inner.shards.read().values().cloned().collect();
        for local in shards {
            if let Local::Ready(handle) = local {
                handle.group.stop().await;
            }
        }
        self.inner.meta.stop().await;
        let pool = Arc::clone(&self.pool);
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
        self.pool.stop();
    }
}

pub(crate) mod salvage;

fn runtime(name: &'static str, threads: usize) -> Result<Runtime, ReplicationError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(ReplicationError::io(name, "start the runtime of"))
}

async fn start_meta(
    ground: &Ground,
    identity: &Identity,
    store: &Arc<Store>,
) -> Result<Arc<Group>, ReplicationError> {
    let members = BTreeMap::from([(identity.meta_replica, Peer { node: identity.node.0 })]);
    let target = Target::Meta(Arc::clone(store));
    Group::start(ground, "meta group".into(), GroupId(identity.meta_replica), target, Some(members)).await
}

/// Reads the cluster's state, forming the cluster first where there is none.
async fn form_or_read(
    config: &ReplicationConfig,
    identity: &Identity,
    store: &Arc<Store>,
    meta: &Arc<Group>,
) -> Result<Cluster, ReplicationError> {
    let group = |failure: Failure| ReplicationError::group("meta group", failure);
    let term = meta.wait_leading(Duration::from_secs(30)).await.map_err(group)?;
    if let Some(cluster) = meta::read(store.meta(), identity.node)? {
        return Ok(cluster);
    }
    let command = meta::form(
        identity.cluster_id,
        &identity.cluster_name,
        identity.node,
        &config.node_name,
        identity.meta_replica,
        config.shards.max(1),
    );
    meta.propose(command.encode().into(), term).await.map_err(group)?;
    meta::read(store.meta(), identity.node)?
        .ok_or_else(|| ReplicationError::Meta("the cluster was formed and is not there".to_owned()))
}

/// Starts the shards in the background, a few at a time.
fn start_shards(inner: &Arc<Inner>, ground: &Ground, cluster: &Cluster) {
    let turns = Arc::new(Semaphore::new(REPLAYS));
    for &(shard, replica) in &cluster.replicas {
        let (inner, ground, turns) = (Arc::clone(inner), ground.clone(), Arc::clone(&turns));
        ground.data.clone().spawn(async move {
            let turn = turns.acquire().await;
            let local = match start_shard(&inner, &ground, shard, replica).await {
                Ok(handle) => Local::Ready(handle),
                Err(error) => {
                    tracing::error!(shard = shard.0, %error, "a shard cannot start");
                    Local::Failed(error.to_string())
                }
            };
            drop(turn);
            inner.set(shard, local);
        });
    }
}

async fn start_shard(
    inner: &Arc<Inner>,
    ground: &Ground,
    shard: ShardId,
    replica: ReplicaId,
) -> Result<Arc<ShardHandle>, ReplicationError> {
    let store = Arc::clone(&inner.store);
    let opened = tokio::task::spawn_blocking(move || store.shard(shard, replica)).await;
    let opened = opened.map_err(|error| ReplicationError::group(format!("shard {shard}"), error))??;
    let members = BTreeMap::from([(replica.0, Peer { node: ground.node })]);
    let target = Target::Shard(Arc::clone(&opened));
    let group =
        Group::start(ground, format!("shard {shard}"), GroupId(replica.0), target, Some(members)).await?;
    // Ready means: somebody leads, and everything committed before is applied.
    group
        .wait_leading(Duration::from_secs(600))
        .await
        .map_err(|f| ReplicationError::group(format!("shard {shard}"), f))?;
    let waiting = Arc::clone(&inner.waiting);
    let clock = Arc::clone(&inner.clock);
    Ok(ShardHandle::start(shard, group, opened, &inner.config, waiting, clock, &ground.data))
}

impl Inner {
    fn set(&self, shard: ShardId, local: Local) {
        self.shards.write().insert(shard, local);
        let progress = self.progress();
        self.metrics.ready_groups.set(i64::try_from(progress.ready).unwrap_or(i64::MAX));
        self.changed.send_modify(|n| *n += 1);
    }

    pub(crate) fn progress(&self) -> Progress {
        let shards = self.shards.read();
        let mut progress =
            Progress { groups: shards.len() + 1, ready: 0, entries_left: 0, failed: Vec::new() };
        if let Some(error) = self.log.failure() {
            progress.failed.push(("node log".to_owned(), error.to_string()));
            return progress;
        }
        if self.meta.leading().is_some() {
            progress.ready += 1;
        }
        for (id, local) in &*shards {
            match local {
                Local::Starting => {}
                Local::Ready(handle) => {
                    progress.ready += usize::from(handle.group.leading().is_some());
                    progress.entries_left += handle.group.replay_left();
                }
                Local::Failed(reason) => progress.failed.push((format!("shard {id}"), reason.clone())),
            }
        }
        progress
    }

    /// The shard, waiting a bounded time while it starts.
    pub(crate) async fn ready(&self, shard: ShardId) -> Result<Arc<ShardHandle>, Failure> {
        let look = || match self.shards.read().get(&shard) {
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
        let late = || Err(Failure::unavailable(format!("shard {shard} is still replaying its log"), RETRY));
        tokio::time::timeout(self.config.leader_wait, wait).await.unwrap_or_else(|_| late())
    }

    /// Carries out a meta command; whether its conditions held.
    pub(crate) async fn command(&self, command: &Command) -> Result<bool, Failure> {
        let term = self.meta.wait_leading(self.config.leader_wait).await?;
        match self.meta.propose(command.encode().into(), term).await? {
            Applied::Meta(held) => Ok(held),
            other => Err(Failure::internal(format!("applying a meta command gave {other:?}"))),
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
        Box::pin(async move {
            if self.inner.stopping.load(Ordering::Relaxed) {
                let failure = Failure::unavailable("the node is stopping", RETRY);
                return Err(ShardWriteError::Failed(failure));
            }
            if let Some(error) = self.inner.log.failure() {
                // Nothing can be stored until somebody has seen to the disk: say so at once.
                return Err(ShardWriteError::Failed(Failure::unavailable(error.to_string(), RETRY)));
            }
            self.inner.guard.check().map_err(ShardWriteError::Failed)?;
            let handle = self.inner.ready(shard).await.map_err(ShardWriteError::Failed)?;
            handle.write(batch).await
        })
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
        Box::pin(async move {
            let handle = self.inner.ready(shard).await?;
            // A leader's state is as new as any replica's; whoever does not lead has to ask.
            let fresh = matches!(level, ReadLevel::MaxStaleness(_)) && handle.group.leading().is_some();
            if !fresh {
                // Just after a start or an election the leader may not be known yet: that is waited for, not answered.
                let probe = async {
                    handle.group.wait_leading(self.inner.config.leader_wait).await?;
                    handle.group.linearize().await
                };
                let late = || Failure::unavailable(format!("shard {shard} has no leader just now"), RETRY);
                tokio::time::timeout(self.inner.config.leader_wait, probe).await.map_err(|_| late())??;
            }
            Ok(handle.shard.reader())
        })
    }

    fn overlapping(&self, range: TimeRange) -> bool {
        let map = self.inner.map.load();
        // Versions ascend, and each holds until the next one begins.
        map.version_at(range.after.saturating_add(1)).0 != map.version_at(range.until).0
    }
}

impl StorageView for Replication {
    fn status(&self, limit: usize) -> StorageStatus {
        self.inner.store.status(limit)
    }
}

/// Replicas of this node by group id, for messages.
pub(crate) fn group_names(cluster: Option<&Cluster>, meta_replica: u64) -> HashMap<u64, String> {
    let mut names = HashMap::from([(meta_replica, "meta group".to_owned())]);
    for (shard, replica) in cluster.map(|cluster| cluster.replicas.as_slice()).unwrap_or_default() {
        names.insert(replica.0, format!("shard {shard}"));
    }
    names
}
