//! The life of one target: wait for its phase, scrape at every interval, end.
//!
//! A failed scrape writes `up` 0 and nothing else: the batch is complete, so the leader marks the rest stale. A
//! removed target writes an empty complete batch, later, and only when it has not come back. At shutdown nothing is
//! written.

use std::sync::Arc;
use std::time::Duration;

use formats::negotiate::{accept_header, scrape_format};
use futures::FutureExt as _;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderName, HeaderValue};
use model::MetricMetadata;
use model::seam::{RejectReason, ScrapeMark, WriteReport};
use parking_lot::Mutex;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::append::{Appended, Scraped, append};
use crate::cache::SeriesCache;
use crate::client::{Answer, Fetch, FetchError, Url};
use crate::config::{DEFAULT_BODY_LIMIT, JobConfig};
use crate::manager::Shared;
use crate::own::{OwnAnswer, OwnMetrics};
use crate::pool::{PoolShared, Runtime};
use crate::report::{Extra, Report, ReportLabels, batch, ended_batch};
use crate::schedule::{Grid, first_offset};
use crate::target::Target;

/// Bodies up to this size are parsed where they arrive (about a millisecond); larger ones on a blocking thread.
const INLINE_BYTES: usize = 128 << 10;
/// Bodies over this size are parsed one at a time on a node.
const HUGE_BYTES: usize = 4 << 20;

/// Bytes that are read of a body while its target is known for bodies over the limit: more than most targets have.
const GLANCE_BYTES: u64 = 1 << 20;
/// Scrapes between the first body over the limit and the next reading up to the limit.
const FIRST_PAUSE: u32 = 8;
/// The most scrapes between two such readings.
const MAX_PAUSE: u32 = 32;

/// Whether a target is known for bodies over the limit, or for large ones that do not come in time. Reading so much at
/// each scrape would cost the scrapes of others, so of such a target that is done only once in a while; in between a
/// scrape fails as soon as the body is no small one.
#[derive(Debug, Default)]
struct Oversize {
    /// Large bodies in a row that did not come in time.
    late: u32,
    /// Scrapes between readings; 0 when it is not known for anything.
    pause: u32,
    /// Scrapes left until the next reading.
    left: u32,
    /// Why the last reading failed.
    why: String,
}

impl Oversize {
    /// How much of a body is read now, under the job's `limit`.
    fn limit(&self, limit: u64) -> u64 {
        if self.left > 0 { limit.min(GLANCE_BYTES) } else { limit }
    }

    /// Whether it is likely to be too large again.
    fn is_known(&self) -> bool {
        self.pause > 0
    }

    /// Takes note of a scrape that failed, and gives the text of its error. A single large body that is late may be one of
    /// a network that stalled, so it counts for nothing yet.
    fn failed(&mut self, error: &FetchError) -> String {
        let too_large = matches!(error, FetchError::TooLarge);
        let late =
            matches!(error, FetchError::Timeout { read, .. } if self.is_known() || *read > GLANCE_BYTES);
        if too_large && self.left > 0 {
            self.left -= 1;
            return self.why.clone();
        }
        if too_large || late {
            self.late += u32::from(late);
            self.why = error.to_string();
            self.pause = match self.pause {
                0 if too_large => FIRST_PAUSE,
                0 => u32::from(self.late > 1),
                pause => (pause * 2).min(MAX_PAUSE),
            };
            self.left = self.pause;
        }
        error.to_string()
    }
}

/// What the last scrape of a target was like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Start of the last scrape, ms; 0 = none yet.
    pub(crate) last_scrape_ms: i64,
    /// How long it took, seconds.
    pub(crate) duration: f64,
    /// What went wrong, empty when nothing did.
    pub(crate) error: String,
    /// Metadata of its families, by family.
    pub(crate) metadata: Vec<Arc<MetricMetadata>>,
}

/// A target that is being scraped.
pub(crate) struct TargetLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<PoolShared>,
    pub(crate) target: Arc<Target>,
    pub(crate) health: Arc<Mutex<Health>>,
    /// The target has been removed.
    pub(crate) stop: CancellationToken,
}

