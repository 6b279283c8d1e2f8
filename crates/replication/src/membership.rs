//! Belonging to a cluster: forming it, joining it, and following what its meta state says.
//!
//! ```text
//! empty ── sees as many as expected, lowest id ──► forming ── all agreed ──► meta group starts ──► member
//!   │  └── is asked to agree ────────────────────► forming ── hears the leader ─────────────────► member
//!   └───── sees a member, is let in ────────────────────────────────────────────────────────────► member
//! ```
//!
//! What was agreed is on disk before anybody is told. An agreement is given up only by the node that asked for it, and
//! only before it has formed; who agreed asks that node whether it still stands. A member follows the meta state: who
//! the others are and where, the shard map, and which replicas are here. What is decided stands in `forming`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use model::{Failure, NodeId, ReplicaId, ShardId};
use parking_lot::Mutex;
use rpc::{Identity as PeerIdentity, PeerError};
use storage::log::GroupId;
use tokio::sync::Notify;

use crate::ReplicationError;
use crate::catch_up;
use crate::config::ReplicationConfig;
use crate::folder::{Agreement, Standing, random};
use crate::forming::{Forming, Step, may_agree};
use crate::group::{Founders, Group, LeadError, RETRY};
use crate::machine::{Target, wait_for_space};
use crate::members::Candidate;
use crate::meta::{self, Cluster, Command, Founding};
use crate::node::{Inner, Local, start_shard};
use crate::settings::ClusterSettings;
use crate::talk::{Ask, Hello, Reply, Stand};
use crate::types::Peer;
use crate::{compare, reach, rest, tend};

/// Pause between two looks for other nodes.
const LOOK: Duration = Duration::from_millis(300);
/// How long an answer about the cluster may take.
const ANSWER: Duration = Duration::from_secs(2);
/// The same for what has to be committed first.
const COMMITTED_ANSWER: Duration = Duration::from_secs(10);
/// Addresses of nodes that are remembered while looking for a cluster.
const KNOWN: usize = 64;

/// What this node knows while it looks for its cluster.
pub(crate) struct State {
    forming: Mutex<Forming>,
    /// Addresses at which somebody was heard of.
    known: Mutex<BTreeSet<String>>,
    /// Addresses that members told of themselves, until the meta state says the same.
    moved: Mutex<HashMap<NodeId, String>>,
    /// Held while the standing changes.
    standing: tokio::sync::Mutex<()>,
    changed: Notify,
    announce: Notify,
    failure: Mutex<Option<String>>,
}

impl State {
    pub(crate) fn new(me: Candidate, config: &ReplicationConfig) -> Self {
        let forming = Forming::new(me, config.bootstrap_expect, !config.join.is_empty());
        Self {
            forming: Mutex::new(forming),
            known: Mutex::default(),
            moved: Mutex::default(),
            standing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            announce: Notify::new(),
            failure: Mutex::default(),
        }
    }

    /// Has what this node says of itself told to the cluster again.
    pub(crate) fn announce_again(&self) {
        self.announce.notify_one();
    }

