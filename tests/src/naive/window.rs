//! What functions make of the samples of one window.

/// The value of the function `name` over the samples of a window; nothing where it has none.
pub(super) fn of_window(
    name: &str,
    params: &[f64],
    window: &[(i64, f64)],
    start: i64,
    end: i64,
) -> Result<Option<f64>, String> {
    let (Some(first), Some(last)) = (window.first(), window.last()) else { return Ok(None) };
    let values = || window.iter().map(|(_, v)| *v);
    let pairs = || window.windows(2).map(|pair| (pair[0].1, pair[1].1));
    Ok(Some(match name {
        "rate" | "increase" | "delta" => return Ok(extrapolated(name, window, start, end)),
        "sum_over_time" => sum(values()),
        "avg_over_time" => sum(values()) / window.len() as f64,
        "min_over_time" => extreme(values(), |v, best| v < best),
        "max_over_time" => extreme(values(), |v, best| v > best),
        "count_over_time" => window.len() as f64,
        "last_over_time" => last.1,
        "first_over_time" => first.1,
        "present_over_time" => 1.0,
        "changes" => pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64,
        "resets" => pairs().filter(|(a, b)| b < a).count() as f64,
        "irate" | "idelta" => return Ok(instant(name == "irate", window)),
        "stddev_over_time" | "stdvar_over_time" if values().all(|v| v == first.1 && v.is_finite()) => 0.0,
        "stddev_over_time" => variance(&values().collect::<Vec<_>>()).sqrt(),
        "stdvar_over_time" => variance(&values().collect::<Vec<_>>()),
        "quantile_over_time" => quantile(params[0], values().collect()),
        "mad_over_time" if values().any(f64::is_nan) => f64::NAN,
        "mad_over_time" => {
            let median = quantile(0.5, values().collect());
            quantile(0.5, values().map(|v| (v - median).abs()).collect())
        }
        "deriv" if window.len() < 2 => return Ok(None),
        "deriv" => slope(window),
        _ => return Err(format!("{name} of {first:?} is not known here")),
    }))
}

/// `rate`, `increase`, `delta`: the difference between the first and the last sample, corrected for resets, and
/// extrapolated to the ends of the window where samples are as near as they are to each other.
fn extrapolated(name: &str, window: &[(i64, f64)], start: i64, end: i64) -> Option<f64> {
    let (first, last) = (window.first()?, window.last()?);
    if window.len() < 2 {
        return None;
    }
    let is_counter = name != "delta";
    let mut difference = last.1 - first.1;
    if is_counter {
        for pair in window.windows(2).filter(|pair| pair[1].1 < pair[0].1) {
            difference += pair[0].1;
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.0 - first.0);
    let between = sampled / (window.len() - 1) as f64;
    let near = |gap: f64| if gap >= between * 1.1 { between / 2.0 } else { gap };
    let mut before = near(seconds(first.0 - start));
    let after = near(seconds(end - last.0));
    if is_counter && difference > 0.0 && first.1 >= 0.0 {
        before = before.min(sampled * (first.1 / difference));
    }
    let mut value = difference * ((sampled + before + after) / sampled);
    if name == "rate" {
        value /= seconds(end - start);
    }
    Some(value)
}

/// A sum in twice the precision.
pub(super) fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut high, mut low) = (0.0f64, 0.0f64);
    for value in values {
        let sum = high + value;
        let rest = sum - high;
        let lost = (high - (sum - rest)) + (value - rest);
        high = sum;
        if lost.is_finite() {
            low += lost;
        }
    }
    if high.is_finite() { high + low } else { high }
}

/// The value that no other is `better` than; NaN where there is nothing else.
pub(super) fn extreme(values: impl Iterator<Item = f64>, better: impl Fn(f64, f64) -> bool) -> f64 {
    values.fold(f64::NAN, |best, v| if best.is_nan() || better(v, best) { v } else { best })
}

/// The difference of the last two samples; of a counter by the second, and what it counted since a reset.
fn instant(is_counter: bool, window: &[(i64, f64)]) -> Option<f64> {
    let [.., before, last] = window else { return None };
    let difference = if is_counter && last.1 < before.1 { last.1 } else { last.1 - before.1 };
    Some(if is_counter { difference / ((last.0 - before.0) as f64 / 1000.0) } else { difference })
}

/// The mean of squared distances to the mean.
pub(super) fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = sum(values.iter().copied()) / count;
    if values.iter().all(|v| *v == values[0] && v.abs() < 1e154) {
        return 0.0;
    }
    // Where squares are beyond the largest float, so is their sum.
    if values.len() > 1 && values.iter().all(|v| v.is_finite()) && values.iter().any(|v| v.abs() > 1e154) {
        return f64::INFINITY;
    }
    sum(values.iter().map(|v| (v - mean) * (v - mean))) / count
}

/// The value below which the share `q` of `values` is, between two of them by weight. NaN counts as the smallest.
pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let rank = q * (values.len() - 1) as f64;
    let (lower, weight) = (rank.floor() as usize, rank - rank.floor());
    if weight == 0.0 {
        return values[lower];
    }
    let upper = (lower + 1).min(values.len() - 1);
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// How steep the line is that fits the samples best, by the second.
fn slope(window: &[(i64, f64)]) -> f64 {
    if window.iter().all(|(_, v)| *v == window[0].1) {
        return if window[0].1.is_infinite() { f64::NAN } else { 0.0 };
    }
    let count = window.len() as f64;
    let x = |t: i64| (t - window[0].0) as f64 / 1000.0;
    let mean_x = sum(window.iter().map(|(t, _)| x(*t))) / count;
    let mean_y = sum(window.iter().map(|(_, v)| *v)) / count;
    let together = sum(window.iter().map(|(t, v)| (x(*t) - mean_x) * (v - mean_y)));
    together / sum(window.iter().map(|(t, _)| (x(*t) - mean_x) * (x(*t) - mean_x)))
}
