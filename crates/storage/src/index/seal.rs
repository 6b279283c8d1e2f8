//! An index in memory → the block of an ended partition. All numbers are little endian.
//!
//! ```text
//! header     version byte, 3 zero bytes | crc32c of all that follows | length of the block | number of names
//!            | of series | of shapes | offsets of shapes, postings, forward, all      (each u32, from the start)
//! names      for each, ascending: offset and length of its text, number of values, offset of its groups (u32)
//!            | the texts
//! groups     for each name, for each 16 values, ascending: offset of the values, offset of the postings (u32)
//! values     shared bytes with the value before varint (0 for the first of a group) | further bytes varint | they
//!            | varint: kind:2, rest: 0 = bitmap of `rest` bytes, 1 = the only ordinal, 2 = list of `rest` bytes
//! shapes     for each set of label names that occurs: how many varint | their numbers varint
//! postings   bitmaps (roaring's portable format) and lists (varint: first, then differences), in values' order
//! forward    for each 32 series of `all`: offset (u32) | for each series: 0 = shape of the one before, bitmap of
//!            the values that differ, or shape number + 1 varint, all values follow | numbers of values varint
//! all        a bitmap
//! ```

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::postings::Ids;
use super::{IndexError, MemIndex};

/// The version byte.
pub(super) const VERSION: u8 = 1;
pub(super) const HEADER_LEN: usize = 40;
/// Bytes of a name in the directory.
pub(super) const NAME_LEN: usize = 16;
/// Values in a group.
pub(super) const GROUP: usize = 16;
/// Bytes of a group in the table of a name.
pub(super) const GROUP_LEN: usize = 8;
/// Series in a group of the forward table.
pub(super) const SERIES_GROUP: usize = 32;

pub(super) const BITMAP: u64 = 0;
pub(super) const SINGLE: u64 = 1;
pub(super) const LIST: u64 = 2;

/// Appends the sealed form of `index`.
pub(super) fn seal(index: &MemIndex, out: &mut Vec<u8>) -> Result<(), IndexError> {
    let start = out.len();
    let mut block = vec![0; HEADER_LEN];

    let mut names: Vec<_> = index.names_in_use().collect();
    names.sort_unstable_by(|a, b| a.1.text.cmp(&b.1.text));
    let directory = block.len();
    block.resize(directory + NAME_LEN * names.len(), 0);
    let mut postings: Vec<u8> = Vec::new();
    // Numbers of names and pairs in memory → in the block.
    let mut name_numbers: HashMap<u32, u32> = HashMap::new();
    let mut value_numbers: HashMap<u32, u32> = HashMap::with_capacity(index.label_pairs());
    for (at, (number, name)) in names.iter().enumerate() {
        name_numbers.insert(*number, small(at)?);
        let text_at = block.len();
        block.extend_from_slice(name.text.as_bytes());
        let values = index.sorted_values(name);
        let groups = block.len();
        block.resize(groups + GROUP_LEN * values.len().div_ceil(GROUP), 0);
        for (group, numbers) in values.chunks(GROUP).enumerate() {
            let entry = groups + GROUP_LEN * group;
            let values_at = small(block.len())?;
            put(&mut block, entry, values_at);
            put(&mut block, entry + 4, small(postings.len())?);
            let mut before: &[u8] = &[];
            for (within, pair_number) in numbers.iter().enumerate() {
                value_numbers.insert(*pair_number, small(group * GROUP + within)?);
                let pair = index.pair_at(*pair_number);
                let value = pair.value.as_bytes();
                let shared = before.iter().zip(value).take_while(|(a, b)| a == b).count();
                push_varint(&mut block, shared as u64);
                push_varint(&mut block, (value.len() - shared) as u64);
                block.extend_from_slice(&value[shared..]);
                write_postings(pair.postings.ids(), &mut block, &mut postings)?;
                before = value;
            }
        }
        let entry = directory + NAME_LEN * at;
        put(&mut block, entry, small(text_at)?);
        put(&mut block, entry + 4, small(name.text.len())?);
        put(&mut block, entry + 8, small(values.len())?);
        put(&mut block, entry + 12, small(groups)?);
    }

    let mut shapes: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut shape_bytes = Vec::new();
    let forward = write_forward(index, &name_numbers, &value_numbers, &mut shapes, &mut shape_bytes)?;
    let all = index.series_bitmap();
    let mut header = vec![small(names.len())?, small(usize_of(all.len())?)?, small(shapes.len())?];
    let mut all_bytes = Vec::with_capacity(all.serialized_size());
    serialize(all.clone(), &mut all_bytes)?;
    for section in [&shape_bytes, &postings, &forward, &all_bytes] {
        header.push(small(block.len())?);
        block.extend_from_slice(section);
    }

    block[0] = VERSION;
    let len = small(block.len())?;
    put(&mut block, 8, len);
    for (i, number) in header.into_iter().enumerate() {
        put(&mut block, 12 + 4 * i, number);
    }
    let checksum = crc32c::crc32c(&block[8..]);
    put(&mut block, 4, checksum);
    if start == 0 {
        *out = block;
    } else {
        out.extend_from_slice(&block);
    }
    Ok(())
}

