//! Several nodes in one process over real loopback connections: forming, joining, failover, catching up, growing.
//!
//! Waiting is for conditions, bounded; nothing is assumed about who is elected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::seam::{ClusterView as _, ShardWriter as _, SystemClock};
use model::{NodeId, ShardId};
use openraft::async_runtime::WatchReceiver as _;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::folder::{Agreement, DataFolder, Standing};
use crate::members::Member;
use crate::node_test::{START, batch, config, expect, read, run};
use crate::{Peering, Replication, ReplicationConfig};

/// Longest wait for anything: these tests share the machine with others.
const PATIENCE: Duration = Duration::from_secs(90);

/// A place for a node: its folder and its peer port.
struct Site {
    dir: TempDir,
    address: String,
    name: String,
}

impl Site {
    async fn new(name: &str) -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (Self { dir: tempfile::tempdir().unwrap(), address, name: name.to_owned() }, listener)
    }

    fn config(&self, join: &[String], expect: usize) -> ReplicationConfig {
        ReplicationConfig {
            node_name: self.name.clone(),
            join: join.to_vec(),
            bootstrap_expect: expect,
            ..config(self.dir.path())
        }
    }

    async fn start_with(&self, listener: TcpListener, config: ReplicationConfig) -> Arc<Replication> {
        let advertise = listener.local_addr().unwrap().to_string();
        let secret = Some(b"a secret of the tests".to_vec());
        let peering = Peering { listener, advertise, secret, tls: None, snapshot_bytes_per_second: 0 };
        let clock = Arc::new(SystemClock::new());
        Replication::open(config, peering, clock, &mut Registry::default()).await.unwrap()
    }

    /// Starts again at another port.
    async fn restart(&self, join: &[String], expect: usize) -> Arc<Replication> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.start_with(listener, self.config(join, expect)).await
    }
}

/// Waits until `look` is true.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !look().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ready(nodes: &[&Arc<Replication>]) {
    for node in nodes {
        until("a node is ready", async || node.caught_up()).await;
    }
}

/// Three sites and the nodes on them, formed.
async fn three(expect: usize) -> (Vec<Site>, Vec<String>, Vec<Arc<Replication>>) {
    three_with(expect, |config| config).await
}

/// Three sites and the nodes on them, formed, with configurations that `change` has seen.
async fn three_with(
    expect: usize,
    change: impl Fn(ReplicationConfig) -> ReplicationConfig,
) -> (Vec<Site>, Vec<String>, Vec<Arc<Replication>>) {
    let (mut sites, mut listeners) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let (site, listener) = Site::new(name).await;
        sites.push(site);
        listeners.push(listener);
    }
    let join: Vec<String> = sites.iter().map(|site| site.address.clone()).collect();
    let mut nodes = Vec::new();
    for (site, listener) in sites.iter().zip(listeners) {
        nodes.push(site.start_with(listener, change(site.config(&join, expect))).await);
    }
    ready(&nodes.iter().collect::<Vec<_>>()).await;
    (sites, join, nodes)
}

/// Purges what is durable, whoever lacks it: as when the log is too long.
async fn purge_all(node: &Replication) {
    let groups: Vec<_> = node.inner.groups.read().values().cloned().collect();
    for group in groups {
        group.purge_durable(true).await.unwrap();
    }
}

fn cluster_id(node: &Replication) -> Option<u64> {
    match node.identity().standing {
        Standing::Member { cluster_id, .. } => Some(cluster_id),
        Standing::Empty | Standing::Forming(_) => None,
    }
}

