//! A disk whose power can be cut: ext4 on a loop file, shut down without writing its journal, then mounted again.
//!
//! What was not fsynced before the cut is gone, as after a real loss of power; what is written after it gives EIO.
//! It does not tear or reorder writes that the device has taken. Needs root and a loop device: ask [`missing`] first.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

mod shutdown;

/// The file that fills a disk.
const FILLER: &str = "filler";

/// What this machine lacks for disks of this kind; `None` = nothing.
pub fn missing() -> Option<String> {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:") && line.contains("\t0\t0")));
    if !root {
        return Some("it needs root".to_owned());
    }
    for tool in ["mkfs.ext4", "mount", "umount"] {
        let found =
            ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).is_file());
        if !found {
            return Some(format!("it needs {tool}"));
        }
    }
    // Containers may be root and still not be allowed to mount: try it.
    Disk::new(8).err().map(|error| format!("it needs loop mounts: {error:#}"))
}

/// A disk on a file; unmounted and removed with the value.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Disk {
    /// An empty disk of `megabytes`, mounted.
    pub fn new(megabytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut disk = Self { folder, mounted: false };
        let image = disk.image();
        std::fs::File::create(&image)?.set_len(megabytes << 20)?;
        let path = image.to_str().context("a path in UTF-8")?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", path])?;
        std::fs::create_dir(disk.root())?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Mounts it, which replays its journal.
    pub fn mount(&mut self) -> Result<()> {
        let (image, root) = (self.image(), self.root());
        let (Some(image), Some(root)) = (image.to_str(), root.to_str()) else { bail!("a path is not UTF-8") };
        run("mount", &["-o", "loop", image, root])?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power under process `pid`, which is writing here, and ends it. The process is stopped first, all its
    /// threads: an fsync that races with the shutdown may return success though its data is gone, and what a process
    /// says after the power is cut is not evidence. Fails when the disk still takes writes afterwards.
    pub fn cut(&self, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        run("kill", &["-STOP", &pid])?;
        while !all_stopped(&pid)? {
            std::thread::yield_now();
        }
        shutdown::without_log_flush(&self.root())?;
        run("kill", &["-KILL", &pid])?;
        if std::fs::write(self.root().join("after-the-cut"), "x").is_ok() {
            bail!("the power was not cut: the disk still takes writes");
        }
        Ok(())
    }

    /// Fills it to the last byte; gives how many that took.
    pub fn fill(&self) -> Result<u64> {
        let mut file = std::fs::File::create(self.root().join(FILLER))?;
        let block = vec![1_u8; 256 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        Ok(file.metadata()?.len())
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.root().join(FILLER)).context("removing what filled the disk")
    }

    /// Makes it read-only under whoever writes to it, as the kernel does on errors: further writes fail.
    pub fn abort(&self) -> Result<()> {
        let root = self.root();
        run("mount", &["-o", "remount,abort", root.to_str().context("a path in UTF-8")?])?;
        if std::fs::write(self.root().join("after-the-abort"), "x").is_ok() {
            bail!("the disk still takes writes");
        }
        Ok(())
    }

    /// Unmounts the dead disk and mounts it again, with what the platter has.
    pub fn restore(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<()> {
        let root = self.root();
        run("umount", &[root.to_str().context("a path in UTF-8")?])?;
        self.mounted = false;
        Ok(())
    }
}

/// Whether every thread of a process is stopped (or gone).
fn all_stopped(pid: &str) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")? {
        let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).map(str::trim_start);
        if state.is_some_and(|state| !state.starts_with(['T', 't', 'Z', 'X'])) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Somebody still has a file open: it goes when that one ends.
            let root = self.root();
            let _ = Command::new("umount").arg("-l").arg(root).output();
        }
    }
}
