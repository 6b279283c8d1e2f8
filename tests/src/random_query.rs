//! Random series and random queries over them, the same for the same seed.
//!
//! The series have gaps, counter resets, staleness markers, NaN and infinities, both kinds of native histograms of
//! several layouts, classic histograms, and series that are now floats and now histograms. The queries come from a
//! grammar of the whole language; they are well typed, but may well fail on the data, which is part of what is tested.

use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span};
use model::seam::fake::MemorySource;
use model::{Histogram, Labels, stale_nan};

/// A small generator of random numbers (xorshift).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "noise has no end and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `all`.
    pub fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// The first and last timestamp of the series, ms.
pub const TIMES: (i64, i64) = (0, 1_200_000);

fn float(random: &mut Random) -> f64 {
    match random.below(40) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => f64::NEG_INFINITY,
        3 => 1e300,
        4 => -0.0,
        5 => 1e-9,
        _ => random.below(2000) as f64 / 8.0 - 100.0 + random.below(3) as f64 * 0.1,
    }
}

fn exponential(random: &mut Random, level: f64) -> Histogram {
    let schema = [0, 0, 1, 3][random.below(4)];
    let zero_threshold = [0.0, 0.001, 0.001, 1.5][random.below(4)];
    let first = if zero_threshold > 1.0 { 9 } else { random.below(3) as i32 - 1 };
    let buckets: Vec<f64> =
        (0..1 + random.below(4)).map(|_| (random.below(5) as f64 + level).floor()).collect();
    let spans = vec![Span { offset: first, length: buckets.len() as u32 }];
    let negative: Vec<f64> = if random.once_in(3) { vec![level.floor() + 1.0] } else { Vec::new() };
    let zero_count = random.below(4) as f64;
    let count = zero_count + buckets.iter().chain(&negative).sum::<f64>();
    let reset_hint = match random.below(8) {
        0 => ResetHint::Reset,
        1 => ResetHint::NotReset,
        2 => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    Histogram {
        reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum: float(random),
        positive_spans: spans,
        positive_buckets: buckets,
        negative_spans: vec![Span { offset: 20, length: negative.len() as u32 }],
        negative_buckets: negative,
        ..Histogram::default()
    }
}

fn custom(random: &mut Random, level: f64) -> Histogram {
    let bounds: &[f64] =
        random.pick(&[&[1.0, 2.0, 5.0][..], &[1.0, 2.0, 5.0], &[1.0, 5.0], &[2.0, 5.0, 10.0]]);
    let buckets: Vec<f64> = (0..=bounds.len()).map(|_| (random.below(4) as f64 + level).floor()).collect();
    Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: buckets.iter().sum(),
        sum: random.below(100) as f64 / 4.0,
        positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
        positive_buckets: buckets,
        custom_values: Some(Arc::from(bounds)),
        ..Histogram::default()
    }
}

/// What a series is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Native,
    Custom,
    Mixed,
    Info,
}

fn fill(source: &mut MemorySource, labels: &Labels, kind: Kind, random: &mut Random) {
    let mut time = TIMES.0 + random.below(30_000) as i64;
    let (mut level, started) = (random.below(50) as f64, time);
    let with_starts = random.once_in(3);
    let ends = if random.once_in(5) { TIMES.1 / 2 } else { TIMES.1 };
    let mut start = started;
    while time < ends {
        let histogram = match kind {
            Kind::Native => true,
            Kind::Custom => true,
            Kind::Mixed => random.once_in(2),
            Kind::Counter | Kind::Gauge | Kind::Info => false,
        };
        if random.once_in(25) {
            (level, start) = (random.below(3) as f64, time);
        } else {
            level += random.below(9) as f64;
        }
        let start = if with_starts { start } else { 0 };
        if random.once_in(30) {
            source.push_any(labels, time, stale_nan(), None, start);
        } else if histogram {
            let mix = random.once_in(20);
            let h = if (kind == Kind::Custom) == mix {
                exponential(random, level)
            } else {
                custom(random, level)
            };
            source.push_any(labels, time, 0.0, Some(Arc::new(h)), start);
        } else {
            let value = match kind {
                Kind::Counter => level,
                Kind::Info => 1.0,
                _ => float(random),
            };
            source.push_any(labels, time, value, None, start);
        }
        time += 15_000 + random.below(200) as i64;
        if random.once_in(20) {
            time += 60_000 * (1 + random.below(7) as i64);
        }
    }
}

