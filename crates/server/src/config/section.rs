//! Typed reading of one mapping: each method takes a key, checks its value, and puts the effective value into the
//! output. What no method took is an unknown key.
//!
//! A null counts as absent everywhere, as in upstream's parser. Problems are collected, so that a check shows all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::time::{format_duration, parse_duration};
use scrape::{REDACTED, Secret};
use serde_saphyr::{Location, Spanned};

use super::Env;
use super::node::{Node, Placed, Problem, scalar_text};
use super::out::Out;

/// More problems than this are not collected.
const MAX_PROBLEMS: usize = 50;

/// What all sections of one text share.
pub(super) struct Reader<'a> {
    /// The text, for scalars as written.
    pub(super) source: &'a str,
    /// Relative paths are relative to this folder.
    pub(super) dir: &'a Path,
    /// The environment.
    pub(super) env: Env<'a>,
    problems: RefCell<Vec<Problem>>,
    not_active: RefCell<Vec<String>>,
    files: RefCell<Vec<(&'static str, PathBuf)>>,
}

impl<'a> Reader<'a> {
    /// A reader of `source`.
    pub(super) fn new(source: &'a str, dir: &'a Path, env: Env<'a>) -> Self {
        Self {
            source,
            dir,
            env,
            problems: RefCell::default(),
            not_active: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// Notes a problem.
    pub(super) fn problem(&self, at: Location, message: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(Problem { line: at.line(), column: at.column(), message: message.into() });
        }
    }

    /// Notes that something accepted has no effect yet.
    pub(super) fn not_active(&self, what: impl Into<String>) {
        self.not_active.borrow_mut().push(what.into());
    }

    /// Notes a file that the configuration names.
    pub(super) fn names_file(&self, what: &'static str, path: &Path) {
        self.files.borrow_mut().push((what, path.to_owned()));
    }

    /// `path` as seen from the configuration's folder.
    pub(super) fn join(&self, path: &str) -> PathBuf {
        if path.is_empty() { PathBuf::new() } else { self.dir.join(path) }
    }

    /// Problems, what is not active, files named.
    #[allow(clippy::type_complexity, reason = "three lists that belong together for one moment")]
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>, Vec<(&'static str, PathBuf)>) {
        (self.problems.into_inner(), self.not_active.into_inner(), self.files.into_inner())
    }
}

/// One mapping that is being read.
pub(super) struct Section<'a> {
    /// What the text's sections share.
    pub(super) reader: &'a Reader<'a>,
    /// Where the mapping stands in the configuration, for messages: `scrape_configs[0].tls_config`.
    pub(super) path: String,
    /// Where it stands in the text.
    pub(super) at: Location,
    entries: Vec<(&'a Spanned<String>, &'a Placed, bool)>,
    out: Vec<(String, Out)>,
}

impl<'a> Section<'a> {
    /// The mapping `node`; a null is an empty one.
    pub(super) fn new(reader: &'a Reader<'a>, node: &'a Placed, path: impl Into<String>) -> Self {
        let path = path.into();
        let entries = match &node.value {
            Node::Map(pairs) => pairs.iter().map(|(key, value)| (key, value, false)).collect(),
            Node::Null => Vec::new(),
            _ => {
                reader.problem(node.referenced, format!("{} must be a mapping", shown(&path)));
                Vec::new()
            }
        };
        Self { reader, path, at: node.referenced, entries, out: Vec::new() }
    }

    /// Reports what no method took, and gives the effective values.
    pub(super) fn finish(self) -> Out {
        for (key, _, used) in &self.entries {
            if !used {
                let message = format!("field {} not found in {}", key.value, shown(&self.path));
                self.reader.problem(key.referenced, message);
            }
        }
        Out::Map(self.out)
    }

