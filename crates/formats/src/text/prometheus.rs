//! The grammar of Prometheus's text format, line by line.

use model::MetricKind;

use super::scan::{Cursor, ListKind, metric_kind};
use super::{Entry, Escaped, SeriesEntry};
use crate::DecodeError;

pub(super) fn next<'a>(
    cursor: &mut Cursor<'a>,
    kind: &mut MetricKind,
) -> Result<Option<Entry<'a>>, DecodeError> {
    loop {
        cursor.skip_blanks();
        match cursor.peek() {
            None => return Ok(None),
            Some(b'\n') => cursor.at += 1,
            Some(b'#') => {
                if let Some(entry) = comment(cursor, kind)? {
                    return Ok(Some(entry));
                }
            }
            Some(_) => return series(cursor, *kind).map(Some),
        }
    }
}

/// A comment, which may be a metadata line.
fn comment<'a>(cursor: &mut Cursor<'a>, kind: &mut MetricKind) -> Result<Option<Entry<'a>>, DecodeError> {
    cursor.at += 1;
    let spaced = cursor.skip_blanks();
    let word_at = cursor.at;
    let word = if cursor.eat_text(b"HELP") {
        "HELP"
    } else if cursor.eat_text(b"TYPE") {
        "TYPE"
    } else {
        ""
    };
    if !spaced || word.is_empty() || !cursor.skip_blanks() {
        cursor.at = word_at;
        cursor.rest_of_line();
        return Ok(None);
    }
    let family = cursor.family(word)?;
    let start = cursor.at;
    let text = cursor.rest_of_line();
    // One byte separates name and text, whatever it is.
    let text = text.get(1..).unwrap_or_default();
    if word == "TYPE" {
        *kind = metric_kind(text, b"untyped", false)
            .ok_or_else(|| cursor.error_from(start + 1, "invalid metric type"))?;
        return Ok(Some(Entry::Type { family, kind: *kind }));
    }
    let raw = cursor.utf8(start, text)?;
    Ok(Some(Entry::Help { family, help: Escaped { raw, quotes: false } }))
}

fn series<'a>(cursor: &mut Cursor<'a>, kind: MetricKind) -> Result<Entry<'a>, DecodeError> {
    let start = cursor.at;
    let named = cursor.metric_name().is_some();
    let mut end = cursor.at;
    cursor.skip_blanks();
    if cursor.peek() == Some(b'{') {
        cursor.at += 1;
        if !cursor.label_list(ListKind::Prometheus, named, |_| {})? {
            return Err(cursor.error_from(start, "metric name not set"));
        }
        end = cursor.at;
        cursor.skip_blanks();
    } else if !named {
        return Err(cursor.error("expected a valid start token"));
    }
    let series = cursor.utf8(start, &cursor.buf[start..end])?;

    let value_at = cursor.at;
    let text = cursor.until(|b| matches!(b, b'{' | b' ' | b'\t' | b'\n'));
    if text.is_empty() {
        return Err(cursor.error_from(value_at, "expected value after metric"));
    }
    let value = cursor.float(value_at, text)?;
    cursor.skip_blanks();
    let mut timestamp = None;
    let digits_at = cursor.at;
    let digits = cursor.until(|b| !b.is_ascii_digit());
    if !digits.is_empty() {
        timestamp = Some(milliseconds(cursor, digits_at, digits)?);
        cursor.skip_blanks();
    }
    if cursor.peek().is_some() && !cursor.eat(b'\n') {
        let expected = if timestamp.is_some() {
            "expected next entry after timestamp"
        } else {
            "expected timestamp or new record"
        };
        return Err(cursor.error(expected));
    }
    Ok(Entry::Series(SeriesEntry { series, kind, value, timestamp, exemplar: None }))
}

fn milliseconds(cursor: &Cursor<'_>, at: usize, digits: &[u8]) -> Result<i64, DecodeError> {
    let step = |value: i64, digit: &u8| value.checked_mul(10)?.checked_add(i64::from(digit - b'0'));
    digits.iter().try_fold(0, step).ok_or_else(|| cursor.error_from(at, "timestamp out of range"))
}
