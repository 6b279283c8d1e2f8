//! A whole shard against an obvious model: random batches, repeats, late samples, scrapes that lose series, deletions,
//! eviction, flushes, merges, and power cuts with replay from the durable index; and that equal logs give equal states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::histogram::{ResetHint, Span};
use model::seam::{
    QueryBudget, RejectReason, ScrapeMark, SelectRequest, SeriesData, SeriesSource, ShardBatch, ShardReport,
    ShardSeries, ShardWriteError,
};
use model::{
    Code, Epoch, Exemplar, Histogram, Labels, LogIndex, MatchOp, Matcher, MetricKind, MetricMetadata,
    ReplicaId, STALE_NAN_BITS, Sample, SeriesRef, ShardId, TenantId, TimeRange,
};
use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::{Planned, Shard};
use crate::head::DAY_MS;
use crate::kv::{Family, Faults, Kv, MemoryKv};
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

/// What the shard should hold.
#[derive(Default)]
struct Wanted {
    samples: BTreeMap<usize, BTreeMap<i64, u64>>,
    /// Newest timestamp and value ever accepted.
    newest: BTreeMap<usize, (i64, u64)>,
    owner: BTreeMap<usize, u64>,
    scraped: BTreeMap<u64, i64>,
}

impl Wanted {
    fn put(&mut self, i: usize, timestamp: i64, bits: u64) -> bool {
        let kept = *self.samples.entry(i).or_default().entry(timestamp).or_insert(bits);
        if self.newest.get(&i).is_none_or(|(t, _)| *t < timestamp) {
            self.newest.insert(i, (timestamp, bits));
        }
        kept == bits
    }

    fn scrape(&mut self, mark: ScrapeMark, seen: &BTreeSet<usize>) {
        if self.scraped.get(&mark.target).is_some_and(|last| *last >= mark.timestamp) {
            return;
        }
        let owned: Vec<usize> =
            self.owner.iter().filter(|(_, t)| **t == mark.target).map(|(i, _)| *i).collect();
        if !owned.is_empty() || !seen.is_empty() {
            self.scraped.insert(mark.target, mark.timestamp);
        }
        for i in seen {
            self.owner.insert(*i, mark.target);
        }
        for i in owned {
            if !seen.contains(&i) {
                self.owner.remove(&i);
                let (last, bits) = self.newest[&i];
                if last < mark.timestamp && bits != STALE_NAN_BITS {
                    self.put(i, mark.timestamp, STALE_NAN_BITS);
                }
            }
        }
        // A target that owns nothing is forgotten.
        self.scraped.retain(|target, _| self.owner.values().any(|t| t == target));
    }

    fn all(&self, range: TimeRange) -> BTreeMap<Labels, Vec<(i64, u64)>> {
        let series = self.samples.iter().map(|(i, samples)| {
            (
                labels(*i),
                samples
                    .iter()
                    .filter(|(t, _)| range.contains(**t))
                    .map(|(t, b)| (*t, *b))
                    .collect::<Vec<_>>(),
            )
        });
        series.filter(|(_, samples)| !samples.is_empty()).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, Vec<(i64, u64)>)>),
    Scrape(u64, i64, BTreeMap<usize, u64>),
    Repeat,
    Delete(usize, i64, i64),
    Evict(i64),
    Flush,
    FailedFlush,
    Merge,
    Crash,
    Pass(i64),
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u32..50).prop_map(|v| f64::from(v).to_bits()),
        2 => (0u32..5000).prop_map(|v| (f64::from(v) / 1000.0).to_bits()),
        1 => any::<u64>(),
        1 => Just(STALE_NAN_BITS),
        1 => Just((-0.0f64).to_bits()),
        4 => (0u64..40).prop_map(|number| HISTOGRAM | number),
    ]
}

