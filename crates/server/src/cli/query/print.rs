//! How `isobar query` prints answers: as promtool does, in PromQL's notation or as JSON on one line.

use std::fmt::Write;

use serde_json::{Map, Value};

/// The text for the data of a query.
pub(super) fn value(data: &Value, json: bool) -> String {
    let result = &data["result"];
    if json {
        return format!("{result}\n");
    }
    let mut out = match data["resultType"].as_str() {
        Some("scalar") => format!("scalar: {} @[{}]", text(&result[1]), stamp(&result[0])),
        Some("string") => text(&result[1]).to_owned(),
        Some("vector") => lines(list(result).iter().map(sample)),
        _ => {
            let mut all: Vec<&Value> = list(result).iter().collect();
            all.sort_by_cached_key(|one| pairs(&one["metric"]));
            lines(all.into_iter().map(stream))
        }
    };
    out.push('\n');
    out
}

/// The text for a list of label sets.
pub(super) fn series(data: &Value, json: bool) -> String {
    if json {
        return format!("{data}\n");
    }
    let set = |one: &Value| format!("{{{}}}\n", label_list(pairs(one).iter()));
    list(data).iter().map(set).collect()
}

/// The text for a list of label values.
pub(super) fn label_values(data: &Value, json: bool) -> String {
    if json {
        return format!("{data}\n");
    }
    list(data).iter().map(|one| format!("{}\n", text(one))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn stamp(value: &Value) -> String {
    value.as_f64().map(model::number::format_float).unwrap_or_default()
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n")
}

fn pairs(metric: &Value) -> Vec<(String, String)> {
    let empty = Map::new();
    let map = metric.as_object().unwrap_or(&empty);
    map.iter().map(|(name, value)| (name.clone(), text(value).to_owned())).collect()
}

fn label_list<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> String {
    let mut all: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    all.sort_unstable();
    all.join(", ")
}

/// A Go string literal.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn metric(value: &Value) -> String {
    let all = pairs(value);
    let name = all.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value);
    let labels = label_list(all.iter().filter(|(name, _)| name != "__name__"));
    match (name, labels.as_str()) {
        ("", "") => "{}".into(),
        (name, "") => name.into(),
        (name, labels) => format!("{name}{{{labels}}}"),
    }
}

fn sample(one: &Value) -> String {
    let shown = match one.get("histogram") {
        Some(pair) => histogram_pair(pair),
        None => pair(&one["value"]),
    };
    format!("{} => {shown}", metric(&one["metric"]))
}

fn stream(one: &Value) -> String {
    let floats = list(&one["values"]).iter().map(pair);
    let histograms = list(&one["histograms"]).iter().map(histogram_pair);
    format!("{} =>\n{}", metric(&one["metric"]), lines(floats.chain(histograms)))
}

fn pair(pair: &Value) -> String {
    format!("{} @[{}]", text(&pair[1]), stamp(&pair[0]))
}

fn histogram_pair(pair: &Value) -> String {
    let histogram = &pair[1];
    let float = |value: &Value| model::number::parse_float(text(value)).unwrap_or(f64::NAN);
    let bucket = |one: &Value| {
        let bounds = one[0].as_u64().unwrap_or(0);
        let (open, close) = (
            if bounds == 1 || bounds == 3 { '[' } else { '(' },
            if bounds == 0 || bounds == 3 { ']' } else { ')' },
        );
        format!("{open}{},{}{close}:{}", text(&one[1]), text(&one[2]), text(&one[3]))
    };
    let buckets: Vec<String> = list(&histogram["buckets"]).iter().map(bucket).collect();
    format!(
        "Count: {}, Sum: {}, Buckets: [{}] @[{}]",
        model::number::format_fixed(float(&histogram["count"]), 6),
        model::number::format_fixed(float(&histogram["sum"]), 6),
        buckets.join(" "),
        stamp(&pair[0])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_print_as_promtool_prints_them() {
        let check = |data: Value, expected: &str| assert_eq!(value(&data, false), expected);
        check(json!({"resultType": "scalar", "result": [1.5, "2"]}), "scalar: 2 @[1.5]\n");
        check(json!({"resultType": "string", "result": [1, "a b"]}), "a b\n");
        check(json!({"resultType": "vector", "result": []}), "\n");
        check(
            json!({"resultType": "vector", "result": [
                {"metric": {"__name__": "up", "job": "x", "a": "q\"\n"}, "value": [1_700_000_000.5, "1"]},
                {"metric": {}, "value": [1, "NaN"]},
                {"metric": {"__name__": "n"}, "histogram": [1, {"count": "3", "sum": "1.5", "buckets": [[3, "-1", "1", "3"]]}]},
            ]}),
            "up{a=\"q\\\"\\n\", job=\"x\"} => 1 @[1700000000.5]\n{} => NaN @[1]\n\
             n => Count: 3.000000, Sum: 1.500000, Buckets: [[-1,1]:3] @[1]\n",
        );
        check(
            json!({"resultType": "matrix", "result": [
                {"metric": {"job": "b"}, "values": [[1, "1"], [2, "2"]]},
                {"metric": {"job": "a"}, "values": [[1, "3"]]},
            ]}),
            "{job=\"a\"} =>\n3 @[1]\n{job=\"b\"} =>\n1 @[1]\n2 @[2]\n",
        );
        assert_eq!(value(&json!({"resultType": "scalar", "result": [1, "2"]}), true), "[1,\"2\"]\n");
    }

    #[test]
    fn lists() {
        assert_eq!(series(&json!([{"__name__": "up", "a": "1"}]), false), "{__name__=\"up\", a=\"1\"}\n");
        assert_eq!(label_values(&json!(["a", "b"]), false), "a\nb\n");
        assert_eq!(label_values(&json!(["a"]), true), "[\"a\"]\n");
    }
}
