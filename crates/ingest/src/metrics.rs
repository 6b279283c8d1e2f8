//! The router's own metrics.
//!
//! | metric | what it counts |
//! |---|---|
//! | `isobar_ingest_samples_total{kind}` | floats, histograms and exemplars that were stored |
//! | `isobar_ingest_rejected_total{reason}` | those that were not, by reason |
//! | `isobar_ingest_writes_total{result}` | write requests and scrapes: `ok`, `partial`, `failed` |
//! | `isobar_ingest_cache_lookups_total{result}` | series looked up: `predicted`, `found`, `missing` |
//! | `isobar_ingest_cache_entries` | series (label spellings, more exactly) in the cache |
//! | `isobar_ingest_cache_evictions` | entries that made room for others, since the start |
//! | `isobar_ingest_retries_total{cause}` | parts sent again: `unknown_refs`, `wrong_owner`, `unavailable` |

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::cache::{Cache, Tally};
use crate::report::Outcome;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: Cause,
}

/// Why a part is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    UnknownRefs,
    WrongOwner,
    Unavailable,
}

impl EncodeLabelValue for Cause {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let text = match self {
            Self::UnknownRefs => "unknown_refs",
            Self::WrongOwner => "wrong_owner",
            Self::Unavailable => "unavailable",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

pub(crate) struct Metrics {
    floats: Counter,
    histograms: Counter,
    exemplars: Counter,
    rejected: Family<ReasonLabels, Counter>,
    ok: Counter,
    partial: Counter,
    failed: Counter,
    predicted: Counter,
    found: Counter,
    missing: Counter,
    entries: Gauge,
    evictions: Gauge,
    retries: Family<CauseLabels, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let samples = Family::<KindLabels, Counter>::default();
        let rejected = Family::<ReasonLabels, Counter>::default();
        let writes = Family::<ResultLabels, Counter>::default();
        let lookups = Family::<ResultLabels, Counter>::default();
        let retries = Family::<CauseLabels, Counter>::default();
        let (entries, evictions) = (Gauge::default(), Gauge::default());
        registry.register("isobar_ingest_samples", "Samples stored", samples.clone());
        registry.register("isobar_ingest_rejected", "Samples rejected", rejected.clone());
        registry.register("isobar_ingest_writes", "Write requests and scrapes", writes.clone());
        registry.register(
            "isobar_ingest_cache_lookups",
            "Series looked up in the router's cache",
            lookups.clone(),
        );
        registry.register("isobar_ingest_cache_entries", "Entries of the router's cache", entries.clone());
        registry.register(
            "isobar_ingest_cache_evictions",
            "Entries of the router's cache that made room for others",
            evictions.clone(),
        );
        registry.register("isobar_ingest_retries", "Parts of writes sent again", retries.clone());
        let kind = |kind| samples.get_or_create(&KindLabels { kind }).clone();
        let write = |result| writes.get_or_create(&ResultLabels { result }).clone();
        let lookup = |result| lookups.get_or_create(&ResultLabels { result }).clone();
        Self {
            floats: kind("float"),
            histograms: kind("histogram"),
            exemplars: kind("exemplar"),
            ok: write("ok"),
            partial: write("partial"),
            failed: write("failed"),
            predicted: lookup("predicted"),
            found: lookup("found"),
            missing: lookup("missing"),
            rejected,
            entries,
            evictions,
            retries,
        }
    }

    pub(crate) fn looked_up(&self, tally: &Tally, cache: &Cache) {
        self.predicted.inc_by(tally.predicted);
        self.found.inc_by(tally.probed);
        self.missing.inc_by(tally.missed);
        self.entries.set(cache.len() as i64);
        self.evictions.set(i64::try_from(cache.evictions()).unwrap_or(i64::MAX));
    }

    pub(crate) fn retried(&self, cause: Cause) {
        self.retries.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn count(&self, outcome: &Outcome, committed: bool) {
        self.floats.inc_by(outcome.written.samples);
        self.histograms.inc_by(outcome.written.histograms);
        self.exemplars.inc_by(outcome.written.exemplars);
        for (reason, n) in &outcome.rejected {
            self.rejected.get_or_create(&ReasonLabels { reason: reason.as_str() }).inc_by(*n);
        }
        match (committed, outcome.rejected.is_empty()) {
            (false, _) => self.failed.inc(),
            (true, false) => self.partial.inc(),
            (true, true) => self.ok.inc(),
        };
    }

    /// Look-ups that ended as `result`.
    #[cfg(test)]
    pub(crate) fn lookups(&self, result: &str) -> u64 {
        match result {
            "predicted" => self.predicted.get(),
            "found" => self.found.get(),
            _ => self.missing.get(),
        }
    }
}
