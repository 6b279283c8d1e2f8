//! Why a configuration cannot be applied.

use std::path::PathBuf;

/// A failure to apply a configuration; what ran before goes on.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// Two jobs have the same name.
    #[error("found multiple scrape configs with job name {0:?}")]
    DuplicateJob(String),
    /// The HTTP client of a job cannot be made.
    #[error("scrape config with job name {job:?}: error creating HTTP client: {source}")]
    Client {
        /// The job.
        job: String,
        /// What is wrong.
        source: ClientError,
    },
    /// The manager has been shut down.
    #[error("scraping has been shut down")]
    ShutDown,
}

/// Why an HTTP client cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file named in the configuration cannot be read.
    #[error("unable to read {what} file {path:?}: {source}")]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A PEM text holds no usable certificate or key.
    #[error("unable to use specified {what}: {reason}")]
    Pem {
        /// What the text is for.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS settings contradict themselves or are not supported.
    #[error("tls_config: {0}")]
    Tls(String),
    /// There is no access token.
    #[error("oauth2: {0}")]
    OAuth2(String),
    /// A proxy's URL is not usable.
    #[error("proxy_url: {0}")]
    Proxy(String),
    /// A header or credential holds bytes that HTTP forbids.
    #[error("the value of header {0:?} is not valid in HTTP")]
    Header(String),
}
