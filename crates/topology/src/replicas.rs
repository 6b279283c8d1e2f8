//! Which nodes get the replicas of shards, which nodes vote in the meta group, and which leadership moves next.
//!
//! Pure functions of who is there: the same input gives the same answer on every node. Zones are names that operators
//! gave; a replica in another zone survives what takes one zone away, so zones come before even load.

use std::collections::{BTreeMap, BTreeSet};

use model::{NodeId, ShardId};

/// A node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The node.
    pub node: NodeId,
    /// Its zone; nodes without one count as zones of their own.
    pub zone: String,
}

impl Site {
    fn zone_key(&self) -> (String, u64) {
        if self.zone.is_empty() { (String::new(), self.node.0) } else { (self.zone.clone(), 0) }
    }
}

/// The replicas that are missing so that each shard has `factor` of them (or one on every site, when there are fewer):
/// (shard, node), in order of shards. `placed` are the replicas there are; it names every shard. Zones that a shard is
/// not in yet come first, then nodes with the fewest replicas, then the lowest node id.
pub fn missing_replicas(
    sites: &[Site],
    placed: &BTreeMap<ShardId, Vec<NodeId>>,
    factor: usize,
) -> Vec<(ShardId, NodeId)> {
    let mut load: BTreeMap<NodeId, usize> = sites.iter().map(|site| (site.node, 0)).collect();
    for node in placed.values().flatten() {
        *load.entry(*node).or_default() += 1;
    }
    let zones: BTreeMap<NodeId, (String, u64)> =
        sites.iter().map(|site| (site.node, site.zone_key())).collect();
    let mut missing = Vec::new();
    for (shard, nodes) in placed {
        let mut nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
        while nodes.len() < factor {
            let used: BTreeSet<_> = nodes.iter().filter_map(|node| zones.get(node)).collect();
            let free = sites.iter().filter(|site| !nodes.contains(&site.node));
            let best = free.min_by_key(|site| {
                let crowded = used.contains(&zones[&site.node]);
                (crowded, load.get(&site.node).copied().unwrap_or(0), site.node)
            });
            let Some(best) = best else { break };
            nodes.insert(best.node);
            *load.entry(best.node).or_default() += 1;
            missing.push((*shard, best.node));
        }
    }
    missing
}

