//! Makes a damaged log usable again, on an operator's word: whole entries stay, the rest is given up and told.
//!
//! The old segments are copied to the quarantine before anything is changed, and removed only after everything
//! that is kept was written to new segments and fsynced.

use std::sync::Arc;

use model::seam::SystemClock;
use prometheus_client::registry::Registry;

use super::record::Kind;
use super::shared::Op;
use super::state::{Slot, Stage};
use super::{GroupId, LogConfig, LogError, LogFiles, LogId, scan, segment_name, writer};

/// What became of a damaged group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedGroup {
    /// Which group.
    pub group: GroupId,
    /// What was found.
    pub what: String,
    /// The first entry given up; `None` when all entries are whole.
    pub lost_from: Option<u64>,
    /// The last entry that is known to have been there.
    pub known_last: Option<LogId>,
    /// The last entry that is kept.
    pub kept_last: Option<LogId>,
}

pub(crate) fn salvage(
    files: &Arc<dyn LogFiles>,
    config: LogConfig,
    durable: &[(GroupId, LogId)],
) -> Result<Vec<SalvagedGroup>, LogError> {
    let place = files.place();
    let mut found = scan::scan(&**files, true)?;
    let old: Vec<u64> = found.segments.keys().copied().collect();
    for &seq in &old {
        files.quarantine(&segment_name(seq)).map_err(LogError::io(&place, "copy to the quarantine of"))?;
    }
    let mut report = Vec::new();
    for &(id, durable) in durable {
        let group = found.groups.entry(id).or_default();
        if group.last().is_none_or(|last| last.index < durable.index) {
            let what = format!(
                "the log ends at {}, the stored state at {}",
                group.last().map_or("nothing".to_owned(), |last| last.index.to_string()),
                durable.index
            );
            let kept_last = Some(durable);
            report.push(SalvagedGroup { group: id, what, lost_from: None, known_last: kept_last, kept_last });
        }
        group.purge(durable);
    }
    for (id, group) in &mut found.groups {
        let Err(error) = group.check(*id) else { continue };
        let known_last = group.last();
        let lost_from = group.salvage();
        let kept_last = group.last();
        report.push(SalvagedGroup { group: *id, what: error.to_string(), lost_from, known_last, kept_last });
    }
    report.sort_by_key(|group| group.group);

    // Write everything kept into a new segment: its table stands first, the entries follow.
    let Some(last_seq) = old.last().copied() else { return Ok(report) };
    found.tail = None;
    let spare = found.spare.take().map(|(seq, _)| seq);
    found.leftovers.extend(spare);
    let mut registry = Registry::default();
    let clock = Arc::new(SystemClock::new());
    let (shared, mut writer) =
        writer::open_found(Arc::clone(files), config, clock, &mut registry, found, last_seq + 2)?;
    let groups: Vec<(GroupId, u64, u64)> = {
        let state = shared.state.lock();
        state.groups.iter().map(|(id, group)| (*id, group.first(), group.end())).collect()
    };
    for (group, first, end) in groups {
        let mut at = first;
        while at < end {
            let entries = shared.read(group, at, end, 4 << 20)?;
            let Some(last) = entries.last().map(|entry| entry.id.index) else { break };
            let mut batch = Vec::with_capacity(entries.len());
            {
                let mut state = shared.state.lock();
                for entry in entries {
                    let ticket = state.next_ticket();
                    if let Some(slot) = state.groups.get_mut(&group).and_then(|g| g.slot_mut(entry.id.index))
                    {
                        *slot = Slot {
                            ticket,
                            stage: Stage::Queued,
                            bytes: Some(entry.bytes.clone()),
                            ..slot.clone()
                        };
                    }
                    let kind = Kind::Entry;
                    batch.push(Op {
                        kind,
                        tag: entry.tag,
                        group,
                        id: entry.id,
                        ticket,
                        body: entry.bytes,
                        flushed: None,
                    });
                }
            }
            writer.write(&shared, &mut batch)?;
            at = last + 1;
        }
    }
    for seq in old {
        files.remove(&segment_name(seq)).map_err(LogError::io(&place, "remove a salvaged segment of"))?;
    }
    files.sync_dir().map_err(LogError::io(&place, "fsync"))?;
    Ok(report)
}
