//! House rules that hold for the whole workspace: which crate may name which, and under what licences dependencies are.
//!
//! Both lists stand where people read them (`ARCHITECTURE.md`, `deny.toml`); the tests compare them with what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

fn metadata(extra: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(extra)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// The lines `crate: other other` of the code block under "## Arrows" in ARCHITECTURE.md.
fn listed_arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let section = text.split("\n## Arrows").nth(1).expect("a section named Arrows");
    let block = section.split("```").nth(1).expect("a code block in it");
    let lines = block.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, others)| {
            (name.trim().to_owned(), others.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>())
        })
        .collect()
}

#[test]
fn every_arrow_between_crates_is_listed_in_architecture() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let listed = listed_arrows();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        if ["tests", "benches", "example-services", "fuzz-targets"].contains(&name) {
            continue;
        }
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let has: BTreeSet<String> = dependencies
            .iter()
            .filter(|d| d["kind"].is_null())
            .filter_map(|d| d["name"].as_str())
            .filter(|d| ours.contains(d))
            .map(str::to_owned)
            .collect();
        let may = listed.get(name).cloned().unwrap_or_default();
        wrong.extend(
            has.difference(&may).map(|to| format!("{name} names {to}: not listed in ARCHITECTURE.md")),
        );
        wrong.extend(
            may.difference(&has).map(|to| format!("{name} → {to} is listed, but not there any more")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_their_owners_name_the_foreign_engines() {
    let owners = [("rocksdb", "storage"), ("openraft", "replication"), ("axum", "api"), ("tonic", "rpc")];
    let metadata = metadata(&["--no-deps"]);
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = dependency["name"].as_str().expect("a name");
            for (foreign, owner) in owners {
                assert!(dependency != foreign || name == owner, "{name} names {foreign}; only {owner} may");
            }
        }
    }
}

/// The strings of the first list `key = [ … ]` in a TOML text.
fn toml_list(text: &str, key: &str) -> BTreeSet<String> {
    let start = text.find(&format!("{key} = [")).expect("the list is there");
    let list = text[start..].split(']').next().expect("the list ends");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether a licence expression is satisfied by the allowed ones: `OR` needs one side, `AND` both.
fn allowed(expression: &str, list: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| list.contains(licence.trim())))
}

#[test]
fn licences_of_all_dependencies_are_allowed() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let list = toml_list(&deny, "allow");
    assert!(list.contains("MIT") && list.len() > 5, "the list was read: {list:?}");
    let metadata = metadata(&["--filter-platform=x86_64-unknown-linux-gnu"]);
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "all packages are listed");
    let refused: Vec<String> = packages
        .iter()
        .map(|p| (p["name"].as_str().unwrap_or("?"), p["license"].as_str().unwrap_or("none stated")))
        .filter(|(_, licence)| !allowed(licence, &list))
        .map(|(name, licence)| format!("{name}: {licence}"))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
