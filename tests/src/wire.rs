//! Bodies of remote write 1.0 and remote read as a client of another make would send them, compressed.

use super::remote_write::{Fields, Series, body_v1};

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
        let mut series = Series::of(pairs);
        for (timestamp, value) in samples {
            series = series.float(*timestamp, *value);
            if let Some(labels) = exemplar {
                series = series.exemplar(*timestamp, *value, labels);
            }
        }
        self.0.extend(body_v1(&[series]));
        self
    }

    /// Adds metadata of a gauge.
    pub fn metadata(mut self, family: &str, help: &str) -> Self {
        let mut entry = Fields::default();
        entry.varint(1, 2).bytes(2, family.as_bytes()).bytes(4, help.as_bytes());
        let mut request = Fields(self.0);
        request.bytes(3, &entry.0);
        self.0 = request.0;
        self
    }

    /// The body, as a snappy block.
    pub fn body(&self) -> Vec<u8> {
        snappy(&self.0)
    }
}

/// The body of a remote read of one query: series whose `name` matches the expression `value`.
pub fn read_request(start: i64, end: i64, name: &str, value: &str, streamed: bool) -> Vec<u8> {
    let mut matcher = Fields::default();
    matcher.varint(1, 2).bytes(2, name.as_bytes()).bytes(3, value.as_bytes());
    let mut query = Fields::default();
    query.varint(1, start as u64).varint(2, end as u64).bytes(3, &matcher.0);
    let mut request = Fields::default();
    request.bytes(1, &query.0);
    if streamed {
        request.varint(2, 1);
    }
    snappy(&request.0)
}

/// `bytes` as a snappy block. Panics on more than 4 GiB.
pub fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("a block of less than 4 GiB")
}
