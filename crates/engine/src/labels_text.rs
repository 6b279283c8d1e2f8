//! Label sets as upstream prints them in messages.

use std::fmt::Write;

use model::Labels;

/// `{a="1", b="2"}`; names that are not plain are quoted too.
pub(crate) fn labels_text(labels: &Labels) -> String {
    let mut out = String::from("{");
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes().first().is_some_and(u8::is_ascii_digit);
        // Writing to a string cannot fail.
        let _ = if plain { write!(out, "{name}={value:?}") } else { write!(out, "{name:?}={value:?}") };
    }
    out.push('}');
    out
}
