//! Sums and means of native histograms across series: exact, and the same whatever the order of the series and however
//! they were grouped before.
//!
//! What was added is kept apart by layout (schema, width of the zero bucket, custom bounds) in exact accumulators.
//! Only at the end are the layouts reconciled, all at once: to the coarsest schema, to the smallest zero bucket that
//! covers those of all and cuts no populated bucket, to the custom bounds that all have. For two histograms that is
//! what `add.rs` does one after the other. Not here: sums along time (`sum.rs`), which go in order.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::histogram::{CUSTOM_BUCKETS_SCHEMA, ResetHint, Span, exponential_bound};
use model::{Failure, Histogram};

use super::buckets::{Layout, entries, target_index};
use super::{add, bounds};
use crate::coding::{MAX_BUCKETS, Reader, Writer};
use crate::sum::Exact;

/// The sum of histograms.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExactHistogram {
    added: u64,
    /// The only one that was added: its sum is itself.
    only: Option<Arc<Histogram>>,
    /// Which reset hints were seen: bit 1 << hint.
    hints: u8,
    count: Exact,
    sum: Exact,
    layouts: Vec<LayoutSum>,
}

/// The sum of histograms of one layout.
#[derive(Clone, Debug)]
struct LayoutSum {
    schema: i8,
    zero_threshold: f64,
    custom: Option<Arc<[f64]>>,
    zero: Exact,
    positive: Side,
    negative: Side,
}

/// The buckets of one side; spans have no gaps of length 0.
#[derive(Clone, Debug, Default)]
struct Side {
    spans: Vec<Span>,
    buckets: Vec<Exact>,
}

fn hint_bit(hint: ResetHint) -> u8 {
    match hint {
        ResetHint::Unknown => 1,
        ResetHint::Reset => 2,
        ResetHint::NotReset => 4,
        ResetHint::Gauge => 8,
    }
}

impl Side {
    fn add(&mut self, spans: &[Span], buckets: &[f64]) {
        if self.spans == spans && self.buckets.len() == buckets.len() {
            self.buckets.iter_mut().zip(buckets).for_each(|(sum, b)| sum.add(*b));
            return;
        }
        let other: Vec<(i32, Exact)> =
            entries(spans, buckets).map(|(index, count)| (index, Exact::of(count))).collect();
        self.join(other.iter().map(|(index, exact)| (*index, exact)));
    }

    fn absorb(&mut self, other: &Self) {
        if self.spans == other.spans && self.buckets.len() == other.buckets.len() {
            self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, b)| sum.absorb(b));
            return;
        }
        self.join(other.entries());
    }

    fn entries(&self) -> impl Iterator<Item = (i32, &Exact)> {
        let places: Vec<f64> = vec![0.0; self.buckets.len()];
        let indices: Vec<i32> = entries(&self.spans, &places).map(|(index, _)| index).collect();
        indices.into_iter().zip(&self.buckets)
    }

    fn join<'e>(&mut self, other: impl Iterator<Item = (i32, &'e Exact)>) {
        let mut all: BTreeMap<i32, Exact> = self.entries().map(|(at, sum)| (at, sum.clone())).collect();
        for (index, exact) in other {
            all.entry(index).or_default().absorb(exact);
        }
        *self = Self::of(all);
    }

    fn of(all: BTreeMap<i32, Exact>) -> Self {
        let mut layout = Layout::default();
        let mut buckets = Vec::with_capacity(all.len());
        for (index, exact) in all {
            layout.push(index, 0.0);
            buckets.push(exact);
        }
        Self { spans: layout.spans, buckets }
    }
}

impl LayoutSum {
    fn of(h: &Histogram) -> Self {
        Self {
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom: h.custom_values.clone(),
            zero: Exact::default(),
            positive: Side::default(),
            negative: Side::default(),
        }
    }

