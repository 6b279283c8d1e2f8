//! How empty nodes become a cluster: the decisions, without clocks, network or disk.
//!
//! A node forms only when exactly as many empty nodes as it expects see each other: each has had an answer from each,
//! and all say the same. Then the one with the lowest id asks the others to agree, which each does for one set only and
//! keeps on disk; when all have, it forms. So two nodes that see different sets never both form: some node would have to
//! agree to both. A node with a list of nodes to join never forms alone, whatever it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::NodeId;

use crate::folder::Agreement;
use crate::members::{Candidate, Member};
use crate::talk::{Hello, Stand};

/// For how long a node that answered counts as seen.
const FRESH: Duration = Duration::from_secs(5);

/// What an empty node does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, for this reason.
    Wait(String),
    /// Ask these to agree. The cluster id is left to the caller.
    Initiate(BTreeMap<NodeId, Member>),
    /// Ask this member to be let in.
    Join(Candidate),
}

/// A node that answered.
#[derive(Clone, Debug)]
struct Seen {
    hello: Hello,
    at: Duration,
}

/// What an empty node knows of others.
#[derive(Debug)]
pub(crate) struct Forming {
    me: Candidate,
    expect: usize,
    /// Whether it was told of nodes to join.
    joins: bool,
    seen: BTreeMap<NodeId, Seen>,
}

impl Forming {
    pub(crate) fn new(me: Candidate, expect: usize, joins: bool) -> Self {
        Self { me, expect, joins, seen: BTreeMap::new() }
    }

    /// A node has answered at `now`.
    pub(crate) fn heard(&mut self, hello: Hello, now: Duration) {
        if hello.from.node != self.me.node {
            self.seen.insert(hello.from.node, Seen { hello, at: now });
        }
    }

    /// Forgets who has not answered for a while.
    pub(crate) fn forget_old(&mut self, now: Duration) {
        self.seen.retain(|_, seen| now.saturating_sub(seen.at) < FRESH);
    }

    /// The empty nodes that it sees, itself included.
    pub(crate) fn view(&self) -> BTreeSet<NodeId> {
        let empty = self.seen.iter().filter(|(_, seen)| seen.hello.stand == Stand::Empty);
        empty.map(|(node, _)| *node).chain([self.me.node]).collect()
    }

    /// Addresses of the nodes that it sees.
    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        self.seen.values().map(|seen| seen.hello.from.address.clone()).collect()
    }

    /// What to do next.
    pub(crate) fn step(&self) -> Step {
        let members = self.seen.values().filter(|seen| matches!(seen.hello.stand, Stand::Member { .. }));
        if let Some(member) = members.min_by_key(|seen| seen.hello.from.node) {
            return Step::Join(member.hello.from.clone());
        }
        let view = self.view();
        if self.joins && self.expect == 1 {
            return Step::Wait("waiting for a member of the cluster to answer (--cluster.join)".to_owned());
        }
        if view.len() > self.expect {
            return Step::Wait(format!(
                "{} empty nodes see each other, but --cluster.bootstrap-expect is {}: stop those that are too many, or \
                 start them later",
                view.len(),
                self.expect
            ));
        }
        if view.len() < self.expect {
            return Step::Wait(format!("{} of {} nodes to form a cluster are here", view.len(), self.expect));
        }
        for seen in self.seen.values().filter(|seen| view.contains(&seen.hello.from.node)) {
            let Hello { from, expect, view: theirs, .. } = &seen.hello;
            if *expect != self.expect as u64 {
                return Step::Wait(format!(
                    "{} expects {expect} nodes (--cluster.bootstrap-expect), this one {}",
                    from.name, self.expect
                ));
            }
            if !theirs.iter().eq(view.iter()) {
                return Step::Wait(format!("{} does not see all {} nodes yet", from.name, self.expect));
            }
        }
        let named =
            |node: &NodeId| self.seen.get(node).map_or(&self.me, |seen| &seen.hello.from).name.as_str();
        let names: BTreeSet<&str> = view.iter().map(named).collect();
        if names.len() < view.len() {
            return Step::Wait("two nodes have the same name (--node.name)".to_owned());
        }
        if view.first() != Some(&self.me.node) {
            return Step::Wait("waiting for the node with the lowest id to form the cluster".to_owned());
        }
        let mut founders = BTreeMap::new();
        for (node, meta_replica) in view.into_iter().zip(1..) {
            let candidate = self.seen.get(&node).map_or(&self.me, |seen| &seen.hello.from);
            founders.insert(node, candidate.clone().into_member(meta_replica));
        }
        Step::Initiate(founders)
    }
}

