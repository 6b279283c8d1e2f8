//! The router over shards in memory that keep what they are sent, and that fail on demand.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use model::labels::push_pair;
use model::seam::fake::ManualClock;
use model::seam::{
    BatchSeries, BoxFuture, Counts, RejectReason, SampleSink, ScrapeMark, ShardBatch, ShardReport,
    ShardSeries, ShardWriteError, ShardWriter, WriteBatch, WriteReport, decode_canonical,
};
use model::{
    Code, Epoch, Exemplar, Failure, Histogram, Labels, MetricMetadata, Sample, SeriesRef, ShardId, TenantId,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use topology::shard_map::{DAY_MS, SCHEME};
use topology::{KeyRange, MapVersion, ShardMap, family_key, placement_key};

use super::*;

const NOW: i64 = 1_700_000_000_000;

/// What a shard does with the next write instead of the usual.
#[derive(Clone, Debug)]
enum Fault {
    UnknownRefs,
    WrongOwner,
    Failed(Failure),
    /// Stores the batch and says that it failed.
    StoredButFailed,
    Hang,
}

#[derive(Default)]
struct Shard {
    incarnation: u64,
    refs: HashMap<Labels, SeriesRef>,
    by_ref: HashMap<SeriesRef, Labels>,
    stored: BTreeMap<(Labels, i64), u64>,
    faults: VecDeque<Fault>,
    writes: Vec<Arc<ShardBatch>>,
}

impl Shard {
    /// The leader restarts: all refs are of the past.
    fn restart(&mut self) {
        self.incarnation += 1;
        self.refs.clear();
        self.by_ref.clear();
    }

    fn labels_of(&self, series: &ShardSeries) -> Option<Labels> {
        match series {
            ShardSeries::New { labels, .. } => Some(labels.clone()),
            ShardSeries::Known(reference) => self.by_ref.get(reference).cloned(),
        }
    }

    fn write(&mut self, batch: &ShardBatch, epoch: Epoch) -> Result<ShardReport, ShardWriteError> {
        if batch.epoch < epoch {
            return Err(ShardWriteError::WrongOwner { epoch });
        }
        let known: Vec<&ShardSeries> =
            batch.series.iter().filter(|series| matches!(series, ShardSeries::Known(_))).collect();
        if !known.is_empty() && batch.incarnation != self.incarnation {
            return Err(ShardWriteError::UnknownRefs);
        }
        let mut check = 0;
        for series in known {
            match self.labels_of(series) {
                Some(labels) => check ^= labels.hash128(),
                None => return Err(ShardWriteError::UnknownRefs),
            }
        }
        assert_eq!(check, batch.known_check, "the router's idea of its refs is wrong");
        assert_eq!(batch.series.len(), batch.ends.len());
        let mut report = ShardReport { incarnation: self.incarnation, ..ShardReport::default() };
        let mut first = 0;
        for (at, series) in batch.series.iter().enumerate() {
            let labels = self.labels_of(series).unwrap();
            let next = SeriesRef(self.refs.len() as u64 + 1 + 1_000 * self.incarnation);
            let reference = *self.refs.entry(labels.clone()).or_insert(next);
            self.by_ref.insert(reference, labels.clone());
            report.refs.push(Some(reference));
            let end = batch.ends[at].0 as usize;
            for sample in &batch.samples[first..end] {
                let reason = if sample.timestamp < batch.min_timestamp {
                    Some(RejectReason::TooOld)
                } else if sample.timestamp > batch.max_timestamp {
                    Some(RejectReason::TooFarAhead)
                } else {
                    let bits = sample.value.to_bits();
                    let stored = *self.stored.entry((labels.clone(), sample.timestamp)).or_insert(bits);
                    (stored != bits).then_some(RejectReason::DuplicateTimestamp)
                };
                match reason {
                    None => report.written.samples += 1,
                    Some(reason) => {
                        report.rejections.push((at as u32, sample.timestamp, reason));
                        *report.rejected.entry(reason).or_default() += 1;
                    }
                }
            }
            first = end;
        }
        report.written.histograms = batch.histograms.len() as u64;
        report.written.exemplars = batch.exemplars.len() as u64;
        Ok(report)
    }
}

/// A cluster's shards.
struct Shards {
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    /// The map as the shards have it; the router may lag behind.
    map: Mutex<ShardMap>,
    /// Where the router looks for its map: brought up to date when a shard says so.
    routers_map: Arc<ArcSwap<ShardMap>>,
    publish_on_wrong_owner: bool,
}

impl ShardWriter for Shards {
    fn write(
        &self,
        id: ShardId,
        batch: Arc<ShardBatch>,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let fault = {
                let mut shards = self.shards.lock();
                let shard = shards.entry(id).or_default();
                shard.writes.push(Arc::clone(&batch));
                shard.faults.pop_front()
            };
            let (map, epoch) = {
                let map = self.map.lock();
                (Arc::new(map.clone()), map.epoch())
            };
            let write = || self.shards.lock().entry(id).or_default().write(&batch, epoch);
            match fault {
                Some(Fault::UnknownRefs) => Err(ShardWriteError::UnknownRefs),
                Some(Fault::WrongOwner) => Err(ShardWriteError::WrongOwner { epoch }),
                Some(Fault::Failed(failure)) => Err(ShardWriteError::Failed(failure)),
                Some(Fault::StoredButFailed) => {
                    write()?;
                    Err(ShardWriteError::Failed(Failure::unavailable(
                        "lost its leader",
                        Duration::from_millis(200),
                    )))
                }
                Some(Fault::Hang) => std::future::pending().await,
                None => {
                    let result = write();
                    if matches!(result, Err(ShardWriteError::WrongOwner { .. }))
                        && self.publish_on_wrong_owner
                    {
                        self.routers_map.store(map);
                    }
                    result
                }
            }
        })
    }
}

