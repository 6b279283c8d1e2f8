//! A shard does what an obvious model does: random steps, and histories made by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::seam::{RejectReason, ScrapeMark, ShardBatch};
use model::{Labels, LogIndex, Matcher, STALE_NAN_BITS, TenantId, TimeRange};
use proptest::prelude::*;

use super::*;
use crate::Cleaned;
use crate::kv::Faults;

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
    Clean,
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
        1 => Just(Step::Clean),
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
            Step::Clean => {
                node.shard.clean_deleted().unwrap();
            }
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

#[test]
fn what_is_deleted_leaves_the_disk() {
    let mut node = Node::new();
    let mut wanted = Wanted::default();
    for k in 0..200i64 {
        let timestamp = START + k * 15_000;
        let series: Vec<_> = [0, 1, 6].map(|i| (i, vec![(timestamp, (k as u64) << 40 | i as u64)])).into();
        for (i, samples) in &series {
            wanted.put(*i, samples[0].0, samples[0].1);
        }
        node.now = timestamp;
        node.write(batch(&series, None));
        if k % 50 == 49 {
            node.shard.flush().unwrap();
        }
    }
    let size = |node: &Node| -> usize {
        let value = |key: &Vec<u8>| node.kv.get(Family::Pages, key).unwrap().unwrap().len();
        node.kv.keys(Family::Pages).iter().map(value).sum()
    };
    let deletions = |node: &Node| node.kv.keys(Family::State).iter().filter(|key| key[4] == 5).count();
    let whole = size(&node);
    let mut delete = |node: &mut Node, i: usize, range: TimeRange| {
        let matchers = vec![Matcher::equal("__name__", format!("m{i}"))];
        let entry = node.shard.plan_delete(&TenantId::anonymous(), &[matchers], range, node.now).unwrap();
        node.commit(entry);
        wanted.samples.entry(i).or_default().retain(|t, _| !range.contains(*t));
    };
    delete(&mut node, 0, TimeRange::ALL);
    delete(&mut node, 6, TimeRange { after: START + 100_000, until: START + 1_000_000 });
    assert_eq!(node.shard.clean_deleted().unwrap(), Cleaned::default(), "not durable yet");
    node.shard.flush().unwrap();
    assert_eq!((size(&node) >= whole, deletions(&node)), (true, 2));
    let done = node.shard.clean_deleted().unwrap();
    assert_eq!((done.deletions, done.left), (2, 0));
    assert!(done.pages > 0 && done.freed_bytes > 0, "{done:?}");
    assert!(size(&node) < whole * 4 / 5, "{} of {whole} bytes are left", size(&node));
    assert_eq!(deletions(&node), 0);
    check_reads(&node, &wanted);
    // A series that was deleted may come back, also at a time that was deleted.
    wanted.put(0, START, 77);
    assert!(node.write(batch(&[(0, vec![(START, 77)])], None)).rejected.is_empty());
    check_reads(&node, &wanted);
    node.shard.flush().unwrap();
    node.crash();
    check_reads(&node, &wanted);
    assert_eq!(node.shard.clean_deleted().unwrap(), Cleaned::default());
}
