//! The program: command line, configuration text, wiring of the roles, telemetry, shutdown.
//!
//! Nothing here decides anything about samples or queries; each algorithm lives in the crate that owns it.
//! `flags` → `config` → `role` is the order in which a node starts.

pub mod cli;
pub mod config;
pub mod flags;
pub mod role;
pub mod telemetry;
