//! Other programs that scenarios need beside ours: found, started, and ended with the test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A process that is ended with the test.
#[derive(Debug)]
pub struct Helper(pub Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // Ended already is fine: nothing may be left behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The path of one of the repository's scripts.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("scripts").join(name)
}

/// Debian's Prometheus, unpacked; `Err` says why there is none.
pub fn prometheus() -> Result<String, String> {
    of_prometheus("prometheus")
}

/// A program of Debian's package `prometheus`, unpacked; `Err` says why there is none.
pub fn of_prometheus(program: &str) -> Result<String, String> {
    let output = Command::new(script("peers.sh")).args(["prometheus", program]).output();
    let output = output.map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Starts the Prometheus at `program`, without anything to scrape and with an empty store in `folder`, and waits until it
/// takes remote writes; gives it and its address.
///
/// # Errors
/// When it does not say within a minute that it is ready.
pub fn start_prometheus(program: &str, folder: &Path, features: &str) -> Result<(Helper, String)> {
    std::fs::create_dir_all(folder)?;
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "scrape_configs: []\n")?;
    let mut child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .args(["--web.listen-address=127.0.0.1:0", "--web.enable-remote-write-receiver", features])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = BufReader::new(child.stderr.take().context("standard error is piped")?);
    let child = Helper(child);
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut listening = String::new();
        for line in log.lines().map_while(Result::ok) {
            if line.contains("msg=\"Listening on\"")
                && let Some(address) = line.split("address=").nth(1)
            {
                address.trim().clone_into(&mut listening);
            }
            if line.contains("Server is ready to receive web requests") {
                // The test may have ended.
                let _ = sender.send(listening.clone());
            }
        }
    });
    let address = address.recv_timeout(Duration::from_secs(60));
    Ok((child, address.context("Prometheus says that it is ready")?))
}
