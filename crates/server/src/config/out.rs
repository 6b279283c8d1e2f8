//! The effective configuration as a tree, and its YAML. Secrets never get in: whoever reads one puts `<secret>`.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// A value of the effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Out {
    /// A text.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Another number.
    Float(f64),
    /// Keys in order.
    Map(Vec<(String, Out)>),
    /// Items.
    List(Vec<Out>),
}

impl Out {
    /// A list of texts.
    pub(super) fn texts<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self::List(texts.into_iter().map(|t| Self::Text(t.as_ref().to_owned())).collect())
    }

    /// The YAML of the tree.
    pub(super) fn to_yaml(&self) -> String {
        // Serialising texts, numbers, lists and maps has no way to fail.
        serde_saphyr::to_string(self).unwrap_or_default()
    }
}

impl Serialize for Out {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
        }
    }
}
