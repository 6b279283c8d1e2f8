//! Text in, samples out: `{labels} value@timestamp` lines and the counts, over a job that a closure changes.

use model::relabel::{Action, RelabelConfig, Rule};

use super::*;
use formats::negotiate::ExpositionFormat::{OpenMetrics, Prometheus, Protobuf};

const NOW: i64 = 1_000_000;

struct Check {
    job: JobConfig,
    target: Labels,
    cache: SeriesCache,
    format: ExpositionFormat,
    histograms: Histograms,
}

impl Check {
    fn new(change: impl FnOnce(&mut JobConfig)) -> Self {
        let mut job = JobConfig::new("j");
        change(&mut job);
        let target = Labels::from_pairs([("job", "j"), ("instance", "i")]).unwrap();
        Self {
            job,
            target,
            cache: SeriesCache::default(),
            format: Prometheus,
            histograms: Histograms::default(),
        }
    }

    /// Lines `series value` of a scrape, then `scraped/after/added` and what went wrong.
    fn scrape(&mut self, body: impl AsRef<[u8]>) -> Vec<String> {
        self.cache.begin();
        let scraped = Scraped {
            body: body.as_ref(),
            format: self.format,
            timestamp: NOW,
            histograms: self.histograms,
            target: &self.target,
        };
        let (out, result) = append(&scraped, &self.job, &mut self.cache);
        let mut lines = Vec::new();
        for series in &out.series {
            let region = &self.cache.label_bytes()[series.labels.start as usize..series.labels.end as usize];
            let labels = Labels::from_canonical(region).unwrap();
            let pairs: Vec<String> = labels
                .iter()
                .filter(|l| *l != ("job", "j") && *l != ("instance", "i"))
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            for sample in &out.samples[series.samples.start as usize..series.samples.end as usize] {
                let at =
                    if sample.timestamp == NOW { String::new() } else { format!("@{}", sample.timestamp) };
                let untracked = if series.untracked { " untracked" } else { "" };
                let exemplars = series.exemplars.len();
                let exemplars = if exemplars > 0 { format!(" +{exemplars}") } else { String::new() };
                lines.push(format!("{} {}{at}{untracked}{exemplars}", pairs.join(","), sample.value));
            }
            let histograms = series.histograms.start as usize..series.histograms.end as usize;
            for (_, h) in &out.histograms[histograms] {
                let exemplars = series.exemplars.len();
                let (schema, buckets) = (h.schema, h.positive_buckets.len());
                lines.push(format!("{} {schema}/{}/{buckets} +{exemplars}", pairs.join(","), h.count));
            }
        }
        let error = result.as_ref().err().map(|e| format!(" {e}")).unwrap_or_default();
        let left_out = match (out.duplicates, out.out_of_bounds) {
            (0, 0) => String::new(),
            (d, b) => format!(" dup={d} far={b}"),
        };
        lines
            .push(format!("{}/{}/{}{left_out}{error}", out.scraped, out.after_relabelling, out.series_added));
        self.cache.finish(result.is_ok());
        lines
    }
}

fn rule(change: impl FnOnce(&mut RelabelConfig)) -> Rule {
    let mut config = RelabelConfig::default();
    change(&mut config);
    Rule::new(config, NameScheme::Utf8).unwrap()
}

#[test]
fn plain_and_cached() {
    let mut check = Check::new(|_| ());
    let body = "# TYPE a counter\na{x=\"1\"} 1\na{x=\"2\"} 2\nb 3\n";
    assert_eq!(check.scrape(body), ["__name__=a,x=1 1", "__name__=a,x=2 2", "__name__=b 3", "3/3/3"]);
    assert_eq!(check.scrape(body), ["__name__=a,x=1 1", "__name__=a,x=2 2", "__name__=b 3", "3/3/0"]);
    assert_eq!(check.scrape("c 1\nb 3\n"), ["__name__=c 1", "__name__=b 3", "2/2/1"]);
    assert_eq!(check.scrape("a{x=\"1\"} 1\n"), ["__name__=a,x=1 1", "1/1/1"]);
}

#[test]
fn colliding_labels() {
    let body = "m{job=\"own\",exported_job=\"older\",instance=\"i2\"} 1\n";
    let mut check = Check::new(|_| ());
    assert_eq!(
        check.scrape(body)[0],
        "__name__=m,exported_exported_job=own,exported_instance=i2,exported_job=older 1"
    );
    let mut check = Check::new(|job| job.honor_labels = true);
    assert_eq!(check.scrape(body)[0], "__name__=m,exported_job=older,instance=i2,job=own 1");
}

