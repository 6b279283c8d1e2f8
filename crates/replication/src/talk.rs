//! What nodes ask each other about the cluster, and the bytes of it: forming, joining, commands for the meta group,
//! status, leadership. Who asks has passed the connection's handshake (name, secret, protocol version).

use std::collections::BTreeMap;

use model::{MatchOp, Matcher, NodeId, ShardId, TenantId, TimeRange};

use crate::coding::{In, Out};
use crate::compare::{Compared, Judged, Verdict};
use crate::folder::Agreement;
use crate::members::{Candidate, Member};
use crate::rest::Resting;

/// Version of these messages; nodes of other versions are told so.
pub(crate) const VERSION: u8 = 1;

/// How a node stands, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Empty,
    Forming { cluster_id: u64 },
    Member { cluster_id: u64 },
}

/// A node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) from: Candidate,
    pub(crate) stand: Stand,
    /// How many nodes it expects to form with.
    pub(crate) expect: u64,
    /// The empty nodes that it has had an answer from, itself included.
    pub(crate) view: Vec<NodeId>,
    /// Addresses at which it knows of nodes.
    pub(crate) known: Vec<String>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Who are you? This is who I am.
    Hello(Hello),
    /// Form a cluster with us.
    Agree(Agreement),
    /// Make me a member.
    Join(Candidate),
    /// Propose this command to the meta group, if you lead it.
    Command(Vec<u8>),
    /// What do you see of the cluster?
    Status,
    /// Hand the leadership of a shard over, if you lead it.
    Transfer { shard: ShardId, to: NodeId },
    /// Delete samples of a shard, if you lead it.
    Delete { shard: ShardId, what: Deletion },
    /// These groups, which I lead, rest: do you agree?
    Rest(Vec<Resting>),
    /// How do these replicas of yours stand?
    Compare(Vec<Compared>),
    /// This is what came of comparing these replicas of yours with others.
    Judge(Vec<Judged>),
    /// About how large are your replicas of these shards?
    Size(Vec<ShardId>),
}

/// Which samples go: those in a range of series that one of the selectors matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) tenant: TenantId,
    pub(crate) selectors: Vec<Vec<Matcher>>,
    pub(crate) range: TimeRange,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Hello(Hello),
    /// Agreed; transferred.
    Done,
    /// No, and why.
    Refused(String),
    /// You are a member now.
    Joined {
        cluster_id: u64,
        meta_replica: u64,
        members: BTreeMap<NodeId, Member>,
    },
    /// I do not lead; this one may.
    NotLeader(Option<NodeId>),
    /// The command was committed; whether its conditions held.
    Held(bool),
    /// See `status`.
    Status(Vec<u8>),
    /// The replicas of the groups that rest here too.
    Rests(Vec<u64>),
    /// Replicas that are there, with the hash of their state.
    Compared(Vec<(u64, u64)>),
    /// So many bytes.
    Size(u64),
}

impl Out {
    fn numbers(&mut self, numbers: &[u64]) {
        self.number(numbers.len() as u64);
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn candidate(&mut self, candidate: &Candidate) {
        self.number(candidate.node.0);
        for text in [&candidate.name, &candidate.zone, &candidate.address] {
            self.text(text);
        }
        self.number(candidate.own.len() as u64);
        for (key, value) in &candidate.own {
            self.text(key);
            self.text(value);
        }
    }

    fn members(&mut self, members: &BTreeMap<NodeId, Member>) {
        self.number(members.len() as u64);
        for (node, member) in members {
            self.number(node.0);
            self.bytes(&member.encode());
        }
    }

    fn deletion(&mut self, what: &Deletion) {
        self.text(what.tenant.as_str());
        self.number(what.range.after.cast_unsigned());
        self.number(what.range.until.cast_unsigned());
        self.number(what.selectors.len() as u64);
        for matchers in &what.selectors {
            self.number(matchers.len() as u64);
            for matcher in matchers {
                self.text(matcher.name());
                self.byte(match matcher.op() {
                    MatchOp::Equal => 0,
                    MatchOp::NotEqual => 1,
                    MatchOp::Regex => 2,
                    MatchOp::NotRegex => 3,
                });
                self.text(matcher.value());
            }
        }
    }

    fn hello(&mut self, hello: &Hello) {
        self.candidate(&hello.from);
        let (stand, cluster_id) = match hello.stand {
            Stand::Empty => (0, 0),
            Stand::Forming { cluster_id } => (1, cluster_id),
            Stand::Member { cluster_id } => (2, cluster_id),
        };
        self.byte(stand);
        self.number(cluster_id);
        self.number(hello.expect);
        self.number(hello.view.len() as u64);
        for node in &hello.view {
            self.number(node.0);
        }
        self.number(hello.known.len() as u64);
        for address in &hello.known {
            self.text(address);
        }
    }
}

impl In<'_> {
    fn numbers(&mut self) -> Option<Vec<u64>> {
        let mut numbers = Vec::new();
        for _ in 0..self.number()? {
            numbers.push(self.number()?);
        }
        Some(numbers)
    }

