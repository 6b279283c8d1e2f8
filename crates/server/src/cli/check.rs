//! `isobar check config FILE…` and `isobar check web-config FILE…`: checks configuration files and the files that they
//! name, with promtool's output and exit codes (0 good, 1 not, 2 wrong usage).

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Loaded};

const USAGE: &str = "\
isobar check config [--syntax-only] FILE...   check configuration files and the files that they name
isobar check web-config FILE...               check web configuration files, certificates and keys among them
";

/// Runs `isobar check` with the arguments after it.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
pub fn run(args: Vec<String>) -> ExitCode {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("config") => {}
        Some("web-config") => return check_web(&args.collect::<Vec<_>>()),
        _ => {
            eprint!("isobar: there is no such check\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    let (flags, files): (Vec<String>, Vec<String>) = args.partition(|arg| arg.starts_with('-'));
    let syntax_only = flags.iter().any(|flag| flag == "--syntax-only");
    if files.is_empty() || flags.iter().any(|flag| flag != "--syntax-only") {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    #[allow(clippy::disallowed_methods, reason = "server reads the environment")]
    let env = |name: &str| std::env::var(name).ok();
    let mut good = true;
    for file in &files {
        let checked = check(Path::new(file), syntax_only, &env);
        print!("{}", checked.out);
        eprint!("{}", checked.err);
        good &= checked.good;
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks web configuration files.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
fn check_web(files: &[String]) -> ExitCode {
    if files.is_empty() || files.iter().any(|file| file.starts_with('-')) {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    }
    let mut good = true;
    for file in files {
        match config::load_web(Path::new(file)) {
            Ok(_) => println!("{file} SUCCESS"),
            Err(error) => {
                eprintln!("{file} FAILED: {error}");
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a check of one file says.
#[derive(Debug, Default)]
struct Checked {
    good: bool,
    out: String,
    err: String,
}

/// Checks one file.
fn check(path: &Path, syntax_only: bool, env: config::Env<'_>) -> Checked {
    let mut checked =
        Checked { good: true, out: format!("Checking {}\n", path.display()), err: String::new() };
    let loaded = match config::load_file(path, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            checked.fail(&error.to_string());
            checked.say("");
            return checked;
        }
    };
    if !syntax_only {
        check_named_files(&loaded, &mut checked);
        let (problems, warnings) = config::check_targets(&loaded);
        for warning in warnings {
            checked.say(&format!("  WARNING: {warning}"));
        }
        for problem in problems {
            checked.fail(&problem);
        }
    }
    for what in &loaded.not_active {
        checked.say(&format!("  NOTE: {what} is accepted but has no effect yet"));
    }
    if checked.good {
        checked.say(&format!(" SUCCESS: {} is valid prometheus config file syntax", path.display()));
    }
    checked.say("");
    checked
}

/// Checks that the files that a configuration names can be read.
fn check_named_files(loaded: &Loaded, checked: &mut Checked) {
    for (what, path) in &loaded.files {
        if let Err(error) = std::fs::metadata(path) {
            checked.fail(&format!("error checking {what} file {:?}: {error}", path.display()));
        }
    }
    let mut found = 0;
    for pattern in &loaded.rule_files {
        match scrape::discovery::glob::glob(pattern) {
            Ok(paths) if paths.is_empty() && !scrape::discovery::glob::has_meta(pattern) => {
                checked.fail(&format!("{pattern:?} does not point to an existing file"));
            }
            Ok(paths) => found += paths.len(),
            Err(error) => checked.fail(&format!("error checking rule file {pattern:?}: {error}")),
        }
    }
    if found > 0 {
        checked.say(&format!("  SUCCESS: {found} rule files found"));
    }
}

impl Checked {
    fn say(&mut self, line: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.out, "{line}");
    }

    fn fail(&mut self, message: &str) {
        self.good = false;
        let _ = writeln!(self.err, "  FAILED: {message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_check(dir: &Path, text: &str) -> Checked {
        let path = dir.join("prometheus.yml");
        std::fs::write(&path, text).unwrap();
        check(&path, false, &|_| None)
    }

    #[test]
    fn files_that_are_named_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("targets.json"), r#"[{"targets": ["a:1"]}]"#).unwrap();
        std::fs::write(dir.path().join("rules.yml"), "groups: []\n").unwrap();
        let good = "rule_files: [rules.yml]\nscrape_configs:\n- job_name: a\n  file_sd_configs:\n  - files: [targets.json, none.json]\n";
        let checked = run_check(dir.path(), good);
        assert!(checked.good, "{checked:?}");
        for part in [
            "SUCCESS: 1 rule files found",
            "WARNING: file ",
            "NOTE: rule_files is",
            "is valid prometheus config",
        ] {
            assert!(checked.out.contains(part), "{part}: {}", checked.out);
        }

        let missing = "scrape_configs:\n- job_name: a\n  authorization: {credentials_file: nope}\n";
        let checked = run_check(dir.path(), missing);
        assert!(
            !checked.good && checked.err.contains("error checking authorization credentials file"),
            "{checked:?}"
        );

        std::fs::write(dir.path().join("targets.json"), r#"[{"targets": ["http://a/"]}]"#).unwrap();
        let checked = run_check(dir.path(), good);
        assert!(!checked.good && checked.err.contains("is not a valid hostname"), "{checked:?}");
    }

    #[test]
    fn mistakes_name_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let checked = run_check(dir.path(), "scrape_configs:\n- job_name: a\n  scrap_interval: 1s\n");
        assert!(!checked.good);
        assert!(
            checked.err.contains("prometheus.yml:3:3: field scrap_interval not found"),
            "{}",
            checked.err
        );
    }
}
