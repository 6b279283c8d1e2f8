//! When a target is scraped: spread over the interval by a stable hash, and timestamps that stay regular.
//!
//! Source: upstream `Target.offset` and the alignment in `scrapeLoop.run`.

use std::time::Duration;

/// Timestamps are moved to the regular time when they are at most this late (and at most 1 % of the interval), so
/// that the distances between samples stay equal and compress well.
const TOLERANCE_MS: i64 = 2;

/// How long to wait from `now_ms` until the first scrape: the target's own phase of the interval, the same after
/// each restart of a node, different between nodes with different seeds.
pub(crate) fn first_offset(now_ms: i64, interval: Duration, key: u64, seed: u64) -> Duration {
    let interval = interval.as_nanos().max(1);
    let now = u128::from(now_ms.unsigned_abs()) * 1_000_000;
    let phase = u128::from(key ^ seed) % interval;
    let next = (interval - now % interval + phase) % interval;
    Duration::from_nanos(u64::try_from(next).unwrap_or(0))
}

/// Gives scrape timestamps on a regular grid.
#[derive(Debug)]
pub(crate) struct Grid {
    aligned_ms: i64,
    interval_ms: i64,
}

impl Grid {
    /// A grid whose first point is `now_ms`.
    pub(crate) fn new(now_ms: i64, interval: Duration) -> Self {
        Self {
            aligned_ms: now_ms,
            interval_ms: i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1),
        }
    }

    /// The timestamp of a scrape that starts at `now_ms`.
    pub(crate) fn timestamp(&mut self, now_ms: i64) -> i64 {
        let passed = now_ms.saturating_sub(self.aligned_ms);
        if passed >= self.interval_ms {
            self.aligned_ms += passed / self.interval_ms * self.interval_ms;
        }
        let tolerance = TOLERANCE_MS.min(self.interval_ms / 100);
        let late = now_ms.saturating_sub(self.aligned_ms);
        // A clock that was set back gives a negative distance: then the clock's time is used until it catches up.
        if (0..=tolerance).contains(&late) { self.aligned_ms } else { now_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_stable_and_spread() {
        let interval = Duration::from_secs(15);
        for key in 0..1000u64 {
            let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let at = |now: i64| now * 1_000_000 + first_offset(now, interval, key, 7).as_nanos() as i64;
            let phase = |now: i64| at(now) % interval.as_nanos() as i64;
            assert!(first_offset(1_700_000_000_123, interval, key, 7) < interval);
            assert_eq!(phase(1_700_000_000_123), phase(1_700_000_011_999));
        }
        let early = (0..1000u64)
            .filter(|k| first_offset(0, interval, k.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0).as_secs() < 5);
        assert!((250..420).contains(&early.count()));
    }

    #[test]
    fn small_delays_do_not_show_in_timestamps() {
        let mut grid = Grid::new(1000, Duration::from_secs(1));
        let got: Vec<i64> = [1000, 2001, 3002, 4003, 5000, 8001, 8999].map(|now| grid.timestamp(now)).into();
        assert_eq!(got, [1000, 2000, 3000, 4003, 5000, 8000, 8999]);
        assert_eq!(grid.timestamp(500), 500);
    }
}
