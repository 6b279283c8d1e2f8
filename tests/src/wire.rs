//! Protobuf and snappy by hand, as a client of another make would send and read them: remote write 1.0, remote read.

use std::collections::BTreeMap;

/// Appends a varint.
pub fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length-delimited field.
pub fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn labels(out: &mut Vec<u8>, pairs: &[(&str, &str)]) {
    let sorted: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    for (name, value) in sorted {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(out, 1, &label);
    }
}

fn stamped(value: f64, timestamp: i64, number: u8) -> Vec<u8> {
    let mut out = vec![(number << 3) | 1];
    out.extend_from_slice(&value.to_le_bytes());
    out.push((number + 1) << 3);
    varint(&mut out, timestamp as u64);
    out
}

/// A request of remote write 1.0 that grows.
#[derive(Debug, Default)]
pub struct WriteRequest(Vec<u8>);

impl WriteRequest {
    /// Adds a series with samples of (timestamp in ms, value), and an exemplar with these labels at each sample, if any.
    pub fn series(
        mut self,
        pairs: &[(&str, &str)],
        samples: &[(i64, f64)],
        exemplar: Option<&[(&str, &str)]>,
    ) -> Self {
        let mut series = Vec::new();
        labels(&mut series, pairs);
        for (timestamp, value) in samples {
            field(&mut series, 2, &stamped(*value, *timestamp, 1));
        }
        if let Some(exemplar) = exemplar {
            for (timestamp, value) in samples {
                let mut one = Vec::new();
                labels(&mut one, exemplar);
                one.extend(stamped(*value, *timestamp, 2));
                field(&mut series, 3, &one);
            }
        }
        field(&mut self.0, 1, &series);
        self
    }

    /// Adds metadata of a gauge.
    pub fn metadata(mut self, family: &str, help: &str) -> Self {
        let mut entry = vec![1 << 3, 2];
        field(&mut entry, 2, family.as_bytes());
        field(&mut entry, 4, help.as_bytes());
        field(&mut self.0, 3, &entry);
        self
    }

    /// The body, as a snappy block.
    pub fn body(&self) -> Vec<u8> {
        snappy(&self.0)
    }
}

/// The body of a remote read of one query: series whose `name` matches the expression `value`.
pub fn read_request(start: i64, end: i64, name: &str, value: &str, streamed: bool) -> Vec<u8> {
    let mut matcher = vec![1 << 3, 2];
    field(&mut matcher, 2, name.as_bytes());
    field(&mut matcher, 3, value.as_bytes());
    let mut query = vec![1 << 3];
    varint(&mut query, start as u64);
    query.push(2 << 3);
    varint(&mut query, end as u64);
    field(&mut query, 3, &matcher);
    let mut out = Vec::new();
    field(&mut out, 1, &query);
    if streamed {
        out.extend([2 << 3, 1]);
    }
    snappy(&out)
}

/// `bytes` as a snappy block of literals only.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, bytes.len() as u64);
    for piece in bytes.chunks(1 << 16) {
        out.push(61 << 2);
        out.extend_from_slice(&((piece.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}
