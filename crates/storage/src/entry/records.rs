//! What a batch of a write has besides rows of floats: start timestamps of rows, histograms, exemplars.
//!
//! Start timestamps stand before the rows, so that a row is applied with them; a row that is not named has none.
//! Histograms are coded against the newest histogram of their slot, or against the one before in the same entry.

use std::sync::Arc;

use hashbrown::HashMap;
use model::{Exemplar, Histogram, Labels};
use xxhash_rust::xxh3::xxh3_64;

use super::histogram::{put_histogram, read_histogram};
use super::{SlotId, fold};
use crate::codec::{DecodeError, Reader, put_bytes, put_signed, put_varint};

const BASE_NONE: u8 = 0;
const BASE_APPLIED: u8 = 1;
const BASE_ENTRY: u8 = 2;

/// The start timestamps of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowStarts {
    /// Which row of the batch.
    pub(crate) row: u32,
    /// Whether samples that are not listed go on with the start of their slot's newest sample; else they have none.
    pub(crate) inherit: bool,
    /// Position in the row, and start.
    pub(crate) listed: Vec<(u32, i64)>,
}

impl RowStarts {
    /// The least that tells `starts`, of a row whose slots have the newest starts `inherited`; `None` when there is
    /// nothing to tell.
    pub(crate) fn of(row: u32, starts: &[i64], inherited: Option<&[i64]>) -> Option<Self> {
        let listed = |differ: &dyn Fn(usize, i64) -> bool| -> Vec<(u32, i64)> {
            let all = starts.iter().enumerate().filter(|(at, start)| differ(*at, **start));
            all.map(|(at, start)| (at as u32, *start)).collect()
        };
        let plain = Self { row, inherit: false, listed: listed(&|_, start| start != 0) };
        if plain.listed.is_empty() {
            return None;
        }
        let Some(inherited) = inherited else { return Some(plain) };
        let against =
            Self { row, inherit: true, listed: listed(&|at, start| inherited.get(at) != Some(&start)) };
        Some(if against.listed.len() < plain.listed.len() { against } else { plain })
    }

    /// The start of each sample of the row of `slots`; `inherited` gives that of a slot's newest sample.
    pub(crate) fn resolve(
        &self,
        slots: &[u32],
        inherited: impl Fn(u32) -> i64,
        out: &mut Vec<i64>,
    ) -> Result<(), DecodeError> {
        out.clear();
        if self.inherit {
            out.extend(slots.iter().map(|slot| inherited(*slot)));
        } else {
            out.resize(slots.len(), 0);
        }
        for (position, start) in &self.listed {
            let place = out.get_mut(*position as usize);
            *place.ok_or(DecodeError::Invalid { what: "position of a start timestamp", at: 0 })? = *start;
        }
        Ok(())
    }
}

/// A histogram of an entry.
#[derive(Clone, Debug)]
pub(crate) struct HistogramRecord {
    pub(crate) slot: SlotId,
    pub(crate) timestamp: i64,
    /// Start timestamp, 0 = unknown.
    pub(crate) start: i64,
    pub(crate) histogram: Arc<Histogram>,
}

/// Histograms of an entry by slot, the newest: what later ones are coded against.
type Earlier = HashMap<SlotId, Arc<Histogram>>;

/// Collects the records of a batch; what it keeps between batches holds for the entry.
#[derive(Debug, Default)]
pub(crate) struct RecordEncoder {
    starts: Vec<RowStarts>,
    histograms: Vec<u8>,
    n_histograms: u64,
    last: (i64, i64),
    earlier: Earlier,
    exemplars: Vec<u8>,
    n_exemplars: u64,
    last_exemplar: i64,
    check: u64,
}

impl RecordEncoder {
    pub(crate) fn push_starts(&mut self, starts: RowStarts) {
        self.starts.push(starts);
    }

    /// Adds a histogram; `applied` is the newest one of its slot in the state that apply will meet.
    pub(crate) fn push_histogram(&mut self, record: &HistogramRecord, applied: Option<&Histogram>) {
        self.n_histograms += 1;
        let HistogramRecord { slot, timestamp, start, histogram } = record;
        let out = &mut self.histograms;
        put_varint(out, u64::from(slot.0));
        put_varint(out, u64::from(slot.1));
        put_signed(out, timestamp.wrapping_sub(self.last.0));
        put_signed(out, start.wrapping_sub(self.last.1));
        self.last = (*timestamp, *start);
        let earlier = self.earlier.insert(*slot, Arc::clone(histogram));
        let (kind, base) = match (&earlier, applied) {
            (Some(earlier), _) => (BASE_ENTRY, Some(&**earlier)),
            (None, Some(applied)) => (BASE_APPLIED, Some(applied)),
            (None, None) => (BASE_NONE, None),
        };
        out.push(kind);
        put_histogram(base, histogram, out);
        self.check = fold(self.check, digest(record));
    }

