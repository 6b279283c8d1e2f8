//! openraft's own storage suite on our log: what it expects of a log, checked on every change.
//!
//! The state machine of the suite is a small one in memory, since the suite moves whole snapshots between machines;
//! ours are storage's, with tests of their own.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use model::seam::fake::ManualClock;
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend, StorageError};
use prometheus_client::registry::Registry;
use storage::log::{FaultyFiles, GroupId, LogConfig, NodeLog};

use crate::coding::Mark;
use crate::log_store::GroupLog;
use crate::types::{Applied, RaftLogId, SnapshotMeta, StoredMembership, Types};

#[derive(Clone, Default)]
struct MemoryMachine {
    mark: Mark,
    snapshot: Option<Mark>,
}

impl RaftSnapshotBuilder<Types> for MemoryMachine {
    type SnapshotData = BTreeMap<u64, u64>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Self::SnapshotData>, io::Error> {
        Ok(snapshot(&self.mark))
    }
}

fn snapshot(mark: &Mark) -> SnapshotOf<Types, BTreeMap<u64, u64>> {
    let meta = SnapshotMeta { last_log_id: mark.last, last_membership: mark.membership.clone() };
    Snapshot { meta, snapshot: BTreeMap::new() }
}

impl RaftStateMachine<Types> for MemoryMachine {
    type SnapshotData = BTreeMap<u64, u64>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        Ok((self.mark.last, self.mark.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.mark.last = Some(entry.log_id());
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.mark.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
            }
            if let Some(responder) = responder {
                responder.send(Applied::Nothing);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.snapshot = Some(self.mark.clone());
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        _data: Self::SnapshotData,
    ) -> Result<(), io::Error> {
        self.mark = Mark { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.snapshot = Some(self.mark.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<Types, Self::SnapshotData>>, io::Error> {
        Ok(self.snapshot.as_ref().map(snapshot))
    }
}

struct Builder;

impl StoreBuilder<Types, GroupLog, MemoryMachine, ()> for Builder {
    async fn build(&self) -> Result<((), GroupLog, MemoryMachine), StorageError<Types>> {
        let files = Arc::new(FaultyFiles::new());
        let config = LogConfig { segment_bytes: 64 << 10, cache_bytes: 256, ..LogConfig::default() };
        let log = NodeLog::open(files, config, Arc::new(ManualClock::default()), &mut Registry::default());
        Ok(((), GroupLog::new(log.expect("opens"), GroupId(7)), MemoryMachine::default()))
    }
}

#[test]
fn openrafts_storage_suite_passes_on_the_node_log() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(Builder)).unwrap();
}
