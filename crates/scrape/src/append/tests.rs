//! Text in, samples out: `{labels} value@timestamp` lines and the counts, over a job that a closure changes.

use model::relabel::{Action, RelabelConfig, Rule};

use super::*;
use formats::text::TextFormat::{OpenMetrics, Prometheus};

const NOW: i64 = 1_000_000;

struct Check {
    job: JobConfig,
    target: Labels,
    cache: SeriesCache,
    format: TextFormat,
}

impl Check {
    fn new(change: impl FnOnce(&mut JobConfig)) -> Self {
        let mut job = JobConfig::new("j");
        change(&mut job);
        let target = Labels::from_pairs([("job", "j"), ("instance", "i")]).unwrap();
        Self { job, target, cache: SeriesCache::default(), format: Prometheus }
    }

    /// Lines `series value` of a scrape, then `scraped/after/added` and what went wrong.
    fn scrape(&mut self, body: &str) -> Vec<String> {
        self.cache.begin();
        let (out, result) =
            append(body.as_bytes(), self.format, NOW, &self.job, &self.target, &mut self.cache);
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
