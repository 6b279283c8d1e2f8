//! Figures of an index in memory for the status page.

use model::METRIC_NAME;

use super::MemIndex;

/// The largest of each kind, largest first, equal ones by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series by metric name.
    pub series_by_metric: Vec<(String, u64)>,
    /// Number of values by label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of the values by label name.
    pub memory_by_label: Vec<(String, u64)>,
    /// Series by `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

impl MemIndex {
    /// The `limit` largest of each kind (0 = all).
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        let mut figures = Cardinality::default();
        let mut metrics: Vec<(&str, u64)> = Vec::new();
        let mut pairs: Vec<((&str, &str), u64)> = Vec::with_capacity(self.label_pairs());
        let mut bytes = vec![0u64; self.names_in_use().map(|(n, _)| n as usize + 1).max().unwrap_or(0)];
        let name_of: Vec<Option<&str>> = {
            let mut texts = vec![None; bytes.len()];
            for (number, name) in self.names_in_use() {
                texts[number as usize] = Some(&*name.text);
            }
            texts
        };
        for pair in self.pairs_in_use() {
            let Some(name) = name_of.get(pair.name as usize).copied().flatten() else { continue };
            let series = pair.postings.len();
            bytes[pair.name as usize] += pair.value.len() as u64;
            pairs.push(((name, &pair.value), series));
            if name == METRIC_NAME {
                metrics.push((&pair.value, series));
            }
        }
        for (number, name) in self.names_in_use() {
            figures.values_by_label.push((name.text.to_string(), name.values() as u64));
            figures.memory_by_label.push((name.text.to_string(), bytes[number as usize]));
        }
        figures.series_by_metric =
            largest(metrics, limit).into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
        figures.series_by_pair = largest(pairs, limit)
            .into_iter()
            .map(|((name, value), n)| (format!("{name}={value}"), n))
            .collect();
        figures.values_by_label = largest(figures.values_by_label, limit);
        figures.memory_by_label = largest(figures.memory_by_label, limit);
        figures
    }
}

/// The `limit` largest (0 = all), in order.
fn largest<T: Ord>(mut all: Vec<(T, u64)>, limit: usize) -> Vec<(T, u64)> {
    let order = |a: &(T, u64), b: &(T, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
    if limit > 0 && limit < all.len() {
        all.select_nth_unstable_by(limit - 1, order);
        all.truncate(limit);
    }
    all.sort_unstable_by(order);
    all
}
