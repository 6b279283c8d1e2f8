//! Look-ups in the bytes of a sealed index, decoding only what they touch. The drawing of the bytes is in `seal.rs`.

use std::borrow::Cow;

use model::labels::push_pair;
use model::{Labels, Matcher};
use roaring::RoaringBitmap;

use super::postings::Ids;
use super::query::{self, View};
use super::seal::{BITMAP, GROUP, GROUP_LEN, HEADER_LEN, LIST, NAME_LEN, SERIES_GROUP, SINGLE, VERSION};
use super::{IndexError, SeriesIndex};

/// The index of an ended partition, over bytes that were verified once.
#[derive(Clone, Debug)]
pub struct SealedIndex<B> {
    bytes: B,
    all: RoaringBitmap,
    /// Name numbers of each shape.
    shapes: Vec<Vec<u32>>,
    names: usize,
    postings: usize,
    forward: usize,
}

/// A name in the directory.
#[derive(Clone, Copy)]
struct NameEntry<'a> {
    text: &'a str,
    values: usize,
    groups: usize,
}

impl<B: AsRef<[u8]>> SealedIndex<B> {
    /// Verifies version and checksum of `bytes`, which are all of the block and nothing else.
    pub fn open(bytes: B) -> Result<Self, IndexError> {
        let block = bytes.as_ref();
        let version = *block.first().ok_or(IndexError::Format("length"))?;
        if version != VERSION {
            return Err(IndexError::Version(version));
        }
        if block.len() < HEADER_LEN || u32_at(block, 8)? as usize != block.len() {
            return Err(IndexError::Format("length"));
        }
        let (found, expected) = (u32_at(block, 4)?, crc32c::crc32c(&block[8..]));
        if found != expected {
            return Err(IndexError::Checksum { found, expected });
        }
        let number = |i: usize| u32_at(block, 12 + 4 * i).map(|n| n as usize);
        let (names, series, n_shapes) = (number(0)?, number(1)?, number(2)?);
        let (at_shapes, postings, forward, at_all) = (number(3)?, number(4)?, number(5)?, number(6)?);
        let all = bitmap(block.get(at_all..).ok_or(IndexError::Format("offset"))?)?;
        let ordered = at_shapes <= postings && postings <= forward && forward <= at_all;
        if !ordered || all.len() != series as u64 || names > block.len() / NAME_LEN || n_shapes > block.len()
        {
            return Err(IndexError::Format("header"));
        }
        let mut reader = Reader { bytes: block, at: at_shapes };
        let mut shapes = Vec::with_capacity(n_shapes);
        for _ in 0..n_shapes {
            let len = reader.number()?;
            if len as usize > names {
                return Err(IndexError::Format("shape"));
            }
            let shape: Vec<u32> = (0..len).map(|_| reader.number()).collect::<Result<_, _>>()?;
            if shape.iter().any(|name| *name as usize >= names) {
                return Err(IndexError::Format("shape"));
            }
            shapes.push(shape);
        }
        Ok(Self { all, shapes, names, postings, forward, bytes })
    }

