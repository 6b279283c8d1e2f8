//! Questions about labels and metadata: over the series of one place, joined over several, and their text between
//! nodes (JSON after one byte that tells them from fragments).

use model::seam::{QueryBudget, ReadLevel, SelectRequest, SeriesSource};
use model::{
    Code, Epoch, Failure, Labels, Matcher, MetricKind, MetricMetadata, ShardId, TenantId, TimeRange,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// First byte of a lookup; fragments begin with the small number of their coding's version.
pub(crate) const LOOKUP: u8 = 0xf1;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Label sets.
    Series,
    /// Label names.
    Names,
    /// Values of this label.
    Values(String),
    /// Metadata, of one family if given.
    Metadata(Option<String>),
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Series(Vec<Labels>),
    Strings(Vec<String>),
    Metadata(Vec<MetricMetadata>),
}

impl Ask {
    /// The answer of `source`, over one request for each selector; at most `limit` (0 = all).
    pub(crate) fn of(
        &self,
        source: &dyn SeriesSource,
        requests: &[SelectRequest],
        limit: usize,
    ) -> Result<Told, Failure> {
        let mut told: Option<Told> = None;
        for request in requests {
            let one = match self {
                Self::Series => Told::Series(source.series(request, limit)?),
                Self::Names => Told::Strings(source.label_names(request, limit)?),
                Self::Values(name) => Told::Strings(source.label_values(request, name, limit)?),
                Self::Metadata(family) => {
                    Told::Metadata(source.metadata(&request.tenant, family.as_deref())?)
                }
            };
            told = Some(match told {
                None => one,
                Some(told) => told.join(one, limit),
            });
        }
        Ok(told.unwrap_or_else(|| self.nothing()))
    }

    /// The answer of nobody.
    pub(crate) fn nothing(&self) -> Told {
        match self {
            Self::Series => Told::Series(Vec::new()),
            Self::Names | Self::Values(_) => Told::Strings(Vec::new()),
            Self::Metadata(_) => Told::Metadata(Vec::new()),
        }
    }
}

