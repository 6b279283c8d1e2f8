//! What became of a batch ⇄ bytes: a report, or why nothing was committed.

use std::collections::BTreeMap;

use model::seam::{Counts, RejectReason, ShardReport, ShardWriteError};
use model::{Epoch, NodeId, SeriesRef};

use super::coding::{ABSENT, In, Malformed, Out};
use super::status;

const VERSION: u8 = 1;

const REPORT: u8 = 0;
const UNKNOWN_REFS: u8 = 1;
const WRONG_OWNER: u8 = 2;
const NOT_LEADER: u8 = 3;
const FAILED: u8 = 4;

const REASONS: [RejectReason; 12] = [
    RejectReason::InvalidLabels,
    RejectReason::LabelLimit,
    RejectReason::SeriesLimit,
    RejectReason::TooOld,
    RejectReason::TooFarAhead,
    RejectReason::DuplicateTimestamp,
    RejectReason::OutOfOrder,
    RejectReason::InvalidHistogram,
    RejectReason::Fenced,
    RejectReason::OutOfOrderExemplar,
    RejectReason::ExemplarWithoutSeries,
    RejectReason::ExemplarLabels,
];

/// The answer to a batch.
pub type WriteAnswer = Result<ShardReport, ShardWriteError>;

/// The bytes of `answer`.
pub fn encode(answer: &WriteAnswer) -> Vec<u8> {
    let mut out = Out(vec![VERSION]);
    match answer {
        Ok(report) => {
            out.byte(REPORT);
            put_report(&mut out, report);
        }
        Err(ShardWriteError::NotLeader { leader }) => {
            out.byte(NOT_LEADER);
            out.fixed(leader.map_or(0, |node| node.0));
        }
        Err(ShardWriteError::UnknownRefs) => out.byte(UNKNOWN_REFS),
        Err(ShardWriteError::WrongOwner { epoch }) => {
            out.byte(WRONG_OWNER);
            out.varint(epoch.0);
        }
        Err(ShardWriteError::Failed(failure)) => {
            out.byte(FAILED);
            out.bytes(&status::encode(failure));
        }
    }
    out.0
}

/// Reads [`encode`]'s bytes back.
pub fn decode(bytes: &[u8]) -> Result<WriteAnswer, Malformed> {
    let mut bytes = In(bytes);
    bytes.version(VERSION)?;
    let answer = match bytes.byte()? {
        REPORT => Ok(take_report(&mut bytes)?),
        NOT_LEADER => {
            let leader = bytes.fixed()?;
            Err(ShardWriteError::NotLeader { leader: (leader != 0).then_some(NodeId(leader)) })
        }
        UNKNOWN_REFS => Err(ShardWriteError::UnknownRefs),
        WRONG_OWNER => Err(ShardWriteError::WrongOwner { epoch: Epoch(bytes.varint()?) }),
        FAILED => Err(ShardWriteError::Failed(status::decode(bytes.bytes()?)?)),
        _ => return Err(Malformed("an unknown answer to a batch")),
    };
    bytes.end()?;
    Ok(answer)
}

fn put_report(out: &mut Out, report: &ShardReport) {
    out.varint(report.incarnation);
    out.varint(report.refs.len() as u64);
    let mut before = 0;
    for reference in &report.refs {
        match reference {
            Some(SeriesRef(reference)) => out.reference(&mut before, *reference),
            None => out.byte(ABSENT),
        }
    }
    let Counts { samples, histograms, exemplars } = report.written;
    for number in [samples, histograms, exemplars] {
        out.varint(number);
    }
    out.varint(report.rejections.len() as u64);
    for (series, timestamp, reason) in &report.rejections {
        out.varint((*series).into());
        out.zigzag(*timestamp);
        out.byte(number_of(*reason));
    }
    out.varint(report.rejected.len() as u64);
    for (reason, count) in &report.rejected {
        out.byte(number_of(*reason));
        out.varint(*count);
    }
}

fn take_report(bytes: &mut In<'_>) -> Result<ShardReport, Malformed> {
    let incarnation = bytes.varint()?;
    let count = bytes.count(1)?;
    let mut refs = Vec::with_capacity(count);
    let mut before = 0;
    for _ in 0..count {
        refs.push(bytes.reference(&mut before)?.map(SeriesRef));
    }
    let written =
        Counts { samples: bytes.varint()?, histograms: bytes.varint()?, exemplars: bytes.varint()? };
    let mut rejections = Vec::new();
    for _ in 0..bytes.count(3)? {
        rejections.push((bytes.small()?, bytes.zigzag()?, reason_of(bytes.byte()?)?));
    }
    let mut rejected = BTreeMap::new();
    for _ in 0..bytes.count(2)? {
        let reason = reason_of(bytes.byte()?)?;
        rejected.insert(reason, bytes.varint()?);
    }
    Ok(ShardReport { incarnation, refs, written, rejections, rejected })
}

fn number_of(reason: RejectReason) -> u8 {
    // Every reason stands in the table: a test goes through all of them by name.
    REASONS.iter().position(|known| *known == reason).unwrap_or(REASONS.len()) as u8
}

fn reason_of(number: u8) -> Result<RejectReason, Malformed> {
    REASONS.get(usize::from(number)).copied().ok_or(Malformed("an unknown reason of a rejection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_number() {
        for (number, reason) in REASONS.into_iter().enumerate() {
            // A new reason makes this match fail to compile: give it a place at the end of the table.
            match reason {
                RejectReason::InvalidLabels
                | RejectReason::LabelLimit
                | RejectReason::SeriesLimit
                | RejectReason::TooOld
                | RejectReason::TooFarAhead
                | RejectReason::DuplicateTimestamp
                | RejectReason::OutOfOrder
                | RejectReason::InvalidHistogram
                | RejectReason::Fenced
                | RejectReason::OutOfOrderExemplar
                | RejectReason::ExemplarWithoutSeries
                | RejectReason::ExemplarLabels => {}
            }
            assert_eq!(usize::from(number_of(reason)), number);
            assert_eq!(reason_of(number as u8), Ok(reason));
        }
    }
}
