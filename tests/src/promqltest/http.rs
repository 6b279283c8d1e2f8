//! Scripts against running nodes, asked in turn: samples go in by remote write 2.0, a tenant for each `clear`, with the times they have
//! in the script (from 1970); queries are asked of `/api/v1/query` and `query_range`.

use std::collections::VecDeque;

use benches::http::{Client, encoded};
use promql::series::SeriesValue;

use super::answer::{self, Answer};
use super::run::{Outcome, Store, run_in};
use super::script::{Eval, Load};
use crate::remote_write::{self, Series, Version};

/// The flags that nodes must be started with. Not `type-and-unit-labels`, which is off in upstream's runs too: with it
/// `rate` tells counters by their types, and says so of the two evals whose series have none.
pub const FLAGS: &[&str] = &[
    "--tenancy.enabled",
    "--storage.tsdb.retention.time=0s",
    "--enable-feature=promql-experimental-functions,promql-binop-fill-modifiers,promql-delayed-name-removal",
    "--enable-feature=use-start-timestamps,promql-duration-expr,promql-extended-range-selectors",
    "--enable-feature=promql-unquoted-utf8-names,promql-per-step-stats,query-cost,st-storage",
];

/// Samples in one request.
const MAX_SAMPLES: usize = 5_000;
/// The most points of a range that the API answers.
const MAX_POINTS: i64 = 11_000;

/// Nodes that scripts are run against.
#[derive(Debug)]
pub struct Remote {
    /// The next one to ask is the first.
    clients: VecDeque<Client>,
    /// Counts the tenants so far.
    tenants: usize,
    /// Why the tenant's data is not what the script says, if it is not.
    spoiled: Option<String>,
}

impl Remote {
    /// The nodes of one cluster at `addresses` (`host:port`), started with [`FLAGS`].
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        Self { clients: addresses.into_iter().map(Client::new).collect(), tenants: 0, spoiled: None }
    }

    /// The node that is next.
    fn client(&mut self) -> &mut Client {
        self.clients.rotate_left(1);
        self.clients.back_mut().expect("there is a node")
    }

    /// Runs the script `text`. An error means that the script cannot be read, or that the node does not answer.
    pub fn run(&mut self, text: &str) -> Result<Outcome, String> {
        run_in(self, text)
    }

    fn tenant(&self) -> String {
        format!("script-{}", self.tenants)
    }

    fn send(&mut self, series: &[Series]) -> Result<(), String> {
        let tenant = self.tenant();
        let body = remote_write::body_v2(series);
        let answer = remote_write::send(self.client(), Version::V2, Some(&tenant), &body)
            .map_err(|e| format!("{e:#}"))?;
        match answer.status {
            204 => Ok(()),
            400 => {
                self.spoiled = Some(answer.text);
                Ok(())
            }
            code => Err(format!("remote write: {code} {}", answer.text)),
        }
    }
}

impl Store for Remote {
    fn clear(&mut self) {
        self.tenants += 1;
        self.spoiled = None;
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        let mut waiting: Vec<Series> = Vec::new();
        let mut count = 0;
        for (labels, samples) in load.all()? {
            for part in samples.chunks(MAX_SAMPLES) {
                let mut series = Series { labels: labels.clone(), ..Series::default() };
                for (time, value, start) in part {
                    match value {
                        SeriesValue::Omitted => {}
                        SeriesValue::Float(value) => series.samples.push((*time, *value, *start)),
                        SeriesValue::Histogram { histogram, .. } => {
                            series.histograms.push((*time, (**histogram).clone().into(), *start));
                        }
                    }
                }
                if series.samples.is_empty() && series.histograms.is_empty() {
                    continue;
                }
                count += series.samples.len() + series.histograms.len();
                waiting.push(series);
                if count >= MAX_SAMPLES {
                    self.send(&waiting)?;
                    waiting.clear();
                    count = 0;
                }
            }
        }
        if waiting.is_empty() { Ok(()) } else { self.send(&waiting) }
    }

    fn query(
        &mut self,
        text: &str,
        start: i64,
        end: i64,
        step: Option<i64>,
    ) -> Result<Result<Answer, String>, String> {
        let seconds = |ms: i64| format!("{}", ms as f64 / 1000.0);
        let (path, rest) = match step {
            None => ("/api/v1/query", format!("time={}", seconds(start))),
            Some(step) => (
                "/api/v1/query_range",
                format!("start={}&end={}&step={}", seconds(start), seconds(end), seconds(step)),
            ),
        };
        let form = format!("query={}&{rest}", encoded(text));
        let tenant = self.tenant();
        let headers =
            [("Content-Type", "application/x-www-form-urlencoded"), ("X-Scope-OrgID", tenant.as_str())];
        let (status, body) =
            self.client().request("POST", path, &headers, form.as_bytes()).map_err(|e| format!("{e:#}"))?;
        let body = serde_json::from_slice(&body)
            .map_err(|e| format!("{status} {}: {e}", String::from_utf8_lossy(&body)))?;
        answer::of_json(&body)
    }

    fn refuses(&self, eval: &Eval) -> Option<String> {
        if let Some(reason) = &self.spoiled {
            return Some(format!("its series cannot be written: {reason}"));
        }
        let points = if eval.range { (eval.end - eval.start).checked_div(eval.step).unwrap_or(0) } else { 0 };
        (points >= MAX_POINTS)
            .then(|| format!("{points} points are more than the API answers ({MAX_POINTS})"))
    }
}
