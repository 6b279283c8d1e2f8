//! What needs the product to be read, or a second opinion: evaluation, parameters, JSON, files of configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use engine::{EvalContext, Value};
use model::seam::QueryBudget;
use model::seam::fake::MemorySource;
use model::{StepGrid, TenantId};
use promql::parse;
use tests::naive::{LabelMap, Naive};
use tests::random_query::{Random, TIMES, series};

use crate::text::OPTIONS;

static SERIES: LazyLock<(MemorySource, Naive)> = LazyLock::new(|| {
    let source = series(&mut Random::new(1));
    let naive = Naive::of(&source, 300_000);
    (source, naive)
});

/// What the naive evaluator has a value for, the engine gives the same.
pub(crate) fn promql_eval(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Small, so that the naive one ends; and without what it does not know: calculated durations and modifiers.
    let mut ranges = text.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or(""));
    let is_plain = |range: &str| range.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':');
    if text.len() > 200 || text.matches('[').count() > 1 || !ranges.all(is_plain) {
        return;
    }
    if ["offset", "@", "anchored", "smoothed", "fill"].iter().any(|word| text.contains(word)) {
        return;
    }
    let Ok(expr) = parse(text, &OPTIONS) else { return };
    let grid = StepGrid::range(TIMES.1 / 2, TIMES.1, TIMES.1 / 8);
    let ctx = EvalContext::range(TenantId::anonymous(), grid.end(), QueryBudget::unlimited());
    let (source, naive) = &*SERIES;
    let Ok(answer) = engine::evaluate(&expr, grid, source, &ctx) else { return };
    let Ok(expected) = naive.evaluate(&expr, (0..grid.count).map(|step| grid.at(step))) else { return };
    let Value::Matrix(found) = &answer.value else { return };
    // Histograms are no business of the naive one.
    if found.iter().any(|series| !series.histograms.is_empty()) {
        return;
    }
    let points = |series: &engine::Series| -> (LabelMap, Vec<(i64, f64)>) {
        let labels = series.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        (labels, series.floats.iter().map(|point| (point.timestamp, point.value)).collect())
    };
    let found: BTreeMap<LabelMap, Vec<(i64, f64)>> = found.iter().map(points).collect();
    assert!(found.keys().eq(expected.keys()), "{text:?}: {found:?}, expected {expected:?}");
    for (labels, wanted) in &expected {
        let same = wanted.iter().zip(&found[labels]).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
        assert!(same && wanted.len() == found[labels].len(), "{text:?} {labels:?}: {found:?}, {expected:?}");
    }
}

/// Equal up to rounding; NaNs are equal.
fn close(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// Query strings and forms; times, durations and limits in them.
pub(crate) fn http_params(data: &[u8]) {
    api::fuzz::params(data);
}

/// Text as JSON.
pub(crate) fn json_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    api::fuzz::json(text);
}

/// `prometheus.yml`: what is shown of it loads as the same.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Names files of this machine.
    if text.contains("scrape_config_files") {
        return;
    }
    let load = |text: &str| server::config::load_str(text, "f.yml", Path::new("/nowhere"), &|_| None);
    match load(text) {
        Ok(loaded) => {
            let again = load(loaded.to_yaml());
            let again = again.unwrap_or_else(|error| panic!("{}\n{error}", loaded.to_yaml()));
            assert_eq!(again.to_yaml(), loaded.to_yaml());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The file of `--web.config.file`.
pub(crate) fn web_config(data: &[u8]) {
    let Ok(file) = tempfile::NamedTempFile::new() else { return };
    if std::fs::write(file.path(), data).is_ok() {
        let _ = server::config::load_web(file.path());
    }
}
