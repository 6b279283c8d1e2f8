//! The meta group's state: who is in the cluster, its settings, the shard map, who has which replica.
//!
//! Keys are text, values are small; a command is a list of conditions (keys and the values they must have) and the
//! writes made when all hold, so that every change is a compare-and-set. Code here is the same on every replica.
//!
//! | key | value |
//! |---|---|
//! | `cluster` | id and name |
//! | `member/NODE` | a node's name, zone, address, replica of the meta group |
//! | `removed/NODE` | the tombstone of a node that was removed: it never comes back under that id |
//! | `map` | the shard map |
//! | `next-replica` | the next replica id to issue; none below is issued again |
//! | `replica/SHARD/REPLICA` | the node that the replica is on, and whether it was there when the shard was made |
//! | `settings` | the settings document |

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, NodeId, ReplicaId, ShardId};
use storage::{MetaTable, MetaWrite, StorageError};
use topology::ShardMap;
use topology::replicas::{Site, missing_replicas};

use crate::ReplicationError;
use crate::members::{Candidate, Member};
use crate::settings::ClusterSettings;

const VERSION: u8 = 1;

pub(crate) const CLUSTER: &[u8] = b"cluster";
const MAP: &[u8] = b"map";
const NEXT_REPLICA: &[u8] = b"next-replica";
pub(crate) const SETTINGS: &[u8] = b"settings";

/// A change of the meta state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    /// Each key must have this value (`None` = not be there).
    pub(crate) expect: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Made when all conditions hold.
    pub(crate) writes: Vec<MetaWrite>,
}

impl Command {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
            out.push(u8::from(bytes.is_some()));
            let bytes = bytes.unwrap_or_default();
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        let mut out = vec![VERSION];
        out.extend_from_slice(&(self.expect.len() as u32).to_le_bytes());
        for (key, value) in &self.expect {
            put(&mut out, Some(key));
            put(&mut out, value.as_deref());
        }
        for write in &self.writes {
            match write {
                MetaWrite::Put { key, value } => {
                    put(&mut out, Some(key));
                    put(&mut out, Some(value));
                }
                MetaWrite::Delete { key } => {
                    put(&mut out, Some(key));
                    put(&mut out, None);
                }
            }
        }
        out
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        fn number(bytes: &mut &[u8]) -> Option<u32> {
            let (number, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*number))
        }
        fn take(bytes: &mut &[u8]) -> Option<Option<Vec<u8>>> {
            let (&some, rest) = bytes.split_first()?;
            *bytes = rest;
            let len = number(bytes)? as usize;
            let value = bytes.get(..len)?;
            *bytes = &bytes[len..];
            Some((some != 0).then(|| value.to_vec()))
        }
        let (&version, mut rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        let mut command = Self::default();
        for _ in 0..number(&mut rest)? {
            command.expect.push((take(&mut rest)??, take(&mut rest)?));
        }
        while !rest.is_empty() {
            let key = take(&mut rest)??;
            command.writes.push(match take(&mut rest)? {
                Some(value) => MetaWrite::Put { key, value },
                None => MetaWrite::Delete { key },
            });
        }
        Some(command)
    }
}

/// Applies the command in `entry`; whether its conditions held.
pub(crate) fn apply(
    table: &MetaTable,
    index: LogIndex,
    entry: &[u8],
    mark: &[u8],
) -> Result<bool, StorageError> {
    let command = Command::decode(entry).ok_or_else(|| {
        StorageError::corrupt("meta command", format!("does not decode at log index {index}"))
    })?;
    let mut holds = true;
    for (key, value) in &command.expect {
        holds &= table.get(key)? == *value;
    }
    table.apply(index, if holds { &command.writes } else { &[] }, mark)?;
    Ok(holds)
}

/// A replica of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Where it is.
    pub(crate) node: NodeId,
    /// Whether it was there when the shard was made: then it begins as a voter, with the other founders. Later ones
    /// begin as learners.
    pub(crate) founder: bool,
}

