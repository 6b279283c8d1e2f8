//! A partial: what one place, or several joined, gives for the parts of a query; and its bytes.
//!
//! Joining is commutative and associative, and so are the bytes: whatever the order and the grouping of the places,
//! the joined partial is written alike. Rounding and all that needs the whole come later ([`super::Plan::finish`]).
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this coding |
//! | 1, text | 1 and an error of evaluation; else 0 |
//! | varint, varint | samples read, most bytes in use at a time |
//! | list | samples of each step of the query: all, new ones; empty where nobody asked |
//! | list | for each part: series, columns or groups, sorted by labels; then annotations |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::seam::{QueryBudget, SeriesData};
use model::{Code, Failure, Labels};

use super::fragment::CODING_VERSION;
use super::source::Moved;
use super::{Part, PartKind, operator};
use crate::EvalError;
use crate::annotations::Annotations;
use crate::coding::{Reader, Writer};
use crate::column::{Charge, Column, Columns, histogram_bytes};
use crate::eval::{Found, FoundParts};
use crate::groups::{Accumulator, Groups, State};
use crate::histogram::ExactHistogram;
use crate::label_set::compare;
use crate::sum::{Exact, ExactSums};

/// What a place gives for one part.
#[derive(Debug)]
pub(super) enum Answered {
    /// Raw series, each with the order of the place that it came from.
    Series(Vec<(u32, SeriesData)>, Charge),
    /// What the evaluation at the root takes.
    Found(Found),
}

/// What one or several places give for the parts of a query.
#[derive(Debug)]
pub struct Partial {
    answers: Vec<(Answered, Annotations)>,
    error: Option<String>,
    samples: u64,
    peak_bytes: u64,
    /// Of the place that evaluated it; a place that answers others has a budget of its own.
    steps: Vec<(u64, u64)>,
    moved: (u64, u64),
}

/// Bytes that a series holds.
pub(super) fn series_bytes(data: &SeriesData) -> u64 {
    let histograms: usize = data.histograms.iter().map(|(_, h)| histogram_bytes(h)).sum();
    (data.labels.as_bytes().len()
        + 16 * data.stamps.len()
        + 8 * data.starts.len()
        + size_of::<SeriesData>()
        + histograms) as u64
}

impl Partial {
    pub(super) fn empty() -> Self {
        Self { answers: Vec::new(), error: None, samples: 0, peak_bytes: 0, steps: Vec::new(), moved: (0, 0) }
    }

    pub(super) fn push(&mut self, answer: Answered, notes: Annotations) {
        self.answers.push((answer, notes));
    }

    pub(super) fn fail(&mut self, error: String) {
        self.answers.clear();
        self.error = Some(error);
    }

    pub(super) fn count(&mut self, samples: u64, peak_bytes: u64) {
        self.samples = samples;
        self.peak_bytes = peak_bytes;
    }

    pub(super) fn count_steps(&mut self, steps: Vec<(u64, u64)>) {
        self.steps = steps;
    }

    /// All and new samples of each step of the query that the place saw; empty where nobody asked.
    pub fn steps(&self) -> &[(u64, u64)] {
        &self.steps
    }

    /// What places without series give.
    pub(super) fn nothing(parts: &[Part], budget: &Arc<QueryBudget>) -> Self {
        let mut partial = Self::empty();
        for part in parts {
            let answer = match part.kind {
                PartKind::Series => Answered::Series(Vec::new(), Charge::new(budget)),
                PartKind::Columns => Answered::Found(Found::Columns(Columns::new(budget))),
                PartKind::Groups => match part.text.open().ok().as_ref().map(operator) {
                    Some(Ok(op)) => Answered::Found(Found::Groups(Groups::new(op, part.grid.count, budget))),
                    _ => Answered::Found(Found::Columns(Columns::new(budget))),
                },
            };
            partial.push(answer, Annotations::default());
        }
        partial
    }

