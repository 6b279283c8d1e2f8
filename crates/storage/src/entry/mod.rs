//! What a log entry of a shard says, and its byte coding: the log, the replication stream and what replay reads.
//!
//! An entry is {version, kind, checksum} and a body. The body of a *write* defines new sources and series in full, then
//! gives for every batch its scrape mark, planned rejections, metadata, start timestamps, rows, histograms and exemplars,
//! then a hash of all decoded values, so that an encoder and a decoder whose states differ are found out.
//! The other kinds are single decisions: delete, retention floor, eviction, range. What an entry does to the state is in
//! `shard/apply.rs`; the bytes are drawn in `FORMAT.md`.

mod histogram;
mod records;
mod rows;
mod values;

use std::sync::Arc;

use model::{Exemplar, Histogram, LabelError, Labels, MetricKind, MetricMetadata};

pub use crate::codec::DecodeError;
use crate::codec::{Reader, put_bytes, put_signed, put_varint};
pub(crate) use histogram::{put_histogram, read_histogram};
use model::seam::Counts;
pub(crate) use records::{HistogramRecord, RecordEncoder, RowStarts};
use records::{RecordReader, read_starts};
pub(crate) use rows::{Base, RowEncoder, RowHead, RowSet, fold};
pub(crate) use values::decode as decode_values;

/// Appends `values` (bits) coded against `bases`, which are as many.
pub(crate) fn encode_values(bases: &[u64], values: &[u64], out: &mut Vec<u8>) {
    values::encode(bases, values, &mut values::ValueScratch::default(), out);
}

/// The version that this program writes, and the only one it reads.
pub const ENTRY_VERSION: u8 = 2;

const HEAD: usize = 6;

/// What kind of decision an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Samples and what belongs to them.
    Write = 1,
    /// Deletes samples of series in a range of time.
    Delete = 2,
    /// Moves the retention floor.
    Retention = 3,
    /// Takes series out of the head.
    Evict = 4,
    /// Sets epoch and range of placement keys.
    Range = 5,
}

/// What every entry begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    /// Epoch of the shard when it was planned.
    pub(crate) epoch: u64,
    /// Incarnation of the leader's planner, and the plan's number in it.
    pub(crate) incarnation: u64,
    /// Number of the plan within the incarnation.
    pub(crate) plan: u64,
    /// The leader's wall clock, ms: the shard's clock from now on.
    pub(crate) now_ms: i64,
}

impl EntryHead {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.epoch);
        put_varint(out, self.incarnation);
        put_varint(out, self.plan);
        put_signed(out, self.now_ms);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: reader.varint()?,
            incarnation: reader.varint()?,
            plan: reader.varint()?,
            now_ms: reader.signed()?,
        })
    }
}

/// A source that the entry defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceDef {
    pub(crate) id: u32,
    pub(crate) tenant: String,
    pub(crate) key: u128,
}

/// A series that the entry defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeriesDef {
    pub(crate) reference: u64,
    pub(crate) source: u32,
    pub(crate) slot: u32,
    pub(crate) labels: Labels,
}

/// A slot of a source.
pub(crate) type SlotId = (u32, u32);

/// That a batch is the whole outcome of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MarkRecord {
    pub(crate) target: u64,
    pub(crate) timestamp: i64,
    /// Slots that the scrape had, though no sample of them is in the entry.
    pub(crate) present: Vec<SlotId>,
    /// Slots whose samples are in the entry, but that are left out of staleness tracking.
    pub(crate) untracked: Vec<SlotId>,
}

/// A batch of a write, without its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchHead {
    /// What was already applied and therefore is not in the entry.
    pub(crate) repeated: Counts,
    /// Samples that the leader rejected: (reason number, count).
    pub(crate) rejected: Vec<(u8, u64)>,
    pub(crate) mark: Option<MarkRecord>,
    pub(crate) metadata: Vec<MetricMetadata>,
    pub(crate) tenant: String,
    /// Start timestamps, by row; filled when it is read.
    pub(crate) starts: Vec<RowStarts>,
}

