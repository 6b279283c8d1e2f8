//! cargo-fuzz's entry to the target `protobuf_scrape`. What is checked lives in `src/targets.rs`, which tests replay over the corpus.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "each entry uses one target of the file")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::protobuf_scrape(data));
