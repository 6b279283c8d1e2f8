//! A fragment: the parts of a query for one place, with all that is needed to evaluate them there; and its bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this coding |
//! | varint | version of the language |
//! | text | tenant |
//! | list | shards, ascending, by their differences |
//! | varint | epoch of the shard map |
//! | varint | read level: 0 linearizable, else 1 + the largest staleness in ms |
//! | varint, varint | deadline (ms from arrival), memory budget (bytes, 0 = none) |
//! | signed | lookback, ms |
//! | 1 | features, a bit each |
//! | varint, signed, signed | number of the query's steps by which samples are to be counted, and if it is not 0: their start, their distance |
//! | list | named inputs: none so far |
//! | list | parts: kind, text, spans, grid (start, step, count), range of times, counts only |

use std::sync::Arc;
use std::time::Duration;

use model::seam::{QueryBudget, ReadLevel};
use model::{Code, Epoch, Failure, ShardId, StepGrid, TenantId, TimeRange};
use promql::ast::Span;

use super::text::PartText;
use super::{Part, PartKind};
use crate::coding::{Reader, Writer};
use crate::{EvalContext, Features, StepCounts};

/// Version of the coding of fragments and partials.
pub(super) const CODING_VERSION: u8 = 2;

/// The version of the language and of its evaluation. Parts are pushed only between equal versions, so it grows with
/// every change by which the same text may get another value.
pub const LANGUAGE_VERSION: u64 = 1;

/// The most steps that a fragment may ask for.
const MAX_STEPS: u64 = 20_000_000;

/// The most steps by which samples are counted: more than the API lets a query have.
const MAX_COUNTED: u64 = 1_000_000;

/// The parts of a query for one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Fragment {
    /// Whose series.
    pub tenant: TenantId,
    /// Over which shards; ascending, each once.
    pub shards: Vec<ShardId>,
    /// The shard map's version by which these shards were chosen.
    pub epoch: Epoch,
    /// How fresh the data must be.
    pub read_level: ReadLevel,
    /// How long it may take, from its arrival.
    pub deadline: Duration,
    /// Most memory, bytes; 0 = no limit but the place's own.
    pub memory_bytes: u64,
    /// Lookback, ms.
    pub lookback_ms: i64,
    /// Features that change results.
    pub features: Features,
    /// By which steps samples are to be counted, if at all.
    pub steps: Option<StepGrid>,
    /// What is to be evaluated.
    pub parts: Vec<Part>,
}

impl Fragment {
    /// The context in which its parts are evaluated.
    pub fn context(&self, budget: Arc<QueryBudget>) -> EvalContext {
        EvalContext {
            tenant: self.tenant.clone(),
            lookback_ms: self.lookback_ms,
            // The root closed the expression: there is nothing left that these two could change.
            subquery_step_ms: 1,
            end_ms: 0,
            is_instant: false,
            features: self.features,
            budget,
            steps: self.steps.map(|grid| Arc::new(StepCounts::new(grid))),
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(CODING_VERSION);
        to.varint(LANGUAGE_VERSION);
        to.text(self.tenant.as_str());
        to.varint(self.shards.len() as u64);
        let mut previous = 0;
        for shard in &self.shards {
            to.varint(u64::from(shard.0.wrapping_sub(previous)));
            previous = shard.0;
        }
        to.varint(self.epoch.0);
        to.varint(match self.read_level {
            ReadLevel::Linearizable => 0,
            ReadLevel::MaxStaleness(most) => 1 + millis(most),
        });
        to.varint(millis(self.deadline));
        to.varint(self.memory_bytes);
        to.signed(self.lookback_ms);
        let Features { delayed_name_removal, type_and_unit_labels, use_start_timestamps } = self.features;
        to.u8(u8::from(delayed_name_removal)
            | u8::from(type_and_unit_labels) << 1
            | u8::from(use_start_timestamps) << 2);
        to.varint(self.steps.map_or(0, |grid| grid.count as u64));
        if let Some(grid) = self.steps {
            to.signed(grid.start);
            to.signed(grid.step);
        }
        to.varint(0);
        to.varint(self.parts.len() as u64);
        for part in &self.parts {
            to.u8(match part.kind {
                PartKind::Series => 0,
                PartKind::Columns => 1,
                PartKind::Groups => 2,
            });
            to.text(&part.text.text);
            to.varint(part.text.spans.len() as u64);
            for span in &part.text.spans {
                to.varint(span.start.into());
                to.varint(span.end.wrapping_sub(span.start).into());
            }
            to.u8(u8::from(part.text.counts_only));
            to.signed(part.grid.start);
            to.signed(part.grid.step);
            to.varint(part.grid.count as u64);
            to.signed(part.range.after);
            to.signed(part.range.until);
        }
        to.bytes
    }

    /// The fragment of `bytes`. Fails with [`Code::Invalid`] when they are damaged, and with [`Code::Unimplemented`]
    /// when they are of another version: then the asker has to move raw series, or wait until versions agree.
    pub fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let mut from = Reader::new(bytes);
        let (coding, language) = (from.u8()?, from.varint()?);
        if (coding, language) != (CODING_VERSION, LANGUAGE_VERSION) {
            let known = format!("{CODING_VERSION}.{LANGUAGE_VERSION}");
            return Err(Failure::new(
                Code::Unimplemented,
                format!("query fragment of version {coding}.{language}, this node knows {known}"),
            ));
        }
        let tenant = TenantId::new(&from.text()?).map_err(|e| from.damaged(&e))?;
        let n_shards = from.count(1)?;
        let mut shards: Vec<ShardId> = Vec::with_capacity(n_shards);
        let mut previous = 0u64;
        for at in 0..n_shards {
            let step = from.varint()?;
            previous = previous.saturating_add(step);
            match u32::try_from(previous) {
                Ok(shard) if at == 0 || step > 0 => shards.push(ShardId(shard)),
                _ => return Err(from.damaged("shards out of order")),
            }
        }
        let epoch = Epoch(from.varint()?);
        let read_level = match from.varint()? {
            0 => ReadLevel::Linearizable,
            most => ReadLevel::MaxStaleness(Duration::from_millis(most - 1)),
        };
        let deadline = Duration::from_millis(from.varint()?);
        let memory_bytes = from.varint()?;
        let lookback_ms = from.signed()?;
        let features = from.u8()?;
        if lookback_ms <= 0 || features > 7 {
            return Err(from.damaged("an impossible evaluation context"));
        }
        let steps = match from.varint()? {
            0 => None,
            count => Some(grid(&mut from, count)?),
        };
        if from.varint()? != 0 {
            return Err(from.damaged("named inputs are not known in this version"));
        }
        let n_parts = from.count(9)?;
        let mut parts = Vec::with_capacity(n_parts);
        for _ in 0..n_parts {
            parts.push(part(&mut from)?);
        }
        from.end()?;
        Ok(Self {
            tenant,
            shards,
            epoch,
            read_level,
            deadline,
            memory_bytes,
            lookback_ms,
            features: Features {
                delayed_name_removal: features & 1 != 0,
                type_and_unit_labels: features & 2 != 0,
                use_start_timestamps: features & 4 != 0,
            },
            steps,
            parts,
        })
    }
}

