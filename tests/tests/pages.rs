//! The pages in a real browser: each shows what it is for, nothing that a server holds becomes markup, and the browser
//! complains about nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::seam::{Clock as _, SystemClock};
use tests::node::Node;
use tests::remote_write::{Series, Version, body_v2, send};
use tests::three;

/// What would run if it were taken for markup; it would show in the title.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\">";

/// The document that the browser has made of page `path` of a node, and what it complained about.
fn visit(node: &Node, path: &str) -> Result<(String, Vec<String>)> {
    let profile = tempfile::tempdir()?;
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/{path}", node.address))
        .output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    let complaints = complaints.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    ensure!(output.status.success(), "chromium at {path}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((String::from_utf8(output.stdout)?, complaints))
}

/// Fails unless page `path` shows all of `wanted` and nothing else happens.
fn shows(node: &Node, path: &str, wanted: &[&str]) -> Result<()> {
    let (document, complaints) = visit(node, path)?;
    ensure!(complaints.is_empty(), "{path}: {complaints:#?}");
    for text in wanted {
        ensure!(document.contains(text), "{path} does not show {text:?}:\n{document}");
    }
    let title = document.split("<title>").nth(1).and_then(|rest| rest.split('<').next());
    let title = title.with_context(|| format!("{path} has a title"))?;
    ensure!(title.contains("Isobar") && !document.contains("<img src=\"x\""), "{path}: {document}");
    Ok(())
}

#[test]
fn pages_show_what_they_are_for_and_nothing_becomes_markup() -> Result<()> {
    let missing = Command::new("chromium").arg("--version").output().err();
    if !tests::tier("browser", missing.map(|e| format!("chromium does not run: {e}"))) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    // One target that is scraped in vain, one that is dropped, and rules, which are not active yet.
    let dropped = "relabel_configs: [{source_labels: [__address__], regex: 'gone:1', action: drop}]";
    let jobs = "static_configs: [{targets: ['127.0.0.1:1', 'gone:1'], labels: {evil: '<img src=x>'}}]";
    let yaml = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: [r.yml]\nscrape_configs:\n- job_name: '<b>job</b>'\n  {jobs}\n  {dropped}\n"
    );
    std::fs::write(&config, yaml)?;
    std::fs::write(folder.path().join("r.yml"), "groups: []\n")?;
    let flag = format!("--config.file={}", config.display());
    let (mut nodes, _) = three::start(folder.path(), &[&flag])?;

    // Charts end at the last step of their grid.
    let past = SystemClock::new().now_ms() - 60_000;
    let series = Series::of(&[("__name__", HOSTILE), ("le", HOSTILE), ("a\"b", "c")]).float(past, 4.5);
    ensure!(send(&mut nodes[0].client(), Version::V2, None, &body_v2(&[series]))?.status == 204);
    // Each node has a loopback of its own.
    nodes[0].eventually(Duration::from_secs(20), "three nodes tried their own target", |node| {
        let names = node.query("count by (instance) (up == 0)", None)?;
        let mut names: Vec<String> = names
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["metric"]["instance"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        Ok((names == ["a:1", "b:1", "c:1"]).then_some(()))
    })?;

    let text = "&lt;img src=x";
    let node = &nodes[0];
    shows(node, "graph?g0.expr=%7B__name__%3D~%22.img.*%22%7D&g0.tab=1", &[text, "4.5", "not active yet"])?;
    shows(node, "graph?g0.expr=%7B__name__%3D~%22.img.*%22%7D&g0.tab=0", &[text, "<canvas"])?;
    shows(node, "graph?g0.expr=sum(%7B", &["parse error", "<mark>"])?;
    shows(
        node,
        "cluster",
        &["Cluster eu: 3 nodes, 8 shards", "healthy", "leader", "follower", "replication-factor"],
    )?;
    shows(node, "targets", &["0 of 1 up", "&lt;b&gt;job&lt;/b&gt;", text, "down"])?;
    shows(
        node,
        "service-discovery",
        &["1 kept, 1 dropped", "dropped by relabelling", "__scrape_interval__"],
    )?;
    shows(node, "rules", &["evaluates no rules", "rule_files"])?;
    shows(node, "status", &["dividing targets among nodes"])?;
    shows(node, "alerts", &["evaluates no rules"])?;
    shows(node, "tsdb-status", &["Series by metric", text])?;
    shows(node, "config", &["job_name", "&lt;b&gt;job"])?;
    shows(node, "flags", &["--cluster.bootstrap-expect", "--storage.tsdb.path"])?;
    shows(node, "status", &["3.16.0", "Not active yet", "rule_files"])?;

    // A node less.
    nodes.pop().context("three nodes")?.kill()?;
    nodes[0].eventually(Duration::from_secs(20), "the third is known to be silent", |node| {
        let status = node.api("/api/v1/cluster/status")?;
        let members = status["members"].as_array().context("members")?;
        Ok(members.iter().any(|member| member["answers"] == false).then_some(()))
    })?;
    shows(&nodes[0], "cluster", &["Node c does not answer", "silent", "fewer copies"])
}
