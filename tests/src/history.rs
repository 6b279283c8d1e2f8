//! What clients did and saw, and the check of what they saw against what they did.
//!
//! A [`WriterLog`] says of each round of a writer when it was sent first and when, if ever, it was acknowledged; a
//! [`Read`] says when a reader asked which node and what it was told. The check is set arithmetic over both, linear in
//! their size:
//!
//! | rule | invariant | when it is broken |
//! |---|---|---|
//! | acknowledged before the read began ⊆ read | I1, I5 | [`Violation::Lost`], [`Violation::Stale`] |
//! | read ⊆ sent before the read ended, each with its own value | I3 | [`Violation::Phantom`] |
//! | each (series, timestamp) once | I2 | [`Violation::Doubled`] |
//! | what a reader saw once it sees again | I6 | [`Violation::Shrunk`] |
//! | counts and sums lie between those of the two sets, and never fall | I1 to I6 by the aggregating path, I9 | [`Violation::Sums`] |
//! | a valid request is not refused for good | I4 | [`Violation::Refused`] |
//!
//! A round of unknown fate (5xx, broken connection, timeout) may be there or not, each of its samples for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::native;

/// Series that one writer may have: one bit each.
pub const MOST_SERIES: u64 = 128;
/// Rounds that one writer may send: its samples lie 1 s apart, the first an hour ago.
pub const MOST_ROUNDS: u64 = 3_600;

/// Who a writer is: enough to know every sample it could send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The writer.
    pub id: u64,
    /// Its series, at most [`MOST_SERIES`].
    pub series: u64,
    /// The timestamp of its first round.
    pub start_ms: i64,
    /// Whether some of its series carry native histograms ([`native::carries`]).
    pub histograms: bool,
}

impl Shape {
    /// Whether the samples of a series are histograms.
    pub fn is_native(&self, series: u64) -> bool {
        self.histograms && native::carries(series)
    }

    /// How many of its series carry histograms.
    pub fn natives(&self) -> u64 {
        (0..self.series).filter(|series| self.is_native(*series)).count() as u64
    }

    /// The value of a sample, or the sum of its histogram; no other sample of any writer has it.
    pub fn value(&self, round: u64, series: u64) -> f64 {
        (self.id << 32 | (round * 1000 + series)) as f64
    }

    /// The timestamp of a round.
    pub fn stamp(&self, round: u64) -> i64 {
        self.start_ms + round as i64 * 1000
    }

    /// The bits of a round with all its series.
    fn whole(&self) -> u128 {
        u128::MAX >> (128 - self.series.min(MOST_SERIES))
    }

    /// The sum of a round's values.
    fn sum(&self, round: u64) -> f64 {
        (0..self.series).map(|series| self.value(round, series)).sum()
    }
}

/// One round of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// When it was sent first.
    pub invoked: Duration,
    /// When it was acknowledged.
    pub acked: Option<Duration>,
    /// How often it was sent.
    pub tries: u32,
}

/// What a writer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterLog {
    /// Who it is.
    pub shape: Shape,
    /// Its rounds in order.
    pub rounds: Vec<Round>,
    /// Answers that refused a round for good (4xx).
    pub refused: Vec<String>,
}

/// What a read was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// For each round the series of which a sample is there.
    Samples(Vec<u128>),
    /// How many samples there are, and their sum.
    Sums {
        /// How many.
        count: f64,
        /// Their sum.
        sum: f64,
    },
}

/// A read that was answered.
#[derive(Clone, Debug)]
pub struct Read {
    /// Which reader.
    pub reader: usize,
    /// Which node it asked.
    pub node: usize,
    /// Whose samples it asked for.
    pub writer: u64,
    /// When it asked.
    pub invoked: Duration,
    /// When it was answered.
    pub completed: Duration,
    /// What it was told.
    pub seen: Seen,
    /// What is wrong with that by itself.
    pub wrong: Vec<Violation>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq)]