    /// The value of `key`, unless it is absent or null.
    pub(super) fn get(&mut self, key: &str) -> Option<&'a Placed> {
        let entry = self.entries.iter_mut().find(|(k, ..)| k.value == key)?;
        entry.2 = true;
        (entry.1.value != Node::Null).then_some(entry.1)
    }

    /// The keys that satisfy `wanted`, in order.
    pub(super) fn keys(&self, wanted: impl Fn(&str) -> bool) -> Vec<&'a str> {
        self.entries.iter().map(|(key, ..)| key.value.as_str()).filter(|key| wanted(key)).collect()
    }

    /// Whether `key` is there with a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, value, _)| k.value == key && value.value != Node::Null)
    }

    /// Where the value of `key` stands, or the section.
    pub(super) fn place(&self, key: &str) -> Location {
        self.entries.iter().find(|(k, ..)| k.value == key).map_or(self.at, |(_, value, _)| value.referenced)
    }

    /// Notes a problem with the value of `key` (or with the section, where there is none).
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.reader.problem(self.place(key), message);
    }

    /// Notes that `key`, if it is there, has no effect yet.
    pub(super) fn not_active(&self, key: &str) {
        if self.has(key) {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.reader.not_active(format!("{}{dot}{key}", self.path));
        }
    }

    /// Puts an effective value.
    pub(super) fn put(&mut self, key: &str, value: Out) {
        self.out.push((key.to_owned(), value));
    }

    /// Where `key` stands, for messages.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A scalar as text, not put out.
    pub(super) fn raw(&mut self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        let text = scalar_text(node, self.reader.source);
        if text.is_none() {
            self.reader.problem(node.referenced, format!("{} must be a text", self.path_of(key)));
        }
        text
    }

    /// A text; put out when it is not empty.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let text = self.raw(key).filter(|text| !text.is_empty())?;
        self.put(key, Out::Text(text.clone()));
        Some(text)
    }

    /// A text with a default; always put out.
    pub(super) fn text_or(&mut self, key: &str, default: &str) -> String {
        let text = self.raw(key).unwrap_or_else(|| default.to_owned());
        self.put(key, Out::Text(text.clone()));
        text
    }

    /// A text that must be one of `allowed`; put out when it is there.
    pub(super) fn one_of(&mut self, key: &str, allowed: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        if !allowed.contains(&text.as_str()) {
            self.problem(key, format!("{key} must be one of {}, got {text:?}", allowed.join(", ")));
            return None;
        }
        Some(text)
    }

    /// A secret; put out masked.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = self.raw(key).filter(|text| !text.is_empty())?;
        self.put(key, Out::Text(REDACTED.into()));
        Some(Secret::new(text))
    }

    /// A URL; put out without its password.
    pub(super) fn url(&mut self, key: &str) -> Option<Secret> {
        let text = self.raw(key).filter(|text| !text.is_empty())?;
        self.put(key, Out::Text(redacted_url(&text)));
        Some(Secret::new(text))
    }

    /// The path of a file, from the configuration's folder; remembered for checks.
    pub(super) fn file(&mut self, key: &str, what: &'static str) -> Option<PathBuf> {
        let text = self.raw(key).filter(|text| !text.is_empty())?;
        let path = self.reader.join(&text);
        self.reader.names_file(what, &path);
        self.put(key, Out::Text(path.to_string_lossy().into_owned()));
        Some(path)
    }

    /// A boolean, if it is there; put out then.
    pub(super) fn bool(&mut self, key: &str) -> Option<bool> {
        let value = self.raw_bool(key)?;
        self.put(key, Out::Bool(value));
        Some(value)
    }

    /// A boolean with a default; always put out.
    pub(super) fn bool_or(&mut self, key: &str, default: bool) -> bool {
        let value = self.raw_bool(key).unwrap_or(default);
        self.put(key, Out::Bool(value));
        value
    }

    /// A boolean, false by default; put out when true.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        let value = self.raw_bool(key).unwrap_or(false);
        if value {
            self.put(key, Out::Bool(true));
        }
        value
    }

    fn raw_bool(&mut self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match &node.value {
            Node::Bool(value) => Some(*value),
            _ => {
                self.reader.problem(node.referenced, format!("{} must be true or false", self.path_of(key)));
                None
            }
        }
    }

    /// A whole number, `default` when absent or 0; put out unless 0.
    pub(super) fn number_or(&mut self, key: &str, default: u64) -> u64 {
        let value = self.raw_number(key).filter(|n| *n != 0).unwrap_or(default);
        if value != 0 {
            self.put(key, Out::Number(value));
        }
        value
    }

    /// A whole number that is not negative, if it is there; not put out.
    pub(super) fn raw_number(&mut self, key: &str) -> Option<u64> {
        let node = self.get(key)?;
        let value = match &node.value {
            Node::Number(text) => text.parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.reader
                .problem(node.referenced, format!("{} must be a whole number, 0 or more", self.path_of(key)));
        }
        value
    }

    /// A number; put out when it is there.
    pub(super) fn float(&mut self, key: &str) -> Option<f64> {
        let node = self.get(key)?;
        let value = match &node.value {
            Node::Number(text) => text.parse::<f64>().ok(),
            _ => None,
        };
        match value {
            Some(value) => self.put(key, Out::Float(value)),
            None => self.reader.problem(node.referenced, format!("{} must be a number", self.path_of(key))),
        }
        value
    }

    /// A duration in ms, if it is there and not 0; not put out.
    pub(super) fn raw_duration(&mut self, key: &str) -> Option<i64> {
        let text = self.raw(key)?;
        match parse_duration(&text) {
            Ok(ms) => (ms != 0).then_some(ms),
            Err(error) => {
                self.problem(key, error.to_string());
                None
            }
        }
    }

    /// A duration in ms with a default (also for 0); put out unless 0.
    pub(super) fn duration_or(&mut self, key: &str, default: i64) -> i64 {
        let ms = self.raw_duration(key).unwrap_or(default);
        self.put_duration(key, ms);
        ms
    }

    /// Puts a duration unless it is 0.
    pub(super) fn put_duration(&mut self, key: &str, ms: i64) {
        if ms != 0 {
            self.put(key, Out::Text(format_duration(ms)));
        }
    }

    /// A size in bytes with a default (also for 0); put out unless 0.
    pub(super) fn size_or(&mut self, key: &str, default: u64) -> u64 {
        let parsed = self.raw(key).map(|text| parse_size(&text));
        let bytes = match parsed {
            Some(Err(error)) => {
                self.problem(key, error);
                default
            }
            Some(Ok(bytes)) if bytes != 0 => bytes,
            _ => default,
        };
        if bytes != 0 {
            self.put(key, Out::Text(format_size(bytes)));
        }
        bytes
    }

    /// The items of a sequence.
    pub(super) fn items(&mut self, key: &str) -> Vec<&'a Placed> {
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.value {
            Node::List(items) => items.iter().collect(),
            _ => {
                self.reader.problem(node.referenced, format!("{} must be a list", self.path_of(key)));
                Vec::new()
            }
        }
    }

    /// A list of texts; not put out.
    pub(super) fn raw_texts(&mut self, key: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.items(key) {
            match scalar_text(item, self.reader.source) {
                Some(text) => texts.push(text),
                None => {
                    self.reader
                        .problem(item.referenced, format!("{} must be a list of texts", self.path_of(key)));
                }
            }
        }
        texts
    }

    /// A list of texts; put out when it is not empty.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let texts = self.raw_texts(key);
        if !texts.is_empty() {
            self.put(key, Out::texts(&texts));
        }
        texts
    }

    /// A mapping of texts to texts; put out when it is not empty.
    pub(super) fn text_map(&mut self, key: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        if let Some(mut section) = self.section(key) {
            for name in section.keys(|_| true) {
                let value = section.raw(name).unwrap_or_default();
                map.insert(name.to_owned(), value);
            }
        }
        if !map.is_empty() {
            let pairs = map.iter().map(|(k, v)| (k.clone(), Out::Text(v.clone()))).collect();
            self.put(key, Out::Map(pairs));
        }
        map
    }

    /// The mapping under `key`.
    pub(super) fn section(&mut self, key: &str) -> Option<Self> {
        let path = self.path_of(key);
        self.get(key).map(|node| Self::new(self.reader, node, path))
    }

    /// The mapping under `key`, also when it is there but null.
    pub(super) fn open_section(&mut self, key: &str) -> Option<Self> {
        let path = self.path_of(key);
        let entry = self.entries.iter_mut().find(|(k, ..)| k.value == key)?;
        entry.2 = true;
        Some(Self::new(self.reader, entry.1, path))
    }

    /// An empty mapping in place of the absent one under `key`.
    pub(super) fn empty_section(&self, key: &str) -> Self {
        let path = self.path_of(key);
        Self { reader: self.reader, path, at: self.at, entries: Vec::new(), out: Vec::new() }
    }

    /// Reads each item of a list of mappings and puts out what `read` gives back of it. A null item is a problem.
    pub(super) fn sections(&mut self, key: &str, null: &str, mut read: impl FnMut(Self) -> Out) {
        let mut outs = Vec::new();
        for (i, item) in self.items(key).into_iter().enumerate() {
            if item.value == Node::Null {
                self.reader.problem(item.referenced, null);
                continue;
            }
            outs.push(read(Self::new(self.reader, item, format!("{}[{i}]", self.path_of(key)))));
        }
        if !outs.is_empty() {
            self.put(key, Out::List(outs));
        }
    }

    /// A part that is accepted without being understood in detail; put out with whatever may be a secret masked.
    pub(super) fn opaque(&mut self, key: &str) {
        if let Some(node) = self.get(key) {
            let out = masked(node, key, self.reader.source);
            self.put(key, out);
        }
    }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "the configuration" } else { path }
}

