//! Whether a native histogram is consistent in itself: upstream's rules (`model/histogram`, `Validate`). Those of a
//! finer schema than is stored are made coarser, as upstream's receiver does.

use model::Histogram;
use model::histogram::Span;

/// The finest exponential schema that is stored.
const FINEST: i8 = 8;
/// The finest exponential schema that the wire formats reserve.
const FINEST_ON_WIRE: i8 = 52;

/// Whether [`coarsened`] must be applied before it is stored.
pub(crate) fn is_too_fine(histogram: &Histogram) -> bool {
    (FINEST + 1..=FINEST_ON_WIRE).contains(&histogram.schema)
}

/// `histogram`, which has no problem, in the finest schema that is stored: neighbouring buckets are added up.
pub(crate) fn coarsened(histogram: &Histogram) -> Histogram {
    let by = histogram.schema - FINEST;
    let mut out = Histogram { schema: FINEST, ..histogram.clone() };
    (out.positive_spans, out.positive_buckets) =
        coarser(&histogram.positive_spans, &histogram.positive_buckets, by);
    (out.negative_spans, out.negative_buckets) =
        coarser(&histogram.negative_spans, &histogram.negative_buckets, by);
    out
}

/// Spans and buckets of a schema lower by `by`, in which a bucket is 2^`by` of the old ones.
fn coarser(spans: &[Span], buckets: &[f64], by: i8) -> (Vec<Span>, Vec<f64>) {
    let mut out: (Vec<Span>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut counts = buckets.iter();
    let (mut index, mut last) = (0i64, None);
    for span in spans {
        index += i64::from(span.offset);
        for count in counts.by_ref().take(span.length as usize) {
            // Bucket i ends at base^i, so that the first of a group has the number after a multiple of its size.
            let target = ((index - 1) >> by.min(62)) + 1;
            index += 1;
            match (last, out.0.last_mut(), out.1.last_mut()) {
                (Some(same), _, Some(sum)) if same == target => *sum += count,
                (Some(before), Some(open), _) if before + 1 == target => {
                    open.length += 1;
                    out.1.push(*count);
                }
                (before, ..) => {
                    let offset = target - before.map_or(0, |before| before + 1);
                    // A problem would have been told if the finer index did not fit.
                    out.0.push(Span { offset: i32::try_from(offset).unwrap_or(i32::MAX), length: 1 });
                    out.1.push(*count);
                }
            }
            last = Some(target);
        }
    }
    out
}

/// What is wrong with `histogram`, if anything. Staleness markers are always fine.
pub(crate) fn problem(histogram: &Histogram) -> Option<&'static str> {
    if histogram.is_stale() {
        return None;
    }
    if histogram.has_custom_buckets() {
        if let Some(problem) = custom_problem(histogram) {
            return Some(problem);
        }
    } else {
        // Finer ones than are stored, up to what the wire format reserves, are made coarser afterwards.
        if !(-4..=FINEST_ON_WIRE).contains(&histogram.schema) {
            return Some("has an unknown schema");
        }
        if histogram.custom_values.as_deref().is_some_and(|values| !values.is_empty()) {
            return Some("has custom boundaries in an exponential schema");
        }
        if histogram.zero_threshold.is_nan() || histogram.zero_threshold < 0.0 {
            return Some("has a negative zero threshold");
        }
    }
    let sides = [
        (&histogram.positive_spans, &histogram.positive_buckets),
        (&histogram.negative_spans, &histogram.negative_buckets),
    ];
    let mut sum = 0.0;
    for (spans, buckets) in sides {
        if let Some(problem) = span_problem(spans, buckets.len()) {
            return Some(problem);
        }
        if buckets.iter().any(|count| count.is_nan() || *count < 0.0) {
            return Some("has a bucket with a negative count");
        }
        sum += buckets.iter().sum::<f64>();
    }
    if [histogram.count, histogram.zero_count].iter().any(|count| count.is_nan() || *count < 0.0) {
        return Some("has a negative count");
    }
    // Sums of floats are not compared: rounding would refuse good ones.
    if histogram.integer {
        let in_buckets = sum + histogram.zero_count;
        if histogram.sum.is_nan() {
            if in_buckets > histogram.count {
                return Some("counts less than its buckets");
            }
        } else if in_buckets != histogram.count {
            return Some("counts other than its buckets");
        }
    }
    None
}

fn custom_problem(histogram: &Histogram) -> Option<&'static str> {
    let bounds = histogram.custom_values.as_deref().unwrap_or(&[]);
    let is_wrong = |bound: &f64| bound.is_nan() || *bound == f64::INFINITY;
    if bounds.iter().any(is_wrong) || !bounds.is_sorted_by(|a, b| a < b) {
        return Some("has custom boundaries that do not ascend");
    }
    if !histogram.negative_spans.is_empty() || !histogram.negative_buckets.is_empty() {
        return Some("has negative buckets beside custom boundaries");
    }
    if histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0 {
        return Some("has a zero bucket beside custom boundaries");
    }
    let reach: i64 =
        histogram.positive_spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    if reach > bounds.len() as i64 + 1 {
        return Some("has more buckets than custom boundaries");
    }
    if histogram.positive_spans.first().is_some_and(|span| span.offset < 0) {
        return Some("has a span that goes back");
    }
    None
}