struct World {
    shards: Arc<Shards>,
    ingest: Ingest,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::with_map(ShardMap::initial(4), limits, true)
    }

    fn with_map(map: ShardMap, limits: Limits, publish_on_wrong_owner: bool) -> Self {
        let routers_map = Arc::new(ArcSwap::from_pointee(map.clone()));
        let shards = Arc::new(Shards {
            shards: Mutex::default(),
            map: Mutex::new(map),
            routers_map: Arc::clone(&routers_map),
            publish_on_wrong_owner,
        });
        let writer: Arc<dyn ShardWriter> = Arc::clone(&shards) as _;
        let clock = Arc::new(ManualClock::new(NOW));
        let ingest = Ingest::new(writer, routers_map, limits, clock, &mut Registry::default());
        Self { shards, ingest }
    }

    fn fail(&self, shard: u32, faults: impl IntoIterator<Item = Fault>) {
        self.shards.shards.lock().entry(ShardId(shard)).or_default().faults.extend(faults);
    }

    /// The batches that shards got since the last call: (shard, new series, known series, samples, marked).
    fn writes(&self) -> Vec<(u32, usize, usize, usize, bool)> {
        let mut shards = self.shards.shards.lock();
        let mut out = Vec::new();
        for (id, shard) in shards.iter_mut() {
            for batch in shard.writes.drain(..) {
                let new = batch.series.iter().filter(|s| matches!(s, ShardSeries::New { .. })).count();
                let known = batch.series.len() - new;
                out.push((id.0, new, known, batch.samples.len(), batch.scrape.is_some()));
            }
        }
        out
    }

    fn stored(&self) -> BTreeMap<(Labels, i64), u64> {
        let shards = self.shards.shards.lock();
        let mut all = BTreeMap::new();
        for shard in shards.values() {
            for (key, bits) in &shard.stored {
                assert!(all.insert(key.clone(), *bits).is_none(), "stored in two shards: {key:?}");
            }
        }
        all
    }

    async fn write(&self, batch: WriteBatch) -> Result<WriteReport, Failure> {
        self.ingest.write(batch).await
    }
}

/// `up{instance="…"}` and the like: a name and an instance.
fn target(name: &str, instance: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", instance), ("job", "j")]).unwrap()
}

