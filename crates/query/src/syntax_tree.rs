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
            // A literal in parentheses is shown as if it had a sign.
            if let DurationKind::Number(..) = inner.kind {
                wrapped = node("+", Value::Null, wrapped);
            }
            wrapped["wrapped"] = true.into();
            wrapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Value) {
        let expr = promql::parse(text, &promql::ParseOptions::ALL).unwrap();
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

    /// A selector of `x`, with what differs from a plain one.
    fn x(kind: &str, changes: &Value) -> Value {
        let mut node = json!({
            "type": kind, "name": "x", "offset": 0, "offsetExpr": null, "timestamp": null, "startOrEnd": null,
            "anchored": false, "smoothed": false, "matchers": [{"name": "__name__", "type": "=", "value": "x"}],
        });
        let changes = changes.as_object().unwrap().clone();
        node.as_object_mut().unwrap().extend(changes);
        node
    }

    fn number(value: &str, written_as_duration: bool) -> Value {
        json!({"type": "numberLiteral", "val": value, "duration": written_as_duration})
    }

    fn duration(op: &str, lhs: &Value, rhs: &Value, wrapped: bool) -> Value {
        json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped})
    }

    /// Each kind of node and each field, as `translate_ast.go` of Prometheus 3.14 writes them.
    #[test]
    fn every_kind_of_node_is_shown_as_upstream_shows_it() {
        let null = Value::Null;
        let plain = x("vectorSelector", &json!({}));
        check("\"a\\n\"", &json!({"type": "stringLiteral", "val": "a\n"}));
        check("-1e-7", &json!({"type": "numberLiteral", "val": "-0.0000001"}));
        check("Inf", &json!({"type": "numberLiteral", "val": "+Inf"}));
        check("1m", &json!({"type": "numberLiteral", "val": "60"}));
        check("(x)", &json!({"type": "parenExpr", "expr": plain}));
        check("-x", &json!({"type": "unaryExpr", "op": "-", "expr": plain}));
        check("+x", &json!({"type": "unaryExpr", "op": "+", "expr": plain}));
        check("x @ 1.5 offset -1m", &x("vectorSelector", &json!({"timestamp": 1500, "offset": -60_000})));
        check("x @ end()", &x("vectorSelector", &json!({"startOrEnd": "end"})));
        let range = |changes: &Value| {
            let mut node = x("matrixSelector", changes);
            for (name, value) in [("range", json!(300_000)), ("rangeExpr", Value::Null)] {
                node.as_object_mut().unwrap().entry(name).or_insert(value);
            }
            node
        };
        check("x[5m]", &range(&json!({})));
        check("x[5m] smoothed @ start()", &range(&json!({"smoothed": true, "startOrEnd": "start"})));
        let step = duration("step", &null, &null, false);
        let sum = duration("+", &step, &number("60", true), false);
        check("x[step() + 1m] anchored", &range(&json!({"range": 0, "rangeExpr": sum, "anchored": true})));
        let wrapped = duration("+", &null, &number("5", false), true);
        check(
            "x offset -(5)",
            &x("vectorSelector", &json!({"offsetExpr": duration("-", &null, &wrapped, false)})),
        );
        check(
            "x offset +step()",
            &x("vectorSelector", &json!({"offsetExpr": duration("+", &null, &step, false)})),
        );
        let least = duration("min_of", &duration("range", &null, &null, false), &number("10", true), false);
        check("x offset min_of(range(), 10s)", &x("vectorSelector", &json!({"offsetExpr": least})));
        check(
            "(x)[1h:(step() * 2)] offset 1m",
            &json!({
                "type": "subquery", "expr": {"type": "parenExpr", "expr": plain}, "range": 3_600_000, "rangeExpr": null,
                "offset": 60_000, "offsetExpr": null, "step": 0,
                "stepExpr": duration("*", &step, &number("2", false), true), "timestamp": null, "startOrEnd": null,
            }),
        );
        check(
            "label_join(x, \"a\", \",\")",
            &json!({
                "type": "call",
                "func": {"name": "label_join", "argTypes": ["vector", "string", "string", "string"], "variadic": -1,
                         "returnType": "vector"},
                "args": [plain, {"type": "stringLiteral", "val": "a"}, {"type": "stringLiteral", "val": ","}],
            }),
        );
        check(
            "time()",
            &json!({"type": "call", "args": [],
            "func": {"name": "time", "argTypes": [], "variadic": 0, "returnType": "scalar"}}),
        );
        check(
            "limitk without (a) (2, x)",
            &json!({"type": "aggregation", "op": "limitk", "expr": plain, "grouping": ["a"], "without": true,
                    "param": {"type": "numberLiteral", "val": "2"}}),
        );
        check(
            "sum(x)",
            &json!({"type": "aggregation", "op": "sum", "expr": plain, "grouping": [], "without": false, "param": null}),
        );
        let matching = |card: &str, lhs: Value, rhs: Value| json!({"card": card, "labels": [], "on": false, "include": [], "fillValues": {"lhs": lhs, "rhs": rhs}});
        let binary = |op: &str, matching: Value, rhs: Value, truth: bool| json!({"type": "binaryExpr", "op": op, "lhs": plain, "rhs": rhs, "matching": matching, "bool": truth});
        check("x </ 1", &binary("</", null.clone(), json!({"type": "numberLiteral", "val": "1"}), false));
        check(
            "x == bool x",
            &binary("==", matching("one-to-one", null.clone(), null.clone()), plain.clone(), true),
        );
        check(
            "x unless x",
            &binary("unless", matching("many-to-many", null.clone(), null.clone()), plain.clone(), false),
        );
        check(
            "x + fill_right(0.5) x",
            &binary("+", matching("one-to-one", null.clone(), json!(0.5)), plain.clone(), false),
        );
        check(
            "x * fill(-1) x",
            &binary("*", matching("one-to-one", json!(-1.0), json!(-1.0)), plain.clone(), false),
        );
    }
}
