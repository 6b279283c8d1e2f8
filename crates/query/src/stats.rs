//! What a query cost: the figures behind the parameter `stats`.

/// Times of the parts of one query, seconds, named as upstream names them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Parsing and snapshots and evaluation, without waiting for a place.
    pub eval_total: f64,
    /// Sorting of the result.
    pub result_sort: f64,
    /// Snapshots of the shards.
    pub preparation: f64,
    /// Evaluation.
    pub inner_eval: f64,
    /// Waiting for a place on the pool.
    pub queue: f64,
    /// Everything.
    pub exec_total: f64,
}

/// Samples that one step saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepSamples {
    /// Which step, ms.
    pub time: i64,
    /// All of them: of a range its whole window. Of absent_over_time and info's labels none are counted.
    pub all: u64,
    /// Those that the step before did not see.
    pub new: u64,
}

/// What a query cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Times.
    pub timings: Timings,
    /// Samples that the evaluation touched.
    pub samples: u64,
    /// The most memory in use at a time, bytes.
    pub peak_bytes: u64,
    /// Shards that took part.
    pub shards: u64,
    /// What went between nodes.
    pub between: Between,
    /// By step; empty unless [`crate::Options::per_step`] asked for it.
    pub steps: Vec<StepSamples>,
}

/// What went between nodes for one query; all zero when this node alone answered it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Between {
    /// Places that took part, this node among them if it has any of the shards.
    pub nodes: u64,
    /// Fragments sent to other nodes.
    pub fragments: u64,
    /// Their bytes.
    pub fragment_bytes: u64,
    /// Bytes of the partials that came back.
    pub partial_bytes: u64,
    /// Series that came raw, because what is asked of them cannot be split exactly.
    pub moved_series: u64,
    /// Their bytes, of the partials' bytes.
    pub moved_bytes: u64,
    /// How often a place had to be asked again.
    pub retries: u64,
    /// The query was evaluated a second time over raw series, to find the error that counts.
    pub again: bool,
}
