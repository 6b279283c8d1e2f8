//! The syntax tree as JSON in the shape that `/api/v1/parse_query` promises (upstream: `web/api/v1/translate_ast.go`).

use model::{Matcher, number};
use promql::ast::{
    At, Cardinality, DurationExpr, DurationKind, Expr, ExprKind, Extended, Modifiers, Selector,
    VectorMatching,
};
use serde_json::{Value, json};

/// The tree of `expr`. Depth is bounded by the parser.
pub(crate) fn json(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number { value, .. } => {
            json!({"type": "numberLiteral", "val": number::format_float(*value)})
        }
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Bytes(bytes) => json!({"type": "stringLiteral", "val": String::from_utf8_lossy(bytes)}),
        ExprKind::Selector(selector) => {
            let mut node = selector_json(selector);
            node["type"] = "vectorSelector".into();
            node
        }
        ExprKind::Matrix(matrix) => {
            let mut node = selector_json(&matrix.selector);
            node["type"] = "matrixSelector".into();
            node["range"] = matrix.range_ms.into();
            node["rangeExpr"] = optional_duration(matrix.range_expr.as_ref());
            node
        }
        ExprKind::Subquery(subquery) => {
            let mut node = modifiers_json(&subquery.modifiers);
            node["type"] = "subquery".into();
            node["expr"] = json(&subquery.expr);
            node["range"] = subquery.range_ms.into();
            node["rangeExpr"] = optional_duration(subquery.range_expr.as_ref());
            node["step"] = subquery.step_ms.into();
            node["stepExpr"] = optional_duration(subquery.step_expr.as_ref());
            node
        }
        ExprKind::Call(call) => {
            let function = call.function;
            json!({
                "type": "call",
                "func": {
                    "name": function.name,
                    "argTypes": function.args.iter().map(|t| t.as_str()).collect::<Vec<_>>(),
                    "variadic": function.variadic,
                    "returnType": function.returns.as_str(),
                },
                "args": call.args.iter().map(json).collect::<Vec<_>>(),
            })
        }
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": json(&aggregate.expr),
            "param": aggregate.param.as_ref().map(json),
            "grouping": aggregate.grouping,
            "without": aggregate.without,
        }),
        ExprKind::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.as_str(),
            "lhs": json(&binary.lhs),
            "rhs": json(&binary.rhs),
            "matching": binary.matching.as_ref().map(matching_json),
            "bool": binary.return_bool,
        }),
        ExprKind::Unary(minus, inner) => {
            json!({"type": "unaryExpr", "op": if *minus { "-" } else { "+" }, "expr": json(inner)})
        }
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": json(inner)}),
    }
}

fn selector_json(selector: &Selector) -> Value {
    let mut node = modifiers_json(&selector.modifiers);
    node["name"] = selector.name.as_str().into();
    let matcher = |m: &Matcher| json!({"name": m.name(), "value": m.value(), "type": m.op().as_str()});
    node["matchers"] = selector.matchers.iter().map(matcher).collect();
    node["anchored"] = (selector.extended == Extended::Anchored).into();
    node["smoothed"] = (selector.extended == Extended::Smoothed).into();
    node
}

fn modifiers_json(modifiers: &Modifiers) -> Value {
    let (timestamp, edge) = match modifiers.at {
        Some(At::Time(time)) => (Some(time), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
        None => (None, None),
    };
    json!({
        "offset": modifiers.offset_ms,
        "offsetExpr": optional_duration(modifiers.offset_expr.as_ref()),
        "timestamp": timestamp,
        "startOrEnd": edge,
    })
}

fn matching_json(matching: &VectorMatching) -> Value {
    let cardinality = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": cardinality,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    })
}

fn optional_duration(duration: Option<&DurationExpr>) -> Value {
    duration.map_or(Value::Null, duration_json)
}

fn duration_json(duration: &DurationExpr) -> Value {
    let node = |op: &str, lhs: Value, rhs: Value| json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": false});
    match &duration.kind {
        DurationKind::Number(value, written) => {
            json!({"type": "numberLiteral", "val": number::format_float(*value), "duration": written})
        }
        DurationKind::Step => node("step", Value::Null, Value::Null),
        DurationKind::Range => node("range", Value::Null, Value::Null),
        DurationKind::Unary(minus, inner) => {
            node(if *minus { "-" } else { "+" }, Value::Null, duration_json(inner))
        }
        DurationKind::Binary(op, lhs, rhs) => node(op.as_str(), duration_json(lhs), duration_json(rhs)),
        DurationKind::Paren(inner) => {
            let mut wrapped = duration_json(inner);
            if wrapped["type"] == "durationExpr" {
                wrapped["wrapped"] = true.into();
            }
            wrapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Value) {
        let expr = promql::parse(text, &promql::ParseOptions::default()).unwrap();
        assert_eq!(&json(&expr), expected, "{text}");
    }

    #[test]
    fn trees_have_the_shape_that_clients_read() {
        check("1", &json!({"type": "numberLiteral", "val": "1"}));
        let selector = |name: &str| {
            json!({
                "type": "vectorSelector", "name": name, "offset": 60_000, "offsetExpr": null, "timestamp": null,
                "startOrEnd": null, "anchored": false, "smoothed": false,
                "matchers": [
                    {"name": "job", "type": "=~", "value": "a.*"},
                    {"name": "__name__", "type": "=", "value": name},
                ],
            })
        };
        check(r#"up{job=~"a.*"} offset 1m"#, &selector("up"));
        check(
            "a + on (x) group_left (y) -b",
            &json!({
                "type": "binaryExpr", "op": "+", "bool": false,
                "matching": {"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"],
                             "fillValues": {"lhs": null, "rhs": null}},
                "lhs": {"type": "vectorSelector", "name": "a", "offset": 0, "offsetExpr": null, "timestamp": null,
                        "startOrEnd": null, "anchored": false, "smoothed": false,
                        "matchers": [{"name": "__name__", "type": "=", "value": "a"}]},
                "rhs": {"type": "unaryExpr", "op": "-", "expr":
                    {"type": "vectorSelector", "name": "b", "offset": 0, "offsetExpr": null, "timestamp": null,
                     "startOrEnd": null, "anchored": false, "smoothed": false,
                     "matchers": [{"name": "__name__", "type": "=", "value": "b"}]}},
            }),
        );
    }
}