impl TargetLoop {
    /// Scrapes until the target is removed. At shutdown it is dropped wherever it is.
    pub(crate) async fn run(self) {
        let clock = &self.shared.clock;
        let interval = self.target.interval;
        let offset = first_offset(clock.now_ms(), interval, self.target.key, self.shared.options.offset_seed);
        tokio::select! {
            () = tokio::time::sleep(offset) => {}
            () = self.stop.cancelled() => return,
        }
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut grid = Grid::new(clock.now_ms(), interval);
        let mut scraper = match Scraper::new(&self) {
            Ok(scraper) => scraper,
            Err(error) => {
                self.health.lock().error = error;
                return;
            }
        };
        let mut scraped = false;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let timestamp = grid.timestamp(clock.now_ms());
            let scrape = std::panic::AssertUnwindSafe(scraper.scrape(timestamp)).catch_unwind().await;
            scraped = true;
            if scrape.is_err() {
                self.shared.metrics.failures.inc();
                tracing::error!(job = %self.pool.name, url = %self.target.url, "a scrape panicked; its cache is dropped");
                self.health.lock().error = "internal error: the scrape panicked".into();
                scraper.cache = SeriesCache::default();
            }
        }
        if scraped {
            self.end(&mut ticks).await;
        }
    }

    /// Writes the mark of an ended target, as upstream a little more than two intervals later: until then it may
    /// come back.
    async fn end(&self, ticks: &mut Interval) {
        ticks.tick().await;
        let timestamp = self.shared.clock.now_ms();
        ticks.tick().await;
        tokio::time::sleep(self.target.interval / 10).await;
        if self.shared.is_active(self.target.id) {
            return;
        }
        let mark = ScrapeMark { target: self.target.id, timestamp };
        let written = self.shared.sink.write(ended_batch(&self.shared.options.tenant, mark)).await;
        if let Err(error) = written {
            self.shared.metrics.write_failures.inc();
            tracing::warn!(job = %self.pool.name, url = %self.target.url, %error, "cannot mark an ended target");
        }
    }
}

/// What one target needs for a scrape, kept from scrape to scrape.
pub(crate) struct Scraper {
    shared: Arc<Shared>,
    pool: Arc<PoolShared>,
    target: Arc<Target>,
    health: Arc<Mutex<Health>>,
    runtime: Arc<Runtime>,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    labels: ReportLabels,
    cache: SeriesCache,
    oversize: Oversize,
}

/// A body as read, or why there is none, and how large it was.
struct Outcome {
    appended: Appended,
    error: Option<String>,
    body_bytes: f64,
}

impl Scraper {
    /// A scraper with an empty cache; fails on a target whose URL or labels cannot be used at all.
    pub(crate) fn new(of: &TargetLoop) -> Result<Self, String> {
        let runtime = of.pool.runtime.load_full();
        Ok(Self {
            shared: Arc::clone(&of.shared),
            pool: Arc::clone(&of.pool),
            target: Arc::clone(&of.target),
            health: Arc::clone(&of.health),
            url: Url::parse(&of.target.url)?,
            headers: headers(&runtime.job, of.target.timeout)?,
            labels: ReportLabels::new(&of.target.labels).map_err(|e| e.to_string())?,
            cache: SeriesCache::default(),
            oversize: Oversize::default(),
            runtime,
        })
    }

