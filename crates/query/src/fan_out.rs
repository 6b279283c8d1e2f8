//! A query over several nodes: its parts go to those that have the series, what they give is joined here, and the rest
//! is evaluated over it. A node's own shards are one place among the others.
//!
//! A place that cannot answer (no leader, another shard map) is placed anew and asked again inside the deadline; what
//! is missing then is an error that names the shards, never a smaller answer. Not here: what is pushed
//! (`engine::distribute`), how bytes travel (`ShardReader::fragment`), queries over this node alone (`frontend.rs`).

use std::sync::Arc;
use std::time::Duration;

use engine::distribute::{Fragment, Part, Partial, Plan, Push, plan, run};
use engine::{Answer, EvalContext, StepCounts};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::seam::{QueryBudget, ReadLevel, SelectRequest, ShardReader};
use model::{Epoch, Failure, Matcher, NodeId, ShardId, StepGrid, TenantId, TimeRange};
use promql::ast::Expr;
use tokio::time::Instant;

use crate::error::QueryError;
use crate::leaf::{Place, Pool};
use crate::lookup::{Ask, Lookup, Told};
use crate::metrics::Metrics;
use crate::snapshot::{self, PATIENCE};
use crate::stats::Between;
use crate::union::Union;

/// A node (`None` = this one) and the shards that it answers for.
pub(crate) type Group = (Option<NodeId>, Vec<ShardId>);

/// What a query over several nodes needs of the frontend.
pub(crate) struct FanOut<'f> {
    pub(crate) reader: &'f dyn ShardReader,
    /// Places for the part of this node.
    pub(crate) leaves: &'f Pool,
    /// Places for the root.
    pub(crate) roots: &'f Pool,
    pub(crate) metrics: &'f Metrics,
    pub(crate) tenant: &'f TenantId,
    /// The version of the shard map by which the shards were chosen.
    pub(crate) epoch: Epoch,
    pub(crate) level: ReadLevel,
    pub(crate) deadline: Instant,
    pub(crate) budget: &'f Arc<QueryBudget>,
    /// Most memory of a query, bytes; 0 = no limit.
    pub(crate) memory_bytes: u64,
}

/// Whether all shards are answered on this node.
pub(crate) fn is_here(groups: &[Group]) -> bool {
    groups.iter().all(|(node, _)| node.is_none())
}

/// What is asked of each place.
#[derive(Clone)]
enum Question {
    Parts { parts: Arc<[Part]>, context: EvalContext },
    Lookup { ask: Ask, selectors: Vec<Vec<Matcher>>, range: TimeRange, limit: usize },
}

/// What one place gave.
enum Given {
    /// Another node, in bytes.
    Bytes(Vec<u8>),
    /// This one.
    Partial(Partial),
    Told(Told),
}

/// What became of asking one place.
enum Outcome {
    Given(Given),
    /// To be asked again, by a fresh placement.
    Again {
        shards: Vec<ShardId>,
        why: String,
    },
}

/// What a query over several nodes gave, and what went between them.
pub(crate) struct Spread {
    pub(crate) answer: Answer,
    pub(crate) between: Between,
}

