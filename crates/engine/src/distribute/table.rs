//! The one table of what may run where. It is closed: every function, every aggregation and every other construct of
//! the language has exactly one row, and `walk.rs` pushes nothing that the table does not allow.
//!
//! A region is to a frontend what a node with its shards is to a region, so the same table holds for both.

/// Where a construct is evaluated when the series that it needs are on several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Wherever it is needed: it reads no series.
    Anywhere,
    /// Where the series are, each by itself; their columns travel.
    EachSeries,
    /// Where the series are: those that it brings together have the same placement key; columns travel.
    Together,
    /// Where the series are, as accumulators of groups, which are joined and finished at the root.
    Partial,
    /// Where the series are, as candidates, among which the root picks again.
    Candidates,
    /// At the root, over what its arguments give.
    Root,
    /// At the root, over the raw series of its selectors.
    Series,
}

impl Rule {
    /// The word by which it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anywhere => "anywhere",
            Self::EachSeries => "each series",
            Self::Together => "together",
            Self::Partial => "partial",
            Self::Candidates => "candidates",
            Self::Root => "root",
            Self::Series => "series",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The constructs: functions and aggregations by their names, others by what they are.
    pub constructs: &'static [&'static str],
    /// Where they are evaluated.
    pub rule: Rule,
    /// Why that is exact.
    pub why: &'static str,
    /// A query with one of them.
    pub example: &'static str,
    /// What of the example is evaluated where the series are.
    pub pushed: &'static [&'static str],
}

/// Names of the constructs that are neither functions nor aggregations.
pub(crate) mod construct {
    pub(crate) const SELECTOR: &str = "instant selector";
    pub(crate) const RANGE: &str = "range selector";
    pub(crate) const SUBQUERY: &str = "subquery";
    pub(crate) const LITERAL: &str = "number, string";
    pub(crate) const SCALARS: &str = "scalar op scalar";
    pub(crate) const UNARY: &str = "unary minus and plus";
    pub(crate) const WITH_SCALAR: &str = "vector op scalar";
    pub(crate) const KEYED: &str = "vector op vector, matched on all labels but le and quantile";
    pub(crate) const MATCHED: &str = "vector op vector, matched otherwise";
}