pub enum Violation {
    /// An acknowledged sample is missing in this read and in all after it.
    Lost {
        /// Which sample: writer, round, series.
        sample: (u64, u64, u64),
        /// Who missed it, where and when.
        read: String,
    },
    /// An acknowledged sample is missing in a read that began later, and is there in a later one.
    Stale {
        /// Which sample: writer, round, series.
        sample: (u64, u64, u64),
        /// Who missed it, where and when.
        read: String,
    },
    /// A sample that this reader saw before is gone.
    Shrunk {
        /// Which sample: writer, round, series.
        sample: (u64, u64, u64),
        /// Who missed it, where and when.
        read: String,
    },
    /// A series has two samples at one timestamp.
    Doubled {
        /// Which writer and series.
        series: (u64, u64),
        /// The timestamp.
        stamp: i64,
    },
    /// A sample that nobody had sent.
    Phantom {
        /// Which writer and series.
        series: (u64, u64),
        /// The timestamp.
        stamp: i64,
        /// Its value; of a histogram the sum.
        value: f64,
    },
    /// A count or sum that no set of samples between the two gives.
    Sums {
        /// Which writer.
        writer: u64,
        /// What is wrong with which read.
        what: String,
    },
    /// A valid request was refused for good.
    Refused {
        /// Which writer.
        writer: u64,
        /// The answer.
        answer: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { sample: (writer, round, series), read } => {
                write!(
                    f,
                    "I1 lost: round {round} series {series} of writer {writer} was acknowledged; {read}"
                )
            }
            Self::Stale { sample: (writer, round, series), read } => write!(
                f,
                "I5 stale read: round {round} series {series} of writer {writer} was acknowledged before; {read}"
            ),
            Self::Shrunk { sample: (writer, round, series), read } => {
                write!(
                    f,
                    "I6 shrunk: round {round} series {series} of writer {writer} was seen before; {read}"
                )
            }
            Self::Doubled { series: (writer, series), stamp } => {
                write!(f, "I2 doubled: series {series} of writer {writer} has two samples at {stamp}")
            }
            Self::Phantom { series: (writer, series), stamp, value } => write!(
                f,
                "I3 phantom: series {series} of writer {writer} has {value} at {stamp}, which nobody had sent"
            ),
            Self::Sums { writer, what } => write!(f, "I9 sums of writer {writer}: {what}"),
            Self::Refused { writer, answer } => {
                write!(f, "I4 a valid request of writer {writer} was refused for good: {answer}")
            }
        }
    }
}

/// The samples in `result`, the answer to a range selector over the series of one writer: bits by round, and what is
/// wrong with it whoever asked when.
pub fn samples_of(shape: Shape, result: &Value) -> Result<(Vec<u128>, Vec<Violation>)> {
    let mut bits: Vec<u128> = Vec::new();
    let mut wrong = Vec::new();
    for series in result.as_array().context("a matrix")? {
        let n: u64 = series["metric"]["n"].as_str().context("a label n")?.parse()?;
        ensure!(n < MOST_SERIES, "a series with n={n}");
        let all = |kind: &str| series[kind].as_array().cloned().unwrap_or_default();
        let (floats, natives) = (all("values"), all("histograms"));
        ensure!(!floats.is_empty() || !natives.is_empty(), "a series without samples");
        let mut before = None;
        for (pair, is_native) in
            floats.iter().map(|pair| (pair, false)).chain(natives.iter().map(|pair| (pair, true)))
        {
            let stamp = (pair[0].as_f64().context("a timestamp")? * 1000.0).round() as i64;
            let value = if is_native { &pair[1]["sum"] } else { &pair[1] };
            let value: f64 = value.as_str().context("a value")?.parse()?;
            if before.is_some_and(|before| before >= stamp) {
                wrong.push(Violation::Doubled { series: (shape.id, n), stamp });
            }
            before = Some(stamp);
            let round = u64::try_from((stamp - shape.start_ms) / 1000).unwrap_or(u64::MAX);
            let sent = n < shape.series
                && round < MOST_ROUNDS
                && shape.stamp(round) == stamp
                && shape.is_native(n) == is_native
                && shape.value(round, n).to_bits() == value.to_bits()
                && (!is_native || native::shows(&native::histogram(&shape, round, n), &pair[1])?);
            if !sent {
                wrong.push(Violation::Phantom { series: (shape.id, n), stamp, value });
                continue;
            }
            let at = round as usize;
            if bits.len() <= at {
                bits.resize(at + 1, 0);
            }
            if bits[at] >> n & 1 == 1 {
                wrong.push(Violation::Doubled { series: (shape.id, n), stamp });
            }
            bits[at] |= 1 << n;
        }
    }
    Ok((bits, wrong))
}

