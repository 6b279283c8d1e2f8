//! Making a folder with a damaged node log usable, on an operator's word.
//!
//! What storage holds durably needs no log; above it, each group keeps the entries that are whole up to the first
//! that is not. Everything given up is told by group and entry number; the damaged files are kept aside.

use std::sync::Arc;

use model::seam::SystemClock;
use prometheus_client::registry::Registry;
use storage::log::{DiskFiles, GroupId, LogFiles, LogId, NodeLog};
use storage::{StorageError, Store};

use super::SalvageLine;
use crate::ReplicationError;
use crate::coding::Mark;
use crate::config::ReplicationConfig;
use crate::folder::{DataFolder, Identity};
use crate::log_store::place;
use crate::machine::Target;
use crate::meta::{self, Cluster};
use crate::node::group_names;

/// Up to where each group of this node that `store` knows is durable in it.
pub(super) fn durable(
    store: &Arc<Store>,
    cluster: Option<&Cluster>,
    identity: &Identity,
) -> Result<Vec<(GroupId, LogId)>, StorageError> {
    let mut marks: Vec<(GroupId, Mark)> = Vec::new();
    if let Some(replica) = identity.meta_replica() {
        marks.push((GroupId(replica), Target::Meta(Arc::clone(store)).durable()?));
    }
    for (shard, replica, _) in cluster.map(|cluster| cluster.replicas_on(identity.node)).unwrap_or_default() {
        let shard = store.shard(shard, replica)?;
        marks.push((GroupId(replica.0), Target::Shard(shard).durable()?));
    }
    Ok(marks.iter().filter_map(|(group, mark)| Some((*group, place(mark.last.as_ref()?)))).collect())
}

pub(crate) fn salvage(config: &ReplicationConfig) -> Result<Vec<SalvageLine>, ReplicationError> {
    let folder = DataFolder::open(&config.data_dir, config.cluster_name.as_deref())?;
    let log_dir = folder.log_dir();
    let files =
        DiskFiles::new(&log_dir).map_err(ReplicationError::io(log_dir.display().to_string(), "open"))?;
    let files: Arc<dyn LogFiles> = Arc::new(files);
    let mut registry = Registry::default();
    let store = Store::open(&folder.store_dir(), config.store.clone(), &mut registry)?;
    let identity = folder.identity();
    let cluster = meta::read(store.meta())?;
    let meta_replica = identity.meta_replica();
    let names = group_names(cluster.as_ref(), identity.node, meta_replica);

    let marks = durable(&store, cluster.as_ref(), &identity)?;
    let report = NodeLog::salvage(&files, config.log.clone(), &marks)?;
    let mut lines = Vec::new();
    for group in report {
        let name = names.get(&group.group.0).cloned().unwrap_or_else(|| format!("group {}", group.group));
        let kept = group.kept_last.map_or("none".to_owned(), |id| format!("up to {}", id.index));
        let text = match (group.lost_from, group.known_last) {
            (Some(from), Some(last)) if last.index >= from => {
                format!("{}; entries {from} to {} are given up, entries kept: {kept}", group.what, last.index)
            }
            (Some(from), _) => {
                format!("{}; entries from {from} on are given up, entries kept: {kept}", group.what)
            }
            (None, _) => format!("{}; no entry is lost, entries kept: {kept}", group.what),
        };
        lines.push(SalvageLine { group: name, text });
    }
    // The log must open now, or there is nothing to be glad about.
    let log = NodeLog::open(files, config.log.clone(), Arc::new(SystemClock::new()), &mut registry)?;
    for (_, _, damage) in log.groups() {
        if let Some(error) = damage {
            return Err(error.into());
        }
    }
    log.close()?;
    Ok(lines)
}
