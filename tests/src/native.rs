//! The native histograms of writers: each sample has one of its own, and what a node says of it is compared bit for bit.
//!
//! A histogram tells writer, round and series by its sum, as a float does by its value. Its buckets grow from round to round
//! as those of a counter do, begin anew now and then, and change their layout; by writer and series they are exponential
//! with integer counts, exponential with fractional counts below and above zero, or custom. All bounds are powers of two or
//! given, so that what a node says of them is told without its arithmetic.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use model::Histogram;
use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use serde_json::Value;

use crate::history::Shape;

/// Bounds of custom buckets.
const CUSTOM: [f64; 4] = [0.25, 0.5, 1.0, 10.0];
/// Width of the zero bucket.
const ZERO: f64 = 1.0 / 1024.0;
/// Rounds after which counts begin anew.
const RESET: u64 = 40;
/// Rounds after which the layout of the buckets changes.
const LAYOUT: u64 = 16;

/// Whether series number `series` of a writer that sends histograms carries them.
pub fn carries(series: u64) -> bool {
    series % 7 == 2
}

/// The histogram of a sample.
pub fn histogram(shape: &Shape, round: u64, series: u64) -> Histogram {
    let counts = |from: u64, step: f64| (0..4).map(|n| (round % RESET + from + n) as f64 + step).collect();
    // The first bucket, and how many are left out behind the second.
    let shift = (round / LAYOUT % 3) as i32;
    let spans = |first: i32| {
        vec![Span { offset: first + shift, length: 2 }, Span { offset: 1 + shift % 2, length: 2 }]
    };
    let mut made = Histogram { sum: shape.value(round, series), ..Histogram::default() };
    match (shape.id + series) % 3 {
        0 => {
            made.integer = true;
            made.zero_threshold = ZERO;
            made.zero_count = (round % RESET) as f64;
            (made.positive_spans, made.positive_buckets) = (spans(-2), counts(1, 0.0));
        }
        1 => {
            made.schema = -1;
            made.zero_threshold = ZERO;
            made.zero_count = (round % RESET) as f64 + 0.5;
            (made.positive_spans, made.positive_buckets) = (spans(0), counts(1, 0.25));
            (made.negative_spans, made.negative_buckets) = (spans(-1), counts(2, 0.125));
        }
        _ => {
            made.integer = true;
            made.schema = CUSTOM_BUCKETS_SCHEMA;
            made.custom_values = Some(Arc::new(CUSTOM));
            let first = (round / LAYOUT % 2) as i32;
            (made.positive_spans, made.positive_buckets) =
                (vec![Span { offset: first, length: 4 }], counts(1, 0.0));
        }
    }
    made.count = made.zero_count
        + made.positive_buckets.iter().sum::<f64>()
        + made.negative_buckets.iter().sum::<f64>();
    made
}

/// A bucket as the API says it: which of its bounds belong to it (0 the upper, 1 the lower, 3 both), the bounds, the count;
/// floats as bits.
type Bucket = (u64, u64, u64, u64);

/// The buckets that are not empty, ascending.
fn buckets(h: &Histogram) -> Vec<Bucket> {
    let bound = |index: i32| match &h.custom_values {
        Some(bounds) => match usize::try_from(index) {
            Ok(at) => bounds.get(at).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        },
        // 2^(2^-schema): 2 for schema 0, 4 for schema -1.
        None => 2f64.powi(index << -h.schema),
    };
    let side = |spans: &[Span], counts: &[f64]| {
        let mut index = 0;
        let mut all = Vec::new();
        let mut counts = counts.iter();
        for span in spans {
            index += span.offset;
            for count in counts.by_ref().take(span.length as usize) {
                all.push((index, bound(index - 1), bound(index), *count));
                index += 1;
            }
        }
        all
    };
    let mut all = Vec::new();
    for (_, low, high, count) in side(&h.negative_spans, &h.negative_buckets).into_iter().rev() {
        all.push((1, -high, -low, count));
    }
    if h.zero_count > 0.0 {
        all.push((3, -h.zero_threshold, h.zero_threshold, h.zero_count));
    }
    for (index, low, high, count) in side(&h.positive_spans, &h.positive_buckets) {
        let lowest = h.custom_values.is_some() && index == 0;
        all.push((if lowest { 3 } else { 0 }, low, high, count));
    }
    let bits = |(rule, low, high, count): (u64, f64, f64, f64)| {
        (rule, low.to_bits(), high.to_bits(), count.to_bits())
    };
    all.into_iter().map(bits).collect()
}

