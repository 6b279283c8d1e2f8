//! Random queries of the whole language over random data of every kind, answered by this program and by a Prometheus 3
//! that is given as `ISOBAR_PROMETHEUS` (Debian's is too old): the same series, points, histograms, kinds of errors and
//! annotations.
//!
//! Each hundred queries have data of their own, and so a Prometheus of their own. `ISOBAR_DIFF_QUERIES` and
//! `ISOBAR_DIFF_SEED` choose how many queries are asked (400) and which; with `ISOBAR_DIFF_FORM` (`query=up&time=600`)
//! both answers to that one request are shown, over the data of the first seed. What is known to differ stands in
//! `docs/promql.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::{Client, encoded};
use model::Labels;
use serde_json::Value;
use tests::node::Node;
use tests::peer::start_prometheus;
use tests::random_query::{Queries, Random, TIMES, series};
use tests::remote_write::{Series, Version, body_v2, send, series_of};

const FEATURES: &str = "--enable-feature=promql-experimental-functions,promql-binop-fill-modifiers";

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Queries over the same data.
const PER_DATA: u64 = 100;

#[allow(
    clippy::disallowed_methods,
    reason = "the environment asks for longer runs, and names the other program"
)]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What is sent in one request after the other. Upstream takes a series' floats before its histograms, and would refuse
/// what is older then: a part has a series' points as far as they are of one kind.
fn in_order(all: Vec<Series>) -> Result<Vec<Vec<Series>>> {
    let mut parts: Vec<Vec<Series>> = Vec::new();
    for mut series in all {
        // What it means for matching has changed since 3.14.
        series.labels = Labels::from_pairs(series.labels.iter().filter(|(name, _)| *name != "__type__"))?;
        let (mut floats, mut histograms) =
            (series.samples.into_iter().peekable(), series.histograms.into_iter().peekable());
        for at in 0.. {
            let mut part = Series { labels: series.labels.clone(), ..Series::default() };
            let until = histograms.peek().map_or(i64::MAX, |point| point.0);
            // After a marker a part ends, too: upstream gives it the kind of what was before, at the end of the request.
            while let Some(point) = floats.next_if(|point| point.0 < until) {
                part.samples.push(point);
                if model::is_stale(point.1) {
                    break;
                }
            }
            if part.samples.is_empty() {
                let until = floats.peek().map_or(i64::MAX, |point| point.0);
                part.histograms.extend(std::iter::from_fn(|| histograms.next_if(|point| point.0 < until)));
            }
            if part.samples.is_empty() && part.histograms.is_empty() {
                break;
            }
            if parts.len() == at {
                parts.push(Vec::new());
            }
            parts[at].push(part);
        }
    }
    Ok(parts)
}

/// What is compared of an answer.
struct Answer {
    /// Points by labels, then by what the point is: a float, or a part of a histogram.
    points: BTreeMap<String, BTreeMap<(i64, String), f64>>,
    /// The kind of error and its text.
    error: Option<(String, String)>,
    notes: BTreeSet<String>,
}

fn number(value: &Value) -> Result<f64> {
    Ok(value.as_str().with_context(|| format!("a number in quotes, not {value}"))?.parse()?)
}

/// The parts of one point.
fn add(points: &mut BTreeMap<(i64, String), f64>, pair: &Value) -> Result<()> {
    let stamp = (pair[0].as_f64().context("a timestamp")? * 1000.0).round() as i64;
    let Value::Object(histogram) = &pair[1] else {
        points.insert((stamp, "value".into()), number(&pair[1])?);
        return Ok(());
    };
    for (name, value) in histogram {
        let Some(buckets) = value.as_array() else {
            points.insert((stamp, name.clone()), number(value)?);
            continue;
        };
        for bucket in buckets {
            let name = format!("{} {} {}", bucket[0], bucket[1], bucket[2]);
            points.insert((stamp, name), number(&bucket[3])?);
        }
    }
    Ok(())
}