impl Told {
    /// Both answers as one, each thing once, sorted; at most `limit` (0 = all).
    pub(crate) fn join(self, other: Self, limit: usize) -> Self {
        fn joined<T: Ord>(mut all: Vec<T>, mut more: Vec<T>, limit: usize) -> Vec<T> {
            all.append(&mut more);
            all.sort_unstable();
            all.dedup();
            if limit > 0 {
                all.truncate(limit);
            }
            all
        }
        match (self, other) {
            (Self::Series(all), Self::Series(more)) => Self::Series(joined(all, more, limit)),
            (Self::Strings(all), Self::Strings(more)) => Self::Strings(joined(all, more, limit)),
            (Self::Metadata(mut all), Self::Metadata(more)) => {
                all.extend(more);
                all.sort_by_cached_key(|m| (m.family.clone(), m.kind, m.help.clone(), m.unit.clone()));
                all.dedup();
                Self::Metadata(all)
            }
            // Answers to one question are of one kind.
            (own, _) => own,
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Failure> {
        let json = match self {
            Self::Series(series) => ToldJson::Series(
                series
                    .iter()
                    .map(|labels| labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
                    .collect(),
            ),
            Self::Strings(strings) => ToldJson::Strings(strings.clone()),
            Self::Metadata(all) => ToldJson::Metadata(
                all.iter()
                    .map(|m| (m.family.clone(), m.kind as u8, m.help.clone(), m.unit.clone()))
                    .collect(),
            ),
        };
        serde_json::to_vec(&json).map_err(|e| Failure::internal(format!("encoding a lookup's answer: {e}")))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let invalid = |e: String| Failure::new(Code::Invalid, format!("a lookup's answer is damaged: {e}"));
        let json: ToldJson = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        Ok(match json {
            ToldJson::Series(series) => Self::Series(
                series
                    .into_iter()
                    .map(|pairs| Labels::from_pairs(pairs).map_err(|e| invalid(e.to_string())))
                    .collect::<Result<_, _>>()?,
            ),
            ToldJson::Strings(strings) => Self::Strings(strings),
            ToldJson::Metadata(all) => Self::Metadata(
                all.into_iter()
                    .map(|(family, kind, help, unit)| MetricMetadata {
                        family,
                        kind: MetricKind::from_number(kind.into()),
                        help,
                        unit,
                    })
                    .collect(),
            ),
        })
    }
}

#[derive(Serialize, Deserialize)]
enum ToldJson {
    Series(Vec<BTreeMap<String, String>>),
    Strings(Vec<String>),
    Metadata(Vec<(String, u8, String, String)>),
}

/// A lookup for one place.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) ask: Ask,
    pub(crate) tenant: TenantId,
    pub(crate) shards: Vec<ShardId>,
    pub(crate) epoch: Epoch,
    pub(crate) read_level: ReadLevel,
    pub(crate) deadline: Duration,
    pub(crate) selectors: Vec<Vec<Matcher>>,
    pub(crate) range: TimeRange,
    pub(crate) limit: usize,
}

#[derive(Serialize, Deserialize)]
struct LookupJson {
    ask: Ask,
    tenant: String,
    shards: Vec<u32>,
    epoch: u64,
    max_staleness_ms: Option<u64>,
    deadline_ms: u64,
    /// (name, operator, value) of each matcher of each selector.
    selectors: Vec<Vec<(String, String, String)>>,
    after: i64,
    until: i64,
    limit: usize,
}

impl Lookup {
    /// One request for each selector.
    pub(crate) fn requests(&self, budget: &Arc<QueryBudget>) -> Vec<SelectRequest> {
        let request = |matchers: &Vec<Matcher>| SelectRequest {
            tenant: self.tenant.clone(),
            matchers: matchers.clone(),
            range: self.range,
            budget: Arc::clone(budget),
        };
        self.selectors.iter().map(request).collect()
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Failure> {
        let matcher = |m: &Matcher| (m.name().to_owned(), m.op().as_str().to_owned(), m.value().to_owned());
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let json = LookupJson {
            ask: self.ask.clone(),
            tenant: self.tenant.as_str().to_owned(),
            shards: self.shards.iter().map(|s| s.0).collect(),
            epoch: self.epoch.0,
            max_staleness_ms: match self.read_level {
                ReadLevel::Linearizable => None,
                ReadLevel::MaxStaleness(most) => Some(millis(most)),
            },
            deadline_ms: millis(self.deadline),
            selectors: self.selectors.iter().map(|all| all.iter().map(matcher).collect()).collect(),
            after: self.range.after,
            until: self.range.until,
            limit: self.limit,
        };
        let mut bytes = vec![LOOKUP];
        serde_json::to_writer(&mut bytes, &json)
            .map_err(|e| Failure::internal(format!("encoding a lookup: {e}")))?;
        Ok(bytes)
    }

    /// The lookup of `bytes`, without their first one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let invalid = |e: String| Failure::new(Code::Invalid, format!("a lookup is damaged: {e}"));
        let json: LookupJson = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        let matcher = |(name, op, value): (String, String, String)| {
            use model::MatchOp::{Equal, NotEqual, NotRegex, Regex};
            let op = [Equal, NotEqual, Regex, NotRegex].into_iter().find(|known| known.as_str() == op);
            let op = op.ok_or_else(|| invalid("an unknown operator".into()))?;
            Matcher::new(name, op, value).map_err(|e| invalid(e.to_string()))
        };
        let selector = |all: Vec<(String, String, String)>| all.into_iter().map(matcher).collect();
        Ok(Self {
            ask: json.ask,
            tenant: TenantId::new(&json.tenant).map_err(invalid)?,
            shards: json.shards.into_iter().map(ShardId).collect(),
            epoch: Epoch(json.epoch),
            read_level: match json.max_staleness_ms {
                None => ReadLevel::Linearizable,
                Some(most) => ReadLevel::MaxStaleness(Duration::from_millis(most)),
            },
            deadline: Duration::from_millis(json.deadline_ms),
            selectors: json.selectors.into_iter().map(selector).collect::<Result<_, _>>()?,
            range: TimeRange { after: json.after, until: json.until },
            limit: json.limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_and_answers_come_back() {
        let lookup = Lookup {
            ask: Ask::Values("a\"b".into()),
            tenant: TenantId::anonymous(),
            shards: vec![ShardId(1), ShardId(4)],
            epoch: Epoch(9),
            read_level: ReadLevel::MaxStaleness(Duration::from_millis(70)),
            deadline: Duration::from_millis(1200),
            selectors: vec![
                vec![Matcher::equal("job", "x"), Matcher::new("z", model::MatchOp::NotRegex, "a|b").unwrap()],
                Vec::new(),
            ],
            range: TimeRange::ALL,
            limit: 3,
        };
        let bytes = lookup.encode().unwrap();
        assert_eq!(bytes[0], LOOKUP);
        assert_eq!(format!("{:?}", Lookup::decode(&bytes[1..]).unwrap()), format!("{lookup:?}"));
        assert_eq!(Lookup::decode(&bytes[2..]).unwrap_err().code, Code::Invalid);
        let told = [
            Told::Series(vec![Labels::from_pairs([("a", "é"), ("b", "\n")]).unwrap(), Labels::empty()]),
            Told::Strings(vec!["x".into()]),
            Told::Metadata(vec![MetricMetadata {
                family: "f".into(),
                kind: MetricKind::Summary,
                help: "h".into(),
                unit: "s".into(),
            }]),
        ];
        for told in told {
            assert_eq!(Told::decode(&told.encode().unwrap()).unwrap(), told);
        }
        assert!(Told::decode(b"{}").is_err());
    }

    #[test]
    fn answers_join_sorted_and_cut() {
        let strings = |all: &[&str]| Told::Strings(all.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(strings(&["b", "c"]).join(strings(&["a", "b"]), 2), strings(&["a", "b"]));
    }
}