    /// An error of evaluation that a place found. The query is to be planned again with [`super::Push::Nothing`].
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Samples read.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The most bytes that were in use at a time in one place.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    /// How many raw series came in bytes, and how many bytes they took.
    pub fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// Joins the partial of another place, for the same parts.
    ///
    /// # Errors
    /// When the memory does not suffice, or the two are of different parts.
    pub fn absorb(&mut self, other: Self) -> Result<(), EvalError> {
        self.samples += other.samples;
        self.moved = (self.moved.0 + other.moved.0, self.moved.1 + other.moved.1);
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
        let errors = [self.error.take(), other.error];
        self.error = errors.into_iter().flatten().min();
        if self.error.is_some() {
            self.answers.clear();
            return Ok(());
        }
        if self.answers.len() != other.answers.len() {
            return Err(mismatch());
        }
        for ((answer, notes), (more, more_notes)) in self.answers.iter_mut().zip(other.answers) {
            notes.merge(more_notes);
            match (answer, more) {
                (Answered::Series(all, charge), Answered::Series(mut series, more_charge)) => {
                    all.append(&mut series);
                    charge.join(more_charge);
                }
                (Answered::Found(Found::Columns(all)), Answered::Found(Found::Columns(more))) => {
                    all.append(more);
                }
                (Answered::Found(Found::Groups(all)), Answered::Found(Found::Groups(more))) => {
                    if all.op != more.op || all.steps != more.steps {
                        return Err(mismatch());
                    }
                    all.absorb(more)?;
                }
                _ => return Err(mismatch()),
            }
        }
        Ok(())
    }

    /// What the evaluation at the root takes: for each part what was found, and the moved series as a source.
    pub(super) fn open(self, parts: &[Part]) -> Result<(FoundParts, Moved), EvalError> {
        if self.error.is_some() || self.answers.len() != parts.len() {
            return Err(mismatch());
        }
        let mut moved = Moved::default();
        let mut found = Vec::with_capacity(parts.len());
        for (part, (answer, notes)) in parts.iter().zip(self.answers) {
            found.push(match answer {
                Answered::Series(series, charge) => {
                    moved.add(part, series, charge)?;
                    None
                }
                Answered::Found(found) => Some((found, notes)),
            });
        }
        Ok((RefCell::new(found), moved))
    }

    /// Its bytes; equal partials, however they were joined, give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(CODING_VERSION);
        to.u8(u8::from(self.error.is_some()));
        if let Some(error) = &self.error {
            to.text(error);
        }
        to.varint(self.samples);
        to.varint(self.peak_bytes);
        to.varint(self.steps.len() as u64);
        for (all, new) in &self.steps {
            to.varint(*all);
            to.varint(*new);
        }
        for (answer, notes) in &self.answers {
            match answer {
                Answered::Series(series, _) => write_series(series, &mut to),
                Answered::Found(Found::Columns(columns)) => write_columns(&columns.list, &mut to),
                Answered::Found(Found::Groups(groups)) => write_groups(groups, &mut to),
            }
            notes.write(&mut to);
        }
        to.bytes
    }

    /// The partial of `bytes`, which answers `parts`. The memory that it needs is taken from `budget` before it is
    /// allocated, and the samples that it counts are counted there.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the bytes are no partial of these parts; [`Code::TooMany`] when the budget is used up.
    pub fn decode(bytes: &[u8], parts: &[Part], budget: &Arc<QueryBudget>) -> Result<Self, Failure> {
        let mut from = Reader::new(bytes);
        let version = from.u8()?;
        if version != CODING_VERSION {
            return Err(Failure::new(
                Code::Unimplemented,
                format!("partial of version {version}, this node knows {CODING_VERSION}"),
            ));
        }
        let error = if from.flag()? { Some(from.text()?) } else { None };
        let (samples, peak_bytes) = (from.varint()?, from.varint()?);
        let mut partial = Self { answers: Vec::new(), error, samples, peak_bytes, ..Self::empty() };
        budget.count_samples(samples);
        for _ in 0..from.count(2)? {
            partial.steps.push((from.varint()?, from.varint()?));
        }
        if partial.error.is_none() {
            for part in parts {
                budget.check()?;
                let answer = match part.kind {
                    PartKind::Series => {
                        let before = from.left();
                        let (series, charge) = read_series(&mut from, budget)?;
                        partial.moved.0 += series.len() as u64;
                        partial.moved.1 += (before - from.left()) as u64;
                        Answered::Series(series, charge)
                    }
                    PartKind::Columns => {
                        Answered::Found(Found::Columns(read_columns(&mut from, part.grid.count, budget)?))
                    }
                    PartKind::Groups => {
                        let node = part.text.open().map_err(|e| from.damaged(&e))?;
                        let groups = Groups::new(operator(&node)?, part.grid.count, budget);
                        Answered::Found(Found::Groups(read_groups(&mut from, groups)?))
                    }
                };
                let notes = Annotations::read(&mut from)?;
                partial.answers.push((answer, notes));
            }
        }
        from.end()?;
        Ok(partial)
    }
}