/// A part of a configuration with texts masked whose key suggests a secret.
pub(super) fn masked(node: &Placed, key: &str, source: &str) -> Out {
    match &node.value {
        Node::Map(pairs) => Out::Map(
            pairs.iter().map(|(key, value)| (key.value.clone(), masked(value, &key.value, source))).collect(),
        ),
        Node::List(items) => Out::List(items.iter().map(|item| masked(item, key, source)).collect()),
        Node::Null => Out::Map(Vec::new()),
        _ if is_secret_key(key) => Out::Text(REDACTED.into()),
        Node::Bool(value) => Out::Bool(*value),
        _ => {
            let text = scalar_text(node, source).unwrap_or_default();
            match (&node.value, text.parse::<u64>()) {
                (Node::Number(_), Ok(number)) => Out::Number(number),
                _ => Out::Text(redacted_url(&text)),
            }
        }
    }
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words = ["pass", "secret", "token", "credential", "key", "auth"];
    let harmless =
        key.ends_with("_file") || key.ends_with("_path") || key.ends_with("_url") || key.ends_with("_id");
    !harmless && words.iter().any(|word| key.contains(word)) && key != "authentication_method"
}

/// A URL with `xxxxx` for its password; other texts as they are.
pub(super) fn redacted_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}://{name}:xxxxx@{host}{}", &rest[end..]),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