fn stamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => (0i64..60).prop_map(|k| START + k * 1000),
        1 => (0i64..90_000).prop_map(|k| START + k * 1000),
        1 => (0i64..3).prop_map(|k| START - k * DAY_MS),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec((0..SERIES, proptest::collection::vec((stamp(), value()), 1..4)), 1..8)
            .prop_map(Step::Write),
        6 => (0u64..3, 0i64..90, proptest::collection::btree_map(0..SERIES, value(), 0..SERIES))
            .prop_map(|(target, k, series)| Step::Scrape(target, START + k * 1000, series)),
        1 => Just(Step::Repeat),
        2 => (0..SERIES, 0i64..60, 0i64..60).prop_map(|(i, a, b)| Step::Delete(i, START + a.min(b) * 1000, START + a.max(b) * 1000)),
        1 => (0i64..60).prop_map(|k| Step::Evict(START + k * 1000)),
        3 => Just(Step::Flush),
        1 => Just(Step::FailedFlush),
        2 => Just(Step::Merge),
        2 => Just(Step::Crash),
        2 => prop_oneof![Just(60_000), Just(3_600_000), Just(30 * 3_600_000)].prop_map(Step::Pass),
    ]
}

fn check_reads(node: &Node, wanted: &Wanted) {
    assert_eq!(node.read(any_series(), TimeRange::ALL), wanted.all(TimeRange::ALL));
    let part = TimeRange { after: START + 5_000, until: START + 31_000 };
    assert_eq!(node.read(any_series(), part), wanted.all(part));
    let one = vec![Matcher::equal("instance", "h:2")];
    let mut some = wanted.all(TimeRange::ALL);
    some.retain(|l, _| l.get("instance") == Some("h:2"));
    assert_eq!(node.read(one, TimeRange::ALL), some);
}

