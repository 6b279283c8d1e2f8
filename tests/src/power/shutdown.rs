//! The one system call that safe crates do not offer: telling a file system to stop at once.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// `FS_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587D_u32 as libc::Ioctl;
/// `FS_SHUTDOWN_FLAGS_NOLOGFLUSH`: what is not on the disk stays off it, the journal's memory included.
const NO_LOG_FLUSH: u32 = 2;

/// Stops the file system that holds `root`, writing nothing more.
#[allow(unsafe_code, reason = "no safe crate offers this ioctl")]
pub(super) fn without_log_flush(root: &Path) -> Result<()> {
    let folder = File::open(root)?;
    let flag = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open for the length of the call, and this ioctl reads one u32 through the pointer,
    // which points to a live u32; nothing is kept after it returns.
    let result = unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flag) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("FS_IOC_SHUTDOWN");
    }
    Ok(())
}
