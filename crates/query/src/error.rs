//! Why a query has no answer: one variant for each thing a caller does differently.

use std::time::Duration;

use model::{Code, Failure};

/// Why a query has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The text of the query does not parse, or cannot be evaluated like this, in upstream's words.
    #[error("{0}")]
    Parse(String),
    /// A parameter is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The query has no value on this data, or exceeded a limit.
    #[error("{0}")]
    Execution(String),
    /// The deadline passed.
    #[error("{0}")]
    Timeout(String),
    /// The caller went away, or an operator cancelled the query.
    #[error("{0}")]
    Cancelled(String),
    /// A shard or a place on the pool is not available just now; a retry may succeed.
    #[error("{message}")]
    Unavailable {
        /// What is not available.
        message: String,
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// A defect of ours, or damaged data.
    #[error("{0}")]
    Internal(String),
}

impl QueryError {
    /// The word under which the error is counted.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Parse(_) | Self::Invalid(_) => "bad_data",
            Self::Execution(_) => "execution",
            Self::Timeout(_) => "timeout",
            Self::Cancelled(_) => "canceled",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<Failure> for QueryError {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, retry_after } = failure;
        match code {
            Code::Invalid => Self::Parse(message),
            Code::Execution | Code::TooMany | Code::Unimplemented | Code::NotFound => {
                Self::Execution(message)
            }
            Code::Timeout => Self::Timeout(message),
            Code::Cancelled => Self::Cancelled(message),
            Code::Unavailable | Code::WrongOwner => {
                Self::Unavailable { message, retry_after: retry_after.unwrap_or(Duration::from_secs(1)) }
            }
            Code::Corrupt | Code::Internal => Self::Internal(message),
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Parse(message) | QueryError::Invalid(message) => Self::new(Code::Invalid, message),
            QueryError::Execution(message) => Self::new(Code::Execution, message),
            QueryError::Timeout(message) => Self::new(Code::Timeout, message),
            QueryError::Cancelled(message) => Self::new(Code::Cancelled, message),
            QueryError::Unavailable { message, retry_after } => Self::unavailable(message, retry_after),
            QueryError::Internal(message) => Self::new(Code::Internal, message),
        }
    }
}
