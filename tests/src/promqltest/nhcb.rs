//! `load_with_nhcb`: native histograms with custom buckets out of classic ones.

use std::collections::BTreeMap;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use model::{Histogram, Labels, LabelsBuilder, METRIC_NAME};
use promql::series::SeriesValue;

use super::script::Loaded;

/// What is known of a classic histogram at one time.
#[derive(Default)]
struct Classic {
    /// (upper bound, cumulative count).
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// The native twins of all classic histograms in `series`, by series and time.
pub(super) fn convert(series: &[Loaded]) -> Result<Vec<(Labels, i64, Histogram)>, String> {
    let mut all: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for (labels, samples) in series {
        let name = labels.metric_name();
        let Some((base, suffix)) = name.rsplit_once('_') else { continue };
        if !matches!(suffix, "bucket" | "sum" | "count") {
            continue;
        }
        let upper = if suffix == "bucket" {
            match model::number::parse_float(labels.get("le").unwrap_or("")) {
                Ok(upper) if !upper.is_nan() => upper,
                _ => continue,
            }
        } else {
            0.0
        };
        let mut builder = LabelsBuilder::from_labels(labels);
        builder.set(METRIC_NAME, base).remove("le");
        let by_time = all.entry(builder.build().map_err(|e| e.to_string())?).or_default();
        for (time, value, _) in samples {
            let SeriesValue::Float(value) = value else { continue };
            let classic = by_time.entry(*time).or_default();
            match suffix {
                "bucket" => classic.buckets.push((upper, *value)),
                "count" => classic.count = Some(*value),
                _ => classic.sum = *value,
            }
        }
    }
    let mut made = Vec::new();
    for (labels, by_time) in all {
        for (time, classic) in by_time {
            made.push((labels.clone(), time, native(classic)?));
        }
    }
    Ok(made)
}

fn native(mut classic: Classic) -> Result<Histogram, String> {
    classic.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    classic.buckets.dedup_by(|next, kept| next.0 == kept.0);
    let last = classic.buckets.last().copied();
    let count = classic.count.or(last.map(|b| b.1)).unwrap_or(0.0);
    if last.is_none_or(|b| b.0 != f64::INFINITY) {
        classic.buckets.push((f64::INFINITY, count));
    }
    let mut before = 0.0;
    let mut h = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: classic.sum,
        positive_spans: vec![Span { offset: 0, length: classic.buckets.len() as u32 }],
        ..Histogram::default()
    };
    for (_, cumulative) in &classic.buckets {
        if *cumulative < before {
            return Err(format!("count is not cumulative: {cumulative} < {before}"));
        }
        h.positive_buckets.push(cumulative - before);
        before = *cumulative;
    }
    if before != count {
        return Err(format!("count mismatch: count={count} != {before}"));
    }
    let bounds: Vec<f64> = classic.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
    h.custom_values = Some(bounds.into());
    Ok(engine::histograms::compacted(&h))
}
