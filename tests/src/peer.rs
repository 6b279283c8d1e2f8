//! Other programs that scenarios need beside ours: found, started, and ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

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
