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

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Times.
    pub timings: Timings,
    /// Samples that the evaluation touched.
    pub samples: u64,
    /// The most memory in use at a time, bytes.
    pub peak_bytes: u64,
    /// Shards that took part.
    pub shards: u64,
}
