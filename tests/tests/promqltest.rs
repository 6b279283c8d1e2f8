//! PromQL scripts over series in memory: our own (`tests/scripts/*.test`) and upstream's, which are read from the
//! folder that `ISOBAR_PROMQLTEST_DIR` names.

#![allow(clippy::print_stdout, reason = "a conformance run prints what passed")]

use std::path::{Path, PathBuf};

use tests::promqltest::{self, Mode};

/// All series at once, and by parts.
const MODES: [Mode; 2] = [Mode::Local, Mode::Spread { shards: 8, places: 3 }];

/// Runs all scripts of a folder and prints passed and failed a file; the failures as text.
#[allow(clippy::print_stdout, reason = "the run says what passed, failed and was skipped")]
fn run_folder(folder: &Path, mode: Mode) -> (usize, Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "test"));
    files.sort();
    let (mut passed, mut failures) = (0, Vec::new());
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        match promqltest::run(&text, mode) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(outcome) => {
                println!("{name}: {} passed, {} failed, 0 skipped", outcome.passed, outcome.failures.len());
                passed += outcome.passed;
                let described =
                    outcome.failures.iter().map(|f| format!("{name}:{}: {}: {}", f.line, f.query, f.message));
                failures.extend(described);
            }
        }
    }
    println!("{}, {mode:?}: {passed} passed, {} failed", folder.display(), failures.len());
    (passed, failures)
}

#[test]
fn own_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for mode in MODES {
        let (passed, failures) = run_folder(&folder, mode);
        assert!(failures.is_empty(), "{mode:?}: {}", failures.join("\n"));
        assert!(passed > 0, "no script in {}", folder.display());
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the folder of upstream's scripts is named by the environment; a skip says why"
)]
fn upstream_scripts() {
    let Some(folder) = std::env::var_os("ISOBAR_PROMQLTEST_DIR") else {
        println!("skipped: ISOBAR_PROMQLTEST_DIR names no folder with upstream's scripts");
        return;
    };
    for mode in MODES {
        let (passed, failures) = run_folder(Path::new(&folder), mode);
        assert!(
            failures.is_empty(),
            "{mode:?}: {} of {} failed:\n{}",
            failures.len(),
            failures.len() + passed,
            failures.join("\n")
        );
        assert!(passed > 0, "no script in {}", folder.display());
    }
}
