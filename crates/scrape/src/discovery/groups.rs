//! Target groups as files and HTTP servers write them: a list of `{targets: […], labels: {…}}`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::config::TargetGroup;

/// The most bytes that a file or answer with target groups may have.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// Why target groups cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not JSON of that form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not YAML of that form.
    #[error("{0}")]
    Yaml(String),
    /// A list item is null.
    #[error("nil target group item found")]
    Null,
    /// A label's name cannot be one.
    #[error("{0:?} is not a valid label name")]
    LabelName(String),
    /// The ending of the file's name says neither JSON nor YAML.
    #[error("invalid file extension: {0:?}")]
    Extension(String),
    /// More bytes than allowed.
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Parses a JSON list of groups.
pub fn parse_groups_json(text: &[u8]) -> Result<Vec<TargetGroup>, GroupsError> {
    let groups: Option<Vec<Option<Group>>> = serde_json::from_slice(text)?;
    checked(groups)
}

/// Parses a YAML list of groups.
pub fn parse_groups_yaml(text: &str) -> Result<Vec<TargetGroup>, GroupsError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let groups: Option<Vec<Option<Group>>> =
        serde_saphyr::from_str(text).map_err(|e| GroupsError::Yaml(e.to_string()))?;
    checked(groups)
}

/// Reads a file of groups; the ending of its name says whether it is JSON or YAML.
pub fn read_groups(path: &Path) -> Result<Vec<TargetGroup>, GroupsError> {
    if std::fs::metadata(path)?.len() > MAX_BYTES {
        return Err(GroupsError::TooLarge);
    }
    let content = std::fs::read(path)?;
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "json" => parse_groups_json(&content),
        "yml" | "yaml" => parse_groups_yaml(&String::from_utf8_lossy(&content)),
        _ => Err(GroupsError::Extension(format!(".{extension}"))),
    }
}

fn checked(groups: Option<Vec<Option<Group>>>) -> Result<Vec<TargetGroup>, GroupsError> {
    let mut out = Vec::new();
    for (i, group) in groups.unwrap_or_default().into_iter().enumerate() {
        let group = group.ok_or(GroupsError::Null)?;
        let labels = group.labels.unwrap_or_default();
        if let Some(name) = labels.keys().find(|name| name.is_empty()) {
            return Err(GroupsError::LabelName(name.clone()));
        }
        out.push(TargetGroup { targets: group.targets.unwrap_or_default(), labels, source: i.to_string() });
    }
    Ok(out)
}

/// Adds a label to each group and puts `origin` before its source.
pub(crate) fn with_origin(mut groups: Vec<TargetGroup>, label: &str, origin: &str) -> Vec<TargetGroup> {
    for group in &mut groups {
        group.labels.insert(label.to_owned(), origin.to_owned());
        group.source = format!("{origin}:{}", group.source);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_give_the_same_groups() {
        let json = br#"[{"targets": ["a:1", "b"], "labels": {"env": "prod"}}, {"targets": null}]"#;
        let yaml = "- targets: ['a:1', b]\n  labels:\n    env: prod\n- targets:\n";
        let got = parse_groups_json(json).unwrap();
        assert_eq!(got, parse_groups_yaml(yaml).unwrap());
        assert_eq!(got[0].targets, ["a:1", "b"]);
        assert_eq!(got[0].labels["env"], "prod");
        assert_eq!(got.len(), 2);
        assert!(parse_groups_json(b"null").unwrap().is_empty());
        assert!(parse_groups_yaml("").unwrap().is_empty());
        let numbers = parse_groups_yaml("- targets: [a]\n  labels: {port: 9090, on: true}\n").unwrap();
        assert_eq!((numbers[0].labels["port"].as_str(), numbers[0].labels["on"].as_str()), ("9090", "true"));
    }

    #[test]
    fn what_is_no_list_of_groups_is_refused() {
        assert!(parse_groups_json(b"[{\"target\": []}]").unwrap_err().to_string().contains("unknown field"));
        assert!(parse_groups_yaml("- target: []").unwrap_err().to_string().contains("unknown field"));
        assert!(matches!(parse_groups_json(b"[null]"), Err(GroupsError::Null)));
        assert!(matches!(parse_groups_yaml("-\n"), Err(GroupsError::Null)));
        assert!(matches!(parse_groups_json(br#"[{"labels": {"": "x"}}]"#), Err(GroupsError::LabelName(_))));
        assert!(parse_groups_json(b"[").is_err());
    }
}
