//! State on its way from one node to another: pieces, the folder they wait in, and taking them over.
//!
//! Who sends reads the database at one durable mark and gives pieces of about 1 MiB: the oldest days first, then the
//! state records. A piece is known by the hash of its bytes, and is cut where the content says so, so that what a broken
//! transfer left behind serves the next one, although the mark has moved. Who receives keeps pieces as files, and notes
//! their order at the end (`COMPLETE`). Only then the old state is replaced, from those files: a crash in between leaves
//! them, and the replacement is made again from the beginning at the next start. So there is the old state or the new
//! one, never a mixture. Layouts are drawn in `FORMAT.md`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use model::{LogIndex, ShardId};
use xxhash_rust::xxh3::xxh3_128;

use crate::StorageError;
use crate::codec::{DecodeError, Reader, open_record, put_bytes, put_varint, seal_record};
use crate::kv::{Batch, Family, Kv};

/// Version of pieces and of the note of their order.
const VERSION: u8 = 1;
/// Bytes of records that make a piece full.
const PIECE: usize = 1 << 20;
/// Bytes of one write while state is taken over.
const BATCH: usize = 4 << 20;
const ORDER: &str = "COMPLETE";

const BEGIN: u8 = 0;
const RECORDS: u8 = 1;
const SAME: u8 = 2;
const END: u8 = 3;

/// Takes pieces; false = no more are wanted.
pub type Give<'a> = dyn FnMut(Vec<u8>) -> bool + 'a;

/// What state is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A shard.
    Shard(ShardId),
    /// The meta group.
    Meta,
}

impl Subject {
    fn number(self) -> u64 {
        match self {
            Self::Shard(shard) => u64::from(shard.0) + 1,
            Self::Meta => 0,
        }
    }
}

/// Makes pieces of records.
pub(crate) struct Packer<'a> {
    give: &'a mut Give<'a>,
    known: &'a HashSet<u128>,
    family: Family,
    body: Vec<u8>,
    pieces: u64,
    wanted: bool,
}

impl<'a> Packer<'a> {
    /// Begins with the mark that the records stand at. Pieces in `known` are only named.
    pub(crate) fn begin(
        subject: Subject,
        mark: &(LogIndex, Vec<u8>),
        known: &'a HashSet<u128>,
        give: &'a mut Give<'a>,
    ) -> Self {
        let mut body = vec![BEGIN];
        put_varint(&mut body, subject.number());
        put_varint(&mut body, mark.0.0);
        put_bytes(&mut body, &mark.1);
        let wanted = give(seal_record(VERSION, &body));
        Self { give, known, family: Family::Pages, body: Vec::new(), pieces: 0, wanted }
    }

    /// Whether the receiver wants more.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }

    /// Records of `family` follow, of a part that no piece shares with another.
    pub(crate) fn part(&mut self, family: Family) {
        self.cut();
        self.family = family;
    }

    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) {
        put_bytes(&mut self.body, key);
        put_bytes(&mut self.body, value);
        while self.body.len() > PIECE * 2 {
            let rest = self.body.split_off(PIECE);
            self.piece(true);
            self.body = rest;
        }
        if self.body.len() >= PIECE {
            self.cut();
        }
    }

    /// Ends the piece.
    fn cut(&mut self) {
        if !self.body.is_empty() {
            self.piece(false);
        }
    }

    /// `goes_on`: the last record continues in the next piece.
    fn piece(&mut self, goes_on: bool) {
        if !self.wanted {
            self.body.clear();
            return;
        }
        let mut body = vec![RECORDS, family_number(self.family), u8::from(goes_on)];
        body.append(&mut self.body);
        let hash = xxh3_128(&body);
        if self.known.contains(&hash) {
            body = vec![SAME];
            body.extend_from_slice(&hash.to_le_bytes());
        }
        self.pieces += 1;
        self.wanted = (self.give)(seal_record(VERSION, &body));
    }

    /// Ends the transfer.
    pub(crate) fn end(mut self) {
        self.cut();
        if self.wanted {
            let mut body = vec![END];
            put_varint(&mut body, self.pieces);
            (self.give)(seal_record(VERSION, &body));
        }
    }
}

fn family_number(family: Family) -> u8 {
    Family::ALL.iter().position(|known| *known == family).unwrap_or_default() as u8
}

/// State that arrives, in a folder of its own.
#[derive(Debug)]
pub struct Incoming {
    dir: PathBuf,
    subject: Subject,
    staged: HashSet<u128>,
    mark: Option<(LogIndex, Vec<u8>)>,
    order: Vec<u128>,
    complete: bool,
}