fn mismatch() -> EvalError {
    EvalError::Source(Failure::new(Code::Internal, "partials of different queries were joined"))
}

/// Makes sure that `bytes` fit before they are allocated.
fn fits(budget: &QueryBudget, bytes: u64) -> Result<(), Failure> {
    let fits = budget.charge(bytes);
    budget.release(bytes);
    fits
}

fn write_series(series: &[(u32, SeriesData)], to: &mut Writer) {
    let mut sorted: Vec<&(u32, SeriesData)> = series.iter().collect();
    sorted.sort_by(|a, b| compare(&a.1.labels, &b.1.labels).then(a.0.cmp(&b.0)));
    to.varint(sorted.len() as u64);
    let mut previous = Labels::empty();
    for (order, data) in sorted {
        to.labels(&data.labels, &previous);
        previous = data.labels.clone();
        to.varint((*order).into());
        to.varint(data.stamps.len() as u64);
        let (mut last, mut last_delta) = (0i64, 0i64);
        for stamp in &data.stamps {
            let delta = stamp.wrapping_sub(last);
            to.signed(delta.wrapping_sub(last_delta));
            (last, last_delta) = (*stamp, delta);
        }
        to.floats(&data.values);
        to.varint(data.histograms.len() as u64);
        let mut next = 0;
        for (at, h) in &data.histograms {
            to.varint(u64::from(*at - next));
            next = at + 1;
            to.histogram(h);
        }
        to.u8(u8::from(!data.starts.is_empty()));
        let mut last = 0i64;
        for start in &data.starts {
            to.signed(start.wrapping_sub(last));
            last = *start;
        }
    }
}

/// Series with the orders of their places, and the memory that they take.
type Charged = (Vec<(u32, SeriesData)>, Charge);

fn read_series(from: &mut Reader<'_>, budget: &Arc<QueryBudget>) -> Result<Charged, Failure> {
    let mut charge = Charge::new(budget);
    let n_series = from.count(5)?;
    let mut all = Vec::with_capacity(n_series);
    let mut labels = Labels::empty();
    for _ in 0..n_series {
        labels = from.labels(&labels)?;
        let order = u32::try_from(from.varint()?).map_err(|_| from.damaged("an impossible order"))?;
        let count = from.count(1)?;
        let mut data = SeriesData { labels: labels.clone(), ..SeriesData::default() };
        fits(budget, 16 * count as u64)?;
        data.stamps.reserve_exact(count);
        let (mut last, mut delta) = (0i64, 0i64);
        for at in 0..count {
            delta = delta.wrapping_add(from.signed()?);
            if at > 0 && (delta <= 0 || last.checked_add(delta).is_none()) {
                return Err(from.damaged("timestamps do not ascend"));
            }
            last = last.wrapping_add(delta);
            data.stamps.push(last);
        }
        data.values = from.floats(count)?;
        let n_histograms = from.count(5)?;
        let mut next = 0u64;
        for _ in 0..n_histograms {
            let at = next.saturating_add(from.varint()?);
            if at >= count as u64 {
                return Err(from.damaged("a histogram without a timestamp"));
            }
            next = at + 1;
            data.histograms.push((at as u32, Arc::new(from.histogram()?)));
        }
        if from.flag()? {
            let mut last = 0i64;
            for _ in 0..count {
                last = last.wrapping_add(from.signed()?);
                data.starts.push(last);
            }
        }
        charge.take(series_bytes(&data))?;
        all.push((order, data));
    }
    Ok((all, charge))
}

