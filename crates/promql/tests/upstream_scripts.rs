//! Parses every query and series of Prometheus's own test scripts, which are not part of the repository: the
//! environment variable `ISOBAR_PROMQLTEST_DIR` names their folder. Without it the test says so and passes.
//!
//! Not here: evaluating them (`tests`).

use std::path::PathBuf;

use promql::series::parse_start_timestamps;
use promql::{ParseOptions, parse, parse_metric, parse_series};

#[allow(clippy::disallowed_methods, reason = "a test's data folder is chosen by whoever runs it")]
fn folder() -> Option<PathBuf> {
    std::env::var_os("ISOBAR_PROMQLTEST_DIR").map(PathBuf::from)
}

/// The query of an `eval` line.
fn query(line: &str) -> Option<&str> {
    let mut words = line.splitn(2, char::is_whitespace);
    if !words.next()?.starts_with("eval") {
        return None;
    }
    let rest = words.next()?.trim_start();
    let skip = |text: &'static str, rest: &mut &str| -> Option<()> {
        *rest = rest.trim_start().strip_prefix(text)?.trim_start();
        let end = rest.find(char::is_whitespace)?;
        *rest = rest[end..].trim_start();
        Some(())
    };
    let mut tail = rest;
    if let Some(instant) = tail.strip_prefix("instant") {
        tail = instant;
        skip("at", &mut tail)?;
    } else {
        tail = tail.strip_prefix("range")?;
        skip("from", &mut tail)?;
        skip("to", &mut tail)?;
        skip("step", &mut tail)?;
    }
    Some(tail)
}

#[test]
fn every_script_parses() {
    let Some(folder) = folder() else {
        println!("skipped: ISOBAR_PROMQLTEST_DIR is not set, so there are no scripts to parse");
        return;
    };
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "test"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    let (mut queries, mut series, mut failures) = (0, 0, Vec::new());
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let options = ParseOptions {
            // Only one script is about these names; the others must not need them.
            unquoted_utf8_names: path.ends_with("unquoted_utf8_names.test"),
            ..ParseOptions::ALL
        };
        let mut loading = false;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let place = || format!("{}:{}", path.display(), number + 1);
            if let Some(query) = query(line) {
                loading = false;
                queries += 1;
                match parse(query, &options) {
                    Err(error) => failures.push(format!("{}: {query}: {error}", place())),
                    Ok(expr) => {
                        let printed = expr.to_string();
                        let again = parse(&printed, &ParseOptions::ALL).map(|e| e.to_string());
                        if again.as_ref() != Ok(&printed) {
                            failures
                                .push(format!("{}: {query}: prints as {printed}, then {again:?}", place()));
                        }
                    }
                }
            } else if line.starts_with("load") {
                loading = true;
            } else if line.is_empty() || line.starts_with("clear") {
                loading = false;
            } else if loading && !line.starts_with('#') {
                series += 1;
                let failed = match parse_start_timestamps(line, &options) {
                    Some(read) => read.err(),
                    None => parse_series(line, &options).err().map(|e| e.to_string()),
                };
                failures.extend(failed.map(|error| format!("{}: {line}: {error}", place())));
            }
        }
    }
    println!("{queries} queries and {series} series");
    assert!(queries > 2000 && series > 500, "only {queries} queries and {series} series were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(parse_metric("up", &ParseOptions::default()).is_ok());
}