impl Incoming {
    /// Opens `dir`, making it when it is missing; pieces of an earlier attempt are kept. Complete when all had arrived.
    pub fn open(dir: &Path, subject: Subject) -> Result<Self, StorageError> {
        let mut incoming = Self {
            dir: dir.to_path_buf(),
            subject,
            staged: HashSet::new(),
            mark: None,
            order: Vec::new(),
            complete: false,
        };
        std::fs::create_dir_all(dir).map_err(|e| incoming.io("make", &e))?;
        for entry in std::fs::read_dir(dir).map_err(|e| incoming.io("list", &e))? {
            let name = entry.map_err(|e| incoming.io("list", &e))?.file_name();
            let hash = name.to_str().filter(|name| name.len() == 32);
            incoming.staged.extend(hash.and_then(|name| u128::from_str_radix(name, 16).ok()));
        }
        match std::fs::read(dir.join(ORDER)) {
            Ok(note) => incoming.read_order(&note)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(incoming.io("read", &error)),
        }
        Ok(incoming)
    }

    /// Whether all pieces are there.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The mark that the state stands at, once the first piece has come.
    pub fn mark(&self) -> Option<&(LogIndex, Vec<u8>)> {
        self.mark.as_ref()
    }

    /// The pieces that are there.
    pub fn known(&self) -> Vec<u128> {
        self.staged.iter().copied().collect()
    }

    /// Starts over with the pieces that are there: another transfer follows.
    pub fn restart(&mut self) -> Result<(), StorageError> {
        if self.complete {
            std::fs::remove_file(self.dir.join(ORDER)).map_err(|e| self.io("remove the order of", &e))?;
        }
        (self.complete, self.mark) = (false, None);
        self.order.clear();
        Ok(())
    }

    /// Keeps a piece; true when it was the last one, and all are on the disk. Fails for pieces that are damaged, out of
    /// order, or of another state.
    pub fn take(&mut self, piece: &[u8]) -> Result<bool, StorageError> {
        let bad = |e: DecodeError| StorageError::corrupt("a piece of state from another node", e.to_string());
        let misfit =
            |what: &str| StorageError::corrupt("a piece of state from another node", what.to_owned());
        let body = open_record(VERSION, piece).map_err(bad)?;
        let mut reader = Reader::new(body);
        let kind = reader.byte().map_err(bad)?;
        if (kind == BEGIN) != self.mark.is_none() {
            return Err(misfit("it is out of order"));
        }
        match kind {
            BEGIN => {
                if reader.varint().map_err(bad)? != self.subject.number() {
                    return Err(misfit("it is of another shard"));
                }
                let index = LogIndex(reader.varint().map_err(bad)?);
                self.mark = Some((index, reader.bytes().map_err(bad)?.to_vec()));
            }
            RECORDS => {
                let hash = xxh3_128(body);
                if !self.staged.contains(&hash) {
                    self.write(&format!("{hash:032x}"), piece)?;
                    self.staged.insert(hash);
                }
                self.order.push(hash);
            }
            SAME => {
                let hash = reader.u128().map_err(bad)?;
                if !self.staged.contains(&hash) {
                    return Err(misfit("it was said to be here and is not"));
                }
                self.order.push(hash);
            }
            END => {
                if reader.varint().map_err(bad)? != self.order.len() as u64 {
                    return Err(misfit("pieces are missing before the end"));
                }
                self.write_order()?;
                self.complete = true;
            }
            _ => return Err(misfit("it is of an unknown kind")),
        }
        Ok(self.complete)
    }