    /// One scrape: fetches, reads, reports, writes.
    pub(crate) async fn scrape(&mut self, timestamp: i64) {
        self.follow_reload();
        let shared = Arc::clone(&self.shared);
        let started = shared.clock.monotonic();
        let mut outcome = self.fetch_and_append(timestamp).await;
        let duration = (shared.clock.monotonic() - started).as_secs_f64();
        shared.metrics.scrapes.inc();
        shared.metrics.duration.observe(duration);
        shared.metrics.duplicates.inc_by(outcome.appended.duplicates);
        shared.metrics.out_of_bounds.inc_by(outcome.appended.out_of_bounds);

        let job = &self.runtime.job;
        let report = Report {
            up: outcome.error.is_none(),
            duration,
            scraped: outcome.appended.scraped,
            after_relabelling: outcome.appended.after_relabelling,
            series_added: outcome.appended.series_added,
            extra: job.extra_scrape_metrics.then(|| Extra {
                timeout: self.target.timeout.as_secs_f64(),
                sample_limit: job.sample_limit,
                body_bytes: outcome.body_bytes,
            }),
        };
        let mut label_bytes = self.cache.label_bytes();
        if let Some(error) = &outcome.error {
            shared.metrics.failures.inc();
            tracing::debug!(job = %self.pool.name, url = %self.target.url, %error, "scrape failed");
            outcome.appended = Appended::default();
            label_bytes = &[];
        }
        {
            let mut health = self.health.lock();
            (health.last_scrape_ms, health.duration) = (timestamp, duration);
            health.error = outcome.error.take().unwrap_or_default();
        }
        let mark = ScrapeMark { target: self.target.id, timestamp };
        let mut batch =
            batch(&shared.options.tenant, mark, label_bytes, outcome.appended, &self.labels, &report);
        if report.up {
            batch.metadata = self.cache.take_unsent();
        }
        // The cache is settled only now: the batch has copied the labels that it is about to move.
        if self.cache.finish(report.up) {
            shared.metrics.cache_flushes.inc();
        }
        if !batch.metadata.is_empty() || self.health.lock().metadata.len() != self.cache.metadata_len() {
            let metadata = self.cache.metadata();
            self.health.lock().metadata = metadata;
        }
        match shared.sink.write(batch).await {
            Ok(written) => self.count_rejections(&written),
            Err(error) => {
                self.cache.resend_metadata();
                shared.metrics.write_failures.inc();
                tracing::warn!(job = %self.pool.name, url = %self.target.url, %error, "a scrape was not stored");
            }
        }
    }

    /// Takes over the job's configuration when it was reloaded. Labels may now differ, so the cache starts anew.
    fn follow_reload(&mut self) {
        let runtime = self.pool.runtime.load_full();
        if Arc::ptr_eq(&runtime, &self.runtime) {
            return;
        }
        if !same_labels(&runtime.job, &self.runtime.job) {
            self.cache = SeriesCache::default();
        }
        if runtime.job.body_size_limit != self.runtime.job.body_size_limit {
            self.oversize = Oversize::default();
        }
        match headers(&runtime.job, self.target.timeout) {
            Ok(headers) => self.headers = headers,
            Err(error) => {
                tracing::warn!(job = %self.pool.name, %error, "cannot build the headers of a scrape")
            }
        }
        self.runtime = runtime;
    }

    async fn fetch_and_append(&mut self, timestamp: i64) -> Outcome {
        self.cache.begin();
        let failed = |error: String, body_bytes: f64| Outcome {
            appended: Appended::default(),
            error: Some(error),
            body_bytes,
        };
        if let Some(error) = self.target.unsupported.clone().or_else(|| self.pool.forced_error()) {
            return failed(error, 0.0);
        }
        let job = Arc::clone(&self.runtime.job);
        let body_limit = if job.body_size_limit == 0 { DEFAULT_BODY_LIMIT } else { job.body_size_limit };
        let fetch = Fetch {
            url: &self.url,
            headers: &self.headers,
            body_limit: self.oversize.limit(body_limit),
            paced: self.oversize.is_known(),
            timeout: self.target.timeout,
        };
        let fetched = match self.shared.options.own.as_ref().filter(|_| job.own) {
            Some(own) => self.ask(own),
            None => self.runtime.client.fetch(&fetch).await,
        };
        let answer = match fetched {
            Ok(answer) => {
                self.oversize = Oversize::default();
                answer
            }
            Err(error) => {
                let too_large = matches!(error, FetchError::TooLarge);
                let text = self.oversize.failed(&error);
                self.shared.metrics.body_limit.inc_by(u64::from(too_large));
                return failed(text, if too_large { -1.0 } else { 0.0 });
            }
        };
        let body_bytes = answer.body.len() as f64;
        match self.append(answer, timestamp, job).await {
            Ok((appended, error)) => Outcome { appended, error, body_bytes },
            Err(error) => failed(error, body_bytes),
        }
    }

