//! What nodes send each other. Whoever is at the other end has proved that it knows the secret, and is still not trusted.

use std::sync::LazyLock;

use engine::EvalContext;
use engine::distribute::{Fragment, Part, Partial, Push, plan, run};
use model::seam::{QueryBudget, SeriesData};
use model::{StepGrid, TenantId};
use promql::ParseOptions;
use rpc::convert;
use tests::random_query::{Random, TIMES, series as some_series};

/// What decodes has bytes that decode to what has the same bytes.
fn again<T, E>(data: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>, encode: impl Fn(&T) -> Vec<u8>) {
    let Ok(value) = decode(data) else { return };
    let bytes = encode(&value);
    let back = decode(&bytes).unwrap_or_else(|_| panic!("what was encoded decodes: {bytes:02x?}"));
    assert_eq!(encode(&back), bytes);
}

/// The shard map.
pub(crate) fn shard_map(data: &[u8]) {
    again(data, topology::coding::decode, topology::coding::encode);
}

/// The messages before any HTTP/2.
pub(crate) fn handshake(data: &[u8]) {
    rpc::fuzz::handshake(data);
}

/// A batch for a shard.
pub(crate) fn batch(data: &[u8]) {
    again(data, convert::batch::decode, convert::batch::encode);
}

/// Series of a select, in parts.
pub(crate) fn series(data: &[u8]) {
    let mut part = data;
    let mut found = SeriesData::default();
    while let Ok(true) = convert::series::decode(&mut part, false, &mut found) {
        assert_eq!(found.stamps.len(), found.values.len());
        assert!(found.starts.is_empty() || found.starts.len() == found.stamps.len());
        assert!(found.histograms.iter().all(|(at, _)| (*at as usize) < found.stamps.len()));
    }
}

/// The answer to a batch.
pub(crate) fn report(data: &[u8]) {
    again(data, convert::report::decode, convert::report::encode);
}

/// A failure.
pub(crate) fn failure(data: &[u8]) {
    again(data, convert::status::decode, convert::status::encode);
}

/// Raft's messages and their answers, commands and records of the meta state, marks, talk about membership.
pub(crate) fn raft(data: &[u8]) {
    replication::fuzz::messages(data);
}

/// Parts of a query.
pub(crate) fn fragment(data: &[u8]) {
    again(data, Fragment::decode, Fragment::encode);
}

/// Of each kind one part, and what a node answers to them.
static PARTS: LazyLock<Vec<Vec<Part>>> = LazyLock::new(|| {
    ["g", "sum by (job) (rate(c_total[5m]))", "topk(2, h)", "g + on (job) group_left c_total"]
        .map(parts_of)
        .to_vec()
});

fn parts_of(text: &str) -> Vec<Part> {
    let expr = promql::parse(text, &ParseOptions::ALL).expect("an expression");
    let grid = StepGrid::range(TIMES.1 / 2, TIMES.1, TIMES.1 / 8);
    let plan = plan(&expr, grid, &context(), Push::Everything).expect("it can be planned");
    plan.parts().to_vec()
}

fn context() -> EvalContext {
    EvalContext::range(TenantId::anonymous(), TIMES.1, QueryBudget::unlimited())
}

/// The answers to the parts, for the seeds.
pub(crate) fn some_partials() -> Vec<Vec<u8>> {
    let source = some_series(&mut Random::new(1));
    let run = |parts: &Vec<Part>| run(parts, &source, &context(), 0).expect("memory can be read").encode();
    PARTS.iter().map(run).collect()
}

/// The parts of a query, for the seeds.
pub(crate) fn some_parts() -> Vec<Part> {
    PARTS.concat()
}

/// What a caller begins with, for the seeds: {magic, version, lane, cluster id, node, name, nonce}.
pub(crate) fn some_hello() -> Vec<u8> {
    let mut hello = [&b"isobarpr"[..], &rpc::WIRE_VERSION.to_be_bytes(), &[1]].concat();
    hello.extend_from_slice(&7u64.to_be_bytes());
    hello.extend_from_slice(&2u64.to_be_bytes());
    hello.extend_from_slice(b"\x04fuzz");
    hello.extend_from_slice(&[9; 32]);
    let mut out = vec![0, hello.len() as u8];
    out.append(&mut hello);
    out.extend_from_slice(&[0, 32]);
    out.extend_from_slice(&[1; 32]);
    out
}

/// What a node answers to the parts.
pub(crate) fn partial(data: &[u8]) {
    let budget = QueryBudget::unlimited();
    for parts in PARTS.iter() {
        again(data, |bytes| Partial::decode(bytes, parts, &budget), Partial::encode);
    }
}
