//! YAML text to a tree whose every node knows its line and column, and keeps scalars as they were written.
//!
//! Typed reading is `section`'s matter. Aliases, merge keys, duplicate keys and budgets against bombs are the YAML
//! library's.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A node with its place.
pub(super) type Placed = Spanned<Node>;

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Nothing, `~`, `null`.
    Null,
    /// A plain scalar that YAML takes for a boolean.
    Bool(bool),
    /// A plain scalar that YAML takes for a number, in its canonical writing.
    Number(String),
    /// Any other scalar.
    Text(String),
    /// A mapping, in the order of the text.
    Map(Vec<(Spanned<String>, Placed)>),
    /// A sequence.
    List(Vec<Placed>),
}

/// What is wrong with a text at a place; line 0 = the whole text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

/// The tree of `text`.
pub(super) fn parse(text: &str) -> Result<Placed, Problem> {
    // A snippet of the text could show a secret.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = error.to_string();
        // The place is said apart, and the library's own settings mean nothing to the reader.
        let message = message.split(" at line ").next().unwrap_or(&message);
        let message = message.split(", set DuplicateKeyPolicy").next().unwrap_or(message).to_owned();
        Problem { line, column, message }
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            pairs.push((key, map.next_value()?));
        }
        Ok(Node::Map(pairs))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
}

/// A scalar as it was written (`1.10`, not `1.1`), or `None` for what is no scalar.
pub(super) fn scalar_text(node: &Placed, source: &str) -> Option<String> {
    match &node.value {
        Node::Text(text) => Some(text.clone()),
        Node::Bool(_) | Node::Number(_) => {
            let span = node.defined.span();
            let (offset, len) = (span.byte_offset()?, span.byte_len()?);
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(len).ok()?)?;
            source.get(start..end).map(str::to_owned)
        }
        Node::Null | Node::Map(_) | Node::List(_) => None,
    }
}
