//! A shard's state given to another node, and taken over from one.

use std::collections::HashSet;

use model::{ReplicaId, ShardId};

use super::days::Days;
use super::keys::{self, StateKind};
use super::{Shard, State, persist};
use crate::StorageError;
use crate::codec::{Reader, open_record, put_varint, seal_record};
use crate::kv::{Batch, Family, Kv, prefix_end};
use crate::transfer::{Give, Incoming, Packer, Subject, write_all};

/// The families that a shard has records in.
const FAMILIES: [Family; 3] = [Family::State, Family::Pages, Family::Index];

impl Shard {
    /// Gives the shard's state in pieces, as it is at one durable mark (it is flushed first): day by day from the oldest,
    /// then the state records. Pieces in `known` are only named. Writes and flushes go on meanwhile. Ends early when
    /// `give` wants no more.
    pub fn export(&self, known: &HashSet<u128>, give: &mut Give<'_>) -> Result<(), StorageError> {
        // Neither flushes nor merges write while the cursors are made: they see one state.
        let merging = self.merging.lock();
        self.flush()?;
        let flushing = self.flushing.lock();
        let mark = self.durable();
        let days: Vec<i64> = self.days.known.read().keys().copied().collect();
        let [mut state, mut pages, mut index] = FAMILIES.map(|family| self.kv.cursor(family));
        drop((flushing, merging));
        let mut packer = Packer::begin(Subject::Shard(self.id), &mark, known, give);
        for day in days {
            let prefix = keys::day(day, self.id);
            for (family, cursor) in [(Family::Pages, &mut pages), (Family::Index, &mut index)] {
                packer.part(family);
                cursor.seek(&prefix);
                while let Some((key, value)) = cursor.entry().filter(|(key, _)| key.starts_with(&prefix)) {
                    packer.record(key, value);
                    if !packer.wanted() {
                        return Ok(());
                    }
                    cursor.advance();
                }
                cursor.check()?;
            }
        }
        packer.part(Family::State);
        let prefix = self.id.0.to_be_bytes();
        state.seek(&prefix);
        while let Some((key, value)) = state.entry().filter(|(key, _)| key.starts_with(&prefix)) {
            packer.record(key, value);
            if !packer.wanted() {
                return Ok(());
            }
            state.advance();
        }
        state.check()?;
        packer.end();
        Ok(())
    }

    /// Replaces everything by what `incoming` holds, as `replica`. Reads and writes wait meanwhile. Durable when it
    /// returns. After a failure the shard is unusable until the same is done again, which the next start does.
    pub(crate) fn install(&self, replica: ReplicaId, incoming: &Incoming) -> Result<(), StorageError> {
        let mut position = self.merging.lock();
        let _no_flush = self.flushing.lock();
        let mut planner = self.planner.lock();
        let mut state = self.state.write();
        let installed = replace(&*self.kv, self.id, replica, incoming)
            .and_then(|()| persist::load(&*self.kv, self.id, replica))
            .and_then(|loaded| Ok((loaded, Days::load(&*self.kv, self.id)?)));
        let ((head, mark), days) = match installed {
            Ok(installed) => installed,
            Err(error) => {
                state.broken = Some(format!("state from another node was not taken over: {error}"));
                return Err(error);
            }
        };
        self.metrics.series.inc_by(head.n_active() as i64 - state.head.n_active() as i64);
        self.days.replace(days);
        self.days.revive(&head.sources.iter().flat_map(|s| s.tile.iter().flat_map(|t| t.days())).collect());
        *self.durable.lock() = (mark.index, mark.bytes.clone());
        self.fresh_pages.lock().clear();
        *position = super::merge::Position::default();
        *planner = super::Planner::default();
        *state = State::new(head, mark);
        Ok(())
    }
}

