//! Ordinal → numbers of its label pairs, as varints in blocks of 256 ordinals: about 15 + 4 bytes for ten labels.

/// Ordinals in a block.
const BLOCK: usize = 256;
/// The offset of an ordinal that is not there.
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    offsets: [u32; BLOCK],
    bytes: Vec<u8>,
    live: usize,
}

/// The pairs of each series.
#[derive(Clone, Debug, Default)]
pub(super) struct Forward {
    blocks: Vec<Option<Box<Block>>>,
}

fn place(ordinal: u32) -> (usize, usize) {
    (ordinal as usize / BLOCK, ordinal as usize % BLOCK)
}

impl Forward {
    /// Remembers the pairs of a new `ordinal`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "256 series' pairs are far below 4 GiB; low bits are wanted"
    )]
    pub(super) fn insert(&mut self, ordinal: u32, pairs: &[u32]) {
        let (block, at) = place(ordinal);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, || None);
        }
        let block = self.blocks[block]
            .get_or_insert_with(|| Box::new(Block { offsets: [ABSENT; BLOCK], bytes: Vec::new(), live: 0 }));
        block.offsets[at] = block.bytes.len() as u32;
        for mut number in std::iter::once(pairs.len() as u32).chain(pairs.iter().copied()) {
            while number >= 0x80 {
                block.bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            block.bytes.push(number as u8);
        }
        block.live += 1;
        if block.live == BLOCK {
            block.bytes.shrink_to_fit();
        }
    }

    /// Forgets `ordinal`.
    pub(super) fn remove(&mut self, ordinal: u32) {
        let (at_block, at) = place(ordinal);
        let Some(slot) = self.blocks.get_mut(at_block) else { return };
        let Some(block) = slot else { return };
        if block.offsets[at] != ABSENT {
            block.offsets[at] = ABSENT;
            block.live -= 1;
            if block.live == 0 {
                *slot = None;
            }
        }
    }

    /// The pairs of `ordinal`, in the order of the labels' names; none if it is not there.
    pub(super) fn pairs(&self, ordinal: u32) -> impl Iterator<Item = u32> + '_ {
        let (block, at) = place(ordinal);
        let block = self.blocks.get(block).and_then(Option::as_deref);
        let mut rest = block.map_or(&[][..], |b| b.bytes.get(b.offsets[at] as usize..).unwrap_or(&[]));
        let mut left = next(&mut rest).unwrap_or(0);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            next(&mut rest)
        })
    }

    /// Bytes on the heap, about.
    pub(super) fn memory(&self) -> usize {
        let blocks = self.blocks.iter().flatten().map(|b| size_of::<Block>() + b.bytes.capacity());
        self.blocks.capacity() * size_of::<usize>() + blocks.sum::<usize>()
    }
}

#[inline]
fn next(rest: &mut &[u8]) -> Option<u32> {
    let mut number = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}
