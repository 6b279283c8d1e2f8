//! Remote read (`/api/v1/read`): raw samples for other Prometheus servers, as samples in one block or as a stream of
//! chunks (upstream: `storage/remote/read_handler.go`). Errors are plain text, as readers expect here.
//!
//! Series are encoded as they come and sorted by labels before they are sent; what is held encoded counts against the
//! query's memory.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use formats::remote_read::{self, Chunk, ReadQuery, ResponseKind};
use formats::{DecodeError, snappy};
use http::{HeaderMap, header};
use model::{Labels, MatchOp, Matcher, TenantId};
use query::{Options, QueryError, Wanted};

use crate::body::{Uncompressed, read_limited};
use crate::error::{ApiError, ErrorKind};
use crate::params::{tenant, too_large};
use crate::query::Shared;
use crate::state::ApiState;

/// Bytes of a streamed piece: the frames of several small series go together.
const PIECE_BYTES: usize = 64 << 10;

pub(crate) async fn read(State(state): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match answer(&state, &parts.headers, body).await {
        Ok(response) => response,
        Err(error) => error.into_text(),
    }
}

async fn answer(state: &Arc<ApiState>, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
    let settings = &state.settings;
    let tenant = tenant(headers, state)?;
    let _place = state.reads.acquire().await.map_err(|_| ApiError::stopping())?;
    let limit = settings.max_form_bytes;
    let packed = read_limited(body, limit, settings.body_timeout).await?;
    let refused = |error: DecodeError| match error {
        DecodeError::TooLarge { what: "decompressed body in bytes", .. } => too_large(limit),
        _ => ApiError::bad_data(error.to_string()),
    };
    let body = snappy::decompress(&packed, limit).map_err(refused)?;
    let request = remote_read::decode(&body).map_err(refused)?;
    let external = (state.external_labels)();
    let wanted: Vec<Wanted> = request.queries.into_iter().map(|query| wanted(query, &external)).collect();
    match request.response {
        ResponseKind::Samples => samples(state, tenant, wanted, external).await,
        ResponseKind::Chunks => chunks(state, tenant, wanted, external).await,
    }
}

/// External labels are not stored: a matcher that asks for one by its value asks for series without that label.
fn wanted(query: ReadQuery, external: &Labels) -> Wanted {
    let ReadQuery { range, mut matchers } = query;
    for matcher in &mut matchers {
        let is_external = external.get(matcher.name()).is_some_and(|value| value == matcher.value());
        if matcher.op() == MatchOp::Equal && is_external {
            *matcher = Matcher::equal(matcher.name(), "");
        }
    }
    Wanted { matchers, range }
}

/// Encoded series of each query, by labels.
type Encoded<T> = Vec<Vec<(Labels, T)>>;

fn sorted<T>(mut all: Encoded<T>) -> Encoded<T> {
    for series in &mut all {
        series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    }
    all
}

fn empty<T>(queries: usize) -> Encoded<T> {
    std::iter::repeat_with(Vec::new).take(queries).collect()
}

async fn samples(
    state: &Arc<ApiState>,
    tenant: TenantId,
    wanted: Vec<Wanted>,
    external: Labels,
) -> Result<Response, ApiError> {
    let limit = state.settings.max_read_samples;
    let mut count = 0u64;
    let into: Encoded<Vec<u8>> = empty(wanted.len());
    let each = move |all: &mut Encoded<Vec<u8>>, index: usize, data: &model::seam::SeriesData| {
        count += data.stamps.len() as u64;
        if limit > 0 && count > limit {
            let why = format!("exceeded sample limit ({limit}, --storage.remote.read-sample-limit)");
            return Err(QueryError::Invalid(why));
        }
        let series = remote_read::time_series(data, &external);
        let kept = series.len() + data.labels.as_bytes().len();
        all[index].push((data.labels.clone(), series));
        Ok(kept as u64)
    };
    let found = state.frontend.select("remote_read", wanted, &Options::of(tenant), into, each).await?;
    let packed = tokio::task::spawn_blocking(move || {
        let strip = |series: Vec<(Labels, Vec<u8>)>| series.into_iter().map(|(_, bytes)| bytes).collect();
        let results: Vec<Vec<Vec<u8>>> = sorted(found).into_iter().map(strip).collect();
        snappy::compress(&remote_read::response(&results))
    })
    .await
    .map_err(|_| ApiError::new(ErrorKind::Internal, "encoding the answer ended in a defect of ours"))?
    .map_err(|error| ApiError::new(ErrorKind::Execution, format!("the answer is too large: {error}")))?;
    let headers =
        [(header::CONTENT_TYPE, remote_read::SAMPLES_CONTENT_TYPE), (header::CONTENT_ENCODING, "snappy")];
    Ok((headers, packed).into_response())
}

async fn chunks(
    state: &Arc<ApiState>,
    tenant: TenantId,
    wanted: Vec<Wanted>,
    external: Labels,
) -> Result<Response, ApiError> {
    let into: Encoded<Vec<Chunk>> = empty(wanted.len());
    let each = |all: &mut Encoded<Vec<Chunk>>, index: usize, data: &model::seam::SeriesData| {
        let chunks = remote_read::chunks(data);
        let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len() + size_of::<Chunk>()).sum();
        all[index].push((data.labels.clone(), chunks));
        Ok((bytes + data.labels.as_bytes().len()) as u64)
    };
    let found = state.frontend.select("remote_read", wanted, &Options::of(tenant), into, each).await?;
    let frame_bytes = state.settings.max_read_frame_bytes;
    let mut series = sorted(found)
        .into_iter()
        .enumerate()
        .flat_map(|(index, series)| series.into_iter().map(move |(labels, chunks)| (index, labels, chunks)));
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES {
            let Some((index, labels, chunks)) = series.next() else { break };
            let labels = remote_read::with_external(&labels, &external);
            remote_read::put_frames(&mut piece, &labels, &chunks, index, frame_bytes);
        }
        (!piece.is_empty()).then(|| Ok::<_, std::convert::Infallible>(Bytes::from(piece)))
    });
    let body = Body::from_stream(futures::stream::iter(pieces));
    let mut response = ([(header::CONTENT_TYPE, remote_read::CHUNKS_CONTENT_TYPE)], body).into_response();
    response.extensions_mut().insert(Uncompressed);
    Ok(response)
}
