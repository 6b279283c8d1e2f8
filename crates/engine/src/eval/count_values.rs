//! `count_values`: how many series of a group have each value.

use model::LabelsBuilder;
use promql::quote::{quote, quote_bytes};

use super::Evaluator;
use super::aggregate::Grouping;
use crate::EvalError;
use crate::column::is_absent;
use crate::groups::{Groups, State};
use crate::histogram::to_text;
use crate::plan::{Group, Kind};

impl Evaluator<'_> {
    /// `count_values`: a group for each value in a group.
    pub(super) fn count_values(&self, group: &Group) -> Result<Groups, EvalError> {
        let invalid = |name: String| Err(EvalError::Execution(format!("invalid label name {name}")));
        let label = match group.param.as_ref().map(|p| &p.kind) {
            Some(Kind::Text(label)) if !label.is_empty() => label,
            Some(Kind::Text(label)) => return invalid(quote(label)),
            Some(Kind::Bytes(bytes)) => return invalid(quote_bytes(bytes)),
            _ => return Err(EvalError::Invalid("expected a label name in count_values".into())),
        };
        let mut names = group.labels.clone();
        if !group.without {
            names.push(label.clone());
        }
        let grouping = Grouping { labels: &names, without: group.without };
        let steps = self.steps();
        let mut groups = Groups::new(group.op, steps, &self.ctx.budget);
        let mut key = Vec::new();
        self.stream(&group.inner, &mut |column| {
            let labels = self.labels_of(column).into_owned();
            let mut builder = LabelsBuilder::from_labels(&labels);
            let mut known: Option<u64> = None;
            for step in 0..steps {
                let (text, bits) = match column.histogram(step) {
                    Some(h) => (to_text(h), None),
                    None if is_absent(column.floats[step]) => continue,
                    None => {
                        let bits = column.floats[step].to_bits();
                        if known == Some(bits) {
                            count(&mut groups, &key, step)?;
                            continue;
                        }
                        (model::number::format_float(column.floats[step]), Some(bits))
                    }
                };
                builder.set(label, &text);
                let with = builder.build().map_err(|e| EvalError::Execution(e.to_string()))?;
                grouping.key(&with, true, &mut key);
                count(&mut groups, &key, step)?;
                known = bits;
            }
            Ok(())
        })?;
        Ok(groups)
    }
}

/// Counts one more series in the group of `key` at `step`.
fn count(groups: &mut Groups, key: &[u8], step: usize) -> Result<(), EvalError> {
    if let State::Count(counts) = &mut groups.group(key)?.state {
        counts[step] += 1;
    }
    Ok(())
}