    pub(crate) fn push_exemplar(&mut self, slot: SlotId, exemplar: &Exemplar) {
        self.n_exemplars += 1;
        let out = &mut self.exemplars;
        put_varint(out, u64::from(slot.0));
        put_varint(out, u64::from(slot.1));
        put_signed(out, exemplar.timestamp.wrapping_sub(self.last_exemplar));
        self.last_exemplar = exemplar.timestamp;
        out.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
        put_bytes(out, exemplar.labels.as_bytes());
    }

    /// Whether nothing was pushed since the last take.
    pub(crate) fn is_empty(&self) -> bool {
        self.n_histograms == 0 && self.n_exemplars == 0
    }

    /// Hash over all histograms of the entry.
    pub(super) fn check(&self) -> u64 {
        self.check
    }

    /// Appends what stands before the rows.
    pub(super) fn take_starts(&mut self, out: &mut Vec<u8>) {
        put_varint(out, self.starts.len() as u64);
        let mut last_row = 0;
        for RowStarts { row, inherit, listed } in self.starts.drain(..) {
            put_varint(out, u64::from(row - last_row));
            last_row = row;
            out.push(u8::from(inherit));
            put_varint(out, listed.len() as u64);
            let (mut last_position, mut last_start) = (0, 0i64);
            for (position, start) in listed {
                put_varint(out, u64::from(position - last_position));
                put_signed(out, start.wrapping_sub(last_start));
                (last_position, last_start) = (position, start);
            }
        }
    }

    /// Appends what stands behind the rows.
    pub(super) fn take_rest(&mut self, out: &mut Vec<u8>) {
        put_varint(out, self.n_histograms);
        out.append(&mut self.histograms);
        put_varint(out, self.n_exemplars);
        out.append(&mut self.exemplars);
        (self.n_histograms, self.n_exemplars) = (0, 0);
    }
}

/// Reads the records of an entry, batch after batch.
#[derive(Debug, Default)]
pub(crate) struct RecordReader {
    last: (i64, i64),
    earlier: Earlier,
    last_exemplar: i64,
    check: u64,
}

impl RecordReader {
    /// Hash over all histograms so far.
    pub(super) fn check(&self) -> u64 {
        self.check
    }

    /// The next histogram; `applied` gives the newest one of a slot.
    pub(super) fn histogram(
        &mut self,
        reader: &mut Reader<'_>,
        applied: impl Fn(SlotId) -> Option<Arc<Histogram>>,
    ) -> Result<HistogramRecord, DecodeError> {
        let slot = (reader.varint32("source")?, reader.varint32("slot")?);
        let timestamp = self.last.0.wrapping_add(reader.signed()?);
        let start = self.last.1.wrapping_add(reader.signed()?);
        self.last = (timestamp, start);
        let base = match reader.byte()? {
            BASE_NONE => None,
            BASE_APPLIED => applied(slot),
            BASE_ENTRY => self.earlier.get(&slot).cloned(),
            _ => return Err(reader.invalid("base of a histogram")),
        };
        let histogram = Arc::new(read_histogram(reader, base.as_deref())?);
        self.earlier.insert(slot, Arc::clone(&histogram));
        let record = HistogramRecord { slot, timestamp, start, histogram };
        self.check = fold(self.check, digest(&record));
        Ok(record)
    }

    pub(super) fn exemplar(&mut self, reader: &mut Reader<'_>) -> Result<(SlotId, Exemplar), DecodeError> {
        let slot = (reader.varint32("source")?, reader.varint32("slot")?);
        let timestamp = self.last_exemplar.wrapping_add(reader.signed()?);
        self.last_exemplar = timestamp;
        let value = f64::from_bits(reader.u64()?);
        let labels =
            Labels::from_canonical(reader.bytes()?).map_err(|_| reader.invalid("labels of an exemplar"))?;
        Ok((slot, Exemplar { labels, value, timestamp }))
    }
}

