//! Names of metrics, labels and units, as `prometheus/otlptranslator` makes them.

use std::borrow::Cow;

use super::{Settings, Strategy};

/// What of a metric's type matters for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedKind {
    /// A gauge: unit 1 becomes `_ratio`.
    Gauge,
    /// A monotonic sum: `_total` is appended.
    Counter,
    /// Anything else.
    Other,
}

/// Words for units, where they differ from the unit itself.
fn unit_word(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "1" => "",
        "%" => "percent",
        _ => unit,
    }
}

/// Words for what stands behind the slash of a unit.
fn per_word(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        _ => unit,
    }
}

/// The suffixes of `unit`: for what is counted, and (`per_…`) for what it is divided by. Units in braces give none.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let plain = |text: &str| !text.is_empty() && !text.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if plain(main) { unit_word(main).to_owned() } else { String::new() };
    let per = if plain(per) { format!("per_{}", per_word(per)) } else { String::new() };
    (main, per)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// `unit` with foreign characters as single underscores and none in front.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        let c = if is_name_char(c) { c } else { '_' };
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    out.strip_prefix('_').map(str::to_owned).unwrap_or(out)
}

/// The unit as metadata states it.
pub(super) fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let separator = if main.is_empty() || per.is_empty() { "" } else { "_" };
    let joined = format!("{main}{separator}{per}");
    let joined = joined.strip_prefix('_').unwrap_or(&joined);
    joined.strip_suffix('_').unwrap_or(joined).to_owned()
}

/// The name of metric `name`. Fails on a name of which nothing remains.
pub(super) fn metric_name(
    name: &str,
    unit: &str,
    kind: NamedKind,
    strategy: Strategy,
) -> Result<String, String> {
    if name.is_empty() {
        return Err("metric without a name".into());
    }
    if !strategy.escapes() {
        let suffixed = strategy.adds_suffixes();
        return Ok(if suffixed { suffixed_name(name, unit, kind) } else { name.to_owned() });
    }
    let mut out = if strategy.adds_suffixes() {
        joined_tokens(name, unit, kind)
    } else {
        let parts = name.split(|c| !is_name_char(c) && c != '_').filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("_")
    };
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    if out.is_empty() || (out != name && out.chars().all(|c| c == '_')) {
        return Err(format!("metric {:?}: nothing remains of its name", super::point::cut(name)));
    }
    Ok(out)
}

/// The escaped name with suffixes: made of tokens, in which no unit and type word stands twice.
fn joined_tokens(name: &str, unit: &str, kind: NamedKind) -> String {
    let mut tokens: Vec<&str> = name.split(|c| !is_name_char(c)).filter(|part| !part.is_empty()).collect();
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let mut main = if tokens.contains(&main.as_str()) { "" } else { main.as_str() };
    let mut per = if per == "per_" { "" } else { per.strip_suffix('_').unwrap_or(&per) };
    if tokens.contains(&per) {
        per = "";
    }
    if !per.is_empty() {
        main = main.strip_suffix('_').unwrap_or(main);
    }
    tokens.extend([main, per].into_iter().filter(|suffix| !suffix.is_empty()));
    let mut last = |word: &'static str| {
        tokens.retain(|token| *token != word);
        tokens.push(word);
    };
    if kind == NamedKind::Counter {
        last("total");
    }
    if kind == NamedKind::Gauge && unit == "1" {
        last("ratio");
    }
    tokens.join("_")
}

/// The name with suffixes behind it and its characters as they are.
fn suffixed_name(name: &str, unit: &str, kind: NamedKind) -> String {
    let (main, per) = unit_suffixes(unit);
    let ratio = kind == NamedKind::Gauge && unit == "1";
    let total = kind == NamedKind::Counter;
    let mut out = name;
    if ratio {
        out = without_suffix(out, "ratio");
    }
    if total {
        out = without_suffix(out, "total");
    }
    if !per.is_empty() {
        out = without_suffix(out, &per);
    }
    let mut out = out.to_owned();
    if !main.is_empty() && !out.ends_with(&main) {
        out.push('_');
        out.push_str(&main);
    }
    for (wanted, suffix) in [(!per.is_empty(), per.as_str()), (total, "total"), (ratio, "ratio")] {
        if wanted {
            out.push('_');
            out.push_str(suffix);
        }
    }
    out
}

/// `name` without `suffix` and the character before it, where something remains.
fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let Some(front) = name.strip_suffix(suffix) else { return name };
    let mut chars = front.chars();
    chars.next_back();
    if chars.as_str().is_empty() { name } else { chars.as_str() }
}

