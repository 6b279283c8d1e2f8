//! A whole shard: what tests of several subjects need.
//!
//! | file | story |
//! |---|---|
//! | `steps.rs` | random steps against an obvious model: batches, repeats, late samples, scrapes that lose series, deletions, eviction, flushes, merges, power cuts; equal logs give equal states |
//! | `kinds.rs` | histograms, start timestamps, exemplars, metadata |
//! | `refs.rs` | refs, epochs, ranges |
//! | `damage.rs` | damaged records, and a database on disk |
//! | `format.rs` | the examples of FORMAT.md |

mod damage;
mod format;
mod kinds;
mod refs;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{ResetHint, Span};
use model::seam::{
    QueryBudget, ScrapeMark, SelectRequest, SeriesData, SeriesSource, ShardBatch, ShardReport, ShardSeries,
    ShardWriteError,
};
use model::{
    Histogram, Labels, LogIndex, MatchOp, Matcher, ReplicaId, STALE_NAN_BITS, Sample, ShardId, TenantId,
    TimeRange,
};
use prometheus_client::registry::Registry;

use super::{Planned, Shard};
use crate::head::DAY_MS;
use crate::kv::{Family, Kv, MemoryKv};
use crate::{StorageError, Store, StoreConfig};

/// 30 s before the end of a day.
pub(super) const START: i64 = 20_000 * DAY_MS - 30_000;

/// A replica with its log.
pub(super) struct Node {
    pub(super) kv: Arc<MemoryKv>,
    pub(super) shard: Arc<Shard>,
    log: Vec<Vec<u8>>,
    incarnation: u64,
    now: i64,
}

fn open(kv: &Arc<MemoryKv>) -> Result<Arc<Shard>, StorageError> {
    let store =
        Store::with_kv(Arc::clone(kv) as Arc<dyn Kv>, StoreConfig::default(), &mut Registry::default())?;
    store.shard(ShardId(3), ReplicaId(1))
}

impl Node {
    pub(super) fn new() -> Self {
        let kv = Arc::new(MemoryKv::new());
        let shard = open(&kv).unwrap();
        shard.begin_term(1);
        Self { kv, shard, log: Vec::new(), incarnation: 1, now: START }
    }

    fn commit(&mut self, entry: Vec<u8>) -> Vec<ShardReport> {
        self.log.push(entry);
        let index = self.log.len() as u64 - 1;
        self.shard.apply(LogIndex(index), &self.log[index as usize], &index.to_be_bytes()).unwrap()
    }

    pub(super) fn write(&mut self, batch: ShardBatch) -> ShardReport {
        self.try_write(batch).unwrap()
    }

    fn try_write(&mut self, batch: ShardBatch) -> Result<ShardReport, ShardWriteError> {
        let mut plan = self.shard.plan(&[Arc::new(batch)], self.now);
        match plan.verdicts.pop().unwrap() {
            Planned::InEntry(at) => Ok(self.commit(plan.entry).swap_remove(at)),
            Planned::Nothing(report) => Ok(report),
            Planned::Refused(error) => Err(error),
        }
    }

    /// Moves the shard's clock: by an entry that changes next to nothing.
    pub(super) fn tick(&mut self) {
        let entry = self.shard.plan_retention(START - 300 * DAY_MS + self.log.len() as i64, self.now);
        self.commit(entry);
    }

    /// Loses what was not flushed, and replays the log from there.
    fn crash(&mut self) {
        let (_, hash) = self.shard.state_hash();
        self.kv.cut_power();
        self.shard = open(&self.kv).unwrap();
        let (durable, mark) = self.shard.durable();
        let from = if mark.is_empty() { 0 } else { durable.0 + 1 };
        for index in from..self.log.len() as u64 {
            self.shard.apply(LogIndex(index), &self.log[index as usize], &index.to_be_bytes()).unwrap();
        }
        assert_eq!(self.shard.state_hash().1, hash, "replay leads to the same state");
        self.incarnation += 1;
        self.shard.begin_term(self.incarnation);
    }

    pub(super) fn read(&self, matchers: Vec<Matcher>, range: TimeRange) -> BTreeMap<Labels, Vec<(i64, u64)>> {
        read(&*self.shard.reader(), matchers, range).unwrap()
    }
}

fn request(matchers: Vec<Matcher>, range: TimeRange) -> SelectRequest {
    SelectRequest { tenant: TenantId::anonymous(), matchers, range, budget: QueryBudget::unlimited() }
}

