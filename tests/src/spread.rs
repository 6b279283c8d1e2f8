//! A query over series spread over shards and places, as a cluster does it but in one process and through the same
//! bytes; and the comparison with an evaluation over all series at once.

use engine::distribute::{Fragment, Partial, Push, plan, run};
use engine::{Annotation, Answer, EvalContext, SampleValue, Value, evaluate};
use model::seam::fake::MemorySource;
use model::seam::{
    QueryBudget, ReadLevel, SelectRequest, SeriesData, SeriesExemplars, SeriesIter, SeriesSource,
};
use model::{Epoch, Failure, Histogram, Labels, MetricMetadata, ShardId, StepGrid, TenantId, TimeRange};
use promql::ast::Expr;

/// Series in shards, and shards in places.
#[derive(Debug)]
pub struct Spread {
    /// The shards of each place.
    places: Vec<Vec<MemorySource>>,
}

/// What came of a query: the answer or the text of its error.
pub type Outcome = Result<Answer, String>;

impl Spread {
    /// The series of `source` in `shards` shards, by their placement keys, on `places` places in turn.
    pub fn of(source: &MemorySource, shards: usize, places: usize) -> Self {
        let mut all = vec![MemorySource::new(); shards];
        let request = SelectRequest {
            tenant: TenantId::anonymous(),
            matchers: Vec::new(),
            range: TimeRange::ALL,
            budget: QueryBudget::unlimited(),
        };
        let mut iter = source.select(&request).expect("memory can be read");
        let mut data = SeriesData::default();
        while iter.next_series(&mut data).expect("memory can be read") {
            let key = topology::placement_key(&request.tenant, &data.labels);
            let shard = ((u128::from(key) * shards as u128) >> 64) as usize;
            for (at, stamp) in data.stamps.iter().enumerate() {
                let histogram = data.histograms.iter().find(|(position, _)| *position as usize == at);
                let histogram = histogram.map(|(_, h)| h.clone());
                let start = data.starts.get(at).copied().unwrap_or(0);
                all[shard].push_any(&data.labels, *stamp, data.values[at], histogram, start);
            }
        }
        let mut spread = vec![Vec::new(); places];
        for (at, shard) in all.into_iter().enumerate() {
            spread[at % places].push(shard);
        }
        Self { places: spread }
    }

    /// How it is spread, in words.
    pub fn shape(&self) -> String {
        let shards: usize = self.places.iter().map(Vec::len).sum();
        format!("{shards} shards in {} places", self.places.len())
    }

