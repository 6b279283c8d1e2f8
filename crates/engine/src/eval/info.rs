//! `info(v, {selector})`: adds labels of info series (by default of `target_info`) to series of the same target.

use hashbrown::HashMap;
use model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher, TimeRange};

use super::merge::is_name;
use super::{Evaluator, Sink, times};
use crate::EvalError;
use crate::column::{Column, Columns};
use crate::label_set::compare;
use crate::label_set::labels_text;
use crate::plan::{Call, Kind, Node, Reference, Shift};

/// The labels that say which target a series belongs to.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// An info series: its labels, and the time of the sample seen at each step.
struct Info {
    labels: Labels,
    seen: Vec<Option<i64>>,
}

/// The data labels that the selector names, without the name.
struct Wanted {
    matchers: Vec<Matcher>,
}

impl Wanted {
    fn names(&self, label: &str) -> bool {
        self.matchers.is_empty() || self.matchers.iter().any(|m| m.name() == label)
    }

    fn need_none(&self) -> bool {
        self.matchers.iter().all(Matcher::matches_empty)
    }
}

/// What selects info series by name: as given; with only negative matchers, all that end in `_info` among the rest;
/// `target_info` when nothing is said.
fn name_matchers(given: Vec<Matcher>) -> Result<Vec<Matcher>, EvalError> {
    if given.iter().any(|m| matches!(m.op(), MatchOp::Equal | MatchOp::Regex)) {
        return Ok(given);
    }
    if given.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, "target_info")]);
    }
    let any = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info")
        .map_err(|e| EvalError::Execution(e.to_string()))?;
    Ok([vec![any], given].concat())
}

/// The matchers of the info series' names, and those of their other labels.
fn split_matchers(call: &Call) -> Result<(Vec<Matcher>, Vec<Matcher>), EvalError> {
    let given: &[Matcher] = match call.args.get(1).map(|arg| &arg.kind) {
        Some(Kind::Select(select)) => &select.matchers,
        _ => &[],
    };
    let (named, data): (Vec<Matcher>, Vec<Matcher>) =
        given.iter().cloned().partition(|m| m.name() == METRIC_NAME);
    Ok((name_matchers(named)?, data))
}

/// The matchers of all info series that a call of `info` may look at, whatever its targets.
pub(crate) fn info_matchers(call: &Call) -> Result<Vec<Matcher>, EvalError> {
    let (named, data) = split_matchers(call)?;
    Ok([named, data].concat())
}

/// When the info series of a call of `info` are looked at.
pub(crate) fn info_shift(call: &Call) -> Shift {
    match call.args.first().map(Node::reference) {
        Some(Reference::Fixed(time)) => Shift { at: Some(time), offset: 0 },
        Some(Reference::Before(offset)) => Shift { at: None, offset },
        _ => Shift { at: None, offset: 0 },
    }
}

/// The identifying labels of a series, in order.
fn target(labels: &Labels) -> [String; 2] {
    IDENTIFYING.map(|name| labels.get(name).unwrap_or("").to_owned())
}