/// The cluster as the meta state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) map: ShardMap,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) removed: BTreeSet<NodeId>,
    pub(crate) replicas: BTreeMap<ShardId, BTreeMap<ReplicaId, Placed>>,
    pub(crate) next_replica: u64,
    pub(crate) settings: ClusterSettings,
}

impl Cluster {
    /// The replicas on `node`, by shard.
    pub(crate) fn replicas_on(&self, node: NodeId) -> Vec<(ShardId, ReplicaId, Placed)> {
        let all = self.replicas.iter().flat_map(|(shard, of_shard)| {
            of_shard.iter().map(|(replica, placed)| (*shard, *replica, *placed))
        });
        all.filter(|(_, _, placed)| placed.node == node).collect()
    }

    /// The members as placement sees them.
    pub(crate) fn sites(&self) -> Vec<Site> {
        let site = |(node, member): (&NodeId, &Member)| Site { node: *node, zone: member.zone.clone() };
        self.members.iter().map(site).collect()
    }

    /// The node of a replica, of a shard or of the meta group.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let of_shard = self.replicas.values().find_map(|of_shard| of_shard.get(&replica)).map(|p| p.node);
        let of_meta =
            || self.members.iter().find(|(_, m)| m.meta_replica == replica.0).map(|(node, _)| *node);
        of_shard.or_else(of_meta)
    }

    /// The replica of `shard` that stands for election first, so that leaders are spread from the beginning.
    pub(crate) fn first_leader(&self, shard: ShardId) -> Option<ReplicaId> {
        let of_shard = self.replicas.get(&shard)?;
        of_shard.keys().nth(shard.0 as usize % of_shard.len().max(1)).copied()
    }
}

/// Who forms a cluster, with what.
#[derive(Clone, Debug)]
pub(crate) struct Founding<'a> {
    pub(crate) cluster_id: u64,
    pub(crate) name: &'a str,
    /// The founders with their replicas of the meta group.
    pub(crate) members: &'a BTreeMap<NodeId, Member>,
    /// `replication-factor` and `shards` are in it.
    pub(crate) settings: &'a ClusterSettings,
    pub(crate) shards: u32,
}

/// The command that forms a cluster: done once, since it expects that there is none.
pub(crate) fn form(founding: &Founding<'_>) -> Command {
    let map = ShardMap::initial(founding.shards);
    let mut writes = Vec::new();
    let mut put = |key: Vec<u8>, value: Vec<u8>| writes.push(MetaWrite::Put { key, value });
    put(CLUSTER.to_vec(), format!("{:016x} {}", founding.cluster_id, founding.name).into_bytes());
    for (node, member) in founding.members {
        put(member_key(*node), member.encode());
    }
    let sites = founding.members.iter().map(|(node, m)| Site { node: *node, zone: m.zone.clone() });
    let sites: Vec<Site> = sites.collect();
    let empty: BTreeMap<ShardId, Vec<NodeId>> =
        map.all_shards().into_iter().map(|shard| (shard, Vec::new())).collect();
    let mut replica = founding.members.values().map(|m| m.meta_replica).max().unwrap_or(0) + 1;
    for (shard, node) in missing_replicas(&sites, &empty, founding.settings.replication_factor()) {
        put(replica_key(shard, ReplicaId(replica)), encode_placed(Placed { node, founder: true }));
        replica += 1;
    }
    put(NEXT_REPLICA.to_vec(), replica.to_le_bytes().to_vec());
    put(MAP.to_vec(), topology::coding::encode(&map));
    put(SETTINGS.to_vec(), founding.settings.encode());
    Command { expect: vec![(CLUSTER.to_vec(), None)], writes }
}

