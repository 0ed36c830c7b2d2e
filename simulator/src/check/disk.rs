//! A disk that is as unkind as disks are: what was not synced may be lost, torn or kept, in any choice, and any operation may
//! fail.
//!
//! A file has the bytes that reads see (`live`), the bytes that a crash leaves for certain (`durable`), and between the two the
//! operations that were not synced. A folder's names have the same two states, and the operations on names form one list, as
//! in a journalling file system: an operation survives a crash only if those before it in the same folder do.
//!
//! After a sync that failed the operations are not pending any more, and each may or may not have reached the disk: the pages
//! are clean, and a later sync that succeeds says nothing about them. They may also have been dropped from memory.
//!
//! Bytes are kept in sectors of 512, those that were never written are zeros and take no room.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};
use std::rc::Rc;

use drover_durability::{Access, Disk, DiskFile};
use drover_protocol::rng::Rng;

use super::fault::{Fault, FaultCounts};

/// Length of what is written whole or not at all, in bytes.
pub(super) const SECTOR_LEN: u64 = 512;

/// How likely each operation is to fail.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskDice {
    /// A read fails.
    pub(super) read_error: f64,
    /// A write fails.
    pub(super) write_error: f64,
    /// A sync fails.
    pub(super) sync_error: f64,
}

/// A disk. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(super) struct SimDisk {
    inner: Rc<RefCell<Inner>>,
}

/// An open file on it.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    node: usize,
    access: Access,
}

/// Everything on a disk; a copy of it is what a crash image is made from.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) nodes: Vec<Node>,
    /// Operations on names that are not durable, in order.
    pub(super) names: Vec<NameOp>,
    pub(super) rng: Rng,
    pub(super) dice: DiskDice,
    pub(super) is_full: bool,
    pub(super) is_read_only: bool,
    /// After so many more operations the power goes.
    pub(super) cut_after: Option<u32>,
    is_cut: Cell<bool>,
    /// The sync after so many more fails, for tests.
    pub(super) sync_fails_after: Option<u32>,
    /// Operations that change something, so far.
    pub(super) ops: u64,
    pub(super) counts: FaultCounts,
    /// Sectors that rotted, by file, until they are written again.
    pub(super) rotten: BTreeSet<(usize, u64)>,
    /// Whether anything ever rotted.
    pub(super) ever_rotted: bool,
    /// Whether anything but the content of a master rotted.
    pub(super) has_rotten_records: bool,
}

/// A file or folder.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Content),
    Folder(Folder),
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) live: Bytes,
    pub(super) durable: Bytes,
    pub(super) pending: Vec<FileOp>,
}

/// The names in a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) live: BTreeMap<String, usize>,
    pub(super) durable: BTreeMap<String, usize>,
}

/// A length, and the sectors that were written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Bytes {
    pub(super) len: u64,
    pub(super) sectors: BTreeMap<u64, [u8; SECTOR_LEN as usize]>,
}

/// What was done to a file.
#[derive(Clone, Debug)]
pub(super) enum FileOp {
    Write(u64, Rc<[u8]>),
    SetLen(u64),
}

/// What was done to names, in one step: of each folder and name, what it stands for from then on.
#[derive(Clone, Debug)]
pub(super) struct NameOp(pub(super) Vec<(usize, String, Option<usize>)>);

impl SimDisk {
    /// An empty disk.
    pub(super) fn new(seed: u64) -> Self {
        let inner = Inner {
            nodes: vec![Node::Folder(Folder::default())],
            names: Vec::new(),
            rng: Rng::seeded(seed),
            dice: DiskDice::default(),
            is_full: false,
            is_read_only: false,
            cut_after: None,
            is_cut: Cell::new(false),
            sync_fails_after: None,
            ops: 0,
            counts: FaultCounts::default(),
            rotten: BTreeSet::new(),
            ever_rotted: false,
            has_rotten_records: false,
        };
        SimDisk { inner: Rc::new(RefCell::new(inner)) }
    }

