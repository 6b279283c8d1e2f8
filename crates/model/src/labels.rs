//! Label sets: immutable, sorted by name, unique, without empty values, in one compact allocation.
//!
//! The canonical bytes (per pair: varint length, name, varint length, value) are what is hashed, stored
//! and sent between nodes. Label names and values are UTF-8. What names are allowed is not decided here
//! but by `ingest`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Why bytes are not canonical label bytes, or labels do not form a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The bytes end inside a pair or hold an impossible length.
    #[error("label bytes are cut short at offset {0}")]
    Truncated(usize),
    /// A name or value is not UTF-8.
    #[error("label bytes are not valid UTF-8 at offset {0}")]
    NotUtf8(usize),
    /// The pairs are not in strictly ascending order of their names.
    #[error("labels are not sorted at label name {0:?}")]
    NotSorted(String),
    /// The same name appears twice.
    #[error("label name {0:?} appears twice")]
    Duplicate(String),
    /// A label name is empty.
    #[error("a label name is empty")]
    EmptyName,
}

/// A label set. Cloning is cheap (a reference count).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self(Arc::from(&[][..]))
    }

    /// The set of `pairs`, in any order; pairs with an empty value are left out. Fails on an empty or
    /// repeated name.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, LabelError> {
        let mut all: Vec<(N, V)> = pairs.into_iter().collect();
        all.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut bytes =
            Vec::with_capacity(all.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len() + 4).sum());
        let mut previous: Option<&str> = None;
        for (name, value) in &all {
            let (name, value) = (name.as_ref(), value.as_ref());
            if name.is_empty() {
                return Err(LabelError::EmptyName);
            }
            if previous == Some(name) {
                return Err(LabelError::Duplicate(name.to_owned()));
            }
            previous = Some(name);
            if !value.is_empty() {
                push_pair(&mut bytes, name, value);
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The set that `bytes` code, after checking that they are canonical.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, LabelError> {
        let mut at = 0;
        let mut previous: Option<&str> = None;
        while at < bytes.len() {
            let start = at;
            let name = take_str(bytes, &mut at)?;
            take_str(bytes, &mut at)?;
            match previous.map(|p| p.cmp(name)) {
                None | Some(Ordering::Less) => {}
                Some(Ordering::Equal) => return Err(LabelError::Duplicate(name.to_owned())),
                Some(Ordering::Greater) => return Err(LabelError::NotSorted(name.to_owned())),
            }
            if name.is_empty() {
                return Err(LabelError::EmptyName);
            }
            debug_assert!(at > start, "a pair has at least its two lengths");
            previous = Some(name);
        }
        Ok(Self(bytes.into()))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The pairs, in ascending order of their names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { bytes: &self.0, at: 0 }
    }

    /// The value of label `name`, or `None` when it is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A stable 128-bit hash (xxh3 of the canonical bytes), the same on every node and in every version.
    pub fn hash128(&self) -> u128 {
        xxh3_128(&self.0)
    }

    /// The set with only the labels that `keep` says yes to.
    pub fn filtered(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len());
        for (name, value) in self.iter() {
            if keep(name) {
                push_pair(&mut bytes, name, value);
            }
        }
        if bytes.len() == self.0.len() { self.clone() } else { Self(bytes.into()) }
    }

    /// The set without the label `name`.
    pub fn without(&self, name: &str) -> Self {
        self.filtered(|n| n != name)
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

/// Order by pairs (name, value) as Prometheus orders label sets (`labels.Compare`).
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;

    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// Iterator over the pairs of a label set.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        // The bytes were checked when the set was made.
        let name = take_str(self.bytes, &mut self.at).ok()?;
        let value = take_str(self.bytes, &mut self.at).ok()?;
        Some((name, value))
    }
}

/// Collects, replaces and removes labels, then makes a set of them. Reusable: [`LabelsBuilder::clear`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that starts from the labels of `base`.
    pub fn from_labels(base: &Labels) -> Self {
        Self { pairs: base.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Forgets all labels.
    pub fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Sets label `name`; an empty `value` removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.iter().position(|(n, _)| n == name) {
            Some(at) if value.is_empty() => {
                self.pairs.remove(at);
            }
            Some(at) => self.pairs[at].1 = value.to_owned(),
            None if value.is_empty() => {}
            None => self.pairs.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Adds a label without looking whether `name` is there already: a repeated name makes [`LabelsBuilder::build`]
    /// fail. For label sets from outside, which may have very many labels.
    pub fn push(&mut self, name: &str, value: &str) {
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    /// Removes label `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value of label `name` as set so far.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The pairs as set so far, in no particular order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// The set. Fails on an empty name.
    pub fn build(&self) -> Result<Labels, LabelError> {
        Labels::from_pairs(self.pairs())
    }
}

/// Appends one pair in canonical coding. The caller keeps the names sorted and the values not empty.
pub fn push_pair(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, value] {
        let mut rest = part.len();
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes.extend_from_slice(part.as_bytes());
    }
}

fn take_str<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a str, LabelError> {
    let start = *at;
    let mut len = 0usize;
    let mut shift = 0u32;
    loop {
        let byte = *bytes.get(*at).ok_or(LabelError::Truncated(start))?;
        *at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 28 {
            return Err(LabelError::Truncated(start));
        }
    }
    let end = at.checked_add(len).filter(|end| *end <= bytes.len()).ok_or(LabelError::Truncated(start))?;
    let text = std::str::from_utf8(&bytes[*at..end]).map_err(|_| LabelError::NotUtf8(start))?;
    *at = end;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_sorted_without_empty_values() {
        let labels = Labels::from_pairs([("job", "a"), ("__name__", "up"), ("zone", "")]).unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("__name__", "up"), ("job", "a")]);
        assert_eq!(labels.metric_name(), "up");
        assert_eq!(Labels::from_canonical(labels.as_bytes()).unwrap(), labels);
    }

    #[test]
    fn repeated_and_empty_names_and_bad_bytes_are_errors() {
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelError::Duplicate("a".into())));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(LabelError::EmptyName));
        assert_eq!(Labels::from_canonical(&[3, b'a']), Err(LabelError::Truncated(0)));
        assert_eq!(
            Labels::from_canonical(&[1, b'b', 1, b'x', 1, b'a', 1, b'x']),
            Err(LabelError::NotSorted("a".into()))
        );
        assert_eq!(Labels::from_canonical(&[1, 0xff, 0]), Err(LabelError::NotUtf8(0)));
    }

    #[test]
    fn builder_replaces_and_removes() {
        let mut builder = LabelsBuilder::from_labels(&Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap());
        builder.set("a", "9").remove("b").set("c", &"x".repeat(300));
        let labels = builder.build().unwrap();
        assert_eq!(labels.get("a"), Some("9"));
        assert_eq!(labels.get("b"), None);
        assert_eq!(labels.get("c").map(str::len), Some(300));
    }
}
