//! Label sets: as upstream prints them in messages, and their pairs as bytes, for what must be fast.

use std::cmp::Ordering;

use model::Labels;
use promql::quote::push_quoted;

/// `{a="1", b="2"}`; names that are not plain are quoted too.
pub(crate) fn labels_text(labels: &Labels) -> String {
    let mut out = String::from("{");
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes().first().is_some_and(u8::is_ascii_digit);
        if plain {
            out.push_str(name);
        } else {
            push_quoted(&mut out, name);
        }
        out.push('=');
        push_quoted(&mut out, value);
    }
    out.push('}');
    out
}

/// The pairs of a label set as bytes (names and values are UTF-8, but that is not checked again).
pub(crate) fn raw_pairs(labels: &Labels) -> RawPairs<'_> {
    RawPairs { rest: labels.as_bytes() }
}

/// Iterator over (name, value, the bytes of the whole pair in canonical coding).
#[derive(Clone)]
pub(crate) struct RawPairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RawPairs<'a> {
    type Item = (&'a [u8], &'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest;
        let (name, rest) = take(start)?;
        let (value, rest) = take(rest)?;
        self.rest = rest;
        Some((name, value, &start[..start.len() - rest.len()]))
    }
}

#[inline]
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut len, mut at) = (0usize, 0);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * at as u32).min(56);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    bytes[at..].split_at_checked(len)
}

/// The order of `Labels`, found on bytes.
pub(crate) fn compare(a: &Labels, b: &Labels) -> Ordering {
    if a.as_bytes() == b.as_bytes() {
        return Ordering::Equal;
    }
    let pair = |(name, value, _)| (name, value);
    raw_pairs(a).map(pair).cmp(raw_pairs(b).map(pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_order_as_pairs_do(
            a in prop::collection::btree_map("[a-c_é]{1,3}", "[a-cé]{1,200}", 0..4),
            b in prop::collection::btree_map("[a-c_é]{1,3}", "[a-cé]{1,200}", 0..4),
        ) {
            let (a, b) = (Labels::from_pairs(a).unwrap(), Labels::from_pairs(b).unwrap());
            prop_assert_eq!(compare(&a, &b), a.cmp(&b));
            let joined: Vec<u8> = raw_pairs(&a).flat_map(|(_, _, pair)| pair.to_vec()).collect();
            prop_assert_eq!(joined, a.as_bytes());
        }
    }
}
