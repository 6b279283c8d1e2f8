//! Refs, epochs and ranges: what a leader checks before it plans.

use std::sync::Arc;

use model::seam::{RejectReason, ShardSeries, ShardWriteError};
use model::{Epoch, SeriesRef, TimeRange};

use super::*;

#[test]
fn refs_are_checked_and_work() {
    let mut node = Node::new();
    let report = node.write(batch(&[(0, vec![(START, 1)]), (6, vec![(START, 2)])], None));
    assert_eq!(report.incarnation, 1);
    let refs: Vec<SeriesRef> = report.refs.iter().map(|r| r.unwrap()).collect();
    let known = |stamp: i64, incarnation, check| {
        let mut request = batch(&[(0, vec![(stamp, 1)]), (6, vec![(stamp, 2)])], None);
        request.series = refs.iter().map(|r| ShardSeries::Known(*r)).collect();
        (request.incarnation, request.known_check) = (incarnation, check);
        request
    };
    let check = labels(0).hash128() ^ labels(6).hash128();
    assert_eq!(node.write(known(START + 1, 1, check)).written.samples, 2);
    assert!(matches!(node.try_write(known(START + 2, 2, check)), Err(ShardWriteError::UnknownRefs)));
    assert!(matches!(node.try_write(known(START + 2, 1, check ^ 1)), Err(ShardWriteError::UnknownRefs)));
    node.crash();
    assert!(matches!(node.try_write(known(START + 2, 1, check)), Err(ShardWriteError::UnknownRefs)));
    let again = node.write(batch(&[(0, vec![(START, 1)])], None));
    assert_eq!(again.refs, [Some(refs[0])], "refs stay over restarts");
    assert_eq!(node.read(any_series(), TimeRange::ALL).len(), 2);
}

#[test]
fn epochs_and_ranges_are_kept() {
    let mut node = Node::new();
    let entry = node.shard.plan_range(Epoch(4), 0, 70, START);
    node.commit(entry);
    assert_eq!(node.shard.range(), Some((Epoch(4), 0, 70)));
    let with = |epoch, i| ShardBatch { epoch: Epoch(epoch), ..batch(&[(i, vec![(START, 1)])], None) };
    assert!(matches!(node.try_write(with(3, 1)), Err(ShardWriteError::WrongOwner { epoch: Epoch(4) })));
    assert!(
        matches!(node.try_write(with(4, 11)), Err(ShardWriteError::WrongOwner { .. })),
        "a key beyond the range"
    );
    node.write(with(4, 1));
    // A write planned before the range changed, applied after it.
    let plan = node.shard.plan(&[Arc::new(with(4, 2))], START);
    let entry = node.shard.plan_range(Epoch(5), 0, 70, START);
    node.commit(entry);
    let reports = node.commit(plan.entry);
    assert_eq!(reports[0].rejected.get(&RejectReason::Fenced), Some(&1));
    assert_eq!(node.read(any_series(), TimeRange::ALL).len(), 1);
}
