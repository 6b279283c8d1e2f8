//! The prettifier, and names in both styles.

use crate::{ParseOptions, Style, parse, prettify, print_with};

/// `text` is prettified as `expected`.
fn check(text: &str, expected: &str) {
    let expr = parse(text, &ParseOptions::ALL).unwrap();
    assert_eq!(prettify(&expr), expected, "{text}");
}

#[test]
fn short_expressions_stay_on_a_line() {
    check("sum   by( a )(rate(foo [ 5m ]))+1", "sum by (a) (rate(foo[5m])) + 1");
}

#[test]
fn long_expressions_are_broken_at_operators_and_parentheses() {
    let long = "a_metric_with_a_rather_long_name_that_fills_the_line{label=\"value\"}";
    check(
        &format!("sum by (job) (rate({long}[5m])) / on (job) group_left () -(count by (job) ({long}))"),
        &format!(
            "  sum by (job) (rate({long}[5m]))
/ on (job) group_left ()
  -(count by (job) ({long}))"
        ),
    );
    check(
        &format!("topk(5, histogram_quantile(0.9, sum by (le) (rate({long}[5m] offset 1h)))) or vector(0)"),
        &format!(
            "  topk(
    5,
    histogram_quantile(
      0.9,
      sum by (le) (
        rate({long}[5m] offset 1h)
      )
    )
  )
or
  vector(0)"
        ),
    );
    check(
        &format!("-max_over_time(({long} + another_metric_that_is_long_too{{a=\"b\"}})[1h:5m] offset 1d)"),
        &format!(
            "-max_over_time(
  (
      {long}
    +
      another_metric_that_is_long_too{{a=\"b\"}}
  )[1h:5m] offset 1d
)"
        ),
    );
}

#[test]
fn names_are_quoted_unless_the_style_says_otherwise() {
    let expr = parse("温度{a.b=\"c\"} + on (é) {\"x y\"=\"z\"}", &ParseOptions::ALL).unwrap();
    let unquoted = Style { unquoted_utf8_names: true };
    assert_eq!(print_with(&expr, unquoted), "温度{a.b=\"c\"} + on (é) {\"x y\"=\"z\"}");
    assert_eq!(
        print_with(&expr, Style::default()),
        "{\"a.b\"=\"c\",__name__=\"温度\"} + on (\"é\") {\"x y\"=\"z\"}"
    );
}
