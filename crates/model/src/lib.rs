//! The values that every other crate speaks in: labels, samples, histograms, matchers, ids, failure
//! codes, and the seams (traits with two real implementations) at which the crates meet.
//!
//! Nothing here does I/O, reads a clock, or knows an async runtime or a wire format.

pub mod code;
pub mod histogram;
pub mod ids;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod number;
pub mod regex;
pub mod relabel;
pub mod sample;
pub mod seam;
pub mod time;

pub use code::{Code, Failure};
pub use histogram::Histogram;
pub use ids::{Epoch, LogIndex, NodeId, ReplicaId, SeriesRef, ShardId, TenantId};
pub use labels::{LabelError, Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{MetricKind, MetricMetadata};
pub use sample::{Exemplar, STALE_NAN_BITS, Sample, is_stale, stale_nan};
pub use time::{StepGrid, TimeRange};
