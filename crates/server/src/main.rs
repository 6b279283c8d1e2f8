//! `isobar`: reads the command line, then serves or runs one command. Exit codes as prometheus and promtool.

use std::process::ExitCode;

/// Heads and caches are many small, long-lived allocations: jemalloc keeps their fragmentation low.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    server::cli::run(&std::env::args().collect::<Vec<_>>())
}
