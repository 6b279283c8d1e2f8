//! The engine against a slow evaluator of our own, on random queries over random series.
//!
//! `ISOBAR_QUERIES` says how many (default 500), `ISOBAR_SEED` from which seed.

#![allow(clippy::print_stdout, reason = "a random run prints its seed")]

use std::collections::BTreeMap;

use engine::{EvalContext, Value};
use model::seam::QueryBudget;
use model::{StepGrid, TenantId};
use promql::{ParseOptions, parse};
use tests::naive::{LabelMap, Naive};
use tests::random_query::{Queries, Random, TIMES, series};

/// Equal up to rounding; NaNs are equal.
fn close(a: f64, b: f64) -> bool {
    if (a.is_nan() && b.is_nan()) || a == b {
        return true;
    }
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

fn by_labels(value: &Value) -> BTreeMap<LabelMap, Vec<(i64, f64)>> {
    let Value::Matrix(series) = value else { return BTreeMap::new() };
    let one = |s: &engine::Series| {
        let labels = s.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        (labels, s.floats.iter().map(|p| (p.timestamp, p.value)).collect())
    };
    series.iter().map(one).collect()
}

fn differs(
    expected: &BTreeMap<LabelMap, Vec<(i64, f64)>>,
    actual: &BTreeMap<LabelMap, Vec<(i64, f64)>>,
) -> Option<String> {
    if !expected.keys().eq(actual.keys()) {
        let (e, a): (Vec<_>, Vec<_>) = (expected.keys().collect(), actual.keys().collect());
        return Some(format!("series:\n  naive  {e:?}\n  engine {a:?}"));
    }
    expected.iter().zip(actual.values()).find_map(|((labels, e), a)| {
        let same = e.len() == a.len() && e.iter().zip(a).all(|(e, a)| e.0 == a.0 && close(e.1, a.1));
        (!same).then(|| format!("{labels:?}:\n  naive  {e:?}\n  engine {a:?}"))
    })
}

#[allow(clippy::disallowed_methods, reason = "the environment asks for longer runs")]
fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn the_engine_gives_what_a_slow_evaluator_gives() {
    let (count, first) = (asked("ISOBAR_QUERIES", 500), asked("ISOBAR_SEED", 1));
    let per_data = 100;
    let (mut failed, mut empty, mut wrong) = (0, 0, Vec::new());
    for block in 0..count.div_ceil(per_data) {
        let seed = first + block;
        let mut random = Random::new(seed ^ 0x5eed);
        let source = series(&mut random);
        let naive = Naive::of(&source, 300_000);
        let mut queries = Queries::new(seed, false);
        for _ in 0..per_data.min(count - block * per_data) {
            let text = queries.query();
            let expr =
                parse(&text, &ParseOptions::ALL).unwrap_or_else(|e| panic!("seed {seed}: {text}: {e}"));
            let grid = StepGrid::range(random.below(TIMES.1 as usize) as i64, TIMES.1 + 60_000, 47_000);
            let ctx = EvalContext::range(TenantId::anonymous(), grid.end(), QueryBudget::unlimited());
            let expected = naive.evaluate(&expr, (0..grid.count).map(|step| grid.at(step)));
            let actual = engine::evaluate(&expr, grid, &source, &ctx);
            let why = match (&expected, &actual) {
                (Err(_), Err(_)) => {
                    failed += 1;
                    None
                }
                (Ok(expected), Ok(actual)) => {
                    empty += u64::from(expected.is_empty());
                    differs(expected, &by_labels(&actual.value))
                }
                (e, a) => Some(format!("naive {:?}, engine {:?}", e.as_ref().err(), a.as_ref().err())),
            };
            if let Some(why) = why {
                wrong.push(format!("seed {seed}, {grid:?}: {text}\n{why}"));
            }
        }
    }
    println!(
        "seeds from {first}: {count} queries, {failed} failed alike, {empty} empty, {} wrong",
        wrong.len()
    );
    let shown: Vec<String> = wrong.iter().take(5).map(|w| w.chars().take(2500).collect()).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n\n"));
    assert!(failed * 2 < count && empty * 2 < count, "{failed} failed, {empty} empty of {count}");
}