    /// A disk with this on it.
    pub(super) fn of(inner: Inner) -> Self {
        SimDisk { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Looks at or changes what is on it, from outside of time.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.inner.borrow_mut())
    }

    /// Whether the power went.
    pub(super) fn is_cut(&self) -> bool {
        self.inner.borrow().is_cut.get()
    }
}

impl Inner {
    /// The node of a path, by one of the two states of the names.
    pub(super) fn find(&self, path: &Path, names: impl Fn(&Folder) -> &BTreeMap<String, usize>) -> Option<usize> {
        let mut node = 0;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Node::Folder(folder) = &self.nodes[node] else { return None };
            node = *names(folder).get(name.to_str()?)?;
        }
        Some(node)
    }

    fn live(&self, path: &Path) -> io::Result<usize> {
        self.find(path, |folder| &folder.live).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The folder that a path is in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(usize, String)> {
        let (parent, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
        let (Some(parent), Some(name)) = (parent, name) else { return Err(ErrorKind::InvalidInput.into()) };
        Ok((self.live(parent)?, name.to_owned()))
    }

    fn folder(&mut self, node: usize) -> io::Result<&mut Folder> {
        match &mut self.nodes[node] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&mut self, node: usize) -> io::Result<&mut Content> {
        match &mut self.nodes[node] {
            Node::File(content) => Ok(content),
            Node::Folder(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Before anything else: whether there is power.
    fn powered(&mut self) -> io::Result<()> {
        if self.is_cut.get() { Err(io::Error::other("the power went")) } else { Ok(()) }
    }

    /// Before each operation that changes something. Syncs change nothing that is seen, but are counted as well.
    fn begin(&mut self, is_write: bool) -> io::Result<()> {
        self.powered()?;
        if let Some(left) = self.cut_after.as_mut() {
            if *left == 0 {
                self.is_cut.set(true);
                return self.powered();
            }
            *left -= 1;
        }
        self.ops += 1;
        if !is_write {
            return Ok(());
        }
        if self.is_read_only {
            self.counts.add(Fault::ReadOnly);
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    /// Before what needs room.
    fn begin_growing(&mut self) -> io::Result<()> {
        self.begin(true)?;
        if self.is_full {
            self.counts.add(Fault::DiskFull);
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync_fails(&mut self) -> bool {
        let is_its_turn = self.sync_fails_after == Some(0);
        self.sync_fails_after = self.sync_fails_after.and_then(|left| left.checked_sub(1));
        let fails = is_its_turn || self.rng.chance(self.dice.sync_error);
        if fails {
            self.counts.add(Fault::SyncError);
        }
        fails
    }

    fn rename(&mut self, changes: Vec<(usize, String, Option<usize>)>) -> io::Result<()> {
        for (folder, name, node) in &changes {
            let live = &mut self.folder(*folder)?.live;
            match node {
                Some(node) => live.insert(name.clone(), *node),
                None => live.remove(name),
            };
        }
        self.names.push(NameOp(changes));
        Ok(())
    }

    /// Whether a name can be given to something new: found out before anything else.
    fn is_free(&mut self, path: &Path) -> io::Result<()> {
        self.powered()?;
        if self.live(path).is_ok() { Err(ErrorKind::AlreadyExists.into()) } else { Ok(()) }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (folder, name) = self.place(path)?;
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.rename(vec![(folder, name, Some(node))])?;
        Ok(node)
    }

    /// Makes the operations on names in a folder durable, and those that they rest on.
    fn sync_names(&mut self, folder: usize) {
        let mut touched = BTreeSet::from([folder]);
        let mut kept = vec![false; self.names.len()];
        for (at, op) in self.names.iter().enumerate().rev() {
            if op.0.iter().any(|(folder, ..)| touched.contains(folder)) {
                touched.extend(op.0.iter().map(|(folder, ..)| *folder));
                kept[at] = true;
            }
        }
        self.apply_names(&kept);
    }

    /// Makes some of the pending operations on names durable; the others stay pending.
    pub(super) fn apply_names(&mut self, kept: &[bool]) {
        let mut left = Vec::new();
        for (op, &is_kept) in std::mem::take(&mut self.names).into_iter().zip(kept) {
            if !is_kept {
                left.push(op);
                continue;
            }
            for (folder, name, node) in op.0 {
                let Node::Folder(folder) = &mut self.nodes[folder] else { continue };
                match node {
                    Some(node) => folder.durable.insert(name, node),
                    None => folder.durable.remove(&name),
                };
            }
        }
        self.names = left;
    }

    /// A sync that fails: what was pending may have got to the disk or not, and is not pending any more.
    fn lose_pending(&mut self, node: usize) -> io::Result<()> {
        let pending = std::mem::take(&mut self.file(node)?.pending);
        let keeps: Vec<bool> = pending.iter().map(|_| self.rng.chance(0.5)).collect();
        let is_dropped = self.rng.chance(0.5);
        let content = self.file(node)?;
        for (op, _) in pending.iter().zip(keeps).filter(|(_, kept)| *kept) {
            content.durable.apply(op);
        }
        if is_dropped {
            content.live = content.durable.clone();
        }
        Ok(())
    }

    /// The power is back; what is on the disk is what reads see.
    pub(super) fn restart(&mut self) {
        self.names.clear();
        for node in &mut self.nodes {
            match node {
                Node::File(content) => {
                    content.pending.clear();
                    content.live.clone_from(&content.durable);
                }
                Node::Folder(folder) => folder.live.clone_from(&folder.durable),
            }
        }
        self.is_cut.set(false);
        self.cut_after = None;
    }
}

impl Bytes {
    fn apply(&mut self, op: &FileOp) {
        match op {
            FileOp::Write(offset, bytes) => self.write(*offset, bytes),
            FileOp::SetLen(len) => self.set_len(*len),
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let within = (at % SECTOR_LEN) as usize;
            let count = rest.len().min(SECTOR_LEN as usize - within);
            let sector = self.sectors.entry(at / SECTOR_LEN).or_insert([0; SECTOR_LEN as usize]);
            sector[within..within + count].copy_from_slice(&rest[..count]);
            at += count as u64;
            rest = &rest[count..];
        }
        self.len = self.len.max(at);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let mut cut = self.sectors.split_off(&(len / SECTOR_LEN));
            if let Some(mut sector) = cut.remove(&(len / SECTOR_LEN)).filter(|_| !len.is_multiple_of(SECTOR_LEN)) {
                sector[(len % SECTOR_LEN) as usize..].fill(0);
                self.sectors.insert(len / SECTOR_LEN, sector);
            }
        }
        self.len = len;
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let (mut at, mut filled) = (offset, 0);
        while filled < len {
            let within = (at % SECTOR_LEN) as usize;
            let count = (len - filled).min(SECTOR_LEN as usize - within);
            if let Some(sector) = self.sectors.get(&(at / SECTOR_LEN)) {
                bytes[filled..filled + count].copy_from_slice(&sector[within..within + count]);
            }
            filled += count;
            at += count as u64;
        }
        bytes
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let mut inner = self.inner.borrow_mut();
        inner.powered()?;
        let node = inner.live(path)?;
        inner.file(node)?;
        Ok(SimFile { disk: self.clone(), node, access })
    }

    fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let mut inner = self.inner.borrow_mut();
        inner.is_free(path)?;
        inner.begin_growing()?;
        let node = inner.add(path, Node::File(Content::default()))?;
        Ok(SimFile { disk: self.clone(), node, access: Access::Write })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut inner = self.inner.borrow_mut();
        inner.powered()?;
        let node = inner.live(folder)?;
        Ok(inner.folder(node)?.live.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.borrow().live(path).is_ok()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.is_free(path)?;
        inner.begin_growing()?;
        inner.add(path, Node::Folder(Folder::default())).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(true)?;
        let node = inner.live(from)?;
        let ((from, old), (to, new)) = (inner.place(from)?, inner.place(to)?);
        inner.rename(vec![(from, old, None), (to, new, Some(node))])
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(true)?;
        let nodes = (inner.live(one)?, inner.live(other)?);
        let ((one, first), (other, second)) = (inner.place(one)?, inner.place(other)?);
        inner.rename(vec![(one, first, Some(nodes.1)), (other, second, Some(nodes.0))])
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        let node = inner.live(path)?;
        inner.file(node)?;
        inner.begin(true)?;
        let (folder, name) = inner.place(path)?;
        inner.rename(vec![(folder, name, None)])
    }

    fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.powered()?;
        let Ok((parent, name)) = inner.place(folder) else { return Ok(()) };
        if !inner.folder(parent)?.live.contains_key(&name) {
            return Ok(());
        }
        inner.begin(true)?;
        inner.rename(vec![(parent, name, None)])
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(false)?;
        let node = inner.live(folder)?;
        if inner.sync_fails() {
            // Names are in the file system's own journal: it tries again by itself.
            return Err(io::Error::other("a sync of a folder failed"));
        }
        inner.sync_names(node);
        Ok(())
    }
}

impl SimFile {
    /// Whether reads see these bytes at a place, and whether a crash leaves them there for certain.
    pub(super) fn has(&self, offset: u64, bytes: &[u8]) -> (bool, bool) {
        let mut inner = self.disk.inner.borrow_mut();
        inner.file(self.node).map_or((false, false), |content| {
            (content.live.read(offset, bytes.len()) == bytes, content.durable.read(offset, bytes.len()) == bytes)
        })
    }

    /// Whether any of these bytes rotted.
    pub(super) fn is_rotten(&self, offset: u64, len: u64) -> bool {
        let sectors = offset / SECTOR_LEN..(offset + len).div_ceil(SECTOR_LEN);
        let inner = self.disk.inner.borrow();
        !inner.rotten.is_empty() && sectors.into_iter().any(|sector| inner.rotten.contains(&(self.node, sector)))
    }

    fn may_write(&self) -> io::Result<()> {
        if self.access == Access::Write { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.begin(false)?;
        if inner.sync_fails() {
            inner.lose_pending(self.node)?;
            return Err(io::Error::other("a sync failed"));
        }
        let content = inner.file(self.node)?;
        for op in std::mem::take(&mut content.pending) {
            content.durable.apply(&op);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.powered()?;
        Ok(inner.file(self.node)?.live.len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        let mut inner = self.disk.inner.borrow_mut();
        inner.begin(true)?;
        let content = inner.file(self.node)?;
        if content.live.len != len {
            content.live.set_len(len);
            content.pending.push(FileOp::SetLen(len));
        }
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.powered()?;
        let read_error = inner.dice.read_error;
        if inner.rng.chance(read_error) {
            inner.counts.add(Fault::ReadError);
            return Err(io::Error::other("a read failed"));
        }
        let content = inner.file(self.node)?;
        if offset + buffer.len() as u64 > content.live.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        buffer.copy_from_slice(&content.live.read(offset, buffer.len()));
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.may_write()?;
        let mut inner = self.disk.inner.borrow_mut();
        inner.begin_growing()?;
        let write_error = inner.dice.write_error;
        let fails = inner.rng.chance(write_error);
        let written = match fails {
            true => &bytes[..inner.rng.below(bytes.len() as u32 + 1) as usize],
            false => bytes,
        };
        let sectors = offset / SECTOR_LEN..(offset + written.len() as u64).div_ceil(SECTOR_LEN);
        for sector in sectors {
            inner.rotten.remove(&(self.node, sector));
        }
        let content = inner.file(self.node)?;
        if !written.is_empty() {
            content.live.write(offset, written);
            content.pending.push(FileOp::Write(offset, written.into()));
        }
        if fails {
            inner.counts.add(Fault::WriteError);
            return Err(io::Error::other("a write failed"));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