/// Replaces a shard's records in the database; durable when it returns. Made again from the beginning after a crash.
pub(crate) fn replace(
    kv: &dyn Kv,
    shard: ShardId,
    replica: ReplicaId,
    incoming: &Incoming,
) -> Result<(), StorageError> {
    let end = |prefix: &[u8]| prefix_end(prefix).unwrap_or_else(|| vec![0xff; 16]);
    let mut days = HashSet::new();
    for family in [Family::Pages, Family::Index] {
        scan_days(kv, family, shard, &mut days)?;
    }
    let mut batch = Batch::default();
    for day in days {
        let prefix = keys::day(day, shard);
        for family in [Family::Pages, Family::Index] {
            batch.delete_range(family, prefix.clone(), end(&prefix));
        }
    }
    let prefix = shard.0.to_be_bytes().to_vec();
    batch.delete_range(Family::State, prefix.clone(), end(&prefix));
    kv.write(batch)?;
    let mark_key = keys::state(shard, StateKind::Mark);
    write_all(kv, incoming, &FAMILIES, |family, key, value| {
        if family == Family::State && key == mark_key {
            return own_mark(value, replica);
        }
        let of_shard = if family == Family::State { key.get(..4) } else { key.get(5..9) };
        if of_shard != Some(&prefix[..]) {
            return Err(StorageError::corrupt("state from another node", "a record of another shard"));
        }
        Ok(value.to_vec())
    })?;
    kv.flush()
}

/// Days in which the shard has records, also of an installation that was cut short.
fn scan_days(
    kv: &dyn Kv,
    family: Family,
    shard: ShardId,
    days: &mut HashSet<i64>,
) -> Result<(), StorageError> {
    let mut cursor = kv.cursor(family);
    cursor.seek(&[keys::CLASS]);
    while let Some(day) = cursor.entry().and_then(|(key, _)| keys::day_of_key(key)) {
        let prefix = keys::day(day, shard);
        cursor.seek(&prefix);
        if cursor.entry().is_some_and(|(key, _)| key.starts_with(&prefix)) {
            days.insert(day);
        }
        cursor.seek(&keys::day(day + 1, ShardId(0)));
    }
    cursor.check()
}

