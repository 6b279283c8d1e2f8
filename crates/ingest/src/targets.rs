//! Which shards a scrape target has touched: they must be told when a scrape is complete, so that their leaders can
//! mark what is missing as stale. A target not seen before (or not since a start) may have touched any shard.

use std::collections::HashMap;

use model::{ShardId, TenantId};

use crate::TargetKey;

/// Targets remembered; beyond it all are forgotten, which costs one round of marks to all shards.
const MAX_TARGETS: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Targets {
    touched: HashMap<TargetKey, Vec<ShardId>>,
}

impl Targets {
    /// The shards of `all` that must get the mark of a scrape of `target`.
    pub(crate) fn shards(&self, tenant: &TenantId, target: u64, all: &[ShardId]) -> Vec<ShardId> {
        match self.touched.get(&(tenant.clone(), target)) {
            Some(touched) => all.iter().copied().filter(|shard| touched.contains(shard)).collect(),
            None => all.to_vec(),
        }
    }

    /// Remembers that a scrape is about to write series to `shards`: whatever becomes of it, they may be touched.
    pub(crate) fn begin(&mut self, tenant: &TenantId, target: u64, shards: &[ShardId]) {
        if let Some(touched) = self.touched.get_mut(&(tenant.clone(), target)) {
            touched.extend_from_slice(shards);
            touched.sort_unstable();
            touched.dedup();
        }
    }

    /// Remembers that a scrape that wrote series to `shards` is committed with all its marks: other shards have
    /// marked what they had and need not be told again.
    pub(crate) fn committed(&mut self, tenant: &TenantId, target: u64, shards: Vec<ShardId>) {
        let key = (tenant.clone(), target);
        if self.touched.len() >= MAX_TARGETS && !self.touched.contains_key(&key) {
            self.touched.clear();
        }
        self.touched.insert(key, shards);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_told_until_they_have_marked() {
        let tenant = TenantId::anonymous();
        let all = [1, 2, 3, 4].map(ShardId);
        let mut targets = Targets::default();
        let ids =
            |targets: &Targets| targets.shards(&tenant, 7, &all).iter().map(|s| s.0).collect::<Vec<_>>();
        assert_eq!(ids(&targets), [1, 2, 3, 4]);
        targets.begin(&tenant, 7, &[ShardId(2)]);
        assert_eq!(ids(&targets), [1, 2, 3, 4], "nothing is known yet");
        targets.committed(&tenant, 7, vec![ShardId(2)]);
        assert_eq!(ids(&targets), [2]);
        targets.begin(&tenant, 7, &[ShardId(3)]);
        assert_eq!(ids(&targets), [2, 3]);
        targets.committed(&tenant, 7, vec![ShardId(3)]);
        assert_eq!(ids(&targets), [3]);
        let other = TenantId::new("other").unwrap();
        assert_eq!(targets.shards(&other, 7, &all).len(), 4);
    }
}