fn write_postings(ids: Ids<'_>, block: &mut Vec<u8>, postings: &mut Vec<u8>) -> Result<(), IndexError> {
    let start = postings.len();
    let kind = match ids {
        Ids::Few(few) if few.len() == 1 => {
            push_varint(block, u64::from(few[0]) << 2 | SINGLE);
            return Ok(());
        }
        Ids::Few(few) => {
            let mut before = 0;
            for id in &*few {
                push_varint(postings, u64::from(id - before));
                before = *id;
            }
            LIST
        }
        Ids::Many(many) => {
            serialize(many.into_owned(), postings)?;
            BITMAP
        }
    };
    push_varint(block, ((postings.len() - start) as u64) << 2 | kind);
    Ok(())
}

fn write_forward(
    index: &MemIndex,
    name_numbers: &HashMap<u32, u32>,
    value_numbers: &HashMap<u32, u32>,
    shapes: &mut HashMap<Vec<u32>, u32>,
    shape_bytes: &mut Vec<u8>,
) -> Result<Vec<u8>, IndexError> {
    let missing = IndexError::Format("pair of a series");
    let all = index.series_bitmap();
    let groups = usize_of(all.len())?.div_ceil(SERIES_GROUP);
    let mut out = vec![0; 4 * groups];
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    let (mut shape_before, mut values_before) = (u32::MAX, Vec::new());
    for (row, ordinal) in all.iter().enumerate() {
        if row % SERIES_GROUP == 0 {
            let at = small(out.len())?;
            put(&mut out, 4 * (row / SERIES_GROUP), at);
            shape_before = u32::MAX;
        }
        shape.clear();
        values.clear();
        for number in index.pairs_of(ordinal) {
            let name = index.pair_at(number).name;
            shape.push(*name_numbers.get(&name).ok_or(missing.clone())?);
            values.push(*value_numbers.get(&number).ok_or(missing.clone())?);
        }
        let number = match shapes.get(&shape) {
            Some(number) => *number,
            None => {
                let number = small(shapes.len())?;
                push_varint(shape_bytes, shape.len() as u64);
                shape.iter().for_each(|name| push_varint(shape_bytes, u64::from(*name)));
                shapes.insert(shape.clone(), number);
                number
            }
        };
        if number == shape_before {
            out.push(0);
            let bitmap = out.len();
            out.resize(bitmap + values.len().div_ceil(8), 0);
            for (i, (value, before)) in values.iter().zip(&values_before).enumerate() {
                if value != before {
                    out[bitmap + i / 8] |= 1 << (i % 8);
                    push_varint(&mut out, u64::from(*value));
                }
            }
        } else {
            push_varint(&mut out, u64::from(number) + 1);
            values.iter().for_each(|value| push_varint(&mut out, u64::from(*value)));
        }
        shape_before = number;
        values_before.clone_from(&values);
    }
    Ok(out)
}

fn serialize(mut bitmap: RoaringBitmap, out: &mut Vec<u8>) -> Result<(), IndexError> {
    bitmap.optimize();
    bitmap.serialize_into(out).map_err(|_| IndexError::TooLarge)
}

fn small(number: usize) -> Result<u32, IndexError> {
    u32::try_from(number).map_err(|_| IndexError::TooLarge)
}

fn usize_of(number: u64) -> Result<usize, IndexError> {
    usize::try_from(number).map_err(|_| IndexError::TooLarge)
}

fn put(block: &mut [u8], at: usize, number: u32) {
    block[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

#[allow(clippy::cast_possible_truncation, reason = "the low seven bits are what is wanted")]
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