pub(super) fn read(
    source: &dyn SeriesSource,
    matchers: Vec<Matcher>,
    range: TimeRange,
) -> Result<BTreeMap<Labels, Vec<(i64, u64)>>, model::Failure> {
    let request = request(matchers, range);
    let mut all = BTreeMap::new();
    let mut series = source.select(&request)?;
    let mut data = SeriesData::default();
    while series.next_series(&mut data)? {
        let mut samples: Vec<_> =
            data.stamps.iter().copied().zip(data.values.iter().map(|v| v.to_bits())).collect();
        for (row, found) in &data.histograms {
            let code = HISTOGRAM | found.count as u64;
            let wanted = histogram(code).unwrap();
            assert!(
                Histogram { reset_hint: wanted.reset_hint, ..(**found).clone() }.same_bits(&wanted),
                "{found:?}"
            );
            assert_ne!(
                found.reset_hint,
                ResetHint::Reset,
                "what senders say of resets is judged by what is stored"
            );
            samples[*row as usize].1 = code;
        }
        for (row, (_, code)) in samples.iter().enumerate() {
            assert_eq!(data.starts.get(row).copied().unwrap_or(0), start(*code), "start of {code:x}");
        }
        if !samples.is_empty() {
            assert!(all.insert(data.labels.clone(), samples).is_none(), "a series comes once");
        }
    }
    drop(series);
    assert_eq!(request.budget.charge(0), Ok(()));
    Ok(all)
}

fn labels(i: usize) -> Labels {
    let name = format!("m{i}");
    match i {
        0..5 => Labels::from_pairs([("__name__", name.as_str()), ("instance", "h:1"), ("job", "a")]),
        5..9 => Labels::from_pairs([("__name__", name.as_str()), ("instance", "h:2"), ("job", "a")]),
        _ => Labels::from_pairs([("__name__", name.as_str()), ("job", "b")]),
    }
    .unwrap()
}

pub(super) const SERIES: usize = 12;

/// A value of these high bits stands for a histogram, whose number is in the low ones.
const HISTOGRAM: u64 = 0x7ff4_0000_dead_0000;

/// The histogram that `code` stands for, if it does.
fn histogram(code: u64) -> Option<Histogram> {
    let number = (code & 0xffff) as usize;
    let (length, layout) = (number % 5, number as i8 % 3);
    (code & !0xffff == HISTOGRAM).then(|| Histogram {
        integer: number.is_multiple_of(2),
        reset_hint: [ResetHint::Unknown, ResetHint::Reset, ResetHint::NotReset, ResetHint::Gauge][number % 4],
        schema: if layout == 2 { -53 } else { layout },
        count: number as f64,
        sum: 0.5 * number as f64,
        positive_spans: vec![Span { offset: 1, length: length as u32 }],
        positive_buckets: (0..length).map(|i| (i * number) as f64).collect(),
        custom_values: (layout == 2).then(|| Arc::from([0.5, 1.0, 2.0, 5.0])),
        ..Histogram::default()
    })
}

/// The start timestamp that goes with a value.
fn start(code: u64) -> i64 {
    if code == STALE_NAN_BITS || code.count_ones().is_multiple_of(3) {
        0
    } else {
        START - (code.count_ones() / 8) as i64 * 1000
    }
}

pub(super) fn batch(series: &[(usize, Vec<(i64, u64)>)], scrape: Option<ScrapeMark>) -> ShardBatch {
    let mut out = ShardBatch {
        tenant: Some(TenantId::anonymous()),
        min_timestamp: i64::MIN,
        max_timestamp: i64::MAX,
        scrape,
        ..ShardBatch::default()
    };
    for (i, samples) in series {
        out.series.push(ShardSeries::New { labels: labels(*i), key: *i as u64 * 7 });
        for (timestamp, code) in samples {
            match histogram(*code) {
                None => {
                    out.samples.push(Sample { timestamp: *timestamp, value: f64::from_bits(*code) });
                    out.starts.push(start(*code));
                }
                Some(histogram) => {
                    out.histograms.push((*timestamp, Arc::new(histogram)));
                    out.histogram_starts.push(start(*code));
                }
            }
        }
        out.ends.push((out.samples.len() as u32, out.histograms.len() as u32));
    }
    out
}

pub(super) fn any_series() -> Vec<Matcher> {
    vec![Matcher::new("__name__", MatchOp::NotEqual, "").unwrap()]
}