    fn candidate(&mut self) -> Option<Candidate> {
        let node = NodeId(self.number()?);
        let (name, zone, address) = (self.text()?, self.text()?, self.text()?);
        let mut own = BTreeMap::new();
        for _ in 0..self.number()? {
            own.insert(self.text()?, self.text()?);
        }
        Some(Candidate { node, name, zone, address, own })
    }

    fn members(&mut self) -> Option<BTreeMap<NodeId, Member>> {
        let mut members = BTreeMap::new();
        for _ in 0..self.number()? {
            members.insert(NodeId(self.number()?), Member::decode(self.bytes()?)?);
        }
        Some(members)
    }

    fn hello(&mut self) -> Option<Hello> {
        let from = self.candidate()?;
        let (stand, cluster_id) = (self.byte()?, self.number()?);
        let stand = match stand {
            0 => Stand::Empty,
            1 => Stand::Forming { cluster_id },
            2 => Stand::Member { cluster_id },
            _ => return None,
        };
        let expect = self.number()?;
        let mut view = Vec::new();
        for _ in 0..self.number()? {
            view.push(NodeId(self.number()?));
        }
        let mut known = Vec::new();
        for _ in 0..self.number()? {
            known.push(self.text()?);
        }
        Some(Hello { from, stand, expect, view, known })
    }

    fn shard(&mut self) -> Option<ShardId> {
        u32::try_from(self.number()?).ok().map(ShardId)
    }

    fn deletion(&mut self) -> Option<Deletion> {
        let tenant = TenantId::new(&self.text()?).ok()?;
        let (after, until) = (self.number()?.cast_signed(), self.number()?.cast_signed());
        let mut selectors = Vec::new();
        for _ in 0..self.number()? {
            let mut matchers = Vec::new();
            for _ in 0..self.number()? {
                let name = self.text()?;
                let op = match self.byte()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return None,
                };
                matchers.push(Matcher::new(&name, op, &self.text()?).ok()?);
            }
            selectors.push(matchers);
        }
        Some(Deletion { tenant, selectors, range: TimeRange { after, until } })
    }

    fn node(&mut self) -> Option<Option<NodeId>> {
        let node = self.number()?;
        Some((node != 0).then_some(NodeId(node)))
    }
}

