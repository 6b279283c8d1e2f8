//! Functions of labels: `label_replace`, `label_join`; the labels of `absent`.

use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::merge::is_name;
use super::sorting::text;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::Columns;
use crate::plan::Call;

/// The labels that a selector fixes with `=`, for `absent`: those named once, without the name.
pub(super) fn of_absent(matchers: &[Matcher]) -> Result<Labels, EvalError> {
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| !is_name(m.name())) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build().map_err(|e| EvalError::Execution(e.to_string()))
}

/// Replaces `$1`, `$name`, `${name}` and `$$` in a template, as Go's `Regexp.Expand` does.
fn expand(template: &str, captures: &regex::Captures<'_>, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some((name, after)) if !name.is_empty() && name.chars().all(is_word) => (name, after),
                _ => {
                    out.push('$');
                    continue;
                }
            },
            None => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                if end == 0 {
                    out.push('$');
                    continue;
                }
                rest.split_at(end)
            }
        };
        let found = match name.parse::<usize>() {
            Ok(number) => captures.get(number),
            Err(_) => captures.name(name),
        };
        out.push_str(found.map_or("", |m| m.as_str()));
        rest = after;
    }
    out.push_str(rest);
}

impl Evaluator<'_> {
    pub(super) fn label_replace(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [vector, rest @ ..] = call.args.as_slice() else { return missing(call) };
        let texts: Vec<&str> = rest.iter().filter_map(text).collect();
        let [to, replacement, from, pattern] = texts[..] else { return missing(call) };
        let Ok(regex) = model::regex::Regex::anchored(pattern) else {
            let text = format!("invalid regular expression in label_replace(): {pattern}");
            return Err(EvalError::Execution(text));
        };
        if to.is_empty() {
            return Err(EvalError::Execution(format!(
                "invalid destination label name in label_replace(): {to}"
            )));
        }
        let mut value = String::new();
        self.relabel(vector, sink, |labels| {
            let source = labels.get(from).unwrap_or("");
            let captures = regex.captures(source)?;
            value.clear();
            expand(replacement, &captures, &mut value);
            Some((to, value.clone()))
        })
    }

    pub(super) fn label_join(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), EvalError> {
        let [vector, rest @ ..] = call.args.as_slice() else { return missing(call) };
        let texts: Vec<&str> = rest.iter().filter_map(text).collect();
        let [to, separator, sources @ ..] = &texts[..] else { return missing(call) };
        if let Some(bad) = sources.iter().find(|name| name.is_empty()) {
            return Err(EvalError::Execution(format!("invalid source label name in label_join(): {bad}")));
        }
        if to.is_empty() {
            return Err(EvalError::Execution(format!(
                "invalid destination label name in label_join(): {to}"
            )));
        }
        self.relabel(vector, sink, |labels| {
            let values: Vec<&str> = sources.iter().map(|name| labels.get(name).unwrap_or("")).collect();
            Some((to, values.join(separator)))
        })
    }

    /// Sets the label that `change` gives for each column, then joins columns that became the same series.
    fn relabel<'t>(
        &self,
        vector: &crate::plan::Node,
        sink: &mut Sink<'_>,
        mut change: impl FnMut(&Labels) -> Option<(&'t str, String)>,
    ) -> Result<(), EvalError> {
        let mut all = Columns::new(&self.ctx.budget);
        self.stream(vector, &mut |column| {
            let labels = self.labels_of(column).into_owned();
            let mut column = std::mem::take(column);
            if !self.delayed() {
                column.drop_name = false;
            }
            if let Some((name, value)) = change(&labels) {
                let mut builder = LabelsBuilder::from_labels(&labels);
                builder.set(name, &value);
                column.labels = builder.build().map_err(|e| EvalError::Execution(e.to_string()))?;
                if name == model::METRIC_NAME {
                    column.drop_name = false;
                }
            } else {
                column.labels = labels;
            }
            Ok(all.push(column)?)
        })?;
        self.merge(all)?.list.iter_mut().try_for_each(sink)
    }
}

fn missing(call: &Call) -> Result<(), EvalError> {
    let bytes = call.args.iter().find_map(|arg| match &arg.kind {
        crate::plan::Kind::Bytes(bytes) => Some(promql::quote::quote_bytes(bytes)),
        _ => None,
    });
    if let Some(bytes) = bytes {
        return Err(EvalError::Execution(format!("invalid label name or value in {}(): {bytes}", call.name)));
    }
    Err(EvalError::Invalid(format!("expected string arguments in call to function {:?}", call.name)))
}
