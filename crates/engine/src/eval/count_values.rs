//! `count_values`: how many series of a group have each value.

use hashbrown::HashMap;
use model::{Labels, LabelsBuilder};
use promql::quote::{quote, quote_bytes};

use super::aggregate::Grouping;
use super::{Evaluator, Sink};
use crate::EvalError;
use crate::column::{ABSENT, Charge, Column, is_absent};
use crate::histogram::to_text;
use crate::plan::{Group, Kind};

impl Evaluator<'_> {
    /// `count_values`: a series for each value in a group.
    pub(super) fn count_values(&self, group: &Group, sink: &mut Sink<'_>) -> Result<(), EvalError> {
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
        let mut charge = Charge::new(&self.ctx.budget);
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut all: Vec<(Labels, Vec<u32>)> = Vec::new();
        let mut key = Vec::new();
        self.stream(&group.inner, &mut |column| {
            let labels = self.labels_of(column).into_owned();
            let mut builder = LabelsBuilder::from_labels(&labels);
            let mut known: Option<(u64, usize)> = None;
            for step in 0..steps {
                let (text, bits) = match column.histogram(step) {
                    Some(h) => (to_text(h), None),
                    None if is_absent(column.floats[step]) => continue,
                    None => {
                        let bits = column.floats[step].to_bits();
                        if let Some((_, at)) = known.filter(|(seen, _)| *seen == bits) {
                            all[at].1[step] += 1;
                            continue;
                        }
                        (model::number::format_float(column.floats[step]), Some(bits))
                    }
                };
                builder.set(label, &text);
                let with = builder.build().map_err(|e| EvalError::Execution(e.to_string()))?;
                grouping.key(&with, true, &mut key);
                let at = match places.get(&key) {
                    Some(at) => *at,
                    None => {
                        charge.take(4 * steps as u64 + 2 * key.len() as u64)?;
                        places.insert(key.clone(), all.len());
                        let labels =
                            Labels::from_canonical(&key).map_err(|e| EvalError::Invalid(e.to_string()))?;
                        all.push((labels, vec![0; steps]));
                        all.len() - 1
                    }
                };
                all[at].1[step] += 1;
                known = bits.map(|bits| (bits, at));
            }
            Ok(())
        })?;
        for (labels, counts) in all {
            let floats = counts.iter().map(|n| if *n == 0 { ABSENT } else { f64::from(*n) }).collect();
            sink(&mut Column { labels, floats, ..Column::default() })?;
        }
        Ok(())
    }
}
