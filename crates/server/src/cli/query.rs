//! `isobar query instant|range|series|labels`: asks a server over its HTTP API. Arguments, output and exit codes are
//! promtool's (`cmd/promtool/query.go`).
//!
//! Here: the command line and the requests. Not here: how answers are printed (`query/print.rs`).

mod print;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use model::seam::{Clock, SystemClock};
use model::{number, time};
use serde_json::Value;

/// How long a server may take, as promtool waits.
const PATIENCE: Duration = Duration::from_secs(120);

/// How far `series` and `labels` look back and ahead when no time is given, ms: 9,999 hours.
const FAR_MS: i64 = 9_999 * 3_600_000;

#[derive(Parser, Debug)]
#[command(name = "isobar query", about = "Run a query against a server", disable_version_flag = true)]
struct QueryCommand {
    /// Output format of the query.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Promql, global = true)]
    format: Format,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Promql,
    Json,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Run an instant query.
    Instant {
        #[command(flatten)]
        server: Server,
        /// PromQL expression.
        #[arg(allow_hyphen_values = true)]
        expr: String,
        /// Evaluation time (RFC 3339 or unix seconds).
        #[arg(long, allow_hyphen_values = true)]
        time: Option<String>,
    },
    /// Run a range query.
    Range {
        #[command(flatten)]
        server: Server,
        /// PromQL expression.
        #[arg(allow_hyphen_values = true)]
        expr: String,
        /// Start (RFC 3339 or unix seconds); 5 minutes before the end when absent.
        #[arg(long, allow_hyphen_values = true)]
        start: Option<String>,
        /// End (RFC 3339 or unix seconds); now when absent.
        #[arg(long, allow_hyphen_values = true)]
        end: Option<String>,
        /// Step, for example 15s; about 250 points when absent.
        #[arg(long)]
        step: Option<String>,
    },
    /// List series.
    Series {
        #[command(flatten)]
        server: Server,
        /// Series selector; may be repeated.
        #[arg(long = "match", required = true)]
        selectors: Vec<String>,
        #[command(flatten)]
        range: Range,
    },
    /// List the values of a label.
    Labels {
        #[command(flatten)]
        server: Server,
        /// Label name.
        name: String,
        /// Series selector; may be repeated.
        #[arg(long = "match")]
        selectors: Vec<String>,
        #[command(flatten)]
        range: Range,
    },
}

#[derive(Args, Debug)]
pub(super) struct Server {
    /// URL of the server, for example http://localhost:9090.
    pub(super) server: String,
    /// Further header to send, as name=value; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(super) headers: Vec<String>,
}

#[derive(Args, Debug)]
struct Range {
    /// Start (RFC 3339 or unix seconds).
    #[arg(long, allow_hyphen_values = true)]
    start: Option<String>,
    /// End (RFC 3339 or unix seconds).
    #[arg(long, allow_hyphen_values = true)]
    end: Option<String>,
}

