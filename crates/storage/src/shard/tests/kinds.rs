//! What is more than floats: histograms, start timestamps, exemplars, metadata.

use std::sync::Arc;

use model::histogram::Span;
use model::seam::{RejectReason, SeriesData};
use model::{Exemplar, Histogram, Labels, LogIndex, MetricKind, MetricMetadata, TimeRange};

use super::*;

/// What the model cannot do: a histogram and a float of a series at one timestamp in one batch, of which the float stays.
#[test]
fn a_float_comes_before_a_histogram_of_its_batch() {
    let mut node = Node::new();
    let report = node.write(batch(&[(0, vec![(START, HISTOGRAM | 8), (START, 5)])], None));
    assert_eq!((report.written.samples, report.written.histograms), (1, 0));
    assert_eq!(report.rejected.get(&RejectReason::DuplicateTimestamp), Some(&1));
    assert_eq!(node.read(any_series(), TimeRange::ALL)[&labels(0)], [(START, 5)]);
}

/// Later states of counters cost little in the log, and nothing where only the start timestamp is repeated.
#[test]
fn histograms_are_coded_against_the_one_before() {
    let mut node = Node::new();
    let state = |k: u64| {
        let spans = vec![Span { offset: 0, length: 40 }];
        let buckets: Vec<f64> = (0..40).map(|i| (i * 7 + k / 40) as f64).collect();
        Histogram {
            integer: true,
            schema: 3,
            count: buckets.iter().sum(),
            sum: k as f64,
            positive_spans: spans,
            positive_buckets: buckets,
            ..Histogram::default()
        }
    };
    for k in 0..200u64 {
        let mut request = batch(&[(1, vec![]), (0, vec![(START + k as i64 * 1000, k)])], None);
        request.histograms = vec![(START + k as i64 * 1000, Arc::new(state(k)))];
        request.histogram_starts = vec![START - 5_000];
        request.starts = vec![START - 7_000];
        request.ends = vec![(0, 1), (1, 1)];
        let report = node.write(request);
        assert_eq!((report.written.samples, report.written.histograms), (1, 1));
    }
    let mut sizes: Vec<usize> = node.log.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert!(sizes[100] < 100, "{sizes:?}");
    let mut data = SeriesData::default();
    for _ in 0..2 {
        let reader = node.shard.reader();
        let request = request(vec![Matcher::equal("__name__", "m1")], TimeRange::ALL);
        assert!(reader.select(&request).unwrap().next_series(&mut data).unwrap());
        assert_eq!((data.histograms.len(), &data.starts), (200, &vec![START - 5_000; 200]));
        for (k, (row, histogram)) in data.histograms.iter().enumerate() {
            assert_eq!(*row as usize, k);
            let hint = if k == 0 { ResetHint::Unknown } else { ResetHint::NotReset };
            assert!(histogram.same_bits(&Histogram { reset_hint: hint, ..state(k as u64) }));
        }
        // Where a range begins makes no difference to what is known.
        for first in 1..200 {
            let range = TimeRange { after: START + (first - 1) * 1000, until: i64::MAX };
            let narrow = super::request(vec![Matcher::equal("__name__", "m1")], range);
            assert!(reader.select(&narrow).unwrap().next_series(&mut data).unwrap());
            assert_eq!(data.histograms[0].1.reset_hint, ResetHint::NotReset, "of sample {first}");
        }
        node.shard.flush().unwrap();
        while node.shard.merge_step(1 << 20).unwrap().more {}
        node.crash();
    }
}

