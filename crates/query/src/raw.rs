//! Raw samples for those who do not evaluate: remote read and federation. The caller's function gets one series after
//! the other on a thread of the pool and says how many bytes it keeps; they count against the query's memory.

use model::seam::{SelectRequest, SeriesData, SeriesSource as _};
use model::{MatchOp, Matcher, TimeRange};
use std::sync::Arc;

use crate::candidates::Need;
use crate::error::QueryError;
use crate::frontend::{Frontend, Options, until_stopped};

/// What one selector of a raw read wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// All must match; none means every series.
    pub matchers: Vec<Matcher>,
    /// Which samples.
    pub range: TimeRange,
}

impl Frontend {
    /// Reads the series that `wanted` names, in no particular order: `each` gets what it collects into, the index of
    /// the selector, and a series that has samples; it gives the bytes it has kept of it. A series that several
    /// selectors match comes once for each. `kind` names the call in metrics and in the table of queries.
    pub async fn select<A: Send + 'static>(
        &self,
        kind: &'static str,
        wanted: Vec<Wanted>,
        options: &Options,
        into: A,
        each: impl FnMut(&mut A, usize, &SeriesData) -> Result<u64, QueryError> + Send + 'static,
    ) -> Result<A, QueryError> {
        self.counted(kind, self.run_select(kind, wanted, options, into, each)).await
    }

    async fn run_select<A: Send + 'static>(
        &self,
        kind: &'static str,
        mut wanted: Vec<Wanted>,
        options: &Options,
        mut into: A,
        mut each: impl FnMut(&mut A, usize, &SeriesData) -> Result<u64, QueryError> + Send + 'static,
    ) -> Result<A, QueryError> {
        for one in wanted.iter_mut().filter(|one| one.matchers.is_empty()) {
            one.matchers.push(every_series()?);
        }
        let texts: Vec<&[Matcher]> = wanted.iter().map(|one| one.matchers.as_slice()).collect();
        let call = self.admit(kind, crate::frontend::selectors_text(&texts), options);
        let run = async {
            let pool = self.evaluations();
            let place = pool.place(call.deadline).await?;
            let needs: Vec<Need<'_>> =
                wanted.iter().map(|one| Need { matchers: &one.matchers, range: one.range }).collect();
            let source = self.anywhere(&needs, &call).await?;
            drop(needs);
            let budget = Arc::clone(&call.budget);
            let tenant = call.tenant.clone();
            let work = move || {
                for (index, one) in wanted.into_iter().enumerate() {
                    let Wanted { matchers, range } = one;
                    let budget = Arc::clone(&budget);
                    let request = SelectRequest { tenant: tenant.clone(), matchers, range, budget };
                    let mut series = source.select(&request)?;
                    let mut data = SeriesData::default();
                    while series.next_series(&mut data)? {
                        if data.stamps.is_empty() {
                            continue;
                        }
                        request.budget.count_samples(data.stamps.len() as u64);
                        let kept = each(&mut into, index, &data)?;
                        request.budget.charge(kept)?;
                        request.budget.check()?;
                    }
                }
                Ok(into)
            };
            pool.run(place, call.deadline, &call.budget, work).await
        };
        until_stopped(&call.active, run).await
    }
}

/// Matches every series there is, since each has a name.
fn every_series() -> Result<Matcher, QueryError> {
    Matcher::new("__name__", MatchOp::NotEqual, "").map_err(|e| QueryError::Internal(e.to_string()))
}
