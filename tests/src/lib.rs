//! The harness of the scenario tests: real processes of the program, what they are sent, and what must be left of it.
//!
//! `node` starts and ends processes, `three` a cluster of them, `cluster` several behind `proxy`, the network that can be
//! made bad. `peer` starts other programs. `oracle` sends samples (`native` the histograms among them) and reads them back,
//! `load` does so all the time, `history` checks what was seen; `faults` are what is done to a cluster, `scenario` a whole run to the verdict. `power` is
//! a disk whose power can be cut, `clock` wall clocks that are wrong, `packets` networks that lose them, `limits` how much
//! memory and CPU a process may have, `trace` system calls that fail. `promqltest` runs PromQL scripts. `remote_write` makes and sends requests of both
//! versions, `wire` bodies that clients of another make send. `spread` evaluates queries by parts, `random_query` makes
//! queries and series, `naive` evaluates slowly what it can. Tests that need root or a tool say so through [`tier`]: they
//! print why they are skipped, and fail instead where `REQUIRE_TIERS` names the tier.

pub mod clock;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod limits;
pub mod load;
pub mod naive;
pub mod native;
pub mod node;
pub mod oracle;
pub mod packets;
pub mod peer;
pub mod power;
pub mod promqltest;
pub mod proxy;
pub mod random_query;
pub mod remote_write;
pub mod scenario;
pub mod spread;
pub mod three;
pub mod trace;
pub mod wire;

/// Whether a tier may run: `missing` says what it lacks (`None` = nothing). Prints `skipped: …` when it lacks something;
/// panics instead when the environment variable `REQUIRE_TIERS` (names separated by commas) holds `tier`.
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests read their tier from the environment and say why they skip"
)]
pub fn tier(tier: &str, missing: Option<String>) -> bool {
    let Some(missing) = missing else { return true };
    let required = std::env::var("REQUIRE_TIERS").unwrap_or_default();
    assert!(!required.split(',').any(|t| t == tier), "tier {tier} is required, but {missing}");
    println!("skipped: tier {tier}: {missing}");
    false
}

/// Fails unless the page `page` of `docs/` has each of `lines`.
///
/// # Errors
/// Those that it lacks.
pub fn documented(page: &str, lines: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(file)?;
    let missing: Vec<String> = lines.filter(|line| !text.lines().any(|known| known == line)).collect();
    anyhow::ensure!(missing.is_empty(), "docs/{page} lacks:\n{}", missing.join("\n"));
    Ok(())
}