#[test]
fn exemplars_are_kept_in_order_and_come_back() {
    let mut node = Node::new();
    let exemplar = |timestamp: i64, id: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", id)]).unwrap(),
        value: timestamp as f64 / 7.0,
        timestamp: START + timestamp,
    };
    let with = |k: i64, exemplars: Vec<(u32, Exemplar)>| {
        let mut request = batch(&[(0, vec![(START + k, 1)]), (6, vec![(START + k, 2)]), (9, vec![])], None);
        request.exemplars = exemplars;
        request
    };
    let request_ = with(
        0,
        vec![(0, exemplar(5, "a")), (1, exemplar(6, "b")), (0, exemplar(7, "c")), (2, exemplar(7, "d"))],
    );
    let report = node.write(request_.clone());
    assert_eq!((report.written.samples, report.written.exemplars), (2, 3));
    assert_eq!(
        report.rejected.get(&RejectReason::ExemplarWithoutSeries),
        Some(&1),
        "a series must have samples"
    );
    let entries = node.log.len();
    let report = node.write(request_);
    assert_eq!((report.written.samples, report.written.exemplars), (2, 3), "repeated ones count as written");
    assert_eq!(node.log.len(), entries, "and are not proposed again");
    // Beside the samples of its series, whether these come before or after it.
    let mut apart =
        batch(&[(20, vec![]), (20, vec![(START, 1)]), (21, vec![(START, 1)]), (21, vec![])], None);
    apart.exemplars = vec![(0, exemplar(0, "f")), (3, exemplar(0, "g"))];
    assert_eq!(node.write(apart).written.exemplars, 2);
    let report = node.write(with(1, vec![(0, exemplar(6, "late")), (0, exemplar(8, "e"))]));
    assert_eq!(report.written.exemplars, 1);
    assert_eq!(report.rejected.get(&RejectReason::OutOfOrderExemplar), Some(&1));

    let shown = |node: &Node, range| -> Vec<(Labels, Vec<(i64, String)>)> {
        let found = node.shard.reader().exemplars(&request(any_series(), range)).unwrap();
        found
            .into_iter()
            .map(|s| {
                let id = |e: &Exemplar| (e.timestamp - START, e.labels.get("trace_id").unwrap().to_owned());
                (s.labels, s.exemplars.iter().map(id).collect())
            })
            .collect()
    };
    let wanted = vec![
        (labels(0), vec![(5, "a".to_owned()), (7, "c".to_owned()), (8, "e".to_owned())]),
        (labels(20), vec![(0, "f".to_owned())]),
        (labels(21), vec![(0, "g".to_owned())]),
        (labels(6), vec![(6, "b".to_owned())]),
    ];
    assert_eq!(shown(&node, TimeRange::ALL), wanted);
    assert_eq!(
        shown(&node, TimeRange::closed(START + 6, START + 7)),
        [(labels(0), vec![(7, "c".to_owned())]), (labels(6), vec![(6, "b".to_owned())]),]
    );
    node.crash();
    assert_eq!(shown(&node, TimeRange::ALL), wanted, "out of the log");
    node.shard.flush().unwrap();
    node.crash();
    assert_eq!(shown(&node, TimeRange::ALL), wanted, "out of the database");
    let report = node.write(with(2, vec![(0, exemplar(8, "e"))]));
    assert_eq!(report.written.exemplars, 1);
    assert_eq!(shown(&node, TimeRange::ALL), wanted);
    let other = Node::new();
    for (index, entry) in (0..).zip(&node.log) {
        other.shard.apply(LogIndex(index), entry, b"m").unwrap();
    }
    assert_eq!(other.shard.state_hash(), node.shard.state_hash());
    assert_eq!(shown(&other, TimeRange::ALL), wanted);
}

#[test]
fn metadata_comes_back() {
    let mut node = Node::new();
    let item = |family: &str, help: &str| MetricMetadata {
        family: family.into(),
        kind: MetricKind::Counter,
        help: help.into(),
        unit: String::new(),
    };
    let mut request = batch(&[], None);
    request.metadata = vec![item("a", "one"), item("b", "two")];
    node.write(request.clone());
    let entries = node.log.len();
    node.write(request);
    assert_eq!(node.log.len(), entries, "known metadata is not proposed again");
    node.shard.flush().unwrap();
    let mut request = batch(&[], None);
    request.metadata = vec![item("a", "three")];
    node.write(request);
    node.crash();
    let reader = node.shard.reader();
    let tenant = TenantId::anonymous();
    assert_eq!(reader.metadata(&tenant, None).unwrap(), [item("a", "three"), item("b", "two")]);
    assert_eq!(reader.metadata(&tenant, Some("b")).unwrap(), [item("b", "two")]);
}