/// Whether `shown`, a histogram of an answer, is `sent`: sum, count, and each bucket with its bounds and count.
///
/// # Errors
/// It is not written as the API writes histograms.
pub fn shows(sent: &Histogram, shown: &Value) -> Result<bool> {
    let number = |value: &Value| -> Result<u64> {
        let text = value.as_str().context("a number in quotes")?;
        Ok(text.parse::<f64>().with_context(|| format!("not a number: {text}"))?.to_bits())
    };
    let mut seen = Vec::new();
    for bucket in shown["buckets"].as_array().into_iter().flatten() {
        let rule = bucket[0].as_u64().context("which bounds belong to a bucket")?;
        ensure!(bucket.as_array().is_some_and(|parts| parts.len() == 4), "a bucket of four parts: {bucket}");
        seen.push((rule, number(&bucket[1])?, number(&bucket[2])?, number(&bucket[3])?));
    }
    let same =
        number(&shown["sum"])? == sent.sum.to_bits() && number(&shown["count"])? == sent.count.to_bits();
    Ok(same && seen == buckets(sent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape() -> Shape {
        Shape { id: 1, series: 14, start_ms: 10_000, histograms: true }
    }

    #[test]
    fn a_histogram_is_known_by_what_the_api_says() -> Result<()> {
        let shape = shape();
        assert_eq!(shape.natives(), 2);
        // Writer 1: series 2 is exponential, with integers; series 9 has fractions.
        let sum = shape.value(1, 2).to_string();
        let shown = json!({"count": "15", "sum": sum, "buckets": [
            [3, "-0.0009765625", "0.0009765625", "1"],
            [0, "0.125", "0.25", "2"], [0, "0.25", "0.5", "3"], [0, "1", "2", "4"], [0, "2", "4", "5"]]});
        assert!(shows(&histogram(&shape, 1, 2), &shown)?);
        assert!(!shows(&histogram(&shape, 2, 2), &shown)?, "of another round");
        for (pointer, value) in
            [("/count", "14"), ("/sum", "1"), ("/buckets/4/3", "6"), ("/buckets/4/2", "5")]
        {
            let mut other = shown.clone();
            *other.pointer_mut(pointer).context("a place")? = json!(value);
            assert!(!shows(&histogram(&shape, 1, 2), &other)?, "{pointer} {value}");
        }
        let custom = Shape { id: 3, ..shape };
        let shown = json!({"count": "10", "sum": custom.value(0, 2).to_string(), "buckets": [
            [3, "-Inf", "0.25", "1"], [0, "0.25", "0.5", "2"], [0, "0.5", "1", "3"], [0, "1", "10", "4"]]});
        assert!(shows(&histogram(&custom, 0, 2), &shown)?);
        Ok(())
    }

    #[test]
    fn every_kind_and_layout_is_sent() {
        let kinds = (1..4).flat_map(|id| (0..14).filter(|n| carries(*n)).map(move |n| (id + n) % 3));
        assert_eq!(kinds.collect::<std::collections::BTreeSet<_>>().len(), 3);
        for id in 1..4 {
            let shape = Shape { id, ..shape() };
            let layout = |round| {
                let made = histogram(&shape, round, 2);
                (made.positive_spans, made.negative_spans)
            };
            assert_ne!(layout(0), layout(LAYOUT));
        }
    }
}
