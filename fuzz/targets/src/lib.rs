//! What is fuzzed: a function for every decoder of bytes or text that the product does not make itself in the same
//! process. Each takes any bytes, and panics when what comes out is not sane.
//!
//! `tests/corpus.rs` replays the files of `fuzz/corpus` and mutations of them under an allocator that counts; the
//! package `fuzz` looks for new inputs. Its README says how.
//!
//! | file | decoders |
//! |---|---|
//! | `outside.rs` | what targets, senders and readers send |
//! | `text.rs` | PromQL, selectors, expressions, numbers and times, relabelling |
//! | `columns.rs` | columns of chunks |
//! | `product.rs` | PromQL evaluated, parameters, JSON, files of configuration |
//! | `stored.rs` | pages, indexes, entries, the node log, state from other nodes |
//! | `peers.rs` | what nodes send each other |
//!
//! The last three, and the seeds that the encoders make, need nearly all of the product: the feature `whole` (on unless
//! switched off) has them. Without it a fuzzer is built in a few minutes.

mod columns;
mod outside;
mod text;

#[cfg(feature = "whole")]
mod peers;
#[cfg(feature = "whole")]
mod product;
#[cfg(feature = "whole")]
mod seeds;
#[cfg(feature = "whole")]
mod stored;

#[cfg(feature = "whole")]
pub use seeds::seeds;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder of the corpus too.
    pub name: &'static str,
    /// Runs it on an input; panics on a defect.
    pub run: fn(&[u8]),
    /// The memory that it may take beside 64 bytes a byte of input, MiB.
    pub memory_mib: usize,
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, memory_mib: 4 }
}

/// One that takes more: an expression may become an automaton of 10 MB, a log reserves its segments.
const fn large(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, memory_mib: 32 }
}

const SMALL: &[Target] = &[
    target("text", outside::text),
    target("openmetrics", outside::openmetrics),
    target("protobuf_scrape", outside::protobuf_scrape),
    target("remote_write_v1", outside::remote_write_v1),
    target("remote_write_v2", outside::remote_write_v2),
    target("remote_read", outside::remote_read),
    target("otlp_protobuf", outside::otlp_protobuf),
    target("otlp_json", outside::otlp_json),
    target("snappy", outside::snappy),
    target("gzip", outside::gzip),
    target("headers", outside::headers),
    large("promql", text::promql),
    large("selector", text::selector),
    large("regex", text::regex),
    target("numbers", text::numbers),
    large("relabel", text::relabel),
    target("chunk_decode", columns::chunk_decode),
    target("chunk_round_trip", columns::chunk_round_trip),
];

#[cfg(not(feature = "whole"))]
const WHOLE: &[Target] = &[];

#[cfg(feature = "whole")]
const WHOLE: &[Target] = &[
    large("promql_eval", product::promql_eval),
    target("http_params", product::http_params),
    target("json_text", product::json_text),
    large("config", product::config),
    large("web_config", product::web_config),
    target("page", stored::page),
    target("index", stored::index),
    target("entry", stored::entry),
    large("log", stored::log),
    target("state_transfer", stored::state_transfer),
    target("shard_map", peers::shard_map),
    target("handshake", peers::handshake),
    target("peer_batch", peers::batch),
    target("peer_series", peers::series),
    target("peer_report", peers::report),
    target("peer_failure", peers::failure),
    target("raft", peers::raft),
    target("fragment", peers::fragment),
    large("partial", peers::partial),
];

/// All of them.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    SMALL.iter().chain(WHOLE)
}

/// The target of that name.
pub fn find(name: &str) -> Option<&'static Target> {
    targets().find(|target| target.name == name)
}
