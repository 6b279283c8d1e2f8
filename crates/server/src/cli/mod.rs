//! The commands of `isobar`: `serve` (the default), `query`, `cluster`, `check`, `tsdb`, `version`.

pub mod check;
pub mod cluster;
pub mod query;
pub mod tsdb;

use std::process::ExitCode;

use clap::Parser as _;

use crate::flags::{ServeFlags, split_ignored};

const USAGE: &str = "\
isobar [serve] [flags]             run a node (isobar serve --help lists the flags)
isobar query instant SERVER EXPR   evaluate an expression (also: range, series, labels)
isobar cluster status              show nodes, shards, leaders and lag (also: settings, transfer-leader, remove)
isobar check config FILE...        check configuration files
isobar tsdb salvage DIR            move damaged records of a stopped node aside, so that it starts
isobar version                     print the version
";

/// Runs the program with its arguments (the first is its name) and gives the exit code: 0 done, 1 failed, 2 wrong
/// usage (serve), 3 for wrong usage of checks as promtool.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
pub fn run(args: &[String]) -> ExitCode {
    let command = args.get(1).map_or("serve", String::as_str).to_owned();
    let rest = |skip: usize| args.iter().skip(skip).cloned().collect::<Vec<_>>();
    match command.as_str() {
        "query" => query::run(rest(2)),
        "cluster" => cluster::run(rest(2)),
        "check" => check::run(rest(2)),
        "tsdb" => tsdb::run(&rest(2)),
        "version" | "--version" => {
            println!("{}", crate::role::version_text());
            ExitCode::SUCCESS
        }
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        "serve" => serve(rest(2)),
        flag if flag.starts_with('-') => serve(rest(1)),
        other => {
            eprint!("isobar: there is no command {other:?}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::print_stderr, reason = "this is the command line")]
fn serve(args: Vec<String>) -> ExitCode {
    let (kept, warnings) = split_ignored(args);
    let flags = match ServeFlags::try_parse_from(std::iter::once("isobar serve".to_owned()).chain(kept)) {
        Ok(flags) => flags,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            eprint!("{error}");
            return ExitCode::from(code);
        }
    };
    crate::telemetry::init(&flags.log_level, &flags.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match crate::role::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isobar: {error:#}");
            ExitCode::FAILURE
        }
    }
}
