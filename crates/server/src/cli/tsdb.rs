//! `isobar tsdb salvage DIR`: makes a stopped node's data folder usable again after damage. Exit codes: 0 done,
//! 1 failed, 2 wrong usage.

use std::process::ExitCode;

use replication::{Replication, ReplicationConfig};

const USAGE: &str =
    "isobar tsdb salvage DIR   move damaged records of a stopped node aside, so that it starts\n";

/// Runs `isobar tsdb` with the arguments after it.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
pub fn run(args: &[String]) -> ExitCode {
    let [command, dir] = args else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    if command != "salvage" {
        eprint!("isobar: there is no command tsdb {command:?}\n\n{USAGE}");
        return ExitCode::from(2);
    }
    crate::telemetry::init("warn", "logfmt");
    let config = ReplicationConfig { data_dir: dir.into(), ..ReplicationConfig::default() };
    match Replication::salvage(&config) {
        Ok(lines) if lines.is_empty() => {
            println!("nothing is damaged");
            ExitCode::SUCCESS
        }
        Ok(lines) => {
            for line in lines {
                println!("{}: {}", line.group, line.text);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("isobar: salvaging {dir}: {error}");
            ExitCode::FAILURE
        }
    }
}