    /// Removes the folder.
    pub fn remove(&self) -> Result<(), StorageError> {
        // The note goes first: without it nothing here counts.
        match std::fs::remove_file(self.dir.join(ORDER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.io("remove", &error));
            }
            _ => {}
        }
        std::fs::remove_dir_all(&self.dir).map_err(|e| self.io("remove", &e))
    }

    fn io(&self, action: &str, error: &std::io::Error) -> StorageError {
        StorageError::Io {
            what: format!("{action} {}", self.dir.display()),
            message: error.to_string(),
            full: error.kind() == std::io::ErrorKind::StorageFull,
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let new = self.dir.join(format!("{name}.new"));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, self.dir.join(name))?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| self.io("write into", &e))
    }

    fn write_order(&self) -> Result<(), StorageError> {
        let Some((index, mark)) = &self.mark else { return Ok(()) };
        let mut body = Vec::new();
        put_varint(&mut body, self.subject.number());
        put_varint(&mut body, index.0);
        put_bytes(&mut body, mark);
        put_varint(&mut body, self.order.len() as u64);
        for hash in &self.order {
            body.extend_from_slice(&hash.to_le_bytes());
        }
        self.write(ORDER, &seal_record(VERSION, &body))
    }

    fn read_order(&mut self, note: &[u8]) -> Result<(), StorageError> {
        let bad = |e: DecodeError| {
            StorageError::corrupt(format!("{}", self.dir.join(ORDER).display()), e.to_string())
        };
        let mut reader = Reader::new(open_record(VERSION, note).map_err(bad)?);
        let subject = reader.varint().map_err(bad)?;
        let index = LogIndex(reader.varint().map_err(bad)?);
        let mark = reader.bytes().map_err(bad)?.to_vec();
        let mut order = Vec::new();
        for _ in 0..reader.count(16).map_err(bad)? {
            order.push(reader.u128().map_err(bad)?);
        }
        let complete =
            subject == self.subject.number() && order.iter().all(|hash| self.staged.contains(hash));
        (self.mark, self.order, self.complete) = (complete.then_some((index, mark)), order, complete);
        Ok(())
    }

    /// All records, in order: family, key, value.
    pub(crate) fn each(
        &self,
        mut each: impl FnMut(Family, &[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut held: Vec<u8> = Vec::new();
        for hash in &self.order {
            let path = self.dir.join(format!("{hash:032x}"));
            let bad = |message: String| StorageError::corrupt(format!("{}", path.display()), message);
            let mut piece = Vec::new();
            File::open(&path).and_then(|mut f| f.read_to_end(&mut piece)).map_err(|e| self.io("read", &e))?;
            let body = open_record(VERSION, &piece).map_err(|e| bad(e.to_string()))?;
            if xxh3_128(body) != *hash {
                return Err(bad("its content is not what its name says".to_owned()));
            }
            let [RECORDS, family, goes_on, records @ ..] = body else {
                return Err(bad("it holds no records".to_owned()));
            };
            let family =
                *Family::ALL.get(usize::from(*family)).ok_or_else(|| bad("an unknown family".into()))?;
            held.extend_from_slice(records);
            if *goes_on != 0 {
                continue;
            }
            let mut reader = Reader::new(&held);
            while !reader.is_empty() {
                let key = reader.bytes().map_err(|e| bad(e.to_string()))?;
                let value = reader.bytes().map_err(|e| bad(e.to_string()))?;
                each(family, key, value)?;
            }
            held.clear();
        }
        Ok(())
    }
}

/// Writes what `incoming` holds into `kv`, in writes of a few MiB. `change` may rewrite a value.
pub(crate) fn write_all(
    kv: &dyn Kv,
    incoming: &Incoming,
    allowed: &[Family],
    change: impl Fn(Family, &[u8], &[u8]) -> Result<Vec<u8>, StorageError>,
) -> Result<(), StorageError> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    incoming.each(|family, key, value| {
        if !allowed.contains(&family) {
            return Err(StorageError::corrupt(
                "state from another node",
                "a record of a family that has no place there",
            ));
        }
        bytes += key.len() + value.len();
        batch.put(family, key.to_vec(), change(family, key, value)?);
        if bytes >= BATCH {
            bytes = 0;
            kv.write(std::mem::take(&mut batch))?;
        }
        Ok(())
    })?;
    kv.write(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::example;

    #[test]
    fn the_example_of_format_md_is_what_is_written_and_read() {
        let known = HashSet::new();
        let mut pieces = Vec::new();
        let mut give = |piece| {
            pieces.push(piece);
            true
        };
        let mark = (LogIndex(5), b"m".to_vec());
        let mut packer = Packer::begin(Subject::Meta, &mark, &known, &mut give);
        packer.part(Family::Meta);
        packer.record(&[1, b'a'], b"xyz");
        packer.end();
        assert_eq!(pieces[1], example::example("state piece"));
        let dir = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::open(dir.path(), Subject::Meta).unwrap();
        let done: Vec<bool> = pieces.iter().map(|piece| incoming.take(piece).unwrap()).collect();
        assert_eq!(done, [false, false, true]);
        assert_eq!(incoming.mark(), Some(&mark));
        let mut records = Vec::new();
        incoming
            .each(|family, key, value| {
                records.push((family, key.to_vec(), value.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(records, [(Family::Meta, vec![1, b'a'], b"xyz".to_vec())]);
    }

    #[test]
    fn a_record_larger_than_a_piece_goes_on_in_the_next() {
        let known = HashSet::new();
        let large: Vec<u8> = (0..5 * PIECE).map(|i| (i * 7 % 251) as u8).collect();
        let mut pieces = Vec::new();
        let mut give = |piece: Vec<u8>| {
            assert!(piece.len() < 3 * PIECE, "{} bytes", piece.len());
            pieces.push(piece);
            true
        };
        let mut packer = Packer::begin(Subject::Meta, &(LogIndex(5), Vec::new()), &known, &mut give);
        packer.part(Family::Meta);
        packer.record(b"k", &large);
        packer.record(b"l", b"small");
        packer.end();
        assert!(pieces.len() > 4);
        let dir = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::open(dir.path(), Subject::Meta).unwrap();
        for piece in &pieces {
            incoming.take(piece).unwrap();
        }
        let mut found = Vec::new();
        incoming
            .each(|_, key, value| {
                found.push((key.to_vec(), value == large));
                Ok(())
            })
            .unwrap();
        assert_eq!(found, [(b"k".to_vec(), true), (b"l".to_vec(), false)]);
    }
}