impl FanOut<'_> {
    /// Evaluates `expr` over the shards of `groups`. With `overlapping`, a series may have samples in several shards.
    /// Nothing when the shard map changed meanwhile: the shards are to be chosen again.
    pub(crate) async fn evaluate(
        &self,
        expr: &Expr,
        grid: StepGrid,
        context: &EvalContext,
        groups: Vec<Group>,
        overlapping: bool,
        place: Place,
    ) -> Result<Option<Spread>, QueryError> {
        let mut between = Between { nodes: groups.len() as u64, ..Between::default() };
        let mut place = Some(place);
        let mut push = if overlapping { Push::Nothing } else { Push::Everything };
        loop {
            let plan = plan(expr, grid, context, push).map_err(Failure::from)?;
            let groups = if overlapping { each_alone(&groups) } else { groups.clone() };
            let question = Question::Parts { parts: plan.parts().into(), context: context.clone() };
            let Some(given) = self.gather(&question, groups, &mut between).await? else { return Ok(None) };
            let root = match place.take() {
                Some(place) => place,
                None => self.roots.place(self.deadline).await?,
            };
            let (context, budget) = (context.clone(), Arc::clone(self.budget));
            let work = move || finish(plan, given, &context, &budget);
            let (answer, moved) = self.roots.run(root, self.deadline, self.budget, work).await?;
            between.moved_series += moved.0;
            between.moved_bytes += moved.1;
            match answer {
                Ok(answer) => return Ok(Some(Spread { answer, between })),
                Err(_) if push == Push::Everything => {
                    // The error that counts is that of an evaluation over all series.
                    push = Push::Nothing;
                    between.again = true;
                }
                Err(error) => return Err(QueryError::Execution(error)),
            }
        }
    }

    /// Asks about labels or metadata. Nothing when the shard map changed meanwhile.
    pub(crate) async fn lookup(
        &self,
        ask: Ask,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        limit: usize,
        groups: Vec<Group>,
    ) -> Result<Option<Told>, QueryError> {
        let mut told = ask.nothing();
        let question = Question::Lookup { ask, selectors, range, limit };
        let mut between = Between::default();
        let Some(all) = self.gather(&question, groups, &mut between).await? else { return Ok(None) };
        for given in all {
            let one = match given {
                Given::Bytes(bytes) => Told::decode(&bytes)?,
                Given::Told(told) => told,
                Given::Partial(_) => continue,
            };
            told = told.join(one, limit);
        }
        Ok(Some(told))
    }

    /// What each of the groups gives, all asked at once.
    async fn gather(
        &self,
        question: &Question,
        groups: Vec<Group>,
        between: &mut Between,
    ) -> Result<Option<Vec<Given>>, QueryError> {
        let patience = self.deadline.min(Instant::now() + PATIENCE);
        let mut pause = Duration::from_millis(20);
        let mut asked: FuturesUnordered<_> =
            groups.into_iter().map(|group| self.ask(question, group, Duration::ZERO)).collect();
        let mut all = Vec::new();
        while let Some((sent, outcome)) = asked.next().await {
            between.fragments += u64::from(sent > 0);
            between.fragment_bytes += sent;
            match outcome? {
                Outcome::Given(given) => {
                    if let Given::Bytes(bytes) = &given {
                        between.partial_bytes += bytes.len() as u64;
                        self.budget.charge(bytes.len() as u64)?;
                    }
                    all.push(given);
                }
                Outcome::Again { .. } if self.reader.epoch() != self.epoch => return Ok(None),
                Outcome::Again { shards, why } if Instant::now() + pause >= patience => {
                    return Err(missing(&shards, &why));
                }
                Outcome::Again { shards, .. } => {
                    self.metrics.snapshot_retries.inc();
                    between.retries += 1;
                    // A fragment for each of several versions of the map stays one for each shard.
                    let groups = self.reader.placement(&shards);
                    asked.extend(groups.into_iter().map(|group| self.ask(question, group, pause)));
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
            }
        }
        Ok(Some(all))
    }

    /// Asks one group after `pause`; also the bytes sent to another node.
    async fn ask(
        &self,
        question: &Question,
        (node, shards): Group,
        pause: Duration,
    ) -> (u64, Result<Outcome, QueryError>) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let Some(node) = node else { return (0, self.ask_here(question, &shards).await) };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let bytes = match self.bytes(question, &shards, left) {
            Ok(bytes) => bytes,
            Err(failure) => return (0, Err(failure.into())),
        };
        let sent = bytes.len() as u64;
        let outcome = match tokio::time::timeout_at(self.deadline, self.reader.fragment(node, bytes)).await {
            Ok(Ok(bytes)) => Ok(Outcome::Given(Given::Bytes(bytes))),
            Ok(Err(failure)) if snapshot::is_passing(&failure) => {
                Ok(Outcome::Again { shards, why: format!("node {node}: {}", failure.message) })
            }
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => {
                self.budget.time_out();
                Err(QueryError::Timeout("query timed out in expression evaluation".into()))
            }
        };
        (sent, outcome)
    }

    fn bytes(&self, question: &Question, shards: &[ShardId], deadline: Duration) -> Result<Vec<u8>, Failure> {
        let (tenant, shards, epoch) = (self.tenant.clone(), shards.to_vec(), self.epoch);
        match question {
            Question::Parts { parts, context } => Ok(Fragment {
                tenant,
                shards,
                epoch,
                read_level: self.level,
                deadline,
                memory_bytes: self.memory_bytes,
                lookback_ms: context.lookback_ms,
                features: context.features,
                steps: context.steps.as_deref().map(StepCounts::grid),
                parts: parts.to_vec(),
            }
            .encode()),
            Question::Lookup { ask, selectors, range, limit } => Lookup {
                ask: ask.clone(),
                tenant,
                shards,
                epoch,
                read_level: self.level,
                deadline,
                selectors: selectors.clone(),
                range: *range,
                limit: *limit,
            }
            .encode(),
        }
    }

    async fn ask_here(&self, question: &Question, shards: &[ShardId]) -> Result<Outcome, QueryError> {
        let place = self.leaves.place(self.deadline).await?;
        let taken = match snapshot::once(self.reader, shards, self.level, self.deadline).await {
            Ok(taken) => taken,
            Err(failure) if snapshot::is_passing(&failure) => {
                return Ok(Outcome::Again { shards: shards.to_vec(), why: failure.message });
            }
            Err(failure) => return Err(failure.into()),
        };
        let source = Union::new(taken, false);
        let order = shards.first().map_or(0, |shard| shard.0);
        let (question, tenant, budget) = (question.clone(), self.tenant.clone(), Arc::clone(self.budget));
        let work = move || match question {
            Question::Parts { parts, context } => Ok(Given::Partial(run(&parts, &source, &context, order)?)),
            Question::Lookup { ask, selectors, range, limit } => {
                let request = |matchers| SelectRequest {
                    tenant: tenant.clone(),
                    matchers,
                    range,
                    budget: Arc::clone(&budget),
                };
                let requests: Vec<SelectRequest> = selectors.into_iter().map(request).collect();
                Ok(Given::Told(ask.of(&source, &requests, limit)?))
            }
        };
        self.leaves.run(place, self.deadline, self.budget, work).await.map(Outcome::Given)
    }
}

