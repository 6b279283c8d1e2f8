//! Damage is told, never served, and moved away by a salvage; and a shard comes back from a database on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Code, LogIndex, ReplicaId, ShardId, TimeRange};
use prometheus_client::registry::Registry;

use super::*;
use crate::{StorageError, Store, StoreConfig};

#[test]
fn damage_is_told_and_never_served() {
    let mut node = Node::new();
    for k in 0..40 {
        node.write(batch(&[(0, vec![(START + k * 1000, k as u64)])], None));
    }
    node.shard.flush().unwrap();
    let key = node.kv.keys(Family::Pages).remove(0);
    let range = TimeRange::ALL;
    let whole = read(&*node.shard.reader(), any_series(), range).unwrap();
    let len = node.kv.get(Family::Pages, &key).unwrap().unwrap().len();
    for at in 0..len {
        node.kv.damage(Family::Pages, &key, |v| v[at] ^= 16);
        let failure = read(&*node.shard.reader(), any_series(), range).unwrap_err();
        assert_eq!(failure.code, Code::Corrupt);
        assert!(failure.message.contains("source 0"), "{failure}");
        node.kv.damage(Family::Pages, &key, |v| v[at] ^= 16);
    }
    assert_eq!(read(&*node.shard.reader(), any_series(), range).unwrap(), whole);
    for key in node.kv.keys(Family::State) {
        node.kv.damage(Family::State, &key, |v| *v.last_mut().unwrap() ^= 1);
        assert!(matches!(open(&node.kv), Err(StorageError::Corrupt { .. })), "{key:?}");
        node.kv.damage(Family::State, &key, |v| *v.last_mut().unwrap() ^= 1);
    }
    open(&node.kv).unwrap();
}

#[test]
fn salvage_moves_what_is_damaged_and_the_rest_opens() {
    use crate::salvage::salvage_kv;
    let mut node = Node::new();
    for k in 0..40 {
        node.write(batch(&[(0, vec![(START + k * 1000, k as u64)]), (6, vec![(START + k * 1000, 1)])], None));
    }
    node.shard.flush().unwrap();
    assert_eq!(salvage_kv(&*node.kv, true).unwrap().damaged, []);
    // The only page of source 0, and everything of source 1.
    let page = node.kv.keys(Family::Pages).remove(0);
    node.kv.damage(Family::Pages, &page, |v| v[7] ^= 1);
    node.kv.damage(Family::State, &[0, 0, 0, 3, 1, 0, 0, 0, 1], |v| v[9] ^= 1);
    assert!(open(&node.kv).is_err());
    let report = salvage_kv(&*node.kv, false).unwrap();
    assert_eq!((report.damaged.len(), report.damaged.iter().any(|d| d.moved)), (3, false));
    let report = salvage_kv(&*node.kv, true).unwrap();
    assert!(report.damaged.iter().all(|d| d.moved), "{report:?}");
    assert_eq!(node.kv.keys(Family::Quarantine).len(), 3);
    node.shard = open(&node.kv).unwrap();
    let left = node.read(any_series(), TimeRange::ALL);
    assert_eq!(left.keys().collect::<Vec<_>>(), [&labels(0)], "the open rows of source 0 are still there");
    assert!(left[&labels(0)].len() < 40);
    // Without the mark the shard cannot be what it was: it stays, and opening goes on to refuse.
    node.kv.damage(Family::State, &[0, 0, 0, 3, 0], |v| v[9] ^= 1);
    assert!(!salvage_kv(&*node.kv, true).unwrap().damaged[0].moved);
    assert!(open(&node.kv).is_err());
}

#[test]
fn a_shard_on_rocksdb_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(dir.path(), StoreConfig::default(), &mut Registry::default()).unwrap();
        let shards = [1, 2].map(|id| store.shard(ShardId(id), ReplicaId(1)).unwrap());
        (store, shards)
    };
    let (store, shards) = open();
    for (i, shard) in shards.iter().enumerate() {
        shard.begin_term(1);
        for k in 0..100u64 {
            let request = batch(&[(i, vec![(START + k as i64 * 15_000, k)])], None);
            let plan = shard.plan(&[Arc::new(request)], START + k as i64 * 15_000);
            shard.apply(LogIndex(k), &plan.entry, b"mark").unwrap();
        }
    }
    store.flush(&shards).unwrap();
    while shards[0].merge_step(1 << 20).unwrap().more {}
    store.flush(&shards).unwrap();
    assert!(store.disk_bytes() > 0);
    assert_eq!(store.status(None, 10).series, 2);
    let hashes = shards.each_ref().map(|s| s.state_hash());
    drop((store, shards));
    let (_store, shards) = open();
    assert_eq!(shards.each_ref().map(|s| s.state_hash()), hashes);
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(shard.durable(), (LogIndex(99), b"mark".to_vec()));
        let found = read(&*shard.reader(), any_series(), TimeRange::ALL).unwrap();
        let samples: Vec<_> = (0..100).map(|k| (START + k * 15_000, k as u64)).collect();
        assert_eq!(found, BTreeMap::from([(labels(i), samples)]));
    }
}
