//! Text that people write: PromQL, selectors, expressions, numbers and times, relabelling.

use model::relabel::{Action, NameScheme, RelabelConfig, Rule};
use model::{Labels, LabelsBuilder, number, time};
use promql::{ParseOptions, Style, parse, parse_metric, parse_selector, parse_series, prettify, print_with};

pub(crate) const OPTIONS: ParseOptions = ParseOptions::ALL;

/// Text that parses prints to text that parses to the same.
pub(crate) fn promql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(expr) = parse(text, &OPTIONS) else { return };
    let canonical = print_with(&expr, Style::default());
    for printed in [&canonical, &prettify(&expr)] {
        // Printing may add parentheses and quotes, and so go over the limits of a text.
        match parse(printed, &OPTIONS) {
            Ok(again) => assert_eq!(print_with(&again, Style::default()), canonical, "{text:?}"),
            Err(errors) => assert!(errors.to_string().contains("limit"), "{text:?} → {printed:?}: {errors}"),
        }
    }
}

/// `match[]`, metrics with labels, series of scripts.
pub(crate) fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(matchers) = parse_selector(text, &OPTIONS) {
        for matcher in &matchers {
            assert_eq!(matcher.matches_empty(), matcher.matches(""), "{matcher:?}");
        }
        // The same as an expression, unless it needs a matcher that refuses the empty string.
        let parsed = parse(text, &OPTIONS);
        assert!(parsed.is_ok() || matchers.iter().all(model::Matcher::matches_empty), "{text:?}: {parsed:?}");
    }
    if let Ok(labels) = parse_metric(text, &OPTIONS) {
        assert_eq!(Labels::from_canonical(labels.as_bytes()).as_ref(), Ok(&labels));
    }
    // A description repeats what it says as often as it says.
    if !text.contains('x') {
        let _ = parse_series(text, &OPTIONS);
    }
}

/// An expression (to the first line end), and a text that it may match (what follows).
pub(crate) fn regex(data: &[u8]) {
    let Ok(all) = std::str::from_utf8(data) else { return };
    let (pattern, text) = all.split_once('\n').unwrap_or((all, ""));
    let Ok(regex) = model::regex::Regex::anchored(pattern) else { return };
    for text in [text, "", pattern] {
        let is_match = regex.is_match(text);
        assert_eq!(is_match, regex.captures(text).is_some(), "{pattern:?} {text:?}");
        if let Some(set) = regex.set_matches() {
            assert_eq!(is_match, set.iter().any(|one| one == text), "{pattern:?} {text:?}");
        }
        assert!(!is_match || text.starts_with(regex.literal_prefix()), "{pattern:?} {text:?}");
        assert!(is_match || !regex.matches_all(), "{pattern:?} {text:?}");
    }
}

/// Floats, durations, times: what is read prints to what reads as the same.
pub(crate) fn numbers(data: &[u8]) {
    if let Some(bits) = data.first_chunk::<8>() {
        let value = f64::from_le_bytes(*bits);
        let mut shown = String::new();
        number::push_api_float(&mut shown, value);
        for text in [number::format_float(value), number::format_float_g(value), shown] {
            let back = number::parse_float(&text).expect("what is printed is read");
            assert!(back == value || (back.is_nan() && value.is_nan()), "{value:?} → {text} → {back:?}");
        }
        let ms = i64::from_le_bytes(*bits);
        if let Ok(back) = time::parse_signed_duration(&time::format_duration(ms)) {
            assert_eq!(back, ms);
        }
        if let Some(back) = time::parse_rfc3339(&time::format_rfc3339(ms)) {
            assert_eq!(back, ms);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ms) = time::parse_signed_duration(text) {
        assert_eq!(time::parse_signed_duration(&time::format_duration(ms)), Ok(ms), "{text:?}");
    }
    if let Some(ms) = time::parse_rfc3339(text) {
        assert_eq!(time::parse_rfc3339(&time::format_rfc3339(ms)), Some(ms), "{text:?}");
    }
    let _ = number::parse_exposition_float(text);
    let _ = number::parse_int_auto(text);
}

const ACTIONS: [Action; 11] = [
    Action::Replace,
    Action::Keep,
    Action::Drop,
    Action::KeepEqual,
    Action::DropEqual,
    Action::HashMod,
    Action::LabelMap,
    Action::LabelDrop,
    Action::LabelKeep,
    Action::Lowercase,
    Action::Uppercase,
];

/// Lines: source labels, separator, expression, target label, replacement; then names and values of labels. The first
/// byte is the action.
pub(crate) fn relabel(data: &[u8]) {
    let Some((action, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut lines = text.split('\n').map(str::to_owned);
    let mut next = || lines.next().unwrap_or_default();
    let sources = next();
    let config = RelabelConfig {
        source_labels: sources.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        separator: next(),
        regex: next(),
        modulus: u64::from(*action) + 1,
        target_label: next(),
        replacement: next(),
        action: ACTIONS[usize::from(*action) % ACTIONS.len()],
    };
    for scheme in [NameScheme::Utf8, NameScheme::Legacy] {
        let Ok(rule) = Rule::new(config.clone(), scheme) else { continue };
        let mut builder = LabelsBuilder::new();
        builder.set("__name__", "up").set("job", "a").set("instance", "b:80");
        let rest: Vec<&str> = text.split('\n').skip(5).collect();
        for pair in rest.chunks_exact(2) {
            builder.set(pair[0], pair[1]);
        }
        let Ok(before) = builder.build() else { continue };
        let kept = rule.apply(&mut builder);
        if matches!(rule.config().action, Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual)
        {
            assert_eq!(builder.build().as_ref(), Ok(&before), "only decides");
        } else {
            assert!(kept, "only changes");
        }
        if let Ok(labels) = builder.build() {
            assert_eq!(Labels::from_canonical(labels.as_bytes()).as_ref(), Ok(&labels));
        }
    }
}
