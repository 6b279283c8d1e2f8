//! Log files in memory that fail as disks do: they forget what was not fsynced, tear writes at sector
//! borders, refuse to fsync, fill up. Used by tests; nothing here is random by itself, the seed decides.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{LogFile, LogFiles};

/// What a disk writes whole.
const SECTOR: usize = 512;

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The n-th sync from now (0 = the next) fails, and what it should have saved is forgotten for good though
    /// reads still see it: as Linux does.
    Sync(u32),
    /// The n-th write from now fails and writes nothing.
    Write(u32),
    /// Creating files fails for lack of space until [`FaultyFiles::heal`].
    Full,
}

#[derive(Debug, Default)]
struct Content {
    /// What reads see.
    seen: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// Sectors that were written and not yet synced.
    dirty: Vec<usize>,
}

#[derive(Debug, Default)]
struct Disk {
    /// Files as programs see them.
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names that a power cut leaves.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    faults: Vec<Fault>,
    /// How often each kind of fault really happened: syncs, writes, creations.
    happened: [u32; 3],
    syncs: u64,
    /// Set by a power cut: handles from before it fail.
    dead: bool,
}

/// A folder in memory. Clones are the same folder.
#[derive(Clone, Debug, Default)]
pub struct FaultyFiles {
    disk: Arc<Mutex<Disk>>,
}

impl FaultyFiles {
    /// An empty folder without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Forgets the faults planned.
    pub fn heal(&self) {
        self.disk.lock().faults.clear();
    }

    /// How often a planned fault happened: (syncs, writes, creations).
    pub fn happened(&self) -> (u32, u32, u32) {
        let [syncs, writes, creations] = self.disk.lock().happened;
        (syncs, writes, creations)
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// The folder as it stands after the power was cut now: of each sector written since its file's last sync,
    /// `keep(random)` decides whether it reached the platter; names not synced are gone unless it says so.
    /// Handles of the old folder fail from now on. `random` runs through a sequence made from `seed`.
    pub fn power_cut(&self, seed: u64, keep: impl Fn(u64) -> bool) -> Self {
        let mut disk = self.disk.lock();
        disk.dead = true;
        let mut state = seed | 1;
        let mut next = || {
            // xorshift64*: small, and the same everywhere.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let mut names = disk.durable_names.clone();
        for (name, file) in &disk.files {
            if !names.contains_key(name) && keep(next()) {
                names.insert(name.clone(), Arc::clone(file));
            }
        }
        let mut files = BTreeMap::new();
        for (name, file) in names {
            let file = file.lock();
            let mut left = file.durable.clone();
            let mut dirty = file.dirty.clone();
            dirty.sort_unstable();
            dirty.dedup();
            for sector in dirty {
                if !keep(next()) {
                    continue;
                }
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(file.seen.len());
                if left.len() < range.end {
                    left.resize(range.end, 0);
                }
                left[range.clone()].copy_from_slice(&file.seen[range]);
            }
            let content = Content { seen: left.clone(), durable: left, dirty: Vec::new() };
            files.insert(name, Arc::new(Mutex::new(content)));
        }
        Self { disk: Arc::new(Mutex::new(Disk { durable_names: files.clone(), files, ..Disk::default() })) }
    }

    /// The folder as it stands after kill -9: everything written is there, synced or not. Handles of the old
    /// folder fail from now on.
    pub fn killed(&self) -> Self {
        let mut disk = self.disk.lock();
        disk.dead = true;
        let copy = |file: &Arc<Mutex<Content>>| {
            let file = file.lock();
            let copy =
                Content { seen: file.seen.clone(), durable: file.durable.clone(), dirty: file.dirty.clone() };
            Arc::new(Mutex::new(copy))
        };
        let files: BTreeMap<_, _> =
            disk.files.iter().map(|(name, file)| (name.clone(), copy(file))).collect();
        let durable_names =
            disk.durable_names.keys().filter_map(|n| Some((n.clone(), Arc::clone(files.get(n)?)))).collect();
        Self { disk: Arc::new(Mutex::new(Disk { files, durable_names, ..Disk::default() })) }
    }

    /// An independent copy of the folder; this one stays usable.
    pub fn killed_copy(&self) -> Self {
        let copy = self.killed();
        self.disk.lock().dead = false;
        copy
    }

    /// Changes the bytes of a file behind everybody's back (a flipped bit, a zeroed tail).
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let disk = self.disk.lock();
        if let Some(file) = disk.files.get(name) {
            let mut file = file.lock();
            let mut bytes = std::mem::take(&mut file.seen);
            change(&mut bytes);
            file.durable.clone_from(&bytes);
            file.seen = bytes;
            file.dirty.clear();
        }
    }

    fn take(&self, pick: impl Fn(&mut Fault) -> bool, kind: usize) -> bool {
        let mut disk = self.disk.lock();
        let Some(at) = disk.faults.iter_mut().position(pick) else { return false };
        if disk.faults[at] != Fault::Full {
            disk.faults.remove(at);
        }
        disk.happened[kind] += 1;
        true
    }

    fn alive(&self) -> io::Result<()> {
        if self.disk.lock().dead { Err(io::Error::other("the power was cut")) } else { Ok(()) }
    }
}

/// Counts down `n`; true when it was 0 already.
fn due(n: &mut u32) -> bool {
    let now = *n == 0;
    *n = n.saturating_sub(1);
    now
}

impl LogFiles for FaultyFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.alive()?;
        Ok(self.disk.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn LogFile>> {
        self.alive()?;
        if self.take(|f| matches!(f, Fault::Full), 2) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut disk = self.disk.lock();
        if disk.files.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let content = Arc::new(Mutex::new(Content { seen: vec![0; size], ..Content::default() }));
        disk.files.insert(name.to_owned(), Arc::clone(&content));
        Ok(Arc::new(FaultyFile { files: self.clone(), content }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        self.alive()?;
        let disk = self.disk.lock();
        let content = disk.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { files: self.clone(), content: Arc::clone(content) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?;
        self.disk.lock().files.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn quarantine(&self, _name: &str) -> io::Result<()> {
        self.alive()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.alive()?;
        let mut disk = self.disk.lock();
        disk.durable_names = disk.files.clone();
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct FaultyFile {
    files: FaultyFiles,
    content: Arc<Mutex<Content>>,
}

impl LogFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.files.alive()?;
        Ok(self.content.lock().seen.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.files.alive()?;
        let content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = content.seen.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.files.alive()?;
        if self.files.take(|f| if let Fault::Write(n) = f { due(n) } else { false }, 1) {
            return Err(io::Error::other("injected write error"));
        }
        let mut content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + bytes.len();
        if content.seen.len() < end {
            content.seen.resize(end, 0);
        }
        content.seen[start..end].copy_from_slice(bytes);
        content.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.files.alive()?;
        self.files.disk.lock().syncs += 1;
        let failed = self.files.take(|f| if let Fault::Sync(n) = f { due(n) } else { false }, 0);
        let mut content = self.content.lock();
        if failed {
            content.dirty.clear();
            return Err(io::Error::other("injected fsync error"));
        }
        let mut dirty = std::mem::take(&mut content.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let Content { seen, durable, .. } = &mut *content;
        durable.resize(seen.len(), 0);
        for sector in dirty {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(seen.len());
            durable[range.clone()].copy_from_slice(&seen[range]);
        }
        Ok(())
    }
}
