//! Entry points for the fuzz targets (`fuzz/targets`): readers and writers of this crate that nobody else needs.

use crate::encode::push_string;
use crate::params::{decode_form, parse_duration_ns, parse_time};

/// Reads a query string or form and, of each value, a time and a duration. Panics on a defect.
pub fn params(data: &[u8]) {
    let mut pairs = Vec::new();
    if let Err(error) = decode_form(data, &mut pairs) {
        assert!(error.status().is_client_error());
    }
    let parts = data.split(|byte| *byte == b'&').count();
    assert!(pairs.len() <= parts, "a pair stands between separators");
    for text in pairs.iter().map(|(_, value)| value.as_str()).chain(std::str::from_utf8(data)) {
        for refused in [parse_time(text).err(), parse_duration_ns(text).err()] {
            assert!(refused.is_none_or(|message| message.len() < 1_000), "messages are short");
        }
    }
}

/// Writes `text` as JSON and reads it back. Panics on a defect.
pub fn json(text: &str) {
    let mut out = String::new();
    push_string(&mut out, text);
    assert_eq!(serde_json::from_str::<String>(&out).ok().as_deref(), Some(text), "{out}");
}
