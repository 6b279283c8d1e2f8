//! The files under the node log: a small trait with two implementations, the disk and a faulty memory.
//!
//! Only what an append-only log needs is here: create with space reserved, write and read at a place,
//! fsync of a file and of the folder, remove. Nothing here knows what the bytes mean.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use faulty::{Fault, FaultyFiles};

mod faulty;

/// A folder of log files.
pub trait LogFiles: Send + Sync {
    /// Names of the files, in no particular order. Sub-folders are left out.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file of `size` zero bytes whose space is reserved, so that writing inside it later cannot fail
    /// for lack of space. It survives a power cut only after [`LogFile::sync`] and [`LogFiles::sync_dir`].
    /// Fails when the name is taken.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn LogFile>>;

    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Removes a file. Handles that are open stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Copies a file to the quarantine next to the log, for people to look at.
    fn quarantine(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals so far survive a power cut.
    fn sync_dir(&self) -> io::Result<()>;

    /// What to call this folder in messages.
    fn place(&self) -> String;
}

/// One file of the log.
pub trait LogFile: Send + Sync {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `into` from `offset`; fails at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns once everything written so far, and what is needed to read it back, is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// Files in a folder of the disk.
#[derive(Debug)]
pub struct DiskFiles {
    dir: PathBuf,
}

impl DiskFiles {
    /// The folder `dir`, created when missing (and its name fsynced in its parent).
    pub fn new(dir: &Path) -> io::Result<Self> {
        if !dir.try_exists()? {
            std::fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir: dir.to_path_buf() })
    }
}

impl LogFiles for DiskFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn LogFile>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let reserved = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
            // File systems that cannot reserve: the file only gets its length.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size),
            other => other.map_err(io::Error::from),
        };
        if let Err(error) = reserved {
            drop(file);
            // The half-made file must not be taken for a segment; the first error is the one to report.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(DiskFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn quarantine(&self, name: &str) -> io::Result<()> {
        let into = self.dir.join("quarantine");
        std::fs::create_dir_all(&into)?;
        let copy = into.join(name);
        std::fs::copy(self.dir.join(name), &copy)?;
        File::open(&copy)?.sync_all()?;
        File::open(&into)?.sync_all()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl LogFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
