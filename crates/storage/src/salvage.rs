//! Salvage of a closed store: every record is read, and what is damaged is moved into the quarantine family, so that the
//! rest can be opened. A decision for people: what was moved is lost to queries, and the report says what it was.

use std::collections::BTreeSet;
use std::path::Path;

use model::TimeRange;
use model::seam::SeriesData;

use crate::StorageError;
use crate::codec::open_record;
use crate::index::SealedIndex;
use crate::kv::{Batch, Family, Kv, RocksConfig, RocksKv, scan_prefix};
use crate::page::{PageReader, PageScratch};
use crate::shard::{PageKey, RecordName, describe_state};

/// A damaged record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedRecord {
    /// What it was.
    pub name: String,
    /// What is wrong with it, or why it had to go with another.
    pub reason: String,
    /// Whether it was moved; what a shard cannot live without stays, and the shard goes on refusing to open.
    pub moved: bool,
}

/// What a salvage found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was damaged.
    pub damaged: Vec<SalvagedRecord>,
}

/// Reads everything in the closed database in `dir`; with `repair`, moves what is damaged into quarantine.
pub fn salvage(dir: &Path, repair: bool) -> Result<SalvageReport, StorageError> {
    salvage_kv(&RocksKv::open(dir, &RocksConfig::default())?, repair)
}

/// The same over any key-value store.
pub fn salvage_kv(kv: &dyn Kv, repair: bool) -> Result<SalvageReport, StorageError> {
    let mut report = SalvageReport::default();
    let mut batch = Batch::default();
    let mut lost_sources: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut lost_days: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut quarantine = |report: &mut SalvageReport,
                          family: Family,
                          key: &[u8],
                          value: &[u8],
                          moved: bool,
                          text: (String, String)| {
        report.damaged.push(SalvagedRecord { name: text.0, reason: text.1, moved });
        if moved {
            let mut place = vec![family as u8];
            place.extend_from_slice(key);
            batch.put(Family::Quarantine, place, value.to_vec());
            batch.delete(family, key.to_vec());
        }
    };
    scan_prefix(kv, Family::Pages, &[], |key, value| {
        report.records += 1;
        report.bytes += value.len() as u64;
        let name = PageKey::decode(key).map_or_else(|| format!("page {key:02x?}"), |k| k.name());
        if let Err(reason) = check_page(value) {
            quarantine(&mut report, Family::Pages, key, value, true, (name, reason));
        }
        Ok(())
    })?;
    scan_prefix(kv, Family::State, &[], |key, value| {
        report.records += 1;
        report.bytes += value.len() as u64;
        let (name, kind) = describe_state(key);
        if let Err(error) = open_record(crate::shard::STATE_VERSION, value) {
            if let RecordName::Source { shard, source } = kind {
                lost_sources.insert((shard, source));
            }
            let moved = !matches!(kind, RecordName::Mark);
            quarantine(&mut report, Family::State, key, value, moved, (name, error.to_string()));
        }
        Ok(())
    })?;
    if !lost_sources.is_empty() {
        scan_prefix(kv, Family::State, &[], |key, value| {
            let (name, kind) = describe_state(key);
            if let RecordName::Series { shard } = kind
                && let Some(source) = crate::shard::source_of_series(value)
                && lost_sources.contains(&(shard, source))
            {
                let reason = format!("its source {source} is damaged");
                quarantine(&mut report, Family::State, key, value, true, (name, reason));
            }
            Ok(())
        })?;
    }
    scan_prefix(kv, Family::Index, &[], |key, value| {
        report.records += 1;
        report.bytes += value.len() as u64;
        // {day prefix of 9 bytes, tenant u32, part u32}
        let is_index = key.len() == 17 && key[13..] == [0; 4] && key[9..13] != [0xff; 4];
        let checked = if is_index {
            SealedIndex::open(value).map(|_| ()).map_err(|e| e.to_string())
        } else {
            open_record(1, value).map(|_| ()).map_err(|e| e.to_string())
        };
        if let Err(reason) = checked {
            lost_days.insert(key.get(..9).unwrap_or(key).to_vec());
            quarantine(
                &mut report,
                Family::Index,
                key,
                value,
                true,
                (format!("sealed index {key:02x?}"), reason),
            );
        }
        Ok(())
    })?;
    for day in lost_days {
        scan_prefix(kv, Family::Index, &day, |key, value| {
            let seal = key.get(9..13) == Some(&[0xff; 4][..]);
            if seal && open_record(1, value).is_ok() {
                let text = (format!("seal of a day {key:02x?}"), "an index of the day is damaged".into());
                quarantine(&mut report, Family::Index, key, value, true, text);
            }
            Ok(())
        })?;
    }
    scan_prefix(kv, Family::Meta, &[], |key, value| {
        report.records += 1;
        report.bytes += value.len() as u64;
        if let Err(error) = open_record(1, value) {
            let name = format!("meta record {:?}", String::from_utf8_lossy(key));
            quarantine(&mut report, Family::Meta, key, value, key != [0], (name, error.to_string()));
        }
        Ok(())
    })?;
    if repair && !batch.changes.is_empty() {
        kv.write(batch)?;
        kv.flush()?;
    } else if !repair {
        report.damaged.iter_mut().for_each(|record| record.moved = false);
    }
    Ok(report)
}

fn check_page(value: &[u8]) -> Result<(), String> {
    let page = PageReader::open(value).map_err(|e| e.to_string())?;
    let mut scratch = PageScratch::new();
    let mut data = SeriesData::default();
    for at in 0..page.len() {
        data.clear();
        page.read(at, TimeRange::ALL, &mut scratch, &mut data).map_err(|e| e.to_string())?;
    }
    Ok(())
}
