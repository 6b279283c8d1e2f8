//! From the body of one scrape to series and samples: the cache, target labels, metric relabelling, limits.
//!
//! A function of its arguments; what it counts and which errors end a scrape follow upstream's `scrapeLoop.append`.

use std::sync::Arc;

use formats::buckets::{MAX_SCHEMA, limit_buckets, reduce_resolution, schema_for_factor};
use formats::negotiate::ExpositionFormat;
use formats::protobuf::{self, FoundExemplar, Histograms, Item, Value};
use formats::text::custom::{Converted, CustomBuckets};
use formats::text::{Entry, ExemplarEntry, Parser, SeriesEntry, TextFormat, series_labels};
use model::relabel::{NameScheme, relabel};
use model::seam::BatchSeries;
use model::{Exemplar, Histogram, Labels, LabelsBuilder, METRIC_NAME, MetricKind, MetricMetadata, Sample};

use crate::cache::{MAX_LABEL_BYTES, Meaning, SeriesCache};
use crate::config::JobConfig;

/// Samples further ahead than this are refused, ms.
pub(crate) const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// Why a body is not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The text does not parse.
    #[error(transparent)]
    Parse(#[from] formats::DecodeError),
    /// A series' labels do not form a set.
    #[error("{error} in series {series}")]
    Labels {
        /// The series as exposed, cut.
        series: String,
        /// What is wrong.
        error: model::LabelError,
    },
    /// A series has no name after relabelling.
    #[error("missing metric name (__name__ label)")]
    NoName,
    /// A name that the job does not accept.
    #[error("invalid metric name or label names: {0}")]
    BadName(String),
    /// A label limit.
    #[error("{0}")]
    LabelLimit(String),
    /// More samples than `sample_limit`.
    #[error("sample limit exceeded")]
    SampleLimit,
    /// A native histogram with more buckets than `native_histogram_bucket_limit`, however coarse.
    #[error("histogram bucket limit exceeded")]
    BucketLimit,
    /// The labels of all series together are too large.
    #[error("labels of all series exceed {MAX_LABEL_BYTES} bytes")]
    LabelBytes,
}

/// What a body held.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    /// Series with ranges into the cache's label bytes.
    pub(crate) series: Vec<BatchSeries>,
    /// Samples of all series.
    pub(crate) samples: Vec<Sample>,
    /// Start timestamps of `samples`, one each; 0 = not stated.
    pub(crate) starts: Vec<i64>,
    /// Native histograms of all series.
    pub(crate) histograms: Vec<(i64, Arc<Histogram>)>,
    /// Their start timestamps, or empty.
    pub(crate) histogram_starts: Vec<i64>,
    /// Exemplars of all series.
    pub(crate) exemplars: Vec<Exemplar>,
    /// Samples in the body.
    pub(crate) scraped: u64,
    /// Samples after relabelling.
    pub(crate) after_relabelling: u64,
    /// Series that the scrape before did not have.
    pub(crate) series_added: u64,
    /// Samples left out because the scrape had their series already.
    pub(crate) duplicates: u64,
    /// Samples left out because they lie too far ahead.
    pub(crate) out_of_bounds: u64,
}

/// What is read, and for whom.
pub(crate) struct Scraped<'a> {
    /// The body.
    pub(crate) body: &'a [u8],
    /// What it is.
    pub(crate) format: ExpositionFormat,
    /// When it was scraped, ms.
    pub(crate) timestamp: i64,
    /// Which forms of histograms the target gives.
    pub(crate) histograms: Histograms,
    /// The target's labels.
    pub(crate) target: &'a Labels,
}

