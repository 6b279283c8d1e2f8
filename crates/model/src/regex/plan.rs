//! Patterns that need no engine: sets of literals (`a|b|c[de]`), and literals with gaps (`a.*`, `.*b.+c`). For
//! all others, a prefix that a text must have.

use super::syntax::{Assertion, Node};

/// How many texts a set may have when parts are multiplied out, such as `[ab][cd]`.
const MAX_PRODUCT: usize = 256;
/// How many alternatives of a plain alternation become a set.
const MAX_ALTERNATIVES: usize = 1 << 20;
/// How many bytes multiplied-out texts may have together.
const MAX_PRODUCT_BYTES: usize = 64 << 10;

/// How texts are matched.
#[derive(Debug)]
pub(super) enum Plan {
    /// One of these texts, which are sorted.
    Set { texts: Vec<String>, prefix: String },
    /// Literals with gaps between them.
    Gaps(Gaps),
    /// By the engine, when the text begins so.
    Engine { prefix: String },
}

/// A text begins with `prefix`, ends with `suffix`, and between them holds the `middle` literals in their order,
/// each after at least so many characters; at least `last` characters come before the suffix.
#[derive(Debug)]
pub(super) struct Gaps {
    prefix: String,
    middle: Vec<(usize, String)>,
    last: usize,
    suffix: String,
}

/// The plan of the tree of an anchored expression.
pub(super) fn of(node: &Node) -> Plan {
    if let Some(mut texts) = exact(node, true) {
        texts.sort_unstable();
        texts.dedup();
        let prefix = common_prefix(&texts);
        return Plan::Set { texts, prefix };
    }
    if let Some(gaps) = gaps(node) {
        return Plan::Gaps(gaps);
    }
    let mut prefix = String::new();
    leading(node, &mut prefix);
    Plan::Engine { prefix }
}

impl Plan {
    /// Whether `text` matches, or `None` when only the engine knows.
    pub(super) fn decide(&self, text: &str) -> Option<bool> {
        match self {
            Self::Set { texts, .. } if texts.len() <= 4 => Some(texts.iter().any(|t| t == text)),
            Self::Set { texts, .. } => Some(texts.binary_search_by(|t| t.as_str().cmp(text)).is_ok()),
            Self::Gaps(gaps) => Some(gaps.matches(text)),
            Self::Engine { prefix } if text.starts_with(prefix.as_str()) => None,
            Self::Engine { .. } => Some(false),
        }
    }

    pub(super) fn needs_engine(&self) -> bool {
        matches!(self, Self::Engine { .. })
    }

    pub(super) fn set(&self) -> Option<&[String]> {
        match self {
            Self::Set { texts, .. } => Some(texts),
            _ => None,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Set { prefix, .. } | Self::Engine { prefix } => prefix,
            Self::Gaps(gaps) => &gaps.prefix,
        }
    }

    pub(super) fn is_all(&self) -> bool {
        match self {
            Self::Gaps(g) => g.prefix.is_empty() && g.suffix.is_empty() && g.middle.is_empty() && g.last == 0,
            _ => false,
        }
    }
}

impl Gaps {
    fn matches(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(self.suffix.as_str()) else { return false };
        for (gap, literal) in &self.middle {
            // The earliest place leaves most for what follows.
            let Some(searched) = skip(rest, *gap) else { return false };
            let Some(at) = searched.find(literal.as_str()) else { return false };
            rest = &searched[at + literal.len()..];
        }
        skip(rest, self.last).is_some()
    }
}

/// `text` without its first `count` characters.
fn skip(text: &str, count: usize) -> Option<&str> {
    if count == 0 {
        return Some(text);
    }
    let (at, c) = text.char_indices().nth(count - 1)?;
    Some(&text[at + c.len_utf8()..])
}