fn write_columns(columns: &[Column], to: &mut Writer) {
    let mut sorted: Vec<&Column> = columns.iter().collect();
    sorted.sort_by(|a, b| {
        compare(&a.labels, &b.labels).then_with(|| a.drop_name.cmp(&b.drop_name)).then_with(|| {
            let bits = |c: &Column| c.floats.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            bits(a).cmp(&bits(b))
        })
    });
    to.varint(sorted.len() as u64);
    let mut previous = Labels::empty();
    for column in sorted {
        to.labels(&column.labels, &previous);
        previous = column.labels.clone();
        let histograms = column.histograms.iter().flatten().count();
        to.u8(u8::from(column.drop_name) | u8::from(histograms > 0) << 1);
        to.floats(&column.floats);
        if histograms == 0 {
            continue;
        }
        to.varint(histograms as u64);
        let mut next = 0;
        let mut before: Option<&Arc<model::Histogram>> = None;
        for (step, h) in column.histograms.iter().enumerate() {
            let Some(h) = h else { continue };
            to.varint((step - next) as u64);
            next = step + 1;
            let same = before.is_some_and(|before| Arc::ptr_eq(before, h) || before.same_bits(h));
            to.u8(u8::from(same));
            if !same {
                to.histogram(h);
            }
            before = Some(h);
        }
    }
}

fn read_columns(from: &mut Reader<'_>, steps: usize, budget: &Arc<QueryBudget>) -> Result<Columns, Failure> {
    let mut columns = Columns::new(budget);
    let count = from.count(3)?;
    let mut labels = Labels::empty();
    for _ in 0..count {
        labels = from.labels(&labels)?;
        let flags = from.u8()?;
        if flags > 3 {
            return Err(from.damaged("a column of an unknown kind"));
        }
        fits(budget, 16 * steps as u64)?;
        let mut column = Column {
            labels: labels.clone(),
            drop_name: flags & 1 != 0,
            floats: from.floats(steps)?,
            histograms: Vec::new(),
        };
        if flags & 2 != 0 {
            let n_histograms = from.count(2)?;
            let mut next = 0u64;
            let mut before: Option<Arc<model::Histogram>> = None;
            for _ in 0..n_histograms {
                let step = next.saturating_add(from.varint()?);
                if step >= steps as u64 {
                    return Err(from.damaged("a histogram beyond the last step"));
                }
                next = step + 1;
                let h = match (from.flag()?, before.take()) {
                    (true, Some(same)) => same,
                    (true, None) => return Err(from.damaged("a histogram equal to none")),
                    (false, _) => Arc::new(from.histogram()?),
                };
                column.put_histogram(step as usize, Arc::clone(&h));
                before = Some(h);
            }
        }
        columns.push(column)?;
    }
    Ok(columns)
}

fn write_groups(groups: &Groups, to: &mut Writer) {
    let mut sorted: Vec<&Accumulator> = groups.all.iter().collect();
    sorted.sort_by(|a, b| compare(&a.labels, &b.labels));
    to.varint(sorted.len() as u64);
    let mut previous = Labels::empty();
    for group in sorted {
        to.labels(&group.labels, &previous);
        previous = group.labels.clone();
        let [exponential, custom] = &group.names;
        to.u8(u8::from(group.drop_name)
            | u8::from(exponential.is_some()) << 1
            | u8::from(custom.is_some()) << 2);
        group.names.iter().flatten().for_each(|name| to.text(name));
        write_state(&group.state, to);
        to.varint(group.histograms.len() as u64);
        let mut next = 0;
        for (step, sum) in &group.histograms {
            to.varint((step - next) as u64);
            next = step + 1;
            sum.write(to);
        }
    }
}