impl Ask {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        match self {
            Self::Hello(hello) => {
                out.byte(1);
                out.hello(hello);
            }
            Self::Agree(agreement) => {
                out.byte(2);
                out.number(agreement.cluster_id);
                out.number(agreement.initiator.0);
                out.members(&agreement.founders);
            }
            Self::Join(candidate) => {
                out.byte(3);
                out.candidate(candidate);
            }
            Self::Command(bytes) => {
                out.byte(4);
                out.bytes(bytes);
            }
            Self::Status => out.byte(5),
            Self::Transfer { shard, to } => {
                out.byte(6);
                out.number(u64::from(shard.0));
                out.number(to.0);
            }
            Self::Delete { shard, what } => {
                out.byte(7);
                out.number(u64::from(shard.0));
                out.deletion(what);
            }
            Self::Rest(groups) => {
                out.byte(8);
                out.number(groups.len() as u64);
                for Resting { replica, term, last } in groups {
                    out.number(*replica);
                    out.number(*term);
                    out.number(*last);
                }
            }
            Self::Compare(replicas) => {
                out.byte(9);
                out.number(replicas.len() as u64);
                for Compared { replica, index } in replicas {
                    out.number(*replica);
                    out.number(*index);
                }
            }
            Self::Size(shards) => {
                out.byte(11);
                out.numbers(&shards.iter().map(|shard| u64::from(shard.0)).collect::<Vec<_>>());
            }
            Self::Judge(replicas) => {
                out.byte(10);
                out.number(replicas.len() as u64);
                for Judged { replica, index, verdict } in replicas {
                    out.number(*replica);
                    out.number(*index);
                    match verdict {
                        Verdict::Alike => out.byte(0),
                        Verdict::Undecided => out.byte(1),
                        Verdict::Majority { hash, healthy } => {
                            out.byte(2);
                            out.number(*hash);
                            out.numbers(healthy);
                        }
                    }
                }
            }
        }
        out.0
    }

    /// Reads it back; fails with a reason for the one who asked.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut input = In(bytes);
        match input.byte() {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!(
                    "cluster messages of version {other} are not known, this node knows {VERSION}"
                ));
            }
            None => return Err("an empty cluster message".to_owned()),
        }
        let mut read = || {
            let ask = match input.byte()? {
                1 => Self::Hello(input.hello()?),
                2 => {
                    let (cluster_id, initiator) = (input.number()?, NodeId(input.number()?));
                    Self::Agree(Agreement { cluster_id, initiator, founders: input.members()? })
                }
                3 => Self::Join(input.candidate()?),
                4 => Self::Command(input.bytes()?.to_vec()),
                5 => Self::Status,
                6 => Self::Transfer { shard: input.shard()?, to: NodeId(input.number()?) },
                7 => Self::Delete { shard: input.shard()?, what: input.deletion()? },
                8 => {
                    let mut groups = Vec::new();
                    for _ in 0..input.number()? {
                        let (replica, term, last) = (input.number()?, input.number()?, input.number()?);
                        groups.push(Resting { replica, term, last });
                    }
                    Self::Rest(groups)
                }
                9 => {
                    let mut replicas = Vec::new();
                    for _ in 0..input.number()? {
                        replicas.push(Compared { replica: input.number()?, index: input.number()? });
                    }
                    Self::Compare(replicas)
                }
                10 => {
                    let mut replicas = Vec::new();
                    for _ in 0..input.number()? {
                        let (replica, index) = (input.number()?, input.number()?);
                        let verdict = match input.byte()? {
                            0 => Verdict::Alike,
                            1 => Verdict::Undecided,
                            2 => Verdict::Majority { hash: input.number()?, healthy: input.numbers()? },
                            _ => return None,
                        };
                        replicas.push(Judged { replica, index, verdict });
                    }
                    Self::Judge(replicas)
                }
                11 => {
                    let shards = input.numbers()?.into_iter().map(|shard| u32::try_from(shard).ok());
                    Self::Size(shards.map(|shard| shard.map(ShardId)).collect::<Option<_>>()?)
                }
                _ => return None,
            };
            input.end()?;
            Some(ask)
        };
        read().ok_or_else(|| "a cluster message that does not decode".to_owned())
    }
}

