//! Where targets come from: the configuration itself, files, HTTP servers.
//!
//! Each source of a job is one task that sends its whole list of groups whenever it changed. When a source cannot
//! be read, its last groups stay.

mod file;
pub mod glob;
mod groups;
mod http;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{HttpClient, Shared};
use crate::config::{Discovery, TargetGroup};

pub use groups::{GroupsError, parse_groups_json, parse_groups_yaml, read_groups};

/// The groups of one source of a job.
#[derive(Debug)]
pub(crate) struct Update {
    /// Which of the job's sources.
    pub(crate) source: usize,
    /// All its groups.
    pub(crate) groups: Vec<TargetGroup>,
}

/// A source ready to run; making it has checked what can be checked.
pub(crate) enum Source {
    Static(Vec<TargetGroup>),
    File(file::FileSource),
    Http(Box<http::HttpSource>),
}

impl Source {
    pub(crate) fn new(config: &Discovery, shared: &Shared) -> Result<Self, crate::ClientError> {
        Ok(match config {
            Discovery::Static(groups) => Self::Static(groups.clone()),
            Discovery::File { patterns, refresh } => {
                let errors = shared.metrics.file_sd_errors.clone();
                Self::File(file::FileSource::new(patterns.clone(), *refresh, errors))
            }
            Discovery::Http { url, refresh, http } => {
                Self::Http(Box::new(http::HttpSource::new(url, *refresh, HttpClient::new(http, shared)?)?))
            }
        })
    }

    /// Sends updates until `stop`.
    pub(crate) async fn run(self, source: usize, updates: mpsc::Sender<Update>, stop: CancellationToken) {
        let sender = Sender { source, updates };
        let work = async {
            match self {
                Self::Static(groups) => sender.send(groups).await,
                Self::File(file) => file.run(&sender).await,
                Self::Http(http) => http.run(&sender).await,
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Sends the groups of one source.
pub(crate) struct Sender {
    source: usize,
    updates: mpsc::Sender<Update>,
}

impl Sender {
    async fn send(&self, groups: Vec<TargetGroup>) {
        // The receiver is gone only when the job has been stopped.
        let _ = self.updates.send(Update { source: self.source, groups }).await;
    }
}
