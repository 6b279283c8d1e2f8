//! A native histogram ⇄ bytes, against the histogram that its slot had before: the layout only where it differs, then
//! zero count, count, sum and buckets like the values of a row.

use model::Histogram;
use model::histogram::ResetHint;

use super::values::{self, ValueScratch};
use crate::codec::{DecodeError, Reader};

/// Bits of the first byte: the reset hint, and that the layout is that of the base.
const HINT: u8 = 3;
const SAME_LAYOUT: u8 = 4;

/// The most buckets of one side.
const MAX_BUCKETS: usize = 1 << 17;

/// Appends `histogram` coded against `base`.
pub(crate) fn put_histogram(base: Option<&Histogram>, histogram: &Histogram, out: &mut Vec<u8>) {
    let base = base.filter(|base| chunk::is_same_layout(base, histogram));
    out.push(histogram.reset_hint as u8 | if base.is_some() { SAME_LAYOUT } else { 0 });
    if base.is_none() {
        chunk::put_layout(histogram, out);
    }
    let numbers: Vec<u64> = numbers(histogram).collect();
    let bases = base.map_or_else(|| vec![0; numbers.len()], |base| self::numbers(base).collect());
    values::encode(&bases, &numbers, &mut ValueScratch::default(), out);
}

/// Reads what [`put_histogram`] wrote; `base` must be the same.
pub(crate) fn read_histogram(
    reader: &mut Reader<'_>,
    base: Option<&Histogram>,
) -> Result<Histogram, DecodeError> {
    let flags = reader.byte()?;
    let (mut histogram, bases) = if flags & SAME_LAYOUT != 0 {
        let base = base.ok_or_else(|| reader.invalid("base of a histogram"))?;
        (base.clone(), numbers(base).collect())
    } else {
        let rest = reader.rest();
        let (histogram, taken) = chunk::read_layout_of(rest, MAX_BUCKETS.min(rest.len().saturating_mul(8)))
            .map_err(|_| reader.invalid("layout of a histogram"))?;
        reader.take(taken)?;
        let bases = vec![0; 3 + histogram.positive_buckets.len() + histogram.negative_buckets.len()];
        (histogram, bases)
    };
    histogram.reset_hint = match flags & !SAME_LAYOUT {
        0 => ResetHint::Unknown,
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        HINT => ResetHint::Gauge,
        _ => return Err(reader.invalid("flags of a histogram")),
    };
    let mut numbers = Vec::with_capacity(bases.len());
    values::decode(reader, &bases, &mut numbers)?;
    let mut numbers = numbers.into_iter().map(f64::from_bits);
    let Histogram { zero_count, count, sum, positive_buckets, negative_buckets, .. } = &mut histogram;
    let places = [zero_count, count, sum].into_iter().chain(positive_buckets).chain(negative_buckets);
    for (place, number) in places.zip(&mut numbers) {
        *place = number;
    }
    Ok(histogram)
}

/// What changes from sample to sample, as bits.
pub(crate) fn numbers(histogram: &Histogram) -> impl Iterator<Item = u64> + '_ {
    [histogram.zero_count, histogram.count, histogram.sum]
        .into_iter()
        .chain(histogram.positive_buckets.iter().copied())
        .chain(histogram.negative_buckets.iter().copied())
        .map(f64::to_bits)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use model::histogram::Span;
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Span> {
        (any::<i32>(), 0u32..9).prop_map(|(offset, length)| Span { offset, length })
    }

    /// Any histogram, also such as contradict themselves: storage keeps what it is given.
    pub(crate) fn any_histogram() -> impl Strategy<Value = Histogram> {
        let number = || {
            prop_oneof![
                4 => (0u32..1000).prop_map(f64::from),
                1 => any::<u64>().prop_map(f64::from_bits),
                1 => Just(model::stale_nan()),
            ]
        };
        let side = || (prop::collection::vec(span(), 0..4), prop::collection::vec(number(), 0..12));
        let bounds = prop::option::weighted(0.3, prop::collection::vec(number(), 0..5));
        let hint = prop_oneof![
            Just(ResetHint::Unknown),
            Just(ResetHint::Reset),
            Just(ResetHint::NotReset),
            Just(ResetHint::Gauge),
        ];
        let fixed = (any::<bool>(), hint, prop_oneof![-4i8..9, Just(-53i8)]);
        (fixed, number(), number(), number(), number(), side(), side(), bounds).prop_map(
            |((integer, reset_hint, schema), zero_threshold, zero_count, count, sum, plus, minus, bounds)| {
                Histogram {
                    integer,
                    reset_hint,
                    schema,
                    zero_threshold,
                    zero_count,
                    count,
                    sum,
                    positive_spans: plus.0,
                    positive_buckets: plus.1,
                    negative_spans: minus.0,
                    negative_buckets: minus.1,
                    custom_values: bounds.map(Arc::from),
                }
            },
        )
    }

    fn check(base: Option<&Histogram>, histogram: &Histogram) -> usize {
        let mut bytes = Vec::new();
        put_histogram(base, histogram, &mut bytes);
        let mut reader = Reader::new(&bytes);
        let back = read_histogram(&mut reader, base).unwrap();
        assert!(back.same_bits(histogram), "{back:?}\n{histogram:?}");
        assert!(reader.is_empty());
        bytes.len()
    }

    proptest! {
        #[test]
        fn any_histogram_comes_back(base in prop::option::of(any_histogram()), histogram in any_histogram(), sum in any::<u64>()) {
            check(base.as_ref(), &histogram);
            let next = Histogram { sum: f64::from_bits(sum), count: histogram.count + 1.0, ..histogram.clone() };
            check(Some(&histogram), &next);
        }

        #[test]
        fn garbage_is_an_error_or_a_histogram(bytes in prop::collection::vec(any::<u8>(), 0..60), base in any_histogram()) {
            let _ = read_histogram(&mut Reader::new(&bytes), Some(&base));
        }
    }

    #[test]
    fn a_later_state_of_counters_is_short() {
        let first = Histogram {
            integer: true,
            schema: 3,
            count: 1000.0,
            sum: 123.0,
            positive_spans: vec![Span { offset: 0, length: 20 }],
            positive_buckets: vec![50.0; 20],
            ..Histogram::default()
        };
        let mut second = first.clone();
        (second.count, second.sum, second.positive_buckets[7]) = (1001.0, 124.0, 51.0);
        assert_eq!(check(Some(&first), &second), 1 + 3 + 2 + 3);
    }
}
