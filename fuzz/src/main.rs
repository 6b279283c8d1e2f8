//! The fuzzer of all targets: `FUZZ_TARGET` in the environment names the one to run.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static targets::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let known = || targets::targets().map(|target| target.name).collect::<Vec<_>>().join(" ");
    targets::find(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is none of: {}", known()))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
