//! A copy of a node's data that can be started as a data folder of its own.
//!
//! Everything is flushed, the database is copied by sharing its files, and beside it stands a new node log that says of
//! each group: purged up to where the copy is durable, with the vote of now. So the copy is as a node that was stopped
//! in order at that moment. Only of a node that is alone: copies of several nodes are of several moments, and started
//! together they could hold different entries under one number.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use model::{Code, Failure, time};
use prometheus_client::registry::Registry;
use storage::Store;
use storage::log::{DiskFiles, LogConfig, NodeLog};

use super::{Inner, salvage};
use crate::ReplicationError;
use crate::folder::random;
use crate::meta;

/// Bytes of the segments of a copy's log, which has next to nothing in it; the node that starts on it makes larger ones.
const SEGMENT_BYTES: u64 = 1 << 20;

/// Makes the copy and gives its name below `snapshots/` of the data folder.
pub(super) fn take(inner: &Inner) -> Result<String, Failure> {
    let members = inner.cluster.load().as_ref().map_or(0, |cluster| cluster.members.len());
    if members != 1 {
        return Err(Failure::new(
            Code::Unimplemented,
            format!(
                "a snapshot is made of a node that is alone; this cluster has {members} members, and copies of several \
                 nodes of several moments do not fit together"
            ),
        ));
    }
    inner.flush_all()?;
    // As upstream names them: a time and a number that no other has.
    let now: String = time::format_rfc3339(inner.clock.now_ms()).chars().take(19).collect();
    let name = format!("{}Z-{:016x}", now.replace(['-', ':'], ""), random());
    let all = inner.folder.dir().join("snapshots");
    let (part, whole) = (all.join(format!("{name}.part")), all.join(&name));
    let copied = copy(inner, &part).and_then(|()| {
        std::fs::rename(&part, &whole)
            .and_then(|()| File::open(&all)?.sync_all())
            .map_err(ReplicationError::io(whole.display().to_string(), "name the snapshot"))
    });
    copied.map_err(|error| {
        // Half a copy is none; what stopped it is what is told.
        let _ = std::fs::remove_dir_all(&part);
        Failure::internal(format!("snapshot: {error}"))
    })?;
    Ok(name)
}

fn copy(inner: &Inner, dir: &Path) -> Result<(), ReplicationError> {
    let failed = |what: &'static str| ReplicationError::io(dir.display().to_string(), what);
    std::fs::create_dir_all(dir).map_err(failed("create"))?;
    inner.store.checkpoint(&dir.join("db"))?;
    std::fs::copy(inner.folder.dir().join("NODE"), dir.join("NODE")).map_err(failed("copy NODE to"))?;
    File::open(dir.join("NODE")).and_then(|node| node.sync_all()).map_err(failed("sync NODE of"))?;

    let durable = {
        let store = Store::open(&dir.join("db"), inner.config.store.clone(), &mut Registry::default())?;
        let cluster = meta::read(store.meta())?;
        salvage::durable(&store, cluster.as_ref(), &inner.folder.identity())?
    };
    let files = DiskFiles::new(&dir.join("log")).map_err(failed("create the log of"))?;
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
    let log = NodeLog::open(Arc::new(files), config, Arc::clone(&inner.clock), &mut Registry::default())?;
    for (group, upto) in durable {
        if let Some(vote) = inner.log.state(group)?.vote {
            log.save_vote(group, vote, Box::new(|_| {}))?;
        }
        // What was written is on the disk when the log is closed; a failure is told there.
        log.purge(group, upto, Box::new(|_| {}))?;
    }
    log.close()?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync"))
}