impl Evaluator<'_> {
    pub(super) fn info(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [base, ..] = call.args.as_slice() else {
            return Err(EvalError::Invalid("expected an argument in call to function \"info\"".into()));
        };
        let shift = info_shift(call);
        let (named, data) = split_matchers(call)?;
        let wanted = Wanted { matchers: data };
        let mut columns = self.vector(base)?;
        columns.list.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        // Info series themselves are not enriched.
        let is_info = |c: &Column| {
            let labels = self.labels_of(c);
            named.iter().all(|m| m.matches(labels.metric_name()))
        };
        let targets: Vec<[String; 2]> =
            columns.list.iter().filter(|c| !is_info(c)).map(|c| target(&self.labels_of(c))).collect();
        let infos = self.info_series(&targets, &named, &wanted, shift)?;
        let mut by_target: HashMap<[String; 2], Vec<usize>> = HashMap::new();
        for (at, info) in infos.iter().enumerate() {
            by_target.entry(target(&info.labels)).or_default().push(at);
        }
        let mut out = Columns::new(&self.ctx.budget);
        for column in &columns.list {
            self.ctx.budget.check()?;
            if is_info(column) {
                out.push(column.clone())?;
                continue;
            }
            let candidates = by_target.get(&target(&self.labels_of(column))).map_or(&[][..], Vec::as_slice);
            self.enrich(column, candidates, &infos, &wanted, &mut out)?;
        }
        self.merge(out)?.list.iter_mut().try_for_each(sink)
    }

    /// The info series of the given targets.
    fn info_series(
        &self,
        targets: &[[String; 2]],
        named: &[Matcher],
        wanted: &Wanted,
        shift: Shift,
    ) -> Result<Vec<Info>, EvalError> {
        if targets.iter().flatten().all(String::is_empty) {
            return Ok(Vec::new());
        }
        let mut matchers = named.to_vec();
        for (at, name) in IDENTIFYING.iter().enumerate() {
            let mut values: Vec<&str> = targets.iter().map(|t| t[at].as_str()).collect();
            values.sort_unstable();
            values.dedup();
            // A long list costs more than it saves: series of other targets are left out below anyway.
            if values.len() == 1 {
                matchers.push(Matcher::equal(*name, values[0]));
            } else if values.len() <= 200 {
                let quoted: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
                let any = Matcher::new(*name, MatchOp::Regex, quoted.join("|"));
                matchers.push(any.map_err(|e| EvalError::Execution(e.to_string()))?);
            }
        }
        matchers.extend(wanted.matchers.iter().cloned());
        let lookback = self.ctx.lookback_ms;
        let range = TimeRange {
            after: shift.apply(self.grid.start).saturating_sub(lookback),
            until: shift.apply(self.grid.end()),
        };
        let mut infos = Vec::new();
        self.read(&matchers, range, &mut |data| {
            let mut seen = vec![None; self.steps()];
            let mut next = 0;
            for (step, time) in times(self.grid).enumerate() {
                let time = shift.apply(time);
                while next < data.stamps.len() && data.stamps[next] <= time {
                    next += 1;
                }
                let Some(at) =
                    next.checked_sub(1).filter(|at| data.stamps[*at] > time.saturating_sub(lookback))
                else {
                    continue;
                };
                if let Some((_, h)) = data.histograms.iter().find(|(position, _)| *position as usize == at) {
                    if !h.is_stale() {
                        let text = labels_text(&data.labels);
                        return Err(EvalError::Execution(format!(
                            "this should be an info metric, with float samples: {text}"
                        )));
                    }
                } else if !model::is_stale(data.values[at]) {
                    seen[step] = Some(data.stamps[at]);
                }
            }
            if let Some(counts) = self.step_counts() {
                for (step, _) in seen.iter().enumerate().filter(|(_, stamp)| stamp.is_some()) {
                    counts.add(step, 1, 1);
                }
            }
            if seen.iter().any(Option::is_some) {
                infos.push(Info { labels: data.labels.clone(), seen });
            }
            Ok(())
        })?;
        infos.sort_unstable_by(|a, b| compare(&a.labels, &b.labels));
        Ok(infos)
    }

    /// Adds to `out` what becomes of one series.
    fn enrich(
        &self,
        column: &Column,
        candidates: &[usize],
        infos: &[Info],
        wanted: &Wanted,
        out: &mut Columns,
    ) -> Result<(), EvalError> {
        let base = self.labels_of(column).into_owned();
        let mut made: Vec<(Vec<usize>, Column)> = Vec::new();
        for step in 0..self.steps() {
            let Some(cell) = column.cell(step) else { continue };
            let chosen = choose(candidates, infos, step)?;
            if chosen.is_empty() && !wanted.need_none() {
                continue;
            }
            let at = match made.iter().position(|(with, _)| *with == chosen) {
                Some(at) => at,
                None => {
                    let labels = combine(&base, &chosen, infos, wanted)?;
                    let empty =
                        Column { drop_name: column.drop_name, ..Column::absent(labels, self.steps()) };
                    made.push((chosen, empty));
                    made.len() - 1
                }
            };
            made[at].1.put(step, cell);
        }
        for (_, column) in made {
            out.push(column)?;
        }
        Ok(())
    }
}

/// The info series that count at a step: of each metric the one with the newest sample.
fn choose(candidates: &[usize], infos: &[Info], step: usize) -> Result<Vec<usize>, EvalError> {
    let mut chosen: Vec<usize> = Vec::new();
    for at in candidates {
        let Some(time) = infos[*at].seen[step] else { continue };
        let name = infos[*at].labels.metric_name();
        let Some(slot) = chosen.iter_mut().find(|other| infos[**other].labels.metric_name() == name) else {
            chosen.push(*at);
            continue;
        };
        let before = infos[*slot].seen[step].unwrap_or(i64::MIN);
        match before.cmp(&time) {
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Less => *slot = *at,
            std::cmp::Ordering::Equal => {
                return Err(EvalError::Execution(format!(
                    "found duplicate series for info metric: existing {} @ {before}, new {} @ {time}",
                    labels_text(&infos[*slot].labels),
                    labels_text(&infos[*at].labels),
                )));
            }
        }
    }
    Ok(chosen)
}

/// The labels of `base` with the wanted ones of the chosen info series.
fn combine(base: &Labels, chosen: &[usize], infos: &[Info], wanted: &Wanted) -> Result<Labels, EvalError> {
    let mut added = LabelsBuilder::new();
    for at in chosen {
        for (name, value) in infos[*at].labels.iter().filter(|(name, _)| !is_name(name) && wanted.names(name))
        {
            if added.get(name).is_some_and(|other| other != value) {
                return Err(EvalError::Execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_none() {
                added.set(name, value);
            }
        }
    }
    let mut builder = LabelsBuilder::from_labels(base);
    for (name, value) in added.pairs() {
        builder.set(name, value);
    }
    builder.build().map_err(|e| EvalError::Execution(e.to_string()))
}
