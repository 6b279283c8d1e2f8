//! Classic histograms of the text formats as native ones with custom buckets.
//!
//! The series of one histogram stand together in a text; when another series comes, those gathered so far become a
//! histogram. As upstream (`model/textparse/nhcbparse.go`): only series under a matching type line count, and
//! a histogram whose buckets and count contradict each other gives nothing.

use model::histogram::ResetHint;
use model::{Histogram, LabelsBuilder, METRIC_NAME, MetricKind};

use super::{Entry, ExemplarEntry, Parser, SeriesEntry, series_labels};
use crate::DecodeError;
use crate::buckets::Classic;
use crate::series_text::push_series;

/// What a [`CustomBuckets`] gives.
#[derive(Debug)]
pub enum Converted<'a> {
    /// An entry of the text.
    Entry(Entry<'a>),
    /// A histogram that was made of several entries.
    Histogram {
        /// Name and labels, as the text format writes them.
        series: String,
        /// The histogram.
        histogram: Histogram,
        /// The timestamp of the last of its series, in ms, when it had one.
        timestamp: Option<i64>,
        /// The exemplars of its buckets.
        exemplars: Vec<ExemplarEntry<'a>>,
    },
}

/// A parser that converts classic histograms.
#[derive(Debug)]
pub struct CustomBuckets<'a> {
    parser: Parser<'a>,
    keep_classic: bool,
    /// The family of the last type line, and its type.
    family: String,
    kind: MetricKind,
    group: Option<Group<'a>>,
    /// What was read while a group had to be given out first.
    held: Option<Entry<'a>>,
    builder: LabelsBuilder,
}

/// The series of one histogram, as far as they were read.
#[derive(Debug)]
struct Group<'a> {
    series: String,
    classic: Classic,
    timestamp: Option<i64>,
    exemplars: Vec<ExemplarEntry<'a>>,
}

/// What one classic series says of its histogram.
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

impl<'a> CustomBuckets<'a> {
    /// Converts what `parser` gives; with `keep_classic` the classic series are given out as well.
    pub fn new(parser: Parser<'a>, keep_classic: bool) -> Self {
        Self {
            parser,
            keep_classic,
            family: String::new(),
            kind: MetricKind::Unknown,
            group: None,
            held: None,
            builder: LabelsBuilder::new(),
        }
    }