/// Reads what was scraped. On an error, the counts say how far it came and nothing of it may be stored.
pub(crate) fn append(
    scraped: &Scraped<'_>,
    job: &JobConfig,
    cache: &mut SeriesCache,
) -> (Appended, Result<(), AppendError>) {
    let hint = cache.len_hint() + 16;
    let out = Appended {
        series: Vec::with_capacity(hint),
        samples: Vec::with_capacity(hint),
        ..Appended::default()
    };
    let mut reader = Reader {
        job,
        scraped,
        max_schema: schema_for_factor(job.native_histogram_min_bucket_factor),
        cache,
        out,
        builder: LabelsBuilder::new(),
        over_limit: None,
    };
    let result = match scraped.format {
        ExpositionFormat::Prometheus => reader.text(TextFormat::Prometheus),
        ExpositionFormat::OpenMetrics => reader.text(TextFormat::OpenMetrics),
        ExpositionFormat::Protobuf => reader.protobuf(),
    };
    let result = result.and(reader.over_limit.map_or(Ok(()), Err));
    let mut out = reader.out;
    if out.starts.iter().all(|start| *start == 0) {
        out.starts = Vec::new();
    }
    if out.histogram_starts.iter().all(|start| *start == 0) {
        out.histogram_starts = Vec::new();
    }
    (out, result)
}

struct Reader<'a> {
    job: &'a JobConfig,
    scraped: &'a Scraped<'a>,
    max_schema: i8,
    cache: &'a mut SeriesCache,
    out: Appended,
    builder: LabelsBuilder,
    /// A limit that fails the scrape, though it is read to its end.
    over_limit: Option<AppendError>,
}

/// A sample of either kind of format.
struct Found<'a> {
    series: &'a str,
    /// Decides how `le` and `quantile` of the series are normalised.
    kind: MetricKind,
    value: Value,
    timestamp: Option<i64>,
    start: i64,
    exemplars: Exemplars<'a>,
}

