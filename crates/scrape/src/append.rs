//! From the text of one scrape to series and samples: the cache, target labels, metric relabelling, limits.
//!
//! A function of its arguments; what it counts and which errors end a scrape follow upstream's `scrapeLoop.append`.

use formats::text::{Entry, Parser, SeriesEntry, TextFormat, series_labels};
use model::relabel::{NameScheme, relabel};
use model::seam::BatchSeries;
use model::{Exemplar, Labels, LabelsBuilder, METRIC_NAME, Sample};

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
    /// Exemplars of all series.
    pub(crate) exemplars: Vec<Exemplar>,
    /// Samples in the text.
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

/// Reads `body` as the scrape at `timestamp` (ms) of a target with `target` labels. On an error, the counts say how
/// far it came and nothing of it may be stored.
pub(crate) fn append(
    body: &[u8],
    format: TextFormat,
    timestamp: i64,
    job: &JobConfig,
    target: &Labels,
    cache: &mut SeriesCache,
) -> (Appended, Result<(), AppendError>) {
    let hint = cache.len_hint() + 16;
    let out = Appended {
        series: Vec::with_capacity(hint),
        samples: Vec::with_capacity(hint),
        ..Appended::default()
    };
    let mut reader =
        Reader { job, target, timestamp, cache, out, builder: LabelsBuilder::new(), over_limit: false };
    let result = reader.read(body, format);
    let result = result.and(if reader.over_limit { Err(AppendError::SampleLimit) } else { Ok(()) });
    (reader.out, result)
}

struct Reader<'a> {
    job: &'a JobConfig,
    target: &'a Labels,
    timestamp: i64,
    cache: &'a mut SeriesCache,
    out: Appended,
    builder: LabelsBuilder,
    over_limit: bool,
}

impl Reader<'_> {
    fn read(&mut self, body: &[u8], format: TextFormat) -> Result<(), AppendError> {
        let mut parser = Parser::new(body, format);
        while let Some(entry) = parser.next()? {
            match entry {
                Entry::Series(series) => self.series(&series)?,
                Entry::Type { family, kind } => {
                    self.cache.note(&family.text(), |m| m.kind == kind, |m| m.kind = kind);
                }
                Entry::Help { family, help } => {
                    let help = help.text();
                    self.cache.note(&family.text(), |m| m.help == help, |m| m.help = help.to_string());
                }
                Entry::Unit { family, unit } => {
                    self.cache.note(&family.text(), |m| m.unit == unit, |m| m.unit = unit.to_string());
                }
            }
        }
        Ok(())
    }

    fn series(&mut self, entry: &SeriesEntry<'_>) -> Result<(), AppendError> {
        self.out.scraped += 1;
        let own = if self.job.honor_timestamps { entry.timestamp } else { None };
        let known = self.cache.get(entry.series, entry.kind);
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
            None => match self.new_labels(entry)? {
                Some(labels) => Some(labels),
                None => {
                    self.cache.insert(entry.series, entry.kind, None).ok_or(AppendError::LabelBytes)?;
                    return Ok(());
                }
            },
        };
        self.out.after_relabelling += 1;
        let timestamp = own.unwrap_or(self.timestamp);
        if self.job.sample_limit > 0
            && self.out.samples.len() as u64 + self.out.out_of_bounds >= self.job.sample_limit
        {
            self.over_limit = true;
            return Ok(());
        }
        if timestamp > self.timestamp.saturating_add(MAX_AHEAD_MS) {
            self.out.out_of_bounds += 1;
            return Ok(());
        }
        let labels = match (labels, new_labels) {
            (Some(labels), _) => labels,
            (None, new) => {
                self.out.series_added += 1;
                self.cache.insert(entry.series, entry.kind, new.as_ref()).ok_or(AppendError::LabelBytes)?
            }
        };
        let first = self.out.samples.len() as u32;
        self.out.samples.push(Sample { timestamp, value: entry.value });
        let exemplars_from = self.out.exemplars.len() as u32;
        // A bad exemplar does not fail a scrape, as upstream.
        self.out.exemplars.extend(entry.exemplar.and_then(|exemplar| exemplar.decode(timestamp).ok()));
        self.out.series.push(BatchSeries {
            labels,
            samples: first..first + 1,
            histograms: 0..0,
            exemplars: exemplars_from..self.out.exemplars.len() as u32,
            untracked: own.is_some() && !self.job.track_timestamps_staleness,
        });
        Ok(())
    }

    /// The labels of a series that the cache does not know; `None` when it is dropped.
    fn new_labels(&mut self, entry: &SeriesEntry<'_>) -> Result<Option<Labels>, AppendError> {
        let error = |error| AppendError::Labels { series: entry.series.chars().take(200).collect(), error };
        series_labels(entry.series, entry.kind, &mut self.builder).map_err(error)?;
        let exposed = self.builder.build().map_err(error)?;
        let Some(labels) = final_labels(&exposed, self.target, self.job).map_err(error)? else {
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
