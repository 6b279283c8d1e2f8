//! A remote-write sender that remembers what it was told, a reader that remembers what it saw, and the comparison.
//!
//! Each sample has a value of its own (writer × 2^32 + round × 1000 + series), is sent at most once as a new one, and
//! is in one of three states: acknowledged, refused for good, unknown (5xx, broken connection). Acknowledged samples
//! must be there, each once and with its value; nothing may be there that was not sent; unknown ones may. The rules
//! are carried out in [`crate::history`].

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use benches::http::{Client, encoded};
use model::Labels;
use model::seam::{Clock, SystemClock};
use serde_json::Value;

use crate::history::{self, MOST_ROUNDS, MOST_SERIES, Read, Round, Seen, Shape, WriterLog};
use crate::native;
use crate::node::Node;
use crate::remote_write::{Series, Version, body_v1, body_v2};

/// The metric of series that carry floats, and of those that carry histograms.
const FLOATS: &str = "oracle";
const NATIVE: &str = "oracle_native";

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header lines, in lower case.
    pub headers: String,
    /// The body.
    pub body: String,
}

/// One writer: some series, one sample each a round.
pub struct Writer {
    log: WriterLog,
    instances: Vec<String>,
    unknown: BTreeSet<u64>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    connection: Option<(String, BufReader<TcpStream>)>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounds = self.log.rounds.len();
        write!(
            f,
            "Writer({}: {rounds} rounds, {} acked, unknown {:?})",
            self.log.shape.id,
            self.acked(),
            self.unknown
        )
    }
}

