//! The data folder: layout, lock, identity, and the reasons not to open it.
//!
//! ```text
//! data/LOCK         locked while a process uses the folder
//!      NODE         who this is: text, one `key value` a line, a checksum on the last
//!      RESERVE      space kept for opening on a full disk
//!      log/         the node log
//!      db/          storage's database
//!      incoming/    state that is being fetched from another node, a folder a replica
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use model::NodeId;
use parking_lot::Mutex;

use crate::ReplicationError;
use crate::members::Member;

/// Version of the folder's layout.
const FORMAT: u32 = 2;
/// The name of a cluster that was given none.
const DEFAULT_NAME: &str = "isobar";

/// Space kept in a file, so that the folder can be opened when the disk is full: the database writes a little then.
const RESERVE_BYTES: u64 = 32 << 20;
/// Free space below which opening takes the reserve.
const OPENING_BYTES: u64 = 16 << 20;

/// What the folder knows about who it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name.
    pub cluster_name: String,
    /// Whether somebody chose that name.
    pub name_chosen: bool,
    /// This node.
    pub node: NodeId,
    /// What it has to do with a cluster.
    pub standing: Standing,
}

impl Identity {
    /// This node's replica of the meta group, once it was given one.
    pub(crate) fn meta_replica(&self) -> Option<u64> {
        match &self.standing {
            Standing::Empty => None,
            Standing::Forming(agreement) => agreement.founders.get(&self.node).map(|m| m.meta_replica),
            Standing::Member { meta_replica, .. } => Some(*meta_replica),
        }
    }
}

/// What a node has to do with a cluster. It moves down this list only, except that an agreement which came to nothing
/// is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to none yet.
    Empty,
    /// It has agreed to form one, and agrees to no other.
    Forming(Agreement),
    /// It belongs to this one.
    Member {
        /// The cluster, told apart from another one of the same name.
        cluster_id: u64,
        /// This node's replica of the meta group.
        meta_replica: u64,
    },
}

/// Which nodes form a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The cluster that they form.
    pub cluster_id: u64,
    /// The one that forms it; the others wait for it.
    pub initiator: NodeId,
    /// All of them.
    pub founders: BTreeMap<NodeId, Member>,
}

/// A data folder that this process has locked; the lock goes with the value.
#[derive(Debug)]
pub struct DataFolder {
    dir: PathBuf,
    identity: Mutex<Identity>,
    _lock: File,
}

impl DataFolder {
    /// Opens `dir`, creating it when it is missing or empty. `cluster_name` is the name that was asked for, if any.
    /// Refuses a folder that is in use, of another cluster or a newer version, or that holds Prometheus blocks.
    pub fn open(dir: &Path, cluster_name: Option<&str>) -> Result<Self, ReplicationError> {
        let at = || dir.display().to_string();
        std::fs::create_dir_all(dir).map_err(ReplicationError::io(at(), "create"))?;
        refuse_foreign(dir)?;
        let lock = lock(dir)?;
        release_reserve(dir)?;
        let identity = match read_identity(dir)? {
            Some(found) => agree(dir, found, cluster_name)?,
            None => {
                refuse_headless(dir)?;
                let identity = Identity {
                    cluster_name: cluster_name.unwrap_or(DEFAULT_NAME).to_owned(),
                    name_chosen: cluster_name.is_some(),
                    node: NodeId(random()),
                    standing: Standing::Empty,
                };
                write_identity(dir, &identity)?;
                identity
            }
        };
        let folder = Self { dir: dir.to_path_buf(), identity: Mutex::new(identity), _lock: lock };
        remove_parts(&folder.snapshots_dir())?;
        Ok(folder)
    }

