//! What the meta state says of a node, and the text form of that record.
//!
//! A record is a few lines `key value`, as in the folder's NODE file: what a version does not know it keeps out of
//! its way. The address and what the node's flags say may change at any time; the rest is set when the node joins.

use std::collections::BTreeMap;

use model::NodeId;

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name, for people.
    pub name: String,
    /// Its zone, empty when none was given.
    pub zone: String,
    /// Where its peers reach it, `HOST:PORT`.
    pub address: String,
    /// Its replica of the meta group.
    pub meta_replica: u64,
    /// What its own flags say of the settings that must agree.
    pub own: BTreeMap<String, String>,
}

impl Member {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { name, zone, address, meta_replica, own } = self;
        let mut text = format!("name {name}\nzone {zone}\naddress {address}\nmeta-replica {meta_replica}\n");
        for (key, value) in own {
            text += &format!("own {key} {value}\n");
        }
        text.into_bytes()
    }

    /// Reads it back; `None` when it is damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Some(Self {
            name: value("name")?.to_owned(),
            zone: value("zone")?.to_owned(),
            address: value("address")?.to_owned(),
            meta_replica: value("meta-replica")?.parse().ok()?,
            own: text
                .lines()
                .filter_map(|line| line.strip_prefix("own ")?.split_once(' '))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        })
    }
}

/// A node as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) address: String,
    pub(crate) own: BTreeMap<String, String>,
}

impl Candidate {
    /// Its record once it is a member.
    pub(crate) fn into_member(self, meta_replica: u64) -> Member {
        let Self { node: _, name, zone, address, own } = self;
        Member { name, zone, address, meta_replica, own }
    }

    /// Whether what it says can stand in records.
    pub(crate) fn is_plain(&self) -> bool {
        let own = self.own.iter().flat_map(|(key, value)| [key, value]);
        [&self.name, &self.zone, &self.address].into_iter().chain(own).all(|text| is_plain(text))
    }
}

/// Whether `text` can stand in a record: names, zones and addresses come from flags and from peers.
fn is_plain(text: &str) -> bool {
    text.len() <= 255 && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let member = Member {
            name: "a b".into(),
            zone: String::new(),
            address: "[::1]:9095".into(),
            meta_replica: 7,
            own: BTreeMap::from([("retention".into(), "15d".into())]),
        };
        assert_eq!(Member::decode(&member.encode()), Some(member.clone()));
        let mut newer = member.encode();
        newer.extend_from_slice(b"weight 3\n");
        assert_eq!(Member::decode(&newer), Some(member));
        assert_eq!(Member::decode(b"name x\n"), None);
        assert_eq!(Member::decode(&[0xff]), None);
        assert!(is_plain("zone-1") && !is_plain("a\nb"));
    }
}