/// Appends a protobuf varint.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Writer {
    /// A writer of `series` series, told apart from others by `id`. Samples lie 1 s apart, the first two and a half hours
    /// ago: none is ahead of a node whose clock is an hour late.
    pub fn new(id: u64, series: u64) -> Self {
        let instances = (0..7).map(|n| format!("host-{n}")).collect();
        Self::with(id, series, instances, Arc::new(SystemClock::new()))
    }

    /// The same whose series are those of `instances`, by turns, and whose history is told in the time of `clock`.
    pub fn with(id: u64, series: u64, instances: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        assert!(series <= MOST_SERIES && !instances.is_empty(), "a writer of {series} series");
        let shape = Shape { id, series, start_ms: clock.now_ms() - 9_000_000, histograms: false };
        Self {
            log: WriterLog { shape, rounds: Vec::new(), refused: Vec::new() },
            instances,
            unknown: BTreeSet::new(),
            clock,
            patience: Duration::from_secs(60),
            connection: None,
        }
    }

    /// With native histograms in part of its series ([`native::carries`]), sent by remote write 2.0 and 1.0 by turns.
    #[must_use]
    pub fn with_histograms(mut self) -> Self {
        self.log.shape.histograms = true;
        self
    }

    /// With so long to wait for an answer; 60 s without this. What comes later is unknown.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Who it is.
    pub fn shape(&self) -> Shape {
        self.log.shape
    }

    /// What it did so far.
    pub fn log(&self) -> &WriterLog {
        &self.log
    }

    /// The labels of its series number `n`, sorted.
    fn labels(&self, n: u64) -> Vec<(&'static str, String)> {
        let name = if self.log.shape.is_native(n) { NATIVE } else { FLOATS };
        vec![
            ("__name__", name.to_owned()),
            ("instance", self.instances[n as usize % self.instances.len()].clone()),
            ("job", "oracle".to_owned()),
            ("n", n.to_string()),
            ("writer", self.log.shape.id.to_string()),
        ]
    }

    /// The body of a round's request, and its version.
    fn body(&self, round: u64) -> Result<(Version, Vec<u8>)> {
        let shape = self.log.shape;
        let stamp = shape.stamp(round);
        if !shape.histograms {
            let series = (0..shape.series).map(|n| (self.labels(n), vec![(stamp, shape.value(round, n))]));
            return Ok((Version::V1, write_body(series)));
        }
        let series = |n: u64| -> Result<Series> {
            let labels = Labels::from_pairs(self.labels(n))?;
            let series = Series { labels, ..Series::default() };
            Ok(if shape.is_native(n) {
                series.histogram(stamp, native::histogram(&shape, round, n))
            } else {
                series.float(stamp, shape.value(round, n))
            })
        };
        let all: Vec<Series> = (0..shape.series).map(series).collect::<Result<_>>()?;
        let (version, body) = match round % 2 {
            0 => (Version::V2, body_v2(&all)),
            _ => (Version::V1, body_v1(&all)),
        };
        Ok((version, snap(&body)))
    }

    /// Sends the next round to `address`; gives the answer, or an error when the connection broke. Both are remembered.
    pub fn send(&mut self, address: &str) -> Result<Reply> {
        let round = self.log.rounds.len() as u64;
        ensure!(round < MOST_ROUNDS, "writer {} has sent all it can", self.log.shape.id);
        self.log.rounds.push(Round { invoked: self.clock.monotonic(), acked: None, tries: 0 });
        self.send_round(address, round)
    }

    /// Sends all rounds whose fate is unknown once more, as a sender's retry would.
    pub fn retry_unknown(&mut self, address: &str) -> Result<()> {
        for round in self.unknown.clone() {
            self.send_round(address, round)?;
        }
        Ok(())
    }

    /// Sends the first round whose fate is unknown once more, else the next one.
    pub fn send_or_retry(&mut self, address: &str) -> Result<Reply> {
        match self.unknown.first().copied() {
            Some(round) => self.send_round(address, round),
            None => self.send(address),
        }
    }

    fn send_round(&mut self, address: &str, round: u64) -> Result<Reply> {
        self.unknown.insert(round);
        self.log.rounds[round as usize].tries += 1;
        let (version, body) = self.body(round)?;
        let reply = match self.post(address, version, &body) {
            Ok(reply) => reply,
            Err(error) => {
                self.connection = None;
                return Err(error);
            }
        };
        if (200..300).contains(&reply.status) {
            self.unknown.remove(&round);
            self.log.rounds[round as usize].acked = Some(self.clock.monotonic());
            self.told_all(round, version, &reply);
        } else if (400..500).contains(&reply.status) {
            let answer = format!("round {round}: {} {}", reply.status, reply.body);
            self.log.refused.push(answer);
            bail!("a valid request was refused for good: {} {}", reply.status, reply.body);
        }
        Ok(reply)
    }

    /// An acknowledgement by 2.0 says how much was stored: all, also of what was there before.
    fn told_all(&mut self, round: u64, version: Version, reply: &Reply) {
        let shape = self.log.shape;
        let told = |kind: &str, count: u64| {
            reply.headers.contains(&format!("x-prometheus-remote-write-{kind}-written: {count}\r\n"))
        };
        let all = told("samples", shape.series - shape.natives()) && told("histograms", shape.natives());
        if version == Version::V2 && !all {
            let answer = format!("round {round} was acknowledged, but not all of it: {}", reply.headers);
            self.log.refused.push(answer);
        }
    }

    fn post(&mut self, address: &str, version: Version, body: &[u8]) -> Result<Reply> {
        if self.connection.as_ref().is_none_or(|(to, _)| to != address) {
            let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.patience))?;
            self.connection = Some((address.to_owned(), BufReader::new(stream)));
        }
        let Some((_, reader)) = &mut self.connection else { bail!("no connection") };
        let (content_type, number) = version.headers();
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: {number}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        reader.get_mut().write_all(head.as_bytes())?;
        reader.get_mut().write_all(body)?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status =
            line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("the answer has no status line")?;
        let mut headers = String::new();
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                break;
            }
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            headers.push_str(&header);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Reply { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Rounds acknowledged so far.
    pub fn acked(&self) -> usize {
        self.log.rounds.iter().filter(|round| round.acked.is_some()).count()
    }

    /// Rounds whose fate is unknown.
    pub fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// The timestamp of the newest round, seconds.
    pub fn last_seconds(&self) -> f64 {
        let last = self.log.rounds.len().saturating_sub(1);
        self.log.shape.stamp(last as u64) as f64 / 1000.0
    }

    /// Reads everything of this writer back and compares. Gives how many samples there are.
    pub fn check(&self, node: &Node) -> Result<usize> {
        let mut reader = Reader::new(0, Arc::clone(&self.clock));
        reader.samples(self.log.shape, 0, &node.address)?;
        let wrong = history::check(&self.log, &reader.reads);
        if !wrong.is_empty() {
            let first: Vec<String> = wrong.iter().take(5).map(ToString::to_string).collect();
            bail!("writer {}: {} wrong samples, the first: {first:#?}", self.log.shape.id, wrong.len());
        }
        let Some(Seen::Samples(bits)) = reader.reads.first().map(|read| &read.seen) else { bail!("no read") };
        Ok(bits.iter().map(|round| round.count_ones() as usize).sum())
    }
}

/// A client that reads, and remembers what it saw.
pub struct Reader {
    number: usize,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// What it was told so far.
    pub reads: Vec<Read>,
    /// Reads that were not answered, or with an error.
    pub failed: u64,
    client: Option<(String, Client)>,
}

