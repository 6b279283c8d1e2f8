//! Columns of native histograms: the layouts that occur (schema, zero bucket's width, spans, boundaries), then a
//! column of floats for each number that changes, among them one for each bucket of each layout.
//!
//! ```text
//! kind 0, by columns:
//!   0 | number of layouts varint | layouts
//!   [parts of: layout numbers, when there are two layouts or more | reset hints]
//!   parts: zero counts | counts | sums
//!   for each layout, for each positive and then each negative bucket: part with that bucket's counts in the rows
//!   of that layout
//! kind 1, one by one:  1 | for each row: layout | hint | zero count, count, sum, buckets: 8 bytes each
//! layout: integer:1, has boundaries:1 | schema byte | zero threshold 8 bytes | spans, twice | number of positive
//!         buckets varint | of negative ones | [number of boundaries varint, 8 bytes each]
//! spans:  number varint | (offset zigzag, length varint) each
//! part:   length varint | column
//! ```

use std::borrow::Borrow;
use std::sync::Arc;

use model::Histogram;
use model::histogram::{ResetHint, Span};

use crate::bytes::{Reader, expect_empty, push_varint, push_zigzag};
use crate::{ChunkError, Encoder, decode_stamps, decode_values};

/// Spans and buckets of all rows of one column by columns; beyond it histograms are coded one by one, so that a decoder never
/// has to make much out of few bytes.
const MAX_CELLS: usize = 1 << 22;
const BY_COLUMNS: u8 = 0;
const ONE_BY_ONE: u8 = 1;

pub(crate) fn encode<H: Borrow<Histogram>>(encoder: &mut Encoder, histograms: &[H], out: &mut Vec<u8>) {
    if histograms.is_empty() {
        return;
    }
    let all: Vec<&Histogram> = histograms.iter().map(Borrow::borrow).collect();
    let mut layouts: Vec<&Histogram> = Vec::new();
    let mut numbers = Vec::with_capacity(all.len());
    for histogram in &all {
        // The layout of the row before is nearly always the one.
        let known = layouts.iter().rposition(|layout| same_layout(layout, histogram));
        numbers.push(known.unwrap_or_else(|| {
            layouts.push(histogram);
            layouts.len() - 1
        }));
    }
    let cells: usize =
        all.iter().map(|h| width(h) + h.positive_buckets.len() + h.negative_buckets.len()).sum();
    if cells > MAX_CELLS || layouts.len() > 16 && layouts.len() > all.len() / 2 {
        out.push(ONE_BY_ONE);
        for histogram in all {
            write_layout(histogram, out);
            out.push(histogram.reset_hint as u8);
            for value in [histogram.zero_count, histogram.count, histogram.sum]
                .iter()
                .chain(&histogram.positive_buckets)
                .chain(&histogram.negative_buckets)
            {
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        return;
    }

    out.push(BY_COLUMNS);
    push_varint(out, layouts.len() as u64);
    for layout in &layouts {
        write_layout(layout, out);
    }
    let mut writer = PartWriter { encoder, out };
    if layouts.len() > 1 {
        writer.integers(numbers.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)));
    }
    writer.integers(all.iter().map(|h| h.reset_hint as i64));
    writer.floats(all.iter().map(|h| h.zero_count));
    writer.floats(all.iter().map(|h| h.count));
    writer.floats(all.iter().map(|h| h.sum));
    for (number, layout) in layouts.iter().enumerate() {
        let rows = || all.iter().zip(&numbers).filter(|(_, n)| **n == number).map(|(h, _)| *h);
        for bucket in 0..layout.positive_buckets.len() {
            writer.floats(rows().map(|h| h.positive_buckets[bucket]));
        }
        for bucket in 0..layout.negative_buckets.len() {
            writer.floats(rows().map(|h| h.negative_buckets[bucket]));
        }
    }
}

struct PartWriter<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl PartWriter<'_> {
    fn integers(&mut self, values: impl Iterator<Item = i64>) {
        let values: Vec<i64> = values.collect();
        let mut part = std::mem::take(&mut self.encoder.part);
        part.clear();
        self.encoder.stamps(&values, &mut part);
        self.push(part);
    }

    fn floats(&mut self, values: impl Iterator<Item = f64>) {
        let mut plane = std::mem::take(&mut self.encoder.plane);
        let mut part = std::mem::take(&mut self.encoder.part);
        plane.clear();
        plane.extend(values);
        part.clear();
        self.encoder.values(&plane, &mut part);
        self.encoder.plane = plane;
        self.push(part);
    }

    fn push(&mut self, part: Vec<u8>) {
        push_varint(self.out, part.len() as u64);
        self.out.extend_from_slice(&part);
        self.encoder.part = part;
    }
}

