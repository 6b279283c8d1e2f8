//! A batch of samples for one shard ⇄ bytes.
//!
//! After the version byte: tenant (flag, text), epoch, incarnation, check of known refs (16 bytes), sample time bounds,
//! scrape mark (flag, target, time), flags for optional columns. Then the series, each a reference against the one
//! before ([`super::coding`]) or labels and key; for each how many floats and whether histograms follow; then the
//! columns: timestamps against the sample before, floats against the sample before of the same series, starts,
//! histograms and their starts, exemplars, metadata. A series known by its reference with one float takes about 8 bytes.

use model::seam::{ScrapeMark, ShardBatch, ShardSeries};
use model::{Epoch, Exemplar, Labels, MetricKind, MetricMetadata, Sample, SeriesRef, TenantId};

use super::coding::{ABSENT, In, Malformed, Out};

const VERSION: u8 = 1;

const TENANT: u8 = 1;
const SCRAPE: u8 = 2;
const UNTRACKED: u8 = 4;
const STARTS: u8 = 8;
const HISTOGRAM_STARTS: u8 = 16;

/// The bytes of `batch`.
pub fn encode(batch: &ShardBatch) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(64 + batch.series.len() * 3 + batch.samples.len() * 8));
    out.byte(VERSION);
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.byte(
        flag(batch.tenant.is_some(), TENANT)
            | flag(batch.scrape.is_some(), SCRAPE)
            | flag(!batch.untracked.is_empty(), UNTRACKED)
            | flag(!batch.starts.is_empty(), STARTS)
            | flag(!batch.histogram_starts.is_empty(), HISTOGRAM_STARTS),
    );
    if let Some(tenant) = &batch.tenant {
        out.bytes(tenant.as_str().as_bytes());
    }
    out.varint(batch.epoch.0);
    out.varint(batch.incarnation);
    out.0.extend_from_slice(&batch.known_check.to_le_bytes());
    out.zigzag(batch.min_timestamp);
    out.zigzag(batch.max_timestamp);
    if let Some(mark) = batch.scrape {
        out.fixed(mark.target);
        out.zigzag(mark.timestamp);
    }
    out.varint(batch.series.len() as u64);
    let mut before = 0;
    for series in &batch.series {
        match series {
            ShardSeries::Known(SeriesRef(reference)) => out.reference(&mut before, *reference),
            ShardSeries::New { labels, key } => {
                out.byte(ABSENT);
                out.bytes(labels.as_bytes());
                out.fixed(*key);
            }
        }
    }
    let mut done = (0, 0);
    for &(samples, histograms) in &batch.ends {
        let (floats, own) = (samples.wrapping_sub(done.0), histograms.wrapping_sub(done.1));
        out.varint(u64::from(floats) << 1 | u64::from(own != 0));
        if own != 0 {
            out.varint(own.into());
        }
        done = (samples, histograms);
    }
    if !batch.untracked.is_empty() {
        out.0.extend(batch.untracked.iter().map(|&untracked| u8::from(untracked)));
    }
    samples(&mut out, batch);
    let mut before = 0_i64;
    for start in &batch.starts {
        out.zigzag(start.wrapping_sub(before));
        before = *start;
    }
    let mut before = 0_i64;
    for (timestamp, histogram) in &batch.histograms {
        out.zigzag(timestamp.wrapping_sub(before));
        before = *timestamp;
        out.histogram(histogram);
    }
    let mut before = 0_i64;
    for start in &batch.histogram_starts {
        out.zigzag(start.wrapping_sub(before));
        before = *start;
    }
    out.varint(batch.exemplars.len() as u64);
    for (series, exemplar) in &batch.exemplars {
        out.varint((*series).into());
        out.bytes(exemplar.labels.as_bytes());
        out.float(0, exemplar.value.to_bits());
        out.zigzag(exemplar.timestamp);
    }
    out.varint(batch.metadata.len() as u64);
    for metadata in &batch.metadata {
        out.metadata(metadata);
    }
    out.0
}

fn samples(out: &mut Out, batch: &ShardBatch) {
    let (mut time, mut at) = (0_i64, 0);
    for &(end, _) in &batch.ends {
        let mut value = 0;
        for sample in batch.samples.get(at..end as usize).unwrap_or_default() {
            out.zigzag(sample.timestamp.wrapping_sub(time));
            time = sample.timestamp;
            out.float(value, sample.value.to_bits());
            value = sample.value.to_bits();
        }
        at = end as usize;
    }
}