    /// The next piece, or `None` at the end. Fails where the parser does.
    #[allow(clippy::should_implement_trait, reason = "a fallible pull, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Converted<'a>>, DecodeError> {
        loop {
            let entry = match self.held.take() {
                Some(entry) => entry,
                None => match self.parser.next()? {
                    Some(entry) => entry,
                    None => return Ok(self.close()),
                },
            };
            let part = match &entry {
                Entry::Series(series) => self.part_of(series),
                _ => None,
            };
            let Some((key, part)) = part else {
                if let Some(converted) = self.close() {
                    self.held = Some(entry);
                    return Ok(Some(converted));
                }
                if let Entry::Type { family, kind } = entry {
                    self.family = family.text().into_owned();
                    self.kind = kind;
                }
                return Ok(Some(Converted::Entry(entry)));
            };
            if self.group.as_ref().is_some_and(|group| group.series != key)
                && let Some(converted) = self.close()
            {
                self.held = Some(entry);
                return Ok(Some(converted));
            }
            if let Entry::Series(series) = entry {
                self.gather(key, &part, &series);
            }
            if self.keep_classic {
                return Ok(Some(Converted::Entry(entry)));
            }
        }
    }

    /// Ends the group, which may give a histogram.
    fn close(&mut self) -> Option<Converted<'a>> {
        let Group { series, classic, timestamp, exemplars } = self.group.take()?;
        let mut histogram = classic.convert()?;
        histogram.reset_hint = ResetHint::Unknown;
        Some(Converted::Histogram { series, histogram, timestamp, exemplars })
    }

    fn gather(&mut self, series: String, part: &Part, entry: &SeriesEntry<'a>) {
        let group = self.group.get_or_insert_with(|| Group {
            series,
            classic: Classic::default(),
            timestamp: None,
            exemplars: Vec::new(),
        });
        group.timestamp = entry.timestamp;
        group.exemplars.extend(entry.exemplar);
        match part {
            Part::Bucket(boundary) => group.classic.bucket(*boundary, entry.value),
            Part::Count => group.classic.count(entry.value),
            Part::Sum => group.classic.sum(entry.value),
        }
    }

    /// The histogram that a series is part of (as its text), and which part; `None` when it is none.
    fn part_of(&mut self, entry: &SeriesEntry<'_>) -> Option<(String, Part)> {
        if self.kind != MetricKind::Histogram {
            return None;
        }
        // The wrong text of a series is found by whoever stores it.
        series_labels(entry.series, entry.kind, &mut self.builder).ok()?;
        let suffix = self.builder.get(METRIC_NAME)?.strip_prefix(self.family.as_str())?;
        let part = match suffix {
            "_count" => Part::Count,
            "_sum" => Part::Sum,
            "_bucket" => {
                let boundary = crate::parse_float(self.builder.get("le")?.as_bytes())?;
                Part::Bucket(if boundary.is_nan() { return None } else { boundary })
            }
            _ => return None,
        };
        let mut key = String::new();
        let rest = self.builder.pairs().filter(|(name, _)| ![METRIC_NAME, "le"].contains(name));
        let mut rest: Vec<(&str, &str)> = rest.collect();
        rest.sort_unstable();
        push_series(&mut key, &self.family, rest.into_iter());
        Some((key, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TextFormat;

    fn check(body: &str, keep: bool, want: &[&str]) {
        let mut parser = CustomBuckets::new(Parser::new(body.as_bytes(), TextFormat::OpenMetrics), keep);
        let mut got = Vec::new();
        while let Some(converted) = parser.next().unwrap() {
            got.push(match converted {
                Converted::Entry(Entry::Series(series)) => format!("{} {}", series.series, series.value),
                Converted::Entry(_) => continue,
                Converted::Histogram { series, histogram, timestamp, exemplars } => format!(
                    "{series} {}/{} {:?} {:?} {timestamp:?} +{}",
                    histogram.count,
                    histogram.sum,
                    histogram.custom_values.unwrap(),
                    histogram.positive_buckets,
                    exemplars.len()
                ),
            });
        }
        assert_eq!(got, want);
    }

    #[test]
    fn series_that_stand_together_become_one() {
        let body = "# TYPE h histogram\n\
            h_bucket{le=\"1\",a=\"x\"} 2\nh_bucket{le=\"+Inf\",a=\"x\"} 5 # {id=\"1\"} 3\nh_sum{a=\"x\"} 7\nh_count{a=\"x\"} 5\n\
            h_bucket{a=\"y\",le=\"1\"} 0\nh_count{a=\"y\"} 1 10\n\
            # TYPE g gauge\ng 1\nh_bucket{le=\"1\"} 1\n# EOF\n";
        check(
            body,
            false,
            &[
                "h{a=\"x\"} 5/7 [1.0] [2.0, 3.0] None +1",
                "h{a=\"y\"} 1/0 [1.0] [1.0] Some(10000) +0",
                "g 1",
                "h_bucket{le=\"1\"} 1",
            ],
        );
        check(
            "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_count 2\n# EOF\n",
            true,
            &["h_bucket{le=\"1\"} 2", "h_count 2", "h 2/0 [1.0] [2.0] None +0"],
        );
        // Count and buckets that contradict each other, twice; then a good one.
        check(
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_count 3\nh_bucket{b=\"c\",le=\"1\"} 9\nh_count{b=\"c\"} 3\n\
             h_count{d=\"e\"} 3\n# EOF\n",
            false,
            &["h{d=\"e\"} 3/0 [] [3.0] None +0"],
        );
    }
}