fn first_bit(bits: u128) -> u64 {
    u64::from(bits.trailing_zeros())
}

impl Read {
    fn place(&self) -> String {
        format!(
            "reader {} asked node {} from {:?} to {:?}",
            self.reader, self.node, self.invoked, self.completed
        )
    }
}

/// Everything that is wrong with `reads` of the samples of one writer, given what it did.
pub fn check(log: &WriterLog, reads: &[Read]) -> Vec<Violation> {
    let shape = log.shape;
    let mut wrong: Vec<Violation> = log
        .refused
        .iter()
        .map(|answer| Violation::Refused { writer: shape.id, answer: answer.clone() })
        .collect();
    let mut reads: Vec<&Read> = reads.iter().filter(|read| read.writer == shape.id).collect();
    reads.sort_by_key(|read| read.completed);
    // What was seen by whoever asked latest, to tell lost from stale.
    let mut ever_later: Vec<Vec<u128>> = vec![Vec::new(); reads.len()];
    let mut union: Vec<u128> = Vec::new();
    for (at, read) in reads.iter().enumerate().rev() {
        ever_later[at].clone_from(&union);
        if let Seen::Samples(bits) = &read.seen {
            union.resize(union.len().max(bits.len()), 0);
            union.iter_mut().zip(bits).for_each(|(all, one)| *all |= one);
        }
    }
    let mut last_bits: BTreeMap<usize, &[u128]> = BTreeMap::new();
    let mut last_sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (at, read) in reads.iter().enumerate() {
        wrong.extend(read.wrong.iter().cloned());
        match &read.seen {
            Seen::Samples(bits) => {
                check_samples(log, read, bits, &ever_later[at], &mut wrong);
                let before = last_bits.insert(read.reader, bits).unwrap_or_default();
                for (round, seen) in before.iter().enumerate() {
                    let gone = seen & !bits.get(round).copied().unwrap_or(0);
                    if gone != 0 {
                        let sample = (shape.id, round as u64, first_bit(gone));
                        wrong.push(Violation::Shrunk { sample, read: read.place() });
                    }
                }
            }
            Seen::Sums { count, sum } => {
                check_sums(log, read, *count, *sum, &mut wrong);
                let before = last_sums.insert(read.reader, (*count, *sum)).unwrap_or((0.0, 0.0));
                if *count < before.0 || *sum < before.1 {
                    let what = format!("count {count} and sum {sum} after {before:?}; {}", read.place());
                    wrong.push(Violation::Sums { writer: shape.id, what });
                }
            }
        }
    }
    wrong
}

fn check_samples(log: &WriterLog, read: &Read, bits: &[u128], later: &[u128], wrong: &mut Vec<Violation>) {
    let shape = log.shape;
    for (number, round) in log.rounds.iter().enumerate() {
        let seen = bits.get(number).copied().unwrap_or(0);
        if round.acked.is_some_and(|acked| acked < read.invoked) {
            let missing = shape.whole() & !seen;
            if missing != 0 {
                let sample = (shape.id, number as u64, first_bit(missing));
                let came_later = missing & !later.get(number).copied().unwrap_or(0) == 0;
                let read = read.place();
                wrong.push(if came_later {
                    Violation::Stale { sample, read }
                } else {
                    Violation::Lost { sample, read }
                });
            }
        }
        if seen != 0 && round.invoked > read.completed {
            wrong.push(phantom(shape, number as u64, seen));
        }
    }
    for (number, seen) in bits.iter().enumerate().skip(log.rounds.len()) {
        if *seen != 0 {
            wrong.push(phantom(shape, number as u64, *seen));
        }
    }
}

fn phantom(shape: Shape, round: u64, bits: u128) -> Violation {
    let series = first_bit(bits);
    Violation::Phantom {
        series: (shape.id, series),
        stamp: shape.stamp(round),
        value: shape.value(round, series),
    }
}

