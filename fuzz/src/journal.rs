//! Any bytes as a journal, and any damage to one that was written in order: what is claimed was claimed before, in a prefix
//! of the checkpoints, and reading it twice claims the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use drover_durability::{Access, Disk, DiskFile, Journal};
use drover_protocol::geometry::Geometry;
use drover_protocol::have::ChunkSet;
use drover_protocol::id::ImageId;

const CHUNKS: u32 = 300;
const IMAGE: ImageId = ImageId::from_bytes([7; 32]);
const PATH: &str = "journal";

pub(crate) fn run(bytes: &[u8]) {
    let geometry = Geometry::of_len(u64::from(CHUNKS) * 65_536).expect("a length of an image");
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let disk = Memory::default();
    let mut truth = vec![ChunkSet::empty(&geometry)];
    if kind & 1 == 0 {
        disk.put(rest);
    } else {
        let Some((checkpoints, damage)) = rest.split_at_checked(usize::from(kind >> 1) % 16 * 3) else { return };
        let mut journal = Journal::create(&disk, Path::new(PATH), IMAGE, &geometry).expect("memory does not fail");
        for step in checkpoints.chunks_exact(3) {
            let start = u32::from(u16::from_le_bytes([step[0], step[1]])) % CHUNKS;
            let mut chunks = ChunkSet::empty(&geometry);
            chunks.insert_run(start..(start + u32::from(step[2]) % 32).min(CHUNKS));
            journal.append(&chunks).expect("memory does not fail");
            truth.push(journal.claimed().clone());
        }
        disk.damage(damage);
    }
    let claimed = open(&disk, &geometry);
    let is_prefix = truth.contains(&claimed);
    // Who writes bytes of its own choice can't make a tag, either.
    assert!(is_prefix, "claimed what no prefix of the checkpoints claims");
    assert_eq!(open(&disk, &geometry), claimed, "reading it again claims the same");

    let mut more = ChunkSet::empty(&geometry);
    more.insert_run(7..9);
    let mut journal = Journal::open(&disk, Path::new(PATH), IMAGE, &geometry).expect("memory does not fail");
    journal.append(&more).expect("memory does not fail");
    let after = open(&disk, &geometry);
    assert!(after == *journal.claimed() && more.iter().chain(claimed.iter()).all(|chunk| after.contains(chunk)));
}

fn open(disk: &Memory, geometry: &Geometry) -> ChunkSet {
    Journal::open(disk, Path::new(PATH), IMAGE, geometry).expect("memory does not fail").claimed().clone()
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Rc<RefCell<BTreeMap<PathBuf, MemoryFile>>>);

#[derive(Clone, Debug, Default)]
struct MemoryFile(Rc<RefCell<Vec<u8>>>);

impl Memory {
    fn put(&self, bytes: &[u8]) {
        self.0.borrow_mut().insert(PATH.into(), MemoryFile(Rc::new(RefCell::new(bytes.to_vec()))));
    }

    /// Changes bytes of the journal, cuts it or lengthens it.
    fn damage(&self, damage: &[u8]) {
        let file = self.open(Path::new(PATH), Access::Write).expect("it was made");
        let mut bytes = file.0.borrow_mut();
        for step in damage.chunks_exact(4) {
            let at = usize::from(u16::from_le_bytes([step[0], step[1]])) % bytes.len().max(1);
            match step[2] % 4 {
                0 => bytes.truncate(at),
                1 => {
                    let copied = bytes.get(at..).unwrap_or_default().to_vec();
                    bytes.extend(copied);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= step[3];
                    }
                }
            }
            if bytes.len() > 1 << 16 {
                return;
            }
        }
    }
}

impl Disk for Memory {
    type File = MemoryFile;

    fn open(&self, path: &Path, _access: Access) -> Result<MemoryFile> {
        self.0.borrow().get(path).cloned().ok_or(ErrorKind::NotFound.into())
    }

    fn create_new(&self, path: &Path) -> Result<MemoryFile> {
        if self.exists(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = MemoryFile::default();
        self.0.borrow_mut().insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn list(&self, _folder: &Path) -> Result<Vec<String>> {
        Err(Error::other("there is one folder, and nobody lists it"))
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.borrow().contains_key(path)
    }

    fn make_folder(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let file = self.0.borrow_mut().remove(from).ok_or(Error::from(ErrorKind::NotFound))?;
        self.0.borrow_mut().insert(to.to_owned(), file);
        Ok(())
    }

    fn exchange(&self, _one: &Path, _other: &Path) -> Result<()> {
        Err(Error::other("there is one folder"))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.0.borrow_mut().remove(path).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn remove_tree(&self, _folder: &Path) -> Result<()> {
        Err(Error::other("there is one folder"))
    }

    fn sync_folder(&self, _folder: &Path) -> Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.borrow_mut().resize(len as usize, 0);
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.0.borrow();
        let from = bytes.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(Error::from(ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut file = self.0.borrow_mut();
        let end = offset as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let checkpoints = [0, 0, 9, 20, 0, 31, 1, 1, 4, 200, 0, 30];
    let whole = [vec![1 | 4 << 1], checkpoints.to_vec()].concat();
    let cut = [whole.clone(), vec![90, 0, 0, 0]].concat();
    let flipped = [whole.clone(), vec![30, 0, 2, 4], vec![8, 0, 1, 0]].concat();
    vec![whole, cut, flipped, b"\0drvjrnl1".to_vec()]
}