fn shard_of(map: &ShardMap, labels: &Labels, timestamp: i64) -> u32 {
    map.route(placement_key(&TenantId::anonymous(), labels), timestamp).0
}

fn batch(series: &[(Labels, &[(i64, f64)])]) -> WriteBatch {
    let mut batch = WriteBatch {
        tenant: TenantId::anonymous(),
        buffer: Vec::new(),
        decode_labels: decode_canonical,
        series: Vec::new(),
        samples: Vec::new(),
        starts: Vec::new(),
        histograms: Vec::new(),
        histogram_starts: Vec::new(),
        exemplars: Vec::new(),
        metadata: Vec::new(),
        scrape: None,
    };
    for (labels, samples) in series {
        let region = batch.buffer.len() as u32;
        batch.buffer.extend_from_slice(labels.as_bytes());
        let first = batch.samples.len() as u32;
        batch
            .samples
            .extend(samples.iter().map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value }));
        batch.series.push(BatchSeries {
            labels: region..batch.buffer.len() as u32,
            samples: first..batch.samples.len() as u32,
            ..BatchSeries::default()
        });
    }
    batch
}

/// One sample for each of `n` targets.
fn targets_batch(n: usize, timestamp: i64) -> WriteBatch {
    let all: Vec<Labels> = (0..n).map(|at| target("up", &format!("host-{at}:80"))).collect();
    let sample = [(timestamp, 1.0)];
    batch(&all.iter().map(|labels| (labels.clone(), &sample[..])).collect::<Vec<_>>())
}

