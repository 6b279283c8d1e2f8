//! The ordinals of one label pair: one, a few in a sorted list, or a bitmap.

use std::borrow::Cow;

use roaring::RoaringBitmap;

/// Longer lists become bitmaps.
const FEW: usize = 64;

/// The ordinals of a pair in memory.
#[derive(Clone, Debug)]
pub(super) enum Postings {
    None,
    One(u32),
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

impl Postings {
    pub(super) fn insert(&mut self, ordinal: u32) {
        match self {
            Self::None => *self = Self::One(ordinal),
            Self::One(one) if *one == ordinal => {}
            Self::One(one) => {
                let mut few = Vec::with_capacity(4);
                few.extend([(*one).min(ordinal), (*one).max(ordinal)]);
                *self = Self::Few(few);
            }
            Self::Few(few) => {
                if few.last().is_some_and(|last| *last < ordinal) {
                    few.push(ordinal);
                } else if let Err(at) = few.binary_search(&ordinal) {
                    few.insert(at, ordinal);
                }
                if few.len() > FEW {
                    *self = Self::Many(Box::new(few.iter().copied().collect()));
                }
            }
            Self::Many(many) => {
                many.insert(ordinal);
            }
        }
    }

    pub(super) fn remove_all(&mut self, ordinals: &RoaringBitmap) {
        match self {
            Self::None => {}
            Self::One(one) => {
                if ordinals.contains(*one) {
                    *self = Self::None;
                }
            }
            Self::Few(few) => {
                few.retain(|ordinal| !ordinals.contains(*ordinal));
                if few.is_empty() {
                    *self = Self::None;
                }
            }
            Self::Many(many) => {
                **many -= ordinals;
                if many.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn len(&self) -> u64 {
        self.ids().len()
    }

    /// Chooses the smallest form of the bitmap.
    pub(super) fn optimize(&mut self) {
        if let Self::Many(many) = self {
            many.optimize();
        }
    }

    pub(super) fn ids(&self) -> Ids<'_> {
        match self {
            Self::None => Ids::Few(Cow::Borrowed(&[])),
            Self::One(one) => Ids::Few(Cow::Borrowed(std::slice::from_ref(one))),
            Self::Few(few) => Ids::Few(Cow::Borrowed(few)),
            Self::Many(many) => Ids::Many(Cow::Borrowed(many)),
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::None | Self::One(_) => 0,
            Self::Few(few) => few.capacity() * 4,
            Self::Many(many) => size_of::<RoaringBitmap>() + many.serialized_size() + 32,
        }
    }
}

/// The ordinals of a pair for a look-up.
#[derive(Clone, Debug)]
pub(super) enum Ids<'a> {
    /// A sorted list.
    Few(Cow<'a, [u32]>),
    /// A bitmap.
    Many(Cow<'a, RoaringBitmap>),
}

impl Ids<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Few(few) => few.len() as u64,
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn into_bitmap(self) -> RoaringBitmap {
        match self {
            Self::Few(few) => few.iter().copied().collect(),
            Self::Many(many) => many.into_owned(),
        }
    }

    /// What of `set` is among them.
    pub(super) fn intersect(&self, set: &RoaringBitmap) -> RoaringBitmap {
        match self {
            Self::Few(few) => few.iter().copied().filter(|id| set.contains(*id)).collect(),
            Self::Many(many) => &**many & set,
        }
    }

    pub(super) fn is_disjoint(&self, set: &RoaringBitmap) -> bool {
        match self {
            Self::Few(few) => !few.iter().any(|id| set.contains(*id)),
            Self::Many(many) => many.is_disjoint(set),
        }
    }

    pub(super) fn subtract_from(&self, set: &mut RoaringBitmap) {
        match self {
            Self::Few(few) => few.iter().for_each(|id| {
                set.remove(*id);
            }),
            Self::Many(many) => *set -= &**many,
        }
    }
}

/// Collects the union of many postings: short ones in a list that is sorted once.
#[derive(Debug, Default)]
pub(super) struct Union {
    few: Vec<u32>,
    many: RoaringBitmap,
}

impl Union {
    pub(super) fn add(&mut self, ids: &Ids<'_>) {
        match ids {
            Ids::Few(few) => self.few.extend_from_slice(few),
            Ids::Many(many) => self.many |= &**many,
        }
    }

    pub(super) fn finish(mut self) -> RoaringBitmap {
        if !self.few.is_empty() {
            self.few.sort_unstable();
            self.many |= self.few.into_iter().collect::<RoaringBitmap>();
        }
        self.many
    }
}
