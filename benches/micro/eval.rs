//! Evaluation of PromQL over series in memory: what a query costs beside reading its samples. 2,000 series, 6 hours
//! at 15 s, a step a minute; `element` is one series at one step.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{EvalContext, distribute, evaluate};
use model::seam::{QueryBudget, SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource};
use model::{Failure, Labels, MetricMetadata, StepGrid, TenantId, TimeRange};
use promql::{ParseOptions, parse};

const SERIES: usize = 2000;
const SAMPLES: i64 = 6 * 240;

/// Series that are copied out as fast as memory gives them.
struct Held(Vec<SeriesData>);

struct Rest<'a>(std::slice::Iter<'a, SeriesData>, TimeRange);

impl SeriesIter for Rest<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        out.clear();
        let Some(data) = self.0.next() else { return Ok(false) };
        let from = data.stamps.partition_point(|t| *t <= self.1.after);
        let to = data.stamps.partition_point(|t| *t <= self.1.until);
        out.labels = data.labels.clone();
        out.stamps.extend_from_slice(&data.stamps[from..to]);
        out.values.extend_from_slice(&data.values[from..to]);
        Ok(true)
    }
}

impl SeriesSource for Held {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        Ok(Box::new(Rest(self.0.iter(), request.range)))
    }

    fn series(&self, _: &SelectRequest, _: usize) -> Result<Vec<Labels>, Failure> {
        Ok(Vec::new())
    }

    fn label_names(&self, _: &SelectRequest, _: usize) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    fn label_values(&self, _: &SelectRequest, _: &str, _: usize) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    fn exemplars(&self, _: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        Ok(Vec::new())
    }

    fn metadata(&self, _: &TenantId, _: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        Ok(Vec::new())
    }
}

/// Counters of ten instances a job, with a fixed seed.
fn held() -> Held {
    let mut state = 7u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bounds = ["0.1", "0.5", "1", "2.5", "5", "10", "30", "60", "120", "+Inf"];
    let one = |at: usize| {
        let pairs = [
            ("__name__", "requests_total".to_owned()),
            ("job", format!("job{}", at % 5)),
            ("instance", format!("host-{}", at / 10)),
            ("path", format!("/api/v{}", at % 7)),
            ("le", bounds[at % 10].to_owned()),
        ];
        let mut data =
            SeriesData { labels: Labels::from_pairs(pairs).expect("valid labels"), ..SeriesData::default() };
        let mut value = 0.0;
        for sample in 0..SAMPLES {
            value += (next() % 1000) as f64 * 0.25;
            data.stamps.push(sample * 15_000 + (at as i64 % 15) * 1000);
            data.values.push(value);
        }
        data
    };
    Held((0..SERIES).map(one).collect())
}

fn eval(c: &mut Criterion) {
    let source = held();
    let range = StepGrid::range(600_000, (SAMPLES - 1) * 15_000, 60_000);
    let instant = StepGrid::instant((SAMPLES - 1) * 15_000);
    let queries = [
        "requests_total",
        "rate(requests_total[5m])",
        "sum by (job) (rate(requests_total[5m]))",
        "avg_over_time(requests_total[5m])",
        "max_over_time(requests_total[5m])",
        "histogram_quantile(0.9, sum by (job, le) (rate(requests_total[5m])))",
        "topk(10, rate(requests_total[5m]))",
        "quantile by (job) (0.9, requests_total)",
        "requests_total / requests_total",
        "max_over_time(rate(requests_total[5m])[1h:1m])",
    ];
    for (kind, grid) in [("range", range), ("instant", instant)] {
        let mut group = c.benchmark_group(format!("eval/{kind}"));
        group.sample_size(10).measurement_time(Duration::from_secs(2));
        group.throughput(Throughput::Elements((SERIES * grid.count) as u64));
        for query in queries {
            let expr = parse(query, &ParseOptions::ALL).expect("a valid query");
            group.bench_function(query, |b| {
                b.iter(|| {
                    let budget = QueryBudget::unlimited();
                    let ctx = EvalContext {
                        is_instant: kind == "instant",
                        ..EvalContext::range(TenantId::anonymous(), grid.end(), budget)
                    };
                    black_box(evaluate(&expr, grid, &source, &ctx).expect("it evaluates"))
                });
            });
        }
        group.finish();
    }
}

/// The same over four places of a quarter of the series each, through the bytes that travel between nodes: what
/// spreading a query costs in computing, all places and the root together.
fn by_parts(c: &mut Criterion) {
    let all = held();
    let places: Vec<Held> =
        (0..4).map(|place| Held(all.0.iter().skip(place).step_by(4).cloned().collect())).collect();
    let grid = StepGrid::range(600_000, (SAMPLES - 1) * 15_000, 60_000);
    let mut group = c.benchmark_group("eval/parts");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements((SERIES * grid.count) as u64));
    for query in [
        "requests_total",
        "sum by (job) (rate(requests_total[5m]))",
        "histogram_quantile(0.9, sum by (job, le) (rate(requests_total[5m])))",
        "topk(10, rate(requests_total[5m]))",
    ] {
        let expr = parse(query, &ParseOptions::ALL).expect("a valid query");
        let ctx = EvalContext::range(TenantId::anonymous(), grid.end(), QueryBudget::unlimited());
        group.bench_function(query, |b| {
            b.iter(|| {
                let plan = distribute::plan(&expr, grid, &ctx, distribute::Push::Everything).expect("a plan");
                let mut joined = plan.nothing(&ctx.budget);
                for place in &places {
                    let bytes = distribute::run(plan.parts(), place, &ctx, 0).expect("a partial").encode();
                    let partial = distribute::Partial::decode(&bytes, plan.parts(), &ctx.budget);
                    joined.absorb(partial.expect("the same partial")).expect("it joins");
                }
                black_box(plan.finish(joined, &ctx).expect("it evaluates"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, eval, by_parts);
criterion_main!(benches);