/// Every shard as a place of its own, in ascending order.
fn each_alone(groups: &[Group]) -> Vec<Group> {
    groups.iter().flat_map(|(node, shards)| shards.iter().map(|shard| (*node, vec![*shard]))).collect()
}

/// The answer (or an error of evaluation) and the number and bytes of series that moved.
type Finished = (Result<Answer, String>, (u64, u64));

fn finish(
    plan: Plan,
    given: Vec<Given>,
    context: &EvalContext,
    budget: &Arc<QueryBudget>,
) -> Result<Finished, QueryError> {
    let mut all = plan.nothing(budget);
    for given in given {
        let partial = match given {
            Given::Bytes(bytes) => {
                let partial = Partial::decode(&bytes, plan.parts(), budget);
                budget.release(bytes.len() as u64);
                let partial = partial?;
                if let Some(counts) = &context.steps {
                    for (step, (all, new)) in partial.steps().iter().enumerate() {
                        counts.add(step, *all, *new);
                    }
                }
                partial
            }
            Given::Partial(partial) => partial,
            Given::Told(_) => continue,
        };
        all.absorb(partial).map_err(Failure::from)?;
    }
    let moved = all.moved();
    if let Some(error) = all.error() {
        return Ok((Err(error.to_owned()), moved));
    }
    Ok((Ok(plan.finish(all, context).map_err(Failure::from)?), moved))
}

fn missing(shards: &[ShardId], why: &str) -> QueryError {
    let names: Vec<String> = shards.iter().map(ToString::to_string).collect();
    let (word, verb) = if shards.len() == 1 { ("shard", "is") } else { ("shards", "are") };
    QueryError::Unavailable {
        message: format!("{word} {} {verb} not available: {why}", names.join(", ")),
        retry_after: Duration::from_secs(1),
    }
}
