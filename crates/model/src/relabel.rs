//! Relabelling: rules that rewrite a label set or drop it, with all of upstream's actions.
//!
//! Source of the semantics: Prometheus `model/relabel/relabel.go` and Go's `regexp` for replacement templates.
//! Reading rules from YAML is `server::config`'s matter.

mod md5;
mod template;

use std::fmt;

use crate::LabelsBuilder;
use crate::regex::{Regex, RegexError};

pub use template::Template;

/// Which label and metric names are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// Any UTF-8 text that is not empty.
    #[default]
    Utf8,
    /// ASCII letters, digits and underscores, no leading digit; metric names may hold colons too.
    Legacy,
}

impl NameScheme {
    /// Whether `name` may name a label.
    pub fn is_valid_label_name(self, name: &str) -> bool {
        let word = |i: usize, b: u8| b.is_ascii_alphabetic() || b == b'_' || (i > 0 && b.is_ascii_digit());
        !name.is_empty() && (self == Self::Utf8 || name.bytes().enumerate().all(|(i, b)| word(i, b)))
    }

    /// Whether `name` may name a metric.
    pub fn is_valid_metric_name(self, name: &str) -> bool {
        let word =
            |i: usize, b: u8| b.is_ascii_alphabetic() || b"_:".contains(&b) || (i > 0 && b.is_ascii_digit());
        !name.is_empty() && (self == Self::Utf8 || name.bytes().enumerate().all(|(i, b)| word(i, b)))
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets the target label to the expanded replacement when the expression matches.
    #[default]
    Replace,
    /// Drops label sets whose source does not match.
    Keep,
    /// Drops label sets whose source matches.
    Drop,
    /// Drops label sets whose source differs from the target label.
    KeepEqual,
    /// Drops label sets whose source equals the target label.
    DropEqual,
    /// Sets the target label to the source's MD5 modulo `modulus`.
    HashMod,
    /// Copies labels whose name matches to the expanded replacement.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to the source in lower case.
    Lowercase,
    /// Sets the target label to the source in upper case.
    Uppercase,
}

impl Action {
    /// All actions, with the names that configurations use.
    const NAMES: [(&'static str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];

    /// The action of that name, in any case.
    pub fn parse(name: &str) -> Result<Self, RelabelError> {
        let lower = name.to_lowercase();
        let found = Self::NAMES.iter().find(|(n, _)| *n == lower).map(|(_, action)| *action);
        found.ok_or_else(|| RelabelError::UnknownAction(name.to_owned()))
    }

    /// The name that configurations use.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }

    fn needs_target(self) -> bool {
        matches!(self, Self::Replace | Self::HashMod) || self.has_plain_target()
    }

    /// Actions whose target is a plain name and that take no replacement.
    fn has_plain_target(self) -> bool {
        matches!(self, Self::Lowercase | Self::Uppercase | Self::KeepEqual | Self::DropEqual)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a rule is not accepted; worded as upstream words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelabelError {
    /// No action has that name.
    #[error("unknown relabel action {0:?}")]
    UnknownAction(String),
    /// `hashmod` without a modulus.
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    /// The action writes to a target label and none is given.
    #[error("relabel configuration for {0} action requires 'target_label' value")]
    NoTarget(Action),
    /// The target label is not a valid name.
    #[error("{1:?} is invalid 'target_label' for {0} action")]
    BadTarget(Action, String),
    /// The replacement does not make valid names.
    #[error("{1:?} is invalid 'replacement' for {0} action")]
    BadReplacement(Action, String),
    /// The action takes no replacement.
    #[error("'replacement' can not be set for {0} action")]
    ReplacementSet(Action),
    /// `keepequal` and `dropequal` take two fields only.
    #[error("{0} action requires only 'source_labels' and `target_label`, and no other fields")]
    OnlySourceAndTarget(Action),
    /// `labeldrop` and `labelkeep` take one field only.
    #[error("{0} action requires only 'regex', and no other fields")]
    OnlyRegex(Action),
    /// The expression is not valid.
    #[error(transparent)]
    Regex(#[from] RegexError),
}

/// A rule as written, with upstream's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelabelConfig {
    /// Labels whose values are joined to form the source.
    pub source_labels: Vec<String>,
    /// What stands between the joined values.
    pub separator: String,
    /// The expression, not anchored yet.
    pub regex: String,
    /// Of `hashmod`.
    pub modulus: u64,
    /// The label that is written, for `replace` a template.
    pub target_label: String,
    /// The template of the value written.
    pub replacement: String,
    /// What is done.
    pub action: Action,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".into(),
            regex: DEFAULT_REGEX.into(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.into(),
            action: Action::Replace,
        }
    }
}

/// The default expression.
pub const DEFAULT_REGEX: &str = "(.*)";
/// The default replacement.
pub const DEFAULT_REPLACEMENT: &str = "$1";

/// A checked rule, ready to be applied.
#[derive(Clone, Debug)]
pub struct Rule {
    config: RelabelConfig,
    scheme: NameScheme,
    regex: Regex,
    target: Template,
    replacement: Template,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (&self.config, self.scheme) == (&other.config, other.scheme)
    }
}

impl Eq for Rule {}

impl Rule {
    /// Checks `config` as upstream does and compiles it. `scheme` says which names `replace` may write.
    pub fn new(config: RelabelConfig, scheme: NameScheme) -> Result<Self, RelabelError> {
        validate(&config, scheme)?;
        Ok(Self {
            regex: Regex::anchored(&config.regex)?,
            target: Template::parse(&config.target_label),
            replacement: Template::parse(&config.replacement),
            scheme,
            config,
        })
    }

    /// The rule as written.
    pub fn config(&self) -> &RelabelConfig {
        &self.config
    }

    /// Applies the rule to `labels`; false means that the label set is dropped.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let source = self.source(labels);
        let target = self.config.target_label.as_str();
        match self.config.action {
            Action::Drop => return !self.regex.is_match(&source),
            Action::Keep => return self.regex.is_match(&source),
            Action::DropEqual => return labels.get(target).unwrap_or("") != source,
            Action::KeepEqual => return labels.get(target).unwrap_or("") == source,
            Action::Replace => self.replace(&source, labels),
            Action::Lowercase => {
                labels.set(target, &source.chars().map(simple_lower).collect::<String>());
            }
            Action::Uppercase => {
                labels.set(target, &source.chars().map(simple_upper).collect::<String>());
            }
            Action::HashMod => {
                let digest = md5::md5(source.as_bytes());
                let tail = digest[8..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                labels.set(target, &(tail % self.config.modulus.max(1)).to_string());
            }
            Action::LabelMap => self.map_names(labels),
            Action::LabelDrop => self.remove_names(labels, true),
            Action::LabelKeep => self.remove_names(labels, false),
        }
        true
    }

    fn source(&self, labels: &LabelsBuilder) -> String {
        let mut source = String::new();
        for (i, name) in self.config.source_labels.iter().enumerate() {
            if i > 0 {
                source.push_str(&self.config.separator);
            }
            source.push_str(labels.get(name).unwrap_or(""));
        }
        source
    }

    fn replace(&self, source: &str, labels: &mut LabelsBuilder) {
        if let (Some(target), Some(value)) = (self.target.literal(), self.replacement.literal()) {
            if self.regex.is_match(source) && self.scheme.is_valid_label_name(target) {
                labels.set(target, value);
            }
            return;
        }
        let Some(captures) = self.regex.captures(source) else { return };
        let mut target = String::new();
        self.target.expand(&captures, &mut target);
        if !self.scheme.is_valid_label_name(&target) {
            return;
        }
        let mut value = String::new();
        self.replacement.expand(&captures, &mut value);
        labels.set(&target, &value);
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let mut pairs: Vec<(String, String)> =
            labels.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        pairs.sort();
        for (name, value) in &pairs {
            if let Some(captures) = self.regex.captures(name) {
                let mut new_name = String::new();
                self.replacement.expand(&captures, &mut new_name);
                labels.set(&new_name, value);
            }
        }
    }

    fn remove_names(&self, labels: &mut LabelsBuilder, matching: bool) {
        let doomed: Vec<String> = labels
            .pairs()
            .map(|(name, _)| name)
            .filter(|name| self.regex.is_match(name) == matching)
            .map(str::to_owned)
            .collect();
        for name in doomed {
            labels.remove(&name);
        }
    }
}

/// Applies `rules` in order; false means that the label set is dropped (the rest of the rules is not applied).
pub fn relabel(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

fn validate(config: &RelabelConfig, scheme: NameScheme) -> Result<(), RelabelError> {
    let action = config.action;
    let defaults = RelabelConfig::default();
    let target = &config.target_label;
    if action == Action::HashMod && config.modulus == 0 {
        return Err(RelabelError::NoModulus);
    }
    if action.needs_target() && target.is_empty() {
        return Err(RelabelError::NoTarget(action));
    }
    let target_ok = match action {
        Action::Replace if target.contains('$') => is_valid_name_template(target, scheme),
        Action::Replace | Action::HashMod => scheme.is_valid_label_name(target),
        _ => !action.has_plain_target() || scheme.is_valid_label_name(target),
    };
    if !target_ok {
        return Err(RelabelError::BadTarget(action, target.clone()));
    }
    let default_replacement = config.replacement == DEFAULT_REPLACEMENT;
    if action.has_plain_target() && !default_replacement {
        return Err(RelabelError::ReplacementSet(action));
    }
    if action == Action::LabelMap && !is_valid_name_template(&config.replacement, scheme) {
        return Err(RelabelError::BadReplacement(action, config.replacement.clone()));
    }
    let plain = config.modulus == 0 && config.separator == defaults.separator && default_replacement;
    if matches!(action, Action::DropEqual | Action::KeepEqual) && !(plain && config.regex == defaults.regex) {
        return Err(RelabelError::OnlySourceAndTarget(action));
    }
    let only_regex = plain && config.source_labels.is_empty() && target.is_empty();
    if matches!(action, Action::LabelDrop | Action::LabelKeep) && !only_regex {
        return Err(RelabelError::OnlyRegex(action));
    }
    Ok(())
}

/// Whether a template can make label names. Any text can where names are UTF-8.
fn is_valid_name_template(template: &str, scheme: NameScheme) -> bool {
    if scheme == NameScheme::Utf8 {
        return !template.is_empty();
    }
    // As upstream's `relabelTargetLegacy`: words, `$name` and `${name}`, not starting with a digit.
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = template.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'$' {
            if !is_word(bytes[at]) || (at == 0 && bytes[at].is_ascii_digit()) {
                return false;
            }
            at += 1;
            continue;
        }
        at += 1;
        let braced = bytes.get(at) == Some(&b'{');
        at += usize::from(braced);
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        if at == start || (braced && bytes.get(at) != Some(&b'}')) {
            return false;
        }
        at += usize::from(braced);
    }
    !bytes.is_empty()
}

/// Go's `unicode.ToLower`: one character for one character.
fn simple_lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        // Only İ has a longer lower case; its simple mapping is i.
        (Some(first), _) => first,
        (None, _) => c,
    }
}

/// Go's `unicode.ToUpper`: one character for one character, where Rust's own mapping may give several.
fn simple_upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    if let (Some(only), None) = (upper.next(), upper.next()) {
        return only;
    }
    // Greek letters with iota subscript have a title-case letter as their simple mapping; the rest map to
    // themselves.
    let step = match c as u32 {
        0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7 => 8,
        0x1fb3 | 0x1fc3 | 0x1ff3 => 9,
        _ => 0,
    };
    char::from_u32(c as u32 + step).unwrap_or(c)
}

#[cfg(test)]
mod tests;
