//! The shard map as bytes, for the meta group's key-value state. Whoever stores them adds a version byte and a
//! checksum; the order of fields is: epoch, scheme, number of versions, and for each version its day (zigzag),
//! number of ranges, and for each range the distance to the previous first key and the shard. All are LEB128.

use model::{Epoch, ShardId};

use crate::TopologyError;
use crate::shard_map::{KeyRange, MapVersion, ShardMap};

/// The bytes of `map`.
pub fn encode(map: &ShardMap) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, map.epoch().0);
    put(&mut out, u64::from(map.scheme()));
    put(&mut out, map.versions().len() as u64);
    for version in map.versions() {
        let day = version.valid_from_day();
        put(&mut out, (day << 1 ^ day >> 63) as u64);
        put(&mut out, version.ranges().len() as u64);
        let mut previous = 0;
        for range in version.ranges() {
            put(&mut out, range.first - previous);
            put(&mut out, u64::from(range.shard.0));
            previous = range.first;
        }
    }
    out
}

/// The map that `bytes` code. Fails on anything that [`encode`] does not make.
pub fn decode(bytes: &[u8]) -> Result<ShardMap, TopologyError> {
    let mut at = 0;
    let epoch = Epoch(take(bytes, &mut at)?);
    let scheme = take_u32(bytes, &mut at)?;
    let n_versions = take(bytes, &mut at)?;
    let mut versions = Vec::new();
    for _ in 0..n_versions {
        let day = take(bytes, &mut at)?;
        let day = (day >> 1) as i64 ^ -((day & 1) as i64);
        let n_ranges = take(bytes, &mut at)?;
        let mut ranges = Vec::new();
        let mut previous = 0u64;
        for _ in 0..n_ranges {
            let start = at;
            let distance = take(bytes, &mut at)?;
            let first = previous.checked_add(distance).ok_or(TopologyError::Damaged(start))?;
            ranges.push(KeyRange { first, shard: ShardId(take_u32(bytes, &mut at)?) });
            previous = first;
        }
        versions.push(MapVersion::new(day, ranges));
    }
    if at < bytes.len() {
        return Err(TopologyError::Trailing(bytes.len() - at));
    }
    ShardMap::new(epoch, scheme, versions)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(bytes: &[u8], at: &mut usize) -> Result<u64, TopologyError> {
    let start = *at;
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(TopologyError::Damaged(start))?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return Err(TopologyError::Damaged(start));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(TopologyError::Damaged(start))
}

fn take_u32(bytes: &[u8], at: &mut usize) -> Result<u32, TopologyError> {
    let start = *at;
    u32::try_from(take(bytes, at)?).map_err(|_| TopologyError::Damaged(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_stay_the_same() {
        let bytes = encode(&ShardMap::initial(2));
        let day = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let half = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        let expected = [&[1, 1, 1][..], &day, &[2, 0, 1], &half, &[2]].concat();
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Ok(ShardMap::initial(2)));
    }

    #[test]
    fn cut_and_extended_bytes_are_refused() {
        let bytes = encode(&ShardMap::initial(3));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(TopologyError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(map) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(&map)), Ok(map));
            }
        }
    }
}
