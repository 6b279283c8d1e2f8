//! The entrance: one method for each kind of question. Parse, admit, snapshot, evaluate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use engine::{Annotation, EvalContext, StepCounts, Value};
use model::seam::{Clock, QueryBudget, ReadLevel, SelectRequest, SeriesExemplars, SeriesSource, ShardReader};
use model::{Epoch, Exemplar, Labels, Matcher, MetricMetadata, ShardId, StepGrid, TenantId, TimeRange, time};
use prometheus_client::registry::Registry;
use promql::ast::Expr;
use tokio::time::Instant;

use crate::active::{ActiveGuard, ActiveQuery, ActiveTable};
use crate::candidates::{self, Need};
use crate::config::Config;
use crate::error::QueryError;
use crate::explain;
use crate::fan_out::{FanOut, Group, is_here};
use crate::leaf::{Place, Pool};
use crate::log::{Logged, Origin, QueryLog};
use crate::lookup::{Ask, Told};
use crate::metrics::{ErrorLabel, KindLabel, Metrics};
use crate::stats::{Between, QueryStats, StepSamples, Timings};
use crate::union::Union;
use crate::{snapshot, syntax_tree};

/// Whose question, and under which limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose series.
    pub tenant: TenantId,
    /// Longest time; the configured timeout when absent or longer.
    pub timeout: Option<Duration>,
    /// Lookback of this query, ms; the configured one when absent or not positive.
    pub lookback_ms: Option<i64>,
    /// How fresh the data must be.
    pub read_level: ReadLevel,
    /// Whether start timestamps show counter resets; the configured feature when absent.
    pub use_start_timestamps: Option<bool>,
    /// Where the question came from, for the query log.
    pub origin: Option<Origin>,
    /// Count samples by step, see [`QueryStats::steps`].
    pub per_step: bool,
}

impl Options {
    /// A linearizable read of `tenant` under the configured limits.
    pub fn of(tenant: TenantId) -> Self {
        let read_level = ReadLevel::Linearizable;
        Self {
            tenant,
            timeout: None,
            lookback_ms: None,
            read_level,
            use_start_timestamps: None,
            origin: None,
            per_step: false,
        }
    }
}

/// The answer to a query.
#[derive(Debug)]
pub struct Outcome {
    /// The value; of a range query always a matrix.
    pub value: Value,
    /// Warnings and infos, each once.
    pub annotations: Vec<Annotation>,
    /// What it cost.
    pub stats: QueryStats,
}

/// The frontend. Cloning shares it.
#[derive(Clone)]
pub struct Frontend {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) reader: Arc<dyn ShardReader>,
    pub(crate) config: Config,
    subquery_step_ms: AtomicI64,
    pub(crate) clock: Arc<dyn Clock>,
    /// Evaluations; label calls have places of their own, so that completion in a page never waits for dashboards.
    evaluations: Pool,
    lookups: Pool,
    /// Parts of queries over several nodes, whoever asks; see `runner.rs` for why they are apart.
    pub(crate) leaves: Pool,
    pub(crate) active: Arc<ActiveTable>,
    log: QueryLog,
    pub(crate) metrics: Metrics,
}

/// What one call carries through its stages.
pub(crate) struct Call {
    pub(crate) tenant: TenantId,
    level: ReadLevel,
    pub(crate) deadline: Instant,
    started: Instant,
    pub(crate) budget: Arc<QueryBudget>,
    pub(crate) active: ActiveGuard,
    per_step: bool,
}

/// Samples by step, if they were counted.
fn step_samples(counts: Option<&StepCounts>) -> Vec<StepSamples> {
    let Some(counts) = counts else { return Vec::new() };
    let of = |(step, (all, new))| StepSamples { time: counts.grid().at(step), all, new };
    counts.counts().into_iter().enumerate().map(of).collect()
}