/// Collects a write entry.
#[derive(Debug, Default)]
pub(crate) struct WriteBuilder {
    sources: Vec<u8>,
    n_sources: u64,
    series: Vec<u8>,
    n_series: u64,
    batches: Vec<u8>,
    n_batches: u64,
    pub(crate) rows: RowEncoder,
    pub(crate) records: RecordEncoder,
}

impl WriteBuilder {
    pub(crate) fn define_source(&mut self, def: &SourceDef) {
        self.n_sources += 1;
        put_varint(&mut self.sources, u64::from(def.id));
        put_bytes(&mut self.sources, def.tenant.as_bytes());
        self.sources.extend_from_slice(&def.key.to_le_bytes());
    }

    pub(crate) fn define_series(&mut self, def: &SeriesDef) {
        self.n_series += 1;
        put_varint(&mut self.series, def.reference);
        put_varint(&mut self.series, u64::from(def.source));
        put_varint(&mut self.series, u64::from(def.slot));
        put_bytes(&mut self.series, def.labels.as_bytes());
    }

    /// Ends a batch: what `rows` and `records` collected since the last one belongs to it.
    pub(crate) fn end_batch(&mut self, head: &BatchHead) {
        self.n_batches += 1;
        let out = &mut self.batches;
        put_bytes(out, head.tenant.as_bytes());
        for count in [head.repeated.samples, head.repeated.histograms, head.repeated.exemplars] {
            put_varint(out, count);
        }
        put_varint(out, head.rejected.len() as u64);
        for (reason, count) in &head.rejected {
            out.push(*reason);
            put_varint(out, *count);
        }
        match &head.mark {
            None => out.push(0),
            Some(mark) => {
                out.push(1);
                out.extend_from_slice(&mark.target.to_le_bytes());
                put_signed(out, mark.timestamp);
                for slots in [&mark.present, &mark.untracked] {
                    put_varint(out, slots.len() as u64);
                    for (source, slot) in slots {
                        put_varint(out, u64::from(*source));
                        put_varint(out, u64::from(*slot));
                    }
                }
            }
        }
        put_varint(out, head.metadata.len() as u64);
        for item in &head.metadata {
            put_bytes(out, item.family.as_bytes());
            out.push(item.kind as u8);
            put_bytes(out, item.help.as_bytes());
            put_bytes(out, item.unit.as_bytes());
        }
        self.records.take_starts(out);
        self.rows.take(out);
        self.records.take_rest(out);
    }

    pub(crate) fn finish(mut self, head: &EntryHead) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.sources.len() + self.series.len() + self.batches.len() + 64);
        out.resize(HEAD, 0);
        head.put(&mut out);
        for (count, part) in [
            (self.n_sources, &mut self.sources),
            (self.n_series, &mut self.series),
            (self.n_batches, &mut self.batches),
        ] {
            put_varint(&mut out, count);
            out.append(part);
        }
        out.extend_from_slice(&fold(self.rows.check(), self.records.check()).to_le_bytes());
        stamp(out, EntryKind::Write)
    }
}

/// A decision that is not a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Delete { refs: Vec<u64>, after: i64, until: i64 },
    Retention { floor: i64 },
    Evict { refs: Vec<u64> },
    Range { epoch: u64, first: u64, last: u64 },
}

impl Decision {
    pub(crate) fn encode(&self, head: &EntryHead) -> Vec<u8> {
        let mut out = vec![0; HEAD];
        head.put(&mut out);
        let put_refs = |out: &mut Vec<u8>, refs: &[u64]| {
            put_varint(out, refs.len() as u64);
            let mut last = 0;
            for r in refs {
                put_varint(out, r.wrapping_sub(last));
                last = *r;
            }
        };
        let kind = match self {
            Self::Delete { refs, after, until } => {
                put_signed(&mut out, *after);
                put_signed(&mut out, *until);
                put_refs(&mut out, refs);
                EntryKind::Delete
            }
            Self::Retention { floor } => {
                put_signed(&mut out, *floor);
                EntryKind::Retention
            }
            Self::Evict { refs } => {
                put_refs(&mut out, refs);
                EntryKind::Evict
            }
            Self::Range { epoch, first, last } => {
                for number in [epoch, first, last] {
                    put_varint(&mut out, *number);
                }
                EntryKind::Range
            }
        };
        stamp(out, kind)
    }
}

