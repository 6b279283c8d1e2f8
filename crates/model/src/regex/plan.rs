//! Patterns that need no engine: sets of literals (`a|b|c[de]`), and literals with gaps (`5..`, `a.*`, `.*b.+c`).
//! For all others, a prefix that a text must have.

use super::syntax::{Assertion, Node};

/// How many texts a set may have when parts are multiplied out, such as `[ab][cd]`.
const MAX_PRODUCT: usize = 256;
/// How many alternatives of a plain alternation become a set.
const MAX_ALTERNATIVES: usize = 1 << 20;
/// How long a part with single dots may be, since it is looked for at every place.
const MAX_DOTTED: usize = 64;
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

/// Parts with gaps of any length between them: a text begins with the first, ends with the last, and has the
/// others between, in their order. A single part is the whole text.
#[derive(Debug)]
pub(super) struct Gaps {
    first: Part,
    middle: Vec<Part>,
    last: Option<Part>,
}

/// Characters one after another.
#[derive(Debug)]
enum Part {
    Literal(String),
    /// `None` is any character.
    Dotted(Vec<Option<char>>),
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
            Self::Gaps(gaps) => match &gaps.first {
                Part::Literal(text) => text,
                Part::Dotted(_) => "",
            },
        }
    }

    pub(super) fn is_all(&self) -> bool {
        let empty = |part: &Part| matches!(part, Part::Literal(text) if text.is_empty());
        match self {
            Self::Gaps(gaps) => {
                empty(&gaps.first) && gaps.middle.is_empty() && gaps.last.as_ref().is_some_and(empty)
            }
            _ => false,
        }
    }
}

impl Gaps {
    fn matches(&self, text: &str) -> bool {
        let Some(rest) = self.first.after(text) else { return false };
        let Some(last) = &self.last else { return rest.is_empty() };
        let Some(mut rest) = last.before(rest) else { return false };
        for part in &self.middle {
            // The earliest place leaves most for what follows.
            match part.find(rest) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        true
    }
}

impl Part {
    fn new(characters: Vec<Option<char>>) -> Option<Self> {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Some(Self::Literal(text)),
            None if characters.len() <= MAX_DOTTED => Some(Self::Dotted(characters)),
            None => None,
        }
    }

    /// What comes after the part that `text` begins with.
    fn after<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(literal.as_str()),
            Self::Dotted(characters) => {
                let mut rest = text.chars();
                for wanted in characters {
                    let found = rest.next()?;
                    if wanted.is_some_and(|c| c != found) {
                        return None;
                    }
                }
                Some(rest.as_str())
            }
        }
    }

    /// What comes before the part that `text` ends with.
    fn before<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.strip_suffix(literal.as_str()),
            Self::Dotted(characters) => {
                let mut rest = text.chars();
                for wanted in characters.iter().rev() {
                    let found = rest.next_back()?;
                    if wanted.is_some_and(|c| c != found) {
                        return None;
                    }
                }
                Some(rest.as_str())
            }
        }
    }

    /// What comes after the first place in `text` where the part is.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.find(literal.as_str()).map(|at| &text[at + literal.len()..]),
            Self::Dotted(_) => text.char_indices().find_map(|(at, _)| self.after(&text[at..])),
        }
    }
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

fn gaps(node: &Node) -> Option<Gaps> {
    // Parts as far as known, the last of which goes on.
    let mut parts = vec![Vec::new()];
    match node {
        Node::Concat(nodes) => {
            for node in strip_anchors(nodes) {
                flatten(node, &mut parts)?;
            }
        }
        _ => flatten(node, &mut parts)?,
    }
    let mut parts = parts.into_iter().map(Part::new);
    let first = parts.next()??;
    let mut middle = parts.collect::<Option<Vec<Part>>>()?;
    let last = middle.pop();
    // Gaps side by side are one.
    middle.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
    Some(Gaps { first, middle, last })
}

fn flatten(node: &Node, parts: &mut Vec<Vec<Option<char>>>) -> Option<()> {
    let current = parts.last_mut()?;
    match node {
        Node::Empty => {}
        Node::Literal { c, fold: false } => current.push(Some(*c)),
        Node::Any { newline: true } => current.push(None),
        Node::Capture { inner, .. } => flatten(inner, parts)?,
        Node::Concat(nodes) => {
            for node in nodes {
                flatten(node, parts)?;
            }
        }
        Node::Repeat { inner, min, max: None, .. } if matches!(**inner, Node::Any { newline: true }) => {
            current.extend((0..*min).map(|_| None));
            parts.push(Vec::new());
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
