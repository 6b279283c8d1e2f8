//! A runner of PromQL test scripts, in upstream's script language (`promql/promqltest/README.md`), over series in
//! memory, or over HTTP against a running node.
//!
//! `script.rs` reads a script, `run.rs` carries it out with all re-runs that upstream's runner does (instant queries
//! again with `@` on every selector, at other times, and as range queries), `http.rs` asks a node, `answer.rs` is what
//! is answered, `compare.rs` tells right from wrong, `nhcb.rs` makes custom-bucket histograms of classic ones. Each `eval` is counted by itself, so that one failure
//! does not hide the others.

mod answer;
mod compare;
mod http;
mod nhcb;
mod run;
mod script;

pub use http::{FLAGS, Remote};
pub use run::{Failure, Mode, Outcome, run};