    /// Who this folder belongs to.
    pub fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// Notes what this node has to do with a cluster; on disk when it returns.
    pub(crate) fn set_standing(&self, standing: Standing) -> Result<(), ReplicationError> {
        let mut identity = self.identity.lock();
        let new = Identity { standing, ..identity.clone() };
        write_identity(&self.dir, &new)?;
        *identity = new;
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of storage's database.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// The folder of state that replica `replica` fetches.
    pub(crate) fn incoming_dir(&self, replica: u64) -> PathBuf {
        self.dir.join("incoming").join(format!("{replica:016x}"))
    }

    /// The folder of snapshots.
    pub(crate) fn snapshots_dir(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// The folder of the node log.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Removes what is left of snapshots in `dir` that were not made to the end.
pub(crate) fn remove_parts(dir: &Path) -> Result<(), ReplicationError> {
    let failed = || ReplicationError::io(dir.display().to_string(), "tidy up");
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed())?,
    };
    for entry in entries {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            std::fs::remove_dir_all(path).map_err(failed())?;
        }
    }
    Ok(())
}

/// Gives the reserve back to the file system, when that is nearly full.
fn release_reserve(dir: &Path) -> Result<(), ReplicationError> {
    let at = || dir.display().to_string();
    let stat = rustix::fs::statvfs(dir)
        .map_err(|error| ReplicationError::io(at(), "ask for free space of")(error.into()))?;
    if stat.f_bavail * stat.f_frsize >= OPENING_BYTES {
        return Ok(());
    }
    match std::fs::remove_file(dir.join("RESERVE")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ReplicationError::io(at(), "free the reserve of")(error))
        }
        _ => Ok(()),
    }
}

/// Makes the reserve where there is none and `free` bytes of space allow it.
pub(crate) fn keep_reserve(dir: &Path, free: u64) -> std::io::Result<()> {
    if free < 2 * RESERVE_BYTES {
        return Ok(());
    }
    let path = dir.join("RESERVE");
    let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    };
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(|error| {
        // Half a reserve is none; the first error is the one to report.
        let _ = std::fs::remove_file(&path);
        error.into()
    })
}

fn refused(dir: &Path, reason: impl Into<String>) -> ReplicationError {
    ReplicationError::Refused { dir: dir.display().to_string(), reason: reason.into() }
}

/// A number that no other folder has: the standard library's hash keys are seeded by the system.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