    /// The series of the first place as one source, in another order than they were in.
    pub fn as_one(&self) -> impl SeriesSource + '_ {
        Several(&self.places[0])
    }

    /// The answer of `expr` by parts.
    ///
    /// # Errors
    /// The text of the error of evaluation.
    pub fn evaluate(&self, expr: &Expr, grid: StepGrid, ctx: &EvalContext) -> Result<Answer, String> {
        match self.by_parts(expr, grid, ctx, Push::Everything)? {
            Some(answer) => Ok(answer),
            None => match self.by_parts(expr, grid, ctx, Push::Nothing)? {
                Some(answer) => Ok(answer),
                None => Err("raw series cannot fail to be evaluated".into()),
            },
        }
    }

    /// The bytes of fragments and of partials for `expr`.
    ///
    /// # Errors
    /// As [`Spread::evaluate`].
    pub fn bytes(
        &self,
        expr: &Expr,
        grid: StepGrid,
        ctx: &EvalContext,
        push: Push,
    ) -> Result<(usize, usize), String> {
        let plan = plan(expr, grid, ctx, push).map_err(|e| e.to_string())?;
        let mut bytes = (0, 0);
        for at in 0..self.places.len() {
            let fragment = self.fragment(at, plan.parts(), ctx);
            bytes.0 += fragment.len();
            bytes.1 += self.answer(at, &fragment)?.len();
        }
        Ok(bytes)
    }

    fn fragment(&self, at: usize, parts: &[engine::distribute::Part], ctx: &EvalContext) -> Vec<u8> {
        Fragment {
            tenant: ctx.tenant.clone(),
            shards: vec![ShardId(at as u32)],
            epoch: Epoch(1),
            read_level: ReadLevel::Linearizable,
            deadline: std::time::Duration::from_secs(10),
            memory_bytes: 0,
            lookback_ms: ctx.lookback_ms,
            features: ctx.features,
            steps: None,
            parts: parts.to_vec(),
        }
        .encode()
    }

    fn answer(&self, at: usize, fragment: &[u8]) -> Result<Vec<u8>, String> {
        let fragment = Fragment::decode(fragment).map_err(|e| e.to_string())?;
        let ctx = fragment.context(QueryBudget::unlimited());
        let partial = run(&fragment.parts, &Several(&self.places[at]), &ctx, at as u32);
        Ok(partial.map_err(|e| e.to_string())?.encode())
    }

    /// Nothing when a place found an error of evaluation.
    fn by_parts(
        &self,
        expr: &Expr,
        grid: StepGrid,
        ctx: &EvalContext,
        push: Push,
    ) -> Result<Option<Answer>, String> {
        let plan = plan(expr, grid, ctx, push).map_err(|e| e.to_string())?;
        let mut partials = Vec::new();
        for at in 0..self.places.len() {
            let bytes = self.answer(at, &self.fragment(at, plan.parts(), ctx))?;
            let partial = Partial::decode(&bytes, plan.parts(), &ctx.budget).map_err(|e| e.to_string())?;
            if partial.encode() != bytes {
                return Err(format!("a partial of {expr} is not written again as it was read"));
            }
            partials.push(partial);
        }
        let read =
            |bytes: &[u8]| Partial::decode(bytes, plan.parts(), &ctx.budget).map_err(|e| e.to_string());
        let bytes: Vec<Vec<u8>> = partials.iter().map(Partial::encode).collect();
        // Forwards one by one, and backwards in pairs: the same bytes.
        let mut forwards = plan.nothing(&ctx.budget);
        for partial in partials {
            forwards.absorb(partial).map_err(|e| e.to_string())?;
        }
        let mut backwards = plan.nothing(&ctx.budget);
        for pair in bytes.rchunks(2) {
            let mut joined = read(&pair[pair.len() - 1])?;
            for one in &pair[..pair.len() - 1] {
                joined.absorb(read(one)?).map_err(|e| e.to_string())?;
            }
            backwards.absorb(joined).map_err(|e| e.to_string())?;
        }
        if forwards.encode() != backwards.encode() {
            return Err(format!("the partials of {expr} depend on the order in which they are joined"));
        }
        if forwards.error().is_some() && push == Push::Everything {
            return Ok(None);
        }
        plan.finish(backwards, ctx).map(Some).map_err(|e| e.to_string())
    }
}

/// Whether two answers are the same, bit by bit (NaNs are all one), with their annotations.
///
/// # Errors
/// What differs.
pub fn same(local: &Outcome, spread: &Outcome, text: &str) -> Result<(), String> {
    match (local, spread) {
        (Err(a), Err(b)) if a == b => Ok(()),
        (Ok(a), Ok(b)) => {
            same_value(&a.value, &b.value)?;
            let notes = |answer: &Answer| {
                answer.annotations.iter().map(|n: &Annotation| (n.kind, n.render(text))).collect::<Vec<_>>()
            };
            let (a, b) = (notes(a), notes(b));
            if a == b { Ok(()) } else { Err(format!("annotations differ:\n  {a:?}\n  {b:?}")) }
        }
        (a, b) => {
            let show = |o: &Outcome| o.as_ref().map_or_else(Clone::clone, |a| format!("{:?}", a.value));
            Err(format!("outcomes differ:\n  {}\n  {}", show(a), show(b)))
        }
    }
}

/// Whether two outcomes have the same value bit by bit, or both none; positions in errors and annotations aside.
///
/// # Errors
/// What differs.
pub fn same_values(a: &Outcome, b: &Outcome) -> Result<(), String> {
    match (a, b) {
        (Err(_), Err(_)) => Ok(()),
        (Ok(a), Ok(b)) => same_value(&a.value, &b.value),
        (a, b) => Err(format!("one fails: {:?}, {:?}", a.as_ref().err(), b.as_ref().err())),
    }
}

