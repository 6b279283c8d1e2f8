//! The table of queries under way: who asks what since when, and how to stop it.
//!
//! The table is mirrored in a file of fixed slots, so that after a crash the next start can say which queries were
//! running (upstream: `promql/query_logger.go`). The file is never fsynced: it outlives the process, not the machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::TenantId;
use model::seam::QueryBudget;
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Bytes of a slot of the file.
const SLOT: usize = 1_000;

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
    /// The most memory in use at a time so far, bytes.
    pub peak_bytes: u64,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    kind: &'static str,
    text: String,
    started_ms: i64,
    budget: Arc<QueryBudget>,
    stopped: CancellationToken,
    /// Its slot in the file.
    slot: Option<usize>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct ActiveTable {
    next: AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
    file: Option<SlotFile>,
}

/// The file: slots of JSON, zeros where there is none.
#[derive(Debug)]
struct SlotFile {
    file: File,
    free: Mutex<Vec<usize>>,
}

impl SlotFile {
    /// Opens `path` with `slots` empty slots; what was in it before comes back as lines of JSON.
    fn open(path: &Path, slots: usize) -> io::Result<(Self, Vec<String>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        // A file that somebody else made may be of any size.
        let mut before = vec![0; length.min(SLOT * 4_096)];
        let read = file.read_at(&mut before, 0)?;
        let text = |slot: &[u8]| {
            let end = slot.iter().position(|byte| *byte == 0).unwrap_or(slot.len());
            let text = String::from_utf8_lossy(&slot[..end]).trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let unfinished = before[..read].chunks(SLOT).filter_map(text).collect();
        file.set_len(0)?;
        file.set_len((slots * SLOT) as u64)?;
        Ok((Self { file, free: Mutex::new((0..slots).rev().collect()) }, unfinished))
    }

    fn write(&self, slot: usize, text: &[u8]) {
        let mut bytes = [0; SLOT];
        let length = text.len().min(SLOT);
        bytes[..length].copy_from_slice(&text[..length]);
        if let Err(error) = self.file.write_all_at(&bytes, (slot * SLOT) as u64) {
            tracing::debug!(%error, "cannot note a query in the file of active queries");
        }
    }
}

/// A slot's text: JSON that fits, the query cut at the end of a character where it does not.
fn slot_text(query: &str, tenant: &TenantId, started_ms: i64) -> Vec<u8> {
    let mut length = query.len().min(SLOT);
    loop {
        while !query.is_char_boundary(length) {
            length -= 1;
        }
        let entry = json!({"query": &query[..length], "timestamp_sec": started_ms / 1_000, "tenant": tenant.as_str()});
        let text = entry.to_string().into_bytes();
        if text.len() <= SLOT || length == 0 {
            return text;
        }
        // JSON makes at most six bytes of one.
        length = length.saturating_sub((text.len() - SLOT).div_ceil(6));
    }
}

impl ActiveTable {
    /// The table mirrored in a file where the settings name one. Says which queries did not end in the run before. Without
    /// the file (a full disk, say) queries are served all the same.
    pub(crate) fn of(config: &Config) -> Self {
        let Some(path) = &config.active_file else { return Self::default() };
        match Self::mirrored(path, config.max_concurrency) {
            Ok((table, unfinished)) => {
                if !unfinished.is_empty() {
                    let queries = format!("[{}]", unfinished.join(","));
                    tracing::info!(%queries, "these queries did not finish in the last run");
                }
                table
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "active queries are not noted in their file");
                Self::default()
            }
        }
    }

    /// A table mirrored in the file `path` with `slots` slots; the second value has the queries that were under way
    /// when the process before ended, as lines of JSON.
    fn mirrored(path: &Path, slots: usize) -> io::Result<(Self, Vec<String>)> {
        let (file, unfinished) = SlotFile::open(path, slots)?;
        Ok((Self { file: Some(file), ..Self::default() }, unfinished))
    }

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
        let slot = self.file.as_ref().and_then(|file| {
            let slot = file.free.lock().pop()?;
            file.write(slot, &slot_text(&text, &tenant, started_ms));
            Some(slot)
        });
        self.entries.lock().insert(id, Entry { tenant, kind, text, started_ms, budget, stopped, slot });
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
            peak_bytes: entry.budget.peak_bytes(),
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
        let entry = self.table.entries.lock().remove(&self.id);
        if let (Some(file), Some(slot)) = (&self.table.file, entry.and_then(|entry| entry.slot)) {
            file.write(slot, &[]);
            file.free.lock().push(slot);
        }
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

    #[test]
    fn what_was_under_way_is_found_after_a_crash_and_nothing_after_an_orderly_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.active");
        let open = || {
            let (table, unfinished) = ActiveTable::mirrored(&path, 2).unwrap();
            (Arc::new(table), unfinished)
        };
        let (table, unfinished) = open();
        assert!(unfinished.is_empty());
        let enter = |table: &Arc<ActiveTable>, text: String| {
            table.enter(TenantId::anonymous(), "instant", text, 7_000, QueryBudget::unlimited())
        };
        let long = format!("\"{}\"", "é\u{1}".repeat(2_000));
        let (short, cut, without_slot) =
            (enter(&table, "up".into()), enter(&table, long.clone()), enter(&table, "x".into()));
        // The process ends without a word.
        let (_, unfinished) = open();
        assert_eq!(unfinished.len(), 2);
        let read: Vec<serde_json::Value> =
            unfinished.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&read[0]["query"], &read[0]["timestamp_sec"]), (&json!("up"), &json!(7)));
        let shown = read[1]["query"].as_str().unwrap();
        assert!(long.starts_with(shown) && shown.len() > 100, "{shown}");
        drop((short, cut, without_slot));

        let (table, _) = open();
        drop(enter(&table, "gone".into()));
        let (_, unfinished) = open();
        assert!(unfinished.is_empty(), "{unfinished:?}");
        std::fs::write(&path, [0xff; 3_333]).unwrap();
        assert_eq!(open().1.len(), 4, "garbage is shown, never fatal");
    }
}
