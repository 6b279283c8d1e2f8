//! Clients that write and read while faults happen: threads that go on until told to stop, and remember everything.
//!
//! A writer stays with a node until it gets no acknowledgement there, then goes on to the next one, and sends what is of
//! unknown fate again before anything new. A reader asks another node each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use benches::http::Client;
use model::seam::Clock;
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

use crate::history::Shape;
use crate::oracle::{Reader, Writer};
use crate::random_query::Random;

/// Series of a writer.
const SERIES: u64 = 14;
/// Between two rounds of a writer.
const PACE: Duration = Duration::from_millis(20);
/// Between two reads of a reader.
const READ_PACE: Duration = Duration::from_millis(150);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(250);
/// How long a writer waits for an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(4);
/// The same for a reader: longer than a node looks for a leader, so that its failures are heard.
const READ_PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
struct Progress {
    stop: bool,
    /// Rounds acknowledged, by writer.
    acked: Vec<u64>,
    /// Writes that were not acknowledged at once.
    failed: u64,
    /// Reads answered.
    reads: u64,
    /// Leaders that were replaced, as the node that saw most of it counts.
    leader_changes: u64,
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// Where clients reach the nodes.
    addresses: Vec<String>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    /// Waits for `pace`; true when it is time to stop.
    fn pause(&self, pace: Duration) -> bool {
        let deadline = self.clock.monotonic() + pace;
        let mut progress = self.progress.lock();
        while !progress.stop {
            let left = deadline.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return false;
            }
            self.changed.wait_for(&mut progress, left);
        }
        true
    }
}

/// How far the load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Rounds acknowledged, by writer.
    pub acked: Vec<u64>,
    /// Reads answered.
    pub reads: u64,
}

/// Running clients.
pub struct Load {
    shared: Arc<Shared>,
    shapes: Vec<Shape>,
    writers: Vec<JoinHandle<Writer>>,
    readers: Vec<JoinHandle<Reader>>,
    watcher: JoinHandle<()>,
}

/// What clients did and saw.
pub struct Done {
    /// The writers.
    pub writers: Vec<Writer>,
    /// The readers.
    pub readers: Vec<Reader>,
    /// Writes that were not acknowledged at once.
    pub failed_writes: u64,
    /// Leaders that were replaced meanwhile.
    pub leader_changes: u64,
}

impl Load {
    /// Starts writers with ids from `first_id` on, one a node, and `readers` readers, at the nodes' client `addresses`.
    pub fn start(
        addresses: &[String],
        clock: &Arc<dyn Clock>,
        seed: u64,
        first_id: u64,
        readers: usize,
    ) -> Result<Self> {
        let count = addresses.len();
        let shared = Arc::new(Shared {
            clock: Arc::clone(clock),
            addresses: addresses.to_vec(),
            progress: Mutex::new(Progress { acked: vec![0; count], ..Progress::default() }),
            changed: Condvar::new(),
        });
        let instances: Vec<String> = (0..SERIES).map(|n| format!("host-{n}")).collect();
        let mut writers = Vec::new();
        let mut shapes = Vec::new();
        for at in 0..count {
            let id = first_id + at as u64;
            let writer = Writer::with(id, SERIES, instances.clone(), Arc::clone(clock));
            let writer = writer.with_patience(CLIENT_PATIENCE).with_histograms();
            shapes.push(writer.shape());
            let shared = Arc::clone(&shared);
            writers.push(std::thread::Builder::new().spawn(move || write(&shared, writer, at))?);
        }
        let readers = (0..readers).map(|number| {
            let reader = Reader::new(number, Arc::clone(clock)).with_patience(READ_PATIENCE);
            let (shared, shapes) = (Arc::clone(&shared), shapes.clone());
            let random = Random::new(seed ^ 0xbeef ^ (number as u64) << 20);
            std::thread::Builder::new().spawn(move || read(&shared, reader, &shapes, random))
        });
        let readers = readers.collect::<std::io::Result<_>>()?;
        let watching = Arc::clone(&shared);
        let watcher = std::thread::Builder::new().spawn(move || watch(&watching))?;
        Ok(Self { shared, shapes, writers, readers, watcher })
    }

    /// The writers.
    pub fn shapes(&self) -> Vec<Shape> {
        self.shapes.clone()
    }

    /// How far it is.
    pub fn mark(&self) -> Mark {
        let progress = self.shared.progress.lock();
        Mark { acked: progress.acked.clone(), reads: progress.reads }
    }

    /// Rounds acknowledged since `mark`.
    pub fn acked_since(&self, mark: &Mark) -> u64 {
        self.mark().acked.iter().sum::<u64>() - mark.acked.iter().sum::<u64>()
    }

