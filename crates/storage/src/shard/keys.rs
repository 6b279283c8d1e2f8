//! Keys of the database: big-endian, so that what belongs together lies together. Drawn in `FORMAT.md`.
//!
//! Pages: retention class u8, day u32, shard u32, source u32, group u32, late u8, oldest time u64,
//! newest time u64, number u64.
//! Sealed indexes: class u8, day u32, shard u32, tenant u32, part u32. State: shard u32, kind u8, then by kind.

use model::ShardId;

/// The only retention class so far.
pub(crate) const CLASS: u8 = 0;

/// Kinds of state records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StateKind {
    /// One: marks and small state.
    Mark = 0,
    /// By source.
    Source = 1,
    /// By ref.
    Series = 2,
    /// One.
    Targets = 3,
    /// By tenant and family.
    Metadata = 4,
    /// By log index of the deletion.
    Tombstone = 5,
    /// By tenant and position.
    Exemplar = 6,
}

fn biased32(day: i64) -> [u8; 4] {
    let day = day.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    ((day as u32) ^ 1 << 31).to_be_bytes()
}

fn biased64(time: i64) -> [u8; 8] {
    ((time as u64) ^ 1 << 63).to_be_bytes()
}

/// Prefix of the state records of a kind.
pub(crate) fn state(shard: ShardId, kind: StateKind) -> Vec<u8> {
    let mut key = shard.0.to_be_bytes().to_vec();
    key.push(kind as u8);
    key
}

/// Key of a state record numbered by a u32.
pub(crate) fn state32(shard: ShardId, kind: StateKind, number: u32) -> Vec<u8> {
    let mut key = state(shard, kind);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Key of a state record numbered by a u64.
pub(crate) fn state64(shard: ShardId, kind: StateKind, number: u64) -> Vec<u8> {
    let mut key = state(shard, kind);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Prefix of a shard's day, of pages or indexes.
pub(crate) fn day(day: i64, shard: ShardId) -> Vec<u8> {
    let mut key = vec![CLASS];
    key.extend_from_slice(&biased32(day));
    key.extend_from_slice(&shard.0.to_be_bytes());
    key
}

/// Prefix of the pages of a group of a source.
pub(crate) fn group(day_: i64, shard: ShardId, source: u32, group: u32) -> Vec<u8> {
    let mut key = day(day_, shard);
    key.extend_from_slice(&source.to_be_bytes());
    key.extend_from_slice(&group.to_be_bytes());
    key
}

/// A page's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PageKey {
    pub(crate) day: i64,
    pub(crate) shard: u32,
    pub(crate) source: u32,
    pub(crate) group: u32,
    pub(crate) late: bool,
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    pub(crate) number: u64,
}

/// Bytes of a page's key.
const PAGE_KEY: usize = 1 + 4 + 4 + 4 + 4 + 1 + 8 + 8 + 8;

impl PageKey {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut key = group(self.day, ShardId(self.shard), self.source, self.group);
        key.push(u8::from(self.late));
        key.extend_from_slice(&biased64(self.min_time));
        key.extend_from_slice(&biased64(self.max_time));
        key.extend_from_slice(&self.number.to_be_bytes());
        key
    }

    pub(crate) fn decode(key: &[u8]) -> Option<Self> {
        if key.len() != PAGE_KEY || key[0] != CLASS {
            return None;
        }
        let word = |at: usize| key[at..at + 4].iter().fold(0u32, |w, b| w << 8 | u32::from(*b));
        let long = |at: usize| key[at..at + 8].iter().fold(0u64, |w, b| w << 8 | u64::from(*b));
        Some(Self {
            day: i64::from((word(1) ^ 1 << 31) as i32),
            shard: word(5),
            source: word(9),
            group: word(13),
            late: key[17] != 0,
            min_time: (long(18) ^ 1 << 63) as i64,
            max_time: (long(26) ^ 1 << 63) as i64,
            number: long(34),
        })
    }
}

impl PageKey {
    /// What people call it.
    pub(crate) fn name(&self) -> String {
        format!(
            "page of day {}, shard {}, source {}, group {}, times {} to {}",
            self.day, self.shard, self.source, self.group, self.min_time, self.max_time
        )
    }
}

/// What a state key names, as far as a salvage must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordName {
    Mark,
    Source { shard: u32, source: u32 },
    Series { shard: u32 },
    Other,
}

/// Name and kind of the state record at `key`.
pub(crate) fn describe_state(key: &[u8]) -> (String, RecordName) {
    let word = |at: usize| Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?));
    let (Some(shard), Some(kind)) = (word(0), key.get(4)) else {
        return (format!("state record {key:02x?}"), RecordName::Other);
    };
    let rest = &key[5..];
    match *kind {
        k if k == StateKind::Mark as u8 => (format!("mark of shard {shard}"), RecordName::Mark),
        k if k == StateKind::Source as u8 => {
            let source = word(5).unwrap_or(0);
            (format!("source {source} of shard {shard}"), RecordName::Source { shard, source })
        }
        k if k == StateKind::Series as u8 => {
            (format!("series {rest:02x?} of shard {shard}"), RecordName::Series { shard })
        }
        k if k == StateKind::Targets as u8 => (format!("scrape targets of shard {shard}"), RecordName::Other),
        k if k == StateKind::Metadata as u8 => {
            (format!("metadata {rest:02x?} of shard {shard}"), RecordName::Other)
        }
        k if k == StateKind::Tombstone as u8 => {
            (format!("deletion {rest:02x?} of shard {shard} (what it deleted comes back)"), RecordName::Other)
        }
        k if k == StateKind::Exemplar as u8 => {
            (format!("exemplar {rest:02x?} of shard {shard}"), RecordName::Other)
        }
        _ => (format!("state record {key:02x?}"), RecordName::Other),
    }
}

/// The day at the front of a page or index key.
pub(crate) fn day_of_key(key: &[u8]) -> Option<i64> {
    let bytes: [u8; 4] = key.get(1..5)?.try_into().ok()?;
    Some(i64::from((u32::from_be_bytes(bytes) ^ 1 << 31) as i32))
}

/// Key of a part of a sealed index.
pub(crate) fn index(day_: i64, shard: ShardId, tenant: u32, part: u32) -> Vec<u8> {
    let mut key = day(day_, shard);
    key.extend_from_slice(&tenant.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_keys_sort_as_they_read() {
        let mut keys = Vec::new();
        for day in [-3, 0, 20_000] {
            for late in [false, true] {
                for min_time in [i64::MIN, -1, 0, 1, i64::MAX] {
                    keys.push(PageKey {
                        day,
                        shard: 7,
                        source: 1,
                        group: 2,
                        late,
                        min_time,
                        max_time: 5,
                        number: 9,
                    });
                }
            }
        }
        let encoded: Vec<_> = keys.iter().map(PageKey::encode).collect();
        assert!(encoded.is_sorted());
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(PageKey::decode(bytes), Some(*key));
            assert_eq!(day_of_key(bytes), Some(key.day));
        }
    }
}
