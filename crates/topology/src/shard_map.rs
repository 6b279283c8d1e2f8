//! The shard map: which shard holds a placement key, versioned by sample time.
//!
//! A change of the number or the cut of shards is a new version that holds from a coming partition boundary (a day,
//! UTC); older data stays where it is. So writes and reads route by (time, key), and nothing is rewritten. The
//! epoch counts changes of the map as a whole: who holds an older one is told so by a shard and fetches the newer.

use model::{Epoch, MatchOp, Matcher, ShardId, TenantId, TimeRange};

use crate::TopologyError;
use crate::placement::target_keys;

/// The placement scheme of this build: how labels become keys. See [`crate::placement`].
pub const SCHEME: u32 = 1;

/// Length of a partition, ms.
pub const DAY_MS: i64 = 86_400_000;

/// The partition (days since 1970-01-01 UTC) that a timestamp in ms lies in.
pub fn day_of(timestamp: i64) -> i64 {
    timestamp.div_euclid(DAY_MS)
}

/// A range of placement keys: from `first` up to the next range's `first`, or to the last key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub first: u64,
    /// Who holds it.
    pub shard: ShardId,
}

/// The cut that holds from one day until the next version's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapVersion {
    valid_from_day: i64,
    ranges: Vec<KeyRange>,
}

impl MapVersion {
    /// A version; [`ShardMap::new`] checks it. `valid_from_day` is `i64::MIN` for the first of a map.
    pub fn new(valid_from_day: i64, ranges: Vec<KeyRange>) -> Self {
        Self { valid_from_day, ranges }
    }

    /// The first day it holds for; `i64::MIN` = from the beginning of time.
    pub fn valid_from_day(&self) -> i64 {
        self.valid_from_day
    }

    /// The ranges, ascending, the first one from key 0.
    pub fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    /// The first timestamp it holds for, ms.
    pub fn first_timestamp(&self) -> i64 {
        self.valid_from_day.saturating_mul(DAY_MS)
    }

    /// The shard of `key`.
    pub fn shard_of(&self, key: u64) -> ShardId {
        self.ranges[self.index_of(key)].shard
    }

    /// The ranges begin at 0, so there is always one at or before `key`.
    fn index_of(&self, key: u64) -> usize {
        self.ranges.partition_point(|range| range.first <= key) - 1
    }
}

/// Which shard holds which keys when. See the module's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    epoch: Epoch,
    scheme: u32,
    versions: Vec<MapVersion>,
}

impl ShardMap {
    /// The map of `versions`, ascending in time, the first one valid from `i64::MIN`. Fails when they are out of
    /// order, when a version's ranges do not cover all keys in ascending order, or when the scheme is unknown.
    pub fn new(epoch: Epoch, scheme: u32, versions: Vec<MapVersion>) -> Result<Self, TopologyError> {
        if scheme != SCHEME {
            return Err(TopologyError::UnknownScheme(scheme));
        }
        if versions.is_empty() {
            return Err(TopologyError::VersionOrder(0));
        }
        let mut previous = None;
        for (at, version) in versions.iter().enumerate() {
            let in_order = match previous {
                None => version.valid_from_day == i64::MIN,
                Some(day) => version.valid_from_day > day,
            };
            if !in_order {
                return Err(TopologyError::VersionOrder(at));
            }
            previous = Some(version.valid_from_day);
            if version.ranges.first().is_none_or(|range| range.first != 0) {
                return Err(TopologyError::RangeOrder { version: at, range: 0 });
            }
            if let Some(bad) = version.ranges.windows(2).position(|pair| pair[0].first >= pair[1].first) {
                return Err(TopologyError::RangeOrder { version: at, range: bad + 1 });
            }
        }
        Ok(Self { epoch, scheme, versions })
    }

    /// The first map of a cluster: `n_shards` equal ranges (at least one), shards 1 to `n_shards`, epoch 1. Shard
    /// id 0 is never given to data.
    pub fn initial(n_shards: u32) -> Self {
        let n = n_shards.max(1);
        let first_key = |i: u32| ((u128::from(i) << 64) / u128::from(n)) as u64;
        let ranges = (0..n).map(|i| KeyRange { first: first_key(i), shard: ShardId(i + 1) }).collect();
        Self { epoch: Epoch(1), scheme: SCHEME, versions: vec![MapVersion::new(i64::MIN, ranges)] }
    }

    /// Counts changes of the map.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The placement scheme that keys were made by.
    pub fn scheme(&self) -> u32 {
        self.scheme
    }

    /// The versions, ascending in time; at least one.
    pub fn versions(&self) -> &[MapVersion] {
        &self.versions
    }

