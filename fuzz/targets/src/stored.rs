//! What is on the disk. Checksums are made right first, so that what lies behind them is reached: they find damage, not
//! a defect of whoever wrote.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use model::seam::fake::ManualClock;
use model::seam::{SeriesData, ShardBatch};
use model::{Labels, LogIndex, Matcher, ReplicaId, ShardId, TimeRange};
use prometheus_client::registry::Registry;
use storage::index::{MemIndex, SealedIndex, SeriesIndex};
use storage::kv::{Kv, MemoryKv};
use storage::log::{FaultyFiles, GroupId, LogConfig, LogEntry, LogError, LogFiles, LogId, NodeLog};
use storage::page::{PageReader, PageScratch};
use storage::{Incoming, Shard, Store, StoreConfig, Subject};

/// A page without its checksum.
pub(crate) fn page(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    let Ok(page) = PageReader::open(bytes) else { return };
    assert!(page.min_time() <= page.max_time());
    let (mut scratch, mut series) = (PageScratch::new(), SeriesData::default());
    let known: Vec<_> = page.series().collect();
    for (at, entry) in known.iter().enumerate() {
        assert_eq!(page.find(entry.slot), Some(at));
        series.clear();
        if page.read(at, TimeRange::ALL, &mut scratch, &mut series).is_ok() {
            assert!(series.stamps.len() <= entry.rows);
            assert_eq!(series.stamps.len(), series.values.len());
        }
    }
}

/// An index block, whose length and checksum are made right.
pub(crate) fn index(data: &[u8]) {
    let mut bytes = data.to_vec();
    if bytes.len() >= 12 {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(index) = SealedIndex::open(bytes) else { return };
    let _ = index.label_names(None);
    let _ = index.label_values("job", None);
    for matcher in [Matcher::equal("job", "a"), Matcher::equal("job", "")] {
        if let Ok(found) = index.select(&[matcher]) {
            let _ = index.label_names(Some(&found));
        }
    }
    let mut all = 0u64;
    if let Ok(everything) = index.select(&[])
        && index.visit_labels(&everything, &mut |_, _| count(&mut all)).is_ok()
    {
        assert!(all <= index.len());
    }
}

fn count(all: &mut u64) -> bool {
    *all += 1;
    true
}

/// An index of a few series, for the seeds.
pub(crate) fn some_index() -> Vec<u8> {
    let mut index = MemIndex::new();
    for (ordinal, job) in (0..).zip(["a", "a", "b"]) {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", job)]).expect("a label set");
        index.insert(ordinal, &labels);
    }
    let mut out = Vec::new();
    index.seal(&mut out).expect("memory is written");
    out
}

/// An entry that writes `batch`, for the seeds.
pub(crate) fn some_entry(batch: ShardBatch) -> Vec<u8> {
    let shard = empty_shard();
    shard.begin_term(1);
    shard.plan(&[Arc::new(batch)], 1_700_000_000_000).entry
}

/// The state of a shard that holds `batch`, as the target reads it, for the seeds.
pub(crate) fn some_transfer(batch: ShardBatch) -> Vec<u8> {
    let shard = empty_shard();
    shard.begin_term(1);
    let plan = shard.plan(&[Arc::new(batch)], 1_700_000_000_000);
    shard.apply(LogIndex(1), &plan.entry, b"mark").expect("what was planned applies");
    let mut out = Vec::new();
    let mut give = |mut piece: Vec<u8>| {
        piece.drain(1..5);
        out.extend_from_slice(&(piece.len() as u16).to_le_bytes());
        out.append(&mut piece);
        true
    };
    shard.export(&HashSet::new(), &mut give).expect("memory is read");
    out
}

fn empty_shard() -> Arc<Shard> {
    let kv = Arc::new(MemoryKv::new()) as Arc<dyn Kv>;
    let store = Store::with_kv(kv, StoreConfig::default(), &mut Registry::default());
    store.and_then(|store| store.shard(ShardId(0), ReplicaId(1))).expect("memory opens")
}

/// An entry of a shard's log without its checksum: {version, kind, body}; applied to an empty shard, twice.
pub(crate) fn entry(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<2>() else { return };
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(head), body).to_le_bytes());
    bytes.extend_from_slice(body);
    let shard = empty_shard();
    if shard.apply(LogIndex(1), &bytes, b"").is_ok() {
        let hash = shard.state_hash();
        assert!(
            shard.apply(LogIndex(1), &bytes, b"").is_ok_and(|reports| reports.is_empty()),
            "applied once"
        );
        assert_eq!(shard.state_hash(), hash);
        let _ = shard.apply(LogIndex(2), &bytes, b"");
    }
}

