//! The threads that apply committed entries, so that Raft's runtime never does, and those for other work that blocks.
//!
//! A group's entries always go to the same thread, in order. A panic in a state machine stops its group, not the
//! thread. In the simulation there are no threads: whoever hands work over does it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use model::Failure;
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use storage::StorageError;

use crate::ReplicationError;
use crate::coding::Mark;
use crate::machine::Target;
use crate::types::{Applied, Proposal, RaftEntry, StoredMembership, Types};

/// Committed entries with who waits for what applying them gives.
pub(crate) type Entries = VecDeque<(RaftEntry, Option<ApplyResponder<Types>>)>;

/// Entries to apply to one state machine.
pub(crate) struct Job {
    pub(crate) target: Target,
    pub(crate) mark: Mark,
    pub(crate) entries: Entries,
    pub(crate) done: tokio::sync::oneshot::Sender<Result<Mark, Unapplied>>,
}

/// Why not all entries of a job were applied.
pub(crate) struct Unapplied {
    pub(crate) error: io::Error,
    /// The mark and the entries that are left, where the disk was full: they can be applied once there is space.
    pub(crate) rest: Option<(Mark, Entries)>,
}

/// The threads.
pub(crate) struct ApplyPool {
    senders: Mutex<Vec<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether work is done where it is handed over.
    inline: bool,
}

impl ApplyPool {
    pub(crate) fn start(threads: usize) -> Result<Arc<Self>, ReplicationError> {
        let (mut senders, mut handles) = (Vec::new(), Vec::new());
        for number in 0..threads.max(1) {
            let (sender, receiver) = channel();
            let thread = std::thread::Builder::new()
                .name(format!("apply-{number}"))
                .spawn(move || run(&receiver))
                .map_err(ReplicationError::io("apply", "start a thread to"))?;
            senders.push(sender);
            handles.push(thread);
        }
        Ok(Arc::new(Self { senders: Mutex::new(senders), threads: Mutex::new(handles), inline: false }))
    }

    /// Without threads.
    #[cfg(test)]
    pub(crate) fn inline() -> Arc<Self> {
        Arc::new(Self { senders: Mutex::default(), threads: Mutex::default(), inline: true })
    }

    /// Does work that blocks on a thread for that. Fails when it panics.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if self.inline {
            return Ok(work());
        }
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal(error.to_string()))
    }

    /// Hands a job to the thread of group `key`; the job is dropped (and its waiter told) after `stop`.
    pub(crate) fn submit(&self, key: u64, job: Job) {
        if self.inline {
            return carry_out(job);
        }
        let senders = self.senders.lock();
        if senders.is_empty() {
            return;
        }
        let at = (key % senders.len() as u64) as usize;
        // A dropped receiver means that the pool stops: the job's `done` is dropped with the job.
        let _ = senders[at].send(job);
    }

    /// Returns once everything is done that was handed over for group `key` before.
    pub(crate) async fn drained(&self, key: u64, target: Target) {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.submit(key, Job { target, mark: Mark::default(), entries: Entries::new(), done });
        // A pool that stopped has nothing left either.
        let _ = wait.await;
    }

    /// Lets the threads finish what they have, and ends them.
    pub(crate) fn stop(&self) {
        self.senders.lock().clear();
        for thread in self.threads.lock().drain(..) {
            // Panics are caught inside.
            let _ = thread.join();
        }
    }
}

fn run(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        carry_out(job);
    }
}

fn carry_out(job: Job) {
    let Job { target, mut mark, mut entries, done } = job;
    let result = match catch_unwind(AssertUnwindSafe(|| apply(&target, &mut mark, &mut entries))) {
        Ok(Ok(())) => Ok(mark),
        Ok(Err(error)) => {
            let rest = error.is_disk_full().then_some((mark, entries));
            Err(Unapplied { error: io::Error::other(error), rest })
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|t| (*t).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let error = io::Error::other(format!("applying a log entry panicked: {text}"));
            Err(Unapplied { error, rest: None })
        }
    };
    // The group may have been stopped meanwhile.
    let _ = done.send(result);
}

/// Applies entries from the front; what is left is not applied.
fn apply(target: &Target, mark: &mut Mark, entries: &mut Entries) -> Result<(), StorageError> {
    while let Some((entry, _)) = entries.front() {
        let id = entry.log_id();
        let before = mark.last.replace(id);
        let mut membership_before = None;
        let applied = match &entry.payload {
            EntryPayload::Blank => target.skip(id.index(), &mark.encode()).map(|()| Applied::Nothing),
            EntryPayload::Membership(membership) => {
                let new = StoredMembership::new(Some(id), membership.clone());
                membership_before = Some(std::mem::replace(&mut mark.membership, new));
                target.skip(id.index(), &mark.encode()).map(|()| Applied::Nothing)
            }
            EntryPayload::Normal(Proposal(bytes)) => target.apply(id.index(), bytes, &mark.encode()),
        };
        match applied {
            Ok(applied) => {
                if let Some((_, Some(responder))) = entries.pop_front() {
                    responder.send(applied);
                }
            }
            Err(error) => {
                mark.last = before;
                if let Some(membership) = membership_before {
                    mark.membership = membership;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}
