//! A batch to parts, one a shard: each sample goes where its placement key lives at its timestamp.
//!
//! Series that the cache knows travel as refs, others with their labels. Mostly all samples of a series, and of a
//! batch, lie in one version of the shard map, and the shard is the one that the cache names; the rest of the code is
//! for when they do not.

use std::collections::HashMap;
use std::sync::Arc;

use model::seam::{RejectReason, ShardBatch, ShardSeries, WriteBatch};
use model::{Exemplar, Failure, Histogram, Labels, LabelsBuilder, Sample, SeriesRef, ShardId, TimeRange};
use topology::{ShardMap, family_key, placement_key};

use crate::cache::Hit;
use crate::report::{Outcome, region, series_text};
use crate::{Ingest, Rules, histogram, validate};

/// Characters of an exemplar's labels, as upstream counts them.
const MAX_EXEMPLAR_CHARS: usize = 128;

/// What goes to one shard, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardId,
    pub(crate) batch: Arc<ShardBatch>,
    /// One for each series of `batch`.
    pub(crate) origins: Vec<Origin>,
}

/// Where a series of a part came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its placement key.
    pub(crate) key: u64,
    /// Its index in the write batch.
    pub(crate) series: u32,
    /// The version of the shard map that it was routed by.
    pub(crate) version: u16,
}

impl Ingest {
    /// The parts of `batch`. What breaks a rule is counted in `outcome` and left out.
    pub(crate) fn plan(
        &self,
        batch: &WriteBatch,
        rules: &Rules,
        outcome: &mut Outcome,
    ) -> Result<Vec<Part>, Failure> {
        let map = self.map.load_full();
        let context = self.fingerprints.context(&batch.tenant, batch.decode_labels, rules.epoch);
        let print =
            |series: &model::seam::BatchSeries| self.fingerprints.of(context, region(batch, &series.labels));
        let fingerprints: Vec<u128> = batch.series.iter().map(print).collect();
        let mut hits = Vec::with_capacity(fingerprints.len());
        let incarnations = {
            let mut cache = self.cache.lock();
            let tally = cache.look_up(&fingerprints, map.epoch(), &mut hits);
            self.metrics.looked_up(&tally, &cache);
            map.all_shards().into_iter().map(|shard| (shard, cache.incarnation(shard))).collect()
        };
        let now = self.clock.now_ms();
        let mut planner = Planner::new(batch, rules, &map, now, incarnations);
        for (at, hit) in hits.iter().enumerate() {
            planner.series(at as u32, hit.as_ref(), outcome);
        }
        planner.metadata(&batch.metadata, now);
        if let Some(mark) = batch.scrape {
            let owners = map.shards(TimeRange::closed(mark.timestamp, mark.timestamp));
            let touched = self.targets.lock().shards(&batch.tenant, mark.target, &owners);
            planner.mark(mark, &owners, &touched);
        }
        planner.finish()
    }

    /// The parts that `part` becomes under the map as it is now. Completeness of a scrape is not claimed again: what
    /// the new owner holds of the target may have come by the other part.
    pub(crate) fn replan(
        &self,
        batch: &WriteBatch,
        rules: &Rules,
        part: &Part,
    ) -> Result<Vec<Part>, Failure> {
        let map = self.map.load_full();
        let now = self.clock.now_ms();
        let mut planner = Planner::new(batch, rules, &map, now, HashMap::new());
        let old = &part.batch;
        let mut first = (0, 0);
        for (at, (origin, series)) in part.origins.iter().zip(&old.series).enumerate() {
            let end = old.ends.get(at).map_or((0, 0), |end| (end.0 as usize, end.1 as usize));
            let exemplars: Vec<Exemplar> = old
                .exemplars
                .iter()
                .filter(|(series, _)| *series as usize == at)
                .map(|(_, exemplar)| exemplar.clone())
                .collect();
            let labels = match series {
                ShardSeries::New { labels, .. } => Some(labels.clone()),
                ShardSeries::Known(_) => None,
            };
            planner.place(Item {
                series: origin.series,
                key: origin.key,
                known: None,
                labels,
                samples: &old.samples[first.0..end.0],
                starts: old.starts.get(first.0..end.0).unwrap_or_default(),
                histograms: &old.histograms[first.1..end.1],
                histogram_starts: old.histogram_starts.get(first.1..end.1).unwrap_or_default(),
                exemplars: &exemplars,
                untracked: old.untracked.get(at).copied().unwrap_or(false),
            });
            first = end;
        }
        planner.metadata(&old.metadata, now);
        planner.finish()
    }
}