/// Writes a batch, trying again as `ingest` does.
async fn write_through(node: &Replication, shard: ShardId, series: usize, step: i64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match node.write(shard, batch(0..series, step)).await {
            Ok(report) => {
                assert!(report.rejected.is_empty(), "{report:?}");
                return;
            }
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "step {step}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads everything of a shard through a node, trying again while there is no leader.
async fn read_through(node: &Replication, shard: ShardId) -> Vec<(usize, i64)> {
    use model::seam::{ReadLevel, ShardReader as _};
    until("a read is answered", async || node.snapshot(shard, ReadLevel::Linearizable).await.is_ok()).await;
    read(node, shard).await
}

/// Waits until the replicas of all shards are at the same index with the same hash (I7).
async fn equal_hashes(nodes: &[&Arc<Replication>]) {
    until("all replicas are equal", async || {
        let mut all: BTreeSet<Vec<(ShardId, u64, u64)>> = BTreeSet::new();
        for node in nodes {
            all.insert(node.state_hashes());
        }
        // At the same index the hash must be the same, always.
        for shard in nodes[0].shard_map().load().all_shards() {
            let seen: BTreeSet<(u64, u64)> = all
                .iter()
                .flatten()
                .filter(|(id, ..)| *id == shard)
                .map(|(_, index, hash)| (*index, *hash))
                .collect();
            let indexes: BTreeSet<u64> = seen.iter().map(|(index, _)| *index).collect();
            assert_eq!(seen.len(), indexes.len(), "shard {shard}: replicas differ: {seen:?}");
        }
        all.len() == 1
    })
    .await;
}

#[test]
fn three_nodes_form_once_and_take_writes_anywhere() {
    run(async {
        let (_sites, _, nodes) = three(3).await;
        let ids: BTreeSet<_> = nodes.iter().map(|node| cluster_id(node)).collect();
        assert!(ids.len() == 1 && !ids.contains(&None), "{ids:?}");
        let shards = nodes[0].shard_map().load().all_shards();
        let mut steps = 0;
        for node in &nodes {
            for shard in &shards {
                write_through(node, *shard, 5, steps).await;
            }
            steps += 1;
        }
        for node in &nodes {
            for shard in &shards {
                assert_eq!(read_through(node, *shard).await, expect(5, steps));
            }
        }
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        // Deleting goes to the leaders, wherever they are.
        let zero = model::Matcher::new("n", model::MatchOp::Equal, "0").unwrap();
        let until_second = model::TimeRange { after: i64::MIN, until: START + 500 };
        let tenant = model::TenantId::anonymous();
        nodes[2].delete_series(&tenant, &[vec![zero]], until_second).await.unwrap();
        let left: Vec<_> = expect(5, steps).into_iter().filter(|one| *one != (0, 0)).collect();
        for shard in &shards {
            assert_eq!(read_through(&nodes[0], *shard).await, left);
        }
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        let status = nodes[1].status().await;
        assert_eq!((status.members.len(), status.shards.len()), (3, shards.len()));
        assert_eq!(status.members.iter().filter(|m| m.meta_voter).count(), 3);
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_killed_leader_is_replaced_and_catches_up_from_the_log_elsewhere() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        let shard = nodes[0].shard_map().load().all_shards()[0];
        write_through(&nodes[0], shard, 3, 0).await;
        let leads = async |nodes: &[Arc<Replication>]| -> Option<NodeId> {
            let status = nodes[0].status().await;
            status.shards.iter().find(|s| s.shard == shard)?.leader
        };
        until("somebody leads", async || leads(&nodes).await.is_some()).await;
        let leader = leads(&nodes).await.unwrap();
        let at = nodes.iter().position(|node| node.node() == leader).unwrap();
        let site = &sites[at];
        nodes.remove(at).abandon().await;
        for step in 1..20 {
            write_through(&nodes[step as usize % 2], shard, 3, step).await;
        }
        // It comes back at another address, which it tells.
        nodes.insert(at, site.restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        assert_eq!(read_through(&nodes[at], shard).await, expect(3, 20));
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        until("its new address is known", async || {
            let status = nodes[(at + 1) % 3].status().await;
            status.members.iter().all(|m| m.answers) && status.shards.iter().all(|s| s.missing == 0)
        })
        .await;
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn groups_in_which_nothing_happens_rest_and_wake_for_a_write_or_a_dead_leader() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        let shard = nodes[0].shard_map().load().all_shards()[0];
        write_through(&nodes[0], shard, 3, 0).await;
        let all_rest = async |nodes: &[Arc<Replication>]| {
            nodes.iter().all(|node| node.inner.groups.read().values().all(|group| group.rests()))
        };
        let terms = |node: &Replication| -> BTreeMap<u64, u64> {
            let groups = node.inner.groups.read();
            let term = |g: &Arc<crate::group::Group>| g.raft().metrics().borrow_watched().current_term;
            groups.values().map(|group| (group.id.0, term(group))).collect()
        };
        until("all groups rest", async || all_rest(&nodes).await).await;
        let before = terms(&nodes[1]);
        // Reads probe the leaders and leave the groups at rest or not, but right.
        for node in &nodes {
            assert_eq!(read_through(node, shard).await, expect(3, 1));
        }
        for step in 1..4 {
            write_through(&nodes[step as usize % 3], shard, 3, step).await;
            until("all groups rest again", async || all_rest(&nodes).await).await;
        }
        assert_eq!(terms(&nodes[1]), before, "a rest ended a leadership");
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        // A node dies while all rest: the others notice, and lead what it led.
        let dead = nodes[0].status().await.shards.iter().find(|s| s.shard == shard).and_then(|s| s.leader);
        let at = nodes.iter().position(|node| Some(node.node()) == dead).unwrap();
        nodes.remove(at).abandon().await;
        let shards = nodes[0].shard_map().load().all_shards();
        for shard in &shards {
            write_through(&nodes[0], *shard, 3, 4).await;
        }
        assert!(!all_rest(&nodes).await, "groups rest although a member is away");
        nodes.insert(at, sites[at].restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        until("all groups rest with all members", async || all_rest(&nodes).await).await;
        // One that returns while nothing is written has to hear what is committed before it rests.
        nodes.remove(at).abandon().await;
        nodes.insert(at, sites[at].restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        until("all groups rest once more", async || all_rest(&nodes).await).await;
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn who_was_away_too_long_is_sent_state() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        let shard = nodes[0].shard_map().load().all_shards()[0];
        write_through(&nodes[0], shard, 50, 0).await;
        let away = nodes.pop().unwrap();
        away.abandon().await;
        drop(away);
        for step in 1..60 {
            write_through(&nodes[0], shard, 50, step).await;
        }
        // What is flushed is purged although the third lacks it, as when the log is too long.
        for node in &nodes {
            node.flush().await.unwrap();
            purge_all(node).await;
        }
        until("the log is purged", async || {
            nodes.iter().all(|node| {
                let groups = node.inner.groups.read();
                let group = groups.values().find(|g| g.name == format!("shard {shard}")).unwrap();
                node.inner.log.state(group.id).unwrap().first > 10
            })
        })
        .await;
        nodes.push(sites[2].restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        // A few entries behind counts as ready: the state may come just after.
        let installed = || nodes[2].inner.metrics.installed_snapshots.get();
        until("it is brought up by state, which the log cannot do", async || installed() > 0).await;
        write_through(&nodes[2], shard, 50, 60).await;
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        assert_eq!(read_through(&nodes[2], shard).await, expect(50, 61));
        // What was taken over is there after a kill, too.
        nodes.pop().unwrap().abandon().await;
        nodes.push(sites[2].restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn wrong_values_of_one_replica_are_never_read_once_found_and_it_is_made_right() {
    use model::seam::{ReadLevel, ShardReader as _};
    run(async {
        let compared =
            |config| ReplicationConfig { compare_every: Duration::from_millis(500), shards: 1, ..config };
        let (_sites, _, nodes) = three_with(3, compared).await;
        let shard = ShardId(1);
        let handle =
            |node: &Replication| node.inner.ready_shards().into_iter().next().map(|(_, handle)| handle);
        let mut steps = 0;
        // First a follower, then whoever leads.
        for leader in [false, true] {
            write_through(&nodes[0], shard, 5, steps).await;
            steps += 1;
            equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
            let leads = |node: &Arc<Replication>| handle(node).is_some_and(|h| h.group.leading().is_some());
            let at = nodes.iter().position(|node| leads(node) == leader).unwrap();
            let victim = handle(&nodes[at]).unwrap();
            // It stores other values than those that were sent, and takes the entry with the right ones for known.
            let mut wrong = (*batch(0..5, steps)).clone();
            wrong.samples.iter_mut().for_each(|sample| sample.value += 0.5);
            let plans = Arc::clone(&victim.shard);
            plans.begin_term(1_000_000 + steps as u64);
            let (index, mark) = victim.shard.applied();
            let plan = plans.plan(&[Arc::new(wrong)], START + steps * 1000);
            victim.shard.apply(model::LogIndex(index.0 + 1), &plan.entry, &mark).unwrap();
            drop((plans, victim));
            let quarantines = nodes[at].inner.metrics.quarantines.get();
            let other = &nodes[(at + 1) % 3];
            // The leader that differs cannot say what became of it: it is sent again.
            let _ = other.write(shard, batch(0..5, steps)).await;
            // Reads on its node give the wrong value (that is why it has to be found) or nothing, until it is found.
            let read = async || {
                let found = nodes[at].inner.metrics.quarantines.get() > quarantines;
                for level in [ReadLevel::Linearizable, ReadLevel::MaxStaleness(Duration::from_secs(60))] {
                    let Ok(source) = nodes[at].snapshot(shard, level).await else { continue };
                    let values = tokio::task::spawn_blocking(move || values_of(source.as_ref()));
                    let Ok(values) = values.await.unwrap() else { continue };
                    let wrong = values.iter().filter(|value| value.fract() != 0.0).count();
                    assert!(
                        !found || wrong == 0,
                        "{wrong} wrong values of {} after it was found",
                        values.len()
                    );
                }
                found
            };
            until("it goes into quarantine", async || read().await).await;
            until("it serves again", async || {
                read().await;
                nodes[at].inner.quarantine.len() == 0 && nodes[at].caught_up()
            })
            .await;
            steps += 1;
            write_through(other, shard, 5, steps - 1).await;
            write_through(&nodes[at], shard, 5, steps).await;
            steps += 1;
            ready(&nodes.iter().collect::<Vec<_>>()).await;
            equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
            for node in &nodes {
                assert_eq!(read_through(node, shard).await, expect(5, steps));
                let own = handle(node).unwrap().shard.reader();
                assert_eq!(crate::node_test::read_source(own.as_ref()), expect(5, steps));
                assert_eq!(node.unready(), None);
            }
            assert_eq!(nodes[at].inner.metrics.quarantines.get(), quarantines + 1);
        }
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

/// All values in a snapshot of a shard.
fn values_of(source: &dyn model::seam::SeriesSource) -> Result<Vec<f64>, model::Failure> {
    let mut iter = source.select(&crate::node_test::everything())?;
    let (mut data, mut values) = (model::seam::SeriesData::default(), Vec::new());
    while iter.next_series(&mut data)? {
        values.extend_from_slice(&data.values);
    }
    Ok(values)
}

#[test]
fn one_node_grows_to_three_with_its_history() {
    run(async {
        let (first, listener) = Site::new("a").await;
        let one = first.start_with(listener, first.config(&[], 1)).await;
        ready(&[&one]).await;
        let shards = one.shard_map().load().all_shards();
        for step in 0..40 {
            for shard in &shards {
                write_through(&one, *shard, 20, step).await;
            }
        }
        one.flush().await.unwrap();
        purge_all(&one).await;
        let join = vec![first.address.clone()];
        let (mut nodes, mut sites) = (vec![one], vec![first]);
        for name in ["b", "c"] {
            let (site, listener) = Site::new(name).await;
            nodes.push(site.start_with(listener, site.config(&join, 1)).await);
            sites.push(site);
        }
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        assert_eq!(nodes[1].state_hashes().len(), 0, "no copy before it is asked for");
        nodes[2].change_settings(vec![("replication-factor".into(), "3".into())]).await.unwrap();
        let bad = nodes[2].change_settings(vec![("replication-factor".into(), "2".into())]).await;
        assert_eq!(bad.unwrap_err().code, model::Code::Invalid);
        let mut step = 40;
        until("all shards have three copies", async || {
            for shard in &shards {
                write_through(&nodes[step as usize % 3], *shard, 20, step).await;
            }
            step += 1;
            let status = nodes[1].status().await;
            status.shards.iter().all(|s| s.replicas.len() == 3 && s.missing == 0)
        })
        .await;
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        equal_hashes(&nodes.iter().collect::<Vec<_>>()).await;
        for node in &nodes {
            for shard in &shards {
                assert_eq!(read_through(node, *shard).await, expect(20, step));
            }
        }
        // Any one of them may go now, also the first.
        nodes.remove(0).abandon().await;
        for shard in &shards {
            write_through(&nodes[0], *shard, 20, step).await;
            assert_eq!(read_through(&nodes[1], *shard).await, expect(20, step + 1));
        }
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_removed_node_and_one_of_another_cluster_are_refused() {
    run(async {
        let (first, listener) = Site::new("a").await;
        let one = first.start_with(listener, first.config(&[], 1)).await;
        ready(&[&one]).await;
        let join = vec![first.address.clone()];
        let (site, listener) = Site::new("b").await;
        let two = site.start_with(listener, site.config(&join, 1)).await;
        ready(&[&one, &two]).await;
        one.remove_node("b".to_owned()).await.unwrap();
        until("it learns that it was removed", async || !two.progress().failed.is_empty()).await;
        two.shutdown().await.unwrap();
        drop(two);
        let two = site.restart(&join, 1).await;
        until("it is refused", async || !two.progress().failed.is_empty()).await;
        assert!(!two.caught_up());
        two.shutdown().await.unwrap();

        // One of a cluster with another name is told so, and where.
        let (site, listener) = Site::new("u").await;
        let config = ReplicationConfig { cluster_name: Some("us".to_owned()), ..site.config(&join, 1) };
        let foreign = site.start_with(listener, config).await;
        until("it says who refuses it", async || {
            let waits = foreign.progress().waits_for;
            waits.contains(&first.address)
                && waits.contains("is of cluster \"us\"")
                && waits.contains("--cluster.name")
        })
        .await;
        foreign.shutdown().await.unwrap();

        let (other, listener) = Site::new("x").await;
        let alone = other.start_with(listener, other.config(&[], 1)).await;
        ready(&[&alone]).await;
        alone.shutdown().await.unwrap();
        drop(alone);
        let stranger = other.restart(&join, 1).await;
        ready(&[&stranger]).await;
        let ids = [cluster_id(&one), cluster_id(&stranger)];
        assert_ne!(ids[0], ids[1], "it stays in its own cluster");
        assert_eq!(one.status().await.members.len(), 1);
        stranger.shutdown().await.unwrap();
        one.shutdown().await.unwrap();
    });
}

#[test]
fn a_join_list_never_forms_alone_and_too_many_do_not_form() {
    run(async {
        let (site, listener) = Site::new("a").await;
        let node = site.start_with(listener, site.config(&["127.0.0.1:1".to_owned()], 1)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(node.identity().standing, Standing::Empty);
        assert!(node.progress().waits_for.contains("--cluster.join"), "{:?}", node.progress());
        let refused = node.write(ShardId(1), batch(0..1, 0)).await;
        assert!(refused.is_err());
        node.shutdown().await.unwrap();
    });
}

/// Three sites whose folders say that they agreed to form, with `a` as the one that asked; what they agreed to.
async fn agreed() -> (Vec<Site>, Vec<TcpListener>, Agreement) {
    let (mut sites, mut listeners, mut founders) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut initiator = NodeId(0);
    for (name, meta_replica) in [("a", 1), ("b", 2), ("c", 3)] {
        let (site, listener) = Site::new(name).await;
        let node = DataFolder::open(site.dir.path(), None).unwrap().identity().node;
        if name == "a" {
            initiator = node;
        }
        let address = site.address.clone();
        founders.insert(node, Member { name: name.into(), address, meta_replica, ..Member::default() });
        sites.push(site);
        listeners.push(listener);
    }
    (sites, listeners, Agreement { cluster_id: 0xabcd, initiator, founders })
}

#[test]
fn what_was_agreed_is_formed_after_everybody_stopped() {
    run(async {
        let (sites, listeners, agreement) = agreed().await;
        for site in &sites {
            let folder = DataFolder::open(site.dir.path(), None).unwrap();
            folder.set_standing(Standing::Forming(agreement.clone())).unwrap();
        }
        let join: Vec<String> = sites.iter().map(|site| site.address.clone()).collect();
        let mut nodes = Vec::new();
        // The one that forms comes last.
        for (site, listener) in sites.iter().zip(listeners).rev() {
            nodes.push(site.start_with(listener, site.config(&join, 3)).await);
        }
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        assert!(nodes.iter().all(|node| cluster_id(node) == Some(0xabcd)));
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn an_agreement_that_came_to_nothing_is_given_up() {
    run(async {
        let (sites, listeners, agreement) = agreed().await;
        // The one that asked lost its mind before it had everybody's word: it never forms that cluster.
        for site in &sites[1..] {
            let folder = DataFolder::open(site.dir.path(), None).unwrap();
            folder.set_standing(Standing::Forming(agreement.clone())).unwrap();
        }
        let join: Vec<String> = sites.iter().map(|site| site.address.clone()).collect();
        let mut nodes = Vec::new();
        for (site, listener) in sites.iter().zip(listeners) {
            nodes.push(site.start_with(listener, site.config(&join, 3)).await);
        }
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        let ids: BTreeSet<_> = nodes.iter().map(|node| cluster_id(node)).collect();
        assert!(ids.len() == 1 && !ids.contains(&Some(0xabcd)), "{ids:?}");
        let shard = nodes[0].shard_map().load().all_shards()[0];
        write_through(&nodes[2], shard, 2, 0).await;
        assert_eq!(read_through(&nodes[1], shard).await, expect(2, 1));
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn retention_follows_the_flags_of_all_nodes_and_drift_is_shown() {
    run(async {
        let (_sites, _, nodes) = three(3).await;
        let month = 30 * 86_400_000;
        let waiting = tokio::spawn({
            let node = Arc::clone(&nodes[2]);
            async move { node.retention_after(0).await }
        });
        nodes[0].set_retention(month);
        until("drift is shown", async || {
            let status = nodes[1].status().await;
            let drifting = status.members.iter().filter(|m| !m.drift.is_empty()).count();
            drifting == 1 && status.settings["retention"] == "0s"
        })
        .await;
        nodes[1].set_retention(month);
        nodes[2].set_retention(month);
        until("the setting follows", async || {
            let status = nodes[0].status().await;
            status.settings["retention"] == "30d" && status.members.iter().all(|m| m.drift.is_empty())
        })
        .await;
        assert!(nodes.iter().all(|node| node.retention_ms() == month));
        assert_eq!(waiting.await.unwrap(), month, "whoever waits for a change is told of it");
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn leaders_are_spread_and_hand_over_before_they_stop() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        let leads =
            |status: &model::seam::ClusterStatus| status.members.iter().map(|m| m.leads).collect::<Vec<_>>();
        until("leaders are spread", async || {
            let leads = leads(&nodes[0].status().await);
            leads.iter().sum::<usize>() == 2 && leads.iter().max() == Some(&1)
        })
        .await;
        let shard = ShardId(1);
        let status = nodes[0].status().await;
        let now = status.shards.iter().find(|s| s.shard == shard).unwrap().leader.unwrap();
        let to = nodes.iter().position(|node| node.node() != now).unwrap();
        nodes[2].transfer_leader(shard, sites[to].name.clone()).await.unwrap();
        until("it leads", async || {
            let status = nodes[0].status().await;
            status.shards.iter().find(|s| s.shard == shard).unwrap().leader == Some(nodes[to].node())
        })
        .await;
        assert_eq!(
            nodes[0].transfer_leader(shard, "nobody".to_owned()).await.unwrap_err().code,
            model::Code::Invalid
        );
        // Everything that it leads is led by others before it is gone: a write right after needs no election.
        let leaving = nodes.remove(to);
        leaving.shutdown().await.unwrap();
        let started = tokio::time::Instant::now();
        write_through(&nodes[0], shard, 1, 0).await;
        assert!(started.elapsed() < Duration::from_secs(3), "{:?} until a write succeeds", started.elapsed());
        drop(leaving);
        nodes.push(sites[to].restart(&join, 3).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn who_has_no_disk_space_leads_nothing_while_others_have() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        nodes.remove(0).shutdown().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = ReplicationConfig { min_free_bytes: Some(u64::MAX), ..sites[0].config(&join, 3) };
        nodes.insert(0, sites[0].start_with(listener, config).await);
        ready(&nodes.iter().collect::<Vec<_>>()).await;
        let status = nodes[1].status().await;
        let full: Vec<bool> = status.members.iter().map(|member| member.disk_full).collect();
        assert_eq!(full.iter().filter(|full| **full).count(), 1, "{full:?}");
        let refused = nodes[1].transfer_leader(ShardId(1), sites[0].name.clone()).await.unwrap_err();
        assert!(refused.message.contains("full"), "{refused}");
        // The others go: it is elected, perhaps, and hands over as soon as there is somebody.
        for gone in [1, 2] {
            nodes.remove(gone).shutdown().await.unwrap();
            until("somebody else leads everything", async || {
                let status = nodes[0].status().await;
                status.shards.iter().all(|shard| shard.leader == Some(nodes[1].node()))
            })
            .await;
            write_through(&nodes[0], ShardId(1), 1, gone as i64).await;
            nodes.insert(gone, sites[gone].restart(&join, 3).await);
            ready(&nodes.iter().collect::<Vec<_>>()).await;
        }
        for node in nodes {
            node.shutdown().await.unwrap();
        }
    });
}

#[test]
fn who_reaches_no_majority_says_so_within_two_seconds() {
    run(async {
        let (sites, join, mut nodes) = three(3).await;
        let shard = ShardId(1);
        let status = nodes[0].status().await;
        let leader = status.shards.iter().find(|s| s.shard == shard).unwrap().leader.unwrap();
        let gone = nodes.iter().position(|node| node.node() == leader).unwrap();
        nodes.remove(gone).abandon().await;
        // Two of three are there.
        write_through(&nodes[0], shard, 1, 0).await;
        nodes.pop().unwrap().abandon().await;
        let started = tokio::time::Instant::now();
        let refused = nodes[0].write(shard, batch(0..1, 1)).await.unwrap_err();
        let took = started.elapsed();
        // Two, and what a busy machine adds: less than what is waited for an election.
        assert!(took < Duration::from_millis(3_500), "{took:?}");
        let model::seam::ShardWriteError::Failed(failure) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.code, model::Code::Unavailable);
        assert!(failure.message.contains("shard 1 has no majority"), "{failure}");
        // Longer than a router waits inside.
        assert!(failure.retry_after.is_some_and(|wait| wait > Duration::from_secs(1)), "{failure:?}");
        let back = sites[gone].restart(&join, 3).await;
        write_through(&nodes[0], shard, 1, 2).await;
        drop(back);
    });
}