/// Appends what `histogram` has besides its hint, counts and sum: schema, zero threshold, spans, boundaries and the
/// numbers of buckets.
pub fn put_layout(histogram: &Histogram, out: &mut Vec<u8>) {
    write_layout(histogram, out);
}

/// Reads what [`put_layout`] wrote at the front of `bytes`: a histogram of that layout whose buckets are all 0, and the
/// bytes it took. More than `max_buckets` buckets a side are refused before anything is allocated for them.
pub fn read_layout_of(bytes: &[u8], max_buckets: usize) -> Result<(Histogram, usize), ChunkError> {
    let mut reader = Reader::new(bytes);
    let layout = read_layout(&mut reader, 0)?;
    if layout.positive > max_buckets || layout.negative > max_buckets {
        return Err(ChunkError::Invalid("number of buckets"));
    }
    let mut histogram = layout.empty;
    histogram.positive_buckets = vec![0.0; layout.positive];
    histogram.negative_buckets = vec![0.0; layout.negative];
    Ok((histogram, bytes.len() - reader.remaining()))
}

/// Whether two histograms agree in all that [`put_layout`] writes.
pub fn is_same_layout(a: &Histogram, b: &Histogram) -> bool {
    same_layout(a, b)
}

/// Spans of a histogram.
fn width(histogram: &Histogram) -> usize {
    histogram.positive_spans.len() + histogram.negative_spans.len()
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn same_layout(a: &Histogram, b: &Histogram) -> bool {
    let boundaries = match (&a.custom_values, &b.custom_values) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || same_bits(a, b),
        _ => false,
    };
    boundaries
        && (a.integer, a.schema, a.zero_threshold.to_bits())
            == (b.integer, b.schema, b.zero_threshold.to_bits())
        && (a.positive_buckets.len(), a.negative_buckets.len())
            == (b.positive_buckets.len(), b.negative_buckets.len())
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
}

fn write_layout(histogram: &Histogram, out: &mut Vec<u8>) {
    out.push(u8::from(histogram.integer) | u8::from(histogram.custom_values.is_some()) << 1);
    out.extend_from_slice(&histogram.schema.to_le_bytes());
    out.extend_from_slice(&histogram.zero_threshold.to_bits().to_le_bytes());
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        push_varint(out, spans.len() as u64);
        for span in spans {
            push_zigzag(out, i64::from(span.offset));
            push_varint(out, u64::from(span.length));
        }
    }
    push_varint(out, histogram.positive_buckets.len() as u64);
    push_varint(out, histogram.negative_buckets.len() as u64);
    if let Some(boundaries) = &histogram.custom_values {
        push_varint(out, boundaries.len() as u64);
        out.extend(boundaries.iter().flat_map(|v| v.to_bits().to_le_bytes()));
    }
}

/// A layout and its numbers of positive and negative buckets; the histogram's counts are still empty.
struct Layout {
    empty: Histogram,
    positive: usize,
    negative: usize,
}

/// Reads a layout whose buckets each take at least `bucket_bytes` of what follows; 0 leaves that to the caller.
fn read_layout(reader: &mut Reader<'_>, bucket_bytes: usize) -> Result<Layout, ChunkError> {
    let flags = reader.u8()?;
    if flags > 3 {
        return Err(ChunkError::Invalid("flag of a histogram"));
    }
    let mut empty = Histogram { integer: flags & 1 != 0, ..Histogram::default() };
    empty.schema = reader.u8()?.cast_signed();
    empty.zero_threshold = f64::from_bits(reader.u64_le()?);
    for spans in [&mut empty.positive_spans, &mut empty.negative_spans] {
        let len = reader.varlen(reader.remaining() / 2, "number of spans")?;
        spans.reserve_exact(len);
        for _ in 0..len {
            let offset = i32::try_from(reader.zigzag()?).map_err(|_| ChunkError::Invalid("span"))?;
            let length = u32::try_from(reader.varint()?).map_err(|_| ChunkError::Invalid("span"))?;
            spans.push(Span { offset, length });
        }
    }
    let room = |reader: &Reader<'_>| reader.remaining().checked_div(bucket_bytes).unwrap_or(usize::MAX);
    let positive = reader.varlen(room(reader), "number of buckets")?;
    let negative = reader.varlen(room(reader), "number of buckets")?;
    if flags & 2 != 0 {
        let len = reader.varlen(reader.remaining() / 8, "number of boundaries")?;
        let values = reader.take(8 * len)?.as_chunks().0;
        empty.custom_values = Some(values.iter().map(|v| f64::from_bits(u64::from_le_bytes(*v))).collect());
    }
    Ok(Layout { empty, positive, negative })
}

