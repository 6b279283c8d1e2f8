//! The tree of an expression in the syntax of the `regex` crate, saying everything explicitly so that no flag
//! or default of that crate matters.

use std::fmt::Write;

use super::fold;
use super::syntax::{Assertion, ClassItem, Node};

/// `node`, anchored at both ends. With `bytes`, for the engine over bytes, which must get UTF-8 all the same:
/// then `.*` repeats any byte, which matches the same and compiles to much less.
pub(super) fn anchored(node: &Node, bytes: bool) -> String {
    let mut writer = Writer { out: String::from("\\A(?:"), names: Vec::new(), bytes };
    writer.node(node);
    writer.out.push_str(")\\z");
    writer.out
}

struct Writer {
    out: String,
    bytes: bool,
    /// Names given to captures so far: Go lets names repeat.
    names: Vec<String>,
}

impl Writer {
    fn node(&mut self, node: &Node) {
        match node {
            Node::Empty => self.out.push_str("(?:)"),
            Node::Literal { c, fold: false } => self.code(u32::from(*c)),
            Node::Literal { c, fold: true } => {
                self.out.push_str("(?i:");
                self.code(u32::from(*c));
                self.out.push(')');
            }
            Node::Class { items, negated, fold } => self.class(items, *negated, *fold),
            Node::Any { newline: true } => self.out.push_str("(?s:.)"),
            Node::Any { newline: false } => self.out.push_str("[^\\n]"),
            Node::Assertion(assertion) => self.out.push_str(match assertion {
                Assertion::BeginText => "\\A",
                Assertion::EndText => "\\z",
                Assertion::BeginLine => "(?m:^)",
                Assertion::EndLine => "(?m:$)",
                Assertion::WordBoundary => "(?-u:\\b)",
                Assertion::NoWordBoundary => "(?-u:\\B)",
            }),
            Node::Capture { inner, name } => {
                self.out.push('(');
                // Names that begin with a digit can only be asked for by number in any case.
                let usable =
                    |n: &&String| !n.starts_with(|c: char| c.is_ascii_digit()) && !self.names.contains(n);
                if let Some(name) = name.as_ref().filter(usable) {
                    self.out.push_str("?P<");
                    self.out.push_str(name);
                    self.out.push('>');
                    self.names.push(name.clone());
                }
                self.node(inner);
                self.out.push(')');
            }
            Node::Concat(nodes) => nodes.iter().for_each(|node| self.grouped(node)),
            Node::Alternate(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    if index > 0 {
                        self.out.push('|');
                    }
                    self.node(node);
                }
            }
            Node::Repeat { inner, min: min @ (0 | 1), max: None, .. }
                if self.bytes && self.any_bytes(inner) =>
            {
                self.out.push('*');
                if *min == 1 {
                    // The one that must be there is a whole character, or neighbours could share the bytes of one.
                    self.node(inner);
                }
            }
            Node::Repeat { inner, min, max, greedy } => {
                self.out.push_str("(?:");
                self.node(inner);
                self.out.push(')');
                // Writing into a String cannot fail.
                let _ = match (min, max) {
                    (0, None) => write!(self.out, "*"),
                    (1, None) => write!(self.out, "+"),
                    (0, Some(1)) => write!(self.out, "?"),
                    (min, None) => write!(self.out, "{{{min},}}"),
                    (min, Some(max)) => write!(self.out, "{{{min},{max}}}"),
                };
                if !greedy {
                    self.out.push('?');
                }
            }
        }
    }

    /// Writes `node` as a class of bytes when it is a class that has all characters beyond ASCII. What stands
    /// before and after a repetition of it begins and ends between characters, so the repetition does too.
    fn any_bytes(&mut self, node: &Node) -> bool {
        match node {
            Node::Any { newline: true } => self.out.push_str("(?s-u:.)"),
            Node::Any { newline: false } => self.out.push_str("(?-u:[^\\n])"),
            Node::Class { items, negated: true, fold: false } if items.iter().all(is_ascii) => {
                self.out.push_str("(?-u:");
                self.class(items, true, false);
                self.out.push(')');
            }
            _ => return false,
        }
        true
    }

    /// Alternatives need a group among neighbours.
    fn grouped(&mut self, node: &Node) {
        if matches!(node, Node::Alternate(_)) {
            self.out.push_str("(?:");
            self.node(node);
            self.out.push(')');
        } else {
            self.node(node);
        }
    }

    fn code(&mut self, code: u32) {
        match char::from_u32(code) {
            Some(c) if c.is_ascii_alphanumeric() => self.out.push(c),
            // Writing into a String cannot fail.
            _ => drop(write!(self.out, "\\x{{{code:X}}}")),
        }
    }

    fn class(&mut self, items: &[ClassItem], negated: bool, fold: bool) {
        let mut body = Writer { out: String::new(), names: Vec::new(), bytes: self.bytes };
        if fold {
            for range in fold::class(items).ranges() {
                body.range(u32::from(range.start()), u32::from(range.end()));
            }
        } else {
            items.iter().for_each(|item| body.class_item(item));
        }
        match (body.out.is_empty(), negated) {
            (true, true) => self.out.push_str("(?s:.)"),
            (true, false) => self.out.push_str("[^\\x{0}-\\x{10FFFF}]"),
            (false, _) => {
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(&body.out);
                self.out.push(']');
            }
        }
    }

    fn class_item(&mut self, item: &ClassItem) {
        match item {
            ClassItem::Range(low, high) => self.range(*low, *high),
            ClassItem::Ascii { ranges, negated } => {
                self.out.push_str(if *negated { "[^" } else { "[" });
                ranges.iter().for_each(|(low, high)| self.range(u32::from(*low), u32::from(*high)));
                self.out.push(']');
            }
            // No text has surrogates, and the regex crate does not know the class.
            ClassItem::Unicode { name, negated } if name == "Cs" => {
                self.out.push_str(if *negated { "\\x{0}-\\x{10FFFF}" } else { "" });
            }
            // Writing into a String cannot fail.
            ClassItem::Unicode { name, negated: true } => drop(write!(self.out, "\\P{{{name}}}")),
            ClassItem::Unicode { name, negated: false } => drop(write!(self.out, "\\p{{{name}}}")),
        }
    }

    /// The range without the surrogates in it.
    fn range(&mut self, low: u32, high: u32) {
        for (from, to) in [(low, high.min(0xd7ff)), (low.max(0xe000), high)] {
            if from <= to {
                self.code(from);
                self.out.push('-');
                self.code(to);
            }
        }
    }
}

/// Whether all characters of `item` are ASCII.
fn is_ascii(item: &ClassItem) -> bool {
    match item {
        ClassItem::Range(_, high) => *high < 0x80,
        ClassItem::Ascii { negated, .. } => !negated,
        ClassItem::Unicode { .. } => false,
    }
}