/// Exemplars, not decoded before it is clear that they are wanted.
enum Exemplars<'a> {
    Text(Option<ExemplarEntry<'a>>),
    /// Of a histogram: those without a timestamp do not count.
    Texts(Vec<ExemplarEntry<'a>>),
    Decoded(Vec<FoundExemplar>),
}

impl Reader<'_> {
    fn text(&mut self, format: TextFormat) -> Result<(), AppendError> {
        let parser = Parser::new(self.scraped.body, format);
        let Histograms { convert, keep_classic, .. } = self.scraped.histograms;
        if convert {
            return self.converted(CustomBuckets::new(parser, keep_classic));
        }
        let mut parser = parser;
        while let Some(entry) = parser.next()? {
            self.entry(&entry)?;
        }
        Ok(())
    }

    fn converted(&mut self, mut parser: CustomBuckets<'_>) -> Result<(), AppendError> {
        while let Some(converted) = parser.next()? {
            match converted {
                Converted::Entry(entry) => self.entry(&entry)?,
                Converted::Histogram { series, histogram, timestamp, exemplars } => self.series(Found {
                    series: &series,
                    kind: MetricKind::Unknown,
                    value: Value::Histogram(Arc::new(histogram)),
                    timestamp,
                    start: 0,
                    exemplars: Exemplars::Texts(exemplars),
                })?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), AppendError> {
        match entry {
            Entry::Series(SeriesEntry { series, kind, value, timestamp, exemplar }) => {
                return self.series(Found {
                    series,
                    kind: *kind,
                    value: Value::Float(*value),
                    timestamp: *timestamp,
                    start: 0,
                    exemplars: Exemplars::Text(*exemplar),
                });
            }
            Entry::Type { family, kind } => {
                self.cache.note(&family.text(), |m| m.kind == *kind, |m| m.kind = *kind);
            }
            Entry::Help { family, help } => {
                let help = help.text();
                self.cache.note(&family.text(), |m| m.help == help, |m| m.help = help.to_string());
            }
            Entry::Unit { family, unit } => {
                self.cache.note(&family.text(), |m| m.unit == *unit, |m| m.unit = (*unit).to_owned());
            }
        }
        Ok(())
    }

    fn protobuf(&mut self) -> Result<(), AppendError> {
        protobuf::read(self.scraped.body, self.scraped.histograms, |item| match item {
            Item::Family { name, kind, help, unit } => {
                let known = |m: &MetricMetadata| m.kind == kind && m.help == help && m.unit == unit;
                self.cache.note(name, known, |m| {
                    m.kind = kind;
                    help.clone_into(&mut m.help);
                    unit.clone_into(&mut m.unit);
                });
                Ok(())
            }
            Item::Found(protobuf::Found { series, value, timestamp, start, exemplars }) => {
                let exemplars = Exemplars::Decoded(exemplars);
                self.series(Found { series, kind: MetricKind::Unknown, value, timestamp, start, exemplars })
            }
        })
    }

    fn series(&mut self, found: Found<'_>) -> Result<(), AppendError> {
        self.out.scraped += 1;
        let own = if self.job.honor_timestamps { found.timestamp } else { None };
        let known = self.cache.get(found.series, found.kind);
        let labels = match known {
            Some(Meaning::Dropped) => return Ok(()),
            Some(Meaning::Kept { repeated: true, .. }) if own.is_none() => {
                self.out.after_relabelling += 1;
                self.out.duplicates += 1;
                return Ok(());
            }
            Some(Meaning::Kept { start, end, .. }) => Some(start..end),
            None => None,
        };
        // A series that is new and is then refused is not remembered: it owes no staleness marker.
        let new_labels = match &labels {
            Some(_) => None,
            None => match self.new_labels(found.series, found.kind)? {
                Some(labels) => Some(labels),
                None => {
                    self.cache.insert(found.series, found.kind, None).ok_or(AppendError::LabelBytes)?;
                    return Ok(());
                }
            },
        };
        self.out.after_relabelling += 1;
        let timestamp = own.unwrap_or(self.scraped.timestamp);
        let taken = self.out.samples.len() + self.out.histograms.len();
        if self.job.sample_limit > 0 && taken as u64 + self.out.out_of_bounds >= self.job.sample_limit {
            self.over_limit = Some(AppendError::SampleLimit);
            return Ok(());
        }
        if timestamp > self.scraped.timestamp.saturating_add(MAX_AHEAD_MS) {
            self.out.out_of_bounds += 1;
            return Ok(());
        }
        let Some(value) = self.within_bucket_limit(found.value) else {
            self.over_limit.get_or_insert(AppendError::BucketLimit);
            return Ok(());
        };
        let labels = match (labels, new_labels) {
            (Some(labels), _) => labels,
            (None, new) => {
                self.out.series_added += 1;
                self.cache.insert(found.series, found.kind, new.as_ref()).ok_or(AppendError::LabelBytes)?
            }
        };
        let (first_sample, first_histogram) = (self.out.samples.len(), self.out.histograms.len());
        match value {
            Value::Float(value) => {
                self.out.samples.push(Sample { timestamp, value });
                self.out.starts.push(found.start);
            }
            Value::Histogram(histogram) => {
                self.out.histograms.push((timestamp, histogram));
                self.out.histogram_starts.push(found.start);
            }
        }
        let first_exemplar = self.out.exemplars.len();
        self.exemplars(found.exemplars, timestamp);
        let range = |first: usize, end: usize| first as u32..end as u32;
        self.out.series.push(BatchSeries {
            labels,
            samples: range(first_sample, self.out.samples.len()),
            histograms: range(first_histogram, self.out.histograms.len()),
            exemplars: range(first_exemplar, self.out.exemplars.len()),
            untracked: own.is_some() && !self.job.track_timestamps_staleness,
        });
        Ok(())
    }

    /// `value` as coarse as the job wants it; `None` when it has too many buckets in any resolution.
    fn within_bucket_limit(&self, value: Value) -> Option<Value> {
        let limit = usize::try_from(self.job.native_histogram_bucket_limit).unwrap_or(usize::MAX);
        if limit == 0 && self.max_schema == MAX_SCHEMA {
            return Some(value);
        }
        let Value::Histogram(mut histogram) = value else { return Some(value) };
        let inner = Arc::make_mut(&mut histogram);
        if limit > 0 && !limit_buckets(inner, limit) {
            return None;
        }
        reduce_resolution(inner, self.max_schema);
        Some(Value::Histogram(histogram))
    }

    /// A bad exemplar does not fail a scrape, as upstream.
    fn exemplars(&mut self, exemplars: Exemplars<'_>, now: i64) {
        let out = &mut self.out.exemplars;
        let from = out.len();
        match exemplars {
            Exemplars::Text(entry) => out.extend(entry.and_then(|entry| entry.decode(now).ok())),
            Exemplars::Texts(entries) => {
                let timed = entries.into_iter().filter(|entry| entry.timestamp.is_some());
                out.extend(timed.filter_map(|entry| entry.decode(now).ok()));
            }
            Exemplars::Decoded(found) => {
                out.extend(found.into_iter().map(|FoundExemplar { labels, value, timestamp }| Exemplar {
                    labels,
                    value,
                    timestamp: timestamp.unwrap_or(now),
                }));
            }
        }
        out[from..].sort_by_key(|exemplar| exemplar.timestamp);
    }

    /// The labels of a series that the cache does not know; `None` when it is dropped.
    fn new_labels(&mut self, series: &str, kind: MetricKind) -> Result<Option<Labels>, AppendError> {
        let error = |error| AppendError::Labels { series: series.chars().take(200).collect(), error };
        series_labels(series, kind, &mut self.builder).map_err(error)?;
        let exposed = self.builder.build().map_err(error)?;
        let Some(labels) = final_labels(&exposed, self.scraped.target, self.job).map_err(error)? else {
            return Ok(None);
        };
        check_names(&labels, self.job.name_scheme)?;
        check_label_limits(&labels, self.job)?;
        Ok(Some(labels))
    }
}

/// Exposed labels with the target's added and metric relabelling done; `None` when the series is dropped.
fn final_labels(
    exposed: &Labels,
    target: &Labels,
    job: &JobConfig,
) -> Result<Option<Labels>, model::LabelError> {
    let mut builder = LabelsBuilder::from_labels(exposed);
    let mut conflicts: Vec<(&str, &str)> = Vec::new();
    for (name, value) in target {
        match exposed.get(name) {
            Some(_) if job.honor_labels => continue,
            Some(own) => conflicts.push((name, own)),
            None => {}
        }
        builder.set(name, value);
    }
    // The shortest first, so that `exported_x` is free for `x` before an exposed `exported_x` needs a new name.
    conflicts.sort_by_key(|(name, _)| name.len());
    for (name, value) in conflicts {
        let mut renamed = format!("exported_{name}");
        while builder.get(&renamed).is_some() {
            renamed.insert_str(0, "exported_");
        }
        builder.set(&renamed, value);
    }
    if !relabel(&job.metric_relabel, &mut builder) {
        return Ok(None);
    }
    let labels = builder.build()?;
    Ok((!labels.is_empty()).then_some(labels))
}

fn check_names(labels: &Labels, scheme: NameScheme) -> Result<(), AppendError> {
    let name = labels.get(METRIC_NAME).ok_or(AppendError::NoName)?;
    let valid =
        scheme.is_valid_metric_name(name) && labels.iter().all(|(name, _)| scheme.is_valid_label_name(name));
    if !valid {
        let mut shown = format!("{labels:?}");
        shown.truncate(shown.char_indices().nth(200).map_or(shown.len(), |(at, _)| at));
        return Err(AppendError::BadName(shown));
    }
    Ok(())
}

fn check_label_limits(labels: &Labels, job: &JobConfig) -> Result<(), AppendError> {
    let cut = |text: &str| text.chars().take(50).collect::<String>();
    let metric = || cut(labels.metric_name());
    let over = |len: usize, limit: u64| limit > 0 && len as u64 > limit;
    if over(labels.len(), job.label_limit) {
        return Err(AppendError::LabelLimit(format!(
            "label_limit exceeded (metric: {}, number of labels: {}, limit: {})",
            metric(),
            labels.len(),
            job.label_limit
        )));
    }
    for (name, value) in labels {
        if over(name.len(), job.label_name_length_limit) {
            return Err(AppendError::LabelLimit(format!(
                "label_name_length_limit exceeded (metric: {}, label name: {}, length: {}, limit: {})",
                metric(),
                cut(name),
                name.len(),
                job.label_name_length_limit
            )));
        }
        if over(value.len(), job.label_value_length_limit) {
            return Err(AppendError::LabelLimit(format!(
                "label_value_length_limit exceeded (metric: {}, label name: {}, value: {:?}, length: {}, limit: {})",
                metric(),
                cut(name),
                cut(value),
                value.len(),
                job.label_value_length_limit
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