/// Parses sizes as upstream's `units.Base2Bytes`: numbers with units, `10MB`, `1GiB512KiB`, `0`; all units are powers
/// of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("units: invalid {text:?}");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let shift = match rest[..len].trim_end_matches('B').trim_end_matches('i') {
            // Upstream takes a number without a unit only for 0.
            "" if number == 0.0 || len > 0 => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "P" => 50,
            "E" => 60,
            _ => return Err(format!("units: unknown unit {:?} in {text:?}", &rest[..len])),
        };
        rest = &rest[len..];
        let bytes = number * (1u64 << shift) as f64;
        if !(0.0..=i64::MAX as f64).contains(&bytes) {
            return Err(invalid());
        }
        total = total.checked_add(bytes as u64).ok_or_else(invalid)?;
    }
    Ok(total)
}

/// A size with the largest unit that divides it.
fn format_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let step = (1..units.len()).rev().find(|i| bytes.is_multiple_of(1u64 << (10 * i))).unwrap_or(0);
    format!("{}{}", bytes >> (10 * step), units[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("10MB", 10 << 20),
            ("1GiB512KiB", (1 << 30) + (512 << 10)),
            ("1.5KB", 1536),
            ("100B", 100),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "100", "MB", "1XB", "-1MB", "1e300GB", "99999999999EB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(format_size(10 << 20), "10MiB");
        assert_eq!(format_size(1500), "1500B");
    }

    #[test]
    fn urls_lose_their_password() {
        assert_eq!(redacted_url("http://u:p@h/x?y"), "http://u:xxxxx@h/x?y");
        assert_eq!(redacted_url("http://h/x@y"), "http://h/x@y");
        assert_eq!(redacted_url("plain"), "plain");
    }
}