fn lock(dir: &Path) -> Result<File, ReplicationError> {
    let path = dir.join("LOCK");
    let at = || path.display().to_string();
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(ReplicationError::io(at(), "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(refused(
            dir,
            "another process uses it; stop that one, or give each its own --storage.tsdb.path",
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(ReplicationError::io(at(), "lock")(error)),
    }
}

/// A folder of Prometheus is not touched.
fn refuse_foreign(dir: &Path) -> Result<(), ReplicationError> {
    let at = || dir.display().to_string();
    let mut blocks = 0_usize;
    let mut wal = false;
    let mut own = false;
    for entry in std::fs::read_dir(dir).map_err(ReplicationError::io(at(), "list"))? {
        let entry = entry.map_err(ReplicationError::io(at(), "list"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        own |= name == "NODE";
        wal |= matches!(&*name, "wal" | "wbl" | "chunks_head");
        let ulid = name.len() == 26 && name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        if ulid && entry.path().join("meta.json").try_exists().unwrap_or(false) {
            blocks += 1;
        }
    }
    if own || (blocks == 0 && !wal) {
        return Ok(());
    }
    let what = if blocks > 0 {
        format!("it holds {blocks} Prometheus blocks")
    } else {
        "it holds a Prometheus WAL".into()
    };
    Err(refused(
        dir,
        format!(
            "{what}, which Isobar neither uses in place nor can import yet; start with an empty folder \
             (--storage.tsdb.path=OTHER) and keep the Prometheus that has the old data beside Isobar until that data \
             is old enough to go",
        ),
    ))
}

/// Data without a NODE file: somebody lost it, and a new identity would make the data unreadable.
fn refuse_headless(dir: &Path) -> Result<(), ReplicationError> {
    for part in ["log", "db"] {
        let path = dir.join(part);
        let filled = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if filled {
            return Err(refused(
                dir,
                format!("it holds {part}/ but no NODE file; put the NODE file back from a copy"),
            ));
        }
    }
    Ok(())
}

fn agree(dir: &Path, mut found: Identity, asked: Option<&str>) -> Result<Identity, ReplicationError> {
    let Some(asked) = asked else { return Ok(found) };
    if found.cluster_name == asked {
        return Ok(found);
    }
    if found.name_chosen {
        let name = &found.cluster_name;
        return Err(refused(dir, format!("it belongs to cluster {name:?}, not {asked:?} (--cluster.name)")));
    }
    found.cluster_name = asked.to_owned();
    found.name_chosen = true;
    write_identity(dir, &found)?;
    Ok(found)
}

fn checksum(text: &str) -> String {
    // FNV-1a, 64 bits: enough to see that a small text file was damaged or edited.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

pub(crate) fn write_identity(dir: &Path, identity: &Identity) -> Result<(), ReplicationError> {
    let path = dir.join("NODE");
    let at = || path.display().to_string();
    let Identity { cluster_name, name_chosen, node, standing } = identity;
    let mut text = format!(
        "isobar-data {FORMAT}\nnode-id {:016x}\nname-chosen {name_chosen}\ncluster-name {cluster_name}\n",
        node.0
    );
    match standing {
        Standing::Empty => text += "standing empty\n",
        Standing::Forming(Agreement { cluster_id, initiator, founders }) => {
            text +=
                &format!("standing forming\ncluster-id {cluster_id:016x}\ninitiator {:016x}\n", initiator.0);
            for (node, member) in founders {
                // A record is lines without control characters of their own.
                let record = String::from_utf8_lossy(&member.encode()).replace('\n', "\t");
                text += &format!("founder {:016x} {record}\n", node.0);
            }
        }
        Standing::Member { cluster_id, meta_replica } => {
            text += &format!("standing member\ncluster-id {cluster_id:016x}\nmeta-replica {meta_replica}\n");
        }
    }
    text += &format!("checksum {}\n", checksum(&text));
    write_synced(dir, &path, text.as_bytes()).map_err(ReplicationError::io(at(), "write"))
}

/// Makes the file `path` in `dir` hold `bytes`: those or what it held before, whatever happens, and those once it returns.
pub(crate) fn write_synced(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, ReplicationError> {
    let path = dir.join("NODE");
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(1 << 16).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(refused(dir, "its NODE file is damaged; put it back from a copy"));
        }
        Err(error) => return Err(ReplicationError::io(path.display().to_string(), "read")(error)),
        Ok(_) => {}
    }
    decode_identity(&text).map(Some).map_err(|reason| refused(dir, reason))
}

fn decode_identity(text: &str) -> Result<Identity, String> {
    let damaged = || "its NODE file is damaged; put it back from a copy".to_owned();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .map(str::to_owned)
            .ok_or_else(damaged)
    };
    let format: u32 = value("isobar-data")?.parse().map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(format!(
            "it has format {format}, this program reads up to {FORMAT}; use the newer program"
        ));
    }
    if format < FORMAT {
        return Err(format!(
            "it has format {format}, from before the first release; this program reads {FORMAT}"
        ));
    }
    let body = text.rfind("checksum ").map(|at| &text[..at]).ok_or_else(damaged)?;
    if checksum(body) != value("checksum")? {
        return Err(damaged());
    }
    let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| damaged());
    let standing = match value("standing")?.as_str() {
        "empty" => Standing::Empty,
        "forming" => {
            let mut founders = BTreeMap::new();
            for line in text.lines().filter_map(|line| line.strip_prefix("founder ")) {
                let (node, record) = line.split_once(' ').ok_or_else(damaged)?;
                let member = Member::decode(record.replace('\t', "\n").as_bytes()).ok_or_else(damaged)?;
                founders.insert(NodeId(hex(node)?), member);
            }
            let initiator = NodeId(hex(&value("initiator")?)?);
            Standing::Forming(Agreement { cluster_id: hex(&value("cluster-id")?)?, initiator, founders })
        }
        "member" => Standing::Member {
            cluster_id: hex(&value("cluster-id")?)?,
            meta_replica: value("meta-replica")?.parse().map_err(|_| damaged())?,
        },
        _ => return Err(damaged()),
    };
    Ok(Identity {
        cluster_name: value("cluster-name")?,
        name_chosen: value("name-chosen")? == "true",
        node: NodeId(hex(&value("node-id")?)?),
        standing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(dir: &Path, name: Option<&str>) -> String {
        DataFolder::open(dir, name).expect_err("refuses").to_string()
    }

    #[test]
    fn a_folder_keeps_its_identity_and_takes_a_name_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let first = DataFolder::open(&dir, None).unwrap().identity();
        assert_eq!((first.cluster_name.as_str(), first.name_chosen), ("isobar", false));
        assert_eq!(DataFolder::open(&dir, None).unwrap().identity(), first);
        let named = DataFolder::open(&dir, Some("eu")).unwrap().identity();
        assert_eq!((named.cluster_name.as_str(), named.node), ("eu", first.node));
        assert_eq!(DataFolder::open(&dir, None).unwrap().identity().cluster_name, "eu");
        assert!(error(&dir, Some("us")).contains(r#"belongs to cluster "eu", not "us""#));
    }

    #[test]
    fn what_a_node_agreed_to_and_belongs_to_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let member = |n: u64| Member {
            name: format!("n {n}"),
            zone: if n == 1 { String::new() } else { "z".into() },
            address: format!("h{n}:9095"),
            meta_replica: n,
            own: BTreeMap::from([("retention".into(), "15d".into())]),
        };
        let agreement = Agreement {
            cluster_id: 77,
            initiator: NodeId(3),
            founders: (1..=3).map(|n| (NodeId(n), member(n))).collect(),
        };
        let steps = [Standing::Forming(agreement), Standing::Member { cluster_id: 77, meta_replica: 2 }];
        for standing in steps {
            DataFolder::open(temp.path(), None).unwrap().set_standing(standing.clone()).unwrap();
            assert_eq!(DataFolder::open(temp.path(), None).unwrap().identity().standing, standing);
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataFolder::open(temp.path(), None).unwrap();
        assert!(error(temp.path(), None).contains("another process uses it"));
        drop(first);
        DataFolder::open(temp.path(), None).unwrap();
    }

    #[test]
    fn prometheus_folders_are_refused_with_what_to_do() {
        let temp = tempfile::tempdir().unwrap();
        let block = temp.path().join("01HQ3X9T4ZC9W3K5D2S8M7N6P5");
        std::fs::create_dir(&block).unwrap();
        std::fs::write(block.join("meta.json"), "{}").unwrap();
        let text = error(temp.path(), None);
        assert!(
            text.contains("holds 1 Prometheus blocks") && text.contains("--storage.tsdb.path=OTHER"),
            "{text}"
        );
        assert!(!temp.path().join("LOCK").try_exists().unwrap(), "nothing is written into it");
    }

    #[test]
    fn damage_newer_formats_and_lost_identities_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataFolder::open(temp.path(), None).unwrap());
        let path = temp.path().join("NODE");
        let text = std::fs::read_to_string(&path).unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let told = error(temp.path(), None);
            assert!(
                ["NODE file is damaged", "newer program", "first release"].iter().any(|t| told.contains(t)),
                "byte {at}: {told}"
            );
        }
        std::fs::write(&path, text.replace("isobar-data 2", "isobar-data 3")).unwrap();
        assert!(error(temp.path(), None).contains("has format 3, this program reads up to 2"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(temp.path().join("log")).unwrap();
        std::fs::write(temp.path().join("log/x"), "").unwrap();
        assert!(error(temp.path(), None).contains("no NODE file"));
    }
}