    /// The index in [`ShardMap::versions`] of the version that holds at `timestamp`, and the range of timestamps
    /// that it holds for. Callers with many samples keep the answer while samples stay in that range.
    pub fn version_at(&self, timestamp: i64) -> (usize, TimeRange) {
        let day = day_of(timestamp);
        let next = self.versions.partition_point(|version| version.valid_from_day <= day);
        let until = self.versions.get(next).map_or(i64::MAX, |version| version.first_timestamp() - 1);
        let after = if next <= 1 { i64::MIN } else { self.versions[next - 1].first_timestamp() - 1 };
        (next - 1, TimeRange { after, until })
    }

    /// The shard that holds `key` at sample time `timestamp`.
    pub fn route(&self, key: u64, timestamp: i64) -> ShardId {
        self.versions[self.version_at(timestamp).0].shard_of(key)
    }

    /// All shards that hold anything in `range`, ascending, each once.
    pub fn shards(&self, range: TimeRange) -> Vec<ShardId> {
        self.shards_of_keys(0, u64::MAX, range)
    }

    /// Every shard of the map, ascending, each once.
    pub fn all_shards(&self) -> Vec<ShardId> {
        self.shards(TimeRange::ALL)
    }

    /// The shards that may hold series of `tenant` that satisfy `matchers`, in `range`; ascending, each once.
    /// Equality on `job` and `instance` (not empty) together names the shards of one target, commonly one.
    pub fn candidates(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<ShardId> {
        let equal = |name: &str| {
            matchers.iter().find(|m| m.op() == MatchOp::Equal && m.name() == name).map(Matcher::value)
        };
        match (equal("job"), equal("instance")) {
            (Some(job), Some(instance)) if !instance.is_empty() => {
                let (first, last) = target_keys(tenant, job, instance);
                self.shards_of_keys(first, last, range)
            }
            _ => self.shards(range),
        }
    }

    /// The shards that hold any key from `first` to `last` (both included) in `range`.
    fn shards_of_keys(&self, first: u64, last: u64, range: TimeRange) -> Vec<ShardId> {
        if range.after >= range.until {
            return Vec::new();
        }
        let oldest = self.version_at(range.after.saturating_add(1)).0;
        let newest = self.version_at(range.until).0;
        let mut shards: Vec<ShardId> = self.versions[oldest..=newest]
            .iter()
            .flat_map(|version| &version.ranges[version.index_of(first)..=version.index_of(last)])
            .map(|range| range.shard)
            .collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement_key;
    use model::Labels;
    use proptest::prelude::*;

    fn ranges(list: &[(u64, u32)]) -> Vec<KeyRange> {
        list.iter().map(|(first, shard)| KeyRange { first: *first, shard: ShardId(*shard) }).collect()
    }

    fn map(versions: &[(i64, &[(u64, u32)])]) -> Result<ShardMap, TopologyError> {
        let versions = versions.iter().map(|(day, list)| MapVersion::new(*day, ranges(list))).collect();
        ShardMap::new(Epoch(3), SCHEME, versions)
    }

    #[test]
    fn initial_maps_cover_all_keys_evenly() {
        let map = ShardMap::initial(8);
        assert_eq!(map.all_shards(), (1..=8).map(ShardId).collect::<Vec<_>>());
        assert_eq!(map.route(0, 0), ShardId(1));
        assert_eq!(map.route(u64::MAX, i64::MIN), ShardId(8));
        assert_eq!(map.route(1 << 61, i64::MAX), ShardId(2));
        assert_eq!(map.route((1 << 61) - 1, -1), ShardId(1));
        assert_eq!(ShardMap::initial(0), ShardMap::initial(1));
        let rebuilt = ShardMap::new(map.epoch(), map.scheme(), map.versions().to_vec());
        assert_eq!(rebuilt.as_ref(), Ok(&map));
    }

    #[test]
    fn a_later_version_holds_from_its_day_only() {
        let map = map(&[(i64::MIN, &[(0, 1)]), (10, &[(0, 1), (1 << 63, 2)]), (20, &[(0, 3)])]).unwrap();
        let high = u64::MAX;
        let check = |timestamp: i64, shard: u32| {
            assert_eq!(map.route(high, timestamp), ShardId(shard), "{timestamp}")
        };
        check(i64::MIN, 1);
        check(10 * DAY_MS - 1, 1);
        check(10 * DAY_MS, 2);
        check(20 * DAY_MS - 1, 2);
        check(20 * DAY_MS, 3);
        check(i64::MAX, 3);
        let shards =
            |after, until| map.shards(TimeRange { after, until }).iter().map(|s| s.0).collect::<Vec<_>>();
        assert_eq!(shards(0, 5), [1]);
        assert_eq!(shards(10 * DAY_MS - 2, 10 * DAY_MS - 1), [1]);
        assert_eq!(shards(10 * DAY_MS - 1, 10 * DAY_MS), [1, 2]);
        assert_eq!(shards(0, i64::MAX), [1, 2, 3]);
        assert_eq!(shards(7, 7), [0u32; 0]);
    }

    #[test]
    fn a_target_names_its_shard() {
        let map = ShardMap::initial(8);
        let tenant = TenantId::anonymous();
        let both =
            [Matcher::equal("job", "api"), Matcher::equal("instance", "a:80"), Matcher::equal("x", "y")];
        let labels =
            Labels::from_pairs([("job", "api"), ("instance", "a:80"), ("x", "y"), ("__name__", "up")])
                .unwrap();
        let shard = map.route(placement_key(&tenant, &labels), 0);
        assert_eq!(map.candidates(&tenant, &both, TimeRange::ALL), [shard]);
        assert_eq!(map.candidates(&tenant, &both[1..], TimeRange::ALL).len(), 8);
        let absent = [Matcher::equal("job", "api"), Matcher::equal("instance", "")];
        assert_eq!(map.candidates(&tenant, &absent, TimeRange::ALL).len(), 8);
        let without_job = [Matcher::equal("job", ""), Matcher::equal("instance", "a:80")];
        let labels = Labels::from_pairs([("instance", "a:80"), ("__name__", "up")]).unwrap();
        assert_eq!(
            map.candidates(&tenant, &without_job, TimeRange::ALL),
            [map.route(placement_key(&tenant, &labels), 0)]
        );
    }

    #[test]
    fn maps_out_of_order_are_refused() {
        assert_eq!(map(&[]), Err(TopologyError::VersionOrder(0)));
        assert_eq!(map(&[(0, &[(0, 1)])]), Err(TopologyError::VersionOrder(0)));
        assert_eq!(map(&[(i64::MIN, &[(0, 1)]), (i64::MIN, &[(0, 1)])]), Err(TopologyError::VersionOrder(1)));
        assert_eq!(map(&[(i64::MIN, &[])]), Err(TopologyError::RangeOrder { version: 0, range: 0 }));
        assert_eq!(map(&[(i64::MIN, &[(1, 1)])]), Err(TopologyError::RangeOrder { version: 0, range: 0 }));
        assert_eq!(
            map(&[(i64::MIN, &[(0, 1), (0, 2)])]),
            Err(TopologyError::RangeOrder { version: 0, range: 1 })
        );
        assert_eq!(ShardMap::new(Epoch(1), 9, vec![]), Err(TopologyError::UnknownScheme(9)));
    }

    proptest! {
        /// Against a scan through versions and ranges.
        #[test]
        fn routing_agrees_with_a_scan(
            days in proptest::collection::btree_set(-50i64..50, 0..4),
            cuts in proptest::collection::vec(proptest::collection::btree_set(1u64.., 0..5), 5),
            keys in proptest::collection::vec(any::<u64>(), 8),
            stamps in proptest::collection::vec(-60 * DAY_MS..60 * DAY_MS, 8),
        ) {
            let days: Vec<i64> = std::iter::once(i64::MIN).chain(days).collect();
            let mut shard = 0;
            let versions: Vec<MapVersion> = days.iter().zip(&cuts).map(|(day, cuts)| {
                let ranges = std::iter::once(0).chain(cuts.iter().copied()).map(|first| {
                    shard += 1;
                    KeyRange { first, shard: ShardId(shard) }
                });
                MapVersion::new(*day, ranges.collect())
            }).collect();
            let map = ShardMap::new(Epoch(1), SCHEME, versions).unwrap();
            for (key, stamp) in keys.iter().zip(&stamps) {
                let version = map.versions().iter().rfind(|v| v.valid_from_day() <= day_of(*stamp)).unwrap();
                let expected = version.ranges().iter().rfind(|r| r.first <= *key).unwrap().shard;
                prop_assert_eq!(map.route(*key, *stamp), expected);
                let (at, range) = map.version_at(*stamp);
                prop_assert_eq!(&map.versions()[at], version);
                prop_assert!(range.contains(*stamp) || *stamp == i64::MIN);
                prop_assert!(map.shards(TimeRange::closed(*stamp, *stamp)).contains(&expected));
                let again = crate::coding::decode(&crate::coding::encode(&map)).unwrap();
                prop_assert_eq!(&again, &map);
            }
        }
    }
}