    /// Number of series.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn block(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    fn name_at(&self, number: usize) -> Result<NameEntry<'_>, IndexError> {
        if number >= self.names {
            return Err(IndexError::Format("name number"));
        }
        let entry = HEADER_LEN + NAME_LEN * number;
        let field = |i: usize| u32_at(self.block(), entry + 4 * i).map(|n| n as usize);
        let text = Reader { bytes: self.block(), at: field(0)? }.take(field(1)?)?;
        let text = std::str::from_utf8(text).map_err(|_| IndexError::Format("label name"))?;
        Ok(NameEntry { text, values: field(2)?, groups: field(3)? })
    }

    /// A reader at the first value of a group.
    fn group(&self, name: NameEntry<'_>, group: usize) -> Result<Values<'_>, IndexError> {
        let entry = name.groups + GROUP_LEN * group;
        let at = u32_at(self.block(), entry)? as usize;
        let postings = self.postings + u32_at(self.block(), entry + 4)? as usize;
        let left = name.values.saturating_sub(GROUP * group).min(GROUP);
        Ok(Values { reader: Reader { bytes: self.block(), at }, postings, left, text: Vec::new() })
    }

    /// The group in which a value stands if it exists, and from which on values are at least `value`.
    fn group_of(&self, name: NameEntry<'_>, value: &str) -> Result<usize, IndexError> {
        let (mut low, mut high) = (0, name.values.div_ceil(GROUP));
        while high - low > 1 {
            let middle = low.midpoint(high);
            let mut values = self.group(name, middle)?;
            values.next()?;
            if values.text.as_slice() <= value.as_bytes() {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn ids(&self, place: Place) -> Result<Ids<'_>, IndexError> {
        match place {
            Place::Single(ordinal) => Ok(Ids::Few(Cow::Owned(vec![ordinal]))),
            Place::Stored { kind, at, len } => {
                let bytes = Reader { bytes: self.block(), at }.take(len)?;
                if kind == BITMAP {
                    return Ok(Ids::Many(Cow::Owned(bitmap(bytes)?)));
                }
                let mut reader = Reader { bytes, at: 0 };
                let mut ids = Vec::with_capacity(len);
                let mut last = 0u32;
                while reader.at < bytes.len() {
                    last = last.checked_add(reader.number()?).ok_or(IndexError::Format("ordinal"))?;
                    ids.push(last);
                }
                Ok(Ids::Few(Cow::Owned(ids)))
            }
        }
    }
}

/// Where the postings of a value are.
#[derive(Clone, Copy)]
enum Place {
    Single(u32),
    Stored { kind: u64, at: usize, len: usize },
}

/// The values of a group, one after the other.
struct Values<'a> {
    reader: Reader<'a>,
    postings: usize,
    left: usize,
    text: Vec<u8>,
}

impl Values<'_> {
    /// Moves to the next value: fills `text` and gives the place of its postings. `None` at the end.
    fn next(&mut self) -> Result<Option<Place>, IndexError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let shared = self.reader.number()? as usize;
        let further = self.reader.number()? as usize;
        if shared > self.text.len() {
            return Err(IndexError::Format("label value"));
        }
        self.text.truncate(shared);
        self.text.extend_from_slice(self.reader.take(further)?);
        let place = self.reader.varint()?;
        let (kind, rest) = (place & 3, place >> 2);
        let place = match kind {
            SINGLE => Place::Single(u32::try_from(rest).map_err(|_| IndexError::Format("ordinal"))?),
            BITMAP | LIST => {
                let len = usize::try_from(rest).map_err(|_| IndexError::Format("length"))?;
                let at = self.postings;
                self.postings = at.checked_add(len).ok_or(IndexError::Format("length"))?;
                Place::Stored { kind, at, len }
            }
            _ => return Err(IndexError::Format("kind of postings")),
        };
        Ok(Some(place))
    }

    fn text(&self) -> Result<&str, IndexError> {
        std::str::from_utf8(&self.text).map_err(|_| IndexError::Format("label value"))
    }
}

impl<B: AsRef<[u8]>> View for SealedIndex<B> {
    const PAIRS_COST: u64 = 4;

    fn series(&self) -> &RoaringBitmap {
        &self.all
    }

