//! Compiles the contracts in `proto/` with protox, so that nobody needs protoc.

use std::error::Error;

#[allow(
    clippy::disallowed_methods,
    reason = "cargo tells a build script what it builds through the environment"
)]
fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: a target folder may be kept while the clone moves.
    let contracts = format!("{}/../../proto", std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed={contracts}");
    let files = protox::compile(["peer.proto"], [&contracts])?;
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(files)?;
    Ok(())
}
