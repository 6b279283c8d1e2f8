//! Both kinds of index against a scan over label sets.

use std::collections::{BTreeMap, BTreeSet};

use model::{Labels, MatchOp, Matcher};
use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::{IndexError, MemIndex, SealedIndex, SeriesIndex};

type Model = BTreeMap<u32, Labels>;

fn scan(model: &Model, matchers: &[Matcher]) -> RoaringBitmap {
    let satisfies = |labels: &Labels| matchers.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or("")));
    model.iter().filter(|(_, labels)| satisfies(labels)).map(|(ordinal, _)| *ordinal).collect()
}

fn check_index(index: &dyn SeriesIndex, model: &Model, matchers: &[Matcher]) {
    let expected = scan(model, matchers);
    assert_eq!(index.select(matchers).unwrap(), expected, "{matchers:?}");
    assert_eq!(*index.all(), model.keys().copied().collect());
    for within in [None, Some(&expected)] {
        let of: Vec<&Labels> =
            model.iter().filter(|(o, _)| within.is_none_or(|w| w.contains(**o))).map(|(_, l)| l).collect();
        let names: BTreeSet<&str> = of.iter().flat_map(|l| l.iter()).map(|(n, _)| n).collect();
        assert_eq!(index.label_names(within).unwrap(), Vec::from_iter(names));
        for name in ["__name__", "a", "b", "nothing"] {
            let values: BTreeSet<&str> = of.iter().filter_map(|l| l.get(name)).collect();
            assert_eq!(index.label_values(name, within).unwrap(), Vec::from_iter(values), "{name}");
        }
    }
    let mut labels = Model::new();
    let mut wider = expected.clone();
    wider.insert(4_000_000);
    index
        .visit_labels(&wider, &mut |ordinal, l| {
            labels.insert(ordinal, l);
            true
        })
        .unwrap();
    let expected: Model =
        model.iter().filter(|(o, _)| expected.contains(**o)).map(|(o, l)| (*o, l.clone())).collect();
    assert_eq!(labels, expected);
}

fn check(index: &MemIndex, model: &Model, queries: &[Vec<Matcher>]) {
    let mut block = Vec::new();
    index.seal(&mut block).unwrap();
    let sealed = SealedIndex::open(&block).unwrap();
    assert_eq!(index.len(), model.len() as u64);
    assert_eq!(sealed.len(), model.len() as u64);
    for matchers in queries {
        check_index(index, model, matchers);
        check_index(&sealed, model, matchers);
    }
    let pairs: BTreeSet<(&str, &str)> = model.values().flat_map(|l| l.iter()).collect();
    assert_eq!(index.label_pairs(), pairs.len());
    for at in (0..block.len()).step_by(7.max(block.len() / 100)) {
        let mut damaged = block.clone();
        damaged[at] ^= 0x10;
        let at_version = at == 0;
        match SealedIndex::open(&damaged) {
            Err(IndexError::Version(_)) => assert!(at_version),
            Err(_) => {}
            Ok(_) => assert!((1..4).contains(&at), "a flipped bit at {at} was not noticed"),
        }
    }
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let name = prop::sample::select(vec!["__name__", "a", "b", "c", "nothing"]);
    let plain = prop::sample::select(vec!["", "v1", "v12", "v3", "w4", "up", "node_7"]);
    let expression = prop::sample::select(vec![
        "", ".*", ".+", "v1", "v1|v3", "(v1|w4)", "v.*", "v1.*|w.*", "[vw]1?", "|v1", "v1?", "no|.*7",
        "v\\d+", "(?i)V1",
    ]);
    prop_oneof![
        (name.clone(), prop::bool::ANY, plain).prop_map(|(name, negated, value)| {
            Matcher::new(name, if negated { MatchOp::NotEqual } else { MatchOp::Equal }, value).unwrap()
        }),
        (name, prop::bool::ANY, expression).prop_map(|(name, negated, value)| {
            Matcher::new(name, if negated { MatchOp::NotRegex } else { MatchOp::Regex }, value).unwrap()
        }),
    ]
}

