//! The store against a real disk: what is kept, what survives, what is refused.

mod crash;
mod durability;
mod formats;
mod importing;
mod journal;
mod last_file;
mod refusals;
mod releases;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_protocol::geometry::{CHUNK_LEN, ChunkIndex, Geometry};
use drover_protocol::id::ContentHash;
use drover_protocol::manifest::{Manifest, ManifestBuilder, hash_chunk, is_zeros};
use drover_protocol::rng::Rng;

use super::fault::Step;
use super::seal::unseal;
use super::{Image, Settings, Store};

/// A state folder that is gone in the end, also if masters in it are immutable.
struct TestState {
    folder: tempfile::TempDir,
}

impl TestState {
    fn new() -> Self {
        TestState { folder: tempfile::Builder::new().prefix("drover-store-").tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where a test puts files that are not the store's.
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Store {
        Store::open_with(&self.path(), Settings { immutable: false }).unwrap()
    }
}

impl Drop for TestState {
    fn drop(&mut self) {
        unseal_below(self.folder.path());
    }
}

fn unseal_below(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unseal_below(&entry.path());
        } else {
            unseal(&entry.path());
        }
    }
}

/// Content of which every third chunk is zeros, with a last chunk that is short unless `len` is a multiple.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::seeded(seed);
    let mut bytes = vec![0; len];
    for (number, chunk) in bytes.chunks_mut(CHUNK_LEN as usize).enumerate() {
        if number % 3 != 2 {
            for word in chunk.chunks_mut(8) {
                let random = rng.next_u64().to_le_bytes();
                word.copy_from_slice(&random[..word.len()]);
            }
        }
    }
    bytes
}

/// The manifest of content, made the plain way.
fn manifest_of(content: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new(Geometry::of_len(content.len() as u64).unwrap());
    for chunk in content.chunks(CHUNK_LEN as usize) {
        builder.push((!is_zeros(chunk)).then(|| hash_chunk(chunk)));
    }
    builder.finish(ContentHash::from_bytes(blake3::hash(content).into()))
}

fn chunk_of<'a>(content: &'a [u8], manifest: &Manifest, chunk: ChunkIndex) -> &'a [u8] {
    let start = manifest.geometry().chunk_offset(chunk) as usize;
    &content[start..start + manifest.geometry().chunk_len(chunk) as usize]
}

/// Writes a chunk as a transfer does.
fn store_chunk(image: &Image, content: &[u8], chunk: ChunkIndex) -> Result<(), super::WriteError> {
    let bytes = chunk_of(content, image.manifest(), chunk);
    image.write(image.manifest().verify(chunk, bytes).unwrap()).map(drop)
}

/// Begins an image and writes all of its data, as a transfer does.
fn begin_whole(store: &Store, manifest: &Manifest, content: &[u8]) -> Arc<Image> {
    let image = store.begin(manifest.clone()).unwrap();
    for chunk in manifest.data_chunks().iter() {
        store_chunk(&image, content, chunk).unwrap();
    }
    image
}

/// Flips one bit in a file, whatever its mode.
fn damage(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// A hook with which reaching `step` fails.
fn failing(step: Step, kind: io::ErrorKind) -> impl FnMut(Step) -> io::Result<()> + 'static {
    move |reached| if reached == step { Err(kind.into()) } else { Ok(()) }
}
