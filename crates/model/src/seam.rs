//! The seams: traits with two real implementations, at which crates meet that never name each other.
//!
//! | seam | asked by | answered by |
//! |---|---|---|
//! | [`SeriesSource`] | `engine` (selectors), `query` (label calls) | `storage` snapshots, merges of them in `query`, [`fake::MemorySource`] |
//! | [`SampleSink`] | `scrape`, `api` (remote write) | `ingest`, [`fake::RecordingSink`] |
//! | [`ShardWriter`] | `ingest` | `replication` (this node's leaders), later `rpc` (other nodes) |
//! | [`ShardReader`] | `query` | `replication` (this node's replicas), later `rpc` |
//! | [`FragmentRunner`] | `rpc` (for other nodes) | `query` |
//! | [`Clock`] | everybody | [`SystemClock`], [`fake::ManualClock`] |
//! | [`TargetsView`], [`StorageView`], [`ClusterView`] | `api` | `scrape`, `replication` |

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::relabel::Rule;
use crate::{
    Code, Epoch, Exemplar, Failure, Histogram, LabelError, Labels, LabelsBuilder, Matcher, MetricMetadata,
    NodeId, Sample, SeriesRef, ShardId, TenantId, TimeRange,
};

/// A boxed future, so that traits with async methods stay object-safe and free of a runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

// ---------------------------------------------------------------- reading

/// What bounds one query wherever it runs: cancellation, deadline (set by whoever owns a timer) and memory.
/// Shared by all parts of a query; cheap to check.
#[derive(Debug)]
pub struct QueryBudget {
    stopped: AtomicBool,
    timed_out: AtomicBool,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    limit_bytes: u64,
    samples: AtomicU64,
    received_bytes: AtomicU64,
}

