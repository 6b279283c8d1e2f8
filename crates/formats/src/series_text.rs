//! A series as the text format writes it: `name{label="value"}`, with quotes around names that need them.

use model::relabel::NameScheme;

/// Appends the series `name` with `labels`, in their order.
pub(crate) fn push_series<'a>(
    out: &mut String,
    name: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let plain = NameScheme::Legacy.is_valid_metric_name(name);
    if plain {
        out.push_str(name);
    } else {
        out.push('{');
        push_quoted(out, name);
    }
    let mut open = !plain;
    for (label, value) in labels {
        out.push(if open { ',' } else { '{' });
        open = true;
        if NameScheme::Legacy.is_valid_label_name(label) {
            out.push_str(label);
        } else {
            push_quoted(out, label);
        }
        out.push('=');
        push_quoted(out, value);
    }
    if open {
        out.push('}');
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use model::{LabelsBuilder, MetricKind};
    use proptest::prelude::*;

    use super::*;

    fn text(name: &str, labels: &[(&str, &str)]) -> String {
        let mut out = String::new();
        push_series(&mut out, name, labels.iter().copied());
        out
    }

    #[test]
    fn as_the_text_format() {
        assert_eq!(text("a", &[]), "a");
        assert_eq!(text("a", &[("b", "c\"\n\\")]), r#"a{b="c\"\n\\"}"#);
        assert_eq!(text("a.b", &[]), r#"{"a.b"}"#);
        assert_eq!(text("a.b", &[("c", "d"), ("e.f", "g")]), r#"{"a.b",c="d","e.f"="g"}"#);
    }

    proptest! {
        #[test]
        fn reads_back(name in "\\PC{1,8}", label in "\\PC{1,8}", value in "(\\PC|[\n\t\"\\\\\u{0}]){1,8}") {
            let text = text(&name, &[(&label, &value)]);
            let mut builder = LabelsBuilder::new();
            crate::text::series_labels(&text, MetricKind::Unknown, &mut builder).unwrap();
            let want = [(model::METRIC_NAME, name.as_str()), (label.as_str(), value.as_str())];
            prop_assert_eq!(builder.pairs().collect::<Vec<_>>(), want);
        }
    }
}
