//! What parses, what does not and with which message; spans; limits; and that no text brings the parser down.

use proptest::prelude::*;

use crate::ast::{At, DurationKind, Expr, ExprKind, Extended};
use crate::{Limits, ParseOptions, ValueType, parse, parse_metric, parse_selector};

const STABLE: ParseOptions = ParseOptions {
    experimental_functions: false,
    fill_modifiers: false,
    unquoted_utf8_names: false,
    limits: Limits::DEFAULT,
};
const EXPERIMENTAL: ParseOptions = ParseOptions { unquoted_utf8_names: false, ..ParseOptions::ALL };

/// `text` parses, and its canonical text is `printed`.
fn check(text: &str, printed: &str) {
    match parse(text, &EXPERIMENTAL) {
        Ok(expr) => assert_eq!(expr.to_string(), printed, "{text}"),
        Err(error) => panic!("{text}: {error}"),
    }
}

/// The first finding about `text` is `message`.
fn check_error(text: &str, message: &str) {
    let error = parse(text, &EXPERIMENTAL).expect_err(text);
    assert_eq!(error.to_string(), message, "{text}");
}

#[test]
fn literals() {
    for (text, printed) in [
        ("1_000_000", "1000000"),
        ("0x1F", "31"),
        ("0755", "493"),
        (".5e3", "500"),
        ("+Inf", "+Inf"),
        ("-iNf", "-Inf"),
        ("nan", "NaN"),
        ("--1", "1"),
        ("- - 5m", "5m"),
        ("1h30m", "1h30m"),
        ("90s", "1m30s"),
        (r#""a\"b\n\u00e9""#, r#""a\"b\né""#),
        (r"'it\'s'", "\"it's\""),
    ] {
        check(text, printed);
    }
    check(r"`raw \n`", r#""raw \\n""#);
    check(r#""a\xc5z""#, r#""a\xc5z""#);
    let bytes = parse(r#""a\xc5z""#, &STABLE).unwrap();
    assert_eq!((&bytes.kind, bytes.value_type()), (&ExprKind::Bytes(b"a\xc5z".to_vec()), ValueType::String));
}

#[test]
fn operators_bind_as_upstream() {
    let shape = |text: &str| -> String {
        fn show(expr: &Expr) -> String {
            match &expr.kind {
                ExprKind::Binary(b) => format!("[{} {} {}]", show(&b.lhs), b.op.as_str(), show(&b.rhs)),
                ExprKind::Unary(minus, e) => format!("{}[{}]", if *minus { '-' } else { '+' }, show(e)),
                _ => expr.to_string(),
            }
        }
        show(&parse(text, &STABLE).unwrap())
    };
    for (text, expected) in [
        ("a + b * c", "[a + [b * c]]"),
        ("a - b - c", "[[a - b] - c]"),
        ("a ^ b ^ c", "[a ^ [b ^ c]]"),
        ("-a ^ b", "-[[a ^ b]]"),
        ("-a * b", "[-[a] * b]"),
        ("a ^ -b ^ c * d", "[[a ^ -[[b ^ c]]] * d]"),
        ("a or b and c unless d", "[a or [[b and c] unless d]]"),
        ("a == b + c", "[a == [b + c]]"),
        ("a atan2 b % c", "[[a atan2 b] % c]"),
        ("a </ b >/ c", "[[a </ b] >/ c]"),
        ("a offset 5m + b", "[a offset 5m + b]"),
        ("a offset 2 ^ 2", "[a offset 2s ^ 2]"),
        ("a offset (2 ^ 2)", "a offset (2 ^ 2)"),
        ("a offset -(2) + 2", "[a offset -(2) + 2]"),
        ("a offset (2) + 2", "a offset (2) + 2"),
        ("a offset --2 + 2", "a offset 2 + 2"),
        ("a offset step() * 2", "[a offset step() * 2]"),
    ] {
        assert_eq!(shape(text), expected, "{text}");
    }
}

#[test]
fn selectors() {
    check(r#"up{job="a",instance!~'b.*',}"#, r#"up{instance!~"b.*",job="a"}"#);
    check(r#"{"a.b", "c d"="e"}"#, r#"{"c d"="e",__name__="a.b"}"#);
    check("offset offset 5m", "offset offset 5m");
    check("sum + by - without", "sum + by - without");
    check("fill + fill_left", "fill + fill_left");
    check("foo @ 1603774568 offset -7m", "foo @ 1603774568.000 offset -7m");
    check("foo offset 1w @ end()", "foo @ end() offset 1w");
    check("foo[5m] @ -0.5", "foo[5m] @ -0.500");
    check("foo[5m] smoothed offset 1h", "foo[5m] smoothed offset 1h");
    check("anchored anchored", "anchored anchored");
    check("rate(foo[1h:])[30m:6s]", "rate(foo[1h:])[30m:6s]");
    check("{__name__=~\"a|b\" # comment }\n}", r#"{__name__=~"a|b"}"#);
    let expr = parse("foo[5m] anchored @ start()", &STABLE).unwrap();
    let ExprKind::Matrix(matrix) = expr.kind else { panic!("not a range selector") };
    assert_eq!(matrix.range_ms, 300_000);
    assert_eq!(
        (matrix.selector.extended, matrix.selector.modifiers.at),
        (Extended::Anchored, Some(At::Start))
    );
}

#[test]
fn durations_may_be_expressions() {
    check("foo[1h / 2:step()]", "foo[1h / 2:step()]");
    check("foo[ MAX_OF(step(), 5m) + 1 ]", "foo[max_of(step(), 5m) + 1]");
    check("foo[(5m)]", "foo[(5m)]");
    check("foo[((5m+1))]", "foo[(5m + 1)]");
    check("foo offset -min_of(10s, +range())", "foo offset -min_of(10s, range())");
    let expr = parse("foo[1.5]", &STABLE).unwrap();
    assert_eq!(expr.to_string(), "foo[1s500ms]");
    // Below a millisecond nothing is lost.
    check("foo[0.0005]", "foo[0.0005]");
    let ExprKind::Matrix(matrix) = parse("foo[2*step()]", &STABLE).unwrap().kind else { panic!("no range") };
    let range = matrix.range_expr.unwrap();
    assert!(matches!(range.kind, DurationKind::Binary(..)));
    assert_eq!((range.span.start, range.span.end), (4, 12));
}

#[test]
fn aggregations_and_calls() {
    check("sum(a) by (b, \"c d\",)", "sum by (b, \"c d\") (a)");
    check("SUM WITHOUT (on, bool) (a)", "sum without (on, bool) (a)");
    check("count_values('v', a)", "count_values(\"v\", a)");
    check("limit_ratio(-0.5, a)", "limit_ratio(-0.5, a)");
    check("step() + max_of(1, end())", "step() + max_of(1, end())");
    check("info(a, {b=~\".*\"})", "info(a, {b=~\".*\"})");
    check("info(a, {})", "info(a, {})");
    check("integral(a[1h], 2)", "integral(a[1h], 2)");
    check("label_join(a, 'b', ',', 'c', 'd')", "label_join(a, \"b\", \",\", \"c\", \"d\")");
    check("time()", "time()");
}

#[test]
fn matching() {
    check("a + on(b) group_left(c) d", "a + on (b) group_left (c) d");
    check("a + ignoring() d", "a + d");
    check("a + ignoring() group_right d", "a + ignoring () group_right () d");
    check("a >= bool on() d", "a >= bool on () d");
    check("a + on(x) fill(1e6) d", "a + on (x) fill (1e+06) d");
    check("a + fill_right(-1) fill_left(5m) d", "a + fill_left (300) fill_right (-1) d");
    check("a and ignoring(x) b", "a and ignoring (x) b");
}

#[test]
fn syntax_errors_are_worded_as_upstream() {
    for (text, message) in [
        ("", "unknown position: parse error: no expression found in input"),
        ("# only a comment", "1:1: parse error: no expression found in input"),
        ("1+", "1:3: parse error: unexpected end of input"),
        ("*1", "1:1: parse error: unexpected <op:*>"),
        ("a b", "1:3: parse error: unexpected identifier \"b\""),
        ("a\n  on", "2:3: parse error: unexpected <on>"),
        ("(1))", "1:5: parse error: unexpected right parenthesis ')'"),
        ("((1)", "1:5: parse error: unclosed left parenthesis"),
        ("2.5.", "1:1: parse error: bad number or duration syntax: \"2.5.\""),
        ("foo[5mm]", "1:5: parse error: bad number or duration syntax: \"5mm\""),
        (
            "foo[]",
            "1:5: parse error: unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("foo[:5m]", "1:6: parse error: unexpected colon before duration in duration expression"),
        (
            "foo[5m] + bar[:5m]",
            "1:15: parse error: unexpected \":\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("foo[5m", "1:7: parse error: unclosed left bracket"),
        (
            "foo[5m 1]",
            "1:8: parse error: unexpected number \"1\" in subquery or range, expected \":\" or \"]\"",
        ),
        ("foo[1h:1m 5]", "1:11: parse error: unexpected number \"5\" in subquery selector, expected \"]\""),
        (
            "foo offset",
            "1:11: parse error: unexpected end of input in offset, expected number, duration, step(), or range()",
        ),
        ("foo @ bar", "1:7: parse error: unexpected identifier \"bar\" in @, expected timestamp"),
        ("sum by a (b)", "1:8: parse error: unexpected identifier \"a\" in grouping opts, expected \"(\""),
        ("sum by (,) (b)", "1:9: parse error: unexpected \",\" in grouping opts, expected label"),
        ("sum(rate(a b))", "1:12: parse error: unexpected identifier \"b\" in aggregation"),
        ("a + on(b) group_left @ c", "1:22: parse error: unexpected <op:@> in grouping opts, expected \"(\""),
        ("{a=b}", "1:4: parse error: unexpected identifier \"b\" in label matching, expected string"),
        ("{a}", "1:3: parse error: unexpected \"}\" in label matching, expected label matching operator"),
        (
            "{a=\"b\" c}",
            "1:8: parse error: unexpected identifier \"c\" in label matching, expected \",\" or \"}\"",
        ),
        ("{,}", "1:2: parse error: unexpected \",\" in label matching, expected identifier or \"}\""),
        ("{a:b=\"c\"}", "1:3: parse error: unexpected character inside braces: ':'"),
        ("foo{", "1:5: parse error: unexpected end of input inside braces"),
        ("abs(a,)", "1:6: parse error: trailing commas not allowed in function call args"),
        ("nope(a)", "1:1: parse error: unknown function with name \"nope\""),
        ("\"\\c\"", "1:1: parse error: unknown escape sequence U+0063 'c'"),
        ("\"a", "1:1: parse error: unterminated quoted string"),
        ("a !~ b", "1:3: parse error: unexpected character after '!': '~'"),
        ("foo.bar", "1:4: parse error: unexpected character: '.'"),
        ("\"0123456789\" 1 \"0123456789x\"", "1:14: parse error: unexpected number \"1\""),
        ("1 \"0123456789x\"", "1:3: parse error: unexpected string \"\\\"012345678\"..."),
    ] {
        check_error(text, message);
    }
}

#[test]
fn findings_are_worded_as_upstream() {
    for (text, message) in [
        ("foo[0m]", "1:5: parse error: duration must be greater than 0"),
        ("foo[-1m]", "1:5: parse error: duration must be greater than 0"),
        ("foo[5y1hs]", "1:5: parse error: unknown unit \"hs\" in duration \"5y1hs\""),
        ("foo[5m1h]", "1:5: parse error: not a valid duration string: \"5m1h\""),
        ("foo offset 1/0", ""),
        ("foo offset (1/0)", "1:14: parse error: division by zero"),
        ("foo offset 99999999999", "1:12: parse error: duration out of range"),
        ("foo offset 1m offset 1m", "1:1: parse error: offset may not be set multiple times"),
        (
            "1 offset 1m",
            "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        ("foo @ 1 @ 2", "1:1: parse error: @ <timestamp> may not be set multiple times"),
        ("foo @ Inf", "1:1: parse error: timestamp out of bounds for @ modifier: +Inf"),
        ("foo @ 1 [5m]", "1:9: parse error: no @ modifiers allowed before range"),
        (
            "foo anchored smoothed",
            "1:1: parse error: anchored and smoothed modifiers cannot be used together",
        ),
        ("(foo)[5m]", "1:6: parse error: ranges only allowed for vector selectors"),
        ("foo[5m][5m:]", "1:1: parse error: subquery is only allowed on instant vector, got matrix instead"),
        ("{a=~\"[\"}", "1:2: parse error: error parsing regexp: missing closing ]: `[`"),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("{a=~\".*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("1 and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        (
            "a * on(b) group_left(b) c",
            "1:3: parse error: label \"b\" must not occur in ON and GROUP clause at once",
        ),
        ("a or on(b) group_left(c) d", "1:1: parse error: no grouping allowed for \"or\" operation"),
        ("a or fill(1) b", "1:1: parse error: filling in missing series not allowed for set operators"),
        ("1 + on(b) c", "1:1: parse error: vector matching only allowed between instant vectors"),
        (
            "a[5m] + 1",
            "1:1: parse error: binary expression must contain only scalar and instant vector types",
        ),
        (
            "-'a'",
            "1:1: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("sum()", "1:1: parse error: no arguments for aggregate expression provided"),
        (
            "topk(a)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("topk(a, b)", "1:6: parse error: expected type scalar in aggregation parameter, got instant vector"),
        (
            "count_values(1, b)",
            "1:14: parse error: expected type string in aggregation parameter, got scalar",
        ),
        (
            "sum(a[5m])",
            "1:5: parse error: expected type instant vector in aggregation expression, got range vector",
        ),
        ("floor()", "1:1: parse error: expected 1 argument(s) in call to \"floor\", got 0"),
        ("hour(a, b, c)", "1:1: parse error: expected at most 1 argument(s) in call to \"hour\", got 3"),
        (
            "label_join()",
            "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 0",
        ),
        (
            "rate(a)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("info(a, b)", "1:9: parse error: expected label selectors only, got vector selector instead"),
        ("info(a, sum(b))", "1:9: parse error: expected label selectors only"),
        ("sum by (\"\") (a)", "1:9: parse error: invalid label name for grouping: \"\""),
    ] {
        if message.is_empty() {
            check(text, "foo offset 1s / 0");
        } else {
            check_error(text, message);
        }
    }
}

#[test]
fn all_findings_are_kept_in_order() {
    let errors = parse("abs(a[5m], 1) + rate(b)", &STABLE).unwrap_err();
    let messages: Vec<&str> = errors.0.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "expected 1 argument(s) in call to \"abs\", got 2",
            "expected type instant vector in call to function \"abs\", got range vector",
            "expected type range vector in call to function \"rate\", got instant vector",
        ]
    );
    assert_eq!((errors.0[1].span.start, errors.0[1].span.end), (4, 9));
}

#[test]
fn features_are_off_by_default() {
    for (text, message) in [
        ("info(a)", "1:1: parse error: function \"info\" is not enabled"),
        (
            "limitk(1, a)",
            "1:1: parse error: limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("a + fill(1) b", "1:1: parse error: binop fill modifiers are experimental and not enabled"),
    ] {
        assert_eq!(parse(text, &STABLE).unwrap_err().to_string(), message);
    }
    let with_names = ParseOptions { unquoted_utf8_names: true, ..STABLE };
    let expr = parse("sum by (é.x) (温度.a{b.c=\"d\"})", &with_names).unwrap();
    assert_eq!(expr.to_string(), "sum by (\"é.x\") ({\"b.c\"=\"d\",__name__=\"温度.a\"})");
}

#[test]
fn every_node_knows_its_place() {
    let text = "  sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m)) / -(bar or 2 * baz[1h:5m] @ 3)";
    let mut found = Vec::new();
    fn walk<'a>(text: &'a str, expr: &Expr, found: &mut Vec<&'a str>) {
        found.push(&text[expr.span.start as usize..expr.span.end as usize]);
        expr.children().into_iter().for_each(|child| walk(text, child, found));
    }
    // Types do not matter here: findings would, so the subquery is wrapped.
    let text = text.replace("baz[1h:5m] @ 3", "max_over_time(baz[1h:5m] @ 3)");
    let expr = parse(&text, &STABLE).unwrap();
    walk(&text, &expr, &mut found);
    assert_eq!(
        found,
        [
            text.trim(),
            "sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m))",
            "rate(foo{a=\"b\"}[5m] offset 1m)",
            "foo{a=\"b\"}[5m] offset 1m",
            "-(bar or 2 * max_over_time(baz[1h:5m] @ 3))",
            "(bar or 2 * max_over_time(baz[1h:5m] @ 3))",
            "bar or 2 * max_over_time(baz[1h:5m] @ 3)",
            "bar",
            "2 * max_over_time(baz[1h:5m] @ 3)",
            "2",
            "max_over_time(baz[1h:5m] @ 3)",
            "baz[1h:5m] @ 3",
            "baz",
        ]
    );
}

#[test]
fn shape_and_size_are_limited() {
    let deep = "the expression nests deeper than the limit of 200 levels (--query.max-depth)";
    let wide = "the expression has more operators than the limit of 1000 (--query.max-operators)";
    for (text, message) in [
        ("(".repeat(60_000), deep),
        ("-".repeat(60_000), deep),
        ("sum(".repeat(16_000), deep),
        ("abs(".repeat(16_000), deep),
        ("a^".repeat(30_000), deep),
        (format!("a{}", "+a".repeat(30_000)), wide),
        (format!("a{}", "[5m:]".repeat(10_000)), wide),
        (format!("a[1{}]", "+1".repeat(30_000)), wide),
        (format!("a[{}", "(".repeat(60_000)), deep),
        (format!("a offset {}", "-".repeat(60_000)), deep),
        ("x".repeat(300_000), "the text has 300000 bytes, the limit is 65536 (--query.max-length)"),
    ] {
        let error = parse(&text, &EXPERIMENTAL).unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        // The parser never looks back: where it stopped is how much it did, whatever follows.
        assert!(error.0.len() == 1 && error.0[0].span.start <= 5_005, "{error}");
    }
    let within = format!("a{}", " or a".repeat(1000));
    assert_eq!(parse(&within, &STABLE).unwrap().to_string(), within);
    let nested = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(parse(&nested, &STABLE).unwrap().to_string(), nested);
    // A long text may make many findings, but not as many as it likes.
    let many = format!("{{}}{}", "+{}".repeat(900));
    assert!(parse(&many, &STABLE).unwrap_err().0.len() < 100);
}

#[test]
fn selectors_and_metrics_on_their_own() {
    let matchers = parse_selector("up{a!=\"b\"}", &STABLE).unwrap();
    assert_eq!(matchers.iter().map(|m| m.name()).collect::<Vec<_>>(), ["a", "__name__"]);
    for (text, message) in [
        ("up[5m]", "1:3: parse error: unexpected \"[\""),
        ("1", "1:1: parse error: unexpected number \"1\""),
        ("up offset 5m", "1:4: parse error: unexpected <offset>"),
    ] {
        assert_eq!(parse_selector(text, &STABLE).unwrap_err().to_string(), message);
    }
    let labels = parse_metric("{\"a.b\", c='d'}", &STABLE).unwrap();
    assert_eq!(labels.iter().collect::<Vec<_>>(), [("__name__", "a.b"), ("c", "d")]);
    for (text, message) in [
        ("up{a}", "1:5: parse error: unexpected \"}\" in label set, expected \"=\""),
        ("up{a=1}", "1:6: parse error: unexpected character inside braces: '1'"),
        ("up{a=\"1\",a=\"2\"}", "1:10: parse error: label name \"a\" appears twice"),
    ] {
        assert_eq!(parse_metric(text, &STABLE).unwrap_err().to_string(), message);
    }
}

/// Pieces that random texts are made of.
const PIECES: &[&str] = &[
    "sum",
    "topk",
    "count_values",
    "limitk",
    "by",
    "without",
    "rate",
    "abs",
    "time",
    "info",
    "step",
    "end()",
    "range()",
    "max_of",
    "foo",
    "a:b",
    "bar{a=\"b\"}",
    "{a=~\"b|c.*\"}",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "[5m]",
    "[1h:1m]",
    ",",
    ":",
    "5m",
    "1",
    "0",
    "0x1f",
    "1e3",
    "Inf",
    "-",
    "+",
    "*",
    "/",
    "%",
    "^",
    "==",
    "!=",
    ">",
    "<",
    "</",
    ">/",
    "and",
    "or",
    "unless",
    "atan2",
    "on",
    "ignoring",
    "group_left",
    "bool",
    "offset",
    "@",
    "start",
    "anchored",
    "smoothed",
    "fill",
    "fill_left",
    "\"x\"",
    "'y'",
    "`z`",
    "\"",
    "=",
    "=~",
    "!~",
    "#",
    "\n",
    " ",
    ".",
    "é",
    "\\",
    "$",
];

fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..24).prop_map(|pieces| pieces.join(" "))
}

/// A text that often parses: expressions put together from smaller ones.
fn grown() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(
        &[
            "foo",
            "bar{a=\"b\",c!~\"d\"}",
            "1",
            "5m",
            "\"s\"",
            "foo[5m]",
            "foo offset -1h",
            "{\"x y\"}",
            "time()",
        ][..],
    );
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 3, |inner| {
        let operator = proptest::sample::select(
            &[
                "+",
                "-",
                "^",
                "== bool",
                "> on (a)",
                "* ignoring () group_left (x)",
                "and",
                "or fill (1)",
                "</",
                "atan2",
            ][..],
        );
        let around = proptest::sample::select(
            &[
                "-@",
                "(@)",
                "sum by (a) (@)",
                "topk(3, @)",
                "rate(@)",
                "abs(@)",
                "@[5m:1m]",
                "@[step()*2]",
                "@ offset (5m+1)",
                "@ @ end()",
                "@ smoothed",
                "max_over_time(@[1h:])",
                "label_join(@, 'a', 'b')",
            ][..],
        );
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner, around).prop_map(|(a, around)| around.replacen('@', &a, 1)),
        ]
    })
}

/// Printing what was parsed and parsing what was printed change nothing.
fn check_fixed_point(text: &str) {
    let Ok(expr) = parse(text, &ParseOptions::ALL) else { return };
    let printed = expr.to_string();
    let again = parse(&printed, &EXPERIMENTAL).unwrap_or_else(|e| panic!("{text} prints as {printed}: {e}"));
    assert_eq!(again.to_string(), printed, "{text}");
    let pretty = crate::prettify(&expr);
    let from_pretty =
        parse(&pretty, &EXPERIMENTAL).unwrap_or_else(|e| panic!("{text} prettifies as {pretty}: {e}"));
    assert_eq!(from_pretty.to_string(), printed, "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_gets_an_answer(text in ".{0,60}") {
        check_fixed_point(&text);
        let _ = parse_selector(&text, &STABLE);
        let _ = parse_metric(&text, &STABLE);
        let _ = crate::parse_series(&text, &STABLE);
    }

    #[test]
    fn soups_of_tokens_get_an_answer(text in soup()) {
        check_fixed_point(&text);
    }

    #[test]
    fn canonical_text_is_a_fixed_point(text in grown()) {
        check_fixed_point(&text);
    }

    #[test]
    fn damaged_queries_get_an_answer(text in grown(), cut in 0usize..80, piece in proptest::sample::select(PIECES)) {
        let at = text.char_indices().map(|(at, _)| at).nth(cut % (text.len() + 1)).unwrap_or(text.len());
        check_fixed_point(&text[..at]);
        check_fixed_point(&format!("{}{piece}{}", &text[..at], &text[at..]));
    }
}
