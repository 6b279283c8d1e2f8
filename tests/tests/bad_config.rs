//! Configuration files that cannot be used: a reload is answered with the reason and its place, and everything stays as it
//! was. `docs/bad-input.md` has these rows; a test compares them.

use anyhow::{Result, ensure};
use tests::node::Node;

/// Memory that one bad file, which is the operator's, may take at its highest.
const MAX_GROWTH_KB: u64 = 128 << 10;

const GOOD: &str = "scrape_configs: [{job_name: good}]\n";

/// Its name in the documentation, the file, and words of the answer.
struct Row(&'static str, Vec<u8>, &'static str);

/// A job with a line of its own.
fn job(line: &str) -> String {
    format!("scrape_configs:\n  - job_name: x\n    {line}\n")
}

fn rows() -> Vec<Row> {
    let bomb: String = ('b'..'j')
        .zip('a'..)
        .map(|(name, before)| format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", ")))
        .collect();
    let bomb = format!("a: &a [x, x, x, x, x, x, x, x, x]\n{bomb}");
    let row = |name, text: &str, words| Row(name, text.as_bytes().to_vec(), words);
    vec![
        row("file: aliases that become 9^9 values", &bomb, "budget breached"),
        row("file: 10,000 nested lists", &("[".repeat(10_000) + &"]".repeat(10_000)), "recursion limit"),
        row("file: a key twice", "global: {}\nglobal: {}\n", "f.yml:2:1: duplicate mapping key"),
        row("file: an unknown key", "nothing: 1\n", "f.yml:1:1: field nothing not found"),
        row("file: a tab", "global:\n\tscrape_interval: 5s\n", "f.yml:2:2: tabs disallowed"),
        row("file: a value of another kind", "global: 5\n", "f.yml:1:9: global must be a mapping"),
        row(
            "file: a duration beyond all time",
            "global: {scrape_interval: 300000000y}\n",
            "duration out of range",
        ),
        row("file: a negative duration", "global: {scrape_interval: -5s}\n", "not a valid duration"),
        row(
            "file: an expression of a huge repetition",
            &job("relabel_configs: [{target_label: a, regex: '(a{1000}){1000}'}]"),
            "invalid repeat count",
        ),
        row("file: an unknown relabel action", &job("relabel_configs: [{action: nope}]"), "f.yml:3:"),
        row(
            "file: a certificate that is not there",
            &job("tls_config: {ca_file: /nowhere/ca.pem}"),
            "unable to read CA cert",
        ),
        row(
            "file: the same job twice",
            "scrape_configs: [{job_name: x}, {job_name: x}]\n",
            "multiple scrape configs with job name",
        ),
        row("file: an alias of itself", "a: &a\n  <<: *a\n", "f.yml:2:7: recursive references"),
        row("file: two documents", "global: {}\n---\nglobal: {}\n", "f.yml:3:1: multiple YAML documents"),
        row("file: a bracket left open", "global: {a\n", "f.yml:1:9: unclosed bracket"),
        row(
            "file: a number beyond 64 bits",
            &job("sample_limit: 99999999999999999999"),
            "must be a whole number",
        ),
        Row("file: not UTF-8", vec![0xff, 0xfe], "valid UTF-8"),
        Row("file: more than 16 MiB", vec![b'#'; 17 << 20], "more than 16777216"),
    ]
}

#[test]
fn a_bad_file_changes_nothing_and_says_where_it_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("f.yml");
    std::fs::write(&file, GOOD)?;
    let flag = format!("--config.file={}", file.display());
    let node = Node::start(&folder.path().join("data"), &[&flag, "--web.enable-lifecycle"])?;
    let reload = || node.client().request("POST", "/-/reload", &[], &[]);
    let last = "prometheus_config_last_reload_successful";
    let before = node.get("/api/v1/status/config")?;
    let mut wrong = Vec::new();
    for Row(name, text, words) in rows() {
        std::fs::write(&file, text)?;
        node.reset_highest_memory()?;
        let resident = node.memory_kb("VmRSS")?;
        let (code, answer) = reload()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let grown = node.memory_kb("VmHWM")?.saturating_sub(resident);
        if code != 500 || !answer.contains(words) || answer.len() > 1_000 {
            wrong.push(format!("{name}: {code} {}", answer.chars().take(300).collect::<String>()));
        }
        if grown > MAX_GROWTH_KB {
            wrong.push(format!("{name}: {grown} kB more memory"));
        }
        ensure!(node.get("/api/v1/status/config")? == before, "{name}: another configuration is in force");
        ensure!(node.get("/metrics")?.1.contains(&format!("\n{last} 0")), "{name}: not in the metrics");
    }
    ensure!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    std::fs::write(&file, GOOD)?;
    ensure!(reload()?.0 == 200 && node.get("/metrics")?.1.contains(&format!("\n{last} 1")));
    node.stop()?;
    Ok(())
}

#[test]
fn the_documentation_has_every_row() -> Result<()> {
    let line = |Row(name, _, words): &Row| format!("| {name} | `{words}` |");
    tests::documented("bad-input.md", rows().iter().map(line))
}