fn check_sums(log: &WriterLog, read: &Read, count: f64, sum: f64, wrong: &mut Vec<Violation>) {
    let shape = log.shape;
    // All values and sums are whole numbers below 2^53: exact.
    let (mut least, mut most) = ((0.0, 0.0), (0.0, 0.0));
    for (number, round) in log.rounds.iter().enumerate() {
        let one = (shape.series as f64, shape.sum(number as u64));
        if round.acked.is_some_and(|acked| acked < read.invoked) {
            least = (least.0 + one.0, least.1 + one.1);
        }
        if round.invoked <= read.completed {
            most = (most.0 + one.0, most.1 + one.1);
        }
    }
    if count < least.0 || count > most.0 || sum < least.1 || sum > most.1 {
        let what = format!(
            "count {count} and sum {sum}, at least {least:?} was acknowledged and at most {most:?} sent; {}",
            read.place()
        );
        wrong.push(Violation::Sums { writer: shape.id, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A writer of two series with rounds (sent at, acknowledged at).
    fn writer(rounds: &[(u64, Option<u64>)]) -> WriterLog {
        let rounds = rounds.iter().map(|(invoked, acked)| Round {
            invoked: at(*invoked),
            acked: acked.map(at),
            tries: 1,
        });
        let shape = Shape { id: 1, series: 2, start_ms: 10_000, histograms: false };
        WriterLog { shape, rounds: rounds.collect(), refused: Vec::new() }
    }

    fn read(from: u64, to: u64, bits: &[u128]) -> Read {
        Read {
            reader: 0,
            node: 0,
            writer: 1,
            invoked: at(from),
            completed: at(to),
            seen: Seen::Samples(bits.to_vec()),
            wrong: Vec::new(),
        }
    }

    fn sums(from: u64, to: u64, count: f64, sum: f64) -> Read {
        Read { seen: Seen::Sums { count, sum }, ..read(from, to, &[]) }
    }

    fn text(violations: &[Violation]) -> String {
        violations.iter().map(|v| format!("{v}\n")).collect()
    }

    #[test]
    fn good_histories_pass() {
        let log = writer(&[(0, Some(10)), (20, None), (40, Some(60))]);
        let shape = log.shape;
        let (one, three) = (shape.sum(0), shape.sum(0) + shape.sum(2));
        let reads = [
            read(5, 8, &[0b01]),
            read(15, 25, &[0b11]),
            read(30, 35, &[0b11, 0b10]),
            // Not acknowledged when the read began.
            read(45, 70, &[0b11, 0b10]),
            read(80, 90, &[0b11, 0b10, 0b11]),
            sums(15, 25, 2.0, one),
            sums(80, 90, 4.0, three),
        ];
        assert_eq!(text(&check(&log, &reads)), "");
    }

    #[test]
    fn a_lost_acknowledgement_is_found() {
        let log = writer(&[(0, Some(10)), (20, Some(30))]);
        let wrong = check(&log, &[read(12, 15, &[0b11]), read(40, 50, &[0b11, 0b01])]);
        assert!(matches!(wrong[..], [Violation::Lost { sample: (1, 1, 1), .. }]), "{}", text(&wrong));
    }

    #[test]
    fn a_stale_read_is_found_and_told_from_a_loss() {
        let log = writer(&[(0, Some(10)), (20, Some(30))]);
        let mut other = read(60, 70, &[0b11, 0b11]);
        other.reader = 1;
        let wrong = check(&log, &[read(40, 50, &[0b11]), other]);
        assert!(matches!(wrong[..], [Violation::Stale { sample: (1, 1, 0), .. }]), "{}", text(&wrong));
    }

    #[test]
    fn a_shrinking_read_is_found_even_of_what_was_never_acknowledged() {
        let log = writer(&[(0, None)]);
        let wrong = check(&log, &[read(5, 8, &[0b11]), read(9, 12, &[0b01])]);
        assert!(matches!(wrong[..], [Violation::Shrunk { sample: (1, 0, 1), .. }]), "{}", text(&wrong));
        let mut other = read(9, 12, &[0b01]);
        other.reader = 1;
        assert_eq!(
            text(&check(&log, &[read(5, 8, &[0b11]), other])),
            "",
            "another reader has no such promise"
        );
    }

    #[test]
    fn phantoms_are_found() {
        let log = writer(&[(0, Some(10)), (50, Some(60))]);
        let early = check(&log, &[read(20, 30, &[0b11, 0b01])]);
        assert!(matches!(early[..], [Violation::Phantom { .. }]), "sent later: {}", text(&early));
        let never = check(&log, &[read(70, 80, &[0b11, 0b11, 0b10])]);
        assert!(matches!(never[..], [Violation::Phantom { series: (1, 1), .. }]), "{}", text(&never));
    }

    #[test]
    fn doubled_and_changed_samples_are_found_in_the_answer() {
        let shape = Shape { id: 1, series: 2, start_ms: 10_000, histograms: false };
        let value = |round| shape.value(round, 0).to_string();
        let answer = |values: Value| json!([{"metric": {"n": "0"}, "values": values}]);
        let (bits, wrong) = samples_of(shape, &answer(json!([[10.0, value(0)], [11.0, value(1)]]))).unwrap();
        assert_eq!((bits, text(&wrong)), (vec![1, 1], String::new()));
        let (_, wrong) = samples_of(shape, &answer(json!([[10.0, value(0)], [10.0, value(0)]]))).unwrap();
        assert!(matches!(wrong[0], Violation::Doubled { series: (1, 0), stamp: 10_000 }), "{}", text(&wrong));
        let (_, wrong) = samples_of(shape, &answer(json!([[10.0, value(1)]]))).unwrap();
        assert!(matches!(wrong[..], [Violation::Phantom { .. }]), "another value: {}", text(&wrong));
        let (_, wrong) = samples_of(shape, &answer(json!([[10.5, value(0)]]))).unwrap();
        assert!(matches!(wrong[..], [Violation::Phantom { .. }]), "another time: {}", text(&wrong));
        let two = json!([{"metric": {"n": "0"}, "values": [[10.0, value(0)]]},
            {"metric": {"n": "0", "x": "y"}, "values": [[10.0, value(0)]]}]);
        let (_, wrong) = samples_of(shape, &two).unwrap();
        assert!(matches!(wrong[..], [Violation::Doubled { .. }]), "in two series: {}", text(&wrong));
    }

    #[test]
    fn a_float_where_a_histogram_was_sent_is_found() {
        let shape = Shape { id: 1, series: 3, start_ms: 10_000, histograms: true };
        let value = shape.value(0, 2).to_string();
        let answer = json!([{"metric": {"n": "2"}, "values": [[10.0, value]]}]);
        let (_, wrong) = samples_of(shape, &answer).unwrap();
        assert!(matches!(wrong[..], [Violation::Phantom { .. }]), "{}", text(&wrong));
        let other = json!({"count": "1", "sum": value});
        let answer = json!([{"metric": {"n": "2"}, "histograms": [[10.0, other]]}]);
        let (_, wrong) = samples_of(shape, &answer).unwrap();
        assert!(matches!(wrong[..], [Violation::Phantom { .. }]), "without buckets: {}", text(&wrong));
    }

    #[test]
    fn partial_and_falling_sums_are_found() {
        let log = writer(&[(0, Some(10)), (20, Some(30))]);
        let all = log.shape.sum(0) + log.shape.sum(1);
        let partial = check(&log, &[sums(40, 50, 3.0, all)]);
        assert!(matches!(partial[..], [Violation::Sums { .. }]), "{}", text(&partial));
        let too_much = check(&log, &[sums(40, 50, 4.0, all + 1.0)]);
        assert!(matches!(too_much[..], [Violation::Sums { .. }]), "{}", text(&too_much));
        let open = writer(&[(0, None)]);
        let falling = check(&open, &[sums(5, 6, 2.0, open.shape.sum(0)), sums(7, 8, 1.0, 0.0)]);
        assert!(matches!(falling[..], [Violation::Sums { .. }]), "{}", text(&falling));
    }

    #[test]
    fn a_refusal_for_good_is_found() {
        let mut log = writer(&[(0, None)]);
        log.refused.push("400 no".into());
        let wrong = check(&log, &[]);
        assert!(matches!(wrong[..], [Violation::Refused { .. }]), "{}", text(&wrong));
    }
}
