//! Random queries over random data, answered by this program and by Debian's Prometheus: the same series, the same
//! points, the same kind of error.
//!
//! Only the language of Prometheus 2.42 is asked, in ways in which it has not changed since: samples lie off the grid
//! of evaluation, and subquery steps off the ends of their ranges, since ranges were closed on the left then. What
//! else differs stands in `docs/promql.md`. `ISOBAR_DIFF_QUERIES` and `ISOBAR_DIFF_SEED` choose how many queries are
//! asked (400) and which.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use benches::http::{Client, encoded};
use model::seam::{Clock as _, SystemClock};
use serde_json::Value;
use tests::node::Node;
use tests::oracle::{SeriesToSend, write_body};
use tests::peer::start_prometheus;
use tests::tier;

/// Repeatable noise (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Where counters begin, and begin again: far from zero, since how `rate` goes back to zero was changed.
const BASE: f64 = 1e6;

/// Counters with resets, gauges, classic histograms; with gaps and staleness markers. All integers or quarters,
/// so that sums are exact in any order.
fn data(noise: &mut Noise, first_ms: i64, steps: usize) -> Vec<SeriesToSend> {
    let mut all = Vec::new();
    for name in ["a_total", "b_total", "g", "h_bucket"] {
        for instance in 0..4 {
            for job in ["x", "y"] {
                let les: &[&str] = if name == "h_bucket" { &["0.1", "0.5", "2", "+Inf"] } else { &[""] };
                let mut columns: Vec<Vec<(i64, f64)>> = vec![Vec::new(); les.len()];
                let mut totals = vec![BASE; les.len()];
                let offset = noise.below(900) as i64 + 37;
                for step in 0..steps {
                    let stamp = first_ms + step as i64 * 15_000 + offset;
                    let fate = noise.below(60);
                    let mut grown = 0.0;
                    for (at, column) in columns.iter_mut().enumerate() {
                        grown += noise.below(8) as f64;
                        totals[at] = if fate == 0 { BASE } else { totals[at] + grown };
                        match (fate, name) {
                            (1..=4, _) => {}
                            (5, _) => column.push((stamp, model::stale_nan())),
                            (_, "g") => column.push((stamp, noise.below(400) as f64 / 4.0 - 50.0)),
                            _ => column.push((stamp, totals[at])),
                        }
                    }
                }
                for (le, samples) in les.iter().zip(columns) {
                    let mut labels = vec![
                        ("__name__", name.to_owned()),
                        ("instance", format!("i{instance}")),
                        ("job", job.to_owned()),
                    ];
                    if !le.is_empty() {
                        labels.push(("le", (*le).to_owned()));
                    }
                    all.push((labels, samples));
                }
            }
        }
    }
    all
}

