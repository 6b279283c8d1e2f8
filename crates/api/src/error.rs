//! The one translation of failures to HTTP: upstream's error types, status codes and envelope.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use model::{Code, Failure};
use query::QueryError;

use crate::encode::push_string;

/// Upstream's error types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    BadData,
    Execution,
    Timeout,
    Canceled,
    Unavailable,
    Internal,
    NotFound,
    TooLarge,
    TooSlow,
    NotImplemented,
    UnsupportedMedia,
    WrongMethod,
}

impl ErrorKind {
    fn word(self) -> &'static str {
        match self {
            Self::BadData | Self::TooLarge | Self::UnsupportedMedia | Self::WrongMethod => "bad_data",
            Self::Execution => "execution",
            Self::Timeout | Self::TooSlow => "timeout",
            Self::Canceled => "canceled",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::NotImplemented => "not_implemented",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            // The code that nginx gave to "client closed request"; upstream uses it too.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

/// A failed request.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// Another status than the kind's.
    status: Option<StatusCode>,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, status: None }
    }

    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// Upstream's `invalid parameter "…": …`.
    pub(crate) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {why}"))
    }

    /// Not available just now; a retry after `after` may succeed.
    pub(crate) fn busy(message: impl Into<String>, after: Duration) -> Self {
        Self { retry_after: Some(after), ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// The node is ending.
    pub(crate) fn stopping() -> Self {
        Self::busy("the node is stopping", Duration::from_secs(1))
    }

    /// Something that is switched off: upstream answers 500 with the type `unavailable`.
    pub(crate) fn switched_off(message: &str) -> Self {
        Self { status: Some(StatusCode::INTERNAL_SERVER_ERROR), ..Self::new(ErrorKind::Unavailable, message) }
    }

    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(ErrorKind::NotImplemented, format!("{what} is not there yet"))
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.kind.status())
    }

    /// As plain text, for the paths where upstream answers so (remote write).
    pub(crate) fn into_text(self) -> Response {
        let mut response = (self.status(), format!("{}\n", self.message)).into_response();
        set_retry_after(&mut response, self.retry_after);
        response
    }
}

fn set_retry_after(response: &mut Response, after: Option<Duration>) {
    if let Some(after) = after {
        let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut json = String::with_capacity(64 + self.message.len());
        json.push_str(r#"{"status":"error","errorType":"#);
        push_string(&mut json, self.kind.word());
        json.push_str(r#","error":"#);
        push_string(&mut json, &self.message);
        json.push('}');
        let mut response =
            (self.status(), [(header::CONTENT_TYPE, "application/json")], json).into_response();
        set_retry_after(&mut response, self.retry_after);
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::Parse(_) => Self::parameter("query", message),
            QueryError::Invalid(_) => Self::bad_data(message),
            QueryError::Execution(_) => Self::new(ErrorKind::Execution, message),
            QueryError::Timeout(_) => Self::new(ErrorKind::Timeout, message),
            QueryError::Cancelled(_) => Self::new(ErrorKind::Canceled, message),
            QueryError::Unavailable { retry_after, .. } => {
                Self { retry_after: Some(retry_after), ..Self::new(ErrorKind::Unavailable, message) }
            }
            QueryError::Internal(_) => Self::new(ErrorKind::Internal, message),
        }
    }
}

/// Failures of writing: 400 = do not send again, 503 = send again.
impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            Code::Invalid | Code::Execution => ErrorKind::BadData,
            Code::NotFound => ErrorKind::NotFound,
            Code::TooMany | Code::Unavailable | Code::WrongOwner | Code::Timeout | Code::Cancelled => {
                ErrorKind::Unavailable
            }
            Code::Unimplemented => ErrorKind::NotImplemented,
            Code::Corrupt | Code::Internal => ErrorKind::Internal,
        };
        let retry_after = failure
            .retry_after
            .or_else(|| (kind == ErrorKind::Unavailable).then_some(Duration::from_secs(1)));
        Self { retry_after, ..Self::new(kind, failure.message) }
    }
}