/// The table.
pub static TABLE: &[Row] = &[
    Row {
        constructs: &[construct::LITERAL, construct::SCALARS, "time", "pi", "max_of", "min_of"],
        rule: Rule::Anywhere,
        why: "reads no series",
        example: "sum(x * max_of(time(), 2))",
        pushed: &["sum(x * max_of(time(), 2))"],
    },
    Row {
        constructs: &["start", "end", "range", "step"],
        rule: Rule::Anywhere,
        why: "a number before anything is pushed: the root closes the expression",
        example: "sum(x - start())",
        pushed: &["sum(x - 60)"],
    },
    Row {
        constructs: &[construct::SELECTOR],
        rule: Rule::EachSeries,
        why: "a sample for each step of each series",
        example: "x offset 1m",
        pushed: &["x offset 1m"],
    },
    Row {
        constructs: &[construct::RANGE],
        rule: Rule::Series,
        why: "pushed with the function around it; alone, its samples are the answer",
        example: "scalar(x) + quantile_over_time(scalar(y), x[5m])",
        pushed: &["x", "y"],
    },
    Row {
        constructs: &[construct::SUBQUERY],
        rule: Rule::EachSeries,
        why: "pushed with the function around it when what is inside is: each column makes one series of samples",
        example: "max_over_time(rate(x[5m])[10m:1m])",
        pushed: &["max_over_time(rate(x[5m])[10m:1m])"],
    },
    Row {
        constructs: &[
            "rate",
            "increase",
            "delta",
            "irate",
            "idelta",
            "deriv",
            "predict_linear",
            "double_exponential_smoothing",
            "changes",
            "resets",
            "integral",
            "avg_over_time",
            "count_over_time",
            "first_over_time",
            "last_over_time",
            "mad_over_time",
            "max_over_time",
            "min_over_time",
            "present_over_time",
            "quantile_over_time",
            "stddev_over_time",
            "stdvar_over_time",
            "sum_over_time",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
            "ts_of_max_over_time",
            "ts_of_min_over_time",
        ],
        rule: Rule::EachSeries,
        why: "a window over one series; series that differ only in their names have the same placement key, so those \
              that become one without it are on one node",
        example: "rate(x[5m])",
        pushed: &["rate(x[5m])"],
    },
    Row {
        constructs: &[
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "ceil",
            "clamp",
            "clamp_max",
            "clamp_min",
            "cos",
            "cosh",
            "day_of_month",
            "day_of_week",
            "day_of_year",
            "days_in_month",
            "deg",
            "exp",
            "floor",
            "histogram_avg",
            "histogram_count",
            "histogram_stddev",
            "histogram_stdvar",
            "histogram_sum",
            "hour",
            "ln",
            "log10",
            "log2",
            "minute",
            "month",
            "rad",
            "round",
            "sgn",
            "sin",
            "sinh",
            "sqrt",
            "start_timestamp",
            "tan",
            "tanh",
            "timestamp",
            "year",
        ],
        rule: Rule::EachSeries,
        why: "value by value; scalars beside it read no series, or it stays at the root",
        example: "clamp_max(abs(x), 3)",
        pushed: &["clamp_max(abs(x), 3)"],
    },
    Row {
        constructs: &[construct::UNARY, construct::WITH_SCALAR],
        rule: Rule::EachSeries,
        why: "value by value; a scalar made of series keeps it at the root",
        example: "-x * 2 + scalar(y)",
        pushed: &["(-x) * 2", "y"],
    },
    Row {
        constructs: &[construct::KEYED],
        rule: Rule::Together,
        why: "series that match have the same labels but for name, le and quantile, which are not in the placement \
              key; a node that finds a duplicate sends the query back to be evaluated over raw series",
        example: "x / y",
        pushed: &["x / y"],
    },
    Row {
        constructs: &[construct::MATCHED],
        rule: Rule::Root,
        why: "series that match may be on different nodes, or results take labels from other series",
        example: "rate(x[5m]) / on (job, instance, le) y",
        pushed: &["rate(x[5m])", "y"],
    },
    Row {
        constructs: &["histogram_quantile", "histogram_fraction"],
        rule: Rule::Together,
        why: "buckets of a classic histogram differ only in le and have the same placement key",
        example: "histogram_quantile(0.9, rate(x[5m]))",
        pushed: &["histogram_quantile(0.9, rate(x[5m]))"],
    },
    Row {
        constructs: &["histogram_quantiles"],
        rule: Rule::Root,
        why: "its label may take the place of one that keeps series apart",
        example: r#"histogram_quantiles(sum by (le) (rate(x[5m])), "q", 0.5, 0.9)"#,
        pushed: &["sum by (le) (rate(x[5m]))"],
    },
    Row {
        constructs: &["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "count_values"],
        rule: Rule::Partial,
        why: "accumulators join in any order: exact sums of values and squares and of histograms by layout, counts, \
              extremes; rounding, layouts and mixtures are decided once, at the end",
        example: "histogram_quantile(0.9, sum by (le) (rate(x[5m])))",
        pushed: &["sum by (le) (rate(x[5m]))"],
    },
    Row {
        constructs: &["topk", "bottomk", "limitk"],
        rule: Rule::Candidates,
        why: "what is picked of all is picked of its part; equal values are told apart by labels; a k made of series \
              keeps it at the root",
        example: "topk(2, x)",
        pushed: &["topk(2, x)"],
    },
    Row {
        constructs: &["limit_ratio"],
        rule: Rule::EachSeries,
        why: "a hash of its labels says whether a series stays",
        example: "limit_ratio(0.5, x)",
        pushed: &["limit_ratio(0.5, x)"],
    },
    Row {
        constructs: &["quantile"],
        rule: Rule::Root,
        why: "needs every value: columns travel",
        example: "quantile(0.9, x)",
        pushed: &["x"],
    },
    Row {
        constructs: &["vector"],
        rule: Rule::Root,
        why: "makes one series out of none, so only one may make it",
        example: "sum(x) or vector(0)",
        pushed: &["sum(x)"],
    },
    Row {
        constructs: &["scalar", "absent", "sort", "sort_by_label", "sort_by_label_desc", "sort_desc"],
        rule: Rule::Root,
        why: "looks at all series at once",
        example: "sort(x) or absent(y)",
        pushed: &["x", "y"],
    },
    Row {
        constructs: &["label_join", "label_replace"],
        rule: Rule::Root,
        why: "series of different nodes may get the same labels",
        example: r#"label_replace(x, "a", "b", "job", "c")"#,
        pushed: &["x"],
    },
    Row {
        constructs: &["info"],
        rule: Rule::Series,
        why: "joins with series that no part of the text names; those move raw, its argument as columns",
        example: "info(x)",
        pushed: &["x"],
    },
    Row {
        constructs: &["absent_over_time"],
        rule: Rule::Series,
        why: "looks at the samples of all series at once",
        example: "absent_over_time(x[5m])",
        pushed: &[],
    },
];

/// The rule for the construct called `name`. A name that is in no row stays at the root.
pub fn rule_of(name: &str) -> Rule {
    TABLE.iter().find(|row| row.constructs.contains(&name)).map_or(Rule::Root, |row| row.rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use promql::ast::AggregateOp;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_is_closed() {
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        TABLE.iter().flat_map(|row| row.constructs).for_each(|name| *rows.entry(name).or_default() += 1);
        let twice: Vec<_> = rows.iter().filter(|(_, n)| **n > 1).collect();
        assert!(twice.is_empty(), "in several rows: {twice:?}");
        use AggregateOp::*;
        let ops = [
            Sum,
            Avg,
            Min,
            Max,
            Count,
            Group,
            Stddev,
            Stdvar,
            Topk,
            Bottomk,
            Quantile,
            CountValues,
            Limitk,
            LimitRatio,
        ];
        let others = [
            construct::SELECTOR,
            construct::RANGE,
            construct::SUBQUERY,
            construct::LITERAL,
            construct::SCALARS,
            construct::UNARY,
            construct::WITH_SCALAR,
            construct::KEYED,
            construct::MATCHED,
        ];
        let all: Vec<&str> = promql::functions::all()
            .iter()
            .map(|f| f.name)
            .chain(ops.map(AggregateOp::as_str))
            .chain(others)
            .collect();
        let missing: Vec<_> = all.iter().filter(|name| !rows.contains_key(*name)).collect();
        assert!(missing.is_empty(), "in no row: {missing:?}");
        assert_eq!(rows.len(), all.len(), "rows of nothing");
    }
}
