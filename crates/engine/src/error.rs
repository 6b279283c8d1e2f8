//! Why an evaluation has no answer.

use model::{Code, Failure};

/// Why an evaluation has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EvalError {
    /// The expression has no value on this data (duplicate series, many-to-many matching, bad parameter …), in
    /// upstream's words. An `execution` error of the HTTP API.
    #[error("{0}")]
    Execution(String),
    /// The expression cannot be evaluated whatever the data: wrong type for a range query, a duration that is not
    /// positive, too deep. A `bad_data` error of the HTTP API.
    #[error("{0}")]
    Invalid(String),
    /// A part of the language that is not there yet.
    #[error("not supported yet: {0}")]
    Unimplemented(String),
    /// The source failed, or the budget (memory, deadline, cancellation) stopped the query; its code tells which.
    #[error("{0}")]
    Source(#[from] Failure),
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Execution(message) => Self::new(Code::Execution, message),
            EvalError::Invalid(message) => Self::new(Code::Invalid, message),
            EvalError::Unimplemented(_) => Self::new(Code::Unimplemented, error.to_string()),
            EvalError::Source(failure) => failure,
        }
    }
}