fn reset_hint(number: i64) -> Result<ResetHint, ChunkError> {
    match number {
        0 => Ok(ResetHint::Unknown),
        1 => Ok(ResetHint::Reset),
        2 => Ok(ResetHint::NotReset),
        3 => Ok(ResetHint::Gauge),
        _ => Err(ChunkError::Invalid("reset hint")),
    }
}

pub(crate) fn decode(bytes: &[u8], count: usize, out: &mut Vec<Arc<Histogram>>) -> Result<(), ChunkError> {
    if count == 0 {
        return expect_empty(bytes);
    }
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        BY_COLUMNS => decode_columns(&mut reader, count, out)?,
        ONE_BY_ONE => {
            for _ in 0..count {
                out.push(Arc::new(decode_one(&mut reader)?));
            }
        }
        kind => return Err(ChunkError::UnknownTag(kind)),
    }
    reader.finish()
}

fn decode_one(reader: &mut Reader<'_>) -> Result<Histogram, ChunkError> {
    let layout = read_layout(reader, 8)?;
    let mut histogram = layout.empty;
    histogram.reset_hint = reset_hint(i64::from(reader.u8()?))?;
    histogram.zero_count = f64::from_bits(reader.u64_le()?);
    histogram.count = f64::from_bits(reader.u64_le()?);
    histogram.sum = f64::from_bits(reader.u64_le()?);
    for (buckets, len) in [
        (&mut histogram.positive_buckets, layout.positive),
        (&mut histogram.negative_buckets, layout.negative),
    ] {
        let values = reader.take(8 * len)?.as_chunks().0;
        buckets.extend(values.iter().map(|v| f64::from_bits(u64::from_le_bytes(*v))));
    }
    Ok(histogram)
}

fn decode_columns(
    reader: &mut Reader<'_>,
    count: usize,
    out: &mut Vec<Arc<Histogram>>,
) -> Result<(), ChunkError> {
    let len = reader.varlen(count.min(reader.remaining()), "number of layouts")?;
    let mut layouts = Vec::with_capacity(len);
    for _ in 0..len {
        layouts.push(read_layout(reader, 2)?);
    }
    let mut numbers = Vec::new();
    if len > 1 {
        decode_stamps(part(reader)?, count, &mut numbers)?;
    } else {
        numbers.resize(count, 0);
    }
    let mut hints = Vec::new();
    decode_stamps(part(reader)?, count, &mut hints)?;
    let [mut zero_counts, mut counts, mut sums] = [const { Vec::new() }; 3];
    for column in [&mut zero_counts, &mut counts, &mut sums] {
        decode_values(part(reader)?, count, column)?;
    }

    // Rows of each layout, in order.
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layouts.len()];
    for (row, number) in numbers.iter().enumerate() {
        let number = usize::try_from(*number).ok().filter(|n| *n < layouts.len());
        rows[number.ok_or(ChunkError::Invalid("layout number"))?].push(row);
    }
    let cells = layouts.iter().zip(&rows).try_fold(0usize, |sum, (layout, rows)| {
        let one = width(&layout.empty) + layout.positive + layout.negative;
        sum.checked_add(one.checked_mul(rows.len())?)
    });
    if cells.is_none_or(|cells| cells > MAX_CELLS) {
        return Err(ChunkError::Invalid("number of buckets"));
    }

    let mut made: Vec<Histogram> = vec![Histogram::default(); count];
    let mut plane = Vec::new();
    for (layout, rows) in layouts.iter().zip(&rows) {
        for &row in rows {
            made[row] = layout.empty.clone();
            made[row].positive_buckets.reserve_exact(layout.positive);
            made[row].negative_buckets.reserve_exact(layout.negative);
        }
        for bucket in 0..layout.positive + layout.negative {
            plane.clear();
            decode_values(part(reader)?, rows.len(), &mut plane)?;
            for (&row, &value) in rows.iter().zip(&plane) {
                let histogram = &mut made[row];
                if bucket < layout.positive {
                    histogram.positive_buckets.push(value);
                } else {
                    histogram.negative_buckets.push(value);
                }
            }
        }
    }
    for (row, mut histogram) in made.into_iter().enumerate() {
        histogram.reset_hint = reset_hint(hints[row])?;
        (histogram.zero_count, histogram.count, histogram.sum) = (zero_counts[row], counts[row], sums[row]);
        out.push(Arc::new(histogram));
    }
    Ok(())
}

fn part<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], ChunkError> {
    let len = reader.varlen(reader.remaining(), "length of a part")?;
    reader.take(len)
}
