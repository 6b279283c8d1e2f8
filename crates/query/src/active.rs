//! The table of queries under way: who asks what since when, and how to stop it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::TenantId;
use model::seam::QueryBudget;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A query under way.
#[derive(Clone, Debug)]
pub struct ActiveQuery {
    /// Its number, unique on this node since it started.
    pub id: u64,
    /// Whose.
    pub tenant: TenantId,
    /// `instant`, `range`, `series`, `labels`, `label_values`.
    pub kind: &'static str,
    /// The text (the selectors of a label call).
    pub text: String,
    /// When it came, ms.
    pub started_ms: i64,
    /// Samples touched so far.
    pub samples: u64,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    kind: &'static str,
    text: String,
    started_ms: i64,
    budget: Arc<QueryBudget>,
    stopped: CancellationToken,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct ActiveTable {
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

impl ActiveTable {
    /// Enters a query; it leaves, and is cancelled, when the returned guard is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        tenant: TenantId,
        kind: &'static str,
        text: String,
        started_ms: i64,
        budget: Arc<QueryBudget>,
    ) -> ActiveGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let stopped = CancellationToken::new();
        let guard = ActiveGuard {
            table: Arc::clone(self),
            id,
            budget: Arc::clone(&budget),
            stopped: stopped.clone(),
        };
        self.entries.lock().insert(id, Entry { tenant, kind, text, started_ms, budget, stopped });
        guard
    }

    /// All queries, oldest first.
    pub(crate) fn list(&self) -> Vec<ActiveQuery> {
        let entries = self.entries.lock();
        let show = |(id, entry): (&u64, &Entry)| ActiveQuery {
            id: *id,
            tenant: entry.tenant.clone(),
            kind: entry.kind,
            text: entry.text.clone(),
            started_ms: entry.started_ms,
            samples: entry.budget.samples(),
        };
        entries.iter().map(show).collect()
    }

    /// Cancels query `id`; false when there is no such query.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(&id) else { return false };
        entry.budget.cancel();
        entry.stopped.cancel();
        true
    }
}

/// Keeps a query in the table. Dropping it, for example because the connection closed, stops the query.
#[derive(Debug)]
pub(crate) struct ActiveGuard {
    table: Arc<ActiveTable>,
    id: u64,
    budget: Arc<QueryBudget>,
    /// Set when an operator cancels the query, for what waits rather than computes.
    pub(crate) stopped: CancellationToken,
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.budget.cancel();
        self.table.entries.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_listed_until_its_guard_drops_and_can_be_cancelled() {
        let table = Arc::new(ActiveTable::default());
        let budget = QueryBudget::unlimited();
        let guard = table.enter(TenantId::anonymous(), "instant", "up".into(), 5, Arc::clone(&budget));
        let listed = table.list();
        assert_eq!((listed.len(), listed[0].text.as_str(), listed[0].started_ms), (1, "up", 5));
        assert!(!table.cancel(listed[0].id + 1));
        assert!(budget.check().is_ok());
        assert!(table.cancel(listed[0].id));
        assert!(budget.check().is_err());
        drop(guard);
        assert!(table.list().is_empty());
        assert!(!table.cancel(listed[0].id));
    }
}