#[test]
fn scraped_timestamps() {
    let body = "a 1 5000\na 2 6000\nb 1\nfar 1 9999999999\n";
    let mut check = Check::new(|_| ());
    let want =
        ["__name__=a 1@5000 untracked", "__name__=a 2@6000 untracked", "__name__=b 1", "4/4/2 dup=0 far=1"];
    assert_eq!(check.scrape(body), want);
    let mut check = Check::new(|job| job.track_timestamps_staleness = true);
    assert_eq!(check.scrape(body)[0], "__name__=a 1@5000");
    let mut check = Check::new(|job| job.honor_timestamps = false);
    assert_eq!(check.scrape(body), ["__name__=a 1", "__name__=b 1", "__name__=far 1", "4/4/3 dup=1 far=0"]);
}

#[test]
fn metric_relabelling() {
    let mut check = Check::new(|job| {
        job.metric_relabel = vec![
            rule(|r| {
                (r.source_labels, r.regex, r.action) =
                    (vec!["__name__".into()], "go_.*".into(), Action::Drop);
            }),
            rule(|r| {
                (r.source_labels, r.target_label, r.regex, r.replacement) =
                    (vec!["__name__".into()], "__name__".into(), "old_(.*)".into(), "new_$1".into());
            }),
        ];
    });
    let body = "go_gc 1\nold_x 2\n";
    assert_eq!(check.scrape(body), ["__name__=new_x 2", "2/1/1"]);
    assert_eq!(check.scrape(body), ["__name__=new_x 2", "2/1/0"]);
    let mut check = Check::new(|job| {
        job.metric_relabel = vec![rule(|r| (r.regex, r.action) = ("__name__".into(), Action::LabelDrop))];
    });
    assert_eq!(check.scrape("a 1\n"), ["1/0/0 missing metric name (__name__ label)"]);
}

#[test]
fn limits() {
    let mut check = Check::new(|job| job.sample_limit = 2);
    assert_eq!(check.scrape("a 1\nb 1\n").last().unwrap(), "2/2/2");
    assert_eq!(check.scrape("a 1\nb 1\nc 1\nd 1\n").last().unwrap(), "4/4/0 sample limit exceeded");
    let mut check = Check::new(|job| job.label_limit = 3);
    assert_eq!(check.scrape("a 1\n").last().unwrap(), "1/1/1");
    assert_eq!(
        check.scrape("a{x=\"1\"} 1\n").last().unwrap(),
        "1/0/0 label_limit exceeded (metric: a, number of labels: 4, limit: 3)"
    );
    let mut check = Check::new(|job| job.label_name_length_limit = 8);
    assert_eq!(
        check.scrape("a{too_long_a_name=\"1\"} 1\n").last().unwrap(),
        "1/0/0 label_name_length_limit exceeded (metric: a, label name: too_long_a_name, length: 15, limit: 8)"
    );
    let mut check = Check::new(|job| job.label_value_length_limit = 3);
    assert_eq!(
        check.scrape("a{x=\"12345\"} 1\n").last().unwrap(),
        "1/0/0 label_value_length_limit exceeded (metric: a, label name: x, value: \"12345\", length: 5, limit: 3)"
    );
}

#[test]
fn name_schemes() {
    let body = "{\"a.b\",\"x.y\"=\"1\"} 1\n";
    assert_eq!(Check::new(|_| ()).scrape(body)[0], "__name__=a.b,x.y=1 1");
    let mut check = Check::new(|job| job.name_scheme = NameScheme::Legacy);
    assert!(check.scrape(body)[0].contains("invalid metric name or label names"));
}

#[test]
fn bad_texts_end_a_scrape() {
    let mut check = Check::new(|_| ());
    assert!(check.scrape("a 1\n<html>\n")[1].starts_with("1/1/1 "));
    assert!(check.scrape("a{x=\"1\",x=\"2\"} 1\n")[0].contains("\"x\" appears twice"));
}

#[test]
fn openmetrics_with_exemplars_and_metadata() {
    let mut check = Check::new(|_| ());
    check.format = OpenMetrics;
    let body = "# TYPE req counter\n# UNIT req \n# HELP req Requests.\nreq_total 5 # {id=\"x\"} 1\n# EOF\n";
    assert_eq!(check.scrape(body), ["__name__=req_total 5 +1", "1/1/1"]);
    let metadata = check.cache.take_unsent();
    assert_eq!((metadata[0].family.as_str(), metadata[0].help.as_str()), ("req", "Requests."));
    assert!(check.scrape("a 1\n")[0].len() > 3);
    check.format = Prometheus;
    assert_eq!(check.scrape("# TYPE h histogram\nh_bucket{le=\"1\"} 2\n")[0], "__name__=h_bucket,le=1.0 2");
}