/// How many voters the meta group of `nodes` nodes has: an even number survives no more than the odd one below it.
fn voter_count(nodes: usize) -> usize {
    match nodes {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// Who votes in the meta group, spread over zones. Those in `current` stay where that does no harm.
pub fn meta_voters(sites: &[Site], current: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let mut voters: BTreeSet<NodeId> = BTreeSet::new();
    let mut zones: BTreeMap<(String, u64), usize> = BTreeMap::new();
    while voters.len() < voter_count(sites.len()) {
        let free = sites.iter().filter(|site| !voters.contains(&site.node));
        let best = free.min_by_key(|site| {
            let in_zone = zones.get(&site.zone_key()).copied().unwrap_or(0);
            (in_zone, !current.contains(&site.node), site.node)
        });
        let Some(best) = best else { break };
        *zones.entry(best.zone_key()).or_default() += 1;
        voters.insert(best.node);
    }
    voters
}

/// One leadership that node `from` should hand over so that leaders are spread more evenly: (shard, to which node). `None`
/// when no move helps. `led` has the shards that it leads, each with the other nodes that could; `load` says how many
/// leaderships each node has, none where a node is not in it. Each move makes the spread smaller, so that moves end,
/// provided that `load` counts **all** shards: of what some nodes see of each other, there may be no end.
pub fn next_transfer(
    from: NodeId,
    led: &BTreeMap<ShardId, Vec<NodeId>>,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(ShardId, NodeId)> {
    let load = |node: &NodeId| load.get(node).copied().unwrap_or(0);
    let moves = led.iter().flat_map(|(shard, nodes)| nodes.iter().map(|node| (load(node), *shard, *node)));
    let (least, shard, node) = moves.min()?;
    (least + 2 <= load(&from)).then_some((shard, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(zones: &[&str]) -> Vec<Site> {
        (1..).zip(zones).map(|(node, zone)| Site { node: NodeId(node), zone: (*zone).to_owned() }).collect()
    }

    fn empty(shards: u32) -> BTreeMap<ShardId, Vec<NodeId>> {
        (1..=shards).map(|shard| (ShardId(shard), Vec::new())).collect()
    }

    #[test]
    fn replicas_are_spread_over_zones_first_and_evenly() {
        let sites = sites(&["a", "a", "b", "c", ""]);
        let missing = missing_replicas(&sites, &empty(10), 3);
        assert_eq!(missing.len(), 30);
        let mut by_shard: BTreeMap<ShardId, Vec<NodeId>> = BTreeMap::new();
        let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (shard, node) in &missing {
            by_shard.entry(*shard).or_default().push(*node);
            *by_node.entry(*node).or_default() += 1;
        }
        for nodes in by_shard.values() {
            assert!(!(nodes.contains(&NodeId(1)) && nodes.contains(&NodeId(2))), "two of zone a: {nodes:?}");
        }
        assert!(by_node.values().all(|count| (3..=8).contains(count)), "{by_node:?}");
        assert!(missing_replicas(&sites, &by_shard, 3).is_empty(), "what is placed stays");
    }

    #[test]
    fn growing_adds_and_fewer_nodes_than_copies_is_what_there_is() {
        let placed: BTreeMap<_, _> = (1..=8).map(|shard| (ShardId(shard), vec![NodeId(1)])).collect();
        let missing = missing_replicas(&sites(&["", "", ""]), &placed, 3);
        assert_eq!(missing.len(), 16);
        assert!(missing.iter().all(|(_, node)| *node != NodeId(1)));
        assert_eq!(missing_replicas(&sites(&["", ""]), &placed, 3).len(), 8);
    }

    #[test]
    fn meta_voters_are_odd_spread_and_sticky() {
        let none = BTreeSet::new();
        assert_eq!(meta_voters(&sites(&[""]), &none).len(), 1);
        assert_eq!(meta_voters(&sites(&["", ""]), &BTreeSet::from([NodeId(2)])), BTreeSet::from([NodeId(2)]));
        let spread = meta_voters(&sites(&["a", "a", "b", "c"]), &none);
        assert_eq!(spread, BTreeSet::from([NodeId(1), NodeId(3), NodeId(4)]));
        let current = BTreeSet::from([NodeId(2), NodeId(3), NodeId(4)]);
        assert_eq!(meta_voters(&sites(&["a", "a", "b", "c"]), &current), current);
        assert_eq!(meta_voters(&sites(&["a"; 7]), &none).len(), 5);
    }

    #[test]
    fn transfers_end_in_balance() {
        // Each shard on three of five nodes; at first the lowest of them leads.
        let replicas = |shard: u64| [0, 1, 3].map(|step| NodeId((shard + step) % 5 + 1));
        let mut leaders: BTreeMap<u64, NodeId> =
            (1..=16).map(|shard| (shard, replicas(shard).into_iter().min().unwrap())).collect();
        let load = |leaders: &BTreeMap<u64, NodeId>| {
            let count = |node| (node, leaders.values().filter(|leader| **leader == node).count());
            (1..=5).map(|n| count(NodeId(n))).collect::<BTreeMap<_, _>>()
        };
        let next = |leaders: &BTreeMap<u64, NodeId>, from: NodeId| {
            let led = leaders.iter().filter(|(_, leader)| **leader == from);
            let others = |shard| replicas(shard).into_iter().filter(|node| *node != from).collect();
            let led = led.map(|(shard, _)| (ShardId(*shard as u32), others(*shard))).collect();
            next_transfer(from, &led, &load(leaders))
        };
        let mut moves = 0;
        while let Some((shard, node)) = (1..=5).find_map(|from| next(&leaders, NodeId(from))) {
            leaders.insert(shard.0.into(), node);
            moves += 1;
            assert!(moves <= 16, "does not settle");
        }
        assert!(load(&leaders).values().all(|led| (3..=4).contains(led)), "{leaders:?}");
    }
}