/// The command that makes a node a member, with the next replica id as its replica of the meta group.
pub(crate) fn join(cluster: &Cluster, candidate: &Candidate) -> (Command, Member) {
    let member = candidate.clone().into_member(cluster.next_replica);
    let next = cluster.next_replica + 1;
    let command = Command {
        expect: vec![
            (NEXT_REPLICA.to_vec(), Some(cluster.next_replica.to_le_bytes().to_vec())),
            (member_key(candidate.node), None),
            (removed_key(candidate.node), None),
        ],
        writes: vec![
            MetaWrite::Put { key: member_key(candidate.node), value: member.encode() },
            MetaWrite::Put { key: NEXT_REPLICA.to_vec(), value: next.to_le_bytes().to_vec() },
        ],
    };
    (command, member)
}

/// The command that brings a member's record up to what the node says itself now: its address, and what its flags say.
/// When that makes all members' flags agree on something new, the settings follow. `None` when nothing changed.
pub(crate) fn announce(cluster: &Cluster, candidate: &Candidate) -> Option<Command> {
    let old = cluster.members.get(&candidate.node)?;
    let new = candidate.clone().into_member(old.meta_replica);
    if new == *old {
        return None;
    }
    let mut command = Command {
        expect: vec![(member_key(candidate.node), Some(old.encode()))],
        writes: vec![MetaWrite::Put { key: member_key(candidate.node), value: new.encode() }],
    };
    let changed: Vec<String> = new
        .own
        .iter()
        .filter(|(key, value)| old.own.get(*key) != Some(value))
        .map(|(key, _)| key.clone())
        .collect();
    let others: Vec<_> = cluster.members.iter().filter(|(node, _)| **node != candidate.node).collect();
    if !changed.is_empty() {
        // Two nodes that change at once must see each other, or neither would be the last to ask.
        let unchanged = others.iter().map(|(node, member)| (member_key(**node), Some(member.encode())));
        command.expect.extend(unchanged);
    }
    let own: Vec<_> = others.iter().map(|(_, member)| &member.own).chain([&new.own]).collect();
    let asked = cluster.settings.asked_by_all(&own, &changed);
    // What cannot be set stays drift, and is shown as that.
    if !asked.is_empty()
        && let Ok(settings) = cluster.settings.changed(&asked)
    {
        let set = set_settings(&cluster.settings, &settings);
        command.expect.extend(set.expect);
        command.writes.extend(set.writes);
    }
    Some(command)
}

/// The command that places the replicas that are missing; `None` when none is.
pub(crate) fn place_missing(cluster: &Cluster) -> Option<Command> {
    let placed: BTreeMap<ShardId, Vec<NodeId>> = cluster
        .map
        .all_shards()
        .into_iter()
        .map(|shard| {
            let of_shard = cluster.replicas.get(&shard);
            (shard, of_shard.into_iter().flat_map(|r| r.values().map(|placed| placed.node)).collect())
        })
        .collect();
    let factor = cluster.settings.replication_factor();
    // All at once or not at all: a shard goes from one copy to three by one change of its voters.
    if cluster.members.len() < factor {
        return None;
    }
    let missing = missing_replicas(&cluster.sites(), &placed, factor);
    if missing.is_empty() {
        return None;
    }
    let mut writes = Vec::new();
    let mut replica = cluster.next_replica;
    for (shard, node) in missing {
        let value = encode_placed(Placed { node, founder: false });
        writes.push(MetaWrite::Put { key: replica_key(shard, ReplicaId(replica)), value });
        replica += 1;
    }
    writes.push(MetaWrite::Put { key: NEXT_REPLICA.to_vec(), value: replica.to_le_bytes().to_vec() });
    let expect = vec![
        (NEXT_REPLICA.to_vec(), Some(cluster.next_replica.to_le_bytes().to_vec())),
        (SETTINGS.to_vec(), Some(cluster.settings.encode())),
    ];
    Some(Command { expect, writes })
}

