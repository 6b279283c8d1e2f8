//! PromQL scripts, over series in memory and again over HTTP against a node: our own (`tests/scripts/*.test`) and
//! upstream's, which are read from the folder that `ISOBAR_PROMQLTEST_DIR` names.

#![allow(clippy::print_stdout, reason = "a conformance run prints what passed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tests::node::Node;
use tests::promqltest::{self, Mode, Outcome, Remote};

/// All series at once, and by parts.
const MODES: [Mode; 2] = [Mode::Local, Mode::Spread { shards: 8, places: 3 }];

/// What became of a folder's scripts.
#[derive(Default)]
struct Total {
    passed: usize,
    failures: Vec<String>,
    skipped: usize,
}

/// Runs all scripts of a folder and prints passed, failed and skipped a file, and why evals were skipped.
fn run_folder(folder: &Path, mut run: impl FnMut(&str) -> Result<Outcome, String>) -> Total {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "test"));
    files.sort();
    let mut total = Total::default();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        match run(&text) {
            Err(error) => total.failures.push(format!("{name}: {error}")),
            Ok(outcome) => {
                let (failed, skipped) = (outcome.failures.len(), outcome.skipped.len());
                println!("{name}: {} passed, {failed} failed, {skipped} skipped", outcome.passed);
                total.passed += outcome.passed;
                total.skipped += skipped;
                for (line, reason) in outcome.skipped {
                    *reasons.entry(format!("{name}:{line}: {reason}")).or_default() += 1;
                }
                let described =
                    outcome.failures.iter().map(|f| format!("{name}:{}: {}: {}", f.line, f.query, f.message));
                total.failures.extend(described);
            }
        }
    }
    for reason in reasons.keys() {
        println!("skipped {reason}");
    }
    let (failed, skipped) = (total.failures.len(), total.skipped);
    println!("{}: {} passed, {failed} failed, {skipped} skipped", folder.display(), total.passed);
    total
}

fn check(folder: &Path, run: impl FnMut(&str) -> Result<Outcome, String>) {
    let total = run_folder(folder, run);
    let failures = &total.failures;
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        failures.len() + total.passed,
        failures.join("\n")
    );
    assert!(total.passed > 0, "no script in {}", folder.display());
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

#[allow(clippy::disallowed_methods, reason = "the folder of upstream's scripts is named by the environment")]
fn upstream() -> Option<PathBuf> {
    let folder = std::env::var_os("ISOBAR_PROMQLTEST_DIR");
    if folder.is_none() {
        println!("skipped: ISOBAR_PROMQLTEST_DIR names no folder with upstream's scripts");
    }
    folder.map(PathBuf::from)
}

#[allow(clippy::disallowed_methods, reason = "the environment asks for another form of the run")]
fn copies() -> u32 {
    std::env::var("ISOBAR_PROMQLTEST_COPIES").map_or(1, |text| text.parse().expect("a number"))
}

fn over_http(folder: &Path) {
    let data = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(&data.path().join("data"), promqltest::FLAGS).expect("a node that starts");
    let mut remote = Remote::new([node.address.as_str()]);
    check(folder, |text| remote.run(text));
}

/// Against three nodes with 8 shards of `copies` copies each; each query is asked of another node.
fn over_three(folder: &Path, copies: u32) {
    let data = tempfile::tempdir().expect("a temporary folder");
    let copies = format!("--cluster.replication-factor={copies}");
    let flags = [&[&*copies, "--cluster.shards=8"], promqltest::FLAGS].concat();
    let (nodes, _) = tests::three::start(data.path(), &flags).expect("a cluster that forms");
    let mut remote = Remote::new(nodes.iter().map(|node| node.address.as_str()));
    check(folder, |text| remote.run(text));
}

#[test]
fn own_scripts() {
    for mode in MODES {
        check(&own(), |text| promqltest::run(text, mode));
    }
}

#[test]
fn own_scripts_over_http() {
    over_http(&own());
}

#[test]
fn upstream_scripts() {
    if let Some(folder) = upstream() {
        for mode in MODES {
            check(&folder, |text| promqltest::run(text, mode));
        }
    }
}

#[test]
fn upstream_scripts_over_http() {
    if let Some(folder) = upstream() {
        over_http(&folder);
    }
}

#[test]
fn own_scripts_on_three_nodes() {
    over_three(&own(), 1);
}

/// `ISOBAR_PROMQLTEST_COPIES=3` gives each node all series.
#[test]
fn upstream_scripts_on_three_nodes() {
    if let Some(folder) = upstream() {
        over_three(&folder, copies());
    }
}
