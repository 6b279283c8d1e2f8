//! Server processes under measurement: start, wait until ready, CPU time and memory from `/proc`, stop.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::http::Client;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// `host:port` of its HTTP interface.
    pub address: String,
    /// The command line, for the report.
    pub command: String,
}

impl Server {
    /// Starts `program args` with its output in `log`, and waits until `ready_path` answers 200.
    #[allow(
        clippy::disallowed_methods,
        reason = "a measuring program needs the machine's clock and waits for a process"
    )]
    pub fn start(
        program: &str,
        args: &[String],
        address: &str,
        ready_path: &str,
        log: &Path,
    ) -> Result<Self> {
        let output = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new(program)
            .args(args)
            .stdout(output.try_clone()?)
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let mut server =
            Self { child, address: address.to_owned(), command: format!("{program} {}", args.join(" ")) };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if Client::new(address).get(ready_path).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{program} ended with {status}; its output is in {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{program} was not ready within 60 s; its output is in {}", log.display())
    }

    /// CPU seconds (user and system) used so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let (user, system) = self.ticks()?;
        Ok((user + system) as f64 / 100.0)
    }

    /// CPU seconds that the kernel used for it so far.
    pub fn system_seconds(&self) -> Result<f64> {
        Ok(self.ticks()?.1 as f64 / 100.0)
    }

    /// User's and system's hundredths of a second.
    fn ticks(&self) -> Result<(u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        Ok((fields[11].parse()?, fields[12].parse()?))
    }

    /// Context switches of the threads that it has now, so far.
    pub fn switches(&self) -> Result<u64> {
        let mut switches = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
            switches += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
        }
        Ok(switches)
    }

    /// A field of `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`, `RssAnon`.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find(|l| l.starts_with(field)).with_context(|| format!("no {field} in status"))?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib * 1024)
    }

    /// Waits until the process has used less than 2 % of a core for `seconds`, at most two minutes.
    #[allow(clippy::disallowed_methods, reason = "a measuring program waits for a process to settle")]
    pub fn settle(&self, seconds: f64) -> Result<()> {
        let begun = Instant::now();
        let mut quiet = 0.0;
        let mut before = self.cpu_seconds()?;
        while quiet < seconds && begun.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.cpu_seconds()?;
            quiet = if now - before <= 0.01 { quiet + 0.5 } else { 0.0 };
            before = now;
        }
        Ok(())
    }

    /// Asks the process to end (SIGTERM) and waits.
    pub fn stop(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the process at once (SIGKILL) and waits.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine: this only makes sure that nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of all files below `folder`.
pub fn disk_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(total)
}
