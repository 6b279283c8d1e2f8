//! Layouts of native buckets: from (index, count) pairs to spans and back, and coarser resolutions of a histogram.
//!
//! Not here: quantiles and sums of histograms (`engine`), whether a histogram contradicts itself (`ingest`).

use model::Histogram;
use model::histogram::Span;

/// Gaps of up to this many empty buckets are filled, since a span costs more than they do.
const MAX_FILLED_GAP: i64 = 2;
/// The coarsest exponential schema.
pub const MIN_SCHEMA: i8 = -4;
/// The finest exponential schema.
pub const MAX_SCHEMA: i8 = 8;

/// Spans and counts of `buckets`, which ascend by index; neighbours with the same index are added up, empty buckets
/// are left out where that is shorter. `None` when an index does not fit 32 bits.
pub(crate) fn layout(buckets: impl IntoIterator<Item = (i64, f64)>) -> Option<(Vec<Span>, Vec<f64>)> {
    let (mut spans, mut counts): (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    // The index after the last bucket, and the index of the last bucket.
    let (mut end, mut last) = (0i64, i64::MIN);
    for (index, count) in buckets {
        if count == 0.0 {
            continue;
        }
        if index == last {
            if let Some(sum) = counts.last_mut() {
                *sum += count;
            }
            continue;
        }
        let gap = index - end;
        match spans.last_mut() {
            Some(span) if (0..=MAX_FILLED_GAP).contains(&gap) => {
                span.length += gap as u32 + 1;
                counts.resize(counts.len() + gap as usize, 0.0);
            }
            _ => spans.push(Span { offset: i32::try_from(gap).ok()?, length: 1 }),
        }
        counts.push(count);
        (last, end) = (index, index + 1);
    }
    (end <= i64::from(i32::MAX)).then_some((spans, counts))
}

/// The (index, count) pairs of a side of a histogram. Counts that no span covers are left out.
pub(crate) fn indexed<'a>(spans: &'a [Span], counts: &'a [f64]) -> impl Iterator<Item = (i64, f64)> + 'a {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let start = next + i64::from(span.offset);
        next = start + i64::from(span.length);
        start..next
    });
    indexes.zip(counts.iter().copied())
}

/// Makes exponential `histogram` coarser, down to `schema`; does nothing to one that is coarse enough or has custom
/// buckets. What it says is the same with wider buckets.
pub fn reduce_resolution(histogram: &mut Histogram, schema: i8) {
    if histogram.has_custom_buckets() || histogram.schema <= schema {
        return;
    }
    let shift = (i32::from(histogram.schema) - i32::from(schema)).min(63) as u32;
    let reduce = |spans: &mut Vec<Span>, counts: &mut Vec<f64>| {
        let merged = indexed(spans, counts).map(|(index, count)| (((index - 1) >> shift) + 1, count));
        // Indexes come nearer to 0, so they fit as before.
        if let Some((new_spans, new_counts)) = layout(merged) {
            (*spans, *counts) = (new_spans, new_counts);
        }
    };
    reduce(&mut histogram.positive_spans, &mut histogram.positive_buckets);
    reduce(&mut histogram.negative_spans, &mut histogram.negative_buckets);
    histogram.schema = schema;
}

/// Makes `histogram` as coarse as it must be to have at most `limit` buckets. False when no resolution is coarse
/// enough, or its buckets are custom ones.
pub fn limit_buckets(histogram: &mut Histogram, limit: usize) -> bool {
    while histogram.positive_buckets.len() + histogram.negative_buckets.len() > limit {
        if histogram.has_custom_buckets() || histogram.schema <= MIN_SCHEMA {
            return false;
        }
        reduce_resolution(histogram, histogram.schema - 1);
    }
    true
}

/// The finest schema whose buckets grow by at least `factor` from one to the next; anything up to 1 means the finest.
pub fn schema_for_factor(factor: f64) -> i8 {
    let factor = if factor > 1.0 { factor } else { 1.00271 };
    let schema = (-factor.log2().log2()).floor();
    schema.clamp(f64::from(MIN_SCHEMA), f64::from(MAX_SCHEMA)) as i8
}

/// The cumulative buckets of a classic histogram on their way to custom buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classic {
    /// (upper boundary, cumulative count), ascending, each boundary once.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    bad: bool,
}

impl Classic {
    /// A bucket; a repeated boundary is ignored.
    pub(crate) fn bucket(&mut self, boundary: f64, count: f64) {
        self.bad |= boundary.is_nan() || count < 0.0;
        if self.bad {
            return;
        }
        let at = self.buckets.partition_point(|(other, _)| *other < boundary);
        if self.buckets.get(at).is_none_or(|(other, _)| *other != boundary) {
            self.buckets.insert(at, (boundary, count));
        }
    }

    /// The count of all observations.
    pub(crate) fn count(&mut self, count: f64) {
        self.bad |= count < 0.0;
        self.count = Some(count);
    }

