//! The service's gRPC side: calls of a checked peer to a [`PeerService`], answers back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use model::seam::{BoxFuture, QueryBudget, SelectRequest, SeriesData, SeriesSource};
use model::{Code, Failure, Labels, ShardId};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::convert::{batch, report, series, status};
use crate::identity::Identity;
use crate::pace::Pace;
use crate::remote::{need_of, request_of};
use crate::service::{PeerService, ReadRefusal};
use crate::wire;
use crate::wire::peer_server::Peer;

/// Calls of one stream that are carried out at a time; more are not read meanwhile.
const RUNNING: usize = 1024;
/// Bytes of answers in one frame, about.
const FRAME_BYTES: usize = 1 << 20;
/// Bytes of series in one part, about.
const PART_BYTES: usize = 128 << 10;
/// Parts that are made ahead of a slow reader.
const PARTS_AHEAD: usize = 2;

/// Answers one connection.
pub(crate) struct Answerer {
    pub(crate) service: Arc<dyn PeerService>,
    /// Who is at the other end.
    pub(crate) peer: Identity,
    pub(crate) pace: Arc<Pace>,
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Answerer {
    type ExchangeStream = ReceiverStream<Result<wire::AnswerFrame, Status>>;
    type SelectStream = Parts<wire::SeriesPart>;
    type SnapshotStream = Parts<wire::SnapshotPart>;
    type FragmentStream = Parts<wire::FragmentPart>;

    async fn exchange(
        &self,
        request: Request<Streaming<wire::CallFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (sender, answers) = mpsc::channel(1);
        let (service, peer) = (Arc::clone(&self.service), self.peer.clone());
        tokio::runtime::Handle::current().spawn(exchange(service, peer, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn select(
        &self,
        request: Request<wire::SelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let request = request.into_inner();
        let select = selector(request.selector)?;
        let source = self.source(request.replica).await?;
        let (sender, parts) = mpsc::channel(PARTS_AHEAD);
        // When nobody reads any more, what is under way stops at its next check.
        let guard = CancelOnDrop(Arc::clone(&select.budget));
        tokio::task::spawn_blocking(move || {
            if let Err(failure) = send_series(source.as_ref(), &select, &sender) {
                // A reader that went away does not matter.
                let _ = sender.blocking_send(Err(status::to_status(&failure)));
            }
        });
        let guarded = ReceiverStream::new(parts).map(move |part| {
            let _ = &guard;
            part
        });
        Ok(Response::new(Box::pin(guarded)))
    }

    async fn look(&self, request: Request<wire::LookRequest>) -> Result<Response<wire::LookAnswer>, Status> {
        let wire::LookRequest { replica, selector: selected, what, name, limit } = request.into_inner();
        let what = wire::Look::try_from(what).unwrap_or(wire::Look::Unknown);
        let select = selector(selected)?;
        let source = self.source(replica).await?;
        let guard = CancelOnDrop(Arc::clone(&select.budget));
        let looked =
            tokio::task::spawn_blocking(move || look(source.as_ref(), &select, what, &name, limit)).await;
        drop(guard);
        match looked {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(failure)) => Err(status::to_status(&failure)),
            Err(error) => Err(internal(format!("reading labels ended early: {error}"))),
        }
    }

    async fn fragment(
        &self,
        request: Request<wire::FragmentRequest>,
    ) -> Result<Response<Self::FragmentStream>, Status> {
        let partial = self.service.fragment(self.peer.node, request.into_inner().fragment).await;
        let mut rest = Bytes::from(partial.map_err(|failure| status::to_status(&failure))?);
        // Series that travel can be more than a message may hold.
        let part = move || {
            let bytes = rest.split_to(rest.len().min(PART_BYTES));
            (!bytes.is_empty()).then_some(Ok(wire::FragmentPart { bytes }))
        };
        Ok(Response::new(Box::pin(futures::stream::iter(std::iter::from_fn(part)))))
    }

    async fn meta(&self, request: Request<wire::MetaRequest>) -> Result<Response<wire::MetaAnswer>, Status> {
        let answered = self.service.meta(&self.peer, request.into_inner().body).await;
        let body = answered.map_err(|failure| status::to_status(&failure))?.into();
        Ok(Response::new(wire::MetaAnswer { body }))
    }

    async fn snapshot(
        &self,
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let what = request.into_inner().what;
        let parts = self.service.snapshot(self.peer.node, what).await;
        let parts = parts.map_err(|failure| status::to_status(&failure))?;
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut number = 0;
            let mut give = |bytes: Vec<u8>| {
                let part = wire::SnapshotPart { number, bytes: bytes.into() };
                number += 1;
                sender.blocking_send(Ok(part)).is_ok()
            };
            if let Err(failure) = parts(&mut give) {
                // A receiver that went away does not matter.
                let _ = sender.blocking_send(Err(status::to_status(&failure)));
            }
        });
        let pace = Arc::clone(&self.pace);
        let paced = ReceiverStream::new(receiver).then(move |part| {
            let pace = Arc::clone(&pace);
            async move {
                if let Ok(part) = &part {
                    pace.take(part.bytes.len()).await;
                }
                part
            }
        });
        Ok(Response::new(Box::pin(paced)))
    }
}

impl Answerer {
    async fn source(&self, replica: Option<wire::Replica>) -> Result<Arc<dyn SeriesSource>, Status> {
        let replica = replica.ok_or_else(|| invalid("the request names no replica"))?;
        let source = self.service.replica(ShardId(replica.shard), need_of(&replica)).await;
        source.map_err(|failure| status::to_status(&failure))
    }
}

struct CancelOnDrop(Arc<QueryBudget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn invalid(message: &str) -> Status {
    status::to_status(&Failure::invalid(message))
}

fn internal(message: impl Into<String>) -> Status {
    status::to_status(&Failure::internal(message))
}

fn selector(selector: Option<wire::Selector>) -> Result<SelectRequest, Status> {
    let selector = selector.ok_or_else(|| invalid("the request has no selector"))?;
    request_of(selector).map_err(|failure| status::to_status(&failure))
}

fn send_series(
    source: &dyn SeriesSource,
    select: &SelectRequest,
    parts: &mpsc::Sender<Result<wire::SeriesPart, Status>>,
) -> Result<(), Failure> {
    let gone = || Failure::new(Code::Cancelled, "the reader of a select went away");
    let mut series = source.select(select)?;
    let mut data = SeriesData::default();
    let mut part = Vec::with_capacity(PART_BYTES + PART_BYTES / 4);
    while series.next_series(&mut data)? {
        let mut from = Some(0);
        while let Some(at) = from {
            from = series::encode(&data, at, &mut part);
            if part.len() >= PART_BYTES {
                let full = std::mem::replace(&mut part, Vec::with_capacity(PART_BYTES + PART_BYTES / 4));
                parts.blocking_send(Ok(wire::SeriesPart { series: full.into() })).map_err(|_| gone())?;
            }
        }
    }
    if !part.is_empty() {
        parts.blocking_send(Ok(wire::SeriesPart { series: part.into() })).map_err(|_| gone())?;
    }
    Ok(())
}

fn look(
    source: &dyn SeriesSource,
    select: &SelectRequest,
    what: wire::Look,
    name: &str,
    limit: u64,
) -> Result<wire::LookAnswer, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut answer = wire::LookAnswer::default();
    match what {
        wire::Look::LabelNames => answer.texts = source.label_names(select, limit)?,
        wire::Look::LabelValues => answer.texts = source.label_values(select, name, limit)?,
        wire::Look::Series => {
            let series = source.series(select, limit)?;
            answer.label_sets =
                series.iter().map(|labels| Bytes::copy_from_slice(labels.as_bytes())).collect();
        }
        wire::Look::Metadata => {
            let family = (!name.is_empty()).then_some(name);
            let metadata = source.metadata(&select.tenant, family)?.into_iter();
            answer.metadata = metadata
                .map(|of| wire::Metadata {
                    family: of.family,
                    kind: of.kind as u32,
                    help: of.help,
                    unit: of.unit,
                })
                .collect();
        }
        wire::Look::Exemplars => {
            let bytes = |labels: &Labels| Bytes::copy_from_slice(labels.as_bytes());
            let all = source.exemplars(select)?.into_iter().map(|series| wire::SeriesExemplars {
                labels: bytes(&series.labels),
                exemplars: series
                    .exemplars
                    .iter()
                    .map(|e| wire::Exemplar {
                        labels: bytes(&e.labels),
                        value: e.value,
                        timestamp: e.timestamp,
                    })
                    .collect(),
            });
            answer.exemplars = all.collect();
        }
        wire::Look::Unknown => {
            return Err(Failure::new(Code::Unimplemented, "this node does not know what is looked for"));
        }
    }
    Ok(answer)
}

/// Carries out the calls of one stream, many at a time, and answers them as they are done.
async fn exchange(
    service: Arc<dyn PeerService>,
    peer: Identity,
    mut calls: Streaming<wire::CallFrame>,
    answers: mpsc::Sender<Result<wire::AnswerFrame, Status>>,
) {
    let mut running: FuturesUnordered<BoxFuture<'_, wire::Answer>> = FuturesUnordered::new();
    let mut outbox: Vec<wire::Answer> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(answer) = running.next(), if !running.is_empty() => {
                outbox.push(answer);
                while let Some(Some(answer)) = running.next().now_or_never() {
                    outbox.push(answer);
                }
            }
            permit = answers.reserve(), if !outbox.is_empty() => match permit {
                Ok(permit) => permit.send(Ok(frame(&mut outbox))),
                // The caller went away, and takes what runs with it.
                Err(_) => return,
            },
            frame = calls.message(), if running.len() < RUNNING => match frame {
                Ok(Some(frame)) => {
                    for call in frame.calls {
                        running.push(carry_out(service.as_ref(), &peer, call));
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(peer = format!("{:016x}", peer.node.0), %status, "a peer's stream of calls ended");
                    return;
                }
            },
        }
    }
}

