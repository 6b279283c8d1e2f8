//! Bytes of what replication keeps in others' storage: memberships in log entries, marks in state machines; and the
//! numbers and texts that its other codings are made of.
//!
//! A mark is what openraft must know of a state machine: the last applied log id and the membership that holds.
//! Both begin with a version byte; the log and the database around them have the checksums.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Membership, Peer, RaftLogId, StoredMembership};

const VERSION: u8 = 1;

/// Appends numbers, texts and what is made of them.
#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// At most 4 GiB; what replication codes is small.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn log_id(&mut self, id: Option<&RaftLogId>) {
        self.0.push(u8::from(id.is_some()));
        self.number(id.map_or(0, term_of));
        self.number(id.map_or(0, RaftLogId::index));
    }

    fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.number(configs.len() as u64);
        for config in configs {
            self.number(config.len() as u64);
            for id in config {
                self.number(*id);
            }
        }
        let nodes: Vec<_> = membership.nodes().collect();
        self.number(nodes.len() as u64);
        for (id, peer) in nodes {
            self.number(*id);
            self.number(peer.node);
        }
    }
}

/// Takes numbers and texts off the front; `None` when they are not there.
#[derive(Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl<'a> In<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn log_id(&mut self) -> Option<Option<RaftLogId>> {
        let some = self.byte()? != 0;
        let (term, index) = (self.number()?, self.number()?);
        Some(some.then(|| log_id(term, index)))
    }

    fn membership(&mut self) -> Option<Membership> {
        let mut configs = Vec::new();
        for _ in 0..self.number()? {
            let mut config = BTreeSet::new();
            for _ in 0..self.number()? {
                config.insert(self.number()?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.number()? {
            nodes.insert(self.number()?, Peer { node: self.number()? });
        }
        if configs.is_empty() && nodes.is_empty() {
            return Some(Membership::default());
        }
        Membership::new(configs, nodes).ok()
    }
}

/// The term of a log id.
pub(crate) fn term_of(id: &RaftLogId) -> u64 {
    id.committed_leader_id().term
}

/// openraft's log id for a place.
pub(crate) fn log_id(term: u64, index: u64) -> RaftLogId {
    RaftLogId::new_term_index(term, index)
}

/// The bytes of a membership entry.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut out = Out(vec![VERSION]);
    out.membership(membership);
    out.0
}

/// Reads them back; `None` when they do not add up.
pub(crate) fn decode_membership(bytes: &[u8]) -> Option<Membership> {
    let mut bytes = In(bytes);
    if bytes.byte()? != VERSION {
        return None;
    }
    bytes.membership()
}

/// What a state machine stands at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last entry applied.
    pub(crate) last: Option<RaftLogId>,
    /// The last membership applied, with its place.
    pub(crate) membership: StoredMembership,
}

impl Mark {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        out.log_id(self.last.as_ref());
        out.log_id(self.membership.log_id().as_ref());
        out.membership(self.membership.membership());
        out.0
    }

    /// Reads it back; empty bytes are the mark of a machine that has applied nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let mut bytes = In(bytes);
        if bytes.byte()? != VERSION {
            return None;
        }
        let last = bytes.log_id()?;
        let at = bytes.log_id()?;
        Some(Self { last, membership: StoredMembership::new(at, bytes.membership()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_memberships_come_back() {
        let nodes: BTreeMap<u64, Peer> = (1..5).map(|id| (id, Peer { node: id * 10 })).collect();
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let membership = Membership::new(joint, nodes).unwrap();
        assert_eq!(decode_membership(&encode_membership(&membership)), Some(membership.clone()));
        let mark = Mark {
            last: Some(log_id(3, 17)),
            membership: StoredMembership::new(Some(log_id(2, 9)), membership),
        };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        assert_eq!(Mark::decode(&Mark::default().encode()), Some(Mark::default()));
        assert_eq!(Mark::decode(&[]), Some(Mark::default()));
        for cut in 1..bytes.len() {
            assert_eq!(Mark::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