const GROUPS: [GroupId; 2] = [GroupId(7), GroupId(9)];

fn log_entry(group: GroupId, index: u64) -> LogEntry {
    let bytes: Vec<u8> = (0..index * 9 + group.0).map(|at| (at * index) as u8).collect();
    LogEntry { id: LogId { term: 1 + index / 3, index }, tag: 1, bytes: Bytes::from(bytes) }
}

/// Damage to a log of two groups, in pieces of {place, 2 bytes; length, 1 byte; bytes}. No damaged entry is ever given.
pub(crate) fn log(data: &[u8]) {
    let config = LogConfig { segment_bytes: 16 << 10, ..LogConfig::default() };
    let open = |files: &FaultyFiles| {
        NodeLog::open(
            Arc::new(files.clone()),
            config.clone(),
            Arc::new(ManualClock::new(0)),
            &mut Registry::default(),
        )
    };
    let files = FaultyFiles::new();
    let log = open(&files).expect("an empty log opens");
    for index in 1..6 {
        for group in GROUPS {
            log.append_wait(group, vec![log_entry(group, index)]).expect("memory is written");
        }
    }
    log.close().expect("memory is written");
    let files = files.killed();
    let name = files.list().expect("memory lists").into_iter().max().unwrap_or_default();
    files.damage(&name, |bytes| {
        let mut rest = data;
        while let [low, high, length, tail @ ..] = rest {
            let (piece, after) = tail.split_at(usize::from(*length).min(tail.len()));
            let at = usize::from(u16::from_le_bytes([*low, *high])) % bytes.len().max(1);
            let end = (at + piece.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
            rest = after;
        }
    });
    let log = match open(&files) {
        Ok(log) => log,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for group in GROUPS {
        for index in 1..6 {
            match log.read(group, index, index + 1, 1 << 20) {
                Ok(found) => {
                    for entry in found {
                        assert_eq!(entry, log_entry(group, index), "an entry is given whole or not at all");
                    }
                }
                Err(LogError::Failed { .. }) => panic!("the log failed while it was read"),
                Err(_) => {}
            }
        }
    }
    let _ = log.close();
}

/// Pieces of state from another node, each after its length (2 bytes), without their checksums.
pub(crate) fn state_transfer(data: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let subject = Subject::Shard(ShardId(0));
    let Ok(mut incoming) = Incoming::open(&folder.path().join("in"), subject) else { return };
    let mut rest = data;
    let mut taken = 0;
    while let [low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (piece, after) = tail.split_at(length.min(tail.len()));
        rest = after;
        let Some((version, body)) = piece.split_first() else { continue };
        let mut sealed = vec![*version];
        sealed.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&[*version]), body).to_le_bytes());
        sealed.extend_from_slice(body);
        match incoming.take(&sealed) {
            Ok(complete) => assert_eq!(complete, incoming.is_complete()),
            Err(_) => break,
        }
        taken += 1;
    }
    assert!(incoming.known().len() <= taken);
    if incoming.is_complete() {
        let again = Incoming::open(&folder.path().join("in"), subject).expect("what was taken opens");
        assert!(again.is_complete());
        let kv = Arc::new(MemoryKv::new()) as Arc<dyn Kv>;
        let store = Store::with_kv(kv, StoreConfig::default(), &mut Registry::default());
        let store = store.expect("memory opens");
        if store.install(subject, ReplicaId(2), &again).is_ok() {
            let _ = store.shard(ShardId(0), ReplicaId(2));
        }
    }
}
