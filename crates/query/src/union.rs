//! Several shards' snapshots as one source.
//!
//! Series are disjoint across shards, so shards follow one another, unless the range spans two versions of the shard
//! map: then the same series may have samples in two shards, and those series are merged by labels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use model::seam::{SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource};
use model::{Exemplar, Failure, Labels, MetricMetadata, TenantId};

/// The union of snapshots.
pub(crate) struct Union {
    shards: Vec<Arc<dyn SeriesSource>>,
    overlapping: bool,
}

impl Union {
    /// The union of `shards`; `overlapping` says that a series may be in more than one of them.
    pub(crate) fn new(shards: Vec<Arc<dyn SeriesSource>>, overlapping: bool) -> Self {
        let overlapping = overlapping && shards.len() > 1;
        Self { shards, overlapping }
    }

    /// Label sets that more than one shard has.
    fn shared(&self, request: &SelectRequest) -> Result<HashSet<Labels>, Failure> {
        let mut seen = HashSet::new();
        let mut shared = HashSet::new();
        for shard in &self.shards {
            for labels in shard.series(request, 0)? {
                if seen.contains(&labels) {
                    shared.insert(labels);
                } else {
                    seen.insert(labels);
                }
            }
            request.budget.check()?;
        }
        Ok(shared)
    }

    fn sorted_strings(
        &self,
        limit: usize,
        one: impl Fn(&dyn SeriesSource) -> Result<Vec<String>, Failure>,
    ) -> Result<Vec<String>, Failure> {
        if let [only] = self.shards.as_slice() {
            return one(only.as_ref());
        }
        let mut all = Vec::new();
        for shard in &self.shards {
            all.append(&mut one(shard.as_ref())?);
        }
        all.sort_unstable();
        all.dedup();
        cut(&mut all, limit);
        Ok(all)
    }
}

impl SeriesSource for Union {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        if let [only] = self.shards.as_slice() {
            return only.select(request);
        }
        let shared = if self.overlapping { self.shared(request)? } else { HashSet::new() };
        Ok(Box::new(UnionIter {
            rest: self.shards.iter(),
            request: request.clone(),
            current: None,
            shared,
            held: HashMap::new(),
        }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        let mut all: Vec<Labels> = Vec::new();
        for shard in &self.shards {
            all.append(&mut shard.series(request, limit)?);
            if !self.overlapping && limit > 0 && all.len() >= limit {
                break;
            }
        }
        if self.overlapping {
            all.sort_unstable();
            all.dedup();
        }
        cut(&mut all, limit);
        Ok(all)
    }

    fn label_names(&self, request: &SelectRequest, limit: usize) -> Result<Vec<String>, Failure> {
        self.sorted_strings(limit, |shard| shard.label_names(request, limit))
    }

    fn label_values(
        &self,
        request: &SelectRequest,
        name: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        self.sorted_strings(limit, |shard| shard.label_values(request, name, limit))
    }

    fn exemplars(&self, request: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        let mut all: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for shard in &self.shards {
            for series in shard.exemplars(request)? {
                all.entry(series.labels).or_default().extend(series.exemplars);
            }
            request.budget.check()?;
        }
        let sorted = |(labels, mut exemplars): (Labels, Vec<Exemplar>)| {
            exemplars.sort_by_key(|e| e.timestamp);
            SeriesExemplars { labels, exemplars }
        };
        Ok(all.into_iter().map(sorted).collect())
    }

    fn metadata(&self, tenant: &TenantId, family: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.append(&mut shard.metadata(tenant, family)?);
        }
        let order = |m: &MetricMetadata| (m.family.clone(), m.kind, m.help.clone(), m.unit.clone());
        all.sort_by_cached_key(order);
        all.dedup();
        Ok(all)
    }
}

fn cut<T>(all: &mut Vec<T>, limit: usize) {
    if limit > 0 {
        all.truncate(limit);
    }
}

struct UnionIter<'a> {
    rest: std::slice::Iter<'a, Arc<dyn SeriesSource>>,
    request: SelectRequest,
    current: Option<Box<dyn SeriesIter + 'a>>,
    /// Series that several shards have: they are held back and come, merged, at the end.
    shared: HashSet<Labels>,
    held: HashMap<Labels, SeriesData>,
}