/// Runs the command with the arguments after `query`. Exit codes: 0 done, 1 failed or wrong usage.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the command line")]
pub fn run(args: Vec<String>) -> ExitCode {
    let command = match QueryCommand::try_parse_from(std::iter::once("isobar query".to_owned()).chain(args)) {
        Ok(command) => command,
        Err(error) => {
            eprint!("{error}");
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error starting: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(ask(&command, SystemClock::new().now_ms())) {
        Ok(answer) => {
            for warning in &answer.warnings {
                eprintln!("query warning: {warning}");
            }
            print!("{}", answer.text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// What goes to the two outputs.
struct Shown {
    text: String,
    warnings: Vec<String>,
}

async fn ask(command: &QueryCommand, now_ms: i64) -> Result<Shown, String> {
    let json = command.format == Format::Json;
    let mut form = Form::default();
    let (server, path, method) = match &command.what {
        What::Instant { server, expr, time } => {
            form.add("query", expr);
            let at = optional_time(time.as_deref(), now_ms, "evaluation time")?;
            form.add("time", &seconds(at));
            (server, "query".to_owned(), Method::POST)
        }
        What::Range { server, expr, start, end, step } => {
            let end = optional_time(end.as_deref(), now_ms, "end time")?;
            let start = optional_time(start.as_deref(), end - 300_000, "start time")?;
            if start >= end {
                return Err("start time is not before end time".into());
            }
            let step_ms = match step {
                Some(text) => time::parse_duration(text).map_err(|e| format!("error parsing step: {e}"))?,
                None => ((end - start) / 1000 / 250).max(1) * 1000,
            };
            form.add("query", expr);
            form.add("start", &seconds(start));
            form.add("end", &seconds(end));
            form.add("step", &seconds(step_ms));
            (server, "query_range".to_owned(), Method::POST)
        }
        What::Series { server, selectors, range } => {
            form.add_selectors(selectors, range, now_ms)?;
            (server, "series".to_owned(), Method::POST)
        }
        What::Labels { server, name, selectors, range } => {
            form.add_selectors(selectors, range, now_ms)?;
            (server, format!("label/{}/values", escape(name)), Method::GET)
        }
    };
    let answer = server.call(method, &path, &form.0).await?;
    let data = answer.get("data").unwrap_or(&Value::Null);
    let text = match &command.what {
        What::Instant { .. } | What::Range { .. } => print::value(data, json),
        What::Series { .. } => print::series(data, json),
        What::Labels { .. } => print::label_values(data, json),
    };
    // promtool shows warnings of this call alone.
    let warned = matches!(command.what, What::Labels { .. }).then(|| answer["warnings"].as_array()).flatten();
    let warnings = warned.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Shown { text, warnings })
}

/// Percent-encoded parameters.
#[derive(Default)]
struct Form(String);

impl Form {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&escape(name));
        self.0.push('=');
        self.0.push_str(&escape(value));
    }

    fn add_selectors(&mut self, selectors: &[String], range: &Range, now_ms: i64) -> Result<(), String> {
        for selector in selectors {
            self.add("match[]", selector);
        }
        let start = optional_time(range.start.as_deref(), now_ms - FAR_MS, "start time")?;
        let end = optional_time(range.end.as_deref(), now_ms + FAR_MS, "end time")?;
        self.add("start", &seconds(start));
        self.add("end", &seconds(end));
        Ok(())
    }
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn seconds(ms: i64) -> String {
    number::format_float(ms as f64 / 1000.0)
}

fn optional_time(text: Option<&str>, default: i64, what: &str) -> Result<i64, String> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(default) };
    let parsed = match number::parse_float(text) {
        Ok(seconds) if seconds.abs() < 9e15 => Some((seconds * 1000.0).round() as i64),
        Ok(_) => None,
        Err(_) => time::parse_rfc3339(text),
    };
    parsed.ok_or_else(|| format!("error parsing {what}: cannot parse {text:?} to a valid timestamp"))
}

impl Server {
    /// The parsed answer, or the message that promtool would print.
    async fn call(&self, method: Method, path: &str, form: &str) -> Result<Value, String> {
        let base = self.server.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let url = format!("{base}/api/v1/{path}");
        let (mut status, mut body) = self.send(&method, &url, form).await?;
        let refused = matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
        if refused && method == Method::POST {
            (status, body) = self.send(&Method::GET, &url, form).await?;
        }
        let detail = |kind: &str| {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            let kind = format!("{kind}_error: {kind} error: {}", status.as_u16());
            if text.is_empty() {
                format!("query error: {kind}")
            } else {
                format!("query error: {kind} (detail: {text})")
            }
        };
        if status.is_client_error() && !matches!(status.as_u16(), 400 | 422) {
            return Err(detail("client"));
        }
        if status.is_server_error() {
            return Err(detail("server"));
        }
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|e| format!("query error: bad_response: {e} (status {})", status.as_u16()))?;
        if answer["status"] != "success" {
            let text = |name: &str| answer[name].as_str().unwrap_or("").to_owned();
            return Err(format!("query error: {}: {}", text("errorType"), text("error")));
        }
        Ok(answer)
    }

    /// Sends the form and gives status and body; the error is promtool's text.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &str,
        form: &str,
    ) -> Result<(StatusCode, Bytes), String> {
        let name = if *method == Method::POST { "Post" } else { "Get" };
        let failed = |why: &dyn std::fmt::Display| format!("query error: {name} {url:?}: {why}");
        let posted = *method == Method::POST;
        let target = if posted || form.is_empty() { url.to_owned() } else { format!("{url}?{form}") };
        let mut request = Request::builder().method(method).uri(target);
        if posted {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for header in &self.headers {
            let (name, value) = header
                .split_once('=')
                .ok_or_else(|| format!("header {header:?} is not of the form name=value"))?;
            request = request.header(name, value);
        }
        let body = if posted { Bytes::copy_from_slice(form.as_bytes()) } else { Bytes::new() };
        let request = request.body(Full::new(body)).map_err(|e| failed(&e))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|e| failed(&e))?
            .https_or_http()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let exchange = async {
            let response = client.request(request).await.map_err(|e| failed(&chain(&e)))?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| failed(&e))?.to_bytes();
            Ok((status, body))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(result) => result,
            Err(_) => Err(failed(&"context deadline exceeded")),
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<QueryCommand, String> {
        let all = std::iter::once("isobar query").chain(args.iter().copied());
        QueryCommand::try_parse_from(all).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments_are_promtools() {
        let instant = parse(&["instant", "-o", "json", "http://x:9090", "up", "--time=5"]).unwrap();
        assert_eq!(instant.format, Format::Json);
        assert!(
            matches!(&instant.what, What::Instant { expr, time: Some(t), .. } if expr == "up" && t == "5")
        );
        let negative = parse(&["instant", "http://x:9090", "-up"]).unwrap();
        assert!(matches!(&negative.what, What::Instant { expr, .. } if expr == "-up"));
        assert!(
            parse(&["--format=json", "range", "http://x", "up", "--start=1", "--end=2", "--step=15s"])
                .is_ok()
        );
        assert!(parse(&["series", "--match=up", "--match=down", "http://x"]).is_ok());
        assert!(parse(&["labels", "http://x", "job", "--match=up", "--header=a=b"]).is_ok());
        for wrong in
            [&["instant", "http://x"][..], &["series", "http://x"], &["labels", "http://x"], &["nothing"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_and_forms() {
        assert_eq!(optional_time(Some("1.5"), 0, "t"), Ok(1_500));
        assert_eq!(optional_time(Some("1970-01-01T00:00:01Z"), 0, "t"), Ok(1_000));
        assert_eq!(optional_time(None, 7, "t"), Ok(7));
        assert_eq!(
            optional_time(Some("x"), 0, "start time").unwrap_err(),
            "error parsing start time: cannot parse \"x\" to a valid timestamp"
        );
        let mut form = Form::default();
        form.add("match[]", "up{a=\"é\"}");
        form.add("start", &seconds(1_500));
        assert_eq!(form.0, "match%5B%5D=up%7Ba%3D%22%C3%A9%22%7D&start=1.5");
    }
}
