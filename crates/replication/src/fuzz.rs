//! Entry points for the fuzz targets (`fuzz/targets`): codings of this crate that nobody else needs.

use bytes::Bytes;
use openraft::raft::VoteRequest;

use crate::coding::{Mark, decode_membership, encode_membership, log_id};
use crate::members::Member;
use crate::meta::Command;
use crate::talk::{Ask, Reply};
use crate::types::RaftVote;
use crate::wire::{Answer, Message};

/// What decodes has bytes that decode to what has the same bytes.
fn again<T>(data: &[u8], decode: impl Fn(&[u8]) -> Option<T>, encode: impl Fn(T) -> Vec<u8>) {
    let Some(value) = decode(data) else { return };
    let bytes = encode(value);
    let back = decode(&bytes).unwrap_or_else(|| panic!("what was encoded decodes: {bytes:02x?}"));
    assert_eq!(encode(back), bytes);
}

/// Reads `data` as each message and record; what decodes must encode to the same again. Panics on a defect.
pub fn messages(data: &[u8]) {
    let copy = |data: &[u8]| Bytes::copy_from_slice(data);
    again(data, |data| Message::decode(copy(data)).ok(), |message| message.encode().to_vec());
    again(data, |data| Answer::decode(copy(data)).ok(), |answer| answer.encode());
    again(data, Command::decode, |command| command.encode());
    again(data, decode_membership, |membership| encode_membership(&membership));
    again(data, Mark::decode, |mark| mark.encode());
    again(data, Member::decode, |member| member.encode());
    again(data, |data| Ask::decode(data).ok(), |ask| ask.encode());
    again(data, Reply::decode, |reply| reply.encode());
}

/// Some messages, to begin with: their names and bytes.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let vote = VoteRequest::new(RaftVote::new(3, 9), Some(log_id(2, 40)));
    let command = Command {
        expect: vec![(b"epoch".to_vec(), Some(vec![1])), (b"map".to_vec(), None)],
        writes: vec![storage::MetaWrite::Put { key: b"epoch".to_vec(), value: vec![2] }],
    };
    vec![
        ("vote", Message::Vote(vote).encode().to_vec()),
        ("command", command.encode()),
        ("mark", Mark::default().encode()),
        ("membership", encode_membership(&crate::types::Membership::default())),
    ]
}