fn series() -> impl Strategy<Value = Labels> {
    let value = || prop_oneof![3 => (0u32..20).prop_map(|v| format!("v{v}")), 1 => (0u32..9).prop_map(|v| format!("w{v}"))];
    (0u32..12, prop::option::of(value()), prop::option::of(value()), prop::option::of(0u32..3)).prop_map(
        |(name, a, b, c)| {
            let mut pairs = vec![("__name__", format!("node_{name}"))];
            pairs.extend(a.map(|v| ("a", v)));
            pairs.extend(b.map(|v| ("b", v)));
            pairs.extend(c.map(|v| ("c", v.to_string())));
            Labels::from_pairs(pairs).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn indexes_answer_as_a_scan_does(
        series in prop::collection::vec((series(), 0u32..3), 0..300),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        late in prop::collection::vec((series(), 0u32..2_000_000), 0..30),
        queries in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 1..8),
        one_by_one in any::<bool>(),
    ) {
        let (mut index, mut model) = (MemIndex::new(), Model::new());
        let mut next = 0;
        for (labels, gap) in series {
            next += gap * 40 + 1;
            index.insert(next, &labels);
            model.insert(next, labels);
        }
        check(&index, &model, &queries);
        let ordinals: Vec<u32> = model.keys().copied().collect();
        let removed: RoaringBitmap =
            removed.iter().filter(|_| !ordinals.is_empty()).map(|at| ordinals[at.index(ordinals.len())]).collect();
        if one_by_one {
            removed.iter().for_each(|ordinal| assert!(index.remove(ordinal)));
        } else {
            index.remove_all(&removed);
        }
        model.retain(|ordinal, _| !removed.contains(*ordinal));
        for (labels, ordinal) in late {
            // In any order, and sometimes one that is there already.
            index.insert(ordinal, &labels);
            model.entry(ordinal).or_insert(labels);
        }
        check(&index, &model, &queries);
        index.optimize();
        check(&index, &model, &queries[..1]);
    }
}

#[test]
fn large_indexes_answer_as_a_scan_does() {
    let (mut index, mut model) = (MemIndex::new(), Model::new());
    for i in 0..9000u32 {
        let labels = Labels::from_pairs([
            ("__name__", format!("metric_{}", i % 60)),
            ("a", format!("host-{:04}", i / 60)),
            ("b", format!("unique-{}", i.wrapping_mul(2_654_435_761))),
            ("job", "node".to_owned()),
        ])
        .unwrap();
        index.insert(i, &labels);
        model.insert(i, labels);
    }
    let m = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
    let queries = [
        vec![m("__name__", MatchOp::Equal, "metric_7"), m("job", MatchOp::Equal, "node")],
        vec![m("__name__", MatchOp::Equal, "metric_7"), m("b", MatchOp::Regex, ".*7.*")],
        vec![m("__name__", MatchOp::Equal, "metric_7"), m("b", MatchOp::NotRegex, ".*7.*")],
        vec![m("a", MatchOp::Regex, "host-00.*"), m("__name__", MatchOp::NotEqual, "metric_1")],
        vec![m("b", MatchOp::Regex, "unique-1.*")],
        vec![m("job", MatchOp::NotEqual, "node")],
        vec![m("job", MatchOp::Equal, "node"), m("none", MatchOp::Equal, "")],
        vec![],
    ];
    check(&index, &model, &queries);
    let bytes = index.memory();
    assert!(bytes < 9000 * 300, "{bytes} bytes for 9000 series with a value of their own each");
    index.remove_all(&(0..9000).collect());
    check(&index, &Model::new(), &queries);
}

#[test]
fn the_largest_come_first() {
    let mut index = MemIndex::new();
    for (ordinal, pairs) in (0..).zip([
        [("__name__", "up"), ("job", "long")],
        [("__name__", "up"), ("job", "b")],
        [("__name__", "down"), ("job", "b")],
    ]) {
        index.insert(ordinal, &Labels::from_pairs(pairs).unwrap());
    }
    let figures = index.cardinality(2);
    let owned = |pairs: &[(&str, u64)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Vec<_>>();
    assert_eq!(figures.series_by_metric, owned(&[("up", 2), ("down", 1)]));
    assert_eq!(figures.values_by_label, owned(&[("__name__", 2), ("job", 2)]));
    assert_eq!(figures.memory_by_label, owned(&[("__name__", 6), ("job", 5)]));
    assert_eq!(figures.series_by_pair, owned(&[("__name__=up", 2), ("job=b", 2)]));
}

#[test]
fn the_example_of_a_sealed_index_decodes() {
    let bytes = crate::page::example::example("sealed index");
    let sealed = SealedIndex::open(&bytes).unwrap();
    let (mut index, mut model) = (MemIndex::new(), Model::new());
    for (ordinal, (name, job)) in (0..).zip([("up", "a"), ("up", "b"), ("down", "a")]) {
        let labels = Labels::from_pairs([("__name__", name), ("job", job)]).unwrap();
        index.insert(ordinal, &labels);
        model.insert(ordinal, labels);
    }
    for matchers in [vec![], vec![Matcher::equal("job", "a")], vec![Matcher::equal("__name__", "up")]] {
        check_index(&sealed, &model, &matchers);
    }
    let mut block = Vec::new();
    index.seal(&mut block).unwrap();
    assert_eq!(block, bytes, "the example is what is written");
}