fn run(steps: Vec<Step>) {
    let mut node = Node::new();
    let mut wanted = Wanted::default();
    let mut last: Option<ShardBatch> = None;
    let mut evicted = false;
    for step in steps {
        match step {
            Step::Write(series) => {
                let mut seen = BTreeSet::new();
                let unique = series.iter().all(|(i, s)| s.iter().all(|(t, _)| seen.insert((*i, *t))));
                let mut good = 0;
                let mut bad = 0;
                let all = || series.iter().flat_map(|(i, s)| s.iter().map(|(t, code)| (*i, *t, *code)));
                // The floats of a batch come before its histograms.
                let is_float = |sample: &(usize, i64, u64)| histogram(sample.2).is_none();
                for (i, timestamp, code) in all().filter(is_float).chain(all().filter(|s| !is_float(s))) {
                    if wanted.put(i, timestamp, code) {
                        good += 1;
                    } else {
                        bad += 1;
                    }
                }
                let request = batch(&series, None);
                let report = node.write(request.clone());
                if unique && !evicted {
                    assert_eq!(report.written.samples + report.written.histograms, good);
                    assert_eq!(
                        report.rejected.get(&RejectReason::DuplicateTimestamp).copied().unwrap_or(0),
                        bad
                    );
                }
                last = Some(request);
            }
            Step::Scrape(target, timestamp, series) => {
                let mark = ScrapeMark { target, timestamp };
                for (i, bits) in &series {
                    wanted.put(*i, timestamp, *bits);
                }
                // A sample that another value refused counts as seen all the same.
                wanted.scrape(mark, &series.keys().copied().collect());
                let series: Vec<_> =
                    series.into_iter().map(|(i, bits)| (i, vec![(timestamp, bits)])).collect();
                node.write(batch(&series, Some(mark)));
                last = None;
            }
            Step::Repeat => {
                if let Some(request) = last.clone() {
                    let entries = node.log.len();
                    let report = node.write(request);
                    if !evicted && report.rejected.is_empty() {
                        assert_eq!(node.log.len(), entries, "what is applied is not proposed again");
                    }
                }
            }
            Step::Delete(i, from, until) => {
                let range = TimeRange::closed(from, until);
                let matchers = vec![Matcher::equal("__name__", format!("m{i}"))];
                let tenant = TenantId::anonymous();
                let entry = node.shard.plan_delete(&tenant, &[matchers], range, node.now).unwrap();
                if !entry.is_empty() {
                    node.commit(entry);
                }
                wanted.samples.entry(i).or_default().retain(|t, _| !range.contains(*t));
                last = None;
            }
            Step::Evict(before) => {
                let entry = node.shard.plan_evict(before, 100, node.now);
                if !entry.is_empty() {
                    node.commit(entry);
                    evicted = true;
                    for (i, (t, _)) in wanted.newest.clone() {
                        if t < before {
                            wanted.owner.remove(&i);
                            wanted.newest.remove(&i);
                        }
                    }
                    wanted.scraped.retain(|target, _| wanted.owner.values().any(|t| t == target));
                }
            }
            Step::Flush => {
                node.shard.flush().unwrap();
            }
            Step::FailedFlush => {
                node.kv.set_faults(Faults { flush_fails: true, ..Faults::default() });
                let _ = node.shard.flush();
                node.kv.set_faults(Faults { full: true, ..Faults::default() });
                let _ = node.shard.flush();
                node.kv.set_faults(Faults::default());
            }
            Step::Merge => while node.shard.merge_step(1 << 20).unwrap().more {},
            Step::Crash => node.crash(),
            Step::Pass(ms) => {
                node.now += ms;
                node.tick();
            }
        }
        check_reads(&node, &wanted);
    }
    let other = Node::new();
    for (index, entry) in (0..).zip(&node.log) {
        other.shard.apply(LogIndex(index), entry, b"m").unwrap();
    }
    assert_eq!(other.shard.state_hash(), node.shard.state_hash(), "equal logs, equal states");
    check_reads(&other, &wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_is_a_map(steps in proptest::collection::vec(step(), 1..30)) {
        run(steps);
    }
}

/// What the model cannot do: a histogram and a float of a series at one timestamp in one batch, of which the float stays.
#[test]
fn a_float_comes_before_a_histogram_of_its_batch() {
    let mut node = Node::new();
    let report = node.write(batch(&[(0, vec![(START, HISTOGRAM | 8), (START, 5)])], None));
    assert_eq!((report.written.samples, report.written.histograms), (1, 0));
    assert_eq!(report.rejected.get(&RejectReason::DuplicateTimestamp), Some(&1));
    assert_eq!(node.read(any_series(), TimeRange::ALL)[&labels(0)], [(START, 5)]);
}

/// Later states of counters cost little in the log, and nothing where only the start timestamp is repeated.
#[test]
fn histograms_are_coded_against_the_one_before() {
    let mut node = Node::new();
    let state = |k: u64| {
        let spans = vec![Span { offset: 0, length: 40 }];
        let buckets: Vec<f64> = (0..40).map(|i| (i * 7 + k / 40) as f64).collect();
        Histogram {
            integer: true,
            schema: 3,
            count: buckets.iter().sum(),
            sum: k as f64,
            positive_spans: spans,
            positive_buckets: buckets,
            ..Histogram::default()
        }
    };
    for k in 0..200u64 {
        let mut request = batch(&[(1, vec![]), (0, vec![(START + k as i64 * 1000, k)])], None);
        request.histograms = vec![(START + k as i64 * 1000, Arc::new(state(k)))];
        request.histogram_starts = vec![START - 5_000];
        request.starts = vec![START - 7_000];
        request.ends = vec![(0, 1), (1, 1)];
        let report = node.write(request);
        assert_eq!((report.written.samples, report.written.histograms), (1, 1));
    }
    let mut sizes: Vec<usize> = node.log.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert!(sizes[100] < 100, "{sizes:?}");
    let mut data = SeriesData::default();
    for _ in 0..2 {
        let reader = node.shard.reader();
        let request = request(vec![Matcher::equal("__name__", "m1")], TimeRange::ALL);
        assert!(reader.select(&request).unwrap().next_series(&mut data).unwrap());
        assert_eq!((data.histograms.len(), &data.starts), (200, &vec![START - 5_000; 200]));
        for (k, (row, histogram)) in data.histograms.iter().enumerate() {
            assert_eq!(*row as usize, k);
            let hint = if k == 0 { ResetHint::Unknown } else { ResetHint::NotReset };
            assert!(histogram.same_bits(&Histogram { reset_hint: hint, ..state(k as u64) }));
        }
        // Where a range begins makes no difference to what is known.
        for first in 1..200 {
            let range = TimeRange { after: START + (first - 1) * 1000, until: i64::MAX };
            let request = self::request(vec![Matcher::equal("__name__", "m1")], range);
            assert!(reader.select(&request).unwrap().next_series(&mut data).unwrap());
            assert_eq!(data.histograms[0].1.reset_hint, ResetHint::NotReset, "of sample {first}");
        }
        node.shard.flush().unwrap();
        while node.shard.merge_step(1 << 20).unwrap().more {}
        node.crash();
    }
}

#[test]
fn exemplars_are_kept_in_order_and_come_back() {
    let mut node = Node::new();
    let exemplar = |timestamp: i64, id: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", id)]).unwrap(),
        value: timestamp as f64 / 7.0,
        timestamp: START + timestamp,
    };
    let with = |k: i64, exemplars: Vec<(u32, Exemplar)>| {
        let mut request = batch(&[(0, vec![(START + k, 1)]), (6, vec![(START + k, 2)]), (9, vec![])], None);
        request.exemplars = exemplars;
        request
    };
    let request_ = with(
        0,
        vec![(0, exemplar(5, "a")), (1, exemplar(6, "b")), (0, exemplar(7, "c")), (2, exemplar(7, "d"))],
    );
    let report = node.write(request_.clone());
    assert_eq!((report.written.samples, report.written.exemplars), (2, 3));
    assert_eq!(
        report.rejected.get(&RejectReason::ExemplarWithoutSeries),
        Some(&1),
        "a series must have samples"
    );
    let entries = node.log.len();
    let report = node.write(request_);
    assert_eq!((report.written.samples, report.written.exemplars), (2, 3), "repeated ones count as written");
    assert_eq!(node.log.len(), entries, "and are not proposed again");
    let report = node.write(with(1, vec![(0, exemplar(6, "late")), (0, exemplar(8, "e"))]));
    assert_eq!(report.written.exemplars, 1);
    assert_eq!(report.rejected.get(&RejectReason::OutOfOrderExemplar), Some(&1));

    let shown = |node: &Node, range| -> Vec<(Labels, Vec<(i64, String)>)> {
        let found = node.shard.reader().exemplars(&request(any_series(), range)).unwrap();
        found
            .into_iter()
            .map(|s| {
                let id = |e: &Exemplar| (e.timestamp - START, e.labels.get("trace_id").unwrap().to_owned());
                (s.labels, s.exemplars.iter().map(id).collect())
            })
            .collect()
    };
    let wanted = vec![
        (labels(0), vec![(5, "a".to_owned()), (7, "c".to_owned()), (8, "e".to_owned())]),
        (labels(6), vec![(6, "b".to_owned())]),
    ];
    assert_eq!(shown(&node, TimeRange::ALL), wanted);
    assert_eq!(
        shown(&node, TimeRange::closed(START + 6, START + 7)),
        [(labels(0), vec![(7, "c".to_owned())]), (labels(6), vec![(6, "b".to_owned())]),]
    );
    node.crash();
    assert_eq!(shown(&node, TimeRange::ALL), wanted, "out of the log");
    node.shard.flush().unwrap();
    node.crash();
    assert_eq!(shown(&node, TimeRange::ALL), wanted, "out of the database");
    let report = node.write(with(2, vec![(0, exemplar(8, "e"))]));
    assert_eq!(report.written.exemplars, 1);
    assert_eq!(shown(&node, TimeRange::ALL), wanted);
    let other = Node::new();
    for (index, entry) in (0..).zip(&node.log) {
        other.shard.apply(LogIndex(index), entry, b"m").unwrap();
    }
    assert_eq!(other.shard.state_hash(), node.shard.state_hash());
    assert_eq!(shown(&other, TimeRange::ALL), wanted);
}