impl Reader {
    /// A reader of that number, whose history is told in the time of `clock`.
    pub fn new(number: usize, clock: Arc<dyn Clock>) -> Self {
        let patience = Duration::from_secs(60);
        Self { number, clock, patience, reads: Vec::new(), failed: 0, client: None }
    }

    /// With so long to wait for an answer; 60 s without this.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn ask(&mut self, address: &str, expression: &str, at_ms: i64) -> Result<Value> {
        if self.client.as_ref().is_none_or(|(to, _)| to != address) {
            self.client = Some((address.to_owned(), Client::new(address).with_patience(self.patience)));
        }
        let Some((_, client)) = &mut self.client else { bail!("no client") };
        let time = at_ms as f64 / 1000.0;
        let path = format!("/api/v1/query?query={}&time={time}", encoded(expression));
        let answer: Value = serde_json::from_slice(&client.get(&path)?)?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].clone())
    }

    fn read(
        &mut self,
        shape: Shape,
        node: usize,
        ask: impl FnOnce(&mut Self) -> Result<(Seen, Vec<history::Violation>)>,
    ) -> Result<()> {
        let invoked = self.clock.monotonic();
        match ask(self) {
            Ok((seen, wrong)) => {
                let (reader, writer, completed) = (self.number, shape.id, self.clock.monotonic());
                self.reads.push(Read { reader, node, writer, invoked, completed, seen, wrong });
                Ok(())
            }
            Err(error) => {
                self.failed += 1;
                Err(error)
            }
        }
    }

    /// Reads every sample of a writer from node `node` at `address`. An error is no answer, which is no wrong one.
    pub fn samples(&mut self, shape: Shape, node: usize, address: &str) -> Result<()> {
        self.read(shape, node, |this| {
            let expression = format!("{{__name__=~\"{FLOATS}|{NATIVE}\",writer=\"{}\"}}[3h]", shape.id);
            let result = this.ask(address, &expression, shape.start_ms + 2 * 3_600_000)?;
            let (bits, wrong) = history::samples_of(shape, &result)?;
            Ok((Seen::Samples(bits), wrong))
        })
    }

    /// Counts and sums the samples of a writer, as [`Reader::samples`] reads them.
    pub fn sums(&mut self, shape: Shape, node: usize, address: &str) -> Result<()> {
        self.read(shape, node, |this| {
            let writer = format!("writer=\"{}\"", shape.id);
            let named =
                |is: &str, what: String| format!("label_replace({what}, \"is\", \"{is}\", \"\", \"\")");
            // Histograms of several kinds have no sum together.
            let all = [
                named(
                    "count",
                    format!("sum(count_over_time({{__name__=~\"{FLOATS}|{NATIVE}\",{writer}}}[3h]))"),
                ),
                named("sum", format!("sum(sum_over_time({FLOATS}{{{writer}}}[3h]))")),
                named(
                    "natives",
                    format!("sum(histogram_sum(sum by (n) (sum_over_time({NATIVE}{{{writer}}}[3h]))))"),
                ),
            ];
            let result = this.ask(address, &all.join(" or "), shape.start_ms + 2 * 3_600_000)?;
            let value = |is: &str| -> Result<f64> {
                let all = result.as_array().context("a vector")?;
                match all.iter().find(|series| series["metric"]["is"] == is) {
                    None => Ok(0.0),
                    Some(series) => Ok(series["value"][1].as_str().context("a value")?.parse()?),
                }
            };
            let sum = value("sum")? + value("natives")?;
            Ok((Seen::Sums { count: value("count")?, sum }, Vec::new()))
        })
    }
}

/// A series to send: sorted labels, and samples ascending in time.
pub type SeriesToSend = (Vec<(&'static str, String)>, Vec<(i64, f64)>);

/// A remote-write 1.0 body of `series`.
pub fn write_body(series: impl IntoIterator<Item = SeriesToSend>) -> Vec<u8> {
    let mut message = Vec::new();
    for (labels, samples) in series {
        let mut one = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            field(&mut label, 1, name.as_bytes());
            field(&mut label, 2, value.as_bytes());
            field(&mut one, 1, &label);
        }
        for (stamp, value) in samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend_from_slice(&value.to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, stamp as u64);
            field(&mut one, 2, &sample);
        }
        field(&mut message, 1, &one);
    }
    snap(&message)
}

/// Snappy's block format with literals only: no compression is needed here.
fn snap(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 1000 + 16);
    varint(&mut out, bytes.len() as u64);
    for part in bytes.chunks(1 << 16) {
        let last = part.len() - 1;
        out.extend_from_slice(&[61 << 2, last as u8, (last >> 8) as u8]);
        out.extend_from_slice(part);
    }
    out
}