    fn name(&self, name: &str) -> Result<Option<u32>, IndexError> {
        let (mut low, mut high) = (0, self.names);
        while low < high {
            let middle = low.midpoint(high);
            match self.name_at(middle)?.text.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(u32::try_from(middle).ok()),
            }
        }
        Ok(None)
    }

    fn visit_names(&self, each: &mut dyn FnMut(u32, &str)) -> Result<(), IndexError> {
        for number in (0..).take(self.names) {
            each(number, self.name_at(number as usize)?.text);
        }
        Ok(())
    }

    fn values(&self, name: u32) -> Result<usize, IndexError> {
        Ok(self.name_at(name as usize)?.values)
    }

    fn find(&self, name: u32, value: &str) -> Result<Option<Ids<'_>>, IndexError> {
        let name = self.name_at(name as usize)?;
        let mut values = self.group(name, self.group_of(name, value)?)?;
        while let Some(place) = values.next()? {
            if values.text.as_slice() == value.as_bytes() {
                return self.ids(place).map(Some);
            }
        }
        Ok(None)
    }

    fn visit_values<'s>(
        &'s self,
        name: u32,
        prefix: &str,
        each: &mut query::EachValue<'_, 's>,
    ) -> Result<(), IndexError> {
        let name = self.name_at(name as usize)?;
        for group in self.group_of(name, prefix)?..name.values.div_ceil(GROUP) {
            let mut values = self.group(name, group)?;
            while let Some(place) = values.next()? {
                let text = values.text()?;
                if text.starts_with(prefix) {
                    if !each(text, &|| self.ids(place))? {
                        return Ok(());
                    }
                } else if text > prefix {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn value(&self, name: u32, value: u32) -> Result<Cow<'_, str>, IndexError> {
        let value = value as usize;
        let mut values = self.group(self.name_at(name as usize)?, value / GROUP)?;
        for _ in 0..=value % GROUP {
            values.next()?.ok_or(IndexError::Format("value number"))?;
        }
        String::from_utf8(values.text).map(Cow::Owned).map_err(|_| IndexError::Format("label value"))
    }

    fn visit_pairs(&self, within: &RoaringBitmap, each: &mut query::EachPairs<'_>) -> Result<(), IndexError> {
        let block = self.block();
        let mut reader = Reader { bytes: block, at: 0 };
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut shape = 0usize;
        // The row that `reader` stands before.
        let mut at = usize::MAX;
        for ordinal in within {
            if !self.all.contains(ordinal) {
                continue;
            }
            let row =
                usize::try_from(self.all.rank(ordinal) - 1).map_err(|_| IndexError::Format("ordinal"))?;
            if at > row || at / SERIES_GROUP != row / SERIES_GROUP {
                let group = row / SERIES_GROUP;
                reader.at = self.forward + u32_at(block, self.forward + 4 * group)? as usize;
                at = group * SERIES_GROUP;
            }
            while at <= row {
                let tag = reader.number()? as usize;
                if tag > 0 {
                    shape = tag - 1;
                    let names = self.shapes.get(shape).ok_or(IndexError::Format("shape number"))?;
                    pairs.clear();
                    for name in names {
                        pairs.push((*name, reader.number()?));
                    }
                } else {
                    if at % SERIES_GROUP == 0 || self.shapes.get(shape).is_none_or(|s| s.len() != pairs.len())
                    {
                        return Err(IndexError::Format("shape number"));
                    }
                    let differs = reader.take(pairs.len().div_ceil(8))?;
                    for (i, (_, value)) in pairs.iter_mut().enumerate() {
                        if differs[i / 8] >> (i % 8) & 1 != 0 {
                            *value = reader.number()?;
                        }
                    }
                }
                at += 1;
            }
            if !each(ordinal, &pairs)? {
                break;
            }
        }
        Ok(())
    }
}

impl<B: AsRef<[u8]>> SeriesIndex for SealedIndex<B> {
    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Borrowed(&self.all)
    }

    fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, IndexError> {
        query::select(self, matchers)
    }

    fn label_names(&self, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError> {
        query::label_names(self, within)
    }

    fn label_values(&self, name: &str, within: Option<&RoaringBitmap>) -> Result<Vec<String>, IndexError> {
        query::label_values(self, name, within)
    }

    fn visit_labels(
        &self,
        within: &RoaringBitmap,
        each: &mut dyn FnMut(u32, Labels) -> bool,
    ) -> Result<(), IndexError> {
        // Neighbours share most of their labels: only those that differ are decoded again.
        let mut known: Vec<((u32, u32), String)> = Vec::new();
        let mut bytes = Vec::new();
        self.visit_pairs(within, &mut |ordinal, pairs| {
            bytes.clear();
            known.truncate(pairs.len());
            for (i, pair) in pairs.iter().enumerate() {
                if known.get(i).is_none_or(|(before, _)| before != pair) {
                    let value = self.value(pair.0, pair.1)?.into_owned();
                    if i < known.len() {
                        known[i] = (*pair, value);
                    } else {
                        known.push((*pair, value));
                    }
                }
                push_pair(&mut bytes, self.name_at(pair.0 as usize)?.text, &known[i].1);
            }
            let labels = Labels::from_canonical(&bytes).map_err(|_| IndexError::Format("label set"))?;
            Ok(each(ordinal, labels))
        })
    }

    fn memory(&self) -> usize {
        let shapes: usize = self.shapes.iter().map(|shape| 24 + 4 * shape.capacity()).sum();
        self.block().len() + self.all.serialized_size() + shapes
    }
}

fn bitmap(bytes: &[u8]) -> Result<RoaringBitmap, IndexError> {
    RoaringBitmap::deserialize_from(bytes).map_err(|_| IndexError::Format("bitmap"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, IndexError> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(IndexError::Format("offset"))?;
    Ok(u32::from_le_bytes(*word))
}

/// A place in the block. Every read checks the bounds.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(IndexError::Format("length"))?;
        let part = self.bytes.get(self.at..end).ok_or(IndexError::Format("offset"))?;
        self.at = end;
        Ok(part)
    }

    fn varint(&mut self) -> Result<u64, IndexError> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(IndexError::Format("length"))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(IndexError::Format("varint"))
    }

    fn number(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.varint()?).map_err(|_| IndexError::Format("number"))
    }
}