impl Frontend {
    /// A frontend over `reader`.
    pub fn new(
        reader: Arc<dyn ShardReader>,
        config: Config,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry, config.max_concurrency);
        let inner = Inner {
            reader,
            subquery_step_ms: AtomicI64::new(config.subquery_step_ms),
            clock,
            evaluations: Pool::new(config.max_concurrency, config.max_queued, metrics.clone()),
            lookups: Pool::new(config.max_concurrency, config.max_queued, metrics.clone()),
            leaves: Pool::new(config.max_concurrency, config.max_queued, metrics.clone()),
            active: Arc::new(ActiveTable::of(&config)),
            log: QueryLog::default(),
            metrics,
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Logs each query to `path` from now on (`global.query_log_file`), or no longer. The file is opened anew at each
    /// call. Fails when it cannot be opened; then the log stays as it was.
    pub fn set_query_log(&self, path: Option<&std::path::Path>) -> std::io::Result<()> {
        self.inner.log.set(path, &self.inner.metrics)
    }

    /// The pool of evaluations.
    pub(crate) fn evaluations(&self) -> &Pool {
        &self.inner.evaluations
    }

    /// Sets the step of subqueries that name none, ms (positive): `global.evaluation_interval` after a reload.
    pub fn set_subquery_step(&self, step_ms: i64) {
        self.inner.subquery_step_ms.store(step_ms.max(1), Ordering::Relaxed);
    }

    /// The value of `text` at `time_ms`.
    pub async fn instant(&self, text: &str, time_ms: i64, options: &Options) -> Result<Outcome, QueryError> {
        let run = self.evaluate("instant", text, StepGrid::instant(time_ms), time_ms, true, options);
        self.counted("instant", run).await
    }

    /// The values of `text` at `start_ms`, `start_ms + step_ms`, … up to `end_ms`. The step must be positive, the
    /// end not before the start, and the points within the limit.
    pub async fn range(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &Options,
    ) -> Result<Outcome, QueryError> {
        if step_ms <= 0 || end_ms < start_ms {
            return Err(QueryError::Invalid(
                "a range query needs a positive step and an end after its start".into(),
            ));
        }
        if (i128::from(end_ms) - i128::from(start_ms)) / i128::from(step_ms)
            > i128::from(self.inner.config.max_points)
        {
            return Err(QueryError::Invalid(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                 (?step=XX)"
                    .into(),
            ));
        }
        let grid = StepGrid::range(start_ms, end_ms, step_ms);
        let run = self.evaluate("range", text, grid, end_ms, false, options);
        self.counted("range", run).await
    }

    /// The label sets of series that match any of `selectors` (sets of matchers) and may have samples in `range`,
    /// each once; at most `limit` (0 = all).
    pub async fn series(
        &self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        options: &Options,
    ) -> Result<Vec<Labels>, QueryError> {
        let run = async {
            match self.lookup("series", Ask::Series, selectors, range, limit, options).await? {
                Told::Series(series) => Ok(series),
                Told::Strings(_) | Told::Metadata(_) => Err(unexpected()),
            }
        };
        self.counted("series", run).await
    }

    /// Label names of series that match any of `selectors` (none = every series), sorted; at most `limit` (0 = all).
    pub async fn label_names(
        &self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        options: &Options,
    ) -> Result<Vec<String>, QueryError> {
        let run = self.strings("labels", Ask::Names, selectors, range, limit, options);
        self.counted("labels", run).await
    }

    /// Values of label `name` of series that match any of `selectors` (none = every series), sorted; at most
    /// `limit` (0 = all).
    pub async fn label_values(
        &self,
        name: &str,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        options: &Options,
    ) -> Result<Vec<String>, QueryError> {
        let ask = Ask::Values(name.to_owned());
        let run = self.strings("label_values", ask, selectors, range, limit, options);
        self.counted("label_values", run).await
    }

    /// The exemplars in `range` of the series that match any of `selectors`, sorted by labels.
    pub async fn exemplars(
        &self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        options: &Options,
    ) -> Result<Vec<SeriesExemplars>, QueryError> {
        let run = async {
            let call = self.admit("exemplars", selectors_text(&selectors), options);
            until_stopped(&call.active, self.run_exemplars(&call, selectors, range)).await
        };
        self.counted("exemplars", run).await
    }

    /// Metadata of metric families (of one, when `family` is given), sorted by family.
    pub async fn metadata(
        &self,
        family: Option<&str>,
        options: &Options,
    ) -> Result<Vec<MetricMetadata>, QueryError> {
        let ask = Ask::Metadata(family.map(str::to_owned));
        let run = async {
            match self.lookup("metadata", ask, Vec::new(), TimeRange::ALL, 0, options).await? {
                Told::Metadata(all) => Ok(all),
                Told::Series(_) | Told::Strings(_) => Err(unexpected()),
            }
        };
        self.counted("metadata", run).await
    }

    /// What would be done for the query `text` at `start_ms` … `end_ms`, as JSON: its parts, what the root evaluates, and
    /// which nodes and shards would answer. Nothing is evaluated.
    pub async fn explain(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: &Options,
    ) -> Result<serde_json::Value, QueryError> {
        if step_ms <= 0 || end_ms < start_ms {
            return Err(QueryError::Invalid(
                "a step must be positive, and an end not before its start".into(),
            ));
        }
        let grid = StepGrid::range(start_ms, end_ms, step_ms);
        let expr = self.parse(text)?;
        let budget = QueryBudget::new(self.inner.config.max_memory_bytes);
        let context = self.context(options, end_ms, false, budget);
        let (groups, overlapping) = self.places(&expr, grid, &context);
        explain::explain(&expr, grid, &context, &groups, overlapping)
    }

    /// The queries under way, oldest first.
    pub fn active(&self) -> Vec<ActiveQuery> {
        self.inner.active.list()
    }

    /// Cancels query `id`; false when there is no such query.
    pub fn cancel(&self, id: u64) -> bool {
        self.inner.active.cancel(id)
    }

    /// The expression of `text`, under the parser's limits.
    fn parse(&self, text: &str) -> Result<Expr, QueryError> {
        promql::parse(text, &self.inner.config.parser).map_err(|e| QueryError::Parse(e.to_string()))
    }

    /// The matchers of a selector such as `up{job="a"}`.
    pub fn parse_selector(&self, text: &str) -> Result<Vec<Matcher>, QueryError> {
        promql::parse_selector(text, &self.inner.config.parser).map_err(|e| QueryError::Parse(e.to_string()))
    }

    /// The matchers of each selector of the expression `text`, in its order.
    pub fn selectors(&self, text: &str) -> Result<Vec<Vec<Matcher>>, QueryError> {
        let expr = self.parse(text)?;
        let needs = candidates::needs(&expr, StepGrid::instant(0), 0, 0, 1);
        Ok(needs.iter().map(|need| need.matchers.to_vec()).filter(|matchers| !matchers.is_empty()).collect())
    }

    /// `text` in canonical form over several lines.
    pub fn format(&self, text: &str) -> Result<String, QueryError> {
        Ok(promql::prettify(&self.parse(text)?))
    }

    /// The syntax tree of `text` as JSON, in upstream's shape.
    pub fn syntax_tree(&self, text: &str) -> Result<serde_json::Value, QueryError> {
        Ok(syntax_tree::json(&self.parse(text)?))
    }

    async fn evaluate(
        &self,
        kind: &'static str,
        text: &str,
        grid: StepGrid,
        end_ms: i64,
        is_instant: bool,
        options: &Options,
    ) -> Result<Outcome, QueryError> {
        let call = self.admit(kind, text.to_owned(), options);
        let expr = self.parse(text)?;
        let run = self.run(&call, expr, grid, end_ms, is_instant, options);
        let result = until_stopped(&call.active, run).await.map_err(|error| self.with_limit(error, options));
        if self.inner.log.is_on() {
            self.log(&call, text, grid, end_ms, options, &result);
        }
        result
    }

    /// A timeout that says how long it was, and who set it.
    fn with_limit(&self, error: QueryError, options: &Options) -> QueryError {
        let QueryError::Timeout(message) = error else { return error };
        let limit = self.inner.config.timeout;
        let (taken, by) = match options.timeout {
            Some(asked) if asked < limit => (asked, "the request's timeout"),
            _ => (limit, "--query.timeout"),
        };
        let taken = time::format_duration(i64::try_from(taken.as_millis()).unwrap_or(i64::MAX));
        QueryError::Timeout(format!("{message}: limit {taken} ({by})"))
    }

    fn log(
        &self,
        call: &Call,
        text: &str,
        grid: StepGrid,
        end_ms: i64,
        options: &Options,
        result: &Result<Outcome, QueryError>,
    ) {
        let stats = match result {
            Ok(outcome) => outcome.stats.clone(),
            Err(_) => QueryStats {
                timings: Timings { exec_total: call.started.elapsed().as_secs_f64(), ..Timings::default() },
                samples: call.budget.samples(),
                peak_bytes: call.budget.peak_bytes(),
                ..QueryStats::default()
            },
        };
        let logged = Logged {
            now_ms: self.inner.clock.now_ms(),
            query: text,
            tenant: call.tenant.as_str(),
            start_ms: grid.start,
            end_ms,
            step_ms: if grid.count > 1 { grid.step } else { 0 },
            origin: options.origin.as_ref(),
            error: result.as_ref().err(),
            stats: &stats,
        };
        self.inner.log.write(&logged, &self.inner.metrics);
    }

    async fn run(
        &self,
        call: &Call,
        expr: Expr,
        grid: StepGrid,
        end_ms: i64,
        is_instant: bool,
        options: &Options,
    ) -> Result<Outcome, QueryError> {
        let inner = &self.inner;
        let parsed = call.started.elapsed();

        let place = inner.evaluations.place(call.deadline).await?;
        let queue = place.waited;
        inner.metrics.queue.observe(queue.as_secs_f64());

        let preparing = Instant::now();
        let context = self.context(options, end_ms, is_instant, Arc::clone(&call.budget));
        let mut place = Some(place);
        let steps = call.per_step.then(|| Arc::new(StepCounts::new(grid)));
        let context = EvalContext { steps: steps.clone(), ..context };
        let (answer, between, shards, prepared, evaluated) = loop {
            let place = match place.take() {
                Some(place) => place,
                None => inner.evaluations.place(call.deadline).await?,
            };
            let epoch = inner.reader.epoch();
            let (groups, overlapping) = self.places(&expr, grid, &context);
            let shards: u64 = groups.iter().map(|(_, shards)| shards.len() as u64).sum();
            if is_here(&groups) {
                let here: Vec<ShardId> = groups.into_iter().flat_map(|(_, shards)| shards).collect();
                let source = self.source(&here, overlapping, call).await?;
                let prepared = preparing.elapsed();
                let evaluating = Instant::now();
                let answer = self.evaluate_here(place, expr, grid, source, context, call).await?;
                break (answer, Between::default(), shards, prepared, evaluating.elapsed());
            }
            let prepared = preparing.elapsed();
            let evaluating = Instant::now();
            let fan = self.fan_out(call, epoch);
            let spread = fan.evaluate(&expr, grid, &context, groups, overlapping, place).await?;
            // Nothing: the shard map changed, the shards are chosen again.
            if let Some(spread) = spread {
                break (spread.answer, spread.between, shards, prepared, evaluating.elapsed());
            }
        };

        inner.metrics.samples.inc_by(call.budget.samples());
        let stats = QueryStats {
            timings: Timings {
                eval_total: (parsed + prepared + evaluated).as_secs_f64(),
                result_sort: 0.0,
                preparation: prepared.as_secs_f64(),
                inner_eval: evaluated.as_secs_f64(),
                queue: queue.as_secs_f64(),
                exec_total: call.started.elapsed().as_secs_f64(),
            },
            samples: call.budget.samples(),
            peak_bytes: call.budget.peak_bytes(),
            shards,
            between,
            steps: step_samples(steps.as_deref()),
        };
        let annotations = answer.annotations.iter().cloned().collect();
        Ok(Outcome { value: answer.value, annotations, stats })
    }

    /// Evaluates over this node's shards alone, as one source.
    async fn evaluate_here(
        &self,
        place: Place,
        expr: Expr,
        grid: StepGrid,
        source: Union,
        context: EvalContext,
        call: &Call,
    ) -> Result<engine::Answer, QueryError> {
        let work = move || {
            let answer = engine::evaluate(&expr, grid, &source, &context);
            answer.map_err(|e| QueryError::from(model::Failure::from(e)))
        };
        self.inner.evaluations.run(place, call.deadline, &call.budget, work).await
    }

    fn context(
        &self,
        options: &Options,
        end_ms: i64,
        is_instant: bool,
        budget: Arc<QueryBudget>,
    ) -> EvalContext {
        let inner = &self.inner;
        let mut features = inner.config.features;
        if let Some(on) = options.use_start_timestamps {
            features.use_start_timestamps = on;
        }
        EvalContext {
            tenant: options.tenant.clone(),
            lookback_ms: options.lookback_ms.filter(|ms| *ms > 0).unwrap_or(inner.config.lookback_ms),
            subquery_step_ms: inner.subquery_step_ms.load(Ordering::Relaxed),
            end_ms,
            is_instant,
            features,
            budget,
            steps: None,
        }
    }

    /// The places that answer a query, and whether a series may have samples in several shards.
    fn places(&self, expr: &Expr, grid: StepGrid, context: &EvalContext) -> (Vec<Group>, bool) {
        let reader = self.inner.reader.as_ref();
        let EvalContext { lookback_ms, subquery_step_ms, end_ms, .. } = *context;
        let needs = candidates::needs(expr, grid, end_ms, lookback_ms, subquery_step_ms);
        self.placed(reader, &context.tenant, &needs)
    }

    fn placed(&self, reader: &dyn ShardReader, tenant: &TenantId, needs: &[Need<'_>]) -> (Vec<Group>, bool) {
        let shards = candidates::shards(reader, tenant, needs);
        let overlapping = shards.len() > 1 && reader.overlapping(candidates::hull(needs));
        (reader.placement(&shards), overlapping)
    }

    fn fan_out<'f>(&'f self, call: &'f Call, epoch: Epoch) -> FanOut<'f> {
        let inner = &self.inner;
        FanOut {
            reader: inner.reader.as_ref(),
            leaves: &inner.leaves,
            roots: &inner.evaluations,
            metrics: &inner.metrics,
            tenant: &call.tenant,
            epoch,
            level: call.level,
            deadline: call.deadline,
            budget: &call.budget,
            memory_bytes: inner.config.max_memory_bytes,
        }
    }

    async fn strings(
        &self,
        kind: &'static str,
        ask: Ask,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        options: &Options,
    ) -> Result<Vec<String>, QueryError> {
        match self.lookup(kind, ask, selectors, range, limit, options).await? {
            Told::Strings(strings) => Ok(strings),
            Told::Series(_) | Told::Metadata(_) => Err(unexpected()),
        }
    }

    /// Runs a label call, with one request for each selector (one without matchers when there is none).
    async fn lookup(
        &self,
        kind: &'static str,
        ask: Ask,
        mut selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        options: &Options,
    ) -> Result<Told, QueryError> {
        if selectors.is_empty() {
            selectors.push(Vec::new());
        }
        let call = self.admit(kind, selectors_text(&selectors), options);
        until_stopped(&call.active, self.run_lookup(&call, ask, selectors, range, limit)).await
    }

    async fn run_lookup(
        &self,
        call: &Call,
        ask: Ask,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
    ) -> Result<Told, QueryError> {
        let inner = &self.inner;
        let place = inner.lookups.place(call.deadline).await?;
        loop {
            let epoch = inner.reader.epoch();
            let needs: Vec<Need<'_>> = selectors.iter().map(|matchers| Need { matchers, range }).collect();
            let (groups, overlapping) = self.placed(inner.reader.as_ref(), &call.tenant, &needs);
            if is_here(&groups) {
                let here: Vec<ShardId> = groups.into_iter().flat_map(|(_, shards)| shards).collect();
                let source = self.source(&here, overlapping, call).await?;
                let request = |matchers| SelectRequest {
                    tenant: call.tenant.clone(),
                    matchers,
                    range,
                    budget: Arc::clone(&call.budget),
                };
                let requests: Vec<SelectRequest> = selectors.into_iter().map(request).collect();
                let work = move || Ok(ask.of(&source, &requests, limit)?);
                return inner.lookups.run(place, call.deadline, &call.budget, work).await;
            }
            let fan = self.fan_out(call, epoch);
            if let Some(told) = fan.lookup(ask.clone(), selectors.clone(), range, limit, groups).await? {
                return Ok(told);
            }
        }
    }

    pub(crate) fn admit(&self, kind: &'static str, text: String, options: &Options) -> Call {
        let inner = &self.inner;
        let limit = inner.config.timeout;
        let started = Instant::now();
        let budget = QueryBudget::new(inner.config.max_memory_bytes);
        let now_ms = inner.clock.now_ms();
        let active = inner.active.enter(options.tenant.clone(), kind, text, now_ms, Arc::clone(&budget));
        Call {
            tenant: options.tenant.clone(),
            level: options.read_level,
            deadline: started + options.timeout.map_or(limit, |asked| asked.min(limit)),
            started,
            budget,
            active,
            per_step: options.per_step,
        }
    }

    async fn run_exemplars(
        &self,
        call: &Call,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
    ) -> Result<Vec<SeriesExemplars>, QueryError> {
        let lookups = &self.inner.lookups;
        let place = lookups.place(call.deadline).await?;
        let needs: Vec<Need<'_>> = selectors.iter().map(|matchers| Need { matchers, range }).collect();
        let source = self.anywhere(&needs, call).await?;
        let (tenant, budget) = (call.tenant.clone(), Arc::clone(&call.budget));
        let work = move || {
            let mut all: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
            for matchers in selectors {
                let request =
                    SelectRequest { tenant: tenant.clone(), matchers, range, budget: Arc::clone(&budget) };
                all.extend(source.exemplars(&request)?.into_iter().map(|s| (s.labels, s.exemplars)));
            }
            let series = |(labels, exemplars)| SeriesExemplars { labels, exemplars };
            Ok(all.into_iter().map(series).collect())
        };
        lookups.run(place, call.deadline, &call.budget, work).await
    }

    /// Snapshots of the shards that `needs` ask for, wherever these are: series of other nodes come over the wire.
    pub(crate) async fn anywhere(&self, needs: &[Need<'_>], call: &Call) -> Result<Union, QueryError> {
        let reader = self.inner.reader.as_ref();
        let shards = candidates::shards(reader, &call.tenant, needs);
        let overlapping = shards.len() > 1 && reader.overlapping(candidates::hull(needs));
        self.source(&shards, overlapping, call).await
    }

    pub(crate) async fn source(
        &self,
        shards: &[ShardId],
        overlapping: bool,
        call: &Call,
    ) -> Result<Union, QueryError> {
        let inner = &self.inner;
        let taken =
            snapshot::take(inner.reader.as_ref(), shards, call.level, call.deadline, &inner.metrics).await?;
        Ok(Union::new(taken, overlapping))
    }

    pub(crate) async fn counted<T>(
        &self,
        kind: &'static str,
        run: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        struct Running<'a>(&'a Metrics);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.dec();
            }
        }
        let metrics = &self.inner.metrics;
        let started = Instant::now();
        metrics.running.inc();
        let _running = Running(metrics);
        let result = run.await;
        metrics.duration.get_or_create(&KindLabel { kind }).observe(started.elapsed().as_secs_f64());
        if let Err(error) = &result {
            metrics.failures.get_or_create(&ErrorLabel { error: error.kind() }).inc();
        }
        result
    }
}

/// Runs a query until it ends or an operator cancels it.
pub(crate) async fn until_stopped<T>(
    active: &ActiveGuard,
    run: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    tokio::select! {
        result = run => result,
        () = active.stopped.cancelled() => {
            Err(QueryError::Cancelled("query was canceled in expression evaluation".into()))
        }
    }
}

fn unexpected() -> QueryError {
    QueryError::Internal("a lookup was answered by another kind of answer".into())
}

pub(crate) fn selectors_text<S: AsRef<[Matcher]>>(selectors: &[S]) -> String {
    let one = |matchers: &S| {
        let inside: Vec<String> = matchers.as_ref().iter().map(ToString::to_string).collect();
        format!("{{{}}}", inside.join(","))
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(" ")
}