fn stamp(mut entry: Vec<u8>, kind: EntryKind) -> Vec<u8> {
    entry[0] = ENTRY_VERSION;
    entry[1] = kind as u8;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&entry[..2]), &entry[HEAD..]);
    entry[2..HEAD].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// A decoded entry; of a write, the batches are still to be read.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Write(WriteReader<'a>),
    Decision(Decision),
}

/// Checks version and checksum of `bytes` and reads what precedes the batches.
pub(crate) fn decode(bytes: &[u8]) -> Result<(EntryHead, Entry<'_>), DecodeError> {
    let (Some(&[version, kind]), Some(sum), Some(body)) =
        (bytes.first_chunk::<2>(), bytes.get(2..HEAD), bytes.get(HEAD..))
    else {
        return Err(DecodeError::Truncated(bytes.len()));
    };
    if version != ENTRY_VERSION {
        return Err(DecodeError::Version(version));
    }
    if sum != crc32c::crc32c_append(crc32c::crc32c(&[version, kind]), body).to_le_bytes() {
        return Err(DecodeError::Checksum);
    }
    let mut reader = Reader::new(body);
    let head = EntryHead::read(&mut reader)?;
    if kind == EntryKind::Write as u8 {
        return Ok((head, Entry::Write(WriteReader::read(reader)?)));
    }
    let decision = if kind == EntryKind::Delete as u8 {
        let (after, until) = (reader.signed()?, reader.signed()?);
        Decision::Delete { refs: read_refs(&mut reader)?, after, until }
    } else if kind == EntryKind::Retention as u8 {
        Decision::Retention { floor: reader.signed()? }
    } else if kind == EntryKind::Evict as u8 {
        Decision::Evict { refs: read_refs(&mut reader)? }
    } else if kind == EntryKind::Range as u8 {
        Decision::Range { epoch: reader.varint()?, first: reader.varint()?, last: reader.varint()? }
    } else {
        return Err(reader.invalid("entry kind"));
    };
    if !reader.is_empty() {
        return Err(reader.invalid("trailing bytes"));
    }
    Ok((head, Entry::Decision(decision)))
}

fn read_refs(reader: &mut Reader<'_>) -> Result<Vec<u64>, DecodeError> {
    let count = reader.count(1)?;
    let mut last = 0u64;
    (0..count)
        .map(|_| {
            last = last.wrapping_add(reader.varint()?);
            Ok(last)
        })
        .collect()
}

/// Reads a write: definitions are decoded, batches follow one by one.
#[derive(Debug)]
pub(crate) struct WriteReader<'a> {
    pub(crate) sources: Vec<SourceDef>,
    pub(crate) series: Vec<SeriesDef>,
    pub(crate) n_batches: usize,
    reader: Reader<'a>,
    records: RecordReader,
}