/// Random series.
pub fn series(random: &mut Random) -> MemorySource {
    let mut source = MemorySource::new();
    let names = [
        ("c_total", Kind::Counter),
        ("d_total", Kind::Counter),
        ("g", Kind::Gauge),
        ("k", Kind::Gauge),
        ("h", Kind::Native),
        ("u", Kind::Custom),
        ("m", Kind::Mixed),
    ];
    for instance in 0..5 {
        let job = format!("j{}", instance % 2);
        let instance = if instance == 4 { String::new() } else { format!("i{instance}") };
        let base = |name: &str, extra: &[(&str, &str)]| {
            let all = [("__name__", name), ("job", job.as_str()), ("instance", instance.as_str())];
            Labels::from_pairs(all.iter().chain(extra).copied()).expect("labels that form a set")
        };
        for (name, kind) in names {
            for code in ["200", "500"] {
                if random.once_in(5) {
                    continue;
                }
                let zone = ["", "z0", "z1"][random.below(3)];
                let typed = if random.once_in(6) { "counter" } else { "" };
                let labels = base(name, &[("code", code), ("zone", zone), ("__type__", typed)]);
                fill(&mut source, &labels, kind, random);
            }
        }
        let mut classic = random.clone();
        for le in ["1", "5", "+Inf"] {
            if random.once_in(15) {
                continue;
            }
            // The same randomness, so that buckets are sampled together.
            let labels = base("b_bucket", &[("le", le), ("code", "200")]);
            fill(&mut source, &labels, Kind::Counter, &mut classic.clone());
        }
        classic.next();
        *random = classic;
        fill(
            &mut source,
            &base("target_info", &[("version", ["1", "2"][random.below(2)])]),
            Kind::Info,
            random,
        );
    }
    source
}

/// Makes queries.
#[derive(Debug)]
pub struct Queries {
    random: Random,
    /// Also what only differs in how it is spread, not in what it computes: leave it out for other evaluators.
    whole_language: bool,
}

impl Queries {
    /// The queries of `seed`, of the whole language or of what the naive evaluator knows.
    pub fn new(seed: u64, whole_language: bool) -> Self {
        Self { random: Random::new(seed), whole_language }
    }

    /// The next query.
    pub fn query(&mut self) -> String {
        if self.random.once_in(20) { self.scalar(2) } else { self.vector(4) }
    }