fn common_prefix(texts: &[String]) -> String {
    let (Some(first), Some(last)) = (texts.first(), texts.last()) else { return String::new() };
    // The texts are sorted, so the first and the last differ earliest.
    first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// All texts that `node` matches; `whole` = it is the whole expression.
fn exact(node: &Node, whole: bool) -> Option<Vec<String>> {
    match node {
        Node::Empty => Some(vec![String::new()]),
        Node::Literal { c, fold: false } => Some(vec![c.to_string()]),
        Node::Class { items, negated: false, fold: false } => {
            let mut texts = Vec::new();
            for item in items {
                let super::syntax::ClassItem::Range(low, high) = item else { return None };
                if (high - low) as usize + texts.len() >= MAX_PRODUCT {
                    return None;
                }
                texts.extend((*low..=*high).filter_map(char::from_u32).map(String::from));
            }
            Some(texts)
        }
        Node::Capture { inner, .. } => exact(inner, whole),
        Node::Concat(nodes) => {
            let nodes = if whole { strip_anchors(nodes) } else { nodes };
            let mut texts = vec![String::new()];
            for node in nodes {
                let parts = exact(node, false)?;
                let count = texts.len().checked_mul(parts.len())?;
                let bytes: usize = texts.iter().map(String::len).sum::<usize>() * parts.len();
                if count > MAX_PRODUCT.max(texts.len()) && (texts.len() > 1 || parts.len() > MAX_ALTERNATIVES)
                    || bytes > MAX_PRODUCT_BYTES && parts.len() > 1
                {
                    return None;
                }
                match parts.as_slice() {
                    [part] => texts.iter_mut().for_each(|text| text.push_str(part)),
                    _ => {
                        texts =
                            texts.iter().flat_map(|t| parts.iter().map(move |p| format!("{t}{p}"))).collect();
                    }
                }
            }
            Some(texts)
        }
        Node::Alternate(nodes) => {
            let mut texts = Vec::new();
            for node in nodes {
                texts.extend(exact(node, whole)?);
                if texts.len() > MAX_ALTERNATIVES {
                    return None;
                }
            }
            Some(texts)
        }
        Node::Repeat { inner, min: 0, max: Some(1), .. } => {
            let mut texts = exact(inner, false)?;
            texts.push(String::new());
            Some(texts)
        }
        Node::Literal { .. }
        | Node::Class { .. }
        | Node::Any { .. }
        | Node::Assertion(_)
        | Node::Repeat { .. } => None,
    }
}

/// Without `^` in front and `$` behind, which add nothing to an anchored expression.
fn strip_anchors(mut nodes: &[Node]) -> &[Node] {
    while let [Node::Assertion(Assertion::BeginText), rest @ ..] = nodes {
        nodes = rest;
    }
    while let [rest @ .., Node::Assertion(Assertion::EndText)] = nodes {
        nodes = rest;
    }
    nodes
}

/// A piece of a concatenation.
enum Piece {
    Text(char),
    /// At least so many characters.
    Gap(usize),
}

fn gaps(node: &Node) -> Option<Gaps> {
    let mut pieces = Vec::new();
    match node {
        Node::Concat(nodes) => {
            for node in strip_anchors(nodes) {
                flatten(node, &mut pieces)?;
            }
        }
        _ => flatten(node, &mut pieces)?,
    }
    // Literals with the gap before each; the first has none.
    let mut parts: Vec<(usize, String)> = vec![(0, String::new())];
    let mut gap = None;
    for piece in pieces {
        match (piece, gap) {
            (Piece::Gap(count), _) => gap = Some(gap.unwrap_or(0) + count),
            (Piece::Text(c), Some(count)) => {
                parts.push((count, String::from(c)));
                gap = None;
            }
            (Piece::Text(c), None) => {
                if let Some((_, text)) = parts.last_mut() {
                    text.push(c);
                }
            }
        }
    }
    let mut parts = parts.into_iter();
    let prefix = parts.next().map_or(String::new(), |(_, text)| text);
    let mut middle: Vec<(usize, String)> = parts.collect();
    let (last, suffix) = match gap {
        Some(count) => (count, String::new()),
        // No gap at the end: the last literal is the suffix.
        None => middle.pop()?,
    };
    Some(Gaps { prefix, middle, last, suffix })
}

fn flatten(node: &Node, pieces: &mut Vec<Piece>) -> Option<()> {
    match node {
        Node::Empty => {}
        Node::Literal { c, fold: false } => pieces.push(Piece::Text(*c)),
        Node::Capture { inner, .. } => flatten(inner, pieces)?,
        Node::Concat(nodes) => {
            for node in nodes {
                flatten(node, pieces)?;
            }
        }
        Node::Repeat { inner, min, max: None, .. } if matches!(**inner, Node::Any { newline: true }) => {
            pieces.push(Piece::Gap(*min as usize));
        }
        _ => return None,
    }
    Some(())
}

/// Appends what every match of `node` begins with; `false` when something else may follow.
fn leading(node: &Node, prefix: &mut String) -> bool {
    match node {
        Node::Empty | Node::Assertion(Assertion::BeginText) => true,
        Node::Literal { c, fold: false } => {
            prefix.push(*c);
            true
        }
        Node::Capture { inner, .. } => leading(inner, prefix),
        Node::Concat(nodes) => nodes.iter().all(|node| leading(node, prefix)),
        Node::Repeat { inner, min, .. } if *min > 0 => {
            leading(inner, prefix);
            false
        }
        Node::Alternate(nodes) => {
            let mut common: Option<String> = None;
            for node in nodes {
                let mut own = String::new();
                leading(node, &mut own);
                common = Some(match common {
                    None => own,
                    Some(common) => common_prefix(&[common, own]),
                });
            }
            prefix.push_str(&common.unwrap_or_default());
            false
        }
        Node::Literal { .. }
        | Node::Class { .. }
        | Node::Any { .. }
        | Node::Assertion(_)
        | Node::Repeat { .. } => false,
    }
}