impl QueryBudget {
    /// A budget of `limit_bytes` (0 = no limit).
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            used_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            limit_bytes,
            samples: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        })
    }

    /// A budget without limits.
    pub fn unlimited() -> Arc<Self> {
        Self::new(0)
    }

    /// Stops the query at its next check: the caller went away, or an operator cancelled it.
    pub fn cancel(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Stops the query at its next check because its deadline passed.
    pub fn time_out(&self) {
        self.timed_out.store(true, Ordering::Relaxed);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Fails when the query should stop. To be called every few thousand samples.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.stopped.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.timed_out.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Timeout, "query timed out in expression evaluation"));
        }
        Err(Failure::new(Code::Cancelled, "query was canceled in expression evaluation"))
    }

    /// Takes `bytes` of memory, or fails when the budget is used up.
    pub fn charge(&self, bytes: u64) -> Result<(), Failure> {
        let used = self.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(used, Ordering::Relaxed);
        if self.limit_bytes != 0 && used > self.limit_bytes {
            return Err(Failure::new(
                Code::TooMany,
                format!(
                    "query processing would load too much data into memory: limit {} bytes (--query.max-memory)",
                    self.limit_bytes
                ),
            ));
        }
        Ok(())
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes.min(self.used_bytes.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Counts `samples` as touched, for the query's statistics.
    pub fn count_samples(&self, samples: u64) {
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    /// Samples touched so far.
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Counts `bytes` as received from other nodes, for the query's statistics.
    pub fn count_received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes received from other nodes so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// The memory it may use, bytes; 0 = no limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The most memory that was in use at a time, bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }
}

/// Which samples a selector wants.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// Whose series.
    pub tenant: TenantId,
    /// All must match; never empty.
    pub matchers: Vec<Matcher>,
    /// Which timestamps.
    pub range: TimeRange,
    /// Limits and cancellation of the query that asks.
    pub budget: Arc<QueryBudget>,
}

/// The samples of one series, ascending in time, each timestamp once. A timestamp has a float, or a histogram
/// (then the float at that position has no meaning).
#[derive(Clone, Debug, Default)]
pub struct SeriesData {
    /// The series.
    pub labels: Labels,
    /// Timestamps, ms.
    pub stamps: Vec<i64>,
    /// Floats, one a timestamp. Staleness markers are included.
    pub values: Vec<f64>,
    /// Histograms by position in `stamps`, ascending; empty for most series.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Start (created) timestamps, one a timestamp, 0 = not known; empty when none is known.
    pub starts: Vec<i64>,
}

impl SeriesData {
    /// Empties it for reuse, keeping its allocations.
    pub fn clear(&mut self) {
        self.labels = Labels::empty();
        self.stamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    /// Takes the samples of `other`, of the same series, in order of time; where both have one, its own stays.
    pub fn join(&mut self, other: &Self) {
        let mut out = Self { labels: self.labels.clone(), ..Self::default() };
        let has_starts = !self.starts.is_empty() || !other.starts.is_empty();
        let (mut i, mut j) = (0, 0);
        while i < self.stamps.len() || j < other.stamps.len() {
            let is_own = match (self.stamps.get(i), other.stamps.get(j)) {
                (Some(x), Some(y)) => {
                    if x == y {
                        j += 1;
                    }
                    x <= y
                }
                (Some(_), None) => true,
                (None, _) => false,
            };
            let (source, at) = if is_own { (&*self, &mut i) } else { (other, &mut j) };
            if let Ok(found) =
                source.histograms.binary_search_by_key(&(*at as u32), |(position, _)| *position)
            {
                out.histograms.push((out.stamps.len() as u32, Arc::clone(&source.histograms[found].1)));
            }
            if has_starts {
                out.starts.push(source.starts.get(*at).copied().unwrap_or(0));
            }
            out.stamps.push(source.stamps[*at]);
            out.values.push(source.values[*at]);
            *at += 1;
        }
        *self = out;
    }
}

/// The answer to a select: one series after the other.
pub trait SeriesIter {
    /// Fills `out` (cleared first) with the next series and returns true, or returns false at the end. A series
    /// may come without samples. Fails on damaged data, cancellation, or a used-up budget.
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure>;
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series.
    pub labels: Labels,
    /// Ascending in time.
    pub exemplars: Vec<Exemplar>,
}

/// Something that holds series: a snapshot of a shard, a merge of several, a test's memory.
pub trait SeriesSource: Send + Sync {
    /// The series that satisfy all matchers, each exactly once (merged by labels), in no particular order.
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure>;

    /// The label sets of series that match and that may have samples in the range; at most `limit` (0 = all).
    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure>;

    /// Label names, sorted, each once; at most `limit` (0 = all). Empty `matchers` means every series.
    fn label_names(&self, request: &SelectRequest, limit: usize) -> Result<Vec<String>, Failure>;

    /// Values of label `name`, sorted, each once; at most `limit` (0 = all). Empty `matchers` means every series.
    fn label_values(&self, request: &SelectRequest, name: &str, limit: usize)
    -> Result<Vec<String>, Failure>;

    /// The exemplars with timestamps in the range of the series that match: the series sorted by labels, those
    /// without exemplars left out. Exemplars outlive neither eviction from the bounded memory for them nor retention.
    fn exemplars(&self, request: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure>;

    /// Metadata of metric families (of one, when `family` is given).
    fn metadata(&self, tenant: &TenantId, family: Option<&str>) -> Result<Vec<MetricMetadata>, Failure>;
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLevel {
    /// Sees every write acknowledged before the read began.
    Linearizable,
    /// Any replica not older than this.
    MaxStaleness(Duration),
}

/// Gives snapshots of shards to read from.
pub trait ShardReader: Send + Sync {
    /// The shards that may hold series of `tenant` that match, for that range of sample time.
    fn shards(&self, tenant: &TenantId, matchers: &[Matcher], range: TimeRange) -> Vec<ShardId>;

    /// A consistent snapshot of one shard. Fails with [`Code::Unavailable`] when the shard cannot meet the level
    /// in time.
    fn snapshot(
        &self,
        shard: ShardId,
        level: ReadLevel,
    ) -> BoxFuture<'_, Result<Arc<dyn SeriesSource>, Failure>>;

    /// Whether the same series may have samples of `range` in more than one shard: when the range spans several
    /// versions of the shard map. True is always right, but makes reads dearer.
    fn overlapping(&self, range: TimeRange) -> bool {
        let _ = range;
        true
    }

    /// The version of the shard map by which [`ShardReader::shards`] and [`ShardReader::placement`] answer. A fragment
    /// carries it, and the node that runs the fragment compares it with its own.
    fn epoch(&self) -> Epoch {
        Epoch(0)
    }

    /// `shards` grouped by the node that answers for them: each shard once, each node once, `None` = this node (its
    /// shards are read by [`ShardReader::snapshot`]). May answer otherwise at the next call, when leaders moved.
    fn placement(&self, shards: &[ShardId]) -> Vec<(Option<NodeId>, Vec<ShardId>)> {
        vec![(None, shards.to_vec())]
    }

    /// Has `node` run a query's fragment over its shards, and gives the partial that it answers with; both are opaque
    /// bytes, see [`FragmentRunner`]. The fragment carries its own deadline; dropping the future gives the work up.
    /// Fails with [`Code::Unavailable`] when the node cannot be reached, and as the runner there fails.
    fn fragment(&self, node: NodeId, fragment: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        let _ = fragment;
        Box::pin(async move {
            Err(Failure::new(Code::Unavailable, format!("node {node} is not known to this reader")))
        })
    }
}

/// Runs fragments of queries for other nodes, over the shards of this one.
pub trait FragmentRunner: Send + Sync {
    /// The partial (or, for a lookup of labels, its answer) of the encoded `fragment`. Fails with [`Code::WrongOwner`]
    /// when the asker's shard map has another epoch than this node's, with [`Code::Unavailable`] when a shard cannot be
    /// read here (both: ask again by a fresh placement, inside the deadline), with [`Code::Invalid`] when the bytes
    /// are no fragment of a version that this node knows, else as the evaluation fails. Dropping the future stops the
    /// work at its next check.
    fn run(&self, fragment: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;
}

// ---------------------------------------------------------------- writing

/// Decodes a label region of a batch's buffer.
pub type DecodeLabels = fn(region: &[u8], into: &mut LabelsBuilder) -> Result<(), LabelError>;

/// One series of a [`WriteBatch`].
#[derive(Clone, Debug, Default)]
pub struct BatchSeries {
    /// Where in the buffer its labels stand, in the batch's label coding. The same bytes always mean the same
    /// series, so they serve as a cache key; two different regions may mean the same series.
    pub labels: Range<u32>,
    /// Its floats in `samples`.
    pub samples: Range<u32>,
    /// Its histograms in `histograms`.
    pub histograms: Range<u32>,
    /// Its exemplars in `exemplars`.
    pub exemplars: Range<u32>,
    /// Of a scrape: leave this series out of staleness tracking (it came with its own timestamps).
    pub untracked: bool,
}

/// Samples of one tenant as they came in, not yet routed.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    /// Whose.
    pub tenant: TenantId,
    /// What label regions point into: a decompressed request body, or canonical label bytes.
    pub buffer: Vec<u8>,
    /// Decodes a label region; its address also tells label codings apart in caches.
    pub decode_labels: DecodeLabels,
    /// The series. The same series may appear more than once.
    pub series: Vec<BatchSeries>,
    /// Floats of all series.
    pub samples: Vec<Sample>,
    /// Start timestamps, one for each of `samples` (0 = unknown); empty when none is known.
    pub starts: Vec<i64>,
    /// Histograms of all series: (timestamp, histogram).
    pub histograms: Vec<(i64, Arc<Histogram>)>,
    /// Start timestamps, one for each of `histograms` (0 = unknown); empty when none is known.
    pub histogram_starts: Vec<i64>,
    /// Exemplars of all series.
    pub exemplars: Vec<Exemplar>,
    /// Metadata of metric families.
    pub metadata: Vec<MetricMetadata>,
    /// Set when this is the outcome of scraping one target.
    pub scrape: Option<ScrapeMark>,
}

/// Says that a batch is the whole outcome of one scrape of one target: slots that this target fed before and that
/// are absent now get staleness markers, made by the shard's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeMark {
    /// The target: a stable hash of job name and the target's labels after relabelling. Same on every node.
    pub target: u64,
    /// The scrape's timestamp, ms: that of the staleness markers.
    pub timestamp: i64,
}

/// Decodes canonical label bytes (see [`Labels`]).
pub fn decode_canonical(region: &[u8], into: &mut LabelsBuilder) -> Result<(), LabelError> {
    into.clear();
    for (name, value) in &Labels::from_canonical(region)? {
        into.set(name, value);
    }
    Ok(())
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Floats.
    pub samples: u64,
    /// Histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// Why single samples or series were not stored, though the rest of the request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The label set breaks a rule (no name, bad UTF-8, repeated name …).
    InvalidLabels,
    /// A label limit (count, name length, value length) is exceeded.
    LabelLimit,
    /// The tenant's series limit is reached.
    SeriesLimit,
    /// Older than the retention floor.
    TooOld,
    /// Too far in the future.
    TooFarAhead,
    /// Another value is already stored at that timestamp; the first value stays.
    DuplicateTimestamp,
    /// A late sample, and the late area of its partition is full.
    OutOfOrder,
    /// A histogram that contradicts itself.
    InvalidHistogram,
    /// Written under an older lease or epoch than the shard accepts.
    Fenced,
    /// An exemplar that is older than the newest one of its series.
    OutOfOrderExemplar,
    /// An exemplar of a series that has no sample.
    ExemplarWithoutSeries,
    /// An exemplar whose labels are too long or no label set.
    ExemplarLabels,
}

impl RejectReason {
    /// The word used in messages and as a metric's label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidLabels => "invalid_labels",
            Self::LabelLimit => "label_limit",
            Self::SeriesLimit => "series_limit",
            Self::TooOld => "too_old",
            Self::TooFarAhead => "too_far_in_future",
            Self::DuplicateTimestamp => "duplicate_timestamp",
            Self::OutOfOrder => "out_of_order",
            Self::InvalidHistogram => "invalid_histogram",
            Self::Fenced => "fenced",
            Self::OutOfOrderExemplar => "out_of_order_exemplar",
            Self::ExemplarWithoutSeries => "exemplar_without_series",
            Self::ExemplarLabels => "exemplar_labels",
        }
    }
}

/// What became of a batch whose valid part is committed.
#[derive(Clone, Debug, Default)]
pub struct WriteReport {
    /// Stored, including those that were already there with the same value.
    pub written: Counts,
    /// Rejected samples, histograms and exemplars by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// Texts of the first few rejections, naming the series and the limit.
    pub first_reasons: Vec<String>,
}

impl WriteReport {
    /// Whether everything was stored.
    pub fn is_complete(&self) -> bool {
        self.rejected.is_empty()
    }
}

/// Takes samples and answers once the valid ones are committed: fsynced on a majority of each shard concerned.
pub trait SampleSink: Send + Sync {
    /// Writes the batch. `Ok` means that everything not listed as rejected is durable. An error means unknown: some
    /// of it may be stored; sending the same batch again is harmless.
    fn write(&self, batch: WriteBatch) -> BoxFuture<'_, Result<WriteReport, Failure>>;
}

/// One series of a [`ShardBatch`]: either already known to the shard, or with its full definition.
#[derive(Clone, Debug)]
pub enum ShardSeries {
    /// Known by the ref that the shard's leader gave before.
    Known(SeriesRef),
    /// Not known to the router: the leader looks it up or creates it.
    New {
        /// The canonical labels.
        labels: Labels,
        /// The placement key (`topology::placement_key`).
        key: u64,
    },
}

/// Samples of one tenant for one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardBatch {
    /// Whose; `None` only in an empty batch.
    pub tenant: Option<TenantId>,
    /// Epoch of the shard map that the router used.
    pub epoch: Epoch,
    /// The incarnation of the shard's refs that the known refs belong to (0 when there are none).
    pub incarnation: u64,
    /// XOR of [`SeriesRef`]-independent label hashes (`Labels::hash128`) of the known series, for the leader to check.
    pub known_check: u128,
    /// The series and the end of each one's samples and histograms: series i has `samples[ends[i-1].0..ends[i].0]`
    /// and `histograms[ends[i-1].1..ends[i].1]`.
    pub series: Vec<ShardSeries>,
    /// See `series`.
    pub ends: Vec<(u32, u32)>,
    /// For each series: left out of staleness tracking. Empty = none is.
    pub untracked: Vec<bool>,
    /// Floats.
    pub samples: Vec<Sample>,
    /// Start timestamps of `samples`, or empty.
    pub starts: Vec<i64>,
    /// Histograms.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
    /// Start timestamps of `histograms`, or empty.
    pub histogram_starts: Vec<i64>,
    /// Exemplars: (index of the series, exemplar).
    pub exemplars: Vec<(u32, Exemplar)>,
    /// Metadata of metric families (routed to the shard of the family's hash).
    pub metadata: Vec<MetricMetadata>,
    /// Set when this is (this shard's part of) the whole outcome of one scrape.
    pub scrape: Option<ScrapeMark>,
    /// Samples before this are rejected as too old (the retention floor as the router sees it), ms.
    pub min_timestamp: i64,
    /// Samples after this are rejected as too far ahead, ms.
    pub max_timestamp: i64,
}

