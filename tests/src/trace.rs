//! Faults of system calls: strace attached to a process that runs, which makes calls of it fail or take long.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// What this machine lacks for it; `None` = nothing.
pub fn missing() -> Option<String> {
    let found = ["/usr/bin/strace", "/bin/strace"].iter().any(|path| Path::new(path).is_file());
    (!found).then(|| "it needs strace".to_owned())
}

/// strace on a process; it lets go of it when dropped.
#[derive(Debug)]
pub struct Traced {
    child: Child,
    folder: TempDir,
}

impl Traced {
    /// From now on calls of process `pid` that `inject` describes (`fdatasync:error=EIO`, `fdatasync:delay_enter=500000`)
    /// fail or wait.
    pub fn inject(pid: u32, inject: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let call = inject.split(':').next().unwrap_or(inject);
        let child = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "--seccomp-bpf",
                "-e",
                &format!("trace={call}"),
                "-e",
                &format!("inject={inject}"),
                "-o",
            ])
            .arg(Self::file(&folder))
            .args(["-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting strace")?;
        Ok(Self { child, folder })
    }

    fn file(folder: &TempDir) -> PathBuf {
        folder.path().join("trace")
    }

    /// How many calls it has touched.
    pub fn injected(&self) -> Result<usize> {
        lines_touched(&Self::file(&self.folder))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SIGTERM lets strace detach; a process that stays traced would stay faulty.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// How many calls strace has touched, as what it wrote to `file` tells.
pub fn lines_touched(file: &Path) -> Result<usize> {
    let trace = match std::fs::read_to_string(file) {
        Ok(trace) => trace,
        // Not attached yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    Ok(trace.lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count())
}