/// The mark record as another replica's.
fn own_mark(record: &[u8], replica: ReplicaId) -> Result<Vec<u8>, StorageError> {
    let bad = |e: crate::codec::DecodeError| StorageError::corrupt("mark from another node", e.to_string());
    let body = open_record(persist::STATE_VERSION, record).map_err(bad)?;
    let mut reader = Reader::new(body);
    reader.varint().map_err(bad)?;
    let mut own = Vec::with_capacity(body.len() + 8);
    put_varint(&mut own, replica.0);
    own.extend_from_slice(&body[body.len() - reader.left()..]);
    Ok(seal_record(persist::STATE_VERSION, &own))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use model::{LogIndex, TimeRange};
    use prometheus_client::registry::Registry;

    use super::super::tests::{Node, SERIES, START, any_series, batch, read};
    use super::*;
    use crate::head::DAY_MS;
    use crate::kv::{Faults, MemoryKv};
    use crate::{Store, StoreConfig};

    /// A shard with two days of samples, flushed and not.
    fn filled() -> Node {
        let mut node = Node::new();
        for step in 0..150_i64 {
            let stamp = START + step * 1_000_000;
            let all: Vec<_> =
                (0..SERIES).map(|i| (i, vec![(stamp, (step * 31 + i as i64) as u64)])).collect();
            node.write(batch(&all, None));
            if step == 70 {
                node.shard.flush().unwrap();
            }
        }
        node
    }

    fn pieces(shard: &Shard, known: &HashSet<u128>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        shard
            .export(known, &mut |piece| {
                pieces.push(piece);
                true
            })
            .unwrap();
        pieces
    }

    fn receive(dir: &Path, pieces: &[Vec<u8>]) -> Incoming {
        let mut incoming = Incoming::open(dir, Subject::Shard(ShardId(3))).unwrap();
        incoming.restart().unwrap();
        for (at, piece) in pieces.iter().enumerate() {
            assert_eq!(incoming.take(piece).unwrap(), at + 1 == pieces.len());
        }
        incoming
    }

    fn store(kv: &Arc<MemoryKv>) -> Arc<Store> {
        let kv = Arc::clone(kv) as Arc<dyn Kv>;
        Store::with_kv(kv, StoreConfig::default(), &mut Registry::default()).unwrap()
    }

    #[test]
    fn a_shard_taken_over_is_the_same_shard() {
        let from = filled();
        let dir = tempfile::tempdir().unwrap();
        let sent = pieces(&from.shard, &HashSet::new());
        let incoming = receive(dir.path(), &sent);
        let kv = Arc::new(MemoryKv::new());
        let store = store(&kv);
        let shard = store.shard(ShardId(3), ReplicaId(8)).unwrap();
        // It has another history of its own, which goes.
        let other = Node::new();
        drop(other);
        store.install(Subject::Shard(ShardId(3)), ReplicaId(8), &incoming).unwrap();
        assert_eq!(shard.state_hash(), from.shard.state_hash());
        assert_eq!(shard.durable(), from.shard.durable());
        let all = |shard: &Arc<Shard>| read(&*shard.reader(), any_series(), TimeRange::ALL).unwrap();
        assert_eq!(all(&shard), all(&from.shard));
        assert_eq!(all(&shard).len(), SERIES);
        // It is durable, and belongs to the replica that took it over.
        kv.cut_power();
        let again = self::store(&kv);
        assert!(again.shard(ShardId(3), ReplicaId(1)).is_err(), "another replica's");
        let again = again.shard(ShardId(3), ReplicaId(8)).unwrap();
        assert_eq!(all(&again), all(&from.shard));
        // The next entry has the same effect on both.
        let entry = from.shard.plan_retention(START - 90 * DAY_MS, START + DAY_MS);
        let index = LogIndex(from.shard.state_hash().0.0 + 1);
        from.shard.apply(index, &entry, b"m").unwrap();
        again.apply(index, &entry, b"m").unwrap();
        assert_eq!(again.state_hash(), from.shard.state_hash());
    }

    #[test]
    fn a_broken_transfer_goes_on_and_pieces_are_used_again() {
        let mut from = filled();
        let dir = tempfile::tempdir().unwrap();
        let sent = pieces(&from.shard, &HashSet::new());
        assert!(sent.len() > 4, "{} pieces", sent.len());
        let mut incoming = Incoming::open(dir.path(), Subject::Shard(ShardId(3))).unwrap();
        for piece in &sent[..sent.len() - 1] {
            assert!(!incoming.take(piece).unwrap());
        }
        drop(incoming);
        from.tick();
        let mut incoming = Incoming::open(dir.path(), Subject::Shard(ShardId(3))).unwrap();
        assert!(!incoming.is_complete());
        let known: HashSet<u128> = incoming.known().into_iter().collect();
        let again = pieces(&from.shard, &known);
        let bytes = |pieces: &[Vec<u8>]| pieces.iter().map(Vec::len).sum::<usize>();
        assert!(bytes(&again) < bytes(&sent), "{} of {} bytes again", bytes(&again), bytes(&sent));
        incoming.restart().unwrap();
        for piece in &again {
            incoming.take(piece).unwrap();
        }
        assert!(incoming.is_complete());
        assert!(Incoming::open(dir.path(), Subject::Shard(ShardId(3))).unwrap().is_complete());
        assert!(!Incoming::open(dir.path(), Subject::Shard(ShardId(4))).unwrap().is_complete());
        let kv = Arc::new(MemoryKv::new());
        let store = store(&kv);
        store.install(Subject::Shard(ShardId(3)), ReplicaId(2), &incoming).unwrap();
        let shard = store.shard(ShardId(3), ReplicaId(2)).unwrap();
        assert_eq!(shard.state_hash(), from.shard.state_hash());
        incoming.remove().unwrap();
        assert!(!dir.path().try_exists().unwrap());
    }

    #[test]
    fn damaged_missing_and_foreign_pieces_are_refused() {
        let from = filled();
        let sent = pieces(&from.shard, &HashSet::new());
        for at in 0..sent.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut incoming = Incoming::open(dir.path(), Subject::Shard(ShardId(3))).unwrap();
            let mut failed = false;
            for (number, piece) in sent.iter().enumerate() {
                let mut piece = piece.clone();
                if number == at {
                    let middle = piece.len() / 2;
                    piece[middle] ^= 1;
                }
                failed |= incoming.take(&piece).is_err();
                if failed {
                    break;
                }
            }
            assert!(failed && !incoming.is_complete(), "piece {at}");
            // One left out is noticed at the end.
            let dir = tempfile::tempdir().unwrap();
            let mut incoming = Incoming::open(dir.path(), Subject::Shard(ShardId(3))).unwrap();
            let results: Vec<bool> = sent
                .iter()
                .enumerate()
                .filter(|(number, _)| *number != at)
                .map(|(_, piece)| incoming.take(piece).is_ok())
                .collect();
            assert!(results.contains(&false) || !incoming.is_complete(), "piece {at} left out");
        }
        let dir = tempfile::tempdir().unwrap();
        let mut other = Incoming::open(dir.path(), Subject::Shard(ShardId(4))).unwrap();
        assert!(other.take(&sent[0]).unwrap_err().to_string().contains("another shard"));
    }

    #[test]
    fn an_installation_cut_short_is_made_again() {
        let from = filled();
        let dir = tempfile::tempdir().unwrap();
        let incoming = receive(dir.path(), &pieces(&from.shard, &HashSet::new()));
        let kv = Arc::new(MemoryKv::new());
        {
            let store = store(&kv);
            let shard = store.shard(ShardId(3), ReplicaId(2)).unwrap();
            let before = shard.state_hash();
            kv.set_faults(Faults { flush_fails: true, ..Faults::default() });
            store.install(Subject::Shard(ShardId(3)), ReplicaId(2), &incoming).unwrap_err();
            // Whatever it holds now, it takes nothing more.
            assert!(shard.apply(LogIndex(before.0.0 + 1), b"", b"").is_err());
        }
        kv.set_faults(Faults::default());
        // What was written by chance before the cut, in part: the mark without its pages.
        kv.flush().unwrap();
        kv.damage(Family::State, &keys::state(ShardId(3), StateKind::Mark), |value| value.clear());
        let store = store(&kv);
        store.install(Subject::Shard(ShardId(3)), ReplicaId(2), &incoming).unwrap();
        let shard = store.shard(ShardId(3), ReplicaId(2)).unwrap();
        assert_eq!(shard.state_hash(), from.shard.state_hash());
    }

    #[test]
    fn the_meta_table_moves_too() {
        let from = store(&Arc::new(MemoryKv::new()));
        let put = |key: &str, value: &str| crate::MetaWrite::Put { key: key.into(), value: value.into() };
        from.meta().apply(LogIndex(7), &[put("a", "1"), put("b", "2")], b"mark").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::open(dir.path(), Subject::Meta).unwrap();
        from.meta().export(&HashSet::new(), &mut |piece| incoming.take(&piece).is_ok()).unwrap();
        assert!(incoming.is_complete());
        let kv = Arc::new(MemoryKv::new());
        let to = store(&kv);
        to.meta().apply(LogIndex(1), &[put("old", "x")], b"old").unwrap();
        to.install(Subject::Meta, ReplicaId(1), &incoming).unwrap();
        kv.cut_power();
        let to = store(&kv);
        assert_eq!(to.meta().scan(b"").unwrap(), from.meta().scan(b"").unwrap());
        assert_eq!(to.meta().durable(), (LogIndex(7), b"mark".to_vec()));
    }
}