    /// What the node's own `/metrics` shows.
    fn ask(&self, own: &OwnMetrics) -> Result<Answer, FetchError> {
        let accept = self.headers.iter().find(|(name, _)| name == ACCEPT);
        let accept = accept.and_then(|(_, value)| value.to_str().ok()).unwrap_or("");
        let OwnAnswer { content_type, body } = own.ask(accept).map_err(FetchError::Own)?;
        Ok(Answer::own(content_type, body))
    }

    /// Reads a body: at once when it is small, else on a blocking thread, so that it delays no other target.
    async fn append(
        &mut self,
        answer: Answer,
        timestamp: i64,
        job: Arc<JobConfig>,
    ) -> Result<(Appended, Option<String>), String> {
        if answer.body.is_empty() {
            return Ok((Appended::default(), None));
        }
        let (format, warning) =
            scrape_format(&answer.content_type, job.fallback_protocol).map_err(|e| e.to_string())?;
        if let Some(warning) = warning {
            tracing::debug!(job = %self.pool.name, url = %self.target.url, %warning, "unusual content type");
        }
        let metrics = self.shared.metrics.clone();
        let read = move |cache: &mut SeriesCache, target: &Target, answer: &Answer| {
            let scraped = Scraped {
                body: &answer.body,
                format,
                timestamp,
                histograms: target.histograms,
                target: &target.labels,
            };
            let (appended, result) = append(&scraped, &job, cache);
            let error = result.err().map(|error| {
                metrics.count_append_error(&error);
                error.to_string()
            });
            (appended, error)
        };
        if answer.body.len() <= INLINE_BYTES {
            return Ok(read(&mut self.cache, &self.target, &answer));
        }
        let huge = answer.body.len() > HUGE_BYTES;
        let slots = if huge { &self.shared.huge_slots } else { &self.shared.parse_slots };
        let _slot = slots.acquire().await.map_err(|e| e.to_string())?;
        let mut cache = std::mem::take(&mut self.cache);
        let target = Arc::clone(&self.target);
        let work = tokio::task::spawn_blocking(move || {
            let outcome = read(&mut cache, &target, &answer);
            (cache, outcome)
        });
        let (cache, outcome) = work.await.map_err(|e| format!("internal error: {e}"))?;
        self.cache = cache;
        Ok(outcome)
    }

    fn count_rejections(&self, written: &WriteReport) {
        let metrics = &self.shared.metrics;
        for (reason, count) in &written.rejected {
            metrics.rejected.inc_by(*count);
            match reason {
                RejectReason::DuplicateTimestamp => metrics.duplicates.inc_by(*count),
                RejectReason::OutOfOrder => metrics.out_of_order.inc_by(*count),
                RejectReason::TooOld | RejectReason::TooFarAhead => metrics.out_of_bounds.inc_by(*count),
                _ => 0,
            };
        }
        if let Some(first) = written.first_reasons.first() {
            tracing::debug!(job = %self.pool.name, url = %self.target.url, reason = %first, "samples were rejected");
        }
    }
}

/// Whether the same exposed text gives the same labels under both configurations.
fn same_labels(a: &JobConfig, b: &JobConfig) -> bool {
    (a.honor_labels, a.name_scheme, &a.metric_relabel) == (b.honor_labels, b.name_scheme, &b.metric_relabel)
        && (a.label_limit, a.label_name_length_limit, a.label_value_length_limit)
            == (b.label_limit, b.label_name_length_limit, b.label_value_length_limit)
}

fn headers(job: &JobConfig, timeout: Duration) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
    Ok(vec![
        (ACCEPT, value(&accept_header(&job.protocols, job.escaping.as_str()))?),
        (ACCEPT_ENCODING, HeaderValue::from_static(if job.enable_compression { "gzip" } else { "identity" })),
        (
            HeaderName::from_static("x-prometheus-scrape-timeout-seconds"),
            value(&model::number::format_float(timeout.as_secs_f64()))?,
        ),
    ])
}

#[cfg(test)]
mod tests;
