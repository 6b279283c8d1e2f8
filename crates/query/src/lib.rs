//! The query frontend: from a query's text and parameters to an answer, under limits.
//!
//! Path of a query: [`Frontend`] parses the text (`promql`), registers it in the table of [`active`] queries, waits
//! for a place on the compute pool ([`leaf`]), takes snapshots of all candidate shards at once ([`snapshot`]),
//! evaluates (`engine`) over their [`union`], and gives the value with annotations and [`QueryStats`]. When other nodes
//! answer for some of the shards, [`fan_out`] has them evaluate parts of the query; [`runner`] is their side of it. The
//! query [`log`] gets a line for each. Remote read and federation take the same path without an expression ([`raw`]).
//!
//! Not here: HTTP and JSON (`api`), what a shard is made of (`storage`, `replication`: behind
//! [`model::seam::ShardReader`]), evaluation itself (`engine`).

mod active;
mod candidates;
mod config;
mod error;
mod explain;
mod fan_out;
mod frontend;
mod language;
mod leaf;
mod log;
mod lookup;
mod metrics;
mod raw;
mod runner;
mod snapshot;
mod stats;
mod syntax_tree;
mod union;

pub use active::ActiveQuery;
pub use config::Config;
pub use engine::{Annotation, AnnotationKind, HistogramPoint, Point, Sample, SampleValue, Series, Value};
pub use error::QueryError;
pub use frontend::{Frontend, Options, Outcome};
pub use log::Origin;
pub use raw::Wanted;
pub use runner::Leaf;
pub use stats::{Between, QueryStats, StepSamples, Timings};
