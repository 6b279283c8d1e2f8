//! A remote-write sender that remembers what it was told, and the check of what a node holds against that.
//!
//! Each sample has a value of its own (writer × 2^32 + round × 1000 + series), is sent at most once as a new one, and
//! is in one of three states: acknowledged, refused for good, unknown (5xx, broken connection). Acknowledged samples
//! must be there, each once and with its value; nothing may be there that was not sent; unknown ones may.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use model::seam::{Clock as _, SystemClock};

use crate::node::Node;

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
#[derive(Debug)]
pub struct Writer {
    id: u64,
    series: u64,
    start_ms: i64,
    next: u64,
    acked: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    connection: Option<(String, BufReader<TcpStream>)>,
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
    /// A writer of `series` series, told apart from others by `id`. Samples lie 1 s apart, the first an hour ago.
    pub fn new(id: u64, series: u64) -> Self {
        let start_ms = SystemClock::new().now_ms() - 3_600_000;
        Self {
            id,
            series,
            start_ms,
            next: 0,
            acked: BTreeSet::new(),
            unknown: BTreeSet::new(),
            connection: None,
        }
    }

    fn value(&self, round: u64, series: u64) -> f64 {
        (self.id << 32 | (round * 1000 + series)) as f64
    }

    /// The body of a round's request.
    fn body(&self, round: u64) -> Vec<u8> {
        let stamp = self.start_ms + round as i64 * 1000;
        let series = (0..self.series).map(|n| {
            let labels = vec![
                ("__name__", "oracle".to_owned()),
                ("instance", format!("host-{}", n % 7)),
                ("job", "oracle".to_owned()),
                ("n", n.to_string()),
                ("writer", self.id.to_string()),
            ];
            (labels, vec![(stamp, self.value(round, n))])
        });
        write_body(series)
    }

    /// Sends the next round to `address`; gives the answer, or an error when the connection broke. Both are remembered.
    pub fn send(&mut self, address: &str) -> Result<Reply> {
        let round = self.next;
        self.next += 1;
        self.send_round(address, round)
    }

    /// Sends all rounds whose fate is unknown once more, as a sender's retry would.
    pub fn retry_unknown(&mut self, address: &str) -> Result<()> {
        for round in self.unknown.clone() {
            self.send_round(address, round)?;
        }
        Ok(())
    }

    fn send_round(&mut self, address: &str, round: u64) -> Result<Reply> {
        self.unknown.insert(round);
        let body = self.body(round);
        let reply = match self.post(address, &body) {
            Ok(reply) => reply,
            Err(error) => {
                self.connection = None;
                return Err(error);
            }
        };
        if (200..300).contains(&reply.status) {
            self.unknown.remove(&round);
            self.acked.insert(round);
        } else if (400..500).contains(&reply.status) {
            bail!("a valid request was refused for good: {} {}", reply.status, reply.body);
        }
        Ok(reply)
    }

    fn post(&mut self, address: &str, body: &[u8]) -> Result<Reply> {
        if self.connection.as_ref().is_none_or(|(to, _)| to != address) {
            let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.connection = Some((address.to_owned(), BufReader::new(stream)));
        }
        let Some((_, reader)) = &mut self.connection else { bail!("no connection") };
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-protobuf\r\n\
             Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
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
        self.acked.len()
    }

    /// Rounds whose fate is unknown.
    pub fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// The timestamp of the newest round, seconds.
    pub fn last_seconds(&self) -> f64 {
        (self.start_ms + (self.next.max(1) - 1) as i64 * 1000) as f64 / 1000.0
    }

    /// Reads everything of this writer back and compares. Gives how many samples there are.
    pub fn check(&self, node: &Node) -> Result<usize> {
        let expression = format!("oracle{{writer=\"{}\"}}[3h]", self.id);
        let at = (self.start_ms + 2 * 3_600_000) as f64 / 1000.0;
        let result = node.query(&expression, Some(at))?;
        let mut found: BTreeMap<u64, BTreeMap<i64, f64>> = BTreeMap::new();
        for series in result.as_array().context("a matrix")? {
            let n: u64 = series["metric"]["n"].as_str().context("a label n")?.parse()?;
            let samples = found.entry(n).or_default();
            for pair in series["values"].as_array().context("values")? {
                let stamp = (pair[0].as_f64().context("a timestamp")? * 1000.0).round() as i64;
                let value = pair[1].as_str().context("a value")?.parse()?;
                if samples.insert(stamp, value).is_some() {
                    bail!("series {n} has two samples at {stamp}");
                }
            }
        }
        let mut wrong = Vec::new();
        for &round in &self.acked {
            for n in 0..self.series {
                let stamp = self.start_ms + round as i64 * 1000;
                let got = found.get(&n).and_then(|samples| samples.get(&stamp)).copied();
                if got.map(f64::to_bits) != Some(self.value(round, n).to_bits()) {
                    wrong.push(format!("round {round} series {n} was acknowledged and is {got:?}"));
                }
            }
        }
        let mut count = 0;
        for (&n, samples) in &found {
            for (&stamp, &value) in samples {
                count += 1;
                let round = ((stamp - self.start_ms) / 1000) as u64;
                let sent =
                    round < self.next && n < self.series && value.to_bits() == self.value(round, n).to_bits();
                if !sent {
                    wrong.push(format!("series {n} has {value} at {stamp}, which nobody sent"));
                }
            }
        }
        if !wrong.is_empty() {
            let first: Vec<_> = wrong.iter().take(5).collect();
            bail!("writer {}: {} wrong samples, the first: {first:#?}", self.id, wrong.len());
        }
        Ok(count)
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
