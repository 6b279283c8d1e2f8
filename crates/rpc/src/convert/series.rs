//! Series of a select ⇄ bytes: records, several in a part; a long series goes on in further records.
//!
//! A record: flags, labels (only where a series begins), how many samples, timestamps as differences of differences,
//! floats against the one before, then start timestamps and histograms where there are some.

use model::seam::SeriesData;

use super::batch::labels;
use super::coding::{In, Malformed, Out};

const BEGINS: u8 = 1;
const ENDS: u8 = 2;
const STARTS: u8 = 4;
const HISTOGRAMS: u8 = 8;

/// Samples in one record, at most: what bounds a part, whatever the length of a series.
const RECORD: usize = 8192;
/// Histograms in one record, at most.
const RECORD_HISTOGRAMS: usize = 256;

/// Appends a record of `data` from sample `from` on to `out`; where the next one begins, `None` at the end of the series.
pub fn encode(data: &SeriesData, from: usize, out: &mut Vec<u8>) -> Option<usize> {
    let mut to = data.stamps.len().min(from + RECORD);
    let first = data.histograms.partition_point(|(at, _)| (*at as usize) < from);
    let mut histograms = &data.histograms[first..];
    if let Some((at, _)) = histograms.get(RECORD_HISTOGRAMS) {
        to = to.min(*at as usize);
    }
    histograms = &histograms[..histograms.partition_point(|(at, _)| (*at as usize) < to)];
    let ends = to == data.stamps.len();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut put = Out(std::mem::take(out));
    put.byte(
        flag(from == 0, BEGINS)
            | flag(ends, ENDS)
            | flag(!data.starts.is_empty(), STARTS)
            | flag(!histograms.is_empty(), HISTOGRAMS),
    );
    if from == 0 {
        put.bytes(data.labels.as_bytes());
    }
    put.varint((to - from) as u64);
    let (mut stamp, mut step) = (0_i64, 0_i64);
    for &next in &data.stamps[from..to] {
        let difference = next.wrapping_sub(stamp);
        put.zigzag(difference.wrapping_sub(step));
        (stamp, step) = (next, difference);
    }
    let mut before = 0;
    for at in from..to {
        // Where a histogram stands the float has no meaning; sources may leave it out.
        let bits = data.values.get(at).map_or(0, |value| value.to_bits());
        put.float(before, bits);
        before = bits;
    }
    if !data.starts.is_empty() {
        let mut before = 0_i64;
        for at in from..to {
            let start = data.starts.get(at).copied().unwrap_or(0);
            put.zigzag(start.wrapping_sub(before));
            before = start;
        }
    }
    if !histograms.is_empty() {
        put.varint(histograms.len() as u64);
        for (at, histogram) in histograms {
            put.varint(u64::from(*at) - from as u64);
            put.histogram(histogram);
        }
    }
    *out = put.0;
    (!ends).then_some(to)
}

/// Takes records off the front of `part` into `data` until the series ends (true) or the part does (false: the next
/// part goes on with the same series). `within` tells whether `data` holds the beginning already.
pub fn decode(part: &mut &[u8], within: bool, data: &mut SeriesData) -> Result<bool, Malformed> {
    let mut bytes = In(part);
    let mut within = within;
    while !bytes.is_empty() {
        let flags = bytes.byte()?;
        if flags & !(BEGINS | ENDS | STARTS | HISTOGRAMS) != 0 || (flags & BEGINS != 0) == within {
            return Err(Malformed("a record of a series is out of place"));
        }
        if flags & BEGINS != 0 {
            data.clear();
            data.labels = labels(bytes.bytes()?)?;
            within = true;
        }
        record(&mut bytes, flags, data)?;
        *part = bytes.0;
        if flags & ENDS != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn record(bytes: &mut In<'_>, flags: u8, data: &mut SeriesData) -> Result<(), Malformed> {
    let from = data.stamps.len();
    let count = bytes.count(2)?;
    let (mut stamp, mut step) = (0_i64, 0_i64);
    data.stamps.reserve(count);
    for _ in 0..count {
        step = step.wrapping_add(bytes.zigzag()?);
        stamp = stamp.wrapping_add(step);
        data.stamps.push(stamp);
    }
    let mut before = 0;
    data.values.reserve(count);
    for _ in 0..count {
        before = bytes.float(before)?;
        data.values.push(f64::from_bits(before));
    }
    if flags & STARTS != 0 {
        if data.starts.len() != from {
            return Err(Malformed("start timestamps are missing in part of a series"));
        }
        let mut before = 0_i64;
        for _ in 0..count {
            before = before.wrapping_add(bytes.zigzag()?);
            data.starts.push(before);
        }
    } else if !data.starts.is_empty() {
        return Err(Malformed("start timestamps are missing in part of a series"));
    }
    if flags & HISTOGRAMS != 0 {
        let mut least = 0;
        for _ in 0..bytes.count(2)? {
            let at = bytes.varint()?;
            if at < least || at >= count as u64 {
                return Err(Malformed("a histogram stands where no sample is"));
            }
            least = at + 1;
            let at = u32::try_from(from as u64 + at).map_err(|_| Malformed("a series is too long"))?;
            data.histograms.push((at, bytes.histogram()?));
        }
    }
    Ok(())
}