/// The label name for attribute `name`. Fails on an empty name and on one of which only underscores remain.
pub(super) fn label_name<'a>(name: &'a str, settings: &Settings) -> Result<Cow<'a, str>, String> {
    if name.is_empty() {
        return Err("label name is empty".into());
    }
    if !settings.strategy.escapes() {
        return Ok(Cow::Borrowed(name));
    }
    let mut out = String::with_capacity(name.len());
    let reserved = name.len() >= 4 && name.starts_with("__") && name.ends_with("__");
    let inner = if reserved && !settings.keep_underscores { &name[2..name.len() - 2] } else { name };
    for c in inner.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c);
        } else if settings.keep_underscores || !out.ends_with('_') {
            out.push('_');
        }
    }
    if reserved && !settings.keep_underscores {
        out = format!("__{out}__");
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    } else if settings.sanitize_underscore && out.starts_with('_') && !out.starts_with("__") {
        out.insert_str(0, "key");
    }
    if out.chars().all(|c| c == '_') {
        return Err(format!("label name {:?}: only underscores remain of it", super::point::cut(name)));
    }
    Ok(if out == name { Cow::Borrowed(name) } else { Cow::Owned(out) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names() {
        use NamedKind::{Counter, Gauge, Other};
        use Strategy::{
            NoTranslation, NoUTF8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes,
            UnderscoreEscapingWithoutSuffixes,
        };
        let check = |strategy, name: &str, unit: &str, kind, want: &str| {
            assert_eq!(metric_name(name, unit, kind, strategy).as_deref(), Ok(want), "{name} {unit}");
        };
        let with = UnderscoreEscapingWithSuffixes;
        check(with, "http.server.duration", "s", Other, "http_server_duration_seconds");
        check(with, "http.server.duration_seconds", "s", Other, "http_server_duration_seconds");
        check(with, "system.io", "By", Counter, "system_io_bytes_total");
        check(with, "total.system.io", "By/s", Counter, "system_io_bytes_per_second_total");
        check(with, "cpu.utilization", "1", Gauge, "cpu_utilization_ratio");
        check(with, "requests", "{request}", Counter, "requests_total");
        check(with, "requests", "1", Counter, "requests_total");
        check(with, "speed", "m/{thing}", Gauge, "speed_meters");
        check(with, "__a__b", "", Gauge, "a_b");
        check(with, "2xx", "", Gauge, "_2xx");
        check(with, "a:b", "foo/bar", Gauge, "a:b_foo_per_bar");
        check(with, "temp", "°C", Gauge, "temp_C");
        let without = UnderscoreEscapingWithoutSuffixes;
        check(without, "http.server.duration", "s", Other, "http_server_duration");
        check(without, "a__b..c", "s", Counter, "a__b_c");
        check(without, "2.x", "s", Counter, "_2_x");
        let utf8 = NoUTF8EscapingWithSuffixes;
        check(utf8, "http.server.duration", "s", Other, "http.server.duration_seconds");
        check(utf8, "system.io.total", "By/s", Counter, "system.io_bytes_per_second_total");
        check(utf8, "cpu.ratio", "1", Gauge, "cpu_ratio");
        check(utf8, "x", "°C", Other, "x_°C");
        check(NoTranslation, "http.server.duration", "s", Counter, "http.server.duration");
        for bad in ["", "...", "é"] {
            assert!(metric_name(bad, "", Other, with).is_err(), "{bad}");
        }
        assert_eq!(unit_name("By/s"), "bytes_per_second");
        assert_eq!(unit_name("{x}/s"), "per_second");
        assert_eq!(unit_name("1"), "");
    }

    #[test]
    fn label_names() {
        let check = |keep: bool, sanitize: bool, name: &str, want: &str| {
            let settings =
                Settings { keep_underscores: keep, sanitize_underscore: sanitize, ..Settings::default() };
            assert_eq!(label_name(name, &settings).as_deref(), Ok(want), "{name}");
        };
        check(true, true, "http.status", "http_status");
        check(true, true, "a..b", "a__b");
        check(false, true, "a..b", "a_b");
        check(true, true, "2xx", "key_2xx");
        check(true, true, "_x", "key_x");
        check(true, false, "_x", "_x");
        check(true, true, "__x", "__x");
        check(false, true, "__a..b__", "__a_b__");
        check(true, true, "ünique", "key_nique");
        let bad = |name: &str| label_name(name, &Settings::default()).is_err();
        assert!(bad("") && bad("__"));
        let utf8 = Settings { strategy: Strategy::NoTranslation, ..Settings::default() };
        assert_eq!(label_name("a.b", &utf8).as_deref(), Ok("a.b"));
    }
}