/// The answer to a committed [`ShardBatch`].
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Incarnation of the refs below.
    pub incarnation: u64,
    /// One ref for each series of the batch, in order; `None` where the series was rejected.
    pub refs: Vec<Option<SeriesRef>>,
    /// Stored or already there with the same value.
    pub written: Counts,
    /// Rejections: (index of the series, timestamp, reason). Long lists are cut; `rejected` counts all.
    pub rejections: Vec<(u32, i64, RejectReason)>,
    /// All rejections by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
}

/// Why a [`ShardBatch`] was not committed.
#[derive(Clone, Debug)]
pub enum ShardWriteError {
    /// The leader does not know the refs (it restarted, or they are of another incarnation): send with labels.
    UnknownRefs,
    /// The router's shard map is old (or newer than the shard's): refresh and route again.
    WrongOwner {
        /// The epoch that the shard has.
        epoch: Epoch,
    },
    /// The replica that was asked does not lead the shard: nothing was proposed, ask the leader.
    NotLeader {
        /// The node that leads, as far as that replica knows.
        leader: Option<NodeId>,
    },
    /// Not committed, or not known whether it was: retry may succeed.
    Failed(Failure),
}

/// Commits batches in shards: on this node by a function call, on another by a stream.
pub trait ShardWriter: Send + Sync {
    /// Commits `batch` in `shard`; `Ok` only after a majority has fsynced it and it is applied on the leader.
    /// The batch is shared, so that the router can resend it.
    fn write(
        &self,
        shard: ShardId,
        batch: Arc<ShardBatch>,
    ) -> BoxFuture<'_, Result<ShardReport, ShardWriteError>>;
}