/// A grid of `count` steps, whose start and distance stand here.
fn grid(from: &mut Reader<'_>, count: u64) -> Result<StepGrid, Failure> {
    let (start, step) = (from.signed()?, from.signed()?);
    let last = step.checked_mul(count as i64).and_then(|all| start.checked_add(all));
    if step <= 0 || count == 0 || count > MAX_COUNTED || last.is_none() {
        return Err(from.damaged("an impossible step grid"));
    }
    Ok(StepGrid { start, step, count: count as usize })
}

fn part(from: &mut Reader<'_>) -> Result<Part, Failure> {
    let kind = match from.u8()? {
        0 => PartKind::Series,
        1 => PartKind::Columns,
        2 => PartKind::Groups,
        _ => return Err(from.damaged("a part of an unknown kind")),
    };
    let text = from.text()?;
    let n_spans = from.count(2)?;
    let mut spans = Vec::with_capacity(n_spans);
    for _ in 0..n_spans {
        let (start, len) = (from.varint()?, from.varint()?);
        match (u32::try_from(start), u32::try_from(start.saturating_add(len))) {
            (Ok(start), Ok(end)) => spans.push(Span { start, end }),
            _ => return Err(from.damaged("a span beyond 32 bits")),
        }
    }
    let counts_only = from.flag()?;
    let (start, step, count) = (from.signed()?, from.signed()?, from.varint()?);
    let last = step.checked_mul(count as i64).and_then(|all| start.checked_add(all));
    if step <= 0 || count == 0 || count > MAX_STEPS || last.is_none() {
        return Err(from.damaged("an impossible step grid"));
    }
    let range = TimeRange { after: from.signed()?, until: from.signed()? };
    Ok(Part {
        kind,
        text: PartText { text, spans, counts_only },
        grid: StepGrid { start, step, count: count as usize },
        range,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribute::{Push, plan};
    use proptest::prelude::*;

    fn fragment(query: &str) -> Fragment {
        let expr = promql::parse(query, &promql::ParseOptions::ALL).unwrap();
        let ctx = EvalContext::range(TenantId::anonymous(), 600_000, QueryBudget::unlimited());
        let plan = plan(&expr, StepGrid::range(0, 600_000, 15_000), &ctx, Push::Everything).unwrap();
        Fragment {
            tenant: TenantId::anonymous(),
            shards: vec![ShardId(0), ShardId(3), ShardId(200)],
            epoch: Epoch(7),
            read_level: ReadLevel::MaxStaleness(Duration::from_secs(5)),
            deadline: Duration::from_millis(1500),
            memory_bytes: 1 << 30,
            lookback_ms: 300_000,
            features: Features { type_and_unit_labels: true, ..Features::default() },
            steps: Some(StepGrid::range(0, 600_000, 15_000)),
            parts: plan.parts().to_vec(),
        }
    }

    #[test]
    fn fragments_come_back_and_cut_ones_are_errors() {
        let fragment =
            fragment("sum by (a) (rate(x[5m])) / on () group_left () absent_over_time(y[1m] offset -3s)");
        assert_eq!(fragment.parts.len(), 2);
        let bytes = fragment.encode();
        assert_eq!(Fragment::decode(&bytes).unwrap(), fragment);
        for len in 0..bytes.len() {
            assert!(Fragment::decode(&bytes[..len]).is_err(), "{len}");
        }
        let more = [bytes.as_slice(), &[0]].concat();
        assert!(Fragment::decode(&more).is_err());
        let mut other = bytes;
        other[1] = 9;
        assert_eq!(Fragment::decode(&other).unwrap_err().code, Code::Unimplemented);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(at in 2usize..200, with in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = fragment("sum(x) + max_over_time(y[5m:1m] @ 5) > 3").encode_at(at, with);
            let _ = Fragment::decode(&bytes);
            bytes.truncate(2);
            bytes.extend(noise);
            let _ = Fragment::decode(&bytes);
        }
    }

    impl Fragment {
        fn encode_at(&self, at: usize, with: u8) -> Vec<u8> {
            let mut bytes = self.encode();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            bytes
        }
    }
}
