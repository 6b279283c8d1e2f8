//! Benchmarks: the parts that the macro run is made of. Micro benchmarks stand in `micro/`.
//!
//! `generate` makes remote-write bodies from a fixed seed, `send` replays them, `process` starts servers and reads their
//! CPU time and memory, `http` is the small client of all of them, `options` what they are told. Nothing here is part of the product.

pub mod generate;
pub mod http;
pub mod options;
pub mod process;
pub mod send;
