//! Histogram literals: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`.

use std::sync::Arc;

use model::Histogram;
use model::histogram::{ResetHint, Span};

use super::values::{Failed, Values};
use crate::quote::quote;

const PLACE: &str = "histogram description";
const KEY: &str = "histogram description key, e.g. buckets:[5 10 7]";

/// The parts of a literal, as far as written.
#[derive(Default)]
struct Parts {
    histogram: Histogram,
    offset: i32,
    negative_offset: i32,
    hint_set: bool,
}

/// The histogram at the reader's place, and whether it says a counter-reset hint.
pub(super) fn read(values: &mut Values<'_>) -> Result<(Histogram, bool), Failed> {
    if !(values.accept(b'{') && values.accept(b'{')) {
        return Err(values.unexpected("series values", None));
    }
    let mut parts = Parts::default();
    let mut seen: Vec<&str> = Vec::new();
    loop {
        values.skip_spaces();
        if values.peek() == Some(b'}') {
            values.at += 1;
            if !values.accept(b'}') {
                return Err(values.unexpected(PLACE, Some("\"}}\"")));
            }
            return Ok(parts.finish());
        }
        let start = values.at;
        let key = values.word();
        if key.is_empty() {
            return Err(values.unexpected(PLACE, Some(KEY)));
        }
        if seen.iter().any(|k| k.eq_ignore_ascii_case(key)) {
            return Err((start, format!("duplicate key {} in histogram", quote(key))));
        }
        seen.push(key);
        if !values.accept(b':') {
            return Err((start, "missing `:` for histogram descriptor".to_owned()));
        }
        parts.read(values, key, start)?;
    }
}

impl Parts {
    fn read(&mut self, values: &mut Values<'_>, key: &str, start: usize) -> Result<(), Failed> {
        let h = &mut self.histogram;
        match key.to_ascii_lowercase().as_str() {
            "schema" => {
                let schema = integer(values)?;
                h.schema = i8::try_from(schema)
                    .map_err(|_| (start, format!("error parsing schema number: {schema} is out of range")))?;
            }
            "sum" => h.sum = values.signed_number()?,
            "count" => h.count = values.signed_number()?,
            "z_bucket" => h.zero_count = values.signed_number()?,
            "z_bucket_w" => h.zero_threshold = values.unsigned_number()?,
            "custom_values" => h.custom_values = Some(Arc::from(numbers(values)?)),
            "buckets" => h.positive_buckets = numbers(values)?,
            "n_buckets" => h.negative_buckets = numbers(values)?,
            "offset" => self.offset = integer(values)?,
            "n_offset" => self.negative_offset = integer(values)?,
            "counter_reset_hint" => {
                let at = values.at;
                let word = values.word();
                self.hint_set = true;
                h.reset_hint = match word.to_ascii_lowercase().as_str() {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err((at, format!("bad histogram descriptor found: {}", quote(word)))),
                };
            }
            _ => return Err((start, format!("bad histogram descriptor found: {}", quote(key)))),
        }
        Ok(())
    }

    fn finish(self) -> (Histogram, bool) {
        let spans = |offset, buckets: &[f64]| match buckets.len() {
            0 => Vec::new(),
            length => vec![Span { offset, length: length as u32 }],
        };
        let mut histogram = self.histogram;
        histogram.positive_spans = spans(self.offset, &histogram.positive_buckets);
        histogram.negative_spans = spans(self.negative_offset, &histogram.negative_buckets);
        (histogram, self.hint_set)
    }
}

fn integer(values: &mut Values<'_>) -> Result<i32, Failed> {
    let start = values.at;
    values.accept(b'-');
    values.at += values.text[values.at..].bytes().take_while(u8::is_ascii_digit).count();
    let text = &values.text[start..values.at];
    text.parse().map_err(|_| (start, format!("{} is not a whole number of 32 bits", quote(text))))
}

/// `[1 2 3]`
fn numbers(values: &mut Values<'_>) -> Result<Vec<f64>, Failed> {
    if !values.accept(b'[') {
        return Err(values.unexpected(PLACE, Some("\"[\"")));
    }
    let mut all = Vec::new();
    loop {
        values.skip_spaces();
        if values.accept(b']') {
            return Ok(all);
        }
        all.push(values.signed_number()?);
    }
}
