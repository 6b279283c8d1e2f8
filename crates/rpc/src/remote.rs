//! Replicas of a shard on other nodes as a source of series.
//!
//! One of them is asked; when it fails, or says nothing for a while, the next one is asked as well, and whoever answers
//! first serves the call to its end.
//! Calls are made by tasks; the thread that computes waits for them. A select is read ahead by a few parts, whose bytes
//! are charged to the query's budget until they are taken apart. A query that is stopped, or an iterator that is
//! dropped, ends the work at the other end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource};
use model::{
    Code, Exemplar, Failure, Labels, LogIndex, MatchOp, Matcher, MetricKind, MetricMetadata, NodeId, ShardId,
    TenantId, TimeRange,
};
use tokio::sync::{mpsc, oneshot};

use crate::convert::batch::labels;
use crate::convert::{Malformed, series};
use crate::error::PeerError;
use crate::peers::{Peers, failed};
use crate::service::Need;
use crate::wire;

/// Parts of a select that are read ahead.
const PARTS_AHEAD: usize = 2;
/// How often a waiting call looks whether its query was stopped.
const LOOK: Duration = Duration::from_millis(50);

/// How long a replica may say nothing before another one is asked as well.
const HEDGE: Duration = Duration::from_millis(500);

/// A shard's replicas on other nodes.
#[derive(Clone, Debug)]
pub struct RemoteReplica {
    peers: Arc<Peers>,
    nodes: Arc<[NodeId]>,
    shard: ShardId,
    need: Need,
    /// How long the peer may take to begin to answer, and between two parts.
    silence: Duration,
}

impl RemoteReplica {
    /// The replicas of `shard` on `nodes`, best first (at least one), read once they have what is needed. Nothing is sent
    /// before the first call, each of which fails when nothing is heard for `silence`. Its methods block: not for async
    /// tasks.
    pub fn new(peers: Arc<Peers>, nodes: &[NodeId], shard: ShardId, need: Need, silence: Duration) -> Self {
        Self { peers, nodes: nodes.into(), shard, need, silence }
    }

    /// Asks one node after the other, the next one when one fails or after [`HEDGE`]; the first answer, with its node.
    async fn ask<T, F>(&self, ask: impl Fn(NodeId) -> F) -> Result<(NodeId, T), Failure>
    where
        F: Future<Output = Result<T, PeerError>>,
    {
        let begin = |node| ask(node).map(move |answer| (node, answer));
        let mut left = self.nodes.iter().copied();
        let mut asked = FuturesUnordered::new();
        let mut failure = Failure::unavailable(format!("shard {} has no replica", self.shard), LOOK);
        loop {
            if asked.is_empty() {
                let Some(node) = left.next() else { return Err(failure) };
                asked.push(begin(node));
            }
            tokio::select! {
                Some((node, answer)) = asked.next() => match answer {
                    Ok(answer) => return Ok((node, answer)),
                    Err(error) => failure = error.into(),
                },
                () = tokio::time::sleep(HEDGE), if left.len() > 0 => if let Some(node) = left.next() {
                    asked.push(begin(node));
                },
            }
        }
    }

    fn malformed(&self, what: Malformed) -> Failure {
        let nodes = self.nodes.iter().map(|node| format!("{:016x}", node.0)).collect::<Vec<_>>().join(" or ");
        PeerError::Malformed { peer: nodes, what }.into()
    }

    fn replica(&self) -> wire::Replica {
        let (applied, max_staleness_ms) = match self.need {
            Need::Applied(LogIndex(index)) => (index, 0),
            Need::MaxStaleness(age) => (0, u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1)),
        };
        wire::Replica { shard: self.shard.0, applied, max_staleness_ms }
    }

    /// Asks, and waits on this thread; ends early when the query is stopped.
    fn look(
        &self,
        selector: wire::Selector,
        budget: &Arc<QueryBudget>,
        what: wire::Look,
        name: &str,
        limit: usize,
    ) -> Result<wire::LookAnswer, Failure> {
        let request = wire::LookRequest {
            replica: Some(self.replica()),
            selector: Some(selector),
            what: what.into(),
            name: name.to_owned(),
            limit: limit as u64,
        };
        let (mut sender, receiver) = oneshot::channel();
        let (this, stop) = (self.clone(), Arc::clone(budget));
        self.peers.data().spawn(async move {
            let answer = tokio::select! {
                answer = this.ask(|node| this.peers.look(node, request.clone(), this.silence)) => answer.map(|(_, answer)| answer),
                failure = stopped(&stop) => Err(failure),
                () = sender.closed() => return,
            };
            // Who waited for it may have gone.
            let _ = sender.send(answer);
        });
        let answer = receiver
            .blocking_recv()
            .unwrap_or_else(|_| Err(Failure::internal("a task of the peer transport ended")))?;
        let texts: usize = answer.texts.iter().map(|text| text.len() + 24).sum();
        let sets: usize = answer.label_sets.iter().map(|set| set.len() + 24).sum();
        let of_series = |series: &wire::SeriesExemplars| {
            series.labels.len() + series.exemplars.iter().map(|e| e.labels.len() + 40).sum::<usize>()
        };
        let exemplars: usize = answer.exemplars.iter().map(of_series).sum();
        budget.count_received((texts + sets + exemplars) as u64);
        Ok(answer)
    }
}