impl Reply {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        match self {
            Self::Hello(hello) => {
                out.byte(1);
                out.hello(hello);
            }
            Self::Done => out.byte(2),
            Self::Refused(reason) => {
                out.byte(3);
                out.text(reason);
            }
            Self::Joined { cluster_id, meta_replica, members } => {
                out.byte(4);
                out.number(*cluster_id);
                out.number(*meta_replica);
                out.members(members);
            }
            Self::NotLeader(node) => {
                out.byte(5);
                out.number(node.map_or(0, |node| node.0));
            }
            Self::Held(held) => {
                out.byte(6);
                out.byte(u8::from(*held));
            }
            Self::Status(bytes) => {
                out.byte(7);
                out.bytes(bytes);
            }
            Self::Rests(replicas) => {
                out.byte(8);
                out.numbers(replicas);
            }
            Self::Compared(hashes) => {
                out.byte(9);
                out.number(hashes.len() as u64);
                for (replica, hash) in hashes {
                    out.number(*replica);
                    out.number(*hash);
                }
            }
            Self::Size(bytes) => {
                out.byte(10);
                out.number(*bytes);
            }
        }
        out.0
    }

    /// Reads it back.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = In(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let reply = match input.byte()? {
            1 => Self::Hello(input.hello()?),
            2 => Self::Done,
            3 => Self::Refused(input.text()?),
            4 => Self::Joined {
                cluster_id: input.number()?,
                meta_replica: input.number()?,
                members: input.members()?,
            },
            5 => Self::NotLeader(input.node()?),
            6 => Self::Held(input.byte()? != 0),
            7 => Self::Status(input.bytes()?.to_vec()),
            8 => Self::Rests(input.numbers()?),
            9 => {
                let mut hashes = Vec::new();
                for _ in 0..input.number()? {
                    hashes.push((input.number()?, input.number()?));
                }
                Self::Compared(hashes)
            }
            10 => Self::Size(input.number()?),
            _ => return None,
        };
        input.end()?;
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        let own = BTreeMap::from([("retention".into(), "15d".into())]);
        Candidate { node: NodeId(9), name: "a".into(), zone: "z".into(), address: "h:1".into(), own }
    }

    fn hello() -> Hello {
        Hello {
            from: candidate(),
            stand: Stand::Forming { cluster_id: 5 },
            expect: 3,
            view: vec![NodeId(9), NodeId(10)],
            known: vec!["h:2".into()],
        }
    }

    #[test]
    fn messages_come_back_and_cut_ones_do_not() {
        let member = candidate().into_member(1);
        let members = BTreeMap::from([(NodeId(9), member)]);
        let asks = [
            Ask::Hello(hello()),
            Ask::Agree(Agreement { cluster_id: 5, initiator: NodeId(9), founders: members.clone() }),
            Ask::Join(candidate()),
            Ask::Command(vec![1, 2]),
            Ask::Status,
            Ask::Transfer { shard: ShardId(3), to: NodeId(9) },
            Ask::Delete {
                shard: ShardId(3),
                what: Deletion {
                    tenant: TenantId::anonymous(),
                    selectors: vec![vec![
                        Matcher::new("a", MatchOp::Regex, "b.*").unwrap(),
                        Matcher::new("c", MatchOp::NotEqual, "").unwrap(),
                    ]],
                    range: TimeRange { after: -5, until: i64::MAX },
                },
            },
            Ask::Rest(vec![Resting { replica: 300, term: 2, last: 70_000 }]),
            Ask::Compare(vec![Compared { replica: 300, index: 2 }]),
            Ask::Size(vec![ShardId(300), ShardId(1)]),
            Ask::Judge(vec![
                Judged { replica: 300, index: 2, verdict: Verdict::Alike },
                Judged { replica: 3, index: 2, verdict: Verdict::Undecided },
                Judged {
                    replica: 1,
                    index: 2,
                    verdict: Verdict::Majority { hash: u64::MAX, healthy: vec![2, 3] },
                },
            ]),
        ];
        for ask in asks {
            let bytes = ask.encode();
            assert_eq!(Ask::decode(&bytes), Ok(ask));
            for cut in 0..bytes.len() {
                assert!(Ask::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        let replies = [
            Reply::Hello(hello()),
            Reply::Done,
            Reply::Refused("no".into()),
            Reply::Joined { cluster_id: 1, meta_replica: 2, members },
            Reply::NotLeader(None),
            Reply::NotLeader(Some(NodeId(4))),
            Reply::Held(true),
            Reply::Status(vec![9]),
            Reply::Rests(vec![300]),
            Reply::Compared(vec![(300, u64::MAX), (1, 2)]),
            Reply::Size(1 << 40),
        ];
        for reply in replies {
            let bytes = reply.encode();
            assert_eq!(Reply::decode(&bytes), Some(reply));
            for cut in 0..bytes.len() {
                assert_eq!(Reply::decode(&bytes[..cut]), None, "cut at {cut}");
            }
        }
        assert!(Ask::decode(&[9, 1]).unwrap_err().contains("version 9"));
    }
}