/// The labels of series `index` of `batch`, which was accepted before.
pub(crate) fn labels_again(batch: &WriteBatch, rules: &Rules, index: u32) -> Result<Labels, Failure> {
    let series = batch.series.get(index as usize);
    let bytes = series.map(|series| region(batch, &series.labels)).unwrap_or_default();
    validate::labels(bytes, batch.decode_labels, &rules.limits, &mut LabelsBuilder::new()).map_err(
        |rejection| Failure::internal(format!("a series of the cache is not valid: {}", rejection.text)),
    )
}

/// A series with its samples, to be routed.
struct Item<'a> {
    series: u32,
    key: u64,
    known: Option<Known>,
    labels: Option<Labels>,
    samples: &'a [Sample],
    starts: &'a [i64],
    histograms: &'a [(i64, Arc<Histogram>)],
    histogram_starts: &'a [i64],
    exemplars: &'a [Exemplar],
    untracked: bool,
}

/// What the cache knows of a series.
#[derive(Clone, Copy)]
struct Known {
    shard: ShardId,
    version: Option<u16>,
    reference: Option<SeriesRef>,
    check: u128,
}

struct Planner<'a> {
    batch: &'a WriteBatch,
    rules: &'a Rules,
    map: &'a ShardMap,
    incarnations: HashMap<ShardId, u64>,
    bounds: (i64, i64),
    /// The version of the map that holds in `range`.
    version: usize,
    range: TimeRange,
    parts: Vec<Building>,
    /// The part that was used last.
    last: usize,
    builder: LabelsBuilder,
    failure: Option<Failure>,
}

struct Building {
    shard: ShardId,
    batch: ShardBatch,
    origins: Vec<Origin>,
}

impl<'a> Planner<'a> {
    fn new(
        batch: &'a WriteBatch,
        rules: &'a Rules,
        map: &'a ShardMap,
        now: i64,
        incarnations: HashMap<ShardId, u64>,
    ) -> Self {
        let (version, range) = map.version_at(now);
        Self {
            batch,
            rules,
            map,
            incarnations,
            bounds: rules.limits.bounds(now),
            version,
            range,
            parts: Vec::new(),
            last: 0,
            builder: LabelsBuilder::new(),
            failure: None,
        }
    }

    /// Validates and places series `index` of the batch.
    fn series(&mut self, index: u32, hit: Option<&Hit>, outcome: &mut Outcome) {
        let batch = self.batch;
        let series = &batch.series[index as usize];
        let samples = slice(&batch.samples, &series.samples);
        let mut histograms = slice(&batch.histograms, &series.histograms);
        let mut histogram_starts = slice(&batch.histogram_starts, &series.histograms);
        let mut exemplars = slice(&batch.exemplars, &series.exemplars);
        let n = samples.len() + histograms.len() + exemplars.len();
        if n == 0 {
            return;
        }
        let (good_histograms, good_exemplars);
        if histograms.iter().any(|(_, h)| histogram::is_too_fine(h) || histogram::problem(h).is_some()) {
            good_histograms = self.good_histograms(index, histograms, histogram_starts, outcome);
            (histograms, histogram_starts) = (&good_histograms.0, &good_histograms.1);
        }
        if !exemplars.is_empty() && !exemplars.iter().all(fits) {
            good_exemplars = self.good_exemplars(index, exemplars, outcome);
            exemplars = &good_exemplars;
        }
        let mut item = Item {
            series: index,
            key: 0,
            known: None,
            labels: None,
            samples,
            starts: slice(&batch.starts, &series.samples),
            histograms,
            histogram_starts,
            exemplars,
            untracked: series.untracked,
        };
        match hit {
            Some(hit) => {
                item.key = hit.key;
                let Hit { shard, version, reference, check, .. } = *hit;
                item.known = Some(Known { shard, version, reference, check });
            }
            None => {
                let bytes = region(batch, &series.labels);
                match validate::labels(bytes, batch.decode_labels, &self.rules.limits, &mut self.builder) {
                    Ok(labels) => {
                        item.key = placement_key(&batch.tenant, &labels);
                        item.labels = Some(labels);
                    }
                    Err(rejection) => {
                        outcome.reject(rejection.reason, n as u64, || rejection.text);
                        return;
                    }
                }
            }
        }
        self.place(item);
    }