/// Returns when the query is to stop, with the reason.
async fn stopped(budget: &QueryBudget) -> Failure {
    loop {
        if let Err(failure) = budget.check() {
            return failure;
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl SeriesSource for RemoteReplica {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        request.budget.check()?;
        let call =
            wire::SelectRequest { replica: Some(self.replica()), selector: Some(selector_of(request)) };
        let (sender, parts) = mpsc::channel(PARTS_AHEAD);
        let budget = Arc::clone(&request.budget);
        self.peers.data().spawn(read_ahead(self.clone(), call, Arc::clone(&budget), sender));
        Ok(Box::new(RemoteSeries { replica: self, budget, parts, part: Bytes::new(), ended: false }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        let answer = self.look(selector_of(request), &request.budget, wire::Look::Series, "", limit)?;
        let sets = answer.label_sets.iter().map(|set| labels(set));
        sets.collect::<Result<_, _>>().map_err(|what| self.malformed(what))
    }

    fn label_names(&self, request: &SelectRequest, limit: usize) -> Result<Vec<String>, Failure> {
        Ok(self.look(selector_of(request), &request.budget, wire::Look::LabelNames, "", limit)?.texts)
    }

    fn label_values(
        &self,
        request: &SelectRequest,
        name: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        Ok(self.look(selector_of(request), &request.budget, wire::Look::LabelValues, name, limit)?.texts)
    }

    fn exemplars(&self, request: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        let answer = self.look(selector_of(request), &request.budget, wire::Look::Exemplars, "", 0)?;
        let one = |e: wire::Exemplar| -> Result<Exemplar, Malformed> {
            Ok(Exemplar { labels: labels(&e.labels)?, value: e.value, timestamp: e.timestamp })
        };
        let series = |series: wire::SeriesExemplars| -> Result<SeriesExemplars, Malformed> {
            let exemplars = series.exemplars.into_iter().map(one).collect::<Result<_, _>>()?;
            Ok(SeriesExemplars { labels: labels(&series.labels)?, exemplars })
        };
        let all = answer.exemplars.into_iter().map(series).collect::<Result<_, _>>();
        all.map_err(|what| self.malformed(what))
    }

    fn metadata(&self, tenant: &TenantId, family: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        let selector = wire::Selector {
            tenant: tenant.as_str().to_owned(),
            after: i64::MIN,
            until: i64::MAX,
            ..Default::default()
        };
        let budget = QueryBudget::unlimited();
        let answer = self.look(selector, &budget, wire::Look::Metadata, family.unwrap_or_default(), 0)?;
        let metadata = answer.metadata.into_iter().map(|of| MetricMetadata {
            family: of.family,
            kind: MetricKind::from_number(of.kind.into()),
            help: of.help,
            unit: of.unit,
        });
        Ok(metadata.collect())
    }
}

/// Reads parts of a select into `parts` until its end, a failure, or nobody wants them.
async fn read_ahead(
    replica: RemoteReplica,
    call: wire::SelectRequest,
    budget: Arc<QueryBudget>,
    parts: mpsc::Sender<Result<Bytes, Failure>>,
) {
    let read = async {
        // A replica has answered once it has something to say: its first part, or that there is none.
        let begin = |node| {
            let (peers, call) = (&replica.peers, call.clone());
            async move {
                let mut stream = peers.select(node, call, replica.silence).await?;
                let peer = peers.name(node);
                let late = || PeerError::Timeout { peer: peer.clone(), after: replica.silence };
                let part =
                    tokio::time::timeout(replica.silence, stream.message()).await.map_err(|_| late())?;
                Ok((part.map_err(|status| failed(&status, peer.clone()))?, stream))
            }
        };
        let (node, (mut next, mut stream)) = replica.ask(begin).await?;
        let peer = replica.peers.name(node);
        while let Some(part) = next {
            let len = part.series.len() as u64;
            budget.count_received(len);
            if let Err(failure) = budget.charge(len) {
                budget.release(len);
                return Err(failure);
            }
            if parts.send(Ok(part.series)).await.is_err() {
                budget.release(len);
                return Ok(());
            }
            let late = || PeerError::Timeout { peer: peer.clone(), after: replica.silence };
            let part = tokio::time::timeout(replica.silence, stream.message()).await.map_err(|_| late())?;
            next = part.map_err(|status| failed(&status, peer.clone()))?;
        }
        Ok(())
    };
    let result: Result<(), Failure> = tokio::select! {
        result = read => result,
        failure = stopped(&budget) => Err(failure),
        () = parts.closed() => return,
    };
    if let Err(failure) = result {
        // Whoever read may have gone.
        let _ = parts.send(Err(failure)).await;
    }
}

/// Series as they come.
struct RemoteSeries<'a> {
    replica: &'a RemoteReplica,
    budget: Arc<QueryBudget>,
    parts: mpsc::Receiver<Result<Bytes, Failure>>,
    part: Bytes,
    ended: bool,
}

impl SeriesIter for RemoteSeries<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        let mut within = false;
        out.clear();
        loop {
            if !self.part.is_empty() {
                let mut left: &[u8] = &self.part;
                let whole = series::decode(&mut left, within, out);
                let used = self.part.len() - left.len();
                let _ = self.part.split_to(used);
                self.budget.release(used as u64);
                if whole.map_err(|what| self.replica.malformed(what))? {
                    return Ok(true);
                }
                within = true;
            }
            if self.ended {
                return Ok(false);
            }
            self.budget.check()?;
            match self.parts.blocking_recv() {
                Some(Ok(part)) => self.part = part,
                Some(Err(failure)) => {
                    self.ended = true;
                    return Err(failure);
                }
                None => {
                    self.ended = true;
                    if within {
                        let what = Malformed("a select ended in the middle of a series");
                        return Err(self.replica.malformed(what));
                    }
                    return Ok(false);
                }
            }
        }
    }
}

impl Drop for RemoteSeries<'_> {
    fn drop(&mut self) {
        self.parts.close();
        let mut left = self.part.len() as u64;
        while let Ok(Ok(part)) = self.parts.try_recv() {
            left += part.len() as u64;
        }
        self.budget.release(left);
    }
}