    fn is_custom(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn bounds(&self) -> &[f64] {
        self.custom.as_deref().unwrap_or(&[])
    }

    /// An order of layouts; equal means the same layout.
    fn order(&self, other: &Self) -> Ordering {
        let by_bounds = || {
            let bits = |l: &Self| l.bounds().iter().map(|b| b.to_bits()).collect::<Vec<_>>();
            bits(self).cmp(&bits(other))
        };
        self.schema
            .cmp(&other.schema)
            .then(self.zero_threshold.total_cmp(&other.zero_threshold))
            .then_with(by_bounds)
    }

    fn holds(&self, h: &Histogram) -> bool {
        self.schema == h.schema
            && self.zero_threshold.to_bits() == h.zero_threshold.to_bits()
            && self.bounds().len() == bounds(h).len()
            && self.bounds().iter().zip(bounds(h)).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl ExactHistogram {
    /// Adds `h`.
    pub(crate) fn add(&mut self, h: &Arc<Histogram>) {
        self.hints |= hint_bit(h.reset_hint);
        self.added += 1;
        if self.added == 1 {
            self.only = Some(Arc::clone(h));
            return;
        }
        self.split();
        self.take(h);
    }

    fn split(&mut self) {
        if let Some(only) = self.only.take() {
            self.take(&only);
        }
    }

    fn take(&mut self, h: &Histogram) {
        self.count.add(h.count);
        self.sum.add(h.sum);
        let at = match self.layouts.iter().position(|l| l.holds(h)) {
            Some(at) => at,
            None => {
                self.layouts.push(LayoutSum::of(h));
                self.layouts.len() - 1
            }
        };
        let layout = &mut self.layouts[at];
        layout.zero.add(h.zero_count);
        layout.positive.add(&h.positive_spans, &h.positive_buckets);
        layout.negative.add(&h.negative_spans, &h.negative_buckets);
    }

    /// Adds all that `other` has.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        if other.added == 0 {
            return;
        }
        if self.added == 0 {
            *self = other;
            return;
        }
        self.split();
        other.split();
        self.added += other.added;
        self.hints |= other.hints;
        self.count.absorb(&other.count);
        self.sum.absorb(&other.sum);
        for layout in other.layouts {
            match self.layouts.iter_mut().find(|l| l.order(&layout).is_eq()) {
                None => self.layouts.push(layout),
                Some(own) => {
                    own.zero.absorb(&layout.zero);
                    own.positive.absorb(&layout.positive);
                    own.negative.absorb(&layout.negative);
                }
            }
        }
    }

    /// Whether exponential and custom buckets were mixed: there is no sum.
    pub(crate) fn is_incompatible(&self) -> bool {
        let customs = self.layouts.iter().filter(|l| l.is_custom()).count();
        customs > 0 && customs < self.layouts.len()
    }

    /// Whether different custom bounds were mixed.
    pub(crate) fn is_reconciled(&self) -> bool {
        let mut customs = self.layouts.iter().filter(|l| l.is_custom());
        let Some(first) = customs.next() else { return false };
        customs.any(|l| !add::same_bounds(l.bounds(), first.bounds()))
    }

    /// Whether some said that they begin after a counter reset, and others that there was none.
    pub(crate) fn resets_collide(&self) -> bool {
        self.hints & 6 == 6
    }

    /// The sum, or with `mean` the mean, not compacted; meaningless when [`ExactHistogram::is_incompatible`].
    pub(crate) fn finish(&self, mean: bool) -> Histogram {
        if let Some(only) = &self.only {
            let mut h = (**only).clone();
            h.integer &= !mean;
            return h;
        }
        let divisor = self.added as f64;
        let round = |sum: &Exact| if mean { sum.mean(divisor) } else { sum.sum() };
        let mut h = Histogram {
            reset_hint: match self.hints {
                hints if hints & 8 != 0 => ResetHint::Gauge,
                2 => ResetHint::Reset,
                4 => ResetHint::NotReset,
                _ => ResetHint::Unknown,
            },
            count: round(&self.count),
            sum: round(&self.sum),
            ..Histogram::default()
        };
        let mut zero = Exact::default();
        let (positive, negative) = if self.layouts.iter().any(LayoutSum::is_custom) {
            h.schema = CUSTOM_BUCKETS_SCHEMA;
            self.with_common_bounds(&mut h)
        } else {
            self.with_common_zero(&mut h, &mut zero)
        };
        h.zero_count = round(&zero);
        let side = |side: &Side| -> (Vec<Span>, Vec<f64>) {
            (side.spans.clone(), side.buckets.iter().map(&round).collect())
        };
        (h.positive_spans, h.positive_buckets) = side(&positive);
        (h.negative_spans, h.negative_buckets) = side(&negative);
        h
    }

    /// Custom buckets: everything on the bounds that all have.
    fn with_common_bounds(&self, h: &mut Histogram) -> (Side, Side) {
        if let [only] = self.layouts.as_slice() {
            h.custom_values.clone_from(&only.custom);
            return (only.positive.clone(), Side::default());
        }
        let mut common: Vec<f64> = Vec::new();
        for (at, layout) in self.layouts.iter().enumerate() {
            common =
                if at == 0 { layout.bounds().to_vec() } else { add::intersect(&common, layout.bounds()) };
        }
        let mut all: BTreeMap<i32, Exact> = BTreeMap::new();
        for layout in &self.layouts {
            for (index, exact) in layout.positive.entries() {
                let upper = usize::try_from(index).ok().and_then(|i| layout.bounds().get(i));
                let to = upper.map_or(common.len(), |upper| common.partition_point(|c| c < upper));
                all.entry(to as i32).or_default().absorb(exact);
            }
        }
        h.custom_values = Some(common.into());
        (Side::of(all), Side::default())
    }

    /// Exponential buckets: the coarsest schema, and one zero bucket.
    fn with_common_zero(&self, h: &mut Histogram, zero: &mut Exact) -> (Side, Side) {
        h.schema = self.layouts.iter().map(|l| l.schema).min().unwrap_or(0);
        let thresholds = || self.layouts.iter().map(|l| l.zero_threshold);
        let mut threshold = thresholds().filter(|t| !t.is_nan()).fold(f64::NEG_INFINITY, f64::max);
        if threshold == f64::NEG_INFINITY {
            threshold = thresholds().next().unwrap_or(0.0);
        }
        self.layouts.iter().for_each(|l| zero.absorb(&l.zero));
        if let [only] = self.layouts.as_slice() {
            h.zero_threshold = only.zero_threshold;
            return (only.positive.clone(), only.negative.clone());
        }
        // The zero bucket grows to the end of any populated bucket that it would cut.
        loop {
            let before = threshold;
            for layout in self.layouts.iter().filter(|l| l.zero_threshold < before) {
                for (index, exact) in layout.positive.entries().chain(layout.negative.entries()) {
                    let lower = exponential_bound(index.wrapping_sub(1), layout.schema);
                    let upper = exponential_bound(index, layout.schema);
                    if lower < threshold && upper > threshold && exact.sum() != 0.0 {
                        threshold = upper;
                    }
                }
            }
            if threshold == before || threshold.is_nan() {
                break;
            }
        }
        h.zero_threshold = threshold;
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for layout in &self.layouts {
            for (side, all) in [&layout.positive, &layout.negative].into_iter().zip(&mut sides) {
                for (index, exact) in side.entries() {
                    let lower = exponential_bound(index.wrapping_sub(1), layout.schema);
                    if layout.zero_threshold < threshold && lower < threshold {
                        zero.absorb(exact);
                    } else {
                        let to = target_index(index, layout.schema, h.schema);
                        all.entry(to).or_insert_with(Exact::default).absorb(exact);
                    }
                }
            }
        }
        let [positive, negative] = sides.map(Side::of);
        (positive, negative)
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        let buckets: usize =
            self.layouts.iter().map(|l| l.positive.buckets.len() + l.negative.buckets.len()).sum();
        let only = self.only.as_ref().map_or(0, |h| crate::column::histogram_bytes(h));
        (size_of::<Self>()
            + only
            + self.layouts.len() * size_of::<LayoutSum>()
            + buckets * size_of::<Exact>()) as u64
    }

    /// Writes it; equal sums give equal bytes.
    pub(crate) fn write(&self, to: &mut Writer) {
        to.varint(self.added);
        to.u8(self.hints);
        if let Some(only) = &self.only {
            to.histogram(only);
            return;
        }
        self.count.write(to);
        self.sum.write(to);
        let mut layouts: Vec<&LayoutSum> = self.layouts.iter().collect();
        layouts.sort_by(|a, b| a.order(b));
        to.varint(layouts.len() as u64);
        for layout in layouts {
            to.u8(layout.schema as u8);
            to.float(layout.zero_threshold);
            to.u8(u8::from(layout.custom.is_some()));
            if let Some(bounds) = &layout.custom {
                to.varint(bounds.len() as u64);
                to.floats(bounds);
            }
            layout.zero.write(to);
            for side in [&layout.positive, &layout.negative] {
                to.varint(side.buckets.len() as u64);
                let mut next = 0i64;
                for (index, exact) in side.entries() {
                    to.signed(i64::from(index) - next);
                    next = i64::from(index) + 1;
                    exact.write(to);
                }
            }
        }
    }

    /// What [`ExactHistogram::write`] wrote.
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Failure> {
        let added = from.varint()?;
        let hints = from.u8()?;
        if added == 0 || hints == 0 || hints > 15 {
            return Err(from.damaged("a sum of no histograms"));
        }
        if added == 1 {
            let only = Some(Arc::new(from.histogram()?));
            return Ok(Self { added, hints, only, ..Self::default() });
        }
        let (count, sum) = (Exact::read(from)?, Exact::read(from)?);
        let n_layouts = from.count(13)?;
        let mut layouts: Vec<LayoutSum> = Vec::with_capacity(n_layouts);
        for _ in 0..n_layouts {
            let schema = from.u8()? as i8;
            let zero_threshold = from.float()?;
            let custom = if from.flag()? { Some(from.counted_floats(MAX_BUCKETS)?.into()) } else { None };
            let zero = Exact::read(from)?;
            let mut sides = [Side::default(), Side::default()];
            for side in &mut sides {
                let n_buckets = from.count(2)?;
                let mut all = BTreeMap::new();
                let mut next = 0i64;
                for _ in 0..n_buckets {
                    let index = next.saturating_add(from.signed()?);
                    let Ok(index) = i32::try_from(index) else {
                        return Err(from.damaged("a bucket's index beyond 32 bits"));
                    };
                    next = i64::from(index) + 1;
                    all.insert(index, Exact::read(from)?);
                }
                *side = Side::of(all);
            }
            let [positive, negative] = sides;
            layouts.push(LayoutSum { schema, zero_threshold, custom, zero, positive, negative });
        }
        Ok(Self { added, only: None, hints, count, sum, layouts })
    }
}