/// Whether the node `me`, which stands as given, may agree to `asked`; the reason when not.
pub(crate) fn may_agree(
    me: NodeId,
    expect: usize,
    agreed: Option<&Agreement>,
    is_member: bool,
    asked: &Agreement,
) -> Result<(), String> {
    if is_member {
        return Err("it is a member of a cluster".to_owned());
    }
    if let Some(agreed) = agreed {
        if agreed == asked {
            return Ok(());
        }
        return Err(format!("it has agreed to form with node {} already", agreed.initiator));
    }
    if asked.founders.len() != expect {
        return Err(format!(
            "it expects {expect} nodes (--cluster.bootstrap-expect), not {}",
            asked.founders.len()
        ));
    }
    if !asked.founders.contains_key(&me) || !asked.founders.contains_key(&asked.initiator) {
        return Err("the set of nodes does not hold it, or not the one that asks".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(n: u64) -> Candidate {
        Candidate {
            node: NodeId(n),
            name: format!("n{n}"),
            zone: String::new(),
            address: format!("h:{n}"),
            own: BTreeMap::new(),
        }
    }

    fn hello(n: u64, stand: Stand, expect: u64, view: &[u64]) -> Hello {
        let view = view.iter().copied().map(NodeId).collect();
        Hello { from: candidate(n), stand, expect, view, known: Vec::new() }
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn alone_only_without_a_join_list() {
        assert!(matches!(Forming::new(candidate(1), 1, false).step(), Step::Initiate(f) if f.len() == 1));
        assert!(matches!(Forming::new(candidate(1), 1, true).step(), Step::Wait(_)));
        assert!(matches!(Forming::new(candidate(1), 3, true).step(), Step::Wait(_)));
    }

    #[test]
    fn the_lowest_of_a_complete_set_that_all_see_initiates() {
        let mut one = Forming::new(candidate(1), 3, true);
        one.heard(hello(2, Stand::Empty, 3, &[1, 2, 3]), NOW);
        assert!(matches!(one.step(), Step::Wait(_)));
        one.heard(hello(3, Stand::Empty, 3, &[2, 3]), NOW);
        assert!(matches!(one.step(), Step::Wait(why) if why.contains("does not see all")));
        one.heard(hello(3, Stand::Empty, 3, &[1, 2, 3]), NOW);
        assert!(matches!(one.step(), Step::Initiate(f) if f[&NodeId(3)].meta_replica == 3));
        let mut two = Forming::new(candidate(2), 3, true);
        two.heard(hello(1, Stand::Empty, 3, &[1, 2, 3]), NOW);
        two.heard(hello(3, Stand::Empty, 3, &[1, 2, 3]), NOW);
        assert!(matches!(two.step(), Step::Wait(why) if why.contains("lowest id")));
        one.heard(hello(4, Stand::Empty, 3, &[1, 4]), NOW);
        assert!(matches!(one.step(), Step::Wait(why) if why.contains("4 empty nodes")));
        one.heard(hello(3, Stand::Empty, 5, &[1, 2, 3]), NOW);
        one.forget_old(NOW + Duration::from_secs(10));
        assert_eq!(one.view().len(), 1);
    }

    #[test]
    fn other_expectations_and_members_are_heeded() {
        let mut one = Forming::new(candidate(1), 2, true);
        one.heard(hello(2, Stand::Empty, 3, &[1, 2]), NOW);
        assert!(matches!(one.step(), Step::Wait(why) if why.contains("expects 3 nodes")));
        let mut twin = hello(2, Stand::Empty, 2, &[1, 2]);
        twin.from.name = "n1".into();
        one.heard(twin, NOW);
        assert!(matches!(one.step(), Step::Wait(why) if why.contains("--node.name")));
        one.heard(hello(7, Stand::Member { cluster_id: 1 }, 3, &[]), NOW);
        assert_eq!(one.step(), Step::Join(candidate(7)));
    }

    #[test]
    fn a_node_agrees_to_one_set_only() {
        let founders = |ids: &[u64]| {
            let member = |n: u64| Member { address: format!("h:{n}"), meta_replica: n, ..Member::default() };
            ids.iter().map(|n| (NodeId(*n), member(*n))).collect()
        };
        let a = Agreement { cluster_id: 1, initiator: NodeId(1), founders: founders(&[1, 2, 3]) };
        let b = Agreement { cluster_id: 2, initiator: NodeId(2), founders: founders(&[2, 3, 4]) };
        assert_eq!(may_agree(NodeId(3), 3, None, false, &a), Ok(()));
        assert_eq!(may_agree(NodeId(3), 3, Some(&a), false, &a), Ok(()));
        assert!(may_agree(NodeId(3), 3, Some(&a), false, &b).unwrap_err().contains("agreed"));
        assert!(may_agree(NodeId(3), 3, None, true, &a).is_err());
        assert!(may_agree(NodeId(9), 3, None, false, &a).is_err());
        assert!(may_agree(NodeId(3), 5, None, false, &a).is_err());
    }

    proptest! {
        /// Nodes with any pictures of each other, who ask in any order: at most one set is agreed to by all of it.
        #[test]
        fn overlapping_sets_never_both_form(
            links in prop::collection::vec((0u64..5, 0u64..5), 0..60),
            order in prop::collection::vec(0u64..5, 0..30),
        ) {
            let mut nodes: Vec<Forming> = (0..5).map(|n| Forming::new(candidate(n), 3, true)).collect();
            let mut agreed: BTreeMap<u64, Agreement> = BTreeMap::new();
            for (at, (from, to)) in links.into_iter().enumerate() {
                let view: Vec<u64> = nodes[from as usize].view().iter().map(|n| n.0).collect();
                nodes[to as usize].heard(hello(from, Stand::Empty, 3, &view), NOW);
                let initiator = order.get(at % order.len().max(1)).copied().unwrap_or(0);
                let Step::Initiate(founders) = nodes[initiator as usize].step() else { continue };
                let asked = Agreement { cluster_id: at as u64 + 1, initiator: NodeId(initiator), founders };
                for node in asked.founders.keys() {
                    if may_agree(*node, 3, agreed.get(&node.0), false, &asked).is_ok() {
                        agreed.insert(node.0, asked.clone());
                    }
                }
            }
            let formed: BTreeSet<u64> = agreed
                .values()
                .filter(|a| a.founders.keys().all(|n| agreed.get(&n.0) == Some(*a)))
                .map(|a| a.cluster_id)
                .collect();
            prop_assert!(formed.len() <= 1, "{formed:?}");
        }
    }
}