    /// The histograms without problems, and their starts; those that are too fine in a coarser schema.
    fn good_histograms(
        &self,
        index: u32,
        all: &[(i64, Arc<Histogram>)],
        starts: &[i64],
        outcome: &mut Outcome,
    ) -> (Vec<(i64, Arc<Histogram>)>, Vec<i64>) {
        let mut good = Vec::with_capacity(all.len());
        let mut good_starts = Vec::with_capacity(starts.len());
        for (at, (timestamp, histogram)) in all.iter().enumerate() {
            if let Some(problem) = histogram::problem(histogram) {
                outcome.reject(RejectReason::InvalidHistogram, 1, || {
                    format!("histogram at {timestamp} of {} {problem}", series_text(self.batch, index))
                });
                continue;
            }
            let kept = if histogram::is_too_fine(histogram) {
                Arc::new(histogram::coarsened(histogram))
            } else {
                Arc::clone(histogram)
            };
            good.push((*timestamp, kept));
            good_starts.extend(starts.get(at));
        }
        (good, good_starts)
    }

    fn good_exemplars(&self, index: u32, all: &[Exemplar], outcome: &mut Outcome) -> Vec<Exemplar> {
        let mut good = Vec::with_capacity(all.len());
        for exemplar in all {
            if fits(exemplar) {
                good.push(exemplar.clone());
            } else {
                outcome.reject(RejectReason::ExemplarLabels, 1, || {
                    let series = series_text(self.batch, index);
                    format!("exemplar of {series} has labels of more than {MAX_EXEMPLAR_CHARS} characters")
                });
            }
        }
        good
    }

    /// Puts a series into the part of its shard, or its samples into the parts of several.
    fn place(&mut self, item: Item<'_>) {
        if self.in_one_version(&item) {
            self.push(item);
            return;
        }
        let stamps = item.samples.iter().map(|s| s.timestamp);
        let stamps = stamps.chain(item.histograms.iter().map(|(t, _)| *t));
        let mut versions: Vec<usize> = stamps
            .chain(item.exemplars.iter().map(|e| e.timestamp))
            .map(|t| self.map.version_at(t).0)
            .collect();
        versions.sort_unstable();
        versions.dedup();
        for version in versions {
            let here = |timestamp: i64| self.map.version_at(timestamp).0 == version;
            let kept: Vec<usize> =
                (0..item.samples.len()).filter(|at| here(item.samples[*at].timestamp)).collect();
            let samples: Vec<Sample> = kept.iter().map(|at| item.samples[*at]).collect();
            let starts: Vec<i64> = kept.iter().filter_map(|at| item.starts.get(*at).copied()).collect();
            let kept: Vec<usize> =
                (0..item.histograms.len()).filter(|at| here(item.histograms[*at].0)).collect();
            let histograms: Vec<_> = kept.iter().map(|at| item.histograms[*at].clone()).collect();
            let histogram_starts: Vec<i64> =
                kept.iter().filter_map(|at| item.histogram_starts.get(*at).copied()).collect();
            let exemplars: Vec<_> = item.exemplars.iter().filter(|e| here(e.timestamp)).cloned().collect();
            self.version = version;
            self.push(Item {
                labels: item.labels.clone(),
                samples: &samples,
                starts: &starts,
                histograms: &histograms,
                histogram_starts: &histogram_starts,
                exemplars: &exemplars,
                ..item
            });
        }
        // The next series begins with a look-up again.
        self.range = TimeRange { after: i64::MAX, until: i64::MIN };
    }

    /// Whether one version of the map holds for all of the item's timestamps; if so, it is the current one.
    fn in_one_version(&mut self, item: &Item<'_>) -> bool {
        let mut first = true;
        let mut ok = |planner: &mut Self, timestamp: i64| {
            if !planner.range.contains(timestamp) {
                let (version, range) = planner.map.version_at(timestamp);
                if !first && version != planner.version {
                    return false;
                }
                (planner.version, planner.range) = (version, range);
            }
            first = false;
            true
        };
        item.samples.iter().all(|sample| ok(self, sample.timestamp))
            && item.histograms.iter().all(|(timestamp, _)| ok(self, *timestamp))
            && item.exemplars.iter().all(|exemplar| ok(self, exemplar.timestamp))
    }

