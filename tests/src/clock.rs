//! Wall clocks that are wrong: libfaketime in each process, which reads how wrong it is from a file at every look.
//!
//! Monotonic time stays true, as on a machine whose clock is set: what the program measures must not depend on the other.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::node::Launch;

/// Where Debian has the library.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What this machine lacks for it; `None` = nothing.
pub fn missing() -> Option<String> {
    (!Path::new(LIBRARY).is_file()).then(|| format!("it needs {LIBRARY} (faketime)"))
}

/// The clocks of the nodes of a cluster, right at first.
#[derive(Debug)]
pub struct Clocks {
    folder: TempDir,
}

impl Clocks {
    /// Clocks for so many nodes.
    pub fn new(nodes: usize) -> Result<Self> {
        let clocks = Self { folder: tempfile::tempdir()? };
        (0..nodes).try_for_each(|at| clocks.set(at, "+0"))?;
        Ok(clocks)
    }

    fn file(&self, at: usize) -> PathBuf {
        self.folder.path().join(at.to_string())
    }

    /// Makes the clock of a node wrong, in libfaketime's words: `+3600` is an hour ahead, `+0 x10` runs ten times as fast
    /// since the process began, `2026-11-28 12:00:00` (UTC) stands still. `+0` is right.
    pub fn set(&self, at: usize, wrong: &str) -> Result<()> {
        // A rate that was set once holds until another one is set.
        let rate = if wrong.starts_with(['+', '-']) && !wrong.contains('x') { " x1" } else { "" };
        // Replaced at once: it is read at any moment.
        let new = self.folder.path().join(format!("{at}.new"));
        std::fs::write(&new, format!("{wrong}{rate}\n")).context("writing a clock")?;
        std::fs::rename(new, self.file(at)).context("replacing a clock")
    }

    /// How a node is started to have its clock.
    pub(crate) fn launch(&self, at: usize) -> Launch {
        let variables = [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file(at).display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ];
        let environment = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Launch { environment, ..Launch::default() }
    }
}