fn ask(client: &mut Client, path: &str, form: &str) -> Result<Answer> {
    let (_, body) = client.request("POST", path, &[FORM], form.as_bytes())?;
    let answer: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{form}: {}", String::from_utf8_lossy(&body)))?;
    let mut notes = BTreeSet::new();
    for key in ["warnings", "infos"] {
        for note in answer[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // Upstream adds the samples up wrongly.
            let parts = note.split_once(", over ").and_then(|(a, b)| Some((a, b.split_once(" samples")?.1)));
            notes.insert(parts.map_or(note.to_owned(), |(a, b)| format!("{a}{b}")));
        }
    }
    let mut points = BTreeMap::new();
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let error = (answer["status"] != "success").then(|| (text("errorType"), text("error")));
    match answer["data"]["resultType"].as_str() {
        Some("scalar") => add(points.entry(String::new()).or_default(), &answer["data"]["result"])?,
        _ => {
            for series in answer["data"]["result"].as_array().into_iter().flatten() {
                let of = points.entry(series["metric"].to_string()).or_default();
                for key in ["value", "histogram"] {
                    series.get(key).map(|pair| add(of, pair)).transpose()?;
                }
                for key in ["values", "histograms"] {
                    series[key].as_array().into_iter().flatten().try_for_each(|pair| add(of, pair))?;
                }
            }
        }
    }
    Ok(Answer { points, error, notes })
}

/// Equal, or within what other orders of summing give.
fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// Why Prometheus 3.14 may answer `text` otherwise than 3.16, or than this program, in the way `what`. All of these are
/// explained in `docs/promql.md`.
fn known(text: &str, what: &str) -> Option<&'static str> {
    let has = |names: &[&str]| names.iter().any(|name| text.contains(name));
    if what.starts_with("notes") {
        return match () {
            () if what.contains("sort is ineffective") => Some("whether sorting is in vain"),
            () if what.contains("(1:1)") => Some("where a subquery stands"),
            () if what.contains("custom buckets") => Some("buckets that only count and sum are taken of"),
            () if what.contains("quantile value should be") => Some("which of many notes are shown"),
            () if what.contains("incompatible sample types") => Some("all kinds of a step, or the last"),
            () if has(&["histogram_quantiles"]) => Some("notes of histogram_quantiles"),
            () => None,
        };
    }
    match () {
        () if what.ends_with("(more than its count)") => Some("a bucket that is counted twice"),
        () if has(&["topk", "bottomk", "limitk"]) => Some("which of equal values is taken"),
        () if has(&["info("]) => Some("info() of series without identifying labels"),
        () if has(&["histogram_fraction"]) => Some("fractions of custom buckets"),
        () if has(&["quantile", "mad_over_time"]) => Some("quantiles beside infinities and NaN"),
        () if has(&["clamp"]) => Some("clamp with NaN"),
        () if has(&["count_values"]) && has(&["^", "avg", "stddev"]) => Some("the last digit of a label"),
        () => None,
    }
}

/// Whether the buckets of the histogram at `stamp` hold more than it says that it counted.
fn more_than_its_count(points: &BTreeMap<(i64, String), f64>, stamp: i64) -> bool {
    let of = |bucket: bool| {
        let of_stamp = points.iter().filter(|((at, _), _)| *at == stamp);
        of_stamp.filter(move |((_, name), _)| if bucket { name.contains(' ') } else { name == "count" })
    };
    let count: f64 = of(false).map(|(_, count)| count).sum();
    of(true).map(|(_, bucket)| bucket).sum::<f64>() > count * (1.0 + 1e-9)
}

/// The first thing in which two answers differ.
fn difference(ours: &Answer, theirs: &Answer) -> Option<String> {
    let kind = |a: &Answer| a.error.as_ref().map(|(kind, _)| kind.clone());
    // Where it fails by a mistake of its own, it says so.
    if theirs.error.as_ref().is_some_and(|(_, text)| text.contains("runtime error")) {
        return None;
    }
    if kind(ours) != kind(theirs) {
        return Some(format!("error: ours {:?}, theirs {:?}", ours.error, theirs.error));
    }
    let nothing = BTreeMap::new();
    for labels in ours.points.keys().chain(theirs.points.keys()) {
        let a = ours.points.get(labels).unwrap_or(&nothing);
        let b = theirs.points.get(labels).unwrap_or(&nothing);
        for point in a.keys().chain(b.keys()) {
            match (a.get(point), b.get(point)) {
                (Some(a), Some(b)) if close(*a, *b) => {}
                (x, y) => {
                    let twice = if more_than_its_count(b, point.0) { " (more than its count)" } else { "" };
                    return Some(format!("value: {labels} {point:?}: ours {x:?}, theirs {y:?}{twice}"));
                }
            }
        }
    }
    let only = |a: &Answer, b: &Answer| -> Vec<String> { a.notes.difference(&b.notes).cloned().collect() };
    (ours.notes != theirs.notes)
        .then(|| format!("notes: only ours {:?}, only theirs {:?}", only(ours, theirs), only(theirs, ours)))
}

