//! The grammar of OpenMetrics text, line by line: single spaces, no blank lines, no free comments, `# EOF` at the end.

use model::MetricKind;

use super::scan::{Cursor, ListKind, metric_kind};
use super::{Entry, Escaped, ExemplarEntry, SeriesEntry};
use crate::DecodeError;

const NO_EOF: &str = "data does not end with # EOF";

pub(super) fn next<'a>(
    cursor: &mut Cursor<'a>,
    kind: &mut MetricKind,
) -> Result<Option<Entry<'a>>, DecodeError> {
    match cursor.peek() {
        None => Err(cursor.error(NO_EOF)),
        Some(b'#') => metadata(cursor, kind),
        Some(_) => series(cursor, *kind).map(Some),
    }
}

/// A metadata line, or the end.
fn metadata<'a>(cursor: &mut Cursor<'a>, kind: &mut MetricKind) -> Result<Option<Entry<'a>>, DecodeError> {
    let line_at = cursor.at;
    if cursor.eat_text(b"# EOF") {
        cursor.eat(b'\n');
        return match cursor.peek() {
            None => Ok(None),
            Some(_) => Err(cursor.error("unexpected data after # EOF")),
        };
    }
    let words = [("HELP", &b"# HELP "[..]), ("TYPE", b"# TYPE "), ("UNIT", b"# UNIT ")];
    let Some((word, _)) = words.into_iter().find(|(_, start)| cursor.eat_text(start)) else {
        return Err(cursor.error_from(line_at, "expected a valid start token"));
    };
    let family = cursor.family(word)?;
    if !cursor.eat(b' ') {
        return Err(cursor.error(&format!("expected text in {word}")));
    }
    let text_at = cursor.at;
    let text = cursor.rest_of_line();
    if !cursor.eat(b'\n') {
        return Err(cursor.error(NO_EOF));
    }
    match word {
        "TYPE" => {
            let found = metric_kind(text, b"unknown", true);
            *kind = found.ok_or_else(|| cursor.error_from(text_at, "invalid metric type"))?;
            Ok(Some(Entry::Type { family, kind: *kind }))
        }
        "HELP" => {
            let raw = cursor.utf8(text_at, text)?;
            Ok(Some(Entry::Help { family, help: Escaped { raw, quotes: true } }))
        }
        _ => {
            let unit = cursor.utf8(text_at, text)?;
            let before = family.raw().strip_suffix(unit);
            if !unit.is_empty() && !before.is_some_and(|name| name.ends_with('_')) {
                return Err(
                    cursor.error_from(text_at, &format!("unit not a suffix of metric {:?}", family.raw()))
                );
            }
            Ok(Some(Entry::Unit { family, unit }))
        }
    }
}

fn series<'a>(cursor: &mut Cursor<'a>, kind: MetricKind) -> Result<Entry<'a>, DecodeError> {
    let start = cursor.at;
    let named = cursor.metric_name().is_some();
    if cursor.eat(b'{') {
        if !cursor.label_list(ListKind::OpenMetrics, named, |_| {})? {
            return Err(cursor.error_from(start, "metric name not set"));
        }
    } else if !named {
        return Err(cursor.error("expected a valid start token"));
    }
    let series = cursor.utf8(start, &cursor.buf[start..cursor.at])?;
    let value = spaced_float(cursor, "expected value after metric")?;
    let mut entry = SeriesEntry { series, kind, value, timestamp: None, exemplar: None };
    if !at_exemplar(cursor) && cursor.peek() == Some(b' ') {
        entry.timestamp = Some(timestamp(cursor)?);
    }
    if at_exemplar(cursor) {
        entry.exemplar = Some(exemplar(cursor)?);
    }
    if !cursor.eat(b'\n') {
        let expected = if cursor.peek().is_none() { NO_EOF } else { "expected next entry" };
        return Err(cursor.error(expected));
    }
    Ok(Entry::Series(entry))
}

fn at_exemplar(cursor: &Cursor<'_>) -> bool {
    cursor.buf[cursor.at..].starts_with(b" # {")
}

fn exemplar<'a>(cursor: &mut Cursor<'a>) -> Result<ExemplarEntry<'a>, DecodeError> {
    let start = cursor.at + 3;
    cursor.at += 4;
    cursor.label_list(ListKind::Exemplar, true, |_| {})?;
    let labels = cursor.utf8(start, &cursor.buf[start..cursor.at])?;
    let value = spaced_float(cursor, "expected value after exemplar labels")?;
    let timestamp = if cursor.peek() == Some(b' ') { Some(timestamp(cursor)?) } else { None };
    Ok(ExemplarEntry { labels, value, timestamp })
}

/// A space and a float, which ends before a space or newline.
fn spaced_float(cursor: &mut Cursor<'_>, expected: &str) -> Result<f64, DecodeError> {
    let start = cursor.at;
    let spaced = cursor.eat(b' ');
    let text_at = cursor.at;
    let text = cursor.until(|b| matches!(b, b' ' | b'\n'));
    if !spaced || text.is_empty() {
        return Err(cursor.error_from(start, expected));
    }
    cursor.float(text_at, text)
}

/// Seconds, as ms.
fn timestamp(cursor: &mut Cursor<'_>) -> Result<i64, DecodeError> {
    let start = cursor.at;
    let seconds = spaced_float(cursor, "expected timestamp")?;
    if !seconds.is_finite() {
        return Err(cursor.error_from(start, "invalid timestamp"));
    }
    Ok((seconds * 1000.0) as i64)
}
