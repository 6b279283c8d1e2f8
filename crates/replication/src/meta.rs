//! The meta group's state: who is in the cluster, its settings, the shard map, who has which replica.
//!
//! Keys are text, values are small; a command is a list of conditions (keys and the values they must have) and the
//! writes made when all hold, so that every change is a compare-and-set. Code here is the same on every replica.
//!
//! | key | value |
//! |---|---|
//! | `cluster` | id and name |
//! | `member/NODE` | the node's name |
//! | `map` | the shard map |
//! | `next-replica` | the next replica id to issue |
//! | `replica/SHARD/REPLICA` | the node that the replica is on |
//! | `settings` | the settings document |

use model::{LogIndex, NodeId, ReplicaId, ShardId};
use storage::{MetaTable, MetaWrite, StorageError};
use topology::ShardMap;

use crate::ReplicationError;

const VERSION: u8 = 1;

pub(crate) const CLUSTER: &[u8] = b"cluster";
pub(crate) const MAP: &[u8] = b"map";
pub(crate) const NEXT_REPLICA: &[u8] = b"next-replica";
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

/// The cluster as the meta state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) map: ShardMap,
    /// This node's replicas.
    pub(crate) replicas: Vec<(ShardId, ReplicaId)>,
}

/// The command that forms a cluster of `shards` shards, all on `node`: done once, since it expects that there is none.
pub(crate) fn form(
    cluster_id: u64,
    name: &str,
    node: NodeId,
    node_name: &str,
    meta_replica: u64,
    shards: u32,
) -> Command {
    let map = ShardMap::initial(shards);
    let mut writes = Vec::new();
    let mut put = |key: Vec<u8>, value: Vec<u8>| writes.push(MetaWrite::Put { key, value });
    put(CLUSTER.to_vec(), format!("{cluster_id:016x} {name}").into_bytes());
    put(member_key(node), node_name.as_bytes().to_vec());
    let mut replica = meta_replica + 1;
    for shard in map.all_shards() {
        put(replica_key(shard, ReplicaId(replica)), node.0.to_le_bytes().to_vec());
        replica += 1;
    }
    put(NEXT_REPLICA.to_vec(), replica.to_le_bytes().to_vec());
    put(MAP.to_vec(), topology::coding::encode(&map));
    Command { expect: vec![(CLUSTER.to_vec(), None)], writes }
}

pub(crate) fn member_key(node: NodeId) -> Vec<u8> {
    format!("member/{:016x}", node.0).into_bytes()
}

fn replica_key(shard: ShardId, replica: ReplicaId) -> Vec<u8> {
    format!("replica/{:08x}/{:016x}", shard.0, replica.0).into_bytes()
}

fn decode_replica_key(key: &[u8]) -> Option<(ShardId, ReplicaId)> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix("replica/")?;
    let (shard, replica) = text.split_once('/')?;
    Some((ShardId(u32::from_str_radix(shard, 16).ok()?), ReplicaId(u64::from_str_radix(replica, 16).ok()?)))
}

/// Reads the state; `None` when no cluster was formed.
pub(crate) fn read(table: &MetaTable, node: NodeId) -> Result<Option<Cluster>, ReplicationError> {
    let Some(map) = table.get(MAP)? else { return Ok(None) };
    let map = topology::coding::decode(&map).map_err(|error| ReplicationError::Meta(error.to_string()))?;
    let mut replicas = Vec::new();
    for (key, value) in table.scan(b"replica/")? {
        let id = decode_replica_key(&key);
        let on = value.as_slice().try_into().map(u64::from_le_bytes);
        let (Some(id), Ok(on)) = (id, on) else {
            return Err(ReplicationError::Meta(format!(
                "replica record {} is damaged",
                String::from_utf8_lossy(&key)
            )));
        };
        if on == node.0 {
            replicas.push(id);
        }
    }
    Ok(Some(Cluster { map, replicas }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_and_bad_ones_do_not() {
        let mut command = form(7, "eu", NodeId(9), "a", 1, 8);
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
}