fn read_groups(from: &mut Reader<'_>, mut groups: Groups) -> Result<Groups, Failure> {
    let steps = groups.steps;
    let count = from.count(3)?;
    let mut labels = Labels::empty();
    for _ in 0..count {
        labels = from.labels(&labels)?;
        let flags = from.u8()?;
        if flags > 7 {
            return Err(from.damaged("a group of an unknown kind"));
        }
        let name = |from: &mut Reader<'_>, bit: u8| {
            if flags & bit == 0 { Ok(None) } else { from.text().map(Some) }
        };
        let names = [name(from, 2)?, name(from, 4)?];
        let group = groups.group(labels.as_bytes()).map_err(Failure::from)?;
        group.drop_name = flags & 1 != 0;
        group.names = names;
        read_state(&mut group.state, steps, from)?;
        let n_histograms = from.count(3)?;
        let mut next = 0u64;
        let mut histograms = BTreeMap::new();
        let mut bytes = 0;
        for _ in 0..n_histograms {
            let step = next.saturating_add(from.varint()?);
            if step >= steps as u64 {
                return Err(from.damaged("a histogram beyond the last step"));
            }
            next = step + 1;
            let sum = ExactHistogram::read(from)?;
            bytes += sum.bytes();
            histograms.insert(step as usize, sum);
        }
        group.histograms = histograms;
        groups.take(bytes)?;
    }
    Ok(groups)
}

fn write_counts(count: &[u32], to: &mut Writer) {
    to.floats(&count.iter().map(|n| f64::from(*n)).collect::<Vec<_>>());
}

fn read_counts(count: &mut [u32], from: &mut Reader<'_>) -> Result<(), Failure> {
    let values = from.floats(count.len())?;
    for (n, value) in count.iter_mut().zip(values) {
        if value.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&value) {
            return Err(from.damaged("a count that is none"));
        }
        *n = value as u32;
    }
    Ok(())
}

fn write_sums(sums: &ExactSums, count: &[u32], to: &mut Writer) {
    (0..count.len()).filter(|step| count[*step] > 0).for_each(|step| sums.at(step).write(to));
}

fn read_sums(sums: &mut ExactSums, count: &[u32], from: &mut Reader<'_>) -> Result<(), Failure> {
    for step in (0..count.len()).filter(|step| count[*step] > 0) {
        sums.absorb(step, &Exact::read(from)?);
    }
    Ok(())
}

fn write_state(state: &State, to: &mut Writer) {
    match state {
        State::Sum { sums, count } => {
            write_counts(count, to);
            write_sums(sums, count, to);
        }
        State::Extreme(best) => to.floats(best),
        State::Count(count) => write_counts(count, to),
        State::Moments { sums, squares, count } => {
            write_counts(count, to);
            write_sums(sums, count, to);
            write_sums(squares, count, to);
        }
        State::Values(values) => {
            for values in values {
                let mut sorted = values.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                to.varint(sorted.len() as u64);
                to.floats(&sorted);
            }
        }
    }
}

fn read_state(state: &mut State, steps: usize, from: &mut Reader<'_>) -> Result<(), Failure> {
    match state {
        State::Sum { sums, count } => {
            read_counts(count, from)?;
            read_sums(sums, count, from)
        }
        State::Extreme(best) => {
            *best = from.floats(steps)?;
            Ok(())
        }
        State::Count(count) => read_counts(count, from),
        State::Moments { sums, squares, count } => {
            read_counts(count, from)?;
            read_sums(sums, count, from)?;
            read_sums(squares, count, from)
        }
        State::Values(values) => {
            for values in values {
                *values = from.counted_floats(crate::coding::MAX_BUCKETS)?;
            }
            Ok(())
        }
    }
}