impl<'a> WriteReader<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let n_sources = reader.count(18)?;
        let mut sources = Vec::with_capacity(n_sources);
        for _ in 0..n_sources {
            let id = reader.varint32("source")?;
            let tenant = reader.text()?.to_owned();
            sources.push(SourceDef { id, tenant, key: reader.u128()? });
        }
        let n_series = reader.count(4)?;
        let mut series = Vec::with_capacity(n_series);
        for _ in 0..n_series {
            let reference = reader.varint()?;
            let (source, slot) = (reader.varint32("source")?, reader.varint32("slot")?);
            let labels =
                Labels::from_canonical(reader.bytes()?).map_err(|_: LabelError| reader.invalid("labels"))?;
            series.push(SeriesDef { reference, source, slot, labels });
        }
        let n_batches = reader.count(4)?;
        Ok(Self { sources, series, n_batches, reader, records: RecordReader::default() })
    }

    /// The head of the next batch and how many rows follow it.
    pub(crate) fn batch(&mut self) -> Result<(BatchHead, usize), DecodeError> {
        let reader = &mut self.reader;
        let tenant = reader.text()?.to_owned();
        let repeated =
            Counts { samples: reader.varint()?, histograms: reader.varint()?, exemplars: reader.varint()? };
        let n_rejected = reader.count(2)?;
        let mut rejected = Vec::with_capacity(n_rejected);
        for _ in 0..n_rejected {
            rejected.push((reader.byte()?, reader.varint()?));
        }
        let mark = match reader.byte()? {
            0 => None,
            1 => {
                let (target, timestamp) = (reader.u64()?, reader.signed()?);
                let mut slots = || -> Result<Vec<SlotId>, DecodeError> {
                    let count = reader.count(2)?;
                    (0..count).map(|_| Ok((reader.varint32("source")?, reader.varint32("slot")?))).collect()
                };
                Some(MarkRecord { target, timestamp, present: slots()?, untracked: slots()? })
            }
            _ => return Err(reader.invalid("mark")),
        };
        let n_metadata = reader.count(4)?;
        let mut metadata = Vec::with_capacity(n_metadata);
        for _ in 0..n_metadata {
            let family = reader.text()?.to_owned();
            let kind = MetricKind::from_number(u64::from(reader.byte()?));
            metadata.push(MetricMetadata {
                family,
                kind,
                help: reader.text()?.to_owned(),
                unit: reader.text()?.to_owned(),
            });
        }
        let starts = read_starts(reader)?;
        let n_rows = reader.count(4)?;
        Ok((BatchHead { repeated, rejected, mark, metadata, tenant, starts }, n_rows))
    }

    /// The rest of the entry, from which a batch's rows are read.
    pub(crate) fn rows(&mut self) -> &mut Reader<'a> {
        &mut self.reader
    }

    /// How many histograms the batch has; to be asked after its rows.
    pub(crate) fn n_histograms(&mut self) -> Result<usize, DecodeError> {
        self.reader.count(6)
    }

    /// The next histogram; `applied` gives the newest one of a slot.
    pub(crate) fn histogram(
        &mut self,
        applied: impl Fn(SlotId) -> Option<Arc<Histogram>>,
    ) -> Result<HistogramRecord, DecodeError> {
        self.records.histogram(&mut self.reader, applied)
    }

    /// How many exemplars the batch has; to be asked after its histograms. They end the batch.
    pub(crate) fn n_exemplars(&mut self) -> Result<usize, DecodeError> {
        self.reader.count(12)
    }

    /// The next exemplar and the slot of its series.
    pub(crate) fn exemplar(&mut self) -> Result<(SlotId, Exemplar), DecodeError> {
        self.records.exemplar(&mut self.reader)
    }

    /// Ends the entry: the hash of the decoded values (`check` of the rows, and that of the histograms) must fit.
    pub(crate) fn finish(mut self, check: u64) -> Result<(), DecodeError> {
        let found = self.reader.u64()?;
        if found != fold(check, self.records.check()) {
            return Err(self.reader.invalid("check hash: the values decode to something else"));
        }
        if !self.reader.is_empty() {
            return Err(self.reader.invalid("trailing bytes"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD_: EntryHead = EntryHead { epoch: 3, incarnation: 9, plan: 2, now_ms: 1_000 };

    #[test]
    fn decisions_come_back() {
        for decision in [
            Decision::Delete { refs: vec![3, 7, 900], after: i64::MIN, until: 5 },
            Decision::Retention { floor: -4 },
            Decision::Evict { refs: vec![] },
            Decision::Range { epoch: 2, first: 0, last: u64::MAX },
        ] {
            let bytes = decision.encode(&HEAD_);
            let (head, Entry::Decision(back)) = decode(&bytes).unwrap() else { panic!("not a decision") };
            assert_eq!((head, back), (HEAD_, decision));
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut builder = WriteBuilder::default();
        builder.define_source(&SourceDef { id: 1, tenant: "t".into(), key: 77 });
        let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
        builder.define_series(&SeriesDef { reference: 5, source: 1, slot: 0, labels });
        builder.end_batch(&BatchHead { tenant: "t".into(), ..BatchHead::default() });
        let bytes = builder.finish(&HEAD_);
        assert!(decode(&bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
