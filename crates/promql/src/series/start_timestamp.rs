//! Start-timestamp lines of upstream's scripts: `metric{…}@st -1m-1mx5 _x2`, offsets from each sample's time.

use model::{Labels, time};

use super::{MAX_VALUES, metric_length};
use crate::parse::{ParseOptions, parse_metric};
use crate::quote::quote;

/// The metric of a start-timestamp line, and an offset in ms (or none) for each value of the line after it.
#[derive(Clone, Debug, PartialEq)]
pub struct StartTimestamps {
    /// The labels; they must equal those of the next line.
    pub labels: Labels,
    /// Offsets from the samples' times, mostly negative.
    pub offsets: Vec<Option<i64>>,
}

/// Reads `line` when it is a start-timestamp line; `None` when it is any other.
pub fn parse_start_timestamps(line: &str, options: &ParseOptions) -> Option<Result<StartTimestamps, String>> {
    let line = line.trim();
    let metric_end = metric_length(line);
    // The mark belongs to the name when there are no braces.
    let (metric, values) = match line[metric_end..].strip_prefix("@st") {
        Some(values) => (&line[..metric_end], values),
        None => (line[..metric_end].strip_suffix("@st")?, &line[metric_end..]),
    };
    if !values.starts_with([' ', '\t']) {
        return None;
    }
    Some(read(metric, values, options))
}

fn read(metric: &str, values: &str, options: &ParseOptions) -> Result<StartTimestamps, String> {
    let labels = parse_metric(metric, options).map_err(|e| format!("invalid @st line metric: {e}"))?;
    let mut offsets = Vec::new();
    for item in values.split_ascii_whitespace() {
        read_item(item, &mut offsets)
            .map_err(|reason| format!("invalid ST item {}: {reason}", quote(item)))?;
    }
    Ok(StartTimestamps { labels, offsets })
}

fn read_item(item: &str, offsets: &mut Vec<Option<i64>>) -> Result<(), String> {
    let repeat = |text: &str| {
        text.parse::<u64>().ok().filter(|n| *n < MAX_VALUES).ok_or_else(|| "invalid repeat count".to_owned())
    };
    if let Some(rest) = item.strip_prefix('_') {
        let count = if rest.is_empty() { 1 } else { repeat(rest.strip_prefix('x').unwrap_or(""))? };
        offsets.extend((0..count).map(|_| None));
        return Ok(());
    }
    let (first, rest) = split_duration(item)?;
    if rest.is_empty() {
        offsets.push(Some(first));
        return Ok(());
    }
    let (change, rest) = match rest.as_bytes()[0] {
        b'x' => (0, rest),
        b'+' => split_duration(&rest[1..])?,
        b'-' => split_duration(&rest[1..]).map(|(ms, rest)| (-ms, rest))?,
        _ => return Err("unexpected character after duration".to_owned()),
    };
    let count = repeat(rest.strip_prefix('x').unwrap_or(""))? + 1;
    let mut offset = first;
    for _ in 0..count {
        offsets.push(Some(offset));
        offset = offset.saturating_add(change);
    }
    Ok(())
}

/// A duration with at most one sign, and what follows it.
fn split_duration(text: &str) -> Result<(i64, &str), String> {
    let sign_length = usize::from(text.starts_with(['+', '-']));
    let is_part = |b: &u8| b.is_ascii_digit() || b"ywdhms".contains(b);
    let end = sign_length + text.as_bytes()[sign_length..].iter().take_while(|b| is_part(b)).count();
    let ms = time::parse_duration(&text[sign_length..end]).map_err(|e| e.to_string())?;
    Ok((if text.starts_with('-') { -ms } else { ms }, &text[end..]))
}