fn frame(outbox: &mut Vec<wire::Answer>) -> wire::AnswerFrame {
    let mut bytes = 0;
    let fits = outbox.iter().take_while(|answer| {
        let first = bytes == 0;
        bytes += answer.body.len() + 64;
        first || bytes <= FRAME_BYTES
    });
    let fits = fits.count();
    wire::AnswerFrame { answers: outbox.drain(..fits).collect() }
}

fn carry_out<'a>(
    service: &'a dyn PeerService,
    peer: &'a Identity,
    call: wire::Call,
) -> BoxFuture<'a, wire::Answer> {
    let wire::Call { id, kind, group, body, limit_ms } = call;
    let limit = Duration::from_millis(limit_ms.into());
    Box::pin(async move {
        let work = async {
            match wire::Kind::try_from(kind) {
                Ok(wire::Kind::Raft) => service.raft(peer.node, group, body).await.map(Bytes::from),
                Ok(wire::Kind::Write) => write(service, peer, group, &body, limit).await,
                Ok(wire::Kind::ReadIndex) => read_index(service, body).await,
                Ok(wire::Kind::Unknown) | Err(_) => Err(Failure::new(
                    Code::Unimplemented,
                    format!("this node does not know calls of kind {kind}"),
                )),
            }
        };
        // The caller does not wait any longer than this.
        let late = || Err(Failure::new(Code::Timeout, "the call's time was up"));
        let answer = tokio::time::timeout(limit, work).await.unwrap_or_else(|_| late());
        match answer {
            Ok(body) => wire::Answer { id, body, failure: None },
            Err(failure) => wire::Answer { id, body: Bytes::new(), failure: Some(status::to_wire(&failure)) },
        }
    })
}