// ---------------------------------------------------------------- time

/// Time, as an argument of everything that needs it.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch: for timestamps of samples only, since it may jump.
    fn now_ms(&self) -> i64;

    /// Time since some fixed point, never going back: for intervals, leases, deadlines.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clocks")]
    fn now_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

// ---------------------------------------------------------------- views for the HTTP API

/// A scrape target as the targets page shows it.
#[derive(Clone, Debug, Default)]
pub struct TargetStatus {
    /// Labels as discovered.
    pub discovered_labels: Labels,
    /// Labels after relabelling (empty for a dropped target).
    pub labels: Labels,
    /// Job name.
    pub scrape_pool: String,
    /// URL that is scraped, without secrets.
    pub scrape_url: String,
    /// The URL as reachable from outside (host names instead of loopback names).
    pub global_url: String,
    /// Error of the last scrape, empty when it went well.
    pub last_error: String,
    /// Start of the last scrape, ms; 0 = none yet.
    pub last_scrape_ms: i64,
    /// How long it took, seconds.
    pub last_scrape_duration: f64,
    /// `up`, `down` or `unknown`.
    pub health: &'static str,
    /// Interval, ms.
    pub interval_ms: i64,
    /// Timeout, ms.
    pub timeout_ms: i64,
}

/// What the targets page asks of the scraper.
pub trait TargetsView: Send + Sync {
    /// The targets that are scraped, by job and then in stable order.
    fn active(&self) -> Vec<TargetStatus>;
    /// The targets that relabelling dropped, and how many there are in each pool.
    fn dropped(&self) -> (Vec<TargetStatus>, BTreeMap<String, usize>);
    /// Names of the scrape pools (jobs), sorted.
    fn pools(&self) -> Vec<String>;
    /// Metadata of families as active targets last exposed them, by the target's labels, in stable order.
    fn metadata(&self) -> Vec<(Labels, Vec<Arc<MetricMetadata>>)>;
    /// The relabelling rules for targets of a pool; none when there is no such pool.
    fn relabel_rules(&self, pool: &str) -> Option<Vec<Rule>>;
}