    fn name(&mut self) -> &'static str {
        if self.whole_language {
            self.random.pick(&["c_total", "d_total", "g", "k", "h", "u", "m", "b_bucket", "c_total", "g"])
        } else {
            self.random.pick(&["c_total", "d_total", "g", "k", "b_bucket"])
        }
    }

    fn matchers(&mut self) -> String {
        match self.random.below(8) {
            0 => r#"{job="j0"}"#.into(),
            1 => r#"{instance=~"i[0-2]"}"#.into(),
            2 => r#"{code!="500"}"#.into(),
            3 => r#"{zone="",instance!=""}"#.into(),
            _ => String::new(),
        }
    }

    fn modifiers(&mut self) -> String {
        if self.random.once_in(6) {
            let all: &[&str] = if self.whole_language {
                &[" offset 1m", " offset -30s", " @ 600", " @ end()", " @ start() offset 15s"]
            } else {
                &[" offset 1m", " offset -30s", " @ 600"]
            };
            return self.random.pick(all).to_owned();
        }
        String::new()
    }

    fn selector(&mut self) -> String {
        if self.whole_language && self.random.once_in(15) {
            let all =
                [r#"{__name__=~"g|k",code="200"}"#, r#"{__name__=~"c_total|d_total"}"#, "c_total smoothed"];
            return self.random.pick(&all).to_owned();
        }
        format!("{}{}{}", self.name(), self.matchers(), self.modifiers())
    }

    fn range(&mut self, depth: usize) -> String {
        let range = self.random.pick(&["1m", "2m", "5m", "90s"]);
        if depth > 1 && self.random.once_in(if self.whole_language { 5 } else { 8 }) {
            let inner = self.vector(depth - 2);
            let step = self.random.pick(&["30s", "", "1m"]);
            return format!("({inner})[{range}:{step}]{}", self.modifiers());
        }
        let (name, matchers) = (self.name(), self.matchers());
        format!("{name}{matchers}[{range}]{}", self.modifiers())
    }

    fn scalar(&mut self, depth: usize) -> String {
        let n = if self.whole_language { 8 } else { 3 };
        match self.random.below(n) {
            0 => "2".into(),
            1 => "0.5".into(),
            2 => "-3".into(),
            3 => "time()".into(),
            4 => "(1 + step() * 2)".into(),
            5 if depth > 0 => format!("scalar({})", self.vector(depth - 1)),
            6 => "max_of(pi(), 7)".into(),
            _ => "NaN".into(),
        }
    }

    fn grouping(&mut self) -> String {
        self.random
            .pick(&[
                "",
                " by (job)",
                " by (code, zone)",
                " without (instance)",
                " by (instance)",
                " by (le)",
                " without (le, code)",
            ])
            .to_owned()
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let (grouping, inner) = (self.grouping(), self.vector(depth - 1));
        let n = if self.whole_language { 20 } else { 11 };
        let plain = ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"];
        match self.random.below(n) {
            at @ 0..=7 => format!("{}{grouping} ({inner})", plain[at]),
            // Of samples as they are: what is rounded may be equal here and not there.
            at @ (8 | 9) if !self.whole_language => {
                let op = ["topk", "bottomk"][at - 8];
                format!("{op}{grouping} ({}, {})", 1 + self.random.below(3), self.selector())
            }
            10 if !self.whole_language => {
                format!("quantile{grouping} ({}, {inner})", self.random.pick(&["0.3", "0.9", "1.2"]))
            }
            8 | 9 => format!("sum{grouping} ({inner})"),
            10 => format!("avg{grouping} ({inner})"),
            11 => format!("topk{grouping} ({}, {inner})", 1 + self.random.below(3)),
            12 => format!("bottomk{grouping} ({}, {inner})", 1 + self.random.below(3)),
            13 => format!("quantile{grouping} ({}, {inner})", self.random.pick(&["0.3", "0.9", "1.2"])),
            14 => format!("count_values{grouping} (\"v\", {inner})"),
            15 => format!("limitk{grouping} ({}, {inner})", 1 + self.random.below(3)),
            16 => format!("limit_ratio{grouping} ({}, {inner})", self.random.pick(&["0.5", "-0.4", "1.3"])),
            17 => format!("topk{grouping} ({}, {inner})", self.scalar(depth - 1)),
            _ => format!("sum{grouping} ({inner})"),
        }
    }

    fn matching(&mut self, set: bool) -> String {
        let n = if set { 5 } else { 10 };
        match self.random.below(n) {
            0 => " on (job, instance, code, zone)".into(),
            1 => " ignoring (le)".into(),
            2 => " on (instance)".into(),
            3 => " ignoring (zone)".into(),
            4 | 8 | 9 => String::new(),
            5 => " on (job, instance) group_left ()".into(),
            6 => " ignoring (code) group_right (zone)".into(),
            _ if self.whole_language => " ignoring (le) fill (0)".into(),
            _ => String::new(),
        }
    }

    fn binary(&mut self, depth: usize) -> String {
        // `%` makes a large difference of a small one, so that only equal bits can be compared.
        let modulo = if self.whole_language { "%" } else { "*" };
        let arithmetic = ["+", "-", "*", "/", modulo, "^", "atan2"];
        let comparison = ["==", "!=", ">", "<", ">=", "<="];
        let sets = ["and", "or", "unless"];
        let (lhs, rhs) = (self.vector(depth - 1), self.vector(depth - 1));
        match self.random.below(6) {
            0 => {
                let (op, scalar) = (self.random.pick(&arithmetic), self.scalar(depth - 1));
                if self.random.once_in(2) {
                    format!("({lhs}) {op} {scalar}")
                } else {
                    format!("{scalar} {op} ({lhs})")
                }
            }
            1 => {
                let (op, scalar) = (self.random.pick(&comparison), self.scalar(depth - 1));
                let truth = if self.random.once_in(3) { " bool" } else { "" };
                format!("({lhs}) {op}{truth} {scalar}")
            }
            2 => {
                let op = self.random.pick(&sets);
                format!("({lhs}) {op}{} ({rhs})", self.matching(true))
            }
            3 => {
                let op = self.random.pick(&comparison);
                let truth = if self.random.once_in(3) { " bool" } else { "" };
                format!("({lhs}) {op}{truth}{} ({rhs})", self.matching(false))
            }
            _ => {
                let op = self.random.pick(&arithmetic);
                format!("({lhs}) {op}{} ({rhs})", self.matching(false))
            }
        }
    }

    fn range_function(&mut self, depth: usize) -> String {
        let range = self.range(depth);
        let simple = [
            "rate",
            "increase",
            "delta",
            "sum_over_time",
            "avg_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "irate",
            "idelta",
            "changes",
            "resets",
            "deriv",
            "stddev_over_time",
            "present_over_time",
            "stdvar_over_time",
            "first_over_time",
            "mad_over_time",
            "ts_of_max_over_time",
        ];
        let n = if self.whole_language { 26 } else { 21 };
        match self.random.below(n) {
            19 if !self.whole_language => format!("last_over_time({range})"),
            20 => format!("quantile_over_time(0.7, {range})"),
            21 => format!("predict_linear({range}, 60)"),
            22 => format!("absent_over_time({range})"),
            23 => format!("double_exponential_smoothing({range}, 0.4, 0.6)"),
            24 => format!("quantile_over_time({}, {range})", self.scalar(depth)),
            25 => "rate(c_total[2m] anchored)".into(),
            at => format!("{}({range})", simple[at]),
        }
    }

    fn function(&mut self, depth: usize) -> String {
        let inner = self.vector(depth - 1);
        match self.random.below(20) {
            0 => format!("abs({inner})"),
            1 => format!("clamp_max({inner}, {})", self.scalar(depth - 1)),
            2 => format!("round({inner}, 0.5)"),
            3 => format!("histogram_quantile({}, {inner})", self.random.pick(&["0.5", "0.9", "2"])),
            4 => format!("histogram_count({inner})"),
            5 => format!("histogram_sum({inner})"),
            6 => format!("histogram_fraction(0, 2, {inner})"),
            7 => format!("timestamp({})", self.selector()),
            8 => format!("label_replace({inner}, \"new\", \"$1\", \"job\", \"(.*)\")"),
            9 => format!("label_join({inner}, \"code\", \"-\", \"job\", \"zone\")"),
            10 => format!("absent({inner})"),
            11 => format!("sort_desc({inner})"),
            12 => format!("sort_by_label({inner}, \"code\")"),
            13 => format!("vector({})", self.scalar(depth - 1)),
            14 => format!("hour({inner})"),
            15 => format!("info({inner})"),
            16 => {
                format!("histogram_quantile(0.8, sum by (le, job) (rate(b_bucket{}[5m])))", self.matchers())
            }
            17 => format!("histogram_quantiles({inner}, \"q\", 0.5, 0.9)"),
            18 => format!("sqrt({inner})"),
            _ => format!("histogram_avg({inner})"),
        }
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        match self.random.below(if self.whole_language { 13 } else { 11 }) {
            0 => self.selector(),
            1..=3 => self.range_function(depth),
            4 | 5 => self.aggregation(depth),
            6 | 7 => self.binary(depth),
            8 => format!("-({})", self.vector(depth - 1)),
            9 => self.aggregation(depth),
            _ if !self.whole_language => {
                let inner = self.vector(depth - 1);
                match self.random.below(5) {
                    0 => format!("abs({inner})"),
                    1 => format!("clamp_max({inner}, 30)"),
                    // Of samples as they are: these make much of a rounding error.
                    2 => format!("round({}, 0.5)", self.selector()),
                    3 => format!("sgn({})", self.selector()),
                    _ => format!("sqrt({inner})"),
                }
            }
            _ => self.function(depth),
        }
    }
}