#[tokio::test(start_paused = true)]
async fn series_travel_with_labels_once() {
    let world = World::new(Limits::default());
    let report = world.write(targets_batch(40, NOW)).await.unwrap();
    assert_eq!(report.written.samples, 40);
    assert!(report.is_complete());
    let first = world.writes();
    assert_eq!(first.iter().map(|w| w.1).sum::<usize>(), 40);
    assert_eq!(first.len(), 4, "one part a shard: {first:?}");
    world.write(targets_batch(40, NOW + 1)).await.unwrap();
    let second = world.writes();
    assert_eq!(
        (second.iter().map(|w| w.1).sum::<usize>(), second.iter().map(|w| w.2).sum::<usize>()),
        (0, 40)
    );
    assert_eq!(world.stored().len(), 80);
    assert_eq!(world.ingest.metrics.lookups("found"), 40);
    world.write(targets_batch(40, NOW + 2)).await.unwrap();
    assert_eq!(world.ingest.metrics.lookups("predicted"), 39);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_leader_gets_labels_again() {
    let world = World::new(Limits::default());
    world.write(targets_batch(40, NOW)).await.unwrap();
    world.shards.shards.lock().get_mut(&ShardId(2)).unwrap().restart();
    world.writes();
    let report = world.write(targets_batch(40, NOW + 1)).await.unwrap();
    assert_eq!(report.written.samples, 40);
    let writes = world.writes();
    let of_second: Vec<_> = writes.iter().filter(|w| w.0 == 2).collect();
    assert_eq!((of_second.len(), of_second[0].1, of_second[1].2), (2, 0, 0), "first by refs, then by labels");
    assert_eq!(writes.len(), 5, "only that part went again");
    world.write(targets_batch(40, NOW + 2)).await.unwrap();
    assert_eq!(world.writes().iter().map(|w| w.1).sum::<usize>(), 0, "the new refs were learnt");
    assert_eq!(world.stored().len(), 120);
}

#[tokio::test(start_paused = true)]
async fn refs_unknown_for_ever_are_a_defect() {
    let world = World::new(Limits::default());
    for shard in 1..=4 {
        world.fail(shard, [Fault::UnknownRefs]);
    }
    let failure = world.write(targets_batch(1, NOW)).await.unwrap_err();
    assert_eq!(failure.code, Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn only_the_failed_part_goes_again() {
    let world = World::new(Limits::default());
    let unavailable = Failure::unavailable("no leader", Duration::from_millis(500));
    world.fail(3, [Fault::Failed(unavailable.clone()), Fault::StoredButFailed, Fault::Failed(unavailable)]);
    let report = world.write(targets_batch(40, NOW)).await.unwrap();
    assert_eq!(report.written.samples, 40);
    let count = |shard: u32, writes: &[(u32, usize, usize, usize, bool)]| {
        writes.iter().filter(|w| w.0 == shard).count()
    };
    let writes = world.writes();
    assert_eq!((count(3, &writes), writes.len()), (4, 7));
    assert_eq!(world.stored().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let limits = Limits { patience: Duration::from_secs(2), ..Limits::default() };
    let world = World::new(limits);
    let again = Failure::unavailable("no leader", Duration::from_millis(500));
    world.fail(3, std::iter::repeat_n(Fault::Failed(again), 1_000));
    let start = tokio::time::Instant::now();
    let failure = world.write(targets_batch(40, NOW)).await.unwrap_err();
    assert_eq!(failure.message, "shard 3 has not committed within 2 s: no leader");
    assert_eq!((failure.code, failure.retry_after), (Code::Unavailable, Some(Duration::from_secs(1))));
    assert!(start.elapsed() <= limits.patience);

    let world = World::new(limits);
    world.fail(1, [Fault::Hang]);
    let failure = world.write(targets_batch(40, NOW)).await.unwrap_err();
    assert_eq!(failure.message, "shard 1 has not committed within 2 s: it has not answered");
}

#[tokio::test(start_paused = true)]
async fn long_waits_and_other_failures_are_passed_on_at_once() {
    for failure in [
        Failure::unavailable("the disk is full", Duration::from_secs(10)),
        Failure::new(Code::Corrupt, "the log is damaged"),
    ] {
        let world = World::new(Limits::default());
        world.fail(2, [Fault::Failed(failure.clone())]);
        let start = tokio::time::Instant::now();
        assert_eq!(world.write(targets_batch(40, NOW)).await.unwrap_err(), failure);
        assert!(start.elapsed() < Duration::from_millis(1));
    }
}

#[tokio::test(start_paused = true)]
async fn retries_have_bounded_memory() {
    let limits = Limits { retry_bytes: 100, ..Limits::default() };
    let world = World::new(limits);
    world.fail(3, [Fault::StoredButFailed]);
    let failure = world.write(targets_batch(40, NOW)).await.unwrap_err();
    assert_eq!(failure.message, "shard 3: lost its leader; too much waits to be tried again");
    assert_eq!(world.ingest.retries.held(), 0);
}

/// Shards 1 to 4 until today, 5 and 6 from tomorrow.
fn grown_map(epoch: u64) -> ShardMap {
    let tomorrow = topology::day_of(NOW) + 1;
    let old = ShardMap::initial(4).versions()[0].clone();
    let new = vec![KeyRange { first: 0, shard: ShardId(5) }, KeyRange { first: 1 << 63, shard: ShardId(6) }];
    ShardMap::new(Epoch(epoch), SCHEME, vec![old, MapVersion::new(tomorrow, new)]).unwrap()
}

#[tokio::test(start_paused = true)]
async fn samples_go_where_their_time_lives() {
    let limits = Limits { max_ahead: Duration::ZERO, ..Limits::default() };
    let world = World::with_map(grown_map(1), limits, true);
    let labels = target("up", "a:80");
    let boundary = (topology::day_of(NOW) + 1) * DAY_MS;
    let samples = [(boundary - 1, 1.0), (boundary, 2.0), (boundary - 2, 0.5), (boundary + 1, 3.0)];
    for round in 0..2 {
        let report = world.write(batch(&[(labels.clone(), &samples)])).await.unwrap();
        assert_eq!(report.written.samples, 4, "round {round}");
    }
    let shards = world.shards.shards.lock();
    for (timestamp, _) in samples {
        let shard = &shards[&ShardId(shard_of(&grown_map(1), &labels, timestamp))];
        assert!(shard.stored.contains_key(&(labels.clone(), timestamp)));
    }
    assert_eq!(shards.values().map(|shard| shard.stored.len()).sum::<usize>(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_newer_map_is_followed() {
    let limits = Limits { max_ahead: Duration::ZERO, ..Limits::default() };
    let world = World::with_map(ShardMap::initial(4), limits, true);
    world.write(targets_batch(40, NOW)).await.unwrap();
    *world.shards.map.lock() = grown_map(2);
    let tomorrow = NOW + DAY_MS;
    let report = world.write(targets_batch(40, tomorrow)).await.unwrap();
    assert_eq!(report.written.samples, 40);
    assert_eq!(world.ingest.map.load().epoch(), Epoch(2));
    let shards = world.shards.shards.lock();
    for at in 0..40 {
        let labels = target("up", &format!("host-{at}:80"));
        let shard = &shards[&ShardId(shard_of(&grown_map(2), &labels, tomorrow))];
        assert!(shard.stored.contains_key(&(labels, tomorrow)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_map_that_comes_late_is_waited_for() {
    let world = World::with_map(ShardMap::initial(4), Limits::default(), false);
    *world.shards.map.lock() = grown_map(2);
    let publish = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.shards.routers_map.store(Arc::new(grown_map(2)));
    };
    let (report, ()) = tokio::join!(world.write(targets_batch(40, NOW)), publish);
    assert_eq!(report.unwrap().written.samples, 40);

    let world = World::with_map(ShardMap::initial(4), Limits::default(), false);
    *world.shards.map.lock() = grown_map(2);
    let failure = world.write(targets_batch(1, NOW)).await.unwrap_err();
    assert!(failure.message.ends_with("its shard map is of epoch 2, ours of 1"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn invalid_series_cost_only_themselves() {
    let limits = Limits { max_labels: 3, retention: Duration::from_secs(3_600), ..Limits::default() };
    let world = World::new(limits);
    let good = target("up", "a:80");
    let over = Labels::from_pairs([("__name__", "m"), ("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
    let nameless = Labels::from_pairs([("a", "1")]).unwrap();
    world.write(batch(&[(good.clone(), &[(NOW, 1.0)])])).await.unwrap();
    let mut request = batch(&[
        (good.clone(), &[(NOW, 2.0), (NOW - 4_000_000, 1.0), (NOW + 601_000, 1.0), (NOW + 1, 1.0)]),
        (over, &[(NOW, 1.0), (NOW + 1, 1.0)]),
        (nameless, &[(NOW, 1.0)]),
        (good.clone(), &[]),
    ]);
    let start = request.buffer.len() as u32;
    push_pair(&mut request.buffer, "b", "1");
    push_pair(&mut request.buffer, "a", "1");
    request.series.push(BatchSeries {
        labels: start..request.buffer.len() as u32,
        samples: 0..1,
        ..Default::default()
    });
    let report = world.write(request).await.unwrap();
    assert_eq!(report.written, Counts { samples: 1, ..Counts::default() });
    let rejected: Vec<_> = report.rejected.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
    assert_eq!(
        rejected,
        [
            ("invalid_labels", 2),
            ("label_limit", 2),
            ("too_old", 1),
            ("too_far_in_future", 1),
            ("duplicate_timestamp", 1)
        ]
    );
    assert_eq!(
        report.first_reasons,
        [
            r#"series m{a="1", b="2", c="3"} has 4 labels, the limit is 3"#,
            r#"series {a="1"} has no metric name"#,
            r#"series without a metric name: labels are not sorted at label name "a""#,
            r#"sample at 1700000000000 of up{instance="a:80", job="j"} has another value than the one stored at that time"#,
            r#"sample at 1699996000000 of up{instance="a:80", job="j"} is older than the retention floor 1699996400000"#,
        ]
    );
    assert_eq!(world.stored().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn changed_limits_hold_for_known_series_too() {
    let world = World::new(Limits::default());
    world.write(targets_batch(1, NOW)).await.unwrap();
    world.ingest.set_limits(Limits { max_labels: 2, ..Limits::default() });
    let report = world.write(targets_batch(1, NOW + 1)).await.unwrap();
    assert_eq!(report.rejected.get(&RejectReason::LabelLimit), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn histograms_and_exemplars_are_checked_and_routed() {
    let world = World::new(Limits::default());
    let mut request = batch(&[(target("h", "a:80"), &[])]);
    let good = Histogram { integer: true, ..Histogram::default() };
    let bad = Histogram { schema: 60, ..Histogram::default() };
    request.histograms = vec![(NOW, Arc::new(good)), (NOW + 1, Arc::new(bad))];
    let exemplar = |text: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", text)]).unwrap(),
        value: 1.0,
        timestamp: NOW,
    };
    request.exemplars = vec![exemplar("x"), exemplar(&"x".repeat(121))];
    request.series[0].histograms = 0..2;
    request.series[0].exemplars = 0..2;
    let report = world.write(request).await.unwrap();
    assert_eq!(report.written, Counts { samples: 0, histograms: 1, exemplars: 1 });
    assert_eq!(
        report.first_reasons,
        [
            r#"histogram at 1700000000001 of h{instance="a:80", job="j"} has an unknown schema"#,
            r#"exemplar of h{instance="a:80", job="j"} has labels of more than 128 characters"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn marks_go_to_every_shard_that_a_target_touched() {
    let world = World::new(Limits::default());
    let scrape = |series: &[&str], timestamp: i64| {
        let all: Vec<Labels> = series.iter().map(|instance| target("up", instance)).collect();
        let samples = [(timestamp, 1.0)];
        let mut request = batch(&all.iter().map(|labels| (labels.clone(), &samples[..])).collect::<Vec<_>>());
        request.scrape = Some(ScrapeMark { target: 7, timestamp });
        request
    };
    let marked = |world: &World| {
        let mut shards: Vec<u32> = world.writes().iter().filter(|w| w.4).map(|w| w.0).collect();
        shards.dedup();
        shards
    };
    let map = ShardMap::initial(4);
    let on_shard = |wanted: u32| {
        let mut hosts = (0..).map(|at| format!("h{at}"));
        hosts.find(|host| shard_of(&map, &target("up", host), NOW) == wanted).unwrap()
    };
    let (two, three) = (on_shard(2), on_shard(3));
    world.write(scrape(&[&two], NOW)).await.unwrap();
    assert_eq!(marked(&world), [1, 2, 3, 4], "nothing is known of the target");
    world.write(scrape(&[&two, &three], NOW + 1)).await.unwrap();
    assert_eq!(marked(&world), [2, 3]);
    world.write(scrape(&[&two], NOW + 2)).await.unwrap();
    assert_eq!(marked(&world), [2, 3], "shard 3 must learn that its series are gone");
    world.fail(3, [Fault::Failed(Failure::internal("no"))]);
    world.write(scrape(&[&two, &three], NOW + 3)).await.unwrap_err();
    marked(&world);
    world.write(scrape(&[], NOW + 4)).await.unwrap();
    assert_eq!(marked(&world), [2, 3], "what a failed write touched is told too");
    world.write(scrape(&[], NOW + 5)).await.unwrap();
    assert_eq!(marked(&world), [0u32; 0]);
}

#[tokio::test(start_paused = true)]
async fn untracked_series_are_told_apart() {
    let world = World::with_map(ShardMap::initial(1), Limits::default(), true);
    let mut request = targets_batch(3, NOW);
    request.series[1].untracked = true;
    world.write(request).await.unwrap();
    let shards = world.shards.shards.lock();
    assert_eq!(shards[&ShardId(1)].writes[0].untracked, [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn metadata_goes_to_the_shard_of_its_family() {
    let world = World::new(Limits::default());
    let mut request = batch(&[]);
    let families = ["up", "x_total", "y", "z", "q", ""];
    request.metadata = families
        .iter()
        .map(|family| MetricMetadata { family: (*family).into(), ..Default::default() })
        .collect();
    world.write(request).await.unwrap();
    let shards = world.shards.shards.lock();
    for (id, shard) in shards.iter() {
        for entry in shard.writes.iter().flat_map(|batch| &batch.metadata) {
            let key = family_key(&TenantId::anonymous(), &entry.family);
            assert_eq!(ShardMap::initial(4).route(key, NOW), *id, "{}", entry.family);
        }
    }
    assert_eq!(shards.values().flat_map(|s| &s.writes).map(|b| b.metadata.len()).sum::<usize>(), 5);
}

#[tokio::test(start_paused = true)]
async fn writers_at_the_same_time_lose_nothing() {
    let world = World::new(Limits { cache_bytes: 0, ..Limits::default() });
    let writing = (0..16).map(|writer: i64| {
        let world = &world;
        async move {
            for round in 0..10 {
                let report = world.write(targets_batch(200, NOW + writer * 100 + round)).await.unwrap();
                assert_eq!(report.written.samples, 200);
                if round == writer % 10 {
                    let id = ShardId(1 + (writer % 4) as u32);
                    world.shards.shards.lock().get_mut(&id).unwrap().restart();
                }
            }
        }
    });
    futures::future::join_all(writing).await;
    assert_eq!(world.stored().len(), 16 * 10 * 200);
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::UnknownRefs),
        Just(Fault::WrongOwner),
        Just(Fault::StoredButFailed),
        Just(Fault::Failed(Failure::unavailable("no leader", Duration::from_millis(100)))),
        Just(Fault::Failed(Failure::internal("a defect"))),
        Just(Fault::Hang),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever goes wrong: what was acknowledged is stored, once, where it belongs, with its value; and nothing is
    /// stored that nobody sent.
    #[test]
    fn acknowledged_samples_are_stored_once(
        rounds in proptest::collection::vec(
            (
                proptest::collection::vec((0usize..12, 0i64..5, 0i64..3), 0..12),
                proptest::collection::vec((1u32..=6, fault()), 0..4),
                proptest::collection::vec(1u32..=6, 0..2),
            ),
            1..8,
        ),
        grow_at in 0usize..10,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let limits = Limits { cache_bytes: 0, max_ahead: Duration::ZERO, ..Limits::default() };
            let world = World::new(limits);
            let mut sent: HashMap<(Labels, i64), Vec<u64>> = HashMap::new();
            let mut acked: HashMap<(Labels, i64), u64> = HashMap::new();
            for (at, (samples, faults, restarts)) in rounds.iter().enumerate() {
                if at == grow_at {
                    *world.shards.map.lock() = grown_map(2);
                }
                for shard in restarts {
                    world.shards.shards.lock().entry(ShardId(*shard)).or_default().restart();
                }
                for (shard, fault) in faults {
                    world.fail(*shard, [fault.clone()]);
                }
                let all: Vec<(Labels, [(i64, f64); 1])> = samples
                    .iter()
                    .map(|(host, time, value)| {
                        // A cut takes effect at a boundary that no accepted sample has passed.
                        let timestamp = if at < grow_at { NOW - time * 1_000 } else { NOW + time * DAY_MS / 2 };
                        (target("up", &format!("h{host}")), [(timestamp, *value as f64)])
                    })
                    .collect();
                for (labels, samples) in &all {
                    let values = sent.entry((labels.clone(), samples[0].0)).or_default();
                    values.push(samples[0].1.to_bits());
                }
                let request = batch(&all.iter().map(|(l, s)| (l.clone(), &s[..])).collect::<Vec<_>>());
                if let Ok(report) = world.write(request).await {
                    let rejected: u64 = report.rejected.values().sum();
                    prop_assert_eq!(report.written.samples + rejected, all.len() as u64);
                    for (labels, samples) in &all {
                        let bits = samples[0].1.to_bits();
                        acked.entry((labels.clone(), samples[0].0)).or_insert(bits);
                    }
                }
            }
            // Faults that are left over are of no interest to reading.
            let stored = world.stored();
            for (key, bits) in &stored {
                prop_assert!(sent.get(key).is_some_and(|values| values.contains(bits)), "phantom {:?}", key);
            }
            for key in acked.keys() {
                prop_assert!(stored.contains_key(key), "lost {:?}", key);
            }
            Ok(())
        })?;
    }
}
