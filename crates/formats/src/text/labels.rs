//! The text of a series or an exemplar to labels: escapes, quoted names, and the one spelling that upstream gives to
//! `le` and `quantile` (`1` becomes `1.0`).

use std::borrow::Cow;

use model::{LabelError, LabelsBuilder, METRIC_NAME, MetricKind};

use super::scan::{Cursor, ListKind, ListPart};
use crate::float::format_boundary;
use crate::parse_float;

/// Decodes the series text of a [`super::SeriesEntry`] whose kind was `kind`, or any text of that grammar, into
/// `into` (cleared first). A repeated label is found by [`LabelsBuilder::build`].
pub fn series_labels(series: &str, kind: MetricKind, into: &mut LabelsBuilder) -> Result<(), LabelError> {
    into.clear();
    let mut cursor = Cursor::new(series.as_bytes());
    let name = cursor.metric_name();
    if let Some(name) = name {
        into.push(METRIC_NAME, str_of(name)?);
    }
    cursor.skip_blanks();
    let start = cursor.at;
    let mut result = Ok(());
    if cursor.eat(b'{') {
        let mut each = |part: ListPart<'_>| add(part, kind, into);
        let list = cursor.label_list(ListKind::Parsed, name.is_some(), |part| {
            if result.is_ok() {
                result = each(part);
            }
        });
        list.map_err(|_| LabelError::Truncated(start))?;
    }
    result
}

/// The labels of an exemplar's text, which the parser has checked.
pub(super) fn exemplar_labels(text: &str, into: &mut LabelsBuilder) {
    let mut cursor = Cursor::new(text.as_bytes());
    cursor.eat(b'{');
    let checked = cursor.label_list(ListKind::Exemplar, true, |part| {
        let added = add(part, MetricKind::Unknown, into);
        debug_assert!(added.is_ok(), "the parser takes UTF-8 only");
    });
    debug_assert!(checked.is_ok(), "the parser has passed this list before");
}

fn add(part: ListPart<'_>, kind: MetricKind, into: &mut LabelsBuilder) -> Result<(), LabelError> {
    match part {
        ListPart::MetricName(name) => into.push(METRIC_NAME, &unescape(str_of(name)?, true)),
        ListPart::Pair(name, value) => {
            let (name, value) = (unescape(str_of(name)?, true), unescape(str_of(value)?, true));
            match (kind, name.as_ref()) {
                (MetricKind::Histogram, "le") | (MetricKind::Summary, "quantile") => {
                    into.push(&name, &boundary(&value));
                }
                _ => into.push(&name, &value),
            }
        }
    }
    Ok(())
}

fn str_of(text: &[u8]) -> Result<&str, LabelError> {
    std::str::from_utf8(text).map_err(|_| LabelError::NotUtf8(0))
}

/// The one spelling of a bucket's boundary, or the text itself when it is no number.
fn boundary(text: &str) -> Cow<'_, str> {
    parse_float(text.as_bytes()).map_or(Cow::Borrowed(text), |value| Cow::Owned(format_boundary(value)))
}

/// `text` with `\\`, `\n` and, if `quotes`, `\"` replaced; any other backslash stays.
pub(super) fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut rest = text[first..].chars();
    while let Some(c) = rest.next() {
        let replaced = match (c, rest.clone().next()) {
            ('\\', Some('\\')) => Some('\\'),
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('"')) if quotes => Some('"'),
            _ => None,
        };
        if replaced.is_some() {
            rest.next();
        }
        out.push(replaced.unwrap_or(c));
    }
    Cow::Owned(out)
}
