//! Classes in any case of letters: each part with the letters that fold to the same, before it is negated, as Go
//! does it. Only the few thousand characters that have another case are looked at, so that a class of all
//! characters costs no more than a small one.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::syntax::ClassItem;

/// The characters of `items` and their other cases.
pub(super) fn class(items: &[ClassItem]) -> ClassUnicode {
    let mut all = ClassUnicode::empty();
    for item in items {
        let (mut class, negated) = match item {
            ClassItem::Range(low, high) => (range(*low, *high), false),
            ClassItem::Ascii { ranges, negated } => {
                let ranges =
                    ranges.iter().map(|(low, high)| ClassUnicodeRange::new((*low).into(), (*high).into()));
                (ClassUnicode::new(ranges), *negated)
            }
            ClassItem::Unicode { name, negated } => (named(name), *negated),
        };
        let mut foldable = class.clone();
        foldable.intersect(&FOLDABLE);
        // Fails only without the tables of case folding, which are compiled in.
        if foldable.try_case_fold_simple().is_ok() {
            class.union(&foldable);
        }
        if negated {
            class.negate();
        }
        all.union(&class);
    }
    all
}

/// Characters that have another case.
static FOLDABLE: LazyLock<ClassUnicode> = LazyLock::new(|| {
    let mut class = named("Changes_When_Casemapped");
    class.union(&named("Changes_When_Casefolded"));
    class
});

/// From–to without the surrogates between.
fn range(low: u32, high: u32) -> ClassUnicode {
    let parts = [(low, high.min(0xd7ff)), (low.max(0xe000), high)];
    ClassUnicode::new(
        parts.into_iter().filter(|(from, to)| from <= to).filter_map(|(from, to)| {
            Some(ClassUnicodeRange::new(char::from_u32(from)?, char::from_u32(to)?))
        }),
    )
}

/// `\p{name}`; empty when the name is not known, as the surrogates are not.
fn named(name: &str) -> ClassUnicode {
    let hir = regex_syntax::parse(&format!("\\p{{{name}}}"));
    match hir.as_ref().map(|hir| hir.kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.clone(),
        _ => ClassUnicode::empty(),
    }
}