/// Regular scrapes of two targets over hours, with flushes and merges between.
#[test]
fn hours_of_scrapes_come_back() {
    let mut node = Node::new();
    let mut wanted = Wanted::default();
    for k in 0..900i64 {
        let timestamp = START + k * 15_000;
        node.now = timestamp;
        for target in 0..2 {
            let series: Vec<(usize, Vec<(i64, u64)>)> = (target * 5..target * 4 + 5)
                .map(|i| (i, vec![(timestamp, (k as f64 * i as f64).to_bits())]))
                .collect();
            for (i, samples) in &series {
                wanted.put(*i, samples[0].0, samples[0].1);
            }
            let mark = ScrapeMark { target: target as u64, timestamp };
            assert!(node.write(batch(&series, Some(mark))).rejected.is_empty());
        }
        if k % 20 == 19 {
            node.shard.flush().unwrap();
        }
        if k % 50 == 49 {
            while node.shard.merge_step(1 << 20).unwrap().more {}
        }
        if k % 300 == 299 {
            node.crash();
            check_reads(&node, &wanted);
        }
    }
    check_reads(&node, &wanted);
    let pages = node.kv.keys(Family::Pages).len();
    assert!(pages < 40, "small pages were merged, {pages} are left");
    let bytes: usize = node.log.iter().map(Vec::len).sum();
    // With start timestamps that jump, as no real counter's do.
    assert!(bytes < 900 * 2 * 100, "entries are small: {bytes}");
}

