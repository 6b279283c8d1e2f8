//! One process of the program on a free loopback port: started, asked, ended in several ways.
//!
//! Waiting is done on the process's own log lines, never on time alone.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use benches::http::{Client, encoded};
use serde_json::Value;

/// Longest wait for a log line of a starting or ending process.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program under test: `ISOBAR_BIN`, or the one that cargo built beside this test.
#[allow(clippy::disallowed_methods, reason = "tests find the program through the environment")]
pub fn binary() -> PathBuf {
    if let Ok(named) = std::env::var("ISOBAR_BIN") {
        return named.into();
    }
    let mut path = std::env::current_exe().expect("a running program has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("isobar")
}

/// How a process is started, beside its flags.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// A command that becomes the process, before the program's path: `ip netns exec NAME`.
    pub under: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Where it listens for clients and for other nodes; at free ports of loopback when `None`.
    pub listen: Option<(String, String)>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    lines: Receiver<String>,
    /// Its log so far, as far as it was read.
    pub log: Vec<String>,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Node {
    /// Starts the program with its data in `data` and the further `flags`, and waits until it serves.
    pub fn start(data: &Path, flags: &[&str]) -> Result<Self> {
        let mut node = Self::spawn(data, flags)?;
        node.wait_until_ready()?;
        Ok(node)
    }

    /// Waits until it serves.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.wait_for_address("ready to serve")
    }

    /// Waits until it answers HTTP, ready or not.
    pub fn wait_for_http(&mut self) -> Result<()> {
        self.wait_for_address("answering HTTP")
    }

    fn wait_for_address(&mut self, text: &str) -> Result<()> {
        let line = self.wait_for(text)?;
        let address = line.split("address=").nth(1).context("the line names no address")?;
        self.address = address.split_whitespace().next().unwrap_or(address).trim_matches('"').to_owned();
        Ok(())
    }

    /// Starts the program and does not wait.
    pub fn spawn(data: &Path, flags: &[&str]) -> Result<Self> {
        Self::launch(data, flags, &Launch::default())
    }

    /// The same as `how` says.
    pub fn launch(data: &Path, flags: &[&str], how: &Launch) -> Result<Self> {
        let binary = binary();
        let anywhere = || ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned());
        let (clients, peers) = how.listen.clone().unwrap_or_else(anywhere);
        let mut words = how.under.iter().map(std::ffi::OsString::from).chain([binary.clone().into()]);
        let program = words.next().context("a program")?;
        let mut child = Command::new(program)
            .args(words)
            .envs(how.environment.iter().map(|(name, value)| (name, value)))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={clients}"))
            .arg(format!("--cluster.listen-address={peers}"))
            .args(flags)
            .current_dir(data.parent().unwrap_or(data))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {} (built by `cargo build -p server`)", binary.display()))?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, log: Vec::new(), address: String::new() })
    }

    /// Waits until a log line holds `text`, and gives that line. Fails when the process ends before, with its log.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(error) => bail!("no line with {text:?} ({error}); the log:\n{}", self.log.join("\n")),
            }
        }
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of its `/proc/PID/status` in kB, such as `VmRSS`.
    ///
    /// # Errors
    /// The process has ended, or there is no such figure.
    pub fn memory_kb(&self, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let figure = line.and_then(|line| line.split_whitespace().next());
        Ok(figure.with_context(|| format!("no {name}"))?.parse()?)
    }

    /// From here on its highest memory (`VmHWM`) is that of what follows.
    ///
    /// # Errors
    /// The process has ended.
    pub fn reset_highest_memory(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")?)
    }

    /// A client of its HTTP interface.
    pub fn client(&self) -> Client {
        Client::new(&self.address)
    }

    /// GET of `path`: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let (status, body) = self.client().request("GET", path, &[], &[])?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The `data` of a successful answer of the HTTP API.
    pub fn api(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(path)?;
        let answer: Value =
            serde_json::from_str(&body).with_context(|| format!("{path}: {status} {body}"))?;
        if status != 200 || answer["status"] != "success" {
            bail!("{path}: {status} {body}");
        }
        Ok(answer["data"].clone())
    }

    /// The result of an instant query (at `time` seconds, or now).
    pub fn query(&self, expression: &str, time: Option<f64>) -> Result<Value> {
        let time = time.map_or(String::new(), |t| format!("&time={t}"));
        Ok(self.api(&format!("/api/v1/query?query={}{time}", encoded(expression)))?["result"].clone())
    }

    /// The value of an instant query that gives one sample, or `None` when it gives nothing.
    pub fn value(&self, expression: &str, time: Option<f64>) -> Result<Option<f64>> {
        let result = self.query(expression, time)?;
        let list = result.as_array().context("a vector")?;
        if list.len() > 1 {
            bail!("{expression} gives {} series", list.len());
        }
        list.first()
            .map(|s| s["value"][1].as_str().context("a value")?.parse().context("a number"))
            .transpose()
    }

    /// Tries `attempt` until it gives something, at most for `limit`; between tries it reads the log. An error of the
    /// last try, or "not yet", is in the failure.
    pub fn eventually<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut attempt: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        const PACE: Duration = Duration::from_millis(50);
        let mut last = None;
        for _ in 0..=limit.as_millis() / PACE.as_millis() {
            match attempt(self) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => last = None,
                Err(error) => last = Some(error),
            }
            match self.lines.recv_timeout(PACE) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{what}: the process ended; the log:\n{}", self.log.join("\n"))
                }
            }
            while let Ok(line) = self.lines.try_recv() {
                self.log.push(line);
            }
        }
        let last = last.map_or("not yet".to_owned(), |e| format!("{e:#}"));
        bail!("{what}: {last} after {limit:?}; the log:\n{}", self.log.join("\n"))
    }

    /// Sends a signal by its name (`TERM`, `STOP`, `CONT`, `HUP`).
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        if !status.success() {
            bail!("kill -{name} {} failed", self.pid());
        }
        Ok(())
    }

    /// SIGKILL, and waits.
    pub fn kill(self) -> Result<()> {
        self.end().map(|_| ())
    }

    /// SIGKILL, and waits; gives the whole log.
    pub fn end(mut self) -> Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        // Its pipe is closed by its death, so this ends.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push(line);
        }
        Ok(std::mem::take(&mut self.log))
    }

    /// SIGTERM, and waits for the end; gives the status and the whole log.
    pub fn stop(mut self) -> Result<(ExitStatus, Vec<String>)> {
        self.signal("TERM")?;
        self.wait()
    }

    /// The log so far, read without waiting.
    pub fn log(&mut self) -> &[String] {
        while let Ok(line) = self.lines.try_recv() {
            self.log.push(line);
        }
        &self.log
    }

    /// Waits for the end; gives the status and the whole log.
    pub fn wait(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.log.push(line);
        }
        Ok((self.child.wait()?, std::mem::take(&mut self.log)))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended already is fine: nothing may be left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