#[test]
#[allow(clippy::print_stdout, reason = "a conformance run prints its counts")]
fn random_queries_answer_as_prometheus_3_does() -> Result<()> {
    let Some(program) = environment("ISOBAR_PROMETHEUS") else {
        println!("skipped: ISOBAR_PROMETHEUS names no Prometheus 3");
        return Ok(());
    };
    let asked = |name, default| environment(name).map_or(Ok(default), |text| text.parse::<u64>());
    let (count, first) = (asked("ISOBAR_DIFF_QUERIES", 400)?, asked("ISOBAR_DIFF_SEED", 1)?);
    let folder = tempfile::tempdir()?;
    let flags = ["--storage.tsdb.retention.time=0s", FEATURES];
    let (mut failed, mut empty, mut different) = (0, 0, Vec::new());
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    for block in 0..count.div_ceil(PER_DATA) {
        let seed = first + block;
        let node = Node::start(&folder.path().join(format!("ours-{seed}")), &flags)?;
        let theirs = folder.path().join(format!("theirs-{seed}"));
        let (_peer, address) =
            start_prometheus(&program, &theirs, &format!("{FEATURES},promql-extended-range-selectors"))?;
        let mut random = Random::new(seed);
        let parts = in_order(series_of(&series(&mut random))?)?;
        let (mut ours, mut theirs) = (node.client(), Client::new(&address));
        for client in [&mut ours, &mut theirs] {
            for part in &parts {
                let answer = send(client, Version::V2, None, &body_v2(part))?;
                ensure!(answer.status == 204, "writing: {} {}", answer.status, answer.text);
            }
        }
        if let Some(form) = environment("ISOBAR_DIFF_FORM") {
            let path = if form.contains("step=") { "/api/v1/query_range" } else { "/api/v1/query" };
            for client in [&mut ours, &mut theirs] {
                let (_, body) = client.request("POST", path, &[FORM], form.as_bytes())?;
                println!("{}", String::from_utf8_lossy(&body));
            }
            return Ok(());
        }
        let mut queries = Queries::new(seed, true);
        for _ in 0..PER_DATA.min(count - block * PER_DATA) {
            let text = queries.query();
            let start = random.below(TIMES.1 as usize) as f64 / 1000.0;
            let (path, times) = if random.once_in(4) {
                ("/api/v1/query", format!("time={start}"))
            } else {
                let step = [15, 30, 61][random.below(3)];
                ("/api/v1/query_range", format!("start={start}&end={}&step={step}", TIMES.1 / 1000 + 60))
            };
            let form = format!("query={}&{times}", encoded(&text));
            let (a, b) = (ask(&mut ours, path, &form)?, ask(&mut theirs, path, &form)?);
            failed += usize::from(a.error.is_some());
            empty += usize::from(a.error.is_none() && a.points.is_empty());
            if let Some(what) = difference(&a, &b) {
                match known(&text, &what) {
                    Some(reason) => *explained.entry(reason).or_default() += 1,
                    None => different.push(format!("{text}   (seed {seed}, {times})\n    {what}")),
                }
            }
        }
    }
    println!(
        "{count} queries, seeds from {first}: {failed} failed, {empty} empty, {} different; explained: {explained:?}",
        different.len()
    );
    if !different.is_empty() {
        bail!("{} of {count} differ:\n{}", different.len(), different.join("\n"));
    }
    ensure!((failed + empty) * 2 < usize::try_from(count)?, "most queries answer something");
    Ok(())
}
