//! What a node runs. One role so far: everything on one node (`node`).

mod features;
mod node;
mod peering;
mod process;
mod web;

use crate::flags::ServeFlags;

/// The level of Prometheus whose interfaces this version matches.
pub const PROMETHEUS_VERSION: &str = "3.16.0";

/// Our version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One line with our version and the level of Prometheus.
pub fn version_text() -> String {
    format!("isobar {VERSION} (matches Prometheus {PROMETHEUS_VERSION})")
}

/// Runs a node until it is told to stop (SIGTERM, SIGINT, `/-/quit`). An error is fatal at start.
pub fn run(flags: ServeFlags) -> anyhow::Result<()> {
    if flags.role != "all" {
        anyhow::bail!(
            "--role={}: this version runs every role on one node; only --role=all works",
            flags.role
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("isobar").build()?;
    let result = runtime.block_on(node::run(flags));
    // Evaluations that are still on the blocking pool have been told to stop; nobody waits for them any more.
    runtime.shutdown_background();
    result
}
