//! Queries by parts give what an evaluation over all series at once gives, bit by bit: for every row of the table of
//! what may run where, and for random queries over random series.
//!
//! `ISOBAR_QUERIES` says how many random queries (default 300), `ISOBAR_SEED` which.

#![allow(clippy::print_stdout, reason = "a random run prints its seed")]

use engine::distribute::{Push, TABLE, plan};
use engine::{EvalContext, Features};
use model::seam::QueryBudget;
use model::seam::fake::MemorySource;
use model::{Labels, StepGrid, TenantId};
use promql::{ParseOptions, parse};
use tests::random_query::{Queries, Random, TIMES, series};
use tests::spread::{Spread, local, same, same_values};

fn context(end_ms: i64, is_instant: bool, features: Features) -> EvalContext {
    EvalContext {
        end_ms,
        is_instant,
        features,
        ..EvalContext::instant(TenantId::anonymous(), end_ms, QueryBudget::unlimited())
    }
}

/// `x` and `y` of four instances, as counters and as buckets.
fn two_metrics() -> MemorySource {
    let mut source = MemorySource::new();
    for (at, name) in ["x", "y", "target_info"].into_iter().enumerate() {
        for instance in 0..4 {
            // A target has one info series.
            let all: &[&str] = if name == "target_info" { &[""] } else { &["", "1", "+Inf"] };
            for le in all.iter().copied() {
                let instance_name = format!("i{instance}");
                let labels = [("__name__", name), ("job", "j"), ("instance", &instance_name), ("le", le)];
                let labels = Labels::from_pairs(labels).expect("labels that form a set");
                for step in 0..60i64 {
                    let value = (step * (instance + 1) % 17 + at as i64) as f64;
                    source.push(&labels, step * 15_000, value);
                }
            }
        }
    }
    source
}

#[test]
fn every_row_of_the_table_pushes_what_it_says_and_gives_the_local_answer() {
    let source = two_metrics();
    for row in TABLE {
        let expr = parse(row.example, &ParseOptions::ALL).unwrap_or_else(|e| panic!("{}: {e}", row.example));
        for instant in [false, true] {
            let grid =
                if instant { StepGrid::instant(60_000) } else { StepGrid::range(60_000, 840_000, 30_000) };
            let ctx = context(grid.end(), instant, Features::default());
            let plan = plan(&expr, grid, &ctx, Push::Everything).unwrap();
            let pushed: Vec<&str> = plan
                .parts()
                .iter()
                .filter(|p| p.kind() != engine::distribute::PartKind::Series)
                .map(engine::distribute::Part::text)
                .collect();
            assert_eq!(pushed, row.pushed, "{:?}", row.constructs);
            let expected = local(&expr, grid, &source, &ctx);
            assert!(expected.is_ok(), "{}: {expected:?}", row.example);
            for (shards, places) in [(1, 1), (2, 2), (3, 3), (8, 3)] {
                let spread = Spread::of(&source, shards, places).evaluate(&expr, grid, &ctx);
                same(&expected, &spread, row.example)
                    .unwrap_or_else(|e| panic!("{} on {shards} shards: {e}", row.example));
            }
        }
    }
}

