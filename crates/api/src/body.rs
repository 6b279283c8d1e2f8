//! Bodies: reading with a limit of bytes and time, streaming in pieces, gzip.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::error::{ApiError, ErrorKind};
use crate::params::too_large;

/// Size that pieces of a streamed answer aim at: small enough to be written between two polls of other requests.
const PIECE_BYTES: usize = 64 << 10;

/// Reads a whole body: at most `limit` bytes within `patience`.
pub(crate) async fn read_limited(
    mut body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    if HttpBody::size_hint(&body).lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut all: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ApiError::bad_data(format!("error reading request body: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let held = all.len() + first.as_ref().map_or(0, Bytes::len);
            if held + data.len() > limit {
                return Err(too_large(limit));
            }
            match first.take() {
                None if all.is_empty() => first = Some(data),
                Some(before) => {
                    all.reserve(before.len() + data.len());
                    all.extend_from_slice(&before);
                    all.extend_from_slice(&data);
                }
                None => all.extend_from_slice(&data),
            }
        }
        Ok(first.unwrap_or_else(|| all.into()))
    };
    match tokio::time::timeout(patience, read).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            ErrorKind::TooSlow,
            format!("request body did not arrive within the limit of {} s", patience.as_secs()),
        )),
    }
}

/// Something that is written piece by piece.
pub(crate) trait Pieces {
    /// Appends to `out` until it holds at least `target` bytes or nothing is left; true when nothing is left.
    fn fill(&mut self, out: &mut String, target: usize) -> bool;
}

/// A JSON answer from `pieces`: with a length when it fits one piece, else streamed.
pub(crate) fn stream_json(mut pieces: impl Pieces + Send + Unpin + 'static) -> Response {
    let mut first = String::new();
    let body = if pieces.fill(&mut first, PIECE_BYTES) {
        Body::from(first)
    } else {
        Body::new(PiecesBody { first: Some(first), pieces: Some(pieces) })
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A JSON answer from a whole text.
pub(crate) fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

struct PiecesBody<P> {
    first: Option<String>,
    pieces: Option<P>,
}

impl<P: Pieces + Unpin> HttpBody for PiecesBody<P> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first.into()))));
        }
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let mut piece = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        if pieces.fill(&mut piece, PIECE_BYTES) {
            self.pieces = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }
}

/// Put into the extensions of an answer that must go out as it is: a stream that is flushed piece by piece, or bytes
/// that are dense already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uncompressed;

/// The same answer compressed, when it is worth it and not compressed yet.
pub(crate) fn gzipped(response: Response) -> Response {
    let size = HttpBody::size_hint(response.body());
    let small = size.exact().is_some_and(|bytes| bytes < 1_024);
    let as_it_is = response.extensions().get::<Uncompressed>().is_some();
    if small || as_it_is || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let encoder = GzEncoder::new(Vec::new(), Compression::new(3));
    Response::from_parts(parts, Body::new(GzipBody { body, encoder: Some(encoder) }))
}

struct GzipBody {
    body: Body,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl HttpBody for GzipBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let Some(encoder) = &mut self.encoder else { return Poll::Ready(None) };
            let compressed = match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if let Err(error) = encoder.write_all(&data) {
                        return Poll::Ready(Some(Err(axum::Error::new(error))));
                    }
                    std::mem::take(encoder.get_mut())
                }
                None => match self.encoder.take().map(GzEncoder::finish) {
                    Some(Ok(rest)) => rest,
                    Some(Err(error)) => return Poll::Ready(Some(Err(axum::Error::new(error)))),
                    None => return Poll::Ready(None),
                },
            };
            if !compressed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(compressed.into()))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    struct Numbers(u32);

    impl Pieces for Numbers {
        fn fill(&mut self, out: &mut String, target: usize) -> bool {
            while self.0 > 0 {
                if out.len() >= target {
                    return false;
                }
                out.push_str(&format!("{:09},", self.0));
                self.0 -= 1;
            }
            true
        }
    }

    async fn text(response: Response) -> Vec<u8> {
        response.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn large_answers_stream_and_compress_to_the_same_text() {
        let plain = text(stream_json(Numbers(50_000))).await;
        assert_eq!(plain.len(), 500_000);
        let packed = gzipped(stream_json(Numbers(50_000)));
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        let packed = text(packed).await;
        assert!(packed.len() < plain.len() / 2);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain);
        let small = gzipped(stream_json(Numbers(1)));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[tokio::test]
    async fn reading_stops_at_the_limit_and_at_the_time() {
        let limit = Duration::from_secs(1);
        assert_eq!(read_limited(Body::from("12345"), 5, limit).await.unwrap(), "12345");
        assert_eq!(read_limited(Body::from("123456"), 5, limit).await.unwrap_err().kind, ErrorKind::TooLarge);
        let chunks = |n: usize| {
            let chunk = |_| Ok::<_, std::io::Error>(Bytes::from_static(b"abc"));
            Body::from_stream(futures::stream::iter((0..n).map(chunk)))
        };
        assert_eq!(read_limited(chunks(3), 9, limit).await.unwrap(), "abcabcabc");
        assert_eq!(read_limited(chunks(4), 9, limit).await.unwrap_err().kind, ErrorKind::TooLarge);
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(
            read_limited(never, 9, Duration::from_millis(5)).await.unwrap_err().kind,
            ErrorKind::TooSlow
        );
    }
}