#[test]
fn refs_are_checked_and_work() {
    let mut node = Node::new();
    let report = node.write(batch(&[(0, vec![(START, 1)]), (6, vec![(START, 2)])], None));
    assert_eq!(report.incarnation, 1);
    let refs: Vec<SeriesRef> = report.refs.iter().map(|r| r.unwrap()).collect();
    let known = |stamp: i64, incarnation, check| {
        let mut request = batch(&[(0, vec![(stamp, 1)]), (6, vec![(stamp, 2)])], None);
        request.series = refs.iter().map(|r| ShardSeries::Known(*r)).collect();
        (request.incarnation, request.known_check) = (incarnation, check);
        request
    };
    let check = labels(0).hash128() ^ labels(6).hash128();
    assert_eq!(node.write(known(START + 1, 1, check)).written.samples, 2);
    assert!(matches!(node.try_write(known(START + 2, 2, check)), Err(ShardWriteError::UnknownRefs)));
    assert!(matches!(node.try_write(known(START + 2, 1, check ^ 1)), Err(ShardWriteError::UnknownRefs)));
    node.crash();
    assert!(matches!(node.try_write(known(START + 2, 1, check)), Err(ShardWriteError::UnknownRefs)));
    let again = node.write(batch(&[(0, vec![(START, 1)])], None));
    assert_eq!(again.refs, [Some(refs[0])], "refs stay over restarts");
    assert_eq!(node.read(any_series(), TimeRange::ALL).len(), 2);
}

#[test]
fn epochs_and_ranges_are_kept() {
    let mut node = Node::new();
    let entry = node.shard.plan_range(Epoch(4), 0, 70, START);
    node.commit(entry);
    assert_eq!(node.shard.range(), Some((Epoch(4), 0, 70)));
    let with = |epoch, i| ShardBatch { epoch: Epoch(epoch), ..batch(&[(i, vec![(START, 1)])], None) };
    assert!(matches!(node.try_write(with(3, 1)), Err(ShardWriteError::WrongOwner { epoch: Epoch(4) })));
    assert!(
        matches!(node.try_write(with(4, 11)), Err(ShardWriteError::WrongOwner { .. })),
        "a key beyond the range"
    );
    node.write(with(4, 1));
    // A write planned before the range changed, applied after it.
    let plan = node.shard.plan(&[Arc::new(with(4, 2))], START);
    let entry = node.shard.plan_range(Epoch(5), 0, 70, START);
    node.commit(entry);
    let reports = node.commit(plan.entry);
    assert_eq!(reports[0].rejected.get(&RejectReason::Fenced), Some(&1));
    assert_eq!(node.read(any_series(), TimeRange::ALL).len(), 1);
}

/// Plans that follow each other without waiting for apply, some of which get lost.
#[test]
fn plans_may_overlap_and_get_lost() {
    let mut node = Node::new();
    let mut wanted = Wanted::default();
    type Waiting = (Vec<u8>, Vec<(usize, i64, u64)>, Option<(ScrapeMark, BTreeSet<usize>)>);
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut state = 7u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for k in 0..600i64 {
        let timestamp = START + k * 1000;
        let series: BTreeMap<usize, u64> =
            (0..random(SERIES as u64)).map(|_| (random(SERIES as u64) as usize, random(40))).collect();
        let mark = (random(3) > 0).then(|| ScrapeMark { target: random(2), timestamp });
        let code = |v: u64| if v.is_multiple_of(4) { HISTOGRAM | v } else { (v as f64).to_bits() };
        let samples: Vec<_> = series.iter().map(|(i, v)| (*i, timestamp, code(*v))).collect();
        let request: Vec<_> = samples.iter().map(|(i, t, v)| (*i, vec![(*t, *v)])).collect();
        let plan = node.shard.plan(&[Arc::new(batch(&request, mark))], timestamp);
        let lost = random(20) == 0;
        if !plan.entry.is_empty() && !lost {
            waiting.push((plan.entry, samples, mark.map(|m| (m, series.keys().copied().collect()))));
        }
        while waiting.len() > random(4) as usize {
            let (entry, samples, mark) = waiting.remove(0);
            node.commit(entry);
            for (i, t, v) in samples {
                wanted.put(i, t, v);
            }
            if let Some((mark, seen)) = mark {
                wanted.scrape(mark, &seen);
            }
        }
        if random(40) == 0 {
            node.shard.flush().unwrap();
        }
    }
    for (entry, samples, mark) in waiting {
        node.commit(entry);
        samples.into_iter().for_each(|(i, t, v)| {
            wanted.put(i, t, v);
        });
        if let Some((mark, seen)) = mark {
            wanted.scrape(mark, &seen);
        }
    }
    check_reads(&node, &wanted);
    node.crash();
    check_reads(&node, &wanted);
}

