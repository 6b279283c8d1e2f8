//! The node's own metrics, taken in the process: no connection, so neither passwords nor TLS stand in between.

use std::fmt;
use std::sync::Arc;

/// What a scrape of this node would answer.
#[derive(Clone, Debug)]
pub struct OwnAnswer {
    /// Value of `Content-Type`.
    pub content_type: String,
    /// The exposition.
    pub body: Vec<u8>,
}

/// How the answer is made, of the value of `Accept`; an error is shown as that of the scrape.
type Ask = dyn Fn(&str) -> Result<OwnAnswer, String> + Send + Sync;

/// Gives what this node's `/metrics` shows; see [`crate::JobConfig::own`].
#[derive(Clone)]
pub struct OwnMetrics(Arc<Ask>);

impl OwnMetrics {
    /// Own metrics as `ask` gives them.
    pub fn new(ask: impl Fn(&str) -> Result<OwnAnswer, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self, accept: &str) -> Result<OwnAnswer, String> {
        (self.0)(accept)
    }
}

impl fmt::Debug for OwnMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnMetrics")
    }
}
