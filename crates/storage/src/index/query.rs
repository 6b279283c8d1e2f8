//! Matchers, label names and label values, the same over an index in memory and a sealed one.
//!
//! Semantics are those of Prometheus (`tsdb/querier.go`, `PostingsForMatchers`): series that satisfy every matcher,
//! where an absent label is the empty string.

use std::borrow::Cow;

use hashbrown::{HashMap, HashSet};
use model::{MatchOp, Matcher};
use roaring::RoaringBitmap;

use super::IndexError;
use super::postings::{Ids, Union};

/// Is given a value and how to get its postings; says whether to go on.
pub(super) type EachValue<'a, 'i> =
    dyn FnMut(&str, &dyn Fn() -> Result<Ids<'i>, IndexError>) -> Result<bool, IndexError> + 'a;

/// Is given a series and the numbers of its names and values, in the order of the names; says whether to go on.
pub(super) type EachPairs<'a> = dyn FnMut(u32, &[(u32, u32)]) -> Result<bool, IndexError> + 'a;

/// What the look-ups here need of an index. Names and values have numbers, whose meaning is the index's own.
pub(super) trait View {
    /// What a look at a series' pairs costs, next to testing a value and adding its postings to a union.
    const PAIRS_COST: u64;
    /// All series.
    fn series(&self) -> &RoaringBitmap;
    /// The number of a label name that some series has.
    fn name(&self, name: &str) -> Result<Option<u32>, IndexError>;
    /// All names, ascending.
    fn visit_names(&self, each: &mut dyn FnMut(u32, &str)) -> Result<(), IndexError>;
    /// How many values a name has.
    fn values(&self, name: u32) -> Result<usize, IndexError>;
    /// The series with that pair.
    fn find(&self, name: u32, value: &str) -> Result<Option<Ids<'_>>, IndexError>;
    /// The values of a name that start with `prefix`, ascending.
    fn visit_values<'s>(
        &'s self,
        name: u32,
        prefix: &str,
        each: &mut EachValue<'_, 's>,
    ) -> Result<(), IndexError>;
    /// The text of a value that [`Self::visit_pairs`] gave.
    fn value(&self, name: u32, value: u32) -> Result<Cow<'_, str>, IndexError>;
    /// The pairs of each series `within` that exists, ascending.
    fn visit_pairs(&self, within: &RoaringBitmap, each: &mut EachPairs<'_>) -> Result<(), IndexError>;
}

/// A bound on the values that the expression of a matcher (not its negation) matches.
enum Narrow<'m> {
    /// Exactly the one of an equality.
    One,
    /// Exactly these.
    Set(&'m [String]),
    /// Only values that start so.
    Prefix(&'m str),
    /// Every value, and the empty string.
    Anything,
}

fn narrow(matcher: &Matcher) -> Narrow<'_> {
    match matcher.regex() {
        None => Narrow::One,
        Some(regex) if regex.matches_all() => Narrow::Anything,
        Some(regex) => match regex.set_matches() {
            Some(set) => Narrow::Set(set),
            None => Narrow::Prefix(regex.literal_prefix()),
        },
    }
}

/// The series that satisfy all matchers.
pub(super) fn select<V: View>(view: &V, matchers: &[Matcher]) -> Result<RoaringBitmap, IndexError> {
    let mut equal: Vec<Ids<'_>> = Vec::new();
    let mut wanted: Vec<(&Matcher, u32)> = Vec::new();
    let mut unwanted: Vec<(&Matcher, u32)> = Vec::new();
    for matcher in matchers {
        let empty = matcher.matches_empty();
        let Some(name) = view.name(matcher.name())? else {
            if empty {
                continue;
            }
            return Ok(RoaringBitmap::new());
        };
        if empty {
            unwanted.push((matcher, name));
        } else if matcher.op() == MatchOp::Equal {
            let Some(ids) = view.find(name, matcher.value())? else { return Ok(RoaringBitmap::new()) };
            equal.push(ids);
        } else {
            wanted.push((matcher, name));
        }
    }

    equal.sort_by_key(Ids::len);
    let mut equal = equal.into_iter();
    let mut result: Option<RoaringBitmap> = match (equal.next(), equal.next()) {
        (Some(Ids::Many(a)), Some(Ids::Many(b))) => Some(&*a & &*b),
        (Some(a), Some(b)) => Some(b.intersect(&a.into_bitmap())),
        (Some(a), None) => Some(a.into_bitmap()),
        (None, _) => None,
    };
    for ids in equal {
        result = result.map(|set| ids.intersect(&set));
    }
    for (matcher, name) in wanted {
        result = Some(match result {
            Some(set) if set.is_empty() => return Ok(set),
            Some(set) if filter_is_cheaper(view, &set, matcher, name)? => filter(view, &set, matcher, name)?,
            Some(set) => set & with_value(view, matcher, name, true)?,
            None => with_value(view, matcher, name, true)?,
        });
    }
    let mut result = result.unwrap_or_else(|| view.series().clone());
    for (matcher, name) in unwanted {
        if result.is_empty() {
            break;
        }
        if matcher.op() == MatchOp::NotEqual {
            if let Some(ids) = view.find(name, matcher.value())? {
                ids.subtract_from(&mut result);
            }
        } else if matches!(narrow(matcher), Narrow::Anything) {
            // `=~".*"`: nothing to take away.
        } else if filter_is_cheaper(view, &result, matcher, name)? {
            result = filter(view, &result, matcher, name)?;
        } else {
            result -= with_value(view, matcher, name, false)?;
        }
    }
    Ok(result)
}

fn filter_is_cheaper<V: View>(
    view: &V,
    set: &RoaringBitmap,
    matcher: &Matcher,
    name: u32,
) -> Result<bool, IndexError> {
    let values = match narrow(matcher) {
        Narrow::One => 1,
        Narrow::Set(values) => values.len(),
        Narrow::Anything | Narrow::Prefix(_) => view.values(name)?,
    };
    Ok(set.len() * V::PAIRS_COST < values as u64)
}

/// What of `set` satisfies the matcher, series by series.
fn filter<V: View>(
    view: &V,
    set: &RoaringBitmap,
    matcher: &Matcher,
    name: u32,
) -> Result<RoaringBitmap, IndexError> {
    let mut verdicts: HashMap<u32, bool> = HashMap::new();
    let empty = matcher.matches_empty();
    let mut result = Vec::new();
    view.visit_pairs(set, &mut |ordinal, pairs| {
        let verdict = match pairs.iter().find(|(n, _)| *n == name) {
            None => empty,
            Some((_, value)) => match verdicts.get(value) {
                Some(verdict) => *verdict,
                None => {
                    let verdict = matcher.matches(&view.value(name, *value)?);
                    verdicts.insert(*value, verdict);
                    verdict
                }
            },
        };
        if verdict {
            result.push(ordinal);
        }
        Ok(true)
    })?;
    Ok(result.into_iter().collect())
}

/// The series that have a value that the matcher says `verdict` to.
fn with_value<V: View>(
    view: &V,
    matcher: &Matcher,
    name: u32,
    verdict: bool,
) -> Result<RoaringBitmap, IndexError> {
    let mut union = Union::default();
    let negated = matches!(matcher.op(), MatchOp::NotEqual | MatchOp::NotRegex);
    // The values that the expression itself matches are the wanted ones.
    let direct = negated != verdict;
    let (prefix, every) = match narrow(matcher) {
        Narrow::Set(values) if direct => {
            for value in values {
                if let Some(ids) = view.find(name, value)? {
                    union.add(&ids);
                }
            }
            return Ok(union.finish());
        }
        Narrow::Prefix(prefix) if direct => (prefix, false),
        Narrow::Anything if direct => ("", true),
        Narrow::One | Narrow::Set(_) | Narrow::Prefix(_) | Narrow::Anything => ("", false),
    };
    view.visit_values(name, prefix, &mut |value, ids| {
        if every || matcher.matches(value) == verdict {
            union.add(&ids()?);
        }
        Ok(true)
    })?;
    Ok(union.finish())
}

/// Names of the labels of the series `within`.
pub(super) fn label_names<V: View>(
    view: &V,
    within: Option<&RoaringBitmap>,
) -> Result<Vec<String>, IndexError> {
    let mut names: Vec<(u32, String)> = Vec::new();
    view.visit_names(&mut |number, name| names.push((number, name.to_owned())))?;
    if let Some(within) = within {
        let mut found: HashSet<u32> = HashSet::new();
        if within.len() <= 1024 {
            view.visit_pairs(within, &mut |_, pairs| {
                found.extend(pairs.iter().map(|(name, _)| *name));
                Ok(true)
            })?;
        } else {
            for (number, _) in &names {
                view.visit_values(*number, "", &mut |_, ids| {
                    let apart = ids()?.is_disjoint(within);
                    if !apart {
                        found.insert(*number);
                    }
                    Ok(apart)
                })?;
            }
        }
        names.retain(|(number, _)| found.contains(number));
    }
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Values of label `name` of the series `within`.
pub(super) fn label_values<V: View>(
    view: &V,
    name: &str,
    within: Option<&RoaringBitmap>,
) -> Result<Vec<String>, IndexError> {
    let Some(name) = view.name(name)? else { return Ok(Vec::new()) };
    let n_values = view.values(name)?;
    let mut values = Vec::new();
    match within {
        None => {
            values.reserve(n_values);
            view.visit_values(name, "", &mut |value, _| {
                values.push(value.to_owned());
                Ok(true)
            })?;
        }
        Some(within) if within.len() * V::PAIRS_COST < n_values as u64 => {
            let mut found: HashSet<u32> = HashSet::new();
            view.visit_pairs(within, &mut |_, pairs| {
                found.extend(pairs.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value));
                Ok(true)
            })?;
            for value in found {
                values.push(view.value(name, value)?.into_owned());
            }
            values.sort_unstable();
        }
        Some(within) => {
            view.visit_values(name, "", &mut |value, ids| {
                if !ids()?.is_disjoint(within) {
                    values.push(value.to_owned());
                }
                Ok(true)
            })?;
        }
    }
    Ok(values)
}