#[test]
fn ended_days_are_sealed_and_stay_readable() {
    let mut node = Node::new();
    let mut wanted = Wanted::default();
    for day in 0..4i64 {
        for k in 0..40i64 {
            let timestamp = START - 3_600_000 + day * DAY_MS + k * 15_000;
            node.now = timestamp;
            let series: Vec<_> =
                (0..4).map(|i| (i + day as usize * 2, vec![(timestamp, k as u64)])).collect();
            for (i, samples) in &series {
                wanted.put(*i, samples[0].0, samples[0].1);
            }
            node.write(batch(&series, None));
        }
        let entry = node.shard.plan_evict(START - 2 * 3_600_000 + day * DAY_MS, 1000, node.now);
        if !entry.is_empty() {
            node.commit(entry);
        }
        node.now += 2 * 3_600_000;
        node.tick();
        node.shard.flush().unwrap();
        node.now += 2 * 3_600_000;
        node.tick();
        node.shard.flush().unwrap();
        while node.shard.merge_step(1 << 20).unwrap().more {}
        check_reads(&node, &wanted);
    }
    assert!(!node.kv.keys(Family::Index).is_empty());
    {
        let state = node.shard.state.read();
        assert!(state.head.series.len() < 10, "evicted series left memory: {}", state.head.series.len());
    }
    let first_day = TimeRange::closed(START - 3_600_000, START);
    let names = node.shard.reader().label_values(&request(Vec::new(), first_day), "__name__", 0).unwrap();
    assert_eq!(names, ["m0", "m1", "m2", "m3"]);
    node.shard.flush().unwrap();
    node.crash();
    check_reads(&node, &wanted);
    assert_eq!(
        node.shard.reader().label_values(&request(Vec::new(), first_day), "__name__", 2).unwrap(),
        ["m0", "m1"]
    );
    // A late sample makes a sealed day live again.
    let late = START - 1_000_000;
    wanted.put(11, late, 5);
    node.write(batch(&[(11, vec![(late, 5)])], None));
    check_reads(&node, &wanted);
    node.shard.flush().unwrap();
    check_reads(&node, &wanted);
    while node.shard.merge_step(1 << 20).unwrap().more {}
    check_reads(&node, &wanted);
    // The floor takes whole days.
    let floor = START + DAY_MS;
    let entry = node.shard.plan_retention(floor, node.now);
    node.commit(entry);
    node.shard.merge_step(1 << 20).unwrap();
    let kept = node.read(any_series(), TimeRange::ALL);
    assert_eq!(kept, wanted.all(TimeRange { after: floor - 1, until: i64::MAX }));
    assert_eq!(
        node.write(batch(&[(1, vec![(floor - 1, 5)])], None)).rejected.get(&RejectReason::TooOld),
        Some(&1)
    );
}

/// A target may lose a slot without any row: the slot has a newer sample than the scrape that lacks it.
#[test]
fn a_slot_that_a_target_lost_is_stored() {
    let at = START + 60_000;
    run(vec![
        Step::Scrape(1, START, BTreeMap::from([(6, 0)])),
        Step::Write(vec![(0, vec![(START, 0)]), (6, vec![(at, 0)])]),
        Step::Flush,
        Step::Scrape(1, START + 1_000, BTreeMap::new()),
        Step::Flush,
        Step::Crash,
    ]);
}