/// Reads what [`RecordEncoder::take_starts`] wrote.
pub(super) fn read_starts(reader: &mut Reader<'_>) -> Result<Vec<RowStarts>, DecodeError> {
    let mut all = Vec::new();
    let mut row = 0u32;
    for _ in 0..reader.count(3)? {
        row = row.checked_add(reader.varint32("row")?).ok_or_else(|| reader.invalid("row"))?;
        let inherit = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return Err(reader.invalid("kind of start timestamps")),
        };
        let count = reader.count(2)?;
        let mut listed = Vec::with_capacity(count);
        let (mut position, mut start) = (0u32, 0i64);
        for _ in 0..count {
            let step = reader.varint32("position")?;
            position = position.checked_add(step).ok_or_else(|| reader.invalid("position"))?;
            start = start.wrapping_add(reader.signed()?);
            listed.push((position, start));
        }
        all.push(RowStarts { row, inherit, listed });
    }
    Ok(all)
}

/// A hash of all that a histogram record says.
fn digest(record: &HistogramRecord) -> u64 {
    let mut bytes = Vec::new();
    put_histogram(None, &record.histogram, &mut bytes);
    let place = u64::from(record.slot.0) << 32 | u64::from(record.slot.1);
    fold(fold(fold(xxh3_64(&bytes), place), record.timestamp as u64), record.start as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::histogram::tests::any_histogram;
    use super::*;

    proptest! {
        #[test]
        fn records_come_back(
            batches in prop::collection::vec(
                (
                    prop::collection::vec((0u32..3, 0u32..3, any::<i64>(), any::<i64>(), any_histogram()), 0..6),
                    prop::collection::vec((any::<i64>(), any::<u64>(), "[a-z]{0,5}"), 0..4),
                    prop::collection::vec(prop::collection::vec(-3i64..4, 0..9), 0..4),
                ),
                1..4,
            ),
            applied in any_histogram(),
        ) {
            let applied = Arc::new(applied);
            let mut encoder = RecordEncoder::default();
            let mut bytes = Vec::new();
            let inherited = [0, 1, 2, 3, 1, 2, 3, 0, 1];
            for (histograms, exemplars, rows) in &batches {
                for (row, starts) in (0..).zip(rows) {
                    if let Some(starts) = RowStarts::of(row, starts, Some(&inherited[..starts.len()])) {
                        encoder.push_starts(starts);
                    }
                }
                for (source, slot, timestamp, start, histogram) in histograms {
                    let record = HistogramRecord {
                        slot: (*source, *slot), timestamp: *timestamp, start: *start, histogram: Arc::new(histogram.clone()),
                    };
                    encoder.push_histogram(&record, (*slot == 1).then_some(&*applied));
                }
                for (timestamp, bits, id) in exemplars {
                    let labels = Labels::from_pairs([("id", id)]).unwrap();
                    let exemplar = Exemplar { labels, value: f64::from_bits(*bits), timestamp: *timestamp };
                    encoder.push_exemplar((7, 8), &exemplar);
                }
                encoder.take_starts(&mut bytes);
                encoder.take_rest(&mut bytes);
            }
            let mut reader = Reader::new(&bytes);
            let mut records = RecordReader::default();
            for (histograms, exemplars, rows) in &batches {
                let starts = read_starts(&mut reader).unwrap();
                for (row, wanted) in (0..).zip(rows) {
                    let slots: Vec<u32> = (0..wanted.len() as u32).collect();
                    let mut found = vec![0; wanted.len()];
                    if let Some(of_row) = starts.iter().find(|s| s.row == row) {
                        of_row.resolve(&slots, |slot| inherited[slot as usize], &mut found).unwrap();
                    }
                    prop_assert_eq!(&found, wanted);
                }
                for _ in 0..reader.count(1).unwrap() {
                    records.histogram(&mut reader, |slot| (slot.1 == 1).then(|| Arc::clone(&applied))).map(|_| ()).unwrap();
                }
                prop_assert_eq!(reader.varint().unwrap(), exemplars.len() as u64);
                for (timestamp, bits, _) in exemplars {
                    let (slot, exemplar) = records.exemplar(&mut reader).unwrap();
                    prop_assert_eq!((slot, exemplar.timestamp, exemplar.value.to_bits()), ((7, 8), *timestamp, *bits));
                }
                let _ = histograms;
            }
            prop_assert!(reader.is_empty());
            prop_assert_eq!(records.check(), encoder.check());
        }
    }

    #[test]
    fn starts_that_go_on_cost_nothing() {
        let same = RowStarts::of(4, &[5, 5, 6], Some(&[5, 5, 6])).unwrap();
        assert_eq!((same.inherit, same.listed.len()), (true, 0));
        assert_eq!(RowStarts::of(4, &[0, 0], Some(&[5, 5])), None);
        let fresh = RowStarts::of(0, &[5, 0], None).unwrap();
        assert_eq!((fresh.inherit, fresh.listed), (false, vec![(0, 5)]));
    }
}