/// The command that removes a member that has no replica of a shard, for good.
pub(crate) fn remove_member(node: NodeId, member: &Member) -> Command {
    Command {
        expect: vec![(member_key(node), Some(member.encode()))],
        writes: vec![
            MetaWrite::Delete { key: member_key(node) },
            MetaWrite::Put { key: removed_key(node), value: member.name.clone().into_bytes() },
        ],
    }
}

/// The writes that make of the state that of a cluster of one member, with one replica of each shard and no past.
pub(crate) fn alone(
    cluster: &Cluster,
    cluster_id: u64,
    node: NodeId,
    member: &Member,
    replicas: &BTreeMap<ShardId, ReplicaId>,
    next_replica: u64,
) -> Vec<MetaWrite> {
    let mut gone: Vec<Vec<u8>> = cluster.members.keys().map(|node| member_key(*node)).collect();
    gone.extend(cluster.removed.iter().map(|node| removed_key(*node)));
    for (shard, of_shard) in &cluster.replicas {
        gone.extend(of_shard.keys().map(|replica| replica_key(*shard, *replica)));
    }
    let mut writes: Vec<MetaWrite> = gone.into_iter().map(|key| MetaWrite::Delete { key }).collect();
    let mut put = |key: Vec<u8>, value: Vec<u8>| writes.push(MetaWrite::Put { key, value });
    put(CLUSTER.to_vec(), format!("{cluster_id:016x} {}", cluster.name).into_bytes());
    put(member_key(node), member.encode());
    for (shard, replica) in replicas {
        put(replica_key(*shard, *replica), encode_placed(Placed { node, founder: true }));
    }
    put(NEXT_REPLICA.to_vec(), next_replica.to_le_bytes().to_vec());
    let mut settings = cluster.settings.clone();
    settings.version += 1;
    settings.values.insert("replication-factor".to_owned(), "1".to_owned());
    put(SETTINGS.to_vec(), settings.encode());
    writes
}

/// The command that changes the settings.
pub(crate) fn set_settings(old: &ClusterSettings, new: &ClusterSettings) -> Command {
    Command {
        expect: vec![(SETTINGS.to_vec(), Some(old.encode()))],
        writes: vec![MetaWrite::Put { key: SETTINGS.to_vec(), value: new.encode() }],
    }
}

fn member_key(node: NodeId) -> Vec<u8> {
    format!("member/{:016x}", node.0).into_bytes()
}

fn removed_key(node: NodeId) -> Vec<u8> {
    format!("removed/{:016x}", node.0).into_bytes()
}

fn replica_key(shard: ShardId, replica: ReplicaId) -> Vec<u8> {
    format!("replica/{:08x}/{:016x}", shard.0, replica.0).into_bytes()
}

fn node_of_key(key: &[u8], prefix: &str) -> Option<NodeId> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    u64::from_str_radix(text, 16).ok().map(NodeId)
}

fn decode_replica_key(key: &[u8]) -> Option<(ShardId, ReplicaId)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix("replica/")?;
    let (shard, replica) = text.split_once('/')?;
    Some((ShardId(u32::from_str_radix(shard, 16).ok()?), ReplicaId(u64::from_str_radix(replica, 16).ok()?)))
}

fn encode_placed(placed: Placed) -> Vec<u8> {
    let mut bytes = placed.node.0.to_le_bytes().to_vec();
    bytes.push(u8::from(placed.founder));
    bytes
}

fn decode_placed(bytes: &[u8]) -> Option<Placed> {
    let (node, rest) = bytes.split_first_chunk()?;
    let [founder] = rest else { return None };
    Some(Placed { node: NodeId(u64::from_le_bytes(*node)), founder: *founder != 0 })
}

