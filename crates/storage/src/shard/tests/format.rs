//! The example bytes of FORMAT.md are what this program writes, and it reads them.

use model::seam::ScrapeMark;
use model::{Exemplar, Labels, Matcher, TenantId, TimeRange};

use super::*;
use crate::entry::{self, Entry};
use crate::page::example::example;

/// A small shard: two scrapes of a target with two series.
fn small() -> Node {
    let mut node = Node::new();
    for k in 0..2 {
        node.now = START + k * 15_000;
        let mark = ScrapeMark { target: 9, timestamp: node.now };
        let series =
            [(0, vec![(node.now, (3.0 + k as f64).to_bits())]), (1, vec![(node.now, 0.5f64.to_bits())])];
        node.write(batch(&series, Some(mark)));
    }
    node.shard.flush().unwrap();
    node
}

fn check(all: &[(&str, &[u8])]) {
    let mut wrong = String::new();
    for (name, found) in all {
        if example(name) != *found {
            let hex: Vec<String> = found.iter().map(|b| format!("{b:02x}")).collect();
            let lines: Vec<String> = hex.chunks(16).map(|line| line.join(" ")).collect();
            wrong += &format!("EXAMPLE {name}\n{}\n", lines.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "these are now:\n{wrong}");
}

/// The small shard, and then a histogram with a start timestamp and an exemplar.
fn more() -> Node {
    let mut node = small();
    node.now = START + 30_000;
    let mut request = batch(&[(0, vec![(node.now, HISTOGRAM | 8)])], None);
    let labels = Labels::from_pairs([("id", "a")]).unwrap();
    request.exemplars = vec![(0, Exemplar { labels, value: 1.0, timestamp: node.now })];
    node.write(request);
    node.shard.flush().unwrap();
    node
}

#[test]
fn entries() {
    let node = more();
    let matchers = vec![Matcher::equal("__name__", "m1")];
    let range = TimeRange::closed(START, START + 1);
    let delete = node.shard.plan_delete(&TenantId::anonymous(), &[matchers], range, START + 20_000).unwrap();
    check(&[
        ("shard write entry", &node.log[0]),
        ("shard write entry, the second", &node.log[1]),
        ("shard write entry, the third", &node.log[2]),
        ("shard delete entry", &delete),
    ]);
    let bytes = example("shard write entry");
    let (head, Entry::Write(write)) = entry::decode(&bytes).unwrap() else { panic!("not a write") };
    assert_eq!((head.now_ms, write.n_batches, write.series.len()), (START, 1, 2));
}

#[test]
fn state_records() {
    let (node, later) = (small(), more());
    let exemplar = later.kv.get(Family::State, &[0, 0, 0, 3, 6, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().unwrap();
    let value = |kind: u8, rest: &[u8]| {
        let key = [&[0, 0, 0, 3, kind][..], rest].concat();
        node.kv.get(Family::State, &key).unwrap().unwrap()
    };
    check(&[
        ("mark record", &value(0, &[])),
        ("source record", &value(1, &[0, 0, 0, 0])),
        ("series record", &value(2, &[0, 0, 0, 0, 0, 0, 0, 1])),
        ("exemplar record", &exemplar),
    ]);
    open(&later.kv).unwrap();
    open(&node.kv).unwrap();
}