#[test]
fn the_page_shows_the_table() {
    let mut expected = String::from("| what | where | why |\n|---|---|---|\n");
    for row in TABLE {
        let what = row.constructs.join("`, `");
        let pushed = row.pushed.join("`, `");
        let pushed = if pushed.is_empty() { "nothing".to_owned() } else { format!("`{pushed}`") };
        expected += &format!(
            "| `{what}` | {} | {}. Of `{}`: {pushed} |\n",
            row.rule.as_str(),
            row.why,
            row.example.replace('|', "\\|")
        );
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/promql-distributed.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let shown = page.split("<!-- table -->\n").nth(1).and_then(|rest| rest.split("\n<!-- end").next());
    assert_eq!(shown.map(str::trim), Some(expected.trim()), "the table of {path} should be:\n{expected}");
}

#[allow(clippy::disallowed_methods, reason = "the environment asks for longer runs")]
fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_queries_by_parts_give_the_local_answer() {
    let (count, first) = (asked("ISOBAR_QUERIES", 300), asked("ISOBAR_SEED", 1));
    let per_data = 100;
    let (mut failed_alike, mut pushed, mut empty, mut wrong) = (0, 0, 0, Vec::new());
    for block in 0..count.div_ceil(per_data) {
        let seed = first + block;
        let mut random = Random::new(seed);
        let source = series(&mut random);
        let spreads = [(1, 1), (2, 2), (3, 3), (8, 3), (8, 2)]
            .map(|(shards, places)| Spread::of(&source, shards, places));
        let backwards = Spread::of(&source, 8, 1);
        let mut queries = Queries::new(seed, true);
        for _ in 0..per_data.min(count - block * per_data) {
            let text = queries.query();
            let expr =
                parse(&text, &ParseOptions::ALL).unwrap_or_else(|e| panic!("seed {seed}: {text}: {e}"));
            let instant = random.once_in(4);
            let start = random.below(TIMES.1 as usize) as i64;
            let step = [15_000, 30_000, 61_000][random.below(3)];
            let grid = if instant {
                StepGrid::instant(start)
            } else {
                StepGrid::range(start, TIMES.1 + 60_000, step)
            };
            let features = Features {
                delayed_name_removal: random.once_in(2),
                type_and_unit_labels: random.once_in(3),
                use_start_timestamps: random.once_in(3),
            };
            let ctx = context(if instant { start } else { TIMES.1 + 60_000 }, instant, features);
            let expected = local(&expr, grid, &source, &ctx);
            match &expected {
                Err(_) => failed_alike += 1,
                Ok(answer) => {
                    empty += usize::from(match &answer.value {
                        engine::Value::Vector(all) => all.is_empty(),
                        engine::Value::Matrix(all) => all.is_empty(),
                        _ => false,
                    });
                    let plan = plan(&expr, grid, &ctx, Push::Everything).unwrap();
                    let is_pushed =
                        |p: &engine::distribute::Part| p.kind() != engine::distribute::PartKind::Series;
                    pushed += usize::from(plan.parts().iter().any(is_pushed));
                }
            }
            // What is printed is read again as the same, on one line and over several.
            for printed in [expr.to_string(), promql::prettify(&expr)] {
                let again = parse(&printed, &ParseOptions::ALL).unwrap_or_else(|e| panic!("{printed}: {e}"));
                assert_eq!(again.to_string(), expr.to_string(), "{text}");
                if let Err(why) = same_values(&expected, &local(&again, grid, &source, &ctx)) {
                    wrong.push(format!("seed {seed}: {text}\nprinted: {printed}\n{why}"));
                }
            }
            let mut check = |what: &str, outcome| {
                if let Err(why) = same(&expected, &outcome, &text) {
                    wrong.push(format!("seed {seed}, {what}, {features:?}, {grid:?}: {text}\n{why}"));
                }
            };
            check("in another order", local(&expr, grid, &backwards.as_one(), &ctx));
            for spread in &spreads {
                check(&spread.shape(), spread.evaluate(&expr, grid, &ctx));
            }
        }
    }
    println!(
        "seeds from {first}: {count} queries, {failed_alike} failed alike, {empty} empty, {pushed} with pushed parts, \
         {} wrong",
        wrong.len()
    );
    let shown: Vec<String> = wrong.iter().take(5).map(|w| w.chars().take(3000).collect()).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n\n"));
    // A grammar that mostly fails or gives nothing would prove little.
    assert!(failed_alike * 2 < count, "{failed_alike} of {count} queries failed");
    assert!(empty * 2 < count as usize && pushed * 2 > count as usize, "{empty} empty, {pushed} pushed");
}

#[test]
fn pushing_an_aggregation_sends_far_fewer_bytes_than_moving_its_series() {
    let mut source = MemorySource::new();
    for instance in 0..200 {
        let name = format!("i{instance}");
        let labels = [("__name__", "c_total"), ("job", "j"), ("instance", name.as_str())];
        let labels = Labels::from_pairs(labels).unwrap();
        for step in 0..240i64 {
            source.push(&labels, step * 15_000 + instance * 7, (step * (instance + 3)) as f64 * 1.1);
        }
    }
    let spread = Spread::of(&source, 8, 3);
    let grid = StepGrid::range(300_000, 3_600_000, 15_000);
    let ctx = context(3_600_000, false, Features::default());
    let expr = parse("sum by (job) (rate(c_total[5m]))", &ParseOptions::ALL).unwrap();
    let (fragments, partials) = spread.bytes(&expr, grid, &ctx, Push::Everything).unwrap();
    let (_, moved) = spread.bytes(&expr, grid, &ctx, Push::Nothing).unwrap();
    println!(
        "sum by (job) of 200 series, {} steps, 3 places: {fragments} bytes of fragments, {partials} of partials; \
         {moved} bytes when the series move",
        grid.count
    );
    assert!((fragments + partials) * 20 < moved, "{fragments} + {partials} against {moved}");
}
