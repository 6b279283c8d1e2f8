//! Figures of heads for the status page.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::TenantId;
use model::seam::{NamedCount, StorageStatus};

use crate::shard::Shard;

/// Names counted per shard before the sums are cut: enough that the largest over all shards are right in practice.
const PER_SHARD: usize = 1000;

/// Sums the figures of `shards` for one tenant, or for all, each list cut to `limit`, largest first.
pub(crate) fn status(shards: &[Arc<Shard>], tenant: Option<&TenantId>, limit: usize) -> StorageStatus {
    let mut sum = StorageStatus { min_time: i64::MAX, max_time: i64::MIN, ..StorageStatus::default() };
    let mut lists: [BTreeMap<String, u64>; 4] = Default::default();
    for shard in shards {
        let part = shard.status(tenant, PER_SHARD.max(limit));
        sum.series += part.series;
        sum.label_pairs += part.label_pairs;
        sum.chunks += part.chunks;
        sum.min_time = sum.min_time.min(part.min_time);
        sum.max_time = sum.max_time.max(part.max_time);
        let parts = [part.series_by_metric, part.values_by_label, part.memory_by_label, part.series_by_pair];
        for (list, part) in lists.iter_mut().zip(parts) {
            for (name, count) in part {
                *list.entry(name).or_default() += count;
            }
        }
    }
    let mut lists = lists.into_iter().map(|list| largest(list, limit));
    let mut next = || lists.next().unwrap_or_default();
    (sum.series_by_metric, sum.values_by_label, sum.memory_by_label, sum.series_by_pair) =
        (next(), next(), next(), next());
    sum
}

/// The largest counts first, names in order where counts are equal.
pub(crate) fn largest(list: BTreeMap<String, u64>, limit: usize) -> Vec<NamedCount> {
    let mut list: Vec<NamedCount> = list.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(limit);
    list
}