/// Reads the state; `None` when no cluster was formed.
pub(crate) fn read(table: &MetaTable) -> Result<Option<Cluster>, ReplicationError> {
    let damaged =
        |key: &[u8]| ReplicationError::Meta(format!("record {:?} is damaged", String::from_utf8_lossy(key)));
    let Some(cluster) = table.get(CLUSTER)? else { return Ok(None) };
    let cluster = String::from_utf8(cluster).map_err(|_| damaged(CLUSTER))?;
    let (id, name) = cluster.split_once(' ').ok_or_else(|| damaged(CLUSTER))?;
    let id = u64::from_str_radix(id, 16).map_err(|_| damaged(CLUSTER))?;
    let map = table.get(MAP)?.ok_or_else(|| damaged(MAP))?;
    let map = topology::coding::decode(&map).map_err(|error| ReplicationError::Meta(error.to_string()))?;
    let mut members = BTreeMap::new();
    for (key, value) in table.scan(b"member/")? {
        let node = node_of_key(&key, "member/").ok_or_else(|| damaged(&key))?;
        members.insert(node, Member::decode(&value).ok_or_else(|| damaged(&key))?);
    }
    let mut removed = BTreeSet::new();
    for (key, _) in table.scan(b"removed/")? {
        removed.insert(node_of_key(&key, "removed/").ok_or_else(|| damaged(&key))?);
    }
    let mut replicas: BTreeMap<ShardId, BTreeMap<ReplicaId, Placed>> = BTreeMap::new();
    for (key, value) in table.scan(b"replica/")? {
        let (shard, replica) = decode_replica_key(&key).ok_or_else(|| damaged(&key))?;
        let placed = decode_placed(&value).ok_or_else(|| damaged(&key))?;
        replicas.entry(shard).or_default().insert(replica, placed);
    }
    let next = table.get(NEXT_REPLICA)?.ok_or_else(|| damaged(NEXT_REPLICA))?;
    let next_replica =
        next.as_slice().try_into().map(u64::from_le_bytes).map_err(|_| damaged(NEXT_REPLICA))?;
    let settings = ClusterSettings::decode(&table.get(SETTINGS)?.unwrap_or_default())?;
    let name = name.to_owned();
    Ok(Some(Cluster { id, name, map, members, removed, replicas, next_replica, settings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founders(count: u64) -> BTreeMap<NodeId, Member> {
        let member = |n: u64| Member {
            name: format!("n{n}"),
            zone: String::new(),
            address: format!("127.0.0.1:{}", 9000 + n),
            meta_replica: n,
            own: BTreeMap::from([("retention".to_owned(), "15d".to_owned())]),
        };
        (1..=count).map(|n| (NodeId(n * 100), member(n))).collect()
    }

    fn settings(factor: &str) -> ClusterSettings {
        let values = BTreeMap::from([("replication-factor".to_owned(), factor.to_owned())]);
        ClusterSettings { version: 1, values }
    }

    fn form_with(members: &BTreeMap<NodeId, Member>, settings: &ClusterSettings) -> Command {
        form(&Founding { cluster_id: 7, name: "eu", members, settings, shards: 4 })
    }

    /// A table, and what applies commands to it.
    fn table() -> (tempfile::TempDir, std::sync::Arc<storage::Store>, impl FnMut(&Command) -> bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        let store = storage::Store::open(dir.path(), storage::StoreConfig::default(), &mut registry).unwrap();
        let (applied, mut index) = (std::sync::Arc::clone(&store), 0);
        let run = move |command: &Command| {
            index += 1;
            apply(applied.meta(), LogIndex(index), &command.encode(), b"mark").unwrap()
        };
        (dir, store, run)
    }

    #[test]
    fn commands_come_back_and_bad_ones_do_not() {
        let mut command = form_with(&founders(3), &settings("3"));
        command.writes.push(MetaWrite::Delete { key: b"x".to_vec() });
        command.expect.push((b"y".to_vec(), Some(b"z".to_vec())));
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes), Some(command));
        assert_eq!(Command::decode(&[2]), None);
        assert_eq!(Command::decode(&[]), None);
        for cut in 1..bytes.len() {
            // A cut at the border of a write is a shorter command; none may panic.
            let _ = Command::decode(&bytes[..cut]);
        }
        assert_eq!(
            decode_replica_key(&replica_key(ShardId(3), ReplicaId(4))),
            Some((ShardId(3), ReplicaId(4)))
        );
    }

    #[test]
    fn a_cluster_is_formed_once_joined_grown_and_keeps_ids_unique() {
        let (_dir, store, mut run) = table();
        assert_eq!(read(store.meta()).unwrap(), None);
        assert!(run(&form_with(&founders(1), &settings("1"))));
        assert!(!run(&form_with(&founders(3), &settings("3"))), "a second forming changes nothing");
        let cluster = read(store.meta()).unwrap().unwrap();
        assert_eq!((cluster.id, cluster.name.as_str(), cluster.members.len()), (7, "eu", 1));
        assert_eq!(cluster.replicas_on(NodeId(100)).len(), 4);
        assert_eq!(cluster.next_replica, 6);
        let candidate = |n| Candidate {
            node: NodeId(n),
            name: "late".into(),
            zone: String::new(),
            address: "h:1".into(),
            own: BTreeMap::new(),
        };
        let (command, member) = join(&cluster, &candidate(1));
        assert!(run(&command) && member.meta_replica == 6);
        assert!(!run(&join(&cluster, &candidate(2)).0), "made from an older state");
        let (command, _) = join(&read(store.meta()).unwrap().unwrap(), &candidate(2));
        assert!(run(&command));
        let cluster = read(store.meta()).unwrap().unwrap();
        assert_eq!(place_missing(&cluster), None);
        let more = cluster.settings.changed(&[("replication-factor".into(), "3".into())]).unwrap();
        assert!(run(&set_settings(&cluster.settings, &more)));
        let cluster = read(store.meta()).unwrap().unwrap();
        assert!(run(&place_missing(&cluster).unwrap()));
        assert!(!run(&place_missing(&cluster).unwrap()), "placing twice would issue ids twice");
        let cluster = read(store.meta()).unwrap().unwrap();
        assert!(cluster.replicas.values().all(|of_shard| of_shard.len() == 3));
        let ids: BTreeSet<u64> = cluster.replicas.values().flatten().map(|(id, _)| id.0).collect();
        assert_eq!(ids.len(), 12);
        assert_eq!(place_missing(&cluster), None);
    }

    #[test]
    fn who_is_removed_cannot_join_again() {
        let (_dir, store, mut run) = table();
        assert!(run(&form_with(&founders(3), &settings("1"))));
        let cluster = read(store.meta()).unwrap().unwrap();
        let gone = NodeId(300);
        assert!(run(&remove_member(gone, &cluster.members[&gone])));
        let cluster = read(store.meta()).unwrap().unwrap();
        assert!(cluster.removed.contains(&gone) && !cluster.members.contains_key(&gone));
        let candidate = Candidate {
            node: gone,
            name: "x".into(),
            zone: String::new(),
            address: "h:1".into(),
            own: BTreeMap::new(),
        };
        assert!(!run(&join(&cluster, &candidate).0));
    }

    #[test]
    fn addresses_move_and_flags_that_all_nodes_have_become_the_setting() {
        let (_dir, store, mut run) = table();
        assert!(run(&form_with(&founders(2), &settings("1"))));
        for (node, retention, set) in [(100, "30d", None), (200, "30d", Some("30d"))] {
            let cluster = read(store.meta()).unwrap().unwrap();
            let candidate = Candidate {
                node: NodeId(node),
                name: "moved".into(),
                zone: String::new(),
                address: "elsewhere:1".into(),
                own: BTreeMap::from([("retention".to_owned(), retention.to_owned())]),
            };
            assert!(run(&announce(&cluster, &candidate).unwrap()));
            let cluster = read(store.meta()).unwrap().unwrap();
            assert_eq!(cluster.members[&NodeId(node)].address, "elsewhere:1");
            assert_eq!(cluster.settings.values.get("retention").map(String::as_str), set);
            assert_eq!(announce(&cluster, &candidate), None);
        }
    }
}
