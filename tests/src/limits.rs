//! How much memory and CPU a process may have: control groups of version 1, which need root.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::node::Launch;

/// Where the groups of memory and CPU are.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu"];
/// In microseconds: within each of these a process may run for its share.
const PERIOD: u64 = 100_000;

/// What this machine lacks for it; `None` = nothing.
pub fn missing() -> Option<String> {
    let memory = Path::new(ROOTS[0]).join("memory.limit_in_bytes").is_file();
    let cpu = Path::new(ROOTS[1]).join("cpu.cfs_quota_us").is_file();
    if !memory || !cpu {
        return Some("it needs control groups of version 1 for memory and CPU".to_owned());
    }
    Group::new(0).err().map(|error| format!("it needs to make control groups: {error:#}"))
}

/// A control group; processes that are still in it go back to where all are when it is dropped.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    root: &'static str,
}

impl Group {
    fn new(which: usize) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = ROOTS[which];
        let folder = Path::new(root).join(format!("isobar-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder, root })
    }

    /// Processes in it get no more memory than that: who needs more is killed.
    pub fn memory(bytes: u64) -> Result<Self> {
        let group = Self::new(0)?;
        group.write("memory.limit_in_bytes", bytes)?;
        Ok(group)
    }

    /// Processes in it run together for that share of the time of one core, in percent.
    pub fn cpu(percent: u64) -> Result<Self> {
        let group = Self::new(1)?;
        group.write("cpu.cfs_period_us", PERIOD)?;
        group.set_cpu(percent)?;
        Ok(group)
    }

    /// Gives processes in a group that was made by [`Group::cpu`] another share, at least 1 percent.
    pub fn set_cpu(&self, percent: u64) -> Result<()> {
        self.write("cpu.cfs_quota_us", PERIOD * percent / 100)
    }

    fn write(&self, file: &str, value: impl std::fmt::Display) -> Result<()> {
        let path = self.folder.join(file);
        std::fs::write(&path, value.to_string())
            .with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Moves a process that runs into it, with all its threads.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", pid)
    }

    /// How a process is started in it.
    pub fn launch(&self) -> Launch {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        Launch { under: ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec(), ..Launch::default() }
    }

    /// How often processes in it were killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        self.count("memory.oom_control", "oom_kill ")
    }

    /// In how many periods processes in it had to wait.
    pub fn throttled(&self) -> Result<u64> {
        self.count("cpu.stat", "nr_throttled ")
    }

    fn count(&self, file: &str, name: &str) -> Result<u64> {
        let text = std::fs::read_to_string(self.folder.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("{file} has {name}"))?.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let all = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in all.lines() {
            // One that has ended meanwhile is gone anyway.
            let _ = std::fs::write(Path::new(self.root).join("cgroup.procs"), pid);
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The CPU time that a process has used so far, with all its threads, to a hundredth of a second.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // Behind the name, which may have spaces: the state and ten more fields, then the ticks in user and kernel mode.
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks: Result<Vec<u64>, _> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(Duration::from_millis(ticks?.iter().sum::<u64>() * 10))
}

/// The memory that a process has now, bytes, that is not from files.
pub fn memory_of(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