fn span_problem(spans: &[Span], n_buckets: usize) -> Option<&'static str> {
    if spans.iter().skip(1).any(|span| span.offset < 0) {
        return Some("has a span that goes back");
    }
    let mut index = 0i64;
    let mut length = 0u64;
    for span in spans {
        length += u64::from(span.length);
        index += i64::from(span.offset) + i64::from(span.length);
        if i32::try_from(index).is_err() {
            return Some("has a bucket index out of range");
        }
    }
    if length != n_buckets as u64 {
        return Some("has spans that do not fit its buckets");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Histogram {
        Histogram {
            integer: true,
            schema: 1,
            count: 7.0,
            zero_count: 1.0,
            positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 3, length: 1 }],
            positive_buckets: vec![1.0, 2.0],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![3.0],
            ..Histogram::default()
        }
    }

    fn custom() -> Histogram {
        Histogram {
            integer: true,
            schema: -53,
            count: 3.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            custom_values: Some([0.5].into()),
            ..Histogram::default()
        }
    }

    #[track_caller]
    fn check(mut histogram: Histogram, change: impl FnOnce(&mut Histogram), expected: &str) {
        change(&mut histogram);
        assert_eq!(problem(&histogram).unwrap_or("fine"), expected);
    }

    #[test]
    fn contradictions_are_found() {
        check(base(), |_| {}, "fine");
        check(base(), |h| h.schema = 9, "fine");
        check(base(), |h| h.schema = 53, "has an unknown schema");
        check(base(), |h| h.schema = -5, "has an unknown schema");
        check(base(), |h| h.count = 8.0, "counts other than its buckets");
        check(base(), |h| (h.count, h.sum) = (8.0, f64::NAN), "fine");
        check(base(), |h| (h.count, h.sum) = (6.0, f64::NAN), "counts less than its buckets");
        check(base(), |h| (h.count, h.integer) = (8.5, false), "fine");
        check(base(), |h| h.positive_buckets[0] = -1.0, "has a bucket with a negative count");
        check(base(), |h| h.positive_spans[1].offset = -1, "has a span that goes back");
        check(base(), |h| h.positive_spans[1].length = 1 << 31, "has a bucket index out of range");
        check(base(), |h| h.negative_spans[0].length = 2, "has spans that do not fit its buckets");
        check(base(), |h| h.zero_count = -1.0, "has a negative count");
        check(base(), |h| h.zero_threshold = f64::NAN, "has a negative zero threshold");
        check(
            base(),
            |h| h.custom_values = Some([1.0].into()),
            "has custom boundaries in an exponential schema",
        );
        check(base(), |h| (h.sum, h.schema) = (model::stale_nan(), 99), "fine");
    }

    #[test]
    fn too_fine_schemas_are_made_coarser() {
        // Buckets -3 to 4 of schema 10: four of them are one of schema 8, which ends at a multiple of four.
        let fine = Histogram {
            schema: 10,
            count: 36.0,
            positive_spans: vec![Span { offset: -3, length: 5 }, Span { offset: 1, length: 3 }],
            positive_buckets: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            ..Histogram::default()
        };
        assert!(is_too_fine(&fine) && !is_too_fine(&base()));
        let coarse = coarsened(&fine);
        assert_eq!((coarse.schema, coarse.count), (8, 36.0));
        // Old buckets -3..=0 | 1 | 3, 4, 5: new 0, 1 (with 1, 3, 4), 2 (with 5).
        assert_eq!(coarse.positive_spans, [Span { offset: 0, length: 3 }]);
        assert_eq!(coarse.positive_buckets, [10.0, 18.0, 8.0]);
        let apart = Histogram {
            positive_spans: vec![Span { offset: -3, length: 4 }, Span { offset: 8, length: 4 }],
            ..fine
        };
        assert_eq!(
            coarsened(&apart).positive_spans,
            [Span { offset: 0, length: 1 }, Span { offset: 2, length: 1 }]
        );
    }

    #[test]
    fn custom_boundaries() {
        check(custom(), |h| h.custom_values = Some([f64::NEG_INFINITY, 0.5].into()), "fine");
        check(custom(), |_| {}, "fine");
        check(custom(), |h| h.custom_values = None, "has more buckets than custom boundaries");
        check(
            custom(),
            |h| h.custom_values = Some([2.0, 1.0].into()),
            "has custom boundaries that do not ascend",
        );
        check(
            custom(),
            |h| h.custom_values = Some([f64::INFINITY].into()),
            "has custom boundaries that do not ascend",
        );
        check(custom(), |h| h.zero_count = 1.0, "has a zero bucket beside custom boundaries");
        check(custom(), |h| h.negative_buckets = vec![1.0], "has negative buckets beside custom boundaries");
        check(custom(), |h| h.positive_spans[0].offset = -1, "has a span that goes back");
    }
}
