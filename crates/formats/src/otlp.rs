//! OTLP metrics (`ExportMetricsServiceRequest`, protobuf and JSON) to a [`WriteBatch`], as upstream translates them.
//!
//! JSON is first rewritten as protobuf by the schema in `schema` (`json`), so that there is one reader: `request`
//! walks resources, scopes and metrics by offset, `point` reads one data point at a time into scratch memory that is
//! reused, `labels` makes its label sets with the names of `names` and the texts of `value`. `answer` writes what a
//! client gets back.
//!
//! Source of the translation: `storage/remote/otlptranslator/prometheusremotewrite` and the module
//! `prometheus/otlptranslator` (3.16). Different here, on purpose: a point that cannot be translated is rejected alone
//! and counted, where upstream gives up its metric or the whole request.
//!
//! Not here: HTTP, compression, and whether storage takes what came out.

pub mod answer;
mod json;
mod labels;
mod names;
mod point;
mod request;
mod schema;
mod value;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use model::TenantId;
use model::seam::WriteBatch;

use crate::{DecodeError, RequestLimits};

/// How a request is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// How names are translated, by the words of `translation_strategy` in the configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Characters outside of `[a-zA-Z0-9_:]` become `_`; unit and type are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Characters outside of `[a-zA-Z0-9_:]` become `_`; nothing is appended.
    UnderscoreEscapingWithoutSuffixes,
    /// Characters stay; unit and type are appended.
    NoUTF8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl Strategy {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 4] = [
        Self::UnderscoreEscapingWithSuffixes,
        Self::UnderscoreEscapingWithoutSuffixes,
        Self::NoUTF8EscapingWithSuffixes,
        Self::NoTranslation,
    ];

    /// The word in the configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnderscoreEscapingWithSuffixes => "UnderscoreEscapingWithSuffixes",
            Self::UnderscoreEscapingWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            Self::NoUTF8EscapingWithSuffixes => "NoUTF8EscapingWithSuffixes",
            Self::NoTranslation => "NoTranslation",
        }
    }

    /// Whether characters are replaced.
    pub fn escapes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes)
    }

    /// Whether unit and type are appended.
    pub fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }
}

/// Which resource attributes become labels of every series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promote {
    /// Those named.
    Only(BTreeSet<String>),
    /// All but those named.
    AllExcept(BTreeSet<String>),
}

impl Promote {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::AllExcept(names) => !names.contains(name),
        }
    }
}

/// The section `otlp` of the configuration; each field may change by a reload. [`Settings::default`] is upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How names are translated.
    pub strategy: Strategy,
    /// Which resource attributes become labels.
    pub promote: Promote,
    /// Keep `service.name`, `service.namespace` and `service.instance.id` on `target_info` too.
    pub keep_identifying: bool,
    /// Store histograms with explicit bounds as native histograms with custom buckets.
    pub convert_histograms: bool,
    /// Add name, version, schema URL and attributes of the scope as `otel_scope_…` labels.
    pub promote_scope: bool,
    /// When escaping: put `key` before label names that begin with one underscore.
    pub sanitize_underscore: bool,
    /// When escaping: keep runs of underscores in label names.
    pub keep_underscores: bool,
    /// How far apart samples of `target_info` may be: twice its step; not in the file, but the query lookback.
    pub lookback: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            promote: Promote::Only(BTreeSet::new()),
            keep_identifying: false,
            convert_histograms: false,
            promote_scope: false,
            sanitize_underscore: true,
            keep_underscores: true,
            lookback: Duration::from_secs(300),
        }
    }
}

/// Whose request it is, when it came, and what it may hold.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whose series the request holds.
    pub tenant: TenantId,
    /// Now, ms: exemplars more than ten minutes ahead of it are left out.
    pub now_ms: i64,
    /// Of series and samples four times as many are allowed as these say, since one point of a histogram becomes many,
    /// and of label bytes twice as many; of data points as many as of samples.
    pub limits: RequestLimits,
}

/// What became of a request.
#[derive(Debug)]
pub struct Translated {
    /// The series of all points that could be translated.
    pub batch: WriteBatch,
    /// Points in the request.
    pub points: u64,
    /// Points among them that are not in the batch.
    pub rejected: u64,
    /// Why, for the first few.
    pub reasons: Vec<String>,
}

/// Translates a request. Fails on what is damaged or over a limit as a whole; a point that makes no sense is rejected
/// alone.
pub fn translate(
    body: &[u8],
    coding: Coding,
    context: &Context,
    settings: &Settings,
) -> Result<Translated, DecodeError> {
    crate::check_limit("body in bytes", body.len(), i32::MAX as usize)?;
    let message = match coding {
        Coding::Protobuf => Cow::Borrowed(body),
        Coding::Json => Cow::Owned(json::to_protobuf(body)?),
    };
    request::translate(&message, context, settings)
}

/// The coding that a `Content-Type` states. Fails on any other media type: the answer to that is 415.
pub fn coding_of(content_type: &str) -> Result<Coding, DecodeError> {
    match crate::negotiate::media_type(content_type).as_deref() {
        Some("application/x-protobuf") => Ok(Coding::Protobuf),
        Some("application/json") => Ok(Coding::Json),
        _ => {
            let shown: String = content_type.chars().take(200).collect();
            Err(DecodeError::Header(format!(
                "unsupported content type: {shown:?}. Only application/x-protobuf and application/json are accepted"
            )))
        }
    }
}
