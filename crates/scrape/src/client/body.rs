//! Reading a body with bounds: on decoded bytes, on the memory of all fetches, on the time between yields.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{FetchError, chain};

/// Bytes that each body may have without asking for a share of the common memory: most bodies never ask, so greedy
/// targets cannot make them wait.
const FREE: usize = 1 << 20;
/// The unit of shares.
const SHARE: usize = 1 << 20;
/// How long a paced reading rests after each MiB beyond the first.
const REST: Duration = Duration::from_millis(10);
/// Compressed bytes decoded between yields: at gzip's largest ratio about 1 MiB.
const SLICE: usize = 1 << 10;

/// The memory for bodies that are being read, all together.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    shares: Arc<Semaphore>,
}

impl BodyBudget {
    /// `bytes` for all bodies, besides the first MiB of each.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { shares: Arc::new(Semaphore::new((bytes / SHARE).max(64))) }
    }
}

/// Reads `body`, decompressing when `gzip`, and gives it with its shares of the memory, to be held as long as the
/// body. Fails when it has `limit` decoded bytes or more, as upstream. A `paced` one leaves the processor to others in
/// between. `progress` follows the bytes that have come.
pub(crate) async fn read(
    body: Incoming,
    gzip: bool,
    (limit, paced): (u64, bool),
    budget: &BodyBudget,
    progress: &AtomicU64,
    url: impl Fn() -> String,
) -> Result<(Vec<u8>, Vec<OwnedSemaphorePermit>), FetchError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rest_at = if paced { FREE } else { usize::MAX };
    let mut shares = Shares { budget, held: Vec::new(), rest_at, progress };
    let mut body = body;
    let out = Limited { bytes: Vec::new(), limit };
    let mut sink = if gzip { Decoder::Gzip(Box::new(MultiGzDecoder::new(out))) } else { Decoder::Plain(out) };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| FetchError::Transport { url: url(), reason: chain(&e) })?;
        let Ok(data) = frame.into_data() else { continue };
        sink.push(&data, &mut shares).await?;
    }
    Ok((sink.finish()?, shares.held))
}

/// The shares that one body holds; dropping them gives them back.
struct Shares<'a> {
    budget: &'a BodyBudget,
    held: Vec<OwnedSemaphorePermit>,
    /// The length at which to rest next.
    rest_at: usize,
    /// The length so far.
    progress: &'a AtomicU64,
}

impl Shares<'_> {
    /// Waits until a body of `len` bytes may be held. The fetch's timeout bounds the wait.
    async fn cover(&mut self, len: usize) {
        self.progress.store(len as u64, Ordering::Relaxed);
        if len >= self.rest_at {
            self.rest_at = len + SHARE;
            tokio::time::sleep(REST).await;
        }
        while FREE + self.held.len() * SHARE < len {
            // The semaphore is never closed.
            if let Ok(share) = Arc::clone(&self.budget.shares).acquire_owned().await {
                self.held.push(share);
            }
        }
    }
}

enum Decoder {
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
}

impl Decoder {
    async fn push(&mut self, data: &Bytes, shares: &mut Shares<'_>) -> Result<(), FetchError> {
        match self {
            Self::Plain(out) => {
                shares.cover(out.bytes.len() + data.len()).await;
                out.write_all(data).map_err(|_| FetchError::TooLarge)
            }
            Self::Gzip(decoder) => {
                for slice in data.chunks(SLICE) {
                    decoder.write_all(slice).map_err(|error| gzip_error(decoder.get_ref(), &error))?;
                    shares.cover(decoder.get_ref().bytes.len()).await;
                    tokio::task::consume_budget().await;
                }
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::Plain(out) => Ok(out.bytes),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) => Ok(std::mem::take(&mut decoder.get_mut().bytes)),
                Err(error) => Err(gzip_error(decoder.get_ref(), &error)),
            },
        }
    }
}

fn gzip_error(out: &Limited, error: &std::io::Error) -> FetchError {
    match out.bytes.len() >= out.limit {
        true => FetchError::TooLarge,
        false => FetchError::Gzip(error.to_string()),
    }
}

/// A buffer that refuses to become as long as its limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let room = self.limit.saturating_sub(self.bytes.len());
        let taken = data.len().min(room);
        self.bytes.extend_from_slice(&data[..taken]);
        if self.bytes.len() >= self.limit {
            return Err(std::io::Error::other("body size limit exceeded"));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
