//! The settings that must agree in a cluster: one versioned document in the meta state.
//!
//! Flags and file seed it when the cluster is formed; later it changes by command only. What a node's own flags say
//! differently is drift: shown, and without effect.

use std::collections::BTreeMap;
use std::fmt;

use crate::ReplicationError;

/// The settings document: text lines `key value`, the version first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Counts changes, from 1.
    pub version: u64,
    /// Values by key; keys are [`KEYS`].
    pub values: BTreeMap<String, String>,
}

/// The keys that there are, with whether an operator may change them once the cluster runs.
pub const KEYS: [(&str, bool); 3] = [("replication-factor", true), ("retention", true), ("shards", false)];

/// Why a change of settings is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such key.
    #[error("there is no setting {0:?}; there are: replication-factor, retention, shards")]
    Unknown(String),
    /// It cannot change any more.
    #[error("setting {0} is fixed when the cluster is formed")]
    Fixed(String),
    /// The value has no meaning.
    #[error("setting {key}: {value:?} is not {expected}")]
    Bad {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

impl ClusterSettings {
    /// How many replicas a shard should have; 1 where nothing is said.
    pub fn replication_factor(&self) -> usize {
        self.values.get("replication-factor").and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    /// How long samples are kept, ms (0 = for ever); `None` where nothing is said.
    pub fn retention_ms(&self) -> Option<i64> {
        self.values.get("retention").and_then(|text| model::time::parse_duration(text).ok())
    }

    /// The document with `changes` made, one version on.
    pub fn changed(&self, changes: &[(String, String)]) -> Result<Self, SettingError> {
        let mut new = self.clone();
        new.version += 1;
        for (key, value) in changes {
            let Some((_, free)) = KEYS.iter().find(|(known, _)| known == key) else {
                return Err(SettingError::Unknown(key.clone()));
            };
            if !free && self.values.get(key).is_some_and(|now| now != value) {
                return Err(SettingError::Fixed(key.clone()));
            }
            let bad = |expected| SettingError::Bad { key: key.clone(), value: value.clone(), expected };
            match key.as_str() {
                "replication-factor" => {
                    let factor: usize = value.parse().map_err(|_| bad("a number of copies"))?;
                    if !matches!(factor, 1 | 3 | 5) {
                        return Err(bad(
                            "1, 3 or 5: an even number of copies survives no more than one fewer",
                        ));
                    }
                    if factor < self.replication_factor() {
                        return Err(bad("at least as large as it was: taking copies away is not there yet"));
                    }
                }
                "retention" => {
                    model::time::parse_duration(value).map_err(|_| bad("a duration such as 15d"))?;
                }
                _ => {}
            }
            new.values.insert(key.clone(), value.clone());
        }
        Ok(new)
    }

    /// The changes that all members' own flags ask for, given that `changed` keys of one of them changed just now: a
    /// new value takes effect when the last node was restarted with it. What nobody's flags changed stays.
    pub(crate) fn asked_by_all(
        &self,
        own: &[&BTreeMap<String, String>],
        changed: &[String],
    ) -> Vec<(String, String)> {
        let mut asked = Vec::new();
        for key in changed {
            let mut values = own.iter().map(|own| own.get(key));
            let Some(Some(first)) = values.next() else { continue };
            if self.values.get(key) != Some(first) && values.all(|value| value == Some(first)) {
                asked.push((key.clone(), first.clone()));
            }
        }
        asked
    }

    /// Keys of `own` whose values differ from the cluster's: (key, own value, the cluster's value).
    pub fn drift(&self, own: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
        let differs = own.iter().filter_map(|(key, mine)| {
            let theirs = self.values.get(key)?;
            (mine != theirs).then(|| (key.clone(), mine.clone(), theirs.clone()))
        });
        differs.collect()
    }

    /// Reads the document; fails when it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ReplicationError> {
        let damaged = || ReplicationError::Meta("the settings document does not decode".to_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
        let mut settings = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(damaged)?;
            if key == "version" {
                settings.version = value.parse().map_err(|_| damaged())?;
            } else {
                settings.values.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(settings)
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for ClusterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version {}", self.version)?;
        for (key, value) in &self.values {
            writeln!(f, "{key} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded() -> ClusterSettings {
        let values = [("replication-factor", "1"), ("shards", "8"), ("retention", "15d")];
        let values = values.map(|(key, value)| (key.to_owned(), value.to_owned()));
        ClusterSettings { version: 1, values: values.into() }
    }

    fn change(key: &str, value: &str) -> Result<ClusterSettings, SettingError> {
        seeded().changed(&[(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn changes_are_checked_and_counted() {
        let grown = change("replication-factor", "3").unwrap();
        assert_eq!((grown.version, grown.replication_factor()), (2, 3));
        assert!(matches!(
            grown.changed(&[("replication-factor".into(), "1".into())]),
            Err(SettingError::Bad { .. })
        ));
        assert!(matches!(change("replication-factor", "2"), Err(SettingError::Bad { .. })));
        assert!(matches!(change("retention", "soon"), Err(SettingError::Bad { .. })));
        assert_eq!(change("shards", "9"), Err(SettingError::Fixed("shards".into())));
        assert_eq!(change("colour", "red"), Err(SettingError::Unknown("colour".into())));
    }

    #[test]
    fn documents_come_back_and_drift_is_seen() {
        let settings = seeded();
        assert_eq!(ClusterSettings::decode(&settings.encode()).unwrap(), settings);
        assert!(ClusterSettings::decode(b"nonsense").is_err());
        assert_eq!(settings.retention_ms(), Some(15 * 86_400_000));
        let own = BTreeMap::from([("retention".to_owned(), "30d".to_owned()), ("shards".into(), "8".into())]);
        assert_eq!(settings.drift(&own), [("retention".to_owned(), "30d".to_owned(), "15d".to_owned())]);
    }

    #[test]
    fn flags_change_a_setting_once_all_nodes_have_them() {
        let with = |value: &str| BTreeMap::from([("retention".to_owned(), value.to_owned())]);
        let (old, new) = (with("15d"), with("30d"));
        let changed = ["retention".to_owned()];
        let settings = seeded();
        assert_eq!(settings.asked_by_all(&[&new, &old, &new], &changed), []);
        assert_eq!(settings.asked_by_all(&[&new, &new], &changed), [("retention".into(), "30d".into())]);
        assert_eq!(settings.asked_by_all(&[&new, &new], &[]), []);
        assert_eq!(settings.asked_by_all(&[&old, &old], &changed), []);
    }
}