#[test]
fn metadata_comes_back() {
    let mut node = Node::new();
    let item = |family: &str, help: &str| MetricMetadata {
        family: family.into(),
        kind: MetricKind::Counter,
        help: help.into(),
        unit: String::new(),
    };
    let mut request = batch(&[], None);
    request.metadata = vec![item("a", "one"), item("b", "two")];
    node.write(request.clone());
    let entries = node.log.len();
    node.write(request);
    assert_eq!(node.log.len(), entries, "known metadata is not proposed again");
    node.shard.flush().unwrap();
    let mut request = batch(&[], None);
    request.metadata = vec![item("a", "three")];
    node.write(request);
    node.crash();
    let reader = node.shard.reader();
    let tenant = TenantId::anonymous();
    assert_eq!(reader.metadata(&tenant, None).unwrap(), [item("a", "three"), item("b", "two")]);
    assert_eq!(reader.metadata(&tenant, Some("b")).unwrap(), [item("b", "two")]);
}

#[test]
fn damage_is_told_and_never_served() {
    let mut node = Node::new();
    for k in 0..40 {
        node.write(batch(&[(0, vec![(START + k * 1000, k as u64)])], None));
    }
    node.shard.flush().unwrap();
    let key = node.kv.keys(Family::Pages).remove(0);
    let range = TimeRange::ALL;
    let whole = read(&*node.shard.reader(), any_series(), range).unwrap();
    let len = node.kv.get(Family::Pages, &key).unwrap().unwrap().len();
    for at in 0..len {
        node.kv.damage(Family::Pages, &key, |v| v[at] ^= 16);
        let failure = read(&*node.shard.reader(), any_series(), range).unwrap_err();
        assert_eq!(failure.code, Code::Corrupt);
        assert!(failure.message.contains("source 0"), "{failure}");
        node.kv.damage(Family::Pages, &key, |v| v[at] ^= 16);
    }
    assert_eq!(read(&*node.shard.reader(), any_series(), range).unwrap(), whole);
    for key in node.kv.keys(Family::State) {
        node.kv.damage(Family::State, &key, |v| *v.last_mut().unwrap() ^= 1);
        assert!(matches!(open(&node.kv), Err(StorageError::Corrupt { .. })), "{key:?}");
        node.kv.damage(Family::State, &key, |v| *v.last_mut().unwrap() ^= 1);
    }
    open(&node.kv).unwrap();
}

/// The example bytes of FORMAT.md are what this program writes, and it reads them.
mod format {
    use super::*;
    use crate::entry::{self, Entry};
    use crate::page::example::example;

    /// A small shard: two scrapes of a target with two series.
    fn small() -> Node {
        let mut node = Node::new();
        for k in 0..2 {
            node.now = START + k * 15_000;
            let mark = ScrapeMark { target: 9, timestamp: node.now };
            let series =
                [(0, vec![(node.now, (3.0 + k as f64).to_bits())]), (1, vec![(node.now, 0.5f64.to_bits())])];
            node.write(batch(&series, Some(mark)));
        }
        node.shard.flush().unwrap();
        node
    }

    fn check(all: &[(&str, &[u8])]) {
        let mut wrong = String::new();
        for (name, found) in all {
            if example(name) != *found {
                let hex: Vec<String> = found.iter().map(|b| format!("{b:02x}")).collect();
                let lines: Vec<String> = hex.chunks(16).map(|line| line.join(" ")).collect();
                wrong += &format!("EXAMPLE {name}\n{}\n", lines.join("\n"));
            }
        }
        assert!(wrong.is_empty(), "these are now:\n{wrong}");
    }

    /// The small shard, and then a histogram with a start timestamp and an exemplar.
    fn more() -> Node {
        let mut node = small();
        node.now = START + 30_000;
        let mut request = batch(&[(0, vec![(node.now, HISTOGRAM | 8)])], None);
        let labels = Labels::from_pairs([("id", "a")]).unwrap();
        request.exemplars = vec![(0, Exemplar { labels, value: 1.0, timestamp: node.now })];
        node.write(request);
        node.shard.flush().unwrap();
        node
    }

    #[test]
    fn entries() {
        let node = more();
        let matchers = vec![Matcher::equal("__name__", "m1")];
        let range = TimeRange::closed(START, START + 1);
        let delete =
            node.shard.plan_delete(&TenantId::anonymous(), &[matchers], range, START + 20_000).unwrap();
        check(&[
            ("shard write entry", &node.log[0]),
            ("shard write entry, the second", &node.log[1]),
            ("shard write entry, the third", &node.log[2]),
            ("shard delete entry", &delete),
        ]);
        let bytes = example("shard write entry");
        let (head, Entry::Write(write)) = entry::decode(&bytes).unwrap() else { panic!("not a write") };
        assert_eq!((head.now_ms, write.n_batches, write.series.len()), (START, 1, 2));
    }

