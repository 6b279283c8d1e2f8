//! `isobar cluster status|settings|transfer-leader|remove`: asks a node about its cluster over its HTTP API. Exit
//! codes: 0 done, 1 failed, 2 wrong usage.
//!
//! Here: the command line and the requests. Not here: how the status is drawn (`cluster/draw.rs`).

mod draw;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use http::{Method, StatusCode};
use serde_json::Value;

use super::query::{Server, escape};

/// Between two pictures of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

#[derive(Parser, Debug)]
#[command(name = "isobar cluster", about = "See and change a cluster", disable_version_flag = true)]
struct ClusterCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Args, Debug, Clone)]
struct At {
    /// A node of the cluster.
    #[arg(long, value_name = "URL", default_value = "http://localhost:9090")]
    server: String,
    /// Header to send, name=value; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show nodes, shards, leaders, replicas, lag and settings.
    Status {
        #[command(flatten)]
        at: At,
        /// Draw again every second.
        #[arg(long)]
        watch: bool,
        /// The API's answer.
        #[arg(long)]
        json: bool,
    },
    /// Show the settings that must agree, or change some: KEY=VALUE.
    Settings {
        #[command(flatten)]
        at: At,
        /// What to change.
        #[arg(value_name = "KEY=VALUE", value_parser = assignment)]
        changes: Vec<(String, String)>,
    },
    /// Hand the leadership of a shard to a node.
    TransferLeader {
        #[command(flatten)]
        at: At,
        /// Number of the shard.
        shard: u32,
        /// Name or id of the node.
        node: String,
    },
    /// Remove a node without replicas for good: it can never come back under its id.
    Remove {
        #[command(flatten)]
        at: At,
        /// Name or id of the node.
        node: String,
    },
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs `isobar cluster` with the arguments after it.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
pub fn run(args: Vec<String>) -> ExitCode {
    let all = std::iter::once("isobar cluster".to_owned()).chain(args);
    let command = match ClusterCommand::try_parse_from(all) {
        Ok(command) => command,
        Err(error) => {
            eprint!("{error}");
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isobar: starting: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(carry_out(&command.what)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("isobar: {message}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "this is the command line")]
async fn carry_out(what: &What) -> Result<String, String> {
    match what {
        What::Status { at, watch: true, .. } => loop {
            let picture = match call(at, &Method::GET, "cluster/status", "").await {
                Ok(status) => draw::status(&status),
                Err(message) => format!("{message}\n"),
            };
            // Clears the screen and goes to its beginning.
            print!("\x1b[2J\x1b[H{picture}");
            tokio::time::sleep(WATCH).await;
        },
        What::Status { at, json, .. } => {
            let status = call(at, &Method::GET, "cluster/status", "").await?;
            Ok(if *json { format!("{status:#}\n") } else { draw::status(&status) })
        }
        What::Settings { at, changes } if changes.is_empty() => {
            let status = call(at, &Method::GET, "cluster/status", "").await?;
            Ok(draw::settings(&status))
        }
        What::Settings { at, changes } => {
            let form: Vec<_> = changes.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
            call(at, &Method::POST, "cluster/settings", &form.join("&")).await?;
            let status = call(at, &Method::GET, "cluster/status", "").await?;
            Ok(draw::settings(&status))
        }
        What::TransferLeader { at, shard, node } => {
            let form = format!("shard={shard}&node={}", escape(node));
            call(at, &Method::POST, "cluster/transfer_leader", &form).await?;
            Ok(format!("shard {shard} is led by another node now\n"))
        }
        What::Remove { at, node } => {
            call(at, &Method::POST, "cluster/remove", &format!("node={}", escape(node))).await?;
            Ok(format!("{node} is removed for good\n"))
        }
    }
}

/// The `data` of the answer, or what the server says is wrong.
async fn call(at: &At, method: &Method, path: &str, form: &str) -> Result<Value, String> {
    let server = Server { server: at.server.clone(), headers: at.headers.clone() };
    let base = at.server.trim_end_matches('/');
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let url = format!("{base}/api/v1/{path}");
    let (status, body) = server.send(method, &url, form).await?;
    let answer: Value = serde_json::from_slice(&body)
        .map_err(|_| format!("{url}: {status}: {}", String::from_utf8_lossy(&body).trim()))?;
    if status != StatusCode::OK {
        return Err(answer["error"].as_str().unwrap_or("the server gave no reason").to_owned());
    }
    Ok(answer["data"].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ClusterCommand, String> {
        let all = std::iter::once("isobar cluster").chain(args.iter().copied());
        ClusterCommand::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments() {
        assert!(matches!(parse(&["status", "--watch"]).unwrap().what, What::Status { watch: true, .. }));
        let settings = parse(&["settings", "replication-factor=3", "--server=http://x:1"]).unwrap();
        assert!(matches!(&settings.what, What::Settings { changes, at }
            if changes[0].1 == "3" && at.server == "http://x:1"));
        assert!(parse(&["settings", "replication-factor"]).is_err());
        assert!(matches!(
            parse(&["transfer-leader", "3", "b"]).unwrap().what,
            What::TransferLeader { shard: 3, .. }
        ));
        assert!(parse(&["transfer-leader", "x", "b"]).is_err());
        assert!(parse(&["remove"]).is_err());
    }
}