async fn write(
    service: &dyn PeerService,
    peer: &Identity,
    shard: u64,
    body: &[u8],
    limit: Duration,
) -> Result<Bytes, Failure> {
    let shard = u32::try_from(shard).map_err(|_| Failure::invalid("there is no such shard"))?;
    let batch = batch::decode(body).map_err(|error| Failure::invalid(error.to_string()))?;
    let written = service.write(peer.node, ShardId(shard), batch, limit).await;
    Ok(report::encode(&written).into())
}

async fn read_index(service: &dyn PeerService, body: Bytes) -> Result<Bytes, Failure> {
    let request = wire::ReadIndexRequest::decode(body)
        .map_err(|error| Failure::invalid(format!("a request for read indexes: {error}")))?;
    let indexes = service.read_index(request.shards.into_iter().map(ShardId).collect()).await;
    let indexes = indexes.into_iter().map(|index| match index {
        Ok(index) => wire::ReadIndex { index: index.0, ..Default::default() },
        Err(ReadRefusal::NotLeader(leader)) => wire::ReadIndex {
            not_leader: true,
            leader: leader.map_or(0, |node| node.0),
            ..Default::default()
        },
        Err(ReadRefusal::Failed(failure)) => {
            wire::ReadIndex { failure: Some(status::to_wire(&failure)), ..Default::default() }
        }
    });
    Ok(wire::ReadIndexAnswer { indexes: indexes.collect() }.encode_to_vec().into())
}
