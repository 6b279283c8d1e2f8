//! Bodies made by a small encoder of the schema, and what the decoders make of them.

use model::seam::WriteBatch;
use model::{LabelsBuilder, TenantId, stale_nan};
use proptest::prelude::*;

use super::*;

/// A protobuf message under construction.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u64, value: u64) -> Self {
        self.put(field << 3);
        self.put(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.put(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.put(field << 3 | 2);
        self.put(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    fn packed(self, field: u64, values: &[u64]) -> Self {
        let mut inner = Self::default();
        values.iter().for_each(|value| inner.put(*value));
        self.message(field, inner)
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn msg() -> Message {
    Message::default()
}

fn label(name: &str, value: &str) -> Message {
    msg().bytes(1, name).bytes(2, value)
}

fn sample(timestamp: i64, value: f64) -> Message {
    msg().double(1, value).varint(2, timestamp as u64)
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn v1(request: Message) -> Result<WriteBatch, DecodeError> {
    decode_v1(request.0, TenantId::anonymous())
}

fn v2(request: Message) -> Result<WriteBatch, DecodeError> {
    let Message(body) = request;
    decoded_v2(&body).map(|decoded| decoded.batch)
}

fn decoded_v2(body: &[u8]) -> Result<Decoded, DecodeError> {
    decode_v2(body, TenantId::anonymous(), &RequestLimits::default())
}

/// One line a series: labels, samples, histograms, exemplars.
fn show(batch: &WriteBatch) -> Vec<String> {
    let show = |series: &model::seam::BatchSeries| {
        let region = &batch.buffer[series.labels.start as usize..series.labels.end as usize];
        let mut builder = LabelsBuilder::new();
        let labels = (batch.decode_labels)(region, &mut builder).and_then(|()| builder.build());
        let mut out = labels.map_or_else(|error| error.to_string(), |labels| format!("{labels:?}"));
        for at in series.samples.clone() {
            let sample = batch.samples[at as usize];
            out += &format!(" {:?}@{}", sample.value, sample.timestamp);
            if let Some(start) = batch.starts.get(at as usize) {
                out += &format!("(from {start})");
            }
        }
        for at in series.histograms.clone() {
            let (timestamp, histogram) = &batch.histograms[at as usize];
            out += &format!(" h{}@{timestamp}", histogram.count);
        }
        for at in series.exemplars.clone() {
            let exemplar = &batch.exemplars[at as usize];
            out += &format!(" # {:?} {}@{}", exemplar.labels, exemplar.value, exemplar.timestamp);
        }
        out
    };
    batch.series.iter().map(show).collect()
}

#[test]
fn v1_series_samples_and_metadata() {
    let request = msg()
        .message(
            1,
            msg()
                .message(1, label("__name__", "up"))
                .message(1, label("job", "a"))
                .message(2, sample(1_700_000_000_000, 1.5))
                .message(2, sample(-5, f64::INFINITY)),
        )
        .message(3, msg().varint(1, 1).bytes(2, "x_total").bytes(4, "Help.").bytes(5, "s").bytes(9, "?"))
        .varint(7, 1)
        .message(1, msg())
        .message(1, msg().message(2, msg()).message(1, label("b", "2")).message(1, label("a", "1")));
    let batch = v1(request).unwrap();
    assert_eq!(
        show(&batch),
        [r#"{"__name__": "up", "job": "a"} 1.5@1700000000000 inf@-5"#, "{}", r#"{"a": "1", "b": "2"} 0.0@0"#]
    );
    assert_eq!(format!("{:?}", batch.metadata[0].kind), "Counter");
    assert_eq!(
        (&*batch.metadata[0].family, &*batch.metadata[0].help, &*batch.metadata[0].unit),
        ("x_total", "Help.", "s")
    );
    assert!(batch.starts.is_empty());
}

#[test]
fn v1_keeps_every_bit_of_a_value() {
    for bits in [0x7ff8_0000_dead_beef, stale_nan().to_bits(), (-0.0f64).to_bits(), 1] {
        let request =
            msg().message(1, msg().message(2, sample(1, f64::from_bits(bits))).message(2, sample(2, 0.0)));
        let padded = request.bytes(9, [0; 40]);
        assert_eq!(v1(padded).unwrap().samples[0].value.to_bits(), bits);
    }
}

#[test]
fn v1_gathers_scattered_labels() {
    let series = msg()
        .message(1, label("a", "1"))
        .message(2, sample(1, 1.0))
        .message(1, label("b", "2"))
        .message(1, label("c", "3"))
        .message(2, sample(2, 2.0));
    let plain = msg().message(1, label("z", "9")).message(2, sample(3, 3.0));
    let batch = v1(msg().message(1, series.clone()).message(1, plain).message(1, series)).unwrap();
    let scattered = r#"{"a": "1", "b": "2", "c": "3"} 1.0@1 2.0@2"#;
    assert_eq!(show(&batch), [scattered, r#"{"z": "9"} 3.0@3"#, scattered]);
    let region = |at: usize| batch.series[at].labels.start as usize..batch.series[at].labels.end as usize;
    assert_eq!(batch.buffer[region(0)], batch.buffer[region(2)]);
}

#[test]
fn wrong_labels_cost_only_their_series() {
    let request = msg()
        .message(1, msg().message(1, label("a", "1")).message(1, label("a", "2")).message(2, sample(1, 1.0)))
        .message(1, msg().message(1, msg().bytes(1, "n").bytes(2, [0xff])).message(2, sample(1, 1.0)))
        .message(1, msg().message(1, label("", "x")).message(2, sample(1, 1.0)))
        .message(1, msg().bytes(1, [0x0a, 9]).message(2, sample(1, 1.0)))
        .message(1, msg().message(1, label("ok", "1")).message(2, sample(1, 1.0)));
    assert_eq!(
        show(&v1(request).unwrap()),
        [
            "label name \"a\" appears twice 1.0@1",
            "label bytes are not valid UTF-8 at offset 7 1.0@1",
            "a label name is empty 1.0@1",
            "label bytes are cut short at offset 4 1.0@1",
            r#"{"ok": "1"} 1.0@1"#,
        ]
    );
}

#[test]
fn histograms_come_whole() {
    let integer = msg()
        .varint(1, 10)
        .double(3, 12.5)
        .varint(4, zigzag(-3))
        .double(5, 0.001)
        .varint(6, 2)
        .message(11, msg().varint(1, zigzag(-4)).varint(2, 2))
        .message(11, msg().varint(1, 3).varint(2, 1))
        .packed(12, &[zigzag(3), zigzag(-1), zigzag(1)])
        .message(8, msg().varint(2, 1))
        .varint(9, zigzag(1))
        .varint(14, 3)
        .varint(15, 77);
    let mut doubles = 1.5f64.to_le_bytes().to_vec();
    doubles.extend(2.5f64.to_le_bytes());
    let float = msg()
        .double(2, 4.0)
        .varint(4, zigzag(-53))
        .double(7, 0.5)
        .message(11, msg().varint(2, 2))
        .bytes(13, &doubles)
        .double(16, 0.25)
        .double(16, 1.0)
        .varint(15, 78);
    let batch = v1(msg().message(1, msg().message(4, integer).message(4, float))).unwrap();
    assert_eq!(show(&batch), ["{} h10@77 h4@78"]);
    let expected = r#"Histogram { integer: true, reset_hint: Gauge, schema: -3, zero_threshold: 0.001, zero_count: 2.0, count: 10.0, sum: 12.5, positive_spans: [Span { offset: -4, length: 2 }, Span { offset: -2, length: 1 }], positive_buckets: [3.0, 2.0, 3.0], negative_spans: [Span { offset: 0, length: 1 }], negative_buckets: [1.0], custom_values: None }"#;
    assert_eq!(format!("{:?}", batch.histograms[0].1), expected);
    let expected = r#"Histogram { integer: false, reset_hint: Unknown, schema: -53, zero_threshold: 0.0, zero_count: 0.5, count: 4.0, sum: 0.0, positive_spans: [Span { offset: 0, length: 2 }], positive_buckets: [1.5, 2.5], negative_spans: [], negative_buckets: [], custom_values: Some([0.25, 1.0]) }"#;
    assert_eq!(format!("{:?}", batch.histograms[1].1), expected);
}

#[test]
fn v1_exemplars() {
    let exemplar = msg().message(1, label("trace_id", "x")).double(2, 0.5).varint(3, 9);
    let batch = v1(msg().message(1, msg().message(1, label("a", "b")).message(3, exemplar))).unwrap();
    assert_eq!(show(&batch), [r#"{"a": "b"} # {"trace_id": "x"} 0.5@9"#]);
    let twice = msg().message(1, label("a", "x")).message(1, label("a", "y"));
    let long = msg().message(1, label("a", &"x".repeat(5_000)));
    let series = msg().message(2, sample(1, 1.0)).message(3, twice).message(3, long);
    let body = msg().message(1, series).0;
    let decoded = decode_v1_limited(body, TenantId::anonymous(), &RequestLimits::default()).unwrap();
    assert_eq!(show(&decoded.batch), ["{} 1.0@1"], "bad exemplars cost only themselves");
    assert_eq!((decoded.left_out.samples, decoded.left_out.exemplars), (0, 2));
    assert_eq!(decoded.left_out.first[1], "series 0 of the request: exemplar labels of more than 4096 bytes");
}

#[test]
fn damage_names_its_place() {
    let check = |request: Message, expected: &str| assert_eq!(v1(request).unwrap_err().to_string(), expected);
    check(msg().varint(1, 1), "protobuf: wrong wire type for the field in write request at offset 1");
    check(symbols(&["", "a"]), "protobuf: field of a 2.0 request in write request at offset 1");
    let error = v2(msg().message(1, msg())).unwrap_err();
    assert_eq!(error.to_string(), "protobuf: field of a 1.0 request in request at offset 1");
    check(Message(vec![0x0a, 9]), "protobuf: length beyond the end in write request at offset 2");
    check(
        msg().message(1, msg().message(2, msg().varint(1, 5))),
        "protobuf: wrong wire type for the field in timeseries.samples at offset 5",
    );
    check(
        msg().message(1, msg().message(4, msg().double(4, 1.0))),
        "protobuf: wrong wire type for the field in timeseries.histograms at offset 5",
    );
}

#[test]
fn text_that_is_not_utf8_costs_only_what_uses_it() {
    let bad = msg().message(1, msg().message(1, label("a", "1")).message(2, sample(1, 1.0)));
    let batch = v1(bad.message(3, msg().bytes(2, "x").bytes(4, [b'h', 0xff]))).unwrap();
    assert_eq!((show(&batch).len(), &*batch.metadata[0].help), (1, "h\u{fffd}"));
    let series = |refs: &[u64]| msg().packed(1, refs).message(2, sample(1, 1.0));
    let table = symbols(&["", "__name__", "good"]).bytes(4, [0xff]);
    let request = table.message(5, series(&[1, 3])).message(5, series(&[1, 2])).message(5, series(&[3, 2]));
    let decoded = decode_v2(&request.0, TenantId::anonymous(), &RequestLimits::default()).unwrap();
    assert_eq!(show(&decoded.batch), [r#"{"__name__": "good"} 1.0@1"#]);
    assert_eq!(decoded.left_out.samples, 2);
    assert_eq!(decoded.left_out.first[0], "series 0 of the request: label that is not UTF-8");
}

#[test]
fn requests_are_limited() {
    let limits = RequestLimits { max_series: 2, max_samples: 3, max_label_bytes: 20 };
    let check = |request: &Message, expected: &str| {
        let error = decode_v1_limited(request.0.clone(), TenantId::anonymous(), &limits).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let empty = |n: usize| (0..n).fold(msg(), |request, _| request.message(1, msg()));
    check(&empty(5), "series of a request: 3 is over the limit of 2");
    let samples = (0..4).fold(msg(), |series, at| series.message(2, sample(at, 1.0)));
    check(&msg().message(1, samples), "samples of a request: 4 is over the limit of 3");
    let off = RequestLimits { max_series: 0, max_samples: 0, max_label_bytes: 0 };
    assert_eq!(
        decode_v1_limited(empty(30_000).0, TenantId::anonymous(), &off).unwrap().batch.series.len(),
        30_000
    );
    let bomb = msg()
        .bytes(4, "")
        .bytes(4, "name")
        .bytes(4, "a long value")
        .message(5, msg().packed(1, &[1, 2]))
        .message(5, msg().packed(1, &[1, 2]));
    let error = decode_v2(&bomb.0, TenantId::anonymous(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "bytes of labels after expansion: 36 is over the limit of 20");
}

fn symbols(list: &[&str]) -> Message {
    list.iter().fold(msg(), |request, symbol| request.bytes(4, symbol))
}

#[test]
fn v2_resolves_symbols() {
    let request = symbols(&["", "__name__", "h_bucket", "job", "a", "Help.", "seconds", "le", "1"])
        .message(
            5,
            msg()
                .packed(1, &[3, 4, 1, 2])
                .message(2, sample(1_700_000_000_000, 2.0).varint(3, 1_600_000_000_000))
                .message(2, sample(-1, 3.0))
                .message(5, msg().varint(1, 3).varint(3, 5).varint(4, 6)),
        )
        .message(
            5,
            msg()
                .varint(1, 1)
                .varint(1, 2)
                .packed(1, &[7, 8])
                .message(3, msg().varint(1, 4).varint(15, 5).varint(17, 1))
                .message(4, msg().packed(1, &[3, 4]).double(2, 0.5).varint(3, 6))
                .message(5, msg().varint(1, 3).varint(3, 5).varint(4, 6)),
        );
    let batch = v2(request).unwrap();
    assert_eq!(
        show(&batch),
        [
            r#"{"__name__": "h_bucket", "job": "a"} 2.0@1700000000000(from 1600000000000) 3.0@-1(from 0)"#,
            r##"{"__name__": "h_bucket", "le": "1"} h4@5 # {"job": "a"} 0.5@6"##,
        ]
    );
    assert_eq!(batch.metadata.len(), 1);
    assert_eq!((&*batch.metadata[0].family, &*batch.metadata[0].help), ("h", "Help."));
}

#[test]
fn v2_symbols_may_follow_and_starts_may_be_absent() {
    let series = msg().message(5, msg().packed(1, &[1, 2]).message(2, sample(1, 1.0)));
    let request = Message([series.0, symbols(&["", "a", "b"]).0].concat());
    let batch = v2(request).unwrap();
    assert_eq!(show(&batch), [r#"{"a": "b"} 1.0@1"#]);
    assert!(batch.starts.is_empty() && batch.metadata.is_empty());
}

#[test]
fn v2_leaves_out_what_has_wrong_references() {
    let base = || symbols(&["", "a", "b"]);
    let good = || msg().packed(1, &[1, 2]).message(2, sample(1, 1.0));
    let check = |series: Message, samples: u64, exemplars: u64, problem: &str| {
        let request = base().message(5, good()).message(5, series).message(5, good());
        let Decoded { batch, left_out } = decoded_v2(&request.0).unwrap();
        let kept = if samples > 0 { 2 } else { 3 };
        assert_eq!(batch.series.len(), kept, "{problem}");
        assert_eq!((batch.samples.len(), batch.exemplars.len()), (kept, 0), "{problem}");
        let first = vec![format!("series 1 of the request: {problem}")];
        assert_eq!(left_out, LeftOut { samples, exemplars, first });
    };
    let two = || msg().message(2, sample(1, 1.0).varint(3, 5)).message(3, msg().varint(1, 4));
    check(two().packed(1, &[1]), 2, 0, "odd number of label references");
    check(msg().packed(1, &[1, 3]), 1, 0, "label reference beyond the symbols");
    check(two().packed(1, &[1, 1 << 40]), 2, 0, "label reference beyond the symbols");
    let metadata = msg().varint(1, 1).varint(4, 9);
    check(good().message(5, metadata), 1, 0, "metadata reference beyond the symbols");
    for (refs, problem) in [
        (&[1, 9][..], "label reference beyond the symbols"),
        (&[1], "odd number of label references"),
        (&[1, 2, 1, 2], "exemplar labels that are no label set"),
    ] {
        check(good().message(4, msg().packed(1, refs)), 0, 1, problem);
    }
    let error = v2(symbols(&["a"])).unwrap_err();
    assert_eq!(error.to_string(), "protobuf: first symbol that is not empty in request at offset 3");
    let repeated = base().message(5, msg().packed(1, &[1, 2, 1, 2]).message(2, sample(1, 1.0)));
    assert_eq!(show(&v2(repeated).unwrap()), ["label name \"a\" appears twice 1.0@1"]);
}

#[test]
fn v2_takes_the_created_timestamp_of_a_series() {
    let series = msg().packed(1, &[1, 2]).message(2, sample(9, 1.0)).message(2, sample(10, 1.0).varint(3, 7));
    let request = symbols(&["", "a", "b"]).message(5, series.varint(6, 5));
    assert_eq!(show(&v2(request).unwrap()), [r#"{"a": "b"} 1.0@9(from 5) 1.0@10(from 7)"#]);
}

#[test]
fn buckets_are_limited_while_they_are_read() {
    let check = |histogram: Message, expected: &str| {
        let body = msg().message(1, msg().message(4, histogram)).0;
        assert_eq!(decode_v1(body, TenantId::anonymous()).unwrap_err().to_string(), expected);
    };
    let deltas = msg().packed(12, &vec![2; 70_000]);
    check(deltas, "buckets of a histogram: 65537 is over the limit of 65536");
    let counts = msg().bytes(13, vec![0; 70_000 * 8]);
    check(counts, "buckets of a histogram: 70000 is over the limit of 65536");
    let bounds = msg().bytes(16, vec![0; 70_000 * 8]);
    check(bounds, "custom bucket boundaries of a histogram: 70000 is over the limit of 65536");
    let one = msg().packed(12, &vec![2; 60_000]);
    let many = (0..40).fold(msg(), |series, _| series.message(4, one.clone()));
    let error = decode_v1(msg().message(1, many).0, TenantId::anonymous()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "buckets of all histograms of a request: 2040000 is over the limit of 2000000"
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(batch) = decode_v1(body.clone(), TenantId::anonymous()) {
            show(&batch);
        }
        if let Ok(decoded) = decoded_v2(&body) {
            show(&decoded.batch);
        }
    }

    /// Valid bodies with bytes changed: closer to what passes the first checks.
    #[test]
    fn changed_bodies_never_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        second in any::<bool>(),
    ) {
        let series = msg()
            .message(1, label("__name__", "up"))
            .packed(1, &[1, 2])
            .message(2, sample(1_700_000_000_000, 1.5))
            .message(4, msg().varint(1, 3).message(11, msg().varint(2, 2)).packed(12, &[2, 2]).double(16, 1.0));
        let table = if second { symbols(&["", "a", "b"]) } else { msg() };
        let mut body = table.message(if second { 5 } else { 1 }, series).0;
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        let batch = if second {
            v2(Message(body))
        } else {
            decode_v1(body, TenantId::anonymous())
        };
        if let Ok(batch) = batch {
            show(&batch);
        }
    }

    #[test]
    fn both_versions_agree(
        series in proptest::collection::vec(
            (proptest::collection::btree_map("[a-z]{1,3}", "[a-z]{1,3}", 0..4),
             proptest::collection::vec((any::<i64>(), any::<u64>()), 0..4)),
            0..6,
        ),
    ) {
        let mut table = vec![String::new()];
        let mut first = msg();
        let mut second = msg();
        for (labels, samples) in &series {
            let mut one = msg();
            let mut refs = Vec::new();
            for (name, value) in labels {
                one = one.message(1, label(name, value));
                for text in [name, value] {
                    table.push(text.clone());
                    refs.push(table.len() as u64 - 1);
                }
            }
            let mut two = msg().packed(1, &refs);
            for (timestamp, bits) in samples {
                one = one.message(2, sample(*timestamp, f64::from_bits(*bits)));
                two = two.message(2, sample(*timestamp, f64::from_bits(*bits)));
            }
            first = first.message(1, one);
            second = second.message(5, two);
        }
        let table: Vec<&str> = table.iter().map(String::as_str).collect();
        let second = Message([symbols(&table).0, second.0].concat());
        prop_assert_eq!(show(&v1(first).unwrap()), show(&v2(second).unwrap()));
    }
}