/// A random expression of instant vectors, at most `depth` operators high.
fn vector(noise: &mut Noise, depth: usize) -> String {
    if depth == 0 || noise.below(6) == 0 {
        return match noise.below(3) {
            0 => selector(noise),
            1 => {
                let function = noise.one(&[
                    "rate",
                    "increase",
                    "irate",
                    "delta",
                    "idelta",
                    "deriv",
                    "resets",
                    "changes",
                    "sum_over_time",
                    "avg_over_time",
                    "min_over_time",
                    "max_over_time",
                    "count_over_time",
                    "last_over_time",
                    "present_over_time",
                    "stddev_over_time",
                    "stdvar_over_time",
                ]);
                let counter = matches!(function, "rate" | "increase");
                format!("{function}({})", range(noise, counter))
            }
            _ => format!(
                "quantile_over_time({}, {})",
                noise.one(&["0", "0.3", "0.9", "1"]),
                range(noise, false)
            ),
        };
    }
    let inner = vector(noise, depth - 1);
    match noise.below(10) {
        0..=2 => {
            let how = noise.one(&["", " by (job)", " by (instance, job)", " without (job)", " by (nothing)"]);
            match noise.below(6) {
                // Which of equal values it takes is nobody's promise; their sum is.
                0 => format!("sum(topk{how}({}, {inner}))", noise.below(4)),
                // Of finite values only: what infinities and NaN do to these was changed.
                1 => format!("quantile{how}({}, {})", noise.one(&["0.5", "0.9", "0"]), selector(noise)),
                2 => format!("{}{how}({})", noise.one(&["stddev", "stdvar"]), selector(noise)),
                _ => {
                    let by = noise.one(&["sum", "count", "min", "max", "avg", "group"]);
                    format!("{by}{how}({inner})")
                }
            }
        }
        3 | 4 => {
            let function = noise.one(&[
                "abs",
                "ceil",
                "floor",
                "round",
                "sgn",
                "sqrt",
                "exp",
                "ln",
                "timestamp",
                "-",
                "absent",
                "sort",
                "+",
                "scalar",
                "log2",
                "log10",
                "hour",
                "minute",
                "month",
                "year",
                "day_of_week",
                "day_of_month",
                "day_of_year",
                "days_in_month",
            ]);
            match function {
                "scalar" => format!("vector(scalar({inner}))"),
                _ => format!("{function}({inner})"),
            }
        }
        5 => format!("clamp({inner}, -3, {})", noise.below(30)),
        6 => {
            let operator =
                noise.one(&["+", "-", "*", "/", "%", "^", ">", "<", "==", "!=", ">= bool", "<= bool"]);
            // What is left of a division makes much of the rounding that the deviation of large values has there.
            let operator = if operator == "%" && inner.contains("std") { "*" } else { operator };
            let number = noise.one(&["2", "0.5", "-1", "0", "NaN"]);
            if noise.below(2) == 0 {
                format!("({inner}) {operator} {number}")
            } else {
                format!("{number} {operator} ({inner})")
            }
        }
        7 => {
            let other = vector(noise, depth - 1);
            // Not the filters: matches that they drop count since then.
            let operator = noise.one(&["+", "-", "*", "/", "> bool", "== bool", "and", "or", "unless"]);
            let set = matches!(operator, "and" | "or" | "unless");
            let matching = match noise.below(4) {
                0 => " on (instance, job)",
                1 => " ignoring (le)",
                2 if !set => " on (job) group_left",
                _ => "",
            };
            format!("({inner}) {operator}{matching} ({other})")
        }
        8 => format!(r#"label_replace({inner}, "new", "n-$1", "instance", "i(.)")"#),
        _ => {
            if inner.contains(":1m]") || inner.contains(":2m]") {
                // The inner one's ranges would end on its steps.
                return inner;
            }
            let window = noise.one(&["5m:1m", "10m:2m", "4m:1m"]);
            let function =
                noise.one(&["max_over_time", "avg_over_time", "count_over_time", "delta", "sum_over_time"]);
            format!("{function}(({inner})[{window}])")
        }
    }
}

fn selector(noise: &mut Noise) -> String {
    let name = noise.one(&["a_total", "b_total", "g", "h_bucket"]);
    let matchers =
        noise.one(&["", r#"{job="x"}"#, r#"{instance=~"i[12]"}"#, r#"{job!="x"}"#, r#"{instance!~"i0|i1"}"#]);
    let modifier = noise.one(&["", "", "", " offset 2m", " offset -1m"]);
    format!("{name}{matchers}{modifier}")
}

fn range(noise: &mut Noise, counter: bool) -> String {
    let name =
        noise.one(if counter { &["a_total", "b_total", "h_bucket"] } else { &["a_total", "g", "h_bucket"] });
    let matchers = noise.one(&["", r#"{job="y"}"#, r#"{instance=~"i[03]"}"#]);
    let modifier = noise.one(&["", "", " offset 3m"]);
    format!("{name}{matchers}[{}]{modifier}", noise.one(&["1m", "2m", "5m", "10m"]))
}

fn expression(noise: &mut Noise) -> String {
    if noise.below(8) == 0 {
        let q = noise.one(&["0.5", "0.99", "0", "1.5"]);
        return format!(
            "histogram_quantile({q}, sum by (job, le) (rate(h_bucket[{}])))",
            noise.one(&["2m", "5m"])
        );
    }
    let depth = 1 + noise.below(3);
    vector(noise, depth)
}

type Answer = BTreeMap<String, Vec<(i64, f64)>>;

/// The answer's series by labels, or its kind of error.
fn ask(client: &mut Client, path: &str) -> Result<Result<Answer, String>> {
    let (_, body) = client.request("GET", path, &[], &[])?;
    let answer: Value = serde_json::from_slice(&body).with_context(|| path.to_owned())?;
    if answer["status"] != "success" {
        return Ok(Err(answer["errorType"].as_str().context("a kind of error")?.to_owned()));
    }
    let mut all = Answer::new();
    for series in answer["data"]["result"].as_array().context("a list of series")? {
        let mut points = Vec::new();
        for pair in series["values"].as_array().context("points")? {
            let stamp = (pair[0].as_f64().context("a timestamp")? * 1000.0).round() as i64;
            points.push((stamp, pair[1].as_str().context("a value")?.parse()?));
        }
        all.insert(series["metric"].to_string(), points);
    }
    Ok(Ok(all))
}

/// Equal, or within what other orders of summing give.
fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// The first thing in which two answers differ.
fn difference(ours: &Result<Answer, String>, theirs: &Result<Answer, String>) -> Option<String> {
    let (a, b) = match (ours, theirs) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(a), Err(b)) if a == b => return None,
        (a, b) => {
            let count = |r: &Result<Answer, String>| r.as_ref().map(BTreeMap::len).map_err(String::clone);
            return Some(format!("ours: {:?} series, theirs: {:?}", count(a), count(b)));
        }
    };
    let nothing = Vec::new();
    for labels in a.keys().chain(b.keys()) {
        let (a, b) = (a.get(labels).unwrap_or(&nothing), b.get(labels).unwrap_or(&nothing));
        let unequal = a.iter().zip(b).find(|(a, b)| a.0 != b.0 || !close(a.1, b.1));
        if let Some((a, b)) = unequal {
            return Some(format!("{labels}: ours {a:?}, theirs {b:?}"));
        }
        if a.len() != b.len() {
            return Some(format!("{labels}: {} points, theirs {}", a.len(), b.len()));
        }
    }
    None
}

#[allow(clippy::disallowed_methods, reason = "a test takes its size from the environment")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
#[allow(clippy::print_stdout, reason = "a conformance run prints its counts")]
fn random_queries_answer_as_prometheus_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = match tests::peer::prometheus() {
        Ok(program) => program,
        Err(reason) => {
            tier("peers", Some(reason));
            return Ok(());
        }
    };
    let features = "--enable-feature=promql-at-modifier,promql-negative-offset";
    let (_peer, address) = start_prometheus(&program, &folder.path().join("peer"), features)?;
    let node = Node::start(&folder.path().join("data"), &[])?;
    let (queries, seed) = (setting("ISOBAR_DIFF_QUERIES", 400), setting("ISOBAR_DIFF_SEED", 42));
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);

    // An hour of data that ends a few minutes ago, from a full minute on.
    let first_ms = (SystemClock::new().now_ms() - 4_000_000) / 60_000 * 60_000;
    let series = data(&mut noise, first_ms, 240);
    let body = write_body(series);
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let (mut ours, mut theirs) = (node.client(), Client::new(&address));
    for client in [&mut ours, &mut theirs] {
        let (status, text) = client.request("POST", "/api/v1/write", &headers, &body)?;
        if status >= 300 {
            bail!("writing: {status} {}", String::from_utf8_lossy(&text));
        }
    }

    let (mut equal, mut empty, mut errors, mut different) = (0, 0, 0, Vec::new());
    for _ in 0..queries {
        let text = expression(&mut noise);
        let step = [60, 120][noise.below(2)];
        // Off the full minute, so that no subquery step is the end of a range.
        let start = first_ms / 1000 + 60 * (2 + noise.below(10) as i64) + 17;
        let path = format!(
            "/api/v1/query_range?query={}&start={start}&end={}&step={step}",
            encoded(&text),
            start + 2400
        );
        let (a, b) = (ask(&mut ours, &path)?, ask(&mut theirs, &path)?);
        match difference(&a, &b) {
            None => {
                equal += 1;
                empty += usize::from(a.as_ref().is_ok_and(BTreeMap::is_empty));
                errors += usize::from(a.is_err());
            }
            Some(what) => different.push(format!("{text}   (start {start}, step {step})\n    {what}")),
        }
    }
    println!(
        "{queries} queries of seed {seed}: {equal} equal ({empty} empty, {errors} errors), {} different",
        different.len()
    );
    assert!(equal - empty - errors > queries as usize / 2, "most queries answer something");
    if !different.is_empty() {
        let shown = different[..different.len().min(10)].join("\n");
        bail!("{} of {queries} differ, the first:\n{shown}", different.len());
    }
    Ok(())
}