/// Reads [`encode`]'s bytes back. What it gives adds up: every series has an end, the ends cover all samples, exemplars
/// point at series.
pub fn decode(bytes: &[u8]) -> Result<ShardBatch, Malformed> {
    let mut bytes = In(bytes);
    bytes.version(VERSION)?;
    let flags = bytes.byte()?;
    if flags & !(TENANT | SCRAPE | UNTRACKED | STARTS | HISTOGRAM_STARTS) != 0 {
        return Err(Malformed("a batch has unknown flags"));
    }
    let mut batch = ShardBatch::default();
    if flags & TENANT != 0 {
        batch.tenant = Some(tenant(bytes.text()?)?);
    }
    batch.epoch = Epoch(bytes.varint()?);
    batch.incarnation = bytes.varint()?;
    let (low, high) = (bytes.fixed()?, bytes.fixed()?);
    batch.known_check = u128::from(high) << 64 | u128::from(low);
    batch.min_timestamp = bytes.zigzag()?;
    batch.max_timestamp = bytes.zigzag()?;
    if flags & SCRAPE != 0 {
        batch.scrape = Some(ScrapeMark { target: bytes.fixed()?, timestamp: bytes.zigzag()? });
    }
    series(&mut bytes, &mut batch)?;
    let (floats, histograms) = ends(&mut bytes, &mut batch)?;
    if flags & UNTRACKED != 0 {
        batch.untracked = bytes.take(batch.series.len())?.iter().map(|&byte| byte != 0).collect();
    }
    if bytes.0.len() < floats * 2 + histograms * 2 {
        return Err(Malformed("a batch announces more samples than it has"));
    }
    batch.samples.reserve_exact(floats);
    let (mut time, mut at) = (0_i64, 0);
    for &(end, _) in &batch.ends {
        let mut value = 0;
        while at < end {
            time = time.wrapping_add(bytes.zigzag()?);
            value = bytes.float(value)?;
            batch.samples.push(Sample { timestamp: time, value: f64::from_bits(value) });
            at += 1;
        }
    }
    if flags & STARTS != 0 {
        let mut before = 0_i64;
        for _ in 0..floats {
            before = before.wrapping_add(bytes.zigzag()?);
            batch.starts.push(before);
        }
    }
    let mut before = 0_i64;
    for _ in 0..histograms {
        before = before.wrapping_add(bytes.zigzag()?);
        batch.histograms.push((before, bytes.histogram()?));
    }
    if flags & HISTOGRAM_STARTS != 0 {
        let mut before = 0_i64;
        for _ in 0..histograms {
            before = before.wrapping_add(bytes.zigzag()?);
            batch.histogram_starts.push(before);
        }
    }
    for _ in 0..bytes.count(4)? {
        let series = bytes.small()?;
        if series as usize >= batch.series.len() {
            return Err(Malformed("an exemplar of a series that is not in the batch"));
        }
        let labels = labels(bytes.bytes()?)?;
        let value = f64::from_bits(bytes.float(0)?);
        batch.exemplars.push((series, Exemplar { labels, value, timestamp: bytes.zigzag()? }));
    }
    for _ in 0..bytes.count(4)? {
        batch.metadata.push(bytes.metadata()?);
    }
    bytes.end()?;
    Ok(batch)
}

fn series(bytes: &mut In<'_>, batch: &mut ShardBatch) -> Result<(), Malformed> {
    let count = bytes.count(2)?;
    batch.series.reserve_exact(count);
    let mut before = 0;
    for _ in 0..count {
        let series = match bytes.reference(&mut before)? {
            Some(reference) => ShardSeries::Known(SeriesRef(reference)),
            None => ShardSeries::New { labels: labels(bytes.bytes()?)?, key: bytes.fixed()? },
        };
        batch.series.push(series);
    }
    Ok(())
}

/// The ends, and how many floats and histograms there are.
fn ends(bytes: &mut In<'_>, batch: &mut ShardBatch) -> Result<(usize, usize), Malformed> {
    let too_many = || Malformed("a batch has more than 2^32 samples");
    let mut done = (0_u32, 0_u32);
    batch.ends.reserve_exact(batch.series.len());
    for _ in 0..batch.series.len() {
        let number = bytes.varint()?;
        let floats = u32::try_from(number >> 1).map_err(|_| too_many())?;
        let own = if number & 1 != 0 { bytes.small()? } else { 0 };
        done.0 = done.0.checked_add(floats).ok_or_else(too_many)?;
        done.1 = done.1.checked_add(own).ok_or_else(too_many)?;
        batch.ends.push(done);
    }
    Ok((done.0 as usize, done.1 as usize))
}

pub(crate) fn tenant(name: &str) -> Result<TenantId, Malformed> {
    TenantId::new(name).map_err(|_| Malformed("not a tenant's name"))
}

pub(crate) fn labels(bytes: &[u8]) -> Result<Labels, Malformed> {
    Labels::from_canonical(bytes).map_err(|_| Malformed("labels are not canonical"))
}

impl Out {
    fn metadata(&mut self, metadata: &MetricMetadata) {
        self.bytes(metadata.family.as_bytes());
        self.byte(metadata.kind as u8);
        self.bytes(metadata.help.as_bytes());
        self.bytes(metadata.unit.as_bytes());
    }
}

impl In<'_> {
    fn metadata(&mut self) -> Result<MetricMetadata, Malformed> {
        Ok(MetricMetadata {
            family: self.text()?.to_owned(),
            kind: MetricKind::from_number(self.byte()?.into()),
            help: self.text()?.to_owned(),
            unit: self.text()?.to_owned(),
        })
    }
}