    /// The sum of all observations.
    pub(crate) fn sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// The histogram with custom buckets, or `None` when buckets and count contradict each other.
    pub(crate) fn convert(mut self) -> Option<Histogram> {
        if self.bad || (self.buckets.is_empty() && self.count.is_none()) {
            return None;
        }
        let count = self.count.or(self.buckets.last().map(|(_, count)| *count))?;
        if self.buckets.last().is_none_or(|(boundary, _)| *boundary != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let last = self.buckets.last().map(|(_, count)| *count)?;
        if last != count || !self.buckets.is_sorted_by(|a, b| a.1 <= b.1) {
            return None;
        }
        let whole = |value: f64| value.fract() == 0.0 && value < 9_007_199_254_740_992.0;
        let integer = whole(count) && self.buckets.iter().all(|(_, count)| whole(*count));
        let mut before = 0.0;
        let own = self.buckets.iter().enumerate().map(|(index, (_, count))| {
            let own = *count - before;
            before = *count;
            (index as i64, own)
        });
        let (positive_spans, positive_buckets) = layout(own)?;
        let boundaries: Vec<f64> = self.buckets.iter().map(|(b, _)| *b).filter(|b| b.is_finite()).collect();
        if boundaries.len() + 1 != self.buckets.len() {
            return None;
        }
        Some(Histogram {
            integer,
            schema: model::histogram::CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans,
            positive_buckets,
            custom_values: Some(boundaries.into()),
            ..Histogram::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(histogram: &Histogram) -> String {
        let pairs = indexed(&histogram.positive_spans, &histogram.positive_buckets)
            .filter(|(_, count)| *count != 0.0)
            .map(|(index, count)| format!("{index}:{count}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    fn of(schema: i8, buckets: &[(i64, f64)]) -> Histogram {
        let (positive_spans, positive_buckets) = layout(buckets.iter().copied()).unwrap();
        Histogram { schema, positive_spans, positive_buckets, ..Histogram::default() }
    }

    #[test]
    fn gaps_make_spans() {
        let histogram = of(0, &[(-3, 1.0), (-2, 0.0), (0, 2.0), (10, 3.0), (10, 4.0)]);
        assert_eq!(histogram.positive_spans, [Span { offset: -3, length: 4 }, Span { offset: 9, length: 1 }]);
        assert_eq!(histogram.positive_buckets, [1.0, 0.0, 0.0, 2.0, 7.0]);
        assert!(layout([(i64::from(i32::MAX) + 5, 1.0)]).is_none());
        assert_eq!(layout([]), Some((vec![], vec![])));
    }

    #[test]
    fn coarser_buckets_hold_the_finer_ones() {
        let mut histogram = of(2, &[(-3, 1.0), (0, 2.0), (1, 4.0), (4, 8.0), (5, 16.0)]);
        reduce_resolution(&mut histogram, 0);
        assert_eq!((histogram.schema, shown(&histogram).as_str()), (0, "0:3 1:12 2:16"));
        reduce_resolution(&mut histogram, 3);
        assert_eq!(histogram.schema, 0);
        let mut histogram = of(8, &(1..=1000).map(|i| (i, 1.0)).collect::<Vec<_>>());
        assert!(limit_buckets(&mut histogram, 10));
        assert_eq!(histogram.positive_buckets.iter().sum::<f64>(), 1000.0);
        assert!(histogram.positive_buckets.len() <= 10 && histogram.schema == 1, "{}", histogram.schema);
        assert!(!limit_buckets(&mut of(-4, &[(1, 1.0), (2, 1.0)]), 1));
    }

    #[test]
    fn factors() {
        for (factor, schema) in [(0.0, 8), (1.0, 8), (1.1, 2), (1.5, 0), (2.0, 0), (65536.0, -4), (1e300, -4)]
        {
            assert_eq!(schema_for_factor(factor), schema, "{factor}");
        }
    }

    #[test]
    fn classic_to_custom() {
        let check = |buckets: &[(f64, f64)], count: Option<f64>, want: Option<&str>| {
            let mut classic = Classic::default();
            buckets.iter().for_each(|(boundary, count)| classic.bucket(*boundary, *count));
            if let Some(count) = count {
                classic.count(count);
            }
            let got = classic.convert().map(|h| {
                format!("{} {} {:?} {}", h.integer, h.count, h.custom_values.clone().unwrap(), shown(&h))
            });
            assert_eq!(got.as_deref(), want, "{buckets:?}");
        };
        let inf = f64::INFINITY;
        check(&[(1.0, 2.0), (2.0, 5.0), (inf, 6.0)], Some(6.0), Some("true 6 [1.0, 2.0] 0:2 1:3 2:1"));
        check(&[(2.0, 5.0), (1.0, 2.0)], Some(6.0), Some("true 6 [1.0, 2.0] 0:2 1:3 2:1"));
        check(&[(1.0, 0.5)], None, Some("false 0.5 [1.0] 0:0.5"));
        check(&[], Some(3.0), Some("true 3 [] 0:3"));
        check(&[], None, None);
        check(&[(1.0, 5.0), (2.0, 4.0)], None, None);
        check(&[(1.0, 5.0), (inf, 5.0)], Some(6.0), None);
        check(&[(f64::NAN, 5.0)], Some(6.0), None);
        check(&[(f64::NEG_INFINITY, 1.0)], Some(6.0), None);
    }

    proptest! {
        #[test]
        fn layouts_come_back(pairs in proptest::collection::btree_map(-1000i64..1000, 1u32..9, 0..40)) {
            let pairs: Vec<(i64, f64)> = pairs.into_iter().map(|(i, c)| (i, f64::from(c))).collect();
            let (spans, counts) = layout(pairs.iter().copied()).unwrap();
            prop_assert_eq!(spans.iter().map(|s| s.length as usize).sum::<usize>(), counts.len());
            let back: Vec<_> = indexed(&spans, &counts).filter(|(_, count)| *count != 0.0).collect();
            prop_assert_eq!(back, pairs);
        }
    }
}