/// A (name, value) pair of the TSDB status page.
pub type NamedCount = (String, u64);

/// What the TSDB status page shows, over all shards of this node, of one tenant or of all.
#[derive(Clone, Debug, Default)]
pub struct StorageStatus {
    /// Series in heads.
    pub series: u64,
    /// Distinct label pairs in heads.
    pub label_pairs: u64,
    /// Chunks (sealed tiles of series) in memory.
    pub chunks: u64,
    /// Oldest sample in heads, ms (`i64::MAX` when empty).
    pub min_time: i64,
    /// Newest sample in heads, ms (`i64::MIN` when empty).
    pub max_time: i64,
    /// Series by metric name, largest first.
    pub series_by_metric: Vec<NamedCount>,
    /// Values by label name, largest first.
    pub values_by_label: Vec<NamedCount>,
    /// Bytes of label values by label name, largest first.
    pub memory_by_label: Vec<NamedCount>,
    /// Series by `name=value`, largest first.
    pub series_by_pair: Vec<NamedCount>,
}

/// What the status pages and the admin API ask of storage.
pub trait StorageView: Send + Sync {
    /// Figures of the head of one tenant, or of all, each list cut to `limit`.
    fn status(&self, tenant: Option<&TenantId>, limit: usize) -> StorageStatus;

    /// Deletes the samples in `range` of series of `tenant` that match one of `selectors`. `Ok` once every shard has
    /// committed it; after an error some may have. Doing it again is harmless.
    fn delete_series<'a>(
        &'a self,
        tenant: &'a TenantId,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// Frees the space of deleted samples on this node. `Ok` once they are gone; a retry after an error is harmless.
    fn clean_deleted(&self) -> BoxFuture<'_, Result<(), Failure>>;

    /// Makes a copy of everything that this node's cluster holds, which starts as a cluster of its own with one node, and
    /// gives its name below the folder `snapshots` of the data folder. All that was acknowledged before the call is in it.
    /// Fails with [`Code::Unavailable`] without a majority of a shard, or without space; a retry is harmless.
    fn snapshot(&self) -> BoxFuture<'_, Result<String, Failure>>;
}

mod cluster;
pub mod fake;

pub use cluster::{ClusterStatus, ClusterView, MemberStatus, ReplicaStatus, ReplicaView, ShardStatus};
