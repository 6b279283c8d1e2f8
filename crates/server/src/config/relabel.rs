//! `*_relabel_configs`.

use model::relabel::{Action, DEFAULT_REGEX, NameScheme, RelabelConfig, Rule};

use super::out::Out;
use super::section::Section;

/// The rules under `key`; `what` names them in messages.
pub(super) fn rules(section: &mut Section<'_>, key: &str, what: &str, scheme: NameScheme) -> Vec<Rule> {
    let mut rules = Vec::new();
    section.sections(key, &format!("empty or null {what}"), |mut item| {
        let defaults = RelabelConfig::default();
        let source_labels = item.texts("source_labels");
        let separator = item.text_or("separator", &defaults.separator);
        // A null expression is the empty one; an absent one the default.
        let regex = match (item.raw("regex"), item.keys(|key| key == "regex").is_empty()) {
            (Some(regex), _) => regex,
            (None, true) => DEFAULT_REGEX.to_owned(),
            (None, false) => String::new(),
        };
        if regex != DEFAULT_REGEX {
            item.put("regex", Out::Text(regex.clone()));
        }
        let modulus = item.number_or("modulus", 0);
        let target_label = item.text("target_label").unwrap_or_default();
        let replacement = item.text_or("replacement", &defaults.replacement);
        let action = match item.raw("action").map(|name| Action::parse(&name)) {
            None => Action::Replace,
            Some(Ok(action)) => action,
            Some(Err(error)) => {
                item.problem("action", error.to_string());
                return item.finish();
            }
        };
        item.put("action", Out::Text(action.to_string()));
        let config =
            RelabelConfig { source_labels, separator, regex, modulus, target_label, replacement, action };
        match Rule::new(config, scheme) {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                let key = if matches!(error, model::relabel::RelabelError::Regex(_)) { "regex" } else { "" };
                item.problem(key, error.to_string());
            }
        }
        item.finish()
    });
    rules
}