impl SeriesIter for UnionIter<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(shard) = self.rest.next() else { break };
                self.current = Some(shard.select(&self.request)?);
                continue;
            };
            if !current.next_series(out)? {
                self.current = None;
                continue;
            }
            if self.shared.is_empty() || !self.shared.contains(&out.labels) {
                return Ok(true);
            }
            self.request.budget.charge(16 * out.stamps.len() as u64)?;
            match self.held.get_mut(&out.labels) {
                Some(held) => held.join(out),
                None => {
                    self.held.insert(out.labels.clone(), std::mem::take(out));
                }
            }
        }
        out.clear();
        let Some(labels) = self.held.keys().next().cloned() else { return Ok(false) };
        if let Some(data) = self.held.remove(&labels) {
            self.request.budget.release(16 * data.stamps.len() as u64);
            *out = data;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::seam::QueryBudget;
    use model::seam::fake::MemorySource;
    use model::{Histogram, Matcher, TimeRange};

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name)]).unwrap()
    }

    fn request() -> SelectRequest {
        SelectRequest {
            tenant: TenantId::anonymous(),
            matchers: vec![Matcher::new("__name__", model::MatchOp::Regex, ".+").unwrap()],
            range: TimeRange::ALL,
            budget: QueryBudget::unlimited(),
        }
    }

    fn two(overlapping: bool) -> Union {
        let mut first = MemorySource::new();
        first.push(&labels("a"), 1, 10.0);
        first.push(&labels("a"), 3, 30.0);
        first.push_histogram(&labels("a"), 4, Arc::new(Histogram::default()));
        let mut second = MemorySource::new();
        second.push_any(&labels("a"), 2, 20.0, None, 7);
        second.push(&labels("a"), 3, 99.0);
        second.push(&labels("b"), 1, 1.0);
        if !overlapping {
            second = MemorySource::new();
            second.push(&labels("b"), 1, 1.0);
        }
        Union::new(vec![Arc::new(first), Arc::new(second)], overlapping)
    }

    fn all(union: &Union) -> Vec<SeriesData> {
        let request = request();
        let mut iter = union.select(&request).unwrap();
        let mut out = Vec::new();
        let mut data = SeriesData::default();
        while iter.next_series(&mut data).unwrap() {
            out.push(data.clone());
        }
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        out
    }

    #[test]
    fn disjoint_shards_follow_one_another() {
        let union = two(false);
        let all = all(&union);
        assert_eq!(all.iter().map(|d| d.labels.metric_name().to_owned()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(union.series(&request(), 0).unwrap().len(), 2);
        assert_eq!(union.series(&request(), 1).unwrap().len(), 1);
        assert_eq!(union.label_values(&request(), "__name__", 0).unwrap(), ["a", "b"]);
        assert_eq!(union.label_names(&request(), 0).unwrap(), ["__name__"]);
    }

    #[test]
    fn exemplars_of_all_shards_come_by_labels_and_time() {
        let exemplar = |timestamp, value| Exemplar { labels: labels("trace"), value, timestamp };
        let (mut first, mut second) = (MemorySource::new(), MemorySource::new());
        first.push_exemplar(&labels("b"), exemplar(1, 1.0));
        second.push_exemplar(&labels("b"), exemplar(0, 2.0));
        second.push_exemplar(&labels("a"), exemplar(5, 3.0));
        let union = Union::new(vec![Arc::new(first), Arc::new(second)], true);
        let found = union.exemplars(&request()).unwrap();
        let shown: Vec<(&str, Vec<f64>)> = found
            .iter()
            .map(|s| (s.labels.metric_name(), s.exemplars.iter().map(|e| e.value).collect()))
            .collect();
        assert_eq!(shown, [("a", vec![3.0]), ("b", vec![2.0, 1.0])]);
    }

    #[test]
    fn a_series_of_two_map_versions_comes_once_with_the_samples_of_both() {
        let union = two(true);
        let all = all(&union);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].stamps, [1, 2, 3, 4]);
        assert_eq!(all[0].values[..3], [10.0, 20.0, 30.0]);
        assert_eq!(all[0].histograms.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3]);
        assert_eq!(all[0].starts, [0, 7, 0, 0]);
        assert_eq!(union.series(&request(), 0).unwrap().len(), 2);
    }
}