    #[test]
    fn state_records() {
        let (node, later) = (small(), more());
        let exemplar =
            later.kv.get(Family::State, &[0, 0, 0, 3, 6, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().unwrap();
        let value = |kind: u8, rest: &[u8]| {
            let key = [&[0, 0, 0, 3, kind][..], rest].concat();
            node.kv.get(Family::State, &key).unwrap().unwrap()
        };
        check(&[
            ("mark record", &value(0, &[])),
            ("source record", &value(1, &[0, 0, 0, 0])),
            ("series record", &value(2, &[0, 0, 0, 0, 0, 0, 0, 1])),
            ("exemplar record", &exemplar),
        ]);
        open(&later.kv).unwrap();
        open(&node.kv).unwrap();
    }
}

#[test]
fn salvage_moves_what_is_damaged_and_the_rest_opens() {
    use crate::salvage::salvage_kv;
    let mut node = Node::new();
    for k in 0..40 {
        node.write(batch(&[(0, vec![(START + k * 1000, k as u64)]), (6, vec![(START + k * 1000, 1)])], None));
    }
    node.shard.flush().unwrap();
    assert_eq!(salvage_kv(&*node.kv, true).unwrap().damaged, []);
    // The only page of source 0, and everything of source 1.
    let page = node.kv.keys(Family::Pages).remove(0);
    node.kv.damage(Family::Pages, &page, |v| v[7] ^= 1);
    node.kv.damage(Family::State, &[0, 0, 0, 3, 1, 0, 0, 0, 1], |v| v[9] ^= 1);
    assert!(open(&node.kv).is_err());
    let report = salvage_kv(&*node.kv, false).unwrap();
    assert_eq!((report.damaged.len(), report.damaged.iter().any(|d| d.moved)), (3, false));
    let report = salvage_kv(&*node.kv, true).unwrap();
    assert!(report.damaged.iter().all(|d| d.moved), "{report:?}");
    assert_eq!(node.kv.keys(Family::Quarantine).len(), 3);
    node.shard = open(&node.kv).unwrap();
    let left = node.read(any_series(), TimeRange::ALL);
    assert_eq!(left.keys().collect::<Vec<_>>(), [&labels(0)], "the open rows of source 0 are still there");
    assert!(left[&labels(0)].len() < 40);
    // Without the mark the shard cannot be what it was: it stays, and opening goes on to refuse.
    node.kv.damage(Family::State, &[0, 0, 0, 3, 0], |v| v[9] ^= 1);
    assert!(!salvage_kv(&*node.kv, true).unwrap().damaged[0].moved);
    assert!(open(&node.kv).is_err());
}

#[test]
fn a_shard_on_rocksdb_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(dir.path(), StoreConfig::default(), &mut Registry::default()).unwrap();
        let shards = [1, 2].map(|id| store.shard(ShardId(id), ReplicaId(1)).unwrap());
        (store, shards)
    };
    let (store, shards) = open();
    for (i, shard) in shards.iter().enumerate() {
        shard.begin_term(1);
        for k in 0..100u64 {
            let request = batch(&[(i, vec![(START + k as i64 * 15_000, k)])], None);
            let plan = shard.plan(&[Arc::new(request)], START + k as i64 * 15_000);
            shard.apply(LogIndex(k), &plan.entry, b"mark").unwrap();
        }
    }
    store.flush(&shards).unwrap();
    while shards[0].merge_step(1 << 20).unwrap().more {}
    store.flush(&shards).unwrap();
    assert!(store.disk_bytes() > 0);
    assert_eq!(store.status(None, 10).series, 2);
    let hashes = shards.each_ref().map(|s| s.state_hash());
    drop((store, shards));
    let (_store, shards) = open();
    assert_eq!(shards.each_ref().map(|s| s.state_hash()), hashes);
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(shard.durable(), (LogIndex(99), b"mark".to_vec()));
        let found = read(&*shard.reader(), any_series(), TimeRange::ALL).unwrap();
        let samples: Vec<_> = (0..100).map(|k| (START + k * 15_000, k as u64)).collect();
        assert_eq!(found, BTreeMap::from([(labels(i), samples)]));
    }
}