    /// Puts a series into the part of the shard that the current version names.
    fn push(&mut self, item: Item<'_>) {
        let version = self.version;
        let shard = match item.known {
            Some(known) if known.version.is_some_and(|v| usize::from(v) == version) => known.shard,
            _ => self.map.versions()[version].shard_of(item.key),
        };
        let known = item
            .known
            .filter(|known| known.shard == shard)
            .and_then(|known| Some((known.reference?, known.check)));
        let (series, check) = match (known, item.labels) {
            (Some((reference, check)), _) => (ShardSeries::Known(reference), check),
            (None, Some(labels)) => (ShardSeries::New { labels, key: item.key }, 0),
            (None, None) => match labels_again(self.batch, self.rules, item.series) {
                Ok(labels) => (ShardSeries::New { labels, key: item.key }, 0),
                Err(failure) => {
                    self.failure.get_or_insert(failure);
                    return;
                }
            },
        };
        let part = self.part(shard);
        let at = part.batch.series.len() as u32;
        if item.untracked || !part.batch.untracked.is_empty() {
            part.batch.untracked.resize(at as usize, false);
            part.batch.untracked.push(item.untracked);
        }
        part.batch.series.push(series);
        part.batch.known_check ^= check;
        part.batch.samples.extend_from_slice(item.samples);
        part.batch.starts.extend_from_slice(item.starts);
        part.batch.histograms.extend_from_slice(item.histograms);
        part.batch.histogram_starts.extend_from_slice(item.histogram_starts);
        part.batch.exemplars.extend(item.exemplars.iter().map(|exemplar| (at, exemplar.clone())));
        part.batch.ends.push((part.batch.samples.len() as u32, part.batch.histograms.len() as u32));
        let version = u16::try_from(version).unwrap_or(u16::MAX);
        part.origins.push(Origin { key: item.key, series: item.series, version });
    }

    fn part(&mut self, shard: ShardId) -> &mut Building {
        let is_last = self.parts.get(self.last).is_some_and(|part| part.shard == shard);
        if !is_last {
            self.last = match self.parts.iter().position(|part| part.shard == shard) {
                Some(at) => at,
                None => {
                    // An even share is a good guess of what the part will hold.
                    let share =
                        self.batch.series.len() / self.map.versions()[self.version].ranges().len() + 1;
                    self.parts.push(Building {
                        shard,
                        batch: ShardBatch {
                            tenant: Some(self.batch.tenant.clone()),
                            epoch: self.map.epoch(),
                            series: Vec::with_capacity(share),
                            ends: Vec::with_capacity(share),
                            samples: Vec::with_capacity(share),
                            min_timestamp: self.bounds.0,
                            max_timestamp: self.bounds.1,
                            ..ShardBatch::default()
                        },
                        origins: Vec::with_capacity(share),
                    });
                    self.parts.len() - 1
                }
            };
        }
        &mut self.parts[self.last]
    }

    /// Metadata goes to the shard of its family, as the map is at `now`.
    fn metadata(&mut self, entries: &[model::MetricMetadata], now: i64) {
        for entry in entries.iter().filter(|entry| !entry.family.is_empty()) {
            let shard = self.map.route(family_key(&self.batch.tenant, &entry.family), now);
            self.part(shard).batch.metadata.push(entry.clone());
        }
    }

    /// Marks the parts of all shards that own the scrape's time, making empty ones for the `touched`.
    fn mark(&mut self, mark: model::seam::ScrapeMark, owners: &[ShardId], touched: &[ShardId]) {
        for shard in touched {
            self.part(*shard);
        }
        for part in self.parts.iter_mut().filter(|part| owners.contains(&part.shard)) {
            part.batch.scrape = Some(mark);
        }
    }

    fn finish(self) -> Result<Vec<Part>, Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let incarnations = self.incarnations;
        let done = |mut building: Building| {
            if building.batch.series.iter().any(|series| matches!(series, ShardSeries::Known(_))) {
                building.batch.incarnation = incarnations.get(&building.shard).copied().unwrap_or(0);
            }
            Part { shard: building.shard, batch: Arc::new(building.batch), origins: building.origins }
        };
        Ok(self.parts.into_iter().map(done).collect())
    }
}

/// The range of `all`; empty when it lies outside.
#[inline]
fn slice<'s, T>(all: &'s [T], range: &std::ops::Range<u32>) -> &'s [T] {
    all.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// Whether an exemplar's labels are as short as upstream wants them.
fn fits(exemplar: &Exemplar) -> bool {
    let chars: usize =
        exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    chars <= MAX_EXEMPLAR_CHARS
}
