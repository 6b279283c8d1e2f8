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

/// The bug that `ISOBAR_SEEDED_BUG` names.
#[cfg(feature = "seeded_bugs")]
fn seeded_bug() -> Option<replication::SeededBug> {
    #[allow(clippy::disallowed_methods, reason = "server reads the environment")]
    let name = std::env::var("ISOBAR_SEEDED_BUG").ok()?;
    let bug = replication::SeededBug::named(&name);
    tracing::warn!(%name, ?bug, "this program has seeded bugs: it is for tests of tests");
    bug
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