    /// Why this node cannot belong to its cluster, if it cannot.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}

/// What this node's flags say of the settings that must agree.
pub(crate) fn own_settings(config: &ReplicationConfig) -> BTreeMap<String, String> {
    BTreeMap::from([("retention".to_owned(), model::time::format_duration(config.retention_ms))])
}

/// Finds, forms or joins the cluster in the background, and follows it.
pub(crate) fn start(inner: &Arc<Inner>) {
    let inner = Arc::clone(inner);
    inner.ground.data.clone().spawn(async move {
        if let Err(error) = run(&inner).await {
            tracing::error!(%error, "this node cannot belong to a cluster");
            *inner.membership.failure.lock() = Some(error.to_string());
            inner.note_change();
        }
    });
}

async fn run(inner: &Arc<Inner>) -> Result<(), ReplicationError> {
    loop {
        match inner.folder.identity().standing {
            Standing::Empty => look_around(inner).await?,
            Standing::Forming(agreement) if agreement.initiator == inner.node => {
                form(inner, &agreement).await?
            }
            Standing::Forming(agreement) => await_forming(inner, &agreement).await?,
            Standing::Member { cluster_id, meta_replica } => {
                inner.know_cluster(cluster_id);
                match start_meta(inner, meta_replica, None).await {
                    Err(error) if error.is_disk_full() => wait_for_space(meta_replica, &error).await,
                    started => {
                        started?;
                        break;
                    }
                }
            }
        }
        if inner.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    announce(inner).await;
    Ok(())
}

impl Inner {
    /// This node as it introduces itself.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate { own: self.own.lock().clone(), ..self.me.clone() }
    }

    fn hello(&self) -> Hello {
        let stand = match self.folder.identity().standing {
            Standing::Empty => Stand::Empty,
            Standing::Forming(agreement) => Stand::Forming { cluster_id: agreement.cluster_id },
            Standing::Member { cluster_id, .. } => Stand::Member { cluster_id },
        };
        let forming = self.membership.forming.lock();
        let mut known = forming.addresses();
        for node in self.peers.nodes() {
            known.extend(self.peers.address(node).map(|address| address.to_string()));
        }
        Hello {
            from: self.candidate(),
            stand,
            expect: self.config.bootstrap_expect as u64,
            view: forming.view().into_iter().collect(),
            known: known.into_iter().take(KNOWN).collect(),
        }
    }

    fn wait_for(&self, reason: String) {
        let mut waits_for = self.waits_for.lock();
        if *waits_for != reason {
            if !reason.is_empty() {
                tracing::info!(%reason, "not in a cluster yet");
            }
            *waits_for = reason;
            drop(waits_for);
            self.note_change();
        }
    }

    /// From now on peers of other clusters are refused.
    fn know_cluster(&self, cluster_id: u64) {
        let identity = self.folder.identity();
        let known = PeerIdentity { cluster_name: identity.cluster_name, cluster_id, node: identity.node };
        if **self.identity.load() != known {
            self.identity.store(Arc::new(known));
        }
    }

    /// Asks a member.
    pub(crate) async fn ask(&self, node: NodeId, ask: &Ask, limit: Duration) -> Result<Reply, Failure> {
        let answer = self.peers.meta(node, ask.encode().into(), limit).await?;
        Reply::decode(&answer)
            .ok_or_else(|| Failure::internal(format!("node {node} gave an answer that does not decode")))
    }

    /// Asks whoever is at `address`.
    async fn ask_at(&self, address: &str, ask: &Ask, limit: Duration) -> Result<Reply, PeerError> {
        let answer = self.peers.meta_at(address, ask.encode().into(), limit).await?;
        let garbled = || Failure::internal(format!("{address} gave an answer that does not decode"));
        Reply::decode(&answer).ok_or_else(|| PeerError::Failed(garbled()))
    }

    /// Carries a meta command out, wherever its leader is; whether its conditions held. After a failure it may still be
    /// carried out.
    pub(crate) async fn command(&self, command: &Command) -> Result<bool, Failure> {
        let bytes = command.encode();
        let deadline = tokio::time::Instant::now() + self.config.leader_wait * 2;
        loop {
            let failure = match self.lead_command(bytes.clone()).await {
                Ok(held) => return Ok(held),
                Err(LeadError::NotLeader(Some(node))) if node != self.node => {
                    match self.ask(node, &Ask::Command(bytes.clone()), COMMITTED_ANSWER).await {
                        Ok(Reply::Held(held)) => return Ok(held),
                        Ok(Reply::Refused(reason)) => return Err(Failure::unavailable(reason, RETRY)),
                        Ok(_) => Failure::unavailable("the meta group has no leader just now", RETRY),
                        Err(failure) => failure,
                    }
                }
                Err(error) => error.into(),
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The names to look for others under, as addresses.
    async fn join_addresses(&self) -> BTreeSet<String> {
        let mut addresses = BTreeSet::new();
        for entry in &self.config.join {
            let Some(name) = entry.strip_prefix("dns+") else {
                addresses.insert(entry.clone());
                continue;
            };
            match tokio::net::lookup_host(name).await {
                Ok(found) => addresses.extend(found.map(|address| address.to_string())),
                Err(error) => tracing::warn!(%name, %error, "cannot look up a name of --cluster.join"),
            }
        }
        addresses
    }

    /// Introduces this node to everybody it knows of, and takes their answers in. Gives reasons of those that refuse it, and
    /// why others were not spoken to: nodes of other clusters first.
    async fn greet(&self) -> (Vec<String>, Vec<String>) {
        let mut addresses = self.join_addresses().await;
        addresses.extend(self.membership.known.lock().iter().cloned());
        addresses.extend(self.membership.forming.lock().addresses());
        for node in self.peers.nodes() {
            addresses.extend(self.peers.address(node).map(|address| address.to_string()));
        }
        addresses.remove(&self.me.address);
        let hello = Ask::Hello(self.hello());
        let answers = addresses.iter().map(|address| self.ask_at(address, &hello, ANSWER));
        let (mut refusals, mut unspoken) = (Vec::new(), Vec::new());
        for (address, answer) in addresses.iter().zip(join_all(answers).await) {
            match answer {
                Ok(Reply::Hello(hello)) => self.meet(hello, address),
                Ok(Reply::Refused(reason)) => refusals.push(reason),
                Ok(other) => tracing::warn!(%address, ?other, "an answer that does not fit a greeting"),
                Err(error @ PeerError::Refused { .. }) => unspoken.insert(0, error.to_string()),
                Err(error) => unspoken.push(error.to_string()),
            }
        }
        (refusals, unspoken)
    }

    /// Takes in what a node said of itself that answered at `address`.
    fn meet(&self, hello: Hello, address: &str) {
        if hello.from.node == self.node {
            return;
        }
        let mut known = self.membership.known.lock();
        for other in hello.known.iter().chain([&hello.from.address]) {
            if known.len() < KNOWN && *other != self.me.address {
                known.insert(other.clone());
            }
        }
        drop(known);
        self.note_address(&hello);
        tracing::trace!(%address, name = %hello.from.name, "met a node");
        self.membership.forming.lock().heard(hello, self.clock.monotonic());
    }

    /// A member says where it is: that counts at once, since without it the meta group may not find a majority.
    fn note_address(&self, hello: &Hello) {
        let Some(cluster) = self.cluster.load_full() else {
            // One that was let in and stopped before the state came knows nobody, and may have to fetch that state.
            if let Standing::Member { cluster_id, .. } = self.folder.identity().standing
                && hello.stand == (Stand::Member { cluster_id })
            {
                self.peers.set_address(hello.from.node, &hello.from.address);
            }
            return;
        };
        let same = hello.stand == Stand::Member { cluster_id: cluster.id };
        if same && cluster.members.get(&hello.from.node).is_some_and(|m| m.address != hello.from.address) {
            self.membership.moved.lock().insert(hello.from.node, hello.from.address.clone());
            self.peers.set_address(hello.from.node, &hello.from.address);
        }
    }

    async fn set_standing(&self, standing: Standing) -> Result<(), ReplicationError> {
        self.folder.set_standing(standing)?;
        self.membership.changed.notify_waiters();
        Ok(())
    }

    /// Takes in a new state of the cluster.
    fn take_in(self: &Arc<Self>, cluster: Cluster) -> Result<(), ReplicationError> {
        if let Standing::Forming(agreement) = self.folder.identity().standing {
            let Some(member) = cluster.members.get(&self.node).filter(|_| cluster.id == agreement.cluster_id)
            else {
                return Err(ReplicationError::Meta(format!(
                    "this node agreed to form cluster {:016x} and was put into {:016x}",
                    agreement.cluster_id, cluster.id
                )));
            };
            let meta_replica = member.meta_replica;
            self.folder.set_standing(Standing::Member { cluster_id: cluster.id, meta_replica })?;
            self.membership.changed.notify_waiters();
            tracing::info!(cluster = %cluster.name, members = cluster.members.len(), "the cluster is formed");
        }
        self.know_cluster(cluster.id);
        let mut moved = self.membership.moved.lock();
        for (node, member) in cluster.members.iter().filter(|(node, _)| **node != self.node) {
            if moved.get(node) == Some(&member.address) {
                moved.remove(node);
            }
            self.peers.set_address(*node, moved.get(node).unwrap_or(&member.address));
        }
        drop(moved);
        for gone in &cluster.removed {
            self.peers.forget(*gone);
        }
        if cluster.map.epoch() != self.map.load().epoch() {
            self.map.store(Arc::new(cluster.map.clone()));
        }
        let removed = cluster.removed.contains(&self.node);
        let cluster = Arc::new(cluster);
        self.cluster.store(Some(Arc::clone(&cluster)));
        if removed {
            let reason = "this node was removed from its cluster for good; to use it again, start it with an empty data folder";
            *self.membership.failure.lock() = Some(reason.to_owned());
        } else {
            self.start_replicas(&cluster);
        }
        self.wait_for(String::new());
        self.note_change();
        self.membership.announce.notify_one();
        Ok(())
    }

    /// Starts the replicas that the meta state places here and that do not run yet.
    fn start_replicas(self: &Arc<Self>, cluster: &Arc<Cluster>) {
        for (shard, replica, placed) in cluster.replicas_on(self.node) {
            if self.shards.read().contains_key(&shard) {
                continue;
            }
            self.set(shard, Local::Starting);
            let founders = placed.founder.then(|| founders(cluster, shard, replica.0));
            let inner = Arc::clone(self);
            self.ground.data.spawn(async move {
                while let Err(error) = start_shard(&inner, shard, replica, founders.clone()).await {
                    if inner.stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    if !error.is_disk_full() {
                        tracing::error!(shard = shard.0, %error, "a shard cannot start");
                        return inner.set(shard, Local::Failed(error.to_string()));
                    }
                    wait_for_space(replica.0, &error).await;
                }
            });
        }
    }
}

/// The founders of a shard, of which `replica` is one.
fn founders(cluster: &Cluster, shard: ShardId, replica: u64) -> Founders {
    let of_shard = cluster.replicas.get(&shard).into_iter().flatten().filter(|(_, placed)| placed.founder);
    let voters = of_shard.map(|(id, placed)| (id.0, Peer { node: placed.node.0 })).collect();
    Founders { voters, first: cluster.first_leader(shard).is_some_and(|first| first.0 == replica) }
}

/// Starts this node's replica of the meta group, and what follows its state.
async fn start_meta(
    inner: &Arc<Inner>,
    replica: u64,
    founders: Option<Founders>,
) -> Result<Arc<Group>, ReplicationError> {
    if let Some(meta) = inner.meta.load_full() {
        return Ok(meta);
    }
    let finishing = Arc::clone(inner);
    let finish = move || catch_up::finish(&finishing, storage::Subject::Meta, ReplicaId(replica));
    let finished = inner.ground.pool.aside(finish).await;
    finished.map_err(|error| ReplicationError::group("meta group", error))??;
    let target = Target::Meta(Arc::clone(&inner.store));
    let meta = Group::start(&inner.ground, "meta group".into(), GroupId(replica), target, founders).await?;
    inner.groups.write().insert(replica, Arc::clone(&meta));
    inner.meta.store(Some(Arc::clone(&meta)));
    let following = Arc::clone(inner);
    let followed = Arc::clone(&meta);
    inner.ground.data.spawn(async move {
        if let Err(error) = follow(&following, &followed).await {
            tracing::error!(%error, "the cluster's state cannot be followed");
            *following.membership.failure.lock() = Some(error.to_string());
            following.note_change();
        }
    });
    tend::start(inner);
    rest::start(inner);
    reach::start(inner);
    compare::start(inner);
    Ok(meta)
}

/// Takes the meta state in whenever it changes, until the group stops.
async fn follow(inner: &Arc<Inner>, meta: &Arc<Group>) -> Result<(), ReplicationError> {
    let mut applied = meta.applied();
    loop {
        if let Some(cluster) = meta::read(inner.store.meta())?
            && inner.cluster.load().as_deref() != Some(&cluster)
        {
            inner.take_in(cluster)?;
        }
        if applied.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Looks for others until this node has agreed to form with them, or was let in.
async fn look_around(inner: &Arc<Inner>) -> Result<(), ReplicationError> {
    let state = &inner.membership;
    loop {
        let changed = state.changed.notified();
        let (refusals, unspoken) = inner.greet().await;
        state.forming.lock().forget_old(inner.clock.monotonic());
        let step = state.forming.lock().step();
        match step {
            Step::Wait(reason) => inner.wait_for(match (refusals.first(), unspoken.first()) {
                (Some(refusal), _) => refusal.clone(),
                (None, Some(why)) => format!("{reason}; {why}"),
                (None, None) => reason,
            }),
            Step::Initiate(founders) => {
                let _guard = state.standing.lock().await;
                if inner.folder.identity().standing == Standing::Empty {
                    let agreement = Agreement { cluster_id: random(), initiator: inner.node, founders };
                    inner.set_standing(Standing::Forming(agreement)).await?;
                }
            }
            Step::Join(member) => {
                match inner.ask_at(&member.address, &Ask::Join(inner.candidate()), COMMITTED_ANSWER).await {
                    Ok(Reply::Joined { cluster_id, meta_replica, members }) => {
                        let _guard = state.standing.lock().await;
                        if inner.folder.identity().standing == Standing::Empty {
                            for (node, member) in members.iter().filter(|(node, _)| **node != inner.node) {
                                inner.peers.set_address(*node, &member.address);
                            }
                            tracing::info!(members = members.len(), "joined the cluster");
                            inner.wait_for("waiting for the state of the cluster".to_owned());
                            inner.set_standing(Standing::Member { cluster_id, meta_replica }).await?;
                        }
                    }
                    Ok(Reply::Refused(reason)) => {
                        inner.wait_for(format!("{} does not let this node in: {reason}", member.name))
                    }
                    Ok(other) => tracing::warn!(?other, "an answer that does not fit a request to join"),
                    Err(failure) => {
                        inner.wait_for(format!("{} did not let this node in: {failure}", member.name))
                    }
                }
            }
        }
        if inner.folder.identity().standing != Standing::Empty || inner.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Woken when somebody has this node agree.
        let _ = tokio::time::timeout(LOOK, changed).await;
    }
}

/// Forms the cluster with those who are asked to agree; gives the agreement up when one of them refuses.
async fn form(inner: &Arc<Inner>, agreement: &Agreement) -> Result<(), ReplicationError> {
    let others: Vec<_> = agreement.founders.iter().filter(|(node, _)| **node != inner.node).collect();
    for (node, member) in &others {
        inner.peers.set_address(**node, &member.address);
    }
    let ask = Ask::Agree(agreement.clone());
    let mut missing: BTreeSet<NodeId> = others.iter().map(|(node, _)| **node).collect();
    // A meta group that was started by an earlier life of this process means that all have agreed.
    let started = inner.log.state(GroupId(agreement.founders[&inner.node].meta_replica))?.vote.is_some();
    while !missing.is_empty() && !started {
        let asked = others.iter().filter(|(node, _)| missing.contains(*node));
        let asked =
            asked.map(|(node, member)| async { (**node, inner.ask_at(&member.address, &ask, ANSWER).await) });
        for (node, answer) in join_all(asked.collect::<Vec<_>>()).await {
            match answer {
                Ok(Reply::Done) => {
                    missing.remove(&node);
                }
                Ok(Reply::Refused(reason)) => {
                    let _guard = inner.membership.standing.lock().await;
                    inner.set_standing(Standing::Empty).await?;
                    inner.wait_for(format!("node {node} does not agree to form a cluster: {reason}"));
                    tokio::time::sleep(LOOK * 4).await;
                    return Ok(());
                }
                Ok(other) => tracing::warn!(?other, "an answer that does not fit an agreement"),
                Err(failure) => tracing::debug!(%failure, "a founder does not answer"),
            }
        }
        if !missing.is_empty() {
            let names = missing.iter().map(|node| agreement.founders[node].name.as_str()).collect::<Vec<_>>();
            inner.wait_for(format!("waiting for {} to agree to form the cluster", names.join(", ")));
            tokio::time::sleep(LOOK).await;
        }
        if inner.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    inner.wait_for("forming the cluster".to_owned());
    inner.know_cluster(agreement.cluster_id);
    let sites: Vec<_> = agreement
        .founders
        .iter()
        .map(|(node, member)| topology::replicas::Site { node: *node, zone: member.zone.clone() })
        .collect();
    let voters = topology::replicas::meta_voters(&sites, &BTreeSet::from([inner.node]));
    let mut voters: BTreeMap<u64, Peer> =
        voters.iter().map(|node| (agreement.founders[node].meta_replica, Peer { node: node.0 })).collect();
    // Whoever begins the log has to be in it.
    let own = agreement.founders[&inner.node].meta_replica;
    if !voters.contains_key(&own) {
        voters.pop_last();
        voters.insert(own, Peer { node: inner.node.0 });
    }
    start_meta(inner, own, Some(Founders { voters, first: true })).await?;
    let identity = inner.folder.identity();
    let factor = inner.config.replication_factor.unwrap_or(if agreement.founders.len() >= 3 { 3 } else { 1 });
    let mut values = own_settings(&inner.config);
    values.insert("replication-factor".to_owned(), factor.to_string());
    values.insert("shards".to_owned(), inner.config.shards.to_string());
    let settings = ClusterSettings { version: 1, values };
    let command = meta::form(&Founding {
        cluster_id: agreement.cluster_id,
        name: &identity.cluster_name,
        members: &agreement.founders,
        settings: &settings,
        shards: inner.config.shards.max(1),
    });
    while meta::read(inner.store.meta())?.is_none() && !inner.stopping.load(Ordering::Relaxed) {
        if let Err(failure) = inner.command(&command).await {
            tracing::info!(%failure, "the cluster is not formed yet");
        }
    }
    wait_to_be_member(inner).await;
    Ok(())
}

/// Waits for the initiator to form what was agreed, or to give it up.
async fn await_forming(inner: &Arc<Inner>, agreement: &Agreement) -> Result<(), ReplicationError> {
    let Some(initiator) = agreement.founders.get(&agreement.initiator) else {
        return Err(ReplicationError::Meta("an agreement without the node that asked for it".to_owned()));
    };
    for (node, member) in agreement.founders.iter().filter(|(node, _)| **node != inner.node) {
        inner.peers.set_address(*node, &member.address);
    }
    inner.know_cluster(agreement.cluster_id);
    let replica = agreement.founders.get(&inner.node).map_or(0, |member| member.meta_replica);
    let meta = start_meta(inner, replica, None).await?;
    inner.wait_for(format!("waiting for {} to form the cluster that was agreed", initiator.name));
    loop {
        let changed = inner.membership.changed.notified();
        if matches!(inner.folder.identity().standing, Standing::Member { .. })
            || inner.stopping.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        let stands = match inner.ask_at(&initiator.address, &Ask::Hello(inner.hello()), ANSWER).await {
            // Another node at that address says nothing about the one that asked.
            Ok(Reply::Hello(hello)) if hello.from.node == agreement.initiator => {
                let (Stand::Forming { cluster_id } | Stand::Member { cluster_id }) = hello.stand else {
                    break;
                };
                cluster_id == agreement.cluster_id
            }
            _ => true,
        };
        if !stands {
            break;
        }
        let _ = tokio::time::timeout(LOOK * 3, changed).await;
    }
    let _guard = inner.membership.standing.lock().await;
    if meta::read(inner.store.meta())?.is_some() {
        return Ok(());
    }
    tracing::info!(initiator = %initiator.name, "the cluster that was agreed is not formed; looking for others again");
    inner.meta.store(None);
    inner.groups.write().remove(&replica);
    meta.stop().await;
    let (done, forgotten) = tokio::sync::oneshot::channel();
    inner.log.forget(
        GroupId(replica),
        Box::new(move |result| {
            // Nobody waits any more when the node stops.
            let _ = done.send(result);
        }),
    )?;
    if let Ok(result) = forgotten.await {
        result?;
    }
    inner.know_cluster(0);
    inner.set_standing(Standing::Empty).await
}

async fn wait_to_be_member(inner: &Arc<Inner>) {
    loop {
        let changed = inner.membership.changed.notified();
        if matches!(inner.folder.identity().standing, Standing::Member { .. })
            || inner.stopping.load(Ordering::Relaxed)
        {
            return;
        }
        let _ = tokio::time::timeout(LOOK, changed).await;
    }
}

/// Tells the others where this node is and what its flags say, whenever its record says otherwise.
async fn announce(inner: &Arc<Inner>) {
    while !inner.stopping.load(Ordering::Relaxed) {
        let again = inner.membership.announce.notified();
        let cluster = inner.cluster.load_full();
        let command = cluster.as_ref().and_then(|cluster| meta::announce(cluster, &inner.candidate()));
        let behind = command.is_some() || cluster.is_none() || !inner.progress().is_ready();
        if behind {
            // Others may look for this node at its old address, and this one for them.
            for reason in inner.greet().await.0 {
                tracing::error!(%reason, "a member refuses this node");
                *inner.membership.failure.lock() = Some(reason);
                inner.note_change();
            }
        }
        if let Some(command) = command
            && let Err(failure) = inner.command(&command).await
        {
            tracing::info!(%failure, "this node's record is not brought up to date yet");
        }
        let pause = if behind { LOOK * 3 } else { LOOK * 30 };
        let _ = tokio::time::timeout(pause, again).await;
    }
}

/// Answers a question of the node `from` about the cluster.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    from: &PeerIdentity,
    body: &Bytes,
) -> Result<Vec<u8>, Failure> {
    let ask = match Ask::decode(body) {
        Ok(ask) => ask,
        Err(reason) => return Ok(Reply::Refused(reason).encode()),
    };
    let reply = match ask {
        Ask::Hello(hello) => greeted(inner, from, &hello),
        Ask::Agree(agreement) => agree(inner, from, agreement).await?,
        Ask::Join(candidate) => join(inner, from, &candidate).await?,
        Ask::Command(command) => {
            if Command::decode(&command).is_none() {
                return Err(Failure::invalid("a command for the meta group that does not decode"));
            }
            match inner.lead_command(command).await {
                Ok(held) => Reply::Held(held),
                Err(LeadError::NotLeader(node)) => Reply::NotLeader(node),
                Err(LeadError::Failed(failure)) => return Err(failure),
            }
        }
        Ask::Status => Reply::Status(crate::status::own(inner).encode()),
        ask @ (Ask::Transfer { .. } | Ask::Delete { .. }) => tend::carry_out_led(inner, &ask).await?,
        Ask::Compare(replicas) => compare::answer(inner, &replicas).await,
        Ask::Size(shards) => Reply::Size(crate::node::snapshot::size_of(inner, &shards)),
        Ask::Judge(judged) => {
            compare::take(inner, judged).await;
            Reply::Done
        }
        Ask::Rest(groups) => Reply::Rests(rest::agree(inner, from.node, &groups)),
    };
    Ok(reply.encode())
}

fn greeted(inner: &Inner, from: &PeerIdentity, hello: &Hello) -> Reply {
    if hello.from.node != from.node || !hello.from.is_plain() {
        return Reply::Refused("a greeting in another node's name, or with control characters".to_owned());
    }
    let removed = inner.cluster.load().as_ref().is_some_and(|cluster| cluster.removed.contains(&from.node));
    if removed {
        return Reply::Refused(format!(
            "node {:016x} was removed from the cluster for good; start it with an empty data folder",
            from.node.0
        ));
    }
    let mut known = inner.membership.known.lock();
    if known.len() < KNOWN && hello.from.address != inner.me.address {
        known.insert(hello.from.address.clone());
    }
    drop(known);
    inner.note_address(hello);
    Reply::Hello(inner.hello())
}

async fn agree(inner: &Arc<Inner>, from: &PeerIdentity, asked: Agreement) -> Result<Reply, Failure> {
    let _guard = inner.membership.standing.lock().await;
    let standing = inner.folder.identity().standing;
    let agreed = match &standing {
        Standing::Forming(agreed) => Some(agreed),
        Standing::Empty | Standing::Member { .. } => None,
    };
    // Asked again by an initiator that lost its answer, or its memory, after the cluster was formed.
    let is_member = match standing {
        Standing::Member { cluster_id, .. } if cluster_id == asked.cluster_id => return Ok(Reply::Done),
        Standing::Member { .. } => true,
        Standing::Empty | Standing::Forming(_) => false,
    };
    if from.node != asked.initiator {
        return Ok(Reply::Refused("only the node that forms may ask for it".to_owned()));
    }
    if let Err(reason) = may_agree(inner.node, inner.config.bootstrap_expect, agreed, is_member, &asked) {
        return Ok(Reply::Refused(reason));
    }
    if agreed.is_none() {
        inner.set_standing(Standing::Forming(asked)).await?;
    }
    Ok(Reply::Done)
}

async fn join(inner: &Arc<Inner>, from: &PeerIdentity, candidate: &Candidate) -> Result<Reply, Failure> {
    if candidate.node != from.node || !candidate.is_plain() {
        return Ok(Reply::Refused("a request in another node's name, or with control characters".to_owned()));
    }
    let deadline = tokio::time::Instant::now() + COMMITTED_ANSWER / 2;
    while tokio::time::Instant::now() < deadline {
        let Some(cluster) = inner.cluster.load_full() else { break };
        if cluster.removed.contains(&candidate.node) {
            return Ok(Reply::Refused(
                "it was removed from the cluster for good; start it with an empty data folder".into(),
            ));
        }
        if let Some(member) = cluster.members.get(&candidate.node) {
            // Asked again: its answer was lost.
            let members = cluster.members.clone();
            return Ok(Reply::Joined { cluster_id: cluster.id, meta_replica: member.meta_replica, members });
        }
        let same = cluster.members.values().find(|member| member.name == candidate.name);
        if let Some(same) = same {
            return Ok(Reply::Refused(format!(
                "there is a node called {:?} at {} (--node.name)",
                same.name, same.address
            )));
        }
        let (command, _) = meta::join(&cluster, candidate);
        if inner.command(&command).await? {
            tracing::info!(name = %candidate.name, address = %candidate.address, "a node joins the cluster");
        }
        // The state here may be a little behind what was committed.
        tokio::time::sleep(LOOK / 6).await;
    }
    Err(Failure::unavailable("the meta group did not take the node in just now", RETRY))
}