/// A family `h` with one histogram of `fields`, delimited.
fn family(fields: &[u8]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2];
        out.extend(varint(bytes.len() as u64));
        out.extend_from_slice(bytes);
        out
    };
    let family = [field(1, b"h"), vec![0x18, 4], field(4, &field(7, fields))].concat();
    [varint(family.len() as u64), family].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A native histogram of schema 8 with 100 buckets of one observation each, created at 5 s.
fn hundred_buckets() -> Vec<u8> {
    // sample_count, schema, one span of 100, deltas 1, 0, 0 …, created timestamp.
    let mut fields = vec![0x08, 100, 0x28, 16, 0x62, 4, 0x08, 0, 0x10, 100];
    fields.extend([0x6a, 100, 2]);
    fields.extend([0; 99]);
    fields.extend([0x7a, 2, 0x08, 5]);
    fields
}

#[test]
fn protobuf_with_native_histograms() {
    let body = family(&hundred_buckets());
    let scrape = |native: bool, change: fn(&mut JobConfig)| {
        let mut check = Check::new(change);
        check.format = Protobuf;
        check.histograms.native = native;
        check.scrape(&body)
    };
    assert_eq!(scrape(true, |_| ()), ["__name__=h 8/100/100 +0", "1/1/1"]);
    let classic = ["__name__=h_count 100", "__name__=h_sum 0", "__name__=h_bucket,le=+Inf 100", "3/3/3"];
    assert_eq!(scrape(false, |_| ()), classic);
    let limit = |job: &mut JobConfig| job.native_histogram_bucket_limit = 30;
    assert_eq!(scrape(true, limit)[0], "__name__=h 6/100/26 +0");
    let factor = |job: &mut JobConfig| job.native_histogram_min_bucket_factor = 1.1;
    assert_eq!(scrape(true, factor)[0], "__name__=h 2/100/3 +0");
    let samples = |job: &mut JobConfig| job.sample_limit = 2;
    assert_eq!(scrape(false, samples)[2], "3/3/2 sample limit exceeded");

    let mut check = Check::new(|_| ());
    check.format = Protobuf;
    check.histograms = Histograms { native: true, keep_classic: false, convert: true };
    check.cache.begin();
    let body = [family(&hundred_buckets()), family(&[0x08, 1])].concat();
    let scraped = Scraped {
        body: &body,
        format: Protobuf,
        timestamp: NOW,
        histograms: check.histograms,
        target: &check.target,
    };
    let (out, result) = append(&scraped, &check.job, &mut check.cache);
    result.unwrap();
    assert_eq!((out.histograms.len(), out.duplicates, out.starts.len()), (1, 1, 0));
    assert_eq!(check.cache.take_unsent()[0].kind, MetricKind::Histogram);
    assert!(scrape(true, |_| ()).len() == 2 && check.scrape([9, 1])[0].contains("length beyond the end"));
}

#[test]
fn start_timestamps_stand_beside_their_samples() {
    let mut check = Check::new(|_| ());
    check.cache.begin();
    let body = family(&hundred_buckets());
    let scraped = Scraped {
        body: &body,
        format: Protobuf,
        timestamp: NOW,
        histograms: Histograms::default(),
        target: &check.target,
    };
    let (out, result) = append(&scraped, &check.job, &mut check.cache);
    result.unwrap();
    assert_eq!(out.starts, [5000; 3]);
}

#[test]
fn classic_histograms_become_ones_with_custom_buckets() {
    let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 5\nh_sum 7\nh_count 5\n# TYPE g gauge\ng 1\n";
    let mut check = Check::new(|_| ());
    check.histograms.convert = true;
    assert_eq!(check.scrape(body), ["__name__=h -53/5/2 +0", "__name__=g 1", "2/2/2"]);
    assert_eq!(check.scrape(body), ["__name__=h -53/5/2 +0", "__name__=g 1", "2/2/0"]);
    check.histograms.keep_classic = true;
    let kept = check.scrape(body);
    assert_eq!(kept.len(), 7, "{kept:?}");
    assert_eq!(kept[4], "__name__=h -53/5/2 +0");
    let mut check = Check::new(|job| job.native_histogram_bucket_limit = 1);
    check.histograms.convert = true;
    assert_eq!(check.scrape(body), ["__name__=g 1", "2/2/1 histogram bucket limit exceeded"]);
}