fn selector_of(request: &SelectRequest) -> wire::Selector {
    let matchers = request.matchers.iter().map(|matcher| wire::Matcher {
        name: matcher.name().to_owned(),
        op: match matcher.op() {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        },
        value: matcher.value().to_owned(),
    });
    wire::Selector {
        tenant: request.tenant.as_str().to_owned(),
        matchers: matchers.collect(),
        after: request.range.after,
        until: request.range.until,
        memory_limit: request.budget.limit_bytes(),
    }
}

/// The request in a selector, with a budget of its own.
pub(crate) fn request_of(selector: wire::Selector) -> Result<SelectRequest, Failure> {
    let tenant = TenantId::new(&selector.tenant).map_err(Failure::invalid)?;
    let mut matchers = Vec::with_capacity(selector.matchers.len());
    for wire::Matcher { name, op, value } in selector.matchers {
        let op = match op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            _ => {
                return Err(Failure::new(
                    Code::Unimplemented,
                    format!("this node does not know matchers of kind {op}"),
                ));
            }
        };
        let matcher = Matcher::new(name, op, value).map_err(|error| Failure::invalid(error.to_string()))?;
        matchers.push(matcher);
    }
    Ok(SelectRequest {
        tenant,
        matchers,
        range: TimeRange { after: selector.after, until: selector.until },
        budget: QueryBudget::new(selector.memory_limit),
    })
}

/// What a replica must have reached, from the wire.
pub(crate) fn need_of(replica: &wire::Replica) -> Need {
    match replica.max_staleness_ms {
        0 => Need::Applied(LogIndex(replica.applied)),
        age => Need::MaxStaleness(Duration::from_millis(age)),
    }
}