    /// Leaders that were replaced so far.
    pub fn leader_changes(&self) -> u64 {
        self.shared.progress.lock().leader_changes
    }

    /// Waits until every writer had `rounds` more acknowledged than at `mark`, and `reads` more reads were answered; fails
    /// after `limit`.
    pub fn wait(&self, mark: &Mark, rounds: u64, reads: u64, limit: Duration) -> Result<()> {
        let deadline = self.shared.clock.monotonic() + limit;
        let mut progress = self.shared.progress.lock();
        loop {
            let written = progress.acked.iter().zip(&mark.acked).all(|(now, then)| *now >= then + rounds);
            if written && progress.reads >= mark.reads + reads {
                return Ok(());
            }
            let left = deadline.saturating_sub(self.shared.clock.monotonic());
            ensure!(
                !left.is_zero(),
                "within {limit:?} every writer should have had {rounds} more rounds acknowledged, and {reads} reads \
                 answered; before: {mark:?}, now: {progress:?}"
            );
            self.shared.changed.wait_for(&mut progress, left);
        }
    }

    /// Lets the clients go on for `pause`.
    pub fn run_for(&self, pause: Duration) {
        self.shared.pause(pause);
    }

    /// Stops the clients and gives what they did and saw.
    pub fn finish(self) -> Result<Done> {
        self.shared.progress.lock().stop = true;
        self.shared.changed.notify_all();
        let panicked = |_| anyhow::anyhow!("a client panicked");
        let writers = self.writers.into_iter().map(|thread| thread.join().map_err(panicked));
        let writers = writers.collect::<Result<_>>()?;
        let readers = self.readers.into_iter().map(|thread| thread.join().map_err(panicked));
        let readers = readers.collect::<Result<_>>()?;
        self.watcher.join().map_err(panicked)?;
        let progress = self.shared.progress.lock();
        let (failed_writes, leader_changes) = (progress.failed, progress.leader_changes);
        drop(progress);
        Ok(Done { writers, readers, failed_writes, leader_changes })
    }
}

fn write(shared: &Shared, mut writer: Writer, at: usize) -> Writer {
    let mut node = at;
    loop {
        // An error is remembered by the writer as unknown or as a refusal, which the check reports.
        let acked = writer.send_or_retry(&shared.addresses[node]).is_ok_and(|reply| reply.status < 300);
        let mut progress = shared.progress.lock();
        if acked {
            progress.acked[at] += 1;
        } else {
            progress.failed += 1;
            node = (node + 1) % shared.addresses.len();
        }
        drop(progress);
        shared.changed.notify_all();
        let full = writer.log().rounds.len() as u64 >= crate::history::MOST_ROUNDS;
        if !writer.log().refused.is_empty() || full || shared.pause(PACE) {
            return writer;
        }
    }
}

fn read(shared: &Shared, mut reader: Reader, shapes: &[Shape], mut random: Random) -> Reader {
    loop {
        let node = random.below(shared.addresses.len());
        let shape = shapes[random.below(shapes.len())];
        let address = &shared.addresses[node];
        let answer = if random.once_in(3) {
            reader.sums(shape, node, address)
        } else {
            reader.samples(shape, node, address)
        };
        if answer.is_ok() {
            shared.progress.lock().reads += 1;
            shared.changed.notify_all();
        }
        if shared.pause(READ_PACE) {
            return reader;
        }
    }
}

/// Looks at who leads, at one node after the other.
fn watch(shared: &Shared) {
    let mut known: BTreeMap<(usize, u64), String> = BTreeMap::new();
    let mut changes = vec![0; shared.addresses.len()];
    let mut node = 0;
    while !shared.pause(LOOK) {
        node = (node + 1) % shared.addresses.len();
        // A node that does not answer just now is asked again later.
        let Ok(leaders) = leaders_at(&shared.addresses[node]) else { continue };
        for (shard, leader) in leaders {
            let before = known.insert((node, shard), leader.clone());
            if before.is_some_and(|before| before != leader) {
                changes[node] += 1;
            }
        }
        let most = changes.iter().copied().max().unwrap_or(0);
        let mut progress = shared.progress.lock();
        progress.leader_changes = most;
        drop(progress);
        shared.changed.notify_all();
    }
}

fn leaders_at(address: &str) -> Result<Vec<(u64, String)>> {
    let mut client = Client::new(address).with_patience(Duration::from_secs(2));
    let status: Value = serde_json::from_slice(&client.get("/api/v1/cluster/status")?)?;
    let shards = status["data"]["shards"].as_array().cloned().unwrap_or_default();
    Ok(shards
        .iter()
        .filter_map(|shard| Some((shard["shard"].as_u64()?, shard["leader"].as_str()?.to_owned())))
        .collect())
}