/// The local answer.
pub fn local(expr: &Expr, grid: StepGrid, source: &dyn SeriesSource, ctx: &EvalContext) -> Outcome {
    evaluate(expr, grid, source, ctx).map_err(|e| e.to_string())
}

fn same_float(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    let tidy = |h: &Histogram| {
        let mut h = h.clone();
        for value in [&mut h.sum, &mut h.count, &mut h.zero_count]
            .into_iter()
            .chain(&mut h.positive_buckets)
            .chain(&mut h.negative_buckets)
            .filter(|v| v.is_nan())
        {
            *value = f64::NAN;
        }
        h
    };
    tidy(a).same_bits(&tidy(b))
}

fn same_value(a: &Value, b: &Value) -> Result<(), String> {
    let equal = match (a, b) {
        (Value::Scalar(a), Value::Scalar(b)) => a.timestamp == b.timestamp && same_float(a.value, b.value),
        (Value::String(a, at), Value::String(b, bt)) => a == b && at == bt,
        (Value::Vector(a), Value::Vector(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    a.labels == b.labels
                        && a.timestamp == b.timestamp
                        && match (&a.value, &b.value) {
                            (SampleValue::Float(a), SampleValue::Float(b)) => same_float(*a, *b),
                            (SampleValue::Histogram(a), SampleValue::Histogram(b)) => same_histogram(a, b),
                            _ => false,
                        }
                })
        }
        (Value::Matrix(a), Value::Matrix(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    a.labels == b.labels
                        && a.floats.len() == b.floats.len()
                        && a.histograms.len() == b.histograms.len()
                        && a.floats
                            .iter()
                            .zip(&b.floats)
                            .all(|(a, b)| a.timestamp == b.timestamp && same_float(a.value, b.value))
                        && a.histograms.iter().zip(&b.histograms).all(|(a, b)| {
                            a.timestamp == b.timestamp && same_histogram(&a.histogram, &b.histogram)
                        })
                })
        }
        _ => false,
    };
    if equal { Ok(()) } else { Err(format!("values differ:\n  {a:?}\n  {b:?}")) }
}

/// Several shards as one source, the last one first.
struct Several<'s>(&'s [MemorySource]);

struct SeveralIter<'s> {
    rest: std::iter::Rev<std::slice::Iter<'s, MemorySource>>,
    current: Option<Box<dyn SeriesIter + 's>>,
    request: SelectRequest,
}

impl SeriesIter for SeveralIter<'_> {
    fn next_series(&mut self, out: &mut SeriesData) -> Result<bool, Failure> {
        loop {
            if let Some(current) = &mut self.current
                && current.next_series(out)?
            {
                return Ok(true);
            }
            match self.rest.next() {
                None => return Ok(false),
                Some(shard) => self.current = Some(shard.select(&self.request)?),
            }
        }
    }
}

impl SeriesSource for Several<'_> {
    fn select<'a>(&'a self, request: &SelectRequest) -> Result<Box<dyn SeriesIter + 'a>, Failure> {
        let rest = self.0.iter().rev();
        Ok(Box::new(SeveralIter { rest, current: None, request: request.clone() }))
    }

    fn series(&self, request: &SelectRequest, limit: usize) -> Result<Vec<Labels>, Failure> {
        self.0
            .iter()
            .map(|shard| shard.series(request, limit))
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.concat())
    }

    fn label_names(&self, _: &SelectRequest, _: usize) -> Result<Vec<String>, Failure> {
        Err(Failure::internal("no evaluation asks for label names"))
    }

    fn label_values(&self, _: &SelectRequest, _: &str, _: usize) -> Result<Vec<String>, Failure> {
        Err(Failure::internal("no evaluation asks for label values"))
    }

    fn exemplars(&self, _: &SelectRequest) -> Result<Vec<SeriesExemplars>, Failure> {
        Err(Failure::internal("no evaluation asks for exemplars"))
    }

    fn metadata(&self, _: &TenantId, _: Option<&str>) -> Result<Vec<MetricMetadata>, Failure> {
        Err(Failure::internal("no evaluation asks for metadata"))
    }
}
