//! What is accepted, and how much time and memory the router may spend on it.

use std::time::Duration;

/// A label that only reads may add: the region that a series comes from.
pub const RESERVED_LABEL: &str = "__region__";

/// Limits of the router; 0 switches a limit off unless its text says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Labels of a series, the metric's name included.
    pub max_labels: usize,
    /// Bytes of a label's name.
    pub max_label_name_bytes: usize,
    /// Bytes of a label's value.
    pub max_label_value_bytes: usize,
    /// Samples further ahead of now are rejected.
    pub max_ahead: Duration,
    /// Samples older than that are rejected.
    pub retention: Duration,
    /// How long a write may take with everything that is tried again; then it fails as unavailable. Never off.
    pub patience: Duration,
    /// Bytes of all parts that wait to be tried again; what would exceed it fails at once. Never off.
    pub retry_bytes: usize,
    /// Bytes of the cache of series. Never off; the least is about 100 KiB.
    pub cache_bytes: usize,
}

impl Default for Limits {
    /// 40 labels, names of 1,024 and values of 4,096 bytes, 10 minutes ahead, no retention; 10 s of patience, 64 MiB
    /// of retries, 256 MiB of cache (about 2.5 million series; taken as series come).
    fn default() -> Self {
        Self {
            max_labels: 40,
            max_label_name_bytes: 1_024,
            max_label_value_bytes: 4_096,
            max_ahead: Duration::from_secs(600),
            retention: Duration::ZERO,
            patience: Duration::from_secs(10),
            retry_bytes: 64 << 20,
            cache_bytes: 256 << 20,
        }
    }
}

impl Limits {
    /// The oldest and newest timestamp (ms) that are accepted at `now`.
    pub(crate) fn bounds(&self, now: i64) -> (i64, i64) {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let oldest = if self.retention.is_zero() { i64::MIN } else { now.saturating_sub(ms(self.retention)) };
        let newest = if self.max_ahead.is_zero() { i64::MAX } else { now.saturating_add(ms(self.max_ahead)) };
        (oldest, newest)
    }
}
