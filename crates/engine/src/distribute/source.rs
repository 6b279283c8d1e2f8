//! Raw series that moved to the root, as the source of what is evaluated there.

use model::seam::{SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource};
use model::{Code, Failure, Labels, Matcher, MetricMetadata, TenantId, TimeRange};

use super::Part;
use crate::EvalError;
use crate::column::Charge;
use crate::label_set::compare;

/// The series of one selector.
#[derive(Debug)]
struct Selected {
    matchers: Vec<Matcher>,
    range: TimeRange,
    series: Vec<SeriesData>,
    _charge: Charge,
}

/// Series that moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    all: Vec<Selected>,
}

impl Moved {
    /// Adds the series of `part`, each with the order of the place that it came from.
    pub(super) fn add(
        &mut self,
        part: &Part,
        mut found: Vec<(u32, SeriesData)>,
        charge: Charge,
    ) -> Result<(), EvalError> {
        let matchers = promql::parse_selector(part.text(), &promql::ParseOptions::ALL)
            .map_err(|e| EvalError::Source(Failure::new(Code::Internal, e.to_string())))?;
        found.sort_by(|a, b| compare(&a.1.labels, &b.1.labels).then(a.0.cmp(&b.0)));
        let mut series: Vec<SeriesData> = Vec::with_capacity(found.len());
        for (_, data) in found {
            match series.last_mut() {
                Some(last) if last.labels == data.labels => last.join(&data),
                _ => series.push(data),
            }
        }
        self.all.push(Selected { matchers, range: part.range(), series, _charge: charge });
        Ok(())
    }

    fn selected(&self, request: &SelectRequest) -> Result<&Selected, Failure> {
        let holds = |s: &&Selected| {
            s.range.after <= request.range.after
                && s.range.until >= request.range.until
                && s.matchers.iter().all(|m| request.matchers.contains(m))
        };
        self.all.iter().find(holds).ok_or_else(|| {
            Failure::new(Code::Internal, format!("series of {:?} did not move to the root", request.matchers))
        })
    }
}

struct MovedIter<'a> {
    rest: std::slice::Iter<'a, SeriesData>,
    request: SelectRequest,
}

impl SeriesIter for MovedIter<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        let matches = |data: &&SeriesData| {
            self.request.matchers.iter().all(|m| m.matches(data.labels.get(m.name()).unwrap_or("")))
        };
        let Some(data) = self.rest.find(matches) else {
            out.clear();
            return Ok(false);
        };
        let from = data.stamps.partition_point(|t| *t <= self.request.range.after);
        let to = data.stamps.partition_point(|t| *t <= self.request.range.until).max(from);
        out.clear();
        out.labels = data.labels.clone();
        out.stamps.extend_from_slice(&data.stamps[from..to]);
        out.values.extend_from_slice(&data.values[from..to]);
        out.starts.extend_from_slice(data.starts.get(from..to).unwrap_or(&[]));
        let inside = data.histograms.iter().filter(|(at, _)| (from..to).contains(&(*at as usize)));
        out.histograms.extend(inside.map(|(at, h)| (*at - from as u32, h.clone())));
        Ok(true)
    }
}

impl SeriesSource for Moved {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        let selected = self.selected(request)?;
        Ok(Box::new(MovedIter { rest: selected.series.iter(), request: request.clone() }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        let mut iter = self.select(request)?;
        let (mut all, mut data) = (Vec::new(), SeriesData::default());
        while (limit == 0 || all.len() < limit) && iter.next_series(&mut data)? {
            all.push(data.labels.clone());
        }
        Ok(all)
    }

    fn label_names(&self, _: &SelectRequest, _: usize) -> Result<Vec<String>, Failure> {
        Err(no_lookup())
    }

    fn label_values(&self, _: &SelectRequest, _: &str, _: usize) -> Result<Vec<String>, Failure> {
        Err(no_lookup())
    }

    fn exemplars(&self, _: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        Err(no_lookup())
    }

    fn metadata(&self, _: &TenantId, _: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        Err(no_lookup())
    }
}

fn no_lookup() -> Failure {
    Failure::new(Code::Unimplemented, "series that moved for a query answer no lookups")
}
